"""What every test run shares: the order of its parts, and building the cluster's programs beside the tests that don't need them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.installations import cluster, crds, installation, start_installation, start_world, world
from tests.secrecy.observing import observe
from tests.secrecy.planted import PLANTED

if TYPE_CHECKING:
    from collections.abc import Iterator

# Fixtures of the parts below, defined once: the API server is one for all of them.
__all__ = ["cluster", "crds", "installation", "start_installation", "start_world", "world"]

PROJECT = Path(__file__).parents[1]
# Unit tests first: the cheapest failure is the first to show. The cluster's programs are built meanwhile.
PARTS = ("unit", "store", "api", "charts", "realclients", "gateways", "cluster", "people")
ON_A_CLUSTER = ("cluster", "people")
# What the whole run left behind is looked through when all else is done.
LAST = "secrecy"
BUILD_LOG = PROJECT / ".run" / "cluster-build.log"
HELM_LOG = PROJECT / ".run" / "helm-build.log"
GATEWAYS_LOG = PROJECT / ".run" / "gateways-build.log"


def part_of(item: pytest.Item) -> int:
    folder = item.path.relative_to(PROJECT / "tests").parts[0]
    return PARTS.index(folder) if folder in PARTS else len(PARTS) + (folder == LAST)


def pytest_configure() -> None:
    observe()


def pytest_unconfigure() -> None:
    shutil.rmtree(PLANTED.folder, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=part_of)
    for item in items:
        if part_of(item) in {PARTS.index(part) for part in ON_A_CLUSTER}:
            item.add_marker("cluster")


@pytest.fixture(scope="session", autouse=True)
def cluster_build(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes] | None]:
    """Starts building the cluster's programs in the background as soon as a test will need them."""
    if not any(item.get_closest_marker("cluster") for item in request.session.items):
        yield None
        return
    with _building(BUILD_LOG, "keyturn_dev.cluster", "build") as build:
        yield build


@pytest.fixture(scope="session", autouse=True)
def gateways_build(request: pytest.FixtureRequest) -> Iterator[None]:
    """Starts building Caddy and Traefik in the same way; whoever needs them waits for its lock."""
    if not any(part_of(item) == PARTS.index("gateways") for item in request.session.items):
        yield
        return
    with _building(GATEWAYS_LOG, "keyturn_dev.gateway_programs"):
        yield


@pytest.fixture(scope="session", autouse=True)
def helm_build(request: pytest.FixtureRequest) -> Iterator[None]:
    """Helm, in the same way."""
    if not any("charts" in item.path.parts for item in request.session.items):
        yield
        return
    with _building(HELM_LOG, "keyturn_dev.node_programs", "helm"):
        yield


@contextlib.contextmanager
def _building(path: Path, *module: str) -> Iterator[subprocess.Popen[bytes]]:
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as log:
        # Tests that look at the clock go first.
        command = ["nice", "-n", "10", sys.executable, "-m", *module]
        build = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield build
    finally:
        if build.poll() is None:
            build.terminate()
        build.wait(timeout=60)
