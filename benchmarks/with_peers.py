"""Run a command beside what the benchmark compares with: python-hl7, a PostgreSQL server and a Salesforce org.

    python benchmarks/with_peers.py python -m benchmarks run --parts all --stores sqlite,postgresql

All of them are private to this run and end with it; the command finds them by its environment
(`python -m benchmarks run --help`). They come out of what the tests need (`make test`), so that the engine itself needs
none of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from peers.postgres_server import PostgresServer  # type: ignore[import-not-found]  # noqa: E402 - of the path above


@contextlib.contextmanager
def started(*command: str) -> Iterator[str]:
    """A server that prints one line when it is ready: that line."""
    with subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"{command[-1]} did not start")
            yield line
        finally:
            process.terminate()


def main() -> int:
    tempfile.tempdir = "/var/tmp"  # noqa: S108 - on a disk, where /tmp may be memory
    secret = secrets.token_hex(16)
    with contextlib.ExitStack() as stack:
        postgresql = PostgresServer(durable=True)
        stack.callback(postgresql.close)
        port = int(stack.enter_context(started("benchmarks/python_hl7.py")))
        org = json.loads(
            stack.enter_context(
                started("-m", "tests.peers.salesforce_org", "--client-id", "bench", "--client-secret", secret)
            )
        )
        peers = {
            "HANDOFF_BENCH_POSTGRESQL": postgresql.url("postgres"),
            "HANDOFF_BENCH_BESIDE": f"python-hl7=127.0.0.1:{port}",
            "HANDOFF_BENCH_SALESFORCE": org["url"],
            "HANDOFF_BENCH_SALESFORCE_ID": "bench",
            "HANDOFF_BENCH_SALESFORCE_SECRET": secret,
        }
        # Ctrl-C reaches the command as well, which has things to put away; wait for it.
        signal.signal(signal.SIGINT, lambda _number, _frame: None)
        return subprocess.run(sys.argv[1:], env={**os.environ, **peers}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
