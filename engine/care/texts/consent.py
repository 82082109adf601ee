"""The ledger of consents to be written to or called, and what it comes to.

Statements are never changed, only made anew. What counts for a purpose, a channel and a number is the last one; of two
of the same moment the one that forbids. No statement: nobody has agreed, and nothing is sent.

HIPAA lets unencrypted texts go to patients who were warned and agreed, and 45 CFR 164.522(b) has a reasonable request
honoured; 47 CFR 64.1200(a)(10) takes a revocation by any reasonable means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from msgspec import structs

from engine.domain.chart import Chart
from engine.domain.consent import ContactConsent

CARE: Final = "care"
"""The purpose of texts that follow a discharge."""
CHANNELS: Final = ("sms", "whatsapp", "voice")
STATEMENTS_MAX: Final = 500
"""Of a chart. A statement that forbids always finds room."""

Place = tuple[str, str, str]
"""Purpose, channel, number."""


class ConsentState(StrEnum):
    GIVEN = "given"
    REVOKED = "revoked"
    NONE = "none"
    """Nothing was ever said."""


class Standing(NamedTuple):
    """What counts for one purpose, channel and number."""

    state: ConsentState
    statement: ContactConsent | None
    """The one that says so; none: there is none."""


_NOTHING: Final = Standing(ConsentState.NONE, None)


def place_of(one: ContactConsent) -> Place:
    return one.purpose, one.channel, one.number


def standing(chart: Chart, purpose: str, channel: str, number: str) -> Standing:
    """What counts for this purpose, channel and number (E.164)."""
    return _of(one for one in chart.contact_consents if place_of(one) == (purpose, channel, number))


def standings(statements: Iterable[ContactConsent]) -> dict[Place, Standing]:
    """What counts, for each purpose, channel and number of which something was said."""
    by_place: dict[Place, list[ContactConsent]] = {}
    for one in statements:
        by_place.setdefault(place_of(one), []).append(one)
    return {place: _of(said) for place, said in by_place.items()}


def _of(said: Iterable[ContactConsent]) -> Standing:
    last = max(said, key=_weight, default=None)
    if last is None:
        return _NOTHING
    return Standing(ConsentState.GIVEN if last.given else ConsentState.REVOKED, last)


def _weight(one: ContactConsent) -> tuple[datetime, bool, str]:
    return one.at, not one.given, one.id


class FullError(ValueError):
    """The ledger of a chart holds no more statements."""


def said(chart: Chart, *new: ContactConsent) -> Chart:
    """The chart with these statements; one that it has (by id) is not put there again. Raises FullError.

    One that forbids is never refused for want of room: then it is only left out when the last one forbids as well.
    """
    known = {one.id for one in chart.contact_consents}
    kept = list(chart.contact_consents)
    for one in new:
        if one.id in known:
            continue
        if len(kept) >= STATEMENTS_MAX:
            if one.given:
                raise FullError(f"the patient has {STATEMENTS_MAX} statements on record: no more fit")
            if _of(was for was in kept if place_of(was) == place_of(one)).state is ConsentState.REVOKED:
                continue
        known.add(one.id)
        kept.append(one)
    if len(kept) == len(chart.contact_consents):
        return chart
    return structs.replace(chart, contact_consents=tuple(sorted(kept, key=_weight)))


MERGED: Final = "merge"
"""`ContactConsent.how` of a number that one of two merged charts had opted out."""


def united(survivor: Chart, merged: Chart) -> tuple[ContactConsent, ...]:
    """The ledger of both charts of a merge: a number that is opted out on either is opted out.

    The later consent of the other chart may be another person's, so it does not lift the opt-out; a statement after
    the merge does.
    """
    all_of = {one.id: one for one in (*survivor.contact_consents, *merged.contact_consents)}
    statements = [*all_of.values(), *_opted_out(survivor, merged, all_of.values())]
    return tuple(sorted({one.id: one for one in statements}.values(), key=_weight))


def _opted_out(survivor: Chart, merged: Chart, all_of: Iterable[ContactConsent]) -> Iterator[ContactConsent]:
    after = standings(all_of)
    for chart in (survivor, merged):
        for place, was in standings(chart.contact_consents).items():
            now = after[place]
            if was.state is ConsentState.REVOKED and now.state is ConsentState.GIVEN and now.statement is not None:
                assert was.statement is not None  # noqa: S101 - a place has a statement
                yield structs.replace(
                    was.statement,
                    id=f"{was.statement.id}/{now.statement.id}",
                    at=now.statement.at,
                    how=MERGED,
                    evidence=None,
                )
