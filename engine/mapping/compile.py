"""From a mapping file to closures, once at start or reload. Every problem of the file is found, not just the first."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from datetime import tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

from engine.errors import (
    DATA_TYPE,
    REQUIRED_FIELD_MISSING,
    SEGMENT_SEQUENCE,
    MappingError,
    MessageError,
    Problem,
    SettingsError,
)
from engine.hl7v2.message import NULL, Message, Repetition, Segment, Syntax
from engine.hl7v2.path import ALL, Path, PathError
from engine.hl7v2.segments import nowhere
from engine.mapping import functions, times
from engine.mapping import spec as specs
from engine.mapping.apply import Mapping, Read, Reading, Rule, Rules
from engine.mapping.expression import Filter, FilterError, compile_filter
from engine.mapping.functions import ABSENT, Build, Flaw, Parse, several
from engine.mapping.tables import Tables
from engine.mapping.targets import DISPOSITION, PHONES, TARGETS, TIME, Items, Kind, Targets
from engine.yamlfile import Document, did_you_mean
from engine.yamlmodel import validate

FIELDS_REMEMBERED_MAX: Final = 256
"""Repetitions or segments that one target remembers the reading of, a few hundred bytes each."""
ITEMS_MAX: Final = 500
"""Diagnoses, and procedures, of one message."""

_UNREADABLE: Final = "invalid-"
"""How the codes begin that say a value could not be read."""


def compile_mapping(
    document: Document,
    tables: Tables,
    *,
    zone: ZoneInfo,
    targets: Targets = TARGETS,
    broken_tables: Collection[str] = (),
) -> Mapping:
    """Compile a mapping file. zone: of times without offset. Raises SettingsError with all problems.

    targets: all that there is. broken_tables: names of tables that have problems of their own, which are told there and
    not again here.
    """
    file = validate(document, specs.MappingFile)
    return _Compiler(document, tables, zone, targets, broken_tables).mapping(file)


class _Compiler:
    def __init__(
        self, document: Document, tables: Tables, zone: ZoneInfo, targets: Targets, broken_tables: Collection[str]
    ) -> None:
        self.document = document
        self.tables = tables
        self.targets = targets
        self.broken_tables = broken_tables
        self.zone = zone
        self.problems: list[Problem] = []
        self.doubts: list[Problem] = []

    def problem(self, path: tuple[str | int, ...], message: str) -> None:
        self.problems.append(self.located(path, message))

    def located(self, path: tuple[str | int, ...], message: str) -> Problem:
        while path not in self.document.places and len(path) > 1:
            path = path[:-1]  # the short forms have fewer levels than the model
        return self.document.problem(path, message)

    def mapping(self, file: specs.MappingFile) -> Mapping:
        rules: dict[str, list[Rule]] = {one.record: [] for one in self.targets.values()}
        for target, rule in file.root.items():
            if target not in self.targets:
                self.problem((target,), f"there is no such target{did_you_mean(target, self.targets)}")
                continue
            kind, group, field = self.targets[target]
            read = self.rule(target, kind, rule)
            if read is not None:
                rules[group].append((field, read, _only_segment(rule)))
        if "patient.identifiers" not in file.root:
            self.problem((), "patient.identifiers is missing: without it no message finds its patient")
        if self.problems:
            raise SettingsError(tuple(self.problems))
        return Mapping(
            self.document.file,
            self.zone,
            patient=Rules(rules.pop("patient")),
            encounter=Rules(rules.pop("encounter")),
            own=Rules(rules.pop("own")),
            movement=Rules(rules.pop("movement")),
            records={name: Rules(found) for name, found in rules.items()},
            doubts=tuple(dict.fromkeys(self.doubts)),
        )

    def rule(self, target: str, kind: Kind, rule: specs.Rule) -> Read | None:
        """The closure of one target; none when there are problems."""
        found = len(self.problems)
        at = (target,)
        self.options(at, kind, rule)
        read: Read | None = None
        if kind.items is not None:
            read = self.items(target, kind, rule)
        elif kind is PHONES or kind.build is not None:
            read = self.composite(at, kind, rule)
        else:
            read = self.scalar(target, at, kind, rule)
        if len(self.problems) > found or read is None:
            return None
        if rule.required or rule.default is not None or rule.on_error == "dead":
            location = rule.sources[0].path if rule.sources else str(rule.each)
            return _strict(read, rule, location, self.failure(target))
        return read

    def options(self, at: tuple[str | int, ...], kind: Kind, rule: specs.Rule | specs.Part) -> None:
        for key in ("table", "default", "prefer", "region", "each"):
            if getattr(rule, key, None) is not None and key not in kind.options:
                self.problem((*at, key), f"{key} means nothing for {kind.name}")
        if kind.value and rule.default is not None and type(rule.default) is not kind.value:
            self.problem((*at, "default"), f"must be {kind.name}")
        if rule.from_ is not None and len(rule.from_) > 1 and not kind.several:
            self.problem((*at, "from"), f"{kind.name} comes from one path; of several alternatives use first_of")
        if isinstance(rule, specs.Rule):
            if rule.required and rule.default is not None:
                self.problem((*at, "required"), "means nothing beside default")
            if "each" in kind.options and rule.each is None:
                self.problem(at, f"{kind.name} are read with each and parts")
            if "region" in kind.options and rule.region is None:
                self.problem(at, "the key 'region' is missing here (the country of numbers that name none, like US)")
            elif rule.region is not None and not functions.region_is_known(rule.region):
                self.problem((*at, "region"), "is not a country code of ISO 3166 (like US)")

    def failure(self, target: str) -> Callable[[str, str], MappingError]:
        file, (line, _) = self.document.file, self.document.place((target,))

        def fail(code: str, location: str) -> MappingError:
            text = "the code table does not know the code" if code == "unknown-code" else f"{code} (on_error: dead)"
            return MappingError(text, file=file, line=line, target=target, location=location, error=code)

        return fail

    # --- sources

    def paths(
        self, at: tuple[str | int, ...], rule: specs.Rule | specs.Part, *, whole: bool
    ) -> list[tuple[Path, Filter | None]]:
        """The compiled sources; those with problems are left out."""
        key = "from" if rule.from_ is not None else "first_of"
        compiled: list[tuple[Path, Filter | None]] = []
        for index, source in enumerate(rule.sources):
            here = (*at, key, index) if (*at, key, index) in self.document.places else (*at, key)
            path = self.path((*here, "path"), source.path)
            if path is None:
                continue
            if whole and _below_field(path):
                self.problem((*here, "path"), "is read from a whole field: leave the component out")
            where = self.where((*here, "where"), source.where, path.segment)
            compiled.append((path, where))
        return compiled

    def path(self, at: tuple[str | int, ...], text: str) -> Path | None:
        try:
            path = Path.parse(text)
        except PathError as error:
            self.problem(at, f"{error.text} (column {error.column} of the path)")
            return None
        if not path.segment:
            self.problem(at, "a path begins with a segment, as in PID-3")
            return None
        if (reason := nowhere(path)) is not None:
            self.doubts.append(self.located(at, f"{path.text} is always empty: {reason}"))
        return path

    def where(self, at: tuple[str | int, ...], text: str | None, segment: str) -> Filter | None:
        if text is None:
            return None
        try:
            where = compile_filter(text)
        except FilterError as error:
            self.problem(at, f"{error.text} (line {error.line}, column {error.column} of the filter)\n{error.pointed}")
            return None
        self.doubts += [self.located(at, f"{one.text}\n{one.pointed}") for one in where.doubts]
        for path in where.paths:
            if path.segment != segment:
                self.problem(at, f"{path.text} is not in {segment}: this filter sees one {segment} at a time")
        return where

    # --- readers

    def scalar(self, target: str, at: tuple[str | int, ...], kind: Kind, rule: specs.Rule) -> Read | None:
        parse = self.parse(at, kind, rule)
        fatal = self.fatal(target, rule)
        reads: list[Read] = []
        for path, where in self.paths(at, rule, whole=False):
            text = _text(path) if where is None else _text_where(path, where)
            reads.append(_time(text, path.text) if kind is TIME else _scalar(text, parse, path.text, fatal))
        return _first_of(reads)

    def composite(self, at: tuple[str | int, ...], kind: Kind, rule: specs.Rule) -> Read | None:
        build = functions.phone(rule.region or "") if kind is PHONES else kind.build
        paths = self.paths(at, rule, whole=True)
        takes = [(_repetitions(path, where), path.text) for path, where in paths]
        if build is None or not takes:
            return None
        read = _remembered(build)
        order = _order(kind, rule.prefer)
        if kind.several and rule.from_ is not None:
            return _several(takes, read, order, positions=kind.positions)
        if kind.several:
            reads = [_several([take], read, order, positions=kind.positions) for take in takes]
        else:
            reads = [_single(take, read, order, location) for take, location in takes]
        return _first_of(reads, [path.segment for path, _ in paths])

    def items(self, target: str, kind: Kind, rule: specs.Rule) -> Read | None:
        assert kind.items is not None  # noqa: S101  # as `rule` has seen
        kinds, needs = kind.items.parts, kind.items.needs
        if rule.each is None or rule.parts is None:
            return None
        reads: list[tuple[str, Read]] = []
        for name, part in rule.parts.items():
            at = (target, "parts", name)
            if name not in kinds:
                self.problem(at, f"{kind.name} have no such part{did_you_mean(name, kinds)}")
                continue
            self.options(at, kinds[name], part)
            read = self.part(target, at, kinds[name], part, rule.each)
            if read is not None:
                reads.append((name, read))
        if needs not in rule.parts:
            self.problem((target, "parts"), f"the part '{needs}' is missing")
            return None
        where = self.where((target, "where"), rule.where, rule.each)
        return _items(rule.each, where, tuple(reads), kind.items, rule.parts[needs].sources[0].path)

    def part(self, target: str, at: tuple[str | int, ...], kind: Kind, part: specs.Part, segment: str) -> Read | None:
        parse, fatal = self.parse(at, kind, part), self.fatal(target, part)
        reads: list[Read] = []
        for path, where in self.paths(at, part, whole=False):
            if path.segment != segment or path.index != 1:
                self.problem(at, f"a part of each {segment} is read from that {segment}, as in {segment}-3.1")
            if where is not None:
                self.problem(at, "where stands beside each, not in a part")
            text = _text_in_segment(path)
            reads.append(_time(text, path.text) if kind is TIME else _scalar(text, parse, path.text, fatal))
        read = _first_of(reads)
        if read is not None and (part.default is not None or part.on_error == "dead"):
            return _strict(read, part, part.sources[0].path, self.failure(target))
        return read

    def parse(self, at: tuple[str | int, ...], kind: Kind, rule: specs.Rule | specs.Part) -> Parse | None:
        parse = kind.parse
        if rule.table is None or "table" not in kind.options:
            return parse
        table = self.tables.get(rule.table)
        if table is None and rule.table in self.broken_tables:
            return parse
        if table is None:
            self.problem((*at, "table"), f"there is no such table{did_you_mean(rule.table, self.tables)}")
            return None
        if not table.results() <= {kind.value}:
            self.problem((*at, "table"), f"the values of this table ({table.file}) are not each {kind.name}")
        look_up = functions.coded(table)
        return functions.then(look_up, functions.disposition) if kind is DISPOSITION else look_up

    def fatal(self, target: str, rule: specs.Rule | specs.Part) -> Callable[[str, str], MappingError] | None:
        table = self.tables.get(rule.table) if rule.table else None
        return self.failure(target) if table is not None and table.unknown_is_error else None


def _only_segment(rule: specs.Rule) -> str | None:
    """The one segment that a rule reads, where it says nothing of a message without it."""
    if rule.required or rule.default is not None:
        return None
    segments = {rule.each} if rule.each is not None else {source.path[:3] for source in rule.sources}
    return segments.pop() if len(segments) == 1 else None


_SELECTION: Final = re.compile(r"\[[^\]]*\]")


def _below_field(path: Path) -> bool:
    """A component was written."""
    return "." in _SELECTION.sub("", path.text)


def _selects(path: Path) -> bool:
    """A repetition was chosen: by number, by `[*]` or by a condition."""
    return "[" in path.text.partition("-")[2]


# --- closures --------------------------------------------------------------------------------------------------------

_Text = Callable[[Any, Reading], str | None]
_Take = Callable[[Message, Reading], Sequence[str]]
"""The texts of the repetitions that a source means."""
_Build = Callable[[str, Syntax], Any]
"""As `Build`, of a repetition's text."""
_Standing = tuple[bool, bool, int]
"""No longer or not yet valid, known to be bad, place in `prefer`."""
_Order = Callable[[str, Syntax, Reading], _Standing]
_Fail = Callable[[str, str], MappingError]


def _text(path: Path) -> _Text:
    if several(path):
        return lambda source, _: _first_valued(source.all(path))
    return lambda source, _: source.get(path)


def _text_in_segment(path: Path) -> _Text:
    if path.repetition == ALL:
        return lambda segment, _: _first_valued(segment.all(path))
    return lambda segment, _: segment.at(path)


def _text_where(path: Path, where: Filter) -> _Text:
    def text(message: Message, reading: Reading) -> str | None:
        segments = _chosen(message, path, where, reading)
        return _first_valued([value for segment in segments for value in segment.all(path)])

    return text


def _first_valued(values: list[str]) -> str | None:
    null = None
    for value in values:
        if value == NULL:
            null = NULL
        elif value.strip():
            return value
    return null


def _chosen(message: Message, path: Path, where: Filter | None, reading: Reading) -> list[Segment]:
    segments = message.segments(path.segment)
    if where is not None:
        segments = [segment for segment in segments if where(segment, reading.budget)]
    return segments if path.index == ALL else segments[path.index - 1 : path.index]


def _scalar(text_of: _Text, parse: Parse | None, location: str, fatal: _Fail | None) -> Read:
    def read(source: Any, notes: Reading) -> Any:
        text = text_of(source, notes)
        if not text or not (text := text.strip()):
            return ABSENT
        if text == NULL:
            return None
        if parse is None:
            return text
        value = parse(text)
        if value.__class__ is Flaw:
            if fatal is not None and value.code == "unknown-code":
                raise fatal(value.code, location)
            value.note(location, notes)
            return value.value
        return value

    return read


def _time(text_of: _Text, location: str) -> Read:
    """A time of the zone that the message has."""

    def read(source: Any, notes: Reading) -> Any:
        text = text_of(source, notes)
        if not text or not (text := text.strip()):
            return ABSENT
        if text == NULL:
            return None
        value = times.read_time(text, notes.zone)
        if isinstance(value, Flaw):
            value.note(location, notes)
            return value.value
        return value

    return read


def _repetitions(path: Path, where: Filter | None) -> _Take:
    """The repetitions that a path means; all of the field when it chooses none."""
    name, field, conditions = path.segment, path.field, path.conditions
    one = _selects(path) and path.repetition != ALL
    plain = not one and not conditions and where is None and path.index == 1

    def take_plain(message: Message, _: Reading) -> Sequence[str]:
        segments = message.segments(name)
        return segments[0].texts(field) if segments else ()

    def take(message: Message, reading: Reading) -> Sequence[str]:
        found: list[str] = []
        for segment in _chosen(message, path, where, reading):
            texts = segment.texts(field)
            found += texts[path.repetition - 1 : path.repetition] if one else texts
        return [text for text in found if holds(Repetition(text, message.syntax))] if conditions else found

    def holds(repetition: Repetition) -> bool:
        return all(c.holds(repetition.get(c.component, c.subcomponent)) for c in conditions)

    return take_plain if plain else take


def _remembered(build: Build) -> _Build:
    """The same name, address and attending stand in message after message of a stay."""

    @functions.remembered(FIELDS_REMEMBERED_MAX)
    def of(text: str, syntax: Syntax) -> Any:
        return build(Repetition(text, syntax))

    return of


def _order(kind: Kind, prefer: list[str] | None) -> _Order | None:
    """What comes first among repetitions: what is valid, then what is not known to be bad, then by `prefer`."""
    if prefer is None and kind.validity is None:
        return None
    places = {type_.upper(): index for index, type_ in enumerate(prefer or ())}
    span, first, last = kind.validity or (0, 0, 0)

    @functions.remembered(FIELDS_REMEMBERED_MAX)
    def standing(text: str, syntax: Syntax) -> tuple[_Standing, str, str]:
        repetition = Repetition(text, syntax)
        type_ = (repetition.valued(kind.type_component) or "").upper()
        effective = (first and repetition.valued(first)) or (span and repetition.valued(span, 1)) or ""
        expires = (last and repetition.valued(last)) or (span and repetition.valued(span, 2)) or ""
        return (False, type_ in kind.last, places.get(type_, len(places))), effective, expires

    def order(text: str, syntax: Syntax, reading: Reading) -> _Standing:
        standard, effective, expires = standing(text, syntax)
        if (effective or expires) and not reading.valid(effective, expires):
            return (True, *standard[1:])
        return standard

    return order


def _single(take: _Take, build: _Build, order: _Order | None, location: str) -> Read:
    def read(message: Message, notes: Reading) -> Any:
        texts = take(message, notes)
        if not texts:
            return ABSENT
        syntax = message.syntax
        if order is not None and len(texts) > 1:
            texts = sorted(texts, key=lambda text: order(text, syntax, notes))
        result: Any = ABSENT
        for text in texts:
            value = build(text, syntax)
            if value.__class__ is Flaw:
                value.note(location, notes)
            elif value is None:
                result = None
            elif value is not ABSENT:
                return value
        return result

    return read


def _several(takes: Sequence[tuple[_Take, str]], build: _Build, order: _Order | None, *, positions: bool) -> Read:
    def read(message: Message, notes: Reading) -> Any:
        found: list[Any] = []
        sources: list[str] = []
        nothing: Any = ABSENT
        syntax = message.syntax
        for take, location in takes:
            for text in take(message, notes):
                value = build(text, syntax)
                if value.__class__ is Flaw:
                    value.note(location, notes)
                elif value is not ABSENT and value is not None:
                    found.append(value)
                    sources.append(text)
                    continue
                elif value is None:
                    nothing = None
                if positions:
                    found.append(None)
        if not positions:
            if order is not None and len(found) > 1:
                found = [found[i] for i in sorted(range(len(found)), key=lambda i: order(sources[i], syntax, notes))]
            return tuple(dict.fromkeys(found)) or nothing
        while found and found[-1] is None:
            found.pop()
        return tuple(found) or nothing

    return read


def _first_of(reads: Sequence[Read], segments: Sequence[str] | None = None) -> Read | None:
    """The first value; else a null, if one of them is one. segments: without its own, a read has nothing to say."""
    if len(reads) < 2:
        return reads[0] if reads else None
    if segments is not None:
        return _first_there(tuple(zip(segments, reads, strict=True)))

    def read(source: Any, notes: Reading) -> Any:
        result: Any = ABSENT
        for one in reads:
            value = one(source, notes)
            if value is None:
                result = None
            elif value is not ABSENT:
                return value
        return result

    return read


def _first_there(reads: tuple[tuple[str, Read], ...]) -> Read:
    def read(message: Message, notes: Reading) -> Any:
        result: Any = ABSENT
        present = message.present
        for segment, one in reads:
            if segment in present:
                value = one(message, notes)
                if value is None:
                    result = None
                elif value is not ABSENT:
                    return value
        return result

    return read


def _items(
    name: str,
    where: Filter | None,
    parts: tuple[tuple[str, Read], ...],
    items_of: Items,
    location: str,
) -> Read:
    """One item a segment. The segments of a message are a snapshot: together they replace what the chart holds."""
    costly = where is not None and where.costly
    make, needs = items_of.make, items_of.needs

    @functions.remembered(FIELDS_REMEMBERED_MAX)  # an update repeats all that was said before
    def one(text: str, how: tuple[Syntax, tzinfo]) -> tuple[Any, bool, list[str]]:
        """The item or ABSENT, whether the segment clears something, and what is to be noted."""
        segment = Segment(name, text, how[0])
        if where is not None and not costly and not where(segment):
            return ABSENT, True, []  # a deleted one: the set without it is what the sender means
        said = False
        notes = Reading(how[1])
        values = {}
        for part, read_part in parts:
            value = read_part(segment, notes)
            if value is None:
                said = True
            elif value is not ABSENT:
                values[part] = value
        if needs in values:
            return make(**values), said, notes
        if values:
            notes.append(f"item-without-{needs}:{location}")
        return ABSENT, said, notes

    def read(message: Message, notes: Reading) -> Any:
        segments = message.segments(name)
        if len(segments) > ITEMS_MAX:
            raise MessageError(
                "items-too-many",
                f"the message has more than {ITEMS_MAX} {name} segments",
                hl7_code=SEGMENT_SEQUENCE,
                location=f"{name}[{ITEMS_MAX + 1}]",
            )
        items: list[Any] = []
        said = False
        for segment in segments:
            if costly and where is not None and not where(segment, notes.budget):
                said = True
                continue
            item, clears, noted = one(segment.text, (segment.syntax, notes.zone))
            said = said or clears
            notes += noted
            if item is not ABSENT:
                items.append(item)
        return tuple(items) if items else None if said else ABSENT

    return read


def _strict(read: Read, rule: specs.Rule | specs.Part, location: str, failure: _Fail) -> Read:
    """Adds what `required`, `default` and `on_error: dead` ask for."""
    required = isinstance(rule, specs.Rule) and rule.required
    dead, default = rule.on_error == "dead", rule.default

    def strict(message: Message, notes: Reading) -> Any:
        before = len(notes)
        value = read(message, notes)
        for note in notes[before:]:
            if note.startswith(_UNREADABLE):
                if dead:
                    raise failure(*note.split(":", 1))
                if required and value is ABSENT:
                    raise _unusable("required-field-unreadable", "can't be read", DATA_TYPE, location)
                return value  # something was sent: the default is for messages that say nothing
        if value is ABSENT and default is not None:
            return default
        if required and (value is ABSENT or value is None):
            raise _unusable("required-field-missing", "is required and missing", REQUIRED_FIELD_MISSING, location)
        return value

    return strict


def _unusable(error: str, text: str, hl7_code: int, location: str) -> MessageError:
    return MessageError(error, text, hl7_code=hl7_code, location=location)
