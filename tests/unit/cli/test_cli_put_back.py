"""`handoff dead replay` of deliveries, and what a decision leaves on record."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from site_with_store import Site

from engine.connectors.registry import load
from engine.domain.delivery import DeliveryState
from engine.errors import StoreError
from engine.snapshot import Snapshot
from engine.store.audit import AuditStore
from engine.store.opening import open_store
from engine.store.outbox import Settled

NEW_PHONE = (
    b"MSH|^~\\&|EHR|MAIN|||20261120120000||ADT^A31|NEW-PHONE|P|2.5.1\rEVN|A31|20261120120000\r"
    b"PID|1||558181838^^^MRN^MR||||||||||2125550199\r"
)


@pytest.fixture
def buried(stocked: Site) -> int:
    """The first delivery (of the patient) is a dead letter; the id of that."""
    held = stocked.hold_first_delivery()
    assert stocked.run("held", "bury", str(held), "--reason", "x").code == 0
    return int(stocked.json("dead", "list", "--stage", "delivery")[0]["id"])


def test_a_delivery_goes_back_as_it_was_and_says_so(stocked: Site, buried: int) -> None:
    result = {"id": buried, "entry": None, "problem": None, "sent": "as_it_was"}
    (done,) = stocked.json("dead", "replay", str(buried))
    assert done.items() >= result.items()
    letter = next(one for one in stocked.json("dead", "list") if one["id"] == buried)
    assert letter["resolved_by"] == f"delivery:{done['delivery']}"


def test_a_delivery_with_an_old_phone_goes_out_with_the_new_one(stocked: Site, buried: int) -> None:
    stocked.receive(NEW_PHONE)
    stocked.process()
    deliver_everything(stocked)
    (done,) = stocked.json("dead", "replay", str(buried))
    assert (done["sent"], done["problem"]) == ("renewed", None)
    (line,) = waiting(stocked)
    assert json.loads(line)["patient"]["phones"] == ["+12125550199"]


def test_a_delivery_whose_dead_letter_is_discarded_stays_dead_in_the_books_and_nobody_is_asked_for_it_again(
    stocked: Site, buried: int
) -> None:
    stocked.json("dead", "discard", str(buried), "--reason", "x")
    (line,) = stocked.json("ledger")
    assert (line["deliveries"]["dead"], line["balanced"]) == (1, True)
    assert buried not in [letter["id"] for letter in stocked.json("dead", "list", "--unresolved")]
    assert stocked.json("held", "list") == []
    (line,) = [line for line in stocked.run("messages", "show", "1").out.splitlines() if "dead letter" in line]
    assert line.endswith("(resolved: discarded)")


def test_a_replayed_message_is_counted_anew_and_the_books_balance(stocked: Site) -> None:
    (before,) = stocked.json("ledger")
    stocked.json("dead", "replay", "--all")
    stocked.process()
    (after,) = stocked.json("ledger")
    assert (after["received"], after["dead"], after["refused"]) == (
        before["received"] + 2, before["dead"] + 1, before["refused"] + 1,
    )  # fmt: skip
    assert after["balanced"]


def test_nothing_is_put_back_or_decided_that_is_not_on_record(
    stocked: Site, buried: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise StoreError("the audit can't be written")

    with monkeypatch.context() as patch:
        patch.setattr(AuditStore, "append", broken)
        (done,) = stocked.json("dead", "replay", str(buried), code=1)
        assert done["problem"] == "the audit can't be written"
        assert stocked.run("dead", "discard", str(buried), "--reason", "x").code != 0
    assert stocked.json("dead", "list", "--stage", "delivery")[0]["resolved_by"] is None
    stocked.json("dead", "replay", str(buried))
    newest = stocked.json("audit", "list")[0]
    assert (newest["action"], newest["subject"]) == ("replay", f"dead-letter:{buried}")


def test_a_letter_that_somebody_else_has_resolved_meanwhile_does_not_stop_the_others(
    stocked: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.desk import replaying

    real = replaying.replay_entries

    def meanwhile(site, entry_ids, as_of):
        site.store.charts_ledger.write_now(lambda conn: site.store.dead_letters.resolve(conn, 1, "discarded", site.now))
        return real(site, entry_ids, as_of)

    monkeypatch.setattr(replaying, "replay_entries", meanwhile)
    results = stocked.json("dead", "replay", "--all", code=1)
    assert [bool(result["problem"]) for result in results] == [True, False]


def deliver_everything(site: Site) -> None:
    with open_store(load(Snapshot.read(site.config)), "tool") as store:
        while found := store.read_now(lambda conn: store.outbox.due(conn, "files", datetime.now(UTC), 100)):
            results = [Settled(id=item.id, state=DeliveryState.DELIVERED, attempts=1) for item in found]
            store.charts_ledger.write_now(
                lambda conn, results=results: store.outbox.settle(conn, results, datetime.now(UTC))
            )


def waiting(site: Site) -> list[bytes]:
    with open_store(load(Snapshot.read(site.config)), "tool") as store, store.reader() as conn:
        return [item.delivery.payload for item in store.outbox.due(conn, "files", datetime.now(UTC), 100)]
