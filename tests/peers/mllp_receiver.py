"""An MLLP receiver for tests: stop-and-wait, answers AA, and misbehaves when told to.

    python -m tests.peers.mllp_receiver --port 2599        # prints one line of JSON with its address

What goes wrong is scripted with `receiver.behave(...)`, one entry a message in the order of arrival:

- `aa`, `ca`, `ae`, `ar`, `ce`, `cr`: that answer; with `:207` that code in ERR-3
- `aa!`: AA with an empty MSA-2
- `foreign`: AA with another control id        - `garbage`: a frame that is no acknowledgment
- `silent`: no answer                          - `close`: the connection is closed without an answer
- `late`: no answer, and an AA for this message just before the answer to the next one on the same connection
- `twice`: CA and, a moment later, AA for the same message       - `bare`: AA whose frame ends without CR
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections import deque
from typing import Self

from engine.hl7v2.mllp import FrameDecoder


class MllpReceiver:
    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.always: str | None = None
        """How it answers when the script is at its end; none: AA."""
        self.filtered: tuple[bytes, str] = (b"", "aa")
        """How it answers whatever holds these bytes, without asking the script; none when they are empty."""
        self.received: list[bytes] = []
        """Every message that arrived, in order."""
        self.connections = 0
        self._script: deque[str] = deque()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self.drop_connections()
            await self._server.wait_closed()

    def behave(self, *script: str) -> None:
        self._script.extend(script)

    def drop_connections(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    def control_ids(self) -> list[str]:
        return [_control_id(payload) for payload in self.received]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        decoder = FrameDecoder(1 << 24)
        late: list[bytes] = []
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                for frame in decoder.feed(data):
                    self.received.append(frame.payload)
                    marker, refusal = self.filtered
                    if marker and marker in frame.payload:
                        how = refusal
                    else:
                        how = self._script.popleft() if self._script else self.always or "aa"
                    if how == "close":
                        writer.transport.abort()
                        return
                    if how == "late":
                        late.append(_ack("AA", _control_id(frame.payload)))
                        continue
                    for answer in (*late, *_answers(how, frame.payload)):
                        writer.write(answer)
                        await writer.drain()
                    late.clear()
        self._writers.discard(writer)
        writer.close()


def _control_id(payload: bytes) -> str:
    return payload.split(b"\r")[0].split(b"|")[9].decode()


def _ack(code: str, control_id: str, hl7_code: str = "") -> bytes:
    lines = ["MSH|^~\\&|PEER||HANDOFF||20260101000000+0000||ACK|A1|P|2.5.1", f"MSA|{code}|{control_id}"]
    if hl7_code:
        lines.append(f"ERR|||{hl7_code}|E")
    return b"\x0b" + "".join(f"{line}\r" for line in lines).encode() + b"\x1c\r"


def _answers(how: str, payload: bytes) -> list[bytes]:
    control_id = _control_id(payload)
    match how:
        case "aa!":
            return [_ack("AA", "")]
        case "silent":
            return []
        case "foreign":
            return [_ack("AA", f"{control_id}-other")]
        case "garbage":
            return [b"\x0bthis is not HL7\x1c\r"]
        case "twice":
            return [_ack("CA", control_id), _ack("AA", control_id)]
        case "chatty":  # no CR behind its last segment, and a remark behind its frame
            return [_ack("AA", control_id)[:-3] + b"\x1c\rMSA said so\x1c\r"]
        case "bare":
            return [_ack("AA", control_id)[:-1]]
        case _:
            code, _, hl7_code = how.partition(":")
            return [_ack(code.upper(), control_id, hl7_code)]


async def _main(port: int, script: list[str]) -> None:
    receiver = MllpReceiver(port)
    receiver.behave(*script)
    await receiver.start()
    sys.stdout.write(json.dumps({"host": "127.0.0.1", "port": receiver.port}) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", nargs="*", default=[], help="how to answer the first messages")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(options.port, options.script))
