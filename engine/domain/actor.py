"""Who acts: what is done is on record with it, and what may be done depends on it."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from engine.domain.record import Record

Kind = Literal["user", "person", "service", "system"]


class Actor(Record, frozen=True, kw_only=True):
    """kind: `user`: of the operating system, on a site without `access`; `person`, `service`: of an account; `system`:
    the engine itself.
    """

    kind: Kind
    name: str
    roles: frozenset[str] = frozenset()
    units: frozenset[str] = frozenset()
    """Points of care (PV1-3.1) whose patients are theirs."""
    provider: str | None = None
    """Their id as senders write it (PV1-7.1, PD1-4.1)."""
    panels: frozenset[str] = frozenset()
    """Ids of primary care providers whose patients are theirs, too: those of a practice."""
    also: frozenset[str] = frozenset()
    """What rosters and tasks call them."""
    scopes: frozenset[str] | None = None
    """What their token is limited to; none: they came without one."""

    keeper: bool = False
    """They keep the keys of the site: who could do so without us may look after accounts, keys and the database."""

    @property
    def names(self) -> frozenset[str]:
        return self.also | {self.name}

    def __str__(self) -> str:
        """As the audit, the acts and the decisions keep it."""
        return self.name


class Purpose(StrEnum):
    """What somebody looks at a patient for: HL7 PurposeOfUse."""

    TREAT = "TREAT"
    ETREAT = "ETREAT"
    """Emergency treatment."""
    HOPERAT = "HOPERAT"
    """Operations of the organisation."""
    HPAYMT = "HPAYMT"
    """Payment."""
    BTG = "BTG"
    """The glass was broken."""
    PATRQT = "PATRQT"
    """The patient asked for it."""
    HCOMPL = "HCOMPL"
    """Oversight: privacy, law, accreditation."""
