"""`handoff quality`: what is wrong with the data of feeds, and what whoever looks after them does about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.common import (
    Cli,
    Said,
    clock_time,
    complete_channel,
    config_option,
    json_option,
    limit_option,
    list_options,
    named_time,
    reveal_options,
    shadow_option,
    time_column,
)
from engine.cli.desk import open_desk, reveal_of
from engine.cli.tables import Column, table, wrapped
from engine.desk import finding
from engine.domain.quality import MEANINGS, OTHERS, QualityKind, QualityState
from engine.errors import NotFoundError

if TYPE_CHECKING:
    from engine.desk.desk import Desk
    from engine.desk.seeing import View
    from engine.store.quality import ListedQuality

_ROW_MAX: Final = (1 << 63) - 1
_ID: Final = click.IntRange(1, _ROW_MAX)
_STATES: Final = tuple(state.value for state in QualityState)
_KINDS: Final = tuple(kind.value for kind in QualityKind)


@click.group("quality")
@config_option
def quality() -> None:
    """Faults of the data that feeds send: one item for all messages of a channel with the same."""


@quality.command("list")
@click.option("--state", type=click.Choice(_STATES), help="In this state.  [default: open; with --json any]")
@click.option("--all", "every", is_flag=True, help="In any state.")
@click.option("--kind", metavar="KIND", type=click.Choice(_KINDS), help="Of this kind, as the list names it.")
@click.option("--channel", metavar="NAME", shell_complete=complete_channel, help="Of this channel.")
@limit_option
@shadow_option
@list_options
@config_option
@click.pass_obj
def list_(cli: Cli, state: str | None, every: bool, kind: str | None, channel: str | None, limit: int) -> None:
    """List what is wrong with the data of feeds; what happened last comes first.

    The messages were taken, and what could be done with them was done. `quality show ID` says what an item means and
    what to do; `messages list --deviation CODE` finds the messages.
    """
    if every and state:
        raise click.UsageError("either --all or --state")
    wanted = QualityState(state) if state else None if every or cli.json else QualityState.OPEN
    with open_desk(cli) as desk:
        finding.check_channel(desk, channel)
        with desk.store.reader() as conn:
            found = desk.store.quality.find(conn, channel=channel, kind=kind, state=wanted, limit=limit + 1)
        view = desk.view(None, ())
    shapes = [_shape(one, view) for one in cli.first(found, limit)]
    rows = [
        (s["id"], s["kind"], s["detail"], s["channel"], f"{s['count']:,}", clock_time(s["last_at"]),
         s["example_entry"], s["state"]) for s in shapes
    ]  # fmt: skip
    columns = (
        "id", "kind", Column("field", least=6), Column("channel", least=8, drop=2, common=True), "count",
        time_column("last", drop=1), "example", Column("state", common=True),
    )  # fmt: skip
    filtered = any(one is not None for one in (kind, channel, state))
    nothing = f"Nothing is wrong{' that matches these options' if filtered else ' with the data that feeds send'}."
    cli.print(shapes, table(columns, rows) or nothing)


@quality.command("show")
@click.argument("item", metavar="ID", type=_ID)
@reveal_options
@shadow_option
@json_option
@config_option
@click.pass_obj
def show(cli: Cli, item: int, reveal: bool, reason: str | None) -> None:
    """Show what an item means, what to do, and a message with it."""
    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        found = _item(desk, item)
        shape = _shape(found, desk.view(wish, [f"quality:{item}"]))
    cli.print(shape, _human(shape))


@quality.command("resolve")
@click.argument("item", metavar="ID", type=_ID)
@click.option("--reason", required=True, type=Said(), metavar="TEXT", help="What was done; written to the audit.")
@json_option
@config_option
@click.pass_obj
def resolve(cli: Cli, item: int, reason: str) -> None:
    """It was seen to. When a further message has the same fault, the item opens again."""
    from engine.domain.cause import QualityResolved

    with open_desk(cli) as desk:
        act = QualityResolved(actor=str(desk.actor), chart_id=None, item=item, reason=reason)
        shape = _act(desk, act)
    cli.print(shape, f"{item} is done: {shape['kind']} of {shape['channel']}.")


@quality.command("reopen")
@click.argument("item", metavar="ID", type=_ID)
@click.option("--reason", required=True, type=Said(), metavar="TEXT", help="Why; written to the audit.")
@json_option
@config_option
@click.pass_obj
def reopen(cli: Cli, item: int, reason: str) -> None:
    """It is not over."""
    from engine.domain.cause import QualityReopened

    with open_desk(cli) as desk:
        act = QualityReopened(actor=str(desk.actor), chart_id=None, item=item, reason=reason)
        shape = _act(desk, act)
    cli.print(shape, f"{item} is open again: {shape['kind']} of {shape['channel']}.")


def _act(desk: Desk, act: Any) -> dict[str, Any]:
    from engine.desk.acting import perform

    _item(desk, act.item)
    perform(desk, [act])
    return _shape(_item(desk, act.item), desk.view(None, ()))


def _item(desk: Desk, item: int) -> ListedQuality:
    with desk.store.reader() as conn:
        found = desk.store.quality.get(conn, item)
    if found is None:
        raise NotFoundError("there is no such item; `handoff quality list --all` shows the ids")
    return found


def _shape(one: ListedQuality, view: View) -> dict[str, Any]:
    from engine.domain.shapes import plain

    meaning = MEANINGS.get(QualityKind(one.kind)) if one.kind in _KINDS else None
    return {
        "id": one.id,
        "kind": one.kind,
        "detail": one.detail or None,
        "channel": one.channel,
        "count": one.count,
        "first_at": plain(one.first_at),
        "last_at": plain(one.last_at),
        "example_entry": one.example_entry,
        "state": one.state.value,
        "text": meaning.text if meaning else None,
        "remedy": meaning.remedy if meaning else None,
        "deviations": list(meaning.deviations) if meaning else [],
        "decided_at": plain(one.decided_at),
        "decided_by": one.decided_by,
        "decision": view.text(one.decision),
        "unreadable": one.unreadable,
    }


def _human(shape: dict[str, Any]) -> str:
    field = f" in {shape['detail']}" if shape["detail"] and shape["detail"] != OTHERS else ""
    decided = ""
    if shape["decided_at"]:
        was = "done" if shape["state"] == QualityState.DONE else "decided before"
        decided = f"  {was:9} by {shape['decided_by']} {named_time(shape['decided_at'])}: {shape['decision']}"
    again = ""
    if shape["deviations"]:
        again = f"  find them handoff messages list --deviation {shape['deviations'][0]} --channel {shape['channel']}"
    lines = [
        f"{shape['id']}: {shape['kind']}{field}, channel {shape['channel']} ({shape['state']})",
        *wrapped(f"  means     {shape['text']}", indent=12),
        *wrapped(f"  to do     {shape['remedy']}", indent=12),
        f"  messages  {shape['count']:,}, first {named_time(shape['first_at'])}, last {named_time(shape['last_at'])}",
        f"  example   handoff messages show {shape['example_entry']}",
        again,
        decided,
        "  damaged   what was decided was altered: see `handoff audit list`" if shape["unreadable"] else "",
    ]
    return "\n".join(filter(None, lines))
