"""Whether a delivery may go out now, asked by the courier right before it is sent.

What was right when it was queued need not be right any more: consent was revoked, it is night where the patient lives,
what it says is of no use now. Rules are pure functions of the delivery and the time; what else a rule has to know was
read for the batch, and the rule was made of it (`Gate`).

| answer | what becomes of the delivery |
|---|---|
| `GO` | it is sent |
| `NotBefore` | it stays pending with the code as its reason; what comes after it for its patient waits too |
| `Never` | it is withheld, with the code as its reason; what comes after it goes on |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from engine.domain.delivery import CONTENTS, Notice, QueuedDelivery
from engine.domain.record import Record


class Go(Record, frozen=True, kw_only=True):
    pass


class NotBefore(Record, frozen=True, kw_only=True):
    at: datetime
    """It is asked again then, or earlier: what the rule rests on may change."""
    code: str
    """Stable; holds no value of the delivery."""


class Never(Record, frozen=True, kw_only=True):
    code: str


GO: Final = Go()
Admission = Go | NotBefore | Never
Rule = Callable[[QueuedDelivery, datetime], Admission]
Gate = Callable[[Any, Sequence[QueuedDelivery]], Sequence[Rule]]
"""Reads (from a connection to the store) what has to be known of a batch, and makes rules for it, besides `RULES`."""


def admit(rules: Sequence[Rule], queued: QueuedDelivery, now: datetime) -> Admission:
    """A rule that says never has the last word; of several that say not yet, the latest time counts."""
    latest: NotBefore | None = None
    for rule in rules:
        answer = rule(queued, now)
        if isinstance(answer, Never):
            return answer
        if isinstance(answer, NotBefore) and answer.at > now and (latest is None or answer.at > latest.at):
            latest = answer
    return latest or GO


NOTICES: Final = frozenset(operation for operation, content in CONTENTS.items() if content is Notice)
"""What the rules without facts (`RULES`) are about: all else goes."""


def not_too_late(queued: QueuedDelivery, now: datetime) -> Admission:
    """A notice after its time only confuses: a reminder of yesterday's visit."""
    if queued.delivery.operation not in NOTICES:
        return GO
    try:
        said = queued.delivery.content
    except msgspec.DecodeError:  # what can't be read is for the connector to refuse
        return GO
    late = isinstance(said, Notice) and said.not_after is not None and now > said.not_after
    return Never(code="too-late") if late else GO


RULES: Final[Sequence[Rule]] = (not_too_late,)
"""Those that need to know nothing but the delivery and the time."""
