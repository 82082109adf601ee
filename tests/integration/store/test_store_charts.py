"""Finding charts by what a message says of the patient."""

from __future__ import annotations

from store_builders import chart, outcome, patient, record

from engine.domain.patient import Identifier


def of_type(type_, number=1):
    return Identifier(value=f"P{number}", authority="MRN", type=type_)


def found(store, *identities, visits=()):
    return store.read_now(lambda conn: store.charts.load(conn, identities, visits))


def test_the_same_number_under_another_identifier_type_is_somebody_else(store):
    first = chart("chart-1", 1, patient=patient(1, identifiers=(of_type("MR"),)))
    second = chart("chart-2", 2, patient=patient(2, identifiers=(of_type("PI"),)))
    record(store, outcome(1, first), outcome(2, second))
    assert found(store, ("MRN", "MR", "P1")).by_id == {"chart-1": first}
    assert found(store, ("MRN", "PI", "P1")).by_id == {"chart-2": second}
    assert found(store, ("MRN", "PN", "P1")).by_id == {}
    both = found(store, *(("MRN", type_, "P1") for type_ in ("MR", "PI", "PN", "")))
    assert both.by_id == {"chart-1": first, "chart-2": second}
    assert both.aliases == {("MRN", "MR", "P1"): "chart-1", ("MRN", "PI", "P1"): "chart-2"}


def test_a_colon_in_an_authority_or_a_number_leads_to_nobody_else(store):
    colon = Identifier(value="B:C", authority="A", type="MR")
    record(store, outcome(1, chart(patient=patient(1, identifiers=(colon,)))))
    assert found(store, ("A:B", "MR", "C")).by_id == {}
    assert list(found(store, ("A", "MR", "B:C")).by_id) == ["chart-1"]


def test_a_visit_leads_to_its_chart_whoever_the_message_names(store):
    record(store, outcome(1, chart("chart-1", 1)), outcome(2, chart("chart-2", 2)))
    charts = found(store, ("MRN", "MR", "P2"), visits=("MRN:V1",))
    assert set(charts.by_id) == {"chart-1", "chart-2"}
    assert charts.visits["MRN:V1"] == "chart-1"
