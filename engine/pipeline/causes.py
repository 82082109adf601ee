"""Causes that are no messages: acts of people, what is due, later replies and changes elsewhere.

A cause is decided on the chart as it is when its turn comes. One that can't be done any more changes nothing: whoever
waits is told why, and it stands in the journal.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from engine.care.event import Applied
from engine.domain.audit import AuditRecord
from engine.domain.cause import Cause, Due, action_of, read
from engine.domain.chart import Charts
from engine.domain.message import Entry
from engine.domain.outcome import Effect, EffectKind, Outcome
from engine.errors import Fault
from engine.pipeline.acts import ACT_RULES
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.difference import difference
from engine.pipeline.due import DUE_RULES
from engine.pipeline.follow import follow
from engine.pipeline.outcomes import of_chart, outcome_of, undone, unknown_channel
from engine.pipeline.prepared import Prepared
from engine.pipeline.receipts import RECEIPT_RULES
from engine.pipeline.rule import Deciding, NotDoneError, Rule

RULES: Final[Mapping[type[Cause], Rule]] = {**ACT_RULES, **DUE_RULES, **RECEIPT_RULES}
"""By the type of the cause."""


def read_cause(entry: Entry, _channel: CompiledChannel | None) -> Prepared:
    """Read the payload. Never raises for it: a fault becomes a dead letter."""
    try:
        cause = read(entry.payload)
    except ValueError as error:
        return Prepared(entry=entry, outcome=undone(entry, Fault(error="act-unreadable", text=str(error))))
    charts = frozenset((cause.chart_id,)) if cause.chart_id else frozenset()
    return Prepared(entry=entry, cause=cause, charts=charts, bounded=isinstance(cause, Due))


def decide_cause(prepared: Prepared, channel: CompiledChannel | None, charts: Charts, now: datetime) -> Outcome:
    """channel: that of the patient's chart; none: the configuration has it no more, and no destination is told."""
    entry, cause = prepared.entry, prepared.cause
    assert cause is not None  # noqa: S101  # else `read_cause` has decided
    rule = RULES[type(cause)]
    if isinstance(cause, Due):
        now = max(now, cause.at)  # it has come, though the clock may have been set back since that was seen
    heard = Applied()
    deciding = Deciding(entry.first_received_at or entry.received_at, now, entry, channel, heard, charts.overrides)
    before = charts.living(cause.chart_id)
    if rule.needs_channel and channel is None and before is not None:
        return of_chart(unknown_channel(entry), before)
    about = rule.subjects(cause, before)
    subject = about[0].partition(":")[2]
    try:
        after = rule.apply(cause, before, deciding)
    except NotDoneError as error:
        effect = Effect(kind=EffectKind.NOT_DONE, subject=subject, detail=error.code)
        return outcome_of(entry, channel, reason=str(error), effects=(effect,), chart=before)
    changed = (follow(before, after, deciding),) if after is not None else ()
    final, effects, deliveries, kinds, fallen, anew = difference(charts, changed, {}, channel, now)
    action = action_of(cause)
    return outcome_of(
        entry,
        channel,
        chart=before,
        charts=final,
        deliveries=deliveries,
        effects=(Effect(kind=action, subject=subject, detail=""), *heard.effects, *effects),
        why=heard.whys,
        deviations=heard.deviations,
        quality=heard.faults,
        changed=kinds,
        fallen=fallen,
        marked_anew=anew,
        dismissals=rule.dismissals(cause),
        overrides=rule.overrides(cause, deciding),
        quality_decisions=rule.quality(cause),
        audit=tuple(
            AuditRecord(
                at=deciding.at,
                actor=cause.actor,
                action=action,
                subject=subject,
                reason=cause.reason,
                patients=(before.id,) if before is not None else (),
                entry=entry.id,
                whence=cause.whence,
            )
            for subject in about
            if rule.audited
        ),
    )
