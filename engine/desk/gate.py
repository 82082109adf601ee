"""The gate of a desk: it asks `may` for every act and every view, with the chart, and with glasses that were broken.

On a site without `access` there is none, and the command line may do everything.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from engine.access.actions import CATALOGUE, Action
from engine.access.fields import ALL
from engine.access.policy import Allowed, Denied, may
from engine.desk.accounts import Limits
from engine.desk.local import LocalUser
from engine.domain.actor import Actor, Purpose
from engine.errors import SettingsError
from engine.files import UnreadableFileError, read_regular
from engine.outline import ROLES
from engine.yamlfile import TEXT_CHARS_MAX, parse

if TYPE_CHECKING:
    from engine.access.fields import Group
    from engine.access.roles import Policy, Role
    from engine.domain.chart import Chart
    from engine.domain.glass import Glass
    from engine.outline import Outline
    from engine.snapshot import Snapshot
    from engine.store import Store

NOT_MAPPED: Final = (
    "no account belongs to the user {name} of this machine: ask who manages accounts for one"
    " (`handoff users add {name} --role ROLE`, or access.local_users of config.yaml)"
)
_GONE: Final = "the patient's chart is gone, or can't be read"


class Gate:
    """For one actor at one time. glasses: those that the actor sees through."""

    def __init__(
        self, policy: Policy, actor: Actor, now: datetime, glasses: Iterable[Glass] = (), *, unmapped: str | None = None
    ) -> None:
        """unmapped: name of the operating system's user, where no account belongs to them."""
        self.policy, self.actor, self.now = policy, actor, now
        self.purpose: Purpose | None = None
        self._glasses = {one.chart_id: one for one in glasses}
        self._unmapped = unmapped

    def at_all(self, action: Action) -> Allowed | Denied:
        """Of no patient in particular."""
        return self._said(may(self.actor, action, None, self.purpose, self.now, self.policy))

    def of(self, action: Action, chart: Chart | None) -> Allowed | Denied:
        """chart: none: it is gone."""
        if chart is None:
            return Denied(why=_GONE, rule="", code="relation")
        glass = self._glasses.get(chart.id)
        return self._said(may(self.actor, action, chart, self.purpose, self.now, self.policy, glass))

    def _said(self, answer: Allowed | Denied) -> Allowed | Denied:
        if self._unmapped is not None and answer.allowed and answer.unless_seen is not None:
            answer = answer.unless_seen  # pages call people with accounts
        if isinstance(answer, Denied) and self._unmapped is not None:
            return replace(answer, why=NOT_MAPPED.format(name=self._unmapped), rule="", glass_helps=False)
        return answer

    def of_anybody(self, action: Action) -> Allowed | Denied:
        """Of what may be about any patient, or several: only a role may that has all of them."""
        answer = self.at_all(action)
        if answer.allowed and answer.unless_seen is not None:
            return answer.unless_seen
        if not answer.allowed or not CATALOGUE[action].patients or self.actor.kind in {"user", "system"}:
            return answer
        if any(one.patients == "any" and action in one.may for one in self._roles):
            return answer
        return Denied(why="it may be about any patient: only a role may that sees all", rule=answer.rule, code="role")

    def sees_everything(self) -> Allowed | Denied:
        """Whether the actor may see what is no patient's view, as a message as it came, unmasked."""
        answer = self.at_all(Action.PATIENT_REVEAL)
        if answer.allowed and answer.unless_seen is not None:
            return answer.unless_seen
        if not answer.allowed or self.actor.kind in {"user", "system"}:
            return answer
        roles = self._roles
        if any(one.patients == "any" and one.sees >= ALL and Action.PATIENT_REVEAL in one.may for one in roles):
            return answer
        why = "unmasked it may hold anything of any patient: only a role that sees all of everybody may"
        return Denied(why=why, rule=answer.rule, code="role")

    def lacks(self, groups: Iterable[Group]) -> Denied:
        """What is asked for is made of groups of fields that the actor does not see."""
        named = ", ".join(groups)
        return Denied(why=f"it is made of what you do not see of the patient ({named})", rule="", code="role")

    @property
    def _roles(self) -> list[Role]:
        return [self.policy.roles[name] for name in sorted(self.actor.roles) if name in self.policy.roles]


def access_of(outline: Outline, text: str) -> Mapping[str, Any] | None:
    """The keys of `access`. text: of config.yaml. Raises SettingsError when it has some that can't be read: a typing
    error opens nothing.
    """
    from engine.errors import Problem

    if outline.access is not None:
        return outline.access
    for number, line in enumerate(text.splitlines(), 1):
        key, _, value = line.partition(":")
        if key.strip("\"'") == "access" and value.strip() not in {"null", "~"}:
            where = Problem(outline.snapshot.site_file, number, 1, "access", "can't be read, so nobody is let in")
            raise SettingsError((where,))
    return None


def policy_of(access: Mapping[str, Any], snapshot: Snapshot) -> Policy:
    """Raises SettingsError when the file of roles is not there, or something is wrong in it."""
    from engine.access.roles import load_policy
    from engine.errors import Problem

    file, grace = os.path.normpath(str(access.get("roles", ROLES))), float(access.get("grace_days", 7.0))
    if file not in snapshot.files:  # what is wrong in other files matters as little here as for the store
        with contextlib.suppress(UnreadableFileError, UnicodeDecodeError):
            text = read_regular(snapshot.base / file, bytes_max=TEXT_CHARS_MAX).decode()
            return load_policy(parse(text, file), grace_days=grace)
        where = Problem(snapshot.site_file, 1, 1, "access.roles", f"there is no {file}: without roles nobody is let in")
        raise SettingsError((where,))
    return load_policy(snapshot.document(file), grace_days=grace)


def at_the_command_line(
    access: Mapping[str, Any], policy: Policy, store: Store, local: LocalUser, now: datetime
) -> Gate:
    """The gate of who sits at the command line: the account of their name, or the one that config.yaml gives them."""
    mapped = (access.get("local_users") or {}).get(local.name, local.name)
    with store.reader() as conn:
        account = store.users.get(conn, mapped)
        active = account if account is not None and account.active and account.kind == "person" else None
        keeper = local.owns_keys
        if not keeper and local.opens_keys:  # the first account of a site is made by who can open it
            keeper = not any(_manages(one.roles, policy) for one in store.users.every(conn) if one.active)
        glasses = store.users.broken(conn, mapped, now) if active is not None else []
    if active is not None:
        return Gate(policy, active.actor(keeper=keeper), now, glasses)
    nobody = Actor(kind="person", name=local.name, keeper=keeper)
    return Gate(policy, nobody, now, unmapped=local.name)


def of_actor(policy: Policy, actor: Actor, store: Store, now: datetime) -> Gate:
    """The gate of who has come in by a session or token (`accounts.Accounts.enter`)."""
    with store.reader() as conn:
        return Gate(policy, actor, now, store.users.broken(conn, actor.name, now))


def limits_of(access: Mapping[str, Any]) -> Limits:
    """What `access` says of sessions and tries."""
    return Limits(**{name: int(access[name]) for name in Limits._fields if name in access})


def _manages(roles: Iterable[str], policy: Policy) -> bool:
    return any(Action.USERS_MANAGE in policy.roles[name].may for name in roles if name in policy.roles)
