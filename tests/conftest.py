"""That this file is here puts `tests/` on the import path, so that any test can use `peers` and the builders.

What hypothesis draws is the same on every run, like all chance in tests (`rounds`), and how long an example takes is
never judged: on a loaded machine any of them can take a second.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

_TESTS: Final = Path(__file__).parent

gc.disable()  # until all is loaded
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes are started: the engine is compiled once

settings.register_profile(
    "handoff",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    **({} if os.environ.get("HANDOFF_TEST_SEED") else {"derandomize": True, "database": None}),
)
settings.load_profile("handoff")

_LONGEST_FIRST: Final = ("acceptance", "simulation", "faults")
"""Folders with tests that take long: begun last, one of them would keep a single process busy at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(_TESTS).parts[0]
        return _LONGEST_FIRST.index(folder) if folder in _LONGEST_FIRST else len(_LONGEST_FIRST)

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """All tests and what they import stay to the end: no garbage collection need look through them, then or later."""
    gc.collect()
    gc.freeze()
    gc.enable()
