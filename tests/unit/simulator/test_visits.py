"""Follow-up visits of the simulated day: repeatable, in order, and what the engine makes of them."""

from __future__ import annotations

from collections import Counter
from datetime import date

import pytest

from engine.hl7v2.message import Message
from engine.simulator.pathways import load_book
from engine.simulator.traffic import Simulated, traffic
from engine.simulator.visits import with_visits

DAY = date(2026, 3, 2)


@pytest.fixture(scope="module")
def stream() -> list[Simulated]:
    return simulated()


def simulated(seed: int = 7) -> list[Simulated]:
    """Of nine days."""
    book = load_book()
    small = book.model_copy(update={"hospital": book.hospital.model_copy(update={"messages_per_day_max": 400})})
    return list(with_visits(traffic(small, seed=seed, day=DAY, messages=3600), seed=seed, day=DAY))


def test_the_same_seed_gives_the_same_bytes_in_order_of_time(stream: list[Simulated]) -> None:
    assert simulated() == stream
    assert simulated(8) != stream
    assert [one.at for one in stream] == sorted(one.at for one in stream)
    assert len({one.control_id for one in stream}) == len(stream)


def test_the_stays_are_those_of_the_day_without_visits(stream: list[Simulated]) -> None:
    assert sum(b"||ADT^" in one.payload for one in stream) == 3600


def test_visits_are_booked_after_a_discharge_of_their_patient_and_end_once(stream: list[Simulated]) -> None:
    told: dict[str, list[str]] = {}
    discharged: dict[int, bytes] = {}
    for one in stream:
        message = Message.parse(one.payload)
        pid = message.get("PID-3.1") or ""
        if message.header.type == "ADT^A03":
            discharged[one.case] = pid.encode()
        elif message.header.type.startswith("SIU"):
            assert discharged[one.case] == pid.encode()
            assert message.deviations == ()
            told.setdefault(message.get("SCH-2") or "", []).append(message.header.trigger_event)
            starts_at, at = message.get("SCH-11.4") or "", message.get("MSH-7") or ""
            assert (starts_at < at) is (message.header.trigger_event in {"S14", "S26"})
    events = Counter(event for each in told.values() for event in each)
    assert set(events) == {"S12", "S13", "S14", "S15", "S26"}
    assert all(each[0] == "S12" and each.count("S12") == 1 for each in told.values())
    assert all(sum(event in {"S14", "S15", "S26"} for event in each) <= 1 for each in told.values())
