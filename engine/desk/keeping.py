"""Keeping and erasing: legal holds, sweeps, a patient who is erased. All of it is on record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import HandoffError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.desk.desk import Desk
    from engine.domain.chart import Chart
    from engine.domain.retention import Swept
    from engine.store.legalholds import ListedLegalHold


class KeptError(HandoffError):
    """What was to be erased is to be kept, and why."""


def holds(desk: Desk, *, every: bool = False) -> list[ListedLegalHold]:
    """Oldest first; every: also those that were lifted."""
    from engine.store.legalholds import LegalHolds

    return desk.store.read_now(lambda conn: LegalHolds(desk.keys).find(conn, every=every))


def place_hold(desk: Desk, chart: Chart, reason: str) -> ListedLegalHold:
    """Keep all of a patient's records until the hold is lifted."""
    from engine.store.legalholds import LegalHolds

    legal = LegalHolds(desk.keys)

    def work(conn: Connection) -> int:
        placed = legal.place(conn, chart.id, by=str(desk.actor), reason=reason, now=desk.now)
        desk.note(conn, "hold-placed", [f"legal-hold:{placed}"], reason, patients=(chart.id,))
        return placed

    number = desk.store.charts_ledger.write_now(work)
    return next(one for one in holds(desk) if one.id == number)


def lift_holds(desk: Desk, chart: Chart, reason: str | None) -> list[int]:
    """Lift all holds on a patient; their numbers, none where there is none. Raises StoreError, TamperedError."""
    from engine.store.legalholds import LegalHolds

    legal = LegalHolds(desk.keys)

    def work(conn: Connection) -> list[int]:
        family = desk.store.charts.family(conn, {chart.id})
        found = [one for one in legal.find(conn) if one.chart_id in family]
        for one in found:
            legal.lift(conn, one.id, desk.now)
        for one in found:
            desk.note(conn, "hold-lifted", [f"legal-hold:{one.id}"], reason, patients=(one.chart_id,))
        return [one.id for one in found]

    return desk.store.charts_ledger.write_now(work)


def confirm_holds(desk: Desk, reason: str) -> int | None:
    """Say after a restore that the legal holds are right; how many stand. None: nobody has to."""
    from engine.store.legalholds import CONFIRMED, LegalHolds, in_doubt_since

    legal = LegalHolds(desk.keys)

    def work(conn: Connection) -> int | None:
        if in_doubt_since(conn) is None:
            return None
        standing = sum(one.stands for one in legal.find(conn))
        desk.note(conn, CONFIRMED, ["store"], reason, count=standing)
        return standing

    return desk.store.charts_ledger.write_now(work)


def _check_holds(desk: Desk) -> None:
    """Raises KeptError."""
    from engine.store.legalholds import in_doubt_since

    since = desk.store.read_now(in_doubt_since)
    if since is not None:
        raise KeptError(
            f"the store was set back to a backup on {since:%Y-%m-%d}, and legal holds that were placed in between are"
            " not in it: place them again, then `handoff legal-hold confirm`; nothing was erased"
        )


def renew_erasure_keys(desk: Desk) -> list[str]:
    """After something was erased: folders of backups whose file of erasure keys could not be replaced."""
    from engine.store.backup.companion import renew

    return renew(desk.store)


def sweep(desk: Desk, *, dry_run: bool, test_data: bool = False) -> list[Swept]:
    """Erase what was kept long enough, by the site's policy, or all test data; dry_run: only say what would be."""
    from engine.runtime.sweeper import Sweep

    if not dry_run:
        desk.authorise("swept", ["store"])
        _check_holds(desk)
    policy = desk.configuration.site.retention.policy
    whence = desk.record_of("swept", "store").whence
    return Sweep(
        desk.store, policy, desk.now, str(desk.actor), dry_run=dry_run, test_data=test_data, whence=whence
    ).run()


def erase_patient(desk: Desk, chart: Chart, reason: str) -> None:
    """Erase a patient whatever their age in the store. Raises KeptError when a hold or something open forbids it."""
    from engine.store.retention import Charts

    desk.authorise("patient-erased", [f"chart:{chart.id}"])
    _check_holds(desk)
    charts = Charts(desk.store)
    item = desk.store.read_now(lambda conn: charts.item(conn, chart.id, desk.now))
    if item.facts.on_hold:
        raise KeptError("a legal hold keeps this patient's records: `handoff legal-hold list`; nothing was erased")
    if item.facts.waits_for is not None:
        raise KeptError(f"somebody still waits for {item.facts.waits_for} of this patient; nothing was erased")
    record = desk.record_of("patient-erased", f"chart:{chart.id}", reason)
    if not charts.erase_one(item, record):
        raise KeptError("something new has come of this patient meanwhile: look again before you erase")
