"""The list of clients: what is kept of each, which of them a question means, and the page that is shown. Pure; the clock is passed in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ..client_view import DAY, ClientView, Filter, view
from ..in_force import is_applied, permissions_in_force, unready

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..kube import Object

PAGE_SIZE: Final = 50
MAX_CLIENTS: Final = 50_000
MAX_TEXT: Final = 200
UNUSED_SECONDS: Final = 30 * DAY

ALL: Final = "all"
FILTERS: Final[Mapping[str, tuple[str, Filter]]] = {
    ALL: ("All", Filter()),
    "waiting": ("Waiting for approval", Filter(pending=True)),
    "suspended": ("Suspended", Filter(suspended=True)),
    "expiring": ("Keys expiring", Filter(expiring=True)),
    "unused": ("Unused for 30 days", Filter(unused_for=UNUSED_SECONDS)),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A client in the list. `text` is what a search looks in, `version` the object's resourceVersion.

    `held`: its permissions that count. `applied`: whether anything of it is in force. `unready`: why it is not Ready; empty where it is.
    """

    client: ClientView
    text: str
    version: str
    held: tuple[str, ...]
    applied: bool
    unready: str


@dataclass(frozen=True, slots=True)
class Query:
    """`show` is one of FILTERS, `permission` one that the clients hold; `page` counts from 1."""

    show: str = ALL
    text: str = ""
    permission: str = ""
    page: int = 1


@dataclass(frozen=True, slots=True)
class Page:
    """`counts`: how many clients each filter means, whatever is searched for. `total`: how many this question means."""

    rows: tuple[Row, ...]
    number: int
    pages: int
    total: int
    counts: Mapping[str, int]


def row_of(obj: Object) -> Row:
    """What the list keeps of an object: without its keys, its manifest and its conditions, which its own page reads anew."""
    client = replace(view(obj), conditions=(), description="", message="")
    names = (client.name, client.client_id, client.client_name, *client.contacts)
    version = (obj.get("metadata") or {}).get("resourceVersion")
    held = permissions_in_force(obj)
    if held == client.permissions.granted:
        # One list of each of ten thousand, not two.
        held = client.permissions.granted
    return Row(client, "\n".join(names).casefold(), str(version or ""), held, is_applied(obj), unready(obj))


def query_of(parameters: Mapping[str, str]) -> Query:
    """What an address asks for; what it can't mean is taken for the default."""
    show = parameters.get("show", ALL)
    number = parameters.get("page", "1")
    return Query(
        show=show if show in FILTERS else ALL,
        text=parameters.get("q", "").strip()[:MAX_TEXT],
        permission=parameters.get("permission", "").strip()[:256],
        page=int(number) if number.isascii() and number.isdigit() and len(number) < 7 else 1,
    )


def page_of(rows: Iterable[Row], query: Query, now: float) -> Page:
    """The page that a query asks for; the last one where it asks for a later one."""
    counts = dict.fromkeys(FILTERS, 0)
    found: list[Row] = []
    text = query.text.casefold()
    for row in rows:
        meant = False
        for name, (_, wanted) in FILTERS.items():
            if wanted.takes(row.client, now):
                counts[name] += 1
                meant = meant or name == query.show
        if meant and (not text or text in row.text) and (not query.permission or query.permission in row.held):
            found.append(row)
    pages = max(1, -(-len(found) // PAGE_SIZE))
    number = min(max(1, query.page), pages)
    start = (number - 1) * PAGE_SIZE
    return Page(tuple(found[start : start + PAGE_SIZE]), number, pages, len(found), counts)


def holders_of(rows: Iterable[Row]) -> dict[str, list[str]]:
    """The names of the clients that hold each permission, as far as it is in force."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for permission in row.held:
            found.setdefault(permission, []).append(row.client.name)
    return found
