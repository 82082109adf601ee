"""TLS 1.2 and later, mutual TLS with the client's name on record, and handshakes that do not end."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from wire import Feed, Sender, adt, code, eventually

from engine.runtime import listener
from engine.runtime.listener import ListenError

MakeFeed = Callable[..., Awaitable[Feed]]


class Authority:
    """A certificate authority of the test."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(name, self._key.public_key(), is_authority=True)
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str | None, alternative: str = "localhost") -> tuple[Path, Path]:
        """Certificate and key files."""
        key = ec.generate_private_key(ec.SECP256R1())
        stem = f"{self.name}-{name or alternative}"
        certificate, secret = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        signed = self._sign(name, key.public_key(), alternative=alternative)
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, secret

    def _sign(
        self, name: str | None, key: ec.EllipticCurvePublicKey, *, is_authority: bool = False, alternative: str = ""
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if alternative:
            names = [x509.DNSName(alternative), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


def tls(authority: Authority, *, mutual: bool = False) -> dict[str, str]:
    certificate, key = authority.issue("server")
    settings = {"cert": str(certificate), "key": str(key)}
    return settings | {"client_ca": str(authority.path)} if mutual else settings


def client(authority: Authority, own: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.path))
    if own is not None:
        context.load_cert_chain(*own)
    return context


async def test_messages_are_taken_over_tls_and_the_answers_come_back(make_feed: MakeFeed, ours: Authority) -> None:
    feed = await make_feed(listen={"tls": tls(ours)})
    sender = await feed.sender(tls=client(ours))
    assert code(await sender.exchange(adt("1") + b"NTE|1||" + b"x" * 300_000 + b"\r")) == "AA"
    assert all(entry.ack_state == "sent" for entry in await feed.settled())


async def test_a_client_without_certificate_is_refused_under_mutual_tls(make_feed: MakeFeed, ours: Authority) -> None:
    feed = await make_feed(listen={"tls": tls(ours, mutual=True)})
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await (await feed.sender(tls=client(ours))).exchange(adt("1"))
    assert feed.entries() == []


async def test_a_client_of_another_authority_is_refused_under_mutual_tls(
    make_feed: MakeFeed, ours: Authority, tmp_path: Path
) -> None:
    feed = await make_feed(listen={"tls": tls(ours, mutual=True)})
    foreign = Authority(tmp_path, "foreign").issue("epic-prod")
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await (await feed.sender(tls=client(ours, foreign))).exchange(adt("1"))
    assert feed.entries() == []


async def test_the_clients_name_is_on_record_under_mutual_tls(make_feed: MakeFeed, ours: Authority) -> None:
    feed = await make_feed(listen={"tls": tls(ours, mutual=True)})
    sender = await feed.sender(tls=client(ours, ours.issue("epic-prod")))
    assert code(await sender.exchange(adt("1"))) == "AA"
    unnamed = await feed.sender(tls=client(ours, ours.issue(None, "lab.example")))
    assert code(await unnamed.exchange(adt("2"))) == "AA"
    first, second = (entry.peer for entry in feed.entries())
    assert first.startswith("127.0.0.1:")
    assert first.endswith(" CN=epic-prod")
    assert second.endswith(" DNS:lab.example")


async def test_tls_before_1_2_is_refused(make_feed: MakeFeed, ours: Authority) -> None:
    feed = await make_feed(listen={"tls": tls(ours)})
    old = client(ours)
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await feed.sender(tls=old)


async def test_tls_1_2_is_spoken(make_feed: MakeFeed, ours: Authority) -> None:
    feed = await make_feed(listen={"tls": tls(ours)})
    context = client(ours)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert code(await (await feed.sender(tls=context)).exchange(adt("1"))) == "AA"


async def test_a_plain_sender_on_a_tls_port_is_closed_and_nothing_is_stored(
    make_feed: MakeFeed, ours: Authority
) -> None:
    feed = await make_feed(listen={"tls": tls(ours)})
    sender = await feed.sender()
    await sender.send(adt("1"))
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await sender.answer()
    assert feed.entries() == []


async def test_a_handshake_that_does_not_end_is_closed(
    make_feed: MakeFeed, ours: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_SECONDS_MAX", 0.3)
    feed = await make_feed(listen={"tls": tls(ours)})
    with socket.create_connection(("127.0.0.1", feed.port), timeout=60) as silent:
        assert await asyncio.to_thread(silent.recv, 1) == b""


async def test_handshakes_beyond_the_limit_are_closed_at_once(
    make_feed: MakeFeed, ours: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_TURNED_AWAY_MAX", 3)
    feed = await make_feed(listen={"tls": tls(ours), "connections_max": 2})
    silent = [socket.create_connection(("127.0.0.1", feed.port), timeout=60) for _ in range(20)]
    await eventually(lambda: feed.counts.connections_refused["too-many"] == 15)
    for sock in silent:
        sock.close()
    await eventually(lambda: feed.counts.connections_refused["handshake"] == 5)
    assert code(await (await feed.sender(tls=client(ours))).exchange(adt("1"))) == "AA"


async def test_no_hands_are_shaken_with_a_peer_outside_of_the_allowed_networks(
    make_feed: MakeFeed, ours: Authority
) -> None:
    feed = await make_feed(listen={"tls": tls(ours), "allow": ["10.0.0.0/8"]})
    with socket.create_connection(("127.0.0.1", feed.port), timeout=60) as sock:
        assert await asyncio.to_thread(sock.recv, 1) == b""
    assert feed.counts.connections_refused["not-allowed"] == 1


async def test_an_authority_that_a_reload_takes_away_is_not_trusted_any_more(
    make_feed: MakeFeed, ours: Authority, tmp_path: Path
) -> None:
    feed = await make_feed(listen={"tls": tls(ours, mutual=True)})
    own = ours.issue("epic-prod")
    assert code(await (await feed.sender(tls=client(ours, own))).exchange(adt("1"))) == "AA"
    settings = tls(ours, mutual=True) | {"client_ca": str(Authority(tmp_path, "next").path)}
    listen = feed.channel.listen.model_copy(update={"tls": type(feed.channel.listen.tls)(**settings)})
    feed.listener.reconfigure(feed.channel.model_copy(update={"listen": listen}))
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await (await feed.sender(tls=client(ours, own))).exchange(adt("2"))
    assert len(feed.entries()) == 1


async def test_the_connection_too_many_is_told_over_tls_too(make_feed: MakeFeed, ours: Authority) -> None:
    feed = await make_feed(listen={"tls": tls(ours), "connections_max": 1})
    await (await feed.sender(tls=client(ours))).exchange(adt("1"))
    assert code(await (await feed.sender(tls=client(ours))).answer()) == "AR"


async def test_draining_answers_over_tls_too(make_feed: MakeFeed, ours: Authority) -> None:
    feed = await make_feed(listen={"tls": tls(ours)}, ack={"when": "processed"})
    sender = await feed.sender(tls=client(ours))
    await sender.send(adt("1"))
    await eventually(feed.entries)
    draining = asyncio.create_task(feed.listener.drain(60))
    await feed.process()
    assert code(await sender.answer()) == "AA"
    assert await sender.closed()
    sender.close()
    assert await draining


@pytest.mark.parametrize("rounds", range(6))
async def test_a_handshake_that_is_under_way_as_a_drain_begins_is_closed(
    make_feed: MakeFeed, ours: Authority, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_SECONDS_MAX", 60.0)
    feed = await make_feed(listen={"tls": tls(ours)})
    with socket.create_connection(("127.0.0.1", feed.port)) as sock:
        for _ in range(rounds):
            await asyncio.sleep(0)
        draining = asyncio.create_task(feed.listener.drain(60))
        silent = Sender(*await asyncio.open_connection(sock=sock))
        assert await silent.closed(listener.HANDSHAKE_SECONDS_MAX / 2)
        silent.abort()
        assert await draining


async def test_a_renewed_certificate_is_used_for_new_connections_and_open_ones_stay(
    make_feed: MakeFeed, ours: Authority, tmp_path: Path
) -> None:
    feed = await make_feed(listen={"tls": tls(ours)})
    old = await feed.sender(tls=client(ours))
    await old.exchange(adt("1"))
    renewed = Authority(tmp_path, "renewed")
    channel = feed.channel.model_copy(
        update={"listen": feed.channel.listen.model_copy(update={"tls": type(feed.channel.listen.tls)(**tls(renewed))})}
    )
    assert feed.listener.serves_like(channel)
    feed.listener.reconfigure(channel)
    assert code(await (await feed.sender(tls=client(renewed))).exchange(adt("2"))) == "AA"
    assert code(await old.exchange(adt("3"))) == "AA"
    with pytest.raises(ssl.SSLError):
        await feed.sender(tls=client(ours))


async def test_certificates_that_cannot_be_used_are_an_error_that_names_the_channel(
    make_feed: MakeFeed, tmp_path: Path
) -> None:
    with pytest.raises(ListenError, match="channel adt"):
        await make_feed(listen={"tls": {"cert": str(tmp_path / "none.pem"), "key": str(tmp_path / "none.key")}})
