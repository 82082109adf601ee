"""Places outside of the database for checkpoints of the trail: a file that lines are added to, a receiver of syslog, a
destination.
"""

from __future__ import annotations

import os
import socket
import ssl
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from engine.domain.checkpoint import BYTES_MAX, Checkpoint, read
from engine.errors import CheckpointError
from engine.tls import harden

if TYPE_CHECKING:
    from engine.settings import CheckpointPlace, Configuration

_FILE_BYTES_MAX: Final = 1 << 30
CHECKPOINT_SECONDS_MAX: Final = 5.0
"""That writing one to a place may take."""
_FACILITY_AUDIT: Final = 13
"""RFC 5424, table 1: log audit."""
_NOTICE: Final = 5
ENTERPRISE: Final = "32473"
"""Private enterprise number of structured data: that of examples (RFC 5612), as long as we have none."""


class Place(Protocol):
    @property
    def name(self) -> str: ...

    def write(self, checkpoint: Checkpoint) -> None:
        """Raises CheckpointError."""

    def read(self) -> list[Checkpoint] | None:
        """All there are; none: they can't be read back from here. Raises CheckpointError."""


def places_of(configuration: Configuration) -> list[Place]:
    """Of a broken configuration, which has no destinations, without those."""
    known = configuration.site.destinations
    named = configuration.site.trail.checkpoints
    return [_place(one, configuration) for one in named if one.destination is None or one.destination in known]


def _place(one: CheckpointPlace, configuration: Configuration) -> Place:
    if one.file is not None:
        return FilePlace(configuration.path(one.file))
    if one.syslog is not None:
        return SyslogPlace(one.syslog)
    from engine.connectors.registry import destination_settings

    name = one.destination or ""
    return destination_settings(name, configuration).checkpoint_place(name, configuration)


class FilePlace:
    """One line of JSON each. The file is only ever added to; it is made, for its owner only, when it is not there."""

    def __init__(self, path: Path) -> None:
        self.name = f"file {path}"
        self._path = path

    def write(self, checkpoint: Checkpoint) -> None:
        try:
            if not self._path.parent.exists():
                self._path.parent.mkdir(mode=0o700, parents=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            handle = os.open(self._path, flags, 0o600)
            try:
                status = os.fstat(handle)
                if not stat.S_ISREG(status.st_mode):
                    raise CheckpointError(f"{self.name}: is no file")
                if status.st_size > _FILE_BYTES_MAX:
                    raise CheckpointError(f"{self.name}: is too long; move it away and keep it for `audit verify`")
                # On a line of its own, whatever a crash has left of the one before.
                begin = b"" if self._ends(status.st_size) else b"\n"
                os.write(handle, begin + checkpoint.written() + b"\n")
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise CheckpointError(f"{self.name}: can't be written: {error.strerror}") from None

    def read(self) -> list[Checkpoint] | None:
        found: list[Checkpoint] = []
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return found
        except OSError as error:
            raise CheckpointError(f"{self.name}: can't be read: {error.strerror}") from None
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise CheckpointError(f"{self.name}: is no file")
            for number, line in enumerate(iter(lambda: file.readline(BYTES_MAX), b""), 1):
                if not line.strip():
                    continue
                checkpoint = read(line)
                if checkpoint is None:
                    if line.endswith(b"\n") or len(line) >= BYTES_MAX:
                        raise CheckpointError(f"{self.name}: line {number} is no checkpoint: somebody has altered it")
                    continue  # a crash has cut the last one off
                found.append(checkpoint)
        return found

    def last(self) -> Checkpoint | None:
        """The one at the end of the file, without a look at the others; none: there is none, or it can't be read."""
        try:
            with self._path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 2 * BYTES_MAX))
                lines = file.read().splitlines()
        except OSError:
            return None
        return next((one for one in map(read, reversed(lines)) if one is not None), None)

    def _ends(self, size: int) -> bool:
        """Whether the last line is whole."""
        if size == 0:
            return True
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


class SyslogPlace:
    """One message of RFC 5424 each; over TCP and TLS with its length before it (RFC 6587, RFC 5425)."""

    def __init__(self, address: str) -> None:
        self.name = f"syslog {address}"
        self._address = address

    def write(self, checkpoint: Checkpoint) -> None:
        try:
            self._send(message(checkpoint, socket.gethostname()))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise CheckpointError(f"{self.name}: can't be reached: {why}") from None

    def read(self) -> list[Checkpoint] | None:
        return None

    def _send(self, data: bytes) -> None:
        if self._address.startswith("unix:"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as local:
                local.settimeout(CHECKPOINT_SECONDS_MAX)
                local.connect(self._address.removeprefix("unix:"))
                local.send(data)
            return
        url = urlsplit(self._address)
        host, port = url.hostname or "", url.port or 514
        if url.scheme == "udp":
            family, kind, proto, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind, proto) as plain:
                plain.settimeout(CHECKPOINT_SECONDS_MAX)
                plain.connect(where)
                plain.send(data)
            return
        framed = b"%d %b" % (len(data), data)
        with socket.create_connection((host, port), timeout=CHECKPOINT_SECONDS_MAX) as stream:
            if url.scheme == "tls":
                with harden(ssl.create_default_context()).wrap_socket(stream, server_hostname=host) as sealed:
                    sealed.sendall(framed)
            else:
                stream.sendall(framed)


def message(checkpoint: Checkpoint, host: str) -> bytes:
    """As a message of RFC 5424; its content can be given to `read` again."""
    one = checkpoint
    data = f'[trail@{ENTERPRISE} chain="{one.chain}" seq="{one.seq}" mac="{one.mac}" key="{one.key}"]'
    at = one.at.isoformat(timespec="milliseconds")
    head = f"<{_FACILITY_AUDIT * 8 + _NOTICE}>1 {at} {host[:255] or '-'} handoff - trail-checkpoint {data} "
    return head.encode("ascii", "replace") + one.written()
