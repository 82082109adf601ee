"""Texts to patients: what is planned, what goes, and the one reason of each that does not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from heart import merge
from scheduling import siu
from texting import OTHER, PHONE, PLAIN, Texting, local

from engine.domain.cause import TextSettled

VISIT = "20260310093000"


def booked(ward: Texting, at: str = "20260306123000", start: str = VISIT, trigger: str = "S12", **more: str) -> None:
    ward.send(siu(trigger, at=at, start=start, **more))


@pytest.fixture
def ward() -> Texting:
    return Texting()


def test_each_text_that_the_series_expects_is_an_item_from_the_discharge_on(ward: Texting) -> None:
    ward.discharge()
    assert ward.said() == dict.fromkeys(("day-0", "day-1", "day-2"), ("planned", None))
    booked(ward)
    assert ward.said()["day-before"] == ("planned", None)


def test_they_go_at_their_time_each_once(ward: Texting) -> None:
    ward.discharge()
    booked(ward)
    ward.until("20260312120000")
    assert ward.said() == dict.fromkeys(("day-0", "day-2", "day-before"), ("sent", "sent")) | {
        "day-1": ("expired", "sent")  # it asked, and nobody has answered
    }
    assert [(at.isoformat(), to) for at, to, _ in ward.sent] == [
        ("2026-03-06T12:30:01-05:00", PHONE), ("2026-03-07T15:00:00+00:00", PHONE),
        ("2026-03-08T14:00:00+00:00", PHONE), ("2026-03-09T14:00:00+00:00", PHONE),
    ]  # fmt: skip


def reasons(ward: Texting) -> set[tuple[str, str | None]]:
    return set(ward.said().values())


def test_a_discharge_that_is_taken_back_takes_its_texts_with_it(ward: Texting) -> None:
    ward.discharge()
    ward.tell("A13", "20260306121000")
    assert reasons(ward) == {("retracted", "reversed")}
    ward.until("20260320120000")
    assert ward.sent == []


def test_said_again_it_has_texts_of_its_own_and_the_same_is_not_written_twice_a_day(ward: Texting) -> None:
    ward.discharge()
    ward.until("20260306123500")
    ward.tell("A13", "20260306130000")
    ward.discharge("20260306140000")
    ward.until("20260312120000")
    assert [text.state.value for text in ward.chart().texts if text.step == "day-0"] == ["sent", "withheld"]
    assert ward.said()["day-0"] == ("withheld", "duplicate")
    assert ward.said()["day-2"] == ("sent", "sent")


def test_an_admission_that_is_cancelled_leaves_none(ward: Texting) -> None:
    ward.discharge()
    ward.tell("A11", "20260306121000")
    ward.until("20260320120000")
    assert reasons(ward) == {("retracted", "reversed")}
    assert ward.sent == []


def test_a_visit_that_is_moved_has_one_text_for_its_new_time(ward: Texting) -> None:
    ward.discharge()
    booked(ward)
    booked(ward, "20260307080000", "20260312140000", "S13")
    before = [text for text in ward.chart().texts if text.step == "day-before"]
    assert [(text.state.value, text.reason) for text in before] == [("retracted", "superseded"), ("planned", None)]
    ward.until("20260315120000")
    assert [body for body in ward.bodies if "Tomorrow" in body] == ["day-before d1 Tomorrow 2:00 PM"]


def test_moved_there_and_back_it_has_one_all_the_same(ward: Texting) -> None:
    ward.discharge()
    booked(ward)
    ward.until("20260307075500")
    booked(ward, "20260307080000", "20260312140000", "S13")
    booked(ward, "20260307090000", VISIT, "S13")
    ward.until("20260315120000")
    assert sum("Tomorrow" in body for body in ward.bodies) == 1


def test_a_visit_that_is_moved_after_the_text_has_another_one(ward: Texting) -> None:
    ward.discharge()
    booked(ward)
    ward.until("20260309120000")
    booked(ward, "20260309130000", "20260313100000", "S13")
    ward.until("20260315120000")
    assert [body for body in ward.bodies if "Tomorrow" in body] == [
        "day-before d1 Tomorrow 9:30 AM", "day-before d1 Tomorrow 10:00 AM",
    ]  # fmt: skip


def test_a_visit_that_is_cancelled_has_none(ward: Texting) -> None:
    ward.discharge()
    booked(ward)
    booked(ward, "20260307080000", trigger="S15")
    assert ward.said()["day-before"] == ("retracted", "reversed")
    ward.until("20260315120000")
    assert not any("Tomorrow" in body for body in ward.bodies)


def test_a_text_about_a_visit_waits_for_one_to_be_booked(ward: Texting) -> None:
    ward.discharge()
    ward.until("20260307110000")
    assert ward.said()["day-1"] == ("planned", None)
    assert ward.texts()["day-1"].detail == "empty: appointment_day, appointment_time"
    booked(ward, "20260307120000")
    ward.until("20260307130000")
    assert ward.said()["day-1"] == ("sent", "sent")
    assert ward.texts()["day-1"].appointment == ward.chart().appointments[0].id
    assert ward.texts()["day-1"].answer_by is not None


def test_where_none_is_booked_in_time_it_is_too_late(ward: Texting) -> None:
    ward.discharge()
    ward.until("20260312120000")
    assert ward.said()["day-1"] == ("withheld", "too_late")


def test_a_death_ends_them_all(ward: Texting) -> None:
    ward.discharge()
    ward.tell("A31", "20260306140000", pid={29: "20260306130000", 30: "Y"})
    ward.until("20260320120000")
    assert ward.said()["day-2"] == ("retracted", "deceased")
    assert len(ward.sent) <= 1  # the one of before


def test_a_death_that_was_none_lets_them_go_on(ward: Texting) -> None:
    ward.discharge()
    ward.tell("A31", "20260306121000", pid={29: "20260306120500", 30: "Y"})
    assert reasons(ward) == {("retracted", "deceased")}
    ward.tell("A31", "20260306122000", pid={29: '""', 30: "N"})
    ward.until("20260312120000")
    assert ward.said()["day-2"] == ("sent", "sent")


@pytest.mark.parametrize(("consent", "reason"), [(None, "no_consent"), (False, "opted_out")])
def test_without_consent_none_goes(consent: bool | None, reason: str) -> None:
    ward = Texting(PLAIN, consent=False)
    if consent is not None:
        ward.consent(PHONE)
        ward.consent(PHONE, given=consent)
    ward.discharge()
    ward.until("20260312120000")
    assert reasons(ward) == {("withheld", reason)}
    assert ward.sent == []


def test_a_consent_that_comes_while_a_text_is_of_use_lets_it_go_and_no_other() -> None:
    ward = Texting(PLAIN, consent=False)
    ward.discharge()
    ward.until("20260308120000")
    assert reasons(ward) == {("withheld", "no_consent")}
    ward.consent(PHONE)
    ward.until("20260312120000")
    assert ward.said() == {"day-0": ("withheld", "no_consent"), "day-2": ("sent", "sent")}


def test_a_consent_of_before_the_number_is_known_counts() -> None:
    ward = Texting(PLAIN, phone="", consent=False)
    ward.consent(PHONE)
    ward.discharge()
    ward.phone = PHONE
    ward.tell("A08", "20260306121000", _36="01", _45="20260306120000")
    ward.until("20260306130000")
    assert ward.said()["day-0"] == ("sent", "sent")


def test_who_says_stop_gets_nothing_more(ward: Texting) -> None:
    ward.discharge()
    ward.until("20260306123500")
    ward.consent(PHONE, given=False, how="reply")
    assert ward.said()["day-2"] == ("withheld", "opted_out")
    ward.until("20260320120000")
    assert len(ward.sent) == 1


def test_a_stop_stops_what_is_in_the_outbox(ward: Texting) -> None:
    ward.discharge()
    ward.until("20260306123500", carrier=lambda _: None)
    assert ward.said()["day-0"] == ("queued", None)
    ward.consent(PHONE, given=False, how="reply")
    assert ward.said()["day-0"] == ("withheld", "opted_out")
    ward.until("20260320120000")
    assert ward.sent == []
    assert not ward.texts()["day-0"].awaits


@pytest.mark.parametrize(
    ("phone", "detail"), [("", "no-number"), ("+18005550123", "toll-free"), ("911", "not-a-number")]
)
def test_without_a_number_that_takes_texts_there_is_no_address(phone: str, detail: str) -> None:
    ward = Texting(PLAIN, phone=phone)
    ward.discharge()
    ward.until("20260312120000")
    assert reasons(ward) == {("withheld", "no_address")}
    assert {text.detail for text in ward.chart().texts} == {detail} or phone == "911"


def test_a_number_that_is_taken_off_the_chart_gets_none(ward: Texting) -> None:
    ward.discharge()
    ward.until("20260306123500", carrier=lambda _: None)
    ward.phone = OTHER
    ward.tell("A08", "20260306124000", _36="01", _45="20260306120000")
    assert ward.said()["day-0"] == ("withheld", "no_consent")
    ward.until("20260320120000")
    assert ward.sent == []


def test_a_number_that_changes_is_written_to_at_the_new_one_once() -> None:
    ward = Texting(PLAIN)
    ward.consent(OTHER)
    ward.discharge()
    ward.until("20260306123500", carrier=lambda _: None)
    ward.phone = OTHER
    ward.tell("A08", "20260306124000", _36="01", _45="20260306120000")
    ward.until("20260306130000")
    assert [to for _, to, _ in ward.sent] == [OTHER]


def test_the_language_of_the_day_it_goes_counts() -> None:
    ward = Texting(PLAIN)
    ward.discharge()
    ward.tell("A08", "20260306121000", pid={15: "es"}, _36="01", _45="20260306120000")
    ward.until("20260306130000")
    assert [body.startswith("[es]") for body in ward.bodies] == [True] or ward.chart().patient.language != "es"


def test_at_night_they_wait_for_the_morning(ward: Texting) -> None:
    ward.discharge("20260306210000")
    ward.until("20260306230000")
    assert ward.said()["day-0"] == ("planned", "quiet_hours")
    ward.until("20260307093000")
    assert ward.sent[0][0] == local("20260307090000")


def test_where_the_patient_lives_it_is_still_night() -> None:
    ward = Texting(PLAIN)
    ward.pid = lambda **more: {13: PHONE, 11: "1 Main St^^Town^CA^90001"}  # type: ignore[method-assign]
    ward.tell("A08", "20260302080000")
    ward.discharge("20260306233000")
    ward.until("20260308100000")
    assert ward.sent[0][0] == local("20260307120000")


def test_what_waits_for_the_morning_for_too_long_does_not_go() -> None:
    short = replace(PLAIN, steps=tuple(replace(step, useful=timedelta(hours=2)) for step in PLAIN.steps))
    ward = Texting(short)
    ward.discharge("20260306210000")
    ward.until("20260306230000")
    assert ward.said()["day-0"] == ("withheld", "quiet_hours")


def test_no_more_than_one_a_day() -> None:
    ward = Texting(replace(PLAIN, steps=(*PLAIN.steps, replace(PLAIN.steps[0], name="day-0-too", words="Too"))))
    ward.discharge()
    ward.until("20260306150000")
    assert sorted(ward.said().values(), key=str) == [("planned", "cap_day"), ("planned", None), ("sent", "sent")]
    ward.until("20260307100000")
    assert [at for at, _, _ in ward.sent] == [local("20260306123001"), local("20260307090000")]


def test_no_more_than_so_many_a_week() -> None:
    ward = Texting(replace(PLAIN, cap_a_week=1))
    ward.discharge()
    ward.until("20260320120000")
    assert ward.said() == {"day-0": ("sent", "sent"), "day-2": ("withheld", "cap_week")}


@pytest.mark.parametrize("disposition", ["07", "50", "51", "03", "02", "20", ""])
def test_who_is_not_sent_home_is_written_to_by_nobody(disposition: str) -> None:
    ward = Texting()
    ward.discharge(disposition=disposition)
    ward.until("20260320120000")
    assert ward.chart().texts == ()
    assert ward.sent == []


@pytest.mark.parametrize("class_", ["E", "O", "U"])
def test_nor_is_who_was_no_inpatient(class_: str) -> None:
    ward = Texting()
    ward.tell("A08", "20260302080000", _2=class_)
    ward.discharge(_2=class_)
    assert ward.chart().texts == ()


def test_a_disposition_that_is_put_right_takes_them_back(ward: Texting) -> None:
    ward.discharge()
    ward.tell("A08", "20260306121000", _36="07", _45="20260306120000")
    assert reasons(ward) == {("retracted", "disposition")}


def test_a_discharge_that_is_heard_of_late_has_the_texts_that_are_still_of_use(ward: Texting) -> None:
    ward.now = local("20260308080000")
    ward.tell("A03", "20260308080000", _36="01", _45="20260306120000")
    ward.until("20260312120000")
    assert ward.said() == {
        "day-0": ("withheld", "too_late"), "day-1": ("withheld", "too_late"), "day-2": ("sent", "sent"),
    }  # fmt: skip


def test_whoever_is_in_hospital_again_is_not_written_to(ward: Texting) -> None:
    ward.discharge()
    ward.tell("A01", "20260306122000", "V2", _44="20260306121500")
    assert reasons(ward) == {("retracted", "superseded")}
    ward.until("20260306150000")
    assert ward.sent == []


def test_an_admission_that_was_none_lets_them_go_on(ward: Texting) -> None:
    ward.discharge()
    ward.tell("A01", "20260306122000", "V2", _44="20260306121500")
    ward.tell("A11", "20260306123000", "V2", _44="20260306121500")
    ward.until("20260312120000")
    assert ward.said()["day-2"] == ("sent", "sent")


def test_the_second_stay_has_texts_of_its_own(ward: Texting) -> None:
    ward.discharge()
    ward.until("20260306123500")
    ward.tell("A01", "20260307100000", "V2", _44="20260307100000")
    ward.discharge("20260308120000", "V2", _44="20260307100000")
    ward.until("20260320120000")
    by_stay = {(text.encounter, text.step): text.state.value for text in ward.chart().texts}
    assert by_stay["MRN:V1", "day-2"] == "retracted"
    assert by_stay["MRN:V2", "day-2"] == "sent"


def test_two_stays_that_end_together_are_written_about_once() -> None:
    ward = Texting(PLAIN)
    ward.tell("A01", "20260301081000", "V2", _44="20260301080000")
    ward.discharge()
    ward.discharge("20260306120100", "V2", _44="20260301080000", _45="20260306120000")
    ward.until("20260320120000")
    assert len(ward.bodies) == len(set(ward.bodies)) <= 2


def test_a_carrier_that_says_never_is_on_record(ward: Texting) -> None:
    ward.discharge()
    ward.until("20260306130000", carrier=lambda _: "failed")
    assert ward.said()["day-0"] == ("failed", "carrier_error")
    assert ward.texts()["day-0"].detail == "30003"


def test_nobody_knows_whether_it_went_a_person_decides(ward: Texting) -> None:
    ward.discharge()
    ward.until("20260306130000", carrier=lambda _: "held")
    assert ward.said()["day-0"] == ("queued", "hold")
    ward.until("20260309120000")
    assert ward.said()["day-0"] == ("queued", "hold")
    ward.word(ward.outbox[0], "sent")
    assert ward.said()["day-0"] == ("sent", "sent")


def test_what_does_not_go_in_time_goes_no_more(ward: Texting) -> None:
    ward.discharge()
    ward.until("20260309130000", carrier=lambda _: None)
    assert ward.said()["day-0"] == ("withheld", "too_late")
    ward.until("20260309130000")
    assert not any("day-0" in body for body in ward.bodies)


def test_a_plan_goes_on_with_the_series_that_it_was_made_with() -> None:
    ward = Texting(PLAIN)
    ward.discharge()
    new = replace(PLAIN, digest="d2", version="2", steps=(PLAIN.steps[0],))
    ward.serve({new.name: new})
    ward.tell("A08", "20260306121000", _36="01", _45="20260306120000")
    ward.until("20260312120000")
    assert ward.said() == {"day-0": ("sent", "sent"), "day-2": ("sent", "sent")}
    assert all(" d1 " in body for body in ward.bodies)


def test_in_a_merge_no_text_goes_twice_and_those_of_both_are_the_survivors() -> None:
    ward = Texting(PLAIN)
    ward.discharge()
    ward.until("20260306123500", carrier=lambda _: None)
    ward.send(merge("777", "558181838", at="20260306124000"))
    ward.until("20260312120000")
    assert {step: state for step, (state, _) in ward.said("777").items()} == {"day-0": "sent", "day-2": "sent"}
    assert len(ward.bodies) == len(set(ward.bodies)) == 2


def test_without_a_destination_that_sends_texts_none_goes() -> None:
    ward = Texting(PLAIN, deliver=[{"to": "files", "what": ["text"]}])
    ward.discharge()
    ward.until("20260312120000")
    assert reasons(ward) == {("withheld", "carrier_error")}


def test_of_two_destinations_that_send_texts_one_does() -> None:
    ward = Texting(PLAIN, deliver=[{"to": "phone", "what": ["text"]}, {"to": "pager", "what": ["text"]}])
    ward.discharge()
    ward.until("20260306130000")
    assert [one.delivery.destination for one in ward.outbox] == ["phone"]


def test_others_record_how_texts_stand(ward: Texting) -> None:
    ward.discharge()
    assert {(one.destination, one.operation.value) for one in ward.told} == {("files", "upsert_text")}
    ward.until("20260306130000")
    last = ward.told[-1].content
    assert last.text.state == "sent"
    assert last.text.body is not None


def test_each_change_is_an_effect_with_its_reason(ward: Texting) -> None:
    ward.discharge()
    ward.until("20260306130000")
    kinds = [(one.kind, one.detail) for one in ward.effects if one.kind.startswith("text-")]
    assert kinds[:3] == [("text-planned", "")] * 3
    assert ("text-queued", "") in kinds
    assert ("text-sent", "sent") in kinds


def test_that_a_visit_is_tomorrow_is_said_on_no_other_day(ward: Texting) -> None:
    """What waits for a cap or for the morning until the day of the visit is not sent any more."""
    ward.discharge()
    booked(ward, start="20260309230000")  # the day before is 8 March
    ward.until("20260307120000")
    ward.consent(PHONE, given=False)
    ward.now = local("20260309110000")
    ward.consent(PHONE)
    ward.until("20260315120000")
    assert not any("Tomorrow" in body for body in ward.bodies)
    assert ward.said()["day-before"] == ("withheld", "opted_out")


@pytest.mark.parametrize(
    ("code", "reason"),
    [("opted-out-21610", "opted_out"), ("opted-out", "opted_out"), ("unreachable-30003", "carrier_error")],
)
def test_the_code_of_a_carrier_may_end_with_its_own_number(ward: Texting, code: str, reason: str) -> None:
    ward.discharge()
    ward.until("20260306124500", carrier=lambda _one: None)
    [one] = ward.outbox
    ward.word(one, TextSettled.FAILED, code)
    assert ward.said()["day-0"] == ("failed", reason)
    refused = [said for said in ward.chart().contact_consents if not said.given]
    assert [said.how for said in refused] == (["carrier"] if code == "opted-out-21610" else [])
    if refused:
        assert ward.said()["day-2"] == ("withheld", "opted_out")
