"""Charts: patients with all that belongs to them, found by hashes of their identifiers and encounter keys."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, func, literal_column, select

from engine.domain.chart import NOTHING_RENAMED, Chart, Charts, Renamed, Stamp, as_it_happened, identity
from engine.domain.closed import FORM, Closed
from engine.domain.codec import decoder
from engine.domain.consent import Consent, ContactConsent
from engine.domain.patient import Patient, StatedDeath
from engine.domain.record import Phi
from engine.errors import TamperedError
from engine.store.keys import KeyRing
from engine.store.parts import ENCOUNTERS, STORED, Hashes, StoredPart, encounter_hash
from engine.store.schema import chart, closed, encounter, identifier, to_micros
from engine.store.statements import Listed


class ChartDocument(Phi, frozen=True, kw_only=True):
    """The sealed part of a chart."""

    patient: Patient
    stamps: dict[str, Stamp] = {}
    death_stated: StatedDeath = StatedDeath()
    renamed: Renamed | None = None
    consents: tuple[Consent, ...] = ()
    contact_consents: tuple[ContactConsent, ...] = ()
    parts: dict[str, tuple[str, ...]] = {}
    """The keys of all that belongs to it, by part, in order: a row that was taken away or put in is noticed.

    Without what is closed.
    """
    channel: str = ""
    closed: int = 0
    """Version of the summary of what is closed, which has the keys of all that; 0: there is none."""

    def keys_of(self, part: str) -> tuple[str, ...]:
        return self.parts.get(part, ())


_KEYS: Final = Listed(
    identifier.c.key_hash,
    lambda listed: select(identifier.c.key_hash, identifier.c.identity_hash, identifier.c.chart_id).where(listed),
)
_KEYS_LIKE: Final = select(identifier.c.key_hash, identifier.c.chart_id)
_VISITS: Final = Listed(
    encounter.c.encounter_hash,
    lambda listed: select(encounter.c.encounter_hash, encounter.c.chart_id).where(listed),
)
_SEALED: Final = (
    chart.c.id, chart.c.version, chart.c.merged_into, chart.c.due_at, chart.c.due_rank, chart.c.partition, chart.c.test,
)  # fmt: skip
"""What the document of a chart is sealed for (`chart_place`)."""
_CHARTS: Final = Listed(
    chart.c.id,
    lambda listed: select(*_SEALED, chart.c.document).where(listed),
)
_CLOSED: Final = Listed(closed.c.chart_id, lambda listed: select(closed.c.chart_id, closed.c.document).where(listed))
_MERGED: Final = Listed(chart.c.merged_into, lambda listed: select(chart.c.id).where(listed))

_TESTS: Final = Listed(chart.c.id, lambda listed: select(chart.c.id).where(listed, chart.c.test == literal_column("1")))

_decode_closed = decoder(Closed)
decode_chart = decoder(ChartDocument)


class ChartStore:
    """Reading charts. They are written by `record` only.

    Only what is sealed decides who a patient is. The rows of `identifier` and `encounter` say where to look; the chart
    that they lead to is opened, and must itself have the identity or the stay that it was looked up by. The plain
    columns of a chart or task are part of the place that its document is sealed for. So a row that was swapped, moved
    or altered behind our back raises TamperedError, and never leads to another patient.
    """

    def __init__(self, keys: KeyRing) -> None:
        self.keys = self._keys = keys

    def load(
        self,
        conn: Connection,
        identities: Collection[tuple[str, str, str]],
        visits: Collection[str],
        ids: Collection[str] = (),
        *,
        bounded: bool = False,
        bounded_ids: Collection[str] = (),
    ) -> Charts:
        """Every chart that the identities and encounter keys lead to, and those of these ids, merges followed, whole.

        bounded: those that are not named by `ids`, or by a stay that is closed, come without what is closed.
        Raises TamperedError when a row leads to a chart that does not say so itself, or when the row of an identity is
        gone that one of the charts has.
        """
        charts = Charts()
        # By key, because most identities of a batch are namesakes: the same key under another type.
        namesakes: dict[str, list[tuple[str, str, str]]] = {}
        for wanted in identities:
            namesakes.setdefault(f"{wanted[0]}:{wanted[2]}", []).append(wanted)
        by_key = {key_hash(self._keys, key): found for key, found in namesakes.items()}
        by_visit = {encounter_hash(self._keys, key): key for key in visits}
        leads: dict[tuple[str, str, str], str] = {}
        for row in _KEYS.rows(conn, list(by_key)):
            for wanted in by_key[row.key_hash]:
                if identity_hash(self._keys, *wanted) == row.identity_hash:
                    leads[wanted] = row.chart_id
                    break
        places = {by_visit[row.encounter_hash]: row.chart_id for row in _VISITS.rows(conn, list(by_visit))}
        for loaded in self._whole(conn, ids):
            charts.add(loaded)
        others = {*leads.values(), *places.values(), *bounded_ids} - charts.by_id.keys()
        for loaded in self._whole(conn, others, bounded=bounded):
            charts.add(loaded)
        if bounded:
            late = {id_ for key, id_ in places.items() if _is_closed(charts.by_id.get(id_), key)}
            for loaded in self._whole(conn, late):
                charts.add(loaded)
        known = {chart_id: _identities(found) for chart_id, found in charts.by_id.items()}
        for wanted, chart_id in leads.items():
            if wanted not in known.get(chart_id, ()):
                raise TamperedError(self._identifier_place(wanted))
            charts.aliases[wanted] = chart_id
        for wanted in charts.aliases.keys() & set(identities):
            if wanted not in leads:
                raise TamperedError(self._identifier_place(wanted))
        for key, chart_id in places.items():
            if charts.visits.get(key) != chart_id:
                raise TamperedError(ENCOUNTERS.place(encounter_hash(self._keys, key), chart_id))
        return charts

    def load_to_try(
        self, conn: Connection, identities: Collection[tuple[str, str, str]], visits: Collection[str]
    ) -> Charts:
        """As `load`, with the charts to which stays of these have gone: for what can't load more while it decides."""
        charts = self.load(conn, identities, visits)
        ids = set(charts.by_id)
        while more := {gone.chart_id for one in charts.by_id.values() for gone in one.renamed.gone()} - ids:
            ids |= more
            for found in self.load(conn, (), (), more).by_id.values():
                charts.add(found)
        return charts

    def by_id(self, conn: Connection, chart_id: str) -> Chart | None:
        """The chart itself, also when it was merged into another."""
        return next((found for found in self._whole(conn, {chart_id}) if found.id == chart_id), None)

    def living(self, conn: Connection, chart_id: str) -> Chart | None:
        """The chart, or the one that it has ended in; none: there is no such chart."""
        found = {one.id: one for one in self._whole(conn, {chart_id})}
        chart = found.get(chart_id)
        while chart is not None and chart.merged_into is not None:
            chart = found.get(chart.merged_into)
        return chart

    def by_key(self, conn: Connection, key: str) -> list[Chart]:
        """The living charts that `AUTHORITY:ID` leads to; several when two types of identifier share it."""
        return self._living_owners(conn, _KEYS.rows(conn, [key_hash(self._keys, key)]))

    def named(self, conn: Connection, keys: Iterable[str]) -> dict[str, list[str]]:
        """Key -> ids of the charts that the index has for it, for the trail: no chart is opened, so none is checked."""
        hashes = {key_hash(self._keys, key): key for key in keys}
        found: dict[str, list[str]] = {}
        for row in _KEYS.rows(conn, list(hashes)) if hashes else ():
            found.setdefault(hashes[bytes(row.key_hash)], []).append(row.chart_id)
        return found

    def by_key_hash(self, conn: Connection, prefix: bytes) -> list[Chart]:
        """The living charts with a key whose hash (`key_hash`) begins so: what a pseudonym leads to."""
        begins = identifier.c.key_hash.between(prefix.ljust(16, b"\x00"), prefix.ljust(16, b"\xff"))
        return self._living_owners(conn, conn.execute(_KEYS_LIKE.where(begins)).all())

    def _living_owners(self, conn: Connection, rows: Sequence[Any]) -> list[Chart]:
        """The living charts that rows of `identifier` lead to. Raises TamperedError when one leads astray."""
        found = {one.id: one for one in self._whole(conn, {row.chart_id for row in rows})}
        for row in rows:
            owner = found.get(row.chart_id)
            if owner is None or row.key_hash not in {key_hash(self._keys, i.key) for i in owner.patient.identifiers}:
                raise TamperedError(f"identifier.chart_id:{row.key_hash.hex()}")
        return [one for one in found.values() if one.merged_into is None]

    def family_of_key(self, conn: Connection, key: str) -> set[str]:
        """Ids of the charts that `AUTHORITY:ID` leads to, and of all that were merged into them.

        Raises TamperedError when it leads to a chart that does not have it.
        """
        hashed = key_hash(self._keys, key)
        owners = [row.chart_id for row in _KEYS.rows(conn, [hashed])]
        for _, document in self.documents(conn, owners):
            if document is not None and all(item.key != key for item in document.patient.identifiers):
                raise TamperedError(f"identifier.chart_id:{hashed.hex()}")
        return self.family(conn, owners)

    def family(self, conn: Connection, chart_ids: Collection[str]) -> set[str]:
        """These charts, their survivors, and all that were merged into them.

        A chart that can't be read any more does not say what it was merged into: its link is not followed.
        """
        found: set[str] = set()
        wanted = set(chart_ids)
        while wanted:
            found |= wanted
            merged = {row.id for row in _MERGED.rows(conn, sorted(wanted))}
            linked: set[str] = set()
            for row in _CHARTS.rows(conn, sorted(wanted | merged)):
                with suppress(TamperedError):
                    self._open_chart(row)
                    linked |= {row.id} | ({row.merged_into} if row.merged_into else set())
            wanted = linked - found
        return found

    def keys_of(self, conn: Connection, chart_ids: Collection[str]) -> set[str]:
        """`AUTHORITY:ID` of every identifier of these charts; none of a chart that can't be read any more."""
        documents = [document for _, document in self.documents(conn, sorted(chart_ids)) if document is not None]
        return {item.key for document in documents for item in document.patient.identifiers}

    def find(self, conn: Connection, limit: int = 100) -> list[Chart]:
        """The living charts that changed last, newest first."""
        return self.whole(conn, self.latest_ids(conn, limit))

    def latest_ids(self, conn: Connection, limit: int) -> list[str]:
        """Ids of the living charts that changed last, newest first."""
        statement = select(chart.c.id).where(chart.c.merged_into.is_(None)).order_by(chart.c.updated_at.desc())
        return [row.id for row in conn.execute(statement.limit(limit))]

    def changed(self, conn: Connection, since: datetime, until: datetime | None, limit: int) -> list[str]:
        """Ids of the living charts that changed then, those that changed last first."""
        where = [chart.c.merged_into.is_(None), chart.c.updated_at >= to_micros(since)]
        if until is not None:
            where.append(chart.c.updated_at < to_micros(until))
        statement = select(chart.c.id).where(*where).order_by(chart.c.updated_at.desc()).limit(limit)
        return list(conn.execute(statement).scalars())

    def count(self, conn: Connection) -> int:
        """How many charts are living."""
        statement = select(func.count()).select_from(chart).where(chart.c.merged_into.is_(None))
        return int(conn.execute(statement).scalar_one())

    def by_visit(self, conn: Connection, key: str) -> Chart | None:
        """The living chart that an encounter (`AUTHORITY:NUMBER`) belongs to."""
        hashed = encounter_hash(self._keys, key)
        rows = _VISITS.rows(conn, [hashed])
        if not rows:
            return None
        found = self.by_id(conn, rows[0].chart_id)
        if found is None or found.encounter(key) is None:
            raise TamperedError(ENCOUNTERS.place(hashed, rows[0].chart_id))
        return found

    def documents(self, conn: Connection, chart_ids: Sequence[str]) -> list[tuple[str, ChartDocument | None]]:
        """What stands in the charts themselves, without what belongs to them: quick to read, for a search.

        They name all encounters, also those that are closed. None: it is damaged, which must not keep a search from
        finding others.
        """
        found: dict[str, ChartDocument | None] = {}
        for row in _CHARTS.rows(conn, sorted(chart_ids)):
            try:
                document = self._open_chart(row)
                closed = self._summaries(conn, {row.id: document.closed})[row.id] if document.closed else None
            except TamperedError:
                found[row.id] = None
                continue
            if closed is not None:
                every = {"encounters": (*closed.keys, *document.keys_of("encounters"))}
                document = msgspec.structs.replace(document, parts=document.parts | every)
            found[row.id] = document
        return [(chart_id, found[chart_id]) for chart_id in chart_ids if chart_id in found]

    def whole(self, conn: Connection, chart_ids: Sequence[str]) -> list[Chart]:
        """These charts, in this order."""
        found = {one.id: one for one in self._whole(conn, chart_ids)}
        return [found[chart_id] for chart_id in chart_ids if chart_id in found]

    def _whole(self, conn: Connection, chart_ids: Iterable[str], *, bounded: bool = False) -> list[Chart]:
        """The charts, and those that they were merged into. bounded: without what is closed."""
        rows: dict[str, Any] = {}
        wanted = set(chart_ids)
        while wanted:
            found = _CHARTS.rows(conn, sorted(wanted))
            rows.update((row.id, row) for row in found)
            wanted = {row.merged_into for row in found if row.merged_into} - rows.keys()
        if not rows:
            return []
        documents = {chart_id: self._open_chart(row) for chart_id, row in rows.items()}
        versions = {id_: document.closed for id_, document in documents.items() if document.closed}
        summaries = self._summaries(conn, versions) if versions else {}
        short = {id_: documents[id_] for id_, closed in summaries.items() if bounded and closed.form == FORM}
        ids = [id_ for id_, row in rows.items() if row.merged_into is None and id_ not in short]
        # A summary names parts too; only where no chart has any of a kind is there nothing to ask for.
        kinds = {name for document in documents.values() for name, keys in document.parts.items() if keys}
        whole = bool(summaries.keys() - short.keys())
        hashes = Hashes(self._keys)
        by_part: list[tuple[StoredPart, dict[str, dict[str, Any]]]] = []
        for stored in STORED:
            found_of: dict[str, dict[str, Any]] = {}
            if whole or stored.name in kinds:
                found_of = stored.load(conn, self._keys, ids) if ids else found_of
                some = {id_: names for id_, document in short.items() if (names := document.keys_of(stored.name))}
                found_of.update(stored.load_some(conn, self._keys, hashes, some) if some else ())
            by_part.append((stored, found_of))
        return [
            self._assemble(row, documents[id_], summaries.get(id_), by_part, bounded=id_ in short)
            for id_, row in rows.items()
        ]

    def _summaries(self, conn: Connection, versions: Mapping[str, int]) -> dict[str, Closed]:
        """What is closed of these charts. versions: of the summaries, by chart. Raises TamperedError."""
        rows = {row.chart_id: row.document for row in _CLOSED.rows(conn, list(versions))}
        found: dict[str, Closed] = {}
        for chart_id, version in versions.items():
            place = closed_place(chart_id, version)
            if chart_id not in rows:
                raise TamperedError(place)
            found[chart_id] = _decode_closed(self._keys.open(place, rows[chart_id]))
        return found

    def _assemble(
        self,
        row: Any,
        document: ChartDocument,
        closed: Closed | None,
        found: Sequence[tuple[StoredPart, Mapping[str, Mapping[str, Any]]]],
        *,
        bounded: bool,
    ) -> Chart:
        fields: dict[str, Any] = {}
        more = closed.keys_of_parts() if closed is not None and not bounded else {}
        for stored, by_chart in found:
            own, names = by_chart.get(row.id, {}), document.keys_of(stored.name)
            if more:
                names = (*more.get(stored.name, ()), *names)
            if own.keys() != set(names):
                raise TamperedError(chart_place(*row[:-1]))
            fields[stored.name] = tuple([own[name] for name in names])
            if stored.stamped:
                stored.spread(fields)
        if more:
            fields["encounters"] = as_it_happened(fields["encounters"])
        return Chart(
            id=row.id,
            version=row.version,
            patient=document.patient,
            stamps=document.stamps,
            death_stated=document.death_stated,
            renamed=document.renamed or NOTHING_RENAMED,
            consents=document.consents,
            contact_consents=document.contact_consents,
            channel=document.channel,
            test=bool(row.test),
            merged_into=row.merged_into,
            closed=closed if bounded else None,
            **fields,
        )

    def patient_keys(self, conn: Connection, chart_ids: Collection[str]) -> dict[str, str]:
        """The keys of those of the patients whose charts can be read, by chart."""
        documents = self.documents(conn, sorted(set(chart_ids)))
        return {chart_id: document.patient.key for chart_id, document in documents if document is not None}

    def tests(self, conn: Connection, chart_ids: Collection[str]) -> set[str]:
        """Those that test data has made."""
        return {row.id for row in _TESTS.rows(conn, sorted(set(chart_ids)))} if chart_ids else set()

    def _open_chart(self, row: Any) -> ChartDocument:
        return decode_chart(self._keys.open(chart_place(*row[:-1]), row.document))

    def _identifier_place(self, wanted: tuple[str, str, str]) -> str:
        return f"identifier.chart_id:{identity_hash(self._keys, *wanted).hex()}"


def _is_closed(chart: Chart | None, visit: str) -> bool:
    return chart is not None and chart.closed is not None and visit in chart.closed.keys


def _identities(chart: Chart) -> set[tuple[str, str, str]]:
    return {identity(item) for item in chart.patient.identifiers}


def identity_hash(keys: KeyRing, authority: str, type_: str, value: str) -> bytes:
    return keys.lookup("identity", authority, type_, value)


def key_hash(keys: KeyRing, key: str) -> bytes:
    """key: `AUTHORITY:ID`."""
    return keys.lookup("key", key)


def chart_place(
    chart_id: str,
    version: int,
    merged_into: str | None,
    due_at: int | None,
    due_rank: int | None,
    partition: int | None,
    test: int,
) -> str:
    return f"chart.document:{chart_id}/{version}/{merged_into or ''}/{due_at}/{due_rank}/{partition}/{test}"


def closed_place(chart_id: str, version: int) -> str:
    """version: of the chart when the summary was written."""
    return f"closed.document:{chart_id}/{version}"
