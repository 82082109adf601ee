"""`handoff texts`: what patients are written, masked until revealed; what lies ahead; why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from site_with_store import Site

NOW = datetime.now(UTC)
KEY = "MRN:558181838"
NUMBER = "+12125550143"
REVEAL = ("--reveal", "--reason", "look")
WORDS = ("Your hospital care team", "5550143", "12125550143", "DOE")


def at(days: float) -> str:
    return (NOW + timedelta(days=days)).strftime("%Y%m%d%H%M%S+0000")


def adt(trigger: str, days: float, **more: str) -> bytes:
    pv1 = [
        "PV1",
        "1",
        "I",
        "4W^401^1",
        "E",
        *[""] * 14,
        "V77^^^MRN",
        *[""] * 16,
        more.get("code", ""),
        *[""] * 7,
        at(-6),
        more.get("ended", ""),
    ]
    lines = [
        f"MSH|^~\\&|EPIC|MAIN|HANDOFF|H|{at(days)}||ADT^{trigger}|{trigger}{days}|P|2.5.1",
        f"EVN|{trigger}|{at(days)}",
        "PID|1||558181838^^^MRN^MR||DOE^JANE||19480312|F|||12 ELM^^NEW YORK^NY^10016||^PRN^PH^^1^212^5550143",
        "|".join(pv1),
    ]
    return "\r".join([*lines, "DG1|1||I50.9^X^I10", "DG1|2||N18.6^X^I10", "DG1|3||C80.1^X^I10", ""]).encode()


@pytest.fixture
def home(bare: Site) -> Site:
    """A patient who went home an hour ago, and agrees to texts."""
    bare.config.write_text(
        bare.config.read_text().replace("\ndestinations:\n", "\ndestinations:\n  demo: {type: simulated_phone}\n")
    )
    channel = bare.folder / "channels" / "main-campus.yaml"
    channel.write_text(channel.read_text().replace("deliver:\n", "deliver:\n  - {to: demo, what: [text]}\n"))
    bare.receive(adt("A01", -6), adt("A03", -1 / 24, code="01", ended=at(-1 / 24)))
    bare.process()
    bare.run("consent", "give", KEY, "--purpose", "care", "--channel", "sms", "--number", NUMBER, "--how", "form")
    return bare


def test_each_text_of_the_series_is_listed_from_the_discharge_on(home: Site) -> None:
    listed = home.json("texts", "list", "--patient", KEY)
    assert {one["step"] for one in listed} == {"day-0", "day-1", "day-2"}
    assert {"id", "patient_key", "series", "step", "number", "language", "state", "reason", "due_at", "sent_at", "body",
            "replies"} <= listed[0].keys()  # fmt: skip
    assert [one["planned_for"] for one in listed] == sorted((one["planned_for"] for one in listed), reverse=True)
    assert home.json("texts", "list", "--state", "sent") == []
    assert max(map(len, home.run("texts", "list").out.splitlines())) <= 120


def test_what_lies_ahead_is_shown_as_it_would_go_and_nothing_is_sent(home: Site) -> None:
    shapes = {one["step"]: one for one in home.json("texts", "preview", KEY, *REVEAL)}
    assert "TAKEN or NOT YET" in shapes["day-2"]["body"]
    assert shapes["day-2"]["number"] == NUMBER
    assert shapes["day-1"]["state"] == "planned"  # no visit is booked that it could speak of
    assert {one["state"] for one in home.json("texts", "list")} == {"planned"}


def test_without_consent_it_is_said_why_nothing_goes(home: Site) -> None:
    home.run("consent", "revoke", KEY, "--purpose", "care", "--channel", "sms", "--number", NUMBER)
    listed = home.json("texts", "list", "--patient", KEY)
    assert {(one["state"], one["reason"]) for one in listed} == {("withheld", "opted_out")}
    told = home.run("why", listed[0]["id"]).out
    assert "not send text" in told
    assert "the patient wants no texts" in told


@pytest.mark.parametrize("command", [("preview", KEY), ("list", "--patient", KEY)])
def test_masked_no_word_and_no_number_is_shown(home: Site, command: tuple[str, ...]) -> None:
    shown = home.run("texts", *command).out + str(home.json("texts", *command))
    assert not any(word in shown for word in (*WORDS, KEY))


def test_one_text_is_shown_by_the_beginning_of_its_id(home: Site) -> None:
    [first, *_] = home.json("texts", "list", "--patient", KEY)
    assert home.json("texts", "show", first["id"][:10])["id"] == first["id"]
    assert not any(word in home.run("texts", "show", first["id"]).out for word in WORDS)
    assert home.run("texts", "show", "ffffffff").code == 1
