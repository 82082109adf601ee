"""docs/hl7.md, Framing: what senders do to frames, and what becomes of it, over real sockets and a real store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from wire import END, START, Feed, Sender, adt, code, codes, eventually, fields, frame


async def test_a_message_is_stored_and_then_answered_aa(feed: Feed, sender: Sender) -> None:
    answer = await sender.exchange(adt("77"))
    assert code(answer) == "AA"
    assert fields(answer, "MSA")[2] == "77"
    (entry,) = feed.entries()
    assert entry.payload == adt("77")


async def test_a_frame_split_at_any_byte_is_one_message(feed: Feed, sender: Sender) -> None:
    data = frame(adt("1"))
    for at in range(1, len(data)):
        await sender.write(data[:at])
        await asyncio.sleep(0.001)
        await sender.write(data[at:])
        assert code(await sender.answer()) == "AA"
    assert {entry.payload for entry in feed.entries()} == {adt("1")}


async def test_pipelined_frames_are_all_answered_in_order(feed: Feed, sender: Sender) -> None:
    await sender.write(*(frame(adt(str(number))) for number in range(500)))
    answers = [await sender.answer() for _ in range(500)]
    assert [fields(answer, "MSA")[2] for answer in answers] == [str(number) for number in range(500)]
    assert len(feed.entries()) == 500


async def test_pipelined_frames_that_are_refused_keep_their_place_among_the_accepted(sender: Sender) -> None:
    wanted = ["AA", "AR", "AA", "AE", "AA"]
    await sender.write(
        frame(adt("1")), frame(adt("2", version="9.9")), frame(adt("3")), frame(adt("")), frame(adt("5"))
    )
    answers = [await sender.answer() for _ in wanted]
    assert codes(answers) == wanted
    assert [fields(answer, "MSA")[2] for answer in answers] == ["1", "2", "3", "", "5"]


@pytest.mark.parametrize("junk", [b"\r\n", b"\n", b"\x00\x00", b"GET / HTTP/1.1\r\n\r\n", "\ufeff".encode()])
async def test_junk_between_frames_is_counted_and_recorded_as_a_deviation(
    feed: Feed, sender: Sender, junk: bytes
) -> None:
    await sender.write(junk, frame(adt("1")), junk, frame(adt("2")))
    assert codes([await sender.answer(), await sender.answer()]) == ["AA", "AA"]
    assert feed.counts.junk_bytes == 2 * len(junk)
    assert all("junk-before-frame" in entry.deviations for entry in feed.entries())
    assert feed.counts.deviations["junk-before-frame"] == 2


async def test_a_byte_order_mark_inside_a_frame_is_accepted_and_recorded(feed: Feed, sender: Sender) -> None:
    payload = "\ufeff".encode() + adt("1")
    assert code(await sender.exchange(payload)) == "AA"
    (entry,) = feed.entries()
    assert entry.payload == payload
    assert "byte-order-mark" in entry.deviations


@pytest.mark.parametrize(
    ("data", "answered", "stored"),
    [
        pytest.param(b"left over\r\n" + frame(adt("1")), ["1"], [adt("1")], id="junk that is left over"),
        pytest.param(frame(adt("1") + b"NTE|1||" + b"x" * 70_000), ["1"], None, id="a message of 70 kB"),
        pytest.param(frame(adt("1", pid="PID|1||5||M\u00dcLLER")), ["1"], None, id="a byte that is not ASCII"),
        pytest.param(START + adt("1") + END + frame(adt("2")), ["1", "2"], [adt("1"), adt("2")], id="1C without 0D"),
        pytest.param(START + adt("1")[:80] + frame(adt("2")), ["2"], [adt("2")], id="a frame that was cut off"),
        pytest.param(frame(adt("1")) + frame(adt("2")), ["1", "2"], [adt("1"), adt("2")], id="two frames in a packet"),
    ],
)
async def test_what_other_servers_lose_merge_or_break_at_is_stored_and_answered_once_each(
    feed: Feed, sender: Sender, data: bytes, answered: list[str], stored: list[bytes] | None
) -> None:
    await sender.write(data)
    answers = [await sender.answer() for _ in answered]
    assert [(code(answer), fields(answer, "MSA")[2]) for answer in answers] == [("AA", one) for one in answered]
    assert await sender.silent()
    assert [entry.payload for entry in feed.entries()] == (stored or [data[1:-2]])
    assert code(await sender.exchange(adt("9"))) == "AA"


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
async def test_other_segment_terminators_are_accepted(sender: Sender, end: bytes) -> None:
    assert code(await sender.exchange(adt("1").replace(b"\r", end))) == "AA"


async def test_a_missing_final_cr_is_accepted(feed: Feed, sender: Sender) -> None:
    assert code(await sender.exchange(adt("1").rstrip(b"\r"))) == "AA"
    assert feed.entries()[0].payload == adt("1").rstrip(b"\r")


async def test_an_end_without_cr_is_complete_after_a_moment(feed: Feed, sender: Sender) -> None:
    await sender.write(START, adt("1"), END)
    assert code(await sender.answer()) == "AA"
    await sender.write(frame(adt("2")))
    assert fields(await sender.answer(), "MSA")[2] == "2"
    assert "end-without-cr" in feed.entries()[0].deviations


async def test_an_end_without_cr_before_the_next_frame_loses_neither(sender: Sender) -> None:
    await sender.write(START, adt("1"), END, frame(adt("2")))
    answers = [await sender.answer(), await sender.answer()]
    assert [fields(answer, "MSA")[2] for answer in answers] == ["1", "2"]


async def test_an_end_without_cr_at_the_end_of_the_connection_is_answered(sender: Sender) -> None:
    await sender.write(START, adt("1"), END)
    sender.writer.write_eof()
    assert code(await sender.answer()) == "AA"
    assert await sender.closed()


async def test_a_start_inside_a_frame_discards_the_partial_one_and_never_acknowledges_it(
    feed: Feed, sender: Sender
) -> None:
    await sender.write(START, adt("1")[:60], frame(adt("2")))
    answer = await sender.answer()
    assert fields(answer, "MSA")[2] == "2"
    assert await sender.silent()
    assert [entry.payload for entry in feed.entries()] == [adt("2")]
    assert feed.counts.partial_frames == 1


async def test_a_frame_cut_off_by_the_end_of_the_connection_is_counted_and_not_stored(
    feed: Feed, sender: Sender
) -> None:
    await sender.write(START, adt("1")[:60])
    sender.writer.write_eof()
    assert await sender.closed()
    assert feed.entries() == []
    assert feed.counts.partial_frames == 1


async def test_declared_delimiters_are_used_in_the_answer(sender: Sender) -> None:
    odd = adt("1").replace(b"|", b"!").replace(b"^~\\&", b"*@/+").replace(b"^", b"*")
    answer = await sender.exchange(odd)
    assert answer.startswith(b"MSH!*@/+!")
    assert b"MSA!AA!1" in answer


async def test_the_truncation_character_is_accepted(sender: Sender) -> None:
    assert code(await sender.exchange(adt("1", version="2.7").replace(b"^~\\&", b"^~\\&#"))) == "AA"


async def test_a_missing_structure_and_a_lower_case_event_are_deviations_not_errors(feed: Feed, sender: Sender) -> None:
    assert code(await sender.exchange(adt("1", type="adt^a01"))) == "AA"
    deviations = feed.entries()[0].deviations
    assert "event-case" in deviations
    assert "message-structure-missing" in deviations


async def test_over_long_fields_and_bytes_of_no_charset_are_kept_as_they_came(feed: Feed, sender: Sender) -> None:
    payload = adt("1") + b"NTE|1||" + b"\xfc\xe9\x80" * 30_000 + b"\r"
    assert code(await sender.exchange(payload)) == "AA"
    assert feed.entries()[0].payload == payload


async def test_a_frame_over_the_limit_is_answered_and_its_bytes_up_to_the_limit_are_kept(make_feed) -> None:
    feed = await make_feed(listen={"frame_bytes_max": 1024})
    sender = await feed.sender()
    payload = adt("1") + b"NTE|1||" + b"X" * 5000 + b"\r"
    answer = await sender.exchange(payload)
    assert code(answer) == "AR"
    assert fields(answer, "MSA")[2] == "1"
    assert fields(answer, "ERR")[3].startswith("104^")
    (entry,) = feed.entries()
    assert entry.payload == payload[:1024]
    assert entry.refusal is not None
    assert code(await sender.exchange(adt("2"))) == "AA"


async def test_a_frame_over_the_limit_is_answered_cr_in_enhanced_mode(make_feed) -> None:
    feed = await make_feed(listen={"frame_bytes_max": 1024})
    sender = await feed.sender()
    assert code(await sender.exchange(adt("1", accept="AL") + b"NTE|1||" + b"X" * 5000 + b"\r")) == "CR"


@pytest.mark.parametrize("payload", [b"", b"hello", b"\x00\x01\x02", b"PID|1||5", b"MSH", b"MSH|", b"MSH\x07\x07\x07"])
async def test_a_payload_that_cannot_be_read_is_kept_and_answered_with_an_empty_msa_2(
    feed: Feed, sender: Sender, payload: bytes
) -> None:
    answer = await sender.exchange(payload)
    assert code(answer) in {"AR", "AE"}
    assert fields(answer, "MSA")[2] == ""
    (entry,) = feed.entries()
    assert entry.payload == payload
    assert entry.refusal is not None


async def test_a_missing_control_id_is_refused_101_with_an_empty_msa_2(feed: Feed, sender: Sender) -> None:
    answer = await sender.exchange(adt(""))
    assert code(answer) == "AE"
    assert fields(answer, "MSA")[2] == ""
    assert fields(answer, "ERR")[3].startswith("101^")
    assert feed.entries()[0].refusal.location == "MSH-10"


async def test_two_messages_in_one_frame_are_refused_and_not_merged(feed: Feed, sender: Sender) -> None:
    answer = await sender.exchange(adt("1") + adt("2"))
    assert code(answer) == "AE"
    assert feed.entries()[0].payload == adt("1") + adt("2")


async def test_commit_blocks_of_mllp_release_2_when_the_channel_speaks_them(make_feed) -> None:
    feed = await make_feed(listen={"commit_blocks": True})
    sender = await feed.sender()
    await sender.send(adt("1"))
    assert await sender.answer() == b"\x06"
    assert code(await sender.answer()) == "AA"
    await sender.write(frame(b"\x06"))  # the sender commits our answer: no message
    assert await sender.silent()
    assert len(feed.entries()) == 1


async def test_without_commit_blocks_none_is_sent(sender: Sender) -> None:
    assert code(await sender.exchange(adt("1"))) == "AA"


async def test_a_half_closed_peer_still_gets_all_its_answers(feed: Feed, sender: Sender) -> None:
    await sender.write(*(frame(adt(str(number))) for number in range(200)))
    sender.writer.write_eof()
    assert codes([await sender.answer() for _ in range(200)]) == ["AA"] * 200
    assert await sender.closed()
    assert all(entry.ack_state == "sent" for entry in await feed.settled())


async def test_an_answer_whose_sender_is_gone_is_recorded_as_unsent(make_feed) -> None:
    feed = await make_feed(ack={"when": "processed"})
    sender = await feed.sender()
    await sender.send(adt("1"))
    await eventually(feed.entries)
    sender.abort()
    await eventually(lambda: not feed.listener.connections)
    await feed.process()
    assert [entry.ack_state for entry in await feed.settled()] == ["unsent"]


async def test_an_answer_that_went_out_is_recorded_as_sent(feed: Feed, sender: Sender) -> None:
    await sender.exchange(adt("1"))
    assert [(entry.ack, entry.ack_state) for entry in await feed.settled()] == [("AA", "sent")]


WIDE = ["utf-16-le", "utf-16-be", "utf-16", "utf-32-le", "utf-32-be"]
CUT_BY_ITS_BYTES = "\u0d1c\u0410\u0414\u0410\u041c^\u0b95\u0b4d\u1c0d\u0d0a\u1c1c"  # 1C 0D, 1C 00, 0B, 1C 0A ...


@pytest.mark.parametrize("encoding", WIDE)
async def test_a_message_in_utf_16_or_utf_32_is_refused_once_and_kept_whole(
    feed: Feed, sender: Sender, encoding: str
) -> None:
    payload = adt("7", pid=f"PID|1||81^^^MRN^MR||{CUT_BY_ITS_BYTES}").decode().encode(encoding)
    answer = await sender.exchange(payload)
    assert (code(answer), fields(answer, "MSA")[2], fields(answer, "ERR")[3].split("^")[0]) == ("AR", "7", "102")
    assert fields(answer, "ERR")[5] == "charset-not-accepted^^L"
    assert fields(answer, "ERR")[2] == "MSH^1^18"
    assert code(await sender.exchange(adt("8"))) == "AA"
    refused, taken = feed.entries()
    assert (refused.payload, taken.payload) == (payload, adt("8"))
    assert refused.refusal is not None


async def test_a_message_in_utf_16_that_comes_slowly_is_answered_once_and_nothing_of_it_is_lost_or_taken(
    feed: Feed, sender: Sender
) -> None:
    payload = adt("7", pid=f"PID|1||81^^^MRN^MR||{CUT_BY_ITS_BYTES}").decode().encode("utf-16-le")
    at = payload.index(b"\x1c\r") + 2
    await sender.write(START, payload[:at])
    assert code(await sender.answer()) == "AR"
    await sender.write(payload[at:], END, b"\r")
    await eventually(lambda: len(feed.entries()) == 2)
    assert code(await sender.exchange(adt("8"))) == "AA"
    first, rest, taken = await feed.settled()
    assert first.payload + END + b"\r" + rest.payload == payload
    assert (rest.refusal is not None, rest.ack, rest.ack_state) == (True, None, "not_owed")
    assert taken.payload == adt("8")


async def test_messages_in_utf_16_that_are_pipelined_are_each_refused(feed: Feed, sender: Sender) -> None:
    wide = [adt(str(number)).decode().encode("utf-16-be") for number in range(3)]
    await sender.write(*map(frame, wide), frame(adt("9")))
    assert codes([await sender.answer() for _ in range(4)]) == ["AR", "AR", "AR", "AA"]
    assert [entry.payload for entry in feed.entries()] == [*wide, adt("9")]


async def test_a_message_in_utf_16_that_the_connection_cuts_off_is_kept(feed: Feed, sender: Sender) -> None:
    payload = adt("7").decode().encode("utf-16")[:200]
    await sender.write(START, payload)
    sender.writer.write_eof()
    assert code(await sender.answer()) == "AR"
    assert [entry.payload for entry in feed.entries()] == [payload]


@pytest.mark.parametrize("declared", ["UNICODE UTF-16", "UNICODE UTF-32", "ISO IR 10646-UCS-2", "UTF-16LE"])
async def test_a_message_that_says_it_is_in_utf_16_is_refused_whatever_its_bytes(
    make_feed: Callable[..., Awaitable[Feed]], declared: str
) -> None:
    feed = await make_feed()
    sender = await feed.sender()
    payload = adt("7").replace(b"|2.5.1||||\r", f"|2.5.1||||||{declared}\r".encode())
    answer = await sender.exchange(payload)
    assert (code(answer), fields(answer, "MSA")[2], fields(answer, "ERR")[3].split("^")[0]) == ("AR", "7", "102")


async def test_a_channel_that_forces_a_character_set_does_not_believe_msh_18(
    make_feed: Callable[..., Awaitable[Feed]],
) -> None:
    sender = await (await make_feed(charset={"force": "utf-8"})).sender()
    payload = adt("7").replace(b"|2.5.1||||\r", b"|2.5.1||||||UNICODE UTF-16\r")
    assert code(await sender.exchange(payload)) == "AA"
    assert code(await sender.exchange(adt("8").decode().encode("utf-16"))) == "AR"


@pytest.mark.parametrize("text", ["soft\x0breturn", "\x0b\x0b", "\x0bMSHA|x", "\x0b MS"])
async def test_a_0b_inside_of_a_text_does_not_cut_the_message(feed: Feed, sender: Sender, text: str) -> None:
    payload = adt("1") + f"NTE|1||{text}\r".encode()
    data = frame(payload)
    for at in (data.index(b"\x0b", 1) + 1, data.index(b"\x0b", 1), len(data) - 3):
        await sender.write(data[:at])
        await asyncio.sleep(0.002)
        await sender.write(data[at:])
        assert code(await sender.answer()) == "AA"
    (entry,) = feed.entries()
    assert entry.payload == payload
    assert "start-byte-in-payload" in entry.deviations


async def test_a_message_without_a_version_is_taken_with_a_deviation(feed: Feed, sender: Sender) -> None:
    answer = await sender.exchange(adt("1", version=""))
    assert (code(answer), fields(answer, "MSH")[12]) == ("AA", "2.3")
    (entry,) = feed.entries()
    assert "version-missing" in entry.deviations


async def test_a_channel_says_which_version_stands_in(make_feed: Callable[..., Awaitable[Feed]]) -> None:
    accept = {"versions": ["2.1", "2.5.1"], "version_default": "2.1"}
    sender = await (await make_feed(accept=accept)).sender()
    assert fields(await sender.exchange(adt("1", version="")), "MSH")[12] == "2.1"
    strict = await (await make_feed(name="strict", accept={"versions": ["2.5.1"]})).sender()
    answer = await strict.exchange(adt("2", version=""))
    assert (code(answer), fields(answer, "ERR")[1].split("^")[3].split("&")[0]) == ("AR", "203")


@pytest.mark.parametrize("type_", ["ADT", "ADT^", "adt^ ", "ADT^^ADT_A03", 'ADT^""', "SIU", "MDM^^MDM_T02"])
async def test_a_message_type_of_events_without_its_event_is_refused_201(
    make_feed: Callable[..., Awaitable[Feed]], type_: str
) -> None:
    sender = await (await make_feed(accept={"types": ["*"]})).sender()
    answer = await sender.exchange(adt("1", type=type_))
    assert (code(answer), fields(answer, "ERR")[2]) == ("AR", "MSH^1^9^1^2")
    assert fields(answer, "ERR")[3].split("^")[0] == "201"
    assert code(await sender.exchange(adt("2", type="ORU^R01"))) == "AA"


@pytest.mark.parametrize("version", ["2.1", "2.2", ""])
async def test_an_old_message_has_its_event_in_evn_1(feed: Feed, sender: Sender, version: str) -> None:
    payload = adt("1", type="ADT", version=version).replace(b"EVN||", b"EVN|A03|")
    assert code(await sender.exchange(payload)) == "AA"
    assert code(await sender.exchange(adt("2", type="ADT", version=version))) == "AR"
    entry = feed.entries()[0]
    assert entry.summary.type == "ADT^A03"
    assert "event-from-evn" in entry.deviations


# --- 1C 0D inside of a message of single bytes ---

CUT = b"NTE|1||as he said"
REST = b"yesterday\rNTE|2||and today\r"


def cut_in_two(control_id: str) -> tuple[bytes, bytes]:
    return adt(control_id) + CUT, REST


@pytest.mark.parametrize(("how", "wanted"), [({}, "AE"), ({"ack": {"mode": "enhanced"}}, "CE")])
async def test_a_message_that_its_text_cut_is_refused_once_and_both_parts_are_kept(
    make_feed: Callable[..., Awaitable[Feed]], how: dict[str, object], wanted: str
) -> None:
    feed = await make_feed(**how)
    sender = await feed.sender()
    first, rest = cut_in_two("7")
    await sender.write(START, first, END, b"\r", rest, END, b"\r", frame(adt("8")))
    answers = [await sender.answer(), await sender.answer()]
    assert [fields(answer, "MSA")[1:3] for answer in answers] == [[wanted, "7"], [wanted[0] + "A", "8"]]
    assert fields(answers[0], "ERR")[5].startswith("frame-cut^")
    assert await sender.silent()
    refused, kept, taken = await feed.settled()
    assert [one.payload for one in (refused, kept, taken)] == [first, rest, adt("8")]
    assert [one.refusal.error if one.refusal else None for one in (refused, kept, taken)] == [
        "frame-cut",
        "frame-rest",
        None,
    ]
    assert (kept.ack, kept.ack_state) == (None, "not_owed")
    assert kept.summary == refused.summary, "it is found under the control id of the message that it belongs to"
    assert feed.counts.refused == {"frame-cut": 1, "frame-rest": 1}


async def test_a_rest_that_comes_after_the_answer_is_kept_under_its_message(feed: Feed, sender: Sender) -> None:
    first, rest = cut_in_two("7")
    assert code(await sender.exchange(first)) == "AA"
    await sender.write(rest, END, b"\r")
    await eventually(lambda: len(feed.entries()) == 2)
    assert code(await sender.exchange(adt("8"))) == "AA"
    taken, kept, _ = await feed.settled()
    assert (taken.refusal, kept.payload) == (None, rest)
    assert kept.refusal is not None
    assert (kept.refusal.error, kept.summary.control_id) == ("frame-rest", "7")


@pytest.mark.parametrize("end", ["half closed", "reset", "drained"])
async def test_a_rest_is_kept_however_its_connection_ends(feed: Feed, sender: Sender, end: str) -> None:
    first, rest = cut_in_two("7")
    assert code(await sender.exchange(first)) == "AA"
    await sender.write(rest)
    await eventually(lambda: any(one.unfinished for one in feed.listener.connections) or len(feed.entries()) == 2)
    if end == "half closed":
        sender.writer.write_eof()
    elif end == "reset":
        sender.abort()
    else:
        assert await feed.listener.drain(5)
    await eventually(lambda: len(feed.entries()) == 2)
    assert [entry.payload for entry in feed.entries()] == [first, rest]


async def test_of_a_batch_that_its_text_cut_the_last_message_alone_is_refused(feed: Feed, sender: Sender) -> None:
    first, rest = cut_in_two("2")
    await sender.write(START, b"BHS|^~\\&|A\r", adt("1"), first, END, b"\r", rest, b"BTS|2\r", END, b"\r")
    assert codes([await sender.answer(), await sender.answer()]) == ["AA", "AE"]
    await eventually(lambda: len(feed.entries()) == 3)
    assert [entry.refusal.error if entry.refusal else None for entry in feed.entries()] == [
        None,
        "frame-cut",
        "frame-rest",
    ]


async def test_a_message_that_is_refused_for_another_reason_is_told_that_one(feed: Feed, sender: Sender) -> None:
    await sender.write(START, adt("7", version="9.9").rstrip(b"\r"), END, b"\r", REST, END, b"\r")
    answer = await sender.answer()
    assert fields(answer, "ERR")[5].startswith("version-not-accepted^")
    await eventually(lambda: len(feed.entries()) == 2)


async def test_a_message_without_its_start_block_is_kept_and_not_answered(feed: Feed, sender: Sender) -> None:
    await sender.write(frame(adt("1")), adt("2"), END, b"\r", frame(adt("3")))
    answers = [await sender.answer(), await sender.answer()]
    assert [(code(answer), fields(answer, "MSA")[2]) for answer in answers] == [("AA", "1"), ("AA", "3")]
    assert [entry.payload for entry in feed.entries()] == [adt("1"), adt("2"), adt("3")]
