"""Tables: how they give way to a narrow terminal, and that piped output never does."""

from __future__ import annotations

import sys

import pytest
from site_with_store import Site

from engine.cli import common, tables
from engine.cli.tables import Column, table

COLUMNS = (
    Column("id", kind="id"),
    Column("due (EST)", kind="time"),
    Column("channel", common=True, least=8),
    Column("detail", least=10),
    Column("note", least=6, drop=1),
)
ROWS = [
    ("1b2a3c4d5e6f" * 2, "2026-11-29 14:00:05", "main", "a sentence of some length that says why", "something"),
    ("1b2a3c4d9999" * 2, "2026-11-30 08:30:00", "main", "another one", None),
]


def widest(text: str) -> int:
    return max(map(len, text.splitlines()))


def test_where_there_is_no_terminal_nothing_is_shortened() -> None:
    text = table(COLUMNS, ROWS)
    assert "1b2a3c4d5e6f1b2a3c4d5e6f" in text
    assert "a sentence of some length that says why" in text
    assert "2026-11-29 14:00:05" in text


@pytest.mark.parametrize("width", range(8, 140))
def test_a_table_is_never_wider_than_the_terminal_unless_its_lines_are_records(width: int) -> None:
    text = table(COLUMNS, ROWS, width=width)
    assert widest(text) <= width or text.startswith("id ")


def test_columns_give_way_in_the_order_of_what_they_are_worth() -> None:
    short = table(COLUMNS, ROWS, width=60)
    assert "In every row: channel main." in short
    assert "1b2a3c4d5" in short, "as long as tells the two apart"
    assert "1b2a3c4d5e6f1" not in short
    assert "11-29 14:00 " in short
    assert "…" in short
    assert "NOTE" in short
    narrow = table(COLUMNS, ROWS, width=36)
    assert "NOTE" not in narrow
    assert "Left out: note (--wide)." in narrow
    records = table(COLUMNS, ROWS, width=20)
    assert records.splitlines()[:3] == [f"id         {ROWS[0][0]}", "due (EST)  2026-11-29 14:00:05", "channel    main"]
    assert "\n\n" in records


def test_one_row_keeps_its_columns_though_each_is_the_same_in_every_row() -> None:
    assert "CHANNEL" in table(COLUMNS, ROWS[:1], width=70)


def test_ideographs_are_counted_as_wide_as_they_are_shown() -> None:
    lines = table(("name", "born"), [("山田太郎", "1958"), ("DOE", "1947")]).splitlines()
    assert lines[1] == "山田太郎  1958"
    assert lines[2] == "DOE       1947"


def test_nothing_in_a_cell_drives_the_terminal() -> None:
    assert "\x1b" not in table(("a",), [("\x1b[31mred\x1b[0m",), ("two\nlines",)])
    assert len(table(("a",), [("two\nlines",)]).splitlines()) == 2


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.mark.usefixtures("terminal")
def test_an_alarm_is_red_on_a_terminal_and_plain_where_no_colour_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = (Column("state", alarm={"dead"}),)
    assert "\x1b[31mdead \x1b[0m" in table(columns, [("dead",), ("fine",)])
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in table(columns, [("dead",)])
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in table(columns, [("dead",)])


@pytest.mark.usefixtures("terminal")
def test_only_our_own_colours_reach_a_terminal() -> None:
    shown = common._printable(f"{tables.alarm('dead')} \x1b[2Jgone \x1b]0;title\x07")
    assert shown == "\x1b[31mdead\x1b[0m �[2Jgone �]0;title�"


@pytest.mark.parametrize(
    "command",
    [
        ("messages", "list"), ("tasks", "list"), ("tasks", "list", "--all"), ("dead", "list"),
        ("dead", "list", "--each"),
        ("dead", "list", "--resolved"), ("dead", "summary"), ("held", "list"), ("audit", "list"), ("patients", "find"),
        ("patients", "show", "MRN:558181838"), ("ledger",), ("keys", "list"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_line_of_a_table_is_wider_than_80_columns(
    stocked: Site, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked.hold_first_delivery()
    whole = stocked.run(*command).out
    for module in list(sys.modules.values()):
        if getattr(module, "terminal_columns", None) is tables.terminal_columns and module is not tables:
            monkeypatch.setattr(module, "terminal_columns", lambda: 80)
    monkeypatch.setattr(tables, "terminal_columns", lambda: 80)
    text = stocked.run(*command).out
    rows = [line for line in text.splitlines() if ": " not in line]  # sentences wrap by themselves
    assert max(map(len, rows), default=0) <= 80, text
    assert "…" not in whole
