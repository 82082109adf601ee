"""Medicines of a patient, as prescriptions and lists name them: nothing of it is worked out."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from engine.domain.record import Phi


class MedicationList(StrEnum):
    HOME = "home"
    """What was taken before an admission."""
    DISCHARGE = "discharge"
    """What is to be taken from a discharge on."""


class MedicationState(StrEnum):
    ACTIVE = "active"
    HELD = "held"
    """Not to be taken for now."""
    STOPPED = "stopped"
    """Somebody has said so."""


class Medication(Phi, frozen=True, kw_only=True, omit_defaults=True):
    """One prescription, or one line of a list, with its words as they were sent.

    On which list a prescription stands follows from when it was written (`care.medications.lists`).
    """

    id: str
    """Opaque: a keyed hash of the number of its order at its sender; or of the line that a person has written."""
    text: str
    """The medicine in the words of who named it, with its strength where they hold it."""
    written_at: datetime
    """When the order was given, as its sender says."""
    said_at: datetime
    """When the words and the state here were said: what was said before does not turn them back."""
    state: MedicationState = MedicationState.ACTIVE
    outpatient: bool | None = None
    """ORC-29; none: not said."""
    on: MedicationList | None = None
    """Of a line that a person has written: its list."""
    encounter: str | None = None
    """Key of the stay, of such a line."""
    code: str | None = None
    system: str | None = None
    """Of `code`, as it was sent: `NDC`, `RXNORM`, that of the site."""
    strength: str | None = None
    """`75 mg`, where it is said apart."""
    amount: str | None = None
    """How much at a time, with its unit: `1 tablet`, `40 mg`."""
    form: str | None = None
    route: str | None = None
    frequency: str | None = None
    """As a code: `BID`, `Q6H`."""
    directions: tuple[str, ...] = ()
    """In words."""
    order: str | None = None
    """Number of the order, as people know it."""
    filled_at: datetime | None = None
    """When a pharmacy gave it out last."""
    entry: int | None = None
    """That said so."""
    location: str | None = None
    """HL7 field of `text`."""
