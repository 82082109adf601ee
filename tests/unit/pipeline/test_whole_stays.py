"""Whole stays of any events, with their reversals, as hospitals live them: however their messages come.

A ward tells what happens to one patient, an event at a time; what is then so is written down by a few plain lines that
know nothing of messages. The messages come delayed, turned round and twice, from one system or two, and the chart must
say the same, or a person be asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from heart import DAY, HOUR, Feed, hl7
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.encounter import EncounterStatus

S = EncounterStatus
PLACES = ("WARD", "ICU", "STEPDOWN", "SURGERY")
DOCTORS = ("D1", "D2")
BEGINS = {"A01": "I", "A04": "E"}


@dataclass
class Truth:
    """What is so of the patient's stay."""

    status: S = S.PLANNED
    class_: str = "P"
    place: str = PLACES[0]
    before: str | None = None
    """The place before the last transfer, until that is cancelled."""
    doctor: str = DOCTORS[0]
    pending_place: str | None = None
    leaves: bool = False
    """A discharge is pending."""
    on_the_way: bool = False
    arrived: bool = False
    """The last way inside the house is over."""
    returned: bool = False
    """Back from the last leave."""
    away: bool = False
    """On leave, or discharged from it: so the stay is again when that is cancelled."""
    messages: list[tuple[str, dict[int, str]]] = field(default_factory=list)

    def may(self) -> list[str]:
        """What can happen now."""
        match self.status:
            case S.PLANNED:
                return ["A01", "A04", "A38", "A27"] if self.messages else ["A01", "A04", "A05", "A14"]
            case S.CANCELLED:
                return ["A05", "A14"] if self.class_ == "P" else []
            case S.FINISHED:
                return ["A13", "A08"]
            case S.ON_LEAVE:
                return ["A22", "A52", "A08", "A03"]
        able = {"A12": self.before, "A26": self.pending_place, "A25": self.leaves, "A53": self.returned,
                "A33": self.on_the_way, "A10": self.on_the_way, "A32": self.arrived}  # fmt: skip
        always = ["A02", "A08", "A15", "A16", "A21", "A03", "A11", "A54", "A55", "A09", "A61"]
        return [*always, "A06" if self.class_ != "I" else "A07", *(event for event, can in able.items() if can)]

    def happens(self, event: str, place: str, doctor: str) -> None:
        pv1: dict[int, str] = {}
        match event:
            case "A05" | "A14":
                self.status, self.class_ = S.PLANNED, "P"
            case "A38" | "A27" | "A11":
                self.status = S.CANCELLED
            case "A01" | "A04":
                self.status, self.class_ = S.ACTIVE, BEGINS[event]
            case "A02":
                self.before, self.place, self.pending_place, self.on_the_way = self.place, place, None, False
                self.arrived = False
                pv1 = {6: self.before}
            case "A12":
                assert self.before is not None
                self.place, self.before, pv1 = self.before, None, {6: self.place}
            case "A03":
                self.status, self.leaves, self.pending_place, self.on_the_way = S.FINISHED, False, None, False
                self.arrived = self.returned = False
            case "A13":
                self.status = S.ON_LEAVE if self.away else S.ACTIVE
            case "A06" | "A07":
                self.class_ = "I" if event == "A06" else "O"
            case "A09":
                self.on_the_way, self.arrived, pv1 = True, False, {3: "XRAY"}
            case "A10":
                self.on_the_way, self.arrived, pv1 = False, True, {3: "XRAY"}
            case "A32":
                self.on_the_way, self.arrived, pv1 = True, False, {3: "XRAY"}
            case "A33":
                self.on_the_way = False
            case "A15":
                self.pending_place, pv1 = place, {42: place}
            case "A26":
                self.pending_place, pv1 = None, {42: self.pending_place or ""}
            case "A16" | "A25":
                self.leaves = event == "A16"
            case "A21" | "A53":
                self.status, self.returned, self.away = S.ON_LEAVE, False, True
            case "A22":
                self.status, self.returned, self.away = S.ACTIVE, True, False
            case "A52":
                self.status, self.away = S.ACTIVE, False
            case "A54" | "A55":
                self.doctor = doctor
        self.messages.append((event, {2: self.class_, 3: self.place, 7: self.doctor, 44: hl7(DAY)} | pv1))

    def told(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "class": self.class_,
            "place": self.place,
            "doctor": self.doctor,
            "pending_place": self.pending_place,
            "leaves": self.leaves,
            "on_the_way": self.on_the_way,
            "plan": self.status is S.FINISHED and self.class_ == "I",
        }


def charted(feed: Feed) -> dict[str, Any]:
    stay = feed.stay
    return {
        "status": stay.status,
        "class": stay.class_,
        "place": stay.location.point_of_care if stay.location else None,
        "doctor": stay.attending.id if stay.attending else None,
        "pending_place": stay.pending_location.point_of_care if stay.pending_location else None,
        "leaves": stay.discharge_pending,
        "on_the_way": stay.in_transit,
        "plan": bool(feed.plan),
    }


@st.composite
def stays(draw: st.DrawFn) -> Truth:
    truth = Truth()
    for _ in range(draw(st.integers(2, 12))):
        events = truth.may()
        if not events:
            break
        others = [place for place in PLACES if place != truth.place]
        truth.happens(draw(st.sampled_from(events)), draw(st.sampled_from(others)), draw(st.sampled_from(DOCTORS)))
    return truth


@given(stays())
@settings(max_examples=150, deadline=None)
def test_a_whole_stay_in_its_order_comes_to_what_is_so_and_asks_nobody(truth: Truth) -> None:
    feed = Feed()
    for number, (event, pv1) in enumerate(truth.messages):
        assert feed.send(event, DAY + number * HOUR, pv1=pv1).holds == ()
    assert charted(feed) == truth.told()


DELAYS = st.sampled_from([timedelta(), timedelta(minutes=2), 90 * timedelta(minutes=1), 5 * HOUR, 30 * HOUR])


@st.composite
def ways(draw: st.DrawFn, senders: tuple[str, ...]) -> tuple[Truth, list[tuple[datetime, int, str]]]:
    """A stay, and its messages as they come: when, which, and from whom. Some come twice."""
    truth = draw(stays())
    come = []
    for number in range(len(truth.messages)):
        sender = draw(st.sampled_from(senders))
        come += [
            (DAY + number * HOUR + delay, number, sender)
            for delay in draw(st.lists(DELAYS, min_size=1, max_size=2, unique=True))
        ]
    return truth, sorted(come)


def received(truth: Truth, come: list[tuple[datetime, int, str]]) -> Feed:
    feed = Feed()
    for at, number, sender in come:
        event, pv1 = truth.messages[number]
        then = DAY + number * HOUR
        feed.send(event, at, sender=sender, sent=then, evn2=then, pv1=pv1)
    return feed


@given(ways(("EPIC",)))
@settings(max_examples=150, deadline=None)
def test_a_whole_stay_of_one_system_however_it_comes_is_as_it_is_or_asked_about(
    case: tuple[Truth, list[tuple[datetime, int, str]]],
) -> None:
    feed = received(*case)
    assert feed.asks or charted(feed) == case[0].told()


@given(ways(("EPIC", "BEDS")))
@settings(max_examples=150, deadline=None)
def test_a_whole_stay_of_two_systems_however_it_comes_is_as_it_is_or_asked_about(
    case: tuple[Truth, list[tuple[datetime, int, str]]],
) -> None:
    feed = received(*case)
    assert feed.asks or charted(feed) == case[0].told()
