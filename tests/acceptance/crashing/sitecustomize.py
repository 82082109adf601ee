"""Makes a daemon or worker kill itself (`kill -9`) at a named point. Python imports this by itself from PYTHONPATH.

HANDOFF_TEST_CRASH=POINT:PASSES:FILE: at the PASSES-th pass of the point, once: FILE then tells that it happened.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

# point: (module, class or nothing, method or function, whether the method is done when the process dies)
POINTS = {
    "journal-written-not-committed": ("engine.store.journal", "Journal", "append_each", True),
    "journal-committed-not-answered": ("engine.runtime.intake", "Intake", "_answer", False),
    "answered-not-noted": ("engine.runtime.intake", "Intake", "sent", True),
    "outcomes-written-not-committed": ("engine.store.record", "Recorder", "record", True),
    "outcomes-committed": ("engine.runtime.worker", "Tally", "count", False),
    "before-a-delivery": ("engine.connectors.file", "FileConnector", "deliver", False),
    "delivered-not-recorded": ("engine.store.outbox", "Outbox", "settle", False),
    "delivery-recorded-not-committed": ("engine.store.outbox", "Outbox", "settle", True),
}
IN_SHADOW = {
    "shadow-written-not-committed": ("engine.store.record", "Recorder", "record", True),
    "shadow-committed-not-the-living": ("engine.runtime.shadow", "Shadow", "moved", True),
}
"""Where only a channel in shadow comes along."""
ERASING = {
    "erasing-written-not-committed": ("engine.store.erasure", "", "intend", True),
    "erasing-on-record": ("engine.store.erasure", "", "intend", False),
    "payloads-erased-not-committed": ("engine.store.retention", "Charts", "_erase_entries", True),
    "payloads-erased": ("engine.store.retention", "Charts", "_erase_outcomes", False),
    "outcomes-erased-not-committed": ("engine.store.retention", "Charts", "_erase_outcomes", True),
    "keys-destroyed-not-committed": ("engine.store.erasure", "", "destroy", True),
    "all-but-the-chart": ("engine.store.retention", "Charts", "_erase_charts", False),
    "chart-erased-not-committed": ("engine.store.retention", "Charts", "_erase_charts", True),
}
"""Of a patient who is erased, in their order."""
SWEEPING = {
    "sweeping-on-record": ("engine.store.retention", "", "_erase_payloads", False),
    "swept-with-its-keys": ("engine.store.erasure", "", "finish", False),
}


class _After(importlib.abc.MetaPathFinder):
    """Runs `patch` on a module when it has been imported."""

    def __init__(self, name: str, patch: Callable[[ModuleType], None]) -> None:
        self._name, self._patch = name, patch

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def and_patch(module: ModuleType) -> None:
            execute(module)
            self._patch(module)

        spec.loader.exec_module = and_patch  # type: ignore[method-assign]
        return spec


def _install(point: str, passes: int, told: Path) -> None:
    module_name, class_name, method, afterwards = (POINTS | IN_SHADOW | ERASING | SWEEPING)[point]
    left = [passes]

    def maybe_die() -> None:
        left[0] -= 1
        if left[0] <= 0 and not told.exists():
            told.write_text(point)
            os.kill(os.getpid(), signal.SIGKILL)

    def patch(module: ModuleType) -> None:
        owner = getattr(module, class_name) if class_name else module
        real = getattr(owner, method)

        def dying(*given: Any, **named: Any) -> Any:
            if not afterwards:
                maybe_die()
            result = real(*given, **named)
            if afterwards:
                maybe_die()
            return result

        setattr(owner, method, dying)

    if module_name in sys.modules:  # forked from a process that had it
        patch(sys.modules[module_name])
    else:
        sys.meta_path.insert(0, _After(module_name, patch))


if "HANDOFF_TEST_CRASH" in os.environ:
    _point, _passes, _told = os.environ["HANDOFF_TEST_CRASH"].split(":", 2)
    _install(_point, int(_passes), Path(_told))
