"""`handoff audit disclosures`: who was told what of a patient, for the patient (45 CFR 164.528)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from engine.cli.common import Cli, clock_time, config_option, json_option, reveal_options
from engine.cli.desk import PATIENT_HELP, PatientKey, open_desk, reveal_of
from engine.cli.paper import check_folder, facts, grid, html_option, paper, shown, write_page
from engine.cli.tables import Column, table
from engine.cli.times import TIMES, When

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


def _text(shape: Mapping[str, Any]) -> Iterator[str]:
    yield f"Accounting of disclosures of patient {shape['patient']['key']}"
    yield f"from {clock_time(shape['since'])} to {clock_time(shape['until'])}; made {clock_time(shape['made_at'])}"
    yield ""
    yield _table(shape["disclosures"]) or _NONE
    if shape["unmarked"]:
        yield f"\n{_UNMARKED}"
        yield _table(shape["unmarked"])
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
