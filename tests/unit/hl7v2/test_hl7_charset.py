"""Section 3 of the HL7 rules: character sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.hl7v2.charset import (
    BYTE_ORDER_MARK,
    CHARSET_FALLBACK,
    CHARSET_UNDECODABLE,
    CHARSET_UNKNOWN,
    codec_of,
    declared_codec,
    decode,
)
from engine.hl7v2.header import read_header
from engine.hl7v2.message import Message


def message(family: bytes, charset: bytes = b"") -> bytes:
    return b"MSH|^~\\&|A|B|C|D|20240101||ADT^A01^ADT_A01|1|P|2.5.1||||||" + charset + b"\rPID|1||7||" + family + b"^X\r"


def read(family: bytes, charset: bytes = b"", *, default: str | None = None, fallback: str = "windows-1252") -> Message:
    return Message.parse(message(family, charset), default=default, fallback=fallback)


def test_undeclared_text_is_utf8() -> None:
    read_message = read("Müller".encode())
    assert (read_message.get("PID-5"), read_message.charset, read_message.deviations) == ("Müller", "utf-8", ())


def test_undeclared_text_that_is_no_utf8_is_windows_1252_and_recorded() -> None:
    read_message = read("Müller\u201d".encode("windows-1252"))
    assert (read_message.get("PID-5"), read_message.charset) == ("Müller\u201d", "windows-1252")
    assert read_message.deviations == (CHARSET_FALLBACK,)


def test_the_fallback_never_fails_even_on_bytes_it_does_not_define() -> None:
    assert read(b"\x81\x8d\x8f\x90\x9d\xff").get("PID-5") == "\x81\x8d\x8f\x90\x9d\xff"


def test_the_channels_charset_comes_before_utf8() -> None:
    read_message = read("Müller".encode("iso8859-1"), default="iso8859-1")
    assert (read_message.get("PID-5"), read_message.charset, read_message.deviations) == ("Müller", "iso8859-1", ())


def test_msh_18_comes_before_the_channels_charset() -> None:
    assert read("Łukasz".encode("iso8859-2"), b"8859/2", default="iso8859-1").get("PID-5") == "Łukasz"


def test_the_channels_own_fallback_is_the_last_resort() -> None:
    read_message = read("Жук".encode("windows-1251"), fallback="windows-1251")
    assert (read_message.get("PID-5"), read_message.charset) == ("Жук", "windows-1251")


def test_a_declared_set_that_does_not_decode_is_a_deviation_and_no_loss() -> None:
    read_message = read("Müller".encode(), b"ASCII")
    assert (read_message.get("PID-5"), read_message.charset) == ("Müller", "utf-8")
    assert read_message.deviations == (CHARSET_UNDECODABLE,)


def test_after_a_declared_set_that_does_not_decode_the_channels_charset_is_tried() -> None:
    assert read("Müller".encode("iso8859-1"), b"ASCII", default="iso8859-1").get("PID-5") == "Müller"


def test_an_unknown_declared_set_is_a_deviation() -> None:
    read_message = read("Müller".encode(), b"KLINGON")
    assert (read_message.get("PID-5"), read_message.deviations) == ("Müller", (CHARSET_UNKNOWN,))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ASCII", "Mueller"),
        ("8859/1", "Müller"),
        ("8859/2", "Łukasz"),
        ("8859/5", "Жук"),
        ("8859/7", "Ωμέγα"),
        ("8859/9", "Şahin"),
        ("8859/15", "Œuvre €"),
        ("UNICODE UTF-8", "Müller 漢"),
        ("UNICODE", "Müller 漢"),
        ("utf-8", "Müller 漢"),
        ("GB 18030-2000", "王小明"),
        ("BIG-5", "許功蓋"),
        ("KS X 1001", "홍길동"),
        ("~ISO IR87", "山田太郎"),
        ("ISO IR87", "山田太郎"),
        ("~ISO IR87~ISO IR159", "山田太郎"),
        ("ISO-8859-1", "Müller"),
        ("WINDOWS-1252", "Müller”"),
    ],
)
def test_names_of_table_0211_and_their_everyday_spellings_are_understood(name: str, text: str) -> None:
    codec, understood = declared_codec(tuple(name.split("~")))
    assert codec is not None
    assert understood
    read_message = read(text.encode(codec), name.encode())
    assert (read_message.get("PID-5.1"), read_message.get("PID-5.2"), read_message.deviations) == (text, "X", ())


@pytest.mark.parametrize("part", [*range(1, 12), 13, 14, 15, 16])
def test_every_part_of_iso_8859_that_python_knows_is_known(part: int) -> None:
    codec = codec_of(f"8859/{part}")
    assert codec is not None
    assert "A".encode(codec) == b"A"


def test_delimiter_bytes_inside_multi_byte_characters_split_nothing() -> None:
    text = "許功蓋"  # the second bytes of Big5's 許, 功 and 蓋 are 5C, 5C and 5C: the escape character
    assert b"\\" in text.encode("cp950")
    assert read(text.encode("cp950"), b"BIG-5").get("PID-5.1") == text


def test_a_utf8_byte_order_mark_is_stripped_and_recorded() -> None:
    payload = b"\xef\xbb\xbf" + message("Müller".encode(), b"8859/1")
    read_message = Message.parse(payload)
    assert (read_message.get("PID-5"), read_message.charset) == ("Müller", "utf-8")
    assert read_message.deviations == (BYTE_ORDER_MARK,)
    assert read_message.raw == payload


@pytest.mark.parametrize(
    ("mark", "codec"), [(b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"", "utf-16-le"), (b"", "utf-16-be")]
)
@pytest.mark.parametrize("declared", [b"UNICODE UTF-16", b""])
@pytest.mark.parametrize("text", ["Müller 漢", "plain"])
def test_utf_16_is_found_by_its_bytes_with_or_without_a_mark(
    text: str, declared: bytes, mark: bytes, codec: str
) -> None:
    payload = mark + message(text.encode(), declared).decode().encode(codec)
    assert read_header(payload).control_id_raw == b"1"
    read_message = Message.parse(payload)
    assert (read_message.get("PID-5"), read_message.charset, read_message.header.type) == (text, codec, "ADT^A01")


def test_bytes_that_look_like_a_utf_16_header_inside_a_field_change_nothing() -> None:
    payload = message(b"x").replace(b"|A|B|", b"|\xfc|M\x00S\x00H|", 1)
    assert Message.parse(payload).charset == "windows-1252"


def test_a_single_byte_message_that_says_utf_16_is_read_all_the_same() -> None:
    read_message = read(b"Mueller", b"UNICODE UTF-16")
    assert (read_message.get("PID-5"), read_message.deviations) == ("Mueller", (CHARSET_UNDECODABLE,))


@given(st.binary(max_size=200), st.sampled_from(["", "ASCII", "8859/1", "BIG-5", "~ISO IR87", "UNICODE UTF-16", "x"]))
def test_any_bytes_become_some_text(payload: bytes, name: str) -> None:
    for fallback in ("windows-1252", "windows-1251", "cp950", "ascii"):
        decoded = decode(payload, tuple(name.split("~")) if name else (), default=None, fallback=fallback)
        assert isinstance(decoded.text, str)
        assert (
            bool(decoded.text) == bool(payload)
            or payload in {b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"}
            or b"\x1b" in payload
        )
