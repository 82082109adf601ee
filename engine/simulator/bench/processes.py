"""What a family of processes uses, read from /proc: memory and processor time, of every process and of all together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from engine.domain.record import Record

_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


class Memory(Record, frozen=True, kw_only=True):
    """In MB. resident: of each process, main first. proportional: of all, with shared pages counted once."""

    resident: tuple[float, ...]
    proportional: float
    peak: tuple[float, ...]
    """The most that was ever resident of each process."""


class Spent(Record, frozen=True, kw_only=True):
    """Processor seconds since a process started: of the thread that it began with, and of its other threads."""

    first: float
    others: float


class MachineTime(Record, frozen=True, kw_only=True):
    """Processor seconds of all cores since the machine started. stolen: what the host gave to other machines."""

    busy: float
    stolen: float


def family(pid: int) -> list[int]:
    """A process and what it started, the eldest first."""
    try:
        children = [child for task in Path(f"/proc/{pid}/task").iterdir() for child in _words(task / "children")]
    except OSError:
        children = []
    return [pid, *(member for child in children for member in family(int(child)))]


def memory(pid: int) -> Memory:
    """Of a process and all that it started."""
    members = family(pid)
    sizes = [_kilobytes(Path(f"/proc/{member}/smaps_rollup")) for member in members]
    states = [_kilobytes(Path(f"/proc/{member}/status")) for member in members]
    return Memory(
        resident=tuple(round(state.get("VmRSS", 0) / 1024, 1) for state in states),
        # The daemon lets nobody look closer; to root it can't refuse that.
        proportional=round(
            sum(size.get("Pss", state.get("VmRSS", 0)) for size, state in zip(sizes, states, strict=True)) / 1024, 1
        ),
        peak=tuple(round(state.get("VmHWM", 0) / 1024, 1) for state in states),
    )


def spent(pid: int) -> dict[int, Spent]:
    """Of a process and all that it started, by process id, the eldest first."""
    result: dict[int, Spent] = {}
    for member in family(pid):
        whole = _processor_seconds(Path(f"/proc/{member}/stat"))
        first = _processor_seconds(Path(f"/proc/{member}/task/{member}/stat"))
        result[member] = Spent(first=first, others=max(0.0, whole - first))
    return result


def machine_time() -> MachineTime:
    words = [int(word) for word in _words(Path("/proc/stat"))[1:9]]
    if not words:
        return MachineTime(busy=0.0, stolen=0.0)
    user, nice, system, _idle, _iowait, irq, softirq, stolen = words
    busy = user + nice + system + irq + softirq
    return MachineTime(busy=busy / _TICKS_A_SECOND, stolen=stolen / _TICKS_A_SECOND)


def _processor_seconds(stat: Path) -> float:
    try:
        fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


def _kilobytes(file: Path) -> dict[str, int]:
    """The lines `Name:  123 kB` of a file."""
    found: dict[str, int] = {}
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB":
            found[name] = int(words[0])
    return found


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return []
