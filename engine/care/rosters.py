"""People, rosters and ladders as files: `mappings/oncall/`, compiled. What would end in silence is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date, time
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

import msgspec
from pydantic import Field, field_validator, model_validator

from engine.care.oncall import Contact, Role, Rosters, Shift
from engine.domain.page import Exhausted, Level, Policy, Target
from engine.errors import Problem
from engine.settings import Identifier
from engine.settings.values import _check_zone
from engine.yamlfile import Document, Path, did_you_mean
from engine.yamlmodel import StrictModel

# --- the documents ---------------------------------------------------------------------------------------------------

_WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_Text = Annotated[str, Field(min_length=1, max_length=500)]
_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
_Kind = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_Clock = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]

STEPS_MAX: Final = 500
"""Notifications that one page may come to, whatever the ladder: it is a part of a chart."""


class ContactSpec(StrictModel):
    """One way to reach a person."""

    to: Identifier
    """Destination of config.yaml that takes notifications."""
    address: _Text | None = None
    """Number, address or routing key there; none: the destination knows."""
    options: Annotated[dict[_Name, _Text], Field(max_length=20)] = {}
    """What else the destination is told for this person."""
    after_minutes: Annotated[int, Field(ge=0, le=1440)] = 0
    """Minutes after the contact before it; tried unless the page is acknowledged by then."""


class PersonSpec(StrictModel):
    """Somebody who can be called."""

    name: _Text
    """The name as people know it."""
    contacts: Annotated[tuple[ContactSpec, ...], Field(max_length=10)] = ()
    """How they are reached, the first at once."""


class ShiftSpec(StrictModel):
    """A time of the day at which somebody is on call."""

    days: tuple[_Weekday, ...] = _WEEKDAYS
    """Days of the week on which it begins."""
    from_: Annotated[_Clock, Field(alias="from")] = "00:00"
    """Beginning, on the clock on the wall."""
    until: _Clock = "00:00"
    """End; not after the beginning: of the next day."""
    people: Annotated[tuple[_Name, ...], Field(max_length=100)] = ()
    """Who has it; several take turns in this order."""
    turn: Annotated[int, Field(ge=1, le=366)] = 7
    """Days of one turn, where several take turns."""
    starting: date = date(2026, 1, 5)
    """A day on which the first of them begins a turn."""


class RoleSpec(StrictModel):
    """Somebody to be called: the first in line, the second."""

    shifts: Annotated[tuple[ShiftSpec, ...], Field(max_length=50)] = ()
    """All shifts together."""
    in_part: bool = False
    """It is not meant to be filled at all times; gaps are no fault then."""


class RosterSpec(StrictModel):
    """Who is on call when."""

    timezone: _Text | None = None
    """IANA zone of its shifts; none: the site's (`calendar.timezone`)."""
    roles: Annotated[dict[_Name, RoleSpec], Field(max_length=20)] = {}
    """Role -> its shifts. The first is who is called first."""

    @field_validator("timezone")
    @classmethod
    def _zone(cls, name: str | None) -> str | None:
        return None if name is None else _check_zone(name)


class TargetSpec(StrictModel):
    """Whom a level calls: who has a role of a roster, who comes after them in its rotation, or a person."""

    roster: _Name | None = None
    """Roster that is asked who is on call."""
    role: _Name | None = None
    """Role of it; none: its first."""
    next: Annotated[int, Field(ge=1, le=20)] | None = None
    """Not who is on call but who has the turn so many turns later: 1 is the next in the rotation."""
    person: _Name | None = None
    """One person, on call or not."""

    @model_validator(mode="after")
    def _one_way(self) -> TargetSpec:
        if (self.roster is None) == (self.person is None):
            raise ValueError("needs either a roster or a person")
        if self.person is not None and (self.role is not None or self.next is not None):
            raise ValueError("names a person, who has neither role nor turn here: take role and next away")
        return self


class LevelSpec(StrictModel):
    """One step of a ladder."""

    notify: Annotated[tuple[TargetSpec, ...], Field(min_length=1, max_length=10)]
    """Who is called, all at once."""
    minutes: Annotated[int, Field(ge=1, le=1440)]
    """Minutes they have to acknowledge before the next level is called."""


class ExhaustedSpec(StrictModel):
    """What happens when nobody has acknowledged after the last loop."""

    notify: Annotated[tuple[TargetSpec, ...], Field(min_length=1, max_length=10)]
    """Who is told then: the house supervisor."""
    assignee: _Name = "house_supervisor"
    """Role that gets the task that is opened then."""
    kind: _Kind = "safety_event"
    """Kind of that task."""
    reason: _Text = Exhausted().reason
    """What has to be done, as the assignee reads it."""
    minutes: Annotated[int, Field(ge=0, le=10_080)] = 15
    """Minutes until it is due."""


class LadderSpec(StrictModel):
    """Who is called one after the other, until somebody acknowledges."""

    text: _Text
    """What a notification says; nothing of a patient: it goes over pagers and phones."""
    levels: Annotated[tuple[LevelSpec, ...], Field(max_length=20)] = ()
    """The first is called at once."""
    loops: Annotated[int, Field(ge=1, le=20)] = 1
    """So often all levels are called, before it is exhausted."""
    acknowledged_minutes: Annotated[int, Field(ge=1, le=10_080)] | None = 30
    """Minutes after an acknowledgment within which something must be done about the task, or it is raised again; none:
    an acknowledgment is enough. It does not matter where the acknowledgment itself is the task."""
    closes: tuple[_Kind, ...] = ("on_call_page",)
    """Kinds of task that are done when the page is acknowledged; any other is then taken by who acknowledges."""
    acknowledge: Literal["anyone", "ladder"] = "anyone"
    """ladder: only those whom it calls may acknowledge; anyone: others may, and it is shown that they are not on
    call."""
    exhausted: ExhaustedSpec | None = None
    """The end of it."""


class OnCallSpec(StrictModel):
    """People, rosters and ladders: who is called, when, and who next. Files of the folder are one whole."""

    example: bool = False
    """It is an example, and not the site's own yet: where its destinations are not there, it is left out."""
    people: Annotated[dict[_Name, PersonSpec], Field(max_length=1000)] = {}
    """Those who can be called."""
    rosters: Annotated[dict[_Name, RosterSpec], Field(max_length=100)] = {}
    """Who is on call when."""
    ladders: Annotated[dict[_Name, LadderSpec], Field(max_length=100)] = {}
    """Who is called one after the other."""


# --- from documents to rosters ---------------------------------------------------------------------------------------


def load_oncall(
    read: Sequence[tuple[Document, OnCallSpec]],
    *,
    takers: Collection[str],
    ends: Collection[str],
    destinations: Collection[str],
    zone: str,
    problems: list[Problem],
) -> Rosters:
    """All files as one whole; what is wrong in them goes into `problems`.

    takers: destinations that take notifications; ends: those that want to know when they end; destinations: all there
    are. zone: the site's.
    """
    files = [(document, spec) for document, spec in read if not _is_left_out(spec, destinations)]
    examples = [(document, spec) for document, spec in read if _is_left_out(spec, destinations)]
    left_out = frozenset(name for _, spec in examples for name in spec.ladders)
    people: dict[str, tuple[str, tuple[Contact, ...]]] = {}
    roles: dict[str, dict[str, Role]] = {}
    for document, spec in files:
        for name, person in spec.people.items():
            at: Path = ("people", name)
            if name in people:
                problems.append(document.problem(at, "another file of this folder has a person of this name"))
            if not person.contacts:
                remedy = "nobody could reach them: add contacts: [{to: DESTINATION, address: NUMBER}]"
                problems.append(document.problem(at, f"has no contact, so {remedy}"))
            problems += _contact_problems(document, at, person, takers, destinations)
            people[name] = (person.name, _contacts(person))
        for name, roster in spec.rosters.items():
            if name in roles:
                problems.append(document.problem(("rosters", name), "another file of this folder has this roster"))
            own = ZoneInfo(roster.timezone or zone)
            roles[name] = {role: _role(one, own) for role, one in roster.roles.items()}
    delays = {name: sum(contact.after_minutes for contact in person.contacts)
              for _, spec in files for name, person in spec.people.items()}  # fmt: skip
    ladders: dict[str, Policy] = {}
    for document, spec in files:
        problems += _roster_problems(document, spec, people)
        for name, ladder in spec.ladders.items():
            if name in ladders:
                problems.append(document.problem(("ladders", name), "another file of this folder has this ladder"))
            problems += _ladder_problems(document, ("ladders", name), ladder, roles, people, delays)
            ladders[name] = _policy(name, ladder)
    left_out_files = frozenset(document.file for document, _ in examples)
    return Rosters(people, roles, ladders, frozenset(ends), left_out, left_out_files)


def _is_left_out(spec: OnCallSpec, destinations: Collection[str]) -> bool:
    named = {contact.to for person in spec.people.values() for contact in person.contacts}
    return spec.example and not named <= set(destinations)


def _role(spec: RoleSpec, zone: ZoneInfo) -> Role:
    shifts = [
        Shift(
            weekdays=frozenset(map(_WEEKDAYS.index, shift.days)),
            begins=time.fromisoformat(shift.from_),
            until=time.fromisoformat(shift.until),
            people=shift.people,
            turn=shift.turn,
            starting=shift.starting,
        )
        for shift in spec.shifts
    ]
    return Role(shifts, zone, in_part=spec.in_part)


def _contacts(person: PersonSpec) -> tuple[Contact, ...]:
    found: list[Contact] = []
    after = 0
    for contact in person.contacts:
        after += contact.after_minutes * 60
        found.append(Contact(contact.to, after, contact.address, dict(contact.options)))
    return tuple(found)


def _contact_problems(
    document: Document, at: Path, person: PersonSpec, takers: Collection[str], destinations: Collection[str]
) -> Iterator[Problem]:
    for index, contact in enumerate(person.contacts):
        place = (*at, "contacts", index, "to")
        if contact.to not in destinations:
            known = did_you_mean(contact.to, destinations) or f"; there are {', '.join(sorted(destinations)) or 'none'}"
            yield document.problem(place, f"no destination of this name in config.yaml{known}")
        elif contact.to not in takers:
            could = ", ".join(sorted(takers)) or "none does"
            yield document.problem(place, f"a destination of its type takes no notifications (these do: {could})")


def _roster_problems(document: Document, spec: OnCallSpec, people: Collection[str]) -> Iterator[Problem]:
    for name, roster in spec.rosters.items():
        at: Path = ("rosters", name)
        if not any(shift.people for role in roster.roles.values() for shift in role.shifts):
            remedy = "add roles: {primary: {shifts: [{people: [NAME]}]}}"
            yield document.problem(at, f"names nobody, so who is paged by it is nobody: {remedy}")
            continue
        for role, one in roster.roles.items():
            for index, shift in enumerate(one.shifts):
                place = (*at, "roles", role, "shifts", index)
                if not shift.people:
                    yield document.problem(place, "names nobody: add people: [NAME], or take the shift away")
                if not shift.days:
                    yield document.problem((*place, "days"), "names no day: add some, or take the shift away")
                for number, person in enumerate(shift.people):
                    if person not in people:
                        yield document.problem((*place, "people", number), _no_person(person, people))
            if not one.shifts:
                yield document.problem((*at, "roles", role), "has no shift, so nobody ever has it: add one")


def _no_person(name: str, people: Collection[str]) -> str:
    return f"there is no such person{did_you_mean(name, people)}: add them to `people`, with a contact"


def _ladder_problems(
    document: Document,
    at: Path,
    ladder: LadderSpec,
    roles: Mapping[str, Mapping[str, Role]],
    people: Mapping[str, tuple[str, tuple[Contact, ...]]],
    delays: Mapping[str, int],
) -> Iterator[Problem]:
    if ladder.exhausted is None:
        remedy = "add exhausted: {notify: [{person: NAME}]}, the house supervisor as a rule"
        yield document.problem(at, f"has no end: when nobody acknowledges, nobody is told. {remedy}")
    if not ladder.levels:
        yield document.problem(at, "has no level, so nobody is called: add levels: [{notify: [...], minutes: 5}]")
    most = 0
    ends = ladder.exhausted.notify if ladder.exhausted is not None else ()
    for place, targets in (
        *(((*at, "levels", index, "notify"), level.notify) for index, level in enumerate(ladder.levels)),
        ((*at, "exhausted", "notify"), ends),
    ):
        for number, target in enumerate(targets):
            yield from _target_problems(document, (*place, number), target, roles, people)
    for index, level in enumerate(ladder.levels):
        called = {person for target in level.notify for person in _possible(target, roles)}
        most += sum(len(people[person][1]) for person in called if person in people)
        for person in sorted(called):
            if delays.get(person, 0) >= level.minutes:
                text = f"is over before all contacts of {person} were tried, the last after {delays[person]} minutes"
                yield document.problem(
                    (*at, "levels", index, "minutes"), f"{text}: give it {delays[person] + 1} or more"
                )
    if most * ladder.loops > STEPS_MAX:
        text = f"may come to {most * ladder.loops} notifications of one page; at most {STEPS_MAX} are sent"
        yield document.problem((*at, "loops"), f"{text}: fewer loops, levels or contacts")


def _target_problems(
    document: Document,
    at: Path,
    target: TargetSpec,
    roles: Mapping[str, Mapping[str, Role]],
    people: Collection[str],
) -> Iterator[Problem]:
    if target.person is not None:
        if target.person not in people:
            yield document.problem((*at, "person"), _no_person(target.person, people))
        return
    known = roles.get(target.roster or "")
    if known is None:
        text = f"there is no such roster{did_you_mean(target.roster or '', roles)}; there are {', '.join(roles)}"
        yield document.problem((*at, "roster"), text if roles else "there is no such roster: add it to `rosters`")
    elif target.role is not None and target.role not in known:
        text = f"the roster has no such role{did_you_mean(target.role, known)}; it has {', '.join(known)}"
        yield document.problem((*at, "role"), text)


def _possible(target: TargetSpec, roles: Mapping[str, Mapping[str, Role]]) -> tuple[str, ...]:
    """All whom it may ever mean, overrides apart."""
    if target.person is not None:
        return (target.person,)
    known = roles.get(target.roster or "", {})
    role = known.get(target.role) if target.role is not None else next(iter(known.values()), None)
    return role.people if role is not None else ()


def _policy(name: str, ladder: LadderSpec) -> Policy:
    exhausted = ladder.exhausted
    policy = Policy(
        ladder=name,
        version="",
        text=ladder.text,
        levels=tuple(Level(targets=_targets(level.notify), seconds=level.minutes * 60) for level in ladder.levels),
        loops=ladder.loops,
        acknowledged_seconds=None if ladder.acknowledged_minutes is None else ladder.acknowledged_minutes * 60,
        closes=ladder.closes,
        on_ladder_only=ladder.acknowledge == "ladder",
        exhausted=Exhausted()
        if exhausted is None
        else Exhausted(
            targets=_targets(exhausted.notify),
            assignee=exhausted.assignee,
            kind=exhausted.kind,
            reason=exhausted.reason,
            due_seconds=exhausted.minutes * 60,
        ),
    )
    digest = hashlib.sha256(msgspec.json.encode(policy)).hexdigest()
    return msgspec.structs.replace(policy, version=digest[:_VERSION_DIGITS])


_VERSION_DIGITS: Final = 12


def _targets(specs: Sequence[TargetSpec]) -> tuple[Target, ...]:
    return tuple(Target(roster=spec.roster, role=spec.role, next=spec.next or 0, person=spec.person) for spec in specs)
