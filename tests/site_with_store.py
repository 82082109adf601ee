"""A site with a day in its store, and the commands run on it in this process."""

from __future__ import annotations

import contextlib
import io
import json
import re
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from held_leases import held_leases

from engine.bootstrap import drop_shadow, make_store, open_shadow
from engine.cli import app
from engine.clock import FixedClock
from engine.connectors.registry import load
from engine.domain.delivery import DeliveryState
from engine.domain.message import AckState, Receipt
from engine.hl7v2.ordering import ordering_key
from engine.pipeline.acceptance import Rules, is_test, judge, summarize
from engine.runtime.configurations import compile_site, recorded_configuration, with_former
from engine.runtime.processor import Processor
from engine.runtime.status import Status, StatusFile, status_path
from engine.runtime.worker import Tally
from engine.snapshot import Snapshot
from engine.store.opening import open_store
from engine.store.outbox import Settled

NAMES = (
    "DOE",
    "JANE",
    "ELM",
    "10016",
    "5550143",
    "+12125550143",
    "558181838",
    "V90001",
    "1947",
    "CARTER",
    "LIU",
    "I50.9",
)
"""What the first message says of the patient; nothing of it may be seen without --reveal."""


_TASK_ACTS = {("tasks", act) for act in ("done", "assign", "attempt", "snooze", "cancel", "undo")}
_ACTS = (
    _TASK_ACTS
    | {("consents", "add"), ("consents", "revoke"), ("consent", "give"), ("consent", "import"), ("consent", "revoke")}
    | {("plans", "migrate"), ("held", "dismiss"), ("quality", "resolve"), ("quality", "reopen")}
)

_BY_CHANCE = re.compile(r"\b[0-9a-f]{16,}\b|\.[0-9]{6}\b")
"""Ids and microseconds: any digits may stand in them."""


def seen(text: str) -> list[str]:
    """What a text shows of the patient."""
    text = _BY_CHANCE.sub("", text)
    return [name for name in NAMES if name in text]


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Site:
    """A site's folder, `handoff` run on it, and a stand-in for the daemon."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.yaml"
        self.clock = FixedClock(datetime.now(UTC) - timedelta(minutes=1))

    def run(self, *arguments: str) -> Done:
        """The command; with a daemon beside it when it is one that needs one."""
        if arguments[:2] in _ACTS:
            with self.daemon():
                return self.run_alone(*arguments)
        return self.run_alone(*arguments)

    @contextlib.contextmanager
    def daemon(self) -> Iterator[None]:
        """What an act needs of a daemon: its status file, and a worker that works through the journal."""
        configuration = load(Snapshot.read(self.config))
        file = StatusFile(status_path(configuration))
        stopping = threading.Event()

        def work() -> None:
            while not stopping.wait(0.01):
                self.process()

        assert file.take()
        file.write(Status(node="test", state="running", pid=None, channels=(), console=None))
        worker = threading.Thread(target=work)
        worker.start()
        try:
            yield
        finally:
            stopping.set()
            worker.join()
            file.remove()

    def run_alone(self, *arguments: str) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = app.run([*arguments, "--config", str(self.config)])
        assert "internal error" not in err.getvalue(), err.getvalue()
        return Done(code, out.getvalue(), err.getvalue())

    def json(self, *arguments: str, code: int = 0) -> Any:
        done = self.run(*arguments, "--json")
        assert done.code == code, done
        return done.json

    def receive(self, *payloads: bytes, channel: str = "main-campus") -> list[int]:
        """Take messages into the journal, as intake does, and give their entries' ids."""
        configuration = load(Snapshot.read(self.config))
        rules = Rules.of(configuration.channels[channel])
        with open_store(configuration, "tool") as store:
            receipts = []
            for payload in payloads:
                judged = judge(rules, payload)
                header = judged.header
                receipts.append(
                    Receipt(
                        channel=channel,
                        peer="127.0.0.1:50000",
                        received_at=self.clock.now(),
                        payload=payload,
                        summary=summarize(header),
                        dedupe_key=store.keys.lookup(channel, header.raw(10)) if header else None,
                        digest=store.keys.lookup(payload),
                        ordering_key=ordering_key(payload, header),
                        refusal=judged.refusal,
                        ack=judged.code,
                        ack_state=AckState.SENT,
                        test=is_test(rules, header),
                    )
                )
            stored = store.journal_ledger.write_now(lambda conn: store.journal.append(conn, receipts))
        return [one.id or -1 for one in stored]

    def process(self) -> None:
        """Work through the journal, as the worker does."""
        configuration = load(Snapshot.read(self.config))
        make_store(configuration)
        drop_shadow(configuration)
        with open_store(configuration, "worker") as store:
            snapshot = configuration.snapshot
            store.charts_ledger.write_now(
                lambda conn: store.configs.remember(conn, snapshot.version, snapshot.files, self.clock.now())
            )
            processor = Processor(
                store,
                with_former(compile_site(configuration, store.keys), store),
                self.clock,
                held_leases(store),
                shadow=lambda: open_shadow(configuration, self.clock.now()),
                recompile=lambda version: recorded_configuration(store, snapshot.base, version),
                on_outcomes=_nobody,
                tally=Tally(),
            )
            while processor.step():
                pass
            processor.close()

    def hold_first_delivery(self) -> int:
        """What the courier does after an ambiguous attempt; the delivery's id."""
        with open_store(load(Snapshot.read(self.config)), "tool") as store:
            with store.reader() as conn:
                (first, *_) = store.outbox.due(conn, "files", datetime.now(UTC), 1)
            result = Settled(id=first.id, state=DeliveryState.HELD, attempts=1, error="timeout")
            store.charts_ledger.write_now(lambda conn: store.outbox.settle(conn, [result], self.clock.now()))
        return first.id


def _nobody(_accepted: Sequence[int], _failed: Sequence[int]) -> None:
    """No sender waits."""


def first_messages(site: Site) -> list[bytes]:
    """The admission and the discharge of the example that every site gets."""
    text = (site.folder / "channels/examples/first-message.hl7").read_text().replace("\n", "\r")
    return [f"MSH{part}".encode() for part in text.split("MSH")[1:]]


UNREADABLE = b"MSH|^~\\&|EHR|MAIN|||20261110||ADT^A08|NO-ID|P|2.5.1\rEVN|A08|20261110\rPID|1||||DOE^JANE\rPV1|1|I\r"
REFUSED = b"MSH|^~\\&|EHR|MAIN|||20261110||ORU^R01|WRONG-TYPE|P|2.5.1\rPID|1||558181838^^^MRN^MR\r"


def without_destination(site: Site) -> None:
    """Takes `files` out of the configuration, with what it was to be told still waiting."""
    text = site.config.read_text()
    site.config.write_text(text.replace("files:", "other:").replace("var/outbox", "var/other"))
    channel = site.folder / "channels/main-campus.yaml"
    channel.write_text(channel.read_text().replace("to: files", "to: other"))
