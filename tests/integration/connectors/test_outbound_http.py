"""Outbound calls against servers that misbehave on the wire: each ends, and says whether it can have been done."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import requests
from aiohttp import web
from peers.rude_server import RudeServer

from engine.connectors import http
from engine.connectors.http import Answer, CallError, HttpClient, requests_session

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    made = HttpClient(timeout_seconds=60.0, response_bytes_max=10_000)
    yield made
    await made.close()


@pytest.fixture
async def impatient() -> AsyncIterator[HttpClient]:
    """For servers that would never come to an end."""
    made = HttpClient(timeout_seconds=1.0, response_bytes_max=10_000)
    yield made
    await made.close()


async def post(client: HttpClient, url: str, **headers: str) -> Answer:
    return await client.request("POST", url, headers=headers, body=b"{}")


async def failure(client: HttpClient, url: str) -> CallError:
    with pytest.raises(CallError) as caught:
        await post(client, url)
    return caught.value


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
async def test_a_server_that_answers_drop_by_drop_is_given_up_in_time(
    impatient: HttpClient, answer: bytes, drip: bytes
):
    with RudeServer(answer, drip=drip) as server:
        error = await failure(impatient, f"{server.url}/x")
    assert (error.sent, error.timed_out) == (True, True)


async def test_what_drips_in_between_two_calls_is_no_answer_to_the_second():
    client = HttpClient(timeout_seconds=3.0, response_bytes_max=10_000)
    with RudeServer(OK + b"Content-Length: 2\r\n\r\n{}", drip=b"x") as server:
        found: list[Any] = []
        for _ in range(2):
            found += await asyncio.gather(post(client, f"{server.url}/x"), return_exceptions=True)
        assert all(isinstance(one, Answer) or (isinstance(one, CallError) and one.sent) for one in found)
        assert server.connections == 2 or not isinstance(found[1], Answer)
    await client.close()


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
async def test_nonsense_is_an_error_of_the_call_that_was_sent(client: HttpClient, answer: bytes):
    with RudeServer(answer) as server:
        assert (await failure(client, f"{server.url}/x")).sent


async def test_an_answer_is_never_unpacked(client: HttpClient):
    """8 KB of gzip can be 8 MB of answer, and more."""
    packed = gzip.compress(b"0" * 1_000_000)
    head = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    with RudeServer(OK + head + packed) as server:
        assert (await post(client, f"{server.url}/x")).body == packed
        assert b"Accept-Encoding: identity" in server.heads[0]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("through_requests", [False, True])
async def test_a_redirect_carries_nothing_elsewhere(client: HttpClient, status: int, through_requests: bool):
    with RudeServer() as elsewhere:
        head = b"HTTP/1.1 %d Moved\r\nLocation: %s/x\r\nContent-Length: 0\r\n\r\n" % (status, elsewhere.url.encode())
        with RudeServer(head) as server:
            if through_requests:
                session = requests_session(client, asyncio.get_running_loop())
                found = (await asyncio.to_thread(session.post, f"{server.url}/x", data=b"{}")).status_code
            else:
                found = (await post(client, f"{server.url}/x", Authorization="Bearer secret")).status
        assert (found, elsewhere.connections) == (status, 0)


async def test_a_tls_handshake_that_does_not_come_about_has_sent_nothing(impatient: HttpClient):
    with RudeServer(silent=True) as server:
        error = await failure(impatient, f"https://127.0.0.1:{server.port}/x")
    assert (error.sent, error.timed_out) == (False, True)


async def test_the_server_must_show_a_certificate_of_the_authorities_for_its_name(certificate: Path):
    async def take(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    app = web.Application()
    app.router.add_post("/x", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    port = runner.addresses[0][1]
    for host, ca, takes in (
        ("localhost", "cert.pem", True),
        ("127.0.0.1", "cert.pem", False),
        ("localhost", None, False),
    ):
        client = HttpClient(timeout_seconds=20.0, response_bytes_max=100, ca=None if ca is None else certificate / ca)
        if takes:
            assert (await post(client, f"https://{host}:{port}/x")).body == b"ok"
        else:
            error = await failure(client, f"https://{host}:{port}/x")
            assert (error.sent, error.timed_out) == (False, False)
        await client.close()
    await runner.cleanup()


async def test_a_server_that_is_not_there_has_been_sent_nothing(client: HttpClient):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = await failure(client, f"http://127.0.0.1:{port}/x")
    assert (error.sent, error.timed_out) == (False, False)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70 + ".invalid"])
async def test_a_name_that_leads_nowhere_has_been_sent_nothing(client: HttpClient, host: str):
    assert not (await failure(client, f"http://{host}/x")).sent


async def test_the_addresses_of_a_host_are_tried_one_after_the_other(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dead = taken.getsockname()[1]
    with RudeServer(OK + b"Content-Length: 2\r\n\r\n{}") as server:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 0, "")

        async def found(*_args: Any, **_kwargs: Any) -> list[Any]:
            return [(*kind, ("127.0.0.1", dead)), (*kind, ("127.0.0.1", server.port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
        assert (await post(client, f"http://org.example:{server.port}/x")).status == 200


async def test_a_call_after_one_that_failed_uses_another_connection(impatient: HttpClient):
    """What still comes on the old one would be taken for its answer."""
    with RudeServer(drip=b"HTTP/1.1 200 OK\r\nX: ") as server:
        await failure(impatient, f"{server.url}/x")
        server.drip, server.answer = b"", OK + b"Content-Length: 2\r\n\r\n{}"
        assert (await post(impatient, f"{server.url}/x")).body == b"{}"
        assert server.connections == 2


async def test_a_connection_is_kept_for_the_next_call_and_not_for_ever(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
):
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n{}")
                writer.write(OK + b"Content-Length: 2\r\n\r\n{}")
        writer.close()

    monkeypatch.setattr(http, "_IDLE_SECONDS_MAX", 0.2)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    for expected, idle_seconds in ((1, 0.0), (1, 0.4), (2, 0.0)):
        assert (await post(client, url)).status == 200
        assert connections == expected
        await asyncio.sleep(idle_seconds)
    await client.close()
    server.close()


async def test_a_library_of_requests_calls_through_the_client(client: HttpClient):
    session = requests_session(client, asyncio.get_running_loop())
    body = b'{"a": "\xc3\xa4"}'
    with RudeServer(OK + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body) as server:
        answer = await asyncio.to_thread(
            session.patch, f"{server.url}/x?y=1", data=b"[1]", headers={"Authorization": "Bearer t"}
        )
        assert (answer.status_code, answer.json()) == (200, {"a": "ä"})
        head = server.heads[0].lower()
        assert head.startswith(b"patch /x?y=1 http/1.1")
        for line in (b"authorization: bearer t", b"content-length: 3", b"accept-encoding: identity"):
            assert head.count(line) == 1
    with RudeServer(b"nonsense") as server, pytest.raises(requests.ConnectionError) as caught:
        await asyncio.to_thread(session.get, f"{server.url}/x")
    assert isinstance(caught.value.__cause__, CallError)
