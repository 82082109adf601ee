"""The sender against receivers that follow a script, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from engine.domain.message import AckCode
from engine.errors import DeliveryError, DeliveryFailure
from engine.hl7v2.ack import Verdict, acknowledge
from engine.hl7v2.batch import answer, messages_in, split
from engine.hl7v2.header import HeaderError, read_header
from engine.hl7v2.mllp import COMMIT_ACK, FrameDecoder, wrap
from engine.simulator.sender import Sender, Tls

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
Write = Callable[[bytes], None]
Script = Callable[[bytes, Write], Awaitable[None]]


class Receiver:
    """Hands each frame to the script, and remembers what came on which connection."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.received: list[tuple[int, bytes]] = []
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = self.connections
        decoder = FrameDecoder(1 << 20)
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                for frame in decoder.feed(data):
                    self.received.append((connection, frame.payload))
                    await self._script(frame.payload, writer.write)
        writer.close()


@asynccontextmanager
async def receiver(script: Script) -> AsyncIterator[Receiver]:
    peer = Receiver(script)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()


@asynccontextmanager
async def sender(peer: Receiver, *, timeout_seconds: float = 60.0) -> AsyncIterator[Sender]:
    client = Sender("127.0.0.1", peer.port, timeout_seconds=timeout_seconds)
    try:
        yield client
    finally:
        await client.close()


def message(control_id: str, *, accept: str = "", application: str = "") -> bytes:
    return (
        f"MSH|^~\\&|A|B|C|D|20260302||ADT^A01^ADT_A01|{control_id}|P|2.5.1|||{accept}|{application}\rPID|1\r".encode()
    )


def ack(payload: bytes, code: AckCode = AckCode.AA, *, error: str = "") -> bytes:
    verdict = Verdict(code=code, error=error, hl7_code=207 if error else 0)
    try:
        header = read_header(payload)
    except HeaderError as unreadable:
        header = unreadable.header
    return acknowledge(header, verdict, now=NOW, control_id="R1")


async def agree(payload: bytes, write: Write) -> None:
    write(wrap(ack(payload)))


async def test_an_answer_is_credited_when_msa_2_is_the_control_id() -> None:
    async with receiver(agree) as peer, sender(peer) as client:
        for number in range(3):
            reply = await client.send(message(f"M{number}"))
            assert reply.accepted
            assert reply.control_id == f"M{number}".encode()
            assert reply.ack is not None
            assert reply.ack.code is AckCode.AA
            assert read_header(reply.payload).type == "ACK^A01"
        assert peer.connections == 1


@pytest.mark.parametrize("code", [AckCode.AE, AckCode.AR, AckCode.CE, AckCode.CR])
async def test_a_refusal_is_an_answer_and_not_a_success(code: AckCode) -> None:
    async def refuse(payload: bytes, write: Write) -> None:
        write(wrap(ack(payload, code)))

    async with receiver(refuse) as peer, sender(peer) as client:
        reply = await client.send(message("M1"))
        assert not reply.accepted
        assert reply.ack is not None
        assert reply.ack.code is code


@pytest.mark.parametrize(
    ("answer_bytes", "error"),
    [
        (wrap(ack(message("OTHER"))), "foreign-answer"),
        (wrap(ack(message("M1 "))), "foreign-answer"),
        (wrap(b"MSH|^~\\&|C|D|A|B|20260302||ACK|1|P|2.5.1\rMSA|AA|\r"), "foreign-answer"),
        (wrap(b"MSH|^~\\&|C|D|A|B|20260302||ACK|1|P|2.5.1\rMSA|AR|\r"), "refused"),
        (wrap(b"MSH|^~\\&|C|D|A|B|20260302||ACK|1|P|2.5.1\rMSA|XX|M1\r"), "not-an-answer"),
        (wrap(message("M1")), "not-an-answer"),
        (wrap(b"AA M1"), "not-an-answer"),
        (wrap(b""), "not-an-answer"),
    ],
    ids=["other id", "id and a blank", "no id", "refused without id", "no such code", "a message", "a text", "nothing"],
)
async def test_what_is_not_this_messages_answer_is_no_success_and_ends_the_connection(
    answer_bytes: bytes, error: str
) -> None:
    async def script(payload: bytes, write: Write) -> None:
        write(answer_bytes if len(peer.received) == 1 else wrap(ack(payload)))

    async with receiver(script) as peer, sender(peer) as client:
        with pytest.raises(DeliveryError) as caught:
            await client.send(message("M1"))
        assert caught.value.error == error
        assert caught.value.kind is DeliveryFailure.AMBIGUOUS
        assert (await client.send(message("M2"))).accepted
        assert [connection for connection, _ in peer.received] == [1, 2]


async def test_a_late_answer_is_never_credited_to_the_next_message() -> None:
    late: list[Write] = []

    async def script(payload: bytes, write: Write) -> None:
        if read_header(payload).control_id == "M1":
            late.append(write)
            return
        late[0](wrap(ack(message("M1"))))
        late[0](wrap(ack(message("M2"))))  # even an answer that would fit, on the connection that was given up
        await asyncio.sleep(0.05)
        write(wrap(ack(payload, AckCode.AE)))

    async with receiver(script) as peer, sender(peer, timeout_seconds=1.0) as client:
        with pytest.raises(DeliveryError) as caught:
            await client.send(message("M1"))
        assert caught.value.error == "timeout"
        reply = await client.send(message("M2"))
        assert reply.ack is not None
        assert reply.ack.code is AckCode.AE


async def test_an_answer_nobody_waits_for_ends_the_connection_before_the_next_message() -> None:
    async def twice(payload: bytes, write: Write) -> None:
        write(wrap(ack(payload)) + wrap(ack(message("M2"))))

    async with receiver(twice) as peer, sender(peer) as client:
        assert (await client.send(message("M1"))).accepted
        with contextlib.suppress(DeliveryError):
            await client.send(message("M2"))
        assert peer.connections <= 2
        assert [connection for connection, payload in peer.received if b"|M2|" in payload] in ([], [2])


async def test_a_connection_closed_without_an_answer_is_ambiguous_and_made_anew() -> None:
    async def script(payload: bytes, write: Write) -> None:
        if len(peer.received) == 1:
            raise ConnectionResetError
        write(wrap(ack(payload)))

    async with receiver(script) as peer, sender(peer) as client:
        with pytest.raises(DeliveryError) as caught:
            await client.send(message("M1"))
        assert (caught.value.error, caught.value.kind) == ("closed", DeliveryFailure.AMBIGUOUS)
        assert (await client.send(message("M1"))).accepted


async def test_an_unreachable_receiver_is_transient() -> None:
    async with receiver(agree) as peer:
        port = peer.port
    client = Sender("127.0.0.1", port, timeout_seconds=60)
    with pytest.raises(DeliveryError) as caught:
        await client.send(message("M1"))
    assert (caught.value.error, caught.value.kind) == ("unreachable", DeliveryFailure.TRANSIENT)


async def test_an_answer_may_come_in_pieces_and_without_its_last_byte() -> None:
    async def drip(payload: bytes, write: Write) -> None:
        for byte in wrap(ack(payload))[:-1]:
            write(bytes([byte]))
            await asyncio.sleep(0)

    async with receiver(drip) as peer, sender(peer) as client:
        assert (await client.send(message("M1"))).accepted
        assert (await client.send(message("M2"))).accepted


async def test_in_enhanced_mode_both_answers_are_waited_for() -> None:
    async def both(payload: bytes, write: Write) -> None:
        write(wrap(ack(payload, AckCode.CA)))
        await asyncio.sleep(0.02)
        write(wrap(ack(payload, AckCode.AE)))

    async with receiver(both) as peer, sender(peer) as client:
        reply = await client.send(message("M1", accept="AL", application="AL"))
        assert reply.accept is not None
        assert reply.application is not None
        assert (reply.accept.code, reply.application.code) == (AckCode.CA, AckCode.AE)
        assert not reply.accepted


async def test_an_application_answer_that_takes_another_way_is_not_missed() -> None:
    async def accept(payload: bytes, write: Write) -> None:
        write(wrap(ack(payload, AckCode.CA)))

    async with receiver(accept) as peer, sender(peer, timeout_seconds=1.0) as client:
        reply = await client.send(message("M1", accept="AL", application="AL"))
        assert reply.accepted
        assert reply.application is None


async def test_an_application_answer_of_an_earlier_message_does_not_disturb() -> None:
    async def script(payload: bytes, write: Write) -> None:
        if len(peer.received) == 2:
            write(wrap(ack(message("M1"))))
        write(wrap(ack(payload, AckCode.CA)))

    async with receiver(script) as peer, sender(peer) as client:
        assert (await client.send(message("M1", accept="AL", application="SU"))).accepted
        assert (await client.send(message("M2", accept="AL", application="SU"))).accepted
        assert peer.connections == 1


async def test_a_message_that_wants_no_answer_is_not_waited_for() -> None:
    async def silence(_payload: bytes, _write: Write) -> None:
        return

    async with receiver(silence) as peer, sender(peer, timeout_seconds=60) as client:
        reply = await client.send(message("M1", accept="NE", application="NE"))
        assert reply.ack is None
        assert reply.accepted


async def test_a_message_that_cannot_be_read_may_be_answered_without_its_id() -> None:
    async def refuse(payload: bytes, write: Write) -> None:
        write(wrap(ack(payload, AckCode.AR)))

    async with receiver(refuse) as peer, sender(peer) as client:
        reply = await client.send(b"no message\r")
        assert reply.ack is not None
        assert reply.ack.code is AckCode.AR
        assert not reply.accepted


async def test_a_batch_answered_message_by_message_has_a_reply_each() -> None:
    batch = b"BHS|^~\\&|A\r" + message("M1") + message("M2") + b"BTS|2\r"

    async def each(payload: bytes, write: Write) -> None:
        first, second = messages_in(payload)
        write(wrap(ack(first)) + wrap(ack(second, AckCode.AE)))

    async with receiver(each) as peer, sender(peer) as client:
        replies = await client.send_batch(batch)
        assert [reply.accepted for reply in replies] == [True, False]
        assert [payload for _, payload in peer.received] == [batch]


async def test_a_batch_answered_in_one_frame_has_a_reply_each() -> None:
    async def once(payload: bytes, write: Write) -> None:
        batch = split(payload)
        assert batch is not None
        acks = [ack(part, code) for part, code in zip(batch.messages, (AckCode.AE, AckCode.AA), strict=True)]
        write(wrap(answer(batch, acks, now=NOW, control_id="R1")))

    async with receiver(once) as peer, sender(peer) as client:
        replies = await client.send_batch(b"BHS|^~\\&|A\r" + message("M1") + message("M2") + b"BTS|2\r")
        assert [reply.accepted for reply in replies] == [False, True]


async def test_a_message_with_framing_bytes_is_not_sent() -> None:
    async with receiver(agree) as peer, sender(peer) as client:
        with pytest.raises(DeliveryError) as caught:
            await client.send(message("M1") + b"\x1c\r")
        assert caught.value.kind is DeliveryFailure.PERMANENT
        assert peer.received == []


async def test_commit_blocks_of_mllp_release_2_are_no_answer() -> None:
    async def commit(payload: bytes, write: Write) -> None:
        write(COMMIT_ACK + wrap(ack(payload)))

    async with receiver(commit) as peer, sender(peer) as client:
        assert (await client.send(message("M1"))).accepted


async def test_a_pipeline_keeps_at_most_its_window_unanswered_and_replies_in_order() -> None:
    waiting: list[bytes] = []
    most = 0

    async def in_groups(payload: bytes, write: Write) -> None:
        nonlocal most
        waiting.append(payload)
        most = max(most, len(waiting))
        if len(waiting) == 4:
            for each in waiting:
                write(wrap(ack(each)))
            waiting.clear()

    async with receiver(in_groups) as peer, sender(peer) as client:
        payloads = [message(f"M{number}") for number in range(20)]
        replies = [reply async for reply in client.pipeline(payloads, window=4)]
        assert [reply.control_id for reply in replies] == [f"M{number}".encode() for number in range(20)]
        assert all(reply.accepted for reply in replies)
        assert most == 4


async def test_cancelling_a_send_ends_the_connection_so_that_its_answer_finds_nobody() -> None:
    cancelled = asyncio.Event()

    async def slow(payload: bytes, write: Write) -> None:
        await cancelled.wait()
        write(wrap(ack(payload)))

    async with receiver(slow) as peer, sender(peer) as client:
        sending = asyncio.create_task(client.send(message("M1")))
        while not peer.received:
            await asyncio.sleep(0.01)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        cancelled.set()
        assert (await client.send(message("M2"))).accepted
        assert [connection for connection, _ in peer.received] == [1, 2]


async def test_over_mutual_tls_both_sides_know_each_other(tmp_path: Path) -> None:
    ca, server_pem, client_pem = _certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server_pem)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    peer = Receiver(agree)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]

    async def attempt(tls: ssl.SSLContext | None) -> bool:
        client = Sender("127.0.0.1", port, tls=tls, timeout_seconds=60)
        try:
            return (await client.send(message("M1"))).accepted
        finally:
            await client.close()

    assert await attempt(Tls(ca=ca, cert=client_pem).context())
    for stranger in (Tls(ca=ca), Tls(cert=client_pem)):  # shows no certificate; does not trust the server's
        with pytest.raises(DeliveryError):
            await attempt(stranger.context())
    assert len(peer.received) == 1
    server.close()


def _certificates(folder: Path) -> tuple[str, str, str]:
    """Files of an authority, and of a server and a client (key and certificate) that it signed."""
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("ca", "server", "client")]
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in names]
    now = datetime.now(UTC)
    files = []
    for name, key in zip(names, keys, strict=True):
        is_ca = name == names[0]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(names[0])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            .sign(keys[0], hashes.SHA256())
        )
        file = folder / f"{len(files)}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
        files.append(str(file))
    return files[0], files[1], files[2]
