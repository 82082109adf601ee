"""What people do: one rule for each act, the same for whoever acts from wherever."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from engine.domain.cause import (
    Cause,
    ConsentGiven,
    ConsentRevoked,
    ContactConsentGiven,
    ContactConsentRevoked,
    OnCallOverridden,
    PageAcknowledged,
    PlanMigrated,
    QualityDecided,
    QualityReopened,
    QualityResolved,
    QuestionDismissed,
)
from engine.domain.chart import Chart
from engine.domain.oncall import Override
from engine.domain.outcome import Dismissal, QualityDecision
from engine.domain.quality import QualityState
from engine.pipeline import consents, contactconsents, pages
from engine.pipeline.death import decide_death
from engine.pipeline.plan import migrated
from engine.pipeline.rule import Deciding, Rule
from engine.pipeline.tasks import TASK_RULES


def _dismissed(act: QuestionDismissed, chart: Chart | None, deciding: Deciding) -> Chart | None:
    if chart is None:
        return None
    return decide_death(chart, act.root, act.code, act.location, by=act.actor, at=deciding.at, channel=deciding.channel)


def _migrated(act: PlanMigrated, chart: Chart | None, deciding: Deciding) -> Chart | None:
    if chart is None or deciding.channel is None:  # then nothing is decided: see `needs_channel`
        return chart
    return migrated(chart, deciding.channel, deciding.now, act.protocol)


def _of_patient(act: PlanMigrated, chart: Chart | None) -> list[str]:
    return [f"chart:{chart.id if chart is not None else act.chart_id}"]


def _of_question(act: QuestionDismissed, chart: Chart | None) -> list[str]:
    return [f"hold:m{act.hold}", *([f"chart:{chart.id}"] if chart is not None else [])]


def _dismissals(act: QuestionDismissed) -> tuple[Dismissal, ...]:
    return (Dismissal(hold=act.hold, by=act.actor, reason=act.reason or ""),)


def _no_chart(_act: QualityDecided | OnCallOverridden, _chart: Chart | None, _deciding: Deciding) -> None:
    return None


def _of_quality(act: QualityDecided, _chart: Chart | None) -> list[str]:
    return [f"quality:{act.item}"]


def _quality_decisions(act: QualityDecided) -> tuple[QualityDecision, ...]:
    state = QualityState.DONE if isinstance(act, QualityResolved) else QualityState.OPEN
    return (QualityDecision(item=act.item, state=state, by=act.actor, reason=act.reason or ""),)


def _of_page(act: PageAcknowledged, _chart: Chart | None) -> list[str]:
    return [f"page:{act.page}"]


def _of_roster(act: OnCallOverridden, _chart: Chart | None) -> list[str]:
    return [f"roster:{act.roster}/{act.role}"]


def _override(act: OnCallOverridden, deciding: Deciding) -> tuple[Override, ...]:
    stands_in = Override(
        number=deciding.entry.id,
        roster=act.roster,
        role=act.role,
        person=act.person,
        begins=act.begins,
        ends=act.ends,
        made_by=act.actor,
        made_at=deciding.at,
        reason=act.reason or "",
    )
    return (stands_in,)


ACT_RULES: Final[Mapping[type[Cause], Rule]] = {
    **TASK_RULES,
    PlanMigrated: Rule(_migrated, _of_patient, needs_channel=True),
    QuestionDismissed: Rule(_dismissed, _of_question, _dismissals),
    ConsentGiven: Rule(consents.give, consents.subjects),
    ConsentRevoked: Rule(consents.revoke, consents.subjects),
    ContactConsentGiven: Rule(contactconsents.give, contactconsents.subjects),
    ContactConsentRevoked: Rule(contactconsents.revoke, contactconsents.subjects),
    PageAcknowledged: Rule(pages.acknowledge, _of_page),
    OnCallOverridden: Rule(_no_chart, _of_roster, overrides=_override),
    **dict.fromkeys((QualityResolved, QualityReopened), Rule(_no_chart, _of_quality, quality=_quality_decisions)),
}
