"""Every trigger event about a stay, and its reversal (HL7 v2.9.1 chapter 3), through the shipped channel."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations
from typing import Any, Final

import pytest
from heart import DAY, HOUR, Feed, Heart, adt

from engine.domain.encounter import Encounter, EncounterStatus, Location
from engine.domain.task import TaskState

S = EncounterStatus

WARD, ICU, OTHER = "WARD^1^1", "ICU^2^2", "STEPDOWN^3^3"


class Stay:
    """A stay, told by one message an hour."""

    def __init__(self, first: str = "A01", **pv1: str) -> None:
        self.heart = Heart()
        self.hour = 7
        self.send(first, **{"_3": WARD, "_44": "20260306080000"} | pv1)

    def send(self, trigger: str, *segments: str, at: int | None = None, **fields: str) -> list[str]:
        """The questions that it leaves. fields: `_3` of PV1, `pid_18` of PID. at: its hour; none: the next one."""
        self.hour += at is None
        pv1 = {int(name[1:]): value for name, value in fields.items() if name.startswith("_")}
        pid = {int(name[4:]): value for name, value in fields.items() if name.startswith("pid_")}
        said = adt(trigger, at=f"20260306{at or self.hour:02d}0000", pv1=pv1, pid=pid, segments=segments)
        self.outcome = self.heart.send(said)
        return [hold.code.value for hold in self.outcome.holds]

    @property
    def now(self) -> Encounter:
        (stay,) = self.heart.chart().encounters
        return stay

    @property
    def place(self) -> str | None:
        return self.now.location.point_of_care if self.now.location else None

    @property
    def plan(self) -> list[str]:
        return [task.kind for task in self.heart.chart().tasks if task.state is TaskState.OPEN]


# --- leave of absence -------------------------------------------------------------------------------------------------


def test_a_leave_begins_and_ends_and_the_stay_goes_on() -> None:
    stay = Stay()
    assert stay.send("A21", "PV2" + "|" * 47 + "20260308120000") == []
    assert stay.now.status is S.ON_LEAVE
    began, back = stay.now.leave_began_at, stay.now.leave_return_expected_at
    assert began is not None
    assert back is not None
    assert (began.text, back.text) == ("2026-03-06T09:00:00-05:00", "2026-03-08T12:00:00-04:00")  # summer time
    assert stay.send("A22") == []
    assert (stay.now.status, stay.now.leave_began_at, stay.plan) == (S.ACTIVE, began, [])


@pytest.mark.parametrize(
    ("events", "status"),
    [
        (("A21", "A52"), S.ACTIVE),
        (("A21", "A22", "A53"), S.ON_LEAVE),
        (("A21", "A22", "A53", "A22"), S.ACTIVE),
        (("A21", "A22", "A21"), S.ON_LEAVE),
        (("A21", "A03"), S.FINISHED),
        (("A21", "A03", "A13"), S.ON_LEAVE),  # as before the discharge
        (("A21", "A22", "A03", "A13"), S.ACTIVE),
        (("A21", "A52", "A03", "A13"), S.ACTIVE),
        (("A21", "A22", "A53", "A03", "A13"), S.ON_LEAVE),
        (("A21", "A03", "A13", "A22"), S.ACTIVE),
        (("A03", "A13", "A21", "A13"), S.ON_LEAVE),
        (("A22",), S.ACTIVE),
        (("A53",), S.ON_LEAVE),
        (("A21", "A02", "A08"), S.ON_LEAVE),
        (("A21", "A11"), S.CANCELLED),
    ],
)
def test_a_leave_and_its_cancels_come_to_where_the_patient_is(events: tuple[str, ...], status: S) -> None:
    stay = Stay()
    asked = [code for trigger in events for code in stay.send(trigger, **({"_36": "01"} if trigger == "A03" else {}))]
    assert (stay.now.status, asked) == (status, [])


def test_a_cancel_of_a_discharge_that_nobody_knows_brings_nobody_back_from_leave() -> None:
    stay = Stay()
    stay.send("A21")
    assert stay.send("A13") == ["nothing-to-cancel"]
    assert stay.now.status is S.ON_LEAVE


def test_a_patient_on_leave_is_scored_anew_when_an_earlier_visit_is_heard_of() -> None:
    stay = Stay()
    stay.send("A21")
    before = stay.heart.chart().scores
    emergency = {2: "E", 19: "V0^^^MRN", 36: "01", 44: "20260201080000", 45: "20260201120000"}
    stay.heart.send(adt("A03", at="20260201120000", pv1=emergency))
    assert before
    assert stay.heart.chart().scores != before


def test_a_cancelled_leave_leaves_no_trace() -> None:
    stay = Stay()
    before = stay.now
    stay.send("A21", "PV2" + "|" * 47 + "20260308")
    stay.send("A52")
    assert stay.now == before


@pytest.mark.parametrize("trigger", ["A21", "A22", "A52", "A53"])
def test_a_leave_of_a_stay_that_has_ended_is_a_question_and_takes_no_plan_away(trigger: str) -> None:
    stay = Stay()
    stay.send("A03", _36="01")
    plan = stay.plan
    assert plan
    assert stay.send(trigger) == ["status-event-stale"]
    assert (stay.now.status, stay.plan) == (S.FINISHED, plan)


@pytest.mark.parametrize("trigger", ["A21", "A22", "A52", "A53"])
def test_a_leave_without_a_visit_number_is_that_of_the_one_open_stay(trigger: str) -> None:
    """As a long-term care system sends it: no PV1-19, no class, the patient in PID-2."""
    stay = Stay()
    said = adt(trigger, at="20260306200000", pid3="", pid={2: "558181838^^^MRN^MR"}, pv1={2: "", 19: ""})
    assert stay.heart.send(said).holds == ()
    assert stay.now.status is (S.ON_LEAVE if trigger in {"A21", "A53"} else S.ACTIVE)


# --- what is planned --------------------------------------------------------------------------------------------------


def test_a_pending_discharge_is_a_plan_and_never_a_discharge() -> None:
    stay = Stay()
    assert stay.send("A16", "PV2" + "|" * 9 + "20260309", _36="01", _45="20260309100000") == []
    due = stay.now.expected_discharge_at
    assert due is not None
    assert (stay.now.status, due.text, stay.now.discharge_pending) == (S.ACTIVE, "2026-03-09", True)
    assert (stay.now.discharged_at, stay.now.disposition, stay.plan) == (None, None, [])
    assert stay.send("A25") == []
    assert (stay.now.expected_discharge_at, stay.now.discharge_pending) == (None, False)


def test_a_pending_discharge_with_a_disposition_of_death_kills_nobody() -> None:
    stay = Stay()
    assert stay.send("A16", _36="20") == []
    assert not stay.heart.chart().patient.deceased


@pytest.mark.parametrize("trigger", ["A03", "A25"])
def test_a_discharge_is_pending_until_the_discharge_or_its_cancel(trigger: str) -> None:
    stay = Stay()
    stay.send("A16")
    assert stay.now.discharge_pending
    stay.send(trigger, _36="01")
    assert not stay.now.discharge_pending
    stay.send("A16", at=9)  # late news
    assert not stay.now.discharge_pending


def test_a_pending_transfer_names_the_place_until_it_has_come_to_pass() -> None:
    stay = Stay()
    stay.send("A15", _3=WARD, _42=ICU)
    assert (stay.place, stay.now.pending_location) == (
        "WARD",
        Location(point_of_care="ICU", room="2", bed="2"),
    )
    stay.send("A02", _3=ICU, _6=WARD, _42=ICU)  # senders repeat PV1-42
    assert (stay.place, stay.now.pending_location) == ("ICU", None)


def test_a_pending_transfer_that_is_cancelled_is_no_more() -> None:
    stay = Stay()
    before = stay.now
    stay.send("A15", _3=WARD, _42=ICU)
    stay.send("A26", _3=WARD, _42=ICU)
    assert stay.now == before


@pytest.mark.parametrize(("plans", "cancels"), [("A05", "A38"), ("A14", "A27"), ("A05", "A11")])
def test_a_planned_admission_is_cancelled(plans: str, cancels: str) -> None:
    stay = Stay(plans, _44="20260310080000")
    assert stay.now.status is S.PLANNED
    assert stay.send(cancels) == []
    assert stay.now.status is S.CANCELLED
    assert stay.send(plans) == []
    assert stay.now.status is S.PLANNED


def test_a_planned_admission_says_when_the_patient_is_expected() -> None:
    stay = Stay("A14", _44="")
    stay.send("A14", "PV2" + "|" * 8 + "20260310", _44="")
    expected = stay.now.expected_admission_at
    assert expected is not None
    assert (expected.text, stay.now.admitted_at) == ("2026-03-10", None)


@pytest.mark.parametrize("trigger", ["A38", "A27"])
@pytest.mark.parametrize("begun", ["A01", "A03"])
def test_the_cancel_of_a_pre_admission_takes_no_stay_away_that_has_begun(trigger: str, begun: str) -> None:
    stay = Stay("A05")
    stay.send("A01")
    if begun == "A03":
        stay.send("A03", _36="01")
    status, plan = stay.now.status, stay.plan
    assert stay.send(trigger) == ["status-event-stale"]
    assert (stay.now.status, stay.plan) == (status, plan)


@pytest.mark.parametrize("trigger", ["A38", "A27"])
def test_an_old_cancel_of_a_pre_admission_is_old_news(trigger: str) -> None:
    stay = Stay("A05")
    stay.hour += 2
    stay.send("A01")
    assert stay.send(trigger, at=9) == []
    assert stay.now.status is S.ACTIVE


# --- transfers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cancel",
    [
        {"_3": WARD},
        {"_3": WARD, "_6": ICU},
        {"_6": WARD},
        {},
        {"_3": ICU, "_6": WARD},  # the transfer, written once more
    ],
)
@pytest.mark.parametrize("transfer", [{"_3": ICU, "_6": WARD}, {"_3": ICU}])
def test_a_cancelled_transfer_leads_back_to_the_place_before(transfer: dict[str, str], cancel: dict[str, str]) -> None:
    stay = Stay()
    stay.send("A02", **transfer)
    assert (stay.place, stay.now.prior_location) == ("ICU", Location(point_of_care="WARD", room="1", bed="1"))
    assert stay.send("A12", **cancel) == []
    assert (stay.place, stay.now.prior_location) == ("WARD", None)
    stay.send("A12", **cancel)  # said again
    assert stay.place == "WARD" or cancel == {"_3": ICU, "_6": WARD}


def test_a_cancel_that_overtakes_its_transfer_leaves_the_patient_where_they_are() -> None:
    stay = Stay()
    stay.send("A12", at=12, _3=WARD)
    stay.send("A02", at=10, _3=ICU, _6=WARD)
    assert stay.place == "WARD"
    stay.send("A02", at=13, _3=OTHER, _6=WARD)
    assert stay.place == "STEPDOWN"


def _placed(*told: tuple[str, int, dict[str, str]]) -> str | None:
    """Where the patient is, admitted to the ward at 8, after these messages."""
    stay = Stay()
    for trigger, at, fields in told:
        stay.send(trigger, at=at, **fields)
    return stay.place


_HOW: Final = {
    "the place before": {"_3": OTHER},
    "the place before, and the one that is cancelled": {"_3": OTHER, "_6": ICU},
    "the place before as the prior one": {"_6": OTHER},
    "nothing": {},
    "the transfer once more": {"_3": ICU, "_6": OTHER},
}


@pytest.mark.parametrize("cancel", _HOW)
@pytest.mark.parametrize("again", [None, 0, 1, 2])
def test_a_cancelled_transfer_comes_to_the_same_place_in_every_order(cancel: str, again: int | None) -> None:
    """As each kind of sender writes it: an earlier transfer, the one that is cancelled, and its cancel."""
    told = (
        ("A02", 9, {"_3": OTHER, "_6": WARD}),
        ("A02", 10, {"_3": ICU, "_6": OTHER}),
        ("A12", 11, _HOW[cancel]),
    )
    for order in permutations(told):
        assert _placed(*order, *([told[again]] if again is not None else [])) == "STEPDOWN"


@pytest.mark.parametrize("cancel", [how for how in _HOW if how != "the transfer once more"])
def test_a_cancelled_transfer_whose_sender_never_names_the_place_before(cancel: str) -> None:
    told = (("A02", 10, {"_3": ICU}), ("A12", 11, {name: WARD for name, _ in _HOW[cancel].items() if _ == OTHER}))
    for order in permutations(told):
        assert _placed(*order) == "WARD"


@pytest.mark.parametrize("cancel", _HOW)
def test_a_transfer_after_one_that_was_cancelled_counts(cancel: str) -> None:
    told = (
        ("A02", 9, {"_3": ICU, "_6": OTHER}),
        ("A12", 10, _HOW[cancel]),
        ("A02", 11, {"_3": "NEU^1^1", "_6": OTHER}),
    )
    for order in permutations(told):
        assert _placed(*order) == "NEU"


def test_the_cancel_of_a_transfer_by_its_movement_leads_back() -> None:
    stay = Stay()
    stay.send("A02", "ZBE|7^H|20260306090000||INSERT|N", _3=ICU, _6=WARD)
    stay.send("A12", "ZBE|7^H|20260306090000||CANCEL|N", _3=WARD)
    assert stay.place == "WARD"
    stay.send("A02", "ZBE|8^H|20260306110000||INSERT|N", _3=OTHER, _6=WARD)
    stay.send("A02", "ZBE|8^H|20260306110000||CANCEL|N", _3=OTHER, _6=WARD)
    assert stay.place == "WARD"


@pytest.mark.parametrize(
    ("trigger", "undone"), [("A12", "A02"), ("A25", "A16"), ("A26", "A15"), ("A33", "A09"), ("A32", "A10")]
)
def test_a_cancel_that_finds_nothing_to_cancel_says_so(trigger: str, undone: str) -> None:
    stay = Stay()
    if trigger == "A32":
        stay.send("A09", _11="OR^1")
    assert stay.send(trigger, _3=WARD) == []
    assert "cancels-nothing" in stay.outcome.deviations
    assert stay.outcome.reason is not None
    stay.send(undone, _3=ICU, _42=ICU, _11="OR^1")
    stay.send(trigger, _3=WARD)
    assert "cancels-nothing" not in stay.outcome.deviations


def test_departing_and_arriving_leave_the_bed_the_patients() -> None:
    stay = Stay()
    stay.send("A09", _3="OR^1", _6=WARD, _11="HOLDING^1")
    away = stay.now.temporary_location
    assert away is not None
    assert (stay.place, stay.now.in_transit, away.point_of_care) == ("WARD", True, "HOLDING")
    stay.send("A10", _3="OR^1", _6=WARD, _11="OR^1")
    away = stay.now.temporary_location
    assert away is not None
    assert (stay.place, stay.now.in_transit, away.point_of_care) == ("WARD", False, "OR")
    stay.send("A32", _3="OR^1")
    assert (stay.place, stay.now.in_transit) == ("WARD", True)
    stay.send("A33", _3=WARD)
    assert (stay.place, stay.now.in_transit, stay.now.temporary_location) == ("WARD", False, None)


def test_the_status_of_a_bed_is_recorded_and_nothing_is_held() -> None:
    message = b"MSH|^~\\&|BEDS|MAIN|H|H|20260306120000||ADT^A20|B1|P|2.5.1\rEVN|A20|20260306120000\rNPU|WARD^1^1|H\r"
    outcome = Heart().send(message)
    assert (outcome.state, outcome.holds, outcome.charts, outcome.patient_key) == ("processed", (), (), None)
    assert [effect.kind for effect in outcome.effects] == ["recorded-without-effect"]


# --- who is responsible -----------------------------------------------------------------------------------------------


def test_another_attending_doctor_and_back() -> None:
    stay = Stay(_7="1^House")
    stay.send("A54", _7="2^Cuddy")
    assert stay.now.attending is not None
    assert stay.now.attending.id == "2"
    stay.send("A55", _7="1^House")  # PV1-7 of the cancel is the doctor before
    assert stay.now.attending is not None
    assert stay.now.attending.id == "1"
    stay.send("A54", at=9, _7="2^Cuddy")
    assert stay.now.attending.id == "1"


@pytest.mark.parametrize("trigger", ["A54", "A55", "A61", "A62", "A60"])
def test_what_such_an_event_says_of_the_person_counts(trigger: str) -> None:
    stay = Stay()
    stay.send(trigger, pid_13="2125550111")
    assert stay.heart.chart().patient.phones == ("+12125550111",)
    assert stay.now.status is S.ACTIVE


def test_allergies_without_a_visit_open_none() -> None:
    heart = Heart()
    outcome = heart.send(adt("A60", segments=("IAM|1|DA^Drug|PCN^Penicillin|MO",)))
    assert (outcome.holds, heart.chart().encounters) == ((), ())


# --- the class changes ------------------------------------------------------------------------------------------------

CHANGES: dict[str, dict[str, Any]] = {
    "the same number": {},
    "another number, and the former visit": {"_19": "V2^^^MRN", "mrg": "MRG|||||V1^^^MRN"},
    "another number of the same visit without authority": {"_19": "V2", "mrg": "MRG|||||V1"},
    "another number, and the former account": {"_19": "V2^^^MRN", "pid_18": "A2", "mrg": "MRG|||A1"},
    "another number, and the same account": {"_19": "V2^^^MRN", "pid_18": "A1"},
    "another number, and the same admission": {"_19": "V2^^^MRN", "_44": "20260306080000"},
    "another account": {"pid_18": "A2", "mrg": "MRG|||A1"},
    "no number, and another account": {"_19": "", "pid_18": "A2", "mrg": "MRG|||A1"},
    "no number at all": {"_19": ""},
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_emergency_stay_that_becomes_an_inpatients_is_one_stay(name: str) -> None:
    said = dict(CHANGES[name])
    mrg = said.pop("mrg", None)
    stay = Stay("A04", _2="E", pid_18="A1" if "account" in name else "")
    key = stay.now.key
    assert stay.send("A06", *([mrg] if mrg else []), **{"_2": "I"} | said) == []
    assert (stay.now.key, stay.now.class_, stay.now.status) == (key, "I", S.ACTIVE)
    after = {name: value for name, value in said.items() if name in {"_19", "pid_18"}}
    stay.send("A08", **{"_2": "I", "_3": ICU} | after)
    assert stay.place == "ICU"
    stay.send("A03", **{"_2": "I", "_36": "01"} | after)
    assert (stay.now.status, stay.now.discharges) == (S.FINISHED, 1)
    assert stay.plan
    if said.get("_19"):
        assert stay.now.visit_number == "V2"


EPISODES = {
    "a new number": [
        ("A04", 8, {"_2": "E"}, ""),
        ("A06", 9, {"_19": "V2^^^MRN"}, "MRG|||||V1^^^MRN"),
        ("A02", 10, {"_19": "V2^^^MRN", "_3": ICU, "_6": WARD}, ""),
        ("A03", 11, {"_19": "V2^^^MRN", "_3": ICU, "_36": "01"}, ""),
    ],
    "a new account": [
        ("A04", 8, {"_2": "E", "_19": "", "pid_18": "A1"}, ""),
        ("A06", 9, {"_19": "", "pid_18": "A2"}, "MRG|||A1"),
        ("A02", 10, {"_19": "", "pid_18": "A2", "_3": ICU, "_6": WARD}, ""),
        ("A03", 11, {"_19": "", "pid_18": "A2", "_3": ICU, "_36": "01"}, ""),
    ],
    "there and back under new numbers": [
        ("A04", 8, {"_2": "E"}, ""),
        ("A06", 9, {"_19": "V2^^^MRN"}, "MRG|||||V1^^^MRN"),
        ("A07", 10, {"_2": "O", "_19": "V3^^^MRN"}, "MRG|||||V2^^^MRN"),
        ("A06", 11, {"_19": "V2^^^MRN", "_3": ICU}, "MRG|||||V3^^^MRN"),
        ("A03", 12, {"_19": "V2^^^MRN", "_3": ICU, "_36": "01"}, ""),
    ],
}


@pytest.mark.parametrize("name", EPISODES)
def test_a_class_change_that_comes_late_or_early_makes_one_stay_of_two(name: str) -> None:
    for order in permutations(EPISODES[name]):
        heart = Heart()
        for trigger, hour, said, mrg in order:
            pv1 = {3: WARD, 44: "20260306080000"} | {int(f[1:]): v for f, v in said.items() if f.startswith("_")}
            pid = {18: said["pid_18"]} if "pid_18" in said else {}
            at = f"20260306{hour:02d}0000"
            heart.send(adt(trigger, at=at, pv1=pv1, pid=pid, segments=(mrg,) if mrg else ()))
        (stay,) = [one for one in heart.chart().encounters if one.merged_into is None]
        assert (stay.status, stay.class_, stay.discharges) == (S.FINISHED, "I", 1), [one[0] for one in order]
        assert stay.location is not None
        assert stay.location.point_of_care == "ICU"
        assert stay.visit_number == (None if name == "a new account" else "V2")
        open_ones = [task for task in heart.chart().tasks if task.state is TaskState.OPEN]
        assert {task.encounter for task in open_ones} == {stay.key}


def test_late_news_under_the_former_number_is_of_the_same_stay() -> None:
    stay = Stay("A04", _2="E")
    stay.send("A06", "MRG|||||V1^^^MRN", _19="V2^^^MRN")
    stay.send("A08", at=8, _2="E", _19="V1^^^MRN")
    assert (stay.now.class_, stay.now.visit_number) == ("I", "V2")
    stay.send("A08", _2="I", _3=ICU, _19="V1^^^MRN")
    assert (stay.place, stay.now.visit_number) == ("ICU", "V2")


@pytest.mark.parametrize(("first", "trigger", "sent", "class_"), [
    ("E", "A06", "", "I"), ("O", "A06", "", "I"), ("E", "A06", "I", "I"), ("I", "A07", "", "O"), ("I", "A07", "O", "O"),
    ("E", "A06", "E", "I"), ("I", "A07", "I", "O"), ("O", "A06", "OBS", "OBS"), ("I", "A07", "E", "E"),
])  # fmt: skip
def test_a_class_change_says_the_class_even_where_pv1_2_is_empty_or_the_old_one(
    first: str, trigger: str, sent: str, class_: str
) -> None:
    stay = Stay("A04", _2=first)
    stay.send(trigger, _2=sent)
    assert stay.now.class_ == class_
    assert ("class-contradicts-event" in stay.outcome.deviations) is (sent == first)


def test_the_identifiers_in_mrg_of_a_class_change_merge_nobody() -> None:
    stay = Stay("A04", _2="E")
    stay.heart.send(adt("A01", pid3="9^^^MRN^MR", pv1={19: "V9^^^MRN"}, pid={5: "Roe^Ann", 7: "19700101"}))
    stay.send("A06", "MRG|9^^^MRN^MR||A1||V1^^^MRN", _19="V2^^^MRN")
    assert stay.now.class_ == "I"
    assert stay.heart.chart("9").id != stay.heart.chart().id


def test_the_former_visit_of_another_patient_moves_nothing() -> None:
    stay = Stay("A04", _2="E")
    stay.heart.send(adt("A01", pid3="9^^^MRN^MR", pv1={19: "V9^^^MRN"}, pid={5: "Roe^Ann", 7: "19700101"}))
    stay.send("A06", "MRG|||||V9^^^MRN", _19="V2^^^MRN", _44="20260306110000")
    assert [one.key for one in stay.heart.chart("9").encounters] == ["MRN:V9"]
    assert {one.key for one in stay.heart.chart().encounters} == {"MRN:V1", "MRN:V2"}


@pytest.mark.parametrize(("trigger", "class_"), [("A06", "I"), ("A07", "O")])
@pytest.mark.parametrize("end", [{"_36": "01"}, {"_45": "20260306120000"}])
def test_a_class_change_that_tells_of_the_end_ends_and_opens_nothing(
    trigger: str, class_: str, end: dict[str, str]
) -> None:
    """It is put right afterwards as what the stay counts."""
    stay = Stay("A04", _2="E")
    stay.send("A03", _2="E", _36="01")
    assert stay.send(trigger, _2=class_, **end) == []
    assert (stay.now.status, stay.now.class_) == (S.FINISHED, class_)
    assert bool(stay.plan) is (class_ == "I")


@pytest.mark.parametrize("class_", ["E", "O", "I", "OBS"])
@pytest.mark.parametrize("says", ["I", ""])
def test_no_plan_stands_for_a_patient_who_became_an_inpatient_after_the_discharge(class_: str, says: str) -> None:
    stay = Stay("A04", _2=class_)
    stay.send("A03", _2=class_, _36="01")
    assert stay.send("A06", _2=says) == []
    assert (stay.now.status, stay.now.discharged_at, stay.plan) == (S.ACTIVE, None, [])
    assert stay.send("A03", _2="I", _36="01") == []
    assert (stay.now.status, bool(stay.plan)) == (S.FINISHED, True)


def test_a_class_change_that_is_older_than_the_discharge_takes_no_plan_away() -> None:
    stay = Stay("A04", _2="E")
    stay.send("A03", _2="I", _36="01", at=12)
    plan = stay.plan
    assert plan
    assert stay.send("A06", _2="I", at=11) == []
    assert (stay.now.status, stay.plan) == (S.FINISHED, plan)


def test_a_discharge_from_before_the_class_change_is_asked_about_and_makes_no_plan() -> None:
    stay = Stay("A04", _2="E")
    stay.send("A06", at=12)
    assert stay.send("A03", _2="E", _36="01", at=11) == ["status-event-stale"]
    assert (stay.now.status, stay.now.class_, stay.plan) == (S.ACTIVE, "I", [])


@pytest.mark.parametrize("trigger", ["A06", "A07"])
def test_a_class_change_of_a_patient_who_was_expected_says_that_they_are_here(trigger: str) -> None:
    stay = Stay("A05", _2="P")
    stay.send(trigger)
    assert stay.now.status is S.ACTIVE


def test_evn_1_lies_and_msh_9_counts() -> None:
    stay = Stay("A04", _2="E")
    said = adt("A06", at="20260306120000", pv1={2: "I"}).replace(b"EVN|A06", b"EVN|A02")
    stay.heart.send(said)
    assert stay.now.class_ == "I"


# --- newborns ---------------------------------------------------------------------------------------------------------


def test_a_newborn_is_a_patient_of_their_own_and_no_alias_of_the_mother() -> None:
    heart = Heart()
    heart.send(adt("A01", pv1={19: "V1^^^MRN"}))
    baby = {5: "Doe^Baby Girl", 7: "20260306", 21: "558181838^^^MRN^MR"}
    outcome = heart.send(adt("A01", pid3="700^^^MRN^MR", pid=baby, pv1={4: "N", 19: "V7^^^MRN"}))
    assert outcome.holds == ()
    assert heart.chart("700").id != heart.chart().id
    assert len(heart.chart().encounters) == 1
    assert {one.value for one in heart.chart("700").patient.identifiers} == {"700"}
    named = baby | {5: "Doe^Emma"}
    assert heart.send(adt("A08", pid3="700^^^MRN^MR", pid=named, pv1={4: "N", 19: "V7^^^MRN"})).holds == ()


@pytest.mark.parametrize(
    ("born", "planned"),
    [("20260301", False), ("2026", False), ("20250308", False), ("20250306", True), ("2025", True), ("", True)],
)
def test_a_newborn_who_goes_home_gets_no_plan_and_whose_age_is_not_known_does(born: str, planned: bool) -> None:
    heart = Heart()
    for trigger, more in (("A01", {}), ("A03", {36: "01"})):
        outcome = heart.send(
            adt(trigger, at="20260307120000", pid={7: born}, pv1={4: "N", 44: "20260306080000"} | more)
        )
    assert bool([task for task in heart.chart().tasks if task.state is TaskState.OPEN]) is planned
    assert ("too-young" in {why.reason for why in outcome.why}) is not planned


def test_a_newborn_that_is_only_added_has_no_visit() -> None:
    heart = Heart()
    outcome = heart.send(adt("A28", pid3="700^^^MRN^MR", pid={21: "558181838^^^MRN^MR"}, pv1={2: "N", 19: ""}))
    assert (outcome.holds, heart.chart("700").encounters) == ((), ())


# --- cancels that come first ------------------------------------------------------------------------------------------


def turned_round(*said: tuple[str, int], **more: Any) -> Feed:
    """Messages of one sender that claim the hours given, in the order in which they come."""
    feed = Feed()
    for number, (trigger, hour) in enumerate(said):
        then = DAY + hour * HOUR
        feed.send(trigger, DAY + (20 + number) * HOUR, sent=then, evn2=then, **more)
    return feed


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ((("A01", 1), ("A13", 4), ("A03", 3)), S.ACTIVE),
        ((("A13", 4), ("A03", 3), ("A01", 1)), S.ACTIVE),
        ((("A13", 4), ("A01", 1), ("A03", 3)), S.ACTIVE),
        ((("A01", 1), ("A13", 4), ("A03", 6), ("A03", 3)), S.FINISHED),
        ((("A01", 1), ("A13", 4), ("A03", 3), ("A03", 6)), S.FINISHED),
        ((("A01", 1), ("A03", 2), ("A13", 3), ("A13", 6), ("A03", 5)), S.ACTIVE),
        ((("A11", 3), ("A01", 2)), S.CANCELLED),
        ((("A11", 3), ("A04", 1), ("A01", 2)), S.CANCELLED),
        ((("A05", 1), ("A11", 3), ("A01", 2)), S.CANCELLED),
        ((("A38", 3), ("A05", 2)), S.CANCELLED),
        ((("A27", 3), ("A14", 2)), S.CANCELLED),
        ((("A01", 1), ("A52", 4), ("A21", 3)), S.ACTIVE),
        ((("A01", 1), ("A53", 5), ("A22", 4), ("A21", 3)), S.ON_LEAVE),
        ((("A01", 1), ("A22", 4), ("A21", 3)), S.ACTIVE),
    ],
)
def test_a_cancel_that_comes_before_what_it_cancels_is_applied_when_that_comes(
    said: tuple[tuple[str, int], ...], status: S
) -> None:
    feed = turned_round(*said)
    assert (feed.stay.status, feed.open_questions) == (status, [])
    assert bool(feed.plan) is (status is S.FINISHED)


@pytest.mark.parametrize("order", [(("A13", 4), ("A03", 3)), (("A11", 4), ("A01", 3))])
def test_what_was_cancelled_before_it_came_is_cancelled_once(order: tuple[tuple[str, int], ...]) -> None:
    """A second one that claims to be older comes from a clock that was set back, for all anybody knows."""
    feed = turned_round(("A08", 1), *order, (order[1][0], 2))
    assert feed.open_questions == ["status-event-stale"]


def test_another_senders_discharge_is_not_taken_for_the_one_that_a_cancel_waits_for() -> None:
    feed = Feed()
    feed.send("A01", DAY)
    feed.send("A13", DAY + 4 * HOUR)
    feed.send("A03", DAY + 5 * HOUR, sent=DAY + 3 * HOUR, evn2=DAY + 3 * HOUR, sender="BEDS")
    assert feed.open_questions == ["nothing-to-cancel", "status-event-stale"]


@pytest.mark.parametrize("minutes", [1440, 5, 0])
def test_the_question_of_a_cancel_says_until_when_it_waits(minutes: int) -> None:
    feed = Feed(order={"cancel_waits_minutes_max": minutes})
    feed.send("A01", DAY)
    (hold,) = feed.send("A13", DAY + 4 * HOUR).holds
    assert (hold.code, hold.waits_until) == ("nothing-to-cancel", DAY + 4 * HOUR + timedelta(minutes=minutes))


def test_a_cancel_without_a_visit_number_waits_on_the_one_open_stay() -> None:
    feed = turned_round(("A01", 1), ("A13", 4), pv1={19: ""})
    assert feed.open_questions == ["nothing-to-cancel"]
    assert turned_round(("A01", 1), ("A13", 4), ("A03", 3), pv1={19: ""}).open_questions == []
