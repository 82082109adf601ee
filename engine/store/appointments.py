"""Appointments across charts: lists for the care team."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, Connection, func, select

from engine.domain.appointment import Appointment, AppointmentStatus
from engine.domain.record import Phi
from engine.errors import TamperedError
from engine.store.charts import ChartStore
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


class ListedAppointment(Phi, frozen=True, kw_only=True):
    """An appointment with the patient it is for."""

    appointment: Appointment
    chart_id: str
    patient_key: str


class AppointmentStore:
    """Reading appointments. They are written by `record` only, with their charts."""

    def __init__(self, charts: ChartStore) -> None:
        self._charts = charts

    def find(
        self,
        conn: Connection,
        *,
        limit: int = 100,
        damaged: Callable[[str], object] | None = None,
        **conditions: Unpack[AppointmentConditions],
    ) -> list[ListedAppointment]:
        """Appointments that meet all conditions, by time; those without one last.

        damaged: called with the id of each that can't be read any more, and which is left out then; without it such a
        one raises TamperedError.
        """
        where = _where(conditions)
        timed = select(appointment).where(*where, appointment.c.starts_at.is_not(None))
        rows = list(conn.execute(timed.order_by(appointment.c.starts_at, appointment.c.id).limit(limit)).all())
        if len(rows) < limit and conditions.get("starts_from") is None and conditions.get("starts_before") is None:
            others = select(appointment).where(*where, appointment.c.starts_at.is_(None))
            rows += conn.execute(others.order_by(appointment.c.id).limit(limit - len(rows))).all()
        keys = self._charts.patient_keys(conn, [row.chart_id for row in rows])
        found: list[ListedAppointment] = []
        for row in rows:
            try:
                item = APPOINTMENTS.open(self._charts.keys, row).appointment
                key = keys[row.chart_id]
            except (TamperedError, KeyError):
                if damaged is None:
                    raise TamperedError(f"appointment.document:{row.chart_id}/{row.id}") from None
                damaged(row.id)
            else:
                found.append(ListedAppointment(appointment=item, chart_id=row.chart_id, patient_key=key))
        return found

    def count(self, conn: Connection, **conditions: Unpack[AppointmentConditions]) -> int:
        """How many meet the conditions (see `find`)."""
        statement = select(func.count()).select_from(appointment).where(*_where(conditions))
        return int(conn.execute(statement).scalar_one())


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
