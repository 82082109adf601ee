"""Questions of the tests beside the privacy officer's rules: a few words become copies, looks or incidents."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from msgspec import structs

from engine.domain.shapes import plain
from engine.privacy.breach import (
    UNKNOWN,
    Assessment,
    Delay,
    Given,
    Whom,
    Worksheet,
    delay_problem,
    duties,
    missing,
    next_due,
    state_of,
)
from engine.privacy.disclosures import Copy, Recipient, Suspension, account
from engine.privacy.evidence import Last, show
from engine.privacy.rules import PrivacyRules
from engine.privacy.unusual import Look, Person, judge
from engine.trial.access import NOW, actor_of, chart_of


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
    suspensions = [
        Suspension(recipient=one["recipient"], until=_time(one["until"]), by="x") for one in given.get("suspended", ())
    ]
    now = _time(given["on"]) if "on" in given else None
    found: dict[str, Any] = plain(account(copies, file, UTC, suspensions=suspensions, now=now))
    return found


def unusual(given: Mapping[str, Any], rules: PrivacyRules) -> dict[str, Any]:
    """looks: each {who, chart, at or minute, purpose, address, glass, record}. record: of a
    search, whose hits have the same. charts, accounts: as beside the roles, by name.
    people: as in the file.
    """
    file = rules.unusual
    if file is None:  # pragma: no cover - the cases stand beside the file
        raise ValueError("there is no file of unusual access")
    people = {name: Person.model_validate(one) for name, one in given.get("people", {}).items()}
    file = file.model_copy(update={"people": people})
    charts = {name: structs.replace(chart_of(one), id=name) for name, one in given["charts"].items()}
    actors = {name: actor_of({"name": name, **one}) for name, one in given.get("accounts", {}).items()}
    looks = [
        Look(
            seq=one.get("record", number),
            at=_time(one["at"]) if "at" in one else NOW + timedelta(minutes=one.get("minute", 0)),
            actor=one["who"],
            chart_id=one["chart"],
            purpose=one.get("purpose"),
            address=one.get("address"),
            glass=one.get("glass"),
            listed="record" in one,
        )
        for number, one in enumerate(given["looks"], 1)
    ]
    found = judge(looks, charts, actors, file, UTC)
    return {"explained": found.explained, "unexplained": plain(found.unexplained)}


def evidence(given: Mapping[str, Any], rules: PrivacyRules) -> dict[str, Any]:
    """id: of a row. settings: as in config.yaml. proofs: event -> days ago. noted: days ago."""
    if rules.evidence is None:  # pragma: no cover - the cases stand beside the file
        raise ValueError("there is no file of evidence")
    row = next(one for one in rules.evidence.rows if one.id == given["id"])
    last = {event: _ago(days) for event, days in given.get("proofs", {}).items()}
    noted = _ago(given["noted"]) if "noted" in given else None
    return dict(plain(show(row, given["settings"], last, NOW, noted=noted)))


def _ago(days: float) -> Last:
    return Last(at=NOW - timedelta(days=days), actor="somebody", result="allowed", seq=1)


def breach(given: Mapping[str, Any], rules: PrivacyRules) -> dict[str, Any]:
    """known, on: dates. people, states: how many. delays: each {until, oral}. given: who was told -> when."""
    file = rules.breach
    if file is None:  # pragma: no cover - the cases stand beside the file
        raise ValueError("there is no file of breaches")
    known = _day(given["known"])
    finding = given.get("finding")
    sheet = Worksheet(
        number=1, what="x", opened_on=known, opened_by="ann", known_on=known,
        role=given.get("role", "covered_entity"),
        others={UNKNOWN: given.get("people", 0)} | given.get("states", {}),
        assessment=Assessment(on=known, by="ann", factors={}, finding=finding) if finding else None,
        delays=tuple(
            Delay(until=_day(one["until"]), by="x", oral=one.get("oral", False)) for one in given.get("delays", ())
        ),
        given=tuple(
            Given(whom=Whom(whom), on=_day(day), by="ann") for whom, day in given.get("given", {}).items()
        ),
    )  # fmt: skip
    said = [delay_problem(one, _day(given["on"]), file) for one in sheet.delays] if "on" in given else []
    return {
        "state": state_of(sheet, file),
        "next_due": plain(next_due(sheet, file)),
        "duties": plain(duties(sheet, file)),
        "missing": missing(sheet, file),
        "delay_problem": next((one for one in said if one), None),
    }


def _day(value: Any) -> date:
    return date.fromisoformat(str(value))


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(str(text))
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
