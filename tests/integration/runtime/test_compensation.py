"""What an event had caused is taken back at destinations of every type, whether it waits in the outbox or was sent.

One daemon with every type of destination, and two patients for each row: at high risk, just gone home, somebody is
called, visits are asked for. Then comes the row's event: of one when all has gone out, of the other while all
destinations pause.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import test_daemon
from peers import webhook_receiver
from peers.pagerduty import PagerDuty
from peers.salesforce_org import SalesforceOrg
from peers.scheduling_system import SchedulingSystem
from peers.webhook_receiver import WebhookReceiver
from sqlalchemy import text
from test_due_causes import DISCHARGED, NEW_YORK, Site, receive
from wire import eventually

from engine.domain.task import STANDING
from engine.store.keys import KeyRing

ROUTING_KEY, SECRET = "R0123456789ABCDEF0123456789ABCDE", "whsec_" + "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
NAMES = ("crm", "files", "hook", "duty", "sched")
ON_CALL = """
people:
  lee: {name: Lee, contacts: [{to: files, address: lee}]}
  kim: {name: Kim, contacts: [{to: hook, address: kim}]}
  max: {name: Max, contacts: [{to: duty}]}
ladders:
  on-call:
    text: Open the page.
    levels:
      - {notify: [{person: lee}, {person: kim}, {person: max}], minutes: 600}
    exhausted: {notify: [{person: lee}], assignee: house_supervisor, reason: Nobody has acknowledged, minutes: 15}
"""


def at(minutes: float) -> str:
    """Minutes after the discharge."""
    return f"{DISCHARGED.astimezone(NEW_YORK) + timedelta(minutes=minutes - 30):%Y%m%d%H%M%S}"


def adt(
    trigger: str, patient: str, minutes: float, pv1: dict[int, str] | None = None, *more: str, pid: str = ""
) -> bytes:
    """pv1: fields besides those of the discharge; none: no PV1. pid: what follows PID-8."""
    stay = {1: "1", 2: "I", 3: "3W^1^A", 4: "E", 18: "", 19: f"V{patient}^^^MRN", 44: "20260214080000"}
    said = None if pv1 is None else stay | pv1
    lines = [
        f"MSH|^~\\&|EPIC|MAIN|HANDOFF|H|{at(minutes)}||ADT^{trigger}|{trigger}{patient}{minutes}|P|2.5.1",
        f"EVN|{trigger}|{at(minutes)}",
        f"PID|1||{patient}^^^MRN^MR||Doe^Jane||19480312|F{pid}",
        *([] if said is None else ["|".join(["PV1", *(said.get(number, "") for number in range(1, 46))])]),
        *more,
    ]
    return "\r".join([*lines, ""]).encode()


def home(code: str = "01", **more: str) -> dict[int, str]:
    return {36: code, 45: at(0)} | {int(name[1:]): value for name, value in more.items()}


class Row(NamedTuple):
    event: Callable[[str], bytes]
    before: Callable[[str], bytes] | None = None
    """What has come before, of somebody else."""
    moves: bool = False
    """The plan is another patient's (`S...`) after it, and goes on."""
    leaves: frozenset[str] = frozenset()
    """Kinds of the tasks of the stay that stand after it; a plan that moves goes on whole."""
    scored: bool = True
    """The scores of the stay still stand."""
    calls_off_visits: bool = True
    """Visits that the scheduling system has booked: a plan that waits for the end of another stay keeps its own."""


TELLS = frozenset({"care_coordinator_alert"})
ROWS: dict[str, Row] = {
    "A11 cancels the admission": Row(lambda p: adt("A11", p, 10, {}), scored=False),
    "A13 cancels the discharge": Row(lambda p: adt("A13", p, 10, {})),
    "A23 deletes the stay": Row(lambda p: adt("A23", p, 10, {}), scored=False),
    "A03 again, to another hospital": Row(lambda p: adt("A03", p, 10, home("02"))),
    "A08 corrects the disposition": Row(lambda p: adt("A08", p, 10, home("02"))),
    "A08 corrects the disposition to hospice": Row(lambda p: adt("A08", p, 10, home("50")), leaves=TELLS),
    "A08 corrects the class": Row(lambda p: adt("A08", p, 10, home(_2="O")), scored=False),
    "A07 the inpatient was an outpatient": Row(lambda p: adt("A07", p, 10, home(_2="O")), scored=False),
    "A08 corrects the disposition to death": Row(lambda p: adt("A08", p, 10, home("20")), leaves=TELLS, scored=False),
    "A31 tells of a death": Row(lambda p: adt("A31", p, 10, None, pid="|" * 22 + "Y"), leaves=TELLS, scored=False),
    "A01 the patient is back": Row(
        lambda p: adt("A01", p, 10, {19: f"X{p}^^^MRN", 44: at(10)}), calls_off_visits=False
    ),
    "A40 merges into a patient who is in hospital": Row(
        lambda p: adt("A40", f"S{p}", 20, None, f"MRG|{p}^^^MRN^MR"), lambda p: adt("A01", f"S{p}", 5, {44: at(5)}),
        calls_off_visits=False,
    ),
    "A40 merges into a patient": Row(
        lambda p: adt("A40", f"S{p}", 20, None, f"MRG|{p}^^^MRN^MR"), lambda p: adt("A28", f"S{p}", 5), moves=True,
        calls_off_visits=False,
    ),
    "A45 moves the stay to another patient": Row(
        lambda p: adt("A45", f"S{p}", 20, {19: f"V{p}^^^MRN"}, f"MRG|{p}^^^MRN^MR||||V{p}^^^MRN"),
        lambda p: adt("A28", f"S{p}", 5), moves=True, calls_off_visits=False,
    ),
}  # fmt: skip
PATIENTS = {
    (row, waited): f"{'W' if waited else 'P'}{number}" for number, row in enumerate(ROWS) for waited in (False, True)
}
"""By row, and whether deliveries have waited all the time."""


class Seen(NamedTuple):
    """What destinations have been told at the end, by the patient who went home."""

    tasks: dict[str, dict[str, dict[str, Any]]]
    """By destination: the tasks of the stay, as they were told last."""
    scores: dict[str, dict[str, bool]]
    """By destination: whether scores of the stay still stand."""
    flags: dict[str, bool]
    """Who has the flag of a high risk in Salesforce."""
    called: dict[str, dict[str, int]]
    """By destination: how often somebody was called."""
    incidents: dict[str, list[str]]
    visits: dict[str, list[str]]
    """The status of each visit that was asked for."""
    failed: list[Any]
    """Deliveries that are dead or held."""


class Everywhere(Site):
    """The site of `test_due_causes` with a destination of each type."""

    def __init__(self, folder: test_daemon.Folder, destinations: dict[str, Any]) -> None:
        site, channel = folder.site, folder.channel
        deliver = [
            {"to": "crm", "what": ["patient", "encounter", "score", "task"]},
            {"to": "files", "what": ["patient", "encounter", "score", "task"]},
            {"to": "hook", "what": ["patient", "encounter", "score", "task"]},
            {"to": "sched", "what": ["request"]},
        ]

        def with_all(**more: str) -> None:
            site(destinations=json.dumps(destinations), **more)

        def that_tells(name: str, port: int = 0, *more: str, **listen: object) -> None:
            channel(name, port, *more, f"deliver: {json.dumps(deliver)}", **listen)

        folder.site, folder.channel = with_all, that_tells  # type: ignore[method-assign]
        (folder.path / "mappings/oncall/on-call.test.yaml").unlink()
        (folder.path / "mappings/oncall/on-call.yaml").write_text(ON_CALL)
        super().__init__(folder)
        self.out = folder.path / "var/out"

    def paused(self, paused: bool) -> None:
        def write(conn: Any) -> None:
            for name in NAMES:
                if paused:
                    self.store.destinations.pause(conn, name, self.clock.now(), until=None, by="test")
                else:
                    self.store.destinations.resume(conn, name)

        self.store.charts_ledger.write_now(write)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.store.read_now(lambda conn: conn.execute(text(sql)).all())]

    def at_rest(self, *, waiting: bool) -> bool:
        """All is processed, has rung, and has gone out (waiting: but that)."""
        [(entries,)] = self.rows("select count(*) from entry")
        [(outcomes,)] = self.rows("select count(*) from outcome")
        [(pending,)] = self.rows("select count(*) from delivery where state = 'pending'")
        return entries == outcomes > 0 and self.due() == 0 and (waiting or pending == 0)

    async def rest(self, *, waiting: bool) -> None:
        for _ in range(3):  # what has just gone out may come back as an entry
            await eventually(lambda: self.at_rest(waiting=waiting), 60)
            await asyncio.sleep(0.3)


async def play(folder: test_daemon.Folder) -> Seen:
    org = SalesforceOrg().start()
    secret = SECRET.removeprefix("whsec_")
    async with SchedulingSystem() as system, PagerDuty(ROUTING_KEY) as duty, _hook(secret) as hook:
        destinations = {
            "crm": {"type": "salesforce", "login_url": org.url, "client_id": org.client_id,
                    "client_secret": org.client_secret},
            "files": {"type": "file", "path": "var/out"},
            "hook": {"type": "webhook", "url": hook.url, "secret": SECRET},
            "duty": {"type": "pagerduty", "url": duty.url, "routing_key": ROUTING_KEY},
            "sched": {"type": "mllp", "host": "127.0.0.1", "port": system.port, "deduplicates": True},
        }  # fmt: skip
        with contextlib.closing(Everywhere(folder, destinations)) as site:
            site.start()
            for waited in (False, True):
                site.paused(waited)
                plays = [(rule, PATIENTS[row, waited]) for row, rule in ROWS.items()]
                before = [rule.before(patient) for rule, patient in plays if rule.before is not None]
                discharges = [adt("A03", one, 0, home(), "DG1|1||I50.9^HF^I10|||F") for _, one in plays]
                receive(site.store, site.clock.now(), *before, *discharges)
                await site.rest(waiting=waited)
                receive(site.store, site.clock.now(), *(rule.event(patient) for rule, patient in plays))
                await site.rest(waiting=waited)
            site.paused(False)
            await site.rest(waiting=False)
            return look(site, org, hook, duty, system)


def _hook(secret: str) -> WebhookReceiver:
    return WebhookReceiver(base64.b64decode(secret))


def look(
    site: Everywhere, org: SalesforceOrg, hook: WebhookReceiver, duty: PagerDuty, system: SchedulingSystem
) -> Seen:
    def patient(stay: str | None) -> str:
        return (stay or "").removeprefix("MRN:V")

    seen = Seen(
        {name: {one: {} for one in PATIENTS.values()} for name in ("crm", "files", "hook")},
        {name: {} for name in ("files", "hook")},
        {
            row["ExternalId__c"].removeprefix("MRN:"): row["HighRiskFlag__c"]
            for row in org.records["Account"]
            if "HighRiskFlag__c" in row
        },
        {name: dict.fromkeys(PATIENTS.values(), 0) for name in ("files", "hook")},
        {one: [] for one in PATIENTS.values()},
        {one: [] for one in PATIENTS.values()},
        site.rows("select destination, operation, state, error from delivery where state in ('dead', 'held')"),
    )
    found = site.store.read_now(lambda conn: site.store.pages.find(conn, limit=None))
    of_page = {one.page.id: patient(one.page.encounter) for one in found}
    lines = [line for file in sorted(site.out.glob("*.ndjson")) for line in file.read_text().splitlines()]
    told = {
        "files": [json.loads(line) for line in lines],
        "hook": [hook.taken[one]["data"] for one in dict.fromkeys(hook.calls)],
    }
    for name, bodies in told.items():
        for body in bodies:
            if (task := body.get("task")) and patient(task["encounter"]) in PATIENTS.values():
                said = (task["kind"], task["state"], task["patient_key"])
                seen.tasks[name][patient(task["encounter"])][task["id"]] = said
            elif (score := body.get("score")) is not None:
                seen.scores[name][patient(score["encounter"])] = not body["withdrawn"]
            elif "person" in body:
                seen.called[name][of_page[body["page_id"]]] += 1
    keys = {row["Id"]: row["ExternalId__c"] for row in org.records["Account"]}
    for row in org.records["Task"]:
        if (one := patient(row["EncounterKey__c"])) in PATIENTS.values():
            said = (row["HandoffKind__c"], row["HandoffState__c"], keys[row["WhatId"]])
            seen.tasks["crm"][one][row["ExternalId__c"]] = said
    for page, incidents in duty.incidents.items():
        seen.incidents[of_page[page]] += [one.status for one in incidents]
    for booked in system.booked.values():
        seen.visits[booked.patient.removeprefix("S")].append(booked.status)
    return seen


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Seen:
    folder = test_daemon.Folder(tmp_path_factory.mktemp("compensation") / "site")
    KeyRing.create(folder.path / "var" / "keys.json")
    for file in sqlite_template.iterdir():
        shutil.copy(file, folder.path / "var" / file.name)
    with mock.patch.object(webhook_receiver, "TOLERANCE_SECONDS", float("inf")):  # the site has a clock of its own
        return asyncio.run(play(folder))


@pytest.mark.parametrize("waited", [True, False], ids=["it still waits", "it was sent"])
@pytest.mark.parametrize("row", ROWS)
def test_what_had_been_caused_is_taken_back(told: Seen, row: str, waited: bool) -> None:
    patient, rule = PATIENTS[row, waited], ROWS[row]
    owner = f"MRN:S{patient}" if rule.moves or "merges" in row else f"MRN:{patient}"
    for name, tasks in told.tasks.items():
        of_stay = tasks[patient].values()
        assert len(of_stay) >= 6, name
        assert {of for _, _, of in of_stay} == {owner}, name
        standing = {kind for kind, state, _ in of_stay if state in STANDING}
        assert standing == ({kind for kind, _, _ in of_stay} if rule.moves else rule.leaves), name
    for name in ("files", "hook"):
        assert told.scores[name][patient] is rule.scored, name
    if not rule.scored:
        assert told.flags[patient] is False
    elif rule.moves or rule.calls_off_visits:  # else another stay decides
        assert told.flags[owner.removeprefix("MRN:")] is True
    called = [told.called["files"][patient], told.called["hook"][patient], len(told.incidents[patient])]
    if rule.moves:
        assert sum(called) > 0
        assert set(told.incidents[patient]) <= {"triggered"}
    else:
        assert called == ([0, 0, 0] if waited else [1, 1, 1])
        assert set(told.incidents[patient]) <= {"resolved"}
    assert told.visits[patient] == ([] if waited else ["Cancelled" if rule.calls_off_visits else "Booked"] * 2)
    assert told.failed == []
