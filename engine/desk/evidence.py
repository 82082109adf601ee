"""The document for an auditor: each rule with what the product does, the settings here, and the last proof."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.errors import WhichError
from engine.privacy.evidence import NOTED, Last, load_evidence, show
from engine.privacy.rules import needed

if TYPE_CHECKING:
    from engine.desk.desk import Desk
    from engine.domain.audit import Recorded
    from engine.privacy.evidence import EvidenceFile


def evidence(desk: Desk) -> dict[str, Any]:
    """Raises SettingsError when there is no file of rows. It holds nothing of a patient."""
    from engine.desk.figures import FIGURES
    from engine.domain.shapes import plain

    rules = rules_of(desk)
    last: dict[str, Last] = {}
    noted: dict[str, Last] = {}
    with desk.store.reader() as conn:
        for event in {proof.event for row in rules.rows for proof in row.proofs}:
            for one in desk.store.audit.find(conn, action=event, limit=1):
                last[event] = _last(one)
        for row in rules.rows:
            if row.site is not None:
                for one in desk.store.audit.find(conn, action=NOTED, subject=f"evidence:{row.id}", limit=1):
                    noted[row.id] = _last(one)
    # Of the settings only what the rows name is shown; a secret shows nothing of itself.
    configuration = desk.configuration
    settings = configuration.site.model_dump(mode="json", by_alias=True, exclude={"access": {"oidc"}})
    settings["channels"] = {
        name: {"plaintext": channel.listen.plaintext} for name, channel in configuration.channels.items()
    }
    figures = {
        name: list(FIGURES[name](desk)) for name in dict.fromkeys(one for row in rules.rows for one in row.figures)
    }
    rows = [
        show(
            row, settings, last, desk.now, noted=noted.get(row.id),
            figures=[figure for name in row.figures for figure in figures[name]],
        )
        for row in rules.rows
    ]  # fmt: skip
    shapes = [
        plain(row)
        | {
            "settings": [{"key": key, "value": value} for key, value in row.settings],
            "proofs": [{"event": event, "last": plain(found)} for event, found in row.proofs],
            "figures": [{"what": one.what, "value": one.value} for one in row.figures],
        }
        for row in rows
    ]
    return {"node": desk.outline.node, "made_at": plain(desk.now), "version": rules.version, "rows": shapes}


def rules_of(desk: Desk) -> EvidenceFile:
    """Raises SettingsError."""
    site, snapshot = desk.configuration.site, desk.configuration.snapshot
    file = f"{site.mappings}/privacy/evidence.yaml"
    return needed(load_evidence(snapshot.document(file)) if file in snapshot.files else None, "evidence", site.mappings)


def note(desk: Desk, row_id: str, because: str) -> None:
    """The site did its part of a row. On the trail. Raises WhichError when there is no such row that asks for it."""
    known = [row.id for row in rules_of(desk).rows if row.site is not None]
    if row_id not in known:
        raise WhichError(f"There is no row {row_id} with a part of the site.", name=row_id, known=known)
    desk.audit(NOTED, [f"evidence:{row_id}"], because)


def _last(one: Recorded) -> Last:
    return Last(at=one.at, actor=one.actor, result=one.result, seq=one.seq)
