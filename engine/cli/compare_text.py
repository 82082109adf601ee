"""What `handoff compare` found, in words."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

from engine.cli.common import counted, named_time
from engine.desk.seeing import HIDDEN

_COLUMNS: Final = 80
_CAUSES_MAX: Final = 40
_TELLING: Final = frozenset({"identity", "read", "chart", "task", "appointment", "score"})
"""Kinds whose causes leave out values that no two messages share."""

HEADINGS: Final[Mapping[str, str]] = {
    "failing": "Fails now",
    "filtered": "Filtered now",
    "identity": "Another patient",
    "mended": "Fails no longer",
    "taken": "Filtered no longer",
    "read": "Read otherwise",
    "chart": "Charts",
    "plan": "Plans",
    "task": "Tasks",
    "appointment": "Appointments",
    "score": "Scores",
    "hold": "Questions to a person",
    "deviation": "Deviations",
    "delivery": "Deliveries",
}
"""Of the kinds of causes."""


def headline(document: Mapping[str, Any]) -> str:
    """What was compared, in a sentence."""
    if not document["compared"]:
        return f"No message of {document['channel']} was compared."
    times = f"{named_time(document['since'])} to {named_time(document['until'])}"
    warm = f" ({counted(document['warm_up'], 'earlier message')} for the charts)" if document["warm_up"] else ""
    return f"{counted(document['compared'], 'message')} of {document['channel']}, {times}{warm}."


def example_lines(group: Mapping[str, Any]) -> Iterator[str]:
    """The entries, with what was before and after where that says more than the cause."""
    if group["kind"] in _TELLING:
        said = [one for one in group["examples"] if _tells(one, group["cause"])]
        if said:
            yield from (f"entry {one['entry']}: {_text(one['before'])} now {_text(one['after'])}" for one in said)
            return
    numbers = dict.fromkeys(str(one["entry"]) for one in group["examples"])
    yield f"{'entries' if len(numbers) > 1 else 'entry'} {', '.join(numbers)}"


def _tells(example: Mapping[str, Any], cause: str) -> bool:
    """Whether an example's values say more than its cause."""
    values = [_text(example["before"]), _text(example["after"])]
    return "nothing" not in values and any(HIDDEN not in one and one not in cause for one in values)


def _text(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "nothing"
    if isinstance(value, dict):
        return " ".join(str(one) for one in value.values() if one is not None)
    return str(value)


def human(document: Mapping[str, Any]) -> str:
    """All of it, in lines that fit a terminal and a mail."""
    lines = textwrap.wrap(headline(document), _COLUMNS)
    lines += ["", f"{document['same']:>9,}  the same"]
    for name in ("changed", "newly_filtered", "newly_failing"):
        lines.append(f"{document[name]:>9,}  {name.replace('_', ' ')}")
    heading = None
    for group in document["groups"][:_CAUSES_MAX]:
        if group["kind"] != heading:
            heading = group["kind"]
            lines += ["", HEADINGS[heading]]
        lines += textwrap.wrap(
            group["cause"], _COLUMNS, initial_indent=f"{group['messages']:>9,}  ", subsequent_indent=" " * 11
        )
        for line in example_lines(group):
            lines += textwrap.wrap(line, _COLUMNS, initial_indent=" " * 11, subsequent_indent=" " * 13)
    left = len(document["groups"]) - _CAUSES_MAX
    if left > 0:
        lines += ["", f"And {counted(left, 'further cause')} (--json, --html)."]
    return "\n".join(lines)
