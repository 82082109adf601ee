"""Test data through a site: shown, withheld, held for a person, taken away by one command."""

from __future__ import annotations

import sqlite3

import pytest
from site_with_store import Site

KEY, LIVE = "MRN:4711", "MRN:4712"
KEPT = "test-data"


def adt(trigger: str, number: int, *, said: str = "T", day: int = 2, name: str = "Test^Ann") -> bytes:
    at = f"202611{day:02d}120000"
    return (
        f"MSH|^~\\&|EPIC|MAIN|H|H|{at}||ADT^{trigger}|{trigger}{number}{said}{day}|{said}|2.5.1\rEVN|{trigger}|{at}\r"
        f"PID|1||{number}^^^MRN^MR||{name}||19480312|F\r"
        f"PV1|1|I|||||||||||||||||V{number}^^^MRN{'|' * 17 + '01' if trigger == 'A03' else ''}|||||||||{at}\r"
    ).encode()


@pytest.fixture
def site(bare: Site) -> Site:
    """A live patient, and a test patient who was discharged, on a channel that takes both."""
    channel = bare.folder / "channels/main-campus.yaml"
    channel.write_text(channel.read_text().replace("processing_ids: [P]", "processing_ids: [P, T, D]"))
    bare.receive(adt("A01", 4712, said="P", name="Doe^Jane"), adt("A01", 4711), adt("A03", 4711, said="D^T", day=3))
    bare.process()
    return bare


def takes_tests(site: Site) -> None:
    site.config.write_text(site.config.read_text().replace("sealed: false}", "sealed: false, test_data: true}"))


def counts(site: Site, *more: str) -> dict[str, tuple[int, int, int]]:
    found = site.json("sweep", "--test-data", *more)
    assert {one["policy"] for one in found} == {"test data"}
    return {one["what"]: (one["count"], one["held"], one["waiting"]) for one in found}


def marks(site: Site) -> dict[int, bool]:
    return {one["id"]: one["test"] for one in site.json("messages", "list", "--kind", "message")}


def test_it_is_shown_wherever_a_patient_or_a_message_of_it_is(site: Site) -> None:
    assert site.json("patients", "show", KEY)["test"] is True
    assert site.json("patients", "show", LIVE)["test"] is False
    assert "TEST DATA" in site.run("patients", "show", KEY).out
    assert sorted(one["test"] for one in site.json("patients", "find")) == [False, True]
    assert "test data" in site.run("patients", "find").out
    assert marks(site) == {1: False, 2: True, 3: True}
    assert site.json("messages", "show", "3")["test"] is True
    assert "test data" in site.run("messages", "list").out
    assert {one["test"] for one in site.json("tasks", "list", "--patient", KEY)} == {True}


def test_nothing_of_it_leaves_and_each_copy_says_why_and_nobody_is_asked_to_decide(site: Site) -> None:
    live, *tests = [site.json("messages", "show", str(number))["deliveries"] for number in (1, 2, 3)]
    assert {(one["state"], one["last_error"]) for one in live} == {("pending", None)}
    kept = [(one["state"], one["last_error"]) for own in tests for one in own]
    assert set(kept) == {("withheld", KEPT)}
    assert site.json("held", "list") == []
    assert {one["reason"] for one in site.json("why", KEY) if one["action"] == "deliver"} == {"test_data"}
    assert site.json("pages", "list") == []


def test_a_person_can_not_send_it_all_the_same(site: Site) -> None:
    (first, *_) = site.json("messages", "show", "2")["deliveries"]
    assert site.run("held", "release", str(first["id"]), "--reason", "go").code != 0
    site.run("resend", "--destination", "files", "--patient", KEY)
    with sqlite3.connect(site.folder / "var/handoff.db") as conn:
        states = {row[0] for row in conn.execute("SELECT state FROM delivery WHERE ordering_key != ?", (_live(site),))}
    assert states == {"withheld"}


def _live(site: Site) -> str:
    with sqlite3.connect(site.folder / "var/handoff.db") as conn:
        return str(conn.execute("SELECT id FROM chart WHERE test = 0").fetchone()[0])


def test_a_destination_for_tests_gets_it(bare: Site) -> None:
    takes_tests(bare)
    channel = bare.folder / "channels/main-campus.yaml"
    channel.write_text(f"{channel.read_text()}\ntest: true\n")
    bare.receive(adt("A01", 4711, said="P"))
    bare.process()
    shown = bare.json("messages", "show", "1")
    assert shown["test"] is True
    assert {one["state"] for one in shown["deliveries"]} == {"pending"}


def test_a_refused_test_message_is_refused_as_ever_and_marked(bare: Site) -> None:
    bare.receive(adt("A01", 4711))
    bare.process()
    (one,) = bare.json("messages", "list")
    assert (one["state"], one["ack"], one["test"]) == ("refused", "AR", True)
    assert counts(bare)["messages"] == (1, 0, 0)


def test_a_test_of_a_living_patient_is_held_and_can_be_dismissed_or_released(site: Site) -> None:
    before = site.json("patients", "show", LIVE)
    site.receive(adt("A03", 4712, day=4), adt("A03", 4712, day=5))
    site.process()
    first, second = site.json("held", "list")
    assert (first["what"], first["code"], first["location"]) == ("message", "test-message", "MSH-11")
    shown = site.json("patients", "show", LIVE)
    assert [one["id"] for one in shown["held"]] == [first["id"], second["id"]]
    assert shown | {"held": []} == before
    assert counts(site, "--dry-run")["messages"][2] == 2
    site.json("held", "dismiss", first["id"], "--reason", "a test")
    site.json("held", "release", second["id"], "--reason", "the sender has forgotten its P")
    site.process()
    shown = site.json("patients", "show", LIVE)
    assert (shown["test"], shown["encounters"][0]["status"]) == (False, "finished")
    replayed = site.json("messages", "list", "--kind", "message", "--limit", "1")[0]
    assert (replayed["test"], replayed["replay_of"]) == (False, 5)
    assert counts(site) == {"charts": (1, 0, 0), "messages": (2, 0, 0)}  # of the living patient those that were no test
    assert site.json("patients", "show", LIVE) == shown


def test_a_live_message_makes_the_patient_a_living_one(site: Site) -> None:
    site.receive(adt("A01", 4711, said="P", day=1, name="Roe^Mary"))
    site.process()
    shown = site.json("patients", "show", KEY)
    assert shown["test"] is False
    assert ([one["status"] for one in shown["encounters"]], shown["tasks"]) == (["active"], [])
    assert site.json("patients", "find", "--name", "Roe")[0]["test"] is False
    assert site.json("patients", "find", "--name", "Test") == []
    assert site.json("audit", "verify")["ok"]
    assert counts(site) == {"charts": (0, 0, 0), "messages": (2, 0, 0)}
    assert site.json("patients", "show", KEY)["encounters"] == shown["encounters"]


def test_one_command_takes_it_away_and_nothing_else(site: Site) -> None:
    live = site.json("patients", "show", LIVE)
    dry = counts(site, "--dry-run")
    assert dry == {"charts": (1, 0, 0), "messages": (2, 0, 0)}
    assert counts(site, "--dry-run") == dry
    assert site.json("patients", "show", KEY)["tasks"]  # open ones
    done = counts(site)
    assert done["charts"] == (1, 0, 0)
    assert site.run("patients", "show", KEY).code == 1
    assert site.json("patients", "show", LIVE) == live
    assert counts(site) == {"charts": (0, 0, 0), "messages": (0, 0, 0)}
    with sqlite3.connect(site.folder / "var/handoff-journal.db") as conn:
        assert [row[0] for row in conn.execute("SELECT entry_id FROM payload ORDER BY 1")] == [1]
    with sqlite3.connect(site.folder / "var/handoff.db") as conn:
        left = {
            row[0]
            for row in conn.execute("SELECT d.entry_id FROM delivery_payload p JOIN delivery d ON d.id = p.delivery_id")
        }
    assert left == {1}
    assert site.run("ledger").code == 0
    assert site.json("audit", "verify")["ok"]
    said = [one for one in site.json("audit", "list") if one["action"] == "patient-erased"]
    assert len(said) == 1


def test_a_legal_hold_beats_it(site: Site) -> None:
    site.json("legal-hold", "add", KEY, "--reason", "suit")
    found = counts(site)
    assert found["charts"] == (0, 1, 0)
    assert found["messages"][0] == 0
    assert site.run("patients", "show", KEY).code == 0
    site.json("legal-hold", "remove", KEY, "--reason", "settled")
    assert counts(site)["charts"] == (1, 0, 0)


def test_a_dead_test_message_goes_and_nobody_is_asked_about_it(site: Site) -> None:
    site.receive(adt("A01", 4711, day=9).replace(b"4711^^^MRN^MR", b""))
    site.process()
    assert len(site.json("dead", "list")) == 1
    assert counts(site)["messages"][2] == 0
    assert site.json("dead", "list", "--unresolved") == []
    assert site.json("audit", "verify")["ok"]


@pytest.mark.parametrize("forged", ["UPDATE chart SET test = 1", "UPDATE outcome SET test = 1"])
def test_what_was_marked_behind_our_back_is_no_test_data(site: Site, forged: str) -> None:
    with sqlite3.connect(site.folder / "var/handoff.db") as conn:
        conn.execute(forged)
    conn.close()
    site.run("sweep", "--test-data")
    with sqlite3.connect(site.folder / "var/handoff.db") as conn:
        assert conn.execute(
            "SELECT count(*) FROM chart WHERE id = (SELECT chart_id FROM outcome WHERE entry_id = 1)"
        ).fetchone() == (1,)
    with sqlite3.connect(site.folder / "var/handoff-journal.db") as conn:
        assert conn.execute("SELECT count(*) FROM payload WHERE entry_id = 1").fetchone() == (1,)
    assert site.run("patients", "show", LIVE).code == 1 or "outcome" in site.json("messages", "show", "1")["damaged"]


def test_a_test_patient_of_whom_a_live_message_tells_is_not_swept(site: Site) -> None:
    """What is left to a person of a live message stays with its patient, whatever the chart says."""
    site.receive(adt("A50", 4711, said="P", day=8))
    site.process()
    counts(site)
    assert site.run("patients", "show", KEY).code == 0


def test_nobody_misses_a_test_patient_but_a_refused_or_held_test_may_be_somebodys(site: Site) -> None:
    """A live feed that is marked wrongly must not lose its patients in silence."""
    nothing_follows = adt("A03", 4711, day=4).replace(b"|V4711^^^MRN", b"|V4799^^^MRN")
    site.receive(nothing_follows, nothing_follows.replace(b"4711^^^MRN^MR", b""), adt("A50", 4711, day=5))
    site.receive(adt("A03", 4712, day=4), adt("A01", 4711).replace(b"|ADT^A01|", b"|ORU^R99|"))
    site.process()
    assert site.json("held", "list", "--what", "message")
    found = site.json("gaps", "--since", "2026-01-01")
    assert {(one["what"], one["entry"]) for one in found} <= {("held", 7), ("refused", 8)}
    assert ("held", 7) in {(one["what"], one["entry"]) for one in found}
