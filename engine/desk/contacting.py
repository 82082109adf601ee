"""The ledger of consents to be written to or called: looked at, added to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from engine.care.texts.consent import CHANNELS, Standing, place_of, standing, standings
from engine.desk import finding
from engine.desk.acting import perform
from engine.domain.cause import ContactConsentGiven, ContactConsentRevoked
from engine.errors import HandoffError

if TYPE_CHECKING:
    from engine.desk.desk import Desk
    from engine.desk.seeing import View
    from engine.domain.chart import Chart
    from engine.domain.consent import ContactConsent

_E164: Final = re.compile(r"\+[1-9][0-9]{6,14}")
_CODE: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_VERSION: Final = re.compile(r"[A-Za-z0-9._-]{1,40}")
PLAIN: Final = frozenset((
    "a", "admission", "an", "and", "at", "by", "call", "carrier", "consent", "desk", "discharge", "discussion",
    "electronic", "enrollment", "file", "form", "from", "in", "intake", "kiosk", "merge", "number", "on",
    "online", "oral", "paper", "patient", "person", "phone", "portal", "recorded", "registration", "reply",
    "said", "sent", "signed", "sms", "staff", "text", "the", "told", "verbal", "verbally", "via", "visit",
    "voice", "web", "website", "written",
))  # fmt: skip
"""A `how` of these words alone tells nothing of who it is, and is shown; any other is what somebody has typed."""


def give(
    desk: Desk,
    named: str,
    *,
    purpose: str,
    channel: str,
    number: str,
    how: str,
    wording: str | None = None,
    reason: str | None = None,
) -> tuple[Chart, Standing]:
    """What counts then. Raises HandoffError for what is no number, purpose or version; NotFoundError."""
    check(purpose, channel, wording)
    number = number_of(number)
    chart = finding.chart(desk, named)
    act = ContactConsentGiven(
        actor=str(desk.actor), chart_id=chart.id, reason=reason, purpose=purpose, channel=channel, number=number,
        how=how, wording=wording,
    )  # fmt: skip
    perform(desk, [act])
    return _after(desk, chart, purpose, channel, number)


def revoke(
    desk: Desk, named: str, *, purpose: str, channel: str, number: str, how: str, reason: str | None = None
) -> tuple[Chart, Standing]:
    """What counts then. Raises as `give`."""
    check(purpose, channel)
    number = number_of(number)
    chart = finding.chart(desk, named)
    act = ContactConsentRevoked(
        actor=str(desk.actor), chart_id=chart.id, reason=reason, purpose=purpose, channel=channel, number=number,
        how=how,
    )  # fmt: skip
    perform(desk, [act])
    return _after(desk, chart, purpose, channel, number)


def listed(chart: Chart, view: View) -> list[dict[str, Any]]:
    """What counts for each purpose, channel and number, what was said last first; `history`: what was said before."""
    found = [one.statement for one in standings(chart.contact_consents).values() if one.statement is not None]
    shapes = []
    for last in sorted(found, key=lambda one: one.at, reverse=True):
        earlier = (one for one in reversed(chart.contact_consents) if place_of(one) == place_of(last))
        shapes.append(shape(last, view) | {"history": [shape(one, view) for one in earlier if one is not last]})
    return shapes


def shape(one: ContactConsent, view: View) -> dict[str, Any]:
    """A statement as the contract has it. What somebody has typed, and the number, are seen when they are revealed."""
    from engine.domain.shapes import plain

    sees = view.sees("patient", "phones")
    return {
        "purpose": one.purpose,
        "channel": one.channel,
        "number": view.text(one.number) if sees else None,
        "state": "given" if one.given else "revoked",
        "at": plain(one.at),
        "how": one.how if PLAIN.issuperset(re.split(r"[\s_-]+", one.how.lower())) else view.text(one.how),
        "by": one.by,
        "wording": one.wording,
    }


def check(purpose: str, channel: str, wording: str | None = None) -> None:
    """Raises HandoffError."""
    if _CODE.fullmatch(purpose) is None:
        raise HandoffError("a purpose is a short name in small letters, like care")
    if channel not in CHANNELS:
        raise HandoffError(f"a channel is one of {', '.join(CHANNELS)}")
    if wording is not None and _VERSION.fullmatch(wording) is None:
        raise HandoffError("a version of a wording is a short name, like 2026-03: letters, digits, . _ and -")


def number_of(raw: str) -> str:
    """E.164. Raises HandoffError."""
    number = re.sub(r"[\s().-]", "", raw)
    if _E164.fullmatch(number) is None:
        raise HandoffError("that is no number: write it with its country, like +12125550100")
    return number


def _after(desk: Desk, chart: Chart, purpose: str, channel: str, number: str) -> tuple[Chart, Standing]:
    found = desk.store.read_now(lambda conn: desk.store.charts.living(conn, chart.id)) or chart
    return found, standing(found, purpose, channel, number)
