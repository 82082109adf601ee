"""Ages, from birth dates of any precision."""

from __future__ import annotations

from calendar import monthrange
from datetime import date
from typing import Final

AGE_YEARS_MAX: Final = 130
"""Nobody has lived longer: a birth date that says so is a placeholder (1800-01-01), and the age is missing."""


def age_range(birth_date: str | None, on: date) -> tuple[int, int] | None:
    """The youngest and oldest age, in whole years, that a birth date of any precision allows on a day.

    A person is 65 on the 65th birthday; who was born on 29 February has it on 1 March in common years. None: the date
    is missing, unreadable, after the day, or further back than anyone has lived.
    """
    if not birth_date:
        return None
    try:
        if birth_date[4:5] == birth_date[7:8] == "-":
            earliest = latest = date.fromisoformat(birth_date[:10])
        else:
            year, month = (*map(int, birth_date[:7].split("-")), 0)[:2]
            earliest = date(year, month or 1, 1)
            latest = date(year, month or 12, monthrange(year, month or 12)[1])
    except ValueError:
        return None
    oldest = _years(earliest, on)
    if earliest > on or oldest > AGE_YEARS_MAX:
        return None
    return max(_years(latest, on), 0), oldest


def _years(born: date, on: date) -> int:
    return on.year - born.year - ((on.month, on.day) < (born.month, born.day))
