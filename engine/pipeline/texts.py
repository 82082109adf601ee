"""Texts to patients: what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from msgspec import structs

from engine.domain.cause import Cause, TextSettled
from engine.domain.chart import Chart
from engine.domain.text import Text, TextState
from engine.pipeline.rule import Deciding, Rule

_OUT: Final = frozenset({TextState.QUEUED, TextState.SENT, TextState.DELIVERED})
"""Words of the carrier still count; in any order: what was delivered stays so."""


def settle(text: Text, said: TextSettled, at: datetime) -> Text:
    """What a word of its delivery, or of the carrier, makes of a text. Words about an earlier try say nothing."""
    if said.tries != text.tries or text.state not in _OUT:
        return text
    if said.result == TextSettled.WITHHELD:
        if text.state is not TextState.QUEUED:
            return text
        return structs.replace(text, state=TextState.WITHHELD, reason=said.detail, due_at=None, ended_at=at)
    receipt = said.receipt or text.receipt
    if said.result == TextSettled.FAILED:
        if text.state is TextState.DELIVERED:
            return text
        return structs.replace(
            text, state=TextState.FAILED, reason="carrier_error", detail=said.detail, receipt=receipt, ended_at=at
        )
    sent_at = text.sent_at or at
    answer_by = text.answer_by
    if answer_by is None and text.question is not None:
        answer_by = sent_at + timedelta(seconds=text.question.seconds)
    state = TextState.DELIVERED if said.result == TextSettled.DELIVERED else TextState.SENT
    if text.state is TextState.DELIVERED:
        state = TextState.DELIVERED
    delivered_at = text.delivered_at or (at if state is TextState.DELIVERED else None)
    return structs.replace(
        text,
        state=state,
        reason="sent",
        sent_at=sent_at,
        delivered_at=delivered_at,
        receipt=receipt,
        answer_by=answer_by,
    )


def _settled(said: TextSettled, chart: Chart | None, deciding: Deciding) -> Chart | None:
    if chart is None or all(text.id != said.text for text in chart.texts):
        return chart
    texts = tuple(settle(text, said, deciding.at) if text.id == said.text else text for text in chart.texts)
    return structs.replace(chart, texts=texts)


def _of_text(said: TextSettled, _chart: Chart | None) -> list[str]:
    return [f"text:{said.text}"]


TEXT_RULES: Final[Mapping[type[Cause], Rule]] = {TextSettled: Rule(_settled, _of_text, audited=False)}
