"""`handoff senders`: who sends what, and how well."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
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
from engine.cli.times import TIMES, When, length
from engine.desk import finding
from engine.desk.desk import Desk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.desk.seeing import View
    from engine.store.journal import ListedEntry

_PIECE: Final = 1000
_LOOK_ENTRIES_MAX: Final = 200_000
_DEVIATIONS_SHOWN: Final = 5
_PEERS_SHOWN: Final = 3


@dataclass
class _Sender:
    """What came from one sender (MSH-3/MSH-4) on one channel."""

    channel: str
    sender: str | None
    states: Counter[str] = field(default_factory=Counter)
    deviations: Counter[str] = field(default_factory=Counter)
    received: int = 0
    deviating: int = 0
    duplicates: int = 0
    conflicts: int = 0
    without_effect: int = 0
    last_at: datetime | None = None
    peers: Counter[str] = field(default_factory=Counter)
    skew_seconds: float | None = None
    """How far its clock is behind ours, as the running daemon has measured it; negative: ahead."""
    example: int | None = None
    """The newest entry that was refused or died, else the newest that deviates."""

    def add(self, entry: ListedEntry) -> None:
        """Entries come newest first."""
        self.received += 1
        self.states[entry.state] += 1
        codes = {code.partition(":")[0] for code in entry.deviations}
        self.deviations.update(codes)
        self.deviating += bool(codes)
        self.duplicates += entry.repeats
        self.conflicts += entry.flagged_duplicate_of is not None
        self.without_effect += entry.without_effect
        if entry.peer:
            self.peers[entry.peer.partition(" ")[0].rpartition(":")[0]] += 1  # a port says nothing
        self.last_at = self.last_at or entry.received_at
        if self.example is None and entry.state in {"refused", "dead"}:
            self.example = entry.id

    @property
    def bad(self) -> int:
        return self.states["refused"] + self.states["dead"]


@click.command("senders", epilog=TIMES)
@click.option("--since", type=When(), help="Of what came since then.  [default: 1d]")
@click.option("--until", type=When(), help="Of what came before.")
@click.option("--channel", metavar="NAME", shell_complete=complete_channel, help="Of this channel.")
@limit_option
@reveal_options
@list_options
@config_option
@click.pass_obj
def senders(
    cli: Cli,
    since: datetime | None,
    until: datetime | None,
    channel: str | None,
    limit: int,
    reveal: bool,
    reason: str | None,
) -> None:
    """Show by channel and sender (MSH-3/MSH-4) what came, what of it was refused or died, and what deviates.

    Those with the largest share of refused and dead messages come first. Replays are not counted. A name that the
    channel does not list (`senders`), and of which nothing was processed, is hidden without --reveal: in a broken
    message a patient's name may stand there. `from` is who was connected.
    """
    from engine.domain.message import EntryKind

    wish = reveal_of(reveal, reason)
    known: dict[tuple[str, str | None], _Sender] = {}
    with open_desk(cli) as desk:
        finding.check_channel(desk, channel)
        conditions: dict[str, Any] = {
            "kind": EntryKind.MESSAGE,
            "channel": channel,
            "since": since or desk.now - timedelta(days=1),
            "until": until,
        }

        def cut(looked_at: int) -> None:
            cli.say(f"Only the latest {looked_at:,} entries were looked into; narrow it with --since and --until.")

        for page in finding.pages(desk, conditions, _PIECE, entries_max=_LOOK_ENTRIES_MAX, on_cut=cut):
            for entry in page:
                if entry.replay_of is None:
                    key = entry.channel, entry.sender
                    known.setdefault(key, _Sender(*key)).add(entry)
        _measure(desk, known)
        view = desk.view(wish, (f"channel:{name}" for name in sorted({one for one, _ in known})))
    ordered = sorted(known.values(), key=lambda one: (one.bad / one.received, one.deviating), reverse=True)
    if len(ordered) > limit:
        cli.cut(limit, len(ordered), narrow="--channel, --since, --until")
        ordered = ordered[:limit]
    shapes = [_shape(one, view) for one in ordered]
    rows = [
        (s["sender"], s["channel"], s["received"], s["refused"], s["dead"], s["deviating"],
         ", ".join(f"{code} {number}" for code, number in list(s["deviations"].items())[:_DEVIATIONS_SHOWN]) or None,
         s["duplicates"], s["conflicts"], ", ".join(s["peers"]) or None, _clock(one),
         clock_time(one.last_at), s["example"])
        for s, one in zip(shapes, ordered, strict=True)
    ]  # fmt: skip
    columns = (
        Column("sender", least=10), Column("channel", least=8, common=True), "received", "refused", "dead", "deviating",
        Column("deviations", least=12), Column("repeats", drop=3), Column("id conflicts", drop=2),
        Column("from", least=8, drop=4), Column("clock", drop=5),
        time_column("last"), Column("see entry", drop=1),
    )  # fmt: skip
    cli.print(shapes, table(columns, rows) or "Nothing came.")


def _measure(desk: Desk, known: Mapping[tuple[str, str | None], _Sender]) -> None:
    """What the running daemon has measured of their clocks; it knows a sender by a message of it."""
    from engine.runtime.status import running_status

    status = running_status(desk.outline)
    skews = {one.entry: one.skew_seconds for one in status.senders} if status is not None else {}
    if not skews:
        return
    with desk.store.reader() as conn:
        for entry in desk.store.journal.listed(conn, list(skews)):
            one = known.get((entry.channel, entry.sender))
            if one is not None:
                one.skew_seconds = skews[entry.id]


def _clock(one: _Sender) -> str | None:
    """`right`, or how far from ours."""
    if one.skew_seconds is None:
        return None
    from engine.runtime.skews import WRONG_SECONDS

    if abs(one.skew_seconds) <= WRONG_SECONDS:
        return "right"
    return f"{length(abs(one.skew_seconds))} {'ahead' if one.skew_seconds < 0 else 'behind'}"


def _shape(one: _Sender, view: View) -> dict[str, Any]:
    return {
        "channel": one.channel,
        "sender": view.sender(one.sender, known=one.states["processed"] > 0),
        "peers": [peer for peer, _ in one.peers.most_common(_PEERS_SHOWN)],
        "skew_seconds": one.skew_seconds,
        "received": one.received,
        **{state: one.states[state] for state in ("processed", "filtered", "refused", "dead")},
        "pending": one.states["received"],
        "deviating": one.deviating,
        "deviations": dict(one.deviations.most_common()),
        "duplicates": one.duplicates,
        "conflicts": one.conflicts,
        "without_effect": one.without_effect,
        "last_at": one.last_at,
        "example": one.example,
    }
