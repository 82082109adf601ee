"""Texts to patients whose time has come, and what became of those that went.

When its time comes (`ring`) a text that was planned (`engine.pipeline.textplans`) is decided again
(`engine.care.texts.deciding`), and becomes a notice in the outbox that hangs on the text as it stands. Whatever makes
the chart say something else takes that ground away, in the same transaction. Once a text was in the outbox it is put
there again only when it was heard that it did not go: it never goes twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from msgspec import structs

from engine.care.tasks import MOOT, end
from engine.care.texts.deciding import Addressed, Asked, Later, Never, Series, Step, address, decide, visits
from engine.domain.appointment import Appointment, AppointmentStatus
from engine.domain.cause import Cause, TextSettled
from engine.domain.chart import Chart
from engine.domain.delivery import Delivery, Gone, Ground, Notice, Operation, line_of_notice
from engine.domain.encounter import EncounterStatus
from engine.domain.outcome import Effect
from engine.domain.task import Task, TaskState
from engine.domain.text import Text, TextState
from engine.pipeline.answers import blocked, followed_up
from engine.pipeline.rule import Deciding, Rule

if TYPE_CHECKING:
    from engine.pipeline.channel import CompiledChannel

SOON: Final = timedelta(microseconds=1)
"""What a ring leaves is always later than what has rung."""

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
    if text.is_open:
        return text.answer_by
    return text.useful_until if text.state is TextState.QUEUED and text.reason != "hold" else None


def ring(chart: Chart, deciding: Deciding) -> Chart:
    """What is due of texts up to now, that which is of use for the shortest time first."""
    now, channel = deciding.now, deciding.channel
    due = [text for text in chart.texts if (at := _deadline(text)) is not None and at <= now]
    if not due or channel is None:
        return chart
    for text in sorted(due, key=lambda one: (one.useful_until, one.id)):
        chart = _expired(chart, text, deciding) if text.is_open else _with(chart, decided(chart, text, channel, now))
    return chart


def _expired(chart: Chart, text: Text, deciding: Deciding) -> Chart:
    """Nobody has answered in time. What follows is only for what is still so: the stay is over, the visit is booked."""
    after = _with(chart, structs.replace(text, state=TextState.EXPIRED, ended_at=deciding.now))
    if text.question is None or not _is_asked_still(chart, text):
        return after
    return followed_up(after, text, "unanswered", text.question.unanswered, deciding)


def _is_asked_still(chart: Chart, text: Text) -> bool:
    stay = chart.encounter(text.encounter) if text.encounter is not None else None
    visit = next((one for one in chart.appointments if one.id == text.appointment), None)
    return (
        chart.patient.deceased is not True
        and stay is not None
        and (stay.status, stay.discharges) == (EncounterStatus.FINISHED, text.discharge)
        and (visit is None or (visit.status is AppointmentStatus.BOOKED and visit.replaced_by is None))
    )


def follow_answers(_before: Chart | None, chart: Chart, deciding: Deciding) -> Chart:
    """A follower of `engine.pipeline.follow`: what answers have left to somebody ends with what was asked about. What
    the patient has written of their own is read in any case.
    """
    texts = {text.id: text for text in chart.texts}
    ended: dict[str, Task] = {}
    for task in chart.tasks:
        text = texts.get(task.raised_for or "")
        if text is None or text.answer_to is not None or task.protocol != text.series:
            continue
        if task.stands and not _is_asked_still(chart, text):
            ended[task.id] = end(task, TaskState.RETRACTED, at=deciding.now, why=MOOT)
    if not ended:
        return chart
    return structs.replace(chart, tasks=tuple(ended.get(task.id, task) for task in chart.tasks))


def _with(chart: Chart, after: Text) -> Chart:
    return structs.replace(chart, texts=tuple(after if one.id == after.id else one for one in chart.texts))


def decided(chart: Chart, text: Text, channel: CompiledChannel, now: datetime) -> Text:
    """The text after its time has come."""
    if text.state is TextState.QUEUED or text.awaits:  # it was not heard in time whether it went
        return withheld(text, "too_late", "not-sent-in-time", now)
    series = channel.series_of(text.series, text.series_digest)
    destination = channel.texter or text.destination
    verdict = decide(chart, text, _asked(chart, series, channel, now))
    match verdict:
        case Never(reason=reason, detail=detail):
            return withheld(text, reason, detail, now)
        case Later(at=at, reason=reason, detail=detail):
            due_at = at if at is None or at > now else now + SOON
            return structs.replace(text, due_at=due_at, reason=reason, detail=detail)
    if destination is None:
        return withheld(text, "carrier_error", "no-destination", now)
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


def withheld(text: Text, reason: str, detail: str | None, now: datetime) -> Text:
    return structs.replace(text, state=TextState.WITHHELD, reason=reason, detail=detail, due_at=None, ended_at=now)


def _asked(chart: Chart, series: Series | None, channel: CompiledChannel, now: datetime) -> Asked:
    zone = zone_of_patient(chart, channel)
    state, quiet = channel.texts.zones.state_of(chart.patient.address), channel.texts.quiet
    return Asked(
        now=now,
        zone=zone,
        window=lambda at: quiet.window(at, zone, state),
        parse=channel.texts.number_of,
        series=series,
        fields=partial(fields_of, chart, channel),
    )


def zone_of_patient(chart: Chart, channel: CompiledChannel) -> ZoneInfo:
    """Where the patient lives; else that of the hospital."""
    return channel.texts.zones.zone_of(chart.patient.address, channel.zone)


def fields_of(chart: Chart, channel: CompiledChannel, text: Text, step: Step, now: datetime) -> Mapping[str, str]:
    """What can be put into the words of a step: of a visit that is booked, and of the person only the first name."""
    name, visit = chart.patient.name, _visit(chart, text, step, now)
    zone = zone_of_patient(chart, channel)
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


def address_of(chart: Chart, text: Text, channel: CompiledChannel) -> Addressed:
    return address(chart, text.purpose, text.channel, channel.texts.number_of)


def _spoken_of(chart: Chart, text: Text, series: Series | None, channel: CompiledChannel, now: datetime) -> str | None:
    """The visit that the words of a text speak of, though it does not hang on it."""
    step = next((one for one in series.steps if one.name == text.step), None) if series is not None else None
    if series is None or step is None:
        return None
    fields = fields_of(chart, channel, text, step, now)
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
_NUMBERED: Final = re.compile(r"-[0-9]+$")


def _reason(code: str) -> str:
    """A carrier's code may end with its own number for it: `opted-out-21610`."""
    return _REASONS.get(code) or _REASONS.get(_NUMBERED.sub("", code), "carrier_error")


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
        return structs.replace(text, state=TextState.PLANNED, reason=None, due_at=at + SOON)
    return withheld(text, _reason(code), code or None, at)


def _failed(text: Text, said: TextSettled, at: datetime) -> Text:
    if text.state in _ARRIVED:
        return text
    if text.state not in _OUT:
        return _did_not_go(text, said, at) if text.awaits else text
    reason = _reason(said.detail or "")
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
    after = chart if texts == chart.texts else structs.replace(chart, texts=texts)
    if _reason(said.detail or "") != "opted_out" or said.result not in {TextSettled.FAILED, TextSettled.WITHHELD}:
        return after
    refused_by = next(text for text in chart.texts if text.id == said.text)
    by_carrier = said.detail is not None and _NUMBERED.search(said.detail) is not None
    return blocked(after, refused_by, said.detail or "", deciding) if by_carrier else after


def _of_text(said: TextSettled, _chart: Chart | None) -> list[str]:
    return [f"text:{said.text}"]


TEXT_RULES: Final[Mapping[type[Cause], Rule]] = {TextSettled: Rule(_settled, _of_text, audited=False)}
