"""Which texts a journey warrants, worked out anew from what happened and what the phones heard. It shares nothing with
the engine but the words of the shipped series.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from journeys.walk import STOPS, Happening, Person

HOLD: Final = timedelta(minutes=30)
SLACK: Final = timedelta(minutes=31)
"""What has begun to be so a moment ago may still be waited with."""
SAYS: Final = {
    "Welcome home": "day-0",
    "Reply CONFIRM": "day-1",
    "TAKEN or NOT YET": "day-2",
    "is tomorrow": "day-before",
}
ASKED_FOR: Final = ("will not text you", "have been unsubscribed", "You will get texts", "have been resubscribed")
READ: Final = "Our staff will read"
STEPS: Final = ("day-0", "day-1", "day-2")
CLOSED: Final = {
    "sent", "no_consent", "opted_out", "quiet_hours", "cap_day", "cap_week", "hold", "reversed", "deceased", "too_late",
    "duplicate", "no_address", "superseded", "carrier_error",
}  # fmt: skip


class Heard(NamedTuple):
    at: datetime
    number: str
    words: str
    step: str
    """`""`: an answer to a reply."""


def heard(phones: list[tuple[datetime, str, str, str]]) -> list[Heard]:
    found = []
    for at, direction, number, words in phones:
        if direction == "out":
            step = next((step for said, step in SAYS.items() if said in words), "")
            found.append(Heard(at, number, words, step))
    return found


class Life:
    """What was so of a person at a moment."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self._happened = person.happened

    def _last(self, at: datetime, *kinds: str) -> Any:
        return next((one for one in reversed(self._happened) if one.at <= at and one.kind in kinds), None)

    def number(self, at: datetime) -> str:
        last = self._last(at, "number")
        return str(last.what) if last is not None else self.person.numbers[0]

    def allowed(self, at: datetime, number: str) -> bool:
        """They have agreed, and nothing has taken that back since."""
        state = False
        for one in self._happened:
            if one.at <= at and one.kind in {"give", "revoke"} and one.what == number:
                state = one.kind == "give"
            elif one.at <= at and self._is_stop(one, number):
                state = False
        return state

    def _is_stop(self, one: Happening, number: str) -> bool:
        return one.kind == "write" and one.what in STOPS and self.number(one.at) == number

    def stopped(self, at: datetime) -> bool:
        """Somebody, or they themselves, had said no more texts by then."""
        return any(
            one.at <= at and (one.kind == "revoke" or (one.kind == "write" and one.what in STOPS))
            for one in self._happened
        )

    def home(self, at: datetime) -> bool:
        """The discharge stands, and they live."""
        return self._last(at, "discharge") is not None and self._last(at, "cancel", "readmit", "death") is None

    def visit(self, at: datetime) -> datetime | None:
        last = self._last(at, "book", "move", "call off")
        return last.what if last is not None and last.kind != "call off" else None

    def discharged(self) -> datetime:
        return next(one.at for one in self._happened if one.kind == "discharge")

    def ever(self, kind: str) -> bool:
        return any(one.kind == kind for one in self._happened)


def by_day(at: datetime, zone: ZoneInfo) -> bool:
    """A clock that is put to the hour may show a thousandth of a second less."""
    return time(9) <= at.astimezone(zone).time() <= time(20)


class Judge:
    """One person's journey. stops: the moments at which the daemon's clock stood still."""

    def __init__(
        self,
        person: Person,
        phones: list[tuple[datetime, str, str, str]],
        texts: list[dict[str, Any]],
        stops: list[datetime],
    ) -> None:
        self._life = Life(person)
        self._zone = person.zone
        self._heard = heard(phones)
        self._texts = [one for one in texts if one["series"] != "answers"]
        self._stops = stops

    def faults(self) -> Iterator[str]:
        for one in self._heard:
            yield from self._of_one(one)
        yield from self._of_stops()
        yield from self._missing()
        yield from self._unexplained()

    # --- what went

    def _series(self) -> list[Heard]:
        return [one for one in self._heard if one.step]

    def _of_one(self, one: Heard) -> Iterator[str]:
        life, zone = self._life, self._zone
        if not one.step:
            if not any(said in one.words for said in (*ASKED_FOR, READ)):
                yield f"a text of no series: {one.words[:40]}"
            return
        name = f"{one.step} at {one.at.astimezone(zone):%d %H:%M}"
        if not by_day(one.at, zone):
            yield f"{name}: at night"
        if not life.home(one.at):
            yield f"{name}: the discharge does not stand, or they have died"
        if one.number != life.number(one.at):
            yield f"{name}: to a number that is not theirs any more"
        if not life.allowed(one.at, one.number):
            yield f"{name}: went without consent"
        if one.at < life.discharged() + HOLD:
            yield f"{name}: before the hold was over"
        visit = life.visit(one.at)
        if one.step == "day-before" and (visit is None or _day(visit, zone) != _day(one.at, zone) + timedelta(days=1)):
            yield f"{name}: the visit is not tomorrow"
        if one.step in {"day-1", "day-before"} and (
            visit is None or f"{visit.astimezone(zone):%-I:%M}" not in one.words
        ):
            yield f"{name}: of a visit that is not booked"
        same_day = [other for other in self._series() if _day(other.at, zone) == _day(one.at, zone)]
        if len({(other.step, other.words) for other in same_day} | {(one.step, one.words)}) > 1:
            yield f"{name}: {len(same_day)} texts that day"
        if sum(other.step == one.step and other.words == one.words for other in self._series()) > 1:
            yield f"{name}: twice"

    def _of_stops(self) -> Iterator[str]:
        """After a stop one confirmation, and nothing until they agree again."""
        life = self._life
        for said in life.person.happened:
            if said.kind != "write" or said.what not in STOPS:
                continue
            number = life.number(said.at)
            until = min(
                (
                    one.at
                    for one in life.person.happened
                    if one.at > said.at and one.kind == "give" and one.what == number
                ),
                default=datetime.max.replace(tzinfo=said.at.tzinfo),
            )
            after = [one for one in self._heard if one.number == number and said.at <= one.at < until]
            stops = [one for one in life.person.happened if said.at <= one.at < until and life._is_stop(one, number)]
            confirmed = [one for one in after if any(words in one.words for words in ASKED_FOR[:2])]
            if len(after) > len(confirmed):
                yield f"more than its confirmation came after a stop: {[one.words[:30] for one in after]}"
            own = [one for one in confirmed if ASKED_FOR[0] in one.words]
            if len(own) > 1 or len(confirmed) > len(stops):
                yield "a stop was confirmed twice"

    # --- what should have gone

    def _windows(self) -> Iterator[tuple[str, datetime, datetime]]:
        """Step, from when on and until when it is of use."""
        home, zone = self._life.discharged(), self._zone
        yield "day-0", home + HOLD, home + HOLD + timedelta(minutes=510)
        for step, days in (("day-1", 1), ("day-2", 2)):
            begin = max(_at(_day(home, zone) + timedelta(days=days), 10, zone), home + HOLD)
            yield step, begin, begin + timedelta(hours=10)
        for visit in {one.what for one in self._life.person.happened if one.kind in {"book", "move"}}:
            day = _day(visit, zone) - timedelta(days=1)
            begin = max(_at(day, 10, zone), home + HOLD)
            yield "day-before", begin, min(begin + timedelta(hours=10), visit, _at(_day(begin, zone), 24, zone))

    def _missing(self) -> Iterator[str]:
        sent = {one.step for one in self._series()}
        for step, begin, end in self._windows():
            if step in sent and step != "day-before":
                continue
            for at in self._stops:
                if begin <= at < end and self._may_go(step, at) and self._may_go(step, at - SLACK):
                    day = [one for one in self._series() if _day(one.at, self._zone) == _day(at, self._zone)]
                    if not day:
                        yield f"{step} did not go at {at.astimezone(self._zone):%d %H:%M}, and nothing stood against it"
                    break

    def _may_go(self, step: str, at: datetime) -> bool:
        life, zone = self._life, self._zone
        if not (life.home(at) and life.allowed(at, life.number(at)) and by_day(at, zone)):
            return False
        visit = life.visit(at)
        if step == "day-1":
            return visit is not None and visit > at
        return step != "day-before" or (visit is not None and _day(visit, zone) == _day(at, zone) + timedelta(days=1))

    # --- why the others did not

    def _unexplained(self) -> Iterator[str]:
        for step in STEPS:
            items = [one for one in self._texts if one["step"] == step]
            if len(items) != 1:
                yield f"{step} is there {len(items)} times"
        ends = {step: end for step, _, end in self._windows()}
        for one in self._texts:
            gone = one["state"] in {"sent", "delivered", "replied", "expired"}
            if one["reason"] not in CLOSED:
                yield f"{one['step']}: its reason is {one['reason']}"
            elif not gone and one["reason"] not in self._true_of(ends[one["step"]]):
                yield f"{one['step']}: {one['reason']} is not why it did not go"
            if gone and one["step"] not in {said.step for said in self._series()}:
                yield f"{one['step']}: said to be {one['state']}, and no phone has heard it"

    def _true_of(self, end: datetime) -> set[str]:
        life = self._life
        found = {"too_late", "quiet_hours", "cap_day", "cap_week", "duplicate"}
        found |= {"deceased"} if life.ever("death") else set()
        found |= {"reversed"} if life.ever("cancel") or life.ever("call off") else set()
        found |= {"superseded"} if life.ever("readmit") or life.ever("move") else set()
        late = max(end, life.discharged() + timedelta(days=9))
        found |= {"opted_out"} if life.stopped(late) else set()
        since = [at for at in self._stops if at >= life.discharged()]
        always = all(any(life.allowed(at, number) for number in life.person.numbers) for at in since)
        return found if always and not life.ever("number") else found | {"no_consent"}


def _day(at: datetime, zone: ZoneInfo) -> date:
    return at.astimezone(zone).date()


def _at(day: date, hour: int, zone: ZoneInfo) -> datetime:
    if hour == 24:
        day, hour = day + timedelta(days=1), 0
    return datetime.combine(day, time(hour), zone)
