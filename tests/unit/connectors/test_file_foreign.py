"""A file destination's folder leads nowhere else: what others put there is neither followed, written nor cut."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from connector_deliveries import queued

from engine.clock import SystemClock
from engine.connectors.file import FileConnector, folder_problem
from engine.errors import DeliveryError, DeliveryFailure

FIRST = "out-00000001.ndjson"
SECRET = b"SQLite format 3\0" + b"pages " * 100 + b"and no line feed at the end"


def connector(folder: Path, rotate_bytes: int = 1 << 20) -> FileConnector:
    return FileConnector("out", folder / "outbox", rotate_bytes=rotate_bytes, clock=SystemClock())


def link(at: Path, victim: Path) -> None:
    at.symlink_to(victim)


def hard_link(at: Path, victim: Path) -> None:
    os.link(victim, at)


def moved(at: Path, victim: Path) -> None:
    victim.rename(at)


def dangling(at: Path, victim: Path) -> None:
    at.symlink_to(victim.with_name("nothing"))


def pipe(at: Path, victim: Path) -> None:
    os.mkfifo(at)


def folder(at: Path, victim: Path) -> None:
    at.mkdir()


def listening(at: Path, victim: Path) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(at))
    sock.close()


def device(at: Path, victim: Path) -> None:
    try:
        os.mknod(at, 0o20600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")


PLANTS = [link, hard_link, moved, dangling, pipe, folder, listening, device]


def plant(tmp_path: Path, put: Callable[[Path, Path], None], name: str = FIRST) -> Path:
    """Something else under the name of a file of ours; the victim that it may lead to."""
    victim = tmp_path / "handoff-journal.db"
    victim.write_bytes(SECRET)
    (tmp_path / "outbox").mkdir(mode=0o700, exist_ok=True)
    at = tmp_path / "outbox" / name
    if len(str(at)) > 100 and put is listening:
        pytest.skip("the path is too long for a socket")
    put(at, victim)
    return at if put is moved else victim


@pytest.mark.parametrize("put", PLANTS)
async def test_what_others_put_there_is_left_as_it_is_and_said(tmp_path: Path, put: Callable[[Path, Path], None]):
    victim = plant(tmp_path, put)
    target = connector(tmp_path)
    with pytest.raises(DeliveryError) as caught:
        await target.connect()
    assert caught.value.kind is DeliveryFailure.TRANSIENT
    assert caught.value.error in {"file-foreign", "file-unusable"}
    if put not in {folder, listening}:
        assert caught.value.error == "file-foreign"
    assert victim.read_bytes() == SECRET
    assert not victim.with_name("nothing").exists()
    for path in (tmp_path / "outbox").iterdir():
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    await target.connect()  # as soon as it is taken away
    assert (await target.deliver([queued()]))[0].delivered
    await target.close()


@pytest.mark.parametrize("put", [link, hard_link, moved, pipe])
async def test_the_next_file_is_no_other_s_either(tmp_path: Path, put: Callable[[Path, Path], None]):
    target = connector(tmp_path, rotate_bytes=1)
    await target.connect()
    assert (await target.deliver([queued(number=1)]))[0].delivered
    victim = plant(tmp_path, put, "out-00000002.ndjson")
    with pytest.raises(DeliveryError) as caught:
        await target.deliver([queued(number=2)])
    assert caught.value.error == "file-foreign"
    assert victim.read_bytes() == SECRET
    await target.close()


@pytest.mark.parametrize("put", [link, hard_link, pipe])
async def test_a_file_in_use_that_is_replaced_is_no_longer_written(tmp_path: Path, put: Callable[[Path, Path], None]):
    target = connector(tmp_path)
    await target.connect()
    assert (await target.deliver([queued(number=1)]))[0].delivered
    (tmp_path / "outbox" / FIRST).unlink()
    victim = plant(tmp_path, put)
    with pytest.raises(DeliveryError):
        await target.connect()
    assert victim.read_bytes() == SECRET
    await target.close()


async def test_a_file_that_everybody_may_read_is_made_private(tmp_path: Path):
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / FIRST).touch(0o666)
    (tmp_path / "outbox" / FIRST).chmod(0o666)
    target = connector(tmp_path)
    await target.connect()
    await target.deliver([queued()])
    await target.close()
    assert (tmp_path / "outbox" / FIRST).stat().st_mode & 0o777 == 0o600


async def test_a_file_of_another_user_is_not_used(tmp_path: Path):
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / FIRST).touch()
    os.chown(tmp_path / "outbox" / FIRST, 65534, 65534)
    with pytest.raises(DeliveryError) as caught:
        await connector(tmp_path).connect()
    assert caught.value.error == "file-foreign"


async def test_a_folder_in_which_everybody_may_write_is_not_used(tmp_path: Path):
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox").chmod(0o777)
    with pytest.raises(DeliveryError) as caught:
        await connector(tmp_path).connect()
    assert (caught.value.error, "chmod" in caught.value.text) == ("file-foreign", True)


@pytest.mark.parametrize("torn", [b'{"idempotency_key":"k1","oper', b'{"idem', b"\0" * 5000, b""])
async def test_what_a_crash_left_of_a_first_line_is_cut_off(tmp_path: Path, torn: bytes):
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / FIRST).write_bytes(torn)
    target = connector(tmp_path)
    await target.connect()
    assert (await target.deliver([queued()]))[0].delivered
    await target.close()
    assert (tmp_path / "outbox" / FIRST).read_bytes().startswith(b'{"idempotency_key":"key-1"')


async def test_the_folder_may_be_a_link_that_the_configuration_names(tmp_path: Path):
    (tmp_path / "share").mkdir()
    (tmp_path / "outbox").symlink_to(tmp_path / "share")
    target = connector(tmp_path)
    await target.connect()
    assert (await target.deliver([queued()]))[0].delivered
    (tmp_path / "other").mkdir()
    (tmp_path / "outbox").unlink()
    (tmp_path / "outbox").symlink_to(tmp_path / "other")
    await target.connect()
    assert (await target.deliver([queued(number=2)]))[0].delivered
    assert list((tmp_path / "other").iterdir())
    await target.close()


@pytest.mark.parametrize("put", [link, hard_link, dangling, pipe, folder])
def test_check_sees_it_before_anything_is_written(tmp_path: Path, put: Callable[[Path, Path], None]):
    plant(tmp_path, put)
    assert FIRST in (folder_problem("out", tmp_path / "outbox") or "")
    assert folder_problem("other", tmp_path / "outbox") is None


def test_a_folder_that_is_not_there_yet_is_no_problem(tmp_path: Path):
    assert folder_problem("out", tmp_path / "outbox") is None
    (tmp_path / "outbox").touch()
    assert folder_problem("out", tmp_path / "outbox") == "is no folder"
