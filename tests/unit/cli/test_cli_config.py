"""Which configurations were in force, who loaded them, and what changed; and reading while the files are broken."""

from __future__ import annotations

import os
import pwd
from datetime import UTC, datetime

import msgspec
import pytest
from site_with_store import Site, first_messages
from sqlalchemy import select, update

from engine import bootstrap
from engine.cli.config import without_secrets
from engine.connectors.registry import load
from engine.errors import SettingsError
from engine.runtime.configurations import recorded_configuration
from engine.settings import loaded
from engine.snapshot import Snapshot
from engine.store.schema import config_version

ME = pwd.getpwuid(os.getuid()).pw_name
CHANNEL = "channels/main-campus.yaml"


async def record(site: Site, by: str, at: int) -> str:
    """What a worker keeps when its daemon starts or reloads; the version."""
    when = datetime(2026, 11, 30, at, tzinfo=UTC)
    configuration = loaded(load(Snapshot.read(site.config)), who=ME, by=by, at=when)
    with bootstrap.open_store(configuration, "worker") as store:
        for _ in range(2):  # a worker that died is given the same again
            await bootstrap._remember(store, configuration, when, 0)
    return configuration.snapshot.version


def edit(site: Site, file: str, old: str, new: str) -> None:
    path = site.folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


async def test_each_loading_is_on_record_with_who_when_where_and_how(bare: Site) -> None:
    first = await record(bare, "run", 8)
    edit(bare, CHANNEL, "timezone: America/New_York", "timezone: America/Chicago")
    second = await record(bare, "reload", 9)
    listed = bare.json("config", "list")
    assert [(one["version"], one["node"], one["who"], one["by"]) for one in listed] == [
        (second, "main-1", ME, "reload"),
        (first, "main-1", ME, "run"),
    ]
    assert listed[1]["at"].startswith("2026-11-30T08:00")
    actions = [(one["action"], one["subject"], one["actor"]) for one in bare.json("audit", "list")]
    assert actions[1:] == [("config-reload", f"config:{second}", ME), ("config-run", f"config:{first}", ME)]


async def test_a_difference_is_shown_file_by_file(bare: Site) -> None:
    first = await record(bare, "run", 8)
    assert bare.run("config", "diff", first[:6]).out == "They are the same.\n"
    edit(bare, CHANNEL, "timezone: America/New_York", "timezone: America/Chicago")
    (bare.folder / "mappings/tables/new.yaml").write_text("name: new\nvalues: {a: b}\nunknown: keep\n")
    second = await record(bare, "reload", 9)
    edit(bare, CHANNEL, "timezone: America/Chicago", "timezone: [")  # half edited
    done = bare.run("config", "diff", first, second)
    assert done.code == 1
    assert f"--- {CHANNEL}\n+++ {CHANNEL}\n" in done.out
    assert "-timezone: America/New_York" in done.out
    assert "+timezone: America/Chicago" in done.out
    assert "--- /dev/null\n+++ mappings/tables/new.yaml" in done.out
    shown = bare.json("config", "diff", second, code=1)
    assert [one["file"] for one in shown["files"]] == [CHANNEL]
    assert bare.run("config", "diff", "zz").code == 1


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("destinations: {crm: {client_secret: canary-a, client_id: public}}\n", "canary-a"),
        ("destinations:\n  crm:\n    private_key: |\n      -----BEGIN\n      canary-b\n", "canary-b"),
        ("destinations:\n  crm:\n    client_secret: canary-c\n    other: [\n", "canary-c"),
        ("store: {url: 'postgresql://me:canary-d@db/x'}\n", "canary-d"),
        ("destinations: {duty: {routing_key: 'canary-e'}, phone: {auth_token: canary-f}}\n", "canary-"),
        ("destinations: {hook: {password: 1234567}}\n", "1234567"),
        ('store: {keys: \'{"format": 1, "lookup": "canary-g"}\'}\n', "canary-g"),
    ],
)
def test_no_secret_is_shown(text: str, hidden: str) -> None:
    shown = without_secrets(text, "config.yaml")
    assert hidden not in shown
    assert "***" in shown


def test_what_only_names_a_secret_is_shown() -> None:
    text = "destinations: {crm: {client_secret: {env: SF_SECRET}}}\nstore: {keys: var/keys.json}\n"
    assert without_secrets(text, "config.yaml") == text


async def test_a_recorded_configuration_that_was_altered_is_refused(bare: Site) -> None:
    """Whoever can write the database, and has no key, does not decide what messages are replayed under."""
    version = await record(bare, "run", 8)
    configuration = load(Snapshot.read(bare.config))
    files = dict(configuration.snapshot.files) | {CHANNEL: "name: main-campus\nnode: {file: /etc/shadow}\n"}
    with bootstrap.open_store(configuration, "tool") as store:
        other = store.keys.seal(f"config_version.files:{version}", msgspec.json.encode(files))
        for altered in (msgspec.json.encode(files), other):
            change = update(config_version).values(files=altered)
            store.charts_ledger.write_now(lambda conn, change=change: conn.execute(change))
            with pytest.raises(SettingsError, match="was altered"):
                recorded_configuration(store, bare.folder, version)
    assert "was altered" in bare.run("config", "diff", version).err


async def test_the_text_of_a_recorded_configuration_is_not_readable_without_the_key(bare: Site) -> None:
    await record(bare, "run", 8)
    configuration = load(Snapshot.read(bare.config))
    with bootstrap.open_store(configuration, "tool") as store, store.reader() as conn:
        (raw,) = conn.execute(select(config_version.c.files)).scalars()
    assert b"main-campus" not in raw


# --- reading while the files are broken ------------------------------------------------------------------------------

READING = (
    ("messages", "list"), ("dead", "list"), ("held", "list"), ("tasks", "list"), ("ledger",), ("audit", "list"),
    ("patients", "show", "MRN:558181838"), ("config", "list"), ("db", "status"), ("keys", "status"),
)  # fmt: skip
CRM = "{type: salesforce, login_url: 'https://o.example.com', client_id: c, client_secret: {env: NO_SUCH_SECRET}}"
BREAKING = {
    "a channel is half edited": (CHANNEL, "listen:", "listen: ["),
    "a channel has a wrong key": (CHANNEL, "listen:", "listener:"),
    "a secret is missing": ("config.yaml", "{type: file, path: var/outbox, sealed: false}", CRM),
    "a mapping is broken": ("mappings/fields/adt.yaml", "patient.sex:", "patient.sex: ["),
    "config.yaml has a tab": ("config.yaml", "calendar:", "\tcalendar:"),
    "config.yaml has a wrong destination": ("config.yaml", "type: file", "type: fiel"),
    "a key of config.yaml stands twice": ("config.yaml", "calendar:", "node: again\ncalendar:"),
}  # fmt: skip


LOOKS = {"looked", "searched", "site-read", "trail-read"}


def seen(site: Site, *command: str) -> tuple[int, object]:
    """The exit code, ids and states: who a patient is may be masked more while no channel is known."""
    done = site.run(*command, "--json")
    shown = done.json
    if command == ("audit", "list"):
        shown = [one for one in shown if one["action"] not in LOOKS]
    rows = shown if isinstance(shown, list) else [shown]
    kept = ("id", "state", "entry", "error", "received", "dead", "kind", "version", "number", "action")
    return done.code, [{name: row[name] for name in kept if name in row} for row in rows]


@pytest.mark.parametrize("how", BREAKING)
def test_what_is_stored_can_be_read_while_the_configuration_is_broken(stocked: Site, how: str) -> None:
    whole = [seen(stocked, *command) for command in READING]
    edit(stocked, *BREAKING[how])
    assert [seen(stocked, *command) for command in READING] == whole
    if how != "a secret is missing" and "mapping" not in how:
        assert "The configuration has problems" in stocked.run("dead", "list").err


@pytest.mark.parametrize("how", BREAKING)
def test_no_destination_is_an_orphan_because_the_configuration_is_broken(stocked: Site, how: str) -> None:
    stocked.run("destinations", "pause", "files")
    stocked.receive(
        *(message.replace(b"558181838", b"7").replace(b"|FIRST-", b"|OTHER-") for message in first_messages(stocked))
    )
    stocked.process()
    edit(stocked, *BREAKING[how])
    (row,) = (one for one in stocked.json("destinations", "list") if one["name"] == "files")
    assert (row["state"], row["orphan"], row["error"], row["pending"] > 0) == ("paused", False, None, True)
    assert "undelivered" in {one["what"] for one in stocked.run("gaps", "--json").json}
    given_up = stocked.run("destinations", "discard", "files", "--reason", "it is said to be an orphan")
    assert given_up.code != 0
    assert stocked.json("destinations", "show", "files")["pending"] == row["pending"]
    assert stocked.json("destinations", "resume", "files")["state"] == "up"


def test_a_broken_store_setting_is_still_said(stocked: Site) -> None:
    edit(stocked, "config.yaml", "url: sqlite", "url: mysql")
    assert stocked.run("dead", "list").code == 78
