"""`handoff replay`, and what `handoff dead replay` shares with it.

A replay is a new entry with the bytes of the old one. The keys of its effects are made from the first entry of the
chain, so that nothing is sent twice that was sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from engine.cli.common import NO, Cli, When, config_option, json_option
from engine.cli.messages import STATES
from engine.cli.site import OpenSite, open_site

if TYPE_CHECKING:
    from engine.domain.message import Entry, Receipt
    from engine.hl7v2.header import Header

AsOf = Literal["now", "then"]

PIECE: Final = 256
"""So many are replayed in one transaction."""
_PIECE_BYTES: Final = 16 << 20
"""...or fewer, when they are large."""


def as_of_option(function: click.decorators.FC) -> click.decorators.FC:
    return click.option(
        "--config-as-of",
        "as_of",
        type=click.Choice(["now", "then"]),
        default="now",
        show_default=True,
        help="Under today's configuration, or the one that processed the entry.",
    )(function)


@click.command("replay")
@click.option("--channel", metavar="NAME", help="Of this channel.")
@click.option("--since", type=When(), help="Received at or after.")
@click.option("--until", type=When(), help="Received before.")
@click.option("--state", type=click.Choice(STATES), help="With this state now.")
@click.option("--patient", metavar="KEY", help="AUTHORITY:ID, or a pseudonym.")
@as_of_option
@click.option("--dry-run", is_flag=True, help="Only say which entries would be replayed.")
@json_option
@config_option
@click.pass_obj
def replay(
    cli: Cli,
    channel: str | None,
    since: datetime | None,
    until: datetime | None,
    state: str | None,
    patient: str | None,
    as_of: AsOf,
    dry_run: bool,
) -> int:
    """Process entries of the journal again, oldest first. What was sent is not sent a second time.

    Replays of replays are left out: the entry that they came from is replayed. Any number can be replayed, and a
    replay that was interrupted be run again: what is processed twice changes nothing twice. Exit code 1 when an entry
    can't be replayed because what is stored of it is damaged.
    """
    from engine.domain.message import EntryState

    with open_site(cli) as site:
        key = site.chart(patient).patient.key if patient else None
        with site.store.reader() as conn:
            chosen = site.store.journal.originals(
                conn,
                channel=channel,
                state=EntryState(state) if state else None,
                patient=key,
                since=since,
                until=until,
            )
        site.remark_on_channel(cli, channel)
        if chosen and not dry_run:  # on record before it is done; the new entries name those that they replay
            site.audit("replay", [f"entries:{chosen[0]}-{chosen[-1]}"])
        made: list[int] = []
        problems: list[dict[str, Any]] = []
        for one in replay_entries(site, [] if dry_run else chosen, as_of):
            if one.new is not None:
                made.append(one.new)
            else:
                problems.append({"entry": one.old, "problem": one.problem})
    done = f"{len(chosen)} entries would be replayed." if dry_run else f"{len(made)} entries replayed."
    lines = [done + (f" New: {made[0]} to {made[-1]}." if made else "")]
    lines += [f"Not replayed: entry {problem['entry']}: {problem['problem']}" for problem in problems]
    document = {"dry_run": dry_run, "config_as_of": as_of, "selected": chosen, "replayed": len(made), "entries": made}
    cli.print(document | {"problems": problems}, "\n".join(lines))
    return NO if problems else 0


@dataclass(frozen=True)
class Replayed:
    """What became of an entry that was to be replayed: its replay, or why there is none."""

    old: int
    new: int | None = None
    problem: str | None = None


def replay_entries(
    site: OpenSite, entry_ids: Sequence[int], as_of: AsOf, decision: str | None = None
) -> Iterator[Replayed]:
    """Append a replay of each entry to the journal, in this order; some at a time, so that any number may be given.

    decision: the hold (`Hold.key`) that a person takes as true.
    """
    at = 0
    while at < len(entry_ids):
        found = _receipts(site, entry_ids[at : at + PIECE], as_of, decision)
        receipts = [one for one in found if not isinstance(one, str)]
        stored = iter(site.store.journal_ledger.write_now(partial(site.store.journal.append, receipts=receipts)))
        for old, one in zip(entry_ids[at : at + len(found)], found, strict=True):
            yield Replayed(old, problem=one) if isinstance(one, str) else Replayed(old, next(stored).arrival)
        at += len(found)


def _receipts(site: OpenSite, entry_ids: Sequence[int], as_of: AsOf, decision: str | None) -> list[Receipt | str]:
    """A receipt for each entry, or why it can't be replayed. For the first of them only, when their bytes are many."""
    from engine.domain.message import Receipt
    from engine.hl7v2.ordering import ordering_key
    from engine.runtime.acceptance import Rules, judge

    entries: list[Entry | None] = []
    size = 0
    with site.store.reader() as conn:
        for entry_id in entry_ids:
            entry = site.store.journal.entry(conn, entry_id)
            entries.append(entry)
            size += len(entry.payload) if entry is not None else 0
            if size > _PIECE_BYTES:
                break
        versions = site.store.recorder.config_versions(conn, entry_ids) if as_of == "then" else {}
    receipts: list[Receipt | str] = []
    for entry_id, entry in zip(entry_ids, entries, strict=False):
        if entry is None:
            receipts.append("it is not in the journal any more")
            continue
        if entry.damaged:
            receipts.append("what is stored of it is damaged: there is nothing to replay")
            continue
        settings = site.configuration.channels.get(entry.channel)
        refusal = entry.refusal
        if refusal is not None and settings is not None:  # it may be acceptable under today's rules
            refusal = judge(Rules.of(settings), entry.payload).refusal
        receipts.append(
            Receipt(
                channel=entry.channel,
                peer=entry.peer,
                received_at=site.now,
                payload=entry.payload,
                summary=entry.summary,
                dedupe_key=None,
                digest=site.keys.lookup(entry.payload),
                ordering_key=ordering_key(entry.payload, _header(entry.payload)),
                deviations=entry.deviations,
                refusal=refusal,
                replay_of=entry_id,
                config_as_of=versions.get(entry_id),
                decision=decision,
            )
        )
    return receipts


def _header(payload: bytes) -> Header | None:
    from engine.hl7v2.header import HeaderError, read_header

    try:
        return read_header(payload)
    except HeaderError as error:
        return error.header
