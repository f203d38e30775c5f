"""Brings a database to this program's schema, and gives an empty one its identity."""

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, func, insert, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from keyturn.store import schema
from keyturn.store.interface import SchemaTooNew

if TYPE_CHECKING:
    from alembic.config import Config

# Alembic's current context is one a process: two stores that open at once take turns.
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


def new_tag() -> str:
    return secrets.token_hex(8)


async def is_current(connection: AsyncConnection) -> bool:
    """Whether nothing is to be done. Raises SchemaTooNew when a migration was applied that this program lacks."""
    return await connection.run_sync(_is_current)


async def migrate(connection: AsyncConnection, *, clock: Callable[[], float]) -> None:
    """Applies what is missing, in the transaction that holds the guarding lock."""
    lock = _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    async with lock:
        if not await connection.run_sync(_is_current):
            await connection.run_sync(_upgrade)
        await _give_identity(connection, clock())


def _is_current(connection: Connection) -> bool:
    version = _version(connection)
    if version not in (None, schema.HEAD) and version not in _known_versions():
        raise SchemaTooNew("the database was migrated by a newer version of Keyturn; use that one, or a backup")
    if version != schema.HEAD:
        return False
    return connection.scalar(select(func.count()).select_from(schema.meta)) == 1


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(schema.VERSION_TABLE):
        return None
    version = connection.scalar(text(f"SELECT version_num FROM {schema.VERSION_TABLE}"))  # noqa: S608 - a constant
    return None if version is None else str(version)


def _known_versions() -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _upgrade(connection: Connection) -> None:
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> "Config":
    # Alembic is loaded only where there is something to migrate: an API process in its daily life needs none of it.
    from alembic.config import Config

    config = Config()
    # Interpolated like an ini file's value.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


async def _give_identity(connection: AsyncConnection, now: float) -> None:
    if await connection.scalar(select(func.count()).select_from(schema.meta)):
        return
    # Without its identity what else is in there cannot be trusted either: readers reset, the operator writes anew.
    # The last states stay: they can only refuse.
    for table in (schema.tags, schema.records, schema.revocations):
        await connection.execute(table.delete())
    identity = {"id": 1, "store_id": secrets.token_hex(16), "born_at": now, "revision": 0, "epoch": 0, "holder": ""}
    await connection.execute(insert(schema.meta).values(identity))
    await connection.execute(insert(schema.tags).values(revision=0, tag=new_tag(), at=now))
