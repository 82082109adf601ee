"""The life of a page: a state machine over `Page`, pure.

Whom a level calls is asked when it is called, never before: a person who went off duty meanwhile is not called, one
who came on duty is. A level at which nobody can be reached takes no time. After the last loop the page is exhausted:
somebody further is told, and a task remains, so a page never ends in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from msgspec import structs

from engine.care.oncall import Duty
from engine.domain.page import WAITING, Later, Page, PageState, Policy, Step, StepResult, Target, page_id
from engine.errors import HandoffError


class PageEvent(StrEnum):
    """What can happen to a page."""

    NOTIFIED = "notified"
    """One more notification of the same level."""
    ESCALATED = "escalated"
    """A level is called."""
    SENT = "sent"
    DELIVERED = "delivered"
    FAILED = "failed"
    ACKNOWLEDGED = "acknowledged"
    LAPSED = "lapsed"
    """Nothing was done after an acknowledgment."""
    EXHAUSTED = "exhausted"
    CALLED_OFF = "called_off"
    RESTORED = "restored"
    """What had called it off, or acknowledged it, was a mistake: it calls again."""
    TAKEN_AGAIN = "taken_again"
    """What had called it off after an acknowledgment was a mistake: who had taken it has it again."""


_ALWAYS: Final = {
    (state, event): state for state in PageState for event in (PageEvent.SENT, PageEvent.DELIVERED, PageEvent.FAILED)
}
"""What becomes of a notification is put on record whatever the page's state, and mostly changes nothing of that."""

MOVES: Final[Mapping[tuple[PageState, PageEvent], PageState]] = {
    **_ALWAYS,
    **{(state, PageEvent.NOTIFIED): state for state in WAITING},
    **{(state, PageEvent.ESCALATED): PageState.QUEUED for state in WAITING},
    **{(state, PageEvent.ACKNOWLEDGED): PageState.ACKNOWLEDGED for state in WAITING},
    **{(state, PageEvent.CALLED_OFF): PageState.RESOLVED for state in WAITING},
    **{(state, PageEvent.EXHAUSTED): PageState.EXHAUSTED for state in WAITING},
    (PageState.QUEUED, PageEvent.SENT): PageState.SENT,
    (PageState.QUEUED, PageEvent.DELIVERED): PageState.DELIVERED,
    (PageState.SENT, PageEvent.DELIVERED): PageState.DELIVERED,
    (PageState.ACKNOWLEDGED, PageEvent.LAPSED): PageState.QUEUED,
    (PageState.ACKNOWLEDGED, PageEvent.EXHAUSTED): PageState.EXHAUSTED,
    (PageState.ACKNOWLEDGED, PageEvent.CALLED_OFF): PageState.RESOLVED,
    (PageState.EXHAUSTED, PageEvent.ACKNOWLEDGED): PageState.ACKNOWLEDGED,
    (PageState.EXHAUSTED, PageEvent.CALLED_OFF): PageState.RESOLVED,
    (PageState.RESOLVED, PageEvent.RESTORED): PageState.QUEUED,
    (PageState.ACKNOWLEDGED, PageEvent.RESTORED): PageState.QUEUED,
    (PageState.RESOLVED, PageEvent.TAKEN_AGAIN): PageState.ACKNOWLEDGED,
}
"""All there is. What is resolved stays so, unless its task stands again. An acknowledgment after all is better than
none, so one of a page that is exhausted counts."""

ROUNDS_MAX: Final = 3
"""So often a page is raised again after an acknowledgment that nothing followed; then it is exhausted."""

HAND_OVER: Final = "hand-over"
NOBODY: Final = "nobody-on-call"
UNREACHABLE: Final = "unreachable"
"""Codes of steps (`Step.detail`)."""


class PageError(HandoffError):
    """What is wanted does not fit the page's state."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def raised(task: str, kind: str, policy: Policy, at: datetime, *, encounter: str | None = None) -> Page:
    """A page for a task (its id and kind); its first level is called when the clock rings, which is at once."""
    return Page(
        id=page_id(task),
        task=task,
        kind=kind,
        encounter=encounter,
        policy=policy,
        closes=kind in policy.closes,
        raised_at=at,
        next_at=at,
    )


def rung(page: Page, duty: Duty, now: datetime) -> Page:
    """The page after all that was due by now has happened; `next_at` is later, or none."""
    if page.next_at is None or page.next_at > now:
        return page
    if page.state is PageState.ACKNOWLEDGED:
        return _lapsed(page, duty, now)
    if page.escalates_at is None or page.escalates_at <= now:
        return _escalated(page, duty, now)
    for later in page.later:
        if later.at <= now:
            page = _notified(page, duty, later.person, later.contact, now)
    page = structs.replace(page, later=tuple(later for later in page.later if later.at > now))
    if page.hands_over_at is not None and page.hands_over_at <= now:
        return _handed_over(page, duty, now)
    return _timed(page)


def acknowledged(page: Page, by: str, at: datetime, duty: Duty) -> Page:
    """Somebody has seen it and takes it. Raises PageError."""
    if (page.state, PageEvent.ACKNOWLEDGED) not in MOVES:
        raise PageError(f"page-{page.state}", f"the page is {told(page)}: nothing was changed")
    on_ladder = by in on_the_ladder(page, duty, at)
    if page.policy.on_ladder_only and not on_ladder:
        raise PageError(
            "not-on-ladder",
            f"only people whom the ladder {page.policy.ladder} calls may acknowledge, and {by} is not one of them",
        )
    lapses = page.policy.acknowledged_seconds
    return structs.replace(
        _moved(page, PageEvent.ACKNOWLEDGED),
        acknowledged_by=by,
        acknowledged_at=at,
        on_ladder=on_ladder,
        next_at=None if page.closes or lapses is None else at + timedelta(seconds=lapses),
        escalates_at=None,
        hands_over_at=None,
        later=(),
    )


def answered(page: Page, number: int, result: StepResult, at: datetime, detail: str | None = None) -> Page:
    """What became of a notification. number: of its step, from 1.

    One that failed for good brings the next call forward to now: the person's next contact, or the next level.
    """
    if not 1 <= number <= len(page.steps):
        return page
    step = page.steps[number - 1]
    if not _is_news(step.result, result):
        return page
    step = structs.replace(step, result=result, result_at=at, detail=detail if detail is not None else step.detail)
    page = structs.replace(page, steps=(*page.steps[: number - 1], step, *page.steps[number:]))
    current = (step.round, step.loop, step.level) == (page.round, page.loop, page.level)
    if not current or page.state not in WAITING or result is StepResult.WITHDRAWN:
        return page
    page = _moved(page, PageEvent(result.value))
    if result is not StepResult.FAILED:
        return page
    if any(later.person == step.person for later in page.later):
        first = min(later.at for later in page.later if later.person == step.person)
        later = tuple(
            structs.replace(one, at=min(one.at, at)) if one.person == step.person and one.at == first else one
            for one in page.later
        )
        return _timed(structs.replace(page, later=later))
    hopeful = any(one.result is not StepResult.FAILED for one in steps_of_level(page)) or page.later
    return page if hopeful else _timed(structs.replace(page, escalates_at=at))


def called_off(page: Page, why: str, at: datetime, *, for_good: bool = False) -> Page:
    """It is not needed any more; one that has ended stays as it is. for_good: needed again, it begins anew."""
    if (page.state, PageEvent.CALLED_OFF) not in MOVES:
        return page
    return structs.replace(
        _moved(page, PageEvent.CALLED_OFF),
        stood_as=None if for_good else page.state,
        ended_at=at,
        end_reason=why,
        next_at=None,
        escalates_at=None,
        hands_over_at=None,
        later=(),
    )


def restored(page: Page, at: datetime) -> Page:
    """A page that is needed again. Any that can't be stays as it is.

    Who had acknowledged it has it again, with the time to do something anew. Where nobody had, it calls its ladder from
    the beginning.
    """
    if (page.state, PageEvent.RESTORED) not in MOVES:
        return page
    lapses = page.policy.acknowledged_seconds
    if page.stood_as is PageState.ACKNOWLEDGED and not page.closes:
        return structs.replace(
            _moved(page, PageEvent.TAKEN_AGAIN),
            ended_at=None,
            end_reason=None,
            stood_as=None,
            next_at=None if lapses is None else at + timedelta(seconds=lapses),
        )
    return structs.replace(
        _moved(page, PageEvent.RESTORED),
        round=page.round + 1,
        level=0,
        loop=1,
        ended_at=None,
        end_reason=None,
        stood_as=None,
        acknowledged_by=None,
        acknowledged_at=None,
        on_ladder=None,
        next_at=at,
    )


def steps_of_level(page: Page) -> list[Step]:
    """The notifications of the level that was called last."""
    here = (page.round, page.loop, page.level)
    return [step for step in page.steps if (step.round, step.loop, step.level) == here and step.person is not None]


def on_the_ladder(page: Page, duty: Duty, at: datetime) -> set[str]:
    """Those whom it has called, and those whom any level of it would call now."""
    targets = [target for level in page.policy.levels for target in level.targets]
    now = {person for target in (*targets, *page.policy.exhausted.targets) for person in duty.called(target, at).people}
    return now | {step.person for step in page.steps if step.person is not None}


def told(page: Page) -> str:
    """The state in words: `acknowledged by lee, not on call`."""
    if page.state is PageState.ACKNOWLEDGED:
        stranger = "" if page.on_ladder else ", not on call"
        return f"acknowledged by {page.acknowledged_by}{stranger}"
    if page.state is PageState.RESOLVED and page.end_reason is not None:
        return f"resolved: {page.end_reason}"
    return str(page.state)


# --- inside ----------------------------------------------------------------------------------------------------------


_LATER_NEWS: Final[Mapping[StepResult, frozenset[StepResult]]] = {
    StepResult.QUEUED: frozenset({StepResult.SENT, StepResult.DELIVERED, StepResult.FAILED, StepResult.WITHDRAWN}),
    StepResult.SENT: frozenset({StepResult.DELIVERED, StepResult.FAILED}),
}


def _is_news(known: StepResult, said: StepResult) -> bool:
    """Results come in any order, and again: `sent` after `delivered` says nothing new."""
    return said in _LATER_NEWS.get(known, ())


def _moved(page: Page, event: PageEvent) -> Page:
    return structs.replace(page, state=MOVES[page.state, event])


def _timed(page: Page) -> Page:
    """With the next moment at which something happens by itself."""
    moments = [page.escalates_at, page.hands_over_at, *(later.at for later in page.later)]
    return structs.replace(page, next_at=min((at for at in moments if at is not None), default=None))


def _lapsed(page: Page, duty: Duty, now: datetime) -> Page:
    if page.round >= ROUNDS_MAX:
        return _exhausted(page, duty, now)
    again = structs.replace(_moved(page, PageEvent.LAPSED), round=page.round + 1, level=0, loop=1)
    return _escalated(again, duty, now)


def _escalated(page: Page, duty: Duty, now: datetime) -> Page:
    """The next level at which somebody can be reached is called."""
    skipped: list[Step] = []
    for loop, level in _following(page):
        people, until = _reachable(page.policy.levels[level - 1].targets, duty, now)
        here = structs.replace(page, loop=loop, level=level, steps=(*page.steps, *skipped))
        if people:
            called = structs.replace(_moved(here, PageEvent.ESCALATED), later=(), handed_over=False)
            called = structs.replace(
                called,
                escalates_at=now + timedelta(seconds=page.policy.levels[level - 1].seconds),
                hands_over_at=until,
            )
            for person in people:
                called = _called(called, duty, person, now)
            return _timed(called)
        skipped.append(_skipped(here, duty, now))
    return _exhausted(structs.replace(page, steps=(*page.steps, *skipped)), duty, now)


def _following(page: Page) -> Iterator[tuple[int, int]]:
    """The levels after the one that was called last, each at most once: who is not there now is not there at once."""
    levels = len(page.policy.levels)
    loop, level = page.loop, page.level
    for _ in range(levels):
        loop, level = (loop, level + 1) if level < levels else (loop + 1, 1)
        if loop > page.policy.loops:
            return
        yield loop, level


def _skipped(page: Page, duty: Duty, now: datetime) -> Step:
    targets = page.policy.levels[page.level - 1].targets
    detail = UNREACHABLE if any(duty.called(target, now).people for target in targets) else NOBODY
    return Step(
        loop=page.loop, level=page.level, round=page.round, at=now, result=StepResult.SKIPPED, result_at=now,
        detail=detail,
    )  # fmt: skip


def _exhausted(page: Page, duty: Duty, now: datetime) -> Page:
    page = structs.replace(
        _moved(page, PageEvent.EXHAUSTED),
        level=len(page.policy.levels) + 1,
        next_at=None,
        escalates_at=None,
        hands_over_at=None,
        later=(),
    )
    people, _ = _reachable(page.policy.exhausted.targets, duty, now)
    for person in people:  # all that we have: there is no later
        for number in range(len(duty.contacts(person))):
            page = _with_step(page, duty, person, number, now, None)
    return page


def _reachable(targets: Iterable[Target], duty: Duty, now: datetime) -> tuple[list[str], datetime | None]:
    """People who can be notified, each once, and when the first of their duties ends."""
    people: dict[str, None] = {}
    ends: list[datetime] = []
    for target in targets:
        called = duty.called(target, now)
        reached = [person for person in called.people if duty.contacts(person)]
        people |= dict.fromkeys(reached)
        if called.until is not None:
            ends.append(called.until)
    return list(people), min(ends, default=None)


def _called(page: Page, duty: Duty, person: str, now: datetime, detail: str | None = None) -> Page:
    """Notify a person by their first contact, and by the others after their delays."""
    later = list(page.later)
    for number, contact in enumerate(duty.contacts(person)):
        if number == 0 or contact.after == 0:
            page = _with_step(page, duty, person, number, now, detail)
        else:
            later.append(Later(at=now + timedelta(seconds=contact.after), person=person, contact=number))
    return structs.replace(page, later=tuple(later))


def _notified(page: Page, duty: Duty, person: str, contact: int, now: datetime) -> Page:
    return _with_step(_moved(page, PageEvent.NOTIFIED), duty, person, contact, now, None)


def _with_step(page: Page, duty: Duty, person: str, number: int, now: datetime, detail: str | None) -> Page:
    contacts = duty.contacts(person)
    if number >= len(contacts):  # the file has lost it meanwhile
        return page
    step = Step(
        loop=page.loop, level=page.level, round=page.round, at=now, person=person,
        channel=contacts[number].destination, contact=number, detail=detail,
    )  # fmt: skip
    return structs.replace(page, steps=(*page.steps, step))


def _handed_over(page: Page, duty: Duty, now: datetime) -> Page:
    """Who has come on duty is notified, and has the level's time once; who has gone is not called any more."""
    level = page.policy.levels[page.level - 1]
    people, until = _reachable(level.targets, duty, now)
    page = structs.replace(page, hands_over_at=until)
    known = {step.person for step in steps_of_level(page)}
    incoming = [person for person in people if person not in known]
    if not people:
        return _escalated(page, duty, now)
    page = structs.replace(page, later=tuple(later for later in page.later if later.person in people))
    if incoming and not page.handed_over:
        page = structs.replace(page, handed_over=True, escalates_at=now + timedelta(seconds=level.seconds))
    for person in incoming:
        page = _called(_moved(page, PageEvent.NOTIFIED), duty, person, now, HAND_OVER)
    return _timed(page)
