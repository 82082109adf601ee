"""`handoff db`: the store's tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from engine.cli.common import NO, Cli, config_option, json_option

if TYPE_CHECKING:
    from engine.store.engines import Location


@click.group("db")
@config_option
def db() -> None:
    """The tables of the store."""


@db.command("migrate")
@json_option
@config_option
@click.pass_obj
def migrate(cli: Cli) -> None:
    """Make or change the tables as this version of Handoff needs them. The daemon must be stopped."""
    from engine.store import migrations

    location, beside = _locations(cli)
    changed = migrations.upgrade(location)
    if beside is not None:
        changed = migrations.upgrade(beside) or changed
    document = {"changed": changed, "revisions": migrations.current(location)}
    cli.print(document, "The store is ready." if changed else "The store was ready: nothing to do.")


@db.command("status")
@json_option
@config_option
@click.pass_obj
def status(cli: Cli) -> int:
    """Show which revision the tables have. Exit code 1 when this version needs another."""
    from engine.store import migrations
    from engine.store.schema import REVISION

    location, beside = _locations(cli)
    revisions = migrations.current(location)
    if beside is not None:
        revisions["shadow"] = migrations.current(beside)["charts"]
    ready = all(revision == REVISION for revision in revisions.values())
    lines = [f"{side}: {revision or 'not there'}" for side, revision in revisions.items()]
    lines.append("ready" if ready else f"needed: {REVISION}; `handoff db migrate` brings it there")
    cli.print({"ready": ready, "needed": REVISION, "revisions": revisions}, "\n".join(lines))
    return 0 if ready else NO


def _locations(cli: Cli) -> tuple[Location, Location | None]:
    """Where the store is, and where the charts of channels in shadow are, if there is such a channel."""
    from engine.store.opening import store_location

    configuration = cli.readable_configuration()[0]
    location = store_location(configuration)
    return location, location.in_shadow() if configuration.has_shadow else None
