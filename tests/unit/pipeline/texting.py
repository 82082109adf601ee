"""A patient who is written to, for tests: the heart, an outbox that asks again right before it sends, and a carrier."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from copy import copy
from datetime import UTC, datetime, time, timedelta
from typing import Any, cast
from zoneinfo import ZoneInfo

import msgspec
from heart import adt
from scheduling import NEW_YORK, Scheduled

from engine.care.event import Applied
from engine.care.texts.rules import TextRules
from engine.care.texts.zones import Zones
from engine.domain.cause import CLOCK, COURIER, Due, TextSettled, written
from engine.domain.chart import Chart
from engine.domain.consent import ContactConsent
from engine.domain.delivery import Delivery, DeliveryState, Fallen, Gone, Notice, Operation, QueuedDelivery
from engine.domain.message import Entry, Summary
from engine.domain.outcome import Effect
from engine.domain.score import Band
from engine.domain.text import Answer, Question, Text
from engine.pipeline.admit import RULES, Known, Never, NotBefore, admit
from engine.pipeline.channel import Planner
from engine.pipeline.difference import difference
from engine.pipeline.due import due_at
from engine.pipeline.follow import follow
from engine.pipeline.process import process
from engine.pipeline.rule import Deciding

PHONE = "+12125550123"
OTHER = "+12125550199"
STAY = {2: "I", 4: "E", 44: "20260301080000"}
PCP = "PD1||||77^Welby^Marcus"
ILL = tuple(f"DG1|{n}||{code}^X^I10" for n, code in enumerate(("I50.9", "N18.6", "C80.1", "E11.9"), 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    name: str
    days: int = 0
    at: time | None = time(10)
    after: timedelta = timedelta(minutes=30)
    on: str = "discharge"
    of: tuple[str, ...] = ()
    useful: timedelta = timedelta(hours=36)
    question: Question | None = None
    words: str = "Hello {first_name}"


@dataclasses.dataclass(frozen=True)
class Rendered:
    body: str
    language: str
    segments: int
    missing: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    steps: tuple[Step, ...]
    name: str = "post-discharge-texts"
    version: str = "1"
    digest: str = "d1"
    purpose: str = "care"
    channel: str = "sms"
    hold: timedelta = timedelta(minutes=30)
    cap_a_day: int = 1
    cap_a_week: int = 5

    def planned_for(
        self, step: Step, *, discharged_at: datetime, appointment_at: datetime | None, zone: ZoneInfo
    ) -> datetime:
        from_ = appointment_at if step.on == "appointment" else discharged_at
        assert from_ is not None
        day = (from_.astimezone(zone) + timedelta(days=step.days)).date()
        at = datetime.combine(day, step.at, zone) if step.at is not None else from_
        return max(at, discharged_at + step.after).astimezone(UTC)

    def render(self, step: str, language: str | None, fields: Mapping[str, str], *, first: bool = False) -> Rendered:
        [one] = [one for one in self.steps if one.name == step]
        words = f"{step} {self.digest} {one.words}"
        if (at := fields.get("appointment_at")) is not None:
            fields = {
                **fields,
                "appointment_day": "a day",
                "appointment_time": f"{datetime.fromisoformat(at):%-I:%M %p}",
            }
        missing = tuple(name for name in _names(words) if name not in fields)
        if missing:
            return Rendered("", "en", 0, missing)
        body = words.format(**fields) + (" Reply STOP to opt out." if first else "")
        return Rendered(body if language != "es" else f"[es] {body}", "es" if language == "es" else "en", 1, ())


def _names(words: str) -> list[str]:
    return [part.partition("}")[0] for part in words.split("{")[1:]]


CONFIRM = Question(
    answers=(Answer(meaning="confirmed", words=("confirm",)), Answer(meaning="change", words=("change",))),
    seconds=86_400,
)
DAYS = Series(
    steps=(
        Step(name="day-0", at=None, useful=timedelta(hours=24)),
        Step(name="day-1", days=1, question=CONFIRM, words="Visit {appointment_day} {appointment_time}. CONFIRM"),
        Step(name="day-2", days=2),
        Step(name="day-before", on="appointment", days=-1, of=("pcp_follow_up",), words="Tomorrow {appointment_time}"),
    )
)
PLAIN = Series(steps=(Step(name="day-0", at=None, useful=timedelta(hours=24)), Step(name="day-2", days=2)))


ZONES = Zones({"CA": "CA"}, {"CA": ZoneInfo("America/Los_Angeles")}, {}, {})


@dataclasses.dataclass
class InOutbox:
    delivery: Delivery
    entry: int
    state: DeliveryState = DeliveryState.PENDING
    gone: Gone | None = None

    @property
    def said(self) -> Notice:
        said = self.delivery.content
        assert isinstance(said, Notice)
        return said


class Texting(Scheduled):
    """A patient at high risk; `discharge` sends them home on 2026-03-06 at 12:00 in New York."""

    takes = ("patient", "task", "text")

    def __init__(self, series: Series = DAYS, *, phone: str = PHONE, consent: bool = True, **changes: Any) -> None:
        deliver = [{"to": "phone", "what": ["text"]}, {"to": "files", "what": ["text"]}]
        super().__init__(**({"deliver": deliver} | changes))
        self.serve({series.name: series})
        self.phone = phone
        self.outbox: list[InOutbox] = []
        self.told: list[Delivery] = []
        self.effects: list[Effect] = []
        self.sent: list[tuple[datetime, str, str]] = []
        """When, to whom, what."""
        self.admit()
        if consent:
            self.consent(PHONE)

    def serve(self, series: Mapping[str, Series], bands: Mapping[Band | None, str] | None = None) -> None:
        """The site's files say so from now on."""
        channel = self.channel
        assert channel.planner is not None
        former = {(one.name, one.digest): one for one in channel.texts.series.values()}
        protocol = copy(channel.planner.protocol)
        name = next(iter(series))
        protocol.texts = bands if bands is not None else dict.fromkeys(Band, name)
        planner = Planner(protocol, channel.planner.model)
        self.channel = dataclasses.replace(
            channel,
            texts=TextRules(series=cast(Any, series), zones=ZONES),
            former_series={**channel.former_series, **former},
            text_senders=frozenset({"phone", "pager"}),
            planner=planner,
            planners={**channel.planners, protocol.name: planner},
        )

    # --- what happens

    def pid(self, **more: str) -> dict[int, str]:
        return {13: self.phone, 11: "1 Main St^^Town^NY^10001"} | {int(name[1:]): said for name, said in more.items()}

    def admit(self, at: str = "20260301080000", number: str = "V1") -> None:
        self.tell("A01", at, number)

    def tell(
        self, trigger: str, at: str, number: str = "V1", *, pid: Mapping[int, str] | None = None, **pv1: str
    ) -> None:
        stay = {**STAY, 19: f"{number}^^^MRN"} | {int(name[1:]): value for name, value in pv1.items()}
        self.send(adt(trigger, at=at, pv1=stay, pid=self.pid() | dict(pid or {}), segments=(PCP, *ILL)))

    def discharge(self, at: str = "20260306120000", number: str = "V1", disposition: str = "01", **pv1: str) -> None:
        self.tell("A03", at, number, **({"_36": disposition, "_45": at} | pv1))

    def work(self, entry: Entry) -> Any:
        outcome = process(entry, self.channel, self.charts, self.now)
        self._take(entry.id, outcome.charts, outcome.deliveries, outcome.fallen, outcome.effects)
        return outcome

    def consent(self, number: str, *, given: bool = True, how: str = "form", chart: Chart | None = None) -> None:
        before = chart or self.chart()
        self._id += 1
        said = ContactConsent(
            id=f"k{self._id}",
            purpose="care",
            channel="sms",
            number=number,
            given=given,
            at=self.now,
            how=how,
            by="os:ann",
        )
        self.change(before, contact_consents=(*before.contact_consents, said))

    def change(self, before: Chart, **fields: Any) -> None:
        """Something changes a chart; what follows from that happens."""
        self._id += 1
        entry = Entry(id=self._id, channel="@act", peer="", received_at=self.now, payload=b"", summary=Summary())
        deciding = Deciding(self.now, self.now, entry, self.channel, Applied())
        after = follow(before, msgspec.structs.replace(before, **fields), deciding)
        final, effects, deliveries, _, fallen, _ = difference(self.charts, (after,), {}, self.channel, self.now)
        self._take(self._id, final, deliveries, fallen, effects)

    def _take(self, entry: int, charts: Any, deliveries: Any, fallen: Any, effects: Any) -> None:
        for chart in charts:
            self.charts.add(chart)
        self.effects += effects
        for one in fallen:
            self._fall(one)
        for one in deliveries:
            if one.operation is Operation.SEND_TEXT:
                assert one.idempotency_key not in {known.delivery.idempotency_key for known in self.outbox}
                self.outbox.append(InOutbox(one, entry))
            else:
                self.told.append(one)

    def _fall(self, fallen: Fallen) -> None:
        for one in self.outbox:
            hangs = fallen.grounds is None or one.said.ground in fallen.grounds
            if hangs and one.delivery.chart_id == fallen.chart_id and one.gone is None:
                one.gone = fallen.code

    # --- time passes

    def ring_once(self, chart: Chart, at: datetime) -> None:
        self.now = max(at, self.now)
        cause = Due(actor=CLOCK, chart_id=chart.id, at=at, version=chart.version, since=at)
        self._cause(cause, "@due")

    def _cause(self, cause: Any, lane: str) -> None:
        self._id += 1
        self.work(
            Entry(id=self._id, channel=lane, peer="", received_at=self.now, payload=written(cause), summary=Summary())
        )

    def until(self, at: str | datetime, *, carrier: Callable[[InOutbox], str | None] | None = None) -> None:
        """All that is due up to then happens, and what is in the outbox goes. carrier: what becomes of each."""
        end = local(at) if isinstance(at, str) else at
        for _ in range(1_000):
            self.work_off(carrier)
            due = [
                (when, chart.id)
                for chart in self.charts.by_id.values()
                if (when := due_at(chart)) is not None and when <= end
            ]
            if not due:
                self.now = max(self.now, end)
                return
            when, chart_id = min(due)
            self.ring_once(self.charts.by_id[chart_id], when)
        raise AssertionError("it rings for ever")

    def work_off(self, carrier: Callable[[InOutbox], str | None] | None = None) -> None:
        """The courier asks of each whether it may go, and hands it over. carrier: none of a text: it waits."""
        for one in self.outbox:
            if one.state is not DeliveryState.PENDING:
                continue
            queued = QueuedDelivery(
                id=one.entry, entry_id=one.entry, delivery=one.delivery, state=one.state, attempts=0,
                next_attempt_at=self.now, created_at=self.now,
            )  # fmt: skip
            known = Known(chart=self.charts.living(one.delivery.chart_id), gone=one.gone)
            match admit(RULES, queued, known, self.now):
                case Never(code=code):
                    one.state = DeliveryState.WITHHELD
                    self.word(one, TextSettled.WITHHELD, code)
                case NotBefore():
                    continue
                case _:
                    result = carrier(one) if carrier is not None else TextSettled.SENT
                    if result is None:
                        continue
                    one.state = DeliveryState.DELIVERED
                    if result == TextSettled.SENT:
                        self.sent.append((self.now, one.said.to, one.said.body))
                    self.word(one, result, None if result == TextSettled.SENT else "30003")

    def word(self, one: InOutbox, result: str, detail: str | None = None) -> None:
        text, _, tries = one.delivery.idempotency_key.rpartition("-")
        self._cause(
            TextSettled(
                actor=COURIER, chart_id=one.delivery.chart_id, text=text, tries=int(tries), result=result,
                detail=detail, receipt="SM1" if result != TextSettled.WITHHELD else None,
            ),
            "@reply",
        )  # fmt: skip

    # --- what is so

    def texts(self, value: str = "558181838") -> dict[str, Text]:
        """By step, the last of each."""
        return {text.step: text for text in self.chart(value).texts}

    def said(self, value: str = "558181838") -> dict[str, tuple[str, str | None]]:
        return {step: (text.state.value, text.reason) for step, text in self.texts(value).items()}

    @property
    def bodies(self) -> list[str]:
        return [body for _, _, body in self.sent]


def local(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=NEW_YORK).astimezone(UTC)
