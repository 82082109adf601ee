"""Who is on call: rosters on the clock on the wall, people who stand in, and what is wrong with files."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.care.oncall import OnCall, Rosters
from engine.care.rosters import OnCallSpec, load_oncall
from engine.domain.oncall import Override
from engine.domain.page import Target
from engine.errors import Problem
from engine.yamlfile import parse
from engine.yamlmodel import validate

ZONES = ("America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Pacific/Auckland", "UTC")
"""With and without summer time, of an hour and of half an hour."""

PEOPLE = """
people:
  ann: {name: Ann, contacts: [{to: files, address: "1"}]}
  bob: {name: Bob, contacts: [{to: files, address: "2"}]}
  cat: {name: Cat, contacts: [{to: files, address: "3"}]}
"""
ROSTER = """
rosters:
  duty:
    timezone: America/New_York
    roles:
      primary:
        shifts:
          - {from: "07:00", until: "19:00", people: [ann, bob], turn: 1, starting: "2026-03-01"}
          - {from: "19:00", until: "07:00", people: [cat]}
"""
LADDER = """
ladders:
  duty:
    text: Open the page
    levels: [{notify: [{roster: duty}], minutes: 5}]
    exhausted: {notify: [{person: cat}]}
"""


def loaded(*texts: str, zone: str = "UTC") -> tuple[Rosters, list[Problem]]:
    problems: list[Problem] = []
    documents = [parse(text, f"oncall/{number}.yaml") for number, text in enumerate(texts)]
    read = [(document, validate(document, OnCallSpec)) for document in documents]
    rosters = load_oncall(read, takers=["files"], ends=[], destinations=["files", "crm"], zone=zone, problems=problems)
    return rosters, problems


def rosters(*texts: str, zone: str = "UTC") -> Rosters:
    found, problems = loaded(*texts, zone=zone)
    assert [str(problem) for problem in problems] == []
    return found


def at(text: str, zone: str = "America/New_York") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def override(person: str, begins: datetime, ends: datetime, number: int = 1, role: str = "primary") -> Override:
    return Override(
        number=number, roster="duty", role=role, person=person, begins=begins, ends=ends, made_by="x", made_at=begins,
        reason="ill",
    )  # fmt: skip


DUTY = OnCall(rosters(PEOPLE + ROSTER + LADDER))


@pytest.mark.parametrize(
    ("when", "who", "until"),
    [
        ("2026-03-01T07:00", "ann", "2026-03-01T19:00"),
        ("2026-03-01T18:59:59", "ann", "2026-03-01T19:00"),
        ("2026-03-01T19:00", "cat", "2026-03-02T07:00"),
        ("2026-03-02T07:00", "bob", "2026-03-02T19:00"),
        ("2026-03-07T23:00", "cat", "2026-03-08T07:00"),
        ("2026-03-08T07:00", "bob", "2026-03-08T19:00"),
        ("2026-11-01T01:30", "cat", "2026-11-01T07:00"),
    ],
)
def test_shifts_are_on_the_clock_on_the_wall_through_both_changes_of_it(when: str, who: str, until: str) -> None:
    """Complaint: summer time moves shifts by an hour, or leaves gaps and overlaps."""
    found = DUTY.who("duty", "primary", at(when))
    assert (found.people, found.until) == ((who,), at(until))


def _minute(number: int) -> str:
    return f"{number // 60:02}:{number % 60:02}"


def spec(cuts: list[int], zone: str) -> str:
    """A day cut at some minutes, each piece somebody else's."""
    shifts = [
        f'{{from: "{_minute(first)}", until: "{_minute(then)}", people: [{"abcdefgh"[number]}]}}'
        for number, (first, then) in enumerate(pairwise([*cuts, cuts[0]]))
    ]
    people = "".join(f"  {one}: {{name: X, contacts: [{{to: files}}]}}\n" for one in "abcdefgh")
    roles = ", ".join(shifts)
    return f"people:\n{people}rosters:\n  duty: {{timezone: {zone}, roles: {{primary: {{shifts: [{roles}]}}}}}}\n"


@given(
    st.lists(st.integers(0, 1439), min_size=1, max_size=8, unique=True).map(sorted),
    st.sampled_from(ZONES),
    st.dates(date(2026, 1, 1), date(2027, 12, 31)),
)
def test_a_day_that_is_covered_on_the_wall_has_neither_gap_nor_overlap(cuts: list[int], zone: str, day: date) -> None:
    duty = OnCall(rosters(spec(cuts, zone)))
    begin = datetime.combine(day, time(0), UTC)
    spells = duty.spells("duty", "primary", begin, begin + timedelta(days=3))
    assert all(len(spell.people) == 1 for spell in spells)
    assert (spells[0].begins, spells[-1].until) == (begin, begin + timedelta(days=3))
    assert all(one.until == following.begins for one, following in pairwise(spells))


@given(
    st.lists(st.integers(0, 1439), min_size=2, max_size=6, unique=True).map(sorted),
    st.sampled_from(ZONES),
    st.integers(0, 2 * 365 * 24 * 60).map(
        lambda minutes: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    ),
    st.lists(st.tuples(st.integers(-600, 600), st.integers(1, 600), st.sampled_from("abc")), max_size=4),
)
def test_what_is_shown_and_what_is_called_is_one_answer(
    cuts: list[int], zone: str, now: datetime, overrides: list[tuple[int, int, str]]
) -> None:
    """Complaint: the roster shows the scheduled person, the page goes to the one who stands in."""
    standing = [
        override(person, now + timedelta(minutes=first), now + timedelta(minutes=first + length), number)
        for number, (first, length, person) in enumerate(overrides)
    ]
    duty = OnCall(rosters(spec(cuts, zone)), standing)
    shown = duty.who("duty", "primary", now)
    called = duty.called(Target(roster="duty"), now)
    assert shown == called
    spell = next(one for one in duty.spells("duty", "primary", now - timedelta(days=1), now + timedelta(days=3))
                 if one.begins <= now < one.until)  # fmt: skip
    assert spell.people == shown.people
    assert shown.until is None or shown.until >= spell.until > now
    here = [one for one in standing if one.begins <= now < one.ends]
    if here:
        assert shown.people == (here[-1].person,)


def test_who_stands_in_is_on_call_exactly_as_long_as_said() -> None:
    begins, ends = at("2026-03-03T10:00"), at("2026-03-03T12:00")
    duty = OnCall(DUTY.rosters, [override("cat", begins, ends)])
    assert duty.who("duty", "primary", begins - timedelta(seconds=1)).people == ("ann",)
    assert duty.who("duty", "primary", begins - timedelta(seconds=1)).until == begins
    found = duty.who("duty", "primary", begins)
    assert (found.people, found.until, found.stands_in) == (("cat",), ends, True)
    assert duty.who("duty", "primary", ends).people == ("ann",)


def test_of_two_who_stand_in_the_later_word_counts() -> None:
    begins, ends = at("2026-03-03T10:00"), at("2026-03-03T12:00")
    duty = OnCall(DUTY.rosters, [override("bob", begins, ends, 7), override("cat", begins, ends, 3)])
    assert duty.who("duty", "primary", begins).people == ("bob",)


def test_the_next_in_the_rotation_needs_no_second_roster() -> None:
    """Complaint: "no next person" without a second schedule."""
    now = at("2026-03-01T08:00")
    assert DUTY.called(Target(roster="duty", next=1), now).people == ("bob",)
    assert DUTY.called(Target(roster="duty", next=2), now).people == ()  # that is who is on call
    standing = OnCall(DUTY.rosters, [override("bob", now, now + timedelta(hours=1))])
    assert standing.called(Target(roster="duty", next=1), now).people == ()


def test_gaps_overlaps_and_unreachable_people_are_found_with_their_times() -> None:
    text = (
        PEOPLE
        + """
rosters:
  duty:
    timezone: America/New_York
    roles:
      primary:
        shifts:
          - {days: [mon, tue, wed, thu, fri], people: [ann]}
          - {days: [sat], until: "12:00", people: [bob]}
          - {days: [sat], from: "11:00", people: [ann]}
      helper: {in_part: true, shifts: [{from: "09:00", until: "17:00", people: [cat]}]}
"""
    )
    duty = OnCall(rosters(text), [override("stranger", at("2026-03-04T10:00"), at("2026-03-04T11:00"))])
    found = list(duty.faults(at("2026-03-02T00:00"), at("2026-03-16T00:00")))
    gaps = [(one.begins, one.until) for one in found if one.what == "gap"]
    # Sundays, and summer time begins on the first of them: an hour less.
    assert gaps == [
        (at("2026-03-08T00:00"), at("2026-03-09T00:00")),
        (at("2026-03-15T00:00"), at("2026-03-16T00:00")),
    ]
    assert gaps[0][1] - gaps[0][0] == timedelta(hours=23)
    overlaps = [one for one in found if one.what == "overlap"]
    assert [(one.begins, set(one.people)) for one in overlaps] == [
        (at("2026-03-07T11:00"), {"ann", "bob"}),
        (at("2026-03-14T11:00"), {"ann", "bob"}),
    ]
    (silent,) = [one for one in found if one.what == "unreachable"]
    assert (silent.people, silent.begins) == (("stranger",), at("2026-03-04T10:00"))


NO_CONTACT = PEOPLE.replace('cat: {name: Cat, contacts: [{to: files, address: "3"}]}', "cat: {name: Cat}")
SLOW = PEOPLE.replace('[{to: files, address: "3"}]', "[{to: files}, {to: files, after_minutes: 5}]")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (NO_CONTACT + ROSTER + LADDER, 5, "no contact"),
        (PEOPLE.replace('to: files, address: "2"', "to: filse") + ROSTER, 4, "did you mean files"),
        (PEOPLE.replace('to: files, address: "2"', "to: crm") + ROSTER, 4, "takes no notifications"),
        (PEOPLE + "rosters: {duty: {}}", 6, "names nobody"),
        (PEOPLE + "rosters: {duty: {roles: {primary: {shifts: [{people: []}]}}}}", 6, "names nobody"),
        (PEOPLE + ROSTER.replace("[cat]", "[dog]"), 14, "no such person"),
        (PEOPLE + ROSTER + LADDER.replace("    exhausted: {notify: [{person: cat}]}\n", ""), 17, "has no end"),
        (PEOPLE + ROSTER + LADDER.replace("levels: [{notify: [{roster: duty}], minutes: 5}]", "levels: []"), 17,
         "nobody is called"),
        (PEOPLE + ROSTER + LADDER.replace("roster: duty", "roster: dutty"), 19, "did you mean duty"),
        (PEOPLE + ROSTER + LADDER.replace("roster: duty", "roster: duty, role: second"), 19, "no such role"),
        (PEOPLE + ROSTER + LADDER.replace("person: cat", "person: dog"), 20, "no such person"),
        (SLOW + ROSTER + LADDER, 19, "all contacts of cat"),
    ],
)  # fmt: skip
def test_a_file_that_would_end_in_silence_is_refused_with_its_line_and_a_remedy(
    text: str, line: int, words: str
) -> None:
    """Complaints: a notified person had no contact method; the next level starts before a person's own later contacts.
    Besides: a roster that names nobody, a ladder without end, destinations that there are not.
    """
    _, problems = loaded(text)
    found = [problem for problem in problems if words in problem.message]
    assert found, [str(problem) for problem in problems]
    assert found[0].line == line
    assert found[0].file == "oncall/0.yaml"


def test_files_of_the_folder_are_one_whole_and_a_name_stands_once() -> None:
    assert rosters(PEOPLE, ROSTER, LADDER).ladders["duty"].roster == "duty"
    _, problems = loaded(PEOPLE, PEOPLE, ROSTER, ROSTER, LADDER, LADDER)
    assert len(problems) == 5


def test_an_example_whose_destination_the_site_does_not_have_is_left_out_and_calls_nobody() -> None:
    text = "example: true\n" + PEOPLE.replace("files", "lost") + ROSTER + LADDER
    found, problems = loaded(text)
    assert problems == []
    assert found.ladders == {}
    assert found.left_out == {"duty"}


@pytest.mark.parametrize("change", [("minutes: 5", "minutes: 6"), ("person: cat", "person: ann"), ("Open", "Read")])
def test_another_ladder_has_another_version(change: tuple[str, str]) -> None:
    before, after = (rosters(PEOPLE + ROSTER + text).ladders["duty"] for text in (LADDER, LADDER.replace(*change)))
    assert before.version != after.version
    assert before.version == rosters(LADDER, PEOPLE + ROSTER).ladders["duty"].version
