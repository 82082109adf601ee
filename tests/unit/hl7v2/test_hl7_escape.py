"""Escape sequences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.hl7v2.escape import CONTROL, escape, unescaper
from engine.hl7v2.header import Delimiters

STANDARD = Delimiters(truncation="#")
CUSTOM = Delimiters(field="$", component="%", repetition="*", escape="!", subcomponent="@")


def unescape(value: str, charset: str = "utf-8", delimiters: Delimiters = STANDARD) -> str:
    return unescaper(delimiters, charset)(value)


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (r"a\F\b", "a|b"),
        (r"a\S\b", "a^b"),
        (r"a\T\b", "a&b"),
        (r"a\R\b", "a~b"),
        (r"a\E\b", "a\\b"),
        (r"a\P\b", "a#b"),
        (r"a\.br\b", "a\nb"),
        (r"\F\\S\\T\\R\\E\\P\ ", "|^&~\\# "),
        (r"\E\S\E\ ", "\\S\\ "),
    ],
)
def test_the_delimiters_of_the_message_and_line_breaks_are_restored(sent: str, meant: str) -> None:
    assert unescape(sent) == meant


def test_marks_of_highlighting_are_left_out() -> None:
    assert unescape(r"\H\Bo\N\ and \H\x\N\ ") == "Bo and x "
    assert unescape(r"\E\H\E\ ") == "\\H\\ "
    assert unescape(r"\h\x\n\ ") == r"\h\x\n\ "


def test_custom_delimiters_have_their_own_sequences() -> None:
    assert unescape("a!F!b!S!c!T!d!R!e!E!f", delimiters=CUSTOM) == "a$b%c@d*e!f"
    assert unescape(r"a\F\b", delimiters=CUSTOM) == r"a\F\b"


def test_the_sequence_of_an_undeclared_truncation_character_stays() -> None:
    assert unescape(r"a\P\b", delimiters=Delimiters()) == r"a\P\b"


@pytest.mark.parametrize(
    ("sent", "charset", "meant"),
    [
        (r"\X0D\ ", "utf-8", "\r "),  # one byte
        (r"\XD\ ", "utf-8", "\r "),  # half a byte
        (r"\X00D\ ", "utf-8", "\r "),  # one and a half
        (r"\X000D\ ", "utf-8", "\r "),  # two
        (r"\X0D0A\ ", "utf-8", "\r\n "),
        (r"\XC3BC\ ", "utf-8", "ü "),
        (r"\xC3BC\ ", "utf-8", "ü "),
        (r"\x41\ ", "utf-8", "A "),
        (r"\x0a\ ", "utf-8", "\n "),
        (r"\X00E9\ ", "utf-8", "é "),  # a code unit of UTF-16
        (r"\x00e9\ ", "utf-8", "é "),
        (r"\X0142\ ", "iso8859-1", "B "),  # 01 and 42 are text of that set, as far as they are text
        (r"\XD83DDE00\ ", "utf-8", "\U0001f600 "),
        (r"\X00E900E8\ ", "utf-8", "éè "),
        (r"\XD83D\ ", "utf-8", r"\XD83D\ "),  # half of a character
        (r"\X1B00\ ", "utf-8", " "),
        (r"\X07\X41\ ", "iso8859-1", "X41\\ "),
        (r"\XFC\ ", "iso8859-1", "ü "),
        (r"\XB35C\ ", "cp950", b"\xb3\x5c".decode("cp950") + " "),
    ],
)
def test_hexadecimal_bytes_of_any_length_are_read_in_the_messages_charset(sent: str, charset: str, meant: str) -> None:
    assert unescape(sent, charset) == meant


@pytest.mark.parametrize(
    "value",
    [
        r"C:\temp",
        r"a\b",
        "\\",
        r"\\",
        r"\Z12\ ",
        r"\XZZ\ ",
        r"\XFC\ ",
        r"\X\ ",
        r"\.sp\ ",
        r"\F",
        r"F\ ",
        r"\f\ ",
    ],
)
def test_stray_and_unknown_sequences_are_kept_as_they_are(value: str) -> None:
    assert unescape(value) == value


@given(st.text(), st.sampled_from([STANDARD, CUSTOM, Delimiters()]))
def test_what_is_escaped_comes_back_and_holds_no_delimiter(value: str, delimiters: Delimiters) -> None:
    value = CONTROL.sub("", value)  # they are never data
    escaped = escape(value, delimiters)
    assert unescape(escaped, delimiters=delimiters) == value
    assert not set(escaped) & {
        delimiters.field,
        delimiters.component,
        delimiters.repetition,
        delimiters.subcomponent,
        "\r",
        "\n",
    }


def test_without_an_escape_character_delimiters_become_blanks() -> None:
    assert escape("a|b^c\rd", Delimiters(escape="")) == "a b c d"
    assert unescape(r"a\F\b", delimiters=Delimiters(escape="")) == r"a\F\b"


@given(st.text(alphabet="\\FSTRXE.br0Dy^", max_size=30))
def test_unescaping_never_raises_and_never_eats_text_that_is_no_sequence(value: str) -> None:
    plain = [character for character in unescape(value) if character == "y"]
    assert plain == [character for character in value if character == "y"]
