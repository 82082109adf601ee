"""The daemon in this process, with its real worker: reload all or nothing, readiness, HTTP, what systemd is told."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import forked
import msgspec
import pytest
from hostile_files import KINDS, RAW, TEXTS
from peers.mllp_receiver import MllpReceiver
from peers.ports import free_port
from peers.postgres_server import PostgresServer
from sqlcipher3 import dbapi2 as sqlite_driver
from test_intake_store_failure import full_disk
from wire import Sender, adt, code, eventually

from engine import bootstrap
from engine.clock import SystemClock
from engine.connectors.registry import load
from engine.errors import HandoffError
from engine.runtime import daemon as daemon_module
from engine.runtime import health
from engine.runtime.configurations import compile_site
from engine.runtime.daemon import Daemon
from engine.runtime.metrics import REPEATS_TROUBLE
from engine.runtime.notify import Systemd
from engine.runtime.status import DaemonRunningError, ReloadResult, Status, request_reload, running_status
from engine.settings import Configuration
from engine.snapshot import Snapshot
from engine.store.counts import pending

one_loop = pytest.mark.asyncio(loop_factories=["uvloop"])
"""For what does not depend on the event loop."""
SHIPPED = Path(__file__).parents[3]


class Folder:
    """A site's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        shutil.copytree(SHIPPED / "mappings", path / "mappings")
        (path / "channels").mkdir()
        (path / "var").mkdir()
        self.site()
        self.channel("east")

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    def site(self, **more: str) -> None:
        keys = {"node": "n1", "console": "{host: 127.0.0.1, port: 0}", "shutdown_seconds_max": "5.0", **more}
        self.config.write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))

    def channel(self, name: str, port: int = 0, *more: str, **listen: Any) -> None:
        places = ", ".join([f"port: {port}", *(f"{key}: {value}" for key, value in listen.items())])
        lines = [f"name: {name}", f"listen: {{{places}}}", "timezone: America/New_York", "mapping: adt", *more]
        (self.path / "channels" / f"{name}.yaml").write_text("\n".join(lines) + "\n")

    def drop(self, name: str) -> None:
        (self.path / "channels" / f"{name}.yaml").unlink()

    def load(self) -> Configuration:
        configuration = load(Snapshot.read(self.config))
        compile_site(configuration, bootstrap.open_keys(configuration))
        return configuration


@pytest.fixture
def folder(tmp_path: Path, sqlite_template: Path) -> Folder:
    from engine.store.keys import KeyRing

    folder = Folder(tmp_path / "site")
    KeyRing.create(folder.path / "var" / "keys.json")
    for file in sqlite_template.iterdir():
        shutil.copy(file, folder.path / "var" / file.name)
    return folder


def make(
    folder: Folder, environ: dict[str, str] | None = None, sockets: dict[str, socket.socket] | None = None
) -> Daemon:
    configuration = folder.load()
    return Daemon(
        configuration,
        bootstrap.open_store(configuration, "main"),
        SystemClock(),
        "0",
        load=folder.load,
        systemd=Systemd(environ or {}),
        sockets=sockets or {},
    )


StartDaemon = Callable[..., Awaitable[Daemon]]


@pytest.fixture
async def start(folder: Folder) -> AsyncIterator[StartDaemon]:
    daemons: list[Daemon] = []

    async def begin(environ: dict[str, str] | None = None, **sockets: socket.socket) -> Daemon:
        daemon = make(folder, environ, sockets)
        daemons.append(daemon)
        try:
            await daemon.start()
        except HandoffError:
            await daemon.stop()
            raise
        return daemon

    yield begin
    for daemon in daemons:
        await daemon.stop()


def port(daemon: Daemon, name: str = "east") -> int:
    return next(channel.port for channel in daemon.status().channels if channel.name == name)


def names(daemon: Daemon) -> list[str]:
    return [channel.name for channel in daemon.status().channels]


async def ready(daemon: Daemon) -> None:
    await eventually(daemon.metrics.worker_up)


@pytest.fixture(scope="session")
def forking() -> Iterator[forked.Workers]:
    workers, process = forked.Workers.imported()
    yield workers
    workers.close()
    process.wait()


@pytest.fixture(autouse=True)
def workers(forking: forked.Workers) -> Iterator[forked.Workers]:
    """Workers are forked from a process that has the engine, and otherwise as they are."""
    forking.install()
    yield forking
    forking.uninstall()


async def get(daemon: Daemon, path: str, **more: Any) -> tuple[int, Any]:
    console = daemon.status().console
    assert console is not None
    async with aiohttp.ClientSession() as session:
        method = more.pop("method", "GET")
        async with session.request(method, f"http://127.0.0.1:{console.port}{path}", **more) as answer:
            body = await answer.read()
            return answer.status, (await answer.json() if answer.content_type == "application/json" else body.decode())


# --- reload ----------------------------------------------------------------------------------------------------------


async def test_a_reload_changes_a_channel_under_its_open_connections(folder: Folder, start: StartDaemon) -> None:
    daemon = await start()
    await ready(daemon)
    sender = await Sender.to(port(daemon))
    assert code(await sender.exchange(adt("1"))) == "AA"
    folder.channel("east", 0, "accept: {types: [ORU^R01]}", idle_seconds_max=7.0)
    result = await daemon.try_reload()
    assert result.ok
    assert result.config_version == daemon.status().config_version
    assert code(await sender.exchange(adt("2"))) == "AR"
    sender.abort()


async def test_a_reload_leaves_destinations_alone_that_did_not_change(folder: Folder, start: StartDaemon) -> None:
    """One keeps its connection through two reloads; one whose settings change gets another."""
    async with MllpReceiver() as lab, MllpReceiver() as ris:

        def site(ris_timeout: str = "20") -> None:
            folder.site(
                destinations=f"{{lab: {{type: mllp, host: 127.0.0.1, port: {lab.port}, timeout_seconds: 2}},"
                f" ris: {{type: mllp, host: 127.0.0.1, port: {ris.port}, timeout_seconds: {ris_timeout}}}}}",
                shutdown_seconds_max="60.0",
            )

        site()
        folder.channel("east", 0, "deliver: [{to: lab, what: [message]}, {to: ris, what: [message]}]")
        daemon = await start()
        await ready(daemon)
        sender = await Sender.to(port(daemon))
        for number in range(1, 4):
            assert code(await sender.exchange(adt(str(number)))) == "AA"
            await eventually(lambda expected=number: len(lab.received) == len(ris.received) == expected)
            site(f"{20 + number}")
            folder.channel("west", free_port(), f"senders: [A{number}]")
            assert (await daemon.try_reload()).ok
        assert (lab.connections, ris.connections) == (1, 3)
        sender.abort()


async def test_a_reload_opens_new_channels_and_closes_removed_ones(folder: Folder, start: StartDaemon) -> None:
    daemon = await start()
    await ready(daemon)
    old_port = port(daemon)
    old = await Sender.to(old_port)
    await old.exchange(adt("1"))
    folder.channel("west")
    folder.drop("east")
    assert (await daemon.try_reload()).ok
    assert names(daemon) == ["west"]
    assert await old.closed()
    with pytest.raises(ConnectionError):
        await Sender.to(old_port)
    new = await Sender.to(port(daemon, "west"))
    assert code(await new.exchange(adt("2"))) == "AA"
    new.abort()


async def test_a_channel_with_connections_is_taken_away_only_with_the_word_for_it(
    folder: Folder, start: StartDaemon
) -> None:
    daemon = await start()
    await ready(daemon)
    old = await Sender.to(port(daemon))
    await old.exchange(adt("1"))
    folder.channel("west")
    folder.drop("east")
    refused, answer = await get(daemon, "/api/v1/reload", method="POST", json={})
    assert (refused, "1 connection); `handoff reload --allow-remove`" in answer["problems"][0]) == (409, True)
    assert [(one["change"], one["what"], one["name"]) for one in answer["changes"]] == [
        ("removed", "channel", "east"),
        ("added", "channel", "west"),
    ]
    assert code(await old.exchange(adt("2"))) == "AA"
    taken, answer = await get(daemon, "/api/v1/reload", method="POST", json={"allow_remove": True})
    assert (taken, names(daemon)) == (200, ["west"])
    last = daemon.status().last_reload
    assert last is not None
    assert [str(change).partition(" (")[0] for change in last.changes] == ["- channel east", "+ channel west"]
    assert await old.closed()


async def test_no_file_of_a_configuration_stops_or_fills_a_running_daemon(folder: Folder, start: StartDaemon) -> None:
    daemon = await start()
    await ready(daemon)
    sender = await Sender.to(port(daemon))
    x = folder.path / "channels/x.yaml"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    makers: list[Callable[[Path], object]] = [
        *(lambda path, text=text: path.write_text(text) for text in TEXTS.values()),
        *(lambda path, raw=raw: path.write_bytes(raw) for raw in RAW.values()),
        *KINDS.values(),
    ]
    for number, make_x in enumerate(makers):
        make_x(x)
        began = time.monotonic()
        assert not (await daemon.try_reload()).ok
        assert time.monotonic() - began < 10
        assert code(await sender.exchange(adt(f"m{number}"))) == "AA"
        x.rmdir() if x.is_dir() and not x.is_symlink() else x.unlink()
        (x.parent / ".pipe").unlink(missing_ok=True)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 300 << 10
    assert (await daemon.try_reload()).ok
    sender.abort()


async def test_a_reload_that_takes_too_long_fails_and_lets_go(
    folder: Folder, start: StartDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = await start()
    await ready(daemon)
    hangs = threading.Event()
    monkeypatch.setattr("engine.runtime.daemon.RELOAD_SECONDS_MAX", 0.1)
    quick, daemon._load = daemon._load, lambda: hangs.wait() and folder.load()
    result = await daemon.try_reload()
    assert (result.ok, "takes too long" in result.problems[0]) == (False, True)
    monkeypatch.setattr("engine.runtime.daemon.RELOAD_SECONDS_MAX", 45.0)
    daemon._load = quick
    assert (await daemon.try_reload()).ok
    hangs.set()


async def test_a_channel_that_moves_answers_at_its_new_port(folder: Folder, start: StartDaemon) -> None:
    daemon = await start()
    await ready(daemon)
    old = await Sender.to(port(daemon))
    await old.exchange(adt("1"))
    there = free_port()
    folder.channel("east", there)
    assert (await daemon.try_reload()).ok
    assert port(daemon) == there
    new = await Sender.to(there)
    assert code(await new.exchange(adt("2"))) == "AA"
    assert await old.closed()
    new.abort()


async def test_a_port_that_changes_its_channel_refuses_nobody(folder: Folder, start: StartDaemon) -> None:
    there = free_port()
    folder.channel("east", there)
    daemon = await start()
    await ready(daemon)
    folder.drop("east")
    folder.channel("west", there)
    refused = 0
    reloading = asyncio.create_task(daemon.try_reload())
    while not reloading.done():
        try:
            (await Sender.to(there)).abort()
        except ConnectionRefusedError:
            refused += 1
        await asyncio.sleep(0.005)
    assert (await reloading).ok
    assert refused == 0
    sender = await Sender.to(there)
    assert code(await sender.exchange(adt("1"))) == "AA"
    assert names(daemon) == ["west"]
    sender.abort()


def in_force(daemon: Daemon) -> dict[str, object]:
    """What a refused reload must leave as it was."""
    status = daemon.status()
    kept = ("state", "ready", "channels", "console", "destinations", "config_version", "config_loaded_at")
    found = {name: getattr(status, name) for name in kept}
    found["channels"] = [
        msgspec.structs.replace(channel, per_minute=None) for channel in status.channels
    ]  # measured meanwhile
    return found


async def test_a_configuration_that_is_wrong_anywhere_changes_nothing(folder: Folder, start: StartDaemon) -> None:
    daemon = await start()
    await ready(daemon)
    before = in_force(daemon)
    folder.channel("west")
    folder.channel("east", 0, "no_such_key: 1")
    result = await daemon.try_reload()
    assert not result.ok
    assert any(problem.startswith("channels/east.yaml:") and "no_such_key" in problem for problem in result.problems)
    assert in_force(daemon) == before


async def test_a_port_that_is_taken_by_another_program_changes_nothing(folder: Folder, start: StartDaemon) -> None:
    daemon = await start()
    await ready(daemon)
    before = in_force(daemon)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        folder.channel("west", taken.getsockname()[1])
        folder.channel("east", 0, "mode: paused")
        result = await daemon.try_reload()
    assert not result.ok
    assert "channel west" in result.problems[0]
    assert in_force(daemon) == before


async def test_certificates_that_cannot_be_read_change_nothing(folder: Folder, start: StartDaemon) -> None:
    daemon = await start()
    await ready(daemon)
    before = in_force(daemon)
    folder.channel("west", 0, tls="{cert: none.pem, key: none.key}")
    result = await daemon.try_reload()
    assert not result.ok
    assert "channel west" in result.problems[0]
    assert in_force(daemon) == before


async def test_settings_for_the_life_of_a_process_are_refused_by_a_reload(folder: Folder, start: StartDaemon) -> None:
    daemon = await start()
    await ready(daemon)
    folder.site(node="n2")
    result = await daemon.try_reload()
    assert not result.ok
    assert result.problems[0].startswith("config.yaml:1:")
    assert "restart" in result.problems[0]


async def test_a_worker_that_refuses_the_configuration_leaves_removed_channels_open(
    folder: Folder, start: StartDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = await start()
    await ready(daemon)
    old_port = port(daemon)
    folder.drop("east")
    folder.channel("west")

    async def refuse(_: Snapshot) -> bool:
        return False

    monkeypatch.setattr(daemon._workers, "reload", refuse)
    result = await daemon.try_reload()
    assert not result.ok
    assert names(daemon) == ["east"]
    assert port(daemon) == old_port
    sender = await Sender.to(old_port)
    assert code(await sender.exchange(adt("1"))) == "AA"
    sender.abort()


# --- standing --------------------------------------------------------------------------------------------------------


async def test_the_status_file_leads_to_the_daemon_and_goes_with_it(folder: Folder, start: StartDaemon) -> None:
    daemon = await start()
    sender = await Sender.to(port(daemon))
    await sender.exchange(adt("1"))
    status = await asyncio.to_thread(running_status, folder.load())
    assert status is not None
    assert (status.node, status.state, status.pid) == ("n1", "running", os.getpid())
    assert [(channel.name, channel.connections) for channel in status.channels] == [("east", 1)]
    sender.abort()
    await daemon.stop()
    assert running_status(folder.load()) is None
    assert not (folder.path / "var" / "handoff.status.json").exists()


async def test_a_second_daemon_on_the_same_store_does_not_start(start: StartDaemon) -> None:
    await start()
    with pytest.raises(DaemonRunningError):
        await start()


async def test_a_port_that_is_taken_is_a_reason_not_to_start_and_leaves_nothing_open(
    folder: Folder, start: StartDaemon
) -> None:
    other = free_port()
    folder.channel("aaa", other)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        folder.channel("west", taken.getsockname()[1])
        with pytest.raises(HandoffError, match="channel west"):
            await start()
    with pytest.raises(ConnectionError):
        await Sender.to(other)


async def test_ready_means_that_the_store_can_be_written(start: StartDaemon) -> None:
    daemon = await start()
    await ready(daemon)
    assert await get(daemon, "/readyz") == (200, {"ready": True, "trouble": []})
    sender = await Sender.to(port(daemon))
    with full_disk():
        assert code(await sender.exchange(adt("1"))) == "AR"
        assert await get(daemon, "/readyz") == (503, {"ready": False, "trouble": ["store-not-writable"]})
        assert (await get(daemon, "/healthz"))[0] == 200
    await eventually(lambda: daemon.status().ready)
    sender.abort()


async def test_a_worker_that_keeps_dying_is_trouble_but_messages_are_still_taken(start: StartDaemon) -> None:
    daemon = await start()
    for _ in range(3):
        await ready(daemon)
        pid = daemon._workers._each[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not daemon.metrics.worker_up())
    assert await get(daemon, "/readyz") == (200, {"ready": True, "trouble": ["worker-keeps-dying"]})
    assert "handoff_worker_restarts_total 3.0" in (await get(daemon, "/metrics"))[1]


async def test_the_processing_of_a_stored_message_reaches_metrics(start: StartDaemon) -> None:
    daemon = await start()
    sender = await Sender.to(port(daemon))
    await sender.exchange(adt("1"))
    counted = 'handoff_entries_processed_total{channel="east",state="processed"} 1.0'
    async with asyncio.timeout(60):
        while counted not in (await get(daemon, "/metrics"))[1]:
            await asyncio.sleep(0.1)
    text = (await get(daemon, "/metrics"))[1]
    assert 'handoff_messages_received_total{channel="east",event="A01"} 1.0' in text
    assert "558181838" not in text
    sender.abort()


async def test_an_answer_after_processing_comes_from_the_real_worker(folder: Folder, start: StartDaemon) -> None:
    folder.channel("east", 0, "ack: {when: processed}")
    daemon = await start()
    sender = await Sender.to(port(daemon))
    assert code(await sender.exchange(adt("1"))) == "AA"
    failed = await sender.exchange(adt("2", pid=""))
    assert code(failed) == "AE"
    assert b"558181838" not in failed
    sender.abort()


async def test_a_message_that_the_filter_drops_is_answered_aa(folder: Folder, start: StartDaemon) -> None:
    """Section 2: filtered by the channel is accepted, a filter is no sender's error."""
    folder.channel("east", 0, "filter: \"PV1-2 == 'E'\"", "ack: {when: processed}")
    daemon = await start()
    sender = await Sender.to(port(daemon))
    assert code(await sender.exchange(adt("1"))) == "AA"
    sender.abort()


async def test_what_other_names_than_loopback_ask_for_is_refused(start: StartDaemon) -> None:
    daemon = await start()
    assert (await get(daemon, "/api/v1/status", headers={"Host": "evil.example"}))[0] == 421
    assert (await get(daemon, "/api/v1/status", headers={"Host": "localhost:1"}))[0] == 200


async def test_a_reload_over_http_needs_a_type_that_no_foreign_page_can_send(start: StartDaemon) -> None:
    daemon = await start()
    await ready(daemon)
    assert (await get(daemon, "/api/v1/reload", method="POST", data="x"))[0] == 415
    status, body = await get(daemon, "/api/v1/reload", method="POST", json={})
    assert (status, body["ok"]) == (200, True)


async def raw(daemon: Daemon, request: str, *, uid: int | None = None) -> tuple[int, str]:
    """The answer to a request as it stands, from a socket of another user: status, and all of it."""
    sock = socket.socket()
    if uid is not None:
        sock.close()
        own = os.geteuid()
        os.seteuid(uid)
        try:
            sock = socket.socket()
        finally:
            os.seteuid(own)
    sock.setblocking(False)
    console = daemon.status().console
    assert console is not None
    await asyncio.get_running_loop().sock_connect(sock, (console.host, console.port))
    reader, writer = await asyncio.open_connection(sock=sock)
    writer.write(request.replace("\n", "\r\n").encode())
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
    length = next(int(line[15:]) for line in head.splitlines() if line.lower().startswith("content-length:"))
    answer = head + (await reader.readexactly(length)).decode()
    writer.close()
    return int(answer.split()[1]), answer


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:80", 200), ("127.0.0.1:9", 200), ("127.9.9.9", 200), ("[::1]:80", 200),
        ("localhost:80@evil", 421), ("[::1]evil", 421), ("[::1]@evil:80", 421), ("localhost@evil", 421),
        ("evil@localhost", 421), ("localhost:evil", 421), ("localhost:", 421), ("localhost.evil", 421), ("", 421),
        ("127.0.0.1.evil", 421), ("2130706433", 421), ("[127.0.0.1", 421), ("localhost, evil", 421),
    ],
)  # fmt: skip
async def test_a_host_that_is_not_just_a_loopback_name_and_a_port_is_refused(
    start: StartDaemon, host: str, status: int
) -> None:
    daemon = await start()
    for version in ("1.0", "1.1"):
        got, answer = await raw(daemon, f"GET /api/v1/status HTTP/{version}\nHost: {host}\n\n")
        assert got == status
        assert "server:" not in answer.lower()


async def test_without_a_host_only_health_answers_and_two_hosts_are_none(start: StartDaemon) -> None:
    daemon = await start()
    assert (await raw(daemon, "GET /api/v1/status HTTP/1.0\n\n"))[0] == 421
    assert (await raw(daemon, "GET /metrics HTTP/1.0\n\n"))[0] == 421
    assert (await raw(daemon, "GET /healthz HTTP/1.0\n\n"))[0] == 200
    assert (await raw(daemon, "GET /healthz HTTP/1.0\nHost: evil\n\n"))[0] == 421
    twice = await raw(daemon, "GET /api/v1/status HTTP/1.1\nHost: localhost\nHost: evil\n\n")
    assert twice[0] in {400, 421}
    for odd in ("GET /nothing HTTP/1.1\nHost: localhost\n\n", "\x00\x16\x03 nonsense\n\n"):
        assert "aiohttp" not in (await raw(daemon, odd))[1]


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ("Origin: http://evil.example\n", "{}", 403),
        ("Origin: null\n", "{}", 403),
        ("Origin: http://localhost:1\n", "{}", 403),
        ("Sec-Fetch-Site: cross-site\n", "{}", 403),
        ("Sec-Fetch-Site: same-site\n", "{}", 403),
        ("", "", 400),
        ("", "x", 400),
        ("", "[]", 400),
        ("", "{} {}", 400),
        ("Origin: http://localhost\nSec-Fetch-Site: same-origin\n", "{}", 200),
    ],
)
async def test_a_reload_needs_a_json_object_from_no_other_site(
    start: StartDaemon, headers: str, body: str, status: int
) -> None:
    daemon = await start()
    await ready(daemon)
    assert (await raw(daemon, reload_request(headers, body)))[0] == status


def reload_request(headers: str = "", body: str = "{}") -> str:
    fixed = f"Host: localhost\nContent-Type: application/json\nContent-Length: {len(body)}\n"
    return f"POST /api/v1/reload HTTP/1.1\n{fixed}{headers}\n{body}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a socket of another user")
async def test_only_the_daemons_own_user_may_reload_over_http(start: StartDaemon) -> None:
    daemon = await start()
    await ready(daemon)
    status, answer = await raw(daemon, reload_request(), uid=65534)
    assert (status, "only the daemon's own user" in answer) == (403, True)
    assert (await raw(daemon, "GET /api/v1/status HTTP/1.1\nHost: localhost\n\n", uid=65534))[0] == 200
    assert (await raw(daemon, reload_request()))[0] == 200


async def test_reloads_over_http_are_limited_and_a_command_still_gets_its_answer(
    start: StartDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_RELOADS_MAX", 2)
    daemon = await start()
    await ready(daemon)
    assert [(await raw(daemon, reload_request()))[0] for _ in range(4)] == [200, 200, 429, 429]


async def test_beyond_loopback_only_health_is_open(folder: Folder, start: StartDaemon) -> None:
    folder.site(console="{host: 0.0.0.0, port: 0}")
    daemon = await start()
    await ready(daemon)
    assert (await get(daemon, "/healthz"))[0] == 200
    assert (await get(daemon, "/readyz"))[0] == 200
    assert [(await get(daemon, path))[0] for path in ("/metrics", "/api/v1/status")] == [403, 403]


async def test_systemd_is_told_when_it_is_ready_alive_reloading_and_stopping(
    start: StartDaemon, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        said: list[str] = []

        def listen() -> None:
            said.append(manager.recv(4096).decode())

        loop = asyncio.get_running_loop()
        loop.add_reader(manager, listen)
        daemon = await start({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"})
        await ready(daemon)
        await eventually(lambda: said.count("WATCHDOG=1") >= 3)
        await daemon.try_reload()
        await daemon.stop()
        await eventually(lambda: "STOPPING=1" in said)
        loop.remove_reader(manager)
    changes = [message.split("\n")[0] for message in said if message != "WATCHDOG=1"]
    assert changes == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


# --- stops and reloads that come at a bad moment ---------------------------------------------------------------------


async def test_a_stop_at_any_moment_of_the_start_leaves_nothing_open(folder: Folder, workers: forked.Workers) -> None:
    there = free_port()
    folder.channel("east", there)
    for pause in (0.0, 0.001, 0.004, 0.016, 0.06):
        daemon = make(folder)
        starting = asyncio.create_task(daemon.start())
        await asyncio.sleep(pause)
        await daemon.stop()
        await asyncio.wait([starting])
        assert daemon.status().state == "stopped"
        with pytest.raises(ConnectionError):
            await Sender.to(there)
        assert not (folder.path / "var" / "handoff.status.json").exists()
    assert workers.alive() == []


@one_loop
async def test_a_stop_before_the_start_has_the_nodes_name_does_not_wait_for_it(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = make(folder)
    monkeypatch.setattr(daemon._store.journal, "claim", lambda _: False)
    starting = asyncio.create_task(daemon.start())
    await asyncio.sleep(0.1)
    await daemon.stop()
    await asyncio.wait([starting])
    assert starting.cancelled()
    assert daemon.status().state == "stopped"


async def test_a_reload_that_is_asked_for_during_the_start_comes_after_it(folder: Folder, start: StartDaemon) -> None:
    starting = asyncio.create_task(start())
    daemon: Daemon | None = None
    while daemon is None:
        await asyncio.sleep(0)
        daemon = next((task.get_coro().cr_frame.f_locals["self"] for task in asyncio.all_tasks()
                       if task.get_coro().__qualname__ == "Daemon._start"), None)  # type: ignore[union-attr]  # fmt: skip
    folder.channel("west")
    for _ in range(20):
        daemon.reload_soon()
    await starting
    await eventually(lambda: names(daemon) == ["east", "west"] and daemon.status().last_reload is not None)
    last = daemon.status().last_reload
    assert last is not None
    assert last.number <= 2, "who asks twenty times is answered once or twice"


SIGNALLED_EARLY = """
import os, signal, sys
from pathlib import Path
import aiorun
from engine import bootstrap
listen = aiorun._set_signal_handlers
def too_early(handler):
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    listen(handler)
aiorun._set_signal_handlers = too_early
sys.exit(bootstrap.run_daemon(Path(sys.argv[2]), announce=lambda status: print(status.state, flush=True)))
"""


def signalled_early(folder: Folder, name: str) -> subprocess.Popen[str]:
    """A daemon that gets a signal before its event loop runs."""
    command = [sys.executable, "-c", SIGNALLED_EARLY, name, str(folder.config)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_word_to_stop_that_comes_before_the_event_loop_runs_is_not_lost(folder: Folder) -> None:
    with signalled_early(folder, "SIGTERM") as process:
        try:
            said, logged = process.communicate(timeout=120)
        finally:
            process.kill()
    assert (process.returncode, said) == (0, "")
    assert "daemon stopped" in logged


def test_a_word_to_reload_that_comes_before_the_event_loop_runs_is_heard_after_the_start(folder: Folder) -> None:
    with signalled_early(folder, "SIGHUP") as process:
        try:
            assert process.stderr is not None
            events = iter(process.stderr.readline, "")
            answer = next((line for line in events if "configuration loaded" in line or "refused" in line), "none")
            assert "configuration loaded" in answer
            process.terminate()
            said, _ = process.communicate(timeout=120)
        finally:
            process.kill()
    assert (process.returncode, said) == (0, "running\n")


async def test_a_stop_during_a_reload_gives_the_reload_up(folder: Folder, start: StartDaemon) -> None:
    daemon = await start()
    await ready(daemon)
    os.kill(daemon._workers._each[0].pid or 0, signal.SIGSTOP)  # the reload waits for it
    there = free_port()
    folder.channel("west", there)
    folder.drop("east")
    reloading = asyncio.create_task(daemon.try_reload())
    await asyncio.sleep(0.3)
    stopping = asyncio.create_task(daemon.stop())
    assert await reloading == ReloadResult(ok=False, problems=("the daemon is stopping",))
    os.kill(daemon._workers._each[0].pid or 0, signal.SIGCONT)
    await stopping
    with pytest.raises(ConnectionError):
        await Sender.to(there)


# --- several workers -------------------------------------------------------------------------------------------------


async def metrics(daemon: Daemon) -> str:
    text: str = (await get(daemon, "/metrics"))[1]
    return text


def total(text: str, name: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


@one_loop
async def test_what_several_workers_count_adds_up_and_what_waits_is_told_by_one(
    folder: Folder, start: StartDaemon
) -> None:
    folder.site(workers="3")
    daemon = await start()
    sender = await Sender.to(port(daemon))
    for number in range(30):
        assert code(await sender.exchange(adt(str(number), pid=f"PID|1||{number}^^^MRN^MR"))) == "AA"
    processed = 'handoff_entries_processed_total{channel="east",state="processed"}'
    async with asyncio.timeout(60):
        while total(await metrics(daemon), processed) < 30:
            await asyncio.sleep(0.1)
    assert total(await metrics(daemon), processed) == 30
    assert len({one.pid for one in daemon._workers._each}) == 3
    await eventually(lambda: daemon.metrics.work is not None and daemon.metrics.work.waiting == 0)
    assert 'handoff_entries_pending{channel="east"} 0.0' in await metrics(daemon)
    os.kill(daemon._workers._each[0].pid or 0, signal.SIGKILL)
    async with asyncio.timeout(60):
        while "handoff_worker_up 0.0" not in (text := await metrics(daemon)):
            await asyncio.sleep(0.01)
    assert "handoff_worker_restarts_total 1.0" in text
    assert "handoff_entries_pending{" not in text, "nobody looks, and an old number is worse than none"
    await ready(daemon)
    sender.abort()


@one_loop
async def test_a_worker_that_hangs_with_the_lock_of_the_charts_holds_up_the_others_until_it_is_killed(
    folder: Folder, start: StartDaemon
) -> None:
    folder.site(workers="2")
    daemon = await start()
    await ready(daemon)
    sender = await Sender.to(port(daemon))
    hanging = daemon._workers._each[1].pid or 0
    sent = 0
    async with asyncio.timeout(120):
        while True:  # until it is caught in the middle of a transaction
            for _ in range(20):
                sent += 1
                assert code(await sender.exchange(adt(str(sent), pid=f"PID|1||{sent}^^^MRN^MR"))) == "AA"
            os.kill(hanging, signal.SIGSTOP)
            if await asyncio.to_thread(charts_are_locked, folder):
                break
            os.kill(hanging, signal.SIGCONT)
    daemon._workers._each[1]._silence_seconds_max = 4.0
    processed = 'handoff_entries_processed_total{channel="east",state="processed"}'
    async with asyncio.timeout(120):
        while "worker-silent" not in daemon.status().trouble:
            await asyncio.sleep(0.02)
        await eventually(lambda: daemon._workers.restarts == 1)
        daemon._workers._each[1]._silence_seconds_max = 30.0  # its successor may take its time to start
        store = bootstrap.open_store(folder.load(), "tool")
        with store:
            while store.read_now(lambda conn: pending(conn, ["east"]))["east"]:
                await asyncio.sleep(0.1)
    assert total(await metrics(daemon), "handoff_worker_restarts_total") == 1
    assert total(await metrics(daemon), processed) <= sent
    sender.abort()


def charts_are_locked(folder: Folder) -> bool:
    """By somebody who does not let go."""
    with sqlite_driver.connect(folder.path / "var" / "handoff.db", timeout=0.3, isolation_level=None) as conn:
        try:
            conn.execute("BEGIN IMMEDIATE")
            conn.execute("ROLLBACK")
        except sqlite_driver.OperationalError:
            return True
        return False


@one_loop
async def test_a_daemon_that_is_killed_takes_its_workers_with_it_and_another_one_starts_at_once(folder: Folder) -> None:
    folder.site(workers="2")
    command = [sys.executable, "-P", "-m", "engine", "run", "--config", str(folder.config)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        status = await asyncio.to_thread(wait_for_status, folder)
        children_of_it = Path(f"/proc/{first.pid}/task/{first.pid}/children")
        await eventually(lambda: len(children_of_it.read_text().split()) == 2)
        workers = [int(pid) for pid in children_of_it.read_text().split()]
    finally:
        first.kill()
    second = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        first.wait()
        again = await asyncio.to_thread(wait_for_status, folder)
        assert (status.pid, again.pid) == (first.pid, second.pid)
        await eventually(lambda: not any(map(alive, workers)))
        sender = await Sender.to(again.channels[0].port)
        assert code(await sender.exchange(adt("1"))) == "AA"
        sender.abort()
    finally:
        second.terminate()
        assert second.wait(60) == 0
        for process in (first, second):
            assert process.stdout is not None
            process.stdout.close()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_status(folder: Folder) -> Status:
    configuration = folder.load()
    until = time.monotonic() + 120
    while time.monotonic() < until:
        status = running_status(configuration)
        if status is not None:
            return status
        time.sleep(0.02)
    raise AssertionError("no daemon runs")


# --- the console ----------------------------------------------------------------------------------------------------


async def test_any_number_of_idle_clients_keeps_nobody_from_asking_whether_we_are_ready(start: StartDaemon) -> None:
    daemon = await start()
    await ready(daemon)
    console = daemon.status().console
    assert console is not None
    idle = []
    for _ in range(3 * health._CONNECTIONS_MAX):
        idle.append(await asyncio.open_connection("127.0.0.1", console.port))
        idle[-1][1].write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")  # and no more
    assert (await get(daemon, "/readyz"))[0] == 200
    assert daemon._http
    assert len(daemon._http[0]._server.connections) <= health._CONNECTIONS_MAX
    for _, writer in idle:
        writer.transport.abort()


async def test_clients_that_never_come_to_an_end_are_let_go_of(
    start: StartDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(health, "_LIFE_SECONDS_MAX", 0.2)
    daemon = await start()
    console = daemon.status().console
    assert console is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", console.port)
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
    async with asyncio.timeout(60):
        assert await reader.read() == b""
    writer.transport.abort()


async def test_a_client_that_does_not_read_its_answer_does_not_hold_up_the_stop(start: StartDaemon) -> None:
    daemon = await start()
    await ready(daemon)
    for number in range(400):  # an answer that is larger than what the system takes
        counts = daemon.metrics.channel(f"channel-{number}")
        for event in range(1, 60):
            counts.received[f"A{event:02}"] += 1
    console = daemon.status().console
    assert console is not None
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", console.port))
        await loop.sock_sendall(client, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(0.5)
        async with asyncio.timeout(60):
            await daemon.stop()
    assert daemon.status().state == "stopped"


async def test_beyond_loopback_a_reload_by_signal_tells_what_became_of_it(folder: Folder, start: StartDaemon) -> None:
    folder.site(console="{host: 0.0.0.0, port: 0}")
    daemon = await start()
    await ready(daemon)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, daemon.reload_soon)
    folder.channel("west")
    result = await asyncio.to_thread(request_reload, folder.load())
    assert result == ReloadResult(ok=True, config_version=daemon.status().config_version)
    configuration = folder.load()
    folder.channel("west", 0, "no_such_key: 1")
    result = await asyncio.to_thread(request_reload, configuration)
    assert result is not None
    assert not result.ok
    assert "no_such_key" in result.problems[0]


async def test_beyond_loopback_the_status_is_not_an_old_one(
    folder: Folder, start: StartDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "_TEND_SECONDS", 0.05)
    folder.site(console="{host: 0.0.0.0, port: 0}")
    daemon = await start()
    await ready(daemon)
    sender = await Sender.to(port(daemon))
    await sender.exchange(adt("1"))
    configuration = folder.load()

    async def shown(connections: int) -> None:
        async with asyncio.timeout(60):
            while True:
                status = await asyncio.to_thread(running_status, configuration)
                if status is not None and status.channels[0].connections == connections:
                    return

    await shown(1)
    sender.abort()
    await shown(0)


@one_loop
async def test_a_socket_that_is_no_channels_is_told_to_ops(start: StartDaemon, log: io.StringIO) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        await start(None, **{"handoff.socket": given.dup()})
    [line] = [line for line in map(json.loads, log.getvalue().splitlines()) if "service manager" in line["event"]]
    assert line["channel"] == "handoff.socket"


async def test_the_watchdog_is_not_patted_by_a_loop_that_stands_still(start: StartDaemon, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        await start({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"})
        while await asyncio.to_thread(manager.recv, 4096) != b"WATCHDOG=1":
            pass
        manager.setblocking(False)

        def said() -> int:
            count = 0
            with contextlib.suppress(BlockingIOError):
                while manager.recv(4096):
                    count += 1
            return count

        said()  # what came until here
        time.sleep(0.5)  # here nothing of the loop runs
        assert said() == 0


# --- on PostgreSQL ---------------------------------------------------------------------------------------------------


@pytest.fixture
def on_postgresql(folder: Folder, postgres: PostgresServer, postgres_database: str) -> Iterator[Folder]:
    folder.site(store=f'{{url: "{postgres.url(postgres_database)}", keys: var/keys.json}}')
    yield folder
    postgres.empty(postgres_database)


@one_loop
async def test_a_node_keeps_its_name_when_the_database_ends_its_session(
    on_postgresql: Folder,
    start: StartDaemon,
    postgres: PostgresServer,
    postgres_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(daemon_module, "_TEND_SECONDS", 0.1)
    daemon = await start()
    journal = daemon._store.journal
    first = journal._claimed
    end_sessions = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    await asyncio.to_thread(postgres.execute, postgres_database, end_sessions)
    await eventually(lambda: journal._claimed not in {None, first})
    await eventually(lambda: daemon.status().trouble == ())
    twin = make(on_postgresql)
    monkeypatch.setattr(daemon_module, "_CLAIM_ATTEMPTS", 1)
    monkeypatch.setattr(twin._file, "take", lambda: True)  # it runs on another machine
    with pytest.raises(DaemonRunningError):
        await twin.start()
    await twin.stop()


@one_loop
async def test_a_node_whose_name_was_taken_meanwhile_is_not_ready(
    on_postgresql: Folder, start: StartDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "_TEND_SECONDS", 0.1)
    daemon = await start()
    monkeypatch.setattr(daemon._store.journal, "claim", lambda _: False)
    await eventually(lambda: daemon.status().trouble == ("node-name-taken",))
    monkeypatch.undo()
    await eventually(lambda: daemon.status().trouble == ())


@one_loop
async def test_a_database_that_hangs_is_noticed_without_traffic_and_keeps_no_daemon_from_stopping(
    on_postgresql: Folder,
    start: StartDaemon,
    postgres: PostgresServer,
    workers: forked.Workers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(daemon_module, "_TEND_SECONDS", 0.1)
    daemon = await start()
    await ready(daemon)
    monkeypatch.setattr(daemon_module, "_STORE_SECONDS_MAX", 0.5)
    with postgres.frozen():
        await eventually(lambda: "store-not-writable" in daemon.status().trouble)
        async with asyncio.timeout(60):  # shutdown_seconds_max is 5
            await daemon.stop()
        assert daemon.stuck
    assert workers.alive() == []


async def test_a_sender_that_repeats_one_message_is_named_as_trouble(folder: Folder, start: StartDaemon) -> None:
    folder.channel("east", 0)
    daemon = await start()
    sender = await Sender.to(port(daemon))
    for _ in range(REPEATS_TROUBLE):
        await sender.exchange(adt("1"))
    assert "message-repeated:east" not in daemon.status().trouble
    await sender.exchange(adt("1"))
    assert "message-repeated:east" in daemon.status().trouble
    assert daemon.status().ready or not daemon.metrics.worker_up()
    sender.abort()


async def test_whoever_put_something_into_the_journal_has_the_daemon_look_at_once(start: StartDaemon) -> None:
    daemon = await start()
    await ready(daemon)
    hinted: list[bool] = []
    daemon._workers.hint = lambda *, awaited: hinted.append(awaited)  # type: ignore[method-assign]
    assert (await get(daemon, "/api/v1/look", method="POST"))[0] == 200
    assert hinted == [True]
    # A page of another site may not ask for it either.
    headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert (await get(daemon, "/api/v1/look", method="POST", headers=headers))[0] == 403
    assert hinted == [True]
