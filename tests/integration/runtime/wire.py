"""A sender, and a listener with its intake over a real store, for tests over real sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Sequence
from typing import Any

from engine.clock import SystemClock
from engine.domain.chart import Charts
from engine.domain.delivery import DeadLetter, Stage
from engine.domain.message import AckCode, Entry, EntryState
from engine.domain.outcome import Outcome
from engine.domain.partition import PARTITIONS
from engine.hl7v2.ack import Verdict
from engine.runtime.answers import Lane
from engine.runtime.intake import Intake
from engine.runtime.listener import Listener, bind
from engine.runtime.metrics import Metrics
from engine.runtime.returns import Returns
from engine.settings import Channel
from engine.store import Store

START, END, CR = b"\x0b", b"\x1c", b"\r"
PATIENCE_SECONDS = 60.0
"""How long is waited for what must come: long, because it costs nothing where it comes, and machines stand still."""


def adt(
    control_id: str = "1",
    *,
    type: str = "ADT^A01^ADT_A01",
    version: str = "2.5.1",
    processing_id: str = "P",
    sequence: str = "",
    accept: str = "",
    application: str = "",
    pid: str = "PID|1||558181838^^^MRN^MR||DOE^JANE",
    sender: str = "EPIC|MAIN",
    sent_at: str = "20260105120000-0500",
) -> bytes:
    header = (
        f"MSH|^~\\&|{sender}|HANDOFF|CARE|{sent_at}||{type}|{control_id}|{processing_id}|{version}"
        f"|{sequence}||{accept}|{application}"
    )
    return "".join(f"{line}\r" for line in (header, "EVN||20260105120000", pid, "PV1|1|I") if line).encode()


def frame(payload: bytes) -> bytes:
    return START + payload + END + CR


class Sender:
    """An MLLP sender that can do everything wrong."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, port: int, *, tls: ssl.SSLContext | None = None, **more: Any) -> Sender:
        name = {"server_hostname": "localhost"} if tls else {}
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=tls, **name, **more))

    async def write(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))
        await self.writer.drain()

    async def send(self, payload: bytes) -> None:
        await self.write(frame(payload))

    async def answer(self, seconds_max: float = PATIENCE_SECONDS) -> bytes:
        """The payload of the next frame; raises IncompleteReadError when the connection is closed before."""
        async with asyncio.timeout(seconds_max):
            data = await self.reader.readuntil(END + CR)
        assert data.startswith(START), data
        return data[1:-2]

    async def exchange(self, payload: bytes) -> bytes:
        await self.send(payload)
        return await self.answer()

    async def silent(self, seconds: float = 0.3) -> bool:
        """Whether nothing comes for a while."""
        try:
            async with asyncio.timeout(seconds):
                return not await self.reader.read(1)
        except TimeoutError:
            return True

    async def closed(self, seconds_max: float = PATIENCE_SECONDS) -> bool:
        """Whether the other side closes without another word."""
        try:
            async with asyncio.timeout(seconds_max):
                return await self.reader.read() == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        """Vanish with a reset: unlike an orderly close, that can't be a half close of somebody who still reads."""
        if self.writer.transport.is_closing():
            return
        sock = self.writer.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def fields(message: bytes, segment: str) -> list[str]:
    """Fields of the first such segment, numbered as HL7 does; empty when there is none."""
    for line in message.decode("utf-8").split("\r"):
        if line.startswith(segment):
            parts = line.split(line[3])
            return [parts[0], line[3], *parts[1:]] if segment in {"MSH", "BHS", "FHS"} else parts
    return []


def code(message: bytes) -> str:
    return fields(message, "MSA")[1]


def codes(messages: Sequence[bytes]) -> list[str]:
    return [code(message) for message in messages]


class Feed:
    """A channel's listener and intake over a store; `more` are keys of the channel file."""

    def __init__(self, site: Any, **more: Any) -> None:
        self.site = site
        self.channel = Channel.model_validate_json(_json(more))
        self.store = site.open("main")
        self.metrics = Metrics("test")
        self.counts = self.metrics.channel("adt")
        self.lane = Lane(self.channel, self.counts)
        self.returns = Returns()
        self.hinted = 0
        self.intake = Intake(
            self.store.journal,
            self.store.journal_ledger,
            self.store.keys,
            SystemClock(),
            self.metrics,
            outcomes=self._outcomes,
            stored=self._hint,
            return_to=self.returns.send,
        )
        self.listener = Listener(self.channel, self.intake, self.lane)
        self.senders: list[Sender] = []
        self._worker: Store | None = None
        self._position = 0

    @property
    def port(self) -> int:
        return self.listener.port

    async def open(self) -> None:
        self.intake.start()
        with await bind("127.0.0.1", 0, "channel adt") as sock:
            await self.listener.open(sock)
        await self.listener.serve()

    async def close(self) -> None:
        for sender in self.senders:
            sender.abort()
        await self.listener.drain(1)
        await self.intake.close()
        await self.returns.close(1)

    async def sender(self, **more: Any) -> Sender:
        sender = await Sender.to(self.port, **more)
        self.senders.append(sender)
        return sender

    # --- the other side of the store ------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        journal = self.store.journal
        return self.store.read_now(
            lambda conn: journal.entries(conn, [id_ for id_, _ in journal.after(conn, "adt", 0, 100_000)])
        )

    async def settled(self) -> list[Entry]:
        """The entries once the state of every answer is recorded."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while any(entry.ack_state == "owed" for entry in self.entries()):
                await asyncio.sleep(0.02)
        return self.entries()

    def repeats(self) -> int:
        return sum(one.repeats for one in self.store.read_now(lambda conn: self.store.journal.find(conn)))

    async def process(self, ack: AckCode = AckCode.AA, *, error: str = "patient-missing") -> int:
        """Record an outcome for all entries, as the worker does, and tell intake. Returns how many have one."""
        if self._worker is None:
            self._worker = self.site.open("worker")
        entries = [entry for entry in self.entries() if entry.id > self._position]
        letter = None
        if ack is not AckCode.AA:
            letter = DeadLetter(stage=Stage.PROCESSING, error=error, location="PID-3", detail="no identifier of use")
        outcomes = [
            Outcome(
                entry_id=entry.id,
                state=EntryState.PROCESSED if ack is AckCode.AA else EntryState.DEAD,
                application_ack=ack,
                error_code=0 if ack is AckCode.AA else 101,
                dead_letter=letter,
            )
            for entry in entries
        ]
        cursor, self._position = self._position, entries[-1].id
        moves = dict.fromkeys(range(PARTITIONS), (cursor, self._position))
        recorder, now = self._worker.recorder, SystemClock().now()
        await self._worker.charts_ledger.write(
            lambda conn: recorder.record(conn, outcomes, Charts(), channel="adt", moves=moves, now=now)
        )
        ids = [entry.id for entry in entries]
        self.intake.late.have_outcomes(*((ids, []) if ack is AckCode.AA else ([], ids)))
        return self._position

    async def _outcomes(self, entries: Sequence[int]) -> dict[int, Verdict]:
        found = await self.store.read(lambda conn: self.store.recorder.outcomes(conn, entries))
        return {
            entry: Verdict(code=one.application_ack, hl7_code=one.error_code, text="why" if one.error_code else "")
            for entry, one in found.items()
        }

    def _hint(self, _awaited: bool) -> None:
        self.hinted += 1


def _json(more: dict[str, Any]) -> bytes:
    import msgspec

    listen = {"port": 0, **more.pop("listen", {})}
    base = {"name": "adt", "listen": listen, "timezone": "America/New_York", "mapping": "adt", **more}
    return msgspec.json.encode(base)


async def eventually(condition: Any, seconds_max: float = PATIENCE_SECONDS) -> None:
    async with asyncio.timeout(seconds_max):
        while not condition():
            await asyncio.sleep(0.01)
