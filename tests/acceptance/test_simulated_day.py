"""A simulated day through the real daemon, and the same day again: duplicates change nothing."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
from harness import Daemon, Site
from rounds import SOAK

MESSAGES = int(os.environ.get("HANDOFF_DAY_MESSAGES", "30000" if SOAK else "5000"))


OUTBOXES = ("outbox", "copy")


@pytest.fixture
def site(site: Site) -> Site:
    """With two destinations that want the same; who is called when is the clock's, and no matter here."""
    site.edit("mappings/protocols/post-discharge.yaml", (r" +page: on-call.*\n", ""))
    site.edit("config.yaml", (r"( *)files: (.*)var/outbox(.*?\}).*", r"\1files: \2var/outbox\3\n\1copy: \2var/copy\3"))
    site.edit("channels/main-campus.yaml", (r"( *- )\{to: files, (.*)", r"\1{to: files, \2\n\1{to: copy, \2"))
    return site


def day(daemon: Daemon) -> dict[str, Any]:
    answer: dict[str, Any] = daemon.site.json(
        "simulate", f"127.0.0.1:{daemon.port()}", "--messages", str(MESSAGES), "--connections", "16", "--seed", "7",
        "--day", "2026-03-02",
    )  # fmt: skip
    return answer


def effects(site: Site) -> tuple[int, list[int]]:
    """Open tasks, and lines at each destination."""
    tasks = site.json("tasks", "list", "--limit", "1000000")
    return len(tasks), [len(told(site, outbox)) for outbox in OUTBOXES]


def told(site: Site, outbox: str) -> list[str]:
    """What a destination was told, in its order; the keys and times are each destination's own."""
    files = sorted((site.folder / "var" / outbox).glob("*.ndjson"))
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    own = {"idempotency_key", "destination", "delivered_at"}
    return [json.dumps({name: value for name, value in line.items() if name not in own}) for line in lines]


def compares(site: Site) -> None:
    """Beside the daemon: today's own file changes nothing, one without a protocol takes the tasks, nobody is named."""
    own = site.folder / "channels/main-campus.yaml"
    draft = site.folder / "draft.yaml"
    draft.write_text(re.sub(r"(?m)^protocol:.*", "", own.read_text()))
    options = ("compare", "main-campus", "--limit", "500", "--html", "page.html", "--candidate")
    same = site.json(*options, str(own))
    assert same["compared"] == same["same"] == 500
    other = site.json(*options, str(draft), code=1)
    assert other["compared"] == other["same"] + other["changed"] == 500
    assert any(one["path"].startswith("tasks.") and one["after"] is None for one in other["differences"])
    patients = [json.loads(line).get("patient") for line in told(site, "outbox")]
    names = {one["name"]["family"] for one in patients if one and one["name"] and len(one["name"]["family"] or "") > 5}
    page = (site.folder / "page.html").read_text()
    assert names
    assert [name for name in names if name in page or name in json.dumps(other)] == []


def test_a_simulated_day_balances_twice_over_without_one_more_task_or_delivery(site: Site, daemon: Daemon) -> None:
    first = day(daemon)
    assert first["sent"] == MESSAGES
    ledger = daemon.settled(seconds=900)
    row = ledger[0]
    assert row["balanced"]
    assert row["received"] == MESSAGES
    assert row["processed"] + row["dead"] + row["filtered"] == MESSAGES
    assert row["processed"] > MESSAGES * 0.95
    assert row["deliveries"]["dead"] == row["deliveries"]["held"] == 0
    before = effects(site)
    assert before[0] > 0
    assert sum(before[1]) == row["deliveries"]["delivered"]
    assert sorted(told(site, "outbox")) == sorted(told(site, "copy"))
    site.run("ledger")

    second = day(daemon)
    assert second["sent"] == MESSAGES
    row = daemon.settled(seconds=900)[0]
    assert row["balanced"]
    assert (row["received"], row["duplicates"]) == (2 * MESSAGES, MESSAGES)
    assert effects(site) == before
    compares(site)
    assert effects(site) == before
    site.run("ledger")
    assert daemon.stop() == 0
    assert json.loads(site.run("ledger", "--json").stdout)[0]["balanced"]
