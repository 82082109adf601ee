"""The site a command works on: its configuration, keys and store, opened together and closed again."""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.common import Cli, meant
from engine.cli.show import PSEUDONYM, View
from engine.domain.audit import ACTIONS
from engine.errors import HandoffError, SettingsError, StoreDamagedError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.domain.chart import Chart
    from engine.outline import Outline
    from engine.pipeline.channel import CompiledConfiguration
    from engine.settings import Configuration
    from engine.store import Store
    from engine.store.keys import KeyRing


_NAMED_MAX: Final = 12
CANDIDATES_MAX: Final = 13
"""So many ids are read at most that begin as the one which was given."""
_KEY_CHARACTERS_MAX: Final = 1000


class NotFoundError(HandoffError):
    """There is nothing of the name or number that a command was given."""


class OpenSite:
    """A site whose store is open for a command (`Store` role `tool`)."""

    def __init__(self, cli: Cli, store: Store, outline: Outline, broken: SettingsError | None = None) -> None:
        self.broken = broken
        """Why the files can't be loaded; then `outline` names the store, and neither channel nor destination."""
        self.outline = outline
        self.store = store
        self._cli = cli
        self.now = datetime.now(UTC)

    @property
    def keys(self) -> KeyRing:
        return self.store.keys

    @cached_property
    def configuration(self) -> Configuration:
        """All of it; as much as leads to the store, when it is broken. Takes longer to load than the `outline`."""
        return self._cli.readable_configuration()[0]

    def compiled(self) -> CompiledConfiguration:
        """What processing works by. Raises SettingsError when there is something wrong with it."""
        from engine.bootstrap import compile_site

        if self.broken is not None:
            raise self.broken
        return compile_site(self.configuration, self.keys)

    def destinations(self) -> dict[str, str | None]:
        """Name -> type of those that are configured; while the files are broken, of the configuration in force."""
        if self.broken is None:
            return dict(self.outline.destinations)
        from engine.bootstrap import recorded_snapshot

        known: dict[str, str | None] = {}
        with self.store.reader() as conn:
            loads = self.store.configs.loads(conn, 1)
            # Whatever else something waits for: whether that is configured can't be known now.
            known |= dict.fromkeys(self.store.destinations.orphans(conn, ()))
        with contextlib.suppress(HandoffError):
            snapshot = recorded_snapshot(self.store, self.outline.snapshot.base, loads[0].version) if loads else None
            site = snapshot.document(snapshot.site_file).value if snapshot is not None else {}
            known |= {name: one.get("type") for name, one in (site.get("destinations") or {}).items()}
        return known

    # --- showing -----------------------------------------------------------------------------------------------------

    def view(self, reveal: Reveal | None, subjects: Iterable[str]) -> View:
        """How to show these subjects (`chart:9f2c`, `entry:17`). Revealing them is on record before they are shown."""
        if reveal is not None:
            self.audit("reveal", subjects, reveal.reason)
        return View(self.pseudonym, revealed=reveal is not None, unnamed=self.unnamed_sender)

    def pseudonym(self, key: str) -> str:
        """`MRN:558181838` -> `MRN:~3f9a1c2b`."""
        from engine.store.charts import key_hash

        return f"{self._authority(key.partition(':')[0])}:~{key_hash(self.keys, key)[:4].hex()}"

    def unnamed_sender(self, sender: str) -> str:
        """MSH-3/MSH-4 of one of whom nothing is known: only what the site names stays, `~5be7d2aa/MAIN`."""
        return "/".join(part if part in self._known_senders else self._authority(part) for part in sender.split("/"))

    def _authority(self, authority: str) -> str:
        """As it is shown masked: senders write what they like into CX-4, so only configured names stay."""
        from engine.store.charts import key_hash

        if authority in self._known_authorities or not authority:
            return authority
        return f"~{key_hash(self.keys, authority)[:4].hex()}"

    def _shown_as(self, authority: str) -> set[str]:
        """All that an authority may be called in a pseudonym, also before or after it was configured."""
        from engine.store.charts import key_hash

        return {authority, f"~{key_hash(self.keys, authority)[:4].hex()}"}

    @cached_property
    def _known_authorities(self) -> frozenset[str]:
        return frozenset(name for channel in self.outline.channels.values() for name in channel.authorities)

    @cached_property
    def _known_senders(self) -> frozenset[str]:
        return frozenset(name for channel in self.outline.channels.values() for name in channel.senders)

    def audit(self, action: str, subjects: Iterable[str], reason: str | None = None) -> None:
        """Write to the audit. What changes the store does so in its own transaction instead: `note`."""
        named = list(subjects)
        if named:
            self.store.charts_ledger.write_now(lambda conn: self.note(conn, action, named, reason))

    def note(self, conn: Connection, action: str, subjects: Iterable[str], reason: str | None = None) -> None:
        """`audit`, as part of a transaction of the charts: nothing is done that is not on record."""
        from engine.domain.audit import AuditRecord

        records = [
            AuditRecord(at=self.now, actor=actor(), action=action, subject=subject, reason=reason)
            for subject in dict.fromkeys(subjects)
        ]
        self.store.audit.append(conn, records)

    # --- finding -----------------------------------------------------------------------------------------------------

    def chart(self, named: str) -> Chart:
        """The living chart of a patient named by key (`MRN:558181838`) or pseudonym. Raises NotFoundError."""
        with self.store.reader() as conn:
            match = PSEUDONYM.fullmatch(named)
            if match is None:
                found = self.store.charts.by_key(conn, named)
            else:
                found = [
                    chart
                    for chart in self.store.charts.by_key_hash(conn, bytes.fromhex(match["hash"]))
                    if any(match["authority"] in self._shown_as(item.authority) for item in chart.patient.identifiers)
                ]
        if not found:
            raise NotFoundError("there is no patient of this key; it is written AUTHORITY:ID, like MRN:558181838")
        if len(found) > 1:
            raise NotFoundError(f"{len(found)} patients answer to this key: use one that is theirs alone")
        return found[0]

    def patient_key(self, named: str) -> str:
        """The key by which messages of a patient are found; also of one who has no chart, only dead messages.

        Raises NotFoundError.
        """
        from engine.store.charts import key_hash

        try:
            return self.chart(named).patient.key
        except NotFoundError:
            match = PSEUDONYM.fullmatch(named)
            prefix = bytes.fromhex(match["hash"]) if match is not None else key_hash(self.keys, named)
            with self.store.reader() as conn:
                keys = self.store.dead_letters.patients(conn, self.keys, prefix)
            keys = {key for key in keys if match is None or match["authority"] in self._shown_as(key.partition(":")[0])}
            if len(keys) != 1:
                raise
            return keys.pop()

    def check_channel(self, name: str | None) -> None:
        """Raises UsageError when a filter names a channel that there is not, and never was."""
        if name is None or name in self.outline.channels:
            return
        with self.store.reader() as conn:
            known = sorted({*self.outline.channels, *self.store.journal.channels(conn)})
        check_name("channel", name, known)

    def check_destination(self, name: str | None) -> None:
        """Raises UsageError when there is no such destination, and nothing was ever to be sent to one."""
        if name is None or name in self.outline.destinations:
            return
        with self.store.reader() as conn:
            known = sorted({*self.outline.destinations, *self.store.outbox.unfinished(conn)})
        check_name("destination", name, known)

    def check_kind(self, name: str | None) -> None:
        """Raises UsageError when there are no tasks of this kind, and could be none."""
        if name is None:
            return
        with self.store.reader() as conn:
            known = self.store.tasks.kinds(conn)
        if name not in known:
            from engine.domain.task import KINDS

            check_name("kind", name, sorted({*known, *KINDS}))

    def check_action(self, name: str | None) -> None:
        """Raises UsageError when nothing of this name was ever done."""
        if name is None:
            return
        with self.store.reader() as conn:
            known = sorted({*ACTIONS, *self.store.audit.actions(conn)})
        check_name("action", name, known)

    def check_error(self, code: str | None) -> None:
        """Raises UsageError when no dead letter has this code."""
        if code is None:
            return
        with self.store.reader() as conn:
            known = self.store.dead_letters.errors(conn)
        check_name("error", code, known)


def check_name(what: str, name: str, known: Sequence[str]) -> None:
    """Raises UsageError when a filter names something that there is not: nothing found would be no answer."""
    if name not in known:
        some = ", ".join(known[:_NAMED_MAX]) + (", ..." if len(known) > _NAMED_MAX else "")
        raise click.UsageError(f"There is no {what} {name}; there are {some or 'none'}.{meant(name, known)}")


def by_prefix(what: str, given: str, found: Sequence[str]) -> str:
    """The one id that begins with what was given. Raises NotFoundError, and UsageError when there are several."""
    if given in found:
        return given
    if len(found) > 1:
        some = ", ".join(found[:_NAMED_MAX]) + (", ..." if len(found) > _NAMED_MAX else "")
        raise click.UsageError(f"{given} begins the ids of {len(found)} {what}s: {some}")
    if not found:
        raise NotFoundError(f"there is no such {what}; `handoff {what}s list` shows the ids")
    return found[0]


PATIENT_HELP: Final = "AUTHORITY:ID or a pseudonym (MRN:~3f9a1c2b); - asks for it, so that no history keeps it."


class PatientKey(click.ParamType[str]):
    """A patient's key or pseudonym. `-`: it is asked for, or read from standard input when that is no terminal."""

    name = "key"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value != "-":
            return str(value)
        if sys.stdin is None:
            self.fail("standard input is closed", param, ctx)
        if sys.stdin.isatty():
            key = click.prompt("Patient", hide_input=True, err=True)
        else:
            key = sys.stdin.readline(_KEY_CHARACTERS_MAX)
        if not str(key).strip():
            self.fail("standard input holds no key", param, ctx)
        return str(key).strip()


class Reveal:
    """The wish to see PHI, with its reason."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def reveal_of(reveal: bool, reason: str | None) -> Reveal | None:
    """What --reveal and --reason ask for. Raises UsageError when only one of them is given."""
    if reveal and not (reason or "").strip():
        raise click.UsageError("--reveal needs --reason TEXT: why you look at patient data; it is written to the audit")
    if reason and not reveal:
        raise click.UsageError("--reason goes with --reveal")
    return Reveal(reason) if reveal and reason else None


@contextmanager
def open_site(cli: Cli) -> Iterator[OpenSite]:
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
        yield OpenSite(cli, store, outline, broken)


def _readable(cli: Cli) -> tuple[Configuration, SettingsError | None]:
    """`Cli.readable_configuration`; what is wrong in it is said."""
    configuration, broken = cli.readable_configuration()
    if broken is not None:
        first, *others = broken.problems
        more = f" (and {len(others)} more: `handoff check`)" if others else ""
        cli.say(f"The configuration has problems, which change nothing of what is stored: {first}{more}")
    return configuration, broken


def actor() -> str:
    """The operating system's user, for the audit."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid-{os.getuid()}"


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
