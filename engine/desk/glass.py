"""Breaking the glass, and attesting it: who looks at a patient who is none of theirs says why, and is asked later."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from msgspec import structs

from engine.access.policy import opens
from engine.desk import finding
from engine.domain.account import AccountState
from engine.domain.actor import Purpose
from engine.domain.glass import Glass
from engine.errors import AccountError, NotFoundError, WhichError
from engine.store.glassnotices import tell

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.access.roles import Policy
    from engine.desk.desk import Desk

WORDS_CHARS_MIN = 8
"""Of a reason in words: fewer say nothing."""


def ways(desk: Desk) -> tuple[bool, bool]:
    """Whether the account of who sits here has a password, and a second factor: then they are asked for again."""
    with desk.store.reader() as conn:
        account = desk.store.users.get(conn, desk.actor.name)
    return (account is not None and account.password is not None, account is not None and account.totp is not None)


def break_glass(
    desk: Desk, named: str, reason: str, because: str, *, password: str | None = None, code: str | None = None
) -> Glass:
    """The actor sees the patient from now on, for some hours, to look only.

    password, code: of an account that has them (`ways`): a terminal that was left open breaks no glass. Raises
    AccountError when they are wrong. An account without a password is one of a user of the operating system.
    On the trail, with those who are to be told, in one transaction. Raises WhichError for a reason that the site has
    not, AccountError when there is nothing to break, DeniedError when no glass opens the patient.
    """
    policy = _policy(desk)
    asked, _ = ways(desk)
    if asked:
        desk.accounts.confirm(desk.actor.name, password or "", code)
    assert policy.glass is not None  # noqa: S101 - `_policy` has looked
    reasons = policy.glass.reasons
    if reason not in reasons:
        some = "; ".join(f"{code}: {says}" for code, says in reasons.items())
        raise WhichError(f"There is no reason {reason}; there are {some}.", name=reason, known=list(reasons))
    if len(because) < WORDS_CHARS_MIN:
        raise AccountError("say in words why: who reads it later was not there")
    chart = finding.chart(desk, named)
    if not opens(chart, policy):
        desk.deny("a restriction of this record can't be opened by breaking the glass", f"chart:{chart.id}")
    broken = Glass(
        id=secrets.token_hex(6),
        actor=desk.actor.name,
        chart_id=chart.id,
        reason=reason,
        because=because,
        begins=desk.now,
        ends=desk.now + timedelta(hours=policy.glass.hours),
    )

    to = _destinations(desk)

    def work(conn: Connection) -> Glass:
        roles = set(policy.glass.tell) if policy.glass is not None else set()
        told = tuple(
            one.name
            for one in desk.store.users.every(conn)
            if one.state is not AccountState.DISABLED and roles & set(one.roles)
        )
        new = structs.replace(broken, told=told, proved="password" if asked else "local user")
        desk.store.users.break_glass(conn, new)
        why, purpose = f"{reason}: {because}", Purpose.BTG.value
        record = desk.record_of("glass-broken", f"chart:{chart.id}", why, purpose=purpose, patients=(chart.id,))
        tell(desk.store, conn, new, to, desk.now)
        desk.store.audit.append(conn, [record])
        return new

    return desk.store.charts_ledger.write_now(work)


def attest(desk: Desk, glass_id: str, verdict: Literal["right", "wrong"], words: str) -> Glass:
    """Somebody else says whether it was right. Raises NotFoundError, AccountError."""

    def work(conn: Connection) -> Glass:
        found = desk.store.users.glass(conn, glass_id)
        if found is None:
            raise NotFoundError("there is no such glass; `handoff audit glasses` lists them")
        if found.actor == desk.actor.name:
            raise AccountError("who broke the glass does not attest it: somebody else does")
        if found.verdict is not None:
            raise AccountError(f"it was attested already, by {found.attested_by}")
        new = structs.replace(found, verdict=verdict, words=words, attested_by=desk.actor.name, attested_at=desk.now)
        desk.store.users.attest(conn, new)
        why = f"{verdict}: {words}"
        record = desk.record_of("glass-attested", f"glass:{glass_id}", why, patients=(found.chart_id,))
        desk.store.audit.append(conn, [record])
        return new

    return desk.store.charts_ledger.write_now(work)


def _destinations(desk: Desk) -> list[str]:
    """Those that are told by a delivery, as far as there are any."""
    access = desk.outline.access or {}
    return [str(one) for one in access.get("glass_notices", ()) if one in desk.outline.destinations]


def _policy(desk: Desk) -> Policy:
    if desk.gate is None:
        raise AccountError("this site has no `access` in config.yaml: nothing is shut, and there is no glass to break")
    if desk.gate.policy.glass is None:
        raise AccountError("the roles of this site have no break_glass: nobody can break the glass")
    return desk.gate.policy
