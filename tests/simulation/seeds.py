"""Which seeds are run: even ones have several nodes on one database, odd ones a single node.

SIMULATION_SEEDS: how many (200; `make soak`
runs 500 new ones a round). SIMULATION_FIRST: where they begin (0). SIMULATION_SEED: this one only, with
SIMULATION_TRACE=1 for everything that happens in it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from simulation.database import Disk
from simulation.simulate import run

_CHUNK = 10
"""Seeds of one test: a few seconds, so that no process has a long one left when the others are done."""


def chunks(*, clustered: bool) -> list[range]:
    """Seeds, by what one test runs."""
    only = os.environ.get("SIMULATION_SEED")
    if only is not None:
        return [range(int(only), int(only) + 1)] if (int(only) % 2 == 0) is clustered else []
    first, count = int(os.environ.get("SIMULATION_FIRST", "0")), int(os.environ.get("SIMULATION_SEEDS", "200"))
    ours = range(first + ((first % 2 == 0) is not clustered), first + count, 2)
    return [ours[at : at + _CHUNK] for at in range(0, len(ours), _CHUNK)]


def check(seeds: Sequence[int], disk: Disk) -> None:
    for seed in seeds:
        done = run(seed, disk)
        if done.violation is not None:
            pytest.fail(done.report(), pytrace=False)
