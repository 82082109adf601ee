"""Ages, from birth dates of any precision."""

from __future__ import annotations

from datetime import date
from typing import Final

from engine.domain.moment import Moment

AGE_YEARS_MAX: Final = 130
"""Nobody has lived longer: a birth date that says so is a placeholder (1800-01-01), and the age is missing."""


def age_range(birth_date: Moment | None, on: date) -> tuple[int, int] | None:
    """The youngest and oldest age, in whole years, that a birth date of any precision allows on a day.

    A person is 65 on the 65th birthday; who was born on 29 February has it on 1 March in common years. None: the date
    is missing, a placeholder, after the day, or further back than anyone has lived.
    """
    days = birth_date.days if birth_date is not None else None
    if days is None:
        return None
    earliest, latest = days
    oldest = _years(earliest, on)
    if earliest > on or oldest > AGE_YEARS_MAX:
        return None
    return max(_years(latest, on), 0), oldest


def _years(born: date, on: date) -> int:
    return on.year - born.year - ((on.month, on.day) < (born.month, born.day))
