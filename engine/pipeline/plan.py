"""Scores and follow-up tasks of a chart that an event has changed: what is worked out again, and what becomes of it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Final

import msgspec

from engine.care.death import without_doubt
from engine.care.event import Applied
from engine.care.protocol import CLASSES, Plan
from engine.care.tasks import end, reconcile, resume, retract_all, suspend
from engine.domain.chart import Chart, Days
from engine.domain.closed import Closed
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.moment import Moment, instant
from engine.domain.outcome import Effect, EffectKind
from engine.domain.score import Band, Score
from engine.domain.task import READMITTED, SIDE_BY_SIDE, Task, TaskState
from engine.domain.why import CLASS_UNKNOWN as UNKNOWN
from engine.domain.why import NO_CLASS, Ground, Reason, What, Why
from engine.risk.inputs import History, inputs_of

if TYPE_CHECKING:
    from engine.pipeline.channel import CompiledChannel, Planner

SCORED_CLASSES: Final = frozenset({"I", "OBS"})
"""Inpatient and observation stays: the readmission models were made for these."""

DECIDED: Final = "it is decided whether the patient has died"
"""Why the task ends that asks whether the patient has died."""

_ASKED_ONCE: Final = "another task asks the same"
"""Why one of two such tasks ends, when their patients are one."""

CLASS_UNKNOWN: Final = "class-unknown"
"""Kind of the effect, and code of the deviation, of a discharge whose class the protocol does not know."""

_READMITTING_CLASSES: Final = frozenset({"I", "OBS"})
_OPEN: Final = frozenset({EncounterStatus.ACTIVE, EncounterStatus.ON_LEAVE})
ARRIVED: Final = _OPEN | {EncounterStatus.FINISHED}


def rescore(
    before: Chart | None, chart: Chart, subject: str | None, channel: CompiledChannel, now: datetime
) -> tuple[Chart, list[Why]]:
    """Work out again every current score that the change can have touched; a score that comes out the same stays.

    The score of a stay that was cancelled, or is no longer an inpatient's, goes. Also says why the stay that the event
    spoke of has a new score, or none.
    """
    whys: list[Why] = []
    stays = [encounter for encounter in chart.encounters if is_scored(encounter)]
    scored = {stay.key for stay in stays}
    current = {
        (one.encounter, one.model): one for one in chart.scores if one.encounter is None or one.encounter in scored
    }
    history = None
    for encounter in _encounters_to_score(before, chart, stays, subject):
        # A stay gets its first score from a message that speaks of it: from its own channel, and not from all others.
        models = [m for m in channel.models if encounter.key == subject or (encounter.key, m.name) in current]
        if not models:
            continue
        if history is None and (len(chart.encounters) > 1 or chart.closed is not None):
            history = History(chart, channel.inputs, channel.zone)
        inputs = inputs_of(
            chart,
            encounter,
            now=now,
            observed_since=channel.observed_since,
            tables=channel.inputs,
            zone=channel.zone,
            history=history,
        )
        for model in models:
            score = msgspec.structs.replace(
                model.score(inputs, now=now, observed_since=channel.observed_since), encounter=encounter.key
            )
            old = current.get((encounter.key, model.name))
            if old is None or not _same_result(old, score):
                current[encounter.key, model.name] = score
                if score.missing and encounter.key == subject:
                    whys.append(_scored_in_part(score))
    scores = tuple(current.values())
    if subject not in scored:
        whys = not_scored(chart, subject)
    return chart if scores == chart.scores else msgspec.structs.replace(chart, scores=scores), whys


def is_scored(encounter: Encounter) -> bool:
    return encounter.class_ in SCORED_CLASSES and encounter.status in ARRIVED


def _unscored(encounter: Encounter) -> Reason | None:
    """Why a stay has no score; none: it has one."""
    if is_scored(encounter):
        return None
    if encounter.class_ not in SCORED_CLASSES:
        return Reason.CLASS_NOT_SCORED
    return Reason.CANCELLED if encounter.status is EncounterStatus.CANCELLED else Reason.NOT_ARRIVED


def not_scored(chart: Chart, subject: str | None) -> list[Why]:
    """Why the stay that an event spoke of has no score; empty: it has, or may have one."""
    encounter = chart.encounter(subject) if subject is not None else None
    reason = _unscored(encounter) if encounter is not None else Reason.NO_VISIT
    if reason is None:
        return []
    if encounter is not None and reason is Reason.CLASS_NOT_SCORED:
        return [_CLASS_NOT_SCORED.get(encounter.class_) or _CLASS_NOT_SCORED[UNKNOWN]]
    return [Why(what=What.SCORE, reason=reason)]


_CLASS_NOT_SCORED: Final[Mapping[str | None, Why]] = {
    class_: Why(what=What.SCORE, reason=Reason.CLASS_NOT_SCORED, args=(said,))
    for class_, said in (*((one, f"class {one}") for one in CLASSES), (None, NO_CLASS), (UNKNOWN, UNKNOWN))
}
"""By class; what is not in there is unknown."""


def _scored_in_part(score: Score) -> Why:
    args = (score.min, score.max, ", ".join(score.missing))
    return Why(what=What.SCORE, reason=Reason.SCORED_IN_PART, args=args, name=score.model)


def _encounters_to_score(
    before: Chart | None, chart: Chart, stays: list[Encounter], subject: str | None
) -> list[Encounter]:
    """Of the stays, the one that the event spoke of, and those that matter and whose patient or history has changed.

    Open stays matter, and those with an open plan; the history are the earlier stays and visits.
    """
    if not stays or (len(stays) == 1 and stays[0].key == subject):
        return stays
    person_changed = before is None or before.patient is not chart.patient
    since = _history_changed_since(before, chart)
    planned = {task.encounter for task in chart.tasks if task.stands}

    def touched(encounter: Encounter) -> bool:
        if encounter.key == subject:
            return True
        if encounter.status not in _OPEN and encounter.key not in planned:
            return False
        if person_changed:
            return True
        admitted = instant(encounter.admitted_at) if since is not None else None
        return since is not None and admitted is not None and admitted > since

    return [stay for stay in stays if touched(stay)]


def _history_changed_since(before: Chart | None, chart: Chart) -> datetime | None:
    """The admission of the earliest encounter that reads differently to a later one; none: none does."""
    old = {encounter.key: encounter for encounter in before.encounters} if before is not None else {}
    moments: list[datetime] = []
    known = 0
    for encounter in chart.encounters:
        was = old.get(encounter.key)
        known += was is not None
        if was is encounter or (was is not None and _as_history(was) == _as_history(encounter)):
            continue
        for version in (was, encounter):
            admitted = instant(version.admitted_at) if version is not None else None
            if admitted is not None:
                moments.append(admitted)
    if known < len(old):  # one has gone to another patient
        now = {encounter.key for encounter in chart.encounters}
        gone = (instant(was.admitted_at) for key, was in old.items() if key not in now)
        moments += [admitted for admitted in gone if admitted is not None]
    return min(moments, default=None)


def _as_history(encounter: Encounter) -> tuple[object, ...]:
    return (
        encounter.status,
        encounter.class_,
        encounter.admitted_at,
        encounter.discharged_at,
        encounter.disposition,
    )


def _same_result(old: Score, new: Score) -> bool:
    return old == msgspec.structs.replace(new, scored_at=old.scored_at, observed_since=old.observed_since)


def replan(
    before: Chart | None,
    chart: Chart,
    subject: str | None,
    channel: CompiledChannel,
    now: datetime,
    heard: Applied,
    anew: frozenset[str] = frozenset(),
) -> tuple[Chart, list[Effect], list[Why]]:
    """Bring the tasks of the chart into line with its encounters; also says what is not planned though it might be,
    and why the stay that the event spoke of (`subject`) has new tasks, or none.

    What is wanted follows from the state of the encounters alone, so that the same state never gives a second task,
    whatever way led to it. Tasks are touched only when something that decides on them has changed: class, disposition,
    discharge, band, death or a readmission. What is wrong with the data goes to `heard`. anew: keys of stays whose plan
    is made anew, by what its protocol says today.
    """
    _need_closed_stays(before, chart, channel.zone)
    chart = _ask_of_death(chart, channel, now)
    if chart.patient.deceased is True:
        if chart.death_stated.in_doubt:  # as long as nobody knows, neither a plan goes on nor is one lost
            return chart, _withheld_by_death(before, chart, channel), not_planned(chart, subject, channel, now)
        ended = retract_all(chart.tasks, at=now, why="the patient has died", state=TaskState.CANCELLED)
        chart = _with_tasks(chart, {task.id: task for task in ended})
        return chart, _withheld_by_death(before, chart, channel), not_planned(chart, subject, channel, now)
    if not chart.tasks and not any(encounter.discharges for encounter in chart.encounters):
        return chart, [], not_planned(chart, subject, channel, now)
    planning = _Planning(before, chart, channel, now, anew)
    changed = {encounter.key for encounter in planning.changed()} | anew
    if not changed and not any(task.stands or task.suspended_by for task in chart.tasks):
        return chart, [], not_planned(chart, subject, channel, now)
    waits_for = later_stays(chart, channel.zone)
    tasks = {task.id: task for task in chart.tasks}
    effects: list[Effect] = []
    whys: list[Why] = []
    for encounter in chart.encounters:
        own = planning.tasks.get(encounter.key, ())
        by = waits_for(encounter)
        if encounter.key not in changed and (by is not None or all(task.suspended_by is None for task in own)):
            continue
        wanted, why, planner = Plan(), _why_not(encounter), None
        if why is None:
            planner = planning.planner(encounter)
            if planner is None:
                continue
            why = "the discharge data changed: no longer part of the plan"
            wanted = planner.protocol.plan(
                msgspec.structs.replace(chart, tasks=tuple(own)),
                encounter,
                band=planning.bands.get((encounter.key, planner.model)),
                disposition=channel.dispositions.of(encounter.disposition),
                calendar=channel.calendar,
                now=now,
                key=channel.key,
                waits=by is not None,
            )
            if wanted.class_unknown and encounter.key in changed:
                detail = (
                    "the patient class tells neither that the stay gets a plan nor that it gets none: a person is asked"
                )
                effects.append(Effect(kind=CLASS_UNKNOWN, subject=encounter.key, detail=detail))
                heard.deviate(f"{CLASS_UNKNOWN}:PV1-2")
            if wanted.withheld:
                days = planner.protocol.discharge_age_days_max
                detail = f"discharged more than {days} days ago: no task {', '.join(wanted.withheld)}"
                effects.append(Effect(kind="plan-withheld", subject=encounter.key, detail=detail))
        # What waits for the end of a readmission is decided on like what is open; whether it goes on waiting, below.
        reconciled = reconcile(tuple(map(resume, own)), wanted.tasks, at=now, why=why)
        tasks |= {task.id: task for task in reconciled}
        if planner is not None and encounter.key == subject:
            reason, args = wanted.ground
            if reason is Reason.PLAN_SAME and reconciled != tuple(own):
                reason = Reason.REPLANNED
            whys.append(_why(channel, planner, reason, args))
    after = _with_tasks(chart, _suspend_or_resume(chart, tasks, waits_for, now, channel.zone))
    whys = whys or not_planned(chart, subject, channel, now)
    if after is not chart and _waits_for(subject, after):
        whys.append(Why(what=What.PLAN, reason=Reason.EARLIER_WAITS))
    return after, effects, whys


def outdated(chart: Chart, channel: CompiledChannel, protocol: str | None = None) -> frozenset[str]:
    """Keys of the stays whose running plan was made with what its protocol does not say any more.

    protocol: plans of this one only.
    """
    stays = {stay.key: stay.discharges for stay in chart.encounters}
    today = {name: one.protocol.digest for name, one in channel.planners.items() if protocol in {None, name}}
    return frozenset(
        task.encounter
        for task in chart.tasks
        if task.encounter is not None
        and (task.stands or task.suspended_by is not None)
        and task.raised_for is None
        and stays.get(task.encounter) == task.discharge
        and today.get(task.protocol, task.protocol_digest) != task.protocol_digest
    )


def migrated(chart: Chart, channel: CompiledChannel, now: datetime, protocol: str | None = None) -> Chart:
    """The chart with its running plans made anew by what their protocols say today."""
    anew = outdated(chart, channel, protocol)
    return replan(chart, chart, None, channel, now, Applied(), anew)[0] if anew else chart


def _waits_for(subject: str | None, chart: Chart) -> bool:
    """Whether tasks of another stay wait for this one."""
    if chart.closed is not None and subject in chart.closed.waits:
        return True
    return any(task.suspended_by == subject and task.encounter != subject for task in chart.tasks if task.suspended_by)


def _need_closed_stays(before: Chart | None, chart: Chart, zone: tzinfo) -> None:
    """Ask for the whole chart where the plan of a closed stay may go on, end, or wait for another stay.

    That is so with the patient's death, and when a stay that closed ones wait for, or one that lies before the last of
    those, reads differently now.
    """
    closed = chart.closed
    if closed is None or before is None:
        return
    if chart.patient.deceased is True or before.patient.deceased is True or chart.death_stated.in_doubt:
        chart.need_whole()
    if not closed.waits:
        return
    last, days = _or_long_ago(closed.waited_came_at), Days(chart.encounters, zone)
    old = {encounter.key: encounter for encounter in before.encounters}
    for encounter in chart.encounters:
        was = old.get(encounter.key)
        if was is encounter:
            continue
        versions = [version for version in (was, encounter) if version is not None]
        read = [_lateness(version, days) if _readmits(version) else None for version in versions]
        if len(read) == 2 and read[0] == read[1]:
            continue
        if encounter.key in closed.waits or any(one is not None and one[0] <= last for one in read):
            chart.need_whole()


def not_planned(chart: Chart, subject: str | None, channel: CompiledChannel, now: datetime) -> list[Why]:
    """Why nothing was planned for the stay that an event spoke of."""
    planner = channel.planner
    if planner is None:
        return [Why(what=What.PLAN, reason=Reason.NO_PROTOCOL)]
    encounter = chart.encounter(subject) if subject is not None else None
    reason, args = _withheld(chart, encounter, planner, channel, now) or (Reason.PLAN_SAME, ())
    return [_why(channel, planner, reason, args)]


def _why(channel: CompiledChannel, planner: Planner, reason: Reason, args: tuple[str | int, ...]) -> Why:
    own = planner is channel.planner  # then everybody knows its name
    if own and not args:
        return _PLAIN[reason]
    return Why(what=What.PLAN, reason=reason, args=args, name="" if own else planner.protocol.name)


_PLAIN: Final = {reason: Why(what=What.PLAN, reason=reason) for reason in Reason}


def _withheld(
    chart: Chart, encounter: Encounter | None, planner: Planner, channel: CompiledChannel, now: datetime
) -> Ground | None:
    if chart.patient.deceased and chart.death_stated.in_doubt:
        return Reason.DEATH_IN_DOUBT, ()
    if encounter is None:
        return Reason.NO_VISIT, ()
    if _why_not(encounter) is not None and not chart.patient.deceased:
        cancelled = encounter.status is EncounterStatus.CANCELLED
        taken_back = Reason.TAKEN_BACK if encounter.discharges else Reason.NOT_DISCHARGED
        return Reason.CANCELLED if cancelled else taken_back, ()
    return planner.protocol.withholds(chart, encounter, channel.dispositions.of(encounter.disposition), now)


def _ask_of_death(chart: Chart, channel: CompiledChannel, now: datetime) -> Chart:
    """While it is uncertain whether the patient has died there is one task for a person; then it goes."""
    asked = tuple([task for task in chart.tasks if task.encounter is None]) if chart.tasks else ()
    if not asked and not chart.death_stated.in_doubt:
        return chart
    wanted: tuple[Task, ...] = ()
    if channel.planner is not None:
        wanted = channel.planner.protocol.ask_of_death(chart, calendar=channel.calendar, now=now, key=channel.key)
    tasks = {task.id: task for task in chart.tasks}
    why = _ASKED_ONCE if chart.death_stated.in_doubt else DECIDED
    tasks |= {task.id: task for task in reconcile(asked, wanted, at=now, why=why)}
    return _with_tasks(chart, tasks)


def decide_death(chart: Chart, root: int, code: str, location: str | None, *, by: str, at: datetime) -> Chart:
    """A person says of a question on the patient's death that it is not so; the last such word ends the task.

    root: the entry that asked. A patient who is dead by what is certain has no plan any more.
    """
    stated = without_doubt(chart.death_stated, root, code, location)
    if stated == chart.death_stated:
        return chart
    tasks = chart.tasks
    if not stated.in_doubt:
        asked = (task for task in tasks if task.encounter is None and task.stands)
        ended = {task.id: end(task, TaskState.RETRACTED, at=at, by=by, why=DECIDED) for task in asked}
        tasks = tuple(ended.get(task.id, task) for task in tasks)
        if chart.patient.deceased is True:
            tasks = retract_all(tasks, at=at, why="the patient has died", state=TaskState.CANCELLED)
    return msgspec.structs.replace(chart, death_stated=stated, tasks=tasks)


def _withheld_by_death(before: Chart | None, chart: Chart, channel: CompiledChannel) -> list[Effect]:
    """Discharges of a patient who is recorded as deceased, though these say otherwise: somebody must put it right."""
    old = {encounter.key: encounter for encounter in before.encounters} if before is not None else {}
    return [
        Effect(kind="plan-withheld", subject=encounter.key, detail="the patient is recorded as deceased: no task")
        for encounter in chart.encounters
        if encounter.disposition in channel.dispositions.left_alive
        and encounter.class_ in _READMITTING_CLASSES
        and encounter.discharges > 0
        and ((was := old.get(encounter.key)) is None or _decides(was) != _decides(encounter))
    ]


class _Planning:
    """Who plans which encounter, and which of them have to be planned again."""

    def __init__(
        self, before: Chart | None, chart: Chart, channel: CompiledChannel, now: datetime, anew: frozenset[str]
    ) -> None:
        self._before = before
        self._chart = chart
        self._channel = channel
        self._now = now
        self._anew = anew
        self.bands = _bands(chart)
        self.tasks: dict[str, list[Task]] = {}
        for task in chart.tasks:
            if task.encounter is not None:
                self.tasks.setdefault(task.encounter, []).append(task)

    def planner(self, encounter: Encounter) -> Planner | None:
        """The protocol that has planned the discharge goes on with it, whatever channel the news come by, and however
        it reads today.
        """
        channel = self._channel
        own = [task for task in self.tasks.get(encounter.key, ()) if task.discharge == encounter.discharges]
        if channel.planner is not None:
            name = channel.planner.protocol.name
            own = [task for task in own if task.protocol == name] or own
        anew = encounter.key in self._anew
        for task in sorted(own, key=lambda task: (task.stands, task.created_at, task.protocol), reverse=True):
            planner = channel.planners.get(task.protocol) if anew else channel.planner_of(task)
            if planner is not None:
                return planner
        return channel.planner

    def changed(self) -> list[Encounter]:
        """Those of which something has changed that decides on their plan."""
        before = self._before
        if before is None:
            return [encounter for encounter in self._chart.encounters if encounter.discharges > 0]
        old = {encounter.key: encounter for encounter in before.encounters}
        old_bands = _bands(before)
        bands = {place for place in {*old_bands, *self.bands} if old_bands.get(place) is not self.bands.get(place)}
        lived_again = before.patient.deceased is True
        return [
            encounter
            for encounter in self._chart.encounters
            if (
                encounter.discharges > 0
                if (was := old.get(encounter.key)) is None
                else lived_again
                or (was is not encounter and _decides(was) != _decides(encounter))
                or (bands and self._band_of(encounter) in bands)
                or self._conditions_changed(before, was, encounter)
            )
        ]

    def _conditions_changed(self, before: Chart, was: Encounter, encounter: Encounter) -> bool:
        """Of a stay that ended with all its tasks, news of the patient alone plan nothing anew."""
        planner = self.planner(encounter)
        if planner is None or not planner.protocol.conditional:
            return False
        if was is encounter and not any(task.stands for task in self.tasks.get(encounter.key, ())):
            return False
        met = planner.protocol.met
        return met(before.patient, was, self._now) != met(self._chart.patient, encounter, self._now)

    def _band_of(self, encounter: Encounter) -> tuple[str | None, str | None]:
        planner = self.planner(encounter)
        return encounter.key, planner.model if planner is not None else None


def _bands(chart: Chart) -> dict[tuple[str | None, str | None], Band]:
    return {(score.encounter, score.model): score.band for score in chart.scores}


def _decides(encounter: Encounter) -> tuple[object, ...]:
    return (
        encounter.status,
        encounter.class_,
        encounter.disposition,
        encounter.discharged_at,
        encounter.discharges,
    )


def _why_not(encounter: Encounter) -> str | None:
    """Why an encounter calls for no plan at all; none: it may call for one."""
    if encounter.status is EncounterStatus.CANCELLED:
        return "the admission was cancelled"
    if encounter.status is not EncounterStatus.FINISHED:
        return "the discharge was cancelled"
    if encounter.discharges == 0:
        return "no discharge was seen"
    return None


def _suspend_or_resume(
    chart: Chart, tasks: dict[str, Task], waits_for: Callable[[Encounter], str | None], now: datetime, zone: tzinfo
) -> dict[str, Task]:
    by = {encounter.key: waits_for(encounter) for encounter in chart.encounters}
    since = {task.id: task.ended_at or now for task in chart.tasks if task.suspended_by is not None}
    came = {}
    if any(by.values()):
        days = Days(chart.encounters, zone)
        came = {encounter.key: came_at(encounter, days) for encounter in chart.encounters}
    if came and chart.closed is not None:
        came |= {key: _or_long_ago(at) for key, at in zip(chart.closed.keys, chart.closed.came_at, strict=True)}
    for task in tasks.values():
        if task.encounter is None:
            continue
        later = by[task.encounter]
        if later != task.suspended_by and (task.stands or task.suspended_by is not None):
            resumed = resume(task)
            if later is not None:
                why = SIDE_BY_SIDE if came[later] == came[task.encounter] else READMITTED
                resumed = suspend(resumed, later, at=since.get(task.id, now), why=why)
            tasks[task.id] = resumed
    return tasks


def later_stays(chart: Chart, zone: tzinfo = UTC) -> Callable[[Encounter], str | None]:
    """Gives the stay that the plan of an encounter waits for: the next later one, by when the patient came.

    Not by when we heard of it: an old stay that is heard of late, and one whose end was never heard of, take nobody's
    plan away. When the later stay turns out not to have been, the plan goes on. zone: see `Days`.
    """
    days = Days(chart.encounters, zone)
    stays = [_lateness(encounter, days) for encounter in chart.encounters if _readmits(encounter)]
    if chart.closed is not None:
        first = min((came_at(encounter, days) for encounter in chart.encounters), default=float("inf"))
        stays.extend(_closed_later(chart.closed, first))
    stays.sort()
    order = [stay[:2] for stay in stays]

    def waits_for(encounter: Encounter) -> str | None:
        # At the same time, the stay that goes on is the later one.
        later = bisect_right(order, (came_at(encounter, days), False))
        return stays[later][2] if later < len(stays) else None

    return waits_for


def _closed_later(closed: Closed, came: float) -> Iterator[tuple[float, bool, str]]:
    """The closed stays that readmit a patient and that the patient came for then or later, as `_lateness` has them."""
    for at, class_, finished, key in zip(
        reversed(closed.came_at),
        reversed(closed.classes),
        reversed(closed.finished),
        reversed(closed.keys),
        strict=True,
    ):
        if _or_long_ago(at) < came:
            return  # so are all before it
        if finished and class_ in _READMITTING_CLASSES:
            yield _or_long_ago(at), False, key


def _readmits(encounter: Encounter) -> bool:
    return encounter.class_ in _READMITTING_CLASSES and encounter.status in ARRIVED


def _or_long_ago(came: float | None) -> float:
    return float("-inf") if came is None else came


def _lateness(encounter: Encounter, days: Days) -> tuple[float, bool, str]:
    return came_at(encounter, days), encounter.status in _OPEN, encounter.key


def came_at(encounter: Encounter, days: Days) -> float:
    """When the patient came, in seconds since 1970: admission, else discharge; unknown: now if open, else long ago.

    An admission after the discharge is an error of the sender; at its word, every later plan would wait for that stay.
    A stay that was admitted on a mere date came after what ended on that day before it did.
    days: of the patient's stays.
    """
    admitted, discharged = _with_instant(encounter.admitted_at), _with_instant(encounter.discharged_at)
    if admitted is not None:
        came = days.seconds(admitted)
        if not admitted.timed and (other := days.last_end_on(admitted, before=discharged)) is not None:
            came = max(came, other)
        if discharged is None or (not (admitted.timed and discharged.timed) and not discharged.is_before(admitted)):
            return came
        return min(came, days.seconds(discharged))
    if discharged is not None:
        return days.seconds(discharged)
    return float("inf") if encounter.status in _OPEN else float("-inf")


def _with_instant(time: Moment | None) -> Moment | None:
    return time if time is not None and time.at is not None else None


def _with_tasks(chart: Chart, tasks: dict[str, Task]) -> Chart:
    after = tuple(tasks.values())
    return chart if after == chart.tasks else msgspec.structs.replace(chart, tasks=after)


def task_effects(before: Chart | None, chart: Chart) -> list[Effect]:
    if before is not None and before.tasks is chart.tasks:
        return []
    old = {task.id: task for task in before.tasks} if before is not None else {}
    effects: list[Effect] = []
    for task in chart.tasks:
        was = old.get(task.id)
        if was is task:
            continue
        if was is None or was.state is not task.state:
            did = "created" if was is None else task.state
            effects.append(Effect(kind=f"task-{did}", subject=task.id, detail=task.kind))
        if task.escalations:
            effects.extend(
                Effect(kind="task-escalated", subject=task.id, detail=one.told)
                for one in task.escalations[len(was.escalations) if was is not None else 0 :]
            )
    return effects


def score_effects(before: Chart | None, chart: Chart) -> list[Effect]:
    if before is not None and before.scores is chart.scores:
        return []
    old = {(score.encounter, score.model): score for score in before.scores} if before is not None else {}
    effects = []
    for score in chart.scores:
        if old.pop((score.encounter, score.model), None) is not score:
            detail = f"{score.model} {score.band}"
            effects.append(Effect(kind=EffectKind.SCORED, subject=score.encounter or chart.id, detail=detail))
    withdrawn = (
        Effect(kind="score-withdrawn", subject=gone.encounter or chart.id, detail=gone.model) for gone in old.values()
    )
    return [*effects, *withdrawn]


def death_effects(before: Chart | None, chart: Chart) -> list[Effect]:
    was, now = before is not None and before.patient.deceased is True, chart.patient.deceased is True
    if was == now:
        return []
    return [Effect(kind="patient-deceased" if now else "patient-not-deceased", subject=chart.id)]
