"""A daemon that dies while deadlines ring, for `test_due_causes.py`.

usage: ringing.py main CONFIG FOLDER POINT,... | ringing.py worker FOLDER POINT,... --fd N --parent PID

At each point in turn, once, the process that passes it kills itself (`kill -9`); a file in the folder tells it did.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from engine import bootstrap, logs
from engine.clock import site_clock
from engine.connectors.registry import load
from engine.domain.message import Receipt
from engine.runtime import worker
from engine.runtime.daemon import Daemon
from engine.runtime.notify import Systemd
from engine.runtime.worker import Assembly, WorkerContext
from engine.settings import Configuration
from engine.snapshot import Snapshot


class Points:
    def __init__(self, folder: Path, points: str) -> None:
        self._folder, self._points = folder, [point for point in points.split(",") if point]

    def passed(self, point: str) -> None:
        """Die when it is the turn of this point."""
        if next((one for one in self._points if not (self._folder / one).exists()), None) == point:
            (self._folder / point).touch()
            os.kill(os.getpid(), signal.SIGKILL)


def run_main(config: Path, folder: Path, given: str) -> None:
    points = Points(folder, given)
    configuration = load(Snapshot.read(config))

    class Dying(Daemon):
        async def _put_causes(self, receipts: Sequence[Receipt]) -> list[int]:
            entries = await super()._put_causes(receipts)
            points.passed("main-put-nothing-answered")
            return entries

    async def main() -> None:
        daemon = Dying(
            configuration,
            bootstrap.open_store(configuration, "main"),
            site_clock(configuration.clock_file),
            "0",
            load=lambda: configuration,
            systemd=Systemd({}),
            sockets={},
            command=lambda fd: [
                sys.executable, "-P", __file__, "worker", str(folder), given, "--fd", str(fd), "--parent",
                str(os.getpid()),
            ],
        )  # fmt: skip
        await daemon.start()
        await asyncio.Event().wait()

    asyncio.run(main())


def run_worker(folder: Path, given: str, fd: int, parent: int) -> None:
    points = Points(folder, given)

    async def assemble(configuration: Configuration, context: WorkerContext) -> Assembly:
        put = context.put_causes

        async def put_and_die(receipts: Sequence[Receipt]) -> Sequence[int]:
            asked = asyncio.ensure_future(put(receipts))
            await asyncio.sleep(0.01)
            points.passed("worker-asked")
            entries = await asked
            points.passed("worker-answered")
            return entries

        return await bootstrap.assemble_worker(configuration, dataclasses.replace(context, put_causes=put_and_die))

    sys.exit(asyncio.run(worker.serve(fd, parent, assemble)))


if __name__ == "__main__":
    logs.configure()
    if sys.argv[1] == "main":
        run_main(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    else:
        run_worker(Path(sys.argv[2]), sys.argv[3], int(sys.argv[5]), int(sys.argv[7]))
