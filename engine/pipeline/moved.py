"""What comes with a stay that has become another patient's (A44, A45) while something of it was on its way.

What became of that is heard under the patient of before (`pipeline.receipts`), whose it is not any more. A merge needs
nothing of this: there the words of the merged patient are the survivor's.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from msgspec import structs

from engine.domain.appointment import RequestState
from engine.domain.chart import Chart
from engine.domain.page import Page, StepResult
from engine.pipeline.pages import settle
from engine.pipeline.requests import refused
from engine.pipeline.rule import Deciding

PATIENT_MOVED: Final = "patient-moved"
"""Why a call or a request counts as not made."""


def follow_moves(before: Chart | None, chart: Chart, deciding: Deciding) -> Chart:
    """Calls that were on their way count as failed: the next one is made at once. Requests go back to people.

    before: with those that have been merged into it.
    """
    if not (chart.pages or chart.appointments):
        return chart
    if before is not None and before.pages is chart.pages and before.appointments is chart.appointments:
        return chart
    known: set[str] = set()
    if before is not None:
        known = {page.id for page in before.pages} | {one.id for one in before.appointments}
    now = deciding.now

    def came(id_: str, since: datetime | None) -> bool:
        return id_ not in known and (since is None or since < now)

    def failed(page: Page) -> Page:
        for number, step in enumerate(page.steps if came(page.id, page.raised_at) else (), 1):
            if step.result is StepResult.QUEUED:
                page = settle(page, number, StepResult.FAILED, now, PATIENT_MOVED)
        return page

    pages = tuple(map(failed, chart.pages))
    if any(page is not was for page, was in zip(pages, chart.pages, strict=True)):
        chart = structs.replace(chart, pages=pages)
    for one in chart.appointments:
        if one.request is RequestState.ASKED and came(one.id, one.opened_at):
            chart = refused(chart, one, PATIENT_MOVED, now)
    return chart
