"""Holds: questions that an entry leaves to a person.

A hold is no dead letter: the message was taken, and what could be applied of it is. It is no deviation either: those
are counted, a hold is decided on. It stands open until a person releases or dismisses it, or a replay of the message
ends without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from engine.domain.record import Phi, Record


class HoldCode(StrEnum):
    """What is unclear. A closed list: commands, metrics and `docs/hl7.md` name these."""

    STATUS_EVENT_STALE = "status-event-stale"
    NOTHING_TO_CANCEL = "nothing-to-cancel"
    VISIT_MISSING = "visit-missing"
    ENCOUNTER_UNKNOWN = "encounter-unknown"
    DISPOSITION_IS_NO_DISCHARGE = "disposition-is-no-discharge"
    MERGE_WITHOUT_EFFECT = "merge-without-effect"
    EVENT_NOT_SUPPORTED = "event-not-supported"
    DEATH_STALE = "death-stale"
    DEATH_UNREADABLE = "death-unreadable"
    DEATH_IN_FUTURE = "death-in-future"
    DEATH_CONTRADICTED = "death-contradicted"
    PERSON_CONTRADICTED = "person-contradicted"


class Question(Record, frozen=True, kw_only=True):
    """What a hold asks, and how it is dealt with."""

    text: str
    """For a person: what is unclear, and what to do."""
    status: bool = False
    """It is about the status of a stay, which the event did not change."""
    of_its_time: bool = False
    """It is asked because of what came before the message: of one that was applied in its time no replay asks it."""
    can_be_released: bool = True
    """False: a person can see to it, but the engine would not know what to apply."""


QUESTIONS: Final[Mapping[HoldCode, Question]] = {
    HoldCode.STATUS_EVENT_STALE: Question(
        text="the event is older than what the chart says of this stay, and says something else;"
        " release it if it is true now, dismiss it if it is old news",
        status=True,
        of_its_time=True,
    ),
    HoldCode.NOTHING_TO_CANCEL: Question(
        text="the event takes back what the chart does not say of this stay;"
        " release it if the stay is to be so now, dismiss it if there is nothing to do",
        status=True,
        of_its_time=True,
    ),
    HoldCode.VISIT_MISSING: Question(
        text="the event is about a stay, but the message names none (no PV1 segment, or class N);"
        " have it sent again with its visit, or dismiss it",
        status=True,
        can_be_released=False,
    ),
    HoldCode.ENCOUNTER_UNKNOWN: Question(
        text="the message has no visit number, and no single stay of the patient that it could mean;"
        " have it sent again with its visit number, or dismiss it",
        status=True,
        can_be_released=False,
    ),
    HoldCode.DISPOSITION_IS_NO_DISCHARGE: Question(
        text="a discharge whose disposition (PV1-36) says that the patient is still here;"
        " release it if the patient has left, dismiss it if not",
        status=True,
    ),
    HoldCode.MERGE_WITHOUT_EFFECT: Question(
        text="the merge changed nothing: which identity it means can't be told;"
        " merge the two by hand where the patient is kept, or dismiss it",
        of_its_time=True,
        can_be_released=False,
    ),
    HoldCode.EVENT_NOT_SUPPORTED: Question(
        text="the event changes identities, or deletes, in a way that is not applied here;"
        " see to the charts by hand, then dismiss it",
        can_be_released=False,
    ),
    HoldCode.DEATH_STALE: Question(
        text="the message says that the patient has died, but is older than what the chart says;"
        " release it if it is true, dismiss it if it was taken back",
        of_its_time=True,
    ),
    HoldCode.DEATH_UNREADABLE: Question(
        text="the mark of death (PID-30) or its time (PID-29) can't be read;"
        " release it if the patient has died, dismiss it if not",
    ),
    HoldCode.DEATH_IN_FUTURE: Question(
        text="the time of death (PID-29) lies in the future; release it if the patient has died, dismiss it if not",
    ),
    HoldCode.DEATH_CONTRADICTED: Question(
        text="what is said of the patient's death contradicts what was said before;"
        " release it if this is true now, dismiss it if the chart is right",
        of_its_time=True,
    ),
    HoldCode.PERSON_CONTRADICTED: Question(
        text="the number belongs to a patient of another name and birth date;"
        " release it if it is the same person, dismiss it if the number was used again",
        of_its_time=True,
    ),
}


class HoldState(StrEnum):
    OPEN = "open"
    RELEASED = "released"
    """A person said that it is true; a replay has applied it."""
    DISMISSED = "dismissed"
    """A person said that it is not so, or has seen to it by hand."""
    SUPERSEDED = "superseded"
    """A replay of the message ended without it."""


class Hold(Phi, frozen=True, kw_only=True):
    """One question. An entry and its replays ask it once for each code and location."""

    code: HoldCode
    location: str | None = None
    """HL7 path."""
    subject: str | None = None
    """The encounter key it is about, or a chart id."""
    chart_id: str | None = None
    """None: no chart is known for the patient."""
    patient_key: str | None = None
    detail: str = ""
    """For a person, free of PHI; empty: the text of its question."""

    @property
    def text(self) -> str:
        return self.detail or QUESTIONS[self.code].text

    @property
    def key(self) -> str:
        """What names it among the holds of an entry: `status-event-stale`, `death-in-future@PID-29`."""
        return hold_key(self.code, self.location)


def hold_key(code: str, location: str | None) -> str:
    return f"{code}@{location}" if location else code
