"""ICD-10 groups by prefix: which groups a code belongs to, without trying every prefix.

Patterns are three or more characters without dots (`I50`, `I252`), or a range of two patterns of the same length whose
ends differ in digits only (`I60-I69`, `Z490-Z492`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Final

from pydantic import AfterValidator

CODES_REMEMBERED_MAX: Final = 4096
_CODE_CHARS: Final = 32
"""What is longer is no code of ICD-10, and not remembered."""

_PATTERN: Final = re.compile(r"[A-Z][0-9][0-9A-Z][0-9A-Z]{0,4}")
_RANGE: Final = re.compile(r"([A-Z])([0-9]{2,6})-([A-Z])([0-9]{2,6})")


def normalise(code: str) -> str:
    """Dots stripped, upper-cased: `i50.9` is `I509`."""
    return code.replace(".", "").strip().upper()


def expand(pattern: str) -> tuple[str, ...]:
    """The prefixes that a pattern stands for. Raises ValueError for what is no pattern."""
    if _PATTERN.fullmatch(pattern):
        return (pattern,)
    ends = _RANGE.fullmatch(pattern)
    if ends is None:
        raise ValueError("must be an ICD-10 prefix without dots (I50, I252) or a range of such (I60-I69)")
    letter, first, last_letter, last = ends.groups()
    if letter != last_letter or len(first) != len(last) or int(first) >= int(last):
        raise ValueError("is not a range: both ends need the same letter and length, and the first must be lower")
    return tuple(f"{letter}{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))


def _check(pattern: str) -> str:
    expand(pattern)
    return pattern


Pattern = Annotated[str, AfterValidator(_check)]


class PrefixTable:
    """Named groups of ICD-10 codes. A code may belong to several groups."""

    def __init__(self, groups: Mapping[str, Sequence[str]]) -> None:
        by_prefix: dict[str, list[str]] = {}
        for group, patterns in groups.items():
            for pattern in patterns:
                for prefix in expand(pattern):
                    of_prefix = by_prefix.setdefault(prefix, [])
                    if group not in of_prefix:
                        of_prefix.append(group)
        self._by_prefix = {prefix: tuple(names) for prefix, names in by_prefix.items()}
        self._lengths = sorted({len(prefix) for prefix in by_prefix})
        # A hospital uses a few thousand codes, each again and again.
        self._groups_of = lru_cache(maxsize=CODES_REMEMBERED_MAX)(self._find)

    def match(self, codes: Iterable[str]) -> dict[str, str]:
        """Every group that one of the codes belongs to, with the first such code as it was given: its evidence."""
        found: dict[str, str] = {}
        for code in codes:
            for group in self._groups_of(code) if len(code) <= _CODE_CHARS else self._find(code):
                found.setdefault(group, code)
        return found

    def _find(self, code: str) -> tuple[str, ...]:
        text = normalise(code)
        return tuple(group for length in self._lengths for group in self._by_prefix.get(text[:length], ()))
