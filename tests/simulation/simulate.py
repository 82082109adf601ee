"""One run of the simulated hospital: everything in it follows from its seed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random as random_module
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from simulation import installed
from simulation.checks import Checks
from simulation.database import Database, Disk, SimulatedStore
from simulation.destinations import TRAVEL_SECONDS_MAX, Destination
from simulation.hospital import Sender, scripts
from simulation.mishaps import Game, Mishaps, Plan
from simulation.nodes import Cluster, simulated_surroundings
from simulation.world import Machine, Process, Violation, World

from engine.domain.cause import PageAcknowledged, QuestionDismissed, TaskDone
from engine.domain.delivery import DeliveryState
from engine.domain.hold import QUESTIONS, HoldCode, hold_key
from engine.domain.message import Receipt
from engine.domain.page import WAITING
from engine.domain.task import STANDING
from engine.errors import StoreError
from engine.hl7v2.header import read_header
from engine.hl7v2.ordering import ordering_key
from engine.store import admissions
from engine.store.causes import receipt_of
from engine.store.holds import ListedHold
from engine.store.outbox import Settled

QUIET_SECONDS_MAX = 400.0
_TRACE_LINES = 60
_LEAPS_SECONDS = [360.0, 1_900.0, 5 * 3_600.0, 4 * 86_400.0]
"""A level of a ladder, what somebody who has acknowledged may take, the earliest and almost all deadlines of tasks."""
_OPERATOR_SECONDS = TRAVEL_SECONDS_MAX + 0.5

AS_IT_COMES = Game()

Mutation = Callable[[], AbstractContextManager[object]]
"""Breaks the engine for the time of a run."""


@dataclass(frozen=True)
class Run:
    """What came of a seed. trace: everything that happened, line by line."""

    seed: int
    violation: str | None
    trace: list[str]
    messages: int
    steps: int
    seconds: float

    def report(self) -> str:
        lines = self.trace if os.environ.get("SIMULATION_TRACE") else self.trace[-_TRACE_LINES:]
        return (
            f"seed {self.seed}: {self.violation}\n"
            f"replay it: SIMULATION_SEED={self.seed} SIMULATION_TRACE=1 python -m pytest tests/simulation\n"
            + "\n".join(lines)
        )


def make_disk() -> Disk:
    """On memory where there is such a place: what is on disk is not what is tried here."""
    memory = Path("/dev/shm")
    return Disk(Path(tempfile.mkdtemp(prefix="handoff-simulation-", dir=memory if memory.is_dir() else None)))


def run(seed: int, disk: Disk, mutation: Mutation | None = None, game: Game = AS_IT_COMES) -> Run:
    """Simulate one seed. Nothing is raised for what goes wrong in it."""
    world = World(seed)
    elsewhere = random_module.getstate()
    random_module.seed(seed)  # couriers draw from it when they will try again
    disk.clear()
    collects = gc.isenabled()
    gc.disable()  # what is collected when depends on more than the seed
    violation, messages = None, 0
    try:
        with mutation() if mutation is not None else contextlib.nullcontext():
            messages = _play(world, disk, game, clustered=seed % 2 == 0)
    except Violation as error:
        violation = str(error)
    finally:
        random_module.setstate(elsewhere)
        if collects:
            gc.enable()
    return Run(seed, violation, world.trace, messages, world.steps, world.now)


def _play(world: World, disk: Disk, game: Game, *, clustered: bool) -> int:
    random = world.random
    plan = _plan(world, clustered=clustered if game.clustered is None else game.clustered)
    game.bend(plan)
    world.rules = world.rules if game.rules is None else game.rules
    world.note(f"{plan}")
    database = Database(world, disk, clustered=plan.clustered)
    machines = [Machine(world, random.uniform(-4, 4), random.uniform(-0.001, 0.001)) for _ in range(plan.nodes)]
    destinations: dict[str, Destination] = {}
    checks = Checks(world, database, destinations)
    for name, idempotent in ((installed.CRM, True), (installed.LAB, False), (installed.COPY, True)):
        destinations[name] = Destination(world, name, idempotent=idempotent, received=checks.received, sent=checks.sent)
    cluster = Cluster(world, database, destinations, machines, plan.workers)
    found = scripts(random, plan.senders, plan.messages)
    checks.expect(found)
    database.before_commit = checks.before_commit
    mishaps = Mishaps(world, plan, game)
    hospital = Process(world, "hospital", Machine(world))
    operator = Process(world, "operator", Machine(world))
    off_duty: list[bool] = []
    pause = plan.seconds / plan.messages
    senders = [
        Sender(world, hospital, script, pause, lambda c: cluster.connect(hospital, c), checks.acknowledge)
        for script in found
    ]
    with simulated_surroundings(world, cluster):
        try:
            cluster.start()
            mishaps.begin(cluster, database, checks.unknown)
            for sender in senders:
                hospital.spawn(sender.run())
            tool = SimulatedStore(database, operator, "tool")
            operator.spawn(_operate(operator, tool, destinations, off_duty))
            _watch(world, checks)
            for seconds in random.sample(_LEAPS_SECONDS, random.choice([0, 1, 2, 3])):
                world.after(random.uniform(0.5, 1.0) * plan.seconds, lambda seconds=seconds: world.leap(seconds))  # type: ignore[misc]
            world.run(lambda: world.now > plan.seconds, plan.seconds + 1.0)
            mishaps.end()
            world.note("from here on all goes well")
            done = world.run(lambda: all(one.done for one in senders) and checks.settled(), QUIET_SECONDS_MAX)
            if not done:
                stuck = [one.last for one in senders if not one.done]
                raise Violation(f"it never comes to rest: senders wait with {stuck}, {checks.waiting()}")
            off_duty.append(True)  # what is decided from here on would be under way at the end
            world.run(lambda: False, 1.2)  # the states of the last answers are noted
            if not world.run(checks.settled, QUIET_SECONDS_MAX):
                raise Violation(f"what a person did last never comes to rest: {checks.waiting()}")
            for seconds in _LEAPS_SECONDS:  # nobody acts any more: pages go on to their end
                world.leap(seconds)
                if not world.run(checks.settled, QUIET_SECONDS_MAX):
                    raise Violation(f"deadlines never come to rest: {checks.waiting()}")
            checks.finish(found)
            if world.violation is not None:
                raise world.violation
        finally:
            world.end()
    return sum(len(script.messages) for script in found)


def _plan(world: World, *, clustered: bool) -> Plan:
    random = world.random
    return Plan(
        clustered=clustered,
        nodes=random.choice([2, 2, 3]) if clustered else 1,
        workers=1 if clustered and random.random() < 0.7 else random.choice([1, 2, 3]),
        senders=random.choice([2, 3, 4]),
        messages=random.choice([4, 6, 10]),
        faults=random.choice([0, 1, 2, 3, 5, 8]),
        seconds=random.choice([2.0, 5.0, 9.0, 14.0] if clustered else [1.5, 3.0, 6.0]),
    )


def _watch(world: World, checks: Checks) -> None:
    def look() -> None:
        checks.balance()
        world.after(world.random.uniform(0.5, 5.0), look)

    world.after(0.5, look)


async def _operate(
    process: Process, store: SimulatedStore, destinations: dict[str, Destination], off_duty: list[bool]
) -> None:
    """The person who decides on what is held: looks at the destination whether it is there, and answers questions."""
    seen: dict[int, float] = {}
    dismissed: set[int] = set()
    attended: set[str] = set()
    while not off_duty:
        await asyncio.sleep(1.0)
        if off_duty:
            return
        with contextlib.suppress(StoreError):
            for asked in await store.read(store.holds.find):
                await _answer(process, store, asked, dismissed)
        with contextlib.suppress(StoreError):
            await _attend(process, store, attended)
        with contextlib.suppress(StoreError):
            for said in await store.read(admissions.find) if process.world.rules else ():
                at, number = process.machine.now(), said.delivery_id
                await store.charts_ledger.write(
                    lambda conn, at=at, number=number: admissions.decide(
                        conn, store.keys, number, "dismissed", by="operator", now=at
                    )
                )
        with contextlib.suppress(StoreError):
            for queued in await store.read(lambda conn: store.outbox.held(conn)):
                now = process.world.now
                if now - seen.setdefault(queued.id, now) < _OPERATOR_SECONDS:
                    continue
                del seen[queued.id]
                there = queued.delivery.idempotency_key in destinations[queued.delivery.destination].acts
                done = Settled(id=queued.id, state=DeliveryState.DELIVERED, attempts=queued.attempts)
                at = process.machine.now()
                process.world.note(f"operator: delivery {queued.id} is {'there' if there else 'not there'}")
                if there:
                    await store.charts_ledger.write(
                        lambda conn, done=done, at=at: store.outbox.settle(conn, [done], at)
                    )
                else:
                    await store.charts_ledger.write(
                        lambda conn, id_=queued.id, at=at: store.outbox.release(conn, id_, at)
                    )


async def _attend(process: Process, store: SimulatedStore, attended: set[str]) -> None:
    """Acknowledge every third page, and do every fourth task. Raises StoreError."""
    acts: list[tuple[str, PageAcknowledged | TaskDone]] = []
    for page in await store.read(lambda conn: store.pages.find(conn, states=WAITING, limit=None)):
        if int(page.page.id[-2:], 16) % 3 == 0:
            acknowledged = PageAcknowledged(
                actor="operator", chart_id=page.chart_id, page=page.page.id, by="example-backup"
            )
            acts.append((page.page.id, acknowledged))
    acts += [
        (one.task.id, TaskDone(actor="operator", chart_id=one.chart_id, task=one.task.id))
        for one in await store.read(lambda conn: store.tasks.find(conn, states=STANDING, limit=None))
        if int(one.task.id[-2:], 16) % 4 == 1
    ]
    for subject, act in acts:
        if subject not in attended:
            attended.add(subject)
            process.world.note(f"operator: {type(act).__name__} of {subject}")
            receipt = receipt_of(store.keys, act, process.machine.now())
            await store.journal_ledger.write(lambda conn, receipt=receipt: store.journal.append(conn, [receipt]))  # type: ignore[misc]


async def _answer(process: Process, store: SimulatedStore, asked: ListedHold, dismissed: set[int]) -> None:
    """Release what every third entry asks and dismiss what every third asks, as the commands do. Raises StoreError.

    Whether a patient has died is left open: what merged patients' messages said of it may come in any order.
    """
    if asked.code.startswith("death"):
        return
    at, reason = process.machine.now(), "so it is"
    if asked.root % 3 == 0 and QUESTIONS[HoldCode(asked.code)].can_be_released:
        await store.charts_ledger.write(
            lambda conn: store.holds.begin_release(conn, asked.id, by="operator", reason=reason, now=at)
        )
        entry = await store.read(lambda conn: store.journal.entry(conn, asked.root))
        assert entry is not None
        receipt = Receipt(
            channel=entry.channel,
            peer=entry.peer,
            received_at=at,
            payload=entry.payload,
            summary=entry.summary,
            dedupe_key=None,
            digest=store.keys.lookup(entry.payload),
            ordering_key=ordering_key(entry.payload, read_header(entry.payload)),
            replay_of=entry.id,
            decision=hold_key(asked.code, asked.location),
        )
    elif asked.root % 3 == 1 and asked.decided_at is None and asked.id not in dismissed:
        act = QuestionDismissed(
            actor="operator", chart_id=asked.chart_id, reason=reason, hold=asked.id, root=asked.root,
            code=asked.code, location=asked.location,
        )  # fmt: skip
        receipt = receipt_of(store.keys, act, at)
        dismissed.add(asked.id)
    else:
        return
    process.world.note(f"operator: {asked.code} of entry {asked.root} is {'so' if receipt.replay_of else 'not so'}")
    await store.journal_ledger.write(lambda conn: store.journal.append(conn, [receipt]))
