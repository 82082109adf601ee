"""`handoff replay`, and what `handoff dead replay` shares with it.

A replay is a new entry with the bytes of the old one. The keys of its effects are made from the first entry of the
chain, so that nothing is sent twice that was sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import click

from engine.cli.common import Cli, When, config_option, json_option
from engine.cli.messages import STATES
from engine.cli.site import NotFoundError, OpenSite, open_site

if TYPE_CHECKING:
    from engine.domain.message import Receipt
    from engine.hl7v2.header import Header

AsOf = Literal["now", "then"]

_BATCH = 256


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
) -> None:
    """Process entries of the journal again, oldest first. What was sent is not sent a second time.

    Replays of replays are left out: the entry that they came from is replayed.
    """
    from engine.domain.message import EntryState

    with open_site(cli) as site:
        key = site.chart(patient).patient.key if patient else None
        with site.store.reader() as conn:
            found = site.store.journal.find(
                conn,
                channel=channel,
                state=EntryState(state) if state else None,
                patient=key,
                since=since,
                until=until,
                limit=None,
            )
        chosen = sorted(entry.id for entry in found if entry.replay_of is None)
        made = [] if dry_run else [new for _, new in replay_entries(site, chosen, as_of)]
        if made:
            site.audit("replay", [f"entries:{made[0]}-{made[-1]}"])
    verb = "would be replayed" if dry_run else "replayed"
    document = {"dry_run": dry_run, "config_as_of": as_of, "selected": chosen, "replayed": len(made), "entries": made}
    cli.print(document, f"{len(chosen)} entries {verb}." + (f" New: {made[0]} to {made[-1]}." if made else ""))


def replay_entries(site: OpenSite, entry_ids: Sequence[int], as_of: AsOf) -> Iterator[tuple[int, int]]:
    """Append a replay of each entry to the journal, in this order; (old, new) ids. Raises NotFoundError."""
    for at in range(0, len(entry_ids), _BATCH):
        some = entry_ids[at : at + _BATCH]
        receipts = _receipts(site, some, as_of)
        stored = site.store.journal_ledger.write_now(
            lambda conn, receipts=receipts: site.store.journal.append(conn, receipts)  # type: ignore[misc]  # mypy can't type the default
        )
        yield from zip(some, (one.arrival for one in stored), strict=True)


def _receipts(site: OpenSite, entry_ids: Sequence[int], as_of: AsOf) -> list[Receipt]:
    from engine.domain.message import Receipt
    from engine.hl7v2.ordering import ordering_key
    from engine.runtime.acceptance import Rules, judge

    with site.store.reader() as conn:
        entries = [site.store.journal.entry(conn, entry_id) for entry_id in entry_ids]
        outcomes = site.store.recorder.outcomes(conn, entry_ids)
    receipts: list[Receipt] = []
    for entry_id, entry in zip(entry_ids, entries, strict=True):
        if entry is None:
            raise NotFoundError(f"there is no entry {entry_id} in the journal")
        if entry.damaged:
            raise NotFoundError(f"what is stored of entry {entry_id} is damaged: there is nothing to replay")
        settings = site.configuration.channels.get(entry.channel)
        refusal = entry.refusal
        if refusal is not None and settings is not None:  # it may be acceptable under today's rules
            refusal = judge(Rules.of(settings), entry.payload).refusal
        outcome = outcomes.get(entry_id)
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
                config_as_of=outcome.config_version if outcome is not None and as_of == "then" else None,
            )
        )
    return receipts


def _header(payload: bytes) -> Header | None:
    from engine.hl7v2.header import HeaderError, read_header

    try:
        return read_header(payload)
    except HeaderError as error:
        return error.header
