"""A fresh, migrated store for each test, on SQLite and on PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from peers.postgres_server import PostgresServer

from engine.store import Role, Store
from engine.store.engines import Location, locate
from engine.store.keys import KeyRing
from engine.store.migrations import upgrade


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

    def open(self, role: Role = "tool", *, shadow: bool = False) -> Store:
        return self._open(Store.open(self.url, self.keys, role, shadow=shadow))


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
