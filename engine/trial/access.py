"""A question of who may see what, as a test beside the roles puts it: a few words become an actor and a chart."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from engine.access.actions import Action
from engine.access.fields import ALL
from engine.access.policy import may
from engine.access.roles import Policy
from engine.domain.actor import Actor, Purpose
from engine.domain.appointment import Appointment, AppointmentStatus
from engine.domain.chart import Chart
from engine.domain.codec import converted
from engine.domain.encounter import Encounter, EncounterStatus, Location
from engine.domain.glass import Glass
from engine.domain.moment import Moment
from engine.domain.page import Page, PageState, Step
from engine.domain.page import Policy as Ladder
from engine.domain.patient import Patient, Provider
from engine.domain.task import STANDING, Task, TaskState
from engine.yamlfile import did_you_mean

NOW: Final = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
KEYS: Final = ("actor", "action", "purpose", "patient", "stays", "tasks", "pages", "appointments", "glass", "nobody")
_NAME: Final = "case-actor"


def answer(given: Mapping[str, Any], policy: Policy) -> dict[str, Any]:
    """The decision on a question of these words. Raises ValueError for a word that there is not.

    actor: {role or roles, units, provider, panels, also, scopes, kind}. patient: fields of a patient. stays: each
    {unit, attending, consulting, status, ended_days_ago, vip, service, facility, key}. tasks: {owner, assignee, state,
    ended_days_ago}. pages: {called, acknowledged_by, state, ended_days_ago}. appointments: {clinician, status,
    days_ago}. glass: true, `over` (it was, and is not any more) or `another` (of another patient). nobody: true: no
    patient is meant.
    """
    _known(given, KEYS)
    actor = actor_of(given.get("actor", {}))
    purpose = Purpose(given["purpose"]) if "purpose" in given else None
    chart = None if given.get("nobody") else chart_of(given)
    decision = may(actor, Action(given["action"]), chart, purpose, NOW, policy, _glass(given.get("glass"), actor))
    said: dict[str, Any] = {"allowed": decision.allowed, "why": decision.why, "rule": decision.rule}
    if decision.allowed:
        return said | {
            "sees": sorted(str(one) for one in decision.fields),
            "not": sorted(str(one) for one in ALL - decision.fields),
            "relations": sorted(str(one) for one in decision.relations),
            "hidden_stays": sorted(decision.hidden_stays),
            "purpose": decision.purpose.value,
            "glass": decision.glass,
        }
    return said | {"code": decision.code, "glass_helps": decision.glass_helps}


def actor_of(given: Mapping[str, Any]) -> Actor:
    _known(given, ("role", "roles", "units", "provider", "panels", "also", "scopes", "kind", "name"))
    roles = [given["role"]] if "role" in given else given.get("roles", [])
    scopes = given.get("scopes")
    return Actor(
        kind=given.get("kind", "person"),
        name=given.get("name", _NAME),
        roles=frozenset(roles),
        units=frozenset(given.get("units", ())),
        provider=given.get("provider"),
        panels=frozenset(given.get("panels", ())),
        also=frozenset(given.get("also", ())),
        scopes=None if scopes is None else frozenset(scopes),
    )


def chart_of(given: Mapping[str, Any]) -> Chart:
    patient = {"identifiers": [{"value": "1", "authority": "MRN"}], **given.get("patient", {})}
    return Chart(
        id="c1",
        patient=converted(patient, Patient),
        encounters=tuple(_stay(number, one) for number, one in enumerate(given.get("stays", ()), 1)),
        tasks=tuple(_task(number, one) for number, one in enumerate(given.get("tasks", ()), 1)),
        pages=tuple(_page(number, one) for number, one in enumerate(given.get("pages", ()), 1)),
        appointments=tuple(_appointment(number, one) for number, one in enumerate(given.get("appointments", ()), 1)),
    )


def _stay(number: int, given: Mapping[str, Any]) -> Encounter:
    _known(
        given,
        ("unit", "attending", "consulting", "status", "ended_days_ago", "vip", "service", "facility", "sender", "key",
         "pending_unit"),
    )  # fmt: skip
    ended = given.get("ended_days_ago")
    status = given.get("status", "active" if ended is None else "finished")
    pending = given.get("pending_unit")
    return Encounter(
        key=given.get("key", f"VN:{number}"),
        status=EncounterStatus(status),
        location=Location(point_of_care=given.get("unit"), facility=given.get("facility")),
        pending_location=None if pending is None else Location(point_of_care=pending),
        attending=_provider(given.get("attending")),
        consulting=tuple(Provider(id=one) for one in given.get("consulting", ())),
        discharged_at=None if ended is None else Moment.of_instant(_ago(ended)),
        vip=given.get("vip"),
        hospital_service=given.get("service"),
        sending_facility=given.get("sender"),
    )


def _task(number: int, given: Mapping[str, Any]) -> Task:
    _known(given, ("owner", "assignee", "state", "ended_days_ago", "stay"))
    ended = given.get("ended_days_ago")
    state = TaskState(given.get("state", "open" if ended is None else "done"))
    return Task(
        id=f"t{number}",
        kind="pcp_follow_up",
        encounter=given.get("stay"),
        due_at=NOW,
        escalate_at=None,
        state=state,
        assignee=given.get("assignee"),
        owner=given.get("owner"),
        reason="a case",
        protocol="a case",
        discharge=1,
        created_at=NOW,
        ended_at=None if state in STANDING else _ago(ended or 0),
    )


def _page(number: int, given: Mapping[str, Any]) -> Page:
    _known(given, ("called", "acknowledged_by", "state", "ended_days_ago", "stay"))
    ended = given.get("ended_days_ago")
    steps = (Step(loop=1, level=1, at=NOW, person=person) for person in given.get("called", ()))
    return Page(
        id=f"pt{number}",
        task=f"t{number}",
        kind="on_call_page",
        encounter=given.get("stay"),
        policy=Ladder(ladder="on-call", version="1"),
        closes=True,
        state=PageState(given.get("state", "sent" if ended is None else "resolved")),
        raised_at=NOW,
        next_at=None,
        steps=tuple(steps),
        acknowledged_by=given.get("acknowledged_by"),
        ended_at=None if ended is None else _ago(ended),
    )


def _appointment(number: int, given: Mapping[str, Any]) -> Appointment:
    _known(given, ("clinician", "status", "days_ago"))
    return Appointment(
        id=f"a{number}",
        status=AppointmentStatus(given.get("status", "booked")),
        starts_at=Moment.of_instant(_ago(given.get("days_ago", 0))),
        clinician=_provider(given.get("clinician")),
    )


def _glass(said: Any, actor: Actor) -> Glass | None:
    if said is None or said is False:
        return None
    if said not in (True, "over", "another", "somebody"):
        raise ValueError("given: glass is true, over, another or somebody")
    return Glass(
        id="g1",
        actor="somebody-else" if said == "somebody" else actor.name,
        chart_id="c2" if said == "another" else "c1",
        reason="emergency",
        because="a case",
        begins=NOW - timedelta(hours=3 if said == "over" else 0),
        ends=NOW + timedelta(hours=-1 if said == "over" else 2),
    )


def _provider(id_: str | None) -> Provider | None:
    return None if id_ is None else Provider(id=id_)


def _ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def _known(given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in given:
        if key not in known:
            raise ValueError(f"given: there is no {key} here{did_you_mean(key, known)}; there are {', '.join(known)}")
