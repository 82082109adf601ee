"""The look at MSH, and what real senders do to it (section 1 of the HL7 rules)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.hl7v2 import header as h
from engine.hl7v2.charset import BYTE_ORDER_MARK
from engine.hl7v2.header import EVENT_FROM_EVN, VERSION_MISSING, HeaderError, read_header
from engine.hl7v2.message import Message

MESSAGES = sorted((Path(__file__).parents[2] / "messages").glob("*.hl7"))

FULL = (
    b"MSH|^~\\&|REG^1.2.3^ISO|HOSP|HANDOFF|CRM|20240612083015-0500||ADT^A01^ADT_A01|MSG0001|P^T|2.5.1^USA|42||AL|NE|USA|8859/1~ASCII\r"
    b"PID|1||7\r"
)


def msh(**fields: bytes) -> bytes:
    """A message whose MSH has some fields replaced, as in n9=b"ADT^A01"."""
    parts = FULL.split(b"\r", 1)[0].split(b"|")
    for name, value in fields.items():
        parts[int(name[1:]) - 1] = value
    return b"|".join(parts) + b"\rPID|1||7\r"


def refusal(payload: bytes) -> HeaderError:
    with pytest.raises(HeaderError) as caught:
        read_header(payload)
    return caught.value


def test_what_intake_needs_is_read() -> None:
    header = read_header(FULL)
    assert (header.message_code, header.trigger_event, header.type, header.message_structure) == (
        "ADT",
        "A01",
        "ADT^A01",
        "ADT_A01",
    )
    assert (header.control_id, header.control_id_raw) == ("MSG0001", b"MSG0001")
    assert (header.processing_id, header.version, header.sequence_number) == ("P", "2.5.1", 42)
    assert (header.sending_application, header.sending_facility) == ("REG", "HOSP")
    assert (header.receiving_application, header.receiving_facility) == ("HANDOFF", "CRM")
    assert (header.accept_ack, header.application_ack) == ("AL", "NE")
    assert header.sent_at == "20240612083015-0500"
    assert header.charset_names == ("8859/1", "ASCII")
    assert header.text(3, 2) == "1.2.3"
    assert header.deviations == ()


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.stem)
def test_our_own_messages_have_readable_headers_without_deviations(path: Path) -> None:
    header = read_header(path.read_bytes())
    assert header.message_code == "ADT"
    assert header.deviations == ()


@pytest.mark.parametrize("terminator", [b"\r", b"\n", b"\r\n"])
def test_cr_lf_and_crlf_end_the_header(terminator: bytes) -> None:
    header = read_header(FULL.replace(b"\r", terminator))
    assert header.charset_names == ("8859/1", "ASCII")


def test_a_header_without_any_terminator_is_read() -> None:
    assert read_header(b"MSH|^~\\&|A|B|C|D|||ACK|1").control_id == "1"


@pytest.mark.parametrize("lead", [b"\r", b"\n", b"\r\n\r\n", b"  ", b"\x00", b"\t"])
def test_blank_bytes_before_the_header_are_a_deviation(lead: bytes) -> None:
    header = read_header(lead + FULL)
    assert header.control_id == "MSG0001"
    assert header.deviations == (h.LEADING_BYTES,)


def test_a_byte_order_mark_before_the_header_is_a_deviation() -> None:
    header = read_header(b"\xef\xbb\xbf" + FULL)
    assert header.control_id == "MSG0001"
    assert header.deviations == (BYTE_ORDER_MARK,)


def test_delimiters_are_those_of_msh_1_and_msh_2() -> None:
    header = read_header(b"MSH$%*!@$A%1$B$C$D$2024$$ADT%A08%ADT_A01$ID-1$P$2.3\r")
    assert (header.type, header.control_id, header.sending_application) == ("ADT^A08", "ID-1", "A")
    assert header.delimiters.encoding == "%*!@"
    assert header.deviations == ()


def test_the_truncation_character_is_read() -> None:
    header = read_header(msh(n2=b"^~\\&#"))
    assert header.delimiters.truncation == "#"
    assert header.deviations == ()


def test_a_backslash_doubled_by_a_programmer_is_the_escape_and_the_subcomponent_separator_is_not_lost() -> None:
    header = read_header(msh(n2=b"^~\\\\&"))
    assert (header.delimiters.escape, header.delimiters.subcomponent, header.delimiters.truncation) == ("\\", "&", "")
    assert header.deviations == (h.ESCAPE_DOUBLED,)


@pytest.mark.parametrize("encoding", [b"^~\\&amp;", b"^~\\& ", b"^~\\&A", b"^~\\&#!", b"^~\\&^"])
def test_of_more_characters_than_can_be_delimiters_the_first_four_count(encoding: bytes) -> None:
    header = read_header(msh(n2=encoding))
    assert header.delimiters.encoding == "^~\\&"
    assert header.deviations == (h.ENCODING_CHARACTERS_LONG,)


def test_undeclared_delimiters_split_nothing() -> None:
    header = read_header(msh(n2=b"^~"))
    assert (header.delimiters.escape, header.delimiters.subcomponent) == ("", "")
    assert header.deviations == (h.ENCODING_CHARACTERS_MISSING,)


def test_an_empty_msh_2_means_the_usual_delimiters() -> None:
    header = read_header(msh(n2=b""))
    assert header.delimiters.encoding == "^~\\&"
    assert header.type == "ADT^A01"
    assert header.deviations == (h.ENCODING_CHARACTERS_MISSING,)


def test_the_usual_delimiters_never_collide_with_the_field_separator() -> None:
    delimiters = read_header(b"MSH^^A^B^C^D^2024^^ACK^1^P^2.3\r").delimiters
    assert (delimiters.field, delimiters.component) == ("^", "|")


def test_a_missing_msh_9_3_is_a_deviation() -> None:
    header = read_header(msh(n9=b"ADT^A01"))
    assert header.type == "ADT^A01"
    assert header.deviations == (h.STRUCTURE_MISSING,)


def test_a_missing_msh_9_3_is_none_before_2_3_1_which_brought_it() -> None:
    assert read_header(msh(n9=b"ADT^A01", n12=b"2.3")).deviations == ()


def test_lower_case_events_are_normalised_and_recorded() -> None:
    header = read_header(msh(n9=b"adt^a01^adt_a01"))
    assert (header.type, header.message_structure) == ("ADT^A01", "ADT_A01")
    assert header.deviations == (h.EVENT_CASE,)


def test_a_lower_case_header_name_is_recorded() -> None:
    assert read_header(FULL.replace(b"MSH", b"msh")).deviations == (h.SEGMENT_CASE,)


def test_over_long_fields_are_accepted() -> None:
    header = read_header(msh(n3=b"A" * 100_000, n10=b"9" * 5000, n9=b"ADT^A01^" + b"X" * 500))
    assert header.control_id_raw == b"9" * 5000
    assert header.type == "ADT^A01"
    assert len(header.sending_application) == 100_000


def test_the_control_id_is_kept_byte_for_byte() -> None:
    header = read_header(msh(n10=b" \xfc\\T\\7^x "))
    assert header.control_id_raw == b" \xfc\\T\\7^x "
    assert header.control_id == "ü\\T\\7^x"  # 8859/1 is declared


def test_absent_fields_are_empty() -> None:
    header = read_header(b"MSH|^~\\&|||||||ADT^A01|7\r")
    assert (header.version, header.processing_id, header.accept_ack, header.charset_names) == ("", "", "", ())
    assert header.sequence_number is None
    assert header.raw(25) == b""


@pytest.mark.parametrize(
    ("sent", "read"), [(b"7", 7), (b"-1", -1), (b"0", 0), (b"", None), (b"x", None), (b"9" * 5000, None)]
)
def test_the_sequence_number_is_a_number_or_absent(sent: bytes, read: int | None) -> None:
    assert read_header(msh(n13=sent)).sequence_number == read


def test_an_explicit_null_asks_for_no_acknowledgment_condition() -> None:
    assert read_header(msh(n15=b'""')).accept_ack == ""


@pytest.mark.parametrize(
    "payload", [b"", b"   ", b"hello", b"PID|1||7\r", b"\xef\xbb\xbf", b"\xff\xfe\x00", b"FHS|^~\\&\r"]
)
def test_bytes_without_a_header_are_refused_with_100_and_nothing_to_echo(payload: bytes) -> None:
    error = refusal(payload)
    assert (error.hl7_code, error.location, error.header) == (100, "MSH", None)


@pytest.mark.parametrize("payload", [b"MSH", b"MSH\r", b"MSHA^~\\&A", b"MSH ^~\\& A", b"MSH\xa6^~\\&\xa6"])
def test_an_unusable_field_separator_is_refused_with_102(payload: bytes) -> None:
    error = refusal(payload)
    assert (error.hl7_code, error.location, error.header) == (102, "MSH-1", None)


@pytest.mark.parametrize("encoding", [b"ABCD", b"^^\\&", b"^~\x01&", b"^~\xa7&"])
def test_unusable_delimiters_are_refused_with_102_and_the_control_id_is_known_all_the_same(encoding: bytes) -> None:
    error = refusal(msh(n2=encoding))
    assert (error.hl7_code, error.location) == (102, "MSH-2")
    assert error.header is not None
    assert error.header.control_id_raw == b"MSG0001"


@pytest.mark.parametrize("type_", [b"", b"^A01", b"  ", b'""'])
def test_a_missing_message_type_is_refused_with_101(type_: bytes) -> None:
    error = refusal(msh(n9=type_))
    assert (error.hl7_code, error.location) == (101, "MSH-9")
    assert error.header is not None
    assert error.header.control_id_raw == b"MSG0001"


@pytest.mark.parametrize("control_id", [b"", b"  "])
def test_a_missing_control_id_is_refused_with_101(control_id: bytes) -> None:
    error = refusal(msh(n10=control_id))
    assert (error.hl7_code, error.location) == (101, "MSH-10")
    assert error.header is not None
    assert error.header.type == "ADT^A01"


@pytest.mark.parametrize("second", [b"\rMSH|^~\\&|", b"\nMSH|^~\\&|", b"\rMSH$%*!@$"])
def test_two_messages_merged_into_one_payload_are_refused(second: bytes) -> None:
    error = refusal(FULL + second + b"X\rPID|1||8\r")
    assert (error.error, error.hl7_code, error.location) == ("several-headers", 100, "MSH[2]")


@pytest.mark.parametrize("indent", [b" ", b"    ", b"\t", b" " * 40])
@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n", b"\r\n\r\n"])
def test_a_second_message_that_is_indented_is_refused_as_well(end: bytes, indent: bytes) -> None:
    error = refusal(FULL.replace(b"\r", end) + b"PID|1||7" + end + indent + FULL)
    assert (error.error, error.hl7_code) == ("several-headers", 100)


@pytest.mark.parametrize("second", [b"\r msh|^~\\&|", b"\r\x00msh|"])
def test_a_second_header_in_disguise_is_refused_by_the_reader(second: bytes) -> None:
    with pytest.raises(HeaderError, match="several messages"):
        Message.parse(FULL + second + b"X\rPID|1||8\r")


def test_a_text_that_only_mentions_msh_is_no_second_header() -> None:
    assert read_header(FULL + b"NTE|1||see MSH|x\rMSHAPE|1\r").control_id == "MSG0001"


@given(
    st.binary(max_size=120),
    st.sampled_from([b"", b"MSH", b"MSH|", b"MSH|^~\\&|", FULL, b"\xff\xfe", b"M\x00S\x00H\x00|\x00"]),
)
def test_any_bytes_are_a_header_or_a_header_error_that_names_no_value(tail: bytes, head: bytes) -> None:
    header, text = None, ""
    try:
        header = read_header(head + tail)
    except HeaderError as error:
        header, text = error.header, str(error)
    assert text in {
        "",
        "MSH: the message does not start with MSH",
        "MSH-1: MSH-1 is no usable separator",
        "MSH-2: MSH-2 holds unusable delimiters",
        "MSH-9: the message type is missing",
        "MSH-10: the control id is missing",
        "MSH[2]: one payload holds several messages",
        "MSH-18: MLLP can't carry UTF-16 or UTF-32: send UTF-8",
    }
    if header is not None:
        assert all(isinstance(header.text(number), str) for number in range(2, 26))
        assert isinstance(header.charset_names, tuple)
        assert isinstance(header.sequence_number, int | None)


def test_a_header_never_shows_its_content() -> None:
    assert "MSG0001" not in repr(read_header(FULL))


@pytest.mark.parametrize(
    "encoding", [b"^~&", b"^\\&", b"^&", b"&", b"~&", b"^\\", b"^~&&", b"~^\\", b"\\", b"^&~", b"#~&", b"~"]
)
def test_a_usual_delimiter_out_of_its_place_among_fewer_than_four_is_refused_with_102(encoding: bytes) -> None:
    error = refusal(msh(n2=encoding))
    assert (error.error, error.hl7_code, error.location) == ("encoding-characters", 102, "MSH-2")


@pytest.mark.parametrize("encoding", [b"^~\\&", b"^~\\", b"^~", b"^", b"^~\\&#", b"$%*!", b"~^\\&", b"^~\\@", b"@"])
def test_delimiters_in_their_places_are_accepted(encoding: bytes) -> None:
    assert read_header(msh(n2=encoding)).delimiters.component == encoding[:1].decode()


EVN = b"EVN|%s|20260101\rPID|1||7\r"


@pytest.mark.parametrize("type_", [b"ADT", b"adt", b" ADT ", b"ADT^", b"ADT^ ", b'ADT^""', b"ADT^^ADT_A03"])
@pytest.mark.parametrize("event", [b"A03", b"a03", b" A03 ", b"A03^X"])
@pytest.mark.parametrize("version", [b"2.1", b"2.2", b""])
def test_the_event_of_an_old_message_without_one_in_msh_9_is_that_of_evn_1(
    version: bytes, event: bytes, type_: bytes
) -> None:
    for end in (b"\r", b"\n", b"\r\n"):
        header = read_header((msh(n9=type_, n12=version) + b"\r" + EVN % event).replace(b"\r", end))
        assert header.type == "ADT^A03"
        assert EVENT_FROM_EVN in header.deviations


@pytest.mark.parametrize("version", [b"2.3", b"2.5.1", b"2.9"])
def test_the_event_of_a_later_message_is_in_msh_9_alone(version: bytes) -> None:
    assert read_header(msh(n9=b"ADT", n12=version) + b"\r" + EVN % b"A03").trigger_event == ""


@pytest.mark.parametrize("event", [b"", b"A3", b"A033", b"\xfc03", b"A0^", b'""'])
def test_an_event_that_is_none_is_not_taken_from_evn_1(event: bytes) -> None:
    header = read_header(msh(n9=b"ADT", n12=b"2.1") + b"\r" + EVN % event)
    assert header.trigger_event == ""


def test_the_event_of_msh_9_comes_before_that_of_evn_1() -> None:
    header = read_header(msh(n9=b"ADT^A01", n12=b"2.2") + b"\r" + EVN % b"A03")
    assert (header.trigger_event, EVENT_FROM_EVN in header.deviations) == ("A01", False)


@given(value=st.binary(max_size=80).filter(lambda value: not {*value} & {*b"|\r\n"}))
def test_a_field_that_is_remembered_reads_as_any_other(value: bytes) -> None:
    for number, name in ((3, "sending_application"), (4, "sending_facility"), (11, "processing_id"), (12, "version")):
        header = read_header(msh(**{f"n{number}": value}))
        assert getattr(header, name) == header.text(number)


def test_a_missing_version_is_recorded() -> None:
    assert VERSION_MISSING in read_header(msh(n12=b"")).deviations
    assert VERSION_MISSING not in read_header(msh()).deviations
