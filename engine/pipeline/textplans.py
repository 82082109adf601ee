"""Which texts the series of a running plan expects of a chart (`follow_texts`).

Each is an item of the chart from the plan on, so that one that did not go has its reason. What happens to it when its
time has come is said by `engine.pipeline.texts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import structs

from engine.care.plausible import ended_at
from engine.care.texts.deciding import Addressed, Series, Wanted, wanted
from engine.domain.chart import Chart
from engine.domain.delivery import Operation
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.text import AHEAD, GONE_OUT, Text, TextState
from engine.domain.why import MEANINGS
from engine.pipeline.plan import decided_by, disposition_of, later_stays
from engine.pipeline.rule import Deciding
from engine.pipeline.texts import SOON, address_of, fields_of, withheld, zone_of_patient

if TYPE_CHECKING:
    from engine.pipeline.channel import CompiledChannel, Planner


def follow_texts(before: Chart | None, chart: Chart, deciding: Deciding) -> Chart:
    """A follower of `engine.pipeline.follow`, the last one. before: with those that have been merged into it."""
    channel = deciding.channel
    if channel is None or (not chart.texts and not _plans_texts(channel)) or _is_same(before, chart):
        return chart
    texts = _Following(before, chart, channel, deciding.now).texts()
    return chart if texts == chart.texts else structs.replace(chart, texts=texts)


def _plans_texts(channel: CompiledChannel) -> bool:
    return Operation.SEND_TEXT.what in channel.settings.takers


_DECIDING: Final = (
    "patient", "death_stated", "encounters", "scores", "tasks", "appointments", "contact_consents", "texts",
)  # fmt: skip
"""Fields of a chart that decide on texts."""


def _is_same(before: Chart | None, chart: Chart) -> bool:
    return before is not None and all(getattr(before, name) is getattr(chart, name) for name in _DECIDING)


class Called(NamedTuple):
    """What a discharge calls for. series: none: no texts, and why not, as a word of the closed list."""

    series: Series | None
    reason: str = ""


class _Following:
    """What the texts of a chart are, after something has changed."""

    def __init__(self, before: Chart | None, chart: Chart, channel: CompiledChannel, now: datetime) -> None:
        self._chart = chart
        self._channel = channel
        self._now = now
        self._known = {text.id for text in before.texts} if before is not None else frozenset[str]()
        self._by_stay: dict[str | None, list[Text]] = {}
        for text in chart.texts:
            self._by_stay.setdefault(text.encounter, []).append(text)
        self._moved_on = before is None or any(
            getattr(before, name) is not getattr(chart, name)
            for name in ("patient", "death_stated", "encounters", "appointments", "contact_consents")
        )
        """What texts wait for may have come."""

    def texts(self) -> tuple[Text, ...]:
        chart = self._chart
        if chart.patient.deceased is True and not chart.death_stated.in_doubt:
            return tuple(self._taken_back(text, "deceased") for text in chart.texts)
        found = {text.id: text for text in chart.texts}
        waits_for = None
        for stay in chart.encounters:
            own = self._by_stay.get(stay.key, [])
            if not own and not self._may_call_for(stay):
                continue
            waits_for = waits_for or later_stays(chart, self._channel.zone)
            for text in self._of_stay(stay, own, waits=waits_for(stay) is not None):
                found[text.id] = text
        return tuple(found.values())

    def _may_call_for(self, stay: Encounter) -> bool:
        """Whether a stay without texts may get some: not one that ended long ago."""
        if stay.discharges == 0 or stay.status is not EncounterStatus.FINISHED or not _plans_texts(self._channel):
            return False
        ended = ended_at(stay, self._channel.calendar.zone)
        return ended is not None and ended > self._now - _OLD

    def _of_stay(self, stay: Encounter, own: list[Text], *, waits: bool) -> Iterator[Text]:
        called = called_for(self._chart, stay, own, self._channel, self._now, waits=waits)
        wants: dict[str, Wanted] = {}
        if called.series is not None:
            wants = {one.id: one for one in _wanted(self._chart, stay, called.series, self._channel)}
            new = wants.keys() - {text.id for text in own}
            if new and not own and not _plans_texts(self._channel):
                new = set()
            for id_ in wants:
                if id_ in new:
                    yield self._planned(stay, called.series, wants[id_])
        for text in own:
            want = wants.get(text.id)
            if want is None:
                yield self._taken_back(text, called.reason or self._why_not(text))
            elif called.series is not None:
                yield self._as_wanted(text, want, called.series)

    def _planned(self, stay: Encounter, series: Series, want: Wanted) -> Text:
        text = Text(
            id=want.id,
            series=series.name,
            series_version=series.version,
            series_digest=series.digest,
            step=want.step.name,
            purpose=series.purpose,
            channel=series.channel,
            encounter=stay.key,
            discharge=stay.discharges,
            appointment=want.appointment,
            planned_for=want.planned_for,
            due_at=None,
            useful_until=want.useful_until,
            question=want.step.question,
            destination=self._channel.texter,
        )
        return self._again(text, series.hold)

    def _again(self, text: Text, hold: timedelta) -> Text:
        """Planned, as if it had never been; what is of no use any more is too late."""
        if text.useful_until <= self._now:
            return structs.replace(
                text, state=TextState.WITHHELD, reason="too_late", detail=None, due_at=None, ended_at=self._now
            )
        due_at = None if text.awaits else max(text.planned_for, self._now + hold)
        return structs.replace(text, state=TextState.PLANNED, reason=None, detail=None, due_at=due_at, ended_at=None)

    def _taken_back(self, text: Text, reason: str) -> Text:
        if text.state not in AHEAD:
            return text
        return structs.replace(
            text, state=TextState.RETRACTED, reason=reason, detail=None, due_at=None, ended_at=self._now
        )

    def _why_not(self, text: Text) -> str:
        """Why a text of a series that goes on is not called for: its visit is another one, or another series is."""
        visit = next((one for one in self._chart.appointments if one.id == text.appointment), None)
        gone = visit is not None and visit.replaced_by is None and visit.status.value in _CALLED_OFF
        return "reversed" if gone else "superseded"

    def _as_wanted(self, text: Text, want: Wanted, series: Series) -> Text:
        moved = (text.planned_for, text.useful_until) != (want.planned_for, want.useful_until)
        if text.state in GONE_OUT:
            return text
        if moved:
            text = structs.replace(text, planned_for=want.planned_for, useful_until=want.useful_until)
        if text.state is not TextState.QUEUED and want.appointment is not None:
            text = structs.replace(text, appointment=want.appointment)
        match text.state:
            case TextState.RETRACTED:
                return self._again(text, series.hold)
            case TextState.WITHHELD:
                back = text.reason in _MAY_COME and self._moved_on and self._address(text).number is not None
                later = moved and text.reason in _IN_TIME
                return self._again(text, timedelta()) if (back or later) and text.useful_until > self._now else text
            case TextState.QUEUED:
                return self._queued(text, series)
        return self._waiting(text, series, moved=moved)

    def _waiting(self, text: Text, series: Series, *, moved: bool) -> Text:
        to = self._address(text) if self._chart.contact_consents else None
        if to is not None and to.number is None and to.reason == "opted_out":
            return withheld(text, to.reason, to.detail, self._now)
        if moved:
            return self._again(text, series.hold)
        if text.due_at is None and not text.awaits and self._moved_on:
            return structs.replace(text, due_at=max(text.planned_for, self._now))
        return text

    def _queued(self, text: Text, series: Series) -> Text:
        """One in the outbox stands as long as it would be the same today.

        If not, it is planned again as soon as it is heard that it did not go.
        """
        if text.id not in self._known:  # it came with a stay of another patient, to whom it was written
            return structs.replace(text, state=TextState.PLANNED, reason=None, awaits=False, due_at=self._now + SOON)
        if not self._moved_on or text.reason == "hold":
            return text
        to = self._address(text)
        if to.number is None:
            return withheld(text, to.reason, to.detail, self._now)
        step = next((one for one in series.steps if one.name == text.step), None)
        if to.number == text.number and step is not None:
            fields = fields_of(self._chart, self._channel, text, step, text.queued_at or self._now)
            language = self._chart.patient.language
            bodies = {series.render(step.name, language, fields, first=first).body for first in (False, True)}
            if text.body in bodies:
                return text
        return structs.replace(text, state=TextState.PLANNED, reason=None, due_at=None)

    def _address(self, text: Text) -> Addressed:
        return address_of(self._chart, text, self._channel)


_OLD: Final = timedelta(days=60)
"""A stay that ended longer ago gets no texts."""
_MAY_COME: Final = frozenset({"no_consent", "opted_out", "no_address"})
"""Why a text was withheld that goes when the patient agrees, or has a number, while it is of use."""
_IN_TIME: Final = frozenset({"too_late", "quiet_hours", "cap_day", "cap_week"})
"""Why a text was withheld that is planned again when its time is moved."""
_CALLED_OFF: Final = frozenset({"cancelled", "entered_in_error"})


def called_for(
    chart: Chart, stay: Encounter, own: Iterable[Text], channel: CompiledChannel, now: datetime, *, waits: bool
) -> Called:
    """The series of texts after the last discharge of a stay. own: its texts so far: they go on as they were planned.

    waits: the patient has come back, and the plan waits.
    """
    if stay.status is not EncounterStatus.FINISHED:
        return Called(None, "reversed")
    if stay.discharges == 0:
        return Called(None, "reversed")
    planner = _planner(chart, stay, channel)
    if planner is None:
        return Called(None, "no_protocol")
    found = planner.protocol.withholds(
        chart, stay, disposition_of(channel, stay), now, calendar=channel.calendar, key=channel.key
    )
    if found is not None:
        return Called(None, MEANINGS[found[0]].word)
    if waits:
        return Called(None, "superseded")
    band, asks = decided_by(chart, stay, planner, channel, now)
    disposition = disposition_of(channel, stay)
    name, why = planner.protocol.texts_after(chart, stay, disposition=disposition, band=band, now=now, asks=asks)
    if name is None:
        return Called(None, why)
    digest = next((one.series_digest for one in own if one.series == name and one.discharge == stay.discharges), None)
    series = channel.series_of(name, digest)
    return Called(series, "" if series is not None else "superseded")


def _planner(chart: Chart, stay: Encounter, channel: CompiledChannel) -> Planner | None:
    """The protocol that has planned the discharge; where none has, that of the channel."""
    made = [
        task
        for task in chart.tasks
        if task.encounter == stay.key and task.discharge == stay.discharges and task.raised_for is None
    ]
    for task in sorted(made, key=lambda task: (task.stands, task.created_at, task.protocol), reverse=True):
        planner = channel.planner_of(task)
        if planner is not None:
            return planner
    return channel.planner


def _wanted(chart: Chart, stay: Encounter, series: Series, channel: CompiledChannel) -> Iterator[Wanted]:
    ended = ended_at(stay, channel.calendar.zone)
    if ended is not None:
        yield from wanted(chart, stay, series, ended, zone_of_patient(chart, channel), channel.key)
