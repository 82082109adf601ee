"""What shows an auditor that rules are kept: rows of `mappings/privacy/evidence.yaml`, settings and proofs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from engine.domain.audit import EVENTS
from engine.domain.record import Record
from engine.yamlfile import Document
from engine.yamlmodel import StrictModel, validate

_Text = Annotated[str, Field(min_length=1, max_length=500)]
_ANY: Final = "*"
_HOUR: Final = timedelta(hours=1)
NOTED: Final = "evidence-noted"
FigureName = Literal["notices", "referrals", "breaches", "refusals", "certificates", "network", "restricted", "glasses"]


class SettingSpec(StrictModel):
    """A key of config.yaml."""

    key: Annotated[str, Field(pattern=r"^[a-z0-9_*]+(\.[a-z0-9_*]+)*$")]
    """Its path; `*` is each of a table."""
    wants: Literal["set", "unset"] | None = None
    """Whether it has to be there, or must not be; otherwise the row is open."""
    at_most: float | None = None
    """It has to be a number, and no larger one."""


class ProofSpec(StrictModel):
    """An event of the trail."""

    event: _Text
    """Its name; the last one is shown."""
    days_max: Annotated[int, Field(ge=1, le=3660)] | None = None
    """How old it may be; none: as old as it likes."""
    hours_max: Annotated[int, Field(ge=1, le=8784)] | None = None
    """The same, in hours."""
    optional: bool = False
    """There need be none: nothing may have happened."""

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
    figures: Annotated[tuple[FigureName, ...], Field(max_length=10)] = ()
    """What is counted in the store."""
    noted_days_max: Annotated[int, Field(ge=1, le=3660)] | None = None
    """The site has to say that it did its part (`handoff audit note`), not longer ago than this."""
    lacks: _Text | None = None
    """What the rule asks for and the product does not do: the row is open."""

    @model_validator(mode="after")
    def _the_site_has_a_part(self) -> RowSpec:
        if self.noted_days_max is not None and self.site is None:
            raise ValueError("has noted_days_max and no site: say what the site has to do")
        return self


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


class Figure(Record, frozen=True, kw_only=True):
    """What was counted. wrong: it shows that the rule is not kept."""

    what: str
    value: str
    wrong: bool = False


class Last(Record, frozen=True, kw_only=True):
    """The last record of an event."""

    at: datetime
    actor: str
    result: str
    seq: int


class Shown(Record, frozen=True, kw_only=True):
    """A row with its evidence. state: `shown`; `open`: something is missing; `site`: only the site can show it.

    noted: when the site last said that it did its part.
    """

    id: str
    rule: str
    asks: str
    does: str
    site: str | None
    state: Literal["shown", "open", "site"]
    open: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    proofs: tuple[tuple[str, Last | None], ...]
    figures: tuple[Figure, ...] = ()
    noted: Last | None = None
    lacks: str | None = None


def load_evidence(document: Document) -> EvidenceFile:
    """Raises SettingsError."""
    return validate(document, EvidenceFile)


def show(
    row: RowSpec,
    site: Mapping[str, Any],
    last: Mapping[str, Last],
    now: datetime,
    *,
    noted: Last | None = None,
    figures: Sequence[Figure] = (),
) -> Shown:
    """site: the settings as a table, without secrets. last: by event, what there is. noted: of this row."""
    missing = [row.lacks] if row.lacks is not None else []
    settings: list[tuple[str, str]] = []
    for spec in row.settings:
        for key, value in _values(site, spec.key.split(".")):
            settings.append((key, _said(value)))
            missing += _wrong(spec, key, value)
    for proof in row.proofs:
        what, found = f"record of {proof.event}", last.get(proof.event)
        if found is None and proof.optional:
            continue
        missing += _stale(what, found, proof.days_max, now, hours=proof.hours_max)
    if row.noted_days_max is not None:
        missing += _stale(f"note of the site (`handoff audit note {row.id}`)", noted, row.noted_days_max, now)
    missing += [f"{one.what}: {one.value}" for one in figures if one.wrong]
    sure = bool(row.proofs) or any(one.wants for one in row.settings) or noted is not None or row.site is None
    return Shown(
        id=row.id, rule=row.rule, asks=row.asks, does=row.does, site=row.site,
        state="open" if missing else "shown" if sure else "site",
        open=tuple(missing),
        settings=tuple(settings),
        proofs=tuple((one.event, last.get(one.event)) for one in row.proofs),
        figures=tuple(figures),
        noted=noted,
        lacks=row.lacks,
    )  # fmt: skip


def _wrong(spec: SettingSpec, key: str, value: Any) -> Iterator[str]:
    if spec.wants == "set" and not value:
        yield f"{key} is not set"
    if spec.wants == "unset" and value:
        yield f"{key} is set"
    if spec.at_most is not None and value is not None and value > spec.at_most:
        yield f"{key} is {_said(value)}, and {spec.at_most:g} is the most"


def _stale(
    what: str, found: Last | None, days: int | None, now: datetime, *, hours: int | None = None
) -> Iterator[str]:
    """days, hours: how old it may be; none: as old as it likes."""
    if found is None:
        yield f"no {what}"
    elif found.result != "allowed":
        yield f"the last {what} says that it failed"
    elif days is not None and (age := (now - found.at).days) > days:
        yield f"the last {what} is {age} days old, and {days} is the most"
    elif hours is not None and (age := (now - found.at) // _HOUR) >= hours:
        yield f"the last {what} is {age} hours old, and {hours} is the most"


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
