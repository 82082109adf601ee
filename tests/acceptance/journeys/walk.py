"""People who go home and are written to: what happens to each of them, and the daemon that it happens to."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from types import SimpleNamespace
from typing import Any, Final, cast
from zoneinfo import ZoneInfo

from harness import MakeDaemon, Site
from month.drive import Month

from engine.connectors.phones import Phones
from engine.domain.cause import ContactConsentGiven, ContactConsentRevoked
from engine.store.causes import put

HOSPITAL: Final = ZoneInfo("America/New_York")
HOMES: Final = (
    ("NEW YORK", "NY", "10016", "America/New_York"),
    ("LOS ANGELES", "CA", "90001", "America/Los_Angeles"),
    ("CHICAGO", "IL", "60601", "America/Chicago"),
    ("HONOLULU", "HI", "96801", "Pacific/Honolulu"),
)
WORDS: Final = (
    "CONFIRM",
    "change",
    "TAKEN",
    "not yet",
    "When can I shower?",
    "STOP",
    "please stop texting me",
    "no mas",
)
STOPS: Final = frozenset({"STOP", "please stop texting me", "no mas"})
ILL: Final = ("I50.9", "N18.6", "C80.1", "E11.9")
DAYS: Final = 8
HOURS: Final = (9.25, 10.25, 13.25, 16.25, 20.5)
"""Of each day, by the hospital's clock: when the daemon's clock stands still for a moment."""


@dataclass(order=True)
class Happening:
    """kind: `discharge`, `cancel`, `readmit`, `death`, `book`, `move`, `call off`, `number`, `give`, `revoke`,
    `write`.
    """

    at: datetime
    who: int
    kind: str = field(compare=False)
    what: Any = field(default=None, compare=False)
    """Of `book` and `move` the visit's time, of `number`, `give` and `revoke` the number, of `write` the words."""


@dataclass
class Person:
    place: int
    home: tuple[str, str, str, str]
    happened: list[Happening] = field(default_factory=list)

    @property
    def id(self) -> str:
        return f"7{self.place:05}"

    @property
    def key(self) -> str:
        return f"MRN:{self.id}"

    @property
    def numbers(self) -> tuple[str, str]:
        return f"+1212555{1000 + self.place}", f"+1212555{3000 + self.place}"

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.home[3])


def people(seed: int, count: int, begin: datetime) -> list[Person]:
    """What happens to them, the earliest first, on quarters of an hour."""
    random = Random(seed)
    return [_person(random, place, begin) for place in range(count)]


def _person(random: Random, place: int, begin: datetime) -> Person:
    person = Person(place, random.choice(HOMES))
    first, second = person.numbers

    def on(days: float, kind: str, what: Any = None, *, hour: float | None = None) -> datetime:
        day = (begin + timedelta(days=int(days))).astimezone(HOSPITAL).date()
        hour = random.uniform(0, 23.9) if hour is None else hour
        at = datetime(day.year, day.month, day.day, int(hour), int(hour % 1 * 4) * 15, tzinfo=HOSPITAL)
        person.happened.append(Happening(at, place, kind, what))
        return at

    if random.random() < 0.85:
        on(0, "give", first, hour=1)
    home = on(0, "discharge", hour=random.uniform(6, 22))
    visit = home + timedelta(days=random.randint(2, 6))
    visit = visit.replace(hour=random.choice((9, 11, 14, 16)), minute=30)
    if random.random() < 0.75:
        on(random.choice((0, 0, 1, 2)), "book", visit, hour=random.uniform(22.1, 23.5))
        if random.random() < 0.3:
            on(random.choice((1, 2, 3)), "move", visit + timedelta(days=random.choice((-1, 1, 2))), hour=7.5)
        elif random.random() < 0.3:
            on(random.choice((1, 2, 3)), "call off", visit, hour=7.5)
    for chance, kind, what in (
        (0.15, "cancel", None), (0.15, "readmit", None), (0.12, "death", None), (0.2, "number", second),
        (0.15, "revoke", first), (0.2, "give", second), (0.1, "give", first),
    ):  # fmt: skip
        if random.random() < chance:
            on(random.randint(1, 5), kind, what)
    for _ in range(random.randint(0, 3)):
        on(random.randint(1, 6), "write", random.choice(WORDS), hour=random.uniform(9, 20))
    later = {"cancel", "readmit", "death"}
    ends = sorted(one for one in person.happened if one.kind in later)
    person.happened = sorted(one for one in person.happened if one.kind not in later or one is ends[0])
    return person


class Walk:
    """The daemon, whose clock stands still where something happens, and at some hours of each day."""

    def __init__(self, site: Site, make_daemon: MakeDaemon, persons: list[Person], begin: datetime) -> None:
        site.edit("config.yaml", (r"(?m)^destinations:", "destinations:\n  phones: {type: simulated_phone}"))
        site.edit("channels/main-campus.yaml", (r"(?m)^deliver:", "deliver:\n  - {to: phones, what: [text]}"))
        self.persons = persons
        self.stops: list[datetime] = []
        """Moments at which the daemon has decided."""
        hospital = cast(Any, SimpleNamespace(begin=begin))
        self.heard: dict[int, list[tuple[datetime, str, str, str]]] = {one.place: [] for one in persons}
        """When, from (`in`) or to (`out`) the phone, its number, the words."""
        self._known: dict[str, int] = {}
        self._phones = Phones(site.folder / "var/phones/phones.db")
        self._month = Month(site, make_daemon, hospital, timedelta(days=1))
        self._number = 0

    def run(self) -> None:
        begin = self._month.at
        days = [begin.astimezone(HOSPITAL).date() + timedelta(days=day) for day in range(DAYS)]
        hours = [
            datetime(day.year, day.month, day.day, int(hour), int(hour % 1 * 60), tzinfo=HOSPITAL)
            for day in days
            for hour in HOURS
        ]
        happened = sorted(one for person in self.persons for one in person.happened)
        moments = sorted({*(at for at in hours if at > begin), *(one.at for one in happened)}, key=datetime.timestamp)
        with self._month.daemon.connection() as sender:
            for at in moments:
                self._month.put(at)
                self._month._wait_for_the_clock()
                self._month.settle()
                self._listen(at)
                for one in happened:
                    if one.at == at:
                        self._happen(sender, one)
                self._month.settle()
                self._listen(at)
                self.stops.append(at)

    def close(self) -> None:
        self._month.close()

    def _listen(self, at: datetime) -> None:
        """What the phones have heard since is of this moment: clocks of the daemon's processes follow that of the site
        within a fifth of a second, and stamp what comes before with the moment before.
        """
        for person in self.persons:
            for number in person.numbers:
                said = self._phones.transcript(number, at + timedelta(days=400))
                known = self._known.get(number, 0)
                self.heard[person.place] += [(at, one.direction, number, one.text) for one in said[known:]]
                self._known[number] = len(said)

    def texts(self, person: Person) -> list[dict[str, Any]]:
        reveal = ("--reveal", "--reason", "journeys")
        return self._month.site.json("texts", "list", "--patient", person.key, *reveal)  # type: ignore[no-any-return]

    # --- what happens

    def _happen(self, sender: Any, one: Happening) -> None:
        person = self.persons[one.who]
        if one.kind == "write":
            number = self._current(person, one.at)
            self._month.site.run("phone", "reply", number, one.what)
            self._wait_for_word(number)
        elif one.kind in {"give", "revoke"}:
            self._consent(person, one)
        else:
            for message in self._messages(person, one):
                self._month._send(sender, [cast(Any, SimpleNamespace(payload=message))])

    def _wait_for_word(self, number: str) -> None:
        """The network tells us what was written; then it is in the journal."""
        self._number += 1
        while True:
            found = self._month.site.json("messages", "list", "--kind", "reply", "--limit", "100000")
            if sum(one["type"] == "text-received" for one in found) >= self._number:
                return

    @staticmethod
    def _current(person: Person, at: datetime) -> str:
        changed = [one.what for one in person.happened if one.kind == "number" and one.at <= at]
        return str(changed[-1]) if changed else person.numbers[0]

    def _consent(self, person: Person, one: Happening) -> None:
        with self._month.store.reader() as conn:
            found = self._month.store.charts.by_key(conn, person.key)
        if not found:  # before they are known: they are admitted first
            with self._month.daemon.connection() as sender:
                self._month._send(sender, [cast(Any, SimpleNamespace(payload=self._adt(person, "A01", one.at)))])
            self._month.settle()
            with self._month.store.reader() as conn:
                found = self._month.store.charts.by_key(conn, person.key)
        kind = ContactConsentGiven if one.kind == "give" else ContactConsentRevoked
        act = kind(
            actor="anna", chart_id=found[0].id, purpose="care", channel="sms", number=one.what, how="form",
        )  # fmt: skip
        store = self._month.store
        acts: list[Any] = [act]
        store.journal_ledger.write_now(lambda conn: put(store.journal, store.keys, conn, acts, self._month.at))

    def _messages(self, person: Person, one: Happening) -> list[bytes]:
        at = one.at
        match one.kind:
            case "discharge":
                return [
                    self._adt(person, "A01", at - timedelta(minutes=1)),
                    self._adt(person, "A03", at, **{"36": "01", "45": _hl7(at)}),
                ]
            case "cancel":
                return [self._adt(person, "A13", at)]
            case "readmit":
                return [self._adt(person, "A01", at, visit="B", **{"44": _hl7(at)})]
            case "death":
                return [self._adt(person, "A31", at, dead=True)]
            case "number":
                return [self._adt(person, "A31", at)]
        return [self._siu(person, {"book": "S12", "move": "S13", "call off": "S15"}[one.kind], at, one.what)]

    def _head(self, code: str, at: datetime) -> str:
        self._control = getattr(self, "_control", 0) + 1
        return f"MSH|^~\\&|EPIC|MAIN|HANDOFF|H|{_hl7(at)}||{code}|J{self._control}|P|2.5.1"

    def _adt(
        self, person: Person, trigger: str, at: datetime, *, visit: str = "A", dead: bool = False, **pv1: str
    ) -> bytes:
        city, state, code, _ = person.home
        number = self._current(person, at).removeprefix("+1")
        phone = f"^PRN^PH^^1^{number[:3]}^{number[3:]}"
        pid = ["PID", "1", "", f"{person.id}^^^MRN^MR", "", f"WALKER{person.place}^ANN", "", "19480312", "F", "", "",
               f"1 MAIN ST^^{city}^{state}^{code}", "", phone, *[""] * 16, "Y" if dead else ""]  # fmt: skip
        fields = {2: "I", 4: "E", 19: f"{visit}{person.id}^^^MRN", 44: _hl7(at - timedelta(days=3))}
        fields |= {int(name): value for name, value in pv1.items()}
        stay = "|".join(["PV1", "1", *(fields.get(field, "") for field in range(2, 46))])
        ill = [f"DG1|{n}||{one}^X^I10" for n, one in enumerate(ILL, 1)]
        lines = [self._head(f"ADT^{trigger}", at), f"EVN|{trigger}|{_hl7(at)}", "|".join(pid), "PD1||||77^WELBY^MARCUS"]
        return "\r".join([*lines, *([] if trigger == "A31" else [stay, *ill]), ""]).encode()

    def _siu(self, person: Person, trigger: str, at: datetime, start: datetime) -> bytes:
        booking = "|".join(["SCH", "1", f"V{person.id}", *[""] * 8, f"^^^{_hl7(start)}", *[""] * 14])
        pid = f"PID|1||{person.id}^^^MRN^MR||WALKER{person.place}^ANN||19480312|F"
        head = self._head(f"SIU^{trigger}^SIU_S12", at)
        resources = ("AIS|1|A|PCP^Primary care visit", "AIL|1|A|CLINIC^^^MAIN", "AIP|1|A|77^WELBY^MARCUS", "")
        return "\r".join([head, booking, pid, "RGS|1|A", *resources]).encode()


def _hl7(at: datetime) -> str:
    return at.astimezone(HOSPITAL).strftime("%Y%m%d%H%M%S%z")
