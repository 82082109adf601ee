"""The life of a page: who is called when, and that it never ends in silence. The complaints of users of such systems
(docs/guides/paging.md) each have a test that names them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from engine.care.oncall import Called, Contact
from engine.care.pages import (
    MOVES,
    NOBODY,
    ROUNDS_MAX,
    UNREACHABLE,
    PageError,
    PageEvent,
    acknowledged,
    answered,
    called_off,
    raised,
    rung,
    told,
)
from engine.domain.page import UNANSWERED, Exhausted, Level, Page, PageState, Policy, StepResult, Target

NOW = datetime(2026, 3, 6, 18, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ONE = Contact("files", 0)


class Duty:
    """People by target (`person`, or `roster`), each with contacts; `changes`: roster -> (when, who then)."""

    def __init__(self, **contacts: tuple[Contact, ...]) -> None:
        self.people = contacts
        self.on_call: dict[str, tuple[str, ...]] = {}
        self.changes: dict[str, tuple[datetime, tuple[str, ...]]] = {}

    def called(self, target: Target, at: datetime) -> Called:
        if target.person is not None:
            return Called((target.person,), None)
        roster = target.roster or ""
        until, then = self.changes.get(roster, (None, ()))
        if until is not None and at >= until:
            return Called(then, None)
        return Called(self.on_call.get(roster, ()), until)

    def contacts(self, person: str) -> tuple[Contact, ...]:
        return self.people.get(person, ())


def duty(**on_call: str) -> Duty:
    made = Duty(ann=(ONE,), bob=(ONE,), cat=(ONE,), boss=(ONE,))
    made.on_call = {
        roster: (who,) if who else () for roster, who in (on_call or {"first": "ann", "second": "bob"}).items()
    }
    return made


def policy(
    *levels: str, loops: int = 1, minutes: int = 5, lapses: int | None = 30, ladder_only: bool = False
) -> Policy:
    named = levels or ("first", "second")
    return Policy(
        ladder="on-call",
        version="1",
        levels=tuple(Level(targets=(Target(roster=one),), seconds=60 * minutes) for one in named),
        loops=loops,
        acknowledged_seconds=None if lapses is None else 60 * lapses,
        on_ladder_only=ladder_only,
        exhausted=Exhausted(targets=(Target(person="boss"),)),
    )


def begun(rules: Policy | None = None, on: Duty | None = None, kind: str = "on_call_page") -> Page:
    return rung(raised("t1", kind, rules or policy(), NOW), on or duty(), NOW)


def people(page: Page) -> list[str | None]:
    return [step.person for step in page.steps]


def until_quiet(page: Page, on: Duty, limit: int = 1000) -> Page:
    """Let the clock ring at each deadline."""
    for _ in range(limit):
        if page.next_at is None:
            return page
        page = rung(page, on, page.next_at)
    raise AssertionError("it never ends")


# --- the table -------------------------------------------------------------------------------------------------------


def test_every_move_leads_to_a_state_and_nothing_leaves_resolved_but_a_task_that_stands_again() -> None:
    assert {state for state, _ in MOVES} == set(PageState)
    for (state, event), after in MOVES.items():
        assert after in PageState
        if state is PageState.RESOLVED and event not in {PageEvent.RESTORED, PageEvent.TAKEN_AGAIN}:
            assert after is state
            assert event in {PageEvent.SENT, PageEvent.DELIVERED, PageEvent.FAILED}


@pytest.mark.parametrize("state", PageState)
def test_every_state_but_the_last_can_be_acknowledged_or_called_off(state: PageState) -> None:
    page = structs.replace(begun(), state=state)
    on = duty()
    if (state, PageEvent.ACKNOWLEDGED) in MOVES:
        assert acknowledged(page, "ann", NOW, on).state is PageState.ACKNOWLEDGED
    else:
        with pytest.raises(PageError):
            acknowledged(page, "ann", NOW, on)
    after = called_off(page, "the discharge was cancelled", NOW)
    assert after.state is PageState.RESOLVED
    assert state is PageState.RESOLVED or (after.next_at, after.end_reason) == (None, "the discharge was cancelled")


@pytest.mark.parametrize(
    ("results", "state"),
    [
        ([], PageState.QUEUED),
        ([StepResult.SENT], PageState.SENT),
        ([StepResult.SENT, StepResult.DELIVERED], PageState.DELIVERED),
        ([StepResult.DELIVERED, StepResult.SENT], PageState.DELIVERED),  # news come in any order
        ([StepResult.SENT, StepResult.SENT], PageState.SENT),
    ],
)
def test_queued_sent_delivered_and_acknowledged_are_kept_apart(results: list[StepResult], state: PageState) -> None:
    page = begun()
    for result in results:
        page = answered(page, 1, result, NOW)
    assert page.state is state
    page = acknowledged(page, "ann", NOW, duty())
    assert page.state is PageState.ACKNOWLEDGED
    after = answered(page, 1, StepResult.DELIVERED, NOW)
    assert after.state is PageState.ACKNOWLEDGED
    assert after.steps[0].result is StepResult.DELIVERED


# --- the complaints --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("empty", [("first",), ("first", "second")])
def test_an_empty_level_takes_no_time_and_is_on_record(empty: tuple[str, ...]) -> None:
    """Complaint: an empty level still waits its full delay."""
    on = duty(**({"first": "ann", "second": "bob", "third": "cat"} | dict.fromkeys(empty, "")))
    page = begun(policy("first", "second", "third"), on)
    skipped = [step for step in page.steps if step.result is StepResult.SKIPPED]
    assert [step.level for step in skipped] == [number + 1 for number in range(len(empty))]
    assert {step.detail for step in skipped} == {NOBODY}
    assert people(page)[-1] == ("bob" if len(empty) == 1 else "cat")
    assert {step.at for step in page.steps} == {NOW}


def test_people_without_a_way_to_reach_them_are_an_empty_level() -> None:
    on = duty(first="stranger", second="bob")
    page = begun(on=on)
    assert page.steps[0].detail == UNREACHABLE
    assert people(page) == [None, "bob"]


def test_who_is_on_call_is_asked_when_a_level_is_called() -> None:
    """Complaint: pages go to the physician who has gone off duty (Wong, Arch Intern Med 2009;169:1069)."""
    on = duty()
    page = begun(on=on)
    on.on_call["second"] = ("cat",)
    page = rung(page, on, NOW + 5 * MINUTE)
    assert people(page) == ["ann", "cat"]


def test_after_an_acknowledgment_nothing_is_planned_any_more() -> None:
    """Complaint: texts keep coming after the acknowledgment. (Those in the outbox are taken back with it.)"""
    on = duty()
    on.people["ann"] = (ONE, Contact("phone", 60), Contact("phone", 120))
    page = acknowledged(begun(on=on), "ann", NOW + MINUTE / 2, on)
    assert page.later == ()
    assert page.next_at is None
    assert rung(page, on, NOW + timedelta(days=1)) == page


@pytest.mark.parametrize("hours", [0.1, 1, 50])
def test_a_clock_that_rings_late_calls_one_level_and_counts_from_there(hours: float) -> None:
    """Complaint: a chain that was paused never resumed after a restart. And it does not call everybody at once."""
    late = NOW + timedelta(hours=hours)
    page = rung(begun(), duty(), late)
    assert people(page) == ["ann", "bob"]
    assert page.next_at == late + 5 * MINUTE


def test_a_persons_own_contacts_are_tried_one_after_the_other_within_the_level() -> None:
    """Complaint: the next level starts before the person's own later rules ran. (`handoff check` refuses that.)"""
    on = duty()
    on.people["ann"] = (ONE, Contact("phone", 120), Contact("phone", 240))
    page = begun(on=on)
    seen = [step.at for step in until_quiet(page, on).steps if step.person == "ann"]
    assert seen == [NOW, NOW + 2 * MINUTE, NOW + 4 * MINUTE]


def test_a_strangers_acknowledgment_counts_and_is_shown_as_such() -> None:
    """Complaint: a stranger's click acknowledges the page."""
    page = acknowledged(begun(), "stranger", NOW, duty())
    assert (page.acknowledged_by, page.on_ladder) == ("stranger", False)
    assert told(page) == "acknowledged by stranger, not on call"
    assert told(acknowledged(begun(), "bob", NOW, duty())) == "acknowledged by bob"


def test_a_ladder_may_ask_for_one_of_its_people() -> None:
    page = begun(policy(ladder_only=True))
    with pytest.raises(PageError, match="stranger"):
        acknowledged(page, "stranger", NOW, duty())
    assert acknowledged(page, "bob", NOW, duty()).state is PageState.ACKNOWLEDGED  # of a later level


def test_five_minutes_are_five_minutes() -> None:
    """Complaint: ticks of a minute make five minutes six."""
    page = begun()
    assert page.next_at == NOW + 5 * MINUTE
    assert rung(page, duty(), NOW + 5 * MINUTE - timedelta(microseconds=1)) is page
    assert people(rung(page, duty(), NOW + 5 * MINUTE)) == ["ann", "bob"]


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_permanent_failure_calls_the_next_level_at_once() -> None:
    page = answered(begun(), 1, StepResult.FAILED, NOW + MINUTE, "number-invalid")
    assert page.next_at == NOW + MINUTE
    page = rung(page, duty(), NOW + MINUTE)
    assert people(page) == ["ann", "bob"]
    assert page.steps[0].detail == "number-invalid"


def test_a_permanent_failure_calls_the_persons_next_contact_first() -> None:
    on = duty()
    on.people["ann"] = (ONE, Contact("phone", 240))
    page = answered(begun(on=on), 1, StepResult.FAILED, NOW + MINUTE)
    page = rung(page, on, NOW + MINUTE)
    assert [step.channel for step in page.steps] == ["files", "phone"]
    assert page.level == 1


def test_a_failure_of_one_of_several_waits_for_the_others() -> None:
    on = duty()
    on.on_call["first"] = ("ann", "cat")
    page = answered(begun(on=on), 1, StepResult.FAILED, NOW + MINUTE)
    assert page.next_at == NOW + 5 * MINUTE


def test_a_failure_of_an_earlier_level_changes_no_deadline() -> None:
    page = rung(begun(), duty(), NOW + 5 * MINUTE)
    assert answered(page, 1, StepResult.FAILED, NOW + 6 * MINUTE).next_at == page.next_at


def test_a_word_about_a_step_that_there_is_not_changes_nothing() -> None:
    page = begun()
    assert answered(page, 9, StepResult.SENT, NOW) is page


# --- the end ---------------------------------------------------------------------------------------------------------


def test_after_the_last_loop_the_supervisor_is_told_and_it_is_exhausted() -> None:
    page = until_quiet(begun(policy(loops=2)), duty())
    assert people(page) == ["ann", "bob", "ann", "bob", "boss"]
    assert page.state is PageState.EXHAUSTED
    late = acknowledged(page, "bob", NOW + timedelta(hours=1), duty())
    assert late.state is PageState.ACKNOWLEDGED


def test_a_ladder_on_which_nobody_is_is_exhausted_at_once() -> None:
    page = begun(policy(loops=20), duty(first="", second=""))
    assert page.state is PageState.EXHAUSTED
    assert people(page) == [None, None, "boss"]


def test_an_acknowledgment_that_nothing_follows_raises_it_again() -> None:
    on = duty()
    page = acknowledged(begun(on=on, kind="care_coordinator_alert"), "ann", NOW + MINUTE, on)
    assert page.next_at == NOW + 31 * MINUTE
    again = rung(page, on, NOW + 31 * MINUTE)
    assert (again.state, again.round, people(again)) == (PageState.QUEUED, 1, ["ann", "ann"])
    for _ in range(ROUNDS_MAX):
        again = acknowledged(again, "ann", again.steps[-1].at, on)
        assert again.next_at is not None
        again = rung(again, on, again.next_at)
    assert again.state is PageState.EXHAUSTED


# --- hand-over -------------------------------------------------------------------------------------------------------


def test_an_open_page_moves_to_the_person_who_comes_on_duty() -> None:
    on = duty()
    on.people["ann"] = (ONE, Contact("phone", 240))
    on.changes["first"] = (NOW + 3 * MINUTE, ("cat",))
    page = begun(on=on)
    assert page.next_at == NOW + 3 * MINUTE
    page = rung(page, on, NOW + 3 * MINUTE)
    assert people(page) == ["ann", "cat"]
    assert page.steps[-1].detail == "hand-over"
    assert page.escalates_at == NOW + 8 * MINUTE  # they have the level's time
    assert page.later == ()  # who has gone is not called any more
    assert people(until_quiet(page, on)) == ["ann", "cat", "bob", "boss"]


def test_a_shift_after_which_nobody_comes_calls_the_next_level() -> None:
    on = duty()
    on.changes["first"] = (NOW + 3 * MINUTE, ())
    page = rung(begun(on=on), on, NOW + 3 * MINUTE)
    assert people(page) == ["ann", "bob"]


def test_the_policy_of_a_page_is_that_of_when_it_was_raised() -> None:
    page = begun(policy(minutes=5))
    assert page.policy == policy(minutes=5)
    assert until_quiet(page, duty()).policy.version == "1"


# --- properties ------------------------------------------------------------------------------------------------------

WHO = st.sampled_from(["ann", "bob", "cat", "stranger"])
DOINGS = st.lists(
    st.one_of(
        st.tuples(st.just("ring"), st.integers(0, 900)),
        st.tuples(st.just("ack"), WHO),
        st.tuples(st.just("result"), st.tuples(st.integers(1, 12), st.sampled_from(
            [StepResult.SENT, StepResult.DELIVERED, StepResult.FAILED]))),
        st.tuples(st.just("duty"), st.tuples(st.sampled_from(["first", "second"]), st.lists(WHO, max_size=2))),
        st.tuples(st.just("off"), st.none()),
    ),
    max_size=30,
)  # fmt: skip


@given(DOINGS, st.integers(1, 3), st.booleans())
def test_whatever_happens_a_page_is_never_silent_and_calls_nobody_after_an_acknowledgment(
    doings: list[tuple[str, object]], loops: int, closes: bool
) -> None:
    on = duty()
    on.people["bob"] = (ONE, Contact("phone", 60), Contact("phone", 120))
    page = raised("t1", "on_call_page" if closes else "other", policy(loops=loops), NOW)
    now = NOW
    for what, more in doings:
        before = page
        match what, more:
            case "ring", int(seconds):
                now += timedelta(seconds=seconds)
                page = rung(page, on, now)
                assert page.next_at is None or page.next_at > now
            case "ack", str(by):
                try:
                    page = acknowledged(page, by, now, on)
                except PageError:
                    assert before.state in {PageState.ACKNOWLEDGED, PageState.RESOLVED}
            case "result", (int(number), StepResult() as result):
                page = answered(page, number, result, now)
            case "duty", (str(roster), list(who)):
                on.on_call[roster] = tuple(who)
            case "off", None:
                page = called_off(page, "over", now)
        new = page.steps[len(before.steps) :]
        calls = [(step.person, step.contact) for step in new if step.person is not None]
        assert len(calls) == len(set(calls))  # at most one notification of a person's contact at a time
        if before.state is PageState.ACKNOWLEDGED and what != "ring":
            assert not new
        if before.state is PageState.RESOLVED:
            assert page.state is PageState.RESOLVED
            assert not new
        # Never silence: somebody is to be called, or has said so, or the supervisor was told.
        if page.state in UNANSWERED and page.state is not PageState.EXHAUSTED:
            assert page.next_at is not None
        if page.state is PageState.EXHAUSTED and before.state is not PageState.EXHAUSTED:
            assert new
            assert new[-1].person == "boss"
    end = until_quiet(page, on)
    assert end.state in {PageState.ACKNOWLEDGED, PageState.RESOLVED, PageState.EXHAUSTED}


@given(st.integers(-120, 120))
def test_acknowledgment_and_deadline_are_decided_once_whichever_comes_first(seconds: int) -> None:
    """Each order gives one page in one state: what was called before the acknowledgment stays called, no more is."""
    on, deadline = duty(), NOW + 5 * MINUTE
    at = deadline + timedelta(seconds=seconds)
    first = begun(on=on)
    rings_first = at >= deadline
    page = rung(first, on, deadline) if rings_first else first
    page = acknowledged(page, "ann", at, on)
    after = rung(page, on, max(at, deadline) + timedelta(hours=9))
    assert people(after) == (["ann", "bob"] if rings_first else ["ann"])
    assert after.state is PageState.ACKNOWLEDGED
