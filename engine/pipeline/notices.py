"""Notices: words to a person (texts, pages, mails) that the heart plans, and what each hangs on.

A notice is planned when something begins to stand (`grounds.newly`): an open task, a discharge. That is its ground.
When the ground falls before it is sent (the task is done, the discharge cancelled, the patient dead or merged into
another), it is not sent any more. The heart says which grounds an entry has made fall (`grounds.fallen`); the store
puts that on record with the notices that hang on them, in the transaction of the outcome (`engine.store.notices`), and
admission asks for it right before anything is sent (`ground_is_there`). What was sent before stays sent, and says that
its ground has gone.

| to add | is |
|---|---|
| a kind of ground (an appointment) | a line of `GROUNDS` in `engine.pipeline.grounds` |
| notices after a change of a chart | a planner in a file beside this one, and its line in `PLANNERS` |
| when they may go out | `engine.pipeline.admit`, or the destination's own rules |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from engine.domain.chart import Chart
from engine.domain.delivery import Delivery, line_of_notice
from engine.domain.ids import beginning_like
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.grounds import NoticePlanner
from engine.pipeline.requests import plan_requests

PLANNERS: Final[Sequence[NoticePlanner]] = (plan_requests,)
"""All that the heart plans to say to people, and to scheduling systems."""


def notice_deliveries(
    before: Chart | None, chart: Chart, channel: CompiledChannel, now: datetime, kinds: dict[str, None]
) -> Iterator[Delivery]:
    """A delivery of each planned notice for each destination that takes its kind. kinds: takes up those planned."""
    for planner in PLANNERS:
        for operation, notice in planner(before, chart, channel, now):
            kinds[operation.what] = None
            payload = notice.encoded()
            for destination in channel.settings.takers.get(operation.what, ()):
                own = channel.key("notice", destination, operation, chart.id, notice.id, str(chart.version))
                yield Delivery(
                    destination=destination,
                    operation=operation,
                    ordering_key=line_of_notice(chart.id, notice.id),
                    idempotency_key=beginning_like(chart.id, own),
                    payload=payload,
                )
