"""A worker with services of the test's choice, run as a real child process by `test_supervisor.py`.

usage: small_worker.py BEHAVIOUR FOLDER --fd N --parent PID
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from engine.domain.message import Receipt, Summary
from engine.domain.standing import ChannelWork, Overview
from engine.errors import Problem, SettingsError, StoreUnavailableError
from engine.runtime import worker
from engine.runtime.worker import Assembly, WorkerContext
from engine.settings import Configuration

WORK = Overview(
    at=datetime.now(UTC),
    channels=(ChannelWork(name="adt", waiting=2, oldest_waiting_at=None, last_message_at=None),),
)
CAUSES = [
    Receipt(
        channel="@act", peer=peer, received_at=WORK.at, payload=b"{}", summary=Summary(), dedupe_key=b"k", digest=b"k",
        once=True,
    )
    for peer in ("1", "2")
]  # fmt: skip


def main() -> None:
    behaviour, folder = sys.argv[1], Path(sys.argv[2])
    fd, parent = int(sys.argv[4]), int(sys.argv[6])
    with (folder / "starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    if behaviour == "dies":
        os._exit(3)

    async def assemble(_: Configuration, context: WorkerContext) -> Assembly:
        async def works() -> None:
            while not context.stopping.is_set():
                await context.work.wait(30)
                with (folder / "worked").open("a") as worked:
                    worked.write("x")
                context.tally.count("entries_processed", "adt", "processed")
                context.have_outcomes([7], [8])
            await asyncio.sleep(0.1)  # the batch in hand
            (folder / "finished").touch()

        async def fails() -> None:
            with (folder / "failed").open("a") as failed:
                failed.write("x")
            raise RuntimeError("a defect")

        async def hangs() -> None:
            await context.stopping.wait()
            time.sleep(60)

        async def has_causes() -> None:
            while not (folder / "in-journal").exists():
                with contextlib.suppress(StoreUnavailableError):
                    (folder / "in-journal").write_text(" ".join(map(str, await context.put_causes(CAUSES))))
            await context.stopping.wait()

        async def flaps() -> None:
            await asyncio.sleep(0.2)
            os._exit(3)

        async def reload(configuration: Configuration) -> None:
            node = configuration.site.node
            if node == "bad" or (node == "bad-for-1" and context.index == 1):
                raise SettingsError((Problem("config.yaml", 1, 1, "node", "is not to my liking"),))
            if node == "gone":
                raise StoreUnavailableError("the store is away just now")
            (folder / f"node-{context.index}").write_text(node)

        async def look() -> Overview:
            if behaviour == "counts for ever":
                await asyncio.sleep(60)
            return WORK

        async def close() -> None:
            (folder / "closed").touch()
            if behaviour == "can't close":
                await asyncio.to_thread(time.sleep, 60)

        services = {"works": works, "fails": fails} if behaviour == "fails" else {"works": works}
        alone = {"hangs": hangs, "flaps": flaps, "has causes": has_causes}
        if behaviour in alone:
            services = {behaviour: alone[behaviour]}
        return Assembly(services=services, reload=reload, overview=look, close=close)

    sys.exit(asyncio.run(worker.serve(fd, parent, assemble)))


if __name__ == "__main__":
    main()
