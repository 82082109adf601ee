"""Batches (FHS, BHS, messages, BTS, FTS), and other ways in which one piece of bytes holds several messages.

A batch is cut at the lines where a header or trailer starts; each message keeps its bytes and is read alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from engine.domain.record import Phi
from engine.hl7v2.mllp import START, FrameDecoder

COUNT_WRONG: Final = "batch-count-wrong"
TRAILER_MISSING: Final = "batch-trailer-missing"
HEADER_MISSING: Final = "batch-header-missing"
CONTENT_OUTSIDE: Final = "batch-content-outside-message"

_MARK: Final = re.compile(
    rb"(?:\A(?:\xef\xbb\xbf)?|(?<=[\r\n]))[ \t\r\n\x00]*(FHS|BHS|MSH|BTS|FTS)(?=[!-/:-@\[-`{-~]|[\r\n]|\Z)"
)
_LINE_END: Final = re.compile(rb"[\r\n]")
_HEADERS: Final = frozenset({b"FHS", b"BHS"})


class Group(Phi, frozen=True, kw_only=True):
    """One BHS with its messages. header: the BHS segment, empty when the messages came without one."""

    header: bytes
    messages: tuple[bytes, ...]


class Batch(Phi, frozen=True, kw_only=True):
    """file_header: the FHS segment, empty when there is none."""

    file_header: bytes
    groups: tuple[Group, ...]
    deviations: tuple[str, ...] = ()

    @property
    def messages(self) -> tuple[bytes, ...]:
        """All messages in order, each with the bytes it came with."""
        return tuple(message for group in self.groups for message in group.messages)


def split(payload: bytes) -> Batch | None:
    """The batch, or None when the payload is a plain message (or nothing that can be read)."""
    if payload[:3] == b"MSH":  # nearly always
        return None
    marks = list(_MARK.finditer(payload))
    if not marks or marks[0].start() != 0 or marks[0][1] not in _HEADERS:
        return None
    file_header = b""
    groups: list[tuple[bytes, list[bytes]]] = []
    deviations: list[str] = []
    in_batch = file_open = False
    ends = [*(mark.start(1) for mark in marks[1:]), len(payload)]
    for mark, end in zip(marks, ends, strict=True):
        name = mark[1]
        piece = payload[mark.start(1) : end]
        line = _LINE_END.split(piece, 1)[0]
        if name == b"MSH":
            if not in_batch:
                deviations.append(HEADER_MISSING)
                groups.append((b"", []))
                in_batch = True
            groups[-1][1].append(piece)
            continue
        if piece[len(line) :].strip(b"\r\n \t\x00"):
            deviations.append(CONTENT_OUTSIDE)
        if name == b"FHS":
            file_header = file_header or line
            file_open = True
        elif name == b"BHS":
            if in_batch:
                deviations.append(TRAILER_MISSING)
            groups.append((line, []))
            in_batch = True
        elif name == b"BTS":
            if not in_batch:
                deviations.append(HEADER_MISSING)
            elif _count_differs(line, len(groups[-1][1])):
                deviations.append(COUNT_WRONG)
            in_batch = False
        else:
            if in_batch:
                deviations.append(TRAILER_MISSING)
            if not file_open:
                deviations.append(HEADER_MISSING)
            elif _count_differs(line, len(groups)):
                deviations.append(COUNT_WRONG)
            in_batch = file_open = False
    if in_batch or file_open:
        deviations.append(TRAILER_MISSING)
    return Batch(
        file_header=file_header,
        groups=tuple(Group(header=header, messages=tuple(messages)) for header, messages in groups),
        deviations=tuple(dict.fromkeys(deviations)),
    )


def answer(batch: Batch, acks: Sequence[bytes], *, now: datetime, control_id: str) -> bytes:
    """One batch acknowledgment: the headers mirrored, the acknowledgments inside.

    acks: in the order of `batch.messages`, one each; an empty one where none is owed. now: aware.
    control_id: our own, unique; it becomes BHS-11 (with the batch's number) and FHS-11.
    """
    parts: list[bytes] = []
    rest = iter(acks)
    for number, group in enumerate(batch.groups, 1):
        own = [ack for _ in group.messages if (ack := next(rest))]
        separator, header = _mirrored(group.header or b"BHS|^~\\&", now, f"{control_id}-{number}")
        parts += [header, *own, separator.join((b"BTS", str(len(own)).encode())) + b"\r"]
    if batch.file_header:
        separator, header = _mirrored(batch.file_header, now, control_id)
        trailer = separator.join((b"FTS", str(len(batch.groups)).encode())) + b"\r"
        parts = [header, *parts, trailer]
    return b"".join(parts)


def messages_in(content: bytes) -> list[bytes]:
    """The messages in a file: one message, several one after the other, a batch, or an MLLP-framed capture.

    Bytes that are none of these come back as the one message they were meant to be.
    """
    if START in content:
        decoder = FrameDecoder(len(content))
        frames = decoder.feed(content)
        frames += decoder.close()
        pieces = [frame.payload for frame in frames] + decoder.discarded
    else:
        pieces = [content]
    return [message for piece in pieces for message in _messages_in(piece)]


def _messages_in(content: bytes) -> list[bytes]:
    batch = split(content)
    if batch is not None:
        return list(batch.messages)
    starts = [mark.start() for mark in _MARK.finditer(content) if mark[1] == b"MSH"]
    if not starts or starts[0] != 0:
        starts = [0, *starts[1:]]
    ends = [*starts[1:], len(content)]
    return [content[start:end] for start, end in zip(starts, ends, strict=True)]


def _count_differs(trailer: bytes, count: int) -> bool:
    """Whether BTS-1 or FTS-1 is a number other than this. Leaving it out is allowed."""
    said = trailer[4:].split(trailer[3:4], 1)[0].strip() if len(trailer) > 4 else b""
    return bool(said) and (said.lstrip(b"0") or b"0") != str(count).encode()


def _mirrored(header: bytes, now: datetime, control_id: str) -> tuple[bytes, bytes]:
    """The field separator and the answer's FHS or BHS: sender and receiver swapped, control id referred to."""
    separator = header[3:4] or b"|"
    fields = header.split(separator)
    fields += [b""] * (12 - len(fields))
    stamp = now.strftime("%Y%m%d%H%M%S%z").encode()
    sender, receiver = fields[2:4], fields[4:6]
    reply = [
        fields[0],
        fields[1] or b"^~\\&",
        *receiver,
        *sender,
        stamp,
        b"",
        b"",
        b"",
        control_id.encode(),
        fields[10],
    ]
    return separator, separator.join(reply).translate(None, b"\x0b\x1c") + b"\r"
