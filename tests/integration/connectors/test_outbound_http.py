"""Outbound calls against servers that misbehave on the wire: each ends, and says whether it can have been done."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator

import pytest
import requests
from peers.rude_server import RudeServer

from engine.connectors.http import Session

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def session() -> Iterator[Session]:
    made = Session(timeout_seconds=60.0, response_bytes_max=10_000)
    yield made
    made.close()


@pytest.fixture
def impatient() -> Iterator[Session]:
    """For servers that would never come to an end."""
    made = Session(timeout_seconds=1.0, response_bytes_max=10_000)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("answer", "drip"),
    [
        (b"", b"HTTP/1.1 200 OK\r\nX-Filler: " + b"x" * 1000),
        (OK, b"X-A: b\r\n"),
        (OK + b"Content-Length: 5000\r\n\r\n", b"x"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (OK + b"\r\n", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["status line", "headers", "body", "chunks", "body without end", "continue"],
)
def test_a_server_that_answers_drop_by_drop_is_given_up_in_time(impatient: Session, answer: bytes, drip: bytes):
    with RudeServer(answer, drip=drip) as server, pytest.raises(requests.ReadTimeout):
        impatient.post(f"{server.url}/x", data=b"{}")
    assert impatient.sent


def test_a_call_on_a_connection_kept_alive_ends_in_time_too():
    session = Session(timeout_seconds=3.0, response_bytes_max=10_000)
    with RudeServer(OK + b"Content-Length: 2\r\n\r\n{}", drip=b"x") as server:
        assert session.post(f"{server.url}/x", data=b"{}").status_code == 200
        # What drips in between tells urllib3 to take a new connection, if it comes early enough; that one answers.
        try:
            answered = session.post(f"{server.url}/x", data=b"{}").status_code == 200
        except requests.RequestException:
            answered = False
        assert answered is (server.connections == 2)
    assert session.sent
    session.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\r\n\r\n",
        b"\xff\xfe\x00" * 50,
        b"<html>hello</html>",
        b"HTTP/9.9 -1 \r\n\r\n",
        OK + b"X: " + b"x" * 100_000 + b"\r\n\r\n",
        OK + b"X: y\r\n" * 500 + b"\r\n",
        OK + b"Content-Length: 500\r\n\r\nshort",
        OK + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        OK + b"Content-Length: 20000\r\n\r\n" + b"x" * 20_000,
    ],
    ids=["nothing", "blank", "binary", "html", "status", "header", "headers", "short", "chunk", "cut", "huge"],
)
def test_nonsense_is_an_error_of_the_call_that_was_sent(session: Session, answer: bytes):
    with RudeServer(answer) as server, pytest.raises(requests.RequestException):
        session.post(f"{server.url}/x", data=b"{}")
    assert session.sent


def test_an_answer_is_never_unpacked(session: Session):
    """8 KB of gzip can be 8 MB of answer, and more."""
    packed = gzip.compress(b"0" * 1_000_000)
    head = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    with RudeServer(OK + head + packed) as server:
        assert session.get(f"{server.url}/x").content == packed
        assert b"Accept-Encoding: identity" in server.heads[0]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_carries_nothing_elsewhere(session: Session, status: int):
    with RudeServer() as elsewhere:
        head = b"HTTP/1.1 %d Moved\r\nLocation: %s/x\r\nContent-Length: 0\r\n\r\n" % (status, elsewhere.url.encode())
        with RudeServer(head) as server:
            answer = session.post(f"{server.url}/x", data=b"{}", headers={"Authorization": "Bearer secret"})
        assert (answer.status_code, elsewhere.connections) == (status, 0)


def test_a_tls_handshake_that_does_not_come_about_has_sent_nothing(impatient: Session):
    with RudeServer(silent=True) as server, pytest.raises(requests.RequestException):
        impatient.post(f"https://127.0.0.1:{server.port}/x", data=b"{}")
    assert not impatient.sent


def test_a_server_that_is_not_there_has_been_sent_nothing(session: Session):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(requests.ConnectionError):
        session.post(f"http://127.0.0.1:{port}/x", data=b"{}")
    assert not session.sent


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70 + ".invalid"])
def test_a_name_that_leads_nowhere_has_been_sent_nothing(session: Session, host: str):
    with pytest.raises(requests.RequestException):
        session.post(f"http://{host}/x", data=b"{}")
    assert not session.sent


def test_the_addresses_of_a_host_are_tried_one_after_the_other(session: Session, monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dead = taken.getsockname()[1]
    with RudeServer(OK + b"Content-Length: 2\r\n\r\n{}") as server:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
        found = [(*kind, ("127.0.0.1", dead)), (*kind, ("127.0.0.1", server.port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: found)
        assert session.post("http://org.example/x", data=b"{}").status_code == 200
