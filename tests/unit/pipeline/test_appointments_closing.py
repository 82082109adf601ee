"""A patient with hundreds of appointments has a chart that stays small, and comes to the same as a whole one."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from heart import Heart, adt
from scheduling import NEW_YORK, siu
from test_appointments_and_tasks import PCP, STAY
from test_closing import ALL, BoundedHeart, Close

from engine.pipeline.closing import APPOINTMENTS_KEPT, APPOINTMENTS_OVER_MAX, closed_up

FIRST = datetime(2026, 3, 1, 9, 0, tzinfo=NEW_YORK)


def written(at: datetime) -> str:
    return at.strftime("%Y%m%d%H%M%S")


def visits(number: int) -> list[bytes]:
    """Booked a week before, and done, two a week; every fifth is moved to another number, every seventh is silent."""
    messages: list[tuple[datetime, bytes]] = []
    for n in range(number):
        at, start = FIRST + timedelta(days=3 * n), FIRST + timedelta(days=3 * n + 7)
        own = f"D{n}"
        messages.append((at, siu("S12", own, at=written(at), start=written(start), service="DIAL", clinician="")))
        if n % 5 == 0:
            off = at + timedelta(days=1)
            messages.append((off, siu("S15", own, at=written(off), service="DIAL", clinician="")))
            own, off = f"{own}B", off + timedelta(seconds=5)
            messages.append((off, siu("S13", own, at=written(off), start=written(start), service="DIAL", clinician="")))
        if n % 7:
            end = start + timedelta(hours=4)
            kept = siu(
                "S14", own, at=written(end), start=written(start), status="Complete", service="DIAL", clinician=""
            )
            messages.append((end, kept))
    return [message for _, message in sorted(messages, key=lambda pair: pair[0])]


def played(heart: Heart, messages: list[bytes]) -> None:
    heart.now = datetime(2027, 6, 1, tzinfo=NEW_YORK)
    heart.send(adt("A01", at="20260301080000", pv1=STAY, segments=(PCP,)))
    for message in messages:
        heart.send(message)
        if isinstance(heart, BoundedHeart):
            heart.commit()


@pytest.fixture(scope="module")
def bounded() -> BoundedHeart:
    heart = BoundedHeart(closed_up)
    played(heart, visits(60))
    return heart


def test_what_is_loaded_stays_small(bounded: BoundedHeart) -> None:
    assert (
        len(bounded.chart().appointments) <= APPOINTMENTS_OVER_MAX + 15
    )  # those ahead, or silent for less than a month
    assert len(bounded.chart().appointments) >= APPOINTMENTS_KEPT
    assert bounded.reopened == 0


def test_it_comes_to_the_same_as_the_whole_chart(bounded: BoundedHeart) -> None:
    whole = Heart()
    played(whole, visits(60))
    [there] = bounded.whole().values()
    assert {one.id: one for one in there.appointments} == {one.id: one for one in whole.chart().appointments}


def test_late_news_of_one_that_is_closed_finds_it(bounded: BoundedHeart) -> None:
    before = bounded.reopened
    bounded.send(siu("S26", "D3", at="20260401180000", start="", service="DIAL", clinician=""))
    assert bounded.reopened == before + 1
    found = [one for one in bounded.chart().appointments if one.numbers[0].value == "D3"]
    assert [one.status for one in found] == ["noshow"]


def test_a_visit_that_has_kept_an_appointment_still_does_when_it_is_closed() -> None:
    heart = BoundedHeart(ALL)
    heart.now = datetime(2027, 6, 1, tzinfo=NEW_YORK)
    heart.send(siu("S12", "1", at="20260301080000", start="20260302100000", service="DIAL", clinician=""))
    came = {2: "O", 3: "CLINIC^^^MAIN", 19: "C1^^^MRN", 44: "20260302095000"}
    heart.send(adt("A04", at="20260302095000", pv1=came))
    heart.send(adt("A03", at="20260302140000", pv1={**came, 45: "20260302140000", 36: "01"}))
    heart.commit()
    assert heart.chart().encounters == ()
    heart.send(siu("S12", "2", at="20260303080000", start="20260305100000", service="DIAL", clinician=""))
    assert [one.status for one in heart.chart().appointments] == ["kept", "booked"]


KEPT_AND_CLOSED = {2: "O", 3: "CLINIC^^^MAIN", 19: "C1^^^MRN", 44: "20260302095000"}


@pytest.mark.parametrize("close", [ALL, None], ids=["closed", "whole"])
@pytest.mark.parametrize(
    ("event", "pid3", "pv1", "mrg", "kept_by"),
    [
        ("A42", "558181838", {2: "", 19: "C2^^^MRN"}, "558181838^^^MRN^MR||||C1^^^MRN", "MRN:C1"),
        ("A50", "558181838", {2: "", 19: "C2^^^MRN"}, "558181838^^^MRN^MR||||C1^^^MRN", "MRN:C1"),
        ("A51", "558181838", {2: "", 19: "C2^^^MRN"}, "558181838^^^MRN^MR||||C1^^^MRN", "MRN:C1"),
        ("A47", "99", None, "558181838^^^MRN^MR", "MRN:C1"),
        ("A40", "99", None, "558181838^^^MRN^MR", "MRN:C1"),
    ],
)
@pytest.mark.parametrize("by_number", [True, False])
def test_an_appointment_stays_kept_when_numbers_of_the_closed_visit_change(
    event: str, pid3: str, pv1: dict[int, str] | None, mrg: str, kept_by: str, by_number: bool, close: Close | None
) -> None:
    heart = BoundedHeart(close) if close is not None else Heart()
    heart.now = datetime(2027, 6, 1, tzinfo=NEW_YORK)
    number = "C1^^^MRN" if by_number else None
    place = "" if by_number else "CLINIC^^^MAIN"
    at, start = "20260301080000", "20260302100000"
    heart.send(siu("S12", "1", at=at, start=start, pv1=number, service="DIAL", clinician="", place=place))
    heart.send(adt("A04", at="20260302095000", pv1=KEPT_AND_CLOSED))
    heart.send(adt("A03", at="20260302140000", pv1={**KEPT_AND_CLOSED, 45: "20260302140000", 36: "01"}))
    if isinstance(heart, BoundedHeart):
        heart.commit()
        assert heart.chart().encounters == ()
    again = adt(event, at="20260401120000", pid3=f"{pid3}^^^MRN^MR", pv1=pv1, segments=(f"MRG|{mrg}",))
    for _ in range(2):
        assert heart.send(again).holds == ()
        if isinstance(heart, BoundedHeart):
            heart.commit()
    charts = list(heart.whole().values()) if isinstance(heart, BoundedHeart) else [heart.chart(pid3)]
    found = [one for chart in charts if chart.merged_into is None for one in chart.appointments]
    assert [(one.status, one.kept_by) for one in found] == [("kept", kept_by)]


def test_an_appointment_is_kept_by_the_visit_that_a_closed_one_was_merged_into() -> None:
    """A42 of two visits that are both known, and over: what the old one has kept, the new one has."""
    whole, bounded = Heart(), BoundedHeart(ALL)
    other = {**KEPT_AND_CLOSED, 19: "C2^^^MRN", 44: "20260302100000"}
    merged = adt("A42", at="20260401120000", pv1={2: "", 19: "C2^^^MRN"}, segments=(f"MRG|{_NUMBER}||||C1^^^MRN",))
    for heart in (whole, bounded):
        heart.now = datetime(2027, 6, 1, tzinfo=NEW_YORK)
        heart.send(siu("S12", "1", at="20260301080000", start="20260302100000", service="DIAL", clinician=""))
        for visit, came in ((KEPT_AND_CLOSED, "20260302095000"), (other, "20260302100000")):
            heart.send(adt("A04", at=came, pv1=visit))
            heart.send(adt("A03", at="20260302140000", pv1={**visit, 45: "20260302140000", 36: "01"}))
        if isinstance(heart, BoundedHeart):
            heart.commit()
            assert heart.chart().encounters == ()
        heart.send(merged)
    bounded.commit()
    [there] = bounded.whole().values()
    for chart in (whole.chart(), there):
        assert [(one.status, one.kept_by) for one in chart.appointments] == [("kept", "MRN:C2")]


_NUMBER = "558181838^^^MRN^MR"
