"""kill -9 in the middle of erasing and sweeping: after that it is erased everywhere, and nothing else is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crashing.sitecustomize import ERASING, SWEEPING
from harness import Daemon, MakeDaemon, Site, eventually
from peers.postgres_server import PostgresServer
from sqlalchemy import func, select

from engine.connectors.registry import load
from engine.snapshot import Snapshot
from engine.store import schema
from engine.store.opening import open_store
from engine.store.retention import of_charts

CRASHING = Path(__file__).with_name("crashing")
STAYS = 900
"""Number of the patient who stays."""


def person(trigger: str, number: int, control: str) -> bytes:
    return (
        f"MSH|^~\\&|EPIC|MAIN|HANDOFF|H|20260301120000||ADT^{trigger}|{control}|P|2.5.1\r"
        f"EVN|{trigger}|20260301120000\rPID|1||{number}^^^MRN^MR||Doe{number}^Jane||19480312|F\rPV1|1|N\r"
    ).encode()


def crash(point: str, told: Path, passes: int = 1) -> dict[str, str]:
    return {"PYTHONPATH": str(CRASHING), "HANDOFF_TEST_CRASH": f"{point}:{passes}:{told}"}


def killed(site: Site, point: str, told: Path, *arguments: str) -> None:
    """Run a command that dies at a point."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "engine", *arguments], cwd=site.folder, env=os.environ | crash(point, told),
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, told.exists()) == (-signal.SIGKILL, True), (point, done.stdout, done.stderr)


def left(site: Site) -> dict[str, Any]:
    """What is there: rows with a chart's id by table and chart, entries with a payload, deliveries with one, notes."""
    with open_store(load(Snapshot.read(site.config)), "tool") as store, store.reader() as conn:
        return {
            "charts": set(conn.execute(select(schema.chart.c.id)).scalars()),
            "rows": {
                (table.name, one)
                for table in of_charts()
                for one in conn.execute(select(table.c.chart_id).distinct()).scalars()
            },
            "messages": set(conn.execute(select(schema.payload.c.entry_id)).scalars()),
            "copies": conn.execute(select(func.count()).select_from(schema.delivery_payload)).scalar_one(),
            "noted": conn.execute(select(func.count()).select_from(schema.erasing)).scalar_one(),
        }


def known(site: Site, number: int) -> bool:
    return site.run("patients", "show", f"MRN:{number}", code=None).returncode == 0


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.close()


def test_patients_whose_erasing_was_killed_anywhere_are_erased_everywhere_and_nobody_else_is(
    site: Site, make_daemon: MakeDaemon, tmp_path: Path
) -> None:
    daemon = make_daemon(site)
    numbers = [*range(1, len(ERASING) + 1), STAYS]
    daemon.send(*(person(trigger, n, f"{trigger}-{n}") for n in numbers for trigger in ("A28", "A31")))
    daemon.settled()
    assert daemon.stop() == 0
    stays = site.json("patients", "show", f"MRN:{STAYS}")
    site.run("backup", str(tmp_path / "backups"))
    whole = left(site)
    for number, point in enumerate(ERASING, 1):
        killed(site, point, tmp_path / point, "patients", "erase", f"MRN:{number}", "--reason", "asked for", "--yes")
    assert left(site)["charts"] == whole["charts"], "no point lies before the end"
    make_daemon(site)
    after = eventually(lambda: (found := left(site)) and len(found["charts"]) == 1 and found)
    assert len(after["rows"]) < len(whole["rows"])
    assert {chart for _, chart in after["rows"]} == after["charts"]
    assert after["messages"] == {2 * len(ERASING) + 1, 2 * len(ERASING) + 2}
    assert (after["copies"], after["noted"]) == (whole["copies"] // len(numbers), 0)
    assert site.json("patients", "show", f"MRN:{STAYS}") == stays
    assert not any(known(site, number) for number in range(1, len(ERASING) + 1))
    assert site.json("audit", "verify")["ok"]
    site.run("ledger")
    back = site.json("restore", str(tmp_path / "backups"), str(tmp_path / "back"))
    assert (back["ok"], back["charts"]) == (True, 1)


@pytest.mark.parametrize("point", SWEEPING)
def test_a_node_that_is_killed_in_the_middle_of_a_sweep_is_followed_by_the_other(
    point: str, site: Site, make_daemon: Callable[..., Daemon], postgres: PostgresServer, tmp_path: Path
) -> None:
    """Old messages go, young ones stay, whoever of the two begins and dies."""
    ahead = tmp_path / "ahead"
    ahead.write_text("0")
    settings = f"purpose: test\nclock: {{offset_seconds_file: {ahead}}}\nretention: {{messages_days: 20}}"
    database = f"url: {postgres.url(postgres.new_database())}"
    site.edit(
        "config.yaml",
        (r"url: sqlite:\S+", database),
        (r"(?m)^node: .*$", f"node: north\nworkers: 1\n{settings}"),
    )
    other = Site(tmp_path / "south")
    shutil.copytree(site.folder, other.folder)
    other.edit("config.yaml", (r"(?m)^node: north$", "node: south"))
    daemon = make_daemon(site)
    old = [person("A31", n % 7, f"OLD{n}") for n in range(21)]
    daemon.send(*old)
    daemon.settled()
    assert daemon.stop() == 0
    site.run("backup", str(tmp_path / "backups"))
    ahead.write_text(str(25 * 86_400))
    told = tmp_path / "died"
    nodes = {name: make_daemon(one, crash(point, told)) for name, one in (("north", site), ("south", other))}
    nodes["south"].send(*(person("A31", n % 7, f"NEW{n}") for n in range(7)))
    eventually(told.exists)
    nodes["north"].kill()
    after = eventually(lambda: (found := left(other)) and not found["noted"] and len(found["messages"]) == 7 and found)
    assert after["messages"] == set(range(22, 29))
    assert len(after["charts"]) == 7
    nodes["south"].settled()
    assert other.json("audit", "verify")["ok"]
    other.run("ledger")
    back = json.loads(other.run("restore", str(tmp_path / "backups"), str(tmp_path / "back"), "--json").stdout)
    assert back["ok"]
    assert back["left_out"]["messages"] == len(old)
