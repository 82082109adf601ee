"""Who may do what to whom: each cell of the tables is one combination of role, patient and action, decided by hand.

Y allowed; - not, for want of the role; n not theirs; x restricted; g allowed because the glass was broken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from engine.access.roles import Policy, load_policy
from engine.trial import access
from engine.yamlfile import parse

FILE: Final = Path(__file__).parents[3] / "mappings/access/roles.yaml"

ACTORS: Final[dict[str, dict[str, Any]]] = {
    "admin": {"role": "admin"},
    "doctor": {"role": "doctor", "provider": "1001"},
    "nurse": {"role": "nurse", "units": ["3W"]},
    "coordinator": {"role": "care_coordinator"},
    "billing": {"role": "billing"},
    "ops": {"role": "ops"},
    "privacy": {"role": "privacy_officer"},
}

_OTHERS: Final = {"attending": "1002", "unit": "4E"}
_OWN: Final = {"attending": "1001", "unit": "3W"}
_TASK: Final = [{"assignee": "care_coordinator"}]

PATIENTS: Final[dict[str, dict[str, Any]]] = {
    "stranger": {"stays": [_OTHERS]},
    "theirs": {"stays": [_OWN], "tasks": _TASK},
    "theirs, long ago": {"stays": [_OWN | {"ended_days_ago": 30}], "tasks": [_TASK[0] | {"ended_days_ago": 30}]},
    "theirs, cancelled": {
        "stays": [_OWN | {"status": "cancelled"}],
        "tasks": [_TASK[0] | {"state": "cancelled", "ended_days_ago": 30}],
    },
    "stranger, protected": {"stays": [_OTHERS], "patient": {"protection": True}},
    "theirs, protected": {"stays": [_OWN], "tasks": _TASK, "patient": {"protection": True}},
    "stranger, vip": {"stays": [_OTHERS | {"vip": "V"}]},
    "theirs, vip": {"stays": [_OWN | {"vip": "V"}], "tasks": _TASK},
    "stranger, ARV all": {"stays": [_OTHERS], "patient": {"restrictions": [{"code": "ALL"}]}},
    "stranger, CON refused": {"stays": [_OTHERS], "patient": {"consent_statements": [{"code": "001", "status": "R"}]}},
    "stranger, glass": {"stays": [_OTHERS], "glass": True},
    "stranger, protected, glass": {"stays": [_OTHERS], "patient": {"protection": True}, "glass": True},
    "stranger, glass is over": {"stays": [_OTHERS], "glass": "over"},
    "stranger, protected, called": {
        "stays": [_OTHERS],
        "patient": {"protection": True},
        "pages": [{"called": ["case-actor"]}],
    },
    "only part 2 of others": {"stays": [_OTHERS | {"unit": "PART2"}]},
}  # fmt: skip

COLUMNS: Final = ("patient.read", "patient.find", "worklist.read", "task.act", "page.ack", "entry.read")

# fmt: off
TABLE: Final[dict[str, dict[str, str]]] = {
    #                                read find work task ack entry
    "admin": {
        "stranger":                    "Y Y Y Y Y Y",
        "theirs":                      "Y Y Y Y Y Y",
        "theirs, long ago":            "Y Y Y Y Y Y",
        "stranger, protected":         "Y Y Y Y Y Y",
        "stranger, vip":               "Y Y Y Y Y Y",
        "stranger, protected, called": "Y Y Y Y Y Y",
        "only part 2 of others":       "Y Y Y Y Y Y",
    },
    "doctor": {
        "stranger":                    "n n n n n -",
        "theirs":                      "Y Y Y Y Y -",
        "theirs, long ago":            "n n n n n -",
        "theirs, cancelled":           "n n n n n -",
        "stranger, protected":         "n n n n n -",
        "theirs, protected":           "Y Y Y Y Y -",
        "theirs, vip":                 "Y Y Y Y Y -",
        "stranger, glass":             "g g g n n -",
        "stranger, protected, glass":  "g g g n n -",
        "stranger, glass is over":     "n n n n n -",
        "stranger, protected, called": "Y Y Y Y Y -",
        "only part 2 of others":       "n n n n n -",
    },
    "nurse": {
        "stranger":                    "n n n n n -",
        "theirs":                      "Y Y Y Y Y -",
        "theirs, long ago":            "n n n n n -",
        "theirs, cancelled":           "n n n n n -",
        "stranger, protected":         "n n n n n -",
        "theirs, protected":           "Y Y Y Y Y -",
        "theirs, vip":                 "Y Y Y Y Y -",
        "stranger, glass":             "g g g n n -",
        "stranger, glass is over":     "n n n n n -",
        "stranger, protected, called": "Y Y Y Y Y -",
    },
    "coordinator": {
        "stranger":                    "n n n n n -",
        "theirs":                      "Y Y Y Y Y -",
        "theirs, long ago":            "n n n n n -",
        "theirs, protected":           "Y Y Y Y Y -",
        "stranger, glass":             "g g g n n -",
        "stranger, protected, called": "Y Y Y Y Y -",
    },
    "billing": {
        "stranger":                    "Y Y - - - -",
        "theirs":                      "Y Y - - - -",
        "theirs, long ago":            "Y Y - - - -",
        "stranger, protected":         "x x - - - -",
        "theirs, protected":           "x x - - - -",
        "stranger, vip":               "x x - - - -",
        "stranger, ARV all":           "x x - - - -",
        "stranger, CON refused":       "x x - - - -",
        "stranger, protected, glass":  "x x - - - -",
        "stranger, protected, called": "Y Y Y Y Y -",
        "only part 2 of others":       "Y Y - - - -",
    },
    "ops": {
        "stranger":                    "- - - - - -",
        "theirs":                      "- - - - - -",
        "stranger, protected":         "- - - - - -",
        "stranger, glass":             "- - - - - -",
        "stranger, protected, called": "Y - Y Y Y -",
    },
    "privacy": {
        "stranger":                    "Y Y - - - -",
        "stranger, protected":         "Y Y - - - -",
        "stranger, vip":               "Y Y - - - -",
        "stranger, glass":             "Y Y - - - -",
    },
}

SITE_COLUMNS: Final = (
    "trail.read", "users.manage", "users.read", "replay", "dead.decide", "config.reload", "glass.attest",
    "entries.list", "delivery.decide", "store.maintain", "oncall.act",
)
SITE: Final[dict[str, str]] = {
    #              trail users users replay dead conf attest list dest store oncall
    "admin":       "Y    Y     Y     Y      Y    Y    Y      Y    Y    Y     Y",
    "doctor":      "-    -     -     -      -    -    -      -    -    -     -",
    "nurse":       "-    -     -     -      -    -    -      -    -    -     -",
    "coordinator": "-    -     -     -      -    -    -      -    -    -     -",
    "billing":     "-    -     -     -      -    -    -      -    -    -     -",
    "ops":         "-    -     Y     Y      Y    Y    -      Y    Y    Y     Y",
    "privacy":     "Y    -     Y     -      -    -    Y      -    -    -     -",
}
# fmt: on

CASES: Final = [
    (role, patient, action, cell)
    for role, rows in TABLE.items()
    for patient, row in rows.items()
    for action, cell in zip(COLUMNS, row.split(), strict=True)
]
CODES: Final = {"-": "role", "n": "relation", "x": "restricted"}


@pytest.fixture(scope="module")
def policy() -> Policy:
    empty = "when: {units: [], facilities: [], services: []}"
    text = FILE.read_text().replace(empty, "when: {units: [PART2], facilities: [], services: []}")
    return load_policy(parse(text, "roles.yaml"))


def test_the_tables_have_more_than_three_hundred_combinations() -> None:
    assert len(CASES) + sum(len(row.split()) for row in SITE.values()) > 300


@pytest.mark.parametrize(("role", "patient", "action", "cell"), CASES)
def test_a_combination_is_decided_as_the_table_says(
    role: str, patient: str, action: str, cell: str, policy: Policy
) -> None:
    said = access.answer({"actor": ACTORS[role], "action": action, **PATIENTS[patient]}, policy)
    assert said["why"]
    if cell in "Yg":
        assert said["allowed"], said
        assert said["glass"] is (cell == "g")
    else:
        assert (said["allowed"], said["code"]) == (False, CODES[cell]), said


@pytest.mark.parametrize(
    ("role", "action", "cell"),
    [(r, a, c) for r, row in SITE.items() for a, c in zip(SITE_COLUMNS, row.split(), strict=True)],
)
def test_what_is_about_no_patient_is_decided_by_the_role(role: str, action: str, cell: str, policy: Policy) -> None:
    said = access.answer({"actor": ACTORS[role], "action": action, "nobody": True}, policy)
    assert said["allowed"] is (cell == "Y"), said
