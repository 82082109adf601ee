"""The worker as a real child: kept alive, hears hints, reloads, ends in order, never outlives main."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from wire import eventually

from engine.runtime import hints
from engine.runtime.supervisor import Supervisor
from engine.settings import Snapshot

SMALL_WORKER = Path(__file__).with_name("small_worker.py")


def snapshot(folder: Path, node: str = "main-1") -> Snapshot:
    return Snapshot(folder, "config.yaml", {"config.yaml": f"node: {node}\n"})


class Run:
    """A supervisor and what its worker said."""

    def __init__(self, folder: Path, behaviour: str) -> None:
        self.folder = folder
        self.said: list[hints.ToMain] = []
        command = [sys.executable, str(SMALL_WORKER), behaviour, str(folder)]
        self.supervisor = Supervisor(
            snapshot(folder),
            self.said.append,
            command=lambda fd: [*command, "--fd", str(fd), "--parent", str(os.getpid())],
            restart_seconds_first=0.05,
        )

    def count(self, name: str) -> int:
        path = self.folder / name
        return len(path.read_text()) if path.exists() else 0

    @property
    def starts(self) -> int:
        path = self.folder / "starts"
        return len(path.read_text().splitlines()) if path.exists() else 0

    async def ready(self) -> None:
        await eventually(lambda: self.supervisor.ready_version is not None, 30)


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[[str], Run]]:
    runs: list[Run] = []

    def begin(behaviour: str = "works") -> Run:
        runs.append(Run(tmp_path, behaviour))
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
    await eventually(lambda: hints.Outcomes(entries=(7,)) in run.said)


async def test_many_hints_are_gathered_into_few(start: Callable[..., Run]) -> None:
    run = start()
    await run.ready()
    for _ in range(10_000):
        run.supervisor.hint()
    await eventually(lambda: run.count("worked") == 1)


async def test_the_workers_counts_reach_main(start: Callable[..., Run]) -> None:
    run = start()
    await run.ready()
    run.supervisor.hint()
    await eventually(
        lambda: any(isinstance(said, hints.Report) and said.processed == {"adt": {"processed": 1}} for said in run.said)
    )
    reports = [said for said in run.said if isinstance(said, hints.Report)]
    assert reports[-1].pending == {"adt": 2}
    assert reports[-1].outbox == {"files": {"pending": 3}}


async def test_a_worker_that_is_killed_is_started_again(start: Callable[..., Run]) -> None:
    run = start()
    await run.ready()
    assert run.supervisor.pid is not None
    os.kill(run.supervisor.pid, signal.SIGKILL)
    await eventually(lambda: run.starts == 2, 30)
    await run.ready()
    assert run.supervisor.restarts == 1
    assert run.supervisor.trouble is None


async def test_a_worker_that_keeps_dying_is_trouble(start: Callable[..., Run]) -> None:
    run = start("dies")
    await eventually(lambda: run.supervisor.trouble == "worker-keeps-dying", 30)
    assert run.supervisor.restarts >= 3


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
    assert await run.supervisor.stop(20)
    assert (run.folder / "finished").exists()
    assert (run.folder / "closed").exists()
    assert run.supervisor.pid is None


async def test_a_worker_that_does_not_stop_in_time_is_killed(start: Callable[..., Run]) -> None:
    run = start("hangs")
    await run.ready()
    assert await run.supervisor.stop(0.5) is False
    assert run.supervisor.pid is None


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
    assert (run.folder / "node").read_text() == "main-2"
    assert run.supervisor.ready_version == new.version


async def test_a_configuration_that_the_worker_refuses_changes_nothing(start: Callable[..., Run]) -> None:
    run = start()
    await run.ready()
    before = run.supervisor.ready_version
    assert not await run.supervisor.reload(snapshot(run.folder, "bad"))
    assert not await run.supervisor.reload(snapshot(run.folder, "{"))
    assert run.supervisor.ready_version == before
    assert run.starts == 1


async def test_a_worker_that_is_started_again_works_by_the_latest_configuration(start: Callable[..., Run]) -> None:
    run = start()
    await run.ready()
    new = snapshot(run.folder, "main-2")
    await run.supervisor.reload(new)
    assert run.supervisor.pid is not None
    os.kill(run.supervisor.pid, signal.SIGKILL)
    await eventually(lambda: run.starts == 2, 30)
    await run.ready()
    assert run.supervisor.ready_version == new.version


async def test_a_worker_never_outlives_its_main_process(tmp_path: Path) -> None:
    main = textwrap.dedent(
        f"""
        import asyncio, os, sys
        from pathlib import Path
        from engine import logs
        from engine.runtime.supervisor import Supervisor
        from engine.settings import Snapshot
        logs.configure()
        async def main():
            command = [sys.executable, {str(SMALL_WORKER)!r}, "works", {str(tmp_path)!r}]
            supervisor = Supervisor(
                Snapshot(Path({str(tmp_path)!r}), "config.yaml", {{"config.yaml": "node: a\\n"}}), lambda _: None,
                command=lambda fd: [*command, "--fd", str(fd), "--parent", str(os.getpid())])
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
