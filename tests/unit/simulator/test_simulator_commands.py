"""`handoff send` and `handoff simulate`, as scripts use them."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from engine.cli.common import Cli
from engine.cli.send import send
from engine.cli.simulate import simulate
from engine.domain.message import AckCode
from engine.hl7v2.ack import Verdict, acknowledge
from engine.hl7v2.batch import messages_in
from engine.hl7v2.header import HeaderError, read_header
from engine.hl7v2.mllp import FrameDecoder, wrap

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
ONE = b"MSH|^~\\&|A|B|C|D|20260302||ADT^A01^ADT_A01|M1|P|2.5.1\nPID|1\n"
TWO = b"MSH|^~\\&|A|B|C|D|20260302||ADT^A03^ADT_A03|M2|P|2.5.1\nPID|1\n"
OLD = b"MSH|^~\\&|A|B|C|D|20260302||ADT^A03|M3|P|2.3\nPID|1\n"
Judge = Callable[[bytes], Verdict]


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, judge: Judge) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.judge = judge
        self.received: list[bytes] = []


class Handler(socketserver.BaseRequestHandler):
    server: Server

    def handle(self) -> None:
        decoder = FrameDecoder(1 << 20)
        while data := self.request.recv(65536):
            for frame in decoder.feed(data):
                self.server.received.append(frame.payload)
                for message in messages_in(frame.payload):
                    try:
                        header = read_header(message)
                    except HeaderError as error:
                        header = error.header
                    answer = acknowledge(header, self.server.judge(message), now=NOW, control_id="R1")
                    self.request.sendall(wrap(answer))


@contextmanager
def server(judge: Judge = lambda _: Verdict(code=AckCode.AA)) -> Iterator[Server]:
    with Server(judge) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


def run(command: click.Command, *arguments: str) -> tuple[int, Any, str]:
    result = CliRunner().invoke(command, list(arguments), obj=Cli(), standalone_mode=False)
    if isinstance(result.exception, click.UsageError):
        return 2, None, str(result.exception)
    assert result.exception is None
    return result.return_value, json.loads(result.stdout) if "--json" in arguments else result.stdout, result.stderr


def at(running: Server) -> str:
    return f"127.0.0.1:{running.server_address[1]}"


def test_send_prints_the_answer_to_every_message_of_every_file(tmp_path: Path) -> None:
    (tmp_path / "a.hl7").write_bytes(ONE + TWO)
    (tmp_path / "b.hl7").write_bytes(b"BHS|^~\\&|A\r" + ONE + TWO + b"BTS|2\r")
    with server() as running:
        code, results, _ = run(send, at(running), str(tmp_path / "a.hl7"), str(tmp_path / "b.hl7"), "--json")
    assert code == 0
    assert [(Path(each["file"]).name, each["index"], each["control_id"], each["ack"]["code"]) for each in results] == [
        ("a.hl7", 0, "M1", "AA"), ("a.hl7", 1, "M2", "AA"), ("b.hl7", 0, "M1", "AA"), ("b.hl7", 0, "M2", "AA"),
    ]  # fmt: skip
    assert all(each["ack"]["error"] is None and each["seconds"] > 0 for each in results)
    assert len(running.received) == 3
    assert running.received[0] == ONE.replace(b"\n", b"\r")


@pytest.mark.parametrize(
    ("message", "error"), [(TWO, "version-not-accepted"), (OLD, "203")], ids=["ERR-5", "table 0357 before 2.5"]
)
def test_send_exits_1_and_shows_why_when_a_message_is_refused(tmp_path: Path, message: bytes, error: str) -> None:
    refusal = Verdict(
        code=AckCode.AR, hl7_code=203, error="version-not-accepted", location="MSH-12", text="not this version"
    )
    (tmp_path / "a.hl7").write_bytes(ONE + message)
    with server(lambda payload: refusal if b"A03" in payload else Verdict(code=AckCode.AA)) as running:
        code, results, _ = run(send, at(running), str(tmp_path / "a.hl7"), "--json")
    assert code == 1
    assert [each["ack"]["code"] for each in results] == ["AA", "AR"]
    assert (results[1]["ack"]["error"], results[1]["ack"]["text"]) == (error, "not this version")


def test_send_shows_people_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.hl7").write_bytes(ONE)
    with server() as running:
        code, text, _ = run(send, at(running), str(tmp_path / "a.hl7"))
    assert code == 0
    assert "CONTROL ID" in text
    assert "M1" in text


def test_send_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    with server() as running:
        result = CliRunner().invoke(send, [at(running), "-", "--json"], input=ONE, obj=Cli(), standalone_mode=False)
    assert result.return_value == 0
    assert json.loads(result.stdout)[0]["control_id"] == "M1"


def test_send_sends_what_is_no_message_and_shows_the_refusal(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"hello\n")
    refusal = Verdict(code=AckCode.AR, hl7_code=100, error="header-missing", location="MSH")
    with server(lambda _: refusal) as running:
        code, results, _ = run(send, at(running), str(tmp_path / "a.txt"), "--json")
    assert code == 1
    assert results[0]["ack"]["error"] == "header-missing"
    assert running.received == [b"hello\r"]


def test_send_exits_1_when_an_answer_does_not_come(tmp_path: Path) -> None:
    (tmp_path / "a.hl7").write_bytes(ONE + TWO)
    with server() as running:
        answer = Handler.handle
        try:
            Handler.handle = lambda handler: handler.request.recv(9)  # type: ignore[method-assign]  # hangs up
            code, results, _ = run(send, at(running), str(tmp_path / "a.hl7"), "--json")
        finally:
            Handler.handle = answer  # type: ignore[method-assign]
    assert code == 1
    assert [each["ack"] for each in results] == [None, None]
    assert all(each["problem"].startswith("closed") for each in results)


@pytest.mark.parametrize("command", [send, simulate])
def test_exit_69_when_nobody_listens(tmp_path: Path, command: click.Command) -> None:
    (tmp_path / "a.hl7").write_bytes(ONE)
    with server() as running:
        address = at(running)
    files = [str(tmp_path / "a.hl7")] if command is send else []
    code, document, _ = run(command, address, *files, "--json")
    assert code == 69
    assert document is not None


@pytest.mark.parametrize(
    "arguments",
    [["nowhere", "FILE"], ["127.0.0.1:0", "FILE"], ["127.0.0.1:2575"], ["127.0.0.1:2575", "/missing"],
     ["127.0.0.1:2575", "FILE", "--ca", "FILE"], ["127.0.0.1:2575", "FILE", "--tls", "--ca", "FILE"]],
    ids=["no port", "port 0", "no file", "missing file", "ca without tls", "no certificate"],
)  # fmt: skip
def test_wrong_use_of_send_is_exit_2(tmp_path: Path, arguments: list[str]) -> None:
    file = tmp_path / "a.hl7"
    file.write_bytes(ONE)
    code, _, text = run(send, *(str(file) if argument == "FILE" else argument for argument in arguments))
    assert code == 2
    assert text


def test_the_same_simulate_command_sends_the_same_bytes() -> None:
    arguments = ("--messages", "300", "--connections", "4", "--day", "2026-03-02", "--json")
    with server() as running:
        first_code, first, _ = run(simulate, at(running), *arguments)
        first_stream = sorted(running.received)
        running.received.clear()
        second_code, second, _ = run(simulate, at(running), *arguments)
        assert sorted(running.received) == first_stream
    assert (first_code, second_code) == (0, 0)
    for summary in (first, second):
        assert (summary["sent"], summary["acked"], summary["errors"]) == (300, {"AA": 300}, 0)
        assert summary["rate"] > 0


def test_simulate_exits_1_when_a_message_is_refused() -> None:
    refusal = Verdict(code=AckCode.AE, hl7_code=101)
    with server(lambda payload: refusal if b"ADT^A08" in payload else Verdict(code=AckCode.AA)) as running:
        code, summary, _ = run(simulate, at(running), "--messages", "60", "--day", "2026-03-02", "--json")
    assert code == 1
    assert summary["sent"] == 60
    assert summary["acked"]["AE"] + summary["acked"]["AA"] == 60
