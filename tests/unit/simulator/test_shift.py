"""The example's times moved to now keep their distances and their notation."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.hl7v2.capture import read_capture
from engine.simulator.shift import shift

NOW = datetime(2027, 3, 1, 12, 0, tzinfo=UTC)
EXAMPLE = Path(__file__).parents[3] / "channels/examples/first-message.hl7"


def message(sent: str, field: str) -> bytes:
    return f"MSH|^~\\&|A|B|C|D|{sent}||ADT^A01|1|P|2.5\rPV1|1|{field}\r".encode()


@pytest.mark.parametrize(
    ("sent", "field", "moved"),
    [
        ("20261109120000+0000", "20261108120000+0000", "20270228120000+0000"),
        ("20261109120000+0000", "202611081200", "202702281200"),
        ("20261109120000+0000", "20261108", "20270228"),
        ("20261109120000+0000", "20261108120000.1234-0500", "20270228120000.1234-0500"),
        ("20261109070000-0500", "20261109", "20270301"),
        ("20261109120000+0000", "19470715", "19470715"),
        ("20261109120000+0000", "20261399", "20261399"),
        ("20261109120000+0000", "558181838", "558181838"),
        ("not a time", "20261109", "20261109"),
    ],
)
def test_a_time_moves_with_the_newest_message(sent: str, field: str, moved: str) -> None:
    (shifted,) = shift([message(sent, field)], NOW)
    assert shifted.split(b"PV1|1|")[1] == f"{moved}\r".encode()


def test_the_last_message_of_the_example_was_sent_just_now() -> None:
    payloads = [unit.payload for unit in read_capture(EXAMPLE.read_bytes())]
    admission, discharge = shift(payloads, NOW)
    assert b"|20270301070000-0500||ADT^A03" in discharge
    assert b"|20270224004500-0500||ADT^A01" in admission
    assert b"19470715" in discharge
