"""`handoff audit unusual` and `review`: looks at patients that nothing explains."""

from __future__ import annotations

import os
import pwd
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from site_with_store import Site, seen

from engine.connectors.registry import load
from engine.domain.standing import Overview
from engine.pipeline.trouble import of_work
from engine.privacy.rules import load_privacy
from engine.runtime.oversight import AccessWatch
from engine.snapshot import Snapshot
from engine.store.opening import open_store

KEY = "MRN:558181838"
ME = pwd.getpwuid(os.getuid()).pw_name


def looked(site: Site) -> Site:
    site.json("patients", "show", KEY, "--reveal", "--reason", "a look")
    return site


def namesake(site: Site) -> Site:
    """Who runs the tests has the patient's family name."""
    file = site.folder / "mappings/privacy/unusual.yaml"
    file.write_text(file.read_text().replace("people: {}", f"people: {{{ME}: {{family: Doe}}}}"))
    return site


def troubles(site: Site) -> list[str]:
    """What the daemon would say."""
    snapshot = Snapshot.read(site.config)
    rules = load_privacy({"unusual": snapshot.document("mappings/privacy/unusual.yaml")}, [])
    with open_store(load(snapshot), "tool") as store, store.reader() as conn:
        watch = AccessWatch(store, rules, UTC, timedelta(days=7))
        work = watch.seen(conn, Overview(at=datetime.now(UTC)))
    return [one.code for one in of_work(work, datetime.now(UTC))]


def questions(site: Site, *more: str) -> list[dict[str, Any]]:
    return list(site.json("audit", "unusual", *more)["unexplained"])


def test_a_look_without_a_relation_is_a_question(stocked: Site) -> None:
    (one,) = questions(looked(stocked))
    assert one["actor"] == ME
    assert one["number"] == 1
    assert "not_explained" in [hit["rule"] for hit in one["rules"]]


def test_a_task_of_theirs_explains_it(stocked: Site) -> None:
    task = stocked.json("tasks", "list")[0]["id"]
    stocked.json("tasks", "assign", task, ME)
    found = looked(stocked).json("audit", "unusual")
    assert found["unexplained"] == []
    assert [one["reason"] for one in found["explained"]] == ["team"]


def test_a_namesake_is_above_the_line_and_trouble_until_somebody_has_asked(stocked: Site) -> None:
    (one,) = questions(looked(namesake(stocked)))
    assert one["above"]
    assert troubles(stocked) == ["access-unusual"]
    stocked.json("audit", "review", str(one["id"]), "--right", "--because", "sister ward, on call that day")
    assert troubles(stocked) == []
    assert [again["reviewed"] for again in questions(stocked)] == [True]
    assert stocked.json("audit", "list", "--action", "unusual-reviewed")[0]["subject"].startswith("record:")


def test_a_further_look_after_the_review_is_trouble_again(stocked: Site) -> None:
    (one,) = questions(looked(namesake(stocked)))
    stocked.json("audit", "review", str(one["id"]), "--right", "--because", "was asked to")
    looked(stocked)
    assert troubles(stocked) == ["access-unusual"]


def test_below_the_line_is_no_trouble(stocked: Site) -> None:
    file = stocked.folder / "mappings/privacy/unusual.yaml"
    file.write_text(file.read_text().replace("line: 50", "line: 500"))
    looked(stocked)
    assert troubles(stocked) == []


def test_masked_it_shows_nothing_of_the_patient_not_even_which_rule(stocked: Site, tmp_path: Path) -> None:
    looked(namesake(stocked))
    page = tmp_path / "page.html"
    done = stocked.run("audit", "unusual", "--html", str(page))
    assert seen(done.out + done.err + page.read_text()) == []
    assert "surname" not in done.out
    assert "personal" in done.out


def test_revealed_it_says_the_evidence_and_is_on_the_trail(stocked: Site) -> None:
    (one,) = questions(looked(namesake(stocked)), "--reveal", "--reason", "monthly review")
    assert one["patient_key"] == KEY
    assert one["rules"][0] == {"rule": "same_surname", "points": 40, "evidence": "they have the same family name"}
    assert len(stocked.json("audit", "list", "--action", "reveal")) == 2


def test_the_words_are_neutral(stocked: Site) -> None:
    out = looked(stocked).run("audit", "unusual").out.lower()
    assert not [word for word in ("suspicious", "snoop", "violation", "offender", "abuse") if word in out]


def test_a_review_of_what_is_no_question_is_refused(stocked: Site) -> None:
    done = stocked.run("audit", "review", "999", "--right", "--because", "nothing there")
    assert done.code == 1
    assert "audit unusual" in done.err


def test_of_a_time_without_looks_everything_is_explained(stocked: Site) -> None:
    done = stocked.run("audit", "unusual", "--since", "2020-01-01", "--until", "2020-01-02")
    assert "Everything is explained" in done.out
