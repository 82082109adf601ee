"""Attempts against the console of a running daemon, byte by byte: nobody gets in, nothing falls over, and whoever sends
messages notices nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import pyotp
import pytest
from harness import Daemon, Site, eventually, new_site

FIRST = "channels/examples/first-message.hl7"
ACCESS = "\naccess: {provider: local, roles: mappings/access/roles.yaml}\n"
PASSWORD = "brass lantern over quiet hills"
ANSWER_BYTES_MAX = 1 << 20
KEPT = (b"hft_", b"lookup", b"root:", b"provider: local", b"Traceback", b'File "')
"""What no answer may hold: keys, accounts of the machine, configuration, code."""


class Attacked(NamedTuple):
    daemon: Daemon
    token: str
    codes: pyotp.TOTP

    @property
    def address(self) -> tuple[str, int]:
        console = self.daemon.status["console"]
        return console["host"], console["port"]

    def raw(self, *pieces: bytes, seconds: float = 10) -> bytes:
        """Everything that comes back until the other side closes, or says no more."""
        with socket.create_connection(self.address, timeout=seconds) as sock:
            with contextlib.suppress(OSError):  # it may close before it has read all
                for piece in pieces:
                    sock.sendall(piece)
            return read(sock)

    def ask(
        self, path: str, *headers: bytes, method: str = "GET", body: bytes | None = None, token: bool = True
    ) -> tuple[int, bytes]:
        """Status and answer to one request."""
        host, port = self.address
        lines = [f"{method} {path} HTTP/1.1".encode("latin-1"), f"Host: {host}:{port}".encode(), b"Connection: close"]
        lines += [f"Authorization: Bearer {self.token}".encode()] * token
        if body is not None:
            lines.append(b"Content-Length: %d" % len(body))
        said = self.raw(b"\r\n".join([*lines, *headers, b"", b""]) + (body or b""))
        return status_of(said), said

    @property
    def people(self) -> int:
        """The process that serves people."""
        return int(eventually(lambda: self.daemon.site.json("status", code=None)["console"]["pid"]))


def read(sock: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(OSError):
        while (piece := sock.recv(65536)) and len(found) < ANSWER_BYTES_MAX:
            found += piece
    return found


def status_of(said: bytes) -> int:
    """0: closed without a word."""
    return int(said[9:12]) if said.startswith(b"HTTP/1.") else 0


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """A site with accounts and one patient, its daemon and its console."""
    site = new_site(tmp_path_factory.mktemp("attacked") / "site")
    site.config.write_text(site.config.read_text() + ACCESS)
    site.run("db", "migrate")
    site.run("users", "add", "svc", "--role", "admin", "--service")
    site.run("users", "add", "dana", "--role", "admin")
    site.run("users", "password", "dana", stdin=PASSWORD + "\n")
    codes = pyotp.TOTP(site.json("users", "mfa", "dana")["secret"])
    token = site.json("users", "token", "svc", "--scope", "all", "--until", "1d")["token"]
    daemon = Daemon(site).start()
    try:
        site.run("send", f"127.0.0.1:{daemon.port()}", FIRST, "--shift-to-now")
        found = Attacked(daemon, token, codes)
        eventually(lambda: found.ask("/api/v1/tasks")[0] == 200)
        yield found
    finally:
        daemon.kill()


@pytest.fixture(autouse=True)
def stands(attacked: Attacked) -> Iterator[None]:
    """After each attempt the same processes serve as before, and their log knows of no fault of ours."""
    before = (attacked.daemon.pid, attacked.people)
    yield
    assert attacked.ask("/api/v1/tasks")[0] == 200
    assert (attacked.daemon.pid, attacked.people) == before
    log = attacked.daemon.log.read_bytes()
    faults = [line for line in log.splitlines() if b'"level": "error"' in line or b"Traceback" in line]
    assert not faults, faults[0]


def refused(said: bytes, *allowed: int) -> None:
    assert status_of(said) in (allowed or (0, 400, 401, 403, 404, 405, 413, 414, 415, 421, 431)), said[:200]
    assert not any(one in said for one in KEPT), said[:400]


# --- paths and methods -----------------------------------------------------------------------------------------------

PATHS = [
    "/../../keys.json", "/api/v1/../../../etc/passwd", "/%2e%2e/%2e%2e/keys.json", "/api/v1/tasks/..%2f..%2fkeys.json",
    "/api/v1/tasks/..%5c..%5ckeys.json", "/api/v1/tasks/....//....//keys.json", "/..;/keys.json", "//etc/passwd",
    "/api/v1/tasks/%00", "/api/v1/tasks/%ff%fe", "/api/v1/tasks/%252e%252e%252fkeys.json", "/config.yaml", "/var/",
    "/api/v1/entries/-1", "/api/v1/entries/99999999999999999999999", "/api/v1/entries/1e3", "/api/v1/entries/\xb2",
    "/api/v1/tasks/" + "a" * 7_000, "/" + "/".join(["a"] * 3_500), "/api/v1/tasks?" + "&".join(["a=1"] * 2_000),
    "*", "/api/v1/tasks?limit=1&limit=2", "/api/v1/tasks?cursor=%00", "/static/../engine/store/keys.py",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:40].encode("ascii", "replace").decode())
def test_no_path_leads_out_of_the_routes(attacked: Attacked, path: str) -> None:
    refused(attacked.ask(path)[1])


@pytest.mark.parametrize(
    "method", ["TRACE", "CONNECT", "PROPFIND", "PUT", "PATCH", "DELETE", "get", "G\x00T", "X" * 99]
)
def test_no_other_method_does_anything(attacked: Attacked, method: str) -> None:
    refused(attacked.ask("/api/v1/tasks", method=method)[1])


@pytest.mark.parametrize("header", [b"X-HTTP-Method-Override", b"X-HTTP-Method", b"X-Method-Override", b"_method"])
def test_a_method_is_not_taken_from_a_header(attacked: Attacked, header: bytes) -> None:
    status, said = attacked.ask("/api/v1/session", header + b": DELETE")
    assert (status, b'"svc"' in said) == (200, True)  # it was the GET that it is
    assert attacked.ask("/api/v1/tasks?_method=DELETE")[0] == 400


# --- whose request it is ---------------------------------------------------------------------------------------------

HOSTS = [
    [b"Host: evil.example"], [b"Host: localhost:80@evil.example"], [b"Host: 127.0.0.1.evil.example"], [b"Host:"], [],
    [b"Host: 127.0.0.1", b"Host: evil.example"], [b"Host: evil.example", b"X-Forwarded-Host: 127.0.0.1"],
    [b"Host: 127.0.0.1, evil.example"], [b"Host: [::1]evil"], [b"Host: 127.0.0.1\x00"], [b"Host: 0x7f.1"],
    [b"Host: \xe2\x91\xa0.0.0.1"],
]  # fmt: skip


@pytest.mark.parametrize("hosts", HOSTS, ids=str)
@pytest.mark.parametrize("target", [b"/api/v1/tasks", b"http://evil.example/api/v1/tasks"])
def test_a_name_that_is_not_ours_is_not_answered(attacked: Attacked, hosts: list[bytes], target: bytes) -> None:
    lines = [b"GET " + target + b" HTTP/1.1", *hosts, b"Authorization: Bearer " + attacked.token.encode()]
    refused(attacked.raw(b"\r\n".join([*lines, b"Connection: close", b"", b""])), 0, 400, 421)


SMUGGLED = b"GET /api/v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer TOKEN\r\n\r\n"
FRAMINGS = {
    "length and chunks": [b"Content-Length: 4", b"Transfer-Encoding: chunked"],
    "two lengths": [b"Content-Length: 0", b"Content-Length: 5"],
    "a list of lengths": [b"Content-Length: 0, 5"],
    "a signed length": [b"Content-Length: +5"],
    "a length in other digits": [b"Content-Length: \xd9\xa5"],
    "a length with underscores": [b"Content-Length: 1_0"],
    "a negative length": [b"Content-Length: -1"],
    "a length without end": [b"Content-Length: " + b"9" * 60],
    "chunks by another name": [b"Transfer-Encoding: xchunked"],
    "chunks, folded": [b"Transfer-Encoding:\r\n chunked"],
    "chunks twice": [b"Transfer-Encoding: chunked, chunked"],
    "chunks and identity": [b"Transfer-Encoding: chunked, identity"],
    "a space before the colon": [b"Content-Length : 5"],
    "a name with a tab": [b"Content-\tLength: 5"],
    "a bare return in a value": [b"X-A: b\rContent-Length: 5"],
    "a zero in a value": [b"X-A: b\x00c"],
    "no colon": [b"Content-Length 5"],
}


@pytest.mark.parametrize("name", FRAMINGS)
def test_a_request_that_can_be_read_in_two_ways_is_read_in_none(attacked: Attacked, name: str) -> None:
    """What one reads as a body and the other as a request behind it would get past a proxy."""
    lines = [b"POST /api/v1/session HTTP/1.1", b"Host: 127.0.0.1", b"Content-Type: application/json", *FRAMINGS[name]]
    said = attacked.raw(b"\r\n".join([*lines, b"", b"0\r\n\r\n"]), SMUGGLED.replace(b"TOKEN", attacked.token.encode()))
    refused(said)
    assert b'"items"' not in said


def test_a_chunk_that_says_a_wrong_length_is_no_second_request(attacked: Attacked) -> None:
    head = b"POST /api/v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    for chunk in (
        b"3\nabc\n",
        b"-1\r\nabc\r\n",
        b"0x3\r\nabc\r\n",
        b"ffffffffffffffffff\r\nabc\r\n",
        b"3;" + b"e" * 20_000,
    ):
        said = attacked.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk, SMUGGLED, seconds=2)
        refused(said)
        assert b'"items"' not in said


@pytest.mark.parametrize(
    "headers",
    [
        [b"X: " + b"a" * 200_000], [b"X%d: a" % n for n in range(20_000)], [b"X" * 100_000 + b": a"],
        [b"Cookie: " + b"a=b; " * 9_000],
    ],
    ids=["a long value", "many", "a long name", "many cookies"],
)  # fmt: skip
def test_headers_without_end_are_refused(attacked: Attacked, headers: list[bytes]) -> None:
    refused(attacked.ask("/api/v1/tasks", *headers)[1])


# --- bodies ----------------------------------------------------------------------------------------------------------

JSON = b"Content-Type: application/json"
DEEP = 20_000
BODIES = {
    "deep lists": b"[" * DEEP,
    "deep lists that end": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"name":' * 7_000 + b"1" + b"}" * 7_000,
    "deep in a field that there is not": b'{"x":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "a number without end": b'{"name":' + b"9" * 60_000 + b"}",
    "an exponent": b'{"name":1e999999999}',
    "no number": b'{"name":NaN}',
    "half a surrogate": b'{"name":"\\ud800","password":"x","code":"1"}',
    "no text": b'{"name":"\xff\xfe","password":"x","code":"1"}',
    "a mark before it": b'\xef\xbb\xbf{"name":"a","password":"x","code":"1"}',
    "wide": '{"name":"a"}'.encode("utf-16"),
    "a zero": b'{"name":"a\\u0000b","password":"x","code":"1"}',
    "a list": b'["name"]',
    "nothing": b"",
    "a prototype": b'{"__proto__":{"admin":true},"constructor":{}}',
    "two of a name": b'{"name":"a","name":' + b"[" * 500 + b"]" * 500 + b"}",
    "keys without end": b"{" + b",".join(b'"k%d":1' % n for n in range(5_000)) + b"}",
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("path", ["/api/v1/session", "/api/v1/patients/search"])
def test_a_body_that_is_a_bomb_or_none_is_refused_at_once(attacked: Attacked, path: str, name: str) -> None:
    begun = time.monotonic()
    status, said = attacked.ask(path, JSON, method="POST", body=BODIES[name])
    assert status in {400, 401, 413}, said[:300]
    refused(said)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "kind",
    [b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x", b"text/json", b"",
     b"application/json, text/plain", b"application/jsonp", b"text/plain; application/json"],
)  # fmt: skip
def test_a_body_of_another_type_is_not_read(attacked: Attacked, kind: bytes) -> None:
    status, said = attacked.ask("/api/v1/session", b"Content-Type: " + kind, method="POST", body=b'{"name":"a"}')
    assert status == 415, said[:200]


@pytest.mark.parametrize("framed", ["by its length", "in chunks", "packed"])
def test_a_body_without_end_is_refused_before_it_is_read(attacked: Attacked, framed: str) -> None:
    head = b"POST /api/v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    million = b" " * (1 << 20)
    if framed == "by its length":
        said = attacked.raw(head + b"Content-Length: 1000000000\r\n\r\n", *[million] * 4, seconds=2)
    elif framed == "in chunks":
        said = attacked.raw(
            head + b"Transfer-Encoding: chunked\r\n\r\n", *[b"100000\r\n" + million + b"\r\n"] * 4, seconds=2
        )
    else:
        import gzip  # a bomb: a thousand times as large when it is unpacked

        packed = gzip.compress(million * 32)
        more = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        said = attacked.raw(head + more + packed, seconds=2)
    refused(said, 0, 400, 413, 415)


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_a_secret_is_taken_as_it_is_or_not_at_all(attacked: Attacked) -> None:
    token = attacked.token
    wide = token.replace("hft_", "\uff48\uff46\uff54_")
    others: list[bytes] = [
        wide.encode(), (token + "\u0301").encode(), (token + "\u200b").encode(), token.encode("utf-16-le"),
        token.encode() + b"\x00", token.encode() + b"\xff", token.upper().encode(), token.encode()[:-1],
        token.encode() + b"=", b"hft_" + b"\xc3\xa9" * 40, b"hft_" + b"a" * 6_000, b"hft_%00", b"hft_' OR 1=1 --",
        token.encode() + b", Bearer x", b"Bearer " + token.encode(), b"",
    ]  # fmt: skip
    for one in others:
        status, said = attacked.ask("/api/v1/tasks", b"Authorization: Bearer " + one, token=False)
        assert status in {400, 401}, one
        refused(said)
    twice = (b"Authorization: Bearer hft_wrong", b"Authorization: Bearer " + token.encode())
    assert attacked.ask("/api/v1/tasks", *twice, token=False)[0] in {400, 401}
    assert attacked.ask(f"/api/v1/tasks?token={token}", token=False)[0] in {400, 401}
    assert attacked.ask("/api/v1/tasks", b"Cookie: handoff-loopback=" + token.encode(), token=False)[0] == 401


def test_a_session_is_never_one_that_was_there_before_the_log_in(attacked: Attacked) -> None:
    """Who plants a cookie in a browser must not be in with whoever logs in there."""
    planted = b"Cookie: handoff-loopback=hfs_" + b"a" * 43
    said = {"name": "dana", "password": PASSWORD, "code": attacked.codes.now()}
    status, answer = attacked.ask(
        "/api/v1/session", JSON, planted, method="POST", body=json.dumps(said).encode(), token=False
    )
    assert status == 200, answer
    (given,) = [line for line in answer.split(b"\r\n") if line.lower().startswith(b"set-cookie:")]
    assert b"a" * 43 not in given
    assert b"httponly" in given.lower()
    assert b"samesite=strict" in given.lower()
    assert attacked.ask("/api/v1/session", planted, token=False)[0] == 401
    own = b"Cookie: " + given.split(b":", 1)[1].split(b";")[0].strip()
    assert attacked.ask("/api/v1/session", own, token=False)[0] == 200
    assert attacked.ask("/api/v1/session", own, planted, token=False)[0] in {200, 400, 401}
    # The same code does not let anybody in again.
    again = attacked.ask("/api/v1/session", JSON, method="POST", body=json.dumps(said).encode(), token=False)
    assert again[0] == 401


# --- how many, and how slow ------------------------------------------------------------------------------------------


def test_slow_and_idle_connections_keep_nobody_out(attacked: Attacked) -> None:
    """More of them than there are places: the oldest make room."""
    with contextlib.ExitStack() as stack:
        for number in range(700):
            sock = stack.enter_context(socket.create_connection(attacked.address, timeout=10))
            if number % 3 == 1:
                sock.sendall(b"GET /api/v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
            elif number % 3 == 2:
                sock.sendall(
                    b"POST /api/v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                    b"Content-Length: 60000\r\n\r\n{"
                )
        for _ in range(3):
            assert attacked.ask("/readyz")[0] == 200
            assert attacked.ask("/api/v1/tasks")[0] == 200
        assert b"MSA|AA|" in answer_of(attacked.daemon)


def answer_of(daemon: Daemon) -> bytes:
    """To a message; within the seconds that a sender waits."""
    begun = time.monotonic()
    at = datetime.now(UTC).strftime("%Y%m%d%H%M%S+0000")
    (answer,) = daemon.send(
        f"MSH|^~\\&|EHR|MAIN|HANDOFF|MAIN|{at}||ADT^A08|A{time.monotonic_ns()}|P|2.5.1\r"
        f"EVN|A08|{at}\rPID|1||4711^^^MRN^MR||Doe^Jane\r"
    )
    assert time.monotonic() - begun < 5
    return answer


def test_while_the_console_stands_still_every_message_is_acknowledged(attacked: Attacked) -> None:
    people = attacked.people
    os.kill(people, signal.SIGSTOP)
    try:
        waiting = socket.create_connection(attacked.address, timeout=30)
        waiting.sendall(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        for _ in range(20):
            assert b"MSA|AA|" in answer_of(attacked.daemon)
    finally:
        os.kill(people, signal.SIGCONT)
    with waiting:
        assert status_of(read(waiting)) in {0, 200}
    assert eventually(lambda: attacked.ask("/api/v1/tasks")[0] == 200)


# --- the port --------------------------------------------------------------------------------------------------------


def test_a_port_of_the_console_that_is_taken_is_said_aloud_at_the_start(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    site: Site = new_site(tmp_path_factory.mktemp("taken") / "site")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        site.edit("config.yaml", (r"port: 0", f"port: {port}"))
        done = site.run("run", code=None)
    assert done.returncode not in {0, None}
    text = done.stdout + done.stderr
    assert f"{port}" in text
    assert "the console" in text
    assert "Traceback" not in text
