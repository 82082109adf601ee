"""Unusual access: what a treatment explains first, the rest by rules with points (`privacy/unusual.yaml`). Pure.

Encounters, appointments and teams explain more than 90 % of all accesses (PMC3555324); of what rules alone find, a
third is explained by simple reasons (PMC5977720). What is left is a question to somebody, and no finding.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import Field, field_validator

from engine.access.relations import relations
from engine.domain.actor import Actor, Purpose
from engine.domain.chart import Chart
from engine.domain.moment import Moment
from engine.domain.record import Phi
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate

_Text = Annotated[str, Field(min_length=1, max_length=200)]
_Points = Annotated[int, Field(ge=0, le=1000)]
_SAYS_NO: Final = frozenset({"", "N", "NO", "0", "F", "FALSE"})
PERSONAL: Final = frozenset({"self", "same_surname", "same_address", "colleague", "vip", "deceased", "browsing"})
"""Rules that say something of the patient: shown unmasked only."""


class Rule(StrictModel):
    """A rule that counts when it holds."""

    points: _Points
    """How much it counts."""


class DaysRule(Rule):
    """A rule about what was so many days ago."""

    days: Annotated[int, Field(ge=0, le=3660)]
    """Days."""


class HoursRule(Rule):
    """A rule about times of the day."""

    from_: Annotated[str, Field(alias="from", pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    """Begin, by the site's zone."""
    to: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    """End; may be of the next day."""


class ManyRule(Rule):
    """A rule about many patients in a short time."""

    patients: Annotated[int, Field(ge=2, le=100_000)]
    """So many different patients."""
    minutes: Annotated[int, Field(ge=1, le=10_080)]
    """Within so many minutes."""


class UsersRule(Rule):
    """A rule about many accounts at one patient."""

    users: Annotated[int, Field(ge=2, le=10_000)]
    """So many different accounts."""
    hours: Annotated[int, Field(ge=1, le=744)]
    """Within so many hours."""


class Rules(StrictModel):
    """Points of each rule; one that is left out counts nothing."""

    not_explained: Rule
    """Nothing explains the look."""
    self: Rule | None = None
    """It is the record of who looks."""
    same_surname: Rule | None = None
    """Patient and who looks have the same family name."""
    same_address: Rule | None = None
    """They live at the same address."""
    colleague: Rule | None = None
    """The patient works here."""
    vip: Rule | None = None
    """A stay is marked as that of a person whom many know (PV1-16)."""
    deceased: DaysRule | None = None
    """The patient had died some time before."""
    hours: HoursRule | None = None
    """At an unusual hour."""
    new_place: DaysRule | None = None
    """From a network address that the account has not come from in so many days."""
    volume: ManyRule | None = None
    """Many different patients in a short time."""
    browsing: ManyRule | None = None
    """Many patients of one family name in a short time."""
    many_users: UsersRule | None = None
    """Many accounts looked at the patient without a reason."""


class Person(StrictModel):
    """What is known of who has an account."""

    family: _Text | None = None
    """Family name."""
    line: _Text | None = None
    """Street and number where they live."""
    postal_code: _Text | None = None
    """Postal code."""
    record: _Text | None = None
    """Their own record as a patient: `AUTHORITY:ID`."""


class ExplainedBy(StrictModel):
    """What explains a look besides the chart's relations."""

    purposes: Annotated[tuple[Purpose, ...], Field(max_length=20)] = ()
    """Purposes of use."""
    attested_glass: bool = True
    """A broken glass that somebody has attested as right."""


class UnusualFile(StrictModel):
    """Which looks at patients a privacy officer should ask about."""

    version: _Text
    """Of the rules."""
    line: Annotated[int, Field(ge=1, le=10_000)]
    """Points from which on a person is told."""
    alert_days: Annotated[int, Field(ge=1, le=366)] = 7
    """So far back that is looked for."""
    explained_by: ExplainedBy = ExplainedBy()
    """What explains a look besides relations."""
    rules: Rules
    """What counts how much."""
    people: Annotated[dict[_Text, Person], Field(max_length=20_000)] = {}
    """Account -> what is known of who has it."""

    @field_validator("people")
    @classmethod
    def _keys(cls, people: dict[str, Person]) -> dict[str, Person]:
        for name, one in people.items():
            if one.record is not None and ":" not in one.record:
                raise ValueError(f"{name}: record is written AUTHORITY:ID, like MRN:558181838")
        return people


def load_unusual(document: Document) -> UnusualFile:
    """Raises SettingsError."""
    return validate(document, UnusualFile)


class Look(NamedTuple):
    """Somebody saw something of one patient. seq: the record of the trail. glass: what was said of it, if one.

    listed: one of several hits of a search, shown as a list: all of them together are one look where looks are counted.
    """

    seq: int
    at: datetime
    actor: str
    chart_id: str
    purpose: str | None = None
    address: str | None = None
    glass: Literal["open", "right", "wrong"] | None = None
    listed: bool = False


class Hit(Phi, frozen=True, kw_only=True):
    rule: str
    points: int
    evidence: str


class Question(Phi, frozen=True, kw_only=True):
    """Looks of one account at one patient that nothing explains, with the points of the rules that hold."""

    id: int
    """The number of the last record."""
    actor: str
    chart_id: str
    first: datetime
    last: datetime
    number: int
    points: int
    above: bool
    """At or above the line."""
    rules: tuple[Hit, ...]
    records: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    looks: int
    explained: Mapping[str, int]
    """Reason -> looks."""
    unexplained: tuple[Question, ...]
    """The one with the most points first."""


def judge(
    looks: Iterable[Look],
    charts: Mapping[str, Chart],
    actors: Mapping[str, Actor],
    rules: UnusualFile,
    zone: tzinfo,
    grace: timedelta = timedelta(days=7),
) -> Judged:
    """charts: by id; a look at one that is gone is not explained. actors: by name."""
    every = sorted(looks, key=lambda one: (one.at, one.seq))
    explained: Counter[str] = Counter()
    rest: list[Look] = []
    for look in every:
        reason = _explained(look, charts.get(look.chart_id), actors.get(look.actor), rules, grace)
        if reason is None:
            rest.append(look)
        else:
            explained[reason] += 1
    groups: dict[tuple[str, str], list[Look]] = {}
    for look in rest:
        groups.setdefault((look.actor, look.chart_id), []).append(look)
    seen = _Seen(every, rest, charts, rules, zone)
    found = [_question(group, seen) for group in groups.values()]
    found.sort(key=lambda one: (-one.points, -one.id))
    return Judged(looks=len(every), explained=dict(sorted(explained.items())), unexplained=tuple(found))


def _explained(
    look: Look, chart: Chart | None, actor: Actor | None, rules: UnusualFile, grace: timedelta
) -> str | None:
    if chart is not None:
        who = actor if actor is not None else Actor(kind="user", name=look.actor)
        found = relations(chart, who, look.at, grace)
        if found:
            return min(found, key=list(type(min(found))).index).value
    if look.purpose in {one.value for one in rules.explained_by.purposes}:
        return "purpose"
    if look.glass == "right" and rules.explained_by.attested_glass:
        return "glass"
    return None


class _Seen:
    """What the rules look things up in."""

    def __init__(
        self,
        every: Sequence[Look],
        rest: Sequence[Look],
        charts: Mapping[str, Chart],
        rules: UnusualFile,
        zone: tzinfo,
    ) -> None:
        self.rules, self.charts, self.zone = rules, charts, zone
        self.by_actor: dict[str, list[Look]] = defaultdict(list)
        for one in every:
            self.by_actor[one.actor].append(one)
        self.by_patient: dict[str, list[Look]] = defaultdict(list)
        self.by_name: dict[tuple[str, str], list[Look]] = defaultdict(list)
        for one in rest:
            self.by_patient[one.chart_id].append(one)
            family = _family(charts.get(one.chart_id))
            if family:
                self.by_name[one.actor, family].append(one)
        self.records = {person.record: name for name, person in rules.people.items() if person.record}


def _question(group: Sequence[Look], seen: _Seen) -> Question:
    hits: dict[str, Hit] = {}
    for look in group:
        for name, rule, evidence in _hits(look, seen):
            hits.setdefault(name, Hit(rule=name, points=rule.points, evidence=evidence))
    points = sum(hit.points for hit in hits.values())
    last = group[-1]
    return Question(
        id=last.seq,
        actor=last.actor,
        chart_id=last.chart_id,
        first=group[0].at,
        last=last.at,
        number=len(group),
        points=points,
        above=points >= seen.rules.line,
        rules=tuple(sorted(hits.values(), key=lambda hit: -hit.points)),
        records=tuple(one.seq for one in group),
    )


def _hits(look: Look, seen: _Seen) -> Iterator[tuple[str, Rule, str]]:
    rules, chart = seen.rules.rules, seen.charts.get(look.chart_id)
    yield "not_explained", rules.not_explained, "no stay, task, page, appointment or team of the patient leads to them"
    if chart is not None:
        yield from _of_person(look, chart, seen)
        if rules.vip is not None and any((stay.vip or "").upper() not in _SAYS_NO for stay in chart.encounters):
            yield "vip", rules.vip, "a stay is marked in PV1-16"
        died = _instant(chart.patient.deceased_at) if chart.patient.deceased else None
        if rules.deceased is not None and died is not None and look.at - died > timedelta(days=rules.deceased.days):
            yield "deceased", rules.deceased, f"{(look.at - died).days:,} days after the patient's death"
    if (hours := rules.hours) is not None and _within(look.at.astimezone(seen.zone).time(), hours.from_, hours.to):
        yield "hours", hours, f"at {look.at.astimezone(seen.zone):%H:%M}"
    yield from _of_many(look, seen)


def _of_person(look: Look, chart: Chart, seen: _Seen) -> Iterator[tuple[str, Rule, str]]:
    rules, patient = seen.rules.rules, chart.patient
    person = seen.rules.people.get(look.actor)
    owners = {seen.records[one.key] for one in patient.identifiers if one.key in seen.records}
    if rules.self is not None and look.actor in owners:
        yield "self", rules.self, "the record is their own"
    elif rules.colleague is not None and owners:
        yield "colleague", rules.colleague, f"the patient has the account {min(owners)}"
    if person is None or look.actor in owners:
        return
    family = _family(chart)
    if rules.same_surname is not None and family and _plain(person.family) == family:
        yield "same_surname", rules.same_surname, "they have the same family name"
    home = patient.address
    if rules.same_address is not None and home is not None and home.line and person.line:
        street = _plain(person.line) == _plain(home.line)
        if street and (person.postal_code or "")[:5] == (home.postal_code or "")[:5]:
            yield "same_address", rules.same_address, "they live at the same address"


def _of_many(look: Look, seen: _Seen) -> Iterator[tuple[str, Rule, str]]:
    rules, theirs = seen.rules.rules, seen.by_actor[look.actor]
    if (place := rules.new_place) is not None and look.address is not None:
        before = [one for one in _between(theirs, look.at - timedelta(days=place.days), look.at) if one.address]
        if before and all(one.address != look.address for one in before):
            yield "new_place", place, "from an address that the account has not come from before"
    if (volume := rules.volume) is not None:
        number = _most(theirs, look, timedelta(minutes=volume.minutes), _chart)
        if number >= volume.patients:
            yield "volume", volume, f"{number:,} patients within {volume.minutes} minutes"
    family = _family(seen.charts.get(look.chart_id))
    if (browsing := rules.browsing) is not None and family:
        number = _most(seen.by_name[look.actor, family], look, timedelta(minutes=browsing.minutes), _chart)
        if number >= browsing.patients:
            yield "browsing", browsing, f"{number:,} patients of one family name within {browsing.minutes} minutes"
    if (users := rules.many_users) is not None:
        number = _most(seen.by_patient[look.chart_id], look, timedelta(hours=users.hours), _actor)
        if number >= users.users:
            yield "many_users", users, f"{number:,} accounts within {users.hours} hours, none with a reason"


def _chart(look: Look) -> str | int:
    return look.seq if look.listed else look.chart_id


def _actor(look: Look) -> str | int:
    return look.actor


_WINDOW_LOOKS_MAX: Final = 500
"""Looks of a window that are counted: more are many in any case."""


def _most(looks: Sequence[Look], at: Look, span: timedelta, of: Callable[[Look], str | int]) -> int:
    """Most different ones in any window of that length that holds the look."""
    near = _between(looks, at.at - span, at.at + span, last=True)[:_WINDOW_LOOKS_MAX]
    best = 0
    for index, first in enumerate(near):
        if first.at > at.at:
            break
        if first.at + span >= at.at:
            best = max(best, len({of(one) for one in near[index:] if one.at <= first.at + span}))
    return best


def _between(looks: Sequence[Look], begin: datetime, end: datetime, *, last: bool = False) -> Sequence[Look]:
    """last: with those at the end."""
    first = bisect_left(looks, begin, key=_at)
    until = bisect_left(looks, end + timedelta(microseconds=1) if last else end, key=_at)
    return looks[first:until]


def _at(look: Look) -> datetime:
    return look.at


def _within(at: time, begin: str, end: str) -> bool:
    first, last = time.fromisoformat(begin), time.fromisoformat(end)
    return first <= at < last if first <= last else at >= first or at < last


def _family(chart: Chart | None) -> str:
    name = getattr(chart.patient, "name", None) if chart is not None else None
    return _plain(name.family) if name is not None else ""


def _plain(text: str | None) -> str:
    """Letters and digits alone: `12 Elm St.` and `12 ELM ST` are one."""
    return re.sub(r"[\W_]+", "", (text or "").casefold())


def _instant(moment: Moment | None) -> datetime | None:
    """The last instant that it can mean; of a day its end in UTC."""
    if moment is None:
        return None
    if moment.timed:
        return moment.at
    days = moment.days
    return None if days is None else datetime.fromisoformat(f"{days[1].isoformat()}T00:00:00+00:00")
