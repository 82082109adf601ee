"""Finding: patients by key or pseudonym, things by the beginning of their id, and whether a name is one at all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from engine.desk.seeing import PSEUDONYM
from engine.domain.audit import ACTIONS
from engine.domain.task import KINDS
from engine.errors import NotFoundError, WhichError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.desk.desk import Desk
    from engine.domain.chart import Chart
    from engine.domain.delivery import QueuedDelivery
    from engine.store.admissions import Withheld
    from engine.store.deadletters import ListedDeadLetter
    from engine.store.holds import ListedHold
    from engine.store.journal import ListedEntry
    from engine.store.listed import Listed, ListedStore

    L = TypeVar("L", bound=Listed)

_NAMED_MAX: Final = 12
CANDIDATES_MAX: Final = 13
"""At most this many ids that begin as the given one are read."""


def chart(desk: Desk, named: str) -> Chart:
    """The living chart of a patient named by key (`MRN:558181838`) or pseudonym.

    Raises NotFoundError, and DeniedError when the actor may not do to it what they came for.
    """
    match = PSEUDONYM.fullmatch(named)
    if match is None:
        desk.asked(key=named)
    with desk.store.reader() as conn:
        if match is None:
            found = desk.store.charts.by_key(conn, named)
        else:
            found = [
                chart
                for chart in desk.store.charts.by_key_hash(conn, bytes.fromhex(match["hash"]))
                if any(match["authority"] in desk.shown_as(item.authority) for item in chart.patient.identifiers)
            ]
    if not found:
        raise NotFoundError("there is no patient of this key; it is written AUTHORITY:ID, like MRN:558181838")
    desk.found(one.id for one in found)
    if len(found) > 1:
        raise NotFoundError(f"{len(found)} patients answer to this key: use one that is theirs alone")
    desk.require(found[0])
    return found[0]


def chart_of_id(desk: Desk, chart_id: str) -> Chart:
    """The living chart of an opaque id. Raises NotFoundError, and DeniedError as `chart` does."""
    with desk.store.reader() as conn:
        found = desk.store.charts.living(conn, chart_id)
    if found is None:
        raise NotFoundError("there is no such patient")
    desk.require(found)
    return found


def patient_key(desk: Desk, named: str) -> str:
    """The key by which messages of a patient are found; also of one who has no chart, only dead messages.

    Raises NotFoundError.
    """
    from engine.store.charts import key_hash

    try:
        return chart(desk, named).patient.key
    except NotFoundError:
        match = PSEUDONYM.fullmatch(named)
        prefix = bytes.fromhex(match["hash"]) if match is not None else key_hash(desk.keys, named)
        with desk.store.reader() as conn:
            keys = desk.store.dead_letters.patients(conn, desk.keys, prefix)
        keys = {key for key in keys if match is None or match["authority"] in desk.shown_as(key.partition(":")[0])}
        if len(keys) != 1:
            raise
        return keys.pop()


def check_channel(desk: Desk, name: str | None) -> None:
    """Raises WhichError when a filter names a channel that there is not, and never was."""
    _check(desk, "channel", name, desk.outline.channels, desk.store.journal.channels)


def check_destination(desk: Desk, name: str | None) -> None:
    """Raises WhichError when there is no such destination, and nothing was ever to be sent to one."""
    _check(desk, "destination", name, desk.outline.destinations, desk.store.outbox.unfinished)


def check_kind(desk: Desk, name: str | None) -> None:
    """Raises WhichError when there are no tasks of this kind, and could be none."""
    _check(desk, "kind", name, KINDS, desk.store.tasks.kinds)


def check_action(desk: Desk, name: str | None) -> None:
    """Raises WhichError when nothing of this name was ever done."""
    _check(desk, "action", name, ACTIONS, desk.store.audit.actions)


def check_error(desk: Desk, code: str | None) -> None:
    """Raises WhichError when no dead letter has this code."""
    _check(desk, "error", code, (), desk.store.dead_letters.errors)


def _check(
    desk: Desk,
    what: str,
    name: str | None,
    declared: Collection[str],
    stored: Callable[[Connection], Iterable[str]],
) -> None:
    """What is declared needs no look into the store."""
    if name is not None and name not in declared:
        check_name(what, name, sorted({*declared, *desk.store.read_now(stored)}))


def check_name(what: str, name: str, known: Sequence[str]) -> None:
    """Raises WhichError when a filter names something that there is not: nothing found would be no answer."""
    if name not in known:
        some = ", ".join(known[:_NAMED_MAX]) + (", ..." if len(known) > _NAMED_MAX else "")
        raise WhichError(f"There is no {what} {name}; there are {some or 'none'}.", name=name, known=known)


def by_prefix(what: str, given: str, found: Sequence[str]) -> str:
    """The one id that begins with what was given. Raises NotFoundError, and WhichError when there are several."""
    if given in found:
        return given
    if len(found) > 1:
        some = ", ".join(found[:_NAMED_MAX]) + (", ..." if len(found) > _NAMED_MAX else "")
        raise WhichError(f"{given} begins the ids of {len(found)} {what}s: {some}")
    if not found:
        raise NotFoundError(f"there is no such {what}; `handoff {what}s list` shows the ids")
    return found[0]


def listed(desk: Desk, store: ListedStore[L], given: str) -> L:
    """The task, page or appointment of an id, or of what an id begins with. Raises NotFoundError and WhichError."""
    with desk.store.reader() as conn:
        whole = by_prefix(store.what, given, store.beginning(conn, given, CANDIDATES_MAX))
        found = store.get(conn, whole)
    if found is None:  # pragma: no cover - what was found a moment ago is never taken away
        raise NotFoundError(f"there is no such {store.what}; `handoff {store.what}s list` shows the ids")
    return found


def dead_letter(desk: Desk, letter_id: int) -> ListedDeadLetter:
    with desk.store.reader() as conn:
        letter = desk.store.dead_letters.get(conn, letter_id)
    if letter is None:
        raise NotFoundError(f"there is no dead letter {letter_id}")
    return letter


def question(desk: Desk, conn: Connection, number: int) -> ListedHold:
    asked = desk.store.holds.get(conn, number)
    if asked is None:
        raise NotFoundError(f"there is no held message m{number}")
    return asked


def held_delivery(desk: Desk, conn: Connection, delivery_id: int) -> QueuedDelivery:
    from engine.domain.delivery import DeliveryState

    queued = desk.store.outbox.get(conn, delivery_id)
    if queued is None or queued.state is not DeliveryState.HELD:
        raise NotFoundError(f"there is no held delivery {delivery_id}")
    return queued


def withheld_delivery(desk: Desk, conn: Connection, delivery_id: int) -> tuple[QueuedDelivery, Withheld]:
    """With what was said of it. Raises NotFoundError."""
    from engine.store import admissions

    queued = desk.store.outbox.get(conn, delivery_id)
    said = admissions.get(conn, [delivery_id]).get(delivery_id)
    if queued is None or queued.state != "withheld" or said is None:
        raise NotFoundError(f"there is no withheld delivery {delivery_id}")
    return queued, said


def is_withheld(desk: Desk, delivery_ids: Sequence[int]) -> bool:
    """Whether all of them are withheld deliveries."""
    with desk.store.reader() as conn:
        found = [desk.store.outbox.get(conn, number) for number in delivery_ids]
    return bool(found) and all(one is not None and one.state == "withheld" for one in found)


def pages(
    desk: Desk,
    conditions: Mapping[str, Any],
    piece: int,
    *,
    entries_max: int | None = None,
    on_cut: Callable[[int], object] = lambda _looked_at: None,
) -> Iterator[list[ListedEntry]]:
    """The journal's entries that meet the conditions (`Journal.find`), piece by piece, newest first.

    entries_max: after so many it ends, and on_cut is told how many they were.
    """
    before: int | None = None
    looked_at = 0
    while True:
        with desk.store.reader() as conn:
            found = desk.store.journal.find(conn, **conditions, before=before, limit=piece)
        yield found
        looked_at += len(found)
        if len(found) < piece:
            return
        if entries_max is not None and looked_at >= entries_max:
            on_cut(looked_at)
            return
        before = found[-1].id
