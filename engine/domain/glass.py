"""Breaking the glass: somebody looks at a patient who is none of theirs, says why, and is asked about it later."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from engine.domain.actor import Actor
from engine.domain.record import Phi


class Glass(Phi, frozen=True, kw_only=True):
    """A glass that was broken: by whom, for which patient, why, and until when."""

    id: str
    actor: str
    chart_id: str
    reason: str
    """A code of the file of roles."""
    because: str
    """In the words of who broke it."""
    begins: datetime
    ends: datetime
    told: tuple[str, ...] = ()
    """Accounts of those who are to be told."""
    proved: Literal["password", "local user"] = "local user"
    """How who broke it has shown who they are: with their password again, or as a user of the operating system, whose
    account has none."""
    attested_by: str | None = None
    attested_at: datetime | None = None
    verdict: Literal["right", "wrong"] | None = None
    words: str | None = None
    """What was said of it then."""

    def opens(self, actor: Actor, chart_id: str, now: datetime) -> bool:
        return self.actor == actor.name and self.chart_id == chart_id and self.begins <= now < self.ends
