"""`handoff audit disclosures`: who was told what of a patient, for the patient (45 CFR 164.528)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from engine.cli.common import Cli, Said, clock_time, config_option, json_option, reveal_options
from engine.cli.desk import PATIENT_HELP, PatientKey, open_desk, reveal_of
from engine.cli.paper import check_folder, facts, grid, html_option, paper, shown, write_page
from engine.cli.tables import Column, table
from engine.cli.times import TIMES, When

F = TypeVar("F", bound=Callable[..., Any])

_NONE = "Nobody was told anything that this accounting has to name."
_UNMARKED = (
    "Not marked. Of these recipients config.yaml does not say what they get it for (`disclosure` of the destination):"
    " decide, before this is given out, whether the patient has to be told."
)


@click.command("disclosures", epilog=f"KEY is {PATIENT_HELP} {TIMES}", short_help="Who was told what of a patient.")
@click.argument("key", metavar="KEY", type=PatientKey())
@click.option("--since", type=When(), help="At or after; else as far back as the rule asks (six years).")
@click.option("--until", type=When(), help="Before; else until now.")
@html_option
@reveal_options
@json_option
@config_option
@click.pass_obj
def disclosures(
    cli: Cli,
    key: str,
    since: datetime | None,
    until: datetime | None,
    html: Path | None,
    reveal: bool,
    reason: str | None,
) -> None:
    """Account for the disclosures of a patient: date, recipient, what, and why (45 CFR 164.528).

    Repeated ones are one line: the first, how often, the last. What the rule leaves out is counted by its ground. What
    went to destinations that nobody has marked is said apart.
    """
    from engine.desk.disclosures import accounted, accounting_shape

    wish = reveal_of(reveal, reason)
    check_folder(html)
    with open_desk(cli) as desk:
        shape = accounting_shape(accounted(desk, key, since, until, wish))
        node = desk.outline.node
    if html is not None:
        write_page(html, _page(shape, node, revealed=wish is not None))
        cli.say(f"page written to {html}")
    cli.print(shape, "\n".join(_text(shape)))


def given_options(function: F) -> F:
    """Who gets a copy that is given out: adds `recipient`, `ground`, `address`, `purpose`."""
    options = (
        click.option("--to", "recipient", type=Said(), metavar="TEXT", help="Who outside gets it; else it stays here."),
        click.option("--as", "ground", metavar="NAME", help="What it counts as: accountable, tpo, patient, ..."),
        click.option("--address", type=Said(), metavar="TEXT", help="Their address."),
        click.option("--purpose", type=Said(), metavar="TEXT", help="Why they get it, as the patient is to read it."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.command("suspend", epilog=TIMES, short_help="Keep disclosures to law enforcement out of accountings for a time.")
@click.argument("key", metavar="KEY", type=PatientKey())
@click.option("--recipient", required=True, type=Said(), metavar="TEXT", help="To whom, as the accounting names them.")
@click.option("--until", "end", required=True, type=When(ahead=True), help="When it ends.")
@click.option(
    "--by", required=True, type=Said(), metavar="TEXT", help="Which official has said so; where it is written."
)
@click.option("--oral", is_flag=True, help="By word of mouth: that holds for 30 days.")
@json_option
@config_option
@click.pass_obj
def suspend(cli: Cli, key: str, recipient: str, end: datetime, by: str, oral: bool) -> None:
    """Keep disclosures to law enforcement, or to who oversees health care, out of a patient's accountings for a time,
    as they have asked (45 CFR 164.528(a)(2)). A later word for the same recipient takes the place of an earlier one.
    """
    from engine.desk.disclosures import suspend as put
    from engine.domain.shapes import plain

    with open_desk(cli) as desk:
        made = put(desk, key, recipient, end, by, oral=oral)
    cli.print(plain(made), f"Disclosures to {recipient} are left out until {clock_time(made.until)}.")


@click.command("refuse", short_help="Say why a patient's data are not shared.")
@click.argument("key", metavar="KEY", type=PatientKey())
@click.option("--asked-by", "requester", required=True, type=Said(), metavar="TEXT", help="Who has asked for them.")
@click.option("--exception", required=True, metavar="NAME", help="privacy, security, infeasibility, ... (45 CFR 171).")
@click.option("--because", required=True, type=Said(), metavar="TEXT", help="What shows that it applies; where it is.")
@json_option
@config_option
@click.pass_obj
def refuse(cli: Cli, key: str, requester: str, exception: str, because: str) -> None:
    """Keep on the trail that a request to share was refused: by which exception, and with what evidence."""
    from engine.desk.disclosures import rules_of
    from engine.desk.exporting import refuse as put

    with open_desk(cli) as desk:
        made = put(desk, key, requester, exception, because, rules_of(desk))
    cli.print(made, f"Refused: {made['exception']} ({made['law']}).")


@click.command("refusals")
@reveal_options
@json_option
@config_option
@click.pass_obj
def refusals(cli: Cli, reveal: bool, reason: str | None) -> None:
    """List refusals to share, newest first. Who asked, and why, are free text: they need --reveal."""
    from engine.desk.exporting import refusals as every

    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        shapes = every(desk, wish)
    rows = [(s["seq"], clock_time(s["at"]), s["actor"], s["exception"], s["requester"], s["evidence"]) for s in shapes]
    columns = ("seq", "at", Column("who", least=6), "exception", Column("asked by", least=8), Column("why", least=8))
    cli.print(shapes, table(columns, rows) or "No refusals.")


def _text(shape: Mapping[str, Any]) -> Iterator[str]:
    yield f"Accounting of disclosures of patient {shape['patient']['key']}"
    yield f"from {clock_time(shape['since'])} to {clock_time(shape['until'])}; made {clock_time(shape['made_at'])}"
    yield ""
    yield _table(shape["disclosures"]) or _NONE
    if shape["unmarked"]:
        yield f"\n{_UNMARKED}"
        yield _table(shape["unmarked"])
    if shape["suspended"]:
        yield "\nKept from the patient now, as law enforcement has asked (not on the page that --html writes):"
        yield _table(shape["suspended"])
    if shape["excluded"]:
        yield "\nLeft out, as the rule says:"
        rows = [(one["number"], one["says"], one["law"]) for one in shape["excluded"]]
        yield table((Column("number", least=6), Column("what", least=20), "rule"), rows)
    yield from shape["remarks"]


def _table(lines: list[dict[str, Any]]) -> str:
    rows = [(one["first"], one["last"], one["number"], _whom(one), one["description"], one["purpose"]) for one in lines]
    columns = ("first", "last", "number", Column("to", least=12), Column("what", least=16), Column("why", least=12))
    return table(columns, rows)


def _whom(line: Mapping[str, Any]) -> str:
    return ", ".join(part for part in (line["recipient"]["name"], line["recipient"]["address"]) if part)


def _page(shape: Mapping[str, Any], node: str, *, revealed: bool) -> str:
    lead = (
        "What was told of the patient to others, as 45 CFR 164.528 asks for it."
        if revealed
        else "Made without --reveal: the patient's name and number are not shown."
    )
    foot = f"Rules of {shape['version']} (mappings/privacy/disclosures.yaml). Made by Handoff on node {node}."
    return paper("Accounting of disclosures", lead, _body(shape, revealed=revealed), foot=foot, phi=revealed)


def _body(shape: Mapping[str, Any], *, revealed: bool) -> Iterator[str]:
    patient = shape["patient"]
    name = patient["name"] or {}
    whole = " ".join(str(name[part]) for part in ("given", "middle", "family", "suffix") if name.get(part))
    yield from facts(
        (
            ("Patient", whole if revealed else None),
            ("Born", patient["birth_date"] if revealed else None),
            ("Number", patient["key"]),
            ("Time", f"{_day(shape['since'])} to {_day(shape['until'])}"),
            ("Made", clock_time(shape["made_at"])),
            ("Answer owed by", f"{_day(shape['answer_by'])}, if the patient asked today"),
        )
    )
    yield "<h2>Disclosures</h2>"
    if shape["disclosures"]:
        yield from _lines(shape["disclosures"])
    else:
        yield f"<p>{shown(_NONE)}</p>"
    if shape["unmarked"]:
        yield f'<h2>Not marked yet</h2>\n<p class="note">{shown(_UNMARKED)}</p>'
        yield from _lines(shape["unmarked"])
    if shape["excluded"]:
        yield "<h2>Left out, as the rule says</h2>"
        rows = [(f"{one['number']:,}", shown(one["says"]), shown(one["law"])) for one in shape["excluded"]]
        yield from grid(("Number", "What", "Rule"), rows, ("number",))
    for remark in shape["remarks"]:
        yield f'<p class="note">{shown(remark)}</p>'
    yield '<div class="sign"><div>Made by</div><div>Date</div><div>Given to</div></div>'


def _lines(lines: list[dict[str, Any]]) -> Iterator[str]:
    rows = [
        (
            shown(one["first"] if one["first"] == one["last"] else f"{one['first']} to {one['last']}"),
            f"{shown(one['recipient']['name'])}<small>{shown(one['recipient']['address'] or '')}</small>",
            shown(one["description"]),
            shown(one["purpose"] or "not stated"),
            shown(one["frequency"]),
        )
        for one in lines
    ]
    yield from grid(("Date", "Recipient", "What", "Purpose", "How often"), rows, ("eighth", "fifth", "third", "fifth"))


def _day(at: str) -> str:
    return (clock_time(at) or "")[:10]
