"""A series of texts: which words go to a patient when, in which languages, and what they ask. Pure.

The words of a text are checked when the file is read: what they may say, how long they are with every field as long as
it may be, and that they invite no word that carriers take for themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from hashlib import blake2b
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, model_validator

from engine.care.texts.encoding import Length, length_of
from engine.care.texts.languages import LANGUAGE, Languages
from engine.care.texts.templates import OF_THE_APPOINTMENT, Template
from engine.care.texts.words import Words, plain_words
from engine.domain.task import Alert
from engine.domain.text import Answer, Question, Then
from engine.errors import Problem
from engine.yamlfile import Document, Path
from engine.yamlmodel import StrictModel, validate

# --- the document ----------------------------------------------------------------------------------------------------

CHARACTERS_MAX: Final = 160
"""Of a text that does not say that it may be longer: one segment, where it is GSM-7."""
_Text = Annotated[str, Field(min_length=1, max_length=500)]
_Words = Annotated[str, Field(min_length=1, max_length=1000)]
_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
_Kind = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_Page = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
_Language = Annotated[str, Field(pattern=LANGUAGE)]
_Clock = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
_Count = Annotated[int, Field(ge=0, le=100_000)]
Worded = Annotated[dict[_Language, _Words], Field(min_length=1, max_length=50)]
"""Language (ISO 639-1) -> words."""


class Length_(StrictModel):  # noqa: N801  # `Length` is that of a text
    """A length of time."""

    minutes: _Count | None = None
    """Minutes."""
    hours: _Count | None = None
    """Hours."""
    days: _Count | None = None
    """Days of 24 hours."""

    @model_validator(mode="after")
    def _one_unit(self) -> Length_:
        if sum(unit is not None for unit in (self.minutes, self.hours, self.days)) != 1:
            raise ValueError("needs one of minutes, hours, days")
        return self

    @property
    def time(self) -> timedelta:
        return timedelta(minutes=self.minutes or 0, hours=self.hours or 0, days=self.days or 0)


class AlertSpec(StrictModel):
    """A task for somebody."""

    kind: _Kind
    """Kind of task: one of the protocol's `kinds`."""
    due: Length_
    """Due time, counted from what has happened."""
    assignee: _Kind
    """Role that has to see to it."""
    reason: _Text
    """What has happened and what is to be done, as the assignee reads it: no diagnosis, no result."""
    page: _Page | None = None
    """Ladder that is paged until it is seen to; none: nobody."""


class ThenSpec(StrictModel):
    """What follows."""

    alert: AlertSpec | None = None
    """A task for somebody; none: nothing."""


class AnswerSpec(ThenSpec):
    """One thing that a reply can mean."""

    words: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=60)], ...], Field(min_length=1, max_length=80)]
    """What the patient writes, in any language; without case, accents and marks."""
    confirms: bool = False
    """The patient confirms the appointment that the text speaks of."""


class QuestionSpec(StrictModel):
    """What a text asks."""

    answers: Annotated[dict[_Kind, AnswerSpec], Field(min_length=1, max_length=10)]
    """Meaning -> its answer."""
    within: Length_
    """How long an answer is waited for, counted from when the carrier has taken the text."""
    unanswered: ThenSpec = ThenSpec()
    """What follows when there is none by then."""


class StepSpec(StrictModel):
    """One text."""

    name: _Name
    """Its name within the series."""
    on: Literal["discharge", "appointment"] = "discharge"
    """What it hangs on: the discharge, or each booked visit."""
    of: Annotated[tuple[_Kind, ...], Field(max_length=20)] = ()
    """Kinds of follow-up task whose visit it speaks of; none: any."""
    days: Annotated[int, Field(ge=-60, le=366)] = 0
    """Calendar days after it where the patient lives; before a visit: negative."""
    at: _Clock | None = None
    """Clock on the wall of the patient; none: the time of day of what it hangs on."""
    useful: Length_
    """After so long it is not sent any more."""
    text: Worded
    """Its words in each language of the series."""
    characters_max: Annotated[int, Field(ge=1, le=480)] = CHARACTERS_MAX
    """Most characters, with every field as long as it may be."""
    question: QuestionSpec | None = None
    """What it asks; none: nothing."""

    @model_validator(mode="after")
    def _in_time(self) -> StepSpec:
        if self.on == "discharge" and self.days < 0:
            raise ValueError("is before the discharge: days of a text after a discharge count from 0")
        return self


class CapsSpec(StrictModel):
    """Most texts to one patient, of all series together."""

    day: Annotated[int, Field(ge=1, le=20)]
    """In a calendar day where the patient lives."""
    week: Annotated[int, Field(ge=1, le=100)]
    """In seven days."""


class SeriesFile(StrictModel):
    """A series of texts to a patient."""

    series: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
    """Name of the series, as protocols name it."""
    version: _Text
    """Version of this file, as text."""
    source: _Text
    """Where the rules come from."""
    purpose: _Kind = "care"
    """What the patient must have agreed to be written to for."""
    channel: Literal["sms", "whatsapp"] = "sms"
    """By what it goes."""
    languages: Annotated[tuple[_Language, ...], Field(min_length=1, max_length=50)]
    """Languages of all its texts. The first is for patients whose language is none of them."""
    hold: Length_ = Length_(minutes=30)
    """So long after the discharge nothing goes: it may be taken back."""
    caps: CapsSpec | None = None
    """Most texts; none: those of config.yaml (`texts.caps`)."""
    first: Worded
    """What the first text to a number says at its end: how to stop."""
    texts: Annotated[tuple[StepSpec, ...], Field(min_length=1, max_length=100)]
    """The texts."""


# --- ready -----------------------------------------------------------------------------------------------------------

UNDATED: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""`Alert.due_at` of an alert that nothing has raised yet: `Then.due_seconds` says when it will be due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesStep:
    name: str
    days: int
    """Calendar days in the patient's zone after the discharge; before (negative) or after the visit."""
    at: time | None
    """Clock on the wall of the patient's zone; none: the time of day of what it hangs on."""
    after: timedelta
    """At least so long after the discharge: the hold."""
    on: Literal["discharge", "appointment"]
    of: tuple[str, ...]
    """Kinds of follow-up task whose visit it speaks of; (): any."""
    useful: timedelta
    """It is not sent later than so long after it was planned for."""
    question: Question | None


@dataclass(frozen=True, slots=True)
class Rendered:
    body: str
    """Empty, where something is missing."""
    language: str
    segments: int
    encoding: str
    missing: tuple[str, ...] = ()
    """Fields that are empty: it is not sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    name: str
    version: str
    digest: str
    """Of what it says, the site's own words (`texts` of config.yaml) included."""
    purpose: str
    channel: str
    steps: tuple[SeriesStep, ...]
    hold: timedelta
    cap_a_day: int
    cap_a_week: int
    languages: tuple[str, ...]
    """The first is the fallback."""
    known: Languages
    constants: Mapping[str, str]
    """Fields that the site fills: programme, phone, portal."""
    templates: Mapping[tuple[str, str], Template]
    """Step and language -> words."""
    first: Mapping[str, Template]
    """Language -> how to stop."""

    @property
    def programme(self) -> str:
        return self.constants.get("programme", "")

    def language(self, wanted: str | None) -> str:
        """The language in which a patient is written to. wanted: as the chart has it."""
        code = self.known.code(wanted) or (wanted or "")[:2].lower()
        return code if code in self.languages else self.languages[0]

    @property
    def alerts(self) -> Iterator[tuple[str, Alert]]:
        """What answers, or none in time, raise, each with its step."""
        for step in self.steps:
            question = step.question
            thens = (*(one.then for one in question.answers), question.unanswered) if question is not None else ()
            for then in thens:
                if then.alert is not None:
                    yield step.name, then.alert

    def step(self, name: str) -> SeriesStep:
        """Raises KeyError."""
        return next((one for one in self.steps if one.name == name), None) or _no_step(name)

    def planned_for(
        self, step: SeriesStep, *, discharged_at: datetime, appointment_at: datetime | None, zone: ZoneInfo
    ) -> datetime:
        """When a text should go, in UTC. zone: where the patient lives. Raises ValueError for no visit."""
        if step.on == "appointment" and appointment_at is None:
            raise ValueError("a text before a visit needs the time of the visit")
        origin = appointment_at if step.on == "appointment" and appointment_at is not None else discharged_at
        here = origin.astimezone(zone)
        day = here.date() + timedelta(days=step.days)
        clock = step.at if step.at is not None else here.time()
        wanted = datetime.combine(day, clock, zone).astimezone(UTC)
        return max(wanted, discharged_at.astimezone(UTC) + step.after)

    def render(
        self,
        step: str,
        language: str | None,
        fields: Mapping[str, str],
        *,
        first: bool = False,
    ) -> Rendered:
        """The words of a text. Raises KeyError for a step that it has not.

        fields: of the patient; `appointment_at` (ISO 8601, on the clock on the wall of the visit) fills day and time in
        the language. first: nothing was written to the number before, so it says how to stop.
        """
        code = self.language(language)
        values = {**self.constants, **fields}
        if (starts_at := fields.get("appointment_at")) is not None:
            values |= self.known.when(datetime.fromisoformat(starts_at), code)
        filled = self.templates[step, code].fill(values)
        ending = self.first[code].fill(values) if first else None
        missing = (*filled.missing, *(ending.missing if ending is not None else ()))
        if missing:
            return Rendered("", code, 0, "", missing)
        body = filled.body if ending is None else f"{filled.body} {ending.body}"
        length = length_of(body)
        return Rendered(body, code, length.segments, length.encoding)

    def longest(self, step: str, language: str, *, first: bool) -> Length:
        """With every field as long as it may be."""
        body = self.templates[step, language].longest(self.constants)
        return length_of(f"{body} {self.first[language].longest(self.constants)}" if first else body)


def _no_step(name: str) -> SeriesStep:
    raise KeyError(name)


# --- from the document -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a series is read with."""

    constants: Mapping[str, str]
    """Fields that the site fills."""
    caps: tuple[int, int]
    """A day, a week; where the series says none."""
    languages: Languages
    words: Words
    clinical: Mapping[tuple[str, ...], str]
    """Words that no text may say -> what kind of word it is."""


def load_series(documents: Mapping[str, Document], told: Told, problems: list[Problem]) -> dict[str, Series]:
    """By name. What is wrong is added to the problems; doubts among them are warnings."""
    found: dict[str, Series] = {}
    for document in documents.values():
        spec = validate(document, SeriesFile)
        own = list(_problems(document, spec, told))
        problems += own
        if any(one.level == "problem" for one in own):
            continue
        if spec.series in found:
            problems.append(document.problem(("series",), "another file has a series of this name"))
            continue
        found[spec.series] = _compiled(spec, told)
    return found


def _compiled(spec: SeriesFile, told: Told) -> Series:
    caps = (spec.caps.day, spec.caps.week) if spec.caps is not None else told.caps
    said = spec.model_dump_json(exclude={"source"}) + repr(sorted(told.constants.items())) + repr(caps)
    return Series(
        name=spec.series,
        version=spec.version,
        digest=blake2b(said.encode(), digest_size=4).hexdigest(),
        purpose=spec.purpose,
        channel=spec.channel,
        steps=tuple(_step(one, spec.hold.time) for one in spec.texts),
        hold=spec.hold.time,
        cap_a_day=caps[0],
        cap_a_week=caps[1],
        languages=spec.languages,
        known=told.languages,
        constants=told.constants,
        templates={
            (one.name, language): Template.parse(one.text[language])
            for one in spec.texts
            for language in spec.languages
        },
        first={language: Template.parse(spec.first[language]) for language in spec.languages},
    )


def _step(spec: StepSpec, hold: timedelta) -> SeriesStep:
    return SeriesStep(
        name=spec.name,
        days=spec.days,
        at=time.fromisoformat(spec.at) if spec.at is not None else None,
        after=hold,
        on=spec.on,
        of=spec.of,
        useful=spec.useful.time,
        question=_question(spec.question),
    )


def _question(spec: QuestionSpec | None) -> Question | None:
    if spec is None:
        return None
    answers = tuple(
        Answer(meaning=meaning, words=one.words, then=then_of(one.alert, confirms=one.confirms))
        for meaning, one in spec.answers.items()
    )
    return Question(
        answers=answers, seconds=int(spec.within.time.total_seconds()), unanswered=then_of(spec.unanswered.alert)
    )


def then_of(spec: AlertSpec | None, *, confirms: bool = False) -> Then:
    """What follows, of a file."""
    if spec is None:
        return Then(confirms=confirms)
    alert = Alert(kind=spec.kind, assignee=spec.assignee, due_at=UNDATED, reason=spec.reason, page=spec.page)
    return Then(alert=alert, due_seconds=int(spec.due.time.total_seconds()), confirms=confirms)


# --- what is wrong with it -------------------------------------------------------------------------------------------


def _problems(document: Document, spec: SeriesFile, told: Told) -> Iterator[Problem]:
    names: set[str] = set()
    for index, language in enumerate(spec.languages):
        if told.languages.known and language not in told.languages.known:
            text = f"is none of the languages of mappings/texts/ ({', '.join(told.languages.known)})"
            yield document.problem(("languages", index), text)
    endings = dict(_templates(document, ("first",), spec.first, spec.languages))
    yield from _flaws(document, ("first",), spec.first, spec.languages)
    for language, template in endings.items():
        if "STOP" not in template.words:
            text = "does not say how to stop: it has to name the word STOP"
            yield document.problem(("first", language), text)
    for index, step in enumerate(spec.texts):
        place: Path = ("texts", index)
        if step.name in names:
            yield document.problem((*place, "name"), "another text of this series has the same name")
        names.add(step.name)
        yield from _flaws(document, (*place, "text"), step.text, spec.languages)
        for language, template in _templates(document, (*place, "text"), step.text, spec.languages):
            here = (*place, "text", language)
            yield from _wrong_words(document, here, template, told, step)
            yield from _too_long(document, here, template, endings.get(language), step, told)
        if step.question is not None:
            yield from _wrong_question(document, (*place, "question"), step, spec.languages, told)


def _flaws(document: Document, place: Path, worded: Mapping[str, str], languages: Sequence[str]) -> Iterator[Problem]:
    """Languages without words, words without a language, and templates that can't be read."""
    for language in languages:
        if language not in worded:
            yield document.problem(place, f"has no words in {language}, a language of this series")
    for language, words in worded.items():
        if language not in languages:
            yield document.problem((*place, language), f"{language} is none of the `languages` of this series")
        try:
            Template.parse(words)
        except ValueError as error:
            yield document.problem((*place, language), str(error))


def _templates(
    _document: Document, _place: Path, worded: Mapping[str, str], languages: Sequence[str]
) -> Iterator[tuple[str, Template]]:
    for language in languages:
        try:
            yield language, Template.parse(worded[language])
        except (KeyError, ValueError):
            continue


def wrong_words(document: Document, place: Path, template: Template, told: Told) -> Iterator[Problem]:
    """Words that a text may not have: those that carriers take, and those that tell of an illness."""
    for taken in invited(template, told.words.carrier):
        text = (
            f"invites the reply {taken}, which carriers take for themselves: it would stop or start all texts. "
            "Ask for a word of your own (CONFIRM, CHANGE, TAKEN, NOT YET)"
        )
        yield document.problem(place, text)
    said = plain_words(template.words)
    for word, kind in told.clinical.items():
        if any(said[start : start + len(word)] == word for start in range(len(said) - len(word) + 1)):
            text = f"says {' '.join(word)!r} ({kind}): whoever sees the phone would read it. Say it without"
            yield document.warning(place, text)


def _wrong_words(document: Document, place: Path, template: Template, told: Told, step: StepSpec) -> Iterator[Problem]:
    if "programme" not in template.fields:
        yield document.problem(place, "does not say who writes: begin it with {programme}")
    if any(name in OF_THE_APPOINTMENT for name in template.fields) and step.on == "discharge" and step.days > 60:
        yield document.warning(place, "speaks of a visit long after the discharge: hang it on the appointment")
    yield from wrong_words(document, place, template, told)


def _too_long(
    document: Document, place: Path, template: Template, ending: Template | None, step: StepSpec, told: Told
) -> Iterator[Problem]:
    longest = template.longest(told.constants)
    whole = f"{longest} {ending.longest(told.constants)}" if ending is not None else longest
    length = length_of(whole)
    if length.characters > step.characters_max:
        text = (
            f"may come to {length.text} with every field as long as it may be and how to stop behind it; "
            f"{step.characters_max} are allowed. Say it shorter, or give the text `characters_max`"
        )
        yield document.problem(place, text)
    fixed = length_of(f"{template.words}{ending.words if ending is not None else ''}")
    if fixed.culprits:
        text = f"is {fixed.text}: 70 characters a segment instead of 160. Take another character, or leave it so"
        yield document.warning(place, text)


_INVITES: Final = re.compile(
    r"(?i)\b(?:reply|respond|text back|text|answer|write|send|responda|responde|conteste|contesta|escriba|escribe|"
    r"env[ií]e|env[ií]a|mande|manda)(?: us| with| back| con| el| la| la palabra| the word)*[ :]+"
)
_QUOTES: Final = "\"'«»“”‘’()*"
_LINKS: Final = frozenset({"or", "o", "and", "y", "u", "/"})


def invited(template: Template, carrier: frozenset[tuple[str, ...]]) -> list[str]:
    """Words of carriers that a text asks for, or writes in capitals as if it did."""
    found: dict[str, None] = {}
    for match in _INVITES.finditer(template.source):
        words = re.split(r"[\s,/]+", re.split(r"[.;:!?\[\{]", template.source[match.end() :])[0])
        for word in _asked_for(words):
            if plain_words(word) in carrier:
                found[word.strip(_QUOTES).upper()] = None
    for word in re.findall(r"\b[^\W\d_]{2,}(?: ?[^\W\d_]{2,})?\b", template.words):
        for one in {word, *word.split()}:
            if one.isupper() and plain_words(one) in carrier:
                found[one] = None
    return list(found)


def _asked_for(words: Sequence[str]) -> Iterator[str]:
    """The words behind `reply`, up to the first that is neither one in capitals or quotes nor a link between them."""
    for index, word in enumerate(words):
        bare = word.strip(_QUOTES)
        if bare.casefold() in _LINKS:
            continue
        yield bare
        following = words[index + 1].casefold() if index + 1 < len(words) else ""
        if not (bare.isupper() or word != bare or following in _LINKS or (index and words[index - 1] in _LINKS)):
            return


def _wrong_question(
    document: Document, place: Path, step: StepSpec, languages: Sequence[str], told: Told
) -> Iterator[Problem]:
    question = step.question
    if question is None:
        return
    of: dict[tuple[str, ...], str] = {}
    for meaning, answer in question.answers.items():
        for index, word in enumerate(answer.words):
            here = (*place, "answers", meaning, "words", index)
            plain = plain_words(word)
            if not plain:
                yield document.problem(here, "holds no letter or digit: it could never be told from nothing")
            elif of.setdefault(plain, meaning) != meaning:
                yield document.problem(here, f"is an answer of {of[plain]}, too: which is it?")
            elif plain in told.words.opt_out.words or plain in told.words.opt_out.alone:
                text = "stops all texts when it is the reply, so it can't answer a question: take it out"
                yield document.problem(here, text)
        for language in languages:
            body = plain_words(step.text.get(language, ""))
            said = [plain_words(one) for one in answer.words]
            if body and not any(one and body[at : at + len(one)] == one for one in said for at in range(len(body))):
                text = f"no word of this answer stands in the text in {language}: nobody would know what to reply"
                yield document.problem((*place, "answers", meaning), text)
