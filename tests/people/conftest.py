"""An installation of their own for the tests of tools: those look at all that is in it, and the shared one is full of leftovers."""

from collections.abc import Iterator

import pytest

from keyturn_dev.cluster import Cluster
from keyturn_dev.installation import Installation
from tests.cluster.clients import World, world_of
from tests.installations import signing_key


@pytest.fixture(scope="session")
def people_installation(crds: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    own = Installation(crds, "keyturn-people", tmp_path_factory.mktemp("people") / "state", replicas=2)
    try:
        own.start()
        own.apply([signing_key(own.namespace)])
        own.wait_ready()
        yield own
    finally:
        own.stop()


@pytest.fixture(scope="session")
def world(people_installation: Installation) -> Iterator[World]:
    """As the shared one, with nothing in it but what these tests make."""
    with world_of(people_installation, replicas=2) as one:
        yield one
