"""The one decision: may somebody do something, to which patient, and which fields do they see? Pure.

    page that called them  >  restrictions  >  role and relation  >  broken glass, which opens what was denied

An answer says why, for people, and which line of the file of roles decided.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from engine.access.actions import CATALOGUE, Action, in_scope
from engine.access.fields import ALL, Group
from engine.access.relations import SAYS, Relation, relations
from engine.access.restrictions import restricted
from engine.domain.actor import Actor, Purpose
from engine.domain.chart import Chart
from engine.domain.glass import Glass

if TYPE_CHECKING:
    from engine.access.roles import Policy, Restriction, Role

NO_FIELDS: Final[frozenset[Group]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    fields: frozenset[Group]
    """What is seen of the patient."""
    why: str
    rule: str
    """Path in the file of roles: `roles.nurse.patients`."""
    relations: frozenset[Relation] = frozenset()
    hidden_stays: frozenset[str] = frozenset()
    """Keys of stays that are not seen, nor what hangs on them."""
    purpose: Purpose = Purpose.TREAT
    glass: bool = False
    """Only because the glass was broken."""
    unless_seen: Denied | None = None
    """Of no patient in particular: what the answer is unless there is a patient for whom it may be done, because of a
    page or a broken glass."""

    allowed: Literal[True] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    why: str
    rule: str
    code: Literal["account", "scope", "role", "purpose", "relation", "restricted"]
    glass_helps: bool = False
    """The actor can break the glass, and would see it."""

    allowed: Literal[False] = False


def may(
    actor: Actor,
    action: Action,
    chart: Chart | None,
    purpose: Purpose | None,
    now: datetime,
    policy: Policy,
    glass: Glass | None = None,
) -> Allowed | Denied:
    """Whether the actor may do it, and what they see then.

    chart: whole, of the patient whom it is about. None: of no patient in particular: whether the actor may do it at
    all; of each patient that appears it is asked again. purpose: none: the first of the role's.
    """
    if action is Action.OPEN or actor.kind in {"user", "system"}:
        return Allowed(fields=ALL, why="it is open to everybody", rule="", purpose=purpose or Purpose.HOPERAT)
    if not in_scope(action, actor.scopes):
        return Denied(why=f"your token is not made for it ({_said(action)})", rule="scopes", code="scope")
    if actor.keeper and CATALOGUE[action].keeper:
        return Allowed(fields=NO_FIELDS, why="you keep the keys of this site", rule="", purpose=Purpose.HOPERAT)
    roles = [policy.roles[name] for name in sorted(actor.roles) if name in policy.roles]
    if not roles and not _may_be_paged(actor, action, chart, now, policy):
        return Denied(why="your account has no role that this site knows", rule="roles", code="account")
    if chart is None:
        return _at_all(action, purpose, roles, policy)
    answer = _of_patient(actor, action, chart, purpose, roles, now, policy)
    if answer.allowed or policy.glass is None or action not in policy.glass.may or answer.code == "purpose":
        return answer
    breakers = [role for role in roles if Action.GLASS_BREAK in role.may]
    if not breakers:
        return answer
    if glass is None or not glass.opens(actor, chart.id, now):
        return Denied(why=answer.why, rule=answer.rule, code=answer.code, glass_helps=opens(chart, policy))
    return _behind_glass(actor, chart, breakers, now, policy) or answer


def _at_all(action: Action, purpose: Purpose | None, roles: list[Role], policy: Policy) -> Allowed | Denied:
    """Of no patient in particular."""
    able = [role for role in roles if action in role.may]
    for role in able:
        if purpose is None or purpose in role.purposes:
            return Allowed(
                fields=frozenset().union(*(one.sees for one in able)),
                why=f"{role.name} may {_said(action)}",
                rule=f"roles.{role.name}.may",
                purpose=purpose or role.purposes[0],
            )
    denied = _no_role(action, purpose, roles, able)
    if policy.on_call is not None and action in policy.on_call.may:
        why = "who is called by a page may"
        return Allowed(fields=NO_FIELDS, why=why, rule="on_call.may", unless_seen=denied)
    if policy.glass is not None and action in policy.glass.may and any(Action.GLASS_BREAK in one.may for one in roles):
        return Allowed(fields=NO_FIELDS, why="behind a broken glass", rule="break_glass.may", unless_seen=denied)
    return denied


def _no_role(action: Action, purpose: Purpose | None, roles: list[Role], able: list[Role]) -> Denied:
    if able:
        named = able[0]
        why = f"{named.name} may look at patients for {', '.join(named.purposes)}, and not for {purpose}"
        return Denied(why=why, rule=f"roles.{named.name}.purposes", code="purpose")
    names = " and ".join(role.name for role in roles) or "who has no role"
    rule = f"roles.{roles[0].name}.may" if roles else "roles"
    return Denied(why=f"{names} may not {_said(action)}", rule=rule, code="role")


def _of_patient(
    actor: Actor,
    action: Action,
    chart: Chart,
    purpose: Purpose | None,
    roles: list[Role],
    now: datetime,
    policy: Policy,
) -> Allowed | Denied:
    grace = timedelta(days=policy.grace_days)
    theirs = relations(chart, actor, now, grace)
    if Relation.PAGE in theirs and policy.on_call is not None and action in policy.on_call.may:
        sees = policy.on_call.sees.union(*(role.sees for role in roles if action in role.may))
        return Allowed(
            fields=sees, why=SAYS[Relation.PAGE], rule="on_call.may", relations=theirs, purpose=Purpose.TREAT
        )
    able = [role for role in roles if action in role.may]
    fitting = [role for role in able if purpose is None or purpose in role.purposes]
    if not fitting:
        return _no_role(action, purpose, roles, able)
    close = [role for role in fitting if _is_theirs(role, theirs)]
    if not close:
        return _not_theirs(fitting[0])
    first = close[0]
    fields: frozenset[Group] = frozenset().union(*(role.sees for role in close))
    hidden: set[str] = set()
    for restriction, stays in restricted(chart, policy.restrictions):
        if restriction.roles & actor.roles:
            continue
        if restriction.covers == "stay":
            kept = {one for one in stays if _is_close_to_stay(chart, one, actor, now, grace, restriction)}
            shut = stays - kept
            if shut and restriction.hides is None:
                hidden |= shut
            elif shut:
                fields -= restriction.hides or NO_FIELDS
        elif not restriction.relations & theirs:
            if restriction.hides is None:
                return _is_restricted(restriction)
            fields -= restriction.hides
    if hidden:
        # What makes the patient theirs must not be the very stay that they do not see.
        left = relations(chart, actor, now, grace, without=frozenset(hidden))
        if not any(_is_theirs(role, left) for role in close):
            blocking = next(one for one, stays in restricted(chart, policy.restrictions) if stays & hidden)
            return _is_restricted(blocking)
        theirs = left
    why, rule = _because(first, theirs)
    return Allowed(
        fields=fields,
        why=why,
        rule=rule,
        relations=theirs,
        hidden_stays=frozenset(hidden),
        purpose=purpose or first.purposes[0],
    )


def _behind_glass(actor: Actor, chart: Chart, breakers: list[Role], now: datetime, policy: Policy) -> Allowed | None:
    """What a broken glass shows; none: a restriction that no glass opens."""
    assert policy.glass is not None  # noqa: S101 - whoever asks has looked
    if not opens(chart, policy):
        return None
    sees = policy.glass.sees
    if sees is None:
        sees = frozenset().union(*(role.sees for role in breakers))
    hidden = {
        stay
        for restriction, stays in restricted(chart, policy.restrictions)
        if restriction.covers == "stay" and not restriction.glass and not restriction.roles & actor.roles
        for stay in stays
    }
    return Allowed(
        fields=sees,
        why="you broke the glass",
        rule="break_glass",
        relations=relations(chart, actor, now, timedelta(days=policy.grace_days)),
        hidden_stays=frozenset(hidden),
        purpose=Purpose.BTG,
        glass=True,
    )


def opens(chart: Chart, policy: Policy) -> bool:
    """Whether a broken glass shows the patient: nothing of which it is said that no glass opens it covers them."""
    found = restricted(chart, policy.restrictions)
    return all(one.glass or one.covers == "stay" for one, _ in found)


def _may_be_paged(actor: Actor, action: Action, chart: Chart | None, now: datetime, policy: Policy) -> bool:
    """Whether a page allows it, or, of no patient in particular, may do so."""
    if policy.on_call is None or action not in policy.on_call.may:
        return False
    if chart is None:
        return True
    return Relation.PAGE in relations(chart, actor, now, timedelta(days=policy.grace_days))


def _is_theirs(role: Role, theirs: frozenset[Relation]) -> bool:
    if isinstance(role.patients, str):
        return role.patients == "any"
    return bool(role.patients & theirs)


def _is_close_to_stay(
    chart: Chart, stay: str, actor: Actor, now: datetime, grace: timedelta, restriction: Restriction
) -> bool:
    """Whether one of the relations that the restriction names holds when this is the only stay that there is."""
    others = frozenset(one.key for one in chart.encounters if one.key != stay)
    of_stay = relations(chart, actor, now, grace, without=others)
    return bool(restriction.relations & of_stay)


def _because(role: Role, theirs: frozenset[Relation]) -> tuple[str, str]:
    if isinstance(role.patients, str):
        return f"{role.name} may, of any patient", f"roles.{role.name}.patients"
    named = min(role.patients & theirs, key=list(Relation).index)
    return SAYS[named], f"roles.{role.name}.patients"


def _not_theirs(role: Role) -> Denied:
    if isinstance(role.patients, str):
        return Denied(why=f"{role.name} sees no patients", rule=f"roles.{role.name}.patients", code="relation")
    named = ", ".join(_in_words(role.patients))
    return Denied(
        why=f"the patient is none of yours: {role.name} sees those of {named}",
        rule=f"roles.{role.name}.patients",
        code="relation",
    )


_IN_WORDS: Final = {
    Relation.ATTENDING: "whom you attend",
    Relation.CONSULTING: "whom you are asked about",
    Relation.PRIMARY_CARE: "whose primary care provider you are",
    Relation.PANEL: "your panel",
    Relation.UNIT: "your units",
    Relation.TEAM: "whom you have a task of",
    Relation.PAGE: "whom you were called about",
    Relation.APPOINTMENT: "who have an appointment with you",
}


def _in_words(wanted: frozenset[Relation]) -> Iterator[str]:
    return (_IN_WORDS[one] for one in Relation if one in wanted)


def _is_restricted(restriction: Restriction) -> Denied:
    return Denied(
        why=f"the record is restricted: {restriction.says}",
        rule=f"restrictions.{restriction.name}",
        code="restricted",
    )


def _said(action: Action) -> str:
    return CATALOGUE[action].says
