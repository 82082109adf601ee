"""From the wire to an org: the daemon delivers to a Salesforce that expires tokens and is away for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Daemon, Site
from peers.salesforce_org import SalesforceOrg

MESSAGES = Path(__file__).parents[1] / "messages"


@pytest.fixture
def org() -> Iterator[SalesforceOrg]:
    server = SalesforceOrg().start()
    yield server
    server.stop()


def test_a_discharge_arrives_in_the_org_and_a_cancel_takes_it_back(
    site: Site, make_daemon: Callable[[Site], Daemon], org: SalesforceOrg
) -> None:
    site.edit(
        "config.yaml",
        (
            r"(?m)^destinations:\n",
            f"""destinations:
  crm:
    type: salesforce
    login_url: {org.url}
    client_id: {org.client_id}
    client_secret: {org.client_secret}
    retry: {{first_seconds: 0.1, seconds_max: 0.5, breaker_seconds: 0.5}}
""",
        ),
    )
    site.edit("channels/main-campus.yaml", (r"\{to: files,", "{to: crm,"))
    daemon = make_daemon(site)
    org.fail(status=503, times=2)
    daemon.send((MESSAGES / "adt_a01_admission.hl7").read_bytes())
    org.expire_tokens()
    daemon.send((MESSAGES / "adt_a03_discharge_home_health.hl7").read_bytes())
    ledger = daemon.settled(seconds=90)
    assert ledger[0]["deliveries"]["dead"] == 0, site.json("dead", "list")
    account = org.one("Account", ExternalId__c="MRN:558181838")
    assert account["MRN__c"] == "558181838"
    assert account["HighRiskFlag__c"] is True
    assert account["ReadmissionRiskScore__c"] == 10
    tasks = org.find("Task")
    assert len(tasks) == len(site.json("tasks", "list"))
    assert {task["Status"] for task in tasks} == {"Not Started"}

    daemon.send((MESSAGES / "adt_a13_cancel_discharge.hl7").read_bytes())
    deadline = time.monotonic() + 60
    while any(task["Status"] == "Not Started" for task in org.find("Task")):
        assert time.monotonic() < deadline, [task["Status"] for task in org.find("Task")]
        time.sleep(0.3)
    assert len(org.find("Task")) == len(tasks), "a retracted task is changed, not deleted"
    assert "MRN:558181838" not in "".join(call.path for call in org.calls), "an identifier in a URL"
    assert "Testperson" not in daemon.log.read_text()
