"""`handoff schema`: the JSON Schemas of the files of a site, so that editors complete and check them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

from engine.cli.common import Cli, config_option, json_option

MODELS: Final[Mapping[str, tuple[str, ...]]] = {
    "config": ("engine.connectors.registry:whole_site",),
    "channel": ("engine.settings:Channel",),
    "fields": ("engine.mapping.spec:MappingFile",),
    "table": ("engine.mapping.tables:TableFile",),
    "risk": (
        "engine.risk.lace:_Spec",
        "engine.risk.seed:_Spec",
        "engine.risk.charlson:_Spec",
        "engine.risk.hospital:_Spec",
    ),
    "protocol": ("engine.care.protocol:_Spec",),
    "oncall": ("engine.care.rosters:OnCallSpec",),
    "texts": ("engine.care.texts.series:SeriesFile",),
    "text-words": ("engine.care.texts.words:WordsFile",),
    "text-service": ("engine.care.texts.rules:ServiceFile",),
    "text-clinical": ("engine.care.texts.rules:ClinicalFile",),
    "text-languages": ("engine.care.texts.languages:LanguagesFile",),
    "quiet-hours": ("engine.care.texts.quiet:QuietFile",),
    "text-zones": ("engine.care.texts.zones:ZonesFile",),
    "drugs": ("engine.care.medications.drugs:DrugsFile",),
    "directions": ("engine.care.medications.directions:DirectionsFile",),
    "access": ("engine.access.roles:RolesFile",),
    "evidence": ("engine.privacy.evidence:EvidenceFile",),
    "breach": ("engine.privacy.breach:BreachFile",),
    "unusual": ("engine.privacy.unusual:UnusualFile",),
    "disclosures": ("engine.privacy.disclosures:DisclosuresFile",),
    "destination": ("engine.connectors.fieldmap:FieldMapFile",),
    "requests": ("engine.connectors.requests:RequestsFile",),
    "adt-events": ("engine.care.adt.event:EventsFile",),
    "appointments": ("engine.care.appointments:AppointmentsFile",),
    "dispositions": ("engine.care.dispositions:_Spec",),
    "risk-inputs": ("engine.risk.inputs:_Spec",),
    "channel-tests": ("engine.trial.cases:ChannelTests",),
    "rule-tests": ("engine.trial.cases:RuleTests",),
}
"""Kind of file -> the models that read it, or the function that makes one."""

_PLACES: Final = {
    "env": "Name of an environment variable.",
    "file": "Path of a file, relative to config.yaml; blanks around the value are left out.",
    "credential": "Name of a systemd credential (`LoadCredential=`).",
}
_ABOUT: Final = ("description", "default", "title")
_REFERENCE: Final = {
    "type": "object",
    "description": "A value that stands elsewhere: in the environment, in a file, or in a systemd credential.",
    "oneOf": [
        {
            "properties": {kind: {"type": "string", "description": said}},
            "required": [kind],
            "additionalProperties": False,
        }
        for kind, said in _PLACES.items()
    ],
}


@click.command("schema")
@click.argument("kind", type=click.Choice(list(MODELS)), required=False)
@click.option("--write", type=click.Path(file_okay=False, path_type=Path), help="Write all of them into this folder.")
@click.option(
    "--reference",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the reference of all keys to this file (Markdown), with examples from the folder examples beside it.",
)
@json_option
@config_option
@click.pass_obj
def schema(cli: Cli, kind: str | None, write: Path | None, reference: Path | None) -> None:
    """Print the JSON Schema of a kind of file. It is one JSON document in any case, with --json or without.

    The shipped files name theirs in a first line `# yaml-language-server: $schema=...`, which editors follow.
    """
    if reference is not None:
        from engine.cli import reference as pages
        from engine.cli.init import shipped

        reference.write_text(pages.reference(reference.parent / "examples", shipped()), encoding="utf-8")
        cli.say(f"reference written to {reference}")
        if write is None:
            return
    if write is not None:
        write.mkdir(parents=True, exist_ok=True)
        for name in MODELS:
            (write / f"{name}.json").write_text(rendered(name), encoding="utf-8")
        written = [str(write / f"{name}.json") for name in MODELS]
        if cli.json:
            cli.print({"written": written}, "")
        else:
            cli.say(f"{len(written)} schemas written to {write}")
    elif kind is None:
        raise click.UsageError(f"say which one: {', '.join(MODELS)} (or --write FOLDER for all)")
    else:
        click.echo(rendered(kind), nl=False)


def rendered(kind: str) -> str:
    import json

    return json.dumps(schema_of(kind), indent=2, ensure_ascii=False) + "\n"


def schema_of(kind: str) -> dict[str, Any]:
    """The JSON Schema of one kind of file."""
    targets = MODELS[kind]
    parts: dict[str, Any] = {}
    choices: list[dict[str, Any]] = []
    for number, target in enumerate(targets):
        prefix = f"{number}-" if len(targets) > 1 else ""
        result = _schema_of_model(target, prefix)
        parts |= {prefix + name: part for name, part in result.pop("$defs", {}).items()}
        choices.append(result)
    result = choices[0] if len(choices) == 1 else {"anyOf": choices}
    if kind in {"config", "channel"}:
        _allow_references([result, parts])
        parts["Reference"] = _REFERENCE
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | result | {"title": f"Handoff: {kind}"}
    return schema | ({"$defs": parts} if parts else {})


def _schema_of_model(target: str, prefix: str) -> dict[str, Any]:
    import importlib

    from pydantic import BaseModel, TypeAdapter

    module, _, attribute = target.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    model: type[BaseModel] = found if isinstance(found, type) else found()
    result = TypeAdapter(model).json_schema(ref_template=f"#/$defs/{prefix}{{model}}")
    _describe(result, model)
    return result


def _allow_references(node: Any) -> None:
    """`{env: NAME}` and the like may stand for every text of these two kinds of file, and must for a secret."""
    from engine.settings import SCHEMA_FORMAT

    if isinstance(node, list):
        for item in node:
            _allow_references(item)
    elif isinstance(node, dict):
        for name, item in node.get("properties", {}).items():
            reference = {"$ref": "#/$defs/Reference"}
            if item.get("format") == SCHEMA_FORMAT:
                node["properties"][name] = {key: item[key] for key in _ABOUT if key in item} | reference
            elif item.get("type") == "string" and "const" not in item:
                outer = {key: item.pop(key) for key in _ABOUT if key in item}
                node["properties"][name] = outer | {"anyOf": [item, reference]}
            elif any(choice.get("format") == SCHEMA_FORMAT for choice in item.get("anyOf", ())):
                item["anyOf"] = [reference if one.get("format") == SCHEMA_FORMAT else one for one in item["anyOf"]]
            elif any(choice.get("type") == "string" for choice in item.get("anyOf", ())):
                item["anyOf"].append(reference)
        for item in node.values():
            _allow_references(item)


def _describe(result: dict[str, Any], root: type[Any]) -> None:
    """Put the texts that stand below the fields of the models into the schema, where editors show them.

    Pydantic can do so when a class is made, but then every start of the daemon reads the sources again.
    """
    models = {model.__name__: model for model in _models_below(root)}
    for name, part in ({root.__name__: result} | result.get("$defs", {})).items():
        model = models.get(name)
        if model is None:
            continue  # an enumeration
        texts: dict[str, str] = {}
        for base in reversed(model.__mro__):
            generic = "[" in base.__name__  # made by pydantic, has no source
            if base.__module__.startswith("engine.") and not generic:
                texts |= _field_texts(base)
        for shape in (part, *part.get("anyOf", ())):  # the short form stands beside the object
            for field, said in shape.get("properties", {}).items():
                name_in_code = next(own for own, info in model.model_fields.items() if field in {own, info.alias})
                if name_in_code in texts:
                    said.setdefault("description", texts[name_in_code])


def _models_below(root: type[Any]) -> Iterator[type[Any]]:
    """The model and all that its fields are made of."""
    import inspect
    import typing

    from pydantic import BaseModel

    seen: set[int] = set()
    waiting: list[Any] = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        waiting += typing.get_args(one)
        if inspect.isclass(one) and issubclass(one, BaseModel):
            yield one
            waiting += [info.annotation for info in one.model_fields.values()]


def _field_texts(model: type[Any]) -> dict[str, str]:
    import ast
    import inspect
    import itertools
    import textwrap

    tree = ast.parse(textwrap.dedent(inspect.getsource(model)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    texts = {}
    for field, text in itertools.pairwise(body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                texts[name] = " ".join(said.split())
    return texts
