"""Stays that become another patient's, another stay's, or get another number.

What is said of a number that is not known yet counts when it comes: a chart remembers what its visit numbers and
accounts have become (`Chart.renamed`), and messages that still name the old ones are read so. What can't be told from
message and charts is left to a person: a stay that is moved to the wrong patient is worse than one that waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from engine.care.adt.event import Change, Event, Meaning, VisitNumber
from engine.care.adt.says import DISCHARGE
from engine.care.adt.visit import admitted_then
from engine.care.death import settle_death
from engine.care.dispositions import Dispositions
from engine.care.event import Applied, PatientEvent
from engine.care.fields import NEVER
from engine.care.patient import speaks_of_another
from engine.domain.chart import Chart, Charts, Renamed, Stamp
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.hold import Fact, HoldCode
from engine.domain.outcome import Effect
from engine.domain.parts import PARTS, by_field, united
from engine.domain.patient import Patient
from engine.errors import DATA_TYPE, MessageError

RENAMED_MAX: Final = 500
"""Numbers of one patient that have become others; more are a fault of the sender."""

_MOVES: Final = frozenset({Meaning.MOVE_ACCOUNT, Meaning.MOVE_VISIT})
_OF_ACCOUNTS: Final = frozenset({Meaning.MERGE_ACCOUNTS, Meaning.MOVE_ACCOUNT, Meaning.CHANGE_ACCOUNT})

_SEVERAL_PATIENTS: Final = (
    "the numbers in MRG-1 are of more than one patient here: whose stay it was can't be told; move it by hand where the"
    " patient is kept, then dismiss it"
)
_NOT_SAID_WHOSE: Final = (
    "the stay that is to be moved is another patient's, and MRG-1 does not say so; release it if it is to become that"
    " of the patient in PID, dismiss it if not"
)
_BOTH: Final = (
    "both patients have a stay of this number or account: whether the two are one can't be told; move or merge them by"
    " hand where the patient is kept, then dismiss it"
)
_THIRD_PATIENT: Final = (
    "the stay that is to be moved is neither that of the patient in MRG-1 nor that of the one in PID; move it by hand"
    " where the patient is kept, then dismiss it"
)
_TWO_PATIENTS: Final = (
    "the event is about one patient's accounts or visits, but MRG-1 and PID are two patients; have them merged, or the"
    " stay moved (A44, A45), then release it, or dismiss it"
)
_SEVERAL_STAYS: Final = (
    "several stays of the patient have the visit number that is to become another one: which is meant can't be told;"
    " dismiss it once the stay is right"
)
_TAKEN: Final = (
    "the new number is that of another stay of the patient, and the event says nothing of a merge; release it if the"
    " two are one stay, dismiss it if not"
)
_OLDER: Final = (
    "the stay has come to its patient by a move that is newer than this one; dismiss it if it is old news, release it"
    " if the stay is to become that of the patient in PID now"
)
_DEATH: Final = (
    "the stay that is to be moved ended in death, or one of the two patients is recorded as dead; release it if the"
    " stay is to become that of the patient in PID, dismiss it if not"
)


def apply_changes(
    charts: Charts,
    changes: Sequence[Change],
    events: Sequence[PatientEvent],
    dispositions: Dispositions,
    applied: Applied,
) -> tuple[PatientEvent, ...]:
    """Move, merge and renumber stays as a message says; to `applied`. charts: with what it has brought already.

    The events of the message as they are to be applied then: where a stay could not be told, they say nothing of one.
    Raises MessageError when too many numbers of a patient would have become others.
    """
    changing = _Changing(charts, dispositions, applied)
    told = list(events)
    for change in changes:
        event = told[change.event]
        if not changing.take(change, event) and isinstance(event, Event):
            told[change.event] = msgspec.structs.replace(event, meaning=Meaning.PERSON)
    changing.finish()
    return tuple(told)


class _Changing:
    """The changes of one message, one after the other."""

    def __init__(self, charts: Charts, dispositions: Dispositions, applied: Applied) -> None:
        self._charts = charts
        self._dispositions = dispositions
        self._applied = applied
        self._changed: dict[str, Chart] = {}

    def take(self, change: Change, event: PatientEvent) -> bool:
        """Whether it is as the change says now; else a person is asked."""
        target = self._living(self._charts.find(change.key)) or self._changed.get(change.chart_id)
        if target is not None and speaks_of_another(target, event):
            return False  # the event itself asks whether it is the same person
        asked = len(self._applied.holds)
        is_so = self._apply(change, event, target)
        number = change.old_visit or change.visit
        if len(self._applied.holds) == asked and number is not None and change.what not in _OF_ACCOUNTS:
            self._applied.facts += [Fact(chart_id=id_, encounter=number.key, moved=True) for id_ in self._changed]
        return is_so

    def _apply(self, change: Change, event: PatientEvent, target: Chart | None) -> bool:
        owners = {chart.id: chart for one in change.was if (chart := self._living(self._charts.find(one))) is not None}
        if len(owners) > 1:
            return self._ask(change, target, HoldCode.MOVE_UNCLEAR, _SEVERAL_PATIENTS)
        source = next(iter(owners.values()), None)
        if change.what in _MOVES:
            return self._move(change, event, source, target)
        if source is not None and (target is None or source.id != target.id):
            return self._ask(change, target or source, HoldCode.MOVE_UNCLEAR, _TWO_PATIENTS)
        of_accounts = change.what in _OF_ACCOUNTS
        numbers = (change.old_account, change.account) if of_accounts else (change.old_visit, change.visit)
        if None in numbers:
            return self._ask(change, target, HoldCode.MOVE_UNKNOWN)
        if target is None:
            target = self._create(change)
        rename = self._rename_account if of_accounts else self._rename_visit
        return rename(change, event, target)

    def finish(self) -> None:
        applied, changed = self._applied, self._changed
        known = {chart.id for chart in applied.others} | ({applied.chart.id} if applied.chart is not None else set())
        applied.others = [changed.get(chart.id, chart) for chart in applied.others]
        if applied.chart is not None:
            applied.chart = changed.get(applied.chart.id, applied.chart)
        applied.others += [chart for chart in changed.values() if chart.id not in known]

    def _living(self, chart: Chart | None) -> Chart | None:
        if chart is None:
            return None
        chart.need_whole()
        return self._changed.get(chart.id, chart)

    def _create(self, change: Change) -> Chart:
        self._tell("patient-created", change.chart_id)
        return Chart(id=change.chart_id, patient=Patient(identifiers=(change.key,)))

    def _ask(self, change: Change, chart: Chart | None, code: HoldCode, detail: str = "") -> bool:
        """Leave it to a person. Always false."""
        number = change.old_visit or change.visit
        known = chart.id if chart is not None else None
        self._applied.hold(
            code,
            location=change.location,
            subject=known if number is None or change.what in _OF_ACCOUNTS else number.key,
            chart_id=chart.id if chart is not None else None,
            patient_key=chart.patient.key if chart is not None else change.key.key,
            detail=detail,
        )
        return False

    def _tell(self, kind: str, subject: str, detail: str = "") -> None:
        self._applied.effects.append(Effect(kind=kind, subject=subject, detail=detail))

    # --- to another patient

    def _move(self, change: Change, event: PatientEvent, source: Chart | None, target: Chart | None) -> bool:
        wanted = _finder(change)
        if target is not None and (known := wanted(target)):
            if source is not None and source.id != target.id and wanted(source):
                return self._ask(change, target, HoldCode.MOVE_UNCLEAR, _BOTH)
            if change.was and (source is None or source.id != target.id):  # it was heard of here first
                new = _keys(known) - target.renamed.came.keys()
                target = _renamed(target, came=dict.fromkeys(new, (change.was[0].key, event.at)))
            return self._within(change, event, target, known)
        owner = self._owner(change)
        if source is None and owner is not None and not change.was:
            if not event.believed(HoldCode.MOVE_UNCLEAR, change.location):
                return self._ask(change, target or owner, HoldCode.MOVE_UNCLEAR, _NOT_SAID_WHOSE)
            source = owner
        going = wanted(source) if source is not None else []
        if source is None or not going:
            if owner is not None and (target is None or owner.id != target.id):
                return self._ask(change, target or owner, HoldCode.MOVE_UNCLEAR, _THIRD_PATIENT)
            if self._may_be_new(change, event, owner):
                return self._expect(change, event, target or self._create(change))
            return self._ask(change, target or source, HoldCode.MOVE_UNKNOWN)
        came = [source.renamed.came[key][1] for key in _keys(going) if key in source.renamed.came]
        if any(event.at < one for one in came) and not event.believed(HoldCode.MOVE_UNCLEAR, change.location):
            return self._ask(change, target or source, HoldCode.MOVE_UNCLEAR, _OLDER)
        if self._is_about_death(source, target, going) and not event.believed(HoldCode.MOVE_UNCLEAR, change.location):
            return self._ask(change, target or source, HoldCode.MOVE_UNCLEAR, _DEATH)
        if target is None:
            target = self._create(change)
        left, target = self._carry(source, target, going, event)
        self._changed[left.id] = settle_death(source, left, _quiet(event), self._dispositions, self._applied)
        return self._within(change, event, target, [stay for stay in target.encounters if stay.key in _keys(going)])

    def _within(self, change: Change, event: PatientEvent, chart: Chart, stays: Sequence[Encounter]) -> bool:
        """The account and the number of stays that are the patient's already."""
        if change.account is not None:
            old = {stay.account for stay in stays} - {None, change.account}
            chart = _with(chart, {stay.key: msgspec.structs.replace(stay, account=change.account) for stay in stays})
            if change.what in _OF_ACCOUNTS:
                chart = _renamed(chart, accounts=dict.fromkeys((one for one in old if one), change.account))
        self._changed[chart.id] = chart
        if change.what is Meaning.MOVE_VISIT and change.visit is not None and change.old_visit is not None:
            return self._rename_visit(change, event, chart)
        return True

    def _may_be_new(self, change: Change, event: PatientEvent, owner: Chart | None) -> bool:
        """A stay of which nothing is known yet: the message says whose it is, whose it was, and what it is (PV1)."""
        named = change.visit is not None and change.old_visit in {None, change.visit}
        of_visit = isinstance(event, Event) and event.meaning is Meaning.UPDATE
        return named and of_visit and owner is None and bool(change.was)

    def _expect(self, change: Change, event: PatientEvent, chart: Chart) -> bool:
        """The event opens the stay; what comes late of it, under the patient whose it was, goes to it."""
        if change.visit is not None and change.was:
            chart = _renamed(chart, came={change.visit.key: (change.was[0].key, event.at)})
        self._changed[chart.id] = chart
        return True

    def _owner(self, change: Change) -> Chart | None:
        """Whose the stay is that is named by its visit number, whoever it is said to be of."""
        number = change.old_visit or change.visit
        found = (
            self._charts.visits.get(number.key) if number is not None and change.what is Meaning.MOVE_VISIT else None
        )
        return self._living(self._charts.living(found))

    def _is_about_death(self, source: Chart, target: Chart | None, going: Iterable[Encounter]) -> bool:
        dead = any(one is not None and one.patient.deceased is True for one in (source, target))
        return dead or any(self._dispositions.means_death(stay.disposition) for stay in going)

    def _carry(
        self, source: Chart, target: Chart, going: Sequence[Encounter], event: PatientEvent
    ) -> tuple[Chart, Chart]:
        """Both charts, after stays have gone from one to the other with all that belongs to them."""
        for chart in (source, target):
            self._applied.moved.setdefault(chart.id, chart)
        source_was, target_was = self._applied.moved[source.id], self._applied.moved[target.id]
        self._applied.moved[source.id], self._applied.moved[target.id] = _carried(source_was, target_was, going)
        source, target = _carried(source, target, going)
        gone = dict.fromkeys(_keys(going), target.patient.key)
        source = _renamed(source, departed=gone)
        target = _renamed(target, came=dict.fromkeys(gone, (source.patient.key, event.at)))
        for stay in going:
            self._tell("encounter-moved", stay.key, target.id)
        self._changed[source.id] = source
        self._changed[target.id] = target
        return source, target

    # --- to another number

    def _rename_account(self, change: Change, event: PatientEvent, chart: Chart) -> bool:
        old, new = change.old_account, change.account
        if old is None or new is None or old == new:
            return True
        stays = [stay for stay in chart.encounters if stay.account == old]
        bare = [[s for s in chart.encounters if s.account == one and _is_bare(s)] for one in (old, new)]
        if all(len(one) == 1 for one in bare):  # a stay that is known by its account only
            if not _are_one(change, event, chart, bare[1][0]):
                return self._ask(change, chart, HoldCode.MOVE_UNCLEAR, _TAKEN)
            chart = self._fold(chart, bare[0][0], bare[1][0])
        chart = _with(
            chart,
            {s.key: msgspec.structs.replace(s, account=new) for s in chart.encounters if s.account == old},
        )
        self._changed[chart.id] = _renamed(chart, accounts={old: new})
        for stay in stays:
            self._tell("encounter-renumbered", stay.key)
        return True

    def _rename_visit(self, change: Change, event: PatientEvent, chart: Chart) -> bool:
        old, new = change.old_visit, change.visit
        if old is None or new is None or old.key == new.key:
            return True
        olds, news = _numbered(chart, old), _numbered(chart, new)
        if len(olds) > 1 or len(news) > 1:
            return self._ask(change, chart, HoldCode.MOVE_UNCLEAR, _SEVERAL_STAYS)
        if olds and news and olds[0].key != news[0].key:
            if not _are_one(change, event, chart, news[0]):
                return self._ask(change, chart, HoldCode.MOVE_UNCLEAR, _TAKEN)
            chart = self._fold(chart, olds[0], news[0])
        elif olds and not news:
            stay = msgspec.structs.replace(olds[0], visit_number=new.number, visit_authority=new.authority)
            chart = _with(chart, {stay.key: stay})
            self._tell("encounter-renumbered", stay.key)
        self._changed[chart.id] = _renamed(chart, visits={old.key: (new.key, new.number, new.authority)})
        return bool(olds or news)

    def _fold(self, chart: Chart, old: Encounter, new: Encounter) -> Chart:
        self._tell("encounter-merged", new.key)
        return _as_one(chart, old, new)


def _are_one(change: Change, event: PatientEvent, chart: Chart, new: Encounter) -> bool:
    """Whether a stay that has the new number already is the one that gets it: the event merges two, a person has said
    so, or all that is known of it was said since.
    """
    if change.what in {Meaning.MERGE_VISITS, Meaning.MERGE_ACCOUNTS}:
        return True
    said = chart.encounter_stamps.get(new.key, {})
    fields = [at for name, at in said.items() if name in Encounter.__struct_fields__]
    since = bool(fields) and min(fields) >= event.at
    return since or event.believed(HoldCode.MOVE_UNCLEAR, change.location)


_NO_END: Final[Mapping[str, Any]] = dict.fromkeys(DISCHARGE)


def _as_one(chart: Chart, old: Encounter, new: Encounter) -> Chart:
    """Two stays that are one: each field as it was said last; what is left of the old one is cancelled."""
    stamps = chart.encounter_stamps
    one, said = by_field(new, stamps.get(new.key, {}), old, stamps.get(old.key, {}))
    one = msgspec.structs.replace(
        one,
        key=new.key,
        visit_number=new.visit_number,
        visit_authority=new.visit_authority,
        account=new.account or old.account,
        discharges=max(old.discharges, new.discharges),
        merged_into=None,
    )
    if one.status is not EncounterStatus.FINISHED:
        one = msgspec.structs.replace(one, **_NO_END)
    left = msgspec.structs.replace(old, status=EncounterStatus.CANCELLED, merged_into=new.key, **_NO_END)
    chart = _with(chart, {new.key: one, old.key: left})
    return msgspec.structs.replace(chart, encounter_stamps={**stamps, new.key: said})


_NONE: Final[Mapping[str, Any]] = {}


def _finder(change: Change) -> Callable[[Chart], list[Encounter]]:
    """Which stays of a chart a move is about."""
    if change.what is Meaning.MOVE_ACCOUNT:
        account = change.old_account or change.account

        def of_account(chart: Chart) -> list[Encounter]:
            return [stay for stay in chart.encounters if account is not None and stay.account == account]

        return of_account
    numbers = [number for number in (change.old_visit, change.visit) if number is not None]

    def of_visit(chart: Chart) -> list[Encounter]:
        for number in numbers:
            if found := _numbered(chart, number):
                return found if len(found) == 1 else []
        return []

    return of_visit


def _numbered(chart: Chart, number: VisitNumber) -> list[Encounter]:
    """The stays of a chart that have a visit number; where the authority is not said, of whichever."""
    key = chart.renamed.visits.get(number.key, (number.key, number.number, number.authority))
    found = [
        stay
        for stay in chart.encounters
        if stay.visit_number == key[1]
        and stay.merged_into is None
        and (key[2] is None or stay.visit_authority in {None, key[2]})
    ]
    same = [stay for stay in found if stay.key == key[0]]
    return same or found


def _is_bare(stay: Encounter) -> bool:
    return stay.visit_number is None and stay.status is not EncounterStatus.CANCELLED


def _keys(stays: Iterable[Encounter]) -> set[str]:
    return {stay.key for stay in stays}


def _with(chart: Chart, stays: Mapping[str, Encounter]) -> Chart:
    """The chart with other versions of some of its stays."""
    if not stays:
        return chart
    encounters = tuple([stays.get(stay.key, stay) for stay in chart.encounters])
    return chart if encounters == chart.encounters else msgspec.structs.replace(chart, encounters=encounters)


def _renamed(
    chart: Chart,
    *,
    accounts: Mapping[str, str] | None = None,
    visits: Mapping[str, tuple[str, str, str | None]] | None = None,
    departed: Mapping[str, str] = _NONE,
    came: Mapping[str, tuple[str, Stamp]] = _NONE,
) -> Chart:
    """The chart, with what its numbers have become. Raises MessageError when these are too many."""
    was = chart.renamed
    left = {key: to for key, to in was.accounts.items() if key not in (accounts or {}).values()}
    kept = {key: to for key, to in was.visits.items() if key not in {to[0] for to in (visits or {}).values()}}
    now = Renamed(
        accounts={**left, **(accounts or {})},
        visits={**kept, **(visits or {})},
        departed={**{key: to for key, to in was.departed.items() if key not in came}, **departed},
        came={**{key: said for key, said in was.came.items() if key not in departed}, **came},
    )
    if max(len(now.accounts), len(now.visits), len(now.departed), len(now.came)) > RENAMED_MAX:
        raise MessageError(
            "renumbered-too-often",
            f"more than {RENAMED_MAX} numbers of the patient would have become others: something is wrong with them",
            hl7_code=DATA_TYPE,
            location="MRG",
        )
    return chart if now == was else msgspec.structs.replace(chart, renamed=now)


def _carried(source: Chart, target: Chart, going: Sequence[Encounter]) -> tuple[Chart, Chart]:
    keys = _gone_with(source, going)
    left: dict[str, Any] = {}
    gone: dict[str, Any] = {}
    for part in PARTS:
        items = [(item, part.key(item) in keys) for item in part.of(source)]
        left |= part.fields([item for item, goes in items if not goes], part.stamps_of(source))
        gone |= part.fields([item for item, goes in items if goes], part.stamps_of(source))
    moved = msgspec.structs.replace(source, **gone)
    return msgspec.structs.replace(source, **left), united((target, moved))


def _gone_with(chart: Chart, going: Sequence[Encounter]) -> set[str]:
    """Keys of some stays, and of all that goes with them: what is of them, and what hangs on that."""
    keys = _keys(going)
    before = -1
    while before < len(keys):
        before = len(keys)
        for part in PARTS:
            for item in part.of(chart):
                if part.stay(item) in keys or not keys.isdisjoint(part.hangs_on(item)):
                    keys.add(part.key(item))
    return keys


def _quiet(event: PatientEvent) -> PatientEvent:
    """The same moment, and nothing said of anybody."""
    return PatientEvent(at=event.at, identifiers=event.identifiers, patient={}, sender=event.sender)


# --- late messages


def host_of(chart: Chart, charts: Charts, event: Event, dispositions: Dispositions) -> Chart | None:
    """Whose the stay of a message is now that names the patient whose it was, and is older than the move.

    None: the patient's own, or nobody has said so. A death that it tells is not for another patient to have.
    """
    owner = charts.living(charts.visits.get(event.visit)) if event.visit is not None else None
    if owner is None or owner.id == chart.id or dispositions.means_death(event.disposition):
        return None
    whose, at = owner.renamed.came.get(event.visit or "", ("", NEVER))
    late = event.at[0] <= at[0]
    return owner if late and any(one.key == whose for one in chart.patient.identifiers) else None


# --- what has become of a number


def read_as_renamed(chart: Chart, event: Event) -> Event:
    """The event with the numbers that those it names have become since, or before it came."""
    renamed = chart.renamed
    if not renamed.accounts and not renamed.visits:
        return event
    changes: dict[str, Any] = {}
    account = _last(renamed.accounts, event.account)
    if account != event.account:
        changes["account"] = account
    visit = event.visit
    seen: set[str] = set()
    while visit is not None and visit in renamed.visits and visit not in seen:
        seen.add(visit)
        visit, number, authority = renamed.visits[visit]
        changes |= {"visit": visit, "visit_number": number, "visit_authority": authority}
    return msgspec.structs.replace(event, **changes) if changes else event


def _last(renamed: Mapping[str, str], number: str | None) -> str | None:
    seen: set[str] = set()
    while number is not None and number in renamed and number not in seen:
        seen.add(number)
        number = renamed[number]
    return number


# --- a class change: the same stay, perhaps under another number

FORMER_NOT_OURS: Final = "former-visit-of-another-patient"
"""Deviation: the visit that MRG-5 of a class change names is another patient's; nothing was made of it."""

NUMBERED: Final = "visit_number"
"""Stamp of a stay whose number is no longer its first one: when it was said."""


def goes_on(chart: Chart, charts: Charts, event: Event, applied: Applied) -> tuple[Chart, Event]:
    """The chart, and a class change (A06, A07) as it is to be applied: one stay goes on, whatever its number was.

    The stay is found by its former number (MRG-5) or account (MRG-3), else by the account or the admission that it
    keeps (HL7 v2.9.1 chapter 3, sections 3.3.6 and 3.3.7). It keeps its key, so that destinations know it; where both
    numbers have a stay here, because messages came turned round, the two become one.
    """
    chart.need_whole()
    now = _named_now(chart, event)
    if len(now) > 1:
        return chart, read_as_renamed(chart, event)
    former, before = _former(chart, charts, event, applied, found=bool(now))
    stay = now[0] if now else before
    if stay is None:
        return _noted(chart, event, former), event
    if before is not None and before.key != stay.key:
        chart = _as_one(chart, before, stay)
        applied.effects.append(Effect(kind="encounter-merged", subject=stay.key))
        stay = chart.encounter(stay.key) or stay
    elif before is not None:
        former = former or _own_number(before, event)
    stamps = chart.encounter_stamps.get(stay.key, {})
    if event.at < stamps.get(NUMBERED, event.at):  # it has had another number since
        event = _about(event, stay)
        return _noted(chart, event, former), event
    number, account = event.visit_number or stay.visit_number, event.account or stay.account
    if (number, account) != (stay.visit_number, stay.account):
        applied.effects.append(Effect(kind="encounter-renumbered", subject=stay.key))
    authority = event.visit_authority if event.visit_number is not None else stay.visit_authority
    stay = msgspec.structs.replace(stay, visit_number=number, visit_authority=authority, account=account)
    chart = _with(_noted(chart, event, former), {stay.key: stay})
    known = {**chart.encounter_stamps, stay.key: {**stamps, NUMBERED: event.at}}
    return msgspec.structs.replace(chart, encounter_stamps=known), _about(event, stay)


def _named_now(chart: Chart, event: Event) -> list[Encounter]:
    """The stays that have the number, or the account, that the message names."""
    if event.visit is not None and event.visit_number is not None:
        number = VisitNumber(key=event.visit, number=event.visit_number, authority=event.visit_authority)
        return _numbered(chart, number)
    account = _last(chart.renamed.accounts, event.account)
    return [stay for stay in chart.encounters if account is not None and stay.account == account and _lives(stay)]


def _former(
    chart: Chart, charts: Charts, event: Event, applied: Applied, *, found: bool
) -> tuple[VisitNumber | None, Encounter | None]:
    """The number that the stay had until now, and that stay, where it can be told.

    found: the number that the message names is one of a stay: then only MRG says that another one is the same.
    """
    former = event.former_visit
    if former is not None:
        owner = charts.living(charts.visits.get(former.key))
        if owner is not None and owner.id != chart.id:
            applied.deviate(FORMER_NOT_OURS)
            return None, None
        known = _numbered(chart, former)
        if len(known) == 1:
            return former, known[0]
    accounts = (event.former_account,) if found else (event.former_account, event.account)
    for account in accounts:
        of_account = [s for s in chart.encounters if account is not None and s.account == account and _goes_on(s)]
        if len(of_account) == 1:
            return former, of_account[0]
    return former, None if found else admitted_then(chart, chart.encounters, event)


def _goes_on(stay: Encounter) -> bool:
    return stay.status not in {EncounterStatus.FINISHED, EncounterStatus.CANCELLED}


def _lives(stay: Encounter) -> bool:
    return stay.status is not EncounterStatus.CANCELLED


def _own_number(stay: Encounter, event: Event) -> VisitNumber | None:
    number = stay.visit_number
    if number is None or number == event.visit_number:
        return None
    authority = stay.visit_authority
    return VisitNumber(
        key=f"{authority or event.identifiers[0].authority}:{number}", number=number, authority=authority
    )


def _noted(chart: Chart, event: Event, former: VisitNumber | None) -> Chart:
    """With what the former number and account have become."""
    visits: dict[str, tuple[str, str, str | None]] = {}
    if former is not None and event.visit is not None and event.visit_number is not None and former.key != event.visit:
        visits = {former.key: (event.visit, event.visit_number, event.visit_authority)}
    accounts: dict[str, str] = {}
    if event.former_account is not None and event.account is not None and event.former_account != event.account:
        accounts = {event.former_account: event.account}
    return _renamed(chart, accounts=accounts, visits=visits) if visits or accounts else chart


def _about(event: Event, stay: Encounter) -> Event:
    return msgspec.structs.replace(
        event,
        visit=stay.key,
        visit_number=stay.visit_number,
        visit_authority=stay.visit_authority,
        account=stay.account,
    )
