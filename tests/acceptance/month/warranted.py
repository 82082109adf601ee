"""What the final charts warrant, worked out anew: plainly, from the rule files, and by none of the engine's rules.

It knows what a chart says and what the files below `mappings/` say. It does not know in which order things came about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import yaml

from engine.domain.chart import Chart
from engine.domain.encounter import Encounter
from engine.domain.moment import Moment
from engine.domain.task import Task

_STANDING = {"open", "in_progress", "missed"}
_HERE = {"active", "on_leave"}
_STAYS = {"I", "OBS"}
_BANDS = ("none", "low", "moderate", "high")
_ASK = "care_coordinator_alert"
_AT_HOME = {"home_plan", "against_advice"}
_ZONE = ZoneInfo("America/New_York")
"""Of the site's channel: days are those of the clock on its wall, also where that is changed."""


class Warranted:
    """now: the end of the month."""

    def __init__(self, mappings: Path, now: datetime) -> None:
        self.now = now
        self.protocol: dict[str, Any] = yaml.safe_load((mappings / "protocols/post-discharge.yaml").read_text())
        table = yaml.safe_load((mappings / "care/dispositions.yaml").read_text())["codes"]
        self.dispositions: dict[str, dict[str, Any]] = {str(code).zfill(2): entry for code, entry in table.items()}

    def faults(self, chart: Chart) -> Iterator[str]:
        """What stands without being warranted, what is warranted and missing, in words for whoever mends it."""
        by_stay: dict[str | None, list[Task]] = {}
        for task in chart.tasks:
            by_stay.setdefault(task.encounter, []).append(task)
        alive = chart.patient.deceased is not True
        in_doubt = any(not doubt.settled for doubt in chart.death_stated.doubts)
        yield from self._alerts(chart)
        yield from self._pages(chart)
        yield from self._deadlines(chart)
        if in_doubt:
            return  # as long as nobody knows nothing is begun and nothing is ended
        for stay in chart.encounters:
            steps = self._steps(chart, stay) if alive else []
            own = [task for task in by_stay.get(stay.key, []) if task.raised_for is None and not _about_death(task)]
            others = [one for one in chart.encounters if one is not stay and _is_stay(one)]
            waits = any(_place(chart, one) > _place(chart, stay) for one in others)
            lost = any(one.status.value in _HERE and _came(one) < _ended(stay) for one in others)
            ended = alive and stay.discharges and stay.status.value == "finished"
            asked = bool(ended and any(self._asks(chart, stay, one) for one in others))
            steps = self._not_done(chart, stay, others, steps)
            yield from self._plan(
                stay, steps, own, waits=waits and (bool(steps) or asked), lost=lost, asked=asked and not waits
            )

    def _plan(
        self, stay: Encounter, steps: list[dict[str, Any]], own: list[Task], *, waits: bool, lost: bool, asked: bool
    ) -> Iterator[str]:
        """A person is to find out which of two stays is right. lost: an earlier one has no end; asked: one of the same
        time has another end.
        """
        current = [task for task in own if task.discharge == stay.discharges]
        for task in own:
            if task.discharge != stay.discharges and task.stands:
                yield f"{task.kind} of an earlier discharge stands"
        standing = Counter(task.kind for task in current if task.stands)
        wanted = Counter(step["kind"] for step in steps)
        calls = {step["kind"] for step in steps if "page" in step}  # made while the discharge is fresh, and once
        for kind in standing:
            if waits:
                yield f"{kind} stands though the patient came back"
            elif standing[kind] > wanted[kind] + (kind == _ASK and (asked or lost)):
                yield f"{standing[kind]} {kind} stand, {wanted[kind]} warranted"
        if waits:
            return
        there = Counter(
            task.kind for task in current if task.state.value not in {"retracted"} and not task.suspended_by
        )
        if asked and not there[_ASK]:
            yield "two stays of one time ended otherwise, and nobody is asked"
        for kind, number in wanted.items():
            if there[kind] < number and kind not in calls:
                states = [(task.state.value, task.end_reason) for task in own if task.kind == kind]
                yield f"{number} {kind} warranted, {there[kind]} there: {states}"

    def _steps(self, chart: Chart, stay: Encounter) -> list[dict[str, Any]]:
        """The steps of the protocol that the stay calls for; none: none."""
        if stay.status.value != "finished" or not stay.discharges:
            return []
        protocol, plans = self.protocol, self.protocol["plans"]
        if stay.class_ in protocol["classes_without_plan"]:
            return []
        code = stay.disposition
        entry = self.dispositions.get(code) if code else None
        acts_as = entry.get("twin", code) if entry is not None else None
        action = "unknown" if entry is None else self.dispositions[str(acts_as)]["action"]
        steps: list[dict[str, Any]]
        if stay.class_ not in protocol["classes"]:
            steps = plans["unknown"]
        elif action == "home_plan":
            steps = [*plans["home_plan"]["every"], *plans["home_plan"].get(self._band(chart, stay), [])]
        else:
            steps = plans.get(action) or []
        return [
            step
            for step in steps
            if acts_as in step.get("dispositions", [acts_as])
            and all(
                any(self._holds(protocol["conditions"][name], one) for one in (stay, *self._running(chart, stay)))
                for name in step.get("when", ())
            )
        ]

    def _holds(self, condition: dict[str, Any], stay: Encounter) -> bool:
        begins = tuple(code.replace(".", "") for code in condition["diagnoses"])
        return any(one.code.replace(".", "").startswith(begins) for one in stay.diagnoses)

    def _band(self, chart: Chart, stay: Encounter) -> str:
        """The higher one of the stay's own and of those of earlier stays whose plans would still be running."""
        bands = [self._own_band(chart, stay), *(self._own_band(chart, one) for one in self._running(chart, stay))]
        return max(bands, key=_BANDS.index)

    def _own_band(self, chart: Chart, stay: Encounter) -> str:
        return next(
            (one.band.value for one in chart.scores if one.encounter == stay.key and one.model == "lace"), "none"
        )

    def _running(self, chart: Chart, stay: Encounter) -> Iterator[Encounter]:
        """Earlier stays that ended at home, and whose last task would be due after the end of this one."""
        ended = _at(stay.discharged_at)
        for one in chart.encounters:
            left = _at(one.discharged_at)
            if one is stay or not _is_stay(one) or one.status.value != "finished" or not one.discharges:
                continue
            if ended is None or left is None or self._action(one) not in _AT_HOME:
                continue
            if _place(chart, one) > _place(chart, stay):
                continue
            home = self.protocol["plans"]["home_plan"]
            steps = [*home["every"], *home.get(self._own_band(chart, one), [])]
            days = max(_days(step["due"]) for step in steps)
            if left.astimezone(_ZONE) + timedelta(days=days) > ended:
                yield one

    def _asks(self, chart: Chart, stay: Encounter, other: Encounter) -> bool:
        """Both were there at the same time, this one to the end, and they do not tell the same of it."""
        if other.status.value != "finished" or not other.discharges or not _is_stay(stay):
            return False
        if _place(chart, other) > _place(chart, stay) or not _at_one_time(stay, other):
            return False
        told = {self._action(one) for one in (stay, other) if one.disposition}
        return not _is_same(stay, other) or (len(told) == 2 and "death" not in told)

    def _not_done(
        self, chart: Chart, stay: Encounter, others: list[Encounter], steps: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """What was done under another number of the same stay is done."""
        same = {
            one.key: one.discharges
            for one in others
            if one.status.value == "finished" and _is_same(stay, one) and _place(chart, one) < _place(chart, stay)
        }
        done = {
            task.step
            for task in chart.tasks
            if task.encounter in same and same[task.encounter] == task.discharge and task.state.value == "done"
        }
        return [step for step in steps if step.get("name", step["kind"]) not in done]

    def _action(self, stay: Encounter) -> str:
        entry = self.dispositions.get(stay.disposition) if stay.disposition else None
        if entry is None:
            return "unknown"
        return str(self.dispositions[str(entry.get("twin", stay.disposition))]["action"])

    def _deadlines(self, chart: Chart) -> Iterator[str]:
        for task in chart.tasks:
            if not task.stands:
                continue
            first = min((rung.at for rung in task.ladder), default=None)
            if first is not None and first <= self.now and task.state.value != "missed":
                yield f"{task.kind} is {task.state.value} though its deadline {first} has passed"
            if task.state.value == "missed" and task.due_at > self.now and not task.missed_at:
                yield f"{task.kind} is missed before its time"
            late = [rung for rung in task.ladder if rung.at <= self.now]
            if task.climbed < len(late):
                yield f"{task.kind}: {len(late)} rungs are due, {task.climbed} were climbed"

    def _alerts(self, chart: Chart) -> Iterator[str]:
        tasks, pages = {task.id: task for task in chart.tasks}, {page.id: page for page in chart.pages}
        standing = Counter(task.raised_for for task in chart.tasks if task.stands and task.raised_for is not None)
        for alert in chart.tasks:
            if alert.raised_for is None:
                continue
            page, task = pages.get(alert.raised_for), tasks.get(alert.raised_for)
            if page is not None:  # that of a safety event
                asked, rungs = tasks.get(page.task), 1
            else:
                asked, rungs = task, sum(rung.alert is not None for rung in task.ladder) if task is not None else 0
            # Why nobody has answered is to be found out, whatever has become of the patient since.
            unanswered = page is not None and "exhausted" in {page.state, page.stood_as}
            settled = asked is None or asked.state.value in {"retracted", "cancelled"}
            if alert.stands and settled and not unanswered:
                yield f"alert {alert.kind} stands though its task is {asked.state.value if asked else 'not there'}"
            if alert.stands and page is None and asked is not None and not asked.stands:
                yield f"alert {alert.kind} stands though its task is {asked.state.value}"
            named = {escalation.alert for escalation in asked.escalations} if asked is not None else set()
            if alert.stands and page is None and alert.id not in named:
                yield f"alert {alert.kind} stands and its task names no reason for it"
            if standing[alert.raised_for] > rungs:
                yield f"alert {alert.kind} stands {standing[alert.raised_for]} times"

    def _pages(self, chart: Chart) -> Iterator[str]:
        tasks = {task.id: task for task in chart.tasks}
        pages = Counter(page.task for page in chart.pages)
        for page in chart.pages:
            task = tasks.get(page.task)
            if pages[page.task] > 1:
                yield "a task was paged for twice"
            if page.state.value in {"queued", "sent", "delivered"}:
                if task is None or not task.stands:
                    yield f"a page is {page.state.value} though its task is {task.state.value if task else 'gone'}"
                elif page.next_at is None or page.next_at <= self.now:
                    yield f"a page is {page.state.value} and nothing will happen to it: {page.next_at}"
        for task in chart.tasks:
            if task.page is not None and task.stands and not pages[task.id]:
                yield f"{task.kind} pages {task.page}, and there is no page"


def _about_death(task: Task) -> bool:
    return task.kind == "care_coordinator_alert" and "dead" in task.reason


def _is_stay(stay: Encounter) -> bool:
    return stay.class_ in _STAYS and stay.status.value in {*_HERE, "finished"}


def _at(moment: Moment | None) -> datetime | None:
    return moment.at if moment is not None else None


def _days(due: dict[str, int]) -> float:
    return (
        due.get("days", 0) + due.get("business_days", 0) * 2.0 + due.get("hours", 0) / 24 + due.get("minutes", 0) / 1440
    )


def _ended(stay: Encounter) -> float:
    at = _at(stay.discharged_at)
    return at.timestamp() if at is not None and stay.status.value == "finished" else float("inf")


def _place(chart: Chart, stay: Encounter) -> tuple[float, float]:
    """Stays count in the order in which the patient came; of those that are over which end later, count later."""
    before = [one for one in chart.encounters if _is_stay(one) and _ended(one) < _ended(stay) < float("inf")]
    return max(_came(one) for one in (stay, *(before if _is_stay(stay) else ()))), _ended(stay)


def _at_one_time(one: Encounter, other: Encounter) -> bool:
    """By more than the hour that it may take to go from one ward to another."""
    return min(_ended(one), _ended(other)) - max(_came(one), _came(other)) > 3600 and _is_stay(other)


def _is_same(one: Encounter, other: Encounter) -> bool:
    both = min(_ended(one), _ended(other)) - max(_came(one), _came(other))
    shorter = min(_ended(one) - _came(one), _ended(other) - _came(other))
    return abs(_ended(one) - _ended(other)) <= 24 * 3600 and both > 0 and 2 * both > shorter


def _came(stay: Encounter) -> float:
    for moment in (stay.admitted_at, stay.discharged_at):
        if moment is not None and moment.at is not None:
            return moment.at.timestamp()
    return float("-inf")
