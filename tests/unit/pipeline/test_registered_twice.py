"""One stay that was registered twice, under two patients, and the merge of the two: in every order, once or again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import permutations

import msgspec
import pytest
from heart import Heart, adt
from hypothesis import given, settings
from hypothesis import strategies as st
from rounds import SOAK
from test_closing import ALL, BoundedHeart

from engine.care.plausible import TWO_ENDS
from engine.domain.cause import TaskCancelled, TaskDone, written
from engine.domain.chart import Chart
from engine.domain.encounter import EncounterStatus
from engine.domain.message import EntryState
from engine.domain.outcome import Outcome
from engine.domain.quality import QualityKind
from engine.domain.task import ENDED_LATER, SIDE_BY_SIDE

MERGES = ("A18", "A30", "A34", "A36", "A39", "A40")
HOME = {"medication_reconciliation", "education", "tcm_contact"}
ASK = "care_coordinator_alert"
BEGAN, BEGAN_AGAIN = "20260228120000", "20260228130000"
MERGED = "20260306110000"


def admission(number: str, visit: str, at: str, class_: str = "I") -> bytes:
    return adt("A01", at=at, pid3=f"{number}^^^MRN^MR", pv1={2: class_, 19: f"{visit}^^^MRN", 44: at})


def discharge(number: str, visit: str, begin: str, at: str, code: str = "01", class_: str = "I") -> bytes:
    pv1 = {2: class_, 19: f"{visit}^^^MRN", 44: begin, 36: code, 45: at}
    return adt("A03", at=at, pid3=f"{number}^^^MRN^MR", pv1=pv1)


def merged(event: str = "A40", at: str = MERGED) -> bytes:
    """The second registration into the first one."""
    mrg = "MRG|2^^^MRN^MR||A2" if event == "A36" else "MRG|2^^^MRN^MR"
    return adt(event, at=at, pid3="1^^^MRN^MR", pid={18: "A1"} if event == "A36" else {}, segments=(mrg,))


def sent(*messages: bytes) -> tuple[Heart, list[Outcome]]:
    heart = Heart()
    heart.now = datetime(2026, 3, 6, 18, 0, tzinfo=UTC)
    outcomes = [heart.send(one) for one in messages]
    assert {one.state for one in outcomes} == {EntryState.PROCESSED}
    return heart, outcomes


def faults(outcomes: Iterable[Outcome]) -> set[QualityKind]:
    return {item.kind for one in outcomes for item in one.quality}


def bounded(*messages: bytes) -> Chart:
    """The same of charts that are kept as the store does, without what is over."""
    heart = BoundedHeart(ALL)
    heart.now = datetime(2026, 3, 6, 18, 0, tzinfo=UTC)
    for one in messages:
        heart.send(one)
        heart.commit()
    (chart,) = [chart for chart in heart.whole().values() if chart.merged_into is None]
    return chart


def standing(chart: Chart, stay: str | None = None) -> set[str]:
    found = [task for task in chart.tasks if task.stands and stay in {None, task.encounter}]
    assert set(Counter(task.step for task in found).values()) <= {1}
    return {task.kind for task in found}


def as_it_is(chart: Chart) -> tuple[object, ...]:
    """What the order of messages must not change."""
    return (
        {(one.key, one.status, one.admitted_at, one.discharged_at, one.disposition) for one in chart.encounters},
        {(task.kind, task.encounter, task.due_at, task.reason) for task in chart.tasks if task.stands},
        {(task.kind, task.encounter, task.suspended_by) for task in chart.tasks if task.suspended_by},
    )


def nobody_is_forgotten(chart: Chart, outcomes: Iterable[Outcome]) -> None:
    """One living plan at most, of a stay that is over; none only while the patient is still in a bed."""
    planned = {task.encounter for task in chart.tasks if task.stands}
    ended = {stay.key for stay in chart.encounters if stay.status is EncounterStatus.FINISHED}
    waits = {task.encounter for task in chart.tasks if task.end_reason == SIDE_BY_SIDE}
    assert len(planned) <= 1
    assert planned <= ended
    if ended:
        assert planned or waits
    assert QualityKind.STAYS_OVERLAP in faults(outcomes)


# --- each of the events that merge two patients


FIRST = admission("1", "V1", BEGAN)
SECOND = admission("2", "V2", BEGAN_AGAIN)
FIRST_ENDS = discharge("1", "V1", BEGAN, "20260306100000")
SECOND_ENDS = discharge("2", "V2", BEGAN_AGAIN, "20260306101500")


@pytest.mark.parametrize("ends", [(), (FIRST_ENDS,), (SECOND_ENDS,), (FIRST_ENDS, SECOND_ENDS)])
@pytest.mark.parametrize("event", MERGES)
def test_a_merge_by_any_event_before_or_after_the_discharge_comes_to_the_same(
    event: str, ends: tuple[bytes, ...]
) -> None:
    found = []
    for place in range(len(ends) + 1):
        heart, outcomes = sent(FIRST, SECOND, *ends[:place], merged(event), *ends[place:])
        chart = heart.chart("2")
        assert chart.patient.key == heart.chart("1").patient.key
        nobody_is_forgotten(chart, outcomes)
        found.append(as_it_is(chart))
    assert found == [found[0]] * len(found)


@pytest.mark.parametrize("event", MERGES)
def test_two_stays_that_were_over_at_the_merge_have_one_plan_and_are_on_the_list(event: str) -> None:
    heart, outcomes = sent(FIRST, SECOND, FIRST_ENDS, SECOND_ENDS, merged(event))
    assert faults(outcomes) == {QualityKind.STAYS_OVERLAP}
    chart = heart.chart("1")
    assert standing(chart) == standing(chart, "MRN:V2") == HOME
    assert {task.end_reason for task in chart.tasks if task.suspended_by} == {ENDED_LATER}


# --- two ends: evidently the same, or a person decides


@pytest.mark.parametrize("merge_first", [True, False])
@pytest.mark.parametrize(
    ("end", "code", "has_plan", "asked"),
    [
        ("20260306101500", "01", "MRN:V2", False),
        ("20260306101500", "81", "MRN:V2", False),  # the twin of 01
        ("20260306101500", "", "MRN:V2", True),  # asked of as any blank one is
        ("20260306094500", "01", "MRN:V1", False),
        ("20260306094500", "", "MRN:V1", False),
        ("20260306094500", "02", "MRN:V1", True),
        ("20260306101500", "02", "MRN:V2", True),
        ("20260306101500", "03", "MRN:V2", True),
        ("20260302090000", "01", "MRN:V1", True),  # four days before
        ("20260302090000", "02", "MRN:V1", True),
    ],
)
def test_a_person_decides_where_two_stays_of_one_time_did_not_end_alike(
    end: str, code: str, has_plan: str, asked: bool, merge_first: bool
) -> None:
    ends = [FIRST_ENDS, discharge("2", "V2", BEGAN_AGAIN, end, code)]
    if end < "20260306100000":
        ends.reverse()
    rest = [merged(at=BEGAN_AGAIN), *ends] if merge_first else [*ends, merged()]
    heart, outcomes = sent(FIRST, SECOND, *rest)
    chart = heart.chart("1")
    assert standing(chart) == standing(chart, has_plan)
    assert (ASK in standing(chart)) is asked
    if code in {"01", "81"} or has_plan == "MRN:V1":
        assert HOME.intersection(standing(chart)) or "pcp_follow_up" in standing(chart)
    assert QualityKind.STAYS_OVERLAP in faults(outcomes)


def test_what_a_correction_makes_the_same_is_asked_no_more() -> None:
    other = discharge("2", "V2", BEGAN_AGAIN, "20260306101500", "02")
    corrected = {2: "I", 19: "V2^^^MRN", 44: BEGAN_AGAIN, 36: "01", 45: "20260306101500"}
    heart, _ = sent(FIRST, SECOND, FIRST_ENDS, other, merged())
    assert ASK in standing(heart.chart("1"))
    heart.send(adt("A08", at="20260306120000", pid3="1^^^MRN^MR", pv1=corrected))
    assert standing(heart.chart("1")) == HOME


@pytest.mark.parametrize("ended", [TaskDone, TaskCancelled])
@pytest.mark.parametrize(("codes", "asked_of"), [(("01", "9Z"), "2"), (("9Z", "03"), "1"), (("9Z", "9Z"), "2")])
def test_who_has_decided_before_the_merge_is_asked_which_of_the_two_is_right(
    codes: tuple[str, str], asked_of: str, ended: type[TaskDone | TaskCancelled]
) -> None:
    first = discharge("1", "V1", BEGAN, "20260306100000", codes[0])
    heart, _ = sent(FIRST, SECOND, first, discharge("2", "V2", BEGAN_AGAIN, "20260306101500", codes[1]))
    chart = heart.chart(asked_of)
    (task,) = [task for task in chart.tasks if task.kind == ASK]
    more = {"reason": "seen"} if ended is TaskCancelled else {}
    act = msgspec.structs.replace(
        heart.entry(written(ended(actor="anna", chart_id=chart.id, task=task.id, **more))), channel="@act"
    )
    heart.work(act)
    assert ASK not in standing(heart.chart(asked_of))
    for _ in range(2):
        heart.send(merged())
        asked = [task.reason for task in heart.chart("1").tasks if task.step == "decide" and task.stands]
        assert [TWO_ENDS in reason for reason in asked] == [True] * (codes[0] != codes[1])
    corrected = {2: "I", 19: "V2^^^MRN", 44: BEGAN_AGAIN, 36: codes[0], 45: "20260306101500"}
    heart.send(adt("A08", at="20260306120000", pid3="1^^^MRN^MR", pv1=corrected))
    assert not [task for task in heart.chart("1").tasks if task.stands and TWO_ENDS in task.reason]


def test_wards_that_register_stays_of_their_own_overlap_by_minutes() -> None:
    rehab = admission("2", "V2", "20260306093000")
    _, outcomes = sent(FIRST, FIRST_ENDS, rehab, merged())
    assert faults(outcomes) == set()


@pytest.mark.parametrize("class_", ["E", "O", "R"])
def test_a_visit_beside_a_stay_is_no_second_registration(class_: str) -> None:
    visit = (
        admission("2", "V2", "20260302120000", class_),
        discharge("2", "V2", "20260302120000", "20260302150000", class_=class_),
    )
    heart, outcomes = sent(FIRST, *visit, FIRST_ENDS, merged())
    assert faults(outcomes) == set()
    assert ASK not in standing(heart.chart("1"))


def test_a_stay_that_moves_to_a_patient_with_one_of_the_same_time_is_on_the_list() -> None:
    heart, _ = sent(FIRST, FIRST_ENDS, SECOND)
    mrg = "MRG|2^^^MRN^MR||||V2^^^MRN"
    pv1 = {2: "I", 19: "V2^^^MRN"}
    outcome = heart.send(adt("A45", at=MERGED, pid3="1^^^MRN^MR", pv1=pv1, segments=(mrg,)))
    assert faults([outcome]) == {QualityKind.STAYS_OVERLAP}


def test_an_old_stay_that_is_heard_of_late_and_lies_in_another_one_is_on_the_list() -> None:
    inner = discharge("1", "V2", "20260301120000", "20260302120000", "02")
    heart, outcomes = sent(FIRST, FIRST_ENDS, inner)
    assert faults(outcomes[2:]) == {QualityKind.STAYS_OVERLAP}
    assert standing(heart.chart("1"), "MRN:V1") == HOME | {ASK}


# --- in every order, and again


_WHOLE = (FIRST, SECOND, FIRST_ENDS, SECOND_ENDS, merged())
_DIFFERENT = (FIRST, SECOND, FIRST_ENDS, discharge("2", "V2", BEGAN_AGAIN, "20260306101500", "02"), merged())
_NESTED_AWAY = (FIRST, SECOND, FIRST_ENDS, discharge("2", "V2", BEGAN_AGAIN, "20260302090000", "02"), merged())
_NESTED = (FIRST, SECOND, FIRST_ENDS, discharge("2", "V2", BEGAN_AGAIN, "20260302090000"), merged())
_ONE_ENDS = (FIRST, SECOND, FIRST_ENDS, merged())
_OTHER_ENDS = (FIRST, SECOND, SECOND_ENDS, merged())


@pytest.mark.parametrize("messages", [_WHOLE, _DIFFERENT, _NESTED, _NESTED_AWAY, _ONE_ENDS, _OTHER_ENDS])
def test_the_order_of_two_registrations_their_ends_and_the_merge_does_not_matter(messages: tuple[bytes, ...]) -> None:
    wanted = None
    for order in permutations(messages):
        heart, outcomes = sent(*order)
        chart = heart.chart("1")
        nobody_is_forgotten(chart, outcomes)
        wanted = wanted or as_it_is(chart)
        assert as_it_is(chart) == wanted
        if order[0] is messages[0]:  # a share of them: it is slower
            assert as_it_is(bounded(*order)) == wanted


def news(event: str, visit: str, at: str, **pv1: str) -> bytes:
    number, begin = ("1", BEGAN) if visit == "V1" else ("2", BEGAN_AGAIN)
    fields = {2: "I", 19: f"{visit}^^^MRN", 44: begin} | {int(name[1:]): value for name, value in pv1.items()}
    return adt(event, at=at, pid3=f"{number}^^^MRN^MR", pv1=fields)


_NEVER_WAS = news("A11", "V2", "20260306103000")
_GOES_ON = {visit: news("A13", visit, "20260306104000") for visit in ("V1", "V2")}
_ENDS_AGAIN = news("A03", "V1", "20260306120000", _36="01", _45="20260306120000")
_MOVES_ON = news("A02", "V2", "20260302120000", _3="ICU")
_TAKEN_BACK = [
    (*_ONE_ENDS, _NEVER_WAS),
    (*_WHOLE, _NEVER_WAS),
    (*_WHOLE, _GOES_ON["V1"]),
    (*_WHOLE, _GOES_ON["V2"]),
    (*_WHOLE, _GOES_ON["V1"], _ENDS_AGAIN),
    (*_WHOLE, _MOVES_ON),
]


@settings(max_examples=150 if SOAK else 60, deadline=None)
@given(st.data())
def test_what_is_said_again_or_turned_round_changes_nothing_and_what_is_taken_back_is_undone(
    data: st.DataObject,
) -> None:
    messages = data.draw(st.sampled_from([_WHOLE, _DIFFERENT, _NESTED, _ONE_ENDS, _OTHER_ENDS, *_TAKEN_BACK]))
    wanted = as_it_is(sent(*messages)[0].chart("1"))
    said = data.draw(st.permutations([*messages, *data.draw(st.lists(st.sampled_from(messages), max_size=3))]))
    heart, outcomes = sent(*said)
    if _NEVER_WAS in messages:
        assert standing(heart.chart("1")) == standing(heart.chart("1"), "MRN:V1") == HOME
    else:
        nobody_is_forgotten(heart.chart("1"), outcomes)
    assert as_it_is(heart.chart("1")) == wanted


# --- two visits of one patient that are merged (A42): when the stay began


_V1 = adt("A01", at=BEGAN, pid3="1^^^MRN^MR", pv1={19: "V1^^^MRN", 44: BEGAN})
_V2 = adt("A01", at="20260301130000", pid3="1^^^MRN^MR", pv1={19: "V2^^^MRN", 44: "20260301130000"})
_V2_FIRST = adt("A01", at="20260227130000", pid3="1^^^MRN^MR", pv1={19: "V2^^^MRN", 44: "20260227130000"})


def visits_merged(at: str = "20260302120000", **pv1: str) -> bytes:
    fields = {2: "", 19: "V2^^^MRN"} | {int(name.removeprefix("_")): value for name, value in pv1.items()}
    return adt("A42", at=at, pid3="1^^^MRN^MR", pv1=fields, segments=("MRG|1^^^MRN^MR||||V1^^^MRN",))


def begun(heart: Heart) -> str:
    (stay,) = [one for one in heart.chart("1").encounters if one.status is not EncounterStatus.CANCELLED]
    assert stay.admitted_at is not None
    return stay.admitted_at.text[: len("2026-02-28T12")]


@pytest.mark.parametrize(
    ("second", "first_day"), [(_V2, "2026-02-28T12"), (_V2_FIRST, "2026-02-27T13")], ids=["later", "earlier"]
)
def test_a_stay_of_two_visits_began_with_the_earlier_admission_in_every_order(second: bytes, first_day: str) -> None:
    for order in permutations((_V1, second, visits_merged())):
        if order[0] == visits_merged():
            continue  # it names nothing that is known, and a person is asked
        heart, _ = sent(*order)
        assert begun(heart) == first_day
        for message in order:  # and said again
            heart.send(message)
        assert begun(heart) == first_day


@pytest.mark.parametrize("event", ["A35", "A41"])
@pytest.mark.parametrize("turned", [True, False])
def test_so_did_one_of_two_accounts_without_visit_numbers(event: str, turned: bool) -> None:
    first, second = (
        adt("A01", at=at, pid3="1^^^MRN^MR", pid={18: account}, pv1={19: "", 44: at})
        for account, at in (("A1", BEGAN_AGAIN), ("A2", BEGAN))[:: -1 if turned else 1]
    )
    both = adt(event, at="20260302120000", pid3="1^^^MRN^MR", pid={18: "A2"}, segments=("MRG|1^^^MRN^MR||A1",))
    for order in permutations((first, second, both)):
        if order[0] != both:
            assert begun(sent(*order)[0]) == "2026-02-28T12"


def test_what_the_merge_or_a_later_message_says_of_the_admission_counts() -> None:
    heart, _ = sent(_V1, _V2, visits_merged(_44="20260301130000"))
    assert begun(heart) == "2026-03-01T13"
    corrected = adt("A08", at="20260303120000", pid3="1^^^MRN^MR", pv1={19: "V2^^^MRN", 44: "20260302080000"})
    for order in permutations((_V1, _V2, visits_merged(), corrected)):
        if order.index(visits_merged()) > 0:
            assert begun(sent(*order)[0]) == "2026-03-02T08"


def test_another_number_of_a_stay_is_no_merge_and_its_last_word_counts() -> None:
    renamed = visits_merged().replace(b"A42", b"A50")
    again = adt("A08", at="20260301130000", pid3="1^^^MRN^MR", pv1={19: "V1^^^MRN", 44: "20260301130000"})
    assert begun(sent(_V1, renamed, again)[0]) == "2026-03-01T13"


@pytest.mark.parametrize("merge_first", [True, False])
def test_two_visits_that_were_merged_have_one_plan(merge_first: bool) -> None:
    left = adt("A03", at="20260306100000", pid3="1^^^MRN^MR", pv1={19: "V2^^^MRN", 36: "01", 45: "20260306100000"})
    too = adt("A03", at="20260306101500", pid3="1^^^MRN^MR", pv1={19: "V1^^^MRN", 36: "01", 45: "20260306101500"})
    last = (visits_merged(), left, too) if merge_first else (left, too, visits_merged("20260306120000"))
    heart, outcomes = sent(_V1, _V2, *last)
    chart = heart.chart("1")
    assert standing(chart)
    assert standing(chart) == standing(chart, "MRN:V2")
    assert ASK not in standing(chart)
    assert QualityKind.STAYS_OVERLAP in faults(outcomes)
    assert begun(heart) == "2026-02-28T12"


# --- a visit that moves (A45) before the older change of its class (A06, A07) has come


_ROE = {5: "Roe^Jay", 7: "19700101"}
_OLD = "MRG|1^^^MRN^MR||||"
_MOVED = adt(
    "A45", at="20260302120000", pid3="2^^^MRN^MR", pid=_ROE, pv1={2: "", 19: "V2^^^MRN"}, segments=(f"{_OLD}V2^^^MRN",)
)
_LEFT = adt("A03", at="20260305120000", pid3="2^^^MRN^MR", pid=_ROE, pv1={2: "", 19: "V2^^^MRN", 36: "01"})


def changed(event: str) -> tuple[bytes, bytes]:
    """A visit, and its change to the other class and another number."""
    before, after = ("E", "I") if event == "A06" else ("I", "O")
    came = adt("A04", at="20260301100000", pid3="1^^^MRN^MR", pv1={2: before, 19: "V1^^^MRN", 44: "20260301100000"})
    pv1 = {2: after, 19: "V2^^^MRN"}
    return came, adt(event, at="20260301120000", pid3="1^^^MRN^MR", pv1=pv1, segments=(f"{_OLD}V1^^^MRN",))


@pytest.mark.parametrize("event", ["A06", "A07"])
def test_a_class_change_that_comes_after_the_newer_move_of_its_stay_leaves_nobody_in_a_bed(event: str) -> None:
    came, change = changed(event)
    for order in permutations((came, change, _MOVED, _LEFT)):
        if order.index(_LEFT) < order.index(_MOVED):
            continue  # under a patient of whom nobody has said that the stay is theirs: asked
        heart, outcomes = sent(*order)
        assert not [hold for one in outcomes for hold in one.holds]
        assert [stay.key for stay in heart.chart("1").encounters] == []
        living = [one for one in heart.chart("2").encounters if one.merged_into is None]
        assert [(one.visit_number, one.status) for one in living] == [("V2", EncounterStatus.FINISHED)]
        assert living[0].class_ == ("I" if event == "A06" else "O")
        assert bool(standing(heart.chart("2"))) is (event == "A06")


@pytest.mark.parametrize("event", ["A06", "A07"])
def test_it_takes_along_what_is_over_and_closed_too(event: str) -> None:
    came, change = changed(event)
    before = "E" if event == "A06" else "I"
    pv1 = {2: before, 19: "V1^^^MRN", 44: "20260301100000", 36: "01", 45: "20260301113000"}
    ended = adt("A03", at="20260301113000", pid3="1^^^MRN^MR", pv1=pv1)
    for order in permutations((came, ended, change, _MOVED)):
        heart, _ = sent(*order)
        kept = BoundedHeart(ALL)  # as the store keeps charts, without what is over
        kept.now = heart.now
        for message in order:
            kept.send(message)
            kept.commit()
        found = {chart.patient.key: as_it_is(chart) for chart in kept.whole().values()}
        assert found == {chart.patient.key: as_it_is(chart) for chart in map(heart.chart, ("1", "2"))}
        assert not heart.chart("1").encounters


def test_a_stay_that_would_go_along_and_is_about_a_death_is_asked() -> None:
    came, change = changed("A06")
    dead = adt("A08", at="20260301110000", pid3="1^^^MRN^MR", pid={30: "Y"}, pv1={2: "E", 19: "V1^^^MRN"})
    _, outcomes = sent(came, dead, _MOVED, change)
    assert [(hold.code.value, hold.location) for hold in outcomes[-1].holds] == [("move-unclear", "MRG-5")]


def test_both_patients_and_their_destinations_hear_of_the_stay_that_goes_along() -> None:
    came, change = changed("A06")
    _, outcomes = sent(came, _MOVED, change)
    assert len(outcomes[-1].charts) == len({chart.id for chart in outcomes[-1].charts}) == 2
    assert {"encounter-moved", "encounter-merged"} <= {effect.kind for effect in outcomes[-1].effects}
