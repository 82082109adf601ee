"""Whose process is at the other end of a TCP connection of this machine: what SO_PEERCRED says of a UNIX socket."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

_ESTABLISHED: Final = "01"
"""Only then is there a process for sure: a socket that was closed belongs to nobody, and is listed as root's."""
_MAPPED: Final = "0000000000000000FFFF0000"


def peer_uid(transport: Any) -> int | None:
    """The user who made the connection. None: it can't be told, as for one from another machine or container.

    transport: an asyncio transport of a TCP connection that is still open.
    """
    peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    if not peer or not own:
        return None
    try:
        return find_uid(_entries(), _address(peer), _address(own))
    except (OSError, ValueError):
        return None


def find_uid(lines: Iterator[str], peer: str, own: str) -> int | None:
    """The owner of the peer's socket. lines: of /proc/net/tcp. peer, own: addresses as they stand there."""
    wanted = {(peer, own), (f"{_MAPPED}{peer}", f"{_MAPPED}{own}")}
    for line in lines:
        fields = line.split()
        if len(fields) > 7 and fields[3] == _ESTABLISHED and (fields[1], fields[2]) in wanted:
            return int(fields[7])
    return None


def _entries() -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        yield from Path(f"/proc/{os.getpid()}/net/{table}").read_text(encoding="ascii").splitlines()[1:]


def _address(name: tuple[Any, ...]) -> str:
    """As the kernel prints it: words of 32 bits in the order of this machine."""
    host, port = name[:2]
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
