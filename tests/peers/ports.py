"""Ports for tests that must know one before anybody listens there.

A port that the system gave and that was let go of again may be anybody's a moment later: of another test's server, or
of a connection that it makes. These are ports that the system gives to nobody by itself, and each test process has its
own.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST: Final = 10_000
_EACH: Final = 400


def _candidates() -> Iterator[int]:
    """Those of this process, again and again."""
    worker = re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", ""))
    ephemeral = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32_768
    shares = max(1, (ephemeral - _FIRST) // _EACH)
    # Without xdist by the process, so that two runs on one machine seldom meet; what is in use is passed over anyway.
    share = (os.getppid() + int(worker) if worker else os.getpid()) % shares
    while True:
        yield from range(_FIRST + share * _EACH, _FIRST + (share + 1) * _EACH)


_ports = _candidates()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has, and that nobody else will get."""
    for port in _ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
