"""OpenAPI 3.1, made of the table of routes."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from engine import __version__
from engine.access.actions import CATALOGUE
from engine.console.asked import LIMIT, LIMIT_MAX, SAID_CHARACTERS_MAX
from engine.console.door import CSRF
from engine.console.routes import ROUTES, Route

_REFS: Final = "#/components/schemas/{name}"
_CURSOR: Final = "^[A-Za-z0-9_-]{1,400}$"
_PERCENT_ENCODED: Final = "^(%[2-7][0-9A-Fa-f]|[A-Za-z0-9._~-])+$"
_PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "For people; it never holds what was sent."},
    },
}
_SHAPE: Final = {"type": "object", "description": "As the command of the same name prints it with --json."}
_LIST: Final = {
    "type": "object",
    "required": ["items", "next"],
    "properties": {
        "items": {"type": "array", "items": _SHAPE},
        "next": {"type": ["string", "null"], "description": "`cursor` of the next page; null: this is the last."},
    },
}
_ERRORS: Final = {
    "400": "Something of the request is not as it has to be.",
    "401": "Nobody has logged in, or it does not count any more.",
    "403": "The actor may not; the trail has it.",
    "404": "There is no such thing.",
    "409": "It can't be done as things are.",
    "412": "It has changed since it was read.",
    "413": "The body is too large.",
    "415": "Send application/json.",
    "421": "Asked by a name that is not this console's.",
    "429": "Too many requests.",
    "503": "The store or the daemon can't be used now.",
}


def document() -> dict[str, Any]:
    bodies = [route.body for route in ROUTES if route.body is not None]
    _, schemas = msgspec.json.schema_components(bodies, ref_template=_REFS)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Handoff",
            "version": __version__,
            "description": "What the commands show and do. Patient data is masked unless X-Reveal-Reason says why not.",
        },
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": _PROBLEM},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "`handoff users token`"},
                "session": {"type": "apiKey", "in": "cookie", "name": "__Host-handoff"},
            },
        },
        "security": [{"token": []}, {"session": []}],
    }


def _operation(route: Route) -> dict[str, Any]:
    parameters = [
        {"name": one.name, "in": "path", "required": True, "description": one.says, "schema": dict(one.schema)}
        for one in route.at
    ]
    parameters += [_query(one.name, one.says, dict(one.schema), many=one.many) for one in route.query]
    if route.lists is not None:
        limit = {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT}
        parameters.append(_query("limit", "So many at most.", limit))
        if route.lists[1]:
            parameters.append(_query("cursor", "`next` of the page before.", {"type": "string", "pattern": _CURSOR}))
    if route.reveals:
        says = "Show patient data unmasked; why, percent-encoded. It is on the trail."
        schema = {"type": "string", "pattern": _PERCENT_ENCODED, "maxLength": SAID_CHARACTERS_MAX}
        parameters.append(_header("X-Reveal-Reason", says, schema))
    if route.tagged and route.method == "POST":
        parameters.append(_header("If-Match", "Do it only if the task is still as this ETag says."))
    if route.method != "GET" and route.door != "log-in":
        parameters.append(_header(CSRF, "With a cookie: what `GET /api/v1/session` says."))
    ok: dict[str, Any] = {"description": "It is so."}
    if route.daemon == "metrics":
        ok["content"] = {"text/plain": {"schema": {"type": "string"}}}
    elif route.door == "log-out":
        pass
    else:
        lists = route.lists is not None or route.path.endswith(("/groups", "/destinations", "/replay", "/discard"))
        ok["content"] = {"application/json": {"schema": _LIST if lists else _SHAPE}}
    if route.tagged:
        ok["headers"] = {"ETag": {"description": "The version that is shown.", "schema": {"type": "string"}}}
    problem = {"application/problem+json": {"schema": {"$ref": _REFS.format(name="Problem")}}}
    operation: dict[str, Any] = {
        "operationId": re.sub(r"[^a-z]+", "-", f"{route.method} {route.path.removeprefix('/api/v1')}".lower()).strip(
            "-"
        ),
        "summary": route.says,
        "description": f"Action `{route.action}`: {CATALOGUE[route.action].says}.",
        "parameters": parameters,
        "responses": {
            "204" if route.door == "log-out" else "200": ok,
            **{code: {"description": says, "content": problem} for code, says in _ERRORS.items()},
        },
    }
    if route.daemon == "reload":
        operation["responses"]["409"] = ok | {"description": "It was not taken; the answer says why."}
    if route.body is not None:
        schema = {"$ref": _REFS.format(name=route.body.__name__)}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if route.door == "log-in":
        operation["security"] = []
    return operation


def _query(name: str, says: str, schema: dict[str, Any], *, many: bool = False) -> dict[str, Any]:
    shape = {"type": "array", "items": schema, "maxItems": 20} if many else schema
    return {"name": name, "in": "query", "required": False, "description": says, "schema": shape}


def _header(name: str, says: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    shape = schema or {"type": "string"}
    return {"name": name, "in": "header", "required": False, "description": says, "schema": shape}
