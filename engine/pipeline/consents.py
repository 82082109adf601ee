"""What a patient says to copies that leave, put on record by a person, and taken back."""

from __future__ import annotations

from msgspec import structs

from engine.domain.cause import ConsentGiven, ConsentRevoked
from engine.domain.chart import Chart
from engine.domain.consent import Consent
from engine.pipeline.rule import Deciding, NotDoneError

CONSENTS_MAX = 200
"""Of a chart, revoked ones included."""


def give(act: ConsentGiven, chart: Chart | None, deciding: Deciding) -> Chart:
    chart = _there(chart)
    if len(chart.consents) >= CONSENTS_MAX:
        raise NotDoneError("too-many", f"the patient has {CONSENTS_MAX} statements on record: no more can be added")
    entry = deciding.entry
    new = Consent(
        id=f"c{entry.replay_root or entry.id}",
        kind=act.consent,
        to=act.to,
        begins=deciding.at,
        ends=act.ends,
        by=act.actor,
        because=act.reason or "",
    )
    return structs.replace(chart, consents=(*(one for one in chart.consents if one.id != new.id), new))


def revoke(act: ConsentRevoked, chart: Chart | None, deciding: Deciding) -> Chart:
    chart = _there(chart)
    found = next((one for one in chart.consents if one.id == act.id), None)
    if found is None:
        raise NotDoneError("unknown", "the patient has no such statement on record")
    if found.revoked_at is not None:
        raise NotDoneError("revoked", "it was taken back already")
    gone = structs.replace(found, revoked_at=deciding.at, revoked_by=act.actor)
    return structs.replace(chart, consents=tuple(gone if one is found else one for one in chart.consents))


def subjects(act: ConsentGiven | ConsentRevoked, chart: Chart | None) -> list[str]:
    return [f"chart:{chart.id if chart is not None else act.chart_id}"]


def _there(chart: Chart | None) -> Chart:
    if chart is None:
        raise NotDoneError("gone", "the patient's chart is gone")
    return chart
