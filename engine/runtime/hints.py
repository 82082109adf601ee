"""What the main process and the worker say to each other: one JSON document a line over a socket pair.

Only hints and counts: the two talk through the store, and each would find everything there by itself a little later.
No line ever holds anything of a message; a cause names opaque ids only.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final, Literal

import msgspec

from engine.domain.message import Receipt
from engine.domain.record import Record
from engine.domain.standing import Overview
from engine.runtime.counters import Counts, Name
from engine.snapshot import Loaded

Asked = Literal["healthz", "readyz", "metrics", "status", "connections", "look", "reload"]

_LINE_BYTES_MAX: Final = 64 << 20  # a configuration's whole text travels in one line


class Configure(Record, frozen=True, kw_only=True, tag="configure"):
    """Main to worker, first of all and at each reload: the configuration to work by, the very text main loaded.

    index, count: which of the node's workers it is (from 0), and how many there are. variables: what the configuration
    names and the worker does not find in its environment, because it is secret.
    """

    index: int = 0
    count: int = 1
    base: str
    site_file: str
    files: dict[str, str]
    left_out: dict[str, str] = {}
    variables: dict[str, str] = {}
    loaded: Loaded | None = None


class Work(Record, frozen=True, kw_only=True, tag="work"):
    """Main to worker: new entries are in the journal."""


class InJournal(Record, frozen=True, kw_only=True, tag="in-journal"):
    """Main to worker, the answer to `PutCauses`: its causes are on disk. entries: none: they could not be put there."""

    number: int
    entries: tuple[int, ...] | None


class Stop(Record, frozen=True, kw_only=True, tag="stop"):
    """Main to worker: finish what is in hand and leave."""


class Told(Record, frozen=True, kw_only=True, tag="told"):
    """Main to the console's process, the answer to `Ask`. status: of HTTP. media: type of the body."""

    number: int
    status: int
    media: str
    body: str


class Ready(Record, frozen=True, kw_only=True, tag="ready"):
    """Worker to main: the configuration it was last given is in force."""

    config_version: str


class Refused(Record, frozen=True, kw_only=True, tag="refused"):
    """Worker to main: it can't work by the configuration it was given (its log says why)."""

    config_version: str


class Outcomes(Record, frozen=True, kw_only=True, tag="outcomes"):
    """Worker to main: these entries, whose senders wait for an answer after processing, have their outcome now.

    accepted: answered AA, and nothing more is to be known for that. failed: what they are told stands in the store.
    """

    accepted: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()


class PutCauses(Record, frozen=True, kw_only=True, tag="put-causes"):
    """Worker to main: these causes are to be in the journal, each once, whoever else puts it there.

    number: of the worker's requests in this life of it. See `engine.runtime.causes`.
    """

    number: int
    receipts: tuple[Receipt, ...]


class Ask(Record, frozen=True, kw_only=True, tag="ask"):
    """The console's process to main, which alone knows it: how the daemon stands, or that it is to do something.

    number: of the question, for its answer. allow_remove, who: of a reload.
    """

    number: int = 0
    what: Asked
    allow_remove: bool = False
    who: str = ""


class Leased(Record, frozen=True, kw_only=True):
    """What is the worker's now: how many partitions, and which destinations."""

    partitions: int = 0
    destinations: tuple[str, ...] = ()


class Rung(Record, frozen=True, kw_only=True):
    """Deadlines that rang: how many of them how late, by the bounds of `LATE_SECONDS`, and besides."""

    counts: tuple[int, ...] = ()
    total_seconds: float = 0.0
    latest_seconds: float = 0.0
    """The lateness of the latest."""


LATE_SECONDS: Final = (0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 3600.0, 86_400.0)


class Report(Record, frozen=True, kw_only=True, tag="report"):
    """Worker to main, about once a second: that it lives, and what it did since its last report.

    counts: by counter (`engine.runtime.counters`), labels and how often.
    skews: by channel, by sender, the least seconds between MSH-7 and receipt, and the entry.
    failing: services that had to be started again and have not run long since. work: how that of the
    whole store stands; none when it was not looked at since, and from all workers of a node but its first.
    """

    counts: dict[Name, Counts] = {}
    work: Overview | None = None
    skews: dict[str, dict[int, tuple[float, int]]] = {}
    failing: tuple[str, ...] = ()
    leased: Leased = Leased()
    rung: Rung | None = None


ToWorker = Configure | Work | InJournal | Told | Stop
ToMain = Ready | Refused | Outcomes | PutCauses | Ask | Report

_encode = msgspec.json.Encoder().encode


class Pipe:
    """One end of the socket pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def over(cls, sock: socket.socket) -> Pipe:
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        return cls(*await asyncio.open_unix_connection(sock=sock, limit=_LINE_BYTES_MAX))

    def send(self, message: ToWorker | ToMain) -> None:
        """Never waits: a hint to a process that is gone is lost, and its end is noticed by the reader."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write(_encode(message) + b"\n")

    async def line(self) -> bytes | None:
        """The next line, none at the end."""
        try:
            line = await self._reader.readuntil(b"\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            return None
        return line

    async def drain(self) -> None:
        with contextlib.suppress(OSError):
            await self._writer.drain()

    def close(self) -> None:
        self._writer.close()


read_to_worker = msgspec.json.Decoder(ToWorker).decode
read_to_main = msgspec.json.Decoder(ToMain).decode
