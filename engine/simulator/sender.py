"""An MLLP client that never takes the wrong answer for the right one.

An answer is credited to a message only when its MSA-2 is that message's MSH-10, byte for byte, on the connection that
the message went out on. Whatever else arrives (garbage, an answer to something else, an answer too late) ends the
connection, so that nothing of it can be credited to a later message; the next send connects anew.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from typing import Any, Final, TypeVar, cast

from engine.domain.message import AckCode
from engine.domain.record import Phi, Record
from engine.errors import DeliveryError, DeliveryFailure, MessageError
from engine.hl7v2.ack import Ack, modes, parse_ack
from engine.hl7v2.batch import messages_in
from engine.hl7v2.header import Header, HeaderError, is_ack, read_header
from engine.hl7v2.mllp import COMMIT_ACK_PAYLOAD, FrameDecoder, wrap
from engine.tls import harden

T = TypeVar("T")

FRAME_BYTES_MAX: Final = 64 << 20
_ACCEPT: Final = frozenset({AckCode.CA, AckCode.CE, AckCode.CR})
_ACCEPTED_MAX: Final = 1024
_SILENCE_SECONDS: Final = 2.0


class Tls(Record, frozen=True, kw_only=True):
    """How to speak TLS.

    ca: PEM file of the authorities that may have signed the server's certificate, none: the system's. cert, key: PEM
    files of the client's own certificate.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def context(self) -> ssl.SSLContext:
        """Raises OSError (ssl.SSLError) when a file is missing or unusable."""
        context = harden(ssl.create_default_context(cafile=self.ca))
        if self.cert is not None:
            context.load_cert_chain(self.cert, self.key, password="")
        return context


class Reply(Phi, frozen=True, kw_only=True):
    """What was answered to one message. In enhanced mode there may be two answers, or none at all."""

    control_id: bytes
    owed: bool
    """An answer was certain to come."""
    accept: Ack | None = None
    """CA, CE or CR."""
    application: Ack | None = None
    """AA, AE or AR; in original mode the only answer."""
    payload: bytes = b""
    """The first answer, as it came."""

    @property
    def ack(self) -> Ack | None:
        """The first answer."""
        return self.accept or self.application

    @property
    def accepted(self) -> bool:
        """No answer was negative, and one that had to come has come."""
        answers = [answer for answer in (self.accept, self.application) if answer is not None]
        return all(answer.accepted for answer in answers) and (bool(answers) or not self.owed)


class _Awaited:
    """One message whose answers are awaited."""

    __slots__ = ("accept", "application", "control_id", "payload", "plan", "unreadable")

    def __init__(self, message: bytes) -> None:
        self.accept: Ack | None = None
        self.application: Ack | None = None
        self.payload = b""
        try:
            header: Header | None = read_header(message)
            self.unreadable = False
        except HeaderError as error:
            header = error.header
            self.unreadable = True  # then only may it be answered without its control id
        self.control_id = header.control_id_raw if header is not None else b""
        self.plan = modes(header, "none" if header is not None and is_ack(header) else "auto")

    @property
    def silent(self) -> bool:
        """No answer is owed, whatever becomes of the message."""
        return self.plan.accept == self.plan.application == "NE"

    @property
    def certain(self) -> bool:
        """An answer is owed, whatever becomes of the message."""
        return "AL" in {self.plan.accept, self.plan.application}

    @property
    def answered(self) -> bool:
        return self.accept is not None or self.application is not None

    @property
    def done(self) -> bool:
        """Nothing more is certain to come."""
        if self.application is not None:
            return True
        if self.accept is None:
            return False
        return not self.accept.accepted or self.plan.original or self.plan.application != "AL"

    def take(self, ack: Ack, payload: bytes) -> bool:
        """Whether the answer is one that this message may get."""
        if ack.control_id != self.control_id and not (self.unreadable and not ack.control_id):
            return False
        if ack.code in _ACCEPT:
            if self.accept is not None or self.application is not None:
                return False
            self.accept = ack
        else:
            if self.application is not None:
                return False
            self.application = ack
        self.payload = self.payload or payload
        return True

    def reply(self) -> Reply:
        return Reply(
            control_id=self.control_id,
            owed=self.certain,
            accept=self.accept,
            application=self.application,
            payload=self.payload,
        )


class _Exchange:
    """One frame on its way: the messages in it, and the future that is done when all of them are."""

    __slots__ = ("awaited", "done", "timer")

    def __init__(self, awaited: Sequence[_Awaited], done: asyncio.Future[None]) -> None:
        self.awaited = awaited
        self.done = done
        self.timer: asyncio.TimerHandle | None = None


class _Link(asyncio.Protocol):
    """One connection. `lost` says why it ended."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._decoder = FrameDecoder(FRAME_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self.exchanges: deque[_Exchange] = deque()
        self.lost: DeliveryError | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._accepted: deque[bytes] = deque(maxlen=_ACCEPTED_MAX)
        """Ids of messages that were answered and may still get an application answer, which nobody waits for."""

    # --- called by the event loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # asyncio's promise for a stream protocol

    def data_received(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            if not frame.rest:
                self._answered(frame.payload)
        if self._decoder.end_pending:  # no answer of ours has bytes behind its 1C, so there is nothing to wait for
            for frame in self._decoder.flush_pending_end():
                if not frame.rest:
                    self._answered(frame.payload)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - its text may hold anything
        self.fail("closed", "the connection was closed before the answer came")

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # --- called by the sender ---

    async def exchange(self, frame: bytes, awaited: Sequence[_Awaited], timeout_seconds: float) -> None:
        await self._writable.wait()
        if self.lost is not None or self._transport is None:
            raise self.lost or _failure(self._name, "closed", "the connection is closed")
        loop = asyncio.get_running_loop()
        exchange = _Exchange(awaited, loop.create_future())
        if not any(message.certain for message in awaited):
            timeout_seconds = min(timeout_seconds, _SILENCE_SECONDS)
        exchange.timer = loop.call_later(timeout_seconds, self._too_late, exchange)
        self.exchanges.append(exchange)
        self._transport.write(frame)
        try:
            await exchange.done
        except asyncio.CancelledError:
            self.fail("cancelled", "nobody waits for the answer any more")  # it would find the next message
            raise

    def write(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame)

    def fail(self, error: str, text: str) -> None:
        """End the connection; whoever waits for an answer is told that there will be none."""
        if self.lost is None:
            self.lost = _failure(self._name, error, text)
        self._writable.set()
        if self._transport is not None:
            self._transport.abort()
        while self.exchanges:
            exchange = self.exchanges.popleft()
            _stop(exchange)
            if not exchange.done.done():
                exchange.done.set_exception(self.lost)

    def _too_late(self, exchange: _Exchange) -> None:
        if all(awaited.answered or not awaited.certain for awaited in exchange.awaited):
            self._finish(exchange)  # what is missing is an application answer, which may come by another way
            return
        # closed, so that a late answer can't be taken for another message's
        self.fail("timeout", "no answer in time; the connection was closed")

    def _answered(self, payload: bytes) -> None:
        if payload == COMMIT_ACK_PAYLOAD:  # MLLP release 2: stored; the acknowledgment itself follows
            return
        try:
            several = payload.find(b"MSH", 1) >= 0  # acknowledgments of a batch in one frame
            answers = messages_in(payload) if several else [payload]
            acks = [parse_ack(answer) for answer in answers]
        except MessageError:
            self.fail("not-an-answer", "something arrived that is no acknowledgment")
            return
        for ack, answer in zip(acks, answers, strict=True):
            exchange = next((each for each in self.exchanges if any(a.take(ack, answer) for a in each.awaited)), None)
            if exchange is None:
                if ack.code not in _ACCEPT and ack.control_id in self._accepted:
                    continue
                if not ack.control_id and not ack.accepted:
                    self.fail("refused", f"the receiver answered {ack.code} without naming a message")
                else:
                    self.fail("foreign-answer", "an acknowledgment of something else arrived")
                return
            if all(awaited.done for awaited in exchange.awaited):
                self._finish(exchange)

    def _finish(self, exchange: _Exchange) -> None:
        _stop(exchange)
        self.exchanges.remove(exchange)
        for awaited in exchange.awaited:
            if awaited.application is None and not awaited.plan.original:
                self._accepted.append(awaited.control_id)
        if not exchange.done.done():
            exchange.done.set_result(None)


class Sender:
    """One connection to an MLLP receiver, made when it is needed and made anew when it was lost.

    Every failure is a DeliveryError: TRANSIENT when the message did not go out, AMBIGUOUS when it may have arrived.
    """

    def __init__(
        self, host: str, port: int, *, tls: ssl.SSLContext | None = None, timeout_seconds: float = 30.0
    ) -> None:
        self.name = f"{host}:{port}"
        self._host, self._port, self._tls = host, port, tls
        self._timeout_seconds = timeout_seconds
        self._link: _Link | None = None

    async def connect(self) -> None:
        """Raises DeliveryError (`unreachable`, `tls`)."""
        await self._connected()

    async def send(self, payload: bytes) -> Reply:
        """Send one message, and wait for the answers that it asks for."""
        return (await self._send(payload, [_Awaited(payload)]))[0]

    async def send_batch(self, payload: bytes) -> list[Reply]:
        """Send a batch (FHS, BHS) as one frame, and wait for the answers of all messages in it."""
        return await self._send(payload, [_Awaited(message) for message in messages_in(payload)])

    async def pipeline(self, payloads: Iterable[bytes], *, window: int) -> AsyncIterator[Reply]:
        """Send messages without waiting for each answer, at most `window` of them unanswered; replies in order.

        Raises the DeliveryError of the first message without an answer; those after it may or may not have arrived.
        """
        under_way: deque[asyncio.Task[Reply]] = deque()
        try:
            for payload in payloads:
                await self._connected()
                under_way.append(asyncio.ensure_future(self.send(payload)))
                await asyncio.sleep(0)  # let it write, in this order
                if len(under_way) >= window:
                    yield await under_way.popleft()
            while under_way:
                yield await under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def close(self) -> None:
        if self._link is not None:
            self._link.fail("closed", "the sender was closed")
            self._link = None

    async def _send(self, payload: bytes, awaited: list[_Awaited]) -> list[Reply]:
        try:
            frame = wrap(payload)
        except ValueError:
            raise DeliveryError(
                self.name, "framing", "the message holds MLLP framing bytes", kind=DeliveryFailure.PERMANENT
            ) from None
        link = await self._connected()
        if all(message.silent for message in awaited):
            link.write(frame)
        else:
            await link.exchange(frame, awaited, self._timeout_seconds)
        return [message.reply() for message in awaited]

    async def _connected(self) -> _Link:
        if self._link is not None and self._link.lost is None:
            return self._link
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                _, self._link = await loop.create_connection(
                    lambda: _Link(self.name), self._host, self._port, ssl=self._tls
                )
        except ssl.SSLError as error:
            reason = error.reason or "handshake failed"
            raise DeliveryError(self.name, "tls", f"TLS: {reason}", kind=DeliveryFailure.TRANSIENT) from None
        except OSError as error:
            raise DeliveryError(self.name, "unreachable", self._why(error), kind=DeliveryFailure.TRANSIENT) from None
        return self._link

    def _why(self, error: OSError) -> str:
        match error:
            case ConnectionRefusedError():
                return "nobody listens there"
            case socket.gaierror():
                return "there is no host of this name"
            case TimeoutError():
                question = "; does it speak TLS?" if self._tls is not None else ""
                return f"no connection within {self._timeout_seconds:g} seconds{question}"
        return f"no connection: {error.strerror}" if error.strerror else "no connection"


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop, where it installs."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def _failure(name: str, error: str, text: str) -> DeliveryError:
    return DeliveryError(name, error, text, kind=DeliveryFailure.AMBIGUOUS)


def _stop(exchange: _Exchange) -> None:
    if exchange.timer is not None:
        exchange.timer.cancel()
