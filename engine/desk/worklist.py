"""The worklist: who needs what by when, a row for each patient with something to be done, the most urgent first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from engine.desk.listing import Key, page_of
from engine.domain.age import age_range
from engine.domain.parts import chart_shape
from engine.domain.task import STANDING
from engine.domain.text import AHEAD as TEXTS_AHEAD

if TYPE_CHECKING:
    from engine.desk.desk import Desk, Reveal
    from engine.desk.seeing import View
    from engine.domain.chart import Chart
    from engine.domain.moment import Moment
    from engine.store.worklist import Place

_STANDING: Final = frozenset(state.value for state in STANDING)
_APPOINTED: Final = frozenset({"requested", "booked", "arrived"})
_UNANSWERED: Final = frozenset({"queued", "sent", "delivered", "exhausted"})
_REASONS_MAX: Final = 3
"""Factors of a score that a row names."""


class Worklist(NamedTuple):
    """A page of it. next: where the next one begins; none: this is the last."""

    rows: list[dict[str, Any]]
    next: Key | None


def worklist(
    desk: Desk,
    reveal: Reveal | None,
    *,
    limit: int,
    after: Key | None = None,
    assignee: str | None = None,
    kind: str | None = None,
    due_before: datetime | None = None,
) -> Worklist:
    """Rows of the patients whom the actor sees; each is on record. Raises DeniedError when they may see none at all."""
    found = page_of(desk, desk.store.worklist, limit, after, assignee=assignee, kind=kind, due_before=due_before)
    places: Sequence[Place] = found.items
    with desk.store.reader() as conn:
        charts = {place.chart_id: desk.store.charts.living(conn, place.chart_id) for place in places}
        held = {chart_id: bool(desk.store.holds.of_chart(conn, chart_id)) for chart_id in charts}
    view = desk.view(reveal, (f"chart:{place.chart_id}" for place in places))
    rows = [
        _row(chart, place, view.of(place.chart_id), desk.now, is_held=held[place.chart_id])
        for place in places
        if (chart := charts[place.chart_id]) is not None
    ]
    return Worklist(rows, found.next)


def _row(chart: Chart, place: Place, view: View, now: datetime, *, is_held: bool) -> dict[str, Any]:
    """What a row says, as far as it is seen: parts of the shapes of the contract."""
    shape = view.chart(chart_shape(chart))
    standing = sorted((one for one in shape["tasks"] if one["state"] in _STANDING), key=lambda one: str(one["due_at"]))
    task = next((one for one in standing if one["id"] == place.task_id), standing[0] if standing else None)
    # Stays are named by pseudonyms where identity is not seen: the same name on both sides.
    stay = next((one for one in shape["encounters"] if task is not None and one["key"] == task["encounter"]), None)
    scores = [one for one in shape["scores"] if stay is not None and one["encounter"] == stay["key"]]
    texts = shape["texts"]
    replies = [(reply["at"], reply) for text in texts for reply in text["replies"]]
    ahead = [one for one in shape["appointments"] if one["status"] in _APPOINTED]
    born = chart.patient.birth_date
    return {
        "chart": chart.id,
        "patient": {name: shape[name] for name in ("key", "name", "sex", "pcp", "language", "deceased")},
        "age": _age(born, now) if view.sees("patient", "birth_date") else None,
        "stay": stay,
        "score": scores[0] if scores else None,
        "reasons": [factor["name"] for factor in scores[0]["factors"][:_REASONS_MAX]] if scores else [],
        "task": task,
        "tasks": len(standing),
        "attempts": _attempts(standing),
        "appointment": min(ahead, key=lambda one: str(one["starts_at"] or "9"), default=None),
        "reply": max(replies, default=(None, None), key=lambda one: str(one[0]))[1],
        "texts_ahead": sum(one["state"] in {state.value for state in TEXTS_AHEAD} for one in texts),
        "owner": next((one["owner"] for one in standing if one["owner"]), None),
        "flags": list(_flags(shape, is_held=is_held)),
    }


def _age(born: Moment | None, now: datetime) -> int | None:
    """In whole years; none: it is not known to the year."""
    ages = age_range(born, now.date())
    return ages[0] if ages is not None and ages[0] == ages[1] else None


def _attempts(standing: Sequence[Mapping[str, Any]]) -> dict[str, int] | None:
    """Of the task that is about reaching the patient; none: there is none."""
    for task in standing:
        if task["attempts_wanted"]:
            return {"made": len(task["attempts"]), "wanted": task["attempts_wanted"]}
    return None


def _flags(shape: Mapping[str, Any], *, is_held: bool) -> list[str]:
    found = {
        "page": any(one["state"] in _UNANSWERED for one in shape["pages"]),
        "missed": any(one["state"] == "missed" for one in shape["tasks"]),
        "held": is_held,
        "no_doctor": shape["pcp"] is None and "contact" not in shape.get("not_shown", ()),
        "suspended": any(one["suspended_by"] is not None for one in shape["tasks"]),
    }
    return [name for name, holds in found.items() if holds]
