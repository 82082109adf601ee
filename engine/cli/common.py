"""What all commands share: the options of the contract, output as a table or as one JSON document, exit codes."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from engine.errors import HandoffError

if TYPE_CHECKING:
    from engine.settings import Configuration
    from engine.yamlfile import Problem

F = TypeVar("F", bound=Callable[..., Any])

_UNPRINTABLE: Final = {
    code: "\N{REPLACEMENT CHARACTER}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in {9, 10}
}
"""Control characters out of a message could drive the terminal of whoever looks at it."""
_SAID_CHARACTERS_MAX: Final = 500
_AGO: Final = re.compile(r"([0-9]{1,6})([wdhms])")

NO: Final = 1
"""The answer is no: a check failed, a difference was found, a file was refused, nothing of that name."""
USAGE: Final = 2
UNAVAILABLE: Final = 69
"""The store or the daemon can't be reached (EX_UNAVAILABLE)."""
WRONG_CONFIGURATION: Final = 78
"""EX_CONFIG."""


class Cli:
    """One run of the command: its options, and where its output goes."""

    def __init__(self) -> None:
        self.config: Path | None = None
        self.json = False
        self.store: str | None = None
        """Where the store is, as people are told it, once the configuration has been read."""

    # --- output ---

    def print(self, document: Any, human: str) -> None:
        """The one result of a command: a JSON document with `--json`, else a text for people."""
        self.write(_json_text(document) if self.json else human.translate(_UNPRINTABLE))

    def write(self, text: str, *, end: bool = True) -> None:
        """To stdout. end: with the end of the line."""
        try:
            click.echo(text, nl=end)
        except OSError as error:
            if error.errno == errno.EPIPE:  # nobody reads on: click ends quietly
                raise
            raise HandoffError(f"the output can't be written: {error.strerror}") from None

    def say(self, text: str) -> None:
        """Progress and remarks; never on stdout, which belongs to the result."""
        click.echo(text, err=True)

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

    @property
    def config_path(self) -> Path:
        return self.config or Path(os.environ.get("HANDOFF_CONFIG") or "config.yaml")

    def existing_config(self) -> Path:
        """The path of config.yaml. Raises SettingsError when there is no such file."""
        from engine.errors import SettingsError
        from engine.yamlfile import Problem

        path = self.config_path
        if not path.exists():
            where = "there is no such file; make a site with `handoff init DIR`, or name one with --config"
            raise SettingsError((Problem(str(path), 1, 1, "", where),))
        return path

    def configuration(self) -> Configuration:
        """The site's configuration, shapes and references checked. Raises SettingsError."""
        from engine.settings import Snapshot, load

        loaded = load(Snapshot.read(self.existing_config()))
        self.store = _where(loaded)
        return loaded


class Listing:
    """The one result of a command that is a list, however long: each part becomes text at once, and only that is kept.

    Nothing is printed before all of it is there: a command that fails prints its failure alone.
    """

    def __init__(self, cli: Cli, headers: Sequence[str]) -> None:
        self._cli = cli
        self._headers = headers
        self._parts: list[str] = []
        self._rows: list[list[str]] = []

    def add(self, shapes: Sequence[Any], rows: Iterable[Sequence[object]]) -> None:
        """shapes: for the JSON document. rows: the same as a table shows it, with the columns of the headers."""
        if not self._cli.json:
            self._rows += _cells(rows)
        elif shapes:
            self._parts.append(_json_text(shapes).removeprefix("[").removesuffix("\n]"))

    def print(self, nothing: str) -> None:
        """nothing: what to say when there is none."""
        if not self._cli.json or not self._parts:
            self._cli.print([], table(self._headers, self._rows) or nothing)
            return
        for number, part in enumerate(self._parts):
            self._cli.write(f"{',' if number else '['}{part}", end=False)
        self._cli.write("\n]")


def _json_text(document: Any) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def _where(configuration: Configuration) -> str:
    """The store's URL without its user and password."""
    from urllib.parse import parse_qs, urlsplit

    scheme, _, rest = configuration.site.store.url.partition(":///")
    if scheme == "sqlite":
        return str(configuration.path(rest.partition("?")[0]))
    try:
        url = urlsplit(configuration.site.store.url)
    except ValueError:
        return "PostgreSQL"
    hosts = parse_qs(url.query).get("host") or [url.netloc.rpartition("@")[2] or "this machine"]
    return f"the PostgreSQL database {url.path.lstrip('/')} at {', '.join(hosts)}"


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
    function = click.option("--reason", metavar="TEXT", help="Why; written to the audit.")(function)
    return click.option("--reveal", is_flag=True, help="Show patient data unmasked; needs --reason.")(function)


ROW: Final = click.IntRange(1, (1 << 63) - 1)
"""The number of an entry, a dead letter or a delivery."""


class Said(click.ParamType[str]):
    """A text that a person gives and that is kept: not empty, on one line."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).strip()
        if not text or len(text) > _SAID_CHARACTERS_MAX or not text.isprintable():
            self.fail(f"must be a text of one line, of {_SAID_CHARACTERS_MAX} characters at most", param, ctx)
        return text


_UNITS: Final = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


class Span(click.ParamType[timedelta]):
    """A length of time: `30m`, `2h`, `1d`."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        span = _AGO.fullmatch(str(value).strip())
        try:
            found = timedelta(**{_UNITS[span[2]]: int(span[1])}) if span is not None else timedelta()
        except OverflowError:
            found = timedelta()
        if not timedelta() < found <= timedelta(days=366):
            self.fail("must be a length of time like 30m, 2h or 1d, of a year at most", param, ctx)
        return found


class When(click.ParamType[datetime]):
    """A time: ISO 8601 (this machine's zone, without an offset), or a while ago (`7d`, `2h`, `30m`)."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        ago = _AGO.fullmatch(text)
        if ago is not None:
            try:
                return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
            except OverflowError:
                self.fail("is too long ago", param, ctx)
        try:
            return datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail("must be a time like 2026-11-22T08:00 or a while ago like 7d, 2h, 30m", param, ctx)


# --- text for people -------------------------------------------------------------------------------------------------


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns; an empty table is an empty text. None is shown as a dash."""
    lines = _cells(rows)
    if not lines:
        return ""
    widths = [max(len(line[index]) for line in [list(headers), *lines]) for index in range(len(headers))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [[header.upper() for header in headers], *lines]
    )


def _cells(rows: Iterable[Sequence[object]]) -> list[list[str]]:
    return [[("-" if cell is None else str(cell)) for cell in row] for row in rows]


def clock_time(at: datetime | str | None) -> str | None:
    """A time as tables show it: to the second, in this machine's zone; one without a time of day as it is."""
    if at is None or (isinstance(at, str) and "T" not in at):
        return at
    moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


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
