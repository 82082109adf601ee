"""What patients write: what each reply does to a chart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from engine.care.texts.consent import said
from engine.domain.cause import Cause, TextReceived
from engine.domain.chart import Chart
from engine.domain.consent import ContactConsent
from engine.pipeline.contactconsents import statement_id
from engine.pipeline.rule import Deciding, Rule

_STOP: Final = frozenset({"stop", "quit", "end", "revoke", "opt out", "optout", "cancel", "unsubscribe", "stopall"})
"""47 CFR 64.1200(a)(10)(i)."""


def _received(reply: TextReceived, chart: Chart | None, deciding: Deciding) -> Chart | None:
    if chart is None:
        return None
    word = " ".join(reply.text.lower().split()).strip(".!")
    if reply.answered == "STOP" or word in _STOP:
        entry = deciding.entry
        stopped = ContactConsent(
            id=statement_id(entry.replay_root or entry.id),
            purpose="care",
            channel=reply.channel,
            number=reply.number,
            given=False,
            at=deciding.at,
            how="reply",
            by="patient",
            evidence=reply.text,
            word="opt_out",
        )
        return said(chart, stopped)
    return chart


def _about(reply: TextReceived, chart: Chart | None) -> list[str]:
    return [f"chart:{chart.id}" if chart is not None else f"reply:{reply.id}"]


REPLY_RULES: Final[Mapping[type[Cause], Rule]] = {TextReceived: Rule(_received, _about)}
"""Part of `engine.pipeline.receipts.RECEIPT_RULES`."""
