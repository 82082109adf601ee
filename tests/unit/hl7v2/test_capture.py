"""What people keep in files becomes frames; nothing of it is lost on the way."""

from __future__ import annotations

import pytest

from engine.hl7v2.capture import read_capture

ONE = b"MSH|^~\\&|A|B|C|D|20260302||ADT^A01|1|P|2.5.1\rPID|1\r"
TWO = b"MSH|^~\\&|A|B|C|D|20260302||ADT^A03|2|P|2.5.1\rPID|1\r"
BATCH = b"BHS|^~\\&|A\r" + ONE + TWO + b"BTS|2\r"
FILE_BATCH = b"FHS|^~\\&|A\r" + BATCH + BATCH + b"FTS|2\r"


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"], ids=["cr", "lf", "crlf"])
@pytest.mark.parametrize("between", [0, 1, 3])
def test_messages_are_split_at_msh_and_text_lines_end_with_cr(end: bytes, between: int) -> None:
    content = ONE.replace(b"\r", end) + end * between + TWO.replace(b"\r", end)
    assert _payloads(content) == [ONE, TWO]


def test_a_file_with_lone_carriage_returns_is_left_as_it_is() -> None:
    note = ONE + b"NTE|1||first line\nsecond line\r"
    assert _payloads(note) == [note]


def test_a_byte_order_mark_of_an_editor_is_no_part_of_the_message() -> None:
    assert _payloads("\ufeff".encode() + ONE) == [ONE]


def test_a_missing_last_line_end_is_added() -> None:
    assert _payloads(ONE.rstrip(b"\r")) == [ONE]


def test_a_batch_is_one_unit() -> None:
    units = read_capture(ONE + BATCH + TWO)
    assert [(unit.payload, unit.batch) for unit in units] == [(ONE, False), (BATCH, True), (TWO, False)]


def test_a_file_batch_is_one_unit_with_all_its_batches() -> None:
    units = read_capture((FILE_BATCH + ONE).replace(b"\r", b"\n"))
    assert [(unit.payload, unit.batch) for unit in units] == [(FILE_BATCH, True), (ONE, False)]


def test_a_batch_without_trailer_reaches_to_the_next_one_or_to_the_end() -> None:
    open_batch = b"BHS|^~\\&|A\r" + ONE
    assert _payloads(open_batch + BATCH) == [open_batch, BATCH]
    assert _payloads(BATCH + open_batch) == [BATCH, open_batch]


def test_the_frames_of_a_capture_stay_byte_for_byte() -> None:
    odd = ONE.replace(b"\r", b"\n")
    units = read_capture(b"\x0b" + odd + b"\x1c\r\n\x0b" + BATCH + b"\x1c\r\x0b" + TWO + b"\x1c")
    assert [(unit.payload, unit.batch) for unit in units] == [(odd, False), (BATCH, True), (TWO, False)]


def test_what_is_no_message_is_sent_all_the_same() -> None:
    assert _payloads(b"hello\nworld\n") == [b"hello\rworld\r"]
    assert _payloads(b"# comment\r" + ONE) == [b"# comment\r", ONE]


def test_a_segment_that_only_begins_like_a_header_splits_nothing() -> None:
    message = ONE + b"MSHX|1\rZMS|MSH|^~\\&\r"
    assert _payloads(message) == [message]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf\r\n"])
def test_an_empty_file_has_no_units(content: bytes) -> None:
    assert _payloads(content) == []


def _payloads(content: bytes) -> list[bytes]:
    return [unit.payload for unit in read_capture(content)]


def test_a_0b_inside_of_a_text_makes_no_capture_of_the_file() -> None:
    noted = ONE + b"NTE|1||soft\x0breturn\r"
    assert _payloads(noted + TWO) == [noted, TWO]
    assert _payloads(b"\x0b" + noted + b"\x1c\r\x0b" + TWO + b"\x1c\r") == [noted, TWO]


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
@pytest.mark.parametrize("indent", [b" ", b"    ", b"\t", b" " * 40])
def test_indented_messages_out_of_a_mail_are_messages_of_their_own(indent: bytes, end: bytes) -> None:
    content = b"".join(indent + line + end for line in (ONE + TWO).split(b"\r")[:-1])
    found = _payloads(content)
    assert [b"ADT^A01" in payload for payload in found] == [True, False]
    assert [payload.count(b"MSH|") for payload in found] == [1, 1]


def test_an_indented_batch_is_one_unit() -> None:
    content = b"".join(b"  " + line + b"\r" for line in (BATCH + ONE).split(b"\r")[:-1])
    assert [unit.batch for unit in read_capture(content)] == [True, False]
