"""Fields with a time each: of two messages about a field, the one that was recorded later counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from engine.domain.chart import Stamp
from engine.domain.record import Phi

_R = TypeVar("_R", bound=Phi)

NEVER: Final[Stamp] = (0.0, 0)


def merge_fields(
    record: _R, values: Mapping[str, Any], stamps: Mapping[str, Stamp], at: Stamp
) -> tuple[_R, dict[str, Stamp], bool]:
    """The record with what is newer than its own, the stamps of its fields, and whether something was older."""
    changes: dict[str, Any] = {}
    new_stamps = dict(stamps)
    stale = False
    for name, said in values.items():
        if at < new_stamps.get(name, at):
            stale = True
            continue
        new_stamps[name] = at
        known = getattr(record, name)
        value = () if said is None and known.__class__ is tuple else said
        if value is not known and value != known:
            changes[name] = value
    return (msgspec.structs.replace(record, **changes) if changes else record), new_stamps, stale
