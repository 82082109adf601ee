"""Texts to a carrier and back, with the real daemon: what is sent, what is heard, and what a killed daemon does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Any, Self
from zoneinfo import ZoneInfo

import pytest
from harness import Daemon, MakeDaemon, Site, eventually
from peers.ports import free_port
from peers.twilio import SID, TOKEN, Message, Twilio

from engine.connectors.registry import load
from engine.domain.chart import Chart
from engine.domain.text import Text
from engine.snapshot import Snapshot
from engine.store.opening import open_store

FIRST = "channels/examples/first-message.hl7"
KEY = "MRN:558181838"
NUMBER = "+12125550143"
NEW_YORK = ZoneInfo("America/New_York")
AT = ("--purpose", "care", "--channel", "sms", "--number", NUMBER, "--how", "form")


class Carrier:
    """The peer, in a thread of its own."""

    def __init__(self) -> None:
        self.peer = Twilio()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self.peer.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self.peer.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


@pytest.fixture
def carrier() -> Iterator[Carrier]:
    with Carrier() as made:
        yield made


class Hospital:
    """A test site at two in the afternoon of New York, with one patient who was just discharged and may be texted."""

    def __init__(self, site: Site, make_daemon: MakeDaemon, destination: str, **settings: str) -> None:
        self.site = site
        self._make = make_daemon
        self.hooks = free_port()
        self._file = site.folder / "var/ahead"
        now = datetime.now(UTC)
        noon = datetime.combine((now + timedelta(days=1)).astimezone(NEW_YORK).date(), time(14), NEW_YORK)
        self.ahead = noon - now
        site.edit(
            "config.yaml",
            (r"(?m)^node:", "purpose: test\nclock: {offset_seconds_file: var/ahead}\nnode:"),
            (r"(?m)^destinations:", f"hooks: {{port: {self.hooks}}}\ndestinations:\n  phone: {{{destination}}}"),
        )
        site.edit("channels/main-campus.yaml", (r"(?m)^deliver:", "deliver:\n  - {to: phone, what: [text]}"))
        self.later(timedelta(0))
        self.daemon: Daemon = make_daemon(site)

    def later(self, more: timedelta) -> None:
        self.ahead += more
        self._file.parent.mkdir(exist_ok=True)
        new = self._file.with_suffix(".new")
        new.write_text(f"{self.ahead.total_seconds():.0f}\n")
        new.replace(self._file)

    def discharge(self) -> None:
        self.site.run("send", f"127.0.0.1:{self.daemon.port()}", FIRST, "--shift-to-now")
        self.daemon.settled()
        self.site.run("consent", "give", KEY, *AT)

    def chart(self) -> Chart:
        with open_store(load(Snapshot.read(self.site.config)), "tool") as store, store.reader() as conn:
            (found,) = store.charts.by_key(conn, KEY)
            return found

    def text(self, step: str = "day-0") -> Text:
        return next(one for one in self.chart().texts if one.step == step)

    def state(self, step: str = "day-0") -> str:
        return self.text(step).state.value

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.hooks}/hooks/phone/{path}"


TWILIO = (
    "type: twilio, account_sid: {sid}, auth_token: {token}, from: '+15005550006', base_url: '{url}',"
    " look_up_seconds: 0.2, retry: {{first_seconds: 0.1, seconds_max: 0.2, breaker_failures: 50}}, timeout_seconds: 5"
)


@pytest.fixture
def hospital(site: Site, make_daemon: MakeDaemon, carrier: Carrier) -> Hospital:
    made = Hospital(site, make_daemon, TWILIO.format(sid=SID, token=TOKEN, url=carrier.peer.url))
    made.discharge()
    return made


def texts_of(carrier: Carrier) -> list[Message]:
    return [one for one in carrier.peer.messages if one.form["To"] == NUMBER]


def heard(hospital: Hospital) -> list[Any]:
    """Texts that came in, as the journal has them."""
    found = hospital.site.json("messages", "list", "--kind", "reply", "--limit", "20000")
    return [one for one in found if one["type"] == "text-received"]


def test_a_text_is_sent_told_of_and_answered(hospital: Hospital, carrier: Carrier) -> None:
    assert hospital.state() == "planned"
    hospital.later(timedelta(minutes=31))
    eventually(lambda: hospital.state() == "sent")
    (message,) = texts_of(carrier)
    assert carrier.run(carrier.peer.tell(message, "delivered")) == 200
    eventually(lambda: hospital.state() == "delivered")
    for status in ("sent", "queued", "delivered"):
        assert carrier.run(carrier.peer.tell(message, status)) == 200
    said = carrier.peer.write(hospital.url("message"), NUMBER, "Thank you", sid="SM" + "9" * 32)
    assert carrier.run(said) == 200
    assert len(eventually(lambda: heard(hospital))) == 1
    assert hospital.state() in {"delivered", "replied"}
    second = eventually(lambda: found[1] if len(found := texts_of(carrier)) == 2 else None)
    assert "Our staff will read your text" in second.form["Body"]
    tasks = hospital.site.json("tasks", "list")
    assert "The patient has written: read it, and answer by phone" in {one["reason"] for one in tasks}
    stop = carrier.peer.write(hospital.url("message"), NUMBER, "please stop texting me", sid="SM" + "8" * 32)
    assert carrier.run(stop) == 200
    third = eventually(lambda: found[2] if len(found := texts_of(carrier)) == 3 else None)
    assert "we will not text you any more" in third.form["Body"]
    hospital.later(timedelta(days=9))
    assert len(texts_of(carrier)) == 3
