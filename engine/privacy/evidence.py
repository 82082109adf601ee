"""What shows an auditor that rules are kept: rows of `mappings/privacy/evidence.yaml`, settings and proofs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator

from engine.domain.audit import EVENTS
from engine.domain.record import Record
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate

_Text = Annotated[str, Field(min_length=1, max_length=500)]
_ANY: Final = "*"


class SettingSpec(StrictModel):
    """A key of config.yaml."""

    key: Annotated[str, Field(pattern=r"^[a-z_*]+(\.[a-z_*]+)*$")]
    """Its path; `*` is each of a table."""
    wants: Literal["set", "unset"] | None = None
    """Whether it has to be there, or must not be; otherwise the row is open."""


class ProofSpec(StrictModel):
    """An event of the trail."""

    event: _Text
    """Its name; the last one is shown."""
    days_max: Annotated[int, Field(ge=1, le=3660)] | None = None
    """How old it may be; none: as old as it likes."""

    @field_validator("event")
    @classmethod
    def _known(cls, event: str) -> str:
        if event not in EVENTS:
            raise ValueError(f"there is no event {event} of the trail")
        return event


class RowSpec(StrictModel):
    """A rule, and what shows that it is kept."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]
    """Name of the row."""
    rule: _Text
    """The rule, with where it stands."""
    asks: _Text
    """What it asks for."""
    does: _Text
    """What the product does."""
    site: _Text | None = None
    """What the site has to do itself."""
    settings: Annotated[tuple[SettingSpec, ...], Field(max_length=20)] = ()
    """Keys whose value here is shown."""
    proofs: Annotated[tuple[ProofSpec, ...], Field(max_length=20)] = ()
    """What has to be on record."""


class EvidenceFile(StrictModel):
    """What `handoff evidence` tells an auditor."""

    version: _Text
    """Of the rows."""
    rows: Annotated[tuple[RowSpec, ...], Field(min_length=1, max_length=200)]
    """In the order of the document."""

    @field_validator("rows")
    @classmethod
    def _once(cls, rows: tuple[RowSpec, ...]) -> tuple[RowSpec, ...]:
        if len({one.id for one in rows}) < len(rows):
            raise ValueError("two rows have the same id")
        return rows


class Last(Record, frozen=True, kw_only=True):
    """The last record of an event."""

    at: datetime
    actor: str
    result: str
    seq: int


class Shown(Record, frozen=True, kw_only=True):
    """A row with its evidence. state: `shown`; `open`: something is missing; `site`: only the site can show it."""

    id: str
    rule: str
    asks: str
    does: str
    site: str | None
    state: Literal["shown", "open", "site"]
    open: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    proofs: tuple[tuple[str, Last | None], ...]


def load_evidence(document: Document) -> EvidenceFile:
    """Raises SettingsError."""
    return validate(document, EvidenceFile)


def show(row: RowSpec, site: Mapping[str, Any], last: Mapping[str, Last], now: datetime) -> Shown:
    """site: the settings as a table, without secrets. last: by event, what there is."""
    missing: list[str] = []
    settings: list[tuple[str, str]] = []
    for spec in row.settings:
        for key, value in _values(site, spec.key.split(".")):
            settings.append((key, _said(value)))
            if spec.wants == "set" and not value:
                missing.append(f"{key} is not set")
            if spec.wants == "unset" and value:
                missing.append(f"{key} is set")
    for proof in row.proofs:
        found = last.get(proof.event)
        if found is None:
            missing.append(f"no record of {proof.event}")
        elif found.result != "allowed":
            missing.append(f"the last record of {proof.event} says that it failed")
        elif proof.days_max is not None and (age := (now - found.at).days) > proof.days_max:
            missing.append(f"the last record of {proof.event} is {age} days old, and {proof.days_max} is the most")
    sure = bool(row.proofs) or any(one.wants for one in row.settings) or row.site is None
    return Shown(
        id=row.id, rule=row.rule, asks=row.asks, does=row.does, site=row.site,
        state="open" if missing else "shown" if sure else "site",
        open=tuple(missing),
        settings=tuple(settings),
        proofs=tuple((one.event, last.get(one.event)) for one in row.proofs),
    )  # fmt: skip


def _values(value: Any, path: list[str], at: str = "") -> Iterator[tuple[str, Any]]:
    if not path:
        yield at, value
        return
    table = value if isinstance(value, Mapping) else {}
    for name in table if path[0] == _ANY else [path[0]]:
        yield from _values(table.get(name), path[1:], f"{at}.{name}" if at else name)


def _said(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, Mapping):
        return "set"
    if isinstance(value, list | tuple):
        return f"{len(value)} set"
    return str(value)
