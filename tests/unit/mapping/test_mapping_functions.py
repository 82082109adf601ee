from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.moment import parse_moment
from engine.domain.patient import Address, Identifier, Name, Provider
from engine.hl7v2.message import Message, Repetition
from engine.mapping import functions
from engine.mapping.functions import ABSENT, Flaw, e164, iso_date, iso_time

NEW_YORK = ZoneInfo("America/New_York")


def repetition(text: str) -> Repetition:
    message = Message.parse(f"MSH|^~\\&|A|B|C|D|20260715||ADT^A01|1|P|2.5\rPID|||{text}\r".encode())
    return message.segments("PID")[0].repetitions(3)[0]


def test_what_was_read_is_remembered_unless_it_is_long() -> None:
    calls: list[tuple[str, int]] = []

    @functions.remembered(2)
    def read(text: str, other: int) -> int:
        calls.append((text, other))
        return len(text) + other

    long = "x" * 100_000
    assert [read("abc", 1), read("abc", 1), read("abc", 2), read(long, 1), read(long, 1)] == [4, 4, 5, 100_001, 100_001]
    assert calls == [("abc", 1), ("abc", 2), (long, 1), (long, 1)]


# --- dates and times


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("1958", "1958"),
        ("195807", "1958-07"),
        ("19580715", "1958-07-15"),
        ("195807151430", "1958-07-15"),
        ("19580715143000.1234+0100", "1958-07-15"),
        ("20000229", "2000-02-29"),
        ("18000101", "1800-01-01"),
    ],
)
def test_a_date_keeps_the_precision_that_was_sent(text: str, iso: str) -> None:
    assert iso_date(text) == iso


@pytest.mark.parametrize(
    "text",
    ["195", "19587", "1958071", "19580230", "19581301", "19580700", "19580000", "00000000", "00010101", "99991231",
     "1958-07-15", "15.07.1958", "N", "1958071525", "١٩٥٨", "19580715 ", "19580715+", "18991"],
)  # fmt: skip
def test_a_date_that_does_not_exist_is_a_flaw_and_never_a_guess(text: str) -> None:
    assert iso_date(text) == Flaw("invalid-date", ABSENT)


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2026", "2026"),
        ("20260715", "2026-07-15"),
        ("2026071514", "2026-07-15T14-04:00"),
        ("202607151430", "2026-07-15T14:30-04:00"),
        ("20260715143005", "2026-07-15T14:30:05-04:00"),
        ("20260715143005.25", "2026-07-15T14:30:05.25-04:00"),
        ("20260115143005", "2026-01-15T14:30:05-05:00"),
        ("20260715143005+0200", "2026-07-15T14:30:05+02:00"),
        ("20260715143005-0500", "2026-07-15T14:30:05-05:00"),
        ("202607151430+0545", "2026-07-15T14:30+05:45"),
        ("20260715-0500", "2026-07-15"),
    ],
)
def test_a_time_keeps_its_digits_and_gets_the_offset_of_the_channel(text: str, iso: str) -> None:
    assert iso_time(text, NEW_YORK) == iso


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("202611010130", "2026-11-01T01:30-04:00"),  # twice: the clock goes back at 2
        ("202603080230", "2026-03-08T02:30-05:00"),  # never: the clock goes forward at 2
    ],
)
def test_a_local_time_that_is_not_one_moment_is_noted(text: str, iso: str) -> None:
    assert iso_time(text, NEW_YORK) == Flaw("ambiguous-local-time", iso)
    assert iso_time(f"{text}-0500", NEW_YORK) == f"{iso[:-6]}-05:00"


@pytest.mark.parametrize(
    "text",
    ["20260715240000", "20260715146000", "20260715143060", "20260715143005+1500", "20260715143005+0060", "now",
     "99991231235959", "00010101000000", "20260715T1430", "20260715143005Z", "20260715143005.12345"],
)  # fmt: skip
def test_a_time_that_does_not_exist_is_a_flaw(text: str) -> None:
    assert iso_time(text, NEW_YORK) == Flaw("invalid-time", ABSENT)


@given(st.dates(date(1800, 1, 1), date(2999, 12, 31)))
def test_every_day_is_read_back_as_itself(day: date) -> None:
    assert iso_date(day.strftime("%Y%m%d").rjust(8, "0")) == day.isoformat()


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2199, 12, 30)),  # noqa: DTZ001  # hypothesis adds the zone
    st.sampled_from(["America/New_York", "Europe/London", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC"]),
)
def test_a_local_time_names_the_same_instant_as_its_result(local: datetime, zone_name: str) -> None:
    zone = ZoneInfo(zone_name)
    result = iso_time(local.strftime("%Y%m%d%H%M%S"), zone)
    moment = parse_moment(result.value if isinstance(result, Flaw) else result)
    expected = local.replace(microsecond=0, tzinfo=zone)
    assert moment is not None
    assert moment.astimezone(UTC) == expected.astimezone(UTC)
    once = expected.replace(fold=0).utcoffset() == expected.replace(fold=1).utcoffset()
    assert isinstance(result, Flaw) is not once


@given(st.text(max_size=30) | st.text(alphabet="0123456789+-.", max_size=26))
def test_any_text_is_a_time_that_can_be_used_or_a_flaw(text: str) -> None:
    result = iso_time(text, NEW_YORK)
    if isinstance(result, Flaw):
        assert result.value is ABSENT or result.code == "ambiguous-local-time"
    elif "T" in result:
        moment = datetime.fromisoformat(result)
        assert moment.utcoffset() is not None
        assert moment.astimezone(UTC) + timedelta(0) == moment
    assert (iso_date(text) == Flaw("invalid-date")) or len(str(iso_date(text))) in {4, 7, 10}


# --- phones


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("(217)555-0123", "+12175550123"),
        ("217-555-0123", "+12175550123"),
        ("1 217 555 0123", "+12175550123"),
        ("(217)555-0123X123", "+12175550123"),
        ("(217)555-0123 ext. 4", "+12175550123"),
        ("217.555.0123 CELL", "+12175550123"),
        ("home: 217-555-0123", "+12175550123"),
        ("tel:+1-217-555-0123", "+12175550123"),
        ("+44 20 7183 8750", "+442071838750"),
        ("011 44 20 7183 8750", "+442071838750"),
        ("(555)555-1234", "+15555551234"),
    ],
)
def test_a_phone_becomes_e164(text: str, number: str) -> None:
    assert e164(text, "US") == number


@pytest.mark.parametrize(
    "text",
    ["555-0123", "911", "", "none", "eve@example.test", "217-555-012", "217-555-01234", "555-1234CEL", "1-800-FLOWERS",
     "2175550123/2175550124", "+", "++1", "٢١٧" * 4, "9" * 400],
)  # fmt: skip
def test_what_is_not_one_whole_number_is_no_phone(text: str) -> None:
    assert e164(text, "US") is None


@given(st.text(max_size=40) | st.text(alphabet="0123456789()+-. xX", max_size=24))
def test_any_text_is_a_possible_phone_number_or_none(text: str) -> None:
    number = e164(text, "US")
    assert number is None or phonenumbers.is_possible_number(phonenumbers.parse(number))


@given(
    st.sampled_from(["US", "CA"]),
    st.sampled_from(
        ["{}{}{}", "({}){}-{}", "({}) {}-{}", "{}-{}-{}", "{}.{}.{}", "+1{}{}{}", "+1({}){}{}", "{} {} {}"]
    ),
    st.integers(200, 999),
    st.integers(0, 999),
    st.integers(0, 9999),
)
def test_a_north_american_number_is_what_phonenumbers_makes_of_it(
    region: str, form: str, area: int, exchange: int, line: int
) -> None:
    text = form.format(area, f"{exchange:03}", f"{line:04}")
    number = phonenumbers.parse(text, region)
    assert phonenumbers.is_possible_number(number)
    assert e164(text, region) == phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("(217)555-0123^PRN^PH", "+12175550123"),
        ("^PRN^CP^^1^217^5550123", "+12175550123"),
        ("^PRN^CP^^^217^5550123", "+12175550123"),
        ("^PRN^CP^^+41^44^5550166", "+41445550166"),
        ("^PRN^CP^^^^^^^^^+12175550123", "+12175550123"),
        ("see below^PRN^PH^^1^217^5550123", "+12175550123"),
        ("5550123^PRN^PH", Flaw("invalid-phone")),
        ("^PRN^PH^^^^5550123", Flaw("invalid-phone")),
        ("^NET^Internet^eve@example.test", ABSENT),
        ("(217)555-0123^WPN^FX", ABSENT),
        ("^PRN^PH^^1^217", ABSENT),
        ('""', None),
    ],
)
def test_a_telephone_field_of_any_version_is_read(text: str, number: object) -> None:
    assert functions.phone("US")(repetition(text)) == number


# --- single values


@pytest.mark.parametrize(("text", "value"), [("Y", True), ("N", False), ("y", True), ("n", False)])
def test_yes_and_no(text: str, value: bool) -> None:
    assert functions.boolean(text) is value


@pytest.mark.parametrize("text", ["1", "0", "T", "YES", "U", "?"])
def test_anything_else_is_neither_yes_nor_no(text: str) -> None:
    assert functions.boolean(text) == Flaw("invalid-boolean")


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("12", 12), ("-3", -3), ("007", 7)])
def test_whole_numbers(text: str, value: int) -> None:
    assert functions.integer(text) == value


@pytest.mark.parametrize("text", ["1.5", "1e3", "1_000", "twelve", "9" * 5000, "٣"])
def test_other_numbers_are_flaws(text: str) -> None:
    assert functions.integer(text) == Flaw("invalid-integer")


@pytest.mark.parametrize(("text", "code"), [("1", "01"), ("01", "01"), ("06", "06"), ("81", "81"), ("HOM", "HOM")])
def test_a_disposition_has_two_digits(text: str, code: str) -> None:
    assert functions.disposition(text) == code


# --- parts


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7^^^MRN^MR", Identifier(value="7", authority="MRN", type="MR")),
        ("7^^^MRN&1.2.3&ISO^MR", Identifier(value="7", authority="MRN", type="MR")),
        ("7^^^&1.2.3&ISO^MR", Identifier(value="7", authority="1.2.3", type="MR")),
        (" 7 ", Identifier(value="7", authority="", type="")),
        ('7^^^""^""', Identifier(value="7", authority="", type="")),
        ("A\\T\\B^^^H", Identifier(value="A&B", authority="H", type="")),
        ("^^^MRN^MR", ABSENT),
        ('""', None),
        ('""^^^MRN', None),
    ],
)
def test_identifiers(text: str, value: object) -> None:
    assert functions.identifier(repetition(text)) == value


def test_names_addresses_and_providers_are_read_part_by_part() -> None:
    assert functions.name(repetition("Doe&van&Doe^Jane^Q^III^Dr^^L")) == Name(
        family="Doe", given="Jane", middle="Q", suffix="III", prefix="Dr"
    )
    assert functions.name(repetition('Doe^""^ ')) == Name(family="Doe")
    assert functions.name(repetition("^^^^^^L")) is ABSENT
    assert functions.name(repetition('""')) is None
    assert functions.address(repetition("1 A St&A St&1^Apt 2^Town^ST^12345^USA^H")) == Address(
        line="1 A St, Apt 2", city="Town", state="ST", postal_code="12345", country="USA"
    )
    assert functions.address(repetition("^^Town")) == Address(city="Town")
    assert functions.provider(repetition("99^Doe&&^Jane^^^Dr")) == Provider(id="99", family="Doe", given="Jane")
