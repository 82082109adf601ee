"""Chance in tests: the same on every run, until HANDOFF_TEST_SEED gives another seed (which `make soak` does)."""

from __future__ import annotations

import os
import random


def chance(name: str) -> random.Random:
    """name: the test's own, so that tests do not all draw the same."""
    return random.Random(f"{name} {os.environ.get('HANDOFF_TEST_SEED', '')}")
