"""`handoff dead`: whatever ended unsuccessfully and waits for a person."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.common import (
    NO,
    Cli,
    Listing,
    Row,
    Said,
    clock_time,
    complete_channel,
    config_option,
    json_option,
    limit_option,
    list_options,
    listing_options,
    named_time,
    reveal_options,
    shadow_option,
    time_column,
)
from engine.cli.desk import open_desk, reveal_of
from engine.cli.groups import agree, counted, group_options
from engine.cli.messages import human_entry, told
from engine.cli.replay import as_of_option
from engine.cli.tables import Column, table
from engine.desk import finding
from engine.desk.deciding import discard_letters
from engine.desk.desk import Desk
from engine.desk.finding import dead_letter
from engine.desk.replaying import PIECE, AsOf, replay_letters
from engine.desk.seeing import delivery_shape, entry_details
from engine.domain.advice import remedy_of
from engine.domain.delivery import Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from engine.store.deadletters import DeadGroup, ListedDeadLetter
    from engine.store.journal import ListedEntry

STAGES: Final = ("intake", "processing", "delivery")
_ID: Final = Row("a dead letter", "handoff dead list --each")
_SENDERS_OF_LETTERS_MAX: Final = 200
"""Of so many letters of a group it is looked up who sent them."""


@click.group("dead")
@config_option
def dead() -> None:
    """Dead letters: what failed and waits for somebody."""


@dead.command("list")
@click.option("--stage", type=click.Choice(STAGES), help="Where it died.")
@click.option("--error", metavar="CODE", help="With this code.")
@click.option("--channel", metavar="NAME", shell_complete=complete_channel, help="Of this channel.")
@click.option("--unresolved", is_flag=True, help="Only those that still wait for somebody.")
@click.option("--resolved", is_flag=True, help="Only those that do not wait any more.")
@click.option("--each", is_flag=True, help="One by one, not in groups.")
@limit_option
@shadow_option
@list_options
@config_option
@click.pass_obj
def list_(
    cli: Cli,
    stage: str | None,
    error: str | None,
    channel: str | None,
    unresolved: bool,
    resolved: bool,
    each: bool,
    limit: int,
) -> None:
    """List dead letters that wait for somebody, in groups; with --each one by one, newest first.

    With --json, which scripts read, it is each of them, also those that are resolved: those that still wait come
    first. A patient is shown by a pseudonym, which other commands take.
    """
    from engine.domain.shapes import plain

    if unresolved and resolved:
        raise click.UsageError("either --unresolved or --resolved")
    if not (cli.json or cli.ids or each or resolved):
        _summary(cli, stage, error, channel)
        return
    with open_desk(cli) as desk:
        finding.check_channel(desk, channel)
        finding.check_error(desk, error)
        conditions: dict[str, Any] = {
            "stage": Stage(stage) if stage else None,
            "error": error,
            "channel": channel,
            "resolved": True if resolved else False if unresolved or not cli.json else None,
        }
        with desk.store.reader() as conn:
            letters = desk.store.dead_letters
            read = letters.find(conn, **conditions, limit=limit + 1)
            narrow = "--error, --channel, --stage"
            found = cli.first(read, limit, lambda: letters.count(conn, **conditions), narrow=narrow)
            whose = _whose(desk, conn, found)
    shapes = [plain(letter) | whose[letter.id] for letter in found]
    rows = [
        (s["id"], clock_time(s["died_at"]), s["stage"], s["channel"], s["entry"], s["patient_key"], s["sender"],
         s["error"], s["location"], s["detail"], s["resolved_by"]) for s in shapes
    ]  # fmt: skip
    columns = (
        "id", time_column("died"), Column("stage", drop=3, common=True),
        Column("channel", drop=2, common=True, least=8), "entry", Column("patient", least=8, drop=6),
        Column("sender", least=8, drop=5, common=True), Column("error", least=12),
        Column("at", drop=1, common=True), Column("detail", least=12),
        Column("resolved by", drop=4, common=True),
    )  # fmt: skip
    cli.print(shapes, table(columns, rows) or "No dead letters.")


def _whose(desk: Desk, conn: Connection, letters: Sequence[ListedDeadLetter]) -> dict[int, dict[str, str | None]]:
    """Of each letter the patient that its message names, masked, and who sent it; null where that can't be read."""
    view = desk.view(None, ())
    ids = [letter.entry for letter in letters if letter.entry is not None]
    desk.shows(f"entry:{number}" for number in ids)
    entries: dict[int | None, ListedEntry] = {entry.id: entry for entry in desk.store.journal.listed(conn, ids)}

    def of(letter: ListedDeadLetter) -> dict[str, str | None]:
        entry = entries.get(letter.entry)
        return {
            "patient_key": view.key(entry.patient_key) if entry is not None else None,
            "sender": view.sender(entry.sender, known=False) if entry is not None else None,
        }

    return {letter.id: of(letter) for letter in letters}


@dead.command("summary")
@click.option("--stage", type=click.Choice(STAGES), help="Where it died.")
@click.option("--error", metavar="CODE", help="With this code.")
@click.option("--channel", metavar="NAME", shell_complete=complete_channel, help="Of this channel.")
@shadow_option
@listing_options
@config_option
@click.pass_obj
def summary(cli: Cli, stage: str | None, error: str | None, channel: str | None) -> None:
    """Show what waits for somebody in groups: by error and channel, how many, since when, from whom, and what to do."""
    _summary(cli, stage, error, channel)


def _summary(cli: Cli, stage: str | None, error: str | None, channel: str | None) -> None:
    from engine.domain.shapes import plain

    with open_desk(cli) as desk:
        finding.check_channel(desk, channel)
        finding.check_error(desk, error)
        chosen = Stage(stage) if stage else None
        with desk.store.reader() as conn:
            groups = desk.store.dead_letters.groups(conn, stage=chosen, error=error, channel=channel)
            resolved = desk.store.dead_letters.count(conn, stage=chosen, error=error, channel=channel, resolved=True)
        shapes = [plain(group) | _more_of(desk, group) for group in groups]
    rows = [
        (s["count"], s["error"], s["stage"], s["channel"], ", ".join(s["senders"]) or None, clock_time(s["first_at"]),
         clock_time(s["last_at"]), s["example"]) for s in shapes
    ]  # fmt: skip
    columns = (
        "count", "error", Column("stage", common=True, drop=3), Column("channel", common=True, least=8),
        Column("sender", least=8, drop=1), time_column("first", drop=4), time_column("last"), "newest",
    )  # fmt: skip
    parts = [table(columns, rows) or "No dead letters wait for anybody."]
    parts += [f"{s['error']}: {s['remedy']}" for s in {s["error"]: s for s in shapes}.values()]
    if resolved:
        parts.append(f"{resolved:,} more are resolved (--resolved).")
    cli.print(shapes, "\n\n".join(parts))


def _more_of(desk: Desk, group: DeadGroup) -> dict[str, Any]:
    """From whom the newest of a group came, and what is to be done."""
    from engine.connectors.remedies import remedy

    with desk.store.reader() as conn:
        letters = desk.store.dead_letters.find(
            conn, stage=group.stage, error=group.error, channel=group.channel, limit=_SENDERS_OF_LETTERS_MAX
        )
        ids = [letter.entry for letter in letters if letter.entry is not None]
        entries = desk.store.journal.listed(conn, ids)
        example = desk.store.dead_letters.get(conn, group.example)
    view = desk.view(None, ())
    senders = Counter(view.sender(entry.sender, known=False) for entry in entries if entry.sender)
    return {
        "senders": [sender for sender, _ in senders.most_common()],
        "remedy": remedy(group.error) or remedy_of(group.error, example.detail if example is not None else ""),
    }


@dead.command("show", short_help="Show one dead letter with its message.")
@click.argument("letter_id", metavar="ID", type=_ID)
@reveal_options
@shadow_option
@json_option
@config_option
@click.pass_obj
def show(cli: Cli, letter_id: int, reveal: bool, reason: str | None) -> None:
    """Show one dead letter with its message and, when it died in delivery, what was to be delivered."""
    from engine.domain.shapes import plain

    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        letter = dead_letter(desk, letter_id)
        view = desk.view(wish, [f"entry:{letter.entry}" if letter.entry else f"delivery:{letter.delivery}"])
        message = entry_details(desk, letter.entry, lambda: view) if letter.entry else None
        delivery: dict[str, Any] | None = None
        if letter.delivery is not None:
            with desk.store.reader() as conn:
                queued = desk.store.outbox.get(conn, letter.delivery)
            delivery = delivery_shape(queued, view) if queued is not None else None
    place = f" at {letter.location}" if letter.location else ""
    human = [
        f"dead letter {letter.id} of {letter.stage}: {letter.error}{place}: {letter.detail}",
        f"  died      {named_time(letter.died_at)}",
        f"  resolved  {letter.resolved_by or 'no: replay it once its cause is put right, or discard it with a reason'}",
        "",
    ]
    if delivery is not None:
        human.append(f"{told(delivery)} to {delivery['destination']}, {delivery['attempts']} attempts\n")
    if message is not None:
        human.append(human_entry(message))
    cli.print(plain(letter) | {"message": message, "delivery_details": delivery}, "\n".join(human))


def _choice_options(function: click.decorators.FC) -> click.decorators.FC:
    """Which letters: ID..., or all unresolved ones that meet the options."""
    for option in (
        click.option(
            "--channel", metavar="NAME", shell_complete=complete_channel, help="All unresolved ones of this channel."
        ),
        click.option("--stage", type=click.Choice(STAGES), help="All unresolved ones that died there."),
        click.option("--error", metavar="CODE", help="All unresolved ones with this code."),
        click.option("--all", "every", is_flag=True, help="All that are unresolved."),
        click.argument("letter_ids", metavar="[ID...]", nargs=-1, type=_ID),
    ):
        function = option(function)
    return function


def _chosen(
    desk: Desk,
    letter_ids: tuple[int, ...],
    error: str | None,
    channel: str | None,
    stage: str | None,
) -> list[int]:
    if letter_ids:
        return [dead_letter(desk, letter_id).id for letter_id in dict.fromkeys(letter_ids)]
    finding.check_channel(desk, channel)
    finding.check_error(desk, error)
    with desk.store.reader() as conn:
        return desk.store.dead_letters.unresolved(
            conn, error=error, channel=channel, stage=Stage(stage) if stage else None
        )


def _check_choice(letter_ids: tuple[int, ...], every: bool, *options: str | None) -> None:
    """Raises UsageError unless it is said which letters are meant, in one way."""
    if not letter_ids and not every and not any(options):
        raise click.UsageError("say which: ID..., --error CODE, --channel NAME, --stage STAGE or --all")
    if letter_ids and (every or any(options)):
        raise click.UsageError("either ID... or --all, --error, --channel, --stage")


def _preview(desk: Desk, chosen: Sequence[int], verb: str) -> tuple[list[dict[str, Any]], str]:
    """What would be done to which letters, as shapes and in words."""
    from engine.domain.shapes import plain

    letters = [dead_letter(desk, letter_id) for letter_id in chosen]
    desk.shows(f"entry:{letter.entry}" for letter in letters)
    kinds = counted(f"{letter.error} ({letter.channel})" for letter in letters)
    said = f"{len(letters):,} dead letter(s) would be {verb}: {kinds}." if letters else f"None would be {verb}."
    return [plain(letter) for letter in letters], said


@dead.command("replay", short_help="Try again, once the cause is put right.")
@_choice_options
@click.option("--out-of-order", is_flag=True, help="Also forward messages that later ones have overtaken.")
@as_of_option
@group_options
@json_option
@config_option
@click.pass_obj
def replay(
    cli: Cli,
    letter_ids: tuple[int, ...],
    every: bool,
    error: str | None,
    channel: str | None,
    stage: str | None,
    out_of_order: bool,
    as_of: AsOf,
    dry_run: bool,
    yes: bool,
) -> int:
    """Try again: a message is processed anew, an undeliverable delivery goes back into the outbox.

    A delivery goes out with what is true now, should that have changed since. A message that was to be forwarded can't
    be renewed: when later ones of its patient were delivered meanwhile, it goes only with --out-of-order. Exit code 1
    when one of those named can't be replayed.
    """
    _check_choice(letter_ids, every, error, channel, stage)
    listing = Listing(cli, ("dead letter", "new entry", "delivery", "sent", Column("problem", least=20)))
    code = 0
    with open_desk(cli) as desk:
        chosen = _chosen(desk, letter_ids, error, channel, stage)
        if dry_run:
            cli.print(*_preview(desk, chosen, "replayed"))
            return 0
        if chosen and not letter_ids:
            agree(cli, _preview(desk, chosen, "replayed")[1], yes=yes, unattended=True)
        for at in range(0, len(chosen), PIECE):
            letters = [dead_letter(desk, letter_id) for letter_id in chosen[at : at + PIECE]]
            results = replay_letters(desk, letters, as_of, out_of_order=out_of_order)
            listing.add(results, ((r["id"], r["entry"], r["delivery"], r["sent"], r["problem"]) for r in results))
            if any(result["problem"] for result in results):
                code = NO
    listing.print("Nothing to replay.")
    return code


@dead.command("discard", short_help="Close without replaying.")
@_choice_options
@click.option("--reason", required=True, type=Said(), metavar="TEXT", help="Why; written to the audit.")
@group_options
@json_option
@config_option
@click.pass_obj
def discard(
    cli: Cli,
    letter_ids: tuple[int, ...],
    every: bool,
    error: str | None,
    channel: str | None,
    stage: str | None,
    reason: str,
    dry_run: bool,
    yes: bool,
) -> None:
    """Close dead letters without replaying them. Their bytes stay in the journal.

    With --json one that was named is an object, several or a group are a list.
    """
    from engine.domain.shapes import plain

    _check_choice(letter_ids, every, error, channel, stage)
    with open_desk(cli) as desk:
        chosen = _chosen(desk, letter_ids, error, channel, stage)
        if dry_run:
            cli.print(*_preview(desk, chosen, "discarded"))
            return
        if len(chosen) > 1:
            agree(cli, _preview(desk, chosen, "discarded")[1], yes=yes, unattended=True)
        for at in range(0, len(chosen), PIECE):
            some = chosen[at : at + PIECE]

            discard_letters(desk, some, reason)
        shapes = [plain(dead_letter(desk, letter_id)) for letter_id in chosen]
    if len(letter_ids) == 1:
        cli.print(shapes[0], f"Dead letter {chosen[0]} is discarded.")
    else:
        cli.print(shapes, f"{len(chosen):,} dead letters are discarded." if chosen else "Nothing to discard.")
