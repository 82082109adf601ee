"""From a destination in config.yaml to its connector. Nothing is opened here: what is wrong is the configuration."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from engine.clock import Clock
from engine.connectors.base import Connector
from engine.connectors.fieldmap import compile_field_map
from engine.errors import SettingsError
from engine.settings import Configuration, FileDestination, MllpDestination, SalesforceDestination
from engine.yamlfile import Problem


def build_connectors(configuration: Configuration, *, clock: Clock) -> dict[str, Connector]:
    """A connector for each destination, by name. Raises SettingsError with the problems of all of them."""
    problems: list[Problem] = []
    connectors: dict[str, Connector] = {}
    for name in configuration.site.destinations:
        try:
            connectors[name] = build_connector(name, configuration, clock=clock)
        except SettingsError as error:
            problems.extend(error.problems)
    if problems:
        raise SettingsError(tuple(dict.fromkeys(problems)))  # two destinations may share a field map
    return connectors


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
                tls=(lambda: tls_context(tls, configuration.path)) if tls is not None else None,
            )
        case SalesforceDestination():
            from engine.connectors.salesforce import SalesforceConnector

            snapshot = configuration.snapshot
            file = f"{configuration.site.mappings.removeprefix('./').rstrip('/')}/destinations/{settings.mapping}.yaml"
            if file not in snapshot.files:
                site = snapshot.document(snapshot.site_file)
                path = ("destinations", name, "mapping")
                raise SettingsError((site.problem(path, f"there is no {file}"),))
            zone = ZoneInfo(configuration.site.calendar.timezone)
            return SalesforceConnector(
                name, settings, compile_field_map(snapshot.document(file), zone=zone), clock=clock
            )
