"""`handoff messages`: the journal, what arrived and what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from engine import printable
from engine.cli.common import (
    Cli,
    Listing,
    Row,
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
from engine.cli.desk import PATIENT_HELP, PatientKey, open_desk, reveal_of
from engine.cli.tables import Column, alarm, wrapped
from engine.cli.times import TIMES, When
from engine.desk import finding
from engine.desk.desk import Desk
from engine.desk.seeing import HIDDEN, entry_details, entry_shape
from engine.domain.message import EntryKind
from engine.domain.quality import MEANINGS, QualityKind
from engine.printable import singles

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.store.journal import ListedEntry

_DAMAGED: Final = {
    "message": "what is stored of the message can't be read any more; its sender has it still, and can send it again",
    "erased": "the message was kept long enough and is erased (`handoff help sweep`)",
    "outcome": "what is stored of its outcome can't be read any more; its deliveries and dead letters are above",
    "receipt": "what a destination called a delivery can't be read any more",
}

_ID: Final = Row(
    "an entry", "handoff messages list", "a control id is found by `handoff messages list --control-id {}`"
)
_PIECE: Final = 1000
"""Entries read at once: a list may be of a million."""
_LOOK_ENTRIES_MAX: Final = 200_000
"""Entries opened at most for a filter that looks into what is sealed (sender, deviation, without effect)."""

KINDS = (*(kind.value for kind in EntryKind), "all")
STATES = ("received", "processed", "filtered", "dead", "refused")


@click.group("messages")
@config_option
def messages() -> None:
    """What arrived, and what it caused."""


@messages.command("list", epilog=TIMES)
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="message",
    show_default=True,
    help="Messages, what people did, or deadlines that came.",
)
@click.option("--channel", metavar="NAME", shell_complete=complete_channel, help="Of this channel.")
@click.option("--state", type=click.Choice(STATES), help="What became of the message.")
@click.option("--control-id", metavar="ID", help="MSH-10.")
@click.option(
    "--sender", metavar="TEXT", help="Whose MSH-3 or MSH-4 is this, or both (EPIC/MAIN), also as it is shown."
)
@click.option("--patient", metavar="KEY", type=PatientKey(), help=PATIENT_HELP)
@click.option("--error", metavar="CODE", help="That left a dead letter with this code.")
@click.option("--deviation", metavar="CODE", help="With this deviation; `event-*` for all that begin so.")
@click.option("--without-effect", is_flag=True, help="Processed, and nothing was changed by it.")
@click.option("--flagged", is_flag=True, help="Whose control id had been used for another message.")
@click.option("--since", type=When(), help="Received at or after.")
@click.option("--until", type=When(), help="Received before.")
@click.option("--held", is_flag=True, help="Only those that left a question which waits for a person.")
@limit_option
@reveal_options
@shadow_option
@list_options
@config_option
@click.pass_obj
def list_(
    cli: Cli,
    kind: str,
    channel: str | None,
    state: str | None,
    control_id: str | None,
    sender: str | None,
    patient: str | None,
    error: str | None,
    deviation: str | None,
    without_effect: bool,
    flagged: bool,
    since: datetime | None,
    until: datetime | None,
    held: bool,
    limit: int,
    reveal: bool,
    reason: str | None,
) -> None:
    """List entries of the journal, newest first."""
    from engine.domain.message import EntryState

    wish = reveal_of(reveal, reason)

    def meant(item: ListedEntry) -> bool:
        """The conditions that only what is sealed can tell."""
        return (
            (sender is None or sender in _names(desk, item.sender))
            and (deviation is None or any(_is(code, deviation) for code in item.deviations))
            and (not without_effect or item.without_effect)
        )

    looking = sender is not None or deviation is not None or without_effect
    with open_desk(cli) as desk:
        finding.check_channel(desk, channel)
        finding.check_error(desk, error)
        conditions: dict[str, Any] = {
            "kind": None if kind == "all" else EntryKind(kind),
            "channel": channel,
            "state": EntryState(state) if state else None,
            "patient": finding.patient_key(desk, patient) if patient else None,
            "since": since,
            "until": until,
            "error": error,
            "flagged": flagged,
            "decided": desk.in_shadow,
            "held": held,
        }
        listing = Listing(cli, _columns())
        shown = 0
        more = False
        for page in _pages(cli, desk, conditions | {"control_id": control_id}, meant if looking else None, limit + 1):
            more = shown + len(page) > limit
            found = page[: limit - shown]
            shown += len(found)
            view = desk.view(wish, (f"entry:{entry.id}" for entry in found))
            shapes = [entry_shape(entry, view) for entry in found]
            listing.add(shapes, map(_row, shapes))
            if more:
                break
        if more:
            countable = not looking and control_id is None
            with desk.store.reader() as conn:
                cli.cut(shown, desk.store.journal.count(conn, **conditions) if countable else None)
    listing.print("No messages.")


def _pages(
    cli: Cli, desk: Desk, conditions: dict[str, Any], meant: Callable[[ListedEntry], bool] | None, wanted: int
) -> Iterator[list[ListedEntry]]:
    """What meets the conditions, piece by piece, newest first. wanted: so many are looked for."""
    if meant is None:
        yield from finding.pages(desk, conditions, min(wanted, _PIECE))
        return

    def cut(looked_at: int) -> None:
        cli.say(f"Only the latest {looked_at:,} entries were looked into; go further back with --until.")

    for page in finding.pages(desk, conditions, _PIECE, entries_max=_LOOK_ENTRIES_MAX, on_cut=cut):
        yield list(filter(meant, page))


def _names(desk: Desk, sender: str | None) -> set[str]:
    """All by which a sender may be asked for: `EPIC/MAIN`, `EPIC`, `~5be7d2aa/MAIN`."""
    both = [sender, desk.unnamed_sender(sender)] if sender else []
    return {name for one in both for name in (one, *one.split("/"))}


def _is(code: str, wanted: str) -> bool:
    return code.startswith(wanted[:-1]) if wanted.endswith("*") else code == wanted or code.startswith(f"{wanted}:")


def _columns() -> tuple[str | Column, ...]:
    return (
        "id",
        time_column("received"),
        Column("channel", least=8, drop=3, common=True),
        Column("sender", least=8, drop=5, common=True),
        "type",
        Column("control id", least=8, drop=1),
        Column("state", alarm={"dead", "refused"}),
        Column("ack", drop=4, alarm={"AE", "AR", "CE", "CR"}),
        Column("answer", drop=6, common=True, alarm={"unsent"}),
        "patient",
        Column("remark", least=8, drop=2),
    )


def _row(shape: dict[str, Any]) -> tuple[object, ...]:
    flagged = shape["flagged_duplicate_of"]
    said = ("test data" if shape["test"] else "", f"control id of {flagged}" if flagged else "")
    remark = "; ".join(filter(None, said)) or ("without effect" if shape["without_effect"] else None)
    return (
        shape["id"], clock_time(shape["received_at"]), shape["channel"], shape["sender"], shape["type"],
        shape["control_id"], shape["state"], shape["ack"], shape["ack_state"], shape["patient_key"], remark,
    )  # fmt: skip


@messages.command("show", short_help="Show one message and what it caused.")
@click.argument("entry_id", metavar="ID", type=_ID)
@reveal_options
@shadow_option
@json_option
@config_option
@click.pass_obj
def show(cli: Cli, entry_id: int, reveal: bool, reason: str | None) -> None:
    """Show one message: its answer, its outcome, what it caused, and with --reveal its text."""
    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        shape = entry_details(desk, entry_id, lambda: desk.view(wish, [f"entry:{entry_id}"]))
    cli.print(shape, human_entry(shape))


def told(shape: dict[str, Any]) -> str:
    """What a delivery says, in a few words that name nobody: `upsert_task pcp_follow_up retracted`."""
    match shape["payload"]:
        case None:
            return f"{shape['operation']} (its payload can't be read: {shape['unreadable']})"
        case {"score": {"model": model}, "withdrawn": withdrawn}:
            words = [model, "withdrawn" if withdrawn else ""]
        case {"task": {"kind": kind, "state": state}}:
            words = [kind, state]
        case _:
            words = []
    return " ".join(filter(None, (shape["operation"], *words)))


def fate(shape: dict[str, Any]) -> str:
    """What became of a delivery so far: attempts, the last error, when it is tried next, and how its destination is."""
    parts = [f"{shape['attempts']} attempts" if shape["attempts"] else "", shape["last_error"] or ""]
    destination = shape.get("destination_error")
    match shape["state"]:
        case "delivered":
            parts = [named_time(shape["delivered_at"]) or ""]
        case "withheld":
            parts.append(f"since {named_time(shape['withheld_at'])}" if shape["withheld_at"] else "")
        case "held":
            parts.append(f"since {named_time(shape['held_at'])}" if shape["held_at"] else "")
        case "pending":
            parts.append(f"{shape['destination']}: {destination}" if destination else "")
            waits = shape["last_error"] or destination
            parts.append(f"next try {named_time(shape['next_attempt_at'])}" if waits else "")
    if shape.get("receipt"):
        parts.append(f"receipt {shape['receipt']}")
    known = ", ".join(filter(None, parts))
    return f" ({known})" if known else ""


def fault_lines(quality: list[dict[str, Any]]) -> list[str]:
    """What is wrong with the data of the message, for whoever looks after its feed."""
    said = [(one["kind"], one["detail"], MEANINGS[QualityKind(one["kind"])]) for one in quality]
    return [
        line
        for kind, field, meaning in said
        for line in wrapped(f"fault {kind}{f' ({field})' if field else ''}: {meaning.remedy}", indent=2, margin=2)
    ]


def why_lines(why: list[dict[str, Any]]) -> list[str]:
    """Why there is a plan, a score, a delivery, or none; a line for each, wrapped in a terminal."""
    lines: list[str] = []
    for one in why:
        name = f" {one['name']}" if one["name"] and one["what"] != "plan" else ""
        sentence = one["reason"].partition(": ")[2]
        text = f"{one['what']}{name}: {'' if one['decided'] == 'done' else 'none: '}{sentence}"
        lines += wrapped(text, indent=2, margin=2)
    return lines


def _state(state: str) -> str:
    return alarm(state) if state in {"dead", "refused"} else state


def human_entry(shape: dict[str, Any]) -> str:
    payload, shape = shape["payload"], singles(shape)
    lines = [
        f"entry {shape['id']}: {shape['type'] or 'unreadable'} {shape['control_id'] or ''}".rstrip(),
        f"  came      on {shape['channel']} from {shape['peer'] or '-'}",
        f"  sender    {shape['sender'] or '-'}",
        f"  received  {named_time(shape['received_at'])}",
        f"  state     {_state(shape['state'])}" + (f": {shape['reason']}" if shape["reason"] else ""),
        f"  answer    {shape['ack'] or 'none'} ({shape['ack_state']})",
        f"  patient   {shape['patient_key'] or '-'}   encounter {shape['encounter'] or '-'}",
    ]
    if shape["flagged_duplicate_of"]:
        lines.append(f"  remark    its control id was that of entry {shape['flagged_duplicate_of']}, of other content")
    if shape["test"]:
        lines.append("  remark    it is test data")
    if shape["without_effect"]:
        lines.append("  remark    it changed nothing")
    if shape["replay_of"]:
        lines.append(f"  replay of entry {shape['replay_of']}")
    if shape["deviations"]:
        lines.append(f"  deviations: {', '.join(shape['deviations'])}")
    lines += [f"  {line}" for line in fault_lines(shape["quality"])]
    lines += [f"  effect    {effect['kind']} {effect['detail']}".rstrip() for effect in shape["effects"]]
    lines += [
        f"  delivery  {item['id']}: {told(item)} to {item['destination']}: {item['state']}{fate(item)}"
        for item in shape["deliveries"]
    ]
    lines += [
        f"  remark    delivery {item['id']} hung on what entry {item['without_ground']['entry']} has taken away"
        f" ({item['without_ground']['code']})" + (": it was sent before" if item["state"] == "delivered" else "")
        for item in shape["deliveries"]
        if item["without_ground"]
    ]
    lines += [
        f"  remark    it took away what delivery {item['delivery']} to {item['destination']} hung on"
        f" ({item['code']}): {'it was sent before' if item['state'] == 'delivered' else item['state']}"
        for item in shape["took_ground_of"]
    ]
    lines += [
        f"  dead letter {item['id']}: {item['error']}: {item['detail']}"
        + (f" (resolved: {item['resolved_by']})" if item["resolved_by"] else "")
        for item in shape["dead_letters"]
    ]
    lines += [
        f"  held      {item['id']}: {item['code']}: {item['detail']}"
        + ("" if item["state"] == "open" else f" ({item['state']})")
        for item in shape["held"]
    ]
    lines += [f"  {line}" for line in why_lines(shape["why"])]
    lines += [f"  damaged   {_DAMAGED[part]}" for part in shape["damaged"]]
    if payload == HIDDEN:
        lines += ["", "The text of the message is shown with --reveal --reason TEXT."]
    elif payload:
        lines += ["", printable.lines(payload.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n"))]
    return "\n".join(lines)
