"""The table of trigger events."""

from __future__ import annotations

from ward import CARE

from engine.care.adt.event import Meaning, load_events
from engine.yamlfile import parse


def test_the_shipped_event_table_loads_and_leaves_unknown_triggers_alone() -> None:
    file = CARE / "adt-events.yaml"
    events = load_events(parse(file.read_text(), file.name))
    assert events.of("A01") is Meaning.ADMIT
    assert events.of("A40") is Meaning.MERGE
    assert events.of("A45") is Meaning.MOVE_VISIT
    assert events.of("A06") is Meaning.TO_INPATIENT
    assert events.of("A20") is Meaning.RECORD
    assert events.of("Z01") is Meaning.RECORD
