"""Why a patient is somebody's: read from the chart, never granted. A relation ends with what it follows from."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from engine.domain.actor import Actor
from engine.domain.appointment import OFF
from engine.domain.chart import Chart
from engine.domain.encounter import Encounter, EncounterStatus, Location
from engine.domain.moment import Moment
from engine.domain.page import Page, PageState
from engine.domain.patient import Provider


class Relation(StrEnum):
    ATTENDING = "attending"
    """Attending physician of a stay (PV1-7)."""
    CONSULTING = "consulting"
    """Consulting physician of a stay (PV1-9)."""
    PRIMARY_CARE = "primary_care"
    """Primary care provider (PD1-4)."""
    PANEL = "panel"
    """The primary care provider is of their practice."""
    UNIT = "unit"
    """The patient is, or is about to come, on one of their units (PV1-3)."""
    TEAM = "team"
    """A task of the patient is theirs, or of one of their roles."""
    PAGE = "page"
    """They were called about the patient, or acknowledged it."""
    APPOINTMENT = "appointment"
    """The patient has an appointment with them."""


SAYS: Final = {
    Relation.ATTENDING: "you are the attending physician of a stay",
    Relation.CONSULTING: "you are a consulting physician of a stay",
    Relation.PRIMARY_CARE: "you are the primary care provider",
    Relation.PANEL: "the patient is on your panel",
    Relation.UNIT: "the patient is on your unit",
    Relation.TEAM: "a task of the patient is yours",
    Relation.PAGE: "you were called about the patient",
    Relation.APPOINTMENT: "the patient has an appointment with you",
}

_HERE: Final = frozenset({EncounterStatus.ACTIVE, EncounterStatus.ON_LEAVE})
_PAGE_OVER: Final = frozenset({PageState.RESOLVED, PageState.EXHAUSTED})
_DAY: Final = timedelta(days=1)


def relations(
    chart: Chart, actor: Actor, now: datetime, grace: timedelta, *, without: frozenset[str] = frozenset()
) -> frozenset[Relation]:
    """All that makes the patient the actor's now, or did so until at most `grace` ago.

    without: keys of stays that are not to be looked at. A relation to a patient that was merged into another is one to
    the other, for the chart that is looked at has all.
    """
    return frozenset(_relations(chart, actor, now, grace, without))


def _relations(
    chart: Chart, actor: Actor, now: datetime, grace: timedelta, without: frozenset[str]
) -> Iterator[Relation]:
    pcp = chart.patient.pcp
    if _is(actor.provider, pcp):
        yield Relation.PRIMARY_CARE
    if any(_is(one, pcp) for one in actor.panels):
        yield Relation.PANEL
    for stay in chart.encounters:
        if stay.key not in without and _holds(stay, now, grace):
            yield from _of_stay(stay, actor)
    wanted = actor.names | actor.roles
    for task in chart.tasks:
        recent = task.stands or (task.ended_at is not None and task.ended_at + grace >= now)
        if recent and task.encounter not in without and ({task.owner, task.assignee} & wanted):
            yield Relation.TEAM
    for page in chart.pages:
        if page.encounter not in without and _called(page, actor, now, grace):
            yield Relation.PAGE
    for appointment in chart.appointments:
        if appointment.status in OFF or not _is(actor.provider, appointment.clinician):
            continue
        end = _last(appointment.ends_at or appointment.starts_at)
        if end is None or end + grace >= now:
            yield Relation.APPOINTMENT


def _of_stay(stay: Encounter, actor: Actor) -> Iterator[Relation]:
    if _is(actor.provider, stay.attending):
        yield Relation.ATTENDING
    if any(_is(actor.provider, one) for one in stay.consulting):
        yield Relation.CONSULTING
    here = (stay.location, stay.temporary_location) if stay.status is not EncounterStatus.PLANNED else ()
    coming = (stay.pending_location,) if stay.status in _HERE else ()
    if _on(actor, *here, *coming):
        yield Relation.UNIT


def _holds(stay: Encounter, now: datetime, grace: timedelta) -> bool:
    """The stay goes on or is ahead, or has ended a short while ago. Of one whose end nobody knows it has."""
    if stay.status is EncounterStatus.CANCELLED:
        return False
    if stay.status is not EncounterStatus.FINISHED:
        return True
    end = _last(stay.discharged_at)
    return end is not None and end + grace >= now


def _called(page: Page, actor: Actor, now: datetime, grace: timedelta) -> bool:
    theirs = page.acknowledged_by in actor.names or any(step.person in actor.names for step in page.steps)
    if not theirs:
        return False
    end = page.ended_at or page.acknowledged_at or page.raised_at
    return page.state not in _PAGE_OVER or end + grace >= now


def _on(actor: Actor, *places: Location | None) -> bool:
    return any(place is not None and place.point_of_care in actor.units for place in places)


def _is(provider: str | None, named: Provider | None) -> bool:
    if not provider or named is None or not named.id:
        return False
    return named.id.casefold() == provider.casefold()


def _last(moment: Moment | None) -> datetime | None:
    """The last instant that a time can mean, in any zone; none: there is none."""
    if moment is None:
        return None
    if moment.timed:
        return moment.at
    days = moment.days
    return None if days is None else datetime.combine(days[1], datetime.min.time(), UTC) + 2 * _DAY
