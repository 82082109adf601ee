"""What a rule of causes looks like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from engine.domain.chart import Chart
from engine.domain.outcome import Dismissal
from engine.errors import HandoffError


class NotDoneError(HandoffError):
    """What is wanted can't be done on the chart as it is. The code is stable, the text is for whoever waits."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def _none(_cause: Any) -> tuple[Dismissal, ...]:
    return ()


class Rule(NamedTuple):
    """One kind of cause on one chart."""

    apply: Callable[[Any, Chart | None, datetime], Chart | None]
    """The chart after it; the chart may be none, where nobody is known. Raises NotDoneError."""
    subjects: Callable[[Any, Chart | None], Sequence[str]]
    """What it is done to, the first of all, by opaque ids (`task:9f2c`): for effects and audit."""
    dismissals: Callable[[Any], tuple[Dismissal, ...]] = _none
    """Questions that it decides."""
