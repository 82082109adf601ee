"""What follows from a chart, whatever has changed it: a message, an act, a deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from engine.domain.chart import Chart
from engine.pipeline.appointments import follow_appointments
from engine.pipeline.moved import follow_moves
from engine.pipeline.pages import follow_tasks
from engine.pipeline.registration import follow_registration
from engine.pipeline.requests import follow_requests
from engine.pipeline.rule import Deciding
from engine.pipeline.tasks import follow_alerts, follow_proofs, follow_proofs_taken_back
from engine.pipeline.textplans import follow_texts
from engine.pipeline.texts import follow_answers

Follower = Callable[[Chart | None, Chart, Deciding], Chart]
"""The chart before the entry (none: it is new) and after it -> the chart with what follows. Doing it twice changes
nothing more."""

FOLLOWERS: Final[tuple[Follower, ...]] = (
    follow_moves,
    follow_proofs_taken_back,
    follow_appointments,
    follow_requests,
    follow_proofs,
    follow_alerts,
    follow_tasks,
    follow_registration,
    follow_texts,
    follow_answers,
)
"""In the order in which they run, after scores and plans."""


def follow(before: Chart | None, chart: Chart, deciding: Deciding) -> Chart:
    for follower in FOLLOWERS:
        chart = follower(before, chart, deciding)
    return chart
