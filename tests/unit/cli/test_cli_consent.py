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


FILE = """patient,number,state,at,how,wording
MRN:558181838,+1 (212) 555-0143,given,2026-03-01T09:30:00-05:00,paper form,2026-03
MRN:558181838,+12125550199,revoked,,,
MRN:999999,+12125550143,given,,,
MRN:558181838,5550143,given,,,
MRN:558181838,+12125550143,perhaps,,,
MRN:558181838,+12125550143,given,yesterday,,
"""


def test_consents_of_a_file_are_put_on_record_and_what_can_not_be_taken_is_refused_with_its_line(stocked: Site) -> None:
    path = stocked.folder / "consents.csv"
    path.write_text("\ufeff" + FILE, encoding="utf-8")
    dry = stocked.run("consent", "import", str(path), "--dry-run")
    assert (dry.code, "Would be put on record: 1 given, 1 revoked. Refused: 4." in dry.out) == (1, True)
    assert stocked.json("consent", "list", KEY) == []
    shape = stocked.json("consent", "import", str(path), "--how", "portal export", code=1)
    assert (shape["lines"], shape["given"], shape["revoked"]) == (6, 1, 1)
    assert [one["line"] for one in shape["refused"]] == [4, 5, 6, 7]
    listed = {one["number"]: one for one in stocked.json("consent", "list", KEY, *REVEAL)}
    assert (listed["+12125550143"]["state"], listed["+12125550143"]["how"], listed["+12125550143"]["wording"]) == (
        "given", "paper form", "2026-03",
    )  # fmt: skip
    assert listed["+12125550143"]["at"] == "2026-03-01T09:30:00-05:00"
    assert (listed["+12125550199"]["state"], listed["+12125550199"]["how"]) == ("revoked", "portal export")
    assert not any(word in dry.out + str(shape) for word in ("558181838", "999999", "5550143"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name,number\nx,y\n", "lacks patient, state"),
        (b"patient,number,state,ssn\n", "none of these"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"", "lacks patient, number, state"),
    ],
)
def test_a_file_that_is_none_is_refused_whole(stocked: Site, content: bytes, said: str) -> None:
    path = stocked.folder / "consents.csv"
    path.write_bytes(content)
    done = stocked.run("consent", "import", str(path))
    assert (done.code, said in done.err) == (1, True)
