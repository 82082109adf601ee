"""`handoff` and `python -m engine`."""

from __future__ import annotations

import sys


def main() -> None:
    try:
        from engine.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # before the command had begun
        code = 1
    sys.exit(code)


if __name__ == "__main__":
    main()
