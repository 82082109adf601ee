"""The document for an auditor: each rule with what the product does, the settings here, and the last proof."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.privacy.evidence import Last, load_evidence, show
from engine.privacy.rules import needed

if TYPE_CHECKING:
    from engine.desk.desk import Desk


def evidence(desk: Desk) -> dict[str, Any]:
    """Raises SettingsError when there is no file of rows. It holds nothing of a patient."""
    from engine.domain.shapes import plain

    site, snapshot = desk.configuration.site, desk.configuration.snapshot
    file = f"{site.mappings}/privacy/evidence.yaml"
    rules = needed(
        load_evidence(snapshot.document(file)) if file in snapshot.files else None, "evidence", site.mappings
    )
    last: dict[str, Last] = {}
    with desk.store.reader() as conn:
        for event in {proof.event for row in rules.rows for proof in row.proofs}:
            for one in desk.store.audit.find(conn, action=event, limit=1):
                last[event] = Last(at=one.at, actor=one.actor, result=one.result, seq=one.seq or 0)
    # Of the settings only what the rows name is shown; a secret shows nothing of itself.
    settings = site.model_dump(mode="json", by_alias=True, exclude={"access": {"oidc"}})
    rows = [show(row, settings, last, desk.now) for row in rules.rows]
    shapes = [
        plain(row)
        | {
            "settings": [{"key": key, "value": value} for key, value in row.settings],
            "proofs": [{"event": event, "last": plain(found)} for event, found in row.proofs],
        }
        for row in rows
    ]
    return {"node": desk.outline.node, "made_at": plain(desk.now), "version": rules.version, "rows": shapes}
