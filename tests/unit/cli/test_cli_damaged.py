"""What can't be read any more is named, the rest is shown, and nothing of a message is printed on the way."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from site_with_store import Site, seen
from sqlalchemy import text

from engine.cli import app
from engine.connectors.registry import load
from engine.snapshot import Snapshot
from engine.store.opening import open_store

KEY = "MRN:558181838"


def damage(site: Site, statement: str) -> None:
    """Run SQL on the stored rows, as a broken disk or a meddler would."""
    with open_store(load(Snapshot.read(site.config)), "tool") as store:
        ledger = store.journal_ledger if " payload " in statement else store.charts_ledger
        ledger.write_now(lambda conn: conn.execute(text(statement)))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE payload SET body = x'0102' WHERE entry_id = 2",
        "UPDATE payload SET head = x'0102' WHERE entry_id = 2",
        "DELETE FROM payload WHERE entry_id = 2",
    ],
)
def test_a_damaged_message_is_shown_as_such_with_all_that_is_left_of_it(stocked: Site, statement: str) -> None:
    damage(stocked, statement)
    done = stocked.run("messages", "show", "2", "--json")
    assert (done.code, done.err) == (0, "")
    assert done.json["damaged"] == ["message"]
    assert (done.json["state"], done.json["ack"], done.json["payload"]) == ("processed", "AA", None)
    assert done.json["effects"]
    assert done.json["deliveries"]
    human = stocked.run("messages", "show", "2", "--reveal", "--reason", "x")
    assert "can't be read any more" in human.out


def test_what_commands_print_of_a_damaged_message_holds_nothing_of_it(stocked: Site) -> None:
    """The store logs the damage; without the log set up, that came with all locals, on stdout."""
    damage(stocked, "UPDATE payload SET body = x'0102' WHERE entry_id = 1")
    command = [sys.executable, "-m", "engine", "messages", "show", "1", "--json", "--config", str(stocked.config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["damaged"] == ["message"]
    assert seen(done.stdout) == []


def test_until_logging_is_set_up_nothing_is_logged() -> None:
    program = (
        "from engine.logs import get_logger\n"
        "try: raise ValueError('CANARY')\n"
        "except ValueError: get_logger('x').error('a stored entry is damaged', exc_info=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_what_libraries_and_threads_say_is_not_printed_by_a_command(stocked: Site) -> None:
    program = (
        "import logging, sys, threading\n"
        "from engine.cli import app\n"
        "app.run(['ledger', '--json', '--config', sys.argv[1]])\n"
        "def fail(): raise ValueError('CANARY')\n"
        "thread = threading.Thread(target=fail); thread.start(); thread.join()\n"
        "try: fail()\n"
        "except ValueError: logging.getLogger('sqlalchemy.pool').error('CANARY', exc_info=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(stocked.config)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)
    assert "CANARY" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_outcome_does_not_hide_the_message(stocked: Site) -> None:
    damage(stocked, "UPDATE outcome SET document = x'0102' WHERE entry_id = 2")
    shown = stocked.json("messages", "show", "2", "--reveal", "--reason", "x")
    assert (shown["damaged"], shown["state"], shown["patient_key"]) == (["outcome"], "processed", None)
    assert shown["payload"].startswith("MSH")
    assert [entry["id"] for entry in stocked.json("messages", "list")] == [4, 3, 2, 1]


def test_a_message_that_is_whole_is_not_called_damaged(stocked: Site) -> None:
    assert stocked.json("messages", "show", "2")["damaged"] == []


def test_a_damaged_task_is_named_and_hides_no_other(stocked: Site) -> None:
    tasks = stocked.json("tasks", "list")
    gone = tasks[2]["id"]
    damage(stocked, f"UPDATE task SET document = x'0102' WHERE id = '{gone}'")
    done = stocked.run("tasks", "list", "--json")
    assert done.code == 0
    assert [task["id"] for task in done.json] == [task["id"] for task in tasks if task["id"] != gone]
    assert gone in done.err


def test_a_chart_of_which_a_part_is_damaged_is_named_and_hides_no_other(stocked: Site) -> None:
    stocked.receive(
        b"MSH|^~\\&|EHR|MAIN|||20261120120000||ADT^A28|OTHER|P|2.5.1\rEVN|A28|20261120120000\rPID|1||77^^^MRN^MR\r"
    )
    stocked.process()
    (gone,) = {task["id"] for task in stocked.json("tasks", "list", "--kind", "tcm_contact")}
    damage(stocked, f"UPDATE task SET document = x'0102' WHERE id = '{gone}'")
    done = stocked.run("patients", "find", "--json")
    assert (done.code, len(done.json)) == (0, 1)
    assert "Damaged and left out: 1 chart" in done.err
    one = stocked.run("patients", "show", KEY)
    assert one.code == 1
    assert gone in one.err


def test_a_replay_leaves_out_what_is_damaged_and_says_so(stocked: Site) -> None:
    damage(stocked, "UPDATE payload SET body = x'0102' WHERE entry_id = 1")
    result = stocked.json("replay", "--state", "processed", code=1)
    assert (result["selected"], result["replayed"]) == ([1, 2], 1)
    (problem,) = result["problems"]
    assert problem["entry"] == 1
    assert "damaged" in problem["problem"]


def test_a_dead_letter_whose_message_is_damaged_does_not_keep_the_others_from_being_replayed(stocked: Site) -> None:
    damage(stocked, "UPDATE payload SET body = x'0102' WHERE entry_id = 3")
    results = {result["id"]: result for result in stocked.json("dead", "replay", "--all", code=1)}
    assert [(result["entry"] is None, result["problem"] is None) for _, result in sorted(results.items())] == [
        (True, False),
        (False, True),
    ]
    letters = {letter["id"]: letter["resolved_by"] for letter in stocked.json("dead", "list")}
    assert [letters[number] for number in sorted(letters)] == [None, "entry:5"]


# --- keys ------------------------------------------------------------------------------------------------------------


def test_commands_refuse_the_keys_of_another_site(stocked: Site) -> None:
    """They would find nothing, call all damaged, and seal what they write so that the right keys can't open it."""
    keys = stocked.folder / "var/keys.json"
    keys.rename(keys.with_name("right.json"))
    assert stocked.run("keys", "create").code == 0
    for command in (("messages", "list"), ("tasks", "list"), ("dead", "discard", "1", "--reason", "x")):
        done = stocked.run(*command)
        assert done.code == 78
        assert "not the one that this store was sealed with" in done.err


@pytest.mark.parametrize("content", [b"", b"{", b'{"keys": 7}', b"\xff\xfe", b"null"])
def test_a_key_file_that_is_none_ends_with_78(stocked: Site, content: bytes) -> None:
    (stocked.folder / "var/keys.json").write_bytes(content)
    done = stocked.run("messages", "list")
    assert done.code == 78
    assert "keys.json" in done.err


def test_a_key_file_that_others_may_read_ends_with_78_and_says_what_to_do(stocked: Site) -> None:
    (stocked.folder / "var/keys.json").chmod(0o644)
    done = stocked.run("ledger")
    assert (done.code, "chmod 600" in done.err) == (78, True)


def test_init_makes_no_new_keys_for_a_store_that_the_old_ones_have_sealed(stocked: Site) -> None:
    keys = stocked.folder / "var/keys.json"
    keys.unlink()
    assert app.run(["init", str(stocked.folder), "--missing"]) == 78
    assert not keys.exists()
