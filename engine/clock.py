"""The clock, injected wherever time matters, so that tests and replays decide what time it is.

Deadlines, receipts, deliveries, whatever a chart or a person sees: by the site's clock (`site_clock`). What machines
and processes owe each other (leases, heartbeats, time-outs, the pauses of a socket, certificates) is by the real one.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

_LOOK_SECONDS: Final = 0.1
"""A file of seconds is read again after so long."""
_TEXT_BYTES_MAX: Final = 64
_OFFSET_SECONDS_MAX: Final = 100 * 366 * 86_400.0
_FIRST_ATTEMPTS: Final = 10
"""Who begins while the file is being written has no earlier value to go on with."""
_FIRST_PAUSE_SECONDS: Final = 0.01


class Clock(Protocol):
    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        ...

    def pause(self, seconds: float) -> float:
        """Who waits for a time of this clock that is so many seconds ahead looks at it again after this time."""
        ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def pause(self, seconds: float) -> float:
        return seconds


class FixedClock:
    """A clock that stands still until it is moved."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def pause(self, seconds: float) -> float:
        return seconds


class ShiftedClock:
    """The clock of a site for tests: the system's, and the seconds that a file holds.

    No file: 0 seconds. A text that is no number changes nothing, and the log says so. Any thread may ask.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._offset = timedelta()
        self._look_at = -math.inf
        self._misread = 0
        for _ in range(_FIRST_ATTEMPTS):
            if self._look():
                break
            time.sleep(_FIRST_PAUSE_SECONDS)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def pause(self, seconds: float) -> float:
        return min(seconds, _LOOK_SECONDS)

    @property
    def offset(self) -> timedelta:
        """By how much it is ahead of the system's."""
        if time.monotonic() >= self._look_at:
            self._look()
        return self._offset

    def _look(self) -> bool:
        """Whether the file says how many seconds."""
        self._look_at = time.monotonic() + _LOOK_SECONDS
        try:
            self._offset = timedelta(seconds=_seconds(self.file))
        except FileNotFoundError:
            self._offset = timedelta()
        except (OSError, ValueError):
            self._misread += 1
            if self._misread == 2:  # once it may be half written
                _say_unreadable(self.file)
            return False
        self._misread = 0
        return True


def _say_unreadable(file: Path) -> None:
    from engine.logs import get_logger  # takes longer to load than `--help` may

    _log = get_logger(__name__)
    _log.error("clock of this test site can't be read, it goes on as it was", path=file)


def _seconds(file: Path) -> float:
    """What the file holds. Raises OSError or ValueError."""
    handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("no file")
        text = os.read(handle, _TEXT_BYTES_MAX + 1)
    finally:
        with contextlib.suppress(OSError):
            os.close(handle)
    seconds = float(text.decode("ascii")) if len(text) <= _TEXT_BYTES_MAX else math.nan
    if not abs(seconds) <= _OFFSET_SECONDS_MAX:
        raise ValueError("no such time")
    return seconds


def site_clock(offset_file: Path | None) -> SystemClock | ShiftedClock:
    """The clock of a site (`Place.clock_file`)."""
    return SystemClock() if offset_file is None else ShiftedClock(offset_file)
