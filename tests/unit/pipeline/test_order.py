"""In which order status events count, however wrong the clocks of their senders are, and what is held when that is
not certain.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from heart import DAY, HOUR, Feed, Heart, hl7, merge

from engine.domain.encounter import EncounterStatus
from engine.domain.moment import Moment, Precision
from engine.domain.outcome import Outcome
from engine.domain.task import TaskState
from engine.pipeline.process import prepare


@pytest.fixture
def feed() -> Feed:
    return Feed()


def codes(outcome: Outcome) -> list[str]:
    return [hold.code.value for hold in outcome.holds]


def implausible(outcome: Outcome) -> list[str]:
    """The fields whose times were not believed."""
    parts = (deviation.partition(":") for deviation in outcome.deviations)
    return [field for code, _, field in parts if code == "event-time-implausible"]


def discharged(feed: Feed) -> bool:
    return feed.stay.status is EncounterStatus.FINISHED and bool(feed.plan)


# --- a claimed time is believed only inside a window -----------------------------------------------------------------

WRONG = {
    "6 minutes ahead": timedelta(minutes=6),
    "5 hours ahead": 5 * HOUR,
    "a day ahead": timedelta(days=1),
    "a year ahead": timedelta(days=365),
    "reset to 2000": datetime(2000, 1, 1, tzinfo=UTC) - DAY,
    "reset to 1970": datetime(1970, 1, 1, tzinfo=UTC) - DAY,
}


@pytest.mark.parametrize("clock", WRONG)
def test_a_discharge_behind_an_admission_from_a_wrong_clock_counts(feed: Feed, clock: str) -> None:
    first = feed.send("A01", DAY, skew=WRONG[clock], sender="REG")
    assert implausible(first) == ["EVN-2", "MSH-7"]
    second = feed.send("A03", DAY + 2 * HOUR, sender="BEDS")
    assert discharged(feed)
    assert second.holds == ()
    assert feed.stay.admitted_at == Moment.of_instant(DAY)
    assert feed.stay.time_sources["admitted_at"] == "receipt"


@pytest.mark.parametrize("clock", [*WRONG, "5 hours behind", "40 days behind"])
def test_a_discharge_from_a_wrong_clock_counts(feed: Feed, clock: str) -> None:
    skew = WRONG.get(clock) or (-5 * HOUR if clock == "5 hours behind" else -timedelta(days=40))
    feed.send("A01", DAY, sender="REG")
    outcome = feed.send("A03", DAY + 2 * HOUR, skew=skew, sender="BEDS")
    assert discharged(feed)
    assert feed.stay.discharged_at == Moment.of_instant(DAY + 2 * HOUR)
    assert "EVN-2" in implausible(outcome)


@pytest.mark.parametrize("clock", WRONG)
def test_a_whole_stay_from_a_wrong_clock_counts_in_the_order_it_came(feed: Feed, clock: str) -> None:
    for number, trigger in enumerate(("A01", "A03", "A13", "A03")):
        outcome = feed.send(trigger, DAY + number * HOUR, skew=WRONG[clock])
        assert outcome.holds == ()
    assert discharged(feed)
    assert feed.stay.discharges == 2


def test_a_clock_that_is_set_right_or_wrong_during_the_stay_loses_no_discharge(feed: Feed) -> None:
    feed.send("A01", DAY, skew=5 * HOUR)
    feed.send("A03", DAY + 2 * HOUR)
    assert discharged(feed)


def test_a_clock_a_little_ahead_is_believed_but_is_never_ahead_of_the_receipt(feed: Feed) -> None:
    first = feed.send("A01", DAY, skew=timedelta(minutes=4), sender="REG")
    assert implausible(first) == []
    assert feed.send("A03", DAY + timedelta(minutes=1), sender="BEDS").holds == ()
    assert discharged(feed)


def test_how_far_ahead_and_behind_is_believed_is_the_channels_setting() -> None:
    feed = Feed(order={"ahead_seconds_max": 7200, "behind_days_max": 30})
    assert implausible(feed.send("A01", DAY, skew=HOUR)) == []
    outcome = feed.send("A08", DAY + HOUR, skew=-timedelta(days=31))
    assert "EVN-2" in implausible(outcome)


def test_a_loaded_history_keeps_its_order(feed: Feed) -> None:
    """All of it comes today, and some of it turned round."""
    began = DAY - timedelta(days=2000)
    for trigger, hours in (("A01", 0), ("A13", 5), ("A03", 3), ("A03", 9)):
        then = began + hours * HOUR
        outcome = feed.send(trigger, DAY, sent=then, evn2=then)
        assert implausible(outcome) == []
    assert feed.stay.status is EncounterStatus.FINISHED
    assert feed.stay.discharged_at == Moment.of_instant(began + 9 * HOUR)


@pytest.mark.parametrize("year", [1900, 1904, 1970, 1980, 1986])
def test_an_admission_from_before_hl7_is_that_of_a_clock_that_was_reset(feed: Feed, year: int) -> None:
    """Whatever wrote the message wrote all of it by that clock, so that the stay seems as old as the message."""
    reset = datetime(year, 1, 1, 3, tzinfo=UTC)
    first = feed.send("A01", DAY, skew=reset - DAY, pv1={44: hl7(reset)}, birth="18900312")
    assert "PV1-44" in implausible(first)
    feed.send("A03", DAY + 2 * HOUR, skew=reset - DAY, pv1={44: hl7(reset)}, birth="18900312")
    assert discharged(feed)
    assert feed.stay.admitted_at == Moment.of_instant(DAY)
    assert feed.stay.discharged_at == Moment.of_instant(DAY + 2 * HOUR)


def test_where_the_event_time_is_implausible_msh_7_stands_in(feed: Feed) -> None:
    feed.send("A01", DAY)
    feed.send("A03", DAY + 3 * HOUR, evn2=DAY + timedelta(days=300), sent=DAY + 2 * HOUR)
    assert feed.stay.discharged_at == Moment.of_instant(DAY + 2 * HOUR)
    assert feed.stay.time_sources["discharged_at"] == "MSH-7"


def test_evn_6_counts_only_inside_the_window(feed: Feed) -> None:
    feed.send("A01", DAY)
    outcome = feed.send("A03", DAY + 3 * HOUR, evn6=DAY + timedelta(days=2))
    assert implausible(outcome) == ["EVN-6"]
    assert feed.stay.time_sources["discharged_at"] == "EVN-2"


@pytest.mark.parametrize("birth", ["20260304", "202603", "2026030409"])
def test_nothing_is_before_the_patients_birth(feed: Feed, birth: str) -> None:
    outcome = feed.send("A01", DAY, skew=-timedelta(days=40), birth=birth)
    assert "EVN-2" in implausible(outcome)
    assert feed.stay.admitted_at == Moment.of_instant(DAY)


def test_a_birth_date_to_come_is_no_measure(feed: Feed) -> None:
    assert implausible(feed.send("A01", DAY, birth="20620312")) == []


@pytest.mark.parametrize("birth", ["20620312", "2062", "20260312"])
def test_nor_is_one_to_come_of_the_times_of_the_stay(feed: Feed, birth: str) -> None:
    stay = {44: "20260301080000-0500", 45: "20260305100000-0500"}
    feed.send("A01", DAY, birth=birth, pv1={44: stay[44]})
    outcome = feed.send("A03", DAY + timedelta(hours=1), birth=birth, pv1=stay)
    assert implausible(outcome) == []
    assert (feed.stay.admitted_at, feed.stay.discharged_at) == (
        Moment.of("2026-03-01T08:00:00-05:00"),
        Moment.of("2026-03-05T10:00:00-05:00"),
    )


# --- PV1-44 and PV1-45 -----------------------------------------------------------------------------------------------


def test_an_admission_time_to_come_makes_no_true_discharge_implausible(feed: Feed) -> None:
    first = feed.send("A01", DAY, pv1={44: hl7(DAY + timedelta(days=30))})
    assert implausible(first) == ["PV1-44"]
    assert feed.send("A03", DAY + HOUR, pv1={44: hl7(DAY + timedelta(days=30))}).holds == ()
    assert discharged(feed)
    assert (feed.stay.admitted_at, feed.stay.discharged_at) == (
        Moment.of_instant(DAY),
        Moment.of_instant(DAY + HOUR),
    )


def test_an_end_to_the_hour_is_not_before_a_beginning_within_that_hour(feed: Feed) -> None:
    began = DAY + timedelta(minutes=30)
    feed.send("A01", began, pv1={44: hl7(began)})
    hour = f"{hl7(began)[:10]}+0000"
    outcome = feed.send("A03", DAY + HOUR, pv1={45: hour})
    assert (implausible(outcome), outcome.holds) == ([], ())
    assert feed.stay.discharged_at.precision is Precision.HOUR


@pytest.mark.parametrize("wrong", [DAY + timedelta(days=3), DAY - timedelta(days=1), datetime(1970, 1, 1, tzinfo=UTC)])
def test_an_implausible_discharge_time_makes_way_for_that_of_the_event(feed: Feed, wrong: datetime) -> None:
    feed.send("A01", DAY, pv1={44: hl7(DAY)})
    outcome = feed.send("A03", DAY + HOUR, pv1={45: hl7(wrong)})
    assert implausible(outcome) == ["PV1-45"]
    assert (feed.stay.discharged_at, feed.stay.time_sources["discharged_at"]) == (
        Moment.of_instant(DAY + HOUR),
        "EVN-2",
    )


def test_a_planned_admission_lies_ahead_and_is_no_measure_for_a_patient_who_comes_early(feed: Feed) -> None:
    planned = hl7(DAY + timedelta(days=10))
    assert implausible(feed.send("A05", DAY, pv1={44: planned})) == []
    assert implausible(feed.send("A08", DAY + HOUR, pv1={44: planned})) == []
    feed.send("A01", DAY + 2 * HOUR)
    feed.send("A03", DAY + 5 * HOUR)
    assert discharged(feed)
    assert feed.stay.admitted_at == Moment.of_instant(DAY + 2 * HOUR)


# --- between the events of one sender the order of sending decides ---------------------------------------------------


def test_a_back_dated_discharge_after_a_cancel_counts(feed: Feed) -> None:
    for number, trigger in enumerate(("A01", "A03", "A13")):
        feed.send(trigger, DAY + number * HOUR)
    true = DAY + 90 * timedelta(minutes=1)
    outcome = feed.send("A03", DAY + 3 * HOUR, evn2=true, pv1={45: hl7(true)})
    assert outcome.holds == ()
    assert discharged(feed)
    assert (feed.stay.discharged_at, feed.stay.disposition) == (Moment.of_instant(true), "01")


def test_a_back_dated_cancel_after_a_discharge_counts(feed: Feed) -> None:
    feed.send("A01", DAY)
    feed.send("A03", DAY + 2 * HOUR)
    feed.send("A13", DAY + 3 * HOUR, evn2=DAY + HOUR)
    assert feed.stay.status is EncounterStatus.ACTIVE
    assert feed.plan == []


def test_messages_of_one_sender_that_were_turned_round_on_the_way_count_as_they_were_sent(feed: Feed) -> None:
    feed.send("A01", DAY)
    feed.send("A03", DAY + 3 * HOUR, sent=DAY + 2 * HOUR, evn2=DAY + HOUR)
    outcome = feed.send("A13", DAY + 4 * HOUR, sent=DAY + HOUR, evn2=DAY + HOUR)
    assert feed.stay.status is EncounterStatus.FINISHED
    assert codes(outcome) == ["status-event-stale"]


def test_after_a_back_dated_discharge_an_older_cancel_of_another_sender_is_old(feed: Feed) -> None:
    for number, trigger in enumerate(("A01", "A03", "A13")):
        feed.send(trigger, DAY + number * HOUR)
    feed.send("A03", DAY + 3 * HOUR, evn2=DAY + HOUR)
    outcome = feed.send("A13", DAY + 4 * HOUR, sender="BEDS", evn2=DAY + 2 * HOUR)
    assert codes(outcome) == ["status-event-stale"]
    assert discharged(feed)


def test_between_senders_the_time_of_the_event_decides(feed: Feed) -> None:
    feed.send("A01", DAY)
    feed.send("A03", DAY + HOUR)
    feed.send("A13", DAY + 3 * HOUR, sender="BEDS")
    outcome = feed.send("A03", DAY + 4 * HOUR, evn2=DAY + 2 * HOUR, sender="THIRD")
    assert feed.stay.status is EncounterStatus.ACTIVE
    assert codes(outcome) == ["status-event-stale"]


@pytest.mark.parametrize("clock", [timedelta(), 5 * HOUR], ids=["right clock", "5 hours ahead"])
def test_between_senders_what_is_earlier_by_less_than_a_minute_is_not_earlier(feed: Feed, clock: timedelta) -> None:
    """Receipts have fractions of a second, many senders give minutes."""
    at = DAY + timedelta(seconds=40.5)
    feed.send("A01", at, skew=clock, sender="REG")
    outcome = feed.send("A03", at + timedelta(seconds=10), sender="BEDS", sent=DAY, evn2=DAY)
    assert codes(outcome) == []
    assert discharged(feed)
    late = feed.send("A13", at + HOUR, sender="REG", evn2=DAY - timedelta(seconds=30))
    assert codes(late) == ["status-event-stale"]
    assert discharged(feed)


def test_a_clock_that_is_set_right_within_the_second_turns_nothing_round(feed: Feed) -> None:
    """MSH-7 has whole seconds; the receipt that stood in for the wrong one has fractions."""
    at = DAY + timedelta(seconds=0.7)
    feed.send("A01", at, skew=5 * HOUR)
    outcome = feed.send("A03", at + timedelta(seconds=0.2), sent=DAY, evn2=DAY)
    assert codes(outcome) == []
    assert discharged(feed)


def test_of_one_sender_a_second_earlier_is_earlier(feed: Feed) -> None:
    feed.send("A01", DAY)
    feed.send("A13", DAY + HOUR)
    outcome = feed.send("A03", DAY + HOUR + timedelta(seconds=2), sent=DAY + HOUR - timedelta(seconds=1))
    assert (outcome.holds, feed.stay.status) == ((), EncounterStatus.ACTIVE)
    assert "undone-before-it-came" in outcome.deviations


def test_an_older_field_of_a_message_whose_status_counts_stays_older(feed: Feed) -> None:
    """Fields go by the time of the event, quietly."""
    feed.send("A01", DAY)
    feed.send("A13", DAY + 3 * HOUR, pv1={3: "NEW^1^1"})
    feed.send("A03", DAY + 4 * HOUR, evn2=DAY + 2 * HOUR, pv1={3: "OLD^1^1"})
    assert feed.stay.status is EncounterStatus.FINISHED
    assert feed.stay.location is not None
    assert feed.stay.location.point_of_care == "NEW"


# --- what changes nothing is held ------------------------------------------------------------------------------------


def sent_aside(feed: Feed, *steps: tuple[str, int]) -> Outcome:
    """The last outcome of messages that claim the hours given, in the order in which they come."""
    for number, (trigger, hour) in enumerate(steps):
        then = DAY + hour * HOUR
        outcome = feed.send(trigger, DAY + (20 + number) * HOUR, sent=then, evn2=then)
    return outcome


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ((("A01", 1), ("A03", 2), ("A13", 4), ("A03", 3)), "status-event-stale"),
        ((("A01", 1), ("A03", 5), ("A13", 4)), "status-event-stale"),
        ((("A01", 3), ("A11", 2)), "status-event-stale"),
        ((("A01", 3), ("A03", 4), ("A11", 2)), "status-event-stale"),
        ((("A01", 1), ("A11", 3), ("A01", 2)), "status-event-stale"),
        ((("A04", 1), ("A11", 3), ("A04", 2)), "status-event-stale"),
        ((("A05", 1), ("A11", 3), ("A05", 2)), "status-event-stale"),
        ((("A05", 2), ("A01", 1)), "status-event-stale"),
        ((("A01", 1), ("A13", 4)), "nothing-to-cancel"),
    ],
)
def test_a_status_event_that_changes_nothing_is_held(feed: Feed, steps: tuple[tuple[str, int], ...], code: str) -> None:
    outcome = sent_aside(feed, *steps)
    (hold,) = outcome.holds
    assert (hold.code, hold.subject) == (code, "MRN:V1")
    assert (hold.chart_id, hold.patient_key) == (feed.heart.chart("1").id, "MRN:1")
    assert ("held", code) in {(effect.kind, effect.detail) for effect in outcome.effects}
    assert "status-event-set-aside" in {effect.kind for effect in outcome.effects}
    assert outcome.reason is not None
    assert outcome.reason.startswith("held for a person: ")


@pytest.mark.parametrize(
    "steps",
    [
        (("A01", 1), ("A03", 3), ("A03", 2)),
        (("A01", 1), ("A03", 3), ("A01", 2)),
        (("A03", 3), ("A01", 1)),
        (("A03", 3), ("A04", 1)),
        (("A03", 3), ("A05", 1)),
        (("A01", 2), ("A05", 1)),
        (("A01", 2), ("A01", 1)),
        (("A11", 3), ("A11", 2)),
        (("A01", 1), ("A03", 2), ("A13", 3), ("A13", 4)),
        (("A01", 1), ("A03", 2), ("A03", 4)),
        (("A01", 1), ("A02", 3), ("A08", 2), ("A02", 2)),
    ],
)
def test_what_the_chart_says_already_is_not_held(feed: Feed, steps: tuple[tuple[str, int], ...]) -> None:
    assert sent_aside(feed, *steps).holds == ()


@pytest.mark.parametrize("trigger", ["A01", "A03", "A11", "A13", "A04", "A05"])
def test_a_status_event_without_pv1_is_held(feed: Feed, trigger: str) -> None:
    outcome = feed.send(trigger, DAY, visit=False)
    assert [(hold.code, hold.location) for hold in outcome.holds] == [("visit-missing", "PV1")]
    assert feed.heart.chart("1").patient.name is not None


@pytest.mark.parametrize("trigger", ["A01", "A03", "A11", "A13"])
def test_a_status_event_of_a_stay_with_class_n_is_held(feed: Feed, trigger: str) -> None:
    assert codes(feed.send(trigger, DAY, pv1={2: "N"})) == ["visit-missing"]


@pytest.mark.parametrize("trigger", ["A04", "A05", "A02", "A08"])
def test_a_registration_or_an_update_with_class_n_speaks_of_no_visit(feed: Feed, trigger: str) -> None:
    assert feed.send(trigger, DAY, pv1={2: "N"}).holds == ()


@pytest.mark.parametrize("trigger", ["A11", "A13"])
def test_a_status_event_whose_stay_can_not_be_told_is_held(feed: Feed, trigger: str) -> None:
    assert codes(feed.send(trigger, DAY, pv1={19: ""})) == ["encounter-unknown"]


def test_an_update_whose_stay_can_not_be_told_is_noted_quietly(feed: Feed) -> None:
    assert feed.send("A08", DAY, pv1={19: ""}).holds == ()


@pytest.mark.parametrize("disposition", ["09", "30", "31", "34", "39"])
def test_a_discharge_of_a_patient_who_is_said_to_be_still_here_is_held(feed: Feed, disposition: str) -> None:
    feed.send("A01", DAY)
    outcome = feed.send("A03", DAY + HOUR, pv1={36: disposition})
    assert codes(outcome) == ["disposition-is-no-discharge"]
    assert "held" in {effect.kind for effect in outcome.effects}
    assert ("disposition_no_discharge", "PV1-36") in {(one.kind, one.detail) for one in outcome.quality}
    assert feed.stay.status is EncounterStatus.ACTIVE


@pytest.mark.parametrize("disposition", ["09", "30"])
@pytest.mark.parametrize("sender", ["EPIC", "BEDS"])
def test_so_is_one_that_comes_after_the_discharge_and_the_plan_stays(feed: Feed, disposition: str, sender: str) -> None:
    feed.send("A01", DAY)
    feed.send("A03", DAY + HOUR)
    before = feed.heart.chart("1")
    outcome = feed.send("A03", DAY + 2 * HOUR, pv1={36: disposition}, sender=sender)
    assert codes(outcome) == ["disposition-is-no-discharge"]
    assert (discharged(feed), feed.heart.chart("1").tasks) == (True, before.tasks)
    assert feed.replay(feed.entries[-1], decision="disposition-is-no-discharge").holds == ()
    assert (discharged(feed), feed.stay.disposition) == (True, "01")


def test_a_discharge_said_to_be_none_from_before_the_discharge_is_no_news(feed: Feed) -> None:
    feed.send("A01", DAY)
    feed.send("A03", DAY + 2 * HOUR)
    assert feed.send("A03", DAY + 3 * HOUR, sent=DAY + HOUR, evn2=DAY + HOUR, pv1={36: "30"}).holds == ()


def test_a_merge_that_turns_an_earlier_one_round_is_held_and_a_repeat_is_not() -> None:
    heart = Heart()
    assert heart.send(merge("1", "2")).holds == ()
    assert heart.send(merge("1", "2", at="20260309130000")).holds == ()
    outcome = heart.send(merge("2", "1", at="20260309140000"))
    assert codes(outcome) == ["merge-without-effect"]
    assert outcome.holds[0].patient_key == "MRN:1"


# --- an admission or pre-admission of a stay that has ended, or begun ------------------------------------------------


def stay_that_ended(feed: Feed, pv1: dict[int, str] | None = None) -> None:
    feed.send("A01", DAY, pv1=pv1)
    feed.send("A03", DAY + 5 * HOUR, pv1=pv1)


@pytest.mark.parametrize("trigger", ["A01", "A04"])
@pytest.mark.parametrize("said", ["", hl7(DAY - HOUR), hl7(DAY + HOUR)])
def test_an_admission_after_the_end_that_is_not_the_one_of_the_stay_is_held(
    feed: Feed, trigger: str, said: str
) -> None:
    stay_that_ended(feed, {44: hl7(DAY)})
    outcome = feed.send(trigger, DAY + 9 * HOUR, pv1={44: said})
    assert (codes(outcome), outcome.holds[0].subject) == (["status-event-stale"], "MRN:V1")
    assert discharged(feed)
    assert feed.stay.admitted_at == Moment.of_instant(DAY)


@pytest.mark.parametrize("class_", ["O", "E", "R"])
@pytest.mark.parametrize("since", [{44: hl7(DAY + 9 * HOUR)}, {}])
def test_a_visit_without_a_bed_under_the_number_of_a_stay_that_has_ended_changes_nothing_of_it(
    feed: Feed, class_: str, since: dict[int, str]
) -> None:
    stay_that_ended(feed, {44: hl7(DAY), 36: "01"})
    before = feed.stay
    visit = {2: class_} | since
    for trigger, after in (("A04", 9), ("A01", 10)):
        assert codes(feed.send(trigger, DAY + after * HOUR, pv1=visit)) == ["status-event-stale"]
    if since:
        assert codes(feed.send("A08", DAY + 11 * HOUR, pv1=visit)) == []
        assert codes(feed.send("A03", DAY + 12 * HOUR, pv1=visit)) == ["status-event-stale"]
    assert feed.stay == before
    assert any(task.stands for task in feed.heart.chart("1").tasks)


@pytest.mark.parametrize("pv1", [{44: hl7(DAY)}, {44: DAY.strftime("%Y%m%d%H%M+0000")}])
def test_the_very_admission_said_again_after_the_end_is_no_question(feed: Feed, pv1: dict[int, str]) -> None:
    stay_that_ended(feed, {44: hl7(DAY)})
    outcome = feed.send("A01", DAY + 9 * HOUR, pv1=pv1)
    assert (codes(outcome), discharged(feed)) == ([], True)
    assert "admission-after-discharge" in outcome.deviations


def test_an_admission_without_a_time_is_the_very_one_when_its_event_is(feed: Feed) -> None:
    stay_that_ended(feed)
    assert codes(feed.send("A01", DAY + 9 * HOUR, evn2=DAY)) == []
    assert codes(feed.send("A01", DAY + 9 * HOUR, evn2=DAY + 8 * HOUR)) == ["status-event-stale"]


def test_the_released_admission_opens_the_stay_again(feed: Feed) -> None:
    stay_that_ended(feed, {44: hl7(DAY)})
    feed.send("A01", DAY + 9 * HOUR)
    feed.replay(feed.entries[-1], decision="status-event-stale")
    assert (feed.stay.status, feed.plan) == (EncounterStatus.ACTIVE, [])


def test_a_second_admission_under_the_number_that_was_overtaken_by_its_discharge_is_held(feed: Feed) -> None:
    stay_that_ended(feed, {44: hl7(DAY)})
    feed.send("A03", DAY + 60 * HOUR)
    second = feed.send(
        "A01", DAY + 61 * HOUR, sent=DAY + 30 * HOUR, evn2=DAY + 30 * HOUR, pv1={44: hl7(DAY + 30 * HOUR)}
    )
    assert codes(second) == ["status-event-stale"]


def test_the_discharge_of_a_second_stay_under_the_number_has_a_plan_of_its_own(feed: Feed) -> None:
    stay_that_ended(feed, {44: hl7(DAY)})
    first = {task.id for task in feed.heart.chart("1").tasks}
    second = {44: hl7(DAY + 30 * HOUR), 45: hl7(DAY + 60 * HOUR)}
    feed.send("A03", DAY + 60 * HOUR, pv1=second)
    assert feed.stay.discharges == 2
    assert feed.plan
    assert not {task.id for task in feed.heart.chart("1").tasks if task.state is TaskState.OPEN} & first


@pytest.mark.parametrize(
    ("status", "said"), [("A03", hl7(DAY + 70 * HOUR)), ("A03", ""), ("A01", hl7(DAY + 70 * HOUR))]
)
def test_a_pre_admission_of_a_stay_to_come_under_the_number_of_another_is_held(
    feed: Feed, status: str, said: str
) -> None:
    feed.send("A01", DAY, pv1={44: hl7(DAY)})
    if status == "A03":
        feed.send("A03", DAY + 5 * HOUR)
    before = feed.stay
    outcome = feed.send("A05", DAY + 9 * HOUR, pv1={44: said})
    assert codes(outcome) == ["status-event-stale"]
    assert (feed.stay.status, feed.stay.admitted_at) == (before.status, before.admitted_at)


@pytest.mark.parametrize("status", ["A01", "A03"])
@pytest.mark.parametrize("said", [hl7(DAY), hl7(DAY - HOUR)])
def test_a_pre_admission_that_comes_after_its_stay_has_begun_leaves_a_trace(feed: Feed, status: str, said: str) -> None:
    feed.send("A01", DAY, pv1={44: hl7(DAY)})
    if status == "A03":
        feed.send("A03", DAY + 5 * HOUR)
    outcome = feed.send("A05", DAY + 9 * HOUR, pv1={44: said})
    assert (codes(outcome), "pre-admission-after-arrival" in outcome.deviations) == ([], True)
    assert outcome.reason == "a pre-admission of a stay that has begun already"


@pytest.mark.parametrize("trigger", ["A02", "A08"])
@pytest.mark.parametrize("end", [DAY + 30 * HOUR, DAY + 40 * HOUR])
def test_an_update_that_tells_of_an_end_before_any_discharge_leaves_a_trace_until_the_discharge_comes(
    feed: Feed, trigger: str, end: datetime
) -> None:
    feed.send("A01", DAY)
    outcome = feed.send(trigger, DAY + 41 * HOUR, pv1={36: "01", 45: hl7(end)})
    assert "end-without-discharge" in outcome.deviations
    assert (feed.stay.status, "told_end" in feed.heart.chart("1").encounter_stamps[feed.stay.key]) == ("active", True)
    feed.send("A03", DAY + 42 * HOUR)
    assert discharged(feed)
    assert "told_end" not in feed.heart.chart("1").encounter_stamps[feed.stay.key]


def test_an_update_that_repeats_the_end_of_a_cancelled_discharge_tells_of_none(feed: Feed) -> None:
    feed.send("A01", DAY)
    feed.send("A03", DAY + 5 * HOUR, pv1={45: hl7(DAY + 5 * HOUR)})
    feed.send("A13", DAY + 6 * HOUR)
    outcome = feed.send("A08", DAY + 7 * HOUR, pv1={45: hl7(DAY + 5 * HOUR)})
    assert "end-without-discharge" not in outcome.deviations


# --- what a later event makes true is no question any more ------------------------------------------------------------


def test_a_discharge_that_is_said_again_and_counts_answers_the_one_that_was_held(feed: Feed) -> None:
    sent_aside(feed, ("A01", 1), ("A03", 2), ("A13", 4), ("A03", 3))
    assert "status-event-stale" in feed.open_questions
    feed.send("A03", DAY + 6 * HOUR)
    assert "status-event-stale" not in feed.open_questions


@pytest.mark.parametrize("trigger", ["A08", "A02", "A05"])
def test_what_asserts_nothing_answers_nothing(feed: Feed, trigger: str) -> None:
    sent_aside(feed, ("A01", 1), ("A03", 2), ("A13", 4), ("A03", 3))
    before = feed.open_questions
    feed.send(trigger, DAY + 6 * HOUR, pv1={44: hl7(DAY + HOUR)})
    assert [code for code in before if code not in feed.open_questions] == []


def test_a_discharge_with_another_disposition_answers_one_that_said_still_here(feed: Feed) -> None:
    feed.send("A01", DAY)
    feed.send("A03", DAY + HOUR, pv1={36: "30"})
    feed.send("A03", DAY + 2 * HOUR, pv1={36: "31"})
    assert feed.open_questions == ["disposition-is-no-discharge"] * 2
    feed.send("A03", DAY + 3 * HOUR, pv1={36: "06"})
    assert (feed.open_questions, discharged(feed)) == ([], True)


@pytest.mark.parametrize("trigger", ["A01", "A03", "A11"])
def test_a_message_sent_again_with_its_visit_answers_the_one_without(feed: Feed, trigger: str) -> None:
    feed.send("A01", DAY, pv1={44: hl7(DAY)})
    feed.send(trigger, DAY + HOUR, visit=False)
    assert feed.open_questions == ["visit-missing"]
    feed.send(trigger, DAY + 2 * HOUR, evn2=DAY + HOUR, pv1={44: hl7(DAY)})
    assert feed.open_questions == []


def test_the_discharge_of_another_day_does_not_answer_one_without_its_visit(feed: Feed) -> None:
    feed.send("A01", DAY)
    feed.send("A03", DAY + HOUR, visit=False)
    feed.send("A03", DAY + 30 * HOUR)
    assert feed.open_questions == ["visit-missing"]


def test_the_cancel_of_a_discharge_that_was_not_seen_is_answered_by_one_that_was_cancelled(feed: Feed) -> None:
    sent_aside(feed, ("A01", 1), ("A13", 2))
    assert feed.open_questions == ["nothing-to-cancel"]
    feed.send("A01", DAY + 3 * HOUR)
    assert feed.open_questions == ["nothing-to-cancel"]
    feed.send("A03", DAY + 4 * HOUR)
    feed.send("A13", DAY + 5 * HOUR)
    assert feed.open_questions == []


# --- what takes a discharge back is believed only when no wrong clock can have turned the two round -------------------


def test_the_admission_of_a_discharge_from_a_slow_clock_that_came_first_does_not_reopen_the_stay(feed: Feed) -> None:
    feed.send("A03", DAY + HOUR, skew=-5 * HOUR, sender="BEDS")
    outcome = feed.send("A01", DAY + 2 * HOUR, sent=DAY, evn2=DAY, pv1={44: hl7(DAY)})
    assert codes(outcome) == ["status-event-stale"]
    assert discharged(feed)


def test_the_admission_of_a_discharge_that_came_first_is_its_beginning_when_pv1_44_allows_it(feed: Feed) -> None:
    feed.send("A03", DAY + 3 * HOUR, sender="BEDS")
    assert feed.send("A01", DAY + 4 * HOUR, sent=DAY, evn2=DAY, pv1={44: hl7(DAY)}).holds == ()
    assert discharged(feed)
    assert feed.stay.admitted_at == Moment.of_instant(DAY)


@pytest.mark.parametrize("trigger", ["A01", "A04"])
def test_an_admission_of_an_ended_stay_whose_beginning_was_not_seen_is_held(feed: Feed, trigger: str) -> None:
    feed.send("A03", DAY)
    outcome = feed.send(trigger, DAY + 30 * HOUR, pv1={44: hl7(DAY + 30 * HOUR)})
    assert codes(outcome) == ["status-event-stale"]
    assert discharged(feed)
    feed.replay(feed.entries[-1], decision="status-event-stale")
    assert feed.stay.status is EncounterStatus.ACTIVE


def test_a_new_stay_under_the_number_of_one_that_was_seen_from_its_beginning_opens_it_again(feed: Feed) -> None:
    feed.send("A01", DAY)
    feed.send("A03", DAY + HOUR)
    assert feed.send("A01", DAY + 30 * HOUR, pv1={44: hl7(DAY + 30 * HOUR)}).holds == ()
    assert feed.stay.status is EncounterStatus.ACTIVE


@pytest.mark.parametrize("trigger", ["A13", "A11"])
def test_a_late_cancel_of_a_fast_clock_does_not_take_away_another_senders_discharge(feed: Feed, trigger: str) -> None:
    feed.send("A01", DAY)
    feed.send("A03", DAY + 2 * HOUR)
    outcome = feed.send(trigger, DAY + 3 * HOUR, sent=DAY + 6 * HOUR, evn2=DAY + 6 * HOUR, sender="BEDS")
    assert codes(outcome) == ["status-event-stale"]
    assert discharged(feed)
    outcome = feed.replay(feed.entries[-1], decision="status-event-stale")
    assert (outcome.holds, feed.plan) == ((), [])


@pytest.mark.parametrize("skew", [timedelta(), timedelta(minutes=4), 5 * HOUR, timedelta(days=365), -20 * HOUR])
@pytest.mark.parametrize("trigger", ["A13", "A11"])
def test_a_cancel_of_one_sender_counts_whatever_its_clock_shows(feed: Feed, trigger: str, skew: timedelta) -> None:
    for number, said in enumerate(("A01", "A03", trigger)):
        assert feed.send(said, DAY + number * HOUR, skew=skew).holds == ()
    assert feed.plan == []


@pytest.mark.parametrize("trigger", ["A13", "A11"])
def test_a_cancel_of_another_sender_counts_when_it_was_made_after_the_discharge_was_known(
    feed: Feed, trigger: str
) -> None:
    feed.send("A01", DAY)
    feed.send("A03", DAY + HOUR)
    assert feed.send(trigger, DAY + 2 * HOUR, sender="BEDS").holds == ()
    assert feed.plan == []


def test_messages_of_one_fast_clock_that_were_turned_round_take_no_discharge_away(feed: Feed) -> None:
    for trigger, hour, came in (("A01", 0, 0), ("A03", 1, 1), ("A03", 3, 4), ("A13", 2, 5)):
        claimed = DAY + (hour + 12) * HOUR
        outcome = feed.send(trigger, DAY + came * HOUR, sent=claimed, evn2=claimed)
    assert codes(outcome) == ["status-event-stale"]
    assert discharged(feed)


def test_an_earlier_discharge_of_a_fast_clock_does_not_end_a_stay_whose_discharge_was_cancelled(feed: Feed) -> None:
    feed.send("A01", DAY)
    feed.send("A13", DAY + 3 * HOUR)
    outcome = feed.send("A03", DAY + 4 * HOUR, sent=DAY + 9 * HOUR, evn2=DAY + 9 * HOUR, sender="BEDS")
    assert codes(outcome) == ["status-event-stale"]
    assert feed.stay.status is EncounterStatus.ACTIVE


def test_the_cancel_of_a_discharge_that_was_not_seen_is_held_though_it_claims_to_be_old(feed: Feed) -> None:
    feed.send("A01", DAY)
    outcome = feed.send("A13", DAY + HOUR, skew=-2 * HOUR, sender="BEDS")
    assert codes(outcome) == ["nothing-to-cancel"]


# --- what a person takes as true -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "decision", "status"),
    [
        ((("A01", 1), ("A03", 2), ("A13", 4), ("A03", 3)), "status-event-stale", EncounterStatus.FINISHED),
        ((("A01", 1), ("A03", 5), ("A13", 4)), "status-event-stale", EncounterStatus.ACTIVE),
        ((("A01", 3), ("A11", 2)), "status-event-stale", EncounterStatus.CANCELLED),
        ((("A01", 1), ("A13", 4)), "nothing-to-cancel", EncounterStatus.ACTIVE),
    ],
)
def test_what_a_person_releases_is_so_as_of_the_decision(
    feed: Feed, steps: tuple[tuple[str, int], ...], decision: str, status: EncounterStatus
) -> None:
    sent_aside(feed, *steps)
    outcome = feed.replay(feed.entries[-1], decision=decision)
    assert (outcome.holds, feed.stay.status) == ((), status)
    assert (outcome.replay_root, outcome.decision) == (feed.entries[-1].id, decision)
    after = feed.heart.chart("1")
    for entry in feed.entries:  # older news does not turn the decision back
        feed.replay(entry)
    assert feed.heart.chart("1").encounters == after.encounters


def test_a_released_discharge_has_its_plan_and_a_later_event_goes_on_from_there(feed: Feed) -> None:
    sent_aside(feed, ("A01", 1), ("A03", 2), ("A13", 4), ("A03", 3))
    feed.replay(feed.entries[-1], decision="status-event-stale")
    assert discharged(feed)
    assert feed.stay.discharged_at == Moment.of_instant(DAY + 3 * HOUR)
    feed.send("A13", feed.heart.now + HOUR)
    assert feed.stay.status is EncounterStatus.ACTIVE


def test_a_released_discharge_of_a_patient_said_to_be_still_here_ends_the_stay(feed: Feed) -> None:
    feed.send("A01", DAY)
    feed.send("A03", DAY + HOUR, pv1={36: "30"})
    outcome = feed.replay(feed.entries[-1], decision="disposition-is-no-discharge")
    assert outcome.holds == ()
    assert (feed.stay.status, feed.stay.disposition) == (EncounterStatus.FINISHED, None)
    assert feed.stay.discharged_at == Moment.of_instant(DAY + HOUR)


def test_a_decision_on_something_else_makes_no_old_event_new(feed: Feed) -> None:
    sent_aside(feed, ("A01", 1), ("A03", 2), ("A13", 4), ("A03", 3))
    outcome = feed.replay(feed.entries[-1], decision="death-in-future@PID-29")
    assert codes(outcome) == ["status-event-stale"]
    assert feed.stay.status is EncounterStatus.ACTIVE


# --- replays ---------------------------------------------------------------------------------------------------------


def test_replaying_what_was_applied_holds_nothing_and_changes_nothing(feed: Feed) -> None:
    for number, trigger in enumerate(("A01", "A03", "A13", "A03", "A08")):
        feed.send(trigger, DAY + number * HOUR)
    before = feed.heart.chart("1")
    for entry in feed.entries:
        outcome = feed.replay(entry, settled=True)
        assert (outcome.holds, outcome.charts, outcome.deliveries) == ((), (), ())
    assert feed.heart.chart("1") == before


def test_a_replay_of_what_was_not_applied_is_judged_as_it_is(feed: Feed) -> None:
    sent_aside(feed, ("A01", 1), ("A03", 5), ("A13", 4))
    assert codes(feed.replay(feed.entries[-1])) == ["status-event-stale"]


# --- clocks ----------------------------------------------------------------------------------------------------------


def test_a_message_measures_its_sender_and_a_replay_does_not() -> None:
    feed = Feed()
    feed.send("A01", DAY, skew=timedelta(hours=5))
    feed.send("A08", DAY, skew=-timedelta(minutes=1), sender="OTHER")
    first, second = (prepare(entry, feed.heart.channel).clock for entry in feed.entries)
    assert first is not None
    assert second is not None
    assert (first[1], second[1]) == (-18_000.0, 60.0)
    assert first[0] != second[0]
    again = msgspec.structs.replace(feed.entries[0], replay_of=1, replay_root=1)
    assert prepare(again, feed.heart.channel).clock is None
