"""A simulated world: processes with event loops and threads of their own, one simulated time, one seeded scheduler.

Real code runs in it. Every process has an event loop (`ProcessLoop`) whose callbacks run in the order in which they
were scheduled, as asyncio promises; which process runs next is drawn by the seed. What the code hands to a thread runs
as a `Strand`: a real thread that runs only while the scheduler waits for it, so that one thing happens at a time, and
that gives the turn back wherever it reaches for the world outside (`Process.pause`). Time passes when nothing else can.

A process is killed by never running it again. So that nothing of it stays behind in Python, what it was in the middle
of is unwound with `Gone`, which no `except Exception` catches; every door to the world is shut for it by then.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import random
import threading
import traceback
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

STEP_SECONDS = 0.00002
"""What each step takes: nothing is done in no time."""
STEPS_BETWEEN_LOOKS = 16
"""So often is asked whether a run is over."""
STEPS_MAX = 400_000
BEGIN = datetime(2026, 3, 2, 12, tzinfo=UTC)
T = TypeVar("T")


class Gone(BaseException):
    """The process in which this code runs is no more."""


class Violation(AssertionError):  # noqa: N818 - it is what was found, and no error
    """Something that must never happen has happened."""


class Actor(Protocol):
    process: Process
    queued: bool

    def step(self) -> None: ...


class Timer:
    __slots__ = ("cancelled", "work")

    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work
        self.cancelled = False


class World:
    """Scheduler, time, trace. Everything random is drawn from `random`."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.leapt_seconds = 0.0
        """So far all machines' clocks are ahead by now: where days pass in which nothing happens but deadlines."""
        self.steps = 0
        self.trace: list[str] = []
        self.violation: Violation | None = None
        self.rules = seed % 9 == 8
        """Destinations bring rules that keep some deliveries from going out."""
        self.current: Process | None = None
        self.strand: Strand | None = None
        self.processes: list[Process] = []
        self.disturb: Callable[[str, Process], float] = lambda _spot, _process: 0.0
        """What goes wrong at a spot: may stop or hang the process; the seconds that the step takes longer."""
        self._runnable: list[Actor] = []
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._doomed: list[Process] = []

    def note(self, text: str) -> None:
        name = self.current.name if self.current is not None else "world"
        self.trace.append(f"{self.now:9.4f} {name}: {text}")

    def fail(self, text: str) -> None:
        """Note that an invariant is broken; the run ends at its next step."""
        self.note(f"VIOLATION {text}")
        if self.violation is None:
            self.violation = Violation(text)

    def unexpected(self, error: Exception, what: str) -> None:
        """A defect of the engine, or of a stand-in: the run ends with it, not with what never happens because of it."""
        self.note("".join(traceback.format_exception(error)))
        self.fail(f"{what}: {type(error).__name__}: {error}")

    def after(self, seconds: float, work: Callable[[], object]) -> Timer:
        timer = Timer(work)
        heapq.heappush(self._timers, (self.now + seconds, next(self._numbers), timer))
        return timer

    def leap(self, seconds: float) -> None:
        """Let time go by in which deadlines come, and nothing else happens."""
        self.note(f"{seconds} s go by")
        self.leapt_seconds += seconds

    def wake(self, actor: Actor) -> None:
        """It has something to do."""
        if not actor.queued:
            actor.queued = True
            if actor.process.hangs:
                actor.process.waiting.append(actor)
            else:
                self._runnable.append(actor)

    def run(self, until: Callable[[], bool], seconds_max: float) -> bool:
        """Let things happen until a condition holds; false: it did not in so many simulated seconds."""
        end = self.now + seconds_max
        while (self._runnable and self.steps % STEPS_BETWEEN_LOOKS) or not until():
            if self.violation is not None:
                raise self.violation
            if self.now > end:
                return False
            if self.steps > STEPS_MAX:
                raise Violation("this does not come to an end: something runs in circles")
            self._step()
        if self.violation is not None:
            raise self.violation
        return True

    def _step(self) -> None:
        fired = False
        while self._timers and self._timers[0][0] <= self.now:
            fired = True
            timer = heapq.heappop(self._timers)[2]
            if not timer.cancelled:
                timer.work()
        if self._runnable:
            self.steps += 1
            self.now += STEP_SECONDS
            at = int(self.random.random() * len(self._runnable))
            actor = self._runnable[at]
            self._runnable[at] = self._runnable[-1]
            self._runnable.pop()
            actor.queued = False
            if actor.process.hangs:
                self.wake(actor)
            elif actor.process.alive:
                self.current = actor.process
                actor.step()
                self.current = None
        elif self._timers:
            self.now = self._timers[0][0]
        elif not fired:
            raise Violation("nothing will ever happen again")
        while self._doomed:
            self._doomed.pop().bury()

    def doom(self, process: Process) -> None:
        self._doomed.append(process)

    def end(self) -> None:
        """Unwind everything, so that nothing is left in memory."""
        for process in self.processes:
            process.kill()
        while self._doomed:
            self._doomed.pop().bury()


class Process:
    """A simulated operating system process. machine: whose clock it reads."""

    def __init__(self, world: World, name: str, machine: Machine) -> None:
        self.world = world
        self.name = name
        self.machine = machine
        self.alive = True
        self.hangs = False
        self.waiting: list[Actor] = []
        self.loop = ProcessLoop(self)
        self.at_end: list[Callable[[], None]] = []
        """Called when it is killed: what the kernel and the database do for a process that is no more."""
        self._strands: list[Strand] = []
        world.processes.append(self)

    def check(self) -> None:
        """To be called at every door to the world. Raises Gone."""
        if not self.alive:
            raise Gone

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """An exception that nobody expects ends the run: such a process would die again and again without a word."""
        return self.loop.create_task(self._told(coroutine))

    async def _told(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            return await coroutine
        except Exception as error:
            self.world.unexpected(error, f"{self.name} ended")
            raise

    def start(self, work: Callable[[], object], done: Callable[[Any, BaseException | None], None]) -> Strand:
        """Run `work` as a thread of this process."""
        self.check()
        strand = Strand(self, work, done)
        self._strands.append(strand)
        self.world.wake(strand)
        return strand

    def ended(self, strand: Strand) -> None:
        self._strands.remove(strand)

    def pause(self, spot: str) -> None:
        """Here others may come between, and the process may end. In a loop's callback nothing can come between."""
        self.check()
        world = self.world
        seconds = world.disturb(spot, self)
        self.check()
        strand = world.strand
        if strand is None:
            return
        if seconds:
            world.after(seconds, strand.wake)
            strand.wait()
        elif world.random.random() < 0.7:
            world.wake(strand)
            strand.wait()

    def kill(self) -> None:
        """At once; whoever called this from inside goes on until its next door."""
        if self.alive:
            self.alive = False
            for end in self.at_end:
                end()
            self.world.doom(self)

    def hang(self, seconds: float) -> None:
        """Not be scheduled for a while: a virtual machine that is moved, a disk that stands still."""
        if not self.hangs:
            self.hangs = True
            self.world.after(seconds, self.resume)

    def resume(self) -> None:
        if self.hangs and self.alive:
            self.hangs = False
            self.world.note(f"{self.name} goes on")
            waiting, self.waiting = self.waiting, []
            for actor in waiting:
                actor.queued = False
                self.world.wake(actor)

    def bury(self) -> None:
        """Unwind what it was in the middle of."""
        world = self.world
        world.current = self
        for _ in range(100):
            for strand in list(self._strands):
                strand.unwind()
            if not self.loop.unwind() and not self._strands:
                break
        world.current = None


class Machine:
    """A clock, as far as it is from the true time, and what else the processes of a node share."""

    def __init__(self, world: World, offset_seconds: float = 0.0, drift: float = 0.0) -> None:
        self._world = world
        self.offset_seconds = offset_seconds
        self._drift = drift

    def now(self) -> datetime:
        true = self._world.now
        ahead = self.offset_seconds + self._world.leapt_seconds
        return BEGIN + timedelta(seconds=true * (1.0 + self._drift) + ahead)

    def pause(self, seconds: float) -> float:
        return seconds


class ProcessLoop(asyncio.AbstractEventLoop):
    """The event loop of one process. Only what the engine needs; anything else raises NotImplementedError."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.queued = False
        self._world = process.world
        self._ready: deque[asyncio.Handle] = deque()
        self._tasks: list[asyncio.Task[Any]] = []

    def step(self) -> None:
        ready = self._ready
        events._set_running_loop(self)
        try:
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()
        finally:
            events._set_running_loop(None)
        while ready and ready[0]._cancelled:
            ready.popleft()
        if ready:
            self._world.wake(self)

    def unwind(self) -> bool:
        """Cancel every task and let each end; whether there is more to do."""
        events._set_running_loop(self)
        try:
            open_tasks = [task for task in self._tasks if not task.done()]
            for task in open_tasks:
                task.cancel()
            while self._ready:
                handle = self._ready.popleft()
                if not handle._cancelled:
                    handle._run()
        finally:
            events._set_running_loop(None)
        return bool(open_tasks)

    # --- what asyncio and the engine call ----------------------------------------------------------------------------

    def time(self) -> float:
        return self._world.now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._push(handle)
        return handle

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        handle = _Due(when, callback, args, self, context)
        if self.process.alive:
            handle.timer = self._world.after(max(0.0, when - self._world.now), lambda: self._push(handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if isinstance(handle, _Due) and handle.timer is not None:
            handle.timer.cancelled = True

    def _push(self, handle: asyncio.Handle) -> None:
        self._ready.append(handle)
        if self.process.alive:
            self._world.wake(self)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        if len(self._tasks) > 64:
            self._tasks = [known for known in self._tasks if not known.done()]
        return task

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        del executor  # every call gets a thread of its own: none of the engine's pools is ever full here
        future = self.create_future()

        def tell(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self.process.start(
            lambda: func(*args), lambda result, error: self.call_soon_threadsafe(tell, result, error) and None
        )
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def get_exception_handler(self) -> None:
        return None

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if self.process.alive and not isinstance(error, Gone):
            self._world.fail(f"unhandled in the loop of {self.process.name}: {context.get('message')} {error!r}")


class _Due(asyncio.TimerHandle):
    timer: Timer | None = None


class Strand:
    """A thread of a simulated process: a real one, which runs only when it is given the turn."""

    def __init__(
        self, process: Process, work: Callable[[], object], done: Callable[[Any, BaseException | None], None]
    ) -> None:
        self.process = process
        self.queued = False
        self.finished = False
        self._done = done
        self._carrier: _Carrier | None = None
        self._work = work

    def step(self) -> None:
        world = self.process.world
        world.strand = self
        if self._carrier is None:
            self._carrier = _Carrier.free()
            self._carrier.begin(self._run)
        else:
            self._carrier.go_on()
        world.strand = None
        if self.finished:
            self._carrier.put_back()
            self.process.ended(self)

    def unwind(self) -> None:
        """The process is dead: the strand finds that out where it waits."""
        if self._carrier is None:
            self.finished = True
            self.process.ended(self)
        elif not self.finished:
            self.step()

    def wake(self) -> None:
        if self.process.alive and not self.finished:
            self.process.world.wake(self)

    def wait(self) -> None:
        """Called by the strand itself: give the turn back, go on when somebody has called `wake`."""
        world = self.process.world
        carrier = self._carrier
        assert carrier is not None
        carrier.give_back()
        world.strand = self
        self.process.check()

    def _run(self) -> None:
        result, error = None, None
        try:
            result = self._work()
        except BaseException as raised:  # noqa: BLE001 - whoever waits for the strand gets it
            error = raised
        self.finished = True
        if self.process.alive:
            self._done(result, error)


class _Carrier:
    """A real thread that carries one strand after another."""

    _idle: list[_Carrier] = []

    def __init__(self) -> None:
        self._go = threading.Lock()
        self._back = threading.Lock()
        self._go.acquire()
        self._back.acquire()
        self._work: Callable[[], None] | None = None
        threading.Thread(target=self._carry, name="strand", daemon=True).start()

    @classmethod
    def free(cls) -> _Carrier:
        return cls._idle.pop() if cls._idle else cls()

    def put_back(self) -> None:
        self._idle.append(self)

    def begin(self, work: Callable[[], None]) -> None:
        self._work = work
        self.go_on()

    def go_on(self) -> None:
        self._go.release()
        self._back.acquire()

    def give_back(self) -> None:
        self._back.release()
        self._go.acquire()

    def _carry(self) -> None:
        while True:
            self._go.acquire()
            work, self._work = self._work, None
            assert work is not None
            contextvars.Context().run(work)
            del work
            self._back.release()


class Turn:
    """A lock for strands of one process: a real one would stop the whole world."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._holder: Strand | None = None
        self._waiting: deque[Strand] = deque()

    def __enter__(self) -> None:
        strand = self._process.world.strand
        assert strand is not None, "nobody waits for a lock in a loop's callback"
        while self._holder is not None:
            self._waiting.append(strand)
            strand.wait()
        self._holder = strand

    def __exit__(self, *_: object) -> None:
        self._holder = None
        if self._waiting:
            self._waiting.popleft().wake()


@contextmanager
def in_process(world: World, process: Process) -> Iterator[None]:
    """Do something in the name of a process, as its kernel would."""
    before, world.current = world.current, process
    running = events._get_running_loop()
    events._set_running_loop(process.loop)
    try:
        yield
    finally:
        events._set_running_loop(running)
        world.current = before
