"""Acting: an act goes into the journal, and whoever acts waits for its outcome.

The worker decides on it, as on everything that happens to a patient. So there must be a daemon; without one nothing is
written.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from engine.domain.cause import Act, action_of
from engine.domain.message import EntryState
from engine.domain.outcome import EffectKind
from engine.errors import HandoffError, StoreUnavailableError
from engine.runtime.status import ask_to_look, running_status
from engine.store.causes import put

if TYPE_CHECKING:
    from engine.desk.desk import Desk
    from engine.store.record import RecordedOutcome

WAIT_SECONDS_MAX: Final = 15.0
_LOOK_SECONDS: Final = 0.02


class ActError(HandoffError):
    """An act was decided, and could not be done."""


def perform(desk: Desk, acts: Sequence[Act]) -> list[RecordedOutcome]:
    """Put the acts into the journal together, wait for their outcomes, and return these in the same order.

    Raises StoreUnavailableError when no daemon runs, or when it does not come to them in time (they stand in the
    journal then, and are done when their turn comes), ActError for the first that could not be done.
    """
    store = desk.store
    for act in acts:
        desk.authorise(action_of(act), [f"chart:{act.chart_id}"] if act.chart_id else [])
    ring = desk.ring
    if ring is None and (status := running_status(desk.outline)) is not None:
        ring = partial(ask_to_look, status)
    if ring is None:
        raise StoreUnavailableError(
            "the daemon does not run, and it alone changes charts: nothing was done; start it and try again"
        )
    acts = [msgspec.structs.replace(act, whence=desk.whence) for act in acts]
    stored = store.journal_ledger.write_now(lambda conn: put(store.journal, store.keys, conn, acts, desk.now))
    desk.acted(f"chart:{act.chart_id}" for act in acts if act.chart_id)
    ring()
    ids = [one.id or 0 for one in stored]
    until = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        found = store.read_now(lambda conn: store.recorder.outcomes(conn, ids))
        if len(found) == len(ids):
            break
        if time.monotonic() > until:
            first = next(one for one in ids if one not in found)
            raise StoreUnavailableError(
                f"the daemon has not come to it within {WAIT_SECONDS_MAX:.0f} s; it is done when its turn comes:"
                f" `handoff messages show {first}`"
            )
        time.sleep(_LOOK_SECONDS)
    outcomes = [found[one] for one in ids]
    for one in outcomes:
        if one.state is EntryState.DEAD or any(effect.kind == EffectKind.NOT_DONE for effect in one.effects):
            raise ActError(one.reason or "it could not be done")
    return outcomes
