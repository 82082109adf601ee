"""The simulation notices when the engine is broken: else its silence would say nothing."""

from __future__ import annotations

import warnings

import pytest
from simulation import mutations
from simulation.database import Disk
from simulation.simulate import Mutation, run

SEEDS_MAX = 600
"""More than twice what the slowest of them was found with."""


@pytest.mark.parametrize(
    ("mutation", "noticed", "first"),
    [
        (mutations.answers_before_the_commit, "acknowledged and is not stored", 0),
        (mutations.does_not_look_for_duplicates, "in the journal twice", 0),
        (mutations.moves_cursors_without_looking, "", 81),
        (mutations.does_not_check_leases, "which belongs to", 2),
        (mutations.lets_leases_time_out, "which belongs to", 312),
        (mutations.sends_without_making_sure_that_it_may, "of the same patient has come", 4),
        (mutations.does_not_note_attempts, "acts twice", 5),
        (mutations.loses_results, "acts twice", 109),
        (mutations.gives_everybody_the_turn, "of the same patient", 0),
        (mutations.does_not_join_lines, "after it was merged away", 1),
        (mutations.asks_no_rules, "not what the rules of", 8),
        (mutations.forgets_questions, "other questions than were asked", 2),
        (mutations.never_ends_questions, "is open, and not", 2),
        (mutations.never_rings, "charts that are due", 0),
        (mutations.goes_on_paging, "was acknowledged or resolved", 0),
        (mutations.pages_for_tasks_that_have_ended, "and its task", 5),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_simulation_notices_when_the_engine(mutation: Mutation, noticed: str, first: int, disk: Disk) -> None:
    """first: where it was noticed last. An engine that has changed plays another game: then all are tried, and a
    warning says which one to put into the table, because looking for it costs minutes.
    """
    for seed in (first, *range(SEEDS_MAX)):
        found = run(seed, disk, mutation).violation
        if found is not None and noticed in found:
            if seed != first:
                name = getattr(mutation, "__name__", "")
                warnings.warn(f"{name}: seed {first} is stale, it is noticed in {seed} now", stacklevel=1)
            return
    pytest.fail(f"not noticed in {SEEDS_MAX} seeds")
