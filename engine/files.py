"""The one reader of files that a configuration names: YAML, values behind `{file: ...}`, keys, certificates.

Whoever edits a configuration can name anything: a FIFO that nobody writes to, a device without end, a link to one, a
terabyte. Only regular files are read, without waiting, and no more of them than fits the purpose.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from pathlib import Path
from typing import Final

from engine.errors import HandoffError

SECRET_BYTES_MAX: Final = 1 << 20
"""A value behind `{file: ...}`, a key, a certificate or a list of authorities."""

_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class UnreadableFileError(HandoffError):
    """A file can't be used. `reason` says why, without the path."""

    def __init__(self, path: Path, reason: str, *, missing: bool = False) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason
        self.missing = missing
        """It is not there."""


def read_regular(path: Path, *, bytes_max: int) -> bytes:
    """What a regular file holds, behind links too. Raises UnreadableFileError."""
    content, _ = read_with_status(path, bytes_max=bytes_max)
    return content


def read_with_status(path: Path, *, bytes_max: int) -> tuple[bytes, os.stat_result]:
    """As `read_regular`, with the status of the very file that was read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableFileError(path, f"is {_kind(status.st_mode)}, not a file")
            if status.st_size > bytes_max:
                raise UnreadableFileError(path, _too_long(bytes_max))
            return _read_up_to(path, handle, bytes_max), status
        finally:
            os.close(handle)
    except OSError as error:
        reason = "is a socket, not a file" if error.errno == errno.ENXIO else f"can't be read: {error.strerror}"
        raise UnreadableFileError(path, reason, missing=error.errno == errno.ENOENT) from None
    except ValueError:  # a NUL in its name
        raise UnreadableFileError(path, "can't be read: this is no name of a file") from None


def writable_by_others(path: Path) -> bool:
    """Whether anybody of this machine may change what it holds; false when that can't be found out.

    In a folder with the sticky bit (/tmp) everybody may add files, and change only their own.
    """
    try:
        mode = path.stat().st_mode
        return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX
    except OSError:
        return False


def writable_by_group(path: Path) -> bool:
    """Whether others than its owner may change what a folder holds through their group; false when that can't be told.

    A group that has its owner's name and nobody else in it is the owner alone, as many systems make one for each user.
    """
    try:
        status = path.stat()
        if not status.st_mode & stat.S_IWGRP or status.st_mode & stat.S_ISVTX:
            return False
        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except OSError:
        return False
    except KeyError:  # nobody has that number
        return status.st_gid != status.st_uid
    return not (group.gr_gid == owner.pw_gid and set(group.gr_mem) <= {owner.pw_name})


def foreign_folder(path: Path) -> bool:
    """Whether a folder belongs to somebody who is neither root nor us; false when that can't be told.

    Root reads the files of the service's user in folders of that user.
    """
    try:
        owner = path.stat().st_uid
    except OSError:
        return False
    return os.geteuid() != 0 and owner not in {0, os.geteuid()}


def foreign_owner(status: os.stat_result, folder: Path) -> bool:
    """Whether a file belongs to somebody who is neither root, nor us, nor (for root) whoever owns its folder."""
    trusted = {0, os.geteuid()}
    if os.geteuid() == 0:  # root looks at the site of the service's user
        try:
            of_folder = folder.stat()
        except OSError:
            return status.st_uid not in trusted
        if not of_folder.st_mode & stat.S_IWOTH:
            trusted.add(of_folder.st_uid)
    return status.st_uid not in trusted


def _read_up_to(path: Path, handle: int, bytes_max: int) -> bytes:
    """Files of /proc say that they are empty, and others grow while they are read: what comes is what counts."""
    parts: list[bytes] = []
    left = bytes_max + 1
    while left > 0 and (part := os.read(handle, min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
    if left <= 0:
        raise UnreadableFileError(path, _too_long(bytes_max))
    return b"".join(parts)


def _kind(mode: int) -> str:
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")


def _too_long(bytes_max: int) -> str:
    return f"is larger than {bytes_max >> 10:,} KiB"
