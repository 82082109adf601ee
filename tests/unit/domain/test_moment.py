"""A time as it was sent: the precision of its text decides what can be said of it, and nothing is made up."""

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.codec import converted, decoder, encode
from engine.domain.encounter import Encounter
from engine.domain.moment import Moment, Order, Precision, instant
from engine.domain.patient import Patient
from engine.domain.shapes import plain

PLACEHOLDERS = ["0001-01-01", "1800-01-01", "9999-12-31", "9999-12-31T00:00+00:00", "9999", "0001-01"]

OFFSETS = ["+00:00", "-05:00", "-04:00", "+05:45", "+14:00", "-11:00"]
_INSTANTS = st.datetimes(datetime(1801, 1, 3), datetime(2999, 12, 28))  # noqa: DTZ001  # they get an offset as text


@st.composite
def texts(draw: st.DrawFn, *, near: datetime | None = None) -> str:
    """Texts as charts keep them, of every precision. near: within some days of it."""
    at = draw(_INSTANTS) if near is None else near + timedelta(minutes=draw(st.integers(-4000, 4000)))
    size = draw(st.sampled_from([4, 7, 10, 13, 16, 19, 21, 26]))
    text = at.isoformat(timespec="microseconds")[:size]
    return text + draw(st.sampled_from(OFFSETS)) if size > 10 else text


NEAR = texts(near=datetime(2026, 3, 8, 2, 30))  # noqa: DTZ001  # as above; a night on which clocks change


@given(texts())
def test_a_text_is_kept_to_the_letter_in_memory_in_json_and_in_plain_values(text: str) -> None:
    moment = Moment.of(text)
    assert moment.text == text
    assert moment == Moment(text) == pickle.loads(pickle.dumps(moment))  # noqa: S301  # our own
    stay = Encounter(key="K", admitted_at=moment)
    assert f'"admitted_at":"{text}"'.encode() in encode(stay)
    assert decoder(Encounter)(encode(stay)) == stay == converted(plain(stay), Encounter)
    assert plain(stay)["admitted_at"] == text


@given(texts())
def test_its_instants_are_those_of_its_text(text: str) -> None:
    moment = Moment.of(text)
    begin = datetime.fromisoformat(text if len(text) >= 10 else text + "-01-01"[len(text) - 4 :])
    begin = begin if begin.tzinfo else begin.replace(tzinfo=UTC)
    assert moment.seconds == begin.timestamp()
    assert moment.at == (begin if len(text) >= 10 else None)
    assert moment.timed is ("T" in text)
    if moment.at is not None:
        assert moment.at.utcoffset() == begin.utcoffset()
        assert moment.micros == (moment.at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert moment.earliest in {moment.seconds, moment.seconds - 14 * 3600}


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("1958", Precision.YEAR),
        ("1958-07", Precision.MONTH),
        ("1958-07-15", Precision.DAY),
        ("2026-07-15T14-04:00", Precision.HOUR),
        ("2026-07-15T14:30-04:00", Precision.MINUTE),
        ("2026-07-15T14:30+05:45", Precision.MINUTE),
        ("2026-07-15T14:30:05-04:00", Precision.SECOND),
        ("2026-07-15T14:30:05Z", Precision.SECOND),
        ("2026-07-15T14:30:05.2-04:00", Precision.FRACTION),
        ("2026-07-15T14:30:05.123456+00:00", Precision.FRACTION),
        ("2026-07-15T14:30", Precision.MINUTE),
    ],
)
def test_a_text_tells_its_precision(text: str, precision: Precision) -> None:
    assert Moment.of(text).precision is precision


@pytest.mark.parametrize(
    "text",
    ["", "soon", "195", "1958-", "1958-0", "1958-07-", "1958-07-1", "19580715", "1958-7-15", "1961-02-30", "2026-13",
     "2026-W10-1", "20260715T143000-0400",
     "2026-07-15T", "2026-07-15T25:00-04:00", "2026-07-15T24:00:00-04:00",
     "2026-07-15T23:59:60-04:00", "2026-07-15-04:00"],
)  # fmt: skip
def test_what_is_no_time_as_charts_keep_it_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="no time in ISO 8601") as caught:
        Moment.of(text)
    assert not text or text not in str(caught.value)
    assert Moment.read(text) is None


@pytest.mark.parametrize("value", [None, 7, ["2026"], b"2026"])
def test_what_is_no_text_is_no_time(value: object) -> None:
    assert Moment.read(value) is None


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_what_stands_for_no_date_names_no_instant_and_no_day(text: str) -> None:
    moment = Moment.of(text)
    assert moment.is_placeholder
    assert (moment.at, moment.micros, moment.days, instant(moment)) == (None, None, None, None)
    assert moment.at_in(UTC) is None
    assert moment.text == text


def test_it_is_phi_and_is_put_into_no_text_by_accident() -> None:
    moment = Moment.of("1958-07-15")
    assert "1958" not in repr(moment)
    assert "1958" not in repr(Patient(birth_date=moment))
    with pytest.raises(TypeError, match="PHI"):
        str(moment)
    with pytest.raises(TypeError, match="PHI"):
        f"{moment}"


def test_the_offset_that_was_sent_is_kept() -> None:
    moment = Moment.of("2026-03-02T10:00-05:00").at
    assert moment == datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
    assert moment is not None
    assert moment.hour == 10


def test_a_text_without_an_offset_takes_the_zone_and_one_without_a_time_is_the_start_of_its_day() -> None:
    zone = ZoneInfo("America/New_York")
    assert Moment.of("2026-07-02T10:00").at_in(zone) == datetime(2026, 7, 2, 14, 0, tzinfo=UTC)
    assert Moment.of("2026-07-02").at_in(zone) == datetime(2026, 7, 2, 4, 0, tzinfo=UTC)
    assert Moment.of("2026-07-02T10:00-07:00").at_in(zone) == datetime(2026, 7, 2, 17, 0, tzinfo=UTC)
    assert Moment.of("2026-07-02").at == datetime(2026, 7, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2024", date(2024, 1, 1), date(2024, 12, 31)),
        ("2024-02", date(2024, 2, 1), date(2024, 2, 29)),
        ("2024-02-03", date(2024, 2, 3), date(2024, 2, 3)),
        ("2024-02-03T23:59-11:00", date(2024, 2, 3), date(2024, 2, 3)),
    ],
)
def test_its_days_are_those_of_the_calendar_that_it_was_written_by(text: str, first: date, last: date) -> None:
    assert Moment.of(text).days == (first, last)


# --- which of two was first ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "order"),
    [
        ("2026-03-02T10:00-05:00", "2026-03-02T10:01-05:00", Order.BEFORE),
        ("2026-03-02T10:00-05:00", "2026-03-02T10:00-05:00", Order.UNTOLD),
        ("2026-03-02T10:00-05:00", "2026-03-02T10:00:59-05:00", Order.UNTOLD),  # within the minute
        ("2026-03-02T10:00-05:00", "2026-03-02T09:59:59-05:00", Order.AFTER),
        ("2026-03-02T10:00:00-05:00", "2026-03-02T15:00:01Z", Order.BEFORE),  # in another zone
        ("2026-03-02T10:00:00.25-05:00", "2026-03-02T10:00:00.3-05:00", Order.BEFORE),
        ("2026-03-02T14-05:00", "2026-03-02T14:30-05:00", Order.UNTOLD),  # within the hour
        ("2026-03-02T14-05:00", "2026-03-02T15:00-05:00", Order.BEFORE),
        ("2026-03-02T14-05:00", "2026-03-02T13:59-05:00", Order.AFTER),
        ("2026-11-01T01:30-04:00", "2026-11-01T01:30-05:00", Order.BEFORE),  # an hour that comes twice
        ("2026-03-02", "2026-03-03", Order.BEFORE),
        ("2026-03-02", "2026-03-02", Order.UNTOLD),
        ("2026-03-02", "2026-03-02T23:59-05:00", Order.UNTOLD),  # though it is 3 March in UTC
        ("2026-03-02", "2026-03-03T00:00+14:00", Order.BEFORE),  # though it is 2 March in UTC
        ("2026-03-02T23:59-05:00", "2026-03-03", Order.BEFORE),
        ("2026-02", "2026-03-01", Order.BEFORE),
        ("2026-03", "2026-03-31T23:00-05:00", Order.UNTOLD),
        ("2025", "2026-01-01T00:00-05:00", Order.BEFORE),
        ("1958", "1958-07-15", Order.UNTOLD),
        ("9999-12-31T00:00+00:00", "2026-03-02T10:00-05:00", Order.UNTOLD),
    ],
)
def test_which_of_two_was_first_is_told_as_far_as_both_tell(one: str, other: str, order: Order) -> None:
    back = {Order.BEFORE: Order.AFTER, Order.AFTER: Order.BEFORE, Order.UNTOLD: Order.UNTOLD}
    first, second = Moment.of(one), Moment.of(other)
    if not first.is_placeholder:
        assert first.order(second) is order
        assert second.order(first) is back[order]
    assert first.is_before(second) is (order is Order.BEFORE)


@given(NEAR, NEAR, NEAR)
def test_before_is_an_order(one: str, two: str, three: str) -> None:
    a, b, c = map(Moment.of, (one, two, three))
    assert not a.is_before(a)
    assert not (a.is_before(b) and b.is_before(a))
    same_kind = a.timed == b.timed == c.timed  # a day of the writer's calendar stands between two zones otherwise
    if same_kind and a.is_before(b) and b.is_before(c):
        assert a.is_before(c)


@given(NEAR, NEAR)
def test_what_is_surely_before_has_an_instant_that_is(one: str, other: str) -> None:
    a, b = Moment.of(one), Moment.of(other)
    if a.is_before(b) and a.timed and b.timed:
        assert a.seconds < b.seconds
    if a.is_before(b) and a.days and b.days and not (a.timed and b.timed):
        assert a.days[1] < b.days[0]


@given(NEAR, NEAR)
def test_more_digits_never_turn_an_order_round(one: str, other: str) -> None:
    """What a vaguer text of the same time says is what the exact one says, or nothing."""
    exact, bound = Moment.of(one), Moment.of(other)
    opposite = {Order.BEFORE: Order.AFTER, Order.AFTER: Order.BEFORE}
    for size in (4, 7, 10):
        vague = Moment.of(exact.text[:size]) if len(exact.text) >= size else exact
        if exact.timed and bound.timed:
            continue  # two zones: a day of one of them is no span of the other
        assert vague.order(bound) is not opposite.get(exact.order(bound))


def old_instant(text: str) -> float:
    moment = datetime.fromisoformat(text if len(text) >= 10 else text + "0001-01-01"[len(text) :])
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@given(NEAR, NEAR, st.sampled_from([0, 60]))
def test_the_order_is_that_of_the_instants_and_of_the_days_as_written(one: str, other: str, slack: int) -> None:
    """The comparison of the texts themselves, as it was before there was a type. An hour alone is a span now."""
    if "T" in one and "T" in other:
        expected = old_instant(one) < old_instant(other) - slack
        lasts = {16: 60, 22: 60, 19: 1, 25: 1}.get(len(one), 0) if slack == 0 else 0
        expected = expected and old_instant(other) - old_instant(one) >= lasts
    else:
        size = min(len(one), len(other), 10)
        expected = one[:size] < other[:size]
    a, b = Moment.of(one), Moment.of(other)
    if a.precision is not Precision.HOUR:
        assert a.is_before(b, slack) is expected
    elif a.is_before(b, slack):
        assert expected


@given(st.lists(NEAR.filter(lambda text: "T" in text), min_size=2, max_size=6))
def test_instants_are_in_a_total_order(found: list[str]) -> None:
    by_seconds = sorted(map(Moment.of, found), key=lambda one: one.seconds)
    by_time = sorted(map(Moment.of, found), key=lambda one: one.at or datetime.max.replace(tzinfo=timezone.max))
    assert by_seconds == by_time
    assert all(not later.is_before(earlier) for earlier, later in pairwise(by_seconds))


@given(NEAR, NEAR)
def test_two_are_of_one_day_unless_they_tell_that_they_are_not(one: str, other: str) -> None:
    a, b = Moment.of(one), Moment.of(other)
    assert a.same_day(b) is b.same_day(a)
    if a.days and b.days:
        assert a.same_day(b) is (a.days[0] <= b.days[1] and b.days[0] <= a.days[1])


@pytest.mark.parametrize(
    ("text", "precision", "has_offset"),
    [
        ("2026-03-02T14", Precision.HOUR, False),
        ("2026-03-02T14-05:00", Precision.HOUR, True),
        ("2026-03-02T14:30", Precision.MINUTE, False),
        ("2026-03-02T14:30Z", Precision.MINUTE, True),
        ("2026-03-02T14:30:05", Precision.SECOND, False),
        ("2026-03-02T14:30:05+01:00", Precision.SECOND, True),
    ],
)
def test_a_hyphen_of_the_date_is_no_offset(text: str, precision: Precision, has_offset: bool) -> None:
    moment = Moment(text)
    assert (moment.precision, moment.has_offset) == (precision, has_offset)
