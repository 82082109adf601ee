"""Lists page by page: tasks, pages and appointments of patients whom the actor sees, from a place on.

What a page costs is bounded, however few of the patients the actor sees: after so many items that were looked at it
ends, and the next one goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from engine.desk.desk import Desk

LOOKED_AT_MAX: Final = 1_000
_PIECE: Final = 100
"""Items read at once, when those of a first look were not enough."""

Key = tuple[Any, ...]
"""Where an item stands in its list."""


class Pages(Protocol):
    """A store of a list, that can be read from a place on."""

    @property
    def find(self) -> Callable[..., Sequence[Any]]: ...
    @property
    def key(self) -> Callable[[Any], Key]: ...


class Piece(NamedTuple):
    """A page of a list. next: where the next one begins; none: this is the last."""

    items: list[Any]
    next: Key | None


def page_of(desk: Desk, store: Pages, limit: int, after: Key | None, **conditions: Any) -> Piece:
    """At most `limit` items that the actor sees, after a place. Raises DeniedError when they may see none at all."""
    found: list[Any] = []
    looked_at, size = 0, limit + 1
    if desk.gate is not None and getattr(desk.gate.at_all(desk.action), "unless_seen", None) is not None:
        size = LOOKED_AT_MAX  # whether they may at all depends on whether there is one that they see
    while True:
        damaged: list[str] = []
        with desk.store.reader() as conn:
            piece = store.find(conn, **conditions, limit=size, damaged=damaged.append, after=after)
        looked_at += len(piece)
        found += desk.seen(piece, of_whom)
        if len(found) > limit:
            return Piece(found[:limit], store.key(found[limit - 1]))
        if not piece or len(piece) + len(damaged) < size:
            return Piece(found, None)
        after, size = store.key(piece[-1]), max(size, _PIECE)
        if looked_at >= LOOKED_AT_MAX:
            return Piece(found, after)


def of_whom(item: Any) -> tuple[str, str | None]:
    """Chart and stay of a task, page or appointment."""
    for name in ("task", "page"):
        if (part := getattr(item, name, None)) is not None:
            return item.chart_id, part.encounter
    appointment = getattr(item, "appointment", None)
    return item.chart_id, appointment.visit if appointment is not None else None  # of a row of the worklist: of no stay
