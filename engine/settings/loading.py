"""Reading the configuration: all files, all problems at once."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Protocol, Union

from pydantic import (
    Field,
    create_model,
)

from engine.domain.delivery import STATE, WHAT, Operation
from engine.errors import Problem, SettingsError
from engine.outline import ChannelOutline, KeyCommand, KeySource, Outline
from engine.settings.channel import Channel
from engine.settings.secret import secrets_of
from engine.settings.site import DestinationBase, Site
from engine.settings.values import Identifier
from engine.snapshot import Loaded, References, Snapshot, resolve_references
from engine.yamlfile import Document, parse
from engine.yamlmodel import validate


@dataclass(frozen=True)
class Configuration:
    """A whole, valid configuration: shapes and references checked, nothing compiled yet."""

    snapshot: Snapshot
    site: Site
    channels: Mapping[str, Channel]
    channel_documents: Mapping[str, Document]
    """By channel name, for problems that only the compiler can find."""
    warnings: tuple[Problem, ...] = ()
    exposed: tuple[Problem, ...] = ()
    """Secrets that stand in the files. They are used, and not recorded; `check` and a reload refuse them."""
    variables: frozenset[str] = frozenset()
    """Variables of the environment that hold secrets."""

    @property
    def node(self) -> str:
        return self.site.node

    @property
    def store_url(self) -> str:
        return self.site.store.url

    @property
    def store_keys(self) -> KeySource:
        keys = self.site.store.keys
        return keys if isinstance(keys, str) else KeyCommand(command=keys.command, seconds_max=keys.seconds_max)

    @property
    def clock_file(self) -> Path | None:
        clock = self.site.clock
        return None if clock is None else self.path(clock.offset_seconds_file)

    def path(self, relative: str) -> Path:
        """A path of the configuration, made absolute."""
        return self.snapshot.base / relative

    @property
    def site_document(self) -> Document:
        return self.snapshot.document(self.snapshot.site_file)

    @cached_property
    def outline(self) -> Outline:
        site = self.site
        return Outline(
            snapshot=self.snapshot,
            node=site.node,
            store_url=site.store.url,
            store_keys=self.store_keys,
            console_host=site.console.host,
            console_port=site.console.port,
            clock_file=self.clock_file,
            access=None if site.access is None else site.access.model_dump(mode="json", exclude={"oidc"}),
            searches_per_hour_max=site.trail.searches_per_hour_max,
            destinations={name: one.type for name, one in site.destinations.items()},
            channels={
                name: ChannelOutline(
                    name=name,
                    mode=channel.mode,
                    host=channel.listen.host,
                    port=channel.listen.port,
                    authorities=frozenset({*channel.identity.names.values(), channel.default_authority}),
                    senders=frozenset({*channel.senders, *channel.timezone.senders}),
                )
                for name, channel in self.channels.items()
            },
            checkpoint_files=self._checkpoint_files,
            checkpoint_rows=site.trail.checkpoint_rows,
        )

    @property
    def _checkpoint_files(self) -> tuple[str, ...] | None:
        files = [one.file for one in self.site.trail.checkpoints]
        named = tuple(one for one in files if one is not None)
        return named if len(named) == len(files) else None

    @property
    def has_shadow(self) -> bool:
        return any(channel.mode == "shadow" for channel in self.channels.values())

    @property
    def keeps_shadow(self) -> bool:
        """Whether what was kept in shadow may still be wanted: a channel that is paused may go on in shadow."""
        return any(channel.mode in {"shadow", "paused"} for channel in self.channels.values())

    def feeding(self, destination: str) -> frozenset[str]:
        """The channels that deliver the state of charts to a destination. One in shadow delivers nothing."""
        return frozenset(
            name
            for name, channel in self.channels.items()
            if channel.mode != "shadow"
            and any(one.to == destination and set(one.what) & STATE for one in channel.deliver)
        )

    def destination(self, name: str) -> DestinationBase:
        """The settings of a destination, its timeout not longer than stopping allows."""
        settings = self.site.destinations[name]
        seconds = min(settings.timeout_seconds, self.site.call_seconds_max)
        return settings.model_copy(update={"timeout_seconds": seconds})


def loaded(configuration: Configuration, *, who: str, by: str, at: datetime) -> Configuration:
    """The same configuration, as one that a daemon is given to work by."""
    snapshot = replace(configuration.snapshot, loaded=Loaded(id=secrets.token_hex(8), at=at, who=who, by=by))
    return replace(configuration, snapshot=snapshot)


class DestinationTypes(Protocol):
    def __call__(self, named: Collection[object]) -> tuple[type[DestinationBase], ...]:
        """The models of the types that are named; all there are, when there is none of a name."""
        ...


@cache
def site_of(models: tuple[type[DestinationBase], ...]) -> type[Site]:
    """The site with these types as its tagged section of destinations."""
    if not models:
        return Site
    one = models[0] if len(models) == 1 else Annotated[Union[models], Field(discriminator="type")]  # noqa: UP007
    section: Any = (dict[Identifier, one], {})  # type: ignore[valid-type]
    return create_model("Site", __base__=Site, __module__=Site.__module__, __doc__=Site.__doc__, destinations=section)


def _types_named(document: Document) -> set[object]:
    section = document.value.get("destinations") if isinstance(document.value, dict) else None
    each = section.values() if isinstance(section, dict) else ()
    found = [one.get("type") if isinstance(one, dict) else None for one in each]
    return {name if isinstance(name, str) else None for name in found}


def load(snapshot: Snapshot, types: DestinationTypes, *, references: References = "required") -> Configuration:
    """Validate config.yaml and every channel file. Raises SettingsError with all problems of all files at once."""
    problems = [remark for remark in snapshot.remarks if remark.level == "problem"]

    def read(file: str, model: Callable[[Document], type[Any]]) -> tuple[Document, Any]:
        try:
            document = snapshot.document(file)
            value = resolve_references(document, document.value, (), snapshot.base, problems, mode=references)
            resolved = Document(document.file, value, document.places)
            problems.extend(_empty_tls(document, value, ()))
            return resolved, validate(resolved, model(document))
        except SettingsError as error:
            problems.extend(error.problems)
            return Document(file, {}, {}), None

    site_document, site = read(snapshot.site_file, lambda document: site_of(types(_types_named(document))))
    problems.extend(_timeout_problems(site_document, site) if site is not None else ())
    problems.extend(_keys_inside(snapshot) if site is not None else ())
    channels: dict[str, Channel] = {}
    documents: dict[str, Document] = {}
    if site is not None:
        problems += (*_wrong_places(site, snapshot), *_wrong_glass_notices(site, snapshot))
    folder = site.channels if site else "channels"
    ports: dict[tuple[str, int], str] = {}
    if site is not None:
        ports[site.console.host, site.console.port] = "the console"
    for file in snapshot.below(folder):
        document, channel = read(file, lambda _: Channel)
        if channel is None:
            continue
        if channel.name in channels:
            problems.append(document.problem(("name",), "another channel file has the same name"))
        bound = (channel.listen.host, channel.listen.port)
        if channel.listen.port and bound in ports:
            problems.append(document.problem(("listen", "port"), f"{ports[bound]} listens there already"))
        ports[bound] = f"channel {channel.name}"
        if site is not None:
            for index, deliver in enumerate(channel.deliver):
                destination = site.destinations.get(deliver.to)
                if destination is None:
                    path = ("deliver", index, "to")
                    problems.append(document.problem(path, "no destination of this name in config.yaml"))
                elif not set(deliver.what) <= destination.takes:
                    known = ", ".join(sorted(destination.takes & set(WHAT)))
                    text = f"a destination of type {destination.type} takes {known}"
                    problems.append(document.problem(("deliver", index, "what"), text))
        channels[channel.name] = channel
        documents[channel.name] = document
    if problems or site is None:
        raise SettingsError(tuple(problems))
    warnings = tuple(remark for remark in snapshot.remarks if remark.level == "warning")
    models = {snapshot.site_file: site, **{documents[name].file: channel for name, channel in channels.items()}}
    found = {file: list(secrets_of(model, snapshot.document(file).value)) for file, model in models.items()}
    exposed = tuple(
        snapshot.document(file).problem(one.path, f"holds {one.what}: {_ELSEWHERE}")
        for file, secrets in found.items()
        for one in secrets
        if one.literal
    )
    if exposed:
        snapshot = snapshot.without({file: [one.path for one in held if one.literal] for file, held in found.items()})
    variables = frozenset(one.variable for held in found.values() for one in held if one.variable is not None)
    return Configuration(snapshot, site, channels, documents, warnings, exposed, variables)


def _wrong_places(site: Site, snapshot: Snapshot) -> Iterator[Problem]:
    """Destinations that checkpoints of the trail are to go to, and can't."""
    document = snapshot.document(snapshot.site_file)
    for index, place in enumerate(site.trail.checkpoints):
        if place.destination is None:
            continue
        path = ("trail", "checkpoints", index, "destination")
        taker = site.destinations.get(place.destination)
        if taker is None:
            yield document.problem(path, "no destination of this name")
        elif not taker.takes_checkpoints:
            text = f"a destination of type {taker.type} takes no checkpoints; one of type webhook does"
            yield document.problem(path, text)


def _wrong_glass_notices(site: Site, snapshot: Snapshot) -> Iterator[Problem]:
    """Destinations that are to be told of broken glasses, and can't."""
    document = snapshot.document(snapshot.site_file)
    for index, name in enumerate(site.access.glass_notices if site.access is not None else ()):
        path = ("access", "glass_notices", index)
        taker = site.destinations.get(name)
        if taker is None:
            yield document.problem(path, "no destination of this name")
        elif Operation.NOTIFY_GLASS.what not in taker.takes:
            text = f"a destination of type {taker.type} takes no such notices; file, webhook and pagerduty do"
            yield document.problem(path, text)


_ELSEWHERE: Final = (
    "keep the value elsewhere and write where it is, as {env: NAME}, {file: PATH} or {credential: NAME}; "
    "change it, if others could read this file"
)


def _keys_inside(snapshot: Snapshot) -> Iterator[Problem]:
    """The keys themselves in config.yaml, which is kept in the store with every version: a lock with its key in it."""
    document = snapshot.document(snapshot.site_file)
    store = document.value.get("store")
    keys = store.get("keys") if isinstance(store, dict) else None
    if isinstance(keys, str) and keys.lstrip().startswith("{"):
        text = "the keys must not stand in this file: name a file (var/keys.json, 0600), or {credential: NAME}"
        yield document.problem(("store", "keys"), text)


_TO_READ: Final = ("node", "store", "purpose", "clock", "calendar", "console", "channels", "mappings", "access",
                   "trail")  # fmt: skip
"""What of config.yaml leads to the store, and shows what is in it."""


def store_only(config: Path, *, usual_place: bool = False) -> Configuration:
    """As much of a broken configuration as leads to its store, and no channel. Raises SettingsError.

    usual_place: a store that can't be read is taken to be where it is when nobody names it.

    Somebody edits a channel while somebody else has to see what waits: what is wrong elsewhere must not matter. When
    config.yaml itself is no YAML, the lines of each of these keys are read alone.
    """
    snapshot = Snapshot.alone(config)
    base, text = snapshot.base, snapshot.files[snapshot.site_file]
    found: dict[str, Any] = {}
    for key in _TO_READ:
        try:
            value = snapshot.document(config.name).value.get(key)
        except SettingsError:
            value = _value_alone(text, key)
        problems: list[Problem] = []
        document = Document(config.name, {key: value}, {})
        value = resolve_references(document, value, (key,), base, problems, mode="required")
        if value is None:
            continue
        try:
            validate(Document(config.name, found | {key: value}, {}), Site)  # what was found may be what it needs
            found[key] = value
        except SettingsError as error:
            problems.extend(error.problems)
        if problems and key == "store" and not usual_place:
            raise SettingsError(tuple(problems))
    return Configuration(snapshot, validate(Document(config.name, found, {}), Site), {}, {})


def _value_alone(text: str, key: str) -> Any:
    """The value of a key at the margin, read from its own lines alone."""
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith(f"{key}:")), None)
    if start is None:
        return None
    end = start + 1
    while end < len(lines) and (not lines[end].strip() or lines[end][0] in " \t#"):
        end += 1
    try:
        return parse("\n".join(lines[start:end]), "config.yaml").value.get(key)
    except SettingsError:
        return None


def _empty_tls(document: Document, value: Any, path: tuple[str | int, ...]) -> Iterator[Problem]:
    """`tls:` with nothing below it, left over from an edit, would be taken for no TLS."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "tls" and inner is None:
                yield document.problem((*path, key), "is empty: say what TLS is to use, or take the line away for none")
            yield from _empty_tls(document, inner, (*path, key))


def _timeout_problems(document: Document, site: Site) -> Iterator[Problem]:
    for name, destination in site.destinations.items():
        seconds = destination.timeout_seconds
        if "timeout_seconds" in destination.model_fields_set and seconds > site.call_seconds_max:
            path = ("destinations", name, "timeout_seconds")
            needed = f"a call of {seconds:g} s needs shutdown_seconds_max: {seconds * 2:g} (it is"
            yield document.problem(path, f"{needed} {site.shutdown_seconds_max:g}), so that a stop can wait for it")
