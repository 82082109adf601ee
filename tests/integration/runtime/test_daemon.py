"""The daemon in this process, with its real worker: reload all or nothing, readiness, HTTP, what systemd is told."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from test_intake_store_failure import full_disk
from wire import Sender, adt, code, eventually

from engine import bootstrap
from engine.clock import SystemClock
from engine.errors import HandoffError
from engine.runtime.daemon import Daemon
from engine.runtime.notify import Systemd
from engine.runtime.status import DaemonRunningError, running_status
from engine.settings import Configuration, Snapshot, load

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
        bootstrap.compile_site(configuration, bootstrap.open_keys(configuration))
        return configuration


@pytest.fixture
def folder(tmp_path: Path, sqlite_template: Path) -> Folder:
    from engine.store.keys import KeyRing

    folder = Folder(tmp_path / "site")
    KeyRing.create(folder.path / "var" / "keys.json")
    for file in sqlite_template.iterdir():
        shutil.copy(file, folder.path / "var" / file.name)
    return folder


StartDaemon = Callable[..., Awaitable[Daemon]]


@pytest.fixture
async def start(folder: Folder) -> AsyncIterator[StartDaemon]:
    daemons: list[Daemon] = []

    async def begin(environ: dict[str, str] | None = None) -> Daemon:
        configuration = folder.load()
        daemon = Daemon(
            configuration,
            bootstrap.open_store(configuration, "main"),
            SystemClock(),
            "0",
            load=folder.load,
            systemd=Systemd(environ or {}),
            sockets={},
        )
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
    await eventually(daemon.metrics.worker_up, 30)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


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


async def test_a_configuration_that_is_wrong_anywhere_changes_nothing(folder: Folder, start: StartDaemon) -> None:
    daemon = await start()
    await ready(daemon)
    before = daemon.status()
    folder.channel("west")
    folder.channel("east", 0, "no_such_key: 1")
    result = await daemon.try_reload()
    assert not result.ok
    assert any(problem.startswith("channels/east.yaml:") and "no_such_key" in problem for problem in result.problems)
    assert daemon.status() == before


async def test_a_port_that_is_taken_by_another_program_changes_nothing(folder: Folder, start: StartDaemon) -> None:
    daemon = await start()
    await ready(daemon)
    before = daemon.status()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        folder.channel("west", taken.getsockname()[1])
        folder.channel("east", 0, "mode: paused")
        result = await daemon.try_reload()
    assert not result.ok
    assert "channel west" in result.problems[0]
    assert daemon.status() == before


async def test_certificates_that_cannot_be_read_change_nothing(folder: Folder, start: StartDaemon) -> None:
    daemon = await start()
    await ready(daemon)
    before = daemon.status()
    folder.channel("west", 0, tls="{cert: none.pem, key: none.key}")
    result = await daemon.try_reload()
    assert not result.ok
    assert "channel west" in result.problems[0]
    assert daemon.status() == before


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


async def test_ready_means_that_the_worker_stays_alive(start: StartDaemon) -> None:
    daemon = await start()
    for _ in range(3):
        await ready(daemon)
        pid = daemon._workers._each[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not daemon.metrics.worker_up())
    assert (await get(daemon, "/readyz"))[1] == {"ready": False, "trouble": ["worker-keeps-dying"]}
    assert "handoff_worker_restarts_total 3.0" in (await get(daemon, "/metrics"))[1]


async def test_the_processing_of_a_stored_message_reaches_metrics(start: StartDaemon) -> None:
    daemon = await start()
    sender = await Sender.to(port(daemon))
    await sender.exchange(adt("1"))
    counted = 'handoff_entries_processed_total{channel="east",state="processed"} 1.0'
    async with asyncio.timeout(30):
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
