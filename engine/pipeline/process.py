"""The pure heart: one entry and the charts it touches in, one Outcome out.

No await, no socket, no SQL, no clock and no randomness: the same entry, channel, charts and time give the same Outcome.
That makes a crash before the record harmless, a replay safe, and `handoff try` the same code without the last step.

Two steps, so that the processor can load all charts of a batch in one query between them: `prepare` reads the message
and says which identities and visits it touches; `decide` works on the charts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from zlib import crc32

import msgspec

from engine.care.adt.event import Applied, Event, Meaning, Merge
from engine.care.adt.merge import apply_merges, merges_in_doubt
from engine.care.adt.patient import apply_event
from engine.care.times import believed
from engine.domain.chart import Chart, Charts
from engine.domain.delivery import DeadLetter, Delivery, Stage
from engine.domain.encounter import Encounter
from engine.domain.hold import QUESTIONS, Fact, Hold, HoldCode
from engine.domain.message import AckCode, Entry, EntryKind, EntryState
from engine.domain.outcome import Effect, EffectKind, Outcome
from engine.domain.patient import Identifier
from engine.domain.why import Reason, What, Why
from engine.errors import (
    INTERNAL_ERROR,
    SEGMENT_SEQUENCE,
    Fault,
    MappingError,
    MessageError,
)
from engine.hl7v2.header import Header
from engine.hl7v2.message import Message
from engine.mapping.apply import Mapped, Reading
from engine.mapping.functions import UNKNOWN_CODE
from engine.pipeline.acts import decide_act, read_act
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.deliver import forward_deliveries
from engine.pipeline.difference import difference, together
from engine.pipeline.identity import (
    check_namesakes,
    identities,
    merges_as_known,
    namesakes,
    new_chart_id,
    ordered,
    pair,
    visit_authority_of,
)
from engine.pipeline.plan import CLASS_UNKNOWN, replan, rescore
from engine.pipeline.prepared import Prepared

MOVEMENT_NOT_CURRENT: Final = "movement-not-current"
MOVEMENT_TIME: Final = "ZBE-2"
"""Where the time of a movement came from, whatever field the mapping reads it from."""

_TAKEN_BACK_BY: Final[Mapping[str, str]] = {"A01": "A11", "A03": "A13", "A04": "A11", "A05": "A38"}
"""An event whose movement is cancelled (ZBE-4, IHE ITI TF-2: 3.31) says what its own cancel says."""

UNKNOWN_CODING_SYSTEM: Final = "unknown-coding-system"

_ONCE: Final = ("EVN", "PID", "PV1", "MRG")
"""Segments that a message has once, or once for each patient of a merge (HL7 v2.9.1 chapter 3, message structures)."""

MERGE_GROUPS_MAX: Final = 100
MERGES_MAX: Final = 500
"""Pairs of identifiers in one message. More have no meaning, and would hold up everybody else's messages."""


def process(entry: Entry, channel: CompiledChannel, charts: Charts, now: datetime) -> Outcome:
    """Both steps at once. `charts` must hold every chart that the entry's identities and visits lead to."""
    return decide(prepare(entry, channel), channel, charts, now)


def prepare(entry: Entry, channel: CompiledChannel | None) -> Prepared:
    """Read the entry by the reader of its kind. Never raises for what it holds: a fault of it becomes a dead letter.

    channel: of a message; none: the configuration has no such channel. Other kinds have none.
    """
    return _READERS[entry.kind](entry, channel)


def _read_message(entry: Entry, channel: CompiledChannel | None) -> Prepared:
    """Read the message, apply filter and mapping."""
    if channel is None:
        return Prepared(entry=entry, outcome=_unknown_channel(entry))
    if entry.refusal is not None:
        letter = DeadLetter.of(Stage.INTAKE, entry.refusal)
        return _belonging(_decided(entry, channel, EntryState.REFUSED, letter=letter), channel)
    try:
        return _read(entry, channel)
    except (MessageError, MappingError) as error:
        return _belonging(_dead(entry, channel, error), channel)


def decide(prepared: Prepared, channel: CompiledChannel | None, charts: Charts, now: datetime) -> Outcome:
    """Work on the charts. Does not change `charts`: the caller adds the new versions for the next entry to see.

    channel: of a message its own, else that of the patient's chart (`channel_of`).
    """
    if prepared.outcome is not None:
        return of_patient(prepared.outcome, prepared, charts)
    if prepared.act is not None:
        return decide_act(prepared, prepared.act, channel, charts)
    if channel is None:
        return _unknown_channel(prepared.entry)
    try:
        if prepared.held:
            return _hold(prepared, channel, charts)
        return _decide(prepared, channel, charts, now)
    except (MessageError, MappingError) as error:
        outcome = _dead(prepared.entry, channel, error).outcome
        if outcome is None:  # pragma: no cover - _dead always decides
            raise
        return of_patient(outcome, prepared, charts)


def channel_of(prepared: Prepared, charts: Charts) -> str:
    """The name of the channel by whose rules an entry is decided; empty: of none."""
    if prepared.entry.kind is EntryKind.MESSAGE:
        return prepared.entry.channel
    owners = (charts.living(chart_id) for chart_id in prepared.charts)
    return next((owner.channel for owner in owners if owner is not None), "")


_READERS: Final[Mapping[EntryKind, Callable[[Entry, CompiledChannel | None], Prepared]]] = {
    EntryKind.MESSAGE: _read_message,
    EntryKind.ACT: lambda entry, _channel: read_act(entry),
}


def of_patient(outcome: Outcome, prepared: Prepared, charts: Charts) -> Outcome:
    """The outcome of a message that changed no chart, under the patient it names, so that it is seen there."""
    key = prepared.patient
    if key is None:
        return outcome
    chart = charts.find(key)
    if chart is None:
        return msgspec.structs.replace(outcome, patient_key=key.key)
    return msgspec.structs.replace(outcome, chart_id=chart.id, patient_key=chart.patient.key)


def _belonging(prepared: Prepared, channel: CompiledChannel, message: Message | None = None) -> Prepared:
    """With the patient's key, whatever else of the message could not be read. message: if it has been read."""
    charset = channel.settings.charset
    try:
        if message is None:
            message = Message.parse(
                prepared.entry.payload, default=charset.default, fallback=charset.fallback, force=charset.force
            )
        key = ordered(channel.mapping.identifiers(message), channel, _reading(prepared.entry, channel))[0]
    except (MessageError, MappingError):
        return prepared
    return msgspec.structs.replace(prepared, key=key, identities=identities((key,)))


def _read(entry: Entry, channel: CompiledChannel) -> Prepared:
    settings = channel.settings
    charset = settings.charset
    message = Message.parse(entry.payload, default=charset.default, fallback=charset.fallback, force=charset.force)
    reading = _reading(entry, channel)
    if channel.filter is not None and not channel.filter(message, reading.budget):
        return _decided(entry, channel, EntryState.FILTERED, reason=f"the channel's filter: {settings.filter}")
    header = message.header
    meaning = channel.events.of(header.trigger_event) if header.message_code == "ADT" else Meaning.RECORD
    if meaning is Meaning.RECORD:
        recorded = _recorded_only(entry, channel, header)
        return _belonging(recorded, channel, message) if header.message_code == "ADT" else recorded
    deviations = (*entry.deviations, *message.deviations)
    if meaning is Meaning.HOLD:
        return _read_unsupported(entry, channel, message, deviations)
    if meaning is Meaning.MERGE:
        return _read_merges(entry, channel, message, reading, deviations)
    if not message.segments("PID"):
        raise MessageError("pid-missing", "the PID segment is missing", hl7_code=SEGMENT_SEQUENCE, location="PID")
    _check_single(message, _ONCE)
    reading.zone = channel.zones.choose(message, reading)
    mapped = channel.mapping.apply(message, reading)
    if mapped.movement is not None and mapped.movement.action == "CANCEL":
        meaning = channel.events.of(_TAKEN_BACK_BY.get(header.trigger_event, header.trigger_event))
        if meaning is Meaning.RECORD:
            return _belonging(_recorded_only(entry, channel, header), channel, message)
        if meaning is Meaning.HOLD:
            return _read_unsupported(entry, channel, message, deviations)
    _note_codes(mapped, channel, reading)
    event = _event(entry, channel, meaning, mapped, header, reading)
    deviations = (*deviations, *dict.fromkeys(reading))
    return Prepared(
        entry=entry,
        events=(event,),
        identities=identities((*event.identifiers, *namesakes(event.identifiers[0], channel))),
        visits=frozenset((event.visit,)) if event.visit else frozenset(),
        deviations=deviations,
        charset=message.charset,
        clock=_clock(entry, mapped, event),
    )


def _clock(entry: Entry, mapped: Mapped, event: Event) -> tuple[int, float] | None:
    claims, text = event.claims, mapped.times.get("MSH-7", "")
    if claims is None or "T" not in text or entry.replay_of is not None:
        return None
    sent = claims.moments.get("MSH-7")
    if sent is None:  # not believed: all the more is it measured
        sent = datetime.fromisoformat(text).timestamp()
    return event.sender, claims.received - sent


def _note_codes(mapped: Mapped, channel: CompiledChannel, reading: Reading) -> None:
    """Note codes that the tables behind scores and plans do not know: what they say would be left out in silence."""
    for diagnosis in mapped.encounter.get("diagnoses") or ():
        if not channel.inputs.knows_system(diagnosis.system):
            reading.append(f"{UNKNOWN_CODING_SYSTEM}:DG1-3.3")
            break
    disposition = mapped.encounter.get("disposition")
    if disposition and not channel.dispositions.knows(disposition):
        reading.append(f"{UNKNOWN_CODE}:PV1-36")


def _reading(entry: Entry, channel: CompiledChannel) -> Reading:
    return Reading(channel.zones.default, _received(entry))


def _read_merges(
    entry: Entry, channel: CompiledChannel, message: Message, reading: Reading, deviations: tuple[str, ...]
) -> Prepared:
    events: list[Event] = []
    merges: list[Merge] = []
    touched: set[tuple[str, str, str]] = set()
    reading.zone = channel.zones.choose(message, reading)
    for group in _groups(message):
        _check_single(group, _ONCE)
        mapped = channel.mapping.apply(group, reading)
        event = _event(entry, channel, Meaning.PERSON, mapped, message.header, reading)
        if len(merges) + len(mapped.merged) > MERGES_MAX:
            raise _merge_structure("MRG-1", f"more than {MERGES_MAX} identifiers to merge in one message")
        key, pairs = pair(entry, event.identifiers[0], mapped, channel, reading)
        if key != event.identifiers[0]:
            event = msgspec.structs.replace(event, identifiers=(key, *event.identifiers[1:]))
        events.append(event)
        merges.extend(pairs)
        named = (key, *(one.merged for one in pairs), *(one.partner for one in pairs if one.partner is not None))
        touched |= identities(event.identifiers)
        touched |= identities((*named, *(other for one in named for other in namesakes(one, channel))))
    return Prepared(
        entry=entry,
        events=tuple(events),
        merges=tuple(merges),
        identities=frozenset(touched),
        deviations=tuple(dict.fromkeys((*deviations, *reading))),
        charset=message.charset,
    )


def _check_single(message: Message, names: tuple[str, ...]) -> None:
    """Raises MessageError for a second patient or visit in a message that speaks of one: nobody is left out."""
    present = message.present
    for name in names:
        if name in present and len(present[name]) > 1:
            raise MessageError(
                "segment-repeated",
                f"a second {name} segment: a message of this event speaks of one patient and one visit",
                hl7_code=SEGMENT_SEQUENCE,
                location=f"{name}[2]",
            )


def _groups(message: Message) -> list[Message]:
    """The PID/MRG groups of a merge, each as a message of its own. Raises MessageError when they do not pair."""
    groups = message.groups("PID")
    if not groups:
        raise _merge_structure("PID", "the PID segment is missing")
    if len(groups) > MERGE_GROUPS_MAX:
        raise _merge_structure("PID", f"more than {MERGE_GROUPS_MAX} PID/MRG groups in one message")
    if len(message.segments("MRG")) != len(groups) or any(len(group.segments("MRG")) != 1 for group in groups):
        raise _merge_structure("MRG", "each PID segment must be followed by one MRG segment")
    return groups


def _merge_structure(location: str, text: str) -> MessageError:
    return MessageError("merge-structure", text, hl7_code=SEGMENT_SEQUENCE, location=location)


def _event(
    entry: Entry, channel: CompiledChannel, meaning: Meaning, mapped: Mapped, header: Header, reading: Reading
) -> Event:
    identifiers = ordered(mapped.identifiers, channel, reading)
    key = identifiers[0]
    times = _times(entry, mapped, channel, reading)
    encounter, movement = mapped.encounter, mapped.movement
    if movement is not None and movement.is_current:
        times = {**times, MOVEMENT_TIME: movement.at} if movement.at else times
    elif movement is not None:
        encounter = {name: value for name, value in encounter.items() if name != "location"}
        reading.append(f"{MOVEMENT_NOT_CURRENT}:ZBE")
    order = channel.settings.order
    claims = believed(
        times,
        _received(entry),
        ahead_seconds=order.ahead_seconds_max,
        behind_seconds=order.behind_days_max * 86_400,
        notes=reading,
    )
    visit, visit_authority = None, None
    if mapped.visit is not None and mapped.visit.value:
        visit_authority = visit_authority_of(mapped.visit, channel, reading)
        visit = f"{visit_authority or key.authority}:{mapped.visit.value}"
    return Event(
        meaning=meaning,
        at=(claims.recorded(), entry.replay_root or entry.id),
        chart_id=new_chart_id(entry, key, channel),
        identifiers=identifiers,
        patient=mapped.patient,
        encounter=encounter,
        visit=visit,
        visit_number=mapped.visit.value if mapped.visit is not None and visit else None,
        visit_authority=visit_authority,
        account=mapped.account,
        has_visit=mapped.pv1_present,
        event_time=claims.happened(),
        claims=claims,
        sent=claims.sent(),
        sender=_sender(entry, header),
        unread_death=mapped.unread.get("deceased_at") or mapped.unread.get("deceased"),
        settled=entry.settled,
        decided_at=(entry.received_at.timestamp(), entry.id) if entry.decision else None,
        decision=entry.decision,
    )


def _sender(entry: Entry, header: Header) -> int:
    """Names MSH-3 and MSH-4 of a channel among the senders of a patient's messages; never 0."""
    return crc32(b"|".join(header.fields[2:4]), crc32(entry.channel.encode())) or 1


def _received(entry: Entry) -> datetime:
    """When the message came: a replay makes it no newer."""
    return entry.first_received_at or entry.received_at


def _times(entry: Entry, mapped: Mapped, channel: CompiledChannel, reading: Reading) -> Mapping[str, str]:
    """When the event was.

    A local time that may mean two moments, because the clock was turned back between them, is the later one if that had
    come when the message was received: the first one would make it older than what was sent before it.
    """
    ambiguous = [source for source in ("EVN-6", "EVN-2", "MSH-7") if f"ambiguous-local-time:{source}" in reading]
    if not ambiguous:
        return mapped.times
    times = dict(mapped.times)
    latest = _received(entry) + timedelta(seconds=channel.settings.order.ahead_seconds_max)
    for source in ambiguous:
        first = datetime.fromisoformat(times[source])
        second = first.replace(tzinfo=reading.zone, fold=1)
        if first < second.astimezone(UTC) <= latest:
            times[source] = second.isoformat()
    return times


def _decide(prepared: Prepared, channel: CompiledChannel, charts: Charts, now: datetime) -> Outcome:
    entry = prepared.entry
    view = charts
    merges, events = prepared.merges, prepared.events
    last = Applied()
    holds: list[Hold] = []
    changed: dict[str, Chart] = {}
    if merges:
        merges, events = merges_as_known(merges, events, charts, channel)
        last, holds = _merge(charts, merges, events, entry, channel)
        changed = {chart.id: chart for chart in [*last.others, *([last.chart] if last.chart else [])]}
        view = _overlay(charts, changed.values())
    folded = _folded(changed)
    effects = list(last.effects)
    deviations = [*prepared.deviations, *last.deviations]
    facts: list[Fact] = []
    note = last.note
    subjects: dict[str, str | None] = {}
    whys: list[Why] = []
    for event in events:
        check_namesakes(event.identifiers[0], view, channel)
        last = apply_event(view, event, channel.dispositions)
        effects.extend(last.effects)
        deviations.extend(last.deviations)
        facts.extend(last.facts)
        holds.extend(_asked(last, entry))
        note = note or last.note
        if last.chart is None:  # pragma: no cover - apply_event always gives a chart
            continue
        changed[last.chart.id] = last.chart
        subjects[last.chart.id] = last.encounter
        if len(events) > 1:
            view = _overlay(view, [last.chart])
    for chart_id, subject in subjects.items():
        before = together(charts, chart_id, folded)
        changed[chart_id], withheld, found = _follow_up(before, changed[chart_id], subject, channel, now)
        whys.extend(found if not whys else [why for why in found if why not in whys])
        if withheld:
            effects.extend(withheld)
            if any(effect.kind == CLASS_UNKNOWN for effect in withheld):
                deviations.append(f"{CLASS_UNKNOWN}:PV1-2")
            note = note or withheld[0].detail
    final, result, deliveries, kinds = difference(charts, changed.values(), folded, channel)
    effects.extend(result)
    spoken_of = changed.get(last.chart.id) if last.chart is not None else None
    if spoken_of is not None and (forwards := forward_deliveries(entry, spoken_of.id, channel)):
        deliveries.extend(forwards)
        kinds["message"] = None
    whys.extend(_WITHHELD_BY_MODE[channel.settings.mode])
    held = tuple({hold.key: hold for hold in holds}.values()) if holds else ()
    effects.extend(_effects_of(held, entry) if held else ())
    return Outcome(
        entry_id=entry.id,
        state=EntryState.PROCESSED,
        reason=_held_for(held) if held else note,
        chart_id=spoken_of.id if spoken_of else None,
        patient_key=spoken_of.patient.key if spoken_of else None,
        encounter_key=last.encounter,
        charts=tuple(final),
        deliveries=tuple(deliveries) if channel.settings.mode == "live" else (),
        effects=tuple(effects),
        holds=held,
        facts=tuple(facts),
        why=tuple(whys),
        changed=tuple(kinds),
        deviations=tuple(dict.fromkeys(deviations)),
        charset=prepared.charset,
        config_version=channel.version,
        replay_root=entry.replay_root,
        decision=entry.decision,
    )


def _effects_of(holds: tuple[Hold, ...], entry: Entry) -> Iterator[Effect]:
    for hold in holds:
        subject = hold.subject or hold.chart_id or f"entry-{entry.id}"
        yield Effect(kind=EffectKind.HELD, subject=subject, detail=hold.code)
        if QUESTIONS[hold.code].status:
            yield Effect(kind=EffectKind.SET_ASIDE, subject=subject, detail=hold.code)


def _held_for(holds: tuple[Hold, ...]) -> str:
    return "held for a person: " + "; also: ".join(hold.text for hold in holds)


def _merge(
    charts: Charts, merges: tuple[Merge, ...], events: tuple[Event, ...], entry: Entry, channel: CompiledChannel
) -> tuple[Applied, list[Hold]]:
    """Apply the merges whose PID does not speak of another person than the chart does; those are held."""
    doubtful = merges_in_doubt(charts, events, merges)
    certain = tuple(one for one in merges if one not in doubtful)
    applied = apply_merges(charts, certain, channel.dispositions, entry.replay_root or entry.id)
    contradicted = [
        Hold(
            code=HoldCode.PERSON_CONTRADICTED,
            location="PID-5",
            subject=chart.id,
            chart_id=chart.id,
            patient_key=chart.patient.key,
            detail=detail,
        )
        for chart, detail in doubtful.values()
    ]
    return applied, [*contradicted, *_asked(applied, entry)]


def _asked(applied: Applied, entry: Entry) -> list[Hold]:
    """What the rules left to a person, with the patient it is about."""
    if not applied.holds:
        return []
    chart = applied.chart
    holds = [one for one in applied.holds if not (entry.settled and QUESTIONS[one.code].of_its_time)]
    if chart is None or not holds:
        return holds
    return [msgspec.structs.replace(one, chart_id=chart.id, patient_key=chart.patient.key) for one in holds]


def _folded(changed: Mapping[str, Chart]) -> dict[str, list[Chart]]:
    """The charts that a merge has folded away, by the id of the chart that each ended in, chains followed."""
    folded: dict[str, list[Chart]] = {}
    for chart in changed.values():
        survivor = chart
        while survivor.merged_into is not None:
            survivor = changed[survivor.merged_into]
        if survivor is not chart:
            folded.setdefault(survivor.id, []).append(chart)
    return folded


def _follow_up(
    before: Chart | None, chart: Chart, subject: str | None, channel: CompiledChannel, now: datetime
) -> tuple[Chart, list[Effect], list[Why]]:
    """Scores and tasks; skipped when nothing but the time of the last word has changed.

    Also what was withheld, and why there are new ones or none.
    """
    if (
        before is not None
        and before.patient == chart.patient
        and before.encounters == chart.encounters
        and before.death_stated.doubts == chart.death_stated.doubts
    ):
        return chart, [], []
    chart = _ordered_encounters(chart)
    chart, scored = rescore(before, chart, subject, channel, now)
    chart, withheld, planned = replan(before, chart, subject, channel, now)
    return chart, withheld, planned + scored


def _ordered_encounters(chart: Chart) -> Chart:
    """Encounters by admission, those without one last, so that a chart reads as it happened."""

    def order(encounter: Encounter) -> tuple[bool, str, str]:
        return (encounter.admitted_at is None, encounter.admitted_at or "", encounter.key)

    encounters = tuple(sorted(chart.encounters, key=order))
    return chart if encounters == chart.encounters else msgspec.structs.replace(chart, encounters=encounters)


def _overlay(charts: Charts, changed: Iterable[Chart]) -> Charts:
    """The charts with newer versions on top, the original left as it is."""
    view = charts.copy()
    for chart in changed:
        view.add(chart)
    return view


def _read_unsupported(
    entry: Entry, channel: CompiledChannel, message: Message, deviations: tuple[str, ...]
) -> Prepared:
    """An event about identities that is not applied here: each patient that it names has a question instead."""
    trigger = message.header.trigger_event
    named: list[Identifier | None] = []
    held: list[Hold] = []
    for number, group in enumerate((message.groups("PID") or [message])[:MERGE_GROUPS_MAX]):
        try:
            named.append(ordered(channel.mapping.identifiers(group), channel, _reading(entry, channel))[0])
        except (MessageError, MappingError):
            named.append(None)
        place = "PID-3" if number == 0 else f"PID[{number + 1}]-3"
        text = f"{trigger}: {QUESTIONS[HoldCode.EVENT_NOT_SUPPORTED].text}"
        held.append(Hold(code=HoldCode.EVENT_NOT_SUPPORTED, location=place, detail=text))
    return Prepared(
        entry=entry,
        identities=identities(tuple(key for key in named if key is not None)),
        deviations=deviations,
        charset=message.charset,
        held=tuple(held),
        named=tuple(named),
    )


def _hold(prepared: Prepared, channel: CompiledChannel, charts: Charts) -> Outcome:
    """The outcome of an event that is for a person to see to."""
    entry = prepared.entry
    owners = [charts.find(key) if key is not None else None for key in prepared.named]
    held = tuple(
        msgspec.structs.replace(
            hold,
            chart_id=owner.id if owner is not None else None,
            patient_key=owner.patient.key if owner is not None else key.key if key is not None else None,
        )
        for hold, key, owner in zip(prepared.held, prepared.named, owners, strict=True)
    )
    first = owners[0]
    forwards = forward_deliveries(entry, first.id if first is not None else _nobody(entry), channel)
    return Outcome(
        entry_id=entry.id,
        state=EntryState.PROCESSED,
        reason=_held_for(held[:1]),
        chart_id=first.id if first is not None else None,
        patient_key=held[0].patient_key,
        deliveries=tuple(forwards) if channel.settings.mode == "live" else (),
        effects=tuple(_effects_of(held, entry)),
        holds=held,
        why=_WITHHELD_BY_MODE[channel.settings.mode],
        changed=("message",) if forwards else (),
        deviations=tuple(dict.fromkeys(prepared.deviations)),
        charset=prepared.charset,
        config_version=channel.version,
        replay_root=entry.replay_root,
        decision=entry.decision,
    )


def _nobody(entry: Entry) -> str:
    """Ordering key of what is forwarded for no known patient."""
    return f"entry-{entry.replay_root or entry.id}"


def _recorded_only(entry: Entry, channel: CompiledChannel, header: Header) -> Prepared:
    """An event that no chart is concerned with: recorded, and forwarded where a destination wants the messages."""
    forwards = forward_deliveries(entry, _nobody(entry), channel)
    event = header.trigger_event if header.message_code == "ADT" else header.type
    return _decided(
        entry,
        channel,
        EntryState.PROCESSED,
        reason="recorded: this event leaves the charts alone",
        deliveries=tuple(forwards) if channel.settings.mode == "live" else (),
        why=_WITHHELD_BY_MODE[channel.settings.mode],
        changed=("message",) if forwards else (),
        effect=Effect(kind=EffectKind.WITHOUT_EFFECT, subject=f"entry-{entry.id}", detail=event),
    )


_WITHHELD_BY_MODE: Final[Mapping[str, tuple[Why, ...]]] = {
    "live": (),
    "shadow": (Why(what=What.DELIVERY, reason=Reason.SHADOW),),
    "paused": (Why(what=What.DELIVERY, reason=Reason.PAUSED),),
}


def _dead(entry: Entry, channel: CompiledChannel, error: MessageError | MappingError) -> Prepared:
    fault = error.fault
    letter = DeadLetter.of(Stage.PROCESSING, fault)
    return _decided(entry, channel, EntryState.DEAD, letter=letter, ack=AckCode.AE, code=fault.hl7_code)


def _decided(
    entry: Entry,
    channel: CompiledChannel,
    state: EntryState,
    *,
    reason: str | None = None,
    letter: DeadLetter | None = None,
    deliveries: tuple[Delivery, ...] = (),
    ack: AckCode = AckCode.AA,
    code: int = 0,
    effect: Effect | None = None,
    why: tuple[Why, ...] = (),
    changed: tuple[str, ...] = (),
) -> Prepared:
    outcome = Outcome(
        entry_id=entry.id,
        state=state,
        reason=reason if reason is not None else letter.detail if letter else None,
        deliveries=deliveries,
        dead_letter=letter,
        deviations=entry.deviations,
        application_ack=ack,
        error_code=code,
        config_version=channel.version,
        replay_root=entry.replay_root,
        decision=entry.decision,
        effects=(effect or Effect(kind=state, subject=f"entry-{entry.id}"),),
        why=why,
        changed=changed,
    )
    return Prepared(entry=entry, outcome=outcome)


def _unknown_channel(entry: Entry) -> Outcome:
    """The channel (or the recorded configuration that a replay asked for) is gone."""
    return undone(entry, "channel-unknown", "the configuration has no such channel; replay this entry when it has")


def internal_failure(entry: Entry, channel_version: str, error: BaseException) -> Outcome:
    """The outcome of an entry whose processing broke unexpectedly: its bytes stay, a person looks at it."""
    detail = f"processing broke with {type(error).__name__}; see the log of that time"
    return undone(entry, "internal", detail, version=channel_version)


def undone(entry: Entry, error: str, detail: str, *, version: str = "") -> Outcome:
    """The outcome of an entry that could not be worked on, for no fault of its own."""
    letter = DeadLetter.of(Stage.PROCESSING, Fault(error=error, text=detail))
    return Outcome(
        entry_id=entry.id,
        state=EntryState.DEAD,
        reason=letter.detail,
        dead_letter=letter,
        deviations=entry.deviations,
        application_ack=AckCode.AE,
        error_code=INTERNAL_ERROR,
        config_version=version,
        replay_root=entry.replay_root,
        decision=entry.decision,
    )
