"""An installation of their own for the tests of tools: those look at all that is in it, and the shared one is full of leftovers."""

from collections.abc import Iterator

import pytest

from keyturn_dev.cluster import Cluster
from tests.cluster.clients import World, world_of
from tests.installations import lasting_installation


@pytest.fixture(scope="session")
def world(crds: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """As the shared one, with nothing in it but what these tests make."""
    with (
        lasting_installation(crds, "keyturn-people", tmp_path_factory.mktemp("people")) as own,
        world_of(own, replicas=2) as one,
    ):
        yield one
