"""The desk: a site whose store is open for somebody who looks and acts. Every face works at one.

What is seen is masked unless the wish to see it is on record, and nothing is done that is not on record.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from engine.access.actions import CATALOGUE, OF_VERB, Action
from engine.clock import site_clock
from engine.desk.looking import LOOKED, PATIENTS_A_RECORD_MAX, SEARCHED, TRAIL_READ, Looks, charts_of
from engine.desk.seeing import Shown, View
from engine.domain.actor import Actor
from engine.domain.audit import AuditRecord, Whence
from engine.errors import DeniedError, HandoffError, SettingsError, StoreError, TamperedError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.access.fields import Group
    from engine.access.policy import Allowed, Denied
    from engine.access.roles import Policy
    from engine.desk.accounts import Accounts
    from engine.desk.gate import Gate
    from engine.domain.audit import Result
    from engine.domain.chart import Chart
    from engine.outline import Outline
    from engine.pipeline.channel import CompiledConfiguration
    from engine.settings import Configuration
    from engine.store import Store
    from engine.store.keys import KeyRing


T = TypeVar("T")

SEEN_THROUGH_MAX: Final = 10_000
"""Things of a list that are looked at for those that the actor sees."""
_CHARTS_AT_ONCE: Final = 200


class Reveal:
    """The wish to see PHI, with its reason.

    at_work: somebody sees patients whom they treat, on a page of the care team. Then no single patient is revealed: the
    look is on record with all who appeared, and says that they were seen unmasked.
    """

    def __init__(self, reason: str, *, at_work: bool = False) -> None:
        self.reason = reason
        self.at_work = at_work


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
        gate: Gate | None = None,
        action: Action = Action.OPEN,
        whence: Whence | None = None,
        ring: Callable[[], object] | None = None,
        name: str = "",
        reason: str | None = None,
        ask: Callable[[], str] | None = None,
    ) -> None:
        """gate: of a site with `access`; none: the actor may do everything. action: what the desk was opened for.

        configuration: loads all of it, which takes longer than a look at the store may take. looked_at: the store
        with the charts of channels in shadow, when those are asked for; who looks stands in the audit of the living.
        name: of the command or route, for the record. reason: why, as far as it was said. ask: asks for it.
        """
        self.store = looked_at or store
        self._record = store
        self.in_shadow = looked_at is not None
        self.outline = outline
        self.actor = actor
        self.whence = whence
        """Where they sit, for the record."""
        self.broken = broken
        """Why the files can't be loaded; then `outline` names the store, and neither channel nor destination."""
        self.now = site_clock(outline.clock_file).now()
        """When it was opened, by the site's clock."""
        self.ring = ring
        """Has the running daemon look at the journal; none: whether one runs is to be found out."""
        self._load = configuration
        self.gate = gate
        self.action = action
        self._answers: dict[tuple[Action, str], Allowed | Denied] = {}
        self.cut = False
        """There may be more that the actor sees than were looked at (`SEEN_THROUGH_MAX`)."""
        self._writing = False
        """A transaction is open: another one would wait for its end for ever."""
        self.looks = Looks()
        self.unrecorded: str | None = None
        """Why a look at no patient could not be put on record."""
        self._name = name
        self._reason, self._ask = reason, ask
        self._recorded = False
        """Something was put on record: an act, a look."""
        self.unseen = 0
        """Things that were left out of lists, because they are of patients whom the actor does not see."""

    @property
    def record_store(self) -> Store:
        """The store that has the trail of what is done here."""
        return self._record

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

    def admit(self) -> None:
        """Raises DeniedError, and puts it on record, when the actor may not do what the desk was opened for at all."""
        if self.gate is not None:
            answer = self.gate.at_all(self.action)
            if not answer.allowed:
                self._refuse(self.action, answer, f"action:{self.action}")

    def authorise(self, action: str, subjects: Iterable[str]) -> None:
        """Raises DeniedError, and puts it on record, when the actor may not do it to one of these subjects.

        action: a verb of the trail. Within a transaction (`note`) the denial is put on record after its end, by
        `record_denial`. Whoever may use the command line of a site without `access` may do everything.
        """
        if self.gate is None:
            return
        wanted = OF_VERB.get(action, self.action)
        charts = [subject.removeprefix("chart:") for subject in subjects if subject.startswith("chart:")]
        if charts and CATALOGUE[wanted].patients:
            for chart_id, answer in self._decided(wanted, charts).items():
                if not answer.allowed:
                    self._refuse(wanted, answer, f"chart:{chart_id}")
        elif not (answer := self.gate.at_all(wanted)).allowed:
            self._refuse(wanted, answer, f"action:{wanted}")

    def require(self, chart: Chart) -> None:
        """Raises DeniedError, and puts it on record, when what the desk was opened for may not be done to a patient."""
        if self.gate is not None and CATALOGUE[self.action].patients:
            answer = self._answers.setdefault((self.action, chart.id), self.gate.of(self.action, chart))
            if not answer.allowed:
                self._refuse(self.action, answer, f"chart:{chart.id}")

    def seen(self, items: Sequence[T], of: Callable[[T], tuple[str, str | None]]) -> list[T]:
        """Those of a list that are of patients whom the actor sees. of: gives chart and stay of an item.

        What was left out is counted in `unseen`.
        """
        if self.gate is None or not CATALOGUE[self.action].patients:
            return list(items)
        answers = self._decided(self.action, [of(item)[0] for item in items])
        kept = [item for item in items if _shows(answers.get(of(item)[0]), of(item)[1])]
        self.unseen += len(items) - len(kept)
        self.cut = self.cut or len(items) >= SEEN_THROUGH_MAX
        at_all = self.gate.at_all(self.action)
        if not kept and at_all.allowed and at_all.unless_seen is not None:
            self._refuse(self.action, at_all.unless_seen, f"action:{self.action}")
        return kept

    def most(self, limit: int) -> int:
        """How many things of a list are to be read so that `limit` and one more are seen."""
        return limit + 1 if self.gate is None else max(limit + 1, SEEN_THROUGH_MAX)

    def view(self, reveal: Reveal | None, subjects: Iterable[str]) -> View:
        """How to show these subjects (`chart:9f2c`, `entry:17`). Revealing them is on record before they are shown.

        Raises DeniedError when the actor may not see one of them.
        """
        named = list(dict.fromkeys(subjects))
        shown = self._fields(named, revealed=reveal is not None)
        self.shows(named)
        if reveal is not None:
            if self.looks.searched:
                self.record_search()
            self.authorise("reveal", named)
            if reveal.at_work:
                self._reason = reveal.reason
            else:
                with self.store.reader() as conn:
                    whose = charts_of(self.store, conn, named)
                self._append(
                    [
                        self.record_of("reveal", one, reveal.reason, patients=tuple(found))
                        for one, found in whose.items()
                    ]
                )
                self.looks.known(named)
        return View(self.pseudonym, revealed=reveal is not None, unnamed=self.unnamed_sender, shown=shown)

    # --- looks ---

    def shows(self, subjects: Iterable[str]) -> None:
        """These (`chart:9f2c`, `entry:17`, `delivery:4`) are shown: they are on record before anything is printed."""
        self.looks.add(subjects)

    def asked(self, **terms: str | None) -> None:
        """A patient is asked for by who they are: key, name, birth date, visit. That is a disclosure, whoever is found.

        It has a reason: what was given, or what `ask` is told. Raises DeniedError when the actor has asked too often.
        """
        given = {name: value for name, value in terms.items() if value}
        if not given:
            return
        if not self.looks.searched:
            self._limit_tries()
            if self._reason is None and self._ask is not None and self.gate is None:
                self._reason = self._ask()
        self.looks.searched = True
        self.looks.terms |= given

    def found(self, chart_ids: Iterable[str]) -> None:
        """By what was asked for."""
        self.looks.hits.update(dict.fromkeys(chart_ids))

    def _limit_tries(self) -> None:
        allowed = self.outline.searches_per_hour_max
        since, actor = self.now - timedelta(hours=1), str(self.actor)
        with self._record.reader() as conn:
            tries = self._record.audit.count(conn, since=since, action=SEARCHED, actor=actor)
        if tries >= allowed:
            self.deny(
                f"{allowed:,} patients were asked for by who they are within an hour; wait, or have"
                " trail.searches_per_hour_max of config.yaml raised",
                "action:searches",
            )

    def record_search(self, result: Result = "allowed") -> None:
        """Put on record what was asked for, and who was found."""
        hits = list(self.looks.hits)
        subject = f"chart:{hits[0]}" if len(hits) == 1 else f"look:{self._name}"
        pieces = [hits[at : at + PATIENTS_A_RECORD_MAX] for at in range(0, len(hits), PATIENTS_A_RECORD_MAX)] or [[]]
        terms = "; ".join(f"{name} {value}" for name, value in self.looks.terms.items())
        records = [
            self.record_of(
                SEARCHED, subject, self._reason, result=result, patients=tuple(piece), terms=terms, count=len(hits)
            )
            for piece in pieces
        ]
        self._append(records)
        self.looks.searched = False
        self.looks.known(f"chart:{one}" for one in hits)

    def on_record(self) -> None:
        """Put on record what was shown, and is not yet. Raises StoreError when that can't be: nothing may be shown."""
        if self.looks.searched:
            self.record_search()
        if left := self.looks.left():
            with self.store.reader() as conn:
                whose = charts_of(self.store, conn, left)
            charts = dict.fromkeys(chart for found in whose.values() for chart in found)
            self._looked(list(charts), [subject for subject, found in whose.items() if not found])
            self.looks.known(left)
        look = CATALOGUE[self.action].look
        if look is not None and not self._recorded:
            self._recorded = True
            # Nobody appeared. Who puts a broken store right has to see how it stands.
            try:
                self._append([self.record_of(look, f"look:{self._name}", self._reason)])
            except StoreError as error:
                self.unrecorded = str(error)

    def _looked(self, charts: Sequence[str], others: Sequence[str]) -> None:
        action = TRAIL_READ if CATALOGUE[self.action].look == TRAIL_READ else LOOKED
        fresh = [one for one in charts if one not in self.looks.hits]
        if not fresh and not others:
            return
        subject = f"chart:{fresh[0]}" if len(fresh) == 1 and not others else f"look:{self._name}"
        longest = max(len(fresh), len(others))
        pieces = [slice(at, at + PATIENTS_A_RECORD_MAX) for at in range(0, longest, PATIENTS_A_RECORD_MAX)]
        self._append(
            [
                self.record_of(
                    action, subject, self._reason, patients=tuple(fresh[piece]), others=tuple(others[piece]),
                    count=len(fresh) + len(others),
                )
                for piece in pieces
            ]
        )  # fmt: skip

    def _append(self, records: Sequence[AuditRecord]) -> None:
        if not records:
            return
        self._record.charts_ledger.write_now(lambda conn: self._record.audit.append(conn, records))
        self._recorded = True

    def need(self, view: View, *groups: Group) -> None:
        """Raises DeniedError, and puts it on record, when a view lacks one of these, of which it is made."""
        if self.gate is not None and (lacking := view.lacks(*groups)):
            self._refuse(self.action, self.gate.lacks(lacking), f"action:{self.action}")

    def _fields(self, subjects: Sequence[str], *, revealed: bool) -> Mapping[str, Shown] | None:
        """What is seen of each of these charts, and of all else; none: there is no gate, and everything is."""
        if self.gate is None:
            return None
        charts = [subject.removeprefix("chart:") for subject in subjects if subject.startswith("chart:")]
        shown: dict[str, Shown] = {}
        for action in (self.action, Action.PATIENT_REVEAL) if revealed else (self.action,):
            if not CATALOGUE[action].patients:
                continue
            for chart_id, answer in self._decided(action, charts).items():
                if not answer.allowed:
                    self._refuse(action, answer, f"chart:{chart_id}")
                before = shown.get(chart_id)
                fields = answer.fields if before is None else answer.fields & before.fields
                stays = answer.hidden_stays if before is None else answer.hidden_stays | before.hidden_stays
                shown[chart_id] = Shown(fields, stays)
        if len(charts) < len(subjects):
            everything = revealed and not CATALOGUE[self.action].words
            anybody = self.gate.sees_everything() if everything else self.gate.of_anybody(self.action)
            if not anybody.allowed:
                wanted = Action.PATIENT_REVEAL if everything else self.action
                self._refuse(wanted, anybody, f"action:{wanted}")
        at_all = self.gate.at_all(self.action)
        rest = at_all.fields if at_all.allowed else frozenset()
        for one in shown.values():
            rest &= one.fields
        return shown | {"": Shown(rest, frozenset().union(*(one.hidden_stays for one in shown.values())))}

    def _decided(self, action: Action, chart_ids: Iterable[str]) -> dict[str, Allowed | Denied]:
        """The answer for each of these charts; one that is gone, or can't be read, is denied."""
        assert self.gate is not None  # noqa: S101 - whoever asks has looked
        wanted = list(dict.fromkeys(chart_ids))
        missing = [one for one in wanted if (action, one) not in self._answers]
        for start in range(0, len(missing), _CHARTS_AT_ONCE):
            for chart_id, chart in self._charts(missing[start : start + _CHARTS_AT_ONCE]).items():
                self._answers[action, chart_id] = self.gate.of(action, chart)
        return {one: self._answers[action, one] for one in wanted}

    def _charts(self, chart_ids: Sequence[str]) -> dict[str, Chart | None]:
        """These charts, or those that they were merged into; none: it is gone, or damaged."""
        found: dict[str, Chart | None] = {}
        with self.store.reader() as conn:
            for chart_id in chart_ids:
                try:
                    found[chart_id] = self.store.charts.living(conn, chart_id)
                except TamperedError:
                    found[chart_id] = None
        return found

    def _refuse(self, action: Action, answer: Denied, subject: str) -> NoReturn:
        rule = f" ({answer.rule} of the roles)" if answer.rule else ""
        helps = "; `handoff break-glass` opens it for a while" if answer.glass_helps else ""
        error = DeniedError(f"not allowed: {answer.why}{rule}{helps}", subject, f"{action}: {answer.why}")
        if not self._writing:
            self.record_denial(error)
        raise error

    def deny(self, why: str, subject: str) -> NoReturn:
        """Raises DeniedError, and puts it on record, for a reason that is not the role's."""
        error = DeniedError(f"not allowed: {why}", subject, f"{self.action}: {why}")
        self.record_denial(error)
        raise error

    def record_denial(self, error: DeniedError) -> None:
        """Put a denial on record, unless it is."""
        if error.recorded:
            return
        what, _, id_ = error.subject.partition(":")
        patients = (id_,) if what == "chart" else ()
        record = self.record_of("denied", error.subject, error.reason, result="denied", patients=patients)
        self._record.charts_ledger.write_now(lambda conn: self._record.audit.append(conn, [record]))
        error.recorded = True

    @cached_property
    def accounts(self) -> Accounts:
        from engine.desk.accounts import Accounts

        return Accounts(self._record, str(self.actor), self.now, whence=self.whence)

    def policy(self) -> Policy | None:
        """The roles of the site; none: it has no file of roles. Raises SettingsError."""
        from engine.desk.gate import policy_of
        from engine.outline import ROLES

        if self.gate is not None:
            return self.gate.policy
        snapshot = self.outline.snapshot
        return policy_of({}, snapshot) if ROLES in snapshot.files else None

    def audit(self, action: str, subjects: Iterable[str], reason: str | None = None, **more: Any) -> None:
        """Write to the trail. What changes the store does so in its own transaction instead: `note`."""
        named = list(subjects)
        if named:
            self._record.charts_ledger.write_now(lambda conn: self.note(conn, action, named, reason, **more))

    def note(
        self, conn: Connection, action: str, subjects: Iterable[str], reason: str | None = None, **more: Any
    ) -> None:
        """`audit`, as part of a transaction of the charts: nothing is done that is not on record.

        more: further fields of `AuditRecord`: purpose, patients, result, terms, count.
        """
        named = list(dict.fromkeys(subjects))
        self._writing = True
        try:
            self.authorise(action, named)
        finally:
            self._writing = False
        records = [self.record_of(action, subject, reason, **more) for subject in named]
        self._record.audit.append(conn, records)
        self.acted(named)

    def acted(self, subjects: Iterable[str]) -> None:
        """Something was done to these that leaves a record of its own."""
        self.looks.known(subjects)
        self._recorded = True

    def record_of(self, action: str, subject: str, reason: str | None = None, **more: Any) -> AuditRecord:
        """What the trail is to keep of it: who, when, from where, and for which purpose."""
        if self.gate is not None and "purpose" not in more:
            more["purpose"] = self._purpose(subject, more.get("patients", ()))
        return AuditRecord(
            at=self.now,
            actor=str(self.actor),
            action=action,
            subject=subject,
            reason=reason,
            whence=self.whence,
            **more,
        )

    def _purpose(self, subject: str, patients: Sequence[str]) -> str | None:
        """For which the actor may do what the desk was opened for: by the patients, where they say so in one voice."""
        assert self.gate is not None  # noqa: S101 - whoever asks has looked
        charts = [subject.removeprefix("chart:")] if subject.startswith("chart:") else patients
        answers = [self._answers.get((self.action, one)) for one in charts] or [None]
        said = {one.purpose if one is not None and one.allowed else None for one in answers}
        if len(said) == 1 and (only := said.pop()) is not None:
            return only.value
        at_all = self.gate.at_all(self.action)
        return at_all.purpose.value if at_all.allowed else None

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


def _shows(answer: Allowed | Denied | None, stay: str | None) -> bool:
    return answer is not None and answer.allowed and (stay is None or stay not in answer.hidden_stays)
