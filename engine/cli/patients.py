"""`handoff patients`: charts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.appointments import appointment_table
from engine.cli.common import (
    Cli,
    Private,
    Said,
    clock_time,
    config_option,
    json_option,
    limit_option,
    list_options,
    listing_options,
    reveal_options,
    shadow_option,
    time_column,
)
from engine.cli.desk import PATIENT_HELP, PatientKey, open_desk, reveal_of
from engine.cli.disclosures import given_options
from engine.cli.tables import Column, alarm, table
from engine.cli.tasks import reason_told
from engine.desk import finding
from engine.desk.searching import Terms, search
from engine.desk.seeing import patient_details
from engine.printable import singles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine.domain.parts import Part

_NAMED_MAX = 10


class _BornOn(Private):
    """A date, a month or a year, as birth dates are kept."""

    name = "date"

    def read(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if re.fullmatch(r"[0-9]{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?)?", value) is None:
            self.fail("must be like 1958, 1958-07 or 1958-07-15", param, ctx)
        return value


@click.group("patients")
@config_option
def patients() -> None:
    """Patients with encounters, scores and tasks."""


@patients.command("show")
@click.argument("key", metavar="KEY", type=PatientKey())
@reveal_options
@shadow_option
@listing_options
@config_option
@click.pass_obj
def show(cli: Cli, key: str, reveal: bool, reason: str | None) -> None:
    """Show a patient with encounters, scores, tasks, what is held for a person, and dead messages.

    KEY is AUTHORITY:ID or a pseudonym (MRN:~3f9a1c2b); - asks for it. The key of a patient that was merged into another
    shows the other.
    """
    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        shape = patient_details(desk, finding.chart(desk, key), wish)
    cli.print(shape, human_chart(shape))


@patients.command("find", short_help="Find patients by visit, name or birth date.")
@click.option("--visit", metavar="NUMBER", type=Private(), help="With this encounter key or visit number.")
@click.option("--name", metavar="TEXT", type=Private(), help="Whose family name begins so; - asks for it.")
@click.option("--birth-date", metavar="DATE", type=_BornOn(), help="Born then; 1958-07 finds all of that month.")
@click.option(
    "--within",
    "charts_max",
    metavar="N",
    type=click.IntRange(1, 1_000_000),
    default=20_000,
    show_default=True,
    help="Look through so many charts, those that changed last.",
)
@limit_option
@reveal_options
@shadow_option
@list_options
@config_option
@click.pass_obj
def find(
    cli: Cli,
    visit: str | None,
    name: str | None,
    birth_date: str | None,
    charts_max: int,
    limit: int,
    reveal: bool,
    reason: str | None,
) -> None:
    """Find patients, those that changed last first; without options simply those.

    Everything that identifies a patient is encrypted. A patient's key and a whole encounter key lead to their patient
    at once (`show KEY`, `--visit AUTHORITY:NUMBER`); for a name, a birth date or a bare visit number the charts that
    changed last are opened one by one. It says so when that were not all.
    """
    from engine.domain.shapes import patient_shape

    wish = reveal_of(reveal, reason)
    terms = Terms(visit, name, birth_date)
    searching = terms.any
    with open_desk(cli) as desk:
        found, cut, damaged = search(desk, terms, charts_max=charts_max, most=desk.most(limit))
        if cut:
            cli.say(f"Only the {charts_max:,} charts that changed last are looked through; more: --within N")
        found = desk.seen(found, lambda chart: (chart.id, None))
        if searching:
            desk.unseen = 0  # that somebody of this name is a patient at all is told to nobody who does not see them
        if len(found) > limit:
            found = found[:limit]
            with desk.store.reader() as conn:
                cli.cut(limit, None if searching else desk.store.charts.count(conn))
        if searching:
            desk.found(chart.id for chart in found)
        view = desk.view(wish, (f"chart:{chart.id}" for chart in found))
    if damaged:
        named = ", ".join(damaged[:_NAMED_MAX]) + (", ..." if len(damaged) > _NAMED_MAX else "")
        cli.say(f"Damaged and left out: {len(damaged)} chart(s): {named}")
    any_test = any(chart.test for chart in found)
    shapes = [view.of(chart.id).patient(patient_shape(chart.patient)) | {"test": chart.test} for chart in found]
    rows = [
        (s["key"], _name(s["name"]), s["birth_date"], s["sex"], len(chart.encounters),
         sum(task.stands for task in chart.tasks), *(["test data" if chart.test else None] if any_test else []))
        for chart, s in zip(found, shapes, strict=True)
    ]  # fmt: skip
    columns: tuple[str | Column, ...] = (
        "patient", Column("name", least=8, common=True), Column("born", common=True, drop=1),
        Column("sex", common=True, drop=2), Column("encounters", drop=3), Column("open tasks"),
        *((Column("remark"),) if any_test else ()),
    )  # fmt: skip
    cli.print(shapes, table(columns, rows) or "No such patient.")


def _name(name: dict[str, Any] | None) -> str | None:
    return ", ".join(filter(None, (name["family"], name["given"]))) if name else None


def human_chart(shape: dict[str, Any]) -> str:
    from engine.domain.parts import PARTS

    shape = singles(shape)
    lines = [
        f"{shape['key']}  {_name(shape['name']) or '-'}  born {shape['birth_date'] or '-'}  {shape['sex'] or '-'}"
        + (f"  {alarm('DECEASED')}" if shape["deceased"] else "")
        + (f"  {alarm('TEST DATA')}" if shape.get("test") else "")
    ]
    if shape["merged_from"]:
        lines.append(f"merged from {', '.join(shape['merged_from'])}")
    if links := shape.get("links"):
        lines.append(f"linked with {', '.join(links)}")
    lines += [f"stay {one['encounter']} is that of {one['patient_key']} now" for one in shape.get("moved_away", ())]
    lines += [f"held for a person: {one['id']} {one['code']}: {one['detail']}" for one in shape.get("held", ())]
    lines += [
        f"dead letter {one['id']} (entry {one['entry']}): {one['error']}: {one['detail']}"
        for one in shape.get("dead", ())
    ]
    for part in PARTS:
        shown = _TABLES.get(part.name, _table_of_fields)(part, shape[part.name])
        if shown:
            lines += ["", shown]
    return "\n".join(lines)


def _encounters(_part: Part, encounters: list[dict[str, Any]]) -> str:
    columns: list[str | Column] = [
        Column("encounter", least=8), "class", "status", time_column("admitted"), time_column("discharged"),
        Column("disposition", drop=1),
    ]  # fmt: skip
    rows = [
        [e["key"], e["class"], e["status"], clock_time(e["admitted_at"]), clock_time(e["discharged_at"]),
         e["disposition"]] for e in encounters
    ]  # fmt: skip
    expected = [_expected(e) for e in encounters]
    if any(expected):
        columns.append(Column("expected", drop=2))
        rows = [[*row, what] for row, what in zip(rows, expected, strict=True)]
    return table(columns, rows)


def _expected(encounter: dict[str, Any]) -> str:
    """What is planned for a stay: never what has happened."""
    status = encounter["status"]
    if status == "planned":
        at, what = encounter["expected_admission_at"], "arrival"
    elif status == "on_leave":
        at, what = encounter["leave_return_expected_at"], "return"
    elif status == "active" and (encounter["discharge_pending"] or encounter["expected_discharge_at"]):
        at, what = encounter["expected_discharge_at"], "discharge"
        if at is None:
            return "discharge, pending"
    else:
        return ""
    return f"{what} {clock_time(at)}" if at else ""


def _scores(_part: Part, scores: list[dict[str, Any]]) -> str:
    columns = (
        "score", "value", "band", Column("encounter", least=8, drop=2), Column("factors", least=12),
        Column("missing", least=8, drop=1),
    )  # fmt: skip
    rows = [
        (s["model"], s["value"] if s["value"] is not None else f"{s['min']}..{s['max']}", s["band"], s["encounter"],
         _factors(s), ", ".join(s["missing"]))
        for s in scores
    ]  # fmt: skip
    return table(columns, rows)


def _factors(score: dict[str, Any]) -> str:
    if "factors_masked" in score:
        return f"{score['factors_masked']} ***"
    return ", ".join(f"{one['name']} {one['points']}" for one in score["factors"])


def _tasks(_part: Part, tasks: list[dict[str, Any]]) -> str:
    columns = (
        Column("task", kind="id"), "kind", Column("state", alarm={"missed"}), time_column("due"),
        Column("assignee", least=8, drop=2), Column("reason", least=8, drop=1),
    )  # fmt: skip
    rows = [(t["id"], t["kind"], t["state"], clock_time(t["due_at"]), t["assignee"], reason_told(t)) for t in tasks]
    return table(columns, rows)


def _appointments(_part: Part, appointments: list[dict[str, Any]]) -> str:
    return appointment_table(appointments, of_patient=True) if appointments else ""


def _table_of_fields(part: Part, items: list[dict[str, Any]]) -> str:
    """Of a part without a table of its own: what its items hold in one word, a column for each field of the type."""
    if not items:
        return ""
    names = [name for name in items[0] if not any(isinstance(item[name], list | dict) for item in items)]
    times = {name for name in names if name.endswith("_at")}
    columns = [
        time_column(name.removesuffix("_at")) if name in times else Column(name.replace("_", " "), least=8, drop=index)
        for index, name in enumerate(names)
    ]
    columns[0] = Column(part.what, least=8)
    rows = [[clock_time(item[name]) if name in times else item[name] for name in names] for item in items]
    return table(columns, rows)


_TABLES: Final[Mapping[str, Callable[[Part, list[dict[str, Any]]], str]]] = {
    "encounters": _encounters,
    "scores": _scores,
    "tasks": _tasks,
    "appointments": _appointments,
}
"""Parts with a table of their own."""


@patients.command("export", epilog=f"KEY is {PATIENT_HELP}")
@click.argument("key", metavar="KEY", type=PatientKey())
@click.option("--reason", required=True, type=Said(), metavar="TEXT", help="Why; written to the audit; - asks.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write it to a file, its owner's alone.",
)
@given_options
@json_option
@config_option
@click.pass_obj
def export(cli: Cli, /, key: str, reason: str, out: Path | None, **given: str | None) -> None:
    """Take out all that is stored of a patient as one JSON document: chart with all its parts, messages as they came,
    what was sent where, what waits for a person, and who has looked.

    It is unmasked. Whoever does not see all of the patient is refused. With --to it is given to somebody outside, and
    is in the accounting of disclosures by what it counts as (--as, --purpose).
    """
    from engine.cli.paper import check_folder, write_page
    from engine.desk.disclosures import rules_of
    from engine.desk.exporting import exported, given_to

    check_folder(out)
    with open_desk(cli) as desk:
        said = given_to(rules_of(desk), **given) if any(given.values()) else {}
        document = exported(desk, key, reason, said)
    if out is None:
        cli.json = True
        cli.print(document, "")
        return
    write_page(out, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    summary = {"file": str(out), "messages": len(document["messages"]), "deliveries": len(document["deliveries"])}
    cli.print(summary, f"Written to {out}: {summary['messages']:,} messages, {summary['deliveries']:,} deliveries.")


@patients.command("erase")
@click.argument("key", metavar="KEY", type=PatientKey())
@click.option("--reason", required=True, type=Said(), metavar="TEXT", help="Why; written to the audit, where it stays.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@config_option
@click.pass_obj
def erase(cli: Cli, key: str, reason: str, yes: bool) -> None:
    """Erase a patient: chart, messages, what was sent. It can't be undone.

    Refused (exit code 1) under a legal hold, and while somebody waits for something of the patient: an open task, a
    page, a stay, a delivery, a dead letter, a question. Counts and the audit stay. A later message of the patient makes
    a new chart.
    """
    from engine.cli.groups import agree
    from engine.cli.retention import say_missed
    from engine.desk import keeping

    with open_desk(cli) as desk:
        chart = finding.chart(desk, key)
        shown = desk.pseudonym(chart.patient.key)
        agree(cli, f"All that is stored of {shown} is to be erased.", yes=yes)
        keeping.erase_patient(desk, chart, reason)
        say_missed(cli, keeping.renew_erasure_keys(desk))
    cli.print({"erased": shown}, f"Erased {shown}.")
