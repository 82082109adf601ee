from __future__ import annotations

from pathlib import Path

import pytest

from engine.clock import SystemClock
from engine.connectors.file import FileConnector
from engine.connectors.mllp import MllpConnector
from engine.connectors.registry import build_connectors
from engine.connectors.salesforce import SalesforceConnector
from engine.errors import SettingsError
from engine.settings import Configuration, load
from engine.snapshot import Snapshot

SITE = """\
destinations:
  files: {type: file, path: var/outbox}
  lab: {type: mllp, host: 10.0.0.9, port: 2576, deduplicates: true, tls: {ca: ca.pem}}
  crm: {type: salesforce, login_url: "https://example.my.salesforce.com", client_id: c, client_secret: s}
"""
MAP = """\
rows:
  - on: upsert_patient
    object: Account
    key: {field: ExternalId__c, from: patient.key}
"""


def configuration(base: Path, site: str = SITE, field_map: str | None = MAP) -> Configuration:
    files = {"config.yaml": site}
    if field_map is not None:
        files["mappings/destinations/salesforce.yaml"] = field_map
    return load(Snapshot(base, "config.yaml", files))


def test_each_destination_gets_its_connector_and_nothing_is_opened(tmp_path: Path):
    found = build_connectors(configuration(tmp_path), clock=SystemClock())
    assert {name: type(connector) for name, connector in found.items()} == {
        "files": FileConnector,
        "lab": MllpConnector,
        "crm": SalesforceConnector,
    }
    assert [connector.name for connector in found.values()] == ["files", "lab", "crm"]
    assert found["lab"].idempotent
    assert list(tmp_path.iterdir()) == []


async def test_paths_are_relative_to_the_configuration(tmp_path: Path):
    connector = build_connectors(configuration(tmp_path), clock=SystemClock())["files"]
    await connector.connect()
    await connector.close()
    assert (tmp_path / "var" / "outbox").is_dir()


def test_a_field_map_that_is_not_there_is_a_problem_of_the_configuration(tmp_path: Path):
    with pytest.raises(SettingsError) as caught:
        build_connectors(configuration(tmp_path, field_map=None), clock=SystemClock())
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == ("config.yaml", 4)
    assert "mappings/destinations/salesforce.yaml" in problem.message


def test_problems_of_a_shared_field_map_are_told_once(tmp_path: Path):
    site = SITE + SITE.splitlines()[-1].replace("crm:", "crm2:") + "\n"
    with pytest.raises(SettingsError) as caught:
        build_connectors(configuration(tmp_path, site, MAP.replace("patient.key", "patient.id")), clock=SystemClock())
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == ("mappings/destinations/salesforce.yaml", 4)


@pytest.mark.parametrize(
    ("path", "who"),
    [
        ("var", "the store"),
        (".", "config.yaml"),
        ("var/../var/.", "the store"),
        ("channels", "the channels"),
        ("mappings/destinations", "the channels or mappings"),
        ("keys", "the keys"),
        ("link", "the store"),
    ],
)
def test_a_destination_does_not_write_among_the_engine_s_own_files(tmp_path: Path, path: str, who: str):
    (tmp_path / "var").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "var")
    site = f"store: {{keys: keys/keys.json}}\ndestinations:\n  files: {{type: file, path: {path}}}\n"
    with pytest.raises(SettingsError) as caught:
        build_connectors(configuration(tmp_path, site), clock=SystemClock())
    (problem,) = caught.value.problems
    assert (problem.line, problem.key) == (3, "destinations.files.path")
    assert who in problem.message


@pytest.mark.parametrize("second", ["var/outbox", "var/./outbox/", "other/link"])
def test_two_destinations_do_not_share_a_folder(tmp_path: Path, second: str):
    (tmp_path / "var/outbox").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/link").symlink_to(tmp_path / "var/outbox")
    site = f"destinations:\n  a: {{type: file, path: var/outbox}}\n  b: {{type: file, path: {second}}}\n"
    with pytest.raises(SettingsError) as caught:
        build_connectors(configuration(tmp_path, site), clock=SystemClock())
    (problem,) = caught.value.problems
    assert (problem.line, "destination a" in problem.message) == (3, True)
