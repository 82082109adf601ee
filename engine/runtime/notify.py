"""What systemd and the daemon tell each other: readiness, watchdog, and the sockets that were opened for us.

Protocols: sd_notify(3), sd_listen_fds(3). Both are a few lines; no library is needed for them.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

_FIRST_FD: Final = 3  # SD_LISTEN_FDS_START


class Systemd:
    """The service manager, when there is one; every method does nothing when there is none."""

    def __init__(self, environ: MutableMapping[str, str] | None = None) -> None:
        # Taken out of the environment, so that the worker does not speak for the daemon.
        env = os.environ if environ is None else environ
        self._address = env.pop("NOTIFY_SOCKET", "")
        watchdog_us, watchdog_pid = env.pop("WATCHDOG_USEC", ""), env.pop("WATCHDOG_PID", "")
        mine = not watchdog_pid or watchdog_pid == str(os.getpid())
        seconds = int(watchdog_us) / 1_000_000 / 2 if mine and watchdog_us.isdigit() else 0.0
        self.watchdog_seconds = seconds or None
        """How often the watchdog must be told that we live (half of its limit); none: never."""

    def ready(self, text: str) -> None:
        self._tell(f"READY=1\nSTATUS={text}")

    def status(self, text: str) -> None:
        self._tell(f"STATUS={text}")

    def alive(self) -> None:
        self._tell("WATCHDOG=1")

    def reloading(self) -> None:
        """The monotonic time is what Type=notify-reload needs to tell this reload from an earlier one."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def _tell(self, message: str) -> None:
        if not self._address:
            return
        # A leading @ is the abstract namespace, which the kernel writes as a NUL.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(1.0)
                sock.sendto(message.encode(), address)
        except OSError:
            return  # a service manager that does not listen is no reason to stop


def activated_sockets(environ: MutableMapping[str, str] | None = None) -> dict[str, socket.socket]:
    """Listening sockets that systemd opened for us, by FileDescriptorName (a channel's name, or `console`).

    Reads and removes LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES, so that a child does not take them for its own.
    """
    env = os.environ if environ is None else environ
    pid, count, names = (env.pop(key, "") for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    found: dict[str, socket.socket] = {}
    for index, name in enumerate(names.split(":")[: int(count)] if names else ["unknown"] * int(count)):
        fd = _FIRST_FD + index
        os.set_inheritable(fd, False)  # noqa: FBT003 - the standard library's signature
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        if name in found:
            sock.close()  # two sockets under one name: one channel listens in one place
            continue
        found[name] = sock
    return found
