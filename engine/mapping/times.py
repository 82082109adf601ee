"""HL7's DT, TM and DTM to moments, generous in what is read and exact in what is kept.

What stands in the standard's own notation (chapter 2A, DTM) is read by one pattern. What senders write instead is read
as well and noted: ISO 8601, too many digits, zeros for what is not known, 24:00, the second 60. A time is never given
up for its last digits, and no part of it is guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final

from engine.domain.moment import YEARS, Moment
from engine.mapping.functions import Flaw, remembered

YEAR_MIN: Final = YEARS.start
YEAR_MAX: Final = YEARS.stop - 1
"""A year outside is a placeholder (00010101, 18000101, 99991231), not a date in the life of a patient."""

TIMES_REMEMBERED_MAX: Final = 4_096

TIME_NOTATION: Final = "time-notation"
TIME_FRACTION_LONG: Final = "time-fraction-long"
TIME_ZERO_PARTS: Final = "time-zero-parts"
TIME_UNKNOWN: Final = "time-unknown"
TIME_CUT: Final = "time-cut"
HOUR_24: Final = "hour-24"
SECOND_60: Final = "second-60"
OFFSET_UNREADABLE: Final = "offset-unreadable"
AMBIGUOUS_LOCAL_TIME: Final = "ambiguous-local-time"

_DTM: Final = re.compile(
    r"([0-9]{4})(?:([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(\.[0-9]{1,4})?)?)?)?)?)?"
    r"([+-][0-9]{4})?"
)
_WRITTEN: Final = re.compile(
    r"([0-9]{4})(?:-?([0-9]{2})(?:-?([0-9]{2})"
    r"(?:[Tt ]? *([0-9]{2})(?::?([0-9]{2})(?::?([0-9]{2})(?:[.,]([0-9]*))?)?)?)?)?)?"
    r" *([^ ].*)?",
    re.DOTALL,
)
"""The same with ISO 8601's signs between the parts, and whatever stands behind it."""
_OFFSET: Final = re.compile(r"([+-])([0-9]{2})(:?)([0-9]{2})?")
_PLACEHOLDER: Final = re.compile(r"(?:0[-T: .]?){4,32}|(?:9[-T: .]?){4,32}")
_INVALID_DATE: Final = Flaw("invalid-date")
_INVALID_TIME: Final = Flaw("invalid-time")
_UNKNOWN: Final = Flaw(TIME_UNKNOWN)
_CHARS_MAX: Final = 64
"""No notation of a time is longer."""


def read_date(text: str) -> Moment | Flaw:
    """A date of the precision that was sent: `1958`, `1958-07`, `1958-07-15`.

    A time of day is left out. Zeros stand for what is not known, as German insurance cards write it: `19580700` is
    1958-07. Zeros or nines alone say that nothing is known. A date that does not exist (`19580230`) is invalid as a
    whole: that its year might be right would be a guess.
    """
    found = _DTM.fullmatch(text)
    if found is not None and _moment(found) is not None:
        year, month, day = found.group(1, 2, 3)
        return Moment.of(f"{year}-{month}-{day}" if day else f"{year}-{month}" if month else year)
    read = _read(text)
    if isinstance(read, Flaw):
        return _INVALID_DATE if read is _INVALID_TIME else read
    return _made(read.noted(read.day))


@remembered(TIMES_REMEMBERED_MAX)
def read_time(text: str, zone: tzinfo) -> Moment | Flaw:
    """A time with the digits that were sent: `2026-07-15T14:30-04:00`; without an hour, a date alone.

    A time without offset is local time of `zone`. Where the clock was turned back and the text may mean two moments,
    the first one is taken; where it was turned forward and such a time never was, the offset before the change; both
    are noted (`ambiguous-local-time`). Of a fraction six digits are kept.
    """
    return _made(_iso_time(text, zone))


def _made(read: str | Flaw) -> Moment | Flaw:
    if isinstance(read, str):
        return Moment.of(read)
    return replace(read, value=Moment.of(read.value)) if isinstance(read.value, str) else read


def _iso_time(text: str, zone: tzinfo) -> str | Flaw:
    found = _DTM.fullmatch(text)
    moment = _moment(found) if found else None
    if found is None or moment is None:
        return _odd_time(text, zone)
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    if hour is None:
        return "-".join(part for part in (year, month, day) if part)
    clock = f"{year}-{month}-{day}T{hour}"
    if minute is not None:
        clock += f":{minute}"
        if second is not None:
            clock += f":{second}{fraction or ''}"
    if offset is not None:
        if int(offset[1:3]) > 14 or int(offset[3:]) > 59:
            return _odd_time(text, zone)
        return f"{clock}{offset[:3]}:{offset[3:]}"
    return _local(clock, moment, zone)


def valid_on(effective: str, expires: str, day: date) -> bool:
    """Whether something is valid on a day, by the first and last day that HL7 texts name, as precise as they are.

    An empty text, and one that can't be read, is no limit.
    """
    on = Moment.of(day.isoformat())
    first, last = _day(effective), _day(expires)
    return not (first is not None and on.is_before(first)) and not (last is not None and last.is_before(on))


def _day(text: str) -> Moment | None:
    if not text:
        return None
    read = read_date(text)
    value = read.value if isinstance(read, Flaw) else read
    return value if isinstance(value, Moment) else None


def _moment(found: re.Match[str]) -> datetime | None:
    year, month, day, hour, minute, second = found.group(1, 2, 3, 4, 5, 6)
    if not YEAR_MIN <= int(year) <= YEAR_MAX:
        return None
    try:
        return datetime(int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0))  # noqa: DTZ001  # local time as it was sent
    except ValueError:
        return None


def _local(clock: str, moment: datetime, zone: tzinfo) -> str | Flaw:
    ours = zone.utcoffset(moment)
    iso = clock + _offset(ours)
    return iso if ours == zone.utcoffset(moment.replace(fold=1)) else Flaw(AMBIGUOUS_LOCAL_TIME, iso)


@lru_cache(maxsize=256)
def _offset(offset: timedelta | None) -> str:
    minutes = round((offset or timedelta()).total_seconds() / 60)
    sign, minutes = ("-", -minutes) if minutes < 0 else ("+", minutes)
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}"


# --- what is not as the standard writes it ---------------------------------------------------------------------------


@dataclass(slots=True)
class _Written:
    """The parts of a time as far as they can be read, and what is odd about it."""

    day: str = ""
    moment: datetime | None = None
    """None: there is no time of day."""
    shown: int = 0
    """Parts of the time of day that were sent: 1 to the hour, 2 to the minute, 3 to the second."""
    fraction: str = ""
    offset: str | None = None
    notes: list[str] = field(default_factory=list)

    def noted(self, value: str) -> str | Flaw:
        notes = tuple(dict.fromkeys(self.notes))
        return Flaw(notes[0], value, notes[1:]) if notes else value


def _odd_time(text: str, zone: tzinfo) -> str | Flaw:
    read = _read(text)
    if isinstance(read, Flaw):
        return read
    if read.moment is None:
        return read.noted(read.day)
    clock = read.moment.strftime("%Y-%m-%dT%H:%M:%S")[: 10 + 3 * read.shown] + read.fraction
    if read.offset is not None:
        return read.noted(clock + read.offset)
    local = _local(clock, read.moment, zone)
    noted = read.noted(local.value if isinstance(local, Flaw) else local)
    if not isinstance(local, Flaw):
        return noted
    return replace(local, also=(noted.code, *noted.also)) if isinstance(noted, Flaw) else local


def _read(text: str) -> _Written | Flaw:
    """What a text says of a time; a Flaw when it says nothing that can be used."""
    if len(text) > _CHARS_MAX:
        return _INVALID_TIME
    if _PLACEHOLDER.fullmatch(text):
        return _UNKNOWN
    found = _WRITTEN.fullmatch(text)
    if found is None or not YEAR_MIN <= int(found[1]) <= YEAR_MAX:
        return _INVALID_TIME
    year, month, day, hour, minute, second, fraction, rest = found.groups()
    read = _Written()
    parts = sum(part is not None for part in (year, month, day, hour, minute, second))
    if not text[: found.end(parts)].isdigit():
        read.notes.append(TIME_NOTATION)
    if "00" in (month, day):
        if month == "00" and day not in {None, "00"}:
            return _INVALID_TIME
        if month != "00" and not "01" <= str(month) <= "12":
            return _INVALID_TIME
        read.day = str(year) if month == "00" else f"{year}-{month}"
        read.notes.append(TIME_ZERO_PARTS)
        return read
    try:
        start = date(int(year), int(month or 1), int(day or 1))
    except ValueError:
        return _INVALID_TIME
    read.day = "-".join(part for part in (year, month, day) if part)
    twelve = rest.upper().replace(".", "") if rest else ""
    if twelve in {"AM", "PM"} and hour is not None and 1 <= int(hour) <= 12:
        hour, rest = f"{int(hour) % 12 + 12 * (twelve == 'PM'):02}", None
        read.notes.append(TIME_NOTATION)
    if rest and not _read_rest(rest, read, complete=day is not None):
        return _INVALID_TIME
    if hour is not None:
        _read_clock(read, start, (int(hour), *(int(part) for part in (minute, second) if part is not None)), fraction)
    return read


def _read_rest(rest: str, read: _Written, *, complete: bool) -> bool:
    """The offset, or what can't be read: that is left out where a whole day stands before it. False: it can't be."""
    if rest in {"Z", "z"}:
        read.offset = "+00:00"
        read.notes.append(TIME_NOTATION)
    elif found := _OFFSET.fullmatch(rest):
        sign, hours, colon, minutes = found.groups()
        if int(hours) > 14 or int(minutes or 0) > 59:
            read.notes.append(OFFSET_UNREADABLE)
            return complete
        read.offset = f"{sign}{hours}:{minutes or '00'}"
        if colon or minutes is None:
            read.notes.append(TIME_NOTATION)
    else:
        read.notes.append(OFFSET_UNREADABLE if rest[0] in "+-" else TIME_CUT)
        return complete
    return True


def _read_clock(read: _Written, start: date, parts: tuple[int, ...], fraction: str | None) -> None:
    """The time of day as far as it exists. 24:00 and the second 60 are the beginning of what follows."""
    midnight = datetime(start.year, start.month, start.day)  # noqa: DTZ001  # local time as it was sent
    if parts[0] == 24 and not any(parts[1:]):
        read.notes.append(HOUR_24)
        read.moment, read.shown = midnight + timedelta(days=1), len(parts)
        return
    limits = (24, 60, 61)
    valid = next((index for index, part in enumerate(parts) if part >= limits[index]), len(parts))
    if valid < len(parts):
        read.notes.append(TIME_CUT)
        fraction = None
    if valid == 0:
        return
    hour, minute, second = (*parts[:valid], 0, 0)[:3]
    if second == 60:
        read.notes.append(SECOND_60)
        fraction = None
    read.moment, read.shown = midnight + timedelta(hours=hour, minutes=minute, seconds=second), valid
    if fraction:
        read.fraction = f".{fraction[:6]}"
        if len(fraction) > 4:
            read.notes.append(TIME_FRACTION_LONG)
