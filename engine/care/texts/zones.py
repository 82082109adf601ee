"""The zone where a patient lives: by the address, else that of the hospital. Never by the telephone number: people keep
theirs when they move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from engine.domain.patient import Address
from engine.errors import Problem
from engine.settings.values import _check_zone
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate

_Text = Annotated[str, Field(min_length=1, max_length=500)]
_State = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
_Prefix = Annotated[str, Field(pattern=r"^[0-9]{1,5}$")]
_Range = Annotated[str, Field(pattern=r"^[0-9]{3}(-[0-9]{3})?$")]
_COUNTRIES: Final = frozenset({"", "US", "USA", "UNITED STATES", "UNITED STATES OF AMERICA"})


class StateSpec(StrictModel):
    """A state, and its zones."""

    name: _Text
    """Name in full, as some systems send it."""
    zone: _Text
    """IANA zone of most of it."""
    zip: Annotated[tuple[_Range, ...], Field(max_length=20)] = ()
    """First three digits of its ZIP codes, as ranges: the state of an address that names none."""
    other: dict[_Text, Annotated[tuple[_Prefix, ...], Field(min_length=1, max_length=200)]] = {}
    """Another zone -> beginnings of ZIP codes that are in it. The longest that fits counts."""

    @field_validator("zone")
    @classmethod
    def _is_zone(cls, name: str) -> str:
        return _check_zone(name)

    @field_validator("other")
    @classmethod
    def _are_zones(cls, other: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name in other:
            _check_zone(name)
        return other


class ZonesFile(StrictModel):
    """Zones by address."""

    zones: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    """Name of the table."""
    version: _Text
    """Version of this file, as text."""
    source: _Text
    """Where the zones come from."""
    checked: date
    """When somebody last compared them."""
    states: Annotated[dict[_State, StateSpec], Field(min_length=1)]
    """State -> its zones."""


@dataclass(frozen=True, slots=True)
class Zones:
    names: Mapping[str, str]
    """Code or name of a state -> its code."""
    zones: Mapping[str, ZoneInfo]
    """State -> the zone of most of it."""
    others: Mapping[str, Mapping[str, ZoneInfo]]
    """State -> beginning of a ZIP code -> its zone."""
    by_zip: Mapping[str, str]
    """First three digits of a ZIP code -> state."""

    def state_of(self, address: Address | None) -> str | None:
        """The state of an address, as two letters; none: it tells none, or is abroad."""
        if address is None or (address.country or "").strip().upper() not in _COUNTRIES:
            return None
        said = " ".join((address.state or "").upper().replace(".", "").split())
        return self.names.get(said) if said else self.by_zip.get(_zip(address)[:3])

    def zone_of(self, address: Address | None, hospital: ZoneInfo) -> ZoneInfo:
        """hospital: the zone of the facility, where the address does not tell."""
        state = self.state_of(address)
        if state is None or address is None:
            return hospital
        code = _zip(address)
        others = self.others.get(state, {})
        found = next((others[code[:chars]] for chars in range(len(code), 0, -1) if code[:chars] in others), None)
        return found or self.zones[state]


def _zip(address: Address) -> str:
    digits = (address.postal_code or "").strip()[:5]
    return digits if digits.isdecimal() and digits.isascii() and len(digits) >= 3 else ""


NO_ZONES: Final = Zones({}, {}, {}, {})
"""Where a site has no table: everybody lives where the hospital is."""


def load_zones(document: Document, problems: list[Problem]) -> Zones:
    """Raises SettingsError."""
    spec = validate(document, ZonesFile)
    names: dict[str, str] = {}
    by_zip: dict[str, str] = {}
    for state, said in spec.states.items():
        names |= {state: state, said.name.upper(): state}
        for index, text in enumerate(said.zip):
            first, _, last = text.partition("-")
            for number in range(int(first), int(last or first) + 1):
                if (other := by_zip.setdefault(f"{number:03}", state)) != state:
                    place = ("states", state, "zip", index)
                    problems.append(document.problem(place, f"{number:03} is among those of {other}, too"))
    others = {
        state: {prefix: ZoneInfo(zone) for zone, prefixes in said.other.items() for prefix in prefixes}
        for state, said in spec.states.items()
        if said.other
    }
    zones = {state: ZoneInfo(said.zone) for state, said in spec.states.items()}
    return Zones(names, zones, others, by_zip)
