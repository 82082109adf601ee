"""`handoff` and `python -m engine`."""

from __future__ import annotations

import gc
import sys

_OBJECTS_MAX = 50_000
"""What a command loads is never garbage: looking through it again and again costs a tenth of a short one."""


def main() -> None:
    gc.set_threshold(_OBJECTS_MAX)
    try:
        from engine.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # before the command had begun
        code = 1
    gc.freeze()  # nor is it looked through at the end
    sys.exit(code)


if __name__ == "__main__":
    main()
