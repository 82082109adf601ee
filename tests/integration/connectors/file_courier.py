"""A courier over a file destination in a process of its own, which kills itself (`kill -9`) at the worst moments.

python file_courier.py FOLDER SEED      # exits 0 when everything is delivered
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from outbox_store import open_store

from engine.clock import SystemClock
from engine.connectors import file as file_module
from engine.connectors.base import Result, always
from engine.connectors.file import FileConnector, FileDestination
from engine.domain.delivery import QueuedDelivery
from engine.runtime.courier import Courier, Route
from engine.store.leases import file_leases


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Doomed(FileConnector):
    dice: random.Random

    async def deliver(self, batch: Sequence[QueuedDelivery], may_go_on: Callable[[], bool] = always) -> list[Result]:
        results = await super().deliver(batch, may_go_on)
        if self.dice.random() < 0.4:
            die()  # written, and not recorded
        return results


async def main(folder: Path, seed: int) -> None:
    dice = random.Random(seed)
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if dice.random() < 0.2:
            real(fd, data[: dice.randrange(1, len(data))])
            die()  # half written
        return real(fd, data)

    file_module.os.write = write  # type: ignore[assignment]  # in this process only, which is made to die in it
    store = open_store(folder)
    settings = FileDestination(type="file", path="out", batch_max=dice.randrange(5, 40))
    connector = Doomed("files", folder / "out", rotate_bytes=8192, clock=SystemClock())
    connector.dice = dice
    leases = file_leases(store.location, 0, 1, ["files"])
    leases.beat()
    leases.take()
    courier = Courier(
        store.outbox,
        store.charts_ledger,
        store.reader,
        {"files": Route(connector, settings)},
        clock=SystemClock(),
        leases=leases,
    )
    task = asyncio.create_task(courier.run())
    while store.read_now(store.outbox.unfinished):
        await asyncio.sleep(0.02)
    courier.stop()
    await task
    store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
