"""Movements as German, French and Italian systems send them (ZBE of IHE PAM)."""

from __future__ import annotations

import pytest
from heart import Heart, adt

from engine.domain.encounter import EncounterStatus
from engine.domain.message import EntryState

IN = {3: "ICU^1^1", 44: "20260301080000"}


def moved(zbe: str, *, trigger: str = "A02", at: str = "20260306150000") -> tuple[str | None, tuple[str, ...]]:
    """Where the patient is after the message, and its deviations."""
    heart = Heart()
    heart.send(adt("A01", at="20260301080000", pv1=IN))
    outcome = heart.send(adt(trigger, at=at, pv1={3: "WARD^2^2"}, segments=(zbe,) if zbe else ()))
    assert outcome.state is EntryState.PROCESSED
    (encounter,) = heart.chart().encounters
    return encounter.location.point_of_care if encounter.location else None, outcome.deviations


@pytest.mark.parametrize(
    ("zbe", "place"),
    [
        ("", "WARD"),
        ("ZBE|7^H|20260306143000||INSERT|N", "WARD"),
        ("ZBE|7^H|20260306143000||insert", "WARD"),
        ("ZBE|7^H|20260306143000", "WARD"),
        ("ZBE|", "WARD"),
        ("ZBE|7^H|20260302143000||INSERT|Y", "ICU"),
        ("ZBE|7^H|20260302143000||CANCEL|N", "ICU"),
        ("ZBE|7^H|20260302143000||UPDATE|N", "ICU"),
        ("ZBE|7^H|20260302143000||update|Y", "ICU"),
    ],
)
@pytest.mark.parametrize("trigger", ["A02", "A08"])
def test_only_a_movement_of_now_says_where_the_patient_is(trigger: str, zbe: str, place: str) -> None:
    found, deviations = moved(zbe, trigger=trigger)
    assert found == place
    assert ("movement-not-current:ZBE" in deviations) is (place == "ICU")


@pytest.mark.parametrize(
    ("zbe", "at", "source"),
    [
        ("ZBE|7^H|20260306113000||INSERT|N", "2026-03-06T11:30:00-05:00", "ZBE-2"),
        ("ZBE|7^H|||INSERT|N", "2026-03-06T12:00:00-05:00", "EVN-2"),
        ("ZBE|7^H|20260301||UPDATE|Y", "2026-03-06T12:00:00-05:00", "EVN-2"),
    ],
)
def test_the_time_of_a_movement_is_that_of_the_event(zbe: str, at: str, source: str) -> None:
    heart = Heart()
    heart.send(adt("A01", pv1={3: "ICU^1^1"}, segments=(zbe,)))
    (encounter,) = heart.chart().encounters
    assert (encounter.admitted_at.text, encounter.time_sources["admitted_at"]) == (at, source)


CANCEL = "ZBE|7^H|20260306143000||CANCEL|N"


def after(*messages: bytes) -> tuple[EncounterStatus, list[str]]:
    """The status of the stay, and what the last message left open."""
    heart = Heart()
    for message in messages:
        outcome = heart.send(message)
    (encounter,) = heart.chart().encounters
    return encounter.status, [hold.code for hold in outcome.holds]


ADMITTED = adt("A01", at="20260301080000", pv1=IN)
LEFT = adt("A03", at="20260306120000", pv1=IN | {36: "01"})


def test_a_discharge_whose_movement_is_cancelled_is_its_cancel() -> None:
    cancelled = adt("A03", at="20260306150000", pv1=IN | {36: "01"}, segments=(CANCEL,))
    assert after(ADMITTED, LEFT, cancelled) == (EncounterStatus.ACTIVE, [])
    assert after(ADMITTED, cancelled) == (EncounterStatus.ACTIVE, ["nothing-to-cancel"])


@pytest.mark.parametrize("trigger", ["A01", "A04"])
def test_an_admission_whose_movement_is_cancelled_is_its_cancel(trigger: str) -> None:
    cancelled = adt(trigger, at="20260306150000", pv1=IN, segments=(CANCEL.replace("CANCEL", "cancel"),))
    assert after(ADMITTED, cancelled) == (EncounterStatus.CANCELLED, [])


@pytest.mark.parametrize("action", ["INSERT", "UPDATE", ""])
def test_any_other_movement_of_a_discharge_is_a_discharge(action: str) -> None:
    left = adt("A03", at="20260306150000", pv1=IN | {36: "01"}, segments=(CANCEL.replace("CANCEL", action),))
    assert after(ADMITTED, left) == (EncounterStatus.FINISHED, [])


def test_a_cancel_whose_movement_is_cancelled_is_that_cancel() -> None:
    back = adt("A13", at="20260306150000", pv1=IN, segments=(CANCEL,))
    assert after(ADMITTED, LEFT, back) == (EncounterStatus.ACTIVE, [])


@pytest.mark.parametrize(
    ("trigger", "first", "echoed", "is_then"),
    [("A06", "E", "E", "E"), ("A06", "E", "I", "O"), ("A06", "O", "", "O"),
     ("A07", "I", "I", "I"), ("A07", "I", "O", "I"), ("A07", "I", "", "I")],
)  # fmt: skip
@pytest.mark.parametrize("cancels", [CANCEL, f"{CANCEL}|{{}}"])
def test_a_class_change_whose_movement_is_cancelled_is_taken_back(
    trigger: str, first: str, echoed: str, is_then: str, cancels: str
) -> None:
    """Senders repeat what they take back, or write what was before."""
    heart = Heart()
    heart.send(adt("A04", at="20260306080000", pv1={2: first}))
    heart.send(adt(trigger, at="20260306090000", pv1={2: ""}, segments=("MRG|||||V1^^^MRN",)))
    zbe = cancels.format(trigger)
    outcome = heart.send(adt(trigger, at="20260306150000", pv1={2: echoed}, segments=(zbe, "MRG|||||V1^^^MRN")))
    (stay,) = heart.chart().encounters
    assert (stay.class_, stay.status, outcome.holds) == (is_then, EncounterStatus.ACTIVE, ())


def test_a_class_change_that_is_sent_as_the_cancel_of_the_other_one_is_that_change() -> None:
    heart = Heart()
    heart.send(adt("A01", at="20260306080000", pv1={}))
    heart.send(adt("A07", at="20260306150000", pv1={2: ""}, segments=(f"{CANCEL}|A06",)))
    assert [stay.class_ for stay in heart.chart().encounters] == ["O"]


def test_a_change_to_inpatient_that_was_taken_back_leaves_the_end_before_it_to_a_person() -> None:
    heart = Heart()
    for trigger, at in (("A04", "08"), ("A03", "09"), ("A06", "10")):
        heart.send(adt(trigger, at=f"20260306{at}0000", pv1={2: "E"} | ({36: "01"} if trigger == "A03" else {})))
    zbe = "ZBE|7^H|20260306110000||CANCEL|N"
    outcome = heart.send(adt("A06", at="20260306110000", pv1={2: "E"}, segments=(zbe,)))
    assert [hold.code.value for hold in outcome.holds] == ["status-event-stale"]
    assert heart.chart().tasks == ()


def test_a_pre_admission_whose_movement_is_cancelled_does_what_the_table_says_of_a38() -> None:
    heart = Heart()
    heart.send(ADMITTED)
    outcome = heart.send(adt("A05", at="20260306150000", pv1=IN, segments=(CANCEL,)))
    assert [hold.code for hold in outcome.holds] == ["status-event-stale"]  # the stay has begun: not taken away by A38


# --- events that name no visit, beside a stay that they can't mean


@pytest.mark.parametrize("trigger", ["A02", "A06", "A08", "A11", "A21"])
def test_the_only_open_stay_is_not_meant_by_news_of_one_that_began_on_another_day(trigger: str) -> None:
    heart = Heart()
    heart.send(adt("A04", at="20260201080000", pv1={2: "R", 19: "V1^^^MRN", 44: "20260201080000"}))
    before = heart.chart().encounters
    outcome = heart.send(adt(trigger, at="20260306100000", pv1={2: "I", 19: "", 44: "20260304093000"}))
    assert heart.chart().encounters == before
    asked = [] if trigger in {"A02", "A08"} else ["encounter-unknown"]
    assert [hold.code.value for hold in outcome.holds] == asked
    assert outcome.reason


def test_a_discharge_of_a_stay_that_began_on_another_day_is_that_of_a_stay_not_heard_of() -> None:
    heart = Heart()
    heart.send(adt("A04", at="20260201080000", pv1={2: "R", 19: "V1^^^MRN", 44: "20260201080000"}))
    end = {2: "I", 19: "", 36: "01", 44: "20260304093000", 45: "20260306100000"}
    heart.send(adt("A03", at="20260306100000", pv1=end))
    assert sorted(stay.status.value for stay in heart.chart().encounters) == ["active", "finished"]


def test_a_cancel_of_a_discharge_that_has_not_come_yet_reopens_no_former_stay() -> None:
    heart = Heart()
    heart.send(adt("A01", at="20260220080000", pv1={19: "V0^^^MRN", 44: "20260220080000"}))
    heart.send(adt("A03", at="20260224080000", pv1={19: "V0^^^MRN", 36: "01", 44: "20260220080000"}))
    heart.send(adt("A01", at="20260305080000", pv1={19: "V1^^^MRN", 44: "20260305080000"}))
    outcome = heart.send(adt("A13", at="20260306110000", pv1={19: "", 44: ""}))
    assert outcome.dead_letter is not None
    assert outcome.dead_letter.error == "encounter-ambiguous"
    assert {stay.visit_number: stay.status.value for stay in heart.chart().encounters} == {
        "V0": "finished",
        "V1": "active",
    }
