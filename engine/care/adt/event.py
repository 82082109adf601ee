"""An ADT event in the engine's words, what its trigger means to the charts, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
from pydantic import Field

from engine.care.times import IMPLAUSIBLE, RECEIPT, Claims
from engine.domain.chart import Chart, Stamp
from engine.domain.encounter import EncounterStatus
from engine.domain.hold import Assertion, Fact, Hold, HoldCode, hold_key
from engine.domain.outcome import Effect
from engine.domain.patient import Identifier
from engine.domain.record import Phi
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate


class Meaning(StrEnum):
    """What a trigger event means to the charts."""

    ADMIT = "admit"
    REGISTER = "register"
    PRE_ADMIT = "pre_admit"
    TRANSFER = "transfer"
    DISCHARGE = "discharge"
    UPDATE = "update"
    CANCEL_ADMIT = "cancel_admit"
    CANCEL_DISCHARGE = "cancel_discharge"
    PERSON = "person"
    MERGE = "merge"
    HOLD = "hold"
    """It says something of identities, or deletes, in a way that is not applied here: a person must see to it."""
    RECORD = "record"
    """It leaves the charts alone; such messages are listed and counted."""


STATUS: Final[Mapping[Meaning, EncounterStatus | None]] = {
    Meaning.ADMIT: EncounterStatus.ACTIVE,
    Meaning.REGISTER: EncounterStatus.ACTIVE,
    Meaning.PRE_ADMIT: EncounterStatus.PLANNED,
    Meaning.TRANSFER: None,
    Meaning.DISCHARGE: EncounterStatus.FINISHED,
    Meaning.UPDATE: None,
    Meaning.CANCEL_ADMIT: EncounterStatus.CANCELLED,
    Meaning.CANCEL_DISCHARGE: EncounterStatus.ACTIVE,
}
"""Events of a visit, and the status each asserts; none: it leaves the status of a known encounter."""

OPENING: Final = frozenset({Meaning.ADMIT, Meaning.REGISTER, Meaning.PRE_ADMIT})
ARRIVAL: Final = frozenset({Meaning.ADMIT, Meaning.REGISTER})
REGISTERING: Final = frozenset({Meaning.REGISTER, Meaning.PRE_ADMIT})

OPEN: Final = frozenset({EncounterStatus.ACTIVE, EncounterStatus.ON_LEAVE})
ENDED: Final = frozenset({EncounterStatus.FINISHED})

DISCHARGE: Final = ("discharged_at", "disposition")
"""Fields of an encounter that only one that has ended holds."""

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


def load_events(document: Document) -> Events:
    """Raises SettingsError."""
    return Events(validate(document, EventsFile).events)


class Event(Phi, frozen=True, kw_only=True):
    """An ADT message in the engine's words."""

    meaning: Meaning
    at: Stamp
    """When it was recorded, by the best source that is believed: what is older than what is known is stale."""
    chart_id: str
    """The id of the chart, should it have to be created."""
    identifiers: tuple[Identifier, ...]
    """The channel's key first."""
    patient: dict[str, Any]
    """Field -> value; None clears the field, a field that is not here is left."""
    encounter: dict[str, Any]
    visit: str | None = None
    """Encounter key."""
    visit_number: str | None = None
    visit_authority: str | None = None
    """Of the visit number, as PV1-19 names it; none: it does not, and that in `visit` only stands in."""
    account: str | None = None
    has_visit: bool = False
    """A PV1 segment speaks of a visit."""
    event_time: tuple[str, str] | None = None
    """ISO time of the event itself and the HL7 field it came from: stands in for PV1-44 and PV1-45."""
    claims: Claims | None = None
    """What `at`, `sent` and `event_time` come from; none: they are beyond doubt."""
    sent: float = 0.0
    """When it was sent, by its sender's clock (seconds since 1970)."""
    sender: int = 0
    """Of the events of one sender the order of sending decides; 0: who sent it is not known."""
    unread_death: str | None = None
    """HL7 path of a mark or time of death that is there and can't be read."""
    settled: bool = False
    """A replay of what was applied in its time (`Entry.settled`)."""
    decided_at: Stamp | None = None
    """When a person took it as true; none: nobody has."""
    decision: str | None = None
    """The hold (`Hold.key`) that a person has released: what it asked is true as of `decided_at`."""

    def believed(self, code: HoldCode, location: str | None = None) -> bool:
        """A person has decided that what this hold asks is so."""
        return self.decision == hold_key(code, location)

    def assertion(self, status: EncounterStatus) -> Assertion:
        """What the event says of a stay."""
        time, claims = self.event_time, self.claims
        return Assertion(
            status=status,
            happened_at=time[0] if time is not None and time[1] != RECEIPT else None,
            sender=self.sender,
            clock=claims.clock if claims is not None else 0,
            received=claims.received if claims is not None else self.at[0],
        )

    @property
    def surely_after(self) -> float:
        """What was received before this instant was said before the event, whatever any clock shows."""
        if self.decided_at is not None:
            return self.decided_at[0]
        return self.at[0] if self.claims is None else self.claims.surely_after

    def is_decided(self) -> bool:
        """A person has said that the status that the event asserts is that of the stay now."""
        return self.decided_at is not None and any(self.believed(code) for code in _STATUS_QUESTIONS)

    def without_times(self, claims: Claims, sources: list[str]) -> Event:
        """The event with the next best sources in the place of times that are before what it builds on."""
        claims = claims.without(sources)
        return msgspec.structs.replace(
            self,
            at=(claims.recorded(), self.at[1]),
            sent=claims.sent(),
            event_time=claims.happened(),
            claims=claims,
        )


def implausible(sources: Iterable[str]) -> list[str]:
    """The deviations of fields whose time is not believed."""
    return [f"{IMPLAUSIBLE}:{source}" for source in sources]


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


@dataclass(slots=True)
class Applied:
    """What came of an event, or of one part of it."""

    chart: Chart | None = None
    encounter: str | None = None
    """Key of the encounter that the event spoke of."""
    others: list[Chart] = field(default_factory=list)
    """Further charts that changed (the merged ones)."""
    effects: list[Effect] = field(default_factory=list)
    deviations: list[str] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    note: str | None = None
    """Why it left the chart as it was."""

    def hold(self, code: HoldCode, **more: Any) -> None:
        """Leave a question to a person; of which chart is filled in by the caller of the rules. more: see `Hold`."""
        self.holds.append(Hold(code=code, **more))

    def deviate(self, code: str) -> None:
        """Note a deviation once."""
        if code not in self.deviations:
            self.deviations.append(code)
