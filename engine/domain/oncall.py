"""A person who stands in on a roster."""

from __future__ import annotations

from datetime import datetime

from engine.domain.record import Phi


class Override(Phi, frozen=True, kw_only=True):
    """Who is on call in place of the roster's own people, for a while.

    number: of the entry that made it; of two at one time the later one counts. reason: what somebody typed.
    """

    number: int
    roster: str
    role: str
    person: str
    begins: datetime
    ends: datetime
    """Not included."""
    made_by: str
    made_at: datetime
    reason: str
