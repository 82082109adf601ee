"""After a restore to an earlier point: what the engine may have sent already, in the time that it does not remember.

From then on there is a second past: what was received, rung and sent between the backup and the restore is known to
far ends, and not to us. Of what comes now and may be of that time, nothing goes out until a person has decided.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from engine.domain.cause import Due
from engine.domain.message import EntryKind
from engine.domain.record import Record

if TYPE_CHECKING:
    from engine.pipeline.prepared import Prepared

RESTORED: Final = "restored"
"""Why a delivery is held."""
_UNTIMED_DAYS: Final = 7
"""A message that does not say when it was sent may be a resend for so long."""


class Mark(Record, frozen=True, kw_only=True):
    """The store was set back."""

    at: datetime
    """When."""
    as_of: datetime
    """To which point."""
    last_entry: int
    """That it knew then; later ones came after the restore."""


def may_be_sent(mark: Mark, prepared: Prepared) -> bool:
    """Whether what an entry comes to may have gone out before the restore."""
    entry = prepared.entry
    if entry.id <= mark.last_entry:
        return True  # it waited when the backup was made
    if isinstance(prepared.cause, Due):
        return prepared.cause.since < mark.at
    if entry.kind is not EntryKind.MESSAGE:
        return False  # somebody has done it since
    if entry.received_at >= mark.at + timedelta(days=_UNTIMED_DAYS):
        return False
    if prepared.clock is None:
        return True
    return entry.received_at - timedelta(seconds=prepared.clock[1]) < mark.at
