"""A decision to do something, or not to, with what it rests on and what came of it: what `handoff why` shows."""

from __future__ import annotations

from datetime import datetime

from engine.domain.record import Phi
from engine.domain.why import Input


class Decision(Phi, frozen=True, kw_only=True):
    """One decision about one thing. It is put together from what outcomes keep when somebody asks."""

    at: datetime
    subject: str
    """Id of the task, page or appointment, key of the stay, name of the destination, `entry-17`."""
    what: str
    """Kind of the subject: `task`, `plan`, `score`, `page`, `appointment`, `delivery`, `patient`, `message`."""
    action: str
    """`open`, `close`, `retract`, `plan`, `score`, `deliver`, ..."""
    decided: str
    """`done` or `withheld`."""
    reason: str
    """A word of the closed list (`domain.why`), or of a destination that has refused."""
    text: str
    """The reason as a sentence."""
    rule: str | None = None
    """As a person finds it in the files: `post-discharge: pcp_follow_up`, `lace`, `deliver: crm`."""
    version: str | None = None
    """Of that file; where a file has none, of the configuration."""
    inputs: tuple[Input, ...] = ()
    causes: tuple[int, ...] = ()
    """Entries of the journal: the message, act or deadline, and of a replay the original."""
    effects: tuple[str | int, ...] = ()
    """Ids of tasks, pages, appointments (texts) and deliveries (numbers)."""
    stands: bool = False
    """It explains how its subject is today. Of a task, page, appointment and the plan of a stay there is one such."""
    stay: str | None = None
    """Key of the stay that it is about."""
    by: str | None = None
    """The person, of an act."""
    said: str | None = None
    """What they typed."""
