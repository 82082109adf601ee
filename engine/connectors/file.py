"""Deliveries as lines of JSON (NDJSON) in a folder: the embedded default destination.

A line is `{"idempotency_key", "operation", "destination", "delivered_at", ...payload}`; with a `reader` all but the
first is for its reader alone (see sealedlines.py). A batch is one write and one fsync. Files are
`<destination>-<number>.ndjson`; the one with the highest number is being written, all others are finished: a reader
takes those, and moves them away. (Should the current one be taken away all the same, the next number is begun: a name
never comes twice while the engine runs.)

Who may move files away may also put something in their place. So nothing in the folder is followed, truncated or
written unless it is ours: opened within the folder and never through a link, a regular file of one name that belongs to
the daemon's user, and empty or beginning as one of our lines does. Anything else is left as it is, and the destination
is down with `file-foreign`.

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
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, TypeVar

import msgspec
from pydantic import AfterValidator, Field, model_validator

from engine.clock import Clock
from engine.connectors.base import DELIVERED, NOT_ATTEMPTED, DestinationSettings, Result, always, failed
from engine.domain.delivery import STATE, Operation, QueuedDelivery
from engine.domain.record import Record
from engine.errors import DeliveryError, DeliveryFailure, Problem
from engine.settings import Configuration, Text
from engine.snapshot import UNRESOLVED

if TYPE_CHECKING:
    from engine.connectors.sealedlines import LineSealer

_WINDOW_LINES: Final = 4096
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_BLOCK_BYTES: Final = 1 << 16
_BEGINNING: Final = b'{"idempotency_key":"'
"""Of each of our lines."""
_OPEN_FLAGS: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Not through a link, and without waiting for whoever is at the other end of a pipe."""

T = TypeVar("T")


def _check_reader(text: str) -> str:
    from engine.connectors.sealedlines import check_reader

    return text if text == UNRESOLVED else check_reader(text)


class FileDestination(DestinationSettings):
    """A folder of NDJSON files: one line for each delivery."""

    takes: ClassVar = STATE | {Operation.FORWARD.what, Operation.NOTIFY.what, Operation.NOTIFY_GLASS.what}

    type: Literal["file"]
    """`file`: a folder of NDJSON files."""
    path: Text
    """The folder, relative to config.yaml."""
    reader: Annotated[Text, AfterValidator(_check_reader)] | None = None
    """Public key that each line is sealed to, as `handoff outbox key FILE` prints it where the files are read;
    `handoff outbox read` opens them. None: lines are in clear."""
    sealed: bool | None = None
    """false: lines are in clear on purpose. None, without a reader: they are in clear, and `check` says so."""
    rotate_bytes: Annotated[int, Field(ge=4096)] = 64 * 1024 * 1024
    """Size from which a new file is begun."""
    batch_max: Annotated[int, Field(ge=1, le=2000)] = 1000
    """Most deliveries written in one step."""

    @model_validator(mode="after")
    def _one_or_the_other(self) -> FileDestination:
        if self.sealed is True and self.reader is None:
            raise ValueError("has sealed: true and no reader: name the public key that `handoff outbox key` prints")
        if self.sealed is False and self.reader is not None:
            raise ValueError("has a reader, and sealed: false: take one of them away")
        return self

    @property
    def folder(self) -> str:
        return self.path

    def build(self, name: str, configuration: Configuration, *, clock: Clock) -> FileConnector:
        return FileConnector(
            name,
            configuration.path(self.path),
            rotate_bytes=self.rotate_bytes,
            clock=clock,
            reader=self.reader,
        )

    def doubts(self) -> Iterator[tuple[str, str]]:
        if self.sealed is None and self.reader is None:
            text = "what is written there says who the patients are: name its reader (`handoff outbox key`), or"
            yield "path", f"{text} write sealed: false"

    def check_files(self, name: str, configuration: Configuration) -> Iterator[Problem]:
        foreign = folder_problem(name, configuration.path(self.path))
        if foreign is not None:
            yield configuration.site_document.problem(("destinations", name, "path"), foreign)


class _Key(Record, frozen=True, kw_only=True):
    """What is read back of a line."""

    idempotency_key: str


_read_key = msgspec.json.Decoder(_Key).decode


class ForeignFileError(OSError):
    """What has a name of ours in the folder is not ours, or the folder lets everybody put something there."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EPERM, text)
        self.text = text


class FileConnector:
    """All file work happens in a thread of its own: a disk that hangs holds up nobody else."""

    idempotent: Final = True
    ordered_batches: Final = True

    def __init__(self, name: str, folder: Path, *, rotate_bytes: int, clock: Clock, reader: str | None = None) -> None:
        """reader: the public key that lines are sealed to; none: they are in clear."""
        self.name: Final = name
        self._folder = folder
        self._rotate_bytes = rotate_bytes
        self._clock = clock
        self._file_name = re.compile(re.escape(name) + r"-([0-9]{8})\.ndjson")
        self._thread: ThreadPoolExecutor | None = None
        self._fd: int | None = None
        self._folder_fd: int | None = None
        self._number = 0
        self._cut = (0, 0)
        """Number and sound size of a file whose last write has failed and is still to be taken away."""
        self._recent = _RecentKeys()
        self._reader = reader
        self._sealer: LineSealer | None = None

    async def connect(self) -> None:
        await self._in_thread(self._open)

    async def deliver(self, batch: Sequence[QueuedDelivery], may_go_on: Callable[[], bool] = always) -> list[Result]:
        return await self._in_thread(lambda: self._append(batch) if may_go_on() else [NOT_ATTEMPTED] * len(batch))

    def stop(self) -> None:
        """A batch is one step."""

    async def close(self) -> None:
        await self._in_thread(self._shut)
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"file-{self.name}")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # --- in the thread ---

    def _open(self) -> None:
        try:
            if self._fd is not None and self._still_there(self._fd):
                return
            self._shut()
            if not self._folder.is_dir():
                self._folder.mkdir(mode=0o700, parents=True)
            self._folder_fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if os.fstat(self._folder_fd).st_mode & stat.S_IWOTH:
                raise ForeignFileError("everybody may write in the folder: chmod o-w")
            fd = self._open_newest()
            self._read_back(fd)
        except OSError as error:
            self._shut()
            raise self._failure("file-unusable", error) from None

    def _append(self, batch: Sequence[QueuedDelivery]) -> list[Result]:
        at = self._clock.now().isoformat()
        results: list[Result] = []
        lines: list[bytes] = []
        keys: list[str] = []
        for queued in batch:
            key = queued.delivery.idempotency_key
            if key not in self._recent:
                line = _line(queued, at)
                if line is not None and self._sealer is not None:
                    line = self._sealer.seal(key, line[:-1]) + b"\n"
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
            # Half a batch must not stay, nor may it be found later and taken for done: a disk that has failed to sync
            # once says at the next try that all is well.
            self._cut = (self._number, size)
            with contextlib.suppress(OSError):
                self._cut_off(fd)
            self._shut()
            raise self._failure("write-failed", error) from None

    def _cut_off(self, fd: int) -> None:
        """Take away what a failed write has left; again and again, until that is done. Raises OSError."""
        number, size = self._cut
        if number == self._number and os.fstat(fd).st_size > size:
            os.ftruncate(fd, size)
        self._cut = (0, 0)

    def _open_newest(self) -> int:
        while True:
            numbers = self._numbers()
            taken_away = self._number > 0 and self._number not in numbers
            number = max([1, self._number + taken_away, *numbers])
            self._fd, self._number = self._open_number(number), number
            if max(self._numbers(), default=number) == number:
                return self._fd
            os.close(self._fd)  # another process went on to the next file between the look and the lock
            self._fd = None

    def _rotate(self) -> int:
        fd = self._open_number(self._number + 1)
        old, self._fd = self._fd, fd
        if old is not None:
            os.close(old)
        self._number += 1
        return fd

    def _open_number(self, number: int) -> int:
        if self._folder_fd is None:
            raise OSError(errno.EBADF, "the folder is not open")
        fd = os.open(
            self._name(number), os.O_RDWR | os.O_CREAT | os.O_APPEND | _OPEN_FLAGS, 0o600, dir_fd=self._folder_fd
        )
        try:
            _check_ours(fd)
            os.fchmod(fd, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fsync(self._folder_fd)  # the new file's name is as durable as its lines
            self._renew_key()
        except OSError:
            os.close(fd)
            raise
        return fd

    def _renew_key(self) -> None:
        """Each file has a key of its own."""
        if self._reader is None:
            return
        if self._sealer is None:
            from engine.connectors.sealedlines import LineSealer

            self._sealer = LineSealer(self._reader)
        else:
            self._sealer.renew()

    def _read_back(self, fd: int) -> None:
        """Cut off what a crash left half written, and remember the keys of the last lines."""
        self._cut_off(fd)
        keys: list[str] = []
        size = os.fstat(fd).st_size
        sound = 0
        for end, line in _lines_backwards(fd, size):
            if not sound and _torn(line):
                continue  # it was not recorded as delivered
            sound = sound or end
            key = _key(line)
            if key is not None:
                keys.append(key)
            if len(keys) >= _WINDOW_LINES:
                break
        if sound < size:
            os.ftruncate(fd, sound)
        os.fsync(fd)  # a killed process may have written lines and not synced them; they count as done from here
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
            fd = os.open(self._name(number), os.O_RDONLY | _OPEN_FLAGS, dir_fd=self._folder_fd)
        except FileNotFoundError:  # taken away just now
            return keys
        try:
            _check_ours(fd)
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

    def _name(self, number: int) -> str:
        return f"{self.name}-{number:08d}.ndjson"

    def _still_there(self, fd: int) -> bool:
        """Whether the open file is still the one of that name: a reader may have moved it away."""
        try:
            named = os.stat(self._name(self._number), dir_fd=self._folder_fd, follow_symlinks=False)
            folder = self._folder.stat()
        except FileNotFoundError:
            return False
        own = self._folder_fd is not None and os.path.samestat(folder, os.fstat(self._folder_fd))
        return own and named.st_nlink == 1 and os.path.samestat(named, os.fstat(fd))

    def _shut(self) -> None:
        for fd in (self._fd, self._folder_fd):
            if fd is not None:
                os.close(fd)
        self._fd = self._folder_fd = None

    def _failure(self, error: str, cause: OSError | None) -> DeliveryError:
        number = cause.errno if cause is not None else None
        if isinstance(cause, ForeignFileError):
            error, text = "file-foreign", cause.text
        elif number == errno.ELOOP:
            error, text = "file-foreign", _LINK
        elif number in _NO_SPACE:
            error, text = "disk-full", "there is no space left for the files"
        elif number == errno.EWOULDBLOCK:
            error, text = "file-in-use", "another process writes to the files of this destination"
        else:
            text = os.strerror(number) if number else "the file is not open"
        return DeliveryError(self.name, error, text, kind=DeliveryFailure.TRANSIENT)


_LINK: Final = "a link stands where a file of ours should: take it away"


def _check_ours(fd: int) -> None:
    """Raises ForeignFileError."""
    found = os.fstat(fd)
    problem = _problem(found)
    if problem is None and found.st_size:
        begins = os.pread(fd, len(_BEGINNING), 0)
        # A machine that lost power may have left blocks of zeros, and half of a first line.
        if not _BEGINNING.startswith(begins) and begins.strip(b"\0"):
            problem = "a file with a name of ours does not begin as one of ours: take it away"
    if problem is not None:
        raise ForeignFileError(problem)


def _problem(found: os.stat_result) -> str | None:
    if stat.S_ISLNK(found.st_mode):
        return _LINK
    if not stat.S_ISREG(found.st_mode):
        return "something that is no regular file has a name of ours: take it away"
    if found.st_uid != os.geteuid():
        return "a file with a name of ours belongs to another user: take it away"
    if found.st_nlink != 1:
        return "a file with a name of ours has a second name (a hard link): take one away"
    return None


def folder_problem(name: str, folder: Path) -> str | None:
    """What can be seen to be wrong with a destination's folder, without touching it; none: nothing."""
    try:
        if not folder.is_dir():
            return "is no folder" if folder.exists() or folder.is_symlink() else None
        for entry in os.scandir(folder):
            if re.fullmatch(re.escape(name) + r"-([0-9]{8})\.ndjson", entry.name):
                problem = _problem(entry.stat(follow_symlinks=False))
                if problem is not None:
                    return f"{entry.name}: {problem}"
    except OSError as error:
        return f"can't be read: {error.strerror}"
    return None


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


def _torn(line: bytes) -> bool:
    """Never finished, or blocks of zeros that never reached the disk: JSON has no such byte in it."""
    return not line.endswith(b"\n") or b"\0" in line


def _lines_backwards(fd: int, size: int) -> Iterator[tuple[int, bytes]]:
    """The lines of a file from the last to the first, each with the offset behind its end.

    Read and not mapped: the process would be killed if somebody cut the file meanwhile. Raises OSError.
    """
    at = end = size
    parts: list[bytes] = []  # of the line whose beginning is looked for, the last one first
    while at > 0:
        count = min(_BLOCK_BYTES, at)
        at -= count
        block = os.pread(fd, count, at)
        if len(block) < count:
            raise OSError(errno.EIO, "the file was cut meanwhile")
        search = count if parts else count - 1  # without the byte that ends the line itself
        while (before := block.rfind(b"\n", 0, search)) >= 0:
            yield end, b"".join((block[before + 1 :], *reversed(parts)))
            end = at + before + 1
            block = block[: before + 1]
            parts = []
            search = before
        parts.append(block)
    if parts:
        yield end, b"".join(reversed(parts))
