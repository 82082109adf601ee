"""One HTTP session for outbound calls that carry credentials and PHI."""

from __future__ import annotations

import time
from typing import Any, Final

import requests

_IDLE_SECONDS_MAX: Final = 20.0
"""Connections unused for longer are dropped: the far end may have closed them, and a request lost that way is
ambiguous."""


class Session(requests.Session):
    """A session that never waits without limit, never follows a redirect and never reads ~/.netrc.

    A redirect would carry token and body to wherever it points. requests puts what ~/.netrc holds for a host over the
    Authorization header of a call. environment: whether proxies and certificate bundles of the environment apply.
    """

    def __init__(self, *, timeout_seconds: float, response_bytes_max: int, environment: bool) -> None:
        super().__init__()
        self._timeout_seconds = timeout_seconds
        self._response_bytes_max = response_bytes_max
        self._used_at = time.monotonic()
        self.trust_env = environment
        self.auth = _as_it_is  # anything but None keeps ~/.netrc out

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """As requests does it; the timeout covers the connection and each wait, and the answer as a whole.

        Raises requests.RequestException.
        """
        if time.monotonic() - self._used_at > _IDLE_SECONDS_MAX:
            self.close()  # closes its connections; the next request opens new ones
        deadline = time.monotonic() + self._timeout_seconds
        kwargs.update(timeout=self._timeout_seconds, allow_redirects=False, stream=True)
        response = super().request(method, url, *args, **kwargs)
        body = bytearray()
        for chunk in response.iter_content(1 << 16):
            body += chunk
            if len(body) > self._response_bytes_max or time.monotonic() > deadline:
                response.close()
                raise requests.ReadTimeout
        response._content = bytes(body)  # noqa: SLF001 - where requests itself keeps it; there is no other way in
        self._used_at = time.monotonic()
        return response


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
