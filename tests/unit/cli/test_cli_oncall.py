"""Who is on call and who is paged, on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from site_with_store import Done, Site

ROSTERS = "mappings/oncall/on-call.yaml"
LATER = "2099-06-01T00:00"


def rewrite(site: Site, old: str, new: str) -> None:
    file = site.folder / ROSTERS
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def stand_in(site: Site, who: str, *more: str) -> Done:
    with site.daemon():
        return site.run("oncall", "override", "on-call", who, *more, "--reason", "a swap for Jane Doe", "--json")


def test_who_says_each_role_with_its_person_and_until_when(bare: Site) -> None:
    shape = bare.json("oncall", "who", "on-call", "--at", "2026-01-06T08:00")
    assert (shape["roster"], shape["at"]) == ("on-call", "2026-01-06T13:00:00+00:00")
    first, second = shape["level"]
    assert (first["role"], first["person"], first["until"]) == (
        "primary", "example-day-1", "2026-01-07T00:00:00+00:00",
    )  # fmt: skip
    assert (second["role"], second["person"], second["until"]) == ("backup", "example-backup", None)
    assert "example-night" in bare.run("oncall", "who", "on-call", "--at", "2026-01-06T03:00").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("who", "on-cal"), "did you mean on-call"),
        (("override", "on-call", "example-nigth", "--until", LATER, "--reason", "x"), "did you mean example-night"),
        (("override", "on-call", "example-night", "--until", LATER, "--reason", "x", "--role", "third"), "role third"),
        (("override", "on-call", "example-night", "--until", "2020-01-01", "--reason", "x"), "must be before"),
        (("override", "on-call", "example-night", "--from", "2020-01-01", "--until", "2020-01-02", "--reason", "x"),
         "in the past"),
    ],
)  # fmt: skip
def test_a_wrong_word_is_wrong_use_and_says_what_there_is(bare: Site, arguments: tuple[str, ...], words: str) -> None:
    done = bare.run("oncall", *arguments)
    assert done.code == 2
    assert words in done.err


def test_whoever_stands_in_is_shown_at_once_and_the_reason_is_on_record_and_masked(bare: Site) -> None:
    until = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    made = stand_in(bare, "example-backup", "--until", until).json
    assert (made["roster"], made["role"], made["person"], made["reason"]) == (
        "on-call", "primary", "example-backup", "***",
    )  # fmt: skip
    level = bare.json("oncall", "who", "on-call")["level"]
    assert (level[0]["person"], level[0]["stands_in"]) == ("example-backup", True)
    assert [one["id"] for one in bare.json("oncall", "overrides")] == [made["id"]]
    assert "oncall-override" in {one["action"] for one in bare.json("audit", "list")}
    assert "Jane" not in bare.run("oncall", "overrides").out + bare.run("audit", "list").out


def test_without_a_daemon_nobody_stands_in(bare: Site) -> None:
    done = bare.run("oncall", "override", "on-call", "example-backup", "--until", LATER, "--reason", "x")
    assert (done.code, bare.json("oncall", "overrides")) == (69, [])


def test_check_is_content_with_the_shipped_roster(bare: Site) -> None:
    done = bare.run("oncall", "check", "--json")
    assert (done.code, done.json["ok"], done.json["problems"]) == (0, True, [])


def test_check_finds_a_gap_with_its_times_and_says_no(bare: Site) -> None:
    rewrite(bare, 'until: "07:00", people: [example-night]', 'until: "06:00", people: [example-night]')
    done = bare.run("oncall", "check", "--days", "2", "--json")
    assert (done.code, done.json["ok"]) == (1, False)
    gaps = done.json["problems"]
    assert {(one["what"], one["roster"], one["role"]) for one in gaps} == {("gap", "on-call", "primary")}
    assert 1 <= len(gaps) <= 3
    assert bare.run("oncall", "check", "--days", "2").code == 1


def test_an_overlap_is_shown_and_no_fault(bare: Site) -> None:
    rewrite(bare, 'until: "07:00", people: [example-night]', 'until: "08:00", people: [example-night]')
    done = bare.run("oncall", "check", "--days", "3", "--json")
    assert (done.code, {one["what"] for one in done.json["problems"]}) == (0, {"overlap"})


def test_who_can_not_be_reached_is_a_fault(bare: Site) -> None:
    assert stand_in(bare, "example-night", "--until", LATER).code == 0
    rewrite(bare, "  example-night:\n", "  example-nights:\n")
    rewrite(bare, "people: [example-night]", "people: [example-nights]")
    done = bare.run("oncall", "check", "--days", "1", "--json")
    assert (done.code, {one["what"] for one in done.json["problems"]}) == (1, {"unreachable"})


def test_a_broken_roster_is_a_broken_configuration(bare: Site) -> None:
    rewrite(bare, "people: [example-night]", "people: [nobody]")
    done = bare.run("oncall", "who", "on-call")
    assert done.code == 78
    assert ROSTERS in done.err
    assert Path(ROSTERS).name in done.err


def test_nobody_is_paged_in_a_new_site(bare: Site) -> None:
    assert bare.json("pages", "list") == []
    assert "Nobody is being paged" in bare.run("pages", "list").out
    assert bare.run("pages", "show", "p12").code == 1
    assert bare.run("pages", "list", "--all", "--state", "sent").code == 2
