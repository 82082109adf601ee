"""What a reply means: words of a file, in all languages at once, and answers to a question.

Compared are words without case, accents and punctuation. What is not understood means nothing here: a person reads it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from itertools import combinations
from typing import Annotated, Final

from pydantic import Field

from engine.domain.text import Answer, Question
from engine.errors import Problem
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate

_Text = Annotated[str, Field(min_length=1, max_length=500)]
_Phrase = Annotated[str, Field(min_length=1, max_length=100)]
_Phrases = Annotated[tuple[_Phrase, ...], Field(max_length=1000)]


class Meaning(StrEnum):
    """Of a reply, whatever was asked."""

    OPT_OUT = "opt_out"
    """No texts any more."""
    OPT_IN = "opt_in"
    """Texts again."""
    HELP = "help"
    """Who are you, and how do I reach you?"""
    URGENT = "urgent"
    """Somebody has to look at it now."""


class WordsSpec(StrictModel):
    """Words of one meaning."""

    words: _Phrases = ()
    """The whole reply, or one sentence of it, besides `fillers`."""
    alone: _Phrases = ()
    """The whole reply, and nothing else: words that mean something else in a sentence."""
    phrases: _Phrases = ()
    """Anywhere in a reply; `*` stands for up to three words."""
    unless: _Phrases = ()
    """Phrases that say that one of `phrases` does not mean this."""
    not_misspelt: _Phrases = ()
    """Words that look like a misspelling of one of `words` or `alone`, and are none."""


class UrgentSpec(StrictModel):
    """Words that somebody has to look at now."""

    reviewed: date | None = None
    """When a clinician of the site has read this list; none: nobody has."""
    reviewed_by: _Text | None = None
    """Who."""
    phrases: _Phrases
    """Anywhere in a reply; `*` stands for up to three words."""
    not_after: _Phrases = ()
    """Words, or phrases, right before a phrase that say that it is not so."""
    unless: _Phrases = ()
    """Phrases in which one of `phrases` means nothing urgent."""


class CarrierSpec(StrictModel):
    """Words that carriers take for themselves when they are the whole reply: no text may invite one."""

    opt_out: _Phrases
    """The number gets nothing any more from whom it answers."""
    opt_in: _Phrases
    """It gets texts again."""
    help: _Phrases
    """The carrier may answer itself."""


class WordsFile(StrictModel):
    """What replies mean."""

    words: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    """Name of the list."""
    version: _Text
    """Version of this file, as text."""
    source: _Text
    """Where the words come from."""
    fillers: _Phrases
    """Words that change nothing beside one that means something: please, thanks."""
    opt_out: WordsSpec
    """No texts any more."""
    opt_in: WordsSpec
    """Texts again."""
    help: WordsSpec
    """Who are you, and how do I reach you?"""
    urgent: UrgentSpec
    """Somebody has to look at it now."""
    carrier: CarrierSpec
    """Words that carriers take for themselves."""


# --- plain words -----------------------------------------------------------------------------------------------------

_APOSTROPHES: Final = re.compile("['\\u2019\\u2018`\\u00b4]")
_SENTENCES: Final = re.compile(r"[.!?;,:\n\r\u00a1\u00bf\u2026]+")
_SPELT_OUT: Final = re.compile(r"(?<![^\W_])(?:[^\W\d_][.\- ]){2,}[^\W\d_](?![^\W_])")
"""`S.T.O.P`, `s t o p`."""
_VARIATIONS: Final = re.compile("[\\ufe00-\\ufe0f\\u200d\\U0001f3fb-\\U0001f3ff]")
"""Colours of hands, and the like."""
_MISSPELT_CHARS_MIN: Final = 4
READ_CHARS_MAX: Final = 1_600
"""Of a reply: the longest that carriers pass on."""


def plain_words(text: str) -> tuple[str, ...]:
    """Its words, as they are compared: `Can’t` is `cant`, `más` is `mas`."""
    bare = unicodedata.normalize("NFKD", _APOSTROPHES.sub("", _VARIATIONS.sub("", text)).casefold())
    kept = "".join(one if _is_kept(one) else " " for one in bare if not unicodedata.combining(one))
    return tuple(kept.split())


def _is_kept(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character) == "So"


def sentences(text: str) -> list[tuple[str, ...]]:
    """The words of each part of a reply between marks."""
    joined = _SPELT_OUT.sub(lambda found: re.sub(r"[.\- ]", "", found[0]), text[:READ_CHARS_MAX])
    return [words for part in _SENTENCES.split(joined) if (words := plain_words(part))]


def misspells(said: str, meant: str) -> bool:
    """One letter is missing, too many, another one or in the wrong place, or letters are repeated: `stpo`, `stooop`."""
    if said == meant or len(meant) < _MISSPELT_CHARS_MIN:
        return said == meant
    return _distance_is_one(said, meant) or re.sub(r"(.)\1+", r"\1", said) == re.sub(r"(.)\1+", r"\1", meant)


def _distance_is_one(first: str, second: str) -> bool:
    if abs(len(first) - len(second)) > 1:
        return False
    if len(first) == len(second):
        wrong = [index for index, (one, other) in enumerate(zip(first, second, strict=True)) if one != other]
        swapped = (
            len(wrong) == 2
            and wrong[1] == wrong[0] + 1
            and first[wrong[0] : wrong[1] + 1] == (second[wrong[1]] + second[wrong[0]])
        )
        return len(wrong) == 1 or swapped
    short, long = sorted((first, second), key=len)
    return any(long[:index] + long[index + 1 :] == short for index in range(len(long)))


_ANY_WORDS_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class _Pattern:
    words: tuple[str, ...]

    def ends(self, said: Sequence[str], start: int) -> int | None:
        """Where it ends, when it begins at a word; none: it does not stand there."""
        return _match(self.words, said, start)

    def starts(self, said: Sequence[str]) -> Iterator[tuple[int, int]]:
        for start in range(len(said)):
            if (end := self.ends(said, start)) is not None:
                yield start, end


def _match(words: Sequence[str], said: Sequence[str], start: int) -> int | None:
    if not words:
        return start
    if words[0] == "*":
        ends = (_match(words[1:], said, start + skipped) for skipped in range(_ANY_WORDS_MAX + 1))
        return next((end for end in ends if end is not None), None)
    if start < len(said) and said[start] == words[0]:
        return _match(words[1:], said, start + 1)
    return None


def _compiled(phrases: Iterable[str]) -> tuple[_Pattern, ...]:
    return tuple(_Pattern(_pattern(one)) for one in phrases)


def _pattern(phrase: str) -> tuple[str, ...]:
    return tuple(word for part in phrase.split() for word in (("*",) if part == "*" else plain_words(part)))


def _stand(phrases: Iterable[_Pattern], said: Sequence[str]) -> bool:
    return any(True for phrase in phrases for _ in phrase.starts(said))


# --- meanings --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Known:
    """Words of one meaning, ready to be looked for."""

    words: tuple[tuple[str, ...], ...]
    alone: tuple[tuple[str, ...], ...]
    phrases: tuple[_Pattern, ...]
    unless: tuple[_Pattern, ...]
    not_misspelt: frozenset[str]

    @staticmethod
    def of(spec: WordsSpec) -> _Known:
        return _Known(
            tuple(plain_words(one) for one in spec.words),
            tuple(plain_words(one) for one in spec.alone),
            _compiled(spec.phrases),
            _compiled(spec.unless),
            frozenset("".join(plain_words(one)) for one in spec.not_misspelt),
        )

    def means(self, parts: Sequence[tuple[str, ...]], fillers: frozenset[str]) -> bool:
        whole = tuple(word for part in parts for word in part)
        if self._is(whole):
            return True
        return any(self._in(part, fillers) for part in parts)

    def _is(self, said: tuple[str, ...]) -> bool:
        """The whole reply, whatever marks and blanks are in it, and one misspelling."""
        if said in self.words or said in self.alone:
            return True
        one = "".join(said)
        if one in self.not_misspelt or one.isdecimal():
            return False
        return any(misspells(one, "".join(known)) for known in (*self.words, *self.alone))

    def _in(self, said: tuple[str, ...], fillers: frozenset[str]) -> bool:
        for known in self.words:
            for start in range(len(said) - len(known) + 1):
                rest = (*said[:start], *said[start + len(known) :])
                if said[start : start + len(known)] == known and all(_changes_nothing(one, fillers) for one in rest):
                    return True
        return _stand(self.phrases, said) and not _stand(self.unless, said)


def _changes_nothing(word: str, fillers: frozenset[str]) -> bool:
    return word in fillers or word.isdecimal() or not word.isalnum()


@dataclass(frozen=True, slots=True)
class Words:
    """What replies mean. Pure."""

    fillers: frozenset[str]
    opt_out: _Known
    opt_in: _Known
    help: _Known
    urgent: tuple[_Pattern, ...]
    not_after: tuple[tuple[str, ...], ...]
    unless: tuple[_Pattern, ...]
    carrier: frozenset[tuple[str, ...]]
    """Words that no text may invite."""
    reviewed: date | None

    def meaning(self, text: str) -> Meaning | None:
        """What a reply means, whatever was asked: who wants no more texts first, then what is urgent.

        A reply that is both is an opt-out here; ask `is_urgent` besides.
        """
        parts = sentences(text)
        if self.opt_out.means(parts, self.fillers):
            return Meaning.OPT_OUT
        if self.is_urgent(text):
            return Meaning.URGENT
        if self.opt_in.means(parts, self.fillers):
            return Meaning.OPT_IN
        return Meaning.HELP if self.help.means(parts, self.fillers) else None

    def is_urgent(self, text: str) -> bool:
        """It sounds so: one phrase of the list stands in it, and nothing right before says that it is not so."""
        return any(
            not self._denied(said, start)
            for said in sentences(text)
            if not _stand(self.unless, said)
            for phrase in self.urgent
            for start, _ in phrase.starts(said)
        )

    def _denied(self, said: Sequence[str], start: int) -> bool:
        """`no chest pain`, `no fever or chest pain`."""
        if start == 0:
            return False
        if any(tuple(said[:start])[-len(one) :] == one for one in self.not_after):
            return True
        if said[start - 1] not in _OR:
            return False
        return any(
            end == start - 1 and self._denied(said, begin)
            for phrase in self.urgent
            for begin, end in phrase.starts(said)
        )

    def answer(self, question: Question, text: str) -> Answer | None:
        """The one answer that a reply gives to a question; none: it gives none, or two."""
        parts = sentences(text)
        whole = tuple(word for part in parts for word in part)
        for one in question.answers:
            if whole in {plain_words(word) for word in one.words}:
                return one
        found = self._answers_in(question, whole) or self._misspelt(question, "".join(whole))
        return found[0] if len(found) == 1 else None

    def _answers_in(self, question: Question, said: tuple[str, ...]) -> list[Answer]:
        """The answers that stand in a reply besides words that change nothing: the longest words are read first."""
        known = sorted(
            ((plain_words(word), index) for index, one in enumerate(question.answers) for word in one.words),
            key=lambda each: -len(each[0]),
        )
        left: list[str | None] = list(said)
        found: set[int] = set()
        for words, index in known:
            for start in range(len(left) - len(words) + 1):
                if words and tuple(left[start : start + len(words)]) == words:
                    left[start : start + len(words)] = [None] * len(words)
                    found.add(index)
        if any(word is not None and not _changes_nothing(word, self.fillers) for word in left):
            return []
        if any(word is not None and word.isdecimal() for word in left):
            return []
        return [question.answers[index] for index in sorted(found)]

    def _misspelt(self, question: Question, said: str) -> list[Answer]:
        return [one for one in question.answers if any(misspells(said, "".join(plain_words(w))) for w in one.words)]


_OR: Final = frozenset({"or", "nor", "and", "o", "ni", "y"})

NO_WORDS: Final = Words(
    fillers=frozenset(),
    opt_out=_Known.of(WordsSpec(words=("stop", "unsubscribe", "optout", "opt out", "stopall", "revoke"),
                                alone=("end", "quit", "cancel"))),
    opt_in=_Known.of(WordsSpec(words=("start", "unstop"))),
    help=_Known.of(WordsSpec(words=("help", "info"))),
    urgent=(),
    not_after=(),
    unless=(),
    carrier=frozenset(),
    reviewed=None,
)  # fmt: skip
"""Where a site has no list: the words that every carrier knows."""


def load_words(document: Document, problems: list[Problem]) -> Words:
    """Raises SettingsError."""
    spec = validate(document, WordsFile)
    kinds = {"opt_out": spec.opt_out, "opt_in": spec.opt_in, "help": spec.help}
    for (first, one), (second, other) in combinations(kinds.items(), 2):
        both = {plain_words(word) for word in (*one.words, *one.alone)}
        for key in ("words", "alone"):
            for index, word in enumerate(getattr(other, key)):
                if plain_words(word) in both:
                    problems.append(document.problem((second, key, index), f"is a word of {first}, too: which is it?"))
    if not spec.opt_out.words:
        problems.append(document.problem(("opt_out",), "has no words: nobody could stop the texts"))
    said = spec.urgent
    if (said.reviewed is None) != (said.reviewed_by is None):
        problems.append(document.problem(("urgent",), "needs both `reviewed` and `reviewed_by`, or neither"))
    carrier = (*spec.carrier.opt_out, *spec.carrier.opt_in, *spec.carrier.help)
    return Words(
        fillers=frozenset(word for one in spec.fillers for word in plain_words(one)),
        opt_out=_Known.of(spec.opt_out),
        opt_in=_Known.of(spec.opt_in),
        help=_Known.of(spec.help),
        urgent=_compiled(said.phrases),
        not_after=tuple(words for one in said.not_after if (words := plain_words(one))),
        unless=_compiled(said.unless),
        carrier=frozenset(plain_words(one) for one in carrier),
        reviewed=said.reviewed,
    )
