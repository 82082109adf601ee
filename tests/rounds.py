"""Chance and repetition in tests.

Chance is the same on every run, until HANDOFF_TEST_SEED gives another seed. What a test does again and again it does so
often as is needed to see it once; with HANDOFF_SOAK more often. `make soak` sets both.
"""

from __future__ import annotations

import os
import random
from typing import Final

SOAK: Final = bool(os.environ.get("HANDOFF_SOAK"))


def chance(name: str) -> random.Random:
    """name: the test's own, so that tests do not all draw the same."""
    return random.Random(f"{name} {os.environ.get('HANDOFF_TEST_SEED', '')}")
