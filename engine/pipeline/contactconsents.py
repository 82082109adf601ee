"""The ledger of consents to be written to, as people put it on record."""

from __future__ import annotations

from datetime import datetime

from engine.care.texts.consent import FullError, said
from engine.domain.cause import ContactConsentGiven, ContactConsentRevoked
from engine.domain.chart import Chart
from engine.domain.consent import ContactConsent
from engine.pipeline.rule import Deciding, NotDoneError


def give(act: ContactConsentGiven, chart: Chart | None, deciding: Deciding) -> Chart:
    return _said(act, chart, deciding, given=True, wording=act.wording)


def revoke(act: ContactConsentRevoked, chart: Chart | None, deciding: Deciding) -> Chart:
    """Taken at its word also where nothing was given: whoever wants no texts gets none."""
    return _said(act, chart, deciding, given=False, wording=None)


def subjects(act: ContactConsentGiven | ContactConsentRevoked, chart: Chart | None) -> list[str]:
    return [f"chart:{chart.id if chart is not None else act.chart_id}"]


def statement_id(entry_id: int) -> str:
    """Of the statement that an entry brings."""
    return f"k{entry_id}"


def _said(
    act: ContactConsentGiven | ContactConsentRevoked,
    chart: Chart | None,
    deciding: Deciding,
    *,
    given: bool,
    wording: str | None,
) -> Chart:
    if chart is None:
        raise NotDoneError("gone", "the patient's chart is gone")
    new = ContactConsent(
        id=statement_id(deciding.entry.replay_root or deciding.entry.id),
        purpose=act.purpose,
        channel=act.channel,
        number=act.number,
        given=given,
        at=_when(act.at, deciding.at),
        how=act.how,
        by=act.actor,
        wording=wording,
        evidence=act.reason,
    )
    try:
        return said(chart, new)
    except FullError as error:
        raise NotDoneError("too-many", str(error)) from None


def _when(at: datetime | None, now: datetime) -> datetime:
    """Nothing was said in the future."""
    return now if at is None else min(at, now)
