"""Appointments across charts: lists for the care team."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, Connection, or_, select

from engine.domain.appointment import Appointment, AppointmentStatus
from engine.store.charts import ChartStore
from engine.store.listed import Damaged, Listed, ListedStore
from engine.store.parts import APPOINTMENTS
from engine.store.schema import appointment, to_micros


class AppointmentConditions(TypedDict, total=False):
    """Which appointments; absent or none: any."""

    statuses: Collection[AppointmentStatus]
    """Empty: all."""
    chart_ids: Sequence[str] | None
    starts_from: datetime | None
    starts_before: datetime | None
    """Not included."""


class ListedAppointment(Listed, frozen=True, kw_only=True):
    """An appointment with the patient it is for."""

    appointment: Appointment


class AppointmentStore(ListedStore[ListedAppointment]):
    """Reading appointments."""

    def __init__(self, charts: ChartStore) -> None:
        super().__init__(charts, APPOINTMENTS, appointment, ListedAppointment)

    def find(
        self,
        conn: Connection,
        *,
        limit: int = 100,
        damaged: Damaged | None = None,
        after: tuple[datetime | None, str] | None = None,
        **conditions: Unpack[AppointmentConditions],
    ) -> list[ListedAppointment]:
        """Appointments that meet all conditions, by time; those without one last.

        after: those that stand behind this place (`key`).
        """
        where = _where(conditions)
        timed = select(appointment).where(*where, appointment.c.starts_at.is_not(None))
        rows: list[Any] = []
        if after is not None and after[0] is not None:
            at = to_micros(after[0])
            timed = timed.where(
                appointment.c.starts_at >= at, or_(appointment.c.starts_at > at, appointment.c.id > after[1])
            )
        if after is None or after[0] is not None:
            rows += conn.execute(timed.order_by(appointment.c.starts_at, appointment.c.id).limit(limit)).all()
        if len(rows) < limit and conditions.get("starts_from") is None and conditions.get("starts_before") is None:
            others = select(appointment).where(*where, appointment.c.starts_at.is_(None))
            if after is not None and after[0] is None:
                others = others.where(appointment.c.id > after[1])
            rows += conn.execute(others.order_by(appointment.c.id).limit(limit - len(rows))).all()
        return self._opened(conn, rows, damaged)

    def key(self, item: ListedAppointment) -> tuple[datetime | None, str]:
        """Where it stands in a list."""
        starts_at = item.appointment.starts_at
        return None if starts_at is None else starts_at.at, item.appointment.id

    def count(self, conn: Connection, **conditions: Unpack[AppointmentConditions]) -> int:
        """How many meet the conditions (see `find`)."""
        return self._count(conn, _where(conditions))


def _where(conditions: AppointmentConditions) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[Any]] = []
    if statuses := conditions.get("statuses"):
        where.append(appointment.c.status.in_([status.value for status in statuses]))
    if (chart_ids := conditions.get("chart_ids")) is not None:
        where.append(appointment.c.chart_id.in_(chart_ids))
    if (starts_from := conditions.get("starts_from")) is not None:
        where.append(appointment.c.starts_at >= to_micros(starts_from))
    if (starts_before := conditions.get("starts_before")) is not None:
        where.append(appointment.c.starts_at < to_micros(starts_before))
    return where
