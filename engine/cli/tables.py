"""Tables for people: aligned columns, fitted to the terminal, with colour there. Piped output is never shortened.

Where a table is wider than the terminal, it gives way step by step: columns that say the same in every row go below it
in one line; times and ids take their short form; texts are cut; columns that matter least are left out, and named;
at last each row becomes a record. `--wide` shows all of it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import click

from engine.printable import single

_GAP: Final = "  "
_ELLIPSIS: Final = "…"
_SHORT_ID_CHARACTERS_MIN: Final = 8
_TIME: Final = re.compile(r"[0-9]{4}-([0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}):[0-9]{2}(?P<zone> .*)?")

Colour = Literal["red", "yellow"]


@dataclass(frozen=True)
class Column:
    """A column and how it gives way.

    kind: `time` (`2026-11-29 14:00:05`; short without year and seconds), `id` (short: as many characters as tell the
    rows apart, 8 at least). least: a text may be cut to so many characters; none: it stays whole. drop: left out where
    it is too narrow, the highest first; 0: never. common: goes below the table when it is the same in every row.
    alarm: values that are shown in red.
    """

    title: str
    kind: Literal["text", "time", "id"] = "text"
    least: int | None = None
    drop: int = 0
    common: bool = False
    alarm: Collection[str] = ()


def table(columns: Sequence[str | Column], rows: Iterable[Sequence[object]], *, width: int | None = None) -> str:
    """Aligned columns; an empty table is an empty text. None is shown as a dash.

    width: characters of a line at most; none: those of the terminal, and no limit where stdout is none.
    """
    described, lines = _chosen(
        [Column(column) if isinstance(column, str) else column for column in columns], cells(rows)
    )
    if not lines:
        return ""
    if width is None:
        width = terminal_columns()
    if width is None or _needed(described, lines) <= width:
        return _aligned(described, lines)
    return _fitted(described, lines, width)


def _chosen(columns: list[Column], rows: list[list[str]]) -> tuple[list[Column], list[list[str]]]:
    """Those columns that `--columns` names, which give way to nothing. Raises UsageError."""
    context = click.get_current_context(silent=True)
    wanted: Sequence[str] = getattr(context.obj if context is not None else None, "columns", ())
    if not wanted:
        return columns, rows
    names = [_plain_name(column.title.partition(" (")[0]) for column in columns]
    unknown = [name for name in wanted if _plain_name(name) not in names]
    if unknown:
        raise click.UsageError(f"There is no column {unknown[0]}; there are {', '.join(names)}.")
    taken = [names.index(_plain_name(name)) for name in wanted]
    kept = [replace(columns[at], common=False, drop=0) for at in taken]
    return kept, [[row[at] for at in taken] for row in rows]


def _plain_name(title: str) -> str:
    """`Control id`, `control_id`, `control-id`: all the same."""
    return title.lower().replace(" ", "-").replace("_", "-")


def cells(rows: Iterable[Sequence[object]]) -> list[list[str]]:
    """What is shown of values: on one line, without anything that drives a terminal."""
    return [[("-" if cell is None else single(str(cell))) for cell in row] for row in rows]


def alarm(text: str, colour: Colour = "red") -> str:
    """A text that must not be overlooked, coloured on a terminal."""
    return click.style(text, fg=colour) if in_colour() else text


def terminal_columns() -> int | None:
    """How wide the terminal is that stdout goes to; none: it goes to none, or all is wanted (`--wide`)."""
    context = click.get_current_context(silent=True)
    if context is not None and getattr(context.obj, "wide", False):
        return None
    return shutil.get_terminal_size().columns if _on_terminal() else None


def wrapped(text: str, *, indent: int, margin: int = 0) -> list[str]:
    """A text in the lines that the terminal has room for, those after the first indented; elsewhere one line.

    margin: characters that are put before each line later.
    """
    width = terminal_columns()
    if width is None or len(text) + margin <= width:
        return [text]
    return textwrap.wrap(text, width - margin, subsequent_indent=" " * indent, break_on_hyphens=False)


def in_colour() -> bool:
    """https://no-color.org: any value of NO_COLOR that is not empty means none."""
    return _on_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _on_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _fitted(columns: Sequence[Column], rows: list[list[str]], width: int) -> str:
    kept = list(range(len(columns)))
    below: list[str] = []
    if len(rows) > 1:
        same = [at for at in kept if columns[at].common and len({row[at] for row in rows}) == 1]
        kept = [at for at in kept if at not in same]
        below += [f"{columns[at].title} {rows[0][at]}" for at in same]
    whole, rows = rows, _short(columns, rows)
    dropped: list[str] = []
    while True:
        shown, taken = [columns[at] for at in kept], [[row[at] for at in kept] for row in rows]
        widths = _widths(shown, taken)
        if _cut(shown, widths, width):
            break
        goes = max(kept, key=lambda at: columns[at].drop)
        if columns[goes].drop == 0:
            return _records(columns, whole)
        kept.remove(goes)
        dropped.append(columns[goes].title)
    text = _aligned(shown, taken, widths)
    if below:
        text += f"\nIn every row: {', '.join(below)}."
    if dropped:
        text += f"\nLeft out: {', '.join(dropped)} (--wide)."
    return text


def _short(columns: Sequence[Column], rows: list[list[str]]) -> list[list[str]]:
    """The same rows, times and ids in their short form."""
    by_column = [
        _short_ids(values) if column.kind == "id" else [_short_time(value) for value in values]
        if column.kind == "time" else list(values)
        for column, values in zip(columns, zip(*rows, strict=True), strict=True)
    ]  # fmt: skip
    return [list(row) for row in zip(*by_column, strict=True)]


def _short_time(text: str) -> str:
    found = _TIME.fullmatch(text)
    return text if found is None else found[1] + (found["zone"] or "")


def _short_ids(ids: Sequence[str]) -> list[str]:
    length = _SHORT_ID_CHARACTERS_MIN
    different = set(ids)
    while len({one[:length] for one in different}) < len(different):
        length += 1
    return [one[:length] for one in ids]


def _cut(columns: Sequence[Column], widths: list[int], width: int) -> bool:
    """Take from the widest texts what is too much; whether that was enough."""
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    while over > 0:
        able = [at for at, column in enumerate(columns) if column.least is not None and widths[at] > column.least]
        if not able:
            return False
        widest = max(able, key=widths.__getitem__)
        widths[widest] -= 1
        over -= 1
    return True


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max([_width(column.title), *(_width(row[at]) for row in rows)]) for at, column in enumerate(columns)]


def _needed(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> int:
    return sum(_widths(columns, rows)) + len(_GAP) * (len(columns) - 1)


def _aligned(columns: Sequence[Column], rows: Sequence[Sequence[str]], widths: Sequence[int] | None = None) -> str:
    widths = widths or _widths(columns, rows)
    head = _GAP.join(_padded(column.title.upper(), width) for column, width in zip(columns, widths, strict=True))
    lines = [head.rstrip()]
    for row in rows:
        parts = []
        for column, cell, width in zip(columns, row, widths, strict=True):
            padded = _padded(cell, width)
            parts.append(alarm(padded) if cell in column.alarm else padded)
        lines.append(_GAP.join(parts).rstrip())
    return "\n".join(lines)


def _records(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """A block of lines for each row."""
    left = max(len(column.title) for column in columns)
    return "\n\n".join(
        "\n".join(
            f"{column.title.ljust(left)}  {alarm(cell) if cell in column.alarm else cell}"
            for column, cell in zip(columns, row, strict=True)
        )
        for row in rows
    )


def _padded(text: str, width: int) -> str:
    have = _width(text)
    if have <= width:
        return text + " " * (width - have)
    while _width(text) > width - 1:
        text = text[:-1]
    return _padded(text + _ELLIPSIS, width)


def _width(text: str) -> int:
    """Columns of a terminal that a text takes: ideographs take two, marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )
