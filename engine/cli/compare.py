"""`handoff compare`: recorded messages under today's configuration and a candidate's; nothing is written."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.common import (
    NO,
    Cli,
    complete_channel,
    config_option,
    counted,
    json_option,
    reveal_options,
)
from engine.cli.desk import open_desk, reveal_of
from engine.cli.paper import check_folder, write_page
from engine.cli.times import TIMES, Span, When
from engine.desk.finding import check_name
from engine.errors import StoreMissingError

if TYPE_CHECKING:
    from engine.desk.seeing import View
    from engine.pipeline.channel import CompiledChannel
    from engine.trial.compare import Cause, Findings, Plan

_SINCE: Final = timedelta(days=7)
_WARM_UP: Final = timedelta(days=30)
_MESSAGES: Final = 100_000
_MESSAGES_MAX: Final = 1_000_000
_EXAMPLES: Final = 3
"""Of each cause, where people read it."""
_PROGRESS_SECONDS: Final = 5.0


@click.command("compare", epilog=TIMES)
@click.argument("channel", metavar="CHANNEL", shell_complete=complete_channel)
@click.option(
    "--candidate",
    required=True,
    metavar="FILE|DIR",
    type=click.Path(exists=True, path_type=Path),
    help="The channel's file as it is to be, or a folder with channels/ and mappings/.",
)
@click.option("--since", type=When(), help="Messages received at or after.  [default: 7d]")
@click.option("--until", type=When(), help="Messages received before.")
@click.option(
    "--limit",
    type=click.IntRange(1, _MESSAGES_MAX),
    metavar="N",
    default=_MESSAGES,
    show_default=True,
    help="At most so many, the newest.",
)
@click.option(
    "--warm-up", "warm_up", type=Span(), metavar="SPAN", help="How far back the charts begin.  [default: 30d]"
)
@click.option("--html", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Also write a page.")
@reveal_options
@json_option
@config_option
@click.pass_obj
def compare(
    cli: Cli,
    channel: str,
    candidate: Path,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    warm_up: timedelta | None,
    html: Path | None,
    reveal: bool,
    reason: str | None,
) -> int:
    """Show what a changed channel or mapping would have made of recorded messages; writes nothing.

    The channel's messages are processed twice, by today's configuration and by the candidate, and what differs is
    grouped by its cause. Both begin with the same charts, made of what was received of the same patients before. A
    file stands in the place of the channel's own; a folder may also hold mappings, tables, protocols. Replays and
    what people did are left out.

    Exit code 1 when anything differs, 78 when the candidate is wrong.
    """
    from engine.cli.compare_text import human
    from engine.desk.seeing import shows
    from engine.runtime.configurations import hasher
    from engine.store.opening import open_store
    from engine.trial.candidate import load_candidate
    from engine.trial.compare import Comparison, plan, processes_of, reads_identity_otherwise, rules_of
    from engine.trial.differences import telling

    wish = reveal_of(reveal, reason)
    check_folder(html)
    with open_desk(cli) as desk:
        today = desk.compiled()
        check_name("channel", channel, sorted(today.channels))
        changed = load_candidate(desk.configuration, channel, candidate, hasher(desk.keys))
        with contextlib.ExitStack() as opened:
            store = desk.store
            if today.channels[channel].settings.mode == "shadow":  # whose its messages are is known there alone
                with contextlib.suppress(StoreMissingError):
                    store = opened.enter_context(open_store(desk.configuration, "look", shadow=True))
            conn = opened.enter_context(store.reader())
            planned = plan(
                conn,
                channel,
                since=since or min(desk.now, until or desk.now) - _SINCE,
                until=until,
                limit=limit,
                warm_up=warm_up or _WARM_UP,
                whole=reads_identity_otherwise(today, changed, channel),
            )
            observed = desk.store.journal.first_received(conn)
        doubtful = telling(rules_of(today, channel), rules_of(changed, channel), shows)
        visible = _says_nothing if doubtful else shows
        comparison = Comparison.of(
            channel,
            today,
            changed,
            observed=observed,
            visible=visible,
            open=partial(open_store, desk.configuration, "tool"),
        )
    # The store is closed here: the processes that compare open it anew.
    findings = comparison.run(planned, processes=processes_of(planned), progress=_Progress(cli, planned.messages).told)
    causes = findings.sorted()
    with open_desk(cli) as desk:
        entries = dict.fromkeys(example[0] for cause in causes for example in cause.examples)
        view = desk.view(wish, (f"entry:{entry}" for entry in entries))
    document = {
        "channel": channel,
        "candidate": str(candidate),
        "since": planned.first_at,
        "until": planned.last_at,
        **_document(findings, causes, planned, view, visible),
    }
    _say(cli, document, planned, limit, today.channels[channel], changed.channels[channel])
    if doubtful:
        cli.say(
            f"The candidate reads {', '.join(doubtful)}, where a name or number may stand: no value is said in a cause"
            f"{'' if view.revealed else ', nor shown (see --reveal)'}."
        )
    cli.print(document, human(document))
    if html is not None:
        from engine.cli.compare_page import page

        write_page(html, page(document, datetime.now(UTC)))
    return 0 if findings.same == findings.compared else NO


class _Progress:
    """Says now and then how far a comparison is."""

    def __init__(self, cli: Cli, total: int) -> None:
        self._cli, self._total = cli, total
        self._said_at = time.monotonic()

    def told(self, done: int) -> None:
        now = time.monotonic()
        if now - self._said_at >= _PROGRESS_SECONDS:
            self._said_at = now
            self._cli.say(f"{done:,} of {self._total:,} messages compared")


def _say(
    cli: Cli, document: Mapping[str, Any], planned: Plan, limit: int, before: CompiledChannel, after: CompiledChannel
) -> None:
    """Remarks, so that a number is not taken for more than it is."""
    if not document["compared"]:
        cli.say("Nothing was compared: there is no message of this channel and time (see --since).")
    if planned.messages == limit:
        cli.say(f"The newest {limit:,} messages were compared; --limit N compares more.")
    if document["unreadable"]:
        cli.say(f"{counted(document['unreadable'], 'message')} can't be read any more, and were not compared.")
    modes = before.settings.mode, after.settings.mode
    if modes[0] != modes[1]:
        cli.say(f"The mode is {modes[1]}, before {modes[0]}: both were compared as if they were live.")


def _says_nothing(path: str, value: Any) -> bool:
    """In place of `shows`, when a value of any path may tell who somebody is."""
    return path == "state" or isinstance(value, bool)


def _document(
    findings: Findings, causes: Sequence[Cause], planned: Plan, view: View, visible: Callable[[str, Any], bool]
) -> dict[str, Any]:
    shown = {id(cause): [_difference(example, view, visible) for example in cause.examples] for cause in causes}
    differences = sorted(
        (one for examples in shown.values() for one in examples), key=lambda one: (one["entry"], one["path"])
    )
    return {
        "compared": findings.compared,
        "same": findings.same,
        "changed": findings.changed,
        "newly_filtered": findings.newly_filtered,
        "newly_failing": findings.newly_failing,
        "unreadable": findings.unreadable,
        "warm_up": planned.warm_up,
        "revealed": view.revealed,
        "groups": [
            {
                "kind": cause.kind.value,
                "cause": cause.text,
                "path": cause.path,
                "messages": cause.messages,
                "examples": _one_each(shown[id(cause)])[:_EXAMPLES],
            }
            for cause in causes
        ],
        "differences": differences,
        "differences_left_out": sum(
            cause.messages - len({example[0] for example in cause.examples}) for cause in causes
        ),
    }


def _one_each(differences: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first difference of each message."""
    found: dict[int, dict[str, Any]] = {}
    for one in differences:
        found.setdefault(one["entry"], one)
    return list(found.values())


def _difference(example: tuple[int, str, Any, Any], view: View, visible: Callable[[str, Any], bool]) -> dict[str, Any]:
    from engine.desk.seeing import hide

    entry, path, *values = example
    nothing = visible is _says_nothing and not view.revealed
    before, after = (hide(v) if nothing and not visible(path, v) else view.at(path, v) for v in values)
    return {"entry": entry, "path": path, "before": before, "after": after}
