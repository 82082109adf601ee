"""Who acts: what is done is on record with it, and what may be done depends on it."""

from __future__ import annotations

from typing import Literal

from engine.domain.record import Record


class Actor(Record, frozen=True, kw_only=True):
    """kind: `user`: of the operating system, at the command line. roles: what it may do; nobody asks for them yet."""

    kind: Literal["user"]
    name: str
    roles: frozenset[str] = frozenset()

    def __str__(self) -> str:
        """As the audit, the acts and the decisions keep it."""
        return self.name
