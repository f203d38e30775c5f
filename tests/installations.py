"""Fixtures: a real API server for the whole run, and installations on it: the real operator and API as processes."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from keyturn_dev.cluster import Cluster
from keyturn_dev.installation import Installation, apply_crds
from keyturn_dev.progress import Progress
from keyturn_dev.rights import SIGNING_KEY
from tests.cluster.clients import World, world_of

if TYPE_CHECKING:
    from pathlib import Path

# Building the cluster's programs takes minutes on a machine that has never done it.
BUILD_SECONDS = 1500

StartInstallation = Callable[..., Installation]
StartWorld = Callable[..., World]


def signing_key(namespace: str, **spec: Any) -> dict[str, object]:
    return {
        "apiVersion": "keyturn.dev/v1alpha1",
        "kind": "SigningKey",
        "metadata": {"name": SIGNING_KEY, "namespace": namespace},
        "spec": spec,
    }


@pytest.fixture(scope="session")
def cluster(
    cluster_build: subprocess.Popen[bytes] | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """The API server. It is this run's own, on ports of its own."""
    assert cluster_build is not None
    assert cluster_build.wait(timeout=BUILD_SECONDS) == 0, "the cluster's programs could not be built"
    own = Cluster(tmp_path_factory.mktemp("cluster") / "state", progress=Progress())
    try:
        own.up()
        yield own
    finally:
        own.down()


@pytest.fixture(scope="session")
def crds(cluster: Cluster) -> Cluster:
    """The API server with our CRDs."""
    apply_crds(cluster)
    return cluster


@pytest.fixture
def start_installation(
    crds: Cluster, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[StartInstallation]:
    """Starts installations of a test's own, each in a namespace of its own, and ends them after it."""
    started: list[Installation] = []
    stem = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40].strip("-")

    def start(
        *,
        replicas: int = 1,
        settings: dict[str, str] | None = None,
        store_url: str | None = None,
        signing: dict[str, Any] | None = None,
        watched: Sequence[str] = (),
        grants: Sequence[dict[str, Any]] = (),
    ) -> Installation:
        namespace = f"{stem}-{len(started)}"
        own = Installation(
            crds,
            namespace,
            tmp_path_factory.mktemp("installation") / "state",
            replicas=replicas,
            settings=settings,
            store_url=store_url,
            watched=watched,
            grants=grants,
        )
        started.append(own)
        own.start()
        own.apply([signing_key(namespace, **(signing or {}))])
        own.wait_ready()
        return own

    yield start
    for own in started:
        own.stop()


@contextlib.contextmanager
def lasting_installation(crds: Cluster, namespace: str, folder: Path) -> Iterator[Installation]:
    """An installation with two API replicas, for all tests that leave it as it was."""
    own = Installation(crds, namespace, folder / "state", replicas=2)
    try:
        own.start()
        own.apply([signing_key(own.namespace)])
        own.wait_ready()
        yield own
    finally:
        own.stop()


@pytest.fixture(scope="session")
def installation(crds: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The shared installation."""
    with lasting_installation(crds, "keyturn-test", tmp_path_factory.mktemp("installation")) as one:
        yield one


@pytest.fixture(scope="session")
def world(installation: Installation) -> Iterator[World]:
    """The same, as clients, gateways and people with kubectl see it."""
    with world_of(installation, replicas=2) as one:
        yield one


@pytest.fixture
def start_world(start_installation: StartInstallation) -> Iterator[StartWorld]:
    """Starts an installation of a test's own, which it may break."""
    with contextlib.ExitStack() as stack:

        def start(*, replicas: int = 1, **options: Any) -> World:
            own = start_installation(replicas=replicas, **options)
            return stack.enter_context(world_of(own, replicas=replicas))

        yield start
