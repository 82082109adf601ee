"""Results that a task waits for, and what one that came shows.

Of a result only its code, its state and its times are looked at: no value gets into a chart.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
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
_DISPROVED_MAX: Final = 100
_AHEAD_MAX: Final = timedelta(hours=1)
"""No specimen is taken later than now by more than clocks differ."""


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
    orders: frozenset[str]
    """The numbers of the order (OBR-3, OBR-2), which tell apart two results of one code; none: it names none."""
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
    """The task after the results of a message: done by one that it waits for, standing again when that was none.

    What was withdrawn shows nothing, whichever of the two comes first: only what was written after that counts.
    """
    codes = frozenset(code for wanted in awaited for code in wanted.codes)
    results = [one for one in event.results if not one.codes.isdisjoint(codes)]
    gone = [_key(one) for one in results if one.state in GONE]
    proof = task.proved_by or ""
    if (
        proof.startswith(_PROVED)
        and event.at[0] >= task.proof_written
        and any(_is_same(proof.removeprefix(_PROVED), key) for key in gone)
    ):
        task = unproved(task)
    task = _without(task, gone, event.at[0])
    if not task.stands:
        return task
    stay = chart.encounter(task.encounter) if task.encounter is not None else None
    since = (ended_at(stay, calendar.zone) if stay is not None else None) or task.created_at
    came = event.event_time.at.at_in(calendar.zone) if event.event_time is not None else None
    if came is None or came <= since:
        return task
    for one in results:
        key = _key(one)
        if one.state not in FINAL or any(
            _is_same(key, other) and event.at[0] <= at for other, at in task.disproved.items()
        ):
            continue
        for wanted in awaited:
            if one.codes.isdisjoint(wanted.codes):
                continue
            taken = one.taken_at.at_in(calendar.zone) if one.taken_at is not None else None
            fresh = wanted.pending or (taken is not None and since < taken <= now + _AHEAD_MAX)
            if fresh and (wanted.within is None or came <= wanted.within.after(since, calendar)):
                evidence = f"entry {event.at[1]}: {', '.join(one.fields)}"
                return proved(task, f"{_PROVED}{key}", at=now, evidence=evidence, written=event.at[0])
    return task


def _without(task: Task, gone: Sequence[str], at: float) -> Task:
    """The task, which remembers what was withdrawn, and when that was written; of too many the latest."""
    if not gone:
        return task
    disproved = {**task.disproved, **{key: max(at, task.disproved.get(key, at)) for key in gone}}
    latest = sorted(disproved.items(), key=lambda one: one[1])[-_DISPROVED_MAX:]
    return msgspec.structs.replace(task, disproved=dict(latest))


def _key(result: Result) -> str:
    """`O1^P7|6301-6|38875-1`: the numbers of the order, and the codes. As a rule no value has these signs."""
    return "|".join(("^".join(sorted(result.orders)), *sorted(result.codes)))


def _is_same(one: str, other: str) -> bool:
    """Whether two keys are those of one result: of a common code, and of one order as far as both name theirs."""
    (orders, *codes), (others, *more) = one.split("|"), other.split("|")
    if set(codes).isdisjoint(more):
        return False
    return not orders or not others or not set(orders.split("^")).isdisjoint(others.split("^"))
