"""A scheduling system for tests: it takes requests for appointments (SRM) over MLLP and answers them (SRR).

    python -m tests.peers.scheduling_system --port 2599        # prints one line of JSON with its address

It behaves as HL7 v2.5.1 chapter 10 has it, its failures included:

- SRM^S01 books: SRR with MSA AA and SCH-1 (our number), SCH-2 (its own), SCH-11, SCH-25 `Booked`; the same number again
  is answered by the same appointment (10.2.1: the placer's number names the request);
- with `hours_ahead` none it has no slot: SCH-25 `Pending`, and no time; `book` gives it one later;
- SRM^S04 cancels what it knows; of an unknown number, and of any message without ARQ-1, PID-3 or AIS-3 (required
  fields), MSA AE with the code of table 0357 in ERR-3;
- `refuse` it refuses the next requests with that code (207 passes, 200 does not); `mute` it books, and answers nothing;
  `plain` it answers with MSA alone, as systems do that schedule by hand.

`notices` are the SIU messages that it would send of its appointments.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self

from engine.hl7v2.message import Message
from engine.hl7v2.mllp import FrameDecoder, wrap

UNKNOWN_KEY, REQUIRED_FIELD, UNSUPPORTED_EVENT = "204", "101", "201"


@dataclass
class Booked:
    placer: str
    filler: str
    patient: str
    service: str
    starts_at: str = ""
    status: str = "Booked"
    duplicates: int = 0


@dataclass
class SchedulingSystem:
    port: int = 0
    hours_ahead: int | None = 48
    refuse: list[str] = field(default_factory=list)
    mute: int = 0
    plain: bool = False
    booked: dict[str, Booked] = field(default_factory=dict)
    received: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        decoder = FrameDecoder(1 << 20)
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                for frame in decoder.feed(data):
                    answer = self.answer(frame.payload)
                    if answer is not None:
                        writer.write(wrap(answer))
                        await writer.drain()
        self._writers.discard(writer)
        writer.close()

    def answer(self, payload: bytes) -> bytes | None:
        """The SRR of an SRM; none: it says nothing."""
        message = Message.parse(payload)
        self.received.append(message)
        if self.refuse:
            return self._srr(message, "AE", self.refuse.pop(0))
        event = message.header.trigger_event
        placer = message.get("ARQ-1.1")
        for path in ("ARQ-1.1", "ARQ-15.2", "PID-3.1", "AIS-3.1"):
            if not message.get(path):
                return self._srr(message, "AE", REQUIRED_FIELD)
        assert placer is not None
        if event == "S01":
            self._book(message, placer)
        elif event != "S04":
            return self._srr(message, "AR", UNSUPPORTED_EVENT)
        elif placer not in self.booked:
            return self._srr(message, "AE", UNKNOWN_KEY)
        else:
            self.booked[placer].status = "Cancelled"
        if self.mute:
            self.mute -= 1
            return None
        return self._srr(message, "AA", None, self.booked[placer])

    def _book(self, message: Message, placer: str) -> None:
        if placer in self.booked:
            self.booked[placer].duplicates += 1
            return
        start = ""
        if self.hours_ahead is not None:
            sent = datetime.strptime(message.get("MSH-7") or "", "%Y%m%d%H%M%S%z")
            start = (sent + timedelta(hours=self.hours_ahead)).strftime("%Y%m%d%H%M%S%z")
        self.booked[placer] = Booked(
            placer,
            f"F-{len(self.booked) + 1}",
            message.get("PID-3.1") or "",
            message.get("AIS-3.1") or "",
            start,
            "Booked" if start else "Pending",
        )

    def _srr(self, message: Message, code: str, error: str | None, booked: Booked | None = None) -> bytes:
        control_id, event = message.get("MSH-10"), message.header.trigger_event
        lines = [
            f"MSH|^~\\&|SCHEDULING|MAIN|HANDOFF|H|20260306120000||SRR^{event}^SRR_S01|R{len(self.received)}|P|2.5.1",
            f"MSA|{code}|{control_id}",
        ]
        if error is not None:
            lines.append(f"ERR|||{error}|E")
        if booked is not None and not self.plain:
            lines += [sch_of(booked), f"PID|1||{booked.patient}"]
        return "\r".join([*lines, ""]).encode()

    def book(self, placer: str, start: str) -> None:
        """Somebody finds a slot for what was pending."""
        self.booked[placer].starts_at, self.booked[placer].status = start, "Booked"

    def notice(self, placer: str, trigger: str, *, at: str, authority: str = "MRN") -> bytes:
        """The SIU of an appointment."""
        booked = self.booked[placer]
        lines = [
            f"MSH|^~\\&|SCHEDULING|MAIN|HANDOFF|H|{at}||SIU^{trigger}^SIU_S12|N{at}{trigger}|P|2.5.1",
            sch_of(booked),
            f"PID|1||{booked.patient}^^^{authority}^MR||Doe^Jane||19480312|F",
            "RGS|1|A",
            f"AIS|1|A|{booked.service}",
        ]
        return "\r".join([*lines, ""]).encode()


def sch_of(booked: Booked) -> str:
    fields = {1: f"{booked.placer}^HANDOFF", 2: booked.filler, 11: f"^^^{booked.starts_at}", 25: booked.status}
    return "|".join(["SCH", *(fields.get(number, "") for number in range(1, 26))])


async def _main(port: int) -> None:
    async with SchedulingSystem(port) as system:
        print(json.dumps({"host": "127.0.0.1", "port": system.port}), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(_main(parser.parse_args().port))
