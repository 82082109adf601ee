"""The worksheet of a breach (45 CFR 164.400-414): whom to tell until when, by what is known of it. Pure.

A use or disclosure that was not permitted is presumed to be a breach until an assessment of four factors says that the
patient data were compromised with a low probability only (164.402(2)). Rules: `mappings/privacy/breach.yaml`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from engine.domain.record import Phi, Record
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate

_Text = Annotated[str, Field(min_length=1, max_length=500)]
_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_Days = Annotated[int, Field(ge=1, le=366)]
UNKNOWN: Final = "?"
"""State of who has no address, or none in a state."""


class Whom(StrEnum):
    """Who has to be told."""

    PATIENTS = "patients"
    HHS = "hhs"
    MEDIA = "media"
    LOG = "log"
    """HHS, with the yearly log of smaller breaches."""
    COVERED_ENTITY = "covered_entity"


class LawSpec(StrictModel):
    """What the rule says of one who has to be told."""

    says: _Text
    """In words."""
    law: _Text
    """Where it says so."""


class BreachFile(StrictModel):
    """Whom to tell of a breach, until when, and what its assessment asks."""

    version: _Text
    """Of the rules; it stands on each worksheet."""
    notice_days: _Days = 60
    """Calendar days after it was known in which patients, HHS (of a large one) and media are told at the latest."""
    hhs_people_min: Annotated[int, Field(ge=1)] = 500
    """People from which on HHS is told at once; of fewer with the yearly log."""
    media_residents_over: Annotated[int, Field(ge=1)] = 500
    """More residents of one state than this: media there have to be told."""
    log_days: _Days = 60
    """Days after the end of the year for the log."""
    oral_delay_days: _Days = 30
    """Longest delay that law enforcement can ask for orally."""
    keep_years: Annotated[int, Field(ge=6, le=50)] = 6
    """For so long all of it is kept."""
    warn_days: _Days = 14
    """Days before a notice is due from which on `status` says so."""
    factors: Annotated[dict[_Name, _Text], Field(min_length=4, max_length=4)]
    """Name -> what the assessment asks. The four of the rule."""
    exceptions: dict[_Name, LawSpec]
    """Name -> what is no breach although it was not permitted."""
    told: dict[Whom, LawSpec]
    """What each notice is."""

    @model_validator(mode="after")
    def _whole(self) -> BreachFile:
        if missing := [one.value for one in Whom if one not in self.told]:
            raise ValueError(f"told: {missing[0]} is missing")
        return self


def load_breach(document: Document) -> BreachFile:
    """Raises SettingsError."""
    return validate(document, BreachFile)


class Assessment(Phi, frozen=True, kw_only=True):
    """What was found, factor by factor."""

    on: date
    by: str
    factors: dict[str, str]
    finding: Literal["breach", "low"]
    """low: the probability that the data were compromised is low."""
    exception: str | None = None
    """Of the rules, when it is one."""


class Given(Phi, frozen=True, kw_only=True):
    """A notice that was given."""

    whom: Whom
    on: date
    by: str
    state: str | None = None
    """Of media."""
    note: str | None = None


class Delay(Phi, frozen=True, kw_only=True):
    """Law enforcement has said that a notice would hinder it (164.412)."""

    until: date
    by: str
    """Who has said so."""
    oral: bool = False


class Worksheet(Phi, frozen=True, kw_only=True):
    """All that is known of one, and what was done."""

    number: int
    what: str
    opened_on: date
    opened_by: str
    known_on: date
    """When it was known, or should have been."""
    happened_on: date | None = None
    role: Literal["covered_entity", "business_associate"] = "covered_entity"
    recipient: str | None = None
    """Who outside has got the data; none: nobody outside."""
    charts: tuple[str, ...] = ()
    residents: dict[str, int] = {}
    """The patients of the charts, by state of residence."""
    others: dict[str, int] = {}
    """People besides, by state."""
    assessment: Assessment | None = None
    delays: tuple[Delay, ...] = ()
    given: tuple[Given, ...] = ()
    closed_on: date | None = None
    closed_by: str | None = None
    because: str | None = None

    @property
    def people(self) -> int:
        return len(self.charts) + sum(self.others.values())

    @property
    def by_state(self) -> dict[str, int]:
        return dict(sorted((Counter(self.residents) + Counter(self.others)).items()))

    @property
    def is_breach(self) -> bool:
        """Presumed until an assessment says otherwise."""
        return self.assessment is None or self.assessment.finding == "breach"


class Duty(Record, frozen=True, kw_only=True):
    """Who has to be told until when. state: of media. done: when they were."""

    whom: Whom
    due: date
    says: str
    law: str
    number: int
    state: str | None = None
    done: date | None = None
    late: bool = False
    """It was told too late."""


def duties(sheet: Worksheet, rules: BreachFile) -> tuple[Duty, ...]:
    """In the order of their due dates. None: it is no breach."""
    return tuple(sorted(_duties(sheet, rules), key=lambda one: (one.due, one.whom, one.state or "")))


def _duties(sheet: Worksheet, rules: BreachFile) -> Iterator[Duty]:
    if not sheet.is_breach:
        return
    due = max([sheet.known_on + timedelta(days=rules.notice_days), *(one.until for one in sheet.delays)])
    if sheet.role == "business_associate":
        yield _duty(sheet, rules, Whom.COVERED_ENTITY, due, sheet.people)
        return
    yield _duty(sheet, rules, Whom.PATIENTS, due, sheet.people)
    if sheet.people >= rules.hhs_people_min:
        yield _duty(sheet, rules, Whom.HHS, due, sheet.people)
    else:
        year_end = date(sheet.known_on.year, 12, 31)
        yield _duty(sheet, rules, Whom.LOG, year_end + timedelta(days=rules.log_days), sheet.people)
    for state, number in sheet.by_state.items():
        if state != UNKNOWN and number > rules.media_residents_over:
            yield _duty(sheet, rules, Whom.MEDIA, due, number, state)


def _duty(sheet: Worksheet, rules: BreachFile, whom: Whom, due: date, number: int, state: str | None = None) -> Duty:
    done = next((one.on for one in sheet.given if one.whom is whom and one.state == state), None)
    said = rules.told[whom]
    return Duty(
        whom=whom, due=due, says=said.says, law=said.law, number=number, state=state, done=done,
        late=done is not None and done > due,
    )  # fmt: skip


def next_due(sheet: Worksheet, rules: BreachFile) -> date | None:
    """Of what has not been done yet; none: nothing is due, or it is closed."""
    if sheet.closed_on is not None:
        return None
    return min((one.due for one in duties(sheet, rules) if one.done is None), default=None)


def keep_until(sheet: Worksheet, rules: BreachFile) -> date | None:
    """None: it is not closed yet."""
    if (day := sheet.closed_on) is None:
        return None
    try:
        return day.replace(year=day.year + rules.keep_years)
    except ValueError:  # 29 February
        return date(day.year + rules.keep_years, 3, 1)


def missing(sheet: Worksheet, rules: BreachFile) -> list[str]:
    """Why it can't be closed; empty: it can."""
    if sheet.assessment is None:
        return ["there is no assessment of the four factors"]
    undone = [one for one in duties(sheet, rules) if one.done is None]
    return [f"{one.whom}{f' of {one.state}' if one.state else ''} have not been told (due {one.due})" for one in undone]


def state_of(sheet: Worksheet, rules: BreachFile) -> str:
    """`open`, `assessed`, `notified` or `closed`."""
    if sheet.closed_on is not None:
        return "closed"
    if sheet.assessment is None:
        return "open"
    return "assessed" if missing(sheet, rules) else "notified"


def delay_problem(delay: Delay, today: date, rules: BreachFile) -> str | None:
    """Why a delay does not hold."""
    longest = today + timedelta(days=rules.oral_delay_days)
    if delay.oral and delay.until > longest:
        return f"what was said orally holds for {rules.oral_delay_days} days, until {longest}; longer in writing only"
    return None


def assessment_problems(factors: Mapping[str, str], rules: BreachFile) -> list[str]:
    return [f"the factor {one} is not answered: {rules.factors[one]}" for one in rules.factors if not factors.get(one)]
