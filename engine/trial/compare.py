"""Recorded messages under today's configuration and a candidate's, side by side; nothing is written.

See docs/decisions/0022-runs-beside-the-live-one.md for the charts that both begin with, and for how the work is shared.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from multiprocessing import get_context
from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from engine.domain.message import Entry, EntryState
from engine.errors import HandoffError
from engine.pipeline import faults
from engine.pipeline.acceptance import Rules, judge
from engine.pipeline.channel import CompiledChannel, CompiledConfiguration
from engine.runtime.worker import die_with_parent
from engine.store.recorded import Place, families, of_charts, received
from engine.store.schema import from_micros
from engine.store.store import Store
from engine.trial.differences import Comparer, Difference, Kind, Side
from engine.trial.run import Run

_PROCESSES_MAX: Final = 16
_WARM_UP_ENTRIES_MAX: Final = 1_000_000
EXAMPLES_MAX: Final = 100
"""Messages that are kept of each cause, with all their differences by it."""
CAUSES_MAX: Final = 500
"""Further ones are counted together."""
_NICENESS: Final = 15
"""A comparison can wait, the feeds of a daemon beside it can't: it comes behind the workers too."""
_PIECE: Final = 256
"""Entries that are read at once."""

_OF_THEIR_MOMENT: Final = frozenset(
    one.error
    for one in (
        faults.BATCH_TOO_LONG, faults.BROKEN, faults.CONFLICT, faults.FRAME_CUT, faults.FRAME_REST, faults.OVERSIZE,
        faults.SEQUENCE_NUMBER_HIGH, faults.SEQUENCE_NUMBER_LOW, faults.STORE_UNAVAILABLE, faults.TOO_MANY_CONNECTIONS,
    )
)  # fmt: skip
"""Refusals that do not follow from what the message says: they stay."""
_IDENTITY_RULES: Final = (
    "patient.identifiers",
    "encounter.visit_number",
    "merge.identifiers",
    "merge.account",
    "merge.visit",
)


class CompareError(HandoffError):
    """A comparison could not be finished."""


@dataclass(frozen=True, slots=True)
class Part:
    """Messages of patients that no other part has, in the order of their ids. counted: 1 for those to be compared."""

    ids: array[int]
    counted: bytearray


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be compared."""

    parts: tuple[Part, ...]
    messages: int
    warm_up: int
    """Messages that are only there so that the charts are as they were."""
    first: int
    """The first entry to be compared: what is before it is the same for both."""
    first_at: datetime | None = None
    last_at: datetime | None = None


@dataclass(slots=True)
class Cause:
    """Differences that have the same cause."""

    kind: Kind
    text: str
    path: str
    messages: int = 0
    last: int = -1
    """The entry that was counted last."""
    examples: list[tuple[int, str, Any, Any]] = field(default_factory=list)
    """Entry, path, before, after: of the first messages."""


@dataclass(slots=True)
class Findings:
    """What a comparison found."""

    compared: int = 0
    same: int = 0
    changed: int = 0
    newly_filtered: int = 0
    newly_failing: int = 0
    unreadable: int = 0
    """Not compared: what is stored of them is damaged, or was swept."""
    causes: dict[tuple[Kind, str], Cause] = field(default_factory=dict)

    def add(self, entry: int, before: EntryState, after: EntryState, differences: Sequence[Difference]) -> None:
        self.compared += 1
        if not differences:
            self.same += 1
            return
        if after is not before and after is EntryState.FILTERED:
            self.newly_filtered += 1
        elif after in _FAILED and before not in _FAILED:
            self.newly_failing += 1
        else:
            self.changed += 1
        for one in differences:
            cause = self._cause(one.kind, one.cause, one.path)
            if cause.last != entry:
                cause.last = entry
                cause.messages += 1
            if cause.messages <= EXAMPLES_MAX:
                cause.examples.append((entry, one.path, one.before, one.after))

    def merge(self, other: Findings) -> None:
        """Take up what another part has found."""
        for name in ("compared", "same", "changed", "newly_filtered", "newly_failing", "unreadable"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for one in other.causes.values():
            cause = self._cause(one.kind, one.text, one.path)
            cause.messages += one.messages
            cause.examples = _oldest([*cause.examples, *one.examples])

    def sorted(self) -> list[Cause]:
        """The causes, what people should look at first before the rest, then by how many messages they have."""
        order = list(Kind)
        return sorted(self.causes.values(), key=lambda one: (order.index(one.kind), -one.messages, one.text))

    def _cause(self, kind: Kind, text: str, path: str) -> Cause:
        key = (kind, text)
        if key not in self.causes and len(self.causes) >= CAUSES_MAX:
            key = (kind, "other causes")
        return self.causes.setdefault(key, Cause(kind, key[1], path))


_FAILED: Final = frozenset({EntryState.DEAD, EntryState.REFUSED})


def _oldest(examples: list[tuple[int, str, Any, Any]]) -> list[tuple[int, str, Any, Any]]:
    """Those of the first EXAMPLES_MAX messages."""
    kept = set(sorted({one[0] for one in examples})[:EXAMPLES_MAX])
    return sorted((one for one in examples if one[0] in kept), key=lambda one: one[0])


# --- what is compared ------------------------------------------------------------------------------------------------


def plan(
    conn: Connection,
    channel: str,
    *,
    since: datetime,
    until: datetime | None,
    limit: int,
    warm_up: timedelta,
    whole: bool,
) -> Plan:
    """The channel's newest messages of this time, at most so many, and what was received of their patients before.

    whole: do not take them apart, because who is whose is open (`reads_identity_otherwise`).
    """
    counted = list(received(conn, channel, since=since, until=until, limit=limit))
    if not counted:
        return Plan((), 0, 0, 0)
    counted.reverse()
    first, last = counted[0], counted[-1]
    homes = families(conn, {one.chart for one in counted if one.chart is not None})
    others = of_charts(conn, homes, since=from_micros(first.received) - warm_up, before=last.id + 1)
    own = {one.id for one in counted}
    others = [one for one in others if one.id not in own][-_WARM_UP_ENTRIES_MAX:]
    places: dict[str, int] = {}
    for one in (*counted, *others):
        if one.chart is not None:
            places.setdefault(homes[one.chart], one.partition)
    parts: dict[int, list[Place]] = {}
    for one in (*counted, *others):
        at = 0 if whole else places[homes[one.chart]] if one.chart is not None else one.partition
        parts.setdefault(at, []).append(one)
    made = []
    for found in parts.values():
        found.sort(key=lambda one: one.id)
        made.append(Part(array("q", (one.id for one in found)), bytearray(one.id in own for one in found)))
    made.sort(key=lambda one: -len(one.ids))  # the longest first, so that none of them is waited for at the end
    return Plan(
        parts=tuple(made),
        messages=len(counted),
        warm_up=sum(one.id < first.id for one in others),
        first=first.id,
        first_at=from_micros(min(one.received for one in counted)),
        last_at=from_micros(max(one.received for one in counted)),
    )


def reads_identity_otherwise(before: CompiledConfiguration, after: CompiledConfiguration, channel: str) -> bool:
    """Whether the two may take the same messages for those of other patients."""
    old, new = before.channels[channel].settings, after.channels[channel].settings
    rules = [rules_of(one, channel) for one in (before, after)]
    return old.identity != new.identity or any(rules[0].get(name) != rules[1].get(name) for name in _IDENTITY_RULES)


def rules_of(configuration: CompiledConfiguration, channel: str) -> Mapping[str, Any]:
    """The rules of a channel's field mapping, by target."""
    mapping = configuration.channels[channel].settings.mapping
    value = configuration.source.snapshot.document(f"{configuration.site.mappings}/fields/{mapping}.yaml").value
    return value if isinstance(value, dict) else {}


# --- comparing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Two configurations, and how they are compared. Forked processes inherit it: closures can't be sent to them."""

    channel: str
    before: Mapping[str, CompiledChannel]
    after: Mapping[str, CompiledChannel]
    comparer: Comparer
    open: Callable[[], Store]
    """Opens the store, in each process once more."""
    rules: tuple[Mapping[str, Rules], Mapping[str, Rules]]
    """By which each takes in messages, by channel."""

    @classmethod
    def of(
        cls,
        channel: str,
        before: CompiledConfiguration,
        after: CompiledConfiguration,
        *,
        observed: Mapping[str, datetime],
        visible: Callable[[str, Any], bool],
        open: Callable[[], Store],  # noqa: A002
    ) -> Comparison:
        """observed: since when the patients of each channel are known."""
        comparer = Comparer(rules_of(before, channel), rules_of(after, channel), visible)
        old, new = _ready(before, observed), _ready(after, observed)
        rules = tuple({name: Rules.of(one.settings) for name, one in channels.items()} for channels in (old, new))
        return cls(channel, old, new, comparer, open, (rules[0], rules[1]))

    def run(self, plan: Plan, *, processes: int, progress: Callable[[int], None]) -> Findings:
        """Compare. progress: told how many messages were compared so far.

        With more than one process no connection to the store may be open in this one. Raises CompareError.
        """
        findings = Findings()
        if processes > 1 and len(plan.parts) > 1:
            for one in self._forked(plan, min(processes, len(plan.parts))):
                findings.merge(one)
                progress(findings.compared)
            return findings
        with self.open() as store:
            for part in plan.parts:
                done = findings.compared
                findings.merge(self.part(store, plan, part, lambda more: progress(done + more)))  # noqa: B023
        return findings

    def _forked(self, plan: Plan, processes: int) -> Iterator[Findings]:
        pool = ProcessPoolExecutor(processes, get_context("fork"), _begin, (self, plan, os.getpid()))
        try:
            for done in as_completed([pool.submit(_work, at) for at in range(len(plan.parts))]):
                yield done.result()
        except BrokenProcessPool:
            raise CompareError(
                "a process of the comparison ended unexpectedly, for want of memory perhaps: try a lower --limit"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def part(self, store: Store, plan: Plan, part: Part, progress: Callable[[int], None] = lambda _: None) -> Findings:
        """Compare the messages of one part."""
        findings = Findings()
        before, after = Run(self.before), Run(self.after)
        apart = False
        for entry, counted in _entries(store, part):
            if entry.damaged or (not entry.payload and entry.refusal is None):
                findings.unreadable += counted
                continue
            if entry.id < plan.first:  # the same for both
                before.decide(before.prepare(entry), entry.received_at)
                continue
            if not apart:
                apart, after.charts = True, before.charts.copy()
            sides: list[Side] = []
            for run, one in zip((before, after), self._admitted(entry), strict=True):
                sides.append(Side(run.decide(run.prepare(one), one.received_at), run.charts))
            if counted:
                states = [side.step.outcome.state for side in sides]
                findings.add(entry.id, states[0], states[1], self.comparer.differences(*sides))
                if findings.compared % _PIECE == 0:
                    progress(findings.compared)
        return findings

    def _admitted(self, entry: Entry) -> tuple[Entry, Entry]:
        """The entry as each configuration takes it in."""
        if entry.refusal is not None and entry.refusal.error in _OF_THEIR_MOMENT:
            return entry, entry
        rules = [one.get(entry.channel) for one in self.rules]
        if entry.refusal is None and rules[0] == rules[1]:
            return entry, entry
        refusals = [judge(one, entry.payload).refusal if one is not None else entry.refusal for one in rules]
        first, second = (msgspec.structs.replace(entry, refusal=one) for one in refusals)
        return first, second


def processes_of(plan: Plan) -> int:
    """As many as there are cores for us."""
    return max(1, min(len(os.sched_getaffinity(0)), len(plan.parts), _PROCESSES_MAX))


def _ready(configuration: CompiledConfiguration, observed: Mapping[str, datetime]) -> dict[str, CompiledChannel]:
    """Its channels, as if all were live and of the same version."""
    return {
        name: replace(
            channel,
            version="",
            settings=channel.settings.model_copy(update={"mode": "live"}),
            observed_since=observed.get(name),
        )
        for name, channel in configuration.channels.items()
    }


def _entries(store: Store, part: Part) -> Iterator[tuple[Entry, bool]]:
    """The entries of a part, read some at a time."""
    at = 0
    while at < len(part.ids):
        wanted = part.ids[at : at + _PIECE].tolist()
        with store.reader() as conn:
            found = store.journal.entries(conn, wanted)
        places = {one.id: one for one in found}
        taken = len(wanted) if len(found) == len(wanted) else wanted.index(found[-1].id) + 1 if found else len(wanted)
        for number, one in enumerate(wanted[:taken]):
            if one in places:
                yield places[one], bool(part.counted[at + number])
        at += taken


_job: tuple[Comparison, Plan, Store] | None = None
"""Of a forked process: what it works for, and its own connection to the store."""


def _begin(comparison: Comparison, plan: Plan, parent_pid: int) -> None:
    die_with_parent(parent_pid)
    os.nice(_NICENESS)
    global _job  # noqa: PLW0603 - the one thing that a process of a pool keeps between two calls
    _job = (comparison, plan, comparison.open())


def _work(at: int) -> Findings:
    if _job is None:  # pragma: no cover - `_begin` has run
        raise CompareError("the process was not set up")
    comparison, plan, store = _job
    return comparison.part(store, plan, plan.parts[at])
