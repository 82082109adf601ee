"""The daemon's watch over the trail: checkpoints in their time, and what is wrong is known while it runs."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from store_builders import NOW, behind
from test_trail import act, acted, audit, cut, head, write

from engine.clock import FixedClock
from engine.connectors.checkpoints import FilePlace
from engine.errors import CheckpointError
from engine.runtime.trailwatch import BROKEN, FAILED, ROLLED_BACK, SILENT, UNRECORDED, UNWATCHED, TrailWatch
from engine.store import Store
from engine.store.checkpoints import checkpoint

LIGHT = "destination-paused"
"""An act that can wait for its checkpoint."""


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def place(tmp_path: Path) -> FilePlace:
    return FilePlace(tmp_path / "outside" / "checkpoints")


@pytest.fixture
def watch(store: Store, place: FilePlace, time: Time) -> TrailWatch:
    return TrailWatch(store, [place], 10, 300.0, FixedClock(NOW + timedelta(hours=3)), time)


def seqs(place: FilePlace) -> list[int]:
    return [one.seq for one in place.read() or ()]


def test_one_is_made_at_the_start_and_then_by_records_or_by_time(
    store: Store, watch: TrailWatch, place: FilePlace, time: Time
) -> None:
    write(store, act(1, LIGHT))
    watch.look()
    assert seqs(place) == [1]
    watch.look()
    write(store, act(2, LIGHT))
    watch.look()
    assert seqs(place) == [1]
    time.now += 301
    watch.look()
    assert seqs(place) == [1, 2]
    write(store, *(act(number, LIGHT) for number in range(3, 13)))
    watch.look()
    assert seqs(place) == [1, 2, 12]
    time.now += 301
    watch.look()
    assert seqs(place) == [1, 2, 12]  # it would say the same
    time.now += 3600
    watch.look()
    assert seqs(place) == [1, 2, 12, 12]
    assert watch.trouble == {}


@pytest.mark.parametrize("action", ["reveal", "account-added", "patient-erased", "breach-opened", "glass-broken"])
def test_an_act_that_matters_has_its_checkpoint_at_the_next_look(
    store: Store, watch: TrailWatch, place: FilePlace, action: str
) -> None:
    write(store, act(1, LIGHT))
    watch.look()
    write(store, act(2, LIGHT))
    watch.look()
    assert seqs(place) == [1]
    write(store, act(3, action))
    watch.look()
    watch.look()
    assert seqs(place) == [1, 3]


def test_one_that_a_command_has_made_is_not_made_again(store: Store, watch: TrailWatch, place: FilePlace) -> None:
    write(store, act(1, LIGHT))
    watch.look()
    write(store, act(2, "reveal"))
    with store.reader() as conn:
        place.write(checkpoint(store, conn, NOW + timedelta(hours=4)))
    watch.look()
    assert seqs(place) == [1, 2]
    cut(store, 1)
    watch.look()
    assert watch.trouble.keys() == {ROLLED_BACK}


def test_a_place_that_fails_is_trouble_until_it_works_again(
    store: Store, watch: TrailWatch, place: FilePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, act(1))
    with monkeypatch.context() as patched:
        patched.setattr(FilePlace, "write", _fails)
        watch.look()
        assert watch.trouble.keys() == {FAILED}
    watch.look()
    assert watch.trouble == {}
    assert seqs(place) == [1]


def _fails(_place: FilePlace, _checkpoint: object) -> None:
    raise CheckpointError("the disk is full")


def test_a_trail_of_which_nothing_is_heard_is_silent(
    store: Store, watch: TrailWatch, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FilePlace, "write", _fails)
    write(store, act(1))
    watch.look()
    time.now += 901
    watch.look()
    assert watch.trouble.keys() == {FAILED, SILENT}


@pytest.mark.parametrize("kind", ["task-done", "page-ack"])
def test_a_trail_that_is_silent_though_people_worked_is_trouble_and_stays_so(
    store: Store, watch: TrailWatch, kind: str
) -> None:
    write(store, act(1))
    acted(store, recorded=False, kind=kind)
    for _ in range(2):
        watch.look()
        assert watch.trouble == {UNRECORDED: f"1 act, the first: entry 1 ({kind}) was done, and no record says so"}


def test_a_trail_that_says_what_people_did_is_no_trouble(store: Store, watch: TrailWatch) -> None:
    acted(store, recorded=True)
    watch.look()
    assert watch.trouble == {}


def test_what_is_altered_while_it_runs_is_known_at_the_next_look_and_gets_no_checkpoint(
    store: Store, watch: TrailWatch, place: FilePlace
) -> None:
    write(store, act(1))
    watch.look()
    write(store, *(act(number) for number in range(2, 15)))
    behind(store, audit.update().where(audit.c.seq == 5).values(actor="nobody"))
    watch.look()
    assert watch.trouble == {BROKEN: "altered at 5"}
    assert seqs(place) == [1]


@pytest.mark.parametrize("what", ["a row", "the head"])
def test_what_is_taken_away_while_it_runs_is_known(store: Store, watch: TrailWatch, what: str) -> None:
    write(store, *(act(number) for number in range(1, 6)))
    watch.look()
    write(store, *(act(number) for number in range(6, 9)))
    behind(store, audit.delete().where(audit.c.seq == 7) if what == "a row" else head.delete())
    watch.look()
    assert watch.trouble.keys() == {BROKEN}


def test_a_trail_that_was_cut_is_known_also_after_a_restart(
    store: Store, watch: TrailWatch, place: FilePlace, time: Time
) -> None:
    write(store, *(act(number) for number in range(1, 6)))
    watch.look()
    cut(store, 3)
    watch.look()
    assert watch.trouble.keys() == {ROLLED_BACK}
    write(store, *(act(number) for number in range(4, 9)))  # it has grown over what is gone
    again = TrailWatch(store, [place], 1, 1.0, FixedClock(NOW + timedelta(hours=3)), time)
    again.look()
    assert again.trouble.keys() == {ROLLED_BACK}
    assert seqs(place) == [5]
    note = act(200, "trail-resealed", subject="audit")
    store.charts_ledger.write_now(lambda conn: store.audit.reseal(conn, note, after=3, lost=5))
    again.look()
    assert again.trouble == {}
    assert seqs(place) == [5, 9]


def test_a_trail_without_a_place_is_said(store: Store, time: Time) -> None:
    watch = TrailWatch(store, [], 10, 300.0, FixedClock(NOW), time)
    watch.look()
    time.now += 10_000
    watch.look()
    assert watch.trouble.keys() == {UNWATCHED}
