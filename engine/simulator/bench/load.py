"""The load: stop-and-wait senders in a process of their own, as cheap as Python lets them be.

It competes with the daemon for the same cores, so it parses nothing: messages are three templates with ids put in, and
an answer is right when it holds `MSA|AA|<id>`. Imports only what it needs. Its own processor time is in its report.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any, Final, cast

# One stay of one patient: admission, update, discharge home. Each about 1.2 kB. The places: control id, record number,
# account, attending, visit number.
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
    "DG1|1||I50.23^Acute on chronic systolic heart failure^I10||20260302091500|{0}|||||||||1\r"
    "DG1|2||E11.22^Type 2 diabetes mellitus with diabetic chronic kidney disease^I10||20260302091500|{0}|||||||||2\r"
    "DG1|3||J44.9^Chronic obstructive pulmonary disease, unspecified^I10||20260302091500|{0}|||||||||2"
)
_IN1: Final = "IN1|1|MCR^Federal Senior Plan|MCR01|Federal Senior Plan||||G4815||||||||Testerman^Quillon|SEL"
_PD1: Final = "PD1||A||P1026^Sedgwick^Dmitri^^^DR^MD^^BENCH^L"


def _template(event: str, structure: str, at: str, *segments: str) -> bytes:
    header = f"MSH|^~\\&|LOAD|BENCH|HANDOFF|BENCH|{at}||ADT^{event}^{structure}|%(control)s|P|2.5.1||||||UNICODE UTF-8"
    event_segment = f"EVN||{at}|||REG07^Registrar|{at}|BENCH"
    text = "\r".join((header, event_segment, _PID, _PD1, *segments, ""))
    return b"\x0b" + text.encode() + b"\x1c\r"


_ADMITTED: Final = _PV1 + "|" * 25 + "20260302091500|"
_DISCHARGED: Final = _PV1 + "|" * 17 + "01" + "|" * 8 + "20260302091500|20260305143000"
TEMPLATES: Final = (
    _template("A01", "ADT_A01", "20260302091500", _KIN, _ADMITTED, _DG1.format("A"), _IN1),
    _template("A08", "ADT_A01", "20260303101000", _KIN, _ADMITTED, _DG1.format("W"), _IN1),
    _template("A03", "ADT_A03", "20260305143000", _KIN, _DISCHARGED, _DG1.format("F"), _IN1),
)
_STAY: Final = len(TEMPLATES)


def frames(sender: int, run: str) -> Iterator[tuple[bytes, bytes]]:
    """(frame, what its answer holds) of one sender, without end: stay after stay, each of a new patient."""
    templates = [_compiled(template) for template in TEMPLATES]
    number = 0
    while True:
        patient = b"%b%03d%07d" % (run.encode(), sender, number // _STAY)
        for parts, order in templates:
            control = b"%b%03d%08d" % (run.encode(), sender, number)
            ids = {b"control": control, b"patient": b"7" + patient, b"visit": b"V" + patient}
            pieces = [parts[0]]
            for name, part in zip(order, parts[1:], strict=True):
                pieces += (ids[name], part)
            number += 1
            yield b"".join(pieces), b"MSA|AA|" + control


def _compiled(template: bytes) -> tuple[list[bytes], list[bytes]]:
    """The fixed pieces, and the names of the ids between them."""
    pieces = template.split(b"%(")
    parts, order = [pieces[0]], []
    for piece in pieces[1:]:
        name, _, rest = piece.partition(b")s")
        order.append(name)
        parts.append(rest)
    return parts, order


class Run:
    """What all senders of one run share."""

    def __init__(self, *, seconds: float, warm_up_seconds: float, messages: int) -> None:
        self.seconds = seconds
        self.warm_up_seconds = warm_up_seconds
        self.left = messages or (1 << 60)
        self.began = self.counts_from = self.until = 0.0
        self.latencies = array("d")
        self.sent = 0
        self.wrong = 0
        self.active = 0
        self.last_at = 0.0
        self.done: asyncio.Event = asyncio.Event()

    def start(self, senders: list[_Sender]) -> None:
        self.began = perf_counter()
        self.counts_from = self.began + self.warm_up_seconds
        self.until = self.counts_from + self.seconds if self.seconds else float("inf")
        self.active = len(senders)
        for sender in senders:
            sender.next(self.began)

    def stop_one(self) -> None:
        self.active -= 1
        if not self.active:
            self.done.set()


class _Sender(asyncio.Protocol):
    def __init__(self, run: Run, number: int, name: str) -> None:
        self._run = run
        self._frames = frames(number, name)
        self._transport: asyncio.Transport | None = None
        self._expected = b""
        self._rest = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the run only counts
        if self._expected:
            self._run.wrong += 1
            self._expected = b""
            self._run.stop_one()

    def next(self, now: float) -> None:
        run = self._run
        if run.left <= 0 or now >= run.until or self._transport is None:
            self._expected = b""
            run.stop_one()
            return
        run.left -= 1
        run.sent += 1
        frame, self._expected = next(self._frames)
        self._sent_at = now
        self._transport.write(frame)

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if data[-2:] != b"\x1c\r":
            self._rest = data
            return
        now = perf_counter()
        run = self._run
        if self._expected not in data:
            run.wrong += 1
        elif run.counts_from <= now <= run.until:
            run.latencies.append(now - self._sent_at)
            run.last_at = now
        self.next(now)


async def load(host: str, port: int, *, senders: int, name: str, run: Run) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    protocols: list[_Sender] = []
    for number in range(senders):
        _, protocol = await loop.create_connection(partial(_Sender, run, number, name), host, port)
        protocols.append(protocol)
    before = resource.getrusage(resource.RUSAGE_SELF)
    run.start(protocols)
    await run.done.wait()
    after = resource.getrusage(resource.RUSAGE_SELF)
    for protocol in protocols:
        protocol.close()
    own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    elapsed = (run.until if run.seconds else run.last_at) - run.counts_from
    latencies = sorted(run.latencies)
    count = len(latencies)
    return {
        "senders": senders,
        "seconds": round(elapsed, 3),
        "sent": run.sent,
        "acknowledged": count,
        "wrong": run.wrong,
        "rate": round(count / elapsed, 1) if elapsed > 0 else 0.0,
        "p50_ms": _percentile(latencies, 0.5),
        "p99_ms": _percentile(latencies, 0.99),
        "max_ms": _percentile(latencies, 1.0),
        "generator_us": round(own / max(run.sent, 1) * 1e6, 1),
    }


def _percentile(ordered: list[float], share: float) -> float | None:
    if not ordered:
        return None
    return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--senders", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.0, help="measure so long...")
    parser.add_argument("--warm-up-seconds", type=float, default=0.0, help="...after so long")
    parser.add_argument("--messages", type=int, default=0, help="or send so many")
    parser.add_argument("--name", default="B", help="control ids, record and visit numbers start with it")
    options = parser.parse_args()
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop

    async def work() -> dict[str, Any]:
        run = Run(seconds=options.seconds, warm_up_seconds=options.warm_up_seconds, messages=options.messages)
        return await load(options.host, options.port, senders=options.senders, name=options.name, run=run)

    with asyncio.Runner(loop_factory=factory) as runner:
        print(json.dumps(runner.run(work())), flush=True)  # noqa: T201 - its one answer


if __name__ == "__main__":
    main()
