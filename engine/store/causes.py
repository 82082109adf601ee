"""The journal's door for causes that are no messages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from engine.domain.cause import Cause, action_of, written
from engine.domain.message import Receipt, Summary
from engine.store.journal import Journal, Stored
from engine.store.keys import KeyRing
from engine.store.partitions import ordering_key_of


def put(journal: Journal, keys: KeyRing, conn: Connection, causes: Sequence[Cause], now: datetime) -> list[Stored]:
    """Put causes into the journal; in a transaction of its ledger. One that is known by its name (`Cause.once`) is not
    put there again: its result has no id, and says which entry it is.
    """
    return journal.append(conn, [receipt_of(keys, cause, now) for cause in causes])


def receipt_of(keys: KeyRing, cause: Cause, now: datetime) -> Receipt:
    payload = written(cause)
    known = keys.lookup("cause", cause.once) if cause.once is not None else None
    return Receipt(
        channel=cause.kind.lane,
        peer=cause.actor,
        received_at=now,
        payload=payload,
        summary=Summary(type=action_of(cause), control_id=cause.once),
        dedupe_key=known,
        # Of the name, not of the content: what is due is so once, whatever chart the patient has by then.
        digest=known if known is not None else keys.lookup(payload),
        ordering_key=ordering_key_of(cause.chart_id),
        once=known is not None,
    )
