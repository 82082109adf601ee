"""What would become of messages: intake and processing as the daemon does them, less journal and record.

`handoff try` shows it to a person, the message tests of channels compare it with what they expect.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from typing import Protocol as Interface

import msgspec

from engine.domain.chart import Chart, Charts
from engine.domain.message import Entry, EntryState
from engine.domain.outcome import Outcome
from engine.domain.parts import ENCOUNTERS, PARTS, Part
from engine.domain.shapes import encounter_shape, patient_shape, plain, quality_shape
from engine.hl7v2 import batch as batches
from engine.hl7v2.ack import owed
from engine.hl7v2.header import Header
from engine.pipeline import faults
from engine.pipeline.acceptance import Judgement, Rules, is_test, judge, plan_answers, summarize
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.identity import authorities_of
from engine.pipeline.plan import not_planned, not_scored
from engine.pipeline.prepared import Prepared
from engine.pipeline.why import says_nothing, why_shapes
from engine.trial.run import BEHIND_ALL, Run


class View(Interface):
    """How much is shown of each part (`engine.desk.seeing.View`)."""

    def patient(self, shape: Mapping[str, Any]) -> dict[str, Any]: ...

    def part(self, what: str, shape: Mapping[str, Any], /) -> dict[str, Any]: ...

    def payload(self, payload: Mapping[str, Any]) -> dict[str, Any]: ...


class Clear:
    """The view of what holds no patients: all of it."""

    def patient(self, shape: Mapping[str, Any]) -> dict[str, Any]:
        return dict(shape)

    def part(self, _what: str, shape: Mapping[str, Any]) -> dict[str, Any]:
        return dict(shape)

    def payload(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        return dict(payload)


class Trial:
    """Messages on their way through intake and processing, without journal and record."""

    def __init__(self, channel: CompiledChannel, now: datetime) -> None:
        self._run = Run({channel.settings.name: channel})
        self.now = now
        """When the messages arrive that are prepared next."""
        self._number = BEHIND_ALL
        self._waiting: list[tuple[Judgement, Prepared]] = []
        self.authorities_unseen = list(channel.settings.identity.authority_order)
        """Those of the channel's `identity` that no message so far has named."""

    @property
    def _channel(self) -> CompiledChannel:
        return next(iter(self._run.channels.values()))

    @property
    def charts(self) -> Charts:
        """What there is before the first message, and after each that has run."""
        return self._run.charts

    @charts.setter
    def charts(self, charts: Charts) -> None:
        self._run.charts = charts

    def prepare(self, frames: Sequence[bytes], observed_since: datetime | None = None) -> None:
        """Take messages in, as intake does. observed_since: since when the channel's patients are known; none: now."""
        since = observed_since or self._channel.observed_since or self.now
        channel = dataclasses.replace(self._channel, observed_since=since)
        self._run.channels = {channel.settings.name: channel}
        rules = Rules.of(self._channel.settings)
        for frame in frames:
            self._take(rules, frame)

    def _take(self, rules: Rules, frame: bytes) -> None:
        """As intake takes a frame: a batch is taken apart, one that is too long is refused as a whole."""
        listen = self._channel.settings.listen
        if len(frame) > listen.frame_bytes_max:
            payload = frame[: listen.frame_bytes_max]
            self._add(payload, judge(rules, payload, oversize=True))
            return
        try:
            batch = batches.split(frame, messages_max=listen.batch_messages_max)
        except batches.BatchTooLongError:
            self._add(frame, plan_answers(rules, None, faults.BATCH_TOO_LONG))
            return
        if batch is None or not batch.messages:
            self._add(frame, judge(rules, frame))
            return
        for message in batch.messages:
            self._add(message, judge(rules, message), batch.deviations)

    def _add(self, payload: bytes, judgement: Judgement, deviations: tuple[str, ...] = ()) -> None:
        entry = self._entry(self._number, payload, judgement, deviations)
        self._number += 1
        self._waiting.append((judgement, self._run.prepare(entry)))
        if self.authorities_unseen:
            named = authorities_of(payload, self._channel)
            self.authorities_unseen = [name for name in self.authorities_unseen if name not in named]

    @property
    def identities(self) -> set[tuple[str, str, str]]:
        return {identity for _, one in self._waiting for identity in one.identities}

    @property
    def visits(self) -> set[str]:
        return {visit for _, one in self._waiting for visit in one.visits}

    def run(self, view: View) -> list[dict[str, Any]]:
        """Process what was taken in, in order; the contract's shape of `handoff try` for each message."""
        results = []
        waiting, self._waiting = self._waiting, []
        for judgement, prepared in waiting:
            step = self._run.decide(prepared, self.now)
            results.append(self._shape(judgement, step.outcome, view))
        return results

    def _entry(self, number: int, payload: bytes, judgement: Judgement, deviations: tuple[str, ...]) -> Entry:
        if judgement.header is not None:
            deviations += judgement.header.deviations + judgement.plan.deviations
        return Entry(
            id=number,
            channel=self._channel.settings.name,
            peer="file",
            received_at=self.now,
            payload=payload,
            summary=summarize(judgement.header),
            deviations=deviations,
            refusal=judgement.refusal,
            ack=judgement.code,
            ack_state=judgement.ack_state,
            wants_application_ack=judgement.awaits_outcome,
            test=is_test(Rules.of(self._channel.settings), judgement.header),
        )

    def _shape(self, judgement: Judgement, outcome: Outcome, view: View) -> dict[str, Any]:
        chart = self.charts.by_id.get(outcome.chart_id) if outcome.chart_id else None
        encounter = chart.encounter(outcome.encounter_key) if chart and outcome.encounter_key else None
        return {
            "ack": _ack(judgement, outcome),
            "state": outcome.state,
            "reason": outcome.reason,
            "header": _header(judgement.header),
            "patient": view.patient(patient_shape(chart.patient)) if chart else None,
            "encounter": view.part(ENCOUNTERS.what, encounter_shape(encounter)) if encounter else None,
            **{part.name: _shapes(part, chart, view) for part in PARTS if part is not ENCOUNTERS},
            "deliveries": [
                {
                    "destination": delivery.destination,
                    "operation": delivery.operation,
                    "idempotency_key": delivery.idempotency_key,
                    "payload": view.payload(msgspec.json.decode(delivery.payload)),
                    "state": "pending" if delivery.kept is None else "withheld",
                    "attempts": 0,
                    "next_attempt_at": None,
                }
                for delivery in outcome.deliveries
            ],
            "deviations": list(outcome.deviations),
            "quality": [quality_shape(one) for one in outcome.quality],
            "charset": outcome.charset,
            "dead_letter": plain(outcome.dead_letter),
            "why": self._why(outcome, chart),
        }

    def _why(self, outcome: Outcome, chart: Chart | None) -> list[dict[str, Any]]:
        if chart is not None and outcome.state is EntryState.PROCESSED and says_nothing(outcome):
            subject = outcome.encounter_key
            standing = (*not_planned(chart, subject, self._channel, self.now), *not_scored(chart, subject))
            outcome = msgspec.structs.replace(outcome, why=standing)
        told = outcome.deliveries
        sent = [(one.destination, one.operation) for one in told if one.kept is None]
        withheld = [(one.destination, one.operation, one.kept) for one in told if one.kept is not None]
        return why_shapes(outcome.state, outcome, sent, self._channel.settings, replay=False, withheld=withheld)


def _shapes(part: Part, chart: Chart | None, view: View) -> list[dict[str, Any]]:
    if chart is None:
        return []
    return [view.part(part.what, part.shape(item, chart.patient.key)) for item in part.of(chart)]


def _ack(judgement: Judgement, outcome: Outcome) -> dict[str, Any]:
    """The first answer that the sender gets; `code` is null when it gets none."""
    refusal = judgement.refusal
    if refusal is not None:
        return {"code": judgement.code, "error": refusal.error, "text": refusal.text, "location": refusal.location}
    letter = outcome.dead_letter
    if judgement.holds or _answers_later(judgement, accepted=letter is None):
        return {
            "code": outcome.application_ack,
            "error": letter.error if letter else None,
            "text": letter.detail if letter else None,
            "location": letter.location if letter else None,
        }
    return {"code": judgement.code, "error": None, "text": None, "location": None}


def _answers_later(judgement: Judgement, *, accepted: bool) -> bool:
    """The only answer is the application's, after processing (enhanced mode without an accept acknowledgment)."""
    return judgement.code is None and judgement.awaits_outcome and owed(judgement.plan.application, success=accepted)


def _header(header: Header | None) -> dict[str, Any] | None:
    names = (
        "type", "message_code", "trigger_event", "control_id", "version", "processing_id", "sending_application",
        "sending_facility", "receiving_application", "receiving_facility", "sent_at", "accept_ack", "application_ack",
    )  # fmt: skip
    if header is None:
        return None
    return {name: getattr(header, name) or None for name in names} | {"charset_names": list(header.charset_names)}
