"""What is wrong: found in how the work stands, and said with what it means and what to do."""

from __future__ import annotations

import ast
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from engine.domain.advice import TROUBLES, advice_of
from engine.domain.standing import ChannelWork, Overview, Standing
from engine.pipeline.trouble import Certificate, of_backups, of_certificates, of_work
from engine.runtime.trailwatch import BROKEN, FAILED, ROLLED_BACK, SILENT, UNRECORDED, UNWATCHED

NOW = datetime(2026, 11, 30, 3, 0, tzinfo=UTC)
ENGINE = Path(__file__).parents[3] / "engine"


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def standing(**values) -> Standing:
    fine = {
        "name": "crm", "type": "salesforce", "state": "up", "since": None, "error": None, "detail": None, "pending": 0,
        "oldest_at": None, "next_attempt_at": None, "held": 0, "dead": 0,
    }  # fmt: skip
    return Standing(**fine | values)


def found(**values) -> list[str]:
    return [one.code for one in of_work(Overview(at=NOW, **values), NOW)]


def test_nothing_is_wrong_with_a_quiet_site() -> None:
    quiet = ChannelWork(name="west", waiting=0, oldest_waiting_at=None, last_message_at=ago(days=3))
    assert (
        found(
            channels=(quiet,),
            destinations=(
                standing(),
                standing(name="lab", pending=3, behind_at=ago(seconds=5)),
            ),
        )
        == []
    )


def test_a_page_that_nobody_acknowledged_and_a_gap_in_a_roster_are_to_be_known() -> None:
    codes = found(pages={"sent": 2, "exhausted": 1}, gaps={"on-call/primary": NOW + timedelta(days=3)})
    assert codes == ["pages-unanswered", "oncall-gap:on-call/primary"]
    assert found(pages={"queued": 1, "sent": 2, "delivered": 1}) == []
    assert not any(advice_of(code).urgent for code in codes)


@pytest.mark.parametrize(
    ("values", "codes"),
    [
        ({"state": "down", "since": ago(minutes=18), "error": "login-invalid-client"}, ["destination-down:crm"]),
        ({"error": "answer-ae"}, ["destination-down:crm"]),
        ({"state": "down", "orphan": True, "pending": 46}, ["destination-unknown:crm"]),
        ({"state": "paused", "since": ago(hours=2), "pending": 46, "oldest_at": ago(hours=2)}, []),
        ({"state": "paused", "since": ago(hours=30)}, ["destination-paused:crm"]),
        ({"pending": 4, "oldest_at": ago(minutes=16), "behind_at": ago(minutes=16)}, ["deliveries-behind:crm"]),
        ({"pending": 4, "oldest_at": ago(hours=9), "put_off": 4}, []),
        ({"pending": 4, "oldest_at": ago(hours=9), "put_off": 3, "behind_at": ago(minutes=4)}, []),
        ({"withheld": {"no-consent": 40}}, []),
        ({"held": 3}, ["deliveries-held:crm"]),
        ({"state": "down", "error": "x", "held": 1}, ["destination-down:crm", "deliveries-held:crm"]),
        ({"dead": 9}, []),
        ({"dead": 10}, ["deliveries-failing:crm"]),
    ],
)
def test_a_destination_that_needs_a_person_is_named(values: dict, codes: list[str]) -> None:
    assert found(destinations=(standing(**values),)) == codes


@pytest.mark.parametrize(("days", "code"), [(9, "breach-due:2"), (0, "breach-due:2"), (-1, "breach-overdue:2")])
def test_a_breach_of_which_somebody_is_to_be_told_is_named(days: int, code: str) -> None:
    due = NOW.date() + timedelta(days=days)
    (one,) = of_work(Overview(at=NOW, breaches={"2": due}), NOW)
    assert (one.code, one.first, one.detail) == (code, "handoff breach show 2", f"due {due}")
    assert one.urgent == (days < 0)


def test_what_waits_for_a_person_or_too_long_is_named() -> None:
    behind = ChannelWork(name="west", waiting=9, oldest_waiting_at=ago(minutes=6), last_message_at=NOW)
    busy = msgspec.structs.replace(behind, name="east", oldest_waiting_at=ago(seconds=20))
    assert found(channels=(behind, busy), dead=2, oldest_dead_at=ago(hours=1), holds={"death-stale": 1}) == [
        "processing-behind:west", "dead-letters", "messages-held",
    ]  # fmt: skip


@pytest.mark.parametrize(("since", "codes"), [(ago(seconds=40), []), (ago(seconds=61), ["deadlines-behind"])])
def test_deadlines_that_do_not_ring_are_named_after_a_while(since: datetime, codes: list[str]) -> None:
    assert found(due=3, due_since=since) == codes


def test_a_trouble_says_since_when_what_it_means_and_what_to_do() -> None:
    down = standing(state="down", since=ago(minutes=18), error="login-invalid-client", pending=46)
    (one,) = of_work(Overview(at=NOW, destinations=(down,)), NOW)
    assert one.since == ago(minutes=18)
    assert one.detail == "login-invalid-client, 46 wait"
    assert one.first == "handoff destinations show crm"
    assert one.remedy.endswith(".")
    assert one.urgent


def test_a_destination_that_fails_says_how_often_it_did_in_a_row() -> None:
    down = standing(state="down", since=ago(minutes=18), error="unreachable", pending=46, failures=7)
    (one,) = of_work(Overview(at=NOW, destinations=(down,)), NOW)
    assert one.detail == "unreachable 7 times in a row, 46 wait"


@pytest.mark.parametrize(("days", "said"), [(13, "13 days left"), (0, "0 days left"), (-2, "has ended"), (15, None)])
def test_a_certificate_that_ends_soon_is_named(days: int, said: str | None) -> None:
    ends = NOW + timedelta(days=days, hours=1)
    assert [one.detail for one in of_certificates([Certificate(use="channel west", expires_at=ends)], NOW)] == (
        [said] if said else []
    )


def test_every_trouble_that_the_code_names_has_its_advice() -> None:
    named: set[str] = set()
    for path in [*(ENGINE / "runtime").glob("*.py"), ENGINE / "pipeline" / "trouble.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            named |= set(_codes(node))
    assert named >= {"worker-silent", "disk-almost-full", "destination-down", "dead-letters", "reload-refused"}
    assert sorted(named - TROUBLES.keys()) == []
    codes = {BROKEN, ROLLED_BACK, FAILED, SILENT, UNRECORDED, UNWATCHED}
    assert {code for code in TROUBLES if code.startswith("trail-")} == codes
    assert found(trail=dict.fromkeys(codes, "since")) == sorted(codes)


def _codes(node: ast.AST):
    """First texts of calls of `trouble`, appended codes, and what the supervisor's `trouble` returns."""
    if isinstance(node, ast.Call) and node.args:
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        owner = getattr(getattr(node.func, "value", None), "id", "")
        first = node.args[0]
        text = first.values[0] if isinstance(first, ast.JoinedStr) else first
        named = name == "trouble" or (name == "append" and owner == "trouble")
        if named and isinstance(text, ast.Constant):
            yield str(getattr(text, "value", "")).rstrip(":")
    if isinstance(node, ast.FunctionDef) and node.name == "trouble":
        for inner in ast.walk(node):
            if isinstance(inner, ast.Return) and isinstance(inner.value, ast.Constant) and inner.value.value:
                yield str(inner.value.value)


def test_every_advice_is_a_clause_a_command_and_a_sentence() -> None:
    for code, advice in TROUBLES.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)+", code)
        assert not advice.meaning.endswith(".")
        assert advice.first
        assert advice.remedy[0].isupper() or advice.remedy.startswith("`")
        assert advice.remedy.endswith((".", ")."))
    assert advice_of("destination-down:crm").first == "handoff destinations show crm"
    assert advice_of("something-new").remedy


def test_a_broken_glass_that_nobody_has_attested_is_told() -> None:
    (one,) = of_work(Overview(at=NOW, glasses=2, oldest_glass_at=NOW), NOW)
    assert (one.code, one.since, one.detail, one.urgent) == ("glass-broken", NOW, "2 to be attested", False)


@pytest.mark.parametrize(
    ("hours_max", "backup_at", "said"),
    [
        (None, None, []),
        (26.0, None, [("backup-old", "there is none")]),
        (26.0, ago(hours=25), []),
        (26.0, ago(hours=27), [("backup-old", None)]),
        (None, ago(days=99), []),
    ],
)
def test_a_backup_that_is_too_old_is_named_where_there_is_to_be_one(
    hours_max: float | None, backup_at: datetime | None, said: list
) -> None:
    work = Overview(at=NOW, backup_at=backup_at)
    assert [(one.code, one.detail) for one in of_backups(hours_max, work, NOW)] == said


def test_what_is_held_since_a_restore_is_named() -> None:
    assert found(restored_held=3, restored_at=ago(hours=1)) == ["store-restored"]
