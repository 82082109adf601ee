"""Errors as `application/problem+json` (RFC 9457). Their texts never hold a value that came with the request."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web

from engine.desk.acting import ActError
from engine.errors import (
    AccountError,
    DeniedError,
    HandoffError,
    NotFoundError,
    SettingsError,
    StoreError,
    StoreUnavailableError,
    WhichError,
)

TYPE: Final = "application/problem+json"


class ProblemError(Exception):
    """A request that is answered by a problem. detail: for people, without a value of the request."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


def bad(detail: str) -> ProblemError:
    return ProblemError(400, detail)


def no_entry(detail: str = "log in, or send a token") -> ProblemError:
    return ProblemError(401, detail, {"WWW-Authenticate": 'Bearer realm="handoff"'})


def too_often(seconds: float) -> ProblemError:
    wait = max(1, round(seconds + 0.5))
    return ProblemError(429, f"too many requests: wait {wait} s", {"Retry-After": str(wait)})


_STATUS: Final[Mapping[type[HandoffError], int]] = {
    DeniedError: 403,
    NotFoundError: 404,
    WhichError: 404,
    AccountError: 409,
    ActError: 409,
    StoreUnavailableError: 503,
    StoreError: 409,
    SettingsError: 503,
}
"""By the first of these that an error is."""
_IN_GENERAL: Final = {503: "the store or the configuration can't be used now; the daemon's log says why"}


def of_error(error: HandoffError) -> ProblemError:
    """What is said of an error of ours: its own words are for people, and hold nothing of a patient."""
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 400)
    detail = str(error) if isinstance(error, StoreUnavailableError) or status != 503 else _IN_GENERAL[503]
    if isinstance(error, WhichError):
        detail = "there is none of this name"
        if error.known:
            detail += f"; there are {', '.join(error.known[:12])}"
    return ProblemError(status, detail)


def response(problem: ProblemError) -> web.Response:
    title = HTTPStatus(problem.status).phrase
    said = {"type": "about:blank", "title": title, "status": problem.status, "detail": problem.detail}
    return web.Response(
        body=msgspec.json.encode(said),
        status=problem.status,
        headers={"Content-Type": TYPE, "Cache-Control": "no-store", **problem.headers},
    )
