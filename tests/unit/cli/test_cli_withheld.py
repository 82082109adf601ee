"""Deliveries that a rule withholds: where a person sees them, and what can be done."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from site_with_store import Site
from sqlalchemy import update

from engine.connectors.registry import load
from engine.domain.delivery import DeliveryState
from engine.snapshot import Snapshot
from engine.store import admissions
from engine.store.opening import open_store
from engine.store.outbox import Settled
from engine.store.schema import delivery, to_micros

WHY = ("--reason", "she signed on paper")


def settle(site: Site, number: int, state: DeliveryState, **more: Any) -> None:
    result = Settled(id=number, state=state, attempts=0, **more)
    with open_store(load(Snapshot.read(site.config)), "tool") as store:
        store.charts_ledger.write_now(lambda conn: store.outbox.settle(conn, [result], datetime.now(UTC)))


def deliveries(site: Site) -> list[dict[str, Any]]:
    entry = site.json("messages", "list", "--state", "processed")[-1]["id"]
    found: list[dict[str, Any]] = site.json("messages", "show", str(entry))["deliveries"]
    return found


def withheld(site: Site, at: int = 0, code: str = "too-late", **more: Any) -> str:
    number = deliveries(site)[at]["id"]
    settle(site, number, DeliveryState.WITHHELD, error=code, **more)
    return str(number)


def listed(site: Site) -> list[str]:
    return [str(one["id"]) for one in site.json("held", "list", "--what", "withheld")]


def test_gaps_names_what_is_withheld_with_its_reason_its_remedy_and_the_next_command(stocked: Site) -> None:
    before = stocked.json("gaps")
    number = withheld(stocked)
    (gap,) = stocked.json("gaps", "--what", "withheld")
    assert (gap["what"], gap["see"]) == ("withheld", f"handoff held show {number}")
    assert gap["patient_key"].startswith("MRN:~")
    assert gap["channel"] == "main-campus"
    assert gap["entry"]
    assert "files, too-late: it was of no use any more" in gap["reason"]
    assert gap in stocked.json("gaps")
    assert len(stocked.json("gaps")) == len(before) + 1
    assert stocked.json("gaps", "--what", "withheld", "--until", "1h") == []
    assert stocked.run(*gap["see"].split()[1:]).code == 0


def test_held_shows_what_is_withheld_apart_from_what_is_in_doubt(stocked: Site) -> None:
    number = withheld(stocked, code="no-consent")
    assert stocked.json("held", "list") == []
    (one,) = stocked.json("held", "list", "--what", "withheld")
    assert (one["what"], one["id"], one["code"], one["decision"]) == ("withheld", int(number), "no-consent", None)
    assert stocked.json("held", "show", number) == one
    text = stocked.run("held", "show", number).out
    assert "nothing was sent" in text
    assert f"handoff held release {number}" in text
    assert "no-consent" in stocked.run("held", "list", "--what", "withheld").out


def test_a_person_releases_what_is_withheld_and_it_is_pending_again(stocked: Site) -> None:
    number = withheld(stocked)
    assert stocked.run("held", "release", number).code == 2  # a rule is not set aside without a reason
    assert listed(stocked) == [number]
    assert [str(one["id"]) for one in stocked.json("held", "release", number, *WHY, "--dry-run")] == [number]
    done = stocked.json("held", "release", number, *WHY)
    assert (done["state"], done["decision"], done["code"]) == ("pending", "released", "too-late")
    assert done["decided_by"]
    assert listed(stocked) == []
    assert stocked.json("gaps", "--what", "withheld") == []
    (row,) = [one for one in stocked.json("audit", "list") if one["action"] == "release"]
    assert row["subject"] == f"delivery:{number}"
    with open_store(load(Snapshot.read(stocked.config)), "tool") as store:
        released = store.read_now(lambda conn: admissions.released(conn, [int(number)]))
    assert released == {int(number): frozenset({"too-late"})}


def test_a_person_dismisses_what_is_withheld_and_it_stays_unsent(stocked: Site) -> None:
    number = withheld(stocked)
    done = stocked.json("held", "dismiss", number, *WHY)
    assert (done["state"], done["decision"]) == ("withheld", "dismissed")
    assert listed(stocked) == []
    assert deliveries(stocked)[0]["state"] == "withheld"
    again = stocked.run("held", "release", number, *WHY)
    assert again.code == 1
    assert "it was dismissed before" in again.err
    assert "dismissed by" in stocked.run("held", "show", number).out


@pytest.mark.parametrize("decision", ["release", "dismiss"])
def test_several_are_decided_together_or_none(stocked: Site, decision: str) -> None:
    numbers = [withheld(stocked, 0), withheld(stocked, 1)]
    stocked.run("held", "dismiss", numbers[1], *WHY)
    assert stocked.run("held", decision, *numbers, *WHY, "--yes").code == 1
    assert listed(stocked) == numbers[:1]


def test_withheld_and_held_deliveries_are_decided_apart(stocked: Site) -> None:
    number = withheld(stocked)
    other = str(deliveries(stocked)[1]["id"])
    settle(stocked, int(other), DeliveryState.HELD, error="interrupted")
    assert stocked.run("held", "release", number, other, *WHY).code == 2
    assert stocked.run("held", "dismiss", number, other, *WHY).code == 2
    assert stocked.run("held", "dismiss", other, *WHY).code == 2
    assert stocked.run("held", "confirm", number).code == 1
    assert stocked.run("held", "bury", number, *WHY).code == 1
    assert listed(stocked) == [number]


def test_what_no_person_can_release_says_so(stocked: Site) -> None:
    number = withheld(stocked, final=True)
    assert listed(stocked) == []
    refused = stocked.run("held", "release", number, *WHY)
    assert refused.code == 1
    assert "what it was for is gone" in refused.err
    assert "decide" not in stocked.run("held", "show", number).out


def test_status_counts_what_is_withheld_apart_from_failures(stocked: Site) -> None:
    withheld(stocked)
    status = stocked.json("status", code=69)
    assert (status["withheld"], status["held"], status["dead"]) == (1, 0, status["dead"])
    assert [one for one in status["trouble"] if "withheld" in one] == []
    assert "1 deliveries are withheld by a rule" in stocked.run("status").out


def test_what_a_rule_puts_off_is_no_gap(stocked: Site) -> None:
    first, *_ = deliveries(stocked)
    later = datetime.now(UTC) + timedelta(hours=9)
    with open_store(load(Snapshot.read(stocked.config)), "tool") as store:  # the site may be older than `_UNDER_WAY`
        store.charts_ledger.write_now(
            lambda conn: conn.execute(update(delivery).values(created_at=to_micros(datetime.now(UTC))))
        )
    assert stocked.json("gaps", "--what", "undelivered") == []
    settle(stocked, first["id"], DeliveryState.PENDING, error="quiet-hours", next_attempt_at=later, not_before=later)
    assert stocked.json("gaps", "--what", "undelivered") == []
    settle(stocked, first["id"], DeliveryState.PENDING, error="no-answer", next_attempt_at=later)
    assert len(stocked.json("gaps", "--what", "undelivered")) == 1
