"""Load that is steady and not more than the processing can follow: it is there for the faults, not for its own sake."""

from __future__ import annotations

import time
from typing import Final

from test_kill import Load

_PAUSE_SECONDS: Final = 0.02


class SteadyLoad(Load):
    def _take(self) -> int:
        time.sleep(_PAUSE_SECONDS)
        return super()._take()
