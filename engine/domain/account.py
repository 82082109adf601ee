"""Accounts of people and services, with what they come in by: a password and a second factor, tokens, sessions."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

from engine.domain.actor import Actor
from engine.domain.record import Phi, Record


class AccountState(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"
    """Out: nothing that it comes in by counts any more."""
    UNCONFIRMED = "unconfirmed"
    """Out until somebody enables it: the store was set back, and it may have been disabled since."""


class Account(Phi, frozen=True, kw_only=True):
    """Holds what opens it, so it has no text form."""

    name: str
    kind: Literal["person", "service"] = "person"
    roles: tuple[str, ...]
    units: tuple[str, ...] = ()
    provider: str | None = None
    panels: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    state: AccountState = AccountState.ACTIVE
    created_at: datetime
    created_by: str
    disabled_at: datetime | None = None
    password: str | None = None
    """Argon2id, with its salt and parameters; none: nobody can log in with one."""
    password_set_at: datetime | None = None
    totp: str | None = None
    """Secret of the second factor (RFC 6238), in Base32; none: there is none."""
    totp_used: int = 0
    """Time step of the code that was used last: none is taken twice."""
    subject: str | None = None
    """The provider's own id of the person, from their first single sign-on on: a name may be given to somebody else."""
    failures: int = 0
    """Wrong passwords or codes in a row."""
    waits_until: datetime | None = None
    """Until then no password is looked at, because too many were wrong."""

    @property
    def active(self) -> bool:
        return self.state is AccountState.ACTIVE

    def actor(self, *, scopes: tuple[str, ...] | None = None, keeper: bool = False) -> Actor:
        return Actor(
            kind=self.kind,
            name=self.name,
            roles=frozenset(self.roles),
            units=frozenset(self.units),
            provider=self.provider,
            panels=frozenset(self.panels),
            also=frozenset(self.also),
            scopes=None if scopes is None else frozenset(scopes),
            keeper=keeper,
        )


class Ticket(Record, frozen=True, kw_only=True):
    """What somebody comes in by: a token or a session. Its secret is kept by who has it; here is only its hash."""

    id: str
    account: str
    kind: Literal["token", "session"]
    began: datetime
    ends: datetime
    scopes: tuple[str, ...] | None = None
    """Of a token: what it is limited to; none: of a session."""
    seen: datetime
    """When it was last used, to the minute."""
    revoked_at: datetime | None = None
    revoked_by: str | None = None
    by: str | None = None
    """Who made it; of a session how they logged in: `password`, `oidc`."""

    def stands(self, now: datetime, idle_seconds_max: float | None = None) -> bool:
        """idle_seconds_max: of a session: longest time without being used."""
        if self.revoked_at is not None or now >= self.ends:
            return False
        idle = (now - self.seen).total_seconds()
        return self.kind == "token" or idle_seconds_max is None or idle <= idle_seconds_max
