"""Which stays of a chart are closed, and what a chart is with them and without them.

A stay is closed when it has ended, none of its tasks is still to be done, and its suspended tasks wait for the stay
that they must wait for. Nothing becomes of it by itself any more: what may concern it asks for the whole chart. So
it is with appointments that are over and that no task waits for.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import msgspec

from engine.access.copies import NO_RESTRICTIONS, Copies
from engine.domain.appointment import AHEAD, Appointment, RequestState
from engine.domain.chart import Chart, Days, as_it_happened
from engine.domain.closed import Closed
from engine.domain.encounter import READMITTING_CLASSES, Encounter, EncounterStatus
from engine.domain.parts import APPOINTMENTS, PARTS
from engine.pipeline.plan import came_at, later_stays

OVER_MAX: Final = 4
"""When more stays than these are over, they are closed, so that a summary is not written again with each."""

KEPT: Final = 2
"""The last stays that are over are left with the chart, at most this many: late news of them is frequent."""

RECENT: Final = timedelta(days=15)
"""So are all that readmit and ended so shortly before the last one did: a plan looks at those whose own plan may still
run (`Protocol.window`, in the protocol that is shipped). A longer window loads the whole chart."""

APPOINTMENTS_OVER_MAX: Final = 12
APPOINTMENTS_KEPT: Final = 6
"""The same of appointments. A series of dialysis is a hundred and fifty a year."""

_SILENT_DAYS: Final = 30
_OVER: Final = frozenset({EncounterStatus.FINISHED, EncounterStatus.CANCELLED})


def closed_up(
    chart: Chart,
    *,
    over_max: int = OVER_MAX,
    kept: int = KEPT,
    recent: timedelta = RECENT,
    copies: Copies = NO_RESTRICTIONS,
) -> Chart:
    """The chart without the stays that are to be closed, and with the summary of all that are; itself when none is.

    copies: a stay that restricts the record stays with the chart: what leaves is decided by it.
    """
    if chart.merged_into is not None or chart.patient.deceased is True or chart.death_stated.in_doubt:
        return chart
    stays = _over(chart, over_max, kept, recent)
    if stays and (shut := copies.stays(chart)):
        stays = [stay for stay in stays if stay.key not in shut]
    appointments = appointments_over(chart)
    return _without(chart, stays, appointments) if stays or appointments else chart


def _over(chart: Chart, over_max: int, kept: int, recent: timedelta) -> list[Encounter]:
    """The stays that are to be closed."""
    over = [stay for stay in chart.encounters if stay.status in _OVER]
    if len(over) <= over_max:
        return []
    busy = _busy(chart)
    came = _Came(chart)
    over = sorted((stay for stay in over if stay.key not in busy), key=came)
    closing = _not_recent(over[: max(len(over) - kept, 0)], over, recent)
    return closing if len(closing) > over_max - kept else []


def _not_recent(stays: list[Encounter], over: list[Encounter], recent: timedelta) -> list[Encounter]:
    """Those that did not end shortly before the last of all that are over."""
    ends = {stay.key: stay.discharged_at.seconds for stay in over if _readmits(stay) and stay.discharged_at is not None}
    since = max(ends.values(), default=0.0) - recent.total_seconds()
    return [stay for stay in stays if ends.get(stay.key, float("-inf")) <= since]


def _readmits(stay: Encounter) -> bool:
    return stay.class_ in READMITTING_CLASSES and stay.status is EncounterStatus.FINISHED


def appointments_over(
    chart: Chart, *, over_max: int = APPOINTMENTS_OVER_MAX, kept: int = APPOINTMENTS_KEPT
) -> list[Appointment]:
    """The appointments that are to be closed: over, of no task that is with the chart, with all of their chain.

    One of which nobody has said what became of it is over a month after its time, by the latest word of any.
    """
    if len(chart.appointments) <= over_max:
        return []
    said = {key: max(at for at, _ in stamps.values()) for key, stamps in chart.appointment_stamps.items() if stamps}
    latest = max(said.values(), default=0.0)
    tasks = {task.id for task in chart.tasks}
    held = {task.appointment for task in chart.tasks} | {task.proved_by for task in chart.tasks}
    over = [
        one
        for one in chart.appointments
        if one.id not in held
        and f"appointment:{one.id}" not in held
        and one.requested_for not in tasks
        and _is_over(one, latest)
    ]
    over = _with_their_chains(over)
    if len(over) <= over_max:
        return []
    over.sort(key=lambda one: (said.get(one.id, 0.0), one.id))
    return _with_their_chains(over[: len(over) - kept])


def _is_over(appointment: Appointment, latest: float) -> bool:
    if appointment.request in {RequestState.ASKED, RequestState.DROPPED}:
        return False  # what became of it is still to be heard
    if appointment.status not in AHEAD:
        return True
    start = appointment.starts_at
    return start is not None and start.seconds < latest - _SILENT_DAYS * 86_400


def _with_their_chains(over: list[Appointment]) -> list[Appointment]:
    """Those whose old and new times are among them, too."""
    while True:
        ids = {one.id for one in over}
        left = [one for one in over if {one.replaces, one.replaced_by} <= ids | {None}]
        if len(left) == len(over):
            return left
        over = left


def reopened(chart: Chart, stored: Chart) -> Chart:
    """The chart with all that is closed. stored: the same chart as it is stored, whole."""
    if chart.closed is None:
        return chart
    keys = chart.closed.keys_of_parts()
    fields: dict[str, Any] = {}
    for part in PARTS:
        closed = set(keys.get(part.name, ()))
        items = (*(item for item in part.of(stored) if part.key(item) in closed), *part.of(chart))
        fields |= part.fields(items, part.stamps_of(stored) | part.stamps_of(chart))
    fields["encounters"] = as_it_happened(fields["encounters"])
    return msgspec.structs.replace(chart, closed=None, **fields)


def _busy(chart: Chart) -> set[str | None]:
    """Keys of the stays of which tasks are still to be done, wait for another stay than they must, or were proved done
    by a visit that is not closed yet.
    """
    waits_for, days = later_stays(chart), Days(chart.encounters)
    by = {stay.key: waits_for(stay) for stay in chart.encounters}
    unsure = {stay.key for stay in chart.encounters if came_at(stay, days) == float("inf")}
    return {
        task.encounter
        for task in chart.tasks
        if task.stands
        or (task.proved_by or "").removeprefix("encounter:") in by  # when that visit is cancelled the task stands again
        or (
            task.suspended_by is not None
            and (task.encounter is None or by.get(task.encounter) != task.suspended_by or task.suspended_by in unsure)
        )
    }


class _Came:
    """When the patient came for a stay of the chart, and its key."""

    def __init__(self, chart: Chart) -> None:
        self._days = Days(chart.encounters)

    def __call__(self, stay: Encounter) -> tuple[float, str]:
        return came_at(stay, self._days), stay.key


def _without(chart: Chart, stays: list[Encounter], appointments: list[Appointment]) -> Chart:
    gone: set[str | None] = {stay.key for stay in stays}
    closed = {one.id for one in appointments}
    left: dict[str, Any] = {}
    parts = dict(chart.closed.keys_of_parts()) if chart.closed is not None else {}
    for part in PARTS:
        items = part.of(chart)
        goes = [part.key(item) in closed if part is APPOINTMENTS else part.stay(item) in gone for item in items]
        stays_with = [item for item, away in zip(items, goes, strict=True) if not away]
        left |= part.fields(stays_with, part.stamps_of(chart))
        more = tuple(part.key(item) for item, away in zip(items, goes, strict=True) if away)
        parts[part.name] = (*parts.get(part.name, ()), *more)
    numbers = frozenset(number.value for one in appointments for number in one.numbers)
    return msgspec.structs.replace(chart, closed=_summary(chart, stays, parts, numbers), **left)


_COLUMNS: Final = ("came_at", "keys", "numbers", "accounts", "classes", "finished", "admitted", "discharged",
                   "dispositions")  # fmt: skip


def _row(stay: Encounter, came: float) -> tuple[Any, ...]:
    """The values of `_COLUMNS`."""
    return (
        None if came == float("-inf") else came,
        stay.key,
        stay.visit_number,
        stay.account,
        stay.class_,
        stay.status is EncounterStatus.FINISHED,
        stay.admitted_at and stay.admitted_at.micros,
        stay.discharged_at and stay.discharged_at.micros,
        stay.disposition,
    )


def _summary(
    chart: Chart, stays: list[Encounter], parts: dict[str, tuple[str, ...]], numbers: frozenset[str]
) -> Closed:
    known, came_for = chart.closed or Closed(), _Came(chart)
    rows = [
        *zip(*(getattr(known, name) for name in _COLUMNS), strict=True),
        *(_row(stay, came_for(stay)[0]) for stay in stays),
    ]
    rows.sort(key=lambda row: (float("-inf") if row[0] is None else row[0], row[1]))
    columns: dict[str, Any] = dict(zip(_COLUMNS, zip(*rows, strict=True), strict=True)) if rows else {}
    closing = {stay.key for stay in stays}
    waits = {task.suspended_by for task in chart.tasks if task.encounter in closing and task.suspended_by is not None}
    came = [came_for(stay)[0] for stay in chart.encounters if stay.key in waits]
    came += [row[0] for row in rows if row[1] in waits and row[0] is not None]
    last = max([*came, float("-inf") if known.waited_came_at is None else known.waited_came_at])
    return Closed(
        **columns,
        waits=known.waits | waits,
        waited_came_at=None if last == float("-inf") else last,
        deciding=_deciding(chart, stays, known),
        appointments=known.appointments | numbers,
        parts=msgspec.Raw(msgspec.json.encode(parts)),
    )


def _deciding(chart: Chart, stays: list[Encounter], known: Closed) -> dict[str, tuple[float | None, str]]:
    came = _Came(chart)
    latest = {model: (float("-inf") if at is None else at, key) for model, (at, key) in known.deciding.items()}
    finished = {stay.key: stay for stay in stays if stay.status is EncounterStatus.FINISHED}
    for score in chart.scores:
        stay = finished.get(score.encounter or "")
        if stay is not None:
            latest[score.model] = max(latest.get(score.model, came(stay)), came(stay))
    return {model: (None if at == float("-inf") else at, key) for model, (at, key) in latest.items()}
