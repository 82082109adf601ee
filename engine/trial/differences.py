"""What differs between two outcomes of the same message, and by which cause.

A cause is a sentence that many messages share. It holds no patient data: a value is part of it only where `visible`
says that it may be shown (a code, by its path), or as a shift of a time or number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from engine.care.adt.event import Event
from engine.care.event import PatientEvent
from engine.domain.appointment import Appointment
from engine.domain.chart import Chart, Charts
from engine.domain.delivery import ScoreUpsert, TaskUpsert
from engine.domain.ids import ALIKE_DIGITS
from engine.domain.message import EntryState
from engine.domain.moment import Moment
from engine.domain.score import Score
from engine.domain.shapes import plain
from engine.domain.task import Task
from engine.domain.why import MEANINGS, Reason, What, say
from engine.runtime.metrics import OTHER, event_label
from engine.trial.run import Step


class Kind(StrEnum):
    """What a difference is about, in the order in which people should look at them."""

    FAILING = "failing"
    FILTERED = "filtered"
    IDENTITY = "identity"
    MENDED = "mended"
    TAKEN = "taken"
    READ = "read"
    CHART = "chart"
    PLAN = "plan"
    TASK = "task"
    APPOINTMENT = "appointment"
    SCORE = "score"
    HOLD = "hold"
    DEVIATION = "deviation"
    DELIVERY = "delivery"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference. `before` and `after` are plain values, unmasked; none: there is no such thing."""

    kind: Kind
    cause: str
    path: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Side:
    """What one configuration made of a message. charts: as the message left them."""

    step: Step
    charts: Charts


CLEARED: Final = '""'
"""A value that the message takes away, as HL7 writes it."""
_FAILED: Final = frozenset({EntryState.DEAD, EntryState.REFUSED})
_OF_READING: Final = frozenset({"identifiers", "key", "visit_number", "visit_authority", "time_sources"})
"""Fields of a chart that follow from who and what a message is about, which is told by itself."""
_NOTHING_TO_PLAN: Final = frozenset(
    {Reason.NO_PROTOCOL, Reason.NO_VISIT, Reason.NOT_DISCHARGED, Reason.PLAN_SAME, Reason.WITHOUT_EFFECT}
)
"""Reasons for no plan that make no difference to each other."""
_NO_PLAN: Final = ("nothing", None)
_SAID_CHARACTERS_MAX: Final = 40
_SHIFT_MAX: Final = 20
_SHIFT_SECONDS: Final = 900
"""What zones differ by is a multiple of it."""
_TASK_FIELDS: Final = ("state", "due_at", "escalate_at", "assignee", "reason")
_APPOINTMENT_FIELDS: Final = (
    "status",
    "starts_at",
    "ends_at",
    "earliest",
    "latest",
    "service",
    "location",
    "clinician",
)
_SCORE_FIELDS: Final = ("value", "band", "min", "max", "band_max", "missing")


class Comparer:
    """Compares the outcomes of two configurations."""

    def __init__(
        self, before: Mapping[str, Any], after: Mapping[str, Any], visible: Callable[[str, Any], bool]
    ) -> None:
        """before, after: the rules of their field mappings, by target. visible: whether a value may be shown."""
        self._rules = before, after
        self._visible = visible

    def differences(self, before: Side, after: Side) -> list[Difference]:
        """Empty when both say the same."""
        a, b = before.step, after.step
        if a.outcome == b.outcome and a.prepared.events == b.prepared.events:
            return []
        found = list(self._states(before, after))
        if not found:
            found = list(self._readings(a.prepared.events, b.prepared.events))
            named = {one.path for one in found}
            found += [one for one in self._charts(before, after) if one.path not in named]
            notes = a.outcome.deviations, b.outcome.deviations
            found += _named(Kind.DEVIATION, "deviations", *notes, "noted now", "noted no more")
            found += self._plans(before, after)
        found += self._tasks(before, after)
        found += self._appointments(before, after)
        found += self._scores(before, after)
        found += _named(Kind.HOLD, "holds", _holds(a), _holds(b), "a person is asked now", "nobody is asked any more")
        found += _deliveries(before, after)
        return found

    # --- state ---

    def _states(self, before: Side, after: Side) -> Iterator[Difference]:
        was, now = before.step.outcome.state, after.step.outcome.state
        old, new = _error(before.step), _error(after.step)
        if was is now and old == new:
            return
        event = _event_of(after.step)
        if now in _FAILED:
            verb = "dies" if now is EntryState.DEAD else "is refused"
            kind, cause = Kind.FAILING, f"{verb} now: {new}" + (f" (before: {old})" if old else "")
        elif was in _FAILED:
            verb = "dies" if was is EntryState.DEAD else "is refused"
            kind, cause = Kind.MENDED, f"no longer {verb}: {old}"
        elif now is EntryState.FILTERED:
            kind, cause = Kind.FILTERED, f"the filter now drops {event}"
        else:
            kind, cause = Kind.TAKEN, f"the filter no longer drops {event}"
        if was is not now:
            yield Difference(kind, cause, "state", was.value, now.value)
        if old != new:
            yield Difference(kind, cause, "error", old, new)

    # --- what was read ---

    def _readings(self, before: tuple[PatientEvent, ...], after: tuple[PatientEvent, ...]) -> Iterator[Difference]:
        if before == after:
            return
        if not before or not after:
            cause = "the event leaves the charts alone now" if before else "the event concerns a chart now"
            yield Difference(Kind.READ, cause, "events", len(before), len(after))
        elif len(before) != len(after):
            cause = f"{len(after)} patients are read, before {len(before)}"
            yield Difference(Kind.IDENTITY, cause, "events", len(before), len(after))
        for a, b in zip(before, after, strict=False):
            if a != b:
                yield from self._reading(a, b)

    def _reading(self, a: PatientEvent, b: PatientEvent) -> Iterator[Difference]:
        if a.identifiers[0] != b.identifiers[0]:
            place = self._place("patient.identifiers")
            yield Difference(
                Kind.IDENTITY, f"{place} another key of the patient is read", "patient.key",
                a.identifiers[0].key, b.identifiers[0].key,
            )  # fmt: skip
        elif a.identifiers != b.identifiers:
            yield from self._values(Kind.READ, "patient.identifiers", a.identifiers, b.identifiers)
        if isinstance(a, Event) and isinstance(b, Event):
            yield from self._visits(a, b)
        if a.at[0] != b.at[0]:
            yield from self._values(Kind.READ, "event.at", _moment(a.at[0]), _moment(b.at[0]))
        for part in a.__struct_fields__:  # what is said of the patient, the visit, an appointment
            old, new = getattr(a, part), getattr(b, part, None)
            if not isinstance(old, dict) or not isinstance(new, dict):
                continue
            for field in dict.fromkeys((*old, *new)):
                was, now = _spoken(old, field), _spoken(new, field)
                if was != now:
                    yield from self._values(Kind.READ, f"{part}.{field.rstrip('_')}", was, now)

    def _visits(self, a: Event, b: Event) -> Iterator[Difference]:
        if a.visit != b.visit:
            yield from self._values(Kind.READ, "encounter.key", a.visit, b.visit, "encounter.visit_number")
        if a.account != b.account:
            yield from self._values(Kind.READ, "encounter.account", a.account, b.account)
        if a.meaning is not b.meaning:
            cause = f"the event means `{b.meaning}`, before `{a.meaning}`"
            yield Difference(Kind.READ, cause, "event.meaning", a.meaning.value, b.meaning.value)

    def _values(
        self, kind: Kind, path: str, before: Any, after: Any, target: str | None = None
    ) -> Iterator[Difference]:
        """One difference, or one for each field of a value that has several."""
        fields = next((v.__struct_fields__ for v in (before, after) if isinstance(v, msgspec.Struct)), None)
        if fields is not None and all(isinstance(v, msgspec.Struct) or v is None for v in (before, after)):
            for field in fields:
                old, new = getattr(before, field, None), getattr(after, field, None)
                if old != new:
                    yield from self._values(kind, f"{path}.{field}", old, new, target or path)
            return
        before, after = plain(before), plain(after)
        yield Difference(kind, self._cause(kind, path, before, after, target or path), path, before, after)

    def _cause(self, kind: Kind, path: str, before: Any, after: Any, target: str) -> str:
        read = "read as" if kind is Kind.READ else ""
        place = self._place(target) if kind is Kind.READ else ""
        name = f"{place} ({path})" if place else path
        if kind is Kind.READ and self._source(target, 0) != self._source(target, 1):
            name = f"{self._place(target)} now, not {_first(self._source(target, 0))} ({path})"
        shift = _shift(before, after)
        if shift is not None:
            return f"{name} {'is read ' if read else ''}{shift}"
        if self._may_say(path, before) and self._may_say(path, after):
            return f"{name} {_quoted(before)} now {read} {_quoted(after)}".replace("  ", " ")
        if after is None or after == CLEARED:
            return f"{name} is {'read' if read else 'there'} no more"
        if before is None or before == CLEARED:
            return f"{name} is {'read' if read else 'there'} now, before it was not"
        return f"{name} is {'read otherwise' if read else 'other'}"

    def _may_say(self, path: str, value: Any) -> bool:
        """Whether a value can be part of a cause: it may be shown, and many messages may share it."""
        if value is None or value == CLEARED:
            return True
        short = isinstance(value, bool) or (isinstance(value, str) and len(value) <= _SAID_CHARACTERS_MAX)
        return short and not _is_timed(value) and self._visible(path, value)

    def _source(self, target: str, side: int) -> str:
        return source(self._rules[side].get(target))

    def _place(self, target: str) -> str:
        """`PV1-36`, the first place from which the candidate reads a target."""
        return _first(self._source(target, 1) or self._source(target, 0))

    # --- charts ---

    def _charts(self, before: Side, after: Side) -> Iterator[Difference]:
        old, new = before.step.outcome.chart_id, after.step.outcome.chart_id
        if not _same_patient(old, new):
            yield Difference(Kind.IDENTITY, "the message goes to another patient's chart", "chart", old, new)
            return
        for mine, theirs in _changed_charts(before, after):
            a, b = before.charts.by_id.get(mine), after.charts.by_id.get(theirs)
            if a is None or b is None:
                cause = f"a chart is {'new' if a is None else 'not there'}"
                yield Difference(Kind.CHART, cause, "chart", a and a.id, b and b.id)
                continue
            if (a.merged_into is None) is not (b.merged_into is None):
                cause = f"a merge {'now' if b.merged_into else 'no longer'} takes place"
                yield Difference(Kind.IDENTITY, cause, "chart.merged_into", a.merged_into, b.merged_into)
                continue
            touched = _touched(before, mine) | _touched(after, theirs)
            for key, field in sorted(touched, key=str):
                was, now = _part(a, key), _part(b, key)
                part = "patient" if key is None else "encounter"
                if was is None or now is None:
                    if was is not now:
                        cause = f"a stay is {'new' if was is None else 'not there'}"
                        yield Difference(Kind.CHART, cause, "encounter", _status(was), _status(now))
                elif field and getattr(was, field) != getattr(now, field):
                    path = f"{part}.{field.rstrip('_')}"
                    yield from self._values(Kind.CHART, path, getattr(was, field), getattr(now, field))

    # --- what followed ---

    def _plans(self, before: Side, after: Side) -> Iterator[Difference]:
        a, b = _plan(before.step), _plan(after.step)
        for name in dict.fromkeys((*a, *b)):
            old, new = a.get(name, _NO_PLAN), b.get(name, _NO_PLAN)
            if old[0] != new[0]:
                cause = f"plan{name and f' {name}'}: {new[0]}, before {old[0]}"
                yield Difference(Kind.PLAN, cause, "plan", old[1], new[1])

    def _tasks(self, before: Side, after: Side) -> Iterator[Difference]:
        touched = _changed_tasks(before.step) | _changed_tasks(after.step)
        if not touched:
            return
        for a, b in _paired(_tasks(before), _tasks(after)):
            task = a or b
            if task is None or not touched & {one.id for one in (a, b) if one is not None}:
                continue
            path = f"tasks.{task.kind}"
            if a is None or b is None:
                cause = f"task {task.kind} is {'new' if a is None else 'not there'}"
                yield Difference(Kind.TASK, cause, path, a and a.state.value, b and b.state.value)
            else:
                yield from self._fields(Kind.TASK, f"task {task.kind}", path, a, b, _TASK_FIELDS)

    def _appointments(self, before: Side, after: Side) -> Iterator[Difference]:
        if not any(chart.appointments for side in (before, after) for chart in side.step.outcome.charts):
            return
        old, new = _appointments(before), _appointments(after)
        for id_ in dict.fromkeys((*old, *new)):
            a, b = old.get(id_), new.get(id_)
            if a is not None and b is not None:
                yield from self._fields(Kind.APPOINTMENT, "appointment", "appointments", a, b, _APPOINTMENT_FIELDS)
            elif a is not b:
                cause = f"an appointment is {'new' if a is None else 'not there'}"
                yield Difference(Kind.APPOINTMENT, cause, "appointments", a and a.status.value, b and b.status.value)

    def _scores(self, before: Side, after: Side) -> Iterator[Difference]:
        touched = dict.fromkeys((*_scores(before, changed=True), *_scores(after, changed=True)))
        if not touched:
            return
        old, new = _scores(before), _scores(after)
        for key in touched:
            a, b = old.get(key), new.get(key)
            path = f"scores.{key[1]}"
            if a is None or b is None:
                if a is not b:
                    cause = f"score {key[1]} is {'new' if a is None else 'not there'}"
                    yield Difference(Kind.SCORE, cause, path, a and a.band.value, b and b.band.value)
                continue
            yield from self._fields(Kind.SCORE, f"score {key[1]}", path, a, b, _SCORE_FIELDS)

    def _fields(
        self, kind: Kind, what: str, path: str, a: msgspec.Struct, b: msgspec.Struct, fields: tuple[str, ...]
    ) -> Iterator[Difference]:
        for field in fields:
            old, new = plain(getattr(a, field)), plain(getattr(b, field))
            if old == new:
                continue
            shown = self._may_say(f"{path}.{field}", old) and self._may_say(f"{path}.{field}", new)
            said = _shift(old, new) or (f"{_quoted(old)} now {_quoted(new)}" if shown else "is other")
            yield Difference(kind, f"{what} {field} {said}", f"{path}.{field}", old, new)


# --- field mappings --------------------------------------------------------------------------------------------------


def source(rule: Any) -> str:
    """From which places a rule of a field mapping reads: `PV1-36`, `PD1-4, PV1-52`; empty: that can't be told."""
    if isinstance(rule, str):
        return rule
    if isinstance(rule, list):
        return ", ".join(filter(None, map(source, rule)))
    if isinstance(rule, dict):
        return source(next((rule[key] for key in ("from", "first_of", "path", "each") if key in rule), None))
    return ""


_PLACE: Final = re.compile(r"\b([A-Z][A-Z0-9]{2})(?:\[[^\]]*\])?-(\d+)")
_OF_CODES: Final[Mapping[str, frozenset[int]]] = {
    "PID": frozenset({8, 10, 15, 16, 17, 22, 30}),
    "PD1": frozenset({1, 2}),
    "PV1": frozenset({1, 2, 3, 4, 6, 10, 11, 13, 14, 15, 16, 18, 20, 36, 37, 40, 41, 42, 43, 44, 45, 51}),
    "PV2": frozenset({1, 2, 4, 22, 23, 24, 25, 27, 30, 38}),
    "DG1": frozenset({1, 2, 3, 5, 6, 15, 17}),
    "PR1": frozenset({1, 2, 3, 5, 6, 16}),
    "ZBE": frozenset({2, 4, 5, 6}),
    "EVN": frozenset({1, 2, 3, 4, 6}),
    "MSH": frozenset({7, 9, 11, 12}),
}
"""Segments and fields that hold codes and times, in HL7's structures; a name or a number may stand in any other."""


def telling(before: Mapping[str, Any], after: Mapping[str, Any], visible: Callable[[str, Any], bool]) -> list[str]:
    """What would be shown, and is read by one side only from where a name or number may stand: `PID-5 (patient.sex)`.

    before, after: rules of field mappings, by target. A site's own mapping in force is trusted; a candidate may err.
    """
    found: list[str] = []
    for target in sorted({*before, *after}):
        if not visible(target, "A"):
            continue
        new = set(_PLACE.findall(str(after.get(target)))) - set(_PLACE.findall(str(before.get(target))))
        found += [f"{name}-{number} ({target})" for name, number in sorted(new) if not _is_of_codes(name, int(number))]
    return found


def _is_of_codes(segment: str, field: int) -> bool:
    return field in _OF_CODES.get(segment, frozenset())


def _first(places: str) -> str:
    return places.partition(",")[0]


# --- parts -----------------------------------------------------------------------------------------------------------


def _error(step: Step) -> str | None:
    letter = step.outcome.dead_letter
    if letter is None:
        return None
    at = f" at {letter.location}" if letter.location else ""
    return f"{letter.error}{at}: {letter.detail}"


def _event_of(step: Step) -> str:
    """`A08`: never more than a known event, in a message that is garbage anything may stand there."""
    label = event_label((step.prepared.entry.summary.type or "").partition("^")[2].partition("^")[0])
    return "other events" if label == OTHER else label


def _spoken(said: Mapping[str, Any], field: str) -> Any:
    """none: nothing was said of it."""
    if field not in said:
        return None
    return CLEARED if said[field] is None else said[field]


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _holds(step: Step) -> tuple[str, ...]:
    return tuple(hold.key for hold in step.outcome.holds)


def _plan(step: Step) -> dict[str, tuple[str, str | None]]:
    """Protocol (empty: the channel's) -> the word and the sentence of what was said last of its plan."""
    return {
        why.name: (MEANINGS[why.reason].word, say(why).reason)
        for why in step.outcome.why
        if why.what is What.PLAN and why.reason not in _NOTHING_TO_PLAN
    }


def _same_patient(old: str | None, new: str | None) -> bool:
    """Whether two ids are of charts of the same patient, though another message may have created them."""
    return old == new or (old is not None and new is not None and old[ALIKE_DIGITS:] == new[ALIKE_DIGITS:])


def _changed_charts(before: Side, after: Side) -> dict[tuple[str, str], None]:
    """Ids of the charts that the message changed on either side: as each of them calls it."""
    about = before.step.outcome.chart_id, after.step.outcome.chart_id
    found: dict[tuple[str, str], None] = {}
    for number, side in enumerate((before, after)):
        for chart in side.step.outcome.charts:
            both = about if chart.id == about[number] else (chart.id, chart.id)
            found[both[0] or chart.id, both[1] or chart.id] = None
    return found


def _touched(side: Side, chart_id: str) -> set[tuple[str | None, str]]:
    """Fields that the message changed: the key of the stay (none: of the patient) and the field; empty: a new stay."""
    after, before = side.charts.by_id.get(chart_id), side.step.before.get(chart_id)
    if after is None or chart_id not in side.step.before:
        return set()
    found: set[tuple[str | None, str]] = {
        (None, field)
        for field in after.patient.__struct_fields__
        if field not in _OF_READING
        and getattr(after.patient, field) != getattr(before.patient if before else after.patient, field)
    }
    for stay in after.encounters:
        old = before.encounter(stay.key) if before is not None else None
        if old is None:
            found.add((stay.key, ""))
            found |= {(stay.key, field) for field in stay.__struct_fields__ if field not in _OF_READING}
        elif old is not stay:
            found |= {
                (stay.key, field)
                for field in stay.__struct_fields__
                if field not in _OF_READING and getattr(stay, field) != getattr(old, field)
            }
    return found


def _part(chart: Chart, key: str | None) -> Any:
    return chart.patient if key is None else chart.encounter(key)


def _status(stay: Any) -> str | None:
    return stay.status.value if stay is not None else None


def _changed_tasks(step: Step) -> set[str]:
    """Ids of the tasks that the message made or changed."""
    known = {task.id: task for chart in step.before.values() if chart is not None for task in chart.tasks}
    return {task.id for chart in step.outcome.charts for task in chart.tasks if known.get(task.id) != task}


def _tasks(side: Side) -> list[Task]:
    return [task for chart in (*_of(side, changed=True), *_of(side, changed=False)) for task in chart.tasks]


def _paired(old: list[Task], new: list[Task]) -> Iterator[tuple[Task | None, Task | None]]:
    """Tasks that stand for the same: by their ids; where protocols of different names made them, by stay, discharge,
    kind and reason, then by all of that but the reason.
    """
    keys: tuple[Callable[[Task], object], ...] = (
        lambda task: task.id,
        lambda task: (task.encounter, task.discharge, task.kind, task.reason),
        lambda task: (task.encounter, task.discharge, task.kind),
    )
    left, right = {task.id: task for task in old}, {task.id: task for task in new}
    for key in keys:
        known = {key(task): task for task in right.values()}
        for task in list(left.values()):
            other = known.get(key(task))
            if other is not None and (other.id == task.id or other.protocol != task.protocol):
                del known[key(task)]
                del left[task.id], right[other.id]
                yield task, other
    yield from ((task, None) for task in left.values())
    yield from ((None, task) for task in right.values())


def _appointments(side: Side) -> dict[str, Appointment]:
    """Those that the message made or changed, by id."""
    was = {one.id: one for chart in side.step.before.values() if chart is not None for one in chart.appointments}
    return {one.id: one for chart in _of(side, changed=True) for one in chart.appointments if was.get(one.id) != one}


def _scores(side: Side, *, changed: bool = False) -> dict[tuple[str | None, str], Score]:
    """By stay and model."""
    found: dict[tuple[str | None, str], Score] = {}
    for chart in _of(side, changed=changed):
        old = side.step.before.get(chart.id) if changed else None
        same = {(one.encounter, one.model): one for one in old.scores} if old is not None else {}
        for one in chart.scores:
            if same.get((one.encounter, one.model)) != one:
                found[one.encounter, one.model] = one
    return found


def _of(side: Side, *, changed: bool) -> tuple[Chart, ...]:
    """The charts that the message changed, else the one that it is about."""
    if changed:
        return side.step.outcome.charts
    chart = side.charts.living(side.step.outcome.chart_id)
    if chart is None and side.step.prepared.patient is not None:
        chart = side.charts.find(side.step.prepared.patient)
    return (chart,) if chart is not None else ()


def _named(
    kind: Kind, path: str, before: tuple[str, ...], after: tuple[str, ...], new: str, gone: str
) -> Iterator[Difference]:
    for name in after:
        if name not in before:
            yield Difference(kind, f"{new}: {name}", path, None, name)
    for name in before:
        if name not in after:
            yield Difference(kind, f"{gone}: {name}", path, name, None)


def _deliveries(before: Side, after: Side) -> Iterator[Difference]:
    a, b = _sent(before.step), _sent(after.step)
    for key in dict.fromkeys((*a, *b)):
        old, new = a.get(key), b.get(key)
        if old == new:
            continue
        destination, operation = key[:2]
        said = "is new" if old is None else "is not there" if new is None else "has other content"
        cause = f"delivery {operation} to {destination} {said}"
        path = f"deliveries.{destination}.{operation}"
        yield Difference(kind=Kind.DELIVERY, cause=cause, path=path, before=old and "sent",
                         after=new and ("sent" if old is None else "sent otherwise"))  # fmt: skip


def _sent(step: Step) -> dict[tuple[Any, ...], object]:
    """Destination, operation and object -> what is said of it."""
    found: dict[tuple[Any, ...], object] = {}
    for delivery in step.outcome.deliveries:
        content = delivery.content
        about: tuple[object, ...] = content.about
        if isinstance(content, TaskUpsert):
            task = content.task
            about = (task.encounter, task.discharge, task.kind, task.reason)
            content = msgspec.structs.replace(content, task=msgspec.structs.replace(task, id="", protocol=""))
        elif isinstance(content, ScoreUpsert):
            content = msgspec.structs.replace(content, score=msgspec.structs.replace(content.score, version=""))
        found[delivery.destination, delivery.operation.value, *about] = content
    return found


def _quoted(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "nothing"
    return f"`{value}`"


def _shift(before: Any, after: Any) -> str | None:
    """`+2`, `5 h later`; none: they are not two numbers or two times.

    Only shifts that many messages may share are said exactly.
    """
    if isinstance(before, bool) or isinstance(after, bool):
        return None
    if isinstance(before, int | float) and isinstance(after, int | float):
        much = abs(after - before) > _SHIFT_MAX
        return f"{after - before:+g}" if not much else "is higher" if after > before else "is lower"
    first, second = Moment.read(before), Moment.read(after)
    if first is None or second is None or not (first.timed and second.timed):
        return None
    seconds = second.seconds - first.seconds
    if seconds == 0:
        return "in another notation"
    exact = f"{abs(seconds) / 3600:g} h " if seconds % _SHIFT_SECONDS == 0 else ""
    return exact + ("later" if seconds > 0 else "earlier")


def _is_timed(value: Any) -> bool:
    time = Moment.read(value)
    return time is not None and time.timed
