"""`handoff held`: deliveries of which nobody knows whether they arrived. A person looks there, and decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from engine.cli.common import (
    ROW,
    Cli,
    Said,
    clock_time,
    config_option,
    json_option,
    limit_option,
    reveal_options,
    table,
)
from engine.cli.messages import delivery_shape, told
from engine.cli.site import NotFoundError, OpenSite, open_site, reveal_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.domain.delivery import QueuedDelivery


@click.group("held")
@config_option
def held() -> None:
    """Deliveries that wait for your decision."""


@held.command("list")
@limit_option
@reveal_options
@json_option
@config_option
@click.pass_obj
def list_(cli: Cli, limit: int, reveal: bool, reason: str | None) -> None:
    """List held deliveries, oldest first. Each may have arrived or not; later ones of its patient wait behind it."""
    wish = reveal_of(reveal, reason)
    with open_site(cli) as site:
        with site.store.reader() as conn:
            found = site.store.outbox.held(conn, limit)
        view = site.view(wish, (f"delivery:{queued.id}" for queued in found))
    shapes = [delivery_shape(queued, view) | {"entry": queued.entry_id or None} for queued in found]
    rows = [
        (s["id"], clock_time(s["created_at"]), s["destination"], told(s), s["entry"], s["attempts"]) for s in shapes
    ]
    headers = ("id", "since", "destination", "what", "entry", "attempts")
    cli.print(shapes, table(headers, rows) or "No held deliveries.")


@held.command("release")
@click.argument("delivery_id", metavar="ID", type=ROW)
@json_option
@config_option
@click.pass_obj
def release(cli: Cli, delivery_id: int) -> None:
    """It did not arrive: try it again."""

    def work(site: OpenSite, conn: Connection, _: QueuedDelivery) -> None:
        site.store.outbox.release(conn, delivery_id, site.now)

    _decide(cli, delivery_id, work, "release", None, "is tried again")


@held.command("confirm")
@click.argument("delivery_id", metavar="ID", type=ROW)
@json_option
@config_option
@click.pass_obj
def confirm(cli: Cli, delivery_id: int) -> None:
    """It arrived: count it as delivered, and let those behind it go on."""
    from engine.domain.delivery import DeliveryState
    from engine.store.outbox import Settled

    def work(site: OpenSite, conn: Connection, queued: QueuedDelivery) -> None:
        result = Settled(id=delivery_id, state=DeliveryState.DELIVERED, attempts=queued.attempts)
        site.store.outbox.settle(conn, [result], site.now)

    _decide(cli, delivery_id, work, "confirm", None, "counts as delivered")


@held.command("bury")
@click.argument("delivery_id", metavar="ID", type=ROW)
@click.option("--reason", required=True, type=Said(), metavar="TEXT", help="Why; written to the audit.")
@json_option
@config_option
@click.pass_obj
def bury(cli: Cli, delivery_id: int, reason: str) -> None:
    """Give it up: it becomes a dead letter, and those behind it go on."""
    from engine.domain.delivery import DeliveryState
    from engine.store.outbox import Settled

    def work(site: OpenSite, conn: Connection, queued: QueuedDelivery) -> None:
        result = Settled(
            id=delivery_id,
            state=DeliveryState.DEAD,
            attempts=queued.attempts,
            error="buried",
            detail="was held, and a person gave it up",
        )
        site.store.outbox.settle(conn, [result], site.now)

    _decide(cli, delivery_id, work, "bury", reason, "is a dead letter")


def _decide(
    cli: Cli,
    delivery_id: int,
    work: Callable[[OpenSite, Connection, QueuedDelivery], None],
    action: str,
    reason: str | None,
    said: str,
) -> None:
    from engine.domain.delivery import DeliveryState

    with open_site(cli) as site:

        def write(conn: Connection) -> None:
            queued = site.store.outbox.get(conn, delivery_id)
            if queued is None or queued.state is not DeliveryState.HELD:
                raise NotFoundError(f"there is no held delivery {delivery_id}")
            work(site, conn, queued)
            site.note(conn, action, [f"delivery:{delivery_id}"], reason)

        site.store.charts_ledger.write_now(write)
        with site.store.reader() as conn:
            after = site.store.outbox.get(conn, delivery_id)
        shape: dict[str, Any] | None = delivery_shape(after, site.view(None, ())) if after else None
    cli.print(shape, f"Delivery {delivery_id} {said}.")
