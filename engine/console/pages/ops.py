"""How the feeds are: what waits, what died, what arrived, who looked."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from engine.console import reading
from engine.console.asked import Asked
from engine.desk.desk import Desk
from engine.store import Store


def look(desk: Desk, asked: Asked) -> dict[str, Any]:
    found = reading.destinations(desk, asked)
    with desk.store.reader() as conn:
        groups = desk.store.dead_letters.groups(conn)
    return {"destinations": found["items"], "dead": sum(one.count for one in groups)}


def tag(_store: Store, _asked: Asked, now: datetime) -> Any:
    """These hold no patients, and change by the minute."""
    return now.isoformat()


def dead(desk: Desk, asked: Asked) -> dict[str, Any]:
    return {"groups": reading.dead_groups(desk, asked)["items"], **reading.dead(desk, asked)}


def messages(desk: Desk, asked: Asked) -> dict[str, Any]:
    return reading.messages(desk, asked)


def message(desk: Desk, asked: Asked) -> dict[str, Any]:
    return {"message": reading.message(desk, asked)}


def trail(desk: Desk, asked: Asked) -> dict[str, Any]:
    return reading.trail(desk, asked)
