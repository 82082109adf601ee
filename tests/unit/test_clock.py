"""The clock of a test site: the system's, and the seconds that a file holds."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from engine import clock
from engine.clock import ShiftedClock, SystemClock, site_clock

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def looks_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_LOOK_SECONDS", 0.0)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    events: list[str] = []
    monkeypatch.setattr(clock, "_say_unreadable", lambda file: events.append(file.name))
    return events


def ahead(one: ShiftedClock) -> float:
    """Hours."""
    return round((one.now() - datetime.now(UTC)) / HOUR, 3)


def test_a_production_site_has_the_systems_clock() -> None:
    one = site_clock(None)
    assert isinstance(one, SystemClock)
    assert abs(one.now() - datetime.now(UTC)) < timedelta(seconds=5)
    assert one.pause(60) == 60


@pytest.mark.parametrize(
    ("text", "hours"),
    [("3600", 1), ("3600\n", 1), (" +7200.0 \r\n", 2), ("-5400", -1.5), ("0", 0), ("3.6e3", 1), ("1209600", 336)],
)
def test_what_the_file_holds_is_added_at_once(tmp_path: Path, text: str, hours: float) -> None:
    file = tmp_path / "offset"
    one = ShiftedClock(file)
    assert ahead(one) == 0, "no file"
    file.write_text(text)
    assert ahead(one) == hours
    file.unlink()
    assert ahead(one) == 0


@pytest.mark.parametrize("text", ["", "1 h", "nan", "inf", "-1e300", "1,5", "9" * 80, "٣", "\x00", "0x10"], ids=ascii)
def test_what_is_no_number_of_seconds_changes_nothing_and_is_said_once(
    tmp_path: Path, text: str, said: list[str]
) -> None:
    file = tmp_path / "offset"
    file.write_text("3600")
    one = ShiftedClock(file)
    file.write_text(text)
    assert [ahead(one) for _ in range(5)] == [1] * 5
    assert said == ["offset"]
    file.write_text("7200")
    assert ahead(one) == 2
    file.write_text(text)
    assert ahead(one) == 2
    assert ahead(one) == 2
    assert len(said) == 2, "it is said again when it is wrong again"


def test_a_file_that_is_none_or_may_not_be_read_stops_nobody(tmp_path: Path, said: list[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for file in (pipe, tmp_path, Path("/dev/zero"), tmp_path / "pipe" / "below"):
        assert ahead(ShiftedClock(file)) == 0
    assert len(said) == 4


def test_a_half_written_file_is_read_again_before_a_command_believes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "offset"
    file.write_text("")
    monkeypatch.setattr(clock.time, "sleep", lambda _seconds: file.write_text("3600"))
    assert ahead(ShiftedClock(file)) == 1


def test_the_file_is_read_at_least_five_times_a_second_and_no_more_than_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    file = tmp_path / "offset"
    file.write_text("0")
    one = ShiftedClock(file)
    now = [clock.time.monotonic()]
    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])
    reads: list[Path] = []
    read = clock._seconds
    monkeypatch.setattr(clock, "_seconds", lambda one: reads.append(one) or read(one))
    for _ in range(1000):
        one.now()
        now[0] += 0.001
    assert 5 <= len(reads) <= 20
    assert one.pause(60) < 0.2
