"""Several nodes on one database: crashes, hangs, lost sessions, failovers, clocks, reordering, at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from simulation.database import Disk
from simulation.seeds import check, chunks


@pytest.mark.parametrize("seeds", chunks(clustered=True), ids=str)
def test_several_nodes_keep_every_promise_whatever_happens(
    seeds: Sequence[int], disk: Disk, record_property: Callable[[str, object], None]
) -> None:
    check(seeds, disk)
    record_property("seeds", len(seeds))
