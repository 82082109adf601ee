"""What registration sends: one case's chart as it stands, and the ADT messages that its steps make of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from random import Random
from typing import Final

from engine.simulator.pathways import Book, Pathway, Reason, Step, Unit
from engine.simulator.people import Person, Population

STRUCTURES: Final = {
    "A01": "ADT_A01", "A02": "ADT_A02", "A03": "ADT_A03", "A04": "ADT_A01", "A05": "ADT_A05", "A08": "ADT_A01",
    "A11": "ADT_A09", "A13": "ADT_A01", "A28": "ADT_A05", "A31": "ADT_A05", "A40": "ADT_A39",
}  # fmt: skip
"""MSH-9.3 (HL7 v2.5.1, table 0354)."""

_MOVEMENTS: Final = frozenset({"A01", "A02", "A03", "A04", "A11", "A13"})
_WITH_KIN: Final = frozenset({"A01", "A04", "A05", "A28"})
_WITHOUT_VISIT: Final = frozenset({"A28", "A31"})
_CHANGES: Final = ("phone", "phone", "address", "pcp", "name", "phone-gone")


@dataclass(slots=True, kw_only=True)
class Case:
    """One person on one pathway: what the hospital's registration knows at the moment."""

    index: int
    pathway: Pathway
    person: Person
    itinerary: list[tuple[int, Step]]
    """Each step with its second since the first."""
    reason: Reason
    attending: str
    visit_number: str
    account: str
    duplicate: str
    """A second record number of the same person."""
    class_: str
    next_step: int = 0
    location: str = ""
    prior_location: str = ""
    service: str = ""
    admitted_at: int | None = None
    discharged_at: int | None = None
    disposition: str = ""
    diagnoses: tuple[str, list[Reason]] = ("", [])
    """DG1-6, and what is coded so far."""


class Registration:
    """Applies a step to a case and writes the message that announces it. Times are seconds since the day began."""

    def __init__(self, book: Book, population: Population, random: Random, day: date) -> None:
        self._book = book
        self._population = population
        self._random = random
        self.stamp = stamper(day)
        hospital = book.hospital
        self._sender = f"MSH|^~\\&|{hospital.application}|{hospital.facility}"
        self._receiver = f"{hospital.receiving_application}|{hospital.receiving_facility}"
        self._version = f"P|{hospital.version}||||||UNICODE UTF-8"

    def apply(self, case: Case, step: Step, at: int) -> None:
        """What happens to the case."""
        event = step.event
        if step.class_ is not None:
            case.class_ = step.class_
        if event in {"A01", "A04", "A05", "A02"}:
            unit = step.unit or case.pathway.unit
            if unit is not None:
                case.prior_location, case.location = case.location, self._bed(self._book.units[unit], case.location)
                if event != "A02":
                    case.service = self._book.units[unit].service
        if event in {"A01", "A04"}:
            case.admitted_at = at
        elif event == "A03":
            case.discharged_at = at
            case.disposition = self._book.disposition_mixes[step.disposition or ""].draw(self._random)
            if case.disposition == "20":
                case.person.deceased_at = at
        elif event == "A13":
            case.discharged_at, case.disposition = None, ""
        if step.diagnoses != "none":
            case.diagnoses = self._coded(case, step.diagnoses)
        if step.change is not None:
            self._change(case.person, step.change, at)

    def message(self, case: Case, step: Step, at: int, control_id: str) -> bytes:
        """The message of the step that was applied last."""
        random, person, event = self._random, case.person, step.event
        quirks = self._book.quirks
        recorded = self.stamp(at)
        occurred = ""
        if event in _MOVEMENTS and random.random() >= quirks.occurred_time_missing:
            occurred = self.stamp(at - int(random.random() * 90))
        record_number = case.duplicate if step.identity == "duplicate" else person.record_number
        authority, facility = self._book.hospital.authority, self._book.hospital.facility
        died = "" if person.deceased_at is None else f"|||||||||||{self.stamp(person.deceased_at)}|Y"
        kin = event in _WITH_KIN
        phones = "~".join(filter(None, (person.home, person.mobile)))
        patient = (
            f"PID|1||{record_number}^^^{authority}^MR~{person.national_id}^^^USSSA^SS||{person.name}"
            f"||{person.birth_date}|{person.sex}|||{person.address}||{phones}||{person.language}|{person.marital}"
            f"||{case.account}^^^{authority}^AN{died}"
        )
        lines = [
            f"{self._sender}|{self._receiver}|{recorded}||ADT^{event}^{STRUCTURES[event]}|{control_id}|{self._version}",
            f"EVN||{recorded}|||REG{case.index % 23:02d}^Registrar|{occurred}|{facility}",
            patient,
            f"PD1||{person.living}||{person.pcp}",
        ]
        if event == "A40":
            lines.append(f"MRG|{case.duplicate}^^^{authority}^MR||{case.account}^^^{authority}^AN||||{person.name}")
        else:
            if kin:
                lines.append(f"NK1|1|{person.kin}")
            if event in _WITHOUT_VISIT:
                lines.append("PV1|1|N")
            else:
                lines.append(self._visit(case, step))
                if event in {"A01", "A04", "A05"}:
                    lines.append(f"PV2|||{case.reason.code}^{case.reason.text}^I10")
                if event != "A02":
                    kind, codes = case.diagnoses
                    coded = self.stamp(at)
                    lines.extend(
                        f"DG1|{number}||{code.code}^{code.text}^I10||{coded}|{kind}|||||||||{min(number, 2)}"
                        for number, code in enumerate(codes, start=1)
                    )
            if kin or step.change == "insurance":
                lines.append(f"IN1|1|{person.insurer}")
        lines.append("")
        return "\r".join(lines).encode()

    def _visit(self, case: Case, step: Step) -> str:
        random, quirks, authority = self._random, self._book.quirks, self._book.hospital.authority
        pathway = case.pathway
        admitted = discharged = disposition = ""
        if case.admitted_at is not None and not (step.event == "A01" and random.random() < quirks.admit_time_missing):
            admitted = self.stamp(case.admitted_at)
        if case.discharged_at is not None:
            if not (step.event == "A03" and random.random() < quirks.discharge_time_missing):
                discharged = self.stamp(case.discharged_at)
            disposition = case.disposition
            if disposition[:1] == "0" and random.random() < quirks.disposition_one_digit:
                disposition = disposition[1:]
        prior = case.prior_location if step.event == "A02" else ""
        source = "" if pathway.admit_source is None else pathway.admit_source
        return (
            f"PV1|1|{case.class_}|{case.location}|{pathway.admission_type}||{prior}|{case.attending}|||{case.service}||||{source}"
            f"|||{case.attending}|{pathway.patient_type}|{case.visit_number}^^^{authority}^VN|||||||||||||||||{disposition}"
            f"||||||||{admitted}|{discharged}"
        )

    def _bed(self, unit: Unit, current: str) -> str:
        """A bed of the unit, another one than the current."""
        random = self._random
        while True:
            name = unit.names[int(random.random() * len(unit.names))]
            room, bed = 1 + int(random.random() * unit.rooms), 1 + int(random.random() * unit.beds)
            location = f"{name}^{room:02d}^{bed}^{self._book.hospital.facility}"
            if location != current:
                return location

    def _coded(self, case: Case, stage: str) -> tuple[str, list[Reason]]:
        """Coding follows the stay: the reason first, everything only when it is final, often after the discharge."""
        if stage == "admitting":
            return "A", [case.reason]
        known = case.person.comorbidities
        if stage == "working":
            return "W", [case.reason, *known[: (len(known) + 1) // 2]]
        return "F", [case.reason, *known]

    def _change(self, person: Person, change: str, at: int) -> None:
        random, population = self._random, self._population
        if change == "any":
            change = _CHANGES[int(random.random() * len(_CHANGES))]
        if change == "phone":
            person.mobile = population.phone(random, 914, "PRN^CP")
        elif change == "phone-gone":
            person.home, person.mobile = '""', ""  # the explicit null: what was known is no longer true
        elif change == "address":
            population.moved(random, person)
        elif change == "pcp":
            person.pcp = population.another_practice(random)
        elif change == "name":
            person.family = population.another_family_name(random)
        elif change == "death":
            person.deceased_at = at - int(random.random() * 86_400)


def stamper(day: date) -> Callable[[int], str]:
    """Seconds since the day began (negative before it) as an HL7 time to the second, in the hospital's wall clock."""
    midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001 - a wall clock has no zone; the channel knows it

    @lru_cache(maxsize=1 << 14)
    def minute(number: int) -> str:
        return (midnight + timedelta(minutes=number)).strftime("%Y%m%d%H%M")

    def stamp(seconds: int) -> str:
        minutes, rest = divmod(seconds, 60)
        return f"{minute(minutes)}{rest:02d}"

    return stamp
