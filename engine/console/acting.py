"""What can be done: each route's act at the desk, as the command line does it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from engine.console.asked import SAID_CHARACTERS_MAX, Asked
from engine.console.problems import ProblemError, bad
from engine.console.reading import Tagged, held_id, held_one, one_of, page_with_steps, tag_of, task_as_it_is
from engine.desk import deciding, finding, glass
from engine.desk import destinations as steering
from engine.desk.acting import perform
from engine.desk.desk import Desk
from engine.desk.finding import dead_letter
from engine.desk.replaying import replay_letters
from engine.desk.seeing import delivery_shape
from engine.domain.cause import (
    Act,
    PageAcknowledged,
    TaskAssigned,
    TaskAttempted,
    TaskCancelled,
    TaskDone,
    TaskSnoozed,
    TaskUndone,
)
from engine.domain.shapes import plain
from engine.domain.task import How, Result

Said = Annotated[str, Meta(min_length=1, max_length=SAID_CHARACTERS_MAX)]
"""What a person says: one line."""
_AT_ONCE_MAX: Final = 200
Ids = Annotated[tuple[Annotated[int, Meta(ge=1, le=(1 << 63) - 1)], ...], Meta(min_length=1, max_length=_AT_ONCE_MAX)]


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A JSON object with these fields, and no other."""


class Nothing(Body, frozen=True, kw_only=True):
    """`{}`."""


class Attempt(Body, frozen=True, kw_only=True):
    """An attempt to reach the patient."""

    how: How
    result: Result
    note: Said | None = None


class Done(Body, frozen=True, kw_only=True):
    """A task is done."""

    evidence: Said | None = None


class Assign(Body, frozen=True, kw_only=True):
    """A task is given to a role or a person."""

    assignee: Said


class Snooze(Body, frozen=True, kw_only=True):
    """A task is put off."""

    until: Annotated[datetime, Meta(tz=True)]
    reason: Said


class Because(Body, frozen=True, kw_only=True):
    """Why."""

    reason: Said


class MayBecause(Body, frozen=True, kw_only=True):
    """Why, as far as it has to be said."""

    reason: Said | None = None


class Acknowledge(Body, frozen=True, kw_only=True):
    """A page is acknowledged. by: a person of the rosters for whom it is said; none: who asks."""

    by: Said | None = None


class BreakGlass(Body, frozen=True, kw_only=True):
    """Why somebody looks at a patient who is none of theirs. patient: AUTHORITY:ID, or a pseudonym. reason: a code of
    the roles. password, code: of who asks, again.
    """

    patient: Said
    reason: Said
    because: Said
    password: str
    code: str | None = None


class Pause(Body, frozen=True, kw_only=True):
    """seconds: for so long; none: until it is resumed."""

    seconds: Annotated[float, Meta(gt=0, le=366 * 86_400)] | None = None
    reason: Said | None = None


class Replay(Body, frozen=True, kw_only=True):
    """Dead letters that are tried again."""

    ids: Ids
    as_of: Literal["now", "then"] = "now"
    out_of_order: bool = False


class Discard(Body, frozen=True, kw_only=True):
    """Dead letters that are closed."""

    ids: Ids
    reason: Said


Make = Callable[[str, str, str, Any], Act]
"""The act, from actor, chart, task and body."""


def on_task(make: Make) -> Callable[[Desk, Asked], Tagged]:
    def do(desk: Desk, asked: Asked) -> Tagged:
        item = one_of(desk, desk.store.tasks, asked.path["id"])
        tag = tag_of(desk, item)
        if asked.if_match is not None and asked.if_match != "*" and f'"{tag}"' not in _tags(asked.if_match):
            desk.authorise("task-done", [f"chart:{item.chart_id}"])  # what has changed is told to who may act on it
            raise ProblemError(412, "the task has changed since it was read: read it again")
        perform(desk, [make(str(desk.actor), item.chart_id, item.task.id, asked.body)])
        return task_as_it_is(desk, item.task.id)

    return do


def _tags(header: str) -> list[str]:
    return [one.strip() for one in header.split(",")]


attempt = on_task(
    lambda actor, chart, task, said: TaskAttempted(
        actor=actor, chart_id=chart, task=task, how=said.how, result=said.result, note=said.note
    )
)
done = on_task(
    lambda actor, chart, task, said: TaskDone(actor=actor, chart_id=chart, task=task, evidence=said.evidence)
)
assign = on_task(
    lambda actor, chart, task, said: TaskAssigned(actor=actor, chart_id=chart, task=task, assignee=said.assignee)
)
snooze = on_task(
    lambda actor, chart, task, said: TaskSnoozed(
        actor=actor, chart_id=chart, task=task, until=said.until, reason=said.reason
    )
)
cancel = on_task(
    lambda actor, chart, task, said: TaskCancelled(actor=actor, chart_id=chart, task=task, reason=said.reason)
)
undo = on_task(lambda actor, chart, task, _: TaskUndone(actor=actor, chart_id=chart, task=task))


def acknowledge(desk: Desk, asked: Asked) -> dict[str, Any]:
    item = one_of(desk, desk.store.pages, asked.path["id"])
    actor = str(desk.actor)
    act = PageAcknowledged(actor=actor, chart_id=item.chart_id, page=item.page.id, by=asked.body.by or actor)
    perform(desk, [act])
    return page_with_steps(desk, asked)


def break_glass(desk: Desk, asked: Asked) -> dict[str, Any]:
    said: BreakGlass = asked.body
    if not glass.ways(desk)[0]:
        raise ProblemError(409, "an account without a password, as of a service, breaks no glass here")
    made = glass.break_glass(desk, said.patient, said.reason, said.because, password=said.password, code=said.code)
    return {
        "id": made.id,
        "chart": made.chart_id,
        "begins": plain(made.begins),
        "ends": plain(made.ends),
        "told": list(made.told),
    }


def pause(desk: Desk, asked: Asked) -> dict[str, Any]:
    said: Pause = asked.body
    span = None if said.seconds is None else timedelta(seconds=said.seconds)
    steering.pause(desk, asked.path["destination"], span, said.reason)
    return _destination(desk, asked)


def resume(desk: Desk, asked: Asked) -> dict[str, Any]:
    steering.resume(desk, asked.path["destination"], asked.body.reason)
    return _destination(desk, asked)


def retry(desk: Desk, asked: Asked) -> dict[str, Any]:
    steering.retry(desk, asked.path["destination"])
    return _destination(desk, asked)


def _destination(desk: Desk, asked: Asked) -> dict[str, Any]:
    shape: dict[str, Any] = plain(steering.standing(desk, asked.path["destination"]))
    return shape


def replay(desk: Desk, asked: Asked) -> dict[str, Any]:
    said: Replay = asked.body
    letters = [dead_letter(desk, one) for one in dict.fromkeys(said.ids)]
    return {"items": replay_letters(desk, letters, said.as_of, out_of_order=said.out_of_order), "next": None}


def discard(desk: Desk, asked: Asked) -> dict[str, Any]:
    said: Discard = asked.body
    chosen = [dead_letter(desk, one).id for one in dict.fromkeys(said.ids)]
    deciding.discard_letters(desk, chosen, said.reason)
    return {"items": [plain(dead_letter(desk, one)) for one in chosen], "next": None}


def release(desk: Desk, asked: Asked) -> dict[str, Any]:
    kind, number = held_id(asked.path["id"])
    reason: str | None = asked.body.reason
    withheld = kind == "delivery" and finding.is_withheld(desk, [number])
    if kind == "delivery" and not withheld:
        deciding.decide(desk, [number], "release", reason)
    elif reason is None:
        raise bad("reason: has to be said for a message, and for a delivery that a rule withholds")
    elif withheld:
        deciding.release_withheld(desk, [number], reason)
    else:
        return {"entry": deciding.release_message(desk, number, reason)} | held_one(desk, asked)
    return _delivery(desk, number)


def confirm(desk: Desk, asked: Asked) -> dict[str, Any]:
    return _decided(desk, asked, "confirm", None)


def bury(desk: Desk, asked: Asked) -> dict[str, Any]:
    return _decided(desk, asked, "bury", asked.body.reason)


def dismiss(desk: Desk, asked: Asked) -> dict[str, Any]:
    kind, number = held_id(asked.path["id"])
    if kind == "message":
        deciding.dismiss(desk, [number], asked.body.reason)
        return held_one(desk, asked)
    if not finding.is_withheld(desk, [number]):
        raise ProblemError(
            409, "a held delivery is released, confirmed or buried; dismiss is for messages and withheld"
        )
    deciding.dismiss_withheld(desk, [number], asked.body.reason)
    return _delivery(desk, number)


def _decided(desk: Desk, asked: Asked, decision: deciding.Decision, reason: str | None) -> dict[str, Any]:
    kind, number = held_id(asked.path["id"])
    if kind == "message":
        raise ProblemError(409, "a held message is released or dismissed")
    deciding.decide(desk, [number], decision, reason)
    return _delivery(desk, number)


def _delivery(desk: Desk, number: int) -> dict[str, Any]:
    with desk.store.reader() as conn:
        queued = desk.store.outbox.get(conn, number)
    assert queued is not None  # noqa: S101 - it was decided on a moment ago
    return delivery_shape(queued, desk.view(None, [f"delivery:{number}"]))
