"""Figures of `handoff evidence`: what the store says, counted when the document is made. None holds a patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, or_, select

from engine.domain.delivery import TEST_DATA, DeliveryState, Operation
from engine.domain.task import TaskState
from engine.errors import SettingsError
from engine.privacy.evidence import Figure
from engine.store.schema import admission, chart, delivery, outcome, task, to_micros

if TYPE_CHECKING:
    from engine.desk.desk import Desk

_DAYS: Final = 30
_ATTESTED_DAYS: Final = 7
"""A broken glass should have been attested by then."""
_CHARTS_MAX: Final = 5_000
_OF_STAYS: Final = (Operation.UPSERT_ENCOUNTER, Operation.FORWARD, Operation.NOTIFY, Operation.SEND_MAIL)
"""By which somebody outside hears of an admission, discharge or transfer."""


def _notices(desk: Desk) -> Iterator[Figure]:
    since = to_micros(desk.now - timedelta(days=_DAYS))
    with desk.store.reader() as conn:
        named = [one.value for one in _OF_STAYS]
        tests = select(outcome.c.entry_id).where(outcome.c.test == 1)
        real = or_(delivery.c.entry_id.is_(None), delivery.c.entry_id.not_in(tests))
        of_stays = (delivery.c.operation.in_(named), delivery.c.created_at >= since, real)
        states: Counter[str] = Counter(
            dict(
                conn.execute(select(delivery.c.state, func.count()).where(*of_stays).group_by(delivery.c.state))
                .tuples()
                .all()
            )
        )
        kept = (
            conn.execute(
                select(admission.c.code, func.count())
                .join(delivery, delivery.c.id == admission.c.delivery_id)
                .where(*of_stays, admission.c.not_before.is_(None), delivery.c.state == DeliveryState.WITHHELD.value)
                .group_by(admission.c.code)
                .order_by(admission.c.code)
            )
            .tuples()
            .all()
        )
    yield Figure(what=f"copies about stays in {_DAYS} days, sent", value=f"{states[DeliveryState.DELIVERED.value]:,}")
    yield Figure(
        what="waiting or held", value=f"{states[DeliveryState.PENDING.value] + states[DeliveryState.HELD.value]:,}"
    )
    yield Figure(what="failed", value=f"{states[DeliveryState.DEAD.value]:,}")
    yield Figure(what="refused or withheld", value=f"{sum(number for _, number in kept):,}")
    for code, number in kept:
        yield Figure(what=f"withheld: {code}", value=f"{number:,}")
    yield from _without_address(desk)
    yield from _tasks(desk, "notice_of_discharge")


def _restricted(desk: Desk) -> Iterator[Figure]:
    """What rules keep back now, of all destinations."""
    with desk.store.reader() as conn:
        kept = conn.execute(
            select(admission.c.code, func.count())
            .join(delivery, delivery.c.id == admission.c.delivery_id)
            .where(admission.c.not_before.is_(None), delivery.c.state == DeliveryState.WITHHELD.value)
            .where(admission.c.code != TEST_DATA)
            .group_by(admission.c.code)
            .order_by(admission.c.code)
        )
        found = ", ".join(f"{number:,} {code}" for code, number in kept.tuples())
    yield Figure(what="copies withheld by a rule", value=found or "none")


def _without_address(desk: Desk) -> Iterator[Figure]:
    """Patients of whom nobody is known whom a notice could go to."""
    with desk.store.reader() as conn:
        ids = desk.store.charts.latest_ids(conn, _CHARTS_MAX)
        tests = desk.store.charts.tests(conn, ids)
        ids = [one for one in ids if one not in tests]
        found = [one for _, one in desk.store.charts.documents(conn, ids) if one is not None]
    nobody = sum(one.patient.pcp is None for one in found)
    what = f"no address: patients without a primary care practitioner, of the {len(found):,} that changed last"
    yield Figure(what=what, value=f"{nobody:,}")


def _referrals(desk: Desk) -> Iterator[Figure]:
    yield from _tasks(desk, "pcp_follow_up")


def _tasks(desk: Desk, kind: str) -> Iterator[Figure]:
    with desk.store.reader() as conn:
        living = task.c.chart_id.not_in(select(chart.c.id).where(chart.c.test == 1))
        own = select(task.c.state, func.count()).where(task.c.kind == kind, living)
        rows = conn.execute(own.group_by(task.c.state))
        states: Counter[str] = Counter(dict(rows.tuples().all()))
    done = states[TaskState.DONE.value]
    yield Figure(what=f"tasks {kind}, done with date and proof", value=f"{done:,} of {sum(states.values()):,}")


def _breaches(desk: Desk) -> Iterator[Figure]:
    from engine.desk import breaches
    from engine.privacy.breach import next_due, state_of

    try:
        rules = breaches.rules_of(desk)
    except SettingsError:
        yield Figure(what="worksheets", value="the site has no mappings/privacy/breach.yaml", wrong=True)
        return
    damaged: list[str] = []
    found = breaches.worksheets(desk, damaged.append)
    states = Counter(state_of(one, rules) for one in found)
    yield Figure(
        what="worksheets", value=", ".join(f"{number:,} {state}" for state, number in sorted(states.items())) or "none"
    )
    for number in damaged:
        yield Figure(what=f"breach {number}", value="can't be read: it was altered", wrong=True)
    for one in found:
        if (due := next_due(one, rules)) is not None:
            late = due < breaches.today(desk)
            yield Figure(
                what=f"breach {one.number}, next notice due", value=f"{due}{' (overdue)' if late else ''}", wrong=late
            )


def _glasses(desk: Desk) -> Iterator[Figure]:
    with desk.store.reader() as conn:
        number, first = desk.store.users.unattested(conn)
    late = first is not None and desk.now - first > timedelta(days=_ATTESTED_DAYS)
    yield Figure(what="broken glasses that nobody has attested", value=f"{number:,}", wrong=late)


def _refusals(desk: Desk) -> Iterator[Figure]:
    from engine.desk.exporting import REFUSED

    with desk.store.reader() as conn:
        found = desk.store.audit.find(conn, action=REFUSED, limit=1000)
    reasons = Counter(str(one.facts.get("refusal", {}).get("exception")) for one in found)
    yield Figure(
        what="refusals", value=", ".join(f"{number:,} {name}" for name, number in sorted(reasons.items())) or "none"
    )


def _certificates(desk: Desk) -> Iterator[Figure]:
    from engine.runtime.certificates import certificates

    for one in certificates(desk.configuration):
        yield Figure(what=f"certificate of {one.use}", value=f"{one.days_left(desk.now):,} days left")


def _network(desk: Desk) -> Iterator[Figure]:
    """Who can be reached, or reaches, in clear from other machines."""
    for name, channel in sorted(desk.configuration.channels.items()):
        listen = channel.listen
        if listen.tls is not None:
            said = "TLS"
        elif listen.host in {"127.0.0.1", "::1", "localhost"}:
            said = "this machine alone"
        else:
            said = f"in clear: {listen.plaintext or 'no reason given'}"
        yield Figure(what=f"listener of channel {name}", value=said)


FIGURES: Final[Mapping[str, Callable[[Desk], Iterator[Figure]]]] = {
    "notices": _notices,
    "referrals": _referrals,
    "breaches": _breaches,
    "glasses": _glasses,
    "refusals": _refusals,
    "certificates": _certificates,
    "network": _network,
    "restricted": _restricted,
}
"""By the name that a row gives (`engine.privacy.evidence.FIGURES`)."""
