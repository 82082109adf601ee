"""MLLP framing without IO: bytes in, frames out. The host owns the socket and the timers.

A frame is `0B payload 1C 0D` (HL7 Minimal Lower Layer Protocol, release 1). Real senders break that in known ways;
nothing they send raises here. What is done about each is written beside the code, and what was found is told with the
frame as a deviation of that sender.

What ends a frame: `1C` followed by CR. `1C` followed by LF, NUL, another `1C` or a new `0B` ends it too, with the
deviation END_WITHOUT_CR; `1C` followed by anything else is taken as payload. When `1C` is the last byte that arrived
(`end_pending`), only the next byte or the host's patience decides: after a short pause without more bytes the host
calls `flush_pending_end`, or a sender that never writes CR would wait for its answer for ever.
"""

from __future__ import annotations

from typing import Final

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

_CR: Final = 0x0D
_ENDS_WITHOUT_CR: Final = frozenset(b"\n\x00\x1c\x0b")


class Frame(Phi, frozen=True, kw_only=True):
    """One MLLP block. The payload of an oversize frame is its bytes up to the limit."""

    payload: bytes
    deviations: tuple[str, ...] = ()
    oversize: bool = False


class FrameDecoder:
    """One connection's framing state. Memory is bounded by `frame_bytes_max` and the size of one `feed`.

    junk_bytes: bytes that arrived outside of any frame, so far. partials: frames that a new `0B` or the end of the
    connection cut off, so far. discarded: what there was of those, up to the limit each; filled by the last call
    only. They are never to be acknowledged.
    """

    __slots__ = ("_buffer", "_deviations", "_head", "_max", "_scan", "discarded", "in_frame", "junk_bytes", "partials")

    def __init__(self, frame_bytes_max: int) -> None:
        self._max = frame_bytes_max
        self._buffer = bytearray()  # the open frame's bytes, without its 0B
        self._scan = 0  # nothing before this index of the buffer can end the frame
        self._head: bytes | None = None  # set once the open frame is over the limit: its first bytes
        self._deviations: list[str] = []  # of the frame that is open or comes next
        self.in_frame = False
        self.junk_bytes = 0
        self.partials = 0
        self.discarded: list[bytes] = []

    @property
    def pending(self) -> int:
        """Bytes held in memory."""
        return len(self._buffer) + len(self._head or b"")

    @property
    def end_pending(self) -> bool:
        """The last byte that arrived was `1C`: the frame may be complete."""
        return self.in_frame and self._buffer.endswith(END)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete, in order."""
        self.discarded = []
        frames: list[Frame] = []
        if not self.in_frame:
            position = self._skip_junk(data, 0)
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
            end = view.find(END, scan)
            if view.find(START, scan, end if end >= 0 else size) >= 0:
                position = self._restart(view, position, scan, end if end >= 0 else size)
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
            position = self._skip_junk(view, end + 2 if follower in b"\r\n" else end + 1)
            if position < 0:
                self._buffer = bytearray()
                self._scan = 0
                return frames
            scan = position
        self._keep(view, position, scan)
        return frames

    def flush_pending_end(self) -> list[Frame]:
        """Complete the frame whose last byte is `1C`, if there is one: the host waited for the CR long enough."""
        self.discarded = []
        if not self.end_pending:
            return []
        self._deviate(END_WITHOUT_CR)
        frame = self._complete(self._buffer, 0, len(self._buffer) - 1)
        self._buffer = bytearray()
        self._scan = 0
        self.in_frame = False
        return [frame]

    def close(self) -> list[Frame]:
        """The connection has ended: a frame that only lacks its CR is complete, any other open frame is discarded."""
        frames = self.flush_pending_end()
        if self.in_frame:
            self._discard(self._buffer, 0, len(self._buffer))
            self._buffer = bytearray()
            self._scan = 0
            self._head = None
            self._deviations = []
            self.in_frame = False
        return frames

    def _skip_junk(self, view: bytes | bytearray, position: int) -> int:
        """The index behind the next 0B, or -1 when there is none."""
        start = view.find(START, position)
        junk = (start if start >= 0 else len(view)) - position
        if junk:
            self.junk_bytes += junk
            self._deviate(JUNK_BEFORE_FRAME)
        self.in_frame = start >= 0
        return start + 1 if start >= 0 else -1

    def _restart(self, view: bytes | bytearray, position: int, scan: int, stop: int) -> int:
        """Discard what the 0B bytes in view[scan:stop] cut off; the index behind the last of them."""
        while (start := view.find(START, scan, stop)) >= 0:
            self._discard(view, position, start)
            self._head = None
            position = scan = start + 1
        self._deviate(START_INSIDE_FRAME)
        return position

    def _discard(self, view: bytes | bytearray, position: int, stop: int) -> None:
        self.partials += 1
        self.discarded.append(
            self._head if self._head is not None else bytes(view[position : min(stop, position + self._max)])
        )

    def _complete(self, view: bytes | bytearray, position: int, end: int) -> Frame:
        if self._head is not None:
            payload, oversize = self._head, True
            self._head = None
        else:
            oversize = end - position > self._max
            payload = bytes(view[position : min(end, position + self._max)])
        deviations = tuple(self._deviations)
        if deviations:
            self._deviations = []
        return Frame(payload=payload, deviations=deviations, oversize=oversize)

    def _keep(self, view: bytes | bytearray, position: int, scan: int) -> None:
        """Hold the open frame's bytes for the next feed; of an oversize one only its first bytes and a last `1C`."""
        if self._head is None and scan - position > self._max:
            self._head = bytes(view[position : position + self._max])
        if self._head is not None:
            position = scan
        if view is self._buffer:
            del self._buffer[:position]
        else:
            self._buffer = bytearray(view[position:])
        self._scan = scan - position

    def _deviate(self, name: str) -> None:
        if name not in self._deviations:
            self._deviations.append(name)


def wrap(payload: bytes) -> bytes:
    """The payload as a frame.

    Raises ValueError when the payload holds bytes that would end the frame before its end.
    """
    if START in payload or END + CR in payload or payload.endswith(END):
        raise ValueError("the payload holds MLLP framing bytes")
    return START + payload + END + CR
