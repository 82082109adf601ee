"""Test data in the heart: what it makes, what it never touches, and what becomes of it when somebody is real."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from heart import Heart, adt, merge

from engine.access.copies import Terms
from engine.domain.delivery import TEST_DATA
from engine.domain.hold import HoldCode
from engine.domain.message import EntryState
from engine.hl7v2.header import read_header
from engine.pipeline.acceptance import Rules, is_test
from engine.pipeline.copies import of_test

ADMITTED = {7: "2", 44: "20260306110000"}
HIGH = {36: "01", 45: "20260306130000", 44: "20260220080000", 4: "E"}
HOME = {36: "01", 44: "20260303110000", 45: "20260306120000"}
OTHER = "990001^^^MRN^MR"


class Sender(Heart):
    """Sends messages as test data, or as live ones."""

    def test(self, payload: bytes, **more):
        return self.work(msgspec.structs.replace(self.entry(payload), test=True, **more))

    def of(self, key: str = "MRN:558181838"):
        return next((one for one in self.charts.by_id.values() if one.patient.key == key and not one.merged_into), None)


@pytest.mark.parametrize("said", ["T", "D", "T^A", "D^T", "t"])
def test_msh_11_says_that_a_message_is_test_data(said):
    header = read_header(adt("A01").replace(b"|P|2.5.1", f"|{said}|2.5.1".encode()))
    assert is_test(Rules.of(Heart().channel.settings), header)


@pytest.mark.parametrize("said", ["P", "P^T", ""])
def test_a_live_message_is_test_data_on_a_channel_for_tests_alone(said):
    header = read_header(adt("A01").replace(b"|P|2.5.1", f"|{said}|2.5.1".encode()))
    assert not is_test(Rules.of(Heart().channel.settings), header)
    assert is_test(Rules.of(Heart(test=True).channel.settings), header)
    assert is_test(Rules.of(Heart(test=True).channel.settings), None)


def test_a_chart_that_a_test_message_has_made_is_one_of_test_data_with_all_that_follows_but_a_page():
    heart, real = Sender(), Heart()
    outcome = heart.test(adt("A03", pv1=HIGH))
    live = real.send(adt("A03", pv1=HIGH))
    (chart,) = outcome.charts
    (other,) = live.charts
    assert (chart.test, outcome.test, other.test, live.test) == (True, True, False, False)
    assert [task.kind for task in chart.tasks] == [task.kind for task in other.tasks]
    assert other.pages
    assert chart.pages == ()


def test_all_of_it_is_withheld_from_destinations_that_take_none_of_it():
    heart = Sender()
    outcome = heart.test(adt("A03", pv1=HOME))
    assert {(one.kept, one.marked) for one in outcome.deliveries} == {(TEST_DATA, True)}
    terms = {"files": Terms(name="files", test_data=True)}
    taken = of_test(outcome.deliveries, dataclasses.replace(heart.channel, terms=terms))
    assert {(one.destination, one.kept, one.marked) for one in taken} == {("files", None, True)}


LIVE = [adt("A01", pv1=ADMITTED), adt("A28"), adt("A05", pv1=ADMITTED)]


@pytest.mark.parametrize("live", LIVE, ids=["A01", "A28", "A05"])
@pytest.mark.parametrize(
    "test",
    [
        adt("A03", at="20260307120000", pv1=HOME),
        adt("A08", at="20260307120000", pid={5: "Changed^Name"}),
        adt("A31", at="20260307120000", pid={30: "Y", 29: "20260307"}),
        adt("A29", at="20260307120000"),
        adt("A11", at="20260307120000", pv1=ADMITTED),
        merge("558181838", "990001"),
        merge("990001", "558181838"),
        adt("A47", at="20260307120000", segments=("MRG|558181838^^^MRN^MR",), pid3=OTHER),
        adt("A24", at="20260307120000", segments=(f"PID|2||{OTHER}||Roe^Ann",)),
        adt("A08", at="20260307120000", pid3=f"{OTHER}~558181838^^^MRN^MR"),
    ],
    ids=["A03", "A08", "A31", "A29", "A11", "A40 into", "A40 from", "A47", "A24", "second number"],
)
def test_a_test_message_never_touches_a_living_patient_and_a_person_is_asked(live, test):
    heart = Sender()
    heart.send(live)
    before = dict(heart.charts.by_id)
    outcome = heart.test(test)
    assert heart.charts.by_id == before
    assert outcome.state in {EntryState.PROCESSED, EntryState.DEAD}
    assert outcome.test
    if outcome.state is EntryState.PROCESSED:
        assert [(one.code, one.location) for one in outcome.holds] == [(HoldCode.TEST_MESSAGE, "MSH-11")]
        assert outcome.chart_id == heart.of().id
        assert (outcome.charts, outcome.facts, outcome.fallen) == ((), (), ())
        assert {one.kept for one in outcome.deliveries} <= {TEST_DATA}


def test_a_stay_of_a_living_patient_is_not_touched_by_another_number_of_a_test():
    heart = Sender()
    heart.send(adt("A01", pv1=ADMITTED))
    outcome = heart.test(adt("A03", at="20260307120000", pid3=OTHER, pv1=HOME))
    assert [one.code for one in outcome.holds] == [HoldCode.TEST_MESSAGE]
    assert len(heart.charts.by_id) == 1


@pytest.mark.parametrize("live", LIVE, ids=["A01", "A28", "A05"])
def test_a_live_message_takes_a_test_chart_over_and_nothing_is_left_of_what_tests_have_said(live):
    heart, real = Sender(), Heart()
    heart.test(adt("A03", at="20261231120000", pid3="558181838^^^MRN^MR~777^^^XX^PI", pv1=HOME, pid={5: "Test^Zz"}))
    made = heart.of()
    assert made.tasks
    outcome = heart.send(live)
    real._id = heart._id - 1
    real.send(live)
    chart, other = heart.of(), next(iter(real.charts.by_id.values()))
    assert not chart.test
    assert (chart.id, chart.version) == (made.id, made.version + 1)
    same = {"id": "", "version": 0}
    assert msgspec.structs.replace(chart, **same) == msgspec.structs.replace(other, **same)
    assert "test-data-left" in [one.kind for one in outcome.effects]
    assert [(one.chart_id, one.grounds) for one in outcome.fallen] == [(made.id, None)]
    assert not outcome.test
    assert {one.kept for one in outcome.deliveries} <= {None}
    heart.send(adt("A28", pid3="777^^^XX^PI~778^^^MRN^MR", pid={5: "Roe^Ann"}))  # whose number it was for tests alone
    assert len(heart.charts.by_id) == 2


def test_a_live_stay_that_a_test_patient_has_is_the_living_patients():
    heart = Sender()
    heart.test(adt("A01", pid3=OTHER, pv1=ADMITTED))
    heart.send(adt("A01", pv1=ADMITTED))
    assert [one.key for one in heart.of().encounters] == ["MRN:V1"]
    left = heart.of("MRN:990001")
    assert (left.test, left.encounters) == (True, ())


def test_a_live_number_of_another_type_is_not_kept_out_by_a_test_patient():
    heart = Sender()
    heart.test(adt("A28", pid3="558181838^^^MRN^PI"))
    outcome = heart.send(adt("A28", pid3="558181838^^^MRN^MR"))
    assert outcome.state is EntryState.PROCESSED
    assert [one.type for one in heart.of().patient.identifiers] == ["MR"]
    assert not heart.of().test


def test_test_patients_are_merged_with_each_other_as_others_are():
    heart = Sender()
    heart.test(adt("A01", pv1=ADMITTED))
    heart.test(adt("A28", pid3=OTHER))
    outcome = heart.test(merge("990001", "558181838"))
    assert outcome.holds == ()
    survivor = heart.of("MRN:990001")
    assert survivor.test
    assert survivor.encounters
    heart.send(adt("A28", pid3=OTHER))
    survivor = heart.of("MRN:990001")
    assert (survivor.test, survivor.encounters) == (False, ())


def test_a_live_merge_of_a_test_patient_brings_a_living_one_nothing_but_the_number():
    heart = Sender()
    heart.send(adt("A01", pv1=ADMITTED))
    heart.test(adt("A03", pid3=OTHER, pv1=HOME | {19: "V9^^^MRN"}))
    heart.send(merge("558181838", "990001"))
    chart = heart.of()
    assert not chart.test
    assert [one.key for one in chart.encounters] == ["MRN:V1"]
    assert chart.tasks == ()
    assert "MRN:990001" in {one.key for one in chart.patient.identifiers}
