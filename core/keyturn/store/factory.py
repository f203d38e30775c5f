"""Which engine a URL names."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from keyturn.store.interface import Store
from keyturn.store.memory import MemoryStore
from keyturn.store.transport import Transport


def open_store(
    url: str,
    *,
    pool_size: int = 5,
    statement_timeout: float = 5.0,
    listen_url: str | None = None,
    prepared: bool = True,
    transport: Transport | None = None,
) -> Store:
    """The store at this URL, not opened yet. Raises ValueError, without the URL in it, when it names no store.

    `postgresql://user:password@host:port/database?sslmode=…`, `sqlite:///absolute/path` or `memory://` (one process,
    nothing durable). `statement_timeout` in seconds. `listen_url`: PostgreSQL itself, where `url` is a pooler that shares
    connections between transactions; `prepared=False` keeps statements out of such a pooler. `transport`: password and TLS, where
    they do not stand in the URL.
    """
    # The engines are imported where they are used: a process needs one of them.
    scheme = url.partition(":")[0]
    if scheme == "memory":
        return MemoryStore()
    if scheme == "sqlite":
        from keyturn.store.sqlite import SqliteStore

        return SqliteStore(_path(url), pool_size=pool_size, statement_timeout=statement_timeout)
    if scheme in ("postgresql", "postgres"):
        from keyturn.store.postgres import PostgresStore

        _check(url)
        if listen_url is not None:
            _check(listen_url)
        return PostgresStore(
            url,
            pool_size=pool_size,
            statement_timeout=statement_timeout,
            listen_url=listen_url,
            prepared=prepared,
            transport=transport,
        )
    raise ValueError("a store's URL begins with postgresql://, sqlite:/// or memory://")


def _path(url: str) -> Path:
    parts = urlsplit(url)
    path = Path("/" + unquote(parts.path).lstrip("/"))
    if parts.netloc or not url.startswith("sqlite:///") or path == Path("/") or "\0" in str(path):
        raise ValueError("an SQLite store's URL is sqlite:/// and an absolute path")
    if parts.query or parts.fragment:
        raise ValueError("an SQLite store's URL has no parameters (percent-encode ? and # in a path)")
    return path


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
        named = parts.scheme in ("postgresql", "postgres")
    except ValueError:
        named = False
    if not named:
        # What was parsed wrongly may be a part of the password: it stays out of the message and of the chain.
        raise ValueError(
            "a PostgreSQL store's URL is postgresql://user:password@host:port/database"
            " (percent-encode @, / and # in the password)"
        ) from None
