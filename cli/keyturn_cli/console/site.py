"""Which address leads where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .app import Console, Handler, build_app
from .change_pages import apply_change, download
from .client_pages import change_client, home, list_clients, show_client
from .key_pages import change_key, list_keys
from .rule_pages import explain, list_rules

if TYPE_CHECKING:
    from .guard import Guard

HANDLERS: Final[tuple[tuple[str, str, Handler], ...]] = (
    ("GET", "/", home),
    ("GET", "/clients", list_clients),
    ("GET", "/clients/{name}", show_client),
    ("POST", "/clients/{name}/change", change_client),
    ("GET", "/rules", list_rules),
    ("GET", "/explain", explain),
    ("GET", "/keys", list_keys),
    ("POST", "/keys/{name}/change", change_key),
    ("POST", "/changes/{id}", apply_change),
    ("GET", "/changes/{id}.yaml", download),
)


def site(console: Console) -> Guard:
    """The whole page, behind its guard."""
    return build_app(console, HANDLERS)
