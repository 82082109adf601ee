"""Ids that are keyed hashes in hexadecimal digits."""

from __future__ import annotations

from typing import Final

ALIKE_DIGITS: Final = 12
"""Ids of one group share their first 12 hex digits; the rest (usually 20) make each unique."""


def by_entry(entry_id: int) -> str:
    """The beginning of ids that stand in an index in the order of the entries that they came from."""
    return f"{entry_id:0{ALIKE_DIGITS}x}"


def beginning_like(group: str, own: str) -> str:
    """An id with the beginning of its group's: those of a group stand together in an index, in one page of it or a few.

    An insert at a place of its own for each would change, log and write a page of its own for each.
    """
    return group[:ALIKE_DIGITS] + own[ALIKE_DIGITS:]
