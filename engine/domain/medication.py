"""Medicines of a patient, as lists and prescriptions name them: nothing of it is worked out."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from engine.domain.record import Phi


class MedicationList(StrEnum):
    """Which list a medicine stands on."""

    HOME = "home"
    """Taken before the admission."""
    INPATIENT = "inpatient"
    """Given in hospital; no list that is reconciled."""
    DISCHARGE = "discharge"
    """To be taken from the discharge on."""


class MedicationState(StrEnum):
    ACTIVE = "active"
    HELD = "held"
    """Not to be taken for now."""
    STOPPED = "stopped"
    """Somebody has said so."""


class Medication(Phi, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a list, with its words as they were sent."""

    id: str
    """Opaque: of the order at its sender, or of the line that a person has written."""
    on: MedicationList
    state: MedicationState = MedicationState.ACTIVE
    text: str
    """The medicine in the words of the list, with its strength where they hold it."""
    code: str | None = None
    system: str | None = None
    """Of `code`, as it was sent: `NDC`, `RXNORM`, that of the site."""
    strength: str | None = None
    """`75 mg`, where it is said apart."""
    amount: str | None = None
    """How much at a time, with its unit: `1 tablet`, `40 mg`, `1-2 puffs`."""
    form: str | None = None
    route: str | None = None
    frequency: str | None = None
    """As a code: `BID`, `Q6H`."""
    directions: tuple[str, ...] = ()
    """In words."""
    order: str | None = None
    """Number of the order, as people know it."""
    encounter: str | None = None
    """Key of the stay that it belongs to."""
    said_at: datetime
    filled_at: datetime | None = None
    """When it was last given out by a pharmacy."""
    entry: int | None = None
    """That said so last; none: one of before."""
    location: str | None = None
    """HL7 field of `text`."""
