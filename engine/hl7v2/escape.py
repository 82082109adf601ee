r"""Escape sequences inside values: `\F\` and its kin, `\Xdd..\`, `\.br\`.

What is not a sequence known here stays as it is, a stray escape character included: nothing is ever eaten.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from engine.hl7v2.header import Delimiters


@lru_cache(maxsize=64)
def unescaper(delimiters: Delimiters, charset: str) -> Callable[[str], str]:
    r"""The function that replaces the escape sequences of a value that holds an escape character.

    charset: the message's codec, which the bytes of `\Xdd..\` are in. An odd number of hex digits (a byte and a half)
    is read as if it had a leading zero, and NULs are dropped (`\X000D\` is a carriage return). Bytes that are no text
    in that charset leave the sequence as it is.
    """
    if not delimiters.escape:
        return str
    mark = re.escape(delimiters.escape)
    sequence = re.compile(rf"{mark}(?:([FSTREP])|X([0-9A-Fa-f]+)|\.br){mark}")
    characters = {
        "F": delimiters.field,
        "S": delimiters.component,
        "R": delimiters.repetition,
        "E": delimiters.escape,
        "T": delimiters.subcomponent,
        "P": delimiters.truncation,
    }

    def replacement(match: re.Match[str]) -> str:
        name, digits = match.groups()
        if name is not None:
            return characters[name] or match[0]
        if digits is None:
            return "\n"
        try:
            return bytes.fromhex(digits.rjust(len(digits) + len(digits) % 2, "0")).decode(charset).replace("\0", "")
        except UnicodeError:
            return match[0]

    return lambda value: sequence.sub(replacement, value)


def escape(value: str, delimiters: Delimiters) -> str:
    """The value with every delimiter, line break and control character written so that it stays inside its place.

    Where no escape character is declared, those characters become blanks.
    """
    return "".join(_replacements(delimiters).get(character, character) for character in value)


@lru_cache(maxsize=64)
def _replacements(delimiters: Delimiters) -> dict[str, str]:
    names = {
        delimiters.field: "F",
        delimiters.component: "S",
        delimiters.repetition: "R",
        delimiters.escape: "E",
        delimiters.subcomponent: "T",
        delimiters.truncation: "P",
    }
    mark = delimiters.escape
    table = {chr(code): f"{mark}X{code:02X}{mark}" if mark else " " for code in range(32)}
    table |= {character: f"{mark}{name}{mark}" if mark else " " for character, name in names.items() if character}
    return table
