"""The types of destination, and from a destination in config.yaml to its connector.

A type is one file beside this one: its keys, what it takes, its checks and its connector. Settings stand lower and know
none of them, so the whole configuration is loaded from here. A type's file is imported when a site names it.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from engine import settings
from engine.clock import Clock
from engine.connectors.base import Connector, DestinationSettings
from engine.errors import Problem, SettingsError
from engine.settings import Configuration, Site
from engine.snapshot import References, Snapshot

TYPES: Final[Mapping[str, str]] = {
    "file": "engine.connectors.file:FileDestination",
    "mllp": "engine.connectors.mllp:MllpDestination",
    "pagerduty": "engine.connectors.pagerduty:PagerDutyDestination",
    "salesforce": "engine.connectors.salesforce:SalesforceDestination",
    "simulated_phone": "engine.connectors.simulated_phone:SimulatedPhoneDestination",
    "twilio": "engine.connectors.twilio:TwilioDestination",
    "webhook": "engine.connectors.webhook:WebhookDestination",
}
"""What a site writes as `type` -> the model of its keys."""


def settings_of(type_: str) -> type[DestinationSettings]:
    module, _, name = TYPES[type_].partition(":")
    model: type[DestinationSettings] = getattr(importlib.import_module(module), name)
    return model


def models(named: Collection[object]) -> tuple[type[DestinationSettings], ...]:
    """Those of the types named; all there are, when one has no model: then somebody has to be told what there is."""
    known = named if all(name in TYPES for name in named) else TYPES
    return tuple(settings_of(type_) for type_ in TYPES if type_ in known)


def whole_site() -> type[Site]:
    """config.yaml with every type of destination."""
    return settings.site_of(models(TYPES))


def load(snapshot: Snapshot, *, references: References = "required") -> Configuration:
    """Validate config.yaml and every channel file. Raises SettingsError with all problems of all files at once."""
    return settings.load(snapshot, models, references=references)


def build_connectors(configuration: Configuration, *, clock: Clock) -> dict[str, Connector]:
    """A connector for each destination, by name. Raises SettingsError with the problems of all of them."""
    problems: list[Problem] = []
    connectors: dict[str, Connector] = {}
    for name in configuration.site.destinations:
        try:
            connectors[name] = build_connector(name, configuration, clock=clock)
        except SettingsError as error:
            problems.extend(error.problems)
    problems += _folder_problems(configuration)
    if problems:
        raise SettingsError(tuple(dict.fromkeys(problems)))  # two destinations may share a field map
    return connectors


def build_connector(name: str, configuration: Configuration, *, clock: Clock) -> Connector:
    """Raises SettingsError."""
    return destination_settings(name, configuration).build(name, configuration, clock=clock)


def destination_settings(name: str, configuration: Configuration) -> DestinationSettings:
    found = configuration.destination(name)
    if not isinstance(found, DestinationSettings):
        raise TypeError(f"a configuration with destinations has to be loaded from {__name__}")
    return found


def check_files(configuration: Configuration) -> Iterator[Problem]:
    """What on this machine keeps destinations from working; their deliveries wait."""
    for name in configuration.site.destinations:
        yield from destination_settings(name, configuration).check_files(name, configuration)


def _folder_problems(configuration: Configuration) -> Iterator[Problem]:
    """Folders of destinations that lead into one another's files, or into the engine's own.

    A destination writes, rotates and cuts files; who takes files away from its folder may put others there.
    """
    site, snapshot = configuration.site, configuration.snapshot
    document = snapshot.document(snapshot.site_file)
    own = {
        snapshot.base.resolve(): "config.yaml",
        configuration.path(site.channels).resolve(): "the channels",
        configuration.path(site.mappings).resolve(): "the mappings",
    }
    scheme, _, file = site.store.url.partition(":///")
    if scheme == "sqlite":
        own[configuration.path(file.partition("?")[0]).resolve().parent] = "the store"
    keys = site.store.keys
    if isinstance(keys, str) and not keys.lstrip().startswith("{"):
        own.setdefault(configuration.path(keys).resolve().parent, "the keys")
    taken: dict[Path, str] = {}
    for name, destination in site.destinations.items():
        if not isinstance(destination, DestinationSettings) or destination.folder is None:
            continue
        folder = configuration.path(destination.folder).resolve()
        place = ("destinations", name, "path")
        inside = next((own[one] for one in own if folder == one), None)
        if inside is None and any(folder.is_relative_to(one) for one in list(own)[1:3]):
            inside = "the channels or mappings"
        if inside is not None:
            yield document.problem(place, f"leads to the folder of {inside}: give the files a folder of their own")
        elif folder in taken:
            text = f"is the folder of destination {taken[folder]} too: give each one of its own"
            yield document.problem(place, text)
        taken.setdefault(folder, name)
