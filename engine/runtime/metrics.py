"""Counts, kept as plain numbers where things happen and put into Prometheus' form only when somebody asks.

Labels come from fixed vocabularies only: channels, destinations and states of the configuration, codes of ours, trigger
events of the standard. What a sender writes never becomes a label.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from engine.domain.page import UNANSWERED
from engine.runtime import hints
from engine.runtime.counters import COUNTERS, Name
from engine.runtime.refusals import Refusals
from engine.runtime.skews import Skews

_Gauge = Callable[[str, str, Sequence[str], Iterator[tuple[list[str], float]]], "Metric"]

if TYPE_CHECKING:  # imported when /metrics is asked for: the start of the daemon need not wait for it
    from prometheus_client.core import Metric

    from engine.domain.standing import Overview
    from engine.runtime.status import Status

OTHER: Final = "other"
_CODE: Final = re.compile(r"[a-z0-9_.-]{1,64}")
_EVENTS: Final = frozenset(f"A{number:02}" for number in range(1, 63))
"""The trigger events of chapter 3 (patient administration)."""
_LABELS_MAX: Final = 100
"""Different codes of one kind at most; a vocabulary that grows beyond this is no vocabulary."""

_COMMIT_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_GROUP_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Spread:
    """A histogram."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def take(self, counts: Sequence[int], total: float) -> None:
        """Add what was counted elsewhere by the same bounds."""
        for index, count in enumerate(counts):
            self._counts[index] += count
        self._sum += total

    @property
    def total(self) -> float:
        return self._sum

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus has them."""
        found: list[tuple[str, float]] = []
        sum_ = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            sum_ += count
            found.append((bound, float(sum_)))
        return found


REPEATS_TROUBLE: Final = 20
"""A message repeated this often is no resend any more: its sender does not understand our answers, or asks for none."""
_REPEATS_SECONDS: Final = 600.0
_REPEATED_MAX: Final = 64
_LATEST_SECONDS: Final = 300.0


class Repeats:
    """How often the same messages came again lately, of those that did so last."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, float]] = {}
        """By entry: how often, and when last (seconds of the loop's clock); the latest last."""

    def count(self, entry: int, now: float) -> int:
        """One more; returns how many by now."""
        repeats, last = self._seen.pop(entry, (0, now))
        repeats = repeats + 1 if now - last < _REPEATS_SECONDS else 1
        self._seen[entry] = repeats, now
        if len(self._seen) > _REPEATED_MAX:
            del self._seen[next(iter(self._seen))]
        return repeats

    def most(self, now: float) -> int:
        """How often the most repeated one came, among those that still come."""
        return max((repeats for repeats, last in self._seen.values() if now - last < _REPEATS_SECONDS), default=0)


class ChannelCounts:
    """What one channel's listener and intake count."""

    __slots__ = (
        "answers", "conflicts", "connections", "connections_closed", "connections_refused", "deviations", "duplicates",
        "inflight_bytes", "junk_bytes", "partial_frames", "received", "refusals", "refused", "repeats", "unsent",
    )  # fmt: skip

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.deviations: Counter[str] = Counter()
        self.connections_refused: Counter[str] = Counter()
        self.connections_closed: Counter[str] = Counter()
        self.duplicates = 0
        self.conflicts = 0
        """Messages whose control id had been used for another content."""
        self.repeats = Repeats()
        self.unsent = 0
        self.junk_bytes = 0
        self.partial_frames = 0
        self.connections = 0
        self.inflight_bytes: Callable[[], int] = int
        self.refusals = Refusals()

    def deviate(self, code: str) -> None:
        self.deviations[vetted(self.deviations, code)] += 1


def event_label(trigger_event: str) -> str:
    return trigger_event if trigger_event in _EVENTS else OTHER


def vetted(known: Mapping[str, int], code: str) -> str:
    """The code as a label, or `other` when it is none of ours."""
    if code in known:
        return code
    return code if len(known) < _LABELS_MAX and _CODE.fullmatch(code) else OTHER


class Metrics:
    """All counts of the daemon. Also a collector of prometheus_client (`collect`)."""

    def __init__(self, version: str) -> None:
        self._version = version
        self.channels: dict[str, ChannelCounts] = {}
        self.commit_seconds = Spread(_COMMIT_SECONDS)
        self.group_size = Spread(_GROUP_SIZES)
        self.store_failures = 0
        self.store_writable = True
        self.worker_restarts: Callable[[], int] = int
        self.worker_up: Callable[[], bool] = bool
        self.partitions: Callable[[], int] = int
        self.destinations: Callable[[], Mapping[str, bool]] = dict
        """Of each destination that we know, whether it is one of our workers'."""
        self.queues_known: Callable[[], bool] = lambda: True
        """Whether somebody still looks at what waits: an old number is worse than none."""
        self.status: Callable[[], Status | None] = lambda: None
        """How the daemon stands."""
        self.work: Overview | None = None
        """How the work of the whole store stood when it was looked at last."""
        self._counted: dict[Name, Counter[tuple[str, ...]]] = {name: Counter() for name in COUNTERS}
        self._hooks: Counter[tuple[str, str]] = Counter()
        self.skews = Skews()
        self._rung = Spread(hints.LATE_SECONDS)
        self._latest: deque[tuple[float, float]] = deque()
        """When a worker reported deadlines that rang, and how late the latest of them was."""

    def count_hook(self, destination: str, what: str) -> None:
        """A call of a far end: `taken`, `ignored` (nothing of ours), `refused`, or `busy` (asked to come again)."""
        self._hooks[destination, what] += 1

    def channel(self, name: str) -> ChannelCounts:
        return self.channels.setdefault(name, ChannelCounts())

    def hear(self, report: hints.Report) -> None:
        """Add what a worker did since its last report."""
        for name, rows in report.counts.items():
            if name == "deviations":  # its codes are many, and the listeners' are among them
                for (channel, code), count in rows:
                    counts = self.channel(channel)
                    counts.deviations[vetted(counts.deviations, code)] += count
            else:
                self._counted[name].update(dict(rows))
        for channel, senders in report.skews.items():
            for sender, (seconds, entry) in senders.items():
                self.skews.hear(channel, sender, seconds, entry)
        if report.work is not None:
            self.work = report.work
        if (rung := report.rung) is not None:
            self._rung.take(rung.counts, rung.total_seconds)
            self._latest.append((time.monotonic(), rung.latest_seconds))
            self._forget_latest()

    def latest_seconds(self) -> float | None:
        """How late the latest deadline was that rang in the last minutes; none: none rang."""
        self._forget_latest()
        return max((late for _, late in self._latest), default=None)

    def _forget_latest(self) -> None:
        while self._latest and time.monotonic() - self._latest[0][0] > _LATEST_SECONDS:
            self._latest.popleft()

    def text(self) -> bytes:
        """The Prometheus text format."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        def counter(name: str, text: str, labels: Sequence[str], rows: Iterator[tuple[list[str], float]]) -> Metric:
            family = CounterMetricFamily(f"handoff_{name}", text, labels=labels)
            for values, value in rows:
                family.add_metric(values, value)
            return family

        def gauge(name: str, text: str, labels: Sequence[str], rows: Iterator[tuple[list[str], float]]) -> Metric:
            family = GaugeMetricFamily(f"handoff_{name}", text, labels=labels)
            for values, value in rows:
                family.add_metric(values, value)
            return family

        def by(pick: Callable[[ChannelCounts], Counter[str]]) -> Iterator[tuple[list[str], float]]:
            return (
                ([name, label], value)
                for name, counts in self.channels.items()
                for label, value in sorted(pick(counts).items())
            )

        def each(pick: Callable[[ChannelCounts], int]) -> Iterator[tuple[list[str], float]]:
            return (([name], pick(counts)) for name, counts in self.channels.items())

        yield gauge("build_info", "The running version.", ["version"], iter([([self._version], 1.0)]))
        yield counter("messages_received", "Messages received.", ["channel", "event"], by(lambda c: c.received))
        yield counter("messages_refused", "Messages refused.", ["channel", "error"], by(lambda c: c.refused))
        yield counter("duplicates", "Exact duplicates.", ["channel"], each(lambda c: c.duplicates))
        yield gauge(
            "repeats_max",
            "How often the most repeated message came again.",
            ["channel"],
            each(lambda c: c.repeats.most(time.monotonic())),
        )
        yield counter("answers_sent", "Answers sent.", ["channel", "code"], by(lambda c: c.answers))
        yield counter("answers_unsent", "Answers whose sender was gone.", ["channel"], each(lambda c: c.unsent))
        yield counter("deviations", "Deviations.", ["channel", "deviation"], by(lambda c: c.deviations))
        yield counter("junk_bytes", "Bytes outside of any frame.", ["channel"], each(lambda c: c.junk_bytes))
        yield counter("partial_frames", "Frames that were cut off.", ["channel"], each(lambda c: c.partial_frames))
        yield gauge("connections", "Open connections.", ["channel"], each(lambda c: c.connections))
        yield counter(
            "connections_refused", "Connections refused.", ["channel", "reason"], by(lambda c: c.connections_refused)
        )
        yield counter(
            "connections_closed", "Connections closed by us.", ["channel", "reason"], by(lambda c: c.connections_closed)
        )
        yield gauge("inflight_bytes", "Bytes not answered yet.", ["channel"], each(lambda c: c.inflight_bytes()))
        yield counter("store_failures", "Groups that could not be stored.", [], iter([([], self.store_failures)]))
        yield gauge("store_writable", "Whether the last group was stored.", [], iter([([], self.store_writable)]))
        yield counter("worker_restarts", "Restarts of workers.", [], iter([([], self.worker_restarts())]))
        yield gauge("worker_up", "Whether all workers are ready.", [], iter([([], self.worker_up())]))
        yield gauge("partitions", "Partitions of this node's workers.", [], iter([([], self.partitions())]))
        yield gauge(
            "destination_owned",
            "Whether a worker of this node delivers there.",
            ["destination"],
            (([name], owned) for name, owned in self.destinations().items()),
        )
        yield gauge(
            "sender_skew_seconds",
            "Receipt minus MSH-7, the least of the last minutes; negative: the sender's clock is ahead.",
            ["channel", "sender"],
            (([one.channel, str(one.sender)], one.skew_seconds) for one in self.skews.all()),
        )
        for counted_name, of_services in COUNTERS.items():
            if counted_name != "deviations":
                counted = (
                    (list(labels), float(count)) for labels, count in sorted(self._counted[counted_name].items())
                )
                yield counter(counted_name, of_services.text, of_services.labels, counted)
        yield counter(
            "control_id_conflicts",
            "Messages with the control id of another one.",
            ["channel"],
            each(lambda c: c.conflicts),
        )
        calls = (([*labels], float(count)) for labels, count in sorted(self._hooks.items()))
        yield counter("hooks", "Calls of far ends.", ["destination", "result"], calls)
        if self.work is not None and self.queues_known():
            yield from self._of_work(self.work, gauge)
        status = self.status()
        if status is not None:
            yield from _of_status(status, gauge)
        for name, text, spread in (
            ("commit_seconds", "Seconds a group took to be on disk.", self.commit_seconds),
            ("commit_group_size", "Messages in a group.", self.group_size),
            ("deadline_late_seconds", "How late deadlines rang.", self._rung),
        ):
            histogram = HistogramMetricFamily(f"handoff_{name}", text)
            histogram.add_metric([], spread.buckets(), spread.total)
            yield histogram

    def _of_work(self, work: Overview, gauge: _Gauge) -> Iterator[Metric]:
        now = work.at
        channels, destinations = work.channels, work.destinations

        def seconds(at: datetime | None) -> float:
            return 0.0 if at is None else max(0.0, (now - at).total_seconds())

        rows = [([one.name], float(one.waiting)) for one in channels]
        yield gauge("entries_pending", "Waiting for processing.", ["channel"], iter(rows))
        rows = [([one.name], seconds(one.oldest_waiting_at)) for one in channels]
        yield gauge("entries_oldest_seconds", "How long the oldest one waits.", ["channel"], iter(rows))
        rows = [([one.name], one.last_message_at.timestamp()) for one in channels if one.last_message_at is not None]
        yield gauge("last_message_timestamp_seconds", "When the last message came.", ["channel"], iter(rows))
        rows = [
            ([one.name, state], float(number))
            for one in destinations
            for state, number in (("pending", one.pending), ("held", one.held))
        ]
        yield gauge("outbox", "Deliveries by state.", ["destination", "state"], iter(rows))
        rows = [
            ([one.name, code], float(number)) for one in destinations for code, number in sorted(one.withheld.items())
        ]
        text = "Deliveries that a rule does not let go and nobody has decided on; no failures."
        yield gauge("deliveries_withheld", text, ["destination", "code"], iter(rows))
        rows = [([one.name], float(one.put_off)) for one in destinations]
        yield gauge("deliveries_put_off", "Deliveries that a rule lets go later.", ["destination"], iter(rows))
        rows = [([one.name], seconds(one.oldest_at)) for one in destinations]
        yield gauge("delivery_oldest_seconds", "How long the oldest one waits.", ["destination"], iter(rows))
        rows = [
            ([one.name, state], float(state == ("orphan" if one.orphan else one.state)))
            for one in destinations
            for state in ("up", "down", "paused", "orphan")
        ]
        yield gauge("destination_state", "1 for the state it is in.", ["destination", "state"], iter(rows))
        yield gauge("deadlines_due", "Patients whose deadline has not rung yet.", [], iter([([], float(work.due))]))
        text = "For how long the first of them was to ring."
        yield gauge("deadline_oldest_seconds", text, [], iter([([], seconds(work.due_since))]))
        ages: list[tuple[list[str], float]] = [] if work.backup_at is None else [([], seconds(work.backup_at))]
        yield gauge("backup_age_seconds", "How old the last backup is.", [], iter(ages))
        text = "Deliveries that are held since a restore."
        yield gauge("restored_held", text, [], iter([([], float(work.restored_held))]))
        yield gauge("dead_letters_open", "Dead letters that wait for a person.", [], iter([([], float(work.dead))]))
        rows = [
            ([channel, kind], float(number))
            for channel, kinds in sorted(work.quality.items())
            for kind, number in sorted(kinds.items())
        ]
        yield gauge("quality_items_open", "Faults of feeds that wait for a person.", ["channel", "kind"], iter(rows))
        rows = [([state.value], float(work.pages.get(state.value, 0))) for state in sorted(UNANSWERED)]
        yield gauge("pages_unanswered", "Pages that nobody has acknowledged.", ["state"], iter(rows))
        rows = [([role], max(0.0, (at - now).total_seconds())) for role, at in sorted(work.gaps.items())]
        yield gauge("oncall_gap_seconds", "Until nobody would be called.", ["role"], iter(rows))
        rows = [([code], float(number)) for code, number in work.holds.items()]
        yield gauge("holds_open", "Messages that wait for a person's decision.", ["code"], iter(rows))


def _of_status(status: Status, gauge: _Gauge) -> Iterator[Metric]:
    yield gauge("ready", "Whether messages are taken and stored.", [], iter([([], float(status.ready))]))
    rows = [([code, about], 1.0) for code, _, about in (one.partition(":") for one in status.trouble)]
    yield gauge("trouble", "1 for each thing that is wrong.", ["code", "about"], iter(rows))
    ok = status.last_reload is None or status.last_reload.ok
    yield gauge("last_reload_ok", "Whether the last reload was taken.", [], iter([([], float(ok))]))
    loaded = status.config_loaded_at.timestamp() if status.config_loaded_at is not None else 0.0
    text = "When the configuration in force was loaded."
    yield gauge("configuration_loaded_timestamp_seconds", text, [], iter([([], loaded)]))
    now = datetime.now(UTC)
    rows = [([one.use], float(one.days_left(now))) for one in status.certificates]
    yield gauge("certificate_days_left", "Days until it ends.", ["use"], iter(rows))
    if status.disk_free_bytes is not None:
        rows = [([], float(status.disk_free_bytes))]
        yield gauge("disk_free_bytes", "Free on the disk of the store.", [], iter(rows))
