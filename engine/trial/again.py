"""What recorded messages would come to if they were replayed now: against the stored charts, and nothing is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from engine.domain.message import Entry
from engine.pipeline.acceptance import Rules, judge
from engine.pipeline.channel import CompiledChannel
from engine.store.store import Store
from engine.trial.run import BEHIND_ALL, Run, told

_PIECE: Final = 256
_BYTES_MAX: Final = 16 << 20
"""Of the messages that are tried at once, about."""


def would(
    store: Store, channels: Mapping[str, CompiledChannel], entry_ids: Sequence[int], now: datetime
) -> Iterator[dict[str, Any]]:
    """What each entry would come to, one after the other, as the worker would do it.

    Entries that are damaged, or whose channel is gone, are left out; so are the last ones, when their bytes are many.
    """
    with store.reader() as conn:
        since = store.journal.first_received(conn)
    run = Run({name: dataclasses.replace(one, observed_since=since.get(name, now)) for name, one in channels.items()})
    entries = [one for one in _entries(store, entry_ids) if one.channel in channels and not one.damaged]
    prepared = [run.prepare(_replayed(entry, number, channels, now)) for number, entry in enumerate(entries)]
    with store.reader() as conn:
        run.charts = store.charts.load_to_try(
            conn,
            {identity for one in prepared for identity in one.identities},
            {visit for one in prepared for visit in one.visits},
        )
    for entry, one in zip(entries, prepared, strict=True):
        step = run.decide(one, now)
        outcome = step.outcome
        keys = [delivery.idempotency_key for delivery in outcome.deliveries]
        with store.reader() as conn:
            known = store.outbox.known(conn, keys)
        letter = outcome.dead_letter
        yield {
            "entry": entry.id,
            "type": entry.summary.type,
            "state": outcome.state,
            "error": letter.error if letter is not None else None,
            "tasks": [told(old, task) for old, task in step.tasks()] if not _in_shadow(channels[entry.channel]) else [],
            "deliveries": [
                f"{delivery.operation} to {delivery.destination}"
                for delivery in outcome.deliveries
                if delivery.idempotency_key not in known
            ],
        }


def _in_shadow(channel: CompiledChannel) -> bool:
    """Then the living have nothing of it, and this was tried on their charts."""
    return channel.settings.mode == "shadow"


def _replayed(entry: Entry, number: int, channels: Mapping[str, CompiledChannel], now: datetime) -> Entry:
    """The entry that its replay would be."""
    refusal = entry.refusal
    if refusal is not None:  # it may be acceptable under today's rules
        refusal = judge(Rules.of(channels[entry.channel].settings), entry.payload).refusal
    return msgspec.structs.replace(
        entry, id=BEHIND_ALL + number, refusal=refusal, received_at=now, replay_of=entry.id,
        replay_root=entry.replay_root or entry.id, first_received_at=entry.first_received_at or entry.received_at,
    )  # fmt: skip


def _entries(store: Store, entry_ids: Sequence[int]) -> list[Entry]:
    """Fewer than were asked for, when their bytes are many."""
    found: list[Entry] = []
    size = 0
    for at in range(0, len(entry_ids), _PIECE):
        with store.reader() as conn:
            entries = store.journal.entries(conn, entry_ids[at : at + _PIECE])
        found += entries
        size += sum(len(entry.payload) for entry in entries)
        if size > _BYTES_MAX:
            break
    return found
