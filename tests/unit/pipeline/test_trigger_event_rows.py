"""Care rules, section 1, "what each trigger event does": a test for each row of stays, named after it.

Each is told what has been before, the event, what the chart says after it, and whether there is a plan.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from test_every_event import ICU, WARD, Stay

from engine.domain.encounter import EncounterStatus

S = EncounterStatus
HOME = {"_36": "01"}
Told = tuple[str, dict[str, str]]


class Row(NamedTuple):
    before: tuple[Told, ...]
    event: Told
    says: dict[str, Any]
    plan: bool = False


ROWS: dict[str, Row] = {
    "A01: open inpatient encounter": Row((), ("A01", {"_2": ""}), {"status": S.ACTIVE, "class_": "I"}),
    "A04: open outpatient or ED encounter, class from PV1-2": Row(
        (), ("A04", {"_2": "E"}), {"status": S.ACTIVE, "class_": "E"}
    ),
    "A05: pre-admit": Row((), ("A05", {}), {"status": S.PLANNED}),
    "A14: pending admit": Row((), ("A14", {}), {"status": S.PLANNED}),
    "A02: transfer": Row((("A01", {}),), ("A02", {"_3": ICU}), {"status": S.ACTIVE, "place": "ICU"}),
    "A12: cancel transfer, PV1-3 is the place before the transfer": Row(
        (("A01", {}), ("A02", {"_3": ICU})), ("A12", {"_3": WARD}), {"status": S.ACTIVE, "place": "WARD"}
    ),
    "A03: end of the encounter, and a plan for an inpatient who goes home": Row(
        (("A01", {}),), ("A03", HOME), {"status": S.FINISHED, "disposition": "01"}, plan=True
    ),
    "A03: end of the encounter, also for ED and outpatients, without a plan": Row(
        (("A04", {"_2": "E"}),), ("A03", HOME | {"_2": "E"}), {"status": S.FINISHED, "class_": "E"}
    ),
    "A06: outpatient to inpatient": Row((("A04", {"_2": "O"}),), ("A06", {}), {"status": S.ACTIVE, "class_": "I"}),
    "A06 after the end: re-decide": Row(
        (("A04", {"_2": "O"}), ("A03", HOME | {"_2": "O"})),
        ("A06", HOME),
        {"status": S.FINISHED, "class_": "I"},
        plan=True,
    ),
    "A06 after the end, of a patient who is in a bed now: re-decide": Row(
        (("A04", {"_2": "E"}), ("A03", HOME | {"_2": "E"})), ("A06", {}), {"status": S.ACTIVE, "class_": "I"}
    ),
    "A07: inpatient to outpatient": Row((("A01", {}),), ("A07", {"_2": "O"}), {"status": S.ACTIVE, "class_": "O"}),
    "A07 after the end: re-decide": Row(
        (("A01", {}), ("A03", HOME)), ("A07", {"_2": "O"}), {"status": S.FINISHED, "class_": "O"}
    ),
    "A08: update of the episode": Row((("A01", {}),), ("A08", {"_3": ICU}), {"status": S.ACTIVE, "place": "ICU"}),
    "A11: cancel admit": Row((("A01", {}),), ("A11", {}), {"status": S.CANCELLED}),
    "A11: cancel admit of a stay with a plan": Row((("A01", {}), ("A03", HOME)), ("A11", {}), {"status": S.CANCELLED}),
    "A13: cancel discharge reopens and takes the plan back": Row(
        (("A01", {}), ("A03", HOME)), ("A13", {}), {"status": S.ACTIVE, "discharged_at": None, "disposition": None}
    ),
    "A16: pending discharge, a plan and not a discharge": Row(
        (("A01", {}),), ("A16", HOME), {"status": S.ACTIVE, "discharge_pending": True, "discharged_at": None}
    ),
    "A25: its cancel": Row((("A01", {}), ("A16", {})), ("A25", {}), {"status": S.ACTIVE, "discharge_pending": False}),
    "A21: leave of absence begins": Row((("A01", {}),), ("A21", {}), {"status": S.ON_LEAVE}),
    "A22: leave of absence ends": Row((("A01", {}), ("A21", {})), ("A22", {}), {"status": S.ACTIVE}),
    "A38: cancel pre-admit": Row((("A05", {}),), ("A38", {}), {"status": S.CANCELLED}),
    "A27: cancel pending admit": Row((("A14", {}),), ("A27", {}), {"status": S.CANCELLED}),
    "A15: pending transfer": Row((("A01", {}),), ("A15", {"_42": ICU}), {"status": S.ACTIVE, "place": "WARD"}),
    "A26: cancel pending transfer": Row(
        (("A01", {}), ("A15", {"_42": ICU})), ("A26", {}), {"status": S.ACTIVE, "pending_location": None}
    ),
    "A09: departing": Row((("A01", {}),), ("A09", {"_3": ICU}), {"in_transit": True, "place": "WARD"}),
    "A33: cancel departing": Row((("A01", {}), ("A09", {})), ("A33", {}), {"in_transit": False}),
    "A10: arriving": Row((("A01", {}), ("A09", {})), ("A10", {}), {"in_transit": False}),
    "A32: cancel arriving": Row((("A01", {}), ("A09", {}), ("A10", {})), ("A32", {}), {"in_transit": True}),
    "A52: cancel leave": Row((("A01", {}), ("A21", {})), ("A52", {}), {"status": S.ACTIVE, "leave_began_at": None}),
    "A53: cancel return": Row((("A01", {}), ("A21", {}), ("A22", {})), ("A53", {}), {"status": S.ON_LEAVE}),
    "A54: change attending doctor": Row((("A01", {"_7": "1"}),), ("A54", {"_7": "2"}), {"doctor": "2"}),
    "A55: cancel change attending doctor": Row(
        (("A01", {"_7": "1"}), ("A54", {"_7": "2"})), ("A55", {"_7": "1"}), {"doctor": "1"}
    ),
    "A61: change consulting doctor": Row((("A01", {}),), ("A61", {"_9": "3"}), {"status": S.ACTIVE}),
    "A62: cancel change consulting doctor": Row((("A01", {}), ("A61", {})), ("A62", {}), {"status": S.ACTIVE}),
    "A60: allergies": Row((("A01", {}),), ("A60", {}), {"status": S.ACTIVE}),
}


@pytest.mark.parametrize("row", ROWS)
def test_what_each_trigger_event_does(row: str) -> None:
    before, (event, said), says, plan = ROWS[row]
    first, *rest = [*before, (event, said)]
    stay = Stay(first[0], **first[1])
    for trigger, fields in rest:
        assert stay.send(trigger, **{"_3": WARD} | fields) == []
    now = stay.now
    found = {"place": stay.place, "doctor": now.attending.id if now.attending else None}
    assert {name: found[name] if name in found else getattr(now, name) for name in says} == says
    assert bool(stay.plan) is plan
