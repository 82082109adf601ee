"""The reader."""

from __future__ import annotations

from pathlib import Path

import hl7
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.hl7v2 import message as m
from engine.hl7v2.header import SEGMENT_CASE, HeaderError
from engine.hl7v2.message import Message
from engine.hl7v2.path import Path as HL7Path

MESSAGES = sorted((Path(__file__).parents[2] / "messages").glob("*.hl7"))
HEAD = "MSH|^~\\&|REG|HOSP|HANDOFF|CRM|20240612083015||ADT^A01^ADT_A01|MSG1|P|2.5.1\r"
BODY = (
    'PID|1||558181838^^^MRN&1.2.3&ISO^MR~900^^^SSA^SS~77^^^MRN^PI||Test&van^Wilma^Q~Maiden^W||""|F||^|||||||\r'
    "PV1|1|I|3W^301^A\r"
    "DG1|1||I50.9^Heart failure^I10\r"
    "DG1|2||E11.9^Diabetes^I10\r"
    "DG1|3\r"
)


def read(body: str = BODY, head: str = HEAD) -> Message:
    return Message.parse((head + body).encode())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("PID-3.1", "558181838"),
        ("PID-3", "558181838"),
        ("PID-3.1.1", "558181838"),
        ("PID-3.4", "MRN"),
        ("PID-3.4.2", "1.2.3"),
        ("PID-3[2].1", "900"),
        ("PID-3[2].4.1", "SSA"),
        ("PID-3[type=MR].1", "558181838"),
        ("PID-3[type=SS].1", "900"),
        ("PID-3[type=ss].1", "900"),
        ("PID-3[authority=MRN].1", "558181838"),
        ("PID-3[4.1=MRN].1", "558181838"),
        ("PID-3[authority=MRN,type=PI].1", "77"),
        ("PID-3[id=900].5", "SS"),
        ("PID-3[*].1", "558181838"),
        ("PID-5.1", "Test"),
        ("PID-5.1.2", "van"),
        ("PID-5[2].1", "Maiden"),
        ("PV1-2.1.1", "I"),
        ("DG1-3.1", "I50.9"),
        ("DG1[2]-3.1", "E11.9"),
        ("DG1[*]-3.1", "I50.9"),
        ("MSH-1", "|"),
        ("MSH-2", "^~\\&"),
        ("MSH-9.2", "A01"),
        ("MSH-10", "MSG1"),
    ],
)
def test_a_path_leads_to_its_value(path: str, value: str) -> None:
    assert read().get(path) == value
    assert read().get(HL7Path.parse(path)) == value


@pytest.mark.parametrize(
    "path",
    [
        "PID-40", "PID-3[9].1", "PID-3.9", "PID-3.1.2", "PID-3[type=XX].1", "PID-2.2",
        "NK1-2", "DG1[4]-3", "DG1[3]-3.1", "PV1-2.2", "MSH-2.2",
    ],
)  # fmt: skip
def test_what_was_not_sent_is_none(path: str) -> None:
    assert read().get(path) is None
    assert read().all(path) == []


@pytest.mark.parametrize("path", ["PID-2", "PID-4.1", "PID-3.2", "PID-10", "PID-10.2"])
def test_what_was_sent_without_a_value_is_an_empty_text(path: str) -> None:
    assert read().get(path) == ""


@pytest.mark.parametrize("path", ["PID-7", "PID-7.1", "PID-7.2", "PID-7.1.3"])
def test_an_explicit_null_stays_two_quotation_marks_also_for_the_parts_of_its_field(path: str) -> None:
    assert read().get(path) == m.NULL


def test_all_values_of_repetitions_and_segments_come_in_order() -> None:
    message = read()
    assert message.all("PID-3[*].1") == ["558181838", "900", "77"]
    assert message.all("PID-3[authority=MRN].1") == ["558181838", "77"]
    assert message.all("DG1[*]-3.1") == ["I50.9", "E11.9"]
    assert message.all("PID-3.1") == ["558181838"]


def test_values_are_unescaped_with_the_messages_own_delimiters() -> None:
    head = "MSH$%*!@$A$B$C$D$2024$$ADT%A01%ADT_A01$1$P$2.5.1\r"
    message = read("PID$1$$7%%%MRN%MR$$O!T!Neil%x!S!y$\r", head)
    assert message.get("PID-3[type=MR].1") == "7"
    assert (message.get("PID-5.1"), message.get("PID-5.2")) == ("O@Neil", "x%y")
    assert read("PID|1||||A\\T\\B^C\\.br\\D\r").get("PID-5.1") == "A&B"


def test_a_doubled_escape_character_in_msh_2_does_not_make_the_backslash_a_separator() -> None:
    message = read("PID|1||7||Smith&van^Jo\\F\\e\r", HEAD.replace("^~\\&", "^~\\\\&"))
    assert (message.get("PID-5.1"), message.get("PID-5.1.2"), message.get("PID-5.2")) == ("Smith", "van", "Jo|e")


def test_undeclared_separators_are_plain_text() -> None:
    message = read("PID|1||7||Smith & Sons\\F\\^Jo\r", HEAD.replace("^~\\&", "^~"))
    assert message.get("PID-5.1") == "Smith & Sons\\F\\"


def test_the_truncation_character_is_kept_where_it_was_sent() -> None:
    message = read("PID|1||7||Longna#^a\\P\\b\r", HEAD.replace("^~\\&", "^~\\&#"))
    assert (message.get("PID-5.1"), message.get("PID-5.2")) == ("Longna#", "a#b")


def test_segments_keep_order_and_duplicates() -> None:
    message = read()
    assert [segment.name for segment in message] == ["MSH", "PID", "PV1", "DG1", "DG1", "DG1"]
    assert [segment.get(1) for segment in message.segments("DG1")] == ["1", "2", "3"]
    assert message.segments("ZZZ") == []


def test_a_segment_answers_paths_inside_itself() -> None:
    (segment,) = read().segments("PID")
    assert segment.get("3[5=SS].1") == segment.get("PID-3[type=SS].1") == "900"
    assert segment.get(8) == "F"
    assert segment.all("3[*].5") == ["MR", "SS", "PI"]
    assert segment.all(8) == ["F"]
    assert segment.get(99) is None


def test_the_repetitions_of_a_field_can_be_walked() -> None:
    (segment,) = read().segments("PID")
    assert [(one.get(1), one.get(4), one.get(4, 2), one.get(5)) for one in segment.repetitions(3)] == [
        ("558181838", "MRN", "1.2.3", "MR"),
        ("900", "SSA", None, "SS"),
        ("77", "MRN", None, "PI"),
    ]
    assert segment.repetitions(3)[1].text == "900^^^SSA^SS"
    assert segment.repetitions(2) == []
    assert segment.repetitions(99) == []


def test_a_message_can_be_narrowed_to_some_segments() -> None:
    message = read()
    narrowed = message.only(message.segments("DG1")[1:])
    assert [segment.name for segment in narrowed] == ["MSH", "DG1", "DG1"]
    assert narrowed.get("DG1-3.1") == "E11.9"
    assert narrowed.get("PID-3") is None
    assert narrowed.header is message.header


def test_a_merge_message_is_cut_into_one_message_for_each_patient() -> None:
    payload = next(path for path in MESSAGES if "a40" in path.stem).read_bytes()
    groups = Message.parse(payload).groups("PID")
    assert [[segment.name for segment in group] for group in groups] == [
        ["MSH", "EVN", "PID", "MRG"],
        ["MSH", "EVN", "PID", "PD1", "MRG"],
    ]
    assert [(group.get("PID-3[type=MR].1"), group.all("MRG-1[*].1")) for group in groups] == [
        ("558181838", ["558181000"]),
        ("400200100", ["400200777", "400200778"]),
    ]
    assert read("EVN|A40\r").groups("PID") == []


@pytest.mark.parametrize(("terminator", "deviations"), [("\r", ()), ("\n", (m.LINE_FEED,)), ("\r\n", (m.LINE_FEED,))])
def test_lf_and_crlf_terminate_segments_and_are_recorded(terminator: str, deviations: tuple[str, ...]) -> None:
    message = Message.parse((HEAD + BODY).replace("\r", terminator).encode())
    assert [segment.name for segment in message] == ["MSH", "PID", "PV1", "DG1", "DG1", "DG1"]
    assert message.get("PV1-3.3") == "A"
    assert message.deviations == deviations


@pytest.mark.parametrize(
    "text",
    [
        HEAD.replace("\r", "\n") + "PID|1||7\nPV1|1|I\r\nDG1|1||X\n\n",  # LF and CRLF
        HEAD + "PID|1||7\nPV1|1|I\nDG1|1||X\n",  # only MSH with CR
        HEAD.replace("\r", "\n") + "PID|1||7\nPV1|1|I\nDG1|1||X\r",  # a last CR
        HEAD + "PID|1||7\r\nPV1|1|I\rDG1|1||X\r\n",  # CR and CRLF
        HEAD + "PID|1||7\rPV1|1|I\rDG1|1||X\n",  # a last LF
    ],
)
def test_mixed_terminators_of_which_one_is_the_senders_all_terminate(text: str) -> None:
    message = Message.parse(text.encode())
    assert [segment.name for segment in message] == ["MSH", "PID", "PV1", "DG1"]
    assert message.get("DG1-3") == "X"
    assert m.LINE_FEED_DOUBTFUL not in message.deviations


PASTED = "see below\nPID|1||999^^^MRN^MR||OTHER^PERSON\n  PV1|1|O|ELSEWHERE\nDG1|1||C80"


@pytest.mark.parametrize("end", ["\r", "\r\n"])
@pytest.mark.parametrize("place", ["NTE|1|L|", "OBX|1|TX|N||", "nte|1||"])
def test_what_looks_like_segments_inside_a_text_is_text(place: str, end: str) -> None:
    lines = ["PID|1||7^^^MRN^MR||DOE^JANE", "PV1|1|I|3B", place + PASTED + "^x~y&z|F", "DG1|1||I50.9"]
    message = Message.parse((HEAD + "".join(line + "\r" for line in lines)).replace("\r", end).encode())
    assert [segment.name for segment in message] == ["MSH", "PID", "PV1", place[:3].upper(), "DG1"]
    assert (message.get("PID-3.1"), message.get("PV1-2"), message.get("DG1-3")) == ("7", "I", "I50.9")
    field = place.count("|")
    assert message.get(f"{place[:3].upper()}-{field}") == PASTED + "^x~y&z|F"
    assert m.LINE_FEED_IN_TEXT in message.deviations


@pytest.mark.parametrize("line", ["PID|1||7^^^MRN^MR||DOE^JANE||19500101|F", "DG1|1||I50.9^Heart failure", "ZAB|1|x"])
def test_a_doubtful_segment_behind_a_line_feed_is_read_as_neither(line: str) -> None:
    doubtful = line + "\nPV1|1|O|ELSEWHERE|||||||||||||||||V9"
    others = [one for one in ("EVN|A01", "PID|1||7^^^MRN^MR||DOE^JANE||19500101|F", "PV1|1|I|3B") if one != line]
    message = Message.parse((HEAD + "\r".join([*others, doubtful, "AL1|1"]) + "\r").encode())
    assert message.all("PV1[*]-2") == ["I"]
    assert message.segments(line[:3])[-1].text == line
    assert message.deviations == (m.LINE_FEED_DOUBTFUL,)


@given(
    st.lists(
        st.sampled_from(["\r", "\n", "\r\n", "PID|1||7", "PV1|1|I", "NTE|1||x", "OBX|1|TX|||", "text", "|"]),
        max_size=20,
    )
)
def test_no_mixture_of_line_ends_makes_a_value_of_another_segment(parts: list[str]) -> None:
    message = Message.parse((HEAD + "".join(parts)).encode())
    for segment in message:
        if segment.name not in {"NTE", "OBX"}:
            assert "\nPID|" not in segment.text
            assert "\nPV1|" not in segment.text


@pytest.mark.parametrize(
    ("sent", "read_as"),
    [
        ("An\x00na\x01", "Anna"), ("\x7fAnna\x1b", "Anna"), ("An\x85na", "Anna"),
        ("Anna\x9f Li\u017a", "Anna Li\u017a"),
        ("Anna\x0bMaria", "Anna Maria"), ("Anna\x0cMaria", "Anna Maria"), ("Anna\x1cMaria", "AnnaMaria"),
    ],
)  # fmt: skip
def test_control_characters_are_no_data(sent: str, read_as: str) -> None:
    message = read(f"PID|1||7||DOE^{sent}\rPV1|1|I\r")
    assert (message.get("PID-5.2"), message.get("PV1-2")) == (read_as, "I")
    assert message.deviations == (m.CONTROL_CHARACTER,)


def test_tabs_and_line_breaks_are_data() -> None:
    message = read("OBX|1|TX|||a\tb\nc\\.br\\d\\X0A\\e\r")
    assert message.get("OBX-5") == "a\tb\nc\nd\ne"
    assert m.CONTROL_CHARACTER not in message.deviations


def test_a_line_feed_inside_a_value_of_a_cr_terminated_message_is_part_of_the_value() -> None:
    message = read("OBX|1|TX|N||first line\nsecond line||||||F\rNTE|1\r")
    assert (message.get("OBX-5"), message.get("OBX-11")) == ("first line\nsecond line", "F")
    assert message.get("NTE-1") == "1"


def test_a_missing_final_cr_is_recorded() -> None:
    message = read("PID|1||7")
    assert (message.get("PID-3"), message.deviations) == ("7", (m.FINAL_CR_MISSING,))


def test_lower_case_segment_names_are_readable_and_recorded() -> None:
    message = read("pid|1||7\r")
    assert (message.get("PID-3"), message.deviations) == ("7", (SEGMENT_CASE,))


def test_a_line_that_is_no_segment_is_kept_and_recorded() -> None:
    message = read("PID|1||7\rgarbage here|x\rPV1|1|I\r")
    assert (message.get("PID-3"), message.get("PV1-2")) == ("7", "I")
    assert message.deviations == (m.SEGMENT_UNREADABLE,)
    assert [segment.text for segment in message][2] == "garbage here|x"


def test_site_defined_segments_are_segments_like_others() -> None:
    message = read("ZPI|1|own^value\rOM1|1\r")
    assert (message.get("ZPI-2.2"), message.get("OM1-1"), message.deviations) == ("value", "1", ())


def test_blank_lines_are_no_segments() -> None:
    assert [segment.name for segment in read("\r\rPID|1\r \r\x00\r")] == ["MSH", "PID"]


def test_over_long_fields_are_read() -> None:
    long = "x" * 200_000
    assert read(f"PID|1||7||{long}^Jo\r").get("PID-5.1") == long


def test_the_partial_header_of_a_refused_message_still_lets_it_be_read() -> None:
    payload = (HEAD.replace("MSG1", "") + BODY).encode()
    with pytest.raises(HeaderError) as caught:
        Message.parse(payload)
    assert Message.parse(payload, header=caught.value.header).get("PID-3") == "558181838"


def test_nothing_of_a_message_shows_its_content_by_accident() -> None:
    message = read()
    (segment,) = message.segments("PID")
    for thing in (message, segment, segment.repetitions(3)[0]):
        assert "558181838" not in repr(thing)
        with pytest.raises(TypeError):
            str(thing)
        with pytest.raises(TypeError):
            f"{thing}"


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.stem)
def test_our_own_messages_read_without_deviations_and_byte_for_byte(path: Path) -> None:
    payload = path.read_bytes()
    message = Message.parse(payload)
    assert message.raw == payload
    assert message.deviations == ()
    assert "\r".join(segment.text for segment in message) + "\r" == payload.decode(message.charset)
    assert message.get("PID-3.1")


VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x0b\x1c\x00\ufeff"), max_size=12)
SEPARATORS = "|^~\\&\r\n\x0b\x0c\x00\x1c\x1d\x1e\x1f\x85\u2028\u2029\ufeff"
PLAIN = st.text(st.characters(codec="utf-8", exclude_characters=SEPARATORS, exclude_categories=["Cc"]), max_size=6)


@given(st.lists(VALUES, max_size=6), st.sampled_from(["PID", "ZAB", "dg1", "x"]))
def test_any_values_leave_the_raw_bytes_alone_and_every_place_answers(values: list[str], name: str) -> None:
    payload = (HEAD + name + "|" + "|".join(values) + "\r").encode()
    message = Message.parse(payload)
    assert message.raw == payload
    for place in ("PID-1", "PID-2[2].3", "ZAB[*]-1[*].1", "DG1-1[5=x].1"):
        assert message.get(place) == next(iter(message.all(place)), None)


@given(st.binary(max_size=300))
def test_any_bytes_behind_a_header_are_a_message_or_a_second_header(body: bytes) -> None:
    payload = HEAD.encode() + body
    try:
        message = Message.parse(payload)
    except HeaderError as error:
        found = error.error
    else:
        assert message.raw == payload
        return
    assert found == "several-headers"


# a field: repetitions of components of subcomponents
FIELDS = st.lists(st.lists(st.lists(PLAIN, min_size=1, max_size=3), min_size=1, max_size=3), min_size=1, max_size=3)


@given(st.lists(FIELDS, min_size=1, max_size=5))
def test_the_reader_agrees_with_python_hl7_wherever_that_one_answers(fields: list[list[list[list[str]]]]) -> None:
    text = "|".join("~".join("^".join("&".join(c) for c in r) for r in f) for f in fields)
    payload = f"{HEAD}PID|{text}\r"
    ours, theirs = Message.parse(payload.encode()), hl7.parse(payload).segment("PID")
    for number, repetitions in enumerate(fields, 1):
        raw = str(theirs[number])
        if '""' in raw:
            continue
        for repetition, components in enumerate(repetitions, 1):
            for component, subcomponents in enumerate(components, 1):
                for subcomponent in range(1, len(subcomponents) + 1):
                    place = f"PID-{number}[{repetition}].{component}.{subcomponent}"
                    mine = ours.get(place)
                    # python-hl7 strips the message as a whole
                    assert mine is not None
                    assert mine.strip() == theirs.extract_field(1, number, repetition, component, subcomponent).strip()
