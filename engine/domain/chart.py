"""A patient with all that belongs to them: the unit of consistency."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final

from engine.domain.appointment import Appointment
from engine.domain.closed import Closed
from engine.domain.consent import Consent, ContactConsent
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.medication import Medication
from engine.domain.moment import Moment
from engine.domain.oncall import Override
from engine.domain.page import Page
from engine.domain.patient import Identifier, Patient, StatedDeath
from engine.domain.record import Phi
from engine.domain.score import Score
from engine.domain.task import Task
from engine.domain.text import Text
from engine.errors import ChartNotWholeError

Stamp = tuple[float, int]
"""When something was said: the time of the event (seconds since 1970), and the entry (of a replay: the original).

Senders give many events the same time (to the minute, often). Of those the one that came later is the newer one, and it
stays so when the earlier one is replayed. The last one of all can be replayed, and read by a better mapping then.
"""


Number = tuple[str, str, str | None, Stamp]
"""Key, number and authority of a visit number, and when it was said that a stay has it."""
Account = tuple[str, Stamp]
"""An account, and when it was said that stays are of it."""


class Gone(Phi, frozen=True, kw_only=True):
    """Where a stay, or an account, has gone that was this patient's."""

    to: str
    """The key of the other patient."""
    chart_id: str
    """Of that patient."""
    at: Stamp
    """When it went."""
    stay: str | None = None
    """The stay's key; none: an account of several stays."""
    whole: bool = False
    """The account itself is the other patient's, with all stays that are still to be heard of."""


class Renamed(Phi, frozen=True, kw_only=True):
    """What numbers of a patient's stays have become, and where stays have come from and gone to.

    It is a history: the same in whatever order it was heard of (`care.adt.numbers`).
    """

    accounts: dict[str, Account] = {}
    """Each that an account was called -> what it is now."""
    visits: dict[str, Number] = {}
    """Key of each number that a stay had -> what it has now."""
    departed: dict[str, Gone] = {}
    """By the stay's key."""
    accounts_gone: dict[str, Gone] = {}
    """By account: those of which the patient has no stay left."""
    came: dict[str, tuple[tuple[str, Stamp], ...]] = {}
    """Keys of stays that were others' -> the keys of those patients, and when it was moved away from each."""

    def gone(self) -> Iterator[Gone]:
        """All that is another patient's now."""
        yield from self.departed.values()
        yield from self.accounts_gone.values()


NOTHING_RENAMED: Final = Renamed()


class Chart(Phi, frozen=True, kw_only=True):
    """`version` is the optimistic lock: 0 for a chart that is not stored yet.

    `stamps` hold, for each field of the patient, when something was last said of it; what was said before does not turn
    it back. `encounter_stamps` hold the same for each encounter, by its key.
    """

    id: str
    """Opaque: the entry that created it, and a keyed hash of the first identifier; safe in a log."""
    version: int = 0
    patient: Patient
    stamps: dict[str, Stamp] = {}
    death_stated: StatedDeath = StatedDeath()
    encounters: tuple[Encounter, ...] = ()
    encounter_stamps: dict[str, dict[str, Stamp]] = {}
    scores: tuple[Score, ...] = ()
    """The current ones."""
    tasks: tuple[Task, ...] = ()
    appointments: tuple[Appointment, ...] = ()
    appointment_stamps: dict[str, dict[str, Stamp]] = {}
    pages: tuple[Page, ...] = ()
    texts: tuple[Text, ...] = ()
    """What is written to the patient, also what was not, and what they reply."""
    medications: tuple[Medication, ...] = ()
    """Prescriptions, and lines of lists that people have written."""
    renamed: Renamed = NOTHING_RENAMED
    consents: tuple[Consent, ...] = ()
    """What the patient has said to copies that leave, as a person has put it on record; revoked ones too."""
    contact_consents: tuple[ContactConsent, ...] = ()
    """The ledger of consents to be written to, the oldest first."""
    channel: str = ""
    """The one whose message changed it last: by its rules and destinations goes what is caused by no message."""
    test: bool = False
    """Only test data has made it: nobody is called or told because of it, and `sweep --test-data` takes it away."""
    merged_into: str | None = None
    """Id of the surviving chart; this one then only answers for its identifiers."""
    closed: Closed | None = None
    """Stays that are not among the encounters though they are the patient's; none: the chart is whole."""

    def encounter(self, key: str) -> Encounter | None:
        for encounter in self.encounters:
            if encounter.key == key:
                return encounter
        return None

    def need_whole(self) -> None:
        """Said by a rule that looks at more of the patient's stays than `Closed` knows.

        Raises ChartNotWholeError: the chart is loaded whole then, and the entry decided again.
        """
        if self.closed is not None:
            raise ChartNotWholeError(self.id)


class Charts:
    """The charts that a batch touches, in memory: what `process` reads, and what it puts its new versions into.

    `aliases` lead from an identity to a chart id, `visits` from an encounter key to a chart id.
    """

    def __init__(self) -> None:
        self.by_id: dict[str, Chart] = {}
        self.aliases: dict[tuple[str, str, str], str] = {}
        self.visits: dict[str, str] = {}
        self.tests: set[str] = set()
        """Ids of those that test data has made."""
        self.overrides: tuple[Override, ...] = ()
        """Who stands in on rosters, where a rule may ask who is on call."""
        self.unsaid: dict[int, frozenset[str]] = {}
        """The stays in a row whose discharge each sender has sent without a disposition (`pipeline.unsaid`)."""

    def add(self, chart: Chart) -> None:
        if self.tests:
            self._forget_test(chart.id)
        if chart.test:
            self.tests.add(chart.id)
        self.by_id[chart.id] = chart
        for identifier in chart.patient.identifiers:
            self.aliases.setdefault(identity(identifier), chart.id)
        for encounter in chart.encounters:
            self.visits[encounter.key] = chart.id

    def _forget_test(self, chart_id: str) -> None:
        """What led to a chart of test data leads there no more: its next version may have lost numbers and stays."""
        if chart_id in self.tests:
            self.tests.discard(chart_id)
            self.aliases = {key: owner for key, owner in self.aliases.items() if owner != chart_id}
            self.visits = {key: owner for key, owner in self.visits.items() if owner != chart_id}

    def copy(self) -> Charts:
        """Another set of the same charts: adding to it leaves this one as it is."""
        other = Charts()
        other.tests = set(self.tests)
        other.by_id = dict(self.by_id)
        other.aliases = dict(self.aliases)
        other.visits = dict(self.visits)
        other.overrides = self.overrides
        other.unsaid = dict(self.unsaid)
        return other

    def find(self, identifier: Identifier) -> Chart | None:
        """The living chart of an identity, merges followed."""
        return self.living(self.aliases.get(identity(identifier)))

    def living(self, chart_id: str | None) -> Chart | None:
        """The chart of this id, or the one that it has ended in; none: it was not loaded."""
        chart = self.by_id.get(chart_id) if chart_id else None
        while chart is not None and chart.merged_into is not None:
            chart = self.by_id.get(chart.merged_into)
        return chart


class Days:
    """When the days of a patient's stays begin: what a mere date is as an instant, beside the stays' other times.

    It begins at the midnight of the offset that the nearest of these times has, so that the calendar days count as they
    were written; where none is within two days, at that of the zone.
    """

    def __init__(self, encounters: Collection[Encounter], zone: tzinfo = UTC) -> None:
        self._encounters = encounters
        self._zone = zone
        self._begins: dict[str, datetime | None] = {}
        self._clocks: list[tuple[float, float]] | None = None
        self._ends: dict[str, list[Moment]] | None = None

    def at(self, moment: Moment | None) -> datetime | None:
        """The instant of a time; none as `Moment.at`."""
        if moment is None or moment.timed or moment.at is None:
            return None if moment is None else moment.at
        if moment.text not in self._begins:
            self._begins[moment.text] = self._begin(moment)
        return self._begins[moment.text]

    def _begin(self, day: Moment) -> datetime | None:
        if self._clocks is None:
            self._clocks = sorted(_clocks(self._encounters))
        place = bisect_left(self._clocks, (day.seconds,))
        near = self._clocks[max(place - 1, 0) : place + 1]
        apart, offset = min(((abs(wall - day.seconds), offset) for wall, offset in near), default=(_FAR_SECONDS, 0.0))
        return day.at_in(timezone(timedelta(seconds=offset)) if apart < _FAR_SECONDS else self._zone)

    def seconds(self, moment: Moment) -> float:
        """The same as `Moment.seconds`: of what names no day, and of a placeholder, it is that."""
        if moment.timed or moment.at is None:
            return moment.seconds
        at = self.at(moment)
        return moment.seconds if at is None else at.timestamp()

    def last_end_on(self, day: Moment, *, before: Moment | None) -> float | None:
        """The last discharge on that day of which the hour is known; of those surely before a time, if one is given."""
        if self._ends is None:
            self._ends = {}
            for stay in self._encounters:
                end = stay.discharged_at
                if end is not None and end.timed and stay.status is EncounterStatus.FINISHED:
                    self._ends.setdefault(end.text[:_DAY_CHARS], []).append(end)
        ends = self._ends.get(day.text, ())
        return max((end.seconds for end in ends if before is None or end.is_before(before)), default=None)


_DAY_CHARS: Final = len("2026-03-02")
_FAR_SECONDS: Final = 2 * 86_400.0


def _clocks(encounters: Iterable[Encounter]) -> Iterator[tuple[float, float]]:
    """What the clock on the wall showed at the times of day of the stays, as seconds, and its offset from UTC."""
    for stay in encounters:
        for time in (stay.admitted_at, stay.discharged_at):
            if time is not None and time.timed and time.at is not None and (offset := time.at.utcoffset()) is not None:
                ahead = offset.total_seconds()
                yield time.seconds + ahead, ahead


def as_it_happened(encounters: Collection[Encounter]) -> tuple[Encounter, ...]:
    """The encounters of a chart in their order: by admission, those without one last."""
    days = Days(encounters)

    def place(encounter: Encounter) -> tuple[bool, float, str]:
        admitted = encounter.admitted_at
        return (admitted is None, 0.0 if admitted is None else days.seconds(admitted), encounter.key)

    return tuple(sorted(encounters, key=place))


def identity(identifier: Identifier) -> tuple[str, str, str]:
    return (identifier.authority, identifier.type, identifier.value)
