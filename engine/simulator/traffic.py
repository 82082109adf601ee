"""A hospital's day as a stream of messages: the same seed, day and count give the same bytes, always."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from heapq import heappop, heappush
from itertools import accumulate, count
from random import Random
from typing import Final, NamedTuple

from engine.simulator.messages import Case, Registration
from engine.simulator.pathways import BANDS, Book
from engine.simulator.people import Population

_DAY: Final = 86_400
_SAMPLES: Final = 1_500
_POPULATIONS: Final = (50_021, 1_000_003, 20_000_003, 400_000_009)
"""People of one age band, by how many may be needed. Primes, so that a walk of any step comes by everybody."""
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Simulated(NamedTuple):
    case: int
    """Messages of one case (so of one patient) share it; their order matters."""
    at: int
    """Seconds since the simulated day began."""
    control_id: bytes
    payload: bytes


def traffic(book: Book, *, seed: int, day: date, messages: int) -> Iterator[Simulated]:
    """Messages in the order of their time, spread over the day (over more days above the hospital's daily most).

    Memory holds the people who are in the hospital, not the stream.
    """
    run = _digest(f"{seed}/{day.isoformat()}/{messages}/{book.model_dump_json()}")
    random = Random(run)
    a_day = min(messages, book.hospital.messages_per_day_max)
    cases_a_day = max(1.0, a_day / _messages_a_case(book, random))
    arrival = _arrivals(book.hospital.arrivals_by_hour, cases_a_day)
    population = Population(book, seed=seed)
    registration = Registration(book, population, random, day)
    names = _Names(run, day)
    admit = _Admissions(book, population, registration, random, names, messages)
    waiting: list[tuple[int, int, Case]] = []
    numbers = iter(range(messages))
    for index in count():
        start = int(arrival(index + random.random()))
        while waiting and waiting[0][0] <= start:
            at, _, case = heappop(waiting)
            number = next(numbers, None)
            if number is None:
                return
            _, step = case.itinerary[case.next_step]
            registration.apply(case, step, at)
            control_id = names.control_id(number)
            yield Simulated(case.index, at, control_id.encode(), registration.message(case, step, at, control_id))
            _schedule(waiting, case, at)
        heappush(waiting, (start, index, admit.case(index, start)))


def _schedule(waiting: list[tuple[int, int, Case]], case: Case, at: int) -> None:
    offset = case.itinerary[case.next_step][0]
    case.next_step += 1
    if case.next_step < len(case.itinerary):
        heappush(waiting, (at + case.itinerary[case.next_step][0] - offset, case.index, case))


class _Admissions:
    """Decides who comes next, and for what."""

    def __init__(
        self,
        book: Book,
        population: Population,
        registration: Registration,
        random: Random,
        names: _Names,
        messages: int,
    ) -> None:
        self._book = book
        self._population = population
        self._registration = registration
        self._random = random
        self._names = names
        # Everybody comes at most once in a run: a walk through the band's people.
        people = self._people = next(number for number in _POPULATIONS if number >= messages)
        self._walks = {band: [int(random.random() * people), 1 + int(random.random() * (people - 1))] for band in BANDS}

    def case(self, index: int, start: int) -> Case:
        """The case whose first message is sent at `start`."""
        random, book = self._random, self._book
        pathway = book.pathway_mix.draw(random)
        band = book.age_mixes[pathway.name].draw(random)
        walk = self._walks[band]
        walk[0] = (walk[0] + walk[1]) % self._people
        person = self._population.person(walk[0] * len(BANDS) + BANDS.index(band), band)
        attendings = self._population.attendings
        visit_number, account = self._names.visit(index)
        case = Case(
            index=index,
            pathway=pathway,
            person=person,
            itinerary=pathway.itinerary(random),
            reason=book.reason_mixes[pathway.name].draw(random),
            attending=attendings[int(random.random() * len(attendings))],
            visit_number=visit_number,
            account=account,
            duplicate=self._names.duplicate(index),
            class_=pathway.class_,
        )
        steps = len(case.itinerary)
        if steps > 1 and random.random() < pathway.began_before:
            first = 1 + int(random.random() * (steps - 1))
            began = start - case.itinerary[first][0]
            for offset, step in case.itinerary[:first]:
                self._registration.apply(case, step, began + offset)
            case.next_step = first
        return case


class _Names:
    """Control ids, visit numbers and accounts: no two runs that differ share one."""

    def __init__(self, run: int, day: date) -> None:
        text = ""
        for _ in range(6):
            run, digit = divmod(run, 32)
            text += _ALPHABET[digit]
        self._run = text
        self._day = f"{day:%y%m%d}"
        self._number = run % 100_000

    def control_id(self, number: int) -> str:
        return f"{self._run}{number:08d}"

    def visit(self, index: int) -> tuple[str, str]:
        number = f"{self._day}{self._number:05d}{index:07d}"
        return f"V{number}", f"A{number}"

    def duplicate(self, index: int) -> str:
        """A second record number, given to somebody who had one."""
        return f"9{self._number:05d}{self._day}{index:07d}"


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


def _messages_a_case(book: Book, random: Random) -> float:
    """How many messages of one case fall into the day, on average."""
    sent = 0
    arrival = _arrivals(book.hospital.arrivals_by_hour, _SAMPLES)
    for number in range(_SAMPLES):
        pathway = book.pathway_mix.draw(random)
        itinerary = pathway.itinerary(random)
        first = 0
        if len(itinerary) > 1 and random.random() < pathway.began_before:
            first = 1 + int(random.random() * (len(itinerary) - 1))
        start = arrival(number + random.random()) - itinerary[first][0]
        sent += sum(start + offset < _DAY for offset, _ in itinerary[first:])
    return sent / _SAMPLES


def _arrivals(by_hour: Sequence[float], cases_a_day: float) -> Callable[[float], float]:
    """The second at which a case arrives, by its place in the order of arrival; the days repeat."""
    total = sum(by_hour)
    bounds = [0.0, *accumulate(weight / total for weight in by_hour)]

    def second(place: float) -> float:
        days, share = divmod(place / cases_a_day, 1.0)
        hour = min(bisect_right(bounds, share) - 1, 23)
        within = (share - bounds[hour]) / (bounds[hour + 1] - bounds[hour])
        return days * _DAY + (hour + min(within, 1.0)) * 3_600

    return second
