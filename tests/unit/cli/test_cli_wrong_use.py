"""Commands used wrongly: what is said, how it ends, and that `--json` still gives one document."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from site_with_store import Site

from engine.cli import app, ledger, tables

ENGINE = [sys.executable, "-P", "-m", "engine"]


@pytest.mark.parametrize(
    "command",
    [
        ("messages", "show", "99999999999999999999"),
        ("messages", "show", "0"),
        ("dead", "show", "99999999999999999999"),
        ("dead", "replay", "99999999999999999999"),
        ("held", "release", "99999999999999999999"),
        ("patients", "find", "--birth-date", "15.07.1958"),
        ("patients", "find", "--birth-date", "1958-13"),
        ("dead", "discard", "1", "--reason", ""),
        ("dead", "discard", "1", "--reason", "two\nlines"),
        ("held", "bury", "1", "--reason", "  "),
        ("tasks", "assign", "x", ""),
        ("tasks", "assign", "x", "y" * 501),
        ("messages", "list", "--since", "30m", "--until", "1h"),
        ("replay", "--until", "2d", "--since", "1d"),
        ("gaps", "--since", "tomorrow", "--until", "today"),
    ],
    ids=lambda command: " ".join(command)[:60].encode("unicode_escape").decode(),
)
def test_what_cannot_be_meant_is_a_usage_error(stocked: Site, command: tuple[str, ...]) -> None:
    done = stocked.run(*command)
    assert (done.code, done.out) == (2, "")
    assert "Error: Invalid value" in done.err


@pytest.mark.parametrize("command", [("gaps",), ("messages", "list"), ("senders",)], ids=" ".join)
def test_a_range_that_lies_ahead_is_said_so_that_nothing_reads_as_good_news(
    stocked: Site, command: tuple[str, ...]
) -> None:
    done = stocked.run(*command, "--since", "tomorrow")
    assert (done.code, done.err.splitlines()[0]) == (
        0, "--since lies in the future: nothing can have come since then.",
    )  # fmt: skip


@pytest.mark.parametrize(
    "command", [("messages", "list", "--state", "no", "--json"), ("--json",), ("fly", "--json"), ("send", "--json")]
)
def test_a_usage_error_with_json_is_one_document_on_stdout(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(command) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["error"]["message"] in said.err


@pytest.mark.parametrize(
    ("command", "option", "wrong", "right"),
    [
        (("messages", "list"), "--channel", "man-campus", "main-campus"),
        (("replay", "--dry-run"), "--channel", "man-campus", "main-campus"),
        (("dead", "list"), "--channel", "man-campus", "main-campus"),
        (("dead", "replay"), "--channel", "man-campus", "main-campus"),
        (("dead", "discard", "--reason", "x"), "--channel", "man-campus", "main-campus"),
        (("messages", "list"), "--error", "identifier-mising", "identifier-missing"),
        (("dead", "list"), "--error", "identifier-mising", "identifier-missing"),
        (("dead", "replay"), "--error", "identifier-mising", "identifier-missing"),
        (("tasks", "list"), "--kind", "phone", None),
        (("tasks", "list"), "--kind", "educatoin", "education"),
        (("audit", "list"), "--action", "reveel", "reveal"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_a_wrong_name_in_a_filter_is_a_usage_error_that_says_what_there_is(
    stocked: Site, command: tuple[str, ...], option: str, wrong: str, right: str | None
) -> None:
    done = stocked.run(*command, option, wrong)
    assert (done.code, done.out) == (2, "")
    assert f"There is no {option[2:]} {wrong}; there are " in done.err
    if right is not None:
        assert f"Did you mean {right}" in done.err
        assert stocked.run(*command, option, right, "--json").code == 0


def test_a_person_without_tasks_is_nobody_that_there_is_not(stocked: Site) -> None:
    done = stocked.run("tasks", "list", "--assignee", "care_cordinator")
    assert (done.code, done.out) == (0, "No open tasks that match these options.\n")
    assert "care_cordinator has no such task. Did you mean care_coordinator?" in done.err


@pytest.mark.parametrize(
    "command", [("try", "main-campus", "-"), ("send", "127.0.0.1:1", "-"), ("risk", "score", "lace", "--inputs", "-")],
    ids=" ".join,
)  # fmt: skip
def test_a_standard_input_that_is_closed_is_said_so(
    bare: Site, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    done = bare.run(*command)
    assert (done.code, "standard input is closed" in done.err) == (1, True)


def test_send_of_nothing_is_not_a_success(bare: Site) -> None:
    empty = bare.folder / "empty.hl7"
    empty.write_text("\n")
    done = bare.run("send", "127.0.0.1:1", str(empty))
    assert (done.code, "holds no message" in done.err) == (1, True)


@pytest.mark.parametrize(
    ("address", "words"), [("127.0.0.1:1", "nobody listens there"), ("nowhere.invalid:2575", "no host of this name")]
)
def test_send_says_why_nobody_was_reached(bare: Site, address: str, words: str) -> None:
    (result,) = bare.json("send", address, str(bare.folder / "channels/examples/first-message.hl7"), code=69)
    assert words in result["problem"]


def test_send_over_tls_to_what_speaks_none_says_so(bare: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = bare.run(
            "send", f"127.0.0.1:{server.getsockname()[1]}", str(bare.folder / "channels/examples/first-message.hl7"),
            "--tls", "--timeout", "1",
        )  # fmt: skip
    assert done.code == 69
    assert "does it speak TLS?" in done.out


# --- output ----------------------------------------------------------------------------------------------------------


def test_an_output_that_is_full_is_said_so(stocked: Site) -> None:
    for more in ((), ("--json",)):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [*ENGINE, "messages", "list", *more, "--config", str(stocked.config)],
                stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr == "handoff: the output can't be written: No space left on device\n"


def test_a_folder_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["init", "/proc/nowhere"], ["schema", "--write", "/proc/nowhere"]):
        assert app.run(command) == 1
        said = capsys.readouterr().err
        assert "/proc/nowhere: No such file or directory" in said
        assert "internal error" not in said


def test_a_store_that_cannot_be_made_ends_with_69_and_is_named(bare: Site) -> None:
    bare.config.write_text(bare.config.read_text().replace("sqlite:///var/handoff.db", "sqlite:////proc/nowhere/x.db"))
    done = bare.run("db", "migrate")
    assert (done.code, "/proc/nowhere/x" in done.err) == (69, True)


def test_a_database_that_cannot_be_reached_is_named_without_user_and_password(bare: Site) -> None:
    url = "postgresql+psycopg://ann:SECRET@127.0.0.1:1/hand?password=SECRET"
    bare.config.write_text(bare.config.read_text().replace("sqlite:///var/handoff.db", url))
    done = bare.run("ledger", "--json")
    assert done.code == 69
    assert "can't be reached" in done.json["error"]["message"]
    assert "the PostgreSQL database hand at 127.0.0.1:1" in done.err
    assert "SECRET" not in done.out + done.err


def test_where_a_line_is_too_wide_the_ledger_has_a_column_for_each_channel(
    stocked: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "terminal_columns", lambda: 80)
    monkeypatch.setattr(ledger, "terminal_columns", lambda: 80)
    lines = stocked.run("ledger").out.splitlines()
    assert lines[0].split() == ["channel", "main-campus"]
    assert ["received", "4"] in [line.split() for line in lines]
    assert lines[9].split()[:2] == ["pending", "out"]
    assert max(map(len, lines)) <= 80
    monkeypatch.setattr(ledger, "terminal_columns", lambda: None)
    assert len(stocked.run("ledger").out.splitlines()) == 2


# --- interrupted -----------------------------------------------------------------------------------------------------


def test_an_interrupt_before_the_command_begins_shows_no_traceback(tmp_path: Path) -> None:
    """The command's module raises it while it is imported, as Ctrl-C would."""
    program = (
        "import sys, engine.__main__ as main\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'engine.cli.app': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\n"
        "main.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.mark.parametrize(
    ("command", "answered"),
    [(("simulate", "{address}", "--messages", "100000", "--json"), "sent"), (("send", "{address}", "{file}"), "AA")],
)
def test_an_interrupt_shows_what_was_done_until_then(bare: Site, command: tuple[str, ...], answered: str) -> None:
    file = bare.folder / "many.hl7"
    message = "MSH|^~\\&|EHR|MAIN|||20261104081500||ADT^A28|M1|P|2.5.1\r"
    file.write_text(message * 100_000)
    acknowledged = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_acknowledge, args=(server, acknowledged), daemon=True).start()
        named = [part.format(address=f"127.0.0.1:{server.getsockname()[1]}", file=file) for part in command]
        # Tests that were started in the background ignore interrupts, and so would what they start.
        heeding = ["env", "--default-signal=INT", *ENGINE, *named]
        process = subprocess.Popen(heeding, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert acknowledged.wait(60)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert answered in out
    assert "Stopped" in err
    assert "Traceback" not in err


def _acknowledge(server: socket.socket, acknowledged: threading.Event) -> None:
    def serve(connection: socket.socket) -> None:
        left = b""
        with contextlib.suppress(ConnectionError):  # the sender was interrupted
            while data := connection.recv(65536):
                *frames, left = (left + data).split(b"\x1c\r")
                for frame in frames:
                    control_id = frame.split(b"|")[9]
                    head = b"\x0bMSH|^~\\&|||||20261104||ACK|1|P|2.5.1\r"
                    connection.sendall(head + b"MSA|AA|" + control_id + b"\r\x1c\r")
                    acknowledged.set()

    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def test_the_language_of_the_machine_does_not_stop_a_name_from_being_shown(stocked: Site) -> None:
    stocked.receive(
        "MSH|^~\\&|EHR|MAIN|||20261120120000||ADT^A28|U|P|2.5.1|||||||UNICODE UTF-8\rEVN|A28|20261120120000\r"
        "PID|1||77^^^MRN^MR||KÜHLMANN^ŽOFIE\r".encode()
    )
    stocked.process()
    done = subprocess.run(
        [*ENGINE, "patients", "find", "--reveal", "--reason", "x", "--config", str(stocked.config)],
        env={**os.environ, "LANG": "C", "LC_ALL": "C"}, capture_output=True, check=True,
    )  # fmt: skip
    assert "KÜHLMANN, ŽOFIE" in done.stdout.decode()
