"""Test data: messages that are marked as such (`Entry.test`), and the charts that they alone have made (`Chart.test`).

| message | names | what becomes of it |
|---|---|---|
| test | nobody who is known, or test patients | it is worked on; the chart is one of test data |
| test | a patient who is none | nothing of it is applied: a person is asked (`test-message`) |
| live | a test patient | the chart is a living patient's, and begins anew without what tests have said |

So what is invented and what is true never stand in one chart, whichever came first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from engine.domain.chart import NOTHING_RENAMED, Chart, Charts, identity
from engine.domain.delivery import TEST_DATA, Fallen, Gone, QueuedDelivery
from engine.domain.hold import Hold, HoldCode
from engine.domain.outcome import Effect, EffectKind, Outcome
from engine.domain.parts import PARTS
from engine.domain.patient import Identifier, Patient
from engine.pipeline.admit import GO, Admission, Known, Never, Rule
from engine.pipeline.deliver import forward_deliveries
from engine.pipeline.outcomes import nobody, outcome_of
from engine.pipeline.prepared import Prepared

if TYPE_CHECKING:
    from datetime import datetime

    from engine.pipeline.channel import CompiledChannel


def decided(
    prepared: Prepared, channel: CompiledChannel, charts: Charts, decide: Callable[[Charts], Outcome]
) -> Outcome:
    """What a message comes to. decide: by the rules of its code, on these charts. Raises what that raises."""
    if prepared.entry.test:
        return _of_test(prepared, channel, charts, decide)
    if charts.tests and (tests := [chart for chart in _led_to(prepared, charts) if chart.test]):
        return _of_the_living(prepared, charts, tests, decide)
    return decide(charts)


def _led_to(prepared: Prepared, charts: Charts) -> list[Chart]:
    """The living charts that a number or a stay of the message leads to, namesakes of its key among them."""
    ids = [charts.aliases.get(one) for one in sorted(prepared.identities)]
    ids += [charts.visits.get(one) for one in sorted(prepared.visits)]
    return list({chart.id: chart for one in ids if (chart := charts.living(one)) is not None}.values())


def _of_test(
    prepared: Prepared, channel: CompiledChannel, charts: Charts, decide: Callable[[Charts], Outcome]
) -> Outcome:
    living = [chart for chart in _led_to(prepared, charts) if not chart.test]
    if living:
        return _held(prepared, channel, living)
    outcome = decide(charts)
    touched = [was for one in outcome.charts if (was := charts.by_id.get(one.id)) is not None and not was.test]
    return _held(prepared, channel, touched) if touched else outcome


def _held(prepared: Prepared, channel: CompiledChannel, living: list[Chart]) -> Outcome:
    """Nothing is applied, also not of what it says of test patients."""
    entry = prepared.entry
    asked = living[0]  # an entry asks once at each place; the others are seen to with it
    hold = Hold(
        code=HoldCode.TEST_MESSAGE,
        location="MSH-11",
        subject=asked.id,
        chart_id=asked.id,
        patient_key=asked.patient.key,
    )
    forwards = forward_deliveries(entry, nobody(entry), channel, now=entry.received_at)
    return outcome_of(
        entry,
        channel,
        chart=asked,
        holds=(hold,),
        deliveries=forwards,
        changed=("message",) if forwards else (),
        deviations=prepared.deviations,
        charset=prepared.charset,
    )


def _of_the_living(
    prepared: Prepared, charts: Charts, tests: list[Chart], decide: Callable[[Charts], Outcome]
) -> Outcome:
    view = charts.copy()
    begun = {chart.id: _begun_anew(chart, prepared) for chart in tests}
    for chart in begun.values():
        view.add(chart)
    outcome = decide(view)
    changed = {chart.id for chart in outcome.charts}
    others = [msgspec.structs.replace(one, version=one.version + 1) for key, one in begun.items() if key not in changed]
    return msgspec.structs.replace(
        outcome,
        charts=(*outcome.charts, *others),
        effects=(*outcome.effects, *(Effect(kind=EffectKind.TEST_DATA_LEFT, subject=one) for one in begun)),
        fallen=(*outcome.fallen, *(Fallen(chart_id=one, code=Gone.GROUND) for one in begun)),
    )


def _begun_anew(chart: Chart, prepared: Prepared) -> Chart:
    """The chart as if nothing had been said of its patient, with those of its numbers that the message names.

    Of one that is met by a stay alone it is the stays that go: it stays a test patient's.
    """
    chart.need_whole()
    keys = {(one.identifiers[0].authority, one.identifiers[0].value): one.identifiers[0] for one in prepared.events}
    kept: dict[tuple[str, str, str], Identifier] = {}
    for one in chart.patient.identifiers:
        if identity(one) in prepared.identities:
            mine = keys.get((one.authority, one.value), one)  # the type is as the living have it
            kept[identity(mine)] = mine
    if kept:
        patient = Patient(identifiers=tuple(kept.values()))
        return Chart(id=chart.id, version=chart.version, patient=patient, channel=chart.channel)
    nothing: dict[str, Any] = {}
    for part in PARTS:
        nothing |= part.fields(())
    return msgspec.structs.replace(chart, renamed=NOTHING_RENAMED, **nothing)


def rule_of_test(*, takes: bool) -> Rule:
    """The rule of admission for a destination. takes: it is one for test data."""

    def ask(queued: QueuedDelivery, known: Known, _now: datetime) -> Admission:
        if takes or not queued.delivery.marked or known.chart is None or not known.chart.test:
            return GO
        return Never(code=TEST_DATA, final=True)

    return Rule(ask, frozenset({"chart"}))
