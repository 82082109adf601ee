"""What somebody sees at a desk, and by what they asked for it, until it is on record.

Everything that shows patients says which (`Desk.view`, `Desk.shows`), everything that finds a patient by who they are
says by what (`Desk.asked`). `at` writes it to the trail when they leave, and before the first word of it is printed
(`Desk.on_record`): who can't be put on record is shown nobody. Which record an action leaves besides stands in its row
of the catalogue (`access.actions.Meaning.look`). Why: docs/decisions/0042-every-look-is-on-record.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from engine.errors import DeniedError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.desk.desk import Desk
    from engine.domain.audit import Result
    from engine.store import Store

PATIENTS_A_RECORD_MAX: Final = 1_000
"""Of a list with more there are more records."""
SEARCHED: Final = "searched"
LOOKED: Final = "looked"
TRAIL_READ: Final = "trail-read"
"""Of who looks after the trail: patients whom it names. It is no look at them that somebody has to explain."""


class Looks:
    """What is not on record yet."""

    def __init__(self) -> None:
        self.terms: dict[str, str] = {}
        """What a patient was asked for by."""
        self.hits: dict[str, None] = {}
        """Charts that were found by that."""
        self.searched = False
        """It was asked for by who somebody is."""
        self._shown: dict[str, None] = {}
        self._known: set[str] = set()

    def add(self, subjects: Iterable[str]) -> None:
        """`chart:9f2c`, `entry:17`, `delivery:4`; what is none of these is no patient's."""
        self._shown.update(dict.fromkeys(one for one in subjects if one.partition(":")[0] in _OF_PATIENTS))

    def known(self, subjects: Iterable[str]) -> None:
        """These are on record."""
        self._known.update(subjects)

    def left(self) -> list[str]:
        """What was shown and is not on record."""
        return [one for one in self._shown if one not in self._known]


_OF_PATIENTS: Final = frozenset({"chart", "entry", "delivery"})


def charts_of(store: Store, conn: Connection, subjects: Iterable[str]) -> dict[str, list[str]]:
    """The charts that each of these is of; none: no chart is known."""
    from engine.store.shown import charts_of_deliveries, charts_of_entries

    numbers: dict[str, dict[str, int]] = {"entry": {}, "delivery": {}}
    found: dict[str, list[str]] = {}
    for subject in subjects:
        what, _, id_ = subject.partition(":")
        found[subject] = [id_] if what == "chart" else []
        if what in numbers and id_.isdecimal():
            numbers[what][subject] = int(id_)
    of_entries = charts_of_entries(conn, list(numbers["entry"].values()))
    if unknown := [number for number in numbers["entry"].values() if number not in of_entries]:
        named = {one.id: one.patient_key for one in store.journal.listed(conn, unknown) if one.patient_key is not None}
        charts = store.charts.named(conn, named.values())  # refused and dead ones changed no chart, and name a patient
        of_entries |= {number: set(charts[key]) for number, key in named.items() if key in charts}
    of_deliveries = charts_of_deliveries(conn, list(numbers["delivery"].values()))
    found |= {subject: sorted(of_entries.get(number, ())) for subject, number in numbers["entry"].items()}
    found |= {subject: of_deliveries.get(number, []) for subject, number in numbers["delivery"].items()}
    return found


@contextmanager
def at(desk: Desk) -> Iterator[Desk]:
    """Somebody looks and acts at a desk. Denials, looks and what was searched for are on record when they leave."""
    desk.admit()
    try:
        yield desk
    except DeniedError as error:
        desk.record_denial(error)
        _searched_in_vain(desk, "denied")
        raise
    except Exception:
        _searched_in_vain(desk, "failed")
        raise
    desk.on_record()


def _searched_in_vain(desk: Desk, result: Result) -> None:
    """That nobody was found, or was shown to who asked, is an answer as well."""
    if desk.looks.searched:
        desk.record_search(result)
