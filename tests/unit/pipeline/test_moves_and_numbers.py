"""Numbers and places of stays are histories: the same charts in every order, under repetition, and after a delay.

What an order leaves to a person is asked, and no stay is anywhere else than it was at some time until then.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from heart import Heart, adt
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.care.adt.numbers import noted
from engine.domain.chart import Chart
from engine.domain.encounter import Encounter
from engine.domain.outcome import Outcome
from engine.domain.patient import Identifier, Patient
from engine.domain.task import TaskState

PATIENTS: Final = {"X": "1^^^MRN^MR", "Y": "2^^^MRN^MR", "Z": "3^^^MRN^MR"}
NAMES: Final[dict[str, dict[int, str]]] = {
    "X": {},
    "Y": {5: "Roe^Jay", 7: "19700101"},
    "Z": {5: "Poe^Edgar", 7: "18990119"},
}


def day(number: int) -> str:
    return f"202603{number:02d}120000"


def said(trigger: str, who: str, visit: str, on: int, account: str = "", **pv1: str) -> bytes:
    fields = {44: day(1), 19: f"{visit}^^^MRN" if visit else ""} | {int(name[1:]): value for name, value in pv1.items()}
    return adt(trigger, at=day(on), pid3=PATIENTS[who], pid=NAMES[who] | {18: account}, pv1=fields)


def left(who: str, visit: str, on: int, account: str = "") -> bytes:
    return said("A03", who, visit, on, account, _36="01")


def moved(before: str, after: str, visit: str, on: int, *, was: str = "", account: str = "") -> bytes:
    mrg = f"MRG|{PATIENTS[before]}||||{was or visit}^^^MRN"
    pid = NAMES[after] | {18: account}
    return adt(
        "A45", at=day(on), pid3=PATIENTS[after], pid=pid, pv1={19: f"{visit}^^^MRN", 44: day(1)}, segments=(mrg,)
    )


def account_moved(before: str, after: str, account: str, on: int) -> bytes:
    mrg = f"MRG|{PATIENTS[before]}||{account}"
    return adt("A44", at=day(on), pid3=PATIENTS[after], pid=NAMES[after] | {18: account}, segments=(mrg,))


def renamed(who: str, before: str, after: str, on: int, trigger: str = "A50") -> bytes:
    mrg = f"MRG|{PATIENTS[who]}||||{before}^^^MRN"
    return adt(
        trigger, at=day(on), pid3=PATIENTS[who], pid=NAMES[who], pv1={19: f"{after}^^^MRN", 44: day(1)}, segments=(mrg,)
    )


def account_renamed(who: str, before: str, after: str, on: int, trigger: str = "A49") -> bytes:
    mrg = f"MRG|{PATIENTS[who]}||{before}"
    return adt(trigger, at=day(on), pid3=PATIENTS[who], pid=NAMES[who] | {18: after}, segments=(mrg,))


BEGUN: Final = said("A01", "X", "V1", 1)
WITH_ACCOUNT: Final = said("A01", "X", "V1", 1, "A1")

OF_NUMBERS: Final = {
    "a number that becomes another and the first again": (
        BEGUN, renamed("X", "V1", "V2", 2), renamed("X", "V2", "V1", 3), left("X", "V1", 4),
    ),
    "a number that becomes another, and another": (
        BEGUN, renamed("X", "V1", "V2", 2), said("A02", "X", "V2", 3, _3="W2"), renamed("X", "V2", "V3", 4),
        left("X", "V3", 5),
    ),
    "stays that are merged in a chain": (
        BEGUN, renamed("X", "V1", "V2", 2, "A42"), said("A02", "X", "V2", 3, _3="W2"),
        renamed("X", "V2", "V3", 4, "A42"), left("X", "V3", 5),
    ),
    "two numbers that become one": (
        BEGUN, renamed("X", "V1", "V3", 2, "A42"), renamed("X", "V2", "V3", 3, "A42"), left("X", "V3", 5),
    ),
    "an account that becomes another and the first again": (
        WITH_ACCOUNT, account_renamed("X", "A1", "A2", 2), account_renamed("X", "A2", "A1", 3), left("X", "", 4, "A1"),
    ),
    "accounts that are merged in a chain": (
        said("A01", "X", "", 1, "A1"), account_renamed("X", "A1", "A2", 2, "A41"),
        said("A02", "X", "", 3, "A2", _3="W2"), account_renamed("X", "A2", "A3", 4, "A35"), left("X", "", 5, "A3"),
    ),
}  # fmt: skip
"""Nothing of these is ever a question."""

OF_PLACES: Final = {
    "a move": (BEGUN, said("A08", "X", "V1", 2, _10="CAR"), moved("X", "Y", "V1", 3), left("Y", "V1", 5)),
    "a move, and a further one": (
        BEGUN, moved("X", "Y", "V1", 2), said("A02", "Y", "V1", 3, _3="W3"), moved("Y", "Z", "V1", 4),
        left("Z", "V1", 5),
    ),
    "a move that is put right": (
        BEGUN, moved("X", "Y", "V1", 2), said("A02", "Y", "V1", 3, _3="W3"), moved("Y", "X", "V1", 4),
        left("X", "V1", 5),
    ),
    "a move that is put right, and made again": (
        BEGUN, moved("X", "Y", "V1", 2), moved("Y", "X", "V1", 3), moved("X", "Y", "V1", 4), left("Y", "V1", 5),
    ),
    "a move back and to a third patient": (
        BEGUN, moved("X", "Y", "V1", 2), moved("Y", "X", "V1", 3), moved("X", "Z", "V1", 4), left("Z", "V1", 5),
    ),
    "another number, then a move": (
        BEGUN, renamed("X", "V1", "V2", 2), said("A02", "X", "V2", 3, _3="W2"), moved("X", "Y", "V2", 4),
        left("Y", "V2", 5),
    ),
    "another number by the move": (
        BEGUN, said("A02", "X", "V1", 3, _3="W2"), moved("X", "Y", "V2", 4, was="V1"), left("Y", "V2", 5),
    ),
    "another number, a move, another number": (
        BEGUN, renamed("X", "V1", "V2", 2), moved("X", "Y", "V2", 3), renamed("Y", "V2", "V3", 4), left("Y", "V3", 5),
    ),
    "an account that moves": (WITH_ACCOUNT, account_moved("X", "Y", "A1", 2), left("Y", "V1", 5, "A1")),
    "an account that moves on": (
        WITH_ACCOUNT, account_moved("X", "Y", "A1", 2), account_moved("Y", "Z", "A1", 3), left("Z", "V1", 5, "A1"),
    ),
    "an account without visits that moves": (
        said("A01", "X", "", 1, "A1"), said("A08", "X", "", 2, "A1", _10="CAR"), account_moved("X", "Y", "A1", 3),
        left("Y", "", 5, "A1"),
    ),
    "an account that is named alone, and moves": (
        WITH_ACCOUNT, said("A08", "X", "", 2, "A1", _10="CAR"), account_moved("X", "Y", "A1", 3),
        left("Y", "V1", 5, "A1"),
    ),
    "another account, then its move": (
        WITH_ACCOUNT, account_renamed("X", "A1", "A2", 2), account_moved("X", "Y", "A2", 3), left("Y", "V1", 5, "A2"),
    ),
}  # fmt: skip


def run(messages: Sequence[bytes]) -> tuple[Heart, list[Outcome]]:
    heart = Heart()
    heart.now = datetime(2026, 3, 9, 18, tzinfo=UTC)
    return heart, [heart.send(message) for message in messages]


def settled(heart: Heart) -> dict[str, Any]:
    """Whose the stays are and how they are called, and whose plans; not the keys, which they were heard of by first."""
    charts = {}
    for name, sent in PATIENTS.items():
        chart = heart.charts.find(Identifier(value=sent[0], authority="MRN", type="MR"))
        stays = chart.encounters if chart is not None else ()
        planned = any(task.state is TaskState.OPEN for task in chart.tasks) if chart is not None else False
        charts[name] = (sorted(map(_as_is, (one for one in stays if one.merged_into is None))), planned)
    return charts


def _as_is(stay: Encounter) -> tuple[str, ...]:
    place = stay.location.point_of_care if stay.location is not None else None
    return tuple(map(str, (stay.visit_number, stay.status, stay.hospital_service, stay.account, place)))


def is_asked(outcome: Outcome) -> bool:
    return bool(outcome.holds) or outcome.dead_letter is not None


def shuffled(data: st.DataObject, history: Sequence[bytes]) -> list[bytes]:
    repeats = data.draw(st.lists(st.sampled_from(history), max_size=3))
    return data.draw(st.permutations([*history, *repeats]))


@pytest.mark.parametrize("name", OF_NUMBERS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_numbers_of_a_stay_come_to_the_same_in_every_order_and_under_repetition(name: str, data: st.DataObject) -> None:
    history = OF_NUMBERS[name]
    heart, outcomes = run(shuffled(data, history))
    assert not [one for one in outcomes if is_asked(one)]
    assert settled(heart) == settled(run(history)[0])


@pytest.mark.parametrize("name", OF_PLACES)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_moves_of_a_stay_come_to_the_same_in_every_order_or_are_asked(name: str, data: st.DataObject) -> None:
    """A move that comes before its stay is asked about, or one before it; what is not asked has come out right."""
    history = OF_PLACES[name]
    heart, outcomes = run(shuffled(data, history))
    assert any(map(is_asked, outcomes)) or settled(heart) == settled(run(history)[0])


@pytest.mark.parametrize("name", OF_PLACES)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_whatever_is_repeated_after_moves_leaves_the_stay_where_it_is(name: str, data: st.DataObject) -> None:
    history = OF_PLACES[name]
    repeats = data.draw(st.lists(st.sampled_from(history), max_size=3))
    assert settled(run([*history, *repeats])[0]) == settled(run(history)[0])


NUMBERS: Final = st.sampled_from(["V1", "V2", "V3", "V4", "V5"])


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=8), st.data())
@settings(max_examples=150, deadline=None)
def test_what_numbers_have_become_does_not_depend_on_the_order_of_the_news(
    pairs: list[tuple[str, str]], data: st.DataObject
) -> None:
    facts = [(old, (new, new, None, (float(at), at))) for at, (old, new) in enumerate(pairs, 1) if old != new]

    def known(news: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        chart = Chart(id="c", patient=Patient(identifiers=(Identifier(value="1", authority="MRN", type="MR"),)))
        for old, new in news:
            chart = noted(chart, visits={old: new})
        return chart.renamed.visits

    again = data.draw(st.permutations([*facts, *facts[:2]]))
    assert known(again) == known(facts)
    assert all(known(facts)[now[0]] == now for now in known(facts).values())  # one name for all of a stay


def booked(visit: str) -> bytes:
    lines = [
        f"MSH|^~\\&|EPIC|MAIN|HANDOFF|H|{day(2)}||SIU^S12|S1|P|2.5.1",
        f"SCH||APT1|||||||30|MIN|^^^{day(20)}^202603201230|||||||||||||||||Booked",
        "PID|1||1^^^MRN^MR||Doe^Jane||19480312|F",
        f"PV1|1|O|||||||||||||||||{visit}^^^MRN",
    ]
    return ("\r".join(lines) + "\r").encode()


@pytest.mark.parametrize("named", ["V1", "V2", "V3"])
def test_an_appointment_goes_with_its_stay_by_whatever_number_it_names_it(named: str) -> None:
    heart, _ = run([BEGUN, renamed("X", "V1", "V2", 2), renamed("X", "V2", "V3", 2)])
    heart.send(booked(named))
    assert len(heart.chart("1").appointments) == 1
    heart.send(moved("X", "Y", "V3", 3))
    assert (len(heart.chart("1").appointments), len(heart.chart("2").appointments)) == (0, 1)


@pytest.mark.parametrize("news", ["A02", "A03", "A08", "A21"])
@pytest.mark.parametrize("number", ["V1", "V2"])
def test_newer_news_of_the_old_patient_by_a_former_number_makes_no_ghost(news: str, number: str) -> None:
    heart, _ = run([BEGUN, renamed("X", "V1", "V2", 2), moved("X", "Y", "V2", 3)])
    outcome = heart.send(said(news, "X", number, 5, _36="01" if news == "A03" else ""))
    assert outcome.dead_letter is not None
    assert outcome.dead_letter.error == "visit-of-another-patient"
    assert heart.chart("1").encounters == heart.chart("1").tasks == ()


@pytest.mark.parametrize("visit", ["", "V7"])
def test_news_of_an_account_that_has_moved_makes_no_ghost(visit: str) -> None:
    heart, _ = run([WITH_ACCOUNT, account_moved("X", "Y", "A1", 3)])
    outcome = heart.send(said("A01", "X", visit, 5, "A1"))
    assert outcome.dead_letter is not None
    assert heart.chart("1").encounters == ()
    late = heart.send(said("A08", "X", visit, 2, "A1", _10="CAR"))
    assert not is_asked(late)
    assert "CAR" in {stay.hospital_service for stay in heart.chart("2").encounters}
    assert heart.chart("1").encounters == ()


def test_a_new_visit_of_an_account_of_which_a_visit_has_moved_is_the_patient_s_own() -> None:
    heart, _ = run([WITH_ACCOUNT, moved("X", "Y", "V1", 3)])
    assert not is_asked(heart.send(said("A01", "X", "", 5, "A1")))
    assert [stay.account for stay in heart.chart("1").encounters] == ["A1"]


@pytest.mark.parametrize("mrg3", ["A1", "A7"])
def test_a_class_change_swallows_no_other_open_stay_of_the_account(mrg3: str) -> None:
    """MRG-3 names the account: another visit of it, a series for one, goes on."""
    heart, _ = run([said("A04", "X", "V1", 1, "A1", _2="O"), said("A04", "X", "V2", 2, "A9", _2="E", _44=day(2))])
    message = adt("A06", at=day(3), pid3=PATIENTS["X"], pid={18: "A9"}, pv1={19: "V2^^^MRN", 44: day(2)},
                  segments=(f"MRG|{PATIENTS['X']}||{mrg3}",))  # fmt: skip
    heart.send(message)
    stays = {one.key: (one.class_, one.status.value) for one in heart.chart("1").encounters}
    assert stays == {"MRN:V1": ("O", "active"), "MRN:V2": ("I", "active")}


def test_a_class_change_of_a_stay_that_was_heard_of_by_its_new_number_first_is_one_stay() -> None:
    heart, _ = run([said("A04", "X", "V1", 1, "A1", _2="E"), said("A08", "X", "V2", 4, "A2", _2="I")])
    message = adt("A06", at=day(3), pid3=PATIENTS["X"], pid={18: "A2"}, pv1={19: "V2^^^MRN", 44: day(1)},
                  segments=(f"MRG|{PATIENTS['X']}||A1",))  # fmt: skip
    heart.send(message)
    assert [one.visit_number for one in heart.chart("1").encounters if one.merged_into is None] == ["V2"]


def test_what_is_remembered_of_numbers_and_moves_outlives_a_merge() -> None:
    heart, _ = run([BEGUN, renamed("X", "V1", "V2", 2), moved("X", "Y", "V2", 3)])
    heart.send(adt("A40", at=day(4), pid3="8^^^MRN^MR", pid={5: "", 7: ""}, segments=(f"MRG|{PATIENTS['Y']}",)))
    late = said("A08", "X", "V2", 2, _10="CAR")
    assert not is_asked(heart.send(late))
    assert [stay.hospital_service for stay in heart.chart("8").encounters] == ["CAR"]
    assert heart.chart("1").encounters == ()


def test_a_stay_is_at_home_again_when_the_two_patients_are_merged() -> None:
    heart, _ = run([WITH_ACCOUNT, account_moved("X", "Y", "A1", 3)])
    heart.send(adt("A40", at=day(4), pid3=PATIENTS["X"], pid={5: "", 7: ""}, segments=(f"MRG|{PATIENTS['Y']}",)))
    remembered = heart.chart("1").renamed
    assert (remembered.departed, remembered.accounts_gone) == ({}, {})
    assert not is_asked(heart.send(said("A08", "X", "", 5, "A1", _10="CAR")))
    assert [stay.hospital_service for stay in heart.chart("1").encounters] == ["CAR"]


def test_a_number_that_changes_after_the_stay_has_gone_is_asked() -> None:
    heart, _ = run([BEGUN, moved("X", "Y", "V1", 2)])
    outcome = heart.send(renamed("X", "V1", "V2", 4))
    assert [hold.code for hold in outcome.holds] == ["move-unclear"]
    assert [stay.visit_number for stay in heart.chart("2").encounters] == ["V1"]


def test_late_news_of_a_death_is_no_other_patient_s_under_a_former_number() -> None:
    heart, _ = run([BEGUN, renamed("X", "V1", "V2", 1), moved("X", "Y", "V2", 3)])
    outcome = heart.send(said("A03", "X", "V2", 2, _36="20"))
    assert outcome.dead_letter is not None
    assert heart.chart("2").patient.deceased is None
