"""What the tests beside the files of medicines ask: how two lists differ, or what one line says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from engine.care.medications.comparing import reconcile
from engine.care.medications.reading import Formulary
from engine.domain.medication import Medication, MedicationState

_AT: Final = datetime(2026, 3, 2, tzinfo=UTC)
_PLAIN: Final = ("text", "code", "system", "strength", "amount", "form", "route", "frequency")


def answer(given: Mapping[str, Any], formulary: Formulary) -> Any:
    """given: `line` alone, or `home` and `discharge`. A line is its words, or `text`, `directions`, `state` and others.

    Lines are called by their place: `h1`, `d2`. Raises ValueError.
    """
    if "line" in given:
        one = formulary.understand(_line("h1", given["line"]))
        return one.shape | {"daily": str(one.daily) if one.daily is not None else None}
    lists = [_lines(mark, given.get(name, ())) for mark, name in (("h", "home"), ("d", "discharge"))]
    found = reconcile(lists[0], lists[1], formulary)
    return {
        "findings": [[one.difference.value, *one.home, *one.discharge] for one in found],
        "notes": [one.note for one in found],
    }


def _lines(mark: str, said: Sequence[Any]) -> list[Medication]:
    return [_line(f"{mark}{number}", one) for number, one in enumerate(said, 1)]


def _line(id_: str, said: Any) -> Medication:
    fields = {"text": said} if isinstance(said, str) else dict(said)
    directions = fields.pop("directions", ())
    state = MedicationState(fields.pop("state", "active"))
    if not fields.keys() <= set(_PLAIN) or "text" not in fields:
        raise ValueError(f"given: a line is its words, or text, directions, state and {', '.join(_PLAIN[1:])}")
    return Medication(
        id=id_,
        written_at=_AT,
        said_at=_AT,
        state=state,
        directions=(directions,) if isinstance(directions, str) else tuple(directions),
        **fields,
    )
