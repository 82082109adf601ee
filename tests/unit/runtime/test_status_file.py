"""The status file: one daemon a store, and a dead daemon is not taken for a living one."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from engine.connectors.registry import load
from engine.runtime.status import (
    DaemonRunningError,
    LastReload,
    ReloadResult,
    Status,
    StatusFile,
    request_reload,
    running_status,
)
from engine.settings import Configuration
from engine.snapshot import Snapshot


def status(state: str = "running") -> Status:
    return Status(node="n", state=state, pid=1, channels=(), console=None)  # type: ignore[arg-type]  # a test's text


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    (tmp_path / "config.yaml").write_text("node: n\n")
    (tmp_path / "channels").mkdir()
    (tmp_path / "mappings").mkdir()
    return load(Snapshot.read(tmp_path / "config.yaml"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "var" / "handoff.status.json"


def test_no_daemon_has_no_status_and_cannot_be_reloaded(configuration: Configuration) -> None:
    assert running_status(configuration) is None
    assert request_reload(configuration) is None


def test_a_running_daemon_is_found_by_its_file(configuration: Configuration, path: Path) -> None:
    file = StatusFile(path)
    assert file.take()
    file.write(status())
    assert running_status(configuration) == status()
    file.remove()
    assert running_status(configuration) is None
    assert not path.exists()


def test_the_file_of_a_daemon_that_was_killed_is_not_believed(configuration: Configuration, path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from engine.runtime.status import Status, StatusFile\n"
        "file = StatusFile(Path(sys.argv[1])); file.take()\n"
        "file.write(Status(node='n', state='running', pid=os.getpid(), channels=(), console=None))\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert path.exists()
    assert running_status(configuration) is None
    assert StatusFile(path).take()


def test_a_daemon_that_starts_is_not_taken_for_the_one_that_was_killed_before_it(
    configuration: Configuration, path: Path
) -> None:
    """Its pid may be another program's by now, and a reload would send that one a signal."""
    file = StatusFile(path)
    file.take()
    file.write(status())
    old = path.read_bytes()
    file.remove()
    path.write_bytes(old)
    starting = StatusFile(path)
    assert starting.take()
    assert running_status(configuration) is None
    assert request_reload(configuration) is None
    starting.remove()


def test_a_second_daemon_is_refused(path: Path) -> None:
    first = StatusFile(path)
    assert first.take()
    with pytest.raises(DaemonRunningError):
        StatusFile(path).take()
    first.remove()
    assert StatusFile(path).take()


def test_looking_does_not_keep_a_daemon_from_starting(configuration: Configuration, path: Path) -> None:
    path.parent.mkdir()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            running_status(configuration)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(50):
            file = StatusFile(path)
            assert file.take()
            file.remove()
    finally:
        done.set()
        looking.join()


def test_a_folder_that_cannot_be_written_costs_the_file_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    file = StatusFile(tmp_path / "file" / "handoff.status.json")
    assert file.take() is False
    file.write(status())
    file.remove()


def test_a_full_disk_leaves_one_unfinished_file_at_most(path: Path) -> None:
    file = StatusFile(path)
    assert file.take()
    file.write(status())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        for state in ("starting", "stopping", "stopped"):
            file.write(status(state))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert b"running" in path.read_bytes()
    assert len([entry for entry in path.parent.iterdir() if entry.name.startswith(".")]) <= 1
    file.remove()


def test_what_became_of_a_reload_by_signal_is_read_from_the_file(configuration: Configuration, path: Path) -> None:
    """The daemon's console does not answer (it may be bound beyond loopback): a refusal must not look like success."""
    file = StatusFile(path)
    file.take()
    running = msgspec.structs.replace(status(), pid=os.getpid())
    file.write(running)
    answers = iter([LastReload(number=1, ok=True), LastReload(number=2, ok=False, problems=("config.yaml:1:1: no",))])

    def reload(*_: object) -> None:
        file.write(msgspec.structs.replace(running, last_reload=next(answers), config_version="v2"))

    before = signal.signal(signal.SIGHUP, reload)
    try:
        assert request_reload(configuration) == ReloadResult(ok=True, config_version="v2")
        assert request_reload(configuration) == ReloadResult(ok=False, problems=("config.yaml:1:1: no",))
    finally:
        signal.signal(signal.SIGHUP, before)
        file.remove()


def test_a_reader_never_sees_half_a_file(path: Path) -> None:
    file = StatusFile(path)
    file.take()
    for state in ("starting", "running", "stopping"):
        file.write(status(state))
    assert [entry.name for entry in path.parent.iterdir() if entry.name.startswith(".")] == []
    file.remove()
