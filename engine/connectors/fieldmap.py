"""The field map of a Salesforce destination: which value of a delivery feeds which field of which object.

Read from `mappings/destinations/<name>.yaml`, strictly: an unknown key, a value that no delivery has, a rule that is
never reached are problems with file, line and column at start, not errors on a patient's delivery.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

import msgspec.inspect
from pydantic import Field, model_validator

from engine.domain.delivery import CONTENTS, Operation
from engine.domain.moment import Moment, Precision
from engine.domain.record import Phi
from engine.errors import Problem, SettingsError
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate

ApiName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,79}$")]
Scalar = str | int | float | bool | None

EXTERNAL_ID_CHARACTERS_MAX: Final = 255
"""The longest text field that Salesforce takes as an external id."""


# --- the file --------------------------------------------------------------------------------------------------------


class FieldRule(StrictModel):
    """Where a field's value comes from, and how it is written."""

    source: str | tuple[str, ...] | None = Field(default=None, alias="from")
    """Place in the delivery: `patient.name.family`, `patient.phones[0]`, `encounter.diagnoses[*].code`; several places,
    or several values of one, need `join`."""
    value: Scalar = None
    """A fixed value."""
    now: bool = False
    """The time of the delivery is sent."""
    kind: Literal["text", "number", "boolean", "date", "datetime"] = Field(default="text", alias="as")
    """How it is written. `date`, `datetime`: a value without a day, or without a time, is sent as nothing; nobody makes
    up the rest."""
    equals: Scalar = None
    """Value to compare with; sent is whether it is this one."""
    table: dict[str, str] | None = None
    """Value -> what is sent for it; for a value that is not listed, `default`."""
    default: Scalar = None
    """Sent when there is no value. Without it the field is cleared."""
    join: str | None = None
    """Text put between several values."""
    chars_max: Annotated[int, Field(ge=1, le=131_072)] | None = None
    """Longest text in characters; what is longer is cut. Never for a key."""
    reference: ApiName | None = None
    """Object that the field, a relationship (`Patient__r`, `What`), points to."""
    by: ApiName | None = None
    """With `reference`: the field that finds the record."""

    @model_validator(mode="after")
    def _one_source(self) -> FieldRule:
        if (self.source is not None) + ("value" in self.model_fields_set) + self.now != 1:
            raise ValueError("needs exactly one of: from, value, now")
        if (self.reference is None) != (self.by is None):
            raise ValueError("reference and by belong together")
        if self.equals is not None and self.table is not None:
            raise ValueError("has both equals and table: give one of them")
        several = isinstance(self.source, tuple) or (isinstance(self.source, str) and "[*]" in self.source)
        if several and self.join is None:
            raise ValueError("several values need join")
        return self


class KeyRule(StrictModel):
    """The external id that finds the record."""

    field: ApiName
    """Name of the external id field."""
    source: str = Field(alias="from")
    """Place in the delivery: `patient.key`."""


class RowRule(StrictModel):
    """What one operation becomes. Of several rules for an operation, the first whose `when` holds is used."""

    on: Operation
    """Operation that the rule is for."""
    when: dict[str, Scalar] = {}
    """Place in the delivery: the value it must have."""
    skip: bool = False
    """Nothing is sent for it; stands alone."""
    object: ApiName | None = None
    """Name of the object."""
    key: KeyRule | None = None
    """External id that finds or creates the record."""
    fields: dict[ApiName, FieldRule] = {}
    """Field of the object -> its value."""

    @model_validator(mode="after")
    def _whole(self) -> RowRule:
        if self.skip and (self.object or self.key or self.fields):
            raise ValueError("skip stands alone")
        if not self.skip and (self.object is None or self.key is None):
            raise ValueError("needs object and key (or skip)")
        if self.key is not None and self.key.field in self.fields:
            raise ValueError("the key's field is not listed again under fields")
        return self


class FieldMapFile(StrictModel):
    """Which value of a delivery feeds which field of which object."""

    rows: Annotated[tuple[RowRule, ...], Field(min_length=1)]
    """Rules, in order."""


# --- what a delivery can hold ----------------------------------------------------------------------------------------


PAYLOADS: Final = {operation: content for operation, content in CONTENTS.items() if content.is_state}
"""The content of each operation that has fields to map: what `from` may name."""

_PART: Final = re.compile(r"([a-z][a-z0-9_]*)(?:\[(\*|[0-9]{1,3})\])?")
_Step = tuple[str, int | None, bool]  # name, index, every


def steps_of(text: str) -> tuple[_Step, ...] | None:
    steps: list[_Step] = []
    for part in text.split("."):
        match = _PART.fullmatch(part)
        if match is None:
            return None
        index = match[2]
        steps.append((match[1], int(index) if index and index != "*" else None, index == "*"))
    return tuple(steps)


def _exists(steps: Sequence[_Step], payload: type[Phi]) -> bool:
    """Whether a payload of this type can have a value there."""
    kinds: list[msgspec.inspect.Type] = [msgspec.inspect.type_info(payload)]
    for name, index, every in steps:
        found = [
            field.type
            for kind in kinds
            if isinstance(kind, msgspec.inspect.StructType)
            for field in kind.fields
            if field.encode_name == name
        ]
        kinds = list(_open(found))
        items = [kind.item_type for kind in kinds if isinstance(kind, msgspec.inspect.VarTupleType)]
        if bool(items) != (every or index is not None):
            return False
        if items:
            kinds = list(_open(items))
    return bool(kinds) and not any(isinstance(kind, msgspec.inspect.StructType) for kind in kinds)


def _open(kinds: Sequence[msgspec.inspect.Type]) -> Iterator[msgspec.inspect.Type]:
    for kind in kinds:
        if isinstance(kind, msgspec.inspect.UnionType):
            yield from kind.types
        else:
            yield kind


# --- compiled --------------------------------------------------------------------------------------------------------


class Row(Phi, frozen=True, kw_only=True):
    """One record to upsert. `fields` does not hold the key's field."""

    object: str
    key_field: str
    key: str
    fields: dict[str, Any]


class UnsafeKeyError(Exception):
    """The value can't be an external id. Its text holds no value."""


_Value = Callable[[Mapping[str, Any], datetime], Any]


class _Rule:
    def __init__(self, rule: RowRule, zone: ZoneInfo) -> None:
        self._when = [(steps_of(place) or (), value) for place, value in rule.when.items()]
        self._object = rule.object
        self._key = (rule.key.field, steps_of(rule.key.source) or ()) if rule.key else None
        self._fields = [(name, _value(field, zone)) for name, field in rule.fields.items()]

    def applies(self, payload: Mapping[str, Any]) -> bool:
        return all(_first(payload, steps) == value for steps, value in self._when)

    def row(self, payload: Mapping[str, Any], now: datetime) -> Row | None:
        if self._object is None or self._key is None:
            return None
        field, steps = self._key
        fields = {name: value(payload, now) for name, value in self._fields}
        absent = [name for name, value in fields.items() if value is _ABSENT]
        for name in absent:
            del fields[name]
        return Row(object=self._object, key_field=field, key=_external_id(_first(payload, steps)), fields=fields)


class FieldMap:
    """A checked field map."""

    def __init__(self, rules: Mapping[Operation, Sequence[_Rule]]) -> None:
        self._rules = rules

    def knows(self, operation: Operation) -> bool:
        return operation in self._rules

    def row(self, operation: Operation, payload: Mapping[str, Any], now: datetime) -> Row | None:
        """The record to upsert for a delivery; none when the map says that nothing is sent for it.

        Raises UnsafeKeyError.
        """
        for rule in self._rules.get(operation, ()):
            if rule.applies(payload):
                return rule.row(payload, now)
        return None


def compile_field_map(document: Document, *, zone: ZoneInfo) -> FieldMap:
    """zone: dates are made from times in it (the site's calendar). Raises SettingsError with every problem."""
    file = validate(document, FieldMapFile)
    problems = list(_problems(document, file))
    if problems:
        raise SettingsError(tuple(problems))
    rules: dict[Operation, list[_Rule]] = {}
    for rule in file.rows:
        rules.setdefault(rule.on, []).append(_Rule(rule, zone))
    return FieldMap(rules)


def _problems(document: Document, file: FieldMapFile) -> Iterator[Problem]:
    unconditional: set[Operation] = set()
    keys: dict[str, str] = {}
    for index, rule in enumerate(file.rows):
        at = ("rows", index)
        payload = PAYLOADS.get(rule.on)
        if payload is None:
            yield document.problem((*at, "on"), "this operation has no fields to map")
            continue
        if rule.on in unconditional:
            yield document.problem((*at, "on"), "never used: a rule above takes every delivery of this operation")
        if not rule.when:
            unconditional.add(rule.on)
        for place in rule.when:
            yield from place_problems(document, (*at, "when", place), place, payload)
        if rule.key is not None and rule.object is not None:
            yield from place_problems(document, (*at, "key", "from"), rule.key.source, payload)
            if keys.setdefault(rule.object, rule.key.field) != rule.key.field:
                yield document.problem((*at, "key", "field"), "another rule finds this object by another field")
        for name, field in rule.fields.items():
            sources = field.source if isinstance(field.source, tuple) else [field.source] if field.source else []
            for source in sources:
                yield from place_problems(document, (*at, "fields", name, "from"), source, payload)


def place_problems(
    document: Document, path: tuple[str | int, ...], place: str, payload: type[Phi]
) -> Iterator[Problem]:
    steps = steps_of(place)
    if steps is None:
        yield document.problem(path, "is no place in a delivery (like patient.name.family)")
    elif not _exists(steps, payload):
        yield document.problem(path, f"a delivery of this operation has no value {place}")


class _Absent:
    """Left out of the record: a reference to nothing."""


_ABSENT: Final = _Absent()


def _value(rule: FieldRule, zone: ZoneInfo) -> _Value:
    if rule.reference is not None:
        inner = _value(rule.model_copy(update={"reference": None, "by": None}), zone)
        return lambda payload, now: _reference(rule, inner(payload, now))
    if rule.now:
        return lambda _, now: _instant(now)
    if rule.source is None:
        return lambda _payload, _now: rule.value
    sources = rule.source if isinstance(rule.source, tuple) else (rule.source,)
    places = [steps_of(source) or () for source in sources]

    def value(payload: Mapping[str, Any], _: datetime) -> Any:
        found = [item for steps in places for item in values_at(payload, steps) if item is not None and item != ""]
        if rule.equals is not None:
            return found[:1] == [rule.equals]
        plain: Any = None
        if rule.join is not None:
            plain = rule.join.join(map(str, dict.fromkeys(found))) or None
        elif found:
            plain = _converted(found[0], rule.kind, zone)
        if rule.table is not None:
            plain = rule.table.get(str(plain))
        if plain is None:
            plain = rule.default
        return plain[: rule.chars_max] if rule.chars_max is not None and isinstance(plain, str) else plain

    return value


def _reference(rule: FieldRule, value: Any) -> Any:
    if value is None:
        return _ABSENT
    return {"attributes": {"type": rule.reference}, rule.by: _external_id(value)}


def values_at(value: Any, steps: Sequence[_Step]) -> Iterator[Any]:
    if not steps:
        yield value
        return
    if not isinstance(value, Mapping):
        return
    (name, index, every), rest = steps[0], steps[1:]
    inner = value.get(name)
    if index is not None or every:
        items = inner if isinstance(inner, list) else []
        for item in items if every else items[index : (index or 0) + 1]:
            yield from values_at(item, rest)
    else:
        yield from values_at(inner, rest)


def _first(value: Any, steps: Sequence[_Step]) -> Any:
    return next(values_at(value, steps), None)


def _converted(value: Any, kind: str, zone: ZoneInfo) -> Any:
    if kind == "number":
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if kind == "text":
        return str(value).lower() if isinstance(value, bool) else str(value)
    time = Moment.read(value)
    if time is None:
        return None
    if time.precision is Precision.DAY:
        return time.text if kind == "date" else None
    if time.at is None or not time.has_offset:
        return None
    return time.at.astimezone(zone).date().isoformat() if kind == "date" else _instant(time.at)


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def _external_id(value: Any) -> str:
    """Refuse what Salesforce would change before it compares: it trims texts, and a cut key would be another one's."""
    if not isinstance(value, str) or not value:
        raise UnsafeKeyError("the key is missing")
    if len(value) > EXTERNAL_ID_CHARACTERS_MAX:
        raise UnsafeKeyError(f"the key is longer than {EXTERNAL_ID_CHARACTERS_MAX} characters")
    if value != value.strip() or not value.isprintable():
        raise UnsafeKeyError("the key has blanks around it, or control characters in it")
    return value
