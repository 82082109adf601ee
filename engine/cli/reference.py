"""The configuration reference, `docs/reference/configuration.md`: a section a kind of file, a table an object.

`make schemas` writes it, from the schemas and from examples that have every key.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from engine.cli.schema import schema_of

FILES: Final[Mapping[str, str]] = {
    "config": "config.yaml",
    "channel": "channels/NAME.yaml",
    "fields": "mappings/fields/NAME.yaml",
    "table": "mappings/tables/NAME.yaml",
    "destination": "mappings/destinations/NAME.yaml",
    "requests": "mappings/destinations/NAME.yaml (requests for appointments)",
    "protocol": "mappings/protocols/NAME.yaml",
    "oncall": "mappings/oncall/NAME.yaml",
    "texts": "mappings/texts/NAME.yaml (a series)",
    "text-service": "mappings/texts/service.yaml",
    "text-words": "mappings/texts/words.yaml",
    "text-clinical": "mappings/texts/clinical.yaml",
    "text-languages": "mappings/texts/languages.yaml",
    "quiet-hours": "mappings/texts/quiet-hours.yaml",
    "text-zones": "mappings/texts/zones.yaml",
    "drugs": "mappings/medications/drugs.yaml",
    "directions": "mappings/medications/directions.yaml",
    "access": "mappings/access/roles.yaml",
    "disclosures": "mappings/privacy/disclosures.yaml",
    "evidence": "mappings/privacy/evidence.yaml",
    "breach": "mappings/privacy/breach.yaml",
    "unusual": "mappings/privacy/unusual.yaml",
    "risk": "mappings/risk/NAME.yaml",
    "risk-inputs": "mappings/care/risk-inputs.yaml",
    "adt-events": "mappings/care/adt-events.yaml",
    "dispositions": "mappings/care/dispositions.yaml",
    "appointments": "mappings/appointments/NAME.yaml",
    "channel-tests": "channels/NAME.test.yaml",
    "rule-tests": "mappings/FOLDER/NAME.test.yaml",
}
"""Kind of file -> where it stands, in the order of the page."""
_SHIPPED: Final[Mapping[str, tuple[str, ...]]] = {
    "risk": tuple(f"mappings/risk/{model}.yaml" for model in ("lace", "seed", "charlson", "hospital")),
    **{
        kind: (f"mappings/texts/{name}.yaml",)
        for kind, name in (
            ("texts", "post-discharge-texts"),
            ("text-service", "service"),
            ("text-words", "words"),
            ("text-clinical", "clinical"),
            ("text-languages", "languages"),
            ("quiet-hours", "quiet-hours"),
            ("text-zones", "zones"),
        )
    },
    "directions": ("mappings/medications/directions.yaml",),
    "access": ("mappings/access/roles.yaml",),
    "disclosures": ("mappings/privacy/disclosures.yaml",),
    "evidence": ("mappings/privacy/evidence.yaml",),
    "breach": ("mappings/privacy/breach.yaml",),
    "unusual": ("mappings/privacy/unusual.yaml",),
    **{kind: (f"mappings/care/{kind}.yaml",) for kind in ("risk-inputs", "adt-events", "dispositions")},
}
"""Kinds whose shipped files are the examples, because they have every key."""
_HEAD: Final = """# Configuration reference

Every key of every file of a site. `make schemas` writes this page from the models that read the files. Editors show the
same texts through the JSON Schemas in [docs/schemas/](../schemas/): the first line of each shipped file names its own.

- `handoff check` says what is wrong, with file, line and column; an unknown key is a problem. `handoff reload` puts a
  good configuration in force.
- Units are in the names: `_seconds`, `_bytes`, `_days`.
- Default *none*: the key may be left out, and nothing stands for it; *see there*: what its own table says.
- A relative path begins at the folder of the file that it stands in.
- In config.yaml and in channels a text may stand elsewhere: `{env: NAME}` (environment), `{file: PATH}`,
  `{credential: NAME}` (systemd). Secrets never stand in the files themselves.
- Paths, filters and the targets of field mappings: [mapping.md](mapping.md).
"""
_EXAMPLE_CHARACTERS_MAX: Final = 72


def reference(examples: Path, site: Path) -> str:
    """The page. examples: the folder of the examples that have every key; site: the folder of the shipped files."""
    from engine.yamlfile import parse

    text = [_HEAD]
    text += [f"- [{file}](#{anchor(file)})" for file in FILES.values()]
    for kind, file in FILES.items():
        names = [site / name for name in _SHIPPED.get(kind, ())] or [examples / f"{kind}.yaml"]
        found = [parse(name.read_text(encoding="utf-8"), name.name).value for name in names]
        from_here = "examples" if kind not in _SHIPPED else f"../../{Path(_SHIPPED[kind][0]).parent.as_posix()}"
        shown = [f"[{name.name}]({from_here}/{name.name})" for name in names]
        text += [
            "",
            f"## {file}",
            "",
            f"An example with every key: {', '.join(shown)}.",
            *_Section(kind, found).lines(),
        ]
    return "\n".join(text) + "\n"


class _Section:
    """The objects of one kind of file, from the whole to its parts."""

    def __init__(self, kind: str, examples: list[Any]) -> None:
        self._kind_of_file = kind
        self._schema = schema_of(kind)
        self._places: dict[str, str] = {}
        """Definition -> where it stands first: `listen.tls`."""
        self._alike: dict[str, str] = {}
        """Definition as text -> the place of the first such one."""
        self._objects: list[tuple[str, dict[str, Any]]] = []
        self._examples: dict[tuple[int, str], Any] = {}
        """(object, key) -> the first example."""
        roots = self._schema.get("anyOf") or [self._schema]
        for root in roots:
            model = root.get("properties", {}).get("model", {}).get("const")
            self._collect(root, f"(model: {model})" if model else "")
        for example in examples:
            self._learn(self._schema, example)

    def lines(self) -> Iterator[str]:
        for place, shape in self._objects:
            keys = shape.get("properties", {})
            said = shape.get("description", "")
            if not keys:
                yield from (
                    "",
                    *_wrapped(said, f"Its keys are names, and beside each stands: {self._any_of(_values(shape))}."),
                )
                continue
            rows = [self._row(shape, key, about) for key, about in keys.items()]
            if place:
                yield from ("", f"### {self._heading(place)}")
            yield from ("", *_wrapped(said), "", "| key | type | default | meaning |", "|---|---|---|---|", *rows)

    def _row(self, shape: dict[str, Any], key: str, about: dict[str, Any]) -> str:
        example = self._example(shape, key)
        cells = (
            f"`{key}`",
            self._type(about),
            self._default(shape, key, about),
            about["description"] + (f" Example: {example}" if example else ""),
        )
        return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"

    def _example(self, shape: dict[str, Any], key: str) -> str:
        value, about = self._examples.get((id(shape), key)), shape["properties"][key]
        if value is None or "const" in about or value == about.get("default"):
            return ""
        text = f"{key}: {_flow(value)}"
        return f"`{text}`" if len(text) <= _EXAMPLE_CHARACTERS_MAX and "`" not in text else ""

    def _default(self, shape: dict[str, Any], key: str, about: dict[str, Any]) -> str:
        if key in shape.get("required", ()):
            return "required"
        match about.get("default"):
            case None:
                return "none"
            case dict() if "$ref" in about:
                return "see there"
            case [] | dict():
                return "empty"
            case value:
                return f"`{_flow(value)}`"

    def _type(self, about: dict[str, Any]) -> str:
        if _is_reference(about):
            return "reference"
        if "$ref" in about:
            return self._link(about["$ref"].rpartition("/")[2])
        choices = [one for one in about.get("anyOf") or about.get("oneOf") or () if not self._left_out(one)]
        if len(choices) > 1:  # that a text may be a reference is said once, at the top
            choices = [one for one in choices if not _is_reference(one)]
        if choices:
            return self._any_of(choices)
        if "const" in about:
            return f"`{about['const']}`"
        if "enum" in about:
            return ", ".join(dict.fromkeys(f"`{one}`" for one in about["enum"]))
        match about.get("type"):
            case "boolean":
                return "true or false"
            case "integer" | "number" as kind:
                return f"{kind}{_limits(about)}"
            case "array":
                each = self._type(about["items"]) if about.get("items") else "any"
                return f"list of ({each})" if " or " in each else f"list of {each}"
            case "object":
                return f"mapping of names to {self._any_of(_values(about))}" if _values(about) else "mapping"
            case "null":
                return "`null`"
            case "string":
                form = about.get("format", "text")
                return "network" if form.endswith("network") else form
            case _:
                return "any"

    def _any_of(self, choices: list[dict[str, Any]]) -> str:
        return " or ".join(dict.fromkeys(self._type(one) for one in choices))

    @staticmethod
    def _left_out(choice: dict[str, Any]) -> bool:
        return choice.get("type") == "null"

    def _link(self, name: str) -> str:
        shape = self._definition(name)
        if "enum" in shape:
            return self._type(shape)
        place = self._places[name]
        short = next((self._type(one) for one in shape.get("anyOf", ()) if one.get("type") == "string"), None)
        link = f"[{place}](#{anchor(self._heading(place))})"
        return f"{short} or {link}" if short else link

    def _heading(self, place: str) -> str:
        return f"{self._kind_of_file}: {place}"

    def _definition(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._schema["$defs"][name]
        return found

    def _collect(self, root: dict[str, Any], place: str) -> None:
        """The objects below one of the file's, those nearest to it first. Of objects that are alike one is shown."""
        waiting: deque[tuple[dict[str, Any], str]] = deque([(root, place)])
        while waiting:
            node, place = waiting.popleft()
            if "$ref" in node:
                name = node["$ref"].rpartition("/")[2]
                if name in self._places or name == "Reference":
                    continue
                shape = self._definition(name)
                text = repr(shape)
                if text not in self._alike:
                    self._alike[text] = place
                    waiting.append((shape, place))
                self._places[name] = self._alike[text]
                continue
            if node.get("properties") or node is root:
                self._objects.append((place, node))
            whole = re.sub(r" ?\([^()]*\)$", "", place)
            for key, about in node.get("properties", {}).items():
                waiting.append((about, f"{whole}.{key}".lstrip(".")))
            for choice in node.get("anyOf") or node.get("oneOf") or ():
                kind = self._kind(choice)
                waiting.append((choice, f"{place} ({kind})" if kind else place))
            if isinstance(node.get("items"), dict):
                waiting.append((node["items"], place))
            waiting += [(one, f"{place}.NAME".lstrip(".")) for one in _values(node)]

    def _kind(self, choice: dict[str, Any]) -> str | None:
        shape = self._definition(choice["$ref"].rpartition("/")[2]) if "$ref" in choice else choice
        kind = shape.get("properties", {}).get("type", {}).get("const")
        return f"type: {kind}" if kind else None

    def _learn(self, node: dict[str, Any], example: Any) -> None:
        """Remember what stands in an example for each key of each object."""
        if "$ref" in node:
            self._learn(self._definition(node["$ref"].rpartition("/")[2]), example)
            return
        for choice in node.get("anyOf") or node.get("oneOf") or ():
            if self._fits(choice, example):
                self._learn(choice, example)
        if isinstance(example, dict):
            for key, about in node.get("properties", {}).items():
                if key in example:
                    self._examples.setdefault((id(node), key), example[key])
                    self._learn(about, example[key])
            for one in _values(node):
                for value in example.values():
                    self._learn(one, value)
        elif isinstance(example, list) and isinstance(node.get("items"), dict):
            for value in example:
                self._learn(node["items"], value)

    def _fits(self, node: dict[str, Any], example: Any) -> bool:
        if "$ref" in node:
            return self._fits(self._definition(node["$ref"].rpartition("/")[2]), example)
        keys = node.get("properties")
        if keys is None or not isinstance(example, dict):
            return True
        constants = {key: about["const"] for key, about in keys.items() if "const" in about}
        return example.keys() <= keys.keys() and all(example.get(key) == value for key, value in constants.items())


def _is_reference(about: dict[str, Any]) -> bool:
    ref: str = about.get("$ref", "")
    return ref.endswith("/Reference")


def _values(shape: dict[str, Any]) -> list[dict[str, Any]]:
    """What stands beside the keys of a mapping that are not fixed."""
    named = (*shape.get("patternProperties", {}).values(), shape.get("additionalProperties"))
    return [one for one in named if isinstance(one, dict) and one]


def _limits(about: dict[str, Any]) -> str:
    low, above = about.get("minimum"), about.get("exclusiveMinimum")
    high = about.get("maximum")
    if above is not None:
        return f" above {above:g}" + (f", at most {high:g}" if high is not None else "")
    if low is not None and high is not None:
        return f", {low} to {high}"
    return f", at least {low}" if low is not None else f", at most {high}" if high is not None else ""


def _flow(value: Any) -> str:
    """A value on one line, as YAML."""
    import yaml

    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _wrapped(*paragraph: str) -> list[str]:
    import textwrap

    return textwrap.wrap(" ".join(" ".join(paragraph).split()), 120, break_long_words=False, break_on_hyphens=False)


def anchor(heading: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
