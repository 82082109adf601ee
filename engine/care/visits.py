"""Visits as a protocol names them: what shows that a task is done (`engine.care.proofs`)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from engine.care.spans import Span
from engine.domain.chart import Chart
from engine.domain.encounter import Encounter
from engine.yamlmodel import StrictModel

_Code = Annotated[str, Field(min_length=1, max_length=50)]


class Visit(StrictModel):
    """A visit that shows that a task is done: all that is said must hold."""

    classes: Annotated[tuple[_Code, ...], Field(min_length=1)]
    """Patient classes (PV1-2 after its table): one of them."""
    services: tuple[_Code, ...] = ()
    """Hospital services (PV1-10): one of them; none: any, and none."""
    units: tuple[_Code, ...] = ()
    """Points of care (PV1-3.1): one of them; none: any, and none."""
    clinician: Literal["pcp"] | None = None
    """The attending doctor (PV1-7) is the patient's primary care provider; none: anybody."""
    within: Span | None = None
    """At most so long after the discharge; none: as long as the task stands."""

    def is_one(self, visit: Encounter, chart: Chart) -> bool:
        if visit.class_ not in self.classes:
            return False
        if self.services and visit.hospital_service not in self.services:
            return False
        if self.units and (visit.location is None or visit.location.point_of_care not in self.units):
            return False
        if self.clinician is None:
            return True
        pcp, doctor = chart.patient.pcp, visit.attending
        return pcp is not None and doctor is not None and pcp.id is not None and pcp.id == doctor.id

    @property
    def fields(self) -> dict[str, str]:
        """What it looks at: field of the encounter -> HL7 field."""
        return {
            "class_": "PV1-2",
            **({"hospital_service": "PV1-10"} if self.services else {}),
            **({"location": "PV1-3"} if self.units else {}),
            **({"attending": "PV1-7"} if self.clinician is not None else {}),
        }
