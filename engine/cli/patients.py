"""`handoff patients`: charts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from engine.cli.common import Cli, clock_time, config_option, json_option, limit_option, reveal_options, table
from engine.cli.site import open_site, reveal_of

if TYPE_CHECKING:
    from engine.domain.chart import Chart

_SCANNED_MAX = 100_000


@click.group("patients")
@config_option
def patients() -> None:
    """Patients with encounters, scores and tasks."""


@patients.command("show")
@click.argument("key", metavar="KEY")
@reveal_options
@json_option
@config_option
@click.pass_obj
def show(cli: Cli, key: str, reveal: bool, reason: str | None) -> None:
    """Show a patient with encounters, scores and tasks. KEY is AUTHORITY:ID or a pseudonym (MRN:~3f9a1c2b).

    The key of a patient that was merged into another shows the other.
    """
    from engine.domain.shapes import chart_shape

    wish = reveal_of(reveal, reason)
    with open_site(cli) as site:
        chart = site.chart(key)
        shape = site.view(wish, [f"chart:{chart.id}"]).chart(chart_shape(chart))
    cli.print(shape, human_chart(shape))


@patients.command("find")
@click.option("--visit", metavar="NUMBER", help="With this encounter key (AUTHORITY:NUMBER) or visit number.")
@click.option("--name", metavar="TEXT", help="Whose family name begins so.")
@click.option("--birth-date", metavar="DATE", help="Born then; 1958-07 finds all of that month.")
@limit_option
@reveal_options
@json_option
@config_option
@click.pass_obj
def find(
    cli: Cli,
    visit: str | None,
    name: str | None,
    birth_date: str | None,
    limit: int,
    reveal: bool,
    reason: str | None,
) -> None:
    """Find patients, those that changed last first; without options simply those.

    Everything that identifies a patient is encrypted, so a search opens the charts one by one, the latest 100,000.
    """
    from engine.domain.shapes import patient_shape

    wish = reveal_of(reveal, reason)
    searching = visit is not None or name is not None or birth_date is not None
    with open_site(cli) as site:
        with site.store.reader() as conn:
            charts = site.store.charts.find(conn, _SCANNED_MAX if searching else limit)
        found = [chart for chart in charts if _matches(chart, visit, name, birth_date)][:limit]
        view = site.view(wish, (f"chart:{chart.id}" for chart in found))
    shapes = [view.patient(patient_shape(chart.patient)) for chart in found]
    rows = [
        (s["key"], _name(s["name"]), s["birth_date"], s["sex"], len(chart.encounters),
         sum(task.state == "open" for task in chart.tasks)) for chart, s in zip(found, shapes, strict=True)
    ]  # fmt: skip
    headers = ("patient", "name", "born", "sex", "encounters", "open tasks")
    cli.print(shapes, table(headers, rows) or "No such patient.")


def _matches(chart: Chart, visit: str | None, name: str | None, birth_date: str | None) -> bool:
    patient = chart.patient
    family = (patient.name.family if patient.name else None) or ""
    return (
        (visit is None or any(visit in {item.key, item.visit_number} for item in chart.encounters))
        and (name is None or family.casefold().startswith(name.casefold()))
        and (birth_date is None or (patient.birth_date or "").startswith(birth_date))
    )


def _name(name: dict[str, Any] | None) -> str | None:
    return ", ".join(filter(None, (name["family"], name["given"]))) if name else None


def human_chart(shape: dict[str, Any]) -> str:
    lines = [
        f"{shape['key']}  {_name(shape['name']) or '-'}  born {shape['birth_date'] or '-'}  {shape['sex'] or '-'}"
        + ("  DECEASED" if shape["deceased"] else "")
    ]
    if shape["merged_from"]:
        lines.append(f"merged from {', '.join(shape['merged_from'])}")
    encounters = [
        (e["key"], e["class"], e["status"], clock_time(e["admitted_at"]), clock_time(e["discharged_at"]),
         e["disposition"]) for e in shape["encounters"]
    ]  # fmt: skip
    scores = [
        (s["model"], s["value"] if s["value"] is not None else f"{s['min']}..{s['max']}", s["band"], s["encounter"],
         ", ".join(f"{f['name']} {f['points']}" for f in s["factors"]), ", ".join(s["missing"]))
        for s in shape["scores"]
    ]  # fmt: skip
    tasks = [
        (t["id"], t["kind"], t["state"], clock_time(t["due_at"]), t["assignee"], t["reason"]) for t in shape["tasks"]
    ]
    for part in (
        table(("encounter", "class", "status", "admitted", "discharged", "disposition"), encounters),
        table(("score", "value", "band", "encounter", "factors", "missing"), scores),
        table(("task", "kind", "state", "due", "assignee", "reason"), tasks),
    ):
        if part:
            lines += ["", part]
    return "\n".join(lines)
