"""The pure heart with the shipped configuration, for tests: messages in, charts out, no store."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from engine.connectors.registry import load
from engine.domain.cause import CLOCK, Due, written
from engine.domain.chart import Chart, Charts
from engine.domain.encounter import Encounter
from engine.domain.hold import Fact, Hold
from engine.domain.message import Entry, EntryState, Summary
from engine.domain.outcome import Outcome
from engine.domain.patient import Identifier
from engine.domain.task import TaskState
from engine.mapping.expression import compile_filter
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.compiling import compile_configuration
from engine.pipeline.process import decide, prepare
from engine.pipeline.unsaid import count_unsaid
from engine.pipeline.zones import Zones
from engine.settings import Channel
from engine.snapshot import Snapshot

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 3, 6, 18, 0, tzinfo=UTC)


def key(*parts: str) -> str:
    return hmac.new(b"test", "\0".join(parts).encode(), hashlib.sha256).hexdigest()[:32]


_CONFIGURATION = compile_configuration(load(Snapshot.read(ROOT / "config.yaml")), key)


def channel(**changes: Any) -> CompiledChannel:
    """The shipped channel, with some of its settings changed."""
    compiled = _CONFIGURATION.channels["main-campus"]
    settings = Channel.model_validate_json(msgspec.json.encode(compiled.settings.model_dump(mode="json") | changes))
    observed = datetime(2025, 1, 1, tzinfo=UTC)
    chosen = compile_filter(settings.filter) if settings.filter else None
    zones = Zones.of(settings.timezone)
    scheduling = _CONFIGURATION.rules.appointments.get(settings.appointments)
    return dataclasses.replace(
        compiled,
        settings=settings,
        zones=zones,
        observed_since=observed,
        filter=chosen,
        appointments=scheduling,
    )


def adt(
    trigger: str,
    *,
    at: str = "20260306120000",
    pid3: str = "558181838^^^MRN^MR",
    pv1: dict[int, str] | None = None,
    segments: tuple[str, ...] = (),
    pid: dict[int, str] | None = None,
) -> bytes:
    """An ADT message; `pv1` and `pid` set fields by their number."""
    fields_pid = {1: "1", 3: pid3, 5: "Doe^Jane", 7: "19480312", 8: "F"} | (pid or {})
    lines = [
        f"MSH|^~\\&|EPIC|MAIN|HANDOFF|H|{at}||ADT^{trigger}|{key(trigger, at, pid3)[:12]}|P|2.5.1",
        f"EVN|{trigger}|{at}",
        _segment("PID", fields_pid),
    ]
    if pv1 is not None:
        lines.append(_segment("PV1", {1: "1", 2: "I", 19: "V1^^^MRN"} | pv1))
    return "\r".join([*lines, *segments, ""]).encode()


def merge(survivor: str, merged: str, *, at: str = "20260309120000") -> bytes:
    """An A40 of two medical record numbers."""
    return adt("A40", at=at, pid3=f"{survivor}^^^MRN^MR", segments=(f"MRG|{merged}^^^MRN^MR",))


def _segment(name: str, fields: dict[int, str]) -> str:
    return "|".join([name, *(fields.get(number, "") for number in range(1, max(fields) + 1))])


class Heart:
    """Processes one message after the other."""

    def __init__(self, **changes: Any) -> None:
        self.channel = channel(**changes)
        self.charts = Charts()
        self.now = NOW
        self._id = 0

    def entry(self, payload: bytes) -> Entry:
        self._id += 1
        return Entry(
            id=self._id, channel="main-campus", peer="test", received_at=self.now, payload=payload, summary=Summary()
        )

    def send(self, payload: bytes) -> Outcome:
        return self.work(self.entry(payload))

    def work(self, entry: Entry) -> Outcome:
        prepared = prepare(entry, self.channel)
        outcome = decide(prepared, self.channel, self.charts, self.now)
        for chart in outcome.charts:
            self.charts.add(chart)
        count_unsaid(prepared, outcome, self.charts)
        return outcome

    def ring(self, chart: Chart) -> Outcome:
        """All that is due of the chart by now."""
        self._id += 1
        due = Due(actor=CLOCK, chart_id=chart.id, at=self.now, version=chart.version, since=self.now)
        return self.work(
            Entry(id=self._id, channel="@due", peer="", received_at=self.now, payload=written(due), summary=Summary())
        )

    def chart(self, value: str = "558181838", authority: str = "MRN", type_: str = "MR") -> Chart:
        found = self.charts.find(Identifier(value=value, authority=authority, type=type_))
        assert found is not None
        return found


DAY = datetime(2026, 3, 5, 14, 0, tzinfo=UTC)
"""09:00 in New York."""
HOUR = timedelta(hours=1)


def hl7(at: datetime | None) -> str:
    return "" if at is None else at.strftime("%Y%m%d%H%M%S+0000")


class Feed:
    """One patient's messages: each is received at its true time, and claims what it is told to claim."""

    def __init__(self, **changes: Any) -> None:
        self.heart = Heart(**changes)
        self.entries: list[Entry] = []
        self.outcomes: list[Outcome] = []
        self._questions: list[tuple[int, Hold]] = []

    def send(
        self,
        trigger: str,
        at: datetime,
        *,
        skew: timedelta = timedelta(),
        sender: str = "EPIC",
        sent: datetime | None = None,
        evn2: datetime | None = None,
        evn6: datetime | None = None,
        pv1: dict[int, str] | None = None,
        visit: bool = True,
        birth: str = "19480312",
    ) -> Outcome:
        """skew: of the sender's clock, which it writes MSH-7 and EVN-2 by."""
        sent = sent or at + skew
        fields = {1: "1", 2: "I", 19: "V1^^^MRN"} | ({36: "01"} if trigger == "A03" else {}) | (pv1 or {})
        lines = [
            f"MSH|^~\\&|{sender}|MAIN|HANDOFF|H|{hl7(sent)}||ADT^{trigger}|C{len(self.entries)}|P|2.5.1",
            f"EVN|{trigger}|{hl7(evn2 or at + skew)}||||{hl7(evn6)}",
            f"PID|1||1^^^MRN^MR||Doe^Jane||{birth}|F",
        ]
        if visit:
            lines.append("|".join(["PV1", *(fields.get(number, "") for number in range(1, max(fields) + 1))]))
        self.heart.now = at
        entry = self.heart.entry("\r".join([*lines, ""]).encode())
        self.entries.append(entry)
        outcome = self._work(entry)
        assert outcome.state is EntryState.PROCESSED
        self.outcomes.append(outcome)
        return outcome

    def replay(self, entry: Entry, **more: Any) -> Outcome:
        self.heart.now += HOUR
        again = self.heart.entry(entry.payload)
        return self._work(
            msgspec.structs.replace(
                again,
                replay_of=entry.id,
                replay_root=entry.replay_root or entry.id,
                first_received_at=entry.first_received_at or entry.received_at,
                **more,
            )
        )

    def _work(self, entry: Entry) -> Outcome:
        """Process, and keep what stands open, as the store does."""
        outcome = self.heart.work(entry)
        root = entry.replay_root or entry.id
        self._questions = [
            (asked_by, hold)
            for asked_by, hold in self._questions
            if asked_by != root and not any(self._answered(fact, hold) for fact in outcome.facts)
        ]
        self._questions += [(root, hold) for hold in outcome.holds]
        return outcome

    @staticmethod
    def _answered(fact: Fact, hold: Hold) -> bool:
        return fact.chart_id == hold.chart_id and fact.answers(hold.code, hold.subject, hold.asserts)

    @property
    def open_questions(self) -> list[str]:
        return [hold.code.value for _, hold in self._questions]

    @property
    def stay(self) -> Encounter:
        (stay,) = self.heart.chart("1").encounters
        return stay

    @property
    def asks(self) -> bool:
        """Whether a question about the patient stands open."""
        return bool(self._questions)

    @property
    def plan(self) -> list[str]:
        return [task.kind for task in self.heart.chart("1").tasks if task.state is TaskState.OPEN]
