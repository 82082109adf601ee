"""A checkpoint: what the trail's end was at a time, and how far the books went; signed, to be kept where nobody of the
database can write.
"""

from __future__ import annotations

import contextlib
from datetime import datetime

import msgspec

from engine.domain.record import Record

VERSION = 1
BYTES_MAX = 4096
"""A line of a place; a longer one is none of ours."""


class Checkpoint(Record, frozen=True, kw_only=True):
    """What it says is signed: `signed_text`."""

    version: int = VERSION
    chain: str
    """The chain's random name."""
    seq: int
    """The number of the last record."""
    mac: str
    """Of that record, in hexadecimal digits."""
    at: datetime
    key: int
    """Which of the trail's keys has signed."""
    last: dict[str, int] = {}
    """The highest number that was given, of each table of which no row is ever taken out (`store/tallies.py`)."""
    signature: str = ""
    """Ed25519, in hexadecimal digits."""

    @property
    def signed_text(self) -> bytes:
        at = self.at.isoformat()
        last = ",".join(f"{name}={number}" for name, number in sorted(self.last.items()))
        parts = ("handoff-checkpoint", self.version, self.chain, self.seq, self.mac, at, self.key, last)
        return "|".join(map(str, parts)).encode()

    def written(self) -> bytes:
        """One line of JSON, without its end."""
        return msgspec.json.encode(self)


class Call(Record, frozen=True, kw_only=True):
    """A checkpoint as a web address gets it: in the form that other calls have there."""

    type: str = "trail_checkpoint"
    timestamp: str
    data: Checkpoint


def read(line: bytes | str) -> Checkpoint | None:
    """A line of a file, a message of syslog, the body of a call. None: it is no checkpoint. Whether it is ours, its
    signature says.
    """
    line = line.encode() if isinstance(line, str) else line
    line = line[max(0, line.find(b"{")) :]
    found: Checkpoint | None = None
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
        found = msgspec.json.decode(line, type=Checkpoint)
    if found is None:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            found = msgspec.json.decode(line, type=Call).data
    return found if found is not None and found.version == VERSION and found.at.tzinfo is not None else None
