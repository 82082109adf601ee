from __future__ import annotations

import pytest
from site_with_store import Site
from sqlalchemy import select

from engine.connectors.registry import load
from engine.snapshot import Snapshot
from engine.store import schema
from engine.store.opening import open_store


def patient(number: int, family: str, born: str = "19580715") -> bytes:
    """The admission of another patient."""
    at = f"202611{number:02d}120000"
    return (
        f"MSH|^~\\&|EHR|MAIN|||{at}||ADT^A01|FIND-{number}|P|2.5.1\rEVN|A01|{at}\r"
        f"PID|1||{number}^^^MRN^MR||{family}^ANN||{born}|F\rPV1|1|I|||||||||||||||||VISIT-{number}^^^MRN\r"
    ).encode()


@pytest.fixture
def many(stocked: Site) -> Site:
    for number, family in enumerate(("ADAMS", "Adamson", "BAKER", "adam"), start=1):
        stocked.receive(patient(number, family, f"19{number}80715"))
        stocked.process()
    return stocked


def found(site: Site, *options: str) -> list[str]:
    shapes = site.json("patients", "find", *options, "--reveal", "--reason", "test")
    return [shape["key"] for shape in shapes]


def test_without_options_the_charts_that_changed_last_come_first(many: Site) -> None:
    assert found(many, "--limit", "3") == ["MRN:4", "MRN:3", "MRN:2"]


def test_a_family_name_is_found_by_its_beginning_whatever_its_case(many: Site) -> None:
    assert found(many, "--name", "adam") == ["MRN:4", "MRN:2", "MRN:1"]
    assert found(many, "--name", "ADAMS") == ["MRN:2", "MRN:1"]
    assert found(many, "--name", "adam", "--limit", "1") == ["MRN:4"]


def test_conditions_are_met_together(many: Site) -> None:
    assert found(many, "--name", "adam", "--birth-date", "1980") == []
    assert found(many, "--name", "adam", "--birth-date", "1938-07") == []
    assert found(many, "--birth-date", "1938-07") == ["MRN:3"]
    assert found(many, "--visit", "MRN:VISIT-2", "--name", "baker") == []


@pytest.mark.parametrize("visit", ["VISIT-2", "MRN:VISIT-2"])
def test_a_visit_is_found_by_its_number_and_by_its_key(many: Site, visit: str) -> None:
    assert found(many, "--visit", visit) == ["MRN:2"]


def test_a_whole_visit_key_is_found_however_many_charts_have_changed_since(many: Site) -> None:
    done = many.run("patients", "find", "--visit", "MRN:VISIT-1", "--within", "1", "--json")
    assert (len(done.json), done.err) == (1, "")


def test_it_says_when_not_all_charts_were_looked_through(many: Site) -> None:
    done = many.run("patients", "find", "--name", "adam", "--within", "2", "--json")
    assert len(done.json) == 1
    assert "Only the 2 charts" in done.err
    assert "Only" not in many.run("patients", "find", "--name", "adam", "--json").err
    assert many.run("patients", "find", "--name", "adam", "--within", "5").err == ""


def test_a_damaged_chart_is_named_and_hides_no_other(many: Site) -> None:
    with open_store(load(Snapshot.read(many.config)), "tool") as store:
        table = schema.chart

        def damage(conn: object) -> str:
            ids = [row.id for row in conn.execute(select(table.c.id).order_by(table.c.updated_at))]  # type: ignore[attr-defined]
            body = conn.execute(select(table.c.document).where(table.c.id == ids[0])).scalar_one()  # type: ignore[attr-defined]
            conn.execute(table.update().where(table.c.id == ids[-1]).values(document=body))  # type: ignore[attr-defined]
            return str(ids[-1])

        damaged = store.charts_ledger.write_now(damage)
    done = many.run("patients", "find", "--name", "adam", "--json")
    assert len(done.json) == 2
    assert damaged in done.err
