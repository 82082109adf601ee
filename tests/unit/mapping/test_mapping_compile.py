from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.domain.encounter import Diagnosis, Encounter, Procedure
from engine.domain.patient import Patient
from engine.errors import SettingsError
from engine.mapping.apply import Mapped, Mapping, Movement
from engine.mapping.spec import MappingFile
from engine.mapping.targets import DIAGNOSES, PROCEDURES, TARGETS

Compiled = Callable[[str], Mapping]

NOT_MAPPED = {
    "patient": {"merged_from", "links"},
    "encounter": {
        "key", "visit_authority", "status", "time_sources", "discharges", "in_transit", "discharge_pending",
        "leave_began_at", "merged_into",
    },
}  # fmt: skip
"""Fields that events set, not mappings."""


def test_every_target_is_a_field_of_the_domain_and_every_field_has_a_target() -> None:
    targets = {group: {t.split(".")[1] for t in TARGETS if t.startswith(f"{group}.")} for group in NOT_MAPPED}
    assert targets["patient"] | NOT_MAPPED["patient"] == set(Patient.__struct_fields__)
    fields = {"class" if field == "class_" else field for field in Encounter.__struct_fields__}
    assert targets["encounter"] | NOT_MAPPED["encounter"] == fields
    for _, group, field in TARGETS.values():
        record = {"patient": Patient, "encounter": Encounter, "own": Mapped, "movement": Movement}[group]
        assert field in record.__struct_fields__


def test_every_part_of_an_item_is_a_field_of_it() -> None:
    made = {kind.items.make: set(kind.items.parts) for kind in (DIAGNOSES, PROCEDURES) if kind.items is not None}
    assert made == {Diagnosis: set(Diagnosis.__struct_fields__), Procedure: set(Procedure.__struct_fields__)}


def problems(compiled: Compiled, rules: str) -> list[tuple[int, int, str, str]]:
    with pytest.raises(SettingsError) as caught:
        compiled(rules)
    return [(p.line, p.column, p.key, p.message) for p in caught.value.problems]


@pytest.mark.parametrize(
    ("rules", "place", "key", "says"),
    [
        ("patient.birth_dat: PID-7", (2, 1), "patient.birth_dat", "did you mean patient.birth_date?"),
        ("patient.shoe_size: PID-7", (2, 1), "patient.shoe_size", "no such target"),
        ("patient.birth_date: PID.7", (2, 1), "patient.birth_date", "a segment and a field"),
        ("patient.birth_date: '7'", (2, 1), "patient.birth_date", "begins with a segment"),
        ("patient.birth_date: {from: PID-7, tabel: x}", (2, 35), "patient.birth_date.tabel", "unknown key"),
        ("patient.birth_date: {form: PID-7}", (2, 22), "patient.birth_date.form", "unknown key"),
        ("patient.birth_date: {table: sex}", (2, 1), "patient.birth_date", "exactly one of from"),
        ("patient.birth_date: {from: PID-7, first_of: [PID-7]}", (2, 1), "patient.birth_date", "exactly one of from"),
        ("patient.birth_date: {from: [PID-7, PID-8]}", (2, 22), "patient.birth_date.from", "use first_of"),
        ("patient.birth_date: {from: []}", (2, 22), "patient.birth_date.from", "at least one"),
        ("patient.birth_date: {from: PID-7, table: sex}", (2, 35), "patient.birth_date.table", "a date"),
        ("patient.birth_date: {from: PID-7, default: '1'}", (2, 35), "patient.birth_date.default", "a date"),
        ("patient.birth_date: {from: PID-7, on_error: stop}", (2, 35), "patient.birth_date.on_error", "dead"),
        ("patient.sex: {from: PID-8, table: sexes}", (2, 28), "patient.sex.table", "did you mean sex?"),
        ("patient.sex: {from: PID-8, table: living-arrangement}", (2, 28), "patient.sex.table", "not each a text"),
        ("patient.deceased: {from: PID-30, table: sex}", (2, 34), "patient.deceased.table", "yes or no"),
        ("patient.sex: {from: PID-8, default: 3}", (2, 28), "patient.sex.default", "must be a text"),
        ("patient.deceased: {from: PID-30, default: 1}", (2, 34), "patient.deceased.default", "yes or no"),
        ("patient.sex: {from: PID-8, default: U, required: true}", (2, 40), "patient.sex.required", "beside default"),
        ("patient.name: PID-5.1", (2, 1), "patient.name", "leave the component out"),
        ("patient.name: {from: PID-5, region: US}", (2, 29), "patient.name.region", "a name"),
        ("patient.phones: PID-13", (2, 1), "patient.phones", "'region' is missing"),
        ("patient.phones: {from: PID-13, region: UK}", (2, 32), "patient.phones.region", "country code"),
        ("patient.pcp: {from: {path: ROL-4, where: 'PV1-2'}}", (2, 35), "patient.pcp.from.where", "not in ROL"),
        ("patient.pcp: {from: {path: ROL-4, where: 'ROL-3 = 1'}}", (2, 35), "patient.pcp.from.where", "column 7"),
        ("patient.pcp: {first_of: [PD1-4, {path: ROL-4, were: 'ROL-3'}]}", (2, 47), "patient.pcp.first_of[1].were",
         "unknown key"),
        ("encounter.diagnoses: DG1-3", (2, 1), "encounter.diagnoses", "each and parts"),
        ("encounter.diagnoses: {each: DG1}", (2, 1), "encounter.diagnoses", "belong together"),
        ("encounter.diagnoses: {each: DG1, parts: {text: DG1-4}}", (2, 34), "encounter.diagnoses.parts", "'code'"),
        ("encounter.diagnoses: {each: DG1, parts: {code: DG1-3, txt: DG1-4}}", (2, 55),
         "encounter.diagnoses.parts.txt", "did you mean text?"),
        ("encounter.diagnoses: {each: DG1, parts: {code: PR1-3}}", (2, 42), "encounter.diagnoses.parts.code", "as in"),
        ("encounter.diagnoses: {each: DG1, parts: {code: 'DG1[2]-3'}}", (2, 42), "encounter.diagnoses.parts.code",
         "that DG1"),
        ("encounter.diagnoses: {each: DG1, where: 'PID-1', parts: {code: DG1-3}}", (2, 34),
         "encounter.diagnoses.where", "one DG1 at a time"),
        ("patient.sex: {from: PID-8, where: 'PID-1'}", (2, 1), "patient.sex", "where stands beside each"),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_refused_with_its_place(
    compiled: Compiled, rules: str, place: tuple[int, int], key: str, says: str
) -> None:
    line, column, found, message = problems(compiled, rules)[0]
    assert (line, column, found) == (*place, key)
    assert says in message


def test_all_problems_of_a_file_are_reported_at_once(compiled: Compiled) -> None:
    rules = "patient.birth_dat: PID-7\npatient.sex: PID.8\npatient.name: {from: PID-5, table: sex}"
    assert [(line, key) for line, _, key, _ in problems(compiled, rules)] == [
        (2, "patient.birth_dat"),
        (3, "patient.sex"),
        (4, "patient.name.table"),
    ]


def test_a_mapping_without_the_identifiers_is_refused(compiled: Compiled) -> None:
    assert "no message finds its patient" in problems(compiled, "merge.visit: MRG-5 # patient.identifiers")[0][3]


def test_the_schema_for_editors_knows_the_short_forms() -> None:
    schema = MappingFile.model_json_schema()["$defs"]
    short, full = schema["Rule"]["anyOf"]
    assert short["type"] == "string"
    assert {"from", "first_of", "each", "required"} <= set(full["properties"])
    assert {"$ref": "#/$defs/Source"} in full["properties"]["from"]["anyOf"]
