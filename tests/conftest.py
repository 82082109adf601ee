"""That this file is here puts `tests/` on the import path, so that any test can use `peers` and the builders.

What hypothesis draws is the same on every run, like all chance in tests (`rounds`), and how long an example takes is
never judged: on a loaded machine any of them can take a second.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "handoff",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    **({} if os.environ.get("HANDOFF_TEST_SEED") else {"derandomize": True, "database": None}),
)
settings.load_profile("handoff")
