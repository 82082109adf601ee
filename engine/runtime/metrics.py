"""Counts, kept as plain numbers where things happen and put into Prometheus' form only when somebody asks.

Labels come from fixed vocabularies only: channels, destinations and states of the configuration, codes of ours, trigger
events of the standard. What a sender writes never becomes a label.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from engine.runtime import hints

if TYPE_CHECKING:  # imported when /metrics is asked for: the start of the daemon need not wait for it
    from prometheus_client.core import Metric

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


class ChannelCounts:
    """What one channel's listener and intake count."""

    __slots__ = (
        "answers", "connections", "connections_closed", "connections_refused", "deviations", "duplicates",
        "inflight_bytes", "junk_bytes", "partial_frames", "received", "refused", "unsent",
    )  # fmt: skip

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.deviations: Counter[str] = Counter()
        self.connections_refused: Counter[str] = Counter()
        self.connections_closed: Counter[str] = Counter()
        self.duplicates = 0
        self.unsent = 0
        self.junk_bytes = 0
        self.partial_frames = 0
        self.connections = 0
        self.inflight_bytes: Callable[[], int] = int

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
        self._processed: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._deliveries: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._pending: dict[str, int] = {}
        self._outbox: dict[str, dict[str, int]] = {}
        self._holds: dict[str, int] = {}

    def channel(self, name: str) -> ChannelCounts:
        return self.channels.setdefault(name, ChannelCounts())

    def hear(self, report: hints.Report) -> None:
        """Add what a worker did since its last report."""
        for channel, states in report.processed.items():
            self._processed[channel].update(states)
        for destination, states in report.deliveries.items():
            self._deliveries[destination].update(states)
        for channel, codes in report.deviations.items():
            counts = self.channel(channel)
            for code, count in codes.items():
                counts.deviations[vetted(counts.deviations, code)] += count
        if report.pending is not None:
            self._pending = report.pending
        if report.outbox is not None:
            self._outbox = report.outbox
        if report.holds is not None:
            self._holds = report.holds

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

        def nested(table: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[list[str], float]]:
            return (([name, label], value) for name, inner in table.items() for label, value in inner.items())

        yield gauge("build_info", "The running version.", ["version"], iter([([self._version], 1.0)]))
        yield counter("messages_received", "Messages received.", ["channel", "event"], by(lambda c: c.received))
        yield counter("messages_refused", "Messages refused.", ["channel", "error"], by(lambda c: c.refused))
        yield counter("duplicates", "Exact duplicates.", ["channel"], each(lambda c: c.duplicates))
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
        yield counter("entries_processed", "Outcomes.", ["channel", "state"], nested(self._processed))
        known = self.queues_known()
        pending, outbox, holds = (self._pending, self._outbox, self._holds) if known else ({}, {}, {})
        yield gauge("entries_pending", "Waiting for processing.", ["channel"], (([n], v) for n, v in pending.items()))
        yield counter("deliveries", "Deliveries settled.", ["destination", "state"], nested(self._deliveries))
        yield gauge("outbox", "Deliveries by state.", ["destination", "state"], nested(outbox))
        yield gauge(
            "holds_open", "Messages that wait for a person's decision.", ["code"], (([c], n) for c, n in holds.items())
        )
        for name, text, spread in (
            ("commit_seconds", "Seconds a group took to be on disk.", self.commit_seconds),
            ("commit_group_size", "Messages in a group.", self.group_size),
        ):
            histogram = HistogramMetricFamily(f"handoff_{name}", text)
            histogram.add_metric([], spread.buckets(), spread.total)
            yield histogram
