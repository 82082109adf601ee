"""Telling a destination the state of charts as it is now: one that is new, or was not told for a while (`shadow`).

What it was told last of each object is found in the outbox, so that nothing is sent that it has, and an interrupted run
goes on where it stopped. The order per patient is kept by the outbox: all of it stands behind what waits already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, func, select, text

from engine.domain.chart import Chart
from engine.domain.delivery import Delivery, DeliveryState, Operation, QueuedDelivery, ScoreUpsert
from engine.domain.ids import beginning_like
from engine.domain.record import Phi, Record
from engine.errors import KeyMissingError, TamperedError
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.deliver import Gone, as_of_now, state_deliveries
from engine.store.charts import ChartStore
from engine.store.keys import KeyRing
from engine.store.outbox import Outbox, take_lock
from engine.store.record import Recorder
from engine.store.schema import chart, outcome, to_micros
from engine.store.statements import Listed

PIECE: Final = 50
"""Charts in one transaction: others that write wait for it."""

_HEARD: Final = Listed(
    outcome.c.chart_id,
    lambda listed: (
        select(outcome.c.channel, func.max(outcome.c.entry_id).label("latest"))
        .where(listed)
        .group_by(outcome.c.channel)
    ),
)
_NOT_TOLD: Final = frozenset({DeliveryState.DEAD, DeliveryState.WITHHELD})
_LIVING: Final = text("merged_into IS NULL")


class Told(Phi, frozen=True, kw_only=True):
    """What one chart has to say to a destination. waiting: some of it waits in the outbox already."""

    chart_id: str
    patient_key: str | None = None
    channel: str | None = None
    """Whose books count the deliveries; none: no channel that the patient was heard of on delivers there."""
    deliveries: tuple[Delivery, ...] = ()
    unchanged: int = 0
    """Objects of which it has this very state, or will have it from what waits."""
    damaged: bool = False


class Tally(Record, frozen=True, kw_only=True):
    """What a run came to. patients: told something. unchanged: have it all. elsewhere: of no channel that delivers
    there. damaged: can't be read any more.
    """

    patients: int = 0
    unchanged: int = 0
    elsewhere: int = 0
    damaged: int = 0
    deliveries: Mapping[str, int] = {}
    """By operation."""

    def plus(self, told: Sequence[Told]) -> Tally:
        counted = Counter(self.deliveries)
        counted.update(item.operation.value for one in told for item in one.deliveries)
        return Tally(
            patients=self.patients + sum(bool(one.deliveries) for one in told),
            unchanged=self.unchanged + sum(_has_it_all(one) for one in told),
            elsewhere=self.elsewhere + sum(one.channel is None and not one.damaged for one in told),
            damaged=self.damaged + sum(one.damaged for one in told),
            deliveries=dict(counted),
        )


def _has_it_all(told: Told) -> bool:
    return told.channel is not None and not told.deliveries and not told.damaged


def chart_ids(conn: Connection, *, after: str = "", since: datetime | None = None, limit: int = PIECE) -> list[str]:
    """The next living charts in the order of their ids; since: that changed at or after."""
    statement = select(chart.c.id).where(_LIVING, chart.c.id > after).order_by(chart.c.id).limit(limit)
    if since is not None:
        statement = statement.where(chart.c.updated_at >= to_micros(since))
    return list(conn.execute(statement).scalars())


class Resender:
    """Works out what a destination is to be told, and puts it into the outbox.

    channels: those that deliver charts to it. again: also what it has.
    """

    def __init__(
        self, keys: KeyRing, destination: str, channels: Mapping[str, CompiledChannel], *, again: bool = False
    ) -> None:
        self._keys = keys
        self._destination = destination
        self._channels = channels
        self._again = again
        self._charts = ChartStore(keys)
        self._outbox = Outbox(keys)

    def look(self, conn: Connection, ids: Sequence[str]) -> list[Told]:
        """What the charts have to say, without writing it."""
        return [self._of(conn, chart_id) for chart_id in ids]

    def queue(self, conn: Connection, ids: Sequence[str], now: datetime) -> list[Told]:
        """Put it into the outbox; in a transaction of the charts' ledger."""
        take_lock(conn)  # before the charts are read: whoever changes one from here on queues behind this
        told = self.look(conn, ids)
        recorder = Recorder(self._keys)
        for name in sorted({one.channel for one in told if one.channel is not None}):
            deliveries = [item for one in told if one.channel == name for item in one.deliveries]
            recorder.queue(conn, deliveries, channel=name, now=now)
        return told

    def _of(self, conn: Connection, chart_id: str) -> Told:
        try:
            found = self._charts.living(conn, chart_id)
        except (TamperedError, KeyMissingError):
            return Told(chart_id=chart_id, damaged=True)
        if found is None or found.id != chart_id:
            return Told(chart_id=chart_id)  # merged meanwhile: its survivor has its own turn
        relatives = sorted(self._charts.family(conn, {chart_id}))
        heard = sorted(_HEARD.rows(conn, relatives), key=lambda row: -row.latest)
        names = list(dict.fromkeys(row.channel for row in heard if row.channel in self._channels))
        if not names:
            return Told(chart_id=chart_id, patient_key=found.patient.key)
        known = self._known(conn, chart_id)
        merged = self._merged(conn, chart_id, [one for one in relatives if one != chart_id])
        channels = [self._channels[name] for name in names]
        wanted = state_deliveries(found, channels, self._destination, merged=merged)
        wanted += _withdrawn(found, known, wanted) if _takes_scores(channels, self._destination) else []
        chosen: list[Delivery] = []
        for item in wanted:
            last = known.get((item.operation, item.content.about))
            if last is not None and not self._again and last.state not in _NOT_TOLD and _same(item, last):
                continue
            # By content, and by what it follows: a run again has the same keys, a state that comes back has another.
            key = self._keys.lookup(
                "resend", self._destination, item.idempotency_key, item.payload, str(last.id if last else 0)
            ).hex()
            chosen.append(msgspec.structs.replace(item, idempotency_key=beginning_like(chart_id, key)))
        return Told(
            chart_id=chart_id,
            patient_key=found.patient.key,
            channel=names[0],
            deliveries=tuple(chosen),
            unchanged=len(wanted) - len(chosen),
        )

    def _known(self, conn: Connection, chart_id: str) -> dict[tuple[Operation, Any], QueuedDelivery]:
        """The last delivery of each object of a patient."""
        return {
            (item.operation, item.content.about): queued
            for queued in self._outbox.told(conn, self._destination, chart_id, {chart_id})
            if queued.unreadable is None
            for item in (queued.delivery,)
        }

    def _merged(self, conn: Connection, survivor: str, ids: Sequence[str]) -> list[Chart]:
        """Charts that ended in this one and that the destination was told of: it must hear of their end."""
        charts: list[Chart] = []
        for chart_id in ids:
            one = self._charts.by_id(conn, chart_id)
            # What waited for it at the merge stands in the survivor's line since.
            if one is not None and self._outbox.told(conn, self._destination, chart_id, {chart_id, survivor}):
                charts.append(one)
        return charts


def _takes_scores(channels: Sequence[CompiledChannel], destination: str) -> bool:
    return any(one.to == destination and "score" in one.what for made in channels for one in made.settings.deliver)


def _withdrawn(
    found: Chart, known: Mapping[tuple[Operation, Any], QueuedDelivery], wanted: Sequence[Delivery]
) -> list[Delivery]:
    """Scores that the destination holds and the chart has no more."""
    about = {(item.operation, item.content.about) for item in wanted}
    gone: list[Delivery] = []
    for (operation, what), last in known.items():
        if operation is not Operation.UPSERT_SCORE or (operation, what) in about:
            continue
        try:
            now = as_of_now(found, last.delivery.content)
        except Gone:  # pragma: no cover - a score that is gone is withdrawn
            continue
        gone.append(msgspec.structs.replace(last.delivery, payload=now.encoded()))
    return gone


def _same(item: Delivery, last: QueuedDelivery) -> bool:
    """Whether it says what the destination was told last.

    An earlier stay's score is not told again when a later one decides: that it no longer does is told by the later one.
    """
    now, then = item.content, last.delivery.content
    if isinstance(now, ScoreUpsert) and isinstance(then, ScoreUpsert) and not now.decides:
        then = msgspec.structs.replace(then, decides=False)
    return now == then
