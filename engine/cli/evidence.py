"""`handoff evidence`: what shows an auditor that rules are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from engine.cli.common import Cli, Said, config_option, json_option, named_time
from engine.cli.desk import open_desk
from engine.cli.paper import check_folder, facts, grid, html_option, paper, shown, worded, write_page
from engine.cli.tables import Column, table

_STYLES = {"shown": "good", "open": "bad", "site": "mild"}


@click.command("evidence", short_help="What shows an auditor that rules are kept.")
@html_option
@json_option
@config_option
@click.pass_obj
def evidence(cli: Cli, html: Path | None) -> None:
    """Show for each rule what the product does, the settings that govern it with their value here, and the last proof.

    shown: settings and proofs are there; open: something is missing; site: only the site can show it. The rows are in
    mappings/privacy/evidence.yaml, and figures are counted in the store. Nothing of a patient is in it.
    """
    from engine.desk.evidence import evidence as collected

    check_folder(html)
    with open_desk(cli) as desk:
        found = collected(desk)
    if html is not None:
        write_page(html, _page(found))
        cli.say(f"page written to {html}")
    rows = [(one["id"], one["state"], one["rule"], "; ".join(one["open"])) for one in found["rows"]]
    cli.print(found, table(("row", "state", Column("rule", least=20), Column("open", least=20)), rows))


def _page(found: Mapping[str, Any]) -> str:
    lead = f"Node {found['node']}, {named_time(found['made_at'])}. What the product does, and what shows it."
    foot = f"Rows of {found['version']} (mappings/privacy/evidence.yaml). It is no legal advice."
    return paper("Evidence for an auditor", lead, _body(found), foot=foot)


def _body(found: Mapping[str, Any]) -> Iterator[str]:
    states = Counter(one["state"] for one in found["rows"])
    yield from facts((("Shown", states["shown"]), ("Open", states["open"]), ("For the site to show", states["site"])))
    rows = [
        (
            f"{shown(one['asks'])}<small>{shown(one['rule'])}</small>",
            f"{worded(one['does'])}" + (f"<small>The site: {worded(one['site'])}</small>" if one["site"] else ""),
            "".join(f"<small><code>{shown(s['key'])}</code> {shown(s['value'])}</small>" for s in one["settings"])
            + "".join(f"<small>{shown(_proof(proof))}</small>" for proof in one["proofs"])
            + (f"<small>{shown(_noted(one['noted']))}</small>" if one["noted"] else "")
            + "".join(
                f"<small>{shown(said['what'])}: <b>{shown(said['value'])}</b></small>" for said in one["figures"]
            ),
            f'<span class="mark {_STYLES[one["state"]]}">{shown(one["state"])}</span>'
            + "".join(f"<small>{worded(text)}</small>" for text in one["open"]),
        )
        for one in found["rows"]
    ]
    titles = ("What the rule asks", "What the product does", "Settings and last proof", "State")
    yield from grid(titles, rows, ("quarter", "quarter", "third", "fifth"))


def _noted(last: Mapping[str, Any]) -> str:
    return f"noted by the site: {named_time(last['at'])}, {last['actor']}, record {last['seq']}"


@click.command("note", short_help="Say that the site did its part of a rule of `evidence`.")
@click.argument("row", metavar="ROW")
@click.option("--because", required=True, type=Said(), metavar="TEXT", help="What was done, and where the report is.")
@json_option
@config_option
@click.pass_obj
def note(cli: Cli, row: str, because: str) -> None:
    """Put on the trail that the site did its part of a rule: a scan, a penetration test, units that were named.

    ROW is a row of `handoff evidence`, which shows when this was last said.
    """
    from engine.desk.evidence import note as put

    with open_desk(cli) as desk:
        put(desk, row, because)
    cli.print({"row": row}, f"Noted for {row}.")


def _proof(proof: Mapping[str, Any]) -> str:
    last = proof["last"]
    if last is None:
        return f"{proof['event']}: never"
    return f"{proof['event']}: {named_time(last['at'])}, {last['actor']}, record {last['seq']}"
