"""The desk: a site whose store is open for somebody who looks and acts. Every face works at one.

What is seen is masked unless the wish to see it is on record, and nothing is done that is not on record.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from engine.clock import site_clock
from engine.desk.seeing import View
from engine.domain.actor import Actor
from engine.domain.audit import AuditRecord
from engine.errors import HandoffError, SettingsError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.outline import Outline
    from engine.pipeline.channel import CompiledConfiguration
    from engine.settings import Configuration
    from engine.store import Store
    from engine.store.keys import KeyRing


class Reveal:
    """The wish to see PHI, with its reason."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Desk:
    """store: open in the role `tool`. outline: the names in the configuration. actor: who sits here."""

    store: Store
    """What is looked at."""

    def __init__(
        self,
        store: Store,
        outline: Outline,
        configuration: Callable[[], Configuration],
        actor: Actor,
        *,
        broken: SettingsError | None = None,
        looked_at: Store | None = None,
    ) -> None:
        """configuration: loads all of it, which takes longer than a look at the store may take. looked_at: the store
        with the charts of channels in shadow, when those are asked for; who looks stands in the audit of the living.
        """
        self.store = looked_at or store
        self._record = store
        self.in_shadow = looked_at is not None
        self.outline = outline
        self.actor = actor
        self.broken = broken
        """Why the files can't be loaded; then `outline` names the store, and neither channel nor destination."""
        self.now = site_clock(outline.clock_file).now()
        """When it was opened, by the site's clock."""
        self._load = configuration

    @property
    def keys(self) -> KeyRing:
        return self.store.keys

    @cached_property
    def configuration(self) -> Configuration:
        """All of it; as much as leads to the store, when it is broken."""
        return self._load()

    def compiled(self) -> CompiledConfiguration:
        """What processing works by. Raises SettingsError when there is something wrong with it."""
        from engine.runtime.configurations import compile_site, with_former

        if self.broken is not None:
            raise self.broken
        return with_former(compile_site(self.configuration, self.keys), self.store)

    def destinations(self) -> dict[str, str | None]:
        """Name -> type of those that are configured; while the files are broken, of the configuration in force."""
        if self.broken is None:
            return dict(self.outline.destinations)
        from engine.runtime.configurations import recorded_snapshot

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

    # --- what may be done, and is on record ---

    def authorise(self, action: str, subjects: Iterable[str]) -> None:
        """Raises when the actor may not do it. Whoever may use the command line of a site may do everything there."""

    def view(self, reveal: Reveal | None, subjects: Iterable[str]) -> View:
        """How to show these subjects (`chart:9f2c`, `entry:17`). Revealing them is on record before they are shown."""
        if reveal is not None:
            self.audit("reveal", subjects, reveal.reason)
        return View(self.pseudonym, revealed=reveal is not None, unnamed=self.unnamed_sender)

    def audit(self, action: str, subjects: Iterable[str], reason: str | None = None) -> None:
        """Write to the audit. What changes the store does so in its own transaction instead: `note`."""
        named = list(subjects)
        if named:
            self._record.charts_ledger.write_now(lambda conn: self.note(conn, action, named, reason))

    def note(self, conn: Connection, action: str, subjects: Iterable[str], reason: str | None = None) -> None:
        """`audit`, as part of a transaction of the charts: nothing is done that is not on record."""
        named = list(dict.fromkeys(subjects))
        self.authorise(action, named)
        records = [
            AuditRecord(at=self.now, actor=str(self.actor), action=action, subject=subject, reason=reason)
            for subject in named
        ]
        self._record.audit.append(conn, records)

    # --- how keys and names are shown ---

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

    def shown_as(self, authority: str) -> set[str]:
        """All that an authority may be called in a pseudonym, also before or after it was configured."""
        from engine.store.charts import key_hash

        return {authority, f"~{key_hash(self.keys, authority)[:4].hex()}"}

    @cached_property
    def _known_authorities(self) -> frozenset[str]:
        return frozenset(name for channel in self.outline.channels.values() for name in channel.authorities)

    @cached_property
    def _known_senders(self) -> frozenset[str]:
        return frozenset(name for channel in self.outline.channels.values() for name in channel.senders)
