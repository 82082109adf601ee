"""Messages forwarded over MLLP, one at a time, each waiting for its own answer.

Success is only an answer AA or CA whose MSA-2 is the control id in flight. A refusal that says why, by a code of table
0357, is judged by that code; what one without a code means is the site's to say (`answers_without_code`). No refusal is
a sign that the destination is down. Whenever it is not known what the receiver
did (no answer, garbage, the answer to something else), the connection is closed, so that nothing that is still on its
way can be credited to the next message.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal
from zoneinfo import ZoneInfo

import msgspec
from pydantic import Field, model_validator

from engine.clock import Clock, SystemClock
from engine.connectors.base import NOT_ATTEMPTED, DestinationSettings, Result, always, delivered, failed, stamps
from engine.connectors.requests import Answer, RequestMap, compile_requests
from engine.domain.consent import Marking
from engine.domain.delivery import (
    AppointmentRequest,
    AppointmentRequestEnd,
    Delivery,
    Forward,
    Operation,
    QueuedDelivery,
)
from engine.domain.message import AckCode
from engine.errors import (
    INTERNAL_ERROR,
    RECORD_LOCKED,
    DeliveryError,
    DeliveryFailure,
    MessageError,
    Problem,
    SettingsError,
)
from engine.hl7v2.ack import ERROR_TEXTS, Ack, parse_ack
from engine.hl7v2.header import HeaderError, read_header
from engine.hl7v2.mllp import FrameDecoder, wrap
from engine.hl7v2.notice import with_lines
from engine.pipeline.doubts import SAY_WHY, is_loopback
from engine.settings import Configuration, Identifier, Port, Reason, Text, TlsClient, either_tls_or_plaintext
from engine.tls import harden
from engine.tlsfiles import exposed_key, tls_problems
from engine.yamlmodel import StrictModel

_ANSWER_BYTES_MAX: Final = 1 << 20
_IDLE_SECONDS_MAX: Final = 30.0
"""A connection that was idle for longer is replaced before it is used: firewalls forget such connections silently, and
a message sent into a forgotten one is ambiguous."""
_END_PATIENCE_SECONDS: Final = 0.5
"""For receivers that end a frame with 1C and never send the CR."""
_ANSWERED_MAX: Final = 10_000
_READ_BYTES_MAX: Final = 4 << 20
"""Of whatever comes while one answer is waited for."""

_TRANSIENT_CODES: Final = frozenset({RECORD_LOCKED, INTERNAL_ERROR})
_MEANINGS: Final[Mapping[str, DeliveryFailure]] = {
    "retry": DeliveryFailure.TRANSIENT,
    "hold": DeliveryFailure.UNDECIDED,
    "dead": DeliveryFailure.PERMANENT,
}


class AnswersWithoutCode(StrictModel):
    """What it means when the receiver refuses and names no code of HL7 table 0357 (ERR-3, before 2.5 ERR-1).

    Such an answer says nothing of the reason: some engines answer AE while their database is away, others AR for what
    their filter drops. retry: try again, with the waits of `retry`; as long as nothing is delivered meanwhile no
    attempt counts, so an outage costs no message. hold: a person decides. dead: a dead letter at once. The patient's
    later messages wait behind one that is tried again or held; nobody else's do.
    """

    ae: Literal["retry", "hold", "dead"] = "retry"
    """Answers AE and CE."""
    ar: Literal["retry", "hold", "dead"] = "retry"
    """Answers AR and CR."""
    attempts_max: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """With `retry`: attempts, while others were delivered, after which it is a dead letter."""


class MllpDestination(DestinationSettings):
    """A receiver of HL7 v2 messages over MLLP: of `message`, byte for byte as they came, and of `request`, written for
    a scheduling system.
    """

    takes: ClassVar = frozenset({Operation.FORWARD.what, Operation.REQUEST_APPOINTMENT.what})

    type: Literal["mllp"]
    """`mllp`: a receiver of HL7 v2 messages."""
    host: Text
    """Name or address of the receiver."""
    port: Port
    """Its TCP port."""
    tls: TlsClient | None = None
    """TLS towards the receiver; none: plain TCP."""
    plaintext: Reason | None = None
    """Why messages of patients may go to another machine in clear. Without a reason `check` warns of it."""
    answers_without_code: AnswersWithoutCode = AnswersWithoutCode()
    """What a refusal without a reason means."""
    requests: Identifier = "scheduling"
    """How requests for appointments are written: the name of a file in mappings/destinations/."""
    deduplicates: bool = False
    """The receiver is known to answer a repeated control id without acting twice: then an ambiguous attempt is
    repeated instead of held for a person."""

    @model_validator(mode="after")
    def _either(self) -> MllpDestination:
        return either_tls_or_plaintext(self)

    @property
    def certificate(self) -> str | None:
        return self.tls.cert if self.tls is not None else None

    def doubts(self) -> Iterator[tuple[str, str]]:
        if self.tls is None and self.plaintext is None and not is_loopback(self.host):
            yield "host", f"messages of patients leave this machine in clear: give it tls, or {SAY_WHY}"

    def requests_file(self, configuration: Configuration) -> str:
        return f"{configuration.site.mappings}/destinations/{self.requests}.yaml"

    def made_from(self, configuration: Configuration) -> tuple[object, ...]:
        files = () if self.tls is None else stamps(configuration, self.tls.ca, self.tls.cert, self.tls.key)
        return (configuration.snapshot.files.get(self.requests_file(configuration)), *files)

    def build(self, name: str, configuration: Configuration, *, clock: Clock) -> MllpConnector:
        tls = self.tls
        return MllpConnector(
            name,
            host=self.host,
            port=self.port,
            timeout_seconds=self.timeout_seconds,
            deduplicates=self.deduplicates,
            answers_without_code=self.answers_without_code,
            tls=(lambda: tls_context(tls, configuration.path)) if tls is not None else None,
            requests=self._request_map(name, configuration),
            clock=clock,
        )

    def _request_map(self, name: str, configuration: Configuration) -> RequestMap | None:
        """None: no channel delivers requests to it. Raises SettingsError."""
        what = Operation.REQUEST_APPOINTMENT.what
        if not any(name in channel.takers.get(what, ()) for channel in configuration.channels.values()):
            return None
        file = self.requests_file(configuration)
        if file not in configuration.snapshot.files:
            place = ("destinations", name, "requests")
            raise SettingsError((configuration.site_document.problem(place, f"there is no {file}"),))
        zone = ZoneInfo(configuration.site.calendar.timezone)
        return compile_requests(configuration.snapshot.document(file), zone=zone)

    def check_files(self, name: str, configuration: Configuration) -> Iterator[Problem]:
        if self.tls is not None:
            place = (configuration.site_document, ("destinations", name, "tls"), self.tls, configuration.snapshot.base)
            yield from tls_problems(*place)
            yield from exposed_key(*place)


class _UnknownOutcomeError(Exception):
    """The message was sent and it is not known what became of it."""

    def __init__(self, error: str, text: str) -> None:
        super().__init__(error)
        self.error = error
        self.text = text


class MllpConnector:
    ordered_batches: Final = False

    def __init__(
        self,
        name: str,
        *,
        host: str,
        port: int,
        timeout_seconds: float,
        deduplicates: bool,
        answers_without_code: AnswersWithoutCode | None = None,
        tls: Callable[[], ssl.SSLContext] | None = None,
        requests: RequestMap | None = None,
        clock: Clock | None = None,
    ) -> None:
        """tls: makes the context at each connect, so that a renewed certificate is taken up. requests: how those for
        appointments are written; none: it gets none.
        """
        self.name: Final = name
        self.idempotent: Final = deduplicates
        self._host = host
        self._port = port
        self._timeout_seconds = timeout_seconds
        self._tls = tls
        self._answers = answers_without_code or AnswersWithoutCode()
        self._requests = requests
        self._clock = clock or SystemClock()
        self._link: _Link | None = None
        self._stopping = False

    async def connect(self) -> None:
        if self._link is not None and self._link.fresh():
            return
        await self._hang_up()
        try:
            context = self._tls() if self._tls is not None else None
        except OSError:  # also what ssl raises for a file that is no certificate
            raise self._unreachable("tls-files", "the TLS files of the configuration can't be read") from None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                reader, writer = await asyncio.open_connection(
                    self._host, self._port, ssl=context, server_hostname=self._host if context else None
                )
        except ssl.SSLError:
            raise self._unreachable("tls-failed", "no TLS connection came about") from None
        except TimeoutError:
            raise self._unreachable("connect-timeout", "no connection within the time allowed") from None
        except (OSError, ValueError):  # the latter: what is configured as host can't be the name of one
            raise self._unreachable("unreachable", "the connection was refused or is not possible") from None
        sock = writer.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._link = _Link(reader, writer)

    async def deliver(self, batch: Sequence[QueuedDelivery], may_go_on: Callable[[], bool] = always) -> list[Result]:
        results: list[Result] = []
        for queued in batch:
            if self._link is None or self._stopping or not may_go_on():
                results.append(NOT_ATTEMPTED)  # if it was lost on the way: connect() comes before the next batch
                continue
            results.append(await self._forward(queued, self._link, may_go_on))
        return results

    def stop(self) -> None:
        self._stopping = True

    async def close(self) -> None:
        self._stopping = False
        await self._hang_up()

    async def _hang_up(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _forward(self, queued: QueuedDelivery, link: _Link, may_go_on: Callable[[], bool]) -> Result:
        try:
            payload = self._written(queued.delivery)
            if payload is None:
                text = "an MLLP destination takes messages and requests for appointments only"
                return failed(DeliveryFailure.PERMANENT, "operation-unknown", text)
            control_id = read_header(payload).control_id_raw.strip()
            frame = wrap(payload)
        except msgspec.DecodeError:
            return failed(DeliveryFailure.PERMANENT, "payload-unreadable", "the delivery holds no message")
        except HeaderError:
            return failed(DeliveryFailure.PERMANENT, "header-unreadable", "an answer could not be told to be its own")
        except ValueError:
            return failed(DeliveryFailure.PERMANENT, "framing-bytes", "the message holds bytes that MLLP itself uses")
        if link.used_up(control_id):
            # A second use of a control id on one connection could be given the first one's late answer.
            await self._hang_up()
            with contextlib.suppress(DeliveryError):  # of this call: others of the batch may be done already
                await self.connect()
            if self._link is None or self._stopping or not may_go_on():
                return NOT_ATTEMPTED
            link = self._link
        try:
            async with asyncio.timeout(self._timeout_seconds):
                ack, answer = await link.exchange(frame, control_id)
        except _UnknownOutcomeError as error:
            await self._hang_up()
            return _unknown(error.error, error.text)
        except TimeoutError:
            await self._hang_up()
            return _unknown("no-answer", "no answer within the time allowed")
        except OSError:
            await self._hang_up()
            return _unknown("connection-lost", "the connection broke before an answer came")
        except BaseException:  # cancelled: an answer that still comes must find nobody
            await self._hang_up()
            raise
        result = _judge(ack, self._answers)
        if result.delivered and queued.delivery.operation is Operation.REQUEST_APPOINTMENT:
            return delivered(Answer.of(answer).written())
        return result

    def _written(self, delivery: Delivery) -> bytes | None:
        """The message of a delivery; none: it is of another kind. Raises msgspec.DecodeError."""
        content = delivery.content
        message: bytes | None = None
        if isinstance(content, Forward):
            message = content.hl7
        elif self._requests is not None and isinstance(content, AppointmentRequest | AppointmentRequestEnd):
            message = self._requests.write(delivery, self._clock.now())
        if message is None or not isinstance(content.marking, Marking):
            return message
        return with_lines(message, content.marking.lines)

    def _unreachable(self, error: str, text: str) -> DeliveryError:
        return DeliveryError(self.name, error, text, kind=DeliveryFailure.TRANSIENT)


class _Link:
    """One connection, on which no control id is ever sent twice."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = FrameDecoder(_ANSWER_BYTES_MAX)
        self._answered: set[bytes] = set()
        self._bytes_left = _READ_BYTES_MAX
        self._used_at = asyncio.get_running_loop().time()

    def fresh(self) -> bool:
        """Still open, as far as can be seen, and used lately."""
        idle = asyncio.get_running_loop().time() - self._used_at
        return idle <= _IDLE_SECONDS_MAX and not self._reader.at_eof() and not self._writer.is_closing()

    def used_up(self, control_id: bytes) -> bool:
        return control_id in self._answered or len(self._answered) >= _ANSWERED_MAX

    async def exchange(self, frame: bytes, control_id: bytes) -> tuple[Ack, bytes]:
        """Send a frame and wait for its answer: read, and as it came. Raises _UnknownOutcomeError and OSError."""
        self._writer.write(frame)
        await self._writer.drain()
        self._bytes_left = _READ_BYTES_MAX
        while True:
            for payload in await self._payloads():
                try:
                    ack = parse_ack(payload)
                except MessageError:
                    raise _UnknownOutcomeError("answer-unreadable", "the answer is no acknowledgment") from None
                answered = ack.control_id.strip()
                if not answered:
                    text = "the answer names no message: MSA-2 is empty"
                    raise _UnknownOutcomeError("answer-without-control-id", text)
                if answered in self._answered:
                    continue  # enhanced mode: the application answer to a message whose accept answer came before
                if answered != control_id:
                    raise _UnknownOutcomeError("answer-foreign", "the answer is to another message (MSA-2)")
                self._answered.add(control_id)
                self._used_at = asyncio.get_running_loop().time()
                return ack, payload

    async def _payloads(self) -> list[bytes]:
        """The frames that came next; at least one unless more bytes are needed."""
        if self._decoder.end_pending:
            try:
                async with asyncio.timeout(_END_PATIENCE_SECONDS):
                    data = await self._reader.read(1 << 16)
            except TimeoutError:
                return [frame.payload for frame in self._decoder.flush_pending_end() if not frame.rest]
        else:
            data = await self._reader.read(1 << 16)
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise _UnknownOutcomeError("answer-endless", "much came, but no answer to the message")
        frames = self._decoder.feed(data) if data else self._decoder.close()
        if not data and not frames:
            raise _UnknownOutcomeError("connection-lost", "the connection was closed before an answer came")
        return [frame.payload for frame in frames if not frame.rest]

    async def close(self) -> None:
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def _unknown(error: str, text: str) -> Result:
    return failed(DeliveryFailure.AMBIGUOUS, error, text, of_destination=True)


def _judge(ack: Ack, answers: AnswersWithoutCode) -> Result:
    if ack.accepted:
        return delivered(ack.code.value)
    answer = ack.code.lower()
    if ack.hl7_code not in ERROR_TEXTS or not ack.hl7_code:  # none, or one of the receiver's own making
        meaning = answers.ar if ack.code in {AckCode.AR, AckCode.CR} else answers.ae
        again = meaning == "retry"
        return failed(
            _MEANINGS[meaning],
            f"answer-{answer}",
            f"the receiver answered {ack.code} and gave no code for the reason",
            of_destination=again,
            answered=again,
            attempts_max=answers.attempts_max if again else None,
        )
    passing = ack.hl7_code in _TRANSIENT_CODES
    # A locked record is this patient's trouble; whatever else may pass is the receiver's.
    of_destination = passing and ack.hl7_code != RECORD_LOCKED
    return failed(
        DeliveryFailure.TRANSIENT if passing else DeliveryFailure.PERMANENT,
        f"answer-{answer}-{ack.hl7_code}",
        f"the receiver answered {ack.code} {ack.hl7_code} ({ERROR_TEXTS[ack.hl7_code]})",
        of_destination=of_destination,
        answered=of_destination,
    )


def tls_context(tls: TlsClient, path: Callable[[str], Path]) -> ssl.SSLContext:
    """The server's name and certificate are checked; nothing of the environment applies.

    Raises OSError when a file can't be read.
    """
    if tls.ca:
        context = ssl.create_default_context(cafile=str(path(tls.ca)))
    else:
        # Not by the default: SSL_CERT_FILE and SSL_CERT_DIR of the environment would take the place of the system's.
        known = ssl.get_default_verify_paths()
        folder = known.openssl_capath if Path(known.openssl_capath).is_dir() else None
        file = known.openssl_cafile if Path(known.openssl_cafile).is_file() or folder is None else None
        context = ssl.create_default_context(cafile=file, capath=folder)
    harden(context, tls.minimum)
    if tls.cert:
        context.load_cert_chain(path(tls.cert), path(tls.key) if tls.key else None, password="")
    return context
