"""What notices to people hang on: a task that is still to be done, a discharge. A ground begins to stand, and falls.

Another kind (an appointment) is a line of `GROUNDS`. Planners of notices import from here; `engine.pipeline.notices`
lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from operator import is_
from typing import Any, Final, NamedTuple

from engine.domain.appointment import Appointment, RequestState
from engine.domain.chart import Chart
from engine.domain.delivery import AppointmentRequestEnd, Fallen, Gone, Ground, Operation, Spoken
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.parts import APPOINTMENTS, ENCOUNTERS, PAGES, TASKS, TEXTS, Part
from engine.domain.task import Task
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.pages import ground_of, is_unanswered


class GroundRule(NamedTuple):
    """One kind of ground: an item of a part of the chart."""

    part: Part
    key: Callable[[Any], str]
    """Names it among all of the store; another discharge of a stay is another ground."""
    stands: Callable[[Any], bool]


def _stands(task: Task) -> bool:
    return task.stands


def _has_ended(encounter: Encounter) -> bool:
    return encounter.status is EncounterStatus.FINISHED


def _is_asked(appointment: Appointment) -> bool:
    return appointment.request is not None and appointment.request not in _GIVEN_UP


_GIVEN_UP: Final = frozenset({RequestState.DROPPED, RequestState.WITHDRAWN})


GROUNDS: Final[Mapping[str, GroundRule]] = {
    "task": GroundRule(TASKS, TASKS.key, _stands),
    "page": GroundRule(PAGES, ground_of, is_unanswered),
    "request": GroundRule(APPOINTMENTS, APPOINTMENTS.key, _is_asked),
    "text": GroundRule(TEXTS, lambda text: text.ground, lambda text: text.stands),
    "discharge": GroundRule(ENCOUNTERS, lambda stay: f"{stay.key}#{stay.discharges}", _has_ended),
}


class Planned(NamedTuple):
    """What a planner wants said. operation: one of those whose content is a notice, or ends one."""

    operation: Operation
    notice: Spoken | AppointmentRequestEnd


NoticePlanner = Callable[[Chart | None, Chart, CompiledChannel, datetime], Iterable[Planned]]
"""The patient before and after an entry, the channel by whose rules it was decided, the time -> notices. Pure."""


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
        was, now = rule.part.of(before), rule.part.of(after)
        if was is now or (len(was) == len(now) and all(map(is_, was, now))):
            continue
        left = None
        for item in was:
            if rule.stands(item):
                left = _standing(rule, after) if left is None else left
                if (key := rule.key(item)) not in left:
                    gone.append(Ground(kind=kind, key=key))
    return Fallen(chart_id=after.id, code=Gone.GROUND, grounds=tuple(gone)) if gone else None


def _standing(rule: GroundRule, chart: Chart) -> dict[str, Any]:
    return {rule.key(item): item for item in rule.part.of(chart) if rule.stands(item)}
