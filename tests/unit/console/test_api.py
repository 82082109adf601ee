"""The API: who gets in, what they see, what they do, and that nothing of a patient stands where it should not."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import structs
from opened_console import PASSWORD, ROLES, Console
from site_with_store import Site, seen

from engine import logs
from engine.access.actions import CATALOGUE, Action
from engine.connectors.registry import load
from engine.console.app import create_console
from engine.console.door import CSRF
from engine.console.openapi import document
from engine.console.routes import ROUTES, Route
from engine.errors import HandoffError
from engine.runtime.health import ConsoleServer
from engine.snapshot import Snapshot
from engine.store.users import hash_of

BEHIND = [route for route in ROUTES if route.door != "log-in"]
GUARDED = [route for route in BEHIND if route.daemon is None]
BODIES: dict[str, Any] = {
    "Attempt": {"how": "phone", "result": "no_answer"},
    "Assign": {"assignee": "lee"},
    "Snooze": {"until": "2030-01-01T00:00:00Z", "reason": "away"},
    "Because": {"reason": "so"},
    "Replay": {"ids": [1]},
    "Discard": {"ids": [1], "reason": "so"},
    "BreakGlass": {"patient": "MRN:000", "reason": "emergency", "because": "so it has to be", "password": "x"},
    "LogIn": {"name": "x", "password": "y", "code": "000000"},
}


def names(routes: list[Route]) -> list[str]:
    return [route.name for route in routes]


def path_of(route: Route, id_: str = "1") -> str:
    return route.path.replace("{id}", id_).replace("{destination}", "none")


def body_of(route: Route) -> Any:
    return None if route.body is None else BODIES.get(route.body.__name__, {})


def trail(console: Console, **conditions: Any) -> list[Any]:
    return console.of.store.read_now(lambda conn: console.of.store.audit.find(conn, limit=None, **conditions))


async def first_chart(console: Console, token: str) -> str:
    _, found, _ = await console.ask("POST", "/api/v1/patients/search", token, body={})
    return str(found["items"][0]["chart"])


# --- nobody gets in by anything but a log-in that stands -------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer hft_wrong"}, {"Authorization": "Basic eDp5"},
                                     {"Cookie": "handoff-loopback=hfs_wrong; __Host-handoff=hfs_wrong"},
                                     {"Authorization": "Bearer hfs_session-as-token"}], ids=str)  # fmt: skip
async def test_without_a_log_in_no_route_answers(
    open_console: Callable[..., Any], headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.runtime.limits.Buckets.take", lambda *_: 0.0)
    console: Console = await open_console(bound="0.0.0.0")
    for route in BEHIND:
        status, said, _ = await console.ask(route.method, path_of(route), body=body_of(route), **headers)
        assert (status, said["status"]) == (401, 401), route.name
    assert console.line.asked == []
    for path in ("/healthz", "/readyz"):
        assert (await console.ask("GET", path))[0] == 200


ENDED: dict[str, Callable[[Console, str], Any]] = {
    "revoked token": lambda console, _: console.accounts.revoke(
        console.of.store.read_now(lambda conn: console.of.store.users.tickets(conn, "dana"))[0].id
    ),
    "disabled account": lambda console, _: console.accounts.disable("dana"),
    "ended token": lambda console, token: change(console, token, ends=datetime.now(UTC) - timedelta(seconds=1)),
}


def change(console: Console, secret: str, **fields: Any) -> None:
    users = console.of.store.users

    def work(conn: Any) -> None:
        ticket = users.ticket(conn, secret)
        assert ticket is not None
        if "ends" in fields:  # bound to its row
            conn.exec_driver_sql("DELETE FROM ticket WHERE id = ?", (ticket.id,))
            users.put_ticket(conn, secret, structs.replace(ticket, **fields))
        else:
            users.change_ticket(conn, structs.replace(ticket, **fields))

    console.of.store.charts_ledger.write_now(work)


@pytest.mark.parametrize("how", ENDED)
async def test_who_is_out_is_out_with_the_next_request(
    console: Console, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.runtime.limits.Buckets.take", lambda *_: 0.0)
    token = console.account("dana", "admin")
    assert (await console.ask("GET", "/api/v1/tasks", token))[0] == 200
    ENDED[how](console, token)
    for route in GUARDED:
        assert (await console.ask(route.method, path_of(route), token, body=body_of(route)))[0] == 401, route.name


SESSION_ENDS: dict[str, Callable[[Console, str], Any]] = {
    "idle": lambda console, secret: change(console, secret, seen=datetime.now(UTC) - timedelta(minutes=16)),
    "absolute": lambda console, secret: change(console, secret, ends=datetime.now(UTC) - timedelta(seconds=1)),
    "disabled": lambda console, _: console.accounts.disable("dana"),
    "new password": lambda console, _: console.accounts.set_password("dana", PASSWORD[::-1]),
}


async def log_in(console: Console, name: str, **more: Any) -> tuple[int, Any, Any]:
    return await console.ask("POST", "/api/v1/session", body={"name": name, "password": PASSWORD, **more})


async def session(console: Console) -> tuple[str, str]:
    """Secret and CSRF token of a person who has just logged in; the client keeps the cookie."""
    codes = console.person("dana", "admin")
    status, said, headers = await log_in(console, "dana", code=codes.now())
    assert status == 200, said
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie
    return cookie.partition("=")[2].partition(";")[0], said["csrf"]


@pytest.mark.parametrize("how", SESSION_ENDS)
async def test_a_session_ends(console: Console, how: str) -> None:
    secret, _ = await session(console)
    assert (await console.ask("GET", "/api/v1/tasks"))[0] == 200
    SESSION_ENDS[how](console, secret)
    assert (await console.ask("GET", "/api/v1/tasks"))[0] == 401


async def test_who_logs_out_is_out_and_the_secret_counts_no_more(console: Console) -> None:
    secret, csrf = await session(console)
    assert (await console.ask("DELETE", "/api/v1/session"))[0] == 403  # a page of another site could send that
    status, _, headers = await console.ask("DELETE", "/api/v1/session", **{CSRF: csrf})
    assert (status, "handoff-loopback=" in headers["Set-Cookie"]) == (204, True)
    assert (await console.ask("GET", "/api/v1/session", Cookie=f"handoff-loopback={secret}"))[0] == 401


async def test_behind_tls_the_cookie_is_bound_to_the_host(open_console: Callable[..., Any]) -> None:
    console: Console = await open_console(bound="0.0.0.0")
    codes = console.person("dana", "admin")
    said = {"name": "dana", "password": PASSWORD, "code": codes.now()}
    _, _, headers = await console.ask("POST", "/api/v1/session", body=said, Host="handoff.example")
    assert headers["Set-Cookie"].startswith("__Host-handoff=hfs_")
    assert "Secure" in headers["Set-Cookie"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({CSRF: "wrong"}, 403),
        ({CSRF: "{csrf}", "Origin": "https://evil.example"}, 403),
        ({CSRF: "{csrf}", "Sec-Fetch-Site": "cross-site"}, 403),
        ({CSRF: "{csrf}", "Sec-Fetch-Site": "same-site"}, 403),
        ({CSRF: "{csrf}"}, 404),
        ({CSRF: "{csrf}", "Sec-Fetch-Site": "same-origin"}, 404),
    ],
)
async def test_an_act_by_cookie_needs_what_only_a_page_of_ours_knows(
    console: Console, headers: dict[str, str], status: int
) -> None:
    _, csrf = await session(console)
    sent = {name: value.format(csrf=csrf) for name, value in headers.items()}
    assert (await console.ask("POST", "/api/v1/tasks/none/done", body={}, **sent))[0] == status


async def test_a_form_of_another_site_is_not_read(console: Console) -> None:
    token = console.account("svc", "admin", kind="service")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "text/plain"}
    answer = await console.client.post("/api/v1/patients/search", data=b"{}", headers=headers)
    assert answer.status == 415


@pytest.mark.parametrize("host", ["evil.example", "handoff.example:8080", "127.0.0.1.evil.example", "", "a/b"])
async def test_a_name_that_is_not_ours_is_not_answered(console: Console, host: str) -> None:
    token = console.account("svc", "admin", kind="service")
    assert (await console.ask("GET", "/api/v1/tasks", token, Host=host))[0] in {400, 421}


async def test_a_wrong_log_in_says_the_same_whatever_is_wrong(console: Console) -> None:
    codes = console.person("dana", "nurse")
    wrong = [
        {"name": "dana", "password": PASSWORD, "code": "000000"},
        {"name": "dana", "password": "wrong but long enough", "code": codes.now()},
        {"name": "nobody", "password": PASSWORD, "code": codes.now()},
    ]
    said = [await console.ask("POST", "/api/v1/session", body=one) for one in wrong]
    assert {(status, answer["detail"]) for status, answer, _ in said} == {
        (401, "name, password or code is wrong, or there is no such account")
    }
    assert [one.subject for one in trail(console, action="login-failed")] == ["account:unknown", *["account:dana"] * 2]


async def test_guesses_from_one_address_are_slowed_and_who_is_in_goes_on(
    open_console: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.console.door.GUESSES_AT_ONCE", 2.0)
    console: Console = await open_console()
    codes = console.person("dana", "nurse")
    assert (await log_in(console, "dana", code=codes.now()))[0] == 200
    said = [await log_in(console, "nobody", code="000000") for _ in range(3)]
    assert [status for status, _, _ in said] == [401, 401, 429]
    assert int(said[-1][2]["Retry-After"]) >= 1
    assert (await console.ask("GET", "/api/v1/session"))[0] == 200
    token = console.token("dana")
    for _ in range(25):
        status, _, _ = await console.ask("GET", "/api/v1/session", Authorization="Bearer hft_wrong")
    assert status == 429
    assert (await console.ask("GET", "/api/v1/session", token))[0] == 200


async def test_many_log_ins_at_once_do_not_take_all_memory(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.console.door.LOGGING_IN_MAX", 1)
    said = await asyncio.gather(*(log_in(console, "nobody", code="000000") for _ in range(4)))
    assert sorted({status for status, _, _ in said}) == [401, 429]


async def test_who_asks_too_often_waits(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    token = console.account("svc", "ops", kind="service")
    monkeypatch.setattr("engine.runtime.limits.Buckets._filled", lambda self, key, _: 0.0 if key == "svc" else 1.0)
    status, _, headers = await console.ask("GET", "/api/v1/dead", token)
    assert (status, int(headers["Retry-After"]) >= 1) == (429, True)


# --- each role, each route -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
async def test_each_route_does_for_a_role_what_the_roles_say(console: Console, role: str) -> None:
    """A role that lacks the action is refused, on record, before anything is looked up."""
    token = console.account("dana", role)
    may = console.of.policy.roles[role].may
    on_call = console.of.policy.on_call
    glass = console.of.policy.glass
    assert on_call is not None
    assert glass is not None
    for route in GUARDED:
        action = route.action
        status, said, _ = await console.ask(route.method, path_of(route, "77"), token, body=body_of(route))
        if action is Action.OPEN:
            assert status in {200, 400}, (route.name, said)
        elif action in may:
            assert status in {200, 403, 404, 409}, (route.name, said)
            assert status != 403 or "{id}" in route.path or CATALOGUE[action].patients, (route.name, said)
        elif action in on_call.may or (Action.GLASS_BREAK in may and action in glass.may):
            assert status in {403, 404}, (route.name, said)  # they may, for patients who are theirs by a page
        else:
            assert status == 403, (route.name, said)
            assert trail(console, action="denied")[0].actor == "dana"


async def test_a_token_does_no_more_than_its_scopes(console: Console) -> None:
    console.account("svc", "admin", kind="service")
    token = console.token("svc", "dead.read")
    for route in GUARDED:
        status, _, _ = await console.ask(route.method, path_of(route), token, body=body_of(route))
        assert (status == 403) == (route.action not in {Action.OPEN, Action.DEAD_READ}), route.name


async def test_a_patient_is_seen_by_whom_they_are_and_by_nobody_else(console: Console) -> None:
    admin = console.account("boss", "admin")
    chart = await first_chart(console, admin)
    theirs = console.account("dana", "doctor", provider="1982700001")
    other = console.account("eve", "doctor", provider="77")
    for path in (f"/api/v1/patients/{chart}",):
        assert (await console.ask("GET", path, theirs))[0] == 200
        assert (await console.ask("GET", path, other))[0] == 403
    mine = (await console.ask("GET", "/api/v1/tasks", theirs))[1]["items"]
    assert mine
    assert (await console.ask("GET", "/api/v1/tasks", other))[1] == {"items": [], "next": None}
    task = f"/api/v1/tasks/{mine[0]['id']}"
    assert (await console.ask("GET", task, other))[0] == 403
    assert (await console.ask("POST", f"{task}/done", other, body={}))[0] == 403


async def test_fields_that_a_role_does_not_see_are_not_in_the_answer(console: Console) -> None:
    chart = await first_chart(console, console.account("boss", "admin"))
    billing = console.account("bill", "billing")
    status, shape, _ = await console.ask("GET", f"/api/v1/patients/{chart}", billing, X_Reveal_Reason="bill")
    assert status == 200
    assert "clinical" in shape["not_shown"]
    assert shape["scores"] == []
    assert shape["tasks"] == []


async def test_nothing_of_a_patient_is_shown_unless_it_is_revealed_with_a_reason_on_record(console: Console) -> None:
    token = console.account("boss", "admin")
    chart = await first_chart(console, token)
    said = []
    for route in GUARDED:
        if route.method == "GET":
            id_ = chart if route.path.startswith("/api/v1/patients") else "1"
            said.append(json.dumps(await console.ask("GET", path_of(route, id_), token), default=str))
    assert seen("".join(said)) == []
    before = len(trail(console, action="reveal"))
    _, shape, _ = await console.ask("GET", f"/api/v1/patients/{chart}", token, X_Reveal_Reason="asked%20by%20Zo%C3%AB")
    assert shape["key"] == "MRN:558181838"
    revealed = trail(console, action="reveal")
    assert len(revealed) == before + 1
    assert (revealed[0].reason, revealed[0].actor) == ("asked by Zoë", "boss")
    assert revealed[0].whence.command == "GET /api/v1/patients/{id}"
    assert revealed[0].whence.address == "127.0.0.1"


async def test_every_look_is_on_record_with_who_appeared(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.runtime.limits.Buckets.take", lambda *_: 0.0)
    token = console.account("dana", "admin")
    chart, task = await first_chart(console, token), (await a_task(console, token))["id"]
    _, listed, _ = await console.ask("GET", "/api/v1/pages?state=exhausted&state=resolved&state=queued", token)
    ids = {"tasks": task, "patients": chart, "pages": listed["items"][0]["id"] if listed["items"] else "0"}
    looked = 0
    for route in GUARDED:
        look = CATALOGUE[route.action].look
        if route.method != "GET" and not route.path.endswith("/search"):
            continue
        before = trail(console)
        path = path_of(route, str(ids.get(route.path.split("/")[3], 1)))
        status, said, _ = await console.ask(route.method, path, token, body=body_of(route))
        new = trail(console)[: -len(before) or None]
        if status != 200 or look is None:
            assert route.door == "openapi" or "~" not in json.dumps(said), route.name
            continue
        looked += 1
        assert new, f"{route.name} left no record"
        assert all(one.whence is not None and one.whence.command for one in new)
        if ":~" in json.dumps(said):
            assert any(chart in (*one.patients, one.subject.removeprefix("chart:")) or one.others for one in new), route
    assert looked >= 10


async def test_a_patient_asked_for_by_name_is_a_search_with_its_terms(console: Console) -> None:
    token = console.account("dana", "admin")
    await console.ask("POST", "/api/v1/patients/search", token, body={"name": "ZQX"})
    (record,) = trail(console, action="searched")
    assert (record.actor, record.terms, record.count, record.patients) == ("dana", "name ZQX", 0, ())
    assert record.purpose is not None


async def test_a_patient_is_found_by_a_body_and_never_by_an_address(console: Console) -> None:
    token = console.account("boss", "admin")
    for body in ({"key": "MRN:558181838"}, {"name": "do"}, {"birth_date": "1947"}, {"visit": "V90001"}):
        status, found, _ = await console.ask("POST", "/api/v1/patients/search", token, body=body)
        assert (status, len(found["items"])) == (200, 1), body
    assert (await console.ask("POST", "/api/v1/patients/search", token, body={"key": "MRN:000"}))[0] == 404
    for query in ("key=MRN:558181838", "name=DOE", "q=DOE"):
        status, said, _ = await console.ask("POST", f"/api/v1/patients/search?{query}", token, body={})
        assert status == 400
        assert seen(said["detail"]) == []


# --- acts ------------------------------------------------------------------------------------------------------------


async def a_task(console: Console, token: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = (await console.ask("GET", "/api/v1/tasks", token))[1]["items"]
    return found[0]


async def test_a_task_is_worked_on_and_who_did_it_is_on_record(console: Console) -> None:
    token = console.account("boss", "admin")
    path = f"/api/v1/tasks/{(await a_task(console, token))['id']}"
    acts = (
        ("attempt", {"how": "phone", "result": "no_answer", "note": "rang twice"}, "in_progress"),
        ("assign", {"assignee": "lee"}, "in_progress"),
        ("snooze", {"until": (datetime.now(UTC) + timedelta(hours=1)).isoformat(), "reason": "asleep"}, "in_progress"),
        ("done", {"evidence": "spoke with her"}, "done"),
        ("undo", {}, "in_progress"),
        ("cancel", {"reason": "moved away"}, "cancelled"),
    )
    with console.worker():
        for verb, body, state in acts:
            status, shape, headers = await console.ask("POST", f"{path}/{verb}", token, body=body)
            assert (status, shape.get("state")) == (200, state), (verb, shape)
            assert headers["ETag"]
    verbs = {one.action for one in trail(console)}
    assert verbs >= {"task-attempted", "task-assigned", "task-snoozed", "task-done", "task-undone", "task-cancelled"}
    done = trail(console, action="task-done")[0]
    assert (done.actor, done.whence.command) == ("boss", "POST /api/v1/tasks/{id}/done")


async def test_two_people_act_on_one_task_and_the_second_is_told_that_it_has_changed(console: Console) -> None:
    token = console.account("boss", "admin")
    path = f"/api/v1/tasks/{(await a_task(console, token))['id']}"
    tag = (await console.ask("GET", path, token))[2]["ETag"]
    assert tag == (await console.ask("GET", path, token))[2]["ETag"]
    with console.worker():
        first = await console.ask("POST", f"{path}/assign", token, body={"assignee": "lee"}, If_Match=tag)
        second = await console.ask("POST", f"{path}/assign", token, body={"assignee": "kim"}, If_Match=tag)
        third = await console.ask(
            "POST", f"{path}/assign", token, body={"assignee": "kim"}, If_Match=f'"x", {first[2]["ETag"]}'
        )
    assert [first[0], second[0], third[0]] == [200, 412, 200]
    assert third[1]["assignee"] == "kim"


async def test_an_act_that_can_not_be_done_is_a_conflict(console: Console) -> None:
    token = console.account("boss", "admin")
    path = f"/api/v1/tasks/{(await a_task(console, token))['id']}"
    with console.worker():
        assert (await console.ask("POST", f"{path}/cancel", token, body={"reason": "x"}))[0] == 200
        status, said, _ = await console.ask("POST", f"{path}/done", token, body={})
    assert (status, said["title"]) == (409, "Conflict")


async def test_dead_letters_are_listed_shown_discarded_and_replayed(console: Console) -> None:
    token = console.account("boss", "admin")
    letters = (await console.ask("GET", "/api/v1/dead", token))[1]["items"]
    assert len(letters) == 2
    first, second = (one["id"] for one in letters)
    assert (await console.ask("GET", f"/api/v1/dead/{first}", token))[1]["message"]["payload"] == "***"
    assert {one["error"] for one in (await console.ask("GET", "/api/v1/dead/groups", token))[1]["items"]} == {
        one["error"] for one in letters
    }
    gone = await console.ask("POST", "/api/v1/dead/discard", token, body={"ids": [first], "reason": "a test"})
    assert gone[1]["items"][0]["resolved_by"] == "discarded"
    again = await console.ask("POST", "/api/v1/dead/replay", token, body={"ids": [second]})
    assert again[1]["items"][0]["entry"] is not None
    assert (await console.ask("GET", "/api/v1/dead", token))[1]["items"] == []
    assert len((await console.ask("GET", "/api/v1/dead?state=resolved", token))[1]["items"]) == 2


@pytest.mark.parametrize(("verb", "body"), [("confirm", {}), ("release", {}), ("bury", {"reason": "so"})])
async def test_a_held_delivery_is_decided(console: Console, verb: str, body: dict[str, str]) -> None:
    number = console.site.hold_first_delivery()
    token = console.account("boss", "admin")
    assert [one["id"] for one in (await console.ask("GET", "/api/v1/held", token))[1]["items"]] == [number]
    assert (await console.ask("GET", f"/api/v1/held/{number}", token))[0] == 200
    assert (await console.ask("POST", f"/api/v1/held/m{number}/{verb}", token, body=body))[0] in {400, 404, 409}
    status, shape, _ = await console.ask("POST", f"/api/v1/held/{number}/{verb}", token, body=body)
    assert (status, shape["id"]) == (200, number)
    assert (await console.ask("GET", "/api/v1/held", token))[1]["items"] == []
    assert trail(console, action=verb)[0].subject == f"delivery:{number}"


async def test_a_glass_is_broken_with_the_password_again_and_shows_one_patient(console: Console) -> None:
    chart = await first_chart(console, console.account("boss", "admin"))
    codes = console.person("eve", "doctor", provider="77")
    token, path = console.token("eve"), f"/api/v1/patients/{chart}"
    assert (await console.ask("GET", path, token))[0] == 403
    said = {"patient": "MRN:558181838", "reason": "covering", "because": "I round for her today", "password": PASSWORD}
    wrong = await console.ask("POST", "/api/v1/glasses", token, body=said | {"password": "x", "code": codes.now()})
    assert wrong[0] == 409
    status, made, _ = await console.ask("POST", "/api/v1/glasses", token, body=said | {"code": codes.now()})
    assert (status, made["chart"]) == (200, chart)
    assert (await console.ask("GET", path, token))[0] == 200
    assert trail(console, action="glass-broken")[0].actor == "eve"
    service = console.account("svc", "doctor", kind="service")
    assert (await console.ask("POST", "/api/v1/glasses", service, body=said))[0] == 409


async def test_a_destination_is_paused_resumed_and_tried_again(console: Console) -> None:
    token = console.account("oda", "ops")
    for verb, body, state in (("pause", {"seconds": 60}, "paused"), ("resume", {}, "up"), ("retry", {}, "up")):
        status, shape, _ = await console.ask("POST", f"/api/v1/destinations/files/{verb}", token, body=body)
        assert (status, shape["state"]) == (200, state), verb
    assert (await console.ask("POST", "/api/v1/destinations/none/pause", token))[0] == 404


async def test_messages_of_a_patient_are_asked_for_by_the_opaque_id(console: Console) -> None:
    token = console.account("boss", "admin")
    chart = await first_chart(console, token)
    assert len((await console.ask("GET", f"/api/v1/messages?chart={chart}", token))[1]["items"]) == 3
    assert (await console.ask("GET", "/api/v1/messages?chart=none", token))[0] == 404


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/v1/tasks?state=DOE", None),
        ("GET", "/api/v1/tasks?DOE=1", None),
        ("GET", "/api/v1/tasks?limit=0", None),
        ("GET", "/api/v1/tasks?limit=100000", None),
        ("GET", "/api/v1/tasks?limit=1&limit=2", None),
        ("GET", "/api/v1/tasks?cursor=DOE", None),
        ("GET", "/api/v1/tasks?cursor=WyJ0YXNrIiwxLDIsM10", None),
        ("GET", "/api/v1/tasks?due_before=DOE", None),
        ("GET", "/api/v1/tasks?due_before=2026-12-01", None),
        ("GET", "/api/v1/tasks?kind=a%00b", None),
        ("GET", "/api/v1/tasks/DOE%2FJANE", None),
        ("GET", "/api/v1/messages/99999999999999999999", None),
        ("GET", "/api/v1/messages/DOE", None),
        ("GET", "/api/v1/held/mDOE", None),
        ("POST", "/api/v1/tasks/x/attempt", {"how": "DOE", "result": "reached"}),
        ("POST", "/api/v1/tasks/x/attempt", {"how": "phone", "result": "reached", "DOE": 1}),
        ("POST", "/api/v1/tasks/x/done", {"evidence": "DOE\nJANE"}),
        ("POST", "/api/v1/tasks/x/done", {"evidence": "DOE" * 1000}),
        ("POST", "/api/v1/tasks/x/snooze", {"until": "2026-12-01T00:00:00", "reason": "no zone"}),
        ("POST", "/api/v1/tasks/x/cancel", {"reason": "   "}),
        ("POST", "/api/v1/dead/discard", {"ids": [], "reason": "DOE"}),
        ("POST", "/api/v1/dead/discard", {"ids": list(range(1, 1000)), "reason": "DOE"}),
        ("POST", "/api/v1/patients/search", ["DOE"]),
    ],
)  # fmt: skip
async def test_bad_input_is_told_without_its_value(console: Console, method: str, path: str, body: Any) -> None:
    status, said, headers = await console.ask(method, path, console.account("boss", "admin"), body=body)
    assert status in {400, 404}, said
    assert headers["Content-Type"] == "application/problem+json"
    assert "DOE" not in json.dumps(said)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"null", b"[" * 10_000, b'{"ids": [1e400], "reason": "x"}'])
async def test_a_body_that_is_no_json_is_refused(console: Console, raw: bytes) -> None:
    headers = {"Authorization": f"Bearer {console.account('boss', 'admin')}", "Content-Type": "application/json"}
    answer = await console.client.post("/api/v1/dead/discard", data=raw, headers=headers)
    assert answer.status == 400


async def test_a_body_that_is_too_large_is_refused(console: Console) -> None:
    headers = {"Authorization": f"Bearer {console.account('boss', 'admin')}", "Content-Type": "application/json"}
    answer = await console.client.post("/api/v1/dead/discard", data=b"x" * 100_000, headers=headers)
    assert (answer.status, answer.content_type) == (413, "application/problem+json")


async def test_a_fault_of_ours_is_told_without_what_it_was_about(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    logs.configure("debug", stream=stream)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("JANE DOE")

    monkeypatch.setattr(console.of.store.journal, "find", fail)
    status, said, _ = await console.ask("GET", "/api/v1/messages?channel=DOE", console.account("boss", "admin"))
    assert (status, "DOE" in json.dumps(said)) == (500, False)
    assert "request failed" in stream.getvalue()
    assert "DOE" not in stream.getvalue()


async def test_no_answer_is_kept_by_a_browser_or_proxy(console: Console) -> None:
    token = console.account("boss", "admin")
    for path in ("/api/v1/tasks", "/api/v1/tasks/none", "/api/v1/none", "/api/v1/session"):
        _, _, headers = await console.ask("GET", path, token)
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "Server" not in headers


async def test_an_old_connection_is_closed_behind_its_answer_and_not_within_it(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.runtime.health._SWEEP_SECONDS", 0.02)
    monkeypatch.setattr("engine.runtime.health._LIFE_SECONDS_MAX", 0.4)
    token = console.account("boss", "admin")
    look = console.of.store.tasks.find

    def slow(*given: Any, **more: Any) -> Any:
        time.sleep(0.3)
        return look(*given, **more)

    monkeypatch.setattr(console.of.store.tasks, "find", slow)
    sock = socket.create_server(("127.0.0.1", 0))
    server = ConsoleServer(create_console(console.of, "127.0.0.1"))
    await server.open(sock)
    try:
        reader, writer = await asyncio.open_connection(*sock.getsockname()[:2])
        asked = f"GET /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        writer.write(asked.encode())
        answer = await asyncio.wait_for(reader.read(), 10)  # to the end of the connection
        writer.close()
    finally:
        await server.close()
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"}")


async def test_a_path_that_there_is_not_and_a_method_that_it_has_not(console: Console) -> None:
    assert (await console.ask("GET", "/api/v1/none"))[0] == 404
    status, said, headers = await console.ask("DELETE", "/api/v1/tasks")
    assert (status, said["status"], "GET" in headers["Allow"]) == (405, 405, True)


# --- the daemon's own ------------------------------------------------------------------------------------------------


async def test_on_this_machine_the_daemon_answers_as_ever(console: Console) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/api/v1/status", "/api/v1/connections"):
        assert (await console.ask("GET", path))[0] == 200
    assert (await console.ask("POST", "/api/v1/look"))[0] == 200
    assert (await console.ask("POST", "/api/v1/reload", body={"allow_remove": True}))[0] == 200
    assert [one.what for one in console.line.asked][-2:] == ["look", "reload"]
    assert console.line.asked[-1].allow_remove


async def test_from_elsewhere_who_reloads_needs_the_action_and_is_named(open_console: Callable[..., Any]) -> None:
    console: Console = await open_console(bound="10.0.0.5")
    ops, nurse = console.account("oda", "ops"), console.account("nan", "nurse")
    for path in ("/metrics", "/api/v1/status", "/api/v1/connections"):
        assert (await console.ask("GET", path))[0] == 401
        assert (await console.ask("GET", path, nurse))[0] == 403
        assert (await console.ask("GET", path, ops))[0] == 200
    assert (await console.ask("POST", "/api/v1/reload", nurse))[0] == 403
    assert (await console.ask("POST", "/api/v1/reload", ops))[0] == 200
    assert console.line.asked[-1].who == "oda"


@pytest.fixture
def behind_a_proxy(site: Site) -> Site:
    text = site.config.read_text().replace("port: 8080}", "port: 8080, hosts: [handoff.example]}")
    site.config.write_text(text)
    return site


async def test_behind_a_proxy_its_name_is_ours_and_the_browser_is_on_record(
    behind_a_proxy: Site, open_console: Callable[..., Any]
) -> None:
    assert "hosts" in behind_a_proxy.config.read_text()
    console: Console = await open_console()
    token = console.account("boss", "admin")
    said = {"Host": "handoff.example", "X-Forwarded-For": "6.6.6.6, 203.0.113.9"}
    assert (await console.ask("GET", "/api/v1/tasks", token, **said))[0] == 200
    assert (await console.ask("GET", "/api/v1/tasks", token, Host="other.example"))[0] == 421
    assert (await console.ask("GET", "/api/v1/status", Host="handoff.example"))[0] == 401
    chart = await first_chart(console, token)
    await console.ask("GET", f"/api/v1/patients/{chart}", token, X_Reveal_Reason="x", **said)
    assert trail(console, action="reveal")[0].whence.address == "203.0.113.9"
    codes = console.person("dana", "nurse")
    body = {"name": "dana", "password": PASSWORD, "code": codes.now()}
    origin = {"Host": "handoff.example", "Origin": "https://handoff.example", "Sec-Fetch-Site": "same-origin"}
    status, _, headers = await console.ask("POST", "/api/v1/session", body=body, **origin)
    assert (status, headers["Set-Cookie"].startswith("__Host-handoff=")) == (200, True)


async def test_without_a_proxy_nobody_says_in_whose_name_they_ask(console: Console) -> None:
    token = console.account("boss", "admin")
    chart = await first_chart(console, token)
    await console.ask("GET", f"/api/v1/patients/{chart}", token, X_Reveal_Reason="x", X_Forwarded_For="203.0.113.9")
    assert trail(console, action="reveal")[0].whence.address == "127.0.0.1"


async def test_with_single_sign_on_alone_nobody_logs_in_with_a_password(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = console.person("dana", "nurse")
    monkeypatch.setattr(console.of, "by_password", False)
    assert (await log_in(console, "dana", code=codes.now()))[0] == 403


async def test_a_reload_takes_roles_at_once_and_one_that_is_wrong_changes_nothing(console: Console) -> None:
    token = console.account("oda", "ops")
    assert (await console.ask("GET", "/api/v1/dead", token))[0] == 200
    roles = console.site.folder / "mappings/access/roles.yaml"
    good = roles.read_text()
    roles.write_text("roles: [\n")
    with pytest.raises(HandoffError):
        console.of.take(load(Snapshot.read(console.site.config)))
    assert (await console.ask("GET", "/api/v1/dead", token))[0] == 200
    roles.write_text(good.replace("may: [entries.list, held.read, dead.read, dead.decide,", "may: [entries.list,"))
    console.of.take(load(Snapshot.read(console.site.config)))
    assert (await console.ask("GET", "/api/v1/dead", token))[0] == 403


# --- lists -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/api/v1/tasks?state=open&state=done", "/api/v1/messages?kind=all", "/api/v1/audit", "/api/v1/dead"]
)
async def test_a_list_read_page_by_page_is_the_list(console: Console, path: str) -> None:
    token = console.account("boss", "admin")
    if "tasks" in path:
        with console.worker():
            first = await a_task(console, token)
            await console.ask("POST", f"/api/v1/tasks/{first['id']}/done", token, body={})
    more = "&" if "?" in path else "?"
    key = "seq" if path.endswith("audit") else "id"
    whole = [one[key] for one in (await console.ask("GET", f"{path}{more}limit=200", token))[1]["items"]]
    found: list[Any] = []
    cursor = ""
    while True:
        _, said, _ = await console.ask("GET", f"{path}{more}limit=1{cursor}", token)
        found += [one[key] for one in said["items"]]
        if said["next"] is None:
            break
        assert seen(said["next"]) == []
        cursor = f"&cursor={said['next']}"
    if key == "seq":  # each look may add to the trail
        found = [one for one in found if one in whole]
        whole = [one for one in whole if one in found]
    assert found == whole
    assert len(whole) > 1


def test_openapi_names_every_route_with_its_action_and_no_other() -> None:
    said = document()
    assert said["openapi"].startswith("3.1")
    operations = {
        f"{method.upper()} {path}": one for path, methods in said["paths"].items() for method, one in methods.items()
    }
    assert sorted(operations) == sorted(names(list(ROUTES)))
    assert len({one["operationId"] for one in operations.values()}) == len(ROUTES)
    for route in ROUTES:
        assert f"`{route.action}`" in operations[route.name]["description"]
        assert {one["name"] for one in operations[route.name]["parameters"] if one["in"] == "path"} == {
            one.name for one in route.at
        }


async def test_openapi_is_told_to_whoever_has_logged_in(console: Console) -> None:
    status, said, _ = await console.ask("GET", "/api/v1/openapi.json", console.account("nan", "nurse"))
    assert (status, said["info"]["title"]) == (200, "Handoff")


def test_no_path_names_a_patient_by_anything_but_an_opaque_id() -> None:
    for route in ROUTES:
        told = {one.name for one in (*route.at, *route.query)}
        assert not told & {"patient", "key", "name", "mrn", "birth_date", "visit", "q", "reason", "note"}, route.name


async def test_many_requests_at_once_are_all_answered(console: Console) -> None:
    token = console.account("boss", "admin")
    found = await asyncio.gather(*(console.ask("GET", "/api/v1/tasks", token) for _ in range(40)))
    assert {status for status, _, _ in found} == {200}


def test_of_a_session_only_the_hash_is_kept() -> None:
    assert hash_of("hfs_x") != b"hfs_x"
