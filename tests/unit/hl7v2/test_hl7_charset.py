"""Section 3 of the HL7 rules: character sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.hl7v2.charset import (
    BYTE_ORDER_MARK,
    CHARSET_DOUBTFUL,
    CHARSET_FALLBACK,
    CHARSET_UNDECODABLE,
    CHARSET_UNKNOWN,
    codec_of,
    declared_codec,
    decode,
    names_wide,
)
from engine.hl7v2.header import HeaderError, read_header
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
    read_message = read(b"\x81\x8d\x8f\x90\x9d\xff")
    assert (read_message.get("PID-5"), read_message.raw.count(b"\x81")) == ("\xff", 1)


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


WIDE = ["utf-16-le", "utf-16-be", "utf-16", "utf-32-le", "utf-32-be", "utf-32"]


@pytest.mark.parametrize("encoding", WIDE)
@pytest.mark.parametrize("declared", [b"UNICODE UTF-16", b""])
@pytest.mark.parametrize("text", ["Müller 漢", "plain", "\u0d1c", "\u041c"])
def test_utf_16_and_utf_32_are_refused_with_102_at_msh_18_and_the_control_id_is_known(
    text: str, declared: bytes, encoding: str
) -> None:
    for before in (b"", b"\r\n", b"\x00", b"\xff\xfe", b"\xfe\xff"):
        payload = before + message(text.encode(), declared).decode().encode(encoding)
        for cut in (payload, payload[: len(payload) * 3 // 4], payload[:-1], payload + b"\r"):
            with pytest.raises(HeaderError) as caught:
                Message.parse(cut)
            error = caught.value
            assert (error.error, error.hl7_code, error.location) == ("charset-not-accepted", 102, "MSH-18")
            assert error.header is not None
            assert (error.header.control_id_raw, error.header.type) == (b"1", "ADT^A01")


@pytest.mark.parametrize("header", ["FHS", "BHS", "msh"])
def test_a_batch_in_utf_16_is_refused_too(header: str) -> None:
    with pytest.raises(HeaderError) as caught:
        read_header(f"{header}|^~\\&|A\rMSH|^~\\&|".encode("utf-16"))
    assert caught.value.error == "charset-not-accepted"


def test_a_message_in_utf_16_can_still_be_shown_to_people() -> None:
    payload = message("Müller".encode()).decode().encode("utf-16")
    assert "Müller" in decode(payload, (), default=None, fallback="windows-1252").text


@pytest.mark.parametrize(
    "name",
    [
        "UNICODE UTF-16",
        "UNICODE UTF-32",
        "utf-16",
        "UTF-16LE",
        "ISO IR 10646-UCS-2",
        "ISO 10646-UCS-4",
        "UCS-2",
        "~UNICODE UTF-16",
    ],
)
def test_the_names_of_what_mllp_can_not_carry_are_known(name: str) -> None:
    assert names_wide(tuple(name.split("~")))


@pytest.mark.parametrize("name", ["", "UNICODE", "UNICODE UTF-8", "8859/1", "ASCII~ISO IR87", "GB 18030-2000"])
def test_no_other_name_is_taken_for_one(name: str) -> None:
    assert not names_wide(tuple(name.split("~")))


@pytest.mark.parametrize("declared", [b"8859/1", b"8859/2", b"8859/5", b"8859/15", b"WINDOWS-1252"])
@pytest.mark.parametrize("text", ["MUÑOZ", "JOSÉ", "Łukasz", "Жук", "漢"])
def test_a_set_of_single_bytes_is_not_believed_where_the_bytes_are_utf_8(declared: bytes, text: str) -> None:
    read_message = read(text.encode(), declared)
    assert (read_message.get("PID-5"), read_message.charset) == (text, "utf-8")
    assert read_message.deviations == (CHARSET_DOUBTFUL,)


def test_the_channels_own_set_is_doubted_in_the_same_way() -> None:
    read_message = read("MUÑOZ".encode(), default="latin-1")
    assert (read_message.get("PID-5"), read_message.deviations) == ("MUÑOZ", (CHARSET_DOUBTFUL,))


@pytest.mark.parametrize(
    ("declared", "text"), [(b"8859/1", "MUÑOZ"), (b"8859/2", "Łukasz"), (b"8859/5", "Жук"), (b"8859/7", "Ωμέγα")]
)
def test_a_set_that_is_declared_rightly_is_believed(declared: bytes, text: str) -> None:
    codec = codec_of(declared.decode())
    assert codec is not None
    read_message = read(text.encode(codec), declared)
    assert (read_message.get("PID-5"), read_message.charset, read_message.deviations) == (text, codec, ())


def test_the_channel_may_force_a_set_over_all_that_the_message_says() -> None:
    payload = message("MÜLLER".encode("iso8859-1"), b"UNICODE UTF-8")
    read_message = Message.parse(payload, force="iso8859-1")
    assert (read_message.get("PID-5"), read_message.charset, read_message.deviations) == ("MÜLLER", "iso8859-1", ())
    assert Message.parse(message("MUÑOZ".encode(), b"8859/1"), force="utf-8").deviations == ()
    assert Message.parse(message(b"MU\xc3\x91OZ", b"UNICODE UTF-16"), force="iso8859-1").get("PID-5") == "MUÃ‘OZ"
    forced = Message.parse(message(b"M\xdcLLER", b"8859/1"), force="utf-8")
    assert (forced.get("PID-5"), forced.deviations) == ("MÜLLER", (CHARSET_UNDECODABLE, CHARSET_FALLBACK))


def test_bytes_that_are_no_text_in_latin_1_are_read_as_the_windows_set() -> None:
    read_message = read("O\u2019NEIL".encode("windows-1252"), b"8859/1")
    assert (read_message.get("PID-5"), read_message.charset) == ("O\u2019NEIL", "windows-1252")
    assert read_message.deviations == (CHARSET_UNDECODABLE,)


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
