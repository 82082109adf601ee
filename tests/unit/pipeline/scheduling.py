"""Messages of a scheduling system, for tests."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from heart import Heart, key

from engine.domain.outcome import Outcome

NEW_YORK = ZoneInfo("America/New_York")
SEEN_BY = "77^Welby^Marcus"


class Scheduled(Heart):
    """Each message comes a second after it says that it was written."""

    def send(self, payload: bytes) -> Outcome:
        written = payload.split(b"|", 8)[6].decode()
        self.now = datetime.strptime(written, "%Y%m%d%H%M%S").replace(tzinfo=NEW_YORK) + timedelta(seconds=1)
        return super().send(payload)


def siu(
    trigger: str,
    number: str | None = "36996",
    *,
    at: str = "20260306120000",
    start: str = "20260310091500",
    end: str = "",
    status: str = "",
    sch: dict[int, str] | None = None,
    pid3: str = "558181838^^^MRN^MR",
    pid: str = "Doe^Jane||19480312|F",
    pv1: str | None = None,
    service: str = "PCP^Primary care visit",
    clinician: str = SEEN_BY,
    place: str = "CLINIC^^^MAIN",
    sender: str = "CADENCE|MAIN",
    more: tuple[str, ...] = (),
) -> bytes:
    """number: SCH-2; None: there is none. pv1: PV1-19; none: no PV1. sch: further fields by their number."""
    fields = {1: "1", 2: number or "", 11: f"^^^{start}^{end}" if start or end else "", 25: status} | (sch or {})
    lines = [
        f"MSH|^~\\&|{sender}|HANDOFF|H|{at}||SIU^{trigger}^SIU_S12|{key(trigger, at, number or '')[:12]}|P|2.5.1",
        "|".join(["SCH", *(fields.get(number, "") for number in range(1, 27))]),
        f"PID|1||{pid3}||{pid}",
        *(() if pv1 is None else (f"PV1|1|O|||||||||||||||||{pv1}",)),
        "RGS|1|A",
        *((f"AIS|1|A|{service}",) if service else ()),
        *((f"AIL|1|A|{place}",) if place else ()),
        *((f"AIP|1|A|{clinician}",) if clinician else ()),
        *more,
    ]
    return "\r".join([*lines, ""]).encode()
