"""Random journeys of patients who are written to, by the real daemon under a test clock, over both changes of clocks:
no text goes that should not, none is missing, and each that did not go has its one reason.

`HANDOFF_JOURNEYS=100 HANDOFF_TEST_SEED=3` walks more of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime

import pytest
from harness import MakeDaemon, Site
from journeys.walk import HOSPITAL, STOPS, Person, Walk, people
from journeys.warranted import Judge, Life, by_day

SOAK = "HANDOFF_SOAK" in os.environ
COUNT = int(os.environ.get("HANDOFF_JOURNEYS", "100" if SOAK else "8"))
SEED = int(os.environ.get("HANDOFF_TEST_SEED", "1"))
BEGINS = {
    "spring": datetime(2027, 3, 12, 0, 30, tzinfo=HOSPITAL),  # clocks are put on in the night to 14 March
    "autumn": datetime(2027, 11, 5, 0, 30, tzinfo=HOSPITAL),  # and back in the night to 7 November
}

Phone = tuple[datetime, str, str, str]
Phones = list[Phone]
Stops = list[datetime]
Doctor = Callable[[Person, Phones, Stops], Phones]


@pytest.mark.parametrize("begin", BEGINS.values(), ids=list(BEGINS))
def test_journeys_end_with_what_they_warrant(site: Site, make_daemon: MakeDaemon, begin: datetime) -> None:
    persons = people(SEED, COUNT, begin)
    walk = Walk(site, make_daemon, persons, begin)
    try:
        walk.run()
        found = {person.place: (walk.heard[person.place], walk.texts(person)) for person in persons}
    finally:
        walk.close()

    def judge(person: Person, phones: Phones) -> list[str]:
        return list(Judge(person, phones, found[person.place][1], walk.stops).faults())

    faults = {person.key: one for person in persons if (one := judge(person, found[person.place][0]))}
    assert faults == {}, [(one.home[3], one.happened) for one in persons if one.key in faults]
    said = [one for phones, _ in found.values() for one in phones if one[1] == "out"]
    assert len(said) >= COUNT // 2
    for name, change in DOCTORED.items():  # what the re-computation must see
        tried = [(one, doctored) for one in persons if (doctored := change(one, found[one.place][0], walk.stops))]
        assert tried, f"no journey has anything in which to make the fault {name!r}"
        assert all(judge(one, doctored) for one, doctored in tried), name


def _series(phones: Phones) -> list[Phone]:
    return [one for one in phones if one[1] == "out" and ("Welcome" in one[3] or "TAKEN" in one[3])]


def _at(phones: Phones, stop: datetime | None) -> Phones:
    """The first text of the series goes at another moment."""
    return [(stop, *one[1:]) if one is _series(phones)[0] else one for one in phones] if stop else []


def _at_night(person: Person, phones: Phones, stops: Stops) -> Phones:
    own = _series(phones)
    return _at(phones, next((one for one in stops if own and one > own[0][0] and not by_day(one, person.zone)), None))


def _after(*kinds: str) -> Doctor:
    def change(person: Person, phones: Phones, stops: Stops) -> Phones:
        ended = next((one.at for one in person.happened if one.kind in kinds), None)
        stop = next((one for one in stops if ended is not None and one > ended), None)
        return _at(phones, stop) if _series(phones) else []

    return change


def _after_a_stop(person: Person, phones: Phones, stops: Stops) -> Phones:
    said = next((one for one in person.happened if one.kind == "write" and one.what in STOPS), None)
    agreed = said is not None and any(one.kind == "give" and one.at > said.at for one in person.happened)
    later = next((one for one in stops if said is not None and one > said.at), None)
    if said is None or later is None or agreed or not _series(phones):
        return []
    return [*phones, (later, "out", Life(person).number(said.at), _series(phones)[0][3])]


def _missing(_person: Person, phones: Phones, _stops: Stops) -> Phones:
    return [one for one in phones if one is not _series(phones)[0]] if _series(phones) else []


def _twice(_person: Person, phones: Phones, _stops: Stops) -> Phones:
    return [*phones, _series(phones)[0]] if _series(phones) else []


def _to_another(_person: Person, phones: Phones, _stops: Stops) -> Phones:
    return [(*one[:2], "+12125550000", one[3]) if one in _series(phones)[:1] else one for one in phones]


DOCTORED: dict[str, Doctor] = {
    "at night": _at_night,
    "after the discharge was taken back, a readmission or a death": _after("cancel", "readmit", "death"),
    "after a stop": _after_a_stop,
    "it did not go": _missing,
    "it went twice": _twice,
    "to another number": lambda *given: _to_another(*given) if _series(given[1]) else [],
}
