"""Texts to patients: they follow from plan, appointments and consent, go when their time has come, and say what became
of them.

What is planned follows from the chart (`follow_texts`): each text that the series of a running plan expects is an item
from the plan on, so that one that did not go has its reason. When its time comes (`ring`) it is decided again
(`engine.care.texts.deciding`), and becomes a notice in the outbox that hangs on the text as it stands. Whatever makes
the chart say something else takes that ground away, in the same transaction. Once a text was in the outbox it is put
there again only when it was heard that it did not go: it never goes twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple
from zoneinfo import ZoneInfo

from msgspec import structs

from engine.care.plausible import ended_at
from engine.care.texts.deciding import (
    Addressed,
    Asked,
    Later,
    Never,
    Series,
    Step,
    Wanted,
    address,
    decide,
    visits,
    wanted,
)
from engine.domain.appointment import Appointment
from engine.domain.cause import Cause, TextSettled
from engine.domain.chart import Chart
from engine.domain.delivery import Delivery, Gone, Ground, Notice, Operation, line_of_notice
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.outcome import Effect
from engine.domain.text import AHEAD, GONE_OUT, Text, TextState
from engine.domain.why import MEANINGS
from engine.pipeline.plan import decided_by, disposition_of, later_stays
from engine.pipeline.rule import Deciding, Rule

if TYPE_CHECKING:
    from engine.pipeline.channel import CompiledChannel, Planner

# --- what is planned -------------------------------------------------------------------------------------------------


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
            return _withheld(text, to.reason, to.detail, self._now)
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
            return structs.replace(text, state=TextState.PLANNED, reason=None, awaits=False, due_at=self._now + _SOON)
        if not self._moved_on or text.reason == "hold":
            return text
        to = self._address(text)
        if to.number is None:
            return _withheld(text, to.reason, to.detail, self._now)
        step = next((one for one in series.steps if one.name == text.step), None)
        if to.number == text.number and step is not None:
            fields = _fields(self._chart, self._channel, text, step, text.queued_at or self._now)
            language = self._chart.patient.language
            bodies = {series.render(step.name, language, fields, first=first).body for first in (False, True)}
            if text.body in bodies:
                return text
        return structs.replace(text, state=TextState.PLANNED, reason=None, due_at=None)

    def _address(self, text: Text) -> Addressed:
        return _address_of(self._chart, text, self._channel)


_OLD: Final = timedelta(days=60)
"""A stay that ended longer ago gets no texts."""
_SOON: Final = timedelta(microseconds=1)
"""What a ring leaves is always later than what has rung."""
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
        yield from wanted(chart, stay, series, ended, _zone(chart, channel), channel.key)


# --- when its time has come ------------------------------------------------------------------------------------------


def deadlines(chart: Chart) -> Iterator[datetime]:
    """A source of `engine.pipeline.due`."""
    for text in chart.texts:
        if (at := _deadline(text)) is not None:
            yield at


def _deadline(text: Text) -> datetime | None:
    """When a text is decided on; of one in the outbox, or that waits for something: when it is of no use any more."""
    if text.state is TextState.PLANNED:
        return text.due_at or text.useful_until
    return text.useful_until if text.state is TextState.QUEUED and text.reason != "hold" else None


def ring(chart: Chart, deciding: Deciding) -> Chart:
    """What is due of texts up to now, that which is of use for the shortest time first."""
    now, channel = deciding.now, deciding.channel
    due = [text for text in chart.texts if (at := _deadline(text)) is not None and at <= now]
    if not due or channel is None:
        return chart
    for text in sorted(due, key=lambda one: (one.useful_until, one.id)):
        after = decided(chart, text, channel, now)
        chart = structs.replace(chart, texts=tuple(after if one.id == text.id else one for one in chart.texts))
    return chart


def decided(chart: Chart, text: Text, channel: CompiledChannel, now: datetime) -> Text:
    """The text after its time has come."""
    if text.state is TextState.QUEUED or text.awaits:  # it was not heard in time whether it went
        return _withheld(text, "too_late", "not-sent-in-time", now)
    series = channel.series_of(text.series, text.series_digest)
    destination = channel.texter or text.destination
    verdict = decide(chart, text, _asked(chart, series, channel, now))
    match verdict:
        case Never(reason=reason, detail=detail):
            return _withheld(text, reason, detail, now)
        case Later(at=at, reason=reason, detail=detail):
            due_at = at if at is None or at > now else now + _SOON
            return structs.replace(text, due_at=due_at, reason=reason, detail=detail)
    if destination is None:
        return _withheld(text, "carrier_error", "no-destination", now)
    rendered = verdict.rendered
    return structs.replace(
        text,
        state=TextState.QUEUED,
        reason=None,
        detail=None,
        due_at=None,
        tries=text.tries + 1,
        awaits=True,
        queued_at=now,
        number=verdict.number,
        language=rendered.language,
        body=rendered.body,
        segments=rendered.segments,
        expires_at=verdict.until,
        destination=destination,
        appointment=text.appointment or _spoken_of(chart, text, series, channel, now),
    )


def _withheld(text: Text, reason: str, detail: str | None, now: datetime) -> Text:
    return structs.replace(text, state=TextState.WITHHELD, reason=reason, detail=detail, due_at=None, ended_at=now)


def _asked(chart: Chart, series: Series | None, channel: CompiledChannel, now: datetime) -> Asked:
    zone = _zone(chart, channel)
    state, quiet = channel.texts.zones.state_of(chart.patient.address), channel.texts.quiet
    return Asked(
        now=now,
        zone=zone,
        window=lambda at: quiet.window(at, zone, state),
        parse=channel.texts.number_of,
        series=series,
        fields=partial(_fields, chart, channel),
    )


def _zone(chart: Chart, channel: CompiledChannel) -> ZoneInfo:
    """Where the patient lives; else that of the hospital."""
    return channel.texts.zones.zone_of(chart.patient.address, channel.zone)


def _fields(chart: Chart, channel: CompiledChannel, text: Text, step: Step, now: datetime) -> Mapping[str, str]:
    """What can be put into the words of a step: of a visit that is booked, and of the person only the first name."""
    name, visit = chart.patient.name, _visit(chart, text, step, now)
    zone = _zone(chart, channel)
    fields: dict[str, str | None] = {"first_name": name.given if name is not None else None}
    start = visit.starts_at.at if visit is not None and visit.starts_at is not None else None
    if visit is not None and start is not None:
        begins = start.astimezone(zone)
        place = visit.location
        fields |= {
            "appointment_at": begins.isoformat(),  # the series says it in the language
            "appointment_place": (place.facility or place.point_of_care) if place is not None else None,
        }
    return {name: value for name, value in fields.items() if value}


def _visit(chart: Chart, text: Text, step: Step, now: datetime) -> Appointment | None:
    """The visit that a text speaks of: its own, or the next one."""
    if step.on == "appointment":
        return next((one for one in chart.appointments if one.id == text.appointment), None)
    stay = chart.encounter(text.encounter or "")
    return next(iter(visits(chart, stay, step.of, now)), None) if stay is not None else None


def _address_of(chart: Chart, text: Text, channel: CompiledChannel) -> Addressed:
    return address(chart, text.purpose, text.channel, channel.texts.number_of)


def _spoken_of(chart: Chart, text: Text, series: Series | None, channel: CompiledChannel, now: datetime) -> str | None:
    """The visit that the words of a text speak of, though it does not hang on it."""
    step = next((one for one in series.steps if one.name == text.step), None) if series is not None else None
    if series is None or step is None:
        return None
    fields = _fields(chart, channel, text, step, now)
    without = {name: value for name, value in fields.items() if not name.startswith("appointment")}
    if not series.render(step.name, chart.patient.language, without, first=False).missing:
        return None
    visit = _visit(chart, text, step, now)
    return visit.id if visit is not None else None


# --- what goes out ---------------------------------------------------------------------------------------------------


def text_notices(was: Chart | None, chart: Chart) -> Iterator[Delivery]:
    """A delivery for each text that is newly in the outbox, to the one destination that sends it.

    was: the chart before, with those that have been merged into it.
    """
    if not chart.texts or (was is not None and was.texts is chart.texts):
        return
    tries = {text.id: text.tries for text in was.texts} if was is not None else {}
    for text in chart.texts:
        if text.state is not TextState.QUEUED or text.tries == tries.get(text.id, 0) or text.number is None:
            continue
        said = Notice(
            id=f"{text.id}-{text.tries}",
            not_after=text.expires_at or text.useful_until,
            ground=Ground(kind="text", key=text.ground),
            patient_key=chart.patient.key,
            to=text.number,
            body=text.body or "",
            language=text.language,
        )
        yield Delivery(
            destination=text.destination or "",
            operation=Operation.SEND_TEXT,
            ordering_key=line_of_notice(chart.id, said.id),
            idempotency_key=said.id,
            payload=said.encoded(),
        )


def text_effects(before: Chart | None, chart: Chart) -> Iterator[Effect]:
    """What has become of texts, each with its reason."""
    if not chart.texts or (before is not None and before.texts is chart.texts):
        return
    known = {text.id: text for text in before.texts} if before is not None else {}
    for text in chart.texts:
        was = known.get(text.id)
        if was is text or (was is not None and (was.state, was.reason) == (text.state, text.reason)):
            continue
        yield Effect(kind=f"text-{text.state}", subject=text.id, detail=text.reason or "")


# --- what became of it -----------------------------------------------------------------------------------------------

_REASONS: Final[Mapping[str, str]] = {
    "opted-out": "opted_out",
    "no-consent": "no_consent",
    "part2_no_consent": "part2_no_consent",
    "patient_refused": "patient_refused",
    "restricted": "muted",
    "test-data": "muted",
    "too-late": "too_late",
    Gone.DECEASED.value: "deceased",
    Gone.MERGED.value: "merged",
    Gone.GROUND.value: "superseded",
}
"""The code with which a delivery was withheld, or refused by the carrier -> why the text did not go."""
_ANEW: Final = frozenset({"too-late", Gone.MERGED.value})
"""Codes of texts that did not go and may still: their hours were over, their chart has become another."""


def settle(text: Text, said: TextSettled, at: datetime) -> Text:
    """What a word of its delivery, or of the carrier, makes of a text, in any order: what has arrived has.

    Words about an earlier try say nothing.
    """
    if text.tries == 0 or said.tries != text.tries:
        return text
    match said.result:
        case TextSettled.HELD:
            held = text.state is TextState.QUEUED
            return structs.replace(text, reason="hold", detail=said.detail) if held else text
        case TextSettled.WITHHELD:
            return _did_not_go(text, said, at) if text.awaits else text
        case TextSettled.FAILED:
            return _failed(text, said, at)
    return _went(text, said, at)


def _did_not_go(text: Text, said: TextSettled, at: datetime) -> Text:
    text = structs.replace(text, awaits=False)
    if text.state is TextState.PLANNED:
        return structs.replace(text, due_at=max(text.planned_for, at))
    if text.state is not TextState.QUEUED:
        return text
    code = said.detail or ""
    if code in _ANEW and at < text.useful_until:
        return structs.replace(text, state=TextState.PLANNED, reason=None, due_at=at + _SOON)
    return _withheld(text, _REASONS.get(code, "carrier_error"), code or None, at)


def _failed(text: Text, said: TextSettled, at: datetime) -> Text:
    if text.state in _ARRIVED:
        return text
    if text.state not in _OUT:
        return _did_not_go(text, said, at) if text.awaits else text
    reason = _REASONS.get(said.detail or "", "carrier_error")
    receipt = said.receipt or text.receipt
    return structs.replace(
        text,
        state=TextState.FAILED,
        reason=reason,
        detail=said.detail,
        awaits=False,
        receipt=receipt,
        ended_at=text.ended_at or at,
    )


_ARRIVED: Final = frozenset({TextState.DELIVERED, TextState.REPLIED, TextState.EXPIRED})
_OUT: Final = frozenset({TextState.QUEUED, TextState.SENT, TextState.FAILED})


def _went(text: Text, said: TextSettled, at: datetime) -> Text:
    arrived = said.result == TextSettled.DELIVERED
    receipt = said.receipt or text.receipt
    delivered_at = text.delivered_at or (at if arrived else None)
    if text.state in _ARRIVED or (text.state is TextState.FAILED and not arrived):
        return structs.replace(text, awaits=False, receipt=receipt, delivered_at=delivered_at)
    sent_at = text.sent_at or at
    answer_by = text.answer_by
    if answer_by is None and text.question is not None:
        answer_by = sent_at + timedelta(seconds=text.question.seconds)
    return structs.replace(
        text,
        state=TextState.DELIVERED if arrived else TextState.SENT,
        reason="sent",
        detail=None,
        awaits=False,
        due_at=None,
        ended_at=None,
        sent_at=sent_at,
        delivered_at=delivered_at,
        receipt=receipt,
        answer_by=answer_by,
    )


def _settled(said: TextSettled, chart: Chart | None, deciding: Deciding) -> Chart | None:
    if chart is None or all(text.id != said.text for text in chart.texts):
        return chart
    texts = tuple(settle(text, said, deciding.at) if text.id == said.text else text for text in chart.texts)
    return chart if texts == chart.texts else structs.replace(chart, texts=texts)


def _of_text(said: TextSettled, _chart: Chart | None) -> list[str]:
    return [f"text:{said.text}"]


TEXT_RULES: Final[Mapping[type[Cause], Rule]] = {TextSettled: Rule(_settled, _of_text, audited=False)}
