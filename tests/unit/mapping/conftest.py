from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from engine.hl7v2.message import Message
from engine.mapping.apply import Mapping
from engine.mapping.compile import compile_mapping
from engine.mapping.tables import Tables, load_tables
from engine.pipeline.messages import TARGETS
from engine.yamlfile import Document, parse

ROOT = Path(__file__).parents[3]
MSH = r"MSH|^~\&|EHR|MAIN|HANDOFF|HUB|20260715143005-0400||ADT^A01^ADT_A01|1|P|2.5.1"


def document(path: Path) -> Document:
    return parse(path.read_text(encoding="utf-8"), path.name)


@pytest.fixture
def build() -> Callable[..., Message]:
    """A message of an MSH and the given segments."""
    return lambda *segments, msh=MSH: Message.parse("\r".join((msh, *segments, "")).encode())


@pytest.fixture(scope="session")
def tables() -> Tables:
    return load_tables(document(path) for path in sorted((ROOT / "mappings" / "tables").glob("*.yaml")))


@pytest.fixture(scope="session")
def shipped(tables: Tables) -> Mapping:
    return compile_mapping(
        document(ROOT / "mappings/fields/adt.yaml"), tables, zone=ZoneInfo("America/New_York"), targets=TARGETS
    )


@pytest.fixture
def compiled(tables: Tables) -> Callable[[str], Mapping]:
    """A mapping of the given rules; the identifiers' rule is added."""

    def compile_rules(rules: str) -> Mapping:
        text = rules if "patient.identifiers" in rules else f"patient.identifiers: PID-3\n{rules}"
        return compile_mapping(parse(text, "site.yaml"), tables, zone=ZoneInfo("America/New_York"))

    return compile_rules
