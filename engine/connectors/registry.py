"""From a destination in config.yaml to its connector. Nothing is opened here: what is wrong is the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from engine.clock import Clock
from engine.connectors.base import Connector
from engine.connectors.fieldmap import compile_field_map
from engine.errors import Problem, SettingsError
from engine.settings import Configuration, FileDestination, MllpDestination, SalesforceDestination

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
    if not site.store.keys.lstrip().startswith("{"):
        own.setdefault(configuration.path(site.store.keys).resolve().parent, "the keys")
    taken: dict[Path, str] = {}
    for name, destination in site.destinations.items():
        if not isinstance(destination, FileDestination):
            continue
        folder = configuration.path(destination.path).resolve()
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


def build_connector(name: str, configuration: Configuration, *, clock: Clock) -> Connector:
    """Raises SettingsError."""
    settings = configuration.destination(name)
    match settings:
        case FileDestination():
            from engine.connectors.file import FileConnector

            return FileConnector(
                name, configuration.path(settings.path), rotate_bytes=settings.rotate_bytes, clock=clock
            )
        case MllpDestination():
            from engine.connectors.mllp import MllpConnector, tls_context

            tls = settings.tls
            return MllpConnector(
                name,
                host=settings.host,
                port=settings.port,
                timeout_seconds=settings.timeout_seconds,
                deduplicates=settings.deduplicates,
                answers_without_code=settings.answers_without_code,
                tls=(lambda: tls_context(tls, configuration.path)) if tls is not None else None,
            )
        case SalesforceDestination():
            from engine.connectors.salesforce import SalesforceConnector

            snapshot = configuration.snapshot
            file = f"{configuration.site.mappings}/destinations/{settings.mapping}.yaml"
            if file not in snapshot.files:
                site = snapshot.document(snapshot.site_file)
                path = ("destinations", name, "mapping")
                raise SettingsError((site.problem(path, f"there is no {file}"),))
            zone = ZoneInfo(configuration.site.calendar.timezone)
            return SalesforceConnector(
                name,
                settings,
                compile_field_map(snapshot.document(file), zone=zone),
                clock=clock,
                ca=configuration.path(settings.ca) if settings.ca is not None else None,
            )
