"""What others wrote, as it may be printed: nothing in it ends a line, drives a terminal, or turns the order of letters.

Senders, certificates and people write the values that commands print. A line feed in one of them would forge a line of
a list, an override of direction (Unicode TR 36, "bidirectional text spoofing") would show another number than stands
there.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Final

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_HIDDEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
VALUE_CHARACTERS_MAX: Final = 250
"""Of a single value in a text for people."""


class _Table(dict[int, str]):
    """For `str.translate`: what to print in place of a character, asked once for each."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        shown = _REPLACEMENT if unicodedata.category(character) in _HIDDEN_CATEGORIES else character
        self[code] = shown
        return shown


_ONE_LINE: Final = _Table()
_LINES: Final = _Table({ord("\n"): "\n", ord("\t"): "\t"})
_ESCAPED: Final = re.compile("[\x7f-\x9f\xad\u0600-\u0605\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def single(text: str) -> str:
    """A single value: one line, of VALUE_CHARACTERS_MAX characters at most."""
    shown = text.translate(_ONE_LINE)
    return shown if len(shown) <= VALUE_CHARACTERS_MAX else shown[: VALUE_CHARACTERS_MAX - 1] + "…"


def lines(text: str) -> str:
    """A text of several lines: a message, a whole answer."""
    return text.translate(_LINES)


def singles(value: Any) -> Any:
    """`single` for every text in a document."""
    if isinstance(value, str):
        return single(value)
    if isinstance(value, dict):
        return {name: singles(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [singles(item) for item in value]
    return value


def escaped(json: str) -> str:
    """The same JSON document: what a terminal would act on is written as an escape."""
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json)
