"""kill -9 at named points, under load: between any two steps that must not be confused."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from crashing.sitecustomize import POINTS
from harness import Daemon, Site
from rounds import SOAK, chance
from test_kill import Load, check_nothing_lost_nothing_twice

CRASHING = Path(__file__).with_name("crashing")
PASSES = (1, 30) if SOAK else (6, 12)
"""From, and below. Each pass is a group or a batch of messages, all of which are settled and counted at the end."""


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_loses_nothing_and_repeats_nothing(
    point: str,
    site: Site,
    make_daemon: Callable[..., Daemon],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    load = Load(pause_seconds=0.02)
    for round_ in range(2):
        told = tmp_path / f"died-{round_}"
        passes = chance(f"{point} {round_}").randrange(*PASSES)
        daemon = make_daemon(site, {"PYTHONPATH": str(CRASHING), "HANDOFF_TEST_CRASH": f"{point}:{passes}:{told}"})
        threads = load.run(daemon)
        until = time.monotonic() + 60
        while not told.exists():
            assert time.monotonic() < until, "the point was not passed"
            time.sleep(0.02)
        time.sleep(0.5)  # a worker is started again, and goes on under load
        if daemon.process is not None and daemon.process.poll() is None:
            load.wait_for(5 * round_)
        daemon.kill()
        for thread in threads:
            thread.join(timeout=30)
            assert not thread.is_alive()
    assert len(load.acknowledged) > 5, "the load was no load"
    record_property("kills", 4)
    record_property("acknowledged", len(load.acknowledged))
    check_nothing_lost_nothing_twice(site, make_daemon(site), load)
