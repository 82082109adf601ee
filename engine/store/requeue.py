"""Putting a buried or withheld delivery back into the outbox without telling its destination old news.

Such a delivery lets those behind it go on, so when it is put back, later ones may have been made: what it says of a
phone or of a status can be out of date, and so can the patient it names, who was merged. A delivery of an object
therefore goes out with what is true now; of a message that is forwarded there is no newer form, so one that later
messages of the patient have overtaken goes out only when a person says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, bindparam, literal_column, select, text

from engine.access.copies import CODES
from engine.domain.chart import Chart
from engine.domain.delivery import (
    CONTENTS,
    DELIVERY_MOVES,
    TEST_DATA,
    DeliveryEvent,
    DeliveryState,
    Operation,
    QueuedDelivery,
)
from engine.domain.ids import beginning_like
from engine.errors import StoreError, TamperedError
from engine.pipeline.admit import NOTICES
from engine.pipeline.deliver import Gone, as_of_now
from engine.store import admissions, notices
from engine.store.charts import ChartStore
from engine.store.keys import KeyRing
from engine.store.outbox import Outbox, Renewed, lines_of, take_lock
from engine.store.schema import admission, delivery, outcome
from engine.store.statements import Listed, Statement


class Requeued(StrEnum):
    """What became of a buried or withheld delivery that was to be put back."""

    AS_IT_WAS = "as_it_was"
    """It still says what is true."""
    RENEWED = "renewed"
    """It says what is true now, under an idempotency key of its own."""
    SUPERSEDED = "superseded"
    """There is nothing to send any more: its object is gone. It stays as it is."""


_OVERTAKEN: Final = Listed(
    outcome.c.chart_id,
    lambda listed: (
        select(delivery.c.id)
        .select_from(outcome)
        .join(delivery, delivery.c.entry_id == outcome.c.entry_id)
        .where(
            listed,
            outcome.c.entry_id > bindparam("entry"),
            delivery.c.destination == bindparam("destination"),
            delivery.c.operation == Operation.FORWARD.value,
            delivery.c.state == DeliveryState.DELIVERED.value,
        )
        .limit(literal_column("1"))
    ),
    ("entry", "destination"),
)


def requeue(
    conn: Connection, keys: KeyRing, delivery_id: int, now: datetime, *, out_of_order: bool = False
) -> Requeued:
    """Put a buried or withheld delivery back; in a transaction of the charts' ledger.

    out_of_order: forward a message although later ones of its patient have been delivered. Raises StoreError when the
    delivery is neither or can't be read, or when it must not go out as it is; then nothing was changed.
    """
    take_lock(conn)  # before the chart is read: whoever changes it from here on queues behind what this puts back
    outbox = Outbox(keys)
    queued = outbox.get(conn, delivery_id)
    if queued is None or (queued.state, DeliveryEvent.PUT_BACK) not in DELIVERY_MOVES:
        raise StoreError(f"delivery {delivery_id} is not a dead or withheld one")
    if queued.unreadable is not None:
        raise StoreError(
            f"delivery {delivery_id} can't be read ({queued.unreadable}), so it can't be sent. A replay of its entry"
            " does not make it anew; the next change of what it is about is sent. Discard it with a reason"
        )
    if queued.error == TEST_DATA:
        raise StoreError(f"delivery {delivery_id} is of test data, and its destination takes none (`test_data`)")
    chart = ChartStore(keys).living(conn, queued.delivery.chart_id)
    line = queued.delivery.ordering_key if chart is None or queued.delivery.operation in NOTICES else chart.id
    if (gone := notices.without_ground(conn, [delivery_id]).get(delivery_id)) is not None and gone.code.final:
        raise StoreError(f"delivery {delivery_id} is not sent any more: what it hung on is gone ({gone.code})")
    if not CONTENTS[queued.delivery.operation].is_state:
        forwarded = queued.delivery.operation is Operation.FORWARD
        if forwarded and chart is not None and not out_of_order and _overtaken(conn, keys, queued, chart.id):
            raise StoreError(
                f"delivery {delivery_id} is a message, and later ones of its patient were delivered there since:"
                " it could turn them back. Send it with --out-of-order, or discard it with a reason"
            )
        outbox.put_back(conn, delivery_id, now, ordering_key=line)
        return Requeued.AS_IT_WAS
    if chart is None:
        raise StoreError(f"delivery {delivery_id} is of a patient whose chart is not there: what it says may be old")
    if not _is_about(chart, queued):
        raise TamperedError(f"delivery.ordering_key:{delivery_id}")
    try:
        payload = _newest(conn, outbox, queued, chart)
    except Gone:
        return Requeued.SUPERSEDED
    if payload is None:
        outbox.put_back(conn, delivery_id, now, ordering_key=line)
        return Requeued.AS_IT_WAS
    # It begins as all keys of the chart do: by that `Outbox.told` finds what its destination was told of it.
    key = beginning_like(chart.id, keys.lookup("renewed", queued.delivery.idempotency_key, payload).hex())
    outbox.put_back(conn, delivery_id, now, ordering_key=line, renewed=Renewed(payload=payload, idempotency_key=key))
    return Requeued.RENEWED


def _newest(conn: Connection, outbox: Outbox, queued: QueuedDelivery, chart: Chart) -> bytes | None:
    """What is to be sent in place of the payload; none: the payload itself. Raises Gone.

    Not newer than what waits in the line for the same object: it would be turned back by that for a while.
    """
    old, said = queued.delivery, queued.delivery.content
    for other in outbox.waiting_behind(conn, queued.id, old.destination, chart.id):
        item = other.delivery
        alike = item.operation is old.operation and other.unreadable is None and _is_about(chart, other)
        if alike and item.content.about == said.about:
            return None if item.payload == old.payload else item.payload
    now = as_of_now(chart, said)
    return None if now == said else now.encoded()


def _is_about(chart: Chart, queued: QueuedDelivery) -> bool:
    """Whether a delivery is of this patient: its ordering key, which led to the chart, is not sealed."""
    known = {item.key for item in chart.patient.identifiers}
    return queued.delivery.content.whose in known


def _overtaken(conn: Connection, keys: KeyRing, queued: QueuedDelivery, chart_id: str) -> bool:
    family = ChartStore(keys).family(conn, {chart_id})
    return bool(_OVERTAKEN.rows(conn, sorted(family), queued.entry_id, queued.delivery.destination))


_OPEN: Final = select(admission.c.delivery_id).where(
    text("not_before IS NULL AND decision IS NULL"),  # as the index of the open ones has it: there are few
    literal_column(f"code IN ({', '.join(repr(code) for code in sorted(CODES))})"),
)
_IS_WITHHELD: Final = delivery.c.state == literal_column(f"'{DeliveryState.WITHHELD.value}'")
_WITHHELD: Final = Statement(
    select(delivery.c.id)
    .where(
        delivery.c.id.in_(_OPEN),
        _IS_WITHHELD,
        delivery.c.ordering_key >= bindparam("chart"),
        delivery.c.ordering_key < bindparam("behind"),
    )
    .order_by(delivery.c.id),
    ("chart", "behind"),
)


def ask_again(conn: Connection, keys: KeyRing, chart_id: str, now: datetime) -> None:
    """What restricts a patient's record has changed: what waits is asked whether it may leave, and what was withheld
    for it is put back, in order, and asked again. One that must not go out as it is stays for a person.
    """
    take_lock(conn)
    let_out(conn, keys, [row.id for row in _WITHHELD.rows(conn, *lines_of(chart_id))], now)
    Outbox(keys).mark(conn, chart_id)


def let_out(conn: Connection, keys: KeyRing, delivery_ids: Sequence[int], now: datetime) -> None:
    """Put back what was withheld because of a restriction, in order. It is asked again before it is sent."""
    for number in delivery_ids:
        try:
            put = requeue(conn, keys, number, now)
        except (StoreError, TamperedError):
            continue
        if put is Requeued.SUPERSEDED:
            admissions.close(conn, keys, [number])
        else:
            admissions.lift(conn, keys, [number], now)


_OF_DESTINATION: Final = Statement(
    select(delivery.c.id)
    .where(
        delivery.c.id.in_(_OPEN.where(admission.c.destination == bindparam("wanted"))),
        _IS_WITHHELD,
        delivery.c.id > bindparam("after"),
    )
    .order_by(delivery.c.id)
    .limit(literal_column("200")),
    ("wanted", "after"),
)


def withheld_after(conn: Connection, keys: KeyRing, destination: str, after: int) -> list[QueuedDelivery]:
    """Some of what waits for a person because of a restriction: those behind a number, in order."""
    outbox = Outbox(keys)
    found = [outbox.get(conn, row.id) for row in _OF_DESTINATION.rows(conn, destination, after)]
    return [one for one in found if one is not None]
