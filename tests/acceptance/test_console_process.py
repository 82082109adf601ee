"""The process that serves people, beside a real daemon: acts reach the worker, and nothing hangs on it."""

from __future__ import annotations

import json
import os
import signal
import ssl
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from harness import Daemon, MakeDaemon, Site, eventually

FIRST = "channels/examples/first-message.hl7"
ACCESS = "\naccess: {provider: local, roles: mappings/access/roles.yaml}\n"


def ask(
    daemon: Daemon, path: str, token: str | None = None, *, body: Any = None, context: ssl.SSLContext | None = None
) -> tuple[int, Any]:
    console = daemon.status["console"]
    url = f"{'https' if context else 'http'}://{console['host']}:{console['port']}{path}"
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method="GET" if body is None else "POST")
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return int(answer.status), json.loads(answer.read())
    except urllib.error.HTTPError as error:
        text = error.read()
        return error.code, json.loads(text) if text.startswith(b"{") else None


@pytest.fixture
def guarded(site: Site) -> tuple[Site, str]:
    """A site with accounts, and the token of one that may do everything."""
    site.config.write_text(site.config.read_text() + ACCESS)
    site.run("db", "migrate")
    site.run("users", "add", "svc", "--role", "admin", "--service")
    return site, site.json("users", "token", "svc", "--scope", "all", "--until", "1d")["token"]


def test_an_act_reaches_the_worker_and_a_process_that_dies_takes_nothing_with_it(
    guarded: tuple[Site, str], make_daemon: MakeDaemon
) -> None:
    site, token = guarded
    daemon = make_daemon(site)
    assert ask(daemon, "/readyz")[1]["ready"]  # from its start on, whoever answers
    site.run("send", f"127.0.0.1:{daemon.port()}", FIRST, "--shift-to-now")
    tasks = eventually(lambda: ask(daemon, "/api/v1/tasks", token)[1].get("items"))
    assert ask(daemon, "/api/v1/tasks")[0] == 401
    path = f"/api/v1/tasks/{tasks[0]['id']}"
    status, shape = ask(daemon, f"{path}/assign", token, body={"assignee": "lee"})
    assert (status, shape.get("assignee")) == (200, "lee"), shape

    dead = ask(daemon, "/api/v1/status")[1]["console"]
    os.kill(dead["pid"], signal.SIGKILL)
    until = time.monotonic() + 60
    seen: set[int] = set()
    while time.monotonic() < until:
        for health in ("/healthz", "/readyz", "/api/v1/status"):
            assert ask(daemon, health)[0] == 200
        status = ask(daemon, path, token)[0]
        seen.add(status)
        if status == 200:
            break
        time.sleep(0.1)
    assert seen <= {200, 503}
    born = ask(daemon, "/api/v1/status")[1]["console"]
    assert (born["restarts"], born["pid"] != dead["pid"], born["port"]) == (1, True, dead["port"])

    # A leaver is out with the next request; so is everybody once the site has no accounts.
    site.run("users", "disable", "svc")
    assert ask(daemon, path, token)[0] == 401
    site.config.write_text(site.config.read_text().replace(ACCESS, ""))
    site.run("reload")
    assert eventually(lambda: ask(daemon, path, token)[0] == 404)
    assert ask(daemon, "/api/v1/status")[1]["console"]["pid"] is None
    assert daemon.stop() == 0


def certificate(folder: Path) -> Path:
    """Of 127.0.0.1; its key beside it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "console of a test")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "console.pem").write_bytes(made.public_bytes(Encoding.PEM))
    private = folder / "console.key"
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "console.pem"


def test_with_tls_both_processes_and_the_commands_speak_it(guarded: tuple[Site, str], make_daemon: MakeDaemon) -> None:
    site, token = guarded
    context = ssl.create_default_context(cafile=str(certificate(site.folder)))
    site.edit("config.yaml", (r"port: 0\}", "port: 0, tls: {cert: console.pem, key: console.key}}"))
    site.run("check")
    daemon = make_daemon(site)
    assert ask(daemon, "/readyz", context=context)[0] == 200  # by the main process, or by its console
    assert eventually(lambda: ask(daemon, "/api/v1/tasks", token, context=context)[0] == 200)
    with pytest.raises(OSError, match=r"reset|closed|disconnected"):
        ask(daemon, "/api/v1/tasks", token)
    assert site.json("status")["console"]["pid"] is not None  # the command was told by the process, over TLS
    assert daemon.stop() == 0
