"""Consents from a file: each line is an act of whoever reads it in, or says why it is none."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from engine.errors import HandoffError

if TYPE_CHECKING:
    from engine.desk.desk import Desk

ROWS_MAX: Final = 100_000
_AT_ONCE: Final = 200
"""Acts that are waited for together."""
NEEDED: Final = ("patient", "number", "state")
BESIDES: Final = ("purpose", "channel", "at", "how", "wording")
_STATES: Final = {"given": True, "revoked": False}


class Line(NamedTuple):
    """What became of a line of the file. It says nothing of whose it is."""

    line: int
    state: str
    """`given`, `revoked`, or `refused`."""
    problem: str | None = None


def read(desk: Desk, content: bytes, *, how: str, dry_run: bool) -> list[Line]:
    """Put what the lines say on record; with `dry_run` only look at them.

    how: of lines that do not say it. Raises HandoffError for a file that is none, or has no such columns.
    """
    from engine.desk.acting import perform

    found: list[Line] = []
    acts: list[Any] = []
    for line, row in _rows(content):
        try:
            act = _act(desk, row, how)
        except HandoffError as error:
            found.append(Line(line, "refused", str(error)))
            continue
        found.append(Line(line, row["state"].strip().lower()))
        acts.append(act)
        if len(acts) == _AT_ONCE and not dry_run:
            perform(desk, acts)
            acts = []
    if acts and not dry_run:
        perform(desk, acts)
    return found


def _rows(content: bytes) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise HandoffError("the file is not UTF-8: save it as CSV in UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    names = [(name or "").strip().lower() for name in reader.fieldnames or ()]
    missing = [name for name in NEEDED if name not in names]
    strange = [name for name in names if name not in {*NEEDED, *BESIDES}]
    if missing or strange:
        wrong = f"lacks {', '.join(missing)}" if missing else "has a column that is none of these"
        raise HandoffError(
            f"the first line {wrong}: columns are {', '.join(NEEDED)}; and, if wanted, {', '.join(BESIDES)}"
        )
    reader.fieldnames = names
    try:
        for number, row in enumerate(reader, 2):
            if number > ROWS_MAX + 1:
                raise HandoffError(f"the file has more than {ROWS_MAX:,} lines: split it")
            yield number, {name: (row.get(name) or "") for name in (*NEEDED, *BESIDES)}
    except csv.Error:
        raise HandoffError("the file is no CSV that can be read") from None


def _act(desk: Desk, row: dict[str, str], how: str) -> Any:
    """Raises HandoffError."""
    from engine.desk import contacting, finding
    from engine.domain.cause import ContactConsentGiven, ContactConsentRevoked

    said = {name: value.strip() for name, value in row.items()}
    given = _STATES.get(said["state"].lower())
    if given is None:
        raise HandoffError("state is given or revoked")
    purpose, channel = said["purpose"] or "care", said["channel"] or "sms"
    contacting.check(purpose, channel, said["wording"] or None)
    number = contacting.number_of(said["number"])
    try:
        chart = finding.chart(desk, said["patient"])
    except HandoffError:  # its text may hold the key, and this one goes into logs of whoever runs it by night
        raise HandoffError("there is no such patient, or none that you may see") from None
    fields: dict[str, Any] = {
        "actor": str(desk.actor),
        "chart_id": chart.id,
        "purpose": purpose,
        "channel": channel,
        "number": number,
        "how": said["how"] or how,
        "at": _time(said["at"]),
    }
    if given:
        return ContactConsentGiven(**fields, wording=said["wording"] or None)
    return ContactConsentRevoked(**fields)


def _time(text: str) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise HandoffError("at is a time with its offset: 2026-03-01T09:30:00-05:00") from None
    if found.tzinfo is None:
        raise HandoffError("at is a time with its offset: 2026-03-01T09:30:00-05:00")
    return found
