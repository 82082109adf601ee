"""What deliveries say: their bytes on disk, what they are about, whom they name."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from engine.desk.seeing import HIDDEN, View
from engine.domain.appointment import Appointment
from engine.domain.delivery import (
    CONTENTS,
    AppointmentRequest,
    AppointmentRequestEnd,
    AppointmentUpsert,
    Content,
    Delivery,
    EncounterUpsert,
    Forward,
    GlassNotice,
    Notice,
    Notification,
    NotificationEnd,
    Operation,
    PageUpsert,
    PatientMerge,
    PatientUpsert,
    ScoreUpsert,
    TaskUpsert,
    TextUpsert,
)
from engine.domain.encounter import Encounter
from engine.domain.moment import Moment
from engine.domain.page import Level, Page, Policy, Step, Target
from engine.domain.patient import Address, Identifier, Name, Patient, Provider
from engine.domain.score import Band, Factor, Score
from engine.domain.shapes import patient_shape, plain, task_shape
from engine.domain.task import ENGINE, Task, TaskState
from engine.domain.text import Reply, Text

AT = datetime(2026, 3, 6, 18, 0, tzinfo=UTC)
PATIENT = Patient(
    identifiers=(Identifier(value="558181838", authority="MRN", type="MR"),),
    name=Name(family="Doe", given="Jane"),
    birth_date=Moment.of("1948-03"),
    sex="F",
    address=Address(line="1 Main", city="Troy"),
    phones=("+15185550100",),
    deceased=False,
    pcp=Provider(id="77", family="Welby"),
    lives_alone=True,
    merged_from=("MRN:9",),
)
TASK = Task(
    id="t1", kind="pcp_follow_up", encounter="MRN:V1", due_at=AT, escalate_at=None, state=TaskState.DONE, assignee=None,
    reason="why", protocol="p", discharge=1, created_at=AT, ended_at=AT, ended_by="anna",
)  # fmt: skip
SCORE = Score(
    model="lace", version="1", value=None, min=7, max=12, band=Band.LOW, band_max=Band.HIGH,
    factors=(Factor(name="acute", points=3, evidence="acute"),), missing=("charlson",), observed_since=None,
    scored_at=AT, encounter="MRN:V1",
)  # fmt: skip
ENCOUNTER = Encounter(key="MRN:V1", visit_number="V1")
NOTICE = Notice(id="n1", patient_key="MRN:558181838", to="+15185550100", body="Call us", not_after=AT)
STEP = Step(loop=1, level=1, at=AT, person="lee", channel="files")
POLICY = Policy(ladder="on-call", version="1", levels=(Level(targets=(Target(roster="on-call"),), seconds=300),))
PAGE = Page(
    id="p1", task="t1", kind="on_call_page", encounter="MRN:V1", policy=POLICY, closes=True, raised_at=AT, next_at=AT,
    level=1, steps=(STEP,),
)  # fmt: skip
TEXT = Text(
    id="x1", series="post-discharge-texts", series_version="1", step="day-0", encounter="MRN:V1", planned_for=AT,
    due_at=None, useful_until=AT, number="+15185550100", body="Call us",
    replies=(Reply(id="SM1", at=AT, text="Call me", meaning="free"),),
)  # fmt: skip
NOTIFICATION = Notification(
    id="p1-1", page_id="p1", ladder="on-call", level=1, loop=1, step=1, person="lee", to="pager-1",
    text="Open the page", link="/pages/p1", reason="on_call_page", raised_at=AT,
)  # fmt: skip
SAID: dict[Operation, Content] = {
    Operation.UPSERT_PATIENT: PatientUpsert.of(PATIENT),
    Operation.UPSERT_ENCOUNTER: EncounterUpsert(patient_key="MRN:558181838", encounter=ENCOUNTER),
    Operation.UPSERT_SCORE: ScoreUpsert(patient_key="MRN:558181838", decides=False, score=SCORE),
    Operation.UPSERT_TASK: TaskUpsert.of(TASK, "MRN:558181838"),
    Operation.UPSERT_APPOINTMENT: AppointmentUpsert.of(Appointment(id="a1"), "MRN:558181838"),
    Operation.MERGE_PATIENT: PatientMerge(survivor="MRN:558181838", merged="MRN:9"),
    Operation.FORWARD: Forward(hl7=b"MSH|^~\\&|"),
    Operation.SEND_TEXT: NOTICE,
    Operation.UPSERT_PAGE: PageUpsert.of(PAGE, "MRN:558181838"),
    Operation.UPSERT_TEXT: TextUpsert.of(TEXT, "MRN:558181838"),
    Operation.REQUEST_APPOINTMENT: AppointmentRequest(
        id="a1",
        patient=PatientUpsert.of(PATIENT).patient,
        appointment=AppointmentUpsert.of(Appointment(id="a1"), "MRN:558181838").appointment,
        task=TaskUpsert.of(TASK, "MRN:558181838").task,
        minutes=30,
    ),
    Operation.CANCEL_APPOINTMENT: AppointmentRequestEnd(
        id="a1",
        patient=PatientUpsert.of(PATIENT).patient,
        appointment=AppointmentUpsert.of(Appointment(id="a1"), "MRN:558181838").appointment,
    ),
    Operation.NOTIFY: NOTIFICATION,
    Operation.NOTIFY_END: NotificationEnd(page_id="p1", state="acknowledged", by="lee", at=AT, round=0),
    Operation.SEND_MAIL: NOTICE,
    Operation.NOTIFY_GLASS: GlassNotice(id="g1", actor="anna", reason="covering", broken_at=AT, ends_at=AT),
}
BYTES = {
    Operation.UPSERT_PATIENT: (
        b'{"patient":{"key":"MRN:558181838","identifiers":[{"value":"558181838","authority":"MRN","type":"MR"}],"name":'
        b'{"family":"Doe","given":"Jane","middle":null,"prefix":null,"suffix":null},"birth_date":"1948-03","sex":"F",'
        b'"address":{"line":"1 Main","city":"Troy","state":null,"postal_code":null,"country":null},"phones":'
        b'["+15185550100"],"language":null,"deceased":false,"deceased_at":null,"pcp":{"id":"77","family":"Welby",'
        b'"given":null},"lives_alone":true,"transportation":null,"active_medications":null,"merged_from":["MRN:9"],"links":[],'
        b'"protection":null,"restrictions":[],"consent_statements":[],"text_consent":null}}'
    ),
    Operation.UPSERT_ENCOUNTER: (
        b'{"patient_key":"MRN:558181838","encounter":{"key":"MRN:V1","visit_number":"V1","visit_authority":null,"class"'
        b':null,"status":"planned","location":null,"attending":null,"consulting":[],"admission_type":null,'
        b'"hospital_service":null,"vip":null,"sending_facility":null,'
        b'"admitted_at":null,"discharged_at":null,"disposition":null,"diagnoses":[],"procedures":[],"time_sources":{},'
        b'"discharges":0,"account":null,"prior_location":null,"pending_location":null,"temporary_location":null,'
        b'"in_transit":false,"expected_admission_at":null,"expected_discharge_at":null,"discharge_pending":false,'
        b'"leave_began_at":null,"leave_return_expected_at":null,"merged_into":null}}'
    ),
    Operation.UPSERT_SCORE: (
        b'{"patient_key":"MRN:558181838","decides":false,"withdrawn":false,"score":{"model":"lace","version":"1",'
        b'"value":null,"min":7,"max":12,"band":"low","band_max":"high","factors":[{"name":"acute","points":3,'
        b'"evidence":"acute"}],"missing":["charlson"],"observed_since":null,"scored_at":"2026-03-06T18:00:00Z",'
        b'"encounter":"MRN:V1","expected_risk_percent":null}}'
    ),
    Operation.UPSERT_TASK: (
        b'{"task":{"id":"t1","kind":"pcp_follow_up","encounter":"MRN:V1","due_at":"2026-03-06T18:00:00Z",'
        b'"escalate_at":null,"state":"done","assignee":null,"reason":"why","protocol":"p","discharge":1,"created_at":'
        b'"2026-03-06T18:00:00Z","ended_at":"2026-03-06T18:00:00Z","ended_by":"anna","end_reason":null,'
        b'"suspended_by":null,"owner":null,"snoozed_until":null,"attempts":[],"evidence":null,"appointment":null,'
        b'"page":null,"protocol_version":null,"missed_at":null,"escalations":[],"raised_for":null,"attempts_wanted":0,'
        b'"patient_key":"MRN:558181838","closed_by":"anna"}}'
    ),
    Operation.MERGE_PATIENT: b'{"survivor":"MRN:558181838","merged":"MRN:9"}',
    Operation.FORWARD: b'{"hl7":"TVNIfF5+XCZ8"}',
}
"""As they are on disk."""


def delivery(operation: Operation, payload: bytes) -> Delivery:
    return Delivery(destination="crm", operation=operation, ordering_key="c", idempotency_key="k", payload=payload)


@pytest.mark.parametrize("operation", BYTES)
def test_the_bytes_on_disk_are_what_they_were(operation: Operation) -> None:
    assert SAID[operation].encoded() == BYTES[operation]


@pytest.mark.parametrize("operation", Operation)
def test_each_operation_has_a_content_that_is_read_as_it_was_written(operation: Operation) -> None:
    said = SAID[operation]
    assert type(said) is CONTENTS[operation]
    assert delivery(operation, said.encoded()).content == said
    assert operation.what


@pytest.mark.parametrize(
    ("operation", "about", "whose"),
    [
        (Operation.UPSERT_PATIENT, (), "MRN:558181838"),
        (Operation.UPSERT_ENCOUNTER, ("MRN:V1",), "MRN:558181838"),
        (Operation.UPSERT_SCORE, ("MRN:V1", "lace"), "MRN:558181838"),
        (Operation.UPSERT_TASK, ("t1",), "MRN:558181838"),
        (Operation.MERGE_PATIENT, ("MRN:9",), "MRN:558181838"),
        (Operation.FORWARD, (), None),
        (Operation.SEND_TEXT, ("n1",), "MRN:558181838"),
    ],
)
def test_a_content_says_what_it_is_about_and_whose(
    operation: Operation, about: tuple[str, ...], whose: str | None
) -> None:
    assert (SAID[operation].about, SAID[operation].whose) == (about, whose)


def test_what_is_said_once_is_no_state() -> None:
    assert {operation.what for operation, content in CONTENTS.items() if not content.is_state} == {
        "message", "request", "text", "notification", "notification_end", "mail", "glass_notice",
    }  # fmt: skip


@pytest.mark.parametrize("ended_by", [None, ENGINE, "anna"])
def test_a_task_is_closed_by_persons_only(ended_by: str | None) -> None:
    shape = task_shape(msgspec.structs.replace(TASK, ended_by=ended_by), "MRN:1")
    assert shape["closed_by"] == ("anna" if ended_by == "anna" else None)


def test_a_delivered_patient_has_the_shape_that_commands_show() -> None:
    assert plain(SAID[Operation.UPSERT_PATIENT]) == {"patient": patient_shape(PATIENT)}


@pytest.mark.parametrize("payload", [b"{}", b'{"encounter":{}}', b"[]", b"no JSON", b""])
def test_a_payload_that_does_not_fit_is_no_content(payload: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        _ = delivery(Operation.UPSERT_ENCOUNTER, payload).content


@pytest.mark.parametrize("operation", Operation)
def test_a_mask_leaves_nobody_known(operation: Operation) -> None:
    view = View(lambda key: f"{key.partition(':')[0]}:~00000000", revealed=False)
    shown = msgspec.json.encode(view.payload(plain(SAID[operation]))).decode()
    assert [
        text for text in ("558181838", "Doe", "Jane", "1948", "5185550100", "Call us", "Troy") if text in shown
    ] == []
    revealed = View(str, revealed=True).payload(plain(SAID[operation]))
    assert revealed == plain(SAID[operation])


def test_a_masked_notice_shows_that_it_has_words_and_nothing_of_them() -> None:
    shown = View(lambda _: "MRN:~00000000", revealed=False).payload(plain(NOTICE))
    assert (shown["body"], shown["to"], shown["patient_key"]) == (HIDDEN, HIDDEN, "MRN:~00000000")
    assert shown["language"] is None


def test_a_content_cannot_be_formatted_by_accident() -> None:
    with pytest.raises(TypeError):
        f"{SAID[Operation.UPSERT_PATIENT]}"
    assert "Doe" not in repr(SAID[Operation.UPSERT_PATIENT])
