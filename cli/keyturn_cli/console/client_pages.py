"""The list of clients, and a client's own page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from keyturn.reasons import WARNINGS

from ..change import manifest_of
from ..client_view import Comparison, view
from ..errors import Exit
from ..kube import Absent
from ..manifest import to_yaml
from .change_pages import show
from .clients import FILTERS, page_of, query_of
from .proposals import CLIENTS, propose_for_client, rotates

if TYPE_CHECKING:
    from starlette.responses import Response

    from ..kube import Object
    from .app import Call

# RFC 1123: nothing else names an object, and nothing else gets into a path of the API server.
_NAME: Final = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")


def home(call: Call) -> Response:
    return call.go("/clients")


def list_clients(call: Call) -> Response:
    query = query_of(call.query)
    snapshot = call.console.clients.snapshot()
    page = page_of(snapshot.items.values(), query, call.now)
    kept = {"show": query.show, "q": query.text, "permission": query.permission}

    def address(**other: object) -> str:
        wanted = {name: value for name, value in {**kept, **other}.items() if value and value != "all"}
        return f"{call.console.door.base}/clients" + (f"?{urlencode(wanted)}" if wanted else "")

    return call.page(
        "clients.html",
        page=page,
        query=query,
        filters=FILTERS,
        snapshot=snapshot,
        address=address,
        page_address=lambda number: address(page=number),
        deleted=deleted if _NAME.fullmatch(deleted := call.query.get("deleted", "")) else "",
    )


def show_client(call: Call) -> Response:
    obj = read_client(call)
    console = call.console
    client = view(obj)
    index = console.rule_index()
    may_patch = console.rights.may("patch", CLIENTS, client.name)
    registration = (obj.get("spec") or {}).get("registration") or {}
    return call.page(
        "client.html",
        client=client,
        obj=obj,
        rules=console.rules.snapshot(),
        opened={name: index.opened_by(name) for name in names_of(client.permissions)},
        names_of=names_of,
        warnings=WARNINGS,
        created_by=(obj["metadata"].get("annotations") or {}).get("keyturn.dev/created-by", ""),
        software=" ".join(str(registration.get(name, "")) for name in ("softwareId", "softwareVersion")).strip(),
        manifest=to_yaml(manifest_of(obj)),
        may_patch=may_patch,
        may_delete=console.rights.may("delete", CLIENTS, client.name),
        proposable=may_patch or client.managed_by is not None,
        read_only=client.managed_by is not None and not console.edit_managed,
        rotates=rotates(obj),
        done=call.query.get("done") == "1",
    )


def change_client(call: Call) -> Response:
    """Shows what a form of the client's page would change; changes nothing."""
    obj = read_client(call)
    return show(call, propose_for_client(obj, call.form, call.now, alone=call.console.held_alone(obj)))


def read_client(call: Call) -> Object:
    """The object as it is now. Raises CommandError."""
    name = call.path["name"]
    if not _NAME.fullmatch(name):
        raise Absent("No ClientCredential has this name.", "Go back to the list.", Exit.REFUSED)
    return call.console.kube.get(call.console.kube.path(CLIENTS, name))


def names_of(compared: Comparison) -> list[str]:
    """What was asked for and what is granted, each once; what waits for a decision first."""
    return [*compared.missing, *compared.granted]
