"""Causes are counted by message, keep a bounded number of examples, and say no value that many do not share."""

from __future__ import annotations

import pytest

from engine.desk.seeing import shows
from engine.domain.message import EntryState
from engine.domain.patient import Name
from engine.trial import compare
from engine.trial.compare import EXAMPLES_MAX, Findings
from engine.trial.differences import Comparer, Difference, Kind, source

P, F, D, R = EntryState.PROCESSED, EntryState.FILTERED, EntryState.DEAD, EntryState.REFUSED


def difference(cause: str = "PV1-36 `1` now read as `01`", path: str = "encounter.disposition") -> Difference:
    return Difference(Kind.READ, cause, path, "1", "01")


def test_a_cause_counts_messages_not_differences() -> None:
    findings = Findings()
    findings.add(1, P, P, [difference(), difference(path="other")])
    findings.add(2, P, P, [difference()])
    (cause,) = findings.sorted()
    assert (cause.messages, [one[:2] for one in cause.examples]) == (
        2, [(1, "encounter.disposition"), (1, "other"), (2, "encounter.disposition")],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "name"),
    [(P, F, "newly_filtered"), (D, F, "newly_filtered"), (P, D, "newly_failing"), (F, D, "newly_failing"),
     (P, R, "newly_failing"), (F, P, "changed"), (D, P, "changed"), (D, R, "changed"), (P, P, "changed")],
)  # fmt: skip
def test_each_message_is_in_one_number(before: EntryState, after: EntryState, name: str) -> None:
    findings = Findings()
    findings.add(1, before, after, [difference()])
    findings.add(2, before, before, [])
    assert getattr(findings, name) == 1
    assert findings.same + findings.changed + findings.newly_filtered + findings.newly_failing == findings.compared == 2


def test_examples_and_causes_are_bounded_and_nothing_is_left_uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "CAUSES_MAX", 3)
    parts = [Findings(), Findings()]
    for entry in range(600):
        parts[entry % 2].add(entry, P, P, [difference(f"cause {entry % 5}" if entry > 300 else "common")])
    whole = Findings()
    for part in parts:
        whole.merge(part)
    assert whole.changed == 600
    assert sum(cause.messages for cause in whole.sorted()) == 600
    assert len(whole.causes) <= 4
    common = next(cause for cause in whole.sorted() if cause.text == "common")
    assert [one[0] for one in common.examples] == list(range(EXAMPLES_MAX)), "the oldest, whichever part had them"


def test_what_is_lost_comes_before_what_follows() -> None:
    findings = Findings()
    for number, kind in enumerate(reversed(Kind)):
        findings.add(number, P, P, [Difference(kind, kind.value, "x", None, None)])
    assert [cause.kind for cause in findings.sorted()] == list(Kind)


@pytest.mark.parametrize(
    ("path", "before", "after", "cause"),
    [
        ("encounter.disposition", "1", "01", "PV1-36 (encounter.disposition) `1` now read as `01`"),
        ("encounter.disposition", None, "01", "PV1-36 (encounter.disposition) nothing now read as `01`"),
        ("encounter.disposition", "home with ROSSI", "01", "PV1-36 (encounter.disposition) is read otherwise"),
        ("encounter.class", "I", "OBS", "PV1-2 (encounter.class) `I` now read as `OBS`"),
        ("encounter.admitted_at", "2026-03-01T10:00:00-05:00", "2026-03-01T10:00:00-06:00",
         "PV1-44 (encounter.admitted_at) is read 1 h later"),
        ("encounter.admitted_at", "2026-03-01T10:00:00-05:00", "2026-03-01T09:59:47-05:00",
         "PV1-44 (encounter.admitted_at) is read earlier"),
        ("encounter.admitted_at", None, "2026-03-01T10:00:00-05:00",
         "PV1-44 (encounter.admitted_at) is read now, before it was not"),
        ("patient.birth_date", "1958-07-15", "1985-07-15", "PID-7 (patient.birth_date) is read otherwise"),
        ("patient.sex", "F", "M", "PID-8 (patient.sex) `F` now read as `M`"),
        ("patient.deceased", None, True, "PID-30 (patient.deceased) nothing now read as `True`"),
        ("patient.name", Name(family="DOE"), Name(family="ROE"), "PID-5 (patient.name.family) is read otherwise"),
        ("patient.name", Name(family="DOE"), '""', "PID-5 (patient.name) is read no more"),
    ],
)  # fmt: skip
def test_a_cause_says_values_only_where_they_name_nobody(path: str, before: object, after: object, cause: str) -> None:
    rules = {
        "encounter.disposition": "PV1-36",
        "encounter.class": {"from": "PV1-2", "table": "patient-class"},
        "encounter.admitted_at": "PV1-44",
        "patient.birth_date": "PID-7",
        "patient.sex": {"from": "PID-8"},
        "patient.deceased": "PID-30",
        "patient.name": {"from": "PID-5", "prefer": ["L"]},
    }
    found = list(Comparer(rules, rules, shows)._values(Kind.READ, path, before, after))
    assert [one.cause for one in found] == [cause]


@pytest.mark.parametrize(
    ("rule", "places"),
    [("PV1-36", "PV1-36"), ({"from": ["PID-13", "PID-14"], "region": "US"}, "PID-13, PID-14"),
     ({"first_of": ["PD1-4", {"path": "ROL-4", "where": "ROL-3.1 == 'PP'"}]}, "PD1-4, ROL-4"),
     ({"each": "DG1", "parts": {"code": "DG1-3.1"}}, "DG1"), (None, ""), ({"default": "x"}, "")],
)  # fmt: skip
def test_a_rule_names_the_places_it_reads(rule: object, places: str) -> None:
    assert source(rule) == places
