"""The benchmark runs with real daemons; what it measures is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from peers.postgres_server import PostgresServer
from peers.salesforce_org import SalesforceOrg

from benchmarks import history
from engine.domain.ids import by_entry
from engine.domain.message import EntryState
from engine.simulator.bench.site import LIVE, STORED, Place
from engine.store.counts import ledger, pending

ROOT = Path(__file__).parents[2]
SHORT = ("--seconds", "0.5", "--messages", "120", "--deadlines", "700")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


@pytest.fixture
def postgresql() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.close()


def command(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def measured(place: Path, *arguments: str) -> Any:
    """The result, of a run that leaves nothing behind."""
    result = json.loads(command("benchmarks", "run", *SHORT, "--folder", place, *arguments, "--json").stdout)
    assert list(place.iterdir()) == []
    return result


def test_the_benchmark_measures_the_daemon_beside_its_probes_and_leaves_nothing(tmp_path: Path, place: Path) -> None:
    kept = tmp_path / "kept.json"
    result = measured(place, "--senders", "2", "--rates", "50", "--output", str(kept))
    assert json.loads(kept.read_text()) == result
    assert result["parts"] == ["throughput", "openloop", "deadlines", "cpu", "stays"]
    [run] = result["runs"]
    assert (run["senders"], run["store"], run["tls"]) == (2, "sqlite", False)
    assert min(run["framer"]["rate"], run["append"]["rate"], run["acknowledged"]["rate"], run["to_the_end"]["rate"]) > 0
    assert run["acknowledged"]["wrong"] == 0
    # A stay is three messages; its discharge makes scores and tasks, and everything is delivered.
    assert run["to_the_end"]["messages"] == 120
    assert run["to_the_end"]["deliveries"] > 120
    assert run["to_the_end"]["dead"] == 0
    assert run["to_the_end"]["cpu_us"]["processes"] >= 2
    assert all(ratio > 0 for ratio in run["ratios"].values())
    assert result["machine"]["fdatasync_ms"]["p50"] > 0
    assert 0 < result["start_seconds"]["first"] < result["start_seconds"]["first_processed"]
    assert len(result["memory_mb"]["resident"]) == run["to_the_end"]["cpu_us"]["processes"]
    [fixed] = result["openloop"]
    for until in ("stored", "processed"):
        assert fixed[until]["acknowledged"] == 25
        assert fixed[until]["p99_ms"] >= fixed[until]["from_sending"]["p50_ms"]
    [due] = result["deadlines"]
    assert (due["patients"], due["rate"], due["without"]["acknowledged"], due["beside"]["wrong"]) == (700, 50, 25, 0)
    assert due["per_second"] > 0
    assert min(due["ratios"].values()) > 0
    assert due["pages"]["count"] == 50
    assert 0 <= due["pages"]["late_p50_seconds"] <= due["pages"]["late_max_seconds"]
    assert result["cpu"]["deliveries"] > 120
    assert all(spent >= 0 for spent in result["cpu"]["stages_us"].values())
    assert result["cpu"]["all_us"] > 0

    report = tmp_path / "report"
    written = json.loads(command("benchmarks", "report", kept, "--to", report, "--json").stdout)["written"]
    assert {str(path) for path in report.iterdir()} == set(written)
    assert f"{run['acknowledged']['rate']:,.0f}" in (report / "README.md").read_text()


def test_postgresql_and_tls_are_measured_too_and_the_server_is_left_as_it_was(
    place: Path, postgresql: PostgresServer
) -> None:
    result = measured(
        place, "--parts", "throughput", "--stores", "postgresql", "--tls", "--senders", "2",
        "--postgresql", postgresql.url("postgres"),
    )  # fmt: skip
    assert [(run["store"], run["tls"]) for run in result["runs"]] == [("postgresql", False), ("postgresql", True)]
    assert all(run["to_the_end"]["dead"] == 0 for run in result["runs"])
    assert result["machine"]["postgresql"]
    with psycopg.connect(postgresql.url("postgres").replace("+psycopg", "")) as conn:
        left = conn.execute("SELECT datname FROM pg_database WHERE datname LIKE 'handoff_bench%'").fetchall()
    assert left == []


def test_deliveries_go_to_an_org_on_this_machine_and_to_no_other(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    org = SalesforceOrg().start()
    monkeypatch.setenv("HANDOFF_BENCH_SALESFORCE_ID", org.client_id)
    monkeypatch.setenv("HANDOFF_BENCH_SALESFORCE_SECRET", org.client_secret)
    try:
        result = measured(place, "--parts", "salesforce", "--messages", "480", "--salesforce", org.url)
        assert result["salesforce"]["messages"] == 120
        assert result["salesforce"]["dead"] == 0
        assert len(org.find("Account")) >= 40
    finally:
        org.stop()
    refused = command(
        "benchmarks",
        "run",
        "--parts",
        "salesforce",
        "--salesforce",
        "https://example.my.salesforce.com",
        "--folder",
        place,
        code=1,
    )
    assert "must be one on this machine" in refused.stderr


def test_growth_and_soak_are_measured(place: Path) -> None:
    result = measured(
        place, "--parts", "growth,soak", "--sizes", "0,1280", "--rates", "50", "--soak-minutes", "0.05",
        "--soak-rate", "50", "--set", "log_level=warning",
    )  # fmt: skip
    [grown] = result["growth"]
    assert [step["entries"] for step in grown["steps"]] == [0, 1280]
    assert set(grown["steps"][-1]["searches"]) >= {"control id", "patient", "state dead", "ledger"}
    assert all(ratio > 0 for ratio in grown["steps"][-1]["ratios"].values())
    assert result["soak"]["acknowledged"] == 150
    assert result["soak"]["memory_mb"]["last"] > 0
    assert result["settings"] == {"log_level": "warning"}


def test_what_is_missing_is_said_before_anything_is_measured(place: Path) -> None:
    done = command("engine", "bench", "--stores", "postgresql", "--folder", place, code=1)
    assert "--postgresql URL" in done.stderr
    command("engine", "bench", "--parts", "growth", "--folder", place, code=2)
    command("engine", "bench", "--beside", "old-engine", "--folder", place, code=2)
    done = command("benchmarks", "run", "--parts", "salesforce", "--folder", place, code=1)
    assert "--salesforce URL" in done.stderr


def test_what_is_installed_measures_throughput_and_latency_alone(place: Path) -> None:
    options = ("--parts", "openloop", "--rates", "50", "--folder", place)
    result = json.loads(command("engine", "bench", *SHORT, *options, "--json").stdout)
    assert result["parts"] == ["openloop"]
    said = " ".join(command("engine", "bench", "--help").stdout.split())
    assert "[default: throughput,openloop,deadlines]" in said
    assert list(place.iterdir()) == []


def test_made_up_history_is_what_the_daemon_would_have_left(place: Path) -> None:
    with Place(place).site() as site:
        site.make_store()
        done = history.extend(site, 0, 1, payload_bytes=500)
        done = history.extend(site, done, done + 1, payload_bytes=500)
        assert done == 2 * history.BLOCK
        with site.store() as store, store.reader() as conn:
            [line] = ledger(conn)
            assert line.balanced
            assert (line.channel, line.received, line.acked, line.pending) == (LIVE, done, done, 0)
            assert line.filtered > line.dead > 0
            assert line.deliveries.delivered > 2 * history.SENDERS
            assert line.deliveries.pending == line.deliveries.dead == 0
            ids = history.ids_of(done - 1)
            [last] = store.journal.find(conn, control_id=ids.control.decode())
            assert (last.state, last.type, last.id) == (EntryState.PROCESSED, "ADT^A03", done)
            assert last.patient_key == f"BENCH:{ids.patient.decode()}"
            entry = store.journal.entry(conn, last.id)
            assert entry is not None
            assert len(entry.payload) == 500
            [chart] = store.charts.by_key(conn, last.patient_key)
            assert chart.encounters[0].discharged_at is not None
            assert chart.scores
            assert chart.id.startswith(by_entry(done - history.BLOCK + history.SENDERS))  # the admission
            assert len(store.journal.find(conn, patient=last.patient_key, limit=None)) >= history.STEPS - 2
            patients = {entry.patient_key for entry in store.journal.find(conn, limit=None)} - {None}
            assert len(patients) == 2 * history.SENDERS


def test_a_backlog_on_the_paused_channel_can_be_dismissed(place: Path) -> None:
    with Place(place).site() as site:
        site.make_store()
        with site.store() as store:
            message = history.payload(0, history.ids_of(0), 400)
            receipts = [history.receipt(store.keys, STORED, message.replace(b"|P|", b"%d|P|" % n), datetime.now(UTC))
                        for n in range(300)]  # fmt: skip
            store.journal_ledger.write_now(lambda conn: store.journal.append(conn, receipts))
            assert store.read_now(lambda conn: pending(conn, [STORED])) == {STORED: 300}
            history.dismiss(store, STORED)
            assert store.read_now(lambda conn: pending(conn, [STORED])) == {STORED: 0}
            assert store.read_now(ledger)[0].balanced
