"""Sites made for the occasion, with a real daemon in each for as long as one measurement takes."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from engine.bootstrap import make_store
from engine.connectors.registry import load
from engine.errors import HandoffError
from engine.settings import Configuration
from engine.simulator.bench import processes
from engine.simulator.bench.processes import Memory, Spent
from engine.snapshot import Snapshot
from engine.store import Store
from engine.store.keys import KeyRing

Database = Literal["sqlite", "postgresql"]

LIVE: Final = "live"
"""The channel whose messages are processed and delivered."""
STORED: Final = "stored"
"""The channel that only acknowledges: it is paused, so that nothing else is done meanwhile."""
ANSWERED: Final = "answered"
"""The channel whose senders get their answer when their message is processed."""
CHANNELS: Final = (LIVE, STORED, ANSWERED)

ORG_ID: Final = "HANDOFF_BENCH_SALESFORCE_ID"
ORG_SECRET: Final = "HANDOFF_BENCH_SALESFORCE_SECRET"  # noqa: S105 - the name of the variable, not a secret

_HOST: Final = "127.0.0.1"
_START_SECONDS_MAX: Final = 60.0
_STOP_SECONDS_MAX: Final = 60.0


class BenchError(HandoffError):
    """The benchmark could not be run."""


@dataclass(frozen=True)
class Place:
    """Where sites are made, and with what. folder: its disk is what is measured.

    postgresql: URL of a server where databases may be made; each site gets one of its own, and only that is touched.
    settings: keys of config.yaml (dotted) to set in every site.
    """

    folder: Path
    postgresql: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @contextlib.contextmanager
    def site(self, *, database: Database = "sqlite", tls: bool = False, org: str | None = None) -> Iterator[Site]:
        """A fresh site; it is gone afterwards. org: deliver to the Salesforce there, and not to files."""
        folder = self.folder / "site"
        _handoff("init", str(folder))
        try:
            with self.store(database) as store:
                ports = {channel: free_port() for channel in CHANNELS}
                site = Site(folder, store, ports, folder / "bench.crt" if tls else None)
                self._write(site, org)
                yield site
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def store(self, database: Database) -> Iterator[str]:
        """The URL of an empty store."""
        if database == "sqlite":
            yield "sqlite:///var/handoff.db"
            return
        if self.postgresql is None:
            raise BenchError("measuring on PostgreSQL needs the URL of a server: --postgresql URL")
        name = f"handoff_bench_{os.getpid()}_{next(_numbers)}"
        _execute(self.postgresql, f"CREATE DATABASE {name}")
        try:
            yield make_url(self.postgresql).set(database=name).render_as_string(hide_password=False)
        finally:
            _execute(self.postgresql, f"DROP DATABASE {name} WITH (FORCE)")

    def _write(self, site: Site, org: str | None) -> None:
        destination: dict[str, Any] = {"type": "file", "path": "var/outbox"}
        if org is not None:
            check_org(org)
            secrets = {"client_id": {"env": ORG_ID}, "client_secret": {"env": ORG_SECRET}}
            destination = {"type": "salesforce", "login_url": org, **secrets}
        config: dict[str, Any] = {
            "node": "bench",
            "store": {"url": site.store_url, "keys": "var/keys.json"},
            "console": {"host": _HOST, "port": 0},
            "destinations": {"out": destination},
        }
        for key, value in self.settings.items():
            *path, last = key.split(".")
            part = config
            for name in path:
                part = part.setdefault(name, {})
            part[last] = value
        _write_yaml(site.folder / "config.yaml", config)
        for file in (site.folder / "channels").rglob("*.yaml"):
            file.unlink()
        for channel, port in site.ports.items():
            listen: dict[str, Any] = {"host": _HOST, "port": port, "connections_max": 5000}
            if site.certificate is not None:
                listen["tls"] = {"cert": str(site.certificate), "key": str(site.certificate.with_suffix(".key"))}
            settings = {
                "name": channel,
                "mode": "paused" if channel == STORED else "live",
                "listen": listen,
                "timezone": "America/New_York",
                "ack": {"when": "processed" if channel == ANSWERED else "stored"},
                "accept": {"types": ["ADT^*"], "processing_ids": ["P"]},
                "mapping": "adt",
                "risk": ["lace", "seed"],
                "protocol": "post-discharge",
                "deliver": [{"to": "out", "what": ["patient", "encounter", "score", "task"]}],
            }
            _write_yaml(site.folder / "channels" / f"{channel}.yaml", settings)
        if site.certificate is not None:
            make_certificate(site.certificate)


@dataclass(frozen=True)
class Site:
    """A site below a place. ports: where each channel listens. certificate: the channels speak TLS with it."""

    folder: Path
    store_url: str
    ports: Mapping[str, int]
    certificate: Path | None = None

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    def configuration(self) -> Configuration:
        return load(Snapshot.read(self.config))

    def make_store(self) -> None:
        """Before any daemon has run; a daemon makes it by itself."""
        make_store(self.configuration())

    def store(self) -> Store:
        """The store, as a command opens it. Close it."""
        keys = KeyRing.load(self.folder / "var" / "keys.json")
        return Store.open(self.store_url, keys, "tool", base=self.folder)

    @contextlib.contextmanager
    def daemon(self) -> Iterator[Daemon]:
        """The daemon, listening. Raises BenchError when it does not come up."""
        log = self.folder / "daemon.log"
        with log.open("ab") as output:
            began = perf_counter()
            process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-P", "-m", "engine", "--config", str(self.config), "run"],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        try:
            _await_port(self.ports[LIVE], process, began)
            yield Daemon(self, process, began)
        finally:
            _stop(process)

    def gather_statistics(self) -> None:
        """What PostgreSQL's autovacuum would long have done for rows that came over time, and not all at once."""
        if not self.store_url.startswith("sqlite"):
            _execute(self.store_url, "VACUUM ANALYZE")

    def stored_bytes(self) -> int:
        """What the store takes on the disk."""
        if not self.store_url.startswith("sqlite"):
            with _connected(self.store_url) as execute:
                return int(execute("SELECT pg_database_size(current_database())"))
        return sum(file.stat().st_size for file in (self.folder / "var").glob("*.db*"))


class Daemon:
    """began: when the process was started (perf_counter). start_seconds: from then until its port took a connection."""

    def __init__(self, site: Site, process: subprocess.Popen[bytes], began: float) -> None:
        self.site = site
        self.began = began
        self.start_seconds = round(perf_counter() - began, 3)
        self._process = process

    def port(self, channel: str) -> int:
        return self.site.ports[channel]

    def memory(self) -> Memory:
        return processes.memory(self._process.pid)

    def spent(self) -> dict[int, Spent]:
        return processes.spent(self._process.pid)

    def check(self) -> None:
        """Raises BenchError when it has ended."""
        if self._process.poll() is not None:
            raise BenchError(f"the daemon ended during the measurement with {self._process.returncode}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def check_org(url: str) -> None:
    """Raises BenchError unless it is an org on this machine: invented patients must never get into a real one."""
    if urlsplit(url).hostname not in {_HOST, "localhost", "::1"}:
        raise BenchError("the Salesforce org must be one on this machine: the patients it is sent are invented")
    if not (os.environ.get(ORG_ID) and os.environ.get(ORG_SECRET)):
        raise BenchError(f"the Salesforce org needs its client id and secret in {ORG_ID} and {ORG_SECRET}")


def server_version(url: str) -> str:
    """Of a PostgreSQL server. Raises BenchError when it can't be reached."""
    with _connected(url) as execute:
        return str(execute("SHOW server_version"))


def make_certificate(file: Path) -> None:
    """A certificate for this machine that is its own authority, and its key beside it (`.key`)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "handoff bench")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(_HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with open(file.with_suffix(".key"), "wb", opener=_private) as target:
        target.write(private)


_numbers: Final = itertools.count(1)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_yaml(file: Path, content: Mapping[str, Any]) -> None:
    """JSON is YAML. The store's URL may hold a password."""
    with open(file, "w", encoding="utf-8", opener=_private) as target:
        json.dump(content, target, indent=1)


def _handoff(*arguments: str) -> None:
    command = [sys.executable, "-P", "-m", "engine", *arguments]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - our own command
    if done.returncode:
        raise BenchError(f"handoff {arguments[0]} ended with {done.returncode}: {done.stderr.decode(errors='replace')}")


def _execute(url: str, statement: str) -> None:
    with _connected(url) as execute:
        execute(statement)


@contextlib.contextmanager
def _connected(url: str) -> Iterator[Any]:
    """Runs statements one by one; the first value of the first row of each, if it has one."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as conn:

            def execute(statement: str) -> Any:
                result = conn.execute(text(statement))
                return result.scalar() if result.returns_rows else None

            yield execute
    except SQLAlchemyError as error:
        raise BenchError(f"the PostgreSQL server can't be used: {type(error).__name__}") from None
    finally:
        engine.dispose()


def _await_port(port: int, process: subprocess.Popen[bytes], began: float) -> None:
    while True:
        with contextlib.suppress(OSError), socket.create_connection((_HOST, port), timeout=1):
            return
        if process.poll() is not None:
            raise BenchError(f"the daemon ended at its start with {process.returncode}")
        if perf_counter() - began > _START_SECONDS_MAX:
            raise BenchError("the daemon did not open its port in time")
        sleep(0.005)


def _stop(process: subprocess.Popen[bytes]) -> None:
    members = processes.family(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
