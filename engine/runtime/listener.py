"""One channel's MLLP server: sockets, limits and timers around the framer; the deciding is intake's.

Why a Protocol and not streams, tasks or queues: at ten thousand frames a second a task for each frame costs more than
all the rest. Bytes come in by `data_received`, frames go to intake at once, and each waits as an `Exchange` in its
connection's queue until its answer is there; answers leave from the head of that queue only, so they keep the order of
arrival whatever is ready first.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Any, Final, cast

from engine import logs
from engine.errors import HandoffError
from engine.hl7v2 import mllp
from engine.pipeline.acceptance import NO_SUMMARY
from engine.runtime.answers import EXCHANGE_BYTES, Exchange, Lane
from engine.runtime.intake import Intake
from engine.runtime.peers import Certificate, Trusted, host_of, why_no_handshake
from engine.runtime.sockets import who_has
from engine.settings import Channel, TlsServer
from engine.tls import harden

_log = logs.get_logger(__name__)

END_SECONDS: Final = 0.05
"""The end byte waits this long for its CR; then the frame counts as complete."""
HANDSHAKE_SECONDS_MAX: Final = 10.0
_LINGER_SECONDS_MAX: Final = 1.0
"""A connection that got a last answer and was closed has this long to read it."""
BACKLOG: Final = 512
_ACCEPTS_MAX: Final = 64
"""At most this many connections are accepted in one round of the loop; then others have their turn."""
_TURNED_AWAY_MAX: Final = 64
"""At most this many connections over `connections_max` get a TLS handshake and a refusal at once; further ones are
closed unanswered."""
_SILENT_SECONDS: Final = 10.0
"""A connection that has said nothing for so long since it was made may have to make room for another one."""
_SILENT_HANDSHAKE_SECONDS: Final = 1.0
"""So may one that did not shake hands for so long."""
_NO_DESCRIPTOR_SECONDS: Final = 1.0
"""How long nothing is accepted after the system had no descriptor or memory for a connection."""
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""A peer that vanished without a word (a firewall forgot it, its power failed) is found after two minutes."""
_SWEEP_SECONDS_MAX: Final = 1.0
_SWEEP_SECONDS_MIN: Final = 0.05

_TLS_GREETING: Final = b"\x16\x03"

# Why a connection is not read for the moment.
_PIPELINE_FULL: Final = 1
_CHANNEL_FULL: Final = 2
_PEER_NOT_READING: Final = 4
_DRAINING: Final = 8
_NOT_DECODED: Final = 16


class ListenError(HandoffError):
    """A channel's port can't be opened."""


class Room(enum.IntEnum):
    """How much of a channel's `inflight_bytes_max` is taken, and so who is read."""

    FREE = 0
    """Everybody."""
    UNFINISHED = 1
    """With the frames that are not complete it is full. They must not keep others out, or whoever sends many halves of
    frames would stop the channel: read is who holds no more than its share of them, and one of the others at a time."""
    WAITING = 2
    """The frames that wait for their answers alone fill it: nobody. Answering them makes room."""


class Listener:
    """The server of one channel. `channel` may be replaced by a later version of it (`reconfigure`) while it runs."""

    def __init__(self, channel: Channel, intake: Intake, lane: Lane, *, resolve: Callable[[str], Any] = str) -> None:
        self.channel = channel
        self.lane = lane
        self._intake = intake
        self._resolve = resolve
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._tls: ssl.SSLContext | None = None
        self._arriving: dict[Connection, tuple[socket.socket, asyncio.Task[None]]] = {}
        self._of_peer: dict[str, dict[Connection, None]] = {}
        """Who is here or arriving, by address and in the order of arrival."""
        self._trusted = Trusted()
        self._resting: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._may_finish: Connection | None = None
        self._emptied = asyncio.Event()
        self.draining = False
        self.room = Room.FREE
        self.connections: dict[Connection, None] = {}
        """In the order of their arrival."""
        self.lingering: set[Connection] = set()
        self.unfinished_bytes = 0
        """Bytes of frames that are not complete yet."""
        self.waiting_bytes = 0
        """Bytes of frames that are complete and not answered yet."""
        self.host = channel.listen.host
        self.port = channel.listen.port

    @property
    def inflight_bytes(self) -> int:
        return self.unfinished_bytes + self.waiting_bytes

    @property
    def full(self) -> bool:
        return self.inflight_bytes > self.channel.listen.inflight_bytes_max

    # --- opening and closing -----------------------------------------------------------------------------------------

    async def open(self, sock: socket.socket) -> None:
        """Take a copy of a listening socket, and wait for `serve`. Raises ListenError."""
        self._tls, self._trusted = self._server_context(self.channel), self._trust(self.channel)
        self.host, self.port = sock.getsockname()[:2]
        self._socket = sock.dup()
        self._socket.setblocking(False)  # noqa: FBT003 - the standard library's signature

    async def serve(self) -> None:
        """Accept connections from now on."""
        if self._socket is None:
            raise ListenError(f"channel {self.channel.name}: it was closed before it served")
        self._socket.listen(BACKLOG)
        self._loop.add_reader(self._socket, self._accept)
        self.lane.counts.inflight_bytes = lambda: self.inflight_bytes
        self._sweep()
        _log.info("listener opened", channel=self.channel.name, host=self.host, port=self.port)

    def serves_like(self, channel: Channel) -> bool:
        """Whether this listener can go on with this version of the channel: `reconfigure` then."""
        old, new = self.channel.listen, channel.listen
        return (old.host, old.port, old.tls is None) == (new.host, new.port, new.tls is None)

    def check(self, channel: Channel) -> None:
        """Raises ListenError when `reconfigure` would."""
        self._server_context(channel)
        self._trust(channel)

    def reconfigure(self, channel: Channel) -> None:
        """Take a later version of the channel; open connections stay, with the frame limit that they began with.

        What is no longer trusted is not trusted any more: a connection that its allow-list, names, authorities or lists
        of revoked certificates would not let in now gets its answers and is closed.
        """
        tls, trusted = self._server_context(channel), self._trust(channel)
        self._tls, before, self._trusted = tls, self._trusted, trusted
        self.channel = channel
        self.lane.configure(channel)
        for connection in list(self.connections):
            reason = self._no_longer_admitted(connection, before)
            if reason is not None:
                self.lane.counts.connections_closed[reason] += 1
                _log.warning("connection closed", channel=channel.name, peer=connection.host, reason=reason)
                connection.drain()

    def _no_longer_admitted(self, connection: Connection, before: Trusted) -> str | None:
        if not self.admits(connection.address):
            return "not-in-allow-list"
        tls = self.channel.listen.tls
        return None if tls is None else self._trusted.objection(connection.certificate, tls, before)

    def stop_accepting(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    async def drain(self, seconds_max: float) -> bool:
        """Answer what has been received, then close every connection. Returns whether all were answered in time."""
        self.stop_accepting()
        self.draining = True
        for sock, _ in self._arriving.values():
            # Not by cancelling: a task that has not begun would leave its socket open, and uvloop closes the transport
            # of one that has without a word to the protocol (`connection_lost`), so that it would be waited for.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for connection in list(self.connections):
            connection.drain()
        await self._empty(seconds_max)
        clean = not any(connection.exchanges for connection in self.connections)
        for connection in [*self.connections, *self.lingering]:
            connection.abort()
        await self._empty(1.0)
        if self._sweeper is not None:
            self._sweeper.cancel()
        _log.info("listener closed", channel=self.channel.name, port=self.port, clean=clean)
        return clean

    async def _empty(self, seconds_max: float) -> None:
        """Wait until no connection is left."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds_max):
                while self.connections or self.lingering:
                    self._emptied.clear()
                    await self._emptied.wait()

    # --- accepting ---------------------------------------------------------------------------------------------------

    # Not left to the loop's own server: that one shakes hands over TLS before anybody may look at the address or count
    # the connections, and uvloop's asks for the address when a peer that has gone already has none any more.

    def _accept(self) -> None:
        """Somebody connects."""
        for _ in range(_ACCEPTS_MAX):
            if self._socket is None:
                return
            try:
                sock, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor or memory left; those who are connected are served meanwhile
                _log.error("no connection can be accepted for a moment", channel=self.channel.name, exc_info=error)
                self.refused("unknown", "no-descriptor")
                self._loop.remove_reader(self._socket)
                self._resting = self._loop.call_later(_NO_DESCRIPTOR_SECONDS, self._accept_again)
                return
            self._greet(sock, address)

    def _accept_again(self) -> None:
        self._resting = None
        if self._socket is not None:
            self._loop.add_reader(self._socket, self._accept)

    def _greet(self, sock: socket.socket, address: Any) -> None:
        """Turn away who may not connect, or for whom there is no room; with the others go on to TLS or to reading."""
        listen = self.channel.listen
        taken = len(self.connections) + len(self._arriving) + len(self.lingering)
        own = self._of_peer.get(host_of(address), ())
        if not self.admits(address):
            reason = "not-in-allow-list"
        elif len(own) >= listen.connections_per_peer_max + _TURNED_AWAY_MAX and not self._drop_handshake(own):
            reason = "too-many-of-peer"
        elif taken >= listen.connections_max + _TURNED_AWAY_MAX and not self._drop_handshake(self._most()):
            reason = "too-many"
        else:
            connection = Connection(self, address)
            self._of_peer.setdefault(connection.host, {})[connection] = None
            self._arriving[connection] = sock, self._loop.create_task(self._connect(sock, connection))
            return
        self.refused(host_of(address), reason)
        sock.close()

    def refused(self, host: str, reason: str) -> None:
        """Count somebody who could not connect, and say who and why."""
        counts = self.lane.counts
        counts.connections_refused[reason] += 1
        counts.refusals.note(self.channel.name, host, reason, self._intake.now())
        _log.warning("connection refused", channel=self.channel.name, peer=host, reason=reason)

    def _most(self) -> Mapping[Connection, None]:
        """The connections of the address that has most of them."""
        return max(self._of_peer.values(), key=len, default={})

    def _drop_handshake(self, connections: Iterable[Connection]) -> bool:
        """Of these, the oldest that is silent instead of shaking hands makes room; false: there is none."""
        now = self._loop.time()
        for connection in connections:
            arriving = self._arriving.get(connection)
            if arriving is not None and now - connection.since > _SILENT_HANDSHAKE_SECONDS:
                del self._arriving[connection]
                self._forget(connection)
                with contextlib.suppress(OSError):
                    arriving[0].shutdown(socket.SHUT_RDWR)  # its task ends by it
                return True
        return False

    def too_many(self, connection: Connection) -> str | None:
        """Why there is no room for one that has just connected; none: there is, or somebody silent made it."""
        listen = self.channel.listen
        own = [one for one in self._of_peer.get(connection.host, ()) if one in self.connections]
        if len(own) >= listen.connections_per_peer_max and not self._drop_silent(own):
            return "too-many-of-peer"
        if len(self.connections) < listen.connections_max:
            return None
        return None if self._drop_silent(self._most()) or self._share(connection) else "too-many"

    def _share(self, connection: Connection) -> bool:
        """Whether the address that has more than half of the places made room for one of another address.

        Of its connections on which nothing is to be answered, that goes which has said nothing for longest.
        """
        most = [one for one in self._most() if one in self.connections and one.host != connection.host]
        if len(most) <= self.channel.listen.connections_max // 2:
            return False
        quiet = [one for one in most if not one.exchanges]
        if not quiet:
            return False
        self._make_room(min(quiet, key=lambda one: one.seen_at))
        return True

    def _drop_silent(self, connections: Iterable[Connection]) -> bool:
        """Of these, the oldest that has never said anything makes room; false: there is none."""
        now = self._loop.time()
        for connection in connections:
            if connection in self.connections and connection.silent and now - connection.since > _SILENT_SECONDS:
                self._make_room(connection)
                return True
        return False

    def _make_room(self, connection: Connection) -> None:
        self.lane.counts.connections_closed["made-room"] += 1
        _log.warning("connection closed", channel=self.channel.name, peer=connection.host, reason="made-room")
        connection.abort()
        self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        own = self._of_peer.get(connection.host)
        if own is not None:
            own.pop(connection, None)
            if not own:
                del self._of_peer[connection.host]

    async def _connect(self, sock: socket.socket, connection: Connection) -> None:
        try:
            _prepare(sock)
            await self._loop.connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_SECONDS_MAX if self._tls else None,
            )
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with one connection ends that one only
            self._forget(connection)
            self.refused(connection.host, why_no_handshake(error) if self._tls else "gone")
            if not isinstance(error, OSError):  # TLS errors and timeouts are such
                _log.error("connection failed", channel=self.channel.name, exc_info=error)
        finally:
            self._arriving.pop(connection, None)

    def arrived(self, connection: Connection) -> None:
        """It is connected, and its handshake is done."""
        self._arriving.pop(connection, None)

    # --- TLS ---------------------------------------------------------------------------------------------------------

    def _server_context(self, channel: Channel) -> ssl.SSLContext | None:
        """A new one each time: a certificate authority can't be taken out of one. None: plain. Raises ListenError."""
        tls = channel.listen.tls
        if tls is None:
            return None
        try:
            return server_context(tls, self._resolve)
        except OSError as error:
            raise ListenError(
                f"channel {channel.name}: its certificate, key, client_ca or crl can't be used ({type(error).__name__})"
            ) from None

    def _trust(self, channel: Channel) -> Trusted:
        """Raises ListenError."""
        tls = channel.listen.tls
        try:
            return Trusted() if tls is None else Trusted.read(tls, self._resolve)
        except (OSError, ValueError) as error:
            text = f"channel {channel.name}: its client_ca or crl can't be used ({type(error).__name__})"
            raise ListenError(text) from None

    def objection(self, certificate: Certificate | None) -> str | None:
        """Why a client with this certificate may not send here; none: it may."""
        tls = self.channel.listen.tls
        return None if tls is None else self._trusted.objection(certificate, tls, self._trusted)

    # --- limits ------------------------------------------------------------------------------------------------------

    def admits(self, peer: Any) -> bool:
        """Whether the allow-list lets this address connect."""
        allow = self.channel.listen.allow
        if not allow:
            return True
        if not isinstance(peer, tuple):  # a socket of the file system that systemd opened: its rights are the list
            return True
        address = ip_address(peer[0].partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)  # an IPv4 peer of a socket that listens on both
        return any((mapped or address) in network for network in allow)

    def settle(self) -> None:
        """Bytes came or went: see who is read now.

        Memory stays within three times the limit (waiting, unfinished, the shares), one frame and one read of each.
        """
        if self.waiting_bytes > self.channel.listen.inflight_bytes_max:
            room = Room.WAITING
        else:
            room = Room.UNFINISHED if self.full else Room.FREE
        if room is not self.room:
            self.room = room
            for connection in self.connections:
                self.hold_or_release(connection)
        if room is Room.UNFINISHED and self._may_finish is None:
            self._may_finish = next((one for one in self.connections if self._has_more_than_its_share(one)), None)
            if self._may_finish is not None:
                self._may_finish.release(_CHANNEL_FULL)

    def hold_or_release(self, connection: Connection) -> None:
        """Read this connection, or do not, as there is room."""
        if self.room is Room.WAITING or (self.room is Room.UNFINISHED and self._has_more_than_its_share(connection)):
            connection.hold(_CHANNEL_FULL)
        else:
            connection.release(_CHANNEL_FULL)

    def _has_more_than_its_share(self, connection: Connection) -> bool:
        """Whether it has more than its share of the room, and no pass to finish its frame all the same."""
        listen = self.channel.listen
        share = listen.inflight_bytes_max // listen.connections_max
        return connection.unfinished > share and connection is not self._may_finish

    def end_pass(self, connection: Connection) -> None:
        """Its frame is complete, or it is gone: another one may finish its frame."""
        if self._may_finish is connection:
            self._may_finish = None

    def gone(self, connection: Connection) -> None:
        self.connections.pop(connection, None)
        self.lingering.discard(connection)
        self._forget(connection)
        self.end_pass(connection)
        if self.room:
            self.settle()
        if not self.connections and not self.lingering:
            self._emptied.set()

    def refuse(self) -> bytes:
        return self._intake.too_many_connections(self.lane)

    def take(self, exchange: Exchange, frame: mllp.Frame) -> None:
        self._intake.receive(self.lane, exchange, frame)

    def lost(self, arrivals: list[int]) -> None:
        self._intake.unsent(self.lane, arrivals)

    def told(self, arrivals: list[int]) -> None:
        self._intake.sent(arrivals)

    def _sweep(self) -> None:
        """One timer for all connections: a timer for each, set anew with each message, would cost more than reading."""
        now = self._loop.time()
        for connection in [*self.connections, *self.lingering]:
            connection.check(now)
        listen = self.channel.listen
        shortest = min(listen.idle_seconds_max, listen.frame_seconds_max, listen.write_seconds_max)
        pause = max(_SWEEP_SECONDS_MIN, min(_SWEEP_SECONDS_MAX, shortest / 4))
        self._sweeper = self._loop.call_later(pause, self._sweep)


class Connection(asyncio.Protocol):
    """One sender's connection."""

    __slots__ = (
        "_arrivals_written", "_closing_since", "_decoder", "_end_timer", "_frame_since", "_half_closed",
        "_holds", "_junk_seen", "_listener", "_loop", "_not_decoded", "_partials_seen", "_stalled_since",
        "_transport", "address", "certificate", "exchanges", "host", "peer", "seen_at", "silent", "since", "summary",
        "unfinished",
    )  # fmt: skip

    def __init__(self, listener: Listener, address: Any) -> None:
        self._listener = listener
        self.address = address
        self.host = host_of(address)
        self.certificate: Certificate | None = None
        """The client's, under mutual TLS."""
        self.silent = True
        """It has not said anything yet."""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._decoder = mllp.FrameDecoder(listener.channel.listen.frame_bytes_max)
        self._not_decoded = b""  # the end of a read that brought more frames than there is room for
        self._holds = 0
        self._half_closed = False
        self._end_timer: asyncio.TimerHandle | None = None
        self.seen_at = self.since = self._loop.time()
        self._frame_since: float | None = None
        self._stalled_since: float | None = None
        self._closing_since: float | None = None
        self._junk_seen = self._partials_seen = 0
        self._arrivals_written: list[int] = []  # written to the transport, not yet taken by the peer's system
        self.exchanges: deque[Exchange] = deque()
        self.peer = ""
        self.summary = NO_SUMMARY
        self.unfinished = 0
        """Bytes that are here and belong to no complete frame yet."""

    # --- called by the loop ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A stream server makes no other; uvloop's own are not of that class.
        self._transport = transport = cast("asyncio.Transport", transport)
        if transport.get_extra_info("ssl_object") is None:
            # With no high water `pause_writing` means: the peer's system did not take all that was written. (TLS
            # transports count the end of the handshake too, and would never come to send it.)
            transport.set_write_buffer_limits(high=0)
        listener, counts = self._listener, self._listener.lane.counts
        listener.arrived(self)
        self.seen_at = self._loop.time()
        if listener.draining:  # nothing was read of it, and nothing is owed
            listener.refused(self.host, "draining")
            transport.abort()
            return
        self.certificate = Certificate.of(transport)
        objection = listener.objection(self.certificate)
        if objection is not None:
            listener.refused(self.host, objection)
            transport.abort()
            return
        too_many = listener.too_many(self)
        if too_many is not None:
            listener.refused(self.host, too_many)
            transport.write(listener.refuse())
            self._linger()
            return
        self.peer = _describe(self.address, self.certificate)
        listener.connections[self] = None
        counts.connections += 1
        listener.hold_or_release(self)

    def data_received(self, data: bytes) -> None:
        if self._closing_since is not None:
            return
        self.seen_at = self._loop.time()
        if self._end_timer is not None:
            self._end_timer.cancel()
            self._end_timer = None
        if self.silent:
            self.silent = False
            if data.startswith(_TLS_GREETING):
                self._listener.refused(self.host, "tls-on-plain-port")
                self.abort()
                return
        self._decode(data)

    def eof_received(self) -> bool:
        """The peer says no more; what it sent is answered all the same, except over TLS, which can't be half open."""
        if self._closing_since is not None or self._transport is None:
            return False
        self._half_closed = True
        if not self._not_decoded:
            self._take(self._decoder.close())
        return bool(self.exchanges or self._not_decoded) and self._transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # whatever it was: the sender is gone, and sends again what was not answered
        if self._end_timer is not None:
            self._end_timer.cancel()
        listener = self._listener
        if self in listener.connections:
            listener.lane.counts.connections -= 1
            if not self._half_closed:
                self._take_what_was_cut_off()
            self._count_framing()
        listener.unfinished_bytes -= self.unfinished
        self.unfinished = 0
        self._not_decoded = b""
        self._transport = None
        if self._arrivals_written:
            listener.lost(self._arrivals_written)
            self._arrivals_written = []
        self.flush()
        listener.gone(self)

    def pause_writing(self) -> None:
        self._stalled_since = self._loop.time()
        self.hold(_PEER_NOT_READING)

    def resume_writing(self) -> None:
        self._stalled_since = None
        if self._arrivals_written:
            self._listener.told(self._arrivals_written)
            self._arrivals_written = []
        self.release(_PEER_NOT_READING)
        self._close_if_done()

    # --- called by intake and listener -------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send the answers that are ready, as far as none before them is missing."""
        exchanges = self.exchanges
        answers: list[bytes] = []
        arrivals: list[int] = []
        freed = 0
        hang_up = False
        while exchanges and exchanges[0].done and not hang_up:
            exchange = exchanges.popleft()
            freed += exchange.size
            hang_up = exchange.hang_up
            if exchange.answer and not hang_up:
                answers.append(exchange.answer)
                arrivals += exchange.arrivals
        if self._transport is None:
            for exchange in exchanges:
                if exchange.stored:  # what waits for the disk is in memory still, though its sender is gone
                    freed += exchange.size
                    exchange.size = 0
        listener = self._listener
        listener.waiting_bytes -= freed
        if answers:
            self._send(b"".join(answers) if len(answers) > 1 else answers[0], arrivals)
        if hang_up and self._transport is not None:
            listener.lane.counts.connections_closed["unavailable"] += 1
            self._transport.close()  # what is written goes out before
            return
        if listener.room:
            listener.settle()
        if self._holds & (_PIPELINE_FULL | _NOT_DECODED) and self._has_room():
            self.release(_PIPELINE_FULL)
            if self._not_decoded:
                self._loop.call_soon(self._decode_rest)
        self._close_if_done()

    def push(self, answer: bytes, arrivals: list[int]) -> bool:
        """Send something out of turn (an application ACK of enhanced mode); false: the connection is gone."""
        if self._transport is None or self._closing_since is not None or self._transport.is_closing():
            return False
        self._send(answer, arrivals)
        return True

    def drain(self) -> None:
        """Take nothing more, answer what is here, close."""
        self.hold(_DRAINING)
        self._close_if_done()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def hold(self, hold: int) -> None:
        """Do not read for the moment."""
        if not self._holds and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
        self._holds |= hold

    def release(self, hold: int) -> None:
        held, self._holds = self._holds, self._holds & ~hold
        if held and not self._holds and self._transport is not None and not self._transport.is_closing():
            now = self._loop.time()
            self.seen_at = now  # the time that we did not read is not the peer's
            if self._frame_since is not None:
                self._frame_since = now
            self._transport.resume_reading()

    def check(self, now: float) -> None:
        """Close the connection when one of its time limits is over."""
        listen = self._listener.channel.listen
        if self._closing_since is not None:
            if now - self._closing_since > _LINGER_SECONDS_MAX:
                self.abort()
        elif self._stalled_since is not None:
            if now - self._stalled_since > listen.write_seconds_max:
                self._give_up("slow-reader")
        elif self.certificate is not None and self.certificate.expires < time.time():
            self._listener.lane.counts.connections_closed["certificate-expired"] += 1
            self.certificate = None
            self.drain()
        elif self._holds or self.exchanges:
            return
        elif self._frame_since is not None and now - self._frame_since > listen.frame_seconds_max:
            self._give_up("slow-frame")
        elif now - self.seen_at > listen.idle_seconds_max:
            self._give_up("idle")

    # --- inside ------------------------------------------------------------------------------------------------------

    def _decode(self, data: bytes) -> None:
        """Decode as many frames as there is room for. A read may bring a hundred thousand of no length at all."""
        room = max(1, self._listener.channel.listen.pipeline_frames_max - len(self.exchanges))
        if data.count(mllp.END) > room:
            cut = 0
            for _ in range(room):
                cut = data.index(mllp.END, cut) + 1
            data, self._not_decoded = data[: cut + 1], data[cut + 1 :]
            if self._not_decoded:
                self.hold(_NOT_DECODED)
                self._loop.call_soon(self._decode_rest)
        self._take(self._decoder.feed(data))

    def _decode_rest(self) -> None:
        if not self._not_decoded or self._closing_since is not None or self._holds & _DRAINING or not self._has_room():
            return  # the rest may be of no use any more, or it is come back to when answers have gone
        data, self._not_decoded = self._not_decoded, b""
        self._decode(data)
        if not self._not_decoded:
            if self._half_closed:
                self._take(self._decoder.close())
                self._close_if_done()
            self.release(_NOT_DECODED)

    def _has_room(self) -> bool:
        return len(self.exchanges) <= self._listener.channel.listen.pipeline_frames_max // 2

    def _take(self, frames: list[mllp.Frame]) -> None:
        listener, decoder = self._listener, self._decoder
        for frame in frames:
            exchange = Exchange(self, len(frame.payload) + EXCHANGE_BYTES)
            self.exchanges.append(exchange)
            listener.waiting_bytes += exchange.size
            listener.take(exchange, frame)
            if (more := EXCHANGE_BYTES * (len(exchange.judgements) - 1)) > 0:
                exchange.size += more
                listener.waiting_bytes += more
        if decoder.in_frame:
            if frames or self._frame_since is None:
                self._frame_since = self.seen_at
            if decoder.end_pending:
                self._end_timer = self._loop.call_later(END_SECONDS, self._end_frame)
        else:
            self._frame_since = None
        if decoder.in_frame or self._not_decoded or self.unfinished:
            unfinished = decoder.pending + len(self._not_decoded)
            listener.unfinished_bytes += unfinished - self.unfinished
            self.unfinished = unfinished
        if decoder.junk_bytes != self._junk_seen or decoder.partials != self._partials_seen:
            self._count_framing()
        if frames:
            listener.end_pass(self)
            if len(self.exchanges) >= listener.channel.listen.pipeline_frames_max:
                self.hold(_PIPELINE_FULL)
        if listener.room or listener.full:
            listener.settle()
            listener.hold_or_release(self)

    def _take_what_was_cut_off(self) -> None:
        """Count a frame that is not complete by now; keep what there is of a message that no frame can hold."""
        self._take([frame for frame in self._decoder.close() if frame.rest or mllp.is_wide(frame.payload)])

    def _end_frame(self) -> None:
        self._end_timer = None
        self._take(self._decoder.flush_pending_end())

    def _send(self, answer: bytes, arrivals: list[int]) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            self._listener.lost(arrivals)
            return
        transport.write(answer)
        if self._stalled_since is None:
            self._listener.told(arrivals)
        else:
            self._arrivals_written += arrivals

    def _count_framing(self) -> None:
        counts, decoder = self._listener.lane.counts, self._decoder
        counts.junk_bytes += decoder.junk_bytes - self._junk_seen
        counts.partial_frames += decoder.partials - self._partials_seen
        self._junk_seen, self._partials_seen = decoder.junk_bytes, decoder.partials

    def _close_if_done(self) -> None:
        """After a half close or while draining: close once everything is answered and taken."""
        if (
            ((self._half_closed and not self._not_decoded) or self._holds & _DRAINING)
            and not self.exchanges
            and self._stalled_since is None
            and self._closing_since is None
            and self._transport is not None
        ):
            self._linger()

    def _linger(self) -> None:
        """Close so that the peer still reads what it was told.

        A socket that is closed with unread bytes resets the connection, and a reset may overtake the last answer. So
        the sending side is closed first, and what still comes is thrown away until the peer closes or its time is over.
        """
        self._closing_since = self._loop.time()
        listener, transport = self._listener, self._transport
        if transport is None:
            return
        if self in listener.connections:
            del listener.connections[self]
            listener.lane.counts.connections -= 1
            self._not_decoded = b""
            self._take_what_was_cut_off()
            self._count_framing()
        listener.lingering.add(self)
        if self._half_closed or not transport.can_write_eof():
            transport.close()
            return
        with contextlib.suppress(OSError, RuntimeError):
            transport.write_eof()
        self.release(self._holds)

    def _give_up(self, reason: str) -> None:
        self._listener.lane.counts.connections_closed[reason] += 1
        if self._decoder.in_frame:
            self._take(self._decoder.close())  # what there is of a message that no frame can hold is kept
        if self._transport is not None:
            self._transport.abort()


def server_context(tls: TlsServer, resolve: Callable[[str], Any]) -> ssl.SSLContext:
    """Raises OSError when a file can't be used."""
    context = harden(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls.minimum)
    # Without a passphrase given, OpenSSL would ask for one at the terminal, and wait.
    context.load_cert_chain(resolve(tls.cert), resolve(tls.key), password="")
    if tls.client_ca is not None:
        context.load_verify_locations(resolve(tls.client_ca))
        context.verify_mode = ssl.CERT_REQUIRED
        if tls.crl is not None:
            context.load_verify_locations(resolve(tls.crl))
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


async def bind(host: str, port: int, what: str) -> socket.socket:
    """A listening socket. what: for whom, as the error says it (`channel main-campus`). Raises ListenError."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ListenError(f"{what}: {host} is no address to listen on: {error.strerror}") from None
    try:
        # A restart must not wait for the old connections to leave TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            who = who_has(port)
            by = f" by {who}" if who else ""
            text = f"port {port} is taken{by}: stop that, or give {what} another port in its file"
            raise ListenError(f"{what}: can't listen on {host} port {port}: {text}") from None
        raise ListenError(f"{what}: can't listen on {host} port {port}: {error.strerror}") from None
    return sock


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
    if sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _describe(address: Any, certificate: Certificate | None) -> str:
    """`10.0.0.4:51022` or `[::1]:51022`, with the client certificate's name when there is one."""
    where = "local"
    if isinstance(address, tuple):
        host, port = address[:2]
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    name = certificate.name if certificate is not None else None
    return f"{where} {name}" if name else where
