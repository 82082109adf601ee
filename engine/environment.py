"""Variables of the environment that hold secrets: a daemon reads them once, and takes them out of it.

Whoever may look at a process's environment (`/proc/PID/environ`, a crash handler, a program that it starts) then finds
them there no more. They are kept here, for reloads, and handed to workers over their socket.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping

_held: dict[str, str] = {}


def variable(name: str) -> str | None:
    return _held.get(name, os.environ.get(name))


def hold(names: Iterable[str]) -> None:
    """Take these out of the environment, also out of the memory that the kernel shows as such."""
    for name in names:
        if name in os.environ:
            _held[name] = os.environ[name]
            _wipe(name)
            del os.environ[name]


def receive(values: Mapping[str, str]) -> None:
    """In a worker: what the main process holds for it."""
    _held.update(values)


def held_for(texts: Iterable[str]) -> dict[str, str]:
    """What is held, of variables that these files name."""
    all_ = "\n".join(texts)
    return {name: value for name, value in _held.items() if name in all_}


def _wipe(name: str) -> None:
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.getenv.restype = ctypes.c_void_p
        place = libc.getenv(os.fsencode(name))
        if place:
            ctypes.memset(place, 0, len(os.fsencode(os.environ[name])))
