"""What of a patient went out, and who has looked: what the accounting of disclosures is made from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, func, select, union

from engine.domain.audit import EVENTS
from engine.domain.delivery import DeliveryState, Operation, chart_of_line
from engine.store.schema import audit, audit_patient, concerned, delivery, from_micros, outcome, to_micros

_DISCLOSING: Final = tuple(sorted(name for name, event in EVENTS.items() if event.discloses))
_SENT: Final = (DeliveryState.DELIVERED.value, DeliveryState.HELD.value)


class Sent(NamedTuple):
    """A copy that went out, or (held) of which nobody knows whether it did."""

    destination: str
    operation: str
    at: datetime
    state: DeliveryState
    mark: str | None


class Look(NamedTuple):
    """Something on the trail by which somebody saw, or was sent, what is about the patient."""

    seq: int
    action: str
    actor: str
    at: datetime
    purpose: str | None


def sent(conn: Connection, chart_ids: Sequence[str], since: datetime, until: datetime) -> list[Sent]:
    """In order of time. chart_ids: all charts of the patient (`ChartStore.family`)."""
    about = union(
        select(outcome.c.entry_id).where(outcome.c.chart_id.in_(chart_ids)),
        select(concerned.c.entry_id).where(concerned.c.chart_id.in_(chart_ids)),
    )
    columns = (
        delivery.c.id, delivery.c.destination, delivery.c.operation, delivery.c.ordering_key, delivery.c.state,
        delivery.c.settled_at, delivery.c.disclosed,
    )  # fmt: skip
    when = (
        delivery.c.state.in_(_SENT),
        delivery.c.settled_at >= to_micros(since),
        delivery.c.settled_at < to_micros(until),
    )
    of_entries = select(*columns).where(delivery.c.entry_id.in_(about), *when)
    resent = select(*columns).where(delivery.c.entry_id.is_(None), delivery.c.ordering_key.in_(chart_ids), *when)
    wanted = set(chart_ids)
    rows = {row.id: row for statement in (of_entries, resent) for row in conn.execute(statement)}
    return [
        Sent(row.destination, row.operation, from_micros(row.settled_at), DeliveryState(row.state), row.disclosed)
        for row in sorted(rows.values(), key=lambda row: (row.settled_at, row.id))
        # An entry can be about several patients; a message that is passed on is about all of them.
        if row.operation == Operation.FORWARD or chart_of_line(row.ordering_key) in wanted
    ]


def entries_of(conn: Connection, chart_ids: Sequence[str], *, limit: int) -> list[int]:
    """Ids of the entries that were about these charts, the oldest first."""
    about = union(
        select(outcome.c.entry_id).where(outcome.c.chart_id.in_(chart_ids)),
        select(concerned.c.entry_id).where(concerned.c.chart_id.in_(chart_ids)),
    ).subquery()
    return list(conn.execute(select(about.c.entry_id).order_by(about.c.entry_id).limit(limit)).scalars())


def of_others_too(conn: Connection, entry_ids: Sequence[int], chart_ids: Sequence[str]) -> set[int]:
    """Those of the entries that are about other charts than these, too."""
    about = union(
        *(
            select(table.c.entry_id).where(table.c.entry_id.in_(entry_ids), table.c.chart_id.not_in(chart_ids))
            for table in (concerned, outcome)
        )
    )
    return set(conn.execute(about).scalars())


def patients_between(conn: Connection, since: datetime | None, until: datetime | None, *, limit: int) -> list[str]:
    """Ids of the charts that appear in records of a time."""
    when = [audit.c.at >= to_micros(since)] if since is not None else []
    when += [audit.c.at < to_micros(until)] if until is not None else []
    listed = select(audit_patient.c.chart_id).join(audit, audit.c.seq == audit_patient.c.seq).where(*when)
    return list(conn.execute(listed.distinct().limit(limit)).scalars())


def seen_by(conn: Connection, actor: str, since: datetime | None, until: datetime | None, *, limit: int) -> list[str]:
    """Ids of the charts that somebody saw, in the order of the first look."""
    when = [audit.c.actor == actor, audit.c.action.in_(_DISCLOSING), audit.c.result == "allowed"]
    when += [audit.c.at >= to_micros(since)] if since is not None else []
    when += [audit.c.at < to_micros(until)] if until is not None else []
    first = func.min(audit.c.seq)
    statement = (
        select(audit_patient.c.chart_id)
        .join(audit, audit.c.seq == audit_patient.c.seq)
        .where(*when)
        .group_by(audit_patient.c.chart_id)
        .order_by(first)
        .limit(limit)
    )
    return list(conn.execute(statement).scalars())


def looks(conn: Connection, chart_ids: Sequence[str], since: datetime, until: datetime) -> list[Look]:
    """In order of time. What somebody asked for and then saw unmasked is one."""
    listed = select(audit_patient.c.seq).where(audit_patient.c.chart_id.in_(chart_ids))
    statement = (
        select(audit.c.seq, audit.c.action, audit.c.actor, audit.c.at, audit.c.purpose)
        .where(
            audit.c.action.in_(_DISCLOSING),
            audit.c.result == "allowed",
            audit.c.at >= to_micros(since),
            audit.c.at < to_micros(until),
            audit.c.seq.in_(listed) | audit.c.subject.in_([f"chart:{one}" for one in chart_ids]),
        )
        .order_by(audit.c.seq)
    )
    found = {(row.actor, row.at): row for row in conn.execute(statement)}
    return [Look(row.seq, row.action, row.actor, from_micros(row.at), row.purpose) for row in found.values()]
