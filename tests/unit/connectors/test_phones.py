"""The phone network of our own: what phones get, what they say, and what the network keeps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from connector_deliveries import delivery, queued

from engine.clock import FixedClock
from engine.connectors.base import CarrierWord, Incoming
from engine.connectors.phones import Habits, PhoneError, Phones
from engine.connectors.simulated_phone import PhoneEar, SimulatedPhoneConnector, SimulatedPhoneDestination
from engine.domain.delivery import Content, Notice, Notification, Operation
from engine.domain.page import ack_code
from engine.yamlfile import parse
from engine.yamlmodel import validate

NOW = datetime(2026, 3, 5, 14, 30, tzinfo=UTC)
LATER = NOW + timedelta(minutes=30)
NUMBER = "+15185550123"


def network(folder: Path, **habit: Any) -> Phones:
    habits = Habits(habits={"one": habit}, phones={NUMBER: "one"}) if habit else Habits(habits={})  # type: ignore[dict-item]
    return Phones(folder / "phones" / "demo.db", habits)


def said(phones: Phones, now: datetime = LATER) -> list[tuple[str, str]]:
    return [(one.direction, one.text) for one in phones.transcript(NUMBER, now)]


def heard(phones: Phones, now: datetime = LATER) -> list[tuple[str, str | None]]:
    """Words of the network, each heard once."""
    found = phones.words(now, 100)
    phones.told([number for number, _ in found])
    return [(word.kind, word.text or (str(word.error) if word.error else None)) for _, word in found]


def test_a_text_is_on_the_phone_once_however_often_it_is_sent(tmp_path: Path) -> None:
    phones = network(tmp_path)
    first = phones.send("k1", NUMBER, "how are you?", NOW)
    assert phones.send("k1", NUMBER, "how are you?", NOW) == first
    assert (said(phones), heard(phones), heard(phones)) == ([("out", "how are you?")], [("delivered", None)], [])


def test_stop_is_taken_by_the_network_until_start(tmp_path: Path) -> None:
    phones = network(tmp_path)
    phones.send("k1", NUMBER, "how are you?", NOW)
    phones.reply(NUMBER, " stop ", NOW)
    assert phones.send("k2", NUMBER, "again", NOW).error == 21610
    assert phones.send("k3", "+15185550124", "to another", NOW).error is None
    assert [direction for direction, _ in said(phones)] == ["out", "in", "out"]
    assert phones.words(NOW, 9)[-1][1].answered is None
    (stopped,) = (word for _, word in phones.words(NOW, 9) if word.kind == "incoming")
    assert (stopped.text, stopped.answered) == (" stop ", "STOP")
    phones.reply(NUMBER, "START", NOW)
    assert phones.send("k2", NUMBER, "again", NOW).error is None


@pytest.mark.parametrize("text", ["please stop", "STOP NOW", "Stopp", "yes", "x" * 1600, "\U0001f600"])
def test_any_other_word_is_only_passed_on(tmp_path: Path, text: str) -> None:
    phones = network(tmp_path)
    phones.reply(NUMBER, text, NOW)
    assert (said(phones), heard(phones)) == ([("in", text)], [("incoming", text)])
    assert phones.send("k1", NUMBER, "again", NOW).error is None


@pytest.mark.parametrize(
    ("habit", "words"),
    [
        ({"error": 30006}, [("failed", "30006")]),
        ({"delivered_after_minutes": 600}, []),
        ({"says": "Wrong number", "after_minutes": 4}, [("delivered", None), ("incoming", "Wrong number")]),
        ({"answers": {"CONFIRM": "confirm"}}, [("delivered", None), ("incoming", "confirm")]),
        ({"answers": {"TAKEN": "taken"}}, [("delivered", None)]),
        ({"says": "STOP", "after_minutes": 1}, [("delivered", None), ("incoming", "STOP")]),
    ],
)
def test_a_phone_does_as_its_owner_is_used_to(
    tmp_path: Path, habit: dict[str, Any], words: list[tuple[str, str | None]]
) -> None:
    phones = network(tmp_path, **habit)
    phones.send("k1", NUMBER, "Reply CONFIRM or CHANGE", NOW)
    assert heard(phones, NOW) == [word for word in words if word[0] != "incoming"], "an answer takes its time"
    assert heard(phones) == [word for word in words if word[0] == "incoming"]
    assert [text for direction, text in said(phones) if direction == "in"] == [
        text for kind, text in words if kind == "incoming"
    ]
    assert all(direction == "out" for direction, _ in said(phones, NOW)), "what is to be said later is not shown yet"


def test_one_that_is_off_gets_it_later_and_one_who_stops_is_not_blocked_before(tmp_path: Path) -> None:
    off = network(tmp_path, delivered_after_minutes=600)
    off.send("k1", NUMBER, "x", NOW)
    assert heard(off, NOW + timedelta(minutes=601)) == [("delivered", None)]
    stops = network(tmp_path / "other", says="STOP", after_minutes=10)
    stops.send("k1", NUMBER, "x", NOW)
    assert stops.send("k2", NUMBER, "y", NOW + timedelta(minutes=9)).error is None
    assert stops.send("k3", NUMBER, "z", NOW + timedelta(minutes=11)).error == 21610


def test_the_usual_habits_are_all_there_and_a_phone_keeps_its_own() -> None:
    import engine.connectors

    text = (Path(engine.connectors.__path__[0]) / "phone_habits.yaml").read_text()
    usual = validate(parse(text, "phone_habits.yaml"), Habits)
    numbers = [f"+1518555{n:04d}" for n in range(2000)]
    met = [usual.of(number) for number in numbers]
    assert {id(one) for one in met} == {id(one) for one in usual.habits.values()}
    assert met == [usual.of(number) for number in numbers]


def test_nothing_of_what_is_said_stands_in_the_files_in_clear(tmp_path: Path) -> None:
    phones = network(tmp_path)
    phones.send("k1", NUMBER, "words of a patient", NOW)
    phones.reply(NUMBER, "words of a patient", NOW)
    for file in (tmp_path / "phones").iterdir():
        assert b"words" not in file.read_bytes()
        assert b"5550123" not in file.read_bytes()
        assert file.stat().st_mode & 0o077 == 0
    (tmp_path / "phones/demo.key").write_bytes(bytes(32))
    with pytest.raises(PhoneError, match="do not fit"):
        network(tmp_path).words(LATER, 9)


def test_several_processes_may_open_it_at_once(tmp_path: Path) -> None:
    def send(number: int) -> None:
        network(tmp_path).send(f"k{number}", NUMBER, str(number), NOW)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(40)))
    assert sorted(int(text) for _, text in said(network(tmp_path))) == list(range(40))


def test_a_file_that_can_not_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "phones").write_text("no folder")
    with pytest.raises(PhoneError):
        network(tmp_path).send("k1", NUMBER, "x", NOW)


async def test_the_destination_speaks_as_a_carrier_does(tmp_path: Path) -> None:
    phones = network(tmp_path)
    connector = SimulatedPhoneConnector("demo", phones, clock=FixedClock(NOW))
    text = Notice(id="t1-1", patient_key="p", to=NUMBER, body="how are you?")
    call = Notification(
        id="n1", page_id="p-1", step=1, ladder="on-call", level=1, loop=1, person="lee", to="+15185550777",
        text="A page waits.", link="pages/p-1", reason="on_call_page", raised_at=NOW,
    )  # fmt: skip

    def item(content: Content, key: str, operation: Operation = Operation.SEND_TEXT) -> Any:
        return queued(delivery(operation, content.encoded(), key=key, destination="demo"))

    results = await connector.deliver(
        [
            item(text, "k1"),
            item(call, "k2", Operation.NOTIFY),
            item(msgspec.structs.replace(call, to=None), "k3", Operation.NOTIFY),
            queued(delivery()),
        ]
    )
    assert [(one.delivered, one.error) for one in results] == [
        (True, ""), (True, ""), (False, "no-number"), (False, "payload-unreadable"),
    ]  # fmt: skip
    assert phones.transcript("+15185550777", NOW)[0].text == f"A page waits. Reply ACK {ack_code('p-1')}"
    phones.reply(NUMBER, "STOP", NOW)
    (refused,) = await connector.deliver([item(text, "k4")])
    assert refused.error == "opted-out-21610"
    ear = PhoneEar(phones)
    found = ear.hear(FixedClock(NOW), 10)
    words = [one.said for one in found]
    assert [one.key for one in words if isinstance(one, CarrierWord)] == ["k1", "k2"]
    (stop,) = (one for one in words if isinstance(one, Incoming))
    assert (stop.number, stop.text, stop.answered) == (NUMBER, "STOP", "STOP")
    ear.heard([one.id for one in found])
    assert list(ear.hear(FixedClock(NOW), 10)) == []
    assert PhoneEar(Phones(tmp_path / "none.db")).hear(FixedClock(NOW), 10) == ()
    assert not (tmp_path / "none.db").exists()


def test_its_folder_is_its_own() -> None:
    assert SimulatedPhoneDestination(type="simulated_phone").folder == "var/phones"
