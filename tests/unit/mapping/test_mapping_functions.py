from __future__ import annotations

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.patient import Address, Identifier, Name, Provider
from engine.hl7v2.message import Message, Repetition
from engine.mapping import functions
from engine.mapping.functions import ABSENT, Flaw, SentIdentifier, e164


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


@pytest.mark.parametrize(
    "number",
    ["55\u200b81", "5581\ufeff", "55\u00ad81", "55\u202e81", "55\u206081", "55\u00a081", "55\u316481", "5581\ufe0f",
     "55\u202881", "1" * 201, "1" * 10_000],
)  # fmt: skip
def test_a_number_that_looks_like_another_one_or_has_no_end_finds_nobody(number: str) -> None:
    assert functions.identifier(repetition(f"{number}^^^MRN^MR")) == Flaw("invalid-identifier")


@pytest.mark.parametrize("number", ["55 81", "M-55/81", "5581\u00e9", "\u0663\u0664", "1" * 200])
def test_any_other_number_finds_its_patient(number: str) -> None:
    assert functions.identifier(repetition(f"{number}^^^MRN^MR")).value == number


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
        ("7^^^MRN^ mr ", Identifier(value="7", authority="MRN", type="MR")),
        ("7^^^MRN&1.2.3&ISO^MR", SentIdentifier(value="7", authority="MRN", type="MR", universal="1.2.3")),
        (
            "7^^^&1.2.3&ISO^MR^^2015^20200101",
            SentIdentifier(value="7", authority="1.2.3", type="MR", effective="2015", expires="20200101"),
        ),
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
