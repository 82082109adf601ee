"""Which encounter a message means: by its visit number, its account, the time of its admission, or as the only one."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from engine.care.adt.event import Event, Meaning
from engine.care.adt.says import ENDED, OPEN, OPENING
from engine.domain.chart import Chart, Charts
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.moment import Moment, Order, Precision, instant, to_micros
from engine.errors import UNKNOWN_KEY, MessageError

Found = tuple[str, Encounter | None]
"""The key of an encounter, and what is known of it."""

_CLOSED: Final = ENDED | {EncounterStatus.CANCELLED}

_PLANNED: Final = frozenset({EncounterStatus.PLANNED})
_WANTED: Final = {
    Meaning.CANCEL_DISCHARGE: (ENDED, OPEN),
    Meaning.CANCEL_PRE_ADMIT: (_PLANNED,),
    Meaning.TO_INPATIENT: (OPEN, _PLANNED),
    Meaning.TO_OUTPATIENT: (OPEN, _PLANNED),
}
"""Of which status the one stay is that an event without a visit number means, the likeliest first; else an open one."""

_SAID_AGAIN: Final = timedelta(days=1)
"""A discharge that names no visit, so soon after one, is the same discharge said again."""


def find_encounter(chart: Chart, charts: Charts, event: Event) -> Found | None:
    """The encounter that the message means. None: it can't be told.

    Raises MessageError when it is another patient's, or when more than one could be meant.
    """
    if event.visit is not None:
        return _of_visit(chart, charts, event, event.visit)
    if event.account is not None:
        return _of_account(chart, event, event.account)
    known = admitted_then(chart, chart.encounters, event)
    if known is not None:
        return known.key, known
    if event.meaning in OPENING:
        started = event.encounter.get("admitted_at") or (event.event_time.at if event.event_time else None)
        return _made_key(chart, started.text) if started is not None else None
    if event.meaning is Meaning.DELETE_VISIT:
        return None  # what is deleted is never found by its being the only one
    return _only_one(chart, event)


def _of_visit(chart: Chart, charts: Charts, event: Event, visit: str) -> Found:
    closed = chart.closed
    if closed is not None and (event.visit_number in closed.numbers or visit in closed.keys):
        chart.need_whole()
    known = _by_number(chart, event, visit)
    if known is not None:
        return known.key, known
    owner = charts.visits.get(visit)
    while owner is not None and (other := charts.by_id.get(owner)) is not None and other.merged_into is not None:
        owner = other.merged_into
    if owner is not None and owner != chart.id:
        raise of_another_patient()
    known = _not_numbered_yet(chart, event)
    return (known.key, known) if known is not None else (visit, None)


def of_another_patient() -> MessageError:
    return MessageError(
        "visit-of-another-patient",
        "this visit number belongs to another patient's encounter; a person must decide",
        hl7_code=UNKNOWN_KEY,
        location="PV1-19",
    )


def _of_account(chart: Chart, event: Event, account: str) -> Found:
    if chart.closed is not None and account in chart.closed.accounts:
        chart.need_whole()
    same = [e for e in chart.encounters if e.account == account]
    living = [e for e in same if e.status is not EncounterStatus.CANCELLED]
    if len(living) > 1:
        raise _ambiguous("PID-18")
    if not living and event.meaning not in OPENING and len(same) == 1:
        living = same  # more news of a cancelled one; a new one would be opened
    return (living[0].key, living[0]) if living else _made_key(chart, f"acct-{account}")


def _only_one(chart: Chart, event: Event) -> Found | None:
    """The one encounter whose status lets the event happen to it; a discharge may be that of a stay not heard of."""
    wanted = _WANTED.get(event.meaning, (OPEN,))
    if event.meaning is Meaning.CANCEL_DISCHARGE:
        chart.need_whole()
    # A stay that began on another day than the message says (PV1-44) is not the one, though it be the only one.
    stays = [e for e in chart.encounters if _may_have_begun_then(e, event)]
    found = next(filter(None, ([e for e in stays if e.status in one] for one in wanted)), [])
    either = event.meaning is Meaning.CANCEL_DISCHARGE and any(e.status in OPEN for e in stays)
    if len(found) > 1 or (found and either and found[0].status in ENDED):
        raise _ambiguous("PV1-19")  # a cancel that has come before its discharge means the one that goes on
    if found:
        return found[0].key, found[0]
    if event.meaning is not Meaning.DISCHARGE or not event.event_time:
        return None
    chart.need_whole()
    known = _discharged_before(chart, event, event.encounter.get("discharged_at") or event.event_time.at)
    if known is not None:
        return known.key, known
    return _made_key(chart, (event.encounter.get("admitted_at") or event.event_time.at).text)


def _by_number(chart: Chart, event: Event, key: str) -> Encounter | None:
    """The patient's own encounter of this visit number.

    A message that leaves open who gave the number may mean any of them: the authority that stands in is that of the
    patient's key, which need not be the same in every message. One that says so means an encounter of that authority,
    or one of which nobody has said yet.
    """
    said = event.visit_authority
    same = [
        e
        for e in chart.encounters
        if e.visit_number == event.visit_number
        and (said is None or e.visit_authority in {None, said})
        and (e.key == key or said == e.visit_authority or _may_have_begun_then(e, event))
    ]
    found = [e for e in same if said is not None and e.visit_authority == said]
    found = found or [e for e in same if e.key == key] or same
    if len(found) > 1 or (not found and chart.encounter(key) is not None):
        raise _ambiguous("PV1-19")
    return found[0] if found else None


def _may_have_begun_then(encounter: Encounter, event: Event) -> bool:
    begin: Moment | None = encounter.admitted_at
    said: Moment | None = event.encounter.get("admitted_at")
    if begin is None or begin.at is None or said is None or said.at is None:
        return True
    return _may_be_one(begin, said) or abs(begin.at - said.at) <= timedelta(days=1)


def _not_numbered_yet(chart: Chart, event: Event) -> Encounter | None:
    """The encounter that was heard of before it had its visit number, by its account or the time of its admission.

    Taken for another one it would stay open for ever, and an open stay sets the plans of earlier ones aside.
    """
    unnumbered = tuple(e for e in chart.encounters if e.visit_number is None)
    if event.account is not None:
        open_ones = [e for e in unnumbered if e.account == event.account and e.status not in _CLOSED]
        if len(open_ones) == 1:
            return open_ones[0]
    return admitted_then(chart, unnumbered, event, unnumbered=True)


def admitted_then(
    chart: Chart, encounters: tuple[Encounter, ...], event: Event, *, unnumbered: bool = False
) -> Encounter | None:
    """The one encounter that began at the very time, to the minute at least, that the message names in PV1-44.

    encounters: those of the chart, or those without a visit number (unnumbered).
    """
    said: Moment | None = event.encounter.get("admitted_at")
    if said is None or said.at is None or said.precision < Precision.MINUTE:
        return None
    if chart.closed is not None and chart.closed.admitted_then(to_micros(said.at), unnumbered=unnumbered):
        chart.need_whole()
    found = [e for e in encounters if e.status is not EncounterStatus.CANCELLED and instant(e.admitted_at) == said.at]
    return found[0] if len(found) == 1 else None


def _discharged_before(chart: Chart, event: Event, at: Moment) -> Encounter | None:
    """The one stay that a discharge at that time can have ended: the same discharge, said again."""
    ended = [e for e in chart.encounters if e.status in ENDED and _may_be_same(e, event)]
    found = [encounter for encounter in ended if encounter.discharged_at == at]
    if not found and at.at is not None:
        found = (
            [e for e in ended if _may_be_one(e.discharged_at, at)]
            or [e for e in ended if _lasted_over(e, at)]
            or [e for e in ended if _ended_shortly_before(e, at)]
        )
    return found[0] if len(found) == 1 else None


def _may_be_same(encounter: Encounter, event: Event) -> bool:
    """Nothing that the message says of the stay is against it."""
    said: Moment | None = event.encounter.get("admitted_at")
    known = encounter.admitted_at
    if instant(said) is not None and instant(known) is not None and not _may_be_one(known, said):
        return False
    return event.encounter.get("class_") in {None, encounter.class_} or encounter.class_ is None


def _may_be_one(known: Moment | None, said: Moment | None) -> bool:
    """Whether two times are both known to the day, and may be the same."""
    if known is None or known.at is None or said is None or said.at is None:
        return False
    return known.order(said) is Order.UNTOLD


def _lasted_over(encounter: Encounter, at: Moment) -> bool:
    begin, end = encounter.admitted_at, encounter.discharged_at
    if begin is None or begin.at is None or end is None or end.at is None:
        return False
    return not at.is_before(begin) and not end.is_before(at)


def _ended_shortly_before(encounter: Encounter, at: Moment) -> bool:
    end = encounter.discharged_at
    if end is None or end.at is None or at.is_before(end):
        return False
    day = (end.at + _SAID_AGAIN).date().isoformat()
    return not Moment.of(day + end.text[len(day) :]).is_before(at)  # as precise as the end is


def _made_key(chart: Chart, what: str) -> tuple[str, Encounter | None]:
    """The key of an encounter without a visit number; one that a merged patient brought along keeps its own.

    The type is part of it: the same number of another type is another patient's.
    """
    keys = [f"{i.key}^{i.type}@{what}" if i.type else f"{i.key}@{what}" for i in chart.patient.identifiers]
    if chart.closed is not None and not set(keys).isdisjoint(chart.closed.keys):
        chart.need_whole()
    for key in keys:
        known = chart.encounter(key)
        if known is not None:
            return key, known
    return keys[0], None


def _ambiguous(location: str) -> MessageError:
    return MessageError(
        "encounter-ambiguous",
        "more than one encounter of the patient could be meant; send the visit number in PV1-19",
        hl7_code=UNKNOWN_KEY,
        location=location,
    )
