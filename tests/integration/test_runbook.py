"""The runbook names whatever the code can say to whoever is on call."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from engine.connectors.remedies import REMEDIES
from engine.domain.advice import ERRORS, TROUBLES
from engine.domain.hold import HoldCode
from engine.runtime.refusals import REASONS

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/guides/on-call.md").read_text()
LISTED = set(re.findall(r"^\| `([^`]+)`", GUIDE, re.MULTILINE))
NO_DEAD_LETTER = {"handoff-same-number", "timeout", "ack-without-msa", "ack-with-several-msa"}
RAISED = {
    "MessageError", "HeaderError", "Fault", "DeadLetter", "_dead", "Settled", "DeliveryError", "_CallError", "failed",
    "_UnknownOutcomeError", "Never", "NotBefore",
}  # fmt: skip
CODE = re.compile(r"[a-z]+(-[a-z0-9]+)+|internal|mapping|buried|login|http")


def calls() -> Iterator[tuple[str, ast.Call]]:
    for path in (ROOT / "engine").rglob("*.py"):
        if "simulator" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    yield getattr(node.func, "id", getattr(node.func, "attr", "")), node


def codes() -> set[str]:
    found: set[str] = set()
    for name, call in calls():
        values = [word.value for word in call.keywords if word.arg == "error"]
        if name in RAISED:
            values += [*call.args[:3], *(word.value for word in call.keywords if word.arg == "code")]
        found |= {
            value.value
            for given in values
            for value in ((given.body, given.orelse) if isinstance(given, ast.IfExp) else (given,))
            if isinstance(value, ast.Constant) and isinstance(value.value, str) and CODE.fullmatch(value.value)
        }
    return found - NO_DEAD_LETTER


def test_every_code_of_the_code_has_a_remedy_and_stands_in_the_runbook() -> None:
    named = codes()
    assert named >= {"identifier-missing", "frame-too-long", "connector-defect", "merge-pairing", "too-late"}
    assert sorted(named - ERRORS.keys() - REMEDIES.keys()) == [], "a line in engine/domain/advice.py and in the guide"
    assert sorted(named - LISTED) == []


def test_the_runbook_has_every_line_of_the_tables() -> None:
    holds = {code.value for code in HoldCode}
    assert sorted({*TROUBLES, *ERRORS, *REMEDIES, *REASONS, *holds} - LISTED) == []


def test_every_warning_and_error_of_the_log_stands_in_the_runbook() -> None:
    events: set[str] = set()
    for name, call in calls():
        owner = getattr(call.func, "value", None)
        source = getattr(owner, "id", getattr(owner, "attr", getattr(getattr(owner, "func", None), "id", "")))
        if name in {"warning", "error", "critical"} and source in {"_log", "log", "get_logger"} and call.args:
            first = call.args[0]
            if isinstance(first, ast.Constant):
                events.add(first.value)
    assert len(events) > 30
    assert sorted(events - LISTED) == []


def test_the_commands_that_the_runbook_names_exist() -> None:
    from engine.cli import app

    named = set(re.findall(r"`handoff ([a-z-]+)", GUIDE))
    assert named >= {"gaps", "senders", "connections", "destinations", "status", "dead"}
    assert named <= app.COMMANDS.keys()


def test_the_wrapper_for_systemd_is_a_shell_script_without_faults() -> None:
    script = ROOT / "systemd/handoff-ctl"
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0
    assert script.stat().st_mode & 0o111
