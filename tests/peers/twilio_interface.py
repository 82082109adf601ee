"""What Twilio has published of its interface (OpenAPI), as checks of calls and of answers.

The file beside this one says where it is from. It says only what a request and its good answer look like: what goes
wrong, signatures and calls of ours are documented elsewhere, and are the peer's. It names no parameter as forbidden;
here one that it does not know is a misfit, because Twilio ignores it without a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft7Validator, FormatChecker

_FILE: Final = Path(__file__).with_suffix(".json")
_DOCUMENT: Final[dict[str, Any]] = json.loads(_FILE.read_text(encoding="utf-8"))
((PLACE, _OPERATIONS),) = _DOCUMENT["paths"].items()
STATUSES: Final[tuple[str, ...]] = tuple(_DOCUMENT["components"]["schemas"]["message_enum_status"]["enum"])

_formats = FormatChecker()


@_formats.checks("date-time-rfc-2822", raises=ValueError)
def _is_rfc_2822(value: object) -> bool:
    return not isinstance(value, str) or parsedate_to_datetime(value).tzinfo is not None


def _plain(node: Any, *, closed: bool) -> Any:
    """JSON Schema of OpenAPI 3.0: `nullable` is a type there. closed: objects have what is named and nothing else."""
    if isinstance(node, list):
        return [_plain(one, closed=closed) for one in node]
    if not isinstance(node, dict):
        return node
    made = {key: _plain(value, closed=closed) for key, value in node.items() if key != "nullable"}
    if node.get("nullable") and "type" in made:
        made["type"] = [made["type"], "null"]
    if closed and isinstance(node.get("properties"), dict):
        made["additionalProperties"] = False
    return made


def _validator(schema: Mapping[str, Any]) -> Draft7Validator:
    whole = {**_plain(schema, closed=True), "components": _plain(_DOCUMENT["components"], closed=True)}
    Draft7Validator.check_schema(whole)
    return Draft7Validator(whole, format_checker=_formats)


def _parameters(where: str) -> dict[str, Any]:
    found = [one for one in _OPERATIONS["get"]["parameters"] if one["in"] == where]
    return {
        "type": "object",
        "properties": {one["name"]: one["schema"] for one in found},
        "required": [one["name"] for one in found if one.get("required")],
    }


_FORM: Final = _OPERATIONS["post"]["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
_QUERY: Final = _parameters("query")
_CHECKS: Final = {
    "path": _validator(_parameters("path")),
    "create": _validator(_FORM),
    "list": _validator(_QUERY),
    "created": _validator(_OPERATIONS["post"]["responses"]["201"]["content"]["application/json"]["schema"]),
    "listed": _validator(_OPERATIONS["get"]["responses"]["200"]["content"]["application/json"]["schema"]),
}


def misfits_of_call(kind: str, account: str, given: Mapping[str, str]) -> list[str]:
    """kind: `create` or `list`. given: its parameters, all of them texts on the wire."""
    schema = _FORM if kind == "create" else _QUERY
    typed = {name: _typed(value, schema["properties"].get(name, {})) for name, value in given.items()}
    return [*_misfits("path", {"AccountSid": account}), *_misfits(kind, typed)]


def misfits_of_answer(kind: str, answer: Any) -> list[str]:
    """kind: `created` or `listed`. Twilio's own have every field, so one that is missing is a misfit too."""
    whole = [answer] if kind == "created" else answer.get("messages", [])
    fields = set(_DOCUMENT["components"]["schemas"]["api.v2010.account.message"]["properties"])
    missing = {f"{kind}: has no {name}" for one in whole for name in fields - set(one)}
    return [*_misfits(kind, answer), *sorted(missing)]


def examples(kind: str) -> Iterator[tuple[str, Any]]:
    """Twilio's own answers. kind: `created` or `listed`."""
    status, operation = ("201", "post") if kind == "created" else ("200", "get")
    content = _OPERATIONS[operation]["responses"][status]["content"]["application/json"]
    yield from ((name, one["value"]) for name, one in content["examples"].items())


def _typed(value: str, schema: Mapping[str, Any]) -> Any:
    match schema.get("type"):
        case "integer" if value.lstrip("-").isdecimal():
            return int(value)
        case "boolean" if value in {"true", "false"}:
            return value == "true"
        case "array":
            return [value]
    return value


def _misfits(kind: str, value: Any) -> list[str]:
    return [f"{kind}: {error.json_path}: {error.message}" for error in _CHECKS[kind].iter_errors(value)]
