"""A machine that fails on demand: disk, clock and name service of a daemon, switched while it runs (see machine.c)."""

from __future__ import annotations

import errno
import mmap
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("machine.c")
EAI_AGAIN: Final = -3
"""What a name service that does not answer looks like."""
_NAMES: Final = ("sync_error", "sync_delay_us", "write_error", "clock_offset_ns", "dns_error", "syncs", "failed")
_PAGE_BYTES: Final = mmap.PAGESIZE


def compiler() -> str | None:
    return shutil.which("gcc") or shutil.which("cc")


def build(folder: Path) -> Path:
    """The library that is preloaded."""
    library = folder / "machine.so"
    command = [compiler() or "cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


class Machine:
    """The machine of one site. Give `environment` to its daemon."""

    def __init__(self, library: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        control = folder / "machine.control"
        control.write_bytes(bytes(_PAGE_BYTES))
        with control.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), _PAGE_BYTES)
        self._environment = {"LD_PRELOAD": str(library), "FAULTS_CONTROL": str(control)}

    def environment(self, below: Path) -> dict[str, str]:
        """below: the folder whose files meet the errors of the disk."""
        return self._environment | {"FAULTS_BELOW": str(below.resolve())}

    @contextmanager
    def syncs_fail(self) -> Iterator[None]:
        """EIO, as a dying disk says it."""
        self._set("sync_error", errno.EIO)
        yield
        self._set("sync_error", 0)

    @contextmanager
    def syncs_take(self, seconds: float) -> Iterator[None]:
        self._set("sync_delay_us", int(seconds * 1_000_000))
        yield
        self._set("sync_delay_us", 0)

    @contextmanager
    def writes_fail(self, error: int) -> Iterator[None]:
        """error: an errno. EROFS is what a file system says that the kernel has put to read-only."""
        self._set("write_error", error)
        yield
        self._set("write_error", 0)

    def clock_is_ahead(self, seconds: float) -> None:
        """The wall clock jumps; the monotonic one, which measures how long things take, does not."""
        self._set("clock_offset_ns", int(seconds * 1_000_000_000))

    @contextmanager
    def names_unknown(self) -> Iterator[None]:
        self._set("dns_error", EAI_AGAIN)
        yield
        self._set("dns_error", 0)

    @property
    def syncs(self) -> int:
        """How often a file was synced since the start."""
        return self._get("syncs")

    @property
    def failed(self) -> int:
        """How many calls were made to fail since the start."""
        return self._get("failed")

    def _set(self, name: str, value: int) -> None:
        struct.pack_into("=q", self._page, 8 * _NAMES.index(name), value)

    def _get(self, name: str) -> int:
        number: int = struct.unpack_from("=q", self._page, 8 * _NAMES.index(name))[0]
        return number
