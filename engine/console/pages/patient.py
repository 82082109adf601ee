"""One patient: who it is, what is to be done, and the story of all that was decided."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from engine.console import reading
from engine.console.asked import Asked
from engine.desk.desk import Desk
from engine.domain.task import STANDING, How, Result
from engine.store import Store

_STANDING: Final = frozenset(state.value for state in STANDING)
_NOT_SENT: Final = frozenset({"withheld", "retracted", "failed"})


def look(desk: Desk, asked: Asked) -> dict[str, Any]:
    shape = reading.patient(desk, asked)
    tasks = sorted(shape["tasks"], key=lambda one: (one["state"] not in _STANDING, str(one["due_at"])))
    return {
        "patient": shape,
        "tasks": tasks,
        "standing": _STANDING,
        "hows": [one.value for one in How],
        "results": [one.value for one in Result],
        "story": list(_story(shape)),
    }


def tag(store: Store, asked: Asked, _now: datetime) -> Any:
    with store.reader() as conn:
        return store.worklist.versions(conn, [asked.path["id"]])


def _story(shape: dict[str, Any]) -> list[dict[str, Any]]:
    """What has happened, the latest first: from what the chart says today."""
    found: list[dict[str, Any]] = []

    def add(at: Any, what: str, subject: str, said: Any = None) -> None:
        if at is not None:
            found.append({"at": at, "what": what, "subject": subject, "said": said})

    for stay in shape["encounters"]:
        add(stay["admitted_at"], "admitted", "stay", stay.get("class"))
        add(stay["discharged_at"], "discharged", "stay", stay.get("disposition"))
    for score in shape["scores"]:
        add(score["scored_at"], "scored", score["model"], score["band"])
    for task in shape["tasks"]:
        add(task["ended_at"], task["state"], task["kind"], task["end_reason"])
        for attempt in task["attempts"]:
            add(attempt["at"], "attempt", task["kind"], f"{attempt['how']}: {attempt['result']}")
        for one in task["escalations"]:
            add(one["at"], "escalated", task["kind"], one["why"])
    for page in shape["pages"]:
        add(page["raised_at"], "page raised", page["kind"], page["ladder"])
        add(page["acknowledged_at"], "page acknowledged", page["kind"], page["acknowledged_by"])
        add(page["ended_at"], "page ended", page["kind"], page["end_reason"])
    for text in shape["texts"]:
        add(text["sent_at"], "text sent", text["step"], text["body"])
        if text["state"] in _NOT_SENT:
            add(text["ended_at"], f"text {text['state']}", text["step"], text["reason"])
        for reply in text["replies"]:
            add(reply["at"], "reply", text["step"], reply["text"])
    for visit in shape["appointments"]:
        add(visit["starts_at"], f"appointment {visit['status']}", "appointment")
    return sorted(found, key=lambda one: str(one["at"]), reverse=True)
