"""Notices: words to a person (texts, pages, mails) that the heart plans, and what each hangs on.

A notice is planned when something begins to stand: an open task, a discharge (`newly`). That is its ground. When the
ground falls before it is sent (the task is done, the discharge cancelled, the patient dead or merged into another), it
is not sent any more. The heart says which grounds an entry has made fall (`fallen`); the store puts that on record with
the notices that hang on them, in the transaction of the outcome (`engine.store.notices`), and admission asks for it
right before anything is sent (`ground_is_there`). What was sent before stays sent, and says that its ground has gone.

| to add | is |
|---|---|
| a kind of ground (an appointment) | a line of `GROUNDS` |
| notices after a change of a chart | a planner in a file beside this one, and its line in `PLANNERS` |
| when they may go out | `engine.pipeline.admit`, or the destination's own rules |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from engine.domain.chart import Chart
from engine.domain.delivery import Delivery, Fallen, Gone, Ground, Notice, Operation, line_of_notice
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.ids import beginning_like
from engine.domain.parts import ENCOUNTERS, TASKS, Part
from engine.domain.task import Task, TaskState
from engine.pipeline.channel import CompiledChannel


class GroundRule(NamedTuple):
    """One kind of ground: an item of a part of the chart."""

    part: Part
    key: Callable[[Any], str]
    """Names it among all of the store; another discharge of a stay is another ground."""
    stands: Callable[[Any], bool]


def _is_open(task: Task) -> bool:
    return task.state is TaskState.OPEN


def _has_ended(encounter: Encounter) -> bool:
    return encounter.status is EncounterStatus.FINISHED


GROUNDS: Final[Mapping[str, GroundRule]] = {
    "task": GroundRule(TASKS, TASKS.key, _is_open),
    "discharge": GroundRule(ENCOUNTERS, lambda stay: f"{stay.key}#{stay.discharges}", _has_ended),
}


class Planned(NamedTuple):
    """What a planner wants said. operation: one of those whose content is a notice."""

    operation: Operation
    notice: Notice


NoticePlanner = Callable[[Chart | None, Chart, CompiledChannel, datetime], Iterable[Planned]]
"""The patient before and after an entry, the channel by whose rules it was decided, the time -> notices. Pure."""

PLANNERS: Final[Sequence[NoticePlanner]] = ()
"""All that the heart plans to say to people: nothing yet."""


def newly(kind: str, before: Chart | None, after: Chart) -> Iterator[tuple[Ground, Any]]:
    """Grounds of a kind that stand and did not before, each with its item. None of a patient who is dead."""
    rule = GROUNDS[kind]
    stood = _standing(rule, before) if before is not None else {}
    for key, item in _standing(rule, after).items():
        if key not in stood and after.patient.deceased is not True:
            yield Ground(kind=kind, key=key), item


def fallen(before: Chart, after: Chart) -> Fallen | None:
    """What notices have hung on and an entry has taken away; none: nothing."""
    if after.merged_into is not None:
        return None if before.merged_into is not None else Fallen(chart_id=after.id, code=Gone.MERGED)
    if after.patient.deceased is True and before.patient.deceased is not True:
        return Fallen(chart_id=after.id, code=Gone.DECEASED)
    gone: list[Ground] = []
    for kind, rule in GROUNDS.items():
        if rule.part.of(before) is rule.part.of(after):
            continue
        if stood := _standing(rule, before):
            left = _standing(rule, after)
            gone += [Ground(kind=kind, key=key) for key in stood if key not in left]
    return Fallen(chart_id=after.id, code=Gone.GROUND, grounds=tuple(gone)) if gone else None


def notice_deliveries(
    before: Chart | None, chart: Chart, channel: CompiledChannel, now: datetime, kinds: dict[str, None]
) -> Iterator[Delivery]:
    """A delivery of each planned notice for each destination that takes its kind. kinds: takes up those planned."""
    for planner in PLANNERS:
        for operation, notice in planner(before, chart, channel, now):
            kinds[operation.what] = None
            payload = notice.encoded()
            for destination in channel.settings.takers.get(operation.what, ()):
                own = channel.key("notice", destination, operation, chart.id, notice.id, str(chart.version))
                yield Delivery(
                    destination=destination,
                    operation=operation,
                    ordering_key=line_of_notice(chart.id, notice.id),
                    idempotency_key=beginning_like(chart.id, own),
                    payload=payload,
                )


def _standing(rule: GroundRule, chart: Chart) -> dict[str, Any]:
    return {rule.key(item): item for item in rule.part.of(chart) if rule.stands(item)}
