r"""Escape sequences inside values: `\F\` and its kin, `\Xdd..\`, `\.br\`; the marks of highlighting are left out.

What is not a sequence known here stays as it is, a stray escape character included: nothing is ever eaten.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from engine.hl7v2.header import Delimiters

CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""C0, DEL and C1 but for TAB, LF and CR: no text (HL7 v2.9.1, 2.5: values are displayable characters)."""


@lru_cache(maxsize=64)
def unescaper(delimiters: Delimiters, charset: str) -> Callable[[str], str]:
    r"""The function that replaces the escape sequences of a value that holds an escape character.

    charset: the message's codec, which the bytes of `\Xdd..\` are in. An odd number of hex digits (a byte and a half)
    is read as if it had a leading zero; control characters other than TAB, LF and CR are dropped (`\X000D\` is a
    carriage return). Bytes that are no text in that charset are read as UTF-16 (`\X00E9\`, as senders in Java and .NET
    write it), and where they are none either the sequence stays as it is. `\x..\` is read as `\X..\`.
    """
    if not delimiters.escape:
        return str
    mark = re.escape(delimiters.escape)
    sequence = re.compile(rf"{mark}(?:([FSTREPHN])|[Xx]([0-9A-Fa-f]+)|\.(?:br|BR)){mark}")
    characters = {
        "F": delimiters.field,
        "S": delimiters.component,
        "R": delimiters.repetition,
        "E": delimiters.escape,
        "T": delimiters.subcomponent,
        "P": delimiters.truncation,
    }
    left_out = {"H", "N"}

    def replacement(match: re.Match[str]) -> str:
        name, digits = match.groups()
        if name is not None:
            return "" if name in left_out else characters[name] or match[0]
        if digits is None:
            return "\n"
        raw = bytes.fromhex(digits.rjust(len(digits) + len(digits) % 2, "0"))
        for codec in (charset, "utf-16-be"):
            with contextlib.suppress(UnicodeError):
                return CONTROL.sub("", raw.decode(codec))
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
