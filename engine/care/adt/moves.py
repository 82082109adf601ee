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
from engine.care.adt.numbers import (
    MERGED,
    NUMBERED,
    about,
    account_now,
    accounts_of,
    arrived,
    began_before,
    carried,
    gone,
    heard_there,
    home,
    left_from,
    moved_last,
    noted,
    number_key,
    number_now,
    numbered,
    numbers_of,
    read_as_renamed,
    with_admission,
)
from engine.care.adt.says import CLASS_CHANGE, DISCHARGE
from engine.care.adt.visit import admitted_then, of_another_patient
from engine.care.death import settle_death
from engine.care.dispositions import Dispositions
from engine.care.event import Applied, PatientEvent
from engine.care.fields import NEVER
from engine.care.patient import speaks_of_another
from engine.care.plausible import overlap
from engine.domain.chart import Account, Chart, Charts, Number, Stamp
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.hold import Fact, HoldCode
from engine.domain.outcome import Effect
from engine.domain.parts import PARTS, by_field, united
from engine.domain.patient import Patient
from engine.domain.quality import QualityKind

_ACCOUNT: Final = "account"
"""Field and stamp of a stay."""

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
_GONE: Final = (
    "the stay that gets another number is another patient's by an older move; have it moved back (A45), then release"
    " it, or dismiss it"
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
            return self._within(change, event, self._heard_there(change, event, source, target, known), known)
        owner = self._owner(change, source)
        if source is None and owner is not None and not change.was:
            if not event.believed(HoldCode.MOVE_UNCLEAR, change.location):
                return self._ask(change, target or owner, HoldCode.MOVE_UNCLEAR, _NOT_SAID_WHOSE)
            source = owner
        going = wanted(source) if source is not None else []
        if source is None or not going:
            if owner is not None and (target is None or owner.id != target.id):
                old = any(event.at < moved_last(owner, stay.key) for stay in wanted(owner))
                return self._ask(change, target or owner, HoldCode.MOVE_UNCLEAR, _OLDER if old else _THIRD_PATIENT)
            if self._may_be_new(change, event, owner):
                return self._expect(change, event, source, target or self._create(change))
            return self._ask(change, target or source, HoldCode.MOVE_UNKNOWN)
        older = any(event.at < moved_last(source, stay.key) for stay in going)
        if older and not event.believed(HoldCode.MOVE_UNCLEAR, change.location):
            return self._ask(change, target or source, HoldCode.MOVE_UNCLEAR, _OLDER)
        if self.is_about_death(source, target, going) and not event.believed(HoldCode.MOVE_UNCLEAR, change.location):
            return self._ask(change, target or source, HoldCode.MOVE_UNCLEAR, _DEATH)
        if target is None:
            target = self._create(change)
        left, target = self.carry(source, target, going, event.at, whole=_whole(change))
        left = _with_fact(left, change, event)
        self._changed[left.id] = settle_death(source, left, _quiet(event), self._dispositions, self._applied)
        return self._within(change, event, target, [stay for stay in target.encounters if stay.key in _keys(going)])

    def _heard_there(
        self, change: Change, event: PatientEvent, source: Chart | None, target: Chart, known: Sequence[Encounter]
    ) -> Chart:
        """The target, with the move of stays that are the patient's already: they were heard of there first, or moved
        before.
        """
        source = self._source(change, source, target, known)
        if source is None:
            for stay in known if _is_of_others(change) else ():
                target = arrived(target, stay.key, change.was[0].key, event.at)
        elif source.id != target.id:
            source, target = carried(source, target, known, event.at, whole=_whole(change))
            self._changed[source.id] = _with_fact(source, change, event)
        return target

    def _source(
        self, change: Change, source: Chart | None, target: Chart, known: Sequence[Encounter] = ()
    ) -> Chart | None:
        """The chart of the patient whose the stay was. One of whom nothing was known is made where it is needed.

        That is where their messages name the stay otherwise than the new patient's do: nothing else leads there.
        """
        if source is not None or not change.was_id or not _is_of_others(change):
            return source
        if change.visit is None and _whole(change) is None:
            return source
        named = number_now(target, change.visit).key if change.visit is not None else None
        old = change.old_visit or change.visit
        same = _whole(change) is None and old is not None and named == old.key and all(s.key == named for s in known)
        if same:
            return None
        self._tell("patient-created", change.was_id)
        return Chart(id=change.was_id, patient=Patient(identifiers=(change.was[0],)))

    def _within(self, change: Change, event: PatientEvent, chart: Chart, stays: Sequence[Encounter]) -> bool:
        """The account and the number of stays that are the patient's already."""
        if change.account is not None:
            if change.what in _OF_ACCOUNTS:
                old = {stay.account for stay in stays} | {change.old_account}
                now = (change.account, event.at)
                chart = noted(chart, accounts={one: now for one in old if one is not None and one != change.account})
            account = account_now(chart, change.account)
            stamps = chart.encounter_stamps
            later = [stay for stay in stays if event.at >= stamps.get(stay.key, {}).get(_ACCOUNT, event.at)]
            chart = _with(chart, {stay.key: msgspec.structs.replace(stay, account=account) for stay in later})
            said = {stay.key: {**stamps.get(stay.key, {}), _ACCOUNT: event.at} for stay in later}
            chart = msgspec.structs.replace(chart, encounter_stamps={**stamps, **said})
        self._changed[chart.id] = chart
        if change.what is Meaning.MOVE_VISIT and change.visit is not None and change.old_visit is not None:
            return self._rename_visit(change, event, chart) and self._as_numbered(change, chart.id, stays)
        return self._as_numbered(change, chart.id, stays)

    def _as_numbered(self, change: Change, chart_id: str, stays: Sequence[Encounter]) -> bool:
        """Stays that have come get the numbers of which it was said already that they have them."""
        for key in _keys(stays):
            chart = self._changed[chart_id]
            stay = chart.encounter(key)
            known = chart.renamed.visits.get(number_key(stay)) if stay is not None and stay.visit_number else None
            if stay is None or stay.merged_into is not None or known is None or known[1] == stay.visit_number:
                continue
            others = numbered(chart, VisitNumber(key=known[0], number=known[1], authority=known[2]))
            if others and others[0].key != key:
                if not _was_said_since(chart, others[0], known[-1]):
                    return self._ask(change, chart, HoldCode.MOVE_UNCLEAR, _TAKEN)
                self._changed[chart_id] = self._fold(chart, stay, others[0])
                continue
            now = msgspec.structs.replace(stay, visit_number=known[1], visit_authority=known[2])
            self._changed[chart_id] = _with(chart, {key: now})
            self._tell("encounter-renumbered", key)
        return True

    def _may_be_new(self, change: Change, event: PatientEvent, owner: Chart | None) -> bool:
        """A stay of which nothing is known yet: the message says whose it is, whose it was, and what it is (PV1)."""
        named = change.visit is not None and change.old_visit in {None, change.visit}
        of_visit = isinstance(event, Event) and event.meaning is Meaning.UPDATE
        return named and of_visit and owner is None and bool(change.was)

    def _expect(self, change: Change, event: PatientEvent, source: Chart | None, chart: Chart) -> bool:
        """The event opens the stay; what comes late of it, under the patient whose it was, goes to it."""
        source = self._source(change, source, chart)
        if change.visit is not None and _is_of_others(change):
            key = number_now(chart, change.visit).key
            if source is None:
                chart = arrived(chart, key, change.was[0].key, event.at)
            else:
                source = noted(source, visits={change.visit.key: _number_of(change.visit, event)})
                source, chart = heard_there(source, chart, key, event.at)
                self._changed[source.id] = source
        self._changed[chart.id] = chart
        return True

    def _owner(self, change: Change, source: Chart | None) -> Chart | None:
        """Whose the stay is that is named by its visit number, whoever it is said to be of."""
        number = change.old_visit or change.visit
        if number is None or change.what is not Meaning.MOVE_VISIT:
            return None
        owner = self._living(self._charts.living(self._charts.visits.get(number.key)))
        if owner is not None or source is None:
            return owner
        left = [
            source.renamed.departed[key] for key in numbers_of(source, number.key) if key in source.renamed.departed
        ]
        return self._living(home(source, self._charts, left[0])) if left else None

    def is_about_death(self, source: Chart, target: Chart | None, going: Iterable[Encounter]) -> bool:
        dead = any(one is not None and one.patient.deceased is True for one in (source, target))
        return dead or any(self._dispositions.means_death(stay.disposition) for stay in going)

    def carry(
        self, source: Chart, target: Chart, going: Sequence[Encounter], at: Stamp, *, whole: str | None
    ) -> tuple[Chart, Chart]:
        """Both charts, after stays have gone from one to the other with all that belongs to them.

        whole: the account that has gone; none: stays alone have.
        """
        for chart in (source, target):
            self._applied.moved.setdefault(chart.id, chart)
        source_was, target_was = self._applied.moved[source.id], self._applied.moved[target.id]
        self._applied.moved[source.id], self._applied.moved[target.id] = _carried(source_was, target_was, going)
        if any(overlap(stay, other) for stay in going for other in target.encounters):
            self._applied.quality(QualityKind.STAYS_OVERLAP)
        source, target = carried(*_carried(source, target, going), going, at, whole=whole)
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
        chart = self._account_at_home(event, chart, old, new)
        both = [accounts_of(chart, one) for one in (old, new)]
        bare = [[s for s in chart.encounters if s.account in one and _is_bare(s)] for one in both]
        merges = change.what is Meaning.MERGE_ACCOUNTS
        if both[0] != both[1] and all(len(one) == 1 for one in bare):  # a stay that is known by its account only
            if not _are_one(change, event, chart, bare[1][0]):
                return self._ask(change, chart, HoldCode.MOVE_UNCLEAR, _TAKEN)
            chart = self._fold(chart, bare[0][0], bare[1][0], event.at if merges else None)
        elif merges and len(keys := _keys([*bare[0], *bare[1]])) == 1:
            chart = _merged(chart, keys.pop(), event.at)
        chart = noted(chart, accounts={old: (new, event.at)})
        now = account_now(chart, new)
        stays = [s for s in chart.encounters if s.account != now and s.account in both[0] | both[1]]
        self._changed[chart.id] = _with(chart, {s.key: msgspec.structs.replace(s, account=now) for s in stays})
        for stay in stays:
            self._tell("encounter-renumbered", stay.key)
        return True

    def _rename_visit(self, change: Change, event: PatientEvent, chart: Chart) -> bool:
        old, new = change.old_visit, change.visit
        if old is None or new is None or old.key == new.key:
            return True
        at_home = self._visit_at_home(change, event, chart, old, new)
        if at_home is None:
            return False
        chart = at_home
        olds, news = numbered(chart, old), numbered(chart, new)
        if len(olds) > 1 or len(news) > 1:
            return self._ask(change, chart, HoldCode.MOVE_UNCLEAR, _SEVERAL_STAYS)
        merges = change.what is Meaning.MERGE_VISITS
        if olds and news and olds[0].key != news[0].key:
            if not _are_one(change, event, chart, news[0]):
                return self._ask(change, chart, HoldCode.MOVE_UNCLEAR, _TAKEN)
            chart = self._fold(chart, olds[0], news[0], event.at if merges else None)
        elif merges and (olds or news):
            chart = _merged(chart, (olds or news)[0].key, event.at)
        chart = noted(chart, visits={old.key: _number_of(new, event)})
        now = number_now(chart, new)
        for key in _keys(news or olds):
            stay = chart.encounter(key)
            if stay is not None and stay.visit_number != now.number:
                one = msgspec.structs.replace(stay, visit_number=now.number, visit_authority=now.authority)
                chart = _with(chart, {key: one})
                self._tell("encounter-renumbered", key)
        self._changed[chart.id] = chart
        return bool(olds or news)

    def _visit_at_home(
        self, change: Change, event: PatientEvent, chart: Chart, old: VisitNumber, new: VisitNumber
    ) -> Chart | None:
        """The chart of the stay that gets another number: it may have been moved since, and its number was others'.

        What of it is still known as the old patient's goes along. None: a person is asked.
        """
        named = sorted(numbers_of(chart, old.key) | numbers_of(chart, new.key))
        left = next((chart.renamed.departed[key] for key in named if key in chart.renamed.departed), None)
        if left is not None:
            owner = self._living(home(chart, self._charts, left))
            key = left.stay or ""
        else:
            found = [(key, self._living(self._charts.living(self._charts.visits.get(key)))) for key in named]
            came = [(key, one) for key, one in found if one is not None and left_from(one, key, chart) is not None]
            key, owner = next(((key, one) for key, one in came if one.id != chart.id), ("", None))
        if owner is None or owner.id == chart.id:
            return chart
        at = left_from(owner, key, chart)
        if at is None or event.at[0] > at[0]:
            self._ask(change, chart, HoldCode.MOVE_UNCLEAR, _GONE)
            return None
        going = [stay for number in (old, new) for stay in numbered(chart, number)]
        if going and self.is_about_death(chart, owner, going):
            self._ask(change, chart, HoldCode.MOVE_UNCLEAR, _DEATH)
            return None
        chart, owner = heard_there(chart, owner, key, at)
        if going:
            chart, owner = self.carry(chart, owner, list({stay.key: stay for stay in going}.values()), at, whole=None)
        chart = noted(chart, visits={old.key: _number_of(new, event)})
        self._changed[chart.id], self._changed[owner.id] = chart, owner
        return owner

    def _account_at_home(self, event: PatientEvent, chart: Chart, old: str, new: str) -> Chart:
        """The same of an account that is another patient's now."""
        lost = chart.renamed.accounts_gone
        left = next((lost[one] for one in sorted(accounts_of(chart, old)) if one in lost), None)
        if left is None or event.at[0] > left.at[0]:
            return chart
        owner = self._living(home(chart, self._charts, left))
        if owner is None or owner.id == chart.id:
            return chart
        chart = noted(chart, accounts={old: (new, event.at)})
        self._changed[chart.id] = chart
        going = [
            stay
            for stay in chart.encounters
            if stay.account is not None and account_now(chart, stay.account) == account_now(chart, new)
        ]
        if going and left.whole and not self.is_about_death(chart, owner, going):
            _, owner = self.carry(chart, owner, going, left.at, whole=old)
        return owner

    def _fold(self, chart: Chart, old: Encounter, new: Encounter, at: Stamp | None = None) -> Chart:
        """at: when the two were merged; none: it is one stay that got another number."""
        self._tell("encounter-merged", new.key)
        chart = _as_one(chart, old, new, at)
        return chart if at is None else _merged(chart, new.key, at)


def _is_of_others(change: Change) -> bool:
    """The message says whose the stay was, and that is not the patient whose it is."""
    return bool(change.was) and change.key not in change.was


def _whole(change: Change) -> str | None:
    """The account that becomes another patient's."""
    return (change.old_account or change.account) if change.what is Meaning.MOVE_ACCOUNT else None


def _number_of(number: VisitNumber, event: PatientEvent) -> Number:
    return (number.key, number.number, number.authority, event.at)


def _with_fact(source: Chart, change: Change, event: PatientEvent) -> Chart:
    """The chart that a stay has left under another number: it may still be named by that."""
    old, new = change.old_visit, change.visit
    if change.what is not Meaning.MOVE_VISIT or old is None or new is None or old.key == new.key:
        return source
    return noted(source, visits={old.key: _number_of(new, event)})


def _are_one(change: Change, event: PatientEvent, chart: Chart, new: Encounter) -> bool:
    """Whether a stay that has the new number already is the one that gets it: the event merges two, a person has said
    so, or all that is known of it was said since.
    """
    if change.what in {Meaning.MERGE_VISITS, Meaning.MERGE_ACCOUNTS}:
        return True
    return _was_said_since(chart, new, event.at) or event.believed(HoldCode.MOVE_UNCLEAR, change.location)


def _was_said_since(chart: Chart, stay: Encounter, at: Stamp) -> bool:
    """All that is known of a stay is as new as that."""
    said = chart.encounter_stamps.get(stay.key, {})
    fields = [one for name, one in said.items() if name in Encounter.__struct_fields__]
    return bool(fields) and min(fields) >= at


_NO_END: Final[Mapping[str, Any]] = dict.fromkeys(DISCHARGE)


def _as_one(chart: Chart, old: Encounter, new: Encounter, at: Stamp | None = None) -> Chart:
    """Two stays that are one: each field as it was said last; what is left of the old one is cancelled.

    at: when they were merged. The stay began with the earlier of the two admissions then, unless what was said of it
    since says otherwise.
    """
    stamps = chart.encounter_stamps
    one, said = by_field(new, stamps.get(new.key, {}), old, stamps.get(old.key, {}))
    if at is not None and said.get(_ADMITTED, NEVER) < at:
        other = old if one.admitted_at is new.admitted_at else new
        if began_before(other.admitted_at, one.admitted_at):
            one = with_admission(one, other.admitted_at, other.time_sources.get(_ADMITTED))
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


_ADMITTED: Final = "admitted_at"


def _merged(chart: Chart, key: str, at: Stamp) -> Chart:
    """With when a stay was merged with another one, be that known or not: see `began_first`."""
    known = chart.encounter_stamps.get(key, {})
    said = {**known, MERGED: max(at, known.get(MERGED, NEVER))}
    return msgspec.structs.replace(chart, encounter_stamps={**chart.encounter_stamps, key: said})


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
            if found := numbered(chart, number):
                return found if len(found) == 1 else []
        return []

    return of_visit


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
    """Keys of some stays, and of all that goes with them: what is of them, or of a number that they had, and what hangs
    on that.
    """
    keys = {number for stay in going for number in _numbers_of_stay(chart, stay)}
    before = -1
    while before < len(keys):
        before = len(keys)
        for part in PARTS:
            for item in part.of(chart):
                if part.stay(item) in keys or not keys.isdisjoint(part.hangs_on(item)):
                    keys.add(part.key(item))
    return keys


def _numbers_of_stay(chart: Chart, stay: Encounter) -> set[str]:
    """Those that other parts may name it by. Not where another stay is called so."""
    if stay.visit_number is None:
        return {stay.key}
    named = numbers_of(chart, number_key(stay))
    others = {one.key for one in chart.encounters if one.merged_into is None and one.key != stay.key}
    return (named - others) | {stay.key}


def _quiet(event: PatientEvent) -> PatientEvent:
    """The same moment, and nothing said of anybody."""
    return PatientEvent(at=event.at, identifiers=event.identifiers, patient={}, sender=event.sender)


# --- late messages


def host_of(chart: Chart, charts: Charts, event: Event, dispositions: Dispositions) -> tuple[Chart, Event] | None:
    """Whose the stay of a message is now that names the patient whose it was, and is older than the move.

    With the event as one of that patient's. None: the stay is the patient's own, or nobody has said whose it is. A
    death that it tells is not for another patient to have. Raises MessageError when the message is newer than the move:
    whose the stay is, is then for a person to say.
    """
    left = gone(chart, event)
    if left is not None:
        owner, key, at = home(chart, charts, left), left.stay, left.at
    else:
        found = charts.living(charts.visits.get(event.visit)) if event.visit is not None else None
        if found is None or found.id == chart.id:
            return None
        owner, key, at = found, event.visit, NEVER
    if key is not None:
        at = left_from(owner, key, chart) or at
    if owner.id == chart.id or event.at[0] > at[0] or dispositions.means_death(event.disposition):
        if left is None or owner.id == chart.id:
            return None
        raise of_another_patient()
    stay = owner.encounter(key) if key is not None else None
    while stay is not None and stay.merged_into is not None:
        stay = owner.encounter(stay.merged_into)
    if stay is None or (event.meaning in CLASS_CHANGE and event.former_visit is not None):
        return owner, event
    return owner, about(event, stay)


def with_former_stay(
    chart: Chart, owner: Chart, charts: Charts, event: Event, dispositions: Dispositions, applied: Applied
) -> tuple[Chart, Chart]:
    """Both charts, where a late class change says that a stay of the first one is the stay that has moved since.

    The move came first, and the new patient has it under its new number only: what is still known under the former
    number goes there, too, now or when it is heard of. Where one of the two tells of a death, a person is asked.
    """
    number = _said_number(event)
    if event.meaning not in CLASS_CHANGE or event.former_visit is None or number is None:
        return chart, owner
    for stay in numbered(owner, number):
        left = left_from(owner, stay.key, chart)
        if left is not None and stay.key not in chart.renamed.departed:
            chart, owner = heard_there(chart, owner, stay.key, left)
    for one in (chart, owner):
        one.need_whole()
    going = numbered(chart, event.former_visit)
    if len(going) != 1:
        return chart, owner
    changing = _Changing(charts, dispositions, applied)
    if changing.is_about_death(chart, owner, going):
        applied.hold(HoldCode.MOVE_UNCLEAR, location="MRG-5", subject=going[0].key, chart_id=chart.id, detail=_DEATH)
        return chart, owner
    at = max((one.at for one in chart.renamed.departed.values() if one.chart_id == owner.id), default=event.at)
    return changing.carry(chart, owner, going, at, whole=None)


# --- a class change: the same stay, perhaps under another number

FORMER_NOT_OURS: Final = "former-visit-of-another-patient"
"""Deviation: the visit that MRG-5 of a class change names is another patient's; nothing was made of it."""


def goes_on(chart: Chart, charts: Charts, event: Event, applied: Applied) -> tuple[Chart, Event]:
    """The chart, and a class change (A06, A07) as it is to be applied: one stay goes on, whatever its number was.

    The stay is found by its former number (MRG-5) or account (MRG-3), else by the account or the admission that it
    keeps (HL7 v2.9.1 chapter 3, sections 3.3.6 and 3.3.7). It keeps its key, so that destinations know it; where both
    numbers have a stay here, because messages came turned round, the two become one.
    """
    chart.need_whole()
    named = _named_now(chart, event)
    if len(named) > 1:
        return chart, read_as_renamed(chart, event)
    former, before = _former(chart, charts, event, applied, named[0] if named else None)
    stay = named[0] if named else before
    if stay is None:
        return _noted(chart, event, former), event
    if before is not None and before.key != stay.key:
        chart = _as_one(chart, before, stay)
        applied.effects.append(Effect(kind="encounter-merged", subject=stay.key))
        stay = chart.encounter(stay.key) or stay
    elif before is not None:
        former = former or _own_number(before, event)
    chart = _noted(chart, event, former)
    stamps = chart.encounter_stamps.get(stay.key, {})
    if event.at < stamps.get(NUMBERED, event.at):  # it has had another number since
        if event.visit is not None and stay.visit_number is not None:
            own = (number_key(stay), stay.visit_number, stay.visit_authority, stamps[NUMBERED])
            chart = noted(chart, visits={event.visit: own})
        return chart, about(event, stay)
    said = _said_number(event)
    number = number_now(chart, said) if said is not None else None
    account = account_now(chart, event.account or stay.account)
    now = msgspec.structs.replace(stay, account=account)
    if number is not None:
        now = msgspec.structs.replace(now, visit_number=number.number, visit_authority=number.authority)
    if (now.visit_number, now.account) != (stay.visit_number, stay.account):
        applied.effects.append(Effect(kind="encounter-renumbered", subject=stay.key))
    known = {**chart.encounter_stamps, stay.key: {**stamps, NUMBERED: event.at}}
    return msgspec.structs.replace(_with(chart, {stay.key: now}), encounter_stamps=known), about(event, now)


def _said_number(event: Event) -> VisitNumber | None:
    if event.visit is None or event.visit_number is None:
        return None
    return VisitNumber(key=event.visit, number=event.visit_number, authority=event.visit_authority)


def _named_now(chart: Chart, event: Event) -> list[Encounter]:
    """The stays that have the number, or the account, that the message names."""
    number = _said_number(event)
    if number is not None:
        return numbered(chart, number)
    account = account_now(chart, event.account)
    return [stay for stay in chart.encounters if account is not None and stay.account == account and _lives(stay)]


def _former(
    chart: Chart, charts: Charts, event: Event, applied: Applied, found: Encounter | None
) -> tuple[VisitNumber | None, Encounter | None]:
    """The number that the stay had until now, and that stay, where it can be told.

    found: the stay of the number that the message names. Then another one is the same only where MRG-5 says so, or
    where MRG-3 does and nothing was known of that number before.
    """
    former = event.former_visit
    if former is not None:
        owner = charts.living(charts.visits.get(former.key))
        if owner is not None and owner.id != chart.id and chart.encounter(former.key) is None:
            applied.deviate(FORMER_NOT_OURS)
            return None, None
        known = numbered(chart, former)
        if len(known) == 1:
            return former, known[0]
    if found is not None and not _was_said_since(chart, found, event.at):
        return former, None  # an account may have several stays: another one goes on
    accounts = (event.former_account,) if found is not None else (event.former_account, event.account)
    for account in accounts:
        of_account = [s for s in chart.encounters if account is not None and s.account == account and _goes_on(s)]
        if len(of_account) == 1:
            return former, of_account[0]
    return former, None if found is not None else admitted_then(chart, chart.encounters, event)


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


def noted_class_change(chart: Chart, event: Event) -> Chart:
    """The chart of a patient whose stay is another's now, with what a late class change says of its numbers."""
    return _noted(chart, event, event.former_visit) if event.meaning in CLASS_CHANGE else chart


def _noted(chart: Chart, event: Event, former: VisitNumber | None) -> Chart:
    """With what the former number and account have become."""
    visits: dict[str, Number] = {}
    if former is not None and event.visit is not None and event.visit_number is not None and former.key != event.visit:
        visits = {former.key: (event.visit, event.visit_number, event.visit_authority, event.at)}
    accounts: dict[str, Account] = {}
    if event.former_account is not None and event.account is not None and event.former_account != event.account:
        accounts = {event.former_account: (event.account, event.at)}
    return noted(chart, accounts=accounts, visits=visits) if visits or accounts else chart
