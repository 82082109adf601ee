"""The simulated day: repeatable, readable, and in an order that a hospital could have sent."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import date
from itertools import islice

import pytest

from engine.hl7v2.header import read_header
from engine.hl7v2.message import Message
from engine.simulator.messages import STRUCTURES
from engine.simulator.pathways import Book, load_book
from engine.simulator.traffic import Simulated, traffic

DAY = date(2026, 3, 2)
ENDS = {"A03", "A11"}
OPENS = {"A01", "A04"}


@pytest.fixture(scope="module")
def book() -> Book:
    return load_book()


@pytest.fixture(scope="module")
def stream(book: Book) -> list[Simulated]:
    return list(traffic(book, seed=7, day=DAY, messages=4000))


@pytest.fixture(scope="module")
def messages(stream: list[Simulated]) -> list[Message]:
    return [Message.parse(simulated.payload) for simulated in stream]


def test_the_same_seed_day_and_count_give_the_same_bytes(book: Book, stream: list[Simulated]) -> None:
    again = list(traffic(load_book(), seed=7, day=DAY, messages=4000))
    assert again == stream
    assert len(stream) == 4000


@pytest.mark.parametrize(
    ("seed", "day", "count"),
    [(8, DAY, 4000), (7, date(2026, 3, 3), 4000), (7, DAY, 3999)],
    ids=["seed", "day", "count"],
)
def test_runs_that_differ_share_no_control_id_and_no_visit(
    book: Book, stream: list[Simulated], seed: int, day: date, count: int
) -> None:
    other = list(islice(traffic(book, seed=seed, day=day, messages=count), 500))
    assert not {each.control_id for each in other} & {each.control_id for each in stream}
    assert not _visits(other) & _visits(stream)


def test_control_ids_are_unique_and_stand_in_msh_10(stream: list[Simulated]) -> None:
    assert len({each.control_id for each in stream}) == len(stream)
    assert all(read_header(each.payload).control_id_raw == each.control_id for each in stream)
    assert all(len(each.control_id) <= 20 for each in stream)  # MSH-10 before version 2.7


def test_every_message_reads_without_a_deviation(messages: list[Message]) -> None:
    assert {deviation for message in messages for deviation in message.deviations} == set()
    assert {message.charset for message in messages} == {"utf-8"}
    for message in messages:
        assert message.header.type == f"ADT^{message.header.trigger_event}"
        assert message.get("MSH-9.3") == STRUCTURES[message.header.trigger_event]
        assert (message.header.processing_id, message.header.version) == ("P", "2.5.1")
        assert message.get("PID-3[type=MR].1")
        assert message.get("PID-3[type=MR].4.1") == "MAIN"
        assert message.get("PID-5.1")
        assert message.get("PID-5.2")


def test_every_trigger_event_of_the_first_form_occurs(messages: list[Message]) -> None:
    counts = Counter(message.header.trigger_event for message in messages)
    assert set(counts) == {"A01", "A02", "A03", "A04", "A05", "A08", "A11", "A13", "A28", "A31", "A40"}
    assert counts["A08"] == max(counts.values())


def test_the_stream_is_in_order_of_time_and_fills_the_day(stream: list[Simulated]) -> None:
    times = [each.at for each in stream]
    assert times == sorted(times)
    assert times[0] < 3600
    assert 22 * 3600 < times[-1] < 27 * 3600


def test_each_case_has_a_legal_sequence_of_events(stream: list[Simulated], messages: list[Message]) -> None:
    for events in _by_case(stream, messages).values():
        names = [message.header.trigger_event for message in events]
        state = None  # the stay may have begun before the day
        for name in names:
            if name == "A05":
                assert state is None
                state = "planned"
            elif name in OPENS:
                assert state in {None, "planned", "emergency"}
                state = "emergency" if name == "A04" else "in"
            elif name == "A02":
                assert state in {None, "in"}
                state = "in"
            elif name in ENDS:
                assert state in {None, "in", "emergency"}
                state = "out"
            elif name == "A13":
                assert state in {None, "out"}
                state = "in"


def test_a_case_is_one_person_and_one_visit(stream: list[Simulated], messages: list[Message]) -> None:
    for events in _by_case(stream, messages).values():
        merged = {event.get("MRG-1.1") for event in events if event.header.trigger_event == "A40"}
        duplicates = {_record_number(event) for event in events} - {_record_number(events[-1])}
        # a second record number is there before its merge only
        assert duplicates == {number for number in merged if number} or not merged
        assert len({event.get("PV1-19.1") for event in events if event.get("PV1-19.1")}) <= 1
        assert len({event.get("PID-7") for event in events}) == 1


def test_nobody_has_two_cases(stream: list[Simulated], messages: list[Message]) -> None:
    cases: dict[str | None, set[int]] = defaultdict(set)
    for simulated, message in zip(stream, messages, strict=True):
        cases[_record_number(message)].add(simulated.case)
    assert {len(numbers) for numbers in cases.values()} == {1}


def test_people_come_back_on_another_day_with_the_same_name_and_birth_date(book: Book) -> None:
    def persons(day: date) -> dict[str | None, tuple[str | None, ...]]:
        found: dict[str | None, tuple[str | None, ...]] = {}
        for simulated in traffic(book, seed=1, day=day, messages=8_000):
            message = Message.parse(simulated.payload)
            identity = (message.get("PID-7"), message.get("PID-8"), message.get("PID-5.2"))
            found.setdefault(_record_number(message), identity)
        return found

    monday, tuesday = persons(DAY), persons(date(2026, 3, 3))
    both = set(monday) & set(tuesday)
    assert both
    assert all(monday[number] == tuesday[number] for number in both)


def test_discharges_have_dispositions_and_times_that_follow_the_admission(messages: list[Message]) -> None:
    discharges = [message for message in messages if message.header.trigger_event == "A03"]
    dispositions = Counter(message.get("PV1-36") for message in discharges)
    assert dispositions["01"] > len(discharges) / 2
    assert {"03", "06", "07", "20", "1", ""} <= set(dispositions)
    for message in discharges:
        admitted, discharged = message.get("PV1-44"), message.get("PV1-45")
        assert discharged or message.get("EVN-2")
        if admitted and discharged:
            assert admitted < discharged
    assert any(not message.get("PV1-45") for message in discharges)


def test_a_cancelled_discharge_no_longer_has_an_end(messages: list[Message]) -> None:
    cancelled = [message for message in messages if message.header.trigger_event == "A13"]
    assert cancelled
    assert not any(message.get("PV1-45") or message.get("PV1-36") for message in cancelled)


def test_the_dead_are_marked_dead_from_then_on(stream: list[Simulated], messages: list[Message]) -> None:
    died = 0
    for events in _by_case(stream, messages).values():
        dead = False
        for event in events:
            dead = dead or event.get("PV1-36") == "20" or event.get("PID-30") == "Y"
            assert (event.get("PID-30") == "Y") == dead
            assert bool(event.get("PID-29")) == dead
        died += dead
    assert died


def test_diagnoses_are_often_complete_only_after_the_discharge(
    stream: list[Simulated], messages: list[Message]
) -> None:
    completed = 0
    for events in _by_case(stream, messages).values():
        at_discharge = 0
        for event in events:
            if event.header.trigger_event == "A03":
                at_discharge = len(event.segments("DG1"))
            elif event.header.trigger_event == "A08" and at_discharge and len(event.segments("DG1")) > at_discharge:
                assert {segment.get(6) for segment in event.segments("DG1")} == {"F"}
                completed += 1
    assert completed > 10


def test_more_messages_than_a_day_holds_are_more_days(book: Book) -> None:
    hospital = book.hospital.model_copy(update={"messages_per_day_max": 500})
    small = book.model_copy(update={"hospital": hospital})
    stream = list(traffic(small, seed=1, day=DAY, messages=1600))
    assert len(stream) == 1600
    assert 2 * 86_400 < stream[-1].at < 4 * 86_400


def test_even_one_message_is_a_day(book: Book) -> None:
    assert len(list(traffic(book, seed=1, day=DAY, messages=1))) == 1


def _by_case(stream: list[Simulated], messages: list[Message]) -> dict[int, list[Message]]:
    cases: dict[int, list[Message]] = defaultdict(list)
    for simulated, message in zip(stream, messages, strict=True):
        cases[simulated.case].append(message)
    return cases


def _visits(stream: list[Simulated]) -> set[str]:
    visits: Iterator[str | None] = (Message.parse(each.payload).get("PV1-19.1") for each in stream)
    return {visit for visit in visits if visit}


def _record_number(message: Message) -> str | None:
    return message.get("PID-3[type=MR].1")
