"""`handoff audit disclosures`: who was told what of a patient."""

from __future__ import annotations

import re
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from site_with_store import Site, first_messages, seen

from engine.connectors.registry import load
from engine.domain.delivery import NOTHING_SENT, DeliveryState
from engine.snapshot import Snapshot
from engine.store.opening import open_store
from engine.store.outbox import Settled

KEY = "MRN:558181838"
REGISTRY = (
    "  files: {type: file, path: var/outbox, disclosure: {as: accountable, recipient: State registry,"
    ' address: "1 Capitol Square", purpose: reporting that the law requires}}\n'
)


def marked(site: Site, line: str = REGISTRY) -> Site:
    text = site.config.read_text()
    site.config.write_text(re.sub(r"^  files: .*\n", lambda _: line, text, flags=re.MULTILINE))
    return site


def deliver(site: Site, mark: str | None, *, state: DeliveryState = DeliveryState.DELIVERED, limit: int = 100) -> int:
    """What the courier records of what is due."""
    number = 0
    with open_store(load(Snapshot.read(site.config)), "tool") as store:
        while number < limit:
            with store.reader() as conn:
                due = store.outbox.due(conn, "files", datetime.now(UTC), limit - number)
            if not due:
                break
            results = [Settled(id=one.id, state=state, attempts=1, disclosed=mark) for one in due]
            store.charts_ledger.write_now(lambda conn, some=results: store.outbox.settle(conn, some, site.clock.now()))
            number += len(due)
    return number


def accounting(site: Site, *more: str) -> Any:
    return site.json("audit", "disclosures", KEY, *more)


def test_what_went_to_an_accountable_recipient_is_one_line_with_date_recipient_what_and_why(stocked: Site) -> None:
    number = deliver(marked(stocked), "accountable")
    (line,) = accounting(stocked)["disclosures"]
    assert line["number"] == number > 1
    assert line["recipient"] == {"name": "State registry", "address": "1 Capitol Square"}
    assert line["purpose"] == "reporting that the law requires"
    assert "hospital stay" in line["description"]
    assert line["first"] == line["last"]
    assert line["frequency"] == f"{number} times on one day"


def test_what_is_for_treatment_is_left_out_and_said_to_be(stocked: Site) -> None:
    number = deliver(marked(stocked), "tpo")
    found = accounting(stocked)
    assert found["disclosures"] == found["unmarked"] == []
    assert {"ground": "tpo", "number": number}.items() <= found["excluded"][0].items()


def test_what_nobody_has_marked_is_said_apart(stocked: Site) -> None:
    number = deliver(stocked, None)
    found = accounting(stocked)
    assert found["disclosures"] == []
    assert [one["number"] for one in found["unmarked"]] == [number]
    assert "decide" in stocked.run("audit", "disclosures", KEY).out


def test_a_copy_keeps_what_it_counted_as_when_it_was_sent(stocked: Site) -> None:
    deliver(marked(stocked), "accountable")
    marked(stocked, "  files: {type: file, path: var/outbox, disclosure: {as: tpo, recipient: Clinic}}\n")
    assert len(accounting(stocked)["disclosures"]) == 1


def test_what_was_done_without_a_word_to_the_destination_is_no_disclosure(stocked: Site) -> None:
    deliver(stocked, NOTHING_SENT)
    found = accounting(stocked)
    assert found["disclosures"] == found["unmarked"] == found["excluded"] == []


def test_a_copy_of_which_nobody_knows_whether_it_arrived_is_said(stocked: Site) -> None:
    stocked.hold_first_delivery()
    found = accounting(stocked)
    assert found["disclosures"] == []
    assert "is not known" in found["remarks"][0]


def test_a_look_here_is_a_use_and_counted_as_one(stocked: Site) -> None:
    stocked.json("patients", "show", KEY, "--reveal", "--reason", "rounds")
    (use,) = accounting(stocked)["excluded"]
    assert (use["ground"], use["number"]) == ("use", 1)


def test_only_the_time_that_is_asked_for_counts(stocked: Site) -> None:
    deliver(marked(stocked), "accountable")
    assert accounting(stocked, "--until", "2020-01-01")["disclosures"] == []
    assert accounting(stocked, "--since", "1h")["disclosures"] != []


def test_it_is_on_the_trail_whose_accounting_was_made(stocked: Site) -> None:
    accounting(stocked)
    (record,) = stocked.json("audit", "list", "--action", "disclosures-accounted")
    assert record["subject"].startswith("chart:")


def test_nothing_of_the_patient_is_shown_without_reveal(stocked: Site, tmp_path: Path) -> None:
    deliver(marked(stocked), "accountable")
    page = tmp_path / "page.html"
    done = stocked.run("audit", "disclosures", KEY, "--html", str(page))
    assert seen(done.out + done.err + page.read_text()) == []


def test_the_page_names_the_patient_with_reveal_and_is_its_owners_alone(stocked: Site, tmp_path: Path) -> None:
    deliver(marked(stocked), "accountable")
    page = tmp_path / "page.html"
    stocked.json("audit", "disclosures", KEY, "--html", str(page), "--reveal", "--reason", "asked in writing")
    text = page.read_text()
    assert "JANE" in text
    assert "558181838" in text
    assert "State registry" in text
    assert "<script" not in text
    assert stat.S_IMODE(page.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("{as: tpoo, recipient: Clinic}", "did you mean"),
        ("{as: accountable, recipient: Registry}", "purpose"),
    ],
)
def test_check_finds_a_mark_that_there_is_not_and_one_without_its_purpose(bare: Site, said: str, words: str) -> None:
    marked(bare, f"  files: {{type: file, path: var/outbox, disclosure: {said}}}\n")
    problems = bare.json("check", code=1)["problems"]
    assert words in " ".join(one["message"] for one in problems)
    assert problems[0]["file"] == "config.yaml"


def test_confirming_a_held_copy_marks_it(stocked: Site) -> None:
    number = marked(stocked).hold_first_delivery()
    assert stocked.run("held", "confirm", str(number), "--yes").code == 0
    assert [one["number"] for one in accounting(stocked)["disclosures"]] == [1]


def over(site: Site) -> None:
    """Nothing of the patients is open any more."""
    for task in site.json("tasks", "list", "--patient", KEY):
        if task["state"] in {"open", "missed", "in_progress"}:
            site.json("tasks", "cancel", task["id"], "--reason", "over")
    if site.json("dead", "list", "--unresolved"):
        site.json("dead", "discard", "--all", "--reason", "seen")


def ahead(site: Site, days: int) -> None:
    (site.folder / "ahead").write_text(str(days * 86_400))
    text = site.config.read_text()
    if "offset_seconds_file" not in text:
        site.config.write_text(f"{text}\npurpose: test\nclock: {{offset_seconds_file: ahead}}\n")


def alike(found: Any) -> Any:
    """What a patient is told of disclosures, whenever it was made."""
    return found["disclosures"], found["unmarked"]


def test_what_was_disclosed_is_told_when_messages_and_copies_are_swept(stocked: Site) -> None:
    deliver(marked(stocked), "accountable")
    over(stocked)
    deliver(stocked, "accountable")
    before = accounting(stocked)
    ahead(stocked, 3 * 365)
    swept = {one["what"]: one["count"] for one in stocked.json("sweep")}
    assert swept["messages"] > 0
    assert swept["deliveries"] > 0
    assert swept["charts"] == 0
    assert alike(accounting(stocked)) == alike(before)


@pytest.mark.parametrize("way", ["erased", "swept"])
def test_what_was_disclosed_is_told_of_a_patient_who_is_erased_by_any_of_their_numbers(stocked: Site, way: str) -> None:
    deliver(marked(stocked), "accountable")
    over(stocked)
    deliver(stocked, "accountable")
    (before,) = accounting(stocked)["disclosures"]
    if way == "swept":
        stocked.config.write_text(f"{stocked.config.read_text()}\nretention: {{charts_years: 1}}\n")
        ahead(stocked, 3 * 365)
        assert {one["what"]: one["count"] for one in stocked.json("sweep")}["charts"] >= 1
    else:
        assert stocked.run("patients", "erase", KEY, "--reason", "asked for", "--yes").code == 0
    assert stocked.run("patients", "show", KEY).code == 1
    found = accounting(stocked, "--reveal", "--reason", "the patient asks")
    assert found["disclosures"] == [before]
    assert found["patient"] == {"key": KEY, "name": None, "birth_date": None, "address": None}
    assert any("erased on" in one for one in found["remarks"])
    assert stocked.run("audit", "disclosures", "MRN:0").code == 1
    assert stocked.json("audit", "verify")["ok"]


def test_a_patient_who_comes_again_is_told_what_was_disclosed_before_they_were_erased(stocked: Site) -> None:
    deliver(marked(stocked), "accountable")
    over(stocked)
    deliver(stocked, "accountable")
    before = accounting(stocked)["disclosures"]
    assert stocked.run("patients", "erase", KEY, "--reason", "asked for", "--yes").code == 0
    stocked.receive(first_messages(stocked)[0].replace(b"V90001", b"V90002"))
    stocked.process()
    assert stocked.run("patients", "show", KEY).code == 0
    assert before
    assert accounting(stocked)["disclosures"] == before
