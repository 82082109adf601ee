"""Settings of destinations that must fit each other, and what they must not mean by mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.connectors import registry
from engine.connectors.registry import load
from engine.domain.delivery import WHAT, Operation
from engine.errors import SettingsError
from engine.settings import Channel, Configuration
from engine.snapshot import Snapshot

CHANNEL = "name: main\nlisten: {{host: 127.0.0.1, port: 0{listen}}}\ntimezone: America/New_York\nmapping: adt\n"
CRM = "type: salesforce, login_url: 'https://org.example.com', client_id: c, client_secret: s"


def site(folder: Path, text: str, listen: str = "") -> Configuration:
    for name in ("channels", "mappings"):
        (folder / name).mkdir()
    (folder / "config.yaml").write_text(text)
    (folder / "channels/main.yaml").write_text(CHANNEL.format(listen=listen))
    return load(Snapshot.read(folder / "config.yaml"))


def problems(folder: Path, text: str, listen: str = "") -> list[tuple[str, str, str]]:
    with pytest.raises(SettingsError) as caught:
        site(folder, text, listen)
    return [(problem.file, problem.key, problem.message) for problem in caught.value.problems]


def test_a_call_and_the_record_of_it_fit_into_the_time_for_stopping(tmp_path: Path):
    """Whatever is configured: what is delivered when the word to stop comes is on record when the process ends."""
    made = site(tmp_path, f"destinations: {{crm: {{{CRM}}}}}").site
    waiting = (made.shutdown_seconds_max - made.drain_seconds_max) * 0.75  # the answers' connections get a quarter
    assert made.destinations["crm"].timeout_seconds <= made.call_seconds_max < waiting


def test_a_shorter_time_for_stopping_shortens_the_calls(tmp_path: Path):
    made = site(tmp_path, f"shutdown_seconds_max: 10\ndestinations: {{crm: {{{CRM}}}}}")
    assert made.destination("crm").timeout_seconds == 5.0


def test_a_timeout_that_does_not_fit_into_the_time_for_stopping_is_told_with_what_would(tmp_path: Path):
    text = f"shutdown_seconds_max: 60\ndestinations:\n  crm: {{{CRM}, timeout_seconds: 45}}\n"
    [(file, key, message)] = problems(tmp_path, text)
    assert (file, key) == ("config.yaml", "destinations.crm.timeout_seconds")
    assert "shutdown_seconds_max: 90" in message


def test_the_service_manager_waits_longer_than_stopping_may_take(tmp_path: Path):
    unit = (Path(__file__).parents[2] / "systemd/handoff.service").read_text()
    (seconds,) = [int(line.partition("=")[2]) for line in unit.splitlines() if line.startswith("TimeoutStopSec=")]
    assert seconds > site(tmp_path, "node: n1").site.shutdown_seconds_max


@pytest.mark.parametrize("empty", ["tls:", "tls: null", "tls: ~"])
def test_tls_with_nothing_below_it_is_not_taken_for_none(tmp_path: Path, empty: str):
    [(_, key, message)] = problems(
        tmp_path, f"destinations:\n  lab:\n    type: mllp\n    host: 10.0.0.9\n    port: 2576\n    {empty}\n"
    )
    assert (key, "is empty" in message) == ("destinations.lab.tls", True)


def test_tls_with_nothing_below_it_is_not_taken_for_none_at_a_listener_either(tmp_path: Path):
    [(file, key, _)] = problems(tmp_path, "node: n1", ", tls: null")
    assert (file, key) == ("channels/main.yaml", "listen.tls")


def test_tls_as_it_comes_is_written_with_braces(tmp_path: Path):
    made = site(tmp_path, "destinations: {lab: {type: mllp, host: 10.0.0.9, port: 2576, tls: {}}}")
    assert made.site.destinations["lab"].tls is not None


def test_a_key_without_its_certificate_is_told(tmp_path: Path):
    text = "destinations: {lab: {type: mllp, host: 10.0.0.9, port: 2576, tls: {key: client.pem}}}"
    [(_, key, message)] = problems(tmp_path, text)
    assert "cert" in message
    assert key.startswith("destinations.lab")


@pytest.mark.parametrize(
    "url",
    [
        "http://org.example.com",
        "http://127.0.0.1.example.com",
        "http://127.0.0.1:80@org.example.com",
        "ftp://org.example.com",
        "https://",
        "http://[::1",
    ],
)
def test_an_org_is_never_talked_to_without_tls(tmp_path: Path, url: str):
    crm = CRM.replace("https://org.example.com", url)
    assert any(
        "https" in message or "URL" in message
        for _, _, message in problems(tmp_path, f"destinations: {{crm: {{{crm}}}}}")
    )


TYPES = {
    "file": "{type: file, path: var/x}",
    "mllp": "{type: mllp, host: 127.0.0.1, port: 1}",
    "salesforce": "{type: salesforce, login_url: 'https://x.my.salesforce.com', client_id: c, client_secret: s}",
    "pagerduty": "{type: pagerduty, url: 'https://x.example.org', routing_key: k}",
    "webhook": "{type: webhook, url: 'https://x.example.org', secret: whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA}",
}
GOOD = {
    ("file", "patient"), ("file", "encounter"), ("file", "score"), ("file", "task"), ("file", "message"),
    ("file", "page"), ("file", "appointment"), ("webhook", "appointment"), ("file", "text"), ("webhook", "text"),
    ("salesforce", "page"), ("pagerduty", "page"),
    ("mllp", "message"), ("mllp", "request"),
    ("salesforce", "patient"), ("salesforce", "encounter"), ("salesforce", "score"), ("salesforce", "task"),
    ("webhook", "patient"), ("webhook", "encounter"), ("webhook", "score"), ("webhook", "task"),
    ("webhook", "message"), ("webhook", "page"),
}  # fmt: skip


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("beside", [False, True])
def test_a_destination_is_given_what_it_takes_and_nothing_else(tmp_path: Path, type_: str, what: str, beside: bool):
    """Else each delivery would be buried, one by one. beside: what it takes stands beside it."""
    known = sorted(item for kind, item in GOOD if kind == type_)
    given = ", ".join([*(known if beside else []), what])
    channel = (
        "name: west\nlisten: {port: 0}\ntimezone: UTC\nmapping: adt\n"
        f"deliver:\n  - {{to: other, what: [message]}}\n  - {{to: x, what: [{given}]}}\n"
    )
    site = f"destinations:\n  x: {TYPES[type_]}\n  other: {{type: file, path: var/other}}\n"
    snapshot = Snapshot(tmp_path, "config.yaml", {"config.yaml": site, "channels/west.yaml": channel})
    if (type_, what) in GOOD:
        load(snapshot)
        return
    with pytest.raises(SettingsError) as caught:
        load(snapshot)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.key) == ("channels/west.yaml", 7, "deliver[1].what")
    assert f"takes {', '.join(known)}" in problem.message


@pytest.mark.parametrize("type_", registry.TYPES)
def test_a_type_takes_what_there_is(type_: str):
    takes = registry.settings_of(type_).takes
    assert takes
    assert takes <= {operation.what for operation in Operation}


def test_the_schema_of_a_channel_lists_what_there_is():
    (schema,) = [one for name, one in Channel.model_json_schema()["$defs"].items() if name == "DeliverTo"]
    assert schema["properties"]["what"]["items"]["enum"] == list(WHAT)
