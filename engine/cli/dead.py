"""`handoff dead`: whatever ended unsuccessfully and waits for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from engine.cli.common import (
    NO,
    ROW,
    Cli,
    Listing,
    Said,
    clock_time,
    config_option,
    json_option,
    limit_option,
    reveal_options,
    table,
)
from engine.cli.messages import delivery_shape, entry_details, human_entry, told
from engine.cli.replay import PIECE, AsOf, as_of_option, replay_entries
from engine.cli.site import NotFoundError, OpenSite, open_site, reveal_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from engine.store.deadletters import ListedDeadLetter
    from engine.store.requeue import Requeued


@click.group("dead")
@config_option
def dead() -> None:
    """Dead letters: what failed and waits for somebody."""


@dead.command("list")
@click.option("--stage", type=click.Choice(["intake", "processing", "delivery"]), help="Where it died.")
@click.option("--error", metavar="CODE", help="With this code.")
@click.option("--channel", metavar="NAME", help="Of this channel.")
@click.option("--unresolved", is_flag=True, help="Only those that still wait for somebody.")
@limit_option
@json_option
@config_option
@click.pass_obj
def list_(cli: Cli, stage: str | None, error: str | None, channel: str | None, unresolved: bool, limit: int) -> None:
    """List dead letters, newest first. They hold no patient data."""
    from engine.domain.delivery import Stage
    from engine.domain.shapes import plain

    with open_site(cli) as site:
        with site.store.reader() as conn:
            found = site.store.dead_letters.find(
                conn,
                stage=Stage(stage) if stage else None,
                error=error,
                channel=channel,
                resolved=False if unresolved else None,
                limit=limit,
            )
        site.remark_on_channel(cli, channel)
    rows = [
        (letter.id, clock_time(letter.died_at), letter.stage, letter.channel, letter.entry, letter.error,
         letter.location, letter.detail, letter.resolved_by) for letter in found
    ]  # fmt: skip
    headers = ("id", "died", "stage", "channel", "entry", "error", "at", "detail", "resolved by")
    cli.print(plain(found), table(headers, rows) or "No dead letters.")


@dead.command("show", short_help="Show one dead letter with its message.")
@click.argument("letter_id", metavar="ID", type=ROW)
@reveal_options
@json_option
@config_option
@click.pass_obj
def show(cli: Cli, letter_id: int, reveal: bool, reason: str | None) -> None:
    """Show one dead letter with its message and, when it died in delivery, what was to be delivered."""
    from engine.domain.shapes import plain

    wish = reveal_of(reveal, reason)
    with open_site(cli) as site:
        letter = _get(site, letter_id)
        view = site.view(wish, [f"entry:{letter.entry}" if letter.entry else f"delivery:{letter.delivery}"])
        message = entry_details(site, letter.entry, lambda: view) if letter.entry else None
        delivery: dict[str, Any] | None = None
        if letter.delivery is not None:
            with site.store.reader() as conn:
                queued = site.store.outbox.get(conn, letter.delivery)
            delivery = delivery_shape(queued, view) if queued is not None else None
    place = f" at {letter.location}" if letter.location else ""
    human = [
        f"dead letter {letter.id} of {letter.stage}: {letter.error}{place}: {letter.detail}",
        f"  died      {clock_time(letter.died_at)}",
        f"  resolved  {letter.resolved_by or 'no: replay it once its cause is put right, or discard it with a reason'}",
        "",
    ]
    if delivery is not None:
        human.append(f"{told(delivery)} to {delivery['destination']}, {delivery['attempts']} attempts\n")
    if message is not None:
        human.append(human_entry(message))
    cli.print(plain(letter) | {"message": message, "delivery_details": delivery}, "\n".join(human))


@dead.command("replay", short_help="Try again, once the cause is put right.")
@click.argument("letter_ids", metavar="[ID...]", nargs=-1, type=ROW)
@click.option("--all", "every", is_flag=True, help="All that are unresolved.")
@click.option("--error", metavar="CODE", help="All unresolved ones with this code.")
@click.option("--channel", metavar="NAME", help="All unresolved ones of this channel.")
@click.option("--out-of-order", is_flag=True, help="Also forward messages that later ones have overtaken.")
@as_of_option
@json_option
@config_option
@click.pass_obj
def replay(
    cli: Cli,
    letter_ids: tuple[int, ...],
    every: bool,
    error: str | None,
    channel: str | None,
    out_of_order: bool,
    as_of: AsOf,
) -> int:
    """Try again: a message is processed anew, an undeliverable delivery goes back into the outbox.

    A delivery goes out with what is true now, should that have changed since. A message that was to be forwarded can't
    be renewed: when later ones of its patient were delivered meanwhile, it goes only with --out-of-order. Exit code 1
    when one of those named can't be replayed.
    """
    if not letter_ids and not every and error is None and channel is None:
        raise click.UsageError("say which: ID..., --error CODE, --channel NAME or --all")
    if letter_ids and (every or error or channel):
        raise click.UsageError("either ID... or --all, --error, --channel")
    listing = Listing(cli, ("dead letter", "new entry", "delivery", "sent", "problem"))
    code = 0
    with open_site(cli) as site:
        if letter_ids:
            chosen = [_get(site, letter_id).id for letter_id in dict.fromkeys(letter_ids)]
        else:
            with site.store.reader() as conn:
                chosen = site.store.dead_letters.unresolved(conn, error=error, channel=channel)
            site.remark_on_channel(cli, channel)
        for at in range(0, len(chosen), PIECE):
            letters = [_get(site, letter_id) for letter_id in chosen[at : at + PIECE]]
            results = _replay(site, letters, as_of, out_of_order=out_of_order)
            listing.add(results, ((r["id"], r["entry"], r["delivery"], r["sent"], r["problem"]) for r in results))
            if any(result["problem"] for result in results):
                code = NO
    listing.print("Nothing to replay.")
    return code


@dead.command("discard")
@click.argument("letter_id", metavar="ID", type=ROW)
@click.option("--reason", required=True, type=Said(), metavar="TEXT", help="Why; written to the audit.")
@json_option
@config_option
@click.pass_obj
def discard(cli: Cli, letter_id: int, reason: str) -> None:
    """Close a dead letter without replaying it. Its bytes stay in the journal."""
    from engine.domain.shapes import plain
    from engine.store.deadletters import DISCARDED

    with open_site(cli) as site:
        _get(site, letter_id)

        def work(conn: Connection) -> None:
            site.store.dead_letters.resolve(conn, letter_id, DISCARDED, site.now)
            site.note(conn, "discard", [f"dead-letter:{letter_id}"], reason)

        site.store.charts_ledger.write_now(work)
        letter = _get(site, letter_id)
    cli.print(plain(letter), f"Dead letter {letter_id} is discarded.")


def _get(site: OpenSite, letter_id: int) -> ListedDeadLetter:
    with site.store.reader() as conn:
        letter = site.store.dead_letters.get(conn, letter_id)
    if letter is None:
        raise NotFoundError(f"there is no dead letter {letter_id}")
    return letter


def _replay(
    site: OpenSite, letters: Sequence[ListedDeadLetter], as_of: AsOf, *, out_of_order: bool
) -> list[dict[str, Any]]:
    """A result for each: the new entry or the delivery, or why not.

    The journal is written before the letters are resolved: a crash between the two leaves letters that are replayed
    once more, which changes nothing.
    """
    from engine.domain.delivery import Stage
    from engine.errors import StoreError

    nothing = {"entry": None, "delivery": None, "sent": None, "problem": None}
    results: dict[int, dict[str, Any]] = {letter.id: {"id": letter.id, **nothing} for letter in letters}
    anew: list[ListedDeadLetter] = []
    for letter in letters:
        result = results[letter.id]
        if letter.resolved_by is not None:
            result["problem"] = f"was resolved before: {letter.resolved_by}"
        elif letter.stage is not Stage.DELIVERY:
            anew.append(letter)
        else:
            try:
                result["delivery"], result["sent"] = _requeue(site, letter, out_of_order=out_of_order)
            except StoreError as error:
                result["problem"] = str(error)
    replays = replay_entries(site, [letter.entry for letter in anew if letter.entry is not None], as_of)
    for letter, replayed in zip(anew, replays, strict=True):
        results[letter.id] |= {"entry": replayed.new, "problem": replayed.problem}
    new = {letter.id: entry for letter in anew if (entry := results[letter.id]["entry"]) is not None}
    for letter_id, problem in _resolve(site, new).items():
        results[letter_id]["problem"] = problem
    return list(results.values())


def _resolve(site: OpenSite, replays: Mapping[int, int]) -> dict[int, str]:
    """Note which entries the letters were replayed as. Returns why not, for those that can't be resolved."""
    from engine.errors import StoreError

    def work(conn: Connection) -> dict[int, str]:
        problems: dict[int, str] = {}
        for letter_id, entry_id in replays.items():
            try:
                site.store.dead_letters.resolve(conn, letter_id, f"entry:{entry_id}", site.now)
            except StoreError as error:  # somebody else has replayed or discarded it meanwhile
                problems[letter_id] = str(error)
        site.note(conn, "replay", [f"dead-letter:{letter_id}" for letter_id in replays if letter_id not in problems])
        return problems

    try:
        return site.store.charts_ledger.write_now(work) if replays else {}
    except StoreError as error:
        return dict.fromkeys(replays, str(error))


def _requeue(site: OpenSite, letter: ListedDeadLetter, *, out_of_order: bool) -> tuple[int, Requeued]:
    from engine.store.deadletters import SUPERSEDED
    from engine.store.requeue import Requeued, requeue

    delivery = letter.delivery
    if delivery is None:
        raise NotFoundError(f"dead letter {letter.id} names no delivery")

    def work(conn: Connection) -> Requeued:
        done = requeue(conn, site.keys, delivery, site.now, out_of_order=out_of_order)
        resolved_by = SUPERSEDED if done is Requeued.SUPERSEDED else f"delivery:{delivery}"
        site.store.dead_letters.resolve(conn, letter.id, resolved_by, site.now)
        site.note(conn, "replay", [f"dead-letter:{letter.id}"])
        return done

    return delivery, site.store.charts_ledger.write_now(work)
