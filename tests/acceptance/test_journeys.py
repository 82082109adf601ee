"""Random journeys of patients who are written to, by the real daemon under a test clock, over both changes of clocks:
no text goes that should not, none is missing, and each that did not go has its one reason.

`HANDOFF_JOURNEYS=100 HANDOFF_TEST_SEED=3` walks more of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from harness import MakeDaemon, Site
from journeys.walk import HOSPITAL, Person, Walk, people
from journeys.warranted import Judge

SOAK = "HANDOFF_SOAK" in os.environ
COUNT = int(os.environ.get("HANDOFF_JOURNEYS", "100" if SOAK else "8"))
SEED = int(os.environ.get("HANDOFF_TEST_SEED", "1"))
BEGINS = {
    "spring": datetime(2027, 3, 12, 0, 30, tzinfo=HOSPITAL),  # clocks are put on in the night to 14 March
    "autumn": datetime(2027, 11, 5, 0, 30, tzinfo=HOSPITAL),  # and back in the night to 7 November
}

Phones = list[tuple[datetime, str, str, str]]


@pytest.mark.parametrize("begin", BEGINS.values(), ids=list(BEGINS))
def test_journeys_end_with_what_they_warrant(site: Site, make_daemon: MakeDaemon, begin: datetime) -> None:
    persons = people(SEED, COUNT, begin)
    walk = Walk(site, make_daemon, persons, begin)
    try:
        walk.run()
        found = {person.place: (walk.phones(person), walk.texts(person)) for person in persons}
    finally:
        walk.close()

    def judge(person: Person, phones: Phones) -> list[str]:
        return list(Judge(person, phones, found[person.place][1], walk.stops).faults())

    faults = {person.key: one for person in persons if (one := judge(person, found[person.place][0]))}
    assert faults == {}, [(person.home[3], person.happened) for person in persons if person.key in faults]
    said = [one for phones, _ in found.values() for one in phones if one[1] == "out"]
    assert len(said) >= COUNT // 2
    for name, change in DOCTORED.items():  # what the re-computation must see
        tried = [(person, changed) for person in persons for changed in change(person, found[person.place][0])]
        assert tried, f"no journey has anything in which to make the fault {name!r}"
        assert all(judge(person, changed) for person, changed in tried), name


def _series(phones: Phones) -> Phones:
    return [one for one in phones if one[1] == "out" and ("Welcome" in one[3] or "TAKEN" in one[3])]


def _moved(by: timedelta) -> Callable[[Person, Phones], list[Phones]]:
    def change(_person: Person, phones: Phones) -> list[Phones]:
        return [[(one[0] + by, *one[1:]) if one is late else one for one in phones] for late in _series(phones)[:1]]

    return change


def _missing(_person: Person, phones: Phones) -> list[Phones]:
    return [[one for one in phones if one is not gone] for gone in _series(phones)[:1]]


def _twice(_person: Person, phones: Phones) -> list[Phones]:
    return [[*phones, one] for one in _series(phones)[:1]]


def _to_another(_person: Person, phones: Phones) -> list[Phones]:
    return [
        [(*one[:2], "+12125550000", one[3]) if one is lost else one for one in phones] for lost in _series(phones)[:1]
    ]


DOCTORED = {
    "at night": _moved(timedelta(hours=12)),
    "long after": _moved(timedelta(days=40, hours=12)),
    "it did not go": _missing,
    "it went twice": _twice,
    "to another number": _to_another,
}
