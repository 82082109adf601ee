"""A secret stands in no file: one that does is found by its type, told, and goes nowhere but where it is used."""

from __future__ import annotations

import logging
import pickle
import typing
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import msgspec
import pytest
from pydantic import BaseModel

from engine import logs
from engine.cli.schema import schema_of
from engine.connectors.registry import TYPES, load, settings_of, whole_site
from engine.domain.shapes import plain
from engine.pipeline.changes import changes
from engine.settings import Channel, Configuration, Secret
from engine.settings.secret import opens
from engine.snapshot import UNRESOLVED, Snapshot, version_of
from engine.yamlfile import SECRET, parse

CANARY = "whsec_CanaryCanaryCanaryCanaryCanaryxy"  # fits every secret setting
NEEDED = {
    "pagerduty": {"url": "https://pages.example.org", "routing_key": "{env: PRESENT}"},
    "salesforce": {"login_url": "https://x.example.org", "client_id": "c", "client_secret": "{env: PRESENT}"},
    "twilio": {"account_sid": "AC0", "from": "'+12125550100'", "auth_token": "{env: PRESENT}"},
    "webhook": {"url": "https://x.example.org", "secret": "{env: PRESENT}"},
}
"""Type of destination -> what it can't be without."""
BESIDE = {"private_key": {"client_secret": None, "username": "u"}}
"""Key -> what has to stand beside it."""


def _models(root: type[BaseModel]) -> Iterator[type[BaseModel]]:
    waiting: list[object] = [root]
    seen: set[object] = set()
    while waiting:
        one = waiting.pop()
        waiting += typing.get_args(one)
        if isinstance(one, type) and issubclass(one, BaseModel) and one not in seen:
            seen.add(one)
            yield one
            waiting += [about.annotation for about in one.model_fields.values()]


def _is_secret(annotation: object) -> bool:
    return annotation is Secret or any(_is_secret(one) for one in typing.get_args(annotation))


def _is_table(annotation: object) -> bool:
    """Settings of their own, whose fields are looked at by themselves."""
    parts = typing.get_args(annotation) or (annotation,)
    return all(one is type(None) or (isinstance(one, type) and issubclass(one, BaseModel)) for one in parts)


def _settings() -> list[tuple[str, str]]:
    found = [(type_, name) for type_ in TYPES for name, about in settings_of(type_).model_fields.items()
             if _is_secret(about.annotation)]  # fmt: skip
    assert len(found) >= 6
    return found


ALL = _settings()


def written(folder: Path, type_: str, key: str, value: str) -> Path:
    keys = NEEDED[type_] | BESIDE.get(key, {}) | {key: value}
    lines = "".join(f"    {name}: {text}\n" for name, text in keys.items() if text is not None)
    for name in ("channels", "mappings"):
        (folder / name).mkdir(exist_ok=True)
    config = folder / "config.yaml"
    config.write_text(
        f"node: n1  # Zürich, 日本\ndestinations:\n  far:\n    type: {type_}\n{lines}    timeout_seconds: 9\n"
    )
    return config


@pytest.fixture(autouse=True)
def _present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESENT", CANARY)


def test_what_is_named_as_a_secret_is_one_by_its_type() -> None:
    """A new type of destination with a `token` that is a plain text does not pass here."""
    files = {"keys", "key", "routing_keys", "erasure_keys"}
    for model in (*_models(whole_site()), *_models(Channel)):
        for name, about in model.model_fields.items():
            if SECRET.search(name) and name not in files:
                assert _is_secret(about.annotation) or _is_table(about.annotation), f"{model.__name__}.{name}"


STYLES = {
    "plain": CANARY,
    "single quotes": f"'{CANARY}'",
    "double quotes": f'"{CANARY[:-1]}\\x79"',
    "folded": f">-\n      {CANARY}",
    "block": f"|-\n      {CANARY}",
}


@pytest.mark.parametrize(("type_", "key"), ALL)
@pytest.mark.parametrize("style", STYLES)
def test_a_secret_in_a_file_is_told_with_its_place_and_recorded_nowhere(
    tmp_path: Path, type_: str, key: str, style: str
) -> None:
    config = written(tmp_path, type_, key, STYLES[style])
    made = load(Snapshot.read(config))
    [problem] = made.exposed
    line = next(n for n, text in enumerate(config.read_text().splitlines(), 1) if text.strip().startswith(f"{key}:"))
    assert (problem.file, problem.line, problem.key) == ("config.yaml", line, f"destinations.far.{key}")
    assert "{env: NAME}" in problem.message
    recorded = made.snapshot.recorded["config.yaml"]
    before, after = (parse(text, "x").value for text in (config.read_text(), recorded))
    wanted = deepcopy(before)
    wanted["destinations"]["far"][key] = UNRESOLVED  # and nothing else is touched
    assert after == wanted
    assert made.snapshot.version == version_of(made.snapshot.recorded)
    again = load(Snapshot(tmp_path, "config.yaml", dict(made.snapshot.recorded)), references="never")
    assert not any(one.key == "destinations.far.type" for one in again.exposed)
    assert _all_that_is_shown(made).count("Canary") == 0
    assert getattr(made.site.destinations["far"], key).reveal() == CANARY  # it is used all the same


def _all_that_is_shown(made: Configuration) -> str:
    site = made.site
    other = load(Snapshot(made.snapshot.base, "config.yaml", {"config.yaml": "node: n2\n"}))
    said = changes(other, made, connections={}, waiting={})
    return "".join(
        (*map(str, made.exposed), repr(site), str(site), site.model_dump_json(), repr(site.model_dump()),
         repr(made.snapshot.recorded), repr([plain(one) for one in said]), made.snapshot.version)
    )  # fmt: skip


@pytest.mark.parametrize(("type_", "key"), ALL)
@pytest.mark.parametrize("reference", ["{env: PRESENT}", "{file: secret.txt}", "{credential: present}"])
def test_a_reference_is_no_secret_in_a_file(
    tmp_path: Path, type_: str, key: str, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for name in ("secret.txt", "present"):
        (tmp_path / name).write_text(CANARY + "\n")
    config = written(tmp_path, type_, key, reference)
    made = load(Snapshot.read(config))
    assert made.exposed == ()
    assert made.snapshot.recorded["config.yaml"] == config.read_text()
    assert getattr(made.site.destinations["far"], key).reveal() == CANARY
    assert "Canary" not in repr(made.site) + made.site.model_dump_json()


URLS = {
    "store.url": "store: {url: 'postgresql+psycopg://me:Canary@db.example/x?sslmode=verify-full'}",
    "store.url of options": "store: {url: 'postgresql+psycopg://db.example/x?sslmode=verify-full&sslpassword=Canary'}",
    "hooks.public_url": "hooks: {port: 0, public_url: 'https://Canary@hooks.example.org'}",
    "destinations.far.proxy": "destinations: {far: {type: webhook, url: 'https://x.example', secret: {env: PRESENT}, "
    "proxy: 'http://me:Canary@proxy.example:3128'}}",
    "destinations.far.url": "destinations: {far: {type: webhook, secret: {env: PRESENT}, "
    "url: 'https://x.example/in?api_key=Canary'}}",
}


@pytest.mark.parametrize("key", URLS)
def test_a_url_that_opens_something_is_one_too(tmp_path: Path, key: str) -> None:
    for name in ("channels", "mappings"):
        (tmp_path / name).mkdir()
    (tmp_path / "config.yaml").write_text(URLS[key] + "\n")
    made = load(Snapshot.read(tmp_path / "config.yaml"))
    [problem] = made.exposed
    assert problem.key == key.split(" ", maxsplit=1)[0]
    assert "Canary" not in repr(made) + repr(made.outline) + repr(made.outline.snapshot.recorded)
    load(Snapshot(tmp_path, "config.yaml", dict(made.snapshot.recorded)), references="never")


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("sqlite:///var/handoff.db", False),
        ("postgresql+psycopg://handoff@db.example/handoff?sslmode=verify-full", False),
        ("postgresql+psycopg:///handoff?host=/run/postgresql", False),
        ("postgresql+psycopg://h:p@[::1]:5432/x", True),
        ("https://example.org/path@home", False),
        ("https://example.org/x?page=2&tokens_max=3", False),
        ("https://example.org/#access_token=abc", True),
        ("http://user@proxy:3128", True),
        ("http://[broken", False),
        ("http://u:p@[broken", True),
    ],
)
def test_which_urls_open_something(url: str, *, found: bool) -> None:
    assert opens(url) is found


def test_a_secret_shows_itself_to_nobody_who_does_not_ask_for_it(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret("canary")
    shown = f"{secret} {secret!r} {secret!s:>9} {[secret]} {ValueError(secret)}"
    logging.getLogger("x").warning("%s", secret)
    assert "canary" not in shown + caplog.text
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        msgspec.json.encode({"x": secret})
    assert (secret == Secret("canary"), secret == Secret("other"), secret == "canary") == (True, False, False)


def test_a_secret_is_not_in_a_log_line_even_as_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    logs.get_logger("x").info("x", secret=Secret("canary"))
    assert "canary" not in "".join(capsys.readouterr())


def test_editors_offer_references_for_secrets_and_nothing_else() -> None:
    schema = schema_of("config")
    webhook = schema["$defs"]["WebhookDestination"]["properties"]
    assert webhook["secret"]["$ref"] == "#/$defs/Reference"
    assert webhook["former_secret"]["anyOf"] == [{"$ref": "#/$defs/Reference"}, {"type": "null"}]
