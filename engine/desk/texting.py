"""What patients would be written, before it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.desk.desk import Desk
    from engine.domain.chart import Chart
    from engine.domain.text import Text


def ahead(desk: Desk, chart: Chart) -> list[Text]:
    """The texts that lie ahead, each as it would be at its time if nothing changed until then. Raises SettingsError."""
    from engine.domain.text import TextState
    from engine.pipeline.texts import decided

    channel = desk.compiled().channels.get(chart.channel)
    found: list[Text] = []
    for text in sorted(chart.texts, key=lambda one: (one.due_at or one.planned_for, one.id)):
        if text.state is not TextState.PLANNED or channel is None:
            continue
        at = max(desk.now, text.due_at or text.planned_for)
        found.append(decided(chart, text, channel, at))
    return found
