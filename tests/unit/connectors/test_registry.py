from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from engine import settings
from engine.clock import Clock, SystemClock
from engine.connectors.base import Connector, DestinationSettings
from engine.connectors.file import FileConnector
from engine.connectors.mllp import MllpConnector
from engine.connectors.registry import (
    TYPES,
    build_connector,
    build_connectors,
    check_files,
    load,
    models,
    settings_of,
)
from engine.connectors.salesforce import SalesforceConnector
from engine.domain.delivery import Operation
from engine.errors import Problem, SettingsError
from engine.pipeline.doubts import doubts
from engine.settings import Configuration
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


@pytest.mark.parametrize("type_", TYPES)
def test_each_type_says_what_it_is_called_and_what_it_takes(type_: str):
    model = settings_of(type_)
    assert model.model_fields["type"].annotation == Literal[type_]
    assert model.takes
    assert model.takes <= {operation.what for operation in Operation}


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ({"file"}, ["file"]),
        ({"salesforce", "file"}, ["file", "salesforce"]),
        (set(), []),
        ({"file", "ftp"}, list(TYPES)),
        ({None}, list(TYPES)),
    ],
)
def test_the_types_that_a_site_names_are_loaded_and_no_others(named: set[object], found: list[str]):
    assert [model.model_fields["type"].annotation for model in models(named)] == [Literal[one] for one in found]


@pytest.mark.parametrize(
    ("destination", "key", "said"),
    [
        ("{type: ftp, host: h}", "destinations.x.type", "must be one of 'file', 'mllp', 'pagerduty', 'salesforce'"),
        ("{path: var/x}", "destinations.x", "type"),
        ("{type: 7, path: var/x}", "destinations.x.type", "'file', 'mllp', 'pagerduty', 'salesforce'"),
        ("{type: file}", "destinations.x.path", "missing"),
        ("{type: file, path: var/x, host: h}", "destinations.x.host", "the keys here are type, retry"),
        ("[]", "destinations.x", "must be keys with values"),
        ("", "destinations.x", ""),
    ],
)
@pytest.mark.parametrize("beside", ["", "  y: {type: mllp, host: h, port: 1}\n"])
def test_what_is_wrong_with_a_destination_is_said_whatever_stands_beside_it(
    tmp_path: Path, destination: str, key: str, said: str, beside: str
):
    with pytest.raises(SettingsError) as caught:
        configuration(tmp_path, f"destinations:\n  x: {destination}\n{beside}", field_map=None)
    (problem,) = caught.value.problems
    assert (problem.line, problem.key) == (2, key)
    assert said in problem.message


class PigeonDestination(DestinationSettings):
    """A type that nobody knows but this test."""

    takes: ClassVar = frozenset({"patient"})
    type: Literal["pigeon"]
    loft: str

    def build(self, name: str, configuration: Configuration, *, clock: Clock) -> Connector:
        return FileConnector(name, configuration.path(self.loft), rotate_bytes=1 << 20, clock=clock)

    @property
    def folder(self) -> str:
        return self.loft

    def doubts(self) -> Iterator[tuple[str, str]]:
        yield "loft", "cats"

    def check_files(self, name: str, configuration: Configuration) -> Iterator[Problem]:
        yield configuration.site_document.problem(("destinations", name, "loft"), "draughty")


def test_a_type_is_all_in_its_model(tmp_path: Path):
    """Validated, checked, warned of and built by what it says of itself: nothing else has to know it."""
    site = "destinations:\n  far: {type: pigeon, loft: attic}\n  near: {type: file, path: attic, sealed: false}\n"
    snapshot = Snapshot(tmp_path, "config.yaml", {"config.yaml": site})
    loaded = settings.load(snapshot, lambda _: (PigeonDestination, settings_of("file")))
    assert build_connector("far", loaded, clock=SystemClock()).name == "far"
    assert [problem.message for problem in check_files(loaded)] == ["draughty"]
    assert [(one.key, one.message) for one in doubts(loaded)] == [("destinations.far.loft", "cats")]
    with pytest.raises(SettingsError, match="is the folder of destination far too"):
        build_connectors(loaded, clock=SystemClock())


def test_a_type_is_given_only_what_its_model_takes(tmp_path: Path):
    channel = "name: w\nlisten: {port: 0}\ntimezone: UTC\nmapping: adt\ndeliver: [{to: far, what: [patient, task]}]\n"
    site = "destinations: {far: {type: pigeon, loft: attic}}\n"
    snapshot = Snapshot(tmp_path, "config.yaml", {"config.yaml": site, "channels/w.yaml": channel})
    with pytest.raises(SettingsError, match="a destination of type pigeon takes patient"):
        settings.load(snapshot, lambda _: (PigeonDestination,))
