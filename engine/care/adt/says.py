"""What each meaning of an event says of a stay: one row each, and all rules of stays read the row.

HL7 v2.9.1 chapter 3, sections 3.3.1 to 3.3.62. The pairs of an event and its reversal are data like the rest
(`undoes`): a reversal that comes first waits on the stay for what it takes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

from engine.care.adt.event import Meaning
from engine.domain.encounter import EncounterStatus


class When(Enum):
    """In the place of a value: something that only the event itself knows."""

    HAPPENED = "happened"
    """The time of the event."""


class Says(NamedTuple):
    """What events of one meaning say of a stay."""

    status: EncounterStatus | None = None
    """What the stay is after it; none: the status of a known stay is left."""
    among: frozenset[EncounterStatus] | None = None
    """The stays that it can happen to, by their status; of another one that is newer a person is asked. None: it is one
    of those that have rules of their own (`status.py`)."""
    undoes: frozenset[Meaning] = frozenset()
    """What it takes back."""
    sets: Mapping[str, Any] = {}
    """Fields that it sets whatever the message says of them."""
    takes: frozenset[str] = frozenset()
    """Of the fields that only some events may set (`OWN`), those that the message may."""
    leaves: frozenset[str] = frozenset()
    """Fields of the message that say nothing of the stay here."""
    goes_back: bool = False
    """The patient is again at the place before."""
    class_: str | None = None
    """The patient class that the event itself tells."""
    in_bed: bool = False
    """The patient lies in a bed as of then, unless the message tells of an end (PV1-45, PV1-36): a discharge before it
    was not the end of the stay, whichever of the two comes first."""
    old_news: bool = False
    """An older one is history, and no question: no plan hangs on it."""


_S: Final = EncounterStatus
_M: Final = Meaning
OPEN: Final = frozenset({_S.ACTIVE, _S.ON_LEAVE})
ENDED: Final = frozenset({_S.FINISHED})
_COMING: Final = frozenset({_S.PLANNED})

_NO_MORE_PENDING: Final[Mapping[str, Any]] = {"discharge_pending": False, "pending_location": None, "in_transit": False}

SAYS: Final[Mapping[Meaning, Says]] = {
    _M.ADMIT: Says(_S.ACTIVE),
    _M.REGISTER: Says(_S.ACTIVE),
    _M.PRE_ADMIT: Says(_S.PLANNED),
    _M.CANCEL_ADMIT: Says(_S.CANCELLED, undoes=frozenset({_M.ADMIT, _M.REGISTER, _M.PRE_ADMIT})),
    _M.DELETE_VISIT: Says(_S.CANCELLED, undoes=frozenset({_M.ADMIT, _M.REGISTER, _M.PRE_ADMIT})),
    _M.CANCEL_PRE_ADMIT: Says(
        _S.CANCELLED, among=_COMING | {_S.CANCELLED}, undoes=frozenset({_M.PRE_ADMIT}), old_news=True
    ),
    _M.DISCHARGE: Says(_S.FINISHED, sets=_NO_MORE_PENDING),
    _M.CANCEL_DISCHARGE: Says(_S.ACTIVE, undoes=frozenset({_M.DISCHARGE})),
    _M.UPDATE: Says(),
    # --- where the patient is
    _M.TRANSFER: Says(
        sets={"pending_location": None, "temporary_location": None, "in_transit": False},
        takes=frozenset({"prior_location"}),
    ),
    _M.CANCEL_TRANSFER: Says(
        undoes=frozenset({_M.TRANSFER}),
        sets={"prior_location": None},
        takes=frozenset({"prior_location"}),
        goes_back=True,
    ),
    # --- what is planned: never more than a plan
    _M.PENDING_TRANSFER: Says(takes=frozenset({"pending_location"})),
    _M.CANCEL_PENDING_TRANSFER: Says(undoes=frozenset({_M.PENDING_TRANSFER}), sets={"pending_location": None}),
    _M.PENDING_DISCHARGE: Says(sets={"discharge_pending": True}, leaves=frozenset({"discharged_at", "disposition"})),
    _M.CANCEL_PENDING_DISCHARGE: Says(
        undoes=frozenset({_M.PENDING_DISCHARGE}),
        sets={"discharge_pending": False, "expected_discharge_at": None},
        leaves=frozenset({"discharged_at", "disposition"}),
    ),
    # --- leave of absence: the stay goes on
    _M.LEAVE: Says(
        _S.ON_LEAVE,
        among=OPEN | _COMING,
        sets={"leave_began_at": When.HAPPENED},
        takes=frozenset({"leave_return_expected_at"}),
        old_news=True,
    ),
    _M.RETURN: Says(_S.ACTIVE, among=OPEN | _COMING, old_news=True),
    _M.CANCEL_LEAVE: Says(
        _S.ACTIVE,
        among=OPEN,
        undoes=frozenset({_M.LEAVE}),
        sets={"leave_began_at": None, "leave_return_expected_at": None},
        old_news=True,
    ),
    _M.CANCEL_RETURN: Says(
        _S.ON_LEAVE,
        among=OPEN,
        undoes=frozenset({_M.RETURN}),
        takes=frozenset({"leave_return_expected_at"}),
        old_news=True,
    ),
    # --- tracking: the patient is on the way inside the house, and their bed stays theirs
    _M.DEPART: Says(
        sets={"in_transit": True},
        takes=frozenset({"temporary_location"}),
        leaves=frozenset({"location"}),
    ),
    _M.ARRIVE: Says(
        sets={"in_transit": False},
        takes=frozenset({"temporary_location"}),
        leaves=frozenset({"location"}),
    ),
    _M.CANCEL_DEPART: Says(
        undoes=frozenset({_M.DEPART}),
        sets={"in_transit": False, "temporary_location": None},
        leaves=frozenset({"location"}),
    ),
    _M.CANCEL_ARRIVE: Says(undoes=frozenset({_M.ARRIVE}), sets={"in_transit": True}, leaves=frozenset({"location"})),
    # --- the class changes, perhaps the visit number with it: one stay goes on
    _M.TO_INPATIENT: Says(_S.ACTIVE, among=_COMING, class_="I", in_bed=True),
    _M.TO_OUTPATIENT: Says(_S.ACTIVE, among=_COMING, class_="O"),
}
"""Meanings that are not here say nothing of a stay."""

OWN: Final = frozenset({"prior_location", "pending_location", "temporary_location", "leave_return_expected_at"})
"""Fields that count only in the events that are about them: elsewhere senders repeat what was true once."""

STATUS: Final[Mapping[Meaning, EncounterStatus | None]] = {meaning: says.status for meaning, says in SAYS.items()}
"""Events of a visit, and the status each asserts; none: it leaves the status of a known encounter."""

ARRIVAL: Final = frozenset({_M.ADMIT, _M.REGISTER})
CLASS_CHANGE: Final = frozenset({_M.TO_INPATIENT, _M.TO_OUTPATIENT})
OPENING: Final = ARRIVAL | {_M.PRE_ADMIT}
REGISTERING: Final = frozenset({_M.REGISTER, _M.PRE_ADMIT})

NOT_THE_CLASS: Final = {"I": frozenset({"E", "O", "P", "R", None}), "O": frozenset({"I", None})}
"""Classes that a stay does not have after it has become an inpatient's, or an outpatient's."""

DISCHARGE: Final = ("discharged_at", "disposition")
"""Fields of an encounter that only one that has ended holds."""


def heard(meaning: Meaning, encounter: dict[str, Any]) -> dict[str, Any]:
    """What a message of this meaning says of its stay, less what means nothing there."""
    says = SAYS.get(meaning)
    if says is None:
        return encounter
    beside = says.leaves if OWN.isdisjoint(encounter) else says.leaves | (OWN - says.takes)
    return encounter if beside.isdisjoint(encounter) else {k: v for k, v in encounter.items() if k not in beside}


def class_before(cancelled: Meaning, encounter: dict[str, Any]) -> dict[str, Any]:
    """What a message says of a stay whose class change is taken back: senders repeat what they take back."""
    class_ = "O" if cancelled is _M.TO_INPATIENT else "I"
    said = encounter.get("class_")
    return encounter if said not in NOT_THE_CLASS[class_] else {**encounter, "class_": class_}


CANCELS: Final[Mapping[Meaning, frozenset[Meaning]]] = {
    meaning: says.undoes for meaning, says in SAYS.items() if says.undoes
}
"""Event -> what it takes back."""
