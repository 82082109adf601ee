"""The one table of routes: method, path, action, what it is asked and what it does. OpenAPI and tests are made of it.

A route that names no action can't be written. Paths hold opaque ids only; who is looked for stands in a body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from engine.access.actions import Action
from engine.console import acting, reading
from engine.console.asked import Asked, Param, choice, number, opaque, text, time
from engine.desk.desk import Desk
from engine.domain.appointment import AppointmentStatus
from engine.domain.page import PageState
from engine.domain.task import TaskState
from engine.domain.text import TextState
from engine.runtime.hints import Asked as OfDaemon

Method = Literal["GET", "POST", "DELETE"]
Do = Callable[[Desk, Asked], Any]


@dataclass(frozen=True, kw_only=True)
class Route:
    """says: in words. do: works at the desk; none: the daemon (`daemon`) or the door (`door`) answers.

    lists: kind and key of a list that is read page by page. tagged: it has an ETag. reveals: `X-Reveal-Reason` shows
    patient data unmasked. body: type of the JSON object that is sent.
    """

    method: Method
    path: str
    action: Action
    says: str
    do: Do | None = None
    daemon: OfDaemon | None = None
    door: Literal["log-in", "who", "log-out", "openapi"] | None = None
    at: tuple[Param, ...] = ()
    query: tuple[Param, ...] = ()
    body: type[Any] | None = None
    lists: tuple[str, tuple[type, ...]] | None = None
    tagged: bool = False
    reveals: bool = False

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


class LogIn(acting.Body, frozen=True, kw_only=True):
    """Name, password, and the code of the second factor."""

    name: str
    password: str
    code: str


class Reload(acting.Body, frozen=True, kw_only=True):
    """allow_remove: also when it takes away a channel with connections, or a destination with deliveries."""

    allow_remove: bool = False


_A = Action
_ID: Final = (opaque("id", "Its id."),)
_ROW: Final = (number("id", "Its number."),)
_HELD: Final = (
    Param(
        name="id",
        says="`12`: a held delivery; `m12`: a held message.",
        read=lambda value: f"{'m' if value.startswith('m') else ''}{_digits(value.removeprefix('m'))}",
        schema={"type": "string", "pattern": "^m?[1-9][0-9]{0,17}$"},
    ),
)
_CHART: Final = opaque("chart", "Of this patient, by the opaque id of the chart.")


def _digits(value: str) -> int:
    if not (value.isascii() and value.isdigit() and 0 < len(value) <= 18 and value[0] != "0"):
        raise ValueError("the number of a held delivery, or of a held message like m12")
    return int(value)


def _values(of: Any) -> tuple[str, ...]:
    return tuple(one.value for one in of)


def _task_act(verb: str, says: str, do: Do, body: type[Any]) -> Route:
    return Route(
        method="POST", path=f"/api/v1/tasks/{{id}}/{verb}", action=_A.TASK_ACT, says=says, do=do, at=_ID, body=body,
        tagged=True,
    )  # fmt: skip


def _held_act(verb: str, says: str, do: Do, body: type[Any]) -> Route:
    return Route(
        method="POST", path=f"/api/v1/held/{{id}}/{verb}", action=_A.HELD_DECIDE, says=says, do=do, at=_HELD, body=body
    )  # fmt: skip


ROUTES: Final[tuple[Route, ...]] = (
    Route(method="POST", path="/api/v1/session", action=_A.OPEN, door="log-in", body=LogIn, says="Log in."),
    Route(method="GET", path="/api/v1/session", action=_A.OPEN, door="who", says="Who has logged in."),
    Route(method="DELETE", path="/api/v1/session", action=_A.OPEN, door="log-out", says="Log out."),
    Route(method="GET", path="/api/v1/openapi.json", action=_A.OPEN, door="openapi", says="This description."),
    Route(method="GET", path="/api/v1/status", action=_A.OPS_READ, daemon="status", says="How the daemon stands."),
    Route(
        method="GET", path="/api/v1/connections", action=_A.OPS_READ, daemon="connections", says="Who is connected."
    ),
    Route(method="GET", path="/metrics", action=_A.OPS_READ, daemon="metrics", says="Counts, for Prometheus."),
    Route(
        method="POST", path="/api/v1/look", action=_A.OPS_READ, daemon="look", body=acting.Nothing,
        says="Have the daemon look at the journal now.",
    ),
    Route(
        method="POST", path="/api/v1/reload", action=_A.CONFIG_RELOAD, daemon="reload", body=Reload,
        says="Load the configuration again, all or nothing.",
    ),
    Route(
        method="GET", path="/api/v1/tasks", action=_A.WORKLIST_READ, do=reading.tasks, reveals=True,
        says="Tasks, the most urgent first; without `state` those that are still to be done.",
        query=(
            choice("state", "In this state; may be repeated.", _values(TaskState), many=True),
            text("kind", "Of this kind."), text("assignee", "Of this role or person."), _CHART,
            time("due_from", "Due then or later."), time("due_before", "Due before."),
        ),
        lists=("task", (bool, datetime, str)),
    ),
    Route(
        method="GET", path="/api/v1/worklist", action=_A.WORKLIST_READ, do=reading.worklist, reveals=True,
        says="A row for each patient with something to be done, the most urgent first.",
        query=(text("kind", "With a task of this kind."), text("assignee", "With a task of this role or person."),
               time("due_before", "With a task that is due before.")),
        lists=("worklist", (datetime, str)),
    ),
    Route(
        method="GET", path="/api/v1/tasks/{id}", action=_A.WORKLIST_READ, do=reading.task, at=_ID, tagged=True,
        reveals=True, says="One task.",
    ),
    _task_act("attempt", "Note an attempt to reach the patient.", acting.attempt, acting.Attempt),
    _task_act("done", "Say that a task is done.", acting.done, acting.Done),
    _task_act("assign", "Give a task to a role or a person.", acting.assign, acting.Assign),
    _task_act("snooze", "Put a task off.", acting.snooze, acting.Snooze),
    _task_act("cancel", "Say that a task need not be done.", acting.cancel, acting.Because),
    _task_act("undo", "Take back what you have just done to a task.", acting.undo, acting.Nothing),
    Route(
        method="GET", path="/api/v1/pages", action=_A.PAGE_READ, do=reading.pages, reveals=True,
        says="Pages; without `state` those that nobody has acknowledged, the oldest first.",
        query=(choice("state", "In this state; may be repeated.", _values(PageState), many=True), _CHART),
        lists=("page", (bool, datetime, str)),
    ),
    Route(
        method="GET", path="/api/v1/pages/{id}", action=_A.PAGE_READ, do=reading.page_with_steps, at=_ID, reveals=True,
        says="One page, with each of its notifications.",
    ),
    Route(
        method="POST", path="/api/v1/pages/{id}/ack", action=_A.PAGE_ACK, do=acting.acknowledge, at=_ID,
        body=acting.Acknowledge, says="Acknowledge a page: nobody else is called.",
    ),
    Route(
        method="GET", path="/api/v1/appointments", action=_A.WORKLIST_READ, do=reading.appointments, reveals=True,
        says="Appointments by their time; those without one last.",
        query=(
            choice("status", "So; may be repeated.", _values(AppointmentStatus), many=True), _CHART,
            time("since", "Starting then or later."), time("until", "Starting before."),
        ),
        lists=("appointment", (datetime, str)),
    ),
    Route(
        method="GET", path="/api/v1/texts", action=_A.WORKLIST_READ, do=reading.texts, reveals=True,
        says="Texts by when they are wanted, the latest first: also those that did not go.",
        query=(choice("state", "In this state; may be repeated.", _values(TextState), many=True), _CHART),
        lists=("text", (datetime, str)),
    ),
    Route(
        method="GET", path="/api/v1/texts/{id}", action=_A.WORKLIST_READ, do=reading.text, at=_ID, reveals=True,
        says="One text, with the replies to it.",
    ),
    Route(
        method="POST", path="/api/v1/patients/search", action=_A.PATIENT_FIND, do=reading.patients, reveals=True,
        body=reading.Search, query=(), lists=("patient", ()),
        says="Find patients by key, visit, name or birth date; with `{}` those that changed last.",
    ),
    Route(
        method="GET", path="/api/v1/patients/{id}", action=_A.PATIENT_READ, do=reading.patient, at=_ID, reveals=True,
        says="A patient with encounters, scores, tasks, what is held, and dead messages, by the chart's id.",
    ),
    Route(
        method="GET", path="/api/v1/patients/{id}/medications", action=_A.PATIENT_READ, do=reading.medications, at=_ID,
        reveals=True, says="The home list and the discharge list of a stay, and how they differ.",
        query=(text("encounter", "Which stay; without it the last one."),),
    ),
    Route(
        method="GET", path="/api/v1/messages", action=_A.ENTRIES_LIST, do=reading.messages, reveals=True,
        says="What arrived, newest first.",
        query=(
            choice("kind", "Without it: message.", ("message", "act", "due", "reply", "all")),
            text("channel", "Of this channel."),
            choice("state", "What became of it.", ("received", "processed", "filtered", "dead", "refused")),
            text("error", "That left a dead letter with this code."), _CHART,
            time("since", "Received at or after."), time("until", "Received before."),
        ),
        lists=("message", (int,)),
    ),
    Route(
        method="GET", path="/api/v1/messages/{id}", action=_A.ENTRY_READ, do=reading.message, at=_ROW, reveals=True,
        says="One message: its answer, its outcome, and what it caused.",
    ),
    Route(
        method="GET", path="/api/v1/dead", action=_A.DEAD_READ, do=reading.dead, says="Dead letters, newest first.",
        query=(
            choice("state", "Without it: unresolved.", ("unresolved", "resolved")),
            choice("stage", "Where it died.", ("intake", "processing", "delivery")),
            text("error", "With this code."), text("channel", "Of this channel."),
        ),
        lists=("dead", (int,)),
    ),
    Route(
        method="GET", path="/api/v1/dead/groups", action=_A.DEAD_READ, do=reading.dead_groups,
        says="Dead letters that wait for somebody, by what they have in common.",
    ),
    Route(
        method="GET", path="/api/v1/dead/{id}", action=_A.DEAD_READ, do=reading.dead_one, at=_ROW, reveals=True,
        says="One dead letter with its message.",
    ),
    Route(
        method="POST", path="/api/v1/dead/replay", action=_A.DEAD_DECIDE, do=acting.replay, body=acting.Replay,
        says="Try again, once the cause is put right.",
    ),
    Route(
        method="POST", path="/api/v1/dead/discard", action=_A.DEAD_DECIDE, do=acting.discard, body=acting.Discard,
        says="Close without replaying.",
    ),
    Route(
        method="GET", path="/api/v1/held", action=_A.HELD_READ, do=reading.held, reveals=True,
        says="What is held, oldest first: first messages, then deliveries.",
        query=(choice("what", "Only these.", ("delivery", "message")),), lists=("held", (str, int)),
    ),
    Route(
        method="GET", path="/api/v1/held/{id}", action=_A.HELD_READ, do=reading.held_one, at=_HELD, reveals=True,
        says="What is asked, and what became of it.",
    ),
    _held_act("release", "A delivery: try it again. A message: apply it.", acting.release, acting.MayBecause),
    _held_act("confirm", "A delivery: it arrived.", acting.confirm, acting.Nothing),
    _held_act("bury", "A delivery: give it up.", acting.bury, acting.Because),
    _held_act("dismiss", "A message: it is not so. A withheld delivery: so be it.", acting.dismiss, acting.Because),
    Route(
        method="GET", path="/api/v1/destinations", action=_A.OPS_READ, do=reading.destinations,
        says="How each destination stands, and what waits for it.",
    ),
    *(
        Route(
            method="POST", path=f"/api/v1/destinations/{{destination}}/{verb}", action=_A.DELIVERY_DECIDE, do=do,
            body=body, at=(opaque("destination", "Its name in config.yaml."),), says=says,
        )
        for verb, do, body, says in (
            ("pause", acting.pause, acting.Pause, "Send nothing there until it is resumed."),
            ("resume", acting.resume, acting.MayBecause, "Go on sending there."),
            ("retry", acting.retry, acting.Nothing, "Try at once what waits for it."),
        )
    ),
    Route(
        method="POST", path="/api/v1/glasses", action=_A.GLASS_BREAK, do=acting.break_glass, body=acting.BreakGlass,
        says="Break the glass: look at a patient who is none of yours, for some hours.",
    ),
    Route(
        method="GET", path="/api/v1/audit", action=_A.TRAIL_READ, do=reading.trail, reveals=True,
        says="The trail of who did what, newest first.",
        query=(
            text("action", "Of this kind."), _CHART, time("since", "At or after."), time("until", "Before."),
        ),
        lists=("audit", (int,)),
    ),
)  # fmt: skip

OF_DAEMON: Final[Mapping[tuple[str, str], Route]] = {
    (route.method, route.path): route for route in ROUTES if route.daemon is not None
}
"""Those that are open on this machine, as ever (docs/decisions/0017)."""
