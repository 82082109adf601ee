"""Batches (FHS, BHS, messages, BTS, FTS), and other ways in which one piece of bytes holds several messages.

A batch is cut at the lines where a header or trailer starts; each message keeps its bytes and is read alone. Whatever
else stands between them counts as a message too, an unreadable one: nothing that arrives goes unanswered.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Final

from engine.domain.record import Phi
from engine.errors import VALUE_TOO_LONG, MessageError
from engine.hl7v2.mllp import START, FrameDecoder, is_framed

COUNT_WRONG: Final = "batch-count-wrong"
TRAILER_MISSING: Final = "batch-trailer-missing"
HEADER_MISSING: Final = "batch-header-missing"
CONTENT_OUTSIDE: Final = "batch-content-outside-message"

# blanks are limited so that no line of them is looked at twice over
_MARK: Final = re.compile(
    rb"(?:\A(?:\xef\xbb\xbf)?[ \t\r\n\x00]*|(?<=[\r\n])[ \t\x00]{0,40})"
    rb"(FHS|BHS|MSH|BTS|FTS)(?=[!-/:-@\[-`{-~]|[\r\n]|\Z)"
)
_LINE_END: Final = re.compile(rb"[\r\n]")
_BLANK: Final = b"\r\n \t\x00"
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


class BatchTooLongError(MessageError):
    """A batch of more messages than may be taken at once."""

    def __init__(self) -> None:
        super().__init__("batch-too-long", "the batch holds too many messages", hl7_code=VALUE_TOO_LONG)


def split(payload: bytes, *, messages_max: int | None = None) -> Batch | None:
    """The batch, or None when the payload is a plain message (or nothing that can be read).

    Raises BatchTooLongError for more than `messages_max` messages, or more headers and trailers than those could need.
    """
    if payload[:3] == b"MSH":  # nearly always
        return None
    marks_max = None if messages_max is None else 2 + 3 * messages_max  # FHS and FTS, and for each BHS, MSH and BTS
    found = _MARK.finditer(payload)
    marks = list(found if marks_max is None else islice(found, marks_max + 1))
    if not marks or marks[0].start() != 0 or marks[0][1] not in _HEADERS:
        return None
    if marks_max is not None and len(marks) > marks_max:
        raise BatchTooLongError
    if messages_max is not None and sum(mark[1] == b"MSH" for mark in marks) > messages_max:
        raise BatchTooLongError
    reader = _BatchReader()
    ends = [*(mark.start(1) for mark in marks[1:]), len(payload)]
    for mark, end in zip(marks, ends, strict=True):
        reader.take(mark[1], payload[mark.start(1) : end])
    return reader.batch()


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
    if START in content and is_framed(content):
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


class _BatchReader:
    """Puts the pieces of a batch together: a piece is a header, trailer or message up to where the next one starts."""

    def __init__(self) -> None:
        self._file_header = b""
        self._groups: list[tuple[bytes, list[bytes]]] = []
        self._deviations: list[str] = []
        self._count = 0  # messages of the open batch
        self._in_batch = self._in_file = False

    def take(self, name: bytes, piece: bytes) -> None:
        if name == b"MSH":
            if not self._in_batch:
                self._deviations.append(HEADER_MISSING)
                self._open(b"")
            self._groups[-1][1].append(piece)
            self._count += 1
            return
        line = _LINE_END.split(piece, maxsplit=1)[0]
        if name == b"FHS":
            self._file_header = self._file_header or line
            self._in_file = True
        elif name == b"BHS":
            self._close(was_open=self._in_batch)
            self._open(line)
        elif name == b"BTS":
            self._trailer(line, self._count, opened=self._in_batch)
            self._in_batch = False
        else:
            self._close(was_open=self._in_batch)
            self._trailer(line, len(self._groups), opened=self._in_file)
            self._in_batch = self._in_file = False
        outside = piece[len(line) :].strip(_BLANK)
        if outside:  # handed on as a message, so that it is stored and answered like anything unreadable
            self._deviations.append(CONTENT_OUTSIDE)
            if not self._groups:
                self._groups.append((b"", []))
            self._groups[-1][1].append(outside)

    def batch(self) -> Batch:
        self._close(was_open=self._in_batch or self._in_file)
        return Batch(
            file_header=self._file_header,
            groups=tuple(Group(header=header, messages=tuple(messages)) for header, messages in self._groups),
            deviations=tuple(dict.fromkeys(self._deviations)),
        )

    def _open(self, header: bytes) -> None:
        self._groups.append((header, []))
        self._in_batch = True
        self._count = 0

    def _close(self, *, was_open: bool) -> None:
        if was_open:
            self._deviations.append(TRAILER_MISSING)

    def _trailer(self, line: bytes, count: int, *, opened: bool) -> None:
        if not opened:
            self._deviations.append(HEADER_MISSING)
        elif _count_differs(line, count):
            self._deviations.append(COUNT_WRONG)
