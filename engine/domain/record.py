"""The base of the vocabulary: immutable records, and records that hold PHI and cannot be formatted by accident.

What is immutable holds no cycles, so the garbage collector need not look at it (`gc=False`), which took a fifth of the
time of decisions.
"""

from __future__ import annotations

from typing import NoReturn

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An immutable value without PHI."""


class Phi(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An immutable value that holds protected health information.

    It never shows its content by itself: `repr` names the type only, and putting it into a text raises. Showing it is
    the work of the one place that masks and audits (`engine.desk.seeing`).
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: PHI withheld>"

    def __str__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds PHI and has no text form")

    def __format__(self, spec: str) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds PHI and cannot be formatted")
