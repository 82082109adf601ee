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
from engine.store.schema import settlement
from engine.store.statements import Rows, Statement

_LAST: Final = Statement(select(func.coalesce(func.max(settlement.c.id), literal_column("0"))))
_INSERT: Final = Rows(settlement, ("id", "at", "said", "mac"))
_OF_HELD_MAX: Final = 1_000
Vouched = Mapping[int, str]
"""By delivery, what its settlement vouches for besides when it was and what it counts as: `what`, and the line."""


class Said(Record, frozen=True, kw_only=True, omit_defaults=True):
    delivered: list[tuple[str | None, list[int]]] = []
    """What the copies count as -> ids."""
    held: list[int] = []


def what(destination: str, operation: str, entry_id: int | None) -> str:
    """Where a delivery went, as what, and because of what. Its courier knows that, and need not read it again."""
    return f"{destination}\x1f{operation}\x1f{entry_id}\x1f"


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Said).decode


def last(conn: Connection) -> int:
    """The number of the last one; 0: there is none."""
    return int(_LAST.scalar(conn))


def note(
    conn: Connection, keys: KeyRing, delivered: Mapping[str | None, Vouched], at: int, held: Sequence[int] = ()
) -> int:
    """delivered: what the copies count as -> which. In the transaction that says so, after the outbox's lock was taken.
    Returns the number of the last one.
    """
    marks = [(mark, sorted(rows)) for mark, rows in delivered.items() if rows]
    number = last(conn)
    if marks:
        number += 1
        text = _encode(Said(delivered=marks)).decode()
        _INSERT.write(conn, [(number, at, text, _mac(keys, number, at, text, marks, delivered))])
    for begin in range(0, len(held), _OF_HELD_MAX):
        number += 1
        text = _encode(Said(held=sorted(held[begin : begin + _OF_HELD_MAX]))).decode()
        _INSERT.write(conn, [(number, at, text, _mac(keys, number, at, text, (), {}))])
    return number


def read(row: Any) -> Said:
    """What a row says, vouched for or not. Raises TamperedError when it is no such text."""
    try:
        return _decode(row.said)
    except msgspec.MsgspecError:
        raise TamperedError(f"settlement:{row.id}") from None


def fits(keys: KeyRing, row: Any, said: Said, delivered: Vouched) -> bool:
    """delivered: the rows that it names, as they stand now."""
    if any(number not in delivered for _, numbers in said.delivered for number in numbers):
        return False
    by_mark = {mark: delivered for mark, _ in said.delivered}
    return _mac(keys, row.id, row.at, row.said, said.delivered, by_mark) == bytes(row.mac)


def _mac(
    keys: KeyRing, number: int, at: int, said: str, marks: Sequence[tuple[str | None, Sequence[int]]],
    delivered: Mapping[str | None, Vouched],
) -> bytes:  # fmt: skip
    # No column of ours holds a separator, and their number follows from `said`: nothing moves from one to another.
    rows = "\x1f".join([delivered[mark][one] for mark, numbers in marks for one in numbers])
    return keys.lookup("settlement", f"{number}/{at}/{said}", rows)
