"""Places for checkpoints: a file that is only added to, receivers of RFC 5424."""

from __future__ import annotations

import re
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from engine.connectors.checkpoints import FilePlace, SyslogPlace, places_of
from engine.connectors.registry import load
from engine.domain.checkpoint import Call, Checkpoint, read
from engine.errors import CheckpointError, SettingsError
from engine.settings import CheckpointPlace, Configuration
from engine.snapshot import Snapshot

ONE = Checkpoint(
    chain="c" * 32, seq=7, mac="ab" * 32, at=datetime(2026, 3, 1, 12, tzinfo=UTC), key=1, signature="cd" * 64
)


def test_a_file_is_made_for_its_owner_and_only_added_to(tmp_path: Path) -> None:
    path = tmp_path / "there" / "checkpoints.ndjson"
    place = FilePlace(path)
    assert place.read() == []
    place.write(ONE)
    place.write(ONE)
    assert place.read() == [ONE, ONE]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_line_that_a_crash_has_cut_off_does_not_spoil_the_next(tmp_path: Path) -> None:
    place = FilePlace(tmp_path / "c")
    place.write(ONE)
    with (tmp_path / "c").open("ab") as file:
        file.write(ONE.written()[:30])
    assert place.read() == [ONE]
    place.write(ONE)
    assert (tmp_path / "c").read_bytes().endswith(b"\n" + ONE.written() + b"\n")


@pytest.mark.parametrize("what", ["a link", "a folder", "a FIFO"])
def test_what_is_no_file_is_not_written(tmp_path: Path, what: str) -> None:
    import os

    path = tmp_path / "c"
    if what == "a link":
        path.symlink_to(tmp_path / "elsewhere")
    elif what == "a folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(CheckpointError):
        FilePlace(path).write(ONE)
    assert not (tmp_path / "elsewhere").exists()


MESSAGE = re.compile(
    rb'<109>1 2026-03-01T12:00:00\.000\+00:00 \S+ handoff - trail-checkpoint'
    rb' \[trail@32473 chain="c{32}" seq="7" mac="(ab){32}" key="1"\] (\{.*\})'
)  # fmt: skip


def check(raw: bytes) -> None:
    found = MESSAGE.fullmatch(raw)
    assert found is not None, raw
    assert read(found[2]) == ONE


def test_a_receiver_of_datagrams_gets_one_message() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        SyslogPlace(f"udp://127.0.0.1:{server.getsockname()[1]}").write(ONE)
        check(server.recv(4096))


def test_the_local_socket_gets_one_message(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "log"))
        server.settimeout(5)
        SyslogPlace(f"unix:{tmp_path / 'log'}").write(ONE)
        check(server.recv(4096))


def test_a_stream_gets_a_message_with_its_length_before_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        got: list[bytes] = []

        def serve() -> None:
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as file:
                got.append(file.read())

        thread = threading.Thread(target=serve)
        thread.start()
        SyslogPlace(f"tcp://127.0.0.1:{server.getsockname()[1]}").write(ONE)
        thread.join(5)
    length, _, rest = got[0].partition(b" ")
    assert int(length) == len(rest)
    check(rest)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tls://127.0.0.1:1", "unix:/nowhere/log"])
def test_a_receiver_that_is_not_there_is_said(address: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(address)):
        SyslogPlace(address).write(ONE)


def test_a_receiver_that_shows_no_certificate_we_trust_gets_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"no TLS here")

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(CheckpointError):
            SyslogPlace(f"tls://127.0.0.1:{server.getsockname()[1]}").write(ONE)
        thread.join(5)


def configuration(folder: Path, *places: dict[str, str], **destinations: dict[str, str]) -> Configuration:
    for name in ("channels", "mappings"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(
        msgspec.json.encode({"trail": {"checkpoints": places}, "destinations": destinations}).decode()
    )
    return load(Snapshot.read(folder / "config.yaml"))


HOOK = {"type": "webhook", "url": "https://log.example.org/in", "secret": "whsec_" + "A" * 44}


def test_paths_are_relative_to_the_site(tmp_path: Path) -> None:
    places = places_of(configuration(tmp_path, {"file": "var/c"}, {"syslog": "udp://log:514"}))
    assert [place.name for place in places] == [f"file {tmp_path}/var/c", "syslog udp://log:514"]
    assert places[1].read() is None


def test_a_destination_that_takes_checkpoints_is_a_place(tmp_path: Path) -> None:
    (place,) = places_of(configuration(tmp_path, {"destination": "siem"}, siem=HOOK))
    assert (place.name, place.read()) == ("destination siem", [])


@pytest.mark.parametrize(
    ("named", "destinations", "why"),
    [
        ("other", {"siem": HOOK}, "no destination of this name"),
        ("files", {"files": {"type": "file", "path": "out"}}, "a destination of type file takes no checkpoints"),
        ("lab", {"lab": {"type": "mllp", "host": "lab", "port": 2575}}, "of type mllp takes no checkpoints"),
    ],
)
def test_other_destinations_are_none(
    tmp_path: Path, named: str, destinations: dict[str, dict[str, str]], why: str
) -> None:
    with pytest.raises(SettingsError) as error:
        configuration(tmp_path, {"destination": named}, **destinations)
    (problem,) = error.value.problems
    assert problem.key == "trail.checkpoints[0].destination"
    assert why in problem.message


def test_what_came_in_a_call_is_read_as_a_line_of_a_file_is() -> None:
    body = msgspec.json.encode(Call(timestamp="2026-03-01T12:00:00Z", data=ONE))
    assert read(body) == read(ONE.written()) == ONE
    assert read(b'{"type": "trail_checkpoint", "data": {}}') is None


def test_the_last_one_of_a_long_file_is_found_without_the_others(tmp_path: Path) -> None:
    place = FilePlace(tmp_path / "c")
    assert place.last() is None
    for seq in range(1, 60):
        place.write(structs.replace(ONE, seq=seq))
    with (tmp_path / "c").open("ab") as file:
        file.write(ONE.written()[:30])
    found = place.last()
    assert found is not None
    assert found.seq == 59


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"file": "a", "syslog": "udp://h:1"},
        {"syslog": "http://h:1"},
        {"destination": "d", "file": "a"},
        {"syslog": "udp://h"},
        {"syslog": "udp://:1"},
    ],
)
def test_a_place_is_one_of_three(values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"file, syslog or destination|must be udp"):
        CheckpointPlace(**values)
