"""The worker as a real child: kept alive, hears hints, reloads, ends in order, never outlives main."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from wire import eventually

from engine.domain.message import Receipt
from engine.errors import StoreUnavailableError
from engine.runtime import hints, supervisor, worker
from engine.runtime.supervisor import Supervisor, Workers
from engine.snapshot import Snapshot

one_loop = pytest.mark.asyncio(loop_factories=["uvloop"])
"""For what does not depend on the main process's event loop."""
SMALL_WORKER = Path(__file__).with_name("small_worker.py")


def snapshot(folder: Path, node: str = "main-1") -> Snapshot:
    return Snapshot(folder, "config.yaml", {"config.yaml": f"node: {node}\n"})


def command(behaviour: str, folder: Path) -> Callable[[int], list[str]]:
    start = [sys.executable, str(SMALL_WORKER), behaviour, str(folder)]
    return lambda fd: [*start, "--fd", str(fd), "--parent", str(os.getpid())]


async def nothing_to_put(_: Sequence[Receipt]) -> list[int]:
    raise AssertionError("no worker of this test has causes")


class Run:
    """A supervisor and what its worker said."""

    def __init__(self, folder: Path, behaviour: str, **more: float) -> None:
        self.folder = folder
        self.said: list[hints.ToMain] = []
        self.asked: list[list[str]] = []
        self.born_at = asyncio.get_running_loop().time()
        self.supervisor = Supervisor(
            snapshot(folder), self.said.append, put_causes=self.put, command=command(behaviour, folder),
            restart_seconds_first=0.05, **more,
        )  # fmt: skip

    async def put(self, receipts: Sequence[Receipt]) -> list[int]:
        """The journal of this test: at first it can't be written."""
        self.asked.append([receipt.peer for receipt in receipts])
        if len(self.asked) == 1:
            raise StoreUnavailableError("the disk is away")
        if len(self.asked) == 2:
            raise RuntimeError("a defect")
        return [100 + int(receipt.peer) for receipt in receipts]

    def count(self, name: str) -> int:
        path = self.folder / name
        return len(path.read_text()) if path.exists() else 0

    @property
    def starts(self) -> int:
        return len(self.pids)

    @property
    def pids(self) -> list[int]:
        """Of all workers that ever were."""
        path = self.folder / "starts"
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def pid(self) -> int:
        assert self.supervisor.pid is not None
        return self.supervisor.pid

    async def ready(self) -> None:
        await eventually(lambda: self.supervisor.ready_version is not None)


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[[str], Run]]:
    runs: list[Run] = []

    def begin(behaviour: str = "works", **more: float) -> Run:
        runs.append(Run(tmp_path, behaviour, **more))
        runs[-1].supervisor.start()
        return runs[-1]

    yield begin
    for run in runs:
        await run.supervisor.stop(5)


async def test_a_hint_wakes_the_worker_and_its_outcomes_are_heard(start: Callable[..., Run]) -> None:
    run = start()
    await run.ready()
    run.supervisor.hint()
    await eventually(lambda: run.count("worked") == 1)
    await eventually(lambda: hints.Outcomes(accepted=(7,), failed=(8,)) in run.said)


async def test_many_hints_are_gathered_into_few(start: Callable[..., Run]) -> None:
    run = start()
    await run.ready()
    for _ in range(10_000):
        run.supervisor.hint()
    await eventually(lambda: run.count("worked") > 0)
    assert run.count("worked") < 1_000


async def test_a_hint_waits_for_nothing_but_the_one_before_it(start: Callable[..., Run]) -> None:
    run = start()
    await run.ready()
    sent: list[hints.ToWorker] = []
    pipe = run.supervisor._pipe
    assert pipe is not None
    pipe.send = sent.append  # type: ignore[method-assign, assignment]
    run.supervisor.hint()
    assert sent == [hints.Work()]
    for awaited in (False, True, False):
        run.supervisor.hint(awaited=awaited)
    await eventually(lambda: len(sent) > 1)  # what came after it is not forgotten


async def test_the_workers_counts_reach_main(start: Callable[..., Run]) -> None:
    run = start()
    await run.ready()
    run.supervisor.hint()
    await eventually(
        lambda: any(
            isinstance(said, hints.Report) and said.counts == {"entries_processed": ((("adt", "processed"), 1),)}
            for said in run.said
        )
    )
    reports = [said for said in run.said if isinstance(said, hints.Report)]
    assert reports[-1].work is not None
    assert [(one.name, one.waiting) for one in reports[-1].work.channels] == [("adt", 2)]


async def test_a_worker_that_is_killed_is_started_again(start: Callable[..., Run]) -> None:
    run = start()
    await run.ready()
    os.kill(run.pid, signal.SIGKILL)
    await eventually(lambda: run.starts == 2)
    await run.ready()
    assert run.supervisor.restarts == 1
    assert run.supervisor.trouble is None


@one_loop
async def test_a_worker_that_keeps_dying_is_trouble(start: Callable[..., Run]) -> None:
    run = start("dies")
    await eventually(lambda: run.supervisor.trouble == "worker-keeps-dying")
    assert run.supervisor.restarts >= 3


@one_loop
async def test_a_worker_that_gets_ready_and_dies_again_and_again_is_trouble_all_the_time(
    start: Callable[..., Run],
) -> None:
    run = start("flaps")
    await eventually(lambda: run.supervisor.restarts >= 3)
    seen: set[tuple[bool, str | None]] = set()

    def twice_more() -> bool:
        seen.add((run.supervisor.ready_version is not None, run.supervisor.trouble))
        return run.supervisor.restarts >= 5 and len(seen) >= 2  # who looks now and then may miss a short life

    await eventually(twice_more)
    assert seen == {(True, "worker-keeps-dying"), (False, "worker-keeps-dying")}


@one_loop
async def test_a_worker_that_lived_long_and_died_once_is_no_trouble(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start()
    await run.ready()
    monkeypatch.setattr(supervisor, "_START_SECONDS_MAX", 2 * (asyncio.get_running_loop().time() - run.born_at))
    await asyncio.sleep(supervisor._START_SECONDS_MAX)
    os.kill(run.pid, signal.SIGKILL)
    await eventually(lambda: run.supervisor.restarts == 1)
    assert run.supervisor.ready_version is None
    assert run.supervisor.trouble is None


async def test_a_worker_that_can_not_be_started_is_trouble_and_stops_nobody_else(tmp_path: Path) -> None:
    """No memory for a process, no descriptor: the main process goes on acknowledging."""
    one = Supervisor(
        snapshot(tmp_path), lambda _: None, put_causes=nothing_to_put, restart_seconds_first=0.01,
        command=lambda _: [str(tmp_path / "no-such-program")],
    )  # fmt: skip
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    one.start()
    await eventually(lambda: one.trouble == "worker-keeps-dying")
    assert await one.stop(5)
    assert told == []


async def test_a_worker_that_hangs_is_trouble_and_is_replaced(start: Callable[..., Run]) -> None:
    run = start()
    await run.ready()
    hanging = run.pid
    assert run.supervisor.up
    os.kill(hanging, signal.SIGSTOP)
    run.supervisor._silence_seconds_max = 3.0
    await eventually(lambda: run.supervisor.trouble == "worker-silent")
    assert not run.supervisor.up
    await eventually(lambda: run.supervisor.restarts == 1)
    run.supervisor._silence_seconds_max = 30.0  # its successor may take its time to start
    await eventually(lambda: run.starts == 2)
    await run.ready()
    assert not alive(hanging)
    assert run.supervisor.trouble is None


@one_loop
async def test_a_store_that_hangs_does_not_make_a_worker_silent(start: Callable[..., Run]) -> None:
    run = start("counts for ever")
    await run.ready()
    await eventually(lambda: len([said for said in run.said if isinstance(said, hints.Report)]) >= 2)


async def test_a_service_that_fails_is_started_again_and_takes_no_other_with_it(start: Callable[..., Run]) -> None:
    run = start("fails")
    await run.ready()
    await eventually(lambda: run.count("failed") >= 2)
    await eventually(lambda: run.supervisor.trouble == "service-failing")
    run.supervisor.hint()
    await eventually(lambda: run.count("worked") == 1)
    assert run.starts == 1


async def test_stopping_lets_the_worker_finish_its_batch(start: Callable[..., Run]) -> None:
    run = start()
    await run.ready()
    assert await run.supervisor.stop(60)
    assert (run.folder / "finished").exists()
    assert (run.folder / "closed").exists()
    assert run.supervisor.pid is None


async def test_a_worker_that_does_not_stop_in_time_is_killed(start: Callable[..., Run]) -> None:
    run = start("hangs")
    await run.ready()
    assert await run.supervisor.stop(0.5) is False
    assert run.supervisor.pid is None


@one_loop
async def test_a_worker_that_can_not_take_leave_of_its_store_leaves_without_that(start: Callable[..., Run]) -> None:
    run = start("can't close")
    await run.ready()
    assert await run.supervisor.stop(worker._CLOSE_SECONDS_MAX + 30)


async def test_a_stop_at_any_moment_of_the_start_finds_the_worker(tmp_path: Path) -> None:
    for pause in (0.0, 0.001, 0.003, 0.01, 0.03, 0.3):
        run = Run(tmp_path, "works")
        run.supervisor.start()
        await asyncio.sleep(pause)
        assert await run.supervisor.stop(60), "it was told to stop"
    assert not any(map(alive, run.pids))


async def test_ctrl_c_is_left_to_main(start: Callable[..., Run]) -> None:
    run = start()
    await run.ready()
    pid = run.supervisor.pid
    assert pid is not None
    os.kill(pid, signal.SIGINT)
    run.supervisor.hint()
    await eventually(lambda: run.count("worked") == 1)
    assert run.supervisor.pid == pid


async def test_a_new_configuration_is_taken_by_the_running_worker(start: Callable[..., Run]) -> None:
    run = start()
    await run.ready()
    new = snapshot(run.folder, "main-2")
    assert await run.supervisor.reload(new)
    assert (run.folder / "node-0").read_text() == "main-2"
    assert run.supervisor.ready_version == new.version


async def test_a_configuration_that_the_worker_refuses_changes_nothing(start: Callable[..., Run]) -> None:
    run = start()
    await run.ready()
    before = run.supervisor.ready_version
    assert not await run.supervisor.reload(snapshot(run.folder, "bad"))
    assert not await run.supervisor.reload(snapshot(run.folder, "{"))
    assert run.supervisor.ready_version == before
    assert run.starts == 1


async def test_a_store_that_is_away_during_a_reload_costs_the_reload_and_not_the_worker(
    start: Callable[..., Run],
) -> None:
    run = start()
    await run.ready()
    assert not await run.supervisor.reload(snapshot(run.folder, "gone"))
    assert run.starts == 1
    assert await run.supervisor.reload(snapshot(run.folder, "main-2"))
    assert run.starts == 1


@one_loop
async def test_a_worker_that_wakes_up_after_the_reload_was_given_up_goes_back_to_the_old(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_RELOAD_SECONDS_MAX", 0.3)
    run = start()
    await run.ready()
    os.kill(run.pid, signal.SIGSTOP)
    assert not await run.supervisor.reload(snapshot(run.folder, "main-2"))
    os.kill(run.pid, signal.SIGCONT)
    old = snapshot(run.folder).version
    await eventually(lambda: (run.folder / "node-0").exists() and (run.folder / "node-0").read_text() == "main-1")
    await eventually(lambda: run.supervisor.ready_version == old)


@one_loop
async def test_a_worker_has_its_causes_put_into_the_journal_as_soon_as_that_can_be_written(
    start: Callable[..., Run],
) -> None:
    run = start("has causes")
    await eventually(lambda: run.count("in-journal") > 0)
    assert run.asked == [["1", "2"]] * 3
    assert (run.folder / "in-journal").read_text() == "101 102"
    assert (run.supervisor.restarts, run.supervisor.trouble) == (0, None)


@one_loop
async def test_a_reload_that_one_of_several_workers_refuses_is_taken_by_none(tmp_path: Path) -> None:
    workers = Workers(
        snapshot(tmp_path), lambda _: None, 3, put_causes=nothing_to_put, command=command("works", tmp_path)
    )
    workers.start()
    try:
        await eventually(lambda: workers.up)
        assert await workers.reload(snapshot(tmp_path, "main-2"))
        assert not await workers.reload(snapshot(tmp_path, "bad-for-1"))
        assert [(tmp_path / f"node-{index}").read_text() for index in range(3)] == ["main-2"] * 3
        version = snapshot(tmp_path, "main-2").version
        assert [one.ready_version for one in workers._each] == [version] * 3
        assert (workers.restarts, workers.trouble) == (0, ())
    finally:
        await workers.stop(10)


@one_loop
async def test_the_trouble_of_one_of_several_workers_is_the_nodes(tmp_path: Path) -> None:
    works, dies = command("works", tmp_path), command("dies", tmp_path)
    started: list[int] = []

    def by_turns(fd: int) -> list[str]:
        started.append(fd)
        return (dies if len(started) > 1 else works)(fd)

    workers = Workers(snapshot(tmp_path), lambda _: None, 2, put_causes=nothing_to_put, command=by_turns)
    workers.start()
    try:
        await eventually(lambda: workers.trouble == ("worker-keeps-dying",))
        assert not workers.up
        assert workers.restarts >= 3
        await eventually(lambda: workers.counting)
    finally:
        await workers.stop(10)


async def test_a_worker_that_is_started_again_works_by_the_latest_configuration(start: Callable[..., Run]) -> None:
    run = start()
    await run.ready()
    new = snapshot(run.folder, "main-2")
    await run.supervisor.reload(new)
    os.kill(run.pid, signal.SIGKILL)
    await eventually(lambda: run.starts == 2)
    await run.ready()
    assert run.supervisor.ready_version == new.version


async def test_a_worker_never_outlives_its_main_process(tmp_path: Path) -> None:
    main = textwrap.dedent(
        f"""
        import asyncio, os, sys
        from pathlib import Path
        from engine import logs
        from engine.runtime.supervisor import Supervisor
        from engine.snapshot import Snapshot
        logs.configure()
        async def main():
            command = [sys.executable, {str(SMALL_WORKER)!r}, "works", {str(tmp_path)!r}]
            supervisor = Supervisor(
                Snapshot(Path({str(tmp_path)!r}), "config.yaml", {{"config.yaml": "node: a\\n"}}), lambda _: None,
                put_causes=None, command=lambda fd: [*command, "--fd", str(fd), "--parent", str(os.getpid())])
            supervisor.start()
            while supervisor.ready_version is None:
                await asyncio.sleep(0.01)
            print(supervisor.pid, flush=True)
            await asyncio.sleep(60)
        asyncio.run(main())
        """
    )
    process = subprocess.Popen([sys.executable, "-c", main], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(await asyncio.to_thread(process.stdout.readline))
    process.kill()
    process.wait()
    process.stdout.close()
    await eventually(lambda: not alive(pid))
    assert not (tmp_path / "finished").exists()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
