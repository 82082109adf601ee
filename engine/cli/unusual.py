"""`handoff audit unusual` and `review`: looks at patients that nothing explains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from engine.cli.common import Cli, Said, clock_time, config_option, json_option, limit_option, reveal_options
from engine.cli.desk import open_desk, reveal_of
from engine.cli.paper import check_folder, facts, grid, html_option, paper, shown, write_page
from engine.cli.tables import Column, table
from engine.cli.times import TIMES, When

_NEUTRAL = "A look that nothing explains is a question to somebody, and no finding."


@click.command("unusual", epilog=TIMES, short_help="Looks at patients that nothing explains.")
@click.option("--since", type=When(), help="At or after; else the days that the rules look back.")
@click.option("--until", type=When(), help="Before.")
@html_option
@limit_option
@reveal_options
@json_option
@config_option
@click.pass_obj
def unusual(
    cli: Cli,
    since: datetime | None,
    until: datetime | None,
    html: Path | None,
    limit: int,
    reveal: bool,
    reason: str | None,
) -> None:
    """List looks at patients that no treatment explains, with the points of the rules and the evidence.

    What a relation explains (stay, unit, task, page, appointment, team) is only counted. Rules and points are in
    mappings/privacy/unusual.yaml. Without --reveal a rule that says something of the patient is called `personal`.
    """
    from engine.desk.unusual import shapes

    wish = reveal_of(reveal, reason)
    check_folder(html)
    with open_desk(cli) as desk:
        found = shapes(desk, since, until, reveal=wish, limit=limit)
    if found["questions"] > limit:
        cli.cut(limit, found["questions"])
    if found["cut"]:
        cli.say("There were more looks than are looked at: ask for a shorter time (--since, --until).")
    if html is not None:
        write_page(html, _page(found, revealed=wish is not None))
        cli.say(f"page written to {html}")
    cli.print(found, "\n".join(_text(found)))


@click.command("review", short_help="Say what was found when you asked about a look.")
@click.argument("number", metavar="ID", type=click.IntRange(1))
@click.option("--right", "verdict", flag_value="right", help="There was a reason.")
@click.option("--wrong", "verdict", flag_value="wrong", help="There was none.")
@click.option("--because", required=True, type=Said(), metavar="TEXT", help="What was found; written to the trail.")
@json_option
@config_option
@click.pass_obj
def review(cli: Cli, number: int, verdict: str | None, because: str) -> None:
    """Say what was found when you asked about a look that `handoff audit unusual` lists."""
    from engine.desk.unusual import review as put

    if verdict is None:
        raise click.UsageError("say --right or --wrong")
    with open_desk(cli) as desk:
        records = put(desk, number, verdict, because)
    cli.print({"id": number, "verdict": verdict, "records": list(records)}, f"Question {number}: {verdict}.")


def _text(found: Mapping[str, Any]) -> Iterator[str]:
    explained = sum(one["looks"] for one in found["explained"])
    yield f"{found['looks']:,} looks since {clock_time(found['since'])}; {explained:,} are explained:"
    for one in found["explained"]:
        yield f"  {one['looks']:>8,}  {one['says']}"
    rows = [
        (one["id"], one["points"], _mark(one), one["actor"], one["patient_key"], clock_time(one["last"]), one["number"],
         ", ".join(hit["rule"] for hit in one["rules"]))
        for one in found["unexplained"]
    ]  # fmt: skip
    columns = ("id", "points", "", Column("who", least=6), "patient", "last", "looks", Column("why", least=16))
    yield ""
    yield table(columns, rows) or "Everything is explained."
    if rows:
        yield f"\n{_NEUTRAL} The line is at {found['line']} points."


def _mark(one: Mapping[str, Any]) -> str:
    return "reviewed" if one["reviewed"] else "above the line" if one["above"] else ""


def _page(found: Mapping[str, Any], *, revealed: bool) -> str:
    foot = f"Rules of {found['version']} (mappings/privacy/unusual.yaml)."
    return paper("Looks that nothing explains", _NEUTRAL, _body(found), foot=foot, phi=revealed)


def _body(found: Mapping[str, Any]) -> Iterator[str]:
    yield from facts(
        (
            ("Since", clock_time(found["since"])),
            ("Looks", f"{found['looks']:,}"),
            ("Explained", f"{sum(one['looks'] for one in found['explained']):,}"),
            ("Line", f"{found['line']} points"),
        )
    )
    rows = [
        (
            f"{one['points']}",
            f'<span class="mark {"mild" if one["above"] else ""}">{shown(_mark(one) or "below")}</span>',
            f"{shown(one['actor'])}<small>{one['number']:,} look(s), record {one['id']}</small>",
            shown(one["patient_key"] or "not known"),
            shown(clock_time(one["last"]) or ""),
            "".join(f"{shown(hit['rule'])} {hit['points']}<small>{shown(hit['evidence'] or '')}</small>"
                    for hit in one["rules"]),
        )
        for one in found["unexplained"]
    ]  # fmt: skip
    if rows:
        yield from grid(("Points", "", "Who", "Patient", "Last", "Evidence"), rows, ("number",))
    else:
        yield "<p>Everything is explained.</p>"
