"""Accounts: made, changed and disabled; how people and services come in. Each change is on the trail, in its own
transaction, and counts with the next request.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from msgspec import structs

from engine.access.actions import SCOPES
from engine.domain.account import Account, AccountState, Ticket
from engine.domain.audit import AuditRecord, Whence
from engine.errors import AccountError, NotFoundError, RowTakenError, WhichError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.access.roles import Policy
    from engine.domain.actor import Actor
    from engine.store import Store

T = TypeVar("T")

TOKEN_PREFIX: Final = "hft_"  # noqa: S105 - what all tokens begin with, so that scanners find them
SESSION_PREFIX: Final = "hfs_"
TOKEN_DAYS_MAX: Final = 5 * 366
PASSWORD_CHARS_MIN: Final = 12
PASSWORD_CHARS_MAX: Final = 256
_SECRET_BYTES: Final = 32
_SEEN_EVERY: Final = timedelta(minutes=1)
_WAIT_SECONDS: Final = 30.0
_WAIT_SECONDS_MAX: Final = 900.0
_STEP_SECONDS: Final = 30
_ISSUER: Final = "Handoff"
NO_ENTRY: Final = "name, password or code is wrong, or there is no such account"
"""The same whatever was wrong, so that nobody learns which accounts there are."""
NO_ACCOUNT: Final = "you are known at the provider, and no account here has your name there: ask who manages accounts"
OTHER_PERSON: Final = (
    "the account of this name was another person's at the provider: who manages accounts disables and enables it, if"
    " it is yours"
)
_NAME_CHARS_MAX: Final = 64
"""As `handoff users add` takes them."""


class Limits(NamedTuple):
    """Of `access` in config.yaml."""

    session_minutes_max: int = 720
    idle_minutes_max: int = 15
    tries_max: int = 5


class Entry(NamedTuple):
    """Who has come in, and by what."""

    actor: Actor
    ticket: Ticket
    secret: str
    """Of the session; nobody keeps it but who gets it."""


class Accounts:
    """by: who does it, whence: from where, as the trail keeps it. now: by the site's clock."""

    def __init__(
        self, store: Store, by: str, now: datetime, *, limits: Limits | None = None, whence: Whence | None = None
    ) -> None:
        self._store, self._by, self._now, self._limits, self._whence = store, by, now, limits or Limits(), whence

    # --- accounts

    def get(self, name: str) -> Account:
        """Raises WhichError when there is none of this name."""
        with self._store.reader() as conn:
            return self._get(conn, name)

    def add(self, account: Account, policy: Policy | None) -> Account:
        """Raises AccountError when there is one of this name, WhichError for a role that there is not."""
        _check_roles(account.roles, policy)

        def work(conn: Connection) -> None:
            self._store.users.add(conn, account)
            self._note(conn, "account-added", account.name, f"roles {', '.join(account.roles)}")

        try:
            self._write(work)
        except RowTakenError as error:
            raise AccountError(str(error)) from None
        return account

    def change(self, name: str, policy: Policy | None, **fields: Any) -> Account:
        """Give the account other roles, units or names."""
        if "roles" in fields:
            _check_roles(fields["roles"], policy)
        said = ", ".join(f"{key} {_listed(value)}" for key, value in sorted(fields.items()))
        return self._change(name, "account-changed", said, lambda one: structs.replace(one, **fields))

    def disable(self, name: str, reason: str | None = None) -> Account:
        """The account is out: its sessions and tokens end with it."""

        def out(one: Account) -> Account:
            return structs.replace(one, state=AccountState.DISABLED, disabled_at=self._now)

        def work(conn: Connection) -> Account:
            changed = self._changed(conn, name, "account-disabled", reason, out)
            self._revoke_all(conn, name)
            return changed

        return self._write(work)

    def enable(self, *names: str) -> list[Account]:
        """Accounts may come in again: all of them or none. What they came in by before stays revoked; they need a new
        password, or are whoever signs on next under their name at the provider.
        """

        def back(one: Account) -> Account:
            return structs.replace(
                one,
                state=AccountState.ACTIVE,
                disabled_at=None,
                password=None,
                subject=None,
                failures=0,
                waits_until=None,
            )

        return self._write(lambda conn: [self._changed(conn, one, "account-enabled", None, back) for one in names])

    def set_password(self, name: str, password: str) -> Account:
        """All sessions end. Raises AccountError for a password that is too weak."""
        check_password(name, password)
        hashed = _hasher().hash(password)

        def new(one: Account) -> Account:
            return structs.replace(one, password=hashed, password_set_at=self._now, failures=0, waits_until=None)

        def work(conn: Connection) -> Account:
            changed = self._changed(conn, name, "password-set", None, new)
            self._revoke_all(conn, name, kind="session")
            return changed

        return self._write(work)

    def set_factor(self, name: str) -> tuple[str, str]:
        """Give the account a new second factor, and return its secret (Base32) and the URI that an app takes it by.

        It is shown this once. All sessions end.
        """
        import pyotp

        secret = pyotp.random_base32()

        def work(conn: Connection) -> None:
            self._changed(conn, name, "factor-set", None, lambda one: structs.replace(one, totp=secret, totp_used=0))
            self._revoke_all(conn, name, kind="session")

        self._write(work)
        return secret, pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=_ISSUER)

    def remove_factor(self, name: str) -> Account:
        """Without one nobody can log in with a password."""

        def work(conn: Connection) -> Account:
            changed = self._changed(
                conn, name, "factor-removed", None, lambda one: structs.replace(one, totp=None, totp_used=0)
            )
            self._revoke_all(conn, name, kind="session")
            return changed

        return self._write(work)

    # --- tokens

    def make_token(self, name: str, scopes: Sequence[str], until: datetime) -> tuple[str, Ticket]:
        """The token, which is shown this once, and what is kept of it. Raises AccountError, WhichError."""
        for scope in scopes:
            if scope not in SCOPES:
                text = f"There is no scope {scope}; there are {', '.join(SCOPES)}."
                raise WhichError(text, name=scope, known=list(SCOPES))
        if not self._now < until <= self._now + timedelta(days=TOKEN_DAYS_MAX):
            raise AccountError(f"a token ends in the future, after {TOKEN_DAYS_MAX} days at most")
        secret = TOKEN_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        made = self._ticket("token", name, until, scopes=tuple(scopes), by=self._by)

        def work(conn: Connection) -> None:
            one = self._get(conn, name)
            if not one.active:
                raise AccountError(f"{name} is {one.state.value}: `handoff users enable {name}` first")
            self._store.users.put_ticket(conn, secret, made)
            self._note(conn, "token-made", name, f"{made.id}: {', '.join(scopes)}")

        self._write(work)
        return secret, made

    def revoke(self, ticket_id: str) -> Ticket:
        """End a token or session, by its id. Raises NotFoundError."""

        def work(conn: Connection) -> Ticket:
            found = next((one for one in self._store.users.tickets(conn) if one.id == ticket_id), None)
            if found is None:
                raise NotFoundError("there is no such token or session; `handoff users tokens` lists them")
            ended = structs.replace(found, revoked_at=found.revoked_at or self._now, revoked_by=self._by)
            self._store.users.change_ticket(conn, ended)
            self._note(conn, "token-revoked", found.account, found.id)
            return ended

        return self._write(work)

    # --- coming in

    def log_in(self, name: str, password: str, code: str | None) -> Entry:
        """With a password and the code of a second factor.

        Raises AccountError, with the same text whatever was wrong; with another one when the password is right and
        there is no second factor yet. After too many wrong tries none is looked at for a while. Sessions that there
        are go on meanwhile: nobody can be locked out of their work by somebody else's guesses.
        """
        with self._store.reader() as conn:
            known = self._store.users.get(conn, name)
        waits = known is not None and known.waits_until is not None and known.waits_until > self._now
        good = _verify(known.password if known is not None else None, password)
        if known is None or waits or not known.active or not good:
            raise self._failed(name, known, counted=not waits)
        if known.totp is None:
            raise AccountError("there is no second factor yet: ask for `handoff users mfa`")
        step = _step_of(known.totp, code, self._now, known.totp_used)
        if step is None:
            raise self._failed(name, known, counted=True)

        def work(conn: Connection) -> Entry:
            one = self._get(conn, name)
            if not one.active or one.totp_used >= step or one.password != known.password:
                raise AccountError(NO_ENTRY)
            self._store.users.change(conn, structs.replace(one, totp_used=step, failures=0, waits_until=None))
            return self._session(conn, one, "password")

        return self._write(work)

    def confirm(self, name: str, password: str, code: str | None) -> None:
        """Who is in shows again who they are: with the password, and the second factor where there is one.

        Raises AccountError, as `log_in` does; wrong tries count the same.
        """
        with self._store.reader() as conn:
            known = self._store.users.get(conn, name)
        waits = known is not None and known.waits_until is not None and known.waits_until > self._now
        good = _verify(known.password if known is not None else None, password)
        if known is None or waits or not known.active or not good:
            raise self._failed(name, known, counted=not waits)
        step = _step_of(known.totp, code, self._now, known.totp_used) if known.totp is not None else known.totp_used
        if step is None:
            raise self._failed(name, known, counted=True)

        def work(conn: Connection) -> None:
            one = self._get(conn, name)
            if not one.active or one.password != known.password or (one.totp is not None and one.totp_used >= step):
                raise AccountError(NO_ENTRY)
            self._store.users.change(conn, structs.replace(one, totp_used=step, failures=0, waits_until=None))

        self._write(work)

    def let_in(self, name: str, by: str, subject: str | None = None) -> Entry:
        """Who was identified elsewhere (`oidc`). subject: the provider's own id of the person.

        The first one that comes with a subject is the account's from then on, until somebody enables it anew: who may
        change their name at the provider, or gets that of a leaver, does not become somebody else here. Raises
        AccountError when they have no account here that is active, or it is another person's.
        """
        why = by

        def work(conn: Connection) -> Entry:
            nonlocal why
            one = self._store.users.get(conn, name)
            if one is None or not one.active or one.kind != "person":
                raise AccountError(NO_ACCOUNT)
            if one.subject is not None and one.subject != subject:
                why = f"{by}: the provider says that it is another person than before"
                raise AccountError(OTHER_PERSON)
            if one.subject is None and subject is not None:
                self._store.users.change(conn, structs.replace(one, subject=subject))
            return self._session(conn, one, by)

        try:
            return self._write(work)
        except AccountError:
            said = name if len(name) <= _NAME_CHARS_MAX and name.isprintable() else "unknown"
            self._write(lambda conn: self._note(conn, "login-failed", said, why))
            raise

    def not_identified(self, why: str) -> None:
        """Somebody came back from the provider, and it can't be said who. why: holds nothing of what came."""
        self._write(lambda conn: self._note(conn, "login-failed", "unknown", f"oidc: {why}"))

    def enter(self, secret: str, *, at_work: bool = True) -> Actor:
        """Who comes in by a token or session. Raises AccountError when it does not count, or not any more.

        at_work: somebody does something; a page that looks by itself keeps no session alive.
        """
        with self._store.reader() as conn:
            ticket = self._store.users.ticket(conn, secret)
            account = None if ticket is None else self._store.users.get(conn, ticket.account)
        idle = self._limits.idle_minutes_max * 60.0
        if ticket is None or account is None or not account.active or not ticket.stands(self._now, idle):
            raise AccountError("this token or session does not count, or not any more: log in again")
        if at_work and self._now - ticket.seen >= _SEEN_EVERY:
            seen = structs.replace(ticket, seen=self._now)
            self._write(lambda conn: self._store.users.change_ticket(conn, seen))
        return account.actor(scopes=ticket.scopes)

    def log_out(self, secret: str) -> None:
        def work(conn: Connection) -> None:
            ticket = self._store.users.ticket(conn, secret)
            if ticket is not None and ticket.kind == "session" and ticket.revoked_at is None:
                ended = structs.replace(ticket, revoked_at=self._now, revoked_by=ticket.account)
                self._store.users.change_ticket(conn, ended)
                self._note(conn, "logged-out", ticket.account, ticket.id, by=ticket.account)

        self._write(work)

    # --- within

    def _session(self, conn: Connection, account: Account, by: str) -> Entry:
        secret = SESSION_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        ends = self._now + timedelta(minutes=self._limits.session_minutes_max)
        made = self._ticket("session", account.name, ends, scopes=None, by=by)
        self._store.users.put_ticket(conn, secret, made)
        self._note(conn, "logged-in", account.name, by, by=account.name)
        return Entry(account.actor(), made, secret)

    def _ticket(self, kind: Any, name: str, ends: datetime, *, scopes: tuple[str, ...] | None, by: str) -> Ticket:
        return Ticket(
            id=secrets.token_hex(6),
            account=name,
            kind=kind,
            began=self._now,
            ends=ends,
            scopes=scopes,
            seen=self._now,
            by=by,
        )

    def _failed(self, name: str, known: Account | None, *, counted: bool) -> AccountError:
        """A try that was wrong, on record and counted."""

        def work(conn: Connection) -> None:
            one = self._store.users.get(conn, name) if known is not None else None
            if one is not None and counted:
                failures = one.failures + 1
                over = failures - self._limits.tries_max
                wait = min(_WAIT_SECONDS * 2.0 ** min(over, 20), _WAIT_SECONDS_MAX)
                until = self._now + timedelta(seconds=wait) if over >= 0 else None
                self._store.users.change(conn, structs.replace(one, failures=failures, waits_until=until))
            # What was typed as a name may be a password: it is on record only when it is a name.
            self._note(conn, "login-failed", name if one is not None else "unknown", None)

        self._write(work)
        return AccountError(NO_ENTRY)

    def _change(self, name: str, action: str, reason: str | None, change: Callable[[Account], Account]) -> Account:
        return self._write(lambda conn: self._changed(conn, name, action, reason, change))

    def _changed(
        self, conn: Connection, name: str, action: str, reason: str | None, change: Callable[[Account], Account]
    ) -> Account:
        changed = change(self._get(conn, name))
        self._store.users.change(conn, changed)
        self._note(conn, action, name, reason)
        return changed

    def _get(self, conn: Connection, name: str) -> Account:
        found = self._store.users.get(conn, name)
        if found is None:
            known = [one.name for one in self._store.users.every(conn)]
            some = ", ".join(known[:12]) or "none yet: `handoff users add`"
            raise WhichError(f"There is no account {name}; there are {some}.", name=name, known=known)
        return found

    def _revoke_all(self, conn: Connection, name: str, kind: str | None = None) -> None:
        for one in self._store.users.tickets(conn, name):
            if one.revoked_at is None and kind in {None, one.kind}:
                self._store.users.change_ticket(conn, structs.replace(one, revoked_at=self._now, revoked_by=self._by))

    def _note(self, conn: Connection, action: str, name: str, reason: str | None, by: str | None = None) -> None:
        record = AuditRecord(
            at=self._now,
            actor=by or self._by,
            action=action,
            subject=f"account:{name}",
            reason=reason,
            result="failed" if action == "login-failed" else "allowed",
            whence=self._whence,
        )
        self._store.audit.append(conn, [record])

    def _write(self, work: Callable[[Connection], T]) -> T:
        return self._store.charts_ledger.write_now(work)


def check_password(name: str, password: str) -> None:
    """Raises AccountError for one that is short, long, the name, or of few different characters (NIST SP 800-63B)."""
    if not PASSWORD_CHARS_MIN <= len(password) <= PASSWORD_CHARS_MAX:
        raise AccountError(f"a password has {PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} characters")
    plain = password.casefold()
    if name.casefold() in plain or len(set(plain)) < 5 or _ISSUER.casefold() in plain:
        raise AccountError("this password is easily guessed: take several words that belong to nothing")


def _check_roles(roles: Sequence[str], policy: Policy | None) -> None:
    known = list(policy.roles) if policy is not None else []
    for role in roles:
        if policy is not None and role not in known:
            raise WhichError(f"There is no role {role}; there are {', '.join(known)}.", name=role, known=known)


def _listed(value: Any) -> str:
    return ", ".join(value) or "none" if isinstance(value, tuple) else str(value or "none")


def _hasher() -> Any:
    """Argon2id as RFC 9106 has it for machines with little memory: 64 MiB, three passes."""
    from argon2 import PasswordHasher
    from argon2.profiles import RFC_9106_LOW_MEMORY

    return PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)


_NOBODY: Final = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
"""Verified where there is no password, so that it takes as long."""


def _verify(hashed: str | None, password: str) -> bool:
    from argon2.exceptions import Argon2Error, InvalidHashError

    if len(password) > PASSWORD_CHARS_MAX:
        return False
    try:
        _hasher().verify(hashed or _NOBODY, password)
    except (Argon2Error, InvalidHashError):
        return False
    return hashed is not None


def _step_of(secret: str, code: str | None, now: datetime, used: int) -> int | None:
    """The time step that a code is of, one before or after the present one at most, and after the last one used."""
    import pyotp

    digits = "".join((code or "").split())
    if not (digits.isascii() and digits.isdigit() and len(digits) == 6):
        return None
    present = int(now.timestamp()) // _STEP_SECONDS
    totp = pyotp.TOTP(secret)
    for step in (present, present - 1, present + 1):
        if step > used and secrets.compare_digest(totp.generate_otp(step), digits):
            return step
    return None
