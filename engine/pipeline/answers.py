"""What an answer to a text, none in time, or a carrier's refusal leaves behind on a chart."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from msgspec import structs

from engine.care.texts.consent import ConsentState, said, standing
from engine.domain.chart import Chart
from engine.domain.consent import ContactConsent
from engine.domain.task import Task, TaskState
from engine.domain.text import Text, Then
from engine.pipeline.contactconsents import statement_id
from engine.pipeline.rule import Deciding

BY_CARRIER: Final = "carrier"
"""`ContactConsent.how` of a number that the carrier lets us write to no more."""


def followed_up(chart: Chart, text: Text, what: str, then: Then, deciding: Deciding) -> Chart:
    """The chart with what follows from an answer (`what`: its meaning), or from none in time; once."""
    if then.alert is None:
        return chart
    channel = deciding.channel
    own = channel.key("alert", text.id, what) if channel is not None else f"{text.id}/{what}"
    if any(task.id == own for task in chart.tasks):
        return chart
    return structs.replace(chart, tasks=(*chart.tasks, task_of(own, then, text, chart, deciding, of=text.series)))


def task_of(own_id: str, then: Then, about: Text | None, chart: Chart, deciding: Deciding, *, of: str) -> Task:
    """The task that an answer, or a reply, has for somebody. about: the text that it belongs to. of: the series that
    says so.
    """
    assert then.alert is not None  # noqa: S101  # as callers have seen
    stay = chart.encounter(about.encounter) if about is not None and about.encounter is not None else None
    return Task(
        id=own_id,
        kind=then.alert.kind,
        encounter=stay.key if stay is not None else None,
        due_at=deciding.now + timedelta(seconds=then.due_seconds),
        escalate_at=None,
        state=TaskState.OPEN,
        assignee=then.alert.assignee,
        reason=then.alert.reason,
        protocol=of,
        protocol_version=about.series_version if about is not None else None,
        discharge=about.discharge if about is not None else 0,
        created_at=deciding.now,
        page=then.alert.page,
        raised_for=about.id if about is not None else None,
    )


def blocked(chart: Chart, text: Text, code: str, deciding: Deciding) -> Chart:
    """The chart after a carrier has said that it lets us write to a number no more: on record as if the patient had."""
    if text.number is None or standing(chart, text.purpose, text.channel, text.number).state is ConsentState.REVOKED:
        return chart
    entry = deciding.entry.replay_root or deciding.entry.id
    return said(
        chart,
        ContactConsent(
            id=statement_id(entry), purpose=text.purpose, channel=text.channel, number=text.number, given=False,
            at=deciding.at, how=BY_CARRIER, by=text.destination or BY_CARRIER, evidence=code, word=code,
        ),
    )  # fmt: skip
