"""MLLP framing without IO: bytes in, frames out. The host owns the socket and the timers.

A frame is `0B payload 1C 0D` (HL7 Minimal Lower Layer Protocol, release 1). Real senders break that in known ways;
nothing they send raises here. What is done about each is written beside the code, and what was found is told with the
frame as a deviation of that sender.

What ends a frame: `1C` followed by CR. `1C` followed by LF, NUL, another `1C` or a new `0B` ends it too, with the
deviation END_WITHOUT_CR; `1C` followed by anything else is taken as payload. When `1C` is the last byte that arrived
(`end_pending`), only the next byte or the host's patience decides: after a short pause without more bytes the host
calls `flush_pending_end`, or a sender that never writes CR would wait for its answer for ever.

What starts a frame inside of another: `0B` with MSH, FHS or BHS behind it; any other `0B` is payload (a soft return of
a word processor). The decoder waits for the bytes that decide.

UTF-16 and UTF-32 can't travel so: any of the bytes above may be half of a character. Such a message is refused by
whoever judges it. It must be kept whole all the same, so no `1C` ends it: it ends where the bytes end with
`1C 0D` and a pause follows, where the next frame starts, or with the connection. What still comes before the next frame
starts is the rest of it (`Frame.rest`).

A message of single bytes may not hold `1C 0D` either: they end its frame. What shows that they stood inside of it: text
follows the end, and what came before lacks its last segment's end, or the text begins with a segment. The frame is
`cut` then, if the text came in the same `feed`, and the text up to the next frame is its rest. Any other text between
frames is junk, which is counted.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec.structs import replace

from engine.domain.record import Phi

START: Final = b"\x0b"
END: Final = b"\x1c"
CR: Final = b"\r"

# The payloads of MLLP release 2's commit blocks: stored safely, not stored.
COMMIT_ACK_PAYLOAD: Final = b"\x06"
COMMIT_NAK_PAYLOAD: Final = b"\x15"
COMMIT_ACK: Final = START + COMMIT_ACK_PAYLOAD + END + CR
COMMIT_NAK: Final = START + COMMIT_NAK_PAYLOAD + END + CR

JUNK_BEFORE_FRAME: Final = "junk-before-frame"
END_WITHOUT_CR: Final = "end-without-cr"
START_INSIDE_FRAME: Final = "start-inside-frame"
END_BYTE_IN_PAYLOAD: Final = "end-byte-in-payload"
START_BYTE_IN_PAYLOAD: Final = "start-byte-in-payload"

_CR: Final = 0x0D
_ENDS_WITHOUT_CR: Final = frozenset(b"\n\x00\x1c\x0b")

_BLANKS: Final = rb"[\x00\t\n\r\x0c ]{0,16}"
_MARK: Final = _BLANKS + rb"(?:\xef\xbb\xbf|\xff\xfe(?:\x00\x00)?|(?:\x00\x00)?\xfe\xff){0,2}"
_SEPARATOR: Final = rb"[!-/:-@\[-`{-~]"
# A header in ASCII, or with one or three NULs around each letter as UTF-16 and UTF-32 have it. Neither pattern holds
# 0B or 1C, and each is of limited length, so that what they find does not depend on how the network cut the stream.
_NARROW: Final = rb"(?:[Mm][Ss][Hh]|[FfBb][Hh][Ss])" + _SEPARATOR
_WIDE: Final = rb"(?:[Mm](\x00|\x00{3})[Ss]\1[Hh]\1|[FfBb](\x00|\x00{3})[Hh]\2[Ss]\2)" + _SEPARATOR
WIDE_HEADER: Final = re.compile(_MARK + _BLANKS + _WIDE)
_FRAME_START: Final = re.compile(rb"\x0b" + _MARK + _BLANKS + rb"(?:" + _WIDE + rb"|(?P<narrow>" + _NARROW + rb"))")
_UNDECIDED: Final = re.compile(
    rb"\x0b[\xef\xbb\xbf\xff\xfe\x00\t\n\r\x0c ]*"
    rb"(?:[Mm]\x00*(?:[Ss]\x00*(?:[Hh]\x00*)?)?|[FfBb]\x00*(?:[Hh]\x00*(?:[Ss]\x00*)?)?)?\Z"
)
AHEAD_BYTES: Final = 54
"""Bytes behind a `0B` that decide whether it starts a frame."""
_WIDE_END: Final = re.compile(rb"\x1c\x00{0,3}\r?[\x00\r\n]{0,8}\Z")
_WIDE_END_BYTES: Final = 16
_JUNK: Final = b"\x00\t\n\r\x0c \x1c"
_TEXT: Final = re.compile(rb"[^\x00-\x20\x7f\xef\xbb\xbf\xff\xfe]")
"""The first byte between two frames that is no blank, control character or part of a byte order mark."""
_TAIL_START: Final = re.compile(_FRAME_START.pattern + rb"|(?<=\x1c\r)\x0b")
_SEGMENT: Final = re.compile(rb"[A-Z][A-Z0-9]{2}" + _SEPARATOR)
_PART_OF_SEGMENT: Final = re.compile(rb"(?:[A-Z][A-Z0-9]{0,2})?\Z")
_FRAME_OF_BYTES: Final = START + b"MS"
_HEADERS: Final = (b"MSH", b"FHS", b"BHS")

# Where a decoder is in the stream.
_BETWEEN: Final = 0
_IN_FRAME: Final = 1
_IN_WIDE: Final = 2
_IN_REST: Final = 3
_IN_TAIL: Final = 4
"""In the rest of a message of single bytes, where an end is an end."""


class Frame(Phi, frozen=True, kw_only=True):
    """One MLLP block. The payload of an oversize frame is its bytes up to the limit.

    cut: `1C 0D` inside of the message ended it, and its rest follows: never to be accepted. (Where the rest comes in a
    later `feed`, nobody can know.) rest: no block but the rest of the message before: to be kept, never to be answered.
    """

    payload: bytes
    deviations: tuple[str, ...] = ()
    oversize: bool = False
    cut: bool = False
    rest: bool = False


class FrameDecoder:
    """One connection's framing state. Memory is bounded by `frame_bytes_max`, a few bytes and the size of one `feed`.

    junk_bytes: bytes that arrived outside of any frame, so far. partials: frames that a new `0B` or the end of the
    connection cut off, so far. discarded: what there was of those, up to the limit each; filled by the last call
    only. They are never to be acknowledged.
    """

    __slots__ = (
        "_buffer", "_deviations", "_head", "_max", "_scan", "_tail", "_where", "discarded", "junk_bytes", "partials",
    )  # fmt: skip

    def __init__(self, frame_bytes_max: int) -> None:
        self._max = frame_bytes_max
        self._buffer = bytearray()  # the open frame's bytes, without its 0B
        self._scan = 0  # nothing before this index of the buffer can end the frame
        self._head: bytes | None = None  # set once the open frame is over the limit: its first bytes
        self._deviations: list[str] = []  # of the frame that is open or comes next
        self._where = _BETWEEN
        self._tail: bytes | None = None  # the last bytes of the frame before, when we are behind one
        self.junk_bytes = 0
        self.partials = 0
        self.discarded: list[bytes] = []

    @property
    def in_frame(self) -> bool:
        """Whether bytes of a frame that is not complete are held, or awaited."""
        return self._where in {_IN_FRAME, _IN_WIDE} or bool(self._buffer)

    @property
    def pending(self) -> int:
        """Bytes held in memory."""
        return len(self._buffer) + len(self._head or b"")

    @property
    def end_pending(self) -> bool:
        """The bytes that arrived may be the end of the frame: a pause decides."""
        if self._where == _IN_FRAME and not self._is_wide(self._buffer, 0):
            return self._buffer.endswith(END)
        if self._where in {_BETWEEN, _IN_REST, _IN_TAIL}:
            return bool(self._buffer)
        return _WIDE_END.search(self._buffer[-_WIDE_END_BYTES:]) is not None

    def feed(self, data: bytes) -> list[Frame]:  # noqa: PLR0915 - one loop over the stream, in the order of its bytes
        """The frames that these bytes complete, in order."""
        self.discarded = []
        frames: list[Frame] = []
        if self._where == _BETWEEN:
            if not self._buffer and _is_one_frame(data):  # as nearly every read brings it: nothing is to be decided
                frame = self._complete(data, 1, len(data) - 2)
                self._tail = frame.payload[-2:]
                return [frame]
            if self._buffer:
                data = bytes(self._buffer) + data
                self._buffer.clear()
            position = self._skip_junk(data, 0, frames)
            if position < 0:
                return frames
            view: bytes | bytearray = data  # whole frames are cut out of `data` directly
        else:
            self._buffer += data
            view = self._buffer
            position = 0
        scan = position if view is data else self._scan
        size = len(view)
        while True:
            if self._where >= _IN_WIDE:
                start = (_TAIL_START if self._where == _IN_TAIL else _FRAME_START).search(view, scan)
                if start is None:
                    scan = _undecided(view, scan)
                    break
                frames += self._complete_wide(view, position, start.start())
                self._where = _IN_FRAME if start[1] is None and start[2] is None else _IN_WIDE
                position = scan = start.start() + 1
                continue
            end = view.find(END, scan)
            stop = end if end >= 0 else size
            starts = view.find(START, scan, stop) >= 0
            if view[position : position + 2] != b"MS" and (starts or end >= 0) and self._is_wide(view, position):
                self._where = _IN_WIDE
                continue
            if starts:
                position, scan = self._look_at_starts(view, position, scan, stop)
                if self._where >= _IN_WIDE:
                    continue
                if scan < stop:
                    break
            if end < 0:
                scan = size
                break
            if end + 1 == size:
                scan = end
                break
            follower = view[end + 1]
            if follower != _CR and follower not in _ENDS_WITHOUT_CR:
                self._deviate(END_BYTE_IN_PAYLOAD)
                scan = end + 1
                continue
            if follower != _CR:
                self._deviate(END_WITHOUT_CR)
            frames.append(self._complete(view, position, end))
            # CR and LF belong to the end; the other bytes are looked at again (a new 0B, or junk)
            position = self._skip_junk(view, end + 2 if follower in b"\r\n" else end + 1, frames)
            if position < 0:
                return frames
            scan = position
        self._keep(view, position, scan)
        return frames

    def flush_pending_end(self) -> list[Frame]:
        """Complete the frame that may be at its end, if there is one: the host waited for more bytes long enough."""
        self.discarded = []
        if not self.end_pending:
            return []
        buffer, self._buffer, self._scan = self._buffer, bytearray(), 0
        if self._where == _BETWEEN:
            self._tail = None
            self._junk(len(buffer))
            return []
        if self._where == _IN_TAIL:
            ended = _WIDE_END.search(buffer[-_WIDE_END_BYTES:]) is not None
            frames = self._complete_wide(buffer, 0, len(buffer))
            self._where = _BETWEEN if ended else _IN_TAIL
            return frames
        if self._where >= _IN_WIDE or self._is_wide(buffer, 0):
            self._where = max(self._where, _IN_WIDE)
            frames = self._complete_wide(buffer, 0, len(buffer))
            self._where = _IN_REST
            return frames
        self._deviate(END_WITHOUT_CR)
        self._where = _BETWEEN
        frame = self._complete(buffer, 0, len(buffer) - 1)
        self._tail = frame.payload[-2:]
        return [frame]

    def close(self) -> list[Frame]:
        """The connection has ended: a frame that only lacks its CR is complete, any other open frame is discarded.

        What there is of a message in UTF-16 or UTF-32 is kept in any case: it can't be known whether it is all of it.
        """
        frames = self.flush_pending_end()
        if self._where == _IN_WIDE or (self._where == _IN_FRAME and self._is_wide(self._buffer, 0)):
            frames += self._complete_wide(self._buffer, 0, len(self._buffer))
        elif self._where == _IN_FRAME:
            self._discard(self._buffer, 0, len(self._buffer))
        self._buffer = bytearray()
        self._scan = 0
        self._head = None
        self._deviations = [] if self._where != _BETWEEN else self._deviations
        self._where = _BETWEEN
        self._tail = None
        return frames

    def _skip_junk(self, view: bytes | bytearray, position: int, frames: list[Frame]) -> int:
        """Behind a frame, or before the first one: the index behind the next 0B, or -1 when there is none.

        Or the index of the text there that is the rest of the frame before.
        """
        start = view.find(START, position)
        if start == position:
            self._where = _IN_FRAME
            return start + 1
        if frames:
            self._tail = frames[-1].payload[-2:]
        kept, stop = b"", start if start >= 0 else len(view)
        if position < stop:
            text = _TEXT.search(view, position, stop) if self._tail is not None else None
            if text is not None:
                begins = bytes(view[text.start() : min(stop, text.start() + 4)])
                if self._is_rest(begins):
                    self._junk(text.start() - position)
                    if frames and not begins.startswith(_HEADERS):
                        frames[-1] = replace(frames[-1], cut=True)
                    self._where = _IN_TAIL
                    return text.start()
                if start < 0 and _PART_OF_SEGMENT.match(begins):
                    kept, stop = begins, text.start()  # the next bytes decide
                else:
                    self._tail = None  # it is junk, and so is all of it that comes before the next frame
            self._junk(stop - position)
        if start >= 0:
            self._where = _IN_FRAME
            return start + 1
        self._where = _BETWEEN
        if kept or self._buffer:
            self._buffer = bytearray(kept)
        self._scan = 0
        return -1

    def _is_rest(self, begins: bytes) -> bool:
        """Whether text that begins so, behind a frame, is the rest of it."""
        ended = self._tail is not None and self._tail.endswith((CR, b"\r\n"))
        return not ended or _SEGMENT.match(begins) is not None

    def _junk(self, size: int) -> None:
        if size:
            self.junk_bytes += size
            self._deviate(JUNK_BEFORE_FRAME)

    def _is_wide(self, view: bytes | bytearray, position: int) -> bool:
        """Whether the open frame begins as UTF-16 and UTF-32 do. (One over the limit was looked at before.)"""
        if self._head is not None or view[position : position + 2] == b"MS":
            return False
        return WIDE_HEADER.match(view, position) is not None

    def _look_at_starts(self, view: bytes | bytearray, position: int, scan: int, stop: int) -> tuple[int, int]:
        """Discard what the 0B bytes in view[scan:stop] cut off; where the frame begins, and how far they are decided.

        Behind one that starts a wide message nothing is looked at.
        """
        while (start := _FRAME_START.search(view, scan, stop)) is not None:
            self._discard(view, position, start.start())
            self._head = None
            self._deviations = [name for name in self._deviations if name == JUNK_BEFORE_FRAME]  # not the lost frame's
            self._deviate(START_INSIDE_FRAME)
            position = scan = start.start() + 1
            if not start["narrow"]:
                self._where = _IN_WIDE
                return position, scan
        decided = _undecided(view, scan) if stop == len(view) else stop
        if view.find(START, scan, decided) >= 0:
            self._deviate(START_BYTE_IN_PAYLOAD)
        return position, decided

    def _discard(self, view: bytes | bytearray, position: int, stop: int) -> None:
        self.partials += 1
        self.discarded.append(
            self._head if self._head is not None else bytes(view[position : min(stop, position + self._max)])
        )

    def _complete(self, view: bytes | bytearray, position: int, end: int, *, rest: bool = False) -> Frame:
        if self._head is not None:
            payload, oversize = self._head, True
            self._head = None
        else:
            oversize = end - position > self._max
            payload = bytes(view[position : min(end, position + self._max)])
        deviations = tuple(self._deviations)
        if deviations:
            self._deviations = []
        return Frame(payload=payload, deviations=deviations, oversize=oversize, rest=rest)

    def _complete_wide(self, view: bytes | bytearray, position: int, stop: int) -> list[Frame]:
        """The wide message, or the rest of a message, in view[position:stop]; none: only blanks came behind it."""
        rest = self._where >= _IN_REST
        if rest and self._head is None and not view[position:stop].strip(_JUNK):
            self._junk(stop - position)
            return []
        if rest:
            self._deviate(JUNK_BEFORE_FRAME)
        tail = max(position, stop - _WIDE_END_BYTES)
        end = _WIDE_END.search(view[tail:stop])
        return [self._complete(view, position, stop if end is None else tail + end.start(), rest=rest)]

    def _keep(self, view: bytes | bytearray, position: int, scan: int) -> None:
        """Hold the open frame's bytes for the next feed; of an oversize one only its first bytes and its last ones."""
        if self._head is None and scan - position > max(self._max, AHEAD_BYTES):
            if self._where == _IN_FRAME and self._is_wide(view, position):
                self._where = _IN_WIDE
            self._head = bytes(view[position : position + self._max])
        if self._head is not None:
            position = scan if self._where == _IN_FRAME else max(position, scan - _WIDE_END_BYTES)
        if view is self._buffer:
            del self._buffer[:position]
        else:
            self._buffer = bytearray(view[position:])
        self._scan = scan - position

    def _deviate(self, name: str) -> None:
        if name not in self._deviations:
            self._deviations.append(name)


def is_framed(content: bytes) -> bool:
    """Whether these bytes of a file are a capture of frames, and not one message that holds a `0B`."""
    return content.lstrip(_JUNK).startswith(START) or _FRAME_START.search(content) is not None


def is_wide(payload: bytes) -> bool:
    """Whether the payload is in UTF-16 or UTF-32, by the bytes of its header."""
    return payload[:2] != b"MS" and WIDE_HEADER.match(payload) is not None


def _is_one_frame(data: bytes) -> bool:
    """Whether the bytes are one frame and nothing else, whose message begins as one in single bytes does."""
    return (
        data.startswith(_FRAME_OF_BYTES)
        and data.endswith(END + CR)
        and data.find(END) == len(data) - 2
        and data.find(START, 1) < 0
    )


def _undecided(view: bytes | bytearray, scan: int) -> int:
    """The index of a 0B at the end of the view that may start a frame when more bytes come, else the view's length."""
    size = len(view)
    found = _UNDECIDED.search(view, max(scan, size - AHEAD_BYTES))
    return size if found is None else found.start()


def wrap(payload: bytes) -> bytes:
    """The payload as a frame.

    Raises ValueError when the payload holds bytes that would end the frame before its end.
    """
    if START in payload or END + CR in payload or payload.endswith(END):
        raise ValueError("the payload holds MLLP framing bytes")
    return START + payload + END + CR
