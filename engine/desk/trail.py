"""The trail: having it checked, making checkpoints of it, saying that the store was set back, taking it out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from engine.connectors.checkpoints import FilePlace
from engine.domain.record import Record
from engine.errors import CheckpointError, HandoffError, StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from engine.connectors.checkpoints import Place
    from engine.desk.desk import Desk
    from engine.domain.audit import Recorded
    from engine.domain.checkpoint import Checkpoint
    from engine.store.verify import Verified

PIECE = 1_000
"""Records taken out at a time."""
GIVEN_PATIENTS_MAX = 20_000
"""Patients of an export that is given out."""
_SUBJECT = "audit"


class Written(Record, frozen=True, kw_only=True):
    """What became of a checkpoint at a place. error: none: it is there."""

    place: str
    error: str | None = None


def verified(desk: Desk, files: Sequence[Path] = ()) -> tuple[Verified, str | None]:
    """All of the trail, checked with every checkpoint that can be read; and why that is not on record, if it is not.

    files: with more checkpoints, as a receiver of syslog has kept them.
    """
    from engine.store.verify import verify

    found, unreadable = _outside(desk, files)
    with desk.store.reader() as conn:
        checked = verify(desk.store, conn, found, unreadable=unreadable)
    try:
        result = "allowed" if checked.ok else "failed"
        desk.audit("trail-verified", [_SUBJECT], result=result, count=checked.records)
    except StoreError as error:
        return checked, str(error)
    return checked, None


def make_checkpoint(desk: Desk) -> tuple[Checkpoint, list[Written]]:
    """On record first, so that the record is in it. Raises StoreError, CheckpointError when there is no place."""
    from engine.store.checkpoints import checkpoint

    places = _places(desk)
    if not places:
        raise CheckpointError("trail.checkpoints of config.yaml names no place for it")
    desk.audit("trail-checkpoint", [_SUBJECT])
    with desk.store.reader() as conn:
        made = checkpoint(desk.store, conn, desk.now)
    return made, write_to(places, made)


def witness(desk: Desk) -> str | None:
    """After the work at a desk: a checkpoint, when what was done should be known outside of the database at once, or
    so many records were added. Commands call it, so that a site without a daemon has checkpoints, too.

    Returns what went wrong, for people; what was done stays done. None is made of a trail that is behind its last
    checkpoint: it would pass for whole from there on.
    """
    from engine.domain.audit import EVENTS
    from engine.store.checkpoints import checkpoint
    from engine.store.verify import is_behind, is_ours

    store, rows = desk.record_store, desk.outline.checkpoint_rows
    added = store.audit.added
    if not added.last:
        return None
    crossed = added.last // rows > (added.first - 1) // rows
    if not crossed and not any(EVENTS[one].witnessed for one in added.actions):
        return None
    try:
        places = _places(desk)
        newest = [one.last() for one in places if isinstance(one, FilePlace)]
        with store.reader() as conn:
            if any(one is not None and is_ours(store, one) and is_behind(store, conn, one) for one in newest):
                return "the trail ends before what a checkpoint has seen, so none is made: `handoff audit verify`"
            made = checkpoint(store, conn, desk.now)
    except HandoffError as error:
        return str(error)
    failed = [one.error for one in write_to(places, made) if one.error is not None]
    return "; ".join(failed) or None


def write_to(places: Sequence[Place], made: Checkpoint) -> list[Written]:
    written: list[Written] = []
    for place in places:
        try:
            place.write(made)
        except CheckpointError as error:
            written.append(Written(place=place.name, error=str(error)))
        else:
            written.append(Written(place=place.name))
    return written


def reseal(desk: Desk, reason: str) -> tuple[int, int]:
    """The store was set back to an earlier point, and that was lawful. From which number up to which records are lost.

    Raises HandoffError when no checkpoint has seen more than there is, or something else is wrong.
    """
    from engine.store.verify import BOOKS_BACK, verify

    found, unreadable = _outside(desk)
    with desk.store.reader() as conn:
        head = desk.store.audit.head(conn)
        checked = verify(desk.store, conn, found, unreadable=unreadable)
    lost = max((one.seq for one in found if one.chain == head.chain), default=0)
    if lost <= head.seq and not any(one.kind in {"checkpoint", BOOKS_BACK} for one in checked.problems):
        raise HandoffError("no checkpoint has seen more of the trail than there is: it was not set back")
    last = min((one.seq for one in checked.problems if one.kind == "checkpoint" and one.seq), default=head.seq + 1) - 1
    others = [one for one in checked.problems if one.kind not in {"rolled-back", "checkpoint", BOOKS_BACK}]
    if others:
        raise HandoffError(f"the trail is not whole besides ({others[0].kind}): `handoff audit verify` says more")

    def write(conn: Connection) -> None:
        desk.store.audit.reseal(
            conn, desk.record_of("trail-resealed", _SUBJECT, reason), after=min(last, head.seq), lost=lost
        )

    desk.authorise("trail-resealed", [_SUBJECT])
    desk.store.charts_ledger.write_now(write)
    return min(last, head.seq) + 1, lost


def taken_out(
    desk: Desk,
    reason: str | None,
    *,
    since: datetime | None,
    until: datetime | None,
    reveal: bool,
    given: dict[str, Any] | None = None,
) -> Iterator[Recorded]:
    """The records of a time, oldest first; on record before the first. Without reveal, what is sealed stays so.

    given: who gets them (`exporting.given_to`); then all patients in them are on record with it.
    """
    import msgspec

    from engine.store.disclosed import patients_between

    with desk.store.reader() as conn:
        last = desk.store.audit.head(conn).seq
        patients = patients_between(conn, since, until, limit=GIVEN_PATIENTS_MAX + 1) if given else []
    if len(patients) > GIVEN_PATIENTS_MAX:
        raise HandoffError(
            f"more than {GIVEN_PATIENTS_MAX:,} patients appear in it: give it out in parts (--since, --until)"
        )
    desk.audit("trail-exported", [_SUBJECT], reason, facts=given or {}, patients=tuple(patients))
    after: int | None = 0
    while after is not None:
        with desk.store.reader() as conn:
            rows = desk.store.audit.find(conn, since=since, until=until, after=after, limit=PIECE)
        for row in rows:
            if row.seq <= last:
                yield row if reveal else msgspec.structs.replace(row, reason=None, terms=None, facts={})
        after = rows[-1].seq if len(rows) == PIECE and rows[-1].seq < last else None


def _places(desk: Desk) -> list[Place]:
    from engine.connectors.checkpoints import places_of

    files = desk.outline.checkpoint_files
    if files is not None:  # nothing else of the configuration has to be loaded for them
        return [FilePlace(desk.outline.path(one)) for one in files]
    return places_of(desk.configuration)


def _outside(desk: Desk, files: Sequence[Path] = ()) -> tuple[list[Checkpoint], list[str]]:
    """All checkpoints that can be read, and why others can't."""
    found: list[Checkpoint] = []
    unreadable: list[str] = []
    for place in (*_places(desk), *map(FilePlace, files)):
        try:
            found += place.read() or ()
        except CheckpointError as error:
            unreadable.append(str(error))
    return found, unreadable


def shape(checked: Verified) -> dict[str, Any]:
    """The contract's."""
    from engine.domain.shapes import plain

    found = plain(checked)
    return {
        "ok": found["ok"],
        "from": found.pop("first"),
        "to": found.pop("last"),
        "checkpoints": found["checkpoints"],
        "purged": found["purged"],
        "problems": found["problems"],
        **{name: found[name] for name in ("records", "restores", "checkpoint_at")},
    }
