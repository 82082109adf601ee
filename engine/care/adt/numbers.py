"""What the numbers of stays have become, and whose a stay is now: what messages say with numbers that were.

Both are histories that come in any order, and more than once. Numbers that became each other are numbers of one stay,
or of one account, and the one that it has now is the one that was said last. A stay is the patient's to whom it was
moved last; it keeps from whom it came, and when, over all its patients.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from engine.care.adt.event import Event, VisitNumber
from engine.care.adt.says import OPENING
from engine.care.fields import NEVER
from engine.domain.chart import NOTHING_RENAMED, Account, Chart, Charts, Gone, Number, Renamed, Stamp
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.moment import Moment
from engine.errors import DATA_TYPE, ChartNotWholeError, MessageError

RENAMED_MAX: Final = 500
"""Numbers of one patient that have become others; more are a fault of the sender."""

NUMBERED: Final = "visit_number"
"""Stamp of a stay whose number is no longer its first one: when it was said."""


MERGED: Final = "merged"
"""Stamp of a stay that another one was merged into: when it was."""


def began_before(one: Moment | None, other: Moment | None) -> bool:
    """Whether the first of two admissions is surely the earlier one; or the only one that is known."""
    return one is not None and (other is None or one.is_before(other))


def with_admission(stay: Encounter, at: Moment | None, source: str | None) -> Encounter:
    """The stay with another admission. source: the HL7 field that it comes from; none: it is not known."""
    sources = {name: field for name, field in stay.time_sources.items() if name != "admitted_at"}
    if source is not None:
        sources["admitted_at"] = source
    return msgspec.structs.replace(stay, admitted_at=at, time_sources=sources)


def noted(
    chart: Chart, *, visits: Mapping[str, Number] | None = None, accounts: Mapping[str, Account] | None = None
) -> Chart:
    """The chart, with what some numbers have become. Raises MessageError when these are too many."""
    was = chart.renamed
    known, of_accounts = was.visits, was.accounts
    for key, number in (visits or {}).items():
        known = _one(known, key, number)
    for account, now in (accounts or {}).items():
        of_accounts = _one(of_accounts, account, now)
    return with_renamed(chart, visits=known, accounts=of_accounts)


_N = TypeVar("_N", Number, Account)


def _one(known: Mapping[str, _N], old: str, new: _N) -> dict[str, _N]:
    """Two numbers are of one stay, with all that each of them was before: what was said last is what it has now.

    So it does not matter in which order such news comes, nor how often.
    """
    last = new
    names: set[str] = set()
    for before in (known.get(old), known.get(new[0])):
        if before is not None:
            names.add(before[0])
            last = last if last[-1] >= before[-1] else before
    every = [old, new[0], *[key for key, one in known.items() if one[0] in names]]
    return {**known, **dict.fromkeys(every, last)}


def with_renamed(chart: Chart, **changes: Any) -> Chart:
    """The chart with other fields of `Renamed`. Raises MessageError when they hold too much."""
    now = msgspec.structs.replace(chart.renamed, **changes)
    if now == chart.renamed:
        return chart
    if max(len(getattr(now, name)) for name in Renamed.__struct_fields__) > RENAMED_MAX:
        raise MessageError(
            "renumbered-too-often",
            f"more than {RENAMED_MAX} numbers of the patient would have become others: something is wrong with them",
            hl7_code=DATA_TYPE,
            location="MRG",
        )
    return msgspec.structs.replace(chart, renamed=now)


def fold_renamed(survivor: Chart, merged: Chart) -> Renamed:
    """What is known of both charts of a merge; a stay that one had lost to the other is at home again."""
    ours, theirs = survivor.renamed, merged.renamed
    if theirs == NOTHING_RENAMED and not (ours.departed or ours.accounts_gone):
        return ours
    both = noted(survivor, visits=theirs.visits, accounts=theirs.accounts).renamed
    home = {stay.key for chart in (survivor, merged) for stay in chart.encounters}
    departed = {key: gone for key, gone in (theirs.departed | ours.departed).items() if key not in home}
    gone = theirs.accounts_gone | ours.accounts_gone
    return msgspec.structs.replace(
        both,
        departed=departed,
        accounts_gone={
            account: one for account, one in gone.items() if _is_gone(one, departed, {survivor.id, merged.id})
        },
        came={key: _both((*theirs.came.get(key, ()), *ours.came.get(key, ()))) for key in (theirs.came | ours.came)},
    )


def _is_gone(one: Gone, departed: Mapping[str, Gone], ids: set[str]) -> bool:
    return one.chart_id not in ids and (one.stay is None or one.stay in departed)


def _both(came: Iterable[tuple[str, Stamp]]) -> tuple[tuple[str, Stamp], ...]:
    """From each patient the last time."""
    last: dict[str, Stamp] = {}
    for patient, at in came:
        last[patient] = max(at, last.get(patient, NEVER))
    return tuple(sorted(last.items(), key=lambda one: one[1]))


# --- numbers


def number_now(chart: Chart, number: VisitNumber) -> VisitNumber:
    """What a visit number is now."""
    known = chart.renamed.visits.get(number.key)
    return number if known is None else VisitNumber(key=known[0], number=known[1], authority=known[2])


def account_now(chart: Chart, account: str | None) -> str | None:
    known = chart.renamed.accounts.get(account) if account is not None else None
    return account if known is None else known[0]


def accounts_of(chart: Chart, account: str | None) -> set[str]:
    """All that an account was called, and is."""
    now = account_now(chart, account)
    return {key for key, one in chart.renamed.accounts.items() if one[0] == now} | ({account} if account else set())


def numbers_of(chart: Chart, key: str) -> set[str]:
    """The keys of all that a visit number was, and is."""
    known = chart.renamed.visits.get(key)
    if known is None:
        return {key}
    return {other for other, one in chart.renamed.visits.items() if one[0] == known[0]}


def numbered(chart: Chart, number: VisitNumber) -> list[Encounter]:
    """The stays of a chart that have a visit number; where the authority is not said, of whichever."""
    now = number_now(chart, number)
    found = [
        stay
        for stay in chart.encounters
        if stay.visit_number == now.number
        and stay.merged_into is None
        and (now.authority is None or stay.visit_authority in {None, now.authority})
    ]
    same = [stay for stay in found if stay.key == now.key]
    return same or found


def read_as_renamed(chart: Chart, event: Event) -> Event:
    """The event with the numbers that those it names have become since, or before it came."""
    renamed = chart.renamed
    if not renamed.accounts and not renamed.visits:
        return event
    changes: dict[str, Any] = {}
    account = account_now(chart, event.account)
    if account != event.account:
        changes["account"] = account
    now = renamed.visits.get(event.visit) if event.visit is not None else None
    if now is not None and now[0] != event.visit:
        changes |= {"visit": now[0], "visit_number": now[1], "visit_authority": now[2]}
    return msgspec.structs.replace(event, **changes) if changes else event


def about(event: Event, stay: Encounter) -> Event:
    """The event as one that names the stay as it is called now."""
    return msgspec.structs.replace(
        event,
        visit=stay.key,
        visit_number=stay.visit_number,
        visit_authority=stay.visit_authority,
        account=stay.account,
    )


# --- stays of other patients


def carried(
    source: Chart, target: Chart, stays: Sequence[Encounter], at: Stamp, *, whole: str | None
) -> tuple[Chart, Chart]:
    """Both charts with what they are to remember of stays that have gone from one to the other.

    whole: the account that is the other patient's now; none: stays alone are.
    """
    for stay in stays:
        source, target = heard_there(source, target, stay.key, at)
    known = source.renamed.accounts
    of_stays = {one for stay in stays for one in accounts_of(source, stay.account) if one in known}
    target = noted(target, accounts={one: known[one] for one in sorted(of_stays)})
    return _without_accounts(source, target, stays, at, whole), target


def heard_there(source: Chart, target: Chart, key: str, at: Stamp) -> tuple[Chart, Chart]:
    """The same of a stay that is the other patient's already, as it was heard of there first."""
    own = _own_number(target, key)
    target = noted(arrived(target, key, source, at), visits=own)
    source = noted(source, visits=_names(target, key))
    renamed = source.renamed
    gone = Gone(to=target.patient.key, chart_id=target.id, at=at, stay=key)
    came = {one: said for one, said in renamed.came.items() if one != key}
    return with_renamed(source, departed={**renamed.departed, key: gone}, came=came), target


def _names(chart: Chart, key: str) -> dict[str, Number]:
    """The numbers that a stay had, where it had several."""
    known = chart.renamed.visits
    return {name: known[name] for name in sorted(numbers_of(chart, key)) if name in known}


def _own_number(chart: Chart, key: str) -> dict[str, Number]:
    """The number of a stay as one of those that it is called by, beside its key."""
    stay = chart.encounter(key)
    if stay is None or stay.visit_number is None:
        return {}
    known = chart.renamed.visits.get(key)
    if known is not None and known[1] == stay.visit_number:
        return {}
    said = chart.encounter_stamps.get(key, {}).get(NUMBERED, NEVER)
    return {key: (number_key(stay), stay.visit_number, stay.visit_authority, said)}


def number_key(stay: Encounter) -> str:
    """The key of a stay's visit number; where nobody has said whose number it is, the authority is that of its key."""
    return f"{stay.visit_authority or stay.key.partition(':')[0]}:{stay.visit_number}"


def _without_accounts(source: Chart, target: Chart, stays: Sequence[Encounter], at: Stamp, whole: str | None) -> Chart:
    left = {account_now(source, stay.account) for stay in source.encounters if stay.account is not None}
    lost: dict[str, Gone] = {}
    for account in {stay.account for stay in stays if stay.account is not None} | ({whole} if whole else set()):
        went = [stay.key for stay in stays if account_now(source, stay.account) == account_now(source, account)]
        if account_now(source, account) in left:
            continue
        one = Gone(
            to=target.patient.key,
            chart_id=target.id,
            at=at,
            stay=went[0] if len(went) == 1 else None,
            whole=whole is not None,
        )
        lost |= dict.fromkeys(accounts_of(source, account), one)
    return with_renamed(source, accounts_gone={**source.renamed.accounts_gone, **lost}) if lost else source


def arrived(chart: Chart, key: str, source: Chart | str, at: Stamp) -> Chart:
    """The chart to which a stay has come. source: from whose it came, or the key of that patient."""
    before: tuple[tuple[str, Stamp], ...] = ()
    if isinstance(source, Chart):
        renamed, whose = source.renamed, source.patient.key
        before = renamed.came.get(key, ())
        chart = noted(chart, visits=_names(source, key))
    else:
        whose = source
    renamed = chart.renamed
    return with_renamed(
        chart,
        departed={one: gone for one, gone in renamed.departed.items() if one != key},
        accounts_gone={account: gone for account, gone in renamed.accounts_gone.items() if gone.stay != key},
        came={**renamed.came, key: _both((*renamed.came.get(key, ()), *before, (whose, at)))},
    )


def moved_last(chart: Chart, key: str) -> Stamp:
    """When a stay was moved last, of those that were."""
    return max((at for _, at in chart.renamed.came.get(key, ())), default=NEVER)


def left_from(chart: Chart, key: str, whose: Chart) -> Stamp | None:
    """When a stay of this chart was moved away from another patient last; none: it never was theirs."""
    own = {one.key for one in whose.patient.identifiers}
    return max((at for patient, at in chart.renamed.came.get(key, ()) if patient in own), default=None)


def gone(chart: Chart, event: Event) -> Gone | None:
    """Where the stay has gone that a message names, be it by a number that it had, or by its account alone."""
    renamed = chart.renamed
    if not renamed.departed and not renamed.accounts_gone:
        return None
    named = [one for one in (event.visit, event.former_visit and event.former_visit.key) if one]
    found = None
    for key in named:
        names = numbers_of(chart, key)
        found = found or next((renamed.departed[one] for one in sorted(names) if one in renamed.departed), None)
    if found is not None:
        return found
    accounts = accounts_of(chart, event.account)
    found = next((renamed.accounts_gone[one] for one in sorted(accounts) if one in renamed.accounts_gone), None)
    if found is None or (named and not found.whole):
        return None
    if chart.closed is not None and not accounts.isdisjoint(chart.closed.accounts):
        chart.need_whole()
    if any(_is_meant(stay, event, accounts) for stay in chart.encounters):
        return None
    return None if not found.whole and event.meaning in OPENING and event.at > found.at else found


def _is_meant(stay: Encounter, event: Event, accounts: Collection[str]) -> bool:
    """The patient has another stay that the message may be about."""
    if event.visit is not None:
        return stay.visit_number == event.visit_number or stay.key == event.visit
    return stay.account in accounts and stay.status is not EncounterStatus.CANCELLED


def home(chart: Chart, charts: Charts, one: Gone) -> Chart:
    """The chart that a stay of this one has come to, however often it was moved since.

    Raises ChartNotWholeError when a chart on the way was not loaded.
    """
    owner = charts.living(charts.visits.get(one.stay)) if one.stay is not None else None
    if owner is not None and owner.id != chart.id:
        return owner
    seen = {chart.id}
    while True:
        found = charts.living(one.chart_id)
        if found is None:
            raise ChartNotWholeError(one.chart_id)
        onward = found.renamed.departed.get(one.stay) if one.stay is not None else None
        if onward is None or found.id in seen:
            return found
        seen.add(found.id)
        one = onward
