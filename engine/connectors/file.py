"""Deliveries as lines of JSON (NDJSON) in a folder: the embedded default destination.

A line is `{"idempotency_key", "operation", "destination", "delivered_at", ...payload}`. A batch is one write and one
fsync. Files are `<destination>-<number>.ndjson`, the highest number is the current one; a reader may take away all but
that one.

Exactly one line for each idempotency key, also with `kill -9` between the write and the record of it in the store: the
courier hands over the next batch only when the last one is recorded, and hands over in order of due time, so what was
written but not recorded is among the last batches written before the kill. When the files are opened, the keys of the
last `_WINDOW_LINES` lines are read back, twice the largest batch there can be; a delivery with a known key is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import mmap
import os
import re
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from engine.clock import Clock
from engine.connectors.base import DELIVERED, Result, failed
from engine.domain.delivery import QueuedDelivery
from engine.domain.record import Record
from engine.errors import DeliveryError, DeliveryFailure

_WINDOW_LINES: Final = 4096
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class _Key(Record, frozen=True, kw_only=True):
    """What is read back of a line."""

    idempotency_key: str


_read_key = msgspec.json.Decoder(_Key).decode


class FileConnector:
    """All file work happens in a thread, so that a slow disk does not stop the event loop."""

    idempotent: Final = True
    ordered_batches: Final = True

    def __init__(self, name: str, folder: Path, *, rotate_bytes: int, clock: Clock) -> None:
        self.name: Final = name
        self._folder = folder
        self._rotate_bytes = rotate_bytes
        self._clock = clock
        self._file_name = re.compile(re.escape(name) + r"-([0-9]{8})\.ndjson")
        self._lock = threading.Lock()  # a thread whose await was cancelled may still be writing when close() comes
        self._fd: int | None = None
        self._number = 0
        self._recent = _RecentKeys()

    async def connect(self) -> None:
        await asyncio.to_thread(self._open)

    async def deliver(self, batch: Sequence[QueuedDelivery]) -> list[Result]:
        return await asyncio.to_thread(self._append, batch)

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    # --- in a thread ---

    def _open(self) -> None:
        with self._lock:
            try:
                if self._fd is not None and self._still_there(self._fd):
                    return
                self._shut()
                if not self._folder.is_dir():
                    self._folder.mkdir(mode=0o700, parents=True)
                self._open_newest()
                self._read_back()
            except OSError as error:
                self._shut()
                raise self._failure("file-unusable", error) from None

    def _append(self, batch: Sequence[QueuedDelivery]) -> list[Result]:
        at = self._clock.now().isoformat()
        results: list[Result] = []
        lines: list[bytes] = []
        keys: list[str] = []
        with self._lock:
            for queued in batch:
                key = queued.delivery.idempotency_key
                if key not in self._recent:
                    line = _line(queued, at)
                    if line is None:
                        results.append(failed(DeliveryFailure.PERMANENT, "payload-unreadable", "no JSON object"))
                        continue
                    lines.append(line)
                    keys.append(key)
                results.append(DELIVERED)
            if lines:
                self._write(b"".join(lines))
                for key in keys:
                    self._recent.add(key)
        return results

    def _write(self, data: bytes) -> None:
        """All of the data on disk, or none of it and DeliveryError."""
        fd = self._fd
        if fd is None:
            raise self._failure("file-unusable", None)
        size = os.fstat(fd).st_size
        try:
            if size >= self._rotate_bytes:
                fd, size = self._rotate(), 0
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        except OSError as error:
            # Half a batch must not stay. Should even that fail, the next open finds what was written and goes by it.
            with contextlib.suppress(OSError):
                os.ftruncate(fd, size)
            self._shut()
            raise self._failure("write-failed", error) from None

    def _open_newest(self) -> None:
        while True:
            number = max(self._numbers(), default=1)
            fd = self._open_number(number)
            self._fd, self._number = fd, number
            if max(self._numbers(), default=1) == number:
                return
            self._shut()  # another process went on to the next file between the look and the lock

    def _rotate(self) -> int:
        fd = self._open_number(self._number + 1)
        self._shut()
        self._fd = fd
        self._number += 1
        return fd

    def _open_number(self, number: int) -> int:
        fd = os.open(self._path(number), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)  # the new file's name is as durable as its lines
            finally:
                os.close(folder)
        except OSError:
            os.close(fd)
            raise
        return fd

    def _read_back(self) -> None:
        """Cut off what a crash left half written, and remember the keys of the last lines."""
        if self._fd is None:
            return
        keys: list[str] = []
        size = os.fstat(self._fd).st_size
        sound = 0
        for end, line in _lines_backwards(self._fd, size):
            key = _key(line)
            if key is None and not sound:
                continue  # a torn or never finished line at the end of the file: it was not recorded as delivered
            sound = sound or end
            if key is not None:
                keys.append(key)
            if len(keys) >= _WINDOW_LINES:
                break
        if sound < size:
            os.ftruncate(self._fd, sound)
        os.fsync(self._fd)  # a killed process may have written lines and not synced them; they count as done from here
        for number in sorted(self._numbers(), reverse=True):
            if len(keys) >= _WINDOW_LINES:
                break
            if number != self._number:
                keys += self._older_keys(number, _WINDOW_LINES - len(keys))
        for key in reversed(keys):
            self._recent.add(key)

    def _older_keys(self, number: int, limit: int) -> list[str]:
        keys: list[str] = []
        try:
            fd = os.open(self._path(number), os.O_RDONLY)
        except FileNotFoundError:  # taken away just now
            return keys
        try:
            for _, line in _lines_backwards(fd, os.fstat(fd).st_size):
                key = _key(line)
                if key is not None:
                    keys.append(key)
                if len(keys) >= limit:
                    break
        finally:
            os.close(fd)
        return keys

    def _numbers(self) -> list[int]:
        found = (self._file_name.fullmatch(path.name) for path in self._folder.iterdir())
        return [int(match[1]) for match in found if match]

    def _path(self, number: int) -> Path:
        return self._folder / f"{self.name}-{number:08d}.ndjson"

    def _still_there(self, fd: int) -> bool:
        """Whether the open file is still the one of that name: a reader may have moved it away."""
        try:
            named = self._path(self._number).stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(fd))

    def _close(self) -> None:
        with self._lock:
            self._shut()

    def _shut(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _failure(self, error: str, cause: OSError | None) -> DeliveryError:
        number = cause.errno if cause is not None else None
        if number in _NO_SPACE:
            error, text = "disk-full", "there is no space left for the files"
        elif number == errno.EWOULDBLOCK:
            error, text = "file-in-use", "another process writes to the files of this destination"
        else:
            text = os.strerror(number) if number else "the file is not open"
        return DeliveryError(self.name, error, text, kind=DeliveryFailure.TRANSIENT)


class _RecentKeys:
    """The last _WINDOW_LINES idempotency keys."""

    def __init__(self) -> None:
        self._order: deque[str] = deque()
        self._keys: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, key: str) -> None:
        if key in self._keys:
            return
        self._keys.add(key)
        self._order.append(key)
        if len(self._order) > _WINDOW_LINES:
            self._keys.remove(self._order.popleft())


def _line(queued: QueuedDelivery, at: str) -> bytes | None:
    delivery = queued.delivery
    payload = delivery.payload
    if b"\n" in payload:  # spread over lines; JSON allows that, NDJSON does not
        try:
            payload = msgspec.json.encode(msgspec.json.decode(payload))
        except msgspec.DecodeError:
            return None
    payload = payload.strip()
    if not (payload.startswith(b"{") and payload.endswith(b"}")):
        return None
    head = msgspec.json.encode(
        {
            "idempotency_key": delivery.idempotency_key,
            "operation": delivery.operation,
            "destination": delivery.destination,
            "delivered_at": at,
        }
    )
    rest = payload[1:-1].strip()
    return head[:-1] + (b"," + rest if rest else b"") + b"}\n"


def _key(line: bytes) -> str | None:
    if not line.endswith(b"\n"):
        return None
    try:
        return _read_key(line).idempotency_key
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _lines_backwards(fd: int, size: int) -> Iterator[tuple[int, bytes]]:
    """The lines of a file from the last to the first, each with the offset behind its end."""
    if size == 0:
        return
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as content:
        end = size
        while end > 0:
            start = content.rfind(b"\n", 0, end - 1) + 1
            yield end, content[start:end]
            end = start
