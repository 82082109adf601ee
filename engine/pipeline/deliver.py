"""What goes out after an entry: one delivery for each object that changed, for each destination that wants it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, Literal

from msgspec import UNSET, structs

from engine.domain.chart import Chart, Days
from engine.domain.delivery import (
    CONTENTS,
    Content,
    Delivery,
    Forward,
    Operation,
    PatientMerge,
    PatientUpsert,
    ScoreUpsert,
)
from engine.domain.ids import beginning_like
from engine.domain.message import Entry
from engine.domain.parts import DELIVERED, SCORES, DeliveredPart, Part, score_key
from engine.domain.score import Band, Score
from engine.pipeline.copies import judged, of_test
from engine.pipeline.plan import ARRIVED, came_at

if TYPE_CHECKING:
    from engine.pipeline.channel import CompiledChannel


class Gone(Exception):  # noqa: N818 - no error: an answer that is rare
    """The object of a delivery is no longer there."""


def chart_deliveries(
    before: Chart | None,
    chart: Chart,
    channel: CompiledChannel,
    *,
    merged: Sequence[Chart] = (),
    was: Chart | None = None,
    kinds: dict[str, None] | None = None,
) -> list[Delivery]:
    """Deliveries for all that differs between two versions of a chart.

    merged: charts that were folded into this one by the entry; destinations hear of each first, and what they held goes
    out again under its new patient. was: what they held, with that of `before`; none: that of `before` alone. kinds:
    takes up those of all that differs, also those that no destination wants.
    """
    wanted = channel.settings.takers
    deliveries: list[Delivery] = []
    key = chart.patient.key
    version = str(chart.version)

    def add(operation: Operation, subject: str, content: Content) -> None:
        what = operation.what
        if kinds is not None:
            kinds[what] = None
        destinations = wanted.get(what)
        if not destinations:
            return
        payload = content.encoded()
        for destination in destinations:
            if operation is Operation.UPSERT_TEXT and destination in channel.text_senders:
                continue  # it sends texts, and records none
            # The chart's version makes the key: the same change replayed has the same key, a later change another one.
            own = channel.key("delivery", destination, operation, chart.id, subject, version)
            deliveries.append(
                Delivery(
                    destination=destination,
                    operation=operation,
                    ordering_key=chart.id,
                    idempotency_key=beginning_like(chart.id, own),
                    payload=payload,
                )
            )

    if before is None or before.patient != chart.patient:
        add(Operation.UPSERT_PATIENT, "", PatientUpsert.of(chart.patient))
    for folded in merged:
        add(Operation.MERGE_PATIENT, folded.id, PatientMerge(survivor=key, merged=folded.patient.key))
    for part in DELIVERED:
        tell = _TOLD_OTHERWISE.get(part.name)
        if tell is not None:
            for told in tell(before, was or before, chart, channel):
                add(part.operation, part.key(getattr(told, part.what)), told)
            continue
        for item in _changed(part, before, chart):
            add(part.operation, part.key(item), part.content(item, key))
    return deliveries


def state_deliveries(
    chart: Chart, channels: Sequence[CompiledChannel], destination: str, *, merged: Sequence[Chart] = ()
) -> list[Delivery]:
    """All that a chart says today, for one destination, in the order in which it must hear it.

    channels: those that the patient was heard of on, the latest first; of what several deliver, the first one's is
    taken. merged: charts that ended in this one and that the destination knows. The idempotency keys are those of a
    change of the chart; who sends it again gives them others.
    """
    found: dict[tuple[Operation, tuple[str | None, ...]], Delivery] = {}
    for channel in channels:
        for item in chart_deliveries(None, chart, channel, merged=merged):
            if item.destination == destination:
                found.setdefault((item.operation, item.content.about), item)
    told = sorted(found.values(), key=lambda item: _ORDER.index(item.operation))
    if channels and chart.test:
        return of_test(told, channels[0])
    return judged(told, chart, channels[0], None) if channels else told


_ORDER: Final = (
    Operation.UPSERT_PATIENT,
    Operation.MERGE_PATIENT,
    *(part.operation for part in DELIVERED),
)

_PARTS: Final[Mapping[type[Content], DeliveredPart]] = {CONTENTS[part.operation]: part for part in DELIVERED}


def forward_deliveries(
    entry: Entry,
    ordering_key: str,
    channel: CompiledChannel,
    chart: Chart | None = None,
    stay: str | None = None,
    now: datetime | None = None,
) -> list[Delivery]:
    """The message itself, for destinations that want `message`. A replay has the key of the entry it replays.

    chart, stay: of whom, and of which stay, it speaks.
    """
    takers = channel.settings.takers.get("message")
    if not takers:
        return []
    payload = Forward(hl7=entry.payload, stay=UNSET if stay is None else stay).encoded()
    root = str(entry.replay_root or entry.id)
    forwards = [
        Delivery(
            destination=destination,
            operation=Operation.FORWARD,
            ordering_key=ordering_key,
            idempotency_key=channel.key("forward", destination, channel.settings.name, root),
            payload=payload,
        )
        for destination in takers
    ]
    return of_test(forwards, channel) if entry.test else judged(forwards, chart, channel, now)


def as_of_now(chart: Chart, said: Content) -> Content:
    """What a delivery of an object of this patient would say now. Raises Gone when there is no such object any more.

    What was said once (a merge, a message, a notice) stays as it was said.
    """
    key = chart.patient.key
    if isinstance(said, PatientUpsert):
        return PatientUpsert.of(chart.patient)
    part = _PARTS.get(type(said))
    if part is None:
        return said
    was = part.key(getattr(said, part.what))
    item = next((item for item in part.of(chart) if part.key(item) == was), None)
    if isinstance(said, ScoreUpsert):
        deciding = _deciding(chart, said.score.model)
        if item is None:
            return _withdrawn(key, said.score, decides=said.decides and deciding is None)
        return structs.replace(part.content(item, key), decides=said.decides and item is deciding)
    if item is None:
        raise Gone
    return part.content(item, key)


def _scores_told(
    before: Chart | None, was: Chart | None, chart: Chart, channel: CompiledChannel
) -> Iterator[ScoreUpsert]:
    """What is told of scores: which of them speaks for the patient, and which must be forgotten."""
    key = chart.patient.key
    first = channel.models[0].name if channel.models else ""
    scores = list(_changed(SCORES, before, chart))
    deciding = _deciding(chart, first)
    if deciding is OF_A_CLOSED_STAY:
        if _deciding(before, first) is not OF_A_CLOSED_STAY:
            chart.need_whole()  # it speaks for the patient again, and is to be told
    elif deciding is not None and deciding not in scores:
        decided = _deciding(before, first)
        if decided is not None and (decided is OF_A_CLOSED_STAY or score_key(deciding) != score_key(decided)):
            scores.append(deciding)  # the later stay is no more: this one speaks for the patient again
    left = set(map(score_key, chart.scores))
    for score in was.scores if was else ():
        if score_key(score) not in left:
            yield _withdrawn(key, score, decides=deciding is None)
    for score in scores:
        yield ScoreUpsert(patient_key=key, decides=score is deciding, score=score)


_TOLD_OTHERWISE: Final[
    Mapping[str, Callable[[Chart | None, Chart | None, Chart, CompiledChannel], Iterator[Content]]]
] = {
    SCORES.name: _scores_told,
}
"""Parts of which more is told than how those are that have changed."""


def _withdrawn(patient_key: str, was: Score, *, decides: bool) -> ScoreUpsert:
    """A score that a destination has to forget.

    It has no points any more, also for who does not look at `withdrawn`; it decides when no other stands.
    """
    nothing = structs.replace(
        was,
        value=None,
        min=0,
        max=0,
        band=Band.LOW,
        band_max=Band.LOW,
        factors=(),
        missing=(),
        expected_risk_percent=None,
    )
    return ScoreUpsert(patient_key=patient_key, decides=decides, withdrawn=True, score=nothing)


class _Closed(Enum):
    SCORE = auto()


OF_A_CLOSED_STAY: Final = _Closed.SCORE


def _deciding(chart: Chart | None, model: str) -> Score | Literal[_Closed.SCORE] | None:
    """The score that speaks for the patient where there is one place for it: the first model's, of the latest stay.

    Otherwise a correction of an old stay would put that stay's risk over the one of today.
    """
    if chart is None:
        return None
    scores = {score.encounter: score for score in chart.scores if score.model == model}
    stays = [stay for stay in chart.encounters if stay.key in scores and stay.status in ARRIVED]
    days = Days(chart.encounters)
    latest = max(stays, key=lambda stay: (came_at(stay, days), stay.key)) if len(stays) > 1 else next(iter(stays), None)
    closed = chart.closed.deciding.get(model) if chart.closed is not None else None
    if closed is not None:
        at, key = closed
        if latest is None or (float("-inf") if at is None else at, key) > (came_at(latest, days), latest.key):
            return OF_A_CLOSED_STAY
    return scores[latest.key] if latest is not None else None


def _changed(part: Part, before: Chart | None, after: Chart) -> Iterator[Any]:
    """Those that are not what they were before, found by key: a chart may hold thousands."""
    was, now = part.of(before) if before is not None else (), part.of(after)
    if was is now:
        return
    known = {part.key(item): item for item in was}
    for item in now:
        old = known.get(part.key(item))
        if old is not item and old != item:
            yield item
