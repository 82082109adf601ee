"""`handoff ledger`: do the books balance?"""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import click

from engine.cli.common import NO, Cli, config_option, json_option, table


@click.command("ledger")
@json_option
@config_option
@click.pass_obj
def ledger(cli: Cli) -> int:
    """Show whether the books of each channel balance.

    received = refused + filtered + processed + dead + pending + duplicates. Exit code 1 when one does not.

    It counts what became of everything that ever came, and of every delivery, not what is left to do. A message that
    died stays dead: its replay is received, and counted, anew. A delivery that died is dead until it is put back into
    the outbox; when its dead letter was discarded, or nothing was left to send (superseded), it stays dead for good.
    What waits for somebody is listed by `dead list --unresolved` and `held list`.
    """
    from engine.cli.site import open_site
    from engine.domain.shapes import plain
    from engine.store.counts import ledger as count

    with open_site(cli) as site, site.store.reader() as conn:
        lines = count(conn, site.configuration.channels)
    names = ("channel", "received", "refused", "filtered", "processed", "dead", "pending", "duplicates", "acked")
    states = ("pending", "delivered", "held", "dead")
    rows = [
        (*(getattr(line, name) for name in names), *(getattr(line.deliveries, state) for state in states),
         "yes" if line.balanced else "NO") for line in lines
    ]  # fmt: skip
    headers = (*names, *(f"d.{state}" for state in states), "balanced")
    cli.print(plain(lines), _table(headers, rows) or "No channels.")
    return 0 if all(line.balanced for line in lines) else NO


def _table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A line for each channel; where that is too wide for the terminal, a column for each."""
    text = table(headers, rows)
    if len(text.partition("\n")[0]) <= shutil.get_terminal_size((200, 50)).columns:
        return text
    first, *others = zip(headers, *rows, strict=True)
    return table([str(cell) for cell in first], others)
