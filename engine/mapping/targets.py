"""What a field mapping can fill: records of named fields, and what each holds.

Of any message that names a patient the targets below may be read. A package that brings another code of messages
declares a record of its own (`record`) and reads it with `Mapping.read`; `pipeline.messages` collects them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from engine.domain.encounter import Diagnosis, Procedure
from engine.domain.patient import AccessRestriction, ConsentStatement
from engine.mapping import functions, times
from engine.mapping.functions import Build, Parse


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """What each segment of an `each` becomes."""

    make: Callable[..., Any]
    """The type of an item."""
    parts: Mapping[str, Kind]
    """By field of the item."""
    needs: str = "code"
    """The part without which an item is none."""


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """What a target holds, and so how a field is read for it."""

    name: str
    """In words, for problems."""
    options: frozenset[str] = frozenset()
    """Keys of a rule, beyond those for every target, that mean something here."""
    value: type | None = None
    """The type of a single value, where tables and defaults may give one."""
    several: bool = False
    """Takes several paths in `from`."""
    positions: bool = False
    """Each repetition keeps its place: an empty one before a valued one becomes None."""
    build: Build | None = None
    """Reads a whole repetition; none: the text of a component is parsed."""
    parse: Parse | None = None
    type_component: int = 0
    """Where `prefer` finds the type."""
    last: frozenset[str] = frozenset()
    """Types that are taken only when there is nothing else."""
    validity: tuple[int, int, int] | None = None
    """Components that say when a repetition is valid: a range (DR), the first day, the last day; 0: there is none."""
    items: Items | None = None
    """Several segments are read, with `each`."""


TEXT: Final = Kind("a text", frozenset({"table", "default"}), str)
BOOLEAN: Final = Kind("a yes or no", frozenset({"table", "default"}), bool, parse=functions.boolean)
INTEGER: Final = Kind("a whole number", frozenset({"default"}), int, parse=functions.integer)
DATE: Final = Kind("a date", parse=times.read_date)
TIME: Final = Kind("a time")
DISPOSITION: Final = Kind("a disposition", frozenset({"table"}), str, parse=functions.disposition)
NAME: Final = Kind(
    "a name",
    frozenset({"prefer"}),
    build=functions.name,
    type_component=7,
    last=frozenset({"BAD"}),
    validity=(10, 12, 13),
)
ADDRESS: Final = Kind(
    "an address",
    frozenset({"prefer"}),
    build=functions.address,
    type_component=7,
    last=frozenset({"BA"}),
    validity=(12, 13, 14),
)
PROVIDER: Final = Kind(
    "a provider", frozenset({"prefer"}), build=functions.provider, type_component=13, validity=(17, 19, 20)
)
PROVIDERS: Final = Kind("providers", several=True, build=functions.provider, type_component=13, validity=(17, 19, 20))
LOCATION: Final = Kind("a location", build=functions.location)
IDENTIFIER: Final = Kind("an identifier", build=functions.identifier)
IDENTIFIERS: Final = Kind("identifiers", several=True, positions=True, build=functions.identifier)
ENTITY: Final = Kind("the number of a thing", build=functions.entity)
CODED: Final = Kind("a code with its text", build=functions.coded_element)
PHONES: Final = Kind("phones", frozenset({"prefer", "region"}), several=True, type_component=3, validity=(0, 13, 14))


def items(name: str, make: Callable[..., Any], needs: str = "code", **parts: Kind) -> Kind:
    """What becomes of several segments. name: in words, of several. parts: by field of what is made."""
    return Kind(name, frozenset({"each"}), items=Items(make, parts, needs))


DIAGNOSES: Final = items("diagnoses", Diagnosis, code=TEXT, system=TEXT, text=TEXT, type=TEXT)
PROCEDURES: Final = items("procedures", Procedure, code=TEXT, system=TEXT, text=TEXT, performed_at=TIME)

RESTRICTIONS: Final = items("restrictions of access", AccessRestriction, code=TEXT, reason=TEXT)
CONSENTS: Final = items("statements of consent", ConsentStatement, code=TEXT, status=TEXT, begins=TIME, ends=TIME)


class Target(NamedTuple):
    kind: Kind
    record: str
    """The part of `Mapped` that it is read for, or the name under which `Mapping.read` gives it."""
    field: str


Targets = Mapping[str, Target]
"""By the name that mapping files use: `patient.birth_date`."""


def record(name: str, /, **fields: Kind) -> dict[str, Target]:
    """The targets of a record: `record("appointment", starts_at=TIME)` can be mapped as `appointment.starts_at`.

    A field whose name is a word of Python ends in an underscore, which mapping files leave out.
    """
    return {f"{name}.{field.rstrip('_')}": Target(kind, name, field) for field, kind in fields.items()}


TARGETS: Final[Targets] = {
    "patient.identifiers": Target(IDENTIFIERS, "own", "identifiers"),
    **record(
        "patient",
        name=NAME,
        birth_date=DATE,
        sex=TEXT,
        address=ADDRESS,
        phones=PHONES,
        language=TEXT,
        deceased=BOOLEAN,
        deceased_at=TIME,
        pcp=PROVIDER,
        lives_alone=BOOLEAN,
        transportation=BOOLEAN,
        active_medications=INTEGER,
        protection=BOOLEAN,
        restrictions=RESTRICTIONS,
        consent_statements=CONSENTS,
        text_consent=BOOLEAN,
    ),
    "encounter.visit_number": Target(IDENTIFIER, "own", "visit"),
    "encounter.account": Target(TEXT, "own", "account"),
    **record(
        "encounter",
        class_=TEXT,
        location=LOCATION,
        prior_location=LOCATION,
        pending_location=LOCATION,
        temporary_location=LOCATION,
        attending=PROVIDER,
        consulting=PROVIDERS,
        admission_type=TEXT,
        hospital_service=TEXT,
        vip=TEXT,
        sending_facility=TEXT,
        admitted_at=TIME,
        discharged_at=TIME,
        disposition=DISPOSITION,
        expected_admission_at=TIME,
        expected_discharge_at=TIME,
        leave_return_expected_at=TIME,
        diagnoses=DIAGNOSES,
        procedures=PROCEDURES,
    ),
    **record("movement", at=TIME, action=TEXT, historic=BOOLEAN),
    "merge.identifiers": Target(IDENTIFIERS, "own", "merged"),
    "merge.account": Target(TEXT, "own", "merged_account"),
    "merge.visit": Target(IDENTIFIER, "own", "merged_visit"),
}
"""What of a message says who its patient is, and of which visit it speaks."""
