"""`handoff medications`: the home list against the discharge list, masked until revealed, in 80 columns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from site_with_store import Site

NOW = datetime.now(UTC)
KEY = "MRN:901234"
REVEAL = ("--reveal", "--reason", "reconciliation")


def at(days: float) -> str:
    return (NOW + timedelta(days=days)).strftime("%Y%m%d%H%M%S+0000")


def message(code: str, written: str, *segments: str) -> bytes:
    head = f"MSH|^~\\&|EPIC|MAIN|HANDOFF|H|{written}||{code}|{code}{written}|P|2.5.1"
    return "\r".join([head, "PID|1||901234^^^MRN^MR||ROE^ANN||19500312|F", *segments, ""]).encode()


def prescribed(number: str, drug: str, sig: str, written: str) -> bytes:
    order = f"ORC|NW||{number}^RX||||||{written}{'|' * 20}O"
    return message("RDE^O11", written, order, f"RXE||^{drug}|||||^{sig}")


@pytest.fixture
def discharged(bare: Site) -> Site:
    channel = bare.folder / "channels" / "main-campus.yaml"
    channel.write_text(channel.read_text().replace('"SIU^*"', '"SIU^*", "RDE^*"'))
    stay = f"PV1|1|I|4W^401^1|E{'|' * 15}V77^^^MRN{'|' * 25}{at(-6)}"
    bare.receive(
        prescribed("1", "Metoprolol tartrate 50 mg tablet", "1 tablet twice a day", at(-60)),
        prescribed("2", "Digoxin 0.125 mg tablet", "1 tablet daily", at(-59)),
        message("ADT^A01", at(-6), stay),
        prescribed("3", "Metoprolol succinate ER 100 mg tablet", "1 tablet daily", at(-2)),
        prescribed("4", "Carvedilol 6.25 mg tablet", "1 tablet bid", at(-1.5)),
        message("ADT^A03", at(-1), f"{stay}|{at(-1)}"),
    )
    bare.process()
    return bare


def test_the_two_lists_of_the_last_stay_are_compared(discharged: Site) -> None:
    shape = discharged.json("medications", KEY, *REVEAL)
    names = {one["id"]: one["text"] for one in (*shape["home"], *shape["discharge"])}
    found = [
        (one["class"], *(names[id_].split()[0] for id_ in (*one["home"], *one["discharge"])))
        for one in shape["findings"]
    ]
    assert found == [
        ("form_release", "Metoprolol", "Metoprolol"),
        ("stopped", "Digoxin"),
        ("new", "Carvedilol"),
        ("duplicate_class", "Metoprolol", "Carvedilol"),
    ]
    assert shape["home"][0]["understood"]["ingredients"] == ["metoprolol"]
    assert shape["home"][0]["directions"] == ["1 tablet twice a day"]


def test_masked_nothing_of_what_is_taken_is_shown(discharged: Site) -> None:
    shown = discharged.run("medications", KEY).out + str(discharged.json("medications", KEY))
    assert not any(word in shown.lower() for word in ("metoprolol", "digoxin", "beta", "tablet", "roe", "901234"))


def test_a_page_of_80_columns_holds_it(discharged: Site) -> None:
    done = discharged.run("medications", KEY, *REVEAL)
    assert max(map(len, done.out.splitlines())) <= 80
    assert "Two of one class: beta blocker" in done.out


def test_whoever_was_in_no_hospital_has_no_lists(bare: Site) -> None:
    bare.receive(message("ADT^A28", at(-6)))
    bare.process()
    done = bare.run("medications", KEY)
    assert (done.code, "no such stay" in done.err) == (1, True)


def test_a_stay_without_prescriptions_says_so(bare: Site) -> None:
    bare.receive(message("ADT^A01", at(-6), f"PV1|1|I|4W^401^1|E{'|' * 15}V77^^^MRN{'|' * 25}{at(-6)}"))
    bare.process()
    assert "No prescriptions are known" in bare.run("medications", KEY).out
