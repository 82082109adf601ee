"""The desk that a command works at: configuration, keys and store, opened together and closed again."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import click

from engine.access.actions import CATALOGUE
from engine.cli.common import Cli, Private
from engine.cli.declared import action_of, name_of
from engine.clock import site_clock
from engine.desk.desk import SEEN_THROUGH_MAX, Desk, Reveal
from engine.desk.local import local_user
from engine.desk.looking import at
from engine.domain.actor import Actor
from engine.domain.audit import Whence
from engine.errors import HandoffError, NotFoundError, SettingsError, StoreDamagedError, StoreError, StoreMissingError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.desk.gate import Gate
    from engine.outline import Outline
    from engine.settings import Configuration
    from engine.store import Store


L_co = TypeVar("L_co", covariant=True)

_NOBODY_LOGGED_IN: Final = 0xFFFFFFFF
_DIGITS_MAX: Final = 10

PATIENT_HELP: Final = "AUTHORITY:ID or a pseudonym (MRN:~3f9a1c2b); - asks for it, so that no history keeps it."


class PatientKey(Private):
    """A patient's key or pseudonym."""

    name = "key"
    hidden = True


def reveal_of(reveal: bool, reason: str | None) -> Reveal | None:
    """What --reveal and --reason ask for; a reason alone is that of a look that is masked. Raises UsageError."""
    if reveal and not (reason or "").strip():
        raise click.UsageError("--reveal needs --reason TEXT: why you look at patient data; it is written to the audit")
    return Reveal(reason) if reveal and reason else None


class Lists(Protocol[L_co]):
    """A store of tasks, pages or appointments (`store.listed`)."""

    @property
    def what(self) -> str: ...
    @property
    def find(self) -> Callable[..., Sequence[L_co]]: ...
    @property
    def count(self) -> Callable[..., int]: ...


def first_of(
    cli: Cli, desk: Desk, conn: Connection, store: Lists[L_co], limit: int, *, narrow: str, **conditions: Any
) -> Sequence[L_co]:
    """The first of the tasks, pages or appointments that meet the conditions of `store.find`, and that are seen here.

    What is left out is said: those beyond the limit, and those that can't be read any more.
    """
    from engine.desk.listing import of_whom

    damaged: list[str] = []
    found = store.find(conn, **conditions, limit=desk.most(limit), damaged=damaged.append)
    found = desk.seen(found, of_whom)
    found = cli.first(found, limit, lambda: store.count(conn, **conditions), narrow=narrow)
    for id_ in damaged:
        what = store.what.capitalize()
        cli.say(f"{what} {id_} can't be read any more: it, or its patient's chart, is damaged. It is left out.")
    return found


@contextmanager
def open_desk(cli: Cli) -> Iterator[Desk]:
    """Raises SettingsError, KeyMissingError or StoreUnavailableError."""
    from engine import logs
    from engine.store.keycheck import check_keys
    from engine.store.opening import has_worked, open_store

    # What libraries and threads would print by themselves could hold values; a command says what went wrong itself.
    logs.silence()
    outline, broken = cli.outline(), None
    with contextlib.ExitStack() as opened:
        store: Store | None = None
        known = False
        if outline is not None:
            try:
                store = opened.enter_context(open_store(outline, "tool"))
                known = has_worked(store, outline.snapshot.version)
            except HandoffError:
                _readable(cli)  # what is wrong in the files may be why
                raise
        if outline is None or not known:
            configuration, broken = _readable(cli)
            outline = configuration.outline
        if store is None:
            store = opened.enter_context(open_store(outline, "tool"))
        with contextlib.suppress(StoreDamagedError):  # then there is all the more to look at
            store.read_now(lambda conn: check_keys(conn, store.keys))
        looked_at: Store | None = None
        if cli.shadow:
            try:
                looked_at = opened.enter_context(open_store(outline, "look", shadow=True))
            except StoreMissingError as error:
                raise NotFoundError(str(error)) from None
            cli.say("In shadow: what there would be, were its channels live. Nobody has to act on it.")
        gate, context = _gate(outline, store), click.get_current_context(silent=True)
        desk = Desk(
            store,
            outline,
            lambda: cli.readable_configuration()[0],
            user() if gate is None else gate.actor,
            broken=broken,
            looked_at=looked_at,
            gate=gate,
            whence=whence(),
            action=action_of(context),
            name=name_of(context),
            reason=_reason(context),
            ask=_ask_why if _asks(cli) else None,
        )
        before, cli.before_output = cli.before_output, desk.on_record
        try:
            with at(desk):
                yield desk
        finally:
            cli.before_output = before
            _witness(cli, desk)
        if desk.unrecorded is not None:
            cli.say(f"The trail has no record of this look: {desk.unrecorded}")
        if desk.cut:
            cli.say(f"Only the first {SEEN_THROUGH_MAX:,} were looked at for those that you see: narrow the list.")
        if desk.unseen:
            cli.say(f"{desk.unseen:,} more are of patients whom you do not see.")


def _witness(cli: Cli, desk: Desk) -> None:
    if not desk.record_store.audit.added.last:
        return
    from engine.desk.trail import witness

    if (missing := witness(desk)) is not None:
        cli.say(f"What was done is on record, and there is no checkpoint of it: {missing}")


def _reason(context: click.Context | None) -> str | None:
    """What was said with --reason (--because), whatever it is asked for."""
    given = context.params if context is not None else {}
    return given.get("reason") or given.get("because") or None


def _asks(cli: Cli) -> bool:
    """Whether somebody sits there who can be asked."""
    streams = (sys.stdin, sys.stdout, sys.stderr)
    return not cli.json and all(one is not None and one.isatty() for one in streams)


def _ask_why() -> str:
    """Why somebody asks for a patient by who they are. Raises UsageError when they do not say it."""
    said = click.prompt("Why do you look at this patient (for the audit)", default="", show_default=False, err=True)
    if not str(said).strip():
        raise click.UsageError("asking for a patient by who they are needs a reason (--reason TEXT)")
    return str(said).strip()


def _gate(outline: Outline, store: Store) -> Gate | None:
    """Who sits here, and what they may; none: the site has no `access`. Raises SettingsError."""
    from engine.desk.gate import access_of, at_the_command_line, policy_of
    from engine.store.opening import key_file

    snapshot = outline.snapshot
    access = access_of(outline, snapshot.files[snapshot.site_file])
    if access is None:
        return None
    now = site_clock(outline.clock_file).now()
    return at_the_command_line(access, policy_of(access, snapshot), store, local_user(key_file(outline)), now)


def admit(cli: Cli) -> None:
    """For a command that opens no desk: it leaves its record, where there is a store.

    Raises DeniedError, on record, when the one who sits here may not use it.
    """
    guarded = _guarded(cli)
    if guarded or CATALOGUE[action_of(click.get_current_context(silent=True))].look is not None:
        try:
            with open_desk(cli):
                pass
        except StoreError as error:
            if guarded:
                raise
            cli.say(f"The trail has no record of this look: {error}")


def _guarded(cli: Cli) -> bool:
    """Whether the site has `access`. Raises SettingsError."""
    outline = cli.outline() or cli.readable_configuration(usual_place=True)[0].outline
    from engine.desk.gate import access_of

    return access_of(outline, outline.snapshot.files[outline.snapshot.site_file]) is not None


def _readable(cli: Cli) -> tuple[Configuration, SettingsError | None]:
    """`Cli.readable_configuration`; what is wrong in it is said."""
    configuration, broken = cli.readable_configuration()
    if broken is not None:
        first, *others = broken.problems
        more = f" (and {len(others)} more: `handoff check`)" if others else ""
        cli.say(f"The configuration has problems, which change nothing of what is stored: {first}{more}")
    return configuration, broken


def user() -> Actor:
    """The operating system's who logged in, also behind sudo and su (`desk.local`)."""
    return Actor(kind="user", name=local_user().name)


def put_on_record(cli: Cli, action: str, subject: str, *, unless_lost: bool = False) -> None:
    """For a command that opens no desk for what it does: it is on record first, where there is a store.

    Without one there is no trail, and that is said. unless_lost: it is done, too, when the trail can't be written.
    Raises DeniedError when the actor may not do it.
    """
    try:
        with open_desk(cli) as desk:
            desk.audit(action, [subject])
    except StoreMissingError:
        cli.say("There is no store yet, and so no trail to put this on.")
    except (StoreError, SettingsError) as error:
        if not unless_lost or _guarded(cli):
            raise
        cli.say(f"The trail has no record of it: {error}")


def whence() -> Whence:
    """Where this command is run, for the record: what the system knows of who is behind it, and no arguments."""
    context = click.get_current_context(silent=True)
    return Whence(
        host=socket.gethostname() or None,
        tty=_tty(),
        loginuid=_of_login("loginuid"),
        session=_of_login("sessionid"),
        sudo_uid=_number(os.environ.get("SUDO_UID")),
        uid=os.geteuid(),
        command=context.command_path if context is not None else None,
    )


def _tty() -> str | None:
    for handle in (0, 2, 1):
        with contextlib.suppress(OSError):
            return os.ttyname(handle).removeprefix("/dev/")
    return None


def _of_login(what: str) -> int | None:
    """User or number of the login, as the kernel's audit has them."""
    try:
        found = _number(Path(f"/proc/self/{what}").read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError):
        return None
    return None if found == _NOBODY_LOGGED_IN else found


def _number(text: str | None) -> int | None:
    stripped = (text or "").strip()
    return int(stripped) if stripped.isascii() and stripped.isdigit() and len(stripped) <= _DIGITS_MAX else None


def read_input(path: Path) -> bytes:
    """What a file holds; `-` is standard input. Raises NotFoundError."""
    if str(path) == "-":
        if sys.stdin is None:  # closed by whoever started us
            raise NotFoundError("standard input is closed")
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"{path}: can't be read: {error.strerror}") from None
