"""Unusual access at a desk: the questions, and what was found when somebody asked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from engine.errors import NotFoundError
from engine.privacy.rules import needed
from engine.privacy.unusual import PERSONAL, load_unusual
from engine.runtime.oversight import REVIEWED, reviewed, says, unusual

if TYPE_CHECKING:
    from engine.desk.desk import Desk, Reveal
    from engine.privacy.unusual import Judged, Question, UnusualFile


def rules_of(desk: Desk) -> UnusualFile:
    """Raises SettingsError."""
    site, snapshot = desk.configuration.site, desk.configuration.snapshot
    file = f"{site.mappings}/privacy/unusual.yaml"
    return needed(load_unusual(snapshot.document(file)) if file in snapshot.files else None, "unusual", site.mappings)


def judged(desk: Desk, since: datetime | None, until: datetime | None) -> tuple[UnusualFile, Judged, bool]:
    """The rules, what they say, and whether there was more to look at."""
    rules, site = rules_of(desk), desk.configuration.site
    since = since or desk.now - timedelta(days=rules.alert_days)
    grace = timedelta(days=site.access.grace_days if site.access is not None else 7.0)
    zone = ZoneInfo(site.calendar.timezone)
    with desk.store.reader() as conn:
        found, cut = unusual(desk.store, conn, rules, zone, grace, since, until or desk.now + timedelta(seconds=1))
    return rules, found, cut


def shapes(
    desk: Desk, since: datetime | None, until: datetime | None, *, reveal: Reveal | None, limit: int
) -> dict[str, Any]:
    """Unmasked it is on record whose patients appeared. Masked, a rule that says something of the patient is only
    called `personal`.
    """
    from engine.domain.shapes import plain

    rules, found, cut = judged(desk, since, until)
    shown = found.unexplained[:limit]
    with desk.store.reader() as conn:
        known = reviewed(conn)
        charts = {one.chart_id: desk.store.charts.living(conn, one.chart_id) for one in shown}
    if shown:
        desk.view(reveal, sorted({f"chart:{one.chart_id}" for one in shown}))
    keys = {id_: chart.patient.key for id_, chart in charts.items() if chart is not None}
    return {
        "since": plain(since or desk.now - timedelta(days=rules.alert_days)),
        "looks": found.looks,
        "cut": cut,
        "line": rules.line,
        "version": rules.version,
        "explained": [{"reason": one, "says": says(one), "looks": n} for one, n in found.explained.items()],
        "above": sum(one.above for one in found.unexplained),
        "questions": len(found.unexplained),
        "unexplained": [_shape(desk, one, keys.get(one.chart_id), known, reveal) for one in shown],
    }


def _shape(desk: Desk, one: Question, key: str | None, known: set[int], reveal: Reveal | None) -> dict[str, Any]:
    from engine.domain.shapes import plain

    masked = reveal is None
    hits = [
        {"rule": "personal", "points": hit.points, "evidence": None}
        if masked and hit.rule in PERSONAL
        else {"rule": hit.rule, "points": hit.points, "evidence": hit.evidence}
        for hit in one.rules
    ]
    patient = None if key is None else desk.pseudonym(key) if masked else key
    return {
        **plain({name: getattr(one, name) for name in ("id", "actor", "first", "last", "number", "points", "above")}),
        "patient_key": patient,
        "rules": hits,
        "records": list(one.records),
        "reviewed": known.issuperset(one.records),
    }


def review(desk: Desk, number: int, verdict: str, words: str) -> Sequence[int]:
    """What was found when somebody asked. number: of a question. Returns the records that it was about."""
    _, found, _ = judged(desk, desk.now - timedelta(days=366), None)
    question = next((one for one in found.unexplained if one.id == number), None)
    if question is None:
        raise NotFoundError(f"there is no question {number}; `handoff audit unusual` lists them")
    desk.audit(
        REVIEWED,
        [f"record:{seq}" for seq in question.records],
        f"{verdict}: {words}",
        patients=(question.chart_id,),
    )
    return question.records
