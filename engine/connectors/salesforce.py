"""Deliveries as records of a Salesforce org: upserts by external id, up to 200 a call.

The call is sObject Collections (`PATCH composite/sobjects/<object>/<external id field>`, allOrNone false): external ids
travel in the body, never in a URL, and each record has its own result. Upserts by external id may be repeated, so an
attempt with an unknown outcome is simply made again.

simple-salesforce 1.12 does the calls, with its habits kept out: it is given a session token and never logs in by itself
(its own log-in repeats without end while the org answers 401); it is given a session whose calls are made by the one
HTTP client (`connectors.http`); and its exceptions, which hold URL and body, never leave this module: what comes out
are codes.

It works synchronously, so all of it happens in one thread of its own.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec
from pydantic import Field, model_validator

from engine.clock import Clock
from engine.connectors.base import (
    DELIVERED,
    NOT_ATTEMPTED,
    NOTHING_TO_SEND,
    DestinationSettings,
    Result,
    always,
    delivered,
    failed,
    stamps,
)
from engine.connectors.fieldmap import FieldMap, Row, UnsafeKeyError, compile_field_map
from engine.connectors.salesforce_codes import CODES, OAUTH_ERRORS
from engine.domain.delivery import STATE, Operation, QueuedDelivery
from engine.errors import DeliveryError, DeliveryFailure, Problem, SettingsError
from engine.settings import LOOPBACK, Configuration, HostSuffix, HttpsUrl, Identifier, ProxyUrl, Secret, Text

if TYPE_CHECKING:
    import requests

    from engine.connectors.http import HttpClient

RECORDS_MAX: Final = 200
"""Records in one call of sObject Collections."""

_RESPONSE_BYTES_MAX: Final = 2 << 20
_JWT_SECONDS: Final = 180
"""Salesforce takes no assertion that is valid for longer."""
_LIMIT_REST_SECONDS: Final = 60.0
"""The daily limit of API calls is a rolling one: calls come free again, and a refused call does not count."""
_RACE_ATTEMPTS: Final = 3

_RECORD_ID: Final = re.compile(r"[A-Za-z0-9]{15,18}")
_INSTANCE: Final = re.compile(r"https?://(?P<host>[a-z0-9.-]+|\[::1\])(:[0-9]{1,5})?")
_DOMAINS: Final = ("salesforce.com", "salesforce.mil")
"""Whose hosts are Salesforce's: a log-in at one of them may lead to any other."""

_TRANSIENT: Final[Mapping[str, float | None]] = {
    "UNABLE_TO_LOCK_ROW": None,
    "SERVER_UNAVAILABLE": None,
    "SERVER_TOO_BUSY": None,
    "REQUEST_RUNNING_TOO_LONG": None,
    "QUERY_TIMEOUT": None,
    "TOO_MANY_APEX_REQUESTS": None,
    "UNKNOWN_EXCEPTION": None,  # Salesforce's own fault
    "PROCESSING_HALTED": None,
    "ALL_OR_NONE_OPERATION_ROLLED_BACK": None,
    "REQUEST_LIMIT_EXCEEDED": _LIMIT_REST_SECONDS,
    "STORAGE_LIMIT_EXCEEDED": _LIMIT_REST_SECONDS,
    "API_CURRENTLY_DISABLED": None,
}
"""Codes that may go away by themselves, with the seconds that it takes at least."""

_OF_THE_ORG: Final = frozenset(
    {
        "SERVER_UNAVAILABLE",
        "SERVER_TOO_BUSY",
        "TOO_MANY_APEX_REQUESTS",
        "REQUEST_LIMIT_EXCEEDED",
        "STORAGE_LIMIT_EXCEEDED",
        "API_CURRENTLY_DISABLED",
    }
)
"""Those that speak of the org: any other record would get the same answer."""

_RACES: Final = frozenset({"DUPLICATE_VALUE", "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY"})
"""Codes that are final when they stay: DUPLICATE_VALUE also comes when the org is still at work on an earlier attempt
of ours that was given up after its timeout, and a trigger that ran into a locked record says CANNOT_INSERT_....
They get a few attempts and are permanent then."""

_MISSING_PATIENT: Final = "REQUIRED_FIELD_MISSING"

Answer = TypeVar("Answer")


class SalesforceDestination(DestinationSettings):
    """A Salesforce org, written through its REST API."""

    takes: ClassVar = STATE - {Operation.UPSERT_APPOINTMENT.what, Operation.UPSERT_TEXT.what}

    type: Literal["salesforce"]
    """`salesforce`: a Salesforce org."""
    login_url: HttpsUrl
    """Address to log in at, `https://MY_DOMAIN.my.salesforce.com`."""
    client_id: Text
    """Consumer key of the connected app."""
    client_secret: Secret | None = None
    """Consumer secret (client credentials flow): a reference, never the secret itself."""
    username: Text | None = None
    """User to act as (JWT bearer flow)."""
    private_key: Secret | None = None
    """Private key in PEM (JWT bearer flow): a reference, `{file: PATH}` or `{credential: NAME}`."""
    api_version: Annotated[str, Field(pattern=r"^[0-9]{2,3}\.0$")] = "62.0"
    """Version of the REST API."""
    mapping: Identifier = "salesforce"
    """Field map: the name of a file in mappings/destinations/."""
    instance_hosts: tuple[HostSuffix, ...] = ()
    """Hosts (and what is below them) to which the log-in may send us, besides the login server's own. Below
    salesforce.com every host is one."""
    proxy: ProxyUrl | None = None
    """`http://HOST:PORT` of the proxy to go through; none: none, whatever the environment says."""
    ca: Text | None = None
    """PEM file of the authorities that may have signed the org's or the proxy's certificate; none: the usual ones."""

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> SalesforceDestination:
        if self.client_secret is None and (self.username is None or self.private_key is None):
            raise ValueError("needs client_secret (client credentials), or username and private_key (JWT bearer)")
        if self.client_secret is not None and self.private_key is not None:
            raise ValueError("has both client_secret and private_key: give one of them")
        return self

    def field_map_file(self, configuration: Configuration) -> str:
        return f"{configuration.site.mappings}/destinations/{self.mapping}.yaml"

    def made_from(self, configuration: Configuration) -> tuple[object, ...]:
        field_map = configuration.snapshot.files.get(self.field_map_file(configuration))
        return (field_map, configuration.site.calendar.timezone, *stamps(configuration, self.ca))

    def build(self, name: str, configuration: Configuration, *, clock: Clock) -> SalesforceConnector:
        file = self.field_map_file(configuration)
        if file not in configuration.snapshot.files:
            place = ("destinations", name, "mapping")
            raise SettingsError((configuration.site_document.problem(place, f"there is no {file}"),))
        zone = ZoneInfo(configuration.site.calendar.timezone)
        return SalesforceConnector(
            name,
            self,
            compile_field_map(configuration.snapshot.document(file), zone=zone),
            clock=clock,
            ca=configuration.path(self.ca) if self.ca is not None else None,
        )

    def check_files(self, name: str, configuration: Configuration) -> Iterator[Problem]:
        if self.ca is None:
            return
        try:
            ssl.create_default_context(cafile=str(configuration.path(self.ca)))
        except OSError:  # also what ssl raises for a file that is no certificate
            text = f"{self.ca} can't be used: it must be a readable PEM file of certificates"
            yield configuration.site_document.problem(("destinations", name, "ca"), text)


class _CallError(Exception):
    """A call as a whole failed. Holds codes only."""

    def __init__(self, kind: DeliveryFailure, error: str, text: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(error)
        self.kind = kind
        self.error = error
        self.text = text
        self.retry_after_seconds = retry_after_seconds


class _RejectedError(Exception):
    """The org refused the whole call as it is (400 and the like). Holds the code only.

    schema: the refusal is of the object or its fields, so it is the same for every record.
    """

    def __init__(self, code: str, *, schema: bool) -> None:
        super().__init__(code)
        self.code = code
        self.schema = schema


class _SessionEndedError(Exception):
    """401: the token has expired or was revoked."""


class SalesforceConnector:
    idempotent: Final = True
    ordered_batches: Final = False

    def __init__(
        self, name: str, settings: SalesforceDestination, field_map: FieldMap, *, clock: Clock, ca: Path | None = None
    ) -> None:
        self.name: Final = name
        self._ca = ca
        self._settings = settings
        self._map = field_map
        self._clock = clock
        self._thread: ThreadPoolExecutor | None = None
        self._client: HttpClient | None = None
        self._http: requests.Session | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._org: Any = None  # simple_salesforce.Salesforce, which is not typed
        self._stopping = threading.Event()
        self._may_go_on: Callable[[], bool] = always

    async def connect(self) -> None:
        if self._org is None:
            await self._in_thread(self._log_in)

    async def deliver(self, batch: Sequence[QueuedDelivery], may_go_on: Callable[[], bool] = always) -> list[Result]:
        self._may_go_on = may_go_on
        return await self._in_thread(lambda: self._deliver(batch))

    def stop(self) -> None:
        self._stopping.set()

    async def close(self) -> None:
        self._stopping.clear()
        thread, self._thread = self._thread, None
        client, self._client, self._http, self._org = self._client, None, None, None
        if client is not None:
            await client.close()
        if thread is not None:
            thread.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"salesforce-{self.name}")
        self._loop = asyncio.get_running_loop()
        try:
            return await self._loop.run_in_executor(self._thread, work)
        except _CallError as error:
            raise DeliveryError(
                self.name, error.error, error.text, kind=error.kind, retry_after_seconds=error.retry_after_seconds
            ) from None

    # --- in the thread ---

    def _deliver(self, batch: Sequence[QueuedDelivery]) -> list[Result]:
        results: list[Result | None] = [None] * len(batch)
        rows: list[tuple[int, Row]] = []
        now = self._clock.now()
        for index, queued in enumerate(batch):
            row = self._row(queued, now)
            if isinstance(row, Result):
                results[index] = row
            else:
                rows.append((index, row))
        calls = deque(_calls(rows))
        answered = False
        while calls and self._may_begin():
            call = calls.popleft()
            try:
                answers = self._upsert([row for _, row in call])
            except _RejectedError as error:
                answered = True
                if error.schema or len(call) == 1:
                    answers = [{"success": False, "errors": [{"statusCode": error.code}]}] * len(call)
                else:
                    # One record can spoil a whole call (a value the org cannot even parse): halve until it is alone.
                    middle = len(call) // 2
                    calls.extendleft((call[middle:], call[:middle]))
                    continue
            except _CallError as error:
                if not answered:
                    raise
                if error.kind is DeliveryFailure.AMBIGUOUS:
                    for index, _ in call:
                        results[index] = failed(error.kind, error.error, error.text, of_destination=True)
                break
            answered = True
            for (index, _), answer in zip(call, answers, strict=True):
                results[index] = _judge(answer, batch[index], self._clock.now())
        return [result or NOT_ATTEMPTED for result in results]

    def _may_begin(self) -> bool:
        return not self._stopping.is_set() and self._may_go_on()

    def _row(self, queued: QueuedDelivery, now: Any) -> Row | Result:
        operation = queued.delivery.operation
        if not self._map.knows(operation):
            return failed(DeliveryFailure.PERMANENT, "not-mapped", "the field map has no rule for this operation")
        try:
            payload = msgspec.json.decode(queued.delivery.payload)
            row = self._map.row(operation, payload, now)
        except msgspec.DecodeError:
            return failed(DeliveryFailure.PERMANENT, "payload-unreadable", "the delivery holds no JSON object")
        except UnsafeKeyError as error:
            return failed(DeliveryFailure.PERMANENT, "key-unsafe", str(error))
        return row if row is not None else NOTHING_TO_SEND

    def _upsert(self, rows: Sequence[Row]) -> list[Mapping[str, Any]]:
        """The org's result for each record of one object, each with another external id.

        Raises _CallError, or _RejectedError when the org refuses the call for what is in it.
        """
        try:
            return self._call(rows)
        except _SessionEndedError:
            self._org = None
        if not self._may_begin():
            raise _CallError(DeliveryFailure.TRANSIENT, "session-ended", "the token has expired")
        try:
            return self._call(rows)
        except _SessionEndedError:
            # Once is enough: a new token that is refused as well is no matter of time.
            self._org = None
            raise _CallError(
                DeliveryFailure.TRANSIENT, "session-refused", "the org refuses a token it has just given"
            ) from None

    def _call(self, rows: Sequence[Row]) -> list[Mapping[str, Any]]:
        import requests
        from simple_salesforce.exceptions import SalesforceError

        path = f"composite/sobjects/{rows[0].object}/{rows[0].key_field}"
        if self._org is None:
            self._log_in()
            if not self._may_begin():
                raise _CallError(DeliveryFailure.TRANSIENT, "stopped", "the engine stops, or has hung meanwhile")
        body = _body(rows)
        try:
            answer = self._org.restful(path, method="PATCH", data=body)
        except SalesforceError as error:
            raise _refusal(error.status, error.content) from None
        except (requests.RequestException, ValueError, TypeError, RecursionError) as error:
            # The last three: what came is not the JSON that it should be.
            self._org = None  # the org may have moved to another instance: the next log-in tells
            raise self._lost(error) from None
        return _checked(answer, len(rows))

    def _lost(self, error: Exception) -> _CallError:
        """What a call that brought no answer means: one of which nothing was sent has done nothing."""
        import requests

        from engine.connectors.http import CallError

        cause = error.__cause__
        if isinstance(cause, CallError) and not cause.sent:
            return _CallError(DeliveryFailure.TRANSIENT, "unreachable", "no connection to the org came about")
        if isinstance(error, requests.Timeout):
            return _CallError(DeliveryFailure.AMBIGUOUS, "no-answer", "no answer within the time allowed")
        return _CallError(DeliveryFailure.AMBIGUOUS, "answer-lost", "the connection or its answer broke off")

    def _log_in(self) -> None:
        """Get a token and make the client that uses it. Raises _CallError."""
        import requests
        from simple_salesforce.api import Salesforce

        from engine.connectors.http import HttpClient, requests_session

        if self._ca is not None and not self._ca.is_file():
            raise _CallError(DeliveryFailure.TRANSIENT, "ca-unusable", "the file that `ca` names can't be read")
        if self._http is None:
            if self._loop is None:
                raise RuntimeError("calls are made in the thread that _in_thread has begun")
            self._client = HttpClient(
                timeout_seconds=self._settings.timeout_seconds,
                response_bytes_max=_RESPONSE_BYTES_MAX,
                proxy=self._settings.proxy,
                ca=self._ca,
            )
            self._http = requests_session(self._client, self._loop)
        try:
            response = self._http.post(f"{self._settings.login_url}/services/oauth2/token", data=self._grant())
            answer = response.json()
        except (requests.RequestException, OSError, ValueError, RecursionError):
            raise _CallError(
                DeliveryFailure.TRANSIENT, "login-unreachable", "the login server gives no usable answer"
            ) from None
        answer = answer if isinstance(answer, dict) else {}
        token, url = answer.get("access_token"), answer.get("instance_url")
        if response.status_code != requests.codes.ok or not isinstance(token, str) or not isinstance(url, str):
            error = answer.get("error")
            known = isinstance(error, str) and error in OAUTH_ERRORS
            code = str(error).replace("_", "-") if known else "refused"
            text = "the org refuses the log-in: see its log-in history and the connected app"
            raise _CallError(DeliveryFailure.TRANSIENT, f"login-{code}", text)
        url = url.rstrip("/")
        # Without TLS only where the log-in went without it: to this machine.
        if not url.startswith("https://") and not (_loopback(url) and _loopback(self._settings.login_url)):
            raise _CallError(DeliveryFailure.TRANSIENT, "instance-insecure", "the org's address is not https")
        if not _is_instance(url, self._settings):
            text = "the log-in names a host that is neither Salesforce's nor in `instance_hosts`"
            raise _CallError(DeliveryFailure.TRANSIENT, "instance-foreign", text)
        version = self._settings.api_version
        self._org = Salesforce(session_id=token, instance_url=url, session=self._http, version=version)
        self._org.base_url = f"{url}/services/data/v{version}/"  # it writes https:// whatever it is given
        # Records are found by external id; that two patients have the same name is no duplicate.
        self._org.headers["Sforce-Duplicate-Rule-Header"] = "allowSave=true"

    def _grant(self) -> dict[str, str]:
        settings = self._settings
        if settings.client_secret is not None:
            return {
                "grant_type": "client_credentials",
                "client_id": settings.client_id,
                "client_secret": settings.client_secret.reveal(),
            }
        import jwt

        claims = {
            "iss": settings.client_id,
            "sub": settings.username,
            "aud": audience(settings.login_url),
            "exp": int(time.time()) + _JWT_SECONDS,  # by the real time, which the org has too
        }
        private_key = settings.private_key.reveal() if settings.private_key is not None else ""
        try:
            assertion = jwt.encode(claims, private_key, algorithm="RS256")
        except (ValueError, TypeError, jwt.PyJWTError):
            raise _CallError(DeliveryFailure.TRANSIENT, "private-key", "private_key is no RSA key in PEM") from None
        return {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}


def _is_instance(url: str, settings: SalesforceDestination) -> bool:
    """Whether the address that a log-in gave may be the org's: patients' data goes there."""
    found = _INSTANCE.fullmatch(url)
    if found is None:
        return False
    host, login = found["host"], urlsplit(settings.login_url).hostname or ""
    if host == login or (_loopback(url) and _loopback(settings.login_url)):
        return True
    suffixes = (*settings.instance_hosts, *(one for one in _DOMAINS if f".{login}".endswith(f".{one}")))
    return any(f".{host}".endswith(f".{suffix}") for suffix in suffixes)


def audience(login_url: str) -> str:
    """Whom a JWT is for: Salesforce names itself by its two login hosts, whatever domain an org has of its own."""
    host = urlsplit(login_url).hostname or ""
    if not host.endswith(".salesforce.com"):
        return login_url
    sandbox = host == "test.salesforce.com" or "--" in host or ".sandbox." in host
    return "https://test.salesforce.com" if sandbox else "https://login.salesforce.com"


def _calls(rows: Sequence[tuple[int, Row]]) -> Iterator[list[tuple[int, Row]]]:
    """Rows put together by object, at most RECORDS_MAX, and never an external id twice: the org would refuse both.

    Two deliveries for one record stay in their order. Objects go out in the order in which they first appear.
    """
    groups: dict[tuple[str, str], list[dict[str, tuple[int, Row]]]] = {}
    for index, row in rows:
        calls = groups.setdefault((row.object, row.key_field), [{}])
        # Compared as the org may compare, without regard to case.
        key = row.key.casefold()
        last = max((number for number, call in enumerate(calls) if key in call), default=-1)
        for call in calls[last + 1 :]:
            if len(call) < RECORDS_MAX:
                call[key] = (index, row)
                break
        else:
            calls.append({key: (index, row)})
    for calls in groups.values():
        yield from (list(call.values()) for call in calls)


def _body(rows: Sequence[Row]) -> bytes:
    return msgspec.json.encode(
        {
            "allOrNone": False,
            "records": [{"attributes": {"type": row.object}, row.key_field: row.key, **row.fields} for row in rows],
        }
    )


def _checked(answer: Any, count: int) -> list[Mapping[str, Any]]:
    """The results, when they can be what was asked for: one a record, of one object, no record twice.

    They come in the order of the request and carry no external id, so this is all there is to tell a mix-up by.
    """
    ids = [item.get("id") for item in answer if isinstance(item, dict)] if isinstance(answer, list) else []
    known = [text for text in ids if isinstance(text, str)]
    if (
        not isinstance(answer, list)
        or len(ids) != len(answer)
        or len(answer) != count
        or not all(isinstance(item.get("success"), bool) for item in answer)
        or any(item["success"] and not isinstance(item.get("id"), str) for item in answer)
        or len(set(known)) != len(known)
        or len({text[:3] for text in known}) > 1
    ):
        raise _CallError(DeliveryFailure.AMBIGUOUS, "results-mismatched", "the results do not fit the records")
    return answer


def _judge(answer: Mapping[str, Any], queued: QueuedDelivery, now: datetime) -> Result:
    if answer["success"]:
        return delivered(answer["id"] if _RECORD_ID.fullmatch(answer["id"]) else None)
    errors = answer.get("errors")
    errors = errors if isinstance(errors, list) else []
    codes = [_code(item.get("statusCode")) for item in errors if isinstance(item, dict)]
    code = codes[0] if codes else "UNKNOWN"
    if queued.delivery.operation is Operation.MERGE_PATIENT and code == _MISSING_PATIENT:
        return DELIVERED  # the org would have to create it: the merged patient was never sent, nothing is to be marked
    error = code.lower().replace("_", "-")
    if code in _TRANSIENT:
        return failed(
            DeliveryFailure.TRANSIENT,
            error,
            "the org could not do it now",
            not_before=None if (rest := _TRANSIENT[code]) is None else now + timedelta(seconds=rest),
            of_destination=code in _OF_THE_ORG,
        )
    if code in _RACES and queued.attempts + 1 < _RACE_ATTEMPTS:
        return failed(DeliveryFailure.TRANSIENT, error, "the org may still be at work on the same record")
    return failed(DeliveryFailure.PERMANENT, error, "the org refuses the record")


def _refusal(status: int, content: Any) -> Exception:
    """What an HTTP status other than 2xx means for the call. Reads codes out of the answer, and nothing else."""
    first = content[0] if isinstance(content, list) and content and isinstance(content[0], dict) else {}
    code = _code(first.get("errorCode"))
    if status == 401:
        return _SessionEndedError()
    if code in _TRANSIENT or status == 429:
        rest = _TRANSIENT.get(code, _LIMIT_REST_SECONDS)
        return _CallError(DeliveryFailure.TRANSIENT, _slug(code, status), "the org takes nothing now", rest)
    if status == 403:
        return _CallError(DeliveryFailure.TRANSIENT, _slug(code, status), "the org does not let the user in")
    # Without a code it is not the org that speaks, but a proxy or a firewall: it may like the next record better.
    if status == 300 or (status in {400, 404} and code != "UNKNOWN"):
        return _RejectedError(code, schema=code in {"INVALID_FIELD", "INVALID_TYPE", "NOT_FOUND"})
    if status in {413, 414, 431}:
        return _RejectedError("REQUEST_TOO_LARGE", schema=False)
    if status in {500, 502, 504}:
        return _CallError(DeliveryFailure.AMBIGUOUS, f"http-{status}", "the org failed on the way")
    return _CallError(DeliveryFailure.TRANSIENT, f"http-{status}", "the org is not available")


def _code(value: Any) -> str:
    """The org's word for an error when it is one of Salesforce's own: any other could be something of a record."""
    return value if isinstance(value, str) and value in CODES else "UNKNOWN"


def _slug(code: str, status: int) -> str:
    return f"http-{status}" if code == "UNKNOWN" else code.lower().replace("_", "-")


def _loopback(url: str) -> bool:
    return urlsplit(url).hostname in LOOPBACK
