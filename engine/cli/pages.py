"""`handoff pages`: who is being called, who has answered, and what became of each notification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.common import (
    Cli,
    Said,
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
from engine.domain.page import UNANSWERED, PageState

if TYPE_CHECKING:
    from engine.desk.seeing import View
    from engine.store.pages import ListedPage

STATES: Final = tuple(state.value for state in PageState)


@click.group("pages")
@config_option
def pages() -> None:
    """Pages: somebody on call must acknowledge, or the next in line is called."""


@pages.command("list")
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="In this state; may be repeated.")
@click.option("--all", "every", is_flag=True, help="In any state.")
@click.option("--patient", metavar="KEY", type=PatientKey(), help=PATIENT_HELP)
@limit_option
@reveal_options
@list_options
@config_option
@click.pass_obj
def list_(
    cli: Cli,
    states: tuple[str, ...],
    every: bool,
    patient: str | None,
    limit: int,
    reveal: bool,
    reason: str | None,
) -> None:
    """List pages; those that nobody has acknowledged come first.

    Without --state these are the ones that nobody has acknowledged and that are still needed; with --patient all of
    that patient; with --json, which scripts read, all that there are.
    """
    if every and states:
        raise click.UsageError("either --all or --state")
    wish = reveal_of(reveal, reason)
    unanswered_only = not (states or every or patient or cli.json)
    wanted = UNANSWERED if unanswered_only else frozenset(PageState(state) for state in states)
    with open_desk(cli) as desk:
        chart = finding.chart(desk, patient) if patient else None
        ids = [chart.id] if chart else None
        with desk.store.reader() as conn:
            narrow = "--state, --patient"
            found = first_of(cli, desk, conn, desk.store.pages, limit, narrow=narrow, states=wanted, chart_ids=ids)
        view = desk.view(wish, (f"chart:{item.chart_id}" for item in found))
    shapes = [_shape(item, view.of(item.chart_id)) for item in found]
    rows = [
        (s["id"], s["kind"], s["state"], s["ladder"], f"{s['level']}/{s['loop']}", clock_time(s["raised_at"]),
         clock_time(s["next_at"]), _who(s), s["patient_key"]) for s in shapes
    ]  # fmt: skip
    columns = (
        Column("id", kind="id"), Column("kind", drop=2, common=True),
        Column("state", alarm={"queued", "sent", "delivered", "exhausted"}), Column("ladder", drop=1, common=True),
        "level/loop", time_column("raised"), time_column("next"), Column("who", least=8), "patient",
    )  # fmt: skip
    none = "Nobody is being paged." if unanswered_only else "No pages that match these options."
    cli.print(shapes, table(columns, rows) or none)


@pages.command("show")
@click.argument("page_id", metavar="ID")
@reveal_options
@json_option
@config_option
@click.pass_obj
def show(cli: Cli, page_id: str, reveal: bool, reason: str | None) -> None:
    """Show a page with each of its notifications, and what became of them."""
    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        found = finding.listed(desk, desk.store.pages, page_id)
        shape = _shape(found, desk.view(wish, [f"chart:{found.chart_id}"]))
    cli.print(shape, _human(shape))


@pages.command("ack")
@click.argument("page_id", metavar="ID")
@click.option("--as", "who", metavar="WHO", type=Said(), help="Person of the rosters for whom you say it.")
@json_option
@config_option
@click.pass_obj
def ack(cli: Cli, page_id: str, who: str | None) -> None:
    """Acknowledge a page: nobody else is called. Without --as it is you.

    Whoever does it is on record, and shown as not on call when the ladder does not call them.
    """
    from engine.desk.acting import perform
    from engine.domain.cause import PageAcknowledged

    with open_desk(cli) as desk:
        found = finding.listed(desk, desk.store.pages, page_id)
        by = who or str(desk.actor)
        act = PageAcknowledged(actor=str(desk.actor), chart_id=found.chart_id, page=found.page.id, by=by)
        perform(desk, [act])
        view = desk.view(None, [f"chart:{found.chart_id}"])
        shape = _shape(finding.listed(desk, desk.store.pages, found.page.id), view)
    cli.print(shape, f"Page {shape['id']} is {_told(shape)}.")


def _shape(item: ListedPage, view: View) -> dict[str, Any]:
    from engine.domain.shapes import page_shape

    return view.part("page", page_shape(item.page, item.patient_key))


def _told(shape: dict[str, Any]) -> str:
    """The state in words: `acknowledged by lee, not on call`."""
    if shape["state"] == PageState.ACKNOWLEDGED:
        return f"acknowledged by {_who(shape)} {clock_time(shape['acknowledged_at'])}"
    if shape["state"] == PageState.RESOLVED and shape["end_reason"]:
        return f"resolved: {shape['end_reason']}"
    return str(shape["state"])


def _who(shape: dict[str, Any]) -> str | None:
    """Who has acknowledged; of one that nobody has, who was called last."""
    if shape["acknowledged_by"] is not None:
        return f"{shape['acknowledged_by']}{'' if shape['on_ladder'] else ', not on call'}"
    called = [step["person"] for step in shape["steps"] if step["person"] is not None]
    return called[-1] if called and shape["state"] != PageState.RESOLVED else None


def _human(shape: dict[str, Any]) -> str:
    next_at = f"  next      {named_time(shape['next_at'])}" if shape["next_at"] else ""
    lines = [
        f"{shape['id']}: {_told(shape)}",
        f"  for       {shape['kind']} of {shape['patient_key']}, task {shape['task']}",
        f"  ladder    {shape['ladder']}, version {shape['policy_version']}, roster {shape['roster']}",
        f"  raised    {named_time(shape['raised_at'])}",
        next_at,
    ]
    rows = [
        (clock_time(s["at"]), f"{s['level']}/{s['loop']}", s["person"], s["channel"], s["result"],
         clock_time(s["result_at"]), s["detail"]) for s in shape["steps"]
    ]  # fmt: skip
    columns = (
        time_column("called"), "level/loop", "person", "destination", Column("result", alarm={"failed", "skipped"}),
        time_column("since"), "detail",
    )  # fmt: skip
    return "\n".join(filter(None, [*lines, table(columns, rows)]))
