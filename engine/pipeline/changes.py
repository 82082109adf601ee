"""What a reload changes, in words, and what it takes away that somebody still uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from engine.domain.record import Record
from engine.errors import SettingsError

if TYPE_CHECKING:
    from engine.settings import Channel, Configuration
    from engine.snapshot import Snapshot

_FOLDERS: Final[Mapping[str, str]] = {
    "tables": "table", "protocols": "protocol", "risk": "score", "fields": "mapping", "destinations": "field map",
    "care": "care rules", "appointments": "appointment map", "privacy": "privacy rules",
}  # fmt: skip
_SIGNS: Final = {"added": "+", "removed": "-", "changed": "~"}


class Change(Record, frozen=True, kw_only=True):
    """One thing that a new configuration adds, takes away or changes."""

    change: Literal["added", "removed", "changed"]
    what: str
    """`channel`, `destination`, `table`, `protocol` and so on, or `site`."""
    name: str
    detail: str = ""
    """Never a value of the configuration but ports, addresses and versions."""
    in_use: bool = False
    """It is taken away while connections or deliveries hang on it."""

    def __str__(self) -> str:
        return f"{_SIGNS[self.change]} {self.what} {self.name}" + (f" ({self.detail})" if self.detail else "")


def changes(
    old: Configuration, new: Configuration, *, connections: Mapping[str, int], waiting: Mapping[str, int]
) -> tuple[Change, ...]:
    """connections: open ones, by channel. waiting: deliveries that are not finished, by destination."""
    return (
        *_channels(old, new, connections),
        *_destinations(old, new, waiting),
        *_files(old.snapshot, new.snapshot, new.site.mappings),
        *_site(old, new),
    )


def in_the_way(found: tuple[Change, ...]) -> str | None:
    """Why a reload needs the word `--allow-remove`; none: it does not."""
    used = [change for change in found if change.in_use]
    if not used:
        return None
    return f"would take away what is in use: {', '.join(f'{one.what} {one.name} ({one.detail})' for one in used)}"


def _channels(old: Configuration, new: Configuration, connections: Mapping[str, int]) -> Iterator[Change]:
    for name in _all(old.channels, new.channels):
        before, after = old.channels.get(name), new.channels.get(name)
        if before is None and after is not None:
            yield Change(change="added", what="channel", name=name, detail=f"{after.mode}, {_place(after)}")
        elif after is None and before is not None:
            number = connections.get(name, 0)
            held = f", {_counted(number, 'connection')}" if number else ""
            detail = f"port {before.listen.port} closed{held}"
            yield Change(change="removed", what="channel", name=name, detail=detail, in_use=number > 0)
        elif before is not None and after is not None and before != after:
            moved = f"{_place(before)} -> {_place(after)}"
            parts = [moved] if _place(before) != _place(after) else []
            parts += [f"mode {before.mode} -> {after.mode}"] if before.mode != after.mode else []
            parts += [key for key in _differing(before, after) if key != "mode"]
            yield Change(change="changed", what="channel", name=name, detail=", ".join(parts))


def _destinations(old: Configuration, new: Configuration, waiting: Mapping[str, int]) -> Iterator[Change]:
    for name in _all(old.site.destinations, new.site.destinations):
        before, after = old.site.destinations.get(name), new.site.destinations.get(name)
        if before is None and after is not None:
            yield Change(change="added", what="destination", name=name, detail=after.type)
        elif after is None and before is not None:
            number = waiting.get(name, 0)
            detail = f"{_counted(number, 'delivery', 'deliveries')} waiting" if number else before.type
            yield Change(change="removed", what="destination", name=name, detail=detail, in_use=number > 0)
        elif before != after:
            yield Change(change="changed", what="destination", name=name, detail=", ".join(_differing(before, after)))


def _files(old: Snapshot, new: Snapshot, folder: str) -> Iterator[Change]:
    prefix = f"{folder}/"
    for file in _all(old.files, new.files):
        kind, _, name = file.removeprefix(prefix).removesuffix(".yaml").rpartition("/")
        if not file.startswith(prefix) or old.files.get(file) == new.files.get(file):
            continue
        what = _FOLDERS.get(kind, "file")
        if file not in old.files:
            yield Change(change="added", what=what, name=name, detail=_version(new, file))
        elif file not in new.files:
            yield Change(change="removed", what=what, name=name)
        else:
            before, after = _version(old, file), _version(new, file)
            detail = f"{before} -> {after}" if before != after else f"{after}, same version" if after else ""
            yield Change(change="changed", what=what, name=name, detail=detail)


def _site(old: Configuration, new: Configuration) -> Iterator[Change]:
    # Their classes may differ: each knows the types of destination that its configuration names.
    keys = [key for key in type(new.site).model_fields if key != "destinations"]
    differing = [key for key in keys if getattr(old.site, key) != getattr(new.site, key)]
    if differing:
        yield Change(change="changed", what="site", name=new.site.node, detail=", ".join(differing))


def _version(snapshot: Snapshot, file: str) -> str:
    try:
        value = snapshot.document(file).value
    except SettingsError:
        return ""
    return f"version {value['version']}" if isinstance(value, dict) and "version" in value else ""


def _all(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return sorted({*old, *new})


def _differing(before: Any, after: Any) -> list[str]:
    if type(before) is not type(after):
        return ["type"]
    return [key for key in type(after).model_fields if getattr(before, key) != getattr(after, key)]


def _place(channel: Channel) -> str:
    return f"{channel.listen.host}:{channel.listen.port}"


def _counted(number: int, one: str, several: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"
