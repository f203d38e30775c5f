"""Records and a position in time for the store's tests."""

from typing import Any

from keyturn.records import Kind, Record

NOW = 1_800_000_000.0
DAY = 86_400.0


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
