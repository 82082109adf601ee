"""What a rule of causes looks like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.care.event import Applied
from engine.care.oncall import NO_ROSTERS, OnCall
from engine.domain.chart import Chart
from engine.domain.message import Entry
from engine.domain.oncall import Override
from engine.domain.outcome import Dismissal, QualityDecision
from engine.errors import HandoffError

if TYPE_CHECKING:
    from engine.pipeline.channel import CompiledChannel


class Deciding(NamedTuple):
    """What an entry is decided by, besides the chart."""

    at: datetime
    """When it came about: of a replay, when it first did."""
    now: datetime
    """When it is decided."""
    entry: Entry
    channel: CompiledChannel | None
    """By whose rules; none: the configuration has the patient's channel no more."""
    heard: Applied
    """Where rules say what else comes of it: faults of the feed (`heard.quality`), reasons (`heard.why`), effects."""
    overrides: tuple[Override, ...] = ()
    """Who stands in on rosters; known of causes, and not of messages."""

    @property
    def on_call(self) -> OnCall:
        """Who is on call."""
        return OnCall(self.channel.rosters if self.channel is not None else NO_ROSTERS, self.overrides)


class NotDoneError(HandoffError):
    """What is wanted can't be done on the chart as it is. The code is stable, the text is for whoever waits."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def _none(_cause: Any) -> tuple[Any, ...]:
    return ()


def _nobody(_cause: Any, _deciding: Deciding) -> tuple[Override, ...]:
    return ()


class Rule(NamedTuple):
    """One kind of cause on one chart."""

    apply: Callable[[Any, Chart | None, Deciding], Chart | None]
    """The chart after it; the chart may be none, where nobody is known. Raises NotDoneError."""
    subjects: Callable[[Any, Chart | None], Sequence[str]]
    """What it is done to, the first of all, by opaque ids (`task:9f2c`): for effects and audit."""
    dismissals: Callable[[Any], tuple[Dismissal, ...]] = _none
    """Questions that it decides."""
    quality: Callable[[Any], tuple[QualityDecision, ...]] = _none
    """Items of the data-quality list that it decides."""
    overrides: Callable[[Any, Deciding], tuple[Override, ...]] = _nobody
    """Who stands in on a roster by it."""
    audited: bool = True
    """A person does it: it stands in the audit trail."""
    needs_channel: bool = False
    """Without the rules of the patient's channel nobody can say what is to be done: a dead letter says so."""
