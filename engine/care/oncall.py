"""Who is on call: the one resolver of who it is when. Display and routing both ask here.

Shifts are on the clock on the wall of the roster's zone, so one that begins at seven does so on the days of both clock
changes; what the resolver gives are instants. Where a shift ends and the next begins at the same time on the wall, no
moment lies between them and none is in both, whatever the clocks do. A person who stands in (`Override`) is on call in
place of all whom the role's shifts name. The files that rosters are read from: `engine.care.rosters`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Final, NamedTuple
from typing import Protocol as Interface
from zoneinfo import ZoneInfo

from engine.domain.oncall import Override
from engine.domain.page import Policy, Target


class Contact(NamedTuple):
    """One way to reach a person. after: seconds after the level was called."""

    destination: str
    after: int
    address: str | None = None
    options: Mapping[str, str] = {}


class Called(NamedTuple):
    """Whom a target means at an instant. until: when that is somebody else; none: never."""

    people: tuple[str, ...]
    until: datetime | None
    stands_in: bool = False
    """By an override."""


class Duty(Interface):
    """Who is on call, and how they are reached."""

    def called(self, target: Target, at: datetime) -> Called: ...
    def contacts(self, person: str) -> tuple[Contact, ...]: ...


class Spell(NamedTuple):
    """A time in which the same people have a role. until: an instant, not included."""

    begins: datetime
    until: datetime
    people: tuple[str, ...]
    stands_in: bool = False
    """By an override."""


class Shift(NamedTuple):
    """A time of the day at which somebody is on call.

    weekdays: on which it begins, Monday is 0. until: not after `begins`: of the next day. turn: days of one turn of its
    people, counted from a day `starting` of the first.
    """

    weekdays: frozenset[int]
    begins: time
    until: time
    people: tuple[str, ...]
    turn: int
    starting: date


class _Turn(NamedTuple):
    """A shift of one day, and who has it. place: in the shift's rotation."""

    begins: datetime
    until: datetime
    shift: Shift
    place: int

    @property
    def person(self) -> str:
        return self.shift.people[self.place]


_SECOND: Final = timedelta(seconds=1)
AHEAD: Final = timedelta(days=62)
"""Who is on call `until` when is looked for so far ahead; nobody waits for a page as long."""


class Role:
    """A role of a roster on the line of time."""

    def __init__(self, shifts: Sequence[Shift], zone: ZoneInfo, *, in_part: bool = False) -> None:
        """in_part: it is not meant to be filled at all times."""
        self.zone = zone
        self.in_part = in_part
        self._shifts = tuple(shifts)
        self.people = tuple(dict.fromkeys(person for shift in shifts for person in shift.people))

    def turns(self, begin: datetime, end: datetime) -> list[_Turn]:
        """Those of which a moment lies between two instants."""
        day = begin.astimezone(self.zone).date() - timedelta(days=2)  # a shift may be a day long
        last = end.astimezone(self.zone).date() + timedelta(days=1)
        found: list[_Turn] = []
        while day <= last:
            for shift in self._shifts:
                if day.weekday() in shift.weekdays and shift.people:
                    begins, until = self._of_day(shift, day)
                    if begins < until and begins < end and until > begin:
                        place = (day - shift.starting).days // shift.turn % len(shift.people)
                        found.append(_Turn(begins, until, shift, place))
            day += timedelta(days=1)
        return found

    def _of_day(self, shift: Shift, day: date) -> tuple[datetime, datetime]:
        end_day = day if shift.until > shift.begins else day + timedelta(days=1)
        return self._at(day, shift.begins), self._at(end_day, shift.until)

    def _at(self, day: date, at: time) -> datetime:
        """A time on the wall as an instant. Of one that comes twice it is the first, of one that the clocks skip the
        moment at which they do: so the end of a shift and the beginning of the next are always one instant.
        """
        first = datetime.combine(day, at, self.zone)
        instant, other = first.astimezone(UTC), first.replace(fold=1).astimezone(UTC)
        if other >= instant:
            return instant
        offset = other.astimezone(self.zone).utcoffset()  # of before the clocks were changed
        early, late = other, instant
        while late - early > _SECOND:
            middle = early + (late - early) // 2
            if middle.astimezone(self.zone).utcoffset() == offset:
                early = middle
            else:
                late = middle
        return late.replace(microsecond=0)

    def spells(self, begin: datetime, end: datetime, overrides: Sequence[Override] = ()) -> Iterator[Spell]:
        """The line of time between two instants, without a hole: a spell of nobody is a gap.

        overrides: of this role, the one made last counts.
        """
        turns = self.turns(begin, end)
        here = [one for one in overrides if one.begins < end and one.ends > begin]
        changes = {*(at for turn in turns for at in (turn.begins, turn.until)),
                   *(at for one in here for at in (one.begins, one.ends))}  # fmt: skip
        moments = {begin, end, *(at for at in changes if begin < at < end)}
        last: Spell | None = None
        for first, until in pairwise(sorted(moments)):
            standing = [one for one in here if one.begins <= first < one.ends]
            if standing:
                people: tuple[str, ...] = (max(standing, key=lambda one: one.number).person,)
            else:
                people = tuple(dict.fromkeys(turn.person for turn in turns if turn.begins <= first < turn.until))
            spell = Spell(first, until, people, bool(standing))
            if last is not None and (last.people, last.stands_in) == (spell.people, spell.stands_in):
                last = last._replace(until=until)
                continue
            if last is not None:
                yield last
            last = spell
        if last is not None:
            yield last

    def at(self, at: datetime, overrides: Sequence[Override] = ()) -> Called:
        """Who it is at an instant, and until when."""
        for ahead in (timedelta(days=2), AHEAD):
            spells = self.spells(at, at + ahead, overrides)
            spell = next(spells)
            if spell.until < at + ahead:
                after = next(spells)
                until = after.until if after.people == spell.people else spell.until  # who stands in for themselves
                return Called(spell.people, until, spell.stands_in)
        return Called(spell.people, None, spell.stands_in)

    def following(self, at: datetime, turns: int) -> tuple[str, ...]:
        """Those who come so many turns later in the rotations of the shifts of an instant; never who is on call."""
        found: dict[str, None] = {}
        now = [turn for turn in self.turns(at, at + timedelta(microseconds=1)) if turn.begins <= at < turn.until]
        for turn in now:
            people = turn.shift.people
            later = people[(turn.place + turns) % len(people)]
            if later not in {one.person for one in now}:
                found[later] = None
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Rosters:
    """All that the files say."""

    people: Mapping[str, tuple[str, tuple[Contact, ...]]] = field(default_factory=dict)
    """Id -> name and contacts."""
    roles: Mapping[str, Mapping[str, Role]] = field(default_factory=dict)
    """Roster -> role -> its line of time."""
    ladders: Mapping[str, Policy] = field(default_factory=dict)

    ends: frozenset[str] = frozenset()
    """Destinations that go on calling by themselves, and are told when nobody need be called any more."""
    left_out: frozenset[str] = frozenset()
    """Ladders of examples that don't fit the site: nobody is paged by them."""
    left_out_files: frozenset[str] = frozenset()
    """The files of these examples."""

    def with_overrides(self, overrides: Sequence[Override]) -> OnCall:
        return OnCall(self, overrides)


NO_ROSTERS: Final = Rosters()


class OnCall:
    """The resolver: rosters with the people who stand in."""

    def __init__(self, rosters: Rosters, overrides: Sequence[Override] = ()) -> None:
        self.rosters = rosters
        self._overrides: dict[tuple[str, str], list[Override]] = {}
        for one in overrides:
            self._overrides.setdefault((one.roster, one.role), []).append(one)

    def role(self, roster: str, role: str | None = None) -> tuple[str, Role] | None:
        """A role and its name; none named: the first. None: there is none."""
        roles = self.rosters.roles.get(roster, {})
        name = role if role is not None else next(iter(roles), "")
        return (name, roles[name]) if name in roles else None

    def who(self, roster: str, role: str, at: datetime) -> Called:
        """Who has a role at an instant, and until when. Raises KeyError."""
        return self.rosters.roles[roster][role].at(at, self._overrides.get((roster, role), ()))

    def spells(self, roster: str, role: str, begin: datetime, end: datetime) -> list[Spell]:
        """The line of time of a role. Raises KeyError."""
        return list(self.rosters.roles[roster][role].spells(begin, end, self._overrides.get((roster, role), ())))

    def called(self, target: Target, at: datetime) -> Called:
        if target.person is not None:
            return Called((target.person,), None)
        found = self.role(target.roster or "", target.role)
        if found is None:
            return Called((), None)
        name, role = found
        now = self.who(target.roster or "", name, at)
        if not target.next:
            return now
        return Called(tuple(one for one in role.following(at, target.next) if one not in now.people), now.until)

    def contacts(self, person: str) -> tuple[Contact, ...]:
        known = self.rosters.people.get(person)
        return known[1] if known is not None else ()

    def name(self, person: str) -> str:
        """As people know them."""
        known = self.rosters.people.get(person)
        return known[0] if known is not None else person

    def faults(self, begin: datetime, end: datetime) -> Iterator[Fault]:
        """Gaps, overlaps and unreachable people between two instants, roster by roster."""
        for roster, roles in self.rosters.roles.items():
            for name, role in roles.items():
                for spell in self.spells(roster, name, begin, end):
                    if not spell.people and not role.in_part:
                        yield Fault("gap", roster, name, spell.begins, spell.until, ())
                    if len(spell.people) > 1:
                        yield Fault("overlap", roster, name, spell.begins, spell.until, spell.people)
                    silent = tuple(person for person in spell.people if not self.contacts(person))
                    if silent:
                        yield Fault("unreachable", roster, name, spell.begins, spell.until, silent)


FAILING: Final = frozenset({"gap", "unreachable"})
"""Faults that leave nobody to be called; where several are on call, all are called."""


class Fault(NamedTuple):
    """A time at which a roster does not do what it is there for."""

    what: str
    """`gap`: nobody is on call; `overlap`: several are, and all are called; `unreachable`: without a contact."""
    roster: str
    role: str
    begins: datetime
    until: datetime
    people: tuple[str, ...]
