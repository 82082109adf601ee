"""What of a restricted record goes to which destination: the other half of restrictions. Pure.

Asked when a delivery is queued, and again right before it is sent. What a mark means says the file of roles, what a
destination may get its settings (`restricted`, `part2`, `event_notices`).

| what | setting | what goes out |
|---|---|---|
| a restricted record | `send` | all, with its notice |
| | `without_clinical` | what is not clinical, nor hidden by the restriction, with its notice |
| | `withhold` | nothing (`restricted`) |
| a 42 CFR Part 2 record | `needs_consent` | by a consent that covers the destination, or not (`part2_no_consent`) |
| any, where the patient has refused notices | `event_notices` | nothing (`patient_refused`) |

Pages of the one on call, and what ends a call or a request, are never kept back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
from msgspec import structs

from engine.access.fields import FIELDS, OF_PART, Group
from engine.access.restrictions import restricted
from engine.domain.chart import Chart
from engine.domain.consent import Consent, ConsentKind, Marking
from engine.domain.delivery import (
    AppointmentRequest,
    AppointmentUpsert,
    Content,
    EncounterUpsert,
    Forward,
    Operation,
    PageUpsert,
    PatientUpsert,
    ScoreUpsert,
    TaskUpsert,
)
from engine.domain.encounter import EncounterStatus
from engine.domain.patient import ConsentStatement

if TYPE_CHECKING:
    from engine.access.roles import ConsentMark, Policy, Restriction

Treatment = Literal["withhold", "without_clinical", "send"]
Part2 = Literal["withhold", "needs_consent", "send"]
RESTRICTED: Final = "restricted"
NO_CONSENT: Final = "part2_no_consent"
REFUSED: Final = "patient_refused"
TPO: Final = "tpo"
"""Ground of the accounting of disclosures: treatment, payment, operations (`disclosure.as`)."""
CODES: Final = frozenset({RESTRICTED, NO_CONSENT, REFUSED})
"""Why a copy is withheld. What waits with one of these is asked about again when the marks of its patient change."""

NEVER_KEPT: Final = frozenset(
    {Operation.NOTIFY, Operation.NOTIFY_END, Operation.UPSERT_PAGE, Operation.CANCEL_APPOINTMENT}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a destination may get."""

    name: str
    restricted: Treatment = "send"
    part2: Part2 = "needs_consent"
    event_notices: bool = False
    """Its copies are notices of events, which a patient may refuse."""
    test_data: bool = False
    """It takes test data."""
    tpo: bool = False
    """It gets them for treatment, payment or operations (`disclosure.as: tpo`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """code: why nothing goes out; none: it may. marking: what the copy has to say."""

    code: str | None = None
    rule: str = ""
    """Path in the file of roles."""
    without: frozenset[Group] = frozenset()
    marking: Marking | None = None


FREE: Final = Judged()


@dataclass(frozen=True, slots=True)
class Copies:
    """The restrictions of a site, and what of CON is a consent."""

    restrictions: Sequence[Restriction] = ()
    consents: Mapping[ConsentKind, tuple[ConsentMark, ...]] = field(default_factory=dict)

    places: frozenset[str] | None = None
    """Units, facilities and services that some restriction names; none: not known."""

    @classmethod
    def of(cls, policy: Policy) -> Copies:
        whens = [one.when for one in policy.restrictions]
        places = (place for one in whens for place in (*one.units, *one.facilities, *one.services))
        return cls(policy.restrictions, policy.consents, frozenset(places))

    def _is_plain(self, chart: Chart) -> bool:
        """Surely nothing marks the chart, as of most: it is asked for each change of one."""
        patient, places = chart.patient, self.places
        if patient.protection or patient.restrictions or patient.consent_statements or chart.consents:
            return False
        if places is None or any(stay.vip is not None for stay in chart.encounters):
            return False
        return not places or not any(
            stay.hospital_service in places
            or stay.sending_facility in places
            or any(
                place is not None and (place.point_of_care in places or place.facility in places)
                for place in (stay.location, stay.prior_location, stay.temporary_location)
            )
            for stay in chart.encounters
        )

    def marks(self, chart: Chart) -> tuple[object, ...]:
        """What of a chart decides on its copies; empty: nothing, and nobody need ask."""
        if self._is_plain(chart):
            return ()
        patient = chart.patient
        found: list[object] = [(one.name, *sorted(stays)) for one, stays in restricted(chart, self.restrictions)]
        found += chart.consents
        found += [
            (kind, said.code, said.status)
            for said in patient.consent_statements
            for kind, marks in self.consents.items()
            if _is_meant(said, marks)
        ]
        return tuple(found)

    def stays(self, chart: Chart) -> frozenset[str]:
        """Keys of the stays that restrict something."""
        return frozenset().union(*(stays for _, stays in restricted(chart, self.restrictions)))

    def judge(self, content: Content, operation: Operation, chart: Chart, terms: Terms, now: datetime) -> Judged:
        """chart: whole, the patient's of whom the content is."""
        if operation in {Operation.NOTIFY, Operation.NOTIFY_END}:
            return FREE  # they hold nothing of a patient
        applying = [one for one, stays in restricted(chart, self.restrictions) if _applies(one, stays, content, chart)]
        without: frozenset[Group] = frozenset()
        consent: str | None = None
        kept: Judged | None = None
        if terms.event_notices and self._says(chart, ConsentKind.NOTICES_REFUSED, terms, now) is not None:
            kept = Judged(code=REFUSED, rule="consents.notices_refused")
        for one in applying:
            rule = f"restrictions.{one.name}"
            if one.kind == "part2":
                consent = self._consent(chart, terms, now)
                if terms.part2 == "withhold" or (terms.part2 == "needs_consent" and consent is None):
                    kept = kept or Judged(code=NO_CONSENT, rule=rule)
            elif terms.restricted == "withhold":
                kept = kept or Judged(code=RESTRICTED, rule=rule)
            elif terms.restricted == "without_clinical":
                without |= {Group.CLINICAL} | (one.hides or frozenset())
        if kept is None and without and not _can_be_without(content, without):
            kept = Judged(code=RESTRICTED, rule=f"restrictions.{applying[0].name}")
        if kept is not None and operation not in NEVER_KEPT:
            # A person may release it all the same: its notice goes with it.
            return replace(kept, marking=_marking(applying, consent, frozenset()))
        if not applying:
            return FREE
        return Judged(without=without, marking=_marking(applying, consent, without))

    def _consent(self, chart: Chart, terms: Terms, now: datetime) -> str | None:
        """The scope of the consent by which Part 2 records may go there, in words; none: there is none."""
        return self._says(chart, ConsentKind.PART2_TPO, terms, now) or self._says(
            chart, ConsentKind.PART2_SPECIFIC, terms, now
        )

    def _says(self, chart: Chart, kind: ConsentKind, terms: Terms, now: datetime) -> str | None:
        covers: list[Consent] = [one for one in chart.consents if one.kind is kind and one.holds(now)]
        if kind is ConsentKind.PART2_TPO and not terms.tpo:
            return None
        if kind is ConsentKind.PART2_SPECIFIC:
            covers = [one for one in covers if terms.name in one.to]
        stated = kind is not ConsentKind.PART2_SPECIFIC and any(
            _is_meant(said, self.consents.get(kind, ())) and _in_force(said, now)
            for said in chart.patient.consent_statements
        )
        if not covers and not stated:
            return None
        return _SCOPES[kind] + "".join(f", until {one.ends.date()}" for one in covers[:1] if one.ends is not None)


_SCOPES: Final = {
    ConsentKind.PART2_TPO: "all future uses and disclosures for treatment, payment and health care operations",
    ConsentKind.PART2_SPECIFIC: "disclosure to this recipient",
    ConsentKind.NOTICES_REFUSED: "no notices of events",
}
NO_RESTRICTIONS: Final = Copies((), {})


def _is_meant(said: ConsentStatement, marks: Sequence[ConsentMark]) -> bool:
    return any(said.status in mark.status and (not mark.type or said.code in mark.type) for mark in marks)


def _in_force(said: ConsentStatement, now: datetime) -> bool:
    """CON-14 and CON-15; a day alone holds from its beginning, and until its end."""
    begins, ends = said.begins, said.ends
    started = begins is None or begins.at is None or begins.at <= now
    return started and (ends is None or ends.at is None or now < ends.at)


def _applies(one: Restriction, stays: frozenset[str], content: Content, chart: Chart) -> bool:
    """A stay is told by the content; what tells of no stay is covered once the patient has no other."""
    if one.covers == "patient":
        return True
    stay = stay_of(content, chart)
    if stay is not None:
        return stay in stays
    real = [each.key for each in chart.encounters if each.status is not EncounterStatus.CANCELLED]
    return bool(stays) and all(key in stays for key in real)


def stay_of(content: Content, chart: Chart) -> str | None:
    """Key of the stay that the content tells of; none: of the patient."""
    match content:
        case EncounterUpsert():
            return content.encounter.key
        case ScoreUpsert():
            return content.score.encounter
        case TaskUpsert() | AppointmentRequest():
            return content.task.encounter
        case AppointmentUpsert():
            return _stay_of_task(chart, content.appointment.task)
        case PageUpsert():
            return _stay_of_task(chart, content.page.task)
        case Forward():
            return content.stay if isinstance(content.stay, str) else None
        case _:
            return None


def _stay_of_task(chart: Chart, task_id: str | None) -> str | None:
    return next((task.encounter for task in chart.tasks if task.id == task_id), None)


def _marking(applying: Sequence[Restriction], consent: str | None, without: frozenset[Group]) -> Marking | None:
    notices = tuple(dict.fromkeys(one.notice for one in applying if one.notice))
    codes = [one.confidentiality for one in applying if one.confidentiality]
    code = min(codes, key=CONFIDENTIALITY.index, default=None)
    if not (notices or code or without):
        return None
    return Marking(notice=notices, confidentiality=code, consent=consent, without=tuple(sorted(without)))


CONFIDENTIALITY: Final = ("V", "ETH", "HIV", "AID", "PSY", "R", "VIP", "UWM", "EMP", "U")
"""HL7 table 0177, the strictest first: very restricted, alcohol and drug treatment, HIV, AIDS, psychiatric, restricted,
very important person, unwed mother, employee, usual control.
"""

_PART: Final[Mapping[type[Content], str]] = {PatientUpsert: "patient", EncounterUpsert: "encounter"}
_BY_NAME: Final[Mapping[type[Content], str]] = {
    ScoreUpsert: "score", TaskUpsert: "task", AppointmentUpsert: "appointment", PageUpsert: "page",
}  # fmt: skip


def _can_be_without(content: Content, without: frozenset[Group]) -> bool:
    """Whether something is left. A message can't be taken apart; a request says who and when, and nothing clinical."""
    if isinstance(content, Forward):
        return False
    groups = OF_PART.get(_PART.get(type(content)) or _BY_NAME.get(type(content), ""))
    if type(content) is ScoreUpsert and content.withdrawn:
        return True
    return groups is None or not groups <= without


def dressed(content: Content, judged: Judged) -> Content:
    """The copy as it goes out: without what is left out, with what it has to say."""
    name = _PART.get(type(content))
    if judged.without and name is not None:
        part = getattr(content, name)
        content = structs.replace(
            content, **{name: structs.replace(part, **dict(_emptied(name, part, judged.without)))}
        )
    return content if judged.marking is None else structs.replace(content, marking=judged.marking)


def _emptied(name: str, part: Any, without: frozenset[Group]) -> Iterator[tuple[str, Any]]:
    of_part = OF_PART.get(name)
    for one in structs.fields(part):
        groups = FIELDS[name].get(one.encode_name) or of_part
        if groups is not None and groups <= without and one.encode_name not in _KEPT:
            yield one.name, _nothing(one)


_KEPT: Final = frozenset({"key", "status", "identifiers"})


def _nothing(field: structs.FieldInfo) -> Any:
    if field.default is not msgspec.NODEFAULT:
        return field.default
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return None
