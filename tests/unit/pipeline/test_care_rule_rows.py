"""The rules of care, row by row: a test for each, named after it, through the shipped channel.

docs/reference/care-rules.md walks through the rows in their order, with those that are shown elsewhere.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from heart import adt, merge
from test_every_event import Stay
from test_paged_charts import Duty, ack
from test_plan_rules import DAY, HIGH, HOME, HOUR, NEW_YORK, PROTOCOL, SICK, Ward

from engine.care.protocol import load_protocol
from engine.domain.chart import Chart
from engine.domain.delivery import Operation
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.outcome import Outcome
from engine.domain.page import PageState
from engine.domain.quality import QualityKind
from engine.domain.score import Band
from engine.domain.task import TaskState
from engine.domain.why import Reason
from engine.pipeline.channel import Planner
from engine.pipeline.grounds import newly
from engine.yamlfile import parse

SINCE = HOME - 5 * DAY


@pytest.fixture
def ward() -> Ward:
    ward = Ward()
    ward.now = datetime(2026, 2, 1, tzinfo=UTC)
    return ward


def told(outcome: Outcome, operation: Operation = Operation.UPSERT_TASK) -> int:
    """How many deliveries of the kind."""
    return sum(one.operation is operation for one in outcome.deliveries)


def went_home(ward: Ward, **more: Any) -> dict[str, str]:
    """A patient at high risk has gone home: ids of the tasks, by step."""
    ward.stay(**more)
    return {step: task.id for step, task in ward.tasks().items()}


# --- what trigger events do to plans ---------------------------------------------------------------------------------


def test_a01_readmission_check_and_the_pending_plan_of_the_earlier_stay_is_suspended(ward: Ward) -> None:
    planned = went_home(ward)
    outcome = ward.event("A01", HOME + DAY, "V2", since=HOME + DAY)
    assert ward.tasks() == {}
    assert {task.end_reason for task in ward.chart("1").tasks if task.id in planned.values()} != {None}
    assert Reason.EARLIER_WAITS in ward.said(outcome)
    ward.event("A11", HOME + DAY + HOUR, "V2", since=HOME + DAY)
    assert {task.id for task in ward.tasks().values()} == set(planned.values()) - {planned["on_call_page"]}


@pytest.mark.parametrize(("class_", "visits"), [("E", 1), ("O", 0)])
def test_a04_counts_as_ed_visit_when_class_e(ward: Ward, class_: str, visits: int) -> None:
    seen = HOME - 40 * DAY
    ward.now = seen
    ward.event("A04", seen, "V0", since=seen, _2=class_)
    ward.event("A03", seen + HOUR, "V0", since=seen, left=seen + HOUR, code="01", _2=class_)
    ward.stay()
    [score] = [one for one in ward.chart("1").scores if (one.model, one.encounter) == ("lace", "MRN:V1")]
    assert sum(factor.points for factor in score.factors if factor.name == "ed_visits_6m") == visits


@pytest.mark.parametrize("trigger", ["A05", "A14"])
def test_a05_a14_pre_admit_has_no_effect_on_plans(ward: Ward, trigger: str) -> None:
    planned = went_home(ward)
    outcome = ward.event(trigger, HOME + DAY, "V2", since=HOME + 9 * DAY)
    assert {task.id for task in ward.tasks().values()} == set(planned.values())
    assert told(outcome) == 0


@pytest.mark.parametrize("trigger", ["A02", "A12", "A21", "A22", "A09", "A10", "A15", "A26", "A16", "A25"])
def test_transfers_leave_and_pending_events_have_no_effect_on_plans(ward: Ward, trigger: str) -> None:
    planned = went_home(ward)
    ward.event("A01", HOME + DAY, "V2", since=HOME + DAY)
    suspended = {task.id: task.state for task in ward.chart("1").tasks}
    outcome = ward.event(trigger, HOME + DAY + HOUR, "V2", since=HOME + DAY, _3="ICU^2^2", _36="01")
    assert {task.id: task.state for task in ward.chart("1").tasks} == suspended
    assert set(planned.values()) == set(suspended)
    assert told(outcome) == 0


@pytest.mark.parametrize(
    ("fields", "planned"),
    [
        ({"_2": "I", "code": "01"}, True), ({"_2": "I", "code": "02"}, False), ({"_2": "E", "code": "01"}, False),
        ({"_2": "O", "code": "01"}, False), ({"_2": "OBS", "code": "01"}, True), ({"_2": "R", "code": "01"}, False),
    ],
)  # fmt: skip
def test_a03_post_discharge_plan_only_when_the_disposition_says_so_and_the_class_is_inpatient_or_mapped_observation(
    ward: Ward, fields: dict[str, str], planned: bool
) -> None:
    class_, code = fields["_2"], fields["code"]
    ward.event("A01", SINCE, since=SINCE, _2=class_)
    ward.event("A03", HOME, since=SINCE, left=HOME, code=code, _2=class_, dg1=SICK)
    [stay] = ward.chart("1").encounters
    assert (stay.status, bool(ward.tasks())) == (EncounterStatus.FINISHED, planned)


@pytest.mark.parametrize("former", ["MRG|1^^^MRN^MR||ACC0", "MRG|1^^^MRN^MR||||V1^^^MRN", ""])
def test_a06_a07_the_same_stay_linked_by_mrg_3_or_pid_18_and_mrg_here_is_no_merge(ward: Ward, former: str) -> None:
    account = {18: "ACC0"}
    ward.event("A04", SINCE, since=SINCE, pid=account, _2="O")
    segments = (former,) if former else ()
    pid = {18: "ACC0" if not former else "ACC1"}
    outcome = ward.event("A06", SINCE + HOUR, "V2" if former else "V1", dg1=segments, pid=pid)
    assert outcome.holds == ()
    [stay] = [one for one in ward.chart("1").encounters if one.status is not EncounterStatus.CANCELLED]
    assert (stay.class_, stay.status) == ("I", EncounterStatus.ACTIVE)
    assert len(ward.charts.by_id) == 1
    assert told(outcome, Operation.MERGE_PATIENT) == 0


DECIDES: dict[str, tuple[dict[str, Any], set[str] | None]] = {
    "class": ({"_2": "O"}, set()),
    "disposition": ({"code": "03"}, {"notify_facility"}),
    "death": ({"pid": {30: "Y"}}, {"death/patient_died"}),
    "discharge time": ({"left": HOME - HOUR}, HIGH),
    "diagnoses": ({"dg1": SICK}, HIGH),
}
"""What an A08 changes -> the steps that stand after it."""


@pytest.mark.parametrize("what", DECIDES)
def test_a08_re_decides_when_class_disposition_discharge_time_diagnoses_or_death_changed(ward: Ward, what: str) -> None:
    changes, steps = DECIDES[what]
    first = {"dg1": ()} if what == "diagnoses" else {"dg1": SICK}
    ward.stay(**first)
    before = ward.tasks()
    said = {"since": SINCE, "left": HOME, "code": "01"} | first | changes
    outcome = ward.event("A08", HOME + HOUR, **said)
    assert set(ward.tasks()) == steps
    assert told(outcome) > 0
    if what == "discharge time":
        assert before["pcp_follow_up"].due_at - ward.tasks()["pcp_follow_up"].due_at == HOUR


@pytest.mark.parametrize(
    "changes", [{"_3": "ICU^2^2"}, {"pid": {11: "1 Main St^^Town"}}, {"_10": "MED"}, {"_7": "9^Who^Doctor"}, {}]
)
def test_a08_re_decides_nothing_else(ward: Ward, changes: dict[str, Any]) -> None:
    ward.stay()
    before = ward.chart("1").tasks
    outcome = ward.event("A08", HOME + HOUR, since=SINCE, left=HOME, code="01", dg1=SICK, **changes)
    assert ward.chart("1").tasks == before
    assert told(outcome) == 0


def test_a31_is_of_the_person_and_leaves_the_plan(ward: Ward) -> None:
    ward.stay()
    before = ward.chart("1").tasks
    outcome = ward.person(HOME + HOUR, {13: "^PRN^PH^^^518^5550100"})
    assert (ward.chart("1").tasks, told(outcome)) == (before, 0)
    assert told(outcome, Operation.UPSERT_PATIENT) == 1


@pytest.mark.parametrize("class_", ["N", None])
def test_a28_add_person_opens_no_visit_and_no_plan(ward: Ward, class_: str | None) -> None:
    ward.now = HOME
    ward.send(adt("A28", pid3="1^^^MRN^MR", pv1=None if class_ is None else {2: class_, 19: ""}))
    assert (ward.chart("1").encounters, ward.chart("1").tasks) == ((), ())


def test_a16_a25_is_a_plan_not_a_discharge(ward: Ward) -> None:
    ward.event("A01", SINCE, since=SINCE)
    for trigger in ("A16", "A25"):
        ward.event(trigger, HOME, since=SINCE, left=HOME, code="01", dg1=SICK)
        assert ward.tasks() == {}
        [stay] = ward.chart("1").encounters
        assert (stay.status, stay.discharged_at) == (EncounterStatus.ACTIVE, None)


@pytest.mark.parametrize("trigger", ["A40", "A18", "A34", "A36", "A39"])
def test_a40_merge_mrg_1_into_pid_3_encounters_and_tasks_follow_and_the_mrg_id_becomes_an_alias(
    ward: Ward, trigger: str
) -> None:
    ward.stay(mrn="2")
    planned = {task.id for task in ward.tasks(mrn="2").values()}
    ward.event("A04", HOME - DAY, "V9", since=HOME - DAY, _2="O")
    ward.now = HOME + HOUR
    said = adt(trigger, at="20260306110000", pid3="1^^^MRN^MR", segments=("MRG|2^^^MRN^MR",))
    assert ward.send(said).holds == ()
    chart = ward.chart("1")
    assert ward.chart("2").id == chart.id
    assert {stay.key for stay in chart.encounters} == {"MRN:V1", "MRN:V9"}
    assert {task.id for task in ward.tasks().values()} == planned


def test_a40_repeats_its_groups_of_pid_and_mrg(ward: Ward) -> None:
    for mrn in ("1", "2", "3", "4"):
        ward.event("A04", HOME, f"V{mrn}", mrn=mrn, since=HOME, _2="O")
    group = ("MRG|2^^^MRN^MR", "PID|1||3^^^MRN^MR||Doe^Jane||19480312|F", "MRG|4^^^MRN^MR")
    ward.send(adt("A40", at="20260306120000", pid3="1^^^MRN^MR", segments=group))
    assert ward.chart("2").id == ward.chart("1").id != ward.chart("3").id == ward.chart("4").id


def test_a40_is_never_unmerged_in_silence_only_a_person_may(ward: Ward) -> None:
    ward.stay(mrn="2")
    ward.event("A04", HOME, "V9", since=HOME, _2="O")
    ward.merged("1", "2", HOME + HOUR)
    for trigger in ("A37", "A41", "A47"):
        ward.now += HOUR
        ward.send(adt(trigger, at="20260306150000", pid3="1^^^MRN^MR", segments=("MRG|2^^^MRN^MR",)))
    outcome = ward.send(merge("2", "1", at="20260306160000"))
    assert [hold.code.value for hold in outcome.holds] == ["merge-without-effect"]
    assert ward.chart("2").id == ward.chart("1").id


@pytest.mark.parametrize("mrg", ["MRG|2^^^MRN^MR||||V1^^^MRN", "MRG|2^^^MRN^MR||ACC1"])
def test_a44_a45_move_account_or_visit_to_another_patient_and_its_plan_moves_with_it(ward: Ward, mrg: str) -> None:
    account = {18: "ACC1"}
    ward.event("A01", SINCE, mrn="2", since=SINCE, pid=account)
    ward.event("A03", HOME, mrn="2", since=SINCE, left=HOME, code="01", dg1=SICK, pid=account)
    planned = {task.id for task in ward.tasks(mrn="2").values()}
    ward.person(HOME, {}, mrn="1")
    ward.now = HOME + HOUR
    trigger, pv1 = ("A45", {}) if "V1" in mrg else ("A44", None)
    outcome = ward.send(adt(trigger, at="20260306110000", pid3="1^^^MRN^MR", pid=account, pv1=pv1, segments=(mrg,)))
    assert outcome.holds == ()
    assert {task.id for task in ward.tasks(mrn="1").values()} == planned
    assert (ward.chart("2").encounters, ward.tasks(mrn="2")) == ((), {})


@pytest.mark.parametrize("trigger", ["A01", "A02", "A03", "A04", "A08", "A20", "A31", "A60", "Z99"])
@pytest.mark.parametrize("pid", [{30: "Y"}, {29: "20260306103000"}])
def test_death_in_any_event_cancels_all_tasks_at_once_and_tells_the_team(
    ward: Ward, trigger: str, pid: dict[int, str]
) -> None:
    ward.stay()
    ward.now = HOME + HOUR
    ward.send(adt(trigger, at="20260306110000", pid3="1^^^MRN^MR", pid=pid))
    assert ward.chart("1").patient.deceased is True
    assert set(ward.tasks()) == {"death/patient_died"}
    assert all(page.next_at is None for page in ward.chart("1").pages)


# --- reversal pairs --------------------------------------------------------------------------------------------------

REVERSALS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "A01-A11": ((), "A01", "A11"),
    "A04-A11": ((), "A04", "A11"),
    "A02-A12": (("A01",), "A02", "A12"),
    "A03-A13": (("A01",), "A03", "A13"),
    "A05-A38": ((), "A05", "A38"),
    "A06-A07": (("A04",), "A06", "A07"),
    "A07-A06": (("A01",), "A07", "A06"),
    "A09-A33": (("A01",), "A09", "A33"),
    "A10-A32": (("A01", "A09"), "A10", "A32"),
    "A14-A27": ((), "A14", "A27"),
    "A15-A26": (("A01",), "A15", "A26"),
    "A16-A25": (("A01",), "A16", "A25"),
    "A21-A52": (("A01",), "A21", "A52"),
    "A22-A53": (("A01", "A21"), "A22", "A53"),
    "A54-A55": (("A01",), "A54", "A55"),
    "A61-A62": (("A01",), "A61", "A62"),
}
"""Before, the event, its reversal. A24-A37 and A28-A29 are of persons."""
SAYS = {
    "A02": {"_3": "ICU^2^2"},
    "A15": {"_42": "ICU^2^2"},
    "A03": {"_36": "01"},
    "A04": {"_2": "O"},
    "A54": {"_7": "2"},
}


def as_it_is(stay: Encounter) -> tuple[Any, ...]:
    return (
        stay.status, stay.class_, stay.location, stay.attending, stay.discharged_at, stay.disposition, stay.in_transit,
        stay.pending_location, stay.discharge_pending, stay.leave_began_at if stay.status == "on_leave" else None,
    )  # fmt: skip


@pytest.mark.parametrize("pair", REVERSALS)
def test_an_event_and_its_reversal_leave_the_stay_as_it_was(pair: str) -> None:
    before, event, reversal = REVERSALS[pair]
    if not before:
        stay = Stay(event, **SAYS.get(event, {}))
        assert stay.send(reversal, **SAYS.get(event, {})) == []
        assert (stay.now.status, stay.plan) == (EncounterStatus.CANCELLED, [])
        return
    first, *rest = before
    always = {"_7": "1", "_3": "WARD^1^1"} | ({"_2": "O"} if first == "A04" else {})
    stay = Stay(first, **always)
    for trigger in rest:
        stay.send(trigger, **always)
    was = as_it_is(stay.now)
    class_ = {"A06": {"_2": "I"}, "A07": {"_2": "O"}}.get(event, {})
    assert stay.send(event, **always | SAYS.get(event, {}) | class_) == []
    assert as_it_is(stay.now) != was or event in {"A61"}
    back = {"A07": {"_2": "O"}, "A06": {"_2": "I"}}.get(reversal, {})
    assert stay.send(reversal, **always | back) == []
    assert as_it_is(stay.now) == was
    assert stay.plan == []


def two(ward: Ward) -> tuple[Chart, Chart]:
    ward.now = HOME
    for mrn in ("1", "2"):
        ward.event("A01", HOME, f"V{mrn}", mrn=mrn, since=HOME)
    return ward.chart("1"), ward.chart("2")


def test_a24_a37_a_link_is_no_merge_and_its_reversal_takes_it_back(ward: Ward) -> None:
    first, second = two(ward)
    other = "PID|2||2^^^MRN^MR||Doe^Jane||19480312|F"
    ward.send(adt("A24", at="20260306110000", pid3="1^^^MRN^MR", segments=(other,)))
    assert (ward.chart("1").id, ward.chart("2").id) == (first.id, second.id)
    assert (ward.chart("1").patient.links, ward.chart("2").patient.links) == (("MRN:2",), ("MRN:1",))
    ward.send(adt("A37", at="20260306120000", pid3="1^^^MRN^MR", segments=(other,)))
    assert (ward.chart("1").patient.links, ward.chart("2").patient.links) == ((), ())


def test_a28_a29_a_person_who_was_added_and_deleted_is_forgotten(ward: Ward) -> None:
    ward.now = HOME
    ward.send(adt("A28", pid3="1^^^MRN^MR"))
    assert ward.chart("1").patient.name is not None
    ward.send(adt("A29", at="20260306120000", pid3="1^^^MRN^MR"))
    assert ward.chart("1").patient.name is None


def test_a17_swaps_two_patients_both_or_none(ward: Ward) -> None:
    two(ward)
    second = ("PID|2||2^^^MRN^MR||Doe^Jane||19480312|F", "PV1|2|I|BED1^^|||BED2^^||||||||||||||V2^^^MRN")
    said = adt("A17", at="20260306110000", pid3="1^^^MRN^MR", pv1={3: "BED2^^", 6: "BED1^^"}, segments=second)
    outcome = ward.send(said)
    assert outcome.holds == ()
    places = [chart.encounters[0].location for chart in (ward.chart("1"), ward.chart("2"))]
    assert [place.point_of_care for place in places if place] == ["BED2", "BED1"]


def test_a23_deletes_a_stay_that_was_entered_in_error_and_takes_its_plan_back(ward: Ward) -> None:
    planned = went_home(ward)
    ward.event("A23", HOME + HOUR, since=SINCE)
    assert planned
    assert ward.tasks() == {}
    assert ward.chart("1").encounters[0].status is EncounterStatus.CANCELLED


@pytest.mark.parametrize("trigger", ["A43", "A46", "A47", "A48"])
def test_a47_changes_the_identifier_of_one_patient(ward: Ward, trigger: str) -> None:
    ward.stay(mrn="2")
    ward.now = HOME + HOUR
    ward.send(adt(trigger, at="20260306110000", pid3="1^^^MRN^MR", segments=("MRG|2^^^MRN^MR",)))
    assert ward.chart("1").id == ward.chart("2").id
    assert set(ward.tasks(mrn="1")) == HIGH


@pytest.mark.parametrize(
    ("trigger", "mrg"),
    [("A49", "MRG|1^^^MRN^MR||ACC0"), ("A50", "MRG|1^^^MRN^MR||||V0^^^MRN"), ("A51", "MRG|1^^^MRN^MR||||V0^^^MRN")],
)
def test_a49_a50_a51_change_account_or_visit_number_and_the_plan_stays(ward: Ward, trigger: str, mrg: str) -> None:
    ward.event("A01", SINCE, "V0", since=SINCE, pid={18: "ACC0"})
    ward.event("A03", HOME, "V0", since=SINCE, left=HOME, code="01", dg1=SICK, pid={18: "ACC0"})
    planned = {task.id for task in ward.tasks().values()}
    visit = "V0" if trigger == "A49" else "V1"
    outcome = ward.event(trigger, HOME + HOUR, visit, since=SINCE, dg1=(mrg,), pid={18: "ACC1"})
    assert outcome.holds == ()
    assert {task.id for task in ward.tasks().values()} == planned
    [_] = ward.chart("1").encounters


@pytest.mark.parametrize("pid", [None, "PID|1"])
def test_an_a06_with_mrg_and_no_patient_is_a_dead_letter_and_merges_nobody(ward: Ward, pid: str | None) -> None:
    ward.stay()
    before = ward.chart("1")
    lines = [
        "MSH|^~\\&|EPIC|MAIN|HANDOFF|H|20260306120000||ADT^A06|X1|P|2.5.1", "EVN|A06|20260306120000",
        *([pid] if pid else []), "MRG|1^^^MRN^MR||ACC1",
    ]  # fmt: skip
    outcome = ward.send("\r".join([*lines, ""]).encode())
    assert outcome.dead_letter is not None
    assert outcome.dead_letter.error == ("identifier-missing" if pid else "pid-missing")
    assert ward.chart("1") == before


# --- discharge dispositions ------------------------------------------------------------------------------------------

HOLD = {"decide"}
DISPOSITIONS: dict[str, tuple[str, set[str]]] = {
    "01: home plan": ("01", HIGH),
    "06: home plan, and the home-health agency": ("06", HIGH | {"home_health_agency"}),
    "1: normalised to 01": ("1", HIGH),
    "81: as 01": ("81", HIGH),
    "82: as 02": ("82", set()),
    "83: as 03": ("83", {"notify_facility"}),
    "84: as 04": ("84", {"notify_facility"}),
    "85: as 05": ("85", set()),
    "86: as 06": ("86", HIGH | {"home_health_agency"}),
    "87: as 21": ("87", HOLD),
    "88: as 43": ("88", set()),
    **{f"{code}: as {twin}": (code, {"notify_facility"}) for code, twin in zip(
        ("89", "90", "91", "92", "93"), ("61", "62", "63", "64", "65"), strict=True)},
    "94: as 66": ("94", set()),
    "95: as 70": ("95", HOLD),
    **{f"{code}: acute transfer, no plan": (code, set()) for code in ("02", "05", "43", "66")},
    **{f"{code}: facility, the home plan starts at its own discharge": (code, {"notify_facility"})
       for code in ("03", "04", "61", "62", "63", "64", "65")},
    "07: left against advice, urgent call by the coordinator": ("07", {"urgent_call"}),
    "21: conflict, hold for a person": ("21", HOLD),
    "50: hospice, suppress the plan, notify the team": ("50", {"notify_team"}),
    "51: hospice, suppress the plan, notify the team": ("51", {"notify_team"}),
    "blank: never assume home, hold": ("", HOLD),
    "unknown: never assume home, hold": ("77", HOLD),
    "no code at all: never assume home, hold": ("HOME", HOLD),
}  # fmt: skip
"""Row -> PV1-36, the steps of the plan of a patient at high risk."""


@pytest.mark.parametrize("row", DISPOSITIONS)
def test_discharge_disposition(ward: Ward, row: str) -> None:
    code, steps = DISPOSITIONS[row]
    ward.stay(code=code)
    assert set(ward.tasks()) == steps
    assert all(task.assignee == "care_coordinator" for step, task in ward.tasks().items() if step not in HIGH)
    [stay] = ward.chart("1").encounters
    assert stay.status is EncounterStatus.FINISHED


@pytest.mark.parametrize("code", ["09", "30", "31", "39"])
def test_09_30_is_not_a_discharge_the_transition_is_rejected_and_a_data_quality_item_raised(
    ward: Ward, code: str
) -> None:
    ward.event("A01", SINCE, since=SINCE)
    outcome = ward.event("A03", HOME, since=SINCE, left=HOME, code=code, dg1=SICK)
    [stay] = ward.chart("1").encounters
    assert (stay.status, ward.tasks()) == (EncounterStatus.ACTIVE, {})
    assert [hold.code.value for hold in outcome.holds] == ["disposition-is-no-discharge"]
    assert QualityKind.DISPOSITION_NO_DISCHARGE in [item.kind for item in outcome.quality]


@pytest.mark.parametrize("code", ["20", "40", "41", "42"])
def test_20_40_41_42_death_cancels_all(ward: Ward, code: str) -> None:
    ward.stay("V0", left=HOME - 20 * DAY)
    ward.stay(code=code)
    assert ward.chart("1").patient.deceased is True
    assert set(ward.tasks()) <= {"death/patient_died"}


def test_02_a03_and_an_a01_elsewhere_within_24_hours_are_one_episode(ward: Ward) -> None:
    came, left = HOME - 40 * DAY + 20 * HOUR, HOME - 30 * DAY
    for mrn, code in (("1", "01"), ("2", "02")):
        ward.now = datetime(2025, 12, 1, tzinfo=UTC)
        ward.stay(f"A{mrn}", mrn=mrn, left=HOME - 40 * DAY, code=code)
        ward.event("A01", came, f"B{mrn}", mrn=mrn, since=came)
        ward.event("A03", left, f"B{mrn}", mrn=mrn, since=came, left=left, code="01")
        ward.stay(f"C{mrn}", mrn=mrn)
    assert counts_two_admissions(ward.chart("1"), "MRN:C1")
    assert not counts_two_admissions(ward.chart("2"), "MRN:C2")


def counts_two_admissions(chart: Chart, stay: str) -> bool:
    """Before the stay, in a year."""
    [score] = [one for one in chart.scores if (one.model, one.encounter) == ("seed", stay)]
    return any(factor.name == "admissions_12m" for factor in score.factors)


def test_07_no_automated_texts_are_sent(ward: Ward) -> None:
    outcome = ward.stay(code="07")
    assert {one.operation for one in outcome.deliveries} <= {
        Operation.UPSERT_PATIENT, Operation.UPSERT_ENCOUNTER, Operation.UPSERT_SCORE, Operation.UPSERT_TASK,
    }  # fmt: skip
    assert "no automated messages" in ward.tasks()["urgent_call"].reason


# --- the post-discharge protocol -------------------------------------------------------------------------------------

BANDS: dict[Band, dict[str, tuple[str, timedelta]]] = {
    Band.HIGH: {
        "medication_reconciliation": ("pharmacist", timedelta(hours=24)),
        "pcp_follow_up": ("care_coordinator", timedelta(days=3, hours=-1)),  # summer time begins on Sunday
        "specialist_follow_up": ("care_coordinator", timedelta(days=7, hours=-1)),
        "care_coordinator_alert": ("care_coordinator", timedelta(hours=4)),
        "on_call_page": ("on_call_physician", timedelta(minutes=5)),
    },
    Band.MODERATE: {"pcp_follow_up": ("care_coordinator", timedelta(days=7, hours=-1))},
    Band.LOW: {
        "medication_reconciliation": ("pharmacist", timedelta(days=14, hours=-1)),
        "education": ("care_coordinator", timedelta(days=3, hours=-1)),
    },
}
OF_BAND: dict[Band, dict[str, Any]] = {
    Band.HIGH: {"dg1": SICK},
    Band.MODERATE: {"dg1": ()},
    Band.LOW: {"dg1": (), "days": 1, "_4": "R"},
}


@pytest.mark.parametrize("band", BANDS)
def test_the_follow_ups_of_a_risk_band(ward: Ward, band: Band) -> None:
    if band is Band.LOW:
        since = HOME - DAY
        ward.event("A01", since, since=since, _4="R")
        ward.event("A03", HOME, since=since, left=HOME, code="01", _4="R")
    else:
        ward.stay(**OF_BAND[band])
    [score] = [one for one in ward.chart("1").scores if one.model == "lace"]
    assert score.band is band
    due = {step: (task.assignee, task.due_at - HOME) for step, task in ward.tasks().items()}
    del due["tcm_contact"]  # of every band
    assert due == BANDS[band]


def test_high_risk_the_on_call_physician_must_acknowledge_within_5_minutes_or_the_next_in_line_is_paged() -> None:
    def discharged() -> Duty:
        duty = Duty()
        duty.send(adt("A01", pv1={3: "W^1^A", 4: "E", 44: "20260220080000"}))
        duty.send(adt("A03", at="20260306130000", pv1={36: "01", 45: "20260306130000", 44: "20260220080000", 4: "E"}))
        duty.ring()
        return duty

    unanswered, answered = discharged(), discharged()
    first = unanswered.page.level
    ack(answered)
    for duty in (unanswered, answered):
        duty.later(4.9)
        assert duty.page.level == first
        duty.later(0.2)
    assert (unanswered.page.level, answered.page.level) == (first + 1, first)
    assert answered.page.state is PageState.ACKNOWLEDGED


def test_a_patient_who_misses_the_visit_in_time_raises_an_alert_to_the_pcp() -> None:
    duty = Duty()
    duty.send(adt("A01", pv1={4: "E", 44: "20260220080000"}))
    duty.send(adt("A03", at="20260306130000", pv1={36: "01", 45: "20260306130000", 44: "20260220080000", 4: "E"}))
    duty.later(3 * 24 * 60 - 120)

    def alerts() -> list[tuple[str | None, str]]:
        visit = {task.id for task in duty.chart().tasks if task.kind == "pcp_follow_up"}
        return [(task.assignee, task.reason) for task in duty.chart().tasks if task.raised_for in visit]

    assert alerts() == []
    duty.later(180)
    [(assignee, reason)] = alerts()
    assert assignee == "primary_care"
    assert "visit" in reason
    duty.later(14 * 24 * 60)
    assert len(alerts()) == 1


def test_tcm_contact_within_2_business_days_of_discharge_and_two_attempts_are_asked_for(ward: Ward) -> None:
    ward.stay()  # on a Friday morning
    task = ward.tasks()["tcm_contact"]
    assert task.due_at.astimezone(UTC) == datetime(2026, 3, 10, 14, 0, tzinfo=UTC)  # Tuesday, in summer time
    assert task.attempts_wanted == 2


def test_tcm_visit_within_7_days_for_high_complexity_and_within_14_else(ward: Ward) -> None:
    ward.stay()
    assert ward.tasks()["pcp_follow_up"].due_at <= HOME + 7 * DAY
    ward.stay("V2", mrn="2", dg1=())
    assert ward.tasks(mrn="2")["pcp_follow_up"].due_at <= HOME + 14 * DAY


def test_tcm_medication_reconciliation_no_later_than_the_visit(ward: Ward) -> None:
    ward.stay()
    tasks = ward.tasks()
    assert tasks["medication_reconciliation"].due_at <= tasks["pcp_follow_up"].due_at
    assert tasks["medication_reconciliation"].due_at <= HOME + 30 * DAY  # HEDIS TRC


@pytest.mark.parametrize("code", ["06", "86"])
def test_hedis_trc_notice_of_discharge_within_2_days(ward: Ward, code: str) -> None:
    ward.stay(code=code)
    (notice,) = [task for task in ward.tasks().values() if task.kind == "notice_of_discharge"]
    assert notice.due_at <= HOME + 2 * DAY


def test_hedis_trc_engagement_within_30_days(ward: Ward) -> None:
    for number, (band, more) in enumerate((("high", SICK), ("moderate", ())), 1):
        ward.stay(f"V{number}", mrn=str(number), dg1=more)
        assert ward.tasks(mrn=str(number))["tcm_contact"].due_at <= HOME + 30 * DAY, band


# --- what users of such systems complain about -----------------------------------------------------------------------


@pytest.mark.parametrize(("trigger", "later"), [("A03", timedelta()), ("A03", HOUR), ("A08", HOUR), ("A01", -HOUR)])
def test_duplicate_notices_one_for_each_transition_by_meaning(ward: Ward, trigger: str, later: timedelta) -> None:
    """By assigner and visit number, event and time: whatever control id or event says it again."""
    ward.stay()
    before = ward.chart("1")
    outcome = ward.event(trigger, HOME + later, since=SINCE, left=HOME, code="01", dg1=SICK)
    assert ward.chart("1").tasks == before.tasks
    assert told(outcome) == 0
    assert list(newly("discharge", before, ward.chart("1"))) == []


def test_false_discharges_a13_takes_everything_back(ward: Ward) -> None:
    planned = went_home(ward)
    outcome = ward.event("A13", HOME + HOUR, since=SINCE)
    assert ward.tasks() == {}
    assert told(outcome) == len(planned)
    [stay] = ward.chart("1").encounters
    assert (stay.status, stay.discharged_at, stay.disposition) == (EncounterStatus.ACTIVE, None, None)


def test_false_discharges_an_orphan_a13_is_parked_and_not_errored(ward: Ward) -> None:
    ward.event("A01", SINCE, since=SINCE)
    ward.now = HOME + HOUR
    outcome = ward.event("A13", HOME + HOUR, since=SINCE)
    assert outcome.dead_letter is None
    assert [hold.code.value for hold in outcome.holds] == ["nothing-to-cancel"]
    ward.event("A03", HOME, since=SINCE, left=HOME, code="01", dg1=SICK)  # it comes behind its cancel
    assert ward.tasks() == {}
    assert ward.chart("1").encounters[0].status is EncounterStatus.ACTIVE


@pytest.mark.parametrize("class_", ["I", "OBS"])
def test_observation_stays_are_mapped_by_the_site_plan_yes_readmission_index_no(ward: Ward, class_: str) -> None:
    for number, days in enumerate((90, 60)):
        ward.now = datetime(2025, 11, 1, tzinfo=UTC)
        ward.stay(f"V{number}", left=HOME - days * DAY, _2=class_)
    ward.stay("V9", _2="OBS")
    assert set(ward.tasks("V9")) == HIGH
    assert counts_two_admissions(ward.chart("1"), "MRN:V9") is (class_ == "I")


@pytest.mark.parametrize(
    ("segments", "pv1", "provider"),
    [
        (("PD1||||77^Welby^Marcus",), {}, "77"),
        ((), {"_52": "77^Welby^Marcus"}, "77"),
        (("ROL|1|AD|PP^Primary care provider|77^Welby^Marcus",), {}, "77"),
        (("ROL|1|AD|FHCP|77^Welby^Marcus",), {}, "77"),
        (("PRT|1|AD||PP|77^Welby^Marcus",), {}, "77"),
        (("ROL|1|AD|AT|88^House^Greg", "ROL|2|AD|PP|77^Welby^Marcus"), {}, "77"),
        (("PD1||||77^Welby^Marcus", "ROL|1|AD|PP|88^House^Greg"), {"_52": "99^Grey^M"}, "77"),
        (("ROL|1|AD|AT|88^House^Greg",), {"_7": "88^House^Greg"}, None),
    ],
    ids=["PD1-4", "PV1-52", "ROL PP", "ROL FHCP", "PRT", "of several roles", "PD1-4 before the others", "none"],
)  # fmt: skip
def test_the_primary_care_provider_is_read_from_pd1_4_pv1_52_rol_and_prt(
    ward: Ward, segments: tuple[str, ...], pv1: dict[str, str], provider: str | None
) -> None:
    ward.event("A01", SINCE, since=SINCE, dg1=segments, **pv1)
    found = ward.chart("1").patient.pcp
    assert (found.id if found is not None else None) == provider


def test_late_notices_when_past_due_the_clocks_are_computed_anew(ward: Ward) -> None:
    late = 4 * DAY
    ward.event("A01", SINCE, since=SINCE)
    ward.event("A03", HOME, since=SINCE, left=HOME, code="01", dg1=SICK, heard=HOME + late)
    assert ward.tasks()
    assert all(task.due_at >= HOME + late + 4 * HOUR for task in ward.tasks().values())
    assert "on_call_page" not in ward.tasks()


@pytest.mark.parametrize(
    ("late", "said"),
    [(timedelta(), None), (HOUR, None), (3 * HOUR, "3 hours"), (30 * HOUR, "30 hours"), (4 * DAY, "4 days")],
)
def test_a_late_a03_marks_the_clock_as_started_late_by_how_much(ward: Ward, late: timedelta, said: str | None) -> None:
    ward.event("A01", SINCE, since=SINCE)
    ward.event("A03", HOME, since=SINCE, left=HOME, code="01", dg1=SICK, heard=HOME + late)
    tasks = ward.tasks()
    marked = {step: f"heard of {said} after the discharge" in task.reason for step, task in tasks.items()}
    assert marked["care_coordinator_alert"] is (said is not None)
    moved = {step for step, task in tasks.items() if task.due_at - (HOME + late) in (4 * HOUR, timedelta(minutes=5))}
    assert {step for step, yes in marked.items() if yes} == (moved if said is not None else set())
    assert sum("heard of" in task.reason for task in tasks.values()) == sum(marked.values())
    before = ward.chart("1").tasks
    ward.event("A08", HOME + late + DAY, since=SINCE, left=HOME, code="01", dg1=SICK)  # it stays so
    assert ward.chart("1").tasks == before


def test_why_did_i_not_get_this_every_decision_keeps_its_reason(ward: Ward) -> None:
    reasons = {}
    for number, (code, class_) in enumerate((("01", "I"), ("02", "I"), ("01", "O"), ("", "I"))):
        outcome = ward.stay(f"V{number}", mrn=str(number), code=code, _2=class_)
        reasons[code, class_] = ward.said(outcome)
    assert reasons == {
        ("01", "I"): [Reason.PLANNED], ("02", "I"): [Reason.DISPOSITION], ("01", "O"): [Reason.CLASS_NOT_PLANNED],
        ("", "I"): [Reason.DISPOSITION_ASKED],
    }  # fmt: skip


# --- clocks of a protocol --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spring", [True, False])
def test_within_24_hours_is_elapsed_and_3_days_are_on_the_clock_on_the_wall(ward: Ward, spring: bool) -> None:
    left = datetime(2026, 3, 7, 15, 0, tzinfo=UTC) if spring else datetime(2026, 10, 31, 14, 0, tzinfo=UTC)  # 10:00
    ward.stay(left=left)
    tasks = ward.tasks()
    assert tasks["medication_reconciliation"].due_at - left == timedelta(hours=24)
    assert tasks["pcp_follow_up"].due_at - left == timedelta(days=3) + (-HOUR if spring else HOUR)


@pytest.mark.parametrize(
    ("left", "due"),
    [
        ("2026-03-02T10:00", "2026-03-04T10:00"), ("2026-03-06T10:00", "2026-03-10T10:00"),
        ("2026-11-25T10:00", "2026-11-30T10:00"), ("2026-07-01T23:30", "2026-07-06T23:30"),
    ],
    ids=["the day of discharge is not counted", "a weekend", "thanksgiving", "a holiday that is observed before"],
)  # fmt: skip
def test_2_business_days_are_those_of_the_facility_with_its_holidays(ward: Ward, left: str, due: str) -> None:
    ward.stay(left=datetime.fromisoformat(left).replace(tzinfo=NEW_YORK))
    assert ward.tasks()["tcm_contact"].due_at == datetime.fromisoformat(due).replace(tzinfo=NEW_YORK)


def test_a13_and_a03_again_start_a_new_plan_and_old_evidence_is_kept(ward: Ward) -> None:
    planned = went_home(ward)
    ward.done("medication_reconciliation")
    ward.event("A13", HOME + HOUR, since=SINCE)
    again = HOME + DAY
    ward.event("A03", again, since=SINCE, left=again, code="01", dg1=SICK)
    tasks = {task.id: task for task in ward.chart("1").tasks}
    assert {task.id for task in ward.tasks().values()}.isdisjoint(planned.values())
    assert set(ward.tasks()) == HIGH
    assert tasks[planned["medication_reconciliation"]].state is TaskState.DONE


def test_a_protocol_edit_never_alters_running_plans(ward: Ward) -> None:
    ward.stay()
    before = ward.chart("1").tasks
    text = PROTOCOL.read_text(encoding="utf-8").replace('version: "2"', 'version: "3"')
    edited = load_protocol(parse(text.replace("due: {hours: 24}", "due: {hours: 9}"), PROTOCOL.name))
    planner = Planner(edited, "lace")
    ward.channel = dataclasses.replace(ward.channel, planner=planner, planners={edited.name: planner})
    ward.event("A08", HOME + HOUR, since=SINCE, left=HOME, code="01", dg1=SICK, _3="ICU^2^2")
    assert ward.chart("1").tasks == before
    ward.stay("V2", mrn="2")
    (changed,) = [task for task in ward.chart("2").tasks if task.step == "medication_reconciliation"]
    assert (changed.protocol_version, changed.due_at) == ("3", HOME + 9 * HOUR)


# --- worklists -------------------------------------------------------------------------------------------------------


def test_no_task_is_without_a_due_date_an_owner_role_and_a_reason(ward: Ward) -> None:
    for number, code in enumerate(("01", "03", "07", "21", "50", "", "77")):
        ward.stay(f"V{number}", mrn=str(number), code=code)
        assert all(task.due_at and task.assignee and task.reason for task in ward.chart(str(number)).tasks)


def test_tasks_of_closed_plans_are_not_listed_as_open(ward: Ward) -> None:
    for number, (trigger, more) in enumerate((("A11", {}), ("A13", {}), ("A23", {}), ("A08", {"code": "02"}))):
        mrn, visit = str(number), f"V{number}"
        ward.stay(visit, mrn=mrn)
        ward.event(trigger, HOME + HOUR, visit, mrn=mrn, since=SINCE, **({"left": HOME} | more if more else {}))
        assert ward.tasks(mrn=mrn) == {}, trigger
        assert {task.state for task in ward.chart(mrn).tasks} == {TaskState.RETRACTED}, trigger


def test_each_reminder_comes_once(ward: Ward) -> None:
    """Each extra reminder makes the next one less believed: what is said again by messages raises nothing again."""
    ward.stay()
    ids = [task.id for task in ward.chart("1").tasks]
    for hour in range(1, 6):
        ward.event("A08", HOME + hour * HOUR, since=SINCE, left=HOME, code="01", dg1=SICK, _3=f"W{hour}")
    assert [task.id for task in ward.chart("1").tasks] == ids
