"""What holds of the pure heart whatever arrives, and in whatever order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from heart import DAY, HOUR, Feed, Heart, adt, hl7, merge
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.care.protocol import tells_of_death
from engine.domain.chart import Chart, Days
from engine.domain.delivery import Operation
from engine.domain.encounter import EncounterStatus
from engine.domain.message import EntryState
from engine.domain.outcome import Outcome
from engine.domain.shapes import encounter_shape, patient_shape, plain, task_shape
from engine.domain.task import TaskState
from engine.pipeline.plan import came_at

CHF = "DG1|1||I50.9^Heart failure^I10|||F"
DIABETES = "DG1|2||E11.9^Diabetes^I10|||F"
KIDNEY = "DG1|3||N18.3^Kidney disease^I10|||F"


def time(day: int, hour: int = 12) -> str:
    return f"202603{day:02d}{hour:02d}0000"


def event(
    trigger: str,
    day: int,
    visit: str | None = "V1",
    *codes: str,
    since: int = 1,
    pid: dict[int, str] | None = None,
    **pv1: str,
) -> bytes:
    """An ADT message; its address and phone tell the day, so that later ones can be told from earlier ones."""
    person = {11: f"{day} Main St^^Town^NY^10001", 13: f"2125551{day:03d}"} | (pid or {})
    stay = {4: "E", 19: f"{visit}^^^MRN", 44: time(since, 11)} | {int(name[1:]): value for name, value in pv1.items()}
    return adt(trigger, at=time(day), pid3="1^^^MRN^MR", pv1=stay if visit else None, segments=codes, pid=person)


def left(day: int, disposition: str = "01") -> dict[str, str]:
    return {"_36": disposition, "_45": time(day, 11)}


STAY = (
    event("A01", 1, _3="W1^1^A"),
    event("A02", 2, _3="W2^2^B"),
    event("A08", 3, "V1", CHF, _3="W2^2^B", _7="D1^House"),
    event("A03", 5, "V1", CHF, **left(5, "03")),
    event("A13", 6, "V1", CHF, _3="W2^3^B"),
    event("A03", 8, "V1", CHF, DIABETES, **left(8)),
    event("A08", 9, "V1", CHF, DIABETES, KIDNEY, **left(8)),
)
BACK = "PV2" + "|" * 47 + "20260330"
LEAVES = "PV2" + "|" * 9 + "20260308"
AGAIN = event("A01", 12, "V2", since=12)
HISTORIES = {
    "a stay, its discharge cancelled and said again": STAY,
    "an admission cancelled": (*STAY, event("A11", 10)),
    "a pre-admission": (event("A05", 1, _2="P", _44="", pid={11: "", 13: ""}), *STAY[1:]),
    "a death": (*STAY, event("A31", 10, None, pid={29: time(10, 9), 30: "Y"})),
    "a death that was none": (*STAY, event("A31", 10, None, pid={30: "Y"}), event("A31", 11, None, pid={30: "N"})),
    "a discharge as dead that was cancelled": (
        *STAY[:5],
        event("A03", 8, **left(8, "20")),
        event("A13", 9),
        event("A03", 10, **left(10)),
    ),
    "a death by disposition, and a PID-30 that always says no": (
        *STAY[:5],
        event("A03", 8, "V1", CHF, pid={30: "N"}, **left(8, "20")),
        event("A08", 9, "V1", CHF, pid={30: "N"}, **left(8, "20")),
        event("A31", 10, None, pid={30: "N"}),
    ),
    "a disposition that says still here after the discharge": (*STAY, event("A08", 10, "V1", CHF, **left(10, "30"))),
    "a stay that is no inpatient's after all": (*STAY, event("A08", 10, "V1", CHF, _2="O", **left(8))),
    "a readmission": (*STAY, AGAIN, event("A03", 14, "V2", CHF, since=12, **left(14, "06"))),
    "a readmission cancelled": (*STAY, AGAIN, event("A11", 13, "V2", since=12)),
    "a readmission by way of the emergency department": (
        *STAY,
        event("A04", 12, "V2", since=12, _2="E"),
        event("A01", 13, "V2", since=13),
        event("A03", 14, "V2", CHF, since=13, **left(14, "06")),
    ),
    "an emergency visit before": (
        adt("A04", at="20260201120000", pid3="1^^^MRN^MR", pv1={2: "E", 19: "V0^^^MRN", 44: "20260201110000"}),
        adt(
            "A03", at="20260201150000", pid3="1^^^MRN^MR", pv1={2: "E", 19: "V0^^^MRN", 36: "01", 45: "20260201140000"}
        ),
        *STAY,
    ),
    "a new stay under the same visit number": (
        *STAY,
        event("A01", 12, since=12),
        event("A03", 14, "V1", CHF, since=12, **left(14, "06")),
    ),
    "a leave of absence": (
        *STAY[:3],
        event("A21", 4, "V1", BACK),
        event("A22", 5),
        event("A21", 6),
        event("A03", 8, **left(8)),
    ),
    "a leave that was none, and a return that was none": (
        *STAY[:3],
        event("A21", 4, "V1", BACK),
        event("A52", 5),
        event("A21", 6),
        event("A22", 7),
        event("A53", 8),
    ),
    "a discharge from leave that is cancelled": (
        *STAY[:3],
        event("A21", 4, "V1", BACK),
        event("A03", 5, **left(5)),
        event("A13", 6),
    ),
    "a discharge after a leave that is cancelled": (
        *STAY[:3],
        event("A21", 4, "V1", BACK),
        event("A22", 5),
        event("A03", 6, **left(6)),
        event("A13", 7),
    ),
    "a change to inpatient that was none": (
        event("A04", 1, _2="E"),
        event("A06", 2, "V1", "ZBE|1^H|20260302120000||INSERT|N"),
        event("A06", 3, "V1", "ZBE|1^H|20260303120000||CANCEL|N", _2="E"),
        event("A03", 5, _2="E", **left(5)),
    ),
    "a transfer cancelled": (*STAY[:2], event("A02", 3, _3="W3^3^C", _6="W2^2^B"), event("A12", 4, _3="W2^2^B")),
    "plans that come to pass": (
        event("A05", 1, _2="P", _44="", pid={11: "", 13: ""}),
        *STAY[:1],
        event("A15", 2, _3="W1^1^A", _42="W2^2^B"),
        *STAY[1:3],
        event("A16", 4, "V1", LEAVES),
        event("A03", 8, **left(8)),
    ),
    "plans that are cancelled": (
        event("A14", 1, "V9", _2="P", since=30),
        event("A27", 2, "V9", _2="P", since=30),
        *STAY[:3],
        event("A15", 4, _42="W3^3^C"),
        event("A26", 5, _42="W3^3^C"),
        event("A16", 6, "V1", LEAVES),
        event("A25", 7),
    ),
    "tracking": (
        *STAY[:2],
        event("A09", 3, _11="OR^1"),
        event("A10", 4, _11="OR^1"),
        event("A32", 5),
        event("A33", 6),
        event("A09", 7, _11="CT^1"),
    ),
    "an emergency stay that becomes an inpatient's": (
        event("A04", 1, _2="E"),
        event("A06", 2, _3="W1^1^A"),
        event("A54", 3, _7="D1^House"),
        event("A55", 4, _7="D2^Cuddy"),
        event("A03", 8, "V1", CHF, **left(8)),
    ),
    "an emergency visit that was ended, and became an inpatient's": (
        event("A04", 1, _2="E"),
        event("A03", 2, _2="E", **left(2)),
        event("A06", 3, _3="W1^1^A"),
        event("A03", 8, "V1", CHF, **left(8)),
    ),
    "an inpatient who was an emergency that had been ended, and is still here": (
        event("A04", 1, _2="E"),
        event("A03", 2, _2="E", **left(2)),
        event("A06", 3, _3="W1^1^A"),
        event("A08", 4, "V1", CHF, _3="W1^1^A"),
    ),
    "a class that is changed and changed back": (event("A01", 1), event("A07", 2, _2="O"), event("A06", 3), STAY[-2]),
    "a merge": (*STAY, adt("A40", at=time(10), pid3="1^^^MRN^MR", segments=("MRG|2^^^MRN^MR",))),
}


DISPUTED = (
    *STAY[:5],
    event("A03", 8, "V1", CHF, pid={30: "N"}, **left(8, "20")),
    event("A01", 12, "V2", CHF, since=12, pid={30: "N"}),
    event("A03", 14, "V2", CHF, since=12, pid={30: "N"}, **left(14)),
)
"""A stay that ended in death, and a later one that the patient left alive."""


def run(messages: Sequence[bytes]) -> Heart:
    heart = Heart()
    heart.now = datetime(2026, 3, 20, tzinfo=UTC)
    for message in messages:
        assert heart.send(message).state is EntryState.PROCESSED
    return heart


def settled(heart: Heart) -> dict[str, Any]:
    """What must not depend on the order: the patient, the stays, the open tasks, what suspends the others."""
    chart = heart.chart("1")
    stays = [
        msgspec.structs.replace(stay, discharges=0, time_sources={}) for stay in chart.encounters
    ]  # how often a discharge was cancelled depends on whether it came before its cancel
    return {
        "patient": plain(chart.patient),
        "stays": plain(stays),
        "open": sorted(
            (task.encounter, task.kind)
            for task in chart.tasks
            if task.state is TaskState.OPEN and task.encounter is not None and not tells_of_death(task)
        ),
        "suspended": sorted((task.encounter, task.kind) for task in chart.tasks if task.suspended_by is not None),
    }


@pytest.mark.parametrize("name", HISTORIES)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_messages_in_any_order_with_repeats_come_to_the_same_as_in_order(name: str, data: st.DataObject) -> None:
    history = HISTORIES[name]
    repeats = data.draw(st.lists(st.sampled_from(history), max_size=3))
    shuffled = data.draw(st.permutations([*history, *repeats]))
    assert settled(run(shuffled)) == settled(run(history))


# --- wrong clocks ----------------------------------------------------------------------------------------------------

CLOCKS = st.sampled_from(
    [timedelta(), timedelta(minutes=4), -timedelta(minutes=40), 5 * HOUR, -5 * HOUR, timedelta(days=1),
     timedelta(days=365), -timedelta(days=20), datetime(2000, 1, 1, tzinfo=UTC) - DAY,
     datetime(1970, 1, 1, tzinfo=UTC) - DAY]
)  # fmt: skip
SENDERS = st.sampled_from(["EPIC", "BEDS"])
ENDS_DISCHARGED = (
    ("A01", "A03"),
    ("A04", "A01", "A02", "A03"),
    ("A01", "A03", "A13", "A03"),
    ("A01", "A08", "A03", "A13", "A02", "A03", "A08"),
    ("A05", "A11", "A01", "A03"),
    ("A01", "A03", "A13", "A03", "A13", "A03"),
)


def falls_through(feed: Feed) -> bool:
    """A patient who has left, whose chart does not say so, and of whom no person is told."""
    return not feed.asks and not (feed.stay.status is EncounterStatus.FINISHED and feed.plan)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_no_clock_of_any_sender_makes_a_discharged_patient_fall_through(data: st.DataObject) -> None:
    feed, at = Feed(), DAY
    for trigger in data.draw(st.sampled_from(ENDS_DISCHARGED)):
        at += data.draw(st.sampled_from([timedelta(minutes=1), HOUR, 7 * HOUR]))
        pv1 = {}
        if data.draw(st.booleans()):
            pv1[44] = hl7(DAY + data.draw(CLOCKS))
        if trigger == "A03" and data.draw(st.booleans()):
            pv1[45] = hl7(at + data.draw(CLOCKS))
        late = data.draw(st.sampled_from([timedelta(), timedelta(minutes=1), 2 * HOUR]))  # it is recorded afterwards
        skew = data.draw(CLOCKS)
        feed.send(trigger, at, sender=data.draw(SENDERS), skew=skew, evn2=at + skew - late, pv1=pv1)
    assert not falls_through(feed)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_no_order_of_arrival_from_two_senders_makes_a_discharged_patient_fall_through(data: st.DataObject) -> None:
    history = data.draw(st.sampled_from(ENDS_DISCHARGED))
    said = [(trigger, DAY + number * HOUR, data.draw(SENDERS)) for number, trigger in enumerate(history)]
    repeats = data.draw(st.lists(st.sampled_from(said), max_size=2))
    feed = Feed()
    for number, (trigger, then, sender) in enumerate(data.draw(st.permutations([*said, *repeats]))):
        feed.send(trigger, DAY + (20 + number) * HOUR, sender=sender, sent=then, evn2=then, pv1={44: hl7(DAY)})
    assert not falls_through(feed)


DELAYS = st.sampled_from(
    [timedelta(), timedelta(minutes=1), timedelta(minutes=7), 2 * HOUR, 9 * HOUR, timedelta(days=2)]
)
STEPS = st.sampled_from([timedelta(minutes=1), timedelta(minutes=6), HOUR, 7 * HOUR, timedelta(days=3)])
ENDS_IN_THE_HOSPITAL = (
    ("A01", "A03", "A13"),
    ("A04", "A01", "A03", "A13"),
    ("A01", "A03", "A13", "A03", "A13"),
    ("A01", "A03", "A13", "A02", "A08"),
)
STAYS = (
    *ENDS_DISCHARGED,
    ("A03",),
    ("A08", "A03"),
    ("A04", "A03", "A13", "A08", "A03", "A08"),
    *ENDS_IN_THE_HOSPITAL,
)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_wrong_clocks_and_turned_round_messages_together_leave_no_stay_wrong_in_silence(data: st.DataObject) -> None:
    """Two senders with a clock each; every message is on its way for as long as it likes, and may come twice."""
    history = data.draw(st.sampled_from(STAYS))
    clocks = {"EPIC": data.draw(CLOCKS), "BEDS": data.draw(CLOCKS)}
    names_admission = data.draw(st.booleans())
    names_end = data.draw(st.booleans())
    at = DAY
    said: list[tuple[datetime, int, str, datetime, str, dict[int, str]]] = []
    for number, trigger in enumerate(history):
        at += data.draw(STEPS)
        sender = data.draw(SENDERS)
        pv1 = {44: hl7(DAY)} if names_admission else {}
        if trigger == "A03" and names_end:
            pv1[45] = hl7(at + clocks[sender])
        delays = data.draw(st.lists(DELAYS, min_size=1, max_size=2))
        said.extend((at + delay, number, trigger, at, sender, pv1) for delay in delays)
    feed = Feed()
    for received, _, trigger, then, sender, pv1 in sorted(said, key=lambda one: one[:2]):
        by_clock = then + clocks[sender]
        feed.send(trigger, received, sender=sender, sent=by_clock, evn2=by_clock, pv1=pv1)
    if history in ENDS_IN_THE_HOSPITAL:
        assert feed.asks or feed.stay.status is not EncounterStatus.FINISHED
    else:
        assert not falls_through(feed)


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_replay_of_all_that_was_applied_asks_nothing_and_changes_nothing(data: st.DataObject) -> None:
    feed = Feed()
    for number, trigger in enumerate(data.draw(st.sampled_from(ENDS_DISCHARGED))):
        feed.send(trigger, DAY + number * HOUR, sender=data.draw(SENDERS), skew=data.draw(CLOCKS))
    before = feed.heart.chart("1")
    applied = [one for one, outcome in zip(feed.entries, feed.outcomes, strict=True) if not outcome.holds]
    for entry in applied:
        outcome = feed.replay(entry, settled=True)
        assert (outcome.holds, outcome.deliveries) == ((), ())
    assert feed.heart.chart("1").encounters == before.encounters


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_disputed_death_is_left_to_a_person_in_whatever_order_it_is_heard_of(data: st.DataObject) -> None:
    repeats = data.draw(st.lists(st.sampled_from(DISPUTED), max_size=3))
    chart = run(data.draw(st.permutations([*DISPUTED, *repeats]))).chart("1")
    assert chart.death_stated.in_doubt
    asked = [task for task in chart.tasks if task.encounter is None and task.state is TaskState.OPEN]
    assert [task.kind for task in asked] == ["care_coordinator_alert"]
    planned = {task.encounter for task in chart.tasks if task.state is TaskState.OPEN} - {None}
    assert planned == (set() if chart.patient.deceased else {"MRN:V2"})


# --- anything --------------------------------------------------------------------------------------------------------

_PATIENTS = ("1^^^MRN^MR", "2^^^MRN^MR", "3^^^MRN^MR", "1^^^MRN^MR~9^^^EPI^PI", "2^^^MRN^MR~9^^^EPI^PI", "9^^^EPI^PI")
_TIMES = (
    *(time(day, hour) for day in (1, 2, 3) for hour in (1, 12)),
    "",
    "20990101000000",
    "20260308023000",
    "junk",
    "2026",
)
_VALUES = (
    "", '""', "1", "V1", "V1^^^MRN", "~", "^^^", "2026", "99991231", "20260306240000", "20261101013000", "Y", "N", "E",
    "01", "20", "30", "\\X0A\\", "\\XFF\\", "\x00", "é☃", "a" * 300, "-5", "٣", "(212)555-0100^PRN^CP", "A~B",
)  # fmt: skip


_OF_TWO = ("A17", "A24", "A37")
_WITH_MRG = ("A35", "A36", "A40", *(f"A{number}" for number in range(41, 51)))
_OF_STAYS = ("A01", "A02", "A03", "A04", "A05", "A08", "A11", "A13", "A23")
_RARE = (
    "A06", "A07", "A09", "A10", "A12", "A14", "A15", "A16", "A20", "A21", "A22", "A25", "A26", "A27", "A32", "A33",
    "A38", "A52", "A53", "A54", "A55", "A60", "A61", "A62",
)  # fmt: skip
_WITH_PV2 = ("A05", "A14", "A16", "A21")


def _who_else(draw: st.DrawFn, trigger: str) -> tuple[str, ...]:
    """The other side of an event about who is who, and whose a stay is."""
    other = draw(st.sampled_from(_PATIENTS))
    if trigger in _OF_TWO:
        return f"PID|2||{other}", f"PV1|2|I|{draw(st.sampled_from(['W1^1^A', 'W2^2^B']))}"
    if trigger in _WITH_PV2:
        return (f"PV2{'|' * 8}{draw(st.sampled_from(_TIMES))}|{draw(st.sampled_from(_TIMES))}{'|' * 38}2026",)
    if trigger not in (*_WITH_MRG, "A06", "A07"):
        return ()
    account = draw(st.sampled_from(["", "A1", "A2"]))
    return (f"MRG|{other}||{account}||{draw(st.sampled_from(['', 'V1^^^MRN', 'V2^^^MRN', 'V3']))}",)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    trigger = draw(st.sampled_from([*_OF_STAYS, "A29", "A31", "A40", *_OF_STAYS, *_OF_TWO, *_WITH_MRG, *_RARE]))
    odd = st.dictionaries(st.integers(4, 45).filter(lambda number: number != 18), st.sampled_from(_VALUES), max_size=4)
    pv1 = {
        2: draw(st.sampled_from(["I", "E", "O", ""])),
        19: draw(st.sampled_from(["V1^^^MRN", "V2^^^MRN", "V3", ""])),
        36: draw(st.sampled_from(["", "01", "03", "20", "30"])),
        44: draw(st.sampled_from(_TIMES)),
        45: draw(st.sampled_from(_TIMES)),
    }
    account = {18: draw(st.sampled_from(["", "A2", "A1"]))}
    merged = _who_else(draw, trigger)
    return adt(
        trigger,
        at=draw(st.sampled_from(_TIMES)),
        pid3=draw(st.sampled_from(_PATIENTS)),
        pid=draw(odd) | account,
        pv1=draw(st.sampled_from([pv1, pv1, pv1 | draw(odd), None])),
        segments=(*draw(st.lists(st.sampled_from([CHF, DIABETES, "DG1|1||", 'DG1|1||""']), max_size=2)), *merged),
    )


class Mirror:
    """A destination that takes every delivery at its word."""

    def __init__(self) -> None:
        self.patients: dict[str, Any] = {}
        self.encounters: dict[str, Any] = {}
        self.scores: dict[tuple[str, str], Any] = {}
        self.deciding: dict[str, tuple[str, str] | None] = {}
        """The place for one risk that a patient has, and whose score stands in it."""
        self.tasks: dict[str, Any] = {}
        self.seen: set[str] = set()

    def take(self, outcome: Outcome) -> None:
        for delivery in outcome.deliveries:
            assert delivery.idempotency_key not in self.seen
            self.seen.add(delivery.idempotency_key)
            body = msgspec.json.decode(delivery.payload)
            match delivery.operation:
                case Operation.UPSERT_PATIENT:
                    self.patients[body["patient"]["key"]] = body["patient"]
                case Operation.MERGE_PATIENT:
                    self.patients.pop(body["merged"], None)
                case Operation.UPSERT_ENCOUNTER:
                    self.encounters[body["encounter"]["key"]] = (body["patient_key"], body["encounter"])
                case Operation.UPSERT_SCORE:
                    key = (body["score"]["encounter"], body["score"]["model"])
                    self.scores[key] = (body["patient_key"], body["score"])
                    if body["withdrawn"]:
                        del self.scores[key]
                    if body["decides"]:
                        self.deciding[body["patient_key"]] = None if body["withdrawn"] else key
                case Operation.UPSERT_TASK:
                    self.tasks[body["task"]["id"]] = body["task"]


def as_mirrored(charts: list[Chart]) -> Mirror:
    """What a destination must hold that was told of everything."""
    mirror = Mirror()
    for chart in charts:
        key = chart.patient.key
        mirror.patients[key] = as_json(patient_shape(chart.patient))
        mirror.encounters |= {e.key: (key, as_json(encounter_shape(e))) for e in chart.encounters}
        mirror.scores |= {(s.encounter or "", s.model): (key, as_json(plain(s))) for s in chart.scores}
        mirror.tasks |= {task.id: as_json(task_shape(task, key)) for task in chart.tasks}
    return mirror


def as_json(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


@given(st.lists(messages(), min_size=1, max_size=12))
@settings(max_examples=150, deadline=None)
def test_whatever_arrives_destinations_hold_what_the_charts_hold(history: list[bytes]) -> None:
    heart, mirror = Heart(), Mirror()
    for message in history:
        mirror.take(heart.send(message))
    living = [chart for chart in heart.charts.by_id.values() if chart.merged_into is None]
    wanted = as_mirrored(living)
    assert mirror.patients == wanted.patients
    assert mirror.encounters == wanted.encounters
    assert mirror.scores == wanted.scores
    for chart in living:
        scored = {score.encounter for score in chart.scores}
        came, days = [stay for stay in chart.encounters if stay.key in scored], Days(chart.encounters)
        latest = max(came, key=lambda stay: (came_at(stay, days), stay.key), default=None)
        assert mirror.deciding.get(chart.patient.key) == (latest and (latest.key, "lace"))
    assert mirror.tasks == wanted.tasks


@given(st.lists(messages(), min_size=1, max_size=12))
@settings(max_examples=150, deadline=None)
def test_whatever_arrives_the_charts_make_sense(history: list[bytes]) -> None:
    heart = Heart()
    for message in history:
        heart.send(message)
    owners: dict[str, str] = {}
    for chart in heart.charts.by_id.values():
        if chart.merged_into is not None:
            assert chart.encounters == chart.scores == chart.tasks == ()
            continue
        for stay in chart.encounters:
            assert owners.setdefault(stay.key, chart.id) == chart.id
            if stay.status is not EncounterStatus.FINISHED:
                assert (stay.discharged_at, stay.disposition) == (None, None)
        open_tasks = [task for task in chart.tasks if task.state is TaskState.OPEN]
        assert len({(task.encounter, task.kind, task.reason) for task in open_tasks}) == len(open_tasks)
        doubt = chart.death_stated.in_doubt
        told = [task for task in open_tasks if tells_of_death(task)]
        assert len(told) <= (1 if chart.patient.deceased else 0)
        assert not (chart.patient.deceased and len(open_tasks) > len(told) and not doubt)
        assert sum(task.encounter is None for task in open_tasks) == (1 if doubt else 0)
        stays = {stay.key: stay for stay in chart.encounters}
        planned = [stays[task.encounter] for task in open_tasks if task.encounter is not None]
        assert all(stay.status is EncounterStatus.FINISHED for stay in planned) or (doubt and chart.patient.deceased)


@given(st.lists(messages(), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_only_patients_that_a_message_names_are_touched(history: list[bytes]) -> None:
    heart = Heart()
    for message in history:
        before = dict(heart.charts.by_id)
        outcome = heart.send(message)
        named = {value for value in ("1", "2", "3", "9") if f"{value}^^^".encode() in message}
        for chart in outcome.charts:
            known = before.get(chart.id, chart)
            came = (key for moves in known.renamed.came.values() for key, _ in moves)  # late news of a stay that moved
            whose = {key.partition(":")[2] for key in came}
            assert named & ({identifier.value for identifier in known.patient.identifiers} | whose)


def test_two_records_of_one_patient_merged_before_or_after_a_stay_come_to_the_same() -> None:
    old = [m.replace(b"1^^^MRN^MR", b"2^^^MRN^MR") for m in STAY]
    first, last = run([merge("1", "2", at=time(10)), *old]), run([*old, merge("1", "2", at=time(10))])
    assert settled(first) == settled(last)
