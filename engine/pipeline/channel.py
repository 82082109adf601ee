"""Channels that are ready for their messages, and the configuration that they are of (`pipeline.compiling`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol as Interface
from zoneinfo import ZoneInfo

from engine.access.copies import NO_RESTRICTIONS, Copies, Terms
from engine.access.roles import Policy
from engine.care.adt.event import Events
from engine.care.appointments import AppointmentMap
from engine.care.calendar import BusinessCalendar
from engine.care.dispositions import Dispositions
from engine.care.medications.reading import NO_FORMULARY, Formulary
from engine.care.oncall import NO_ROSTERS, Rosters
from engine.care.protocol import Protocol
from engine.care.texts.deciding import Series
from engine.care.texts.rules import TextRules
from engine.domain.delivery import Operation
from engine.domain.task import Task
from engine.mapping.apply import Mapping as FieldMapping
from engine.mapping.expression import Filter
from engine.mapping.tables import Tables
from engine.pipeline.zones import Zones
from engine.privacy.rules import PrivacyRules
from engine.risk.inputs import InputTables
from engine.risk.registry import Model
from engine.settings import Channel, Configuration, Site


class Key(Interface):
    """A keyed hash over parts, as text: the same parts always give the same key, and nothing can be read from it."""

    def __call__(self, *parts: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Planner:
    """A protocol and the model whose band decides in it; none: it plans without a band."""

    protocol: Protocol
    model: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledChannel:
    """A channel with all that its messages meet."""

    settings: Channel
    version: str
    """Of the configuration."""
    zones: Zones
    filter: Filter | None
    mapping: FieldMapping
    models: tuple[Model, ...]
    """The first decides the band."""
    planner: Planner | None
    """Of the discharges that nobody has planned yet."""
    planners: Mapping[str, Planner]
    """Of all channels, by protocol: what another channel has planned goes on as it was planned."""
    models_known: Mapping[str, Model]
    """Of all channels, by name: whatever `planners` go by."""
    events: Events
    appointments: AppointmentMap | None
    """None: it takes no messages of scheduling systems."""
    dispositions: Dispositions
    inputs: InputTables
    calendar: BusinessCalendar
    key: Key
    rosters: Rosters = NO_ROSTERS
    """Of the site: who is on call, and who is paged one after the other."""
    copies: Copies = NO_RESTRICTIONS
    """What of a restricted record may leave."""
    terms: Mapping[str, Terms] = field(default_factory=dict)
    """What each destination may get."""
    former: Mapping[tuple[str, str], Planner] = field(default_factory=dict)
    """Protocols as they once were, by name and digest: a plan goes on by the one that it was made with."""
    texts: TextRules = field(default_factory=TextRules)
    """Of the site: texts to patients."""
    former_series: Mapping[tuple[str, str], Series] = field(default_factory=dict)
    """Series of texts as they once were, by name and digest: what was planned goes on by them."""
    text_senders: frozenset[str] = frozenset()
    """Destinations of the site that send texts to patients; any other that takes texts records how they stand."""
    observed_since: datetime | None = None
    """When the engine first heard of this channel's patients: before that it knows nothing of them."""

    def series_of(self, name: str, digest: str | None) -> Series | None:
        """A series of texts as it was then; as it is now, where nobody knows; none: it is gone."""
        today = self.texts.series.get(name)
        if digest is None or (today is not None and today.digest == digest):
            return today
        return self.former_series.get((name, digest), today)

    def planner_of(self, task: Task) -> Planner | None:
        """The protocol that has made a task, as it was then; as it is now, where nobody knows; none: it is gone."""
        planner = self.planners.get(task.protocol)
        if planner is not None and planner.protocol.digest == task.protocol_digest:
            return planner
        return self.former.get((task.protocol, task.protocol_digest), planner)

    @property
    def texter(self) -> str | None:
        """The destination that sends texts to its patients; none: none does."""
        takers = self.settings.takers.get(Operation.SEND_TEXT.what, ())
        return next((name for name in takers if name in self.text_senders), None)

    @property
    def zone(self) -> ZoneInfo:
        """The channel's own; that of a message may be another one (`zones`)."""
        return self.zones.default


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleFiles:
    """What the files below `mappings/` say, whether a channel uses them or not."""

    tables: Tables
    models: Mapping[str, Model]
    protocols: Mapping[str, Protocol]
    events: Events
    appointments: Mapping[str, AppointmentMap]
    dispositions: Dispositions
    inputs: InputTables
    calendar: BusinessCalendar
    rosters: Rosters = NO_ROSTERS
    policies: Mapping[str, Policy] = field(default_factory=dict)
    """Who may see what, by file."""
    privacy: PrivacyRules = field(default_factory=PrivacyRules)
    """What a privacy officer works by."""
    texts: TextRules = field(default_factory=TextRules)
    """Texts to patients."""
    medications: Formulary = NO_FORMULARY
    """Names of medicines, and how lists write doses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledConfiguration:
    version: str
    site: Site
    source: Configuration
    channels: Mapping[str, CompiledChannel]
    rules: RuleFiles
    copies: Copies = NO_RESTRICTIONS
