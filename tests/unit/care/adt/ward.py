"""Charts and events for the tests of what ADT events do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moments import moments

from engine.care.adt.event import Event, Meaning
from engine.care.adt.patient import on_its_visit
from engine.care.dispositions import Dispositions
from engine.care.event import Applied
from engine.care.patient import apply_event
from engine.domain.chart import Charts
from engine.domain.moment import Moment, Told
from engine.domain.patient import Identifier, Name

CARE = Path(__file__).parents[4] / "mappings" / "care"


def mrn(value: str = "1", type_: str = "MR", authority: str = "MRN") -> Identifier:
    return Identifier(value=value, authority=authority, type=type_)


def event(meaning: Meaning, at: float, **changes: Any) -> Event:
    values: dict[str, Any] = {
        "meaning": meaning,
        "at": (at, 0),
        "chart_id": "chart-1",
        "identifiers": (mrn(),),
        "patient": {"name": Name(family="Doe")},
        "encounter": {"class_": "I"},
        "visit": "MRN:V1",
        "visit_number": "V1",
        "has_visit": True,
        "event_time": (f"2026-03-{int(at):02d}T10:00:00-05:00", "EVN-2"),
    }
    values |= changes
    at, source = values["event_time"]
    said = {part: moments(values[part]) for part in ("patient", "encounter")}
    return Event(**(values | said | {"event_time": Told(Moment.of(at), source)}))


class Ward:
    """Charts, and events applied to them one after the other."""

    def __init__(self, dispositions: Dispositions) -> None:
        self.charts = Charts()
        self.dispositions = dispositions

    def apply(self, meaning: Meaning, at: float, **changes: Any) -> Applied:
        applied = apply_event(self.charts, event(meaning, at, **changes), self.dispositions, on_its_visit)
        assert applied.chart is not None
        self.charts.add(applied.chart)
        return applied

    def encounter(self, key: str = "MRN:V1") -> Any:
        chart = self.charts.find(mrn())
        assert chart is not None
        return chart.encounter(key)
