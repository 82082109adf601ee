"""Section 2 of the HL7 rules: acknowledgments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import hl7
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.message import AckCode
from engine.errors import MessageError
from engine.hl7v2.ack import CONDITION_UNKNOWN, ERROR_TEXTS, Verdict, acknowledge, modes, owed, parse_ack
from engine.hl7v2.header import Header, HeaderError, is_ack, read_header
from engine.hl7v2.message import Message
from engine.hl7v2.mllp import FrameDecoder, wrap

NOW = datetime(2024, 6, 12, 8, 30, 15, tzinfo=timezone(timedelta(hours=-5)))
ACCEPTED = Verdict(code=AckCode.AA)
REFUSED = Verdict(
    code=AckCode.AE, hl7_code=101, error="identifier-missing", location="PID-3", text="no identifier of this channel"
)


def header(version: bytes = b"2.5.1", accept: bytes = b"", application: bytes = b"", charset: bytes = b"") -> Header:
    conditions = b"|".join((accept, application, b"", charset))
    return read_header(
        b"MSH|^~\\&|REG^1.2.3^ISO|HOSP&x|HANDOFF|CRM^9|20240612||ADT^A01^ADT_A01| ID\\T\\7 |P^T|"
        + version
        + b"^USA|||"
        + conditions
        + b"\rPID|1\r"
    )


def answer(verdict: Verdict = ACCEPTED, **fields: bytes) -> bytes:
    return acknowledge(header(**fields), verdict, now=NOW, control_id="H1")


def fields_of(ack: bytes, name: bytes) -> list[bytes]:
    return next((line.split(b"|") for line in ack.split(b"\r") if line.startswith(name)), [])


def test_the_whole_answer_to_an_accepted_message() -> None:
    assert answer() == (
        b"MSH|^~\\&|HANDOFF|CRM^9|REG^1.2.3^ISO|HOSP&x|20240612083015-0500||ACK^A01^ACK|H1|P^T|2.5.1^USA\r"
        b"MSA|AA| ID\\T\\7 \r"
    )


def test_sender_and_receiver_are_swapped_whole_with_all_components() -> None:
    assert fields_of(answer(), b"MSH")[2:6] == [b"HANDOFF", b"CRM^9", b"REG^1.2.3^ISO", b"HOSP&x"]


def test_msh_7_has_an_offset() -> None:
    assert fields_of(answer(), b"MSH")[6] == b"20240612083015-0500"


def test_msh_9_names_the_event_that_is_answered() -> None:
    assert fields_of(answer(), b"MSH")[8] == b"ACK^A01^ACK"


def test_msh_10_is_our_own() -> None:
    assert fields_of(answer(), b"MSH")[9] == b"H1"


def test_msh_11_and_msh_12_are_echoed() -> None:
    assert fields_of(answer(), b"MSH")[10:12] == [b"P^T", b"2.5.1^USA"]


def test_msa_2_is_the_senders_msh_10_byte_for_byte() -> None:
    raw = b" \xfc\\T\\^7~ "
    ack = acknowledge(read_header(b"MSH|^~\\&|||||||ADT^A01|" + raw + b"|P|2.3\r"), ACCEPTED, now=NOW, control_id="H1")
    assert fields_of(ack, b"MSA")[2] == raw


def test_custom_delimiters_are_answered_in_kind() -> None:
    read = read_header(b"MSH$%*!@#$A%1$B$C$D$2024$$ADT%A08%ADT_A01$ID-1$P$2.5\r")
    ack = acknowledge(
        read,
        Verdict(code=AckCode.AE, hl7_code=102, error="x", location="PID-7.1", text="a$b%c"),
        now=NOW,
        control_id="H1",
    )
    assert ack == (
        b"MSH$%*!@#$C$D$A%1$B$20240612083015-0500$$ACK%A08%ACK$H1$P$2.5\r"
        b"MSA$AE$ID-1$a!F!b!S!c\r"
        b"ERR$$PID%1%7%1%1$102%Data type error%HL70357$E$x%%L$$$a!F!b!S!c\r"
    )


@pytest.mark.parametrize(("version", "text"), [(b"2.3", True), (b"2.6", True), (b"2.7", False), (b"2.8.2", False)])
def test_msa_3_is_a_short_text_for_senders_before_2_7(version: bytes, text: bool) -> None:
    msa = fields_of(answer(REFUSED, version=version), b"MSA")
    assert msa[3:] == ([b"no identifier of this channel"] if text else [])


def test_msa_3_is_cut_to_the_80_characters_it_may_have() -> None:
    verdict = Verdict(code=AckCode.AE, hl7_code=207, text="x" * 300)
    assert fields_of(answer(verdict), b"MSA")[3] == b"x" * 80


@pytest.mark.parametrize("version", [b"2.5", b"2.5.1", b"2.7.1", b"2.8", b"", b"nonsense"])
def test_from_2_5_on_err_has_location_code_severity_our_code_and_text(version: bytes) -> None:
    err = fields_of(answer(REFUSED, version=version), b"ERR")
    assert err[1:] == [
        b"", b"PID^1^3", b"101^Required field missing^HL70357", b"E", b"identifier-missing^^L", b"", b"",
        b"no identifier of this channel",
    ]  # fmt: skip


@pytest.mark.parametrize("version", [b"2.1", b"2.3", b"2.3.1", b"2.4"])
def test_before_2_5_the_error_stands_in_err_1(version: bytes) -> None:
    assert fields_of(answer(REFUSED, version=version), b"ERR")[1:] == [b"PID^1^3^101&Required field missing&HL70357"]


def test_before_2_5_an_error_without_a_place_leaves_the_place_empty() -> None:
    verdict = Verdict(code=AckCode.AR, hl7_code=207)
    assert fields_of(answer(verdict, version=b"2.3"), b"ERR")[1:] == [b"^^^207&Application internal error&HL70357"]


@pytest.mark.parametrize(
    ("location", "erl"),
    [
        ("MSH", b"MSH^1"),
        ("MSH[2]", b"MSH^2"),
        ("PID-3", b"PID^1^3"),
        ("PID-3.1", b"PID^1^3^1^1"),
        ("PID-3[2].4.1", b"PID^1^3^2^4^1"),
        ("DG1[2]-3.1", b"DG1^2^3^1^1"),
        ("PID-3[type=MR].1", b"PID^1^3^1^1"),
        (None, b""),
        ("not a place", b""),
    ],
)
def test_a_location_is_written_as_erl(location: str | None, erl: bytes) -> None:
    verdict = Verdict(code=AckCode.AE, hl7_code=101, location=location)
    assert fields_of(answer(verdict), b"ERR")[2] == erl


@pytest.mark.parametrize(
    ("code", "hl7_code", "severity"),
    [(AckCode.AE, 101, b"E"), (AckCode.CR, 203, b"E"), (AckCode.AA, 103, b"W"), (AckCode.AA, 0, b"I")],
)
def test_the_severity_tells_errors_warnings_and_remarks(code: AckCode, hl7_code: int, severity: bytes) -> None:
    verdict = Verdict(code=code, hl7_code=hl7_code, error="remark")
    assert fields_of(answer(verdict), b"ERR")[4] == severity


def test_table_0357_has_its_codes() -> None:
    assert sorted(ERROR_TEXTS) == [0, 100, 101, 102, 103, 104, 200, 201, 202, 203, 204, 205, 206, 207]


def test_a_wrong_sequence_number_is_answered_with_the_expected_one_in_msa_4() -> None:
    verdict = Verdict(code=AckCode.AE, hl7_code=207, error="sequence", expected_sequence=17)
    assert fields_of(answer(verdict), b"MSA")[4] == b"17"
    assert fields_of(answer(verdict, version=b"2.8"), b"MSA")[3:] == [b"", b"17"]


@pytest.mark.parametrize(
    ("declared", "control_id", "said"),
    [
        (b"", b"1", b""),
        (b"", "Ü".encode(), b"UNICODE UTF-8"),
        (b"", b"\xdc", b""),
        (b"8859/1", b"\xdc", b"8859/1"),
        (b"8859/1", b"1", b"8859/1"),
        (b"ASCII", "Ü".encode(), b"UNICODE UTF-8"),
        (b"KLINGON", b"1", b""),
        (b"UNICODE UTF-16", b"1", b""),
    ],
)
def test_msh_18_says_how_the_reply_is_encoded(declared: bytes, control_id: bytes, said: bytes) -> None:
    read = read_header(b"MSH|^~\\&|||||||ADT^A01|" + control_id + b"|P|2.5||||||" + declared + b"\r")
    msh = fields_of(acknowledge(read, ACCEPTED, now=NOW, control_id="H1"), b"MSH")
    assert (msh[17] if len(msh) > 17 else b"") == said


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32-le"])
def test_the_refusal_of_a_message_in_utf_16_names_its_control_id_in_utf_8(encoding: str) -> None:
    with pytest.raises(HeaderError) as caught:
        read_header("MSH|^~\\&|Ä||||||ADT^A01|Ü|P|2.5\r".encode(encoding))
    refused = Verdict(code=AckCode.AR, hl7_code=102, error="charset-not-accepted", location="MSH-18")
    ack = acknowledge(caught.value.header, refused, now=NOW, control_id="H1").decode()
    assert "MSA|AR|Ü\r" in ack
    assert "|UNICODE UTF-8\r" in ack


def test_an_answer_in_utf_16_is_no_answer() -> None:
    with pytest.raises(MessageError):
        parse_ack("MSH|^~\\&|||||||ACK|1|P|2.5\rMSA|AA|7\r".encode("utf-16"))


def test_a_message_whose_header_cannot_be_read_is_answered_with_an_empty_msa_2() -> None:
    verdict = Verdict(
        code=AckCode.AR,
        hl7_code=100,
        error="header-missing",
        location="MSH",
        text="the message does not start with MSH",
    )
    ack = acknowledge(None, verdict, now=NOW, control_id="H1")
    assert fields_of(ack, b"MSA")[:3] == [b"MSA", b"AR", b""]
    assert fields_of(ack, b"MSH")[8:12] == [b"ACK", b"H1", b"P", b"2.5.1"]
    assert read_header(ack).type == "ACK"


def test_a_message_without_control_id_is_answered_with_an_empty_msa_2() -> None:
    with pytest.raises(HeaderError) as caught:
        read_header(b"MSH|^~\\&|A|B|C|D|2024||ADT^A01||P|2.5\r")
    verdict = Verdict(code=AckCode.AR, hl7_code=caught.value.hl7_code, location=caught.value.location)
    ack = acknowledge(caught.value.header, verdict, now=NOW, control_id="H1")
    assert fields_of(ack, b"MSA") == [b"MSA", b"AR", b""]
    assert fields_of(ack, b"ERR")[2] == b"MSH^1^10"


@pytest.mark.parametrize("type_", [b"ACK", b"ACK^A01^ACK", b"ack^a01", b"MCF^Q02"])
def test_an_ack_of_an_ack_is_never_made(type_: bytes) -> None:
    read = read_header(b"MSH|^~\\&|A|B|C|D|2024||" + type_ + b"|1|P|2.5\r")
    assert is_ack(read)
    with pytest.raises(ValueError, match="never acknowledged"):
        acknowledge(read, ACCEPTED, now=NOW, control_id="H1")


@pytest.mark.parametrize(
    ("accept", "application", "plan"),
    [
        (b"", b"", (True, "NE", "AL")),
        (b"AL", b"", (False, "AL", "NE")),
        (b"", b"ER", (False, "NE", "ER")),
        (b"AL", b"NE", (False, "AL", "NE")),
        (b"NE", b"NE", (False, "NE", "NE")),
        (b"su", b"AL", (False, "SU", "AL")),
        (b'""', b'""', (True, "NE", "AL")),
    ],
)
def test_either_of_msh_15_and_msh_16_means_enhanced_mode_and_each_rules_by_itself(
    accept: bytes, application: bytes, plan: tuple[bool, str, str]
) -> None:
    made = modes(header(accept=accept, application=application), "auto")
    assert (made.original, made.accept, made.application) == plan
    assert made.deviations == ()


def test_an_unknown_condition_is_read_as_always_and_recorded() -> None:
    made = modes(header(accept=b"YES"), "auto")
    assert (made.accept, made.application, made.deviations) == ("AL", "NE", (CONDITION_UNKNOWN,))


@pytest.mark.parametrize(
    ("mode", "accept", "plan"),
    [
        ("original", b"AL", (True, "NE", "AL")),
        ("enhanced", b"", (False, "AL", "NE")),
        ("enhanced", b"ER", (False, "ER", "NE")),
        ("none", b"AL", (False, "NE", "NE")),
    ],
)
def test_a_channel_may_decide_the_mode(mode: str, accept: bytes, plan: tuple[bool, str, str]) -> None:
    made = modes(header(accept=accept), mode)
    assert (made.original, made.accept, made.application) == plan


def test_a_message_without_readable_header_is_owed_one_answer() -> None:
    assert modes(None, "auto").original
    assert modes(None, "original").application == "AL"
    assert modes(None, "enhanced").accept == "AL"


@pytest.mark.parametrize(
    ("condition", "on_success", "on_error"),
    [("AL", True, True), ("NE", False, False), ("ER", False, True), ("SU", True, False)],
)
def test_al_is_always_ne_never_er_on_error_only_su_on_success_only(
    condition: str, on_success: bool, on_error: bool
) -> None:
    assert owed(condition, success=True) is on_success
    assert owed(condition, success=False) is on_error


@pytest.mark.parametrize("version", [b"2.3", b"2.5.1", b"2.8"])
def test_what_we_answer_can_be_read_back(version: bytes) -> None:
    read = parse_ack(answer(REFUSED, version=version))
    assert (read.code, read.control_id, read.hl7_code) == (AckCode.AE, b" ID\\T\\7 ", 101)
    assert read.location == "PID^1^3"
    assert read.text == "no identifier of this channel"
    assert not read.accepted


def test_an_acceptance_is_read() -> None:
    assert parse_ack(answer()).accepted
    assert parse_ack(answer(Verdict(code=AckCode.CA))).accepted


def test_an_acknowledgment_without_a_control_id_of_its_own_is_read() -> None:
    read = parse_ack(b"MSH|^~\\&|A|B|C|D|2024||ACK\nMSA|aa|7|fine \\T\\ well||3\n")
    assert (read.code, read.control_id, read.text) == (AckCode.AA, b"7", "fine & well")


def test_the_expected_sequence_number_is_read() -> None:
    assert parse_ack(b"MSH|^~\\&|||||||ACK|1|P|2.5\rMSA|AE|7||12\r").expected_sequence == 12


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"", "header-missing"),
        (b"OK", "header-missing"),
        (b"MSH|^~\\&|||||||ACK|1|P|2.5\r", "ack-without-msa"),
        (b"MSH|^~\\&|||||||ACK|1|P|2.5\rMSA|AE|7\rMSA|AA|8\r", "ack-with-several-msa"),
        (b"MSH|^~\\&|||||||ACK|1|P|2.5\rMSA|OK|7\r", "ack-code-unknown"),
        (b"MSH|^~\\&|||||||ACK|1|P|2.5\rMSA||7\r", "ack-code-unknown"),
        (b"MSH|^~\\&|||||||ACK|1|P|2.5\rMSA|AA|7\rMSH|^~\\&|||||||ACK|2|P|2.5\rMSA|AA|8\r", "several-headers"),
    ],
)
def test_a_garbage_ack_is_an_error_and_never_a_success(payload: bytes, error: str) -> None:
    with pytest.raises(MessageError) as caught:
        parse_ack(payload)
    assert caught.value.error == error


HEADERS = st.lists(
    st.binary(max_size=12).map(lambda raw: raw.replace(b"\x0b", b"").replace(b"\r", b"").replace(b"\n", b"")),
    max_size=20,
)


@given(
    HEADERS,
    st.sampled_from([b"|^~\\&", b"|^~\\&#", b"$%*!@", b"|^~\\\\&", b"|^", b"|"]),
    st.text(max_size=120),
    st.sampled_from(AckCode),
)
def test_an_answer_is_well_formed_whatever_the_header_holds(
    raw: list[bytes], delimiters: bytes, text: str, code: AckCode
) -> None:
    separator = delimiters[:1]
    payload = b"MSH" + delimiters + separator + separator.join(raw) + b"\rPID" + separator + b"1\r"
    try:
        read: Header | None = read_header(payload)
    except HeaderError as error:
        read = error.header
    if read is None or is_ack(read):
        return
    ack = acknowledge(
        read, Verdict(code=code, hl7_code=101, error="e", location="PID-3", text=text), now=NOW, control_id="H1"
    )
    (frame,) = FrameDecoder(100_000).feed(wrap(ack))
    assert (frame.payload, frame.deviations) == (ack, ())
    back = parse_ack(ack)
    assert back.code == code
    assert back.control_id == read.control_id_raw.replace(b"\x1c", b"").split(separator)[0]
    assert [line[:3] for line in ack.split(b"\r")] == [b"MSH", b"MSA", b"ERR", b""]
    assert [segment.name for segment in Message.parse(ack)] == ["MSH", "MSA", "ERR"]


def test_python_hl7_reads_our_answer() -> None:
    theirs = hl7.parse(answer(REFUSED).decode())
    assert str(theirs.segment("MSA")[1]) == "AE"
    assert str(theirs.segment("MSH")[9]) == "ACK^A01^ACK"


def test_the_answer_time_may_be_utc() -> None:
    ack = acknowledge(header(), ACCEPTED, now=NOW.astimezone(UTC), control_id="H1")
    assert fields_of(ack, b"MSH")[6] == b"20240612133015+0000"
