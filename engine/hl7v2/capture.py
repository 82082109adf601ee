"""The messages in a file, as people keep them: one after the other, batches, or captures with their MLLP framing."""

from __future__ import annotations

import re
from typing import Final

from engine.domain.record import Phi
from engine.hl7v2.mllp import START, FrameDecoder, is_framed

_BYTE_ORDER_MARK: Final = "\ufeff".encode()
_UNIT: Final = re.compile(rb"(?:^|(?<=[\r\n]))(?=[ \t]{0,40}(?:MSH|FHS|BHS)[^\w\r\n])")
_BATCH_END: Final = {b"FHS": b"FTS", b"BHS": b"BTS"}


class Captured(Phi, frozen=True, kw_only=True):
    """What goes into one frame."""

    payload: bytes
    batch: bool = False


def read_capture(data: bytes) -> list[Captured]:
    """Everything in a file, in order; nothing of it is dropped but blank lines between messages.

    Frames of an MLLP capture stay byte for byte. In a text file the lines may end as the editor left them (LF or CRLF):
    they become the CR that HL7 asks for. A file with lone CRs in it is an HL7 file, and stays as it is. A batch (FHS or
    BHS to FTS or BTS) is one unit. What does not start with a header is a unit too: its receiver shall judge it.
    """
    if START in data and is_framed(data):
        decoder = FrameDecoder(max(1, len(data)))
        frames = [*decoder.feed(data), *decoder.close()]
        return [Captured(payload=frame.payload, batch=_is_batch(frame.payload)) for frame in frames]
    data = data.removeprefix(_BYTE_ORDER_MARK)
    if b"\r" not in data.replace(b"\r\n", b"\n"):
        data = data.replace(b"\r\n", b"\r").replace(b"\n", b"\r")
    starts = [match.start() for match in _UNIT.finditer(data)]
    if not starts or data[: starts[0]].strip():
        starts.insert(0, 0)
    units: list[Captured] = []
    until = 0
    for start, following in zip(starts, [*starts[1:], len(data)], strict=True):
        if start < until:
            continue  # inside of the batch before
        end = _batch_end(data, start) or following
        until = end
        payload = data[start:end].strip(b"\r\n")
        if payload.strip():
            terminator = (
                b"\r\n" if b"\r\n" in payload else b"\n" if b"\r" not in payload and b"\n" in payload else b"\r"
            )
            units.append(Captured(payload=payload + terminator, batch=_is_batch(payload)))
    return units


def _is_batch(payload: bytes) -> bool:
    payload = payload.lstrip(b" \t")
    return payload[:3] in _BATCH_END and payload[3:4] != b"" and not payload[3:4].isalnum()


def _batch_end(data: bytes, start: int) -> int | None:
    """Where the batch that starts here ends: behind its trailer, or where the next one starts."""
    while data[start : start + 1] in {b" ", b"\t"}:
        start += 1
    header = data[start : start + 3]
    if header not in _BATCH_END:
        return None
    separator = re.escape(data[start + 3 : start + 4])
    trailer = re.compile(rb"[\r\n][ \t]{0,40}" + _BATCH_END[header] + rb"(?:" + separator + rb"[^\r\n]*)?(?=[\r\n]|$)")
    another = re.compile(rb"[\r\n][ \t]{0,40}" + header + separator)
    found, following = trailer.search(data, start + 1), another.search(data, start + 1)
    if found is not None and (following is None or found.start() < following.start()):
        return found.end()
    return following.start() + 1 if following is not None else len(data)
