"""Where a patient is after a transfer was cancelled (A12), whichever of the two comes first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from engine.care.adt.event import Event, Meaning
from engine.care.adt.status import Stamps
from engine.care.fields import NEVER
from engine.domain.chart import Stamp
from engine.domain.encounter import Encounter, Location
from engine.domain.record import Phi

_CANCELLED: Final = "transfer_cancelled"
"""Stamp of a stay: when its last transfer that was cancelled was so."""
_MOVED: Final = "transferred"
"""Stamp of a stay: when the last transfer was that has counted."""
_UNDONE: Final = "undone:transfer"
"""Stamp of a stay: a cancel has come whose transfer may still come. When it was."""
_SINCE: Final = "undone:transfer_since"
"""Of that cancel: since when the place was known that it was taken to take back. A later transfer is the one."""

_PLACES: Final = frozenset({"location", "prior_location"})


class Place(Phi, frozen=True, kw_only=True):
    """What a transfer and its cancel make of a stay's place, beyond what the message itself says."""

    values: dict[str, Any]
    """What the event says of the stay then."""
    stamps: dict[str, Stamp] = {}
    location: Location | None = None
    """Where the patient is as of the cancel; none: where the values say."""
    prior: Location | None = None
    """What the cancel says of the other place, until it is known which of the two it is; none: nothing."""
    unknown: bool = False
    """Nobody has said yet where the patient is: older news may."""

    def put(self, stay: Encounter, stamps: dict[str, Stamp]) -> tuple[Encounter, dict[str, Stamp]]:
        """A stay, and its stamps, after the event with its values was applied."""
        stamps = {**stamps, **self.stamps}
        if self.location is not None:
            stay = msgspec.structs.replace(stay, location=self.location, prior_location=None)
        elif self.unknown:
            stay = msgspec.structs.replace(stay, location=None)
            stamps.pop("location", None)
        if self.prior is not None:
            stay = msgspec.structs.replace(stay, prior_location=self.prior)
        return stay, stamps


def place_after(before: Encounter, event: Event, values: Mapping[str, Any], stamps: Stamps) -> Place | None:
    """None: it is where the event says. values: what that says of the stay."""
    if event.meaning is Meaning.CANCEL_TRANSFER:
        return _cancelled(before, event, values, stamps)
    if _UNDONE in stamps and "location" in values:
        if event.at < stamps[_SINCE]:
            return _where_they_were(before, values, stamps)
        if event.meaning is Meaning.TRANSFER and stamps[_SINCE] < event.at < stamps[_UNDONE]:
            return _of_late_transfer(before, event, values, stamps)
    if event.meaning is Meaning.TRANSFER and event.at >= stamps.get("location", event.at):
        return Place(values=dict(values), stamps={_MOVED: event.at})
    return None


def _cancelled(before: Encounter, event: Event, said: Mapping[str, Any], stamps: Stamps) -> Place:
    """PV1-3 is the place before the transfer, by the standard; where it is empty, PV1-6 says it, or what was known.

    Where it names the place that is cancelled, and PV1-6 the one before, the sender has written the transfer once more.
    That is so when the former is where the patient is known to be, and the latter where they were; or when they are
    still where PV1-6 says, because the transfer has not come.
    """
    here, other = said.get("location"), said.get("prior_location")
    values = {name: value for name, value in said.items() if name != "location"}
    counted = stamps.get(_CANCELLED)
    if counted is not None and counted[0] == event.at[0]:  # the same cancel, said again
        return Place(values={name: value for name, value in values.items() if name not in _PLACES})
    to, unknown = here, False
    if here is None:
        to = other or before.prior_location
        if to is None:  # then the transfer has not come, or it was all that is known
            unknown = stamps.get(_MOVED, NEVER) > (counted or NEVER)
            to = None if unknown else before.location
    elif other is not None and (
        (here == before.location and other == before.prior_location)
        or (other == before.location and _MOVED not in stamps)
    ):
        to = other
    if to is not None:
        values["location"] = to
    if event.at < stamps.get("location", event.at):
        return Place(values=values)
    mark = {_CANCELLED: event.at, _UNDONE: event.at, _SINCE: stamps.get("location", NEVER)}
    if here is None and other is None:
        return Place(values=values, stamps=mark, unknown=unknown)
    if here is not None and other is not None and to == here and before.prior_location != here:
        return Place(values=values, stamps=mark, prior=other)
    return Place(values=values, stamps={_CANCELLED: event.at})


def _where_they_were(before: Encounter, said: Mapping[str, Any], stamps: Stamps) -> Place | None:
    """Where the patient was before the transfer shows which of the two places of its cancel they have gone back to."""
    if stamps.get("location") != stamps[_UNDONE] or said["location"] != before.prior_location:
        return None
    return Place(values=dict(said), location=before.prior_location)


def _of_late_transfer(before: Encounter, event: Event, said: Mapping[str, Any], stamps: Stamps) -> Place | None:
    """The transfer that was cancelled already: the patient is where they were before it."""
    undone, decided = stamps[_UNDONE], stamps.get("location", NEVER)
    from_ = said.get("prior_location")
    if said["location"] is None or undone < decided or (decided != undone and decided >= event.at):
        return None
    values = {name: value for name, value in said.items() if name not in _PLACES}
    if before.prior_location is not None and decided == undone:  # the cancel has said of two places that it is one
        if said["location"] != before.location or from_ != before.prior_location:
            return None
        return Place(values=values, location=from_, stamps={_SINCE: event.at})
    if from_ is None:
        return Place(values=values, stamps={_SINCE: event.at})
    return Place(values=values, location=from_, stamps={_SINCE: event.at, "location": undone})
