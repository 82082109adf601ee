"""The patient, as charts keep it and as the contract shows it."""

from __future__ import annotations

from engine.domain.moment import Moment
from engine.domain.record import Phi


class Identifier(Phi, frozen=True, kw_only=True):
    """One repetition of PID-3: (id, assigning authority, type)."""

    value: str
    authority: str
    type: str = ""

    @property
    def key(self) -> str:
        """`AUTHORITY:ID`, as the command line writes it."""
        return f"{self.authority}:{self.value}"


class Name(Phi, frozen=True, kw_only=True):
    family: str | None = None
    given: str | None = None
    middle: str | None = None
    prefix: str | None = None
    suffix: str | None = None


class Address(Phi, frozen=True, kw_only=True):
    line: str | None = None
    city: str | None = None
    state: str | None = None
    postal_code: str | None = None
    country: str | None = None


class Provider(Phi, frozen=True, kw_only=True):
    id: str | None = None
    family: str | None = None
    given: str | None = None

    def is_same(self, other: Provider) -> bool:
        """Whether both are one: by their ids where both have one, else by both names."""
        if self.id and other.id:
            return self.id == other.id
        names = [tuple((name or "").casefold() for name in (each.family, each.given)) for each in (self, other)]
        return names[0] == names[1] and all(names[0])


class Doubt(Phi, frozen=True, kw_only=True):
    """A question on the patient's death that a message has left to a person (see `Hold`)."""

    root: int
    """The entry that asked (of a replay: the original)."""
    code: str
    location: str
    sender: int
    settled: bool = False
    """A person has said that it is not so."""


class StatedDeath(Phi, frozen=True, kw_only=True):
    """What is known of the patient's death besides how the stays ended."""

    deceased: bool | None = None
    """What messages last said (PID-30; a valued PID-29 says yes), as far as it is believed."""
    deceased_at: Moment | None = None
    """PID-29."""
    by: tuple[int, ...] = ()
    """Senders (`Event.sender`) that say yes: only they may take it back."""
    denied_by: int = 0
    """The sender that last said no."""
    heard: tuple[int, ...] = ()
    """Entries that said that the patient has died, and were believed: one that is replayed later is no news."""
    overruled: tuple[str, ...] = ()
    """Discharges that ended in death, which a person has said not to be so."""
    doubts: tuple[Doubt, ...] = ()

    @property
    def in_doubt(self) -> bool:
        return bool(self.doubts) and any(not one.settled for one in self.doubts)


class AccessRestriction(Phi, frozen=True, kw_only=True):
    """What of the record may not be seen by everybody (segment ARV)."""

    code: str
    """ARV-3, HL7 table 0717."""
    reason: str | None = None
    """ARV-4, HL7 table 0719."""


class ConsentStatement(Phi, frozen=True, kw_only=True):
    """What the patient has said to a use of the record (segment CON)."""

    code: str
    """CON-2, HL7 table 0496."""
    status: str | None = None
    """CON-11, HL7 table 0498: A active, L limited, P pending, R refused, X rescinded, B bypassed."""
    begins: Moment | None = None
    """CON-14."""
    ends: Moment | None = None
    """CON-15."""


class Patient(Phi, frozen=True, kw_only=True):
    """Fields are set by mapping targets `patient.<field>`; each is replaced whole, and each has a stamp of its own."""

    identifiers: tuple[Identifier, ...] = ()
    """The first one is the patient's key."""
    name: Name | None = None
    birth_date: Moment | None = None
    sex: str | None = None
    address: Address | None = None
    phones: tuple[str, ...] = ()
    """E.164."""
    language: str | None = None
    deceased: bool | None = None
    """From what was said of it (`Chart.death_stated`) and from how the stays ended."""
    deceased_at: Moment | None = None
    pcp: Provider | None = None
    lives_alone: bool | None = None
    """PD1-2, or a Z code; none: nobody said."""
    transportation: bool | None = None
    """False: known to have none."""
    active_medications: int | None = None
    merged_from: tuple[str, ...] = ()
    """Keys that became aliases of this patient."""
    links: tuple[str, ...] = ()
    """Keys of other patients whom this one has to do with (A24): a mother, a child."""
    protection: bool | None = None
    """PD1-12: the record is protected; none: nobody said."""
    restrictions: tuple[AccessRestriction, ...] = ()
    consent_statements: tuple[ConsentStatement, ...] = ()
    text_consent: bool | None = None
    """Whether they agree to be texted at their numbers, as registration has it; none: nobody said."""

    @property
    def key(self) -> str:
        return self.identifiers[0].key
