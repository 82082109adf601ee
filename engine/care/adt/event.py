"""An ADT event in the engine's words, and what its trigger means to the charts."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field

from engine.care.event import PatientEvent
from engine.care.times import RECEIPT
from engine.domain.encounter import EncounterStatus
from engine.domain.hold import Assertion, HoldCode
from engine.domain.patient import Identifier
from engine.domain.record import Phi
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate


class Meaning(StrEnum):
    """What a trigger event means to the charts; what those about a stay say of it: `says.py`."""

    ADMIT = "admit"
    REGISTER = "register"
    PRE_ADMIT = "pre_admit"
    TRANSFER = "transfer"
    DISCHARGE = "discharge"
    UPDATE = "update"
    CANCEL_ADMIT = "cancel_admit"
    CANCEL_DISCHARGE = "cancel_discharge"
    CANCEL_PRE_ADMIT = "cancel_pre_admit"
    CANCEL_TRANSFER = "cancel_transfer"
    PENDING_TRANSFER = "pending_transfer"
    CANCEL_PENDING_TRANSFER = "cancel_pending_transfer"
    PENDING_DISCHARGE = "pending_discharge"
    CANCEL_PENDING_DISCHARGE = "cancel_pending_discharge"
    LEAVE = "leave"
    RETURN = "return"
    CANCEL_LEAVE = "cancel_leave"
    CANCEL_RETURN = "cancel_return"
    DEPART = "depart"
    ARRIVE = "arrive"
    CANCEL_DEPART = "cancel_depart"
    CANCEL_ARRIVE = "cancel_arrive"
    TO_INPATIENT = "to_inpatient"
    TO_OUTPATIENT = "to_outpatient"
    DELETE_VISIT = "delete_visit"
    """The stay never was: it was entered in error."""
    PERSON = "person"
    DELETE_PERSON = "delete_person"
    MERGE = "merge"
    MERGE_WITH_ACCOUNT = "merge_with_account"
    """Two patients, and an account of the one into one of the other."""
    MERGE_ACCOUNTS = "merge_accounts"
    MERGE_VISITS = "merge_visits"
    MOVE_IDENTIFIERS = "move_identifiers"
    MOVE_ACCOUNT = "move_account"
    MOVE_VISIT = "move_visit"
    CHANGE_IDENTIFIERS = "change_identifiers"
    CHANGE_ACCOUNT = "change_account"
    CHANGE_VISIT = "change_visit"
    SWAP = "swap"
    """Two patients change places."""
    LINK = "link"
    """Two patients have to do with each other (mother and child); they stay two."""
    UNLINK = "unlink"
    HOLD = "hold"
    """It says something of identities, or deletes, in a way that is not applied here: a person must see to it."""
    RECORD = "record"
    """It leaves the charts alone; such messages are listed and counted."""


REARRANGING: Final = frozenset(
    {
        Meaning.MERGE_ACCOUNTS,
        Meaning.MERGE_VISITS,
        Meaning.MOVE_ACCOUNT,
        Meaning.MOVE_VISIT,
        Meaning.CHANGE_ACCOUNT,
        Meaning.CHANGE_VISIT,
    }
)
"""Whose a stay is, or which number it has, becomes another one (`Change`)."""
RENUMBERING: Final = frozenset({Meaning.MOVE_IDENTIFIERS, Meaning.CHANGE_IDENTIFIERS})
"""Numbers of a patient become others: like merges, where nobody else has the new ones."""

_CANCELS: Final = frozenset({Meaning.CANCEL_ADMIT, Meaning.CANCEL_DISCHARGE, Meaning.DELETE_VISIT})

_STATUS_QUESTIONS: Final = frozenset(
    {HoldCode.STATUS_EVENT_STALE, HoldCode.NOTHING_TO_CANCEL, HoldCode.DISPOSITION_IS_NO_DISCHARGE}
)
"""Holds whose release means: the status that the event asserts is that of the stay now."""


class EventsFile(StrictModel):
    """What each ADT trigger event means to the charts."""

    name: str
    """Name of the table."""
    source: str
    """Where the meanings come from."""
    events: dict[Annotated[str, Field(pattern=r"^[A-Z][0-9A-Z]{2}$")], Meaning]
    """Trigger event (MSH-9.2) -> meaning. One that is not listed means `record`."""


class Events:
    """The table of trigger events (`mappings/care/adt-events.yaml`)."""

    def __init__(self, meanings: Mapping[str, Meaning]) -> None:
        self._meanings = dict(meanings)

    def of(self, trigger: str) -> Meaning:
        return self._meanings.get(trigger, Meaning.RECORD)

    def that_mean(self, meaning: Meaning) -> frozenset[str]:
        """The trigger events of the table that mean this."""
        return frozenset(trigger for trigger, one in self._meanings.items() if one is meaning)


def load_events(document: Document) -> Events:
    """Raises SettingsError."""
    return Events(validate(document, EventsFile).events)


class VisitNumber(Phi, frozen=True, kw_only=True):
    """A visit number as a message names it."""

    key: str
    """Of the encounter, should it have to be looked for by that."""
    number: str
    authority: str | None = None
    """Who gave it; none: the message does not say."""


class Event(PatientEvent, frozen=True, kw_only=True):
    """An ADT message in the engine's words. Its time stands in for PV1-44 and PV1-45."""

    meaning: Meaning
    encounter: dict[str, Any]
    visit: str | None = None
    """Encounter key."""
    visit_number: str | None = None
    visit_authority: str | None = None
    """Of the visit number, as PV1-19 names it; none: it does not, and that in `visit` only stands in."""
    account: str | None = None
    former_visit: VisitNumber | None = None
    """Of a class change: the number that the stay had until then (MRG-5)."""
    former_account: str | None = None
    """Likewise its account (MRG-3)."""
    cancels: Meaning | None = None
    """A class change (A06, A07) that this takes back: what the message says of the stay is that before it."""
    has_visit: bool = False
    """A PV1 segment speaks of a visit."""

    @property
    def disposition(self) -> str | None:
        disposition: str | None = self.encounter.get("disposition")
        return disposition

    @property
    def ends_stay(self) -> bool:
        return self.meaning is Meaning.DISCHARGE

    @property
    def takes_back(self) -> bool:
        return self.meaning in _CANCELS

    def assertion(self, status: EncounterStatus) -> Assertion:
        """What the event says of a stay."""
        time, claims = self.event_time, self.claims
        return Assertion(
            status=status,
            happened_at=time.at if time is not None and time.source != RECEIPT else None,
            sender=self.sender,
            clock=claims.clock if claims is not None else 0,
            received=claims.received if claims is not None else self.at[0],
        )

    def is_decided(self) -> bool:
        """A person has said that the status that the event asserts is that of the stay now."""
        return self.decided_at is not None and any(self.believed(code) for code in _STATUS_QUESTIONS)


class Merge(Phi, frozen=True, kw_only=True):
    """One pair of a merge: `merged` becomes an alias of the patient whose key is `survivor`."""

    survivor: Identifier
    """The patient's key in the message, whichever of the patient's identifiers the pair is about."""
    survivor_id: str
    """Chart id, should the survivor have to be created."""
    partner: Identifier | None = None
    """The identifier of PID-3 that takes the place of `merged`; none: the key."""
    merged: Identifier
    merged_id: str
    unsure: bool = False
    """MRG-1 leaves out its type: it may be no number of a patient."""
    place: int = 0
    """Of `merged` among the repetitions of MRG-1, from 0."""


class Change(Phi, frozen=True, kw_only=True):
    """A stay that becomes another patient's, or gets another number: PID and PV1 say what is, MRG what was."""

    what: Meaning
    """One of `REARRANGING`."""
    event: int
    """Its place among the events of the message."""
    key: Identifier
    """Of the patient in PID."""
    chart_id: str
    """Should the patient have to be created."""
    was: tuple[Identifier, ...] = ()
    """MRG-1: the patient whose it was; empty: the message does not say."""
    was_id: str = ""
    """Chart id of that patient, likewise; empty: whether the number is a patient's is not sure."""
    account: str | None = None
    """PID-18."""
    old_account: str | None = None
    """MRG-3."""
    visit: VisitNumber | None = None
    """PV1-19."""
    old_visit: VisitNumber | None = None
    """MRG-5."""
    location: str = "MRG"


class Link(Phi, frozen=True, kw_only=True):
    """Two patients who have to do with each other, or no longer do."""

    one: Identifier
    other: Identifier
    linked: bool
