"""Tasks that those they are for do not see, because a restriction covers the stay: nobody would do them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from engine.access.actions import Action
from engine.access.policy import may
from engine.access.restrictions import restricted
from engine.domain.actor import Actor
from engine.domain.chart import Chart
from engine.domain.task import Task

if TYPE_CHECKING:
    from engine.access.roles import Policy


class Unseen(NamedTuple):
    """tasks: of one stay. whose: the role or person that they are all for. rule: of the file of roles, which keeps them
    from it.
    """

    tasks: tuple[Task, ...]
    whose: str
    rule: str


def unseen(chart: Chart, actors: Sequence[Actor], policy: Policy, now: datetime) -> list[Unseen]:
    """Standing tasks that are somebody's of these actors (active accounts), and that none of those sees.

    A task of a role that nobody has is none of these: no restriction keeps anybody from it.
    """
    known = restricted(chart, policy.restrictions)
    if not known:
        return []
    found: dict[tuple[str | None, str], list[Task]] = {}
    answers = {actor.name: may(actor, Action.WORKLIST_READ, chart, None, now, policy) for actor in actors}
    for task in chart.tasks:
        answered = [answers[one.name] for one in actors if {task.owner, task.assignee} & (one.names | one.roles)]
        sees = any(one.allowed and task.encounter not in one.hidden_stays for one in answered)
        if task.stands and answered and not sees:
            found.setdefault((task.encounter, task.owner or task.assignee or ""), []).append(task)
    return [
        Unseen(
            tuple(tasks),
            whose,
            ", ".join(f"restrictions.{one.name}" for one, stays in known if one.covers != "stay" or stay in stays),
        )
        for (stay, whose), tasks in found.items()
    ]
