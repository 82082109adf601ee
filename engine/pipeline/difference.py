"""What differs between the charts before and after an entry: new versions, effects, deliveries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from engine.domain.chart import Chart, Charts
from engine.domain.delivery import Delivery, Fallen
from engine.domain.outcome import Effect
from engine.domain.parts import united
from engine.pipeline import notices
from engine.pipeline.appointments import appointment_effects
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.copies import judged, marked_anew, of_test
from engine.pipeline.death import death_effects
from engine.pipeline.deliver import chart_deliveries
from engine.pipeline.grounds import fallen
from engine.pipeline.pages import notifications, page_effects
from engine.pipeline.plan import score_effects, task_effects
from engine.pipeline.texts import text_effects, text_notices


class Difference(NamedTuple):
    """Charts that are not as before, their effects and deliveries, kinds of what differs, and what fell under notices.

    now: when it is decided.
    """

    charts: list[Chart]
    effects: list[Effect]
    deliveries: list[Delivery]
    kinds: dict[str, None]
    fallen: list[Fallen]
    marked_anew: list[str]


_NOTHING: Final[Mapping[str, Chart]] = {}


def difference(
    charts: Charts,
    changed: Iterable[Chart],
    folded: Mapping[str, list[Chart]],
    channel: CompiledChannel | None,
    now: datetime,
    moved: Mapping[str, Chart] = _NOTHING,
) -> Difference:
    """moved: charts between which stays have moved, as they were before but with each stay where it is now."""
    final: list[Chart] = []
    effects: list[Effect] = []
    deliveries: list[Delivery] = []
    kinds: dict[str, None] = {}
    gone: list[Fallen] = []
    anew: list[str] = []
    for chart in changed:
        before = charts.by_id.get(chart.id)
        if before == chart:
            continue
        version = (before.version if before else 0) + 1
        name = channel.settings.name if channel is not None else chart.channel
        chart = msgspec.structs.replace(chart, version=version, channel=name)  # noqa: PLW2901
        final.append(chart)
        if before is not None and (one := fallen(before, chart)) is not None:
            gone.append(one)
        if chart.merged_into is None:
            was = moved.get(chart.id) or together(charts, chart.id, folded)
            effects += death_effects(before, chart)
            effects += score_effects(was, chart)
            effects += task_effects(was, chart)
            effects += appointment_effects(was, chart)
            effects += page_effects(was, chart)
            effects += text_effects(was, chart)
            if channel is not None:
                parts = folded.get(chart.id, ())
                held = was if parts else before
                told = chart_deliveries(before, chart, channel, merged=parts, was=held, kinds=kinds)
                told.extend(notifications(was, chart, channel.rosters))
                told.extend(text_notices(was, chart))
                if notices.PLANNERS:
                    told.extend(notices.notice_deliveries(was, chart, channel, now, kinds))
                if channel.copies.restrictions:
                    told = judged(told, chart, channel, now)
                    anew.extend(marked_anew(before, chart, channel, folded=bool(parts)))
                if chart.test:
                    told = of_test(told, channel)
                deliveries.extend(told)
    return Difference(final, effects, deliveries, kinds, gone, anew)


def together(charts: Charts, chart_id: str, folded: Mapping[str, list[Chart]]) -> Chart | None:
    """What was known of the patient before the entry, that of the charts folded into this one included.

    A stay, score or task that only moved is no new one.
    """
    before = charts.by_id.get(chart_id)
    known = folded.get(chart_id)
    parts = [part for chart in known if (part := charts.by_id.get(chart.id)) is not None] if known else []
    if not parts:
        return before
    return united(parts if before is None else [before, *parts])
