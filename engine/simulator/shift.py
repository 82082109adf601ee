"""Times of example messages moved to now, so that what follows from them is due as it would be."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

_TIME: Final = re.compile(rb"(?<=[|^~])([0-9]{8})([0-9]{4}(?:[0-9]{2})?)?(\.[0-9]{1,6})?([+-][0-9]{4})?(?=[|^~\r\n]|$)")
_HEADER_TIME: Final = re.compile(
    rb"(?:^|[\r\n])MSH(.)(?:[^\r\n]*?\1){5}([0-9]{8,14})(?:\.[0-9]+)?([+-][0-9]{4})?", re.DOTALL
)
_AGE_MAX: Final = timedelta(days=90)
"""Before the newest message: what is older (a birth date) tells of something else than this stay."""


def shift(payloads: list[bytes], now: datetime) -> list[bytes]:
    """The messages, their newest sent just now; all times of the stay keep their distance and their notation."""
    sent = [moment for payload in payloads for moment in map(_moment, _HEADER_TIME.finditer(payload)) if moment]
    if not sent:
        return payloads
    newest = max(sent)
    delta = now - newest

    def moved(match: re.Match[bytes]) -> bytes:
        date, clock, fraction, offset = match.groups(b"")
        moment = _read(date + clock, offset)
        if moment is None or not newest - _AGE_MAX <= moment <= newest + _AGE_MAX:
            return match[0]
        later = moment + delta if clock else moment + timedelta(days=round(delta / timedelta(days=1)))
        text = later.strftime({8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}[len(date + clock)])
        return text.encode() + fraction + offset

    return [_TIME.sub(moved, payload) for payload in payloads]


def _moment(match: re.Match[bytes]) -> datetime | None:
    return _read(match[2], match[3] or b"")


def _read(text: bytes, offset: bytes) -> datetime | None:
    """A time with its offset (UTC where it has none: only distances count)."""
    form = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}.get(len(text))
    if form is None:
        return None
    try:
        return datetime.strptime((text + (offset or b"+0000")).decode(), f"{form}%z")
    except ValueError:
        return None
