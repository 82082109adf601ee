"""Pages on a chart: they follow their tasks, the clock calls who is next, and each call is a notification.

A task that stands and names a ladder (`Task.page`) has a page, one for ever; a task that has ended calls it off. Whom a
page calls is decided by the clock alone (`ring`), with the rosters and those who stand in as they are then: raising
one, an acknowledgment, and what becomes of a notification only say when it is to ring.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final

from msgspec import structs

from engine.care import pages
from engine.care.oncall import Rosters
from engine.care.tasks import acknowledged, end
from engine.domain.cause import PageAcknowledged, PageAnswered
from engine.domain.chart import Chart
from engine.domain.delivery import (
    Delivery,
    Ground,
    Notification,
    NotificationEnd,
    Operation,
    line_of_notice,
)
from engine.domain.ids import beginning_like
from engine.domain.outcome import Effect
from engine.domain.page import UNANSWERED, Page, PageState, Step, StepResult, page_id
from engine.domain.task import ENGINE, Task, TaskState
from engine.pipeline.rule import Deciding, NotDoneError

# --- the clock -------------------------------------------------------------------------------------------------------


def deadlines(chart: Chart) -> Iterator[datetime]:
    """A source of `engine.pipeline.due`."""
    for page in chart.pages:
        if page.next_at is not None:
            yield page.next_at


def is_open(chart: Chart) -> bool:
    """Somebody is being called, or is to be."""
    return any(page.next_at is not None for page in chart.pages)


def ring(chart: Chart, deciding: Deciding) -> Chart:
    """What is due of pages up to now."""
    if all(page.next_at is None or page.next_at > deciding.now for page in chart.pages):
        return chart
    duty, now = deciding.on_call, deciding.now
    tasks = {task.id: task for task in chart.tasks}

    def rung(page: Page) -> Page:
        if page.next_at is None:  # another page of the chart is due: this one waits for nothing
            return page
        at = _waits_until(page, tasks.get(page.task))
        if at is not None and at > now:
            return page if page.next_at == at else structs.replace(page, next_at=at)
        return pages.rung(page, duty, now)

    return structs.replace(chart, pages=tuple(map(rung, chart.pages)))


def _waits_until(page: Page, task: Task | None) -> datetime | None:
    """When an acknowledged page is raised again: so long after somebody has last done something about its task."""
    seconds = page.policy.acknowledged_seconds
    if page.state is not PageState.ACKNOWLEDGED or page.acknowledged_at is None or seconds is None or task is None:
        return None
    acts = [page.acknowledged_at, *(attempt.at for attempt in task.attempts)]
    if task.undo is not None:
        acts.append(task.undo.at)
    at = max(acts) + timedelta(seconds=seconds)
    return at if task.snoozed_until is None else max(at, task.snoozed_until)


# --- what follows from a chart ---------------------------------------------------------------------------------------


def follow_tasks(_before: Chart | None, chart: Chart, deciding: Deciding) -> Chart:
    """A follower of `engine.pipeline.follow`: tasks that stand have their pages, and pages what they come to."""
    if not chart.pages and not any(task.page for task in chart.tasks):
        return chart
    tasks = {task.id: task for task in chart.tasks}
    found = {page.id: _followed(page, tasks.get(page.task), deciding.now) for page in chart.pages}
    if deciding.channel is not None and chart.patient.deceased is not True and not chart.test:
        for task in chart.tasks:
            if task.page is not None and task.stands and page_id(task.id) not in found:
                policy = deciding.channel.rosters.ladders.get(task.page)
                if policy is not None:
                    page = pages.raised(task.id, task.kind, policy, deciding.now, encounter=task.encounter)
                    found[page.id] = structs.replace(page, next_at=deciding.now + _SOON)
    left = {task.raised_for for task in chart.tasks}
    for page in found.values():
        if page.state is PageState.EXHAUSTED or page.id in left:
            tasks |= _left_by(page, tasks, deciding.now)
    after = tuple(found.values()), tuple(tasks.values())
    return chart if after == (chart.pages, chart.tasks) else structs.replace(chart, pages=after[0], tasks=after[1])


def _followed(page: Page, task: Task | None, now: datetime) -> Page:
    """The page as its task is: it is called off with it, and calls again with it, unless somebody has it.

    One that the acknowledgment of the page has ended calls nothing off; when such an acknowledgment is taken back, the
    page calls again.
    """
    if task is None:
        return page
    if not task.stands:
        if page.state is PageState.ACKNOWLEDGED and page.closes and task.state is TaskState.DONE:
            return page
        # What a person has typed stays with the task: there it is sealed, and masked.
        why = task.end_reason if task.ended_by == ENGINE else None
        return pages.called_off(page, why or f"its task is {task.state}", now)
    if task.page is None:
        return pages.called_off(page, NOT_PAGED, now, for_good=True)
    taken_back = page.state is PageState.ACKNOWLEDGED and page.closes
    return pages.restored(page, now + _SOON) if page.state is PageState.RESOLVED or taken_back else page


def _left_by(page: Page, tasks: dict[str, Task], now: datetime) -> dict[str, Task]:
    """Of a page that nobody has acknowledged: its task was missed, and a safety event is a task of its own.

    When the page is not needed any more because its cause was withdrawn, nor is that task.
    """
    task, events = tasks.get(page.task), [one for one in tasks.values() if one.raised_for == page.id]
    if page.state is not PageState.EXHAUSTED:
        withdrawn = page.state is PageState.RESOLVED and task is not None and task.state is TaskState.RETRACTED
        ended = [one for one in events if one.stands] if withdrawn else []
        return {one.id: end(one, TaskState.RETRACTED, at=now, why=WITHDRAWN) for one in ended}
    left: dict[str, Task] = {}
    if task is not None and task.stands and task.state is not TaskState.MISSED:
        left[task.id] = structs.replace(task, state=TaskState.MISSED, missed_at=now, undo=None)
    if not any(one.stands or one.id == _safety_id(page) for one in events):
        rules = page.policy.exhausted
        event = Task(
            id=_safety_id(page),
            kind=rules.kind,
            encounter=page.encounter,
            due_at=now + timedelta(seconds=rules.due_seconds),
            escalate_at=None,
            state=TaskState.OPEN,
            assignee=rules.assignee,
            reason=rules.reason,
            protocol=page.policy.ladder,
            protocol_version=page.policy.version,
            discharge=task.discharge if task is not None else 0,
            created_at=now,
            raised_for=page.id,
        )
        left[event.id] = event
    return left


_SOON: Final = timedelta(microseconds=1)
"""What a ring leaves is always later than what has rung: the journal knows each by its time."""
WITHDRAWN: Final = "what was paged for is not so"
"""Why the task of a safety event ends by itself."""
NOT_PAGED: Final = "nobody need be called about it any more"
"""Why a page ends whose task goes on: its deadline was moved on, or its protocol pages nobody for it any more."""


def _safety_id(page: Page) -> str:
    """Of each round that nobody has acknowledged."""
    own = f"{page.id}/safety/{page.round}" if page.round else f"{page.id}/safety"
    return beginning_like(page.task, blake2b(own.encode(), digest_size=16).hexdigest())


# --- acknowledgments and receipts ------------------------------------------------------------------------------------


def acknowledge(act: PageAcknowledged | PageAnswered, chart: Chart | None, deciding: Deciding) -> Chart:
    """Who acknowledges takes the task; one that asks for nothing else is done. Raises NotDoneError."""
    page = page_of(chart, act.page)
    if chart is None or page is None:
        raise NotDoneError("page-unknown", "there is no such page any more")
    try:
        after = pages.acknowledged(page, act.by, deciding.at, deciding.on_call)
    except pages.PageError as error:
        raise NotDoneError(error.code, str(error)) from None

    def taken(task: Task) -> Task:
        if task.id != page.task or not task.stands:
            return task
        if page.closes:
            evidence = f"page {page.id} acknowledged"
            actor = act.actor if isinstance(act, PageAcknowledged) else act.by
            return acknowledged(task, by=act.by, actor=actor, at=deciding.at, evidence=evidence)
        state = TaskState.IN_PROGRESS if task.state is TaskState.OPEN else task.state
        return structs.replace(task, state=state, owner=act.by, undo=None)

    return structs.replace(with_page(chart, after), tasks=tuple(map(taken, chart.tasks)))


def settle(page: Page, step: int, result: StepResult, at: datetime, detail: str | None) -> Page:
    """What became of a notification; one that was taken back because nobody needs it has not failed."""
    if result is StepResult.FAILED and page.state not in UNANSWERED:
        result = StepResult.WITHDRAWN
    return pages.answered(page, step, result, at, detail)


def page_of(chart: Chart | None, page: str) -> Page | None:
    return next((one for one in chart.pages if one.id == page), None) if chart is not None else None


def with_page(chart: Chart, page: Page) -> Chart:
    return structs.replace(chart, pages=tuple(page if one.id == page.id else one for one in chart.pages))


def page_effects(before: Chart | None, chart: Chart) -> Iterator[Effect]:
    """What has become of pages: raised, called, acknowledged, resolved, exhausted."""
    known = {page.id: page for page in before.pages} if before is not None and chart.pages else {}
    for page in chart.pages:
        was = known.get(page.id)
        if was is page:
            continue
        if was is None:
            yield Effect(kind="page-raised", subject=page.id, detail=f"{page.policy.ladder} {page.policy.version}")
        for step in page.steps[len(was.steps) if was is not None else 0 :]:
            kind = "page-skipped" if step.person is None else "page-called"
            yield Effect(kind=kind, subject=page.id, detail=f"level {step.level}, loop {step.loop}")
        if page.state in _TOLD and (was is None or was.state is not page.state):
            yield Effect(kind=f"page-{page.state}", subject=page.id, detail=page.end_reason or "")


_TOLD: Final = frozenset({PageState.ACKNOWLEDGED, PageState.RESOLVED, PageState.EXHAUSTED})

# --- notifications ---------------------------------------------------------------------------------------------------


def ground_of(page: Page) -> str:
    """What its notifications hang on: that this round of it is unanswered."""
    return f"{page.id}#{page.round}"


def is_unanswered(page: Page) -> bool:
    return page.state in UNANSWERED


def notifications(before: Chart | None, chart: Chart, rosters: Rosters) -> Iterator[Delivery]:
    """A delivery for each call that is new, and the end of them for destinations that go on calling by themselves."""
    known = {page.id: page for page in before.pages} if before is not None and chart.pages else {}
    for page in chart.pages:
        was = known.get(page.id)
        if was is page:
            continue
        for number, step in enumerate(page.steps[len(was.steps) if was is not None else 0 :], _first(was)):
            if step.person is not None and step.channel is not None:
                yield _notification(chart, page, number, step, rosters)
        if was is not None and was.state is not page.state and page.state in _ENDED:
            yield from _ends(chart, page, rosters)


_ENDED: Final = frozenset({PageState.ACKNOWLEDGED, PageState.RESOLVED})


def _first(was: Page | None) -> int:
    return 1 if was is None else len(was.steps) + 1


def _notification(chart: Chart, page: Page, number: int, step: Step, rosters: Rosters) -> Delivery:
    contacts = rosters.people.get(step.person or "", ("", ()))[1]
    contact = contacts[step.contact] if step.contact < len(contacts) else None
    said = Notification(
        id=f"{page.id}-{number}",
        page_id=page.id,
        ladder=page.policy.ladder,
        level=step.level,
        loop=step.loop,
        step=number,
        person=step.person or "",
        to=contact.address if contact is not None else None,
        options=dict(contact.options) if contact is not None else {},
        text=page.policy.text,
        link=f"/pages/{page.id}",
        reason=page.kind,
        raised_at=page.raised_at,
        acknowledge_by=page.escalates_at,
        handed_over=step.detail == pages.HAND_OVER,
        round=step.round,
        ground=Ground(kind="page", key=ground_of(page)),
    )
    return Delivery(
        destination=step.channel or "",
        operation=Operation.NOTIFY,
        ordering_key=line_of_notice(chart.id, said.id),
        idempotency_key=said.id,
        payload=said.encoded(),
    )


def _ends(chart: Chart, page: Page, rosters: Rosters) -> Iterator[Delivery]:
    """One where the acknowledgment was all that was wanted is over; any other may be raised again."""
    over = page.state is PageState.RESOLVED or page.closes
    state = PageState.RESOLVED if over else page.state
    calls = [step for step in page.steps if step.channel in rosters.ends and (over or step.round == page.round)]
    for destination, to, round_ in dict.fromkeys((step.channel, _address(step, rosters), step.round) for step in calls):
        said = NotificationEnd(
            page_id=page.id,
            to=to,
            round=round_,
            state=state.value,
            by=page.acknowledged_by,
            at=page.ended_at or page.acknowledged_at or page.raised_at,
        )
        own = "-".join(filter(None, (page.id, state, str(page.round), str(round_), destination, to)))
        yield Delivery(
            destination=destination or "",
            operation=Operation.NOTIFY_END,
            ordering_key=line_of_notice(chart.id, own),
            idempotency_key=own,
            payload=said.encoded(),
        )


def _address(step: Step, rosters: Rosters) -> str | None:
    contacts = rosters.people.get(step.person or "", ("", ()))[1]
    return contacts[step.contact].address if step.contact < len(contacts) else None
