"""Whether a delivery may go out now."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from connector_deliveries import NOW, delivery, queued
from hypothesis import given
from hypothesis import strategies as st

from engine.connectors.remedies import remedy
from engine.domain.chart import Chart
from engine.domain.delivery import CONTENTS, Notice, Notification, Operation, QueuedDelivery, Spoken
from engine.domain.patient import Doubt, Identifier, Patient, StatedDeath
from engine.pipeline.admit import GO, RULES, Admission, Go, Known, Never, NotBefore, Rule, admit, not_too_late

ONE = queued()
KNOWN = Known()
ANSWERS = st.one_of(
    st.just(GO),
    st.integers(-5, 5).map(lambda hours: NotBefore(at=NOW + timedelta(hours=hours), code=f"not-{hours}")),
    st.sampled_from(["no-consent", "muted"]).map(lambda code: Never(code=code)),
)


def says(answer: Admission) -> Rule:
    return Rule(lambda _queued, _known, _now: answer)


def notice(not_after: datetime | None, operation: Operation = Operation.SEND_TEXT) -> QueuedDelivery:
    said: Spoken = Notice(id="n1", patient_key="MRN:1", to="+15185550100", body="Call us", not_after=not_after)
    if operation is Operation.NOTIFY:
        said = Notification(
            id="p1-1", page_id="p1", ladder="on-call", level=1, loop=1, step=1, person="lee", to=None,
            text="Open the page", link="/pages/p1", reason="on_call_page", raised_at=NOW, not_after=not_after,
        )  # fmt: skip
    return queued(delivery(operation, said.encoded()))


@given(st.lists(ANSWERS, max_size=6))
def test_never_has_the_last_word_and_of_not_yet_the_latest(answers: list[Admission]) -> None:
    rules = [says(answer) for answer in answers]
    found = admit(rules, ONE, KNOWN, NOW)
    nevers = [answer for answer in answers if isinstance(answer, Never)]
    later = [answer for answer in answers if isinstance(answer, NotBefore) and answer.at > NOW]
    if nevers:
        assert found == nevers[0]
    elif later:
        assert isinstance(found, NotBefore)
        assert found.at == max(answer.at for answer in later)
    else:
        assert found == GO
    if not nevers:  # then the order of the rules does not matter
        reverse = admit(rules[::-1], ONE, KNOWN, NOW)
        assert (type(reverse), getattr(reverse, "at", None)) == (type(found), getattr(found, "at", None))


@given(st.lists(ANSWERS, max_size=6), ANSWERS)
def test_a_further_rule_never_lets_out_what_was_kept(answers: list[Admission], more: Admission) -> None:
    before = admit([says(answer) for answer in answers], ONE, KNOWN, NOW)
    after = admit([says(answer) for answer in (*answers, more)], ONE, KNOWN, NOW)
    rank = {Go: 0, NotBefore: 1, Never: 2}
    assert rank[type(after)] >= rank[type(before)]


@pytest.mark.parametrize("operation", [Operation.SEND_TEXT, Operation.NOTIFY, Operation.SEND_MAIL])
@pytest.mark.parametrize(
    ("after_seconds", "goes"), [(-1, True), (0, True), (0.001, False), (86_400, False), (None, True)]
)
def test_a_notice_is_not_sent_after_its_time(operation: Operation, after_seconds: float | None, goes: bool) -> None:
    end = None if after_seconds is None else NOW - timedelta(seconds=after_seconds)
    assert admit(RULES, notice(end, operation), KNOWN, NOW) == (GO if goes else Never(code="too-late"))
    assert goes or remedy("too-late")


@pytest.mark.parametrize("operation", [one for one in Operation if not issubclass(CONTENTS[one], Spoken)])
def test_a_state_is_never_too_late(operation: Operation) -> None:
    assert not_too_late(queued(delivery(operation, b'{"not_after":"2000-01-01T00:00:00Z"}')), KNOWN, NOW) == GO


def test_what_cannot_be_read_is_for_the_connector_to_refuse() -> None:
    assert not_too_late(queued(delivery(Operation.SEND_TEXT, b"{}")), KNOWN, NOW) == GO


@given(st.lists(ANSWERS, max_size=6), st.frozensets(st.sampled_from(["no-consent", "muted", "not-1"])))
def test_a_rule_that_a_person_has_set_aside_is_as_if_it_were_not_there(
    answers: list[Admission], released: frozenset[str]
) -> None:
    rest = [one for one in answers if not (isinstance(one, Never) and one.code in released)]
    known = Known(released=released)
    assert admit([says(one) for one in answers], ONE, known, NOW) == admit([says(one) for one in rest], ONE, KNOWN, NOW)


def test_no_person_sets_aside_what_is_final() -> None:
    never = Never(code="opted-out", final=True)
    assert admit([says(never)], ONE, Known(released=frozenset({"opted-out"})), NOW) == never


def test_a_person_can_have_a_notice_sent_that_is_late() -> None:
    late = notice(NOW - timedelta(hours=1))
    assert admit(RULES, late, Known(released=frozenset({"too-late"})), NOW) == GO


@pytest.mark.parametrize("operation", [Operation.SEND_TEXT, Operation.NOTIFY, Operation.SEND_MAIL])
@pytest.mark.parametrize("settled", [False, True])
def test_nobody_writes_to_a_patient_whose_death_is_in_doubt(operation: Operation, settled: bool) -> None:
    doubt = Doubt(root=1, code="death-in-future", location="PID-29", sender=1, settled=settled)
    patient = Patient(identifiers=(Identifier(value="1", authority="MRN", type="MR"),))
    chart = Chart(id="c", patient=patient, death_stated=StatedDeath(doubts=(doubt,)))
    answer = admit(RULES, notice(None, operation), Known(chart=chart), NOW)
    goes = settled or operation is Operation.NOTIFY
    assert (answer == GO) == goes
    assert goes or (isinstance(answer, NotBefore) and answer.code == "death-in-doubt")
    assert remedy("death-in-doubt")


def test_nothing_goes_out_for_a_chart_that_cannot_be_read() -> None:
    assert admit([], ONE, Known(unreadable="chart-damaged"), NOW) == Never(code="chart-damaged")
    assert remedy("chart-damaged")
