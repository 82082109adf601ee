"""What a command loads before it answers: whoever looks at a site ten times an hour must not wait for the engine.

What is asserted is which modules are loaded, not how long that takes: it is the same on every machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from site_with_store import Site

FORKS = """
import json, os, sys
from engine.cli.app import run

for line in sys.stdin:
    arguments, completed = json.loads(line)
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        os.close(ours)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if completed:
            os.environ |= {"_HANDOFF_COMPLETE": "bash_complete", "COMP_WORDS": completed,
                           "COMP_CWORD": str(len(completed.split()))}
        try:
            code = run(arguments)
        except SystemExit as ended:
            code = ended.code
        os.write(theirs, json.dumps([code, sorted(sys.modules)]).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as told:
        print(told.read(), flush=True)
    os.waitpid(child, 0)
"""
"""Each command in a process that has loaded nothing but what finds commands."""

MODELS = ("pydantic", "engine.settings", "engine.bootstrap")
STORE = ("sqlalchemy", "sqlcipher3", "cryptography")
ELSEWHERE = ("alembic", "psycopg", "sqlalchemy.dialects.postgresql", "aiohttp", "requests", "holidays", "hl7apy")
READING = (
    "messages list", "tasks list", "dead list", "dead summary", "held list", "destinations list",
    "destinations show files", "senders", "gaps", "ledger", "audit list", "patients find", "status",
)  # fmt: skip


class Forks:
    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
        )

    def loaded(self, command: str, *, completed: str = "") -> tuple[int, set[str]]:
        """The exit code and all modules of a command. completed: a command line whose last word is completed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([command.split(), completed]) + "\n")
        self._process.stdin.flush()
        code, modules = json.loads(self._process.stdout.readline())
        return code, set(modules)

    def close(self) -> None:
        self._process.communicate(timeout=10)


@pytest.fixture(scope="module")
def forks(_stocked: Path, tmp_path_factory: pytest.TempPathFactory) -> Forks:
    made = Forks(Path(shutil.copytree(_stocked, tmp_path_factory.mktemp("forks") / "site")))
    yield made  # type: ignore[misc]  # a fixture
    made.close()


def test_help_loads_neither_store_nor_models_nor_yaml(forks: Forks) -> None:
    for command in ("--help", "messages --help", "destinations pause --help", "completion bash", "help held"):
        code, modules = forks.loaded(command)
        assert code == 0, command
        assert not modules & {*MODELS, *STORE, *ELSEWHERE, "yaml", "asyncio"}, command


def test_names_are_completed_without_models_and_store(forks: Forks) -> None:
    _, modules = forks.loaded("", completed="handoff messages list --channel ")
    assert "engine.outline" in modules
    assert not modules & {*MODELS, *STORE, *ELSEWHERE}


@pytest.mark.parametrize("command", READING)
def test_what_only_looks_into_the_store_loads_no_models(forks: Forks, command: str) -> None:
    code, modules = forks.loaded(command)
    assert code == (69 if command == "status" else 0)
    assert sorted(modules & {*MODELS, *ELSEWHERE}) == []
    assert "engine.store.journal" in modules, "it did look"


def test_files_that_no_daemon_has_worked_by_are_looked_at_wholly(stocked: Site) -> None:
    assert "problems" not in stocked.run("messages", "list").err
    stocked.config.write_text(stocked.config.read_text() + "\nnonsense: 1\n")
    done = stocked.run("messages", "list")
    assert done.code == 0
    assert "config.yaml" in done.err
    assert "nonsense" in done.err


def test_a_file_that_others_may_change_is_said_though_its_text_is_known(stocked: Site) -> None:
    (stocked.folder / "channels/main-campus.yaml").chmod(0o646)
    assert "chmod o-w" in stocked.run("messages", "list").err


def test_commands_and_daemons_look_for_garbage_when_some_can_have_gathered() -> None:
    code = (
        "import gc, sys; sys.argv = ['handoff', '--version']\n"
        "from engine import __main__\n"
        "try: __main__.main()\nexcept SystemExit: pass\n"
        "print(gc.get_threshold()[0] > 10_000)\n"
        "from engine.bootstrap import settle_memory\n"
        "settle_memory(); print(gc.get_threshold())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.splitlines()[-2:] == ["True", "(50000, 10, 10)"]
