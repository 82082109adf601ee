"""A TCP server that answers as no server should: raw bytes, chosen by the test, whatever it is asked.

`answer` is written as soon as the request's head has come. `drip`: it is repeated byte by byte, for as long as the
client stays, at most `DRIP_SECONDS_MAX`. `silent`: not even a TLS handshake is answered.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Self

DRIP_SECONDS_MAX = 30.0
_DRIP_SECONDS = 0.05


class RudeServer:
    def __init__(self, answer: bytes = b"", *, drip: bytes = b"", silent: bool = False) -> None:
        self.answer = answer
        self.drip = drip
        self.silent = silent
        self.heads: list[bytes] = []
        """Of the requests that came."""
        self.connections = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        for sock in self._open:
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                self.connections += 1
                self._open.append(sock)
                if not self.silent:
                    threading.Thread(target=self._serve, args=[sock], daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                data = sock.recv(1 << 16)
                if not data:
                    return
                head += data
            self.heads.append(head)
            sock.sendall(self.answer)
            if not self.drip:
                sock.shutdown(socket.SHUT_WR)
                return
            until = time.monotonic() + DRIP_SECONDS_MAX
            while time.monotonic() < until:
                for at in range(len(self.drip)):
                    sock.sendall(self.drip[at : at + 1])
                    time.sleep(_DRIP_SECONDS)
