"""An MLLP sender that reads our answers as the engine does that many hospitals have, and not as the standard says.

It sends one frame, and takes the next frame that comes for its answer, whatever it answers. An answer with another
control id is an error of that message, though it was delivered. AA and CA are success; every other code is final, and
the message is never sent again. Without an answer in time, or when the connection breaks, the same message is sent
again, for ever (here: `attempts_max` times). Of a refusal it shows the text of MSA-3.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

SENT, ERROR, UNANSWERED = "sent", "error", "unanswered"


class PickySender:
    def __init__(self, port: int, *, answer_seconds_max: float = 5.0, attempts_max: int = 200) -> None:
        self.port = port
        self.answer_seconds_max = answer_seconds_max
        self.attempts_max = attempts_max
        self.attempts = 0
        """Frames that it sent, each repetition counted."""
        self.texts: list[str] = []
        """MSA-3 of each refusal."""
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, control_id: str, payload: bytes) -> str:
        """One frame, until it is answered; `control_id` is that of its first message."""
        for _ in range(self.attempts_max):
            self.attempts += 1
            try:
                answer = await self._exchange(payload)
            except (OSError, EOFError, TimeoutError):
                self.close()
                await asyncio.sleep(0.01)
                continue
            msa = next((line.split("|") for line in answer.split("\r") if line.startswith("MSA|")), ["MSA", "", ""])
            if msa[1] not in {"AA", "CA"}:
                self.texts.append(msa[3] if len(msa) > 3 else "")
                return ERROR
            return SENT if msa[2] == control_id else ERROR
        return UNANSWERED

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def _exchange(self, payload: bytes) -> str:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        assert self._reader is not None
        self._writer.write(b"\x0b" + payload + b"\x1c\r")
        async with asyncio.timeout(self.answer_seconds_max):
            await self._writer.drain()
            try:
                frame = await self._reader.readuntil(b"\x1c\r")
            except asyncio.IncompleteReadError:
                raise EOFError from None
        return frame.strip(b"\x0b\x1c\r").decode("utf-8", "replace") + "\r"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.close()
