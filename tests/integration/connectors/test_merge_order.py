"""A merge all the way: messages in, real destinations out. Nothing of the old patient arrives after the merge."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from held_leases import held_leases
from peers.salesforce_org import SalesforceOrg

from engine.clock import SystemClock
from engine.connectors.base import Connector
from engine.connectors.file import FileConnector, FileDestination
from engine.connectors.registry import load
from engine.connectors.salesforce import SalesforceConnector
from engine.domain.delivery import DeliveryState
from engine.domain.message import Entry, EntryState, Summary
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.compiling import compile_configuration
from engine.pipeline.process import decide, prepare
from engine.runtime.courier import Courier, Route
from engine.settings import Channel, RetrySettings
from engine.snapshot import Snapshot
from engine.store import Store
from engine.store.outbox import Settled

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
QUICK = RetrySettings(first_seconds=0.01, seconds_max=0.02, breaker_failures=3, breaker_seconds=0.05)


class Feed:
    """Messages of the shipped channel, processed and recorded one by one."""

    def __init__(self, store: Store, destination: str) -> None:
        compiled = compile_configuration(load(Snapshot.read(ROOT / "config.yaml")), store.keys.id_of).channels[
            "main-campus"
        ]
        changes = {"deliver": [{"to": destination, "what": ["patient", "encounter", "score", "task"]}]}
        settings = msgspec.json.encode(compiled.settings.model_dump(mode="json") | changes)
        self._channel: CompiledChannel = dataclasses.replace(
            compiled, settings=Channel.model_validate_json(settings), observed_since=NOW
        )
        self._store = store
        self._id = 0

    def receive(self, trigger: str, mrn: str, *segments: str, day: int) -> None:
        lines = [
            f"MSH|^~\\&|EPIC|MAIN|||202603{day:02d}120000||ADT^{trigger}|{trigger}{mrn}{day}|P|2.5.1",
            f"EVN|{trigger}|202603{day:02d}120000",
            f"PID|1||{mrn}^^^MRN^MR||Doe^Jane||19480312|F|||{day} Main St^^Troy^NY^12180||21255501{day:02d}",
            *segments,
            "",
        ]
        old, self._id = self._id, self._id + 1
        entry = Entry(
            id=self._id, channel="main-campus", peer="test", received_at=NOW, payload="\r".join(lines).encode(),
            summary=Summary(),
        )  # fmt: skip
        prepared = prepare(entry, self._channel)
        charts = self._store.read_now(lambda conn: self._store.charts.load(conn, prepared.identities, prepared.visits))
        outcome = decide(prepared, self._channel, charts, NOW)
        assert outcome.state is EntryState.PROCESSED, outcome.reason
        self._store.charts_ledger.write_now(
            lambda conn: self._store.recorder.record(
                conn, [outcome], charts, channel="main-campus", moves={0: (old, self._id)}, now=datetime.now(UTC)
            )
        )


def stay(visit: str, **more: str) -> str:
    fields = {2: "I", 4: "E", 19: f"{visit}^^^MRN", 44: "20260301110000"} | {
        int(name[1:]): value for name, value in more.items()
    }
    return "|".join(["PV1", "1", *(fields.get(number, "") for number in range(2, 46))])


@asynccontextmanager
async def delivering(store: Store, connector: Connector) -> AsyncIterator[Courier]:
    settings = FileDestination(type="file", path="unused", retry=QUICK)
    made = Courier(
        store.outbox, store.charts_ledger, store.reader, {connector.name: Route(connector, settings)},
        clock=SystemClock(), leases=held_leases(store, connector.name),
    )  # fmt: skip
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        made.stop()
        await asyncio.wait_for(task, 60)


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not check():
            await asyncio.sleep(0.01)


def unfinished(store: Store) -> int:
    return sum(sum(states.values()) for states in store.read_now(store.outbox.unfinished).values())


def merge(feed: Feed, survivor: str, merged: str, day: int) -> None:
    feed.receive("A40", survivor, f"MRG|{merged}^^^MRN^MR", day=day)


async def test_an_org_that_locks_the_old_patient_until_after_the_merge_ends_with_everything_at_the_survivor(
    store: Store, org: SalesforceOrg, salesforce: Callable[..., SalesforceConnector]
):
    feed = Feed(store, "crm")
    feed.receive("A01", "1", stay("V1"), day=1)
    feed.receive("A01", "2", stay("V2"), day=2)
    async with delivering(store, salesforce()) as courier:
        await until(lambda: unfinished(store) == 0)
        org.fail(row="MRN:V1", code="UNABLE_TO_LOCK_ROW", times=1000)
        feed.receive("A03", "1", stay("V1", _36="01", _45="20260303110000"), day=3)
        courier.wake()
        await until(lambda: "UNABLE_TO_LOCK_ROW" not in {fault.code for fault in org.faults if fault.times > 995})
        merge(feed, "2", "1", 4)
        feed.receive("A08", "2", stay("V2"), day=5)
        courier.wake()
        calls = len(org.calls)
        await until(lambda: len(org.calls) > calls + 3)
        assert "MergedInto__c" not in org.one("Account", ExternalId__c="MRN:1")
        org.faults.clear()
        await until(lambda: unfinished(store) == 0)
    survivor = org.one("Account", ExternalId__c="MRN:2")
    assert org.one("Account", ExternalId__c="MRN:1")["MergedInto__c"] == "MRN:2"
    assert {row["Patient__c"] for row in org.find("HandoffEncounter__c")} == {survivor["Id"]}
    assert {row["WhatId"] for row in org.find("Task")} <= {survivor["Id"]}
    assert survivor["Phone"] == "+12125550105"
    bodies = [call.body.decode() for call in org.upserts()]
    told = next(number for number, body in enumerate(bodies) if "MergedInto__c" in body)
    assert [body for body in bodies[told + 1 :] if '"MRN:1"' in body] == []
    assert store.read_now(store.dead_letters.find) == []


@pytest.mark.parametrize("again", [False, True], ids=["merged", "merged again"])
async def test_a_delivery_of_the_old_patient_that_a_person_decides_on_late_comes_before_the_merge(
    store: Store, tmp_path: Path, again: bool
):
    feed = Feed(store, "files")
    feed.receive("A01", "1", stay("V1"), day=1)
    with store.reader() as conn:
        (first, *_) = store.outbox.due(conn, "files", datetime.now(UTC), 1)
    doubt = Settled(id=first.id, state=DeliveryState.HELD, attempts=1, error="no-answer")
    store.charts_ledger.write_now(lambda conn: store.outbox.settle(conn, [doubt], datetime.now(UTC)))
    feed.receive("A01", "2", stay("V2"), day=2)
    merge(feed, "2", "1", 3)
    survivor = "2"
    if again:
        survivor = "3"
        feed.receive("A28", "3", day=4)
        merge(feed, "3", "2", 5)
    feed.receive("A08", survivor, stay("V1"), day=6)
    target = FileConnector("files", tmp_path / "out", rotate_bytes=1 << 20, clock=SystemClock())
    async with delivering(store, target) as courier:
        courier.wake()
        await asyncio.sleep(0.1)
        store.charts_ledger.write_now(lambda conn: store.outbox.release(conn, first.id, datetime.now(UTC)))
        courier.wake()
        await until(lambda: unfinished(store) == 0)
    (path,) = (tmp_path / "out").iterdir()
    lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_bytes().splitlines()]
    for merged in ("MRN:1", *(("MRN:2",) if again else ())):
        told = next(number for number, line in enumerate(lines) if line.get("merged") == merged)
        assert merged in {whose(line) for line in lines[:told]}
        assert merged not in {whose(line) for line in lines[told:]}


def whose(line: dict[str, Any]) -> str | None:
    """The patient that a line is filed under."""
    if line["operation"] == "upsert_patient":
        return str(line["patient"]["key"])
    return line.get("patient_key") or line.get("task", {}).get("patient_key")
