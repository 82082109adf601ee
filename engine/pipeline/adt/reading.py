"""What an ADT message says of patients and stays: events, merges, questions, and what has to be loaded for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from engine.care.adt.event import (
    REARRANGING,
    RENUMBERING,
    Change,
    Event,
    Link,
    Meaning,
    Merge,
    VisitNumber,
)
from engine.care.adt.says import CANCELS, CLASS_CHANGE, class_before, heard
from engine.domain.hold import QUESTIONS, Hold, HoldCode
from engine.domain.message import Entry
from engine.domain.patient import Identifier
from engine.errors import SEGMENT_SEQUENCE, MappingError, MessageError
from engine.hl7v2.header import Header
from engine.hl7v2.message import Message
from engine.mapping.apply import Mapped, Reading
from engine.mapping.functions import UNKNOWN_CODE
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.identity import (
    are_alike,
    identities,
    may_be_key,
    namesakes,
    new_chart_id,
    ordered,
    pair,
    rank,
    settled,
    visit_authority_of,
    with_namesakes,
)
from engine.pipeline.outcomes import belonging, reading_of, recorded_only
from engine.pipeline.person import check_single, event_of, event_times, prepared_event, read_patient
from engine.pipeline.prepared import Prepared

CODE: Final = "ADT"
"""MSH-9.1."""

MOVEMENT_NOT_CURRENT: Final = "movement-not-current"

MOVEMENT_TIME: Final = "ZBE-2"
"""Where the time of a movement came from, whatever field the mapping reads it from."""

_TAKEN_BACK_BY: Final[Mapping[str, str]] = {
    "A01": "A11", "A02": "A12", "A03": "A13", "A04": "A11", "A05": "A38", "A09": "A33", "A10": "A32", "A14": "A27",
    "A15": "A26", "A16": "A25", "A21": "A52", "A22": "A53", "A54": "A55",
}  # fmt: skip
"""An event whose movement is cancelled (ZBE-4, IHE ITI TF-2: 3.31) says what its own cancel says."""

_NO_DEATH_MARKS: Final = ("", '""', "N", "NO", "0", "F", "FALSE")
_NO_DEATH_TIMES: Final = ("00000000", "00010101", "99991231", "0", '""')

UNKNOWN_CODING_SYSTEM: Final = "unknown-coding-system"

_MERGES: Final = frozenset({Meaning.MERGE, Meaning.MERGE_WITH_ACCOUNT})

MERGE_GROUPS_MAX: Final = 100

MERGES_MAX: Final = 500
"""Pairs of identifiers in one message. More have no meaning, and would hold up everybody else's messages."""


def read_adt(entry: Entry, channel: CompiledChannel, message: Message, reading: Reading) -> Prepared:
    """What an ADT message says of charts. Raises MessageError and MappingError."""
    header = message.header
    meaning = channel.events.of(header.trigger_event)
    if meaning is Meaning.RECORD:
        if not _may_tell_of_a_death(message):
            return belonging(recorded_only(entry, channel, header), channel, message)
        meaning = Meaning.PERSON  # whatever else the event means: what it says of the person counts as in an A31
    if meaning is Meaning.HOLD:
        return _read_unsupported(entry, channel, message)
    if meaning in _MERGES or meaning in RENUMBERING:
        if not message.segments("MRG") and meaning in RENUMBERING:
            return _read_unsupported(entry, channel, message)
        return _read_merges(entry, channel, message, reading, meaning)
    if meaning in REARRANGING:
        return _read_changes(entry, channel, message, reading, meaning)
    if meaning in {Meaning.SWAP, Meaning.LINK, Meaning.UNLINK}:
        return _read_two(entry, channel, message, reading, meaning)
    if meaning is Meaning.DELETE_PERSON:
        return _read_deletion(entry, channel, message, reading)
    mapped = read_patient(channel, message, reading)
    cancelled: Meaning | None = None
    if mapped.movement is not None and mapped.movement.action == "CANCEL":
        meaning = channel.events.of(_TAKEN_BACK_BY.get(header.trigger_event, header.trigger_event))
        if meaning is Meaning.RECORD:
            return belonging(recorded_only(entry, channel, header), channel, message)
        if meaning is Meaning.HOLD:
            return _read_unsupported(entry, channel, message)
        # A reversal has its own code (A07 of an A06), or that of what it takes back: ZBE-6 says which.
        if meaning in CLASS_CHANGE and (message.get("ZBE-6") or header.trigger_event) == header.trigger_event:
            meaning, cancelled = Meaning.UPDATE, meaning
    _note_codes(mapped, channel, reading)
    event = _event(entry, channel, meaning, mapped, header, reading)
    if cancelled is not None:
        said = class_before(cancelled, event.encounter)
        event = msgspec.structs.replace(event, encounter=said, cancels=cancelled)
    former = event.former_visit.key if event.former_visit is not None else None
    visits = tuple(visit for visit in (event.visit, former) if visit)
    return prepared_event(CODE, entry, channel, message, mapped, event, reading, visits=visits)


_DEATH_BESIDES: Final = ". The message says besides that the patient has died: nothing was done about that either"


def _may_tell_of_a_death(message: Message) -> bool:
    """PID-29 or PID-30 says more than that the patient is alive."""
    mark, at = (message.get(path) or "" for path in ("PID-30", "PID-29"))
    return bool(at and at[:8] not in _NO_DEATH_TIMES) or mark.strip().upper() not in _NO_DEATH_MARKS


def _note_codes(mapped: Mapped, channel: CompiledChannel, reading: Reading) -> None:
    """Note codes that the tables behind scores and plans do not know: what they say would be left out in silence."""
    for diagnosis in mapped.encounter.get("diagnoses") or ():
        if not channel.inputs.knows_system(diagnosis.system):
            reading.append(f"{UNKNOWN_CODING_SYSTEM}:DG1-3.3")
            break
    disposition = mapped.encounter.get("disposition")
    if disposition and not channel.dispositions.knows(disposition):
        reading.append(f"{UNKNOWN_CODE}:PV1-36")


def _read_merges(
    entry: Entry, channel: CompiledChannel, message: Message, reading: Reading, meaning: Meaning
) -> Prepared:
    """A merge, or (`RENUMBERING`) a number that becomes another one. Raises MessageError and MappingError."""
    events: list[Event] = []
    merges: list[Merge] = []
    changes: list[Change] = []
    touched: set[tuple[str, str, str]] = set()
    reading.zone = channel.zones.choose(message, reading)
    for group in _groups(message):
        check_single(group)
        mapped = channel.mapping.apply(group, reading)
        event = _event(entry, channel, Meaning.PERSON, mapped, message.header, reading)
        if len(merges) + len(mapped.merged) > MERGES_MAX:
            raise _merge_structure("MRG-1", f"more than {MERGES_MAX} identifiers to merge in one message")
        among = _taking_the_place(group)
        if meaning in RENUMBERING and _is_of_no_patient(mapped, among, channel, reading):
            key, pairs = event.identifiers[0], list[Merge]()
        else:
            key, pairs = pair(entry, event.identifiers[0], mapped, channel, reading, among=among)
        if key != event.identifiers[0]:
            event = msgspec.structs.replace(event, identifiers=(key, *event.identifiers[1:]))
        events.append(event)
        merges.extend(pairs)
        if meaning is Meaning.MERGE_WITH_ACCOUNT and mapped.merged_account and mapped.account:
            changes.append(_change(entry, channel, Meaning.MERGE_ACCOUNTS, len(events) - 1, event, mapped, reading))
        named = (key, *(one.merged for one in pairs), *(one.partner for one in pairs if one.partner is not None))
        touched |= identities(event.identifiers)
        touched |= identities((*named, *(other for one in named for other in namesakes(one, channel))))
    if not merges:
        return belonging(recorded_only(entry, channel, message.header), channel, message)
    return Prepared(
        entry=entry,
        code=CODE,
        meaning=meaning,
        events=tuple(events),
        merges=tuple(merges),
        changes=tuple(changes),
        identities=frozenset(touched),
        deviations=tuple(dict.fromkeys((*entry.deviations, *message.deviations, *reading))),
        charset=message.charset,
    )


def _read_changes(
    entry: Entry, channel: CompiledChannel, message: Message, reading: Reading, meaning: Meaning
) -> Prepared:
    """Stays that become another patient's, or get another number. Raises MessageError and MappingError."""
    groups = [part for group in message.groups("PID")[: MERGE_GROUPS_MAX + 1] for part in _parts(group)]
    if not groups or not all(part.segments("MRG") for part in groups):
        return _read_unsupported(entry, channel, message)
    if len(groups) > MERGE_GROUPS_MAX:
        raise _merge_structure("MRG", f"more than {MERGE_GROUPS_MAX} PID/MRG groups in one message")
    reading.zone = channel.zones.choose(message, reading)
    events: list[Event] = []
    changes: list[Change] = []
    for group in groups:
        check_single(group)
        mapped = channel.mapping.apply(group, reading)
        of_visit = mapped.visit is not None and bool(mapped.visit.value)
        event = _event(entry, channel, Meaning.UPDATE if of_visit else Meaning.PERSON, mapped, message.header, reading)
        events.append(event)
        if _says_nothing(meaning, mapped):
            continue
        changes.append(_change(entry, channel, meaning, len(events) - 1, event, mapped, reading))
    if not changes:
        return belonging(recorded_only(entry, channel, message.header), channel, message)
    keys = {one for event in events for one in with_namesakes(event.identifiers, channel)}
    numbers = [number for one in changes for number in (one.visit, one.old_visit) if number is not None]
    return Prepared(
        entry=entry,
        code=CODE,
        meaning=meaning,
        events=tuple(events),
        changes=tuple(changes),
        identities=frozenset(keys | _identities_of(changes, channel)),
        visits=frozenset(number.key for number in numbers),
        deviations=tuple(dict.fromkeys((*entry.deviations, *message.deviations, *reading))),
        charset=message.charset,
    )


def _says_nothing(meaning: Meaning, mapped: Mapped) -> bool:
    """What has become another one is none of what stays are found by here: an alternate visit number (A51)."""
    if meaning is not Meaning.CHANGE_VISIT:
        return False
    old, new = mapped.merged_visit, mapped.visit
    return old is None or not old.value or (new is not None and new.value == old.value)


def _parts(group: Message) -> list[Message]:
    """A patient's group, cut at each MRG where it has several: then a PV1 stands behind each (A45)."""
    return group.groups("MRG") if len(group.segments("MRG")) > 1 else [group]


def _change(
    entry: Entry,
    channel: CompiledChannel,
    meaning: Meaning,
    place: int,
    event: Event,
    mapped: Mapped,
    reading: Reading,
) -> Change:
    sent = [settled(one, channel, reading, "MRG-1") for one in mapped.merged]
    was = tuple(dict.fromkeys(one for one in sent if may_be_key(one, channel)))

    def number(sent: Identifier | None) -> VisitNumber | None:
        return _visit_number(sent, event.identifiers[0].authority, channel, reading)

    return Change(
        what=meaning,
        event=place,
        key=event.identifiers[0],
        chart_id=new_chart_id(entry, event.identifiers[0], channel),
        was=was,
        was_id=new_chart_id(entry, was[0], channel) if was and rank(was[0], channel) is not None else "",
        account=mapped.account,
        old_account=mapped.merged_account,
        visit=number(mapped.visit),
        old_visit=number(mapped.merged_visit),
        location="MRG" if place == 0 else f"MRG[{place + 1}]",
    )


def _visit_number(
    sent: Identifier | None, default: str, channel: CompiledChannel, reading: Reading
) -> VisitNumber | None:
    """default: the authority that stands in."""
    if sent is None or not sent.value:
        return None
    authority = visit_authority_of(sent, channel, reading)
    return VisitNumber(key=f"{authority or default}:{sent.value}", number=sent.value, authority=authority)


def _identities_of(changes: list[Change], channel: CompiledChannel) -> frozenset[tuple[str, str, str]]:
    named = [one for change in changes for one in (change.key, *change.was)]
    return identities((*named, *(other for one in named for other in namesakes(one, channel))))


def _read_two(entry: Entry, channel: CompiledChannel, message: Message, reading: Reading, meaning: Meaning) -> Prepared:
    """Two patients who change places, or are linked. Raises MessageError and MappingError."""
    merge = message.segments("MRG")
    if meaning is not Meaning.SWAP and merge:
        how = channel.settings.identity.link_with_mrg
        if how == "merge" and meaning is Meaning.LINK:
            return _read_merges(entry, channel, message, reading, Meaning.MERGE)
        return _read_unsupported(entry, channel, message)
    groups = message.groups("PID")
    stays = meaning is not Meaning.SWAP or all(group.segments("PV1") for group in groups)
    if len(groups) != 2 or not stays:
        return _read_unsupported(entry, channel, message)
    reading.zone = channel.zones.choose(message, reading)
    events: list[Event] = []
    for group in groups:
        check_single(group)
        mapped = channel.mapping.apply(group, reading)
        what = Meaning.TRANSFER if meaning is Meaning.SWAP else Meaning.PERSON
        events.append(_event(entry, channel, what, mapped, message.header, reading))
    one, other = (event.identifiers[0] for event in events)
    if one == other:
        return _read_unsupported(entry, channel, message)
    linked = meaning is Meaning.LINK
    return Prepared(
        entry=entry,
        code=CODE,
        meaning=meaning,
        events=tuple(events),
        links=() if meaning is Meaning.SWAP else (Link(one=one, other=other, linked=linked),),
        identities=frozenset().union(*(with_namesakes(event.identifiers, channel) for event in events)),
        visits=frozenset(event.visit for event in events if event.visit),
        deviations=tuple(dict.fromkeys((*entry.deviations, *message.deviations, *reading))),
        charset=message.charset,
    )


def _read_deletion(entry: Entry, channel: CompiledChannel, message: Message, reading: Reading) -> Prepared:
    """A person who is to be deleted: whether anything hangs on them, the charts say."""
    prepared = _read_unsupported(entry, channel, message)
    if len(prepared.named) != 1 or prepared.named[0] is None:
        return prepared
    mapped = read_patient(channel, message, reading)
    event = _event(entry, channel, Meaning.PERSON, mapped, message.header, reading)
    return msgspec.structs.replace(prepared, meaning=Meaning.DELETE_PERSON, deleted=event)


_OTHER_NUMBERS: Final = (("MRG-1", "PID-3"), ("MRG-4", "PID-2"), ("MRG-2", "PID-4"))
"""Where a number that was stands, and where the one that has taken its place does (HL7 v2.3.1 chapter 3, 3.3.8)."""


def _taking_the_place(group: Message) -> frozenset[str] | None:
    """The numbers of a patient that can have taken the place of those in MRG; none: all of them.

    Where MRG-1 is empty, MRG-4 or MRG-2 is read. Of a sender that fills the field beside it (PID-2, PID-4) that is the
    number before that one, whatever stands in PID-3.
    """
    for before, after in _OTHER_NUMBERS:
        if group.get(before):
            now = group.all(f"{after}[*].1")
            return frozenset(now) if any(now) and before != "MRG-1" else None
    return None


def _is_of_no_patient(mapped: Mapped, among: frozenset[str] | None, channel: CompiledChannel, reading: Reading) -> bool:
    """Patients are found by none of the numbers that have become others; or they have stayed as they were."""
    if among is not None and not any(one.value in among for one in mapped.identifiers):
        return True
    sent = (settled(one, channel, reading, "PID-3") for one in mapped.identifiers)
    left = [one for one in sent if may_be_key(one, channel)]
    was = (settled(one, channel, reading, "MRG-1") for one in mapped.merged)
    return all(not may_be_key(one, channel) or any(are_alike(one, other) for other in left) for one in was)


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
    times = event_times(entry, channel, mapped, reading)
    encounter, movement = heard(meaning, mapped.encounter), mapped.movement
    if movement is not None and movement.is_current:
        times = {**times, MOVEMENT_TIME: movement.at} if movement.at else times
    elif movement is not None and channel.events.of(header.trigger_event) not in CANCELS:
        encounter = {name: value for name, value in encounter.items() if name != "location"}
        reading.append(f"{MOVEMENT_NOT_CURRENT}:ZBE")
    visit, visit_authority = None, None
    if mapped.visit is not None and mapped.visit.value:
        visit_authority = visit_authority_of(mapped.visit, channel, reading)
        visit = f"{visit_authority or identifiers[0].authority}:{mapped.visit.value}"
    former: dict[str, Any] = {}
    if meaning in CLASS_CHANGE:  # MRG names the stay as it was, and merges nobody
        number = _visit_number(mapped.merged_visit, visit_authority or identifiers[0].authority, channel, reading)
        former = {"former_visit": number, "former_account": mapped.merged_account}
    return event_of(
        Event,
        entry,
        channel,
        header,
        mapped,
        reading,
        identifiers=identifiers,
        times=times,
        meaning=meaning,
        encounter=encounter,
        visit=visit,
        visit_number=mapped.visit.value if mapped.visit is not None and visit else None,
        visit_authority=visit_authority,
        account=mapped.account,
        **former,
        has_visit=mapped.pv1_present,
    )


def _read_unsupported(entry: Entry, channel: CompiledChannel, message: Message) -> Prepared:
    """An event about identities that is not applied here: each patient that it names has a question instead."""
    trigger = message.header.trigger_event
    named: list[Identifier | None] = []
    held: list[Hold] = []
    for number, group in enumerate((message.groups("PID") or [message])[:MERGE_GROUPS_MAX]):
        try:
            named.append(ordered(channel.mapping.identifiers(group), channel, reading_of(entry, channel))[0])
        except (MessageError, MappingError):
            named.append(None)
        place = "PID-3" if number == 0 else f"PID[{number + 1}]-3"
        text = f"{trigger}: {QUESTIONS[HoldCode.EVENT_NOT_SUPPORTED].text}"
        if _may_tell_of_a_death(group) or channel.dispositions.means_death(group.get("PV1-36")):
            text += _DEATH_BESIDES
        held.append(Hold(code=HoldCode.EVENT_NOT_SUPPORTED, location=place, detail=text))
    return Prepared(
        entry=entry,
        code=CODE,
        identities=identities(tuple(key for key in named if key is not None)),
        deviations=(*entry.deviations, *message.deviations),
        charset=message.charset,
        held=tuple(held),
        named=tuple(named),
    )
