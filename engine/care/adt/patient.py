"""What an ADT event does to a chart beyond what it says of the person: the visit that it speaks of."""

from __future__ import annotations

from typing import Final

from engine.care.adt.event import Event, Meaning
from engine.care.adt.moves import host_of, noted_class_change, with_former_stay
from engine.care.adt.says import REGISTERING, STATUS
from engine.care.adt.stay import apply_visit
from engine.care.dispositions import Dispositions
from engine.care.event import Applied
from engine.domain.chart import Chart, Charts
from engine.domain.hold import HoldCode

_NO_VISIT_CLASS: Final = "N"
"""PV1-2 `N`, not applicable: the message speaks of no visit (HL7 table 0004)."""


def on_its_visit(chart: Chart, charts: Charts, event: Event, dispositions: Dispositions, applied: Applied) -> Chart:
    """The chart with what the event says of the visit that it speaks of, if of any."""
    if event.meaning not in STATUS:
        return chart
    if event.has_visit and event.encounter.get("class_") != _NO_VISIT_CLASS:
        host = host_of(chart, charts, event, dispositions)
        if host is None:
            return apply_visit(chart, charts, event, dispositions, applied)
        owner, news = host
        chart, owner = with_former_stay(chart, owner, charts, event, dispositions, applied)
        applied.others.append(apply_visit(owner, charts, news, dispositions, applied))
        applied.note = applied.note or "late news of a stay that is another patient's now: it is told of that one"
        return noted_class_change(chart, event)
    if event.meaning is not Meaning.UPDATE:
        applied.note = "no visit in the message (PV1 missing or class N)"
        # A class of N says that there is no visit: of a registration it is an answer, of all others a contradiction.
        asserted = STATUS[event.meaning]
        if asserted is not None and not (event.has_visit and event.meaning in REGISTERING):
            applied.hold(HoldCode.VISIT_MISSING, location="PV1", asserts=event.assertion(asserted))
    return chart
