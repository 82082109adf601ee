"""What a discharge disposition (PV1-36, NUBC FL17) calls for: `mappings/care/dispositions.yaml`, compiled.

A blank or unknown code never means home: it holds the plan until a person has decided.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, model_validator

from engine.domain.record import Phi
from engine.errors import Problem, SettingsError
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate


class Action(StrEnum):
    HOME_PLAN = "home_plan"
    TRANSFER = "transfer"
    """To another acute hospital: the episode goes on there, no plan."""
    FACILITY = "facility"
    """Somebody else's plan begins; the home plan starts at the facility's own discharge."""
    AGAINST_ADVICE = "against_advice"
    NOT_A_DISCHARGE = "not_a_discharge"
    """The patient is still here: the transition is rejected."""
    DEATH = "death"
    HOSPICE = "hospice"
    CONFLICT = "conflict"
    """Code systems disagree on what the code means: hold for a person."""
    UNKNOWN = "unknown"
    """Hold for a person."""


_HELD: Final = frozenset({Action.CONFLICT, Action.UNKNOWN})
_ALIVE: Final = frozenset({Action.HOME_PLAN, Action.TRANSFER, Action.FACILITY, Action.AGAINST_ADVICE, Action.HOSPICE})
_BLANK: Final = "no disposition was sent"
_UNLISTED: Final = "the disposition sent is not in the table"
_Code = Annotated[str, Field(pattern=r"^[0-9A-Z]{1,16}$")]


class Disposition(Phi, frozen=True, kw_only=True):
    """A disposition and what it calls for. `code` is as sent, normalised; none: it was blank."""

    code: str | None
    acts_as: str | None
    """The code whose rules apply: for a planned-readmission code (81-95) its twin."""
    meaning: str
    action: Action
    planned_readmission: bool = False
    """The return is planned and does not count in the readmission metric."""
    hold_reason: str | None = None
    """Why a person must decide before anything is planned."""


class _Entry(StrictModel):
    """One discharge disposition."""

    meaning: Annotated[str, Field(min_length=1)] | None = None
    """What the code means, in words."""
    action: Action | None = None
    """What it calls for: an action of the protocol's plans, or `death`, `not_a_discharge`."""
    hold: Annotated[str, Field(min_length=1)] | None = None
    """With conflict and unknown: why a person must decide."""
    twin: _Code | None = None
    """The code that this one is, with a planned readmission."""

    @model_validator(mode="after")
    def _shape(self) -> _Entry:
        if self.twin is not None:
            if self.meaning or self.action or self.hold:
                raise ValueError("a twin takes meaning and action from the code it names")
        elif self.meaning is None or self.action is None:
            raise ValueError("needs meaning and action, or a twin")
        elif (self.action in _HELD) != (self.hold is not None):
            raise ValueError("hold says why a person must decide: given for conflict and unknown, and only there")
        return self


class _Spec(StrictModel):
    """What each discharge disposition (PV1-36) calls for. A code that is not listed asks a person."""

    source: Annotated[str, Field(min_length=1)]
    """Where the codes come from."""
    codes: Annotated[dict[_Code, _Entry], Field(min_length=1)]
    """Code -> entry."""


class Dispositions:
    """The site's table."""

    def __init__(self, table: dict[str, Disposition]) -> None:
        self._table = table
        self.deaths = _codes(table, frozenset({Action.DEATH}))
        """Codes, normalised, that say that the patient has died."""
        self.left_alive = _codes(table, _ALIVE)

    @property
    def codes(self) -> tuple[str, ...]:
        """All codes of the table, in its order."""
        return tuple(self._table)

    def knows(self, code: str | None) -> bool:
        """Whether the table has a code, as it was sent; a blank one is none that it could lack."""
        text = normalise(code)
        return text is None or text in self._table

    def of_channel(self, code: str | None, blank: str) -> Disposition:
        """The same as `of`, where the channel says what a blank one means: `hold`, `home` or `none`."""
        if blank == "hold" or normalise(code) is not None:
            return self.of(code)
        return self.of(_HOME) if blank == "home" else _NOTHING

    def means_death(self, code: str | None) -> bool:
        """code: as it was sent."""
        return normalise(code) in self.deaths

    def of(self, code: str | None) -> Disposition:
        """What a code, as it was sent, calls for. Never raises."""
        text = normalise(code)
        if text is None:
            return Disposition(code=None, acts_as=None, meaning="blank", action=Action.UNKNOWN, hold_reason=_BLANK)
        known = self._table.get(text)
        if known is None:
            return Disposition(code=text, acts_as=text, meaning="unknown", action=Action.UNKNOWN, hold_reason=_UNLISTED)
        return known


_HOME: Final = "01"
_NOTHING: Final = Disposition(
    code="blank", acts_as=None, meaning="blank: the channel plans nothing then", action=Action.TRANSFER
)


def _codes(table: dict[str, Disposition], actions: frozenset[Action]) -> frozenset[str]:
    return frozenset(code for code, disposition in table.items() if disposition.action in actions)


def normalise(code: str | None) -> str | None:
    """`1` is `01`; blank and HL7's explicit null are None."""
    text = code.strip().upper() if code else ""
    if text in {"", '""'}:
        return None
    return text.zfill(2) if text.isdecimal() and text.isascii() else text


def load_dispositions(document: Document) -> Dispositions:
    """Raises SettingsError."""
    spec = validate(document, _Spec)
    problems: list[Problem] = []
    table: dict[str, Disposition] = {}
    for code, entry in spec.codes.items():
        if normalise(code) != code:
            problems.append(document.problem(("codes", code), "codes are written with two digits (01)"))
        twin = spec.codes.get(entry.twin) if entry.twin is not None else entry
        if twin is None or twin.meaning is None or twin.action is None:
            problems.append(document.problem(("codes", code, "twin"), "names no code of this table that has an action"))
            continue
        table[code] = Disposition(
            code=code,
            acts_as=entry.twin or code,
            meaning=twin.meaning,
            action=twin.action,
            planned_readmission=entry.twin is not None,
            hold_reason=twin.hold,
        )
    if problems:
        raise SettingsError(tuple(problems))
    return Dispositions(table)
