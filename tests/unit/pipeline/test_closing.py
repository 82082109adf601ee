"""A chart that is loaded without what is closed comes to the same as the whole one, whatever arrives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import pytest
from heart import Heart, adt, merge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rounds import SOAK
from test_heart_properties import CHF, DIABETES, messages, time

from engine.care.tasks import end
from engine.domain.chart import Chart, Charts, as_it_happened
from engine.domain.closed import Closed
from engine.domain.encounter import Encounter, EncounterStatus
from engine.domain.message import Entry
from engine.domain.moment import Moment
from engine.domain.outcome import Outcome
from engine.domain.parts import PARTS
from engine.domain.patient import Identifier, Patient
from engine.domain.task import TaskState
from engine.errors import ChartNotWholeError
from engine.pipeline.closing import KEPT, OVER_MAX, closed_up, reopened
from engine.pipeline.process import decide, prepare

EXAMPLES = 1500 if SOAK else 60

Close = Callable[[Chart], Chart]
ALL: Close = partial(closed_up, over_max=0, kept=0, recent=timedelta(0))
LATE: Close = partial(closed_up, over_max=1, kept=1, recent=timedelta(0))


class BoundedHeart(Heart):
    """Keeps charts as the store does: what is closed is loaded when a rule asks for it."""

    def __init__(self, close: Close, **changes: Any) -> None:
        super().__init__(**changes)
        self.close = close
        self.stored: dict[str, Chart] = {}
        """Whole."""
        self.left: dict[str, Chart] = {}
        """What is loaded of each."""
        self.reopened = 0

    def work(self, entry: Entry) -> Outcome:
        prepared = prepare(entry, self.channel)
        while True:
            try:
                outcome = decide(prepared, self.channel, self.charts, self.now)
                break
            except ChartNotWholeError as error:
                self.reopened += 1
                self.charts.add(reopened(self.charts.by_id[error.chart_id], self.stored[error.chart_id]))
        for chart in outcome.charts:
            self.charts.add(chart)
        return outcome

    def commit(self) -> None:
        """The batch is over: charts are written, and loaded again for the next one."""
        charts = Charts()
        for chart_id, chart in self.charts.by_id.items():
            if self.left.get(chart_id) is not chart and self.stored.get(chart_id) is not chart:
                before = self.stored.get(chart_id)
                unchanged = before is not None and before.version == chart.version
                if not unchanged:
                    self.left[chart_id] = stored_and_loaded(self.close(chart))
                    self.stored[chart_id] = chart if before is None else reopened(chart, before)
            charts.add(self.left[chart_id])
        charts.aliases.update(self.charts.aliases)
        charts.visits.update(self.charts.visits)
        self.charts = charts

    def whole(self) -> dict[str, Chart]:
        return {
            chart_id: reopened(chart, self.stored[chart_id]) if chart.closed is not None else chart
            for chart_id, chart in self.charts.by_id.items()
        }

    def end_tasks(self, chart_id: str, ids: set[str]) -> None:
        """As an act does: it loads the chart whole."""
        chart = self.charts.by_id[chart_id]
        if chart.closed is not None:
            chart = reopened(chart, self.stored[chart_id])
        self.charts.add(ended(chart, ids, self.now))


def stored_and_loaded(chart: Chart) -> Chart:
    if chart.closed is None:
        return chart
    return msgspec.structs.replace(chart, closed=msgspec.json.decode(msgspec.json.encode(chart.closed), type=Closed))


def ended(chart: Chart, ids: set[str], now: Any) -> Chart:
    tasks = tuple(
        end(task, TaskState.DONE, at=now, by="anna") if task.id in ids and task.state is TaskState.OPEN else task
        for task in chart.tasks
    )
    return msgspec.structs.replace(chart, tasks=tasks, version=chart.version + 1)


def comparable(outcome: Outcome) -> dict[str, Any]:
    """An outcome without its charts; what has no order of its own is counted."""
    fields = msgspec.structs.asdict(outcome)
    for name in ("charts", "deliveries", "effects", "changed"):
        del fields[name]
    told = Counter((one.destination, one.operation, one.idempotency_key, one.payload) for one in outcome.deliveries)
    effects = Counter(msgspec.json.encode(effect) for effect in outcome.effects)
    return fields | {"deliveries": told, "effects": effects, "changed": set(outcome.changed)}


def as_known(chart: Chart) -> dict[str, Any]:
    """A whole chart; of its parts only the encounters have an order."""
    fields = {name: getattr(chart, name) for name in chart.__struct_fields__}
    assert fields.pop("closed") is None
    return (
        fields
        | {part.name: {part.key(item): item for item in part.of(chart)} for part in PARTS}
        | {"order": [stay.key for stay in chart.encounters]}
    )


def same_from_both(steps: list[tuple[Any, ...]], close: Close, **changes: Any) -> BoundedHeart:
    """steps: (message, what is done to open tasks by number, whether the batch is over, days until the next)."""
    heart, bounded = Heart(**changes), BoundedHeart(close, **changes)
    for message, done, over, days in steps:
        expected, found = heart.send(message), bounded.send(message)
        assert comparable(found) == comparable(expected)
        if over:
            bounded.commit()
        for chart in list(heart.charts.by_id.values()):
            ids = {task.id for number, task in enumerate(chart.tasks) if done >> (number % 6) & 1}
            if any(task.id in ids and task.state is TaskState.OPEN for task in chart.tasks):
                heart.charts.add(ended(chart, ids, heart.now))
                bounded.end_tasks(chart.id, ids)
                bounded.commit()
        whole = bounded.whole()
        assert whole.keys() == heart.charts.by_id.keys()
        for chart_id, chart in heart.charts.by_id.items():
            assert as_known(whole[chart_id]) == as_known(chart)
        heart.now += timedelta(days=days)
        bounded.now = heart.now
    return bounded


# --- histories


@st.composite
def news(draw: st.DrawFn) -> bytes:
    """A message of one of few patients with many stays, most of them as a hospital sends them."""
    number = draw(st.integers(1, 7))
    day = draw(st.integers(1, 27))
    trigger = draw(
        st.sampled_from(
            ["A01", "A01", "A03", "A03", "A03", "A03", "A04", "A08", "A08", "A11", "A13", "A05", "A31", "A40"]
        )
    )
    patient = draw(st.sampled_from(["1", "1", "1", "1", "2"]))
    since = draw(st.sampled_from([3 * number, 3 * number, 3 * number, day, 5]))
    pv1 = {
        2: draw(st.sampled_from(["I", "I", "I", "OBS", "E", "O", ""])),
        3: draw(st.sampled_from(["W1^1^A", "W2^2^B"])),
        4: draw(st.sampled_from(["E", "R", ""])),
        19: draw(st.sampled_from([f"V{number}^^^MRN"] * 6 + [f"V{number}", ""])),
        44: draw(st.sampled_from([time(since, 11)] * 4 + [""])),
    }
    if trigger in {"A03", "A08"} and draw(st.booleans()):
        left = min(since + draw(st.integers(0, 3)), 28)
        pv1 |= {36: draw(st.sampled_from(["01"] * 8 + ["02", "03", "07", "20", "09"])), 45: time(left, 12)}
    account = {18: draw(st.sampled_from(["", "", "", "", f"A{number}"]))}
    person = {5: draw(st.sampled_from(["Doe^Jane"] * 12 + ["Roe^Richard"])),
              7: draw(st.sampled_from(["19480312"] * 12 + ["19990101"])),
              30: draw(st.sampled_from(["", "", "", "N", "N", "N", "N", "N", "N", "Y"]))}  # fmt: skip
    if trigger == "A40":
        return merge(*draw(st.sampled_from([("1", "2"), ("2", "1")])), at=time(day))
    return adt(
        trigger,
        at=time(day, draw(st.integers(0, 23))),
        pid3=f"{patient}^^^MRN^MR",
        pid=person | account,
        pv1=pv1 if draw(st.integers(0, 19)) else None,
        segments=tuple(draw(st.lists(st.sampled_from([CHF, DIABETES]), max_size=2))),
    )


@st.composite
def stay(draw: st.DrawFn, number: int) -> list[bytes]:
    """An ordinary stay, admission to discharge."""
    since = 3 * number
    patient = "1^^^MRN^MR"
    pv1 = {
        2: draw(st.sampled_from(["I", "I", "I", "OBS", "E", "O"])),
        4: "E",
        19: f"V{number}^^^MRN",
        44: time(since, 11),
    }
    end = {36: draw(st.sampled_from(["01", "01", "01", "03", "02"])), 45: time(since + draw(st.integers(0, 3)), 12)}
    codes = tuple(draw(st.lists(st.sampled_from([CHF, DIABETES]), max_size=2)))
    return [
        adt("A01", at=time(since), pid3=patient, pv1=pv1, segments=codes),
        adt("A03", at=time(min(since + 3, 28), 13), pid3=patient, pv1=pv1 | end, segments=codes),
    ]


def steps_of(message: st.SearchStrategy[bytes]) -> st.SearchStrategy[tuple[Any, ...]]:
    done = st.sampled_from([0, 0, 0b111111, 0b111111, 0b010101])
    return st.tuples(message, done, st.booleans(), st.sampled_from([0, 0, 1, 4]))


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    steps: list[tuple[Any, ...]] = []
    for number in range(1, draw(st.integers(1, 5)) + 1):
        steps += [draw(steps_of(st.just(message))) for message in draw(stay(number))]
    return steps + draw(st.lists(steps_of(news()), min_size=1, max_size=12))


@pytest.mark.parametrize("close", [ALL, LATE], ids=["all", "late"])
@given(steps=histories())
@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
def test_whatever_arrives_a_bounded_chart_comes_to_the_same_as_the_whole_one(
    close: Close, steps: list[tuple[Any, ...]]
) -> None:
    same_from_both(steps, close)


@given(steps=st.lists(steps_of(messages()), min_size=1, max_size=12))
@settings(max_examples=EXAMPLES, deadline=None)
def test_so_it_does_with_messages_that_hold_anything(steps: list[tuple[Any, ...]]) -> None:
    same_from_both(steps, ALL)


# --- what asks for the whole chart, and what does not


def visit(trigger: str, number: int, day: int, *, pid: dict[int, str] | None = None, **more: str) -> bytes:
    """Of an emergency visit, which has no tasks."""
    pv1 = {2: "E", 19: f"V{number}^^^MRN", 44: time(3 * number, 11)} | {
        int(name[1:]): said for name, said in more.items()
    }
    return adt(trigger, at=time(day), pid3="1^^^MRN^MR", pid=pid, pv1=pv1)


def visits(close: Close = ALL) -> BoundedHeart:
    """Three visits that are over, and closed."""
    past = [
        visit(trigger, number, 3 * number + (trigger == "A03"), _45=time(3 * number, 12) if trigger == "A03" else "")
        for number in (1, 2, 3)
        for trigger in ("A04", "A03")
    ]
    heart = same_from_both([(message, 0, True, 0) for message in past], close)
    [chart] = heart.charts.by_id.values()
    assert chart.closed is not None
    assert chart.encounters == ()
    assert heart.reopened == 0
    return heart


@pytest.mark.parametrize(
    ("message", "asks"),
    [
        (visit("A01", 4, 12, _2="I"), False),
        (visit("A04", 4, 12, pid={30: "N"}), False),
        (adt("A31", at=time(12), pid3="1^^^MRN^MR", pid={11: "1 Main St^^Town^NY^10001"}), False),
        (visit("A08", 2, 12, _3="ICU^1^A"), True),
        (visit("A01", 4, 12, _2="I", _19="", _44=time(6, 11)), True),
        (visit("A13", 2, 12, _19="", _44=""), True),
        (visit("A04", 4, 12, pid={30: "Y"}), True),
        (visit("A03", 4, 12, _36="20"), True),
        (visit("A04", 4, 12, pid={5: "Roe^Richard", 7: "19990101"}), True),
        (merge("2", "1", at=time(12)), True),
    ],
    ids=["new stay", "not deceased", "person", "late news", "same admission", "cancelled discharge", "deceased",
         "died there", "another person", "merge"],
)  # fmt: skip
def test_the_whole_chart_is_asked_for_by_what_may_concern_a_closed_stay_alone(message: bytes, asks: bool) -> None:
    heart = visits()
    heart.send(message)
    assert heart.reopened == asks


def test_few_stays_that_are_over_stay_with_the_chart() -> None:
    stays = [
        Encounter(key=f"MRN:V{n}", status=EncounterStatus.FINISHED, admitted_at=Moment.of(f"2026-03-0{n}"))
        for n in range(1, 7)
    ]
    patient = Patient(identifiers=(Identifier(value="1", authority="MRN", type="MR"),))
    few = Chart(id="c", patient=patient, encounters=tuple(stays[:OVER_MAX]))
    assert closed_up(few) is few
    many = msgspec.structs.replace(few, encounters=as_it_happened(stays[: OVER_MAX + 1]))
    left = closed_up(many)
    assert left.closed is not None
    assert [stay.key for stay in left.encounters] == [stay.key for stay in stays[OVER_MAX + 1 - KEPT : OVER_MAX + 1]]
    assert reopened(left, many) == many
    dead = msgspec.structs.replace(many, patient=msgspec.structs.replace(patient, deceased=True))
    assert closed_up(dead) is dead


@pytest.mark.parametrize(("days", "class_"), [(5, "I"), (5, "OBS"), (30, "I"), (2, "R")])
def test_of_a_patient_who_comes_again_and_again_no_discharge_asks_for_the_whole_chart(days: int, class_: str) -> None:
    heart = BoundedHeart(closed_up)
    for number in range(20):
        came = datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(days=days * number)
        left = came + timedelta(days=1)
        pv1 = {2: class_, 4: "E", 19: f"V{number}^^^MRN", 44: f"{came:%Y%m%d%H%M%S}"}
        said = {36: "01", 45: f"{left:%Y%m%d%H%M%S}"}
        for trigger, at, more in (("A01", came, {}), ("A03", left, said)):
            heart.now = at
            heart.send(adt(trigger, at=f"{at:%Y%m%d%H%M%S}", pid3="1^^^MRN^MR", pv1=pv1 | more, segments=(CHF,)))
            heart.commit()
        [chart] = heart.charts.by_id.values()
        assert len(chart.encounters) <= OVER_MAX + 2
        heart.charts.add(ended(chart, {task.id for task in chart.tasks}, heart.now))
        heart.commit()
    assert heart.reopened == 0
    assert len(heart.whole()[chart.id].encounters) == 20


def test_a_stay_is_closed_after_the_visit_that_proves_its_task_done() -> None:
    def stay(key: str, status: EncounterStatus = EncounterStatus.FINISHED) -> Encounter:
        at = Moment.of(f"2026-03-0{key[-1]}T10:00Z")
        return Encounter(key=key, class_="O", status=status, admitted_at=at, discharged_at=at)

    heart = Heart()
    heart.send(adt("A01", at="20260305120000", pv1={44: "20260305110000"}))
    heart.send(adt("A03", at="20260306120000", pv1={36: "01", 44: "20260305110000", 45: "20260306110000"}))
    shown = msgspec.structs.replace(
        end(heart.chart().tasks[0], TaskState.DONE, at=heart.now), encounter="S1", proved_by="encounter:V9"
    )
    chart = msgspec.structs.replace(
        heart.chart(), encounters=(stay("S1"), stay("V9", EncounterStatus.ACTIVE)), tasks=(shown,)
    )
    assert ALL(chart).encounters == chart.encounters
    over = ALL(msgspec.structs.replace(chart, encounters=(stay("S1"), stay("V9"))))
    assert [one.key for one in over.encounters] == ["S1"]
    assert ALL(over).encounters == ()
