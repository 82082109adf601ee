"""Prescriptions of pharmacies (RDE, RDS): what becomes of them, and on which list of a stay they stand."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import permutations
from zoneinfo import ZoneInfo

import pytest
from heart import Heart, adt, key

from engine.care.medications.lists import Lists, lists_of, stay_of
from engine.care.medications.prescribed import MEDICATIONS_MAX, STATES
from engine.domain.chart import Chart
from engine.domain.medication import Medication, MedicationState

ZONE = ZoneInfo("America/New_York")
STAY = {4: "E", 44: "20260301100000"}
HOME = STAY | {36: "01", 45: "20260306100000"}


def rde(
    *orders: tuple[str, ...], at: str = "20260306113000", code: str = "RDE^O11", pid3: str = "558181838^^^MRN^MR"
) -> bytes:
    lines = [
        f"MSH|^~\\&|EPIC|MAIN|HANDOFF|H|{at}||{code}|{key(code, at, *map(str, orders))[:12]}|P|2.5.1",
        f"PID|1||{pid3}||Doe^Jane||19480312|F",
        *(segment for order in orders for segment in order),
        "",
    ]
    return "\r".join(lines).encode()


def order(
    number: str,
    drug: str,
    *,
    control: str = "NW",
    at: str = "20260306093000",
    setting: str = "O",
    sig: str = "1 tablet daily",
) -> tuple[str, ...]:
    orc = ["ORC", control, "", f"{number}^RX", *[""] * 5, at, *[""] * 19, setting]
    return "|".join(orc), f"RXE||^{drug}^L|1||tablet||^{sig}", "RXR|PO^Oral"


class Pharmacy(Heart):
    """A patient who was in hospital from 1 to 6 March 2026."""

    def __init__(self) -> None:
        super().__init__()
        types = ["ADT^*", "RDE^*", "RDS^*"]
        accept = self.channel.settings.accept.model_copy(update={"types": tuple(types)})
        settings = self.channel.settings.model_copy(update={"accept": accept})
        import dataclasses

        self.channel = dataclasses.replace(self.channel, settings=settings)
        self.now = datetime(2026, 3, 6, 18, tzinfo=UTC)

    def stay(self) -> None:
        self.send(adt("A01", at="20260301100000", pv1=STAY))
        self.send(adt("A03", at="20260306100000", pv1=HOME))

    @property
    def lists(self) -> Lists:
        chart = self.chart
        stay = stay_of(chart, None, ZONE)
        assert stay is not None
        return lists_of(chart, stay, ZONE)

    @property
    def chart(self) -> Chart:
        [chart] = [one for one in self.charts.by_id.values() if one.merged_into is None]
        return chart


def named(medications: tuple[Medication, ...]) -> list[str]:
    return [one.text for one in medications]


def test_what_was_written_before_the_admission_is_on_the_home_list_and_what_was_written_for_home_on_the_other() -> None:
    at = Pharmacy()
    at.stay()
    at.send(rde(order("1", "Lisinopril 10 mg", at="20260110090000")))
    at.send(rde(order("2", "Apixaban 5 mg"), order("3", "Heparin 5000 unit", setting="I")))
    assert (named(at.lists.home), named(at.lists.discharge)) == (["Lisinopril 10 mg"], ["Apixaban 5 mg"])


@pytest.mark.parametrize("setting", ["", "O"])
def test_a_prescription_after_the_discharge_is_one_for_home_also_when_it_does_not_say_so(setting: str) -> None:
    at = Pharmacy()
    at.stay()
    at.send(rde(order("2", "Apixaban 5 mg", at="20260306103000", setting=setting)))
    assert named(at.lists.discharge) == ["Apixaban 5 mg"]


def test_a_stop_in_hospital_is_none_of_what_was_taken_at_home() -> None:
    at = Pharmacy()
    at.stay()
    at.send(rde(order("1", "Lisinopril 10 mg", at="20260110090000")))
    at.send(rde(order("9", "Lisinopril 10 mg", control="DC", at="20260305090000", setting="I")))
    assert [one.state for one in at.lists.home] == [MedicationState.ACTIVE]
    assert at.lists.discharge == ()


def test_what_was_stopped_before_the_admission_is_on_no_list_and_what_is_stopped_later_says_so() -> None:
    at = Pharmacy()
    at.stay()
    at.send(
        rde(order("1", "Lisinopril 10 mg", at="20260110090000"), order("2", "Digoxin 0.125 mg", at="20260110090000"))
    )
    at.send(rde(order("1", "Lisinopril 10 mg", control="DC", at="20260210090000")))
    at.send(rde(order("2", "Digoxin 0.125 mg", control="DC", at="20260306090000")))
    assert [(one.text, one.state) for one in at.lists.home] == [("Digoxin 0.125 mg", MedicationState.STOPPED)]


def test_a_discharge_list_is_the_home_list_of_the_next_stay() -> None:
    at = Pharmacy()
    at.stay()
    at.send(rde(order("2", "Apixaban 5 mg")))
    at.now = datetime(2026, 3, 20, 18, tzinfo=UTC)
    at.send(adt("A01", at="20260320100000", pv1={4: "E", 19: "V2^^^MRN", 44: "20260320100000"}))
    assert named(at.lists.home) == ["Apixaban 5 mg"]


def test_messages_come_to_the_same_lists_in_every_order() -> None:
    messages = [
        adt("A01", at="20260301100000", pv1=STAY),
        adt("A03", at="20260306100000", pv1=HOME),
        rde(order("1", "Lisinopril 10 mg", at="20260110090000")),
        rde(order("1", "Lisinopril 20 mg", control="XO", at="20260306090000"), at="20260306114000"),
        rde(("ORC|RE||1^RX", "RXD|1|^Lisinopril 10 mg|20260220090000|30"), code="RDS^O13", at="20260220090000"),
    ]
    found = set()
    for some in permutations(messages):
        at = Pharmacy()
        for one in some:
            at.send(one)
        [line] = at.lists.home
        found.add((line.text, line.written_at.astimezone(UTC).date(), line.filled_at))
    [(text, written, filled)] = found
    assert (text, str(written)) == ("Lisinopril 20 mg", "2026-01-10")
    assert filled is not None


def test_who_is_known_by_a_prescription_alone_has_it_on_the_home_list_when_they_are_admitted() -> None:
    at = Pharmacy()
    at.send(rde(order("1", "Lisinopril 10 mg", at="20260110090000"), at="20260110090000"))
    at.stay()
    assert named(at.lists.home) == ["Lisinopril 10 mg"]


@pytest.mark.parametrize(
    ("segments", "error"),
    [
        (("ORC|NW", "RXE||^Lisinopril|1||tablet"), "order-number-missing"),
        (("ORC|NW||1^RX",), "medication-missing"),
        (("ORC|NW||1^RX", "RXE|||1||tablet"), "medication-missing"),
        (("RXE||^Lisinopril|1||tablet",), "order-missing"),
    ],
)
def test_a_prescription_that_names_no_medicine_or_number_is_a_dead_letter(
    segments: tuple[str, ...], error: str
) -> None:
    at = Pharmacy()
    at.stay()
    outcome = at.send(rde(segments))
    assert outcome.dead_letter is not None
    assert outcome.dead_letter.error == error


def test_words_are_kept_as_real_pharmacies_send_them() -> None:
    """Strength in the units, the name in the original text alone, directions that repeat."""
    at = Pharmacy()
    at.stay()
    clopidogrel = "|".join(
        ["RXE", "", f"{'^' * 8}Clopidogrel 75 mg tablet", "1", "", "75 mg", "", "^po bid x 5d~^with food"]
    )
    furosemide = "RXE|1^BID|123^Furosemide 40 MG^NDC|1|2|tablet^Tablet|TAB^Tablet"
    at.send(rde(
        (f"ORC|NW||7^RX||||||20260306093000{'|' * 20}O", clopidogrel),
        ("ORC|NW|8^P|||||||20260306093000", furosemide, "TQ1|1||QHS", "RXR|PO"),
    ))  # fmt: skip
    first, second = at.chart.medications
    assert (first.text, first.amount, first.directions, first.outpatient) == (
        "Clopidogrel 75 mg tablet", "75 mg", ("po bid x 5d", "with food"), True,
    )  # fmt: skip
    assert (second.text, second.code, second.system, second.amount, second.form) == (
        "Furosemide 40 MG", "123", "NDC", "1-2 Tablet", "Tablet",
    )  # fmt: skip
    assert (second.frequency, second.outpatient) == ("QHS", None)
    assert (second.strength, second.order, second.route) == (None, "8", "PO")


def test_a_change_of_an_order_is_a_change_and_a_hold_a_hold() -> None:
    at = Pharmacy()
    at.stay()
    at.send(rde(order("1", "Warfarin 5 mg")))
    at.send(rde(order("1", "Warfarin 5 mg", control="HD", at="20260306094000"), at="20260306114000"))
    [line] = at.lists.discharge
    assert line.state is MedicationState.HELD
    at.send(rde(order("1", "Warfarin 5 mg", control="RL", at="20260306095000"), at="20260306115000"))
    assert at.lists.discharge[0].state is MedicationState.ACTIVE


def test_too_many_prescriptions_leave_out_the_oldest_and_say_so() -> None:
    at = Pharmacy()
    at.stay()
    at.send(rde(*(order(str(n), f"Lisinopril {n} mg", at="20260110090000") for n in range(300))))
    outcome = at.send(rde(*(order(f"x{n}", f"Apixaban {n} mg") for n in range(300)), at="20260306114000"))
    assert [item.kind for item in outcome.quality] == ["medications_too_many"]
    assert len(at.chart.medications) == MEDICATIONS_MAX
    assert len(at.lists.discharge) == 300


def test_each_control_code_of_an_order_means_a_state() -> None:
    """HL7 table 0119: what begins or goes on, what waits, what ends."""
    assert {STATES[one] for one in ("NW", "XO", "RF", "RL")} == {MedicationState.ACTIVE}
    assert {STATES[one] for one in ("HD", "OH")} == {MedicationState.HELD}
    assert {STATES[one] for one in ("DC", "CA", "OD")} == {MedicationState.STOPPED}
