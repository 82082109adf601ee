"""`handoff consent`: whether a patient may be written to."""

from __future__ import annotations

import pytest
from site_with_store import Site, seen

KEY = "MRN:558181838"
NUMBER = "+12125550143"
AT = ("--purpose", "care", "--channel", "sms", "--number", NUMBER)
REVEAL = ("--reveal", "--reason", "asked")


def test_given_and_revoked_are_on_record_with_who_when_and_how(stocked: Site) -> None:
    assert stocked.json("consent", "list", KEY) == []
    given = stocked.json("consent", "give", KEY, *AT, "--how", "paper form", "--wording", "2026-03", "--reason", "MARK")
    assert given.keys() == {"purpose", "channel", "number", "state", "at", "how", "by", "wording"}
    assert (given["state"], given["how"], given["wording"], given["number"]) == (
        "given",
        "paper form",
        "2026-03",
        "***",
    )
    revoked = stocked.json("consent", "revoke", KEY, *AT)
    assert revoked["state"] == "revoked"
    (listed,) = stocked.json("consent", "list", KEY, *REVEAL)
    assert (listed["number"], listed["state"], listed["by"]) == (NUMBER, "revoked", revoked["by"])
    assert [one["state"] for one in listed["history"]] == ["given"]
    found = [one["action"] for one in stocked.json("audit", "list") if one["action"].startswith("contact-")]
    assert found == ["contact-revoked", "contact-given"]
    assert stocked.json("audit", "verify")["problems"] == []


def test_number_and_what_somebody_typed_are_masked(stocked: Site) -> None:
    stocked.json("consent", "give", KEY, *AT, "--how", "told DOE JANE at home", "--reason", "MARK")
    for done in (stocked.run("consent", "list", KEY), stocked.run("consent", "list", KEY, "--json")):
        assert seen(done.out + done.err) == []
        assert "MARK" not in done.out
    assert "given" in stocked.run("consent", "list", KEY).out


@pytest.mark.parametrize(
    "number", ["2125550143", "+99", "+0123456789", "call me", "", "+1212555014x", "+" + "1" * 16, "+1212555014٣"]
)
def test_what_is_no_number_is_refused_and_never_repeated(stocked: Site, number: str) -> None:
    done = stocked.run("consent", "give", KEY, *AT[:4], "--number", number, "--how", "form")
    assert done.code in {1, 2}
    assert not number or number not in done.out + done.err
    assert stocked.json("consent", "list", KEY) == []


@pytest.mark.parametrize(
    "wrong",
    [("--purpose", "Care Texts"), ("--channel", "fax"), ("--wording", "two words")],
)
def test_what_makes_no_sense_is_refused(stocked: Site, wrong: tuple[str, str]) -> None:
    done = stocked.run("consent", "give", KEY, *AT, "--how", "form", *wrong)
    assert done.code in {1, 2}


def test_a_number_may_be_written_as_people_write_it(stocked: Site) -> None:
    stocked.json("consent", "give", KEY, *AT[:4], "--number", "+1 (212) 555-0143", "--how", "form")
    (listed,) = stocked.json("consent", "list", KEY, *REVEAL)
    assert listed["number"] == NUMBER


@pytest.mark.parametrize(("group", "other"), [("consent", "handoff consents"), ("consents", "handoff consent")])
def test_each_of_the_two_groups_of_like_name_says_what_the_other_is_for(bare: Site, group: str, other: str) -> None:
    assert f"`{other}`" in bare.run(group, "--help").out.replace("\n", " ")
