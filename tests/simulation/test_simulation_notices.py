"""The simulation notices when the engine is broken: else its silence would say nothing."""

from __future__ import annotations

import pytest
from simulation import mutations
from simulation.database import Disk
from simulation.mishaps import Game
from simulation.simulate import AS_IT_COMES, Mutation, run

SEEDS_MAX = 40
"""Each shows in one game of four at least: which ones, a change of the engine may change."""


@pytest.mark.parametrize(
    ("mutation", "noticed", "game"),
    [
        (
            mutations.answers_before_the_commit,
            "acknowledged and is not stored",
            Game(commits_fail=0.2),
        ),
        (mutations.does_not_look_for_duplicates, "in the journal twice", AS_IT_COMES),
        (
            mutations.moves_cursors_without_looking,
            "",
            Game(clustered=False, messages=10, seconds=6.0, commits_fail=0.2),
        ),
        (
            mutations.does_not_check_leases,
            "which belongs to",
            Game(clustered=True, rates={"have-read": 0.05}, kinds=["session", "failover", "hang"]),
        ),
        (
            mutations.lets_leases_time_out,
            "which belongs to",
            Game(clustered=True, seconds=14.0, rates={"connect-out": 0.1, "read": 0.02}, kinds=["long hang"]),
        ),
        (
            mutations.sends_without_making_sure_that_it_may,
            "of the same patient has come",
            Game(clustered=True, messages=10, seconds=14.0, rates={"connect-out": 0.1}, kinds=["long hang"]),
        ),
        (
            mutations.does_not_note_attempts,
            "acts twice",
            Game(clustered=False, rates={"delivered": 0.2, "deliver": 0.1}, kinds=["kill"]),
        ),
        (mutations.loses_results, "acts twice", Game(clustered=False, messages=10, seconds=14.0, commits_fail=0.2)),
        (mutations.gives_everybody_the_turn, "of the same patient", AS_IT_COMES),
        (mutations.does_not_join_lines, "after it was merged away", Game(messages=20)),
        (mutations.asks_no_rules, "not what the rules of", Game(rules=True)),
        (mutations.forgets_questions, "other questions than were asked", AS_IT_COMES),
        (mutations.never_ends_questions, "is open, and not", Game(messages=20)),
        (mutations.never_rings, "charts that are due", Game(clustered=False, messages=4)),
        (mutations.goes_on_paging, "was acknowledged or resolved", AS_IT_COMES),
        (mutations.pages_for_tasks_that_have_ended, "and its task", AS_IT_COMES),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_simulation_notices_when_the_engine(mutation: Mutation, noticed: str, game: Game, disk: Disk) -> None:
    for seed in range(SEEDS_MAX):
        played = run(seed, disk, mutation, game)
        assert not any("TypeError" in line for line in played.trace), "the mutation does not fit what it replaces"
        if played.violation is not None and noticed in played.violation:
            return
    pytest.fail(f"not noticed in {SEEDS_MAX} seeds")
