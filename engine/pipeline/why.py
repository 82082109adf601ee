"""Why a message brought a plan, scores and deliveries, or none, in the contract's shape.

What the rules said stands in the outcome (`Outcome.why`, `Outcome.changed`); the rest follows from its state, its
effects and its deliveries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Final
from typing import Protocol as Interface

import msgspec

from engine.domain.delivery import Operation
from engine.domain.hold import QUESTIONS, HoldCode
from engine.domain.message import EntryState
from engine.domain.outcome import Effect, EffectKind
from engine.domain.shapes import plain
from engine.domain.why import Reason, Said, What, Why, say

if TYPE_CHECKING:
    from engine.settings import Channel

_OF_STATE: Final[Mapping[EntryState, Reason]] = {
    EntryState.RECEIVED: Reason.WAITING,
    EntryState.FILTERED: Reason.FILTERED,
    EntryState.DEAD: Reason.DEAD,
    EntryState.REFUSED: Reason.REFUSED,
}
STALE: Final = frozenset({HoldCode.STATUS_EVENT_STALE, HoldCode.DEATH_STALE})
_BECAUSE_SAME: Final = frozenset({Reason.PLAN_SAME, Reason.SCORE_SAME, Reason.NOT_CHANGED, Reason.NO_VISIT})
_BECAUSE_NOT_YET: Final = frozenset({Reason.NOT_DISCHARGED, Reason.TAKEN_BACK, Reason.NOT_ARRIVED})


class Explained(Interface):
    """An outcome, or one as it was recorded."""

    @property
    def why(self) -> tuple[Why, ...]: ...

    @property
    def changed(self) -> tuple[str, ...]: ...

    @property
    def effects(self) -> tuple[Effect, ...]: ...

    @property
    def encounter_key(self) -> str | None: ...


def why_shapes(
    state: EntryState,
    outcome: Explained | None,
    deliveries: Iterable[tuple[str, Operation]],
    settings: Channel | None,
    *,
    replay: bool,
    withheld: Iterable[tuple[str, Operation, str]] = (),
) -> list[dict[str, Any]]:
    """settings: of the channel as it is now; none: there is no such channel any more. deliveries: destinations and what
    they got because of this message. withheld: what they did not get, for a code of `engine.access.copies`.
    """
    sent: dict[str, dict[str, None]] = {}
    for destination, operation in deliveries:
        sent.setdefault(destination, {})[operation.what] = None
    kept: dict[str, dict[Reason, dict[str, None]]] = {}
    for destination, operation, code in withheld:
        kept.setdefault(destination, {}).setdefault(Reason(code), {})[operation.what] = None
    protocol = settings.protocol if settings is not None else None
    models = settings.risk if settings is not None else ()
    wanted = {one.to: one.what for one in settings.deliver} if settings is not None else {}
    if state is not EntryState.PROCESSED or outcome is None:
        waits = settings is not None and settings.mode == "paused" and state is EntryState.RECEIVED
        reason = Reason.CHANNEL_PAUSED if waits else _OF_STATE.get(state, Reason.WAITING)
        return [
            plain(say(Why(what=what, reason=reason), name))
            for what, names in ((What.PLAN, (protocol,)), (What.SCORE, models), (What.DELIVERY, wanted))
            for name in names or (None,)
        ]
    hold = _hold(outcome.effects)
    said = (
        *_of_plan(outcome, protocol, hold),
        *_of_scores(outcome, models, hold),
        *_of_deliveries(outcome, sent, kept, wanted, hold, replay=replay),
    )
    return [plain(one) for one in said]


def says_nothing(outcome: Explained) -> bool:
    """Of one that was processed: nothing was worked out again, so what holds for the stay was said before."""
    return not outcome.why and not _without_effect(outcome)


def _hold(effects: Iterable[Effect]) -> HoldCode | None:
    """The question that the message left to a person, one about the status of a stay first."""
    codes = [HoldCode(effect.detail) for effect in effects if effect.kind == EffectKind.HELD]
    return next((code for code in codes if QUESTIONS[code].status), codes[0] if codes else None)


def _unless_held(why: Why, hold: HoldCode | None) -> Why:
    """What was withheld because the message changed nothing is withheld by its hold, when it has one."""
    if hold is None:
        return why
    of_status = QUESTIONS[hold].status or hold is HoldCode.PERSON_CONTRADICTED
    if why.reason in _BECAUSE_SAME or (of_status and why.reason in _BECAUSE_NOT_YET):
        reason = Reason.STALE if hold in STALE else Reason.HELD
        return msgspec.structs.replace(why, reason=reason, args=(hold.value,))
    return why


def _without_effect(outcome: Explained) -> bool:
    return any(effect.kind == EffectKind.WITHOUT_EFFECT for effect in outcome.effects)


def _of_plan(outcome: Explained, protocol: str | None, hold: HoldCode | None) -> Iterator[Said]:
    whys = [why for why in outcome.why if why.what is What.PLAN]
    if not whys:
        nothing = Reason.PLAN_SAME if protocol is not None else Reason.NO_PROTOCOL
        reason = Reason.WITHOUT_EFFECT if _without_effect(outcome) else nothing
        whys = [Why(what=What.PLAN, reason=reason)]
    return (say(_unless_held(why, hold), protocol) for why in whys)


def _of_scores(outcome: Explained, models: tuple[str, ...], hold: HoldCode | None) -> Iterator[Said]:
    named = {why.name: why for why in outcome.why if why.what is What.SCORE}
    rest = named.pop("", Why(what=What.SCORE, reason=Reason.SCORE_SAME))
    for effect in outcome.effects:
        if effect.kind == EffectKind.SCORED and effect.subject == outcome.encounter_key:
            model, _, band = effect.detail.rpartition(" ")
            named.setdefault(model, Why(what=What.SCORE, reason=Reason.SCORED, args=(band,), name=model))
    if _without_effect(outcome):
        rest = Why(what=What.SCORE, reason=Reason.WITHOUT_EFFECT)
    names = dict.fromkeys((*models, *named))
    if not names:
        yield say(Why(what=What.SCORE, reason=Reason.NO_MODEL))
    for name in names:
        yield say(_unless_held(named.get(name, rest), hold), name)


def _of_deliveries(
    outcome: Explained,
    sent: Mapping[str, Iterable[str]],
    kept: Mapping[str, Mapping[Reason, Iterable[str]]],
    wanted: Mapping[str, tuple[str, ...]],
    hold: HoldCode | None,
    *,
    replay: bool,
) -> Iterator[Said]:
    mode = next((why.reason for why in outcome.why if why.what is What.DELIVERY), None)
    missing = mode or (Reason.DUPLICATE if replay else Reason.NOT_IN_DELIVER_THEN)
    names = dict.fromkeys((*wanted, *sent, *kept))
    if not names:
        yield say(Why(what=What.DELIVERY, reason=Reason.NO_DESTINATION))
    changed: AbstractSet[str] = frozenset(outcome.changed)
    nothing = Reason.WITHOUT_EFFECT if _without_effect(outcome) else Reason.NOT_CHANGED
    for name in names:
        takes = wanted.get(name, ())
        got = tuple(sent.get(name, ()))
        withheld = {kind for kinds in kept.get(name, {}).values() for kind in kinds}
        due = tuple(kind for kind in takes if kind in changed and kind not in got and kind not in withheld)
        same = tuple(kind for kind in takes if kind not in changed and kind not in got and kind not in withheld)
        for reason, kinds in kept.get(name, {}).items():
            yield say(Why(what=What.DELIVERY, reason=reason, args=tuple(kinds)), name)
        if got:
            yield say(Why(what=What.DELIVERY, reason=Reason.QUEUED, args=got), name)
        if due:
            yield say(Why(what=What.DELIVERY, reason=missing, args=due), name)
        if same and changed and not got and not due and not withheld:
            yield say(Why(what=What.DELIVERY, reason=Reason.NOT_IN_DELIVER, args=outcome.changed), name)
        elif same:
            yield say(_unless_held(Why(what=What.DELIVERY, reason=nothing, args=same), hold), name)
