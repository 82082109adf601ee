"""Whether somebody may do something, and why: asked about an account, by who looks after accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.access.actions import GRANTED, Action
from engine.access.policy import may
from engine.desk import finding
from engine.domain.actor import Purpose
from engine.errors import AccountError, WhichError

if TYPE_CHECKING:
    from engine.desk.desk import Desk


def may_they(desk: Desk, name: str, action: str, patient: str | None, purpose: str | None) -> dict[str, Any]:
    """Raises WhichError for a name that there is not."""
    if action not in GRANTED:
        raise WhichError(
            f"There is no action {action}; `handoff users actions` lists them.", name=action, known=GRANTED
        )
    purposes = [one.value for one in Purpose]
    if purpose is not None and purpose not in purposes:
        raise WhichError(
            f"There is no purpose {purpose}; there are {', '.join(purposes)}.", name=purpose, known=purposes
        )
    account, policy = desk.accounts.get(name), desk.policy()
    if policy is None:
        raise AccountError("this site has no file of roles: nobody is kept from anything")
    chart = None if patient is None else finding.chart(desk, patient)
    glass = None
    if chart is not None:
        with desk.store.reader() as conn:
            glass = next(
                (one for one in desk.store.users.broken(conn, name, desk.now) if one.chart_id == chart.id), None
            )
    answer = may(account.actor(), Action(action), chart, Purpose(purpose) if purpose else None, desk.now, policy, glass)
    allowed = answer.allowed and account.active
    return {
        "name": name,
        "action": action,
        "allowed": allowed,
        "why": answer.why if account.active else f"the account is {account.state.value}",
        "rule": answer.rule if account.active else "",
        "sees": sorted(str(one) for one in answer.fields) if answer.allowed and allowed else [],
        "relations": sorted(str(one) for one in answer.relations) if answer.allowed and allowed else [],
        "glass": answer.glass if answer.allowed else False,
        "glass_helps": False if answer.allowed else answer.glass_helps,
    }
