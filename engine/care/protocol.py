"""The tasks that a discharge calls for.

A protocol is a document below `mappings/protocols/`. `plan` says which tasks are wanted after a discharge; it follows
from the chart alone, so that the same state never asks for a second task. `engine.care.tasks` makes them so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from hashlib import blake2b
from itertools import count
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from pydantic import Discriminator, Field, Tag, model_validator

from engine.care.appointed import Appointed, AppointedAs
from engine.care.calendar import BusinessCalendar
from engine.care.conditions import Condition
from engine.care.dispositions import Action, Disposition
from engine.care.plausible import AHEAD_MAX, dates_in_doubt, ended_at, open_besides
from engine.care.results import Awaited
from engine.care.spans import Span
from engine.care.tasks import is_withdrawn
from engine.care.visits import Visit
from engine.domain.age import AGE_YEARS_MAX, age_range
from engine.domain.chart import Chart
from engine.domain.encounter import Encounter
from engine.domain.ids import beginning_like
from engine.domain.patient import Patient
from engine.domain.record import Phi
from engine.domain.score import Band
from engine.domain.task import ENGINE, KINDS, ON_CALL_PAGE, Alert, Rung, Task, TaskState
from engine.domain.why import CLASS_UNKNOWN, MEANINGS, NO_CLASS, Ground, Reason
from engine.errors import Problem, SettingsError
from engine.yamlfile import Document, Path, did_you_mean
from engine.yamlmodel import StrictModel, validate

CLASSES: Final = frozenset({"I", "E", "O", "P", "R", "B", "C", "N", "U", "OBS"})
"""Of HL7 table 0004, and OBS: every rule of care says what they mean to it."""

# --- the document ----------------------------------------------------------------------------------------------------

_Text = Annotated[str, Field(min_length=1, max_length=500)]
_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_PageBy = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]


class _Alert(StrictModel):
    """A task for somebody else."""

    kind: _Name
    """Kind of task: one of `kinds`."""
    due: Span
    """Due time, counted from the escalation."""
    assignee: _Name
    """Role that has to see to it."""
    reason: _Text
    """What has happened and what is to be done, as the assignee reads it: no diagnosis, no result."""
    page: _PageBy | None = None
    """Ladder that is paged until it is seen to; none: nobody."""


class _Rung(StrictModel):
    """One step of an escalation."""

    after: Span
    """When, counted from the due time."""
    owner: _Name | None = None
    """Role that has the task from then on."""
    alert: _Alert | None = None
    """Task for somebody else; a patient who declines raises it before its time."""
    page: _PageBy | None = None
    """Ladder that is paged until the task is done."""


_Ladder = Annotated[tuple[_Rung, ...], Field(min_length=1, max_length=10)]


def _form(value: Any) -> str:
    return "ladder" if isinstance(value, list | tuple) else "span"


_Escalate = Annotated[Annotated[Span, Tag("span")] | Annotated[_Ladder, Tag("ladder")], Discriminator(_form)]


class _Contact(StrictModel):
    """The task is to reach the patient."""

    attempts: Annotated[int, Field(ge=1, le=10)]
    """Attempts that are asked for until it is due. An automated text is none."""


class _Step(StrictModel):
    """One task of a plan."""

    kind: _Name
    """Kind of task: one of `kinds`."""
    name: _Name | None = None
    """Tells apart two tasks of one kind; none: the kind."""
    due: Span
    """Due time, counted from the discharge."""
    late: Span | None = None
    """Earliest due time, counted from the message; none: the protocol's `late`."""
    escalate: _Escalate | None = None
    """What is done when it is not done in time: a list, each with its time counted from the due time. A mere time says
    when it is missed; none: it is missed when it is due, and nothing more is done."""
    contact: _Contact | None = None
    """It is done when a person has reached the patient; none: it is about something else."""
    page: _PageBy | None = None
    """Ladder that is paged while it is not done; none: nobody."""
    assignee: _Name
    """Role that has to do it."""
    reason: _Text
    """What has to be done, as the assignee reads it: no diagnosis, no result."""
    dispositions: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Discharge dispositions (PV1-36) it is for; none: all of the action."""
    when: tuple[_Name, ...] = ()
    """Names of `conditions` that must all hold."""

    @property
    def id(self) -> str:
        return self.name or self.kind

    @property
    def calls(self) -> bool:
        """It is nothing but a call at once: only while the discharge is fresh, and once for each discharge."""
        return self.kind == ON_CALL_PAGE

    @property
    def rungs(self) -> tuple[_Rung, ...]:
        return (_Rung(after=self.escalate),) if isinstance(self.escalate, Span) else self.escalate or ()

    def ladder(self, due_at: datetime, calendar: BusinessCalendar) -> tuple[Rung, ...]:
        """What is done when a task that is due then is not done."""
        return tuple(_rung(rung, rung.after.after(due_at, calendar), calendar) for rung in self.rungs)


def _rung(rung: _Rung, at: datetime, calendar: BusinessCalendar) -> Rung:
    alert = None
    if (said := rung.alert) is not None:
        due_at = said.due.after(at, calendar)
        alert = Alert(kind=said.kind, assignee=said.assignee, due_at=due_at, reason=said.reason, page=said.page)
    return Rung(at=at, owner=rung.owner, alert=alert, page=rung.page)


_Steps = tuple[_Step, ...]


class _HomePlan(StrictModel):
    """Tasks after a discharge to home."""

    every: _Steps = ()
    """For every patient."""
    high: _Steps
    """For the high band."""
    moderate: _Steps
    """For the moderate band."""
    low: _Steps
    """For the low band."""


_Needed = Annotated[_Steps, Field(min_length=1)]


class _Plans(StrictModel):
    """What each action of the disposition table calls for. Death and `not_a_discharge` never call for anything."""

    home_plan: _HomePlan
    """Home."""
    facility: _Steps
    """A nursing or rehabilitation facility."""
    transfer: _Steps
    """Another hospital."""
    hospice: _Steps
    """Hospice care."""
    against_advice: _Needed
    """Left against medical advice: at least one task."""
    conflict: _Needed
    """Dispositions that mean different things to different senders: at least one task for a person."""
    unknown: _Needed
    """Blank or unknown disposition, or a class that is not listed: at least one task for a person."""
    death_uncertain: _Steps = ()
    """A death is reported, and a person must find out; no discharge is needed for that."""
    death: Annotated[_Steps, Field(max_length=1)] = ()
    """A death has ended tasks: who is told, so that somebody looks at it. At most one task; {ended} in its reason is
    how many have ended."""

    def steps(self) -> Iterator[_Step]:
        home = self.home_plan
        yield from (*home.every, *home.high, *home.moderate, *home.low, *self.facility, *self.transfer)
        yield from (*self.hospice, *self.against_advice, *self.conflict, *self.unknown)
        yield from (*self.death_uncertain, *self.death)


_SeriesName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]


class _TextsByBand(StrictModel):
    """Series of texts by band; none: no texts."""

    high: _SeriesName | None = None
    """For the high band."""
    moderate: _SeriesName | None = None
    """For the moderate band."""
    low: _SeriesName | None = None
    """For the low band."""


class _Texts(StrictModel):
    """Which texts the patient gets. Only a plan at home has any."""

    home_plan: _TextsByBand
    """Home."""


class Besides(NamedTuple):
    """What the patient's other stays say of a plan."""

    band: Band | None = None
    """Of an earlier stay whose plan would still be running, where it is higher than the stay's own; none: it is not."""
    met: frozenset[str] = frozenset()
    """Conditions of an earlier stay whose plan would still be running."""
    planned: bool = False
    """An earlier stay whose plan would still be running, or this one under another number, has a plan."""
    done: Mapping[str, str] = MappingProxyType({})
    """Steps that were done under another number of the same stay, with the reason that each of them had."""
    asks: str | None = None
    """What a person must decide of another stay that was at the same time; none: nothing."""

    def asked_by(self, hold: str | None) -> str:
        """The part of the question that a task asks which is about another stay; empty: none is."""
        return self.asks if self.asks is not None and self.asks in (hold or "") else ""

    def was_done(self, step: str, which: str) -> bool:
        """A question was answered only where the same was asked."""
        said = self.done.get(step)
        return said is not None and which in said


NOTHING_BESIDES: Final = Besides()


class _Call(NamedTuple):
    """What a discharge calls for."""

    steps: list[tuple[_Step, str | None]]
    """Each with what a person must decide, if anything."""
    reason: Reason
    """Why there are tasks."""
    said: str
    """What is unclear."""

    def ground(self, new: int) -> Ground:
        """new: how many tasks are new."""
        return self.reason, ((new,) if self.reason is Reason.PLANNED else (self.said, new))


class Withheld(Phi, frozen=True, kw_only=True):
    """Tasks that are called for, and not asked for."""

    kinds: tuple[str, ...]
    ground: Ground


class Plan(Phi, frozen=True, kw_only=True):
    """The tasks wanted after a discharge."""

    tasks: tuple[Task, ...] = ()
    withheld: tuple[Withheld, ...] = ()
    """What would be asked for, and is not."""
    class_unknown: bool = False
    """Whether this stay gets a plan can't be told by its class: the tasks ask a person."""
    ground: Ground = (Reason.PLAN_SAME, ())
    """Why there are new tasks, or none."""


class _Rollout(StrictModel):
    """For whom a protocol acts while it is being introduced: who is named by all that is said here.

    The discharges of all others are scored, recorded as `not_in_rollout`, and get no task. A plan that was made goes
    on.
    """

    units: Annotated[tuple[_Text, ...], Field(min_length=1)] | None = None
    """Points of care (PV1-3.1) that the patient left from: one of them."""
    cohorts: Annotated[tuple[_Name, ...], Field(min_length=1)] | None = None
    """Names of `conditions`: one of them must hold."""
    percent: Annotated[float, Field(gt=0, le=100)] | None = None
    """Share of the patients, drawn by the patient key: with a higher share those who are in stay in."""

    @model_validator(mode="after")
    def _names_somebody(self) -> _Rollout:
        if self.units is None and self.cohorts is None and self.percent is None:
            raise ValueError("names nobody: needs units, cohorts or percent; without a rollout it acts for everybody")
        return self


class _Spec(StrictModel):
    """Which follow-up tasks a discharge calls for."""

    protocol: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    """Name of the protocol, as channels name it."""
    version: _Text
    """Version of this file, as text."""
    source: _Text
    """Where the rules come from."""
    classes: Annotated[tuple[_Text, ...], Field(min_length=1)]
    """Patient classes whose discharge gets a plan."""
    classes_without_plan: tuple[_Text, ...] = ("E", "O", "P", "R", "B", "C", "N")
    """Patient classes whose discharge gets none (as a rule all other classes of HL7 table 0004 but U, unknown). A
    discharge of any further class asks a person: the plan `unknown`."""
    age_years_min: Annotated[int, Field(ge=1, le=AGE_YEARS_MAX)] | None = None
    """Age in years at the discharge below which nobody gets a plan: newborns, as a rule; none: everybody may."""
    kinds: Annotated[dict[_Name, _Text], Field(min_length=1, max_length=100)] | None = None
    """Kinds of task, each with what it is, for people; none: medication_reconciliation, pcp_follow_up,
    specialist_follow_up, care_coordinator_alert, on_call_page, tcm_contact, education, pcp_alert, physiotherapy,
    pharmacy_consult, result_follow_up, notice_of_discharge."""
    appointments: Annotated[dict[_Name, AppointedAs], Field(max_length=100)] = {}
    """Kind of task -> the appointments (SIU) that are its follow-up: one that is booked belongs to the task, one
    that was kept ends it."""
    conditions: Annotated[dict[_Name, Condition], Field(max_length=100)] = {}
    """Conditions that tasks may ask for by name (`when`)."""
    proofs: Annotated[
        dict[_Name, Annotated[tuple[Visit, ...], Field(min_length=1, max_length=20)]], Field(max_length=100)
    ] = {}
    """Kind of task -> the visits that show that it is done, one of which must be; none: a person says so."""
    results: Annotated[
        dict[_Name, Annotated[tuple[Awaited, ...], Field(min_length=1, max_length=20)]], Field(max_length=100)
    ] = {}
    """Kind of task -> the results (ORU^R01) that it waits for, one of which ends it; none: a person says so."""
    late: Span
    """Earliest due time of any task, counted from the message: for messages that come late."""
    discharge_age_days_max: Annotated[int, Field(ge=1, le=3650)] | Literal["unlimited"] | None = None
    """Age in days above which a discharge opens no task; none: its longest due time. `unlimited`: any age does."""
    page_fresh: Span = Span(hours=12)
    """Age of a discharge up to which somebody is called at once (`on_call_page`)."""
    rollout: _Rollout | None = None
    """Whose discharges it plans for now; none: everybody's."""
    plans: _Plans
    """Action of the disposition table -> tasks."""
    texts: _Texts | None = None
    """Series of texts to the patient (`mappings/texts/`); none: no texts."""


_CLASS_MISSING: Final = "the patient class (PV1-2) is missing"
_CLASS_UNKNOWN: Final = "the patient class sent (PV1-2) is not one that the protocol knows"


class Protocol:
    """A follow-up protocol, ready to plan. Pure."""

    def __init__(self, spec: _Spec) -> None:
        self.name = spec.protocol
        self.version = spec.version
        said = spec.model_dump_json(exclude={"source"}).encode()
        self.digest = blake2b(said, digest_size=4).hexdigest()
        """Of what it says: another one for another text, though its `version` be the same."""
        self._classes = frozenset(spec.classes)
        self._classes_without_plan = frozenset(spec.classes_without_plan)
        self._not_planned = self._classes_without_plan - self._classes
        self.known_classes = self._classes | self._classes_without_plan
        """Those that it says something of."""
        self.kinds: Mapping[str, str] = spec.kinds if spec.kinds is not None else dict.fromkeys(KINDS, "")
        """With what each is, for people."""
        self.appointed = Appointed(spec.appointments)
        """Which appointments are which follow-up."""
        self.conditions: Mapping[str, Condition] = spec.conditions
        """By name."""
        self.proofs: Mapping[str, tuple[Visit, ...]] = spec.proofs
        """By kind of task."""
        self.results: Mapping[str, tuple[Awaited, ...]] = spec.results
        """By kind of task."""
        by_band = spec.texts.home_plan if spec.texts is not None else _TextsByBand()
        self.texts: Mapping[Band | None, str] = {
            band: name for band in Band if (name := getattr(by_band, band)) is not None
        }
        """The series of texts after a discharge to home, by band."""
        self._late = spec.late
        days = spec.discharge_age_days_max
        self.discharge_age_days_max = None if days == "unlimited" else days or _longest_days(spec)
        """Above it a discharge opens no task; none: any age does."""
        self.window = timedelta(days=_longest_days(spec) + 1)
        """No plan runs longer after its discharge."""
        self._page_fresh = spec.page_fresh
        self._rollout = spec.rollout
        self._age_years_min = spec.age_years_min
        home = spec.plans.home_plan
        self._home: Mapping[Band | None, _Steps] = {
            Band.HIGH: (*home.high, *home.every),
            Band.MODERATE: (*home.moderate, *home.every),
            Band.LOW: (*home.low, *home.every),
            None: home.every,
        }
        self._others: Mapping[Action, _Steps] = {
            Action.FACILITY: spec.plans.facility,
            Action.TRANSFER: spec.plans.transfer,
            Action.HOSPICE: spec.plans.hospice,
            Action.AGAINST_ADVICE: spec.plans.against_advice,
            Action.CONFLICT: spec.plans.conflict,
            Action.UNKNOWN: spec.plans.unknown,
        }
        self._unknown = spec.plans.unknown
        self._death_uncertain = spec.plans.death_uncertain
        self._death = spec.plans.death

    def runs_until(self, encounter: Encounter, band: Band | None, calendar: BusinessCalendar) -> datetime | None:
        """When the last task of the home plan after a stay would be due; none: nobody knows when the stay was over."""
        ended = ended_at(encounter, calendar.zone)
        if ended is None:
            return None
        return max((step.due.after(ended, calendar) for step in self._home[band]), default=None)

    @property
    def conditional(self) -> bool:
        """Whether a task depends on more than class, disposition and band."""
        return bool(self.conditions)

    def met(self, patient: Patient, encounter: Encounter, now: datetime) -> frozenset[str]:
        """Names of the conditions that hold for a stay."""
        if not self.conditions:
            return frozenset()
        return frozenset(name for name, one in self.conditions.items() if one.holds(patient, encounter, now))

    def plans_nothing_for(self, class_: str | None) -> bool:
        """It says that the discharge of a stay of this patient class gets no plan."""
        return class_ in self._not_planned

    def is_too_young(self, patient: Patient, encounter: Encounter) -> bool:
        """At the discharge the patient was surely younger than those whom the protocol is for: a newborn, as a rule."""
        left = encounter.discharged_at
        born = patient.birth_date
        if self._age_years_min is None or left is None or left.at is None:
            return False
        if born is not None and left.is_before(born):
            return False  # such a birth date tells no age
        ages = age_range(born, left.at.date())
        return ages is not None and ages[1] < self._age_years_min

    def withholds(
        self,
        chart: Chart,
        encounter: Encounter,
        disposition: Disposition,
        now: datetime,
        *,
        calendar: BusinessCalendar,
        key: Callable[..., str],
    ) -> Ground | None:
        """Why the last discharge of an encounter has no plan; none: it has one, or gets one when that is worked out."""
        ground = self._calls_for_nothing(chart, encounter, disposition)
        if ground is not None:
            return ground
        too_old = self._too_old(ended_at(encounter, calendar.zone), now)
        if (too_old or self._rollout is not None) and not _is_planned(chart, encounter):
            return self._too_late() if too_old else self._not_in_rollout(chart.patient, encounter, now, key)
        return None

    def _calls_for_nothing(self, chart: Chart, encounter: Encounter, disposition: Disposition) -> Ground | None:
        if chart.patient.deceased:
            return Reason.DECEASED, ()
        if encounter.class_ in self._not_planned:
            return Reason.CLASS_NOT_PLANNED, (f"class {encounter.class_}",)
        if self._age_years_min is not None and self.is_too_young(chart.patient, encounter):
            return Reason.TOO_YOUNG, (self._age_years_min,)
        action = disposition.action
        if action is not Action.HOME_PLAN and encounter.class_ in self._classes and not self._others.get(action):
            return Reason.DISPOSITION, (_told(disposition),)
        return None

    def _not_asked(self, blanks_in_a_row: int) -> Plan:
        never: Ground = (Reason.NEVER_SAID, (blanks_in_a_row,))
        kinds = tuple(step.kind for step in self._unknown)
        return Plan(withheld=(Withheld(kinds=kinds, ground=never),), ground=never)

    def _too_late(self) -> Ground:
        return Reason.TOO_LATE, (self.discharge_age_days_max or 0,)

    def plan(
        self,
        chart: Chart,
        encounter: Encounter,
        *,
        band: Band | None,
        disposition: Disposition,
        calendar: BusinessCalendar,
        now: datetime,
        key: Callable[..., str],
        waits: bool = False,
        besides: Besides = NOTHING_BESIDES,
        blanks_in_a_row: int | None = None,
    ) -> Plan:
        """The tasks wanted after the encounter's last discharge; `chart` still holds those of before.

        band: none when no model scored the stay. key: a keyed hash of texts, so that a task's id tells nothing of the
        patient and is the same in every replay. waits: the plan is set aside while there is a later stay. besides: what
        the patient's other stays say. blanks_in_a_row: of a sender that leaves the disposition out, after so many of
        which nobody is asked any more; none: somebody is.
        """
        nothing = self._calls_for_nothing(chart, encounter, disposition)
        if nothing is not None and (waits or besides.asks is None or nothing[0] is not Reason.DISPOSITION):
            return Plan(ground=nothing)
        if self._rollout is not None and not (besides.planned or _is_planned(chart, encounter)):
            out = self._not_in_rollout(chart.patient, encounter, now, key)
            if out is not None:
                return Plan(ground=out)
        if blanks_in_a_row is not None and disposition.code is None and not _is_planned(chart, encounter):
            return self._not_asked(blanks_in_a_row)
        band = besides.band or band
        call = self._called_for(chart, encounter, disposition, band, now, waits=waits, asks=besides.asks)
        discharged = _discharged(encounter, now, calendar)
        known = {task.id: task for task in chart.tasks}
        uncalled = {page.task for page in chart.pages if not page.has_called}
        steps, too_old = call.steps, self._too_old(discharged, now)
        if too_old:
            home = disposition.action is Action.HOME_PLAN and call.reason is Reason.PLANNED
            steps, too_old = self._corrected(chart, encounter, call.steps, home=home)
        fresh = discharged is None or self._page_fresh.after(discharged, calendar) >= now
        met = self.met(chart.patient, encounter, now) | besides.met
        late = self._late.after(now, calendar)
        group = key("tasks", encounter.key)
        tasks = []
        withheld: dict[Ground, list[str]] = {}
        new = 0
        for step, hold in steps:
            which = besides.asked_by(hold)
            applies = not step.dispositions or disposition.acts_as in step.dispositions
            if not applies or besides.was_done(step.id, which) or not met.issuperset(step.when):
                continue
            task_id = self._task_id(encounter, step, known, key, group, which)
            task = known.get(task_id)
            if task is None and (ground := self._held_back(step, too_old=too_old, fresh=fresh, waits=waits)):
                withheld.setdefault(ground, []).append(step.kind)
                continue
            if step.calls and task is not None and not task.stands:
                withdrawn = task.suspended_by is not None or (not waits and is_withdrawn(task))
                if task.undo is None and not (fresh and withdrawn and task.id in uncalled):
                    continue  # somebody was called already: nothing that is put right later calls again, but an undo
            new += task is None
            if task is not None:
                quiet = task.page is None or (task.suspended_by is not None and task.calls and not fresh)
            else:
                quiet = (
                    waits
                    or not fresh
                    or any(
                        one.step == step.id and one.discharge == encounter.discharges and one.id not in uncalled
                        for one in chart.tasks
                    )
                )
            earliest = step.late.after(now, calendar) if step.late is not None else late
            due_at = _due(step, discharged, task, calendar, now, earliest=earliest, waits=waits)
            tasks.append(
                self._task(
                    step,
                    id_=task_id,
                    encounter=encounter.key,
                    discharge=encounter.discharges,
                    due_at=due_at,
                    reason=(f"{step.reason}: {hold}" if hold else step.reason)
                    + _heard_late(step, discharged, task.created_at if task is not None else now, self._late, calendar),
                    page=None if quiet else step.page,
                    calendar=calendar,
                    now=now,
                )
            )
        if new:
            ground = (Reason.WAITS, ()) if waits else call.ground(new)
        elif withheld:
            ground = next(iter(withheld))
        else:
            ground = (Reason.PLAN_SAME, ()) if tasks else (Reason.DISPOSITION, (_told(disposition),))
        return Plan(
            tasks=tuple(tasks),
            withheld=tuple(Withheld(kinds=tuple(kinds), ground=ground) for ground, kinds in withheld.items()),
            class_unknown=call.reason is Reason.CLASS_ASKED,
            ground=ground,
        )

    def _called_for(
        self,
        chart: Chart,
        encounter: Encounter,
        disposition: Disposition,
        band: Band | None,
        now: datetime,
        *,
        waits: bool,
        asks: str | None,
    ) -> _Call:
        """The steps that a discharge calls for, before it is asked which of them apply.

        What can't be told is never planned for: a person must look.
        """
        reason, hold, said = Reason.PLANNED, disposition.hold_reason, disposition.hold_reason or ""
        steps: _Steps = self._others.get(disposition.action, ())
        doubt = dates_in_doubt(chart, encounter, now)
        if encounter.class_ not in self._classes:
            why = _CLASS_MISSING if encounter.class_ is None else _CLASS_UNKNOWN
            reason, steps, said = (
                Reason.CLASS_ASKED,
                self._unknown,
                NO_CLASS if encounter.class_ is None else CLASS_UNKNOWN,
            )
            hold = f"{why}; {hold}" if hold else why
        elif doubt is not None and (disposition.action is Action.HOME_PLAN or hold):
            reason, steps, said = Reason.DOUBT_ASKED, self._unknown, doubt
            hold = f"{doubt}; {hold}" if hold else doubt
        elif hold:
            reason = Reason.DISPOSITION_ASKED
        elif disposition.action is Action.HOME_PLAN:
            steps = self._home[band]
        besides = None
        if not waits:  # where the two say that nothing is to be done, and say otherwise, somebody must look, too
            besides = (open_besides(chart, encounter) if steps else None) or asks
        if besides is None:
            return _Call([(step, hold) for step in steps], reason, said)
        if hold:
            return _Call([(step, f"{hold}; {besides}") for step in steps], reason, said)
        asked = [(step, besides) for step in self._unknown]
        return _Call([*((step, hold) for step in steps), *asked], reason, said)

    def texts_after(
        self,
        chart: Chart,
        encounter: Encounter,
        *,
        disposition: Disposition,
        band: Band | None,
        now: datetime,
        asks: str | None,
    ) -> tuple[str | None, str]:
        """The series of texts after a stay whose plan runs; none: there is none, and why, as a word of the reasons.

        Only after a discharge to home of which nothing has to be asked: who left against advice, or into a hospice or
        another house, gets none. asks: see `Besides`.
        """
        call = self._called_for(chart, encounter, disposition, band, now, waits=False, asks=asks)
        if call.reason is not Reason.PLANNED:
            return None, MEANINGS[call.reason].word
        if disposition.action is not Action.HOME_PLAN:
            return None, "disposition"
        if any(hold for _, hold in call.steps):
            return None, "hold"
        name = self.texts.get(band)
        return name, "" if name is not None else "no_protocol"

    def _corrected(
        self, chart: Chart, encounter: Encounter, steps: list[tuple[_Step, str | None]], *, home: bool
    ) -> tuple[list[tuple[_Step, str | None]], bool]:
        """The steps to ask for after an old discharge, and whether it is too old for new tasks.

        What an old discharge calls for now may be something else than what was planned in time. Of a plan that goes on
        nothing is added then, and nothing taken away because of the band. Where nothing of it goes on, what takes its
        place is asked for however old the discharge is, so that no correction leaves the patient with nothing.
        """
        standing = {
            task.step
            for task in chart.tasks
            if task.encounter == encounter.key
            and task.discharge == encounter.discharges
            and task.raised_for is None
            and (task.stands or task.suspended_by is not None)
        }
        called_for = {step.id for step, _ in steps}
        if home:
            others = {step.id: step for of_band in self._home.values() for step in of_band}
            kept = [(step, None) for step in others.values() if step.id in standing - called_for]
            steps, called_for = [*steps, *kept], called_for | standing.intersection(others)
        return steps, not standing or not standing.isdisjoint(called_for)

    def _held_back(self, step: _Step, *, too_old: bool, fresh: bool, waits: bool) -> Ground | None:
        """Why a task that is called for is not made."""
        if too_old:
            return self._too_late()
        if step.calls and not fresh:
            return Reason.PAGE_TOO_LATE, (self._page_fresh.text,)
        if step.calls and waits:  # the patient is in a hospital: nobody need be called, now or later
            return Reason.WAITS, ()
        return None

    def _not_in_rollout(
        self, patient: Patient, encounter: Encounter, now: datetime, key: Callable[..., str]
    ) -> Ground | None:
        """Why the protocol does not act for a patient yet; none: it does.

        The share is drawn by the patient key: the same whatever came first, and the survivor's after a merge.
        """
        rollout = self._rollout
        if rollout is None:
            return None
        unit = encounter.location.point_of_care if encounter.location is not None else None
        if rollout.units is not None and unit not in rollout.units:
            return Reason.NOT_IN_ROLLOUT, ("its units",)
        if rollout.cohorts is not None and self.met(patient, encounter, now).isdisjoint(rollout.cohorts):
            return Reason.NOT_IN_ROLLOUT, ("its cohorts",)
        if rollout.percent is not None:
            drawn = key("rollout", self.name, patient.key).encode()
            if int.from_bytes(blake2b(drawn, digest_size=8).digest()) >= rollout.percent * (2**64 / 100):
                return Reason.NOT_IN_ROLLOUT, (f"its {rollout.percent:g} percent",)
        return None

    def ask_of_death(
        self, chart: Chart, *, calendar: BusinessCalendar, now: datetime, key: Callable[..., str]
    ) -> tuple[Task, ...]:
        """The tasks that ask a person whether the patient has died; those that are open already stay as they are.

        One that a person has closed is not asked for again, until a further message is in doubt.
        """
        doubts = [doubt for doubt in chart.death_stated.doubts if not doubt.settled]
        if not doubts:
            return ()
        known = {task.id: task for task in chart.tasks if task.encounter is None}
        still = {(task.kind, task.reason): task for task in reversed(known.values()) if task.stands}
        if still:  # of two patients who were merged each may have brought its own
            return tuple(still.values())
        group = key("tasks", chart.id)
        wanted: list[Task] = []
        for step in self._death_uncertain:
            task_id = beginning_like(group, key("death", chart.id, str(doubts[-1].root), self.name, step.id))
            if task_id not in known:
                wanted.append(
                    self._task(
                        step,
                        id_=task_id,
                        encounter=None,
                        discharge=0,
                        due_at=step.due.after(now, calendar),
                        reason=step.reason,
                        page=step.page,
                        calendar=calendar,
                        now=now,
                    )
                )
        return tuple(wanted)

    def _task(
        self,
        step: _Step,
        *,
        id_: str,
        encounter: str | None,
        discharge: int,
        due_at: datetime,
        reason: str,
        page: str | None,
        calendar: BusinessCalendar,
        now: datetime,
    ) -> Task:
        ladder = step.ladder(due_at, calendar)
        return Task(
            id=id_,
            kind=step.kind,
            encounter=encounter,
            due_at=due_at,
            escalate_at=ladder[0].at if ladder else None,
            state=TaskState.OPEN,
            assignee=step.assignee,
            reason=reason,
            protocol=self.name,
            discharge=discharge,
            created_at=now,
            page=page,
            attempts_wanted=step.contact.attempts if step.contact is not None else 0,
            protocol_version=self.version,
            protocol_digest=self.digest,
            ladder=ladder,
            step=step.id,
        )

    def tell_of_death(
        self,
        chart: Chart,
        encounter: Encounter,
        ended: int,
        *,
        calendar: BusinessCalendar,
        now: datetime,
        key: Callable[..., str],
    ) -> tuple[Task, ...]:
        """The task that tells of a death which has ended so many tasks, the last of them of this encounter's plan."""
        known = {task.id for task in chart.tasks}
        group = key("tasks", encounter.key)
        told: list[Task] = []
        for step in self._death:
            numbers = (
                beginning_like(group, key("died", encounter.key, str(encounter.discharges), self.name, str(number)))
                for number in count()
            )
            task = self._task(
                step,
                id_=next(one for one in numbers if one not in known),
                encounter=encounter.key,
                discharge=encounter.discharges,
                due_at=step.due.after(now, calendar),
                reason=step.reason.replace(_ENDED, str(ended)),
                page=step.page,
                calendar=calendar,
                now=now,
            )
            told.append(msgspec.structs.replace(task, step=f"{_OF_DEATH}{step.id}"))
        return tuple(told)

    def _too_old(self, discharged: datetime | None, now: datetime) -> bool:
        days = self.discharge_age_days_max
        return days is not None and discharged is not None and discharged < now - timedelta(days=days)

    def _task_id(
        self,
        encounter: Encounter,
        step: _Step,
        known: Mapping[str, Task],
        key: Callable[..., str],
        group: str,
        which: str,
    ) -> str:
        """The same for the same cause; all of a stay begin like `group`.

        A task that was retracted while its discharge stood, or cancelled by a death that was none (corrections that
        were corrected in turn), stays as it is: the next number stands in, so that the patient gets what is wanted.
        So it does for one that a person had ended before it asked which of two stays is right (`which`).
        """
        number = 0
        while True:
            own = key("task", encounter.key, str(encounter.discharges), self.name, step.id, str(number))
            task_id = beginning_like(group, own)
            task = known.get(task_id)
            if step.calls:
                return task_id
            if task is None or not (is_withdrawn(task) or (_is_ended_by_people(task) and which not in task.reason)):
                return task_id
            number += 1


def _is_ended_by_people(task: Task) -> bool:
    return not task.stands and task.suspended_by is None and task.ended_by != ENGINE


_OF_DEATH: Final = "death/"
_ENDED: Final = "{ended}"
"""In the reason of a task that tells of a death: how many tasks it has ended."""


def tells_of_death(task: Task) -> bool:
    """It tells of a death: such a task is not ended by it."""
    return task.step.startswith(_OF_DEATH)


def _is_planned(chart: Chart, encounter: Encounter) -> bool:
    """Whether the last discharge of a stay has tasks, whatever has become of them."""
    key, discharge = encounter.key, encounter.discharges
    return any(task.encounter == key and task.discharge == discharge for task in chart.tasks)


def _told(disposition: Disposition) -> str:
    """A disposition for a person: its code only when it is one of the table."""
    return f"{disposition.code} ({disposition.action})" if disposition.hold_reason is None else disposition.hold_reason


_LATE_TOLD: Final = timedelta(hours=2)
"""What is heard of sooner is not called late."""


def _due(
    step: _Step,
    discharged: datetime | None,
    task: Task | None,
    calendar: BusinessCalendar,
    now: datetime,
    *,
    earliest: datetime,
    waits: bool,
) -> datetime:
    """By the discharge; when that is past or all but, a while from now: no task is born overdue.

    What was promised once is not put off by a later message, unless it ran out while the task was set aside.
    """
    known_since = task.created_at if task is not None else now
    due_at = step.due.after(discharged or known_since, calendar)
    if due_at >= earliest:
        return due_at
    if task is None or (task.suspended_by is not None and not waits and task.due_at <= now):
        return earliest
    return max(due_at, min(task.due_at, earliest))


def _heard_late(
    step: _Step, discharged: datetime | None, since: datetime, late: Span, calendar: BusinessCalendar
) -> str:
    """What the reason of a task says whose clock started late, because nobody had heard of the discharge before.

    since: when it was heard of, for the task. late: of the protocol.
    """
    if discharged is None or since - discharged < _LATE_TOLD:
        return ""
    if step.due.after(discharged, calendar) >= (step.late or late).after(since, calendar):
        return ""
    days, seconds = (since - discharged).days, (since - discharged).seconds
    said = f"{days} days" if days > 1 else f"{24 * days + seconds // 3600} hours"
    return f" (heard of {said} after the discharge: the clock started then)"


def _discharged(encounter: Encounter, now: datetime, calendar: BusinessCalendar) -> datetime | None:
    """When the discharge was; none: not known.

    A time that lies ahead by more than clocks can differ is an error of the sender, and would put the follow-up off for
    as long.
    """
    discharged = ended_at(encounter, calendar.zone)
    return None if discharged is None or discharged > now + AHEAD_MAX else discharged


def _longest_days(spec: _Spec) -> int:
    """The longest due time of its tasks, in whole days."""
    return math.ceil(max((step.due.days_max for step in spec.plans.steps()), default=0)) or 1


def _contradictions(document: Document, step: _Step, kinds: list[str], path: Path) -> Iterator[Problem]:
    """What a step says of its escalation that can't be meant."""
    has, before, paged = step.assignee, None, step.page
    for number, rung in enumerate(step.rungs if not isinstance(step.escalate, Span) else ()):
        here = (*path, "escalate", number)
        if rung.owner is None and rung.alert is None and rung.page is None and len(step.rungs) > 1:
            yield document.problem(here, "does nothing: needs owner, alert or page")
        if before is not None and rung.after.days_max < before.after.days_min:
            message = "comes before the one above it: both are counted from the due time; put them in order"
            yield document.problem((*here, "after"), message)
        before = rung
        if rung.owner is not None:
            if rung.owner == has:
                message = f"{has} has the task already: name somebody else, or leave it out"
                yield document.problem((*here, "owner"), message)
            has = rung.owner
        if rung.page is not None and paged is not None:
            message = f"{paged} is paged already, and a task has one page: let that ladder go on, or leave it out"
            yield document.problem((*here, "page"), message)
        paged = paged or rung.page
        if (alert := rung.alert) is not None:
            if alert.kind not in kinds:
                message = (
                    f"there is no such kind of task; there are {', '.join(kinds)}{did_you_mean(alert.kind, kinds)}"
                )
                yield document.problem((*here, "alert", "kind"), message)
            if (alert.kind, alert.assignee) == (step.kind, has):
                message = f"is the same task again, for {has}, who has not done it: name another kind or assignee"
                yield document.problem((*here, "alert"), message)


def _wrong_proofs(document: Document, spec: _Spec, kinds: list[str]) -> Iterator[Problem]:
    """Proofs of no kind of task, and visits that would show a task to be done by what has called for it."""
    steps = list(spec.plans.steps())
    for kind, visits in spec.proofs.items():
        if kind not in kinds:
            message = f"there is no such kind of task; there are {', '.join(kinds)}{did_you_mean(kind, kinds)}"
            yield document.problem(("proofs", kind), message)
        for number, visit in enumerate(visits):
            for place, class_ in enumerate(visit.classes):
                if class_ in spec.classes:
                    message = f"a stay of class {class_} calls for a plan of its own: it proves no visit"
                    yield document.problem(("proofs", kind, number, "classes", place), message)
            longest = max((step.due.days_min for step in steps if step.kind == kind), default=0)
            if visit.within is not None and visit.within.days_max < longest:
                message = "is over before the task is due: a visit in time would prove nothing"
                yield document.problem(("proofs", kind, number, "within"), message)


def load_protocol(document: Document) -> Protocol:
    """Raises SettingsError."""
    spec = validate(document, _Spec)
    problems: list[Problem] = []
    longest, said = _longest_days(spec), spec.discharge_age_days_max
    if isinstance(said, int) and said < longest:
        message = f"must be {longest} or more: a task of this protocol may be due as late"
        problems.append(document.problem(("discharge_age_days_max",), message))
    for index, class_ in enumerate(document.value.get("classes_without_plan", ())):
        if class_ in spec.classes:
            problems.append(
                document.problem(("classes_without_plan", index), "stands among classes, too: which is it?")
            )
    plans: dict[str, Any] = document.value["plans"]
    home = spec.plans.home_plan

    kinds, conditions = list(spec.kinds or KINDS), list(spec.conditions)

    def check(steps: _Steps, used: set[str], *path: str) -> None:
        for index, step in enumerate(steps):
            if step.kind not in kinds:
                message = f"there is no such kind of task; there are {', '.join(kinds)}{did_you_mean(step.kind, kinds)}"
                problems.append(document.problem(("plans", *path, index, "kind"), message))
            for number, name in enumerate(step.when):
                if name not in conditions:
                    message = f"there is no such condition{did_you_mean(name, conditions)}"
                    problems.append(document.problem(("plans", *path, index, "when", number), message))
            problems.extend(_contradictions(document, step, kinds, ("plans", *path, index)))
            if step.id in used:
                message = "another task of this plan has the same kind: give one of them a name"
                problems.append(document.problem(("plans", *path, index), message))
            used.add(step.id)

    problems.extend(
        document.problem(("appointments", kind), f"there is no such kind of task{did_you_mean(kind, kinds)}")
        for kind in spec.appointments
        if kind not in kinds
    )
    for band in (Band.HIGH, Band.MODERATE, Band.LOW):
        used: set[str] = set()
        check(home.every, used, "home_plan", "every")
        check(getattr(home, band), used, "home_plan", band)
    for action in plans:
        if action != Action.HOME_PLAN:
            check(getattr(spec.plans, action), set(), action)
    for index, step in enumerate(spec.plans.death):
        if step.page is not None or any(rung.page is not None for rung in step.rungs):
            message = "nobody is paged about a patient who has died: leave the page out"
            problems.append(document.problem(("plans", "death", index), message))
    for action in (Action.AGAINST_ADVICE, Action.CONFLICT, Action.UNKNOWN):
        if all(step.when or step.dispositions for step in getattr(spec.plans, action)):
            message = "needs a task without `when` and `dispositions`, so that everybody gets one"
            problems.append(document.problem(("plans", action), message))
    problems.extend(_wrong_proofs(document, spec, kinds))
    problems.extend(
        document.problem(("results", kind), f"there is no such kind of task{did_you_mean(kind, kinds)}")
        for kind in spec.results
        if kind not in kinds
    )
    asked = {name for step in spec.plans.steps() for name in step.when}
    if spec.rollout is not None:
        asked |= set(spec.rollout.cohorts or ())
        problems.extend(_rollout_problems(document, spec))
    problems.extend(
        document.problem(("conditions", name), "no task asks for it: see `when`")
        for name in conditions
        if name not in asked
    )
    if problems:
        raise SettingsError(tuple(dict.fromkeys(problems)))
    return Protocol(spec)


def _rollout_problems(document: Document, spec: _Spec) -> Iterator[Problem]:
    """Cohorts and units that are nobody: then the protocol would act for nobody, in silence."""
    rollout = spec.rollout
    if rollout is None:
        return
    for number, name in enumerate(rollout.cohorts or ()):
        place = ("rollout", "cohorts", number)
        cohort = spec.conditions.get(name)
        if cohort is None:
            yield document.problem(place, f"there is no such condition{did_you_mean(name, list(spec.conditions))}")
        elif cohort.classes and not set(cohort.classes) & set(spec.classes):
            yield document.problem(place, f"is nobody: none of its classes is planned for ({', '.join(spec.classes)})")
        elif cohort.units and rollout.units is not None and not set(cohort.units) & set(rollout.units):
            yield document.problem(place, "is nobody: none of its units is among the units of the rollout")
