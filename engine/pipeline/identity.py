"""Who a message speaks of: the channel's key among its identifiers, and how the numbers of a merge pair.

Decisions 0003 and 0014 say why. Pure, as the heart is: the day on which the message came is given.
"""

from __future__ import annotations

from typing import Final

import msgspec

from engine.care.adt.event import Change, Merge
from engine.care.event import PatientEvent
from engine.domain.chart import Charts
from engine.domain.ids import beginning_like, by_entry
from engine.domain.message import Entry
from engine.domain.patient import Identifier
from engine.errors import DATA_TYPE, REQUIRED_FIELD_MISSING, UNKNOWN_KEY, MappingError, MessageError
from engine.hl7v2.message import Message
from engine.mapping.apply import Mapped, Reading
from engine.mapping.functions import SentIdentifier
from engine.pipeline.channel import CompiledChannel

AUTHORITY_ALIAS: Final = "authority-alias"
AUTHORITY_CONTRADICTED: Final = "authority-contradicted"
KEY_BY_POSITION: Final = "key-by-position"
OLD_NUMBER_UNSURE: Final = "old-number-unsure"

Identity = tuple[str, str, str]
"""Authority, type, value."""


def settled(sent: Identifier, channel: CompiledChannel, notes: list[str], location: str) -> Identifier:
    """An identifier with the one name that the channel has for its authority.

    An HD that names two authorities of the configuration names none: it is kept under both, and is nobody's key.
    """
    known = channel.settings.identity.names
    authority = sent.authority
    if sent.__class__ is not SentIdentifier:
        name = known.get(authority, authority) if known else authority
        if name and name == authority:
            return sent
        return msgspec.structs.replace(sent, authority=name or channel.settings.default_authority)
    universal = sent.universal if isinstance(sent, SentIdentifier) else ""
    name = known.get(authority, authority)
    if universal and known:
        first, second = known.get(authority), known.get(universal)
        if first is not None and second is not None and first != second:
            notes.append(f"{AUTHORITY_CONTRADICTED}:{location}")
            name = f"{authority}&{universal}"
        elif first is not None or second is not None:
            name = first or second or authority
            if first is None or second is None:
                notes.append(f"{AUTHORITY_ALIAS}:{location}")
    return Identifier(value=sent.value, authority=name or channel.settings.default_authority, type=sent.type)


def visit_authority_of(visit: Identifier, channel: CompiledChannel, notes: list[str]) -> str | None:
    """Who gave a visit number; none: the message does not say."""
    return settled(visit, channel, notes, "PV1-19").authority if visit.authority else None


def ordered(sent_as: tuple[Identifier, ...], channel: CompiledChannel, reading: Reading) -> tuple[Identifier, ...]:
    """A message's identifiers with the channel's key first. Raises MessageError when none may be the key.

    A number that was no longer or not yet valid on the day of receipt (CX-7, CX-8) is the key only when no other one
    may be.
    """
    found: dict[Identifier, bool] = {}
    for sent in sent_as:
        identifier = settled(sent, channel, reading, "PID-3")
        stale = isinstance(sent, SentIdentifier) and not reading.valid(sent.effective, sent.expires)
        found[identifier] = found.get(identifier, True) and stale
    ranked = [
        ((stale, *place), index)
        for index, (identifier, stale) in enumerate(found.items())
        if (place := rank(identifier, channel)) is not None
    ]
    if not ranked:
        raise MessageError(
            "identifier-missing",
            "no identifier that may be the patient's key (see the channel's identity setting)",
            hl7_code=REQUIRED_FIELD_MISSING,
            location="PID-3",
        )
    first, best = min(ranked)
    if len(ranked) > 1 and any(other == first and index != best for other, index in ranked):
        reading.append(f"{KEY_BY_POSITION}:PID-3")
    complete = tuple(found)
    return complete if best == 0 else (complete[best], *complete[:best], *complete[best + 1 :])


def authorities_of(payload: bytes, channel: CompiledChannel) -> set[str]:
    """The authorities of all of a message's numbers; none when it can't be read."""
    charset = channel.settings.charset
    try:
        message = Message.parse(payload, default=charset.default, fallback=charset.fallback, force=charset.force)
        sent = [one for group in message.groups("PID") for one in channel.mapping.identifiers(group)]
    except (MessageError, MappingError):
        return set()
    return {settled(one, channel, [], "PID-3").authority for one in sent}


def rank(identifier: Identifier, channel: CompiledChannel) -> tuple[int, int] | None:
    """How well an identifier serves as the patient's key, the best first; none: it is none."""
    settings = channel.settings.identity
    by_type = settings.type_order.get(identifier.type)
    if by_type is None:
        return None
    if not settings.authorities:
        return (0, by_type)
    by_authority = settings.authority_order.get(identifier.authority)
    return None if by_authority is None else (by_authority, by_type)


def may_be_key(identifier: Identifier, channel: CompiledChannel) -> bool:
    """Whether patients may be found by it. One without a type may be of any: senders leave the type of a number that
    was (MRG-1) out where they write that of the number that is.
    """
    if identifier.type:
        return rank(identifier, channel) is not None
    order = channel.settings.identity.authority_order
    return not order or identifier.authority in order


def new_chart_id(entry: Entry, identifier: Identifier, channel: CompiledChannel) -> str:
    """Of a chart that this entry creates: charts stand in all indexes in the order of the entries that created them.

    Nobody finds a patient by it; the identifiers lead to the chart.
    """
    own = channel.key("chart", identifier.authority, identifier.type, identifier.value)
    return beginning_like(by_entry(entry.id), own)


def identities(identifiers: tuple[Identifier, ...]) -> frozenset[Identity]:
    return frozenset((i.authority, i.type, i.value) for i in identifiers)


def with_namesakes(identifiers: tuple[Identifier, ...], channel: CompiledChannel) -> frozenset[Identity]:
    """The identities of a patient, and those of the namesakes of their key, which stands first."""
    key = identifiers[0]
    authority, value = key.authority, key.value
    found = {(authority, type_, value) for type_ in channel.settings.identity.types}
    found.update([(one.authority, one.type, one.value) for one in identifiers])
    return frozenset(found)


def namesakes(key: Identifier, channel: CompiledChannel) -> tuple[Identifier, ...]:
    """The same authority and number under the other types that may be a key."""
    types = channel.settings.identity.types
    return tuple(msgspec.structs.replace(key, type=type_) for type_ in types if type_ != key.type)


def check_namesakes(key: Identifier, charts: Charts, channel: CompiledChannel) -> None:
    """Two patients must never share `AUTHORITY:ID`: destinations know them by it and would take them for one.

    key: of a new patient. Raises MessageError when it is another one's under another type.
    """
    if any(charts.find(other) is not None for other in namesakes(key, channel)):
        raise _other_type("PID-3")


def _other_type(location: str) -> MessageError:
    return MessageError(
        "identifier-type",
        "a patient has this number and authority under another identifier type; send the type (CX-5) alike, or "
        "narrow the channel's identity.types",
        hl7_code=UNKNOWN_KEY,
        location=location,
    )


# --- merges ----------------------------------------------------------------------------------------------------------


def pair(
    entry: Entry,
    key: Identifier,
    mapped: Mapped,
    channel: CompiledChannel,
    notes: list[str],
    *,
    among: frozenset[str] | None = None,
) -> tuple[Identifier, list[Merge]]:
    """The key of the patient who survives, and the pairs of PID-3 and MRG-1. What is ambiguous is never guessed.

    key: that of the patient in PID. Whichever of the patient's identifiers a pair is about, this patient survives.
    Where PID-3 leaves out the type of the key that MRG-1 names, it is that of MRG-1. among: the numbers that those of
    MRG can have become; none: all of PID.
    """
    how = channel.settings.identity.merge_pairing
    if how == "position" and mapped.gap is not None:
        raise MessageError(
            "merge-positions",
            "an empty repetition stands before another one: which identifier replaces which would be a guess",
            hl7_code=DATA_TYPE,
            location=mapped.gap,
        )
    sent = tuple(settled(i, channel, notes, "PID-3") for i in mapped.identifiers if among is None or i.value in among)
    found: list[tuple[Identifier, Identifier, bool, int]] = []
    for position, raw in enumerate(mapped.merged):
        merged, unsure = settled(raw, channel, notes, "MRG-1"), False
        if how == "fit":
            if not may_be_key(merged, channel):
                continue  # a number that patients are not found by needs no partner
            alone = len(mapped.merged) == 1
            partner, unsure = _fitting(sent, merged, position, channel, by_position=mapped.gap is None, alone=alone)
        else:
            partner = _strict(sent, merged, position, by_position=how == "position")
        if merged.type == "" != partner.type and not (unsure and partner.value != merged.value):
            merged = msgspec.structs.replace(merged, type=partner.type)
        elif partner.type == "" != merged.type and how == "fit":
            typed = msgspec.structs.replace(partner, type=merged.type)
            key, partner = (typed if partner == key else key), typed
        if rank(partner, channel) is None or partner == merged:
            continue  # not an identity that patients are found by (an SSN, an account), or the same on both sides
        found.append((partner, merged, unsure, position))
    if any(unsure for _, _, unsure, _ in found):
        notes.append(f"{OLD_NUMBER_UNSURE}:MRG-1")
    if found and all(unsure for _, _, unsure, _ in found):
        raise _unpaired(_NO_TYPE, 0)
    if not found:
        raise MessageError(
            "merge-empty",
            "MRG-1 names no number that patients are found by and that differs from PID-3",
            hl7_code=REQUIRED_FIELD_MISSING,
            location="MRG-1",
        )
    merges = [
        Merge(
            survivor=key,
            survivor_id=new_chart_id(entry, key, channel),
            partner=partner,
            merged=merged,
            merged_id=new_chart_id(entry, merged, channel),
            unsure=unsure,
            place=place,
        )
        for partner, merged, unsure, place in found
    ]
    return key, merges


def _fits(identifier: Identifier, merged: Identifier) -> bool:
    """A type that is missing on one side is no contradiction."""
    types = {identifier.type, merged.type} - {""}
    return identifier.authority == merged.authority and len(types) < 2


def are_alike(one: Identifier, other: Identifier) -> bool:
    """Whether both are the same number; a type that one of them lacks is no difference."""
    return one.value == other.value and _fits(one, other)


def _fitting(
    sent: tuple[Identifier, ...],
    merged: Identifier,
    place: int,
    channel: CompiledChannel,
    *,
    by_position: bool,
    alone: bool,
) -> tuple[Identifier, bool]:
    """The identifier of PID-3 that takes the place of one of MRG-1: that of the same position, else the only one.

    And whether that is unsure: a number without a type, beside others (not alone), may be the patient's, or what
    another number of PID-3 was that nobody is found by (an SSN, an account). merged: a number that may be a patient's
    key. Raises MessageError when it has no partner, or several.
    """
    here = sent[place] if by_position and place < len(sent) and _fits(sent[place], merged) else None
    if here is not None and rank(here, channel) is not None:
        return here, False
    fitting = list(dict.fromkeys(i for i in sent if _fits(i, merged)))
    keys = [i for i in fitting if rank(i, channel) is not None or i.type == "" != merged.type]
    if len(fitting) == 1 or (fitting and not keys):
        return fitting[0], False
    alike = [i for i in keys if i.type == merged.type]
    found = alike or keys
    if len(found) == 1:
        return found[0], not (alone or len(keys) == len(fitting) or (alike and here is None))
    if found:
        raise _unpaired(
            "more than one identifier of PID-3 could take the place of this one: which one is a guess", place
        )
    raise _unpaired("no identifier of PID-3 has the authority and type of this one", place)


def _strict(sent: tuple[Identifier, ...], merged: Identifier, place: int, *, by_position: bool) -> Identifier:
    """The same by position or by type alone, each without exception."""
    candidates = sent[place : place + 1] if by_position else sent
    fitting = [i for i in candidates if i.authority == merged.authority and merged.type in {"", i.type}]
    if len(fitting) != 1:
        raise _unpaired("an identifier of MRG-1 has no partner of the same authority and type in PID-3", place)
    return fitting[0]


_NO_TYPE: Final = (
    "the old numbers have no type, and stand where PID-3 has numbers that no patient is found by; send the types (CX-5)"
)


def _unpaired(text: str, place: int) -> MessageError:
    return MessageError("merge-pairing", text, hl7_code=DATA_TYPE, location=f"MRG-1[{place + 1}]")


def as_known(identifier: Identifier, charts: Charts, channel: CompiledChannel, location: str) -> Identifier:
    """An identifier of a merge as a chart has it: one of both may lack the type.

    Raises MessageError when the number is known under another type only: the merge would change nothing.
    """
    if charts.find(identifier) is not None:
        return identifier
    known = [other for other in namesakes(identifier, channel) if charts.find(other) is not None]
    if not known:
        return identifier
    if len(known) == 1 and "" in {identifier.type, known[0].type}:
        return known[0]
    raise _other_type(location)


def merges_as_known(
    merges: tuple[Merge, ...], events: tuple[PatientEvent, ...], charts: Charts, channel: CompiledChannel
) -> tuple[tuple[Merge, ...], tuple[PatientEvent, ...]]:
    """The pairs of a merge, and what is said of its survivors, with the identifiers that charts are known by."""

    def settle(one: Merge) -> Merge:
        partner = as_known(one.partner, charts, channel, "PID-3") if one.partner is not None else None
        survivor = as_known(one.survivor, charts, channel, "PID-3")
        merged = as_known(one.merged, charts, channel, "MRG-1")
        return msgspec.structs.replace(one, survivor=survivor, partner=partner, merged=merged)

    return tuple(map(settle, merges)), _events_as_known(events, charts, channel)


def changes_as_known(
    changes: tuple[Change, ...], events: tuple[PatientEvent, ...], charts: Charts, channel: CompiledChannel
) -> tuple[tuple[Change, ...], tuple[PatientEvent, ...]]:
    """The same of changes of stays and their numbers."""

    def settle(one: Change) -> Change:
        was = tuple(as_known(number, charts, channel, "MRG-1") for number in one.was)
        return msgspec.structs.replace(one, key=as_known(one.key, charts, channel, "PID-3"), was=was)

    return tuple(map(settle, changes)), _events_as_known(events, charts, channel)


def _events_as_known(
    events: tuple[PatientEvent, ...], charts: Charts, channel: CompiledChannel
) -> tuple[PatientEvent, ...]:
    def settle(event: PatientEvent) -> PatientEvent:
        key, *others = event.identifiers
        return msgspec.structs.replace(event, identifiers=(as_known(key, charts, channel, "PID-3"), *others))

    return tuple(map(settle, events))
