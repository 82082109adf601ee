"""Whether a stay is planned, going on or over after an event, and which of two events came last."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from engine.care.adt.event import Event, Meaning
from engine.care.adt.says import ARRIVAL, CANCELS, CLASS_CHANGE, DISCHARGE, ENDED, OPEN, OPENING, SAYS, STATUS
from engine.care.dispositions import Action, Dispositions
from engine.care.fields import NEVER
from engine.care.times import SAME_SECONDS
from engine.domain.chart import Stamp
from engine.domain.encounter import READMITTING_CLASSES, TOLD_END, Encounter, EncounterStatus
from engine.domain.hold import Hold, HoldCode
from engine.domain.moment import Moment, Order
from engine.domain.outcome import Effect
from engine.domain.record import Phi

Stamps = Mapping[str, Stamp]

_NOT_ARRIVED: Final = frozenset({EncounterStatus.PLANNED, EncounterStatus.CANCELLED})
_TURNING: Final = frozenset({Meaning.DISCHARGE, Meaning.CANCEL_DISCHARGE})
_GONE_ON: Final[Mapping[EncounterStatus, frozenset[EncounterStatus]]] = {
    EncounterStatus.PLANNED: OPEN | ENDED,
    EncounterStatus.ACTIVE: ENDED | {EncounterStatus.ON_LEAVE},
}
"""How a stay goes on by itself: an older event that says where it began says nothing else than the chart does."""

_TICK_SECONDS: Final = 0.999
"""MSH-7 gives whole seconds as a rule, a receipt that stands in for it has fractions: within one, arrival decides."""

_TURNED: Final = "turned:"
_TURNED_MAX: Final = 8
"""Senders that are remembered of a stay."""

_AWAY, _BACK = "away", "back"
"""Stamps of a stay: when it was said last that the patient is on leave, or that they are not."""
_LEAVES: Final = {
    Meaning.LEAVE: _AWAY,
    Meaning.CANCEL_RETURN: _AWAY,
    Meaning.RETURN: _BACK,
    Meaning.CANCEL_LEAVE: _BACK,
}
_REINSTATED: Final = "reinstated"
"""Stamp of a stay: as of when the cancel of a discharge gave it its status."""

_NO_BED: Final = "no_bed"
"""Stamp of a stay: when it was said last that an A06 was none."""

IN_BED: Final = "in_bed"
"""Stamp of a stay: when it was said last that the patient lies in a bed (A06)."""
_IN_BED_SENT: Final = "in_bed_sent"
"""When that was sent, and by whom."""

_UNDONE: Final = "undone:"
"""Stamp `undone:MEANING` of a stay: the cancel of such an event has come, the event has not. What the clock of the
cancel's sender showed, and who that is."""

UNDONE_BEFORE: Final = "undone-before-it-came"
"""Deviation of an event whose cancel came first."""

DOES_NOT_FIT: Final = "event-does-not-fit-status"
"""Deviation of a newer event that can't happen to a stay of this status."""

_STILL_HERE_AFTER_END: Final = (
    "a discharge of a stay that has ended already, whose disposition (PV1-36) says that the patient is still here;"
    " release it if the patient has left, have an A13 sent and dismiss it if not"
)
_UNCERTAIN: Final = (
    "whether the event or the one that the chart goes by came last can't be told from their clocks;"
    " release it if it is true now, dismiss it if it is old news"
)
_UNSEEN: Final = (
    "an admission of a stay that has ended, and whose beginning was not seen: it may be that beginning, or a new stay;"
    " release it if the patient is in the hospital now, dismiss it if not"
)
_AGAIN: Final = (
    "an admission of a stay that has ended, said after its end, and not the one that it began with: it may be a new"
    " stay under the same number; release it if the patient is in the hospital now, dismiss it if not"
)
_ANOTHER_CLASS: Final = (
    "a visit of another class under the number or account of a stay that has ended, whose plan goes on; release it if"
    " the stay itself goes on; if it is another visit, have it sent under a number of its own, then dismiss it"
)
_SECOND: Final = (
    "a second admission under the number of a stay that has ended: it may be another stay, whose discharge is taken for"
    " that of the first one; release it if the patient is in the hospital now, have the discharge sent again or plan by"
    " hand if the patient has left, then dismiss it"
)
_DOES_NOT_FIT: Final = (
    "the event says something of this stay that can't be so by what the chart says: a leave of a stay that has ended,"
    " or the cancel of a pre-admission of a stay that has begun;"
    " release it if it is true now, dismiss it if the chart is right"
)
_BEFORE_BED: Final = (
    "a discharge from before the patient became an inpatient (A06); release it if the patient has left since, dismiss"
    " it if it was the end of the emergency visit alone"
)
_NO_INPATIENT: Final = (
    "the change to inpatient (A06) that had reopened this stay is taken back: it may be over as before;"
    " have the discharge sent again if the patient has left, then dismiss it"
)
_STILL_TO_COME: Final = (
    "a pre-admission of a stay that has begun or ended already: it may be a new stay under the same number;"
    " release it if the patient is not here and the stay is still to come, dismiss it if not"
)


class Verdict(Phi, frozen=True, kw_only=True):
    """The status of a stay after an event, and what that says of the event's other words."""

    status: EncounterStatus
    stamps: Stamps
    """Those of the stay, with what the event says of its beginning and end."""
    as_of: Stamp | None = None
    """Since when, if the event decided it."""
    without: tuple[str, ...] = ()
    """Fields of the event that do not count."""
    holds: tuple[Hold, ...] = ()
    effects: tuple[Effect, ...] = ()
    deviations: tuple[str, ...] = ()
    note: str | None = None
    """Why the status is as it was."""
    undone: EncounterStatus | None = None
    """The event was taken back before it came: the status that its cancel asserts."""
    undone_clock: int = 0
    """What the clock of the cancel's sender showed."""


def status_after(
    before: Encounter,
    event: Event,
    values: Mapping[str, Any],
    stamps: Stamps,
    dispositions: Dispositions,
    *,
    created: bool,
) -> Verdict:
    """The status of a stay after an event. values: what the event says of the stay, as far as it is believed.

    created: nothing was known of the stay until now.
    """
    said = values.get("disposition")
    still_here = bool(said) and dispositions.of(said).action is Action.NOT_A_DISCHARGE
    if not event.is_decided() and _is_another_visit(before, event, values):
        return _of_another_visit(before, event, values, stamps)
    verdict = _verdict(before, event, values, stamps, still_here=still_here, created=created)
    verdict = _on_leave_as_before(event, verdict)
    if still_here and verdict.status is EncounterStatus.FINISHED and "disposition" not in verdict.without:
        return _discharge_stands(event, verdict)
    return verdict


def _on_leave_as_before(event: Event, verdict: Verdict) -> Verdict:
    """With what leaves and returns say of a stay whose discharge was cancelled: it goes on as it did, here or on leave.

    They count by their own times, whether they came before the discharge and its cancel or after.
    """
    stamps = verdict.stamps
    place = _LEAVES.get(event.meaning)
    if place is not None and not verdict.holds:
        stamps = {**stamps, place: max(event.at, stamps.get(place, event.at))}
        verdict = msgspec.structs.replace(verdict, stamps=stamps)
    elif event.meaning is Meaning.CANCEL_DISCHARGE and verdict.as_of is not None and not event.is_decided():
        stamps = {**stamps, _REINSTATED: verdict.as_of}
        verdict = msgspec.structs.replace(verdict, stamps=stamps)
    if _REINSTATED not in stamps or stamps[_REINSTATED] != stamps["status"] or verdict.status not in OPEN:
        return verdict
    away = stamps.get(_AWAY, NEVER) > stamps.get(_BACK, NEVER)
    return msgspec.structs.replace(verdict, status=EncounterStatus.ON_LEAVE if away else EncounterStatus.ACTIVE)


def _verdict(
    before: Encounter, event: Event, values: Mapping[str, Any], stamps: Stamps, *, still_here: bool, created: bool
) -> Verdict:
    asserted = STATUS[event.meaning]
    ended = bool(values.get("discharged_at")) and not still_here
    if event.cancels is Meaning.TO_INPATIENT:
        return _no_bed(before, event, stamps, created=created)
    if event.meaning in CLASS_CHANGE and (created or before.status is not EncounterStatus.PLANNED):
        if SAYS[event.meaning].in_bed and not ended and (still_here or not values.get("disposition")):
            return _in_bed(before, event, values, stamps, created=created)
        asserted = None  # the patient is there, or was: another class ends no stay and begins none
    if asserted is None:  # of a stay whose admission we did not see, A02 and A08 tell as much as their times do
        first = EncounterStatus.FINISHED if ended else EncounterStatus.ACTIVE
        if ended and not created and _is_newly_ended(before, event, values, stamps):
            stamps = {**stamps, TOLD_END: event.at}
            return Verdict(status=before.status, stamps=stamps, deviations=("end-without-discharge",))
        return Verdict(status=first if created else before.status, stamps=stamps)
    still_here = still_here and event.meaning is Meaning.DISCHARGE
    as_of = _as_of(event, stamps)
    if as_of is None or (event.meaning is Meaning.DISCHARGE and _was_in_bed_after(before, event, stamps)):
        return _older(before, asserted, event, values, stamps, still_here=still_here)
    if still_here and not event.believed(HoldCode.DISPOSITION_IS_NO_DISCHARGE):
        return _no_discharge(before, event, stamps, created=created)
    verdict = Verdict(
        status=asserted,
        stamps=_noted(before, event, values, as_of, stamps, created=created),
        as_of=as_of,
        without=("disposition",) if still_here else (),
    )
    if event.meaning in ARRIVAL and ended and (created or _is_newly_ended(before, event, values, stamps)):
        told = {**verdict.stamps, TOLD_END: event.at}
        verdict = msgspec.structs.replace(verdict, stamps=told, deviations=("end-without-discharge",))
    return verdict if created else _newer(before, event, values, stamps, verdict)


def _in_bed(before: Encounter, event: Event, values: Mapping[str, Any], stamps: Stamps, *, created: bool) -> Verdict:
    """The patient lies in a bed as of the event: no end that was before it is one, and no plan stands for it.

    An older one than the end is history, and takes no plan away.
    """
    noted = stamps
    if event.at < stamps.get(_NO_BED, event.at):  # it was taken back before it came
        return Verdict(status=EncounterStatus.ACTIVE if created else before.status, stamps=stamps)
    if event.at >= stamps.get(IN_BED, event.at):
        noted = {**stamps, IN_BED: event.at, _IN_BED_SENT: (event.sent, event.sender)}
    if created or before.status not in ENDED:
        return Verdict(status=EncounterStatus.ACTIVE if created else before.status, stamps=noted)
    as_of = _as_of(event, stamps)
    if as_of is None:
        return Verdict(status=before.status, stamps=stamps)
    if not _is_certain(event, stamps):
        return _left_open(before, event, stamps, _UNCERTAIN)
    return Verdict(
        status=EncounterStatus.ACTIVE,
        stamps=_noted(before, event, values, as_of, noted, created=False),
        as_of=as_of,
    )


def _no_bed(before: Encounter, event: Event, stamps: Stamps, *, created: bool) -> Verdict:
    """An A06 was none. Where it had reopened the stay, whether the patient is still here is for a person to say."""
    noted = {**stamps, _NO_BED: max(event.at, stamps.get(_NO_BED, event.at))}
    reopened = before.status in OPEN and stamps.get(IN_BED, NEVER) == stamps.get("status", event.at) <= event.at
    if stamps.get(IN_BED, event.at) <= event.at:
        noted.pop(IN_BED, None)
        noted.pop(_IN_BED_SENT, None)
    if reopened:
        return _left_open(before, event, noted, _NO_INPATIENT)
    return Verdict(status=EncounterStatus.ACTIVE if created else before.status, stamps=noted)


def _was_in_bed_after(before: Encounter, event: Event, stamps: Stamps) -> bool:
    """An end of a stay that goes on, before the patient was said to lie in a bed."""
    if IN_BED not in stamps or before.status not in OPEN or event.is_decided():
        return False
    return _as_of(event, {"status": stamps[IN_BED], "status_sent": stamps[_IN_BED_SENT]}) is None


def _is_newly_ended(before: Encounter, event: Event, values: Mapping[str, Any], stamps: Stamps) -> bool:
    """It tells of an end after the last status event: the discharge that says so was lost, or is on its way."""
    last = stamps.get("status", NEVER)
    if before.status not in OPEN or event.at < last:
        return False
    end: Moment = values["discharged_at"]
    order = end.order(_moment_of(last, event)) if end.at is not None and last != NEVER else Order.UNTOLD
    return "taken_back" not in stamps if order is Order.UNTOLD else order is Order.AFTER


def _moment_of(stamp: Stamp, event: Event) -> Moment:
    """The time of a stamp as the sender of the event would write it: a mere date is a day of that calendar."""
    time = event.event_time.at if event.event_time is not None else None
    zone = time.at.tzinfo if time is not None and time.timed and time.at is not None else UTC
    return Moment.of_instant(datetime.fromtimestamp(stamp[0], zone))


def _older(
    before: Encounter,
    asserted: EncounterStatus,
    event: Event,
    values: Mapping[str, Any],
    stamps: Stamps,
    *,
    still_here: bool,
) -> Verdict:
    """An event that is older than the one that the stay has its status from."""
    if _was_undone(event, stamps):
        return _undone(before, event, stamps)
    holds: tuple[Hold, ...] = ()
    arrival = event.meaning in ARRIVAL
    gone_on = event.meaning in OPENING and before.status in _GONE_ON[asserted]
    detail = ""
    if gone_on and arrival and before.status in ENDED:
        gone_on = _was_sent_before(event, stamps) or _is_beginning(before, values, stamps)
        if _is_second_admission(before, values, stamps):
            gone_on, detail = False, _SECOND
    if SAYS[event.meaning].old_news:
        pass
    elif asserted is not before.status and not gone_on and not still_here:
        if event.meaning is Meaning.DISCHARGE and IN_BED in stamps:
            detail = _BEFORE_BED
        holds = (_question(HoldCode.STATUS_EVENT_STALE, before, event, detail),)
    elif _cancels_nothing(before, event, stamps):
        holds = (_question(HoldCode.NOTHING_TO_CANCEL, before, event),)
    elif event.meaning in _TURNING:
        stamps = _with_turn(event, stamps)
    elif arrival and before.status in OPEN and _is_another_admission(before, values, stamps):
        stamps = _with_turn(event, {**stamps, "taken_back": event.at})
    return Verdict(status=before.status, stamps=stamps, holds=holds, deviations=("stale-event",))


def _newer(before: Encounter, event: Event, values: Mapping[str, Any], stamps: Stamps, asserted: Verdict) -> Verdict:
    """An event that is newer than the one that the stay has its status from. asserted: if it is simply taken."""
    arrival, ended = event.meaning in ARRIVAL, before.status in ENDED
    among = SAYS[event.meaning].among
    if among is not None:
        return asserted if before.status in among or event.is_decided() else _unfit(before, event, stamps)
    if event.meaning is Meaning.PRE_ADMIT and before.status not in _NOT_ARRIVED:
        return asserted if event.is_decided() else _announced(before, event, values, stamps)
    if event.meaning is Meaning.CANCEL_DISCHARGE and before.status in OPEN:
        asks = _cancels_nothing(before, event, stamps) and not event.believed(HoldCode.NOTHING_TO_CANCEL)
        holds = (_question(HoldCode.NOTHING_TO_CANCEL, before, event),) if asks else ()
        note = "the encounter is not discharged: nothing to cancel"
        return msgspec.structs.replace(asserted, status=before.status, holds=holds, note=note)
    if event.is_decided():
        return asserted
    if arrival and ended:
        if _is_that_admission(before, event, values, stamps):
            note = "the admission of a stay that has ended already: not taken as a new one"
            deviations = ("admission-after-discharge",)
            return Verdict(status=before.status, stamps=stamps, deviations=deviations, note=note)
        if event.claims is not None and "arrival" not in stamps:
            return _left_open(before, event, stamps, _UNSEEN)
        if _is_beginning(before, values, stamps):
            return _left_open(before, event, stamps, _AGAIN)
        if _same_stay(before, values, stamps):
            return _left_open(before, event, stamps, _UNCERTAIN)
        if _has_no_bed(before, values):
            return _of_another_visit(before, event, values, stamps)
    turns = ended or (event.meaning is Meaning.DISCHARGE and "taken_back" in stamps)
    if turns and asserted.status is not before.status and not _is_certain(event, stamps):
        return _left_open(before, event, stamps, _UNCERTAIN)
    return asserted


def _unfit(before: Encounter, event: Event, stamps: Stamps) -> Verdict:
    hold = _question(HoldCode.STATUS_EVENT_STALE, before, event, _DOES_NOT_FIT)
    return Verdict(status=before.status, stamps=stamps, holds=(hold,), deviations=(DOES_NOT_FIT,))


def _announced(before: Encounter, event: Event, values: Mapping[str, Any], stamps: Stamps) -> Verdict:
    """A pre-admission after the stay has begun: of a stay to come it is a question, of this one late news."""
    said: Moment | None = values.get("admitted_at")
    end = before.discharged_at if before.status in ENDED else event.event_time.at if event.event_time else None
    if said is None or said.at is None or end is None or end.at is None:
        to_come = before.status in ENDED
    else:  # of what can't be told the beginning decides, so that a stay to come is rather asked for than missed
        to_come = end.is_before(said) or said.at > end.at
    deviations = ("pre-admission-after-arrival",)
    if not to_come:
        note = "a pre-admission of a stay that has begun already"
        return Verdict(status=before.status, stamps=stamps, deviations=deviations, note=note)
    hold = _question(HoldCode.STATUS_EVENT_STALE, before, event, _STILL_TO_COME)
    return Verdict(status=before.status, stamps=stamps, without=("admitted_at",), holds=(hold,), deviations=deviations)


def _left_open(before: Encounter, event: Event, stamps: Stamps, detail: str) -> Verdict:
    """What the status is, is left to a person."""
    hold = _question(HoldCode.STATUS_EVENT_STALE, before, event, detail)
    return Verdict(status=before.status, stamps=stamps, holds=(hold,), deviations=("status-order-uncertain",))


def _is_another_visit(before: Encounter, event: Event, values: Mapping[str, Any]) -> bool:
    """Whether a visit without a bed has begun after the end of a stay, under the number or account of that stay."""
    if before.status is not EncounterStatus.FINISHED or event.meaning in CLASS_CHANGE:
        return False
    begin: Moment | None = values.get("admitted_at")
    if not _has_no_bed(before, values) or begin is None or before.discharged_at is None:
        return False
    return before.discharged_at.is_before(begin)


def _has_no_bed(before: Encounter, values: Mapping[str, Any]) -> bool:
    """An event tells of a visit without a bed, and the stay was one in a bed."""
    return before.class_ in READMITTING_CLASSES and values.get("class_", before.class_) not in READMITTING_CLASSES


def _of_another_visit(before: Encounter, event: Event, values: Mapping[str, Any], stamps: Stamps) -> Verdict:
    """Nothing that it says is of the stay. Whose coming or leaving it tells is asked."""
    verdict = _left_open(before, event, stamps, _ANOTHER_CLASS)
    asked = verdict.holds if event.meaning in ARRIVAL or event.meaning is Meaning.DISCHARGE else ()
    return msgspec.structs.replace(verdict, without=tuple(values), holds=asked)


def _question(code: HoldCode, before: Encounter, event: Event, detail: str = "") -> Hold:
    asserted = STATUS[event.meaning]
    said = event.assertion(asserted) if asserted is not None else None
    return Hold(code=code, subject=before.key, asserts=said, detail=detail)


# --- a disposition (PV1-36) that says that the patient is still here


def _no_discharge(before: Encounter, event: Event, stamps: Stamps, *, created: bool) -> Verdict:
    detail = _STILL_HERE_AFTER_END if before.status is EncounterStatus.FINISHED else ""
    verdict = Verdict(
        status=EncounterStatus.ACTIVE if created else before.status,
        stamps=stamps,
        holds=(_question(HoldCode.DISPOSITION_IS_NO_DISCHARGE, before, event, detail),),
        without=DISCHARGE,
    )
    return _still_here(verdict, "PV1-36 says that the patient is still here: not taken as a discharge")


def _discharge_stands(event: Event, verdict: Verdict) -> Verdict:
    """An end is taken back by its cancel (A13), never by an update: its plan would go without a trace."""
    verdict = msgspec.structs.replace(verdict, without=DISCHARGE)
    if event.at < max(verdict.stamps.get("status", event.at), verdict.stamps.get("disposition", event.at)):
        return verdict  # it was true then
    return _still_here(verdict, "PV1-36 says that the patient is still here: the discharge stands until an A13")


def _still_here(verdict: Verdict, note: str) -> Verdict:
    return msgspec.structs.replace(
        verdict,
        deviations=(*verdict.deviations, "disposition-is-no-discharge"),
        note=note,
    )


# --- order of events


def _as_of(event: Event, stamps: Stamps) -> Stamp | None:
    """As of when a status event counts; none: it is older than the one that the stay has its status from.

    Of two events of one sender the one that was sent later is the later one, whatever time it claims: an A03 after an
    A13 is often back-dated to the true end. Between senders, whose clocks differ, the time of the event decides.
    """
    if event.is_decided():
        return event.decided_at
    last = stamps.get("status")
    if last is None:
        return event.at
    sent, sender = stamps.get("status_sent", NEVER)
    if not event.sender or event.sender != sender:
        if event.at[1] > last[1] and event.at[0] > last[0] - SAME_SECONDS:  # as good as at once: arrival decides
            return (max(event.at[0], last[0]), event.at[1])
        return event.at if event.at >= last else None
    within = _TICK_SECONDS if event.at[1] > last[1] else 0.0
    if (event.sent + within, event.at[1]) < (sent, last[1]):
        return None
    return event.at if event.at >= last else (max(last[0], event.sent), event.at[1])


def _noted(
    before: Encounter, event: Event, values: Mapping[str, Any], as_of: Stamp, stamps: Stamps, *, created: bool
) -> Stamps:
    """The stamps with those of the event that the stay has its status from.

    `status`: as of when. `status_sent`: when it was sent, and by whom. `arrival`: the first admission that was seen.
    `taken_back`: it took a discharge back, or is a second admission, before which there must have been one.
    """
    decided = as_of == event.decided_at
    noted = dict(stamps)
    noted.pop(TOLD_END, None)
    noted["status"] = as_of
    noted["status_sent"] = (as_of[0] if decided else event.sent, event.sender)
    if event.meaning is Meaning.DISCHARGE:
        noted.pop("taken_back", None)
    elif (
        event.meaning is Meaning.CANCEL_DISCHARGE
        or before.status in ENDED
        or (event.meaning in ARRIVAL and _is_another_admission(before, values, stamps))
    ):
        noted["taken_back"] = as_of
    if event.meaning in ARRIVAL:
        noted.setdefault("arrival", as_of)
    elif event.meaning in CANCELS and not decided:
        clock = event.claims.clock if event.claims is not None else 0
        for awaited in _awaited(before, event, stamps, created=created):
            noted[f"{_UNDONE}{awaited}"] = (float(clock), event.sender)
    if event.meaning is not Meaning.DISCHARGE and "taken_back" not in noted:
        return noted
    if not decided:
        return _with_turn(event, noted)
    noted = {name: stamp for name, stamp in noted.items() if not name.startswith(_TURNED)}  # said before the decision
    noted[f"{_TURNED}{event.sender}"] = (as_of[0], 0)
    return noted


# --- cancels that come before what they cancel


def _awaited(before: Encounter, event: Event, stamps: Stamps, *, created: bool) -> frozenset[Meaning]:
    """What a cancel takes back and was not seen: it may still come."""
    awaited = CANCELS[event.meaning]
    if event.meaning is Meaning.CANCEL_DISCHARGE:
        unseen = before.discharges == 0 or (before.status in OPEN and event.at[0] > _last_cancel(stamps) + SAME_SECONDS)
        return awaited if unseen else frozenset()
    if "arrival" in stamps:
        awaited -= ARRIVAL
    return awaited if created else awaited & ARRIVAL


def _last_cancel(stamps: Stamps) -> float:
    return stamps.get("taken_back", NEVER)[0]


def _was_undone(event: Event, stamps: Stamps) -> bool:
    """Whether the cancel of this event came before it, beyond doubt: by the clock of the one sender that said both."""
    waiting = stamps.get(f"{_UNDONE}{event.meaning}")
    if waiting is None or event.is_decided():
        return False
    clock, sender = waiting
    if event.claims is None:
        return True
    return event.sender == sender != 0 and 0 < event.claims.clock < clock


def _undone(before: Encounter, event: Event, stamps: Stamps) -> Verdict:
    """An event that was taken back before it came: the stay has gone through it, and is as its cancel says."""
    noted = dict(stamps)
    clock, _ = noted.pop(f"{_UNDONE}{event.meaning}")
    if event.meaning in ARRIVAL:
        noted.setdefault("arrival", event.at)
    cancel = next(meaning for meaning, undone in CANCELS.items() if event.meaning in undone and STATUS[meaning])
    return Verdict(
        status=before.status,
        stamps=_with_turn(event, noted) if event.meaning in _TURNING else noted,
        deviations=(UNDONE_BEFORE,),
        effects=(Effect(kind=UNDONE_BEFORE, subject=before.key, detail=event.meaning),),
        note="its cancel has come before it: the stay is as it was",
        undone=STATUS[cancel],
        undone_clock=int(clock),
    )


def _with_turn(event: Event, stamps: Stamps) -> Stamps:
    """With stamp `turned:SENDER`: when a sender's last word on the end of the stay was received, and its clock then."""
    if event.claims is None:
        return stamps
    noted = dict(stamps)
    place = f"{_TURNED}{event.sender}"
    received, clock = noted.pop(place, NEVER)
    noted[place] = (max(received, event.claims.received), max(clock, event.claims.clock))
    turned = [name for name in noted if name.startswith(_TURNED)]
    for name in turned[:-_TURNED_MAX]:
        del noted[name]
    return noted


def _is_certain(event: Event, stamps: Stamps) -> bool:
    """Whether it was surely said after all that was said of the end of the stay until now.

    What takes a discharge back, or ends a stay again after that, is believed only when no wrong clock can have turned
    the two round: by the clock of the one sender that said both, however wrong that is; of two senders when it was
    recorded after the other one's message had come here.
    """
    claims = event.claims
    if claims is None or event.is_decided():
        return True
    own = f"{_TURNED}{event.sender}" if event.sender else None
    for name, (received, clock) in stamps.items():
        if not name.startswith(_TURNED):
            continue
        if name == own:
            if clock and claims.clock and claims.clock < clock:
                return False
        elif received >= claims.surely_after:
            return False
    return True


def _was_sent_before(event: Event, stamps: Stamps) -> bool:
    """Whether the sender's own clock says that this was before its last word on the end of the stay."""
    _, clock = stamps.get(f"{_TURNED}{event.sender}", NEVER)
    return event.claims is None or 0 < event.claims.clock < clock


# --- admissions


def _cancels_nothing(before: Encounter, event: Event, stamps: Stamps) -> bool:
    """The cancel of a discharge that was not seen.

    A stay that was discharged, and is not any more, had its discharge cancelled: this says so again.
    """
    return (
        event.meaning is Meaning.CANCEL_DISCHARGE
        and before.status in OPEN
        and before.discharges == 0
        and not ("taken_back" in stamps and f"{_UNDONE}{Meaning.DISCHARGE}" not in stamps)
    )


def _is_beginning(before: Encounter, values: Mapping[str, Any], stamps: Stamps) -> bool:
    """Whether an admission is the beginning of a stay that has ended, beyond doubt: it names no other one than ours."""
    return not _is_another_admission(before, values, stamps) and _same_stay(before, values, stamps)


def _is_that_admission(before: Encounter, event: Event, values: Mapping[str, Any], stamps: Stamps) -> bool:
    """Whether an admission that came after the end of a stay is the very one that it began with.

    It names the same time as the chart does, or one that the stay can have begun at where nobody has said when it did.
    """
    if event.claims is None:
        return _is_beginning(before, values, stamps)
    said, known = _admission(before, event, values), before.admitted_at
    if known is not None and known.at is not None:
        if said is None or before.class_ not in {None, values.get("class_", before.class_)}:
            return False
        if said.at == known.at:
            return True
        end = before.discharged_at  # a vague time is no new stay's when it was surely before the end of ours
        return end is not None and said.is_before(end) and not _is_other_time(said, known, stamps)
    return bool(values.get("admitted_at")) and _is_beginning(before, values, stamps)


def _is_second_admission(before: Encounter, values: Mapping[str, Any], stamps: Stamps) -> bool:
    """Whether an admission older than the end of a stay names a later beginning than the one that was seen."""
    said: Moment | None = values.get("admitted_at")
    known = before.admitted_at
    if said is None or known is None or said.is_before(known):
        return False
    return _is_another_admission(before, values, stamps)


def _admission(before: Encounter, event: Event, values: Mapping[str, Any]) -> Moment | None:
    """When an admission says that it was; by the event's own time where the stay has its admission from there too."""
    said: Moment | None = values.get("admitted_at")
    if said:
        return said
    by_event = before.time_sources.get("admitted_at") not in {None, "PV1-44"}
    return event.event_time.at if by_event and event.event_time is not None else None


def _is_another_admission(before: Encounter, values: Mapping[str, Any], stamps: Stamps) -> bool:
    """Whether an admission of the same class was seen already, at another time."""
    if "arrival" not in stamps or values.get("class_", before.class_) != before.class_:
        return False
    said: Moment | None = values.get("admitted_at")
    known = before.admitted_at
    if said is None or said.at is None or known is None or known.at is None:
        return False
    return _is_other_time(said, known, stamps)


def _is_other_time(said: Moment, known: Moment, stamps: Stamps) -> bool:
    """Whether a time of admission is surely another one than that of the stay.

    Of a stay of which only the day is known, it is if it was after the admission had been recorded.
    """
    if said.order(known) is not Order.UNTOLD:
        return True
    return said.timed and not known.timed and "arrival" in stamps and _is_after(said, stamps["arrival"])


def _is_after(time: Moment, stamp: Stamp) -> bool:
    return time.earliest > stamp[0] + SAME_SECONDS


def _same_stay(before: Encounter, values: Mapping[str, Any], stamps: Stamps) -> bool:
    """Whether an admission that was recorded after the end of a stay is the beginning of that stay.

    It is when the class is the same and it was not after that end; what was not known until now is no difference.
    Where the end is too vague to tell, it was before the end was recorded.
    """
    if before.class_ not in {None, values.get("class_", before.class_)}:
        return False
    begin: Moment | None = values.get("admitted_at") or before.admitted_at
    end = before.discharged_at
    if begin == before.admitted_at:
        return True
    if begin is None or begin.at is None or end is None or end.at is None:
        return before.admitted_at is None
    order = begin.order(end)
    if order is Order.UNTOLD and begin.at > end.at:
        return not _is_after(begin, stamps.get("status", NEVER))
    return order is not Order.AFTER
