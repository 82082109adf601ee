"""Whether a store and a key file belong together, asked when the store is opened."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select

from engine.errors import KeyMissingError, TamperedError
from engine.store.journal import open_head
from engine.store.keys import KeyRing
from engine.store.schema import entry, payload

_LOOKED_AT: Final = 8
"""The newest entries. Several, because one of them may be damaged."""


def check_keys(conn: Connection, keys: KeyRing) -> None:
    """Raises KeyMissingError when what was stored last can't be opened with these keys.

    With the keys of another site a daemon would find no patient again, make every chart anew beside the old one, and
    seal what it receives so that the right keys can't open it; a command would find nothing and do the same.
    """
    newest = conn.execute(
        select(entry, payload.c.head)
        .join(payload, payload.c.entry_id == entry.c.id)
        .order_by(entry.c.id.desc())
        .limit(_LOOKED_AT)
    ).all()
    missing: KeyMissingError | None = None
    for row in newest:
        try:
            open_head(keys, row)
        except KeyMissingError as error:
            missing = missing or error
        except TamperedError:
            continue
        else:
            return
    if newest:
        raise missing or KeyMissingError(
            "the key file is not the one that this store was sealed with: put that one back in its place"
        )
