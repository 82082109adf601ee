"""`mappings/access/roles.yaml`, compiled: what each role may do and see, what narrows it, and what breaks the glass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator

from engine.access.actions import CATALOGUE, GRANTED, Action
from engine.access.fields import Group
from engine.access.relations import Relation
from engine.domain.actor import Purpose
from engine.domain.consent import ConsentKind
from engine.errors import Problem, SettingsError
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate

_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_Text = Annotated[str, Field(min_length=1, max_length=500)]
_Code = Annotated[str, Field(min_length=1, max_length=100)]
_Codes = Annotated[tuple[_Code, ...], Field(max_length=200)]
_Verb = Annotated[str, Field(pattern=r"^[a-z]+(\.[a-z]+|\.\*)?$")]


class RoleSpec(StrictModel):
    """What somebody of a role may do, for which patients, and what they see of them."""

    says: _Text
    """What the role is, in words."""
    may: Annotated[tuple[_Verb, ...], Field(max_length=100)]
    """Actions; `task.*` is all of an area. `handoff users actions` lists them."""
    sees: Annotated[tuple[Group, ...], Field(max_length=20)] = ()
    """Groups of fields that it sees of a patient."""
    patients: Literal["any", "none"] | tuple[Relation, ...] = "none"
    """Whose patients: `any`, `none`, or those with one of these relations to who has the role."""
    purposes: Annotated[tuple[Purpose, ...], Field(min_length=1)] = (Purpose.TREAT,)
    """What it may look at patients for. The first is what is assumed."""


class ConsentMark(StrictModel):
    """A statement of consent (segment CON)."""

    type: _Codes = ()
    """CON-2; none: any."""
    status: Annotated[tuple[_Code, ...], Field(min_length=1, max_length=20)]
    """CON-11, HL7 table 0498."""


class Marks(StrictModel):
    """What of a record says that it is restricted: any of these."""

    protection: bool = False
    """The protection indicator (PD1-12) says yes."""
    vip: _Codes = ()
    """Codes of PV1-16 of a stay; `*`: any that does not say no."""
    access: _Codes = ()
    """Codes of ARV-3, HL7 table 0717."""
    consent: Annotated[tuple[ConsentMark, ...], Field(max_length=50)] = ()
    """Statements of consent."""
    units: _Codes = ()
    """Points of care (PV1-3.1) of a stay."""
    facilities: _Codes = ()
    """Facilities of a stay: where it is (PV1-3.4), or who sends it (MSH-4)."""
    services: _Codes = ()
    """Hospital services (PV1-10) of a stay."""


class RestrictionSpec(StrictModel):
    """A mark that narrows who sees a record, whatever their role."""

    says: _Text
    """What it is, in words."""
    when: Marks
    """What says so."""
    covers: Literal["patient", "stay"] = "patient"
    """What is restricted: the patient, or each stay that is marked, with all that hangs on it."""
    relations: tuple[Relation, ...] = ()
    """Who sees it all the same: who has one of these relations. Of a stay: to that stay."""
    roles: Annotated[tuple[_Name, ...], Field(max_length=100)] = ()
    """...and who has one of these roles."""
    hides: Literal["all"] | tuple[Group, ...] = "all"
    """What others do not see: all of it, or groups of fields."""
    glass: bool = True
    """Breaking the glass opens it."""
    kind: Literal["restricted", "part2"] = "restricted"
    """Which of a destination's settings says what it gets of it: `restricted`, or `part2` (42 CFR Part 2)."""
    notice: Annotated[str, Field(max_length=2000)] = ""
    """What a copy that goes out has to say; empty: nothing."""
    confidentiality: Literal["V", "ETH", "HIV", "AID", "PSY", "R", "VIP", "UWM", "EMP", "U"] | None = None
    """What a copy that goes out is marked with, HL7 table 0177."""
    fill_in: _Text | None = None
    """What the site still has to put into `when`, in words: `handoff check` tells, until a mark is named or this is
    taken out because there is none."""


class ConsentSpec(StrictModel):
    """Which statements of consent (segment CON) say it. Also said by `handoff consents`."""

    when: Annotated[tuple[ConsentMark, ...], Field(max_length=50)] = ()
    """Any of these."""
    fill_in: _Text | None = None
    """What the site still has to put into `when`, in words; taken out where senders have no such statements."""

    @field_validator("when")
    @classmethod
    def _typed(cls, marks: tuple[ConsentMark, ...]) -> tuple[ConsentMark, ...]:
        if any(not mark.type for mark in marks):
            raise ValueError("name the `type` (CON-2): a statement of any type would be taken for it")
        return marks


class OnCallSpec(StrictModel):
    """What somebody whom a page has called may do about that patient, whatever their role and what is restricted."""

    may: Annotated[tuple[_Verb, ...], Field(max_length=100)]
    """Actions."""
    sees: Annotated[tuple[Group, ...], Field(max_length=20)]
    """Groups of fields."""


class GlassSpec(StrictModel):
    """Breaking the glass: one patient, some time, to look only."""

    reasons: Annotated[dict[_Name, _Text], Field(min_length=1, max_length=50)]
    """Code -> what it means; one of them has to be given."""
    hours: Annotated[float, Field(gt=0, le=24)] = 2.0
    """How long it holds."""
    may: Annotated[tuple[_Verb, ...], Field(max_length=100)]
    """Actions; none that changes anything."""
    sees: Annotated[tuple[Group, ...], Field(max_length=20)] | None = None
    """Groups of fields; none: those of the role."""
    tell: Annotated[tuple[_Name, ...], Field(min_length=1, max_length=20)] = ("privacy_officer",)
    """Roles that are told at once."""


class RolesFile(StrictModel):
    """Who may see what: roles, restrictions, who is on call, and breaking the glass."""

    roles: Annotated[dict[_Name, RoleSpec], Field(min_length=1, max_length=100)]
    """The roles."""
    restrictions: Annotated[dict[_Name, RestrictionSpec], Field(max_length=50)] = {}
    """What narrows them."""
    consents: dict[ConsentKind, ConsentSpec] = {}
    """What patients say to copies that leave."""
    on_call: OnCallSpec | None = None
    """What a page allows; none: nothing more than the role does."""
    break_glass: GlassSpec | None = None
    """None: nobody can break the glass."""

    @field_validator("break_glass")
    @classmethod
    def _only_looks(cls, glass: GlassSpec | None) -> GlassSpec | None:
        if glass is not None:
            writing = sorted(action for action in expand(glass.may) if CATALOGUE[action].writes)
            if writing:
                raise ValueError(f"allows {', '.join(writing)}: with a broken glass one looks and changes nothing")
        return glass


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    name: str
    says: str
    may: frozenset[Action]
    sees: frozenset[Group]
    patients: Literal["any", "none"] | frozenset[Relation]
    purposes: tuple[Purpose, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restriction:
    name: str
    says: str
    when: Marks
    covers: Literal["patient", "stay"]
    relations: frozenset[Relation]
    roles: frozenset[str]
    hides: frozenset[Group] | None
    """None: all of it."""
    glass: bool
    notice: str
    kind: Literal["restricted", "part2"] = "restricted"
    confidentiality: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnCall:
    may: frozenset[Action]
    sees: frozenset[Group]


@dataclass(frozen=True, slots=True, kw_only=True)
class Glass:
    reasons: Mapping[str, str]
    hours: float
    may: frozenset[Action]
    sees: frozenset[Group] | None
    tell: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    file: str
    roles: Mapping[str, Role]
    restrictions: tuple[Restriction, ...]
    on_call: OnCall | None
    glass: Glass | None
    consents: Mapping[ConsentKind, tuple[ConsentMark, ...]] = field(default_factory=dict)
    """By what they say; commands say the same."""
    unfilled: tuple[tuple[str, str], ...] = ()
    """Places of the file that wait for the site, and what for."""
    grace_days: float = 7.0
    """Days for which a relation holds after what it followed from has ended."""


def expand(verbs: tuple[str, ...]) -> frozenset[Action]:
    """The actions that a list names. Raises ValueError for one that there is not."""
    found: set[Action] = set()
    for verb in verbs:
        area = verb.removesuffix(".*")
        named = {one for one in GRANTED if one == verb or (verb != area and one.partition(".")[0] == area)}
        if not named:
            raise ValueError(f"there is no action {verb}; there are {', '.join(GRANTED)}")
        found |= named
    return frozenset(found)


def load_policy(document: Document, *, grace_days: float = 7.0) -> Policy:
    """Raises SettingsError with every problem of the file."""
    spec = validate(document, RolesFile)
    problems = list(_problems(document, spec))
    if problems:
        raise SettingsError(tuple(problems))
    return Policy(
        file=document.file,
        grace_days=grace_days,
        roles={
            name: Role(
                name=name,
                says=one.says,
                may=expand(one.may),
                sees=frozenset(one.sees),
                patients=one.patients if isinstance(one.patients, str) else frozenset(one.patients),
                purposes=one.purposes,
            )
            for name, one in spec.roles.items()
        },
        restrictions=tuple(
            Restriction(
                name=name,
                says=one.says,
                when=one.when,
                covers=one.covers,
                relations=frozenset(one.relations),
                roles=frozenset(one.roles),
                hides=None if one.hides == "all" else frozenset(one.hides),
                glass=one.glass,
                notice=one.notice,
                kind=one.kind,
                confidentiality=one.confidentiality,
            )
            for name, one in spec.restrictions.items()
        ),
        consents={kind: one.when for kind, one in spec.consents.items()},
        unfilled=tuple(_unfilled(spec)),
        on_call=None
        if spec.on_call is None
        else OnCall(may=expand(spec.on_call.may), sees=frozenset(spec.on_call.sees)),
        glass=None if spec.break_glass is None else _glass(spec.break_glass),
    )


def _glass(spec: GlassSpec) -> Glass:
    return Glass(
        reasons=spec.reasons,
        hours=spec.hours,
        may=expand(spec.may),
        sees=None if spec.sees is None else frozenset(spec.sees),
        tell=spec.tell,
    )


def _unfilled(spec: RolesFile) -> Iterator[tuple[str, str]]:
    for name, one in spec.restrictions.items():
        if one.fill_in is not None and not any(one.when.model_dump().values()):
            yield f"restrictions.{name}.when", one.fill_in
    for kind, said in spec.consents.items():
        if said.fill_in is not None and not said.when:
            yield f"consents.{kind}.when", said.fill_in


_WHO_MANAGES: Final = "no role may users.manage: nobody could make an account, or end one"


def _problems(document: Document, spec: RolesFile) -> Iterator[Problem]:
    lists: list[tuple[tuple[str | int, ...], tuple[str, ...]]] = [
        (("roles", name, "may"), one.may) for name, one in spec.roles.items()
    ]
    lists += [(("on_call", "may"), spec.on_call.may)] if spec.on_call is not None else []
    lists += [(("break_glass", "may"), spec.break_glass.may)] if spec.break_glass is not None else []
    wrong = False
    for path, verbs in lists:
        for index, verb in enumerate(verbs):
            try:
                expand((verb,))
            except ValueError as error:
                wrong = True
                yield document.problem((*path, index), str(error))
    if wrong:
        return
    if not any(Action.USERS_MANAGE in expand(one.may) for one in spec.roles.values()):
        yield document.problem(("roles",), _WHO_MANAGES)
    for name, one in spec.roles.items():
        shows = sorted(action for action in expand(one.may) if CATALOGUE[action].patients)
        if shows and one.patients == "none":
            text = f"may {', '.join(shows)} and has no patients: say whose (any, or relations)"
            yield document.problem(("roles", name, "patients"), text)
        if isinstance(one.patients, tuple) and not one.patients:
            yield document.problem(("roles", name, "patients"), "is empty: say none, or which relations")
    for name, one_restriction in spec.restrictions.items():
        marks = one_restriction.when
        of_stay = bool(marks.vip or marks.units or marks.facilities or marks.services)
        of_patient = bool(marks.protection or marks.access or marks.consent)
        if not (of_stay or of_patient) and one_restriction.fill_in is None:
            yield document.problem(("restrictions", name, "when"), "names no mark: nothing would be restricted")
        if of_patient and one_restriction.covers == "stay":
            text = "PD1-12, ARV and CON mark the patient, and no stay: take them out, or cover the patient"
            yield document.problem(("restrictions", name, "covers"), text)
        for index, role in enumerate(one_restriction.roles):
            if role not in spec.roles:
                yield document.problem(("restrictions", name, "roles", index), f"there is no role {role} in this file")
    for index, role in enumerate(spec.break_glass.tell if spec.break_glass is not None else ()):
        if role not in spec.roles:
            yield document.problem(("break_glass", "tell", index), f"there is no role {role} in this file")


def shown(policy: Policy) -> list[dict[str, Any]]:
    """The roles as `handoff users roles` lists them."""
    return [
        {
            "role": one.name,
            "says": one.says,
            "may": sorted(one.may),
            "sees": sorted(one.sees),
            "patients": one.patients if isinstance(one.patients, str) else sorted(one.patients),
            "purposes": list(one.purposes),
        }
        for one in policy.roles.values()
    ]
