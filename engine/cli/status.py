"""`handoff status` and `handoff reload`: the running daemon and how its work stands, on one screen."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from engine.cli.common import NO, UNAVAILABLE, Cli, config_option, json_option, listing_options, named_time
from engine.cli.tables import Column, alarm, table, terminal_columns
from engine.cli.times import length
from engine.clock import site_clock
from engine.errors import HandoffError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.domain.standing import Overview
    from engine.errors import SettingsError
    from engine.outline import Outline
    from engine.pipeline.trouble import Trouble
    from engine.runtime.skews import SenderSkew
    from engine.runtime.status import Status
    from engine.store import Store

_PROSE_COLUMNS: Final = 80
_EXPLAINED_MAX: Final = 2
"""With more troubles their sentences would push the tables off the screen."""


@click.command("status")
@listing_options
@config_option
@click.pass_obj
def status(cli: Cli) -> int:
    """Show how the daemon, its channels, destinations and work stand, and what is wrong.

    Ports are the ones that are open, also when the configuration says 0. Exit code 1 when something is wrong that a
    person has to see to (each with its code, since when, and what to do), 69 when no daemon runs.
    """
    from engine.domain.shapes import plain

    outline, found, broken = _daemon(cli)
    if broken is not None:
        cli.say(f"{broken}\nThe daemon goes on with the configuration that it loaded before.")
    shown = found or _stopped(outline)
    if broken is not None:
        from engine.pipeline.trouble import trouble

        shown = shown.with_troubles((*shown.troubles, trouble("configuration-broken")))
    names = _names(cli, shown)
    shape = plain(shown)
    for sender in shape["senders"]:
        sender["name"] = names.get(sender["entry"])
    cli.print(shape, human_status(shown, cli.clock.now(), names))
    if found is None:
        return UNAVAILABLE
    return NO if any(one.urgent for one in shown.troubles) else 0


@click.command("reload")
@click.option(
    "--allow-remove", is_flag=True, help="Also take away channels with connections, destinations with deliveries."
)
@json_option
@config_option
@click.pass_obj
def reload(cli: Cli, allow_remove: bool) -> int:
    """Have the daemon load its configuration again, all or nothing, and show what changed.

    The tests beside the files are run first, and open connections stay. Exit code 1 when the new configuration is
    refused (the old one stays in force), 69 when no daemon runs.
    """
    from msgspec import structs

    from engine.cli.desk import put_on_record
    from engine.cli.destinations import remarks
    from engine.domain.shapes import plain
    from engine.runtime.status import request_reload, running_status

    put_on_record(cli, "config-asked", "config:files", unless_lost=True)
    outline, running, _ = _daemon(cli)
    result = request_reload(outline, allow_remove=allow_remove) if running is not None else None
    if result is None:
        cli.fail("no daemon runs on this site", hint="`handoff run` starts one; it reads the configuration then.")
        return UNAVAILABLE
    if result.changes is None:
        status = running_status(outline)
        last = status.last_reload if status is not None else None
        result = structs.replace(result, changes=last.changes if last is not None else ())
    changed = [str(change) for change in result.changes or ()]
    said = remarks(cli.readable_configuration()[0]) if result.ok else []
    if result.ok:
        text = "\n".join([*changed, "Loaded." if changed else "Loaded; nothing has changed.", *said])
    else:
        text = "\n".join([*result.problems, "The old configuration stays in force."])
    cli.print(plain(result) | {"remarks": said}, text)
    return 0 if result.ok else NO


def _daemon(cli: Cli) -> tuple[Outline, Status | None, SettingsError | None]:
    """The site and its running daemon; what is wrong in the files, when they were broken since that has loaded them.

    Without a daemon broken files are raised.
    """
    from engine.runtime.status import running_status

    outline = cli.outline()
    found = running_status(outline) if outline is not None else None
    if outline is not None and found is not None and found.config_version == outline.snapshot.version:
        return outline, found, None
    if outline is not None and found is None and _in_store(outline):
        return outline, None, None
    known, broken = cli.readable_configuration(usual_place=True)
    found = found or running_status(known)
    if broken is not None and found is None:
        raise broken
    return known.outline, found, broken


def _in_store(outline: Outline) -> bool:
    """Whether a daemon has ever worked by these files."""
    from engine.store.opening import has_worked, open_store

    with contextlib.suppress(HandoffError), open_store(outline, "tool") as store:
        return has_worked(store, outline.snapshot.version)
    return False


def _names(cli: Cli, shown: Status) -> dict[int, str]:
    """What the senders with a wrong clock are called, as they may be shown, by the entry that the daemon knows them by.

    Looked up in the store, which the daemon's own answer does without; nothing, where that can't be opened.
    """
    from engine.cli.desk import open_desk

    entries = [one.entry for one in shown.senders if one.wrong]
    names: dict[int, str] = {}
    if entries:
        with contextlib.suppress(HandoffError), open_desk(cli) as site:
            with site.store.reader() as conn:
                found = site.store.journal.listed(conn, entries)
            view = site.view(None, ())
            for entry in found:
                name = view.sender(entry.sender, known=entry.state == "processed")
                names |= {entry.id: name} if name else {}
    return names


def _with_breaches(outline: Outline, store: Store, conn: Connection, work: Overview) -> Overview:
    """With what of breaches is due: no daemon says so now."""
    from msgspec import structs

    from engine.privacy.breach import load_breach
    from engine.runtime.oversight import due_breaches

    snapshot = outline.snapshot
    file = next((one for one in snapshot.files if one.endswith("/privacy/breach.yaml")), None)
    if file is None:
        return work
    rules = load_breach(snapshot.document(file))
    return structs.replace(work, breaches=due_breaches(store, conn, rules, work.at.date()))


def _stopped(outline: Outline) -> Status:
    """What is left to see when no daemon runs: what the files say, and what waits in the store."""
    from engine.domain.standing import Overview, fresh
    from engine.pipeline.trouble import of_work, trouble
    from engine.runtime.status import ChannelStatus, ConsoleStatus, Status, clock_status
    from engine.store.opening import open_store
    from engine.store.overview import overview

    clock = site_clock(outline.clock_file)
    now = clock.now()
    work = Overview(at=now, destinations=tuple(map(fresh, outline.destinations, outline.destinations.values())))
    with contextlib.suppress(HandoffError), open_store(outline, "tool") as store, store.reader() as conn:
        work = overview(store, conn, sorted(outline.channels), outline.destinations, now)
        if store.audit.count(conn, action="breach-opened"):
            work = _with_breaches(outline, store, conn, work)
    stopped = Status(
        node=outline.node,
        purpose="production" if outline.clock_file is None else "test",
        clock=clock_status(clock),
        state="stopped",
        pid=None,
        channels=tuple(
            ChannelStatus(name=one.name, mode=one.mode, host=one.host, port=one.port, connections=0)
            for one in outline.channels.values()
        ),
        console=ConsoleStatus(host=outline.console_host, port=outline.console_port),
    )
    return stopped.with_work(work).with_troubles((trouble("not-running"), *of_work(work, now)))


# --- for people ------------------------------------------------------------------------------------------------------


def human_status(shown: Status, now: datetime, names: Mapping[int, str] | None = None) -> str:
    """now: by the site's clock. names: of senders, by the entry that each is known by."""
    since = f" for {length((now - shown.started_at).total_seconds())}" if shown.started_at else ""
    ready = "" if shown.ready or shown.pid is None else alarm("  NOT READY")
    lines = [f"{shown.node}: {shown.state}" + (f"{since}, pid {shown.pid}" if shown.pid else "") + ready]
    if not shown.clock.real:
        lines.append(alarm(f"NOT THE REAL TIME: a test site, its clock is {_shift(shown)}; there it is {_moment(now)}"))
    explained = terminal_columns() is None or len(shown.troubles) <= _EXPLAINED_MAX
    for one in sorted(shown.troubles, key=lambda one: not one.urgent):
        lines += _trouble(one, now, explained=explained)
    if not explained:
        lines.append("(--wide says what each means and what to do)")
    if shown.last_reload is not None and not shown.last_reload.ok:
        lines += ["The last reload was refused, the configuration before it is in force:", *shown.last_reload.problems]
    lines += ["", _channels(shown, now)]
    if shown.destinations:
        lines += ["", _destinations(shown, now)]
    down = [one for one in shown.workers if not one.up]
    if down:
        rows = [(one.index, one.pid, "yes" if one.up else "NO", one.restarts) for one in shown.workers]
        lines += ["", table(("worker", "pid", Column("up", alarm={"NO"}), "restarts"), rows)]
    lines += ["", *_summary(shown, now)]
    for sender in shown.senders:
        lines += _clock(sender, (names or {}).get(sender.entry, f"sender {sender.sender}")) if sender.wrong else ()
    return "\n".join(lines)


def _trouble(one: Trouble, now: datetime, *, explained: bool) -> Iterator[str]:
    since = f" since {_moment(one.since)} ({length((now - one.since).total_seconds())})" if one.since else ""
    head = f"{one.code}{since}" + (f": {one.detail}" if one.detail else "")
    width = terminal_columns() or _PROSE_COLUMNS
    for line in textwrap.wrap(head, width, subsequent_indent="  ", break_on_hyphens=False):
        yield alarm(line) if one.urgent else alarm(line, "yellow")
    if explained:
        text = f"{one.meaning}. {one.remedy}"
        yield from textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    yield f"  see: {one.first}"


def _clock(one: SenderSkew, name: str) -> Iterator[str]:
    how = "ahead" if one.skew_seconds < 0 else "behind, or its messages wait on the way"
    text = f"the clock of {name} on {one.channel} is {length(abs(one.skew_seconds))} {how}"
    width = terminal_columns() or _PROSE_COLUMNS
    yield from textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)
    yield f"  see: handoff senders; handoff messages show {one.entry}"


def _shift(shown: Status) -> str:
    seconds = shown.clock.offset_seconds
    return f"{length(abs(seconds))} {'ahead' if seconds >= 0 else 'behind'}"


def _moment(at: datetime) -> str:
    """To the minute."""
    day, clock, zone = (named_time(at) or "").split(" ")
    return f"{day} {clock[:5]} {zone}"


def _channels(shown: Status, now: datetime) -> str:
    rows = [
        (one.name, one.mode, f"{one.host}:{one.port}", one.connections, _ago(one.last_message_at, now),
         one.per_minute, one.waiting, _ago(one.oldest_waiting_at, now)) for one in shown.channels
    ]  # fmt: skip
    columns = (
        Column("channel", least=8), Column("mode", alarm={"paused"}), "mllp", "connections", "last message",
        Column("a minute", drop=2), "waiting", Column("oldest", drop=1),
    )  # fmt: skip
    return table(columns, rows) or "No channels."


def _destinations(shown: Status, now: datetime) -> str:
    rows = [
        (one.name, "orphan" if one.orphan else one.state, _ago(one.since, now), one.error, one.pending,
         _ago(one.oldest_at, now), one.held, one.dead, _ahead(one.next_attempt_at, now)) for one in shown.destinations
    ]  # fmt: skip
    columns = (
        Column("destination", least=8), Column("state", alarm={"down", "orphan"}), Column("since", drop=2),
        Column("why", least=10), "waiting", Column("oldest", drop=1), "held", "dead", Column("next try", drop=3),
    )  # fmt: skip
    return table(columns, rows)


def _summary(shown: Status, now: datetime) -> Iterator[str]:
    deliveries = sum(one.pending for one in shown.destinations)
    messages = sum(shown.holds.values())
    held = f"{shown.held:,} held" + (f" ({messages:,} messages)" if messages else "")
    oldest = f" (oldest {length((now - shown.oldest_waiting_at).total_seconds())})" if shown.oldest_waiting_at else ""
    yield f"{shown.waiting:,} entries{oldest} and {deliveries:,} deliveries wait; {shown.dead:,} dead, {held}."
    if shown.quality:
        items = sum(shown.quality.values())
        yield f"{items:,} {'fault' if items == 1 else 'faults'} of the data that feeds send: handoff quality list"
    if shown.clock.due:
        late = length(shown.clock.late_seconds)
        yield f"{shown.clock.due:,} patients' deadlines have come and did not ring yet, the first {late} late."
    if calling := sum(number for state, number in shown.pages.items() if state != "exhausted"):
        yield f"{calling:,} {'page waits' if calling == 1 else 'pages wait'} for an acknowledgment: handoff pages list"
    if shown.withheld:
        yield f"{shown.withheld:,} deliveries are withheld by a rule: handoff held list --what withheld"
    if shown.pid is not None:
        up = sum(one.up for one in shown.workers)
        parts = [f"workers {up} of {len(shown.workers)} up"]
        if shown.disk_free_bytes is not None:
            parts.append(f"disk {shown.disk_free_bytes / (1 << 30):,.1f} GiB free")
        if shown.certificates:
            ends = min(one.expires_at for one in shown.certificates)
            parts.append(f"certificates good for {max(0, (ends - now).days)} days")
        yield ", ".join(parts)
        yield _restart(shown)
    if shown.console is not None:
        scheme = "https" if shown.console.tls else "http"
        yield f"console  {scheme}://{shown.console.host}:{shown.console.port}/readyz"
    if shown.hooks is not None:
        yield f"hooks    http://{shown.hooks.host}:{shown.hooks.port}/hooks/NAME/ack"


def _restart(shown: Status) -> str:
    """Nothing that was acknowledged is lost by a restart; but a configuration that can't be loaded keeps it down."""
    if any(one.code == "configuration-broken" for one in shown.troubles):
        return f"{alarm('Not safe to restart')}: the files on disk can't be loaded (`handoff check`)."
    under_way = f"{shown.unanswered_bytes:,} bytes are not answered yet" if shown.unanswered_bytes else "none under way"
    return f"Safe to restart: what was acknowledged is on disk; {under_way}."


def _ago(at: datetime | None, now: datetime) -> str | None:
    return None if at is None else length((now - at).total_seconds())


def _ahead(at: datetime | None, now: datetime) -> str | None:
    return None if at is None else f"in {length((at - now).total_seconds())}" if at > now else "now"
