"""`handoff held`: what waits for a person's decision.

Deliveries of which nobody knows whether they arrived, and messages that ask a question (`m12`): an old discharge, a
merge that changed nothing. Deliveries that a rule withholds wait for nobody, but a person may release or dismiss them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from engine.cli.common import (
    Cli,
    Said,
    clock_time,
    complete_destination,
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
from engine.cli.groups import agree, counted, group_options
from engine.cli.messages import told
from engine.cli.tables import Column, table
from engine.desk import deciding, finding
from engine.desk.desk import Desk
from engine.desk.finding import held_delivery, question, withheld_delivery
from engine.desk.seeing import around, delivery_shape, held_shape, hold_shape, withheld_shape
from engine.printable import singles

if TYPE_CHECKING:
    from engine.desk.desk import Reveal

_ROW_MAX = (1 << 63) - 1


@dataclass(frozen=True)
class HeldId:
    """`12`: a delivery; `m12`: a message's question."""

    what: Literal["delivery", "message"]
    number: int

    def __str__(self) -> str:
        return f"m{self.number}" if self.what == "message" else str(self.number)


class _Held(click.ParamType[HeldId]):
    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> HeldId:
        if isinstance(value, HeldId):
            return value
        text = str(value)
        digits = text.removeprefix("m")
        if not (digits.isascii() and digits.isdigit() and 0 < int(digits[:20]) <= _ROW_MAX):
            self.fail("must be the number of a held delivery, or of a held message like m12", param, ctx)
        return HeldId("message" if text != digits else "delivery", int(digits))


_ID = _Held()
_REASON_HELP = "Why; written to the audit."


@click.group("held")
@config_option
def held() -> None:
    """Deliveries and messages that wait for your decision."""


@held.command("list")
@click.option("--what", type=click.Choice(["delivery", "message", "withheld"]), help="Only these.")
@limit_option
@reveal_options
@shadow_option
@list_options
@config_option
@click.pass_obj
def list_(cli: Cli, what: str | None, limit: int, reveal: bool, reason: str | None) -> None:
    """List what is held, oldest first: first messages, then deliveries.

    A held message was taken, and asks whether something is so that the chart does not say. A held delivery may have
    arrived or not; later ones of its patient wait behind it. Withheld deliveries (--what withheld) are those that a
    rule does not let go, and nobody has decided on: no consent, too late.
    """
    wish = reveal_of(reveal, reason)
    if what == "withheld":
        _list_withheld(cli, wish, limit)
        return
    with open_desk(cli) as desk:
        with desk.store.reader() as conn:
            total = sum(desk.store.holds.counts(conn).values()) if what != "delivery" else 0
            total += desk.store.outbox.held_count(conn) if what != "message" else 0
            if total > limit:
                cli.cut(limit, total)
            asked = desk.store.holds.find(conn, limit=limit) if what != "delivery" else []
            left = limit - len(asked)
            found = desk.store.outbox.held(conn, left) if what != "message" and left > 0 else []
            stands = around(desk, conn, found)
        view = desk.view(wish, (*(f"entry:{one.entry}" for one in asked), *(f"delivery:{one.id}" for one in found)))
    questions = [hold_shape(one, view) for one in asked]
    deliveries = [held_shape(queued, view, stands) for queued in found]
    rows = [
        *((s["id"], clock_time(s["opened_at"]), s["code"], None, s["patient_key"], s["entry"], None)
          for s in questions),
        *((s["id"], clock_time(s["held_at"] or s["created_at"]), f"{s['destination']}: {told(s)}", s["last_error"],
           s["patient_key"], s["entry"], s["waiting_behind"]) for s in deliveries),
    ]  # fmt: skip
    columns = (
        "id", time_column("since"), Column("what", least=12), Column("reason", least=8), "patient",
        "entry", "behind",
    )  # fmt: skip
    cli.print([*questions, *deliveries], table(columns, rows) or "Nothing is held.")


@held.command("show")
@click.argument("held_id", metavar="ID", type=_ID)
@reveal_options
@shadow_option
@json_option
@config_option
@click.pass_obj
def show(cli: Cli, held_id: HeldId, reveal: bool, reason: str | None) -> None:
    """Show what is asked, and what became of it."""
    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        if held_id.what == "delivery" and finding.is_withheld(desk, [held_id.number]):
            with desk.store.reader() as conn:
                queued, said = withheld_delivery(desk, conn, held_id.number)
                stands = around(desk, conn, [queued])
            shape = withheld_shape(queued, said, desk.view(wish, [f"delivery:{queued.id}"]), stands)
            text = _human_withheld(shape)
        elif held_id.what == "delivery":
            with desk.store.reader() as conn:
                queued = held_delivery(desk, conn, held_id.number)
                stands = around(desk, conn, [queued])
            shape = held_shape(queued, desk.view(wish, [f"delivery:{queued.id}"]), stands)
            text = _human_delivery(shape)
        else:
            asked = desk.store.read_now(lambda conn: question(desk, conn, held_id.number))
            shape = hold_shape(asked, desk.view(wish, [f"entry:{asked.entry}"]))
            text = _human(shape)
    cli.print(shape, text)


def _deliveries_option(function: click.decorators.FC) -> click.decorators.FC:
    """Which ones: ID..., or all held deliveries for a destination."""
    function = click.option(
        "--destination", metavar="NAME", shell_complete=complete_destination,
        help="All deliveries that are held for this destination.",
    )(function)  # fmt: skip
    return click.argument("held_ids", metavar="[ID...]", nargs=-1, type=_ID)(function)


@held.command("release")
@_deliveries_option
@click.option("--reason", type=Said(), metavar="TEXT", help=f"{_REASON_HELP} Messages and withheld need it.")
@group_options
@json_option
@config_option
@click.pass_obj
def release(
    cli: Cli, held_ids: tuple[HeldId, ...], destination: str | None, reason: str | None, dry_run: bool, yes: bool
) -> int:
    """A delivery: it did not arrive, try it again; a withheld one: send it all the same. A message: apply it.

    The rule that withholds a delivery is not asked again; it goes out with what is true now. A message is processed
    again with your decision; the question ends when that has changed the chart. Messages are released one at a time:
    each is a decision of its own.
    """
    if any(held_id.what == "message" for held_id in held_ids):
        if len(held_ids) > 1 or destination is not None or dry_run:
            raise click.UsageError("a held message is released alone: each is a decision of its own")
        return _release_message(cli, held_ids[0], reason)

    choice = _Choice(held_ids, destination, dry_run, yes)
    if held_ids and _is_of_withheld(cli, held_ids):
        _decide_withheld(cli, choice, "released", reason)
        return 0
    _decide(cli, choice, "release", reason, "tried again")
    return 0


@held.command("dismiss")
@click.argument("held_ids", metavar="ID...", nargs=-1, required=True, type=_ID)
@click.option("--reason", required=True, type=Said(), metavar="TEXT", help=_REASON_HELP)
@group_options
@json_option
@config_option
@click.pass_obj
def dismiss(cli: Cli, held_ids: tuple[HeldId, ...], reason: str, dry_run: bool, yes: bool) -> None:
    """A message: it is not so, or you have seen to it by hand. Nothing is applied. A withheld delivery: so be it.

    When it said that a patient has died, the plan goes on, and the task that asks about it ends. With --json one is an
    object, several are a list.
    """
    if any(held_id.what == "delivery" for held_id in held_ids):
        if not _is_of_withheld(cli, held_ids):
            text = "a held delivery is released, confirmed or buried; dismiss is for messages like m12, or for withheld"
            raise click.UsageError(f"{text} deliveries")
        _decide_withheld(cli, _Choice(held_ids, None, dry_run, yes), "dismissed", reason)
        return
    with open_desk(cli) as desk:
        view = desk.view(None, ())

        def shapes() -> list[dict[str, Any]]:
            with desk.store.reader() as conn:
                found = [question(desk, conn, held_id.number) for held_id in held_ids]
            desk.shows(f"entry:{one.entry}" for one in found)
            return [hold_shape(one, view) for one in found]

        if dry_run or len(held_ids) > 1:
            preview = f"{len(held_ids):,} would be dismissed: {counted(shape['code'] for shape in shapes())}."
            if dry_run:
                cli.print(shapes(), preview)
                return
            agree(cli, preview, yes=yes, unattended=True)

        deciding.dismiss(desk, [held_id.number for held_id in held_ids], reason)
        after = shapes()
    if len(held_ids) == 1:
        cli.print(after[0], f"{held_ids[0]} is dismissed.")
    else:
        cli.print(after, f"{len(after):,} are dismissed.")


@held.command("confirm")
@_deliveries_option
@group_options
@json_option
@config_option
@click.pass_obj
def confirm(cli: Cli, held_ids: tuple[HeldId, ...], destination: str | None, dry_run: bool, yes: bool) -> None:
    """A delivery: it arrived. Count it as delivered, and let those behind it go on."""
    _decide(cli, _Choice(held_ids, destination, dry_run, yes), "confirm", None, "counted as delivered")


@held.command("bury")
@_deliveries_option
@click.option("--reason", required=True, type=Said(), metavar="TEXT", help=_REASON_HELP)
@group_options
@json_option
@config_option
@click.pass_obj
def bury(
    cli: Cli, held_ids: tuple[HeldId, ...], destination: str | None, reason: str, dry_run: bool, yes: bool
) -> None:
    """A delivery: give it up. It becomes a dead letter, and those behind it go on."""
    _decide(cli, _Choice(held_ids, destination, dry_run, yes), "bury", reason, "made dead letters")


class _Choice(NamedTuple):
    """Which held deliveries a decision is about, and how it is made."""

    ids: tuple[HeldId, ...]
    destination: str | None
    dry_run: bool
    yes: bool

    def of(self, desk: Desk) -> list[int]:
        """Raises UsageError unless it is said which, in one way; NotFoundError when one of them is not held."""
        if not self.ids and self.destination is None:
            raise click.UsageError("say which: ID... or --destination NAME")
        if self.ids and self.destination is not None:
            raise click.UsageError("either ID... or --destination")
        messages = [str(held_id) for held_id in self.ids if held_id.what == "message"]
        if messages:
            decides = "`handoff held release` or `handoff held dismiss` decides it"
            raise click.UsageError(f"{messages[0]} is a message: {decides}")
        finding.check_destination(desk, self.destination)
        with desk.store.reader() as conn:
            if self.ids:
                return [held_delivery(desk, conn, held_id.number).id for held_id in dict.fromkeys(self.ids)]
            return [queued.id for queued in desk.store.outbox.held(conn, None, destination=self.destination)]


def _decide(
    cli: Cli,
    choice: _Choice,
    decision: deciding.Decision,
    reason: str | None,
    said: str,
) -> None:
    """All or none of them. One that was named is shown as an object, several or a group as a list."""
    with open_desk(cli) as desk:
        chosen = choice.of(desk)
        desk.shows(f"delivery:{number}" for number in chosen)
        view = desk.view(None, ())
        if choice.dry_run or len(chosen) > 1:
            with desk.store.reader() as conn:
                shapes = [delivery_shape(held_delivery(desk, conn, number), view) for number in chosen]
            kinds = counted(f"{told(shape)} to {shape['destination']}" for shape in shapes)
            preview = f"{len(chosen):,} would be {said}: {kinds}." if chosen else "None is held."
            if choice.dry_run:
                cli.print(shapes, preview)
                return
            agree(cli, preview, yes=choice.yes, unattended=bool(choice.ids))

        deciding.decide(desk, chosen, decision, reason)
        with desk.store.reader() as conn:
            after = [desk.store.outbox.get(conn, number) for number in chosen]
        shapes = [delivery_shape(queued, view) for queued in after if queued is not None]
    if len(choice.ids) == 1:
        cli.print(shapes[0] if shapes else None, f"Delivery {chosen[0]} is {said}.")
    else:
        cli.print(shapes, f"{len(chosen):,} deliveries are {said}." if chosen else "None is held.")


def _list_withheld(cli: Cli, wish: Reveal | None, limit: int) -> None:
    from engine.store import admissions

    with open_desk(cli) as desk:
        with desk.store.reader() as conn:
            total = sum(sum(each.values()) for each in admissions.counts(conn).values())
            if total > limit:
                cli.cut(limit, total)
            found = [withheld_delivery(desk, conn, one.delivery_id) for one in admissions.find(conn, limit=limit)]
            stands = around(desk, conn, [queued for queued, _ in found])
        view = desk.view(wish, (f"delivery:{queued.id}" for queued, _ in found))
    shapes = [withheld_shape(queued, said, view, stands) for queued, said in found]
    rows = [
        (
            s["id"],
            clock_time(s["withheld_at"]),
            f"{s['destination']}: {told(s)}",
            s["code"],
            s["patient_key"],
            s["entry"],
        )
        for s in shapes
    ]
    columns = ("id", time_column("since"), Column("what", least=12), Column("reason", least=8), "patient", "entry")
    cli.print(shapes, table(columns, rows) or "Nothing is withheld.")


def _is_of_withheld(cli: Cli, held_ids: Sequence[HeldId]) -> bool:
    """Raises UsageError when only some of them are withheld deliveries."""
    with open_desk(cli) as desk:
        withheld = [one for one in held_ids if one.what == "delivery" and finding.is_withheld(desk, [one.number])]
    if withheld and len(withheld) < len(held_ids):
        raise click.UsageError(f"{withheld[0]} is a withheld delivery: decide on those apart")
    return bool(withheld)


def _decide_withheld(cli: Cli, choice: _Choice, decision: Literal["released", "dismissed"], reason: str | None) -> None:
    """All or none of them. One is shown as an object, several are a list."""
    if reason is None:
        raise click.UsageError("releasing a withheld delivery needs --reason TEXT: it sets a rule aside")
    from engine.store import admissions

    numbers = [one.number for one in dict.fromkeys(choice.ids)]
    with open_desk(cli) as desk:
        desk.shows(f"delivery:{number}" for number in numbers)
        view = desk.view(None, ())

        def shapes() -> list[dict[str, Any]]:
            with desk.store.reader() as conn:
                said = admissions.get(conn, numbers)
                found = [desk.store.outbox.get(conn, number) for number in numbers]
                stands = around(desk, conn, [one for one in found if one is not None])
            return [withheld_shape(one, said[one.id], view, stands) for one in found if one is not None]

        if choice.dry_run or len(numbers) > 1:
            before = shapes()
            kinds = counted(f"{shape['code']} of {shape['destination']}" for shape in before)
            preview = f"{len(numbers):,} would be {decision}: {kinds}."
            if choice.dry_run:
                cli.print(before, preview)
                return
            agree(cli, preview, yes=choice.yes, unattended=True)
        if decision == "released":
            deciding.release_withheld(desk, numbers, reason)
        else:
            deciding.dismiss_withheld(desk, numbers, reason)
        after = shapes()
    if len(numbers) == 1:
        cli.print(after[0], f"Delivery {numbers[0]} is {decision}.")
    else:
        cli.print(after, f"{len(after):,} deliveries are {decision}.")


def _release_message(cli: Cli, held_id: HeldId, reason: str | None) -> int:
    if reason is None:
        raise click.UsageError("releasing a held message needs --reason TEXT: why it is true; it goes to the audit")
    with open_desk(cli) as desk:
        entry = deciding.release_message(desk, held_id.number, reason)
        with desk.store.reader() as conn:
            shape = hold_shape(question(desk, conn, held_id.number), desk.view(None, ()))
    cli.print(
        shape | {"replay": entry}, f"{held_id} is released: entry {entry} applies it (`handoff messages show {entry}`)."
    )
    return 0


def _human_delivery(shape: dict[str, Any]) -> str:
    shape = singles(shape)
    error = f": {shape['destination_error']}" if shape["destination_error"] else ""
    lines = [
        f"delivery {shape['id']}: {told(shape)} to {shape['destination']}",
        f"  held      since {clock_time(shape['held_at']) or '-'}, after {shape['attempts']} attempt(s)",
        f"  reason    {shape['last_error'] or '-'}" + (f": {shape['remedy']}" if shape["remedy"] else ""),
        f"  patient   {shape['patient_key'] or '-'}   entry {shape['entry'] or '-'}",
        f"  behind it {shape['waiting_behind']} deliveries of this patient wait",
        f"  {shape['destination']} is {shape['destination_state'] or 'unknown'}{error}",
        f"  decide    it arrived: `handoff held confirm {shape['id']}`; it did not: `... release {shape['id']}`",
    ]
    return "\n".join(lines)


def _human_withheld(shape: dict[str, Any]) -> str:
    shape = singles(shape)
    lines = [
        f"delivery {shape['id']}: {told(shape)} to {shape['destination']}",
        f"  withheld  since {named_time(shape['withheld_at']) or '-'}: nothing was sent",
        f"  reason    {shape['code']}" + (f": {shape['remedy']}" if shape["remedy"] else ""),
        f"  patient   {shape['patient_key'] or '-'}   entry {shape['entry'] or '-'}",
    ]
    if shape["decided_at"]:
        lines.append(f"  decided   {shape['decision']} by {shape['decided_by']} at {named_time(shape['decided_at'])}")
    elif shape["decision"] is None:
        release, dismiss = f"`handoff held release {shape['id']}`", f"`handoff held dismiss {shape['id']}`"
        lines.append(f"  decide    send it all the same: {release}; let it be: {dismiss}; each with --reason")
    return "\n".join(lines)


def _human(shape: dict[str, Any]) -> str:
    shape = singles(shape)
    lines = [
        f"{shape['id']}: {shape['code']}" + (f" at {shape['location']}" if shape["location"] else ""),
        f"  asked     {shape['detail']}",
        f"  message   entry {shape['entry']} on {shape['channel']}",
        f"  patient   {shape['patient_key'] or '-'}   about {shape['subject'] or '-'}",
        f"  since     {named_time(shape['opened_at'])}",
        f"  state     {shape['state']}",
    ]
    if shape["waits_until"] and shape["state"] == "open":
        lines.append(f"  waits     until {named_time(shape['waits_until'])} for what may answer it by itself")
    if shape["decided_at"]:
        under_way = shape["state"] == "open"
        by = shape["decided_by"] or "a message that made it so"
        lines.append(
            f"  {'releasing' if under_way else 'decided  '} by {by} at {named_time(shape['decided_at'])}"
            f": {shape['decision'] or '-'}"
        )
    if shape["answered_by"]:
        lines.append(f"  by entry  {shape['answered_by']}")
    if shape["unreadable"]:
        lines.append("  damaged   what is sealed of it was altered: look at the message instead")
    return "\n".join(lines)
