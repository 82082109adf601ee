"""Four habits of simple-salesforce 1.12 that would harm, each shown in the library and shown to be kept out of ours.

When the first test of a pair fails after an update of the library, the habit is gone and ours can be simplified.
"""

from __future__ import annotations

import asyncio
import io
import logging
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import requests
from connector_deliveries import delivery, patient_payload, queued
from peers.salesforce_org import SalesforceOrg
from simple_salesforce.api import Salesforce, SFType
from simple_salesforce.exceptions import SalesforceError

from engine import logs
from engine.connectors.http import HttpClient, requests_session
from engine.connectors.salesforce import SalesforceConnector
from engine.domain.delivery import QueuedDelivery
from engine.errors import DeliveryError, DeliveryFailure

Make = Callable[..., SalesforceConnector]


def patient(key: str, **fields: Any) -> QueuedDelivery:
    return queued(delivery(payload=patient_payload(key, **fields)))


def accounts(org: SalesforceOrg, *, log_in_again: Callable[[], tuple[str, str]] | None = None) -> SFType:
    """The library's own way to the org's accounts, with plain http put in for https."""
    token = org.token(
        {"grant_type": "client_credentials", "client_id": org.client_id, "client_secret": org.client_secret}, None
    )["access_token"]
    library = Salesforce(session_id=token, instance_url=org.url, version=org.api_version)
    library._salesforce_login_partial = log_in_again  # type: ignore[assignment]  # as a log-in with credentials sets it
    objects = library.Account
    objects.base_url = objects.base_url.replace("https://", "http://")
    assert isinstance(objects, SFType)
    return objects


# --- external ids in URLs ---


async def test_the_library_changes_the_wrong_patient_when_an_id_holds_a_hash(org: SalesforceOrg, salesforce: Make):
    connector = salesforce()
    await connector.connect()
    await connector.deliver([patient("MRN:12")])
    accounts(org).upsert("ExternalId__c/MRN:12#3", {"LastName": "Somebody else"})
    assert org.one("Account", ExternalId__c="MRN:12")["LastName"] == "Somebody else"


@pytest.mark.parametrize("other", ["MRN:12#3", "MRN:12?x=1", "MRN:12/3", "MRN:12%20", "mrn:12", "MRN:12;3", "MRN:12&a"])
async def test_ours_never_takes_one_patient_for_another(org: SalesforceOrg, salesforce: Make, other: str):
    connector = salesforce()
    await connector.connect()
    await connector.deliver([patient("MRN:12")])
    (result,) = await connector.deliver([patient(other, name={"family": "Somebody else"})])
    assert result.delivered
    assert org.one("Account", ExternalId__c="MRN:12")["LastName"] == "Doe"
    assert org.one("Account", ExternalId__c=other)["LastName"] == "Somebody else"


# --- a 401 that stays ---


def test_the_library_logs_in_without_end_while_the_org_answers_401(org: SalesforceOrg):
    logins = 0

    class EnoughError(Exception):
        pass

    def log_in_again() -> tuple[str, str]:
        nonlocal logins
        logins += 1
        if logins > 20:
            raise EnoughError
        return "refused-token", org.url.removeprefix("http://")

    objects = accounts(org, log_in_again=log_in_again)
    org.expire_tokens()
    with pytest.raises(EnoughError):
        objects.upsert("ExternalId__c/MRN:1", {"LastName": "Doe"})


async def test_ours_logs_in_again_once_and_leaves_the_rest_to_the_breaker(org: SalesforceOrg, salesforce: Make):
    connector = salesforce()
    await connector.connect()
    org.fail(status=401, body=[{"errorCode": "INVALID_SESSION_ID", "message": "expired"}], times=1000)
    with pytest.raises(DeliveryError) as caught:
        await connector.deliver([patient("MRN:1")])
    assert (caught.value.kind, caught.value.error) == (DeliveryFailure.TRANSIENT, "session-refused")
    assert (len(org.logins()), len(org.upserts())) == (2, 2)


# --- no timeout ---


def test_the_library_waits_without_limit(org: SalesforceOrg, monkeypatch: pytest.MonkeyPatch):
    seen: list[Any] = []
    real = requests.Session.request

    def watch(self: requests.Session, *args: Any, **kwargs: Any) -> requests.Response:
        seen.append(kwargs.get("timeout"))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(requests.Session, "request", watch)
    accounts(org).upsert("ExternalId__c/MRN:1", {"LastName": "Doe"})
    assert seen == [None]


async def test_ours_gives_up_on_an_answer_that_is_too_slow(org: SalesforceOrg, salesforce: Make):
    connector = salesforce(timeout_seconds=1.5)
    await connector.connect()
    org.fail(delay_seconds=3.0)
    with pytest.raises(DeliveryError) as caught:
        await connector.deliver([patient("MRN:1")])
    assert (caught.value.kind, caught.value.error) == (DeliveryFailure.AMBIGUOUS, "no-answer")
    (result,) = await connector.deliver([patient("MRN:1")])
    assert result.delivered
    assert len(org.find("Account")) == 1


async def test_ours_gives_up_on_a_log_in_that_is_too_slow(org: SalesforceOrg, salesforce: Make):
    org.fail(on="token", delay_seconds=2.0)
    with pytest.raises(DeliveryError) as caught:
        await salesforce(timeout_seconds=0.3).connect()
    assert (caught.value.kind, caught.value.error) == (DeliveryFailure.TRANSIENT, "login-unreachable")


# --- exceptions that tell ---

CANARY = "Canary77"


def test_the_librarys_exceptions_hold_url_and_body(org: SalesforceOrg):
    objects = accounts(org)
    org.fail(status=400, body=[{"errorCode": "X", "message": f"{CANARY} is wrong"}])
    with pytest.raises(SalesforceError) as caught:
        objects.upsert(f"ExternalId__c/{CANARY}", {"LastName": "Doe"})
    assert str(caught.value).count(CANARY) == 2


@pytest.mark.parametrize(
    "scripted",
    [
        {"status": 400, "body": [{"errorCode": CANARY, "message": CANARY}]},
        {"status": 403, "body": [{"errorCode": CANARY, "message": CANARY}]},
        {"status": 503, "body": f"<html>{CANARY}</html>".encode()},
        {"status": 401, "body": [{"errorCode": "INVALID_SESSION_ID", "message": CANARY}], "times": 9},
        {"row": f"MRN:{CANARY}", "code": f"MADE_UP_BY_{CANARY}"},
        {"row": f"MRN:{CANARY}", "code": "INVALID_FIELD"},
        {"results": "garbage"},
        {"results": "short"},
        {"drop": "after"},
        {"on": "token", "status": 400, "body": {"error": "invalid_grant", "error_description": CANARY}},
        {"on": "token", "status": 200, "body": CANARY.encode()},
    ],
)
async def test_nothing_of_a_patient_comes_out_of_ours(
    org: SalesforceOrg, salesforce: Make, scripted: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    stream = io.StringIO()
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    logs.configure("debug", stream=stream)
    logging.getLogger().setLevel(logging.DEBUG)
    try:
        org.fail(**scripted)
        connector = salesforce()
        told = ""
        try:
            await connector.connect()
            name = {"family": CANARY, "given": CANARY}
            for result in await connector.deliver([patient(f"MRN:{CANARY}", name=name, phones=[CANARY])]):
                told += repr(result)
        except DeliveryError as error:
            told += "".join(traceback.format_exception(error))
    finally:
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
    assert told
    captured = capsys.readouterr()
    for text in (told, stream.getvalue(), captured.out, captured.err, *(call.path for call in org.calls)):
        assert CANARY.lower() not in text.lower()


# --- the session ---


async def call(client: HttpClient, url: str, **headers: str) -> int:
    """As the library makes it."""
    session = requests_session(client, asyncio.get_running_loop())
    return (await asyncio.to_thread(session.get, url, headers=headers)).status_code


async def test_a_netrc_file_does_not_replace_the_token(
    org: SalesforceOrg, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    client = HttpClient(timeout_seconds=60.0, response_bytes_max=1 << 20)
    await call(client, f"{org.url}/services/data", Authorization="Bearer token")
    assert org.calls[0].headers["Authorization"] == "Bearer token"
    await client.close()


async def test_an_answer_without_end_is_given_up(org: SalesforceOrg):
    client = HttpClient(timeout_seconds=60.0, response_bytes_max=1000)
    org.fail(on="any", status=200, body=b"x" * 2000)
    with pytest.raises(requests.ReadTimeout):
        await call(client, f"{org.url}/services/data")
    await client.close()
