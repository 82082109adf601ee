"""One stay or visit."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from engine.domain.moment import Moment
from engine.domain.patient import Provider
from engine.domain.record import Phi

TOLD_END: Final = "told_end"
"""Stamp of a stay that goes on: an update (A02, A08) says that it has ended, and no discharge has come."""

READMITTING_CLASSES: Final = frozenset({"I", "OBS"})
"""Patient classes (PV1-2, after its code table) of somebody who lies in a bed: a plan waits while the patient does."""

DOUBTFUL_END: Final = "doubtful_end"
"""Stamp of a stay that has ended: the time that was sent can't be true, another one stands in (`care.adt.stay`)."""


class EncounterStatus(StrEnum):
    PLANNED = "planned"
    ACTIVE = "active"
    ON_LEAVE = "on_leave"
    FINISHED = "finished"
    CANCELLED = "cancelled"


class Diagnosis(Phi, frozen=True, kw_only=True):
    code: str
    system: str | None = None
    text: str | None = None
    type: str | None = None
    """DG1-6, HL7 table 0052: A admitting, W working, F final."""


class Procedure(Phi, frozen=True, kw_only=True):
    code: str
    system: str | None = None
    text: str | None = None
    performed_at: Moment | None = None


class Location(Phi, frozen=True, kw_only=True):
    """PV1-3."""

    point_of_care: str | None = None
    room: str | None = None
    bed: str | None = None
    facility: str | None = None


class Encounter(Phi, frozen=True, kw_only=True):
    """Fields are set by mapping targets `encounter.<field>` and by the event; each has a stamp of its own."""

    key: str
    """`AUTHORITY:VISIT`, unique in the store."""
    visit_number: str | None = None
    visit_authority: str | None = None
    """Who gave the number, once a message has said so (PV1-19.4)."""
    class_: str | None = msgspec.field(default=None, name="class")
    """PV1-2 after its code table: I inpatient, O outpatient, E emergency, P pre-admit, R recurring, B obstetrics, OBS
    observation, N none."""
    status: EncounterStatus = EncounterStatus.PLANNED
    location: Location | None = None
    attending: Provider | None = None
    consulting: tuple[Provider, ...] = ()
    """PV1-9."""
    admission_type: str | None = None
    """PV1-4, HL7 table 0007."""
    hospital_service: str | None = None
    """PV1-10."""
    vip: str | None = None
    """PV1-16, HL7 table 0099: a code of the site's for people whose record is restricted."""
    sending_facility: str | None = None
    """MSH-4 of the last message about the stay, where the mapping reads it."""
    admitted_at: Moment | None = None
    discharged_at: Moment | None = None
    disposition: str | None = None
    """PV1-36, normalised to two digits."""
    diagnoses: tuple[Diagnosis, ...] = ()
    procedures: tuple[Procedure, ...] = ()
    time_sources: dict[str, str] = {}
    """Which HL7 field a time came from: {"admitted_at": "PV1-44"}."""
    discharges: int = 0
    """How often this encounter was discharged, cancelled discharges included: part of its tasks' identity."""
    account: str | None = None
    """PID-18, kept to find the encounter when the visit number is absent."""
    prior_location: Location | None = None
    """The place before this one: PV1-6, or what was said before; none after a transfer was cancelled."""
    pending_location: Location | None = None
    """PV1-42 of a pending transfer (A15), until the transfer or its cancel."""
    temporary_location: Location | None = None
    """PV1-11 of a patient who is away from their bed inside the house (A09, A10)."""
    in_transit: bool = False
    """The patient has left one place of the house (A09) and not arrived at the next one."""
    expected_admission_at: Moment | None = None
    """PV2-8."""
    expected_discharge_at: Moment | None = None
    """PV2-9: a plan, never a discharge."""
    discharge_pending: bool = False
    """A16, until the discharge or its cancel."""
    leave_began_at: Moment | None = None
    """Begin of the last leave of absence; whether it goes on, the status says."""
    leave_return_expected_at: Moment | None = None
    """PV2-47 of that leave."""
    merged_into: str | None = None
    """Key of the stay that this one was merged into (A42); it is cancelled then."""
