"""The table of who may do what to whom (`tests/unit/access/test_combinations.py`), through the commands themselves."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any, Final

import pytest
from site_with_store import Site
from test_cli_access import ME, configure

_FILE: Final = Path(__file__).parents[1] / "access/test_combinations.py"
_spec = importlib.util.spec_from_file_location("combinations", _FILE)
assert _spec is not None
assert _spec.loader is not None
table: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(table)

PATIENTS: Final = {
    "stranger": ("4E", "1002", "", ""),
    "theirs": ("3W", "1001", "", ""),
    "stranger, protected": ("4E", "1002", "PD1||||||||||||Y\r", ""),
    "theirs, protected": ("3W", "1001", "PD1||||||||||||Y\r", ""),
    "stranger, vip": ("4E", "1002", "", "V"),
    "theirs, vip": ("3W", "1001", "", "V"),
    "stranger, ARV all": ("4E", "1002", "ARV|1|A|ALL\r", ""),
    "stranger, CON refused": ("4E", "1002", "CON|1|001|||||||||R\r", ""),
    "only part 2 of others": ("PART2", "1002", "", ""),
}
"""Unit, attending, segments behind PID, PV1-16: a patient for each row of the table that a message makes."""
NUMBER: Final = {name: str(700_000 + number) for number, name in enumerate(PATIENTS)}
COMMANDS: Final = {
    "patient.read": ("patients", "show", "{key}"),
    "patient.find": ("patients", "find", "--reveal", "--reason", "test"),
    "worklist.read": ("tasks", "list", "--patient", "{key}"),
    "entry.read": ("messages", "show", "{entry}"),
}
SAID: Final = {"-": "may not", "n": "none of yours", "x": "restricted"}
ROLES: Final = sorted(set(table.ACTORS) - {"coordinator"})  # whose patients have tasks, which a discharge makes
CASES: Final = [
    (role, patient, action, cell)
    for role, patient, action, cell in table.CASES
    if role in ROLES and patient in PATIENTS and action in COMMANDS
]


def message(name: str) -> bytes:
    unit, attending, more, vip = PATIENTS[name]
    mrn = NUMBER[name]
    return (
        f"MSH|^~\\&|EHR|MAIN|||20261128||ADT^A01^ADT_A01|C{mrn}|P|2.7\rEVN|A01|20261128\r"
        f"PID|1||{mrn}^^^MRN^MR||ROE^RICHARD||1950\r{more}"
        f"PV1|1|I|{unit}^1^1||||{attending}|||||||||{vip}|||V{mrn}^^^MRN\r"
    ).encode()


class Seats:
    """A site for each role, in which whoever runs the tests has an account of that role."""

    def __init__(self, bare: Path, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Site] = {}
        self._filled = Site(Path(shutil.copytree(bare, folder / "filled")))
        self.entries = dict(zip(PATIENTS, self._filled.receive(*map(message, PATIENTS)), strict=True))
        self._filled.process()
        configure(self._filled)

    def of(self, role: str) -> Site:
        if role not in self._made:
            site = Site(Path(shutil.copytree(self._filled.folder, self._folder / role)))
            actor = table.ACTORS[role]
            options = [f"--unit={unit}" for unit in actor.get("units", ())]
            options += [f"--provider={actor['provider']}"] if "provider" in actor else []
            assert site.run("users", "add", ME, "--role", actor["role"], *options).code == 0
            self._made[role] = site
        return self._made[role]


@pytest.fixture(scope="module")
def seats(_bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Seats:
    return Seats(_bare, tmp_path_factory.mktemp("seats"))


def test_there_are_more_than_a_hundred() -> None:
    assert len(CASES) > 100


@pytest.mark.parametrize(("role", "patient", "action", "cell"), CASES)
def test_a_command_does_what_the_table_says(role: str, patient: str, action: str, cell: str, seats: Seats) -> None:
    key = f"MRN:{NUMBER[patient]}"
    words = [word.format(key=key, entry=seats.entries[patient]) for word in COMMANDS[action]]
    done = seats.of(role).run(*words, "--json")
    if action == "patient.find" and cell in "Ynx":
        assert done.code == 0, done
        assert (key in done.out) is (cell == "Y")
    elif cell == "Y":
        assert done.code == 0, done
    else:
        assert done.code == 1, done
        assert SAID[cell] in done.err
        assert "ROE" not in done.out + done.err
