"""The one table of pages: path, action, template, and the look that fills it. Tests of all roles are made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from engine.access.actions import Action
from engine.console.asked import Asked, Param, choice, number, opaque, text
from engine.console.pages import ops, patient, worklist
from engine.desk.desk import Desk
from engine.domain.page import PageState
from engine.store import Store

Look = Callable[[Desk, Asked], dict[str, Any]]
Tag = Callable[[Store, Asked, datetime], Any]


@dataclass(frozen=True, kw_only=True)
class Page:
    """title: of the document; it holds nothing of a patient. nav: in the bar, for whoever may. lists: see `Route`.

    reveals: who sees patients masked may say why they want to see them, and does. tag: what changes when the page does;
    with one, a page that is open is kept fresh, and patients are on record again only when there is something new.
    """

    path: str
    title: str
    action: Action
    template: str
    do: Look
    nav: bool = False
    at: tuple[Param, ...] = ()
    query: tuple[Param, ...] = ()
    lists: tuple[str, tuple[type, ...]] | None = None
    reveals: bool = False
    tag: Tag | None = None

    @property
    def name(self) -> str:
        return f"GET {self.path}"


_A = Action
_CHART: Final = (opaque("id", "The chart's id."),)

PAGES: Final[tuple[Page, ...]] = (
    Page(
        path="/worklist", title="Worklist", action=_A.WORKLIST_READ, template="worklist.html", do=worklist.look,
        nav=True, reveals=True, tag=worklist.tag, lists=worklist.PLACE,
        query=(
            text("assignee", "Of this role or person."), text("kind", "Of this kind."),
            choice("due", "Due by then.", tuple(worklist.DUE)),
        ),
    ),
    Page(
        path="/pages", title="Pages", action=_A.PAGE_READ, template="pages.html", do=worklist.pages, nav=True,
        reveals=True, tag=worklist.pages_tag, lists=("page", worklist.PAGE_KEY),
        query=(choice("state", "In this state.", tuple(one.value for one in PageState), many=True),),
    ),
    Page(
        path="/patients/{id}", title="Patient", action=_A.PATIENT_READ, template="patient.html", do=patient.look,
        at=_CHART, reveals=True, tag=patient.tag,
    ),
    Page(
        path="/ops", title="Operations", action=_A.OPS_READ, template="ops.html", do=ops.look, nav=True, tag=ops.tag
    ),
    Page(
        path="/ops/dead", title="Dead letters", action=_A.DEAD_READ, template="dead.html", do=ops.dead, nav=True,
        tag=ops.tag, query=(text("error", "With this code."), text("channel", "Of this channel.")),
        lists=("dead", (int,)),
    ),
    Page(
        path="/ops/messages", title="Messages", action=_A.ENTRIES_LIST, template="messages.html", do=ops.messages,
        nav=True, tag=ops.tag, lists=("message", (int,)),
        query=(
            choice("state", "What became of it.", ("received", "processed", "filtered", "dead", "refused")),
            text("channel", "Of this channel."), text("error", "With this code."),
        ),
    ),
    Page(
        path="/ops/messages/{id}", title="Message", action=_A.ENTRY_READ, template="message.html", do=ops.message,
        at=(number("id", "Its number."),), reveals=True,
    ),
    Page(
        path="/audit", title="Trail", action=_A.TRAIL_READ, template="audit.html", do=ops.trail, nav=True,
        query=(text("action", "Of this kind."), opaque("chart", "Of this patient.")), lists=("audit", (int,)),
    ),
)  # fmt: skip
