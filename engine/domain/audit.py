"""Who did what, when, to what: the auditors' record."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from engine.domain.record import Record

ACTIONS: Final = (
    "assign", "bury", "config-reload", "config-run", "confirm",
    "discard", "dismiss", "plan-migrated", "quality-reopened", "quality-resolved", "release", "replay", "resend",
    "reveal",
    "task-assigned", "task-attempted", "task-cancelled", "task-done", "task-snoozed", "task-undone",
)  # fmt: skip
"""What people do, for those who look for it; others may be on record besides."""


class AuditRecord(Record, frozen=True, kw_only=True):
    at: datetime
    actor: str
    """`system`, or the operating system user of a command."""
    action: str
    """A stable verb: `reveal`, `replay`, `discard`, `task-done`."""
    subject: str
    """What it was done to, by opaque id (`chart:9f2c`, `entry:17`)."""
    reason: str | None = None
