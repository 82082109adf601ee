"""Who sits at the command line, as the kernel says. No variable of the environment counts: anybody can set one.

The person is who logged in (the login uid of the kernel's audit, which sudo and su do not change). Where nothing sets
it, as in containers, it is the user of the nearest process above this one that ran as another user than this one and
root: the shell from which sudo was called. Where there is none, it is the user of this process.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

_UNSET: Final = 0xFFFFFFFF
_ABOVE_MAX: Final = 64
PROC: Final = Path("/proc")


class LocalUser(NamedTuple):
    uid: int
    """Of the person."""
    name: str
    process_uid: int
    """Real uid of this process."""
    owns_keys: bool = False
    """The person owns the key file of the site, or is root."""
    opens_keys: bool = False
    """The user of this process does."""


def local_user(keys: Path | None = None, *, proc: Path = PROC, uid: int | None = None) -> LocalUser:
    """keys: the key file, where there is one. proc, uid: others than this process's, for tests."""
    own = os.getuid() if uid is None else uid
    person = _login_uid(proc)
    if person is None:
        person = _uid_above(proc, own)
    owners = {0} | _owner(keys)
    return LocalUser(person, user_name(person), own, person in owners, own in owners)


def user_name(uid: int, look_up: Callable[[int], pwd.struct_passwd] = pwd.getpwuid) -> str:
    try:
        return look_up(uid).pw_name
    except KeyError:
        return f"uid-{uid}"


def _owner(keys: Path | None) -> set[int]:
    try:
        return set() if keys is None else {keys.stat().st_uid}
    except OSError:
        return set()


def _login_uid(proc: Path) -> int | None:
    try:
        uid = int((proc / "self/loginuid").read_text())
    except (OSError, ValueError):
        return None
    return None if uid == _UNSET else uid


def _uid_above(proc: Path, own: int) -> int:
    """The user of the nearest process above that is neither this one's nor root's; else this one's."""
    pid = "self"
    for _ in range(_ABOVE_MAX):
        status = _status(proc, pid)
        if status is None:
            return own
        uid, pid = status
        if uid not in {own, 0}:
            return uid
    return own


def _status(proc: Path, pid: str) -> tuple[int, str] | None:
    """Real uid and parent of a process; none: there is no more."""
    try:
        lines = (proc / pid / "status").read_text(errors="replace").splitlines()
        fields = dict(line.partition(":")[::2] for line in lines)
        return int(fields["Uid"].split()[0]), fields["PPid"].strip()
    except (OSError, KeyError, ValueError, IndexError):
        return None
