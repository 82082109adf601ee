"""What a destination says is known by its codes alone: a word that is not one of ours is never logged, shown or kept.

Nor does a destination, or the environment, say where patients' data goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from connector_deliveries import delivery, forward_payload, patient_payload, queued
from peers.rude_server import RudeServer
from peers.salesforce_org import SalesforceOrg

from engine.connectors import http
from engine.connectors import salesforce as salesforce_module
from engine.connectors.http import CallError, HttpClient
from engine.connectors.mllp import MllpConnector, tls_context
from engine.connectors.remedies import REMEDIES, remedy
from engine.connectors.salesforce import SalesforceConnector, SalesforceDestination
from engine.connectors.salesforce_codes import CODES, OAUTH_ERRORS
from engine.domain.delivery import Operation
from engine.errors import DeliveryError
from engine.settings import TlsClient

Make = Callable[..., SalesforceConnector]

MARKERS = ["ZQX_CANARY_DOE", "ZQX_CANARY_DOE_JANE_19580715", "zqx_canary", "19580715", "DOEJANE"]
KEY = "MRN:1"


def clean(marker: str, *texts: str) -> None:
    squeezed = re.sub(r"[^a-z0-9]", "", marker.lower())
    for text in texts:
        assert squeezed not in re.sub(r"[^a-z0-9]", "", text.lower()), text


async def said(connector: SalesforceConnector) -> list[str]:
    """All that comes out of an attempt."""
    item = queued(delivery(payload=patient_payload(KEY), patient=KEY, key="k"))
    try:
        await connector.connect()
        results = await connector.deliver([item])
    except DeliveryError as error:
        return [error.error, error.text, str(error)]
    return [part for result in results for part in (result.error, result.text)]


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("status", [300, 400, 403, 404, 413, 429, 500, 503])
async def test_a_word_in_the_place_of_a_code_is_not_passed_on(
    org: SalesforceOrg, salesforce: Make, status: int, marker: str
):
    org.fail(status=status, times=9, body=[{"errorCode": marker, "message": marker, "fields": [marker]}])
    clean(marker, *await said(salesforce()))


@pytest.mark.parametrize("marker", MARKERS)
async def test_a_word_in_the_place_of_a_record_s_status_code_is_not_passed_on(
    org: SalesforceOrg, salesforce: Make, marker: str
):
    org.fail(row=KEY, code=marker)
    error, text = await said(salesforce())
    assert error == "unknown"
    clean(marker, text)


@pytest.mark.parametrize("marker", MARKERS)
async def test_a_word_in_the_place_of_a_log_in_error_is_not_passed_on(
    org: SalesforceOrg, salesforce: Make, marker: str
):
    org.fail(on="token", status=400, body={"error": marker, "error_description": marker})
    told = await said(salesforce())
    assert told[0] == "login-refused"
    clean(marker, *told)


@pytest.mark.parametrize("code", ["invalid_client_id", "inactive_user", "rate_limit_exceeded"])
async def test_a_log_in_error_of_oauth_is_told(org: SalesforceOrg, salesforce: Make, code: str):
    org.fail(on="token", status=400, body={"error": code})
    assert (await said(salesforce()))[0] == f"login-{code.replace('_', '-')}"


async def test_salesforce_s_own_words_are_told(org: SalesforceOrg, salesforce: Make):
    org.fail(row=KEY, code="FIELD_CUSTOM_VALIDATION_EXCEPTION")
    assert (await said(salesforce()))[0] == "field-custom-validation-exception"
    assert len(CODES) > 500
    assert {code for code in CODES if not re.fullmatch(r"[A-Z0-9_]{4,80}", code)} == set()
    assert {code for code in OAUTH_ERRORS if not re.fullmatch(r"[a-z_]{4,40}", code)} == set()


# --- MLLP ------------------------------------------------------------------------------------------------------------


class Echo:
    """A receiver whose answers hold a marker wherever they can."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readuntil(b"\x1c\r")
        control_id = data.split(b"|")[9].decode()
        writer.write(b"\x0b" + self.answer.replace("{id}", control_id).encode() + b"\x1c\r")
        await writer.drain()


@pytest.fixture
async def echo() -> AsyncIterator[Callable[[str], Any]]:
    servers: list[asyncio.Server] = []

    async def make(answer: str) -> int:
        server = await asyncio.start_server(Echo(answer).serve, "127.0.0.1", 0)
        servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    yield make
    for server in servers:
        server.close()


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize(
    "answer",
    [
        "MSH|^~\\&|{m}|{m}|||20260101||ACK|{m}|P|2.5.1\rMSA|AE|{id}|{m}|||{m}\rERR||{m}|{m}^{m}|E|{m}^{m}||{m}|{m}\r",
        "MSH|^~\\&|A|B|||20260101||ACK|1|P|2.3\rMSA|AR|{id}|{m}|||{m}^{m}\rERR|PID^1^5^{m}&{m}\r",
        "MSH|^~\\&|A|B|||20260101||ACK|1|P|2.5.1\rMSA|{m}|{id}\r",
        "MSH|^~\\&|A|B|||20260101||ACK|1|P|2.5.1\rMSA|AA|{m}\r",
        "{m}",
    ],
)
async def test_no_word_of_an_answer_is_passed_on(echo: Any, answer: str, marker: str):
    connector = MllpConnector(
        "lab", host="127.0.0.1", port=await echo(answer.replace("{m}", marker)), timeout_seconds=30, deduplicates=False
    )
    await connector.connect()
    item = queued(delivery(Operation.FORWARD, forward_payload("M1")))
    [result] = await connector.deliver([item])
    assert not result.delivered
    clean(marker, result.error, result.text)
    await connector.close()


def test_every_trouble_of_a_destination_has_a_remedy():
    for code in ("login-inactive-org", "login-refused", "http-503", "answer-ae", "answer-cr-207", "file-foreign"):
        assert remedy(code)
    assert remedy(None) is None
    assert remedy("field-custom-validation-exception") is None
    assert all(text and not text.endswith(".") for text in REMEDIES.values())


# --- where data goes -------------------------------------------------------------------------------------------------

ORG = "https://hospital.my.salesforce.com"


@pytest.mark.parametrize(
    ("login", "instance", "hosts", "good"),
    [
        (ORG, ORG, (), True),
        (ORG, "https://na139.salesforce.com", (), True),
        ("https://login.salesforce.com", "https://hospital--uat.sandbox.my.salesforce.com:443", (), True),
        ("https://gov.my.salesforce.mil", "https://gov2.my.salesforce.mil", (), True),
        ("https://gov.my.salesforce.mil", "https://hospital.my.salesforce.com", (), False),
        (ORG, "https://attacker.example", (), False),
        (ORG, "https://attacker.example", ("other.example",), False),
        (ORG, "https://hospital.my.salesforce.com.attacker.example", (), False),
        (ORG, "https://evilsalesforce.com", (), False),
        (ORG, "https://attacker.example/.salesforce.com", (), False),
        (ORG, "https://attacker.example\\@hospital.my.salesforce.com", (), False),
        (ORG, "https://hospital.my.salesforce.com@attacker.example", (), False),
        (ORG, "https://hospital.my.salesforce.com/path", (), False),
        (ORG, "https://127.0.0.1", (), False),
        (ORG, "https://[::1]:8443", (), False),
        ("https://sso.hospital.org", "https://sso.hospital.org", (), True),
        ("https://sso.hospital.org", "https://crm.hospital.org", (), False),
        ("https://sso.hospital.org", "https://crm.hospital.org", ("hospital.org",), True),
        ("https://sso.hospital.org", "https://evilhospital.org", ("hospital.org",), False),
        ("https://sso.hospital.co.uk", "https://attacker.co.uk", (), False),
        ("https://login.salesforce.com", "https://crm.proxy.example", ("crm.proxy.example",), True),
        ("http://127.0.0.1:9", "http://localhost:10", (), True),
        ("http://127.0.0.1:9", "http://10.0.0.1", (), False),
    ],
)
def test_the_log_in_leads_to_the_org_s_own_hosts_only(login: str, instance: str, hosts: tuple[str, ...], good: bool):
    settings = SalesforceDestination(
        type="salesforce", login_url=login, client_id="c", client_secret="s", instance_hosts=hosts
    )
    assert salesforce_module._is_instance(instance, settings) is good


async def test_a_log_in_that_leads_elsewhere_is_a_trouble_of_the_destination(org: SalesforceOrg, salesforce: Make):
    org.fail(on="token", status=200, body={"access_token": "t", "instance_url": "https://attacker.example"})
    assert (await said(salesforce()))[0] == "instance-foreign"


@pytest.mark.parametrize("hosts", [("*",), ("com/",), ("",), ("localhost",), (".example.com",), ("EXAMPLE.com",)])
def test_hosts_are_names_with_a_domain(hosts: tuple[str, ...]):
    with pytest.raises(ValueError, match="instance_hosts"):
        SalesforceDestination(type="salesforce", login_url=ORG, client_id="c", client_secret="s", instance_hosts=hosts)


@pytest.fixture
def hostile_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    log = tmp_path / "keys.log"
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "attacker.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    return log


async def test_a_call_takes_nothing_of_the_environment(org: SalesforceOrg, salesforce: Make, hostile_environment: Path):
    assert await said(salesforce()) == ["", ""]
    context = http.tls_context(None)
    assert context.keylog_filename is None
    assert context.get_ca_certs()  # those that come with requests, whatever SSL_CERT_FILE says


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_call_goes_through_the_proxy_of_the_configuration(scheme: str):
    with RudeServer(b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n") as proxy:
        client = HttpClient(timeout_seconds=5.0, response_bytes_max=1000, proxy=proxy.url)
        with contextlib.suppress(CallError):
            await client.request("POST", f"{scheme}://org.example/x", headers={}, body=b"{}")
        await client.close()
    wanted = b"POST http://org.example/x " if scheme == "http" else b"CONNECT org.example:443 "
    assert proxy.heads[0].startswith(wanted)


async def test_authorities_come_from_the_configuration(tmp_path: Path):
    client = HttpClient(timeout_seconds=5.0, response_bytes_max=1000, ca=tmp_path / "ca.pem")
    with pytest.raises(OSError, match="No such file"):
        await client.request("GET", "https://org.example/x", headers={})


def test_a_tls_connection_takes_nothing_of_the_environment(hostile_environment: Path):
    assert ssl.get_default_verify_paths().cafile != os.environ["SSL_CERT_FILE"]  # there is no such file
    Path(os.environ["SSL_CERT_FILE"]).write_text("no certificate")
    context = tls_context(TlsClient(), Path)  # it would refuse that file
    assert context.keylog_filename is None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
