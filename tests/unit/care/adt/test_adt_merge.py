"""A40: two charts that are one patient."""

from __future__ import annotations

from ward import Ward, mrn

from engine.care.adt.event import Meaning, Merge
from engine.care.adt.merge import apply_merges


def merge(survivor: str, merged: str) -> Merge:
    return Merge(
        survivor=mrn(survivor), survivor_id=f"chart-{survivor}", merged=mrn(merged), merged_id=f"chart-{merged}"
    )


def test_a40_moves_encounters_and_makes_the_old_identity_an_alias(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1)
    ward.apply(Meaning.ADMIT, 1, identifiers=(mrn("2"),), chart_id="chart-2", visit="MRN:V2", visit_number="V2")
    applied = apply_merges(ward.charts, (merge("2", "1"),), ward.dispositions, 1)
    survivor = applied.chart
    assert survivor is not None
    assert survivor.id == "chart-2"
    assert {e.key for e in survivor.encounters} == {"MRN:V1", "MRN:V2"}
    assert survivor.patient.merged_from == ("MRN:1",)
    for chart in (*applied.others, survivor):
        ward.charts.add(chart)
    found = ward.charts.find(mrn("1"))
    assert found is not None
    assert found.id == "chart-2"


def test_a40_does_not_bring_back_what_the_survivor_had_cleared_since(ward: Ward) -> None:
    phones = ("+12125550100",)
    ward.apply(Meaning.PERSON, 1, patient={"phones": phones, "language": "en"}, identifiers=(mrn("2"),), chart_id="c2")
    ward.apply(Meaning.PERSON, 2, patient={"phones": None})
    survivor = apply_merges(ward.charts, (merge("1", "2"),), ward.dispositions, 1).chart
    assert survivor is not None
    assert survivor.patient.phones == ()
    assert survivor.patient.language == "en"


def test_a40_of_an_unknown_old_identity_still_leaves_an_alias(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1)
    applied = apply_merges(ward.charts, (merge("1", "9"),), ward.dispositions, 1)
    for chart in (*applied.others, *([applied.chart] if applied.chart else [])):
        ward.charts.add(chart)
    found = ward.charts.find(mrn("9"))
    assert found is not None
    assert found.id == "chart-1"


def test_a40_twice_is_the_same_as_once(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1)
    first = apply_merges(ward.charts, (merge("1", "9"),), ward.dispositions, 1)
    for chart in (*first.others, *([first.chart] if first.chart else [])):
        ward.charts.add(chart)
    second = apply_merges(ward.charts, (merge("1", "9"),), ward.dispositions, 1)
    assert second.chart == first.chart
    assert second.others == []


def test_a40_chains_in_one_message_end_at_the_last_survivor(ward: Ward) -> None:
    ward.apply(Meaning.ADMIT, 1)
    applied = apply_merges(ward.charts, (merge("2", "1"), merge("3", "2")), ward.dispositions, 1)
    for chart in (*applied.others, *([applied.chart] if applied.chart else [])):
        ward.charts.add(chart)
    assert {ward.charts.find(mrn(v)).id for v in ("1", "2", "3")} == {"chart-3"}  # type: ignore[union-attr]
