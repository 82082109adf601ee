"""Commands, daemons and workers as processes of their own that need not import the engine anew: one that has it forks.

The tests here start more than a thousand, and half a second each was most of what they took. Where one has to be
started as a shell would start it (in a namespace, with a preloaded library), it is: see `harness`. The workers of a
daemon that was forked are forked too (`Workers`); those of one that was started as a shell does are started as it does.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_REQUEST_BYTES_MAX: Final = 1 << 17
_IMPORTED_LATER: Final = (
    "alembic.command", "alembic.config", "phonenumbers", "sqlalchemy.dialects.postgresql",
    "sqlalchemy.dialects.sqlite.pysqlite", "structlog.dev",
)  # fmt: skip
"""What is imported only when it is needed, and nearly every command or daemon needs it."""
_READ_AT_START: Final = ("PYTHON", "LC_", "LANG", "LD_")
"""What an interpreter takes from these variables it takes when it starts."""


def read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """What processes must have in common that are forked from one."""
    return {name: value for name, value in environment.items() if name.startswith(_READ_AT_START)}


possible: Final = hasattr(socket, "SOCK_SEQPACKET") and sys.platform.startswith("linux")


class Commands:
    """The process that forks. It ends with its owner: when the socket is closed. environment: see `read_at_start`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-P", __file__, str(theirs.fileno())]
        others = {name: value for name, value in os.environ.items() if not name.startswith(_READ_AT_START)}
        self._process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env={**others, **environment}
        )
        theirs.close()

    def start(
        self, arguments: Sequence[str], *, cwd: Path, environment: Mapping[str, str], standard: Sequence[int]
    ) -> Running:
        """Start `handoff ...`. standard: the descriptors of its input, output and errors."""
        reading, writing = os.pipe()
        try:
            request = json.dumps({"arguments": list(arguments), "cwd": str(cwd), "environment": dict(environment)})
            fds = array.array("i", [*standard, writing])
            self._socket.sendmsg([request.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        finally:
            os.close(writing)
        return Running(arguments, reading)

    def run(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        stdin: str | None,
        seconds_max: float,
    ) -> subprocess.CompletedProcess[str]:
        """Run `handoff ...` and wait for its end. Raises subprocess.TimeoutExpired."""
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write((stdin or "").encode())
            given.seek(0)
            standard = [file.fileno() for file in (given, out, err)]
            running = self.start(arguments, cwd=cwd, environment=environment, standard=standard)
            try:
                code = running.wait(seconds_max)
            except subprocess.TimeoutExpired:
                running.kill()
                raise
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(list(arguments), code, out.read().decode(), err.read().decode())

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


class Running:
    """A command that runs, as `subprocess.Popen` would have it."""

    def __init__(self, arguments: Sequence[str], reading: int) -> None:
        self.returncode: int | None = None
        self._arguments = list(arguments)
        self._reading = reading
        self._said = b""
        while b"\n" not in self._said:
            self._said += os.read(reading, 64)  # the keeper says its process id first
        self.pid = int(self._said.split(b"\n")[0])

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, negative when a signal ended it. Raises subprocess.TimeoutExpired."""
        while self.returncode is None:
            if not select.select([self._reading], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self._arguments, timeout or 0.0)
            chunk = os.read(self._reading, 64)
            self._said += chunk
            if not chunk:
                self.returncode = int(self._said.split(b"\n")[1])
                os.close(self._reading)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Workers:
    """The workers of the daemon in this process: stands where it starts them. `pid` is the process that forks them,
    between the two: it dies with the daemon, and they with it, by the kernel.
    """

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self.pid = pid
        self._socket = sock

    @classmethod
    def imported(cls) -> tuple[Workers, subprocess.Popen[bytes]]:
        """For a daemon in a process that is more than that: another one imports the engine first."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-P", __file__, str(theirs.fileno()), "workers"]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        return cls(ours, process.pid), process

    @classmethod
    def forked(cls) -> Workers:
        """For a daemon that is about to start in this process, which has nothing but the engine in it."""
        daemon = os.getpid()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            from engine.runtime.worker import die_with_parent

            ours.close()
            die_with_parent(daemon)
            os.setsid()  # Ctrl-C is for the daemon
            _serve_workers(theirs)
            os._exit(0)
        theirs.close()
        return cls(ours, pid)

    def install(self) -> None:
        """From here on the daemon's workers are forked; whatever else it starts is started."""
        self._otherwise = asyncio.create_subprocess_exec
        asyncio.create_subprocess_exec = self._start  # type: ignore[assignment]

    def uninstall(self) -> None:
        asyncio.create_subprocess_exec = self._otherwise

    def alive(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def close(self) -> None:
        self._socket.close()

    async def _start(self, program: str, *arguments: str, **more: Any) -> Any:
        if arguments[:4] != ("-P", "-m", "engine", "worker") or program != sys.executable:
            return await self._otherwise(program, *arguments, **more)
        reading, writing = os.pipe()
        try:
            request = json.dumps({"arguments": arguments[3:], "environment": dict(more["env"])})
            fds = array.array("i", [1, 2, writing, *more["pass_fds"]])
            self._socket.sendmsg([request.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        finally:
            os.close(writing)
        return _RunningWorker(reading)


class _RunningWorker:
    """A worker that runs, as `asyncio.subprocess.Process` would have it."""

    def __init__(self, reading: int) -> None:
        self.returncode: int | None = None
        self._reading = reading
        self._ended = asyncio.Event()
        pid, _, self._said = os.read(reading, 64).partition(b"\n")
        self.pid = int(pid)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(reading, self._end)

    def _end(self) -> None:
        said = os.read(self._reading, 64)
        self._said += said
        if not said:
            self._loop.remove_reader(self._reading)
            os.close(self._reading)
            self.returncode = int(self._said)
            self._ended.set()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


# --- the processes that fork -----------------------------------------------------------------------------------------


def _import_engine() -> None:
    import engine

    for module in pkgutil.walk_packages(engine.__path__, "engine."):
        if not module.name.endswith("__main__") and ".migrations." not in module.name:
            importlib.import_module(module.name)
    for name in _IMPORTED_LATER:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    # A daemon that looks through all it has loaded would make a copy of all that it shares with this process.
    gc.unfreeze = lambda: None


def _serve(sock: socket.socket) -> None:
    _import_engine()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        request, fds, _, _ = socket.recv_fds(sock, _REQUEST_BYTES_MAX, 4)
        if not request:
            return
        if os.fork() == 0:
            sock.close()
            _keep(json.loads(request), fds)
        for fd in fds:
            os.close(fd)


def _keep(request: dict[str, object], fds: list[int]) -> None:
    """Run the command in a child, and say what came of it. The child returns to the end of this file."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *standard, reply = fds
    child = os.fork()
    if child == 0:
        os.close(reply)
        _become(request, standard)
    os.write(reply, b"%d\n" % child)
    os.write(reply, b"%d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(0)


def _serve_workers(sock: socket.socket) -> None:
    """The workers are children of this process, and so die with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies: dict[int, int] = {}

    def reap(*_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                reply = replies.pop(ended[0])
                with contextlib.suppress(BrokenPipeError):
                    os.write(reply, b"%d" % os.waitstatus_to_exitcode(ended[1]))
                os.close(reply)

    signal.signal(signal.SIGCHLD, reap)
    while True:
        request, fds, _, _ = socket.recv_fds(sock, _REQUEST_BYTES_MAX, 4)
        if not request:
            return
        out, err, reply, pipe = fds
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # until it is known whose end that would be
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            for fd in (sock.detach(), reply, *replies.values()):
                os.close(fd)
            os.setsid()
            asked = json.loads(request)
            asked["arguments"] = ["worker", "--fd", str(pipe), "--parent", str(parent)]
            _become(asked, [os.open(os.devnull, os.O_RDONLY), out, err])
            os._exit(0)
        replies[child] = reply
        os.write(reply, b"%d\n" % child)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        for fd in (out, err, pipe):
            os.close(fd)


def _become(request: dict[str, Any], standard: list[int]) -> None:
    for place, fd in enumerate(standard):
        os.dup2(fd, place)
        os.close(fd)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as the interpreter opens them
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    time.tzset()
    os.chdir(request.get("cwd", "."))
    if request["arguments"] == ["run"]:
        _read_environment()
        Workers.forked().install()
    import engine.__main__

    sys.argv = [str(engine.__main__.__file__), *request["arguments"]]
    engine.__main__.main()


def _read_environment() -> None:
    """What tests have put into the process that forks looks for its orders again: a preloaded library (see
    `faults/machine.c`), a `sitecustomize` (see `acceptance/crashing`).
    """
    with contextlib.suppress(AttributeError):  # no such library
        ctypes.CDLL(None).read_environment()
    if "sitecustomize" in sys.modules:
        importlib.reload(sys.modules["sitecustomize"])


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as theirs:
        if sys.argv[2:] == ["workers"]:
            _import_engine()
            _serve_workers(theirs)
        else:
            _serve(theirs)
