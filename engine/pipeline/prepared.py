"""An entry that was read, before it is decided."""

from __future__ import annotations

from engine.care.adt.event import Change, Link, Meaning, Merge
from engine.care.event import PatientEvent
from engine.domain.cause import Cause
from engine.domain.hold import Hold
from engine.domain.message import Entry
from engine.domain.outcome import Outcome
from engine.domain.patient import Identifier
from engine.domain.record import Phi


class Prepared(Phi, frozen=True, kw_only=True):
    """An entry that was read: what it says of charts, and what has to be loaded to decide on it."""

    entry: Entry
    events: tuple[PatientEvent, ...] = ()
    merges: tuple[Merge, ...] = ()
    changes: tuple[Change, ...] = ()
    links: tuple[Link, ...] = ()
    deleted: PatientEvent | None = None
    """Who is to be deleted."""
    meaning: Meaning | None = None
    """Of an ADT message about who is who."""
    identities: frozenset[tuple[str, str, str]] = frozenset()
    visits: frozenset[str] = frozenset()
    deviations: tuple[str, ...] = ()
    charset: str | None = None
    charts: frozenset[str] = frozenset()
    """Ids of charts to be loaded, of a cause that names them itself."""
    bounded: bool = False
    """These without what is closed of them."""
    cause: Cause | None = None
    """Of any entry but a message: what is to be done."""
    code: str = ""
    """Of a message: MSH-9.1, by whose rules it is decided."""
    outcome: Outcome | None = None
    """Already decided: refused, filtered, dead, or nothing that a chart is concerned with."""
    key: Identifier | None = None
    """Whose message it is, of one that was refused or is dead."""
    clock: tuple[int, float] | None = None
    """The sender (a number), and by how many seconds its MSH-7 is behind the receipt; none: not known, or a replay."""
    held: tuple[Hold, ...] = ()
    """Of an event that is for a person to see to: a question for each patient it names, not looked up yet."""
    named: tuple[Identifier | None, ...] = ()
    """The keys of these patients; none: it can't be read."""

    @property
    def patient(self) -> Identifier | None:
        """The key of the patient whose message it is; none: that can't be read, or it is nobody's."""
        return self.events[0].identifiers[0] if self.events else self.key
