"""`handoff phone`: the phones of a simulated network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from site_with_store import Site

NUMBER = "+15185550123"


@pytest.fixture
def phones(stocked: Site) -> Callable[..., Site]:
    def add(*names: str) -> Site:
        lines = "".join(f"  {name}: {{type: simulated_phone, path: var/phones/{name}}}\n" for name in names)
        text = stocked.config.read_text()
        assert "\ndestinations:\n" in text
        stocked.config.write_text(text.replace("\ndestinations:\n", f"\ndestinations:\n{lines}"))
        return stocked

    return add


def test_what_is_said_is_in_the_transcript_and_that_somebody_read_it_is_on_record(
    phones: Callable[..., Site],
) -> None:
    site = phones("demo")
    assert site.json("phone", "transcript", NUMBER) == []
    assert site.json("phone", "reply", NUMBER, "STOP")["id"].startswith("SM")
    said = site.json("phone", "transcript", "(518) 555-0123")
    assert [(one["direction"], one["text"].split()[0]) for one in said] == [("in", "STOP"), ("out", "You")]
    assert said[0].keys() == {"at", "direction", "text"}
    assert "STOP" in site.run("phone", "transcript", NUMBER).out
    looked = [one for one in site.json("audit", "list") if one["action"] == "looked"]
    assert len(looked) >= 3


@pytest.mark.parametrize("number", ["", "call me", "+123", "+1" + "5" * 20, "5185550123x"])
def test_what_is_no_number_is_refused(phones: Callable[..., Site], number: str) -> None:
    site = phones("demo")
    for words in (("reply", number, "x"), ("transcript", number)):
        assert site.run("phone", *words).code == 2


def test_without_such_a_network_or_with_several_it_is_said_what_to_do(phones: Callable[..., Site]) -> None:
    site = phones()
    done = site.run("phone", "reply", NUMBER, "hi")
    assert (done.code, "simulated_phone" in done.err) == (1, True)
    phones("one", "two")
    done = site.run("phone", "reply", NUMBER, "hi")
    assert (done.code, "--destination: one, two" in done.err) == (2, True)
    assert site.run("phone", "reply", NUMBER, "hi", "--destination", "three").code == 1
    assert site.run("phone", "reply", NUMBER, "hi", "--destination", "two").code == 0
    assert site.json("phone", "transcript", NUMBER, "--destination", "one") == []
