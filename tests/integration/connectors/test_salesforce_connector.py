from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from connector_deliveries import (
    delivery,
    encounter_payload,
    patient_payload,
    queued,
    score_payload,
    task_payload,
)
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from peers.salesforce_org import SalesforceOrg, _RefusedError

from engine.connectors.base import Result
from engine.connectors.salesforce import SalesforceConnector, audience
from engine.domain.delivery import Operation, QueuedDelivery
from engine.errors import DeliveryError, DeliveryFailure

Make = Callable[..., SalesforceConnector]


def patients(*keys: str, attempts: int = 0) -> list[QueuedDelivery]:
    return [
        queued(delivery(payload=patient_payload(key), patient=key, key=f"p-{key}"), number=number, attempts=attempts)
        for number, key in enumerate(keys, 1)
    ]


def some(operation: Operation, payload: dict[str, Any], number: int = 1) -> QueuedDelivery:
    return queued(delivery(operation, payload, patient=f"chart-{number}", key=f"k-{number}"), number=number)


async def send(connector: SalesforceConnector, batch: Sequence[QueuedDelivery]) -> list[Result]:
    await connector.connect()
    return await connector.deliver(batch)


async def fault(connector: SalesforceConnector, batch: Sequence[QueuedDelivery]) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        await send(connector, batch)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    return caught.value


def outcomes(results: Sequence[Result]) -> list[str]:
    return [
        "delivered" if r.delivered else "not attempted" if not r.attempted else f"{r.failure} {r.error}"
        for r in results
    ]


# --- what arrives ---


async def test_a_patient_with_stay_score_and_task_arrives(org: SalesforceOrg, salesforce: Make):
    connector = salesforce()
    for operation, payload in (
        (Operation.UPSERT_PATIENT, patient_payload()),
        (Operation.UPSERT_ENCOUNTER, encounter_payload()),
        (Operation.UPSERT_SCORE, score_payload()),
        (Operation.UPSERT_TASK, task_payload()),
    ):
        assert outcomes(await send(connector, [some(operation, payload)])) == ["delivered"]
    account = org.one("Account", ExternalId__c="MRN:1001")
    assert (account["LastName"], account["MRN__c"], account["HighRiskFlag__c"]) == ("Doe", "1001", True)
    assert account["ReadmissionRiskScore__c"] == 14
    assert org.one("HandoffEncounter__c", ExternalId__c="VN:5001")["Patient__c"] == account["Id"]
    task = org.one("Task", ExternalId__c="task-1")
    assert (task["WhatId"], task["Status"], task["ActivityDate"]) == (account["Id"], "Not Started", "2026-03-08")
    assert len(org.logins()) == 1


async def test_a_withdrawn_score_takes_flag_and_points_from_the_account(org: SalesforceOrg, salesforce: Make):
    connector = salesforce()
    await send(connector, patients("MRN:1001"))
    await send(connector, [some(Operation.UPSERT_SCORE, score_payload(decides=True))])
    withdrawn = score_payload(decides=True) | {"withdrawn": True}
    assert outcomes(await send(connector, [some(Operation.UPSERT_SCORE, withdrawn)])) == ["delivered"]
    account = org.one("Account", ExternalId__c="MRN:1001")
    assert (account["HighRiskFlag__c"], account["ReadmissionRiskScore__c"]) == (False, None)
    assert account["ReadmissionRiskBand__c"] is None


async def test_sending_again_changes_the_same_records(org: SalesforceOrg, salesforce: Make):
    connector = salesforce()
    await send(connector, [some(Operation.UPSERT_PATIENT, patient_payload())])
    await send(connector, [some(Operation.UPSERT_PATIENT, patient_payload(phones=[]))])
    assert org.one("Account")["Phone"] is None


async def test_a_retracted_task_is_changed_and_not_deleted(org: SalesforceOrg, salesforce: Make):
    connector = salesforce()
    await send(connector, patients("MRN:1001"))
    await send(connector, [some(Operation.UPSERT_TASK, task_payload())])
    await send(connector, [some(Operation.UPSERT_TASK, task_payload(state="retracted"))])
    task = org.one("Task")
    assert (task["Status"], task["HandoffState__c"]) == ("Cancelled", "retracted")
    assert {call.method for call in org.calls} == {"POST", "PATCH"}


async def test_a_merged_patient_is_marked_and_keeps_its_name(org: SalesforceOrg, salesforce: Make):
    connector = salesforce()
    await send(connector, patients("MRN:1", "MRN:2"))
    merge = some(Operation.MERGE_PATIENT, {"survivor": "MRN:1", "merged": "MRN:2"})
    assert outcomes(await send(connector, [merge])) == ["delivered"]
    merged = org.one("Account", ExternalId__c="MRN:2")
    assert (merged["MergedInto__c"], merged["LastName"]) == ("MRN:1", "Doe")


async def test_a_merge_of_a_patient_that_was_never_sent_leaves_nothing_to_mark(org: SalesforceOrg, salesforce: Make):
    merge = some(Operation.MERGE_PATIENT, {"survivor": "MRN:1", "merged": "MRN:2"})
    assert outcomes(await send(salesforce(), [merge])) == ["delivered"]
    assert org.find("Account") == []


async def test_a_batch_is_one_call_an_object_with_two_hundred_records_at_most(org: SalesforceOrg, salesforce: Make):
    connector = salesforce()
    results = await send(connector, patients(*(f"MRN:{number}" for number in range(450))))
    assert all(result.delivered for result in results)
    assert [len(json.loads(call.body)["records"]) for call in org.upserts()] == [200, 200, 50]


async def test_a_mixed_batch_is_put_together_by_object(org: SalesforceOrg, salesforce: Make):
    connector = salesforce()
    await send(connector, patients("MRN:1001"))
    batch = [
        some(Operation.UPSERT_TASK, task_payload("t1"), 1),
        some(Operation.UPSERT_ENCOUNTER, encounter_payload("VN:1"), 2),
        some(Operation.UPSERT_TASK, task_payload("t2"), 3),
        some(Operation.UPSERT_ENCOUNTER, encounter_payload("VN:2"), 4),
    ]
    assert outcomes(await send(connector, batch)) == ["delivered"] * 4
    assert [call.path.rsplit("/", 2)[1] for call in org.upserts()] == ["Account", "Task", "HandoffEncounter__c"]


async def test_two_deliveries_for_one_record_keep_their_order(org: SalesforceOrg, salesforce: Make):
    """As when one patient is merged into another while the other is being changed."""
    batch = [
        some(Operation.UPSERT_PATIENT, patient_payload("MRN:1", phones=["+1"]), 1),
        some(Operation.UPSERT_PATIENT, patient_payload("MRN:2"), 2),
        some(Operation.UPSERT_PATIENT, patient_payload("MRN:1", phones=["+2"]), 3),
        some(Operation.UPSERT_PATIENT, patient_payload("mrn:1", phones=["+3"]), 4),
    ]
    assert outcomes(await send(salesforce(), batch)) == ["delivered"] * 4
    assert org.one("Account", ExternalId__c="MRN:1")["Phone"] == "+2"
    assert org.one("Account", ExternalId__c="mrn:1")["Phone"] == "+3"


async def test_no_identifier_stands_in_a_url(org: SalesforceOrg, salesforce: Make):
    await send(salesforce(), patients("MRN:SECRET77"))
    assert all("SECRET77" not in call.path for call in org.calls)
    assert {call.path for call in org.upserts()} == {"/services/data/v62.0/composite/sobjects/Account/ExternalId__c"}


async def test_records_may_look_like_others(org: SalesforceOrg, salesforce: Make):
    """Duplicate rules compare names; Handoff knows by external id that two patients are two."""
    await send(salesforce(), patients("MRN:1"))
    assert org.upserts()[0].headers["Sforce-Duplicate-Rule-Header"] == "allowSave=true"


# --- log-in ---


@pytest.fixture(scope="module")
def key_pair() -> tuple[str, str]:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return (
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
        private.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode(),
    )


async def test_the_jwt_bearer_log_in_works(org: SalesforceOrg, salesforce: Make, key_pair: tuple[str, str]):
    private, org.public_key = key_pair
    connector = salesforce(client_secret=None, username=org.username, private_key=private)
    assert outcomes(await send(connector, patients("MRN:1"))) == ["delivered"]
    assert b"jwt-bearer" in org.logins()[0].body


async def test_a_jwt_of_another_user_is_refused(org: SalesforceOrg, salesforce: Make, key_pair: tuple[str, str]):
    private, org.public_key = key_pair
    connector = salesforce(client_secret=None, username="other@example.com", private_key=private)
    error = await fault(connector, patients("MRN:1"))
    assert (error.kind, error.error) == (DeliveryFailure.TRANSIENT, "login-invalid-grant")


async def test_a_private_key_that_is_none_is_told_without_being_shown(salesforce: Make):
    connector = salesforce(client_secret=None, username="u@example.com", private_key="SECRETKEYTEXT")
    error = await fault(connector, patients("MRN:1"))
    assert error.error == "private-key"
    assert "SECRETKEYTEXT" not in str(error)


@pytest.mark.parametrize(
    ("login_url", "expected"),
    [
        ("https://acme.my.salesforce.com", "https://login.salesforce.com"),
        ("https://login.salesforce.com", "https://login.salesforce.com"),
        ("https://acme--uat.sandbox.my.salesforce.com", "https://test.salesforce.com"),
        ("https://acme--uat.my.salesforce.com", "https://test.salesforce.com"),
        ("https://test.salesforce.com", "https://test.salesforce.com"),
        ("https://site.force.com/customers", "https://site.force.com/customers"),
    ],
)
def test_a_jwt_is_for_the_login_host_of_the_orgs_kind(login_url: str, expected: str):
    assert audience(login_url) == expected


async def test_wrong_credentials_are_a_fault_of_the_destination(salesforce: Make):
    error = await fault(salesforce(client_secret="wrong"), patients("MRN:1"))
    assert (error.kind, error.error) == (DeliveryFailure.TRANSIENT, "login-invalid-client")


async def test_an_expired_session_is_renewed_once(org: SalesforceOrg, salesforce: Make):
    connector = salesforce()
    await send(connector, patients("MRN:1"))
    org.expire_tokens()
    assert outcomes(await send(connector, patients("MRN:2"))) == ["delivered"]
    assert len(org.logins()) == 2


async def test_an_instance_without_tls_gets_no_token(org: SalesforceOrg, salesforce: Make):
    answer = {"access_token": "t", "instance_url": "http://salesforce.example.com"}
    org.fail(on="token", status=200, body=answer)
    assert (await fault(salesforce(), patients("MRN:1"))).error == "instance-insecure"


async def test_an_instance_on_this_machine_gets_no_token_of_an_org_elsewhere(org: SalesforceOrg, salesforce: Make):
    """Without TLS only where the log-in is without it too."""
    connector = salesforce(login_url="https://login.example.com")
    real = SalesforceConnector._log_in

    def redirected(self: SalesforceConnector) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(requests.Session, "post", lambda self, _url, **more: post(self, token, **more))
            real(self)

    token, post = f"{org.url}/services/oauth2/token", requests.Session.post
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SalesforceConnector, "_log_in", redirected)
        assert (await fault(connector, patients("MRN:1"))).error == "instance-insecure"


@pytest.mark.parametrize(
    "body",
    [None, [], {"access_token": 5}, {"error": "Patient Doe"}, "text", b"[" * 100_000, b"\xff", b'{"error": 1e999}'],
)
async def test_an_odd_answer_to_the_log_in_is_a_fault_of_the_destination(
    org: SalesforceOrg, salesforce: Make, body: Any
):
    org.fail(on="token", status=200, body=body)
    error = await fault(salesforce(), patients("MRN:1"))
    assert error.kind is DeliveryFailure.TRANSIENT
    assert "Doe" not in str(error)


# --- what goes wrong with a record ---


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("UNABLE_TO_LOCK_ROW", "transient unable-to-lock-row"),
        ("REQUEST_LIMIT_EXCEEDED", "transient request-limit-exceeded"),
        ("INVALID_FIELD", "permanent invalid-field"),
        ("REQUIRED_FIELD_MISSING", "permanent required-field-missing"),
        ("FIELD_CUSTOM_VALIDATION_EXCEPTION", "permanent field-custom-validation-exception"),
        ("DUPLICATE_EXTERNAL_ID", "permanent duplicate-external-id"),
        ("SOMETHING_NEW", "permanent unknown"),
    ],
)
async def test_only_the_record_at_fault_fails(org: SalesforceOrg, salesforce: Make, code: str, expected: str):
    org.fail(row="MRN:2", code=code)
    assert outcomes(await send(salesforce(), patients("MRN:1", "MRN:2", "MRN:3"))) == [
        "delivered",
        expected,
        "delivered",
    ]
    assert len(org.find("Account")) == 2


async def test_a_reached_limit_asks_for_a_long_rest(org: SalesforceOrg, salesforce: Make):
    org.fail(row="MRN:1", code="REQUEST_LIMIT_EXCEEDED")
    (result,) = await send(salesforce(), patients("MRN:1"))
    assert result.not_before is not None
    assert result.not_before - datetime.now(UTC) > timedelta(seconds=50)


@pytest.mark.parametrize("code", ["DUPLICATE_VALUE", "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY"])
async def test_what_may_be_a_race_is_tried_a_few_times_and_then_permanent(
    org: SalesforceOrg, salesforce: Make, code: str
):
    connector = salesforce()
    found = []
    for attempts in range(4):
        org.fail(row="MRN:1", code=code)
        found.append((await send(connector, patients("MRN:1", attempts=attempts)))[0].failure)
    assert found == [DeliveryFailure.TRANSIENT] * 2 + [DeliveryFailure.PERMANENT] * 2


async def test_a_stay_of_an_unknown_patient_is_permanent(org: SalesforceOrg, salesforce: Make):
    result = await send(salesforce(), [some(Operation.UPSERT_ENCOUNTER, encounter_payload(patient_key="MRN:404"))])
    assert outcomes(result) == ["permanent invalid-field"]


@pytest.mark.parametrize("status_code", ["Doe, Jane", "doe", 5, None, "X" * 100])
async def test_a_code_that_is_none_is_not_repeated(org: SalesforceOrg, salesforce: Make, status_code: Any):
    org.fail(status=200, body=[{"success": False, "errors": [{"statusCode": status_code, "message": "Doe, Jane"}]}])
    (result,) = await send(salesforce(), patients("MRN:1"))
    assert (result.error, result.failure) == ("unknown", DeliveryFailure.PERMANENT)


async def test_what_cannot_be_a_record_fails_by_itself(org: SalesforceOrg, salesforce: Make):
    batch = [
        *patients("MRN:1"),
        queued(delivery(payload=b"{", key="bad"), number=2),
        queued(delivery(Operation.FORWARD, {"hl7": ""}, key="fwd"), number=3),
        some(Operation.UPSERT_PATIENT, patient_payload("MRN:7 "), 4),
        some(Operation.UPSERT_SCORE, score_payload(decides=False), 5),
    ]
    assert outcomes(await send(salesforce(), batch)) == [
        "delivered",
        "permanent payload-unreadable",
        "permanent not-mapped",
        "permanent key-unsafe",
        "delivered",  # the map says that nothing is sent for it
    ]
    assert len(org.upserts()) == 1


# --- what goes wrong with a call ---


async def test_one_record_that_spoils_the_call_is_found_by_halving(
    org: SalesforceOrg, salesforce: Make, monkeypatch: pytest.MonkeyPatch
):
    connector = salesforce()
    real = connector._map.row

    def spoil(operation: Operation, payload: Any, now: Any) -> Any:
        row = real(operation, payload, now)
        if row is not None and row.key == "MRN:5":
            row.fields["PersonBirthdate"] = "not a date"
        return row

    monkeypatch.setattr(connector._map, "row", spoil)
    results = await send(connector, patients(*(f"MRN:{number}" for number in range(8))))
    assert outcomes(results) == ["delivered"] * 5 + ["permanent json-parser-error"] + ["delivered"] * 2
    assert len(org.find("Account")) == 7


async def test_a_field_that_the_org_lacks_is_permanent_for_all_and_not_asked_twice(
    org: SalesforceOrg, salesforce: Make
):
    del org.schema["Account"]["MRN__c"]
    assert outcomes(await send(salesforce(), patients("MRN:1", "MRN:2"))) == ["permanent invalid-field"] * 2
    assert len(org.upserts()) == 1


async def test_an_external_id_field_that_the_org_lacks_is_permanent(org: SalesforceOrg, salesforce: Make):
    org.schema["Account"]["ExternalId__c"].external_id = False
    assert outcomes(await send(salesforce(), patients("MRN:1"))) == ["permanent not-found"]


async def test_several_records_for_one_external_id_are_permanent(org: SalesforceOrg, salesforce: Make):
    org.fail(status=300, body=["/services/data/v62.0/sobjects/Account/001"])
    assert outcomes(await send(salesforce(), patients("MRN:1"))) == ["permanent unknown"]


@pytest.mark.parametrize(
    ("scripted", "kind", "code"),
    [
        ({"status": 403, "body": [{"errorCode": "REQUEST_LIMIT_EXCEEDED"}]}, "transient", "request-limit-exceeded"),
        ({"status": 403, "body": [{"errorCode": "API_DISABLED_FOR_ORG"}]}, "transient", "api-disabled-for-org"),
        ({"status": 503, "body": [{"errorCode": "SERVER_UNAVAILABLE"}]}, "transient", "server-unavailable"),
        ({"status": 503, "body": b"<html>Doe</html>"}, "transient", "http-503"),
        ({"status": 429, "body": []}, "transient", "http-429"),
        ({"status": 404, "body": b"<html></html>"}, "transient", "http-404"),
        ({"status": 400, "body": b"<html>sent to the wrong port</html>"}, "transient", "http-400"),
        ({"status": 500, "body": [{"errorCode": "UNKNOWN_EXCEPTION"}]}, "transient", "unknown-exception"),
        ({"status": 502, "body": b""}, "ambiguous", "http-502"),
        ({"status": 307, "body": b""}, "transient", "http-307"),
        ({"drop": "before"}, "ambiguous", "answer-lost"),
        ({"drop": "after"}, "ambiguous", "answer-lost"),
        ({"results": "garbage"}, "ambiguous", "answer-lost"),
        ({"results": "scalar"}, "ambiguous", "answer-lost"),
        ({"results": "short"}, "ambiguous", "results-mismatched"),
        ({"results": "long"}, "ambiguous", "results-mismatched"),
        ({"results": "same"}, "ambiguous", "results-mismatched"),
        ({"status": 200, "body": [{"success": True}, {"success": True}]}, "ambiguous", "results-mismatched"),
        ({"status": 200, "body": ["Doe", "Jane"]}, "ambiguous", "results-mismatched"),
        ({"status": 204, "body": None}, "ambiguous", "results-mismatched"),
    ],
)  # fmt: skip
async def test_a_call_that_fails_as_a_whole_is_a_fault_of_the_destination(
    org: SalesforceOrg, salesforce: Make, scripted: dict[str, Any], kind: str, code: str
):
    connector = salesforce()
    org.fail(**scripted)
    error = await fault(connector, patients("MRN:1", "MRN:2"))
    assert (error.kind, error.error) == (kind, code)
    assert outcomes(await send(connector, patients("MRN:1", "MRN:2"))) == ["delivered"] * 2
    assert len(org.find("Account")) == 2


@pytest.mark.parametrize("status", [200, 201, 300, 400, 401, 403, 404, 500, 503])
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[1e999, NaN]",
        b"nul",
        b"\xff\xfe\x00",
        b"9" * 10_000,
        b"[]",
        b"[[]]",
        b'[{"success": "yes", "id": "1"}]',
        b'[{"success": false, "errors": 5}]',
        b'[{"success": false, "errors": [7, {"statusCode": {}}]}]',
        b'[{"errorCode": ["X"]}]',
        b'"' + b"x" * 3_000_000 + b'"',
    ],
    ids=range(13),
)
async def test_no_answer_is_taken_for_a_defect_of_ours_or_for_success(
    org: SalesforceOrg, salesforce: Make, status: int, body: bytes
):
    """What a proxy or a firewall makes up must not bury a delivery as if the connector had broken."""
    org.fail(status=status, body=body, times=2)
    try:
        (result,) = await send(salesforce(), patients("MRN:1"))
    except DeliveryError:
        return
    assert not result.delivered
    assert "defect" not in result.error


async def test_a_record_that_spoils_its_call_takes_nothing_from_those_done_before_it(
    org: SalesforceOrg, salesforce: Make
):
    connector = salesforce()
    real = org.upsert_collection
    calls = 0

    def upsert(name: str, key_field: str, body: Any) -> Any:
        nonlocal calls
        calls += 1
        if len(body["records"]) > 2:
            raise _RefusedError(400, [{"errorCode": "JSON_PARSER_ERROR", "message": "x"}])
        if calls == 3:
            raise _RefusedError(503, [])
        return real(name, key_field, body)

    org.upsert_collection = upsert  # type: ignore[method-assign]  # refuses some calls, and passes on
    results = await send(connector, patients(*(f"MRN:{number}" for number in range(4))))
    assert outcomes(results) == ["delivered"] * 2 + ["not attempted"] * 2


async def test_a_redirect_is_never_followed(org: SalesforceOrg, salesforce: Make):
    """It would carry token and patient to wherever it points."""
    org.fail(status=307, body=b"")
    await fault(salesforce(), patients("MRN:1"))
    assert all(not call.path.startswith("/elsewhere") for call in org.calls)


async def test_an_org_that_is_not_there_is_transient(salesforce: Make, org: SalesforceOrg):
    connector = salesforce()
    await connector.connect()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        connector._org.base_url = f"http://127.0.0.1:{unused.getsockname()[1]}/services/data/v62.0/"
        error = await fault(connector, patients("MRN:1"))
    assert (error.kind, error.error) == (DeliveryFailure.TRANSIENT, "unreachable")
    assert outcomes(await send(connector, patients("MRN:1"))) == ["delivered"]  # after a new log-in told where it is


async def test_a_login_server_that_is_not_there_is_transient(salesforce: Make):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        connector = salesforce(login_url=f"http://127.0.0.1:{unused.getsockname()[1]}")
        error = await fault(connector, patients("MRN:1"))
    assert (error.kind, error.error) == (DeliveryFailure.TRANSIENT, "login-unreachable")


async def test_what_was_done_before_a_call_failed_is_kept(org: SalesforceOrg, salesforce: Make):
    connector = salesforce()
    await send(connector, patients("MRN:1001"))
    batch = [
        some(Operation.UPSERT_PATIENT, patient_payload("MRN:2"), 1),
        some(Operation.UPSERT_TASK, task_payload(), 2),
        some(Operation.UPSERT_ENCOUNTER, encounter_payload(), 3),
    ]
    org.fail(on="Task", drop="after")
    assert outcomes(await send(connector, batch)) == ["delivered", "ambiguous answer-lost", "not attempted"]


async def test_what_was_done_before_the_org_closed_is_kept_and_the_rest_waits(org: SalesforceOrg, salesforce: Make):
    connector = salesforce()
    await send(connector, patients("MRN:1001"))
    batch = [
        some(Operation.UPSERT_PATIENT, patient_payload("MRN:2"), 1),
        some(Operation.UPSERT_TASK, task_payload(), 2),
    ]
    org.fail(on="Task", status=503, body=[])
    assert outcomes(await send(connector, batch)) == ["delivered", "not attempted"]


async def test_no_call_of_a_batch_is_begun_when_the_worker_has_hung_since_the_last(
    org: SalesforceOrg, salesforce: Make
):
    """Another worker may have told the org newer things meanwhile. Each object takes a call of its own."""
    connector = salesforce()
    await connector.connect()
    batch = [
        some(Operation.UPSERT_PATIENT, patient_payload()),
        some(Operation.UPSERT_ENCOUNTER, encounter_payload(), 2),
    ]
    answers = iter((True, False))
    assert outcomes(await connector.deliver(batch, lambda: next(answers))) == ["delivered", "not attempted"]
    assert [call.path.rsplit("/", 2)[1] for call in org.upserts()] == ["Account"]
    assert outcomes(await connector.deliver(batch)) == ["delivered", "delivered"]
