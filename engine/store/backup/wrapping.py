"""Rows in a backup, sealed each for what it belongs to: who has destroyed the key of that (`engine.store.erasure`) has
taken the row out of every backup.

A row that goes with its message, delivery, chart or record is sealed whole; of an outcome, whose row stays, only what
says something of the patient. What is sealed is marked as a MessagePack extension:
the thing's place in the tree (9 bytes), a nonce (12), AES-256-GCM with the table's name as associated data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import urandom
from typing import Any, Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Column

from engine.errors import BackupError
from engine.store import schema
from engine.store.backup.rows import columns_of, join, rows_of
from engine.store.erasure import Kind, Span, Tree, of_chart, of_number
from engine.store.retention import of_charts

_EXTENSION: Final = 1
_PLACE_BYTES: Final = 9
_NONCE_BYTES: Final = 12
_REMEMBERED_MAX: Final = 8192


class _Rule(NamedTuple):
    """kind: what a row belongs to. owner: the position of its number or id. only: that of what alone is sealed."""

    kind: Kind
    owner: int
    only: int | None


def _rule(kind: Kind, owner: Column[Any], only: Column[Any] | None = None) -> tuple[str, _Rule]:
    names = columns_of(owner.table)
    return owner.table.fullname, _Rule(kind, names.index(owner.name), None if only is None else names.index(only.name))


RULES: Final[Mapping[str, _Rule]] = dict(
    (
        _rule(Kind.MESSAGE, schema.payload.c.entry_id),
        _rule(Kind.DELIVERY, schema.delivery_payload.c.delivery_id),
        _rule(Kind.DELIVERY, schema.delivery_receipt.c.delivery_id),
        _rule(Kind.TRAIL, schema.audit_payload.c.seq),
        _rule(Kind.CHART, schema.chart.c.id),
        _rule(Kind.CHART, schema.outcome.c.chart_id, schema.outcome.c.document),
        *(_rule(Kind.CHART, table.c.chart_id) for table in of_charts()),
    )
)
"""By table. What is in no rule is never erased, or holds nothing of a patient."""

_encode = msgspec.msgpack.Encoder().encode
_decode_row = msgspec.msgpack.Decoder(tuple[Any, ...]).decode


class Row(NamedTuple):
    """A row that was unwrapped. values: none: it is left out. gone: the number or id of what it belonged to, where the
    key of that is destroyed.
    """

    values: tuple[Any, ...] | None
    gone: int | str | None = None


class Wrapping:
    """For one backup, written or read."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.bare = 0
        """Rows that were written without a key of their own, because theirs is destroyed: a restored store gives
        numbers of before anew. They can't be erased from this backup.
        """
        self._ciphers: dict[int, AESGCM | None] = {}

    def _cipher(self, kind: Kind, span: Span) -> AESGCM | None:
        """none: the key is destroyed. What is recorded of a patient comes in turns with that of others, and the way
        down the tree to each is long: so charts are remembered.
        """
        if kind is not Kind.CHART:
            return self._derived(span)
        if span.first not in self._ciphers:
            if len(self._ciphers) >= _REMEMBERED_MAX:
                self._ciphers.clear()
            self._ciphers[span.first] = self._derived(span)
        return self._ciphers[span.first]

    def _derived(self, span: Span) -> AESGCM | None:
        key = self.tree.key(span)
        return None if key is None else AESGCM(key)

    def wrap(self, table: str, chunk: bytes) -> bytes:
        rule = RULES.get(table)
        if rule is None:
            return chunk
        name = table.encode()
        return join([self._wrapped(rule, name, row) for row in rows_of(chunk)])

    def _wrapped(self, rule: _Rule, name: bytes, row: tuple[Any, ...]) -> bytes:
        owner = row[rule.owner]
        if owner is None:
            return _encode(row)
        span = _span(rule, owner)
        cipher = self._cipher(rule.kind, span)
        if cipher is None:
            self.bare += rule.only is None
            return _encode(row)
        plain = row if rule.only is None else row[rule.only]
        nonce = urandom(_NONCE_BYTES)
        place = span.first.to_bytes(_PLACE_BYTES)
        sealed = msgspec.msgpack.Ext(_EXTENSION, place + nonce + cipher.encrypt(nonce, _encode(plain), name + place))
        return _encode(sealed if rule.only is None else (*row[: rule.only], sealed, *row[rule.only + 1 :]))

    def unwrap(self, table: str, chunk: bytes) -> Iterator[Row]:
        """Raises BackupError when a row is not what was written."""
        rule = RULES.get(table)
        if rule is None:
            yield from map(Row, rows_of(chunk))
            return
        name = table.encode()
        for row in msgspec.msgpack.decode(chunk):
            if isinstance(row, msgspec.msgpack.Ext):
                plain = self._opened(rule, name, row)
                yield Row(_decode_row(plain)) if plain is not None else Row(None, _owner(rule, row))
            elif rule.only is not None and isinstance(row[rule.only], msgspec.msgpack.Ext):
                plain = self._opened(rule, name, row[rule.only])
                value = msgspec.msgpack.decode(plain) if plain is not None else None
                yield Row(
                    (*row[: rule.only], value, *row[rule.only + 1 :]), None if plain is not None else row[rule.owner]
                )
            else:
                yield Row(tuple(row))

    def _opened(self, rule: _Rule, name: bytes, sealed: msgspec.msgpack.Ext) -> bytes | None:
        raw = bytes(sealed.data)
        place, nonce = raw[:_PLACE_BYTES], raw[_PLACE_BYTES : _PLACE_BYTES + _NONCE_BYTES]
        first = int.from_bytes(place)
        cipher = self._cipher(rule.kind, Span(first, first if rule.kind is Kind.CHART else first | 0xFFFF))
        if cipher is None:
            return None
        try:
            return cipher.decrypt(nonce, raw[_PLACE_BYTES + _NONCE_BYTES :], name + place)
        except InvalidTag:
            raise BackupError(f"a row of {name.decode()} is not what was written: these are other keys") from None


def _span(rule: _Rule, owner: Any) -> Span:
    return of_chart(owner) if rule.kind is Kind.CHART else of_number(rule.kind, owner)


def _owner(rule: _Rule, sealed: msgspec.msgpack.Ext) -> int | str:
    """The number; of a chart the beginning of its id."""
    place = bytes(sealed.data)[:_PLACE_BYTES]
    return place[1:].hex() if rule.kind is Kind.CHART else int.from_bytes(place[1:-2])
