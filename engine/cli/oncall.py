"""`handoff oncall`: who is on call, who stands in, and whether somebody always is."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from engine.cli.common import (
    NO,
    Cli,
    Said,
    clock_time,
    config_option,
    counted,
    json_option,
    list_options,
    named_time,
    time_column,
)
from engine.cli.desk import open_desk
from engine.cli.tables import Column, table
from engine.cli.times import TIMES, When
from engine.errors import WhichError

if TYPE_CHECKING:
    from engine.care.oncall import Called, Fault, OnCall
    from engine.desk.desk import Desk
    from engine.domain.oncall import Override


@click.group("oncall")
@config_option
def oncall() -> None:
    """Who is on call: rosters, people who stand in, and gaps."""


@oncall.command("who", epilog=TIMES)
@click.argument("roster")
@click.option("--at", type=When(ahead=True), help="At this time.  [default: now]")
@json_option
@config_option
@click.pass_obj
def who(cli: Cli, roster: str, at: datetime | None) -> None:
    """Show who is on call on a roster, the first in line first. ROSTER may be a ladder, too."""
    with open_desk(cli) as desk:
        moment = at or desk.now
        on_call = _on_call(desk, moment)
        roster = _roster(on_call, roster)
    level: list[dict[str, Any]] = []
    for role in on_call.rosters.roles[roster]:
        called = on_call.who(roster, role, moment)
        level += [_one(on_call, role, person, called) for person in called.people or (None,)]
    rows = [
        (one["role"], one["person"] or "NOBODY", one["name"], clock_time(one["until"]), _remark(one)) for one in level
    ]
    columns = ("role", Column("person", alarm={"NOBODY"}), Column("name", least=10, drop=1), time_column("until"), "")
    shape = {"roster": roster, "at": moment.isoformat(), "level": level}
    cli.print(shape, f"On call on {roster}, {named_time(moment)}:\n{table(columns, rows)}")


def _one(on_call: OnCall, role: str, person: str | None, called: Called) -> dict[str, Any]:
    return {
        "person": person,
        "until": called.until.isoformat() if called.until is not None else None,
        "role": role,
        "name": on_call.name(person) if person is not None else None,
        "stands_in": called.stands_in,
        "reachable": person is not None and bool(on_call.contacts(person)),
    }


def _remark(one: dict[str, Any]) -> str:
    if one["person"] is None:
        return ""
    return ", ".join([*(["stands in"] * one["stands_in"]), *(["can't be reached"] * (not one["reachable"]))])


@oncall.command("check")
@click.option("--days", type=click.IntRange(1, 366), default=14, show_default=True, help="So many days from now.")
@json_option
@config_option
@click.pass_obj
def check(cli: Cli, days: int) -> int:
    """Find gaps, overlaps and people who can't be reached in the days to come. Exit code 1 when nobody would be called.

    An overlap is shown and is no fault: all who are on call are called.
    """
    from engine.care.oncall import FAILING

    with open_desk(cli) as desk:
        begin = desk.now
        on_call = _on_call(desk, begin)
        roles = sum(map(len, on_call.rosters.roles.values()))
        found = list(on_call.faults(begin, begin + timedelta(days=days)))
    ok = all(fault.what not in FAILING for fault in found)
    shape = {
        "ok": ok,
        "from": begin.isoformat(),
        "until": (begin + timedelta(days=days)).isoformat(),
        "problems": [_fault(fault) for fault in found],
    }
    rows = [
        (fault.what, f"{fault.roster}/{fault.role}", clock_time(fault.begins), clock_time(fault.until),
         ", ".join(fault.people)) for fault in found
    ]  # fmt: skip
    columns = (Column("what", alarm=FAILING), "roster", time_column("from"), time_column("until"), "people")
    good = f"Good: somebody is on call, {counted(roles, 'role')}, {days} days."
    cli.print(shape, "\n".join(filter(None, [table(columns, rows), good if ok else ""])))
    return 0 if ok else NO


def _fault(fault: Fault) -> dict[str, Any]:
    return {
        "what": fault.what,
        "roster": fault.roster,
        "role": fault.role,
        "from": fault.begins.isoformat(),
        "until": fault.until.isoformat(),
        "people": list(fault.people),
    }


@oncall.command("override", epilog=TIMES)
@click.argument("roster")
@click.argument("who", type=Said())
@click.option("--role", metavar="ROLE", help="Role of the roster.  [default: its first]")
@click.option("--from", "begins", type=When(ahead=True), help="From this time.  [default: now]")
@click.option("--until", "ends", type=When(ahead=True), required=True, help="Until this time.")
@click.option("--reason", required=True, type=Said(), metavar="TEXT", help="Why; written to the audit.")
@json_option
@config_option
@click.pass_obj
def override(
    cli: Cli, roster: str, who: str, role: str | None, begins: datetime | None, ends: datetime, reason: str
) -> None:
    """Have somebody stand in on a roster for a while. Of two at one time the one made last counts."""
    from engine.desk.acting import perform
    from engine.domain.cause import OnCallOverridden

    with open_desk(cli) as desk:
        first = begins or desk.now
        if first >= ends:
            raise click.UsageError("--from must be before --until")
        if ends <= desk.now:
            raise click.UsageError("--until lies in the past: nobody can stand in there any more")
        on_call = _on_call(desk, first)
        roster = _roster(on_call, roster)
        found = on_call.role(roster, role)
        if found is None:
            raise _which("role", role or "", on_call.rosters.roles[roster])
        if who not in on_call.rosters.people:
            raise _which("person", who, on_call.rosters.people)
        act = OnCallOverridden(
            actor=str(desk.actor), chart_id=None, reason=reason, roster=roster, role=found[0], person=who, begins=first,
            ends=ends,
        )  # fmt: skip
        perform(desk, [act])
        made = [one for one in _overrides(desk, desk.now) if (one.roster, one.role) == (roster, found[0])]
        shape = _stands_in(made[-1], desk)
    cli.print(shape, f"{who} is on call on {roster}/{found[0]} from {named_time(first)} until {named_time(ends)}.")


@oncall.command("overrides")
@list_options
@config_option
@click.pass_obj
def overrides(cli: Cli) -> None:
    """List who stands in, now and later."""
    with open_desk(cli) as desk:
        found = _overrides(desk, desk.now)
        shapes = [_stands_in(one, desk) for one in found]
    rows = [
        (one.number, f"{one.roster}/{one.role}", one.person, clock_time(one.begins), clock_time(one.ends), one.made_by)
        for one in found
    ]
    columns = ("id", "roster", "person", time_column("from"), time_column("until"), "by")
    cli.print(shapes, table(columns, rows) or "Nobody stands in.")


def _stands_in(one: Override, desk: Desk) -> dict[str, Any]:
    return {
        "id": one.number,
        "roster": one.roster,
        "role": one.role,
        "person": one.person,
        "from": one.begins.isoformat(),
        "until": one.ends.isoformat(),
        "by": one.made_by,
        "at": one.made_at.isoformat(),
        "reason": desk.view(None, ()).text(one.reason),
    }


def _overrides(desk: Desk, since: datetime) -> tuple[Override, ...]:
    from engine.store import oncall as stored

    return desk.store.read_now(lambda conn: stored.overrides(conn, desk.keys, since))


def _on_call(desk: Desk, since: datetime) -> OnCall:
    """Rosters as the files say, with those who stand in at a time or later. Raises SettingsError."""
    from engine.pipeline.compiling import compile_rosters

    if desk.broken is not None:
        raise desk.broken
    return compile_rosters(desk.configuration).with_overrides(_overrides(desk, min(since, desk.now)))


def _roster(on_call: OnCall, name: str) -> str:
    """The roster of this name, or the one that the ladder of this name calls first. Raises WhichError."""
    roles, ladder = on_call.rosters.roles, on_call.rosters.ladders.get(name)
    if name not in roles and ladder is not None and ladder.roster in roles:
        return str(ladder.roster)
    if name not in roles:
        raise _which("roster", name, roles)
    return name


def _which(what: str, name: str, known: Any) -> WhichError:
    from engine.yamlfile import did_you_mean

    there = f"there are {', '.join(known)}" if known else "there is none: see mappings/oncall/"
    return WhichError(f"there is no {what} {name}{did_you_mean(name, known)}; {there}")
