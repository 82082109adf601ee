"""`handoff appointments list`: by time, filtered, masked, in 80 columns, as JSON in the contract's shape."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from site_with_store import Site, seen

from engine.cli import tables

NOW = datetime.now(UTC)
KEY = "MRN:558181838"


def at(**more: float) -> str:
    return (NOW + timedelta(**more)).strftime("%Y%m%d%H%M%S+0000")


def siu(trigger: str, number: str, written: str, start: str, *, status: str = "", patient: str = "558181838") -> bytes:
    lines = [
        f"MSH|^~\\&|EPIC|MAIN|HANDOFF|H|{written}||SIU^{trigger}|{number}{trigger}{written}|P|2.5.1",
        f"SCH|1|{number}|||||||||^^^{start}||||||||||||||{status}",
        f"PID|1||{patient}^^^MRN^MR||DOE^JANE||19480312|F",
        "RGS|1",
        "AIS|1|A|PCP^CARTER visit",
        "AIP|1|A|10016^LIU",
    ]
    return "\r".join([*lines, ""]).encode()


@pytest.fixture
def booked(bare: Site) -> Site:
    bare.receive(
        siu("S12", "A1", at(days=-9), at(days=-3)), siu("S14", "A1", at(days=-3), at(days=-3), status="Complete"),
        siu("S12", "A2", at(days=-2), at(days=2)), siu("S12", "A3", at(days=-2), at(days=1)),
        siu("S12", "A4", at(days=-2), "", status="Waitlist"),
        siu("S12", "A5", at(days=-2), at(days=5), patient="777"),
    )  # fmt: skip
    bare.process()
    return bare


def starts(site: Site, *options: str) -> list[str | None]:
    return [one["starts_at"] and one["starts_at"][:10] for one in site.json("appointments", "list", *options)]


def day(days: int) -> str:
    return (NOW + timedelta(days=days)).isoformat()[:10]


def test_scripts_see_all_by_time_and_those_without_one_last(booked: Site) -> None:
    assert starts(booked) == [day(-3), day(1), day(2), day(5), None]
    first = booked.json("appointments", "list")[0]
    assert {"id", "patient_key", "status", "starts_at", "ends_at", "service", "location", "clinician", "replaces",
            "replaced_by", "task"} <= first.keys()  # fmt: skip
    assert first["status"] == "kept"


@pytest.mark.parametrize(
    ("options", "days"),
    [
        (("--patient", KEY), [-3, 1, 2, None]), (("--status", "booked"), [1, 2, 5]), (("--until", "36h"), [-3, 1]),
        (("--status", "kept", "--status", "requested"), [-3, None]), (("--since", "36h"), [2, 5]),
        (("--since", "-4d", "--until", "0h"), [-3]), (("--limit", "2"), [-3, 1]),
    ],
)  # fmt: skip
def test_a_list_is_narrowed_by_patient_status_and_time(
    booked: Site, options: tuple[str, ...], days: list[int | None]
) -> None:
    assert starts(booked, *options) == [None if one is None else day(one) for one in days]


def test_a_list_that_is_cut_says_so(booked: Site) -> None:
    assert "2 of 5 shown" in booked.run("appointments", "list", "--limit", "2", "--json").err


def test_people_see_those_ahead_in_80_columns_and_how_many_more_there_are(
    booked: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "terminal_columns", lambda: 80)
    shown = booked.run("appointments", "list").out
    assert "2 more are over, or have no time yet" in shown
    assert shown.count("booked") >= 1
    assert "kept" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "kept" in booked.run("appointments", "list", "--patient", KEY).out


def test_nothing_of_the_patient_is_shown_unless_it_is_revealed_with_a_reason(booked: Site) -> None:
    for options in ((), ("--json",), ("--patient", KEY)):
        assert seen(booked.run("appointments", "list", *options).out) == []
    assert seen(booked.run("patients", "show", KEY).out) == []
    revealed = booked.run("appointments", "list", "--json", "--reveal", "--reason", "call").out
    assert {"CARTER", "LIU", "558181838"} <= set(seen(revealed))
    assert booked.run("appointments", "list", "--reveal").code == 2


def test_an_empty_list_says_so(bare: Site) -> None:
    bare.process()
    assert bare.run("appointments", "list").out == "No appointments from today on.\n"
    assert bare.json("appointments", "list") == []
    assert bare.run("appointments", "list", "--status", "kept").out == "No appointments that match these options.\n"


def test_an_appointment_says_which_messages_made_it_as_it_is(booked: Site) -> None:
    kept = booked.json("appointments", "list", "--status", "kept")[0]["id"]
    story = [one for one in booked.json("why", kept) if one["what"] == "appointment"]
    assert [(one["subject"], one["action"], one["causes"], one["stands"]) for one in story] == [
        (kept, "booked", [1], False),
        (kept, "kept", [2], True),
    ]
    assert story[1] in booked.json("why", "2")


def test_what_explains_an_appointment_names_nobody_unless_it_is_revealed(booked: Site) -> None:
    (waiting,) = [one["id"] for one in booked.json("appointments", "list", "--status", "requested")]
    for more in ([], ["--json"], ["--all"]):
        assert seen(booked.run("why", waiting, *more).out) == []
    assert booked.run("why", waiting, "--reveal").code == 2
    assert booked.json("why", waiting)


def test_how_an_id_begins_names_one_appointment_or_is_asked_back(booked: Site) -> None:
    ids = [one["id"] for one in booked.json("appointments", "list")]
    whole = booked.json("why", ids[0])
    assert booked.json("why", ids[0][:20]) == whole
    unknown = booked.run("why", "zz")
    assert unknown.code == 1
    assert "there is no task, page, appointment or text zz" in unknown.err
