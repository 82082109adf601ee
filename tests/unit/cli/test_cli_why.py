"""`handoff try` and `messages show` say why there is a plan, a score, a delivery, or none."""

from __future__ import annotations

import re

import pytest
from site_with_store import REFUSED, UNREADABLE, Site, first_messages, seen

from engine.cli import tables

EMERGENCY = (b"|I|", b"|E|")
UNKNOWN = (b"|I|", b"|WARDX|")


def as_class(payload: bytes, change: tuple[bytes, bytes]) -> bytes:
    before, _, visit = payload.partition(b"PV1|")
    return before + b"PV1|" + visit.replace(*change, 1)


def test_try_says_it_in_text_and_json(bare: Site) -> None:
    file = bare.folder / "emergency.hl7"
    file.write_bytes(as_class(first_messages(bare)[1], EMERGENCY))
    result = bare.json("try", "main-campus", str(file))
    assert [(one["what"], one["name"], one["decided"]) for one in result["why"]] == [
        ("plan", "post-discharge", "withheld"),
        ("score", "lace", "withheld"),
        ("score", "seed", "withheld"),
        ("delivery", "files", "done"),
        ("delivery", "files", "withheld"),
    ]
    assert result["why"][0]["reason"] == "class: class E is not in classes of post-discharge"
    text = bare.run("try", "main-campus", str(file)).out
    assert "\nplan: none: class E is not in classes of post-discharge\n" in text
    assert "\nscore lace: none: class E is not scored, inpatient and observation stays are\n" in text
    assert "\ndelivery files: patient, encounter\n" in text
    assert "\ndelivery files: none: nothing of what it takes has changed: score, task\n" in text


def test_a_class_that_no_table_knows_is_not_repeated(bare: Site) -> None:
    file = bare.folder / "unknown.hl7"
    file.write_bytes(as_class(first_messages(bare)[1], UNKNOWN))
    result = bare.json("try", "main-campus", str(file))
    assert result["why"][0]["decided"] == "done"
    assert result["why"][0]["reason"].startswith("class: a class that no table knows: a person is asked")
    assert not any("WARDX" in one["reason"] for one in result["why"])


def test_show_says_it_of_what_is_stored_and_fits_a_terminal(bare: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    admission, discharge = first_messages(bare)
    ids = bare.receive(admission, discharge, discharge.replace(b"|ADT^A03", b"|ADT^A08", 1), UNREADABLE, REFUSED)
    (waiting,) = {one["reason"] for one in bare.json("messages", "show", str(ids[0]))["why"]}
    assert waiting == "waiting: the message is not processed yet"
    bare.process()
    shown = [bare.json("messages", "show", str(one))["why"] for one in ids]
    plans = [why[0]["reason"].partition(":")[0] for why in shown]
    assert plans == ["not_discharged", "planned", "no_change", "dead", "refused"]
    assert {one["decided"] for one in shown[1] if one["what"] != "delivery"} == {"done"}
    assert all({"plan", "score", "delivery"} == {one["what"] for one in why} for why in shown)
    monkeypatch.setattr(tables, "terminal_columns", lambda: 80)
    for one in ids:
        text = bare.run("messages", "show", str(one)).out
        start = text.index("\n  plan: ")
        assert max(map(len, text[start:].splitlines())) <= 80
        assert not seen(text)
    assert "\n  plan: new tasks: " in bare.run("messages", "show", str(ids[1])).out


def test_show_says_it_by_the_channel_as_it_was_when_the_message_came(stocked: Site) -> None:
    before = stocked.json("messages", "show", "2")["why"]
    file = stocked.folder / "channels/main-campus.yaml"
    file.write_text(re.sub(r"(?m)^risk: .*$", "risk: [seed]", file.read_text()))
    assert "risk: [seed]" in file.read_text()
    assert stocked.json("messages", "show", "2")["why"] == before


def test_show_says_it_while_the_files_are_broken(stocked: Site) -> None:
    before = stocked.json("messages", "show", "2")["why"]
    stocked.config.write_text(stocked.config.read_text() + "\nnonsense: 1\n")
    assert stocked.json("messages", "show", "2")["why"] == before


def test_a_replay_that_finds_everything_as_it_is_says_so(stocked: Site) -> None:
    assert stocked.json("replay", "--all")["entries"]
    stocked.process()
    newest = next(one for one in stocked.json("messages", "list") if one["replay_of"] == 2)
    why = stocked.json("messages", "show", str(newest["id"]))["why"]
    assert {one["reason"].partition(":")[0] for one in why} <= {"no_change", "duplicate"}


@pytest.mark.parametrize("event", [b"A08", b"A31", b"A03", b"A02", b"A21", b"A13"])
@pytest.mark.parametrize("class_", [b"I", b"E"])
def test_show_says_of_a_message_what_try_foretold(bare: Site, event: bytes, class_: bytes) -> None:
    admission, discharge = (as_class(one, (b"|I|", b"|%s|" % class_)) for one in first_messages(bare))
    bare.receive(admission, discharge)
    bare.process()
    again = discharge.replace(b"ADT^A03", b"ADT^" + event, 1).replace(b"FIRST-0002", b"AGAIN", 1)
    file = bare.folder / "again.hl7"
    file.write_bytes(again)
    foretold = bare.json("try", "main-campus", str(file), "--charts")["why"]
    (entry,) = bare.receive(again)
    bare.process()
    assert bare.json("messages", "show", str(entry))["why"] == foretold
    if class_ == b"E" and event in {b"A08", b"A03", b"A02"}:
        assert foretold[0]["reason"] == "class: class E is not in classes of post-discharge"
