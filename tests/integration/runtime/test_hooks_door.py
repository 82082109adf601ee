"""The door for what far ends say: who gets in, how much, and what they are told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import web
from peers.twilio import SID, TOKEN, signed

from engine.connectors.base import Acknowledgment, CarrierWord, Incoming
from engine.connectors.file import FileDestination
from engine.connectors.twilio import TwilioDestination
from engine.errors import StoreUnavailableError
from engine.runtime import hooks
from engine.runtime.hooks import create_hooks

PUBLIC = "https://hooks.example.org/outside"
NUMBER = "+15185550123"


class Journal:
    """Takes what it hears, after `gate`; or says that it can't."""

    def __init__(self) -> None:
        self.heard: list[Incoming | CarrierWord] = []
        self.down = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def acknowledgment(self, _: str, __: Acknowledgment) -> bool:
        return False

    async def carrier_word(self, _: str, said: CarrierWord) -> bool:
        await self._put(said)
        return said.key == "ours"

    async def incoming(self, _: str, said: Incoming) -> None:
        await self._put(said)

    async def _put(self, said: Incoming | CarrierWord) -> None:
        await self.gate.wait()
        if self.down:
            raise StoreUnavailableError("the journal can't be written now")
        self.heard.append(said)


class Door:
    def __init__(self) -> None:
        self.journal = Journal()
        self.counted: Counter[tuple[str, str]] = Counter()
        self.public: str | None = PUBLIC
        phone = TwilioDestination(type="twilio", account_sid=SID, auth_token=TOKEN, **{"from": "+15005550006"})
        self.destinations = {"phone": phone, "files": FileDestination(type="file", path="x")}

    async def __aenter__(self) -> Self:
        def count(name: str, what: str) -> None:
            self.counted[name, what] += 1

        app = create_hooks(self.destinations.get, self.journal, count, lambda: self.public)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        await self._runner.cleanup()

    async def call(
        self, path: str, form: dict[str, str], headers: dict[str, str] | None = None, **how: Any
    ) -> tuple[int, str, dict[str, str]]:
        made, body = signed((self.public or self.url) + path, list(form.items()), **how)
        async with self.session.post(self.url + path, data=body, headers=made | (headers or {})) as answer:
            return answer.status, await answer.text(), dict(answer.headers)


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with Door() as made:
        yield made


def reply(sid: str, text: str = "hi") -> dict[str, str]:
    return {"MessageSid": sid, "From": NUMBER, "To": "+15005550006", "Body": text}


async def test_a_text_is_taken_and_answered_with_nothing_to_say(door: Door) -> None:
    status, text, headers = await door.call("/hooks/phone/message", reply("SM1"))
    assert (status, text) == (200, '<?xml version="1.0" encoding="UTF-8"?><Response></Response>')
    assert headers["Content-Type"].startswith("text/xml")
    assert [one.text for one in door.journal.heard if isinstance(one, Incoming)] == ["hi"]
    assert door.counted == {("phone", "taken"): 1}


async def test_without_a_public_address_the_one_that_was_called_is_signed(door: Door) -> None:
    door.public = None
    assert (await door.call("/hooks/phone/message", reply("SM1")))[0] == 200


async def test_what_a_proxy_adds_to_a_call_changes_nothing(door: Door) -> None:
    said = {"X-Forwarded-Host": "evil.example.org", "X-Forwarded-Proto": "http", "Host": "evil.example.org"}
    assert (await door.call("/hooks/phone/message", reply("SM1"), said))[0] == 200


@pytest.mark.parametrize("path", ["message", "status"])
async def test_a_forged_call_is_refused_counted_and_leaves_nothing(
    door: Door, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    for how in ({"token": "x"}, {"public": "https://hooks.example.org/hooks/phone/message"}, {"algorithm": "sha256"}):
        assert (await door.call(f"/hooks/phone/{path}", reply("SM1", "secret words"), **how))[0] == 401
    assert (door.counted, door.journal.heard) == ({("phone", "refused"): 3}, [])
    assert "secret words" not in caplog.text
    assert NUMBER not in caplog.text


async def test_words_about_texts_are_answered_with_2xx_whether_they_are_ours_or_not(door: Door) -> None:
    form = {"MessageSid": "SM1", "MessageStatus": "delivered"}
    for key, what in (("ours", "taken"), ("theirs", "ignored")):
        assert (await door.call(f"/hooks/phone/status?of={key}", form))[0] == 200
        assert door.counted["phone", what] == 1
    assert (await door.call("/hooks/phone/status", form))[0] == 200
    assert door.counted["phone", "ignored"] == 2


async def test_who_is_no_carrier_and_what_can_not_be_read_are_told_so(door: Door) -> None:
    assert (await door.call("/hooks/nobody/message", reply("SM1")))[0] == 404
    assert (await door.call("/hooks/files/message", reply("SM1")))[0] == 200
    assert (await door.call("/hooks/phone/message", {"Body": "x"}))[0] == 400
    assert (await door.call("/hooks/phone/message", reply("SM1", "x" * 70_000)))[0] == 400
    async with door.session.post(f"{door.url}/hooks/phone/message", data=b"x" * 300_000) as answer:
        assert answer.status == 413
    async with door.session.get(f"{door.url}/hooks/phone/message") as answer:
        assert answer.status == 405
    assert door.journal.heard == []


async def test_what_could_not_be_put_on_disk_is_asked_for_again(door: Door) -> None:
    door.journal.down = True
    status, _, headers = await door.call("/hooks/phone/message", reply("SM1"))
    assert (status, headers["Retry-After"], door.counted) == (503, "5", {("phone", "busy"): 1})


async def test_a_carrier_is_not_kept_waiting(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_CALL_SECONDS_MAX", 0.05)
    door.journal.gate.clear()
    assert (await door.call("/hooks/phone/message", reply("SM1")))[0] == 503
    assert door.journal.heard == []


async def test_too_many_at_once_are_asked_to_come_again_and_nothing_that_was_taken_is_lost(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "_CALLS_MAX", 5)
    door.journal.gate.clear()
    waiting = [asyncio.create_task(door.call("/hooks/phone/message", reply(f"SM{n}"))) for n in range(12)]
    done, _ = await asyncio.wait(waiting, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    while len(done) < 7:
        done, _ = await asyncio.wait(waiting, timeout=0.02)
    assert {task.result()[0] for task in done} == {503}
    door.journal.gate.set()
    statuses = [(await task)[0] for task in waiting]
    assert (statuses.count(200), statuses.count(503)) == (5, 7)
    assert len(door.journal.heard) == 5


async def test_a_peer_that_calls_without_end_is_asked_to_come_again(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "_PER_SECOND", 0.001)
    monkeypatch.setattr(hooks, "_BURST", 3.0)
    async with Door() as narrow:
        answers = [await narrow.call("/hooks/phone/message", reply(f"SM{n}")) for n in range(5)]
    assert [status for status, _, __ in answers] == [200, 200, 200, 429, 429]
    assert int(answers[-1][2]["Retry-After"]) > 900
    assert len(narrow.journal.heard) == 3


async def test_a_minute_of_a_busy_carrier_is_within_the_limits() -> None:
    from engine.runtime.limits import Buckets

    peers = Buckets(hooks._PER_SECOND, hooks._BURST)
    assert all(peers.take("proxy", number / (10_000 / 60)) == 0 for number in range(10_000))
