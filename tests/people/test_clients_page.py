"""docs/clients.md: its object becomes ready, and its commands show it."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.clients import World
from tests.documents import PROJECT, shown_objects
from tests.people.shell import run, shown

PAGE = PROJECT / "docs" / "clients.md"


def test_the_client_of_the_page_becomes_ready_and_is_shown(world: World, tmp_path: Path) -> None:
    (client,) = [one for place, one in shown_objects() if place == "docs/clients.md: ClientCredential invoices"]
    world.apply({**client, "metadata": {**client["metadata"], "namespace": world.namespace}})
    printed = run(world, shown(PAGE, "kubectl wait"), tmp_path)
    assert f"{world.namespace}.invoices" in printed
    assert "Accepted" in printed
    secret = world.objects.get("secrets", client["spec"]["generateKey"]["secretName"])
    assert {"client_id", "token_endpoint", "private_key.pem"} <= secret["data"].keys()
