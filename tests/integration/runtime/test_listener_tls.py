"""TLS 1.2 and later, mutual TLS with the client's name on record, and handshakes that do not end."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import io
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from wire import Feed, Sender, adt, code, eventually

from engine.runtime import listener
from engine.runtime.listener import ListenError
from engine.settings import Channel

MakeFeed = Callable[..., Awaitable[Feed]]


class Authority:
    """A certificate authority of the test."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(name, self._key.public_key(), is_authority=True)
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str | None, alternative: str = "localhost", *, uri: str = "", days: float = 1
    ) -> tuple[Path, Path]:
        """Certificate and key files."""
        key = ec.generate_private_key(ec.SECP256R1())
        stem = f"{self.name}-{name or alternative}-{days}"
        certificate, secret = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        signed = self._sign(name, key.public_key(), alternative=alternative, uri=uri, days=days)
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, secret

    def revoke(self, *certificates: Path, days: float = 1) -> Path:
        """The list of revoked certificates, valid for so long."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]),
            last_update=now - datetime.timedelta(days=2),
            next_update=now + datetime.timedelta(days=days),
        )
        for path in certificates:
            serial = x509.load_pem_x509_certificate(path.read_bytes()).serial_number
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            builder = builder.add_revoked_certificate(revoked)
        path = self.folder / f"{self.name}-{len(certificates)}-{days}.crl"
        path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path

    def _sign(
        self,
        name: str | None,
        key: ec.EllipticCurvePublicKey,
        *,
        is_authority: bool = False,
        alternative: str = "",
        uri: str = "",
        days: float = 1,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if alternative:
            names: list[x509.GeneralName] = [x509.DNSName(alternative)]
            names += [x509.UniformResourceIdentifier(uri)] if uri else []
            names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


def tls(authority: Authority, *, mutual: bool = False, **more: Any) -> dict[str, Any]:
    certificate, key = authority.issue("server")
    settings = {"cert": str(certificate), "key": str(key)}
    return settings | ({"client_ca": str(authority.path)} if mutual else {}) | more


def reconfigured(feed: Feed, **listen: Any) -> Channel:
    """A later version of the feed's channel, whose `listen` has these keys."""
    document = feed.channel.model_dump(mode="json")
    return Channel.model_validate_json(msgspec.json.encode(document | {"listen": document["listen"] | listen}))


REFUSED = (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError, TimeoutError)


async def refused(feed: Feed, context: ssl.SSLContext | None) -> None:
    with pytest.raises(REFUSED):
        await (await feed.sender(tls=context)).exchange(adt("refused"))


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


async def test_with_1_3_as_the_least_version_1_2_is_refused(make_feed: MakeFeed, ours: Authority) -> None:
    feed = await make_feed(listen={"tls": tls(ours) | {"minimum": 1.3}})
    context = client(ours)
    assert code(await (await feed.sender(tls=context)).exchange(adt("1"))) == "AA"
    context = client(ours)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    await refused(feed, context)


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
    await eventually(lambda: feed.counts.connections_refused["handshake-broken-off"] == 5)
    assert code(await (await feed.sender(tls=client(ours))).exchange(adt("1"))) == "AA"


async def test_no_hands_are_shaken_with_a_peer_outside_of_the_allowed_networks(
    make_feed: MakeFeed, ours: Authority
) -> None:
    feed = await make_feed(listen={"tls": tls(ours), "allow": ["10.0.0.0/8"]})
    with socket.create_connection(("127.0.0.1", feed.port), timeout=60) as sock:
        assert await asyncio.to_thread(sock.recv, 1) == b""
    assert feed.counts.connections_refused["not-in-allow-list"] == 1


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


def fingerprint(certificate: Path) -> str:
    der = x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(serialization.Encoding.DER)
    return hashlib.sha256(der).hexdigest()


@pytest.mark.parametrize(
    "name",
    [
        "CN:epic-prod",
        "CN=epic-prod",
        "epic-prod",
        "DNS:EPIC.example",
        "epic.example",
        "URI:urn:epic:prod",
        "urn:epic:prod",
    ],
)
async def test_only_certificates_of_the_channels_names_may_send(
    make_feed: MakeFeed, ours: Authority, name: str, log: io.StringIO
) -> None:
    feed = await make_feed(listen={"tls": tls(ours, mutual=True, client_names=["CN:somebody", name])})
    by_common_name = name.endswith("epic-prod")  # counts only where there is no DNS name
    own = ours.issue("epic-prod", "" if by_common_name else "epic.example", uri="urn:epic:prod")
    assert code(await (await feed.sender(tls=client(ours, own))).exchange(adt("1"))) == "AA"
    await refused(feed, client(ours, ours.issue("lab", "lab.example", uri="urn:lab")))
    assert feed.counts.connections_refused["client-name"] == 1
    assert '"reason": "client-name"' in log.getvalue()
    assert len(feed.entries()) == 1


async def test_a_certificate_may_be_named_by_its_fingerprint(make_feed: MakeFeed, ours: Authority) -> None:
    own, other = ours.issue("epic-prod"), ours.issue("lab")
    digest = fingerprint(own[0]).upper()
    colons = ":".join(digest[at : at + 2] for at in range(0, 64, 2))
    for written in (digest, colons):
        feed = await make_feed(listen={"tls": tls(ours, mutual=True, client_names=[f"SHA256:{written}"])})
        assert code(await (await feed.sender(tls=client(ours, own))).exchange(adt("1"))) == "AA"
        await refused(feed, client(ours, other))


async def test_a_revoked_certificate_is_refused_and_a_list_that_is_too_old_refuses_all(
    make_feed: MakeFeed, ours: Authority, log: io.StringIO
) -> None:
    good, bad = ours.issue("epic-prod"), ours.issue("stolen")
    feed = await make_feed(listen={"tls": tls(ours, mutual=True, crl=str(ours.revoke(bad[0])))})
    assert code(await (await feed.sender(tls=client(ours, good))).exchange(adt("1"))) == "AA"
    await refused(feed, client(ours, bad))
    await eventually(lambda: feed.counts.connections_refused["certificate-revoked"] == 1)
    feed.listener.reconfigure(reconfigured(feed, tls=tls(ours, mutual=True, crl=str(ours.revoke(days=-1)))))
    await refused(feed, client(ours, good))
    await eventually(lambda: feed.counts.connections_refused["crl-expired"] == 1)


@pytest.mark.parametrize("change", ["allow", "names", "fingerprint", "crl", "ca"])
async def test_who_would_not_be_let_in_after_a_reload_gets_the_answers_and_is_closed_and_others_stay(
    make_feed: MakeFeed, ours: Authority, tmp_path: Path, change: str, log: io.StringIO
) -> None:
    foreign = Authority(tmp_path, "foreign")
    both = tmp_path / "both.pem"
    both.write_bytes(ours.path.read_bytes() + foreign.path.read_bytes())
    own, other = ours.issue("epic-prod", ""), foreign.issue("lab")
    certificates = tls(ours, mutual=True, client_ca=str(both))
    feed = await make_feed(listen={"tls": certificates})
    stays, goes = await feed.sender(tls=client(ours, own)), await feed.sender(tls=client(ours, other))
    assert code(await stays.exchange(adt("1"))) == "AA"
    assert code(await goes.exchange(adt("2"))) == "AA"
    changed = {
        "allow": {"allow": ["10.0.0.0/8"]},
        "names": {"tls": certificates | {"client_names": ["CN:epic-prod"]}},
        "fingerprint": {"tls": certificates | {"client_names": [f"SHA256:{fingerprint(own[0])}"]}},
        "crl": {"tls": certificates | {"crl": str(_joined(tmp_path, ours.revoke(), foreign.revoke(other[0])))}},
        "ca": {"tls": tls(ours, mutual=True)},
    }[change]
    feed.listener.reconfigure(reconfigured(feed, **changed))
    assert await goes.closed()
    if change == "allow":
        assert await stays.closed()
    else:
        assert code(await stays.exchange(adt("3"))) == "AA"
    assert '"event": "connection closed"' in log.getvalue()


def _joined(folder: Path, *files: Path) -> Path:
    path = folder / "joined.crl"
    path.write_bytes(b"".join(file.read_bytes() for file in files))
    return path


async def test_a_reload_that_takes_nothing_away_closes_nobody(make_feed: MakeFeed, ours: Authority) -> None:
    feed = await make_feed(listen={"tls": tls(ours, mutual=True)})
    sender = await feed.sender(tls=client(ours, ours.issue("epic-prod")))
    assert code(await sender.exchange(adt("1"))) == "AA"
    feed.listener.reconfigure(reconfigured(feed, allow=["127.0.0.1"], connections_max=1))
    assert code(await sender.exchange(adt("2"))) == "AA"


async def test_a_connection_ends_with_its_certificate(make_feed: MakeFeed, ours: Authority) -> None:
    feed = await make_feed(listen={"tls": tls(ours, mutual=True), "idle_seconds_max": 3600})
    sender = await feed.sender(tls=client(ours, ours.issue("epic-prod", days=3 / 86_400)))
    assert code(await sender.exchange(adt("1"))) == "AA"
    assert await sender.closed()
    assert feed.counts.connections_closed["certificate-expired"] == 1


async def test_tls_1_2_has_authenticated_ciphers_only(make_feed: MakeFeed, ours: Authority) -> None:
    feed = await make_feed(listen={"tls": tls(ours)})
    context = client(ours)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AES:!AESGCM:!AESCCM")
    await refused(feed, context)
    await eventually(lambda: feed.counts.connections_refused["no-shared-cipher"] == 1)


@pytest.mark.parametrize(
    ("attempt", "reason"),
    [
        ("plain", "plain-text-on-tls-port"),
        ("http", "plain-text-on-tls-port"),
        ("none", "no-client-certificate"),
        ("foreign", "unknown-ca"),
        ("expired", "certificate-expired"),
        ("old", "tls-version"),
        ("distrust", "our-certificate-refused"),
        ("close", "handshake-broken-off"),
    ],
)
async def test_who_could_not_connect_is_named_with_the_reason(
    make_feed: MakeFeed, ours: Authority, tmp_path: Path, log: io.StringIO, attempt: str, reason: str
) -> None:
    feed = await make_feed(listen={"tls": tls(ours, mutual=True)})
    foreign = Authority(tmp_path, "foreign")
    own = ours.issue("epic-prod")
    if attempt in {"plain", "http", "close"}:
        sender = await feed.sender()
        await sender.write(
            {"plain": b"\x0b" + adt("1") + b"\x1c\r", "http": b"GET / HTTP/1.1\r\n\r\n", "close": b""}[attempt]
        )
        sender.close()
    elif attempt == "distrust":  # not asyncio's client: it says no word about it
        with socket.create_connection(("127.0.0.1", feed.port), timeout=60) as sock, pytest.raises(ssl.SSLError):
            await asyncio.to_thread(client(foreign, own).wrap_socket, sock, server_hostname="localhost")
    elif attempt == "old":
        context = client(ours, own)
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        await refused(feed, context)
    else:
        await refused(
            feed,
            {
                "none": lambda: client(ours),
                "foreign": lambda: client(ours, foreign.issue("epic-prod")),
                "expired": lambda: client(ours, ours.issue("old", days=-1)),
            }[attempt](),
        )
    await eventually(lambda: feed.counts.connections_refused.total() == 1)
    assert dict(feed.counts.connections_refused) == {reason: 1}
    line = next(line for line in log.getvalue().splitlines() if "connection refused" in line)
    assert f'"reason": "{reason}"' in line
    assert '"channel": "adt"' in line
    assert '"peer": "127.0.0.1"' in line


async def test_tls_on_a_plain_port_is_named(make_feed: MakeFeed, ours: Authority, log: io.StringIO) -> None:
    feed = await make_feed()
    with pytest.raises(REFUSED):
        await feed.sender(tls=client(ours))
    assert feed.counts.connections_refused["tls-on-plain-port"] == 1
    assert feed.entries() == []


async def test_silent_handshakes_of_one_peer_make_room_for_others(
    make_feed: MakeFeed, ours: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_TURNED_AWAY_MAX", 3)
    monkeypatch.setattr(listener, "_SILENT_HANDSHAKE_SECONDS", 0.2)
    feed = await make_feed(listen={"tls": tls(ours), "connections_max": 8, "connections_per_peer_max": 4})
    silent = [socket.create_connection(("127.0.0.1", feed.port), timeout=60) for _ in range(20)]
    await eventually(lambda: feed.counts.connections_refused["too-many-of-peer"] == 13)
    other = await feed.sender(tls=client(ours), local_addr=("127.0.0.2", 0))
    assert code(await other.exchange(adt("1"))) == "AA"
    await asyncio.sleep(0.25)
    assert code(await (await feed.sender(tls=client(ours))).exchange(adt("2"))) == "AA"
    for sock in silent:
        sock.close()
