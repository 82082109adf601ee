from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from connector_deliveries import NOW, delivery, queued
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.clock import FixedClock
from engine.connectors import file as file_module
from engine.connectors.file import FileConnector
from engine.connectors.sealedlines import LineOpener, new_reader
from engine.domain.delivery import Operation
from engine.errors import DeliveryError, DeliveryFailure


def connector(folder: Path, *, rotate_bytes: int = 1 << 20, name: str = "files") -> FileConnector:
    return FileConnector(name, folder, rotate_bytes=rotate_bytes, clock=FixedClock(NOW))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("*.ndjson")) for line in path.read_bytes().splitlines()]


def keys(folder: Path) -> list[str]:
    return [line["idempotency_key"] for line in lines(folder)]


async def write(target: FileConnector, *numbers: int) -> None:
    await target.connect()
    results = await target.deliver([queued(number=number) for number in numbers])
    assert all(result.delivered for result in results)


async def write_and_die(folder: Path, *numbers: int) -> None:
    """What a process leaves behind that was killed before it recorded anything: closing does nothing but let go."""
    target = connector(folder)
    await write(target, *numbers)
    await target.close()


async def test_a_line_holds_what_it_is_and_the_payload(tmp_path: Path):
    target = connector(tmp_path / "out")
    await target.connect()
    await target.deliver([queued(delivery(Operation.MERGE_PATIENT, {"survivor": "A:1", "merged": "A:2"}, key="k"))])
    assert lines(tmp_path / "out") == [
        {
            "idempotency_key": "k",
            "operation": "merge_patient",
            "destination": "crm",
            "delivered_at": "2026-03-05T14:30:00+00:00",
            "survivor": "A:1",
            "merged": "A:2",
        }
    ]


async def test_files_are_for_their_owner_only(tmp_path: Path):
    await write(connector(tmp_path / "out"), 1)
    (path,) = (tmp_path / "out").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


async def test_a_payload_spread_over_lines_becomes_one_line(tmp_path: Path):
    target = connector(tmp_path)
    await target.connect()
    results = await target.deliver([queued(delivery(payload=b'{\n "a": 1\n}\n')), queued(delivery(payload=b"\n["))])
    assert [result.delivered for result in results] == [True, False]
    assert results[1].failure is DeliveryFailure.PERMANENT
    assert [line["a"] for line in lines(tmp_path)] == [1]


async def test_an_unreadable_payload_does_not_stop_the_rest_of_its_batch(tmp_path: Path):
    target = connector(tmp_path)
    await target.connect()
    results = await target.deliver(
        [queued(number=1), queued(delivery(payload=b"5", key="bad"), number=2), queued(number=3)]
    )
    assert [result.delivered for result in results] == [True, False, True]
    assert keys(tmp_path) == ["key-1", "key-3"]


async def test_a_batch_that_was_written_but_not_recorded_is_not_written_again_after_a_restart(tmp_path: Path):
    await write_and_die(tmp_path, 1, 2, 3)
    await write(connector(tmp_path), 1, 2, 3, 4)
    assert keys(tmp_path) == ["key-1", "key-2", "key-3", "key-4"]


async def test_known_keys_are_found_across_rotated_files(tmp_path: Path):
    target = connector(tmp_path, rotate_bytes=4096)
    for number in range(1, 30):
        await write(target, number)
    await target.close()
    assert len(list(tmp_path.iterdir())) > 2
    await write(connector(tmp_path, rotate_bytes=4096), *range(1, 30))
    assert keys(tmp_path) == [f"key-{number}" for number in range(1, 30)]


@pytest.mark.parametrize("cut", [1, 10, 200])
async def test_a_torn_last_line_is_cut_off_and_written_whole(tmp_path: Path, cut: int):
    await write_and_die(tmp_path, 1, 2)
    (path,) = tmp_path.iterdir()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - cut)
    await write(connector(tmp_path), 1, 2)
    assert keys(tmp_path) == ["key-1", "key-2"]


async def test_blocks_that_never_reached_the_disk_are_cut_off(tmp_path: Path):
    await write_and_die(tmp_path, 1)
    (path,) = tmp_path.iterdir()
    with path.open("ab") as file:
        file.write(b"\0" * 5000 + b"\n" + b"\0" * 100)
    await write(connector(tmp_path), 2)
    assert keys(tmp_path) == ["key-1", "key-2"]


async def test_a_file_of_nothing_but_a_torn_line_starts_empty(tmp_path: Path):
    (tmp_path / "files-00000001.ndjson").write_bytes(b'{"idempotency_key":"key-1"')
    await write(connector(tmp_path), 1)
    assert keys(tmp_path) == ["key-1"]


async def test_a_full_disk_leaves_no_half_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = connector(tmp_path)
    await write(target, 1)
    real = os.write

    def half_then_full(fd: int, data: bytes) -> int:
        if len(data) > 100:
            return real(fd, data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(file_module.os, "write", half_then_full)
        with pytest.raises(DeliveryError) as caught:
            await target.deliver([queued(number=2)])
    assert (caught.value.kind, caught.value.error) == (DeliveryFailure.TRANSIENT, "disk-full")
    assert keys(tmp_path) == ["key-1"]
    await write(target, 2, 3)
    assert keys(tmp_path) == ["key-1", "key-2", "key-3"]


async def test_a_sync_that_fails_counts_as_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = connector(tmp_path)
    await write(target, 1)

    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(file_module.os, "fsync", broken)
        with pytest.raises(DeliveryError):
            await target.deliver([queued(number=2)])
    await write(target, 2)
    assert keys(tmp_path) == ["key-1", "key-2"]


async def test_two_processes_never_write_to_the_same_files(tmp_path: Path):
    first, second = connector(tmp_path), connector(tmp_path)
    await write(first, 1)
    with pytest.raises(DeliveryError) as caught:
        await second.connect()
    assert caught.value.error == "file-in-use"
    await first.close()
    await write(second, 1, 2)
    assert keys(tmp_path) == ["key-1", "key-2"]


async def test_two_destinations_may_share_a_folder(tmp_path: Path):
    await write(connector(tmp_path, name="a"), 1)
    await write(connector(tmp_path, name="a-1"), 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-00000001.ndjson", "a-1-00000001.ndjson"]


async def test_a_file_that_a_reader_moved_away_is_replaced(tmp_path: Path):
    folder = tmp_path / "out"
    target = connector(folder)
    await write(target, 1)
    (folder / "files-00000001.ndjson").rename(tmp_path / "taken.ndjson")
    await write(target, 1, 2)
    assert keys(folder) == ["key-2"]


async def test_a_name_that_was_taken_away_is_not_used_again(tmp_path: Path):
    """The second file of a name would replace the first one where the reader keeps them."""
    folder = tmp_path / "out"
    target = connector(folder)
    await write(target, 1)
    (folder / "files-00000001.ndjson").rename(tmp_path / "files-00000001.ndjson")
    await write(target, 2)
    assert [path.name for path in folder.iterdir()] == ["files-00000002.ndjson"]


async def test_a_file_that_is_copied_and_emptied_by_an_outsider_goes_on_from_its_new_end(tmp_path: Path):
    """What logrotate does with copytruncate."""
    target = connector(tmp_path)
    await write(target, 1)
    os.truncate(tmp_path / "files-00000001.ndjson", 0)
    await write(target, 1, 2)
    assert keys(tmp_path) == ["key-2"]
    assert b"\0" not in (tmp_path / "files-00000001.ndjson").read_bytes()


async def test_a_file_that_is_emptied_by_an_outsider_during_a_write_that_fails_gets_no_hole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    target = connector(tmp_path)
    await write(target, 1)

    def emptied(fd: int, data: bytes) -> int:
        os.ftruncate(fd, 0)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(file_module.os, "write", emptied)
        with pytest.raises(DeliveryError):
            await target.deliver([queued(number=2)])
    await write(target, 2)
    assert keys(tmp_path) == ["key-2"]


async def test_what_a_failed_write_has_left_is_never_taken_for_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not even when it can't be taken away at once: a disk that has failed to sync says later that all is well."""
    target = connector(tmp_path)
    await write(target, 1)

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(file_module.os, "fsync", broken)
        patch.setattr(file_module.os, "ftruncate", broken)
        with pytest.raises(DeliveryError):
            await target.deliver([queued(number=2)])
        assert keys(tmp_path) == ["key-1", "key-2"]
    await target.connect()
    assert keys(tmp_path) == ["key-1"]
    await write(target, 2)
    assert keys(tmp_path) == ["key-1", "key-2"]


@pytest.mark.parametrize("foreign", [b'{"note": "kept by hand"}\n', b"not even JSON\n"])
async def test_whole_lines_of_somebody_else_are_left_alone(tmp_path: Path, foreign: bytes):
    await write_and_die(tmp_path, 1)
    (path,) = tmp_path.iterdir()
    with path.open("ab") as file:
        file.write(foreign)
    await write(connector(tmp_path), 1, 2)
    content = path.read_bytes().splitlines(keepends=True)
    assert content[1] == foreign
    assert [json.loads(content[at])["idempotency_key"] for at in (0, 2)] == ["key-1", "key-2"]


async def test_a_file_that_shrinks_while_it_is_read_back_is_read_again_at_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await write_and_die(tmp_path, 1, 2)
    real = os.pread

    def shrunk(fd: int, count: int, at: int) -> bytes:
        return real(fd, count, at)[: count // 2]

    target = connector(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(file_module.os, "pread", shrunk)
        with pytest.raises(DeliveryError) as caught:
            await target.connect()
    assert caught.value.kind is DeliveryFailure.TRANSIENT
    await write(target, 1, 2, 3)
    assert keys(tmp_path) == ["key-1", "key-2", "key-3"]


@given(content=st.lists(st.binary(max_size=40), max_size=30), block=st.integers(1, 50))
@settings(max_examples=200, deadline=None)
def test_lines_are_read_backwards_as_they_stand(content: list[bytes], block: int):
    data = b"\n".join(content)
    with tempfile.TemporaryFile() as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_module, "_BLOCK_BYTES", block)
        file.write(data)
        file.flush()
        found = list(file_module._lines_backwards(file.fileno(), len(data)))
    assert b"".join(line for _, line in reversed(found)) == data
    assert all(end == len(data[:end]) and data[:end].endswith(line) for end, line in found)
    assert all(b"\n" not in line[:-1] for _, line in found)


async def test_a_folder_that_cannot_be_written_is_a_fault_of_the_destination_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    target = connector(tmp_path)
    real = os.open

    def read_only(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(file_module.os, "open", read_only)
        with pytest.raises(DeliveryError) as caught:
            await target.connect()
    assert (caught.value.kind, caught.value.error) == (DeliveryFailure.TRANSIENT, "file-unusable")
    await write(target, 1)
    assert keys(tmp_path) == ["key-1"]


async def test_a_connector_can_be_used_again_after_it_was_closed(tmp_path: Path):
    target = connector(tmp_path)
    await write(target, 1)
    await target.close()
    await write(target, 1, 2)
    await target.close()
    assert keys(tmp_path) == ["key-1", "key-2"]


async def test_a_folder_that_cannot_be_made_is_a_fault_of_the_destination(tmp_path: Path):
    (tmp_path / "occupied").write_text("a file")
    with pytest.raises(DeliveryError) as caught:
        await connector(tmp_path / "occupied" / "out").connect()
    assert caught.value.kind is DeliveryFailure.TRANSIENT


async def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(file_module, "_WINDOW_LINES", 10)
    target = connector(tmp_path)
    await write(target, *range(1, 31))
    await write(target, *range(21, 31))
    assert len(keys(tmp_path)) == 30
    assert len(target._recent._order) == len(target._recent._keys) == 10


async def test_lines_that_are_sealed_to_a_reader_rotate_and_outlive_a_crash_like_others(tmp_path: Path):
    private, public = new_reader()

    def sealing() -> FileConnector:
        return FileConnector("files", tmp_path, rotate_bytes=4096, clock=FixedClock(NOW), reader=public)

    first = sealing()
    for number in range(1, 30):
        await write(first, number)
    await first.close()
    newest = sorted(tmp_path.glob("*.ndjson"))[-1]
    with newest.open("ab") as file:
        file.write(b'{"idempotency_key":"torn","key":"')
    again = sealing()
    await write(again, 28, 29, 30)
    files = sorted(tmp_path.glob("*.ndjson"))
    assert len(files) > 2
    raw = [line for file in files for line in file.read_bytes().splitlines()]
    assert not any(b"operation" in line or b"patient" in line for line in raw)
    assert len({json.loads(line)["key"] for line in raw}) >= len(files)
    opened = [json.loads(LineOpener(private).open(line)) for line in raw]
    assert [line["idempotency_key"] for line in opened] == keys(tmp_path) == [f"key-{n}" for n in range(1, 31)]
    assert all(line["operation"] for line in opened)


async def test_a_file_of_lines_in_clear_goes_on_sealed(tmp_path: Path):
    private, public = new_reader()
    await write(connector(tmp_path), 1)
    await write_and_die(tmp_path / "x", 1)
    other = FileConnector("files", tmp_path / "x", rotate_bytes=1 << 20, clock=FixedClock(NOW), reader=public)
    await write(other, 1, 2)
    assert len(keys(tmp_path / "x")) == 2
    opener = LineOpener(private)
    (file,) = (tmp_path / "x").glob("*.ndjson")
    assert all(json.loads(opener.open(line))["operation"] for line in file.read_bytes().splitlines())
