"""Pages for people: who sees which, that a form is an act, and that nothing of a patient stands where it should not."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import pytest
from opened_console import PASSWORD, ROLES, Console

from engine.access.actions import CATALOGUE
from engine.console.pages.app import LIVE
from engine.console.pages.rendering import statics
from engine.console.pages.table import PAGES, Page
from engine.console.routes import ROUTES
from engine.desk.gate import Gate

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
VOID = {"meta", "link", "input", "br", "hr", "img"}


class Document(HTMLParser):
    """What a page is made of, and whether each of its tags is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.nameless: list[dict[str, str]] = []
        """Fields that a screen reader can't name."""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append((tag, given))
        hidden = given.get("type") == "hidden" or "aria-label" in given
        if tag in {"input", "select", "textarea"} and not hidden and "label" not in self.open:
            self.nameless.append(given)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.open)

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


async def come_in(console: Console, name: str, *roles: str, **more: Any) -> None:
    codes = console.person(name, *roles, **more)
    said = {"name": name, "password": PASSWORD, "code": codes.now()}
    answer = await console.client.post("/login", data=said, allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, "/"), await answer.text()


async def get(console: Console, path: str, **headers: str) -> tuple[int, str, Any]:
    answer = await console.client.get(path, headers=headers, allow_redirects=False)
    return answer.status, await answer.text(), answer.headers


async def post(console: Console, path: str, said: dict[str, str], **headers: str) -> tuple[int, str, Any]:
    answer = await console.client.post(path, data=urlencode(said), headers=FORM | headers, allow_redirects=False)
    return answer.status, await answer.text(), answer.headers


def csrf_of(text: str) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', text)
    assert found is not None
    return found[1]


async def first_patient(console: Console) -> str:
    _, text, _ = await get(console, "/worklist")
    found = re.search(r'href="(/patients/[0-9a-f]+)"', text)
    assert found is not None, text
    return found[1]


def path_of(console: Console, page: Page) -> str:
    chart = console.of.store.read_now(lambda conn: console.of.store.charts.latest_ids(conn, 1)[0])
    return page.path.replace("{id}", chart if page.path.startswith("/patients") else "1")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
async def test_who_has_not_logged_in_is_led_to_the_door(console: Console, page: Page) -> None:
    path = path_of(console, page)
    status, text, headers = await get(console, path)
    assert (status, text) == (303, "")
    assert headers["Location"] == f"/login?{urlencode({'next': path})}"


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_sees_the_pages_that_its_actions_allow(console: Console, role: str) -> None:
    await come_in(console, f"a-{role}", role, units=("5W",), provider="1")
    policy = console.of.policy
    for page in PAGES:
        status, text, _ = await get(console, path_of(console, page))
        may = page.action in policy.roles[role].may
        # A patient or message that there is not is told to whoever might see one; a list of nobody's patients is none.
        assert status in ({200, 404, 403} if may else {403}), (page.path, status, text)
        nav = f'href="{page.path}"'
        assert (nav in (await get(console, "/login"))[1]) is False
        if page.nav and status == 200:
            assert (nav in text) is may


async def test_a_page_is_whole_says_nothing_of_a_patient_in_its_title_and_runs_nothing_inline(console: Console) -> None:
    await come_in(console, "ada", "admin")
    patient = await first_patient(console)
    paths = [patient, *(page.path for page in PAGES if not page.at), "/ops/messages/1", "/login", "/nowhere"]
    for path in paths:
        status, text, headers = await get(console, path)
        assert status == (404 if path == "/nowhere" else 200), (path, text)
        page = Document(text)
        assert page.open == [], path
        assert not any(name.startswith("on") or name == "style" for _, given in page.tags for name in given), path
        assert not page.of("style"), path
        assert all(given.get("src", "").startswith("/static/") for given in page.of("script")), path
        title = re.search(r"<title>(.*?)</title>", text)
        assert title is not None
        assert re.fullmatch(r"[A-Z][a-z ]+ – Handoff", title[1]), path
        assert page.nameless == [], path
        policy = headers["Content-Security-Policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["Cache-Control"] == "no-store"
        assert all(given["method"] in {"get", "post", "dialog"} for given in page.of("form"))


async def test_a_form_is_an_act_by_whoever_has_logged_in(console: Console) -> None:
    await come_in(console, "ada", "admin")
    patient = await first_patient(console)
    _, text, _ = await get(console, patient)
    task = re.search(r'action="/act/tasks/([0-9a-f]+)/attempt"', text)
    assert task is not None
    said = {"csrf": csrf_of(text), "back": patient, "how": "phone", "result": "no_answer", "note": "rang out"}
    with console.worker():
        status, text, headers = await post(console, f"/act/tasks/{task[1]}/attempt", said)
    assert (status, headers["Location"]) == (303, f"{patient}?said=done"), text
    _, text, _ = await get(console, headers["Location"])
    assert "Done." in text
    assert "phone: no_answer" in text


async def test_a_form_without_the_sessions_token_or_from_another_site_does_nothing(console: Console) -> None:
    await come_in(console, "ada", "admin")
    patient = await first_patient(console)
    _, text, _ = await get(console, patient)
    task = re.search(r'action="/act/tasks/([0-9a-f]+)/attempt"', text)
    assert task is not None
    path, csrf = f"/act/tasks/{task[1]}/attempt", csrf_of(text)
    said = {"how": "phone", "result": "no_answer"}
    assert (await post(console, path, said))[0] == 403
    assert (await post(console, path, said | {"csrf": "0" * 64}))[0] == 403
    assert (await post(console, path, said | {"csrf": csrf}, Origin="https://evil.example"))[0] == 403
    assert (await post(console, path, said | {"csrf": csrf}, Origin="null"))[0] == 403
    answer = await console.client.post(path, json=said | {"csrf": csrf}, allow_redirects=False)
    assert answer.status == 415
    status, text, _ = await post(console, path, {"csrf": csrf, "how": "phone"})
    assert status == 400
    assert "fill in result" in text


async def test_what_is_not_done_is_said_in_words_with_a_way_back(console: Console) -> None:
    await come_in(console, "ada", "admin")
    status, text, _ = await get(console, "/patients/none")
    assert status == 404
    assert 'class="button" href="/"' in text
    assert (await get(console, "/worklist?due=never"))[0] == 400
    assert (await get(console, "/worklist?cursor=x"))[0] == 400


@pytest.mark.parametrize(
    "there", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nb", "x" * 700]
)
async def test_nobody_is_led_to_another_site(console: Console, there: str) -> None:
    codes = console.person("ada", "admin")
    said = {"name": "ada", "password": PASSWORD, "code": codes.now(), "next": there}
    answer = await console.client.post("/login", data=said, allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, "/")


async def test_a_wrong_log_in_is_said_on_the_page_and_keeps_where_one_was_going(console: Console) -> None:
    console.person("ada", "admin")
    said = {"name": "ada", "password": "wrong", "code": "000000", "next": "/ops"}
    status, text, headers = await post(console, "/login", said)
    assert status == 401
    assert "name, password or code is wrong" in text
    assert 'value="/ops"' in text
    assert "Set-Cookie" not in headers


async def test_logging_out_ends_the_session(console: Console) -> None:
    await come_in(console, "ada", "admin")
    _, text, _ = await get(console, "/ops")
    assert (await post(console, "/logout", {}))[0] == 403
    status, _, headers = await post(console, "/logout", {"csrf": csrf_of(text)})
    assert (status, headers["Location"]) == (303, "/login?said=out")
    assert (await get(console, "/ops"))[0] == 303


async def test_a_page_that_is_open_is_on_record_again_only_when_something_is_new(console: Console) -> None:
    await come_in(console, "ada", "admin")
    _, text, _ = await get(console, "/worklist")
    live = re.search(r'data-live="([0-9a-f]+)"', text)
    assert live is not None

    def looks() -> int:
        return console.of.store.read_now(
            lambda conn: len(console.of.store.audit.find(conn, limit=None, action="looked"))
        )

    before = looks()
    assert before > 0
    status, text, _ = await get(console, "/worklist", **{LIVE: live[1]})
    assert (status, text, looks()) == (204, "", before)
    assert (await get(console, "/worklist", **{LIVE: "0" * 64}))[0] == 200
    assert looks() > before


async def test_who_treats_patients_sees_their_names_at_work_and_that_is_on_record(console: Console) -> None:
    await come_in(console, "carl", "care_coordinator")
    _, text, _ = await get(console, "/worklist")
    assert "***" not in text
    assert "Show unmasked" not in text
    found = console.of.store.read_now(lambda conn: console.of.store.audit.find(conn, limit=None, action="looked"))
    assert {one.reason for one in found if one.actor.endswith("carl")} == {"at work: worklist"}
    assert found[0].patients


async def test_who_keeps_the_site_sees_patients_masked_until_they_say_why(console: Console) -> None:
    await come_in(console, "ada", "admin")
    path = await first_patient(console)
    _, masked, _ = await get(console, path)
    assert "***" in masked
    status, shown, _ = await post(console, path, {"csrf": csrf_of(masked), "reason": "the ward has asked"})
    assert status == 200
    assert "Show unmasked" not in shown
    assert (await post(console, path, {"csrf": csrf_of(masked), "reason": " "}))[0] == 400
    found = console.of.store.read_now(lambda conn: console.of.store.audit.find(conn, limit=None, action="reveal"))
    assert [one.reason for one in found] == ["the ward has asked"]


async def test_statics_are_kept_by_their_content_and_hold_no_address_of_another_host(console: Console) -> None:
    for name, (content, media, digest) in statics().items():
        answer = await console.client.get(f"/static/{digest}/{name}")
        assert (answer.status, answer.content_type) == (200, media)
        assert "immutable" in answer.headers["Cache-Control"]
        assert b"//" not in content.replace(b"http://www.w3.org/2000/svg", b"") or name == "app.js"
        assert b"http" not in content.replace(b"http://www.w3.org/2000/svg", b"")
    assert (await console.client.get("/static/000000000000/app.js")).status == 404
    assert (await console.client.get("/static/000000000000/..%2fapp.py")).status == 404


AT_THE_DOOR = {
    ("GET", "/"): "leads on",
    ("GET", "/login"): "shows the door",
    ("POST", "/login"): "logged-in, login-failed",
    ("GET", "/login/provider"): "leads to the provider",
    ("GET", "/login/return"): "logged-in, login-failed",
    ("POST", "/logout"): "logged-out",
    ("GET", "/static/{digest}/{name}"): "files of ours",
    ("GET", "/healthz"): "says that it is alive",
    ("GET", "/readyz"): "says whether it is ready, by codes",
}
"""Routes at which nobody sits down at a desk: what they leave on the trail, or say."""


async def test_whatever_the_console_answers_sits_down_at_a_desk_with_an_action_or_is_named_here(
    console: Console,
) -> None:
    """`ConsoleSite.desk` is where a look, an act and a denial come on the trail; a way around it fails here."""
    declared = {(route.method, route.path) for route in ROUTES}
    declared |= {("GET", page.path) for page in PAGES} | {("POST", page.path) for page in PAGES if page.reveals}
    declared |= {
        ("POST", route.path.replace("/api/v1", "/act", 1))
        for route in ROUTES
        if route.method == "POST" and route.do is not None and route.lists is None
    }
    assert console.client.app is not None
    there = {
        (route.method, route.resource.canonical)
        for route in console.client.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert there - declared == AT_THE_DOOR.keys()
    assert declared - there == set()


@pytest.mark.parametrize("page", [page for page in PAGES if CATALOGUE[page.action].look], ids=lambda page: page.path)
async def test_each_page_leaves_its_record_with_who_appeared_on_it(console: Console, page: Page) -> None:
    await come_in(console, "ada", "admin")
    path = path_of(console, page)

    def records() -> list[Any]:
        return console.of.store.read_now(lambda conn: console.of.store.audit.find(conn, limit=None, action=None))

    before = len(records())
    status, text, _ = await get(console, path)
    assert status == 200, text
    new = records()[: len(records()) - before]
    assert CATALOGUE[page.action].look in {one.action for one in new}
    appeared = set(re.findall(r"/patients/([0-9a-f]{8,})", text))
    assert appeared <= {chart for one in new for chart in (*one.patients, one.subject.removeprefix("chart:"))}


def test_each_act_of_the_api_has_its_form_and_each_page_an_action() -> None:
    assert all(page.action in CATALOGUE for page in PAGES)
    assert Gate is not None
    assert {"/worklist", "/patients/{id}", "/pages", "/ops", "/ops/messages", "/ops/dead", "/audit"} <= {
        page.path for page in PAGES
    }
    assert any(route.path == "/api/v1/worklist" for route in ROUTES)
