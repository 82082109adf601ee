"""`handoff check`: every problem is named where it stands, in words that its reader understands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from site_with_store import Site

from engine.errors import SettingsError, StoreUnavailableError
from engine.runtime.status import running_status
from engine.settings import Snapshot, load

CHANNEL = "channels/main-campus.yaml"


def edit(site: Site, file: str, pattern: str, replacement: str) -> None:
    path = site.folder / file
    text, count = re.subn(pattern, replacement, path.read_text(), count=1)
    assert count == 1, f"{pattern!r} is not in {file}"
    path.write_text(text)


def run_daemon(site: Site) -> subprocess.CompletedProcess[str]:
    """As a process of its own: it sets up signals."""
    command = [sys.executable, "-P", "-m", "engine", "run", "--config", str(site.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "key", "words"),
    [
        ("config.yaml", "url: sqlite.*", "url: mysql://x", "store.url", "must be sqlite:///PATH or postgresql"),
        ("config.yaml", "url: sqlite.*", "url: handoff.db", "store.url", "must be sqlite:///PATH or postgresql"),
        ("config.yaml", "url: sqlite.*", "url: 'postgresql+psycopg://h:x/d'", "store.url", "can't be read"),
        ("config.yaml", "type: file", "type: fil", "destinations.files.type", "must be one of 'file', 'mllp'"),
        ("config.yaml", "type: file, path: [^}]*", "type: file", "destinations.files.path", "'path' is missing"),
        ("config.yaml", "node: .*", "node: a b", "node", "must have the form"),
        ("config.yaml", "node: .*", "node: 7", "node", "must be a valid string"),
        ("config.yaml", "port: 8080", "port: 99999", "console.port", "must be less than or equal to 65535"),
        ("config.yaml", "port: 8080", "port: 2575", "listen.port", "the console listens there already"),
        (CHANNEL, "allow: .*", "allow: [127.0.0.0/8, 10.0.0.300]", "listen.allow[1]", "is not a network"),
        (CHANNEL, "mode: live", "mode: dead", "mode", "must be 'live', 'shadow' or 'paused'"),
    ],
)
def test_a_problem_is_said_once_in_words_and_at_its_place(
    bare: Site, file: str, pattern: str, replacement: str, key: str, words: str
) -> None:
    edit(bare, file, pattern, replacement)
    (problem,) = bare.json("check", code=1)["problems"]
    assert (problem["key"], words in problem["message"]) == (key, True), problem
    line = (bare.folder / problem["file"]).read_text().splitlines()[problem["line"] - 1]
    assert key.rpartition(".")[2].partition("[")[0] in line or "files:" in line


def test_what_check_finds_is_why_the_daemon_does_not_start(bare: Site) -> None:
    edit(bare, "config.yaml", "url: sqlite.*", "url: 'postgresql+psycopg://h:x/d'")
    for command in ("ledger", "db status", "check"):
        done = bare.run(*command.split())
        assert done.code == (1 if command == "check" else 78)
        assert "config.yaml:6:3: store.url" in done.out + done.err
    daemon = run_daemon(bare)
    assert (daemon.returncode, "config.yaml:6:3: store.url" in daemon.stderr) == (78, True)


# --- files for TLS ---------------------------------------------------------------------------------------------------


def with_tls(site: Site) -> Path:
    edit(site, CHANNEL, "# tls: .*", "tls: {cert: tls/server.pem, key: tls/server.key}")
    (site.folder / "channels/tls").mkdir()
    return site.folder / "channels/tls"


def test_a_file_for_tls_that_is_not_there_is_a_problem_of_the_configuration(bare: Site) -> None:
    folder = with_tls(bare)
    (folder / "server.pem").write_text("")
    (problem,) = bare.json("check", code=1)["problems"]
    assert problem["file"] == CHANNEL
    assert problem["key"] == "listen.tls.key"
    assert "tls/server.key can't be read: No such file" in problem["message"]
    assert run_daemon(bare).returncode == 78


def test_files_for_tls_that_are_none_are_a_problem_of_the_configuration(bare: Site) -> None:
    folder = with_tls(bare)
    for name in ("server.pem", "server.key"):
        (folder / name).write_text("no PEM")
    (problem,) = bare.json("check", code=1)["problems"]
    assert (problem["key"], "PEM files" in problem["message"]) == ("listen.tls", True)


def test_files_that_a_destination_needs_are_checked_too(bare: Site) -> None:
    lab = "  lab: {type: mllp, host: 10.0.0.9, port: 2576, tls: {ca: nowhere.pem}}\n\ncalendar:"
    edit(bare, "config.yaml", "\ncalendar:", lab)
    (problem,) = bare.json("check", code=1)["problems"]
    assert problem["key"] == "destinations.lab.tls.ca"


# --- values that stand elsewhere -------------------------------------------------------------------------------------


def test_a_value_that_is_not_there_is_the_only_problem(bare: Site) -> None:
    edit(bare, "config.yaml", "url: sqlite.*", "url: {env: HANDOFF_TEST_NOWHERE}")
    (problem,) = bare.json("check", code=1)["problems"]
    assert problem["message"] == "env HANDOFF_TEST_NOWHERE is not there or is empty"


def test_entries_are_replayed_under_a_configuration_whose_node_name_stood_elsewhere(
    bare: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what was written into the files is recorded; what a reference leads to may have gone since, or changed."""
    monkeypatch.setenv("HANDOFF_TEST_NODE", "north")
    edit(bare, "config.yaml", "node: .*", "node: {env: HANDOFF_TEST_NODE}")
    message = (
        b"MSH|^~\\&|EHR|MAIN|||20261104081500||ADT^A28|M1|P|2.5.1\rEVN|A28|20261104081500\rPID|1||7^^^MRN^MR||ROE^R\r"
    )
    bare.receive(message)
    bare.process()
    edit(bare, "config.yaml", "node: .*", "node: south")
    monkeypatch.delenv("HANDOFF_TEST_NODE")
    assert bare.json("replay", "--config-as-of", "then")["entries"] == [2]
    bare.process()
    assert [entry["state"] for entry in bare.json("messages", "list")] == ["processed", "processed"]


# --- what may not be read --------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(bare: Site) -> Iterator[Path]:
    """A copy of the site in a folder that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="handoff-") as folder:
        Path(folder).chmod(0o755)
        yield Path(shutil.copytree(bare.folder, Path(folder) / "site"))


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """Root may read everything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_folder_of_channels_that_may_not_be_read_is_not_taken_for_an_empty_one(elsewhere: Path) -> None:
    (elsewhere / "channels").chmod(0)
    try:
        with as_somebody_else(), pytest.raises(SettingsError) as caught:
            Snapshot.read(elsewhere / "config.yaml")
    finally:
        (elsewhere / "channels").chmod(0o755)
    (problem,) = caught.value.problems
    assert (problem.file, problem.message) == (str(elsewhere / "channels"), "can't be read: Permission denied")


def test_a_daemon_that_one_may_not_know_of_is_not_taken_for_none(elsewhere: Path) -> None:
    configuration = load(Snapshot.read(elsewhere / "config.yaml"))
    (elsewhere / "var").chmod(0)
    try:
        with as_somebody_else(), pytest.raises(StoreUnavailableError, match="can't be looked into"):
            running_status(configuration)
    finally:
        (elsewhere / "var").chmod(0o700)
