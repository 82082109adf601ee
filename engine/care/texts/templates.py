"""The words of a text with its fields: `{programme}: your visit is {appointment_day}[ at {appointment_place}].`

Fields are of a closed list. A part in square brackets is left out when one of its fields is empty; a field that is
empty outside of them leaves the whole text unsent, never with a hole.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

FIELDS: Final[Mapping[str, int]] = {
    "programme": 40,
    "phone": 20,
    "portal": 60,
    "first_name": 20,
    "appointment_day": 20,
    "appointment_time": 8,
    "appointment_place": 40,
}
"""Field -> most characters of it."""
OF_THE_SITE: Final = ("programme", "phone", "portal")
"""Fields that config.yaml fills (`texts`)."""
OF_THE_APPOINTMENT: Final = ("appointment_day", "appointment_time")
"""Fields that say when a visit is, in the words of a language."""

_PART: Final = re.compile(r"\[([^\[\]]*)\]|([^\[\]]+)|([\[\]])")
_FIELD: Final = re.compile(r"\{([^{}]*)\}")
_PLAIN: Final = {
    "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u2013": "-",
    "\u2014": "-", "\u2212": "-", "\u2026": "...", "\u00a0": " ", "\u202f": " ", "\u200b": "", "\ufeff": "",
}  # fmt: skip
"""Signs of typesetting -> what says the same in GSM-7."""


class Filled(NamedTuple):
    body: str
    missing: tuple[str, ...]
    """Fields that are empty, and without which it must not go."""


@dataclass(frozen=True, slots=True)
class _Part:
    text: str
    optional: bool

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(_FIELD.findall(self.text))

    def filled(self, values: Mapping[str, str]) -> str:
        return _FIELD.sub(lambda found: values[found[1]], self.text)


@dataclass(frozen=True, slots=True)
class Template:
    source: str
    parts: tuple[_Part, ...]

    @staticmethod
    def parse(source: str) -> Template:
        """Raises ValueError, in words for whoever edits the file."""
        parts: list[_Part] = []
        for inside, outside, stray in _PART.findall(source):
            if stray:
                raise ValueError(f"a {stray} stands alone: square brackets hold a part that may be left out")
            parts.append(_Part(inside or outside, bool(inside)))
        if "[]" in source:
            raise ValueError("[] holds nothing")
        template = Template(source, tuple(parts))
        for name in template.fields:
            if name not in FIELDS:
                raise ValueError(f"there is no field {{{name}}}; there are {', '.join(FIELDS)}")
        if any(sign in _FIELD.sub("", source) for sign in "{}"):
            raise ValueError("a brace stands alone: a field is written {first_name}")
        for part in parts:
            if part.optional and not part.fields:
                raise ValueError("a part in square brackets has no field: it would always be there")
        return template

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(name for part in self.parts for name in part.fields)

    def fill(self, given: Mapping[str, str]) -> Filled:
        values = {name: value for name in self.fields if (value := clean(given.get(name) or "", FIELDS[name]))}
        missing = tuple(
            dict.fromkeys(
                name for part in self.parts if not part.optional for name in part.fields if name not in values
            )
        )
        if missing:
            return Filled("", missing)
        return Filled("".join(self._shown(values)).strip(), ())

    def _shown(self, values: Mapping[str, str]) -> Iterator[str]:
        for part in self.parts:
            if all(name in values for name in part.fields):
                yield part.filled(values)

    def longest(self, known: Mapping[str, str]) -> str:
        """With every field as long as it may be. known: fields that are the same for everybody."""
        values = {name: known.get(name) or _LONGEST[name] for name in self.fields}
        return "".join(part.filled(values) for part in self.parts).strip()

    @property
    def words(self) -> str:
        """What stands in it besides the fields."""
        return _FIELD.sub(" ", self.source.replace("[", " ").replace("]", " "))


_LONGEST: Final = {name: "M" * chars for name, chars in FIELDS.items()}


def clean(value: str, chars_max: int) -> str:
    """One line, with plain quotes and dashes, and whole words of it up to a length; nothing, where the first of them is
    longer.
    """
    plain = "".join(_PLAIN.get(one, one) for one in unicodedata.normalize("NFC", value))
    shown = "".join(one if one.isprintable() else " " for one in plain)
    text = ""
    for word in shown.split():
        longer = f"{text} {word}" if text else word
        if len(longer) > chars_max:
            break
        text = longer
    return text
