"""Looks at patients that a privacy officer should ask about, read from the trail and the charts as they stand."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import date, datetime, timedelta, tzinfo
from typing import Any, Final

import msgspec
from msgspec import structs
from sqlalchemy import Connection, select

from engine.access.relations import Relation
from engine.domain.actor import Actor
from engine.domain.audit import EVENTS
from engine.domain.chart import Chart
from engine.domain.standing import Overview
from engine.errors import StoreError, TamperedError
from engine.privacy.breach import BreachFile, Worksheet, next_due
from engine.privacy.rules import PrivacyRules
from engine.privacy.unusual import Judged, Look, UnusualFile, judge
from engine.store.schema import audit, audit_purge
from engine.store.store import Store

LOOKS_MAX: Final = 50_000
"""Records that are looked at: the newest."""
REVIEWED: Final = "unusual-reviewed"
_EVERY: Final = timedelta(minutes=10)
_DISCLOSING: Final = tuple(sorted(name for name, event in EVENTS.items() if event.discloses))
_BROKEN: Final = "glass-broken"
_QUERY: Final = "110112"
"""Kind of event: a search, whose hits are a list."""
_MASKED: Final = frozenset({"looked"}) & EVENTS.keys()
"""Looks that are masked. A list of patients without names tells nothing of any of them; who goes from one to the next
looks at each.
"""
BREACH_EVENTS: Final = tuple(name for name in EVENTS if name.startswith("breach-"))


def unusual(
    store: Store, conn: Connection, rules: UnusualFile, zone: tzinfo, grace: timedelta, since: datetime, until: datetime
) -> tuple[Judged, bool]:
    """And whether there were more looks than are looked at. Needs a reader."""
    looks: list[Look] = []
    known: set[tuple[str, str, datetime]] = set()
    charts: dict[str, Chart] = {}
    cut = False
    verdicts = {(one.actor, one.chart_id, one.begins): one.verdict or "open" for one in store.users.glasses(conn)}
    for action in sorted({*_DISCLOSING, *_MASKED}):
        is_query = EVENTS[action].kind == _QUERY
        rows = store.audit.find(conn, since=since, until=until, action=action, limit=LOOKS_MAX + 1)
        cut = cut or len(rows) > LOOKS_MAX
        for row in rows[:LOOKS_MAX]:
            several = len(row.patients) > 1
            if row.result != "allowed" or (several and action in _MASKED):
                continue
            for chart_id in row.patients:
                living = _living(store, conn, charts, chart_id)
                if (one := (row.actor, living, row.at)) in known:
                    continue  # what somebody asked for and then saw unmasked is one look
                known.add(one)
                whence = row.whence
                glass = verdicts.get((row.actor, chart_id, row.at), "open") if action == _BROKEN else None
                address = None if whence is None else whence.address or whence.host
                looks.append(
                    Look(row.seq, row.at, row.actor, living, row.purpose, address, glass, several and is_query)
                )
    actors: dict[str, Actor] = {one.name: one.actor() for one in store.users.every(conn)}
    return judge(looks, charts, actors, rules, zone, grace), cut


def _living(store: Store, conn: Connection, charts: dict[str, Chart], chart_id: str) -> str:
    """Id of the chart that the patient has now; it is put among the charts."""
    if chart_id in charts:
        return charts[chart_id].id
    try:
        chart = store.charts.living(conn, chart_id)
    except StoreError:  # a damaged chart explains nothing
        return chart_id
    if chart is None:
        return chart_id
    charts[chart_id] = charts[chart.id] = chart
    return chart.id


def reviewed(conn: Connection) -> set[int]:
    """Numbers of the records that somebody has asked about."""
    statement = select(audit.c.subject).where(audit.c.action == REVIEWED)
    found = conn.execute(statement).scalars()
    return {int(one.removeprefix("record:")) for one in found if one.removeprefix("record:").isdecimal()}


def worksheets_of(store: Store, conn: Connection, damaged: Callable[[str], None] | None = None) -> list[Worksheet]:
    """Of breaches, as they stand: the newest first. damaged: is told the number of one whose newest record was altered
    or is gone in part; an older record must not pass for how it stands. Without it raises TamperedError.
    """
    found: dict[str, Worksheet | None] = {}
    records = [one for action in BREACH_EVENTS for one in store.audit.find(conn, action=action, limit=None)]
    for row in sorted(records, key=lambda one: -(one.seq or 0)):
        if row.subject in found:
            continue
        found[row.subject] = None
        with contextlib.suppress(KeyError, msgspec.ValidationError):
            if row.damaged is None:
                found[row.subject] = msgspec.convert(row.facts["worksheet"], Worksheet)
        if found[row.subject] is None and not _was_purged(conn, row.seq):
            if damaged is None:
                raise TamperedError(f"audit_payload.body:{row.seq}")
            damaged(row.subject.removeprefix("breach:"))
    return sorted((one for one in found.values() if one is not None), key=lambda one: -one.number)


def _was_purged(conn: Connection, seq: int) -> bool:
    """Whether the sealed part of a record is lawfully gone; `audit verify` tells whether that is so."""
    statement = select(audit_purge.c.event).where(audit_purge.c.first <= seq, audit_purge.c.last >= seq)
    return conn.execute(statement.limit(1)).first() is not None


def due_breaches(store: Store, conn: Connection, rules: BreachFile, today: date) -> dict[str, date]:
    """Number of a worksheet -> when its next notice is due, of those that are soon or were; of one that can't be read,
    today: a person has to look.
    """
    soon = today + timedelta(days=rules.warn_days)
    damaged: list[str] = []
    sheets = worksheets_of(store, conn, damaged.append)
    due = {str(one.number): next_due(one, rules) for one in sheets} | dict.fromkeys(damaged, today)
    return {number: day for number, day in due.items() if day is not None and day <= soon}


def says(reason: str) -> str:
    """Why a look is explained, in words."""
    words = {"purpose": "by its purpose of use", "glass": "by a broken glass that was attested as right"}
    known = {one.value: f"by the relation {one.value.replace('_', ' ')}" for one in Relation}
    return (known | words).get(reason, reason)


class AccessWatch:
    """What a privacy officer has to see to. Not thread-safe: one look at a time."""

    def __init__(self, store: Store, rules: PrivacyRules, zone: tzinfo, grace: timedelta) -> None:
        self.take(rules, zone, grace)
        self._store = store
        self._looked: tuple[PrivacyRules, datetime] | None = None
        self._found: dict[str, Any] = {}

    def take(self, rules: PrivacyRules, zone: tzinfo, grace: timedelta) -> None:
        """Go on by these."""
        self.rules, self.zone, self.grace = rules, zone, grace

    def seen(self, conn: Connection, work: Overview) -> Overview:
        """With how many looks are above the line and nobody has asked about, and what of breaches is due; worked out
        anew every few minutes.
        """
        fresh = self._looked is not None and self._looked[0] is self.rules and self._looked[1] <= work.at
        if not fresh or self._looked is None or work.at - self._looked[1] >= _EVERY:
            self._found = self._unusual(conn, work.at) | self._breaches(conn, work.at)
            self._looked = (self.rules, work.at)
        return structs.replace(work, **self._found)

    def _unusual(self, conn: Connection, now: datetime) -> dict[str, Any]:
        if (rules := self.rules.unusual) is None:
            return {}
        since = now - timedelta(days=rules.alert_days)
        found, _ = unusual(self._store, conn, rules, self.zone, self.grace, since, now + timedelta(seconds=1))
        known = reviewed(conn)
        above = [one for one in found.unexplained if one.above and not known.issuperset(one.records)]
        return {"unusual": len(above), "oldest_unusual_at": min((one.first for one in above), default=None)}

    def _breaches(self, conn: Connection, now: datetime) -> dict[str, Any]:
        if (rules := self.rules.breach) is None:
            return {}
        return {"breaches": due_breaches(self._store, conn, rules, now.astimezone(self.zone).date())}
