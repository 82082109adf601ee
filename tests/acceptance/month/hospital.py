"""A month in a hospital, as its systems tell it: stays with all that is done to them, late, twice and turned round.

Everything follows from the seed. What is true and what is told differ on purpose: an admission may be told after the
discharge, a discharge taken back an hour later, a patient admitted under a second number that is merged a day later, a
stay that is registered twice, under two numbers, until the two are merged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DISPOSITIONS = ("01",) * 60 + ("06",) * 10 + ("03",) * 8 + ("62",) * 3 + ("02",) * 3 + ("07",) * 3 + ("20",) * 3 + (
    "50", "51", "21", "30", "", "", "81", "43", "9Z", "09",
)  # fmt: skip
CLASSES = ("I",) * 16 + ("OBS", "OBS", "O", "B")
DIAGNOSES = (
    (("I50.9", "Heart failure"), ("J44.9", "COPD"), ("E11.9", "Diabetes")),
    (("C78.0", "Secondary malignant neoplasm"),),
    (("J18.9", "Pneumonia"),),
    (("K35.80", "Appendicitis"),),
    (("S72.001A", "Hip fracture"), ("Z79.01", "Anticoagulants")),
    (),
)
PCP = "1730155555^CARTER^JOHN"
MERGES = {"A40": "ADT_A39", "A18": "ADT_A18", "A30": "ADT_A30", "A34": "ADT_A30", "A39": "ADT_A39"}
"""Event -> structure."""


@dataclass(frozen=True, order=True)
class Told:
    """A message as it reaches the engine."""

    at: datetime
    number: int
    payload: bytes = field(compare=False)


@dataclass
class _Person:
    number: str
    """MRN, as it is at first."""
    born: str
    dead: bool = False
    diagnoses: tuple[tuple[str, str], ...] = ()


@dataclass
class _Stay:
    person: _Person
    mrn: str
    visit: str
    class_: str
    begin: datetime
    end: datetime
    disposition: str
    emergent: bool
    unit: str = "4EAST"


class Hospital:
    """stays: about so many. begin: of the month."""

    def __init__(self, seed: int, stays: int, begin: datetime, days: int = 30) -> None:
        self.random = Random(seed)
        self.begin = begin
        self.end = begin + days * DAY
        self._told: list[Told] = []
        self._numbers = 0
        self._visits = 0
        self.stays = 0
        while self.stays < stays:
            self._person(f"{100000 + self._numbers:07}")

    def told(self) -> list[Told]:
        """In the order in which they come, up to the end of the month."""
        return sorted(one for one in self._told if one.at < self.end)

    # --- what happens

    def _person(self, number: str) -> None:
        random = self.random
        person = _Person(number, f"19{random.randint(30, 95)}0{random.randint(1, 9)}1{random.randint(0, 9)}")
        person.diagnoses = random.choice(DIAGNOSES)
        at = self.begin + random.random() * 22 * DAY
        for _ in range(random.choice((1, 1, 1, 1, 2, 2, 3))):
            at = self._stay(person, at)
            if person.dead or at > self.end - 2 * DAY:
                return
            # Back within the hour, within days, or much later.
            at += random.choice((0.03, 0.5, 3, 9, 20)) * DAY * random.uniform(0.7, 1.3)

    def _stay(self, person: _Person, at: datetime) -> datetime:
        random = self.random
        self.stays += 1
        self._visits += 1
        length = min(random.lognormvariate(1.0, 0.7), 14.0) * DAY
        stay = _Stay(
            person, person.number, f"V{self._visits:06}", random.choice(CLASSES), at, at + length,
            random.choice(DISPOSITIONS), random.random() < 0.6,
        )  # fmt: skip
        second = random.random() < 0.04
        if second:
            stay.mrn = f"9{person.number}"
        elif stay.disposition != "20" and random.random() < 0.06:
            self._twice(stay)
        self._begin(stay)
        fate = random.random()
        if fate < 0.03:  # the admission never was
            self._tell("A11", stay, at + random.uniform(0.1, 6) * HOUR)
            return at + 6 * HOUR
        for _ in range(random.randint(0, 2)):
            moved = at + random.random() * length
            stay.unit = random.choice(("4EAST", "3WEST", "ICU"))
            self._tell(random.choice(("A02", "A08")), stay, moved)
        if random.random() < 0.05:
            gone = at + 0.4 * length
            self._tell("A21", stay, gone)
            self._tell("A22", stay, gone + min(4 * HOUR, 0.2 * length))
        if second:
            self._merge(stay, at + random.uniform(0.1, 0.9) * length)
        self._end(stay)
        return stay.end

    def _twice(self, stay: _Stay) -> None:
        """The same stay under another number of patient and visit; the two patients become one, then or later."""
        random = self.random
        self._visits += 1
        length = stay.end - stay.begin
        begin = stay.begin + random.uniform(0.1, 0.2) * min(length, 10 * HOUR)
        other = replace(stay, mrn=f"8{stay.person.number}", visit=f"W{self._visits:06}", begin=begin)
        other.end += random.uniform(-0.5, 0.5) * min(length, 2 * HOUR)
        if random.random() < 0.2:
            other.disposition = random.choice(("02", "03", "", "06"))
        self._tell("A04" if stay.class_ == "O" else "A01", other, begin)
        ends = random.random()
        if ends < 0.1:  # somebody sees that it is one stay
            self._tell("A11", other, begin + random.uniform(0.1, 0.9) * length)
        elif ends < 0.8:
            self._tell("A03", other, other.end)
        elif ends < 0.9:  # closed long before, by mistake
            other.end = begin + 0.3 * length
            self._tell("A03", other, other.end)
        self._merge(other, begin + random.uniform(0.1, 1.5) * length, random.choice(tuple(MERGES)))

    def _begin(self, stay: _Stay) -> None:
        random, at = self.random, stay.begin
        if stay.class_ == "I" and random.random() < 0.25:  # by the emergency department
            arrived = at - random.uniform(1, 10) * HOUR
            stay.begin = arrived
            self._tell("A04", stay, arrived, class_="E")
            self._tell("A06", stay, at)
            return
        if random.random() < 0.1:
            self._tell("A05", stay, at - random.uniform(6, 48) * HOUR, class_="P")
        self._tell("A04" if stay.class_ == "O" else "A01", stay, at)

    def _end(self, stay: _Stay) -> None:
        random = self.random
        stands = True
        if random.random() < 0.1:
            self._tell("A16", stay, stay.end - 3 * HOUR)
        self._tell("A03", stay, stay.end)
        if stay.disposition == "20":
            stay.person.dead = True
            return
        fate = random.random()
        if fate < 0.05:  # taken back, and discharged again on most days
            self._tell("A13", stay, stay.end + random.uniform(0.2, 5) * HOUR)
            stands = random.random() < 0.7
            if stands:
                stay.end += random.uniform(6, 40) * HOUR
                stay.disposition = random.choice(("01", "06", "03"))
                self._tell("A03", stay, stay.end)
        elif fate < 0.12:  # what was said of the discharge is corrected
            stay.disposition = random.choice(("01", "03", "07", "06"))
            self._tell("A08", stay, stay.end + random.uniform(0.5, 30) * HOUR, ended=True)
        if stands and random.random() < 0.5:  # final coding
            self._tell("A08", stay, stay.end + random.uniform(1, 6) * DAY, ended=True, final=True)
        if stands and stay.disposition in {"01", "06"} and random.random() < 0.5:
            self._appointment(stay)

    def _merge(self, stay: _Stay, at: datetime, event: str = "A40") -> None:
        person = stay.person
        t, number = _time(at), self._number()
        lines = [
            self._msh(f"ADT^{event}^{MERGES[event]}", at, number),
            f"EVN|{event}|{t}",
            f"PID|1||{person.number}^^^MRN^MR||TEST^P{person.number}||{person.born}|F",
            f"MRG|{stay.mrn}^^^MRN^MR",
        ]
        self._say(lines, at, number)
        stay.mrn = person.number

    def _appointment(self, stay: _Stay) -> None:
        """A visit to the primary care provider is booked, and what becomes of it."""
        random = self.random
        booked = stay.end + random.uniform(0.2, 20) * HOUR
        start = stay.end + random.uniform(1.2, 10) * DAY
        start = start.replace(minute=0, second=0, microsecond=0)
        number = f"AP{self._number():06}"
        self._schedule("S12", stay, number, booked, start, "Booked")
        fate = random.random()
        if fate < 0.15:
            start += 2 * DAY
            self._schedule("S13", stay, number, booked + 6 * HOUR, start, "Booked")
        if fate < 0.6:
            kept = start + HOUR
            if random.random() < 0.5:
                self._schedule("S14", stay, number, kept, start, "Complete")
            else:
                self._visits += 1
                visit = _Stay(stay.person, stay.mrn, f"V{self._visits:06}", "O", start, start, "", emergent=False)
                self._tell("A04", visit, start, attending=PCP)
        elif fate < 0.75:
            self._schedule("S26", stay, number, start + 3 * HOUR, start, "Noshow")
        elif fate < 0.9:
            self._schedule("S15", stay, number, booked + 10 * HOUR, start, "Cancelled")

    # --- how it is told

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _msh(self, event: str, at: datetime, number: int) -> str:
        return f"MSH|^~\\&|EHR|MAIN|HANDOFF|MAIN|{_time(at)}||{event}|C{number:07}|P|2.5.1"

    def _tell(
        self,
        event: str,
        stay: _Stay,
        at: datetime,
        *,
        class_: str | None = None,
        ended: bool = False,
        final: bool = False,
        attending: str = "1982700001^LIU^ANNA",
    ) -> None:
        person, number = stay.person, self._number()
        pv1 = [""] * 46
        pv1[0], pv1[1], pv1[2], pv1[3] = "PV1", "1", class_ or stay.class_, f"{stay.unit}^402^B^MAIN"
        pv1[4] = "E" if stay.emergent else "C"
        pv1[7], pv1[19], pv1[44] = attending, f"{stay.visit}^^^MRN", _time(stay.begin)
        if event == "A03" or ended:
            pv1[36], pv1[45] = stay.disposition, _time(stay.end)
        structure = {"A03": "ADT_A03"}.get(event, "ADT_A01")
        lines = [
            self._msh(f"ADT^{event}^{structure}", at, number),
            f"EVN|{event}|{_time(at)}",
            f"PID|1||{stay.mrn}^^^MRN^MR||TEST^P{person.number}||{person.born}|F",
            f"PD1||||{PCP}",
            "|".join(pv1).rstrip("|"),
        ]
        kind = "F" if final else "A" if event in {"A01", "A04", "A05"} else "W"
        lines += [
            f"DG1|{index}||{code}^{text}^I10||{_time(at)}|{kind}"
            for index, (code, text) in enumerate(person.diagnoses, start=1)
        ]
        self._say(lines, at, number)

    def _schedule(self, event: str, stay: _Stay, visit: str, at: datetime, start: datetime, status: str) -> None:
        person, number = stay.person, self._number()
        sch = [""] * 26
        sch[0], sch[1], sch[2], sch[6], sch[25] = "SCH", visit, visit, "ROUTINE", status
        sch[7], sch[8] = "FOLLOWUP^Follow-up", "PCP^Primary care"
        sch[11] = f"^^^{_time(start)}^{_time(start + HOUR / 2)}"
        self._say(
            [
                self._msh(f"SIU^{event}^SIU_S12", at, number),
                "|".join(sch),
                f"PID|1||{stay.mrn}^^^MRN^MR||TEST^P{person.number}||{person.born}|F",
                "RGS|1|A",
                "AIS|1|A|PCP^Primary care",
                f"AIP|1|A|{PCP}",
            ],
            at,
            number,
        )

    def _say(self, lines: list[str], at: datetime, number: int) -> None:
        """In time as a rule; sometimes late, sometimes twice."""
        random = self.random
        payload = "".join(f"{line}\r" for line in lines).encode()
        late = random.uniform(0.5, 20)
        delay = HOUR * random.expovariate(0.5) if random.random() < 0.05 else timedelta(seconds=late)
        self._told.append(Told(at + delay, number, payload))
        if random.random() < 0.03:
            self._told.append(Told(at + delay + timedelta(minutes=random.uniform(0.1, 600)), number, payload))


def _time(at: datetime) -> str:
    return f"{at:%Y%m%d%H%M%S}+0000"


def slices(told: list[Told], length: timedelta) -> Iterator[tuple[datetime, list[Told]]]:
    """What comes within a length of time from a first one, with the end of that time."""
    batch: list[Told] = []
    for one in told:
        if batch and one.at >= batch[0].at + length:
            yield batch[0].at + length, batch
            batch = []
        batch.append(one)
    if batch:
        yield batch[0].at + length, batch
