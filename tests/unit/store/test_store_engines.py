from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from engine.errors import StoreError, StoreUnavailableError
from engine.store import engines
from engine.store.engines import locate, make_sqlite_file, reader_engine, translated, writer_engine
from engine.store.schema import CHARTS, JOURNAL


def test_the_journal_file_stands_beside_the_charts_file():
    location = locate("sqlite:///var/handoff.db", Path("/srv/site"))
    assert location.file(CHARTS) == Path("/srv/site/var/handoff.db")
    assert location.file(JOURNAL) == Path("/srv/site/var/handoff-journal.db")


def test_an_absolute_path_ignores_the_base():
    assert locate("sqlite:////data/h.db", Path("/srv/site")).file(CHARTS) == Path("/data/h.db")


def test_a_postgresql_url_has_no_files():
    location = locate("postgresql+psycopg://handoff@db/handoff")
    assert not location.is_sqlite
    with pytest.raises(StoreError):
        location.file(CHARTS)


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "mysql://x/y", "postgresql+asyncpg://x/y", "nonsense", ""]
)
def test_a_url_that_cannot_be_a_store_is_refused(url):
    with pytest.raises(StoreError, match="URL"):
        locate(url)


def test_a_password_in_an_unusable_url_is_not_repeated():
    with pytest.raises(StoreError) as caught:
        locate("mysql://me:hunter2@host/db")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("make", [reader_engine, lambda location: writer_engine(location, JOURNAL)])
def test_an_sqlite_that_can_corrupt_the_log_is_refused(make, tmp_path, monkeypatch):
    monkeypatch.setattr(engines.sqlite_driver, "sqlite_version_info", (3, 51, 2))
    with pytest.raises(StoreUnavailableError, match=r"3\.51\.2 is too old: 3\.51\.3"):
        make(locate(f"sqlite:///{tmp_path}/handoff.db"))


def test_the_errors_of_a_driver_lose_their_texts_and_values(tmp_path):
    location = locate(f"sqlite:///{tmp_path}/handoff.db")
    make_sqlite_file(location.file(JOURNAL))
    with writer_engine(location, JOURNAL).connect() as conn:
        conn.execute(text("CREATE TABLE journal.t (a TEXT PRIMARY KEY CHECK (a <> 'x'))"))
        conn.execute(text("INSERT INTO journal.t VALUES ('MARKER')"))
        with pytest.raises(StoreError) as caught, translated():
            conn.execute(text("INSERT INTO journal.t VALUES (:a)"), {"a": "MARKER"})
        assert str(caught.value) == "another writer has made this row meanwhile (SQLITE_CONSTRAINT)"
        assert caught.value.__suppress_context__
        with pytest.raises(DBAPIError) as raw:
            conn.execute(text("INSERT INTO journal.t VALUES (:a)"), {"a": "MARKER"})
        assert "MARKER" not in str(raw.value)


def test_a_file_that_is_no_database_is_unavailable_not_overwritten(tmp_path):
    location = locate(f"sqlite:///{tmp_path}/handoff.db")
    location.file(JOURNAL).write_bytes(b"something else entirely" * 100)
    with pytest.raises(StoreUnavailableError, match="SQLITE_NOTADB"), translated():
        writer_engine(location, JOURNAL).connect()
    assert location.file(JOURNAL).read_bytes().startswith(b"something else")


def test_a_missing_file_is_not_made_by_opening_it(tmp_path):
    location = locate(f"sqlite:///{tmp_path}/handoff.db")
    with pytest.raises(StoreUnavailableError), translated():
        reader_engine(location).connect()
    assert list(tmp_path.iterdir()) == []


def test_a_path_with_signs_that_mean_something_in_a_uri_works(tmp_path):
    location = locate(f"sqlite:///{tmp_path}/a b?c#d%e/handoff.db".replace("?", "%3F").replace("%e", "%25e"))
    make_sqlite_file(location.file(JOURNAL))
    with writer_engine(location, JOURNAL).connect() as conn:
        conn.execute(text("CREATE TABLE journal.t (a TEXT)"))
        conn.commit()
    assert location.file(JOURNAL).stat().st_size > 0


def test_database_files_are_readable_for_their_owner_only(tmp_path):
    location = locate(f"sqlite:///{tmp_path}/handoff.db")
    make_sqlite_file(location.file(JOURNAL))
    with writer_engine(location, JOURNAL).connect() as conn:
        conn.execute(text("CREATE TABLE journal.t (a TEXT)"))
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("handoff-journal.db", "handoff-journal.db-wal", "handoff-journal.db-shm"), 0o600)
