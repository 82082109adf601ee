"""The table of who may do what to whom (`tests/unit/access/test_combinations.py`), through the commands themselves and
over HTTP: the same patients in one real store, an account for each role.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp.test_utils import TestClient, TestServer
from site_with_store import Site
from test_cli_access import ME, configure

from engine.connectors.registry import load
from engine.console.app import create_console
from engine.console.site import ConsoleSite
from engine.desk.accounts import Accounts
from engine.runtime import hints
from engine.snapshot import Snapshot
from engine.store.opening import open_store

_FILE: Final = Path(__file__).parents[1] / "access/test_combinations.py"
_spec = importlib.util.spec_from_file_location("combinations", _FILE)
assert _spec is not None
assert _spec.loader is not None
table: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(table)

_STRANGER, _THEIRS = ("4E", "1002"), ("3W", "1001")
_PD1: Final = "PD1||||||||||||Y\r"
PATIENTS: Final[dict[str, tuple[str, tuple[str, str], str, str, str]]] = {
    # row of the table, (unit, attending), segments behind PID, PV1-16, day of the discharge
    "stranger": ("stranger", _STRANGER, "", "", ""),
    "theirs": ("theirs", _THEIRS, "", "", ""),
    "theirs, long ago": ("theirs, long ago", _THEIRS, "", "", "20260915"),
    "stranger, protected": ("stranger, protected", _STRANGER, _PD1, "", ""),
    "theirs, protected": ("theirs, protected", _THEIRS, _PD1, "", ""),
    "stranger, vip": ("stranger, vip", _STRANGER, "", "V", ""),
    "theirs, vip": ("theirs, vip", _THEIRS, "", "V", ""),
    "stranger, ARV all": ("stranger, ARV all", _STRANGER, "ARV|1|A|ALL\r", "", ""),
    "stranger, CON refused": ("stranger, CON refused", _STRANGER, "CON|1|001|||||||||R\r", "", ""),
    "only part 2 of others": ("only part 2 of others", ("PART2", "1002"), "", "", ""),
    "stranger, glass": ("stranger, glass", _STRANGER, "", "", ""),
    "stranger, protected, glass": ("stranger, protected, glass", _STRANGER, _PD1, "", ""),
    # a discharge makes tasks, which are the care coordinators'
    "stranger, with tasks": ("stranger", _STRANGER, "", "", "20261128"),
    "theirs, with tasks": ("theirs", _THEIRS, "", "", "20261128"),
    "theirs, protected, with tasks": ("theirs, protected", _THEIRS, _PD1, "", "20261128"),
    "stranger, glass, with tasks": ("stranger, glass", _STRANGER, "", "", "20261128"),
}
NUMBER: Final = {name: str(700_000 + number) for number, name in enumerate(PATIENTS)}
COMMANDS: Final = {
    "patient.read": ("patients", "show", "{key}"),
    "patient.find": ("patients", "find", "--reveal", "--reason", "test"),
    "worklist.read": ("tasks", "list", "--patient", "{key}"),
    "task.act": ("tasks", "attempt", "{task}", "--how", "phone", "--result", "no_answer"),
    "entry.read": ("messages", "show", "{entry}"),
}
SAID: Final = {"-": "may not", "n": "none of yours", "x": "restricted"}
WITH_TASKS: Final = frozenset(name for name in PATIENTS if name.endswith("with tasks"))
GLASS: Final = frozenset(name for name, one in PATIENTS.items() if "glass" in one[0])
BREAKERS: Final = frozenset({"doctor", "nurse", "coordinator"})


def _fits(role: str, patient: str, action: str) -> bool:
    """Whether the patient is made as the table's row means it."""
    if role == "coordinator" and (PATIENTS[patient][0].startswith("theirs") != (patient in WITH_TASKS)):
        return False  # by tasks alone a patient is theirs
    if patient in GLASS and role not in BREAKERS:
        return False
    return action != "task.act" or patient in WITH_TASKS


CASES: Final = [
    (role, patient, action, cell)
    for role, row, action, cell in table.CASES
    for patient, one in PATIENTS.items()
    if one[0] == row and action in COMMANDS and _fits(role, patient, action)
]


def message(name: str) -> bytes:
    _, (unit, attending), more, vip, left = PATIENTS[name]
    mrn, event = NUMBER[name], "A03" if left else "A01"
    at = left or "20261128"
    pv1 = ["", "1", "I", f"{unit}^1^1", "", "", "", attending, *[""] * 8, vip, "", "", f"V{mrn}^^^MRN", *[""] * 24, at]
    if left:
        pv1[36] = "01"
        pv1.append(at)
    return (
        f"MSH|^~\\&|EHR|MAIN|||{at}||ADT^{event}^ADT_{event}|C{mrn}|P|2.7\rEVN|{event}|{at}\r"
        f"PID|1||{mrn}^^^MRN^MR||ROE^RICHARD||1950\r{more}PV1{'|'.join(pv1)}\r"
    ).encode()


class _NoDaemon:
    async def ask(self, _ask: hints.Ask) -> hints.Told:
        return hints.Told(number=0, status=200, media="application/json", body="{}")

    def hear(self, told: hints.Told) -> None:
        raise AssertionError(told)

    def look(self) -> None:
        pass


class Seats:
    """A site for each role, in which whoever runs the tests has an account of that role; all of the same store."""

    def __init__(self, bare: Path, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Site] = {}
        self._filled = Site(Path(shutil.copytree(bare, folder / "filled")))
        self.entries = dict(zip(PATIENTS, self._filled.receive(*map(message, PATIENTS)), strict=True))
        self._filled.process()
        self.charts: dict[str, str] = {}
        self.tasks: dict[str, str] = {}
        with open_store(load(Snapshot.read(self._filled.config)), "tool") as store, store.reader() as conn:
            for name in PATIENTS:
                (chart,) = store.charts.by_key(conn, f"MRN:{NUMBER[name]}")
                self.charts[name] = chart.id
                if name in WITH_TASKS:
                    assignee = "care_coordinator"
                    self.tasks[name] = next(one.id for one in chart.tasks if one.assignee == assignee)
        configure(self._filled)
        text = self._filled.config.read_text()
        self._filled.config.write_text(text.replace("grace_days: 366", "grace_days: 7"))

    def of(self, role: str) -> Site:
        if role not in self._made:
            site = Site(Path(shutil.copytree(self._filled.folder, self._folder / role)))
            actor = table.ACTORS[role]
            options = [f"--unit={unit}" for unit in actor.get("units", ())]
            options += [f"--provider={actor['provider']}"] if "provider" in actor else []
            assert site.run("users", "add", ME, "--role", actor["role"], *options).code == 0
            for name in GLASS if role in BREAKERS else ():
                key, why = f"MRN:{NUMBER[name]}", ("--reason", "covering", "--because", "I round for a colleague")
                assert site.run("break-glass", key, *why).code == 0
            self._made[role] = site
        return self._made[role]

    def words(self, patient: str, action: str) -> list[str]:
        given = {"key": f"MRN:{NUMBER[patient]}", "entry": self.entries[patient], "task": self.tasks.get(patient)}
        return [word.format(**given) for word in COMMANDS[action]]


@pytest.fixture(scope="module")
def seats(_bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Seats:
    return Seats(_bare, tmp_path_factory.mktemp("seats"))


def test_there_are_more_than_two_hundred() -> None:
    assert len(CASES) > 200
    assert {role for role, *_ in CASES} == set(table.ACTORS)
    assert {cell for *_, cell in CASES} == set("Y-nxg")


@pytest.mark.parametrize(("role", "patient", "action", "cell"), CASES)
def test_a_command_does_what_the_table_says(role: str, patient: str, action: str, cell: str, seats: Seats) -> None:
    done = seats.of(role).run(*seats.words(patient, action), "--json")
    if action == "patient.find" and cell in "Ynxg":
        assert done.code == 0, done
        assert (f"MRN:{NUMBER[patient]}" in done.out) is (cell in "Yg")
    elif cell in "Yg":
        assert done.code == 0, done
    else:
        assert done.code == 1, done
        assert SAID[cell] in done.err
        assert re.search(r"\((roles|restrictions|on_call|break_glass)[.a-z0-9_]* of the roles\)", done.err), done.err
        assert "ROE" not in done.out + done.err


# --- over HTTP -------------------------------------------------------------------------------------------------------

OVER_HTTP: Final = frozenset({"patient.read", "patient.find", "worklist.read", "task.act"})


class Served:
    """The consoles of the sites, in a loop of their own."""

    def __init__(self, seats: Seats) -> None:
        self._seats = seats
        self._loop = asyncio.new_event_loop()
        self._open: dict[str, tuple[TestClient[Any, Any], ConsoleSite, str]] = {}

    def ask(self, role: str, method: str, path: str, body: Any = None) -> tuple[int, str]:
        return self._loop.run_until_complete(self._ask(role, method, path, body))

    async def _ask(self, role: str, method: str, path: str, body: Any) -> tuple[int, str]:
        if role not in self._open:
            of = ConsoleSite(load(Snapshot.read(self._seats.of(role).config)), _NoDaemon())
            now = datetime.now(UTC)
            token = Accounts(of.store, ME, now).make_token(ME, ("all",), now + timedelta(days=1))[0]
            client = TestClient(TestServer(create_console(of, "127.0.0.1")))
            await client.start_server()
            self._open[role] = client, of, token
        client, _, token = self._open[role]
        headers = {"Authorization": f"Bearer {token}"}
        more = {} if body is None else {"json": body}
        answer = await client.request(method, path, headers=headers, **more)
        return answer.status, await answer.text()

    def close(self) -> None:
        for client, of, _ in self._open.values():
            self._loop.run_until_complete(client.close())
            of.close()
        self._loop.close()


@pytest.fixture(scope="module")
def served(seats: Seats) -> Iterator[Served]:
    made = Served(seats)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.runtime.limits.Buckets.wait", lambda *_: 0.0)


@pytest.mark.parametrize(
    ("role", "patient", "action", "cell"),
    # An act that is allowed needs a daemon: those are in the console's own tests.
    [case for case in CASES if case[2] in OVER_HTTP and (case[2], case[3]) != ("task.act", "Y")],
)
def test_over_http_the_table_says_the_same(
    role: str, patient: str, action: str, cell: str, seats: Seats, served: Served
) -> None:
    key, chart = f"MRN:{NUMBER[patient]}", seats.charts[patient]
    if action == "patient.find":
        status, said = served.ask(role, "POST", "/api/v1/patients/search", {"key": key})
        assert status == (200 if cell in "Yg" else 403), said
        assert (chart in said) is (cell in "Yg"), said
        return
    status, said = {
        "patient.read": lambda: served.ask(role, "GET", f"/api/v1/patients/{chart}"),
        "worklist.read": lambda: served.ask(role, "GET", f"/api/v1/tasks?chart={chart}"),
        "task.act": lambda: served.ask(
            role, "POST", f"/api/v1/tasks/{seats.tasks[patient]}/attempt", {"how": "phone", "result": "no_answer"}
        ),
    }[action]()
    if action == "worklist.read" and cell in "nx":
        assert status in {200, 403}, said
        assert seats.tasks.get(patient, "no task") not in said
    else:
        assert status == (200 if cell in "Yg" else 403), said
    assert "ROE" not in said


# --- fields, lists, leaving ------------------------------------------------------------------------------------------


def test_billing_gets_nothing_clinical_and_ops_nothing_of_a_patient(seats: Seats) -> None:
    shown = seats.of("billing").json(
        "patients", "show", f"MRN:{NUMBER['theirs, with tasks']}", "--reveal", "--reason", "bill"
    )
    assert {"clinical", "plan", "stay"} <= set(shown["not_shown"])
    assert not any(shown[part] for part in ("scores", "tasks", "appointments"))
    assert all(one["disposition"] is None and not one["diagnoses"] for one in shown["encounters"])
    listed = seats.of("ops").run("messages", "list", "--json")
    assert listed.code == 0
    assert not any(f"MRN:{number}" in listed.out for number in NUMBER.values())


def test_a_coordinators_worklist_is_of_their_patients_alone(seats: Seats, tmp_path: Path) -> None:
    everybody = {one["id"] for one in seats.of("admin").json("tasks", "list")}
    of_unit = {one["id"] for one in seats.of("nurse").json("tasks", "list")}
    assert {one["id"] for one in seats.of("coordinator").json("tasks", "list")} == everybody  # all are of their team
    assert seats.tasks["theirs, with tasks"] in of_unit
    assert seats.tasks["stranger, with tasks"] in everybody - of_unit
    # Given to somebody else, the tasks of a patient are the coordinators' no more, nor is the patient.
    site = Site(Path(shutil.copytree(seats.of("coordinator").folder, tmp_path / "worklist")))
    key = f"MRN:{NUMBER['stranger, with tasks']}"
    assert site.run("users", "change", ME, "--role", "admin").code == 0
    given = [one["id"] for one in site.json("tasks", "list", "--patient", key)]
    assert all(site.run("tasks", "assign", one, "dana").code == 0 for one in given)
    assert site.run("users", "change", ME, "--role", "care_coordinator").code == 0
    left = {one["id"] for one in site.json("tasks", "list")}
    assert left == everybody - set(given)
    assert site.run("patients", "show", key).code == 1


def test_a_leaver_is_out_everywhere_at_once(seats: Seats, tmp_path: Path) -> None:
    site = Site(Path(shutil.copytree(seats.of("nurse").folder, tmp_path / "left")))
    of = ConsoleSite(load(Snapshot.read(site.config)), _NoDaemon())
    now = datetime.now(UTC)
    accounts = Accounts(of.store, "boss", now)
    token = accounts.make_token(ME, ("all",), now + timedelta(days=1))[0]
    session = accounts.let_in(ME, "oidc").secret
    key = f"MRN:{NUMBER['theirs']}"
    assert site.run("patients", "show", key).code == 0
    assert accounts.enter(token).name == accounts.enter(session).name == ME

    async def asked() -> tuple[int, int]:
        client = TestClient(TestServer(create_console(of, "127.0.0.1")))
        await client.start_server()
        try:
            sent = {"Authorization": f"Bearer {token}"}
            before = (await client.get("/api/v1/session", headers=sent)).status
            accounts.disable(ME, "left")
            return before, (await client.get("/api/v1/session", headers=sent)).status
        finally:
            await client.close()

    before, after = asyncio.run(asked())
    assert (before, after) == (200, 401)
    done = site.run("patients", "show", key)
    assert done.code == 1
    assert "ROE" not in done.out + done.err
    for secret in (token, session):
        with pytest.raises(Exception, match=r"not allowed|ended|known|log in"):
            accounts.enter(secret)
    of.close()
