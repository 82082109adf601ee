"""The systemd units: without a word from the verifier, hardened, and socket-activated."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import Sender, Site
from peers.ports import free_port

UNITS = Path(__file__).parents[2] / "systemd"
EXPOSURE_MAX = 1.5

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None or shutil.which("systemd-socket-activate") is None,
    reason="systemd's tools are not on this machine",
)


@needs_systemd
def test_the_verifier_has_nothing_to_say() -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, sorted(UNITS.glob("handoff*.*")))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def settings(unit: str) -> dict[str, list[str]]:
    """Of a unit file, in order."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / unit).read_text().splitlines():
        if "=" in line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_a_backup_has_the_keys_of_the_daemon_and_waits_for_it() -> None:
    daemon, backup = settings("handoff.service"), settings("handoff-backup.service")
    for key in ("User", "LoadCredential", "Environment", "ExecSearchPath", "StateDirectory", "UMask"):
        assert backup[key] == daemon[key]
    assert backup["CPUWeight"] == backup["IOWeight"] == ["1"]
    [command] = backup["ExecStart"]
    assert command.split()[1:3] == ["handoff", "backup"]
    assert backup["ReadWritePaths"] == [command.split()[3]]
    assert f" {command.split()[3]} " in (UNITS / "tmpfiles.conf").read_text()


def test_a_backup_is_as_restricted_as_the_daemon() -> None:
    """All but the calls that each is let."""
    daemon, backup = settings("handoff.service"), settings("handoff-backup.service")
    begins = list(daemon).index("NoNewPrivileges")
    restrictions = set(list(daemon)[begins:]) - {"SystemCallFilter", "WantedBy", "Also"}
    assert len(restrictions) > 25
    assert {key: backup.get(key) for key in restrictions} == {key: daemon[key] for key in restrictions}
    assert backup["SystemCallFilter"][:2] == daemon["SystemCallFilter"][:2]


@needs_systemd
@pytest.mark.parametrize("unit", ["handoff.service", "handoff-backup.service"])
def test_the_service_is_hardened(unit: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(UNITS / unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(rf"exposure level for {unit}: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE_MAX


@needs_systemd
def test_a_socket_that_systemd_opened_is_used_and_a_sender_who_came_early_is_answered(site: Site) -> None:
    port = free_port()
    process = subprocess.Popen(
        ["systemd-socket-activate", f"--listen=127.0.0.1:{port}", "--fdname=main-campus",
         sys.executable, "-P", "-m", "engine", "run"],
        cwd=site.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:  # the daemon is only started by this connection; it waits in the socket's queue meanwhile
            try:
                raw = socket.create_connection(("127.0.0.1", port), timeout=60)
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        with raw:
            answer = Sender(raw).exchange(
                "MSH|^~\\&|A|B|C|D|20260301120000||ADT^A28^ADT_A05|1|P|2.5.1\r"
                "EVN|A28|20260301120000\rPID|1||77^^^MRN^MR\r"
            )
        assert b"MSA|AA|1" in answer
        deadline = time.monotonic() + 60
        while (done := site.run("status", "--json", code=None)).returncode:  # it answers before its start is at its end
            assert time.monotonic() < deadline, done.stderr
        status = json.loads(done.stdout)
        assert [(c["name"], c["port"]) for c in status["channels"]] == [("main-campus", port)]
    finally:
        process.terminate()
        assert process.wait(60) == 0
