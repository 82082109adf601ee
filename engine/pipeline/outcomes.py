"""How outcomes are built, and those of entries that no chart is concerned with, or that could not be worked on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final, Protocol

import msgspec

from engine.domain.audit import AuditRecord
from engine.domain.chart import Chart
from engine.domain.delivery import DeadLetter, Delivery, Fallen, Stage
from engine.domain.hold import QUESTIONS, Fact, Hold
from engine.domain.message import AckCode, Entry, EntryKind, EntryState
from engine.domain.oncall import Override
from engine.domain.outcome import Dismissal, Effect, EffectKind, Outcome, QualityDecision
from engine.domain.quality import QualityItem, items_of
from engine.domain.why import Reason, What, Why
from engine.errors import Fault, MappingError, MessageError
from engine.hl7v2.header import Header
from engine.hl7v2.message import Message
from engine.mapping.apply import Reading
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.deliver import forward_deliveries
from engine.pipeline.identity import identities, ordered
from engine.pipeline.prepared import Prepared

_WITHHELD: Final[Mapping[str, tuple[Why, ...]]] = {
    "live": (),
    "shadow": (Why(what=What.DELIVERY, reason=Reason.SHADOW),),
    "paused": (Why(what=What.DELIVERY, reason=Reason.PAUSED),),
}
"""Why nothing of a message goes out, by the channel's mode."""


def outcome_of(
    entry: Entry,
    channel: CompiledChannel | None,
    state: EntryState = EntryState.PROCESSED,
    *,
    chart: Chart | None = None,
    patient_key: str | None = None,
    reason: str | None = None,
    effects: Iterable[Effect] = (),
    holds: Collection[Hold] = (),
    deliveries: Iterable[Delivery] = (),
    why: Iterable[Why] = (),
    deviations: Iterable[str] = (),
    quality: Collection[QualityItem] = (),
    encounter_key: str | None = None,
    charts: Iterable[Chart] = (),
    fallen: Iterable[Fallen] = (),
    marked_anew: Iterable[str] = (),
    facts: Iterable[Fact] = (),
    changed: Iterable[str] = (),
    charset: str | None = None,
    dismissals: tuple[Dismissal, ...] = (),
    overrides: tuple[Override, ...] = (),
    quality_decisions: tuple[QualityDecision, ...] = (),
    audit: tuple[AuditRecord, ...] = (),
    letter: DeadLetter | None = None,
    application_ack: AckCode = AckCode.AA,
    error_code: int = 0,
    version: str = "",
) -> Outcome:
    """What an entry comes to: every outcome is built here, so that none forgets what all of them say.

    channel: by whose rules it was decided; none: it has none, or the configuration has it no more. chart: of the
    patient whom it is about; patient_key: where there is none. reason: of an outcome without holds, which say it
    themselves. deliveries: those that the charts ask for; the channel's mode says whether they go out. version: of the
    configuration, where no channel says it. What else there is: as in `Outcome`.
    """
    mode = channel.settings.mode if channel is not None else "live"
    is_message = entry.kind is EntryKind.MESSAGE
    silent = mode != "live" if is_message else mode == "shadow"  # a paused one has delivered, and will again
    if holds:
        holds = {hold.key: hold for hold in holds}.values()
        reason = "held for a person: " + "; also: ".join(dict.fromkeys(hold.text for hold in holds))
        effects = (*effects, *_effects_of(holds, entry))
    deviations = tuple(dict.fromkeys(deviations))
    faults = items_of(deviations) if deviations else ()
    if quality:
        faults = tuple(dict.fromkeys((*faults, *quality)))
    if is_message and silent and state is EntryState.PROCESSED:
        why = (*why, *_WITHHELD[mode])
    return Outcome(
        entry_id=entry.id,
        state=state,
        chart_id=chart.id if chart is not None else None,
        patient_key=chart.patient.key if chart is not None else patient_key,
        reason=reason,
        effects=tuple(effects),
        holds=tuple(holds),
        deliveries=() if silent else tuple(deliveries),
        withheld=tuple(deliveries) if is_message and mode == "shadow" else (),
        why=tuple(why),
        deviations=deviations,
        quality=faults,
        quality_decisions=quality_decisions,
        config_version=channel.version if channel is not None else version,
        channel=channel.settings.name if channel is not None and not is_message else None,
        replay_root=entry.replay_root,
        decision=entry.decision,
        encounter_key=encounter_key,
        charts=tuple(charts),
        fallen=tuple(fallen),
        marked_anew=tuple(marked_anew),
        facts=tuple(facts),
        changed=tuple(changed),
        charset=charset,
        dismissals=dismissals,
        overrides=overrides,
        audit=audit,
        dead_letter=letter,
        application_ack=application_ack,
        error_code=error_code,
        test=entry.test or (not is_message and chart is not None and chart.test),
    )


def _effects_of(holds: Iterable[Hold], entry: Entry) -> Iterator[Effect]:
    for hold in holds:
        subject = hold.subject or hold.chart_id or f"entry-{entry.id}"
        yield Effect(kind=EffectKind.HELD, subject=subject, detail=hold.code)
        if QUESTIONS[hold.code].status:
            yield Effect(kind=EffectKind.SET_ASIDE, subject=subject, detail=hold.code)


def nobody(entry: Entry) -> str:
    """Ordering key of what is forwarded for no known patient."""
    return f"entry-{entry.replay_root or entry.id}"


def recorded_only(entry: Entry, channel: CompiledChannel, header: Header) -> Prepared:
    """An event that no chart is concerned with: recorded, and forwarded where a destination wants the messages."""
    forwards = forward_deliveries(entry, nobody(entry), channel, now=entry.received_at)
    event = header.trigger_event if header.message_code == "ADT" else header.type
    outcome = outcome_of(
        entry,
        channel,
        reason="recorded: this event leaves the charts alone",
        effects=(Effect(kind=EffectKind.WITHOUT_EFFECT, subject=f"entry-{entry.id}", detail=event),),
        deliveries=forwards,
        changed=("message",) if forwards else (),
        deviations=entry.deviations,
    )
    return Prepared(entry=entry, outcome=outcome)


def belonging(prepared: Prepared, channel: CompiledChannel, message: Message | None = None) -> Prepared:
    """With the patient's key, whatever else of the message could not be read. message: if it has been read."""
    charset = channel.settings.charset
    try:
        if message is None:
            message = Message.parse(
                prepared.entry.payload, default=charset.default, fallback=charset.fallback, force=charset.force
            )
        key = ordered(channel.mapping.identifiers(message), channel, reading_of(prepared.entry, channel))[0]
    except (MessageError, MappingError):
        return prepared
    return msgspec.structs.replace(prepared, key=key, identities=identities((key,)))


def reading_of(entry: Entry, channel: CompiledChannel) -> Reading:
    return Reading(channel.zones.default, received(entry))


def received(entry: Entry) -> datetime:
    """When the message came: a replay makes it no newer."""
    return entry.first_received_at or entry.received_at


def dead(entry: Entry, channel: CompiledChannel, error: MessageError | MappingError) -> Prepared:
    return Prepared(entry=entry, outcome=failed(entry, channel, error))


def failed(entry: Entry, channel: CompiledChannel | None, error: MessageError | MappingError) -> Outcome:
    """The outcome of an entry that dies of a fault of its own, or of a rule of ours."""
    version = channel.version if channel is not None else ""
    return undone(entry, error.fault, version=version)


def set_aside(
    entry: Entry, channel: CompiledChannel, state: EntryState, reason: str, letter: DeadLetter | None = None
) -> Prepared:
    """A message that is not worked on: filtered or refused."""
    effects = (Effect(kind=state, subject=f"entry-{entry.id}"),)
    outcome = outcome_of(
        entry, channel, state, reason=reason, effects=effects, letter=letter, deviations=entry.deviations
    )
    return Prepared(entry=entry, outcome=outcome)


def unknown_channel(entry: Entry) -> Outcome:
    """The channel (or the recorded configuration that a replay asked for) is gone."""
    text = "the configuration has no such channel; replay this entry when it has"
    return undone(entry, Fault(error="channel-unknown", text=text))


def of_chart(outcome: Outcome, chart: Chart) -> Outcome:
    """What could not be done to a patient, so that it is seen there."""
    return msgspec.structs.replace(outcome, chart_id=chart.id, patient_key=chart.patient.key)


def internal_failure(entry: Entry, channel_version: str, error: BaseException) -> Outcome:
    """The outcome of an entry whose processing broke unexpectedly: its bytes stay, a person looks at it."""
    text = f"processing broke with {type(error).__name__}; see the log of that time"
    return undone(entry, Fault(error="internal", text=text), version=channel_version)


def undone(entry: Entry, fault: Fault, *, version: str = "") -> Outcome:
    """The outcome of an entry that could not be worked on."""
    letter = DeadLetter.of(Stage.PROCESSING, fault)
    return outcome_of(
        entry,
        None,
        EntryState.DEAD,
        reason=letter.detail,
        effects=(Effect(kind=EntryState.DEAD, subject=f"entry-{entry.id}"),),
        letter=letter,
        deviations=entry.deviations,
        application_ack=AckCode.AE,
        error_code=fault.hl7_code,
        version=version,
    )


class Decided(Protocol):
    """An outcome, or one as it was recorded."""

    @property
    def entry_id(self) -> int: ...
    @property
    def state(self) -> EntryState: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def patient_key(self) -> str | None: ...
    @property
    def encounter_key(self) -> str | None: ...
    @property
    def effects(self) -> tuple[Effect, ...]: ...
    @property
    def why(self) -> tuple[Why, ...]: ...
    @property
    def changed(self) -> tuple[str, ...]: ...
    @property
    def deviations(self) -> tuple[str, ...]: ...
    @property
    def quality(self) -> tuple[QualityItem, ...]: ...
    @property
    def charset(self) -> str | None: ...
    @property
    def application_ack(self) -> AckCode: ...
    @property
    def error_code(self) -> int: ...
    @property
    def config_version(self) -> str: ...
    @property
    def test(self) -> bool: ...


_ELSEWHERE: Final = tuple(Why(what=what, reason=Reason.IN_SHADOW) for what in (What.PLAN, What.SCORE))


def beside(decided: Decided) -> Outcome:
    """What the living are told of a message that was decided in shadow: what became of it, and nothing that it did.

    So it has no chart, effect or delivery, leaves no dead letter and asks nobody; its sender is answered as ever.
    """
    processed = decided.state is EntryState.PROCESSED
    delivery = tuple(why for why in decided.why if why.what is What.DELIVERY)
    return Outcome(
        entry_id=decided.entry_id,
        state=decided.state,
        reason=": ".join(filter(None, ("in shadow", decided.reason))) if processed else decided.reason,
        patient_key=decided.patient_key,
        encounter_key=decided.encounter_key,
        effects=tuple(effect for effect in decided.effects if effect.kind == EffectKind.WITHOUT_EFFECT),
        why=(*_ELSEWHERE, *delivery) if processed else (),
        changed=decided.changed,
        deviations=decided.deviations,
        quality=decided.quality,
        charset=decided.charset,
        application_ack=decided.application_ack,
        error_code=decided.error_code,
        config_version=decided.config_version,
        test=decided.test,
    )
