"""Who did what, when, to what, from where: the records of the trail, and the catalogue of what can be on record."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from engine.domain.record import Phi, Record

Result = Literal["allowed", "denied", "failed"]
"""denied: the actor may not. failed: it was begun and did not come about."""


class Event(NamedTuple):
    """What can be on record.

    what: a clause for people. does: of FHIR's AuditEvent.action (Create, Read, Update, Delete, Execute). kind: the code
    of DICOM PS3.16 CID 400 (`dicom-audit-lifecycle` and IHE BALP use the same). discloses: somebody has seen, or was
    sent, what is about a patient. witnessed: a command that does it makes a checkpoint of the trail at once, so that
    its record can't be cut off before the daemon makes the next one.
    """

    what: str
    does: Literal["C", "R", "U", "D", "E"]
    kind: str
    discloses: bool = False
    witnessed: bool = False


_ACTIVITY: Final = "110100"
"""Application Activity."""
_USED: Final = "110101"
"""Audit Log Used."""
_EXPORT: Final = "110106"
_ORDER: Final = "110109"
"""Order Record: what is to be done for a patient."""
_PATIENT: Final = "110110"
"""Patient Record."""
_QUERY: Final = "110112"
_SECURITY: Final = "110137"
"""User security attributes changed."""
_LOGIN: Final = "110114"
"""User Authentication."""
_EMERGENCY: Final = "110127"
"""Emergency Override Started."""
_ALERT: Final = "110113"
"""Security Alert."""

EVENTS: Final[Mapping[str, Event]] = {
    # what is seen
    "reveal": Event("saw patient data unmasked", "R", _PATIENT, discloses=True, witnessed=True),
    "searched": Event("asked for a patient by who they are", "R", _QUERY, discloses=True),
    "looked": Event("looked at patients, masked", "R", _PATIENT),
    "site-read": Event("looked at what is kept of the site, and at no patient", "R", _ACTIVITY),
    "unusual-reviewed": Event("asked about looks that nothing explains, and says what was found", "U", _ALERT),
    "disclosures-accounted": Event("made the accounting of disclosures of a patient", "R", _PATIENT, witnessed=True),
    "patient-exported": Event("took all that is stored of a patient out", "R", _EXPORT, discloses=True, witnessed=True),
    "sharing-refused": Event("refused to share a patient's data, and says by which exception", "E", _ALERT),
    "accounting-suspended": Event("keeps disclosures out of accountings for law enforcement", "U", _ALERT),
    "evidence-noted": Event("says that the site did its part of a rule", "C", _ACTIVITY),
    "inventory-made": Event("made the inventory and the map of the network", "R", _ACTIVITY),
    # breaches
    "breach-opened": Event("opened the worksheet of a breach", "C", _ALERT, witnessed=True),
    "breach-changed": Event("changed what is known of a breach", "U", _ALERT, witnessed=True),
    "breach-assessed": Event("assessed a breach by the four factors", "U", _ALERT, witnessed=True),
    "breach-notified": Event("says that somebody was told of a breach", "U", _ALERT, witnessed=True),
    "breach-closed": Event("closed the worksheet of a breach", "U", _ALERT, witnessed=True),
    # tasks and pages
    "task-done": Event("did a task", "U", _ORDER),
    "task-assigned": Event("gave a task to somebody", "U", _ORDER),
    "task-attempted": Event("tried to reach the patient", "U", _ORDER),
    "task-snoozed": Event("put a task off", "U", _ORDER),
    "task-cancelled": Event("cancelled a task", "U", _ORDER),
    "task-undone": Event("took back what was done to a task", "U", _ORDER),
    "page-ack": Event("acknowledged a page", "U", _ORDER),
    "page-answered": Event("acknowledged a page at a far end", "U", _ORDER),
    "oncall-override": Event("put somebody in for another on a roster", "U", _ACTIVITY),
    "consent-given": Event("put on record what a patient says to copies that leave", "C", _PATIENT),
    "consent-revoked": Event("took back, for a patient, what was said to copies that leave", "U", _PATIENT),
    "contact-given": Event("put on record that a patient may be written to at a number", "C", _PATIENT),
    "contact-revoked": Event("put on record that a patient may not be written to at a number", "U", _PATIENT),
    "text-received": Event("passed on what was written from a patient's number", "C", _PATIENT),
    "plan-migrated": Event("made running plans anew by the protocol of today", "U", _ORDER),
    # messages, dead letters, deliveries
    "replay": Event("processed messages anew, or sent a dead delivery again", "E", _PATIENT),
    "discard": Event("closed a dead letter without a replay", "U", _PATIENT),
    "release": Event("let go what was held", "U", _PATIENT),
    "dismiss": Event("decided that what was held is not to be done", "U", _PATIENT),
    "confirm": Event("said that a held delivery has arrived", "U", _PATIENT),
    "bury": Event("gave up a held delivery", "U", _PATIENT),
    "supersede": Event("a later message has answered what waited for a person", "U", _PATIENT),
    "resend": Event("told a destination again how charts stand", "E", _EXPORT),
    "quality-resolved": Event("saw to a fault of a feed", "U", _ACTIVITY),
    "quality-reopened": Event("said that a fault of a feed is not over", "U", _ACTIVITY),
    # destinations
    "destination-paused": Event("paused a destination", "U", _ACTIVITY),
    "destination-resumed": Event("resumed a destination", "U", _ACTIVITY),
    "destination-retried": Event("asked for an attempt at once", "E", _ACTIVITY),
    "destination-discarded": Event("gave up what waited for a destination that is gone", "D", _ACTIVITY),
    "destination-moved": Event("gave what waited for a destination that is gone to another", "U", _ACTIVITY),
    # accounts, and who comes in
    "account-added": Event("made an account", "C", _SECURITY, witnessed=True),
    "account-changed": Event("gave an account other roles, units or names", "U", _SECURITY, witnessed=True),
    "account-disabled": Event("shut an account out", "U", _SECURITY, witnessed=True),
    "account-enabled": Event("let an account in again", "U", _SECURITY, witnessed=True),
    "password-set": Event("set a password", "U", _SECURITY, witnessed=True),
    "factor-set": Event("gave an account a second factor", "U", _SECURITY, witnessed=True),
    "factor-removed": Event("took a second factor away", "U", _SECURITY, witnessed=True),
    "token-made": Event("made a token", "C", _SECURITY, witnessed=True),
    "token-revoked": Event("ended a token or session", "U", _SECURITY, witnessed=True),
    "logged-in": Event("logged in", "E", _LOGIN),
    "logged-out": Event("logged out", "E", _LOGIN),
    "login-failed": Event("tried to log in", "E", _LOGIN),
    "denied": Event("was not let do something", "E", _ALERT),
    "glass-broken": Event("broke the glass", "E", _EMERGENCY, discloses=True, witnessed=True),
    "glass-attested": Event("attested a broken glass", "U", _ALERT, witnessed=True),
    # the configuration
    "config-run": Event("started the daemon with a configuration", "E", _ACTIVITY),
    "config-asked": Event("asked the daemon to load its files again", "E", _ACTIVITY),
    "config-reload": Event("loaded another configuration", "U", _ACTIVITY),
    # keys
    "keys-rotated": Event("added a key, with which all is sealed from now on", "U", _SECURITY),
    "keys-resealed": Event("had what other keys have sealed sealed anew", "U", _SECURITY),
    "keys-retired": Event("took an old key away", "D", _SECURITY),
    # backups
    "backup": Event("made a backup", "R", _EXPORT),
    "restore": Event("set the store back to a backup", "U", _ALERT),
    "restore-rehearsed": Event("restored a backup to see that it can be done", "E", _ACTIVITY),
    # keeping and erasing
    "hold-placed": Event("placed a legal hold on a patient's records", "C", _PATIENT, witnessed=True),
    "hold-lifted": Event("lifted a legal hold", "U", _PATIENT, witnessed=True),
    "holds-confirmed": Event("said after a restore that the legal holds are right", "U", _ACTIVITY, witnessed=True),
    "swept": Event("erased what was kept long enough", "D", _ACTIVITY, witnessed=True),
    "patient-erased": Event("erased a patient's chart and all that belongs to it", "D", _PATIENT, witnessed=True),
    # the trail itself
    "trail-read": Event("read the trail", "R", _USED),
    "trail-checkpoint": Event("asked for a checkpoint of the trail", "E", _ACTIVITY),
    "trail-verified": Event("had the trail checked", "R", _USED),
    "trail-exported": Event("took the trail out as messages for others", "R", _EXPORT, witnessed=True),
    "trail-purged": Event("erased records of the trail whose time is over", "D", _ALERT),
    "trail-resealed": Event("said that the store was set back to an earlier point", "U", _ALERT),
}
"""By the stable verb that a record has as its action."""

ACTIONS: Final = tuple(sorted(EVENTS))
"""What people do, for those who look for it."""


class Whence(Record, frozen=True, kw_only=True):
    """Where an act came from. None: it is not known, or there is none."""

    address: str | None = None
    """Of the network."""
    host: str | None = None
    tty: str | None = None
    loginuid: int | None = None
    """The user that logged in, whoever it became since (Linux audit)."""
    session: int | None = None
    """Number of that login (Linux audit)."""
    sudo_uid: int | None = None
    """What sudo says; everybody can set it."""
    uid: int | None = None
    """Effective."""
    command: str | None = None
    """The command's name, without its arguments: `handoff patients show`."""


class AuditRecord(Phi, frozen=True, kw_only=True):
    """A record as it is given to the trail."""

    at: datetime
    actor: str
    """`system`, or who did it (`Actor`)."""
    action: str
    """Of `EVENTS`."""
    subject: str
    """What it was done to, by opaque id (`chart:9f2c`, `entry:17`)."""
    reason: str | None = None
    """In the words of who did it; sealed."""
    result: Result = "allowed"
    purpose: str | None = None
    """Of use (HL7 PurposeOfUse: `TREAT`, `BTG`)."""
    patients: tuple[str, ...] = ()
    """Ids of the charts that it was about; of a list all that appeared."""
    entry: int | None = None
    """The entry of the journal that did it."""
    others: tuple[str, ...] = ()
    """Opaque ids of what else appeared: messages and the like of which no chart is known; sealed."""
    terms: str | None = None
    """What was searched for; sealed."""
    count: int | None = None
    """How many were found, or concerned."""
    whence: Whence | None = None
    facts: dict[str, Any] = {}
    """What was done, of what has no table of its own (a worksheet, a copy that was given out); sealed."""


class Recorded(AuditRecord, frozen=True, kw_only=True):
    """A record as the trail has it."""

    seq: int
    """Its number, from 1 without a gap."""
    damaged: str | None = None
    """Why it can't be believed: it was altered, or its sealed part can't be read or is gone."""
