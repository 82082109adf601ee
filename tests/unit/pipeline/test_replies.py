"""What patients write, decided on the chart as it is when its turn comes."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from heart import ROOT, adt
from hypothesis import given, settings
from hypothesis import strategies as st
from texting import DAYS, OTHER, PHONE, Texting, local

from engine.care.texts.consent import standing
from engine.care.texts.rules import TextRules, load_texts
from engine.domain.cause import TextReceived
from engine.domain.outcome import Outcome
from engine.domain.page import PageState
from engine.domain.task import Alert, Task
from engine.domain.text import ANSWERS, Answer, Question, Text, TextState, Then
from engine.pipeline.process import process
from engine.pipeline.replies import REPLIES_A_DAY_MAX
from engine.settings import TextSettings
from engine.yamlfile import parse

from scheduling import siu  # isort: skip

FOLDER = ROOT / "mappings" / "texts"
FILES = ("service", "words", "languages")


def rules(**more: Any) -> TextRules:
    problems: list[Any] = []
    site = parse("node: n1", "config.yaml")
    documents = {name: parse((FOLDER / f"{name}.yaml").read_text(), f"{name}.yaml") for name in FILES}
    found = load_texts(documents, TextSettings(programme="Mercy", phone="212-555-0100", **more), site, problems)
    assert problems == []
    return found


RULES = rules()


def alert(kind: str, reason: str) -> Then:
    said = Alert(kind=kind, assignee="primary_care", due_at=local("20260101000000"), reason=reason)
    return Then(alert=said, due_seconds=86_400)


ASKS = Question(
    answers=(
        Answer(meaning="confirmed", words=("confirm", "yes", "1")),
        Answer(meaning="change", words=("change", "no"), then=alert("care_coordinator_alert", "another time")),
    ),
    seconds=86_400,
    unanswered=alert("pcp_alert", "not confirmed"),
)
SERIES = dataclasses.replace(
    DAYS,
    steps=tuple(dataclasses.replace(one, question=ASKS) if one.name == "day-1" else one for one in DAYS.steps),
)
TWICE = dataclasses.replace(
    SERIES,
    steps=tuple(dataclasses.replace(one, question=ASKS) if one.name == "day-0" else one for one in SERIES.steps),
)


class Phone(Texting):
    """A patient who has gone home, and writes."""

    def __init__(self, series: Any = SERIES, texts: TextRules = RULES, *, consent: bool = True) -> None:
        super().__init__(series, consent=consent)
        own = dataclasses.replace(texts, series=self.channel.texts.series, zones=self.channel.texts.zones)
        self.channel = dataclasses.replace(self.channel, texts=own)
        self.discharge()
        self.send(siu("S12", at="20260306123000", start="20260310093000"))
        self._number = 0

    def write(
        self,
        text: str,
        *,
        id_: str | None = None,
        answered: str | None = None,
        number: str = PHONE,
        known: bool = True,
        charts: int = 1,
        speaks: bool = True,
    ) -> Outcome:
        self._number += 1
        cause = TextReceived(
            actor="destination:phone", chart_id=self.chart().id if known else None, id=id_ or f"SM{self._number}",
            channel="sms", number=number, to="+12025550100", text=text, at=self.now, answered=answered, charts=charts,
            speaks=speaks,
        )  # fmt: skip
        from engine.domain.cause import written
        from engine.domain.message import Entry, Summary

        self._id += 1
        entry = Entry(
            id=self._id, channel="@reply", peer="", received_at=self.now, payload=written(cause), summary=Summary()
        )
        if known:
            return self.work(entry)  # type: ignore[no-any-return]
        return process(entry, None, self.charts, self.now)

    def answers(self) -> list[str]:
        """What was written back."""
        self.work_off()
        return [text.step for text in self.chart().texts if text.answer_to and text.state is TextState.SENT]

    def tasks(self) -> list[Task]:
        """That a reply, or none in time, has left to somebody."""
        return [task for task in self.chart().tasks if task.stands and task.protocol in {SERIES.name, ANSWERS}]

    def kinds(self) -> list[str]:
        return [task.kind for task in self.tasks()]

    def allowed(self, channel: str = "sms") -> str:
        return str(standing(self.chart(), "care", channel, PHONE).state)

    def step(self, name: str) -> Text:
        return self.texts()[name]


@pytest.fixture
def phone() -> Phone:
    return Phone()


@pytest.fixture
def asked() -> Phone:
    """The question of day 1 is open."""
    made = Phone()
    made.until("20260307110000")
    assert made.step("day-1").is_open
    return made


# --- no more texts


@pytest.mark.parametrize(
    "words",
    ["STOP", " Stop. ", "Opt  out", "UNSUBSCRIBE", "cancel", "please stop texting me", "no mas", "STPO", "s t o p",
     "Stop! My chest hurts", "wrong number", "No quiero mas mensajes"],
)  # fmt: skip
def test_whatever_says_that_no_more_texts_are_wanted_forbids_them_at_once(phone: Phone, words: str) -> None:
    phone.until("20260306124500")
    phone.write(words)
    assert phone.allowed() == "revoked"
    assert {reason for state, reason in phone.said().values() if state == "withheld"} == {"opted_out"}
    assert phone.answers() == ["opted_out"]


def test_it_is_confirmed_once_and_nothing_else_goes(phone: Phone) -> None:
    phone.write("STOP")
    phone.write("stop it")
    phone.write("I said stop texting me")
    assert phone.answers() == ["opted_out"]
    before = len(phone.sent)
    phone.until("20260401120000")
    assert len(phone.sent) == before


def test_the_confirmation_that_is_late_does_not_go(phone: Phone) -> None:
    """47 CFR 64.1200(a)(12): within five minutes."""
    phone.write("STOP")
    phone.now += timedelta(minutes=6)
    assert phone.answers() == []


def test_what_the_carrier_has_answered_is_not_answered_again(phone: Phone) -> None:
    phone.write("whatever it was", answered="STOP")
    assert (phone.allowed(), phone.answers()) == ("revoked", [])


def test_who_was_never_allowed_to_be_written_to_gets_no_confirmation() -> None:
    phone = Phone(consent=False)
    phone.write("STOP")
    assert (phone.allowed(), phone.answers()) == ("revoked", [])


def test_of_two_patients_at_a_number_one_chart_answers(phone: Phone) -> None:
    phone.write("STOP", charts=2, speaks=False)
    assert (phone.allowed(), phone.answers()) == ("revoked", [])


def test_a_stop_ends_whatsapp_too_unless_the_site_says_by_when_only_its_purpose() -> None:
    phone = Phone()
    phone.write("STOP")
    assert phone.allowed("whatsapp") == "revoked"
    from datetime import date

    phone = Phone(texts=rules(opt_out_scope="purpose", opt_out_scope_from=date(2026, 3, 1)))
    phone.write("STOP")
    assert (phone.allowed(), phone.allowed("whatsapp")) == ("revoked", "none")


def test_start_allows_again_what_a_reply_had_stopped_and_nothing_that_was_never_allowed(phone: Phone) -> None:
    phone.write("STOP")
    phone.now += timedelta(minutes=1)
    phone.write("START")
    assert phone.allowed() == "given"
    assert phone.allowed("whatsapp") == "revoked"
    assert phone.answers() == ["opted_out", "opted_in"]
    other = Phone(consent=False)
    other.write("START")
    assert (other.allowed(), other.kinds()) == ("none", ["care_coordinator_alert"])


def test_start_after_a_person_has_forbidden_texts_is_for_a_person(phone: Phone) -> None:
    phone.now += timedelta(minutes=1)
    phone.consent(PHONE, given=False, how="by phone")
    phone.write("START")
    assert (phone.allowed(), phone.kinds()) == ("revoked", ["care_coordinator_alert"])


@settings(max_examples=25, deadline=None)
@given(
    moments=st.lists(st.integers(min_value=0, max_value=9 * 24 * 60), min_size=1, max_size=4),
    words=st.sampled_from(["STOP", "please stop texting me", "no mas", "quit"]),
)
def test_a_stop_at_any_moment_is_the_last_thing_but_its_confirmation(moments: list[int], words: str) -> None:
    phone = Phone()
    start = phone.now
    before: list[int] = []
    for minutes in sorted(moments):
        phone.until(start + timedelta(minutes=minutes))
        before.append(len(phone.sent))
        phone.write(words)
    phone.until("20260401120000")
    after = phone.bodies[before[0] :]
    assert len(after) <= 1
    assert all("not text you" in body for body in after)


# --- questions


def test_the_answer_to_the_open_question_is_kept_with_its_meaning(asked: Phone) -> None:
    asked.write("Confirm!")
    text = asked.step("day-1")
    assert (text.state, [(one.text, one.meaning) for one in text.replies]) == ("replied", [("Confirm!", "confirmed")])
    asked.until("20260312120000")
    assert asked.kinds() == []


def test_yes_to_a_question_is_its_answer_and_no_opt_in(asked: Phone) -> None:
    asked.write("YES")
    assert asked.step("day-1").replies[-1].meaning == "confirmed"


def test_an_answer_that_needs_somebody_gives_them_a_task_once(asked: Phone) -> None:
    asked.write("CHANGE", id_="SM7")
    asked.write("CHANGE", id_="SM7")
    [task] = asked.tasks()
    assert (task.kind, task.assignee, task.reason) == ("care_coordinator_alert", "primary_care", "another time")


def test_no_answer_in_time_alerts_once(asked: Phone) -> None:
    asked.until("20260312120000")
    assert (asked.step("day-1").state, asked.kinds()) == ("expired", ["pcp_alert"])


def test_nobody_is_alerted_about_a_question_of_a_visit_that_was_cancelled(asked: Phone) -> None:
    asked.send(siu("S15", at="20260307120000", start="20260310093000"))
    asked.until("20260312120000")
    assert (asked.step("day-1").state, asked.kinds()) == ("expired", [])


def test_nobody_is_alerted_about_a_discharge_that_was_cancelled(asked: Phone) -> None:
    asked.tell("A13", "20260307120000")
    asked.until("20260312120000")
    assert asked.kinds() == []


def test_an_alert_goes_with_the_discharge_that_is_cancelled_later(asked: Phone) -> None:
    asked.until("20260308130000")
    assert asked.kinds() == ["pcp_alert"]
    asked.tell("A13", "20260308140000")
    assert asked.kinds() == []


def test_of_two_open_questions_a_person_asks_which(phone: Phone) -> None:
    phone = Phone(TWICE)
    phone.until("20260307100500")
    assert sum(text.is_open for text in phone.chart().texts) == 2
    phone.write("CHANGE")
    assert [task.reason for task in phone.tasks()] == [RULES.service.tasks["ambiguous"].alert.reason]  # type: ignore[union-attr]
    assert {one.meaning for text in phone.chart().texts for one in text.replies} == {"ambiguous"}
    assert all(text.state is not TextState.REPLIED for text in phone.chart().texts)


def test_of_two_patients_at_a_number_a_person_asks_which(asked: Phone) -> None:
    asked.write("CHANGE", charts=2)
    assert [task.reason for task in asked.tasks()] == [RULES.service.tasks["ambiguous"].alert.reason]  # type: ignore[union-attr]
    assert asked.step("day-1").is_open


# --- what a person reads


def test_words_of_their_own_are_a_task_with_an_owner_and_a_time_and_one_answer_a_day(phone: Phone) -> None:
    phone.until("20260306124500")
    phone.write("When can I shower?")
    phone.write("And drive?")
    [task] = phone.tasks()
    assert (task.kind, task.assignee, task.due_at) == (
        "care_coordinator_alert", "care_coordinator", phone.now + timedelta(hours=4),
    )  # fmt: skip
    held = [one for text in phone.chart().texts for one in text.replies]
    assert [(one.text, one.meaning, one.task) for one in held] == [
        ("When can I shower?", "free", task.id), ("And drive?", "free", task.id),
    ]  # fmt: skip
    assert phone.answers() == ["not_understood"]


def test_who_has_stopped_texts_and_writes_is_read_and_not_written_to(phone: Phone) -> None:
    phone.write("STOP")
    phone.write("When can I shower?")
    assert (phone.kinds(), phone.answers()) == (["care_coordinator_alert"], ["opted_out"])


def test_what_sounds_urgent_calls_somebody_now(phone: Phone) -> None:
    phone.write("I have chest pain")
    [task] = phone.tasks()
    assert task.page == "on-call"
    [page] = [one for one in phone.chart().pages if one.task == task.id]
    assert page.state is PageState.QUEUED
    assert phone.answers() == ["not_understood"]


@pytest.mark.parametrize(
    "words", ["I have chest pain", "chest pain", "no fever but I can't breathe", "me duele el pecho"]
)
def test_what_a_person_has_is_not_denied_by_the_word_have(phone: Phone, words: str) -> None:
    phone.write(words)
    assert [task.page for task in phone.tasks()] == ["on-call"]


def test_no_chest_pain_is_not_urgent(phone: Phone) -> None:
    phone.write("no chest pain today")
    assert [task.page for task in phone.tasks()] == [None]


def test_what_sounds_urgent_calls_also_when_somebody_has_something_to_read_already(phone: Phone) -> None:
    phone.write("When can I shower?")
    phone.write("I have chest pain")
    assert [task.page for task in phone.tasks()] == [None, "on-call"]


def test_what_sounds_urgent_again_calls_again_after_half_an_hour(phone: Phone) -> None:
    phone.write("I have chest pain")
    phone.write("chest pain!!")
    assert len(phone.tasks()) == 1
    phone.now += timedelta(minutes=31)
    phone.write("I can't breathe")
    assert [task.page for task in phone.tasks()] == ["on-call", "on-call"]
    assert len({page.task for page in phone.chart().pages if page.task in {task.id for task in phone.tasks()}}) == 2


def test_a_stop_that_sounds_urgent_is_both(phone: Phone) -> None:
    phone.write("Stop texting me, I can't breathe")
    assert (phone.allowed(), [task.page for task in phone.tasks()]) == ("revoked", ["on-call"])


def test_help_says_who_writes_and_not_without_end(phone: Phone) -> None:
    for _ in range(5):
        phone.write("HELP")
    assert phone.answers() == ["help"] * 3
    assert phone.kinds() == []


def test_a_thousand_replies_are_one_task_and_a_line_of_the_data_quality_list(phone: Phone) -> None:
    outcomes = [phone.write(f"hello {number}") for number in range(200)]
    assert phone.kinds() == ["care_coordinator_alert"]
    assert sum(len(text.replies) for text in phone.chart().texts) == REPLIES_A_DAY_MAX
    assert [item.kind for item in outcomes[-1].quality] == ["replies_too_many"]
    phone.write("STOP")
    assert phone.allowed() == "revoked"


@pytest.mark.parametrize("words", ["x" * 1_600, "👍🏽", "", "\x00\u202e", "1" * 160])
def test_whatever_comes_is_read_by_a_person(phone: Phone, words: str) -> None:
    phone.write(words)
    assert phone.kinds() == ["care_coordinator_alert"]


def test_a_text_of_nobody_known_stands_on_the_data_quality_list(phone: Phone) -> None:
    outcome = phone.write("hello", number=OTHER, known=False)
    assert ([item.kind for item in outcome.quality], outcome.charts, outcome.dead_letter) == (
        ["reply_of_nobody"], (), None,
    )  # fmt: skip


def test_each_reply_is_on_record_with_nothing_of_its_words(phone: Phone) -> None:
    outcome = phone.write("please STOP calling DOE")
    (noted,) = outcome.audit
    assert (noted.actor, noted.action, noted.subject) == (
        "destination:phone", "text-received", f"chart:{phone.chart().id}",
    )  # fmt: skip
    assert noted.reason is noted.terms is None


def test_answers_count_for_no_cap(phone: Phone) -> None:
    phone.until("20260306124500")
    for _ in range(3):
        phone.write("HELP")
    phone.until("20260312120000")
    assert phone.said()["day-1"][0] == "expired"  # it went


def test_a_death_ends_what_was_to_be_answered(phone: Phone) -> None:
    phone.write("When can I shower?")
    phone.send(adt("A08", at="20260306130000", pv1={4: "E", 19: "V1^^^MRN"}, pid=phone.pid(_30="Y")))
    assert not any(task.stands for task in phone.chart().tasks if task.kind == "pcp_alert")
