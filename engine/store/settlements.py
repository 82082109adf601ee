"""What was delivered, said once more: a row for each time that a courier wrote down what became of its attempts.

What is delivered stays so. Whoever writes to the database without the key can set a delivery's state, and a patient's
copy then goes out twice, or never; or can change what it counts as in the accounting of disclosures. These rows can't
be made without the key, and their numbers are dense: `engine.store.tallies` holds the deliveries against them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, func, literal_column, select

from engine.errors import TamperedError
from engine.store.keys import KeyRing
from engine.store.schema import settlement
from engine.store.statements import Rows, Statement

_LAST: Final = Statement(select(func.coalesce(func.max(settlement.c.id), literal_column("0"))))
_INSERT: Final = Rows(settlement, ("id", "at", "said", "mac"))
_Said = list[tuple[str | None, list[int]]]
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Said).decode


def note(conn: Connection, keys: KeyRing, delivered: Mapping[str | None, Sequence[int]], at: int) -> None:
    """delivered: what the copies count as -> ids. In the transaction that says so, and with the outbox's lock."""
    said = [(mark, sorted(ids)) for mark, ids in delivered.items() if ids]
    if said:
        number, text = _LAST.scalar(conn) + 1, _encode(said).decode()
        _INSERT.write(conn, [(number, at, text, _mac(keys, number, at, text))])


def opened(keys: KeyRing, row: Any) -> _Said:
    """Raises TamperedError."""
    if _mac(keys, row.id, row.at, row.said) != bytes(row.mac):
        raise TamperedError(f"settlement:{row.id}")
    return _decode(row.said)


def _mac(keys: KeyRing, number: int, at: int, said: str) -> bytes:
    return keys.lookup("settlement", f"{number}/{at}/{said}")
