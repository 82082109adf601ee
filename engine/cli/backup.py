"""`handoff backup` and `handoff restore`."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli.common import NO, Cli, config_option, json_option, named_time
from engine.cli.desk import open_desk, user, whence

if TYPE_CHECKING:
    from engine.domain.audit import AuditRecord
    from engine.settings import Configuration
    from engine.store.backup.archive import Manifest
    from engine.store.backup.making import Made
    from engine.store.backup.restoring import Restored
    from engine.store.store import Store


@click.command("backup")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--whole", is_flag=True, help="In a folder: rest on no earlier backup.")
@click.option(
    "--keep", type=click.IntRange(1, 36_600), metavar="DAYS",
    help="In a folder: then delete older ones that none younger rests on.",
)  # fmt: skip
@json_option
@config_option
@click.pass_obj
def backup(cli: Cli, path: Path, whole: bool, keep: int | None) -> None:
    """Back the store up into PATH, beside a running daemon.

    PATH is a file that is not there yet, or a folder that is: there the backup gets a name by its time, and holds only
    what the backups before it do not hold. At the latest the eighth in a row is whole again. It is sealed with the
    site's keys and does not hold them: without a copy of the key file it can't be read.

    Beside it, or where `backup.erasure_keys` says, stands one file TREE.erasure-keys, without which none of the backups
    can be read. It changes whenever something is erased: keep the newest copy alone.
    """
    if keep is not None and not path.is_dir():
        raise click.UsageError("--keep is for a folder of backups that is there")
    from engine.runtime.priority import let_all_go_first
    from engine.store.backup.making import make_backup

    with open_desk(cli) as desk:
        made = make_backup(
            desk.store,
            path,
            node=desk.outline.node,
            program=_program(),
            now=cli.clock.now,
            record=lambda manifest: _record(cli, str(desk.actor), "backup", manifest),
            whole=whole,
            erasure_keys=erasure_folder(desk.configuration),
            keep=None if keep is None else timedelta(days=keep),
            step_back=let_all_go_first,
        )
    cli.print(_backup_shape(made), _backup_text(made))


@click.command("restore")
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("target", metavar="DIR")
@click.option("--rehearse", is_flag=True, help="Restore, verify, measure, and throw away what was restored.")
@click.option(
    "--erasure-keys",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the newest file of erasure keys, if it is not beside the backup.",
)
@click.option("--all", "everything", is_flag=True, help="Open every sealed value, not 100,000 of each kind.")
@json_option
@config_option
@click.pass_obj
def restore(cli: Cli, path: Path, target: str, rehearse: bool, erasure_keys: Path | None, everything: bool) -> int:
    """Restore the backup PATH into the folder DIR and verify it. Exit code 1 when something is wrong with it.

    PATH may be a folder of backups: the newest is meant. DIR may be the URL of an empty PostgreSQL database. The site's
    own store is not touched; name the restored one in `store.url`, with the daemon stopped.

    What may have gone out since the backup is held, and so is what comes of messages that are sent again: `handoff held
    list` shows it, `handoff held confirm` says that it had arrived, `handoff held release` sends it. Accounts that were
    active then are out until somebody lets them in (`handoff users enable`); tokens and sessions are gone.

    What was erased since the backup is left out, and counted: its keys are destroyed. That is known from the file of
    erasure keys beside the backup, from the one in `backup.erasure_keys`, and from the site's store, if it is there.

    A rehearsal is on record in the site's store, with how long it took.
    """
    from engine.errors import StoreError
    from engine.outline import STORE_URL
    from engine.store.backup.restoring import restore as put_back
    from engine.store.engines import locate
    from engine.store.opening import open_keys, open_store

    site = cli.readable_configuration(usual_place=True)[0]
    location = locate(site.store_url, site.snapshot.base)
    usual = locate(STORE_URL).charts_file
    file = location.charts_file or usual
    folders = [one for one in (erasure_keys, erasure_folder(site)) if one is not None]
    with contextlib.ExitStack() as stack:
        live: Store | None = None
        with contextlib.suppress(StoreError):
            live = stack.enter_context(open_store(site, "look"))
        done = put_back(
            path,
            open_keys(site),
            target,
            name=file.name if file is not None else "handoff.db",
            now=cli.clock.now,
            record=lambda manifest: _record(cli, str(user()), "restore", manifest),
            rehearse=rehearse,
            everything=everything,
            erasure_keys=folders,
            site=live,
        )
    if rehearse:
        _note(cli, done)
    for problem in done.problems:
        cli.say(problem)
    cli.print(_restore_shape(done), _restore_text(done))
    return 0 if done.ok else NO


def _note(cli: Cli, done: Restored) -> None:
    """In the site's store, if there is one: a rehearsal elsewhere is none of its."""
    from engine.domain.audit import AuditRecord
    from engine.errors import StoreError
    from engine.store.backup.restoring import note_rehearsal
    from engine.store.opening import open_store

    at = cli.clock.now()
    said = "all there" if done.ok else "something is wrong"
    record = AuditRecord(
        at=at,
        actor=str(user()),
        action="restore-rehearsed",
        subject=f"backup:{done.backup[:16]}",
        reason=f"as of {done.as_of:%Y-%m-%d %H:%M:%S} UTC, {done.seconds:g} s, {said}",
        result="allowed" if done.ok else "failed",
        count=done.entries,
        whence=whence(),
    )
    try:
        with open_store(cli.readable_configuration()[0], "tool") as store:
            note_rehearsal(store, done, at, record)
    except StoreError as error:
        cli.say(f"The rehearsal is not on record, because the site's store can't be written here: {error}")


def erasure_folder(configuration: Configuration) -> Path | None:
    """Where the erasure keys stand; none: beside the backups. Raises BackupError when that folder is not there."""
    from engine.errors import BackupError

    backup = configuration.site.backup
    if backup is None or backup.erasure_keys is None:
        return None
    folder = configuration.path(backup.erasure_keys)
    if not folder.is_dir():
        raise BackupError(f"{folder}: the folder of `backup.erasure_keys` is not there: make it, for the service alone")
    return folder


def _record(cli: Cli, actor: str, action: str, manifest: Manifest) -> AuditRecord:
    from engine.domain.audit import AuditRecord

    return AuditRecord(
        at=cli.clock.now(),
        actor=actor,
        action=action,
        subject=f"backup:{manifest.id[:16]}",
        reason=f"as of {manifest.as_of:%Y-%m-%d %H:%M:%S} UTC",
        count=manifest.entries,
        whence=whence(),
    )


def _program() -> str:
    from importlib.metadata import version

    return version("handoff-engine")


def _backup_shape(made: Made) -> dict[str, Any]:
    from engine.store.backup.archive import plain

    manifest = plain(made.manifest)
    tables = {name: one["rows"] for name, one in manifest.pop("tables").items()}
    return {
        "path": made.path,
        "seconds": made.seconds,
        "incremental": made.manifest.depth > 0,
        "deleted": list(made.deleted),
        "rows": tables,
        **manifest,
    }


def _backup_text(made: Made) -> str:
    manifest = made.manifest
    rests = f", resting on {manifest.depth} before it" if manifest.depth else ""
    return (
        f"{made.path}: {manifest.entries:,} entries and {manifest.charts:,} charts as of {named_time(manifest.as_of)},"
        f" {manifest.bytes / 1e6:,.1f} MB of {manifest.whole_bytes / 1e6:,.1f} written{rests},"
        f" in {made.seconds:,.1f} s." + (f" {len(made.deleted)} older ones deleted." if made.deleted else "")
    )


def _restore_shape(done: Restored) -> dict[str, Any]:
    from engine.domain.shapes import plain

    shape: dict[str, Any] = plain(done)
    return shape


def _restore_text(done: Restored) -> str:
    what = f"{done.entries:,} entries and {done.charts:,} charts as of {named_time(done.as_of)}"
    gone = ", ".join(f"{number:,} of {name}" for name, number in sorted(done.left_out.items()))
    left = f"\nLeft out, because erased since the backup, with their keys: {gone}." if gone else ""
    verified = f"{done.opened:,} sealed values opened" if done.ok else f"{len(done.problems)} problem(s)"
    if done.target is None:
        return f"Rehearsed: {what}, {verified}, in {done.seconds:,.1f} s. Nothing was kept.{left}"
    held = (
        f"\n{done.held:,} deliveries may have gone out since; they are held: `handoff held list`." if done.held else ""
    )
    accounts = (
        f"\n{done.unconfirmed:,} accounts wait to be confirmed, for who was shut out since is not known here: `handoff"
        " users enable NAME ...`."
        if done.unconfirmed
        else ""
    )
    holds = (
        f"\nLegal holds are those of then ({done.to_do.get('legal_holds', 0):,}): place again those placed since, then"
        " `handoff legal-hold confirm`. Until then nothing is swept or erased."
    )
    number = done.to_do.get("pages", 0)
    pages = (
        f"\n{number:,} page(s) were unanswered then; who was reached since is not known here, and they call again:"
        " `handoff pages list`, and acknowledge those that somebody has."
        if number
        else ""
    )
    done_so = f"Restored into {done.target}: {what}, {verified}, in {done.seconds:,.1f} s."
    return f"{done_so}{held}{accounts}{pages}{holds}{left}"
