"""A made-up code of messages: who its patient is, is settled for it as for ADT messages."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from heart import Heart, adt, merge

from engine.care.dispositions import Dispositions
from engine.care.event import Applied, PatientEvent
from engine.care.patient import Asked, Known, New, whose
from engine.domain.chart import Chart, Charts
from engine.domain.message import EntryState
from engine.domain.moment import Moment
from engine.domain.outcome import Effect
from engine.domain.patient import Identifier
from engine.pipeline import messages
from engine.pipeline.events import decide_events
from engine.pipeline.messages import Code
from engine.pipeline.person import event_of, prepared_event, read_patient


class LanguageEvent(PatientEvent, frozen=True, kw_only=True):
    language: str


def _speak(chart: Chart, _charts: Charts, event: LanguageEvent, _rules: Dispositions, applied: Applied) -> Chart:
    applied.effects.append(Effect(kind="language-said", subject=chart.id))
    return msgspec.structs.replace(chart, patient=msgspec.structs.replace(chart.patient, language=event.language))


def _read(entry: Any, channel: Any, message: Any, reading: Any) -> Any:
    mapped = read_patient(channel, message, reading)
    event = event_of(LanguageEvent, entry, channel, message.header, mapped, reading, language="tlh")
    return prepared_event("ZZZ", entry, channel, message, mapped, event, reading)


def _decide(prepared: Any, channel: Any, charts: Any, now: Any) -> Any:
    return decide_events(prepared, channel, charts, now, _speak)


@pytest.fixture
def heart(monkeypatch: pytest.MonkeyPatch) -> Heart:
    monkeypatch.setattr(messages, "CODES", {**messages.CODES, "ZZZ": Code(_read, _decide)})
    return Heart(deliver=[{"to": "crm", "what": ["message", "patient"]}])


def zzz(**more: Any) -> bytes:
    return adt("Z01", **more).replace(b"ADT^Z01", b"ZZZ^Z01")


def test_a_new_patient_gets_a_chart_and_a_known_one_keeps_theirs(heart: Heart) -> None:
    first = heart.send(zzz())
    assert [effect.kind for effect in first.effects] == ["patient-created", "language-said"]
    assert (heart.chart().patient.language, heart.chart().patient.birth_date.text) == ("tlh", "1948-03-12")
    heart.send(adt("A01", pv1={}))
    again = heart.send(zzz())
    assert [effect.kind for effect in again.effects] == ["language-said"]
    assert again.chart_id == first.chart_id == heart.chart().id


def test_what_it_says_of_the_person_is_delivered_and_the_message_is_forwarded(heart: Heart) -> None:
    told = [delivery.operation for delivery in heart.send(zzz()).deliveries]
    assert told == ["upsert_patient", "forward"]


def test_a_number_that_was_merged_leads_to_the_patient_who_is_left(heart: Heart) -> None:
    heart.send(adt("A01", pv1={}))
    heart.send(merge("558181838", "999"))
    assert heart.send(zzz(pid3="999^^^MRN^MR")).chart_id == heart.chart().id


def test_a_message_of_another_person_is_held_and_changes_nothing(heart: Heart) -> None:
    heart.send(adt("A01", pv1={}))
    before = heart.chart()
    outcome = heart.send(zzz(pid={5: "Smith^Bob", 7: "20010101"}))
    [hold] = outcome.holds
    assert (hold.code, hold.chart_id, outcome.charts) == ("person-contradicted", before.id, ())
    assert heart.chart() is before


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (zzz(pid3=""), "identifier-missing"),
        (zzz(pid3="7^^^OTHER^XX"), "identifier-missing"),
        (zzz(pid3="558181838^^^MRN^PI"), "identifier-type"),
        (zzz().replace(b"\rPID|", b"\rPIX|"), "pid-missing"),
        (zzz(segments=("PID|2||9^^^MRN^MR",)), "segment-repeated"),
    ],
)
def test_a_message_that_can_not_be_put_on_one_patient_is_refused_with_the_reason(
    heart: Heart, message: bytes, error: str
) -> None:
    heart.send(adt("A01", pv1={}))
    outcome = heart.send(message)
    assert outcome.state is EntryState.DEAD
    assert outcome.dead_letter is not None
    assert outcome.dead_letter.error == error
    assert outcome.charts == ()


def test_old_news_of_the_person_turn_nothing_back_and_a_death_is_heard(heart: Heart) -> None:
    heart.send(zzz(at="20260306120000"))
    outcome = heart.send(zzz(at="20260306110000", pid={5: "Doe^Janet"}))
    assert "stale-event" in outcome.deviations
    assert heart.chart().patient.name.given == "Jane"  # type: ignore[union-attr]
    heart.send(zzz(at="20260306130000", pid={30: "Y"}))
    assert heart.chart().patient.deceased is True


def test_whose_a_message_is_has_three_answers() -> None:
    heart = Heart()
    heart.send(adt("A01", pv1={}))
    chart = heart.chart()

    def event(value: str = "558181838", **patient: Any) -> PatientEvent:
        identifiers = (Identifier(value=value, authority="MRN", type="MR"),)
        return PatientEvent(at=(1.0, 99), chart_id="c-new", identifiers=identifiers, patient=patient)

    assert whose(heart.charts, event()) == Known(chart=chart)
    new = whose(heart.charts, event("1"))
    assert isinstance(new, New)
    assert (new.chart.id, new.chart.version, new.chart.patient.key) == ("c-new", 0, "MRN:1")
    other = msgspec.structs.replace(chart.patient.name, family="Smith", given="Bob")
    asked = whose(heart.charts, event(name=other, birth_date=Moment.of("2001-01-01")))
    assert isinstance(asked, Asked)
    assert (asked.chart, asked.hold.location) == (chart, "PID-5")
