"""The benchmark runs with the real daemon; what it measures is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_the_benchmark_measures_the_daemon_beside_its_probes_and_leaves_nothing(tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    place = tmp_path / "place"
    place.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "engine", "bench", "--senders", "2", "--seconds", "0.5", "--messages", "120",
         "--folder", str(place), "--output", str(kept), "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert json.loads(kept.read_text()) == result
    [run] = result["runs"]
    assert run["senders"] == 2
    assert min(run["framer"]["rate"], run["append"]["rate"], run["acknowledged"]["rate"], run["to_the_end"]["rate"]) > 0
    assert run["acknowledged"]["wrong"] == 0
    # A stay is three messages; its discharge makes scores and tasks, and everything is delivered.
    assert run["to_the_end"]["messages"] == 120
    assert run["to_the_end"]["deliveries"] > 120
    assert run["to_the_end"]["dead"] == 0
    assert all(ratio > 0 for ratio in run["ratios"].values())
    assert result["machine"]["fdatasync_ms"]["p50"] > 0
    assert result["start_seconds"]["first"] > 0
    assert len(result["memory_mb"]["resident"]) == 2
    assert list(place.iterdir()) == []
