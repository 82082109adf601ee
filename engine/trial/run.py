"""The heart over charts in memory: what each entry comes to, one after the other, and nothing is recorded.

The one way in which something is tried: `handoff try`, the tests beside the files, `handoff replay --dry-run` and
`handoff compare` differ in where entries and charts come from, and in what they show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from engine.domain.chart import Chart, Charts
from engine.domain.message import Entry
from engine.domain.outcome import Outcome
from engine.domain.task import Task, TaskState
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.outcomes import internal_failure
from engine.pipeline.prepared import Prepared
from engine.pipeline.process import channel_of, decide, of_patient, prepare

BEHIND_ALL: Final = 1 << 40
"""An entry's id: what is tried comes after all that is stored."""


@dataclass(frozen=True, slots=True)
class Step:
    """What became of an entry, and the charts that it changed as they were before; none: there was no such chart."""

    prepared: Prepared
    outcome: Outcome
    before: Mapping[str, Chart | None]

    def tasks(self) -> Iterator[tuple[Task | None, Task]]:
        """Tasks that are new or in another state than before: before and after."""
        known = {task.id: task for chart in self.before.values() if chart is not None for task in chart.tasks}
        for chart in self.outcome.charts:
            for task in chart.tasks:
                old = known.get(task.id)
                if old is None or old.state is not task.state:
                    yield old, task


class Run:
    """Entries on their way through one configuration."""

    def __init__(self, channels: Mapping[str, CompiledChannel]) -> None:
        self.channels = channels
        self.charts = Charts()
        """What there is before the next entry."""

    def prepare(self, entry: Entry) -> Prepared:
        """Read an entry, as the worker does it: also what breaks the processing has an outcome."""
        channel = self.channels.get(entry.channel)
        try:
            return prepare(entry, channel)
        except Exception as error:  # noqa: BLE001 - as in `runtime.processor`
            return Prepared(entry=entry, outcome=internal_failure(entry, _version(channel), error))

    def decide(self, prepared: Prepared, now: datetime) -> Step:
        """Decide on it; the charts are as it leaves them then."""
        channel = self.channels.get(channel_of(prepared, self.charts))
        try:
            outcome = decide(prepared, channel, self.charts, now)
        except Exception as error:  # noqa: BLE001 - as above
            failed = internal_failure(prepared.entry, _version(channel), error)
            outcome = of_patient(failed, prepared, self.charts)
        before = {chart.id: self.charts.by_id.get(chart.id) for chart in outcome.charts}
        for chart in outcome.charts:
            self.charts.add(chart)
        return Step(prepared, outcome, before)


def told(old: Task | None, task: Task) -> str:
    """`pcp_follow_up new`: what became of a task."""
    return f"{task.kind} {'new' if old is None and task.state is TaskState.OPEN else task.state.value}"


def _version(channel: CompiledChannel | None) -> str:
    return channel.version if channel is not None else ""
