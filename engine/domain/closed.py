"""What of a chart is over, in short: stays that have ended, whose scores and tasks nothing is to become of any more.

A chart with many stays is loaded without them. Rules that look at a patient's history read the columns here; a rule
that needs more asks for the whole chart (`Chart.need_whole`), and the entry is decided again on that.
"""

from __future__ import annotations

from typing import Final

import msgspec

from engine.domain.record import Phi

FORM: Final = 1
"""Of what stands here. A summary in another form is not used: the chart is loaded whole, and summed up again."""


class Closed(Phi, frozen=True, kw_only=True, eq=False):
    """Columns have one value for each closed stay, all in the same order: the one that the patient came for first."""

    form: int = FORM
    version: int = 0
    """Of the chart when this was written; 0: it is not yet."""
    keys: tuple[str, ...] = ()
    numbers: tuple[str | None, ...] = ()
    """Visit numbers."""
    accounts: tuple[str | None, ...] = ()
    classes: tuple[str | None, ...] = ()
    finished: tuple[bool, ...] = ()
    """False: cancelled."""
    came_at: tuple[float | None, ...] = ()
    """See `pipeline.plan.came_at`, in seconds since 1970; none: nobody knows, and long ago."""
    admitted: tuple[int | None, ...] = ()
    """Microseconds since 1970, see `Moment.micros`; none: not said, or no moment."""
    discharged: tuple[int | None, ...] = ()
    dispositions: tuple[str | None, ...] = ()
    waits: frozenset[str] = frozenset()
    """Keys of the stays that suspended tasks of closed stays wait for."""
    waited_came_at: float | None = None
    """When the patient came for the last of these; none: of none is it known."""
    deciding: dict[str, tuple[float | None, str]] = {}
    """By model: when the patient came for the latest finished stay that has a score, and its key."""
    appointments: frozenset[str] = frozenset()
    """The numbers of appointments that are closed: a message about one of them needs the whole chart."""
    parts: msgspec.Raw = msgspec.Raw(b"{}")
    """Part -> keys of what is closed, read only when the chart is loaded whole."""

    def keys_of_parts(self) -> dict[str, tuple[str, ...]]:
        return _decode_parts(self.parts)

    def admitted_then(self, moment: int, *, unnumbered: bool) -> bool:
        """Whether a closed stay that was not cancelled began at that moment. unnumbered: one without a visit number."""
        return moment in self.admitted and any(
            at == moment and finished and not (unnumbered and number is not None)
            for at, finished, number in zip(self.admitted, self.finished, self.numbers, strict=True)
        )

    def was_over_after(self, moment: int) -> bool:
        """Whether one that was not cancelled was over after that moment, in microseconds since 1970."""
        last = max((at for at in self.discharged if at is not None), default=moment)
        return last > moment and any(
            finished and at is not None and at > moment
            for at, finished in zip(self.discharged, self.finished, strict=True)
        )


_decode_parts: Final = msgspec.json.Decoder(dict[str, tuple[str, ...]]).decode
