"""What must always be so, checked against what the database commits, what senders are told and destinations get."""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec
from simulation import installed
from simulation.database import Database, Observed, Session, read_all
from simulation.destinations import Destination
from simulation.hospital import Message, Script
from simulation.world import BEGIN, World

from engine.domain.cause import QuestionDismissed
from engine.domain.cause import read as read_act
from engine.domain.chart import Chart, Charts
from engine.domain.delivery import ADDRESSED, Operation, QueuedDelivery
from engine.domain.hold import Hold, HoldState, hold_key
from engine.domain.message import LANES, Entry, EntryKind
from engine.domain.outcome import Outcome
from engine.domain.page import WAITING, Page, PageState, page_id
from engine.domain.patient import Identifier
from engine.domain.shapes import plain
from engine.domain.task import ON_CALL_PAGE, Task, TaskState
from engine.pipeline.process import decide, prepare
from engine.store.charts import ChartStore, identity_hash
from engine.store.counts import ledger
from engine.store.due import overdue
from engine.store.holds import Holds, ListedHold
from engine.store.journal import Journal
from engine.store.leases import destination_number
from engine.store.outbox import Outbox
from engine.store.pages import PageStore
from engine.store.tallies import problems
from engine.store.tasks import TaskStore

SLOW_SECONDS_MAX = 10.0
"""So far a machine's clock may be behind, with the drift."""


@dataclass
class _Delivery:
    id: int
    destination: str
    line: str
    """The ordering key that it was queued with."""
    key: str
    operation: str
    state: str = "pending"


@dataclass
class Checks:
    """The truth about a run. Every method that finds it broken says so to the world."""

    world: World
    database: Database
    destinations: dict[str, Destination]
    acknowledged: set[str] = field(default_factory=set)
    entries: dict[int, tuple[str, int, bytes]] = field(default_factory=dict)
    """What is committed: channel, partition, digest."""
    outcomes: dict[int, str] = field(default_factory=dict)
    deliveries: dict[int, _Delivery] = field(default_factory=dict)
    unheard: dict[str, set[int]] = field(default_factory=lambda: {"entry": set(), "repeat": set()})
    """Arrivals that were stored though it did not look so: their answers stay owed until the node starts again."""
    _by_digest: dict[bytes, int] = field(default_factory=dict)
    _causes: dict[bytes, int] = field(default_factory=dict)
    _lists: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    _done: dict[tuple[str, int], int] = field(default_factory=dict)
    """How many of a partition's entries have their outcome."""
    _first: dict[tuple[str, str], int] = field(default_factory=dict)
    """The last delivery that came for the first time, by destination and line."""
    _told: dict[str, set[int]] = field(default_factory=dict)
    """Deliveries that destinations have got."""
    _merges: list[tuple[_Delivery, str]] = field(default_factory=list)
    """What destinations were told of a merge, and the line of the patient that was merged away."""
    _owners: dict[bytes, list[str]] = field(default_factory=dict)
    """The charts that an identity has led to, one after the other."""
    _controls: dict[bytes, str] = field(default_factory=dict)
    _wait_for_outcome: set[str] = field(default_factory=set)
    _unsettled: set[int] = field(default_factory=set)
    """Deliveries that are neither delivered nor dead nor withheld."""
    _over: set[str] = field(default_factory=set)
    """Pages that were acknowledged or resolved: each asks for nothing more, and nobody here undoes anything."""
    _looked_at: float = -1.0
    """When it was last looked for deadlines that have come."""
    _balanced: bool = False
    """Whether the ledger was looked at since something was committed last."""

    def expect(self, scripts: Sequence[Script]) -> None:
        """What will be sent, so that the digests in the journal have names."""
        keys = self.database.disk.keys
        for script in scripts:
            for message in script.messages:
                self._controls[keys.lookup(message.payload)] = message.control_id
                if installed.CHANNELS[message.channel] == "processed":
                    self._wait_for_outcome.add(message.control_id)

    # --- while it goes on --------------------------------------------------------------------------------------------

    def before_commit(self, session: Session, changes: list[Observed]) -> None:
        if changes:
            self._balanced = False
            counts: dict[str, list[int]] = {}
            for change in changes:
                counts.setdefault(change.what, []).append(change.id)
            said = ", ".join(
                f"{what} {ids}" for what, ids in counts.items() if what not in {"cursor", "identity", "page"}
            )
            self.world.note(f"{session.process.name} commits {said or 'cursors'}")
        for change in changes:
            getattr(self, f"_{change.what.replace('-', '_')}")(session, change)
        # Entries of one transaction are looked at as a whole: the cursor moves before the outcomes are written.
        for change in changes:
            if change.what == "cursor":
                self._moved(change)
            elif change.what == "page" and change.b in {PageState.ACKNOWLEDGED, PageState.RESOLVED}:
                self._over.add(change.a)
            elif change.what == "page" and change.b in WAITING:  # its task stands again
                self._over.discard(change.a)

    def unknown(self, changes: list[Observed]) -> None:
        """These are committed, and whoever did it is told that it is not known."""
        for change in changes:
            if change.what in self.unheard:
                self.unheard[change.what].add(change.id if change.what == "entry" else change.a)

    def acknowledge(self, message: Message) -> None:
        """A sender was told AA."""
        entry = self._by_digest.get(self.database.disk.keys.lookup(message.payload))
        if entry is None:
            self.world.fail(f"{message.control_id} was acknowledged and is not stored")
        elif message.control_id in self._wait_for_outcome and entry not in self.outcomes:
            self.world.fail(f"{message.control_id} was answered as processed and is not")
        self.acknowledged.add(message.control_id)

    def sent(self, destination: str, queued: QueuedDelivery) -> None:
        """A worker sends this now: nobody may who was not looking when others went on without him."""
        known = self.deliveries.get(queued.id)
        if known is not None and self._first.get((destination, known.line), 0) > queued.id:
            newer = self._first[destination, known.line]
            self.world.fail(f"{destination} is sent delivery {queued.id}, though {newer} of the same patient has come")

    def received(self, destination: str, queued: QueuedDelivery, first: bool) -> None:
        known = self.deliveries.get(queued.id)
        if known is None:
            self.world.fail(f"{destination} gets delivery {queued.id}, which is not in the outbox")
            return
        if known.key != queued.delivery.idempotency_key:
            self.world.fail(f"delivery {queued.id} goes out under another idempotency key")
        if not first:
            if not self.destinations[destination].idempotent:
                self.world.fail(f"{destination} acts twice on delivery {queued.id}")
            return
        line = (destination, known.line)
        if self._first.get(line, 0) > queued.id:
            self.world.fail(f"{destination} gets delivery {queued.id} after {self._first[line]} of the same patient")
        self._first[line] = queued.id
        told = self._told.setdefault(destination, set())
        told.add(queued.id)
        for merge, merged in self._merges:
            if merge.destination == destination and merge.id in told and known.line == merged and queued.id < merge.id:
                self.world.fail(f"{destination} gets delivery {queued.id} of a patient after it was merged away")
        if known.operation == Operation.MERGE_PATIENT.value:
            self._check_merge(known, queued)

    def _check_merge(self, merge: _Delivery, queued: QueuedDelivery) -> None:
        """Whatever was queued for the merged patient before has to be there, or to be dead."""
        said = msgspec.json.decode(queued.delivery.payload)
        authority, _, number = said["merged"].partition(":")
        owners = self._owners[identity_hash(self.database.disk.keys, authority, "MR", number)]
        if (before := owners.index(merge.line)) > 0:  # else nothing was known of the merged patient
            self._merges.append((merge, owners[before - 1]))

    # --- changes that are about to be committed ----------------------------------------------------------------------

    def _entry(self, session: Session, change: Observed) -> None:
        number, channel, partition, digest = change.id, change.channel, change.a, bytes(change.b)
        if number in self.entries or number != len(self.entries) + 1:
            self.world.fail(f"entry {number} is not the next one of the journal")
        self.entries[number] = (channel, partition, digest)
        self._lists.setdefault((channel, partition), []).append(number)
        if channel in {EntryKind.DUE.lane, EntryKind.REPLY.lane} and digest in self._causes:
            self.world.fail(f"one cause is in the journal twice: {self._causes[digest]}, {number}")
        if change.c is not None or channel in LANES:
            self._causes[digest] = number
            return  # a replay, what a person does, what is due
        if digest in self._by_digest:
            self.world.fail(
                f"{self._controls.get(digest)} is in the journal twice: {self._by_digest[digest]}, {number}"
            )
        if digest not in self._controls:
            self.world.fail(f"entry {number} is nothing that was sent")
        self._by_digest[digest] = number

    def _repeat(self, session: Session, change: Observed) -> None:
        if change.id not in self.entries:
            self.world.fail(f"a repeat of entry {change.id}, which is not there")

    def _entry_deleted(self, session: Session, change: Observed) -> None:
        self.world.fail(f"entry {change.id} was deleted")

    def _outcome(self, session: Session, change: Observed) -> None:
        entry = self.entries.get(change.id)
        if entry is None:
            self.world.fail(f"an outcome for entry {change.id}, which is not in the journal")
            return
        if change.id in self.outcomes:
            self.world.fail(f"entry {change.id} was processed twice")
        self.outcomes[change.id] = change.a
        place = entry[:2]
        done = self._done.get(place, 0)
        if self._lists[place][done] != change.id:
            self.world.fail(f"entry {change.id} was processed before {self._lists[place][done]} of the same partition")
        self._done[place] = done + 1
        self._owned(session, place[1], f"entry {change.id}")

    def _cursor(self, session: Session, change: Observed) -> None:
        if change.b <= change.a:
            self.world.fail(f"the cursor of partition {change.id} was set back from {change.a} to {change.b}")
        self._owned(session, change.id, f"the cursor of partition {change.id}")

    def _moved(self, change: Observed) -> None:
        place = (change.channel, change.id)
        behind = bisect_right(self._lists.get(place, []), change.b)
        if behind > self._done.get(place, 0):
            entry = self._lists[place][self._done.get(place, 0)]
            self.world.fail(f"the cursor of partition {change.id} went over entry {entry}, which has no outcome")

    def _delivery(self, session: Session, change: Observed) -> None:
        if any(known.key == change.b for known in self.deliveries.values()):
            self.world.fail(f"delivery {change.id} has the idempotency key of another one")
        if change.c == Operation.NOTIFY.value and change.b.rpartition("-")[0] in self._over:
            self.world.fail(f"somebody is called with {change.b}, and that page was acknowledged or resolved")
        self._unsettled.add(change.id)
        self.deliveries[change.id] = _Delivery(change.id, change.channel, change.a, change.b, change.c)

    def _settled(self, session: Session, change: Observed) -> None:
        known = self.deliveries[change.id]
        known.state = change.b
        if change.b in {"delivered", "dead", "withheld"}:
            self._unsettled.discard(change.id)
        destination = self.destinations[known.destination]
        if change.a in {"delivered", "dead", "withheld"}:
            self.world.fail(f"delivery {change.id} was {change.a} and became {change.b}")
        kept = self.world.rules and installed.is_withheld(known.destination, known.key)
        not_needed = known.operation in ADDRESSED and change.b == "withheld"  # an acknowledgment has taken it back
        if change.b != "pending" and (change.b == "withheld") != kept and not not_needed:
            self.world.fail(f"delivery {change.id} became {change.b}, and not what the rules of {destination.name} say")
        if change.b == "delivered" and known.key not in destination.acts:
            self.world.fail(f"delivery {change.id} counts as delivered, and {destination.name} has never got it")
        if change.b == "dead" and known.key not in destination.refused:
            self.world.fail(f"delivery {change.id} was buried, and {destination.name} has never refused it")
        if not session.process.name.startswith("operator"):
            self._owned(session, destination_number(known.destination), f"delivery {change.id}")

    def _attempt(self, session: Session, change: Observed) -> None:
        self._owned(session, destination_number(change.channel), f"an attempt of delivery {change.id}")

    def _attempt_over(self, session: Session, change: Observed) -> None:
        """What came of it is another change."""

    def _line(self, session: Session, change: Observed) -> None:
        """A merge joins lines: the order of receipt is checked by the lines that deliveries were queued in."""

    def _page(self, session: Session, change: Observed) -> None:
        """One that is over calls nobody from the next transaction on, until its task stands again."""

    def _identity(self, session: Session, change: Observed) -> None:
        owners = self._owners.setdefault(bytes(change.a), [])
        if change.b in owners:
            self.world.fail(f"an identity leads to chart {change.b} again, which it was taken from")
        owners.append(change.b)

    def _owned(self, session: Session, number: int, what: str) -> None:
        holder = self.database.holders.get(number)
        if holder is not session and holder is not session.process:
            name = getattr(holder, "name", None) or (holder.process.name if isinstance(holder, Session) else "nobody")
            self.world.fail(f"{session.process.name} writes for {what}, which belongs to {name}")

    # --- at any time, and at the end ---------------------------------------------------------------------------------

    def balance(self) -> None:
        """The engine's own count, of what is committed now. It is the same until something else is."""
        if self._balanced:
            return
        self._balanced = True
        for line in read_all(self.database.disk, lambda conn: ledger(conn, installed.CHANNELS)):
            if not line.balanced:
                self.world.fail(f"the ledger of {line.channel} is not balanced")

    def settled(self) -> bool:
        """Everything has been worked off, and no deadline has come that has not rung."""
        if self._unsettled or len(self.outcomes) != len(self.entries) or self.world.now < self._looked_at + 0.2:
            return False
        self._looked_at = self.world.now
        return self._overdue() == 0

    def _overdue(self) -> int:
        """Of those of which every machine's clock says that they have come."""
        now = BEGIN + timedelta(seconds=self.world.now + self.world.leapt_seconds - SLOW_SECONDS_MAX)
        return read_all(self.database.disk, lambda conn: overdue(conn, now)).charts

    def waiting(self) -> str:
        entries = sorted(self.entries.keys() - self.outcomes.keys())
        return f"entries {entries}, deliveries {sorted(self._unsettled)}, {self._overdue()} charts that are due"

    def finish(self, scripts: Sequence[Script]) -> None:
        """To be called when all is quiet."""
        messages = [message for script in scripts for message in script.messages]
        missing = [message.control_id for message in messages if message.control_id not in self.acknowledged]
        if missing:
            self.world.fail(f"never acknowledged: {missing}")
        for number, state in self.outcomes.items():
            if state != "processed":
                self.world.fail(f"entry {number} is {state}")
        self.balance()
        self._check_journal(messages)
        self._check_deliveries()
        self._check_charts()
        self._check_tasks_and_pages()
        for _, kind, detail in read_all(self.database.disk, lambda conn: list(problems(self.database.disk.keys, conn))):
            self.world.fail(f"`audit verify` would say {kind}: {detail}")

    def _check_journal(self, messages: Sequence[Message]) -> None:
        disk = self.database.disk
        journal = Journal(disk.keys)
        stored = {entry.summary.control_id: entry for entry in self._stored(journal) if entry.replay_of is None}
        for message in messages:
            entry = stored.get(message.control_id)
            if entry is None or entry.payload != message.payload:
                self.world.fail(f"{message.control_id} is not in the journal as it was sent")
        for table in ("entry", "repeat"):
            select = f"SELECT id FROM {table} WHERE ack_state = 'owed'"
            owed = read_all(disk, lambda conn, select=select: set(conn.exec_driver_sql(select).scalars()))  # type: ignore[misc]
            if owed - self.unheard[table]:
                self.world.fail(f"answers are owed for ever: {table} {sorted(owed - self.unheard[table])}")
        lines = read_all(disk, lambda conn: ledger(conn, installed.CHANNELS))
        for line in lines:
            if line.pending or line.dead or line.refused or line.filtered:
                self.world.fail(f"the ledger of {line.channel} counts what is not there")
        if sum(line.processed for line in lines) != len(self.entries) or len(stored) != len(messages):
            self.world.fail("the ledger does not count what was sent")

    def _check_tasks_and_pages(self) -> None:
        """Deadlines and acts may fall either way, but nobody is called twice, or for nothing, or not at all."""
        disk = self.database.disk
        charts = ChartStore(disk.keys)
        tasks = {one.task.id: one.task for one in read_all(disk, lambda conn: TaskStore(charts).find(conn, limit=None))}
        pages = {one.page.id: one.page for one in read_all(disk, lambda conn: PageStore(charts).find(conn, limit=None))}
        notified = Counter(known.key for known in self.deliveries.values() if known.operation == Operation.NOTIFY.value)
        for task in tasks.values():
            self._check_task(task, tasks, pages)
        for page in pages.values():
            self._check_page(page, tasks[page.task])
            calls = {f"{page.id}-{number}" for number, step in enumerate(page.steps, 1) if step.person is not None}
            for key in calls:
                del notified[key]
        if notified:
            self.world.fail(f"notified of what no page has called for: {sorted(notified)}")

    def _check_task(self, task: Task, tasks: dict[str, Task], pages: dict[str, Page]) -> None:
        rungs = [one for one in task.escalations if one.why == "deadline"]
        if len(rungs) > len(task.ladder) or len({one.alert for one in rungs if one.alert}) != sum(
            one.alert is not None for one in rungs
        ):
            self.world.fail(f"task {task.id} was escalated twice")
        if any(one.alert is not None and one.alert not in tasks for one in rungs):
            self.world.fail(f"the alert of task {task.id} was never raised")
        if task.page is not None and task.stands and page_id(task.id) not in pages:
            self.world.fail(f"nobody is called for task {task.id}")

    def _check_page(self, page: Page, task: Task) -> None:
        acknowledged = page.state is PageState.ACKNOWLEDGED
        if page.state is not PageState.RESOLVED and not task.stands and not (acknowledged and page.closes):
            self.world.fail(f"page {page.id} is {page.state}, and its task {task.state}")
        if page.state in WAITING and page.next_at is None:
            self.world.fail(f"page {page.id} is {page.state} for ever")
        if page.state is PageState.EXHAUSTED and task.state is not TaskState.MISSED:
            self.world.fail(f"nobody has acknowledged page {page.id}, and its task is {task.state}")
        calls = [(step.round, step.loop, step.level, step.person, step.contact) for step in page.steps if step.person]
        if len(set(calls)) != len(calls):
            self.world.fail(f"page {page.id} has called somebody twice: {calls}")

    def _stored(self, journal: Journal) -> list[Entry]:
        disk = self.database.disk
        found: list[Entry] = []
        for channel in installed.CHANNELS:
            found += read_all(
                disk,
                lambda conn, channel=channel: journal.entries(  # type: ignore[misc]
                    conn, [id_ for id_, _ in journal.after(conn, channel, 0, 100_000)]
                ),
            )
        return found

    def _check_deliveries(self) -> None:
        told = {
            name: Counter(
                (known.line, known.operation)
                for known in self.deliveries.values()
                if known.destination == name and known.operation not in ADDRESSED
            )
            for name in (installed.CRM, installed.COPY)
        }
        if told[installed.CRM] != told[installed.COPY]:
            self.world.fail("two destinations that want the same were not given the same")
        for known in self.deliveries.values():
            acts = self.destinations[known.destination].acts.get(known.key, 0)
            if known.state == "withheld" and known.operation in ADDRESSED:
                continue  # it was on its way once when it was taken back, or not
            if acts != (1 if known.state == "delivered" else 0):
                self.world.fail(f"delivery {known.id} is {known.state}, and {known.destination} has acted {acts} times")
        unfinished = read_all(self.database.disk, Outbox(self.database.disk.keys).unfinished)
        if unfinished:
            self.world.fail(f"the outbox still holds {unfinished}")

    def _check_charts(self) -> None:
        """The charts, and what is asked, are what the entries come to when they are worked on in their order."""
        disk = self.database.disk
        entries = sorted(self._stored(Journal(disk.keys)), key=lambda entry: entry.id)
        first = read_all(disk, Journal(disk.keys).first_received)
        charts, questions = Charts(), Questions()
        for entry in entries:
            channel = dataclasses.replace(
                installed.compiled(disk).channels[entry.channel], observed_since=first[entry.channel]
            )
            outcome = decide(prepare(entry, channel), channel, charts, BEGIN)
            questions.take(outcome)
            for chart in outcome.charts:
                charts.add(chart)
        self._check_questions(questions, charts)
        real = read_all(disk, lambda conn: ChartStore(disk.keys).load(conn, charts.aliases.keys(), ()))
        compared: dict[str, str] = {}
        for identity in charts.aliases:
            identifier = Identifier(authority=identity[0], type=identity[1], value=identity[2])
            wanted, found = charts.find(identifier), real.find(identifier)
            if wanted is None or found is None:
                self.world.fail("a patient is not there")
            # Which of a patient's messages has made the chart, and so its id, is nothing to anybody.
            elif wanted.id not in compared:
                compared[wanted.id] = found.id
                done = {task.id for task in found.tasks if task.state is TaskState.DONE}
                called = {page.task for page in found.pages if any(step.person is not None for step in page.steps)}
                self._compare(told(wanted, done, called), told(found, done, called), found.id)
            elif compared[wanted.id] != found.id:
                self.world.fail(f"charts {compared[wanted.id]} and {found.id} are one patient's")
        if len(set(compared.values())) != len(compared):
            self.world.fail("two patients have one chart")

    def _check_questions(self, wanted: Questions, charts: Charts) -> None:
        """What was asked is there, and open unless a person or a later event has answered it."""
        disk = self.database.disk
        holds = Holds(disk.keys)
        found: dict[Place, ListedHold] = {}
        for root in self.entries:
            for one in read_all(disk, lambda conn, root=root: holds.of_message(conn, root)):  # type: ignore[misc]
                found[one.root, one.code, one.location] = one
        if found.keys() != wanted.asked.keys():
            self.world.fail(f"other questions than were asked: {sorted(map(str, found.keys() ^ wanted.asked.keys()))}")
        dismissed = self._dismissed()
        merged = {chart.id for chart in charts.by_id.values() if chart.merged_into or chart.patient.merged_from}
        for place, hold in wanted.asked.items():
            one = found.get(place)
            if one is None or (hold.code.startswith("death") and hold.chart_id in merged):
                continue
            allowed = wanted.ended.get(place, set()) | ({HoldState.DISMISSED} if one.id in dismissed else set())
            under_way = one.state is HoldState.OPEN and one.decided_by is not None
            if one.state not in (allowed or {HoldState.OPEN}) and not under_way:
                self.world.fail(f"the question {place} is {one.state}, and not {sorted(allowed) or 'open'}")

    def _dismissed(self) -> set[int]:
        """The questions that a person has dismissed."""
        disk = self.database.disk
        journal, lane = Journal(disk.keys), EntryKind.ACT.lane
        acts = read_all(
            disk, lambda conn: journal.entries(conn, [id_ for id_, _ in journal.after(conn, lane, 0, 100_000)])
        )
        return {act.hold for act in (read_act(entry.payload) for entry in acts) if isinstance(act, QuestionDismissed)}

    def _compare(self, wanted: dict[str, Any], found: dict[str, Any], chart_id: str) -> None:
        for part, value in wanted.items():
            if value != found[part]:
                self.world.fail(f"chart {chart_id} has other {part}: {found[part]} instead of {value}")


Place = tuple[int, str, str | None]
"""A question: the entry that asked it first, its code, its location."""


@dataclass
class Questions:
    """What the entries of a journal ask, and how each question may have ended."""

    asked: dict[Place, Hold] = field(default_factory=dict)
    ended: dict[Place, set[HoldState]] = field(default_factory=dict)

    def take(self, outcome: Outcome) -> None:
        root = outcome.replay_root or outcome.entry_id
        now = {(root, one.code.value, one.location): one for one in outcome.holds}
        if outcome.replay_root is not None:
            for place in self.asked:
                if place[0] == root and place not in now:
                    released = outcome.decision == hold_key(place[1], place[2])
                    self.ended.setdefault(place, set()).add(HoldState.RELEASED if released else HoldState.SUPERSEDED)
        for place, one in now.items():
            if self.asked.setdefault(place, one) is not one and HoldState.SUPERSEDED in self.ended.get(place, ()):
                del self.ended[place]
        for fact in outcome.facts:
            for place, one in self.asked.items():
                of_patient = fact.encounter is not None or fact.chart_id == one.chart_id
                if place[0] != root and of_patient and fact.answers(one.code, one.subject, one.asserts):
                    self.ended.setdefault(place, set()).add(HoldState.SUPERSEDED)


def told(chart: Chart, done: AbstractSet[str], called: AbstractSet[str]) -> dict[str, Any]:
    """What a chart says, without when it was written, and without what the clock and people (done: these tasks) do.

    called: tasks whose pages the clock has rung. A task that is nothing but a call is over then when the patient is
    admitted again, whatever is corrected later; before, it waits with the others (`_set_aside` of
    `engine.pipeline.plan`), and a correction takes it back.

    How long a stay that goes on has lasted, and so its score, depends on when it was worked on.
    What merged patients' messages said may have been worked on in another order than they were sent in: it comes to the
    same, but a task that ended may have been or not have been in between. What is done for a merged patient is not
    wanted for another stay, so there tasks can't be compared.
    """

    def is_called(task: Task) -> bool:
        return task.kind == ON_CALL_PAGE and task.id in called

    def waits_for(task: Task) -> str | None:
        return None if is_called(task) else task.suspended_by

    def state(task: Task) -> str:
        if task.stands:
            return "stands"
        return "over" if is_called(task) else task.state

    ended = {one.key for one in chart.encounters if one.discharged_at is not None}
    merged = bool(chart.patient.merged_from)
    said = {
        "patient": msgspec.structs.replace(chart.patient, identifiers=(), merged_from=()),
        "identifiers": sorted((one.authority, one.type, one.value) for one in chart.patient.identifiers),
        "merged from": sorted(chart.patient.merged_from),
        "encounters": {one.key: one for one in chart.encounters},
        "scores": sorted(
            (one.model, one.encounter, one.min, one.max, one.band, one.band_max)
            for one in chart.scores
            if one.encounter in ended
        ),
        "tasks": {
            one.id: (one.kind, one.encounter, state(one), one.discharge, waits_for(one))
            for one in chart.tasks
            if one.raised_for is None and (one.stands and not done if merged else one.id not in done)
        },
    }
    return {part: plain(what) for part, what in said.items()}
