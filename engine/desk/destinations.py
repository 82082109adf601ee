"""Destinations: how each stands, and what a person does about it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from engine.domain.standing import Standing
from engine.errors import NotFoundError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.desk.desk import Desk


def standings(desk: Desk) -> list[Standing]:
    """The contract's rows of all destinations."""
    configured = desk.destinations()
    with desk.store.reader() as conn:
        return desk.store.destinations.standings(conn, configured, desk.now)


def standing(desk: Desk, name: str) -> Standing:
    """Raises NotFoundError."""
    found = next((one for one in standings(desk) if one.name == name), None)
    if found is None:
        raise _no_such(desk, name)
    return found


def why_paused(desk: Desk, one: Standing) -> str | None:
    """The reason that was given last for the pause which is in force; the audit has it."""
    if one.state != "paused":
        return None
    with desk.store.reader() as conn:
        acts = desk.store.audit.find(
            conn, since=one.since, action="destination-paused", subject=f"destination:{one.name}"
        )
    return next((act.reason for act in acts if act.reason), None)


def pause(desk: Desk, name: str, span: timedelta | None, reason: str | None) -> bool:
    """Nothing is sent there for so long, or until it is resumed. False: it was paused already, and stays so since."""
    until = None if span is None else desk.now + span
    by = str(desk.actor)
    return _act(
        desk, name, "destination-paused", reason,
        lambda conn: desk.store.destinations.pause(conn, name, desk.now, until=until, by=by),
    )  # fmt: skip


def resume(desk: Desk, name: str, reason: str | None) -> None:
    _act(desk, name, "destination-resumed", reason, lambda conn: desk.store.destinations.resume(conn, name))


def retry(desk: Desk, name: str) -> None:
    """What waits is tried at once."""
    _act(desk, name, "destination-retried", None, lambda conn: desk.store.destinations.retry(conn, name, desk.now))


def discard(desk: Desk, name: str, reason: str) -> int:
    """Give up what waits for an orphan. Returns how many deliveries that were."""
    from engine.store.destinations import discard_rest

    def work(conn: Connection) -> int:
        return discard_rest(conn, desk.store.outbox, name, desk.now)

    return _in_pieces(desk, "destination-discarded", [f"destination:{name}"], reason, work)


def check_move(desk: Desk, name: str, other: str) -> None:
    """Raises NotFoundError when another destination is not there, or can't take what waits for an orphan."""
    from engine.connectors.registry import settings_of
    from engine.store.destinations import operations

    target = desk.outline.destinations.get(other)
    if target is None:
        raise _no_such(desk, other)
    with desk.store.reader() as conn:
        waiting = {operation.what for operation in operations(conn, name)}
    takes = settings_of(target).takes
    if not waiting <= takes:
        known = ", ".join(sorted(takes))
        raise NotFoundError(f"what waits for {name} is {', '.join(sorted(waiting))}; {other} takes {known}")


def move(desk: Desk, name: str, other: str, reason: str | None) -> int:
    """Give what waits for an orphan to another destination. Returns how many deliveries that were."""
    from engine.store.destinations import move_rest

    def work(conn: Connection) -> int:
        return move_rest(conn, desk.store.outbox, name, other, desk.now)

    subjects = [f"destination:{name}", f"destination:{other}"]
    return _in_pieces(desk, "destination-moved", subjects, reason, work)


def _act(desk: Desk, name: str, action: str, reason: str | None, work: Callable[[Connection], object]) -> bool:
    """Whether it made a difference. Raises NotFoundError."""
    if name not in desk.destinations():
        raise _no_such(desk, name)

    def write(conn: Connection) -> object:
        done = work(conn)
        desk.note(conn, action, [f"destination:{name}"], reason)
        return done

    return desk.store.charts_ledger.write_now(write) is not False


def _no_such(desk: Desk, name: str) -> NotFoundError:
    known = ", ".join(sorted(desk.destinations())) or "none"
    return NotFoundError(f"there is no destination {name}; there are {known}")


def _in_pieces(
    desk: Desk, action: str, subjects: list[str], reason: str | None, work: Callable[[Connection], int]
) -> int:
    """All that waits, some in each transaction; on record with the first."""
    noted = False

    def write(conn: Connection) -> int:
        done = work(conn)
        if done and not noted:
            desk.note(conn, action, subjects, reason)
        return done

    total = 0
    while done := desk.store.charts_ledger.write_now(write):
        total, noted = total + done, True
    return total


def orphan(desk: Desk, name: str) -> int:
    """How many deliveries wait for a destination that is no longer configured. Raises NotFoundError, SettingsError."""
    if desk.broken is not None:  # nobody can say that it is no longer configured
        raise desk.broken
    if name in desk.outline.destinations:
        raise NotFoundError(f"{name} is in config.yaml: this is for destinations that no longer are")
    one = standing(desk, name)
    return one.pending + one.held
