"""Senders that never say where patients go (PV1-36): one item on the data-quality list, and no task for each patient.

A discharge that says nothing asks a person. A sender that has left it out of so many stays in a row does not fill
the field, and tasks for each of its patients would bury those that mean something. From then on the discharges are
counted (`disposition_missing`), withheld with the reason, and listed by `handoff gaps`, until the sender says it once,
or the channel says what a blank one means (`blank_disposition`).
"""

from __future__ import annotations

from typing import Final

from engine.domain.chart import Charts
from engine.domain.outcome import Outcome
from engine.domain.quality import QualityKind
from engine.pipeline.prepared import Prepared

ASKED_IN_A_ROW_MAX: Final = 20
"""So many discharges in a row of one sender without a disposition ask a person; the next ones are only counted."""
SENDERS_MAX: Final = 1000
"""Of so many senders the discharges are counted; those of any further one always ask."""


def nobody_is_asked(prepared: Prepared, charts: Charts) -> bool:
    """Whether the sender of a message never says where patients go. A replay asks, as a person has wanted it."""
    if prepared.entry.replay_of is not None:
        return False
    return any(len(charts.unsaid.get(event.sender, ())) >= ASKED_IN_A_ROW_MAX for event in prepared.events)


def count_unsaid(prepared: Prepared, outcome: Outcome, charts: Charts) -> None:
    """Count the stay that a message has ended, if it did: once, however often that is sent."""
    if prepared.entry.replay_of is not None:
        return
    for event in prepared.events:
        if event.ends_stay and event.disposition:
            charts.unsaid.pop(event.sender, None)
        elif any(item.kind is QualityKind.DISPOSITION_MISSING for item in outcome.quality):
            known = charts.unsaid.get(event.sender, frozenset())
            stay = outcome.encounter_key
            if stay is not None and len(known) < ASKED_IN_A_ROW_MAX and (known or len(charts.unsaid) < SENDERS_MAX):
                charts.unsaid[event.sender] = known | {stay}
