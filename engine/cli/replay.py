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

from engine.cli.common import NO, Cli, complete_channel, config_option, json_option
from engine.cli.desk import PATIENT_HELP, PatientKey, open_desk
from engine.cli.groups import agree, counted, group_options
from engine.cli.messages import STATES
from engine.cli.tables import Column, table
from engine.cli.times import TIMES, When
from engine.desk import finding
from engine.desk.desk import Desk

if TYPE_CHECKING:
    from engine.domain.message import Entry, Receipt
    from engine.hl7v2.header import Header

AsOf = Literal["now", "then"]

PIECE: Final = 256
"""So many are replayed in one transaction."""
_PIECE_BYTES: Final = 16 << 20
"""...or fewer, when they are large."""
_LOOK_ENTRIES_MAX: Final = 1000
"""So many are looked at, and tried, to say what a replay would do."""
_BEHIND_ALL: Final = 1 << 40
"""An entry's id: what is tried comes after all that is stored."""


def as_of_option(function: click.decorators.FC) -> click.decorators.FC:
    return click.option(
        "--config-as-of",
        "as_of",
        type=click.Choice(["now", "then"]),
        default="now",
        show_default=True,
        help="Under today's configuration, or the one that processed the entry.",
    )(function)


@click.command("replay", epilog=TIMES)
@click.option("--channel", metavar="NAME", shell_complete=complete_channel, help="Of this channel.")
@click.option("--since", type=When(), help="Received at or after.")
@click.option("--until", type=When(), help="Received before.")
@click.option("--state", type=click.Choice(STATES), help="With this state now.")
@click.option("--patient", metavar="KEY", type=PatientKey(), help=PATIENT_HELP)
@click.option("--all", "every", is_flag=True, help="The whole journal.")
@as_of_option
@group_options
@click.option("-v", "--verbose", is_flag=True, help="With --dry-run: entry by entry.")
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
    every: bool,
    as_of: AsOf,
    dry_run: bool,
    yes: bool,
    verbose: bool,
) -> int:
    """Process entries of the journal again, oldest first. What was sent is not sent a second time.

    Replays of replays are left out: the entry that they came from is replayed. Any number can be replayed, and a
    replay that was interrupted be run again: what is processed twice changes nothing twice. Exit code 1 when an entry
    can't be replayed because what is stored of it is damaged.

    --dry-run shows which entries these are and what they would change now: their outcomes, new tasks, and what would be
    sent that was not sent.
    """
    from engine.domain.message import EntryState

    if not every and not any((channel, since, until, state, patient)):
        raise click.UsageError(
            "say which: --channel, --since, --until, --state, --patient, or --all for the whole journal"
        )

    with open_desk(cli) as desk:
        finding.check_channel(desk, channel)
        key = finding.patient_key(desk, patient) if patient else None
        with desk.store.reader() as conn:
            chosen = desk.store.journal.originals(
                conn,
                channel=channel,
                state=EntryState(state) if state else None,
                patient=key,
                since=since,
                until=until,
            )
        if dry_run:
            cli.print(*_preview(desk, chosen, as_of, verbose=verbose))
            return 0
        if len(chosen) > 1:
            agree(cli, f"{len(chosen):,} entries would be replayed: {_kinds(desk, chosen)}.", yes=yes, unattended=True)
        if chosen:  # on record before it is done; the new entries name those that they replay
            desk.audit("replay", [f"entries:{chosen[0]}-{chosen[-1]}"])
        made: list[int] = []
        problems: list[dict[str, Any]] = []
        for one in replay_entries(desk, chosen, as_of):
            if one.new is not None:
                made.append(one.new)
            else:
                problems.append({"entry": one.old, "problem": one.problem})
    lines = [f"{len(made)} entries replayed." + (f" New: {made[0]} to {made[-1]}." if made else "")]
    lines += [f"Not replayed: entry {problem['entry']}: {problem['problem']}" for problem in problems]
    document = {"dry_run": False, "config_as_of": as_of, "selected": chosen, "replayed": len(made), "entries": made}
    cli.print(document | {"problems": problems}, "\n".join(lines))
    return NO if problems else 0


def _kinds(desk: Desk, chosen: Sequence[int]) -> str:
    """`12 ADT^A01 processed (main)`: what the first entries of a group are."""
    with desk.store.reader() as conn:
        found = desk.store.journal.listed(conn, chosen[:_LOOK_ENTRIES_MAX])
    said = counted(f"{one.type or 'unreadable'} {one.state} ({one.channel})" for one in found)
    return said + (f", and {len(chosen) - len(found):,} more" if len(chosen) > len(found) else "")


def _preview(desk: Desk, chosen: Sequence[int], as_of: AsOf, *, verbose: bool) -> tuple[dict[str, Any], str]:
    """What a replay would do, as a document and in words. The first entries are tried; nothing is written."""
    document: dict[str, Any] = {
        "dry_run": True, "config_as_of": as_of, "selected": list(chosen), "replayed": 0, "entries": [], "problems": [],
        "would": None,
    }  # fmt: skip
    if not chosen:
        return document, "0 entries would be replayed."
    lines = [f"{len(chosen):,} entries would be replayed: {_kinds(desk, chosen)}."]
    if as_of == "then":
        lines.append("What they would change is only tried under today's configuration.")
        return document, "\n".join(lines)
    tried = list(_tried(desk, chosen[:_LOOK_ENTRIES_MAX]))
    document["would"] = tried
    if len(tried) < len(chosen):
        lines.append(f"Tried were the first {len(tried):,} of them:")
    lines += [
        f"  outcome     {counted(one['state'] + (': ' + one['error'] if one['error'] else '') for one in tried)}",
        f"  tasks       {counted(task for one in tried for task in one['tasks']) or 'none'}",
        f"  deliveries  {counted(what for one in tried for what in one['deliveries']) or 'none'}",
    ]
    if verbose:
        rows = [
            (one["entry"], one["type"], one["state"], one["error"], counted(one["tasks"]) or None,
             counted(one["deliveries"]) or None) for one in tried
        ]  # fmt: skip
        columns = (
            "entry", "type", Column("state", alarm={"dead", "refused"}), Column("error", least=8, common=True),
            Column("tasks", least=12), Column("deliveries", least=12),
        )  # fmt: skip
        lines += ["", table(columns, rows)]
    return document, "\n".join(lines)


def _tried(desk: Desk, chosen: Sequence[int]) -> Iterator[dict[str, Any]]:
    """What each entry would come to now, one after the other, as the worker would do it."""
    import dataclasses

    import msgspec

    from engine.domain.task import TaskState
    from engine.pipeline.process import decide, prepare
    from engine.runtime.acceptance import Rules, judge

    compiled = desk.compiled().channels
    with desk.store.reader() as conn:
        since = desk.store.journal.first_received(conn)
    channels = {
        name: dataclasses.replace(channel, observed_since=since.get(name, desk.now))
        for name, channel in compiled.items()
    }
    prepared = []
    entries = _whole_entries(desk, chosen)
    for number, entry in enumerate(entries):
        channel = channels.get(entry.channel)
        if channel is None or entry.damaged:
            continue
        refusal = judge(Rules.of(channel.settings), entry.payload).refusal if entry.refusal is not None else None
        again = msgspec.structs.replace(
            entry, id=_BEHIND_ALL + number, refusal=refusal, received_at=desk.now, replay_of=entry.id,
            replay_root=entry.replay_root or entry.id, first_received_at=entry.first_received_at or entry.received_at,
        )  # fmt: skip
        prepared.append((entry, channel, prepare(again, channel)))
    with desk.store.reader() as conn:
        charts = desk.store.charts.load(
            conn,
            {identity for _, _, one in prepared for identity in one.identities},
            {visit for _, _, one in prepared for visit in one.visits},
        )
    for entry, channel, one in prepared:
        before = {task.id: task for chart in charts.by_id.values() for task in chart.tasks}
        outcome = decide(one, channel, charts, desk.now)
        tasks: list[str] = []
        for chart in outcome.charts:
            charts.add(chart)
            for task in chart.tasks:
                old = before.get(task.id)
                if old is None or old.state is not task.state:
                    what = "new" if old is None and task.state is TaskState.OPEN else task.state.value
                    tasks.append(f"{task.kind} {what}")
        keys = [delivery.idempotency_key for delivery in outcome.deliveries]
        with desk.store.reader() as conn:
            known = desk.store.outbox.known(conn, keys)
        letter = outcome.dead_letter
        yield {
            "entry": entry.id,
            "type": entry.summary.type,
            "state": outcome.state,
            "error": letter.error if letter is not None else None,
            "tasks": tasks,
            "deliveries": [
                f"{delivery.operation} to {delivery.destination}"
                for delivery in outcome.deliveries
                if delivery.idempotency_key not in known
            ],
        }


def _whole_entries(desk: Desk, chosen: Sequence[int]) -> list[Entry]:
    """Fewer than were chosen, when their bytes are many."""
    found: list[Entry] = []
    size = 0
    for at in range(0, len(chosen), PIECE):
        with desk.store.reader() as conn:
            entries = desk.store.journal.entries(conn, chosen[at : at + PIECE])
        found += entries
        size += sum(len(entry.payload) for entry in entries)
        if size > _PIECE_BYTES:
            break
    return found


@dataclass(frozen=True)
class Replayed:
    """What became of an entry that was to be replayed: its replay, or why there is none."""

    old: int
    new: int | None = None
    problem: str | None = None


def replay_entries(
    desk: Desk, entry_ids: Sequence[int], as_of: AsOf, decision: str | None = None
) -> Iterator[Replayed]:
    """Append a replay of each entry to the journal, in this order; some at a time, so that any number may be given.

    decision: the hold (`Hold.key`) that a person takes as true.
    """
    at = 0
    while at < len(entry_ids):
        found = _receipts(desk, entry_ids[at : at + PIECE], as_of, decision)
        receipts = [one for one in found if not isinstance(one, str)]
        stored = iter(desk.store.journal_ledger.write_now(partial(desk.store.journal.append, receipts=receipts)))
        for old, one in zip(entry_ids[at : at + len(found)], found, strict=True):
            yield Replayed(old, problem=one) if isinstance(one, str) else Replayed(old, next(stored).arrival)
        at += len(found)


def _receipts(desk: Desk, entry_ids: Sequence[int], as_of: AsOf, decision: str | None) -> list[Receipt | str]:
    """A receipt for each entry, or why it can't be replayed. For the first of them only, when their bytes are many."""
    from engine.domain.message import Receipt
    from engine.hl7v2.ordering import ordering_key
    from engine.runtime.acceptance import Rules, judge

    entries: list[Entry | None] = []
    size = 0
    with desk.store.reader() as conn:
        for entry_id in entry_ids:
            entry = desk.store.journal.entry(conn, entry_id)
            entries.append(entry)
            size += len(entry.payload) if entry is not None else 0
            if size > _PIECE_BYTES:
                break
        versions = desk.store.recorder.config_versions(conn, entry_ids) if as_of == "then" else {}
    receipts: list[Receipt | str] = []
    for entry_id, entry in zip(entry_ids, entries, strict=False):
        if entry is None:
            receipts.append("it is not in the journal any more")
            continue
        if entry.damaged:
            receipts.append("what is stored of it is damaged: there is nothing to replay")
            continue
        settings = desk.configuration.channels.get(entry.channel)
        refusal = entry.refusal
        if refusal is not None and settings is not None:  # it may be acceptable under today's rules
            refusal = judge(Rules.of(settings), entry.payload).refusal
        receipts.append(
            Receipt(
                channel=entry.channel,
                peer=entry.peer,
                received_at=desk.now,
                payload=entry.payload,
                summary=entry.summary,
                dedupe_key=None,
                digest=desk.keys.lookup(entry.payload),
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
