"""Invented people. Person 17 of seed 1 is the same in every run, so that people come back on other days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from engine.simulator.pathways import BANDS, Band, Book, Mix, Reason, Town

_AGES_IN: Final = 2026
"""The year that the data's ages are of; fixed, so that a birth date is the same on every simulated day."""
_KIN: Final = {"child": "PAR^Parent^HL70063", "M": "SPO^Spouse^HL70063", "": "SIB^Sibling^HL70063"}


@dataclass(slots=True, kw_only=True)
class Person:
    """What registration knows of somebody. The texts are ready to stand in HL7 fields; none needs an escape."""

    record_number: str
    national_id: str
    family: str
    given: str
    middle: str
    birth_date: str
    sex: str
    address: str
    home: str
    mobile: str
    language: str
    marital: str
    living: str
    """PD1-2, HL7 table 0220."""
    pcp: str
    kin: str
    """NK1-2 to NK1-5."""
    insurer: str
    """IN1-2 to IN1-17."""
    comorbidities: list[Reason]
    deceased_at: int | None = None
    """Seconds since the simulated day began."""

    @property
    def name(self) -> str:
        return f"{self.family}^{self.given}^{self.middle}^^^^L"


class Population:
    """Everybody who may come. `number` names a person for ever.

    Not safe for threads: one source of randomness is seeded anew for each person.
    """

    def __init__(self, book: Book, *, seed: int) -> None:
        self._book = book
        self._seed = seed
        self._random = Random()
        people = book.people
        self._towns = Mix(people.towns, [town.weight for town in people.towns])
        self._languages = Mix(list(people.languages), list(people.languages.values()))
        self._marital = Mix(list(people.marital), list(people.marital.values()))
        self._living = Mix(list(people.living), list(people.living.values()))
        self._plans = Mix(people.plans, [plan.weight for plan in people.plans])
        shares = {band: [(item, item.share.get(band, 0.0)) for item in book.comorbidities] for band in BANDS}
        self._comorbidities = {
            band: [(Reason(code=item.code, text=item.text, weight=1), share) for item, share in items if share]
            for band, items in shares.items()
        }
        staff = Random(seed)
        self.attendings = [self._clinician(staff, "D", index) for index in range(people.attendings)]
        self._practices = [self._clinician(staff, "P", index) for index in range(people.practices)]

    def person(self, number: int, band: Band) -> Person:
        """The person of this number."""
        book, random = self._book, self._random
        people = book.people
        random.seed(self._seed * 1_000_003 + number)
        draw = random.random
        female = draw() < 0.52
        minor = band == "child"
        family = _one(people.family, draw())
        given = _one(people.female if female else people.male, draw())
        youngest, oldest = book.ages[band]
        born = _AGES_IN - (youngest + draw() * (oldest - youngest + 1)) + 0.5
        town = self._towns.draw(random)
        address = self._address(random, town)
        marital = "S" if minor else self._marital.draw(random)
        relation = _KIN["child" if minor else marital if marital == "M" else ""]
        kin = _one(people.male if female else people.female, draw())
        language = self._languages.draw(random)
        plan = self._plans.draw(random)
        quirks = book.quirks
        return Person(
            record_number=f"{self._seed % 90_000 + 10_000}{number:07d}",
            # 9 at the start, 10 to 48 in the middle: a number that is never issued
            national_id=f"9{int(draw() * 100):02d}-{10 + int(draw() * 39)}-{int(draw() * 10_000):04d}",
            family=family,
            given=given,
            middle=_one(people.middle, draw()),
            birth_date=f"{int(born)}{1 + int(draw() * 12):02d}{1 + int(draw() * 28):02d}",
            sex="F" if female else "M",
            address=address,
            home="" if draw() < quirks.phone_missing else self.phone(random, town.area, "PRN^PH"),
            mobile=self.phone(random, town.area, "PRN^CP") if draw() < 0.6 else "",
            language=f"{language}^^HL70296" if language else "",
            marital=marital,
            living="F" if minor else self._living.draw(random),
            pcp="" if draw() < quirks.pcp_missing else _one(self._practices, draw()),
            kin=f"{family}^{kin}|{relation}|{address}|{self.phone(random, town.area, 'PRN^PH')}",
            insurer=f"{plan.code}^{plan.name}|{plan.code}01|{plan.name}||||G{int(draw() * 10_000):04d}"
            f"||||||||{family}^{given}|SEL",
            comorbidities=[reason for reason, share in self._comorbidities[band] if draw() < share],
        )

    def phone(self, random: Random, area: int, use: str) -> str:
        """PID-13, as newer and older senders write it; always of the fictional range 555-0100 to 555-0199."""
        line = 100 + int(random.random() * 100)
        if random.random() < self._book.quirks.phone_one_text:
            return f"({area})555-0{line}^{use}"
        return f"^{use}^^1^{area}^5550{line}"

    def moved(self, random: Random, person: Person) -> None:
        """A new address and telephone."""
        town = self._towns.draw(random)
        person.address = self._address(random, town)
        person.home = self.phone(random, town.area, "PRN^PH")

    def another_practice(self, random: Random) -> str:
        return _one(self._practices, random.random())

    def another_family_name(self, random: Random) -> str:
        return _one(self._book.people.family, random.random())

    def _address(self, random: Random, town: Town) -> str:
        street = _one(self._book.people.streets, random.random())
        return f"{1 + int(random.random() * 980)} {street}^^{town.city}^{town.state}^{town.postal_code}^USA^H"

    def _clinician(self, random: Random, letter: str, index: int) -> str:
        people = self._book.people
        given = _one(people.female if random.random() < 0.5 else people.male, random.random())
        family = _one(people.family, random.random())
        return f"{letter}{1000 + index}^{family}^{given}^^^DR^MD^^{self._book.hospital.authority}^L"


def _one(items: Sequence[str], draw: float) -> str:
    return items[int(draw * len(items))]
