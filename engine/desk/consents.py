"""What patients say to copies that leave: looked at, put on record, taken back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from engine.desk import finding
from engine.desk.acting import perform
from engine.domain.cause import ConsentGiven, ConsentRevoked
from engine.domain.consent import Consent, ConsentKind
from engine.errors import HandoffError, WhichError

if TYPE_CHECKING:
    from engine.desk.desk import Desk
    from engine.domain.chart import Chart


def give(
    desk: Desk, named: str, kind: ConsentKind, reason: str, *, to: Sequence[str] = (), ends: datetime | None = None
) -> Consent:
    """Raises WhichError for a destination that there is not, HandoffError for what makes no sense."""
    known = desk.configuration.site.destinations
    for name in to:
        if name not in known:
            raise WhichError(f"There is no destination {name}.", name=name, known=list(known))
    if (kind is ConsentKind.PART2_SPECIFIC) != bool(to):
        raise HandoffError(f"{kind} names {'the destinations that it is for' if not to else 'no destination'}")
    if ends is not None and ends <= desk.now:
        raise HandoffError("its end is over already")
    chart = finding.chart(desk, named)
    act = ConsentGiven(
        actor=str(desk.actor), chart_id=chart.id, reason=reason, consent=kind, to=tuple(dict.fromkeys(to)), ends=ends
    )
    (outcome,) = perform(desk, [act])
    return next(one for one in _now(desk, chart).consents if one.id == f"c{outcome.entry_id}")


def revoke(desk: Desk, named: str, consent_id: str, reason: str) -> Consent:
    chart = finding.chart(desk, named)
    perform(desk, [ConsentRevoked(actor=str(desk.actor), chart_id=chart.id, reason=reason, id=consent_id)])
    return next(one for one in _now(desk, chart).consents if one.id == consent_id)


def _now(desk: Desk, chart: Chart) -> Chart:
    found = desk.store.read_now(lambda conn: desk.store.charts.living(conn, chart.id))
    return found if found is not None else chart
