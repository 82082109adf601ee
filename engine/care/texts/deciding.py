"""Which texts a discharge calls for, when each may go, and why one does not. Pure.

A text is decided on twice: when it is planned, and again when its time has come. What is asked then, in this order:

| asked | if not |
|---|---|
| is it of use still | withheld: `too_late`, or what it has waited for (`quiet_hours`, `cap_day`, `cap_week`, `hold`) |
| is it certain that the patient lives | it waits: `hold` |
| is there a mobile number | withheld: `no_address` |
| has the patient agreed to be written to there | withheld: `no_consent`, `opted_out` |
| is it the first of its kind that day | withheld: `duplicate` |
| is there something to put into each of its fields | it waits for a visit to be booked |
| was not enough written to the patient this day, this week | it waits: `cap_day`, `cap_week` |
| is it day where the patient lives | it waits: `quiet_hours` |

What it waits for comes after the end of its use: it is withheld at once, for that reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol
from zoneinfo import ZoneInfo

from engine.care.texts.consent import ConsentState, standing
from engine.domain.appointment import Appointment, AppointmentStatus
from engine.domain.chart import Chart
from engine.domain.encounter import Encounter
from engine.domain.text import Question, Text, TextState

VISIT_DAYS_MAX: Final = 60
"""A text speaks of visits that are no longer after the discharge."""
_WEEK: Final = timedelta(days=7)
_DAY: Final = timedelta(days=1)

COUNTED: Final = frozenset(
    {TextState.QUEUED, TextState.SENT, TextState.DELIVERED, TextState.REPLIED, TextState.EXPIRED}
)
"""What a patient was written, or is about to be: caps count it."""


def counts(text: Text) -> bool:
    """Whether a text is one that the patient was written, or is about to be, without having asked."""
    return text.state in COUNTED and text.answer_to is None


class Step(Protocol):
    """What is asked of a step of a series (`engine.care.texts.series`)."""

    @property
    def name(self) -> str: ...
    @property
    def on(self) -> str: ...
    @property
    def of(self) -> tuple[str, ...]: ...
    @property
    def useful(self) -> timedelta: ...
    @property
    def question(self) -> Question | None: ...


class Rendered(Protocol):
    @property
    def body(self) -> str: ...
    @property
    def language(self) -> str: ...
    @property
    def segments(self) -> int: ...
    @property
    def missing(self) -> tuple[str, ...]: ...


class Series(Protocol):
    """What is asked of a series."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def purpose(self) -> str: ...
    @property
    def channel(self) -> str: ...
    @property
    def steps(self) -> Sequence[Step]: ...
    @property
    def hold(self) -> timedelta: ...
    @property
    def cap_a_day(self) -> int: ...
    @property
    def cap_a_week(self) -> int: ...
    def planned_for(
        self, step: Any, *, discharged_at: datetime, appointment_at: datetime | None, zone: ZoneInfo
    ) -> datetime: ...
    def render(self, step: str, language: str | None, fields: Mapping[str, str], *, first: bool = ...) -> Rendered: ...


# --- what a discharge calls for


class Wanted(NamedTuple):
    """A text that a discharge calls for."""

    id: str
    step: Step
    appointment: str | None
    planned_for: datetime
    useful_until: datetime


def wanted(
    chart: Chart, stay: Encounter, series: Series, discharged_at: datetime, zone: ZoneInfo, key: Callable[..., str]
) -> Iterator[Wanted]:
    """The texts of a series after the last discharge of a stay.

    key: a keyed hash, so that ids tell nothing and are the same in every replay. A text about a visit is known by the
    visit's time: a visit that is moved has another text, and two entries of one visit have one.
    """
    for step in series.steps:
        if step.on != "appointment":
            id_ = key("text", stay.key, str(stay.discharges), series.name, step.name)
            at = series.planned_for(step, discharged_at=discharged_at, appointment_at=None, zone=zone)
            yield Wanted(id_, step, None, at, at + step.useful)
            continue
        seen: set[datetime] = set()
        for visit in visits(chart, stay, step.of, discharged_at):
            starts_at = _starts_at(visit)
            if starts_at is None or starts_at in seen:
                continue
            seen.add(starts_at)
            id_ = key("text", stay.key, str(stay.discharges), series.name, step.name, starts_at.isoformat())
            at = series.planned_for(step, discharged_at=discharged_at, appointment_at=starts_at, zone=zone)
            yield Wanted(id_, step, visit.id, at, min(at + step.useful, starts_at, _end_of_day(at, zone)))


def _end_of_day(at: datetime, zone: ZoneInfo) -> datetime:
    """A text about a visit speaks of its own day: the day after, `your visit is tomorrow` is wrong."""
    tomorrow = at.astimezone(zone).date() + _DAY
    return datetime.combine(tomorrow, datetime.min.time(), zone).astimezone(UTC)


def visits(chart: Chart, stay: Encounter, kinds: Sequence[str], since: datetime) -> list[Appointment]:
    """The visits that are booked after a discharge and that a text may speak of, the next one first.

    kinds: of the stay's follow-up tasks that they are for; none: of any, or of none.
    """
    tasks = {task.id: task.kind for task in chart.tasks if task.encounter == stay.key}
    found: list[tuple[datetime, str, Appointment]] = []
    for one in chart.appointments:
        if one.status is not AppointmentStatus.BOOKED or one.replaced_by is not None:
            continue
        starts_at = _starts_at(one)
        if starts_at is None or not since < starts_at <= since + timedelta(days=VISIT_DAYS_MAX):
            continue
        if not kinds or tasks.get(one.task or "") in kinds:
            found.append((starts_at, one.id, one))
    found.sort(key=lambda one: (one[0].timestamp(), one[1]))
    return [visit for _, _, visit in found]


def _starts_at(visit: Appointment) -> datetime | None:
    """A visit without a time of day is none that a text can speak of."""
    start = visit.starts_at
    return start.at if start is not None and start.timed else None


# --- whether it may go


class Go(NamedTuple):
    number: str
    rendered: Rendered
    until: datetime
    """The end of the hours in which it may go, or of its use."""


class Later(NamedTuple):
    """It is decided again then, or when something of the chart has changed. at: none: at the end of its use."""

    at: datetime | None
    reason: str | None
    detail: str | None = None


class Never(NamedTuple):
    """A word of the closed list, and what belongs to it as a code."""

    reason: str
    detail: str | None = None


Verdict = Go | Later | Never

WAITED_FOR: Final = frozenset({"quiet_hours", "cap_day", "cap_week", "hold"})
"""Why a text waits, and why it was withheld when that has taken too long."""


class Addressed(NamedTuple):
    """Where a patient is written to; number: none: nowhere, and why."""

    number: str | None
    reason: str = ""
    detail: str | None = None


class Window(Protocol):
    def __call__(self, at: datetime) -> tuple[datetime, datetime]:
        """The hours in which patients may be written to that hold a moment, else the next ones."""


NOT_THEIRS: Final = "registration"
"""`ContactConsent.how` of a number that is not the patient's any more: nobody has said stop."""


def refused(chart: Chart, purpose: str, channel: str, number: str) -> str | None:
    """Why a patient may not be written to at a number, as a word of the reasons; none: they have agreed to it."""
    said = standing(chart, purpose, channel, number)
    if said.state is ConsentState.GIVEN:
        return None
    out = said.statement is not None and said.statement.how != NOT_THEIRS
    return "opted_out" if out else "no_consent"


def address(chart: Chart, purpose: str, channel: str, parse: Callable[[str], tuple[str | None, str]]) -> Addressed:
    """The number of the patient to which they have agreed to be written to: one that the chart has now.

    parse: a phone of the chart -> its number (E.164; none: nothing can be sent there), and what it is (`mobile`,
    `landline`, or what is wrong with it).
    """
    why: str = "no_address"
    detail: str | None = "no-number"
    for phone in chart.patient.phones:
        number, kind = parse(phone)
        if number is None:
            detail = kind if why == "no_address" else detail
            continue
        refusal = refused(chart, purpose, channel, number)
        if refusal is None:
            return Addressed(number)
        if why != "opted_out":
            why, detail = refusal, None
    return Addressed(None, why, detail)


class Asked(NamedTuple):
    """What a text is decided by, besides the chart."""

    now: datetime
    zone: ZoneInfo
    window: Window
    parse: Callable[[str], tuple[str | None, str]]
    series: Series | None
    """That of the text, as it was planned; none: nobody knows it any more."""
    fields: Callable[[Text, Step, datetime], Mapping[str, str]]
    """What can be put into the fields of a step's words."""


def decide(chart: Chart, text: Text, asked: Asked) -> Verdict:
    """Whether a text whose time has come may go."""
    now = asked.now
    if now >= text.useful_until:
        return Never(text.reason if text.reason in WAITED_FOR else "too_late", text.detail)
    if chart.death_stated.in_doubt:
        return Later(None, "hold")
    to = address(chart, text.purpose, text.channel, asked.parse)
    if to.number is None:
        return Never(to.reason, to.detail)
    series = asked.series
    step = next((one for one in series.steps if one.name == text.step), None) if series is not None else None
    if series is None or step is None:
        return Never("superseded", "series_unknown")
    first = not any(one.number == to.number and counts(one) for one in chart.texts)
    rendered = series.render(step.name, chart.patient.language, asked.fields(text, step, now), first=first)
    if rendered.missing:
        return Later(None, None, f"empty: {', '.join(rendered.missing)}")
    if _is_repeated(chart, text, now, asked.zone, rendered.body):
        return Never("duplicate")
    if (at := _free_at(chart, text, series, asked)) is not None:
        return _later(text, *at, asked)
    begins, ends = asked.window(now)
    if begins > now:
        return _later(text, begins, "quiet_hours", asked)
    return Go(to.number, rendered, min(ends, text.useful_until))


def _later(text: Text, at: datetime, reason: str, asked: Asked) -> Verdict:
    """It waits until then, and for the morning; when that is too long, it is withheld now."""
    at = max(at, asked.window(at)[0])
    return Later(at, reason) if at < text.useful_until else Never(reason)


def _is_repeated(chart: Chart, text: Text, now: datetime, zone: ZoneInfo, body: str) -> bool:
    """Whether the same was written this day: of another stay, of the discharge before, of another series."""
    today = now.astimezone(zone).date()
    about = text.appointment
    return any(
        one.id != text.id
        and (one.body == body or (one.step == text.step and (about is None or one.appointment == about)))
        and counts(one)
        and one.queued_at is not None
        and one.queued_at.astimezone(zone).date() == today
        for one in chart.texts
    )


def _free_at(chart: Chart, text: Text, series: Series, asked: Asked) -> tuple[datetime, str] | None:
    """When the caps let a text go, and which of them does not now; none: they do."""
    now, zone = asked.now, asked.zone
    written = sorted(
        one.queued_at for one in chart.texts
        if one.id != text.id and counts(one) and one.queued_at is not None and one.queued_at > now - _WEEK
    )  # fmt: skip
    if len(written) >= series.cap_a_week:
        return written[-series.cap_a_week] + _WEEK, "cap_week"
    today = now.astimezone(zone).date()
    if sum(one.astimezone(zone).date() == today for one in written) >= series.cap_a_day:
        tomorrow = datetime.combine(today + _DAY, datetime.min.time(), zone)
        return tomorrow, "cap_day"
    return None
