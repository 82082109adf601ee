"""`handoff risk`: readmission scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.access.fields import Group
from engine.cli.common import Cli, Private, config_option, json_option, reveal_options
from engine.cli.desk import PATIENT_HELP, PatientKey, open_desk, read_input, reveal_of
from engine.cli.tables import table
from engine.desk import finding
from engine.desk.desk import Desk, Reveal
from engine.errors import NotFoundError
from engine.printable import singles

if TYPE_CHECKING:
    from datetime import datetime

    from engine.domain.chart import Chart
    from engine.domain.encounter import Encounter
    from engine.risk.registry import Model
    from engine.settings import Configuration


@click.group("risk")
@config_option
def risk() -> None:
    """Readmission risk scores."""


@risk.command("score")
@click.argument("name", metavar="MODEL")
@click.option("--patient", metavar="KEY", type=PatientKey(), help=f"A stored patient: {PATIENT_HELP}")
@click.option("--encounter", metavar="KEY", type=Private(), help="Which stay of the patient.  [default: the last one]")
@click.option(
    "--inputs",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="A JSON file (- is standard input); inputs that are absent or null are missing.",
)
@reveal_options
@json_option
@config_option
@click.pass_obj
def score(
    cli: Cli,
    name: str,
    patient: str | None,
    encounter: str | None,
    inputs: Path | None,
    reveal: bool,
    reason: str | None,
) -> None:
    """Score a stored patient as of now, or inputs given as JSON.

    Inputs of seed: age diagnoses admissions_12m lives_alone no_transportation active_medications.

    Inputs of lace: los_days acute charlson ed_visits_6m (or diagnoses for charlson).

    Inputs of hospital: haemoglobin_g_dl sodium_mmol_l oncology procedure elective admissions_12m los_days.

    Inputs of charlson: diagnoses.
    """
    wish = reveal_of(reveal, reason)
    if (patient is None) == (inputs is None):
        raise click.UsageError("give either --patient KEY or --inputs FILE")
    if inputs is not None and (encounter is not None or wish is not None):
        raise click.UsageError("--encounter, --reveal and --reason go with --patient")
    configuration = cli.configuration()
    model = _models(configuration).get(name)
    if model is None:
        known = ", ".join(sorted(_models(configuration)))
        raise NotFoundError(f"there is no model of this name; there are {known}")
    if inputs is not None:
        shape = _of_inputs(model, inputs, cli.clock.now())
    else:
        with open_desk(cli) as desk:
            shape = _of_patient(desk, model, patient or "", encounter, wish)
    cli.print(shape, _human(shape))


def _models(configuration: Configuration) -> dict[str, Model]:
    from engine.risk.registry import load_models

    prefix = f"{configuration.site.mappings.removeprefix('./').rstrip('/')}/risk/"
    snapshot = configuration.snapshot
    documents = {
        file.removeprefix(prefix).removesuffix(".yaml"): snapshot.document(file) for file in snapshot.below(prefix)
    }
    return load_models(documents)


def _of_inputs(model: Model, file: Path, now: datetime) -> dict[str, Any]:
    import msgspec

    from engine.domain.shapes import score_shape
    from engine.risk.inputs import InputsError, inputs_from_json

    content = read_input(file)
    try:
        value = msgspec.json.decode(content)
    except msgspec.DecodeError:
        raise InputsError("", f"{'standard input' if str(file) == '-' else file} is not JSON") from None
    return score_shape(model.score(inputs_from_json(value), now=now, observed_since=None))


def _of_patient(desk: Desk, model: Model, patient: str, encounter: str | None, wish: Reveal | None) -> dict[str, Any]:
    import msgspec

    from engine.domain.shapes import score_shape
    from engine.risk.inputs import inputs_of

    chart = finding.chart(desk, patient)
    desk.asked(encounter=encounter)
    stay = _stay(chart, encounter)
    with desk.store.reader() as conn:
        observed = desk.store.journal.first_received(conn)
    channel = desk.compiled().channels.get(chart.channel)
    if channel is None:
        raise NotFoundError("the channel that this patient came on is not part of the configuration")
    since = observed.get(channel.settings.name)
    inputs = inputs_of(chart, stay, now=desk.now, observed_since=since, tables=channel.inputs, zone=channel.zone)
    scored = msgspec.structs.replace(model.score(inputs, now=desk.now, observed_since=since), encounter=stay.key)
    view = desk.view(wish, [f"chart:{chart.id}"]).of(chart.id)
    desk.need(view, Group.CLINICAL)
    return view.part("score", score_shape(scored))


def _stay(chart: Chart, key: str | None) -> Encounter:
    if key is not None:
        stay = next((item for item in chart.encounters if key in {item.key, item.visit_number}), None)
        if stay is None:
            raise NotFoundError("the patient has no encounter of this key")
        return stay
    from engine.domain.chart import as_it_happened
    from engine.pipeline.plan import SCORED_CLASSES

    stays = [item for item in chart.encounters if item.class_ in SCORED_CLASSES]
    if not stays:
        raise NotFoundError("the patient has no inpatient stay to score; name an encounter with --encounter")
    return as_it_happened(stays)[-1]


def _human(shape: dict[str, Any]) -> str:
    shape = singles(shape)
    value = shape["value"] if shape["value"] is not None else f"{shape['min']}..{shape['max']}"
    lines = [f"{shape['model']} {shape['version']}: {value}, {shape['band']}"]
    if shape["band_max"] != shape["band"]:
        lines[0] += f" (up to {shape['band_max']}, as the missing inputs may be)"
    factors = [(factor["name"], factor["points"], factor["evidence"]) for factor in shape["factors"]]
    none = f"{shape['factors_masked']} factors, masked" if "factors_masked" in shape else "No factor gives points."
    lines.append(table(("factor", "points", "evidence"), factors) or none)
    if shape["missing"]:
        lines.append(f"missing: {', '.join(shape['missing'])}")
    return "\n".join(lines)
