"""An MLLP receiver (tests/peers) that runs beside a test: what a daemon delivers to."""

from __future__ import annotations

import asyncio
import threading
from typing import Self

from harness import Site
from peers.mllp_receiver import MllpReceiver


class Receiver:
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._receiver = MllpReceiver()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._receiver.start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._receiver.stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def port(self) -> int:
        return self._receiver.port

    def behave(self, *script: str) -> None:
        self._receiver.behave(*script)

    def control_ids(self) -> list[str]:
        """Of what has arrived, in order."""
        return self._receiver.control_ids()


def deliver_to(
    site: Site, port: int, *, host: str = "127.0.0.1", deduplicates: bool = False, timeout_seconds: float = 30.0
) -> None:
    """Have the site forward its messages to an MLLP destination `lab`, which is tried again soon.

    timeout_seconds: to be short only where silence is the matter. On a busy machine an answer may take its time, and a
    message that is given up on meanwhile is held.
    """
    retry = "{first_seconds: 0.05, seconds_max: 0.3, breaker_failures: 3, breaker_seconds: 0.3}"
    lab = (
        f"  lab: {{type: mllp, host: {host}, port: {port}, deduplicates: {str(deduplicates).lower()},"
        f" timeout_seconds: {timeout_seconds}, retry: {retry}}}"
    )
    site.edit("config.yaml", (r"(?m)^destinations:\n", f"destinations:\n{lab}\n"))
    site.edit("channels/main-campus.yaml", (r"  - \{to: files", "  - {to: lab, what: [message]}\n  - {to: files"))
