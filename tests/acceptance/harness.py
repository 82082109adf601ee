"""Real processes: a site in a temporary folder, the daemon run by its command, senders on plain sockets."""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import forked
from old_messages import plans_old_discharges

START_SECONDS_MAX = 120
STOP_SECONDS_MAX = 120
COMMAND_SECONDS_MAX = 600


@functools.cache
def _commands(environment: frozenset[tuple[str, str]]) -> forked.Commands:
    """The one of this test process for what is read at the start; it ends with it."""
    commands = forked.Commands(dict(environment))
    atexit.register(commands.close)
    return commands


def forking(site: Site, environment: Mapping[str, str]) -> forked.Commands | None:
    """What starts a command of this site in this environment quickly; none: it has to be started anew."""
    if site.prefix or not forked.possible:
        return None
    return _commands(frozenset(forked.read_at_start(environment).items()))


class Site:
    """A site's folder and the commands run in it. `prefix` is put before every command (`nsenter ...`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.yaml"
        self.prefix: Sequence[str] = ()

    def edit(self, file: str, *changes: tuple[str, str]) -> None:
        """Replace texts (regular expressions) in a file of the site; each must be there."""
        path = self.folder / file
        text = path.read_text()
        for pattern, replacement in changes:
            text, count = re.subn(pattern, replacement, text)
            assert count, f"{pattern!r} is not in {file}"
        path.write_text(text)

    def run(self, *arguments: str, code: int | None = 0, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run `handoff ...`; the exit code must be `code` (None: any)."""
        environment = {name: value for name, value in os.environ.items() if name != "HANDOFF_CONFIG"}
        commands = forking(self, environment)
        if commands is not None:
            done = commands.run(
                arguments, cwd=self.folder, environment=environment, stdin=stdin, seconds_max=COMMAND_SECONDS_MAX
            )
        else:
            done = subprocess.run(
                [*self.prefix, sys.executable, "-P", "-m", "engine", *arguments],
                cwd=self.folder,
                env=environment,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS_MAX,
                check=False,
            )
        assert code is None or done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str, code: int | None = 0) -> Any:
        """Run `handoff ... --json`; stdout must be exactly one JSON document."""
        return json.loads(self.run(*arguments, "--json", code=code).stdout)


def eventually(found: Callable[[], Any], seconds: float = 60) -> Any:
    """What is found, once there is something."""
    until = time.monotonic() + seconds
    while not (one := found()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return one


def new_site(folder: Path) -> Site:
    """A new site on free ports."""
    folder.mkdir()
    site = Site(folder)
    site.run("init", ".")
    plans_old_discharges(folder)
    site.edit("config.yaml", (r"port: 8080", "port: 0"))
    site.edit("channels/main-campus.yaml", (r"port: 2575", "port: 0"))
    return site


class Daemon:
    """`handoff run` as a process of its own. environment: variables that it gets besides."""

    def __init__(self, site: Site, environment: Mapping[str, str] | None = None) -> None:
        self.site = site
        self._environment = {**os.environ, **(environment or {})}
        self.log = site.folder / "daemon.log"
        self.process: subprocess.Popen[bytes] | forked.Running | None = None
        self.status: dict[str, Any] = {}

    def start(self) -> Daemon:
        with self.log.open("ab") as log:
            before = log.tell()
            commands = forking(self.site, self._environment)
            if commands is None:
                self.process = subprocess.Popen(
                    [*self.site.prefix, sys.executable, "-P", "-m", "engine", "run"],
                    cwd=self.site.folder,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            else:
                with Path(os.devnull).open("rb") as nothing:
                    self.process = commands.start(
                        ["run"],
                        cwd=self.site.folder,
                        environment=self._environment,
                        standard=[nothing.fileno(), log.fileno(), log.fileno()],
                    )
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the daemon ended: {self.log.read_text()[-4000:]}"
            if b"Handoff is running." in self.log.read_bytes()[before:]:
                self.status = self.site.json("status", code=None)
                assert (self.status["pid"], self.status["state"]) == (self.process.pid, "running")
                return self
            time.sleep(0.05)
        raise AssertionError(f"the daemon did not come up: {self.log.read_text()[-4000:]}")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def workers(self) -> list[int]:
        """The processes of its workers; those of a daemon that was forked have one in between."""
        own = _children(self.pid)
        if isinstance(self.process, forked.Running):
            return [worker for forker in own for worker in _children(forker)]
        return own

    def port(self, channel: str = "main-campus") -> int:
        return next(item["port"] for item in self.status["channels"] if item["name"] == channel)

    @property
    def console(self) -> str:
        return f"http://{self.status['console']['host']}:{self.status['console']['port']}"

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS_MAX)

    def kill(self) -> None:
        """SIGKILL, as the power would do it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @contextmanager
    def connection(self, channel: str = "main-campus") -> Iterator[Sender]:
        with socket.create_connection(("127.0.0.1", self.port(channel)), timeout=30) as raw:
            yield Sender(raw)

    def send(self, *messages: bytes | str, channel: str = "main-campus") -> list[bytes]:
        """Send messages one after the other on a new connection; their answers."""
        with self.connection(channel) as sender:
            return [sender.exchange(message) for message in messages]

    def settled(self, *, seconds: float = 60) -> list[dict[str, Any]]:
        """The ledger, once nothing is waiting any more: no entry for processing, no delivery, no call of a page."""
        deadline = time.monotonic() + seconds
        while True:
            ledger: list[dict[str, Any]] = json.loads(self.site.run("ledger", "--json", code=None).stdout)
            if not any(row["pending"] or row["deliveries"]["pending"] for row in ledger) and self._is_quiet():
                return ledger
            assert time.monotonic() < deadline, ledger
            time.sleep(0.4)

    def _is_quiet(self) -> bool:
        """No deadline is over, and of each call of a page it is known what became of it."""
        status = json.loads(self.site.run("status", "--json", code=None).stdout)
        if status["clock"]["due"]:
            return False
        pages = json.loads(self.site.run("pages", "list", "--json").stdout)
        return not any(step["result"] == "queued" for page in pages for step in page["steps"])


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class MakeDaemon(Protocol):
    """The fixture `make_daemon`."""

    def __call__(self, site: Site, environment: Mapping[str, str] | None = None) -> Daemon: ...


class Sender:
    """A stop-and-wait MLLP sender that owes nothing to the code under test."""

    def __init__(self, raw: socket.socket) -> None:
        self.socket = raw
        self._left = b""

    def exchange(self, message: bytes | str) -> bytes:
        self.write(message)
        return self.read()

    def write(self, message: bytes | str) -> None:
        payload = message.encode() if isinstance(message, str) else message
        self.socket.sendall(b"\x0b" + payload + b"\x1c\r")

    def read(self) -> bytes:
        while b"\x1c\r" not in self._left:
            chunk = self.socket.recv(65536)
            if not chunk:
                raise ConnectionError("closed before the answer came")
            self._left += chunk
        frame, self._left = self._left.split(b"\x1c\r", 1)
        assert frame.startswith(b"\x0b")
        return frame[1:]
