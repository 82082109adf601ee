"""The decisions about a patient, put together from what the outcomes of their entries keep.

Nothing is decided here: a decision is read from an outcome's reasons, effects and deliveries. What explains how a task,
a page or the plan of a stay is today stands (`Decision.stands`); where no outcome says it any more, the chart does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from engine.domain.appointment import Appointment
from engine.domain.chart import Chart
from engine.domain.decision import Decision
from engine.domain.delivery import TEST_DATA, DeliveryState
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.hold import QUESTIONS, HoldCode
from engine.domain.message import EntryKind, EntryState
from engine.domain.outcome import Effect, EffectKind
from engine.domain.page import Page
from engine.domain.record import Phi, Record
from engine.domain.score import Score
from engine.domain.task import ENGINE, Task
from engine.domain.why import MEANINGS, Input, Reason, What, Why, say
from engine.pipeline.why import STALE

_BY_A_RULE: Final = "a rule of its destination does not let it go"
_WITHHELD: Final[Mapping[str, str]] = {
    "restricted": "the record is restricted, and the destination gets nothing of that",
    "part2_no_consent": "42 CFR Part 2, and no consent of the patient covers the destination",
    "patient_refused": "the patient wants no notices of events sent there",
    TEST_DATA: "the destination takes no test data",
}
"""Codes of `engine.access.copies`, and of test data, in words."""


class Place(Record, frozen=True, kw_only=True):
    """A task in a protocol's file. path: `plans.home_plan.high.pcp_follow_up`."""

    path: str
    kind: str
    reason: str


class Rules(Record, frozen=True, kw_only=True):
    """What the configuration said when something was decided."""

    version: str = ""
    protocol: str | None = None
    """The channel's."""
    versions: Mapping[str, str] = {}
    """Of protocols and models, by name."""
    models: Mapping[str, str] = {}
    """The model whose band decides in a protocol, by the protocol's name."""
    places: Mapping[str, tuple[Place, ...]] = {}
    """The tasks of protocols, by the protocol's name."""
    actions: Mapping[str, str] = {}
    """What the table of dispositions says, by code."""
    locations: Mapping[str, str] = {}
    """HL7 fields, by the target of the field map (`encounter.disposition`)."""


class Sent(Phi, frozen=True, kw_only=True):
    """A delivery. about: id of the task or page, key of the stay; none: it is about the patient."""

    id: int
    destination: str
    what: str
    state: DeliveryState
    error: str | None
    at: datetime
    about: str | None = None


class Happened(Phi, frozen=True, kw_only=True):
    """An entry that concerns the patient, and its outcome."""

    entry: int
    kind: EntryKind = EntryKind.MESSAGE
    what: str
    """`ADT^A03`, `task-done`, `due`."""
    at: datetime
    root: int | None = None
    """Of a replay: the first entry of its chain."""
    state: EntryState = EntryState.PROCESSED
    reason: str | None = None
    effects: tuple[Effect, ...] = ()
    why: tuple[Why, ...] = ()
    stay: str | None = None
    """Key of the stay that it spoke of."""
    sent: tuple[Sent, ...] = ()
    rules: Rules = Rules()
    by: str | None = None
    said: str | None = None


def decisions(chart: Chart, happened: Iterable[Happened]) -> list[Decision]:
    """All that is known, in the order in which it was decided. chart: as it is now. happened: oldest first."""
    story = _Story(chart)
    for one in happened:
        story.hear(one)
    return story.told()


_ACTIONS: Final[Mapping[str, str]] = {
    "created": "open", "done": "close", "cancelled": "cancel", "retracted": "retract", "missed": "miss",
    "open": "reopen", "in_progress": "begin", "assigned": "assign", "scored": "score", "withdrawn": "withdraw",
    "merged": "merge", "raised": "page", "acknowledged": "acknowledge", "resolved": "call_off",
    "exhausted": "exhaust", "notified": "notify", "escalated": "escalate", "attempted": "attempt",
    "snoozed": "snooze", "undone": "undo", "called": "call", "skipped": "call",
}  # fmt: skip
"""What an effect did, by the last word of its kind; of others that word itself."""
_BESIDES: Final = frozenset({"assign", "escalate", "attempt", "snooze", "undo", "notify", "call"})
"""What leaves the state of its subject, or stands beside the effect that changes it."""
_PARTS: Final = frozenset({"task", "page", "appointment", "text", "score"})
"""First words of effects on a thing with a life of its own."""
_OF_PATIENT: Final = frozenset({"patient-merged", "patient-deceased", "patient-not-deceased"})
_UNSAID: Final = frozenset({Reason.PLAN_SAME, Reason.SCORE_SAME, Reason.NO_VISIT, Reason.WITHOUT_EFFECT})
"""They say that nothing was decided."""
_TAKES_BACK: Final = frozenset({Reason.NOT_DISCHARGED, Reason.TAKEN_BACK, Reason.CANCELLED})
_STATES: Final[Mapping[EntryState, Reason]] = {
    EntryState.FILTERED: Reason.FILTERED,
    EntryState.DEAD: Reason.DEAD,
    EntryState.REFUSED: Reason.REFUSED,
    EntryState.RECEIVED: Reason.WAITING,
}
_SENT: Final[Mapping[DeliveryState, tuple[str, str, str]]] = {
    DeliveryState.DELIVERED: ("done", "sent", "it was delivered"),
    DeliveryState.PENDING: ("done", "queued", "it waits for its destination"),
    DeliveryState.HELD: ("withheld", "hold", "nobody knows whether it arrived: a person decides"),
    DeliveryState.DEAD: ("withheld", "carrier_error", "its destination does not take it"),
    DeliveryState.WITHHELD: ("withheld", "shadow", "the channel is in shadow mode"),
}
REASONS: Final[Mapping[str, str]] = {
    "sent": "the destination has taken it",
    "queued": "it waits for its destination",
    "carrier_error": "the destination does not take it",
    "person": "a person has said so (`by`)",
    "merged": "two registrations are one patient",
    "missed": "its deadline has passed",
    "declined": "the patient was reached and does not want it",
    "kept": "a later message proves that it was done",
    "unanswered": "nobody has acknowledged the page",
    "nobody_on_call": "there was nobody to call",
}
"""Reasons of decisions besides those of messages (`domain.why.MEANINGS`): what time, people and destinations do."""
_FACTOR_FIELDS: Final[Mapping[str, str]] = {
    "age": "patient.birth_date", "acute": "encounter.admission_type", "los_days": "encounter.discharged_at",
    "charlson": "encounter.diagnoses", "diagnoses": "encounter.diagnoses", "oncology": "encounter.diagnoses",
    "procedure": "encounter.procedures", "elective": "encounter.admission_type", "lives_alone": "patient.lives_alone",
    "no_transportation": "patient.transportation", "active_medications": "patient.active_medications",
}  # fmt: skip
"""Factor of a score -> the field that says it; what is counted over several stays has none."""


_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _Story:
    def __init__(self, chart: Chart) -> None:
        self._chart = chart
        self._tasks = {task.id: task for task in chart.tasks}
        self._pages = {page.id: page for page in chart.pages}
        self._told: list[Decision] = []
        self._last: dict[tuple[str, str], int] = {}
        """By what and subject: the place of the last decision."""
        self._touched: dict[str, int] = {}
        """By subject: the last entry that has done something to it."""
        self._last_scores: dict[tuple[str, str], tuple[int, Happened]] = {}
        """By stay and model: the place of the last decision, and its entry."""
        self._scored: dict[tuple[str, str], tuple[str, int]] = {}
        """By stay and model: the last band, and the entry."""

    def hear(self, one: Happened) -> None:
        for effect in one.effects:
            self._touched[effect.subject] = one.entry
            if effect.kind == EffectKind.SCORED:
                model, _, band = effect.detail.rpartition(" ")
                self._scored[effect.subject, model] = (band, one.entry)
        if one.state is not EntryState.PROCESSED:
            self._not_worked_on(one)
            return
        held = False
        for effect in one.effects:
            if effect.kind in {EffectKind.HELD, EffectKind.WITHOUT_EFFECT, EffectKind.NOT_DONE}:
                held = True
                self._withheld(one, effect)
        plans = [] if held and not _did_something(one) else [why for why in one.why if why.what is What.PLAN]
        said = [why for why in plans if why.reason not in _UNSAID and why.reason is not Reason.EARLIER_WAITS]
        for place, why in enumerate(said):  # of EARLIER_WAITS the tasks of the other stay tell
            self._planned(one, why, besides=place > 0)
        for why in one.why:
            if why.what is What.SCORE and why.reason not in _UNSAID and not MEANINGS[why.reason].done:
                self._add(one, what="score", subject=one.stay or self._chart.id, action="score", why=why, name=why.name)
        self._effects(one, plans)
        self._other_plans(one)
        self._deliveries(one)

    def told(self) -> list[Decision]:
        today: list[Decision] = []
        self._add_factors()
        for task in self._chart.tasks:
            self._set_aside_at_birth(task)
            self._stand("task", task.id, lambda task=task: _of_task(task), today)
        for stay in self._chart.encounters:
            self._stand_plan(stay, today)
        for page in self._chart.pages:
            self._stand("page", page.id, lambda page=page: _of_page(page), today)
        for one in self._chart.appointments:
            self._stand("appointment", one.id, lambda one=one: _of_appointment(one), today)
        return sorted([*self._told, *today], key=lambda one: one.at)

    # --- one entry

    def _not_worked_on(self, one: Happened) -> None:
        why = Why(what=What.PLAN, reason=_STATES[one.state])
        self._add(one, what="message", subject=f"entry-{one.entry}", action="apply", why=why, text=one.reason)

    def _withheld(self, one: Happened, effect: Effect) -> None:
        if effect.kind == EffectKind.HELD:
            code = HoldCode(effect.detail)
            reason = "stale" if code in STALE else "hold"
            self._put(one, what="message", subject=effect.subject, action="apply", decided="withheld", reason=reason,
                      text=QUESTIONS[code].text, rule=code.value)  # fmt: skip
        elif effect.kind == EffectKind.NOT_DONE:
            self._put(one, what="message", subject=effect.subject, action=one.what, decided="withheld",
                      reason=effect.detail.replace("-", "_"), text=one.reason or effect.detail)  # fmt: skip
        else:
            why = Why(what=What.PLAN, reason=Reason.WITHOUT_EFFECT)
            self._add(one, what="message", subject=f"entry-{one.entry}", action="apply", why=why)

    def _planned(self, one: Happened, why: Why, *, besides: bool) -> None:
        """besides: it is about a part of the plan, of which the first reason tells."""
        stay = one.stay or self._chart.id
        if besides:
            name = why.name or one.rules.protocol
            rule, version = _rule_of_plan(why.reason, name, (), one.rules)
            self._add(one, what="task", subject=stay, action="open", why=why, name=name, stay=one.stay, rule=rule,
                      version=version)  # fmt: skip
            return
        made = [effect.subject for effect in one.effects if effect.kind.startswith("task-")]
        own = tuple(id_ for id_ in dict.fromkeys(made) if self._stay_of(id_) == one.stay)
        name = why.name or one.rules.protocol
        before = self._last.get(("plan", stay))
        word = MEANINGS[why.reason].word
        if before is not None and not own and self._told[before].reason == word:
            return  # it goes on as it was
        inputs = self._inputs(one, why)
        rule, version = _rule_of_plan(why.reason, name, inputs, one.rules)
        self._add(one, what="plan", subject=stay, action="plan", why=why, name=name, effects=own, inputs=inputs,
                  stay=one.stay, rule=rule, version=version)  # fmt: skip

    def _other_plans(self, one: Happened) -> None:
        """What became of the plans of other stays than that of which the entry spoke."""
        groups: dict[str, list[Decision]] = {}
        for made in self._told:
            if made.what == "task" and made.causes[0] == one.entry and made.stay not in {None, one.stay}:
                groups.setdefault(made.stay or "", []).append(made)
        if one.kind is not EntryKind.MESSAGE:
            return
        for stay, group in groups.items():
            going_on = [made for made in group if made.action in {"open", "reopen"} and made.decided == "done"]
            said = (going_on or group)[-1]
            self._put(
                one, what="plan", subject=stay, action="plan", decided="done" if going_on else "withheld",
                reason=said.reason, text=said.text, rule=said.rule and said.rule.partition(":")[0],
                version=said.version, stay=stay, effects=tuple(made.subject for made in group),
            )  # fmt: skip

    def _effects(self, one: Happened, plans: list[Why]) -> None:
        seen: set[tuple[str, str, str]] = set()
        for effect in one.effects:
            what, _, did = effect.kind.partition("-")
            if what == EffectKind.SCORED:
                what, did = "score", "scored"
            place = (effect.kind, effect.subject, effect.detail if what in {"score", "page"} else "")
            if place in seen or not (what in _PARTS or effect.kind in _OF_PATIENT):
                continue
            seen.add(place)
            if what == "score":
                self._score(one, effect, _ACTIONS.get(did, did))
            elif what == "task":
                self._task(one, effect, did, plans)
            elif what == "page" and (page := self._pages.get(effect.subject)) is not None:
                self._page(one, effect, did, page)
            else:
                self._other(one, effect, what, did)

    def _task(self, one: Happened, effect: Effect, did: str, plans: list[Why]) -> None:
        task = self._tasks.get(effect.subject)
        stay = self._stay_of(effect.subject)
        why = next((why for why in plans if stay == one.stay), None)
        decided, inputs = "done", self._inputs(one, why) if why is not None else ()
        reason, text = self._reason_of_task(one, task, did, why, plans)
        rule = _rule_of(task, one.rules, did) if task is not None else effect.detail or None
        version = (task.protocol_version or one.rules.versions.get(task.protocol)) if task is not None else None
        if one.kind is EntryKind.DUE and task is not None:
            inputs = tuple(_of_deadline(task, did))
        if did == "escalated":
            text = effect.detail
        self._put(
            one, what="task", subject=effect.subject, action=_ACTIONS.get(did, did), decided=decided, reason=reason,
            text=text, rule=rule, version=version, inputs=inputs, stay=stay,
            effects=(effect.subject, *self._sent_about(one, effect.subject)),
        )  # fmt: skip

    def _reason_of_task(
        self, one: Happened, task: Task | None, did: str, why: Why | None, plans: list[Why]
    ) -> tuple[str, str]:
        """Why something became of a task."""
        if did == "escalated":
            return "missed" if one.kind is EntryKind.DUE else "declined", ""
        if one.kind is EntryKind.ACT:
            if task is not None and task.raised_for is not None and did == "created":
                return "declined", task.reason
            return "person", f"{one.by or 'a person'} has said so"
        kinds = {effect.kind for effect in one.effects}
        ended = task.end_reason if task is not None else None
        if did in {"cancelled", "retracted", "done"}:
            if task is not None and task.suspended_by is not None:
                return "superseded", ended or MEANINGS[Reason.WAITS].text
            if "patient-deceased" in kinds or any(one.reason is Reason.DECEASED for one in plans):
                return "deceased", ended or MEANINGS[Reason.DECEASED].text
            if why is not None and why.reason in _TAKES_BACK:
                return "reversed", ended or "what it follows from was taken back"
            if task is not None and task.encounter is None and task.raised_for is None:
                return "hold", ended or "what it asked is decided"
            if why is not None and why.reason not in _UNSAID and not MEANINGS[why.reason].done:
                return MEANINGS[why.reason].word, _sentence(why, one.rules.protocol)
            if "patient-merged" in kinds:
                return "merged", ended or "two registrations are one patient"
            if did == "done":
                proof = task.evidence if task is not None else None
                return "kept", f"a message proves it: {proof}" if proof else "a message proves it"
            return "superseded", ended or "another plan takes its place"
        if did == "missed":
            return "missed", "its time has passed"
        if why is not None:
            return MEANINGS[why.reason].word, _sentence(why, one.rules.protocol)
        if one.kind is EntryKind.DUE:
            return "missed", task.reason if task is not None else "another task was not done in time"
        if task is not None and task.encounter is None:
            return "hold", task.reason
        if "patient-not-deceased" in kinds or did == "open":
            return "planned", "what had set it aside is no longer so"
        return "planned", task.reason if task is not None else "it follows from the stay"

    def _score(self, one: Happened, effect: Effect, action: str) -> None:
        model, band = (effect.detail, "") if action == "withdraw" else effect.detail.rpartition(" ")[::2]
        said = [why for why in one.why if why.what is What.SCORE and why.name in {"", model}]
        why = next((why for why in said if MEANINGS[why.reason].done == (action == "score")), None)
        if why is None:
            why = Why(what=What.SCORE, reason=Reason.SCORED, args=(band,))
            if action == "withdraw":
                why = Why(what=What.SCORE, reason=Reason.CLASS_NOT_SCORED, args=("the stay",))
        self._last_scores[effect.subject, model] = (len(self._told), one)
        self._put(
            one, what="score", subject=effect.subject, action=action, decided="done", reason=MEANINGS[why.reason].word,
            text=_sentence(why, model), rule=model, version=one.rules.versions.get(model),
            inputs=(Input(name="band", value=band),) if band else (), stay=effect.subject,
            effects=tuple(self._sent_about(one, effect.subject, "score")),
        )  # fmt: skip

    def _page(self, one: Happened, effect: Effect, did: str, page: Page) -> None:
        """Pages follow their tasks, until somebody answers."""
        about = next((made for made in reversed(self._told) if made.what == "task" and made.subject == page.task), None)
        same = about is not None and about.causes[0] == one.entry
        policy = page.policy
        decided, rule = "done", f"{policy.ladder}: levels"
        match did:
            case "raised":
                reason = about.reason if about is not None else "planned"
                text = f"its task {page.kind} pages {policy.ladder}"
            case "called" | "skipped":
                level = int(effect.detail.removeprefix("level ").partition(",")[0])
                rule = f"{policy.ladder}: " + (f"levels[{level - 1}]" if level <= len(policy.levels) else "exhausted")
                first = effect.detail == "level 1, loop 1"
                reason, text = ("planned" if first else "unanswered"), effect.detail
                if did == "skipped":
                    decided, reason, text = "withheld", "nobody_on_call", f"{effect.detail}: there was nobody to call"
            case "resolved":
                reason = about.reason if same and about is not None else "superseded"
                text = page.end_reason or "its task is not to be done any more"
            case "exhausted":
                reason, text = "unanswered", "nobody on the ladder has acknowledged it"
            case _:
                reason, text = "person", f"{page.acknowledged_by or one.by or 'a person'} has said so"
        self._put(
            one, what="page", subject=page.id, action=_ACTIONS.get(did, did), decided=decided, reason=reason, text=text,
            rule=rule, version=policy.version, stay=page.encounter,
            inputs=(Input(name="task", value=page.task, entry=about.causes[0] if about is not None else 0),),
            effects=(page.id, *self._sent_about(one, page.id)),
        )  # fmt: skip

    def _other(self, one: Happened, effect: Effect, what: str, did: str) -> None:
        """What became of a page, an appointment, a text or the patient."""
        if what == "text":
            self._of_text(one, effect, did)
            return
        reason, text = ("person", f"{one.by or 'a person'} has said so") if one.kind is EntryKind.ACT else ("", "")
        if effect.kind == "patient-merged":
            reason, text = "merged", "two registrations are one patient"
        elif effect.kind in _OF_PATIENT:
            reason, text = "deceased", "the patient has died" if did == "deceased" else "the patient has not died"
        self._put(
            one, what=what, subject=effect.subject, action=_ACTIONS.get(did, did), decided="done",
            reason=reason or did, text=text or effect.detail or did.replace("-", " "),
            effects=(effect.subject, *self._sent_about(one, effect.subject)),
        )  # fmt: skip

    def _of_text(self, one: Happened, effect: Effect, did: str) -> None:
        if did not in _TEXT_SAYS:  # what the carrier says is told by what it made of the text
            return
        text = next((found for found in self._chart.texts if found.id == effect.subject), None)
        series = f"{text.series}: {text.step}" if text is not None else None
        reason = _TEXT_REASONS.get(did) or effect.detail or did
        kept = did in {"withheld", "retracted", "failed"}
        said = WITHHELD_TEXTS.get(reason) if kept else None
        self._put(
            one, what="text", subject=effect.subject, action="send" if kept else did,
            decided="withheld" if kept else "done", reason=reason, text=said or _TEXT_SAYS[did], rule=series,
            version=text.series_version if text is not None else None,
            effects=(effect.subject, *self._sent_about(one, effect.subject)),
        )  # fmt: skip

    def _deliveries(self, one: Happened) -> None:
        groups: dict[tuple[str, tuple[str, str, str]], list[Sent]] = {}
        for sent in one.sent:
            said = _SENT[sent.state]
            if sent.state is DeliveryState.WITHHELD and sent.error not in {None, Reason.SHADOW}:
                said = ("withheld", str(sent.error).replace("-", "_"), _WITHHELD.get(str(sent.error), _BY_A_RULE))
            elif sent.state is DeliveryState.DEAD:
                said = (*said[:2], f"{said[2]}: {sent.error}")
            groups.setdefault((sent.destination, said), []).append(sent)
        for (destination, (decided, reason, text)), group in groups.items():
            kinds = ", ".join(dict.fromkeys(sent.what for sent in group))
            self._put(
                one, what="delivery", subject=destination, action="deliver", decided=decided, reason=reason,
                text=f"{kinds}: {text}", rule=f"deliver: {destination}", effects=tuple(sent.id for sent in group),
                at=max(sent.at for sent in group),
            )  # fmt: skip
        for why in one.why:
            if why.what is What.DELIVERY and not one.sent:
                self._add(one, what="delivery", subject="deliver", action="deliver", why=why)

    # --- today

    def _stand(self, what: str, subject: str, from_chart: Any, today: list[Decision]) -> None:
        place = self._last.get((what, subject))
        if place is None:
            today.append(from_chart())
        else:
            self._told[place] = msgspec.structs.replace(self._told[place], stands=True)

    def _set_aside_at_birth(self, task: Task) -> None:
        """A task that waits from the beginning on was never open."""
        place = self._last.get(("task", task.id))
        if place is not None and task.suspended_by is not None and self._told[place].action in {"open", "reopen"}:
            self._told[place] = msgspec.structs.replace(
                self._told[place], decided="withheld", reason="superseded", text=task.end_reason or task.reason
            )

    def _stand_plan(self, stay: Encounter, today: list[Decision]) -> None:
        """The last word on the plan of a stay; what has become of the patient since then may say more."""
        place = self._last.get(("plan", stay.key))
        now = self._now(stay)
        word = MEANINGS[now].word if now is not None else None
        if place is not None and word in {None, self._told[place].reason}:
            self._told[place] = msgspec.structs.replace(self._told[place], stands=True)
            return
        why = Why(what=What.PLAN, reason=now or Reason.PLAN_SAME)
        causes = [self._touched[one] for one in (stay.key, self._chart.id) if one in self._touched]
        last = max(causes, default=None)
        at = next((one.at for one in reversed(self._told) if last in one.causes), None)
        ended = stay.discharged_at.at if stay.discharged_at is not None else None
        today.append(
            Decision(
                at=at or ended or max((one.at for one in self._told), default=_LONG_AGO),
                subject=stay.key,
                what="plan",
                action="plan",
                decided="withheld",
                reason=MEANINGS[why.reason].word,
                text=_sentence(why, None),
                causes=() if last is None else (last,),
                stands=True,
                stay=stay.key,
            )
        )

    def _now(self, stay: Encounter) -> Reason | None:
        """Why a stay has no plan by the chart alone; none: it may have one."""
        if self._chart.patient.deceased is True and not self._chart.death_stated.in_doubt:
            return Reason.DECEASED
        if stay.status is EncounterStatus.CANCELLED:
            return Reason.CANCELLED
        if stay.status is not EncounterStatus.FINISHED:
            return Reason.TAKEN_BACK if stay.discharges else Reason.NOT_DISCHARGED
        return None

    # --- pieces

    def _stay_of(self, task_id: str) -> str | None:
        task = self._tasks.get(task_id)
        return task.encounter if task is not None else None

    def _add_factors(self) -> None:
        """Of each score that is the current one, what it was made from; of others only the band is kept."""
        for score in self._chart.scores:
            found = self._last_scores.get((score.encounter or self._chart.id, score.model))
            if found is not None and self._told[found[0]].action == "score":
                inputs = tuple(self._factors(score, found[1]))
                self._told[found[0]] = msgspec.structs.replace(self._told[found[0]], inputs=inputs)

    def _factors(self, score: Score, one: Happened) -> Iterator[Input]:
        yield Input(name="band", value=score.band.value)
        stamps = self._chart.encounter_stamps.get(score.encounter or "", {})
        for factor in score.factors:
            target = _FACTOR_FIELDS.get(factor.name, "")
            part, _, field = target.partition(".")
            stamp = (stamps if part == "encounter" else self._chart.stamps).get(field)
            entry = stamp[1] if stamp is not None and stamp[1] <= one.entry else 0
            yield Input(
                name=factor.name, value=factor.evidence, entry=entry, location=one.rules.locations.get(target, "")
            )

    def _inputs(self, one: Happened, why: Why) -> tuple[Input, ...]:
        """What a plan was decided on, with its HL7 fields, and the band by which."""
        found = [
            item if item.location or not item.entry else msgspec.structs.replace(
                item, location=_location(one.rules, item.name))
            for item in why.inputs
        ]  # fmt: skip
        if MEANINGS[why.reason].done:
            model = one.rules.models.get(why.name or one.rules.protocol or "", "")
            band, entry = self._scored.get((one.stay or "", model), ("", 0))
            if band:
                found.append(Input(name="band", value=band, entry=entry, location=model))
        return tuple(found)

    def _sent_about(self, one: Happened, subject: str, what: str | None = None) -> Iterator[int]:
        return (sent.id for sent in one.sent if sent.about == subject and what in {None, sent.what})

    def _add(self, one: Happened, *, why: Why, name: str | None = None, text: str | None = None, **more: Any) -> None:
        meaning = MEANINGS[why.reason]
        said = {"rule": name or None, "version": one.rules.versions.get(name) if name else None} | more
        decided = "done" if meaning.done else "withheld"
        self._put(one, decided=decided, reason=meaning.word, text=text or _sentence(why, name), **said)

    def _put(self, one: Happened, *, version: str | None = None, **more: Any) -> None:
        causes = (one.entry,) if one.root in {None, one.entry} else (one.entry, one.root)
        made = Decision(
            **{"at": one.at, "causes": causes, "by": one.by, "said": one.said, "stay": one.stay, **more},
            version=version or (f"configuration {one.rules.version}" if one.rules.version else None),
        )
        if made.action not in _BESIDES and (made.decided == "done" or made.what not in {"task", "page"}):
            self._last[made.what, made.subject] = len(self._told)
        self._told.append(made)


def _did_something(one: Happened) -> bool:
    return any(effect.kind.partition("-")[0] in _PARTS for effect in one.effects)


def _sentence(why: Why, name: str | None) -> str:
    return say(why, name).reason.partition(": ")[2]


def _location(rules: Rules, name: str) -> str:
    return next((found for part in ("encounter", "patient") if (found := rules.locations.get(f"{part}.{name}"))), "")


def _rule_of(task: Task, rules: Rules, did: str = "") -> str:
    """The task in its protocol's file, as far as that can be told."""
    alike = [place for place in rules.places.get(task.protocol, ()) if place.kind == task.kind]
    same = [place for place in alike if task.reason.startswith(place.reason)] or alike
    step = f"{same[0].path}{'.escalate' if did == 'escalated' else ''}" if same else task.kind
    return f"{task.protocol}: {step}"


_TEXT_SAYS: Final[Mapping[str, str]] = {
    "planned": "its series wants it",
    "queued": "its time has come, and nothing stands against it",
    "sent": "the carrier has taken it",
    "delivered": "it is on the phone",
    "replied": "the patient has answered what it asks",
    "expired": "nobody has answered what it asks in time",
    "received": "the patient has written",
    "withheld": "it does not go",
    "retracted": "what it hung on is gone",
    "failed": "the carrier says that it does not arrive",
}
_TEXT_REASONS: Final[Mapping[str, str]] = {
    "planned": "planned", "queued": "queued", "sent": "sent", "delivered": "sent", "replied": "replied",
    "received": "replied", "expired": "unanswered",
}  # fmt: skip
WITHHELD_TEXTS: Final[Mapping[str, str]] = {
    "no_consent": "the patient has not agreed to be written to at this number",
    "opted_out": "the patient wants no texts",
    "no_address": "there is no number that can be written to",
    "quiet_hours": "it would have come at night, and in the morning it is of no use",
    "cap_day": "enough was written to the patient that day, and the day after it is of no use",
    "cap_week": "enough was written to the patient that week, and later it is of no use",
    "too_late": "it would have come too late to be of use, or what it speaks of was not known in time",
    "duplicate": "the same was written to the patient that day",
    "hold": "it is asked whether the patient lives",
    "deceased": "the patient has died",
    "merged": "two registrations are one patient: the other one's text goes",
    "reversed": "the discharge, or the visit that it speaks of, was taken back",
    "superseded": "another plan, visit or series takes its place",
    "disposition": "the disposition calls for no texts",
    "class": "the patient class calls for no texts",
    "no_protocol": "no protocol plans texts for this discharge",
    "carrier_error": "the carrier does not take it",
    "muted": "the patient's record does not go there",
    "patient_refused": "the patient wants no notices",
    "part2_no_consent": "the record is protected (42 CFR Part 2), and the patient has not agreed",
    "not_in_rollout": "the protocol does not act for this patient yet",
}
"""Word of the closed list -> why a text did not go."""

_KEYS: Final[Mapping[str, str]] = {
    "class-not-planned": "classes", "class-asked": "plans.unknown", "too-late": "discharge_age_days_max",
    "page-too-late": "page_fresh", "not-in-rollout": "rollout", "too-young": "age_years_min",
}  # fmt: skip
"""Where in the protocol a reason stands."""


def _rule_of_plan(
    reason: Reason, protocol: str | None, inputs: tuple[Input, ...], rules: Rules
) -> tuple[str | None, str | None]:
    """What decided on a plan, as a person finds it in the files, and the version of that file."""
    version = rules.versions.get(protocol) if protocol else None
    said = {item.name: item.value for item in inputs}
    code, band = said.get("disposition"), said.get("band")
    action = rules.actions.get(str(code)) if code is not None else "unknown"
    if reason is Reason.DISPOSITION and code is not None:
        return f"dispositions: codes.{code}", None
    if protocol is None or reason in _KEYS:
        return f"{protocol}: {_KEYS[reason]}" if protocol is not None else None, version
    if MEANINGS[reason].done and action is not None:
        return f"{protocol}: plans.{action}" + (f".{band}" if action == "home_plan" and band else ""), version
    return protocol, version


def _of_deadline(task: Task, did: str) -> Iterator[Input]:
    """What a deadline was decided on."""
    yield Input(name="due_at", value=task.due_at.isoformat())
    if did == "created" and task.raised_for is not None:
        yield Input(name="raised_for", value=task.raised_for)


def _of_task(task: Task) -> Decision:
    """What a task says of itself, when no outcome does any more."""
    ended = task.ended_at is not None
    return Decision(
        at=task.ended_at or task.created_at,
        subject=task.id,
        what="task",
        action=_ACTIONS.get(task.state.value, task.state.value) if ended else "open",
        decided="done",
        reason="superseded" if task.suspended_by is not None else "planned",
        text=(task.end_reason if task.ended_by == ENGINE else None) or task.reason,
        rule=f"{task.protocol}: {task.kind}",
        version=task.protocol_version,
        effects=(task.id,),
        stands=True,
        stay=task.encounter,
        by=task.ended_by,
    )


def _of_appointment(one: Appointment) -> Decision:
    return Decision(
        at=one.opened_at or _LONG_AGO, subject=one.id, what="appointment", action=one.status.value, decided="done",
        reason=one.status.value, text=one.told_by or one.status.value.replace("_", " "), effects=(one.id,), stands=True,
    )  # fmt: skip


def _of_page(page: Page) -> Decision:
    return Decision(
        at=page.ended_at or page.raised_at, subject=page.id, what="page",
        action="call_off" if page.ended_at else "page", decided="done", reason="planned",
        text=page.end_reason or f"its task {page.kind} pages {page.policy.ladder}",
        rule=f"{page.policy.ladder}: levels", version=page.policy.version, effects=(page.id,), stands=True,
        stay=page.encounter,
    )  # fmt: skip
