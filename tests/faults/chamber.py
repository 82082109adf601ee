"""A place of its own for a site: namespaces that an ordinary user may make where the system permits it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self


class Chamber:
    """A mount namespace, where one may mount (as root inside, as whoever one is outside)."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "echo in; exec sleep 1000000"],
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"in\n"

    def prefix(self, folder: Path) -> Sequence[str]:
        """What is put before a command to run it inside, in this folder as it is seen from inside."""
        return (
            "nsenter", f"--target={self._holder.pid}", "--user", "--mount", "--preserve-credentials",
            "sh", "-c", 'cd "$0" && exec "$@"', str(folder),
        )  # fmt: skip

    def run(self, *command: str) -> None:
        subprocess.run([*self.prefix(Path(os.sep)), *command], check=True, capture_output=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.kill()
        self._holder.wait()


@functools.cache
def why_none() -> str | None:
    """Why there can be no chamber here; none: there can."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return "needs unshare and nsenter (util-linux)"
    try:
        with Chamber() as chamber:
            chamber.run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(Path(os.sep, "mnt")))
    except (AssertionError, OSError, subprocess.CalledProcessError):
        return "this system lets us make no user and mount namespace"
    return None
