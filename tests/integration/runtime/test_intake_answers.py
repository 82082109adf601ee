"""docs/hl7.md, Acknowledgments and what follows it: which answer, when, and with what in it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest
from wire import END, START, Feed, Sender, adt, code, codes, eventually, fields, frame

from engine.domain.message import AckCode

MakeFeed = Callable[..., Awaitable[Feed]]


async def test_original_mode_when_msh_15_and_16_are_empty(sender: Sender) -> None:
    assert code(await sender.exchange(adt("1"))) == "AA"


@pytest.mark.parametrize(
    ("accept", "application", "good", "bad"),
    [
        ("AL", "NE", ["CA"], ["CR"]),
        ("NE", "NE", [], []),
        ("ER", "NE", [], ["CR"]),
        ("SU", "NE", ["CA"], []),
        ("AL", "AL", ["CA", "AA"], ["CR"]),
        ("NE", "AL", ["AA"], ["AR"]),
        ("NE", "ER", [], ["AR"]),
        ("NE", "SU", ["AA"], []),
        ("ER", "SU", ["AA"], ["CR"]),
        ("SU", "ER", ["CA"], ["AR"]),
        ("", "AL", ["AA"], ["AR"]),
        ("AL", "", ["CA"], ["CR"]),
    ],
)
async def test_enhanced_mode_takes_msh_15_and_msh_16_each_by_itself(
    feed: Feed, sender: Sender, accept: str, application: str, good: list[str], bad: list[str]
) -> None:
    await sender.send(adt("1", accept=accept, application=application))
    await eventually(feed.entries)
    await feed.process()
    assert codes([await sender.answer() for _ in good]) == good
    await sender.send(adt("2", accept=accept, application=application, version="9.9"))
    assert codes([await sender.answer() for _ in bad]) == bad
    assert await sender.silent()


async def test_an_application_error_is_told_after_processing_when_msh_16_asks_for_it(
    feed: Feed, sender: Sender
) -> None:
    await sender.send(adt("1", accept="AL", application="ER"))
    accept = await sender.answer()
    await feed.process(AckCode.AE)
    application = await sender.answer()
    assert codes([accept, application]) == ["CA", "AE"]
    assert fields(application, "MSA")[2] == "1"
    assert fields(application, "ERR")[3].startswith("101^")
    assert fields(accept, "MSH")[10] != fields(application, "MSH")[10]


async def test_the_application_ack_of_a_success_is_not_sent_when_only_errors_were_asked_for(
    feed: Feed, sender: Sender
) -> None:
    await sender.send(adt("1", accept="NE", application="ER"))
    await eventually(feed.entries)
    await feed.process()
    assert await sender.silent()


async def test_the_application_ack_goes_to_the_return_address_when_there_is_one(make_feed: MakeFeed) -> None:
    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            got.put_nowait(data)
        writer.close()

    server = await asyncio.start_server(receive, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    feed = await make_feed(ack={"return_to": {"host": "127.0.0.1", "port": port}})
    sender = await feed.sender()
    assert code(await sender.exchange(adt("1", accept="AL", application="AL"))) == "CA"
    await feed.process()
    returned = await asyncio.wait_for(got.get(), 60)
    assert returned.startswith(START)
    assert returned.endswith(END + b"\r")
    assert code(returned[1:-2]) == "AA"
    assert await sender.silent()
    server.close()


async def test_whether_the_only_answer_reached_its_return_address_is_recorded(make_feed: MakeFeed) -> None:
    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.put_nowait(await reader.read(4096))
        writer.close()

    server = await asyncio.start_server(receive, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    feed = await make_feed(ack={"return_to": {"host": "127.0.0.1", "port": port}})
    sender = await feed.sender()
    await sender.send(adt("1", accept="NE", application="AL"))
    await eventually(feed.entries)
    await feed.process()
    assert code((await asyncio.wait_for(got.get(), 60))[1:-2]) == "AA"
    assert [(entry.ack, entry.ack_state) for entry in await feed.settled()] == [("AA", "sent")]
    server.close()
    await server.wait_closed()
    await sender.send(adt("2", accept="NE", application="AL"))
    await eventually(lambda: len(feed.entries()) == 2)
    await feed.process()
    assert [entry.ack_state for entry in await feed.settled()] == ["sent", "unsent"]
    assert feed.counts.unsent == 1


async def test_an_application_ack_that_missed_its_sender_comes_with_the_answer_to_its_resend(
    feed: Feed, sender: Sender
) -> None:
    accept = await sender.exchange(adt("1", accept="AL", application="AL"))
    sender.abort()
    await eventually(lambda: not feed.listener.connections)
    await feed.process()
    await eventually(lambda: feed.counts.unsent == 1)
    back = await feed.sender()
    assert await back.silent()  # it is never given to a connection that did not ask
    assert await back.exchange(adt("1", accept="AL", application="AL")) == accept
    assert code(await back.answer()) == "AA"
    assert len(feed.entries()) == 1


@pytest.mark.parametrize(
    ("message", "expected", "error", "location"),
    [
        (adt("1", type="ORU^R01"), "AR", "200", "MSH-9.1"),
        (adt("1", type="ADT^A99"), "AR", "201", "MSH-9.2"),
        (adt("1", processing_id="T"), "AR", "202", "MSH-11"),
        (adt("1", version="9.9"), "AR", "203", "MSH-12"),
        (adt("1", type=""), "AR", "101", "MSH-9"),
    ],
)
async def test_unacceptable_type_event_processing_id_or_version_is_refused_with_its_code(
    make_feed: MakeFeed, message: bytes, expected: str, error: str, location: str
) -> None:
    feed = await make_feed(accept={"types": ["ADT^A01", "ADT^A03"]})
    sender = await feed.sender()
    answer = await sender.exchange(message)
    assert code(answer) == expected
    assert fields(answer, "ERR")[3].split("^")[0] == error
    refusal = feed.entries()[0].refusal
    assert refusal is not None
    assert refusal.location == location
    enhanced = await sender.exchange(message.replace(b"|1|", b"|2|", 1).replace(b"\rEVN", b"|||AL|\rEVN", 1))
    assert code(enhanced) in {"CR", "AR"}


async def test_enhanced_mode_refuses_type_version_and_processing_id_cr_and_all_else_ce(
    feed: Feed, sender: Sender
) -> None:
    for number, bad in enumerate(({"type": "ORU^R01"}, {"version": "9.9"}, {"processing_id": "T"})):
        assert code(await sender.exchange(adt(str(number), accept="AL", **bad))) == "CR"
    assert code(await sender.exchange(adt("", accept="AL"))) == "CE"


@pytest.mark.parametrize(("pattern", "taken"), [("ADT^*", True), ("*", True), ("ADT", True), ("ORU^*", False)])
async def test_types_may_be_accepted_by_wildcard(make_feed: MakeFeed, pattern: str, taken: bool) -> None:
    feed = await make_feed(accept={"types": [pattern]})
    assert (code(await (await feed.sender()).exchange(adt("1"))) == "AA") is taken


async def test_an_acknowledgment_is_stored_and_never_acknowledged(make_feed: MakeFeed) -> None:
    feed = await make_feed(accept={"types": ["*"]})
    sender = await feed.sender()
    await sender.send(b"MSH|^~\\&|A|B|C|D|20260101||ACK^A01^ACK|1|P|2.5.1|||AL|AL\rMSA|AA|77\r")
    assert await sender.silent()
    (entry,) = feed.entries()
    assert (entry.ack, entry.ack_state) == (None, "not_owed")
    assert code(await sender.exchange(adt("2"))) == "AA"


async def test_a_refused_acknowledgment_is_not_answered_either(feed: Feed, sender: Sender) -> None:
    await sender.send(b"MSH|^~\\&|A|B|C|D|20260101||ACK|1|P|2.5.1\rMSA|AA|77\r")
    assert await sender.silent()
    assert feed.entries()[0].refusal is not None


async def test_a_channel_of_mode_none_stores_and_answers_nothing(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"mode": "none"})
    sender = await feed.sender()
    await sender.write(frame(adt("1")), frame(b"garbage"), frame(adt("2", accept="AL", application="AL")))
    await eventually(lambda: len(feed.entries()) == 3)
    await feed.process()
    assert await sender.silent()
    assert {entry.ack_state for entry in feed.entries()} == {"not_owed"}


async def test_a_channel_of_mode_enhanced_answers_a_sender_without_msh_15_by_ca(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"mode": "enhanced"})
    sender = await feed.sender()
    assert code(await sender.exchange(adt("1"))) == "CA"
    assert code(await sender.exchange(b"garbage")) == "CE"


async def test_a_channel_of_mode_original_ignores_msh_15_and_16(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"mode": "original"})
    assert code(await (await feed.sender()).exchange(adt("1", accept="NE", application="NE"))) == "AA"


async def test_a_paused_channel_accepts_and_answers(make_feed: MakeFeed) -> None:
    feed = await make_feed(mode="paused")
    assert code(await (await feed.sender()).exchange(adt("1"))) == "AA"
    assert len(feed.entries()) == 1


# --- when: processed -------------------------------------------------------------------------------------------------


async def test_a_channel_may_answer_only_after_processing(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"when": "processed"})
    sender = await feed.sender()
    await sender.send(adt("1"))
    await eventually(feed.entries)
    assert await sender.silent()
    await feed.process()
    assert code(await sender.answer()) == "AA"
    assert [(entry.ack, entry.ack_state) for entry in await feed.settled()] == [("AA", "sent")]


async def test_after_processing_an_error_is_answered_ae_with_its_code(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"when": "processed"})
    sender = await feed.sender()
    await sender.send(adt("1"))
    await eventually(feed.entries)
    await feed.process(AckCode.AE)
    answer = await sender.answer()
    assert code(answer) == "AE"
    assert fields(answer, "ERR")[3].startswith("101^")
    assert [(entry.ack, entry.ack_state) for entry in await feed.settled()] == [("AE", "sent")]


async def test_without_an_outcome_in_time_the_sender_is_told_ar_and_gets_the_outcome_when_it_resends(
    make_feed: MakeFeed,
) -> None:
    feed = await make_feed(ack={"when": "processed", "processed_seconds_max": 0.3})
    sender = await feed.sender()
    late = await sender.exchange(adt("1"))
    assert code(late) == "AR"
    assert fields(late, "ERR")[3].startswith("207^")
    await feed.process()
    async with asyncio.timeout(60):
        while (said := code(await sender.exchange(adt("1")))) == "AR":  # the machine was too slow even for this
            pass
    assert said == "AA"
    assert len(feed.entries()) == 1


async def test_outcomes_are_found_without_a_hint(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"when": "processed"})
    feed.intake.late.have_outcomes = lambda *_: None  # type: ignore[method-assign]
    sender = await feed.sender()
    await sender.send(adt("1"))
    await eventually(feed.entries)
    await feed.process()
    assert code(await sender.answer()) == "AA"


async def test_answers_after_processing_keep_the_order_of_arrival(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"when": "processed"})
    sender = await feed.sender()
    await sender.write(frame(adt("1")), frame(adt("2", version="9.9")), frame(adt("3")))
    await eventually(lambda: len(feed.entries()) == 3)
    assert await sender.silent()  # the refusal of the second waits for the first
    await feed.process()
    answers = [await sender.answer() for _ in range(3)]
    assert [(code(answer), fields(answer, "MSA")[2]) for answer in answers] == [("AA", "1"), ("AR", "2"), ("AA", "3")]


# --- the answer itself -----------------------------------------------------------------------------------------------


async def test_the_answers_header_mirrors_the_senders(sender: Sender) -> None:
    header = fields(await sender.exchange(adt("A-1", sender="EPIC^1.2^ISO|MAIN^5^DNS")), "MSH")
    assert header[3:7] == ["HANDOFF", "CARE", "EPIC^1.2^ISO", "MAIN^5^DNS"]
    assert header[7].endswith("+0000")
    assert header[9] == "ACK^A01^ACK"
    assert header[11:13] == ["P", "2.5.1"]


async def test_each_answer_has_a_control_id_of_its_own(sender: Sender) -> None:
    answers = [await sender.exchange(adt(str(number))) for number in range(5)]
    answers += [await sender.exchange(b"garbage") for _ in range(2)]
    assert len({fields(answer, "MSH")[10] for answer in answers}) == 7


async def test_msa_2_is_the_senders_control_id_byte_for_byte(sender: Sender) -> None:
    odd = "a\\F\\b c\u00e9" * 40
    answer = await sender.exchange(adt(odd))
    assert f"MSA|AA|{odd}".encode() in answer


# --- duplicates ------------------------------------------------------------------------------------------------------


async def test_an_exact_duplicate_gets_the_stored_ack_again_byte_for_byte_and_no_second_entry(
    feed: Feed, sender: Sender
) -> None:
    first = await sender.exchange(adt("1"))
    await asyncio.sleep(1.1)  # another second: the answer's time must be the stored one
    other = await feed.sender()
    assert await other.exchange(adt("1")) == first
    assert len(feed.entries()) == 1
    assert feed.repeats() == 1
    assert feed.counts.duplicates == 1


async def test_duplicates_in_one_packet_are_one_entry_with_two_equal_answers(feed: Feed, sender: Sender) -> None:
    await sender.write(frame(adt("1")), frame(adt("1")))
    assert await sender.answer() == await sender.answer()
    assert len(feed.entries()) == 1


async def test_a_duplicate_after_processing_gets_the_same_answer_as_the_original(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"when": "processed"})
    sender = await feed.sender()
    await sender.send(adt("1"))
    await eventually(feed.entries)
    await feed.process(AckCode.AE)
    first = await sender.answer()
    assert await sender.exchange(adt("1")) == first
    assert len(feed.entries()) == 1


async def test_a_duplicate_that_comes_while_the_original_waits_gets_its_outcome_too(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"when": "processed"})
    sender, again = await feed.sender(), await feed.sender()
    await sender.send(adt("1"))
    await eventually(feed.entries)
    await again.send(adt("1"))
    await eventually(lambda: feed.repeats() == 1)
    await feed.process()
    assert await sender.answer() == await again.answer()


async def test_a_known_control_id_with_other_content_is_processed_and_flagged(feed: Feed, sender: Sender) -> None:
    await sender.exchange(adt("1"))
    assert code(await sender.exchange(adt("1", pid="PID|1||2^^^MRN^MR"))) == "AA"
    first, second = feed.entries()
    assert second.flagged_duplicate_of == first.id


async def test_a_channel_may_refuse_a_known_control_id_with_other_content_with_205(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"duplicate_conflict": "refuse"})
    sender = await feed.sender()
    await sender.exchange(adt("1"))
    answer = await sender.exchange(adt("1", pid="PID|1||2^^^MRN^MR"))
    assert code(answer) == "AE"
    assert fields(answer, "ERR")[3].startswith("205^")
    refused = await sender.exchange(adt("1", pid="PID|1||3^^^MRN^MR", accept="AL"))
    assert code(refused) == "CE"
    assert [entry.refusal is not None for entry in feed.entries()] == [False, True, True]


async def test_the_same_control_id_of_another_sender_is_another_message(feed: Feed, sender: Sender) -> None:
    await sender.exchange(adt("1"))
    await sender.exchange(adt("1", sender="CERNER|WEST"))
    assert [entry.flagged_duplicate_of for entry in feed.entries()] == [None, None]


async def test_a_message_that_was_refused_is_taken_when_it_is_sent_again_and_acceptable_then(
    feed: Feed, sender: Sender
) -> None:
    assert code(await sender.exchange(adt("1", processing_id="T"))) == "AR"
    feed.lane.configure(feed.channel.model_copy(update={"accept": type(feed.channel.accept)(processing_ids=("T",))}))
    assert code(await sender.exchange(adt("1", processing_id="T"))) == "AA"


async def test_a_storm_of_duplicates_is_one_entry_and_every_one_is_answered(feed: Feed) -> None:
    senders = [await feed.sender() for _ in range(10)]
    for sender in senders:
        await sender.write(frame(adt("1")) * 50)
    answers = {await sender.answer() for sender in senders for _ in range(50)}
    assert len(answers) == 1
    assert len(feed.entries()) == 1
    assert feed.repeats() == 499


async def test_each_of_many_senders_gets_the_answers_to_its_own_messages(feed: Feed) -> None:
    senders = [await feed.sender() for _ in range(12)]

    async def run(number: int, sender: Sender) -> list[str]:
        wanted = [f"{number}-{index}" for index in range(40)]
        got = [fields(await sender.exchange(adt(control_id)), "MSA")[2] for control_id in wanted]
        return [control_id for control_id, answer in zip(wanted, got, strict=True) if answer != control_id]

    assert await asyncio.gather(*(run(number, sender) for number, sender in enumerate(senders))) == [[]] * 12
    assert len(feed.entries()) == 480


async def test_a_sender_that_sends_much_at_once_does_not_hold_up_the_others(feed: Feed) -> None:
    gate = threading.Event()
    busy = feed.store.journal_ledger.submit(lambda _: gate.wait(30))  # the disk, as it were
    hasty, patient = await feed.sender(), await feed.sender()
    try:
        writing = asyncio.create_task(hasty.write(*(frame(adt(f"H{number}")) for number in range(3000))))
        await eventually(lambda: sum(feed.counts.received.values()) > 1000)
        await patient.send(adt("P", type="ADT^A08^ADT_A01"))
        await eventually(lambda: feed.counts.received["A08"] == 1)
    finally:
        gate.set()
    await busy
    assert code(await patient.answer()) == "AA"
    order = [entry.summary.control_id for entry in feed.entries()]
    assert order.index("P") < 600
    answers = [fields(await hasty.answer(), "MSA")[2] for _ in range(3000)]
    await writing
    assert answers == [f"H{number}" for number in range(3000)]


# --- sequence numbers ------------------------------------------------------------------------------------------------


@pytest.fixture
async def counted(make_feed: MakeFeed) -> Sender:
    return await (await make_feed(ack={"sequence_numbers": True})).sender()


def msa(answer: bytes) -> tuple[str, str]:
    parts = fields(answer, "MSA")
    return parts[1], parts[4] if len(parts) > 4 else ""


async def test_a_sequence_number_is_echoed_and_the_next_is_expected(counted: Sender) -> None:
    for number in (7, 8, 9):
        assert msa(await counted.exchange(adt(str(number), sequence=str(number)))) == ("AA", str(number))


@pytest.mark.parametrize("wrong", ["5", "12"])
async def test_a_wrong_sequence_number_is_answered_with_the_expected_one(counted: Sender, wrong: str) -> None:
    await counted.exchange(adt("7", sequence="7"))
    assert msa(await counted.exchange(adt("x", sequence=wrong))) == ("AE", "8")
    assert msa(await counted.exchange(adt("8", sequence="8"))) == ("AA", "8")


async def test_sequence_numbers_in_one_packet_are_checked_in_order(counted: Sender) -> None:
    await counted.write(*(frame(adt(str(number), sequence=str(number))) for number in (1, 2, 4, 3)))
    answers = [msa(await counted.answer()) for _ in range(4)]
    assert answers == [("AA", "1"), ("AA", "2"), ("AE", "3"), ("AA", "3")]


async def test_sequence_number_0_restarts_the_link_and_tells_what_is_expected(counted: Sender) -> None:
    assert msa(await counted.exchange(adt("s", sequence="0").split(b"\r")[0] + b"\r")) == ("AA", "-1")
    await counted.exchange(adt("7", sequence="7"))
    assert msa(await counted.exchange(adt("t", sequence="0").split(b"\r")[0] + b"\r")) == ("AA", "8")


async def test_sequence_number_minus_1_resynchronises_the_link(counted: Sender) -> None:
    await counted.exchange(adt("7", sequence="7"))
    assert msa(await counted.exchange(adt("s", sequence="-1").split(b"\r")[0] + b"\r")) == ("AA", "-1")
    assert msa(await counted.exchange(adt("100", sequence="100"))) == ("AA", "100")


async def test_a_resent_sequence_number_gets_the_stored_ack_again(counted: Sender) -> None:
    first = await counted.exchange(adt("7", sequence="7"))
    await counted.exchange(adt("8", sequence="8"))
    assert await counted.exchange(adt("7", sequence="7")) == first
    assert msa(await counted.exchange(adt("9", sequence="9"))) == ("AA", "9")


async def test_a_missing_sequence_number_is_refused_where_the_channel_needs_one(counted: Sender) -> None:
    answer = await counted.exchange(adt("7"))
    assert code(answer) == "AE"
    assert fields(answer, "ERR")[3].startswith("101^")


async def test_sequence_numbers_survive_a_restart(make_feed: MakeFeed) -> None:
    first = await make_feed(ack={"sequence_numbers": True})
    await (await first.sender()).exchange(adt("7", sequence="7"))
    await first.close()
    second = await make_feed(ack={"sequence_numbers": True})
    sender = await second.sender()
    assert msa(await sender.exchange(adt("9", sequence="9"))) == ("AE", "8")
    assert msa(await sender.exchange(adt("8", sequence="8"))) == ("AA", "8")


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
async def test_a_restart_of_the_link_that_carries_content_is_stored(make_feed: MakeFeed, end: bytes) -> None:
    feed = await make_feed(ack={"sequence_numbers": True})
    sender = await feed.sender()
    assert msa(await sender.exchange(adt("1", sequence="0").replace(b"\r", end))) == ("AA", "-1")
    assert len(feed.entries()) == 1
    assert msa(await sender.exchange(adt("2", sequence="0").split(b"\r")[0] + end)) == ("AA", "-1")
    assert len(feed.entries()) == 1


async def test_a_resynchronisation_behind_a_message_in_one_packet_counts_anew(counted: Sender) -> None:
    resync = adt("s", sequence="-1").split(b"\r")[0] + b"\r"
    await counted.write(frame(adt("7", sequence="7")), frame(resync))
    assert [msa(await counted.answer()) for _ in range(2)] == [("AA", "7"), ("AA", "-1")]
    assert msa(await counted.exchange(adt("100", sequence="100"))) == ("AA", "100")


async def test_the_sequence_number_of_a_refused_message_is_expected_again(counted: Sender) -> None:
    await counted.exchange(adt("7", sequence="7"))
    assert code(await counted.exchange(adt("8", sequence="8", version="9.9"))) == "AR"
    assert msa(await counted.exchange(adt("9", sequence="9"))) == ("AE", "8")
    assert msa(await counted.exchange(adt("8", sequence="8"))) == ("AA", "8")


# --- batches ---------------------------------------------------------------------------------------------------------


def batch(*messages: bytes) -> bytes:
    head = b"FHS|^~\\&|EPIC|MAIN|HANDOFF|CARE|||||F1\rBHS|^~\\&|EPIC|MAIN|HANDOFF|CARE|||||B1\r"
    return head + b"".join(messages) + b"BTS|%d\rFTS|1\r" % len(messages)


async def test_a_batch_is_answered_message_by_message(feed: Feed, sender: Sender) -> None:
    await sender.send(batch(adt("1"), adt("2", version="9.9"), adt("3")))
    answers = [await sender.answer() for _ in range(3)]
    assert [(code(answer), fields(answer, "MSA")[2]) for answer in answers] == [("AA", "1"), ("AR", "2"), ("AA", "3")]
    assert len(feed.entries()) == 3


async def test_a_batch_is_answered_by_one_batch_acknowledgment_when_the_channel_says_so(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"batch": "single"})
    sender = await feed.sender()
    answer = await sender.exchange(batch(adt("1"), adt("2")))
    assert fields(answer, "BHS")[12] == "B1"
    assert [line for line in answer.split(b"\r") if line.startswith(b"MSA")] == [b"MSA|AA|1", b"MSA|AA|2"]
    assert fields(answer, "BTS")[1] == "2"
    assert await sender.silent()


async def test_refusals_in_a_batch_are_each_answered_in_their_place(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"batch": "single"})
    sender = await feed.sender()
    acknowledgment = b"MSH|^~\\&|A|B|C|D|20260101||ACK|x|P|2.5.1\rMSA|AA|77\r"
    answer = await sender.exchange(
        batch(adt("1"), adt("2", version="9.9"), acknowledgment, adt("3"), b"MSH|^~\\&|\r", adt("1"))
    )
    lines = [line for line in answer.split(b"\r") if line.startswith(b"MSA")]
    assert [line.split(b"|")[1:3] for line in lines] == [
        [b"AA", b"1"], [b"AR", b"2"], [b"AA", b"3"], [b"AR", b""], [b"AA", b"1"],
    ]  # fmt: skip
    assert fields(answer, "BTS")[1] == "5"
    assert len(feed.entries()) == 5
    assert feed.repeats() == 1


async def test_all_messages_of_a_batch_are_stored_in_one_transaction_before_any_answer(
    feed: Feed, sender: Sender
) -> None:
    await sender.send(batch(*(adt(str(number)) for number in range(50))))
    await sender.answer()
    assert len(feed.entries()) == 50


async def test_a_batch_with_a_wrong_count_is_taken_with_a_deviation(feed: Feed, sender: Sender) -> None:
    await sender.send(batch(adt("1")).replace(b"BTS|1", b"BTS|5"))
    assert code(await sender.answer()) == "AA"
    assert "batch-count-wrong" in feed.entries()[0].deviations


async def test_a_batch_whose_messages_wait_for_processing_is_answered_whole(make_feed: MakeFeed) -> None:
    feed = await make_feed(ack={"batch": "single", "when": "processed"})
    sender = await feed.sender()
    await sender.send(batch(adt("1"), adt("2")))
    await eventually(lambda: len(feed.entries()) == 2)
    await feed.process()
    assert (await sender.answer()).count(b"MSA|AA|") == 2


async def test_a_batch_without_a_message_is_answered_too(sender: Sender) -> None:
    assert code(await sender.exchange(batch())) in {"AE", "AR"}
