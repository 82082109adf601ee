"""All that can be done, as a closed list: every command and every route names one of these."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from engine.domain.record import Record


class Action(StrEnum):
    """`area.verb`. Roles and scopes of tokens name them."""

    OPEN = "open"

    PATIENT_FIND = "patient.find"
    PATIENT_READ = "patient.read"
    PATIENT_REVEAL = "patient.reveal"
    WORKLIST_READ = "worklist.read"
    TASK_ACT = "task.act"
    PLAN_ACT = "plan.act"
    CONSENT_ACT = "consent.act"
    PAGE_READ = "page.read"
    PAGE_ACK = "page.ack"
    ONCALL_READ = "oncall.read"
    ONCALL_ACT = "oncall.act"
    GLASS_BREAK = "glass.break"

    ENTRIES_LIST = "entries.list"
    ENTRY_READ = "entry.read"
    REPLAY = "replay"
    HELD_READ = "held.read"
    HELD_DECIDE = "held.decide"
    DEAD_READ = "dead.read"
    DEAD_DECIDE = "dead.decide"
    QUALITY_READ = "quality.read"
    QUALITY_DECIDE = "quality.decide"
    DELIVERY_DECIDE = "delivery.decide"
    COMPARE = "compare"

    OPS_READ = "ops.read"
    CONFIG_READ = "config.read"
    CONFIG_RELOAD = "config.reload"
    TRAIL_READ = "trail.read"
    GLASS_READ = "glass.read"
    GLASS_ATTEST = "glass.attest"
    USERS_READ = "users.read"
    USERS_MANAGE = "users.manage"
    RETENTION_MANAGE = "retention.manage"
    STORE_MAINTAIN = "store.maintain"


class Meaning(Record, frozen=True, kw_only=True):
    """What an action is."""

    says: str
    """In words, after `may`: `look at a patient`."""
    patients: bool = False
    """It shows patients, or does something to one: whether it may be done depends on the chart."""
    writes: bool = False
    """It changes something, here or elsewhere."""
    words: bool = False
    """What people wrote is part of what it shows: unmasked it shows that, and no patient's view."""
    keeper: bool = False
    """The keeper of the site may do it without an account: who owns the key file could do so without us."""
    look: str | None = None
    """The record (`domain.audit.EVENTS`) that it leaves when it left no other: an act, a look at a patient."""
    quiet: str = ""
    """Why it leaves none when no patient appeared. Who appears is always on record."""


_M = Meaning
CATALOGUE: Final[Mapping[Action, Meaning]] = {
    Action.OPEN: _M(
        says="use what holds nothing of a patient and changes nothing of the store",
        quiet="it shows no patient, and monitors ask for it many times an hour",
    ),
    Action.PATIENT_FIND: _M(says="look for patients by name, birth date or visit", patients=True, look="looked"),
    Action.PATIENT_READ: _M(says="look at a patient", patients=True, look="looked"),
    Action.PATIENT_REVEAL: _M(says="see patient data unmasked", patients=True, look="looked"),
    Action.WORKLIST_READ: _M(says="see tasks and appointments", patients=True, look="looked"),
    Action.TASK_ACT: _M(says="work on tasks", patients=True, writes=True, look="looked"),
    Action.PLAN_ACT: _M(says="make a patient's running plans anew", patients=True, writes=True, look="looked"),
    Action.CONSENT_ACT: _M(
        says="put consents and refusals of a patient on record", patients=True, writes=True, look="looked"
    ),
    Action.PAGE_READ: _M(says="see pages", patients=True, look="looked"),
    Action.PAGE_ACK: _M(says="acknowledge a page", patients=True, writes=True, look="looked"),
    Action.ONCALL_READ: _M(says="see who is on call", quiet="rosters name no patient"),
    Action.ONCALL_ACT: _M(says="have somebody stand in on a roster", writes=True, look="site-read"),
    Action.GLASS_BREAK: _M(says="break the glass", look="looked"),
    Action.ENTRIES_LIST: _M(says="list messages, masked", look="looked"),
    Action.ENTRY_READ: _M(says="look at a message", patients=True, look="looked"),
    Action.REPLAY: _M(says="replay messages", writes=True, look="looked"),
    Action.HELD_READ: _M(says="see what is held, masked", look="looked"),
    Action.HELD_DECIDE: _M(says="decide what is held", writes=True, look="looked"),
    Action.DEAD_READ: _M(says="see dead letters, masked", look="looked"),
    Action.DEAD_DECIDE: _M(says="replay or discard dead letters", writes=True, look="looked"),
    Action.QUALITY_READ: _M(says="see faults of feeds", look="looked"),
    Action.QUALITY_DECIDE: _M(says="decide on faults of feeds", writes=True, look="looked"),
    Action.DELIVERY_DECIDE: _M(says="pause, resume and resend to destinations", writes=True, look="looked"),
    Action.COMPARE: _M(says="run recorded messages through another configuration", look="looked"),
    Action.OPS_READ: _M(
        says="see how the engine does", quiet="counts and states, which monitors ask for many times an hour"
    ),
    Action.CONFIG_READ: _M(says="see recorded configurations", look="site-read"),
    Action.CONFIG_RELOAD: _M(
        says="take a new configuration into force",
        writes=True,
        keeper=True,
        quiet="the daemon that loads it puts it on record",
    ),
    Action.TRAIL_READ: _M(says="read and verify the audit trail", words=True, look="trail-read"),
    Action.GLASS_READ: _M(says="see who broke the glass", words=True, look="trail-read"),
    Action.GLASS_ATTEST: _M(says="attest that breaking the glass was right or wrong", writes=True, look="trail-read"),
    Action.USERS_READ: _M(says="see accounts", keeper=True, look="site-read"),
    Action.USERS_MANAGE: _M(
        says="make, change and disable accounts and tokens", writes=True, keeper=True, look="site-read"
    ),
    Action.RETENTION_MANAGE: _M(says="hold and erase records", writes=True, look="site-read"),
    Action.STORE_MAINTAIN: _M(says="look after keys, database and backups", writes=True, keeper=True, look="site-read"),
}

GRANTED: Final = tuple(action for action in Action if action is not Action.OPEN)
"""What a role can be given; what is open needs none."""

OF_VERB: Final[Mapping[str, Action]] = {
    "bury": Action.HELD_DECIDE,
    "confirm": Action.HELD_DECIDE,
    "consent-given": Action.CONSENT_ACT,
    "consent-revoked": Action.CONSENT_ACT,
    "contact-given": Action.CONSENT_ACT,
    "contact-revoked": Action.CONSENT_ACT,
    "destination-discarded": Action.DELIVERY_DECIDE,
    "destination-moved": Action.DELIVERY_DECIDE,
    "destination-paused": Action.DELIVERY_DECIDE,
    "destination-resumed": Action.DELIVERY_DECIDE,
    "destination-retried": Action.DELIVERY_DECIDE,
    "discard": Action.DEAD_DECIDE,
    "dismiss": Action.HELD_DECIDE,
    "oncall-override": Action.ONCALL_ACT,
    "page-ack": Action.PAGE_ACK,
    "plan-migrated": Action.PLAN_ACT,
    "quality-reopened": Action.QUALITY_DECIDE,
    "quality-resolved": Action.QUALITY_DECIDE,
    "release": Action.HELD_DECIDE,
    "replay": Action.REPLAY,
    "resend": Action.DELIVERY_DECIDE,
    "reveal": Action.PATIENT_REVEAL,
    "task-assigned": Action.TASK_ACT,
    "task-attempted": Action.TASK_ACT,
    "task-cancelled": Action.TASK_ACT,
    "task-done": Action.TASK_ACT,
    "task-snoozed": Action.TASK_ACT,
    "task-undone": Action.TASK_ACT,
}
"""Verb of the trail -> action that a role has to be given for it."""

SCOPES: Final[Mapping[str, frozenset[Action]]] = {
    "all": frozenset(GRANTED),
    "read": frozenset(action for action in GRANTED if not CATALOGUE[action].writes),
    **{
        f"{area}.*": frozenset(action for action in GRANTED if action.partition(".")[0] == area)
        for area in sorted({action.partition(".")[0] for action in GRANTED if "." in action})
    },
    **{action.value: frozenset({action}) for action in GRANTED},
}
"""What a token can be limited to, by name. A token never allows more than its account."""


def in_scope(action: Action, scopes: frozenset[str] | None) -> bool:
    """Whether a token of these scopes may be used for it. None: it is no token."""
    return scopes is None or any(action in SCOPES.get(scope, ()) for scope in scopes)
