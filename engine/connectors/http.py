"""One HTTP session for outbound calls that carry credentials and PHI, each of which ends when its time is up.

The timeouts of requests are not enough for that: they begin anew with each address of a host and with each byte that
arrives. Here a timer ends the call: it shuts the socket down, whatever the thread waits for on it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context

_IDLE_SECONDS_MAX: Final = 20.0
"""Connections unused for longer are dropped: the far end may have closed them, and a request lost that way is
ambiguous."""


class Session(requests.Session):
    """A session that never waits without limit, never follows a redirect and never reads ~/.netrc.

    A redirect would carry token and body to wherever it points. requests puts what ~/.netrc holds for a host over the
    Authorization header of a call. Answers are taken as they are, never unpacked: a small one could become a huge one.
    Nothing of the environment applies: a variable that somebody has left there must not send what we hold elsewhere.
    proxy: its URL. ca: a PEM file of authorities, in place of the usual ones.
    """

    def __init__(
        self, *, timeout_seconds: float, response_bytes_max: int, proxy: str | None = None, ca: Path | None = None
    ) -> None:
        super().__init__()
        self._timeout_seconds = timeout_seconds
        self._response_bytes_max = response_bytes_max
        self._used_at = time.monotonic()
        self._call = _Call()
        self.trust_env = False
        if proxy is not None:
            self.proxies = {"http": proxy, "https": proxy}
        if ca is not None:
            self.verify = str(ca)
        self.auth = _as_it_is  # anything but None keeps ~/.netrc out
        self.headers["Accept-Encoding"] = "identity"
        for scheme in ("https://", "http://"):
            self.mount(scheme, _Adapter(self._call))

    @property
    def sent(self) -> bool:
        """Whether any of the last request was sent: if not, nobody can have acted on it."""
        return self._call.sent

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """As requests does it, within the time allowed for all of it. Raises requests.RequestException."""
        if time.monotonic() - self._used_at > _IDLE_SECONDS_MAX:
            self.close()  # closes its connections; the next request opens new ones
        kwargs.update(timeout=self._timeout_seconds, allow_redirects=False, stream=True)
        with self._call.within(self._timeout_seconds):
            try:
                response = super().request(method, url, *args, **kwargs)
                self._read(response)
            except (requests.RequestException, HTTPError) as error:
                too_late = self._call.over or isinstance(error, requests.Timeout)
                raise (requests.ReadTimeout if too_late else requests.ConnectionError) from None
            if self._call.over:  # cut off where an answer may end as well: nobody knows whether this one did
                raise requests.ReadTimeout
        self._used_at = time.monotonic()
        return response

    def _read(self, response: requests.Response) -> None:
        body = bytearray()
        for chunk in response.raw.stream(1 << 16, decode_content=False):
            body += chunk
            if len(body) > self._response_bytes_max:
                response.close()
                raise requests.ReadTimeout
        response._content = bytes(body)  # noqa: SLF001 - where requests itself keeps it; there is no other way in
        response.encoding = "utf-8"  # what JSON is in; guessing it out of a large answer would take minutes


class _Call:
    """The request under way: how long it may take, and the sockets that end it when that is over."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._until = 0.0
        self._sockets: list[socket.socket] = []
        self.sent = False
        self.over = False

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        with self._lock:
            self._number += 1
            self._until = time.monotonic() + seconds
            self.sent = self.over = False
        timer = threading.Timer(seconds, self._end, [self._number])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                for sock in self._sockets:
                    sock.close()
                self._sockets.clear()

    def seconds_left(self) -> float:
        return self._until - time.monotonic()

    def uses(self, sock: socket.socket) -> None:
        """The call goes over this socket. A handle of our own is kept: TLS takes the socket itself away."""
        with self._lock:
            self._sockets.append(socket.socket(fileno=os.dup(sock.fileno())))
        if self.seconds_left() <= 0:
            self._end(self._number)

    def _end(self, number: int) -> None:
        with self._lock:
            if number != self._number:  # the call was just over, and another has begun
                return
            self.over = True
            for sock in self._sockets:
                with contextlib.suppress(OSError):  # it is no longer connected
                    sock.shutdown(socket.SHUT_RDWR)


def _context() -> ssl.SSLContext:
    context = create_urllib3_context()
    context.keylog_filename = None  # type: ignore[assignment]  # what SSLKEYLOGFILE of the environment has set
    return context


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


class _Adapter(HTTPAdapter):
    """Gives every connection, also one to a proxy, the call it works for."""

    def __init__(self, call: _Call) -> None:
        self._call = call
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=_context(), **kwargs)
        self._watch(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, ssl_context=_context(), **kwargs)
        if not known:
            self._watch(manager)
        return manager

    def _watch(self, manager: PoolManager) -> None:
        call = self._call

        class Plain(_Watched, HTTPConnection):
            of = call

        class Tls(_Watched, HTTPSConnection):
            of = call

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class TlsPool(HTTPSConnectionPool):
            ConnectionCls = Tls

        manager.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}


class _Watched:
    """What is mixed into urllib3's connections."""

    of: _Call

    def _new_conn(self: Any) -> socket.socket:
        """As urllib3 does it, but all addresses of the host share the time that is left."""
        call = self.of
        try:
            found = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise NameResolutionError(self.host, self, socket.gaierror("not found")) from None
        for number, (family, kind, protocol, _, address) in enumerate(found, 1):
            # The first address gets most of the time, the last one all of what is left.
            seconds = call.seconds_left() if number == len(found) else call.seconds_left() / 2
            if seconds <= 0:
                break
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(seconds)
                sock.connect(address)
            except OSError:
                sock.close()
                continue
            sock.settimeout(self.timeout)
            call.uses(sock)
            return sock
        if call.seconds_left() <= 0:
            raise ConnectTimeoutError(self, "no connection within the time allowed")
        raise NewConnectionError(self, "no address of the host takes a connection")

    def request(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            self.of.uses(self.sock)  # kept alive since an earlier call
        super().request(*args, **kwargs)  # type: ignore[misc]  # of the connection that this is mixed into

    def send(self: Any, data: Any) -> None:
        if self.sock is None and self.auto_open:
            self.connect()
        self.of.sent = True
        super().send(data)  # type: ignore[misc]  # as above
