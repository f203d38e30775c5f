"""Migrations, who may run them, and what a URL names."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from keyturn.records import Kind
from keyturn.store import migrate, schema
from keyturn.store.factory import open_store
from keyturn.store.interface import SchemaTooNew, Store, StoreUnavailable
from keyturn.store.memory import MemoryStore
from keyturn.store.sql import SqlStore

from .conftest import Backend
from .samples import client, signing_key

OPEN = """
import asyncio, sys
from keyturn.store.factory import open_store
async def main():
    store = open_store(sys.argv[1])
    await store.open()
    print((await store.changes(None)).position.store_id)
    await store.close()
asyncio.run(main())
"""


async def execute(url: str, statement: str) -> None:
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite://"))) as file, file:
            file.execute(statement)
        return
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def test_processes_that_open_an_empty_database_at_once_find_one_store(durable: Backend) -> None:
    command = [sys.executable, "-c", OPEN, durable.url]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert len({output for output, _ in outputs}) == 1


async def test_stores_of_one_process_that_open_at_once_find_one_store(durable: Backend) -> None:
    stores = [durable.connect() for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    assert len({(await store.changes(None)).position.store_id for store in stores}) == 1
    await asyncio.gather(*(store.close() for store in stores))


async def test_a_database_that_a_newer_program_migrated_is_refused_and_left_alone(durable: Backend) -> None:
    store = durable.connect()
    await store.put(client("a"), epoch=0)
    await store.close()
    await execute(durable.url, f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")
    older = durable.connect()
    with pytest.raises(SchemaTooNew, match="newer version"):
        await older.open()
    with pytest.raises(SchemaTooNew):
        await older.put(client("b"), epoch=0)
    await execute(durable.url, f"UPDATE {schema.VERSION_TABLE} SET version_num = '{schema.HEAD}'")
    assert [row.record.name for row in await older.live()] == ["a"]
    await older.close()


async def test_for_a_process_that_runs_while_a_newer_one_migrates_the_store_is_away(durable: Backend) -> None:
    running = durable.connect()
    await running.put(client("a"), epoch=0)
    await execute(durable.url, f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")
    assert [row.record.name for row in await running.live()] == ["a"], (
        "nothing asks for the version while all goes well"
    )
    assert isinstance(running, SqlStore)
    running._current = False  # as after a connection that was cut
    with pytest.raises(StoreUnavailable, match="newer version"):
        await running.put(client("b"), epoch=0)
    await running.close()


async def test_the_migrations_make_the_tables_that_the_program_expects(durable: Backend) -> None:
    store = durable.connect()
    await store.open()
    assert isinstance(store, SqlStore)

    def compare(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"version_table": schema.VERSION_TABLE})
        return list(compare_metadata(context, schema.metadata))

    async with store._engine.connect() as connection:
        assert await connection.run_sync(compare) == []
    await store.close()


async def test_a_database_of_the_first_release_is_brought_up_to_date_and_keeps_what_it_holds(durable: Backend) -> None:
    store = durable.connect()
    await store.put(client("a"), epoch=0)
    await store.close()
    for table in ("keyturn_denials", "keyturn_last_states"):
        await execute(durable.url, f"DROP TABLE {table}")
    await execute(durable.url, f"UPDATE {schema.VERSION_TABLE} SET version_num = '0001'")
    newer = durable.connect()
    await newer.open()
    assert [row.record.name for row in await newer.live()] == ["a"]
    assert await newer.denials("x") == []
    await newer.close()


@pytest.mark.parametrize("left", [False, True], ids=["the table is new", "an older backup was restored over it"])
async def test_what_is_in_force_becomes_the_last_state_of_its_name(durable: Backend, left: bool) -> None:
    there, gone = signing_key("there"), signing_key("gone")
    store = durable.connect()
    for record in (client("a"), gone, there):
        await store.put(record, epoch=0)
    await store.remove(gone.kind, gone.uid, epoch=0)
    await store.close()
    if not left:
        await execute(durable.url, "DROP TABLE keyturn_last_states")
    await execute(durable.url, f"UPDATE {schema.VERSION_TABLE} SET version_num = '0002'")
    newer = durable.connect()
    found = {one.name: one.body for one in await newer.last_states(Kind.SIGNING_KEY)}
    assert found == ({"there": there.body, "gone": gone.body} if left else {"there": there.body})
    await newer.close()


def test_the_newest_migration_is_the_one_that_the_program_names() -> None:
    assert ScriptDirectory.from_config(migrate._config()).get_heads() == [schema.HEAD]


def test_alembic_is_not_loaded_for_a_database_that_is_up_to_date(sqlite_url: str) -> None:
    subprocess.run([sys.executable, "-c", OPEN, sqlite_url], check=True, stdout=subprocess.DEVNULL, timeout=60)
    again = OPEN + "\nassert 'alembic' not in sys.modules, 'loaded'\n"
    subprocess.run([sys.executable, "-c", again, sqlite_url], check=True, stdout=subprocess.DEVNULL, timeout=60)


async def test_a_store_whose_tables_were_emptied_gets_a_new_identity(durable: Backend) -> None:
    store = durable.connect()
    await store.put(client("a"), epoch=0)
    before = await store.changes(None)
    await execute(durable.url, "DELETE FROM keyturn_meta")
    with pytest.raises(StoreUnavailable):
        await store.changes(before.position)
    after = await store.changes(before.position)
    assert after.reset
    assert after.records == ()
    assert after.position.store_id != before.position.store_id
    await store.close()


async def test_a_store_whose_tables_were_dropped_is_made_anew(durable: Backend) -> None:
    store = durable.connect()
    await store.put(client("a"), epoch=0)
    before = await store.changes(None)
    for table in (*schema.metadata.tables, schema.VERSION_TABLE):
        await execute(durable.url, f"DROP TABLE {table}")
    with pytest.raises(StoreUnavailable):
        await store.changes(before.position)
    after = await store.changes(before.position)
    assert (after.reset, after.records) == (True, ())
    await store.close()


async def test_a_store_is_opened_by_its_first_use_and_again_after_its_end(backend: Backend) -> None:
    store = backend.connect()
    await store.put(client("a"), epoch=0)
    await store.close()
    await store.close()
    assert [row.record.name for row in await store.live()] == ["a"]
    await store.close()


async def test_the_database_file_and_its_journals_are_for_their_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = open_store(f"sqlite://{tmp_path}/keyturn.db")
        await store.put(client("a"), epoch=0)
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == {"keyturn.db": 0o600, "keyturn.db-wal": 0o600, "keyturn.db-shm": 0o600}
    await store.close()


async def test_the_folder_of_the_database_file_must_exist(tmp_path: Path) -> None:
    store = open_store(f"sqlite://{tmp_path}/none/keyturn.db")
    with pytest.raises(StoreUnavailable):
        await store.open()
    assert not (tmp_path / "none").exists()
    await store.close()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keyturn.db").write_bytes(b"not a database, but long enough to be one" * 40)
    store = open_store(f"sqlite://{tmp_path}/keyturn.db")
    with pytest.raises(StoreUnavailable):
        await store.open()
    await store.close()


@pytest.mark.parametrize("name", ["a b.db", "100%.db", "ü#?.db"])
async def test_any_name_of_a_file_can_be_given_percent_encoded(tmp_path: Path, name: str) -> None:
    from urllib.parse import quote

    store = open_store(f"sqlite://{quote(str(tmp_path / name))}")
    assert await store.consume([], store_id="") == []
    await store.open()
    assert (tmp_path / name).is_file()
    await store.close()


def test_four_slashes_name_the_same_file_as_three() -> None:
    assert repr(open_store("sqlite:////srv/keyturn.db")) == repr(open_store("sqlite:///srv/keyturn.db"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mysql://u:hunter2@h/d",
        "sqlite:relative.db",
        "sqlite://host/file.db",
        "sqlite:///",
        "sqlite:///file.db?mode=ro",
        "postgresql://u:hunter2@host:port/d",
        "postgresql://u:hunter2/secret@host:99999999/d",
    ],
)
def test_a_url_that_names_no_store_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        open_store(url)
    chain = [str(e) for e in (caught.value, caught.value.__cause__) if e is not None]
    assert "hunter2" not in "".join(chain)
    assert caught.value.__cause__ is None


def test_no_text_form_of_a_store_holds_its_password() -> None:
    store = open_store("postgresql://user:hunter2@127.0.0.1:1/db")
    assert isinstance(store, SqlStore)
    assert "hunter2" not in repr(store) + repr(store._engine) + str(store._engine.url) + repr(store._engine.pool)


def test_memory_is_an_engine_for_tests() -> None:
    store: Store = open_store("memory://")
    assert isinstance(store, MemoryStore)
