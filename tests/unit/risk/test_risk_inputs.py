from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moments import moments

from engine.domain.age import age_range
from engine.domain.chart import Chart
from engine.domain.encounter import Diagnosis, Encounter, EncounterStatus, Procedure
from engine.domain.moment import Moment, instant
from engine.domain.patient import Identifier, Patient
from engine.errors import SettingsError
from engine.risk.inputs import InputsError, RiskInputs, inputs_from_json, inputs_of, load_input_tables
from engine.yamlfile import parse

FILE = Path(__file__).parents[3] / "mappings/care/risk-inputs.yaml"
TEXT = FILE.read_text(encoding="utf-8")
TABLES = load_input_tables(parse(TEXT, FILE.name))
NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
SINCE = datetime(2020, 1, 1, tzinfo=UTC)


def stay(key: str = "VN:1", **fields: Any) -> Encounter:
    return Encounter(key=key, **{"class_": "I", "status": EncounterStatus.ACTIVE, **moments(fields)})


def read(index: Encounter, *others: Encounter, since: datetime | None = SINCE, **patient: Any) -> RiskInputs:
    chart = Chart(
        id="c1",
        patient=Patient(identifiers=(Identifier(value="1", authority="MRN"),), **moments(patient)),
        encounters=(index, *others),
    )
    return inputs_of(chart, index, now=NOW, observed_since=since, tables=TABLES)


# --- age -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("birth_date", "on", "age"),
    [
        ("1961-03-10", date(2026, 3, 9), (64, 64)),
        ("1961-03-10", date(2026, 3, 10), (65, 65)),
        ("1960-02-29", date(2025, 2, 28), (64, 64)),
        ("1960-02-29", date(2025, 3, 1), (65, 65)),
        ("1960-02-29", date(2024, 2, 29), (64, 64)),
        ("1961-03-10T04:30-05:00", date(2026, 3, 10), (65, 65)),
        ("2026-03-10", date(2026, 3, 10), (0, 0)),
        ("1961-03", date(2026, 3, 9), (64, 65)),
        ("1961-03", date(2026, 2, 28), (64, 64)),
        ("1961-03", date(2026, 3, 31), (65, 65)),
        ("1961", date(2026, 3, 9), (64, 65)),
        ("1961", date(2026, 12, 31), (65, 65)),
        ("2026", date(2026, 3, 9), (0, 0)),
        ("1895-03-10", date(2026, 3, 9), (130, 130)),
    ],
)
def test_a_person_is_as_old_as_their_last_birthday(birth_date: str, on: date, age: tuple[int, int]) -> None:
    assert age_range(Moment.of(birth_date), on) == age


@pytest.mark.parametrize("birth_date", [None, "2026-03-11", "2027", "1895-03-09", "0001-01-01", "1800-01-01", "9999"])
def test_a_birth_date_that_tells_nothing_leaves_the_age_missing(birth_date: str | None) -> None:
    assert age_range(Moment.read(birth_date), date(2026, 3, 10)) is None


@given(st.dates(date(1930, 1, 1), date(2020, 12, 31)), st.dates(date(2021, 1, 1), date(2030, 12, 31)))
def test_a_less_precise_birth_date_gives_a_range_around_the_true_age(born: date, on: date) -> None:
    exact = age_range(Moment.of(born.isoformat()), on)
    by_month = age_range(Moment.of(f"{born:%Y-%m}"), on)
    by_year = age_range(Moment.of(f"{born:%Y}"), on)
    assert exact is not None
    assert by_month is not None
    assert by_year is not None
    assert by_year[0] <= by_month[0] <= exact[0] == exact[1] <= by_month[1] <= by_year[1] <= by_year[0] + 1


def test_age_is_that_of_the_day_of_admission_where_the_hospital_is() -> None:
    late_evening = stay(admitted_at="2026-03-09T23:30-05:00")
    assert read(late_evening, birth_date="1961-03-10").age == (64, 64)


def test_age_is_todays_while_no_admission_time_is_known() -> None:
    assert read(stay(), birth_date="1961-03-10").age == (65, 65)


# --- length of stay --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("admitted_at", "discharged_at", "midnights"),
    [
        ("2026-03-01T00:10-05:00", "2026-03-01T23:50-05:00", 0),
        ("2026-03-01T23:50-05:00", "2026-03-02T00:10-05:00", 1),
        ("2026-03-07T23:50-05:00", "2026-03-08T23:50-04:00", 1),  # the day has 23 hours
        ("2026-02-28T10:00-05:00", "2026-03-01T10:00-05:00", 1),
        ("2024-02-28T10:00-05:00", "2024-03-01T10:00-05:00", 2),
        ("2026-03-01", "2026-03-04", 3),
        ("2026-03-02T10:00-05:00", "2026-03-01T10:00-05:00", None),
        ("2026-03-02T10:00-05:00", None, None),
        (None, "2026-03-02T10:00-05:00", None),
        ("2026-03", "2026-04", None),
        ("0001-01-01", "2026-03-01", None),
    ],
)
def test_length_of_stay_counts_local_midnights(
    admitted_at: str | None, discharged_at: str | None, midnights: int | None
) -> None:
    ended = stay(status=EncounterStatus.FINISHED, admitted_at=admitted_at, discharged_at=discharged_at)
    assert read(ended).los_midnights == midnights


def test_a_stay_that_goes_on_is_counted_until_now() -> None:
    assert read(stay(admitted_at="2026-03-08T23:00-04:00")).los_midnights == 2
    on_leave = stay(admitted_at="2026-03-08T23:00-04:00", status=EncounterStatus.ON_LEAVE)
    assert read(on_leave).los_midnights == 2


def test_now_is_a_day_of_the_hospital() -> None:
    # 12:00 UTC on 10 March is past midnight there
    assert read(stay(admitted_at="2026-03-09T10:00+13:00")).los_midnights == 2


def test_a_stay_that_has_not_begun_has_no_length() -> None:
    assert read(stay(admitted_at="2026-03-01", status=EncounterStatus.PLANNED)).los_midnights is None
    assert read(stay(admitted_at="2026-03-01", status=EncounterStatus.CANCELLED)).los_midnights is None


# --- history ---------------------------------------------------------------------------------------------------------

INDEX = stay(admitted_at="2026-03-01T10:00-05:00")


@pytest.mark.parametrize(
    ("earlier", "count"),
    [
        ({"admitted_at": "2025-12-01T10:00-05:00"}, 1),
        ({"admitted_at": "2025-03-01T10:00-05:00"}, 1),  # 365 days to the minute
        ({"admitted_at": "2025-03-01T09:59-05:00"}, 0),
        ({"admitted_at": "2026-03-01T10:00-05:00"}, 0),
        ({"admitted_at": "2026-03-05T10:00-05:00"}, 0),
        ({"admitted_at": None}, 0),
        ({"admitted_at": "2025-12-01T10:00-05:00", "status": EncounterStatus.CANCELLED}, 0),
        ({"admitted_at": "2025-12-01T10:00-05:00", "status": EncounterStatus.PLANNED}, 0),
        ({"admitted_at": "2025-12-01T10:00-05:00", "class_": "O"}, 0),
        ({"admitted_at": "2025-12-01T10:00-05:00", "class_": "OBS"}, 0),
        ({"admitted_at": "2025-12-01T10:00-05:00", "class_": None}, 0),
    ],
)
def test_admissions_are_inpatient_stays_of_the_365_days_before(earlier: dict[str, Any], count: int) -> None:
    other = stay("VN:2", **{"status": EncounterStatus.FINISHED, **earlier})
    assert read(INDEX, other).admissions_12m == count


def test_the_index_stay_is_no_earlier_admission_and_no_earlier_visit() -> None:
    inputs = read(INDEX)
    assert (inputs.admissions_12m, inputs.ed_visits_6m) == (0, 0)
    by_emergency = read(stay(class_="E", admitted_at="2026-03-01T10:00-05:00"))
    assert by_emergency.ed_visits_6m == 0


@pytest.mark.parametrize(
    ("visit", "count"),
    [
        ({"admitted_at": "2025-12-01T10:00-05:00"}, 1),
        ({"admitted_at": "2025-09-01T10:00-05:00"}, 1),
        ({"admitted_at": "2025-09-01T09:59-05:00"}, 0),
        ({"admitted_at": "2026-03-02T10:00-05:00"}, 0),
        ({"admitted_at": "2025-12-01T10:00-05:00", "status": EncounterStatus.CANCELLED}, 0),
        # the visit that led to the admission
        ({"admitted_at": "2026-03-01T04:00-05:00"}, 0),
        ({"admitted_at": "2026-03-01T04:00-05:00", "discharged_at": "2026-03-01T10:05-05:00"}, 0),
        ({"admitted_at": "2026-03-01T04:00-05:00", "discharged_at": "2026-03-01T09:50-05:00", "disposition": "09"}, 0),
        # sent home, and came back
        ({"admitted_at": "2026-03-01T01:00-05:00", "discharged_at": "2026-03-01T03:00-05:00", "disposition": "01"}, 1),
        # never closed, but long ago
        ({"admitted_at": "2026-02-01T04:00-05:00"}, 1),
    ],
)
def test_emergency_visits_are_those_of_6_months_without_the_one_that_led_here(
    visit: dict[str, Any], count: int
) -> None:
    other = stay("VN:2", **{"class_": "E", "status": EncounterStatus.FINISHED, **visit})
    inputs = read(INDEX, other)
    assert (inputs.ed_visits_6m, inputs.admissions_12m) == (count, 0)


def moved(key: str, begin: str, end: str, disposition: str = "02", **fields: Any) -> Encounter:
    ended = {"status": EncounterStatus.FINISHED, "disposition": disposition}
    return stay(key, admitted_at=f"2026-{begin}-05:00", discharged_at=f"2026-{end}-05:00", **{**ended, **fields})


@pytest.mark.parametrize("disposition", ["02", "05", "43", "66", "82"])
def test_stays_that_transfers_join_are_one_earlier_admission(disposition: str) -> None:
    chain = (
        moved("VN:7", "01-05T10:00", "01-07T10:00", disposition),
        moved("VN:8", "01-07T15:00", "01-09T10:00", disposition),  # at another hospital
        moved("VN:9", "01-10T09:00", "01-12T10:00", "01"),  # and back
    )
    assert read(INDEX, *chain).admissions_12m == 1


def test_the_stay_that_a_transfer_ended_is_no_earlier_admission_to_the_stay_it_led_to() -> None:
    chain = (moved("VN:8", "02-20T10:00", "02-25T10:00"), moved("VN:9", "02-25T12:00", "02-28T20:00"))
    assert read(INDEX, *chain).admissions_12m == 0
    assert read(INDEX, *chain, moved("VN:7", "01-01T10:00", "01-05T10:00", "01")).admissions_12m == 1


@pytest.mark.parametrize(
    "earlier",
    [
        moved("VN:9", "02-20T10:00", "02-27T10:00"),  # two days before
        moved("VN:9", "02-20T10:00", "02-28T20:00", "01"),  # no transfer
        moved("VN:9", "02-20T10:00", "02-28T20:00", "01", status=EncounterStatus.ACTIVE),
    ],
)
def test_an_admission_of_its_own_is_counted(earlier: Encounter) -> None:
    assert read(INDEX, earlier).admissions_12m == 1


def test_an_episode_that_began_more_than_a_year_before_is_not_counted() -> None:
    old = stay(
        "VN:8",
        status=EncounterStatus.FINISHED,
        admitted_at="2025-02-27T10:00-05:00",
        discharged_at="2025-03-02T10:00-05:00",
        disposition="02",
    )
    assert read(INDEX, old, stay("VN:9", admitted_at="2025-03-02T12:00-05:00")).admissions_12m == 0


def test_an_emergency_visit_elsewhere_that_ended_in_a_transfer_here_is_the_one_that_led_here() -> None:
    visit = moved("VN:9", "02-28T22:00", "03-01T08:00", class_="E")
    assert read(INDEX, visit).ed_visits_6m == 0
    assert read(INDEX, msgspec.structs.replace(visit, disposition="01")).ed_visits_6m == 1


MOMENTS = st.integers(0, 400 * 24).map(lambda hours: datetime(2025, 1, 25, tzinfo=UTC) + timedelta(hours=hours))
STAYS = st.lists(
    st.tuples(
        st.sampled_from(["I", "E", "O"]),
        st.sampled_from(list(EncounterStatus)),
        st.sampled_from([None, "01", "02", "09"]),
        MOMENTS,
        st.integers(0, 100),
    ),
    max_size=12,
)


@given(STAYS)
def test_history_counts_what_each_stay_asked_for_itself_would_count(drawn: list[tuple[Any, ...]]) -> None:
    earlier = [
        stay(
            f"VN:{number + 10}",
            class_=class_,
            status=status,
            disposition=disposition,
            admitted_at=at.isoformat(),
            discharged_at=(at + timedelta(hours=hours)).isoformat(),
        )
        for number, (class_, status, disposition, at, hours) in enumerate(drawn)
    ]
    chart = Chart(id="c1", patient=Patient(), encounters=(INDEX, *earlier))
    admitted = instant(INDEX.admitted_at)
    inputs = inputs_of(chart, INDEX, now=NOW, observed_since=SINCE, tables=TABLES)
    assert (inputs.admissions_12m, inputs.ed_visits_6m) == (
        episodes(earlier, admitted),
        sum(is_visit_before(visit, admitted) for visit in earlier),
    )


def span(encounter: Encounter) -> tuple[datetime, datetime]:
    return instant(encounter.admitted_at), instant(encounter.discharged_at)


def has_come(encounter: Encounter) -> bool:
    return encounter.status not in {EncounterStatus.PLANNED, EncounterStatus.CANCELLED}


def episodes(earlier: list[Encounter], admitted: datetime) -> int:
    """The slow way: follow each stay back through the transfers that led to it."""
    stays = [e for e in earlier if e.class_ == "I" and has_come(e)]

    def begin(at: datetime) -> datetime:
        led = [s for s in stays if s.disposition == "02" and span(s)[0] < at <= span(s)[1] + timedelta(hours=24)]
        return min((begin(span(s)[0]) for s in led), default=at)

    begins = [span(s)[0] for s in stays if begin(span(s)[0]) == span(s)[0] < admitted]
    if begin(admitted) != admitted:
        begins.remove(begin(admitted))
    return sum(at >= admitted - timedelta(days=365) for at in begins)


def is_visit_before(visit: Encounter, admitted: datetime) -> bool:
    at, ended = span(visit)
    if visit.class_ != "E" or not has_come(visit) or not datetime(2025, 9, 1, 15, tzinfo=UTC) <= at < admitted:
        return False
    led_here = ended >= admitted or visit.disposition in {"02", "09"}
    return not (led_here and admitted - at <= timedelta(hours=24))


def test_six_months_before_the_end_of_a_long_month_is_the_end_of_a_short_one() -> None:
    index = stay(admitted_at="2026-08-31T10:00-04:00")
    at_the_end = stay("VN:2", class_="E", admitted_at="2026-02-28T10:00-04:00", discharged_at="2026-02-28T12:00-04:00")
    before = stay("VN:3", class_="E", admitted_at="2026-02-28T09:00-04:00", discharged_at="2026-02-28T12:00-04:00")
    assert read(index, at_the_end, before).ed_visits_6m == 1


def test_history_is_missing_when_nothing_was_observed_or_the_admission_time_is_unknown() -> None:
    unobserved = read(INDEX, since=None)
    assert (unobserved.admissions_12m, unobserved.ed_visits_6m) == (None, None)
    undated = read(stay())
    assert (undated.admissions_12m, undated.ed_visits_6m) == (None, None)


# --- comorbidity and circumstances -----------------------------------------------------------------------------------


def test_a_stay_without_a_diagnosis_has_unknown_comorbidity_even_when_earlier_stays_had_some() -> None:
    earlier = stay("VN:2", diagnoses=(Diagnosis(code="I50.9"),))
    assert read(INDEX, earlier).diagnoses is None


def test_diagnoses_are_those_of_the_stay() -> None:
    index = stay(diagnoses=(Diagnosis(code="E11.9", system="ICD-10"), Diagnosis(code="", system="ICD-10")))
    assert read(index).diagnoses == ("E11.9",)


def test_nothing_is_assumed_of_a_patient_of_whom_nothing_is_known() -> None:
    inputs = read(stay())
    assert msgspec.structs.asdict(inputs) == msgspec.structs.asdict(RiskInputs())


@pytest.mark.parametrize(("admission_type", "elective"), [("C", True), ("E", False), ("N", None), (None, None)])
def test_an_admission_is_elective_when_its_type_says_so(admission_type: str | None, elective: bool | None) -> None:
    assert read(stay(admission_type=admission_type)).elective is elective


def test_a_procedure_counts_when_there_is_one_and_is_missing_before() -> None:
    """They are coded late: none so far does not mean none."""
    assert read(stay()).procedure is None
    assert read(stay(procedures=(Procedure(code="0DTJ4ZZ"),))).procedure is True


# --- inputs given as JSON --------------------------------------------------------------------------------------------


def test_all_inputs_of_the_contract_are_read() -> None:
    given = {
        "age": 71, "diagnoses": ["I50.9"], "admissions_12m": 1, "lives_alone": True, "no_transportation": False,
        "active_medications": 4, "los_days": 3, "acute": True, "charlson": 2, "ed_visits_6m": 0,
        "haemoglobin_g_dl": 11.4, "sodium_mmol_l": 140, "oncology": False, "procedure": True, "elective": False,
    }  # fmt: skip
    assert inputs_from_json(given) == RiskInputs(
        age=(71, 71), diagnoses=("I50.9",), admissions_12m=1, lives_alone=True, no_transportation=False,
        active_medications=4, los_days=3, acute=True, charlson=2, ed_visits_6m=0,
        haemoglobin_g_dl=11.4, sodium_mmol_l=140.0, oncology=False, procedure=True, elective=False,
    )  # fmt: skip


def test_absent_and_null_are_missing_and_an_empty_list_is_not() -> None:
    assert inputs_from_json({}) == RiskInputs()
    assert inputs_from_json({"age": None, "diagnoses": None}) == RiskInputs()
    assert inputs_from_json({"diagnoses": []}).diagnoses == ()


@pytest.mark.parametrize(
    "given",
    [
        {"agee": 71}, {"age": "71"}, {"age": True}, {"age": -1}, {"age": 131}, {"age": 71.5}, {"diagnoses": "I50.9"},
        {"haemoglobin_g_dl": 130}, {"haemoglobin_g_dl": 0}, {"sodium_mmol_l": "140"}, {"sodium_mmol_l": float("nan")},
        {"oncology": 0}, {"diagnoses": [1]}, {"acute": 1}, {"acute": "Y"}, {"los_days": -0.5},
        {"los_days": float("nan")}, {"los_days": float("inf")}, {"charlson": 10**30}, {"lives_alone": "no"},
        [], "x", None,
    ],
)  # fmt: skip
def test_inputs_that_can_not_be_used_are_refused_without_repeating_them(given: Any) -> None:
    with pytest.raises(InputsError) as caught:
        inputs_from_json(given)
    assert not any(text in str(caught.value) for text in ("71", "I50.9", "agee", "nan"))


# --- mere dates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visit", "left", "admitted", "visits"),
    [
        ("2026-02-28T21:00-05:00", "2026-02-28T23:00-05:00", "2026-03-01", 1),
        ("2026-02-28T21:00-08:00", "2026-02-28T22:00-08:00", "2026-03-01", 1),
        ("2026-02-28", "2026-02-28T22:00-08:00", "2026-03-01T06:00-08:00", 1),
        ("2026-03-01T02:00+09:00", "2026-03-01T03:00+09:00", "2026-03-01", 0),
        ("2026-03-02T02:00+09:00", "2026-03-02T03:00+09:00", "2026-03-01", 0),
    ],
)
def test_a_visit_on_the_day_before_came_before_an_admission_of_which_the_day_is_known(
    visit: str, left: str, admitted: str, visits: int
) -> None:
    emergency = stay("VN:2", class_="E", status=EncounterStatus.FINISHED, admitted_at=visit, discharged_at=left)
    assert read(stay(admitted_at=admitted), emergency).ed_visits_6m == visits


@pytest.mark.parametrize(
    ("zone", "now", "midnights"),
    [
        ("America/New_York", "2026-11-29T21:30-05:00", 0),
        ("America/New_York", "2026-11-30T00:30-05:00", 1),
        ("Asia/Tokyo", "2026-11-30T06:00+09:00", 1),
        ("Pacific/Honolulu", "2026-11-29T23:59-10:00", 0),
    ],
)
def test_midnights_since_a_mere_date_are_those_of_the_site(zone: str, now: str, midnights: int) -> None:
    index = stay(admitted_at="2026-11-29")
    chart = Chart(id="c1", patient=Patient(), encounters=(index,))
    at = datetime.fromisoformat(now)
    inputs = inputs_of(chart, index, now=at, observed_since=SINCE, tables=TABLES, zone=ZoneInfo(zone))
    assert inputs.los_midnights == midnights


# --- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        (TEXT.replace("emergent: [A,", "emergent: [C,"), "acuity"),
        (TEXT.replace("[Z602]", "[Z60.2]"), "lives_alone[0]"),
        (TEXT + "extra: 1\n", "extra"),
        (TEXT.replace("emergency_classes: [E]\n", ""), "emergency_classes"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(wrong: str, key: str) -> None:
    assert wrong != TEXT
    with pytest.raises(SettingsError) as caught:
        load_input_tables(parse(wrong, "risk-inputs.yaml"))
    assert [problem.key for problem in caught.value.problems] == [key]
