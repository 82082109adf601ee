"""Texts to phones that are simulated: a network of our own, for the demo, for tests and to rehearse with staff.

What it says comes back as a carrier's words do: the daemon asks for it (`ear`), puts it into the journal, and then only
has it forgotten. Nobody outside gets anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from typing import ClassVar, Final, Literal

import msgspec

from engine.clock import Clock
from engine.connectors.base import (
    NOT_ATTEMPTED,
    CarrierWord,
    DestinationSettings,
    Ear,
    Heard,
    Incoming,
    Result,
    always,
    delivered,
    failed,
    stamps,
)
from engine.connectors.phones import SILENT, Habits, PhoneError, Phones, Word
from engine.connectors.twilio import code_of
from engine.domain.cause import TextSettled
from engine.domain.delivery import Notice, Notification, Operation, QueuedDelivery
from engine.domain.page import ack_code
from engine.errors import DeliveryError, DeliveryFailure, Problem, SettingsError
from engine.settings import Configuration, Text
from engine.yamlfile import parse
from engine.yamlmodel import validate

_USUAL: Final = "usual"
_NUMBER: Final = "+15005550000"
"""Of ours."""


class SimulatedPhoneDestination(DestinationSettings):
    """Phones that are simulated: nobody gets anything."""

    takes: ClassVar = frozenset({Operation.SEND_TEXT.what, Operation.NOTIFY.what})
    sends_texts: ClassVar = True

    type: Literal["simulated_phone"]
    """`simulated_phone`: a phone network of our own."""
    path: Text = "var/phones"
    """Folder of its files, relative to config.yaml; what they hold is sealed."""
    habits: Text | None = None
    """What whoever has a phone does with a text: a YAML file, relative to config.yaml, or `usual` for those of the
    demo. None: phones get their texts, and say nothing by themselves."""

    @property
    def folder(self) -> str:
        return self.path

    def made_from(self, configuration: Configuration) -> tuple[object, ...]:
        return stamps(configuration, self.habits if self.habits != _USUAL else None)

    def phones(self, name: str, configuration: Configuration) -> Phones:
        """Its network. Raises SettingsError."""
        return Phones(configuration.path(self.path) / f"{name}.db", self._habits(name, configuration))

    def build(self, name: str, configuration: Configuration, *, clock: Clock) -> SimulatedPhoneConnector:
        return SimulatedPhoneConnector(name, self.phones(name, configuration), clock=clock)

    def ear(self, name: str, configuration: Configuration) -> PhoneEar:
        return PhoneEar(Phones(configuration.path(self.path) / f"{name}.db"))

    def check_files(self, name: str, configuration: Configuration) -> Iterator[Problem]:
        try:
            self._habits(name, configuration)
        except SettingsError as error:
            yield from error.problems

    def _habits(self, name: str, configuration: Configuration) -> Habits:
        if self.habits is None:
            return SILENT
        if self.habits == _USUAL:
            text = (files("engine.connectors") / "phone_habits.yaml").read_text(encoding="utf-8")
            return validate(parse(text, "phone_habits.yaml"), Habits)
        try:
            text = configuration.path(self.habits).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            place, text = ("destinations", name, "habits"), f"{self.habits} can't be read: name a YAML file of habits"
            raise SettingsError((configuration.site_document.problem(place, text),)) from None
        return validate(parse(text, self.habits), Habits)


class SimulatedPhoneConnector:
    """A text that it is given twice the network has once."""

    idempotent: Final = True
    ordered_batches: Final = False

    def __init__(self, name: str, phones: Phones, *, clock: Clock) -> None:
        self.name: Final = name
        self._phones = phones
        self._clock = clock
        self._stopped = False

    async def connect(self) -> None:
        """Its file is opened for each text."""

    async def deliver(self, batch: Sequence[QueuedDelivery], may_go_on: Callable[[], bool] = always) -> list[Result]:
        results: list[Result] = []
        for queued in batch:
            if self._stopped or not may_go_on():
                break
            results.append(await asyncio.to_thread(self._deliver, queued))
        return results + [NOT_ATTEMPTED] * (len(batch) - len(results))

    def stop(self) -> None:
        self._stopped = True

    async def close(self) -> None:
        self._stopped = False

    def _deliver(self, queued: QueuedDelivery) -> Result:
        try:
            said = queued.delivery.content
        except msgspec.DecodeError:
            said = None
        if isinstance(said, Notice):
            number, text, channel = said.to, said.body, said.channel
        elif isinstance(said, Notification) and said.to:
            number, text, channel = said.to, f"{said.text} Reply ACK {ack_code(said.page_id)}", "sms"
        elif isinstance(said, Notification):
            return failed(DeliveryFailure.PERMANENT, "no-number", "the contact has no number")
        else:
            return failed(DeliveryFailure.PERMANENT, "payload-unreadable", "the delivery holds no text")
        try:
            key, now = queued.delivery.idempotency_key, self._clock.now()
            taken = self._phones.send(key, number, text, now, channel=channel, sender=_NUMBER)
        except PhoneError as error:
            raise DeliveryError(self.name, "file-unusable", str(error), kind=DeliveryFailure.TRANSIENT) from None
        if taken.error is not None:
            return failed(DeliveryFailure.PERMANENT, code_of(taken.error), "the network does not carry it")
        return delivered(taken.sid)


class PhoneEar(Ear):
    def __init__(self, phones: Phones) -> None:
        self._phones = phones

    def hear(self, clock: Clock, limit: int) -> Sequence[Heard]:
        if not self._phones.is_there:
            return ()
        return [Heard(id=number, said=_said(word)) for number, word in self._phones.words(clock.now(), limit)]

    def heard(self, ids: Sequence[int]) -> None:
        self._phones.told(ids)


def _said(word: Word) -> Incoming | CarrierWord:
    if word.kind == "incoming":
        return Incoming(
            id=word.sid,
            channel=word.channel,
            number=word.number,
            to=word.to or _NUMBER,
            text=word.text,
            answered=word.answered,
        )
    return CarrierWord(
        key=word.key,
        receipt=word.sid,
        result=TextSettled.DELIVERED if word.kind == "delivered" else TextSettled.FAILED,
        detail=code_of(word.error) if word.error is not None else None,
    )
