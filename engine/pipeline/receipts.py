"""What became of things that went out: one rule for each kind of word from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from engine.domain.cause import Cause, NotificationSettled, PageAnswered
from engine.domain.chart import Chart
from engine.domain.page import StepResult
from engine.pipeline import pages
from engine.pipeline.replies import REPLY_RULES
from engine.pipeline.requests import REQUEST_RULES
from engine.pipeline.rule import Deciding, Rule
from engine.pipeline.texts import TEXT_RULES


def _settled(reply: NotificationSettled, chart: Chart | None, deciding: Deciding) -> Chart | None:
    page = pages.page_of(chart, reply.page)
    if chart is None or page is None:
        return chart
    result = StepResult(reply.result)
    return pages.with_page(chart, pages.settle(page, reply.step, result, deciding.at, reply.detail))


def _of_page(reply: NotificationSettled | PageAnswered, _chart: Chart | None) -> list[str]:
    return [f"page:{reply.page}"]


RECEIPT_RULES: Final[Mapping[type[Cause], Rule]] = {
    NotificationSettled: Rule(_settled, _of_page, audited=False),
    PageAnswered: Rule(pages.acknowledge, _of_page),
    **REQUEST_RULES,
    **TEXT_RULES,
    **REPLY_RULES,
}
