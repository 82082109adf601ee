"""`handoff inventory`: what there is of the site, and what speaks to what."""

from __future__ import annotations

from site_with_store import Site


def test_listeners_destinations_and_versions_are_listed(bare: Site) -> None:
    found = bare.json("inventory")
    whats = [one["what"] for one in found["network"]]
    assert "channel main-campus (MLLP)" in whats
    assert "destination files (file)" in whats
    assert found["versions"]["handoff"]
    assert found["node"] == "main-1"


def test_of_a_url_only_the_host_is_shown(bare: Site) -> None:
    text = bare.config.read_text()
    hook = '  hook: {type: webhook, url: "https://far.example.org/x/abcdef", secret: {env: HOOK_SECRET}}\n'
    bare.config.write_text(text.replace("destinations:\n", f"destinations:\n{hook}"))
    done = bare.run("inventory", "--json")
    assert "abcdef" not in done.out
    (edge,) = [one for one in done.json["network"] if one["what"].startswith("destination hook")]
    assert (edge["to"], edge["encrypted"]) == ("far.example.org:443", True)
