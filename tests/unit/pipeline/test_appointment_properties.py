"""Whatever the order, however often: the same messages of a scheduling system come to the same appointments."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from heart import adt
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduling import NEW_YORK, Scheduled, siu
from test_appointments_and_tasks import PCP, STAY

from engine.domain.outcome import Outcome

STORIES = (
    # booked, moved under one number, arrived, kept
    (siu("S12", "1", at="20260302080000", start="20260310091500"),
     siu("S13", "1", at="20260303080000", start="20260311100000"),
     siu("S14", "1", at="20260311095500", start="20260311100000", status="Started"),
     siu("S14", "1", at="20260311110000", start="20260311100000", status="Complete")),
    # booked, cancelled, moved to another number, that one missed
    (siu("S12", "2", at="20260302090000", start="20260309091500", service="CARD^Cardiology", clinician="5^Heart^Ann"),
     siu("S15", "2", at="20260304090000", start="20260309091500", service="CARD^Cardiology", clinician="5^Heart^Ann"),
     siu("S13", "3", at="20260304090010", start="20260312091500", service="CARD^Cardiology", clinician="5^Heart^Ann"),
     siu("S26", "3", at="20260312180000", start="", service="CARD^Cardiology", clinician="5^Heart^Ann")),
    # a no-show before its time, and one entered in error
    (siu("S12", "4", at="20260302100000", start="20260315091500", service="PT", clinician=""),
     siu("S26", "4", at="20260305100000", start="", service="PT", clinician="")),
    (siu("S12", "6", at="20260302110000", service="PT", clinician=""),
     siu("S17", "6", at="20260302111500", start="", service="PT", clinician="")),
    # a waiting list that gets its time
    (siu("S12", "7", at="20260302120000", start="20260401", end="20260930", status="Waitlist", service="DERM"),
     siu("S13", "7", at="20260320120000", start="20260415093000", service="DERM")),
)  # fmt: skip
MESSAGES = tuple(message for story in STORIES for message in story)


class Late(Scheduled):
    """All arrive after the last of them was written."""

    def send(self, payload: bytes) -> Outcome:
        outcome = super(Scheduled, self).send(payload)
        assert outcome.dead_letter is None
        return outcome


def come_to(messages: Any) -> Any:
    late = Late()
    late.now = datetime(2026, 4, 1, tzinfo=NEW_YORK)
    late.send(adt("A01", at="20260301080000", pv1=STAY, segments=(PCP,)))
    for message in messages:
        late.send(message)
    names = {one.id: one.numbers[0].value for one in late.chart().appointments}
    return {
        one.numbers[0].value: (
            one.status, one.starts_at and one.starts_at.text, one.earliest and one.earliest.text,
            names.get(one.replaces or ""), names.get(one.replaced_by or ""), one.opened_by,
        )
        for one in late.chart().appointments
    }  # fmt: skip


IN_ORDER = come_to(MESSAGES)


def test_the_stories_come_to_what_they_tell() -> None:
    assert {number: (said[0], said[3], said[4]) for number, said in IN_ORDER.items()} == {
        "1": ("kept", None, None), "2": ("cancelled", None, "3"), "3": ("noshow", "2", None),
        "4": ("cancelled", None, None), "6": ("entered_in_error", None, None), "7": ("booked", None, None),
    }  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.permutations(MESSAGES), st.lists(st.sampled_from(MESSAGES), max_size=6))
def test_any_order_and_any_repetition_come_to_the_same(order: list[bytes], again: list[bytes]) -> None:
    assert come_to([*order, *again]) == IN_ORDER
