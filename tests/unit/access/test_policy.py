"""The decision: what holds for every actor, patient and question, and what a reader of the file is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.access.actions import CATALOGUE, GRANTED, SCOPES, Action
from engine.access.fields import ALL, FIELDS, OF_PART, Group, sees
from engine.access.relations import Relation
from engine.access.roles import Policy, load_policy
from engine.domain.parts import PARTS
from engine.domain.shapes import PatientShape
from engine.errors import SettingsError
from engine.trial import access
from engine.yamlfile import Document, parse

FILE: Final = Path(__file__).parents[3] / "mappings/access/roles.yaml"
EMPTY: Final = "when: {units: [], facilities: [], services: []}"
TEXT: Final = FILE.read_text().replace(EMPTY, "when: {units: [PART2], facilities: [], services: []}")
DOCUMENT: Final[Document] = parse(TEXT, "roles.yaml")
POLICY: Final[Policy] = load_policy(DOCUMENT)

_ids = st.sampled_from(["1001", "1002"])
_units = st.sampled_from(["3W", "4E", "PART2"])
_roles = st.lists(st.sampled_from(sorted(POLICY.roles)), unique=True, max_size=3)
_actors = st.fixed_dictionaries(
    {"roles": _roles, "units": st.lists(_units, unique=True, max_size=2)},
    optional={"provider": _ids, "panels": st.lists(_ids, max_size=1)},
)
_stays = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "attending": _ids,
            "unit": _units,
            "ended_days_ago": st.sampled_from([1, 30]),
            "vip": st.sampled_from(["V", "N"]),
        },
    ),
    max_size=3,
)
_marks = st.fixed_dictionaries(
    {},
    optional={
        "protection": st.booleans(),
        "restrictions": st.lists(
            st.fixed_dictionaries({"code": st.sampled_from(["ALL", "PSY", "DEM", "LOC", "NO"])}), max_size=2
        ),
        "pcp": st.fixed_dictionaries({"id": _ids}),
    },
)
_questions = st.fixed_dictionaries(
    {
        "actor": _actors,
        "action": st.sampled_from([str(one) for one in Action if CATALOGUE[one].patients]),
        "stays": _stays,
        "patient": _marks,
    },
    optional={
        "tasks": st.lists(
            st.fixed_dictionaries({"assignee": st.sampled_from(["nurse", "care_coordinator"])}), max_size=1
        ),
        "pages": st.lists(st.just({"called": ["case-actor"]}), max_size=1),
        "glass": st.sampled_from([True, "over", "another", "somebody"]),
    },
)


def ask(question: dict[str, Any], policy: Policy = POLICY) -> dict[str, Any]:
    return access.answer(question, policy)


@settings(max_examples=300, deadline=None)
@given(_questions)
def test_every_answer_says_why_and_names_a_line_of_the_file(question: dict[str, Any]) -> None:
    said = ask(question)
    path = tuple(said["rule"].split("."))
    assert said["why"]
    assert path in DOCUMENT.places, said["rule"]


@settings(max_examples=300, deadline=None)
@given(_questions)
def test_nobody_sees_what_neither_role_nor_page_nor_glass_shows(question: dict[str, Any]) -> None:
    said = ask(question)
    if not said["allowed"]:
        return
    most = set().union(*(POLICY.roles[name].sees for name in question["actor"]["roles"]))
    if "page" in said["relations"] and POLICY.on_call is not None:
        most |= POLICY.on_call.sees
    assert set(said["sees"]) <= {str(one) for one in most}


@settings(max_examples=300, deadline=None)
@given(_questions, st.sampled_from([{"protection": True}, {"restrictions": [{"code": "PSY"}]}]))
def test_a_mark_never_shows_more(question: dict[str, Any], mark: dict[str, Any]) -> None:
    plain, marked = ask(question), ask(question | {"patient": question["patient"] | mark})
    if "restrictions" in question["patient"] and "restrictions" in mark:
        return  # it takes the place of the other marks
    if marked["allowed"] and not marked["glass"]:
        assert plain["allowed"]
        assert set(marked["sees"]) <= set(plain["sees"])


@settings(max_examples=300, deadline=None)
@given(_questions)
def test_a_broken_glass_changes_nothing_and_shows_only_its_own_patient(question: dict[str, Any]) -> None:
    said = ask(question)
    without = ask({key: value for key, value in question.items() if key != "glass"})
    if said["allowed"] and said["glass"]:
        assert question["glass"] is True
        assert not CATALOGUE[Action(question["action"])].writes
        assert not without["allowed"]
    else:
        assert said["allowed"] == without["allowed"]


@settings(max_examples=300, deadline=None)
@given(_questions)
def test_who_was_called_is_never_kept_out(question: dict[str, Any]) -> None:
    said = ask(question | {"action": "page.ack", "pages": [{"called": ["case-actor"]}]})
    assert said["allowed"], said


@settings(max_examples=200, deadline=None)
@given(_questions, st.sampled_from(sorted(POLICY.roles)))
def test_another_role_takes_nothing_away(question: dict[str, Any], role: str) -> None:
    more = question["actor"] | {"roles": [*question["actor"]["roles"], role]}
    fewer, wider = ask(question), ask(question | {"actor": more})
    if fewer["allowed"]:
        assert wider["allowed"]


def test_a_token_allows_what_its_scopes_name_and_no_more_than_its_account() -> None:
    actor = {"role": "doctor", "provider": "1001", "scopes": ["worklist.read"]}
    theirs = {"stays": [{"attending": "1001"}]}
    assert ask({"actor": actor, "action": "worklist.read", **theirs})["allowed"]
    assert ask({"actor": actor, "action": "patient.read", **theirs})["code"] == "scope"
    assert ask({"actor": actor | {"scopes": ["all"]}, "action": "users.manage", "nobody": True})["code"] == "role"
    assert ask({"actor": actor | {"scopes": []}, "action": "worklist.read", **theirs})["code"] == "scope"
    assert ask({"actor": actor | {"scopes": ["read"]}, "action": "task.act", **theirs})["code"] == "scope"


def test_a_role_that_the_file_has_no_more_allows_nothing() -> None:
    said = ask({"actor": {"role": "surgeon"}, "action": "patient.read", "stays": [{"attending": "1001"}]})
    assert said["code"] == "account"


@pytest.mark.parametrize(
    ("code", "hidden"), [("PSY", "clinical"), ("HIV", "clinical"), ("DEM", "contact"), ("LOC", "stay")]
)
def test_a_restriction_of_some_fields_takes_these_and_no_others(code: str, hidden: str) -> None:
    question = {"actor": {"role": "care_coordinator"}, "action": "patient.read"}
    question |= {"tasks": [{"assignee": "care_coordinator"}], "patient": {"restrictions": [{"code": code}]}}
    said = ask(question)
    if code in {"PSY", "HIV"}:
        assert said["not"] == sorted([hidden, "payment"])
    else:  # who has a task of the patient sees these
        assert said["not"] == ["payment"]


def test_a_hidden_stay_that_alone_makes_the_patient_theirs_hides_the_patient() -> None:
    question = {"actor": {"role": "care_coordinator"}, "action": "patient.read", "stays": [{"unit": "PART2"}]}
    question |= {"tasks": [{"assignee": "care_coordinator", "stay": "VN:1"}]}
    assert ask(question)["rule"] == "restrictions.part2"


def test_a_glass_that_a_restriction_does_not_let_be_broken_opens_nothing() -> None:
    text = TEXT.replace("hides: all\n    notice: This record", "hides: all\n    glass: false\n    notice: This record")
    policy = load_policy(parse(text, "roles.yaml"))
    question = {"actor": {"role": "doctor"}, "action": "patient.read", "patient": {"protection": True}, "glass": True}
    assert ask(question)["glass"]
    assert ask(question, policy)["code"] == "relation"
    assert ask(question | {"glass": False}, policy)["glass_helps"] is False


def test_every_field_of_every_shape_belongs_to_a_group() -> None:
    patient = set(PatientShape.__struct_fields__)
    assert patient <= set(FIELDS["patient"])
    assert {part.what for part in PARTS} <= set(OF_PART)


def test_a_field_without_a_group_is_seen_by_who_sees_all() -> None:
    assert sees("patient", "blood_type", ALL)
    assert not sees("patient", "blood_type", ALL - {Group.PAYMENT})


def test_every_action_can_be_a_scope_and_is_given_to_a_role() -> None:
    assert set(GRANTED) <= set().union(*(role.may for role in POLICY.roles.values()))
    assert {str(one) for one in GRANTED} <= set(SCOPES)


def test_every_relation_is_used_by_a_role() -> None:
    used = set().union(*(role.patients for role in POLICY.roles.values() if not isinstance(role.patients, str)))
    assert used == set(Relation)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("may: [patient.find, patient.read, patient.reveal]", "may: [patient.fnid]", "there is no action patient.fnid"),
        ("users.*, retention", "retention", "nobody could make an account"),
        ("patients: [unit, team, page]", "patients: none", "has no patients"),
        ("patients: [unit, team, page]", "patients: []", "which relations"),
        ("patients: [unit, team, page]", "patients: [ward]", "patients"),
        ("roles: [admin]\n    hides: [contact]", "roles: [boss]\n    hides: [contact]", "there is no role boss"),
        ("when: {access: [LOC]}", "when: {}", "names no mark"),
        ("covers: stay", "covers: patient\n    extra: 1", "unknown key"),
        ("when: {units: [PART2], facilities: [], services: []}", "when: {protection: true}", "mark the patient"),
        ("worklist.read, page.read]\n  tell", "task.act]\n  tell", "changes nothing"),
        ("tell: [privacy_officer]", "tell: [police]", "there is no role police"),
        ("sees: [metadata]", "sees: [everything]", "must be"),
    ],
)
def test_a_file_that_does_not_mean_what_it_says_is_refused(before: str, after: str, told: str) -> None:
    assert before in TEXT
    with pytest.raises(SettingsError) as error:
        load_policy(parse(TEXT.replace(before, after, 1), "roles.yaml"))
    assert told in str(error.value)


def test_who_was_called_needs_no_role() -> None:
    called = {"actor": {"roles": []}, "action": "page.ack", "pages": [{"called": ["case-actor"]}]}
    assert ask(called)["allowed"]
    assert ask({"actor": {"roles": []}, "action": "page.ack", "nobody": True})["allowed"]
    assert ask({"actor": {"roles": []}, "action": "page.ack"})["code"] == "account"
    assert ask({"actor": {"roles": []}, "action": "patient.find", "nobody": True})["code"] == "account"
