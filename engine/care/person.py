"""Whether a message speaks of the person that a chart is about.

A number leads to a chart, and nothing else does (decision 3). Hospitals use numbers again, though, and type wrong ones:
when name and birth date are both others than those of the chart, it is not taken for the same person. One of the two
changes in every life (marriage, a corrected date), and is taken.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

from engine.domain.moment import Moment
from engine.domain.patient import Name, Patient

_NO_DATES: Final = tuple(map(Moment.of, ("1800-01-01", "1899-12-30", "1899-12-31", "1900-01-01", "1901-01-01")))
"""What systems put in for a birth date that is not known."""

_NO_NAMES: Final = frozenset(
    {
        "anonymous", "desconocida", "desconocido", "inconnu", "inconnue", "nn", "noname", "none", "null",
        "sconosciuta", "sconosciuto", "unbekannt", "unidentified", "unk", "unknown", "unnamed", "x", "xx",
        "xxx", "xxxx", "xxxxx",
    }
)  # fmt: skip
"""What they put in for a family name that is not known, folded."""

_PARTICLES: Final = frozenset(
    {
        "al", "bin", "da", "das", "de", "del", "den", "der", "di", "do", "dos", "du", "el", "ibn", "la", "le", "of",
        "san", "st", "te", "ten", "ter", "the", "van", "vom", "von", "y", "zu", "zum", "zur",
    }
)  # fmt: skip
"""Words of a family name that say little alone: two names that share only these are two names."""

_SEXES: Final = {"M", "F"}
"""Two of table 0001 that contradict each other; all others are no answer, or fit to both."""

_WORD: Final = re.compile(r"[^\W_]+")
_SPELT: Final = str.maketrans({"æ": "a", "œ": "o", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "t", "ı": "i"})
_UMLAUT: Final = re.compile(r"([aou])e")


def is_another(known: Patient, said: Mapping[str, Any]) -> bool:
    """Whether a message's name and birth date both contradict those of the chart.

    said: fields of `Patient`, as the message has them; what it or the chart does not know contradicts nothing.
    """
    name, born = said.get("name"), said.get("birth_date")
    if name is None or born is None or known.name is None or known.birth_date is None:
        return False
    if name == known.name or born == known.birth_date:  # as a rule, and then nothing more is looked at
        return False
    return _other_date(known.birth_date, born) and _other_name(known.name, name)


def are_two(one: Patient, other: Patient) -> bool:
    """Whether two charts are clearly of two people: name, birth date and sex are all known, and all others."""
    return {one.sex, other.sex} == _SEXES and is_another(one, said_of(other))


def is_same(one: Patient, other: Patient) -> bool:
    """Whether two charts clearly say the same of a person: name and birth date are known, and alike."""
    if one.name is None or other.name is None or one.birth_date is None or other.birth_date is None:
        return False
    named = all(_family(name) and _given(name) for name in (one.name, other.name))
    return named and one.birth_date.same_day(other.birth_date) and not _other_name(one.name, other.name)


def said_of(patient: Patient) -> dict[str, Any]:
    """What a chart says of who the patient is, as a message would."""
    return {"name": patient.name, "birth_date": patient.birth_date}


def _other_date(one: Moment, other: Moment) -> bool:
    """Two dates, of whatever precision, that can't be the same day."""
    if one.same_day(other):
        return False
    return not any(date.same_day(placeholder) for placeholder in _NO_DATES for date in (one, other))


def _other_name(one: Name, other: Name) -> bool:
    first, second = _family(one), _family(other)
    if not first or not second or first[0] in _NO_NAMES or second[0] in _NO_NAMES:
        return False
    given, other_given = _given(one), _given(other)
    if sorted((*first, *given)) == sorted((*second, *other_given)):
        return False  # family and given name changed places, or a part moved from one to the other
    return not (_same_family(first, second) and _same_given(given, other_given))


def _family(name: Name) -> list[str]:
    return _words(name.family)


def _given(name: Name) -> list[str]:
    return [*_words(name.given), *_words(name.middle)]


def _same_family(one: list[str], other: list[str]) -> bool:
    """One has all words of the other (Meyer-Schmidt, Schmidt), or they are spelt together (Mac Donald, MacDonald)."""
    first, second = ({*words} - _PARTICLES or {*words} for words in (one, other))
    return first <= second or second <= first or "".join(one) == "".join(other)


def _same_given(one: list[str], other: list[str]) -> bool:
    """They share a name, in whatever order; the first one may be an initial, or be spelt together with the next."""
    if not one or not other:
        return True
    if any(len(word) > 1 for word in {*one} & {*other}):
        return True
    shorter, longer = sorted((one[0], other[0]), key=len)
    if len(shorter) == 1:
        return longer.startswith(shorter)
    return "".join(one).startswith("".join(other)) or "".join(other).startswith("".join(one))


def _words(text: str | None) -> list[str]:
    """The words of a name without case, accents and signs: `O'Brien-Müller` and `OBRIEN MUELLER` are alike."""
    if not text:
        return []
    folded = unicodedata.normalize("NFKD", text.casefold().replace("'", "").replace("’", "")).translate(_SPELT)
    plain = "".join(character for character in folded if not unicodedata.combining(character))
    return [_UMLAUT.sub(r"\1", word) for word in _WORD.findall(plain)]
