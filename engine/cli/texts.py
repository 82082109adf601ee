"""`handoff texts`: what patients are written, what did not go and why, and what they reply."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.common import (
    Cli,
    clock_time,
    config_option,
    json_option,
    limit_option,
    list_options,
    named_time,
    reveal_options,
    time_column,
)
from engine.cli.desk import PATIENT_HELP, PatientKey, first_of, open_desk, reveal_of
from engine.cli.tables import Column, table
from engine.desk import finding
from engine.domain.text import TextState
from engine.printable import singles

if TYPE_CHECKING:
    from engine.desk.seeing import View
    from engine.domain.text import Text

STATES: Final = tuple(state.value for state in TextState)
_WIDTH: Final = 78


@click.group("texts")
@config_option
def texts() -> None:
    """Texts to patients: what goes, what does not and why, and what they reply."""


@texts.command("list")
@click.option("--patient", metavar="KEY", type=PatientKey(), help=PATIENT_HELP)
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="In this state; may be repeated.")
@limit_option
@reveal_options
@list_options
@config_option
@click.pass_obj
def list_(cli: Cli, patient: str | None, states: tuple[str, ...], limit: int, reveal: bool, reason: str | None) -> None:
    """List texts by when they are wanted, the latest first: also those that did not go, each with its reason."""
    wish = reveal_of(reveal, reason)
    wanted = [TextState(state) for state in states]
    with open_desk(cli) as desk:
        chart = finding.chart(desk, patient) if patient else None
        ids = [chart.id] if chart else None
        with desk.store.reader() as conn:
            found = first_of(
                cli, desk, conn, desk.store.texts, limit, narrow="--patient, --state", states=wanted, chart_ids=ids
            )
        view = desk.view(wish, (f"chart:{item.chart_id}" for item in found))
    shapes = [_shape(item.text, item.patient_key, view.of(item.chart_id)) for item in found]
    cli.print(shapes, text_table(shapes, of_patient=patient is not None) or "No texts that match these options.")


def text_table(shapes: list[dict[str, Any]], *, of_patient: bool = False) -> str:
    rows = [
        (s["id"], s["step"], s["state"], s["reason"] if s["reason"] != s["state"] else None,
         clock_time(s["sent_at"] or s["due_at"] or s["planned_for"]), len(s["replies"]) or None,
         *([] if of_patient else [s["patient_key"]])) for s in shapes
    ]  # fmt: skip
    columns: tuple[str | Column, ...] = (
        Column("id", kind="id"), "text", Column("state", alarm={"failed"}), Column("reason", drop=1), time_column("at"),
        Column("replies", drop=2), *([] if of_patient else ["patient"]),
    )  # fmt: skip
    return table(columns, rows)


@texts.command("show")
@click.argument("text_id", metavar="ID")
@reveal_options
@json_option
@config_option
@click.pass_obj
def show(cli: Cli, text_id: str, reveal: bool, reason: str | None) -> None:
    """Show a text with its words and the replies to it. Why it went or did not: `handoff why ID`."""
    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        found = finding.listed(desk, desk.store.texts, text_id)
        view = desk.view(wish, [f"chart:{found.chart_id}"]).of(found.chart_id)
        shape = _shape(found.text, found.patient_key, view)
    cli.print(shape, _human(shape))


@texts.command("preview")
@click.argument("key", metavar="KEY", type=PatientKey())
@reveal_options
@json_option
@config_option
@click.pass_obj
def preview(cli: Cli, key: str, reveal: bool, reason: str | None) -> None:
    """Show the texts that lie ahead of a patient, as they would go now: words, number, and when.

    Nothing is sent. Each is decided on again when its time has come.
    """
    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        from engine.desk.texting import ahead

        chart = finding.chart(desk, key)
        found = ahead(desk, chart)
        view = desk.view(wish, [f"chart:{chart.id}"]).of(chart.id)
        shapes = [_shape(text, chart.patient.key, view) for text in found]
    cli.print(shapes, "\n\n".join(map(_human, shapes)) or "No texts lie ahead of this patient.")


def _shape(text: Text, patient_key: str, view: View) -> dict[str, Any]:
    from engine.domain.shapes import text_shape

    return view.part("text", text_shape(text, patient_key))


_TIMES: Final = (("planned_for", "planned for"), ("due_at", "waits until"), ("sent_at", "sent"),
                 ("delivered_at", "delivered"), ("answer_by", "answer by"), ("ended_at", "ended"))  # fmt: skip


def _human(shape: dict[str, Any]) -> str:
    reason = f" ({shape['reason']}{': ' + shape['detail'] if shape['detail'] else ''})" if shape["reason"] else ""
    rows = [f"{shape['id']}  {shape['series']}, {shape['step']}: {shape['state']}{reason}"]
    rows += [f"  {'to':<12} {shape['number'] or 'nobody yet'}"]
    rows += [f"  {said:<12} {named_time(shape[name])}" for name, said in _TIMES if shape[name]]
    if shape["body"]:
        rows.append(_wrapped("  says         ", shape["body"]))
    rows += [
        _wrapped(f"  reply        {clock_time(one['at'])} ", f"{one['text']} ({one['meaning'] or 'not read'})")
        for one in shape["replies"]
    ]
    return "\n".join(rows)


def _wrapped(head: str, text: str) -> str:
    return fill(str(singles(text)), width=_WIDTH, initial_indent=head, subsequent_indent=" " * 15)
