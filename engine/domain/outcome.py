"""What processing one entry comes to: the pure heart's only product."""

from __future__ import annotations

from enum import StrEnum

from engine.domain.audit import AuditRecord
from engine.domain.chart import Chart
from engine.domain.delivery import DeadLetter, Delivery, Fallen
from engine.domain.hold import Fact, Hold
from engine.domain.message import AckCode, EntryState
from engine.domain.oncall import Override
from engine.domain.quality import QualityItem, QualityState
from engine.domain.record import Phi
from engine.domain.why import Why


class EffectKind(StrEnum):
    """Kinds of effects that others look for."""

    NOT_DONE = "not-done"
    """What a person wanted could not be done; the detail is its code."""
    WITHOUT_EFFECT = "recorded-without-effect"
    """The message's event means nothing here; the detail is the event."""
    HELD = "held"
    """A question was left to a person; the detail is its code."""
    NOT_IN_ROLLOUT = "not-in-rollout"
    """The protocol does not act for the discharge yet; the detail is by what."""
    SCORED = "scored"
    """The detail is the model and the band."""
    TEST_DATA_LEFT = "test-data-left"
    """A chart of test data is a living patient's from now on: what test messages had said of it was taken away."""
    SET_ASIDE = "status-event-set-aside"
    """An event about the status of a stay did not change it, and is held."""


class Effect(Phi, frozen=True, kw_only=True, array_like=True, omit_defaults=True):
    """One consequence of an entry, kept so that it can be explained and taken back."""

    kind: str
    """`patient-created`, `encounter-finished`, `scored`, `task-created`, `task-retracted`, `delivery`, ..."""
    subject: str
    """Opaque id or key of what it happened to."""
    detail: str = ""


class Dismissal(Phi, frozen=True, kw_only=True):
    """A question that a person has decided: it is not so, or was seen to by hand."""

    hold: int
    by: str
    reason: str


class QualityDecision(Phi, frozen=True, kw_only=True):
    """A person has seen to a fault of a feed (done), or says that it is not over (open)."""

    item: int
    state: QualityState
    by: str
    reason: str


class Outcome(Phi, frozen=True, kw_only=True):
    """`state` is processed, filtered, dead or refused. `charts` are the new versions of every chart it touched."""

    entry_id: int
    state: EntryState
    reason: str | None = None
    """Why it was filtered, or recorded without touching a chart."""
    chart_id: str | None = None
    patient_key: str | None = None
    encounter_key: str | None = None
    channel: str | None = None
    """By whose rules it was decided, and whose books count the deliveries; none: the channel that the entry came on."""
    charts: tuple[Chart, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    withheld: tuple[Delivery, ...] = ()
    """What would have gone out, were the channel live: of one in shadow."""
    effects: tuple[Effect, ...] = ()
    holds: tuple[Hold, ...] = ()
    """What a person must decide."""
    dismissals: tuple[Dismissal, ...] = ()
    """What a person has decided."""
    overrides: tuple[Override, ...] = ()
    """Who stands in on a roster from now on."""
    audit: tuple[AuditRecord, ...] = ()
    """What stands in the auditors' record because of it."""
    fallen: tuple[Fallen, ...] = ()
    """What notices may have hung on, and is gone now."""
    marked_anew: tuple[str, ...] = ()
    """Ids of charts of which other copies may go out than before: what waits, or was withheld, is asked about again."""
    facts: tuple[Fact, ...] = ()
    """What has become true, and may answer what other messages have left open."""
    why: tuple[Why, ...] = ()
    """What the rules say of plan, scores and deliveries that can't be told by the rest; see `pipeline.why`."""
    changed: tuple[str, ...] = ()
    """Kinds of objects that differ from before, in the words of `deliver`, whether a destination takes them or not."""
    dead_letter: DeadLetter | None = None
    deviations: tuple[str, ...] = ()
    quality: tuple[QualityItem, ...] = ()
    """What is wrong with the feed, for the list of whoever looks after it; deviations that are such faults included."""
    quality_decisions: tuple[QualityDecision, ...] = ()
    charset: str | None = None
    """Python's name of the codec that the message was read with; none: it was not read."""
    application_ack: AckCode = AckCode.AA
    """What the sender is told when it asked for an answer after processing."""
    error_code: int = 0
    """Table 0357, for that answer."""
    config_version: str = ""
    test: bool = False
    """Its entry is test data, or it is about a chart that test data has made."""
    replay_root: int | None = None
    """Of a replay: the first entry of its chain."""
    decision: str | None = None
    """Of a replay that carries a person's decision: the hold (`Hold.key`) that is taken as true."""
