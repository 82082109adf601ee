from __future__ import annotations

from collections.abc import Iterator

import pytest
from simulation.database import Disk
from simulation.simulate import make_disk


@pytest.fixture(scope="session")
def disk() -> Iterator[Disk]:
    made = make_disk()
    yield made
    made.close()
