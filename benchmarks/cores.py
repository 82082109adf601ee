"""More cores than the machine has, in simulation: how far one machine goes, and what stops it.

What a message costs is what a run has measured. What is simulated is who waits for whom: threads for a core, the two
threads of the main process for their one interpreter, workers for the charts' one writer and for messages of their own
partitions. Threads share the cores evenly. Disk and memory are taken to keep up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from benchmarks.heart import GROUP, STAGES
from engine.domain.partition import PARTITIONS
from engine.domain.record import Record
from engine.runtime.processor import BATCH_MAX

MESSAGES: Final = 30_000
SWEEP: Final = ((1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (4, 3), (4, 4), (6, 6), (8, 8), (12, 12), (16, 16), (32, 32))
"""Cores and workers."""
_MESSAGES_A_PATIENT: Final = 3
_SETTLING: Final = 0.25
"""The part of a courier's time in which it writes, so that no worker records meanwhile (by the profile)."""
_WORKER_STAGES: Final = STAGES[STAGES.index("read") :]


class Costs(Record, frozen=True, kw_only=True):
    """Processor microseconds a message."""

    generator: float
    main: float
    """The main process, most of it under one interpreter's lock: taken for all of it."""
    work: float
    """Of a worker: from reading entries to what came of them."""
    record: float
    """...and the charts' transaction: one at a time."""
    deliver: float
    """Of the worker that has the destination."""
    settle: float
    """...and its transactions."""

    @classmethod
    def measured(cls, run: Mapping[str, Any], stages: Mapping[str, float]) -> Costs:
        """What the threads of the daemon spent in a run of the part `throughput`, shared out as in the part `cpu`."""
        spent = run["to_the_end"]["cpu_us"]
        beyond = (spent["worker_loops"] + spent["worker_threads"]) / sum(stages[name] for name in _WORKER_STAGES)
        courier = stages["courier"] * beyond
        record = stages["record"] * beyond
        return cls(
            generator=run["to_the_end"]["generator_us"],
            main=spent["main_loop"] + spent["main_writer"],
            work=sum(stages[name] for name in _WORKER_STAGES) * beyond - courier - record,
            record=record,
            deliver=courier * (1 - _SETTLING),
            settle=courier * _SETTLING,
        )


class Simulated(Record, frozen=True, kw_only=True):
    """Rates are messages a second, shares are of the time that it all took."""

    cores: int
    workers: int
    rate: float
    """To the end."""
    acknowledged: float
    cores_share: float
    main_share: float
    worker_share: float
    """The worker that was busy longest, waiting for the charts' writer included."""
    charts_share: float
    """How long somebody wrote to the charts."""


def simulate(costs: Costs, *, cores: int, workers: int, messages: int = MESSAGES) -> Simulated:
    """As many messages as the senders get rid of, until the last of them is recorded. The same each time."""
    return _Machine(costs, cores, workers, messages).run()


_Steps = Generator[float | None, None, None]
"""What a thread does next: so many microseconds of work, or (None) waiting until it is woken."""


@dataclass(eq=False)
class _Thread:
    steps: _Steps
    left: float = 0.0
    """Microseconds of the step under way."""
    waits: bool = False


@dataclass(eq=False)
class _Worker:
    arrivals: list[int] = field(default_factory=list)
    """Which of all messages are of its partitions."""
    done: int = 0
    busy: float = 0.0


class _Machine:
    def __init__(self, costs: Costs, cores: int, workers: int, messages: int) -> None:
        self._costs = costs
        self._cores = cores
        self._messages = messages
        self._now = 0.0
        self._stored = 0
        self._stored_at = 0.0
        self._recorded = 0
        self._undelivered = 0
        self._writer: deque[object] = deque()
        """Whose turn it is to write to the charts, and behind it those who want to."""
        self._work = {"all": 0.0, "main": 0.0, "charts": 0.0}
        self._workers = [_Worker() for _ in range(workers)]
        random = Random(1)
        for message in range(messages):
            if message % _MESSAGES_A_PATIENT == 0:
                owner = self._workers[random.randrange(PARTITIONS) % workers]
            owner.arrivals.append(message)
        self._threads = [_Thread(self._senders()), *(_Thread(self._process(one)) for one in self._workers)]

    def run(self) -> Simulated:
        for thread in self._threads:
            self._next(thread)
        while self._recorded < self._messages:
            running = [thread for thread in self._threads if not thread.waits]
            speed = min(1.0, self._cores / len(running))
            step = min(thread.left for thread in running)
            self._now += step / speed
            self._work["all"] += step * len(running)
            for thread in running:
                thread.left -= step
            for thread in running:
                if thread.left <= 1e-9 and not thread.waits:
                    self._next(thread)
        return Simulated(
            cores=self._cores,
            workers=len(self._workers),
            rate=self._messages / self._now * 1e6,
            acknowledged=self._messages / self._stored_at * 1e6,
            cores_share=self._work["all"] / self._now / self._cores,
            main_share=self._work["main"] / self._now,
            worker_share=max(worker.busy for worker in self._workers) / self._now,
            charts_share=self._work["charts"] / self._now,
        )

    @staticmethod
    def _next(thread: _Thread) -> None:
        work = next(thread.steps, None)
        thread.waits = work is None
        thread.left = work or 0.0

    def _senders(self) -> _Steps:
        """The load and the main process in turn: senders that wait for their answer leave each other no more."""
        while self._stored < self._messages:
            group = min(GROUP, self._messages - self._stored)
            yield group * self._costs.generator
            began = self._now
            yield group * self._costs.main
            self._work["main"] += self._now - began
            self._stored += group
            self._stored_at = self._now
            self._wake()

    def _process(self, worker: _Worker) -> _Steps:
        has_destination = worker is self._workers[0]
        while True:
            batch = self._batch(worker)
            if not batch and not (has_destination and self._undelivered):
                yield None
                continue
            began = self._now
            if batch:
                yield batch * self._costs.work
                yield from self._write(batch * self._costs.record)
                worker.done += batch
                self._recorded += batch
                self._undelivered += batch
                self._wake()
            if has_destination and self._undelivered:
                sent = min(self._undelivered, BATCH_MAX)
                self._undelivered -= sent
                yield sent * self._costs.deliver
                yield from self._write(sent * self._costs.settle)
            worker.busy += self._now - began

    def _batch(self, worker: _Worker) -> int:
        """How many of its messages are stored and not recorded, a batch at most."""
        end = worker.done
        while end < len(worker.arrivals) and end - worker.done < BATCH_MAX and worker.arrivals[end] < self._stored:
            end += 1
        return end - worker.done

    def _write(self, work: float) -> _Steps:
        """Work that one thread at a time can do, in the order in which they came."""
        turn = object()
        self._writer.append(turn)
        while self._writer[0] is not turn:
            yield None
        began = self._now
        yield work
        self._work["charts"] += self._now - began
        self._writer.popleft()
        self._wake()

    def _wake(self) -> None:
        """Whoever waits looks again."""
        for thread in self._threads:
            thread.waits = False
