"""Which action each command is: what a role has to be given for it, once `access` is configured.

A command that is not here can't be run (a test walks them all). What is `open` shows nothing of a patient and changes
nothing that is stored. A command that opens the store by a desk is looked at there; others call `admit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import click

from engine.access.actions import Action

_A = Action
ACTIONS: Final[Mapping[str, Action]] = {
    **dict.fromkeys(
        ("init", "run", "worker", "console", "status", "check", "test", "send", "simulate", "schema", "demo", "bench",
         "phone reply", "help", "completion", "manual", "users actions",
         # Makes a key for a reader elsewhere, and touches no site.
         "outbox key",
         # There may be no store yet in which accounts could be looked up: the files' own permissions guard these.
         "keys create", "db migrate", "db status", "restore"),
        _A.OPEN,
    ),
    "reload": _A.CONFIG_RELOAD,
    "config diff": _A.CONFIG_READ,
    "config list": _A.CONFIG_READ,
    "try": _A.ENTRY_READ,
    "compare": _A.COMPARE,
    **dict.fromkeys(("connections", "senders", "gaps", "ledger"), _A.OPS_READ),
    "messages list": _A.ENTRIES_LIST,
    "messages show": _A.ENTRY_READ,
    "phone transcript": _A.ENTRY_READ,
    "replay": _A.REPLAY,
    "resend": _A.DELIVERY_DECIDE,
    **dict.fromkeys(("dead list", "dead show", "dead summary"), _A.DEAD_READ),
    **dict.fromkeys(("dead discard", "dead replay"), _A.DEAD_DECIDE),
    **dict.fromkeys(("held list", "held show"), _A.HELD_READ),
    **dict.fromkeys(("held bury", "held confirm", "held dismiss", "held release"), _A.HELD_DECIDE),
    **dict.fromkeys(("quality list", "quality show"), _A.QUALITY_READ),
    **dict.fromkeys(("quality reopen", "quality resolve"), _A.QUALITY_DECIDE),
    **dict.fromkeys(("destinations list", "destinations show"), _A.OPS_READ),
    **dict.fromkeys(
        ("destinations discard", "destinations move", "destinations pause", "destinations resume",
         "destinations retry"),
        _A.DELIVERY_DECIDE,
    ),
    "patients find": _A.PATIENT_FIND,
    "patients export": _A.PATIENT_REVEAL,
    **dict.fromkeys(("patients show", "why", "risk score", "medications"), _A.PATIENT_READ),
    **dict.fromkeys(
        ("tasks list", "tasks show", "appointments list", "texts list", "texts preview", "texts show"), _A.WORKLIST_READ
    ),
    **dict.fromkeys(
        ("tasks assign", "tasks attempt", "tasks cancel", "tasks done", "tasks snooze", "tasks undo"), _A.TASK_ACT
    ),
    "plans migrate": _A.PLAN_ACT,
    **dict.fromkeys(("consent list", "consents list"), _A.PATIENT_READ),
    **dict.fromkeys(
        ("consent give", "consent import", "consent revoke", "consents add", "consents revoke"), _A.CONSENT_ACT
    ),
    **dict.fromkeys(("pages list", "pages show"), _A.PAGE_READ),
    "pages ack": _A.PAGE_ACK,
    **dict.fromkeys(("oncall check", "oncall overrides", "oncall who"), _A.ONCALL_READ),
    "oncall override": _A.ONCALL_ACT,
    "outbox read": _A.PATIENT_REVEAL,
    **dict.fromkeys(("keys reseal", "keys retire", "keys rotate", "keys status", "backup"), _A.STORE_MAINTAIN),
    **dict.fromkeys(
        ("sweep", "legal-hold add", "legal-hold confirm", "legal-hold list", "legal-hold remove", "patients erase"),
        _A.RETENTION_MANAGE,
    ),
    "break-glass": _A.GLASS_BREAK,
    "audit glasses": _A.GLASS_READ,
    "audit attest": _A.GLASS_ATTEST,
    **dict.fromkeys(("audit list", "audit verify", "audit checkpoint", "audit export"), _A.TRAIL_READ),
    "audit reseal": _A.STORE_MAINTAIN,
    **dict.fromkeys(("audit disclosures", "audit unusual", "audit refusals", "evidence"), _A.TRAIL_READ),
    **dict.fromkeys(("audit refuse", "audit suspend", "audit note"), _A.GLASS_ATTEST),
    **dict.fromkeys(("breach list", "breach show"), _A.TRAIL_READ),
    **dict.fromkeys(
        ("breach open", "breach add", "breach assess", "breach notified", "breach delay", "breach close"),
        _A.GLASS_ATTEST,
    ),
    "inventory": _A.OPS_READ,
    "audit review": _A.GLASS_ATTEST,
    **dict.fromkeys(
        ("users list", "users show", "users tokens", "users roles", "users may"), _A.USERS_READ
    ),
    **dict.fromkeys(
        ("users add", "users change", "users disable", "users enable", "users token", "users revoke",
         "users password", "users mfa"),
        _A.USERS_MANAGE,
    ),
}  # fmt: skip
"""Command -> action."""


def action_of(context: click.Context | None) -> Action:
    """Of the command that runs. Raises KeyError for one that declares none."""
    return ACTIONS[name_of(context)] if context is not None else Action.OPEN


def name_of(context: click.Context | None) -> str:
    """Of the command that runs: `patients show`."""
    words: list[str] = []
    while context is not None and context.parent is not None:
        words.insert(0, context.info_name or "")
        context = context.parent
    return " ".join(words)
