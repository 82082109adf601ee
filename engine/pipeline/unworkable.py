"""What stands in the files, is valid word for word, and can never come to pass: a task that nobody gets, a protocol
that never hears of a discharge.

`handoff check` refuses the first kind (`contradictions`), and warns of the second (`never_happens`), which may be meant
while a site is set up. Neither keeps a daemon from starting: what works goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

from engine.care.adt.event import Meaning
from engine.care.conditions import Condition
from engine.care.dispositions import Action, Dispositions
from engine.domain.age import AGE_YEARS_MAX
from engine.errors import Problem
from engine.pipeline.channel import CompiledChannel, CompiledConfiguration
from engine.pipeline.messages import CODES
from engine.pipeline.oru.reading import CODE as ORU
from engine.settings.channel import Accept
from engine.yamlfile import Document, Path, did_you_mean

_NEEDED: Final[Mapping[str, str]] = {
    "encounter.visit_number": "no message says which stay it is about",
    "encounter.class": "no stay has a class, so each discharge asks a person",
    "encounter.disposition": "no discharge has a disposition, so each asks a person",
}
"""Targets of a field map without which no plan is made, and what happens instead."""
_VERSIONS: Final = frozenset(Accept().versions)
"""All that there are."""
_NO_CODE: Final = frozenset({Action.UNKNOWN, Action.CONFLICT})
"""Actions that need no code: a blank disposition leads there, or one that is not in the table."""


def contradictions(compiled: CompiledConfiguration) -> Iterator[Problem]:
    """Tasks of protocols that can't be for anybody."""
    for name, document in _protocols(compiled):
        conditions = compiled.rules.protocols[name].conditions
        classes = tuple(map(str, document.value["classes"]))
        for path, action, step in _steps(document):
            yield from _wrong_codes(document, path, action, step, compiled.rules.dispositions)
            asked = [(number, str(one)) for number, one in enumerate(step.get("when", ()))]
            known = [(number, one, conditions[one]) for number, one in asked if one in conditions]
            for number, asked_for, condition in known:
                if condition.classes and action is not Action.UNKNOWN and not set(condition.classes) & set(classes):
                    text = f"asks for class {' or '.join(condition.classes)}, which this protocol does not plan for"
                    yield document.problem((*path, "when", number), f"{asked_for} {text}: see classes")
            for (_, one, first), (number, other, second) in combinations(known, 2):
                if (why := _excludes(first, second)) is not None:
                    text = f"{one} and {other} never hold for one stay ({why}): nobody gets this task"
                    yield document.problem((*path, "when", number), text)


def _wrong_codes(
    document: Document, path: Path, action: Action, step: Mapping[str, Any], dispositions: Dispositions
) -> Iterator[Problem]:
    for number, code in enumerate(map(str, step.get("dispositions", ()))):
        here = (*path, "dispositions", number)
        if not dispositions.knows(code):
            near = did_you_mean(code, dispositions.codes)
            yield document.problem(here, f"is not in mappings/care/dispositions.yaml: nobody gets this task{near}")
            continue
        found = dispositions.of(code)
        if found.acts_as != code:
            yield document.problem(here, f"counts as {found.acts_as}: write that, else nobody gets this task")
        elif found.action is not action and action is not Action.UNKNOWN:
            yield document.problem(here, f"calls for {found.action}, and this is a task of {action}: nobody gets it")


def _excludes(first: Condition, second: Condition) -> str | None:
    low = max(one.age_years_min or 0 for one in (first, second))
    high = min(AGE_YEARS_MAX if one.age_years_max is None else one.age_years_max for one in (first, second))
    if low > high:
        return "their ages do not meet"
    if first.classes and second.classes and not set(first.classes) & set(second.classes):
        return "they ask for other classes"
    if first.units and second.units and not set(first.units) & set(second.units):
        return "they ask for other units"
    return None


def never_happens(compiled: CompiledConfiguration) -> Iterator[Problem]:
    """What a channel asks for, and its messages can't bring about."""
    for _, document in _protocols(compiled):
        yield from _without_code(document, compiled.rules.dispositions)
    for name, channel in compiled.channels.items():
        yield from _of_channel(compiled.source.channel_documents[name], channel, compiled)


def _of_channel(document: Document, channel: CompiledChannel, compiled: CompiledConfiguration) -> Iterator[Problem]:
    settings = channel.settings
    accepted = [(index, *_type(one)) for index, one in enumerate(settings.accept.types)]
    forwards = any("message" in target.what for target in settings.deliver)
    awaits = channel.planner is not None and bool(channel.planner.protocol.results)
    read = {*CODES, "*"} if awaits else {*CODES, "*"} - {ORU}
    for index, code, _event in accepted:
        if code not in read and not forwards:
            text = f"nothing here reads {code} messages, and they are forwarded nowhere: they are recorded, no more"
            yield document.warning(("accept", "types", index), text)
    for index, version in enumerate(settings.accept.versions):
        if version not in _VERSIONS:
            text = f"is no version of HL7 v2{did_you_mean(version, _VERSIONS)}"
            yield document.warning(("accept", "versions", index), text)
    if channel.planner is None:
        return
    ends = channel.events.that_mean(Meaning.DISCHARGE)
    ended = ", ".join(sorted(ends)) or "no event does"
    hears = any(code in {"ADT", "*"} and (event == "*" or event in ends) for _, code, event in accepted)
    if not (ends and hears):
        text = f"no accepted message ends a stay ({ended}): nothing is ever planned"
        yield document.warning(("protocol",), text)
    protocol = compiled.source.snapshot.document(f"{compiled.site.mappings}/protocols/{settings.protocol}.yaml")
    home = _dict(protocol, "plans").get("home_plan") or {}
    bands = [band for band in ("high", "moderate", "low") if home.get(band)]
    if channel.planner.model is None and bands:
        text = f"there is no band without `risk`: {', '.join(bands)} of home_plan are for nobody"
        yield document.warning(("protocol",), text)
    fields = compiled.source.snapshot.document(f"{compiled.site.mappings}/fields/{settings.mapping}.yaml").value
    for target, text in _NEEDED.items():
        if target not in fields:
            yield document.warning(("mapping",), f"fills no {target}: {text}")


def _without_code(document: Document, dispositions: Dispositions) -> Iterator[Problem]:
    called_for = {dispositions.of(code).action.value for code in dispositions.codes}
    for action, steps in _dict(document, "plans").items():
        known = action in {one.value for one in Action}
        if known and steps and action not in {*called_for, *(one.value for one in _NO_CODE)}:
            text = "no disposition of mappings/care/dispositions.yaml calls for it: these tasks are for nobody"
            yield document.warning(("plans", action), text)


def _type(pattern: str) -> tuple[str, str]:
    code, _, event = pattern.upper().partition("^")
    return code, event.partition("^")[0] or "*"


def _protocols(compiled: CompiledConfiguration) -> list[tuple[str, Document]]:
    """Those that channels use."""
    used = dict.fromkeys(channel.settings.protocol for channel in compiled.channels.values())
    folder = f"{compiled.site.mappings}/protocols"
    snapshot = compiled.source.snapshot
    return [(name, snapshot.document(f"{folder}/{name}.yaml")) for name in used if name is not None]


def _steps(document: Document) -> Iterator[tuple[Path, Action, Mapping[str, Any]]]:
    """All tasks of plans, where they stand and for which action."""
    for action, plan in _dict(document, "plans").items():
        if action not in {one.value for one in Action}:
            continue
        groups: Mapping[str, Sequence[Mapping[str, Any]]] = plan if isinstance(plan, dict) else {"": plan}
        for group, steps in groups.items():
            for index, step in enumerate(steps or ()):
                yield ("plans", action, *((group,) if group else ()), index), Action(action), step


def _dict(document: Document, key: str) -> dict[str, Any]:
    found = document.value.get(key)
    return found if isinstance(found, dict) else {}
