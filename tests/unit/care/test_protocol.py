"""Each row of the protocol is in mappings/protocols/post-discharge.test.yaml; here is how tasks live on after it."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moments import moments

from engine.care.calendar import BusinessCalendar
from engine.care.dispositions import load_dispositions
from engine.care.protocol import Protocol, load_protocol
from engine.care.tasks import end, is_withdrawn, reconcile, resume, suspend
from engine.domain.chart import Chart
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.patient import Identifier, Patient
from engine.domain.score import Band
from engine.domain.task import Task, TaskState
from engine.errors import SettingsError
from engine.settings import Calendar
from engine.yamlfile import parse

MAPPINGS = Path(__file__).parents[3] / "mappings"
TEXT = (MAPPINGS / "protocols/post-discharge.yaml").read_text(encoding="utf-8")
PROTOCOL = load_protocol(parse(TEXT, "post-discharge.yaml"))
RECENT = TEXT.replace("# discharge_age_days_max: 30", "discharge_age_days_max: 30")
"""With a limit of its own to the age of a discharge."""
UNLIMITED = load_protocol(
    parse(TEXT.replace("# discharge_age_days_max: 30", "discharge_age_days_max: unlimited"), "post-discharge.yaml")
)
DISPOSITIONS = load_dispositions(
    parse((MAPPINGS / "care/dispositions.yaml").read_text(encoding="utf-8"), "dispositions.yaml")
)
CALENDAR = BusinessCalendar(Calendar())
NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)  # a Monday, 10:00 in New York
HOUR = timedelta(hours=1)


def key(*parts: str) -> str:
    return hashlib.blake2b("\x1f".join(parts).encode(), key=b"test", digest_size=16).hexdigest()


def stay(**fields: Any) -> Encounter:
    usual = {
        "key": "ADT1:VN-77",
        "class_": "I",
        "status": EncounterStatus.FINISHED,
        "discharged_at": "2026-03-02T10:00-05:00",
        "disposition": "01",
        "discharges": 1,
    }
    return Encounter(**moments({**usual, **fields}))


def plan(
    band: Band | None = Band.HIGH,
    tasks: tuple[Task, ...] = (),
    now: datetime = NOW,
    protocol: Protocol = PROTOCOL,
    **fields: Any,
) -> tuple[Task, ...]:
    encounter = stay(**fields)
    patient = Patient(identifiers=(Identifier(value="558181838", authority="MRN"),))
    return protocol.plan(
        Chart(id="c1", patient=patient, encounters=(encounter,), tasks=tasks),
        encounter,
        band=band,
        disposition=DISPOSITIONS.of(encounter.disposition),
        calendar=CALENDAR,
        now=now,
        key=key,
    ).tasks


def replan(tasks: tuple[Task, ...], band: Band | None = Band.HIGH, **changes: Any) -> tuple[Task, ...]:
    return reconcile(tasks, plan(band, tasks, **changes), at=NOW, why="the discharge data changed")


def kinds(tasks: tuple[Task, ...], state: TaskState = TaskState.OPEN) -> list[str]:
    return sorted(task.kind for task in tasks if task.state is state)


HIGH = [
    "care_coordinator_alert",
    "medication_reconciliation",
    "on_call_page",
    "pcp_follow_up",
    "specialist_follow_up",
    "tcm_contact",
]

# --- patient classes --------------------------------------------------------------------------------------------------


def test_a_class_that_stands_in_both_lists_is_a_problem() -> None:
    text = TEXT.replace("classes_without_plan: [E,", "classes_without_plan: [OBS, E,")
    with pytest.raises(SettingsError, match=r"classes_without_plan\[0\].*which is it"):
        load_protocol(parse(text, "protocol.yaml"))


def test_a_protocol_that_plans_a_class_of_the_default_list_and_says_no_more_plans_it() -> None:
    text = re.sub(r"(?m)^classes_without_plan:.*$", "", TEXT).replace("[I, OBS]", "[I, OBS, B]")
    protocol = load_protocol(parse(text, "protocol.yaml"))
    assert kinds(plan(class_="B", protocol=protocol)) == HIGH
    assert kinds(plan(class_="E", protocol=protocol)) == []


# --- identity --------------------------------------------------------------------------------------------------------


def test_the_same_state_asks_for_the_same_tasks() -> None:
    tasks = replan(())
    assert kinds(tasks) == HIGH
    assert len({task.id for task in tasks}) == len(tasks)
    assert plan(tasks=tasks) == plan()
    assert replan(tasks) == tasks


def test_an_id_tells_nothing_of_the_patient() -> None:
    for task in plan():
        assert not any(text in task.id for text in ("VN-77", "ADT1", "558181838"))


def test_another_discharge_of_the_same_stay_asks_for_other_tasks() -> None:
    first = {task.id for task in plan(discharges=1)}
    second = {task.id for task in plan(discharges=2)}
    other = {task.id for task in plan(key="ADT1:VN-78")}
    assert not first & second
    assert not first & other
    assert {task.discharge for task in plan(discharges=2)} == {2}


def test_a_cancelled_discharge_retracts_and_the_next_one_plans_afresh() -> None:
    first = replan(())
    cancelled = reconcile(first, (), at=NOW, why="the discharge was cancelled")
    assert kinds(cancelled, TaskState.RETRACTED) == HIGH
    assert {task.end_reason for task in cancelled} == {"the discharge was cancelled"}
    again = replan(cancelled, discharges=2)
    assert kinds(again) == HIGH
    assert kinds(again, TaskState.RETRACTED) == HIGH


# --- corrections -----------------------------------------------------------------------------------------------------


def test_a_lower_band_retracts_what_is_no_longer_wanted_and_moves_what_is() -> None:
    high = replan(())
    moderate = replan(high, Band.MODERATE, now=NOW + HOUR)
    assert kinds(moderate) == ["pcp_follow_up", "tcm_contact"]
    assert kinds(moderate, TaskState.RETRACTED) == sorted(set(HIGH) - {"pcp_follow_up", "tcm_contact"})
    visit = next(task for task in moderate if task.kind == "pcp_follow_up")
    assert visit.due_at == datetime(2026, 3, 9, 14, 0, tzinfo=UTC)
    assert visit.created_at == NOW
    assert "within 7 days" in visit.reason


def test_a_correction_of_a_correction_brings_back_what_was_retracted_as_new_tasks() -> None:
    home = replan(())
    facility = replan(home, disposition="03")
    assert kinds(facility) == ["care_coordinator_alert"]
    home_again = replan(facility)
    assert kinds(home_again) == [kind for kind in HIGH if kind != "on_call_page"]  # nobody is called twice
    assert {task.id for task in home if task.state is TaskState.OPEN} <= {
        task.id for task in home_again if task.state is TaskState.RETRACTED
    }
    assert replan(home_again) == home_again


def test_what_was_done_is_not_asked_for_again() -> None:
    tasks = tuple(end(task, TaskState.DONE, at=NOW) if task.kind == "tcm_contact" else task for task in replan(()))
    after = replan(replan(tasks, Band.MODERATE), Band.HIGH)
    assert [task.state for task in after if task.kind == "tcm_contact"] == [TaskState.DONE]


def test_what_a_readmission_set_aside_is_not_planned_anew() -> None:
    suspended = tuple(suspend(task, "ADT1:VN-99", at=NOW) for task in replan(()))
    assert {(task.state, task.ended_at) for task in suspended} == {(TaskState.CANCELLED, NOW)}
    assert replan(suspended) == suspended


def test_a_task_that_is_put_back_is_exactly_what_it_was_also_when_its_reason_speaks_of_a_suspension() -> None:
    tasks = [msgspec.structs.replace(task, reason=f"{task.reason} — suspended: not this one") for task in plan()]
    assert [resume(suspend(task, "ADT1:VN-99", at=NOW)) for task in tasks] == tasks
    done = end(tasks[0], TaskState.DONE, at=NOW, by="anna")
    assert resume(done) == done


def test_a_person_keeps_the_task_that_was_given_to_them() -> None:
    tasks = tuple(msgspec.structs.replace(task, assignee="nurse-lee") for task in replan(()))
    moved = replan(tasks, discharged_at="2026-03-02T09:00-05:00")
    assert {task.assignee for task in moved} == {"nurse-lee"}


def test_a_corrected_discharge_time_moves_the_due_times() -> None:
    tasks = replan(())
    earlier = replan(tasks, discharged_at="2026-03-02T09:00-05:00")
    due = {task.kind: task.due_at for task in tasks}
    for task in earlier:
        if task.kind not in {"care_coordinator_alert", "on_call_page"}:  # these are counted from the message already
            assert task.due_at == due[task.kind] - HOUR


# --- late messages ---------------------------------------------------------------------------------------------------

DAYS = st.integers(0, 60)


@pytest.mark.parametrize("disposition", ["01", "03", "07", "50", "21", ""])
def test_a_discharge_that_is_too_old_asks_for_nothing(disposition: str) -> None:
    recent = load_protocol(parse(RECENT, "post-discharge.yaml"))
    for protocol, days in ((PROTOCOL, 14), (recent, 30)):  # by default its longest due time
        last, first = NOW + timedelta(days=days), NOW + timedelta(days=days, seconds=1)
        assert plan(now=last, disposition=disposition, protocol=protocol)
        assert plan(now=first, disposition=disposition, protocol=protocol) == ()
        assert plan(now=first, disposition=disposition, protocol=UNLIMITED)


def test_what_was_asked_for_in_time_is_still_wanted_when_the_discharge_is_old() -> None:
    recent = load_protocol(parse(RECENT, "post-discharge.yaml"))
    tasks = replan((), Band.MODERATE, protocol=recent)
    later = replan(tasks, Band.HIGH, now=NOW + timedelta(days=40), protocol=recent)
    assert kinds(later) == kinds(tasks)
    assert kinds(later, TaskState.RETRACTED) == []


@given(DAYS, st.sampled_from([*Band, None]), st.sampled_from(["01", "06", "03", "07", "50", "21", ""]))
def test_no_task_is_born_overdue(days_late: int, band: Band | None, disposition: str) -> None:
    now = NOW + timedelta(days=days_late)
    for task in plan(band, now=now, disposition=disposition):
        assert task.due_at > now
        assert task.escalate_at is None or task.escalate_at >= task.due_at


@given(st.lists(st.integers(1, 100), max_size=5))
def test_later_messages_do_not_put_off_what_was_promised(hours: list[int]) -> None:
    tasks = replan((), now=NOW + timedelta(days=4))
    promised = {task.id: task.due_at for task in tasks}
    now = NOW + timedelta(days=4)
    for step in hours:
        now += step * HOUR
        tasks = replan(tasks, now=now)
    assert {task.id: task.due_at for task in tasks} == promised


def test_without_a_discharge_time_the_clock_starts_with_the_first_message() -> None:
    tasks = replan((), discharged_at=None)
    assert replan(tasks, discharged_at=None, now=NOW + 9 * HOUR) == tasks
    visit = next(task for task in tasks if task.kind == "pcp_follow_up")
    assert visit.due_at == NOW + timedelta(days=3)


@pytest.mark.parametrize("placeholder", ["0001-01-01", "9999-12-31T23:59-05:00", "2026", "2026-03"])
def test_a_discharge_time_that_is_no_time_counts_from_the_message(placeholder: str) -> None:
    assert plan(discharged_at=placeholder) == plan(discharged_at=None)


def test_a_higher_band_found_late_shortens_what_is_open() -> None:
    tasks = replan((), Band.MODERATE)
    five_days_on = NOW + timedelta(days=5)
    raised = replan(tasks, Band.HIGH, now=five_days_on)
    visit = next(task for task in raised if task.kind == "pcp_follow_up")
    assert visit.due_at == five_days_on + 4 * HOUR


# --- reconcile holds for any state ----------------------------------------------------------------------------------

POOL = tuple(msgspec.structs.replace(task, id=f"t{number}") for number, task in enumerate(plan()))


def some_tasks(*, open_only: bool) -> st.SearchStrategy[tuple[Task, ...]]:
    def changed(task: Task, state: TaskState, hours: int) -> Task:
        return msgspec.structs.replace(task, state=state, due_at=task.due_at + hours * HOUR)

    states = st.just(TaskState.OPEN) if open_only else st.sampled_from(TaskState)
    task = st.builds(changed, st.sampled_from(POOL), states, st.integers(0, 3))
    return st.lists(task, max_size=6, unique_by=lambda task: task.id).map(tuple)


@given(existing=some_tasks(open_only=False), wanted=some_tasks(open_only=True))
def test_reconcile_is_idempotent_adds_once_and_touches_only_what_stands(
    existing: tuple[Task, ...], wanted: tuple[Task, ...]
) -> None:
    after = reconcile(existing, wanted, at=NOW, why="why")
    assert reconcile(after, wanted, at=NOW + HOUR, why="other") == after
    by_id = {task.id: task for task in after}
    assert len(by_id) == len(after)
    assert set(by_id) == {task.id for task in existing} | {task.id for task in wanted}
    asked = {task.id: task for task in wanted}
    for task in existing:
        if task.id in asked and task.kind == "on_call_page" and is_withdrawn(task):
            assert by_id[task.id].stands
        elif not task.stands:
            assert by_id[task.id] == task
        elif task.id in asked:
            assert (by_id[task.id].state, by_id[task.id].due_at) == (task.state, asked[task.id].due_at)
        else:
            assert by_id[task.id].state is TaskState.RETRACTED


# --- the document ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "key_of_problem"),
    [
        ("kind: education", "kind: fax", "plans.home_plan.low[1].kind"),
        ("{business_days: 2}", "{workdays: 2}", "plans.home_plan.every[0].due.workdays"),
        ("{business_days: 2}", "{business_days: 2, hours: 1}", "plans.home_plan.every[0].due"),
        ("{business_days: 2}", "{}", "plans.home_plan.every[0].due"),
        ("  transfer: []\n", "", "plans.transfer"),
        ("  transfer: []", "  transfer: []\n  death: []", "plans.death"),
        ("kind: specialist_follow_up", "kind: pcp_follow_up", "plans.home_plan.high[2]"),
        ("kind: specialist_follow_up", "kind: tcm_contact", "plans.home_plan.high[2]"),
        ("classes: [I, OBS]", "classes: []", "classes"),
        ("discharge_age_days_max: 30", "discharge_age_days_max: 13", "discharge_age_days_max"),
        ("due: {business_days: 2}", "due: {business_days: 18}", "discharge_age_days_max"),
        ("discharge_age_days_max: 30", "discharge_age_days_max: 0", "discharge_age_days_max"),
        ("assignee: pharmacist", "assignee: The Pharmacist", "plans.home_plan.high[0].assignee"),
    ],
)
def test_a_wrong_document_is_refused_with_the_place_of_what_is_wrong(old: str, new: str, key_of_problem: str) -> None:
    wrong = RECENT.replace(old, new, 1)
    assert wrong != RECENT
    with pytest.raises(SettingsError) as caught:
        load_protocol(parse(wrong, "post-discharge.yaml"))
    assert key_of_problem in [problem.key for problem in caught.value.problems]
    assert all(problem.line > 1 for problem in caught.value.problems)


@pytest.mark.parametrize("action", ["unknown", "conflict", "against_advice"])
def test_a_protocol_can_not_forget_a_patient_who_is_on_hold(action: str) -> None:
    document = parse(TEXT, "post-discharge.yaml")
    document.value["plans"][action] = []
    with pytest.raises(SettingsError, match=action):
        load_protocol(document)


# --- steps that contradict each other --------------------------------------------------------------------------------

_STEP = """      - kind: tcm_contact
        due: {business_days: 2}
"""
_MISSED = "          - after: {hours: 0}\n            owner: care_coordinator\n        assignee: pharmacist"
_ALERT = (
    "          - after: {hours: 0}\n            alert:\n              kind: pcp_alert\n              due: {hours: 24}\n"
)
_PROOF = "  physiotherapy:\n    - {classes: [O, R]"


@pytest.mark.parametrize(
    ("old", "new", "place", "remedy"),
    [
        (_MISSED, _MISSED.replace("owner: care_coordinator", "owner: pharmacist"), "escalate[0].owner",
         "pharmacist has the task already: name somebody else"),
        (_MISSED, _MISSED.replace(
            "        assignee", "          - after: {days: 1}\n            owner: care_coordinator\n        assignee"),
         "escalate[1].owner", "care_coordinator has the task already"),
        (_MISSED, _MISSED.replace("{hours: 0}", "{hours: 5}").replace(
            "        assignee", "          - after: {minutes: 30}\n            page: nursing\n        assignee"),
         "escalate[1].after", "comes before the one above it"),
        (_MISSED, _MISSED.replace("        assignee", "          - after: {hours: 1}\n        assignee"),
         "escalate[1]", "does nothing: needs owner, alert or page"),
        (_MISSED, _MISSED.replace("owner: care_coordinator", "page: nursing").replace(
            "        assignee", "        page: nursing\n        assignee"),
         "escalate[0].page", "nursing is paged already"),
        (_MISSED, _MISSED.replace("owner: care_coordinator", "page: nursing").replace(
            "        assignee", "          - after: {days: 1}\n            page: chief\n        assignee"),
         "escalate[1].page", "nursing is paged already"),
        (_ALERT, _ALERT.replace("pcp_alert", "pcp_alarm"), "escalate[0].alert.kind", "did you mean pcp_alert"),
        (_ALERT + "              assignee: primary_care", _ALERT.replace("pcp_alert", "tcm_contact")
         + "              assignee: care_coordinator", "escalate[0].alert", "the same task again"),
        (_PROOF, _PROOF.replace("physiotherapy", "physio"), "proofs.physio", "did you mean physiotherapy"),
        (_PROOF, _PROOF.replace("[O, R]", "[O, OBS]"), "proofs.physiotherapy[0].classes[1]", "proves no visit"),
        (_PROOF, _PROOF.replace("[O, R]", "[O], within: {hours: 1}, services: [X]}\n    - {classes: [R]"),
         "proofs.physiotherapy[0].within", "is over before the task is due"),
        ("contact: {attempts: 2}", "contact: {attempts: 0}", "contact.attempts", "greater than or equal to 1"),
        ("escalate: {hours: 0}\n      assignee: care_coordinator", "escalate: []\n      assignee: care_coordinator",
         "escalate", "at least one"),
    ],
)  # fmt: skip
def test_steps_that_contradict_each_other_are_told_with_place_and_remedy(
    old: str, new: str, place: str, remedy: str
) -> None:
    assert old in TEXT
    with pytest.raises(SettingsError) as wrong:
        load_protocol(parse(TEXT.replace(old, new, 1), "post-discharge.yaml"))
    found = [problem for problem in wrong.value.problems if problem.key.endswith(place)]
    assert found, [(problem.key, problem.message) for problem in wrong.value.problems]
    assert any(remedy in problem.message for problem in found), found
    assert all(problem.line > 1 for problem in found)


def test_a_mere_time_of_escalation_says_when_a_task_is_missed() -> None:
    text = re.sub(
        r"(?ms)^        escalate:\n.*?^        assignee", "        escalate: {hours: 6}\n        assignee", TEXT
    )
    for task in plan(protocol=load_protocol(parse(text, "p.yaml"))):
        if task.kind in {"pcp_follow_up", "specialist_follow_up", "tcm_contact"}:
            assert task.escalate_at == task.due_at + 6 * HOUR
            assert [(rung.at, rung.owner, rung.alert) for rung in task.ladder] == [(task.escalate_at, None, None)]


def test_a_task_knows_the_protocol_it_was_made_with() -> None:
    assert {(task.protocol_version, task.protocol_digest) for task in plan()} == {(PROTOCOL.version, PROTOCOL.digest)}
    same = load_protocol(parse("# a comment\n" + TEXT, "p.yaml"))
    other = load_protocol(parse(TEXT.replace("{business_days: 2}", "{business_days: 3}"), "p.yaml"))
    assert (same.digest, other.version) == (PROTOCOL.digest, PROTOCOL.version)
    assert other.digest != PROTOCOL.digest
