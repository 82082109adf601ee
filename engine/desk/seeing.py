"""The one place that decides how much of a patient is shown: masked, or revealed with a reason that is audited.

Masked output stays useful: states, task kinds, codes of disposition, of a stay its days, and the structure stay; who it
is goes, and what they have. A patient (or visit) key becomes a pseudonym, `MRN:~3f9a1c2b`, the same one for the same
patient everywhere, which commands take in place of the key. An authority that no channel is configured with is what a
sender wrote: `~5be7d2aa`. So is the name of a sender (MSH-3/MSH-4) that the site does not name and of which nothing
listed was processed: in a message that is garbage a patient's name may stand there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from engine.access.fields import ALL, Group, sees, sees_part
from engine.domain.parts import ENCOUNTERS, PARTS, Mask, Part
from engine.errors import NotFoundError, TamperedError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.desk.desk import Desk, Reveal
    from engine.domain.chart import Chart
    from engine.domain.delivery import QueuedDelivery
    from engine.domain.outcome import Effect
    from engine.domain.standing import Standing
    from engine.domain.why import Why
    from engine.settings import Channel
    from engine.store.admissions import Withheld
    from engine.store.holds import ListedHold
    from engine.store.journal import ListedEntry
    from engine.store.record import RecordedOutcome

HIDDEN: Final = "***"
_BEFORE_MAX: Final = 50
"""At most this many earlier messages of a patient are looked at for what was said of a stay."""
PSEUDONYM: Final = re.compile(r"(?P<authority>[^:]*):~(?P<hash>[0-9a-f]{8})")

_DAY_LENGTH: Final = len("2026-11-29")
_ANSWERS: Final = frozenset({"AA", "AE", "AR", "CA", "CE", "CR"})
_CODE: Final = re.compile(r"[A-Za-z0-9]{1,4}")

# What stays visible of a patient (of other parts: `domain.parts`); everything else is hidden, so that a field which is
# added later is hidden until someone decides.
_PATIENT: Final = frozenset({"deceased"})
_PATIENT_CODES: Final = frozenset({"sex"})
_MASKS: Final = {part.what: part.mask for part in PARTS}
_AT: Final = {"patient": Mask(shown=_PATIENT, codes=_PATIENT_CODES, keys=frozenset({"key"}))} | {
    name: part.mask for part in PARTS for name in (part.what, part.name)
}
"""By the first word of a path."""
_FREE: Final = frozenset({"chart", "deliveries", "deviations", "error", "event", "events", "holds", "plan", "state"})
"""Words that begin paths of an outcome, and lead to codes, times, opaque ids and sentences of ours."""
_KEYS_OF_CONTENTS: Final = ("patient_key", "survivor", "merged")
_FLAGS_OF_CONTENTS: Final = ("decides", "withdrawn")


def shows(path: str, value: Any) -> bool:
    """Whether a value at a path (`encounter.disposition`, `tasks.education.due_at`) tells nothing of who it is.

    Decided by the path, and by the form of a code: a code that is a text is none.
    """
    part, _, name = path.partition(".")
    mask = _AT.get(part)
    if mask is None:
        return part in _FREE
    if mask.shown is None:
        field = name.rpartition(".")[2]
        return not {field} & {*mask.keys, *mask.inner, *mask.typed, *mask.counted} and mask.counted.isdisjoint(
            name.split(".")
        )
    if not name or name in mask.shown or name in mask.days:
        return True
    return name in mask.codes | mask.apart and isinstance(value, str) and _is_code(value)


class Shown(NamedTuple):
    """What somebody sees of a patient, by their role."""

    fields: frozenset[Group]
    hidden_stays: frozenset[str]
    """Keys of stays that are not seen, nor what hangs on them."""


class View:
    """The contract's shapes as they may be shown. `pseudonym` gives the stable stand-in of a patient or visit key.

    Two things decide. What the actor's role does not see of a patient is not in the answer: `null`, and its group is
    named in `not_shown`. What they see is masked, unless it is revealed.
    """

    def __init__(
        self,
        pseudonym: Callable[[str], str],
        *,
        revealed: bool,
        unnamed: Callable[[str], str] | None = None,
        shown: Mapping[str, Shown] | None = None,
    ) -> None:
        """unnamed: what of a sender's name the site does not name, replaced; none: a sender is not hidden. shown: what
        is seen, by chart; empty: of all else. None: everything.
        """
        self._pseudonym = pseudonym
        self._unnamed = unnamed
        self.revealed = revealed
        self._by_chart = shown
        self._shown = shown.get("") if shown is not None else None

    def of(self, chart_id: str | None) -> View:
        """The view of this chart. Of one of a list that is looked at together."""
        if self._by_chart is None:
            return self
        shown = self._by_chart.get(chart_id or "", self._by_chart[""])
        return View(self._pseudonym, revealed=self.revealed, unnamed=self._unnamed, shown={"": shown})

    def sees(self, part: str, field: str) -> bool:
        """Whether the actor's role sees a field of a part at all."""
        return self._shown is None or sees(part, field, self._shown.fields)

    def lacks(self, *groups: Group) -> list[Group]:
        """Which of these groups are not seen; all, when a stay is hidden from what can't be shown without it."""
        if self._shown is None:
            return []
        return list(groups) if self._shown.hidden_stays else [one for one in groups if one not in self._shown.fields]

    def _seen(self, part: str, shape: dict[str, Any]) -> dict[str, Any]:
        """The shape without what is not seen: nothing in its place, and the groups named."""
        if self._shown is None or self._shown.fields >= ALL:
            return shape
        kept = {
            name: value if sees(part, name, self._shown.fields) else [] if isinstance(value, list | tuple) else None
            for name, value in shape.items()
        }
        return kept | {"not_shown": sorted(str(group) for group in ALL - self._shown.fields)}

    def key(self, key: str | None) -> str | None:
        if key is None or (self.revealed and self.sees("patient", "key")):
            return key
        return self._pseudonym(key)

    def sender(self, sender: str | None, *, known: bool) -> str | None:
        """MSH-3/MSH-4, `EPIC/MAIN`. known: a message that it sent was accepted and processed."""
        if known or self.revealed or self._unnamed is None or not sender:
            return sender
        return self._unnamed(sender)

    def receipt(self, receipt: str | None) -> str | None:
        """The far end's word for a delivery: an id, which may be anybody's, or the code of an HL7 answer."""
        return receipt if receipt in _ANSWERS else self.text(receipt)

    def text(self, text: str | None) -> str | None:
        """A text that may hold anything."""
        return text if self.revealed else hide(text)

    def patient(self, shape: Mapping[str, Any]) -> dict[str, Any]:
        return self._seen("patient", self._patient(shape)) | {"key": self.key(shape["key"])}

    def _patient(self, shape: Mapping[str, Any]) -> dict[str, Any]:
        if self.revealed:
            return dict(shape)
        masked = _hide_but(shape, _PATIENT, _PATIENT_CODES)
        masked["key"] = self.key(shape["key"])
        masked["identifiers"] = [
            _hide_but(item, (), {"type"}) | {"authority": self._pseudonym(f"{item['authority']}:").partition(":")[0]}
            for item in shape["identifiers"]
        ]
        for name in ("merged_from", "links"):
            masked[name] = [self.key(key) for key in shape[name]]
        return masked

    def part(self, what: str, shape: Mapping[str, Any]) -> dict[str, Any]:
        """One of the parts of a chart: `encounter`, `score`, `task`."""
        shown = self._seen(what, self._part(what, shape))
        return shown | {"patient_key": self.key(shape["patient_key"])} if "patient_key" in shape else shown

    def _part(self, what: str, shape: Mapping[str, Any]) -> dict[str, Any]:
        if self.revealed:
            return dict(shape)
        mask = _MASKS[what]
        masked = dict(shape) if mask.shown is None else _hide_but(shape, mask.shown, mask.codes)
        masked |= {name: day(shape[name]) for name in mask.days if name in shape}
        masked |= {name: self.key(shape[name]) for name in mask.keys if name in shape}
        inner = {
            name: [_hide_but(item, shown) for item in shape[name]]
            for name, shown in mask.inner.items()
            if name in shape
        }
        typed = {name: hide(shape[name]) for name in mask.typed} if mask.typed and shape.get("closed_by") else {}
        for name in mask.counted & masked.keys():
            masked |= {name: [], f"{name}_masked": len(shape[name])}
        return masked | inner | typed

    def at(self, path: str, value: Any) -> Any:
        """A value out of a path of a chart or outcome; see `shows`."""
        if self.revealed or shows(path, value):
            return value
        part, _, name = path.partition(".")
        is_key = part in _AT and name in _AT[part].keys
        return self.key(value) if is_key and isinstance(value, str) else hide(value)

    def told(self, path: str, value: Any) -> Any:
        """Like `at`, as it is answered to somebody who asked by who the patient is: of the times of a stay the day."""
        part, _, name = path.partition(".")
        if self.revealed or part not in _AT:
            return self.at(path, value)
        return (
            day(value) if name in _AT[part].days else hide(value) if name in _AT[part].apart else self.at(path, value)
        )

    def chart(self, shape: Mapping[str, Any]) -> dict[str, Any]:
        parts = {part.name: self._items(part, shape[part.name]) for part in PARTS}
        moved = [{name: self.key(key) for name, key in one.items()} for one in shape["moved_away"]]
        return self.patient(shape) | parts | {"moved_away": moved if self.sees("patient", "moved_away") else []}

    def _items(self, part: Part, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The parts of a chart that are seen: of a kind that the role sees, and of no stay that is hidden."""
        if self._shown is None:
            return [self.part(part.what, item) for item in items]
        if not sees_part(part.what, self._shown.fields):
            return []
        hidden = self._shown.hidden_stays
        kept = [item for item in items if not hidden or _stay_of(part, item) not in hidden]
        shown = [self.part(part.what, item) for item in kept]
        if hidden and part.what == "score":  # what of a patient counts for a score may come from a stay that is hidden
            shown = [item | {"factors": [factor | {"evidence": None} for factor in item["factors"]]} for item in shown]
        return shown

    def payload(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The payload of a delivery, part by part; what has no mask here is hidden."""
        if self.revealed:
            return dict(payload)
        masks: dict[str, Callable[[Any], Any]] = {
            "patient": self.patient,
            **{what: partial(self.part, what) for what in _MASKS},
            **dict.fromkeys(_KEYS_OF_CONTENTS, self.key),
        }
        shown = {name: payload[name] for name in _FLAGS_OF_CONTENTS if name in payload}
        hidden = {name for name in _MASKS if not isinstance(payload.get(name), Mapping)}  # the words of a call: `text`
        return {
            name: (hide if name in hidden else masks.get(name, hide))(value) for name, value in payload.items()
        } | shown


def _stay_of(part: Part, item: Mapping[str, Any]) -> str | None:
    key: str | None = item.get("key") if part is ENCOUNTERS else item.get("encounter", item.get("visit"))
    return key


def hide(value: Any) -> Any:
    """The same structure without its content. What was absent stays absent."""
    if isinstance(value, Mapping):
        return {name: hide(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [hide(item) for item in value]
    return None if value is None else HIDDEN


def day(at: str | None) -> str | None:
    """The day of a time in ISO 8601, as it was written; what is not as exact stays as it is."""
    return at if at is None else at[:_DAY_LENGTH]


def _hide_but(item: Mapping[str, Any], shown: Collection[str], codes: Collection[str] = frozenset()) -> dict[str, Any]:
    """codes: fields that are shown when they hold a short code, as they should, and no text."""

    def visible(name: str, value: Any) -> bool:
        return name in shown or (name in codes and isinstance(value, str) and _is_code(value))

    return {name: value if visible(name, value) else hide(value) for name, value in item.items()}


def _is_code(value: str) -> bool:
    return _CODE.fullmatch(value) is not None


# --- the contract's shapes, masked -----------------------------------------------------------------------------------


def entry_shape(entry: ListedEntry, view: View) -> dict[str, Any]:
    from engine.domain.shapes import plain

    # Who acts is a user of this machine, and no value of a message.
    sender = entry.peer if entry.kind == "act" else view.sender(entry.sender, known=_known(entry))
    hidden = {"patient_key": view.key(entry.patient_key), "sender": sender}
    return plain(entry) | hidden  # type: ignore[no-any-return]  # a dict


def _known(entry: ListedEntry) -> bool:
    """It was processed, so that its header is one, and names a sender."""
    return entry.state == "processed"


def patient_details(desk: Desk, chart: Chart, reveal: Reveal | None) -> dict[str, Any]:
    """A patient with encounters, scores, tasks, what is held for a person, and dead messages."""
    from engine.domain.parts import chart_shape
    from engine.domain.shapes import plain

    with desk.store.reader() as conn:
        holds = desk.store.holds.of_chart(conn, chart.id)
        letters = desk.store.dead_letters.of_patient(conn, desk.keys, chart.patient.key)
    view = desk.view(reveal, [f"chart:{chart.id}"]).of(chart.id)
    sees = view.sees("patient", "held")
    held = {"held": [hold_shape(one, view) for one in holds if sees], "dead": plain(letters) if sees else []}
    return view.chart(chart_shape(chart)) | {"test": chart.test} | held


def entry_details(desk: Desk, entry_id: int, make_view: Callable[[], View]) -> dict[str, Any]:
    """One entry with everything that is known of it. Raises NotFoundError."""
    import msgspec

    from engine.access.copies import CODES
    from engine.domain.message import EntryKind, EntryState
    from engine.domain.shapes import plain, quality_shape
    from engine.domain.why import Reason
    from engine.pipeline.why import says_nothing, why_shapes
    from engine.store import notices

    store = desk.store
    damaged: list[str] = []
    with store.reader() as conn:
        listed = store.journal.find(conn, ids=[entry_id])
        entry = store.journal.entry(conn, entry_id)
        try:
            outcome = store.recorder.outcomes(conn, [entry_id]).get(entry_id)
        except TamperedError:
            outcome = None
            damaged.append("outcome")
        deliveries = store.outbox.of_entry(conn, entry_id)
        receipts = store.outbox.receipts(conn, [queued.id for queued in deliveries])
        # How they stand says why something waits, and is not asked for what does not.
        waiting = any(queued.state == "pending" for queued in deliveries)
        found = store.destinations.standings(conn, desk.outline.destinations, desk.now) if waiting else []
        standings = {one.name: one for one in found}
        gone = notices.without_ground(conn, [queued.id for queued in deliveries])
        took = notices.taken_back_by(conn, entry_id)
        taken = [(one, store.outbox.get(conn, one.delivery_id)) for one in took]
        letters = store.dead_letters.of_entry(conn, entry_id)
        holds = store.holds.of_message(conn, entry.replay_root or entry_id) if entry is not None else []
    if not listed or entry is None:
        raise NotFoundError(f"there is no entry {entry_id} in the journal")
    if entry.damaged:
        damaged.insert(0, "erased" if entry.erased else "message")
    if None in receipts.values():
        damaged.append("receipt")
    if desk.in_shadow and outcome is None and not damaged:
        raise NotFoundError(f"entry {entry_id} was not processed in shadow")
    view = make_view()
    channel = desk.configuration.channels.get(entry.channel)
    living = [one for one in deliveries if not (one.state == "withheld" and one.error == Reason.SHADOW)]
    kept = {one.id: one.error for one in living if one.state == "withheld" and one.error in CODES}
    sent = [(one.delivery.destination, one.delivery.operation) for one in living if one.id not in kept]
    withheld = [
        (one.delivery.destination, one.delivery.operation, code) for one in living if (code := kept.get(one.id))
    ]
    then = _channel_then(desk, entry.channel, outcome.config_version) if outcome else channel
    of_message = entry.kind is EntryKind.MESSAGE
    told = of_message and (outcome is not None or "outcome" not in damaged)
    if outcome is not None and outcome.state is EntryState.PROCESSED and says_nothing(outcome):
        outcome = msgspec.structs.replace(outcome, why=_said_before(desk, listed[0], outcome))
    text = None if entry.damaged else payload_text(entry.payload, channel) if of_message else entry.payload.decode()
    return entry_shape(listed[0], view) | {
        "damaged": damaged,
        "peer": entry.peer or None,
        "version": entry.summary.version,
        "sending_application": view.sender(entry.summary.sending_application, known=_known(listed[0])),
        "sending_facility": view.sender(entry.summary.sending_facility, known=_known(listed[0])),
        "deviations": list(dict.fromkeys((*entry.deviations, *(outcome.deviations if outcome else ())))),
        "quality": [quality_shape(one) for one in (outcome.quality if outcome else ())],
        "charset": outcome.charset if outcome else None,
        "refusal": plain(entry.refusal),
        "replay_root": entry.replay_root,
        "config_version": outcome.config_version if outcome else None,
        "recorded_at": plain(outcome.recorded_at) if outcome else None,
        "encounter": view.key(outcome.encounter_key) if outcome else None,
        "effects": [effect_shape(effect, view) for effect in (outcome.effects if outcome else ())],
        "deliveries": [
            delivery_shape(queued, view, standings.get(queued.delivery.destination), receipts)
            | {"without_ground": plain(gone.get(queued.id))}
            for queued in deliveries
        ],
        "took_ground_of": [
            {
                "delivery": one.delivery_id,
                "destination": queued.delivery.destination,
                "state": queued.state,
                "code": one.code,
            }
            for one, queued in taken
            if queued is not None
        ],
        "dead_letters": plain(letters),
        "held": [hold_shape(one, view) for one in holds],
        "why": why_shapes(listed[0].state, outcome, sent, then, replay=entry.replay_of is not None, withheld=withheld)
        if told
        else [],
        "payload": view.text(text),
    }


def _said_before(desk: Desk, entry: ListedEntry, outcome: RecordedOutcome) -> tuple[Why, ...]:
    """Why the stay that a message spoke of has no plan, or no score, as it was said when that was last worked out."""
    from engine.domain.message import EntryKind
    from engine.domain.why import MEANINGS, Reason, What, Why

    asked = (What.PLAN, What.SCORE)
    if outcome.encounter_key is None:
        return tuple(Why(what=what, reason=Reason.NO_VISIT) for what in asked)
    try:
        with desk.store.reader() as conn:
            earlier = desk.store.journal.find(
                conn, kind=EntryKind.MESSAGE, patient=entry.patient_key, before=entry.id, limit=_BEFORE_MAX
            )
            outcomes = desk.store.recorder.outcomes(conn, [one.id for one in earlier])
    except TamperedError:
        return ()
    of_stay = [outcomes[one.id] for one in earlier if one.id in outcomes]
    of_stay = [one for one in of_stay if one.encounter_key == outcome.encounter_key]
    last = [next(filter(None, ([why for why in one.why if why.what is what] for one in of_stay)), []) for what in asked]
    return tuple(why for whys in last for why in whys if not MEANINGS[why.reason].done)


def _channel_then(desk: Desk, name: str, version: str) -> Channel | None:
    """The channel as it was when a message was processed; when that can't be told, as it is now."""
    from engine.connectors.registry import load
    from engine.errors import HandoffError
    from engine.runtime.configurations import recorded_snapshot

    configuration = desk.configuration
    if configuration.snapshot.version != version:
        try:
            snapshot = recorded_snapshot(desk.store, configuration.snapshot.base, version)
            configuration = configuration if snapshot is None else load(snapshot, references="never")
        except HandoffError:
            pass
    return configuration.channels.get(name)


def payload_text(payload: bytes, channel: Channel | None) -> str:
    """A message as text, by the rules that the channel reads it with; readable as far as it goes."""
    from engine.errors import MessageError
    from engine.hl7v2 import charset
    from engine.hl7v2.header import read_header
    from engine.settings import Charset

    settings = channel.charset if channel is not None else Charset()
    try:
        names = read_header(payload).charset_names
    except MessageError:
        names = ()
    default, fallback, force = settings.default, settings.fallback, settings.force
    return charset.decode(payload, names, default=default, fallback=fallback, force=force).text


def effect_shape(effect: Effect, view: View) -> dict[str, Any]:
    """A consequence; its subject is an opaque id, or a key."""
    subject = view.key(effect.subject) if ":" in effect.subject else effect.subject
    return {"kind": effect.kind, "subject": subject, "detail": effect.detail}


def delivery_shape(
    queued: QueuedDelivery,
    view: View,
    standing: Standing | None = None,
    receipts: Mapping[int, str | None] | None = None,
) -> dict[str, Any]:
    """standing: of its destination; it says why a delivery waits that was never tried. receipts: the
    far end's, by id; none: they were not looked for.
    """
    import msgspec

    from engine.domain.shapes import plain

    delivery = queued.delivery
    next_at = queued.next_attempt_at if queued.state in {"pending", "held"} else None
    trouble = None
    if queued.state == "pending" and standing is not None and standing.state != "up":
        trouble = standing.error or standing.state
        next_at = None
        if standing.next_attempt_at is not None:
            next_at = max(queued.next_attempt_at, standing.next_attempt_at)
    payload = None if queued.unreadable else view.payload(msgspec.json.decode(delivery.payload))
    return {
        "id": queued.id,
        "destination": delivery.destination,
        "operation": delivery.operation,
        "idempotency_key": delivery.idempotency_key,
        "payload": payload,
        "unreadable": queued.unreadable,
        "state": queued.state,
        "attempts": queued.attempts,
        "next_attempt_at": plain(next_at),
        "created_at": plain(queued.created_at),
        "last_error": queued.error,
        "destination_error": trouble,
        "delivered_at": plain(queued.settled_at) if queued.state == "delivered" else None,
        "held_at": plain(queued.settled_at) if queued.state == "held" else None,
        "withheld_at": plain(queued.settled_at) if queued.state == "withheld" else None,
        **({} if receipts is None else {"receipt": view.receipt(receipts.get(queued.id))}),
    }


def hold_shape(one: ListedHold, view: View) -> dict[str, Any]:
    """A question of a message, as `held list` and others show it."""
    from engine.domain.shapes import plain

    subject = view.key(one.subject) if one.subject and ":" in one.subject else one.subject
    shown = {
        "id": f"m{one.id}",
        "what": "message",
        "subject": subject,
        "patient_key": view.key(one.patient_key),
        "decision": view.text(one.decision),
    }
    return plain(one) | shown  # type: ignore[no-any-return]  # a dict


@dataclass(frozen=True)
class Around:
    """What stands around held deliveries: whose they are, what waits behind each, how their destinations do."""

    patients: dict[str, str]
    """By chart."""
    behind: dict[int, int]
    standings: dict[str, Standing]


def around(desk: Desk, conn: Connection, found: Sequence[QueuedDelivery]) -> Around:
    if not found:
        return Around({}, {}, {})
    lines = sorted({queued.delivery.chart_id for queued in found})
    documents = desk.store.charts.documents(conn, lines)
    configured = desk.outline.destinations
    return Around(
        {line: document.patient.key for line, document in documents if document is not None},
        desk.store.outbox.behind(conn, found),
        {one.name: one for one in desk.store.destinations.standings(conn, configured, desk.now)},
    )


def withheld_shape(queued: QueuedDelivery, said: Withheld, view: View, stands: Around) -> dict[str, Any]:
    """A delivery that a rule does not let go, with what a person has decided."""
    from engine.domain.shapes import plain

    return held_shape(queued, view, stands) | {
        "what": "withheld",
        "code": said.code,
        "decision": said.decision,
        "decided_at": plain(said.decided_at),
        "decided_by": said.decided_by,
    }


def held_shape(queued: QueuedDelivery, view: View, stands: Around) -> dict[str, Any]:
    from engine.connectors.remedies import remedy

    standing = stands.standings.get(queued.delivery.destination)
    return {
        "what": "delivery",
        **delivery_shape(queued, view),
        "entry": queued.entry_id,
        "patient_key": view.key(stands.patients.get(queued.delivery.chart_id)),
        "waiting_behind": stands.behind.get(queued.id, 0),
        "destination_state": standing.state if standing else None,
        "destination_error": standing.error if standing else None,
        "remedy": remedy(queued.error),
    }
