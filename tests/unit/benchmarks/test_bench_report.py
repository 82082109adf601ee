"""The report says what the JSON says."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report import write_report
from benchmarks.soak import slope_per_hour
from benchmarks.tables import sections, targets
from engine.simulator.bench.site import BenchError

MS = {"p50_ms": 0.5, "p90_ms": 0.9, "p95_ms": 1.5, "p99_ms": 9.875, "p999_ms": 12.0, "max_ms": 31.0}
CPU = {"main_loop": 10.0, "main_writer": 20.0, "worker_loops": 5.0, "worker_threads": 100.0, "all": 135.0,
       "processes": 2, "machine": 300.0}  # fmt: skip
RUN = {
    "senders": 64,
    "store": "sqlite",
    "tls": False,
    "framer": {"rate": 40_000.0, "generator_us": 10.0, "cpu_us": {"all": 12.0}},
    "append": {"group": 64, "rate": 50_000.0},
    "beside": {"python-hl7": {"rate": 1_700.0}},
    "acknowledged": {"rate": 20_123.0, "generator_us": 11.0, "cpu_us": CPU, **MS},
    "to_the_end": {"rate": 3_999.0, "delivered_rate": 3_500.0, "generator_us": 10.0, "cpu_us": CPU, **MS},
    "ratios": {"acknowledged_of_framer": 0.5, "acknowledged_of_append": 0.402, "to_the_end_of_acknowledged": 0.2,
               "acknowledged_of_python-hl7": 11.8},
}  # fmt: skip
OPEN = {**MS, "from_sending": MS, "late": MS, "pending_max": 17, "cpu_us": CPU}
STEP = {
    "entries": 10_000_640,
    "made_per_second": 12_345,
    "stored_bytes": 15_000_000_000,
    "start_seconds": 0.5,
    "acknowledged": {"rate": 19_000.0},
    "to_the_end": {"rate": 3_900.0},
    "open_loop": MS,
    "memory_mb": 199.0,
    "searches": {"control id": MS, "ledger": MS},
    "ratios": {"acknowledged": 0.95, "to_the_end": 0.84, "open_loop_p99": 1.1, "start": 1.0, "memory": 1.0},
}
RESULT: dict[str, Any] = {
    "format": 2,
    "version": "0.1.0",
    "at": "2026-03-02T09:00:00+00:00",
    "machine": {"cpu": "Test CPU", "cores": 2, "memory_gb": 8.0, "load_average": 0.1, "stolen_share": 0.02,
                "system": "Linux 6", "python": "3.11.7", "sqlite": "3.53.4", "postgresql": None,
                "file_system": "ext4", "fdatasync_ms": {"p50": 0.2, "p99": 0.4}},
    "settings": {"workers": 2},
    "parts": ["throughput"],
    "generator": {"us_per_message": 10.0, "ceiling_per_second": 100_000},
    "runs": [RUN, {**RUN, "senders": 8}, {**RUN, "tls": True, "beside": {}}],
    "start_seconds": {"first": 0.5, "median": 0.5, "first_processed": 1.2},
    "memory_mb": {"proportional": 150.0, "resident": [90.0, 80.0]},
    "openloop": [{"rate": 1000.0, "store": "sqlite", "stored": OPEN, "processed": OPEN}],
    "deadlines": [{"store": "sqlite", "patients": 100_000, "rate": 200.0, "without": OPEN, "beside": OPEN,
                   "left_after_load": 7, "seconds": 50.0, "per_second": 2000.0, "ratios": {"p50": 1.0, "p99": 1.1},
                   "pages": {"count": 50, "late_p50_seconds": 0.4, "late_max_seconds": 1.25}}],
    "cpu": {"messages": 100, "deliveries": 200, "group": 64, "batch": 256, "all_us": 50.0,
            "stages_us": {"frame": 2.0, "append": 8.0, "read": 5.0, "prepare": 10.0, "load": 5.0, "decide": 10.0,
                          "record": 6.0, "courier": 4.0}},
    "salesforce": {"messages": 100, "rate": 600.0, "delivered_rate": 400.0, "deliveries": 240,
                   "deliveries_rate": 960.0, "dead": 0, "cpu_us": CPU},
    "growth": [{"store": "sqlite", "stored_message_bytes": 400, "senders": 64, "rate": 1000.0,
                "steps": [{**STEP, "entries": 0, "made_per_second": None, "searches": {}}, STEP]}],
    "soak": {"store": "sqlite", "seconds": 1800.0, "asked_rate": 300.0, "sent": 540_300, **MS, "pending_max": 3,
             "memory_mb": {"first": 140.0, "last": 150.0, "max": 151.0, "slope_mb_per_hour": 1.25,
                           "settled_after_seconds": 360.0},
             "samples": [{"seconds": 5.0, "proportional_mb": 140.0, "resident_mb": [90.0, 80.0]},
                         {"seconds": 400.0, "proportional_mb": 150.0, "resident_mb": [91.0, 81.0, 70.0]}],
             "series": [{"seconds": 0.0, **MS}, {"seconds": 5.0, **MS}]},
}  # fmt: skip


def test_every_part_has_its_table_and_every_row_its_cells() -> None:
    found = list(sections(RESULT))
    assert [section.part for section in found] == [
        "targets", "throughput", "latency", "processor", "openloop", "deadlines", "cpu", "cores", "salesforce",
        "growth", "searches", "soak",
    ]  # fmt: skip
    for section in found:
        assert section.rows
        assert {len(row) for row in section.rows} == {len(section.headers)}


@pytest.mark.parametrize("part", ["runs", "openloop", "deadlines", "cpu", "salesforce", "growth", "soak"])
def test_a_part_that_was_not_measured_is_left_out(part: str) -> None:
    less = {**RESULT, part: [] if part == "runs" else None}
    assert 0 < len(list(sections(less))) < len(list(sections(RESULT)))


def test_targets_are_judged_by_the_figures() -> None:
    assert [(measured, met) for _, measured, met in targets(RESULT)] == [
        ("0.40 (20,123/s)", "yes"),
        ("3,999/s", "no"),
        ("9.88 ms", "yes"),
        ("1.10 times", "yes"),
        ("1.2 s", "yes"),
        ("0.84 of them", "no"),
        ("151 MB, 1.25 MB/h", "yes"),
    ]


def test_the_report_is_written_with_its_charts(tmp_path: Path) -> None:
    file = tmp_path / "two-cores.json"
    file.write_text(json.dumps(RESULT))
    written = write_report([file], tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {file.name, *(path.name for path in written)}
    for chart in written[1:]:
        assert f"({chart.name})" in text
        assert chart.read_text().startswith("<svg ")
    for shown in ("Test CPU", "[two-cores.json](two-cores.json)", "20,123", "python-hl7", "`workers: 2`", "10,000,640"):
        assert shown in text
    assert len(written) == 11


def test_the_story_of_the_profile_is_linked_when_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "profile.md").write_text("what it is spent on")
    file = tmp_path / "a.json"
    file.write_text(json.dumps(RESULT))
    write_report([file], tmp_path)
    assert "[profile.md](profile.md)" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("content", ["{}", "[]", "not json", json.dumps({**RESULT, "format": 1})])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(BenchError, match=r"other\.json: is no result"):
        write_report([file], tmp_path)
    assert not (tmp_path / "README.md").exists()


def test_a_result_without_extras_can_be_reported(tmp_path: Path) -> None:
    bare = copy.deepcopy(RESULT) | {"settings": {}, "runs": [], "generator": None, "memory_mb": None}
    for part in ("openloop", "deadlines", "cpu", "salesforce", "growth", "soak"):
        del bare[part]
    file = tmp_path / "bare.json"
    file.write_text(json.dumps(bare))
    assert write_report([file], tmp_path) == [tmp_path / "README.md"]


def test_a_slope_is_the_straight_line_through_all_points() -> None:
    assert slope_per_hour([(0.0, 100.0), (1800.0, 101.0), (3600.0, 102.0)]) == pytest.approx(2.0)
    assert slope_per_hour([(0.0, 100.0), (10.0, 104.0), (20.0, 96.0), (30.0, 100.0)]) == pytest.approx(-288.0)
    assert slope_per_hour([(5.0, 1.0)]) is None
    assert slope_per_hour([(5.0, 1.0), (5.0, 2.0)]) is None
