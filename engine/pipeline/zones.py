"""Whose zone the times of a message are in that have no offset of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from engine.domain.moment import Moment
from engine.hl7v2.message import Message
from engine.hl7v2.path import Path
from engine.mapping.apply import Reading
from engine.mapping.functions import Flaw
from engine.mapping.times import read_time
from engine.settings import Zones as ZoneSettings

OFFSET_DIFFERS: Final = "offset-differs"

_FACILITY: Final = Path.parse("PV1-3.4")
_SENT: Final = Path.parse("MSH-7")
_OFFSET: Final = re.compile(r"(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2})?)\Z")
_DATE_CHARS: Final = 10
"""Of a date: an offset stands behind an hour at least."""


@dataclass(frozen=True, slots=True)
class Zones:
    """A channel's zones, compiled. `default` is that of the channel."""

    default: ZoneInfo
    from_message: bool
    senders: Mapping[str, ZoneInfo]

    @staticmethod
    def of(settings: ZoneSettings) -> Zones:
        senders = {name: ZoneInfo(zone) for name, zone in settings.senders.items()}
        return Zones(ZoneInfo(settings.default), settings.from_ == "message", senders)

    def choose(self, message: Message, notes: Reading) -> tzinfo:
        """The offset of MSH-7 where the channel asks for it, else the sender's zone, else the channel's.

        An offset that differs from that of the zone at that time is noted.
        """
        zone = self._sender(message) if self.senders else self.default
        sent = message.header.sent_at
        found = _OFFSET.search(sent, _DATE_CHARS) if len(sent) > _DATE_CHARS and not sent.isdecimal() else None
        if found is None:
            return zone
        time = read_time(sent, zone)
        moment = time.value if isinstance(time, Flaw) else time
        at = moment.at if isinstance(moment, Moment) and moment.timed else None
        if at is None:
            return zone
        if self.from_message:
            return _fixed(at.utcoffset() or timedelta())
        if at.astimezone(zone).utcoffset() != at.utcoffset():
            notes.append(f"{OFFSET_DIFFERS}:{_SENT.text}")
        return zone

    def _sender(self, message: Message) -> tzinfo:
        """By sending facility (MSH-4), sending application (MSH-3) or the facility of the place (PV1-3.4)."""
        for name in (_first(message.get("MSH-4")), _first(message.get("MSH-3")), _first(message.get(_FACILITY))):
            if name and name in self.senders:
                return self.senders[name]
        return self.default


def _first(text: str | None) -> str:
    return (text or "").strip()


@lru_cache(maxsize=128)
def _fixed(offset: timedelta) -> tzinfo:
    return timezone(offset)
