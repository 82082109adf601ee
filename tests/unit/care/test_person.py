"""Whether two names with two birth dates are two people."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.care.person import is_another
from engine.domain.moment import Moment
from engine.domain.patient import Name, Patient


def named(text: str) -> Name:
    """`Family^Given^Middle`."""
    parts = [*text.split("^"), "", ""]
    return Name(family=parts[0] or None, given=parts[1] or None, middle=parts[2] or None)


def another(one: str, other: str, born: str = "1945-03-12", said: str = "1980-07-01") -> bool:
    patient = Patient(name=named(one), birth_date=Moment.of(born))
    return is_another(patient, {"name": named(other), "birth_date": Moment.of(said)})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Testcase^Anna", "Other^Bob"),
        ("Smith^Anna", "Smith^Bob"),
        ("Smith^Anna", "Jones^Anna"),
        ("van der Berg^Anna", "van der Meer^Anna"),
        ("de la Cruz^Maria", "de la Rosa^Maria"),
        ("Doe^Jane^Q", "Doe^John^Q"),
        ("Garcia Lopez^Ana", "Garcia Marquez^Ana"),
        ("Li^Wei", "Wang^Fang"),
        ("Smith^Ann", "Smith^"[:6] + "B"),
        ("Doe^BABY BOY", "Smith^Bob"),
        ("Петров^Иван", "Сидоров^Олег"),
        ("山田^太郎", "鈴木^花子"),
    ],
)
def test_another_name_and_another_birth_date_are_another_person(one: str, other: str) -> None:
    assert another(one, other)
    assert another(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Testcase^Anna", "TESTCASE^ANNA"),
        ("Müller^Jörg", "Mueller^Joerg"),
        ("Müller^Jörg", "Muller^Jorg"),
        ("Núñez^José", "NUNEZ^JOSE"),
        ("Sørensen^Søren", "Sorensen^Soren"),
        ("Weiß^Anna", "Weiss^Anna"),
        ("O'Brien^Kate", "OBRIEN^KATE"),
        ("Meyer-Schmidt^Anna", "Schmidt^Anna"),
        ("Meyer-Schmidt^Anna", "Schmidt Meyer^Anna"),
        ("MacDonald^Ian", "Mac Donald^Ian"),
        ("van der Berg^Anna", "Berg^Anna"),
        ("Smith^Anna^Maria", "Smith^Maria^Anna"),
        ("Smith^Anna Maria", "Smith^Maria"),
        ("Smith^Jean-Luc", "Smith^Jeanluc"),
        ("Smith^J", "Smith^Jane"),
        ("Doe^Jane^Q", "Doe^Jane"),
        ("Smith^Anna", "Smith^"),
        ("Wei^Li", "Li^Wei"),
        ("UNKNOWN^MALE", "Smith^Bob"),
        ("Unbekannt^Anna", "Smith^Bob"),
        ("NN", "Smith^Bob"),
        ("^Anna", "Smith^Bob"),
    ],
)
def test_a_name_that_is_the_same_in_another_spelling_or_is_not_known_is_no_other(one: str, other: str) -> None:
    assert not another(one, other)
    assert not another(other, one)


@pytest.mark.parametrize(
    ("born", "said"),
    [
        ("1945-03-12", "1945-03-12"),
        ("1945", "1945-03-12"),
        ("1945-03", "1945-03-12"),
        ("1945-03-12", "1945"),
        ("1900-01-01", "1980-07-01"),
        ("1945-03-12", "1900-01-01"),
        ("1900", "1980-07-01"),
        ("1945-03-12", "1801-01-01".replace("1801", "1800")),
        ("1945-03-12T10:00", "1945-03-12"),
    ],
)
def test_a_birth_date_that_may_be_the_same_or_is_a_placeholder_is_no_other(born: str, said: str) -> None:
    assert not another("Testcase^Anna", "Other^Bob", born, said)


@pytest.mark.parametrize("said", [{}, {"name": named("Other^Bob")}, {"birth_date": Moment.of("1980-07-01")}])
def test_what_a_message_does_not_say_contradicts_nothing(said: dict[str, Any]) -> None:
    assert not is_another(Patient(name=named("Testcase^Anna"), birth_date=Moment.of("1945-03-12")), said)


@pytest.mark.parametrize("known", [{}, {"name": named("Testcase^Anna")}, {"birth_date": Moment.of("1945-03-12")}])
def test_what_a_chart_does_not_know_is_contradicted_by_nothing(known: dict[str, Any]) -> None:
    assert not is_another(Patient(**known), {"name": named("Other^Bob"), "birth_date": Moment.of("1980-07-01")})


def test_one_of_the_two_may_change() -> None:
    assert not another("Testcase^Anna", "Other^Bob", said="1945-03-12")
    assert not another("Testcase^Anna", "Testcase^Anna")


NAMES = st.builds(Name, family=st.none() | st.text(max_size=20), given=st.none() | st.text(max_size=20))
DATES = st.dates().map(lambda day: Moment.of(day.isoformat())) | st.sampled_from(
    [Moment.of(text) for text in ("1945", "1945-03", "1900-01-01")]
)


@given(NAMES, NAMES, DATES, DATES)
def test_it_is_the_same_answer_both_ways_and_nobody_contradicts_themselves(
    one: Name, other: Name, born: Moment, said: Moment
) -> None:
    first, second = Patient(name=one, birth_date=born), Patient(name=other, birth_date=said)
    assert is_another(first, {"name": other, "birth_date": said}) == is_another(
        second, {"name": one, "birth_date": born}
    )
    assert not is_another(first, {"name": one, "birth_date": said})
