"""Who has a port of this machine, as far as the kernel tells us."""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTENING: Final = "0A"


def who_has(port: int) -> str | None:
    """Who listens at a port of this machine, as far as we may see it: `pid 4242 (nginx)`, or the user."""
    owners = dict(_listening(port))
    if not owners:
        return None
    wanted = {f"socket:[{inode}]" for inode in owners}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(handle.readlink()) in wanted for handle in (process / "fd").iterdir()):
                return f"pid {process.name} ({(process / 'comm').read_text().strip()})"
        except OSError:
            continue
    return f"a process of {user_name(next(iter(owners.values())))}"


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"


def _listening(port: int) -> Iterator[tuple[str, int]]:
    """The sockets that listen at a port, by inode, and whose they are."""
    for table in _TABLES:
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING and fields[1].endswith(f":{port:04X}"):
                yield fields[9], int(fields[7])
