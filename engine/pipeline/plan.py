"""Scores and follow-up tasks of a chart that an event has changed: what is worked out again, and what becomes of it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from engine.care.dispositions import Action, Disposition
from engine.care.event import Applied
from engine.care.plausible import TWO_ENDS, dates_in_doubt, ended_at, is_same_stay, open_besides, overlap
from engine.care.protocol import CLASSES, NOTHING_BESIDES, Besides, Plan
from engine.care.tasks import end, final, reconcile, resume, suspend
from engine.domain.chart import Chart, Days
from engine.domain.closed import Closed
from engine.domain.encounter import READMITTING_CLASSES, Encounter, EncounterStatus
from engine.domain.moment import Moment, instant, to_micros
from engine.domain.outcome import Effect, EffectKind
from engine.domain.score import Band, Score
from engine.domain.task import ENDED_LATER, ON_CALL_PAGE, READMITTED, SIDE_BY_SIDE, Task, TaskState
from engine.domain.why import CLASS_UNKNOWN as UNKNOWN
from engine.domain.why import NO_CLASS, Ground, Reason, What, Why
from engine.pipeline.death import ask_of_death, ended_by_death, is_dead, not_told_of_death, with_tasks
from engine.pipeline.unsaid import ASKED_IN_A_ROW_MAX
from engine.risk.inputs import History, inputs_of

if TYPE_CHECKING:
    from engine.pipeline.channel import CompiledChannel, Planner
    from engine.risk.registry import Model

SCORED_CLASSES: Final = frozenset({"I", "OBS"})
"""Inpatient and observation stays: the readmission models were made for these."""

NEVER_SAID: Final = "the sender never says where patients go (PV1-36): see the quality list; no task"

CLASS_UNKNOWN: Final = "class-unknown"
"""Kind of the effect, and code of the deviation, of a discharge whose class the protocol does not know."""

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
    if is_dead(chart):  # the risk of coming back is nobody's any more, and no flag is left standing
        return (msgspec.structs.replace(chart, scores=()) if chart.scores else chart), [_DEAD_NOT_SCORED]
    stays = [encounter for encounter in chart.encounters if is_scored(encounter)]
    scored = {stay.key for stay in stays}
    current = {
        (one.encounter, one.model): one for one in chart.scores if one.encounter is None or one.encounter in scored
    }
    history = None
    revived = before is not None and is_dead(before)
    for encounter in stays if revived else _encounters_to_score(before, chart, stays, subject):
        # A stay gets its first score from a message that speaks of it: from its own channel, and not from all others.
        models = (
            _models_again(chart, encounter, channel)
            if revived
            else [m for m in channel.models if encounter.key == subject or (encounter.key, m.name) in current]
        )
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


def _models_again(chart: Chart, encounter: Encounter, channel: CompiledChannel) -> list[Model]:
    """Those that score a stay again whose scores a death has withdrawn: the channel's, and those its plan goes by."""
    found = {model.name: model for model in channel.models}
    for task in chart.tasks:
        planner = channel.planners.get(task.protocol) if task.encounter == encounter.key else None
        model = channel.models_known.get(planner.model) if planner is not None and planner.model is not None else None
        if model is not None:
            found.setdefault(model.name, model)
    return list(found.values())


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
    if is_dead(chart):
        return [_DEAD_NOT_SCORED]
    reason = _unscored(encounter) if encounter is not None else Reason.NO_VISIT
    if reason is None:
        return []
    if encounter is not None and reason is Reason.CLASS_NOT_SCORED:
        return [_CLASS_NOT_SCORED.get(encounter.class_) or _CLASS_NOT_SCORED[UNKNOWN]]
    return [Why(what=What.SCORE, reason=reason)]


_DEAD_NOT_SCORED: Final = Why(what=What.SCORE, reason=Reason.DECEASED)
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
    chart = ask_of_death(chart, channel, now)
    if chart.patient.deceased is True:
        if chart.death_stated.in_doubt:  # as long as nobody knows, neither a plan goes on nor is one lost
            return chart, _withheld_by_death(before, chart, channel), not_planned(chart, subject, channel, now)
        chart = ended_by_death(before, chart, channel, now)
        return chart, _withheld_by_death(before, chart, channel), not_planned(chart, subject, channel, now)
    chart = not_told_of_death(chart, now)
    if not chart.tasks and not any(encounter.discharges for encounter in chart.encounters):
        return chart, [], not_planned(chart, subject, channel, now)
    planning = _Planning(before, chart, channel, now, anew)
    new = {encounter.key for encounter in planning.changed()} | anew
    changed = _with_later(new, chart, channel)
    if not changed and not any(task.stands or task.suspended_by for task in chart.tasks):
        return chart, [], not_planned(chart, subject, channel, now)
    _need_stays_of_the_same_time(chart)
    waits_for = later_stays(chart, channel.zone)
    tasks = {task.id: task for task in chart.tasks}
    effects: list[Effect] = []
    whys: list[Why] = []
    for encounter in chart.encounters:
        own = planning.tasks.get(encounter.key, ())
        by = waits_for(encounter)
        if encounter.key not in changed and (by is not None or all(task.suspended_by is None for task in own)):
            continue
        wanted, why, planner, others = Plan(), _why_not(encounter), None, NOTHING_BESIDES
        if why is None:
            planner = planning.planner(encounter)
            if planner is None:
                continue
            why = "the discharge data changed: no longer part of the plan"
            others = planning.besides(encounter, planner)
            wanted = planner.protocol.plan(
                msgspec.structs.replace(chart, tasks=tuple(own)),
                encounter,
                band=planning.bands.get((encounter.key, planner.model)),
                disposition=disposition_of(channel, encounter),
                calendar=channel.calendar,
                now=now,
                key=channel.key,
                waits=by is not None,
                besides=others,
                blanks_in_a_row=ASKED_IN_A_ROW_MAX if heard.unasked and encounter.key == subject else None,
            )
            if wanted.class_unknown and encounter.key in new:
                detail = (
                    "the patient class tells neither that the stay gets a plan nor that it gets none: a person is asked"
                )
                effects.append(Effect(kind=CLASS_UNKNOWN, subject=encounter.key, detail=detail))
                heard.deviate(f"{CLASS_UNKNOWN}:PV1-2")
            if encounter.key in new:
                effects.extend(_withheld_effects(wanted, encounter))
        # What waits for the end of a readmission is decided on like what is open; whether it goes on waiting, below.
        reconciled = reconcile(tuple(map(resume, own)), wanted.tasks, at=now, why=why)
        tasks |= {task.id: task for task in reconciled}
        if planner is not None and encounter.key == subject:
            reason, args = wanted.ground
            if reason is Reason.PLAN_SAME and reconciled != tuple(own):
                reason = Reason.REPLANNED
            whys.append(_why(channel, planner, reason, args))
            whys += [_why(channel, planner, *one.ground) for one in wanted.withheld if one.ground != wanted.ground]
            if others.band is not None and wanted.tasks:
                whys.append(_why(channel, planner, Reason.EARLIER_BAND, (others.band.value,)))
    after = with_tasks(chart, _suspend_or_resume(chart, tasks, waits_for, now, channel.zone))
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


def decided_by(
    chart: Chart, encounter: Encounter, planner: Planner, channel: CompiledChannel, now: datetime
) -> tuple[Band | None, str | None]:
    """The band that decides on the plan of a stay: its own, or a higher one of an earlier stay; and what a person must
    decide of another one (`Besides.asks`).
    """
    planning = _Planning(None, chart, channel, now, frozenset())
    others = planning.besides(encounter, planner)
    return others.band or planning.bands.get((encounter.key, planner.model)), others.asks


def disposition_of(channel: CompiledChannel, encounter: Encounter) -> Disposition:
    """What the discharge of a stay calls for."""
    return channel.dispositions.of_channel(encounter.disposition, channel.settings.blank_disposition)


def _withheld_effects(wanted: Plan, encounter: Encounter) -> Iterator[Effect]:
    """What a discharge calls for and does not get, so that it stands in the entry."""
    for one in wanted.withheld:
        reason, args = one.ground
        if reason is Reason.WAITS:
            continue
        if reason is Reason.NEVER_SAID:
            yield Effect(kind="plan-withheld", subject=encounter.key, detail=NEVER_SAID)
            continue
        ago = f"{args[0]} days" if reason is Reason.TOO_LATE else args[0]
        detail = f"discharged more than {ago} ago: no task {', '.join(one.kinds)}"
        yield Effect(kind="plan-withheld", subject=encounter.key, detail=detail)
    if wanted.ground[0] is Reason.NOT_IN_ROLLOUT:
        yield Effect(kind=EffectKind.NOT_IN_ROLLOUT, subject=encounter.key, detail=str(wanted.ground[1][0]))


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
        read = [_place(version, days) if _readmits(version) else None for version in versions]
        if len(read) == 2 and read[0] == read[1]:
            continue
        if encounter.key in closed.waits or any(one is not None and one.came <= last for one in read):
            chart.need_whole()


def _need_stays_of_the_same_time(chart: Chart) -> None:
    """Ask for the whole chart where a closed stay was over after the patient came for one that is here."""
    closed = chart.closed
    if closed is None:
        return
    begins = [at for stay in chart.encounters if _readmits(stay) and (at := instant(stay.admitted_at)) is not None]
    if begins and closed.was_over_after(to_micros(min(begins))):
        chart.need_whole()


def _need_plans_of(chart: Chart, since: datetime, until: datetime) -> None:
    """Ask for the whole chart where a stay that was over in this span is closed: its plan says something of another."""
    closed = chart.closed
    if closed is None:
        return
    first, last = to_micros(since), to_micros(until)
    for ended, class_, finished in zip(closed.discharged, closed.classes, closed.finished, strict=True):
        if finished and ended is not None and first <= ended <= last and class_ in READMITTING_CLASSES:
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
    disposition = disposition_of(channel, encounter)
    return planner.protocol.withholds(chart, encounter, disposition, now, calendar=channel.calendar, key=channel.key)


def _withheld_by_death(before: Chart | None, chart: Chart, channel: CompiledChannel) -> list[Effect]:
    """Discharges of a patient who is recorded as deceased, though these say otherwise: somebody must put it right."""
    old = {encounter.key: encounter for encounter in before.encounters} if before is not None else {}
    return [
        Effect(kind="plan-withheld", subject=encounter.key, detail="the patient is recorded as deceased: no task")
        for encounter in chart.encounters
        if encounter.disposition in channel.dispositions.left_alive
        and encounter.class_ in READMITTING_CLASSES
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
        self._place = places(chart, channel.zone)
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
        if before.patient.merged_from != self._chart.patient.merged_from:  # its stays may be those of another number
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
                or self._doubts_changed(before, was, encounter)
                or (bands and self._band_of(encounter) in bands)
                or self._conditions_changed(before, was, encounter)
            )
        ]

    def _doubts_changed(self, before: Chart, was: Encounter, encounter: Encounter) -> bool:
        """What can't be right of its dates, or who else is in the hospital, is not as it was."""
        now, chart = self._now, self._chart
        if was is encounter and before.patient is chart.patient and len(chart.encounters) == 1:
            return False
        return dates_in_doubt(before, was, now) != dates_in_doubt(chart, encounter, now) or (
            open_besides(before, was) != open_besides(chart, encounter)
        )

    def besides(self, encounter: Encounter, planner: Planner) -> Besides:
        """What the patient's other stays say of the plan after this one.

        An earlier stay whose home plan would still be running counts: whoever comes back within the hour, and leaves
        again, never gets the weaker of two plans. A stay of the same time under another number is the same one: what
        was done there is done.
        """
        chart, channel = self._chart, self._channel
        if len(chart.encounters) == 1 and chart.closed is None:
            return NOTHING_BESIDES
        protocol, calendar = planner.protocol, channel.calendar
        ended = ended_at(encounter, calendar.zone)
        place = self._place[encounter.key]
        if ended is not None:
            _need_plans_of(chart, ended - protocol.window, ended + _SAME_END)
        own = band = self.bands.get((encounter.key, planner.model))
        met: frozenset[str] = frozenset()
        done: dict[str, str] = {}
        planned = False
        asks: str | None = None
        for other in chart.encounters:
            if other is encounter or other.discharges == 0 or other.status is not EncounterStatus.FINISHED:
                continue
            if ended is None or other.class_ not in READMITTING_CLASSES or self._place[other.key] > place:
                continue
            theirs = [task for task in self.tasks.get(other.key, ()) if task.discharge == other.discharges]
            same = is_same_stay(other, encounter, calendar.zone)
            if overlap(other, encounter) and not (same and self._agree(other, encounter)):
                asks = TWO_ENDS
            if same:
                was_done = [task for task in theirs if task.state is TaskState.DONE and task.step]
                done |= {task.step: done.get(task.step, "") + task.reason for task in was_done}
                planned = planned or bool(theirs)
            if disposition_of(channel, other).action not in _LEFT_FOR_HOME:
                continue
            their_band = self.bands.get((other.key, planner.model))
            until = protocol.runs_until(other, their_band, calendar)
            if until is not None and until > ended:
                band = max(band, their_band, key=_rank)
                met |= protocol.met(chart.patient, other, self._now)
                planned = planned or bool(theirs)
        higher = band if band is not own else None
        return Besides(band=higher, met=met, planned=planned, done=done, asks=asks)

    def _agree(self, one: Encounter, other: Encounter) -> bool:
        """Whether two discharges call for the same; where one leaves the disposition out, the other one tells it.

        A death that one of them tells is asked of by itself.
        """
        actions = {disposition_of(self._channel, stay).action for stay in (one, other) if stay.disposition}
        return len(actions) < 2 or Action.DEATH in actions

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


_LEFT_FOR_HOME: Final = frozenset({Action.HOME_PLAN, Action.AGAINST_ADVICE, Action.DEATH})
"""Who left against advice is at home too, and at no lower risk. A disposition of death of a patient who lives is wrong,
or in doubt: it takes nothing away.
"""

_RANKS: Final = (None, Band.LOW, Band.MODERATE, Band.HIGH)


def _rank(band: Band | None) -> int:
    return _RANKS.index(band)


def _with_later(changed: set[str], chart: Chart, channel: CompiledChannel) -> set[str]:
    """With the stays after those that have changed: what an earlier one called for may count for them, too."""
    if not changed or (len(chart.encounters) == 1 and chart.closed is None):
        return changed
    stays = [stay for stay in chart.encounters if stay.key in changed]
    if chart.closed is not None:
        window = max((planner.protocol.window for planner in channel.planners.values()), default=_SAME_END)
        for stay in stays:
            if (ended := ended_at(stay, channel.calendar.zone)) is not None:
                _need_plans_of(chart, ended - _SAME_END, ended + window)
    place = places(chart, channel.zone)
    first = min(place[stay.key] for stay in stays)
    return changed | {
        stay.key
        for stay in chart.encounters
        if stay.discharges > 0 and stay.class_ in READMITTING_CLASSES and place[stay.key] > first
    }


_SAME_END: Final = timedelta(days=2)
"""More than the ends of one stay under two numbers lie apart."""


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
    unanswered = {page.id for page in chart.pages}
    uncalled = {page.task for page in chart.pages if not page.has_called}
    came: dict[str, float] = {}
    goes_on_past: dict[str, float] = {}
    twice: set[str] = set()
    if any(by.values()):
        days = Days(chart.encounters, zone)
        came = {encounter.key: came_at(encounter, days) for encounter in chart.encounters}
        # Whoever began before the discharge and goes on is nobody who came back: one of the two stays is wrong.
        goes_on = {encounter.key for encounter in chart.encounters if encounter.status in _OPEN}
        for encounter in chart.encounters:
            ended = ended_at(encounter, zone) if by[encounter.key] in goes_on else None
            if ended is not None:
                goes_on_past[encounter.key] = ended.timestamp()
            later = by[encounter.key]
            other = chart.encounter(later) if later is not None else None
            if other is not None and other.status is EncounterStatus.FINISHED and overlap(encounter, other):
                twice.add(encounter.key)
    if came and chart.closed is not None:
        came |= {key: _or_long_ago(at) for key, at in zip(chart.closed.keys, chart.closed.came_at, strict=True)}
    for task in tasks.values():
        if task.encounter is None or task.raised_for in unanswered:
            continue  # why nobody has answered is to be looked into, whatever has become of the patient since
        later = by[task.encounter]
        if later != task.suspended_by and (task.stands or task.suspended_by is not None):
            resumed = resume(task)
            if later is not None:
                why = SIDE_BY_SIDE if came[later] < goes_on_past.get(task.encounter, 0.0) else READMITTED
                why = ENDED_LATER if task.encounter in twice else why
                at = since.get(task.id, now)
                resumed = _set_aside(resumed, later, at, why, called=task.id not in uncalled)
            tasks[task.id] = resumed
        elif later is not None:
            tasks[task.id] = final(task)
    return tasks


def _set_aside(task: Task, by: str, at: datetime, why: str, *, called: bool) -> Task:
    """Whoever was called at a discharge is not called again when the admission turns out to be none.

    Where nobody was called yet, or something that was missed calls somebody, the call waits with its task.
    """
    if not called or not task.calls or task.raised_for is not None:
        return suspend(task, by, at=at, why=why)
    if task.kind == ON_CALL_PAGE:
        return end(task, TaskState.CANCELLED, at=at, why=why)
    return suspend(msgspec.structs.replace(task, page=None), by, at=at, why=why)


def later_stays(chart: Chart, zone: tzinfo = UTC) -> Callable[[Encounter], str | None]:
    """Gives the stay that the plan of an encounter waits for: the next later one, by when the patient came, and of two
    that were at the same time and are over by which ended later.

    Not by when we heard of it: an old stay that is heard of late, and one whose end was never heard of, take nobody's
    plan away. When the later stay turns out not to have been, the plan goes on. zone: see `Days`.
    """
    place_of, days = places(chart, zone), Days(chart.encounters, zone)
    stays = [place_of[encounter.key] for encounter in chart.encounters if _readmits(encounter)]
    if chart.closed is not None:
        first = min((came_at(encounter, days) for encounter in chart.encounters), default=float("inf"))
        stays.extend(_closed_later(chart.closed, first))
    stays.sort()

    def waits_for(encounter: Encounter) -> str | None:
        place = place_of[encounter.key]
        if place.came == float("-inf"):  # of such stays nobody can tell which is the later one
            place = place._replace(ended=float("inf"))
        later = bisect_right(stays, place)
        return stays[later].key if later < len(stays) else None

    return waits_for


def _closed_later(closed: Closed, came: float) -> Iterator[_Place]:
    """The closed stays that readmit a patient and that the patient came for then or later."""
    for at, class_, finished, ended, key in zip(
        reversed(closed.came_at),
        reversed(closed.classes),
        reversed(closed.finished),
        reversed(closed.discharged),
        reversed(closed.keys),
        strict=True,
    ):
        if _or_long_ago(at) < came:
            return  # so are all before it
        if finished and class_ in READMITTING_CLASSES:
            yield _Place(
                came=_or_long_ago(at),
                goes_on=False,
                ended=float("-inf") if ended is None else ended / 1_000_000,
                key=key,
            )


def _readmits(encounter: Encounter) -> bool:
    return encounter.class_ in READMITTING_CLASSES and encounter.status in ARRIVED


def _or_long_ago(came: float | None) -> float:
    return float("-inf") if came is None else came


class _Place(NamedTuple):
    """Where a stay stands among those of a patient.

    Of two of the same beginning the one that goes on, or ended later, is the later one: so a stay that was registered
    under two numbers has one plan.
    """

    came: float
    goes_on: bool
    ended: float
    key: str


def _place(encounter: Encounter, days: Days) -> _Place:
    end = _with_instant(encounter.discharged_at)
    ended = end.seconds if end is not None else float("-inf")
    return _Place(came_at(encounter, days), encounter.status in _OPEN, ended, encounter.key)


def places(chart: Chart, zone: tzinfo) -> dict[str, _Place]:
    """Where each stay stands, by its key.

    A stay that surely ended after another one is the later one of the two, though the patient came for the other later:
    whoever was registered twice has left when the last of these stays was over.
    """
    days = Days(chart.encounters, zone)
    found = {encounter.key: _place(encounter, days) for encounter in chart.encounters}
    if len(found) == 1:
        return found
    over = [stay for stay in chart.encounters if _readmits(stay) and stay.status is EncounterStatus.FINISHED]
    ends = sorted(
        (ended.timestamp(), found[stay.key].came) for stay in over if (ended := ended_at(stay, zone)) is not None
    )
    came_last = list(accumulate((came for _, came in ends), max))
    for stay in over:
        end = stay.discharged_at.at_in(zone) if stay.discharged_at is not None else None
        before = bisect_left(ends, (end.timestamp(),)) if end is not None else 0
        if before and came_last[before - 1] > (place := found[stay.key]).came:
            found[stay.key] = place._replace(came=came_last[before - 1])
    return found


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
