"""All that a site's files say of texts: `mappings/texts/`, and `texts` of config.yaml."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from typing import Annotated, Final, TypeVar

from pydantic import Field

from engine.care.texts.encoding import Length, length_of
from engine.care.texts.languages import NO_LANGUAGES, Languages, LanguagesFile, load_languages
from engine.care.texts.numbers import Flaw, parse
from engine.care.texts.quiet import EVERYBODY, Quiet, QuietFile, load_quiet
from engine.care.texts.series import (
    CHARACTERS_MAX,
    AlertSpec,
    Series,
    SeriesFile,
    Told,
    Worded,
    load_series,
    then_of,
    wrong_words,
)
from engine.care.texts.templates import Template
from engine.care.texts.words import NO_WORDS, Words, WordsFile, load_words, plain_words
from engine.care.texts.zones import NO_ZONES, Zones, ZonesFile, load_zones
from engine.domain.text import Occasion, Then
from engine.errors import Problem, SettingsError
from engine.settings import TextSettings
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate

T = TypeVar("T")
_Text = Annotated[str, Field(min_length=1, max_length=500)]
_Stem = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
OCCASIONS: Final[tuple[Occasion, ...]] = ("opted_out", "opted_in", "help", "not_understood")


class ReplyTasks(StrictModel):
    """What a person has to do about a reply. One task stands for all replies of a number until it is done."""

    to_read: AlertSpec
    """No question was open, or it is no answer."""
    ambiguous: AlertSpec
    """Two questions were open, or two patients have the number: nobody guesses which is meant."""
    urgent: AlertSpec
    """It sounds urgent (`urgent` of the words)."""


class ServiceFile(StrictModel):
    """Texts that answer a reply, whatever series it belongs to."""

    service: _Stem
    """Name of the list."""
    version: _Text
    """Version of this file, as text."""
    opted_out: Worded
    """The one confirmation that no texts go any more. Nothing else may stand in it (47 CFR 64.1200(a)(12))."""
    opted_in: Worded
    """Welcome, after an opt-in."""
    help: Worded
    """Who writes, and how to reach them."""
    not_understood: Worded
    """A reply was not understood; a person reads it."""
    tasks: ReplyTasks
    """What a person has to do about replies."""


class ClinicalFile(StrictModel):
    """Words that tell of an illness or a treatment: texts are read over shoulders."""

    clinical: _Stem
    """Name of the list."""
    version: _Text
    """Version of this file, as text."""
    source: _Text
    """Where the words come from."""
    words: Annotated[
        dict[_Text, Annotated[tuple[Annotated[str, Field(min_length=1, max_length=60)], ...], Field(max_length=5000)]],
        Field(max_length=50),
    ]
    """Kind of word -> the words."""


@dataclass(frozen=True, slots=True)
class ServiceText:
    body: str
    language: str
    length: Length


@dataclass(frozen=True, slots=True)
class ServiceTexts:
    """Texts that answer a reply."""

    templates: Mapping[tuple[str, str], Template] = field(default_factory=dict)
    """Occasion and language -> words."""
    constants: Mapping[str, str] = field(default_factory=dict)
    known: Languages = NO_LANGUAGES
    default_language: str = "en"
    version: str = ""
    tasks: Mapping[str, Then] = field(default_factory=dict)
    """`to_read`, `ambiguous`, `urgent` -> the task."""

    def render(self, occasion: Occasion, language: str | None) -> ServiceText | None:
        """Its words; none: the site has none for this, and nothing is answered."""
        code = self.known.code(language) or self.default_language
        for one in (code, self.default_language, "en"):
            template = self.templates.get((occasion, one))
            filled = template.fill(self.constants) if template is not None else None
            if filled is not None and not filled.missing:
                return ServiceText(filled.body, one, length_of(filled.body))
        return None


@dataclass(frozen=True, kw_only=True)
class TextRules:
    """What a site says of texts. Pure."""

    settings: TextSettings = field(default_factory=TextSettings)
    series: Mapping[str, Series] = field(default_factory=dict)
    """By name."""
    words: Words = NO_WORDS
    quiet: Quiet = EVERYBODY
    zones: Zones = NO_ZONES
    languages: Languages = NO_LANGUAGES
    service: ServiceTexts = field(default_factory=ServiceTexts)
    clinical: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    """File -> what kind of file it is."""
    whole: bool = True
    """All files could be read."""
    remarks: tuple[Problem, ...] = ()
    """Doubts, as warnings."""

    def number_of(self, phone: str) -> tuple[str | None, str]:
        """The number of a phone (E.164; none: no text can be sent there), and what it is: `mobile`, `unknown`, or what
        is wrong with it.
        """
        found = parse(phone, self.settings.region, self.settings.regions)
        return (None, found.code) if isinstance(found, Flaw) else (found.e164, found.kind)


_MODELS: Final[Mapping[str, type[StrictModel]]] = {
    "series": SeriesFile,
    "words": WordsFile,
    "quiet_hours": QuietFile,
    "zones": ZonesFile,
    "languages": LanguagesFile,
    "service": ServiceFile,
    "clinical": ClinicalFile,
}
"""Key that says what kind of file it is -> its model."""


def kind_of(document: Document) -> str | None:
    value = document.value if isinstance(document.value, dict) else {}
    named = [key for key in _MODELS if key in value]
    if len(named) > 1:  # `words` is a key of the clinical words, `languages` one of a series, too
        named = [key for key in named if isinstance(value[key], str)]
    return named[0] if named else None


def load_texts(
    documents: Mapping[str, Document], settings: TextSettings, site: Document, problems: list[Problem]
) -> TextRules:
    """All files of the folder; what is wrong is added to the problems."""
    by_kind: dict[str, dict[str, Document]] = {kind: {} for kind in _MODELS}
    kinds: dict[str, str] = {}
    for stem, document in documents.items():
        kind = kind_of(document)
        if kind is None:
            text = f"is none of the files of this folder: it begins with one of the keys {', '.join(_MODELS)}"
            problems.append(document.problem((), text))
            continue
        by_kind[kind][stem] = document
        kinds[document.file] = kind
    found: list[Problem] = []

    def one(kind: str, load: Callable[[Document, list[Problem]], T], without: T) -> T:
        first, *more = by_kind[kind].values() or [None]
        if first is None:
            return without
        text = f"{first.file} is a file of this kind, too: a site has one"
        found.extend(other.problem((kind,), text) for other in more if other is not None)
        return _tried(partial(load, first, found), found, without)

    constants = _constants(settings)
    languages = one("languages", load_languages, NO_LANGUAGES)
    words = one("words", load_words, NO_WORDS)
    clinical = one("clinical", _clinical, _NO_CLINICAL)
    told = Told(
        constants=constants,
        caps=(settings.caps.day, settings.caps.week),
        languages=languages,
        words=words,
        clinical=clinical,
    )
    rules = TextRules(
        settings=settings,
        series=_all_series(by_kind["series"], told, found),
        words=words,
        quiet=one("quiet_hours", load_quiet, EVERYBODY),
        zones=one("zones", load_zones, NO_ZONES),
        languages=languages,
        service=one("service", partial(_service, told=told, default=settings.default_language), ServiceTexts()),
        clinical=clinical,
        kinds=kinds,
        remarks=tuple(problem for problem in found if problem.level == "warning"),
    )
    if languages.known and settings.default_language not in languages.known:
        known = ", ".join(languages.known)
        found.append(site.problem(("texts", "default_language"), f"is none of the languages of texts ({known})"))
    wrong = [problem for problem in found if problem.level == "problem"]
    problems += wrong
    return replace(rules, whole=not wrong)


def _tried(load: Callable[[], T], problems: list[Problem], without: T) -> T:
    try:
        return load()
    except SettingsError as error:
        problems.extend(error.problems)
        return without


def _all_series(documents: Mapping[str, Document], told: Told, problems: list[Problem]) -> dict[str, Series]:
    found: dict[str, Series] = {}
    none: dict[str, Series] = {}
    for stem, document in documents.items():
        for name, series in _tried(partial(load_series, {stem: document}, told, problems), problems, none).items():
            if name in found:
                problems.append(document.problem(("series",), "another file has a series of this name"))
            found.setdefault(name, series)
    return found


_NO_CLINICAL: Final[dict[tuple[str, ...], str]] = {}


def _constants(settings: TextSettings) -> dict[str, str]:
    said = {"programme": settings.programme, "phone": settings.phone, "portal": settings.portal}
    return {name: value for name, value in said.items() if value}


def _clinical(document: Document, _problems: list[Problem]) -> dict[tuple[str, ...], str]:
    spec = validate(document, ClinicalFile)
    return {plain: kind for kind, words in spec.words.items() for word in words if (plain := plain_words(word))}


_OWN: Final = frozenset({("stop",), ("start",), ("help",)})
"""What these texts are about: they alone may name it."""


def _service(document: Document, problems: list[Problem], *, told: Told, default: str) -> ServiceTexts:
    spec = validate(document, ServiceFile)
    templates: dict[tuple[str, str], Template] = {}
    for occasion in OCCASIONS:
        worded: Mapping[str, str] = getattr(spec, occasion)
        for language, text in worded.items():
            try:
                template = templates[occasion, language] = Template.parse(text)
            except ValueError as error:
                problems.append(document.problem((occasion, language), str(error)))
                continue
            problems.extend(_service_problems(document, occasion, language, template, told))
        if default not in worded:
            problems.append(document.problem((occasion,), f"has no words in {default}, the site's default language"))
    tasks = {name: then_of(getattr(spec.tasks, name)) for name in ReplyTasks.model_fields}
    return ServiceTexts(templates, told.constants, told.languages, default, spec.version, tasks)


def _service_problems(
    document: Document, occasion: str, language: str, template: Template, told: Told
) -> Iterable[Problem]:
    place = (occasion, language)
    if "programme" not in template.fields:
        yield document.problem(place, "does not say who writes: begin it with {programme}")
    length = length_of(template.longest(told.constants))
    if length.characters > CHARACTERS_MAX:
        yield document.problem(place, f"may come to {length.text}; {CHARACTERS_MAX} are allowed: say it shorter")
    elif length.culprits:
        yield document.warning(place, f"is {length.text}: take another character, or leave it so")
    bare = replace(told, words=replace(told.words, carrier=told.words.carrier - _OWN))
    yield from wrong_words(document, place, template, bare)


def unreviewed(rules: TextRules, documents: Mapping[str, Document], today: date) -> Iterable[Problem]:
    """The words that page somebody, when no clinician of the site has read them, or not for a year."""
    for file, kind in rules.kinds.items():
        document = documents.get(file)
        if kind != "words" or document is None:
            continue
        if rules.words.reviewed is None:
            text = "no clinician of the site has read these words: let one, then say `reviewed` and `reviewed_by`"
            yield document.warning(("urgent",), text)
        elif (today - rules.words.reviewed).days > 366:
            yield document.warning(("urgent", "reviewed"), "is more than a year ago: let a clinician read them again")
