"""The senders: what happens to their patients, told in order, each message again until somebody has acknowledged it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

from simulation.installed import CHANNELS
from simulation.world import BEGIN, Process, World

ANSWER_SECONDS_MAX = 6.0
_PAUSE_SECONDS = 0.2
_START, _END = b"\x0b", b"\x1c\r"


@dataclass(frozen=True)
class Message:
    control_id: str
    channel: str
    payload: bytes
    key: str
    """The identifier that decides its order."""


@dataclass
class Script:
    """What one sender has to tell, in order."""

    channel: str
    messages: list[Message] = field(default_factory=list)


def scripts(random: Random, senders: int, messages: int) -> list[Script]:
    """Each sender has patients of its own, so that what is told of a patient has an order."""
    found = []
    for number in range(senders):
        script = Script(random.choice(list(CHANNELS)))
        told = _Teller(script, number)
        patients = [_Patient(f"{number}{index:02}") for index in range(random.randint(1, 4))]
        while len(script.messages) < messages:
            living = [patient for patient in patients if patient.merged_into is None]
            patient = random.choice(living)
            if len(living) > 1 and random.random() < 0.08:
                other = random.choice([one for one in living if one is not patient])
                patient.merged_into = other
                told.tell("A40", other, merged=patient)
            else:
                told.happens(patient, random)
        found.append(script)
    return found


@dataclass
class _Patient:
    number: str
    merged_into: _Patient | None = None
    stays: int = 0
    inside: bool = False
    out: bool = False
    phone: int = 0
    admitted: str = ""
    taken_back: bool = False
    """A discharge of the stay was cancelled."""


class _Teller:
    def __init__(self, script: Script, number: int) -> None:
        self._script, self._number = script, number
        self._at = BEGIN - timedelta(days=12) + timedelta(minutes=number)

    def happens(self, patient: _Patient, random: Random) -> None:
        if patient.stays and random.random() < 0.15:
            self._asks(patient, random)
        elif not patient.inside:
            if patient.out and random.random() < 0.2:
                patient.inside, patient.out, patient.taken_back = True, False, True
                self.tell("A13", patient)
                return
            patient.stays += 1
            patient.inside, patient.out, patient.taken_back = True, False, False
            patient.admitted = f"{self._at:%Y%m%d%H%M%S}+0000"
            self.tell(random.choice(["A01", "A01", "A04"]), patient)
        elif random.random() < 0.4:
            patient.inside, patient.out = False, True
            self.tell(
                "A03",
                patient,
                disposition=random.choice(["01", "06", "03", "20"] if random.random() < 0.3 else ["01", "06"]),
            )
        else:
            patient.phone = random.randrange(1000)
            self.tell("A08", patient)

    def _asks(self, patient: _Patient, random: Random) -> None:
        """Something that leaves a question to a person."""
        kinds = ["without a stay", "no event of ours"]
        if patient.inside:
            kinds += ["still here", "old news" if patient.taken_back else "nothing to cancel"]
        match random.choice(kinds):
            case "without a stay":
                self.tell("A03", patient, stay=False)
            case "no event of ours":
                self.tell("A24", patient, stay=False)
            case "still here":
                self.tell("A03", patient, disposition="30")
            case "old news":
                self.tell("A03", patient, disposition="01", late=timedelta(hours=1, minutes=30))
            case _:
                self.tell("A13", patient)

    def tell(
        self,
        event: str,
        patient: _Patient,
        *,
        disposition: str = "",
        merged: _Patient | None = None,
        stay: bool = True,
        late: timedelta = timedelta(),
    ) -> None:
        """late: so long ago it was."""
        self._at += timedelta(hours=1)
        at = f"{self._at - late:%Y%m%d%H%M%S}+0000"
        control_id = f"S{self._number}M{len(self._script.messages):03}"
        number, phone = patient.number, f"555{patient.phone:04}"
        structure = {"A40": "ADT_A39", "A03": "ADT_A03"}.get(event, "ADT_A01")
        lines = [
            f"MSH|^~\\&|ADT{self._number}|SIM|HANDOFF|H|{at}||ADT^{event}^{structure}|{control_id}|P|2.5.1",
            f"EVN|{event}|{at}",
            f"PID|1||{number}^^^MRN^MR||Person{number}^Sim||19480312|F|||1 Lane^^Town||^PRN^PH^^1^217^{phone}",
        ]
        if merged is not None:
            lines.append(f"MRG|{merged.number}^^^MRN^MR")
        elif stay:
            pv1 = [""] * 46
            pv1[0], pv1[1], pv1[2], pv1[3] = "PV1", "1", "E" if event == "A04" else "I", "3W^301^A"
            pv1[19] = f"V{patient.number}N{patient.stays}^^^MRN"
            pv1[36] = disposition
            pv1[44] = patient.admitted
            pv1[45] = at if event == "A03" else ""
            lines += ["|".join(pv1), "DG1|1||I50.9^Heart failure^I10||20260201|W"]
        payload = "".join(line + "\r" for line in lines).encode()
        self._script.messages.append(Message(control_id, self._script.channel, payload, patient.number))


class Sender:
    """Stop and wait: the next message when the last one is acknowledged, to whichever node takes it.

    pause_seconds: between messages, about. connect: gives a line to some node, or none. acknowledged: told of each
    positive answer.
    """

    def __init__(
        self,
        world: World,
        process: Process,
        script: Script,
        pause_seconds: float,
        connect: Callable[[str], Line | None],
        acknowledged: Callable[[Message], None],
    ) -> None:
        self._world, self._process, self._script = world, process, script
        self._pause_seconds = pause_seconds
        self._connect, self._acknowledged = connect, acknowledged
        self._line: Line | None = None
        self.done = False
        self.last = ""

    async def run(self) -> None:
        random = self._world.random
        for message in self._script.messages:
            self.last = message.control_id
            await self._tell(message)
            if random.random() < 0.1:  # it has forgotten that, and says it again
                await self._tell(message)
            await asyncio.sleep(random.expovariate(1 / self._pause_seconds))
        if self._line is not None:
            self._line.close()
        self.done = True

    async def _tell(self, message: Message) -> None:
        world = self._world
        while True:
            if self._line is None or self._line.closed or world.random.random() < 0.03:
                if self._line is not None:
                    self._line.close()
                self._line = self._connect(message.channel)
                if self._line is None:
                    await asyncio.sleep(_PAUSE_SECONDS)
                    continue
            self._line.send(_START + message.payload + _END)
            try:
                answer = await asyncio.wait_for(self._line.answer(), ANSWER_SECONDS_MAX)
            except TimeoutError:
                answer = b""
            if not answer:
                self._line.close()
                await asyncio.sleep(_PAUSE_SECONDS * world.random.random())
                continue
            code, control_id = _read(answer)
            world.note(f"{message.control_id} answered {code}")
            if control_id != message.control_id:
                world.fail(f"the answer to {message.control_id} is for {control_id}")
            if code == "AA":
                self._acknowledged(message)
                return
            if code != "AR":
                world.fail(f"{message.control_id} was answered {code}")
                return
            await asyncio.sleep(_PAUSE_SECONDS)


def _read(answer: bytes) -> tuple[str, str]:
    for line in answer.decode().split("\r"):
        if line.startswith("MSA|"):
            return line.split("|")[1], line.split("|")[2]
    return "?", "?"


class Line:
    """The sender's end of a connection: frames come in whatever pieces the network makes of them."""

    def __init__(self, process: Process, write: Callable[[bytes], None], close: Callable[[], None]) -> None:
        self._process, self._write, self._close = process, write, close
        self._received = b""
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed = False

    def send(self, data: bytes) -> None:
        self._write(data)

    async def answer(self) -> bytes:
        """The next frame; empty: the connection is gone."""
        return await self._answers.get()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._close()

    def received(self, data: bytes) -> None:
        self._received += data
        while _END in self._received:
            frame, _, self._received = self._received.partition(_END)
            self._answers.put_nowait(frame.removeprefix(_START))

    def lost(self) -> None:
        self.closed = True
        self._answers.put_nowait(b"")
