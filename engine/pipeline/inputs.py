"""What a decision about a plan has looked at: the fields of the stay, and which message has said each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from engine.domain.chart import Chart
from engine.domain.moment import Moment
from engine.domain.why import Input, Reason, What, Why

_OF_PLAN: Final = ("class_", "disposition", "discharged_at")
_FIELDS: Final[Mapping[Reason, tuple[str, ...]]] = {
    Reason.CANCELLED: ("status",),
    Reason.TAKEN_BACK: ("status",),
    Reason.DECEASED: ("disposition",),
}
"""Where it is not all of these."""
_NAMES: Final = {"class_": "class"}
_WITHOUT: Final = frozenset(
    {Reason.PLAN_SAME, Reason.NO_VISIT, Reason.NO_PROTOCOL, Reason.NOT_DISCHARGED, Reason.EARLIER_WAITS}
)
"""What they say follows from the message alone."""


def with_inputs(why: Why, chart: Chart, stay: str | None) -> Why:
    """The reason with what it rests on. chart: as it was decided on. stay: that it is about."""
    if why.what is not What.PLAN or why.reason in _WITHOUT:
        return why
    return msgspec.structs.replace(why, inputs=tuple(_inputs(why.reason, chart, stay)))


def _inputs(reason: Reason, chart: Chart, stay: str | None) -> Iterator[Input]:
    if reason is Reason.DECEASED:
        at = chart.stamps.get("deceased")
        yield Input(name="deceased", value=True, entry=0 if at is None else at[1])
        if at is not None:
            return
    if reason is Reason.TOO_YOUNG:
        born, at = chart.patient.birth_date, chart.stamps.get("birth_date")
        yield Input(name="birth_date", value=None if born is None else born.text, entry=0 if at is None else at[1])
    encounter = chart.encounter(stay) if stay is not None else None
    if encounter is None:
        return
    stamps = chart.encounter_stamps.get(encounter.key, {})
    if reason is Reason.NOT_IN_ROLLOUT:
        ward, at = encounter.location, stamps.get("location")
        yield Input(
            name="unit", value=None if ward is None else ward.point_of_care, entry=0 if at is None else at[1],
            location="PV1-3",
        )  # fmt: skip
    for field in _FIELDS.get(reason, _OF_PLAN):
        value: Any = getattr(encounter, field)
        stamp = stamps.get(field)
        yield Input(
            name=_NAMES.get(field, field),
            value=value.text if isinstance(value, Moment) else value,
            entry=0 if stamp is None else stamp[1],
            location="MSH-9" if field == "status" else encounter.time_sources.get(field, ""),
        )
