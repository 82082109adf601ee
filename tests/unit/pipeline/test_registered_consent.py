"""What registration says of texts: a yes counts where nothing was said, and lifts no opt-out."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from test_replies import Phone
from texting import OTHER, PHONE

from engine.care.texts.consent import standing


@pytest.fixture
def phone() -> Phone:
    return Phone(consent=False)


def register(phone: Phone, agreed: bool | None, *, number: str = PHONE) -> None:
    """A message of registration, as a field map with `patient.text_consent` reads it."""
    chart = phone.chart()
    patient = msgspec.structs.replace(chart.patient, text_consent=agreed, phones=(number,))
    phone.now += timedelta(minutes=1)
    phone.change(chart, patient=patient)


def state(phone: Phone, number: str = PHONE) -> str:
    return str(standing(phone.chart(), "care", "sms", number).state)


def test_a_yes_is_consent_for_the_numbers_that_registration_has(phone: Phone) -> None:
    register(phone, True)
    assert (state(phone), state(phone, OTHER)) == ("given", "none")
    [said] = phone.chart().contact_consents
    assert (said.how, said.by) == ("registration", "channel:main-campus")
    register(phone, True, number=OTHER)
    assert state(phone, OTHER) == "given"


def test_said_again_it_is_one_statement(phone: Phone) -> None:
    register(phone, True)
    register(phone, True)
    assert len(phone.chart().contact_consents) == 1


def test_a_yes_lifts_no_opt_out(phone: Phone) -> None:
    register(phone, True)
    phone.write("STOP")
    register(phone, None)
    register(phone, True)
    assert state(phone) == "revoked"


def test_a_no_ends_what_registration_had_given_and_nothing_else(phone: Phone) -> None:
    register(phone, True)
    register(phone, False)
    assert state(phone) == "revoked"
    other = Phone()  # a person has put it on record
    register(other, False)
    assert state(other) == "given"


def test_where_nobody_says_anything_nothing_is_given(phone: Phone) -> None:
    register(phone, None)
    assert phone.chart().contact_consents == ()


def test_a_field_map_can_fill_it() -> None:
    from engine.domain.patient import Patient
    from engine.mapping.targets import TARGETS

    assert "patient.text_consent" in TARGETS
    assert "text_consent" in {field.name for field in msgspec.structs.fields(Patient)}
