"""Follow-up visits of the simulated day: what its scheduling system sends (SIU) of those who have gone home."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from heapq import heappop, heappush
from random import Random
from typing import Final, NamedTuple

from engine.simulator.messages import stamper
from engine.simulator.pathways import Mix
from engine.simulator.traffic import Simulated

_DAY: Final = 86_400
_HOME: Final = frozenset({b"1", b"01", b"6", b"06", b"81"})
"""Dispositions (PV1-36) of those who go home."""
_MINUTES: Final = 30
_SERVICES: Final = Mix(
    ["PCP^Primary care visit", "CARD^Cardiology visit", "PT^Physical therapy", "DERM^Skin check"], [6, 2, 1, 1]
)
_STORIES: Final = Mix(
    [("kept",), ("moved", "kept"), ("missed",), ("cancelled",), ("moved", "cancelled")], [65, 12, 10, 10, 3]
)
"""What becomes of a visit that is booked."""


class _Visit(NamedTuple):
    case: int
    number: str
    sender: str
    """Facility and receivers, as in MSH-4 to MSH-6."""
    pid: str
    clinician: str
    service: str
    starts_at: int
    story: tuple[str, ...]


def with_visits(stream: Iterator[Simulated], *, seed: int, day: date) -> Iterator[Simulated]:
    """The stream with messages of the visits that inpatients have booked when they went home, all in order of time.

    A visit lies two to seven days ahead: that it was kept is told in a stream of several days alone.
    """
    random = Random(f"visits/{seed}/{day.isoformat()}")
    stamp = stamper(day)
    waiting: list[tuple[int, int, str, _Visit]] = []
    told = 0
    for number, one in enumerate(stream):
        while waiting and waiting[0][0] <= one.at:
            at, _, what, visit = heappop(waiting)
            told += 1
            yield _message(visit, what, at, f"S{visit.number}{told:06d}", stamp)
            _go_on(waiting, visit, what, at, random)
        if (booked := _booked(one, number, random)) is not None:
            heappush(waiting, (one.at + int(600 + 7200 * random.random()), number, "booked", booked))
        yield one


def _booked(one: Simulated, number: int, random: Random) -> _Visit | None:
    """The visit that a discharge leads to; none: none."""
    lines = {
        line[:3]: line.split(b"|") for line in one.payload.split(b"\r") if line[:3] in {b"MSH", b"PID", b"PD1", b"PV1"}
    }
    pv1 = lines.get(b"PV1", [])
    if not lines[b"MSH"][8].startswith(b"ADT^A03") or len(pv1) < 37 or pv1[2] != b"I" or pv1[36] not in _HOME:
        return None
    if random.random() < 0.3:
        return None
    ahead = one.at // _DAY + 2 + int(6 * random.random())
    return _Visit(
        case=one.case,
        number=f"{pv1[19].split(b'^')[0].decode()}-{number}",
        sender=b"|".join(lines[b"MSH"][3:6]).decode(),
        pid=b"|".join(lines[b"PID"]).decode(),
        clinician=lines[b"PD1"][4].decode(),
        service=_SERVICES.draw(random),
        starts_at=ahead * _DAY + (8 + int(9 * random.random())) * 3_600 + 1_800 * int(2 * random.random()),
        story=_STORIES.draw(random),
    )


def _go_on(waiting: list[tuple[int, int, str, _Visit]], visit: _Visit, what: str, at: int, random: Random) -> None:
    """What is told of the visit next, and when."""
    if not visit.story:
        return
    if what == "moved":
        visit = visit._replace(starts_at=visit.starts_at + _DAY)
    then, *rest = visit.story
    hours = {"kept": 1, "missed": 3}
    told_at = visit.starts_at + hours[then] * 3_600 if then in hours else at + 3_600 + int(36_000 * random.random())
    heappush(waiting, (told_at, int(1e9 * random.random()), then, visit._replace(story=tuple(rest))))


_EVENTS: Final = {
    "booked": ("S12", "Booked"), "moved": ("S13", "Booked"), "kept": ("S14", "Complete"), "missed": ("S26", "Noshow"),
    "cancelled": ("S15", "Cancelled"),
}  # fmt: skip


def _message(visit: _Visit, what: str, at: int, control_id: str, stamp: Callable[[int], str]) -> Simulated:
    event, status = _EVENTS[what]
    starts_at = visit.starts_at + (_DAY if what == "moved" else 0)
    sch = {2: f"F{visit.number}", 6: "FOLLOWUP", 9: str(_MINUTES), 10: "MIN", 25: status}
    sch[11] = f"^^^{stamp(starts_at)}^{stamp(starts_at + 60 * _MINUTES)}"
    lines = [
        f"MSH|^~\\&|SCHED|{visit.sender}|{stamp(at)}||SIU^{event}^SIU_S12|{control_id}|P|2.5.1||||||UNICODE UTF-8",
        "|".join(["SCH", *(sch.get(number, "") for number in range(1, 26))]),
        visit.pid,
        "RGS|1|A",
        f"AIS|1|A|{visit.service}",
        "AIL|1|A|CLN1^^^MAIN",
        *([f"AIP|1|A|{visit.clinician}"] if visit.clinician else []),
        "",
    ]
    return Simulated(visit.case, at, control_id.encode(), "\r".join(lines).encode())
