"""Replaying: entries are processed again, dead letters tried again.

A replay is a new entry with the bytes of the old one. The keys of its effects are made from the first entry of the
chain, so that nothing is sent twice that was sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from engine.domain.delivery import Stage
from engine.errors import NotFoundError, StoreError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.desk.desk import Desk
    from engine.domain.message import Entry, Receipt
    from engine.hl7v2.header import Header
    from engine.store.deadletters import ListedDeadLetter
    from engine.store.requeue import Requeued

AsOf = Literal["now", "then"]

PIECE: Final = 256
"""Entries replayed in one transaction."""
_PIECE_BYTES: Final = 16 << 20
"""Bytes of them at most: fewer entries, when they are large."""


def try_out(desk: Desk, chosen: Sequence[int]) -> Iterator[dict[str, Any]]:
    """What each entry would come to now; nothing is written."""
    from engine.trial.again import would

    return would(desk.store, desk.compiled().channels, chosen, desk.now)


@dataclass(frozen=True)
class Replayed:
    """What became of an entry that was to be replayed: its replay, or why there is none."""

    old: int
    new: int | None = None
    problem: str | None = None


def replay(desk: Desk, entry_ids: Sequence[int], as_of: AsOf) -> Iterator[Replayed]:
    """Replay entries, in this order. It is on record before it is done; the new entries name those they replay."""
    if entry_ids:
        desk.audit("replay", [f"entries:{entry_ids[0]}-{entry_ids[-1]}"])
    yield from replay_entries(desk, entry_ids, as_of)


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
    from engine.domain.hold import HoldCode
    from engine.domain.message import Receipt
    from engine.pipeline.acceptance import Rules, judge

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
        if entry.erased:
            receipts.append("it was kept long enough and is erased: there is nothing to replay")
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
                ordering_key=_ordering_key(entry),
                deviations=entry.deviations,
                refusal=refusal,
                replay_of=entry_id,
                config_as_of=versions.get(entry_id),
                decision=decision,
                # Who releases it says that it is none: it counts, and so do replays of that.
                test=entry.test and (decision or "").partition("@")[0] != HoldCode.TEST_MESSAGE,
            )
        )
    return receipts


def _ordering_key(entry: Entry) -> bytes:
    """As the entry had it when it came."""
    from engine.domain.cause import read
    from engine.domain.message import EntryKind
    from engine.hl7v2.ordering import ordering_key
    from engine.store.partitions import ordering_key_of

    if entry.kind is EntryKind.MESSAGE:
        return ordering_key(entry.payload, _header(entry.payload))
    try:
        return ordering_key_of(read(entry.payload).chart_id)
    except ValueError:
        return b""


def _header(payload: bytes) -> Header | None:
    from engine.hl7v2.header import HeaderError, read_header

    try:
        return read_header(payload)
    except HeaderError as error:
        return error.header


def in_shadow(desk: Desk, channel: str) -> str | None:
    """Why nothing of the living can be put right by a replay of this channel's messages; none: it can.

    Its outcome would stand in shadow alone, and what waits for a person would pass for done.
    """
    known = desk.outline.channels.get(channel)
    if known is None or known.mode != "shadow":
        return None
    return f"channel {channel} is in shadow: a replay would reach no chart of the living before its mode is live"


def replay_letters(
    desk: Desk, letters: Sequence[ListedDeadLetter], as_of: AsOf, *, out_of_order: bool
) -> list[dict[str, Any]]:
    """A result for each: the new entry or the delivery, or why not.

    The journal is written before the letters are resolved: a crash between the two leaves letters that are replayed
    once more, which changes nothing.
    """
    desk.authorise("replay", [f"dead-letter:{letter.id}" for letter in letters])
    nothing = {"entry": None, "delivery": None, "sent": None, "problem": None}
    results: dict[int, dict[str, Any]] = {letter.id: {"id": letter.id, **nothing} for letter in letters}
    anew: list[ListedDeadLetter] = []
    for letter in letters:
        result = results[letter.id]
        if letter.resolved_by is not None:
            result["problem"] = f"was resolved before: {letter.resolved_by}"
        elif letter.stage is not Stage.DELIVERY and (why := in_shadow(desk, letter.channel)) is not None:
            result["problem"] = why
        elif letter.stage is not Stage.DELIVERY:
            anew.append(letter)
        else:
            try:
                result["delivery"], result["sent"] = _requeue(desk, letter, out_of_order=out_of_order)
            except StoreError as error:
                result["problem"] = str(error)
    replays = replay_entries(desk, [letter.entry for letter in anew if letter.entry is not None], as_of)
    for letter, replayed in zip(anew, replays, strict=True):
        results[letter.id] |= {"entry": replayed.new, "problem": replayed.problem}
    new = {letter.id: entry for letter in anew if (entry := results[letter.id]["entry"]) is not None}
    for letter_id, problem in _resolve(desk, new).items():
        results[letter_id]["problem"] = problem
    return list(results.values())


def _resolve(desk: Desk, replays: Mapping[int, int]) -> dict[int, str]:
    """Note which entries the letters were replayed as. Returns why not, for those that can't be resolved."""

    def work(conn: Connection) -> dict[int, str]:
        problems: dict[int, str] = {}
        for letter_id, entry_id in replays.items():
            try:
                desk.store.dead_letters.resolve(conn, letter_id, f"entry:{entry_id}", desk.now)
            except StoreError as error:  # somebody else has replayed or discarded it meanwhile
                problems[letter_id] = str(error)
        desk.note(conn, "replay", [f"dead-letter:{letter_id}" for letter_id in replays if letter_id not in problems])
        return problems

    try:
        return desk.store.charts_ledger.write_now(work) if replays else {}
    except StoreError as error:
        return dict.fromkeys(replays, str(error))


def _requeue(desk: Desk, letter: ListedDeadLetter, *, out_of_order: bool) -> tuple[int, Requeued]:
    from engine.store.deadletters import SUPERSEDED
    from engine.store.requeue import Requeued, requeue

    delivery = letter.delivery
    if delivery is None:
        raise NotFoundError(f"dead letter {letter.id} names no delivery")

    def work(conn: Connection) -> Requeued:
        done = requeue(conn, desk.keys, delivery, desk.now, out_of_order=out_of_order)
        resolved_by = SUPERSEDED if done is Requeued.SUPERSEDED else f"delivery:{delivery}"
        desk.store.dead_letters.resolve(conn, letter.id, resolved_by, desk.now)
        desk.note(conn, "replay", [f"dead-letter:{letter.id}"])
        return done

    return delivery, desk.store.charts_ledger.write_now(work)
