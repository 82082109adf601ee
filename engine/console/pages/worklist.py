"""The care team's lists: who needs what by when, and who is being called."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from engine.console import reading
from engine.console.asked import Asked, cursor
from engine.desk.desk import Desk
from engine.desk.worklist import worklist
from engine.domain.page import UNANSWERED, PageState
from engine.domain.shapes import plain
from engine.store import Store

PLACE: Final = ("worklist", (datetime, str))
PAGE_KEY: Final = (bool, datetime, str)
DUE: Final = {"overdue": timedelta(0), "4h": timedelta(hours=4), "24h": timedelta(days=1), "7d": timedelta(days=7)}
"""What the filter is called -> due so soon."""


def look(desk: Desk, asked: Asked) -> dict[str, Any]:
    found = worklist(desk, asked.reveal, limit=asked.limit, after=asked.after, **_conditions(asked, desk.now))
    with desk.store.reader() as conn:
        kinds = desk.store.tasks.kinds(conn)
    return {"rows": found.rows, "next": cursor(PLACE[0], found.next), "kinds": kinds, "dues": list(DUE)}


def tag(store: Store, asked: Asked, now: datetime) -> Any:
    """Changes when what the page shows does."""
    with store.reader() as conn:
        places = store.worklist.find(conn, limit=asked.limit, after=asked.after, **_conditions(asked, now))
        return [plain(place) for place in places], store.worklist.versions(conn, [one.chart_id for one in places])


def _conditions(asked: Asked, now: datetime) -> dict[str, Any]:
    query = asked.query
    due = query.get("due")
    return {
        "assignee": query.get("assignee"),
        "kind": query.get("kind"),
        "due_before": now + DUE[due] if due is not None else None,
    }


def pages_tag(store: Store, asked: Asked, _now: datetime) -> Any:
    states = [PageState(one) for one in asked.query.get("state", ())] or list(UNANSWERED)
    with store.reader() as conn:
        found = store.pages.find(conn, states=states, limit=asked.limit, after=asked.after)
        return store.worklist.versions(conn, [one.chart_id for one in found])


def pages(desk: Desk, asked: Asked) -> dict[str, Any]:
    return reading.pages(desk, asked)
