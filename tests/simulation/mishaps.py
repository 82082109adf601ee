"""What goes wrong in a run, drawn from its seed: mostly at a few spots, so that each run tries something of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from simulation.database import Database, Observed, Session
from simulation.destinations import Destination, Troubles
from simulation.nodes import Cluster
from simulation.world import Machine, Process, World

from engine.runtime import hints

SPOTS = (
    "journal-begin", "journal-commit", "journal-committed", "charts-begin", "charts-commit", "charts-committed",
    "charts-nothing", "connect", "group", "read", "have-read", "beat", "beaten", "deliver", "delivered",
)  # fmt: skip
_RATE = 0.0004
_SLOW = 0.02


@dataclass
class Plan:
    """How a run is to go."""

    clustered: bool
    nodes: int
    workers: int
    senders: int
    messages: int
    faults: int
    """At most so many, so that there is something to see of the work as well."""
    seconds: float
    """So long things go wrong; then all must come right."""


@dataclass(frozen=True)
class Game:
    """What a run is bent to, so that a certain fault of the engine can show. All else is the seed's."""

    clustered: bool | None = None
    rules: bool | None = None
    """Whether destinations bring rules (`World.rules`)."""
    messages: int | None = None
    seconds: float | None = None
    """As in the plan."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """How often something goes wrong at a spot, as parts of one."""
    kinds: Sequence[str] = ()
    """What goes wrong there. `long hang` no seed draws."""
    commits_fail: float | None = None
    """How often, as parts of one."""

    def bend(self, plan: Plan) -> None:
        plan.messages = plan.messages if self.messages is None else self.messages
        plan.seconds = plan.seconds if self.seconds is None else self.seconds
        if self.rates:
            plan.faults = max(plan.faults, _FAULTS)


_FAULTS = 12
"""At most so many where a game says what they are."""


class Mishaps:
    def __init__(self, world: World, plan: Plan, game: Game) -> None:
        random = self._random = world.random
        self._world = world
        self.left = plan.faults
        rates = dict.fromkeys(SPOTS, _RATE)
        for spot in random.sample(SPOTS, random.choice([0, 1, 1, 2, 3])):
            rates[spot] = random.choice([0.01, 0.05, 0.2])
        self._rates = rates
        kinds = ["kill", "kill node", "hang", "session", "failover", "outage", "stop", "slow"]
        self._kinds = random.sample(kinds, random.randint(1, len(kinds)))
        self._commits_fail = random.choice([0.0, 0.0, 0.0, 0.02, 0.1])
        self._quiet = plan.faults == 0 and game.commits_fail is None
        self._rates |= game.rates
        self._kinds = list(game.kinds) or self._kinds
        self._commits_fail = self._commits_fail if game.commits_fail is None else game.commits_fail
        self._cluster: Cluster
        self._database: Database

    def begin(self, cluster: Cluster, database: Database, unknown: Callable[[list[Observed]], None]) -> None:
        """Let things go wrong from now on. unknown: told of what is committed without a word to who did it."""
        self._unknown = unknown
        world, random = self._world, self._random
        self._cluster, self._database = cluster, database
        world.disturb = self._disturb
        database.fate = self._fate
        if self._quiet:
            return
        cluster.hints_lost = random.choice([0.0, 0.0, 0.5, 1.0])
        for destination in cluster.destinations.values():
            self._trouble(destination)
        for node in cluster.nodes:
            if random.random() < 0.2:
                world.after(random.random() * 6.0, lambda machine=node.machine: self._jump(machine))

    def end(self) -> None:
        """From now on nothing goes wrong any more."""
        world = self._world
        self._quiet = True
        world.disturb = lambda _spot, _process: 0.0
        self._database.fate = lambda _session, _changes: "committed"
        self._database.down = False
        self._cluster.hints_lost = 0.0
        for destination in self._cluster.destinations.values():
            destination.troubles = Troubles()

    def _trouble(self, destination: Destination) -> None:
        random = self._random

        def some(*rates: float) -> float:
            return random.choice([0.0, 0.0, *rates])

        destination.troubles = Troubles(
            unreachable=some(0.1, 0.5), transient=some(0.05, 0.3), lost=some(0.05, 0.3), missing=some(0.05, 0.2),
            partial=some(0.1), permanent=some(0.01, 0.05), slow=some(0.1, 0.5),
        )  # fmt: skip

    def _jump(self, machine: Machine) -> None:
        """A clock is set: a little, or by hours and back later."""
        random = self._random
        seconds = random.choice([-4.0, -1.0, 2.0, 5.0, 3 * 3600.0])
        machine.offset_seconds += seconds
        self._world.note(f"a clock is set by {seconds} s")
        if seconds > 60.0:

            def back() -> None:
                machine.offset_seconds -= seconds
                self._world.note("the clock is right again")

            self._world.after(random.uniform(0.5, 2.0), back)

    def _disturb(self, spot: str, process: Process) -> float:
        random = self._random
        if self.left > 0 and not self._quiet and random.random() < self._rates.get(spot, _RATE) and self._may(process):
            self.left -= 1
            return self._strike(random.choice(self._kinds), spot, process)
        if random.random() < _SLOW:
            return random.expovariate(1 / 0.02)
        return 0.0

    @staticmethod
    def _may(process: Process) -> bool:
        return not process.name.startswith(("hospital", "operator"))

    def _strike(self, kind: str, spot: str, process: Process) -> float:
        world, random = self._world, self._random
        world.note(f"FAULT {kind} at {spot}")
        match kind:
            case "kill":
                process.kill()
            case "kill node":
                for one in self._cluster.of(process).processes():
                    one.kill()
            case "hang":
                process.hang(random.choice([0.1, 1.0, 3.0, 9.0, 9.0]) * random.uniform(0.5, 1.0))
            case "long hang":  # so long that others take over
                process.hang(random.uniform(7.0, 9.0))
            case "failover":
                for session in list(self._database.sessions):
                    session.end()
            case "session":
                for session in [one for one in self._database.sessions if one.process is process]:
                    session.end()
            case "outage":
                self._database.stop()
                world.after(random.uniform(0.1, 3.0), self._up)
            case "stop":
                self._cluster.stop(process, hints.Stop())
            case _:
                return random.choice([0.05, 0.5, 4.0])
        return 0.0

    def _up(self) -> None:
        self._database.down = False
        self._world.note("the database is there again")

    def _fate(self, session: Session, changes: list[Observed]) -> str:
        if self._quiet or not changes or self._random.random() >= self._commits_fail:
            return "committed"
        fate = self._random.choice(["failed", "unknown"])
        self._world.note(f"FAULT a commit on the {session.side} side is {fate}")
        if fate == "unknown":
            self._unknown(changes)
        return fate
