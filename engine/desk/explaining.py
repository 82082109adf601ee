"""Explaining: decisions about a patient, a task, page, appointment or entry, from what the store has kept of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from engine.desk import finding
from engine.domain.cause import action_of, read
from engine.domain.chart import Chart
from engine.domain.decision import Decision
from engine.domain.message import EntryKind
from engine.domain.patient import Patient
from engine.domain.shapes import plain
from engine.errors import HandoffError, NotFoundError, TamperedError
from engine.pipeline.decisions import Happened, Place, Rules, Sent, decisions

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.desk.desk import Desk
    from engine.desk.seeing import View
    from engine.domain.delivery import QueuedDelivery
    from engine.snapshot import Snapshot
    from engine.store.journal import ListedEntry
    from engine.store.listed import ListedStore
    from engine.store.record import RecordedOutcome

ENTRIES_MAX: Final = 1_000
"""Of a patient at most so many entries are read, the newest."""
_ENTRY_DIGITS_MAX: Final = 18
_ENCOUNTER: Final = frozenset({"class", "disposition", "discharged_at", "admitted_at", "status"})
_PATIENT: Final = frozenset({"deceased", "deceased_at", "birth_date"})
_OURS: Final = frozenset({"band", "rollout", "due_at", "raised_for", "task"})
"""Inputs that are words of ours."""


class Story(NamedTuple):
    """What was decided. cut: there was more, before it."""

    chart: Chart
    key: str
    """Of the patient."""
    decisions: list[Decision]
    entries: dict[int, Happened]
    cut: bool


def why(desk: Desk, named: str) -> Story:
    """Of a patient (key or pseudonym), or what concerns a task, a page, an appointment or an entry
    (its number).

    Raises NotFoundError.
    """
    if ":" in named:
        try:
            return _story(desk, finding.chart(desk, named))
        except NotFoundError:  # all that there is of some is messages that died
            key = finding.patient_key(desk, named)
            return _story(desk, Chart(id="", patient=Patient(identifiers=())), key)
    if named.isdecimal() and len(named) <= _ENTRY_DIGITS_MAX:
        return _of_entry(desk, int(named))
    return _of_part(desk, named)


def _of_entry(desk: Desk, entry_id: int) -> Story:
    with desk.store.reader() as conn:
        found = desk.store.recorder.outcomes(conn, [entry_id]).get(entry_id)
        chart = desk.store.charts.living(conn, found.chart_id) if found is not None and found.chart_id else None
    if chart is None:
        raise NotFoundError(f"no patient is known of entry {entry_id}: `handoff messages show {entry_id}`")
    story = _story(desk, chart)
    return story._replace(decisions=[one for one in story.decisions if entry_id in one.causes])


def _of_part(desk: Desk, named: str) -> Story:
    store = desk.store
    kinds: tuple[ListedStore[Any], ...] = (store.tasks, store.pages, store.appointments, store.texts)
    with store.reader() as conn:
        begun = {id_: kind for kind in kinds for id_ in kind.beginning(conn, named, finding.CANDIDATES_MAX)}
        if not begun:
            raise NotFoundError(
                f"there is no task, page, appointment or text {named}: `handoff tasks list`, `pages list --all`,"
                " `appointments list` and `texts list` show the ids"
            )
        whole = finding.by_prefix("thing", named, sorted(begun))
        listed = begun[whole].get(conn, whole)
        chart = store.charts.living(conn, listed.chart_id) if listed is not None else None
    if chart is None:  # pragma: no cover - what was found a moment ago is never taken away
        raise NotFoundError(f"there is no {begun[whole].what} {named}")
    story = _story(desk, chart)
    return story._replace(decisions=[one for one in story.decisions if whole in {one.subject, *one.effects}])


def _story(desk: Desk, chart: Chart, key: str | None = None) -> Story:
    """key: of a patient without a chart."""
    store = desk.store
    key = key or chart.patient.key
    with store.reader() as conn:
        family = sorted(store.charts.family(conn, {chart.id})) if chart.id else []
        listed = store.journal.find(conn, kind=None, patient=key, limit=ENTRIES_MAX + 1)
        besides = sorted(set(store.recorder.concerned(conn, family)) - {one.id for one in listed})
        listed += store.journal.listed(conn, besides[-ENTRIES_MAX:])
        listed.sort(key=lambda one: one.id)
        cut = len(listed) > ENTRIES_MAX
        listed = listed[-ENTRIES_MAX:]
        happened = _happened(desk, conn, listed)
    return Story(chart, key, decisions(chart, happened), {one.entry: one for one in happened}, cut)


def _happened(desk: Desk, conn: Connection, listed: Sequence[ListedEntry]) -> list[Happened]:
    store = desk.store
    ids = [one.id for one in listed]
    outcomes: dict[int, RecordedOutcome] = {}
    try:
        outcomes = store.recorder.outcomes(conn, ids)
    except TamperedError:
        for one in ids:  # what can't be read tells nothing; the others do
            with suppress(TamperedError):
                outcomes |= store.recorder.outcomes(conn, [one])
    deliveries = store.outbox.of_entries(conn, ids)
    then = _Then(desk)
    return [_one(desk, conn, entry, outcomes.get(entry.id), deliveries.get(entry.id, ()), then) for entry in listed]


def _one(
    desk: Desk,
    conn: Connection,
    entry: ListedEntry,
    outcome: RecordedOutcome | None,
    deliveries: Sequence[QueuedDelivery],
    then: _Then,
) -> Happened:
    of_cause = entry.kind is not EntryKind.MESSAGE
    whole = desk.store.journal.entry(conn, entry.id) if of_cause or entry.replay_of else None
    by, said, what = None, None, entry.type or entry.kind.value
    if whole is not None and of_cause:
        with suppress(ValueError):
            cause = read(whole.payload)
            by, said, what = cause.actor, cause.reason, action_of(cause)
    return Happened(
        entry=entry.id,
        kind=entry.kind,
        what=what,
        at=outcome.recorded_at if outcome is not None else entry.received_at,
        root=whole.replay_root if whole is not None else None,
        state=entry.state,
        reason=entry.reason,
        effects=outcome.effects if outcome is not None else (),
        why=outcome.why if outcome is not None else (),
        stay=outcome.encounter_key if outcome is not None else None,
        sent=tuple(map(_sent, deliveries)),
        rules=then.rules(entry.channel, outcome.config_version if outcome is not None else ""),
        by=by if entry.kind is EntryKind.ACT else None,
        said=said,
    )


def _sent(queued: QueuedDelivery) -> Sent:
    about: str | None = None
    with suppress(msgspec.MsgspecError):
        content = queued.delivery.content if queued.unreadable is None else None
        if content is not None:  # the call of a person is about its page
            about = getattr(content, "page_id", None) or next(iter(content.about), None)
    return Sent(
        id=queued.id,
        destination=queued.delivery.destination,
        what=queued.delivery.operation.what,
        state=queued.state,
        error=queued.error,
        at=queued.settled_at or queued.created_at,
        about=about,
    )


class _Then:
    """What the configurations said under which entries were decided."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._snapshots: dict[str, Snapshot] = {}
        self._rules: dict[tuple[str, str], Rules] = {}

    def rules(self, channel: str, version: str) -> Rules:
        place = (channel, version)
        if place not in self._rules:
            self._rules[place] = self._read(channel, version)
        return self._rules[place]

    def _read(self, channel: str, version: str) -> Rules:
        """Only what the files say as they stand: a configuration that can't be loaded any more was in force."""
        try:
            snapshot = self._snapshot(version)
            site = _mapping(snapshot.document(snapshot.site_file).value)
            folder = str(site.get("mappings") or "mappings")
            channels = [
                _mapping(snapshot.document(file).value)
                for file in snapshot.below(str(site.get("channels") or "channels"))
                if file.endswith(".yaml") and not file.endswith(".test.yaml")
            ]
            own: Mapping[str, Any] = next((one for one in channels if one.get("name") == channel), {})
            versions = {**_versions(snapshot, f"{folder}/protocols"), **_versions(snapshot, f"{folder}/risk")}
            fields = f"{folder}/fields/{own.get('mapping')}.yaml"
            return Rules(
                version=version,
                protocol=own.get("protocol"),
                versions=versions,
                places=_places(snapshot, f"{folder}/protocols"),
                actions=_actions(snapshot, f"{folder}/care/dispositions.yaml"),
                models={str(one.get("protocol")): str((one.get("risk") or [""])[0]) for one in channels},
                locations=_locations(snapshot.document(fields).value) if fields in snapshot.files else {},
            )
        except HandoffError:
            return Rules(version=version)

    def _snapshot(self, version: str) -> Snapshot:
        from engine.runtime.configurations import recorded_snapshot

        current = self._desk.outline.snapshot
        if version in {"", current.version}:
            return current
        if version not in self._snapshots:
            found = recorded_snapshot(self._desk.store, current.base, version)
            self._snapshots[version] = found or current
        return self._snapshots[version]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _versions(snapshot: Snapshot, folder: str) -> dict[str, str]:
    """Name of the file -> what it says its version is."""
    found: dict[str, str] = {}
    for file in snapshot.below(folder):
        name = file.rpartition("/")[2].removesuffix(".yaml")
        if not name.endswith(".test") and (said := _mapping(snapshot.document(file).value).get("version")) is not None:
            found[name] = str(said)
    return found


def _places(snapshot: Snapshot, folder: str) -> dict[str, tuple[Place, ...]]:
    """Name of a protocol -> its tasks."""
    found: dict[str, tuple[Place, ...]] = {}
    for file in snapshot.below(folder):
        name = file.rpartition("/")[2].removesuffix(".yaml")
        if not name.endswith(".test"):
            found[name] = tuple(_steps(_mapping(snapshot.document(file).value).get("plans"), "plans"))
    return found


def _steps(value: Any, path: str) -> Iterator[Place]:
    match value:
        case {"kind": str(kind)}:
            here = f"{path}.{value.get('name') or kind}"
            yield Place(path=here, kind=kind, reason=str(value.get("reason", "")))
            rungs = value.get("escalate")
            for number, rung in enumerate(rungs if isinstance(rungs, list) else ()):
                yield from _steps(_mapping(rung).get("alert"), f"{here}.escalate[{number}].alert")
        case list():
            for one in value:
                yield from _steps(one, path)
        case dict():
            for name, one in value.items():
                yield from _steps(one, f"{path}.{name}")


def _actions(snapshot: Snapshot, file: str) -> dict[str, str]:
    """Code of a disposition -> what it calls for."""
    codes = _mapping(_mapping(snapshot.document(file).value).get("codes")) if file in snapshot.files else {}
    said = {str(code): _mapping(one) for code, one in codes.items()}
    actions = {code: said.get(str(one.get("twin")), one).get("action") for code, one in said.items()}
    return {code: str(action) for code, action in actions.items() if action}


def _locations(fields: Any) -> dict[str, str]:
    """Target of a field map -> the first HL7 field that it reads."""
    return {target: place for target, rule in _mapping(fields).items() if (place := _place(rule))}


def _place(rule: Any) -> str:
    match rule:
        case str():
            return rule
        case [first, *_]:
            return _place(first)
        case {"from": found} | {"first_of": found} | {"path": found}:
            return _place(found)
        case {"parts": {"code": found}} | {"each": found}:
            return _place(found)
    return ""


# --- as it may be shown


def decision_shape(one: Decision, view: View) -> dict[str, Any]:
    """The contract's shape."""
    return {
        **plain(one),
        "subject": view.key(one.subject) if ":" in one.subject else one.subject,
        "stay": view.key(one.stay),
        "said": view.text(one.said),
        "inputs": [
            {
                # That somebody counts for heart failure says as much as the points.
                "name": view.text(item.name) if _part(item.name) == "scores" else item.name,
                "value": _value(item.name, item.value, view),
                "entry": item.entry or None,
                "location": item.location or None,
            }
            for item in one.inputs
        ],
    }


def _part(name: str) -> str:
    """Of the chart, that an input is of; `scores`: a factor of one."""
    if name in _OURS:
        return ""
    return "encounter" if name in _ENCOUNTER else "patient" if name in _PATIENT else "scores"


def _value(name: str, value: Any, view: View) -> Any:
    if name in _OURS:
        return value
    part = _part(name)
    return view.told(f"{part}.{name}", value) if part != "scores" else view.text(value)
