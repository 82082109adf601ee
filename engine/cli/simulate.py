"""`handoff simulate`: a hospital's day of ADT traffic, invented, and the same in every run of the same command."""

from __future__ import annotations

import sys
from datetime import date, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

import click

from engine.cli.common import NO, UNAVAILABLE, Cli, config_option, json_option
from engine.cli.send import Address, tls_context

if TYPE_CHECKING:
    from engine.simulator.feed import Feed, Summary

_PEM = click.Path(exists=True, dir_okay=False)


@click.command("simulate", short_help="Send a hospital's day of invented ADT messages.")
@click.argument("address", metavar="HOST:PORT", type=Address())
@click.option(
    "--messages", type=click.IntRange(1, 100_000_000), metavar="N", default=30_000, show_default=True, help="How many."
)
@click.option(
    "--connections", type=click.IntRange(1, 10_000), metavar="N", default=16, show_default=True, help="Over so many."
)
@click.option(
    "--rate", "per_second", type=click.FloatRange(0), default=0.0, metavar="PER_SECOND",
    help="Messages per second, all connections together; 0 (the default): as fast as they are acknowledged.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), metavar="N", default=1, show_default=True,
    help="Of the day: another number, another day.",
)  # fmt: skip
@click.option(
    "--day", type=click.DateTime(["%Y-%m-%d"]), metavar="YYYY-MM-DD",
    show_default="today, from noon UTC on; until then yesterday",
    help="The day that is simulated; the first one, when there are more messages than a day holds.",
)  # fmt: skip
@click.option(
    "--visits", is_flag=True,
    help="Also what a scheduling system sends (SIU) of follow-up visits; the channel must take SIU^*.",
)  # fmt: skip
@click.option(
    "--patience", "patience_seconds", type=click.FloatRange(0), metavar="SECONDS", default=30.0, show_default=True,
    help="Resend an unacknowledged message for this many seconds, then give up.",
)  # fmt: skip
@click.option("--tls", is_flag=True, help="Speak TLS.")
@click.option("--ca", type=_PEM, help="PEM file of the authorities that signed the server's certificate.")
@click.option("--cert", type=_PEM, help="PEM file of your own certificate, for a server that asks for one.")
@click.option("--key", type=_PEM, help="PEM file of your own key.")
@json_option
@config_option
@click.pass_obj
def simulate(
    cli: Cli,
    address: tuple[str, int],
    messages: int,
    connections: int,
    per_second: float,
    seed: int,
    day: datetime | None,
    visits: bool,
    patience_seconds: float,
    tls: bool,
    ca: str | None,
    cert: str | None,
    key: str | None,
) -> int:
    """Send a hospital's day: admissions, transfers, updates, discharges, cancels, merges, emergency visits.

    All people are invented. The same options give the same bytes, so a second run on the same day is a stream of
    duplicates. Exit code 1 when a message was refused, 69 when nobody listens (any more).
    """
    from engine.errors import DeliveryError
    from engine.simulator.feed import Feed
    from engine.simulator.pathways import load_book
    from engine.simulator.sender import run
    from engine.simulator.traffic import traffic
    from engine.simulator.visits import with_visits

    feed = Feed(
        *address,
        connections=connections,
        per_second=per_second,
        patience_seconds=patience_seconds,
        tls=tls_context(tls, ca, cert, key),
    )
    book = load_book()
    first = day.date() if day is not None else _first_day(messages, book.hospital.messages_per_day_max, cli.clock.now())
    stream = traffic(book, seed=seed, day=first, messages=messages)
    if visits:
        stream = islice(with_visits(stream, seed=seed, day=first), messages)
    progress = _Progress(messages) if sys.stderr.isatty() else None
    unreachable = False
    try:
        run(feed.run(stream, progress))
    except DeliveryError as error:
        cli.say(f"\nhandoff: {error}" if progress else f"handoff: {error}")
        unreachable = True
    except KeyboardInterrupt:
        cli.say("\nStopped." if progress else "Stopped.")
    summary = feed.summary()
    cli.print(summary, _human(summary))
    if unreachable:
        return UNAVAILABLE
    return 0 if feed.accepted == messages else NO


def _first_day(messages: int, a_day: int, now: datetime) -> date:
    """So that the last day is over, wherever the hospital is: no event lies in the future."""
    over = (now - timedelta(hours=36)).date()
    return over - timedelta(days=(messages - 1) // a_day)


class _Progress:
    """One line on the terminal, written over and over."""

    def __init__(self, messages: int) -> None:
        self._messages = messages
        self._last = (0.0, 0)

    def __call__(self, feed: Feed) -> None:
        summary = feed.summary()
        seconds, accepted = self._last
        rate = (feed.accepted - accepted) / max(summary.seconds - seconds, 0.001)
        self._last = (summary.seconds, feed.accepted)
        line = f"\r{feed.sent:,} of {self._messages:,} sent, {feed.accepted:,} acknowledged, {rate:,.0f}/s"
        click.echo(f"{line:<78}", err=True, nl=feed.finished)


def _human(summary: Summary) -> str:
    codes = ", ".join(f"{count:,} {code}" for code, count in summary.acked.items()) or "none"
    failed = f"; {summary.errors:,} attempts without an answer" if summary.errors else ""
    lost = f"; {summary.unacknowledged:,} given up" if summary.unacknowledged else ""
    return (
        f"{summary.sent:,} messages in {summary.seconds:.1f} s ({summary.rate:,.0f}/s); answers: {codes}{failed}{lost}"
    )
