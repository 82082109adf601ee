"""What follows from the appointments of a chart, and what of them is told as an effect."""

from __future__ import annotations

from engine.domain.chart import Chart
from engine.domain.outcome import Effect


def appointment_effects(before: Chart | None, chart: Chart) -> list[Effect]:
    """An effect for each appointment that has another status or another time."""
    if not chart.appointments or (before is not None and before.appointments is chart.appointments):
        return []
    old = {one.id: one for one in before.appointments} if before is not None else {}
    effects = []
    for one in chart.appointments:
        was = old.get(one.id)
        if was is None or was.status is not one.status:
            effects.append(Effect(kind=f"appointment-{one.status}", subject=one.id, detail=one.told_by or ""))
        elif was.starts_at != one.starts_at:
            effects.append(Effect(kind="appointment-moved", subject=one.id))
    return effects
