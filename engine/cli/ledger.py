"""`handoff ledger`: do the books balance?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from engine.cli.common import NO, Cli, config_option, listing_options, shadow_option
from engine.cli.tables import Column, alarm, table, terminal_columns

_GAP: Final = 2


@click.command("ledger")
@shadow_option
@listing_options
@config_option
@click.pass_obj
def ledger(cli: Cli) -> int:
    """Show whether the books of each channel balance.

    received = refused + filtered + processed + dead + pending + duplicates. Exit code 1 when one does not.

    It counts what became of everything that ever came, and of every delivery, not what is left to do. A message that
    died stays dead: its replay is received, and counted, anew. A delivery that died is dead until it is put back into
    the outbox; when its dead letter was discarded, or nothing was left to send (superseded), it stays dead for good.
    erased: of the messages received, those whose text was kept long enough and is gone (`handoff sweep`).
    What waits for somebody is listed by `dead list` and `held list`.

    With --shadow it counts what was processed in shadow, and what would have been delivered as withheld.
    """
    from engine.cli.desk import open_desk
    from engine.domain.shapes import plain
    from engine.store.counts import ledger as count

    with open_desk(cli) as desk, desk.store.reader() as conn:
        lines = count(conn, () if desk.in_shadow else desk.outline.channels, decided=desk.in_shadow)
    gone = ("erased",) if any(line.erased for line in lines) else ()
    names = ("channel", "received", "refused", "filtered", "processed", "dead", "pending", "duplicates", "acked", *gone)
    withheld = ("withheld",) if any(line.deliveries.withheld for line in lines) else ()
    states = ("pending", "delivered", "held", "dead", *withheld)
    rows = [
        [str(value) for value in (
            *(getattr(line, name) for name in names), *(getattr(line.deliveries, state) for state in states),
            "yes" if line.balanced else "NO",
        )] for line in lines
    ]  # fmt: skip
    headers = (*names, *(f"{state} out" for state in states), "balanced")
    cli.print(plain(lines), _table(headers, rows) or "No channels.")
    return 0 if all(line.balanced for line in lines) else NO


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A line for each channel; where that is too wide for the terminal, a column for each, as many as fit."""
    columns = [Column(header, alarm={"NO"} if header == "balanced" else ()) for header in headers]
    width = terminal_columns()
    text = table(columns, rows, width=1 << 20)
    if width is None or len(text.partition("\n")[0]) <= width:
        return text
    left = max(map(len, headers))
    blocks: list[str] = []
    rest = list(rows)
    while rest:
        taken, room = 0, width - left
        while taken < len(rest) and (taken == 0 or room >= _GAP + max(map(len, rest[taken]))):
            room -= _GAP + max(map(len, rest[taken]))
            taken += 1
        blocks.append("\n".join(_turned(headers, rest[:taken], left)))
        rest = rest[taken:]
    return "\n\n".join(blocks)


def _turned(headers: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    widths = [max(map(len, row)) for row in rows]
    lines: list[str] = []
    for header, values in zip(headers, zip(*rows, strict=True), strict=True):
        shown = [alarm(padded) if value == "NO" else padded for value, width in zip(values, widths, strict=True)
                 for padded in [value.rjust(width)]]  # fmt: skip
        lines.append((" " * _GAP).join((header.ljust(left), *shown)).rstrip())
    return lines
