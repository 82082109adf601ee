"""One node with several workers: crashes, hangs, failing commits, clocks, reordering, at every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from simulation.database import Disk
from simulation.seeds import check, chunks


@pytest.mark.parametrize("seeds", chunks(clustered=False), ids=str)
def test_one_node_keeps_every_promise_whatever_happens(
    seeds: Sequence[int], disk: Disk, record_property: Callable[[str, object], None]
) -> None:
    check(seeds, disk)
    record_property("seeds", len(seeds))
