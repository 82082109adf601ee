"""Resending: a destination is told how charts stand, because it was never told, or must be told again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.desk.destinations import standing
from engine.errors import NotFoundError

if TYPE_CHECKING:
    from engine.desk.desk import Desk
    from engine.store.resend import Resender, Told


def resender(desk: Desk, name: str, *, again: bool) -> Resender:
    """What makes the deliveries to a destination. again: also of what it has.

    Raises NotFoundError when it is not configured, takes no charts, or is fed by no channel.
    """
    from engine.connectors.registry import settings_of
    from engine.domain.delivery import STATE
    from engine.store.resend import Resender

    here = standing(desk, name)
    if here.type is None:
        raise NotFoundError(f"{name} is not in config.yaml any more")
    if not settings_of(here.type).takes & STATE:
        raise NotFoundError(f"{name} takes messages, and no charts: `handoff replay` forwards those that it never got")
    feeding = desk.configuration.feeding(name)
    if not feeding:
        raise NotFoundError(_nobody_feeds(desk, name))
    compiled = desk.compiled().channels
    return Resender(desk.keys, name, {one: compiled[one] for one in sorted(feeding)}, again=again)


def resend(
    desk: Desk,
    name: str,
    sender: Resender,
    *,
    only: str | None,
    since: datetime | None,
    dry_run: bool,
    reason: str | None,
) -> Iterator[list[Told]]:
    """What is told, some patients at a time. only: of this chart; since: of those that changed since then."""
    noted = False
    for ids in _pieces(desk, only, since):
        yield _step(desk, sender, ids, dry_run=dry_run, note=None if noted else (name, only, reason))
        noted = True
    if not dry_run:
        _count_again(desk, name)


def _pieces(desk: Desk, only: str | None, since: datetime | None) -> Iterator[list[str]]:
    from engine.store.resend import chart_ids

    if only is not None:
        yield [only]
        return
    after = ""
    while True:
        with desk.store.reader() as conn:
            ids = chart_ids(conn, after=after, since=since)
        if not ids:
            return
        yield ids
        after = ids[-1]


def _step(
    desk: Desk,
    sender: Resender,
    ids: list[str],
    *,
    dry_run: bool,
    note: tuple[str, str | None, str | None] | None,
) -> list[Told]:
    if dry_run:
        return desk.store.read_now(partial(sender.look, ids=ids))

    def write(conn: Any) -> list[Told]:
        told = sender.queue(conn, ids, desk.now)
        if note is not None:  # on record with the first, before anything is sent
            name, chart_id, reason = note
            subjects = [f"destination:{name}", *([f"chart:{chart_id}"] if chart_id else [])]
            desk.note(conn, "resend", subjects, reason)
        return told

    return desk.store.charts_ledger.write_now(write)


def _count_again(desk: Desk, name: str) -> None:
    """How many it was never told of, now that it was told."""
    channels = desk.configuration.feeding(name)
    untold = desk.store.read_now(lambda conn: desk.store.destinations.untold(conn, name, channels))
    desk.store.charts_ledger.write_now(lambda conn: desk.store.destinations.fed(conn, name, channels, untold))


def _nobody_feeds(desk: Desk, name: str) -> str:
    shadow = sorted(
        channel
        for channel, one in desk.configuration.channels.items()
        if one.mode == "shadow" and any(deliver.to == name for deliver in one.deliver)
    )
    if shadow:
        return f"channel {', '.join(shadow)} is in shadow: nothing of it leaves before its mode is live"
    return f"no channel delivers charts to {name}: see `deliver` in the channel files"
