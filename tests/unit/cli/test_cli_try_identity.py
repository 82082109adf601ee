"""`try` tells what of the channel's identity no message has."""

from __future__ import annotations

from site_with_store import Site


def test_try_tells_of_authorities_that_no_message_has(bare: Site) -> None:
    channel = bare.folder / "channels/main-campus.yaml"
    text = channel.read_text()
    first = str(bare.folder / "channels/examples/first-message.hl7")
    for authorities, told in (
        ("[WESTKISS]", ["WESTKISS"]),
        ("[MRN, {name: EAST, oid: 1.2.3}]", ["EAST"]),
        ("[MRN]", []),
    ):
        channel.write_text(text.replace("{authority: MRN}", f"{{authority: MRN, authorities: {authorities}}}"))
        done = bare.run("try", "main-campus", first)
        assert [line.split(" names ")[1].split(",")[0] for line in done.err.splitlines() if "identity." in line] == told
