"""Batches, and files of messages."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.message import AckCode
from engine.hl7v2.ack import Verdict, acknowledge, parse_ack
from engine.hl7v2.batch import (
    CONTENT_OUTSIDE,
    COUNT_WRONG,
    HEADER_MISSING,
    TRAILER_MISSING,
    Batch,
    BatchTooLongError,
    answer,
    messages_in,
    split,
)
from engine.hl7v2.header import read_header
from engine.hl7v2.message import Message
from engine.hl7v2.mllp import wrap

NOW = datetime(2024, 6, 12, 8, 30, 15, tzinfo=UTC)
ONE = b"MSH|^~\\&|A|B|C|D|2024||ADT^A01^ADT_A01|1|P|2.5\rPID|1||7\r"
TWO = b"MSH|^~\\&|A|B|C|D|2024||ADT^A08^ADT_A01|2|P|2.5\rPID|1||8\r"
OTHER = b"MSH$%*!@$A$B$C$D$2024$$ADT%A08%ADT_A01$3$P$2.5\rPID$1$$9\r"
FHS = b"FHS|^~\\&|REG^1|HOSP|HANDOFF|CRM|20240612||f.hl7||FILE-7\r"
BHS = b"BHS|^~\\&|REG^1|HOSP|HANDOFF|CRM|20240612||b||BATCH-9\r"


def batch_of(payload: bytes) -> Batch:
    batch = split(payload)
    assert batch is not None
    return batch


@pytest.mark.parametrize(
    "payload", [ONE, b"\r\n" + ONE, b"", b"junk", b"PID|1\r", b"\xef\xbb\xbf" + ONE, b"XFHS|\r" + ONE]
)
def test_a_plain_message_is_no_batch(payload: bytes) -> None:
    assert split(payload) is None


def test_a_file_with_a_batch_is_split_and_every_message_keeps_its_bytes() -> None:
    batch = batch_of(FHS + BHS + ONE + TWO + b"BTS|2\rFTS|1\r")
    assert batch.messages == (ONE, TWO)
    assert (batch.file_header, batch.groups[0].header) == (FHS.rstrip(), BHS.rstrip())
    assert batch.deviations == ()


def test_a_batch_without_a_file_header_is_a_batch() -> None:
    batch = batch_of(BHS + ONE + b"BTS|1\r")
    assert (batch.messages, batch.file_header, batch.deviations) == ((ONE,), b"", ())


def test_a_file_may_hold_several_batches() -> None:
    batch = batch_of(FHS + BHS + ONE + b"BTS|1\r" + BHS + TWO + OTHER + b"BTS|2\rFTS|2\r")
    assert [group.messages for group in batch.groups] == [(ONE,), (TWO, OTHER)]
    assert batch.deviations == ()


def test_messages_in_a_batch_are_each_read_alone_with_their_own_delimiters() -> None:
    first, second = (Message.parse(message) for message in batch_of(BHS + ONE + OTHER + b"BTS|2\r").messages)
    assert (first.get("PID-3"), second.get("PID-3")) == ("7", "9")


@pytest.mark.parametrize(
    "payload",
    [
        FHS + BHS + ONE + b"BTS|2\rFTS|1\r",
        FHS + BHS + ONE + b"BTS|1\rFTS|3\r",
        BHS + ONE + b"BTS|x\r",
        BHS + ONE + b"BTS|" + b"9" * 9999 + b"\r",
    ],
)
def test_counts_that_do_not_match_are_a_deviation(payload: bytes) -> None:
    batch = batch_of(payload)
    assert (batch.messages, batch.deviations) == ((ONE,), (COUNT_WRONG,))


@pytest.mark.parametrize("trailer", [b"BTS\r", b"BTS|\r", b"BTS|1\r", b"BTS|01|all\r"])
def test_a_count_that_is_absent_or_right_is_fine(trailer: bytes) -> None:
    assert batch_of(BHS + ONE + trailer).deviations == ()


@pytest.mark.parametrize(
    "payload", [BHS + ONE, FHS + BHS + ONE + b"BTS|1\r", FHS + BHS + ONE + b"FTS|1\r", BHS + BHS + ONE + b"BTS|1\r"]
)
def test_a_missing_trailer_is_a_deviation(payload: bytes) -> None:
    batch = batch_of(payload)
    assert (batch.messages, batch.deviations) == ((ONE,), (TRAILER_MISSING,))


def test_messages_in_a_file_without_a_batch_header_are_a_deviation_and_no_loss() -> None:
    batch = batch_of(FHS + ONE + TWO + b"BTS|2\rFTS|1\r")
    assert (batch.messages, batch.deviations) == ((ONE, TWO), (HEADER_MISSING,))


@pytest.mark.parametrize(
    "payload",
    [
        BHS + b"NTE|1||hello\r" + ONE + b"BTS|1\r",
        BHS + ONE + b"BTS|1\rNTE|1||hello\r",
        FHS + b"NTE|1||hello\r" + BHS + ONE + b"BTS|1\rFTS\r",
    ],
)
def test_lines_outside_of_any_message_are_a_deviation_and_handed_on_as_an_unreadable_message(payload: bytes) -> None:
    batch = batch_of(payload)
    assert sorted(batch.messages) == [ONE, b"NTE|1||hello"]
    assert batch.deviations == (CONTENT_OUTSIDE,)


def test_a_batch_with_lf_or_crlf_is_split() -> None:
    for terminator in (b"\n", b"\r\n"):
        batch = batch_of((b"\xef\xbb\xbf\r" + FHS + BHS + ONE + TWO + b"BTS|2\rFTS|1").replace(b"\r", terminator))
        assert [read_header(message).control_id for message in batch.messages] == ["1", "2"]
        assert batch.deviations == ()


def test_an_empty_batch_is_a_batch() -> None:
    assert batch_of(FHS + BHS + b"BTS|0\rFTS|1\r").messages == ()


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(FHS + BHS + ONE + TWO + OTHER + b"BTS|3\rFTS|1\r", id="messages"),
        pytest.param(FHS + BHS * 20, id="lines around messages"),
        pytest.param(b"FHS\r" * 500_000, id="a whole frame of such lines"),
    ],
)
def test_a_batch_over_the_limit_is_an_error_before_it_is_taken_apart(payload: bytes) -> None:
    with pytest.raises(BatchTooLongError):
        split(payload, messages_max=2)


def test_a_batch_at_the_limit_is_taken_whatever_stands_around_its_messages() -> None:
    payload = FHS + BHS + ONE + b"BTS|1\r" + BHS + TWO + b"BTS|1\rFTS|2\r"
    batch = split(payload, messages_max=2)
    assert batch is not None
    assert len(batch.messages) == 2


def test_one_batch_acknowledgment_mirrors_the_headers_and_holds_every_answer_in_its_batch() -> None:
    batch = batch_of(FHS + BHS + ONE + b"BTS|1\r" + BHS + TWO + OTHER + b"BTS|2\rFTS|2\r")
    acks = [
        acknowledge(read_header(message), Verdict(code=AckCode.AA), now=NOW, control_id=f"H{number}")
        for number, message in enumerate(batch.messages)
    ]
    reply = answer(batch, acks, now=NOW, control_id="B1")
    lines = reply.split(b"\r")
    assert lines[0] == b"FHS|^~\\&|HANDOFF|CRM|REG^1|HOSP|20240612083015+0000||||B1|FILE-7"
    assert lines[1] == b"BHS|^~\\&|HANDOFF|CRM|REG^1|HOSP|20240612083015+0000||||B1-1|BATCH-9"
    assert [line for line in lines if line[:3] in {b"BTS", b"FTS"}] == [b"BTS|1", b"BTS|2", b"FTS|2"]
    back = batch_of(reply)
    assert back.deviations == ()
    assert [len(group.messages) for group in back.groups] == [1, 2]
    assert [parse_ack(ack).control_id for ack in back.messages] == [b"1", b"2", b"3"]


def test_a_message_that_is_owed_no_answer_is_left_out_of_the_batch_acknowledgment() -> None:
    batch = batch_of(BHS + ONE + TWO + b"BTS|2\r")
    ack = acknowledge(read_header(TWO), Verdict(code=AckCode.AA), now=NOW, control_id="H")
    back = batch_of(answer(batch, [b"", ack], now=NOW, control_id="B1"))
    assert [parse_ack(one).control_id for one in back.messages] == [b"2"]
    assert back.deviations == ()


@pytest.mark.parametrize(
    "content",
    [
        ONE + TWO,
        b"\r\n" + ONE + b"\r\n" + TWO,
        BHS + ONE + TWO + b"BTS|2\r",
        wrap(ONE) + wrap(TWO),
        b"2024-06-12 08:30 IN " + wrap(ONE) + b"\n2024-06-12 08:31 IN " + wrap(TWO) + b"\n",
        wrap(BHS + ONE + TWO + b"BTS|2\r"),
        b"\x0b" + ONE + b"\x1c\x0b" + TWO + b"\x1c",
    ],
)
def test_a_file_of_messages_a_batch_and_a_framed_capture_hold_the_same_messages(content: bytes) -> None:
    assert [read_header(message).control_id for message in messages_in(content)] == ["1", "2"]


def test_a_file_without_a_message_is_one_unreadable_message() -> None:
    assert messages_in(b"hello\r") == [b"hello\r"]


def test_text_before_the_first_message_of_a_file_is_not_lost() -> None:
    assert messages_in(b"note\r" + ONE + TWO) == [b"note\r" + ONE, TWO]


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "messages").glob("*.hl7")), ids=lambda path: path.stem
)
def test_a_file_with_one_message_comes_back_byte_for_byte(path: Path) -> None:
    assert messages_in(path.read_bytes()) == [path.read_bytes()]


@given(
    st.lists(
        st.sampled_from([FHS, BHS, ONE, TWO, OTHER, b"BTS|1\r", b"FTS|1\r", b"\n", b"x", b"FHS", b"\x0b", b"\x1c\r"]),
        max_size=12,
    )
)
def test_no_order_of_pieces_raises_or_loses_a_message(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    batch = split(content)
    if batch is not None:
        assert b"".join(batch.messages).count(b"PID") == content.count(b"PID")
        answer(batch, [b""] * len(batch.messages), now=NOW, control_id="B")
    if b"\x0b" not in pieces:
        assert b"".join(messages_in(content)).count(b"PID") == content.count(b"PID")


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
@pytest.mark.parametrize("indent", [b"", b" ", b"    ", b"\t", b" " * 40])
def test_indented_messages_in_a_file_are_messages_of_their_own(indent: bytes, end: bytes) -> None:
    content = b"".join(indent + line + end for message in (ONE, TWO) for line in message.split(b"\r")[:-1])
    found = messages_in(content)
    assert [read_header(message).control_id for message in found] == ["1", "2"]
    assert [Message.parse(message).get("PID-3") for message in found] == ["7", "8"]


def test_a_0b_inside_of_a_text_makes_no_capture_of_a_file() -> None:
    content = ONE + b"NTE|1||soft\x0breturn\r" + TWO
    assert [read_header(message).control_id for message in messages_in(content)] == ["1", "2"]
    assert messages_in(wrap(ONE) + b"\r\n" + wrap(TWO)) == [ONE, TWO]
    assert messages_in(b"\n" + wrap(b"hello")) == [b"hello"]
