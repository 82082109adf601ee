"""What systemd hands over and is told; over real sockets."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from engine.runtime.notify import Systemd, activated_sockets


def test_without_a_service_manager_nothing_is_said() -> None:
    systemd = Systemd({})
    systemd.ready("1 channel(s)")
    systemd.stopping()
    assert systemd.watchdog_seconds is None


def test_readiness_is_told_with_a_status(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        Systemd({"NOTIFY_SOCKET": str(tmp_path / "notify")}).ready("2 channel(s)")
        assert manager.recv(1000) == b"READY=1\nSTATUS=2 channel(s)"


def test_a_socket_in_the_abstract_namespace_is_reached() -> None:
    name = f"handoff-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        Systemd({"NOTIFY_SOCKET": "@" + name}).alive()
        assert manager.recv(1000) == b"WATCHDOG=1"


def test_a_reload_is_announced_with_its_time(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        Systemd({"NOTIFY_SOCKET": str(tmp_path / "notify")}).reloading()
        first, second = manager.recv(1000).decode().split("\n")
    assert first == "RELOADING=1"
    assert int(second.removeprefix("MONOTONIC_USEC=")) > 0


def test_a_manager_that_is_gone_takes_nothing_down(tmp_path: Path) -> None:
    Systemd({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("x")


def test_the_watchdog_is_told_twice_in_its_time_and_only_by_the_process_it_watches() -> None:
    assert Systemd({"WATCHDOG_USEC": "30000000"}).watchdog_seconds == 15
    assert Systemd({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}).watchdog_seconds == 15
    assert Systemd({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}).watchdog_seconds is None


def test_a_watchdog_without_a_limit_is_none() -> None:
    assert Systemd({"WATCHDOG_USEC": "0"}).watchdog_seconds is None


def test_a_child_never_speaks_for_the_daemon() -> None:
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "LISTEN_PID": "1", "LISTEN_FDS": "1",
               "LISTEN_FDNAMES": "a", "PATH": "/bin"}  # fmt: skip
    Systemd(environ)
    activated_sockets(environ)
    assert environ == {"PATH": "/bin"}


def test_sockets_for_another_process_are_not_taken() -> None:
    assert activated_sockets({"LISTEN_PID": "1", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:c"}) == {}


def test_sockets_are_found_by_name_and_the_second_of_a_name_is_closed() -> None:
    program = """
import json, os, socket
found = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
ports = [sock.getsockname()[1] for sock in found]
handles = [sock.detach() for sock in found]
for number, handle in enumerate([os.dup2(handle, 40 + number) for number, handle in enumerate(handles)]):
    os.dup2(handle, 3 + number)
from engine.runtime.notify import activated_sockets
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="3", LISTEN_FDNAMES="east:west:east")
given = activated_sockets()
got = {name: sock.getsockname()[1] for name, sock in given.items()}
print(json.dumps([ports, got, os.get_inheritable(3)]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    ports, got, inheritable = json.loads(done.stdout)
    assert got == {"east": ports[0], "west": ports[1]}
    assert inheritable is False
