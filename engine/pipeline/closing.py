"""Which stays of a chart are closed, and what a chart is with them and without them.

A stay is closed when it has ended, none of its tasks is still to be done, and its suspended tasks wait for the stay
that they must wait for. Nothing becomes of it by itself any more: what may concern it asks for the whole chart.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from engine.domain.chart import Chart, Days, as_it_happened
from engine.domain.closed import Closed
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.parts import PARTS
from engine.pipeline.plan import came_at, later_stays

OVER_MAX: Final = 4
"""When more stays than these are over, they are closed, so that a summary is not written again with each."""

KEPT: Final = 2
"""The last stays that are over are left with the chart, at most this many: late news of them is frequent."""

_OVER: Final = frozenset({EncounterStatus.FINISHED, EncounterStatus.CANCELLED})


def closed_up(chart: Chart, *, over_max: int = OVER_MAX, kept: int = KEPT) -> Chart:
    """The chart without the stays that are to be closed, and with the summary of all that are; itself when none is."""
    over = [stay for stay in chart.encounters if stay.status in _OVER]
    if len(over) <= over_max or chart.merged_into is not None:
        return chart
    if chart.patient.deceased is True or chart.death_stated.in_doubt:
        return chart
    busy = _busy(chart)
    came = _Came(chart)
    over = sorted((stay for stay in over if stay.key not in busy), key=came)
    if len(over) <= over_max:
        return chart
    return _without(chart, over[: len(over) - kept])


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


def _without(chart: Chart, stays: list[Encounter]) -> Chart:
    gone = {stay.key for stay in stays}
    left: dict[str, Any] = {}
    parts = dict(chart.closed.keys_of_parts()) if chart.closed is not None else {}
    for part in PARTS:
        items = part.of(chart)
        left |= part.fields([item for item in items if part.stay(item) not in gone], part.stamps_of(chart))
        more = tuple(part.key(item) for item in items if part.stay(item) in gone)
        parts[part.name] = (*parts.get(part.name, ()), *more)
    return msgspec.structs.replace(chart, closed=_summary(chart, stays, parts), **left)


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


def _summary(chart: Chart, stays: list[Encounter], parts: dict[str, tuple[str, ...]]) -> Closed:
    known, came_for = chart.closed or Closed(), _Came(chart)
    rows = [
        *zip(*(getattr(known, name) for name in _COLUMNS), strict=True),
        *(_row(stay, came_for(stay)[0]) for stay in stays),
    ]
    rows.sort(key=lambda row: (float("-inf") if row[0] is None else row[0], row[1]))
    columns: dict[str, Any] = dict(zip(_COLUMNS, zip(*rows, strict=True), strict=True))
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
