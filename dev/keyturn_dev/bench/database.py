"""The PostgreSQL server under measurement: durable, with a database of our own, and its process tree."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from keyturn_dev.bench.accounting import parse_stat
from keyturn_dev.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyturn_dev.progress import Progress


@contextlib.contextmanager
def database(progress: Progress) -> Iterator[tuple[str, int | None]]:
    """Yield the URL of an empty database and the pid of its server's first process (None: on another machine)."""
    with postgres(progress=progress, durable=True) as url:
        name = f"keyturn_bench_{secrets.token_hex(6)}"
        backend = asyncio.run(_execute(url, f'CREATE DATABASE "{name}"'))
        try:
            yield with_database(url, name), _postmaster(backend)
        finally:
            asyncio.run(_execute(url, f'DROP DATABASE "{name}" WITH (FORCE)'))


def with_database(url: str, name: str) -> str:
    """Return the URL of another database on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def _execute(url: str, statement: str) -> tuple[int, int]:
    """Run a statement; return the backend's pid and its parent's by this machine's /proc (0: not here)."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(statement, timeout=30)
        pid = int(await connection.fetchval("SELECT pg_backend_pid()"))
        return pid, _parent(pid)
    finally:
        await connection.close()


def _parent(pid: int) -> int:
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return parse_stat(line).parent if line.partition(" (")[2].startswith("postgres") else 0


def _postmaster(backend: tuple[int, int]) -> int | None:
    return backend[1] or None
