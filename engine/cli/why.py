"""`handoff why`: why something was done, or not, as a story."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any, Final

import click

from engine.access.fields import Group
from engine.cli.common import (
    Cli,
    config_option,
    limit_option,
    listing_options,
    named_time,
    reveal_options,
    shadow_option,
)
from engine.cli.desk import PatientKey, open_desk, reveal_of
from engine.cli.tables import alarm, wrapped
from engine.desk.seeing import HIDDEN
from engine.printable import singles

_KEY: Final = PatientKey()


class _Named(click.ParamType[str]):
    name = "subject"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        return str(_KEY.convert(text, param, ctx)) if ":" in text or text == "-" else text


@click.command("why", short_help="Why something was done, or not.")
@click.argument("named", metavar="SUBJECT", type=_Named())
@click.option("--all", "every", is_flag=True, help="Also what was delivered.")
@limit_option
@reveal_options
@shadow_option
@listing_options
@config_option
@click.pass_obj
def why(cli: Cli, named: str, every: bool, limit: int, reveal: bool, reason: str | None) -> None:
    """Show the decisions to act, and not to act, with what each rests on and what came of it.

    SUBJECT is a patient (MRN:558181838, or a pseudonym; - asks for it), a task, page or appointment (its id, or how
    that begins), or an entry of the journal (its number): then what it caused. What explains how things are today is
    marked with *.
    """
    from engine.desk.explaining import ENTRIES_MAX, decision_shape
    from engine.desk.explaining import why as explain

    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        story = explain(desk, named)
        view = desk.view(wish, [f"chart:{story.chart.id}" if story.chart.id else f"entry:{min(story.entries)}"])
        if story.chart.id:
            view = view.of(story.chart.id)
        desk.need(view, Group.STAY, Group.CLINICAL, Group.PLAN)
        patient = view.key(story.key)
    if story.cut:
        cli.say(f"Only the last {ENTRIES_MAX:,} entries of the patient were looked at.")
    found = story.decisions
    if len(found) > limit:
        cli.cut(limit, len(found))
        found = found[-limit:]
    shapes = [decision_shape(one, view) for one in found]
    kinds = {entry: one.what for entry, one in story.entries.items()}
    shown = [shape for shape in shapes if every or shape["what"] != "delivery"]
    lines = list(_lines([singles(shape) for shape in shown], kinds))
    left = len(shapes) - len(shown)
    more = [f"{left:,} decisions on deliveries are left out (--all)."] if left else []
    cli.print(shapes, "\n".join([f"patient {patient}", *(lines or ["Nothing was decided."]), *more]))


def _lines(shapes: list[dict[str, Any]], kinds: dict[int, str]) -> Iterator[str]:
    short = _short({shape["subject"] for shape in shapes if shape["what"] == "task"})
    for (at, causes), group in groupby(shapes, key=lambda shape: (shape["at"], tuple(shape["causes"]))):
        told = ", ".join(f"{kinds.get(entry, 'entry')} (entry {entry})" for entry in causes)
        yield ""
        yield f"{named_time(at)}  {told}".rstrip()
        told_before: set[tuple[Any, ...]] = set()
        for _, alike in groupby(group, key=_alike):
            first, *others = alike
            yield from _decision(first, others, short)
            rests = (_rule(first), first["version"], str(first["inputs"]))
            if rests not in told_before:
                yield from _grounds(first)
            told_before.add(rests)


def _alike(shape: dict[str, Any]) -> tuple[Any, ...]:
    """Tasks of which the same is to be said stand in one line."""
    said = tuple(str(shape[name]) for name in ("action", "decided", "reason", "text", "stands", "by", "said"))
    return ("task", *said) if shape["what"] == "task" else (shape["what"], shape["subject"], shape["rule"], *said)


def _short(ids: set[str]) -> int:
    """How many characters tell the ids apart."""
    return next((n for n in range(8, 32) if len({one[:n] for one in ids}) == len(ids)), 32)


def _decision(shape: dict[str, Any], others: list[dict[str, Any]], short: int) -> Iterator[str]:
    mark = "*" if shape["stands"] else " "
    who = f", by {shape['by']}" if shape["by"] and shape["reason"] != "person" else ""
    said = f" ({shape['said']})" if shape["said"] else ""
    name = f"{shape['what']} {shape['subject']}"
    if shape["what"] == "task":
        tasks = [f"{_step(one)} {one['subject'][:short]}" for one in (shape, *others)]
        name = f"task {tasks[0]}" if not others else f"{len(tasks)} tasks ({', '.join(tasks)})"
    elif shape["what"] == "score":
        name = f"score {shape['rule']} of {shape['subject']}"
    verb = "" if shape["action"] == shape["what"] else shape["action"].replace("_", " ")
    no = "" if shape["decided"] == "done" else alarm("not" if verb else "no", "yellow")
    head = " ".join(filter(None, (no, verb, name)))
    yield from wrapped(f"{mark} {head}: {shape['reason']}: {shape['text']}{who}{said}", indent=4)


def _step(shape: dict[str, Any]) -> str:
    """The task's name in the protocol."""
    return (shape["rule"] or "").partition(": ")[2].removesuffix(".escalate").rpartition(".")[2] or "task"


def _rule(shape: dict[str, Any]) -> str | None:
    """The file; of a task, whose step stands beside it, without the step."""
    rule: str | None = shape["rule"]
    return rule.partition(": ")[0] if rule and shape["what"] == "task" else rule


def _grounds(shape: dict[str, Any]) -> Iterator[str]:
    version, rule = shape["version"] or "", _rule(shape)
    version = f", {version}" if version.startswith("configuration ") else f", version {version}" if version else ""
    if rule:
        yield from wrapped(f"    rule {rule}{version}", indent=6)
    named = [item for item in shape["inputs"] if item["name"] != HIDDEN]
    inputs = [_input(item) for item in named]
    if masked := len(shape["inputs"]) - len(named):
        inputs.append(f"{masked} more, masked")
    if inputs:
        yield from wrapped(f"    from {'; '.join(inputs)}", indent=6)


def _input(item: dict[str, Any]) -> str:
    place = ", ".join(filter(None, (item["location"], f"entry {item['entry']}" if item["entry"] else "")))
    value = "none" if item["value"] is None else item["value"]
    return f"{item['name']} {value}" + (f" ({place})" if place else "")
