"""Which appointments are which follow-up: what a protocol says of those that its tasks wait for.

An appointment belongs to a task only where the protocol says so: by who sees the patient, or by a word of what it is
and where.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from engine.domain.patient import Patient, Provider
from engine.yamlmodel import StrictModel

_Word = Annotated[str, Field(pattern=r"^[^\W_][\w &/'.-]*\*?$", max_length=60)]


class Wanted(StrictModel):
    """What a scheduling system is asked for, where a channel delivers `request` to one."""

    service: Annotated[str, Field(min_length=1, max_length=20)]
    """Code of the service (AIS-3), as the scheduling system knows it."""
    text: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Its text; none: what the kind of task is."""
    minutes: Annotated[int, Field(ge=1, le=1440)] | None = None
    """How long the visit is to be; none: as long as such visits are."""
    clinician: Literal["pcp"] | None = None
    """pcp: with the patient's own primary care provider; none: with anybody."""


class AppointedAs(StrictModel):
    """Appointments that are the follow-up of one kind: those for which any of these holds."""

    clinician: Literal["pcp"] | None = None
    """pcp: the patient's own primary care provider sees them."""
    words: Annotated[tuple[_Word, ...], Field(max_length=200)] = ()
    """Words of the service, its type or the place, whole and in a row; case does not matter, and `physio*` is any word
    that begins so."""

    request: Wanted | None = None
    """What a scheduling system is asked for when nothing is booked; none: nothing, people see to it."""

    @model_validator(mode="after")
    def _says_something(self) -> AppointedAs:
        if self.clinician is None and not self.words:
            raise ValueError("says nothing: give words, or clinician: pcp")
        return self


class Appointed:
    """What a protocol says of appointments, by kind of task."""

    def __init__(self, said: Mapping[str, AppointedAs]) -> None:
        self._kinds: Mapping[str, tuple[bool, re.Pattern[str] | None]] = {
            kind: (one.clinician is not None, _pattern(one.words)) for kind, one in said.items()
        }

        self._wanted = {kind: one.request for kind, one in said.items() if one.request is not None}

    def wanted(self, kind: str) -> Wanted | None:
        """What a scheduling system is asked for; none: nothing."""
        return self._wanted.get(kind)

    def __contains__(self, kind: str) -> bool:
        return kind in self._kinds

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def fits(self, kind: str, patient: Patient, *, clinician: Provider | None, texts: Iterable[str | None]) -> bool:
        """Whether a visit is the follow-up of this kind. texts: what it is and where, each by itself."""
        if kind not in self._kinds:
            return False
        by_pcp, words = self._kinds[kind]
        if by_pcp and clinician is not None and patient.pcp is not None and clinician.is_same(patient.pcp):
            return True
        return words is not None and any(words.search(" ".join(_TOKEN.findall(text.lower()))) for text in texts if text)


_TOKEN: Final = re.compile(r"[^\W_]+")


def _pattern(words: Iterable[str]) -> re.Pattern[str] | None:
    parts = []
    for word in words:
        tokens = " ".join(map(re.escape, _TOKEN.findall(word.lower())))
        parts.append(tokens + (r"\w*" if word.endswith("*") else ""))
    return re.compile(rf"\b(?:{'|'.join(parts)})\b") if parts else None
