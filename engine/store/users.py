"""Accounts, what people come in by, and glasses that were broken. All of it is sealed for its row: who can write the
database and has no key can neither make an admin nor lend a session. Of tokens and sessions only hashes are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import structs
from sqlalchemy import Connection, delete, func, select, update

from engine.domain.account import Account, AccountState, Ticket
from engine.domain.codec import decoder, encode
from engine.domain.glass import Glass
from engine.errors import RowTakenError
from engine.store.keys import KeyRing
from engine.store.schema import account, from_micros, glass, ticket, to_micros

_UNATTESTED: Final = select(func.count().label("number"), func.min(glass.c.begins_at).label("first")).where(
    glass.c.attested == 0
)
_account: Final = decoder(Account)
_ticket: Final = decoder(Ticket)
_glass: Final = decoder(Glass)

GLASS_COLUMNS: Final = ("id", "actor", "chart_id", "begins_at", "ends_at", "attested")
GLASSES_MAX: Final = 10_000
"""Listed at once."""


def hash_of(secret: str) -> bytes:
    """What is kept of the secret of a token or session: it has 256 random bits, so nothing can be tried out."""
    return hashlib.sha256(secret.encode()).digest()


class Users:
    """What writes must run in a transaction of the charts' ledger."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    # --- accounts

    def get(self, conn: Connection, name: str) -> Account | None:
        """Raises TamperedError when its row was altered."""
        row = conn.execute(select(account).where(account.c.name == name)).first()
        return None if row is None else self._account(row)

    def every(self, conn: Connection) -> list[Account]:
        return [self._account(row) for row in conn.execute(select(account).order_by(account.c.name))]

    def add(self, conn: Connection, new: Account) -> None:
        """Raises RowTakenError when there is one of this name."""
        if conn.execute(select(account.c.name).where(account.c.name == new.name)).first() is not None:
            raise RowTakenError(f"there is an account {new.name} already")
        conn.execute(account.insert().values(name=new.name, version=1, document=self._sealed(new, 1)))

    def change(self, conn: Connection, new: Account) -> None:
        """Put the account in the place of the one of its name. It was read in the same transaction."""
        version = int(conn.execute(select(account.c.version).where(account.c.name == new.name)).scalar_one()) + 1
        conn.execute(
            update(account)
            .where(account.c.name == new.name, account.c.version == version - 1)
            .values(version=version, document=self._sealed(new, version))
        )

    def unconfirm(self, conn: Connection) -> int:
        """After a restore: nobody here knows who was shut out since. Returns how many accounts wait for a person."""
        unsure = [one for one in self.every(conn) if one.active]
        for one in unsure:
            self.change(conn, structs.replace(one, state=AccountState.UNCONFIRMED))
        return len(unsure)

    def _sealed(self, one: Account, version: int) -> bytes:
        return self._keys.seal(account_place(one.name, version), encode(one))

    def _account(self, row: Any) -> Account:
        return _account(self._keys.open(account_place(row.name, row.version), row.document))

    # --- tokens and sessions

    def ticket(self, conn: Connection, secret: str) -> Ticket | None:
        """What somebody who knows this secret comes in by."""
        row = conn.execute(select(ticket).where(ticket.c.secret_hash == hash_of(secret))).first()
        return None if row is None else self._ticket(row)

    def tickets(self, conn: Connection, of: str | None = None) -> list[Ticket]:
        """All of an account, or all that there are, the oldest first."""
        statement = select(ticket).order_by(ticket.c.ends_at, ticket.c.id)
        if of is not None:
            statement = statement.where(ticket.c.account == of)
        return [self._ticket(row) for row in conn.execute(statement)]

    def put_ticket(self, conn: Connection, secret: str, new: Ticket) -> None:
        hashed, ends_at = hash_of(secret), to_micros(new.ends)
        place = ticket_place(hashed, new.id, new.account, ends_at)
        conn.execute(
            ticket.insert().values(
                secret_hash=hashed,
                id=new.id,
                account=new.account,
                ends_at=ends_at,
                document=self._keys.seal(place, encode(new)),
            )
        )

    def change_ticket(self, conn: Connection, new: Ticket) -> None:
        row = conn.execute(select(ticket).where(ticket.c.id == new.id)).one()
        place = ticket_place(bytes(row.secret_hash), row.id, row.account, row.ends_at)
        conn.execute(update(ticket).where(ticket.c.id == new.id).values(document=self._keys.seal(place, encode(new))))

    def forget_tickets(self, conn: Connection, before: datetime) -> int:
        """Delete those that ended before a time."""
        return conn.execute(delete(ticket).where(ticket.c.ends_at < to_micros(before))).rowcount

    def _ticket(self, row: Any) -> Ticket:
        place = ticket_place(bytes(row.secret_hash), row.id, row.account, row.ends_at)
        return _ticket(self._keys.open(place, row.document))

    # --- glasses

    def break_glass(self, conn: Connection, new: Glass) -> None:
        columns = _glass_columns(new)
        conn.execute(glass.insert().values(**columns, document=self._keys.seal(glass_place(columns), encode(new))))

    def attest(self, conn: Connection, new: Glass) -> None:
        """Put the glass in the place of the one of its id: what was said of it."""
        columns = _glass_columns(new)
        sealed = self._keys.seal(glass_place(columns), encode(new))
        conn.execute(update(glass).where(glass.c.id == new.id).values(attested=columns["attested"], document=sealed))

    def glass(self, conn: Connection, glass_id: str) -> Glass | None:
        row = conn.execute(select(glass).where(glass.c.id == glass_id)).first()
        return None if row is None else self._glass(row)

    def broken(self, conn: Connection, actor: str, now: datetime) -> list[Glass]:
        """Those that somebody sees through now."""
        statement = select(glass).where(glass.c.actor == actor, glass.c.ends_at > to_micros(now))
        return [self._glass(row) for row in conn.execute(statement)]

    def glasses(self, conn: Connection, since: datetime | None = None, limit: int = GLASSES_MAX) -> list[Glass]:
        """The newest first."""
        statement = select(glass).order_by(glass.c.begins_at.desc()).limit(limit)
        if since is not None:
            statement = statement.where(glass.c.begins_at >= to_micros(since))
        return [self._glass(row) for row in conn.execute(statement)]

    def unattested(self, conn: Connection) -> tuple[int, datetime | None]:
        """How many nobody has attested, and since when the first of them waits."""
        row = conn.execute(_UNATTESTED).one()
        return row.number, None if row.first is None else from_micros(row.first)

    def glasses_of(self, conn: Connection, chart_ids: Sequence[str]) -> list[Glass]:
        statement = select(glass).where(glass.c.chart_id.in_(list(chart_ids))).order_by(glass.c.begins_at.desc())
        return [self._glass(row) for row in conn.execute(statement.limit(GLASSES_MAX))]

    def _glass(self, row: Any) -> Glass:
        columns = {name: getattr(row, name) for name in GLASS_COLUMNS}
        return _glass(self._keys.open(glass_place(columns), row.document))


def account_place(name: str, version: int) -> str:
    return f"account.document:{name}/{version}"


def ticket_place(hashed: bytes, id_: str, of: str, ends_at: int) -> str:
    return f"ticket.document:{hashed.hex()}/{id_}/{of}/{ends_at}"


def _glass_columns(one: Glass) -> dict[str, Any]:
    return {
        "id": one.id,
        "actor": one.actor,
        "chart_id": one.chart_id,
        "begins_at": to_micros(one.begins),
        "ends_at": to_micros(one.ends),
        "attested": int(one.verdict is not None),
    }


def glass_place(columns: Mapping[str, Any]) -> str:
    return "glass.document:" + "/".join(str(columns[name]) for name in GLASS_COLUMNS)
