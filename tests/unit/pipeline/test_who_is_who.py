"""Who is who: stays and numbers that move, patients who are linked, deletions. What can't be told is asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from heart import Heart, adt, merge
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.chart import Chart
from engine.domain.delivery import Operation
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.message import EntryState
from engine.domain.outcome import Outcome
from engine.domain.patient import Identifier
from engine.domain.quality import QualityKind
from engine.domain.task import SIDE_BY_SIDE, TaskState

X, Y = "1^^^MRN^MR", "2^^^MRN^MR"
LATER, LATEST = "20260307120000", "20260308120000"
JAY = {5: "Roe^Jay", 7: "19700101"}


@pytest.fixture
def heart() -> Heart:
    """Mrs. Doe is discharged from stay V1 (account A1), and has a plan; Mr. Roe is known."""
    heart = Heart()
    heart.now = datetime(2026, 3, 9, 18, 0, tzinfo=UTC)
    heart.send(adt("A01", at="20260301120000", pid3=X, pid={18: "A1"}, pv1={}))
    heart.send(adt("A03", at="20260305120000", pid3=X, pid={18: "A1"}, pv1={36: "01"}))
    heart.send(adt("A28", pid3=Y, pid=JAY))
    return heart


def stays(chart: Chart) -> dict[str, str]:
    return {stay.key: stay.status.value for stay in chart.encounters}


def opened(chart: Chart) -> set[str]:
    return {task.id for task in chart.tasks if task.state is TaskState.OPEN}


def asked(outcome: Outcome) -> list[tuple[str, str | None]]:
    assert outcome.state is EntryState.PROCESSED, outcome.dead_letter
    return [(hold.code, hold.location) for hold in outcome.holds]


def release(heart: Heart, payload: bytes, decision: str) -> Outcome:
    first = heart.entry(payload)
    again = msgspec.structs.replace(heart.entry(payload), replay_of=first.id, replay_root=first.id, decision=decision)
    return heart.work(again)


# --- a stay becomes another patient's


def a45(**more: Any) -> bytes:
    message: dict[str, Any] = {"at": LATER, "pid3": Y, "pid": JAY | {18: "A9"}, "pv1": {}}
    return adt("A45", **(message | {"segments": (f"MRG|{X}||A1||V1^^^MRN",)} | more))


def a44(mrg: str = f"MRG|{X}||A1") -> bytes:
    return adt("A44", at=LATER, pid3=Y, pid=JAY | {18: "A1"}, segments=(mrg,))


def back(at: str) -> bytes:
    """The move is put right: the stay is Mrs. Doe's."""
    mrg = ("MRG|2^^^MRN^MR||A9||V1^^^MRN",)
    return adt("A45", at=at, pid3=X, pid={18: "A1"}, pv1={}, segments=mrg)


def test_a_move_that_was_put_right_is_not_made_again_by_old_news(heart: Heart) -> None:
    heart.send(a45())
    heart.send(back(LATEST))
    assert stays(heart.chart("1")) == {"MRN:V1": "finished"}
    again = adt("A45", at=LATER, pid3=Y, pid=JAY | {18: "A9"}, pv1={}, segments=(f"MRG|{X}||A1||V1^^^MRN ",))
    assert asked(heart.send(again)) == [("move-unclear", "MRG")]
    assert stays(heart.chart("1")) == {"MRN:V1": "finished"}
    assert stays(heart.chart("2")) == {}


def test_moves_that_come_turned_round_leave_the_stay_where_the_newer_one_says(heart: Heart) -> None:
    heart.send(back(LATEST))
    outcome = heart.send(a45())
    assert stays(heart.chart("1")) == {"MRN:V1": "finished"}
    assert outcome.holds or outcome.reason


@pytest.mark.parametrize("message", [a45(), a44(), a45(segments=(f"MRG|{X}",)), a44(f"MRG|{X}")])
def test_a_stay_that_moves_takes_all_that_is_of_it_along(heart: Heart, message: bytes) -> None:
    before = heart.chart("1")
    assert opened(before)
    outcome = heart.send(message)
    assert asked(outcome) == []
    source, target = heart.chart("1"), heart.chart("2")
    assert (stays(source), source.tasks, source.scores) == ({}, (), ())
    assert stays(target) == {"MRN:V1": "finished"}
    assert opened(target) == opened(before)
    assert {score.encounter for score in target.scores} == {"MRN:V1"}
    assert {chart.id: chart.version for chart in outcome.charts} == {
        source.id: before.version + 1,
        target.id: 2,
    }
    assert target.patient.name is not None
    assert target.patient.name.family == "Roe"


def test_the_destinations_of_both_patients_are_told_of_a_stay_that_moves(heart: Heart) -> None:
    outcome = heart.send(a45())
    told = [(d.operation, msgspec.json.decode(d.payload)) for d in outcome.deliveries]
    tasks = [said["task"]["patient_key"] for operation, said in told if operation is Operation.UPSERT_TASK]
    encounters = [said["patient_key"] for operation, said in told if operation is Operation.UPSERT_ENCOUNTER]
    scores = {
        (said["patient_key"], said.get("withdrawn", False))
        for operation, said in told
        if operation is Operation.UPSERT_SCORE
    }
    assert set(tasks) == set(encounters) == {"MRN:2"}
    assert scores == {("MRN:1", True), ("MRN:2", False)}


def test_what_only_moves_is_neither_new_nor_gone(heart: Heart) -> None:
    kinds = {effect.kind for effect in heart.send(a45(pv1=None)).effects}
    assert kinds == {"encounter-moved"}


def test_why_the_old_patient_has_no_plan_is_not_said_of_a_move(heart: Heart) -> None:
    assert {why.reason.value for why in heart.send(a45()).why} & {"no-visit"} == set()


def test_a_move_that_is_said_again_is_no_question_and_changes_nothing(heart: Heart) -> None:
    heart.send(a45())
    before = dict(heart.charts.by_id)
    outcome = heart.send(a45())
    assert asked(outcome) == []
    assert {id_ for id_, chart in heart.charts.by_id.items() if chart.encounters != before[id_].encounters} == set()


def test_later_messages_of_a_stay_that_has_moved_are_the_new_patient_s(heart: Heart) -> None:
    heart.send(a45())
    heart.send(adt("A13", at=LATEST, pid3=Y, pid=JAY, pv1={}))
    assert stays(heart.chart("2")) == {"MRN:V1": "active"}
    outcome = heart.send(adt("A08", at=LATEST, pid3=X, pv1={}))
    assert outcome.dead_letter is not None
    assert outcome.dead_letter.error == "visit-of-another-patient"


def test_a_stay_that_is_known_by_its_account_alone_does_not_come_twice_after_it_has_moved() -> None:
    heart = Heart()
    heart.now = datetime(2026, 3, 9, 18, 0, tzinfo=UTC)
    heart.send(adt("A01", at="20260301120000", pid3=X, pid={18: "A1"}, pv1={19: ""}))
    heart.send(a44())
    (stay,) = heart.chart("2").encounters
    again = heart.send(adt("A08", at=LATEST, pid3=X, pid={18: "A1"}, pv1={19: ""}))
    assert again.dead_letter is not None
    assert again.dead_letter.error == "visit-of-another-patient"
    heart.send(adt("A03", at=LATEST, pid3=Y, pid=JAY | {18: "A1"}, pv1={19: "", 36: "01"}))
    assert stays(heart.chart("2")) == {stay.key: "finished"}


def test_a_stay_that_moves_back_is_at_home_again(heart: Heart) -> None:
    heart.send(a45())
    heart.send(adt("A45", at=LATEST, pid3=X, pv1={}, segments=(f"MRG|{Y}||A9||V1^^^MRN",)))
    assert stays(heart.chart("1")) == {"MRN:V1": "finished"}
    assert stays(heart.chart("2")) == {}
    assert heart.chart("1").renamed.departed == {}
    assert heart.send(adt("A08", at=LATEST, pid3=X, pv1={})).state is EntryState.PROCESSED


def test_the_patient_to_whom_a_stay_moves_may_be_new(heart: Heart) -> None:
    outcome = heart.send(a45(pid3="3^^^MRN^MR"))
    assert asked(outcome) == []
    assert stays(heart.chart("3")) == {"MRN:V1": "finished"}
    assert "patient-created" in {effect.kind for effect in outcome.effects}


def test_a_visit_may_move_and_get_another_number_at_once(heart: Heart) -> None:
    heart.send(a45(pv1={19: "V7^^^MRN"}))
    (stay,) = heart.chart("2").encounters
    assert (stay.key, stay.visit_number, stay.account) == ("MRN:V1", "V7", "A9")


def test_several_visits_of_one_message_move(heart: Heart) -> None:
    heart.send(adt("A04", at=LATER, pid3=X, pv1={2: "O", 19: "V2^^^MRN"}))
    segments = (f"MRG|{X}||A1||V1^^^MRN", "PV1|1|I" + 17 * "|" + "V1^^^MRN", f"MRG|{X}||A1||V2^^^MRN",
                "PV1|2|O" + 17 * "|" + "V2^^^MRN")  # fmt: skip
    outcome = heart.send(a45(pv1=None, segments=segments))
    assert asked(outcome) == []
    assert set(stays(heart.chart("2"))) == {"MRN:V1", "MRN:V2"}


def test_the_plan_of_an_earlier_stay_of_the_new_patient_waits_for_the_stay_that_came(heart: Heart) -> None:
    """And that of the patient it came from goes on, as if the stay had never been theirs."""
    heart.send(adt("A01", at="20260306090000", pid3=X, pv1={19: "V2^^^MRN"}))
    assert not opened(heart.chart("1"))  # readmitted
    heart.send(adt("A01", at="20260228120000", pid3=Y, pid=JAY, pv1={19: "V5^^^MRN"}))
    heart.send(adt("A03", at="20260304120000", pid3=Y, pid=JAY, pv1={19: "V5^^^MRN", 36: "01"}))
    assert opened(heart.chart("2"))
    message = a45(pv1={19: "V2^^^MRN"}, segments=(f"MRG|{X}||||V2^^^MRN",))
    assert asked(heart.send(message)) == []
    assert opened(heart.chart("1"))
    assert not opened(heart.chart("2"))


# --- what can't be told is asked, and nobody is touched


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (a45(segments=(f"MRG|{X}||||V9^^^MRN",), pv1=None), "move-unknown"),
        (a45(segments=(f"MRG|{X}||||V9^^^MRN",), pv1={19: "V8^^^MRN"}), "move-unknown"),
        (a45(segments=("MRG|||||V9^^^MRN",), pv1={19: "V9^^^MRN"}), "move-unknown"),
        (a44(f"MRG|{X}||A7"), "move-unknown"),
        (a44("MRG|||A1"), "move-unknown"),  # whose account it was is not said
        (a45(segments=("MRG|||A1||V1^^^MRN",)), "move-unclear"),  # nor whose visit
        (a45(segments=("MRG|3^^^MRN^MR||||V1^^^MRN",)), "move-unclear"),  # a third patient's
        (a45(segments=(f"MRG|{X}~3^^^MRN^MR||||V1^^^MRN",)), "move-unclear"),
        (adt("A41", at=LATER, pid3=Y, pid=JAY | {18: "A2"}, segments=(f"MRG|{X}||A1",)), "move-unclear"),
        (a45(pv1={19: "V2^^^MRN"}).replace(b"A45", b"A42"), "move-unclear"),
        (a45(pv1={19: "V2^^^MRN"}).replace(b"A45", b"A50"), "move-unclear"),
    ],
)
def test_a_change_of_which_patient_or_stay_can_not_be_told_is_asked(heart: Heart, message: bytes, code: str) -> None:
    heart.send(adt("A28", pid3="3^^^MRN^MR", pid={5: "Poe^Edgar"}))
    before = {id_: chart.encounters for id_, chart in heart.charts.by_id.items()}
    assert asked(heart.send(message)) == [(code, "MRG")]
    assert {id_: heart.charts.by_id[id_].encounters for id_ in before} == before


def test_a_move_to_a_patient_of_another_name_and_birth_date_is_asked(heart: Heart) -> None:
    before = heart.chart("1")
    outcome = heart.send(a45(pid={5: "Poe^Edgar", 7: "18090119"}))
    assert asked(outcome) == [("person-contradicted", "PID-5")]
    assert (heart.chart("1"), stays(heart.chart("2"))) == (before, {})


def test_a_move_that_nobody_could_tell_goes_on_once_the_stay_is_known(heart: Heart) -> None:
    message = a45(segments=("MRG|3^^^MRN^MR||||V9^^^MRN",), pv1=None)
    assert asked(heart.send(message)) == [("move-unknown", "MRG")]
    heart.send(adt("A01", at="20260306090000", pid3="3^^^MRN^MR", pv1={19: "V9^^^MRN"}))
    assert asked(release(heart, message, "move-unknown@MRG")) == []
    assert stays(heart.chart("2")) == {"MRN:V9": "active"}
    assert stays(heart.chart("3")) == {}


@pytest.mark.parametrize("known", [True, False])
def test_a_visit_that_is_heard_of_by_its_move_is_the_new_patient_s_whatever_comes_late(
    heart: Heart, known: bool
) -> None:
    source = "3^^^MRN^MR"
    if known:
        heart.send(adt("A28", pid3=source, pid={5: "Poe^Edgar"}))
    message = a45(segments=(f"MRG|{source}||||V9^^^MRN",), pv1={19: "V9^^^MRN"})
    assert asked(heart.send(message)) == []
    outcome = heart.send(
        adt("A01", at="20260306090000", pid3=source, pid={5: "Poe^Edgar"}, pv1={19: "V9^^^MRN", 10: "CAR"})
    )
    assert asked(outcome) == []
    (stay,) = heart.chart("2").encounters
    assert (stay.key, stay.status, stay.hospital_service) == ("MRN:V9", EncounterStatus.ACTIVE, "CAR")
    assert stays(heart.chart("3")) == {}
    name = heart.chart("3").patient.name
    assert name is not None
    assert name.family == "Poe"
    heart.send(adt("A03", at=LATEST, pid3=Y, pid=JAY, pv1={19: "V9^^^MRN", 36: "01"}))
    assert stays(heart.chart("2")) == {"MRN:V9": "finished"}
    assert opened(heart.chart("2"))


def test_late_news_of_a_stay_that_has_moved_is_told_of_the_new_patient(heart: Heart) -> None:
    heart.send(a45())
    late = adt("A08", at="20260306150000", pid3=X, pid={18: "A1"}, pv1={36: "01", 10: "CAR"})
    outcome = heart.send(late)
    assert asked(outcome) == []
    assert heart.chart("2").encounters[0].hospital_service == "CAR"
    assert outcome.chart_id == heart.chart("1").id
    assert {chart.id for chart in outcome.charts} >= {heart.chart("2").id}


def test_late_news_of_a_death_in_a_stay_that_has_moved_is_a_dead_letter(heart: Heart) -> None:
    heart.send(a45())
    outcome = heart.send(adt("A08", at="20260306150000", pid3=X, pv1={36: "20"}))
    assert outcome.dead_letter is not None
    assert heart.chart("1").patient.deceased is heart.chart("2").patient.deceased is None


def test_a_visit_that_moves_within_its_patient_goes_to_the_other_account(heart: Heart) -> None:
    message = adt("A45", at=LATER, pid3=X, pid={18: "A2"}, pv1={}, segments=("MRG|||A1||V1^^^MRN",))
    assert asked(heart.send(message)) == []
    assert [(stay.key, stay.account) for stay in heart.chart("1").encounters] == [("MRN:V1", "A2")]


def test_a_move_that_is_applied_answers_the_question_that_an_earlier_one_has_left(heart: Heart) -> None:
    (hold,) = heart.send(a45(segments=("MRG|||A1||V1^^^MRN",))).holds
    others = [*heart.send(a44("MRG|||A7")).holds, *heart.send(a45(segments=("MRG|||||V8^^^MRN",), pv1=None)).holds]
    facts = heart.send(a45()).facts
    charts = {heart.chart(number).id for number in "12"}
    assert hold.chart_id in charts
    answered = [
        one.subject
        for one in (hold, *others)
        if any(fact.chart_id == one.chart_id and fact.answers(one.code, one.subject, one.asserts) for fact in facts)
    ]
    assert answered == ["MRN:V1"]


def test_a_move_from_a_patient_whom_mrg_does_not_name_goes_on_when_a_person_says_so(heart: Heart) -> None:
    message = a45(segments=("MRG|||A1||V1^^^MRN",))
    assert asked(release(heart, message, "move-unclear@MRG")) == []
    assert stays(heart.chart("2")) == {"MRN:V1": "finished"}


@pytest.mark.parametrize("dead", ["stay", "source", "target"])
def test_a_move_that_touches_a_death_is_asked(heart: Heart, dead: str) -> None:
    if dead == "stay":
        heart.send(adt("A08", at="20260306110000", pid3=X, pv1={36: "20"}))
    else:
        person = {} if dead == "source" else JAY
        heart.send(adt("A31", at="20260306110000", pid3=X if dead == "source" else Y, pid=person | {30: "Y"}))
    before = heart.chart("1")
    assert asked(heart.send(a45()))[0] == ("move-unclear", "MRG")
    assert heart.chart("1").encounters == before.encounters


def test_the_death_that_a_stay_tells_goes_with_it_when_a_person_says_so(heart: Heart) -> None:
    heart.send(adt("A08", at="20260306110000", pid3=X, pv1={36: "20"}))
    assert heart.chart("1").patient.deceased is True
    release(heart, a45(pv1={36: "20"}), "move-unclear@MRG")
    assert heart.chart("1").patient.deceased is not True
    assert heart.chart("2").patient.deceased is True


@pytest.mark.parametrize(
    "trigger", ["A35", "A41", "A42", "A43", "A44", "A45", "A46", "A47", "A48", "A49", "A50", "A51"]
)
def test_a_change_without_the_numbers_that_were_is_held(heart: Heart, trigger: str) -> None:
    before = heart.chart("1")
    outcome = heart.send(adt(trigger, at=LATER, pid3=X, pv1={}))
    assert asked(outcome) == [("event-not-supported", "PID-3")]
    assert heart.chart("1") == before


# --- accounts and visit numbers


@pytest.mark.parametrize("trigger", ["A35", "A41", "A49"])
def test_an_account_that_becomes_another_one_takes_its_stays_along(heart: Heart, trigger: str) -> None:
    outcome = heart.send(adt(trigger, at=LATER, pid3=X, pid={18: "A2"}, segments=(f"MRG|{X}||A1",)))
    assert asked(outcome) == []
    assert [stay.account for stay in heart.chart("1").encounters] == ["A2"]
    heart.send(adt("A13", at=LATEST, pid3=X, pid={18: "A1"}, pv1={19: ""}))  # the number that was
    assert stays(heart.chart("1")) == {"MRN:V1": "active"}


@pytest.mark.parametrize(
    ("trigger", "mrg", "numbers"),
    [("A41", "MRG|||B1", {18: "B2", 19: ""}), ("A50", "MRG|||||V1^^^MRN", {18: "", 19: "V2^^^MRN"})],
)
def test_a_number_of_a_patient_of_whom_nothing_is_known_is_remembered(
    trigger: str, mrg: str, numbers: dict[int, str]
) -> None:
    heart = Heart()
    outcome = heart.send(adt(trigger, pid={18: numbers[18]}, pv1={19: numbers[19]}, segments=(mrg,)))
    assert asked(outcome) == []
    assert [effect.kind for effect in outcome.effects] == ["patient-created"]
    heart.send(adt("A01", pid={18: "B1"}, pv1={19: "V1^^^MRN" if trigger == "A50" else ""}))
    (stay,) = heart.chart().encounters
    assert (stay.account, stay.visit_number) == (("B2", None) if trigger == "A41" else ("B1", "V2"))


@pytest.mark.parametrize("trigger", ["A35", "A41", "A49"])
def test_an_account_that_has_become_another_one_before_it_was_heard_of_is_read_so(heart: Heart, trigger: str) -> None:
    assert asked(heart.send(adt(trigger, at=LATER, pid3=Y, pid=JAY | {18: "B2"}, segments=("MRG|||B1",)))) == []
    heart.send(adt("A01", at="20260306090000", pid3=Y, pid=JAY | {18: "B1"}, pv1={19: ""}))
    heart.send(adt("A03", at=LATEST, pid3=Y, pid=JAY | {18: "B2"}, pv1={19: "", 36: "01"}))
    (stay,) = heart.chart("2").encounters
    assert (stay.account, stay.status) == ("B2", EncounterStatus.FINISHED)


def test_two_stays_that_are_known_by_their_accounts_alone_become_one_when_the_accounts_do() -> None:
    heart = Heart()
    heart.send(adt("A04", at="20260301120000", pid3=X, pid={18: "A1"}, pv1={2: "O", 19: ""}))
    heart.send(adt("A01", at="20260302120000", pid3=X, pid={18: "A2"}, pv1={19: ""}))
    heart.send(adt("A41", at=LATER, pid3=X, pid={18: "A2"}, segments=(f"MRG|{X}||A1",)))
    assert sorted(stays(heart.chart("1")).values()) == ["active", "cancelled"]
    heart.send(adt("A03", at=LATEST, pid3=X, pid={18: "A1"}, pv1={19: "", 36: "01"}))
    assert sorted(stays(heart.chart("1")).values()) == ["cancelled", "finished"]


def test_a_change_to_an_account_that_has_a_stay_of_its_own_is_asked() -> None:
    heart = Heart()
    for account, day in (("A1", "01"), ("A2", "02")):
        heart.send(adt("A01", at=f"202603{day}120000", pid3=X, pid={18: account}, pv1={19: ""}))
    before = heart.chart("1")
    change = adt("A49", at=LATER, pid3=X, pid={18: "A2"}, segments=(f"MRG|{X}||A1",))
    assert asked(heart.send(change)) == [("move-unclear", "MRG")]
    assert heart.chart("1").encounters == before.encounters
    assert asked(release(heart, change, "move-unclear@MRG")) == []
    assert sorted(stays(heart.chart("1")).values()) == ["active", "cancelled"]


@pytest.mark.parametrize("trigger", ["A42", "A50"])
def test_a_visit_number_that_becomes_another_one_leaves_the_stay_and_its_plan(heart: Heart, trigger: str) -> None:
    before = heart.chart("1")
    change = adt(trigger, at=LATER, pid3=X, pv1={19: "V2^^^MRN"}, segments=(f"MRG|{X}||||V1^^^MRN",))
    outcome = heart.send(change)
    assert asked(outcome) == []
    (stay,) = heart.chart("1").encounters
    assert (stay.key, stay.visit_number) == ("MRN:V1", "V2")
    assert heart.chart("1").tasks == before.tasks
    for number in ("V1", "V2", "V1"):  # whichever of the two the next message has
        heart.send(adt("A08", at=LATEST, pid3=X, pv1={19: f"{number}^^^MRN", 10: "CAR"}))
        (stay,) = heart.chart("1").encounters
    assert stay.hospital_service == "CAR"
    assert asked(heart.send(change)) == []
    assert len(heart.chart("1").encounters) == 1


@pytest.mark.parametrize("trigger", ["A42", "A50"])
def test_a_visit_number_that_has_become_another_one_before_it_was_heard_of_is_read_so(trigger: str) -> None:
    heart = Heart()
    heart.send(adt("A28", pid3=X))
    heart.send(adt(trigger, at=LATER, pid3=X, pv1={19: "V2^^^MRN"}, segments=(f"MRG|{X}||||V1^^^MRN",)))
    assert stays(heart.chart("1")) == {}
    heart.send(adt("A01", at="20260306090000", pid3=X, pv1={19: "V1^^^MRN"}))
    heart.send(adt("A03", at=LATEST, pid3=X, pv1={19: "V2^^^MRN", 36: "01"}))
    (stay,) = heart.chart("1").encounters
    assert (stay.visit_number, stay.status) == ("V2", EncounterStatus.FINISHED)


def test_two_stays_that_are_merged_are_one_and_the_other_is_cancelled(heart: Heart) -> None:
    heart.send(adt("A04", at="20260306090000", pid3=X, pv1={2: "O", 19: "V2^^^MRN", 10: "CAR"}))
    heart.send(adt("A42", at=LATER, pid3=X, pv1={2: "", 19: "V2^^^MRN"}, segments=(f"MRG|{X}||||V1^^^MRN",)))
    chart = heart.chart("1")
    old, new = (chart.encounter(key) for key in ("MRN:V1", "MRN:V2"))
    assert isinstance(old, Encounter)
    assert isinstance(new, Encounter)
    assert (old.status, old.merged_into) == (EncounterStatus.CANCELLED, "MRN:V2")
    assert (new.hospital_service, new.account, new.merged_into) == ("CAR", "A1", None)
    assert {task.encounter for task in chart.tasks if task.state is TaskState.OPEN} <= {"MRN:V2"}
    heart.send(adt("A08", at=LATEST, pid3=X, pv1={2: "", 19: "V1^^^MRN", 10: "NEU"}))
    merged = heart.chart("1").encounter("MRN:V2")
    assert merged is not None
    assert merged.hospital_service == "NEU"


def test_a_change_to_the_number_of_another_stay_is_asked(heart: Heart) -> None:
    heart.send(adt("A04", at="20260306090000", pid3=X, pv1={2: "O", 19: "V2^^^MRN"}))
    before = stays(heart.chart("1"))
    change = adt("A50", at=LATER, pid3=X, pv1={2: "O", 19: "V2^^^MRN"}, segments=(f"MRG|{X}||||V1^^^MRN",))
    assert asked(heart.send(change)) == [("move-unclear", "MRG")]
    assert stays(heart.chart("1")) == before
    release(heart, change, "move-unclear@MRG")
    assert stays(heart.chart("1"))["MRN:V1"] == "cancelled"


def test_an_alternate_visit_number_that_changes_is_recorded_without_effect(heart: Heart) -> None:
    before = heart.chart("1")
    outcome = heart.send(adt("A51", at=LATER, pid3=X, pv1={50: "W2"}, segments=(f"MRG|{X}|||||W1",)))
    assert [effect.kind for effect in outcome.effects] == ["recorded-without-effect"]
    assert heart.chart("1") == before


def test_a_merge_of_2_3_1_with_its_account_merges_both(heart: Heart) -> None:
    outcome = heart.send(adt("A36", at=LATER, pid3=Y, pid=JAY | {18: "A2"}, segments=(f"MRG|{X}||A1",)))
    assert asked(outcome) == []
    (stay,) = heart.chart("2").encounters
    assert (stay.account, heart.chart("1").patient.key) == ("A2", "MRN:2")


def test_other_merges_leave_accounts_alone(heart: Heart) -> None:
    heart.send(adt("A40", at=LATER, pid3=Y, pid=JAY | {18: "A2"}, segments=(f"MRG|{X}||A1",)))
    assert [stay.account for stay in heart.chart("2").encounters] == ["A1"]


# --- numbers of patients


@pytest.mark.parametrize("trigger", ["A43", "A46", "A47", "A48"])
def test_a_number_that_becomes_another_one_leads_to_the_same_patient(heart: Heart, trigger: str) -> None:
    message = adt(trigger, at=LATER, pid3="9^^^MRN^MR", segments=(f"MRG|{X}",))
    assert asked(heart.send(message)) == []
    assert heart.chart("9").id == heart.chart("1").id
    assert stays(heart.chart("9")) == {"MRN:V1": "finished"}
    assert opened(heart.chart("9"))


@pytest.mark.parametrize("trigger", ["A43", "A46", "A47", "A48"])
def test_a_change_to_the_number_of_a_patient_who_has_stays_is_asked(heart: Heart, trigger: str) -> None:
    heart.send(adt("A01", at=LATER, pid3=Y, pid=JAY, pv1={19: "V2^^^MRN"}))
    message = adt(trigger, at=LATER, pid3=Y, pid={5: "", 7: ""}, segments=(f"MRG|{X}",))
    assert asked(heart.send(message)) == [("move-unclear", "MRG-1")]
    assert heart.chart("1").id != heart.chart("2").id
    release(heart, message, "move-unclear@MRG-1")
    assert heart.chart("1").id == heart.chart("2").id


RENUMBERINGS = pytest.mark.parametrize("trigger", ["A43", "A46", "A47", "A48"])


@RENUMBERINGS
@pytest.mark.parametrize(("old", "new"), [("1", "2"), ("2", "1"), ("2", "3")])
def test_a_change_to_the_number_of_another_registered_person_is_asked(
    heart: Heart, trigger: str, old: str, new: str
) -> None:
    """Whether or not either of the two has stays: Mr. Roe and Mr. Poe are registered only."""
    heart.send(adt("A28", pid3="3^^^MRN^MR", pid={5: "Poe^Edgar", 7: "18090119"}))
    before = dict(heart.charts.by_id)
    message = adt(trigger, at=LATER, pid3=f"{new}^^^MRN^MR", pid={5: "", 7: ""}, segments=(f"MRG|{old}^^^MRN^MR",))
    outcome = heart.send(message)
    assert asked(outcome) == [("move-unclear", "MRG-1")]
    assert heart.chart(old).id != heart.chart(new).id
    assert {id_: chart.patient for id_, chart in heart.charts.by_id.items()} == {
        id_: chart.patient for id_, chart in before.items()
    }
    release(heart, message, "move-unclear@MRG-1")
    assert heart.chart(old).id == heart.chart(new).id


@RENUMBERINGS
@pytest.mark.parametrize("pid", [{}, JAY, {5: "", 7: ""}, {5: "Poe^Edgar", 7: "18090119"}])
@pytest.mark.parametrize("sex", ["M", "F"])
def test_who_says_that_a_change_of_number_is_right_is_not_asked_again_and_again(
    heart: Heart, trigger: str, pid: dict[int, str], sex: str
) -> None:
    heart.send(adt("A31", at="20260306130000", pid3=Y, pid=JAY | {8: sex}))
    message = adt(trigger, at=LATER, pid3=Y, pid=pid | {8: ""}, segments=(f"MRG|{X}",))
    questions = asked(heart.send(message))
    assert len(questions) == 1
    for _ in range(2):
        if questions:
            code, location = questions[0]
            questions = asked(release(heart, message, f"{code}@{location}"))
    assert questions == []
    assert heart.chart("1").id == heart.chart("2").id


@RENUMBERINGS
def test_a_change_to_a_number_under_which_the_same_person_was_registered_is_no_question(
    heart: Heart, trigger: str
) -> None:
    heart.send(adt("A28", pid3="9^^^MRN^MR"))
    assert asked(heart.send(adt(trigger, at=LATER, pid3="9^^^MRN^MR", segments=(f"MRG|{X}",)))) == []
    assert heart.chart("9").id == heart.chart("1").id


@RENUMBERINGS
def test_a_change_that_comes_after_news_under_the_new_number_is_no_question(heart: Heart, trigger: str) -> None:
    heart.send(adt("A01", at=LATEST, pid3="9^^^MRN^MR", pv1={19: "V9^^^MRN"}))
    assert asked(heart.send(adt(trigger, at=LATER, pid3="9^^^MRN^MR", segments=(f"MRG|{X}",)))) == []
    assert set(stays(heart.chart("1"))) == {"MRN:V1", "MRN:V9"}


@settings(max_examples=80, deadline=None)
@given(
    st.permutations(
        [
            adt("A28", at="20260306080000", pid3=X),
            adt("A28", at="20260306090000", pid3=Y, pid=JAY),
            adt("A47", at=LATER, pid3=Y, pid={5: "", 7: "", 8: ""}, segments=(f"MRG|{X}",)),
            adt("A01", at="20260306110000", pid3=X, pv1={}),
        ]
    )
)
def test_a_number_that_is_another_person_s_is_asked_about_in_whatever_order_it_is_heard_of(order: list[bytes]) -> None:
    heart = Heart()
    questions = {code for message in order for code, _ in asked(heart.send(message))}
    assert questions <= {"move-unclear", "person-contradicted"}
    assert questions


CHAIN = (
    adt("A01", at="20260305080000", pid3=X, pid={13: "2125550101"}, pv1={}),
    adt("A47", at="20260306080000", pid3="7^^^MRN^MR", segments=(f"MRG|{X}",)),
    adt("A31", at="20260306100000", pid3="7^^^MRN^MR", pid={13: "2125550107"}),
    adt("A47", at="20260307080000", pid3="8^^^MRN^MR", segments=("MRG|7^^^MRN^MR",)),
    adt("A47", at="20260308080000", pid3="9^^^MRN^MR", segments=("MRG|8^^^MRN^MR",)),
    adt("A31", at="20260308090000", pid3="9^^^MRN^MR", pid={11: "1 Main St^^Town"}),
)


@settings(max_examples=150, deadline=None)
@given(st.permutations(CHAIN), st.sampled_from(CHAIN))
def test_a_number_that_changes_several_times_leads_to_one_patient_in_whatever_order_it_is_heard_of(
    order: list[bytes], again: bytes
) -> None:
    heart = Heart()
    heart.now = datetime(2026, 3, 9, 18, 0, tzinfo=UTC)
    for message in (*order, again):
        assert asked(heart.send(message)) == []
    patients = {heart.chart(number).id for number in "1789"}
    assert len(patients) == 1
    chart = heart.chart("9")
    assert (stays(chart), chart.patient.phones) == ({"MRN:V1": "active"}, ("+12125550107",))
    assert chart.patient.address is not None


# --- of two charts that are one, each field of the person is as it was said last

PERSON = (
    adt("A28", at="20260305080000", pid3=X, pid={13: "2125550101", 15: "en"}),
    adt("A31", at="20260306080000", pid3=Y, pid={13: "2125550102"}),
    adt("A31", at="20260307080000", pid3=X, pid={11: "1 Main St^^Town", 15: '""'}),
    adt("A31", at="20260308080000", pid3=Y, pid={11: "2 Side St^^Town"}),
    adt("A31", at="20260308090000", pid3=X, pid={8: "U"}),
)


@pytest.mark.parametrize("trigger", ["A40", "A18", "A34", "A47"])
@settings(max_examples=80, deadline=None)
@given(st.permutations(range(len(PERSON) + 1)), st.booleans())
def test_what_is_known_of_a_person_after_a_merge_does_not_depend_on_the_order(
    trigger: str, order: list[int], turned: bool
) -> None:
    survivor, merged = (Y, X) if turned else (X, Y)
    merge = adt(trigger, at="20260306120000", pid3=survivor, segments=(f"MRG|{merged}",))
    heart = Heart()
    heart.now = datetime(2026, 3, 9, 18, 0, tzinfo=UTC)
    for place in order:
        outcome = heart.send((*PERSON, merge)[place])
        assert outcome.state is EntryState.PROCESSED
    patient = heart.chart("1").patient
    assert (patient.phones, patient.language, patient.sex) == (("+12125550102",), None, "U")
    assert patient.address is not None
    assert patient.address.line == "2 Side St"
    assert patient.key == ("MRN:2" if turned else "MRN:1")


@pytest.mark.parametrize("sex", ["F", ""])
def test_a_merge_with_one_of_another_name_and_birth_date_leaves_the_survivor_who_they_are(sex: str) -> None:
    heart = Heart()
    heart.send(adt("A28", at="20260305080000", pid3=X, pid={13: "2125550101"}))
    heart.send(adt("A28", at="20260306080000", pid3=Y, pid={**JAY, 8: sex, 13: "2125550102", 15: "es"}))
    heart.send(adt("A40", at=LATER, pid3=X, pid={5: "", 7: "", 8: ""}, segments=(f"MRG|{Y}",)))
    patient = heart.chart("2").patient
    assert patient.name is not None
    assert (patient.name.family, patient.phones, patient.language) == ("Doe", ("+12125550101",), "es")
    heart.send(adt("A31", at="20260306060000", pid3=X, pid={13: "2125550103"}))  # as if the other had never been
    assert heart.chart("1").patient.phones == ("+12125550103",)


def test_a_number_that_is_one_of_several_of_its_patient_is_not_moved_away(heart: Heart) -> None:
    heart.send(adt("A40", at="20260306100000", pid3=X, segments=("MRG|8^^^MRN^MR",)))
    message = adt("A43", at=LATER, pid3=Y, pid=JAY, segments=("MRG|8^^^MRN^MR",))
    assert asked(heart.send(message)) == [("move-unclear", "MRG-1")]
    assert heart.chart("8").id == heart.chart("1").id


@pytest.mark.parametrize(("trigger", "pid", "mrg"), [("A46", {2: "E2"}, "MRG||||E1"), ("A48", {4: "B2"}, "MRG||B1"),
                                                     ("A47", {}, f"MRG|{X}")])  # fmt: skip
def test_a_number_by_which_nobody_is_found_may_change_without_effect(
    heart: Heart, trigger: str, pid: dict[int, str], mrg: str
) -> None:
    before = heart.chart("1")
    outcome = heart.send(adt(trigger, at=LATER, pid3=X, pid=pid, segments=(mrg,)))
    assert [effect.kind for effect in outcome.effects] == ["recorded-without-effect"]
    assert (outcome.patient_key, heart.chart("1")) == ("MRN:1", before)


# --- links: two patients stay two


def linked(trigger: str, *, at: str = LATER) -> bytes:
    return adt(trigger, at=at, pid3=X, segments=("PID|2||2^^^MRN^MR||Roe^Jay||19700101",))


def test_a_link_is_noted_on_both_and_merges_nobody(heart: Heart) -> None:
    outcome = heart.send(linked("A24"))
    assert asked(outcome) == []
    assert (heart.chart("1").patient.links, heart.chart("2").patient.links) == (("MRN:2",), ("MRN:1",))
    assert heart.chart("1").id != heart.chart("2").id
    assert len(outcome.charts) == 2
    heart.send(linked("A24", at=LATEST))
    assert heart.chart("1").patient.links == ("MRN:2",)


def test_a_link_with_somebody_of_another_name_and_birth_date_is_asked_and_not_noted(heart: Heart) -> None:
    outcome = heart.send(linked("A24").replace(b"Roe^Jay||19700101", b"Poe^Edgar||18090119"))
    assert asked(outcome) == [("person-contradicted", "PID-5")]
    assert (heart.chart("1").patient.links, heart.chart("2").patient.links) == ((), ())


def test_an_unlink_takes_the_link_back_on_both(heart: Heart) -> None:
    heart.send(linked("A24"))
    heart.send(linked("A37", at=LATEST))
    assert (heart.chart("1").patient.links, heart.chart("2").patient.links) == ((), ())


def test_an_unlink_that_overtakes_its_link_counts_all_the_same(heart: Heart) -> None:
    heart.send(linked("A37", at=LATEST))
    heart.send(linked("A24"))
    assert (heart.chart("1").patient.links, heart.chart("2").patient.links) == ((), ())


def test_the_links_of_merged_patients_are_those_of_the_survivor(heart: Heart) -> None:
    heart.send(linked("A24"))
    heart.send(adt("A40", at=LATEST, pid3="7^^^MRN^MR", segments=(f"MRG|{X}",)))
    assert heart.chart("7").patient.links == ("MRN:2",)
    heart.send(adt("A37", at="20260309120000", pid3="7^^^MRN^MR", segments=("PID|2||2^^^MRN^MR||Roe^Jay||19700101",)))
    assert (heart.chart("7").patient.links, heart.chart("2").patient.links) == ((), ())


LINKED = (
    ("A24", X, Y, "20260306080000"),
    ("A37", X, Y, "20260307080000"),
    ("A40", "7^^^MRN^MR", X, "20260307120000"),
    ("A31", "7^^^MRN^MR", "", "20260307130000"),
)


def _linked(trigger: str, one: str, other: str, at: str) -> bytes:
    mine = {} if one != Y else JAY
    if trigger in {"A40", "A31"}:
        return adt(trigger, at=at, pid3=one, pid=mine, segments=(f"MRG|{other}",) if other else ())
    return adt(trigger, at=at, pid3=one, pid=mine, segments=(f"PID|2||{other}||Roe^Jay||19700101",))


@settings(max_examples=100, deadline=None)
@given(st.permutations(LINKED), st.sampled_from(LINKED))
def test_an_unlink_counts_beside_a_merge_in_whatever_order_they_come(
    order: list[tuple[str, str, str, str]], again: tuple[str, str, str, str]
) -> None:
    heart = Heart()
    for message in (*order, again):
        assert asked(heart.send(_linked(*message))) == []
    assert (heart.chart("7").patient.links, heart.chart("2").patient.links) == ((), ())
    assert heart.chart("7").id == heart.chart("1").id


@settings(max_examples=100, deadline=None)
@given(st.permutations([*LINKED, ("A24", "7^^^MRN^MR", Y, "20260308080000")]))
def test_a_link_counts_beside_a_merge_in_whatever_order_they_come(order: list[tuple[str, str, str, str]]) -> None:
    heart = Heart()
    heart.now = datetime(2026, 3, 9, 18, 0, tzinfo=UTC)
    for message in order:
        assert asked(heart.send(_linked(*message))) == []
    assert heart.chart("7").patient.links == ("MRN:2",)
    others = [Identifier(value=key[4:], authority="MRN", type="MR") for key in heart.chart("2").patient.links]
    assert {found.id for one in others if (found := heart.charts.find(one))} == {heart.chart("7").id}


@pytest.mark.parametrize(
    ("how", "merged", "questions"), [("ask", False, [("event-not-supported", "PID-3")]), ("merge", True, [])]
)
def test_a_link_with_an_mrg_is_what_the_channel_says(
    how: str, merged: bool, questions: list[tuple[str, str | None]]
) -> None:
    heart = Heart(identity={"authority": "MRN", "link_with_mrg": how})
    for pid3 in (X, Y):
        heart.send(adt("A28", pid3=pid3))
    assert asked(heart.send(adt("A24", at=LATER, pid3=Y, segments=(f"MRG|{X}",)))) == questions
    assert (heart.chart("1").id == heart.chart("2").id) is merged


@pytest.mark.parametrize("trigger", ["A17", "A24", "A37"])
def test_an_event_of_two_patients_that_names_one_is_held(heart: Heart, trigger: str) -> None:
    assert asked(heart.send(adt(trigger, at=LATER, pid3=X, pv1={}))) == [("event-not-supported", "PID-3")]


# --- two patients change places


def in_beds(heart: Heart) -> dict[str, str | None]:
    """Who lies where, as far as it is known."""
    found = {}
    for number in "12":
        stays_ = heart.chart(number).encounters
        found[number] = stays_[0].location.point_of_care if stays_ and stays_[0].location else None
    return found


def swap(
    first: dict[int, str] | None = None,
    second: dict[int, str] | None = None,
    *,
    at: str = LATER,
    who: str = "2^^^MRN^MR||Roe^Jay||19700101",
    trigger: str = "A17",
) -> bytes:
    """first, second: fields of PV1 that are not as they should be."""
    pv1 = {1: "2", 2: "I", 3: "2A^1^A", 6: "2B^7^B", 19: "V2^^^MRN"} | (second or {})
    segments = (f"PID|2||{who}", "|".join(["PV1", *(pv1.get(number, "") for number in range(1, 51))]))
    return adt(trigger, at=at, pid3=X, pv1={3: "2B^7^B", 6: "2A^1^A"} | (first or {}), segments=segments)


@pytest.fixture
def two() -> Heart:
    """Two patients in their beds."""
    heart = Heart()
    heart.send(adt("A01", pid3=X, pv1={3: "2A^1^A"}))
    heart.send(adt("A01", pid3=Y, pid=JAY, pv1={3: "2B^7^B", 19: "V2^^^MRN"}))
    return heart


def test_a_swap_moves_both_patients(two: Heart) -> None:
    outcome = two.send(swap())
    assert asked(outcome) == []
    beds = [two.chart(number).encounters[0].location for number in "12"]
    assert [(bed.point_of_care, bed.room, bed.bed) for bed in beds if bed] == [("2B", "7", "B"), ("2A", "1", "A")]
    assert len(outcome.charts) == 2


def test_both_change_places_or_none(two: Heart) -> None:
    message = swap(who="2^^^MRN^MR||Poe^Edgar||18090119")
    assert asked(two.send(message)) == [("person-contradicted", "PID-5")]
    assert in_beds(two) == {"1": "2A", "2": "2B"}
    release(two, message, "person-contradicted@PID-5")
    assert in_beds(two) == {"1": "2B", "2": "2A"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {3: ""}),  # no place to go to
        ({3: '""'}, {}),
        ({}, {2: "N"}),  # no visit
        ({3: "2A^1^A"}, {}),  # both into one bed
    ],
)
def test_where_one_of_two_patients_can_not_change_places_neither_does(
    two: Heart, first: dict[int, str], second: dict[int, str]
) -> None:
    assert asked(two.send(swap(first, second))) == [
        ("event-not-supported", "PID-3"),
        ("event-not-supported", "PID[2]-3"),
    ]
    assert in_beds(two) == {"1": "2A", "2": "2B"}


@pytest.mark.parametrize(("trigger", "pv1"), [("A03", {36: "01"}), ("A11", {})])
def test_nobody_changes_places_with_a_patient_who_has_gone(two: Heart, trigger: str, pv1: dict[int, str]) -> None:
    two.send(adt(trigger, at="20260306150000", pid3=Y, pid=JAY, pv1={3: "2B^7^B", 19: "V2^^^MRN"} | pv1))
    outcome = two.send(swap())
    assert [code for code, _ in asked(outcome)] == ["event-not-supported"] * 2
    assert {hold.patient_key for hold in outcome.holds} == {"MRN:1", "MRN:2"}
    assert in_beds(two)["1"] == "2A"


def test_two_patients_have_changed_places_before_one_of_them_left(two: Heart) -> None:
    two.now = datetime(2026, 3, 9, 18, 0, tzinfo=UTC)
    two.send(adt("A03", at=LATEST, pid3=Y, pid=JAY, pv1={19: "V2^^^MRN", 36: "01"}))
    assert asked(two.send(swap())) == []
    assert in_beds(two)["1"] == "2B"


def test_nobody_changes_places_with_a_patient_whose_stay_can_not_be_told(two: Heart) -> None:
    two.send(adt("A01", at="20260306140000", pid3=Y, pid=JAY, pv1={3: "ICU", 19: "V3^^^MRN"}))
    outcome = two.send(swap(second={19: ""}))
    assert outcome.dead_letter is not None
    assert outcome.dead_letter.error == "encounter-ambiguous"
    assert in_beds(two)["1"] == "2A"


def test_nobody_changes_places_with_a_patient_who_has_no_stay(two: Heart) -> None:
    two.send(adt("A28", pid3="3^^^MRN^MR", pid={5: "Poe^Edgar", 7: "18090119"}))
    outcome = two.send(swap(second={19: ""}, who="3^^^MRN^MR||Poe^Edgar||18090119"))
    assert [code for code, _ in asked(outcome)] == ["event-not-supported"] * 2
    assert in_beds(two)["1"] == "2A"


def test_two_numbers_of_one_patient_do_not_change_places(two: Heart) -> None:
    two.send(adt("A40", at="20260306150000", pid3=X, segments=("MRG|8^^^MRN^MR",)))
    outcome = two.send(swap(second={19: ""}, who="8^^^MRN^MR||Doe^Jane||19480312"))
    assert [code for code, _ in asked(outcome)] == ["event-not-supported"] * 2
    assert in_beds(two)["1"] == "2A"


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries({}, optional={2: st.sampled_from(["N", "O"]), 3: st.sampled_from(["", '""', "2A^1^A"]),
                                        19: st.sampled_from(["", "V1^^^MRN", "V2^^^MRN", "V9^^^MRN"])}),
    st.fixed_dictionaries({}, optional={2: st.sampled_from(["N", "O"]), 3: st.sampled_from(["", '""']),
                                        19: st.sampled_from(["", "V1^^^MRN", "V2^^^MRN", "V8^^^MRN"])}),
    st.lists(st.sampled_from(["A03", "A11", "A21", "A02"]), max_size=2),
)  # fmt: skip
def test_both_change_places_or_neither_and_then_it_is_seen(
    first: dict[int, str], second: dict[int, str], before: list[str]
) -> None:
    heart = Heart()
    heart.send(adt("A01", pid3=X, pv1={3: "2A^1^A"}))
    heart.send(adt("A01", pid3=Y, pid=JAY, pv1={3: "2B^7^B", 19: "V2^^^MRN"}))
    for minute, trigger in enumerate(before):
        heart.send(
            adt(trigger, at=f"202603061500{minute:02}", pid3=Y, pid=JAY, pv1={3: "2B^7^B", 19: "V2^^^MRN", 36: "01"})
        )
    were = [{one.key: one.location for one in heart.chart(number).encounters} for number in "12"]
    outcome = heart.send(swap(first, second))
    now = [{one.key: one.location for one in heart.chart(number).encounters} for number in "12"]
    if outcome.dead_letter is None and not outcome.holds:
        assert now[0] != were[0]
        assert now[1] != were[1]
    else:
        assert now == were


# --- deletions


def test_a_stay_that_is_deleted_never_was(heart: Heart) -> None:
    assert opened(heart.chart("1"))
    heart.now += timedelta(days=2)
    outcome = heart.send(adt("A23", at=LATER, pid3=X, pv1={}))
    assert asked(outcome) == []
    assert stays(heart.chart("1")) == {"MRN:V1": "cancelled"}
    assert not opened(heart.chart("1"))
    assert heart.chart("1").scores == ()


def test_a_stay_that_is_deleted_before_it_is_heard_of_is_no_stay_when_it_is(heart: Heart) -> None:
    heart.send(adt("A23", at=LATER, pid3=Y, pid=JAY, pv1={19: "V2^^^MRN"}))
    heart.send(adt("A01", at="20260306090000", pid3=Y, pid=JAY, pv1={19: "V2^^^MRN"}))
    assert stays(heart.chart("2")) == {"MRN:V2": "cancelled"}


@pytest.mark.parametrize(("pv1", "code"), [(None, "visit-missing"), ({19: ""}, "encounter-unknown")])
def test_a_deletion_that_names_no_stay_is_asked(heart: Heart, pv1: dict[int, str] | None, code: str) -> None:
    heart.send(adt("A01", at="20260306090000", pid3=Y, pid=JAY, pv1={19: "V2^^^MRN"}))
    assert [one for one, _ in asked(heart.send(adt("A23", at=LATER, pid3=Y, pid=JAY, pv1=pv1)))] == [code]
    assert stays(heart.chart("2")) == {"MRN:V2": "active"}


def test_the_deletion_of_a_person_with_a_stay_is_asked(heart: Heart) -> None:
    before = heart.chart("1")
    assert asked(heart.send(adt("A29", at=LATER, pid3=X))) == [("event-not-supported", "PID-3")]
    assert heart.chart("1") == before


def test_a_person_on_whom_nothing_hangs_is_forgotten_until_they_are_heard_of_again(heart: Heart) -> None:
    outcome = heart.send(adt("A29", at=LATER, pid3=Y, pid=JAY))
    assert asked(outcome) == []
    patient = heart.chart("2").patient
    assert (patient.name, patient.birth_date, patient.sex) == (None, None, None)
    heart.send(adt("A31", at="20260306090000", pid3=Y, pid=JAY))  # late
    assert heart.chart("2").patient.name is None
    heart.send(adt("A28", at=LATEST, pid3=Y, pid=JAY))
    assert heart.chart("2").patient.name is not None


def test_the_deletion_of_nobody_is_remembered(heart: Heart) -> None:
    outcome = heart.send(adt("A29", at=LATER, pid3="77^^^MRN^MR"))
    assert [effect.kind for effect in outcome.effects] == ["patient-created"]
    assert outcome.reason is not None
    assert (outcome.holds, outcome.patient_key, heart.chart("77").patient.name) == ((), "MRN:77", None)


@pytest.mark.parametrize("trigger", ["A28", "A31", "A60"])
def test_a_person_who_was_deleted_before_they_were_heard_of_is_not_brought_back_by_old_news(trigger: str) -> None:
    heart = Heart()
    heart.send(adt("A29", at=LATER))
    outcome = heart.send(adt(trigger, pid={13: "2125550100"}))
    assert (asked(outcome), heart.chart().patient.name, heart.chart().patient.phones) == ([], None, ())
    heart.send(adt("A28", at=LATEST))
    assert heart.chart().patient.name is not None


@settings(max_examples=40, deadline=None)
@given(st.permutations([("A28", "20260306120000"), ("A31", "20260306130000"), ("A29", LATER), ("A29", "20260306123000"),
                        ("A28", LATEST)]))  # fmt: skip
def test_what_is_known_of_a_person_does_not_depend_on_the_order_of_deletions_and_registrations(
    order: list[tuple[str, str]],
) -> None:
    heart = Heart()
    heart.now = datetime(2026, 3, 9, 18, 0, tzinfo=UTC)
    for trigger, at in order:
        pid = {} if trigger == "A29" else {13: f"21255501{at[6:8]}"} if at != LATEST else {}
        heart.send(adt(trigger, at=at, pid=pid))
    patient = heart.chart().patient
    assert (patient.name is not None, patient.phones) == (True, ())


@pytest.mark.parametrize("known", [True, False])
def test_a_deleted_person_who_has_a_stay_after_all_is_somebody_and_is_asked_about(known: bool) -> None:
    heart = Heart()
    if known:
        heart.send(adt("A28", at="20260306100000"))
    heart.send(adt("A29", at=LATER))
    outcome = heart.send(adt("A01", pid={13: "2125550100"}, pv1={}))
    assert asked(outcome) == [("event-not-supported", "PID-3")]
    patient = heart.chart().patient
    assert (patient.name is not None, patient.phones) == (True, ("+12125550100",))
    assert asked(heart.send(adt("A03", at=LATEST, pv1={36: "01"}))) == []
    assert opened(heart.chart())


@pytest.mark.parametrize("survivor", [X, "3^^^MRN^MR"])
def test_a_merge_with_a_deleted_person_leaves_the_other_as_they_are(heart: Heart, survivor: str) -> None:
    other = "3^^^MRN^MR" if survivor == X else X
    heart.send(adt("A31", at="20260306090000", pid3=X, pid={13: "2125550100"}))
    heart.send(adt("A28", pid3="3^^^MRN^MR"))
    heart.send(adt("A29", at=LATER, pid3="3^^^MRN^MR"))
    heart.send(adt("A40", at=LATEST, pid3=survivor, pid={5: "", 7: "", 8: ""}, segments=(f"MRG|{other}",)))
    patient = heart.chart("1").patient
    assert (patient.name is not None, patient.phones) == (True, ("+12125550100",))


def test_two_patients_of_whom_it_is_asked_whether_they_have_died_are_asked_about_once_when_they_are_one() -> None:
    heart = Heart()
    for pid3, visit in ((X, "V1"), (Y, "V2")):
        heart.send(adt("A01", pid3=pid3, pid={30: "JA"}, pv1={19: f"{visit}^^^MRN"}))
    heart.send(adt("A40", pid3=X, pid={5: "", 7: ""}, segments=(f"MRG|{Y}",)))
    assert [task.kind for task in heart.chart("1").tasks if task.state is TaskState.OPEN] == ["care_coordinator_alert"]


# --- in whatever order the old patient's messages and the move come

BEFORE = (
    adt("A01", at="20260305080000", pid3=X, pid={18: "A1"}, pv1={44: "20260305080000"}),
    adt("A02", at="20260305090000", pid3=X, pid={18: "A1"}, pv1={3: "W2^2^B", 44: "20260305080000"}),
    adt("A08", at="20260305100000", pid3=X, pid={18: "A1"}, pv1={3: "W2^2^B", 10: "CAR", 44: "20260305080000"}),
)
MOVE = a45(pv1={3: "W2^2^B", 44: "20260305080000"})
AFTER = adt("A03", at=LATEST, pid3=Y, pid=JAY | {18: "A9"}, pv1={36: "01", 45: LATEST})


@settings(max_examples=80, deadline=None)
@given(st.permutations([*BEFORE, MOVE]), st.sampled_from([0, 1, 2, 3]))
def test_a_stay_that_moves_comes_to_the_same_in_whatever_order_it_is_heard_of(order: list[bytes], again: int) -> None:
    heart = Heart()
    heart.now = datetime(2026, 3, 9, 18, 0, tzinfo=UTC)
    for message in (*order, order[again], AFTER):
        outcome = heart.send(message)
        assert (outcome.state, outcome.holds) == (EntryState.PROCESSED, ())
    (stay,) = heart.chart("2").encounters
    assert (stay.key, stay.status, stay.hospital_service, stay.account) == (
        "MRN:V1",
        EncounterStatus.FINISHED,
        "CAR",
        "A9",
    )
    assert stay.location is not None
    assert stay.location.point_of_care == "W2"
    assert stays(heart.chart("1")) == {}
    assert len(opened(heart.chart("2"))) > 0
    assert not heart.chart("1").tasks


RENUMBERED = (
    adt("A01", at="20260305080000", pid3=X, pv1={44: "20260305080000"}),
    adt("A02", at="20260305090000", pid3=X, pv1={3: "W2^2^B", 10: "CAR", 44: "20260305080000"}),
    adt("A08", at=LATEST, pid3=X, pv1={19: "V2^^^MRN", 3: "W3^3^C"}),
    adt("A03", at="20260308150000", pid3=X, pv1={19: "V2^^^MRN", 36: "01"}),
)


@pytest.mark.parametrize("trigger", ["A42", "A50"])
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_stay_that_gets_another_number_comes_to_the_same_in_whatever_order_it_is_heard_of(
    trigger: str, data: st.DataObject
) -> None:
    change = adt(trigger, at=LATER, pid3=X, pv1={19: "V2^^^MRN"}, segments=(f"MRG|{X}||||V1^^^MRN",))
    heart = Heart()
    heart.now = datetime(2026, 3, 9, 18, 0, tzinfo=UTC)
    for message in data.draw(st.permutations([*RENUMBERED, change])):
        assert asked(heart.send(message)) == []
    stay, *others = sorted(heart.chart("1").encounters, key=lambda one: one.merged_into is not None)
    assert [(one.status, one.merged_into) for one in others] in ([], [(EncounterStatus.CANCELLED, stay.key)])
    assert (stay.visit_number, stay.status, stay.hospital_service) == ("V2", EncounterStatus.FINISHED, "CAR")
    assert {task.encounter for task in heart.chart("1").tasks if task.state is TaskState.OPEN} == {stay.key}


@pytest.mark.parametrize(
    "message", [a45(), a44(), a45(pv1={19: "V7^^^MRN"}), linked("A24"), a45(segments=("MRG|||A1||V1^^^MRN",))]
)
def test_the_words_of_an_effect_or_a_question_name_nobody(heart: Heart, message: bytes) -> None:
    outcome = heart.send(message)
    words = [effect.detail for effect in outcome.effects] + [hold.text for hold in outcome.holds]
    assert not [one for one in words if "MRN:" in one or "V1" in one or "A1" in one]


def test_the_words_of_merged_stays_name_no_stay(heart: Heart) -> None:
    heart.send(adt("A04", at="20260306090000", pid3=X, pv1={2: "O", 19: "V2^^^MRN"}))
    outcome = heart.send(adt("A42", at=LATER, pid3=X, pv1={19: "V2^^^MRN"}, segments=(f"MRG|{X}||||V1^^^MRN",)))
    assert "encounter-merged" in {effect.kind for effect in outcome.effects}
    assert not [effect.detail for effect in outcome.effects if "MRN:" in effect.detail]


@pytest.mark.parametrize("goes_on", ["V1", "V2"])
def test_only_a_merged_stay_that_has_ended_has_an_end(goes_on: str) -> None:
    heart = Heart()
    for number in ("V1", "V2"):
        heart.send(adt("A01", at="20260301120000", pid3=X, pv1={19: f"{number}^^^MRN"}))
    heart.send(
        adt("A03", at="20260302120000", pid3=X, pv1={19: f"{'V1' if goes_on == 'V2' else 'V2'}^^^MRN", 36: "01"})
    )
    heart.send(adt("A13", at="20260303120000", pid3=X, pv1={19: f"{goes_on}^^^MRN"}))
    heart.send(adt("A42", at="20260304120000", pid3=X, pv1={19: "V2^^^MRN"}, segments=(f"MRG|{X}||||V1^^^MRN",)))
    for stay in heart.chart("1").encounters:
        ended = stay.status is EncounterStatus.FINISHED
        assert (stay.discharged_at is not None, stay.disposition is not None) == (ended, ended)


# --- one stay that was registered twice, under two numbers, and a merge that brings both together


_FIRST = {2: "I", 19: "V1^^^MRN", 44: "20260228120000"}
_SECOND = {2: "I", 19: "V2^^^MRN", 44: "20260228130000"}
_ONE, _OTHER = "558181838^^^MRN^MR", "77^^^MRN^MR"


def _said_twice(ended: str | None, *, between: bool) -> list[bytes]:
    """Two registrations, of which one may have ended, and the merge: the last message, or between the others."""
    begun = [
        adt("A01", at="20260228120000", pid3=_ONE, pv1=_FIRST),
        adt("A01", at="20260228130000", pid3=_OTHER, pv1=_SECOND),
    ]
    stay, number = (_FIRST, _ONE) if ended == "first" else (_SECOND, _OTHER)
    left = {36: "01", 45: "20260306100000"}
    ends = [] if ended is None else [adt("A03", at="20260306100000", pid3=number, pv1=stay | left)]
    brought = merge("558181838", "77", at="20260306110000")
    return [*begun, brought, *ends] if between else [*begun, *ends, brought]


@pytest.mark.parametrize("between", [True, False])
@pytest.mark.parametrize("ended", ["first", "second", None])
def test_two_stays_that_a_merge_brings_together_are_a_fault_of_the_feed_and_nobody_is_forgotten(
    ended: str | None, between: bool
) -> None:
    heart = Heart()
    heart.now = datetime(2026, 3, 6, 18, 0, tzinfo=UTC)
    outcomes = [heart.send(one) for one in _said_twice(ended, between=between)]
    assert [item.kind for one in outcomes for item in one.quality] == [QualityKind.STAYS_OVERLAP]
    tasks = heart.chart().tasks
    assert bool(tasks) is (ended is not None)
    if ended == "first":  # who came later lies in a bed: the plan waits, and says for what
        assert {task.end_reason for task in tasks} == {SIDE_BY_SIDE}
    elif ended == "second":
        assert all(task.stands for task in tasks)
        assert "care_coordinator_alert" in {task.kind for task in tasks}


def test_stays_one_after_the_other_are_no_fault() -> None:
    heart = Heart()
    left = {36: "01", 45: "20260301100000"}
    sent = [
        adt("A01", at="20260228120000", pid3=_ONE, pv1=_FIRST),
        adt("A03", at="20260301100000", pid3=_ONE, pv1=_FIRST | left),
        adt("A01", at="20260303120000", pid3=_OTHER, pv1=_SECOND | {44: "20260303120000"}),
        merge("558181838", "77", at="20260306110000"),
    ]
    assert [item.kind for one in sent for item in heart.send(one).quality] == []
