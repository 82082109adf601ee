"""`handoff schema`: the JSON Schemas of the files of a site, so that editors complete and check them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from engine.cli.common import Cli, config_option, json_option

MODELS: Final[Mapping[str, tuple[str, ...]]] = {
    "config": ("engine.settings:Site",),
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
    "destination": ("engine.connectors.fieldmap:FieldMapFile",),
    "adt-events": ("engine.care.events:_EventsFile",),
    "dispositions": ("engine.care.dispositions:_Spec",),
    "risk-inputs": ("engine.risk.inputs:_Spec",),
    "channel-tests": ("engine.trial.cases:ChannelTests",),
    "rule-tests": ("engine.trial.cases:RuleTests",),
}
"""Kind of file -> the models that read it."""

_REFERENCE: Final = {
    "type": "object",
    "description": "A value that stands elsewhere: in the environment, in a file, or in a systemd credential.",
    "oneOf": [
        {"properties": {kind: {"type": "string"}}, "required": [kind], "additionalProperties": False}
        for kind in ("env", "file", "credential")
    ],
}


@click.command("schema")
@click.argument("kind", type=click.Choice(list(MODELS)), required=False)
@click.option("--write", type=click.Path(file_okay=False, path_type=Path), help="Write all of them into this folder.")
@json_option
@config_option
@click.pass_obj
def schema(cli: Cli, kind: str | None, write: Path | None) -> None:
    """Print the JSON Schema of a kind of file. It is one JSON document in any case, with --json or without.

    The shipped files name theirs in a first line `# yaml-language-server: $schema=...`, which editors follow.
    """
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
    model: type[BaseModel] = getattr(importlib.import_module(module), attribute)
    result = TypeAdapter(model).json_schema(ref_template=f"#/$defs/{prefix}{{model}}")
    _describe(result, model)
    return result


def _allow_references(node: Any) -> None:
    """`{env: NAME}` and the like may stand for every text of these two kinds of file."""
    if isinstance(node, list):
        for item in node:
            _allow_references(item)
    elif isinstance(node, dict):
        for name, item in node.get("properties", {}).items():
            reference = {"$ref": "#/$defs/Reference"}
            if item.get("type") == "string" and "const" not in item:
                outer = {key: item.pop(key) for key in ("description", "default", "title") if key in item}
                node["properties"][name] = outer | {"anyOf": [item, reference]}
            elif any(choice.get("type") == "string" for choice in item.get("anyOf", ())):
                item["anyOf"].append(reference)
        for item in node.values():
            _allow_references(item)


def _describe(result: dict[str, Any], root: type[Any]) -> None:
    """Put the texts that stand below the fields of the models into the schema, where editors show them.

    Pydantic can do so when a class is made, but then every start of the daemon reads the sources again.
    """
    import inspect
    import sys

    from pydantic import BaseModel

    models = {
        name: value
        for name, value in vars(sys.modules[root.__module__]).items()
        if inspect.isclass(value) and issubclass(value, BaseModel)
    }
    parts = {root.__name__: result} | result.get("$defs", {})
    for name, part in parts.items():
        for base in reversed(models[name].__mro__ if name in models else ()):
            generic = "[" in base.__name__  # made by pydantic, has no source
            if issubclass(base, BaseModel) and base.__module__ == root.__module__ and not generic:
                for name_in_code, text in _field_texts(base).items():
                    field = models[name].model_fields[name_in_code].alias or name_in_code
                    if field in part.get("properties", {}):
                        part["properties"][field].setdefault("description", text)


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
