"""What can be read: each route's look at the desk. Faces of the same looks as the command line's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from engine.connectors.remedies import remedy
from engine.console.asked import Asked, cursor
from engine.desk import finding
from engine.desk.desk import Desk, Reveal
from engine.desk.destinations import standings
from engine.desk.finding import dead_letter, held_delivery, question, withheld_delivery
from engine.desk.listing import Piece, page_of
from engine.desk.medicines import reconciliation
from engine.desk.searching import Terms, search
from engine.desk.seeing import (
    View,
    around,
    delivery_shape,
    entry_details,
    entry_shape,
    held_shape,
    hold_shape,
    patient_details,
    withheld_shape,
)
from engine.desk.worklist import worklist as rows_of
from engine.domain.appointment import AppointmentStatus
from engine.domain.delivery import Stage
from engine.domain.message import EntryKind, EntryState
from engine.domain.page import UNANSWERED, PageState
from engine.domain.shapes import appointment_shape, page_shape, patient_shape, plain, task_shape, text_shape
from engine.domain.task import STANDING, TaskState
from engine.domain.text import TextState
from engine.errors import NotFoundError
from engine.store.listed import Listed, ListedStore
from engine.store.tasks import ListedTask

_LOOKED_THROUGH_MAX: Final = 20_000
"""Charts that are opened for a search by name, birth date or visit."""


class Tagged(NamedTuple):
    """An answer with the version of what it shows."""

    shape: dict[str, Any]
    tag: str


class Search(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is looked for. It stands in the body: an address is kept by proxies and browsers."""

    key: str | None = None
    """AUTHORITY:ID, or a pseudonym."""
    visit: str | None = None
    """Encounter key or visit number."""
    name: str | None = None
    """How the family name begins."""
    birth_date: str | None = None
    """`1958-07-15`; `1958-07` finds all of that month."""


def page(kind: str, items: list[dict[str, Any]], key: tuple[Any, ...] | None) -> dict[str, Any]:
    """The contract's list."""
    return {"items": items, "next": cursor(kind, key)}


# --- tasks, pages, appointments --------------------------------------------------------------------------------------


def tasks(desk: Desk, asked: Asked) -> dict[str, Any]:
    query = asked.query
    found = page_of(
        desk,
        desk.store.tasks,
        asked.limit,
        asked.after,
        states=[TaskState(one) for one in query.get("state", ())] or list(STANDING),
        kind=query.get("kind"),
        assignee=query.get("assignee"),
        chart_ids=_chart_ids(query),
        due_from=query.get("due_from"),
        due_before=query.get("due_before"),
    )
    return _shown(desk, asked, "task", found)


def worklist(desk: Desk, asked: Asked) -> dict[str, Any]:
    query = asked.query
    found = rows_of(
        desk,
        asked.reveal,
        limit=asked.limit,
        after=asked.after,
        assignee=query.get("assignee"),
        kind=query.get("kind"),
        due_before=query.get("due_before"),
    )
    return page("worklist", found.rows, found.next)


def task(desk: Desk, asked: Asked) -> Tagged:
    return task_as_it_is(desk, asked.path["id"], asked.reveal)


def task_as_it_is(desk: Desk, task_id: str, reveal: Reveal | None = None) -> Tagged:
    item = one_of(desk, desk.store.tasks, task_id)
    view = desk.view(reveal, [f"chart:{item.chart_id}"])
    return Tagged(_shape("task", item, view), tag_of(desk, item))


def tag_of(desk: Desk, item: ListedTask) -> str:
    """Of a task as it is: another one after each change. Keyed, so that it tells nothing of what the task holds."""
    return desk.keys.lookup("task-version", msgspec.json.encode(plain(item.task))).hex()


def pages(desk: Desk, asked: Asked) -> dict[str, Any]:
    states = [PageState(one) for one in asked.query.get("state", ())] or list(UNANSWERED)
    found = page_of(
        desk, desk.store.pages, asked.limit, asked.after, states=states, chart_ids=_chart_ids(asked.query)
    )  # fmt: skip
    return _shown(desk, asked, "page", found)


def page_with_steps(desk: Desk, asked: Asked) -> dict[str, Any]:
    item = one_of(desk, desk.store.pages, asked.path["id"])
    return _shape("page", item, desk.view(asked.reveal, [f"chart:{item.chart_id}"]))


def appointments(desk: Desk, asked: Asked) -> dict[str, Any]:
    query = asked.query
    found = page_of(
        desk,
        desk.store.appointments,
        asked.limit,
        asked.after,
        statuses=[AppointmentStatus(one) for one in query.get("status", ())],
        chart_ids=_chart_ids(query),
        starts_from=query.get("since"),
        starts_before=query.get("until"),
    )
    return _shown(desk, asked, "appointment", found)


def texts(desk: Desk, asked: Asked) -> dict[str, Any]:
    states = [TextState(one) for one in asked.query.get("state", ())]
    found = page_of(
        desk, desk.store.texts, asked.limit, asked.after, states=states, chart_ids=_chart_ids(asked.query)
    )  # fmt: skip
    return _shown(desk, asked, "text", found)


def text(desk: Desk, asked: Asked) -> dict[str, Any]:
    item = one_of(desk, desk.store.texts, asked.path["id"])
    return _shape("text", item, desk.view(asked.reveal, [f"chart:{item.chart_id}"]))


def one_of(desk: Desk, store: ListedStore[Any], id_: str) -> Any:
    """Raises NotFoundError."""
    with desk.store.reader() as conn:
        item = store.get(conn, id_)
    if item is None:
        raise NotFoundError(f"there is no such {store.what}")
    return item


def _chart_ids(query: Mapping[str, Any]) -> list[str] | None:
    return [query["chart"]] if "chart" in query else None


def _shown(desk: Desk, asked: Asked, what: str, found: Piece) -> dict[str, Any]:
    view = desk.view(asked.reveal, (f"chart:{item.chart_id}" for item in found.items))
    return page(what, [_shape(what, item, view) for item in found.items], found.next)


def _shape(what: str, item: Listed, view: View) -> dict[str, Any]:
    make: Any = {"task": task_shape, "page": page_shape, "appointment": appointment_shape, "text": text_shape}[what]
    shape = view.of(item.chart_id).part(what, make(getattr(item, what), item.patient_key))
    return {"chart": item.chart_id, **shape, "test": item.test}


# --- patients --------------------------------------------------------------------------------------------------------


def patients(desk: Desk, asked: Asked) -> dict[str, Any]:
    wanted: Search = asked.body
    terms, cut = Terms(wanted.visit, wanted.name, wanted.birth_date), False
    if wanted.key is not None:
        charts = [finding.chart(desk, wanted.key)]
    else:
        most = asked.limit + 1 if desk.gate is None else _LOOKED_THROUGH_MAX
        charts, cut, _ = search(desk, terms, charts_max=_LOOKED_THROUGH_MAX, most=min(most, 2_000))
        charts = desk.seen(charts, lambda chart: (chart.id, None))
        cut = cut or len(charts) > asked.limit
    charts = charts[: asked.limit]
    if terms.any:
        desk.found(chart.id for chart in charts)
    view = desk.view(asked.reveal, (f"chart:{chart.id}" for chart in charts))
    shapes = [
        {"chart": one.id, **view.of(one.id).patient(patient_shape(one.patient)), "test": one.test} for one in charts
    ]
    return {"items": shapes, "next": None, "cut": cut}


def patient(desk: Desk, asked: Asked) -> dict[str, Any]:
    chart = finding.chart_of_id(desk, asked.path["id"])
    return {"chart": chart.id, **patient_details(desk, chart, asked.reveal)}


def medications(desk: Desk, asked: Asked) -> dict[str, Any]:
    chart = finding.chart_of_id(desk, asked.path["id"])
    return {"chart": chart.id, **reconciliation(desk, chart, asked.reveal, asked.query.get("encounter"))}


# --- messages and deliveries -----------------------------------------------------------------------------------------


def messages(desk: Desk, asked: Asked) -> dict[str, Any]:
    query = asked.query
    kind = query.get("kind", "message")
    state = query.get("state")
    patient = finding.chart_of_id(desk, query["chart"]).patient.key if "chart" in query else None
    with desk.store.reader() as conn:
        found = desk.store.journal.find(
            conn,
            patient=patient,
            kind=None if kind == "all" else EntryKind(kind),
            channel=query.get("channel"),
            state=EntryState(state) if state else None,
            error=query.get("error"),
            since=query.get("since"),
            until=query.get("until"),
            before=asked.after[0] if asked.after else None,
            limit=asked.limit + 1,
        )
    shown = found[: asked.limit]
    view = desk.view(asked.reveal, (f"entry:{one.id}" for one in shown))
    return page("message", [entry_shape(one, view) for one in shown], _last(found, asked.limit))


def message(desk: Desk, asked: Asked) -> dict[str, Any]:
    entry_id = asked.path["id"]
    return entry_details(desk, entry_id, lambda: desk.view(asked.reveal, [f"entry:{entry_id}"]))


def dead(desk: Desk, asked: Asked) -> dict[str, Any]:
    query = asked.query
    stage, state = query.get("stage"), query.get("state", "unresolved")
    with desk.store.reader() as conn:
        found = desk.store.dead_letters.find(
            conn,
            stage=Stage(stage) if stage else None,
            error=query.get("error"),
            channel=query.get("channel"),
            resolved=state == "resolved",
            before=asked.after[0] if asked.after else None,
            limit=asked.limit + 1,
        )
    desk.shows(f"entry:{one.entry}" for one in found[: asked.limit] if one.entry)
    return page("dead", [plain(one) for one in found[: asked.limit]], _last(found, asked.limit))


def dead_groups(desk: Desk, _: Asked) -> dict[str, Any]:
    with desk.store.reader() as conn:
        groups = desk.store.dead_letters.groups(conn)
    return page("dead-group", [plain(one) | {"remedy": remedy(one.error)} for one in groups], None)


def dead_one(desk: Desk, asked: Asked) -> dict[str, Any]:
    letter = dead_letter(desk, asked.path["id"])
    view = desk.view(asked.reveal, [f"entry:{letter.entry}" if letter.entry else f"delivery:{letter.delivery}"])
    message = entry_details(desk, letter.entry, lambda: view) if letter.entry else None
    delivery: dict[str, Any] | None = None
    if letter.delivery is not None:
        with desk.store.reader() as conn:
            queued = desk.store.outbox.get(conn, letter.delivery)
        delivery = delivery_shape(queued, view) if queued is not None else None
    shape: dict[str, Any] = plain(letter)
    return shape | {"message": message, "delivery_details": delivery}


def held(desk: Desk, asked: Asked) -> dict[str, Any]:
    """First messages, then deliveries, the oldest of each first."""
    what = asked.query.get("what")
    begin, number = asked.after or ("message" if what != "delivery" else "delivery", 0)
    size = asked.limit + 1
    with desk.store.reader() as conn:
        questions = desk.store.holds.find(conn, after=number, limit=size) if begin == "message" else []
        left = size - len(questions)
        since = number if begin == "delivery" else 0
        deliveries = desk.store.outbox.held(conn, left, after=since) if what != "message" and left > 0 else []
        stands = around(desk, conn, deliveries)
    found: list[tuple[str, Any]] = [("message", one) for one in questions] + [("delivery", one) for one in deliveries]
    shown = found[: asked.limit]
    ids = (f"entry:{one.entry}" if kind == "message" else f"delivery:{one.id}" for kind, one in shown)
    view = desk.view(asked.reveal, ids)
    items = [hold_shape(one, view) if kind == "message" else held_shape(one, view, stands) for kind, one in shown]
    key = (shown[-1][0], shown[-1][1].id) if len(found) > asked.limit else None
    return page("held", items, key)


def held_one(desk: Desk, asked: Asked) -> dict[str, Any]:
    kind, number = held_id(asked.path["id"])
    if kind == "message":
        asked_of = desk.store.read_now(lambda conn: question(desk, conn, number))
        return hold_shape(asked_of, desk.view(asked.reveal, [f"entry:{asked_of.entry}"]))
    if finding.is_withheld(desk, [number]):
        with desk.store.reader() as conn:
            queued, said = withheld_delivery(desk, conn, number)
            stands = around(desk, conn, [queued])
        return withheld_shape(queued, said, desk.view(asked.reveal, [f"delivery:{number}"]), stands)
    with desk.store.reader() as conn:
        queued = held_delivery(desk, conn, number)
        stands = around(desk, conn, [queued])
    return held_shape(queued, desk.view(asked.reveal, [f"delivery:{number}"]), stands)


def held_id(text: str) -> tuple[str, int]:
    """`12`: a delivery; `m12`: a message's question."""
    digits = text.removeprefix("m")
    return ("delivery" if digits == text else "message"), int(digits)


def destinations(desk: Desk, _: Asked) -> dict[str, Any]:
    return page("destination", [plain(one) for one in standings(desk)], None)


# --- the trail -------------------------------------------------------------------------------------------------------


def trail(desk: Desk, asked: Asked) -> dict[str, Any]:
    query = asked.query
    finding.check_action(desk, query.get("action"))
    with desk.store.reader() as conn:
        found = desk.store.audit.find(
            conn,
            since=query.get("since"),
            until=query.get("until"),
            action=query.get("action"),
            patient=query.get("chart"),
            before=asked.after[0] if asked.after else None,
            limit=asked.limit + 1,
        )
    shown = found[: asked.limit]
    view = desk.view(asked.reveal, ["audit"])
    items = [plain(one) | {"reason": view.text(one.reason), "terms": view.text(one.terms)} for one in shown]
    return page("audit", items, (shown[-1].seq,) if len(found) > asked.limit else None)


def _last(found: Sequence[Any], limit: int) -> tuple[int] | None:
    return (found[limit - 1].id,) if len(found) > limit else None
