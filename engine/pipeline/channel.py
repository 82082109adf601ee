"""Channels made ready: all that a configuration names is loaded, checked and compiled once, before the first message.

Errors are collected over all files, so that one `handoff check` shows all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol as Interface
from typing import TypeVar
from zoneinfo import ZoneInfo

from engine.care.calendar import BusinessCalendar
from engine.care.dispositions import Dispositions, load_dispositions
from engine.care.events import Events, load_events
from engine.care.protocol import Protocol, load_protocol
from engine.errors import SettingsError
from engine.mapping.apply import Mapping as FieldMapping
from engine.mapping.compile import compile_mapping
from engine.mapping.expression import Filter, FilterError, compile_filter
from engine.mapping.tables import load_tables
from engine.risk.inputs import InputTables, load_input_tables
from engine.risk.registry import Model, load_models
from engine.settings import Channel, Configuration, Site
from engine.yamlfile import Document, Problem

T = TypeVar("T")


class Key(Interface):
    """A keyed hash over parts, as text: the same parts always give the same key, and nothing can be read from it."""

    def __call__(self, *parts: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Planner:
    """A protocol and the model whose band decides in it; none: it plans without a band."""

    protocol: Protocol
    model: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledChannel:
    """A channel with all that its messages meet."""

    settings: Channel
    version: str
    """Of the configuration."""
    zone: ZoneInfo
    filter: Filter | None
    mapping: FieldMapping
    models: tuple[Model, ...]
    """The first decides the band."""
    planner: Planner | None
    """Of the discharges that nobody has planned yet."""
    planners: Mapping[str, Planner]
    """Of all channels, by protocol: what another channel has planned goes on as it was planned."""
    events: Events
    dispositions: Dispositions
    inputs: InputTables
    calendar: BusinessCalendar
    key: Key
    observed_since: datetime | None = None
    """When the engine first heard of this channel's patients: before that it knows nothing of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledConfiguration:
    version: str
    site: Site
    source: Configuration
    channels: Mapping[str, CompiledChannel]


class _Collector:
    """Runs loaders and keeps their problems, so that one wrong file does not hide the next."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def __call__(self, work: Callable[[], T]) -> T | None:
        try:
            return work()
        except SettingsError as error:
            self.problems.extend(error.problems)
            return None


def compile_configuration(configuration: Configuration, key: Key) -> CompiledConfiguration:
    """Raises SettingsError with the problems of all files."""
    attempt = _Collector()
    documents = _documents(configuration, attempt)

    def read(name: str, load: Callable[[Document], T]) -> T | None:
        document = documents.get(name)
        if document is None:
            file = f"{configuration.site.mappings}/{name}"
            attempt.problems.append(Problem(file, 1, 1, "", "this file is missing"))
            return None
        return attempt(lambda: load(document))

    tables = attempt(lambda: load_tables(d for name, d in documents.items() if name.startswith("tables/"))) or {}
    models = attempt(lambda: load_models(_folder(documents, "risk"))) or {}
    protocols = {
        name: protocol
        for name, document in _folder(documents, "protocols").items()
        if (protocol := attempt(lambda document=document: load_protocol(document))) is not None  # type: ignore[misc]
    }
    events = read("care/adt-events.yaml", load_events)
    dispositions = read("care/dispositions.yaml", load_dispositions)
    inputs = read("care/risk-inputs.yaml", load_input_tables)
    calendar = BusinessCalendar(configuration.site.calendar)
    planners: dict[str, Planner] = {}
    for settings in configuration.channels.values():
        if (planner := _planner(settings, protocols)) is not None:
            planners.setdefault(planner.protocol.name, planner)
    channels: dict[str, CompiledChannel] = {}
    mappings: dict[tuple[str, str], FieldMapping | None] = {}
    for name, settings in configuration.channels.items():
        document = configuration.channel_documents[name]
        zone = ZoneInfo(settings.timezone)
        compiled = attempt(lambda: _filter(settings, document))  # noqa: B023  # called at once
        field_file = documents.get(f"fields/{settings.mapping}.yaml")
        mapping_key = (settings.mapping, settings.timezone)
        if field_file is None:
            attempt.problems.append(document.problem(("mapping",), _missing("fields", settings.mapping)))
        elif mapping_key not in mappings:
            mappings[mapping_key] = attempt(lambda: compile_mapping(field_file, tables, zone=zone))  # noqa: B023
        for index, model in enumerate(settings.risk):
            if model not in models:
                attempt.problems.append(document.problem(("risk", index), _missing("risk", model)))
        if settings.protocol is not None and settings.protocol not in protocols:
            attempt.problems.append(document.problem(("protocol",), _missing("protocols", settings.protocol)))
        mapping = mappings.get(mapping_key)
        if attempt.problems or mapping is None or events is None or dispositions is None or inputs is None:
            continue
        channels[name] = CompiledChannel(
            settings=settings,
            version=configuration.snapshot.version,
            zone=zone,
            filter=compiled,
            mapping=mapping,
            models=tuple(models[model] for model in settings.risk),
            planner=_planner(settings, protocols),
            planners=planners,
            events=events,
            dispositions=dispositions,
            inputs=inputs,
            calendar=calendar,
            key=key,
        )
    if attempt.problems:
        raise SettingsError(tuple(dict.fromkeys(attempt.problems)))
    return CompiledConfiguration(
        version=configuration.snapshot.version, site=configuration.site, source=configuration, channels=channels
    )


def _planner(settings: Channel, protocols: Mapping[str, Protocol]) -> Planner | None:
    protocol = protocols.get(settings.protocol) if settings.protocol is not None else None
    return Planner(protocol, settings.risk[0] if settings.risk else None) if protocol is not None else None


def _documents(configuration: Configuration, attempt: _Collector) -> dict[str, Document]:
    """All files below the mappings folder, by their path in it (`fields/adt.yaml`)."""
    snapshot = configuration.snapshot
    found: dict[str, Document] = {}
    folder = configuration.site.mappings.removeprefix("./").rstrip("/") + "/"
    for file in snapshot.below(folder):
        document = attempt(lambda: snapshot.document(file))  # noqa: B023  # called at once
        if document is not None:
            found[file.removeprefix(folder)] = document
    return found


def _folder(documents: Mapping[str, Document], folder: str) -> dict[str, Document]:
    """The files of one folder by their stem (`lace`)."""
    prefix = f"{folder}/"
    return {
        name.removeprefix(prefix).removesuffix(".yaml"): document
        for name, document in documents.items()
        if name.startswith(prefix)
    }


def _filter(settings: Channel, document: Document) -> Filter | None:
    if settings.filter is None:
        return None
    try:
        return compile_filter(settings.filter)
    except FilterError as error:
        line, column = document.place(("filter",))
        raise SettingsError((Problem(document.file, line, column, "filter", f"{error.text} ({_at(error)})"),)) from None


def _at(error: FilterError) -> str:
    """Where in the filter: a place in the file would be wrong as soon as its text is quoted or folded."""
    line = f"line {error.line}, " if error.line > 1 else ""
    return f"{line}character {error.column} of the filter"


def _missing(folder: str, name: str) -> str:
    return f"there is no mappings/{folder}/{name}.yaml"
