from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.encounter import Diagnosis, Location, Procedure
from engine.domain.moment import Moment
from engine.domain.patient import Address, Identifier, Name, Provider
from engine.domain.shapes import plain
from engine.errors import MappingError, MessageError
from engine.hl7v2.message import Message
from engine.mapping.apply import Mapped, Mapping, Reading
from engine.mapping.compile import compile_mapping
from engine.mapping.tables import load_tables
from engine.yamlfile import parse

MESSAGES = Path(__file__).parents[2] / "messages"

Build = Callable[..., Message]
Compiled = Callable[[str], Mapping]


def read(name: str) -> Message:
    return Message.parse((MESSAGES / f"{name}.hl7").read_bytes())


# --- the shipped mapping, on whole messages


def test_an_admission_becomes_a_patient_and_an_encounter(shipped: Mapping) -> None:
    mapped = shipped.apply(read("adt_a01_admission"))
    assert plain(mapped) == plain(
        Mapped(
            patient={
                "name": Name(family="Testperson", given="Wilma", middle="Quinn", prefix="Mrs"),
                "birth_date": "1948-07-15",
                "sex": "F",
                "address": Address(
                    line="12 Invented Lane, Apt 3", city="Springfield", state="IL", postal_code="62701", country="USA"
                ),
                "phones": ("+12175550199", "+12175550123", "+12175550100"),
                "language": "eng",
                "lives_alone": True,
                "pcp": Provider(id="2233445566", family="Primary", given="Paul"),
            },
            encounter={
                "class_": "I",
                "location": Location(point_of_care="3W", room="301", bed="A", facility="MAIN CAMPUS"),
                "attending": Provider(id="1122334455", family="Attending", given="Anna"),
                "admission_type": "E",
                "hospital_service": "MED",
                "admitted_at": "2024-06-12T08:15:00-05:00",
                "diagnoses": (
                    Diagnosis(code="I50.9", system="I10", text="Heart failure, unspecified", type="A"),
                    Diagnosis(
                        code="E11.9",
                        system="I10",
                        text="Type 2 diabetes mellitus without complications",
                        type="W",
                    ),
                ),
            },
            identifiers=(
                Identifier(value="558181838", authority="MRN", type="MR"),
                Identifier(value="900-00-0001", authority="SSA", type="SS"),
            ),
            merged=(),
            visit=Identifier(value="V0001", authority="MAIN", type="VN"),
            merged_visit=None,
            merged_account=None,
            account="ACC0001",
            times={
                "PV1-44": "2024-06-12T08:15:00-05:00",
                "EVN-2": "2024-06-12T08:30:10-05:00",
                "MSH-7": "2024-06-12T08:30:15-05:00",
            },
            pv1_present=True,
            deviations=(),
        )
    )


def test_an_old_sender_is_read_like_a_new_one(shipped: Mapping) -> None:
    mapped = shipped.apply(read("adt_a03_v23_discharge_skilled_nursing"))
    assert mapped.identifiers == (Identifier(value="771234", authority="WEST", type="PI"),)
    assert mapped.patient["name"] == Name(family="O&Placeholder", given="Ignatius", middle="X")
    assert mapped.patient["phones"] == ("+12175550142",)
    assert mapped.encounter["disposition"] == "03"
    assert mapped.encounter["discharged_at"].text == "2024-06-16T14:30-04:00"
    assert mapped.encounter["diagnoses"] == (Diagnosis(code="428.0", system="I9", text="CHF NOS", type="F"),)
    assert mapped.visit == Identifier(value="W55501", authority="")
    assert mapped.times["MSH-7"].text == "2024-06-16T14:35-04:00"


def test_an_update_clears_what_it_nulls_and_leaves_what_it_does_not_say(shipped: Mapping) -> None:
    mapped = shipped.apply(read("adt_a08_update"))
    assert mapped.patient["phones"] == ("+12175550188",)
    assert "deceased" not in mapped.patient
    assert "disposition" not in mapped.encounter
    assert [diagnosis.code for diagnosis in mapped.encounter["diagnoses"]] == ["I50.23"]


def test_a_person_message_says_nothing_of_a_visit_but_class_n(shipped: Mapping) -> None:
    mapped = shipped.apply(read("adt_a28_person_v28"))
    assert mapped.patient == {
        "name": Name(family="Müßtermann", given="Jürgen", middle="Ø.", prefix="Dr."),
        "birth_date": Moment.of("1958-07"),
        "sex": "M",
        "address": Address(line="Erfundene Straße 1", city="Zürich", postal_code="8001", country="CHE"),
        "phones": ("+41445550166",),
    }
    assert plain(mapped.encounter) == {"class_": "N"}
    assert mapped.visit is None
    (identifier,) = mapped.identifiers
    assert (identifier.value, identifier.authority, identifier.type) == ("880011223", "MRN", "MR")


def test_a_death_is_read_with_its_time(shipped: Mapping) -> None:
    mapped = shipped.apply(read("adt_a31_person_update_v231"))
    assert (mapped.patient["deceased"], mapped.patient["deceased_at"].text) == (True, "2024-05-01")
    assert mapped.times["PID-29"].text == "2024-05-01"
    assert mapped.patient["lives_alone"] is False
    assert mapped.patient["address"].line == "5 Example Court"


def test_a_merge_of_two_patients_is_mapped_group_by_group(shipped: Mapping) -> None:
    message = read("adt_a40_merge_two_groups")
    first, second = (shipped.apply(group) for group in message.groups("PID"))
    assert [i.value for i in first.identifiers] == ["558181838"]
    assert [i.value for i in first.merged] == ["558181000"]
    assert [i.value for i in second.identifiers] == ["400200100"]
    assert [i.value for i in second.merged] == ["400200777", "400200778"]
    assert second.patient["lives_alone"] is False
    assert "lives_alone" not in first.patient


def test_a_message_of_several_patients_never_mixes_them(shipped: Mapping, build: Build) -> None:
    message = build("PID|1||1^^^H^MR||ONE", "PID|2||2^^^H^MR||TWO|||F", "MRG|9^^^H^MR")
    mapped = shipped.apply(message)
    assert [i.value for i in mapped.identifiers] == ["1"]
    assert mapped.merged == ()
    assert "sex" not in mapped.patient


@pytest.mark.parametrize("path", sorted(MESSAGES.glob("adt_*.hl7")), ids=lambda path: path.stem)
def test_no_shipped_message_deviates(shipped: Mapping, path: Path) -> None:
    message = Message.parse(path.read_bytes())
    for group in message.groups("PID"):
        mapped = shipped.apply(group)
        assert mapped.identifiers
        assert mapped.deviations == ()


# --- identifiers


def test_older_identifier_fields_are_read_only_where_pid_3_is_empty(shipped: Mapping, build: Build) -> None:
    def values(segment: str) -> list[str]:
        return [i.value for i in shipped.apply(build(segment)).identifiers]

    assert values("PID|1|2^^^X|3^^^H^MR|4^^^Y") == ["3"]
    assert values("PID|1|2^^^X||4^^^Y") == ["2"]
    assert values("PID|1|||4^^^Y~5") == ["4", "5"]
    assert values('PID|1|2|""') == ["2"]
    assert values("PID|1") == []


def test_an_empty_repetition_between_identifiers_is_skipped(shipped: Mapping, build: Build) -> None:
    mapped = shipped.apply(build('PID|1||1^^^H^MR~~^^^H^MR~""~2^^^S^SS'))
    assert [i.value for i in mapped.identifiers] == ["1", "2"]


@pytest.mark.parametrize(
    ("pid", "mrg", "location"),
    [("1^^^H^MR~2^^^H^MR", "~9^^^H^MR", "MRG-1"), ("~1^^^H^MR", "8^^^H^MR~9^^^H^MR", "PID-3")],
)
def test_a_merge_says_where_its_places_do_not_line_up(
    shipped: Mapping, build: Build, pid: str, mrg: str, location: str
) -> None:
    mapped = shipped.apply(build(f"PID|1||{pid}||A^B", f"MRG|{mrg}"))
    assert mapped.gap == location
    assert None not in (*mapped.identifiers, *mapped.merged)


def test_a_merge_keeps_repeated_identifiers_in_their_places(shipped: Mapping, build: Build) -> None:
    mapped = shipped.apply(build("PID|1||1^^^H^MR~1^^^H^MR~2^^^H^MR~~", "MRG|7^^^H^MR~8^^^H^MR~9^^^H^MR||||V^^^H^VN"))
    assert [i.value for i in mapped.identifiers] == ["1", "1", "2"]
    assert [i.value for i in mapped.merged] == ["7", "8", "9"]
    assert mapped.merged_visit == Identifier(value="V", authority="H", type="VN")


# --- absent, empty, null


@pytest.mark.parametrize(
    ("segments", "field", "expected"),
    [
        (["PID|1||1||||19580715"], "birth_date", Moment.of("1958-07-15")),
        (["PID|1||1"], "birth_date", "left"),
        (["PID|1||1||||"], "birth_date", "left"),
        (["PID|1||1||||  "], "birth_date", "left"),
        (['PID|1||1||||""'], "birth_date", None),
        (['PID|1||1||""'], "name", None),
        (["PID|1||1||^^^"], "name", "left"),
        (['PID|1||1||DOE^""'], "name", Name(family="DOE")),
        (["PID|1||1||~DOE"], "name", Name(family="DOE")),
        (['PID|1||1||||||||||""'], "phones", None),
        (['PID|1||1||||||||||""|(217)555-0123'], "phones", ("+12175550123",)),
        (["PID|1||1||||||||||(217)555-0123~2175550123"], "phones", ("+12175550123",)),
        (["PID|1||1", 'PD1||""'], "lives_alone", None),
        (["PID|1||1", "PD1||U"], "lives_alone", None),
        (["PID|1||1", "PD1||A"], "lives_alone", True),
        (["PID|1||1", "PD1||"], "lives_alone", "left"),
    ],
)
def test_absent_and_empty_leave_and_null_clears(
    shipped: Mapping, build: Build, segments: list[str], field: str, expected: object
) -> None:
    assert shipped.apply(build(*segments)).patient.get(field, "left") == expected


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([], "left"),
        (["DG1|1"], "left"),
        (["DG1|1||E11.9^Diabetes^I10|||F"], (Diagnosis(code="E11.9", system="I10", text="Diabetes", type="F"),)),
        (["DG1|1|I9|250.0|Diabetes"], (Diagnosis(code="250.0", system="I9", text="Diabetes"),)),
        (["DG1|1||A", "DG1|2||B"], (Diagnosis(code="A"), Diagnosis(code="B"))),
        (["DG1|1||A" + "|" * 18 + "D", "DG1|2||B"], (Diagnosis(code="B"),)),
        (["DG1|1||A" + "|" * 18 + "D"], None),
        (['DG1|1||""'], None),
    ],
)
def test_the_diagnoses_of_a_message_are_a_snapshot(
    shipped: Mapping, build: Build, segments: list[str], expected: object
) -> None:
    mapped = shipped.apply(build("PID|1||1", *segments))
    assert mapped.encounter.get("diagnoses", "left") == expected
    assert mapped.deviations == ()


def test_a_diagnosis_without_a_code_is_left_out_and_noted(shipped: Mapping, build: Build) -> None:
    mapped = shipped.apply(build("PID|1||1", "DG1|1|||Chest pain", "DG1|2||I50.9"))
    assert mapped.encounter["diagnoses"] == (Diagnosis(code="I50.9"),)
    assert mapped.deviations == ("item-without-code:DG1-3.1",)


def test_procedures_are_read_with_their_time(shipped: Mapping, build: Build) -> None:
    mapped = shipped.apply(build("PID|1||1", "PR1|1||5A1D00Z^Dialysis^I10P||202607111200"))
    assert mapped.encounter["procedures"] == (
        Procedure(code="5A1D00Z", system="I10P", text="Dialysis", performed_at=Moment.of("2026-07-11T12:00-04:00")),
    )


# --- choosing


def test_the_preferred_type_of_name_is_taken_and_any_other_when_there_is_none(shipped: Mapping, build: Build) -> None:
    def family(field: str) -> str:
        return str(shipped.apply(build(f"PID|1||1||{field}")).patient["name"].family)

    assert family("NICK^^^^^^N~LEGAL^^^^^^L~PLAIN") == "LEGAL"
    assert family("NICK^^^^^^N~PLAIN") == "PLAIN"
    assert family("NICK^^^^^^N") == "NICK"


@pytest.mark.parametrize(
    ("segments", "family"),
    [
        (["PD1||||1^PD", "PV1|1|I"], "PD"),
        (["PV1|1|I" + "|" * 50 + "2^PV"], "PV"),
        (['PD1||||""', "PV1|1|I" + "|" * 50 + "2^PV"], "PV"),
        (["ROL|1|AD|AT|3^ATTENDING", "ROL|2|AD|PP|4^PRIMARY"], "PRIMARY"),
        (["PRT|1|AD||PP|5^PARTICIPANT"], "PARTICIPANT"),
    ],
)
def test_the_primary_care_provider_is_found_wherever_it_is(
    shipped: Mapping, build: Build, segments: list[str], family: str
) -> None:
    assert shipped.apply(build("PID|1||1", *segments)).patient["pcp"].family == family


def test_a_path_can_choose_repetitions_and_segments(compiled: Compiled, build: Build) -> None:
    mapping = compiled(
        "patient.identifiers: 'PID-3[type=MR]'\n"
        "patient.name: 'PID-5[2]'\n"
        "patient.language: 'ZPI[2]-1'\n"
        "patient.sex: 'PID-3[type=SS].1'\n"
        "patient.phones: {from: 'ZPI[*]-2', region: CH}\n"
        "encounter.hospital_service: {from: {path: ZPI-1, where: \"ZPI-3 == 'x'\"}}\n"
    )
    mapped = mapping.apply(
        build("PID|1||1^^^^SS~2^^^^MR~3^^^^MR||A~B~C", "ZPI|one|044 555 01 66", "ZPI|two|+41445550167|x")
    )
    assert [i.value for i in mapped.identifiers] == ["2", "3"]
    assert mapped.patient == {
        "name": Name(family="B"),
        "language": "two",
        "sex": "1",
        "phones": ("+41445550166", "+41445550167"),
    }
    assert plain(mapped.encounter) == {"hospital_service": "two"}


def test_only_what_is_mapped_reaches_the_result(compiled: Compiled, build: Build) -> None:
    mapped = compiled("patient.birth_date: PID-7").apply(
        build("PID|1||1||SECRET^NAME||19580715|F||||||||||ACCT", "NK1|1|NEXT^KIN", "PV1|1|I|WARD", "MRG|9")
    )
    assert mapped.patient == {"birth_date": Moment.of("1958-07-15")}
    assert plain(mapped.encounter) == {}
    assert mapped.pv1_present is True
    assert (mapped.account, mapped.visit, mapped.merged) == (None, None, ())


# --- what can't be read


def test_a_value_that_cannot_be_read_leaves_the_field_and_is_noted_without_it(shipped: Mapping, build: Build) -> None:
    mapped = shipped.apply(
        build(
            "PID|1||1||||19580230|X|||||5550123||||||||||||||||nonsense|maybe",
            "PV1|1|ZZ" + "|" * 42 + "2026",
            "EVN||yesterday",
        )
    )
    assert plain(mapped.patient) == {"sex": "X"}
    assert plain(mapped.encounter) == {"class_": "ZZ", "admitted_at": "2026"}
    assert set(mapped.deviations) == {
        "invalid-date:PID-7",
        "unknown-code:PID-8",
        "invalid-phone:PID-13",
        "invalid-time:PID-29",
        "invalid-boolean:PID-30",
        "unknown-code:PV1-2",
        "invalid-time:EVN-2",
    }
    assert mapped.times.keys() == {"PV1-44", "MSH-7"}


def test_on_error_dead_makes_it_a_mapping_error_without_the_value(compiled: Compiled, build: Build) -> None:
    mapping = compiled("patient.birth_date: {from: PID-7, on_error: dead}")
    assert mapping.apply(build("PID|1||1")).patient == {}
    assert plain(mapping.apply(build("PID|1||1||||195807")).patient) == {"birth_date": "1958-07"}
    with pytest.raises(MappingError) as caught:
        mapping.apply(build("PID|1||1||||MARKER"))
    error = caught.value
    assert (error.file, error.line, error.target, error.location) == ("site.yaml", 2, "patient.birth_date", "PID-7")
    assert error.error == "invalid-date"
    assert "MARKER" not in str(error)


def test_a_code_that_a_strict_table_does_not_know_is_a_mapping_error(build: Build) -> None:
    strict = load_tables([parse("name: strict\nvalues: {M: M}\nunknown: error\n", "strict.yaml")])
    rules = "patient.identifiers: PID-3\n\npatient.sex: {from: PID-8, table: strict}\n"
    mapping = compile_mapping(parse(rules, "site.yaml"), strict, zone=ZoneInfo("UTC"))
    assert mapping.apply(build("PID|1||1|||||M")).patient == {"sex": "M"}
    with pytest.raises(MappingError) as caught:
        mapping.apply(build("PID|1||1|||||MARKER"))
    assert (caught.value.line, caught.value.location, caught.value.error) == (3, "PID-8", "unknown-code")
    assert "MARKER" not in str(caught.value)


@pytest.mark.parametrize("field", ["", "  ", '""'])
def test_a_required_field_that_is_missing_is_error_101_at_its_place(
    compiled: Compiled, build: Build, field: str
) -> None:
    mapping = compiled("patient.birth_date: {first_of: [PID-7, ZPI-1], required: true}")
    with pytest.raises(MessageError) as caught:
        mapping.apply(build(f"PID|1||1||||{field}"))
    assert (caught.value.hl7_code, caught.value.location) == (101, "PID-7")
    assert plain(mapping.apply(build(f"PID|1||1||||{field}", "ZPI|1958")).patient) == {"birth_date": "1958"}


def test_a_required_field_that_cannot_be_read_is_error_102(compiled: Compiled, build: Build) -> None:
    with pytest.raises(MessageError) as caught:
        compiled("patient.birth_date: {from: PID-7, required: true}").apply(build("PID|1||1||||MARKER"))
    assert (caught.value.hl7_code, caught.value.location) == (102, "PID-7")
    assert "MARKER" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "expected"), [("", {"deceased": False}), ("Y", {"deceased": True}), ('""', {"deceased": None}), ("?", {})]
)
def test_a_default_stands_in_only_for_what_the_message_does_not_say(
    compiled: Compiled, build: Build, field: str, expected: dict[str, Any]
) -> None:
    mapping = compiled("patient.deceased: {from: PID-30, default: false}")
    assert mapping.apply(build("PID|1||1" + "|" * 27 + field)).patient == expected


def test_a_disposition_goes_through_its_table_before_it_gets_two_digits(build: Build) -> None:
    local = load_tables([parse("name: local\nvalues: {HOM: '1', SNF: '3'}\nunknown: keep\n", "t")])
    rules = "patient.identifiers: PID-3\nencounter.disposition: {from: PV1-36, table: local}\n"
    mapping = compile_mapping(parse(rules, "site.yaml"), local, zone=ZoneInfo("UTC"))

    def disposition(code: str) -> tuple[str, tuple[str, ...]]:
        mapped = mapping.apply(build("PID|1||1", "PV1|1" + "|" * 35 + code))
        return mapped.encounter["disposition"], mapped.deviations

    assert disposition("HOM") == ("01", ())
    assert disposition("6") == ("06", ("unknown-code:PV1-36",))


def test_event_times_are_read_whatever_the_mapping_names(compiled: Compiled, build: Build) -> None:
    mapped = compiled("").apply(
        build("EVN|A03|20260715||||202607151428", "PID|1||1" + "|" * 26 + "2026", "PV1|1|I" + "|" * 42 + '""')
    )
    assert plain(mapped.times) == {
        "EVN-6": "2026-07-15T14:28-04:00",
        "EVN-2": "2026-07-15",
        "MSH-7": "2026-07-15T14:30:05-04:00",
        "PID-29": "2026",
    }
    assert mapped.pv1_present is True


def test_the_same_field_in_another_message_is_read_with_that_messages_delimiters_and_charset(
    shipped: Mapping, build: Build
) -> None:
    name = r"Doe^Ja\XC3A9\*X"
    diagnosis = "DG1|1||I10^Hypertension*I50^I10"
    usual = shipped.apply(build("PID|||7^^^MRN^MR||" + name, diagnosis))
    star = shipped.apply(
        build("PID|||7*^*^*^MRN*MR||" + name, diagnosis, msh=r"MSH|*~\&|A|B|C|D|20260715||ADT*A01|1|P|2.5")
    )
    latin = r"MSH|^~\&|A|B|C|D|20260715||ADT^A01|1|P|2.5||||||8859/1"
    other = shipped.apply(build("PID|||7^^^MRN^MR||" + name, diagnosis, msh=latin))
    names = [mapped.patient["name"] for mapped in (usual, star, other)]
    assert names == [
        Name(family="Doe", given="Ja\u00e9*X"),
        Name(family="Doe^Ja\u00e9", given="X"),
        Name(family="Doe", given="Ja\u00c3\u00a9*X"),
    ]
    codes = [mapped.encounter["diagnoses"][0].code for mapped in (usual, star, other)]
    assert codes == ["I10", "I10^Hypertension", "I10"]


def test_what_is_noted_of_a_field_is_noted_again_in_the_next_message(shipped: Mapping, build: Build) -> None:
    segments = ("PID|||7^^^MRN^MR||Doe||||||||12", "DG1|1", "DG1|2||^text only", "PR1|1||0DT^X^I10||20261399")
    first, second = (shipped.apply(build(*segments)) for _ in range(2))
    noted = ("invalid-phone:PID-13", "item-without-code:DG1-3.1", "invalid-time:PR1-5")
    assert first.deviations == second.deviations == noted


def test_what_is_mapped_cannot_be_printed(shipped: Mapping) -> None:
    mapped = shipped.apply(read("adt_a01_admission"))
    assert "Testperson" not in repr(mapped)
    with pytest.raises(TypeError):
        str(mapped)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["PID", "PD1", "PV1", "DG1", "PR1", "MRG", "EVN", "ROL"]),
            st.lists(st.text(alphabet='|^~\\&"0129DY.+-é ', max_size=20), max_size=50),
        ),
        max_size=6,
    )
)
def test_mapping_raises_nothing_but_its_own_errors_for_any_message(
    shipped: Mapping, segments: list[tuple[str, list[str]]]
) -> None:
    lines = [r"MSH|^~\&|A|B|C|D|20260715||ADT^A01|1|P|2.5", *("|".join((name, *fields)) for name, fields in segments)]
    message = Message.parse("\r".join(lines).encode())
    try:
        mapped = shipped.apply(message)
    except MessageError:
        return
    assert all(identifier.value for identifier in mapped.identifiers)


# --- what is remembered of a segment


def test_a_segment_that_comes_again_is_read_as_before_with_its_deviations(
    compiled: Callable[[str], Mapping], build: Build
) -> None:
    mapping = compiled("patient.birth_date: PID-7\npatient.sex: PID-8\npatient.deceased_at: PID-29")
    line = "PID|1||12345^^^MAIN^MR||||never|F|||||||||||||||||||||soon"
    first, second = mapping.apply(build(line)), mapping.apply(build(line, "PV1|1|I"))
    assert first.patient == second.patient == {"sex": "F"}
    assert first.deviations == second.deviations == ("invalid-date:PID-7", "invalid-time:PID-29")
    assert first.unread == second.unread == {"birth_date": "PID-7", "deceased_at": "PID-29"}
    assert mapping.apply(build(line.replace("never", "19480715"))).patient == {
        "sex": "F",
        "birth_date": Moment.of("1948-07-15"),
    }


def test_what_is_remembered_can_not_be_changed_by_whoever_got_it(
    compiled: Callable[[str], Mapping], build: Build
) -> None:
    mapping = compiled("patient.birth_date: PID-7\npatient.sex: PID-8")
    message = build("PID|1||12345^^^MAIN^MR||||19480715|F")
    for _ in range(2):
        said = mapping.apply(message).patient
        assert said == {"birth_date": Moment.of("1948-07-15"), "sex": "F"}
        said.clear()


def test_a_remembered_time_is_read_in_the_zone_of_its_message(compiled: Callable[[str], Mapping], build: Build) -> None:
    mapping = compiled("encounter.admitted_at: PV1-44\nencounter.class: PV1-2")
    message = build("PID|1||12345^^^MAIN^MR", f"PV1|1|I{'|' * 42}20260715120000")
    read_at = [
        mapping.apply(message, Reading(ZoneInfo(zone))).encounter["admitted_at"].text
        for zone in ("America/New_York", "Europe/Berlin", "America/New_York")
    ]
    assert read_at == ["2026-07-15T12:00:00-04:00", "2026-07-15T12:00:00+02:00", "2026-07-15T12:00:00-04:00"]


def test_what_was_valid_yesterday_is_not_remembered_for_today(shipped: Mapping, build: Build) -> None:
    homes = "1 Old Lane^^Springfield^IL^62701^USA^H^^^^^^20200101^20260714~2 New Lane^^Springfield^IL^62701^USA^H"
    message = build(f"PID|1||12345^^^MAIN^MR||Testperson^Wilma||19480715|F|||{homes}")
    zone = ZoneInfo("America/New_York")
    lines = [
        shipped.apply(message, Reading(zone, datetime(2026, 7, day, 12, tzinfo=zone))).patient["address"].line
        for day in (14, 15, 14)
    ]
    assert lines == ["1 Old Lane", "2 New Lane", "1 Old Lane"]


def test_the_memory_of_segments_has_a_bound(
    compiled: Callable[[str], Mapping], build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.mapping.apply._SEGMENTS_REMEMBERED_MAX", 2)
    mapping = compiled("patient.birth_date: PID-7\npatient.sex: PID-8")
    for number in (1, 2, 3, 1):
        said = mapping.apply(build(f"PID|1||{number}^^^MAIN^MR||||1948071{number}|F")).patient
        assert said == {"birth_date": Moment.of(f"1948-07-1{number}"), "sex": "F"}
    [known] = [known for _, _, known in mapping.patient._groups if known is not None]
    assert len(known) == 2
