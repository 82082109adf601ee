"""What an ORU message says of results, and of whose they are. Only tasks that wait for one read it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

import msgspec

from engine.care.dispositions import Dispositions
from engine.care.event import Applied
from engine.care.results import FINAL, GONE, Result, ResultEvent, followed
from engine.domain.chart import Chart, Charts
from engine.domain.message import Entry
from engine.domain.moment import Moment
from engine.domain.outcome import Effect, EffectKind, Outcome
from engine.domain.task import Task
from engine.errors import MessageError
from engine.hl7v2.message import Message, Segment
from engine.mapping.apply import Reading
from engine.mapping.times import read_time
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.events import decide_events
from engine.pipeline.outcomes import outcome_of, recorded_only
from engine.pipeline.person import event_of, prepared_event, read_patient
from engine.pipeline.prepared import Prepared

CODE: Final = "ORU"
"""MSH-9.1."""
RESULTS_MAX: Final = 2000
"""Of one message."""
NOBODY: Final = "recorded: a result of a patient whom nobody has heard of"


def read_oru(entry: Entry, channel: CompiledChannel, message: Message, reading: Reading) -> Prepared:
    """What an ORU message says of charts: nothing, where no protocol waits for results. Raises MessageError and
    MappingError.
    """
    planners = (*channel.planners.values(), *channel.former.values())
    if message.header.trigger_event != "R01" or not any(planner.protocol.results for planner in planners):
        return recorded_only(entry, channel, message.header)
    mapped = read_patient(channel, message, reading)
    results = tuple(_results(message, reading))
    event = event_of(ResultEvent, entry, channel, message.header, mapped, reading, results=results)
    return prepared_event(CODE, entry, channel, message, mapped, event, reading)


def decide_oru(prepared: Prepared, channel: CompiledChannel, charts: Charts, now: datetime) -> Outcome:
    """A result of a patient whom nobody has heard of makes no chart. Raises MessageError and MappingError."""

    def on_awaited(chart: Chart, _charts: Charts, event: ResultEvent, _of: Dispositions, _applied: Applied) -> Chart:
        def after(task: Task) -> Task:
            planner = channel.planner_of(task)
            awaited = planner.protocol.results.get(task.kind, ()) if planner is not None else ()
            if not awaited or task.raised_for is not None:
                return task
            return followed(task, awaited, event, chart, calendar=channel.calendar, now=now)

        tasks = tuple(map(after, chart.tasks))
        same = all(one is other for one, other in zip(tasks, chart.tasks, strict=True))
        return chart if same else msgspec.structs.replace(chart, tasks=tasks)

    entry = prepared.entry
    if charts.find(prepared.events[0].identifiers[0]) is None:
        effect = Effect(kind=EffectKind.WITHOUT_EFFECT, subject=f"entry-{entry.id}", detail="ORU^R01")
        return outcome_of(entry, channel, reason=NOBODY, effects=(effect,), deviations=prepared.deviations)
    return decide_events(prepared, channel, charts, now, on_awaited)


def _results(message: Message, reading: Reading) -> Iterator[Result]:
    """Each order as a whole (OBR), and each of its observations (OBX)."""
    number = 0
    for group in message.groups("OBR"):
        order, observed = group.segments("OBR")[0], group.segments("OBX")
        number += 1 + len(observed)
        if number > RESULTS_MAX:
            raise MessageError("results-too-many", f"more than {RESULTS_MAX} results", location="OBX")
        numbers = frozenset(one for one in (order.get("3.1"), order.get("2.1")) if one)
        states = [_state(one, "11") for one in observed]
        whole = _state(order, "25") or next((one for one in states if one not in FINAL), "F" if states else "")
        if states and all(state in GONE for state in states):
            whole = states[0]  # whatever it says of itself: nothing of it was observed
        at = order.get("7")
        yield _result(order, "4", numbers, whole, at, ("OBR-4", "OBR-25"), reading)
        for one, state in zip(observed, states, strict=True):
            yield _result(one, "3", numbers, state or whole, one.get("14") or at, ("OBX-3", "OBX-11"), reading)


def _state(segment: Segment, field: str) -> str:
    return (segment.get(field) or "").strip().upper()


def _result(
    segment: Segment,
    field: str,
    orders: frozenset[str],
    state: str,
    at: str | None,
    fields: tuple[str, ...],
    reading: Reading,
) -> Result:
    codes = (segment.get(f"{field}.1"), segment.get(f"{field}.4"))
    time = read_time(at, reading.zone) if at else None
    return Result(
        codes=frozenset(code for code in codes if code),
        orders=orders,
        state=state,
        taken_at=time if isinstance(time, Moment) else None,
        fields=fields,
    )
