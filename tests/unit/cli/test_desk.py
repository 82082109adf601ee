"""The desk: what any face may let people do, asked for before it is done, on record with who did it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from site_with_store import Site, without_destination

from engine.cli import app
from engine.connectors.registry import load
from engine.desk import acting, deciding, destinations, finding, replaying, resending
from engine.desk.desk import Desk, Reveal
from engine.domain.actor import Actor
from engine.domain.cause import TaskDone
from engine.errors import HandoffError, NotFoundError, WhichError
from engine.snapshot import Snapshot
from engine.store.opening import open_store

NURSE = Actor(kind="user", name="nina", roles=frozenset({"nurse"}))


class ForbiddenError(HandoffError):
    """Of a face that gives roles."""


class Guarded(Desk):
    """A desk at which nothing may be done, and what was asked for."""

    asked: list[str]

    def authorise(self, action: str, subjects: Iterable[str]) -> None:
        self.asked.append(action)
        raise ForbiddenError(action)


@pytest.fixture
def desk(stocked: Site) -> Iterator[Callable[[type[Desk]], Desk]]:
    opened: list[Desk] = []

    def sit(kind: type[Desk] = Desk) -> Desk:
        configuration = load(Snapshot.read(stocked.config))
        store = open_store(configuration, "tool")
        opened.append(kind(store, configuration.outline, lambda: configuration, NURSE))
        if isinstance(opened[-1], Guarded):
            opened[-1].asked = []
        return opened[-1]

    yield sit
    for one in opened:
        one.store.close()


def letters(at: Desk) -> list[int]:
    return at.store.read_now(at.store.dead_letters.unresolved)


def _resend(at: Desk) -> object:
    sender = resending.resender(at, "files", again=True)
    return list(resending.resend(at, "files", sender, only=None, since=None, dry_run=False, reason=None))


def _letters_again(at: Desk) -> object:
    return replaying.replay_letters(
        at, [finding.dead_letter(at, one) for one in letters(at)], "now", out_of_order=False
    )


def _done(at: Desk) -> object:
    task = at.store.read_now(lambda conn: at.store.tasks.find(conn, limit=1))[0]
    return acting.perform(at, [TaskDone(actor=str(at.actor), chart_id=task.chart_id, task=task.task.id)])


ACTS: dict[str, Callable[[Desk], object]] = {
    "reveal": lambda at: at.view(Reveal("a look"), ["entry:1"]),
    "replay": lambda at: list(replaying.replay(at, [1, 2], "now")),
    "replay of letters": _letters_again,
    "discard": lambda at: deciding.discard_letters(at, letters(at), "noise"),
    "release": lambda at: deciding.decide(at, [1], "release", None),
    "confirm": lambda at: deciding.decide(at, [1], "confirm", None),
    "bury": lambda at: deciding.decide(at, [1], "bury", "x"),
    "destination-paused": lambda at: destinations.pause(at, "files", None, None),
    "destination-resumed": lambda at: destinations.resume(at, "files", None),
    "destination-retried": lambda at: destinations.retry(at, "files"),
    "resend": _resend,
    "task-done": _done,
}


LOOKS = {"looked", "site-read", "trail-read"}


def state(site: Site) -> object:
    """All that an act could change."""
    acts = [one for one in site.json("audit", "list") if one["action"] not in LOOKS]
    return [acts] + [
        site.json(*command)
        for command in (
            ("messages", "list", "--kind", "all"), ("dead", "list"), ("held", "list"), ("tasks", "list"),
            ("destinations", "list"), ("ledger",),
        )
    ]  # fmt: skip


@pytest.mark.parametrize("name", ACTS)
def test_what_may_not_be_done_is_asked_about_first_and_changes_nothing(
    stocked: Site, desk: Callable[[type[Desk]], Desk], name: str
) -> None:
    assert stocked.hold_first_delivery() == 1
    before = state(stocked)
    at = desk(Guarded)
    with pytest.raises(ForbiddenError):
        ACTS[name](at)
    assert isinstance(at, Guarded)
    assert at.asked == [name.partition(" ")[0]]
    assert state(stocked) == before


@pytest.mark.parametrize("name", [name for name in ACTS if name != "task-done"])
def test_what_is_done_is_on_record_with_who_did_it(
    stocked: Site, desk: Callable[[type[Desk]], Desk], name: str
) -> None:
    stocked.hold_first_delivery()
    ACTS[name](desk(Desk))
    newest = stocked.json("audit", "list")[0]
    assert (newest["actor"], newest["action"]) == ("nina", name.partition(" ")[0])


@pytest.mark.parametrize("act", [destinations.discard, lambda at, name, why: destinations.move(at, name, "other", why)])
def test_an_orphan_is_steered_on_record(
    stocked: Site, desk: Callable[[type[Desk]], Desk], act: Callable[[Desk, str, str], int]
) -> None:
    without_destination(stocked)
    before = state(stocked)
    at = desk(Guarded)
    with pytest.raises(ForbiddenError):
        act(at, "files", "x")
    assert state(stocked) == before
    assert act(desk(Desk), "files", "x") > 0
    assert stocked.json("audit", "list")[0]["actor"] == "nina"


def test_a_name_that_means_nothing_or_too_much_is_told_from_a_thing_that_is_not_there(
    desk: Callable[[type[Desk]], Desk],
) -> None:
    at = desk(Desk)
    with pytest.raises(WhichError) as caught:
        finding.check_channel(at, "main-campsu")
    assert (caught.value.name, caught.value.known) == ("main-campsu", ("main-campus",))
    with pytest.raises(WhichError):
        finding.by_prefix("task", "7", ["71", "72"])
    for missing in (
        lambda: finding.chart(at, "MRN:none"), lambda: finding.dead_letter(at, 99),
        lambda: destinations.standing(at, "x"),
        lambda: finding.by_prefix("task", "7", []), lambda: deciding.decide(at, [99], "release", None),
    ):  # fmt: skip
        with pytest.raises(NotFoundError):
            missing()


def test_an_actor_is_kept_by_name() -> None:
    assert str(NURSE) == "nina"


def test_no_command_writes_the_store_itself() -> None:
    """What a face can do, every face can do: by the desk."""
    writes = re.compile(r"write_now|(journal|charts)_ledger")
    files = sorted((Path(app.__file__).parent).glob("*.py"))
    assert [file.name for file in files if writes.search(file.read_text())] == []
