"""The pure heart: one entry and the charts it touches in, one Outcome out.

No await, no socket, no SQL, no clock and no randomness: the same entry, channel, charts and time give the same Outcome.
That makes a crash before the record harmless, a replay safe, and `handoff try` the same code without the last step.

Two steps, so that the processor can load all charts of a batch in one query between them: `prepare` reads the message
and says which identities and visits it touches; `decide` works on the charts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from engine.domain.chart import Charts
from engine.domain.message import Entry, EntryKind
from engine.domain.outcome import Outcome
from engine.errors import MappingError, MessageError
from engine.pipeline.causes import decide_cause, read_cause
from engine.pipeline.channel import CompiledChannel
from engine.pipeline.messages import decide_message, read_message
from engine.pipeline.outcomes import failed, of_chart
from engine.pipeline.prepared import Prepared


def process(entry: Entry, channel: CompiledChannel, charts: Charts, now: datetime) -> Outcome:
    """Both steps at once. `charts` must hold every chart that the entry's identities and visits lead to."""
    return decide(prepare(entry, channel), channel, charts, now)


def prepare(entry: Entry, channel: CompiledChannel | None) -> Prepared:
    """Read the entry by the reader of its kind. Never raises for what it holds: a fault of it becomes a dead letter.

    channel: of a message; none: the configuration has no such channel. Other kinds have none.
    """
    return KINDS[entry.kind].read(entry, channel)


def decide(prepared: Prepared, channel: CompiledChannel | None, charts: Charts, now: datetime) -> Outcome:
    """Work on the charts. Does not change `charts`: the caller adds the new versions for the next entry to see.

    channel: of a message its own, else that of the patient's chart (`channel_of`).
    """
    if prepared.outcome is not None:
        return of_patient(prepared.outcome, prepared, charts)
    try:
        return KINDS[prepared.entry.kind].decide(prepared, channel, charts, now)
    except (MessageError, MappingError) as error:
        return of_patient(failed(prepared.entry, channel, error), prepared, charts)


def channel_of(prepared: Prepared, charts: Charts) -> str:
    """The name of the channel by whose rules an entry is decided; empty: of none."""
    if prepared.entry.kind is EntryKind.MESSAGE:
        return prepared.entry.channel
    owners = (charts.living(chart_id) for chart_id in prepared.charts)
    return next((owner.channel for owner in owners if owner is not None), "")


def of_patient(outcome: Outcome, prepared: Prepared, charts: Charts) -> Outcome:
    """The outcome of a message that changed no chart, under the patient it names, so that it is seen there."""
    key = prepared.patient
    if key is None:
        return outcome
    chart = charts.find(key)
    if chart is None:
        return msgspec.structs.replace(outcome, patient_key=key.key)
    return of_chart(outcome, chart)


class Kind(NamedTuple):
    """How entries of one kind are read and decided. channel: see `prepare` and `decide`."""

    read: Callable[[Entry, CompiledChannel | None], Prepared]
    decide: Callable[[Prepared, CompiledChannel | None, Charts, datetime], Outcome]


KINDS: Final[Mapping[EntryKind, Kind]] = {
    **dict.fromkeys(EntryKind, Kind(read_cause, decide_cause)),
    EntryKind.MESSAGE: Kind(read_message, decide_message),
}
"""All but messages are causes: the rules of `pipeline.causes` say what each does."""
