"""`handoff medications`: the medicines of a stay, before and after."""

from __future__ import annotations

from textwrap import fill
from typing import Any, Final

import click

from engine.cli.common import Cli, Private, config_option, json_option, reveal_options, shadow_option
from engine.cli.desk import PATIENT_HELP, PatientKey, open_desk, reveal_of
from engine.desk import finding
from engine.printable import singles

_WIDTH: Final = 78
_CLASSES: Final = {
    "same": "same",
    "dose": "dose differs",
    "frequency": "times differ",
    "form_release": "form differs",
    "brand_generic": "brand differs",
    "substitution": "another of its class",
    "new": "new",
    "stopped": "not on the list",
    "held": "held",
    "duplicate_ingredient": "twice",
    "duplicate_class": "two of one class",
    "unclear": "unclear",
}


@click.command("medications", epilog=f"KEY is {PATIENT_HELP}")
@click.argument("key", metavar="KEY", type=PatientKey())
@click.option("--encounter", metavar="KEY", type=Private(), help="Which stay of the patient.  [default: the last one]")
@reveal_options
@shadow_option
@json_option
@config_option
@click.pass_obj
def medications(cli: Cli, key: str, encounter: str | None, reveal: bool, reason: str | None) -> None:
    """Compare what was taken at home with the discharge list, from prescriptions that pharmacies send (RDE, RDS).

    Nothing is decided here: each line that is not the same waits for a person.
    """
    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        from engine.desk.medicines import reconciliation

        shape = reconciliation(desk, finding.chart(desk, key), wish, encounter)
    cli.print(shape, human(shape))


def human(shape: dict[str, Any]) -> str:
    lines = {one["id"]: one for one in (*shape["home"], *shape["discharge"])}
    if not lines:
        return "No prescriptions are known for this stay: no pharmacy has sent any (RDE, RDS)."
    return "\n\n".join(_finding(one, lines) for one in shape["findings"])


def _finding(finding: dict[str, Any], lines: dict[str, dict[str, Any]]) -> str:
    """Nothing is cut: what stands at the end of a direction may be what matters."""
    rows = [_CLASSES[finding["class"]].upper()]
    for name in ("home", "discharge"):
        rows += [_wrapped(f"  {name:<11}", _said(lines[id_])) for id_ in finding[name]]
    return "\n".join([*rows, _wrapped("  ", singles(finding["note"] or ""))])


def _wrapped(head: str, text: str) -> str:
    return fill(text, width=_WIDTH, initial_indent=head, subsequent_indent=" " * len(head))


def _said(line: dict[str, Any]) -> str:
    fields = (line["text"], *(line.get(name) for name in ("strength", "amount", "route", "frequency")))
    words = dict.fromkeys(str(word) for word in (*fields, *(line.get("directions") or ())) if word)
    held = {"held": " (held)", "stopped": " (stopped)"}.get(line["state"], "")
    return str(singles(", ".join(words))) + held
