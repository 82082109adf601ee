"""Whether a delivery may go out now, asked by the courier right before it is sent.

What was right when it was queued need not be right any more: consent was revoked, it is night where the patient lives,
what it says is of no use now. Rules are pure functions of the delivery, of what was read for it (`Known`) and of the
time.

| answer | what becomes of the delivery |
|---|---|
| `GO` | it is sent |
| `NotBefore` | it stays pending with the code as its reason; what comes after it for its patient waits too |
| `Never` | it is withheld, with the code as its reason; what comes after it goes on |

A person may release what is withheld: then the rule of that code is not asked again for this delivery, unless its
answer is `final`. Each destination may bring rules of its own (`DestinationSettings.admission`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from engine.care.texts.deciding import refused
from engine.domain.chart import Chart
from engine.domain.delivery import CONTENTS, Gone, Notice, Operation, QueuedDelivery, Spoken
from engine.domain.record import Phi, Record
from engine.domain.text import ASKED_FOR, TextState


class Go(Record, frozen=True, kw_only=True):
    pass


class NotBefore(Record, frozen=True, kw_only=True):
    at: datetime
    """It is asked again then, or earlier: what the rule rests on may change."""
    code: str
    """Stable; holds no value of the delivery."""


class Never(Record, frozen=True, kw_only=True):
    code: str
    final: bool = False
    """Nothing is left for a person to decide: what it was for is gone."""


GO: Final = Go()
Admission = Go | NotBefore | Never


class Known(Phi, frozen=True, kw_only=True):
    """What is known of a delivery when it is asked whether it may go, read for its batch (`engine.store.facts`).

    A rule names what it needs (`Rule.needs`); the rest is as if there were none.
    """

    released: frozenset[str] = frozenset()
    """Codes of rules that a person has set aside for it; always known."""
    chart: Chart | None = None
    """Its patient's, merges followed."""
    sent_at: tuple[datetime, ...] = ()
    """When its destination was given notices for this patient in the last `SENT_DAYS` days, the oldest first."""
    gone: Gone | None = None
    """Why its ground has gone; of notices always known."""
    unreadable: str | None = None
    """Why the facts can't be read, as a code."""


SENT_DAYS: Final = 31


class Rule(NamedTuple):
    """One reason why a delivery may not go. ask: pure. needs: fields of `Known`."""

    ask: Callable[[QueuedDelivery, Known, datetime], Admission]
    needs: frozenset[str] = frozenset()


def admit(rules: Sequence[Rule], queued: QueuedDelivery, known: Known, now: datetime) -> Admission:
    """A rule that says never has the last word; of several that say not yet, the latest time counts."""
    if known.unreadable is not None:
        return Never(code=known.unreadable)
    latest: NotBefore | None = None
    for rule in rules:
        answer = rule.ask(queued, known, now)
        if isinstance(answer, Never) and (answer.final or answer.code not in known.released):
            return answer
        if isinstance(answer, NotBefore) and answer.at > now and (latest is None or answer.at > latest.at):
            latest = answer
    return latest or GO


NOTICES: Final = frozenset(operation for operation, content in CONTENTS.items() if issubclass(content, Spoken))
"""What `RULES` are about: all else goes, unless its destination has rules of its own."""


def not_too_late(queued: QueuedDelivery, _known: Known, now: datetime) -> Admission:
    """A notice after its time only confuses: a reminder of yesterday's visit."""
    said = notice_of(queued)
    late = said is not None and said.not_after is not None and now > said.not_after
    return Never(code="too-late") if late else GO


def not_too_early(queued: QueuedDelivery, _known: Known, now: datetime) -> Admission:
    """A notice may be planned for a later time."""
    said = notice_of(queued)
    at = said.not_before if said is not None else None
    return NotBefore(at=at, code="not-yet") if at is not None and now < at else GO


def ground_is_there(queued: QueuedDelivery, known: Known, _now: datetime) -> Admission:
    """What a notice hangs on (a task, a discharge, the patient's life) may have gone since it was planned."""
    if known.gone is None:
        return GO
    # A text is decided on anew under the chart that is left (`engine.pipeline.texts`): no person may release this one.
    return Never(code=known.gone, final=known.gone.final or _of_text(notice_of(queued)) is not None)


def notice_of(queued: QueuedDelivery) -> Spoken | None:
    """What it says, when it is a notice; none also of one that can't be read: that is for the connector to refuse."""
    if queued.delivery.operation not in NOTICES:
        return None
    try:
        said = queued.delivery.content
    except msgspec.DecodeError:
        return None
    return said if isinstance(said, Spoken) else None


def death_in_doubt(queued: QueuedDelivery, known: Known, now: datetime) -> Admission:
    """Nobody writes to a patient of whom it is asked whether they have died; pages between providers go on."""
    said = queued.delivery.operation is not Operation.NOTIFY and notice_of(queued) is not None
    doubt = said and known.chart is not None and known.chart.death_stated.in_doubt
    return NotBefore(at=now + _ASKED_AGAIN, code="death-in-doubt") if doubt else GO


_ASKED_AGAIN: Final = timedelta(hours=1)


def _of_text(said: Spoken | None) -> str | None:
    """The ground of a text of a chart."""
    return said.ground.key if said is not None and said.ground is not None and said.ground.kind == "text" else None


def may_be_written_to(queued: QueuedDelivery, known: Known, _now: datetime) -> Admission:
    """A text of a chart goes as the chart says it is queued, to a number at which the patient agrees to be written to.

    What the patient has asked for just now (the one answer to STOP, to HELP) needs no consent.
    """
    if queued.delivery.operation is not Operation.SEND_TEXT or known.chart is None:
        return GO
    said = notice_of(queued)
    ground = _of_text(said)
    if ground is None or not isinstance(said, Notice):
        return GO
    text = next((one for one in known.chart.texts if one.ground == ground), None)
    if text is None or text.state is not TextState.QUEUED:
        return Never(code=Gone.GROUND, final=True)
    refusal = refused(known.chart, text.purpose, text.channel, said.to)
    if refusal is None or (text.answer_to is not None and text.step in ASKED_FOR):
        return GO
    return Never(code="opted-out" if refusal == "opted_out" else "no-consent", final=True)


RULES: Final[Sequence[Rule]] = (
    Rule(ground_is_there),
    Rule(may_be_written_to, frozenset({"chart"})),
    Rule(death_in_doubt, frozenset({"chart"})),
    Rule(not_too_late),
    Rule(not_too_early),
)
"""For notices to any destination, before the destination's own."""
