"""The filter language: one condition over the fields of a message, compiled once to a closure.

For those who write filters, docs/reference/mapping.md is the reference.

    PV1-2 in ('I', 'E', 'O') and not (PID-3.4.1 == 'TEST' or PV1-3.1 matches '^ZZ')

- A *path* is what `engine.hl7v2.path` reads; without a component it means the first one.
- A *value* is a text in single or double quotes (no escapes: use the other quote), or a number. A number equals a field
  that is the same number (`1`, `01`, `1.0`).
- An absent or empty field is `''`. A bare path is true when the field is valued (not empty, not the null `""`).
- A path with `[*]` stands for all its values: `==`, `in` and `matches` ask whether any of them does; `!=`, `not in` and
  `not matches` are the exact opposite: none of them does.
- `matches` finds the pattern anywhere in the text; anchor it with `^` and `$`. Patterns that could take long on a text
  that a sender makes up are refused when the filter is compiled. All of them together have a budget for each message;
  a message that would use it up is a dead letter (`filter-budget`), never silently left out.

Own parser, because a filter is configuration that runs on every message: no calls, no attributes, no loops, so there is
nothing to sandbox, and 1-5 microseconds where the general languages need 20 and more.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

from engine.errors import VALUE_TOO_LONG, HandoffError, MessageError
from engine.hl7v2.message import NULL
from engine.hl7v2.path import Path, PathError, elsewhere
from engine.hl7v2.segments import nowhere
from engine.mapping.functions import several

TEXT_CHARS_MAX: Final = 4096
DEPTH_MAX: Final = 32
PATTERN_CHARS_MAX: Final = 256
PATTERN_STEPS_MAX: Final = 1 << 24
"""The most steps that a pattern may need on the longest text it is given: about a quarter of a second."""
MESSAGE_STEPS_MAX: Final = 4 * PATTERN_STEPS_MAX
"""The most that all patterns may need for one message: a second, where it is as bad as it can be."""
SUBJECT_CHARS_MAX: Final = 4096
"""`matches` looks at so many characters of a value (at 256 when the pattern is costly)."""
_SUBJECT_CHARS_SMALL: Final = 256
_REPEAT_MAX: Final = 100
_HEADERS: Final = frozenset({"MSH", "BHS", "FHS"})
_SEPARATORS: Final = {"^": "component", "~": "repetition", "|": "field"}
_ELSEWHERE_CHARS_MAX: Final = 64
_POINTED_CHARS_MAX: Final = 100


class FilterError(HandoffError):
    """A filter can't be compiled. Line and column count from 1, in the filter's text."""

    def __init__(self, text: str, line: int, column: int, source: str = "") -> None:
        super().__init__(f"line {line}, column {column}: {text}")
        self.text = text
        self.line = line
        self.column = column
        self.source = source
        """The line of the filter."""

    @property
    def pointed(self) -> str:
        """The place, as people find it: the line with a caret below."""
        first = max(0, self.column - 1 - _POINTED_CHARS_MAX // 2)
        shown = self.source[first : first + _POINTED_CHARS_MAX].replace("\t", " ")
        return f"    {shown}\n    {' ' * (self.column - 1 - first)}^"


@dataclass(frozen=True, slots=True)
class Literal:
    """A text that a path is compared with. said: makes what is to be said of it, with its place."""

    path: Path
    text: str
    said: Callable[[str], FilterError]


class Source(Protocol):
    """What a filter reads: a message, or one segment of it."""

    def get(self, path: Path) -> str | None: ...

    def all(self, path: Path) -> list[str]: ...


class Budget:
    """What the patterns of all filters may cost with one message, in steps; many long values would take minutes."""

    __slots__ = ("steps",)

    def __init__(self, steps: int = MESSAGE_STEPS_MAX) -> None:
        self.steps = steps

    def spend(self, steps: int, path: Path) -> None:
        """Raises MessageError when there is not so much left: what can't be judged is for a person, never left out."""
        self.steps -= steps
        if self.steps < 0:
            raise MessageError(
                "filter-budget",
                "the patterns of `matches` would take too long with the values of this message",
                hl7_code=VALUE_TOO_LONG,
                location=path.text,
            )


_Test = Callable[[Source, Budget], bool]
Known = Callable[[Path], bool]
_Could = Callable[[Source, Known], tuple[bool, bool]]
"""Whether a condition can hold, and whether it can fail, when of a message some places alone are known."""
_Values = Callable[[Source], Sequence[str]]


class Filter:
    """A compiled filter."""

    __slots__ = ("_could", "_test", "costly", "doubts", "literals", "paths", "text")

    def __init__(
        self,
        text: str,
        test: _Test,
        could: _Could,
        paths: tuple[Path, ...],
        doubts: tuple[FilterError, ...] = (),
        literals: tuple[Literal, ...] = (),
        *,
        costly: bool,
    ) -> None:
        self.text = text
        self.doubts = doubts
        """What can never be: paths that lead beyond a segment, one component that has to be two things at once."""
        self.literals = literals
        """The texts that paths are compared with."""
        self.paths = paths
        """What it reads."""
        self.costly = costly
        """It has patterns, and so needs the message's budget."""
        self._test = test
        self._could = could

    def can_hold(self, source: Source, known: Known) -> bool:
        """Whether it can hold for a message of which the places that are known are as in this one.

        What else a message says is taken as free: false is certain, true is not.
        """
        return self._could(source, known)[0]

    def __call__(self, source: Source, budget: Budget | None = None) -> bool:
        """Whether it holds. budget: what is left of the message's; none: a new one.

        Raises MessageError when a limit is passed (of repetitions, or of the budget), and nothing else whatever the
        message holds.
        """
        return self._test(source, budget or Budget())


def compile_filter(text: str) -> Filter:
    """Compile a filter. Raises FilterError, and nothing else, for any text that is not one."""
    if len(text) > TEXT_CHARS_MAX:
        raise FilterError(f"a filter has at most {TEXT_CHARS_MAX} characters", 1, 1)
    parser = _Parser(text)
    test = parser.parse()
    read = tuple(parser.paths)
    return Filter(text, test, parser.could, read, tuple(parser.doubts), tuple(parser.literals), costly=parser.costly)


# --- tokens ----------------------------------------------------------------------------------------------------------

_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<path>[A-Z][A-Z0-9]{2}(?:\[[^\]\n]*\])?-[0-9]+(?:\[(?:'[^'\n]*'|"[^"\n]*"|[^\]'"\n])*\])?(?:\.[0-9]+)*)
      | (?P<number>-?[0-9]+(?:\.[0-9]+)?)
      | (?P<string>'[^'\n]*'|"[^"\n]*")
      | (?P<word>[A-Za-z][A-Za-z0-9_]*)
      | (?P<sign>==|!=|[()\[\],])""",
    re.VERBOSE,
)
_KEYWORDS: Final = frozenset({"and", "or", "not", "in", "matches"})
_HINTS: Final = {
    "=": "write == to compare", "<": "there is no order of fields, only == and !=", ">": "there is no order of fields, "
    "only == and !=", "&": "write `and`", "|": "write `or`", "!": "write `not`, or != between two things",
    "'": "this text is not closed", '"': "this text is not closed",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # path, number, string, end, or the keyword or sign itself
    text: str
    at: int


class _Parser:
    """Recursive descent, one method a level of precedence: or, and, not, comparison, operand."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = self._tokens()
        self.index = 0
        self.depth = 0
        self.paths: list[Path] = []
        self.doubts: list[FilterError] = []
        self.literals: list[Literal] = []
        self.demand: tuple[Path, frozenset[str], int] | None = None
        """What the condition that was read last asks for: the path must be one of these texts."""
        self.could: _Could = _anything
        """Of the condition that was read last."""
        self.costly = False

    def fail(self, text: str, at: int) -> NoReturn:
        raise self.error(text, at)

    def error(self, text: str, at: int) -> FilterError:
        before = self.text[:at]
        line, column = before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1
        lines = self.text.split("\n")
        return FilterError(text, line, column, lines[line - 1])

    def _tokens(self) -> list[_Token]:
        tokens: list[_Token] = []
        at = 0
        while at < len(self.text):
            found = _TOKEN.match(self.text, at)
            if found is None:
                self._fail_as_elsewhere(at)
                self.fail(_HINTS.get(self.text[at], "this character means nothing here"), at)
            kind, text = str(found.lastgroup), found.group()
            if kind == "word" and text in _KEYWORDS:
                kind = text
            elif kind == "word":
                self._fail_as_elsewhere(at)
                lower = text.lower()
                self.fail(
                    f"write `{lower}` in lower case"
                    if lower in _KEYWORDS
                    else "neither a path (like PV1-2 or PID-3[type=MR].1) nor a keyword; texts stand in quotes",
                    at,
                )
            elif kind == "sign":
                kind = text
            elif kind == "path" and self.text[found.end() : found.end() + 2].strip("0123456789") == "-":
                self._fail_as_elsewhere(at)
            if kind != "space":
                tokens.append(_Token(kind, text, at))
            at = found.end()
        tokens.append(_Token("end", "", len(self.text)))
        return tokens

    def _fail_as_elsewhere(self, at: int) -> None:
        """Fail with the right path when what stands here is a path in the notation of another engine."""
        if (meant := elsewhere(self.text[at : at + _ELSEWHERE_CHARS_MAX])) is not None:
            self.fail(f"write {meant}: this is how other engines write it", at)

    @property
    def token(self) -> _Token:
        return self.tokens[self.index]

    def take(self, kind: str) -> _Token | None:
        token = self.token
        if token.kind != kind:
            return None
        self.index += 1
        return token

    def parse(self) -> _Test:
        if self.token.kind == "end":
            self.fail("the filter is empty", 0)
        test = self.any_of()
        if self.token.kind != "end":
            self.fail("expected `and`, `or` or the end", self.token.at)
        return test

    def any_of(self) -> _Test:
        tests, coulds = [self.all_of()], [self.could]
        while self.take("or"):
            tests.append(self.all_of())
            coulds.append(self.could)
            self.demand = None
        self.could = _could_any_of(coulds)
        return tests[0] if len(tests) == 1 else _any_of(tuple(tests))

    def all_of(self) -> _Test:
        tests, demands, coulds = [self.negation()], [self.demand], [self.could]
        while self.take("and"):
            tests.append(self.negation())
            demands.append(self.demand)
            coulds.append(self.could)
        self.could = _could_all_of(coulds)
        self.check_together(demands)
        self.demand = demands[0] if len(demands) == 1 else None
        return tests[0] if len(tests) == 1 else _all_of(tuple(tests))

    def negation(self) -> _Test:
        negative = False
        while self.take("not"):
            negative = not negative
        test = self.comparison()
        if negative:
            self.demand = None
            self.could = _could_not(self.could)
        return _negated(test) if negative else test

    def check_together(self, demands: Sequence[tuple[Path, frozenset[str], int] | None]) -> None:
        """One component has one value: what is joined by `and` must leave one."""
        left: dict[str, frozenset[str]] = {}
        for path, texts, at in filter(None, demands):
            both = left.get(path.text, texts) & texts
            if not both:
                text = f"{path.text} can't be both {_listed(left[path.text])} and {_listed(texts)}: is `or` meant?"
                self.doubts.append(self.error(text, at))
            left[path.text] = both or texts

    def comparison(self) -> _Test:
        start = self.token
        if self.take("("):
            self.depth += 1
            if self.depth > DEPTH_MAX:
                self.fail(f"nested more than {DEPTH_MAX} levels deep", start.at)
            test = self.any_of()
            if not self.take(")"):
                self.fail("expected `)`", self.token.at)
            self.depth -= 1
            return test
        before = len(self.paths)
        test = self.single()
        self.could = _could(test, tuple(self.paths[before:]))
        return test

    def single(self) -> _Test:
        """One comparison, or a path alone."""
        start = self.token
        left = self.operand()
        self.demand = None
        operator = self.token
        negative = operator.kind == "!="
        if self.take("==") or self.take("!="):
            right = self.operand()
            test = _equal(left, right)
            self.compared(left, [right], operator.at, negative=negative)
        else:
            negative = self.take("not") is not None
            if self.take("in"):
                values = self.values()
                test = _member(left, values)
                self.compared(left, values, operator.at, negative=negative)
            elif self.take("matches"):
                test = self.match(left)
            elif negative:
                self.fail("expected `in` or `matches` after `not`", self.token.at)
            elif isinstance(left, Path):
                return _valued(left)
            else:
                self.fail("a value alone is no condition: compare it with a path", start.at)
        if self.token.kind in {"==", "!=", "in", "not", "matches"}:
            self.fail("one comparison at a time: join two with `and` or `or`", self.token.at)
        return _negated(test) if negative else test

    def compared(
        self, left: Path | str | float, values: Sequence[Path | str | float], at: int, *, negative: bool
    ) -> None:
        texts = [value for value in values if isinstance(value, str)]
        if not isinstance(left, Path):
            return
        self.literals += [Literal(left, text, lambda said: self.error(said, at)) for text in texts]
        if len(texts) == len(values) and not negative and not several(left):
            self.demand = left, frozenset(texts), at

    def operand(self) -> Path | str | float:
        token = self.token
        if self.take("path"):
            try:
                path = Path.parse(token.text)
            except PathError as error:
                self.fail(error.text, token.at + error.column - 1)
            if (reason := nowhere(path)) is not None:
                self.doubts.append(self.error(f"{path.text} is always empty: {reason}", token.at))
            self.paths.append(path)
            return path
        self.check_one_component(token)
        value = self.value()
        if value is None:
            self.fail("expected a path (like PV1-2), a text in quotes or a number", token.at)
        return value

    def check_one_component(self, token: _Token) -> None:
        """A path stands for one component, in which no separator can be."""
        text = token.text[1:-1]
        sign = next((sign for sign in _SEPARATORS if sign in text), None)
        if token.kind != "string" or sign is None:
            return
        path = self.paths[-1] if self.paths else None
        if path is not None and path.segment in _HEADERS and path.field <= 2:  # they hold the separators themselves
            return
        hint = f"compare each {_SEPARATORS[sign]} with a text of its own"
        if sign == "^" and path is not None and "." not in path.text.partition("-")[2]:
            parts = [(number, part) for number, part in enumerate(text.split("^"), 1) if part]
            hint = "write " + " and ".join(f"{path.text}.{number} == '{part}'" for number, part in parts)
        self.fail(f"a text with {sign} never equals one component: {hint}", token.at)

    def value(self) -> str | float | None:
        if token := self.take("string"):
            return token.text[1:-1]
        if token := self.take("number"):
            if len(token.text) > _NUMBER_CHARS_MAX:
                self.fail("this number is too long", token.at)
            return float(token.text)
        return None

    def values(self) -> list[str | float]:
        start = self.token
        if not self.take("(") and not self.take("["):
            self.fail("expected a list: ('I', 'E')", start.at)
        closing = ")" if start.kind == "(" else "]"
        values: list[str | float] = []
        while not self.take(closing):
            self.check_one_component(self.token)
            value = self.value()
            if value is None:
                self.fail("expected a text in quotes or a number", self.token.at)
            values.append(value)
            if not self.take(",") and self.token.kind != closing:
                self.fail(f"expected `,` or `{closing}`", self.token.at)
        if not values:
            self.fail("the list is empty", start.at)
        return values

    def match(self, left: Path | str | float) -> _Test:
        token = self.take("string")
        if token is None:
            self.fail("expected a pattern in quotes", self.token.at)
        if not isinstance(left, Path):
            self.fail("`matches` needs a path on its left", token.at)
        self.costly = True
        try:
            return _matching(left, _pattern(token.text[1:-1]))
        except _PatternError as error:
            self.fail(str(error), token.at + 1 + error.at)


# --- closures --------------------------------------------------------------------------------------------------------


def _listed(texts: frozenset[str]) -> str:
    return " or ".join(f"'{text}'" for text in sorted(texts))


_NUMBER_CHARS_MAX: Final = 15
_NUMBER: Final = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")


def _any_of(tests: tuple[_Test, ...]) -> _Test:
    def test(source: Source, budget: Budget) -> bool:
        for one in tests:  # noqa: SIM110  # any() would set up a generator for every message
            if one(source, budget):
                return True
        return False

    return test


def _all_of(tests: tuple[_Test, ...]) -> _Test:
    def test(source: Source, budget: Budget) -> bool:
        for one in tests:  # noqa: SIM110  # as above
            if not one(source, budget):
                return False
        return True

    return test


def _could(test: _Test, paths: tuple[Path, ...]) -> _Could:
    def could(source: Source, known: Known) -> tuple[bool, bool]:
        if not all(map(known, paths)):
            return True, True
        holds = test(source, Budget())
        return holds, not holds

    return could


def _anything(_source: Source, _known: Known) -> tuple[bool, bool]:
    return True, True


def _could_any_of(coulds: Sequence[_Could]) -> _Could:
    def could(source: Source, known: Known) -> tuple[bool, bool]:
        each = [one(source, known) for one in coulds]
        return any(holds for holds, _ in each), all(fails for _, fails in each)

    return could


def _could_all_of(coulds: Sequence[_Could]) -> _Could:
    def could(source: Source, known: Known) -> tuple[bool, bool]:
        each = [one(source, known) for one in coulds]
        return all(holds for holds, _ in each), any(fails for _, fails in each)

    return could


def _could_not(inner: _Could) -> _Could:
    def could(source: Source, known: Known) -> tuple[bool, bool]:
        holds, fails = inner(source, known)
        return fails, holds

    return could


def _negated(test: _Test) -> _Test:
    return lambda source, budget: not test(source, budget)


def _valued(path: Path) -> _Test:
    if several(path):
        return lambda source, _: any(value not in {"", NULL} for value in source.all(path))
    return lambda source, _: source.get(path) not in {None, "", NULL}


def _values(path: Path) -> _Values:
    if several(path):
        return lambda source: source.all(path) or ("",)
    return lambda source: (source.get(path) or "",)


def _same(text: str, number: float) -> bool:
    return len(text) <= _NUMBER_CHARS_MAX and _NUMBER.fullmatch(text) is not None and float(text) == number


def _equal(left: Path | str | float, right: Path | str | float) -> _Test:
    if isinstance(left, Path) and isinstance(right, Path):
        first, second = _values(left), _values(right)
        return lambda source, _: not set(first(source)).isdisjoint(second(source))
    if isinstance(left, Path):
        return _member(left, [right])  # type: ignore[list-item]  # the branch above took the paths
    if isinstance(right, Path):
        return _member(right, [left])
    constant = _in(left, [right])
    return lambda _, __: constant


def _in(value: str | float, wanted: list[str | float]) -> bool:
    if isinstance(value, str):
        return value in [w for w in wanted if isinstance(w, str)] or any(
            _same(value, w) for w in wanted if isinstance(w, float)
        )
    return value in [w for w in wanted if isinstance(w, float)] or any(
        _same(w, value) for w in wanted if isinstance(w, str)
    )


def _member(left: Path | str | float, wanted: list[str | float]) -> _Test:
    if not isinstance(left, Path):
        constant = _in(left, wanted)
        return lambda _, __: constant
    path = left
    texts = frozenset(w for w in wanted if isinstance(w, str))
    numbers = tuple(w for w in wanted if isinstance(w, float))
    if numbers:
        values = _values(path)
        return lambda source, _: any(v in texts or any(_same(v, n) for n in numbers) for v in values(source))
    if several(path):
        values = _values(path)
        return lambda source, _: not texts.isdisjoint(values(source))
    if len(texts) == 1:
        (only,) = texts
        return lambda source, _: (source.get(path) or "") == only
    return lambda source, _: (source.get(path) or "") in texts


def _matching(path: Path, pattern: Pattern) -> _Test:
    search, chars_max, factor, unbounded = pattern.compiled.search, pattern.chars_max, pattern.factor, pattern.unbounded
    values = _values(path)

    def test(source: Source, budget: Budget) -> bool:
        for value in values(source):
            subject = value[:chars_max]
            budget.spend(factor * len(subject) ** unbounded, path)
            if search(subject):
                return True
        return False

    return test


# --- patterns --------------------------------------------------------------------------------------------------------


class _PatternError(Exception):
    def __init__(self, text: str, at: int) -> None:
        super().__init__(text)
        self.at = at


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern and what it may cost: factor x length ** unbounded steps."""

    compiled: re.Pattern[str]
    chars_max: int
    """It is given so many characters of a value."""
    factor: int
    unbounded: int


def _pattern(text: str) -> Pattern:
    if len(text) > PATTERN_CHARS_MAX:
        raise _PatternError(f"a pattern has at most {PATTERN_CHARS_MAX} characters", 0)
    factor, unbounded = _cost(text)
    subject = SUBJECT_CHARS_MAX
    if factor * subject**unbounded > PATTERN_STEPS_MAX:
        subject = _SUBJECT_CHARS_SMALL
    if factor * subject**unbounded > PATTERN_STEPS_MAX:
        raise _PatternError("this pattern can take too long: use fewer * + ? {} and |, and start it with ^", 0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a pattern that Python warns of means something else some day
            return Pattern(re.compile(text), subject, factor, unbounded)
    except re.error as error:
        raise _PatternError(f"not a valid pattern: {error.msg}", error.pos or 0) from None
    except (Warning, OverflowError, RecursionError, ValueError):
        raise _PatternError("not a valid pattern", 0) from None


_ANCHOR: Final = re.compile(r"(\^|\\A)(?![*+?{])")
_QUANTIFIER: Final = re.compile(r"(?:\*|\+|\?|\{([0-9]*)(,?)([0-9]*)\})")
_GROUP: Final = re.compile(r"\((?:\?:|(?!\?))")
_ATOM: Final = re.compile(r"\\[^0-9]|\\$|\[\^?\]?(?:\\.|[^\]\\])*\]?|[^\\\[]", re.DOTALL)


def _cost(pattern: str) -> tuple[int, int]:
    """An upper bound of the ways that a search can go: factor x length ** unbounded.

    Each `?` doubles them, each `|` multiplies by the number of branches, each `*` or `+` by the length of the text, and
    so does a search that may begin anywhere. Nested repeats, look-around and back references are refused, because
    there the bound does not hold.
    """
    factor, unbounded = 1, 0
    # For each open group: [may it match in several ways?, branches]. The first one is the pattern itself.
    groups: list[list[int]] = [[0, 1]]
    varies = 0  # may what the next quantifier repeats match in several ways?
    at = 0
    while at < len(pattern) and factor <= PATTERN_STEPS_MAX:
        if quantifier := _QUANTIFIER.match(pattern, at):
            low, high = _bounds(quantifier, at)
            if varies and (low, high) != (0, 1):
                raise _PatternError("a repeat of something that can match in several ways is not allowed", at)
            if high is None:
                unbounded += 1
            else:
                factor *= high - low + 1
            groups[-1][0] |= low != high
            varies = 1
            at = quantifier.end()
        elif pattern[at] == "(":
            opening = _GROUP.match(pattern, at)
            if opening is None:
                raise _PatternError("only plain groups ( ) and (?: ) are allowed", at)
            groups.append([0, 1])
            varies, at = 0, opening.end()
        elif pattern[at] == ")":
            if len(groups) == 1:
                raise _PatternError("this `)` closes nothing", at)
            inner, branches = groups.pop()
            factor *= branches
            varies = inner | (branches > 1)
            groups[-1][0] |= varies
            at += 1
        elif pattern[at] == "|":
            groups[-1][1] += 1
            varies, at = 0, at + 1
        else:
            atom = _ATOM.match(pattern, at)
            if atom is None:
                raise _PatternError("back references are not allowed", at)
            varies, at = 0, atom.end()
    branches = groups[0][1]
    anchored = branches == 1 and _ANCHOR.match(pattern) is not None
    return factor * branches, unbounded + (0 if anchored else 1)


def _bounds(quantifier: re.Match[str], at: int) -> tuple[int, int | None]:
    sign = quantifier[0]
    if sign in {"*", "+"}:
        return int(sign == "+"), None
    if sign == "?":
        return 0, 1
    low, comma, high = quantifier.groups()
    least = int(low or 0)
    most = int(high) if high else None if comma else least
    if (not low and not high) or max(least, most or 0) > _REPEAT_MAX:
        raise _PatternError(f"a repeat is {{n}}, {{n,}} or {{n,m}} of at most {_REPEAT_MAX}", at)
    return least, most
