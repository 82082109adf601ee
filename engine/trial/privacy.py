"""Questions of the tests beside the privacy officer's rules: a few words become copies, looks or incidents."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from engine.domain.shapes import plain
from engine.privacy.disclosures import Copy, Recipient, account
from engine.privacy.rules import PrivacyRules


def disclosures(given: Mapping[str, Any], rules: PrivacyRules) -> dict[str, Any]:
    """as: a ground. each: several. purpose: of a look. copies: {at, as, recipient, address, purpose, operation}."""
    file = rules.disclosures
    if file is None:  # pragma: no cover - the cases stand beside the file
        raise ValueError("there is no file of disclosures")
    if "each" in given:
        return {"accounted": [file.accounted(one) for one in given["each"]]}
    if "copies" not in given:
        ground = given["as"] if "as" in given else file.of_purpose(given["purpose"])
        known = file.grounds.get(ground)
        return {"ground": ground, "accounted": file.accounted(ground), "law": known.law if known else None}
    copies = [
        Copy(
            at=_time(one["at"]),
            ground=one.get("as"),
            recipient=Recipient(name=one["recipient"], address=one.get("address")),
            operation=one["operation"],
            purpose=one.get("purpose"),
        )
        for one in given["copies"]
    ]
    found: dict[str, Any] = plain(account(copies, file, UTC))
    return found


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(str(text))
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
