"""The one run: what breaks it has an outcome, as in the worker, and each entry finds what those before it left."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from engine.bootstrap import examine
from engine.domain.message import Entry, EntryState, Summary
from engine.domain.task import TaskState
from engine.trial import run
from engine.trial.run import Run, told

NOW = datetime(2026, 11, 9, 20, tzinfo=UTC)
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def channels() -> Any:
    return examine(ROOT / "config.yaml", tests=False).compiled.channels


def entry(number: int, event: str, rest: str = "") -> Entry:
    payload = (
        f"MSH|^~\\&|EHR|MAIN|||20261109143000-0500||ADT^{event}|{number}|P|2.5.1\rPID|1||7001^^^MRN^MR||ROE^RICHARD\r"
        f"PV1|1|I|||||||||||||||||V7001{rest}\r"
    )
    return Entry(
        id=number, channel="main-campus", peer="", received_at=NOW, payload=payload.encode(), summary=Summary()
    )


DISCHARGE = "|" * 17 + "01" + "|" * 8 + "20261104|20261109143000-0500"


@pytest.mark.parametrize("broken", ["prepare", "decide"])
def test_what_breaks_the_processing_is_a_dead_letter_and_the_next_entry_goes_on(
    channels: Any, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: Callable[..., Any] = getattr(run, broken)

    def breaks(first: Any, *rest: Any) -> Any:
        if getattr(first, "entry", first).id == 1:
            raise ZeroDivisionError("7001")
        return whole(first, *rest)

    monkeypatch.setattr(run, broken, breaks)
    trial = Run(channels)
    outcomes = [trial.decide(trial.prepare(one), NOW).outcome for one in (entry(1, "A01"), entry(2, "A01"))]
    assert [one.state for one in outcomes] == [EntryState.DEAD, EntryState.PROCESSED]
    assert outcomes[0].dead_letter is not None
    assert (outcomes[0].dead_letter.error, "7001" in outcomes[0].dead_letter.detail) == ("internal", False)


def test_an_entry_finds_what_those_before_it_left_and_its_step_what_was_before(channels: Any) -> None:
    trial = Run(channels)
    first = trial.decide(trial.prepare(entry(1, "A01")), NOW)
    second = trial.decide(trial.prepare(entry(2, "A03", DISCHARGE)), NOW)
    assert (list(first.before.values()), list(first.tasks())) == ([None], [])
    assert list(second.before.values()) == list(first.outcome.charts)
    assert {told(old, task) for old, task in second.tasks()} >= {"tcm_contact new"}
    third = trial.decide(trial.prepare(entry(3, "A13")), NOW)
    assert {task.state for _, task in third.tasks()} == {TaskState.RETRACTED}
