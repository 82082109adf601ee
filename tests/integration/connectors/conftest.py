from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from peers.salesforce_org import SalesforceOrg

from engine.clock import SystemClock
from engine.connectors.fieldmap import compile_field_map
from engine.connectors.salesforce import SalesforceConnector, SalesforceDestination
from engine.yamlfile import parse

SHIPPED = Path(__file__).parents[3] / "mappings" / "destinations" / "salesforce.yaml"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with cert.pem, of localhost and signed by itself, and key.pem."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "key.pem", "-out",
         folder / "cert.pem", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def org() -> Iterator[SalesforceOrg]:
    server = SalesforceOrg().start()
    yield server
    server.stop()


@pytest.fixture
async def salesforce(org: SalesforceOrg) -> AsyncIterator[Callable[..., SalesforceConnector]]:
    """Makes connectors to the org, with client credentials unless told otherwise."""
    made: list[SalesforceConnector] = []
    field_map = compile_field_map(parse(SHIPPED.read_text(), "salesforce.yaml"), zone=ZoneInfo("America/New_York"))

    def make(**settings: Any) -> SalesforceConnector:
        given: dict[str, Any] = {
            "type": "salesforce",
            "login_url": org.url,
            "client_id": org.client_id,
            "client_secret": org.client_secret,
            "timeout_seconds": 60.0,
        }
        destination = SalesforceDestination(**(given | settings))
        made.append(SalesforceConnector("crm", destination, field_map, clock=SystemClock()))
        return made[-1]

    yield make
    for connector in made:
        await connector.close()
