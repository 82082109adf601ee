"""`handoff breach`: the worksheet of a use or disclosure that was not permitted (45 CFR 164.400-414)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from engine.cli.common import Cli, Said, config_option, json_option, listing_options, reveal_options
from engine.cli.desk import PATIENT_HELP, PatientKey, open_desk, reveal_of
from engine.cli.paper import check_folder, facts, grid, html_option, paper, shown, write_page
from engine.cli.tables import Column, table
from engine.cli.times import TIMES, When

if TYPE_CHECKING:
    from engine.desk.desk import Desk, Reveal
    from engine.privacy.breach import Worksheet

F = TypeVar("F", bound=Callable[..., Any])

_PRESUMED: Final = "Presumed to be a breach: nobody has assessed it yet."
_FILE_LINES_MAX: Final = 100_000
_NUMBER = click.argument("number", metavar="ID", type=click.IntRange(1))


class _InState(click.ParamType[tuple[str, int]]):
    """`NY=501`; a bare number is of people whose state is not known."""

    name = "state=n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        state, _, number = str(value).rpartition("=")
        if not (number.isascii() and number.isdecimal() and int(number[:9]) > 0 and len(state) <= 20):
            self.fail("must be like NY=501, or 12 when their state is not known", param, ctx)
        return state.strip().upper() or "?", int(number)


@click.group("breach")
@config_option
def breach() -> None:
    """Uses and disclosures of patient data that were not permitted: what is known, whom to tell until when.

    Each is presumed to be a breach until an assessment of four factors says otherwise (45 CFR 164.402).
    """


def _people_options(function: F) -> F:
    """Whom it is about: `charts_of` reads it."""
    options = (
        click.option("--patient", "patients", metavar="KEY", type=PatientKey(), multiple=True, help=PATIENT_HELP),
        click.option(
            "--patients", "file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="A file with a key a line.",
        ),
        click.option("--question", type=click.IntRange(1), metavar="ID", help="Of `audit unusual`: its patient."),
        click.option("--looks-of", metavar="WHO", help="All whom somebody saw (--since, --until)."),
        click.option("--since", type=When(), help="Of --looks-of: at or after."),
        click.option("--until", type=When(), help="Of --looks-of: before."),
        click.option(
            "--others", type=_InState(), metavar="STATE=N", multiple=True, help="People without a chart here, by state."
        ),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


@breach.command("open", epilog=TIMES)
@click.option("--what", required=True, type=Said(), metavar="TEXT", help="What has happened.")
@click.option(
    "--known", required=True, type=When(), help="When it was known, or should have been: the clock runs from then."
)
@click.option("--happened", type=When(), help="When it happened.")
@click.option("--to", "recipient", type=Said(), metavar="TEXT", help="Who outside has got the data.")
@click.option("--business-associate", is_flag=True, help="We are a business associate: the covered entity is told.")
@_people_options
@json_option
@config_option
@click.pass_obj
def open_(
    cli: Cli,
    /,
    what: str,
    known: datetime,
    happened: datetime | None,
    recipient: str | None,
    business_associate: bool,
    **people: Any,
) -> None:
    """Open a worksheet. Patients may be added later (`handoff breach add`)."""
    from engine.desk import breaches

    with open_desk(cli) as desk:
        sheet = breaches.opened(
            desk, what, breaches.day_of(desk, known),
            happened_on=breaches.day_of(desk, happened) if happened is not None else None,
            business_associate=business_associate, recipient=recipient, charts=_charts_of(desk, people),
            others=_others(people),
        )  # fmt: skip
        _say(cli, desk, sheet)


@breach.command("add", epilog=TIMES)
@_NUMBER
@_people_options
@json_option
@config_option
@click.pass_obj
def add(cli: Cli, /, number: int, **people: Any) -> None:
    """Add people that it is about."""
    from engine.desk import breaches

    with open_desk(cli) as desk:
        charts, others = _charts_of(desk, people), _others(people)
        if not charts and not others:
            raise click.UsageError("say whom: --patient, --patients, --question, --looks-of or --others")
        _say(cli, desk, breaches.added(desk, number, charts, others))


@breach.command("assess")
@_NUMBER
@click.option(
    "--nature", type=Said(), required=True, metavar="TEXT", help="Which data, and how likely people can be recognized."
)
@click.option("--person", type=Said(), required=True, metavar="TEXT", help="Who has used them, or got them.")
@click.option(
    "--acquired", type=Said(), required=True, metavar="TEXT", help="Whether they were really acquired or viewed."
)
@click.option("--mitigated", type=Said(), required=True, metavar="TEXT", help="How far the risk was mitigated.")
@click.option("--breach", "finding", flag_value="breach", help="It is a breach.")
@click.option(
    "--low", "finding", flag_value="low", help="A low probability that the data were compromised: it is none."
)
@click.option(
    "--exception", metavar="NAME", help="It is an exception of the rule: workforce, inadvertent, not_retained, secured."
)
@json_option
@config_option
@click.pass_obj
def assess(cli: Cli, /, number: int, finding: str | None, exception: str | None, **factors: str) -> None:
    """File the assessment of the four factors (45 CFR 164.402(2)). A later one takes the place of an earlier one."""
    from engine.desk import breaches

    if (finding is None) == (exception is None):
        raise click.UsageError("say what it is: --breach, --low, or --exception NAME")
    with open_desk(cli) as desk:
        _say(cli, desk, breaches.assessed(desk, number, factors, finding or "low", exception))


@breach.command("notified", epilog=TIMES)
@_NUMBER
@click.option(
    "--whom", type=click.Choice(("patients", "hhs", "media", "log", "covered_entity")), required=True, help="Who."
)
@click.option("--on", "at", type=When(), required=True, help="When.")
@click.option("--state", metavar="STATE", help="Of media: which.")
@click.option("--note", type=Said(), metavar="TEXT", help="How; where the copy is.")
@json_option
@config_option
@click.pass_obj
def notified(cli: Cli, number: int, whom: str, at: datetime, state: str | None, note: str | None) -> None:
    """Say that somebody was told."""
    from engine.desk import breaches
    from engine.privacy.breach import Whom

    with open_desk(cli) as desk:
        where = state.strip().upper() if state else None
        _say(cli, desk, breaches.notified(desk, number, Whom(whom), breaches.day_of(desk, at), where, note))


@breach.command("delay", epilog=TIMES)
@_NUMBER
@click.option("--until", "end", type=When(ahead=True), required=True, help="The day to which notices are put off.")
@click.option("--by", "who", type=Said(), required=True, metavar="TEXT", help="Which official has said so.")
@click.option("--oral", is_flag=True, help="Orally: that holds for 30 days.")
@json_option
@config_option
@click.pass_obj
def delay(cli: Cli, number: int, end: datetime, who: str, oral: bool) -> None:
    """Law enforcement has said that a notice would hinder it (45 CFR 164.412)."""
    from engine.desk import breaches
    from engine.privacy.breach import Delay

    with open_desk(cli) as desk:
        _say(cli, desk, breaches.delayed(desk, number, Delay(until=breaches.day_of(desk, end), by=who, oral=oral)))


@breach.command("close")
@_NUMBER
@click.option(
    "--because", type=Said(), required=True, metavar="TEXT", help="What was done so that it does not happen again."
)
@json_option
@config_option
@click.pass_obj
def close(cli: Cli, number: int, because: str) -> None:
    """Close a worksheet. Refused (exit code 1) while the assessment or a notice is missing."""
    from engine.desk import breaches

    with open_desk(cli) as desk:
        _say(cli, desk, breaches.closed(desk, number, because))


@breach.command("list")
@click.option("--open", "unclosed", is_flag=True, help="Only those that are not closed.")
@reveal_options
@listing_options
@config_option
@click.pass_obj
def list_(cli: Cli, unclosed: bool, reveal: bool, reason: str | None) -> None:
    """List the worksheets, newest first. What happened is free text: it needs --reveal."""
    from engine.desk import breaches

    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        rules = breaches.rules_of(desk)
        view = desk.view(wish, ["audit"])
        damaged: list[str] = []
        found = [one for one in breaches.worksheets(desk, damaged.append) if not unclosed or one.closed_on is None]
        shapes = [breaches.shape(one, rules, view) for one in found]
    for number in damaged:
        cli.say(f"Breach {number} can't be read: its record was altered (`handoff audit verify`). It is left out.")
    rows = [(s["id"], s["state"], s["known_on"], s["people"], s["next_due"], s["what"]) for s in shapes]
    columns = ("id", "state", "known", "people", "next due", Column("what", least=20))
    cli.print(shapes, table(columns, rows) or "No breaches.")


@breach.command("show")
@_NUMBER
@html_option
@reveal_options
@listing_options
@config_option
@click.pass_obj
def show(cli: Cli, number: int, html: Path | None, reveal: bool, reason: str | None) -> None:
    """Show a worksheet, and whom letters go to; with --html as a page to print and to file."""
    from engine.desk import breaches

    wish = reveal_of(reveal, reason)
    check_folder(html)
    with open_desk(cli) as desk:
        sheet = breaches.worksheet(desk, number)
        shape = _shape(desk, sheet, wish)
        rules = breaches.rules_of(desk)
        node = desk.outline.node
    if html is not None:
        write_page(html, _page(shape, rules.factors, node, revealed=wish is not None))
        cli.say(f"page written to {html}")
    cli.print(shape, "\n".join(_text(shape, rules.factors)))


def _shape(desk: Desk, sheet: Worksheet, wish: Reveal | None) -> dict[str, Any]:
    from engine.desk import breaches

    subjects = [f"chart:{one}" for one in sheet.charts]
    view = desk.view(wish, subjects or ["audit"])
    found = breaches.shape(sheet, breaches.rules_of(desk), view)
    return found | {"patients": breaches.people_shapes(desk, sheet, view)}


def _say(cli: Cli, desk: Desk, sheet: Worksheet) -> None:
    from engine.desk import breaches

    shape = breaches.shape(sheet, breaches.rules_of(desk), desk.view(None, ()))
    due = f"; next due {shape['next_due']}" if shape["next_due"] else ""
    cli.print(shape, f"Breach {shape['id']}: {shape['state']}, {shape['people']:,} people{due}.")


def _charts_of(desk: Desk, people: Mapping[str, Any]) -> list[str]:
    from engine.desk import breaches
    from engine.errors import HandoffError

    keys: list[str] = list(people["patients"])
    if people["file"] is not None:
        try:
            lines = people["file"].read_text(encoding="utf-8").splitlines()[:_FILE_LINES_MAX]
        except (OSError, UnicodeDecodeError):
            raise HandoffError(f"{people['file']}: can't be read as text") from None
        keys += [line.strip() for line in lines if line.strip()]
    charts = breaches.named(desk, keys)
    if people["question"] is not None:
        charts += breaches.of_question(desk, people["question"])
    if people["looks_of"] is not None:
        charts += breaches.looked_at(desk, people["looks_of"], people["since"], people["until"])
    return charts


def _others(people: Mapping[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for state, number in people["others"]:
        found[state] = found.get(state, 0) + number
    return found


# --- for people ------------------------------------------------------------------------------------------------------


def _text(shape: Mapping[str, Any], factors: Mapping[str, str]) -> Iterator[str]:
    yield f"Breach {shape['id']}  {shape['state']}  known {shape['known_on']}  {shape['people']:,} people"
    yield f"what: {shape['what']}" + (f"  to: {shape['recipient']}" if shape["recipient"] else "")
    yield f"by state: {', '.join(f'{state} {number:,}' for state, number in shape['by_state'].items()) or 'nobody yet'}"
    assessment = shape["assessment"]
    if assessment is None:
        yield f"\n{_PRESUMED}"
    else:
        yield f"\nAssessed {assessment['on']} by {assessment['by']}: {_finding(assessment)}"
        yield from (f"  {name}: {assessment['factors'].get(name)}" for name in factors)
    rows = [(_whom(one), one["number"], one["due"], _done(one), one["law"]) for one in shape["duties"]]
    duties = table((Column("to be told", least=16), "people", "until", "told", Column("rule", least=8, drop=1)), rows)
    yield f"\n{duties or 'Nobody has to be told.'}"
    yield from (
        f"put off until {one['until']}{' (orally)' if one['oral'] else ''}: {one['by']}" for one in shape["delays"]
    )
    yield from (f"missing: {one}" for one in shape["missing"])
    if shape["closed_on"]:
        yield f"Closed {shape['closed_on']} by {shape['closed_by']}: {shape['because']}"
        yield f"Kept until {shape['keep_until']}."
    people = [(one["key"], _name(one["name"]), _address(one["address"])) for one in shape["patients"]]
    if people:
        yield "\n" + table(("patient", Column("name", least=8), Column("address", least=12)), people)


def _page(shape: Mapping[str, Any], factors: Mapping[str, str], node: str, *, revealed: bool) -> str:
    lead = "Worksheet of a use or disclosure of patient data that was not permitted (45 CFR 164.400-414)."
    kept = f" Kept until {shape['keep_until']}." if shape["keep_until"] else ""
    foot = f"Rules of {shape['version']} (mappings/privacy/breach.yaml). Node {node}.{kept} It is no legal advice."
    return paper(f"Breach {shape['id']}", lead, _body(shape, factors), foot=foot, phi=revealed)


def _body(shape: Mapping[str, Any], factors: Mapping[str, str]) -> Iterator[str]:
    yield from facts(
        (
            ("What", shape["what"]),
            ("Happened", shape["happened_on"]),
            ("Known, or should have been", shape["known_on"]),
            ("Got the data", shape["recipient"]),
            ("We are", shape["role"].replace("_", " ")),
            ("People", f"{shape['people']:,}"),
            ("By state", ", ".join(f"{state} {number:,}" for state, number in shape["by_state"].items())),
            ("Opened", f"{shape['opened_on']} by {shape['opened_by']}"),
            ("State", shape["state"]),
        )
    )
    yield "<h2>Assessment of the four factors</h2>"
    assessment = shape["assessment"]
    if assessment is None:
        yield f'<p class="note">{_PRESUMED}</p>'
    said = assessment["factors"] if assessment else {}
    rows = [(shown(asks), shown(said.get(name) or "")) for name, asks in factors.items()]
    yield from grid(("Factor", "Answer"), rows, ("third",))
    if assessment:
        yield f"<p><b>{shown(_finding(assessment))}</b> Filed {assessment['on']} by {shown(assessment['by'])}.</p>"
    yield "<h2>Who has to be told</h2>"
    if shape["duties"]:
        told = [
            (f"{shown(_says(one))}<small>{shown(one['law'])}</small>", f"{one['number']:,}", shown(one["due"]),
             f'<span class="mark {_style(one)}">{shown(_done(one) or "not yet")}</span>')
            for one in shape["duties"]
        ]  # fmt: skip
        yield from grid(("Whom", "People", "Until", "Told"), told, ("", "number", "date", "fifth"))
    else:
        yield "<p>Nobody: it is no breach.</p>"
    for one in shape["delays"]:
        yield f'<p class="note">Put off until {shown(_put_off(one))}</p>'
    notes = [
        (shown(one["on"]), shown(one["whom"]), shown(one["by"]), shown(one["note"] or "")) for one in shape["given"]
    ]
    if notes:
        yield "<h2>Notices given</h2>"
        yield from grid(("Date", "Whom", "Noted by", "Note"), notes, ("date", "fifth", "fifth"))
    if shape["patients"]:
        yield "<h2>Patients</h2>"
        listed = [
            (shown(one["key"] or "chart is gone"), shown(_name(one["name"])), shown(_address(one["address"])))
            for one in shape["patients"]
        ]
        yield from grid(("Patient", "Name", "Address"), listed, ("quarter", "quarter"))
    if shape["because"]:
        yield f"<h2>Closed</h2>\n<p>{shown(shape['closed_on'])} by {shown(shape['closed_by'])}:"
        yield f"{shown(shape['because'])}</p>"
    yield '<div class="sign"><div>Privacy officer</div><div>Date</div></div>'


def _finding(assessment: Mapping[str, Any]) -> str:
    if assessment["exception"]:
        return f"No breach: the exception {assessment['exception']} of the rule."
    return "It is a breach." if assessment["finding"] == "breach" else "No breach: a low probability of compromise."


def _put_off(delay: Mapping[str, Any]) -> str:
    return f"{delay['until']}{' (orally)' if delay['oral'] else ''}: {delay['by']}"


def _whom(duty: Mapping[str, Any]) -> str:
    return f"{duty['whom']}{' of ' + duty['state'] if duty['state'] else ''}"


def _says(duty: Mapping[str, Any]) -> str:
    return f"{duty['says']}{' (' + duty['state'] + ')' if duty['state'] else ''}"


def _done(duty: Mapping[str, Any]) -> str:
    return f"{duty['done']}{' (late)' if duty['late'] else ''}" if duty["done"] else ""


def _style(duty: Mapping[str, Any]) -> str:
    return "bad" if duty["late"] else "good" if duty["done"] else "mild"


def _name(name: Mapping[str, Any] | None) -> str:
    return " ".join(str(name[part]) for part in ("given", "family") if name.get(part)) if name else ""


def _address(address: Any) -> str:
    if not isinstance(address, Mapping):
        return ""
    parts: Sequence[str] = ("line", "city", "state", "postal_code")
    return ", ".join(str(address[part]) for part in parts if address.get(part))
