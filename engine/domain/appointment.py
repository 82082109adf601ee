"""A visit that is booked, or asked for: what a scheduling system says of it (HL7 v2 chapter 10)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

from engine.domain.encounter import Location
from engine.domain.moment import Moment
from engine.domain.patient import Identifier, Provider
from engine.domain.record import Phi


class AppointmentStatus(StrEnum):
    """HL7 table 0278, in the words of the contract."""

    REQUESTED = "requested"
    """Asked for, or on a waiting list: there may be no time yet."""
    BOOKED = "booked"
    ARRIVED = "arrived"
    KEPT = "kept"
    CANCELLED = "cancelled"
    NOSHOW = "noshow"
    ENTERED_IN_ERROR = "entered_in_error"
    """It never was: nobody has missed it."""


class RequestState(StrEnum):
    """How a request for an appointment stands, of those that the engine has made."""

    ASKED = "asked"
    """It is on its way, or nobody knows yet what became of it."""
    SENT = "sent"
    """The scheduling system has it, and has not said what it makes of it."""
    CONFIRMED = "confirmed"
    """The scheduling system has answered with an appointment of its own."""
    REFUSED = "refused"
    """It says no, or could not be asked: a person has to."""
    DROPPED = "dropped"
    """It is not wanted any more. If it has gone out all the same, it is withdrawn."""
    WITHDRAWN = "withdrawn"
    """The scheduling system is told that it is not wanted any more."""


OWN_AUTHORITY: Final = "HANDOFF"
OWN_PREFIX: Final = "HF-"
"""What the numbers of our own requests (SCH-1, ARQ-1) begin with."""

AHEAD: Final = frozenset({AppointmentStatus.REQUESTED, AppointmentStatus.BOOKED, AppointmentStatus.ARRIVED})
"""The patient is still to be seen."""
OFF: Final = frozenset({AppointmentStatus.CANCELLED, AppointmentStatus.NOSHOW, AppointmentStatus.ENTERED_IN_ERROR})
"""Nobody is seen."""


class Coded(Phi, frozen=True, kw_only=True):
    """A code with its text, as it was sent (CWE, CE)."""

    code: str | None = None
    text: str | None = None
    system: str | None = None


class Appointment(Phi, frozen=True, kw_only=True):
    """Fields are set by mapping targets `appointment.<field>` and by the event; each has a stamp of its own.

    What follows from others has none: `status`, `kept_by`, `replaces`, `replaced_by`, `task`.
    """

    id: str
    """Opaque: made from the first number that it was known by."""
    numbers: tuple[Identifier, ...] = ()
    """What schedulers call it: by any of these it is found. type: whose number it is, `filler` (SCH-2), `placer`
    (SCH-1), `schedule` or `visit`. An authority that nobody named is empty."""
    status: AppointmentStatus = AppointmentStatus.BOOKED
    said: AppointmentStatus = AppointmentStatus.BOOKED
    """What the scheduler last said of it. `status` is the same, unless a visit shows that it was kept, or it had not
    begun when it was called missed."""
    said_at: Moment | None = None
    """When the scheduler said it."""
    starts_at: Moment | None = None
    """With the precision that was sent; none: there is no time yet."""
    ends_at: Moment | None = None
    earliest: Moment | None = None
    """Of one without a time: the range in which it is wanted, as waiting lists send it. It is no time of a visit."""
    latest: Moment | None = None
    service: Coded | None = None
    location: Location | None = None
    clinician: Provider | None = None
    type: Coded | None = None
    """SCH-8, HL7 table 0277."""
    reason: Coded | None = None
    """SCH-7, HL7 table 0276."""
    visit: str | None = None
    """Key of the encounter that the visit is, where the scheduler gives its number (PV1-19)."""
    opened_by: str | None = None
    """Trigger event of the oldest message about it: a new number that begins with S13 is an old one's new time."""
    opened_at: datetime | None = None
    """When that message was written."""
    told_by: str | None = None
    """What said the status: an event and a field (`S14 SCH-25`)."""
    kept_by: str | None = None
    """Key of the encounter that shows that it was kept, where the scheduler has not said so."""
    unheard_at: datetime | None = None
    """When it was noted that its day has passed and nobody has said whether it was kept."""
    replaces: str | None = None
    """Id of the appointment that this one is the new time of."""
    replaced_by: str | None = None
    task: str | None = None
    """Id of the follow-up task that it is for."""
    request: RequestState | None = None
    """How our request for it stands; none: it was booked by others."""
    requested_for: str | None = None
    """Id of the task that we have requested it for."""
