"""`handoff appointments`: visits that are booked, or asked for."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import click

from engine.cli.common import (
    Cli,
    clock_time,
    config_option,
    limit_option,
    list_options,
    reveal_options,
    shadow_option,
    time_column,
)
from engine.cli.desk import PATIENT_HELP, PatientKey, first_of, open_desk, reveal_of
from engine.cli.tables import Column, table
from engine.cli.times import TIMES, When, read_time
from engine.desk import finding

STATUSES: Final = ("requested", "booked", "arrived", "kept", "cancelled", "noshow", "entered_in_error")


@click.group("appointments")
@config_option
def appointments() -> None:
    """Appointments of patients, as scheduling systems tell of them (SIU)."""


@appointments.command("list", epilog=f"{TIMES} A span without a sign lies ahead: --until 2d is in two days.")
@click.option("--patient", metavar="KEY", type=PatientKey(), help=PATIENT_HELP)
@click.option("--status", "statuses", type=click.Choice(STATUSES), multiple=True, help="So; may be repeated.")
@click.option("--since", "starts_from", type=When(ahead=True), help="Starting then or later (-2d: two days ago).")
@click.option("--until", "starts_before", type=When(ahead=True), help="Starting before.")
@limit_option
@reveal_options
@shadow_option
@list_options
@config_option
@click.pass_obj
def list_(
    cli: Cli,
    patient: str | None,
    statuses: tuple[str, ...],
    starts_from: datetime | None,
    starts_before: datetime | None,
    limit: int,
    reveal: bool,
    reason: str | None,
) -> None:
    """List appointments by their time; those without one come last.

    Without an option these are the ones from today on; with --json, which scripts read, all that there are.
    """
    from engine.domain.appointment import AppointmentStatus
    from engine.domain.shapes import appointment_shape

    wish = reveal_of(reveal, reason)
    ahead_only = not (patient or statuses or starts_from or starts_before or cli.json)
    if ahead_only:
        starts_from = read_time("today", cli.clock.now(), cli.zone)
    with open_desk(cli) as desk:
        chart = finding.chart(desk, patient) if patient else None
        conditions: dict[str, Any] = {
            "statuses": [AppointmentStatus(status) for status in statuses],
            "chart_ids": [chart.id] if chart else None,
            "starts_from": starts_from,
            "starts_before": starts_before,
        }
        with desk.store.reader() as conn:
            store = desk.store.appointments
            found = first_of(cli, desk, conn, store, limit, narrow="--patient, --status, --until", **conditions)
            others = store.count(conn) - store.count(conn, **conditions) if ahead_only else 0
        view = desk.view(wish, (f"chart:{item.chart_id}" for item in found))
    shapes = [
        view.of(item.chart_id).part("appointment", appointment_shape(item.appointment, item.patient_key))
        for item in found
    ]
    filtered = not ahead_only and (patient or statuses or starts_from or starts_before)
    none = f"No appointments{' from today on' if ahead_only else ' that match these options' if filtered else ''}."
    text = appointment_table(shapes) or none
    more = f"\n{others:,} more are over, or have no time yet (--since -90d, --status requested)." if others else ""
    cli.print(shapes, text + more)


def appointment_table(shapes: list[dict[str, Any]], *, of_patient: bool = False) -> str:
    rows = [
        (s["id"], s["status"], clock_time(s["starts_at"]), words(s["service"]), words(s["clinician"]),
         words(s["location"]), s["task"], s["replaced_by"], *([] if of_patient else [s["patient_key"]])) for s in shapes
    ]  # fmt: skip
    columns: tuple[str | Column, ...] = (
        Column("id", kind="id"), Column("status", alarm={"noshow"}), time_column("starts"),
        Column("service", least=8, drop=2), Column("clinician", least=8, drop=2), Column("place", least=8, drop=3),
        Column("task", kind="id", drop=2), Column("moved to", kind="id", drop=1, common=True),
        *([] if of_patient else ["patient"]),
    )  # fmt: skip
    return table(columns, rows)


def words(shape: dict[str, Any] | None) -> str | None:
    """What a code, a place or a clinician is called; masked as its parts are."""
    if shape is None:
        return None
    return " ".join(dict.fromkeys(str(value) for value in shape.values() if value))
