"""A notice put into a message that is passed on: NTE segments behind all others.

Chapter 2 lets a receiver ignore a segment that it does not expect where it stands, so a strict one loses the notice and
nothing else. The message keeps its bytes otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.hl7v2.escape import escape
from engine.hl7v2.header import read_header

__all__ = ["with_lines"]


def with_lines(payload: bytes, lines: Sequence[str]) -> bytes:
    """The message with an NTE segment a line, in ASCII. Raises HeaderError."""
    delimiters = read_header(payload).delimiters
    bar = delimiters.field
    segments = [
        bar.join(("NTE", str(number), "", escape(line, delimiters), "RE")) for number, line in enumerate(lines, 1)
    ]
    end = b"" if payload.endswith(b"\r") else b"\r"
    return payload + end + "".join(f"{one}\r" for one in segments).encode("ascii", "replace")
