"""The medicines of a stay: the home list, the discharge list, and how they differ. A person decides on each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from engine.errors import NotFoundError

if TYPE_CHECKING:
    from engine.care.medications.reading import Formulary
    from engine.desk.desk import Desk, Reveal
    from engine.desk.seeing import View
    from engine.domain.chart import Chart
    from engine.domain.medication import Medication


def reconciliation(desk: Desk, chart: Chart, wish: Reveal | None, stay: str | None = None) -> dict[str, Any]:
    """stay: the key of an encounter; none: the one that was admitted last. Raises NotFoundError, SettingsError."""
    from engine.care.medications.comparing import reconcile
    from engine.care.medications.lists import lists_of, stay_of

    zone = ZoneInfo(desk.configuration.site.calendar.timezone)
    found = stay_of(chart, stay, zone)
    view = desk.view(wish, [f"chart:{chart.id}"]).of(chart.id)
    if found is None:
        raise NotFoundError("there is no such stay with an admission: only a stay has lists that are compared")
    formulary = _formulary(desk)
    lists = lists_of(chart, found, zone)
    sees = view.sees("medication", "text")
    findings = reconcile(lists.home, lists.discharge, formulary) if sees else []
    return {
        "patient_key": view.key(chart.patient.key),
        "encounter": view.key(found.key),
        "home": [_line(one, formulary, view) for one in lists.home if sees],
        "discharge": [_line(one, formulary, view) for one in lists.discharge if sees],
        "findings": [
            {
                "class": one.difference.value,
                "home": list(one.home),
                "discharge": list(one.discharge),
                "note": view.text(one.note),
            }
            for one in findings
        ],
    } | ({} if sees else {"not_shown": ["clinical"]})


def _formulary(desk: Desk) -> Formulary:
    """What the files say as they stand. Raises SettingsError."""
    from engine.care.medications.rules import load_formulary
    from engine.errors import Problem, SettingsError

    configuration = desk.configuration
    prefix = f"{configuration.site.mappings.removeprefix('./').rstrip('/')}/medications/"
    snapshot = configuration.snapshot
    documents = {
        file.removeprefix(prefix).removesuffix(".yaml"): snapshot.document(file)
        for file in snapshot.below(prefix)
        if not file.endswith(".test.yaml")
    }
    problems: list[Problem] = []
    formulary = load_formulary(documents, problems)
    if problems:
        raise SettingsError(tuple(problems))
    return formulary


def _line(one: Medication, formulary: Formulary, view: View) -> dict[str, Any]:
    from engine.domain.shapes import medication_shape

    shape = medication_shape(one, "") | {"understood": formulary.understand(one).shape}
    return view.part("medication", shape)
