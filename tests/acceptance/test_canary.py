"""The canary: messages whose every field holds a marker, each failure path driven, and no marker anywhere it can leak.

Looked at: the daemon's log and stderr, metrics, status, the lists of the command line without --reveal, command errors.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import resource
import signal
import socketserver
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from harness import Daemon, Site

MARKER = "ZQXCANARY"
AUTHORITY = "ZQXHOSPITAL"
"""Of identifiers. It names an organisation, not a person, so masked lists show it (`MRN:~3f9a1c2b`); logs do not."""
SENDER = "ZQXSENDER"
"""MSH-3 and MSH-4 of what is processed. Lists show it; of garbage they show nothing that nobody has named."""


def marked(trigger: str = "A01", *, number: int = 1, **changes: str) -> str:
    """A message that is processed although every field that can hold a text holds the marker."""
    m = MARKER
    parts = {
        "msh": f"MSH|^~\\&|{SENDER}APP|{SENDER}FAC|{m}RAPP|{m}RFAC|20260301120000|{m}SEC|ADT^{trigger}^ADT_A01"
        f"|{m}{number}|P|2.5.1|||||{m}|UNICODE UTF-8|{m}",
        "evn": f"EVN|{trigger}|20260301120000||{m}|{m}^{m}|20260301120000|{m}",
        "pid": f"PID|1|{m}|{m}{number}^^^{AUTHORITY}^MR~{m}^^^{AUTHORITY}^SS|{m}|{m}^{m}^{m}^{m}^{m}"
        f"||19480312|F|{m}|{m}|{m}^{m}^{m}^{m}^{m}^{m}|{m}|{m}|{m}|{m}|{m}|{m}|{m}|{m}|{m}",
        "pv1": f"PV1|1|I|{m}^{m}^{m}^{m}|E|{m}|{m}|{m}^{m}^{m}|{m}|{m}|{m}|{m}|{m}|{m}|{m}|{m}|{m}|{m}|{m}"
        f"|{m}V{number}^^^{AUTHORITY}|" + "|" * 24 + "20260301113000",
        "dg1": f"DG1|1|{m}|I50.9^{m}^I10|{m}|{m}|F\rDG1|2|{m}|{m}^{m}^{m}|{m}|{m}|{m}",
    } | changes
    return "\r".join(part for part in parts.values() if part) + "\r"


GARBAGE_SENDER = {"msh": f"MSH|^~\\&|{MARKER}APP|{MARKER}FAC|||20260301120000||ADT^A01^ADT_A01|{MARKER}20|P|2.5.1"}


def outputs(site: Site, daemon: Daemon) -> dict[str, str]:
    """All that may be seen without asking for PHI."""
    seen = {"log": daemon.log.read_text()}
    for path in ("/metrics", "/healthz", "/readyz"):
        try:
            with urllib.request.urlopen(daemon.console + path, timeout=10) as answer:
                seen[path] = answer.read().decode()
        except urllib.error.HTTPError as error:
            seen[path] = error.read().decode()
    for command in (
        ("status",), ("ledger",), ("dead", "list"), ("tasks", "list"), ("patients", "find"), ("audit", "list"),
        ("check",), ("senders",), ("gaps",), ("connections",), ("held", "list"), ("messages", "list", "--held"),
        ("dead", "list", "--each"), ("dead", "summary"), ("destinations", "list"),
        *(("destinations", "show", name) for name in ("nobody", "crm", "files")),
    ):  # fmt: skip
        for form in ((), ("--json",)):
            done = site.run(*command, *form, code=None)
            # The control id is shown on purpose: a sender's number for a message is how people talk about it.
            seen[" ".join((*command, *form))] = _but_control_ids(done.stdout + done.stderr)
    for letter in site.json("dead", "list"):
        if letter["stage"] == "intake":  # its control id and message type are shown, which here hold the marker
            continue
        done = site.run("dead", "show", str(letter["id"]), code=None)
        seen[f"dead show {letter['error']}"] = _but_control_ids(done.stdout + done.stderr)
    return seen


def _but_control_ids(text: str) -> str:
    return re.sub(rf'(ADT\^A\d\d +|"control_id": "){MARKER}\d+', r"\1", text)


def test_no_marker_reaches_log_metrics_status_or_masked_lists(
    site: Site, make_daemon: Callable[[Site], Daemon]
) -> None:
    # A destination that nobody answers at, one that is no MLLP server, and one that refuses to be logged in to.
    site.edit(
        "config.yaml",
        (
            r"(?m)^destinations:\n",
            """destinations:
  nobody: {type: mllp, host: 127.0.0.1, port: 1, retry: {first_seconds: 0.1, attempts_max: 2}}
  crm:
    {type: salesforce, login_url: "http://127.0.0.1:1", client_id: x, client_secret: y, retry: {first_seconds: 0.1}}
""",
        ),
    )
    site.edit(
        "channels/main-campus.yaml",
        (
            r"  - \{to: files",
            "  - {to: nobody, what: [message]}\n  - {to: crm, what: [patient, encounter, score, task]}\n  - {to: files",
        ),
    )
    daemon = make_daemon(site)
    answers = daemon.send(
        marked("A01", number=1),
        marked("A03", number=1),
        marked("A01", number=21, **GARBAGE_SENDER, pid=""),  # a header that is no sender's
        marked("A01", number=22, msh=GARBAGE_SENDER["msh"].replace("|P|", "|T|")),  # refused, and so is its name
        marked("A08", number=1),
        marked("A01", number=2, pid=f"PID|1||^^^^|{MARKER}|{MARKER}"),  # no identifier
        marked("A01", number=3, pid=""),  # no PID
        marked("A40", number=4, pv1=f"MRG|{MARKER}^^^{MARKER}OTHER^MR", dg1=""),  # identifiers that do not pair
        marked("A01", number=5, pv1=f"PV1|1|I|{'|' * 15}|{MARKER}V1^^^{AUTHORITY}"),  # the visit of another patient
        marked("A01", number=6, msh=f"MSH|^~\\&|{MARKER}|||||{MARKER}|{MARKER}^{MARKER}|{MARKER}6|{MARKER}|{MARKER}"),
        marked("A20", number=7),
        f"{MARKER} is no HL7 at all",
        f"MSH|{MARKER}",
        marked("A01", number=8).replace("19480312", f"{MARKER}"),
        marked("A01", number=9).replace("UNICODE UTF-8", MARKER),
    )
    assert len(answers) == 15
    for answer in answers:  # an answer echoes names and the control id, its texts hold nothing
        for segment in answer.split(b"\r"):
            if segment.startswith(b"ERR"):
                assert MARKER.encode() not in segment, segment
    for hello in (b"\x16\x03\x01" + MARKER.encode(), MARKER.encode() * 100):  # TLS, and no MLLP at all
        with daemon.connection() as sender:
            sender.socket.sendall(hello)
    with daemon.connection() as sender:  # half a frame, then nothing
        sender.socket.sendall(b"\x0b" + marked("A01", number=10).encode()[:200])
    time.sleep(3)
    os.kill(daemon.workers()[0], signal.SIGKILL)  # the worker breaks
    time.sleep(1)

    # The disk is full: files may not grow any more.
    size = max(file.stat().st_size for file in Path(site.folder / "var").glob("*journal*"))
    _, hard = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (size, hard))
    refused = daemon.send(*(marked("A01", number=100 + number) for number in range(40)))
    assert any(b"MSA|AR" in answer for answer in refused), "the disk was never full"
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (hard, hard))
    recovered = daemon.send(*(marked("A01", number=100 + number) for number in range(40)))
    assert b"MSA|AA" in recovered[-1], "the daemon did not recover by itself"
    time.sleep(2)

    for name, text in outputs(site, daemon).items():
        assert MARKER not in text, f"the marker stands in {name}"
        if not name.startswith(("patients", "tasks", "gaps", "held", "messages", "dead list")):
            assert AUTHORITY not in text, f"an authority stands in {name}"
    assert {"message refused", "message died", "connection refused"} <= {line["event"] for line in logged(daemon)}
    for wrong in (
        ("try", "main-campus", "no-such-file"),
        ("patients", "show", f"{MARKER}:1"),
        ("messages", "list", "--patient", f"{AUTHORITY}:{MARKER}1"),
    ):
        done = site.run(*wrong, code=None)
        assert MARKER not in done.stderr.replace(" ".join(wrong), ""), wrong
    daemon.stop()
    assert MARKER not in daemon.log.read_text()
    for file in (site.folder / "var").glob("*.db*"):
        assert MARKER.encode() not in file.read_bytes(), f"{file.name} holds clear text"


ENDED = {"delivery not made", "destination failed"}


def logged(daemon: Daemon) -> list[dict[str, object]]:
    return [json.loads(line) for line in daemon.log.read_text().splitlines() if line.startswith("{")]


class _Echo(socketserver.StreamRequestHandler):
    """An MLLP receiver whose answers are full of what it was sent, in words and codes of its own."""

    def handle(self) -> None:
        received = b""
        m = MARKER
        answers = (
            f"MSH|^~\\&|{m}|{m}|{m}|{m}|{m}|{m}|{m}|{m}|{m}|{m}\rMSA|AE|CONTROL|{m}\rERR|{m}|{m}^{m}|{m}|{m}|{m}|{m}|{m}\r",
            f"MSH|^~\\&|{m}|{m}\rMSA|{m}|CONTROL|{m}\r",
            f"MSH|^~\\&|{m}|{m}\rMSA|AR|{m}|{m}\r",
            f"{m} is no HL7",
        )
        while True:
            while b"\x1c\r" not in received:
                data = self.request.recv(65536)
                if not data:
                    return
                received += data
            frame, _, received = received.partition(b"\x1c\r")
            control = frame.split(b"\r")[0].split(b"|")[9].decode()
            self.server.turn = turn = getattr(self.server, "turn", -1) + 1  # type: ignore[attr-defined]
            answer = answers[turn % len(answers)].replace("CONTROL", control)
            self.request.sendall(b"\x0b" + answer.encode() + b"\x1c\r")


class _Org(http.server.BaseHTTPRequestHandler):
    """An org that lets everybody in, and whose refusals quote what it was sent."""

    def do_POST(self) -> None:
        self._answer(200, {"access_token": "x", "instance_url": f"http://127.0.0.1:{self.server.server_address[1]}"})

    def do_PATCH(self) -> None:
        turn = self.server.turn = getattr(self.server, "turn", -1) + 1  # type: ignore[attr-defined]
        error = {"message": MARKER, "errorCode": MARKER, "statusCode": MARKER, "fields": [MARKER], MARKER: MARKER}
        status, body = (
            (400, [error]),
            (200, [{"success": False, "id": None, "errors": [error]}]),
            (500, f"<html>{MARKER}</html>"),
            (404, {MARKER: MARKER}),
            (200, MARKER),
            (300, [MARKER]),
            (302, [error]),
        )[turn % 7]
        self._answer(status, body)

    def _answer(self, status: int, body: object) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.send_response(status, MARKER)
        self.send_header("Content-Type", "application/json")
        self.send_header("Location", f"http://127.0.0.1:1/{MARKER}")
        self.send_header("Sforce-Limit-Info", MARKER)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        """The test's output is nobody's log."""


def test_no_marker_that_a_destination_sends_back_is_repeated(site: Site, make_daemon: Callable[[Site], Daemon]) -> None:
    with (
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as lab,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Org) as org,
    ):
        lab.daemon_threads = org.daemon_threads = True
        for server in (lab, org):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        retry = "retry: {first_seconds: 0.05, seconds_max: 0.1, attempts_max: 2, breaker_seconds: 0.1}"
        host, port = "127.0.0.1", lab.server_address[1]
        crm = f'login_url: "http://{host}:{org.server_address[1]}", client_id: x, client_secret: y'
        site.edit(
            "config.yaml",
            (
                r"(?m)^destinations:\n",
                f"""destinations:
  lab: {{type: mllp, host: {host}, port: {port}, {retry}}}
  crm: {{type: salesforce, {crm}, {retry}}}
""",
            ),
        )
        wanted = "  - {to: lab, what: [message]}\n  - {to: crm, what: [patient, encounter, score, task]}\n"
        site.edit("channels/main-campus.yaml", (r"  - \{to: files", f"{wanted}  - {{to: files"))
        daemon = make_daemon(site)
        daemon.send(*(marked("A01", number=number) for number in range(1, 5)))
        until = time.monotonic() + 60
        while time.monotonic() < until and not {line["event"] for line in logged(daemon)} >= ENDED:
            time.sleep(0.2)
        time.sleep(1)
        seen = {"log": daemon.log.read_text()}
        with urllib.request.urlopen(daemon.console + "/metrics", timeout=10) as answer:
            seen["metrics"] = answer.read().decode()
        for command in (("dead", "list"), ("held", "list"), ("status",), ("ledger",)):
            done = site.run(*command, "--json", code=None)
            seen[" ".join(command)] = done.stdout + done.stderr
        for server in (lab, org):
            server.shutdown()
    refused = [line for line in logged(daemon) if line["event"] == "delivery not made"]
    assert {line["destination"] for line in refused} == {"lab", "crm"}, "it was not driven"
    for name, text in seen.items():
        assert MARKER.lower() not in text.lower(), f"the marker stands in {name}"
