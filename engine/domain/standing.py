"""How the work stands: channels, destinations, and what waits for a person. `engine.store.overview` looks it up."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Final, Literal

from engine.domain.record import Record

ASKED_TO_WAIT: Final = "asked-to-wait"
"""`Standing.error` of a destination that works and has asked for a pause."""
State = Literal["up", "down", "paused"]


class Standing(Record, frozen=True, kw_only=True):
    """A destination as `handoff destinations` and `handoff status` show it: the contract's shape and more."""

    name: str
    type: str | None
    """None: it is no longer configured."""
    state: State
    since: datetime | None
    error: str | None
    """A stable code. Also with the state `up`: it answers, and refuses without a reason."""
    detail: str | None
    pending: int
    oldest_at: datetime | None
    """When the oldest pending delivery was made."""
    behind_at: datetime | None = None
    """The same, of those that nothing keeps but the destination: neither put off by a rule nor behind one that is."""
    put_off: int = 0
    """Pending deliveries that a rule lets go from a later time on."""
    next_attempt_at: datetime | None
    held: int
    dead: int
    """Dead letters that nobody has resolved yet."""
    orphan: bool = False
    """It is not in config.yaml, and something waits for it."""
    failures: int = 0
    paused_until: datetime | None = None
    paused_by: str | None = None
    untold: int = 0
    withheld: Mapping[str, int] = {}
    """Deliveries that a rule does not let go and nobody has decided on: by its code, how many."""

    @property
    def troubled(self) -> bool:
        """A person should look at it: it fails, refuses, or nobody serves it any more.

        A pause is no trouble, neither a person's nor one that the destination asks for.
        """
        return self.state == "down" or self.error not in {None, ASKED_TO_WAIT} or self.orphan


def fresh(name: str, type_: str) -> Standing:
    """Of a destination that nothing was ever for."""
    return Standing(
        name=name, type=type_, state="up", since=None, error=None, detail=None, pending=0, oldest_at=None,
        next_attempt_at=None, held=0, dead=0,
    )  # fmt: skip


class ChannelWork(Record, frozen=True, kw_only=True):
    """What a channel has brought. waiting: entries without an outcome."""

    name: str
    waiting: int
    oldest_waiting_at: datetime | None
    last_message_at: datetime | None


class Overview(Record, frozen=True, kw_only=True):
    """dead: open dead letters. holds: open questions of messages, by code. `at`: when it was looked."""

    at: datetime
    channels: tuple[ChannelWork, ...] = ()
    destinations: tuple[Standing, ...] = ()
    dead: int = 0
    oldest_dead_at: datetime | None = None
    holds: dict[str, int] = {}
    oldest_hold_at: datetime | None = None
    quality: dict[str, dict[str, int]] = {}
    """Open items of the data-quality list, by channel and kind."""
    pages: dict[str, int] = {}
    """Pages that nobody has acknowledged, by state."""
    oldest_exhausted_at: datetime | None = None
    """When the first of those was raised that are exhausted."""
    backup_at: datetime | None = None
    """To which moment the last backup goes; none: there is none."""
    restored_at: datetime | None = None
    """When the store was last set back; none: never, or nothing is held because of it any more."""
    restored_held: int = 0
    """Deliveries that are held because of it."""
    gaps: dict[str, datetime] = {}
    """Role of a roster -> when nobody would be called for the first time, in the days to come."""
    trail: dict[str, str] = {}
    """What is wrong with the trail: code of a trouble -> what is known besides."""
    due: int = 0
    """Charts whose deadline has come and has not rung."""
    due_since: datetime | None = None
    """Since when the first of them was to ring."""
    unusual: int = 0
    """Looks at patients that nothing explains, above the line, which nobody has asked about."""
    oldest_unusual_at: datetime | None = None
    """When the first of those was."""
    breaches: dict[str, date] = {}
    """Number of a worksheet -> when its next notice is due, of those that are soon or were."""
    glasses: int = 0
    """Glasses that were broken and that nobody has attested."""
    oldest_glass_at: datetime | None = None

    @property
    def waiting(self) -> int:
        return sum(channel.waiting for channel in self.channels)
