"""What is wrong, as stable codes: found in how the daemon and its work stand. Pure.

`engine.domain.advice` says what each means and what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from engine.domain.advice import advice_of
from engine.domain.page import PageState
from engine.domain.record import Record
from engine.domain.standing import Overview

PROCESSING_SECONDS_MAX: Final = 300.0
"""An entry that waits for longer means that processing is behind."""
DEADLINE_SECONDS_MAX: Final = 60.0
"""A deadline that has come and does not ring for longer means that nobody watches the clock."""
DELIVERY_SECONDS_MAX: Final = 900.0
"""A delivery that waits for longer, at a destination that is up, means that it can't keep up."""
DEAD_DELIVERIES_MAX: Final = 10
"""Dead letters of one destination that wait for a person: so many are no accident of single patients."""
PAUSE_SECONDS_MAX: Final = 86_400.0
"""A pause that is longer may have been forgotten."""
CERTIFICATE_DAYS_MIN: Final = 14


class Trouble(Record, frozen=True, kw_only=True):
    """One thing that is wrong. code: with what it is about, `destination-down:crm`. since: none: not known."""

    code: str
    since: datetime | None
    meaning: str
    first: str
    """The command that shows more."""
    remedy: str
    detail: str | None = None
    """What is known besides: a code of the destination, how many."""
    urgent: bool = True
    """A person has to see to it now; else it is to be known."""


class Certificate(Record, frozen=True, kw_only=True):
    """A certificate that we show to others. use: `channel west`, `destination lab`."""

    use: str
    expires_at: datetime

    def days_left(self, now: datetime) -> int:
        return (self.expires_at - now) // timedelta(days=1)


def trouble(code: str, since: datetime | None = None, detail: str | None = None) -> Trouble:
    advice = advice_of(code)
    return Trouble(
        code=code,
        since=since,
        meaning=advice.meaning,
        first=advice.first,
        remedy=advice.remedy,
        detail=detail,
        urgent=advice.urgent,
    )


def of_work(work: Overview, now: datetime) -> Iterator[Trouble]:
    """What is wrong with channels, destinations, dead letters and holds."""
    for channel in work.channels:
        at = channel.oldest_waiting_at
        if at is not None and _old(at, now, PROCESSING_SECONDS_MAX):
            yield trouble(f"processing-behind:{channel.name}", at, f"{channel.waiting:,} wait")
    for one in work.destinations:
        wait = f"{one.pending:,} wait"
        if one.orphan:
            yield trouble(f"destination-unknown:{one.name}", one.oldest_at, wait)
        elif one.state == "paused":
            if one.since is not None and _old(one.since, now, PAUSE_SECONDS_MAX):
                yield trouble(f"destination-paused:{one.name}", one.since, wait)
        elif one.troubled:
            yield trouble(f"destination-down:{one.name}", one.since, f"{one.error}{_times(one.failures)}, {wait}")
        elif one.behind_at is not None and _old(one.behind_at, now, DELIVERY_SECONDS_MAX):
            yield trouble(f"deliveries-behind:{one.name}", one.behind_at, wait)
        if one.dead >= DEAD_DELIVERIES_MAX:
            yield trouble(f"deliveries-failing:{one.name}", None, f"{one.dead:,} dead letters")
        if one.held:
            yield trouble(f"deliveries-held:{one.name}", None, f"{one.held:,} held")
    if work.dead:
        yield trouble("dead-letters", work.oldest_dead_at, f"{work.dead:,} wait for a person")
    if work.due and _old(work.due_since or now, now, DEADLINE_SECONDS_MAX):
        yield trouble("deadlines-behind", work.due_since, f"{work.due:,} patients wait")
    if exhausted := work.pages.get(PageState.EXHAUSTED):
        yield trouble("pages-unanswered", work.oldest_exhausted_at, f"{exhausted:,} wait for a person")
    for role, at in sorted(work.gaps.items()):
        yield trouble(f"oncall-gap:{role}", None, f"from {at:%Y-%m-%d %H:%M} UTC")
    for code, detail in sorted(work.trail.items()):
        yield trouble(code, None, detail)
    if work.holds:
        yield trouble("messages-held", work.oldest_hold_at, f"{sum(work.holds.values()):,} wait for a person")
    if work.unusual:
        yield trouble("access-unusual", work.oldest_unusual_at, f"{work.unusual:,} to be asked about")
    for number, due in sorted(work.breaches.items()):
        code = f"breach-overdue:{number}" if due < now.date() else f"breach-due:{number}"
        yield trouble(code, None, f"due {due}")
    if work.glasses:
        yield trouble("glass-broken", work.oldest_glass_at, f"{work.glasses:,} to be attested")
    if work.restored_held:
        yield trouble("store-restored", work.restored_at, f"{work.restored_held:,} deliveries are held")


def of_backups(hours_max: float | None, work: Overview, now: datetime) -> Iterator[Trouble]:
    """hours_max: how old the last backup may be; none: nobody has said that there are to be any."""
    if hours_max is None:
        return
    if work.backup_at is None:
        yield trouble("backup-old", None, "there is none")
    elif _old(work.backup_at, now, hours_max * 3600):
        yield trouble("backup-old", work.backup_at)


def of_certificates(certificates: Iterable[Certificate], now: datetime) -> Iterator[Trouble]:
    for one in certificates:
        days = one.days_left(now)
        if days < CERTIFICATE_DAYS_MIN:
            left = f"{days} days left" if days >= 0 else "has ended"
            yield trouble(f"certificate-expires:{one.use}", None, left)


def _times(failures: int) -> str:
    return f" {failures:,} times in a row" if failures > 1 else ""


def codes(found: Sequence[Trouble]) -> tuple[str, ...]:
    return tuple(one.code for one in found)


def _old(at: datetime, now: datetime, seconds: float) -> bool:
    return now - at > timedelta(seconds=seconds)
