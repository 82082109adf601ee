"""A Salesforce org for tests: a real HTTP server that follows the documented REST API as far as Handoff uses it.

Which custom fields it has is read from the metadata in `salesforce/`, so that the field map and the metadata can't
drift apart: an unknown field is refused as the real one refuses it.

    python -m tests.peers.salesforce_org --port 8099        # prints one line of JSON with its address

What goes wrong is scripted, in the process by `org.fail(...)`, from outside by `POST /_control/faults` (a list of
objects with the fields of `Fault`). `GET /_control/records/<object>` and `GET /_control/calls` show what arrived.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import re
import secrets
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import jwt

METADATA = Path(__file__).parents[2] / "salesforce" / "force-app" / "main" / "default"
_NS = "{http://soap.sforce.com/2006/04/metadata}"


@dataclass
class FieldInfo:
    type: str
    length: int | None = None
    external_id: bool = False
    unique: bool = False
    case_sensitive: bool = False
    required: bool = False
    reference_to: tuple[str, ...] = ()


@dataclass
class Fault:
    """Something that goes wrong `times` times.

    on: `token`, `upsert`, the name of an object (its upserts), or `any`. status and body: answered instead of doing it.
    row: only the record with this external id fails, with `code`. delay_seconds: the answer is late. drop: the
    connection is closed `before` or `after` it was done. results: the results of an upsert are `short` (one missing),
    `long` (one too many), `same` (every id the same), `garbage` (no JSON), `scalar` (JSON, but no list).
    """

    on: str = "upsert"
    times: int = 1
    status: int | None = None
    body: Any = None
    row: str | None = None
    code: str | None = None
    delay_seconds: float = 0.0
    drop: str | None = None
    results: str | None = None


@dataclass
class Call:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int = 0


def _text(length: int) -> FieldInfo:
    return FieldInfo("Text", length=length)


_STANDARD: dict[str, dict[str, FieldInfo]] = {
    "Account": {
        "Name": _text(255), "FirstName": _text(40), "LastName": _text(80), "Phone": _text(40),
        "PersonBirthdate": FieldInfo("Date"), "PersonMailingStreet": _text(255), "PersonMailingCity": _text(40),
        "PersonMailingState": _text(80), "PersonMailingPostalCode": _text(20), "PersonMailingCountry": _text(80),
        "RecordTypeId": FieldInfo("Lookup", reference_to=("RecordType",)),
    },
    "Task": {
        "Subject": _text(255), "Status": _text(255), "Priority": _text(255), "ActivityDate": FieldInfo("Date"),
        "Description": _text(32000), "WhatId": FieldInfo("Lookup", reference_to=("Account", "HandoffEncounter__c")),
    },
}  # fmt: skip
_PREFIXES = {"Account": "001", "Task": "00T", "RecordType": "012"}


def read_schema(metadata: Path = METADATA) -> dict[str, dict[str, FieldInfo]]:
    """Objects and their fields: the standard ones known here, the custom ones of the metadata."""
    schema = {name: dict(fields) for name, fields in _STANDARD.items()}
    for path in sorted(metadata.glob("objects/*/fields/*.field-meta.xml")):
        name = path.parts[-3]
        root = ET.parse(path).getroot()  # noqa: S314 - our own files

        def value(tag: str, root: ET.Element = root) -> str | None:
            return root.findtext(_NS + tag)

        length = value("length")
        reference = value("referenceTo")
        kind = value("type") or ""
        schema.setdefault("Task" if name == "Activity" else name, {})[value("fullName") or ""] = FieldInfo(
            type=kind,
            length=int(length) if length else None,
            external_id=value("externalId") == "true",
            unique=value("unique") == "true",
            case_sensitive=value("caseSensitive") == "true",
            required=value("required") == "true" or kind == "MasterDetail",
            reference_to=(reference,) if reference else (),
        )
    return schema


class _RefusedError(Exception):
    """The call as a whole is refused."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status)
        self.status = status
        self.body = body


def _error(status: int, code: str, message: str) -> _RefusedError:
    return _RefusedError(status, [{"message": message, "errorCode": code}])


class _RowError(Exception):
    def __init__(self, code: str, message: str, fields: list[str] | None = None) -> None:
        super().__init__(code)
        self.error = {"statusCode": code, "message": message, "fields": fields or []}


@dataclass
class SalesforceOrg:
    """Credentials are made up unless given. token_seconds: how long a session lives."""

    client_id: str = "handoff-test"
    client_secret: str = field(default_factory=lambda: secrets.token_hex(8))
    username: str = "integration@example.com"
    public_key: str | None = None
    api_version: str = "62.0"
    token_seconds: float = 3600.0
    port: int = 0

    def __post_init__(self) -> None:
        self.schema = read_schema()
        self.records: dict[str, list[dict[str, Any]]] = {name: [] for name in self.schema}
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.tokens: dict[str, float] = {}
        self._indexes: dict[tuple[str, str], defaultdict[str | None, list[dict[str, Any]]]] = {}
        """Rows by object and external id, so that a million of them are as quick to find as ten."""
        self._ids: Counter[str] = Counter()
        self._lock = threading.RLock()
        org = self

        class Handler(_Handler):
            pass

        Handler.org = org
        self._server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    # --- what tests use ---

    def start(self) -> SalesforceOrg:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve_forever(self) -> None:
        self._server.serve_forever()

    def fail(self, **fault: Any) -> None:
        with self._lock:
            self.faults.append(Fault(**fault))

    def expire_tokens(self) -> None:
        with self._lock:
            self.tokens.clear()

    def find(self, name: str, **where: Any) -> list[dict[str, Any]]:
        with self._lock:
            return [dict(row) for row in self.records[name] if all(row.get(k) == v for k, v in where.items())]

    def one(self, name: str, **where: Any) -> dict[str, Any]:
        (found,) = self.find(name, **where)
        return found

    def upserts(self) -> list[Call]:
        return [call for call in list(self.calls) if call.method == "PATCH"]

    def logins(self) -> list[Call]:
        return [call for call in list(self.calls) if call.path.startswith("/services/oauth2/token")]

    # --- faults ---

    def take_fault(self, path: str) -> Fault | None:
        """The next scripted fault of a whole call."""
        names = {"any", "token"} if path.startswith("/services/oauth2/token") else {"any", "upsert", *path.split("/")}
        with self._lock:
            for fault in self.faults:
                if fault.on in names and fault.row is None:
                    return self._use(fault)
        return None

    def _row_fault(self, key: str) -> Fault | None:
        for fault in self.faults:
            if fault.row == key:
                return self._use(fault)
        return None

    def _use(self, fault: Fault) -> Fault:
        fault.times -= 1
        if fault.times <= 0:
            self.faults.remove(fault)
        return fault

    # --- OAuth ---

    def token(self, form: dict[str, str], authorization: str | None) -> dict[str, Any]:
        kind = form.get("grant_type")
        if kind == "client_credentials":
            client_id, secret = form.get("client_id"), form.get("client_secret")
            if authorization and authorization.startswith("Basic "):
                client_id, _, secret = base64.b64decode(authorization[6:]).decode().partition(":")
            if (client_id, secret) != (self.client_id, self.client_secret):
                raise _RefusedError(400, {"error": "invalid_client", "error_description": "invalid client credentials"})
        elif kind == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            self._check_assertion(form.get("assertion", ""))
        else:
            raise _RefusedError(
                400, {"error": "unsupported_grant_type", "error_description": "grant type not supported"}
            )
        token = f"00D{secrets.token_hex(16)}"
        with self._lock:
            self.tokens[token] = time.monotonic() + self.token_seconds
        return {
            "access_token": token, "instance_url": self.url, "token_type": "Bearer", "issued_at": "0",
            "id": f"{self.url}/id/00D/005", "signature": "",
        }  # fmt: skip

    def _check_assertion(self, assertion: str) -> None:
        try:
            claims = jwt.decode(
                assertion,
                self.public_key or "",
                algorithms=["RS256"],
                audience=[self.url, "https://login.salesforce.com", "https://test.salesforce.com"],
                options={"require": ["iss", "sub", "aud", "exp"]},
            )
        except (jwt.PyJWTError, ValueError):
            raise _RefusedError(400, {"error": "invalid_grant", "error_description": "invalid assertion"}) from None
        if claims["iss"] != self.client_id or claims["sub"] != self.username:
            raise _RefusedError(
                400, {"error": "invalid_grant", "error_description": "user hasn't approved this consumer"}
            )
        if claims["exp"] > time.time() + 300:
            raise _RefusedError(400, {"error": "invalid_grant", "error_description": "expiry is too far in the future"})

    def check_session(self, authorization: str | None) -> None:
        token = (authorization or "").removeprefix("Bearer ")
        with self._lock:
            if self.tokens.get(token, 0.0) < time.monotonic():
                raise _error(401, "INVALID_SESSION_ID", "Session expired or invalid")

    # --- records ---

    def upsert_collection(self, name: str, key_field: str, body: Any) -> list[dict[str, Any]]:
        """`PATCH composite/sobjects/<name>/<key_field>`."""
        self._check_key_field(name, key_field)
        if not isinstance(body, dict) or not isinstance(body.get("records"), list):
            raise _error(400, "JSON_PARSER_ERROR", "The HTTP entity body is required")
        records = body["records"]
        if len(records) > 200:
            raise _error(400, "LIMIT_EXCEEDED", "The number of records exceeds the limit of 200")
        for record in records:
            if record.get("attributes", {}).get("type") != name:
                raise _error(400, "INVALID_INPUT", "Include a valid type attribute in each record")
            self._check_shape(name, record)
        keys = Counter(self._comparable(name, key_field, record.get(key_field)) for record in records)
        results = []
        with self._lock:
            for record in records:
                try:
                    twice = keys[self._comparable(name, key_field, record.get(key_field))] > 1
                    results.append(self._upsert_row(name, key_field, record, twice=twice))
                except _RowError as error:
                    results.append({"success": False, "errors": [error.error]})
        if body.get("allOrNone"):
            raise NotImplementedError("Handoff never asks for it")
        return results

    def _upsert_row(self, name: str, key_field: str, record: dict[str, Any], *, twice: bool) -> dict[str, Any]:
        key = record.get(key_field)
        if not isinstance(key, str) or not key.strip():
            raise _RowError("MISSING_ARGUMENT", f"{key_field} not specified", [key_field])
        if twice:
            raise _RowError("DUPLICATE_VALUE", f"Duplicate external id specified: {key}", [key_field])
        fault = self._row_fault(key)
        if fault is not None:
            raise _RowError(fault.code or "UNKNOWN_EXCEPTION", f"{fault.code}: {key}")
        values = self._values(name, record)
        found = self._matches(name, key_field, key)
        if len(found) > 1:
            raise _RowError("DUPLICATE_EXTERNAL_ID", f"{key_field}: more than one record found for external id {key}")
        if found:
            self._keep(name, found[0], values)
            return {"id": found[0]["Id"], "success": True, "errors": [], "created": False}
        self._check_required(name, values)
        row: dict[str, Any] = {"Id": self._new_id(name)}
        self.records[name].append(row)
        self._keep(name, row, values)
        return {"id": row["Id"], "success": True, "errors": [], "created": True}

    def upsert_one(self, name: str, key_field: str, key: str, record: dict[str, Any]) -> tuple[int, Any]:
        """`PATCH sobjects/<name>/<key_field>/<key>`: 201 created, 204 changed, 300 several found."""
        self._check_key_field(name, key_field)
        self._check_shape(name, record)
        with self._lock:
            found = self._matches(name, key_field, key)
            if len(found) > 1:
                urls = [f"/services/data/v{self.api_version}/sobjects/{name}/{row['Id']}" for row in found]
                raise _RefusedError(300, urls)
            try:
                result = self._upsert_row(name, key_field, {**record, key_field: key}, twice=False)
            except _RowError as error:
                raise _error(400, error.error["statusCode"], error.error["message"]) from None
        return (201, result) if result["created"] else (204, None)

    def query(self, soql: str) -> dict[str, Any]:
        """`SELECT a, b FROM Object [WHERE field = 'value']`."""
        match = re.fullmatch(r"SELECT (.+) FROM (\w+)(?: WHERE (\w+) = '((?:[^'\\]|\\.)*)')?", soql.strip(), re.I)
        if match is None or match[2] not in self.records:
            raise _error(400, "MALFORMED_QUERY", "unexpected token")
        columns = [column.strip() for column in match[1].split(",")]
        wanted = re.sub(r"\\(.)", r"\1", match[4]) if match[4] is not None else None
        with self._lock:
            rows = [row for row in self.records[match[2]] if wanted is None or row.get(match[3]) == wanted]
        found = [{column: row.get(column) for column in columns} for row in rows]
        return {"totalSize": len(found), "done": True, "records": found}

    def _matches(self, name: str, key_field: str, key: str) -> list[dict[str, Any]]:
        index = self._indexes.get((name, key_field))
        if index is None:
            index = self._indexes[name, key_field] = defaultdict(list)
            for row in self.records[name]:
                index[self._comparable(name, key_field, row.get(key_field))].append(row)
        return list(index.get(self._comparable(name, key_field, key), ()))

    def _keep(self, name: str, row: dict[str, Any], values: dict[str, Any]) -> None:
        indexes = [(field_, index) for (of, field_), index in self._indexes.items() if of == name]
        for field_, index in indexes:
            known = index[self._comparable(name, field_, row.get(field_))]
            known[:] = [other for other in known if other is not row]
        row.update(values)
        for field_, index in indexes:
            index[self._comparable(name, field_, row.get(field_))].append(row)

    def _comparable(self, name: str, key_field: str, key: Any) -> str | None:
        """As Salesforce compares external ids: trimmed, and without regard to case unless the field says otherwise."""
        if not isinstance(key, str):
            return None
        return key.strip() if self.schema[name][key_field].case_sensitive else key.strip().casefold()

    def _check_key_field(self, name: str, key_field: str) -> None:
        info = self.schema.get(name, {}).get(key_field)
        if info is None or not info.external_id:
            raise _error(
                404, "NOT_FOUND", "Provided external ID field does not exist or is not accessible: " + key_field
            )

    def _field_of(self, name: str, key: str) -> tuple[str, FieldInfo] | None:
        """The field that a name in a record means; relationships are named `Patient__r`, `What`."""
        fields = self.schema[name]
        if key in fields:
            return key, fields[key]
        for column in (key.removesuffix("__r") + "__c" if key.endswith("__r") else "", key + "Id"):
            if column in fields and fields[column].reference_to:
                return column, fields[column]
        return None

    def _check_shape(self, name: str, record: dict[str, Any]) -> None:
        """What the server finds when it reads the call, before any record is touched: it refuses all of it."""
        for key, value in record.items():
            if key == "attributes":
                continue
            found = self._field_of(name, key)
            if found is None:
                raise _error(400, "INVALID_FIELD", f"No such column '{key}' on sobject of type {name}")
            kind = found[1].type
            if value is None or isinstance(value, dict):
                continue
            if kind in {"Date", "DateTime"} and not _is_time(kind, value):
                raise _error(400, "JSON_PARSER_ERROR", f"Cannot deserialize instance of {kind} from {value!r}")
            if kind == "Checkbox" and not isinstance(value, bool):
                raise _error(400, "JSON_PARSER_ERROR", "Cannot deserialize instance of boolean")
            if kind == "Number" and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise _error(400, "JSON_PARSER_ERROR", "Cannot deserialize instance of double")

    def _values(self, name: str, record: dict[str, Any]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in record.items():
            if key == "attributes":
                continue
            found = self._field_of(name, key)
            assert found is not None
            column, info = found
            if isinstance(value, dict):
                values[column] = self._referred(info, value)
            elif isinstance(value, str) and info.length is not None and len(value) > info.length:
                raise _RowError("STRING_TOO_LONG", f"{column}: data value too large: {value}", [column])
            elif value is None and info.type == "Checkbox":
                raise _RowError("INVALID_TYPE_ON_FIELD_IN_RECORD", f"{column}: value not of required type", [column])
            else:
                values[column] = value.strip() or None if isinstance(value, str) else value
        return values

    def _referred(self, info: FieldInfo, value: dict[str, Any]) -> str:
        target = value.get("attributes", {}).get("type") or info.reference_to[0]
        ((by, wanted),) = ((k, v) for k, v in value.items() if k != "attributes")
        if target == "RecordType":
            if wanted == "Person Account":
                return "012000000000001AAA"
            found: list[dict[str, Any]] = []
        else:
            found = self._matches(target, by, wanted) if target in info.reference_to else []
        if len(found) != 1:
            raise _RowError(
                "INVALID_FIELD", f"Foreign key external ID: {wanted} not found for field {by} in entity {target}"
            )
        return str(found[0]["Id"])

    def _check_required(self, name: str, values: dict[str, Any]) -> None:
        missing = [column for column, info in self.schema[name].items() if info.required and not values.get(column)]
        if name == "Account" and not values.get("LastName") and not values.get("Name"):
            missing.append("LastName" if values.get("RecordTypeId") else "Name")
        if missing:
            raise _RowError("REQUIRED_FIELD_MISSING", f"Required fields are missing: {missing}", missing)

    def _new_id(self, name: str) -> str:
        self._ids[name] += 1
        prefix = _PREFIXES.get(name, f"a{sorted(self.schema).index(name):02d}")
        return f"{prefix}{self._ids[name]:012d}AAA"


def _is_time(kind: str, value: Any) -> bool:
    try:
        if kind == "Date":
            return date.fromisoformat(value) is not None and len(value) == 10
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client may hang up
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    org: SalesforceOrg
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/_control/"):
            self._answer(*self._control(body))
            return
        call = Call(self.command, self.path, dict(self.headers.items()), body)
        self.org.calls.append(call)
        fault = self.org.take_fault(self.path) or Fault()
        if fault.drop == "before":
            self.close_connection = True
            return
        status, answer = fault.status or 0, fault.body
        if not status:
            try:
                status, answer = self._api(body)
            except _RefusedError as error:
                status, answer = error.status, error.body
        call.status = status
        if fault.delay_seconds:
            time.sleep(fault.delay_seconds)
        if fault.drop == "after":
            self.close_connection = True
            return
        self._answer(status, _spoiled(answer, fault.results))

    def _api(self, body: bytes) -> tuple[int, Any]:
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.split("/")[1:]]
        if parts == ["services", "oauth2", "token"]:
            form = {key: values[0] for key, values in parse_qs(body.decode()).items()}
            return 200, self.org.token(form, self.headers.get("Authorization"))
        self.org.check_session(self.headers.get("Authorization"))
        if parts[:3] != ["services", "data", f"v{self.org.api_version}"]:
            raise _error(404, "NOT_FOUND", "The requested resource does not exist")
        match (self.command, *parts[3:]):
            case ("PATCH", "composite", "sobjects", name, key_field):
                return 200, self.org.upsert_collection(name, key_field, self._json(body))
            case ("PATCH", "sobjects", name, key_field, key):
                return self.org.upsert_one(name, key_field, key, self._json(body))
            case ("GET", "query") | ("GET", "query", ""):
                return 200, self.org.query(parse_qs(url.query)["q"][0])
            case _:
                raise _error(404, "NOT_FOUND", "The requested resource does not exist")

    def _json(self, body: bytes) -> Any:
        try:
            return json.loads(body)
        except ValueError:
            raise _error(400, "JSON_PARSER_ERROR", "Unexpected character") from None

    def _control(self, body: bytes) -> tuple[int, Any]:
        org = self.org
        match (self.command, *self.path.split("/")[2:]):
            case ("POST", "faults"):
                for fault in json.loads(body):
                    org.fail(**fault)
                return 200, {}
            case ("POST", "expire"):
                org.expire_tokens()
                return 200, {}
            case ("GET", "records", name):
                return 200, org.find(name)
            case ("GET", "calls"):
                return 200, [
                    {"method": call.method, "path": call.path, "status": call.status, "body": call.body.decode()}
                    for call in list(org.calls)
                ]
            case _:
                return 404, {}

    def _answer(self, status: int, answer: Any) -> None:
        data = b"" if answer is None else answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json;charset=UTF-8")
        self.send_header("Content-Length", str(len(data)))
        if status in {301, 302, 307, 308}:
            self.send_header("Location", f"{self.org.url}/elsewhere")
        self.send_header("Sforce-Limit-Info", "api-usage=18/5000")
        self.end_headers()
        with contextlib.suppress(OSError):  # the client gave up waiting
            self.wfile.write(data)


def _spoiled(answer: Any, how: str | None) -> Any:
    match how:
        case "short":
            return answer[:-1]
        case "long":
            return [*answer, answer[-1]]
        case "same":
            return [{**item, "id": answer[0]["id"]} for item in answer]
        case "garbage":
            return b"<html>not what you asked for</html>"
        case "scalar":
            return 5
        case _:
            return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--client-id", default="handoff-test")
    parser.add_argument("--client-secret", default="handoff-test-secret")
    parser.add_argument("--username", default="integration@example.com")
    parser.add_argument("--public-key", type=Path, help="PEM file: the key that JWT assertions are checked with")
    parser.add_argument("--token-seconds", type=float, default=3600.0)
    options = parser.parse_args()
    org = SalesforceOrg(
        client_id=options.client_id,
        client_secret=options.client_secret,
        username=options.username,
        public_key=options.public_key.read_text() if options.public_key else None,
        token_seconds=options.token_seconds,
        port=options.port,
    )
    sys.stdout.write(json.dumps({"url": org.url, "port": org.port}) + "\n")
    sys.stdout.flush()
    org.serve_forever()


if __name__ == "__main__":
    main()
