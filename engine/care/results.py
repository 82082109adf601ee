"""Results that a task waits for, and what one that came shows.

Of a result only its code, its state and its times are looked at: no value gets into a chart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field

from engine.care.event import PatientEvent
from engine.care.plausible import ended_at
from engine.care.spans import Span
from engine.care.tasks import proved, unproved
from engine.domain.moment import Moment
from engine.domain.record import Phi
from engine.yamlmodel import StrictModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from engine.care.calendar import BusinessCalendar
    from engine.domain.chart import Chart
    from engine.domain.task import Task

_Code = Annotated[str, Field(min_length=1, max_length=50)]

FINAL: Final = frozenset({"F", "C"})
"""HL7 tables 0085 and 0123: final, and corrected."""
GONE: Final = frozenset({"D", "W", "X"})
"""Deleted, of the wrong patient, can't be had: what such a result has shown is not so."""
_PROVED: Final = "result:"


class Awaited(StrictModel):
    """A result that shows that a task is done: all that is said must hold."""

    codes: Annotated[tuple[_Code, ...], Field(min_length=1, max_length=100)]
    """What was ordered (OBR-4) or observed (OBX-3), as its code or its alternate code: one of them. An order is done
    when it says so as a whole (OBR-25), or all that was observed is final."""
    pending: bool = False
    """Also one of what was taken before the discharge, as long as the result came after it."""
    within: Span | None = None
    """It came at most so long after the discharge; none: as long as the task stands."""


class Result(Phi, frozen=True, kw_only=True):
    """One result as a message says it."""

    codes: frozenset[str]
    order: str
    """The number of the order (OBR-3, else OBR-2), which tells apart two results of one code."""
    state: str
    """OBR-25 of an order, OBX-11 of an observation."""
    taken_at: Moment | None
    """When the specimen was taken, or the patient observed (OBX-14, else OBR-7)."""
    fields: tuple[str, ...]
    """HL7 fields that say it."""


class ResultEvent(PatientEvent, frozen=True, kw_only=True):
    """A message with results in the engine's words."""

    results: tuple[Result, ...]


def followed(
    task: Task,
    awaited: Sequence[Awaited],
    event: ResultEvent,
    chart: Chart,
    *,
    calendar: BusinessCalendar,
    now: datetime,
) -> Task:
    """The task after the results of a message: done by one that it waits for, standing again when that was none."""
    gone = {_key(one) for one in event.results if one.state in GONE}
    if task.proved_by is not None and task.proved_by.removeprefix(_PROVED) in gone:
        task = unproved(task)
    if not task.stands:
        return task
    stay = chart.encounter(task.encounter) if task.encounter is not None else None
    since = (ended_at(stay, calendar.zone) if stay is not None else None) or task.created_at
    came = event.event_time.at.at_in(calendar.zone) if event.event_time is not None else None
    if came is None or came <= since:
        return task
    for one in event.results:
        if one.state not in FINAL or _key(one) in gone:
            continue
        for wanted in awaited:
            if one.codes.isdisjoint(wanted.codes):
                continue
            taken = one.taken_at.at_in(calendar.zone) if one.taken_at is not None else None
            fresh = wanted.pending or (taken is not None and taken > since)
            if fresh and (wanted.within is None or came <= wanted.within.after(since, calendar)):
                evidence = f"entry {event.at[1]}: {', '.join(one.fields)}"
                return proved(task, f"{_PROVED}{_key(one)}", at=now, evidence=evidence)
    return task


def _key(result: Result) -> str:
    return "/".join((result.order, *sorted(result.codes)))
