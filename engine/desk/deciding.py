"""Deciding: on deliveries and messages that are held, and on dead letters that nobody will replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from engine.desk.finding import held_delivery, question, withheld_delivery
from engine.desk.replaying import in_shadow, replay_entries
from engine.domain.cause import QuestionDismissed
from engine.domain.delivery import DeliveryState
from engine.domain.hold import QUESTIONS, HoldCode, hold_key
from engine.errors import HandoffError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.desk.desk import Desk
    from engine.store.holds import ListedHold

Decision = Literal["release", "confirm", "bury"]
"""On a held delivery: it did not arrive, try it again; it arrived; give it up."""


def decide(desk: Desk, delivery_ids: Sequence[int], decision: Decision, reason: str | None) -> None:
    """Of held deliveries, all or none. Raises NotFoundError when one is not held."""
    from engine.store.outbox import Settled

    def write(conn: Connection) -> None:
        for number in delivery_ids:
            queued = held_delivery(desk, conn, number)
            match decision:
                case "release":
                    desk.store.outbox.release(conn, queued.id, desk.now)
                case "confirm":
                    result = Settled(
                        id=queued.id,
                        state=DeliveryState.DELIVERED,
                        attempts=queued.attempts,
                        disclosed=_counts_as(desk, queued.delivery.destination),
                    )
                    desk.store.outbox.settle(conn, [result], desk.now)
                case "bury":
                    result = Settled(
                        id=queued.id,
                        state=DeliveryState.DEAD,
                        attempts=queued.attempts,
                        error="buried",
                        detail="was held, and a person gave it up",
                    )
                    desk.store.outbox.settle(conn, [result], desk.now)
        desk.note(conn, decision, [f"delivery:{number}" for number in delivery_ids], reason)

    if delivery_ids:
        desk.store.charts_ledger.write_now(write)


def _counts_as(desk: Desk, destination: str) -> str | None:
    """What a copy to the destination counts as when the patient asks who was told."""
    settings = desk.configuration.site.destinations.get(destination)
    return settings.disclosure.as_ if settings is not None and settings.disclosure is not None else None


def release_withheld(desk: Desk, delivery_ids: Sequence[int], reason: str) -> None:
    """They are to go out all the same: the rule that withholds each is not asked again for it. All or none.

    What they say is brought up to date as that of a dead letter is (`engine.store.requeue`). Raises HandoffError when
    one can't be released.
    """
    from engine.store.requeue import Requeued, requeue

    def write(conn: Connection) -> None:
        for number in delivery_ids:
            _decide_withheld(desk, conn, number, "released")
            if requeue(conn, desk.keys, number, desk.now) is Requeued.SUPERSEDED:
                raise HandoffError(f"delivery {number} can't be released: what it tells of is gone. Dismiss it")
        desk.note(conn, "release", [f"delivery:{number}" for number in delivery_ids], reason)

    desk.store.charts_ledger.write_now(write)


def dismiss_withheld(desk: Desk, delivery_ids: Sequence[int], reason: str) -> None:
    """They stay unsent, and are on no list any more. All or none. Raises HandoffError when one is not open."""

    def write(conn: Connection) -> None:
        for number in delivery_ids:
            _decide_withheld(desk, conn, number, "dismissed")
        desk.note(conn, "dismiss", [f"delivery:{number}" for number in delivery_ids], reason)

    desk.store.charts_ledger.write_now(write)


def _decide_withheld(desk: Desk, conn: Connection, number: int, decision: Literal["released", "dismissed"]) -> None:
    from engine.store import admissions

    _, said = withheld_delivery(desk, conn, number)
    if not admissions.decide(conn, desk.store.keys, number, decision, by=str(desk.actor), now=desk.now):
        why = "what it was for is gone" if said.decision == admissions.FINAL else f"it was {said.decision} before"
        raise HandoffError(f"delivery {number} can't be {decision}: {why} (`handoff held show {number}`)")


def release_message(desk: Desk, number: int, reason: str) -> int:
    """What a held message asks is true: it is replayed with that decision. Returns the entry of the replay.

    The decision is noted first: cut off in between, the question is open still and can be released.
    """

    def write(conn: Connection) -> ListedHold:
        asked = question(desk, conn, number)
        if not QUESTIONS[HoldCode(asked.code)].can_be_released:
            raise HandoffError(
                f"m{number} can't be released: the engine would not know what to apply. See to it by hand, then"
                f" `handoff held dismiss m{number}`"
            )
        if (why := in_shadow(desk, asked.channel)) is not None:
            raise HandoffError(f"m{number} stays open: {why}")
        desk.store.holds.begin_release(conn, number, by=str(desk.actor), reason=reason, now=desk.now)
        desk.note(conn, "release", _subjects(asked), reason)
        return asked

    asked = desk.store.charts_ledger.write_now(write)
    replayed = next(replay_entries(desk, [asked.root], "now", hold_key(asked.code, asked.location)))
    if replayed.new is None:
        raise HandoffError(f"m{number} stays open: {replayed.problem}")
    return replayed.new


def dismiss(desk: Desk, numbers: Sequence[int], reason: str) -> None:
    """What held messages ask is not so, or was seen to by hand. Raises HandoffError when one is not open."""
    from engine.desk.acting import perform  # brings the store along, which a command's help does without

    with desk.store.reader() as conn:
        asked = [question(desk, conn, number) for number in dict.fromkeys(numbers)]
    for one in asked:
        if one.state != "open" or one.decided_at is not None:
            raise HandoffError(f"m{one.id} is not open, or is being released: `handoff held show m{one.id}`")
    acts = [
        QuestionDismissed(
            actor=str(desk.actor), chart_id=one.chart_id, reason=reason, hold=one.id, root=one.root, code=one.code,
            location=one.location,
        ) for one in asked
    ]  # fmt: skip
    perform(desk, acts)


def discard_letters(desk: Desk, letter_ids: Sequence[int], reason: str) -> None:
    """Close dead letters without replaying them, all or none."""
    from engine.store.deadletters import DISCARDED

    def write(conn: Connection) -> None:
        for letter_id in letter_ids:
            desk.store.dead_letters.resolve(conn, letter_id, DISCARDED, desk.now)
        desk.note(conn, "discard", [f"dead-letter:{letter_id}" for letter_id in letter_ids], reason)

    desk.store.charts_ledger.write_now(write)


def _subjects(asked: ListedHold) -> list[str]:
    return [f"hold:m{asked.id}", *([f"chart:{asked.chart_id}"] if asked.chart_id else [])]
