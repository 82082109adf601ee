"""What was delivered, said once more: a row for each time that a courier wrote down what became of its attempts.

What is delivered stays so. Whoever writes to the database without the key can set a delivery's state, and a patient's
copy then goes out twice, or never; or can change to whom and of whom it went, and what it counts as in the accounting
of disclosures. These rows can't be made without the key, and their numbers are dense: `engine.store.tallies` holds the
deliveries against them. They name what is held, too: nobody knows whether that has arrived, and it must not go out
again because its row was put back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, func, literal_column, select

from engine.domain.record import Record
from engine.errors import TamperedError
from engine.store.keys import KeyRing
from engine.store.schema import delivery, settlement
from engine.store.statements import Rows, Statement

_LAST: Final = Statement(select(func.coalesce(func.max(settlement.c.id), literal_column("0"))))
_INSERT: Final = Rows(settlement, ("id", "at", "said", "mac"))
SEALED: Final = (
    delivery.c.id, delivery.c.ordering_key, delivery.c.entry_id, delivery.c.channel, delivery.c.destination,
    delivery.c.operation, delivery.c.idempotency_key, delivery.c.attempts, delivery.c.created_at,
)  # fmt: skip
"""What of a delivered one its settlement vouches for, besides when it was and what it counts as. In this order."""
_OF_HELD_MAX: Final = 1_000


class Said(Record, frozen=True, kw_only=True, omit_defaults=True):
    delivered: list[tuple[str | None, list[int]]] = []
    """What the copies count as -> ids."""
    held: list[int] = []


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Said).decode


def last(conn: Connection) -> int:
    """The number of the last one; 0: there is none."""
    return int(_LAST.scalar(conn))


def note(
    conn: Connection, keys: KeyRing, delivered: Mapping[str | None, Sequence[Any]], at: int, held: Sequence[int] = ()
) -> int:
    """delivered: what the copies count as -> rows with `SEALED`. In the transaction that says so, and with the outbox's
    lock. Returns the number of the last one.
    """
    marks = [(mark, sorted(row.id for row in rows)) for mark, rows in delivered.items() if rows]
    number = last(conn)
    if marks:
        number += 1
        text = _encode(Said(delivered=marks)).decode()
        vouched = [row for rows in delivered.values() for row in rows]
        _INSERT.write(conn, [(number, at, text, _mac(keys, number, at, text, vouched))])
    for begin in range(0, len(held), _OF_HELD_MAX):
        number += 1
        text = _encode(Said(held=sorted(held[begin : begin + _OF_HELD_MAX]))).decode()
        _INSERT.write(conn, [(number, at, text, _mac(keys, number, at, text, ()))])
    return number


def read(row: Any) -> Said:
    """What a row says, vouched for or not. Raises TamperedError when it is no such text."""
    try:
        return _decode(row.said)
    except msgspec.MsgspecError:
        raise TamperedError(f"settlement:{row.id}") from None


def fits(keys: KeyRing, row: Any, delivered: Sequence[Any]) -> bool:
    """delivered: the rows that it names, as they stand now."""
    return _mac(keys, row.id, row.at, row.said, delivered) == bytes(row.mac)


def _mac(keys: KeyRing, number: int, at: int, said: str, delivered: Sequence[Any]) -> bytes:
    rows = sorted(delivered)  # by the first column, the id
    # No column holds the separator, and their number follows from `said`: a text can't be moved from one to another.
    return keys.lookup("settlement", f"{number}/{at}/{said}", "\0".join(["\0".join(map(str, row)) for row in rows]))
