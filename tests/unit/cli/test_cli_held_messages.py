"""Held messages on the command line: listed beside deliveries, on the patient, decided by a person."""

from __future__ import annotations

import pytest
from site_with_store import Site

KEY = "MRN:4711"


def adt(trigger: str, hour: int, control_id: str) -> bytes:
    at = f"202611{hour + 1:02d}120000"
    return (
        f"MSH|^~\\&|EPIC|MAIN|H|H|{at}||ADT^{trigger}|{control_id}|P|2.5.1\rEVN|{trigger}|{at}\r"
        "PID|1||4711^^^MRN^MR||Doe^Jane||19480312|F\r"
        f"PV1|1|I|||||||||||||||||V4711^^^MRN{'|' * 17 + '01' if trigger == 'A03' else ''}\r"
    ).encode()


@pytest.fixture
def held(bare: Site) -> Site:
    """A site with a discharge of one sender that is older than its cancel by another one."""
    bare.receive(adt("A01", 1, "H1"), adt("A13", 4, "H2"), adt("A03", 3, "H3").replace(b"EPIC", b"BEDS"))
    bare.process()
    return bare


def stay(site: Site) -> str:
    (encounter,) = site.json("patients", "show", KEY)["encounters"]
    return str(encounter["status"])


def test_a_held_message_is_listed_and_stands_on_its_patient_and_its_message(held: Site) -> None:
    first, second = held.json("held", "list")
    assert (first["what"], first["code"], second["code"]) == ("message", "nothing-to-cancel", "status-event-stale")
    assert second["id"] == "m2"
    assert {"entry", "channel", "location", "detail", "opened_at", "state"} <= second.keys()
    assert second["patient_key"].startswith("MRN:~")
    assert held.json("held", "list", "--what", "delivery") == []
    assert [one["id"] for one in held.json("patients", "show", KEY)["held"]] == ["m1", "m2"]
    shown = held.json("messages", "show", "3")
    assert [one["code"] for one in shown["held"]] == ["status-event-stale"]
    assert shown["reason"].startswith("held for a person: ")
    assert [one["id"] for one in held.json("messages", "list", "--held")] == [3, 2]
    assert [one["id"] for one in held.json("messages", "list", "--without-effect")] == [3, 2]
    assert "status-event-stale" in held.run("held", "show", "m2").out


def test_a_released_message_is_applied_by_its_replay_and_is_held_no_more(held: Site) -> None:
    done = held.json("held", "release", "m2", "--reason", "the patient left at noon")
    assert (done["state"], stay(held)) == ("open", "active")
    held.process()
    assert stay(held) == "finished"
    after = held.json("held", "show", "m2", "--reveal", "--reason", "a test")
    assert (after["state"], after["decision"]) == ("released", "the patient left at noon")
    assert [one["id"] for one in held.json("held", "list")] == ["m1"]
    assert {one["action"] for one in held.json("audit", "list")} >= {"release"}


def test_a_dismissed_message_changes_nothing_and_is_held_no_more(held: Site) -> None:
    assert held.json("held", "dismiss", "m2", "--reason", "old news")["state"] == "dismissed"
    held.process()
    assert stay(held) == "active"
    assert held.run("held", "dismiss", "m2", "--reason", "again").code == 1
    assert held.run("held", "release", "m2", "--reason", "after all").code == 1


@pytest.mark.parametrize("command", [("confirm", "m2"), ("bury", "m2", "--reason", "x"), ("release", "m2")])
def test_what_is_for_deliveries_is_refused_for_a_message_with_a_clear_word(
    held: Site, command: tuple[str, ...]
) -> None:
    done = held.run("held", *command)
    assert done.code == 2
    assert "message" in done.err


def test_a_replay_of_the_day_makes_no_second_question(held: Site) -> None:
    assert held.run("replay", "--all").code == 0
    held.process()
    assert [one["id"] for one in held.json("held", "list")] == ["m1", "m2"]


def test_a_cancel_that_came_first_waits_and_is_answered_by_what_it_cancels(bare: Site) -> None:
    bare.receive(adt("A01", 1, "H1"), adt("A13", 4, "H2"))
    bare.process()
    (waiting,) = bare.json("held", "list")
    assert (waiting["code"], waiting["state"]) == ("nothing-to-cancel", "open")
    assert waiting["waits_until"] > waiting["opened_at"]
    assert "for what may answer it by itself" in bare.run("held", "show", "m1").out
    (gap,) = bare.json("gaps", "--what", "held")
    assert gap["reason"].startswith("nothing-to-cancel: it waits for what it cancels; ")
    assert bare.json("status", code=69)["held"] == 0  # it alarms nobody yet
    bare.receive(adt("A03", 3, "H3"))
    bare.process()
    assert bare.json("held", "list") == []
    assert (bare.json("held", "show", "m1")["state"], stay(bare)) == ("superseded", "active")


def test_what_is_expected_of_a_stay_is_shown_beside_it(bare: Site) -> None:
    leave = adt("A21", 3, "H3").rstrip(b"\r") + b"\rPV2" + b"|" * 47 + b"20261109\r"
    leaves = adt("A16", 5, "H5").rstrip(b"\r") + b"\rPV2" + b"|" * 9 + b"20261112\r"
    bare.receive(adt("A01", 1, "H1"), adt("A16", 2, "H2"))
    bare.process()
    assert "discharge, pending" in bare.run("patients", "show", KEY).out
    bare.receive(leave)
    bare.process()
    assert "return 2026-11-09" in bare.run("patients", "show", KEY).out
    (encounter,) = bare.json("patients", "show", KEY)["encounters"]
    assert (encounter["status"], encounter["leave_return_expected_at"]) == ("on_leave", "2026-11-09")
    bare.receive(adt("A22", 4, "H4"), leaves)
    bare.process()
    assert "discharge 2026-11-12" in bare.run("patients", "show", KEY).out
