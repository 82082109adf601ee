"""`handoff gaps`: patients who may have got no follow-up, each with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.common import (
    Cli,
    clock_time,
    complete_channel,
    config_option,
    limit_option,
    list_options,
    reveal_options,
    time_column,
)
from engine.cli.desk import open_desk, reveal_of
from engine.cli.tables import Column, table
from engine.cli.times import TIMES, When
from engine.desk import finding
from engine.desk.desk import Desk
from engine.desk.destinations import standings
from engine.domain.record import Phi
from engine.errors import SettingsError

if TYPE_CHECKING:
    from engine.domain.chart import Chart
    from engine.domain.encounter import Encounter
    from engine.domain.moment import Moment
    from engine.pipeline.channel import Planner
    from engine.store.holds import ListedHold
    from engine.store.journal import ListedEntry

KINDS: Final = ("dead", "refused", "held", "filtered", "pending", "undelivered", "withheld", "no-plan", "unseen")
_LOOK_MAX: Final = 20_000
"""Entries, or charts, looked at for one kind of gap."""
_PAGE_CHARTS: Final = 500
_UNDER_WAY: Final = timedelta(minutes=5)
"""What waits no longer than this for a destination that is up, and did not fail, is on its way."""
_LATE: Final = timedelta(days=3)
"""A discharge that is told so much later is still one of that time."""


class _Gap(Phi, frozen=True, kw_only=True):
    """A patient without follow-up, as far as is known.

    kind: of KINDS. patient_key: none: the message does not say whose it is. see: the command that shows more.
    """

    kind: str
    patient_key: str | None
    channel: str | None
    at: datetime
    reason: str
    see: str
    entry: int | None = None
    encounter: str | None = None
    chart_id: str | None = None


@click.command("gaps", epilog=TIMES)
@click.option("--since", type=When(), help="What came, or changed, since then.  [default: 1d]")
@click.option("--until", type=When(), help="...and before.")
@click.option("--channel", metavar="NAME", shell_complete=complete_channel, help="Of this channel.")
@click.option("--what", "kinds", type=click.Choice(KINDS), multiple=True, help="Only these; may be repeated.")
@limit_option
@reveal_options
@list_options
@config_option
@click.pass_obj
def gaps(
    cli: Cli,
    since: datetime | None,
    until: datetime | None,
    channel: str | None,
    kinds: tuple[str, ...],
    limit: int,
    reveal: bool,
    reason: str | None,
) -> None:
    """List the patients who may have got no follow-up, and why: after an outage, or as a morning's round.

    dead, refused: their message failed, and nobody has seen to it. held: it waits for a person. filtered: the channel's
    filter left it out. pending: it is not processed yet. undelivered: a destination has not got what is for them.
    withheld: a rule did not let something go out to them, or about them, and nobody has decided on it.
    no-plan: they were discharged, or another message says that they have left, and no task came of it. unseen: there
    are tasks, and a restriction hides the stay from all whom they are for. Test patients are not among them.
    """
    wish = reveal_of(reveal, reason)
    with open_desk(cli) as desk:
        finding.check_channel(desk, channel)
        begin = since or desk.now - timedelta(days=1)
        wanted = set(kinds or KINDS)
        found = sorted(
            (
                one
                for kind, look in _LOOKS.items()
                if wanted & set(kind)
                for one in look(desk, cli, begin, until)
                if one.kind in wanted and (channel is None or one.channel in {None, channel})
            ),
            key=lambda one: (KINDS.index(one.kind), one.at),
        )
        if len(found) > limit:
            total, found = len(found), found[:limit]
            cli.cut(limit, total, narrow="--what, --channel, --since")
        view = desk.view(wish, (f"entry:{one.entry}" for one in found if one.entry is not None))
        desk.shows(f"chart:{one.chart_id}" for one in found if one.chart_id is not None)
    shapes: list[dict[str, Any]] = [
        {
            "what": one.kind,
            "patient_key": view.key(one.patient_key),
            "encounter": view.key(one.encounter),
            "channel": one.channel,
            "entry": one.entry,
            "at": one.at,
            "reason": one.reason,
            "see": one.see,
        }
        for one in found
    ]
    rows = [(s["what"], s["patient_key"], s["channel"], clock_time(s["at"]), s["reason"], s["see"]) for s in shapes]
    columns = (
        Column("what", alarm={"dead", "no-plan"}), "patient", Column("channel", least=8, common=True),
        time_column("since", drop=1), Column("reason", least=16), Column("see", drop=2),
    )  # fmt: skip
    cli.print(shapes, table(columns, rows) or "No patient is known to be without follow-up.")


def _dead(desk: Desk, _cli: Cli, since: datetime, until: datetime | None) -> Iterator[_Gap]:
    """Dead letters that nobody has resolved."""
    with desk.store.reader() as conn:
        letters = desk.store.dead_letters.find(conn, resolved=False, limit=_LOOK_MAX)
        ids = [letter.entry for letter in letters if letter.entry is not None]
        entries = {one.id: one for one in desk.store.journal.listed(conn, ids)}
    for letter in letters:
        entry = entries.get(letter.entry or 0)
        if not _within(letter.died_at, since, until):
            continue
        if entry is not None and entry.test and letter.stage != "intake":  # a live feed may be marked wrongly
            continue
        yield _Gap(
            kind="refused" if letter.stage == "intake" else "undelivered" if letter.stage == "delivery" else "dead",
            patient_key=entry.patient_key if entry else None,
            channel=letter.channel,
            at=letter.died_at,
            reason=f"{letter.error}: {letter.detail}",
            see=f"handoff dead show {letter.id}",
            entry=letter.entry,
        )


def _held(desk: Desk, _cli: Cli, since: datetime, until: datetime | None) -> Iterator[_Gap]:
    with desk.store.reader() as conn:
        asked = desk.store.holds.find(conn, limit=_LOOK_MAX)
        tests = desk.store.charts.tests(conn, {one.chart_id for one in asked if one.chart_id is not None})
    for one in asked:
        if one.chart_id not in tests and _within(one.opened_at, since, until):
            yield _Gap(
                kind="held",
                patient_key=one.patient_key,
                channel=one.channel,
                at=one.opened_at,
                reason=f"{one.code}: " + (_WAITS if _waits(one, desk) else "") + one.detail,
                see=f"handoff held show m{one.id}",
                entry=one.entry,
            )


_WAITS: Final = "it waits for what it cancels; "


def _waits(one: ListedHold, desk: Desk) -> bool:
    return one.waits_until is not None and one.waits_until > desk.now


def _entries(desk: Desk, cli: Cli, since: datetime, until: datetime | None) -> Iterator[_Gap]:
    """What was left out, and what waits. A replay of a message stands for it."""
    from engine.domain.message import EntryState

    seen: set[tuple[str, str | None]] = set()
    in_shadow = desk.outline.in_shadow
    for state, kind in ((EntryState.RECEIVED, "pending"), (EntryState.FILTERED, "filtered")):
        with desk.store.reader() as conn:
            found = desk.store.journal.find(conn, state=state, since=since, until=until, limit=_LOOK_MAX)
            replayed = desk.store.journal.replayed(conn, [entry.id for entry in found]) if kind == "filtered" else set()
        if len(found) == _LOOK_MAX:
            cli.say(f"Only the latest {_LOOK_MAX:,} {kind} entries were looked at.")
        for entry in found:
            # nobody is to be followed up because of those
            if entry.id in replayed or entry.channel in in_shadow or entry.test:
                continue
            key = kind, entry.patient_key
            if entry.patient_key is not None and key in seen:
                continue  # one line a patient
            seen.add(key)
            yield _Gap(
                kind=kind,
                patient_key=entry.patient_key,
                channel=entry.channel,
                at=entry.received_at,
                reason=entry.reason or "it is not processed yet",
                see=f"handoff messages show {entry.id}",
                entry=entry.id,
            )


def _undelivered(desk: Desk, cli: Cli, since: datetime, until: datetime | None) -> Iterator[_Gap]:
    """Of whom a destination has not heard: for some minutes; at once where it takes nothing, or an attempt failed.

    What a rule puts off for some hours, and what waits behind that, is in time.
    """
    from engine.store import admissions

    state, late = {one.name: one.state for one in standings(desk)}, desk.now - _UNDER_WAY
    with desk.store.reader() as conn:
        put_off = {(one.ordering_key, one.destination) for one in admissions.put_off(conn, desk.now)}
        found = desk.store.outbox.lines(conn, desk.now, _LOOK_MAX)
        waiting = [one for one in found if (one.ordering_key, one.destination) not in put_off]
        lines = [one for one in waiting if state[one.destination] != "up" or one.error or one.oldest_at < late]
        charts = {chart.id: chart for chart in desk.store.charts.whole(conn, sorted({one.chart_id for one in lines}))}
    if len(found) == _LOOK_MAX:
        cli.say(f"Only the {_LOOK_MAX:,} patients who have waited longest for a destination were looked at.")
    for one in lines:
        chart = charts.get(one.chart_id)
        if (chart is None or not chart.test) and _within(one.oldest_at, since, until):
            why = "" if state[one.destination] == "up" else f", which is {state[one.destination]}"
            why += f" ({one.error})" if one.error else ""
            yield _Gap(
                kind="undelivered",
                patient_key=chart.patient.key if chart is not None else None,
                channel=one.channel,
                at=one.oldest_at,
                reason=f"{one.number} deliveries wait for {one.destination}{why}",
                see=f"handoff destinations show {one.destination}",
                chart_id=one.chart_id,
            )


def _withheld(desk: Desk, _cli: Cli, since: datetime, until: datetime | None) -> Iterator[_Gap]:
    """What rules did not let go, and nobody has decided on."""
    from engine.connectors.remedies import remedy
    from engine.store import admissions

    with desk.store.reader() as conn:
        found = admissions.find(conn, since=since, until=until, limit=_LOOK_MAX)
        deliveries = {one.delivery_id: desk.store.outbox.get(conn, one.delivery_id) for one in found}
        lines = sorted({one.delivery.chart_id for one in deliveries.values() if one is not None})
        patients = desk.store.charts.patient_keys(conn, lines)
        entries = [one.entry_id for one in deliveries.values() if one is not None and one.entry_id is not None]
        channels = {entry.id: entry.channel for entry in desk.store.journal.listed(conn, entries)}
    for one in found:
        queued = deliveries[one.delivery_id]
        if queued is None:
            continue
        text = remedy(one.code)
        yield _Gap(
            kind="withheld",
            patient_key=patients.get(queued.delivery.chart_id),
            channel=channels.get(queued.entry_id or 0),
            at=one.at,
            reason=f"{queued.delivery.operation.what} to {one.destination}, {one.code}" + (f": {text}" if text else ""),
            see=f"handoff held show {one.delivery_id}",
            entry=queued.entry_id,
        )


def _without_plan(desk: Desk, cli: Cli, since: datetime, until: datetime | None) -> Iterator[_Gap]:
    """Discharged since then, or heard of since then, and no task is there for the stay.

    Or its tasks wait for another stay of the same admission.

    A message that tells of an end without being a discharge counts as well, until the discharge comes.
    """
    from engine.domain.encounter import TOLD_END
    from engine.domain.task import SIDE_BY_SIDE

    planners: list[Planner] | None = None
    for chart in _changed(desk, cli, since, until):
        planned = {task.encounter for task in chart.tasks if task.end_reason != SIDE_BY_SIDE}
        for encounter in chart.encounters:
            left = _left(encounter.discharged_at)
            told = chart.encounter_stamps.get(encounter.key, {}).get(TOLD_END)
            if told is not None:
                left = datetime.fromtimestamp(told[0], UTC)
            elif encounter.status != "finished" or encounter.key in planned:
                continue
            planners = _planners(desk, cli) if planners is None else planners
            if not planners or not all(
                one.protocol.plans_nothing_for(encounter.class_) or one.protocol.is_too_young(chart.patient, encounter)
                for one in planners
            ):
                entry, reason = _outcome_of(desk, chart, encounter)
                # One that is heard of late is new, however long ago it was.
                if _within(left, since - _LATE, until) or (
                    reason and entry and _within(entry.received_at, since, until)
                ):
                    yield _no_plan(desk, chart, encounter, left, entry, reason)


def _changed(desk: Desk, cli: Cli, since: datetime, until: datetime | None) -> Iterator[Chart]:
    with desk.store.reader() as conn:
        ids = desk.store.charts.changed(conn, since, until, _LOOK_MAX)
    if len(ids) == _LOOK_MAX:
        cli.say(f"Only the latest {_LOOK_MAX:,} charts that changed were looked at.")
    for at in range(0, len(ids), _PAGE_CHARTS):
        with desk.store.reader() as conn:
            charts = desk.store.charts.whole(conn, ids[at : at + _PAGE_CHARTS])
        yield from (chart for chart in charts if not chart.test)


def _planners(desk: Desk, cli: Cli) -> list[Planner]:
    try:
        return [channel.planner for channel in desk.compiled().channels.values() if channel.planner]
    except SettingsError:
        cli.say("The configuration has problems, so discharges for which no protocol has a plan are listed too.")
        return []


def _outcome_of(desk: Desk, chart: Chart, encounter: Encounter) -> tuple[ListedEntry | None, str]:
    """The message whose outcome says why a stay has no plan, and what it says; else the latest about it."""
    from engine.domain.message import EntryKind

    latest = None
    with desk.store.reader() as conn:
        entries = desk.store.journal.find(conn, kind=EntryKind.MESSAGE, patient=chart.patient.key, limit=20)
        outcomes = desk.store.recorder.outcomes(conn, [one.id for one in entries])
    for one in entries:
        outcome = outcomes.get(one.id)
        if outcome is None or outcome.encounter_key != encounter.key:
            continue
        latest = latest or one
        withheld = [effect for effect in outcome.effects if effect.kind == "plan-withheld"]
        if withheld:
            return one, withheld[0].detail
    return latest, ""


def _no_plan(
    desk: Desk, chart: Chart, encounter: Encounter, left: datetime, about: ListedEntry | None, reason: str
) -> _Gap:
    entry, channel = (about.id, about.channel) if about is not None else (None, None)
    settings = desk.configuration.channels.get(channel or "")
    if not reason:
        if settings is not None and settings.protocol is None:
            reason = f"channel {channel} has no protocol"
        else:
            kind = encounter.class_ or "none"
            reason = f"no step of the protocol is for class {kind}, disposition {encounter.disposition or 'none'}"
    waits = [task for task in chart.tasks if task.encounter == encounter.key and task.suspended_by is not None]
    if waits:
        reason = f"its tasks are {waits[0].end_reason}"
    if encounter.status != "finished" or encounter.discharges == 0:
        reason = "a message (A01, A02, A04, A08) says that the stay has ended, and no discharge (A03) has come"
    if chart.patient.deceased:
        reason = "the patient is recorded as deceased"
    return _Gap(
        kind="no-plan", patient_key=chart.patient.key, channel=channel, at=left, reason=reason, entry=entry,
        encounter=encounter.key, chart_id=chart.id,
        see=f"handoff messages show {entry}" if entry else "handoff patients show KEY",
    )  # fmt: skip


def _unseen(desk: Desk, cli: Cli, since: datetime, until: datetime | None) -> Iterator[_Gap]:
    """Tasks of patients who changed since then, which those they are for do not see."""
    from engine.access.unseen import unseen

    if desk.gate is None:
        return
    with desk.store.reader() as conn:
        actors = [one.actor() for one in desk.store.users.every(conn) if one.active and one.kind == "person"]
    for chart in _changed(desk, cli, since, until):
        for one in unseen(chart, actors, desk.gate.policy, desk.now):
            first, more = one.tasks[0], len(one.tasks) - 1
            tasks = f"{first.kind} and {more} more" if more else first.kind
            yield _Gap(
                kind="unseen", patient_key=chart.patient.key, channel=None, at=first.created_at,
                encounter=first.encounter, chart_id=chart.id, see=f"handoff tasks show {first.id}",
                reason=f"{tasks} of {one.whose}: no account of theirs sees the stay ({one.rule} of the roles); assign"
                " it to somebody who does, or let them see it there",
            )  # fmt: skip


_LOOKS: Final = {
    ("dead", "refused", "undelivered"): _dead,
    ("held",): _held,
    ("filtered", "pending"): _entries,
    ("undelivered", ""): _undelivered,
    ("withheld",): _withheld,
    ("no-plan",): _without_plan,
    ("unseen",): _unseen,
}


def _within(at: datetime | None, since: datetime, until: datetime | None) -> bool:
    return at is not None and at >= since and (until is None or at < until)


def _left(discharged: Moment | None) -> datetime:
    """The beginning of what a chart knows of a discharge; nothing: the far future, rather one line too many."""
    if discharged is None or discharged.is_placeholder:
        return datetime.max.replace(tzinfo=UTC)
    return datetime.fromtimestamp(discharged.seconds, UTC)
