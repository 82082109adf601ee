"""Small examples of everything that is stored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import text

from engine.domain.audit import AuditRecord
from engine.domain.chart import Chart, Charts
from engine.domain.delivery import Delivery, Operation
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.message import AckCode, AckState, EntryState, Receipt, Summary
from engine.domain.moment import Moment
from engine.domain.outcome import Outcome
from engine.domain.partition import PARTITIONS
from engine.domain.parts import folded
from engine.domain.patient import Identifier, Name, Patient
from engine.domain.score import Band, Factor, Score
from engine.domain.task import Task, TaskState
from engine.pipeline.closing import closed_up
from engine.store import Store, bound, fence, schema
from engine.store.bound import Bound
from engine.store.journal import Stored
from engine.store.keys import KeyRing
from engine.store.letters import Letter, letter_mac

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
CHANNEL = "main-campus"


def receipt(keys: KeyRing, control_id: str | None = "C1", content: str = "", **more: Any) -> Receipt:
    """A receipt as the intake makes it: same control id and content, same message."""
    channel = more.pop("channel", CHANNEL)
    payload = more.pop("payload", f"MSH|^~\\&|||||||ADT^A01|{control_id}|{content}".encode())
    fields: dict[str, Any] = {
        "channel": channel,
        "peer": "10.0.0.4:51022",
        "received_at": NOW,
        "payload": payload,
        "summary": Summary(control_id=control_id, type="ADT^A01", sending_application="EPIC"),
        "dedupe_key": keys.lookup(channel, "EPIC", "", control_id) if control_id else None,
        "digest": keys.lookup(payload),
        "ack": AckCode.AA,
        "ack_state": AckState.OWED,
    }
    return Receipt(**{**fields, **more})


def append(store: Store, *receipts: Receipt, **more: Any) -> list[Stored]:
    return store.journal_ledger.write_now(lambda conn: store.journal.append(conn, receipts, **more))


def patient(number: int = 1, **more: Any) -> Patient:
    fields: dict[str, Any] = {
        "identifiers": (Identifier(value=f"P{number}", authority="MRN", type="MR"),),
        "name": Name(family="Doe", given="Jane"),
        "birth_date": Moment.of("1958-07"),
        "phones": ("+12125550100",),
    }
    return Patient(**{**fields, **more})


def encounter(key: str = "MRN:V1", **more: Any) -> Encounter:
    return Encounter(key=key, visit_number=key.partition(":")[2], class_="I", status=EncounterStatus.ACTIVE, **more)


def score(key: str | None = "MRN:V1", model: str = "lace", **more: Any) -> Score:
    fields: dict[str, Any] = {
        "model": model,
        "version": "1",
        "value": 7,
        "min": 7,
        "max": 7,
        "band": Band.MODERATE,
        "band_max": Band.MODERATE,
        "factors": (Factor(name="age", points=2, evidence="age 78"),),
        "missing": (),
        "observed_since": NOW,
        "scored_at": NOW,
        "encounter": key,
    }
    return Score(**{**fields, **more})


def task(task_id: str = "t1", key: str = "MRN:V1", **more: Any) -> Task:
    fields: dict[str, Any] = {
        "id": task_id,
        "kind": "pcp_follow_up",
        "encounter": key,
        "due_at": NOW + timedelta(days=3),
        "escalate_at": NOW + timedelta(days=2),
        "state": TaskState.OPEN,
        "assignee": "care_coordinator",
        "reason": "band high",
        "protocol": "post-discharge",
        "discharge": 1,
        "created_at": NOW,
    }
    return Task(**{**fields, **more})


def chart(chart_id: str = "chart-1", number: int = 1, version: int = 1, **more: Any) -> Chart:
    """A chart with one encounter, whose parts are named after its number."""
    key = f"MRN:V{number}"
    fields: dict[str, Any] = {
        "id": chart_id,
        "version": version,
        "patient": patient(number),
        "stamps": {"name": (1.5, 1)},
        "encounters": (encounter(key),),
        "encounter_stamps": {key: {"status": (2.5, 1)}},
        "scores": (score(key),),
        "tasks": (task(f"task-{number}", key),),
    }
    return Chart(**{**fields, **more})


def changed(old: Chart, **more: Any) -> Chart:
    return msgspec.structs.replace(old, version=old.version + 1, **more)


def with_past(chart: Chart, *keys: str) -> Chart:
    """The chart with stays that are over, each with a score and a task that is done."""
    stays = [encounter(key, admitted_at=Moment.of(f"2025-01-0{n}T08:00:00+00:00")) for n, key in enumerate(keys, 1)]
    past = [msgspec.structs.replace(stay, status=EncounterStatus.FINISHED, disposition="01") for stay in stays]
    return changed(
        chart,
        encounters=(*past, *chart.encounters),
        encounter_stamps={**chart.encounter_stamps, **{key: {"status": (1.0, 1)} for key in keys}},
        scores=(*map(score, keys), *chart.scores),
        tasks=(*(task(f"t-{key}", key, state=TaskState.DONE) for key in keys), *chart.tasks),
    )


def close_all(chart: Chart) -> Chart:
    return closed_up(chart, over_max=0, kept=0, recent=timedelta(0))


def merged(survivor: Chart, other: Chart) -> tuple[Chart, Chart]:
    """Both charts after a merge, as the event rules make them."""
    identifiers = (*survivor.patient.identifiers, *other.patient.identifiers)
    patient = msgspec.structs.replace(survivor.patient, identifiers=identifiers, merged_from=(other.patient.key,))
    survivor, other = folded(survivor, other)
    return changed(survivor, patient=patient), changed(other, merged_into=survivor.id)


def delivery(key: str, destination: str = "crm", ordering_key: str = "chart-1", payload: bytes = b"{}") -> Delivery:
    return Delivery(
        destination=destination,
        operation=Operation.UPSERT_PATIENT,
        ordering_key=ordering_key,
        idempotency_key=key,
        payload=payload,
    )


def vouched(keys: KeyRing, one: Bound, **values: Any) -> dict[str, Any]:
    """A row of a table of `engine.store.bound`, as the engine writes it."""
    return {**values, "mac": bound.mac(keys, one, values)}


def outcome(entry_id: int, *charts: Chart, **more: Any) -> Outcome:
    fields: dict[str, Any] = {
        "entry_id": entry_id,
        "state": EntryState.PROCESSED,
        "chart_id": charts[0].id if charts else None,
        "patient_key": charts[0].patient.key if charts else None,
        "charts": charts,
        "config_version": "cfg1",
    }
    return Outcome(**{**fields, **more})


def charts_of(*charts: Chart) -> Charts:
    known = Charts()
    for one in charts:
        known.add(one)
    return known


def load(store: Store, *charts: Chart) -> Charts:
    """The charts as a processor would load them for a message that speaks of them."""
    identities = {(i.authority, i.type, i.value) for one in charts for i in one.patient.identifiers}
    visits = {item.key for one in charts for item in one.encounters}
    return store.read_now(lambda conn: store.charts.load(conn, identities, visits))


def record(
    store: Store,
    *outcomes: Outcome,
    before: Charts | None = None,
    cursor: int | None = None,
    channel: str = CHANNEL,
    now: datetime = NOW,
    **more: Any,
) -> int:
    """Record outcomes as the processor would; returns how many deliveries are new."""
    if cursor is None:
        cursor = positions(store).get(channel, 0)
    known = before or Charts()
    moves = dict.fromkeys(range(PARTITIONS), (cursor, outcomes[-1].entry_id if outcomes else cursor))
    recorded = store.charts_ledger.write_now(
        lambda conn: store.recorder.record(conn, outcomes, known, channel=channel, moves=moves, now=now, **more)
    )
    return recorded.deliveries


def positions(store: Store) -> dict[str, int]:
    """How far each channel is, all partitions together."""
    return {channel: min(cursors.values()) for channel, cursors in store.read_now(store.recorder.cursors).items()}


def queue(store: Store, *deliveries: Delivery, now: datetime = NOW) -> None:
    """Put deliveries into the outbox."""
    store.charts_ledger.write_now(lambda conn: store.recorder.queue(conn, deliveries, now=now, channel=CHANNEL))


def due(store: Store, destination: str = "crm", limit: int = 100, *, now: datetime = NOW, **more: Any) -> list[str]:
    """The idempotency keys of what may be sent now."""
    found = store.read_now(lambda conn: store.outbox.due(conn, destination, now, limit, **more))
    return [item.delivery.idempotency_key for item in found]


def ids(store: Store, keys: Sequence[str], destination: str = "crm") -> list[int]:
    """Ids of deliveries by idempotency key, whatever their state."""
    from sqlalchemy import select

    from engine.store.schema import delivery as table

    with store.reader() as conn:
        rows = conn.execute(select(table.c.idempotency_key, table.c.id).where(table.c.destination == destination))
        known = {row.idempotency_key: row.id for row in rows}
    return [known[key] for key in keys]


def said(store, **choice):
    """What the trail says, as it was given to it."""
    found = store.read_now(lambda conn: store.audit.find(conn, **choice))
    assert [one.damaged for one in found] == [None] * len(found)
    names = AuditRecord.__struct_fields__
    return [AuditRecord(**{name: getattr(one, name) for name in names}) for one in found]


def behind(store, *statements):
    """What somebody does who may write to the database: the fence around the trail is down meanwhile."""

    def write(conn):
        if conn.dialect.name != "sqlite":
            conn.execute(text("SET LOCAL session_replication_role = replica"))
        else:
            for made in fence.statements("sqlite", schema.CHARTS):
                conn.execute(text(f"DROP TRIGGER IF EXISTS {made.split()[2]}"))
        for statement in statements:
            conn.execute(text(statement) if isinstance(statement, str) else statement)
        if conn.dialect.name == "sqlite":
            for made in fence.statements("sqlite", schema.CHARTS):
                conn.execute(text(made))

    store.charts_ledger.write_now(write)


def dead_letter(keys: KeyRing, **more: Any) -> dict[str, Any]:
    """A row of the table."""
    row = {"entry_id": None, "channel": "c", "delivery_id": None, "stage": "processing", "error": "e", "location": None}
    row |= {"detail": "d", "died_at": 1} | {name: more.pop(name) for name in Letter._fields if name in more}
    return row | {"mac": letter_mac(keys, Letter(**row))} | more
