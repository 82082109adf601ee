"""Languages: which one a patient is written to in, and how it says when a visit is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import Field

from engine.care.texts.words import plain_words
from engine.errors import Problem
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate

_Text = Annotated[str, Field(min_length=1, max_length=500)]
_Word = Annotated[str, Field(min_length=1, max_length=20)]
LANGUAGE: Final = r"^[a-z]{2}$"
_Language = Annotated[str, Field(pattern=LANGUAGE)]


class LanguageSpec(StrictModel):
    """One language."""

    names: Annotated[tuple[_Text, ...], Field(min_length=1, max_length=50)]
    """What feeds call it besides its two letters: codes and names, compared without case."""
    days: Annotated[tuple[_Word, ...], Field(min_length=7, max_length=7)]
    """Days of the week, Monday first."""
    months: Annotated[tuple[_Word, ...], Field(min_length=12, max_length=12)]
    """Months."""
    date: _Text
    """A day: {weekday}, {day}, {month}."""
    clock: Literal["12", "24"]
    """How hours are said."""


class LanguagesFile(StrictModel):
    """The languages in which patients are written to."""

    languages: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    """Name of the table."""
    version: _Text
    """Version of this file, as text."""
    known: Annotated[dict[_Language, LanguageSpec], Field(min_length=1, max_length=50)]
    """ISO 639-1 code -> the language."""


@dataclass(frozen=True, slots=True)
class Languages:
    known: Mapping[str, LanguageSpec]
    names: Mapping[tuple[str, ...], str]

    def code(self, said: str | None) -> str | None:
        """The two letters of a language as a feed says it (`es-MX`, `spa`, `Spanish`); none: it is not known here."""
        words = plain_words((said or "").replace("_", "-").replace("-", " "))
        if not words:
            return None
        return self.names.get(words) or self.names.get(words[:1])

    def when(self, at: datetime, language: str) -> dict[str, str]:
        """Day and time of a visit, on the clock that `at` has."""
        spec = self.known.get(language) or next(iter(self.known.values()), None)
        if spec is None:
            return {"appointment_day": f"{at:%Y-%m-%d}", "appointment_time": f"{at:%H:%M}"}
        day = spec.date.format(weekday=spec.days[at.weekday()], day=at.day, month=spec.months[at.month - 1])
        hour = f"{(at.hour % 12) or 12}:{at.minute:02} {'AM' if at.hour < 12 else 'PM'}"
        return {"appointment_day": day, "appointment_time": hour if spec.clock == "12" else f"{at.hour}:{at.minute:02}"}


NO_LANGUAGES: Final = Languages({}, {})


def load_languages(document: Document, problems: list[Problem]) -> Languages:
    """Raises SettingsError."""
    spec = validate(document, LanguagesFile)
    names: dict[tuple[str, ...], str] = {}
    for code, one in spec.known.items():
        for index, name in enumerate((code, *one.names)):
            if (other := names.setdefault(plain_words(name), code)) != code:
                place = ("known", code, "names", max(0, index - 1))
                problems.append(document.problem(place, f"is a name of {other}, too"))
        try:
            longest = max(
                len(one.date.format(weekday=day, day=28, month=month)) for day in one.days for month in one.months
            )
        except (LookupError, ValueError):
            problems.append(document.problem(("known", code, "date"), "takes {weekday}, {day} and {month} alone"))
            continue
        if longest > 20:
            text = f"comes to {longest} characters, and may have 20: use short names"
            problems.append(document.problem(("known", code, "date"), text))
    return Languages(spec.known, names)
