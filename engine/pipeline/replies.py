"""What patients write: what each reply does to a chart.

| what it is | what happens |
|---|---|
| no more texts | forbidden at once, whatever is asked; one confirmation, if texts were allowed |
| urgent | a task that pages; besides whatever else it is |
| an answer to the one question that is open at the number | the text is answered; what the series says follows |
| texts again | allowed again, where the patient had stopped them by a reply |
| who are you | the programme's name and number |
| anything else, an answer to two questions, a number of two patients | a person reads it |

Two patients at one number, or two open questions, are never guessed apart. What a person has to do is said by `tasks`
of `mappings/texts/service.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from msgspec import structs

from engine.care.texts.consent import CARE, ConsentState, FullError, said, standing, standings
from engine.care.texts.deciding import refused
from engine.care.texts.words import NO_WORDS, Meaning, Words
from engine.domain.cause import Cause, TextReceived
from engine.domain.chart import Chart
from engine.domain.consent import ContactConsent
from engine.domain.quality import QualityKind
from engine.domain.task import Alert, Task
from engine.domain.text import ANSWERS, Occasion, Reply, Text, TextState
from engine.pipeline.answers import BY_CARRIER, followed_up, task_of
from engine.pipeline.contactconsents import statement_id
from engine.pipeline.rule import Deciding, Rule

BY_REPLY: Final = "reply"
"""`ContactConsent.how` of what the patient has written."""
CONFIRMED_WITHIN: Final = timedelta(minutes=5)
"""Of an opt-out: a later text is no confirmation any more (47 CFR 64.1200(a)(12))."""
_ANSWERED_WITHIN: Final = timedelta(hours=1)
_CALLS_AGAIN_AFTER: Final = timedelta(minutes=30)
_DAY: Final = timedelta(days=1)
_HELPS_A_DAY_MAX: Final = 3
REPLIES_A_DAY_MAX: Final = 30
"""Of one number: what comes beyond stands in the journal, and the data-quality list says that there is more."""
_NUMBERS: Final = ("sms", "whatsapp")
"""Channels that a STOP to all texts ends."""
AMBIGUOUS: Final = "ambiguous"
FREE: Final = "free"
_CARRIERS: Final[Mapping[str, Meaning]] = {"STOP": Meaning.OPT_OUT, "START": Meaning.OPT_IN, "HELP": Meaning.HELP}


def _received(reply: TextReceived, chart: Chart | None, deciding: Deciding) -> Chart | None:
    if chart is None:
        deciding.heard.quality(QualityKind.REPLY_OF_NOBODY)
        return None
    if any(one.id == reply.id for text in chart.texts for one in text.replies):
        return chart  # a replay
    return _Heard(reply, chart, deciding).chart()


class _Heard:
    """One reply on one chart."""

    def __init__(self, reply: TextReceived, chart: Chart, deciding: Deciding) -> None:
        self._reply = reply
        self._chart = chart
        self._deciding = deciding
        self._channel = deciding.channel
        self._words: Words = deciding.channel.texts.words if deciding.channel is not None else NO_WORDS
        self._open = [text for text in chart.texts if text.is_open and text.number == reply.number]
        """Texts that ask, and wait for an answer."""

    def chart(self) -> Chart:
        reply, words = self._reply, self._words
        meaning = _CARRIERS.get(reply.answered or "") or words.meaning(reply.text)
        urgent = words.is_urgent(reply.text)
        task = self._task("urgent") if urgent and reply.speaks else None
        if meaning is Meaning.OPT_OUT:
            self._opt_out()
            self._note(meaning.value, task)
            return self._chart
        if urgent:
            self._answer("not_understood", _ANSWERED_WITHIN)
            self._note(Meaning.URGENT.value, task)
            return self._chart
        if self._answered():
            return self._chart
        if meaning is Meaning.OPT_IN and self._opt_in():
            self._note(meaning.value)
        elif meaning is Meaning.HELP:
            self._note(meaning.value)
            if reply.answered is None and self._written("help", _DAY) < _HELPS_A_DAY_MAX:
                self._answer("help", _ANSWERED_WITHIN)
        else:
            self._to_read()
        return self._chart

    # --- consent

    def _opt_out(self) -> None:
        reply, deciding = self._reply, self._deciding
        places = self._places()
        allowed = any(standing(self._chart, *place).state is ConsentState.GIVEN for place in places)
        entry = deciding.entry.replay_root or deciding.entry.id
        statements = [
            ContactConsent(
                id=statement_id(entry) if number == 0 else f"{statement_id(entry)}/{number}",
                purpose=purpose,
                channel=channel,
                number=at,
                given=False,
                at=deciding.at,
                how=BY_REPLY,
                by="patient",
                evidence=reply.text,
                word=Meaning.OPT_OUT.value,
            )
            for number, (purpose, channel, at) in enumerate(places)
        ]
        self._chart = said(self._chart, *statements)
        if allowed and reply.speaks and reply.answered is None:
            self._answer("opted_out", CONFIRMED_WITHIN)

    def _places(self) -> list[tuple[str, str, str]]:
        """What a STOP ends: that by which it came first."""
        reply = self._reply
        purpose = self._newest.purpose if self._newest is not None else CARE
        first = (purpose, reply.channel, reply.number)
        settings = self._channel.texts.settings if self._channel is not None else None
        if settings is not None and settings.scope_of_opt_out(self._deciding.at.date()) == "purpose":
            return [first]
        purposes = {CARE, purpose, *(text.purpose for text in self._chart.texts)}
        every = {(one, channel, reply.number) for one in purposes for channel in _NUMBERS}
        every |= {place for place in standings(self._chart.contact_consents) if place[2] == reply.number}
        return [first, *sorted(every - {first})]

    def _opt_in(self) -> bool:
        """Whether texts are allowed again: where the patient, or the carrier for them, had stopped them."""
        reply, deciding = self._reply, self._deciding
        stopped = [
            place
            for place, one in standings(self._chart.contact_consents).items()
            if place[1:] == (reply.channel, reply.number)
            and one.state is ConsentState.REVOKED
            and one.statement is not None
            and one.statement.how in {BY_REPLY, BY_CARRIER}
            and _was_given(self._chart, place)
        ]
        entry = deciding.entry.replay_root or deciding.entry.id
        try:
            self._chart = said(
                self._chart,
                *(
                    ContactConsent(
                        id=f"{statement_id(entry)}/{number}", purpose=purpose, channel=channel, number=at, given=True,
                        at=deciding.at, how=BY_REPLY, by="patient", evidence=reply.text, word=Meaning.OPT_IN.value,
                    )
                    for number, (purpose, channel, at) in enumerate(stopped)
                ),
            )  # fmt: skip
        except FullError:
            return False
        if stopped and reply.speaks and reply.answered is None:
            self._answer("opted_in", _ANSWERED_WITHIN)
        return bool(stopped)

    # --- questions

    def _answered(self) -> bool:
        """Whether it is the answer to the one question that is open at the number."""
        reply = self._reply
        if reply.charts > 1 or len(self._open) != 1:
            return False
        [text] = self._open
        answer = self._words.answer(text.question, reply.text) if text.question is not None else None
        if answer is None:
            return False
        at = self._deciding.at
        noted = Reply(id=reply.id, at=at, text=reply.text, meaning=answer.meaning)
        self._put(structs.replace(text, state=TextState.REPLIED, replies=(*text.replies, noted), ended_at=at))
        self._chart = followed_up(self._chart, text, answer.meaning, answer.then, self._deciding)
        return True

    # --- what a person reads

    def _to_read(self) -> None:
        reply = self._reply
        ambiguous = reply.charts > 1 or len(self._open) > 1
        if not (reply.speaks or self._open):
            return  # another chart of the number asks a person
        if self._today() >= REPLIES_A_DAY_MAX:
            self._deciding.heard.quality(QualityKind.REPLIES_TOO_MANY)
            return
        task = self._task("ambiguous" if ambiguous else "to_read")
        if reply.speaks and self._written("not_understood", _DAY) == 0:
            self._answer("not_understood", _ANSWERED_WITHIN)
        self._note(AMBIGUOUS if ambiguous else FREE, task)

    def _today(self) -> int:
        since = self._deciding.at - _DAY
        return sum(
            one.at > since for text in self._chart.texts if text.number == self._reply.number for one in text.replies
        )

    def _task(self, what: str) -> str | None:
        """The id of the task that has a person see to the reply: one that stands for the number, or a new one."""
        tasks = self._channel.texts.service.tasks if self._channel is not None else {}
        then = tasks.get(what)
        if then is None or then.alert is None:
            return None
        standing_ones = {task.id for task in self._chart.tasks if self._is_for(what, then.alert, task)}
        for text in self._chart.texts:
            for one in text.replies if text.number == self._reply.number else ():
                if one.task in standing_ones:
                    return one.task
        about = self._newest
        new = task_of(self._key("task", what), then, about, self._chart, self._deciding, of=ANSWERS)
        if all(task.id != new.id for task in self._chart.tasks):
            self._chart = structs.replace(self._chart, tasks=(*self._chart.tasks, new))
        return new.id

    def _is_for(self, what: str, alert: Alert, task: Task) -> bool:
        """Whether a task stands for replies of this kind. Whoever has taken an urgent one may be done with it in their
        mind: what comes later calls again.
        """
        alike = (task.kind, task.reason, task.page) == (alert.kind, alert.reason, alert.page)
        return task.stands and alike and (what != "urgent" or task.created_at > self._deciding.at - _CALLS_AGAIN_AFTER)

    # --- texts

    @property
    def _newest(self) -> Text | None:
        """The last text to the number: what a reply without a question is most likely about."""
        return max(self._to_the_number(), key=_queued_at, default=None)

    def _to_the_number(self) -> Iterator[Text]:
        return (one for one in self._chart.texts if one.number == self._reply.number and one.queued_at is not None)

    def _written(self, occasion: str, within: timedelta) -> int:
        since = self._deciding.at - within
        return sum(
            text.answer_to is not None and text.step == occasion and _queued_at(text) > since
            for text in self._to_the_number()
        )

    def _note(self, meaning: str, task: str | None = None) -> None:
        """Keep the reply with the texts that it may answer; else with the last one to the number."""
        if self._today() >= REPLIES_A_DAY_MAX:
            self._deciding.heard.quality(QualityKind.REPLIES_TOO_MANY)
            return
        about = self._open or ([self._newest] if self._newest is not None else [self._holder()])
        said_ = Reply(id=self._reply.id, at=self._deciding.at, text=self._reply.text, meaning=meaning, task=task)
        for text in about:
            self._put(structs.replace(text, replies=(*text.replies, said_)))

    def _holder(self) -> Text:
        """Somebody who was never written to has written: what they say needs a place."""
        held = self._service("not_understood", None, _ANSWERED_WITHIN)
        return structs.replace(held, state=TextState.WITHHELD, reason="no_consent", ended_at=self._deciding.at)

    def _answer(self, occasion: Occasion, within: timedelta) -> None:
        """One text back, at any hour; none to whom may not be written to, but for what they have just asked."""
        reply = self._reply
        if self._channel is None or not reply.speaks:
            return
        asks = occasion != "not_understood" or refused(self._chart, CARE, reply.channel, reply.number) is None
        words = self._channel.texts.service.render(occasion, self._chart.patient.language)
        if words is None or not asks or self._deciding.at + within <= self._deciding.now:
            return
        text = self._service(occasion, words.body, within)
        if all(one.id != text.id for one in self._chart.texts):
            self._put(structs.replace(text, language=words.language, segments=words.length.segments))

    def _service(self, occasion: str, body: str | None, within: timedelta) -> Text:
        reply, deciding = self._reply, self._deciding
        return Text(
            id=self._key("answer", occasion),
            series=ANSWERS,
            series_version=self._channel.texts.service.version if self._channel is not None else "",
            step=occasion,
            purpose=CARE,
            channel=reply.channel,
            encounter=None,
            state=TextState.QUEUED,
            planned_for=deciding.at,
            due_at=None,
            useful_until=deciding.at + within,
            tries=1,
            number=reply.number,
            destination=reply.actor.removeprefix("destination:"),
            body=body,
            expires_at=deciding.at + within,
            awaits=body is not None,
            queued_at=deciding.at,
            answer_to=reply.id,
        )

    def _put(self, text: Text) -> None:
        known = {one.id: one for one in self._chart.texts} | {text.id: text}
        self._chart = structs.replace(self._chart, texts=tuple(known.values()))

    def _key(self, *parts: str) -> str:
        keyed = self._deciding.channel
        return keyed.key(*parts, self._chart.id, self._reply.id) if keyed is not None else f"r{self._deciding.entry.id}"


def _queued_at(text: Text) -> datetime:
    return text.queued_at or text.planned_for


def _was_given(chart: Chart, place: tuple[str, str, str]) -> bool:
    """Somebody has agreed once: a START of who never did is no consent."""
    return any(one.given and (one.purpose, one.channel, one.number) == place for one in chart.contact_consents)


def _about(reply: TextReceived, chart: Chart | None) -> Iterable[str]:
    return [f"chart:{chart.id}" if chart is not None else f"reply:{reply.id}"]


REPLY_RULES: Final[Mapping[type[Cause], Rule]] = {
    TextReceived: Rule(_received, lambda reply, chart: list(_about(reply, chart)))
}
"""Part of `engine.pipeline.receipts.RECEIPT_RULES`."""
