"""Nothing of a message can get into the log: unknown fields, wrong shapes, texts and locals are withheld."""

from __future__ import annotations

import ast
import asyncio
import fcntl
import gc
import io
import json
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from engine import logs
from engine.errors import MessageError, StoreUnavailableError

CANARY = "CANARY^JANE^Q 558181838"
ENGINE = Path(logs.__file__).parent


class Log:
    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]

    @property
    def last(self) -> dict[str, Any]:
        return self.lines[-1]

    @property
    def text(self) -> str:
        return self._stream.getvalue()


@pytest.fixture
def log() -> Iterator[Log]:
    """The daemon's logging, into a text; everything is put back afterwards."""
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning
    root = logging.getLogger()
    before = list(root.handlers), root.level, logging.raiseExceptions
    stream = io.StringIO()
    logs.configure("debug", stream=stream)
    yield Log(stream)
    sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning = hooks
    root.handlers[:], logging.raiseExceptions = before[0], before[2]
    root.setLevel(before[1])
    structlog.reset_defaults()


def test_known_fields_are_shown(log: Log) -> None:
    logs.get_logger().info("listener opened", channel="main-campus", port=2575, state="running", seconds=0.5)
    line = log.last
    assert line["event"] == "listener opened"
    assert (line["channel"], line["port"], line["state"], line["seconds"]) == ("main-campus", 2575, "running", 0.5)
    assert line["level"] == "info"
    assert line["timestamp"].endswith("Z")


def test_a_field_that_is_not_on_the_list_is_withheld(log: Log) -> None:
    logs.get_logger().info("message stored", patient_name=CANARY, mrn="558181838", payload=b"MSH|")
    assert {log.last[name] for name in ("patient_name", "mrn", "payload")} == {"withheld"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("channel", CANARY), ("channel", "a" * 65), ("entry", "558181838"), ("state", "Jane"), ("error", CANARY),
        ("port", [1]), ("file", CANARY), ("location", "PID-5=Jane"), ("seconds", "1"), ("host", "a b"),
        ("wait_seconds", "Jane"), ("exception", "Jane Doe"), ("code", {"a": 1}),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_shape_is_withheld(log: Log, field: str, value: object) -> None:
    logs.get_logger().info("message stored", **{field: value})
    assert log.last[field] == "withheld"


@pytest.mark.parametrize("event", [CANARY, "Jane", "patient 558181838: x", "a" * 81, "", "MSH|^~\\&"])
def test_an_event_that_is_no_fixed_text_is_withheld(log: Log, event: str) -> None:
    logs.get_logger().info(event)
    assert log.last["event"] == "withheld"


def test_an_exception_is_its_type_and_our_own_frames_and_never_its_text(log: Log) -> None:
    try:
        logs.render_exception(None)  # type: ignore[arg-type]  # raises inside of the engine
    except AttributeError as error:
        try:
            raise ValueError(CANARY) from error
        except ValueError:
            logs.get_logger().exception("it failed")
    line = log.last
    assert line["exception"] == "ValueError"
    assert line["causes"][0].startswith("AttributeError at engine/logs.py:")
    assert CANARY not in log.text
    assert str(Path(__file__).name) not in log.text


def test_the_text_of_an_error_of_ours_is_shown(log: Log) -> None:
    error = MessageError("pid-missing", "the PID segment is missing", location="PID")
    logs.get_logger().error("entry failed", exc_info=error)
    assert log.last["exception_text"] == "PID: the PID segment is missing"


def test_an_error_given_as_a_field_is_rendered_the_same_way(log: Log) -> None:
    logs.get_logger().error("entry failed", error=KeyError(CANARY))
    assert log.last["exception"] == "KeyError"
    logs.get_logger().error("entry failed", error=StoreUnavailableError("the disk is full"))
    assert log.last["exception_text"] == "the disk is full"
    assert CANARY not in log.text


def test_the_cause_of_an_error_of_ours_is_named_without_its_text(log: Log) -> None:
    try:
        try:
            raise ValueError(CANARY)
        except ValueError as inner:
            raise StoreUnavailableError("the store can't be used now") from inner
    except StoreUnavailableError:
        logs.get_logger().exception("store failed")
    assert log.last["causes"] == ["ValueError"]
    assert CANARY not in log.text


def test_exception_groups_name_their_members(log: Log) -> None:
    logs.get_logger().error("it failed", exc_info=ExceptionGroup(CANARY, [ValueError(CANARY), KeyError(CANARY)]))
    assert log.last["causes"] == ["ValueError", "KeyError"]
    assert CANARY not in log.text


def test_what_libraries_log_is_kept_without_its_text(log: Log) -> None:
    for name in ("aiohttp.access", "sqlalchemy.engine", "simple_salesforce.api", "urllib3.connectionpool", "asyncio"):
        logging.getLogger(name).warning("%s went wrong with " + CANARY, CANARY)
        assert log.last["logger"] == name
        assert log.last["source"].rpartition("/")[2].startswith("test_logs.py:")
    assert CANARY not in log.text


def test_an_exception_in_a_librarys_log_is_rendered_our_way(log: Log) -> None:
    try:
        raise ValueError(CANARY)
    except ValueError:
        logging.getLogger("aiohttp.server").exception("Error handling request %s", CANARY)
    assert log.last["exception"] == "ValueError"
    assert CANARY not in log.text


def test_a_broken_log_call_of_a_library_prints_nothing(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("library").warning("%d", CANARY)
    assert CANARY not in capsys.readouterr().err + log.text


def test_warnings_are_kept_without_their_text(log: Log) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = logs._showwarning
        warnings.warn(CANARY, UserWarning, stacklevel=1)
    assert log.last["exception"] == "UserWarning"
    assert CANARY not in log.text


def test_an_exception_that_nobody_caught_goes_through_the_log(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    error = ValueError(CANARY)
    sys.excepthook(ValueError, error, None)
    assert log.last["event"] == "unhandled exception"
    assert CANARY not in log.text + capsys.readouterr().err


def test_an_exception_that_nobody_caught_in_a_thread_goes_through_the_log(
    log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ValueError(CANARY)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert log.last["event"] == "unhandled exception in a thread"
    assert CANARY not in log.text + capsys.readouterr().err


def test_an_exception_that_python_ignores_goes_through_the_log(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError(CANARY)

    Broken()
    gc.collect()
    assert log.last["event"] == "exception ignored by python"
    assert CANARY not in log.text + capsys.readouterr().err


def test_an_exception_lost_in_the_event_loop_goes_through_the_log(log: Log) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        logs.watch_loop(loop)
        loop.call_soon(lambda: [][0])
        loop.call_exception_handler({"message": CANARY, "exception": ValueError(CANARY), "transport": CANARY})
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert [line["exception"] for line in log.lines if "exception" in line] == ["ValueError", "IndexError"]
    assert CANARY not in log.text


def test_a_stderr_that_is_gone_takes_nothing_down() -> None:
    stream = io.StringIO()
    logs._Lines(stream).msg("one")
    stream.close()
    logs._Lines(stream).msg("two")


def test_of_the_same_error_again_and_again_few_lines_are_shown_and_the_others_counted(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for _ in range(10_000):
        logs.get_logger().error("entry failed", channel="east", exc_info=ValueError(CANARY))
    assert len(log.lines) == logs._ALIKE_MAX
    now[0] += logs._ALIKE_SECONDS
    for _ in range(3):
        logs.get_logger().error("entry failed", channel="east", exc_info=ValueError(CANARY))
    assert len(log.lines) == logs._ALIKE_MAX + 1
    assert log.last["left_out_count"] == 10_000 - logs._ALIKE_MAX
    now[0] += logs._ALIKE_SECONDS * 1000
    for _ in range(1000):
        logs.get_logger().error("entry failed", channel="east", exc_info=ValueError(CANARY))
    assert len(log.lines) == 2 * logs._ALIKE_MAX + 1


def test_a_burst_hides_no_other_error_and_no_information(log: Log) -> None:
    for number in range(1000):
        logs.get_logger().error("entry failed", channel="east")
        logs.get_logger().info("listener opened", port=number)
    logs.get_logger().error("entry failed", channel="west")
    logs.get_logger().error("entry failed", channel="east", exc_info=ValueError())
    logs.get_logger().critical("entry failed", channel="east")
    assert [line.get("channel") for line in log.lines[-3:]] == ["west", "east", "east"]
    assert len([line for line in log.lines if line["level"] == "info"]) == 1000


def test_a_burst_of_a_library_is_bounded_too(log: Log) -> None:
    for _ in range(1000):
        logging.getLogger("aiohttp.server").error("%s", CANARY)
    assert len(log.lines) == logs._ALIKE_MAX


def test_a_stderr_that_nobody_reads_holds_nobody_up() -> None:
    program = """
import sys
import termios
from engine import logs
logs.configure()
log = logs.get_logger()
for number in range(5000):
    log.info("listener opened", port=number)
print("done", flush=True)
sys.stdin.readline()
log.info("listener closed", port=1)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "done\n"
        threading.Timer(0.5, lambda: process.stdin and process.stdin.write("\n") and process.stdin.flush()).start()
        lines = [json.loads(line) for line in process.stderr]
    shown = [line["port"] for line in lines if line["event"] == "listener opened"]
    [lost] = [line["lost_count"] for line in lines if line["event"] == "log lines were lost"]
    assert len(shown) + lost == 5000
    assert shown == list(range(len(shown)))
    assert lines[-1]["event"] == "listener closed"


def test_a_terminal_gets_short_lines_for_a_person(log: Log) -> None:
    """One line where 80 columns are enough, else its fields go on below the event; nothing of it is JSON."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, os.fdopen(ours, "rb", buffering=0) as screen:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
        logs.configure("info", stream=terminal)
        listener = logs.get_logger("engine.runtime.listener")
        listener.info("listener opened", channel="main-campus", host="127.0.0.1", port=2575)
        listener.warning("connection refused", channel="west", peer="10.1.2.3:44556", reason="no-client-certificate")
        seen = b""
        while b"module=" not in seen:  # a terminal hands over what it has
            seen += screen.read(4096)
        opened, refused, *rest = seen.decode().replace("\r", "").splitlines()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\dZ info    listener opened  channel=main-campus host=127\.0\.0\.1 port=2575", opened
    )
    assert "\x1b[33mwarning\x1b[0m connection refused  channel=west peer=10.1.2.3:44556" in refused
    assert rest == [" " * 18 + "reason=no-client-certificate module=runtime.listener"]


def test_text_shows_no_more_than_json_does(log: Log) -> None:
    stream = io.StringIO()
    logs.configure("info", "text", stream=stream)
    try:
        raise ValueError(CANARY)
    except ValueError:
        logs.get_logger("engine.x").error("processing broke", exc_info=True, entry=12, patient=CANARY, clean=False)
    logging.getLogger("library").error("%s", CANARY)
    text = stream.getvalue()
    assert CANARY not in text
    assert "processing broke  entry=12 patient=withheld clean=no\n" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_terminal_gets_json_when_the_site_says_so(log: Log) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    logs.configure("info", "json", stream=stream)
    logs.get_logger().info("listener opened", port=2575)
    assert json.loads(stream.getvalue())["port"] == 2575


def test_below_the_level_nothing_is_logged(log: Log) -> None:
    stream = io.StringIO()
    logs.configure("warning", stream=stream)
    logs.get_logger().info("listener opened")
    logging.getLogger("library").info("x")
    assert stream.getvalue() == ""


def log_calls() -> Iterator[tuple[Path, ast.Call]]:
    """Every call of a log method in the engine."""
    for path in sorted(ENGINE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"debug", "info", "warning", "error", "critical", "exception"}
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in {"log", "_log"}
            ):
                yield path, node


def test_every_event_in_the_engine_is_a_literal_that_is_shown() -> None:
    calls = list(log_calls())
    assert len(calls) > 20
    for path, call in calls:
        place = f"{path.relative_to(ENGINE)}:{call.lineno}"
        assert len(call.args) == 1, place
        event = call.args[0]
        if path.name == "logs.py" and not isinstance(event, ast.Constant):
            continue
        assert isinstance(event, ast.Constant), place
        assert logs._EVENT.fullmatch(event.value), f"{place}: {event.value!r} would be withheld"
        assert len(event.value) <= logs._EVENT_CHARS_MAX, place


def test_every_field_logged_in_the_engine_is_on_the_list() -> None:
    for path, call in log_calls():
        for keyword in call.keywords:
            place = f"{path.relative_to(ENGINE)}:{call.lineno}: {keyword.arg}"
            if path.name == "logs.py" or keyword.arg == "exc_info":
                continue
            assert keyword.arg is not None, f"{place}: fields are written out"
            assert keyword.arg in logs.FIELDS or keyword.arg.endswith(logs._NUMBER_SUFFIXES), place


def test_until_it_is_configured_nothing_is_logged_also_by_a_logger_that_spoke_before(
    log: Log, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logs.get_logger("test")
    logger.info("listener opened")
    assert log.last
    structlog.reset_defaults()
    logger.warning("listener opened")
    assert capsys.readouterr().out == ""
