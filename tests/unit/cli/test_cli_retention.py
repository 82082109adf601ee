"""`handoff sweep`, `legal-hold` and `patients erase`: what is kept how long, and what goes."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from site_with_store import Site, first_messages, seen
from sqlalchemy import Connection, select, update

from engine.domain.delivery import DeliveryState
from engine.store import schema
from engine.store.opening import open_store
from engine.store.outbox import Settled

KEY = "MRN:558181838"
_AHEAD_DAYS = 8 * 366


def at_rest(site: Site) -> None:
    """Nothing of the patients is open any more, and by the site's clock all of it is old."""
    from engine.connectors.registry import load
    from engine.snapshot import Snapshot

    for task in site.json("tasks", "list", "--patient", KEY):
        if task["state"] in {"open", "missed", "in_progress"}:
            site.json("tasks", "cancel", task["id"], "--reason", "over")
    site.json("dead", "discard", "--all", "--reason", "seen")
    with open_store(load(Snapshot.read(site.config)), "tool") as store:

        def arrive(conn: Connection) -> None:
            ids = conn.execute(select(schema.delivery.c.id).order_by(schema.delivery.c.id)).scalars().all()
            done = [Settled(id=one, state=DeliveryState.DELIVERED, attempts=1) for one in ids]
            store.outbox.settle(conn, done, site.clock.now())

        store.charts_ledger.write_now(arrive)
        sent = update(schema.entry).values(ack_state="sent")
        store.journal_ledger.write_now(lambda conn: conn.execute(sent))
    (site.folder / "ahead").write_text(str(_AHEAD_DAYS * 86_400))
    add(site, "purpose: test\nclock: {offset_seconds_file: ahead}")


def add(site: Site, lines: str) -> None:
    site.config.write_text(f"{site.config.read_text()}\n{lines}\n")


def of(rows: list[dict[str, Any]], what: str) -> dict[str, Any]:
    return next(row for row in rows if row["what"] == what)


def test_a_dry_run_says_what_would_go_and_changes_nothing(stocked: Site) -> None:
    at_rest(stocked)
    first = stocked.json("sweep", "--dry-run")
    assert [row["what"] for row in first] == ["messages", "deliveries", "charts", "trail"]
    assert of(first, "messages")["policy"] == "365 days"
    assert of(first, "messages")["count"] > 0
    assert stocked.json("sweep", "--dry-run") == first
    done = stocked.json("sweep")
    assert of(done, "messages") == of(first, "messages")
    assert of(stocked.json("sweep"), "messages")["count"] == 0
    assert stocked.run("ledger").code == 0
    shown = stocked.run("messages", "show", "1")
    assert "kept long enough" in shown.out
    assert stocked.run("replay", "--id", "1").code != 0 or "erased" in stocked.run("replay", "--id", "1").out


def test_young_things_stay(stocked: Site) -> None:
    assert all(row["count"] == 0 for row in stocked.json("sweep"))


def test_a_hold_is_placed_listed_and_removed_with_its_reason_on_record(stocked: Site) -> None:
    at_rest(stocked)
    before = of(stocked.json("sweep", "--dry-run"), "messages")["count"]
    made = stocked.json("legal-hold", "add", KEY, "--reason", "Doe against the hospital")
    assert not seen(str(made))
    assert "Doe" not in str(made)
    after = of(stocked.json("sweep", "--dry-run"), "messages")
    assert after["held"] > 0
    assert after["count"] + after["held"] == before
    assert [one["id"] for one in stocked.json("legal-hold", "list")] == [made["id"]]
    revealed = stocked.json("legal-hold", "list", "--reveal", "--reason", "the court asks")
    assert revealed[0]["reason"] == "Doe against the hospital"
    assert stocked.json("legal-hold", "remove", KEY, "--reason", "settled") == {"removed": [made["id"]]}
    assert stocked.json("legal-hold", "list") == []
    assert stocked.json("legal-hold", "list", "--all")[0]["removed_at"]
    assert stocked.run("legal-hold", "remove", KEY).code == 1
    done = [one["action"] for one in stocked.json("audit", "list")]
    assert {"hold-placed", "hold-lifted"} <= set(done)


@pytest.mark.parametrize("arguments", [("add", KEY), ("add", KEY, "--reason", " ")])
def test_a_hold_needs_a_reason(stocked: Site, arguments: tuple[str, ...]) -> None:
    assert stocked.run("legal-hold", *arguments).code == 2


def test_a_hold_of_a_patient_whom_nobody_knows_is_refused(stocked: Site) -> None:
    assert stocked.run("legal-hold", "add", "MRN:0", "--reason", "x").code == 1


def test_a_patient_is_not_erased_while_something_is_open_or_on_hold(stocked: Site) -> None:
    refused = stocked.run("patients", "erase", KEY, "--reason", "asked for", "--yes")
    assert refused.code == 1
    assert "waits" in refused.err
    stocked.json("legal-hold", "add", KEY, "--reason", "suit")
    refused = stocked.run("patients", "erase", KEY, "--reason", "asked for", "--yes")
    assert "legal hold" in refused.err
    assert stocked.run("patients", "show", KEY).code == 0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("trail_years: 5", "at least 6 years"),
        ("trail_years: 0", "at least 6 years"),
        ("messages_days: 0", "messages_days"),
        ("charts_years: -1", "charts_years"),
        ("letters_days: 3", "letters_days"),
    ],
)
def test_a_policy_that_the_law_forbids_or_that_makes_no_sense_is_refused(stocked: Site, line: str, says: str) -> None:
    add(stocked, f"retention: {{{line}}}")
    refused = stocked.run("check")
    assert refused.code == 1
    assert says in refused.out + refused.err


def test_a_policy_of_the_site_is_what_a_sweep_goes_by(stocked: Site) -> None:
    at_rest(stocked)
    add(stocked, "retention: {messages_days: 30, deliveries_days: 5000}")
    assert stocked.run("check").code == 0
    done = stocked.json("sweep", "--dry-run")
    assert of(done, "messages")["policy"] == "30 days"
    assert (of(done, "deliveries")["policy"], of(done, "deliveries")["count"]) == ("5000 days", 0)


def test_what_first_messages_say_is_still_known_after_they_were_swept(stocked: Site) -> None:
    at_rest(stocked)
    stocked.json("sweep")
    before = stocked.json("ledger")[0]
    assert before["erased"] > 0
    stocked.receive(first_messages(stocked)[0])
    assert stocked.json("ledger")[0]["balanced"]


def test_an_erased_patient_is_gone_from_the_backups_of_before(stocked: Site) -> None:
    at_rest(stocked)
    backups, copy, there = (str(stocked.folder / name) for name in ("backups", "copy", "there"))
    (stocked.folder / "backups").mkdir()
    made = stocked.json("backup", backups)
    shutil.copytree(backups, copy)
    assert stocked.json("restore", backups, there, "--rehearse")["left_out"] == {}
    stocked.json("patients", "erase", KEY, "--reason", "asked for it", "--yes")
    for of_before in (backups, copy):  # the site knows it, whatever stands beside the copy
        done = stocked.json("restore", of_before, there, "--rehearse", "--all")
        assert (done["ok"], done["problems"], done["entries"]) == (True, [], made["entries"])
        assert done["left_out"]["charts"] == 1
        assert done["left_out"]["messages"] >= 1
    shown = stocked.run("restore", copy, there)
    assert "Left out, because erased since the backup, with their keys: 1 of charts" in shown.out
    stocked.config.write_text(stocked.config.read_text().replace("var/handoff.db", "there/handoff.db"))
    assert stocked.run("patients", "show", KEY).code == 1
    assert stocked.run("ledger").code == 0
    found = stocked.run("audit", "verify", "--json").json["problems"]
    assert {one["kind"] for one in found} <= {"rolled-back"}  # the checkpoints outside have seen more, as after any
    assert "left out" in str(stocked.json("audit", "list", "--action", "restore", "--reveal", "--reason", "to see"))


def test_erasing_says_which_backups_it_could_not_reach(stocked: Site) -> None:
    at_rest(stocked)
    (stocked.folder / "backups").mkdir()
    stocked.json("backup", str(stocked.folder / "backups"))
    (stocked.folder / "backups").rename(stocked.folder / "away")
    said = stocked.run("patients", "erase", KEY, "--reason", "asked for it", "--yes").err
    assert "erasure keys of the backups there could not be replaced" in said


def test_erasure_keys_stand_where_the_configuration_says(stocked: Site) -> None:
    add(stocked, "backup: {erasure_keys: safe}")
    (stocked.folder / "backups").mkdir()
    missing = stocked.run("backup", str(stocked.folder / "backups"))
    assert missing.code == 1
    assert "the folder of `backup.erasure_keys` is not there" in missing.err
    (stocked.folder / "safe").mkdir()
    stocked.json("backup", str(stocked.folder / "backups"))
    assert [one.suffix for one in (stocked.folder / "safe").iterdir()] == [".erasure-keys"]
    assert (
        "Rehearsed"
        in stocked.run("restore", str(stocked.folder / "backups"), str(stocked.folder / "there"), "--rehearse").out
    )


def test_after_a_restore_nothing_is_erased_until_somebody_says_that_the_legal_holds_are_right(stocked: Site) -> None:
    at_rest(stocked)
    assert stocked.json("legal-hold", "confirm", "--reason", "x", code=1) == {"confirmed": False, "holds": None}
    stocked.json("backup", str(stocked.folder / "one.backup"))
    stocked.json("legal-hold", "add", KEY, "--reason", "suit")  # placed since: the backup knows nothing of it
    back = stocked.json("restore", str(stocked.folder / "one.backup"), str(stocked.folder / "back"))
    assert back["to_do"]["legal_holds"] == 0
    stocked.config.write_text(stocked.config.read_text().replace("sqlite:///var/", "sqlite:///back/"))
    assert stocked.json("legal-hold", "list") == []
    refused = stocked.run("sweep")
    assert (refused.code, "legal-hold confirm" in refused.err) == (1, True)
    assert stocked.run("sweep", "--test-data").code == 1
    assert stocked.run("patients", "erase", KEY, "--reason", "asked for", "--yes").code == 1
    assert of(stocked.json("sweep", "--dry-run"), "messages")["count"] > 0
    stocked.json("legal-hold", "add", KEY, "--reason", "suit")
    confirmed = stocked.json("legal-hold", "confirm", "--reason", "the list of the legal department")
    assert confirmed == {"confirmed": True, "holds": 1}
    assert of(stocked.json("sweep"), "charts")["held"] == 1
    assert stocked.json("legal-hold", "confirm", "--reason", "again", code=1)["confirmed"] is False
    (said,) = stocked.json("audit", "list", "--action", "holds-confirmed")
    assert said["count"] == 1
