"""Secrets of the environment are read once, and then nobody finds them there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine import environment
from engine.connectors.registry import load
from engine.snapshot import Snapshot

PROGRAM = """
import ctypes, os, subprocess, sys
from engine.environment import held_for, hold, variable
from engine.runtime.memory import protect_memory
hold(["SF_SECRET", "NOT_THERE"])
protect_memory()
assert variable("SF_SECRET") == "canary-of-the-environment"
assert variable("OTHER") == "stays"
assert held_for(["a: {env: SF_SECRET}"]) == {"SF_SECRET": "canary-of-the-environment"}
assert held_for(["a: {env: OTHER}"]) == {}
shown = open("/proc/self/environ", "rb").read()
child = subprocess.run(["env"], capture_output=True, check=True).stdout
limits = next(line.split() for line in open("/proc/self/limits") if line.startswith("Max core file size"))
print(b"canary" in shown, b"stays" in shown, b"canary" in child, limits[4:6], ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


def test_a_variable_is_gone_from_the_process_and_from_what_it_starts_and_its_memory_is_closed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"SF_SECRET": "canary-of-the-environment", "OTHER": "stays", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout.strip(), done.stderr) == ("False True False ['0', '0'] 0", "")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "_held", {})
    monkeypatch.setenv("HOOK", "whsec_CanaryCanaryCanaryCanaryCanaryxy")
    monkeypatch.setenv("URL", "https://user:canary@x.example")
    monkeypatch.setenv("ZONE", "America/Chicago")
    monkeypatch.setenv("NODE", "north")
    for name in ("channels", "mappings"):
        (tmp_path / name).mkdir()
    file = tmp_path / "config.yaml"
    file.write_text(
        "node: {env: NODE}\ncalendar: {timezone: {env: ZONE}}\n"
        "destinations: {hook: {type: webhook, url: {env: URL}, secret: {env: HOOK}, proxy: 'http://p.example:1'}}\n"
    )
    return file


def test_only_those_that_hold_secrets_are_taken_away(config: Path) -> None:
    """`{env: TZ}` or `{env: HOME}` must still be there for others."""
    assert load(Snapshot.read(config)).variables == {"HOOK", "URL"}


def test_a_reload_and_a_worker_find_what_was_taken_away(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(Snapshot.read(config))
    environment.hold(first.variables)
    again = load(Snapshot.read(config))
    assert again.site == first.site
    given = environment.held_for(first.snapshot.files.values())
    assert given.keys() == {"HOOK", "URL"}
    monkeypatch.setattr(environment, "_held", {})  # as in the worker
    environment.receive(given)
    assert load(Snapshot.read(config)).site == first.site
