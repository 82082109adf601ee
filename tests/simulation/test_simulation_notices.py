"""The simulation notices when the engine is broken: else its silence would say nothing."""

from __future__ import annotations

import pytest
from simulation import mutations
from simulation.database import Disk
from simulation.simulate import Mutation, run

SEEDS_MAX = 400
"""About four times what the slowest of them was found with."""


@pytest.mark.parametrize(
    ("mutation", "noticed"),
    [
        (mutations.answers_before_the_commit, "acknowledged and is not stored"),
        (mutations.does_not_look_for_duplicates, "in the journal twice"),
        (mutations.moves_cursors_without_looking, ""),
        (mutations.does_not_check_leases, "which belongs to"),
        (mutations.lets_leases_time_out, "which belongs to"),
        (mutations.sends_without_making_sure_that_it_may, "of the same patient has come"),
        (mutations.does_not_note_attempts, "acts twice"),
        (mutations.loses_results, "acts twice"),
        (mutations.gives_everybody_the_turn, "of the same patient"),
        (mutations.does_not_join_lines, "after it was merged away"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_simulation_notices_when_the_engine(mutation: Mutation, noticed: str, disk: Disk) -> None:
    for seed in range(SEEDS_MAX):
        found = run(seed, disk, mutation).violation
        if found is not None and noticed in found:
            return
    pytest.fail(f"not noticed in {SEEDS_MAX} seeds")
