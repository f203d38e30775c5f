"""Which engine a URL names."""

from keyturn.store.interface import Store
from keyturn.store.memory import MemoryStore


def open_store(
    url: str,
    *,
    pool_size: int = 5,
    statement_timeout: float = 5.0,
    listen_url: str | None = None,
    prepared: bool = True,
) -> Store:
    """The store at this URL, not opened yet. Raises ValueError when the URL names no engine."""
    if url == "memory://":
        return MemoryStore()
    raise ValueError("a store's URL begins with postgresql://, sqlite:/// or memory://")
