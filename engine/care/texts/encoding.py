"""How long a text is on the air: its encoding, and the segments that the carrier counts.

GSM 03.38 (3GPP TS 23.038, sections 6.2.1 and 6.2.1.1): 160 characters in one segment, 153 in each of several; those of
the extension table take two. One character that is in neither table makes the whole text UCS-2: 70, and 67.
"""

from __future__ import annotations

from typing import Final, NamedTuple

BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENSION: Final = frozenset("\f^{}\\[~]|€")
"""Each takes an escape besides itself."""

GSM_7: Final = "GSM-7"
UCS_2: Final = "UCS-2"
_ONE: Final = {GSM_7: 160, UCS_2: 70}
_EACH: Final = {GSM_7: 153, UCS_2: 67}
"""Of several: a header that says which part of what it is takes the rest."""


class Length(NamedTuple):
    """Of a text."""

    characters: int
    """As a person counts them: code points."""
    encoding: str
    segments: int
    culprits: tuple[str, ...]
    """The characters that make it UCS-2."""

    @property
    def text(self) -> str:
        parts = f"{self.characters} characters, {self.encoding}, {self.segments} segment{'s' * (self.segments != 1)}"
        if not self.culprits:
            return parts
        return f"{parts} because of {', '.join(shown(one) for one in self.culprits)}"


def length_of(text: str) -> Length:
    culprits = tuple(dict.fromkeys(one for one in text if one not in BASIC and one not in EXTENSION))
    encoding = UCS_2 if culprits else GSM_7
    return Length(len(text), encoding, _segments(text, encoding), culprits)


def _segments(text: str, encoding: str) -> int:
    """A character is never cut in two: what does not fit into a segment any more begins the next one."""
    widths = [_width(one, encoding) for one in text]
    if sum(widths) <= _ONE[encoding]:
        return 1
    room, segments, left = _EACH[encoding], 1, _EACH[encoding]
    for width in widths:
        if width > left:
            segments, left = segments + 1, room
        left -= width
    return segments


def _width(character: str, encoding: str) -> int:
    if encoding == GSM_7:
        return 2 if character in EXTENSION else 1
    return 2 if ord(character) > 0xFFFF else 1


def shown(character: str) -> str:
    """A character for people: `’ (U+2019)`."""
    sign = character if character.isprintable() and not character.isspace() else "a character"
    return f"{sign} (U+{ord(character):04X})"
