"""A TCP proxy that is a bad network: it delays, cuts, corrupts, and stays silent with its connections open.

    with FaultProxy("127.0.0.1", port) as proxy:
        proxy.cut_after_bytes = 700          # a connection is reset when so many bytes have passed it
        socket.create_connection(("127.0.0.1", proxy.port))

What is set holds for what passes from then on, in both directions.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
import threading
import time
from typing import Final, Self

_LOOK_SECONDS: Final = 0.02
_CHUNK_BYTES_MAX: Final = 65536
_SEND_SECONDS_MAX: Final = 30.0
_RESET: Final = struct.pack("ii", 1, 0)


class FaultProxy:
    def __init__(self, host: str, port: int, *, seed: int = 1) -> None:
        self._target = (host, port)
        self._random = random.Random(seed)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listening.settimeout(_LOOK_SECONDS)
        self._closed = threading.Event()
        self._pairs: set[_Pair] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self.port: int = self._listening.getsockname()[1]
        self.delay_seconds = 0.0
        """Before each piece."""
        self.chunk_bytes = _CHUNK_BYTES_MAX
        """The size of a piece."""
        self.cut_after_bytes: int | None = None
        """A connection is reset after so many bytes; what was read and not passed on is lost."""
        self.corrupt_share = 0.0
        """So many of the pieces get one byte that is another."""
        self.frozen = False
        """Nothing passes, nothing is closed, new connections are taken: a network that has gone without a word."""
        self.connections = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()
        self._listening.close()
        self.reset_all()

    def reset_all(self) -> None:
        for pair in list(self._pairs):
            pair.broken = True

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                near, _ = self._listening.accept()
            except TimeoutError:
                continue
            self.connections += 1
            try:
                far = socket.create_connection(self._target, timeout=_SEND_SECONDS_MAX)
            except OSError:
                _reset(near)
                continue
            near.settimeout(_SEND_SECONDS_MAX)
            pair = _Pair(near, far)
            self._pairs.add(pair)
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(pair, one, other), daemon=True).start()

    def _pump(self, pair: _Pair, one: socket.socket, other: socket.socket) -> None:
        """Pass on what comes from one to the other until that ends."""
        look = select.poll()
        look.register(one, select.POLLIN)
        try:
            while not pair.broken:
                if self.frozen:
                    time.sleep(_LOOK_SECONDS)
                    continue
                if not look.poll(_LOOK_SECONDS * 1000):
                    continue
                data = one.recv(self.chunk_bytes)
                if not data:
                    other.shutdown(socket.SHUT_WR)
                    break
                if self.delay_seconds:
                    time.sleep(self.delay_seconds)
                if self.cut_after_bytes is not None:
                    data = data[: max(self.cut_after_bytes - pair.passed, 0)]
                pair.passed += len(data)
                other.sendall(self._changed(data))
                if self.cut_after_bytes is not None and pair.passed >= self.cut_after_bytes:
                    pair.broken = True
        except OSError:
            pair.broken = True
        if pair.leave():
            self._pairs.discard(pair)

    def _changed(self, data: bytes) -> bytes:
        if not data or self._random.random() >= self.corrupt_share:
            return data
        at = self._random.randrange(len(data))
        return data[:at] + bytes((data[at] ^ self._random.randrange(1, 256),)) + data[at + 1 :]


class _Pair:
    """A connection and its other half. Whoever of the two pumps ends last closes both."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self._sockets = (near, far)
        self._lock = threading.Lock()
        self._pumps = 2
        self.passed = 0
        self.broken = False

    def leave(self) -> bool:
        with self._lock:
            self._pumps -= 1
            last = not self._pumps
        if last:
            for one in self._sockets:
                _reset(one) if self.broken else one.close()
        return last


def _reset(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    one.close()
