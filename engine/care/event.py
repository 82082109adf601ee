"""What a message of any code says of a patient, and what comes of it on their chart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

from engine.care.times import IMPLAUSIBLE, Claims
from engine.domain.chart import Chart, Stamp
from engine.domain.hold import Fact, Hold, HoldCode, hold_key
from engine.domain.moment import Told
from engine.domain.outcome import Effect
from engine.domain.patient import Identifier
from engine.domain.quality import QualityItem, QualityKind
from engine.domain.record import Phi
from engine.domain.why import Why


class PatientEvent(Phi, frozen=True, kw_only=True):
    """A message in the engine's words: whose it is, what it says of the person, and when.

    Those of one code add what else they say (`care.adt.event.Event`).
    """

    at: Stamp
    """When it was recorded, by the best source that is believed: what is older than what is known is stale."""
    chart_id: str = ""
    """The id of the chart, should it have to be created; empty: the patient has one."""
    identifiers: tuple[Identifier, ...]
    """The channel's key first."""
    patient: dict[str, Any]
    """Field -> value; None clears the field, a field that is not here is left."""
    event_time: Told | None = None
    """When the event itself was."""
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

    @property
    def disposition(self) -> str | None:
        """How a stay ended, where the event says so."""
        return None

    @property
    def ends_stay(self) -> bool:
        """It says that a stay has ended."""
        return False

    @property
    def takes_back(self) -> bool:
        """It repeats what it takes back."""
        return False

    def believed(self, code: HoldCode, location: str | None = None) -> bool:
        """A person has decided that what this hold asks is so."""
        return self.decision == hold_key(code, location)

    @property
    def surely_after(self) -> float:
        """What was received before this instant was said before the event, whatever any clock shows."""
        if self.decided_at is not None:
            return self.decided_at[0]
        return self.at[0] if self.claims is None else self.claims.surely_after

    def without_times(self, claims: Claims, sources: list[str]) -> Self:
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


@dataclass(slots=True)
class Applied:
    """What came of an event, or of one part of it."""

    chart: Chart | None = None
    encounter: str | None = None
    """Key of the encounter that the event spoke of."""
    others: list[Chart] = field(default_factory=list)
    """Further charts that changed (the merged ones, those that a stay has left)."""
    moved: dict[str, Chart] = field(default_factory=dict)
    """By id, charts between which stays have moved, as they were before but with each stay where it is now: what only
    moved is neither new nor gone."""
    effects: list[Effect] = field(default_factory=list)
    deviations: list[str] = field(default_factory=list)
    faults: tuple[QualityItem, ...] = ()
    """What is wrong with the feed, besides deviations that say so by themselves (`domain.quality`)."""
    holds: list[Hold] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    whys: tuple[Why, ...] = ()
    """Why something was done or withheld that can't be told by the rest."""
    note: str | None = None
    """Why it left the chart as it was."""
    unasked: bool = False
    """Its sender never says where patients go: nobody is asked about each of them."""

    def hold(self, code: HoldCode, **more: Any) -> None:
        """Leave a question to a person; of which chart is filled in by the caller of the rules. more: see `Hold`."""
        self.holds.append(Hold(code=code, **more))

    def take_in(self, other: Applied) -> None:
        """What came of another part of the same message, but for charts and questions."""
        self.effects += other.effects
        self.deviations += other.deviations
        self.facts += other.facts
        if other.faults:
            self.faults += other.faults
        if other.whys:
            self.whys += other.whys
        self.note = self.note or other.note

    def quality(self, kind: QualityKind, detail: str | None = None) -> None:
        """Put a fault of the feed on the data-quality list. detail: the HL7 field; none: the kind's own one."""
        self.faults += (QualityItem.of(kind, detail),)

    def why(self, *whys: Why) -> None:
        """Say reasons, each once."""
        self.whys += whys if not self.whys else tuple([one for one in whys if one not in self.whys])

    def deviate(self, code: str) -> None:
        """Note a deviation once."""
        if code not in self.deviations:
            self.deviations.append(code)
