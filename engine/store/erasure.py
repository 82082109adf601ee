"""Erasure keys: each message, delivery, chart and record of the trail has a key of its own in backups, and what is
erased loses it. So it can't be read any more in a backup of before, though nobody touches that (decision 44).

The keys stand nowhere. All are derived from one root by a binary tree of keyed hashes: a node gives its two children
(Goldreich, Goldwasser, Micali 1986), a leaf is the key of one thing. To destroy a leaf, the nodes above it are thrown
away, and what is left of the tree is kept as the nodes beside that path. So a new thing needs no new key, and the table
grows only with what is erased: by a few nodes where numbers follow each other, as they do in a sweep.

Nodes are kept in the table `erasure_key`, sealed by the site's keys, and changed in the transaction that erases.
Backups hold rows of all tables but this one. A copy of it stands beside them (`store.backup.companion`): of that there
is only the newest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from hashlib import blake2b
from os import urandom
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Connection, delete, insert, select

from engine.store.keys import KeyRing
from engine.store.schema import audit_head, entry, erasing, erasure_key

if TYPE_CHECKING:
    from engine.store.store import Store

_BITS: Final = 72
"""Of a leaf: which kind of thing (8), its number (48), and of charts a part of its own id (16)."""
_NUMBER_BITS: Final = 48
_OWN_BITS: Final = 16
_CHART_DIGITS: Final = (_NUMBER_BITS + _OWN_BITS) // 4
_KEY_BYTES: Final = 32
_FIRST_BYTES: Final = _BITS // 8
_TREE_BYTES: Final = 8


class Kind(IntEnum):
    """What is erased one by one. The numbers stand in backups."""

    MESSAGE = 0
    DELIVERY = 1
    CHART = 2
    TRAIL = 3


class Span(NamedTuple):
    """Leaves from `first` to `last`."""

    first: int
    last: int


class Node(NamedTuple):
    """All leaves below it can be derived from its key. first: the lowest of them."""

    first: int
    depth: int
    key: bytes

    @property
    def last(self) -> int:
        return self.first + (1 << _BITS - self.depth) - 1


def of_number(kind: Kind, number: int, last: int | None = None) -> Span:
    """A thing that has a number; last: all from the one to the other."""
    end = number if last is None else last
    base = kind << _NUMBER_BITS
    return Span((base | number) << _OWN_BITS, ((base | end) + 1 << _OWN_BITS) - 1)


def of_chart(chart_id: str) -> Span:
    """A chart. Its id begins with the entry that made it, so that charts that are erased by age lie side by side."""
    try:
        number = int(chart_id[:_CHART_DIGITS], 16)
    except ValueError:
        number = int.from_bytes(blake2b(chart_id.encode(), digest_size=_CHART_DIGITS // 2).digest())
    leaf = Kind.CHART << _NUMBER_BITS + _OWN_BITS | number
    return Span(leaf, leaf)


def runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Numbers that follow each other, as the first and the last."""
    first = last = None
    for one in sorted(numbers):
        if first is None or last is None or one != last + 1:
            if first is not None and last is not None:
                yield first, last
            first = one
        last = one
    if first is not None and last is not None:
        yield first, last


class Tree:
    """What is left of the tree, for whoever reads or writes a backup. id: of the tree, which keeps it for ever."""

    def __init__(self, id_: str, nodes: Iterable[Node]) -> None:
        self.id = id_
        self.nodes: Mapping[int, Node] = {node.first: node for node in nodes}
        self._path: list[Node | None] = [None] * (_BITS + 1)
        """The way to the thing that was asked for last, from the root."""
        self._filled = -1
        self._at = 0

    def key(self, span: Span) -> bytes | None:
        """Of one thing; none: it is destroyed."""
        depth = _BITS - (span.last - span.first).bit_length()
        path, leaf = self._path, span.first
        # Things come in the order of their numbers, mostly: most of the way is the same.
        same = min(_BITS - (self._at ^ leaf).bit_length(), self._filled, depth)
        for level in range(same + 1, depth + 1):
            above = path[level - 1] if level else None
            first = leaf >> _BITS - level << _BITS - level
            here = self.nodes.get(first) if above is None else _children(above)[first != above.first]
            path[level] = here if here is not None and here.depth == level else None
        self._at, self._filled = leaf, depth
        found = path[depth]
        return found.key if found is not None else None

    def and_of(self, other: Tree) -> Tree:
        """What neither of two copies of the same tree has destroyed."""
        both = [node for node in self.nodes.values() if other._covers(node)]
        both += [node for node in other.nodes.values() if self._covers(node)]
        return Tree(self.id, both)

    def _covers(self, node: Node) -> bool:
        for depth in range(node.depth, -1, -1):
            there = self.nodes.get(node.first >> _BITS - depth << _BITS - depth)
            if there is not None and there.last >= node.last:
                return True
        return False


def _children(node: Node) -> tuple[Node, Node]:
    raw = blake2b(b"", key=node.key, digest_size=2 * _KEY_BYTES, person=b"erasure").digest()
    middle = node.first + (1 << _BITS - node.depth - 1)
    return (
        Node(node.first, node.depth + 1, raw[:_KEY_BYTES]),
        Node(middle, node.depth + 1, raw[_KEY_BYTES:]),
    )


def without(node: Node, gone: Span) -> list[Node]:
    """What is left of a node."""
    if node.last < gone.first or gone.last < node.first:
        return [node]
    if gone.first <= node.first and node.last <= gone.last:
        return []
    left, right = _children(node)
    return without(left, gone) + without(right, gone)


# --- in the store ----------------------------------------------------------------------------------------------------


def node_place(tree: str, first: bytes, depth: int) -> str:
    return f"erasure_key.key:{tree}:{first.hex()}:{depth}"


def load(conn: Connection, keys: KeyRing) -> Tree | None:
    """none: there has been no backup yet. Raises TamperedError, KeyMissingError."""
    rows = conn.execute(select(erasure_key)).all()
    return Tree(rows[0].tree, [_opened(keys, row) for row in rows]) if rows else None


def tree_id(conn: Connection) -> str | None:
    """none: there has been no backup yet."""
    return conn.execute(select(erasure_key.c.tree).limit(1)).scalar_one_or_none()


def begin(store: Store) -> None:
    """Make the tree, if there is none: before the first backup."""

    def work(conn: Connection) -> None:
        _lock(conn)
        if tree_id(conn) is None:
            _write(conn, store.keys, urandom(_TREE_BYTES).hex(), [Node(0, 0, urandom(_KEY_BYTES))])

    if store.read_now(tree_id) is None:
        store.charts_ledger.write_now(work)


def put(conn: Connection, keys: KeyRing, tree: Tree) -> None:
    """Into a store that was restored."""
    _write(conn, keys, tree.id, list(tree.nodes.values()))


def destroy(conn: Connection, keys: KeyRing, spans: Iterable[Span]) -> None:
    """Destroy the keys of things, in the transaction that erases them. Where there was no backup there is nothing."""
    _lock(conn)
    for gone in spans:
        found = [_opened(keys, row) for row in _touched(conn, gone)]
        if not found:
            continue
        tree = tree_id(conn) or ""
        conn.execute(delete(erasure_key).where(erasure_key.c.first.in_([_bytes(node.first) for node in found])))
        _write(conn, keys, tree, [part for node in found for part in without(node, gone)])


def _touched(conn: Connection, gone: Span) -> Sequence[Any]:
    """Rows of nodes with leaves in a span. Nodes don't overlap: only the last one that begins before can reach in."""
    c = erasure_key.c
    before = select(erasure_key).where(c.first < _bytes(gone.first)).order_by(c.first.desc()).limit(1)
    inside = select(erasure_key).where(c.first.between(_bytes(gone.first), _bytes(gone.last)))
    reaching = [row for row in conn.execute(before) if Node(_number(row.first), row.depth, b"").last >= gone.first]
    return [*reaching, *conn.execute(inside)]


def _lock(conn: Connection) -> None:
    """One at a time, of all nodes."""
    conn.execute(select(audit_head.c.seq).with_for_update()).all()


def _write(conn: Connection, keys: KeyRing, tree: str, nodes: Sequence[Node]) -> None:
    rows = []
    for node in nodes:
        first = _bytes(node.first)
        sealed = keys.seal(node_place(tree, first, node.depth), node.key)
        rows.append({"first": first, "depth": node.depth, "tree": tree, "key": sealed})
    if rows:
        conn.execute(insert(erasure_key), rows)


def _opened(keys: KeyRing, row: Any) -> Node:
    first = bytes(row.first)
    return Node(_number(first), row.depth, keys.open(node_place(row.tree, first, row.depth), bytes(row.key)))


def _bytes(first: int) -> bytes:
    return first.to_bytes(_FIRST_BYTES)


def _number(first: bytes) -> int:
    return int.from_bytes(first)


# --- messages: their payloads stand on the other side of the store ---------------------------------------------------


def intend(conn: Connection, entry_ids: Iterable[int]) -> None:
    """Note that the payloads of entries are about to be erased: with the record of it, before that is done."""
    for first, last in runs(entry_ids):
        conn.execute(delete(erasing).where(erasing.c.first == first, erasing.c.last == last))
        conn.execute(insert(erasing).values(first=first, last=last))


def finish(store: Store) -> None:
    """Destroy the keys of the messages that were to be erased and are; also of those that a crash has left.

    What is noted and not erased yet stays noted: somebody may be at it, or it is erased another time.
    """
    e, after = entry.c, 0
    while True:
        with store.reader() as conn:
            one = conn.execute(
                select(erasing).where(erasing.c.first > after).order_by(erasing.c.first).limit(1)
            ).first()
            if one is None:
                return
            noted = conn.execute(select(erasing.c.last).where(erasing.c.first == one.first)).scalars().all()
            between = e.id.between(one.first, max(noted))
            gone = conn.execute(select(e.id).where(between, e.day.is_(None)).order_by(e.id)).scalars().all()
        after = one.first
        if not gone:
            continue
        spans = [of_number(Kind.MESSAGE, first, last) for first, last in runs(gone)]
        there = set(gone)
        done = [last for last in noted if there.issuperset(range(after, last + 1))]

        def work(
            conn: Connection, spans: Sequence[Span] = spans, first: int = after, done: Sequence[int] = done
        ) -> None:
            destroy(conn, store.keys, spans)
            conn.execute(delete(erasing).where(erasing.c.first == first, erasing.c.last.in_(done)))

        store.charts_ledger.write_now(work)
