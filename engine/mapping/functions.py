"""What a field's text or parts become: phones, names, identifiers; of dates and times see `times`.

Nothing here guesses. What can't be read is a `Flaw`: its code says what is wrong, its value is what stands in (none,
for most), and no text of the message is in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, Final, TypeVar

from engine.domain.appointment import Coded
from engine.domain.encounter import Location
from engine.domain.patient import Address, Identifier, Name, Provider
from engine.hl7v2.message import NULL, Repetition
from engine.hl7v2.path import ALL, Path
from engine.mapping.tables import Table

K = TypeVar("K")
V = TypeVar("V")

PHONES_REMEMBERED_MAX: Final = 4_096
_REMEMBERED_CHARS_MAX: Final = 256

UNKNOWN_CODE: Final = "unknown-code"


class _Absent:
    """The message says nothing of it."""


ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True)
class Flaw:
    """A text that can't be read as it stands. `code` is stable and becomes a deviation (`invalid-date:PID-7`)."""

    code: str
    value: Any = ABSENT
    """What the field gets all the same; absent: it is left as it is."""
    also: tuple[str, ...] = ()
    """Further codes of the same text."""

    def note(self, location: str, notes: list[str]) -> None:
        """Add the deviations."""
        notes.append(f"{self.code}:{location}")
        notes.extend(f"{code}:{location}" for code in self.also)


Parse = Callable[[str], Any]
"""A trimmed, valued text to a domain value, or a Flaw."""
Build = Callable[[Repetition], Any]
"""A repetition to a domain value, None (null), ABSENT or a Flaw."""


def several(path: Path) -> bool:
    """Whether a path can mean more than one place."""
    return ALL in {path.index, path.repetition}


def remembered(entries_max: int) -> Callable[[Callable[[str, K], V]], Callable[[str, K], V]]:
    """Keeps what a function of a text and something else gave last. Long texts are not kept: the memory has a bound."""

    def around(work: Callable[[str, K], V]) -> Callable[[str, K], V]:
        kept = lru_cache(maxsize=entries_max)(work)

        @wraps(work)
        def recall(text: str, other: K) -> V:
            return kept(text, other) if len(text) <= _REMEMBERED_CHARS_MAX else work(text, other)

        return recall

    return around


# --- texts -----------------------------------------------------------------------------------------------------------


def boolean(text: str) -> bool | Flaw:
    """HL7 table 0136."""
    upper = text.upper()
    return True if upper == "Y" else False if upper == "N" else Flaw("invalid-boolean")


_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,9}")


def integer(text: str) -> int | Flaw:
    return int(text) if _INTEGER.fullmatch(text) else Flaw("invalid-integer")


def disposition(text: str) -> str:
    """Two digits, as NUBC writes them: `1` is `01`. What is no number stays as it is."""
    return f"0{text}" if len(text) == 1 and "0" <= text <= "9" else text


def coded(table: Table) -> Parse:
    """The look-up in a code table; a code that it does not know is noted, whatever becomes of it."""

    def look_up(code: str) -> Any:
        value, known = table.find(code)
        return value if known else Flaw(UNKNOWN_CODE, value)

    return look_up


def then(look_up: Parse, parse: Callable[[str], Any]) -> Parse:
    """A look-up whose texts are parsed in turn."""

    def both(code: str) -> Any:
        value = look_up(code)
        if value.__class__ is Flaw:
            return Flaw(value.code, parse(value.value)) if isinstance(value.value, str) else value
        return parse(value) if isinstance(value, str) else value

    return both


@remembered(PHONES_REMEMBERED_MAX)
def e164(text: str, region: str) -> str | None:
    """A phone number to E.164; none when it is not a whole number.

    The length must be that of a number of its country; whether the number is in use is not asked, because such lists
    age. What follows the digits (extension, comment) is left out, and letters are never read as digits.
    """
    if region in _NORTH_AMERICA and (plain := _NORTH_AMERICAN.fullmatch(text)):
        return "+1" + "".join(plain.groups())
    return _parsed_phone(text, region)


_NORTH_AMERICA: Final = frozenset({"US", "CA"})
_NORTH_AMERICAN: Final = re.compile(r"(?:\+1)?\(?([2-9][0-9]{2})\)?[-. ]?([0-9]{3})[-. ]?([0-9]{4})")
"""As nearly all numbers are written there; `phonenumbers` comes to the same in thirty times the time."""


def _parsed_phone(text: str, region: str) -> str | None:
    import phonenumbers

    letters = _LETTER_AFTER_DIGIT.search(text)
    try:
        number = phonenumbers.parse(text[: letters.start() + 1] if letters else text, region)
    except phonenumbers.NumberParseException:
        return None
    if phonenumbers.is_possible_number_with_reason(number) != phonenumbers.ValidationResult.IS_POSSIBLE:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


_LETTER_AFTER_DIGIT: Final = re.compile(r"\d[^\dA-Za-z]*[A-Za-z]")


def region_is_known(region: str) -> bool:
    import phonenumbers

    return region in phonenumbers.SUPPORTED_REGIONS


# --- parts of a field ------------------------------------------------------------------------------------------------


def _composite(record: Callable[..., Any], places: Mapping[str, tuple[int, int]]) -> Build:
    """Reads a record part by part. Without any valued part: null if there is a null in it, else absent."""
    items = tuple((name, component, subcomponent) for name, (component, subcomponent) in places.items())

    def build(repetition: Repetition) -> Any:
        values = {}
        valued = repetition.valued
        for name, component, subcomponent in items:
            if value := valued(component, subcomponent):
                values[name] = value
        return record(**values) if values else nothing(repetition)

    return build


def nothing(repetition: Repetition) -> Any:
    return None if NULL in repetition.text else ABSENT


def _address(street: str | None = None, other: str | None = None, **rest: str) -> Address:
    return Address(line=", ".join(line for line in (street, other) if line) or None, **rest)


def _named(record: Callable[..., Any], family: int, places: Mapping[str, tuple[int, int]]) -> Build:
    """A record with a family name (FN) among its parts."""
    items = tuple((name, component, subcomponent) for name, (component, subcomponent) in places.items())

    def build(repetition: Repetition) -> Any:
        values = {}
        valued = repetition.valued
        if surname := valued(family) or _surname(repetition, family):
            values["family"] = surname
        for name, component, subcomponent in items:
            if value := valued(component, subcomponent):
                values[name] = value
        return record(**values) if values else nothing(repetition)

    return build


def _surname(repetition: Repetition, component: int) -> str | None:
    """The family name of its parts where FN-1 is empty, as Dutch senders leave it: own prefix and name (FN-2 and 3),
    else those of the partner (FN-4 and 5). HL7 chapter 2A, FN.
    """
    for prefix, own in ((2, 3), (4, 5)):
        if surname := repetition.valued(component, own):
            before = repetition.valued(component, prefix)
            return f"{before} {surname}" if before else surname
    return None


name: Final = _named(Name, 1, {"given": (2, 1), "middle": (3, 1), "suffix": (4, 1), "prefix": (5, 1)})
"""XPN, HL7 chapter 2A."""
address: Final = _composite(
    _address,
    {"street": (1, 1), "other": (2, 1), "city": (3, 1), "state": (4, 1), "postal_code": (5, 1), "country": (6, 1)},
)
"""XAD: street (SAD-1) and other designation are the line."""
provider: Final = _named(Provider, 2, {"id": (1, 1), "given": (3, 1)})
"""XCN."""
location: Final = _composite(Location, {"point_of_care": (1, 1), "room": (2, 1), "bed": (3, 1), "facility": (4, 1)})
"""PL."""


class SentIdentifier(Identifier, frozen=True, kw_only=True):
    """A CX that says more than an identifier keeps. `authority` is the namespace id of its HD."""

    universal: str = ""
    """The universal id of its HD, where there is a namespace id too."""
    effective: str = ""
    """CX-7, as it was sent."""
    expires: str = ""
    """CX-8."""


IDENTIFIER_CHARS_MAX: Final = 200
"""Of a number that somebody is found by. HL7 v2.5 allows 15; longer ones are no numbers that a person could compare."""

_UNSEEN: Final = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\ufe00-\ufe0f\uffa0]")
"""Characters that nobody sees, though Unicode counts them among those that are printed."""


def _is_believed(number: str) -> bool:
    """Whether two numbers that look alike are alike, so that no patient has two charts that nobody can tell apart."""
    if len(number) > IDENTIFIER_CHARS_MAX or not number.isprintable():
        return False
    return number.isascii() or _UNSEEN.search(number) is None


def _entity(value: str | None = None, namespace: str | None = None, universal: str | None = None) -> Any:
    if value is None:
        return ABSENT
    return (
        Identifier(value=value, authority=namespace or universal or "")
        if _is_believed(value)
        else Flaw("invalid-identifier")
    )


entity: Final = _composite(_entity, {"value": (1, 1), "namespace": (2, 1), "universal": (3, 1)})
"""EI: the number of a thing (an order, an appointment) and who gave it."""
coded_element: Final = _composite(Coded, {"code": (1, 1), "text": (2, 1), "system": (3, 1)})
"""CWE, CE."""


def identifier(repetition: Repetition) -> Any:
    """CX. The authority is the namespace id of CX-4, else its universal id, else empty: the channel then names one.

    The type is in upper case, as the codes of table 0203 are.
    """
    value = repetition.valued(1)
    if value is None:
        return nothing(repetition)
    if not _is_believed(value):
        return Flaw("invalid-identifier")
    namespace, universal = repetition.valued(4), repetition.valued(4, 2)
    authority = namespace or universal or ""
    kind = (repetition.valued(5) or "").upper()
    effective, expires = repetition.valued(7) or "", repetition.valued(8) or ""
    if effective or expires or (namespace and universal):
        return SentIdentifier(
            value=value,
            authority=authority,
            type=kind,
            universal=universal if namespace and universal else "",
            effective=effective,
            expires=expires,
        )
    return Identifier(value=value, authority=authority, type=kind)


_NOT_A_PHONE: Final = frozenset({"INTERNET", "X.400", "FX", "BP", "MD"})
"""XTN-3, HL7 table 0202: mail, fax, pager, modem."""


def phone(region: str) -> Build:
    """XTN to E.164: the number as one text (XTN-1 up to 2.6, XTN-12 since), else country, area and local number."""

    def build(repetition: Repetition) -> Any:
        equipment = repetition.valued(3)
        if (equipment and equipment.upper() in _NOT_A_PHONE) or repetition.valued(2) == "NET":
            return ABSENT
        said = False
        for text in _numbers(repetition):
            if text is not None:
                said = True
                number = e164(text, region)
                if number is not None:
                    return number
        return Flaw("invalid-phone") if said else nothing(repetition)

    return build


def _numbers(repetition: Repetition) -> Iterator[str | None]:
    """Where the number may stand, best first."""
    yield repetition.valued(1)
    yield repetition.valued(12)
    yield _parted(repetition)


def _parted(repetition: Repetition) -> str | None:
    local = repetition.valued(7)
    if local is None:
        return None
    country, area = repetition.valued(5), repetition.valued(6) or ""
    return f"+{country.lstrip('+')}{area}{local}" if country else area + local
