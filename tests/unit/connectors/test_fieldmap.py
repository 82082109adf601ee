from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from connector_deliveries import (
    NOW,
    encounter_payload,
    patient_payload,
    score_payload,
    task_payload,
)
from peers.salesforce_org import METADATA, read_schema

from engine.connectors.fieldmap import (
    PAYLOADS,
    FieldMap,
    FieldMapFile,
    UnsafeKeyError,
    compile_field_map,
)
from engine.connectors.salesforce import SalesforceDestination
from engine.domain.delivery import Operation
from engine.errors import SettingsError
from engine.yamlfile import parse
from engine.yamlmodel import validate

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "mappings" / "destinations" / "salesforce.yaml"
ZONE = ZoneInfo("America/New_York")


def compiled(text: str) -> FieldMap:
    return compile_field_map(parse(text, "map.yaml"), zone=ZONE)


def shipped() -> FieldMap:
    return compiled(SHIPPED.read_text())


def one_field(rule: str, payload: dict[str, Any]) -> Any:
    key = "{field: K__c, from: patient.key}"
    text = f"rows: [{{on: upsert_patient, object: Account, key: {key}, fields: {{F: {rule}}}}}]"
    row = compiled(text).row(Operation.UPSERT_PATIENT, payload, NOW)
    assert row is not None
    return row.fields["F"]


def problems(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        compiled(text)
    return [str(problem) for problem in caught.value.problems]


# --- the shipped map and the metadata ---


def test_the_shipped_map_is_valid_and_covers_every_operation_with_fields():
    field_map = shipped()
    assert all(field_map.knows(one) for one in PAYLOADS if one.what in SalesforceDestination.takes)
    assert not field_map.knows(Operation.FORWARD)


def test_every_field_of_the_shipped_map_is_in_the_metadata_and_long_enough():
    schema = read_schema()
    file = validate(parse(SHIPPED.read_text(), "salesforce.yaml"), FieldMapFile)
    for rule in file.rows:
        if rule.object is None or rule.key is None:
            continue
        fields = schema[rule.object]
        assert fields[rule.key.field].external_id
        for name, field in rule.fields.items():
            if field.reference is not None:
                column = re.sub("__r$", "__c", name) if name.endswith("__r") else name + "Id"
                assert field.reference in fields[column].reference_to
                continue
            length = fields[name].length
            if field.chars_max is not None:
                assert length is not None
                assert field.chars_max <= length, name


def test_external_ids_are_unique_and_told_apart_by_case():
    schema = read_schema()
    for name in ("Account", "HandoffEncounter__c", "Task"):
        field = schema[name]["ExternalId__c"]
        assert (field.external_id, field.unique, field.case_sensitive, field.length) == (True, True, True, 255)


def test_the_fields_of_the_seed_exist():
    assert {
        "ExternalId__c", "MRN__c", "HighRiskFlag__c", "ReadmissionRiskScore__c", "LastSync__c",
    } <= set(read_schema()["Account"])  # fmt: skip


def test_manifest_and_permission_set_name_every_field():
    ns = "{http://soap.sforce.com/2006/04/metadata}"
    files = sorted(METADATA.glob("objects/*/fields/*.field-meta.xml"))
    deployed = {f"{path.parts[-3]}.{path.name.removesuffix('.field-meta.xml')}" for path in files}
    manifest = ET.parse(ROOT / "salesforce" / "manifest" / "package.xml").getroot()  # noqa: S314 - our own
    listed = {
        member.text
        for types in manifest.iter(ns + "types")
        if types.findtext(ns + "name") == "CustomField"
        for member in types.iter(ns + "members")
    }
    assert listed == deployed
    path = METADATA / "permissionsets" / "Handoff_Integration.permissionset-meta.xml"
    permissions = ET.parse(path).getroot()  # noqa: S314 - our own
    granted = {
        permission.findtext(ns + "field")
        for permission in permissions.iter(ns + "fieldPermissions")
        if permission.findtext(ns + "editable") == "true"
    }
    # Master-detail fields are always visible; the platform takes activity fields by their two objects only.
    needed = {name for name in deployed if not name.startswith("Activity.")} - {"HandoffEncounter__c.Patient__c"}
    for name in deployed - needed:
        if name.startswith("Activity."):
            needed |= {name.replace("Activity.", "Task."), name.replace("Activity.", "Event.")}
    assert needed <= granted
    assert not [p for p in permissions.iter(ns + "objectPermissions") if p.findtext(ns + "allowDelete") == "true"]


# --- what becomes of the deliveries ---


def test_a_patient_becomes_a_person_account():
    row = shipped().row(Operation.UPSERT_PATIENT, patient_payload(), NOW)
    assert row is not None
    assert (row.object, row.key_field, row.key) == ("Account", "ExternalId__c", "MRN:1001")
    assert row.fields["RecordType"] == {"attributes": {"type": "RecordType"}, "Name": "Person Account"}
    assert row.fields["LastName"] == "Doe"
    assert row.fields["MRN__c"] == "1001"
    assert row.fields["PersonBirthdate"] == "1958-07-15"
    assert row.fields["PrimaryCareProvider__c"] == "Welby, Marcus"
    assert row.fields["Deceased__c"] is False
    assert row.fields["LastSync__c"] == "2026-03-05T14:30:00.000Z"


def test_a_birth_date_without_a_day_is_not_made_up():
    row = shipped().row(Operation.UPSERT_PATIENT, patient_payload(birth_date="1958-07"), NOW)
    assert row is not None
    assert row.fields["PersonBirthdate"] is None
    assert row.fields["BirthDateAsSent__c"] == "1958-07"


def test_a_patient_without_a_name_still_has_the_last_name_that_salesforce_needs():
    row = shipped().row(Operation.UPSERT_PATIENT, patient_payload(name=None), NOW)
    assert row is not None
    assert row.fields["LastName"] == "Unknown"
    assert row.fields["FirstName"] is None


def test_an_encounter_is_tied_to_its_patient_by_external_id():
    row = shipped().row(Operation.UPSERT_ENCOUNTER, encounter_payload(), NOW)
    assert row is not None
    assert (row.object, row.key) == ("HandoffEncounter__c", "VN:5001")
    assert row.fields["Patient__r"] == {"attributes": {"type": "Account"}, "ExternalId__c": "MRN:1001"}
    assert row.fields["AdmittedAt__c"] == "2026-03-01T14:15:00.000Z"
    assert row.fields["Location__c"] == "4W / 401 / A"
    assert row.fields["Diagnoses__c"] == "I50.9, E11.9"


def test_a_cancelled_discharge_clears_the_discharge():
    row = shipped().row(Operation.UPSERT_ENCOUNTER, encounter_payload(discharged_at=None), NOW)
    assert row is not None
    assert "DischargedAt__c" in row.fields
    assert row.fields["DischargedAt__c"] is None


def test_a_score_sets_the_flag_and_a_lower_one_takes_it_back():
    high = shipped().row(Operation.UPSERT_SCORE, score_payload(), NOW)
    low = shipped().row(Operation.UPSERT_SCORE, score_payload(band="low", min=2, max=2, value=2), NOW)
    assert high is not None
    assert low is not None
    assert (high.fields["HighRiskFlag__c"], high.fields["ReadmissionRiskScore__c"]) == (True, 14)
    assert (low.fields["HighRiskFlag__c"], low.fields["ReadmissionRiskScore__c"]) == (False, 2)


def test_an_open_score_sends_the_points_that_are_proven():
    row = shipped().row(Operation.UPSERT_SCORE, score_payload(value=None, min=11, max=15), NOW)
    assert row is not None
    assert (row.fields["ReadmissionRiskScore__c"], row.fields["ReadmissionRiskScoreMax__c"]) == (11, 15)


def test_a_withdrawn_score_takes_flag_and_points_back():
    withdrawn = score_payload(decides=True) | {"withdrawn": True}
    row = shipped().row(Operation.UPSERT_SCORE, withdrawn, NOW)
    high = shipped().row(Operation.UPSERT_SCORE, score_payload(decides=True) | {"withdrawn": False}, NOW)
    assert row is not None
    assert high is not None
    assert (row.object, row.key) == ("Account", "MRN:1001")
    assert row.fields.pop("HighRiskFlag__c") is False
    assert row.fields.pop("LastSync__c") is not None
    assert set(row.fields.values()) == {None}
    assert {*row.fields, "HighRiskFlag__c", "LastSync__c"} == set(high.fields)


def test_a_score_that_does_not_decide_is_not_sent():
    assert shipped().row(Operation.UPSERT_SCORE, score_payload(decides=False), NOW) is None
    assert shipped().row(Operation.UPSERT_SCORE, score_payload(decides=True), NOW) is not None


def test_a_retracted_task_is_changed_and_does_not_read_as_completed():
    row = shipped().row(Operation.UPSERT_TASK, task_payload(state="retracted"), NOW)
    assert row is not None
    assert (row.object, row.key) == ("Task", "task-1")
    assert (row.fields["Status"], row.fields["HandoffState__c"]) == ("Cancelled", "retracted")
    assert row.fields["What"] == {"attributes": {"type": "Account"}, "ExternalId__c": "MRN:1001"}


def test_a_due_date_is_the_day_in_the_sites_zone():
    row = shipped().row(Operation.UPSERT_TASK, task_payload(due_at="2026-03-05T02:00:00+00:00"), NOW)
    assert row is not None
    assert row.fields["ActivityDate"] == "2026-03-04"
    assert row.fields["HandoffDueAt__c"] == "2026-03-05T02:00:00.000Z"


def test_a_merge_marks_the_merged_patient_only():
    row = shipped().row(Operation.MERGE_PATIENT, {"survivor": "MRN:1", "merged": "MRN:2"}, NOW)
    assert row is not None
    assert (row.key, row.fields["MergedInto__c"], row.fields["HighRiskFlag__c"]) == ("MRN:2", "MRN:1", False)


# --- values ---


@pytest.mark.parametrize(
    ("rule", "fields", "expected"),
    [
        ("{from: patient.sex}", {"sex": "F"}, "F"),
        ("{from: patient.sex}", {"sex": None}, None),
        ("{from: patient.sex, default: U}", {"sex": None}, "U"),
        ("{from: patient.sex, table: {F: female}, default: other}", {"sex": "X"}, "other"),
        ("{from: patient.deceased, as: boolean}", {"deceased": True}, True),
        ("{from: patient.deceased, equals: true}", {"deceased": None}, False),
        ("{from: patient.active_medications, as: number}", {"active_medications": 7}, 7),
        ("{from: patient.active_medications, as: number}", {"active_medications": "7"}, None),
        ('{from: "patient.phones[1]"}', {"phones": ["+1", "+2"]}, "+2"),
        ('{from: "patient.phones[1]"}', {"phones": ["+1"]}, None),
        ('{from: "patient.phones[*]", join: "; "}', {"phones": ["+1", "+2", "+1"]}, "+1; +2"),
        ('{from: "patient.identifiers[*].value", join: ","}', {}, "1001"),
        ("{from: patient.sex, chars_max: 2}", {"sex": "unknown"}, "un"),
        ("{from: patient.deceased_at, as: datetime}", {"deceased_at": "2026-03-01T23:30:00-05:00"},
         "2026-03-02T04:30:00.000Z"),
        ("{from: patient.deceased_at, as: datetime}", {"deceased_at": "2026-03-01"}, None),
        ("{from: patient.deceased_at, as: datetime}", {"deceased_at": "2026-03-01T23:30:00"}, None),
        ("{from: patient.birth_date, as: date}", {"birth_date": "1958-02-30"}, None),
        ("{value: 5}", {}, 5),
        ("{value: null}", {}, None),
        ("{now: true}", {}, "2026-03-05T14:30:00.000Z"),
    ],
)  # fmt: skip
def test_values_are_written_as_their_rule_says(rule: str, fields: dict[str, Any], expected: Any):
    assert one_field(rule, patient_payload(**fields)) == expected


def test_a_reference_to_nothing_is_left_out():
    text = (
        "rows: [{on: upsert_task, object: Task, key: {field: K__c, from: task.id},"
        " fields: {What: {reference: Account, by: E__c, from: task.patient_key}}}]"
    )
    row = compiled(text).row(Operation.UPSERT_TASK, task_payload(patient_key=""), NOW)
    assert row is not None
    assert row.fields == {}


@pytest.mark.parametrize("key", ["MRN:1 ", " MRN:1", "MRN:\n1", "MRN:1\x00", "", "M" * 256, None, 5])
def test_a_key_that_salesforce_would_change_is_refused(key: Any):
    with pytest.raises(UnsafeKeyError) as caught:
        shipped().row(Operation.UPSERT_PATIENT, {"patient": {"key": key}}, NOW)
    assert "MRN" not in str(caught.value)


def test_a_reference_to_a_key_that_salesforce_would_change_is_refused():
    with pytest.raises(UnsafeKeyError):
        shipped().row(Operation.UPSERT_ENCOUNTER, encounter_payload(patient_key="MRN:1 "), NOW)


@pytest.mark.parametrize("key", ["MRN:a#b", "MRN:a/b?c=d&e", "MRN:ä€", "MRN:a b", "MRN:%23"])
def test_any_other_key_is_taken_as_it_is(key: str):
    row = shipped().row(Operation.UPSERT_PATIENT, patient_payload(key), NOW)
    assert row is not None
    assert row.key == key


# --- problems ---

GOOD = "object: Account, key: {field: K__c, from: patient.key}"
OTHER_KEY = "object: Account, key: {field: L__c, from: merged}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"rows: [{{on: upsert_patient, {GOOD}, fields: {{F: {{from: patient.nme.family}}}}}}]", "has no value"),
        (f"rows: [{{on: upsert_patient, {GOOD}, fields: {{F: {{from: patient.name}}}}}}]", "has no value"),
        (f"rows: [{{on: upsert_patient, {GOOD}, fields: {{F: {{from: patient.phones}}}}}}]", "has no value"),
        (f'rows: [{{on: upsert_patient, {GOOD}, fields: {{F: {{from: "patient.sex[0]"}}}}}}]', "has no value"),
        (f"rows: [{{on: upsert_patient, {GOOD}, fields: {{F: {{from: Patient..x}}}}}}]", "is no place"),
        (f"rows: [{{on: upsert_patient, {GOOD}, fields: {{F: {{}}}}}}]", "exactly one of"),
        (f"rows: [{{on: upsert_patient, {GOOD}, fields: {{F: {{value: 1, now: true}}}}}}]", "exactly one of"),
        (f'rows: [{{on: upsert_patient, {GOOD}, fields: {{F: {{from: "patient.phones[*]"}}}}}}]', "need join"),
        (f"rows: [{{on: upsert_patient, {GOOD}, fields: {{F: {{value: 1, reference: A}}}}}}]", "belong together"),
        (f"rows: [{{on: upsert_patient, {GOOD}, feilds: {{}}}}]", "unknown key"),
        (f"rows: [{{on: upsert_patient, {GOOD}, fields: {{K__c: {{value: 1}}}}}}]", "not listed again"),
        ("rows: [{on: upsert_patient, object: Account}]", "needs object and key"),
        (f"rows: [{{on: upsert_patient, skip: true, {GOOD}}}]", "stands alone"),
        (f"rows: [{{on: upsert_patient, {GOOD}}}, {{on: upsert_patient, skip: true}}]", "never used"),
        (f"rows: [{{on: upsert_patient, when: {{patient.x: 1}}, {GOOD}}}]", "has no value"),
        (f"rows: [{{on: upsert_patient, {GOOD}}}, {{on: merge_patient, {OTHER_KEY}}}]", "another field"),
        ("rows: [{on: forward, skip: true}]", "no fields to map"),
        ("rows: []", "at least one"),
    ],
)  # fmt: skip
def test_a_wrong_map_is_refused_at_start_with_its_place(text: str, message: str):
    found = problems(text)
    assert any(message in problem and problem.startswith("map.yaml:1:") for problem in found), found


def test_all_problems_are_told_at_once():
    text = (
        "rows:\n"
        "  - on: upsert_patient\n"
        "    object: Account\n"
        "    key: {field: K__c, from: patient.kee}\n"
        "    fields:\n"
        "      A: {from: patient.nothing}\n"
        "      B: {from: patient.sex}\n"
        "      C: {from: encounter.key}\n"
    )
    found = problems(text)
    assert [problem.split(": ")[0] for problem in found] == ["map.yaml:4:24", "map.yaml:6:11", "map.yaml:8:11"]
