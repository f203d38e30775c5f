"""Records and a position in time for the store's tests."""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from keyturn.records import Kind, Record, UsedJti
from keyturn.store.interface import Store

NOW = 1_800_000_000.0
DAY = 86_400.0
_identities: WeakKeyDictionary[Store, str] = WeakKeyDictionary()


async def store_id(store: Store) -> str:
    return (await store.changes(None)).position.store_id


async def consume(store: Store, jtis: Sequence[UsedJti]) -> list[bool]:
    """As one who follows the store does: its identity is read once."""
    if store not in _identities:
        _identities[store] = await store_id(store)
    return await store.consume(jtis, store_id=_identities[store])


def client(name: str, *, uid: str | None = None, client_id: str | None = None, **changed: Any) -> Record:
    values: dict[str, Any] = {
        "kind": Kind.CLIENT,
        "uid": uid or f"uid-{name}",
        "namespace": "shop",
        "name": name,
        "generation": 1,
        "created_at": NOW,
        "body": {"permissions": ["read"], "nested": {"b": 1, "a": [1, 2.5, None, True]}},
        "client_id": client_id or f"shop.{name}",
    }
    return Record(**(values | changed))


def rule(name: str, **changed: Any) -> Record:
    values: dict[str, Any] = {
        "kind": Kind.ACCESS_RULE,
        "uid": f"uid-rule-{name}",
        "namespace": "shop",
        "name": name,
        "generation": 1,
        "created_at": NOW,
        "body": {"routes": []},
    }
    return Record(**(values | changed))


def signing_key(name: str, **changed: Any) -> Record:
    values: dict[str, Any] = {
        "kind": Kind.SIGNING_KEY,
        "uid": f"uid-key-{name}",
        "namespace": "shop",
        "name": name,
        "generation": 1,
        "created_at": NOW,
        "body": {"keys": [], "withdrawn": ["k1"], "serial": 7},
    }
    return Record(**(values | changed))
