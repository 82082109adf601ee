"""Changes to many things at once: which are meant must be said, they can be seen before, and a person is asked."""

from __future__ import annotations

import click
import pytest
from site_with_store import Site, first_messages, without_destination

from engine.cli import dead, replay

KEY = "MRN:558181838"


@pytest.mark.parametrize(
    "command",
    [
        ("replay",),
        ("replay", "--yes"),
        ("replay", "--dry-run"),
        ("dead", "replay"),
        ("dead", "discard", "--reason", "x"),
    ],
    ids=" ".join,
)
def test_nothing_is_changed_of_which_nobody_said_which_it_is(stocked: Site, command: tuple[str, ...]) -> None:
    done = stocked.run(*command)
    assert (done.code, done.out) == (2, "")
    assert "say which" in done.err
    assert len(stocked.json("messages", "list")) == 4


def test_a_dry_replay_says_what_would_change(stocked: Site) -> None:
    document = stocked.json("replay", "--all", "--dry-run")
    assert (document["selected"], document["entries"]) == ([1, 2, 3, 4], [])
    assert [(one["entry"], one["state"], one["error"]) for one in document["would"]] == [
        (1, "processed", None), (2, "processed", None), (3, "dead", "identifier-missing"),
        (4, "refused", "type-not-accepted"),
    ]  # fmt: skip
    assert all(not one["tasks"] and not one["deliveries"] for one in document["would"]), "it was done before"
    text = stocked.run("replay", "--all", "--dry-run", "-v").out
    assert "4 entries would be replayed: " in text
    assert "1 ADT^A03 processed (main-campus)" in text
    assert "tasks       none" in text
    assert len(stocked.json("messages", "list")) == 4


def test_a_dry_replay_foretells_what_the_replay_then_does(bare: Site) -> None:
    channel = bare.folder / "channels/main-campus.yaml"
    text = channel.read_text()
    channel.write_text(f"{text}\nfilter: \"PV1-2 == 'E'\"\n")
    bare.receive(*first_messages(bare))
    bare.process()
    assert bare.json("tasks", "list") == []
    channel.write_text(text)
    would = bare.json("replay", "--state", "filtered", "--dry-run")["would"]
    assert bare.json("tasks", "list") == []
    bare.run("replay", "--state", "filtered")
    bare.process()
    assert sorted(task for one in would for task in one["tasks"]) == sorted(
        f"{task['kind']} new" for task in bare.json("tasks", "list")
    )
    assert sum(len(one["deliveries"]) for one in would) == bare.json("ledger")[0]["deliveries"]["pending"]
    again = bare.json("replay", "--all", "--dry-run")["would"]
    assert all(not one["tasks"] and not one["deliveries"] for one in again)


@pytest.mark.parametrize(
    ("choice", "count"),
    [(("--all",), 2), (("--error", "identifier-missing"), 1), (("--channel", "main-campus"), 2),
     (("--stage", "intake"), 1), (("--error", "identifier-missing", "--stage", "intake"), 0), (("1", "2"), 2)],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)  # fmt: skip
def test_dead_letters_are_discarded_by_what_they_have_in_common(
    stocked: Site, choice: tuple[str, ...], count: int
) -> None:
    preview = stocked.json("dead", "discard", *choice, "--reason", "noise", "--dry-run")
    assert len(preview) == count
    assert len(stocked.json("dead", "list", "--unresolved")) == 2
    discarded = stocked.json("dead", "discard", *choice, "--reason", "noise")
    assert [letter["id"] for letter in discarded] == [letter["id"] for letter in preview]
    assert all(letter["resolved_by"] == "discarded" for letter in discarded)
    assert len(stocked.json("dead", "list", "--unresolved")) == 2 - count
    assert len(stocked.json("audit", "list", "--action", "discard")) == count


def test_a_group_is_discarded_as_a_whole_or_not_at_all(stocked: Site) -> None:
    stocked.run("dead", "discard", "1", "--reason", "x")
    assert stocked.run("dead", "discard", "2", "1", "--reason", "x").code == 1
    assert [letter["id"] for letter in stocked.json("dead", "list", "--unresolved")] == [2]


def test_a_dry_replay_of_dead_letters_names_what_they_are(stocked: Site) -> None:
    text = stocked.run("dead", "replay", "--all", "--dry-run").out
    assert "2 dead letter(s) would be replayed: " in text
    assert "1 identifier-missing (main-campus)" in text
    assert len(stocked.json("messages", "list")) == 4


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A person at the terminal, who gives these answers; what was asked is appended to `asked`."""
    answers: list[bool] = []
    for module in (replay, dead):
        monkeypatch.setattr(module, "agree", _asks(answers))
    return answers


def _asks(answers: list[bool]):
    def agree(cli: object, question: str, *, yes: bool, unattended: bool = False) -> None:
        if not yes and not answers.pop(0):
            raise click.Abort

    return agree


@pytest.mark.parametrize(
    "command", [("replay", "--all"), ("dead", "replay", "--all"), ("dead", "discard", "--all", "--reason", "x")],
    ids=" ".join,
)  # fmt: skip
def test_a_person_is_asked_before_a_group_is_changed(
    stocked: Site, person: list[bool], command: tuple[str, ...]
) -> None:
    person.append(False)
    assert stocked.run(*command).code == 1
    assert len(stocked.json("messages", "list")) == 4
    assert len(stocked.json("dead", "list", "--unresolved")) == 2
    assert stocked.run(*command, "--yes").code == 0
    assert person == []


def test_one_that_was_named_is_not_asked_about(stocked: Site, person: list[bool]) -> None:
    assert stocked.run("dead", "discard", "1", "--reason", "x").code == 0


@pytest.mark.parametrize(
    "command",
    [("replay", "--all"), ("replay", "--since", "1d"), ("dead", "replay", "--all"),
     ("dead", "replay", "--stage", "intake"),
     ("dead", "discard", "--all", "--reason", "x"), ("resend", "--destination", "files", "--all"),
     ("resend", "--destination", "files", "--since", "1d")],
    ids=" ".join,
)  # fmt: skip
def test_what_the_contract_has_without_a_word_goes_where_nobody_can_be_asked(
    stocked: Site, command: tuple[str, ...]
) -> None:
    assert stocked.run(*command).code == 0


@pytest.mark.parametrize(
    "command",
    [("held", "release", "--destination", "files"), ("held", "confirm", "--destination", "files"),
     ("held", "bury", "--destination", "files", "--reason", "x"), ("destinations", "discard", "files", "--reason", "x"),
     ("destinations", "move", "files", "--to", "other")],
    ids=" ".join,
)  # fmt: skip
def test_any_other_group_needs_yes_where_nobody_can_be_asked(
    stocked: Site, two_held: list[int], command: tuple[str, ...]
) -> None:
    if command[0] == "destinations":
        without_destination(stocked)
    before = stocked.json("destinations", "list")
    done = stocked.run(*command)
    assert done.code == 2
    assert "--yes does it" in done.err
    assert stocked.json("destinations", "list") == before
    assert stocked.run(*command, "--dry-run").code == 0
    assert stocked.json("destinations", "list") == before
    assert stocked.run(*command, "--yes").code == 0
    assert stocked.json("destinations", "list") != before


# --- held deliveries -------------------------------------------------------------------------------------------------


@pytest.fixture
def two_held(stocked: Site) -> list[int]:
    for message in first_messages(stocked):
        other = message.replace(b"558181838", b"558181839").replace(b"V90001", b"V90002").replace(b"FIRST", b"OTHER")
        stocked.receive(other)
    stocked.process()
    return [stocked.hold_first_delivery(), stocked.hold_first_delivery()]


@pytest.mark.parametrize(
    ("command", "state"), [(("release",), "pending"), (("confirm",), "delivered"), (("bury", "--reason", "x"), "dead")]
)
@pytest.mark.parametrize("by", ["ids", "destination"])
def test_held_deliveries_are_decided_on_together(
    stocked: Site, two_held: list[int], command: tuple[str, ...], state: str, by: str
) -> None:
    held = sorted(item["id"] for item in stocked.json("held", "list") if item["what"] == "delivery")
    which = [*map(str, held)] if by == "ids" else ["--destination", "files", "--yes"]
    preview = stocked.json("held", command[0], *which, *command[1:], "--dry-run")
    assert sorted(item["id"] for item in preview) == held
    assert len(stocked.json("held", "list")) == len(held)
    done = stocked.json("held", command[0], *which, *command[1:])
    shapes = done if isinstance(done, list) else [done]
    assert {item["state"] for item in shapes} == {state}
    assert stocked.json("held", "list") == []


@pytest.mark.parametrize(
    "options", [(), ("1", "--destination", "files"), ("m1", "--destination", "files"), ("m1", "m2")]
)
def test_which_held_ones_are_meant_must_be_said_in_one_way(stocked: Site, options: tuple[str, ...]) -> None:
    assert stocked.run("held", "release", *options, "--reason", "x").code == 2


def test_one_that_is_not_held_keeps_the_others_as_they_are(stocked: Site, two_held: list[int]) -> None:
    assert stocked.run("held", "confirm", str(two_held[0]), "99999").code == 1
    assert two_held[0] in [item["id"] for item in stocked.json("held", "list")]
