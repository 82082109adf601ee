"""Holds: questions that an entry leaves to a person.

A hold is no dead letter: the message was taken, and what could be applied of it is. It is no deviation either: those
are counted, a hold is decided on. It stands open until a person releases or dismisses it, a replay of the message ends
without it, or a later event makes true what it asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

from engine.domain.encounter import EncounterStatus
from engine.domain.moment import Moment
from engine.domain.record import Phi, Record


class HoldCode(StrEnum):
    """What is unclear. A closed list: commands, metrics and `docs/hl7.md` name these."""

    STATUS_EVENT_STALE = "status-event-stale"
    NOTHING_TO_CANCEL = "nothing-to-cancel"
    VISIT_MISSING = "visit-missing"
    ENCOUNTER_UNKNOWN = "encounter-unknown"
    DISPOSITION_IS_NO_DISCHARGE = "disposition-is-no-discharge"
    MERGE_WITHOUT_EFFECT = "merge-without-effect"
    MOVE_UNKNOWN = "move-unknown"
    MOVE_UNCLEAR = "move-unclear"
    EVENT_NOT_SUPPORTED = "event-not-supported"
    DEATH_STALE = "death-stale"
    DEATH_UNREADABLE = "death-unreadable"
    DEATH_IN_FUTURE = "death-in-future"
    DEATH_CONTRADICTED = "death-contradicted"
    PERSON_CONTRADICTED = "person-contradicted"
    TEST_MESSAGE = "test-message"


class Question(Record, frozen=True, kw_only=True):
    """What a hold asks, and how it is dealt with."""

    text: str
    """For a person: what is unclear, and what to do."""
    status: bool = False
    """It is about the status of a stay, which the event did not change."""
    of_its_time: bool = False
    """It is asked because of what came before the message: of one that was applied in its time no replay asks it."""
    death: bool = False
    """It is about whether the patient has died: it is answered once that is decided."""
    waits: bool = False
    """What answers it may still come by itself: until a time that the channel sets it alarms nobody."""
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
        waits=True,
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
    HoldCode.MOVE_UNKNOWN: Question(
        text="the stay or account that the event moves, merges or gives another number is not known here;"
        " release it once it is, dismiss it if there is nothing to do",
        of_its_time=True,
    ),
    HoldCode.MOVE_UNCLEAR: Question(
        text="what the event says of patients, stays and their numbers is not what the charts say;"
        " release it if the event is right, dismiss it if not",
        of_its_time=True,
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
        death=True,
    ),
    HoldCode.DEATH_UNREADABLE: Question(
        text="the mark of death (PID-30) or its time (PID-29) can't be read;"
        " release it if the patient has died, dismiss it if not",
        death=True,
    ),
    HoldCode.DEATH_IN_FUTURE: Question(
        text="the time of death (PID-29) lies in the future; release it if the patient has died, dismiss it if not",
        death=True,
    ),
    HoldCode.DEATH_CONTRADICTED: Question(
        text="what is said of the patient's death contradicts what was said before;"
        " release it if this is true now, dismiss it if the chart is right",
        of_its_time=True,
        death=True,
    ),
    HoldCode.PERSON_CONTRADICTED: Question(
        text="the number belongs to a patient of another name and birth date;"
        " release it if it is the same person; if the number was used again, have the other person's messages sent"
        " again under a number of their own, then dismiss it: nothing is kept of them until then",
        of_its_time=True,
    ),
    HoldCode.TEST_MESSAGE: Question(
        text="a test message (MSH-11, or its channel is for tests) names a patient who is no test patient: nothing of"
        " it was applied; dismiss it if it was a test, release it if it is of the patient and only marked wrongly",
    ),
}


class HoldState(StrEnum):
    OPEN = "open"
    RELEASED = "released"
    """A person said that it is true; a replay has applied it."""
    DISMISSED = "dismissed"
    """A person said that it is not so, or has seen to it by hand."""
    SUPERSEDED = "superseded"
    """A replay of the message ended without it, or a later event has made true what it asked."""


class Assertion(Phi, frozen=True, kw_only=True):
    """What an event says of a stay, and when it was said."""

    status: EncounterStatus
    happened_at: Moment | None = None
    """Time of the event; none: the message does not say."""
    sender: int = 0
    """0: it is not known."""
    clock: int = 0
    """What the sender's clock showed (seconds since 1970), right or wrong; 0: the message does not say."""
    received: float = 0.0
    """Seconds since 1970."""


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
    asserts: Assertion | None = None
    """What the message says of a stay, and the chart did not."""
    detail: str = ""
    """For a person, free of PHI; empty: the text of its question."""
    waits_until: datetime | None = None
    """Until then it is expected to be answered by itself; none: it asks at once."""

    @property
    def text(self) -> str:
        return self.detail or QUESTIONS[self.code].text

    @property
    def key(self) -> str:
        """What names it among the holds of an entry: `status-event-stale`, `death-in-future@PID-29`."""
        return hold_key(self.code, self.location)


class Fact(Phi, frozen=True, kw_only=True):
    """What an event has made true of a patient, and may be just what an open hold asks.

    With an encounter: it is as the event says. Without: it is decided whether the patient has died.
    """

    chart_id: str
    encounter: str | None = None
    asserts: Assertion | None = None
    changed: bool = False
    """The stay was of another status before."""
    undone: bool = False
    """It has come after its own cancel, whose clock `asserts` has: that cancel had something to cancel."""
    moved: bool = False
    """The stay of this number has become another patient's, or got its other number, as an event said."""
    surely_after: float = 0.0
    """What was received before this instant was said before the event, whatever the clocks of the senders show."""

    def answers(self, code: str, encounter: str | None, asserts: Assertion | None) -> bool:
        """Whether a hold of this patient is answered. encounter: that the hold is about; none: it could not be told.

        An event answers only what was surely said before it: a discharge that may have come after it, and after the
        cancel that follows, stays a question. A message that named no stay is sent again with its visit: it is known by
        its status and the time of the event. The cancel of a discharge that was not seen is answered by one of a
        discharge that was.
        """
        if self.moved:
            return code in _MOVES and encounter == self.encounter
        said = self.asserts
        if said is None:
            return code in _DEATHS
        if asserts is None or asserts.status is not said.status:
            return False
        if self.undone and (code != HoldCode.NOTHING_TO_CANCEL or encounter is None):
            return False
        if encounter is None:
            return asserts.happened_at is not None and asserts.happened_at == said.happened_at
        if encounter != self.encounter or (code == HoldCode.NOTHING_TO_CANCEL and not (self.changed or self.undone)):
            return False
        if asserts.sender == said.sender != 0 and asserts.clock and said.clock:
            return asserts.clock <= said.clock
        return asserts.received < self.surely_after


_MOVES: Final = frozenset({HoldCode.MOVE_UNKNOWN, HoldCode.MOVE_UNCLEAR})
_DEATHS: Final = frozenset(code for code, asked in QUESTIONS.items() if asked.death)


def hold_key(code: str, location: str | None) -> str:
    return f"{code}@{location}" if location else code
