from __future__ import annotations

import re
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import column, table
from store_builders import append, receipt

from engine.errors import StoreUnavailableError
from engine.store import migrations
from engine.store.engines import reader_engine
from engine.store.schema import CHARTS, JOURNAL, REVISION, metadata

NOT_IN_THE_CODE = re.compile(r"alembic_version|payload_(other|\d{8})")
"""Alembic's own table, and the partitions of the payloads."""


def test_a_store_that_is_not_there_is_made_once(empty_site):
    location = empty_site.location
    assert migrations.current(location) == {JOURNAL: None, CHARTS: None}
    assert migrations.upgrade(location) is True
    assert migrations.current(location) == {JOURNAL: REVISION, CHARTS: REVISION}
    assert migrations.upgrade(location) is False
    store = empty_site.open("tool")
    assert append(store, receipt(store.keys))[0].id == 1


def test_what_is_stored_outlives_another_upgrade(site):
    store = site.open("tool")
    append(store, receipt(store.keys))
    assert migrations.upgrade(site.location) is False
    assert len(store.read_now(store.journal.find)) == 1


def test_a_store_that_is_not_there_cannot_be_opened(empty_site):
    with pytest.raises(StoreUnavailableError, match="handoff db migrate"):
        empty_site.open("tool")


@pytest.mark.parametrize("gone", [CHARTS, JOURNAL])
@pytest.mark.parametrize("how", ["removed", "emptied"])
def test_a_half_that_is_gone_is_not_made_anew_beside_the_other(sqlite_site, gone, how):
    store = sqlite_site.open("tool")
    append(store, receipt(store.keys))
    store.close()
    file = sqlite_site.location.file(gone)
    for path in file.parent.glob(f"{file.name}*"):
        path.unlink()
    if how == "emptied":
        file.touch(0o600)
    for use in (migrations.upgrade, migrations.check):
        with pytest.raises(StoreUnavailableError, match=f"{file.name}: this half of the store is gone"):
            use(sqlite_site.location)


@pytest.mark.parametrize("side", [JOURNAL, CHARTS])
def test_a_store_of_a_later_version_is_neither_opened_nor_changed(empty_site, side):
    migrations.upgrade(empty_site.location)
    store = empty_site.open("tool")
    ledger = store.journal_ledger if side == JOURNAL else store.charts_ledger
    version = table("alembic_version", column("version_num"), schema=side)
    ledger.write_now(lambda conn: conn.execute(version.update().values(version_num="9999")))
    with pytest.raises(StoreUnavailableError, match="another version"):
        empty_site.open("tool")
    with pytest.raises(StoreUnavailableError, match="later version"):
        migrations.upgrade(empty_site.location)


def test_an_upgrade_that_was_cut_off_between_the_sides_is_finished(empty_site, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "_SIDES", (JOURNAL,))
        migrations.upgrade(empty_site.location)
    with pytest.raises(StoreUnavailableError):
        empty_site.open("tool")
    assert migrations.upgrade(empty_site.location) is True
    empty_site.open("tool")


def test_a_server_that_cannot_be_reached_is_unavailable(empty_postgresql):
    location = migrations.Location(url="postgresql+psycopg://postgres@127.0.0.1:1/none")
    with pytest.raises(StoreUnavailableError):
        migrations.current(location)


def test_migrated_tables_are_those_that_the_code_knows(site):
    engine = reader_engine(site.location)
    with engine.connect() as conn, conn.begin():
        for side in (JOURNAL, CHARTS):
            context = MigrationContext.configure(
                conn,
                opts={
                    "include_schemas": True,
                    "include_name": lambda name, kind, _parent, side=side: kind != "schema" or name == side,
                    "include_object": lambda item, _name, kind, _reflected, _other, side=side: (
                        kind != "table" or (item.schema == side and not NOT_IN_THE_CODE.fullmatch(item.name))
                    ),
                    "version_table_schema": side,
                },
            )
            assert compare_metadata(context, metadata) == []
    engine.dispose()


def made_by(side):
    master = table("sqlite_master", column("name"), column("sql"), schema=side)
    return master.select().where(master.c.sql.is_not(None))


def test_partial_indexes_and_clustered_tables_are_made_as_the_code_knows_them(sqlite_site):
    """Alembic's comparison does not look at these."""
    store = sqlite_site.open("tool")
    with store.reader() as conn:
        made = {row.name: row.sql for side in (JOURNAL, CHARTS) for row in conn.execute(made_by(side))}
    for one in metadata.sorted_tables:
        assert ("WITHOUT ROWID" in made[one.name]) is (one.dialect_options["sqlite"]["with_rowid"] is False)
        assert ("AUTOINCREMENT" in made[one.name]) is bool(one.dialect_options["sqlite"]["autoincrement"])
        for index in one.indexes:
            where = index.dialect_options["sqlite"]["where"]
            condition = made[index.name].partition(" WHERE ")[2]
            assert condition == ("" if where is None else str(where).replace(f"{one.fullname}.", ""))


def test_the_code_works_with_the_last_revision():
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "newline")
    assert ScriptDirectory.from_config(config).get_current_head() == REVISION


def test_the_files_of_a_new_store_are_readable_for_their_owner_only(empty_sqlite):
    migrations.upgrade(empty_sqlite.location)
    store = empty_sqlite.open("tool")
    append(store, receipt(store.keys))
    assert {path.stat().st_mode & 0o777 for path in empty_sqlite.folder.iterdir()} == {0o600}
