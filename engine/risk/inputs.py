"""What risk models are fed with, and how it is read from a chart.

A missing input is None and never counts as 0. How a chart is read (acuity codes, classes that count as an admission,
codes that prove living alone) is the table `mappings/care/risk-inputs.yaml`.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from calendar import monthrange
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated, Any, Final

from pydantic import Field, model_validator

from engine.domain.age import AGE_YEARS_MAX, age_range
from engine.domain.chart import Chart, Days
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.moment import to_micros
from engine.domain.record import Phi
from engine.errors import HandoffError
from engine.risk.icd import Pattern, PrefixTable
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate

_MICROSECOND: Final = timedelta(microseconds=1)
_COUNT_MAX: Final = 100_000
_DIAGNOSES_MAX: Final = 10_000


class RiskInputs(Phi, frozen=True, kw_only=True):
    """The inputs of all models. None: missing."""

    age: tuple[int, int] | None = None
    """The youngest and the oldest that the patient can be on the index date, in whole years: equal when the birth date
    is known to the day."""
    diagnoses: tuple[str, ...] | None = None
    """ICD-10 codes; an empty tuple: there are none."""
    admissions_12m: int | None = None
    ed_visits_6m: int | None = None
    los_days: int | None = None
    """Length of stay as a person gives it; a model takes it as it is."""
    los_midnights: int | None = None
    """Length of stay as read from a chart; a model counts days from it by its own rule."""
    acute: bool | None = None
    charlson: int | None = None
    """The comorbidity sum in the weights of the model that uses it; none: it is worked out from the diagnoses."""
    lives_alone: bool | None = None
    no_transportation: bool | None = None
    active_medications: int | None = None
    haemoglobin_g_dl: float | None = None
    """The last result before the discharge, as the sodium."""
    sodium_mmol_l: float | None = None
    oncology: bool | None = None
    """Discharged from an oncology service."""
    procedure: bool | None = None
    """Any was coded during the stay."""
    elective: bool | None = None


class InputsError(HandoffError):
    """Inputs that a person gave can't be used. Names the input, never its value."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}" if name else text)
        self.name = name
        self.text = text


# --- inputs given as JSON --------------------------------------------------------------------------------------------


def inputs_from_json(value: object) -> RiskInputs:
    """The inputs of `handoff risk score MODEL --inputs FILE`. Absent and null are missing. Raises InputsError."""
    if not isinstance(value, Mapping):
        raise InputsError("", "the inputs must be a JSON object")
    given: dict[str, Any] = {}
    for name, item in value.items():
        read = _READERS.get(name)
        if read is None:
            # The name is not repeated: whoever mixes up key and value may have put anything there.
            raise InputsError("", f"unknown input; the known ones are {', '.join(sorted(_READERS))}")
        if item is not None:
            given[name] = read(name, item)
    return RiskInputs(**given)


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _COUNT_MAX:
        raise InputsError(name, f"must be a whole number from 0 to {_COUNT_MAX}")
    return value


def _days(name: str, value: object) -> int:
    if isinstance(value, float) and math.isfinite(value) and 0 <= value <= _COUNT_MAX:
        return int(value)  # 0.4 days are less than one
    if isinstance(value, float):
        raise InputsError(name, f"must be a number of days from 0 to {_COUNT_MAX}")
    return _count(name, value)


def _level(most: float) -> Callable[[str, object], float]:
    """A result in the unit of its name. most: above it the unit must be another one."""

    def read(name: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
            raise InputsError(name, f"must be a number above 0, up to {most:g}, in the unit of its name")
        return float(value)

    return read


def _age(name: str, value: object) -> tuple[int, int]:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= AGE_YEARS_MAX:
        raise InputsError(name, f"must be a whole number of years from 0 to {AGE_YEARS_MAX}")
    return value, value


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InputsError(name, "must be true or false")
    return value


def _codes(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _DIAGNOSES_MAX or not all(isinstance(code, str) for code in value):
        raise InputsError(name, "must be a list of ICD-10 codes, each a text")
    return tuple(value)


_READERS: Final[Mapping[str, Callable[[str, object], Any]]] = {
    "age": _age,
    "diagnoses": _codes,
    "admissions_12m": _count,
    "ed_visits_6m": _count,
    "los_days": _days,
    "acute": _flag,
    "charlson": _count,
    "lives_alone": _flag,
    "no_transportation": _flag,
    "active_medications": _count,
    "haemoglobin_g_dl": _level(30),
    "sodium_mmol_l": _level(250),
    "oncology": _flag,
    "procedure": _flag,
    "elective": _flag,
}

# --- inputs read from a chart ----------------------------------------------------------------------------------------

_Codes = tuple[Annotated[str, Field(min_length=1, max_length=64)], ...]


class _Acuity(StrictModel):
    """Admission types (PV1-4). A code in neither list leaves the input missing."""

    emergent: _Codes
    """Codes of emergent admissions."""
    elective: _Codes
    """Codes of elective admissions."""

    @model_validator(mode="after")
    def _disjoint(self) -> _Acuity:
        if set(self.emergent) & set(self.elective):
            raise ValueError("a code can't be both emergent and elective")
        return self


class _Spec(StrictModel):
    """How the inputs of the risk models are read from a chart."""

    source: Annotated[str, Field(min_length=1)]
    """Where the codes come from."""
    acuity: _Acuity
    """Which admission types (PV1-4) are emergent, which elective."""
    admission_classes: _Codes
    """Patient classes (PV1-2) that count as an earlier admission."""
    emergency_classes: _Codes
    """Patient classes (PV1-2) that count as an emergency visit."""
    index_emergency_hours: Annotated[int, Field(ge=0, le=168)]
    """Hours before an admission in which an emergency visit is taken to have led to it, and does not count."""
    transfer_dispositions: tuple[Annotated[str, Field(pattern=r"^[0-9A-Z]{2,16}$")], ...]
    """Dispositions (PV1-36) of a transfer: with the next admission it is one episode."""
    transfer_hours: Annotated[int, Field(ge=0, le=168)]
    """Hours within which that admission follows."""
    icd10_systems: _Codes
    """Names of ICD-10 in DG1-3.3, however spelled. A code without a system is taken for ICD-10."""
    other_systems: _Codes = ()
    """Names of other coding systems: their codes are not read. A system in neither list is a deviation."""
    lives_alone: tuple[Pattern, ...]
    """ICD-10 codes that prove it, whatever the record says."""
    no_transportation: tuple[Pattern, ...]
    """ICD-10 codes that prove it, whatever the record says."""


@dataclass(frozen=True, slots=True)
class InputTables:
    """The site's reading of a chart, compiled."""

    acute: Mapping[str, bool]
    admission_classes: frozenset[str]
    emergency_classes: frozenset[str]
    index_emergency: timedelta
    transfers: frozenset[str]
    transfer: timedelta
    icd10_systems: frozenset[str]
    other_systems: frozenset[str]
    """Known, and not read."""
    social: PrefixTable

    def is_icd10(self, system: str | None) -> bool:
        """A code without a system is taken for ICD-10; it then has to look like one to count."""
        return not system or system in self.icd10_systems or _system(system) in self.icd10_systems

    def knows_system(self, system: str | None) -> bool:
        """Whether the codes of a coding system are read, or left out on purpose."""
        return self.is_icd10(system) or _system(system or "") in self.other_systems


def load_input_tables(document: Document) -> InputTables:
    """Compile `mappings/care/risk-inputs.yaml`. Raises SettingsError."""
    spec = validate(document, _Spec)
    return InputTables(
        acute=dict.fromkeys(spec.acuity.emergent, True) | dict.fromkeys(spec.acuity.elective, False),
        admission_classes=frozenset(spec.admission_classes),
        emergency_classes=frozenset(spec.emergency_classes),
        index_emergency=timedelta(hours=spec.index_emergency_hours),
        transfers=frozenset(spec.transfer_dispositions),
        transfer=timedelta(hours=spec.transfer_hours),
        icd10_systems=frozenset(map(_system, spec.icd10_systems)),
        other_systems=frozenset(map(_system, spec.other_systems)),
        social=PrefixTable({"lives_alone": spec.lives_alone, "no_transportation": spec.no_transportation}),
    )


def _system(name: str) -> str:
    """Senders write ICD-10-CM, ICD10CM and icd10cm for the same coding system."""
    return re.sub(r"[^A-Z0-9]", "", name.upper())


class History:
    """The admissions and emergency visits of a chart in their order, made once for all of its stays.

    Stays that a transfer joins are one episode of care and one admission, that of the first of them: so CMS counts them
    in its readmission measures, and so did the studies behind the models, which left transferred patients out.
    zone: of a mere date that has no other time near it, see `Days`.
    """

    def __init__(self, chart: Chart, tables: InputTables, zone: tzinfo = UTC) -> None:
        self._tables = tables
        self._transfer = tables.transfer // _MICROSECOND
        arrived = sorted(_arrivals(chart, Days(chart.encounters, zone)))
        self._emergencies = [stay for stay in arrived if stay[2] in tables.emergency_classes]
        self._emergency_times = [stay[0] for stay in self._emergencies]
        self._transfers: list[tuple[int, int, int]] = []
        """Of each stay that ended in a transfer: admission, last moment of an admission that goes on with it, and the
        admission of its episode."""
        self._episodes: list[int] = []
        for at, _, class_, ended, disposition in arrived:
            if class_ not in tables.admission_classes:
                continue
            episode = self._joined(at) if self._transfers else None
            if episode is None:
                self._episodes.append(at)
            if ended is not None and disposition in tables.transfers:
                self._transfers.append((at, ended + self._transfer, at if episode is None else episode))

    def before(self, admitted: datetime) -> tuple[int, int]:
        """Admissions in the 365 days and emergency visits in the 6 months before the admission of a stay."""
        at, year_ago = to_micros(admitted), to_micros(admitted - timedelta(days=365))
        since, until = bisect_left(self._episodes, year_ago), bisect_left(self._episodes, at)
        own = self._joined(at)
        admissions = until - since - (own is not None and own >= year_ago)
        since = bisect_left(self._emergency_times, to_micros(_months_before(admitted, 6)))
        until = bisect_left(self._emergency_times, at)
        shortly = at - self._tables.index_emergency // _MICROSECOND
        shortly_before = bisect_left(self._emergency_times, shortly, since, until)
        led_to = sum(self._led_to(visit, at) for visit in self._emergencies[shortly_before:until])
        return admissions, until - since - led_to

    def _joined(self, admitted: int) -> int | None:
        """The admission of the episode that an admission at that time goes on with; none: it begins one."""
        for at, until, episode in reversed(self._transfers):
            if at < admitted <= until:
                return episode
        return None

    def _led_to(self, visit: _Arrival, admitted: int) -> bool:
        """The emergency visit is the one that ended in the admission, under a visit number of its own."""
        _, _, _, ended, disposition = visit
        # NUBC 09: admitted as an inpatient to this hospital.
        return ended is None or ended >= admitted or disposition == "09" or disposition in self._tables.transfers


_Arrival = tuple[int, str, str | None, int | None, str | None]
"""Of a stay that has begun: admission, key, class, discharge, disposition. Times in microseconds since 1970."""


def _arrivals(chart: Chart, days: Days) -> Iterator[_Arrival]:
    for stay in chart.encounters:
        if stay.status not in _NOT_ARRIVED and (at := days.at(stay.admitted_at)) is not None:
            ended = days.at(stay.discharged_at)
            discharged = to_micros(ended) if ended is not None else None
            yield to_micros(at), stay.key, stay.class_, discharged, stay.disposition
    closed = chart.closed
    if closed is not None:
        columns = (
            closed.finished,
            closed.admitted,
            closed.keys,
            closed.classes,
            closed.discharged,
            closed.dispositions,
        )
        for finished, admitted, key, class_, ended, disposition in zip(*columns, strict=True):
            if finished and admitted is not None:
                yield admitted, key, class_, ended, disposition


_NOT_ARRIVED: Final = frozenset({EncounterStatus.PLANNED, EncounterStatus.CANCELLED})


def inputs_of(
    chart: Chart,
    encounter: Encounter,
    *,
    now: datetime,
    observed_since: datetime | None,
    tables: InputTables,
    zone: tzinfo = UTC,
    history: History | None = None,
) -> RiskInputs:
    """The inputs of a stay: of the patient as of admission, of the stay as it is at `now`.

    Diagnoses are those of this stay alone, as the models were published; none received: missing. History is counted
    from the chart's own encounters; `observed_since` (None: nothing was ever observed, history is missing) goes into
    the score, because "no earlier admission" is only as good as the time of observation behind it. zone: of a mere
    date that has no other time near it, see `Days`. history: of the chart, for who asks for several of its stays.
    """
    days = Days(chart.encounters, zone)
    admitted = days.at(encounter.admitted_at)
    patient = chart.patient
    diagnoses = tuple(d.code for d in encounter.diagnoses if d.code and tables.is_icd10(d.system))
    social = tables.social.match(diagnoses)
    no_transportation = None if patient.transportation is None else not patient.transportation
    admissions = ed_visits = None
    if admitted is not None and observed_since is not None:
        admissions, ed_visits = 0, 0
        if len(chart.encounters) > 1 or chart.closed is not None:
            admissions, ed_visits = (history or History(chart, tables, zone)).before(admitted)
    acute = tables.acute.get(encounter.admission_type) if encounter.admission_type else None
    return RiskInputs(
        age=age_range(patient.birth_date, (admitted or now).date()),
        diagnoses=diagnoses or None,
        admissions_12m=admissions,
        ed_visits_6m=ed_visits,
        los_midnights=_midnights(encounter, admitted, days.at(encounter.discharged_at), now),
        acute=acute,
        elective=None if acute is None else not acute,
        procedure=True if encounter.procedures else None,  # they often come late: none so far is not none
        lives_alone=True if "lives_alone" in social else patient.lives_alone,
        no_transportation=True if "no_transportation" in social else no_transportation,
        active_medications=patient.active_medications,
    )


def _midnights(
    encounter: Encounter, admitted: datetime | None, discharged: datetime | None, now: datetime
) -> int | None:
    """Midnights between admission and discharge (or now), each by its own local date."""
    if admitted is None or encounter.status in {EncounterStatus.PLANNED, EncounterStatus.CANCELLED}:
        return None
    if encounter.status is EncounterStatus.FINISHED:
        if discharged is None:
            return None
        ended = discharged
    else:
        ended = now.astimezone(admitted.tzinfo)
    nights = (ended.date() - admitted.date()).days
    return nights if nights >= 0 else None


def _months_before(moment: datetime, months: int) -> datetime:
    year, month = divmod(moment.year * 12 + moment.month - 1 - months, 12)
    return moment.replace(year=year, month=month + 1, day=min(moment.day, monthrange(year, month + 1)[1]))
