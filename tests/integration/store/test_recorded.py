"""Which recorded messages a comparison works on, and whose they are."""

from __future__ import annotations

from datetime import timedelta

from store_builders import CHANNEL, NOW, append, chart, charts_of, merged, outcome, receipt, record

from engine.errors import Fault
from engine.store import recorded

SINCE = NOW - timedelta(days=1)


def received(store, **more):
    wish = {"since": SINCE, "until": None, "limit": 100, **more}
    return [one.id for one in store.read_now(lambda conn: list(recorded.received(conn, CHANNEL, **wish)))]


def test_messages_of_a_time_come_newest_first_and_replays_do_not(store, monkeypatch):
    monkeypatch.setattr(recorded, "_ROWS_MAX", 2)
    days = (3, 0, 0, 0, 0)
    append(
        store,
        *(receipt(store.keys, f"{n}", received_at=NOW - timedelta(days=day)) for n, day in enumerate(days)),
        receipt(store.keys, "east", channel="east"),
    )
    append(
        store,
        receipt(store.keys, None, replay_of=2),
        receipt(store.keys, "last", received_at=NOW + timedelta(hours=2)),
    )
    assert received(store) == [8, 5, 4, 3, 2]
    assert received(store, until=NOW + timedelta(hours=1)) == [5, 4, 3, 2]
    assert received(store, limit=3) == [8, 5, 4]
    assert received(store, since=NOW + timedelta(days=1)) == []
    assert received(store, since=NOW - timedelta(days=9)) == [8, 5, 4, 3, 2, 1]


def test_messages_of_charts_are_those_of_every_channel_but_not_replays_or_refused_ones(store):
    refusal = Fault(error="x", text="x")
    append(store, receipt(store.keys, "1"), receipt(store.keys, "2", channel="east"))
    append(
        store, receipt(store.keys, None, replay_of=1), receipt(store.keys, "4", refusal=refusal),
        receipt(store.keys, "5", received_at=NOW - timedelta(days=3)), receipt(store.keys, "6"),
        receipt(store.keys, "7"),
    )  # fmt: skip
    record(store, outcome(1, chart()))
    for entry in (2, 3, 4, 5, 7):
        record(store, outcome(entry, chart_id="chart-1"))
    found = store.read_now(lambda conn: recorded.of_charts(conn, {"chart-1"}, since=SINCE, before=7))
    assert [(one.id, one.chart) for one in found] == [(1, "chart-1"), (2, "chart-1")]
    assert store.read_now(lambda conn: recorded.of_charts(conn, set(), since=SINCE, before=7)) == []


def test_charts_that_were_merged_are_one_family_from_whichever_end(store):
    append(store, *(receipt(store.keys, str(number)) for number in range(1, 6)))
    one, two, three = (chart(f"chart-{number}", number) for number in (1, 2, 3))
    for number, made in enumerate((one, two, three), start=1):
        record(store, outcome(number, made))
    second, first = merged(two, one)
    record(store, outcome(4, second, first), before=charts_of(two, one))
    for asked in ({"chart-1"}, {"chart-2"}):
        families = store.read_now(lambda conn: recorded.families(conn, asked))
        assert families == {"chart-1": "chart-2", "chart-2": "chart-2"}
    assert store.read_now(lambda conn: recorded.families(conn, {"chart-3", "gone"})) == {
        "chart-3": "chart-3",
        "gone": "gone",
    }
