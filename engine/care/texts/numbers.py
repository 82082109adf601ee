"""Telephone numbers as texts need them: which of them a text can reach at all."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

MOBILE: Final = "mobile"
UNKNOWN: Final = "unknown"
"""Where mobile and landline numbers look alike, as in North America: the carrier knows."""

NOT_A_NUMBER: Final = "not-a-number"
EXTENSION: Final = "extension"
LANDLINE: Final = "landline"
TOLL_FREE: Final = "toll-free"
PREMIUM: Final = "premium-rate"
SERVICE: Final = "no-person"
"""A pager, a voice mailbox, a shared line, a number that belongs to no person."""
FOREIGN: Final = "foreign"

TEXT_CHARS_MAX: Final = 64

_TERRITORIES: Final = {"US": frozenset({"US", "PR", "VI", "GU", "AS", "MP"})}
_TOLL_FREE: Final = frozenset({"800", "833", "844", "855", "866", "877", "888"})
"""Of North America, also where a number is not in use."""


class Number(NamedTuple):
    """A number that a text can be sent to."""

    e164: str
    kind: str
    """`mobile`, or `unknown`."""


class Flaw(NamedTuple):
    """Why no text can be sent there."""

    code: str


def parse(raw: str, region: str, regions: Collection[str] = ()) -> Number | Flaw:
    """A number as it was written. region: whose national form it may have (ISO 3166-1).

    regions: countries whose numbers may be written to; none: that of the region, with its territories.
    """
    import phonenumbers
    from phonenumbers import PhoneNumberType as Type

    text = raw.strip()
    if not text or len(text) > TEXT_CHARS_MAX:
        return Flaw(NOT_A_NUMBER)
    try:
        found = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return Flaw(NOT_A_NUMBER)
    if found.extension:
        return Flaw(EXTENSION)
    possible = phonenumbers.is_possible_number_with_reason(found) == phonenumbers.ValidationResult.IS_POSSIBLE
    national = phonenumbers.national_significant_number(found)
    if not possible or (found.country_code == 1 and not _is_north_american(national)):
        return Flaw(NOT_A_NUMBER)
    kind = phonenumbers.number_type(found)
    if kind == Type.TOLL_FREE or (found.country_code == 1 and national[:3] in _TOLL_FREE):
        return Flaw(TOLL_FREE)
    if kind == Type.PREMIUM_RATE or (found.country_code == 1 and national[:3] == "900"):
        return Flaw(PREMIUM)
    if not _is_allowed(found.country_code, phonenumbers.region_code_for_number(found), region, regions):
        return Flaw(FOREIGN)
    if kind == Type.FIXED_LINE:
        return Flaw(LANDLINE)
    if kind in {Type.PAGER, Type.VOICEMAIL, Type.UAN, Type.SHARED_COST, Type.PERSONAL_NUMBER}:
        return Flaw(SERVICE)
    e164 = phonenumbers.format_number(found, phonenumbers.PhoneNumberFormat.E164)
    return Number(e164, MOBILE if kind == Type.MOBILE else UNKNOWN)


def _is_allowed(country_code: int | None, of: str | None, region: str, regions: Collection[str]) -> bool:
    """of: the number's country; none: nobody has such a number today, and lists age: by the country code then."""
    import phonenumbers

    allowed = frozenset(regions) or _TERRITORIES.get(region, frozenset({region}))
    if of is not None:
        return of in allowed
    return any(country_code == phonenumbers.country_code_for_region(one) for one in allowed)


def _is_north_american(national: str) -> bool:
    return len(national) == 10 and national[0] in "23456789" and national[3] in "23456789"
