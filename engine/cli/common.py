"""What all commands share: the options of the contract, output as a table or as one JSON document, exit codes."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from engine import printable
from engine.cli import tables, times
from engine.cli.tables import Column
from engine.domain.moment import Moment
from engine.errors import HandoffError

if TYPE_CHECKING:
    from engine.clock import Clock
    from engine.errors import Problem, SettingsError
    from engine.outline import Outline, Place
    from engine.settings import Configuration
    from engine.snapshot import Snapshot

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_SAID_CHARACTERS_MAX: Final = 500
_STYLE: Final = re.compile(r"(\x1b\[(?:31|33|0)m)")
"""What `tables.alarm` writes."""

NO: Final = 1
"""The answer is no: a check failed, a difference was found, a file was refused, nothing of that name."""
USAGE: Final = 2
UNAVAILABLE: Final = 69
"""The store or the daemon can't be reached (EX_UNAVAILABLE)."""
WRONG_CONFIGURATION: Final = 78
"""EX_CONFIG."""


_NOTHING_SAID: Final[dict[str, Any]] = {"calendar": None, "purpose": None, "clock": None}


class Cli:
    """One run of the command: its options, and where its output goes."""

    def __init__(self) -> None:
        self.config: Path | None = None
        self.json = False
        self.wide = False
        """Tables are as wide as they are, whatever the terminal."""
        self.utc = False
        self.shadow = False
        """What is read are the charts of channels in shadow."""
        self.ids = False
        """Lists print the ids alone, one a line."""
        self.columns: tuple[str, ...] = ()
        """The columns that a table is to have; none: all."""
        self.before_output: Callable[[], object] = lambda: None
        """What has to be done before anything is shown: putting it on record."""
        self.store: str | None = None
        """Where the store is, as people are told it, once the configuration has been read."""

    # --- output ---

    def print(self, document: Any, human: str) -> None:
        """The one result of a command: a JSON document with `--json`, a list's ids with `-o id`, else a text."""
        if self.ids and isinstance(document, list):
            self.write("".join(f"{one}\n" for one in ids_of(document)), end=False)
            return
        self.write(_json_text(document) if self.json else _printable(human))

    def write(self, text: str, *, end: bool = True) -> None:
        """To stdout. end: with the end of the line."""
        self.before_output()
        try:
            click.echo(text, nl=end)
        except OSError as error:
            if error.errno == errno.EPIPE:  # nobody reads on: click ends quietly
                raise
            raise HandoffError(f"the output can't be written: {error.strerror}") from None

    def say(self, text: str) -> None:
        """Progress and remarks; never on stdout, which belongs to the result."""
        click.echo(_printable(text), err=True)

    def cut(self, shown: int, total: int | None, *, narrow: str = "") -> None:
        """Say that a list was cut. total: how many there are; none: not counted. narrow: options that help besides."""
        of = f"{shown:,} of {total:,} shown" if total is not None else f"the first {shown:,} shown, there are more"
        self.say(f"{of}; --limit N shows more" + (f", {narrow} fewer" if narrow else ""))

    def first(
        self, found: Sequence[T], limit: int, count: Callable[[], int] | None = None, *, narrow: str = ""
    ) -> Sequence[T]:
        """What a list shows of what was read for it, which is one more where there are more: that is said then.

        count: how many there are; none: not counted. narrow: as in `cut`.
        """
        if len(found) > limit:
            self.cut(limit, count() if count is not None else None, narrow=narrow)
        return found[:limit]

    def fail(self, text: str, *, hint: str | None = None, problems: Iterable[Problem] = ()) -> None:
        self.say(f"handoff: {text}" + (f"\n{hint}" if hint else ""))
        self.fail_json(text, problems=problems)

    def fail_json(self, text: str, *, problems: Iterable[Problem] = ()) -> None:
        """With `--json` a failure is a document too."""
        if self.json:
            details = [problem_shape(problem) for problem in problems]
            error = {"message": text} | ({"problems": details} if details else {})
            with contextlib.suppress(HandoffError):
                self.print({"error": error}, "")

    # --- the site ---

    @cached_property
    def zone(self) -> tzinfo:
        """The site's (`calendar.timezone`), in which times are read and shown; UTC where it can't be known."""
        if self.utc:
            return UTC
        from zoneinfo import ZoneInfo

        from engine.outline import TIMEZONE

        try:
            calendar = self._said["calendar"] or {}
            return ZoneInfo(calendar.get("timezone", TIMEZONE))
        except (ValueError, LookupError, TypeError, AttributeError):
            return UTC

    @cached_property
    def clock(self) -> Clock:
        """The site's, by which times are read and shown; the system's where it can't be known."""
        from engine.clock import site_clock

        try:
            file = self._said["clock"]["offset_seconds_file"] if self._said["purpose"] == "test" else None
            return site_clock(None if file is None else self.config_path.parent / file)
        except (LookupError, TypeError):
            return site_clock(None)

    @cached_property
    def _said(self) -> Mapping[str, Any]:
        """What config.yaml says, word for word; nothing where it can't be read."""
        from engine.yamlfile import parse

        try:
            site = parse(self.config_path.read_text(encoding="utf-8-sig"), "").value
        except (HandoffError, OSError, ValueError):
            return _NOTHING_SAID
        return _NOTHING_SAID | site if isinstance(site, dict) else _NOTHING_SAID

    @property
    def config_path(self) -> Path:
        return self.config or Path(os.environ.get("HANDOFF_CONFIG") or "config.yaml")

    def existing_config(self) -> Path:
        """The path of config.yaml. Raises SettingsError when there is no such file."""
        from engine.errors import Problem, SettingsError

        path = self.config_path
        if not path.exists():
            where = "there is no such file; make a site with `handoff init DIR`, or name one with --config"
            raise SettingsError((Problem(str(path), 1, 1, "", where),))
        return path

    @cached_property
    def snapshot(self) -> Snapshot:
        """The site's files, as they were when the command first looked. Raises SettingsError."""
        from engine.snapshot import Snapshot

        return Snapshot.read(self.existing_config())

    def outline(self) -> Outline | None:
        """What leads to the store, and the names of channels and destinations, if that can be told without more ado.

        Nothing else of the configuration is looked at: it may be wrong. None: see `readable_configuration`.
        """
        from engine.errors import SettingsError
        from engine.outline import outline

        try:
            found = outline(self.snapshot)
        except SettingsError:
            return None
        if found is not None:
            self.store = _where(found)
        return found

    def configuration(self) -> Configuration:
        """The site's configuration, shapes and references checked. Raises SettingsError."""
        from engine.connectors.registry import load

        loaded = load(self.snapshot)
        self.store = _where(loaded)
        return loaded

    def readable_configuration(self, *, usual_place: bool = False) -> tuple[Configuration, SettingsError | None]:
        """The configuration as far as it can be read: what is wrong in it keeps nobody from looking at the store.

        With the problems, when it is broken: then it names the store, and no channel. Raises SettingsError when not
        even the store can be found; usual_place: then it is taken to be where it is when nobody names it.
        """
        from engine.connectors.registry import load
        from engine.errors import SettingsError
        from engine.settings import store_only

        broken: SettingsError | None = None
        try:
            loaded = load(self.snapshot, references="optional")
        except SettingsError as error:
            loaded, broken = store_only(self.existing_config(), usual_place=usual_place), error
        self.store = _where(loaded)
        return loaded, broken


class Listing:
    """The one result of a command that is a list, however long: each part becomes text at once, and only that is kept.

    Nothing is printed before all of it is there: a command that fails prints its failure alone.
    """

    def __init__(self, cli: Cli, columns: Sequence[str | Column]) -> None:
        self._cli = cli
        self._columns = columns
        self._parts: list[str] = []
        self._rows: list[list[str]] = []
        self._ids: list[str] = []

    def add(self, shapes: Sequence[Any], rows: Iterable[Sequence[object]]) -> None:
        """shapes: for the JSON document. rows: the same as a table shows it, with its columns."""
        if self._cli.ids:
            self._ids += ids_of(shapes)
        elif not self._cli.json:
            self._rows += tables.cells(rows)
        elif shapes:
            self._parts.append(_json_text(shapes).removeprefix("[").removesuffix("\n]"))

    def print(self, nothing: str) -> None:
        """nothing: what to say when there is none."""
        if self._cli.ids:
            self._cli.write("".join(f"{one}\n" for one in self._ids), end=False)
            return
        if not self._cli.json or not self._parts:
            self._cli.print([], tables.table(self._columns, self._rows) or nothing)
            return
        for number, part in enumerate(self._parts):
            self._cli.write(f"{',' if number else '['}{part}", end=False)
        self._cli.write("\n]")


_ID_KEYS: Final = ("id", "key", "name", "patient_key")


def ids_of(shapes: Sequence[Mapping[str, Any]]) -> list[str]:
    """By what other commands take the things of a list. Raises UsageError when it lists nothing that has an id."""
    key = next((key for key in _ID_KEYS if key in shapes[0]), None) if shapes else ""
    if key is None:
        raise click.UsageError("what this lists has no ids")
    return list(dict.fromkeys(str(one[key]) for one in shapes if one[key] is not None))


def _json_text(document: Any) -> str:
    import msgspec

    return printable.escaped(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def _where(site: Place) -> str:
    """The store's URL without its user and password."""
    from urllib.parse import parse_qs, urlsplit

    scheme, _, rest = site.store_url.partition(":///")
    if scheme == "sqlite":
        return str(site.path(rest.partition("?")[0]))
    try:
        url = urlsplit(site.store_url)
    except ValueError:
        return "PostgreSQL"
    hosts = parse_qs(url.query).get("host") or [url.netloc.rpartition("@")[2] or "this machine"]
    return f"the PostgreSQL database {url.path.lstrip('/')} at {', '.join(hosts)}"


def counted(number: int, what: str) -> str:
    """`1 channel`, `2 channels`, `2 deliveries`."""
    several = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number:,} {what if number == 1 else several}"


def problem_shape(problem: Problem) -> dict[str, Any]:
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "key": problem.key,
        "message": problem.message,
        "level": problem.level,
    }


# --- options ---------------------------------------------------------------------------------------------------------


def config_option(function: F) -> F:
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        expose_value=False,
        is_eager=True,
        callback=_remember_config,
        help="The site's config.yaml.  [default: $HANDOFF_CONFIG, else ./config.yaml]",
    )(function)


def json_option(function: F) -> F:
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_remember_json,
        help="Print one JSON document.",
    )(function)


def listing_options(function: F) -> F:
    """`--json`, `--wide`, `--utc`: of commands that show tables."""
    for name, text in (("utc", "Show and read times in UTC."), ("wide", "Show tables whole, however wide.")):
        function = click.option(
            f"--{name}", is_flag=True, expose_value=False, is_eager=True, callback=_remember_flag, help=text
        )(function)
    return json_option(function)


def list_options(function: F) -> F:
    """`listing_options`, and what the list is to show: of commands whose result is one list."""
    function = click.option(
        "--columns", metavar="NAME,...", expose_value=False, is_eager=True, callback=_remember_columns,
        help="Show only these columns, in this order.",
    )(function)  # fmt: skip
    function = click.option(
        "-o", "--output", type=click.Choice(("table", "json", "id")), expose_value=False, is_eager=True,
        callback=_remember_output, help="id: only the ids, one a line.  [default: table]",
    )(function)  # fmt: skip
    return listing_options(function)


def shadow_option(function: F) -> F:
    """`--shadow`: of commands that only look."""
    return click.option(
        "--shadow", is_flag=True, expose_value=False, is_eager=True, callback=_remember_flag,
        help="What channels in shadow would have done, in place of what was done.",
    )(function)  # fmt: skip


def _remember_columns(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(Cli).columns = tuple(name.strip() for name in value.split(",") if name.strip())


def _remember_output(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    cli = ctx.ensure_object(Cli)
    cli.json, cli.ids = cli.json or value == "json", value == "id"


def _remember_flag(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        setattr(ctx.ensure_object(Cli), parameter.name or "", value)


def _remember_config(ctx: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.ensure_object(Cli).config = value


def _remember_json(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Cli).json = True


def limit_option(function: F) -> F:
    return click.option(
        "--limit",
        type=click.IntRange(1, 1_000_000),
        metavar="N",
        default=100,
        show_default=True,
        help="At most so many.",
    )(function)


def reveal_options(function: F) -> F:
    """Adds `reveal` and `reason`; see `site.reveal_of`."""
    function = click.option("--reason", metavar="TEXT", type=Private(), help="Why; written to the audit; - asks.")(
        function
    )
    return click.option("--reveal", is_flag=True, help="Show patient data unmasked; needs --reason.")(function)


class Row(click.ParamType[int]):
    """The number of an entry, a dead letter or the like. listed: the command that shows them; hint: what else helps."""

    name = "id"

    def __init__(self, what: str, listed: str, hint: str = "") -> None:
        self._what, self._listed, self._hint = what, listed, hint

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if not (text.isascii() and text.isdigit() and 0 < int(text[:20]) <= _ROW_MAX):
            hint = f"; {self._hint.format(shlex.quote(text))}" if self._hint and text.isprintable() else ""
            self.fail(
                f"{text!r} is not the id of {self._what}: that is a number, see `{self._listed}`{hint}", param, ctx
            )
        return int(text)


_ROW_MAX: Final = (1 << 63) - 1


_ASKED_CHARACTERS_MAX: Final = 64_000


class Private(click.ParamType[str]):
    """What may say something of a patient. `-` asks for it, or reads a line of standard input when that is no terminal:
    an argument can be seen by everybody on the machine while the command runs, and stays in the shell's history.

    Several `-` of one command read a line each: options first, in the order in which they stand, then arguments.
    """

    name = "text"
    hidden = False
    """It is not shown while it is typed."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return self.read(self._asked(param, ctx) if value == "-" else str(value), param, ctx)

    def read(self, value: str, _param: click.Parameter | None, _ctx: click.Context | None) -> str:
        """The value of what was given or asked for."""
        return value

    def _asked(self, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if sys.stdin is None:
            self.fail("standard input is closed", param, ctx)
        what = (param.name or self.name).replace("_", " ").capitalize() if param is not None else self.name
        if sys.stdin.isatty():
            text = click.prompt(what, hide_input=self.hidden, err=True)
        else:
            text = sys.stdin.readline(_ASKED_CHARACTERS_MAX)
        if not str(text).strip():
            self.fail(f"standard input holds no {what.lower()}", param, ctx)
        return str(text).strip()


def asked_for(what: str, *, again: bool = False) -> str:
    """What nobody is to see: asked for without echo, or the first line of standard input."""
    if sys.stdin is None:
        raise click.UsageError("standard input is closed")
    if sys.stdin.isatty():
        return str(click.prompt(what, hide_input=True, confirmation_prompt=again, err=True))
    text = sys.stdin.readline(1000).rstrip("\r\n")
    if not text:
        raise click.UsageError(f"standard input holds no {what.lower()}")
    return text


class Said(Private):
    """A text that a person gives and that is kept: not empty, on one line."""

    def read(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = value.strip()
        if not text or len(text) > _SAID_CHARACTERS_MAX or not text.isprintable():
            self.fail(f"must be a text of one line, of {_SAID_CHARACTERS_MAX} characters at most", param, ctx)
        return text


# --- text for people -------------------------------------------------------------------------------------------------


def clock_time(at: datetime | str | None) -> str | None:
    """A time as a column of `time_column` shows it: to the second, in the site's zone; a mere date as it is."""
    moment, zone = _moment(at), _zone()
    if moment is None:
        return at if isinstance(at, str) else None
    own = times.zone_name(moment, zone)
    return times.shown(moment, zone) + ("" if own == times.zone_name(_now(), zone) else f" {own}")


def named_time(at: datetime | str | None) -> str | None:
    """A time in a sentence: with its zone; a mere date as it is."""
    moment, zone = _moment(at), _zone()
    if moment is None:
        return at if isinstance(at, str) else None
    return f"{times.shown(moment, zone)} {times.zone_name(moment, zone)}"


def time_column(title: str, *, drop: int = 0) -> Column:
    """The zone is named once, in the head; a time of the other half of the year names its own."""
    return Column(f"{title} ({times.zone_name(_now(), _zone())})", kind="time", drop=drop)


def _moment(at: datetime | str | None) -> datetime | None:
    """The instant; none: a mere date, or nothing."""
    if not isinstance(at, str):
        return at
    time = Moment.read(at)
    return time.at if time is not None and time.timed else None


def _zone() -> tzinfo:
    context = click.get_current_context(silent=True)
    zone: tzinfo = getattr(context.obj if context is not None else None, "zone", UTC)
    return zone


def _now() -> datetime:
    return times.now_of(click.get_current_context(silent=True))


def _printable(text: str) -> str:
    """Nothing that drives a terminal, but the colours that we give it."""
    if not tables.in_colour():
        return printable.lines(text)
    return "".join(part if number % 2 else printable.lines(part) for number, part in enumerate(_STYLE.split(text)))


def complete_channel(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of channels, for the shell's completion."""
    return _names(ctx, incomplete, lambda outline: outline.channels)


def complete_destination(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _names(ctx, incomplete, lambda outline: outline.destinations)


def _names(ctx: click.Context, incomplete: str, pick: Callable[[Outline], Iterable[str]]) -> list[str]:
    """None where the configuration can't be read: a completion never fails."""
    cli = ctx.find_object(Cli) or Cli()
    outline = cli.outline()
    return sorted(name for name in pick(outline) if name.startswith(incomplete)) if outline is not None else []


def meant(word: str, known: Iterable[str]) -> str:
    """What somebody may have meant, for the end of a message: ` Did you mean west?`; empty: nothing is like it."""
    if not word:
        return ""
    near = difflib.get_close_matches(word, list(known), 3)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def called(*, from_elsewhere: bool = False) -> str:
    """How this command is called, as short as it can be written; from_elsewhere: in another folder than this one."""
    path = Path(sys.argv[0])
    if path.name != "handoff":
        return f"{shlex.quote(sys.executable)} -m engine"
    if (found := shutil.which("handoff")) is not None and path.exists() and Path(found).samefile(path):
        return "handoff"
    if not from_elsewhere and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return shlex.quote(str(path.absolute() if from_elsewhere else path))
