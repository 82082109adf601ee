"""The load: MLLP senders in a process of their own, as cheap as Python lets them be.

It competes with what it measures for the same cores, so it parses nothing and copies little: messages are templates
that the next ids are written into, an answer is right when it holds `MSA|AA|<id>`, and there is no event loop but
epoll. What a message costs it is in its report (`generator_us`, `generator_busy`). Imports only what it needs.

Two forms. Closed: each sender sends the next message when it has its answer, as HL7 senders do; it finds the greatest
throughput. Open: messages are due at a fixed rate, whatever the receiver does; one that has to wait for its sender's
last answer waits in the open, because its latency counts from the time when it was due (so a receiver that stalls is
not spared the messages that were not sent meanwhile: coordinated omission).
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import resource
import select
import socket
import ssl
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from time import perf_counter, process_time
from typing import Any, Final
from zoneinfo import ZoneInfo

# One stay of one patient: admission, update, discharge home. Each about 1.2 kB.
_PID: Final = (
    "PID|1||%(patient)s^^^BENCH^MR~999-10-1234^^^USSSA^SS||Testerman^Quillon^Z^^^^L||19510617|M|||77 Granite Way^^"
    "Wexcombe^NY^10997^USA^H||^PRN^PH^^1^845^5550142~(845)555-0171^PRN^CP||en^^HL70296|M||%(visit)sA^^^BENCH^AN"
)
_KIN: Final = (
    "NK1|1|Testerman^Ophelia|SPO^Spouse^HL70063|77 Granite Way^^Wexcombe^NY^10997^USA^H|(845)555-0188^PRN^PH\r"
    "NK1|2|Testerman^Linus|CHD^Child^HL70063|12 Harbor View^^Northmere^CT^06899^USA^H|(203)555-0119^PRN^PH"
)
_PV1: Final = (
    "PV1|1|I|4W^12^2^BENCH|U|||D1007^Ravenscroft^Imani^^^DR^MD^^BENCH^L|D1011^Coldwell^Pascal^^^DR^MD^^BENCH^L||MED||||1"
    "|||D1007^Ravenscroft^Imani^^^DR^MD^^BENCH^L||%(visit)s^^^BENCH^VN"
)
_DG1: Final = (
    "DG1|1||I50.23^Acute on chronic systolic heart failure^I10||{1}|{0}|||||||||1\r"
    "DG1|2||E11.22^Type 2 diabetes mellitus with diabetic chronic kidney disease^I10||{1}|{0}|||||||||2\r"
    "DG1|3||J44.9^Chronic obstructive pulmonary disease, unspecified^I10||{1}|{0}|||||||||2"
)
_IN1: Final = "IN1|1|MCR^Federal Senior Plan|MCR01|Federal Senior Plan||||G4815||||||||Testerman^Quillon|SEL"
_PD1: Final = "PD1||A||P1026^Sedgwick^Dmitri^^^DR^MD^^BENCH^L"


def _template(event: str, structure: str, at: str, *segments: str) -> bytes:
    header = f"MSH|^~\\&|LOAD|BENCH|HANDOFF|BENCH|{at}||ADT^{event}^{structure}|%(control)s|P|2.5.1||||||UNICODE UTF-8"
    event_segment = f"EVN||{at}|||REG07^Registrar|{at}|BENCH"
    text = "\r".join((header, event_segment, _PID, _PD1, *segments, ""))
    return b"\x0b" + text.encode() + b"\x1c\r"


STAY: Final = 3
"""Messages of one stay."""
_STAYED: Final = timedelta(days=3, hours=5)
_UPDATED: Final = timedelta(days=2, hours=4)
"""Before the discharge."""
_ZONE: Final = ZoneInfo("America/New_York")
"""Of the channels of the benchmark (`site.py`)."""


def left_home(now: datetime | None = None) -> datetime:
    """When the patients went home, that is just now: old discharges open no plans, and cost less."""
    return (now or datetime.now(UTC)) - timedelta(minutes=30)


@lru_cache
def _templates(left: datetime) -> tuple[bytes, ...]:
    admitted, updated, left_at = (
        f"{at.astimezone(_ZONE):%Y%m%d%H%M%S}" for at in (left - _STAYED, left - _UPDATED, left)
    )
    in_the_hospital = _PV1 + "|" * 25 + f"{admitted}|"
    home = _PV1 + "|" * 17 + "01" + "|" * 8 + f"{admitted}|{left_at}"
    return (
        _template("A01", "ADT_A01", admitted, _KIN, in_the_hospital, _DG1.format("A", admitted), _IN1),
        _template("A08", "ADT_A01", updated, _KIN, in_the_hospital, _DG1.format("W", admitted), _IN1),
        _template("A03", "ADT_A03", left_at, _KIN, home, _DG1.format("F", admitted), _IN1),
    )


_PLACE: Final = re.compile(rb"%\((control|patient|visit)\)s")
_END: Final = b"\x1c\r"
_READ_BYTES: Final = 65536
_SILENCE_SECONDS_MAX: Final = 60.0
"""A receiver that answers nothing for so long has stopped; what it owes is counted as unanswered."""


class Feed:
    """What one sender sends, without end: stay after stay, each of a new patient. `name` keeps runs apart.

    left: when the patients went home (`left_home`).
    """

    def __init__(self, name: str, sender: int, left: datetime) -> None:
        run = name.encode("ascii")
        self._control = b"%b%04d%%08d" % (run, sender)
        self._patient = b"7%b%04d%%07d" % (run, sender)
        self._visit = b"V%b%04d%%07d" % (run, sender)
        widths = {b"control": len(run) + 12, b"patient": len(run) + 12, b"visit": len(run) + 12}
        self._frames = [_Frame(template, widths) for template in _templates(left)]
        self._number = 0
        self.expected = b""
        """What the answer to the last message holds."""

    def next(self) -> bytearray:
        """The next message, framed; the buffer is written anew for a later one."""
        stay, step = divmod(self._number, STAY)
        if step == 0:
            patient, visit = self._patient % stay, self._visit % stay
            for frame in self._frames:
                frame.put(b"patient", patient)
                frame.put(b"visit", visit)
        control = self._control % self._number
        self._number += 1
        self.expected = b"MSA|AA|" + control
        frame = self._frames[step]
        frame.put(b"control", control)
        return frame.buffer


class _Frame:
    """A template with room for its ids, which all have the same length in every message of a run."""

    __slots__ = ("_places", "buffer")

    def __init__(self, template: bytes, widths: dict[bytes, int]) -> None:
        self.buffer = bytearray()
        self._places: dict[bytes, list[slice]] = {name: [] for name in widths}
        read = 0
        for found in _PLACE.finditer(template):
            self.buffer += template[read : found.start()]
            at = len(self.buffer)
            self._places[found[1]].append(slice(at, at + widths[found[1]]))
            self.buffer += bytes(widths[found[1]])
            read = found.end()
        self.buffer += template[read:]

    def put(self, name: bytes, value: bytes) -> None:
        for place in self._places[name]:
            self.buffer[place] = value


class _Link:
    """One sender's connection."""

    __slots__ = ("_rest", "feed", "sent_at", "since", "sock", "waiting")

    def __init__(self, sock: socket.socket, feed: Feed) -> None:
        self.sock = sock
        self.feed = feed
        self.since: float | None = None
        """From when its unanswered message counts; none: nothing is unanswered."""
        self.waiting: deque[float] = deque()
        """When the messages were due that wait for the answer to the one before."""
        self.sent_at = 0.0
        self._rest = b""

    def send(self, since: float) -> None:
        self.since = since
        frame = self.feed.next()
        sent = self.sock.send(frame)
        if sent < len(frame):  # a buffer that is full although nothing is under way: rare enough to wait for
            self.sock.settimeout(_SILENCE_SECONDS_MAX)
            self.sock.sendall(memoryview(frame)[sent:])
            self.sock.setblocking(False)  # noqa: FBT003 - the standard library's signature

    def receive(self) -> bool | None:
        """Whether the right answer came; none: not all of it is here. Raises ConnectionError when there is no more."""
        try:
            data = self.sock.recv(_READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        if not data:
            raise ConnectionResetError
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if data[-2:] != _END:
            self._rest = data
            return None
        return self.feed.expected in data


class Run:
    """The senders of one run and what they saw.

    ca: TLS, and the PEM file that the receiver's certificate must come from.
    """

    def __init__(self, host: str, port: int, *, senders: int, name: str, ca: str | None = None) -> None:
        self._poll = select.epoll()  # before the connections: `select` takes no high numbers
        context = ssl.create_default_context(cafile=ca) if ca is not None else None
        left = left_home()
        self._links: dict[int, _Link] = {}
        for number in range(senders):
            sock = socket.create_connection((host, port), timeout=_SILENCE_SECONDS_MAX)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname=host)
            sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
            self._links[sock.fileno()] = _Link(sock, Feed(name, number, left))
            self._poll.register(sock.fileno(), select.EPOLLIN)
        self._latencies = array("d")
        self._sent = 0
        self._wrong = 0
        self._unanswered = 0
        self._alive = senders

    def closed(self, *, seconds: float, warm_up_seconds: float, messages: int) -> dict[str, Any]:
        """Stop and wait: for `seconds` after the warm-up, or (without seconds) until so many messages are answered."""
        left = messages or 1 << 62
        spent = process_time()
        began = perf_counter()
        counts_from = began + warm_up_seconds
        until = counts_from + seconds if seconds else float("inf")
        last = began
        under_way = 0
        for link in self._links.values():
            if left:
                left -= 1
                under_way += self._send(link, perf_counter())
        while under_way and self._alive:
            for link, right in self._answers(_SILENCE_SECONDS_MAX):
                now = perf_counter()
                under_way -= 1
                if right and link.since is not None and counts_from <= now <= until:
                    self._latencies.append(now - link.since)
                    last = now
                link.since = None
                if right is not None and left and now < until:
                    left -= 1
                    under_way += self._send(link, now)
        spent = process_time() - spent
        elapsed = (until if seconds else last) - counts_from
        return self._report(elapsed, spent, perf_counter() - began) | spread(self._latencies)

    def open(self, *, rate: float, seconds: float, warm_up_seconds: float, series_seconds: float) -> dict[str, Any]:
        """A message is due every 1/rate seconds, given to the senders in turn.

        Latency counts from when it was due. `from_sending` counts from when it was sent, as a tool would that waits for
        its receiver; `late` is what the generator itself was behind when nothing held it up.
        """
        links = list(self._links.values())
        due_in_all = int((warm_up_seconds + seconds) * rate)
        latencies, sendings, lates = self._latencies, array("d"), array("d")
        series: list[array[float]] = []
        waited = 0
        spent = process_time()
        began = perf_counter() + 0.01
        counts_from = began + warm_up_seconds
        number, unsettled = 0, due_in_all
        while unsettled and self._alive:
            now = perf_counter()
            while number < due_in_all and (due := began + number / rate) <= now:
                link = links[number % len(links)]
                number += 1
                if link.since is not None:
                    link.waiting.append(due)
                    waited += 1
                    continue
                if due >= counts_from:
                    lates.append(now - due)
                link.sent_at = now
                unsettled -= not self._send(link, due)
                now = perf_counter()
            pause = began + number / rate - now if number < due_in_all else _SILENCE_SECONDS_MAX
            for link, right in self._answers(pause, exact=number < due_in_all):
                now = perf_counter()
                since, link.since = link.since, None
                unsettled -= 1
                if right and since is not None and since >= counts_from:
                    latencies.append(now - since)
                    sendings.append(now - link.sent_at)
                    if series_seconds:
                        _bucket(series, int((since - counts_from) / series_seconds)).append(now - since)
                while link.waiting and link.since is None:
                    link.sent_at = now
                    unsettled -= not self._send(link, link.waiting.popleft())
        spent = process_time() - spent
        report = self._report(seconds, spent, perf_counter() - began) | spread(latencies)
        report |= {"asked_rate": rate, "waited": waited, "from_sending": spread(sendings), "late": spread(lates)}
        if series_seconds:
            report["series"] = [
                {"seconds": round(index * series_seconds, 3), "acknowledged": len(part)} | spread(part)
                for index, part in enumerate(series)
            ]
        return report

    def close(self) -> None:
        for link in self._links.values():
            link.sock.close()
        self._poll.close()

    def _send(self, link: _Link, since: float) -> bool:
        self._sent += 1
        try:
            link.send(since)
        except OSError:
            link.since = None
            self._unanswered += 1
            return False
        return True

    def _answers(self, seconds: float, *, exact: bool = False) -> Iterator[tuple[_Link, bool | None]]:
        """Links whose answer has come, and whether it was right; none: the link has ended without it.

        exact: epoll by itself waits in whole milliseconds, too coarse for a rate.
        """
        if exact:
            if seconds > 0:
                select.select([self._poll.fileno()], [], [], seconds)
            ready = self._poll.poll(0)
        else:
            ready = self._poll.poll(seconds)
            if not ready:
                self._give_up()
        for number, _ in ready:
            link = self._links[number]
            try:
                right = link.receive()
            except OSError:
                link.sock.close()  # takes it out of epoll as well
                self._alive -= 1
                if link.since is not None:
                    self._unanswered += 1
                    yield link, None
                continue
            if right is None:
                continue
            self._wrong += not right or link.since is None
            if link.since is not None:
                yield link, right

    def _give_up(self) -> None:
        self._unanswered += sum((link.since is not None) + len(link.waiting) for link in self._links.values())
        self._alive = 0

    def _report(self, elapsed: float, spent: float, lasted: float) -> dict[str, Any]:
        count = len(self._latencies)
        return {
            "senders": len(self._links),
            "seconds": round(elapsed, 3),
            "sent": self._sent,
            "acknowledged": count,
            "wrong": self._wrong + self._unanswered,
            "unanswered": self._unanswered,
            "rate": round(count / elapsed, 1) if elapsed > 0 else 0.0,
            "generator_us": round(spent / max(self._sent, 1) * 1e6, 2),
            "generator_busy": round(spent / lasted, 3) if lasted > 0 else 0.0,
        }


def spread(seconds: Sequence[float]) -> dict[str, float | None]:
    """Percentiles in milliseconds; none without a value."""
    ordered = sorted(seconds)
    shares = {"p50_ms": 0.5, "p90_ms": 0.9, "p95_ms": 0.95, "p99_ms": 0.99, "p999_ms": 0.999, "max_ms": 1.0}
    last = len(ordered) - 1
    return {
        name: round(ordered[min(int(len(ordered) * share), last)] * 1000, 3) if ordered else None
        for name, share in shares.items()
    }


def _bucket(series: list[array[float]], index: int) -> array[float]:
    while len(series) <= index:
        series.append(array("d"))
    return series[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--senders", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.0, help="measure so long...")
    parser.add_argument("--warm-up-seconds", type=float, default=0.0, help="...after so long")
    parser.add_argument("--messages", type=int, default=0, help="closed: or send so many")
    parser.add_argument("--rate", type=float, default=0.0, help="open: so many a second")
    parser.add_argument("--series-seconds", type=float, default=0.0, help="open: percentiles of each such part too")
    parser.add_argument("--name", default="B", help="control ids, record and visit numbers start with it")
    parser.add_argument("--ca", help="TLS: the PEM file that the receiver's certificate must come from")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    run = Run(options.host, options.port, senders=options.senders, name=options.name, ca=options.ca)
    gc.disable()  # nothing here makes cycles, and a collection would be taken for the receiver's latency
    if options.rate:
        report = run.open(
            rate=options.rate,
            seconds=options.seconds,
            warm_up_seconds=options.warm_up_seconds,
            series_seconds=options.series_seconds,
        )
    else:
        report = run.closed(seconds=options.seconds, warm_up_seconds=options.warm_up_seconds, messages=options.messages)
    run.close()
    print(json.dumps(report), flush=True)  # noqa: T201 - its one answer


if __name__ == "__main__":
    main()
