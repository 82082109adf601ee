"""All that is stored of a patient, as one machine-readable document, and refusals to give it out.

A copy that is given to somebody outside is a disclosure: who gets it, and what it counts as, are on the trail with it
(`given_to`), from where the accounting reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from engine.access.fields import ALL
from engine.desk import finding
from engine.desk.desk import Reveal
from engine.errors import HandoffError, WhichError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.desk.desk import Desk
    from engine.domain.chart import Chart
    from engine.privacy.disclosures import DisclosuresFile

EXPORTED: Final = "patient-exported"
REFUSED: Final = "sharing-refused"
FORMAT: Final = "handoff-patient-record/1"
ENTRIES_MAX: Final = 20_000
_PIECE: Final = 500
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def given_to(
    rules: DisclosuresFile, recipient: str | None, ground: str | None, address: str | None, purpose: str | None
) -> dict[str, Any]:
    """What the trail keeps of a copy that is given out; empty: it stays in the house, which is a use.

    Raises WhichError for a ground that the site has not, HandoffError when something is missing.
    """
    if recipient is None:
        if ground or address or purpose:
            raise HandoffError("say who gets it: --to")
        return {}
    if ground is None:
        raise HandoffError(f"say what it counts as: --as, one of {', '.join(rules.grounds)}")
    if ground not in rules.grounds:
        some = ", ".join(rules.grounds)
        raise WhichError(f"There is no ground {ground}; there are {some}.", name=ground, known=list(rules.grounds))
    if rules.grounds[ground].accounted and purpose is None:
        raise HandoffError("the patient is told of it, so say why it is given: --purpose")
    return {"given_to": {"as": ground, "recipient": recipient, "address": address, "purpose": purpose}}


def exported(desk: Desk, named: str, reason: str, given: dict[str, Any]) -> dict[str, Any]:
    """Chart with all its parts, messages, deliveries, what waits, and who has looked; on record before it is shown.

    Raises NotFoundError, DeniedError when the actor does not see all of it, HandoffError when there is too much.
    """
    from engine.domain.parts import chart_shape
    from engine.domain.shapes import plain

    chart = finding.chart(desk, named)
    subject = f"chart:{chart.id}"
    view = desk.view(Reveal(reason), [subject]).of(chart.id)
    desk.need(view, *ALL)  # a record that leaves something out without a word is none
    with desk.store.reader() as conn:
        family = sorted(desk.store.charts.family(conn, {chart.id}))
        entry_ids = _entries(conn, family)
        holds = desk.store.holds.of_chart(conn, chart.id)
        letters = desk.store.dead_letters.of_patient(conn, desk.keys, chart.patient.key)
        looks = [one for id_ in family for one in desk.store.audit.find(conn, patient=id_, limit=ENTRIES_MAX)]
    ground = given.get("given_to", {}).get("as")
    purpose = "PATRQT" if ground == "patient" else None
    desk.audit(EXPORTED, [subject], reason, patients=tuple(family), facts=given, count=len(entry_ids), purpose=purpose)
    return {
        "format": FORMAT,
        "made_at": plain(desk.now),
        "made_by": str(desk.actor),
        "node": desk.outline.node,
        "given_to": given.get("given_to"),
        "patient": view.chart(chart_shape(chart)) | {"test": chart.test} | _beside_parts(chart),
        "charts": family,
        "messages": list(_messages(desk, entry_ids, family)),
        "deliveries": _deliveries(desk, family),
        "held": plain(holds),
        "dead": plain(letters),
        "trail": [
            {"seq": one.seq, "at": plain(one.at), "actor": one.actor, "action": one.action, "result": one.result,
             "purpose": one.purpose}
            for one in sorted(looks, key=lambda one: one.seq or 0)
        ],
    }  # fmt: skip


def _beside_parts(chart: Chart) -> dict[str, Any]:
    """Lists of a chart that are no part of it: what people said of the record, as consents."""
    from msgspec import structs

    from engine.domain.parts import PARTS
    from engine.domain.shapes import plain

    parts = {part.name for part in PARTS}
    lists = [one.name for one in structs.fields(type(chart)) if one.default == () and one.name not in parts]
    return {name: plain(getattr(chart, name)) for name in lists}


def _entries(conn: Connection, chart_ids: Sequence[str]) -> list[int]:
    from engine.store.disclosed import entries_of

    found = entries_of(conn, chart_ids, limit=ENTRIES_MAX + 1)
    if len(found) > ENTRIES_MAX:
        raise HandoffError(f"there are more than {ENTRIES_MAX:,} messages of this patient: ask who runs the engine")
    return found


def _messages(desk: Desk, entry_ids: Sequence[int], family: Sequence[str]) -> Iterator[dict[str, Any]]:
    """As they came, whole. One that is about several patients is left to a person: it says so in place of its text."""
    from engine.domain.shapes import plain
    from engine.store.disclosed import of_others_too

    for start in range(0, len(entry_ids), _PIECE):
        piece = entry_ids[start : start + _PIECE]
        with desk.store.reader() as conn:
            entries = desk.store.journal.entries(conn, piece)
            shared = of_others_too(conn, piece, family)
        for one in entries:
            others = one.id in shared
            text = None if others or one.damaged else one.payload.decode("utf-8", "replace")
            yield {
                "entry": one.id,
                "channel": one.channel,
                "received_at": plain(one.received_at),
                "text": text,
                "left_out": "it is about other patients, too" if others else None,
                "damaged": bool(one.damaged),
            }


def _deliveries(desk: Desk, chart_ids: Sequence[str]) -> list[dict[str, Any]]:
    from engine.domain.shapes import plain
    from engine.store import disclosed

    with desk.store.reader() as conn:
        sent = disclosed.sent(conn, chart_ids, _EPOCH, desk.now)
    return [
        {"destination": one.destination, "operation": one.operation, "at": plain(one.at), "state": one.state.value,
         "counts_as": one.mark}
        for one in sent
    ]  # fmt: skip


def refuse(
    desk: Desk, named: str, requester: str, exception: str, evidence: str, rules: DisclosuresFile
) -> dict[str, Any]:
    """A request to share is refused: by which exception, and with what evidence (45 CFR 171). On the trail.

    Raises NotFoundError, WhichError.
    """
    if exception not in rules.refusals:
        some = "; ".join(f"{name}: {one.says}" for name, one in rules.refusals.items())
        text = f"There is no exception {exception}; there are {some}."
        raise WhichError(text, name=exception, known=list(rules.refusals))
    chart = finding.chart(desk, named)
    said = {"exception": exception, "law": rules.refusals[exception].law}
    facts = {"refusal": {"requester": requester, **said}}
    desk.audit(REFUSED, [f"chart:{chart.id}"], evidence, patients=(chart.id,), facts=facts)
    return {"patient_key": desk.pseudonym(chart.patient.key), **said}


def refusals(desk: Desk, reveal: Reveal | None) -> list[dict[str, Any]]:
    """The newest first; who asked, and the evidence, are free text: they need a reveal."""
    from engine.domain.shapes import plain

    with desk.store.reader() as conn:
        found = desk.store.audit.find(conn, action=REFUSED, limit=1000)
    view = desk.view(reveal, ["audit"])
    return [
        {"seq": one.seq, "at": plain(one.at), "actor": one.actor, "exception": said.get("exception"),
         "law": said.get("law"), "requester": view.text(said.get("requester")), "evidence": view.text(one.reason)}
        for one in found
        for said in (one.facts.get("refusal", {}),)
    ]  # fmt: skip
