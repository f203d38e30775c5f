"""What every test run shares: the order of its parts, and building the cluster's programs beside the tests that don't need them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from keyturn_dev.loopback import SHARE_VARIABLE
from tests.installations import cluster, crds, installation, start_installation, start_world, world
from tests.secrecy.observing import observe
from tests.secrecy.planted import PLANTED

if TYPE_CHECKING:
    from collections.abc import Iterator

# Fixtures of the parts below, defined once: the API server is one for all of them.
__all__ = ["cluster", "crds", "installation", "start_installation", "start_world", "world"]

PROJECT = Path(__file__).parents[1]
# Unit tests first: the cheapest failure is the first to show. The cluster's programs are built meanwhile.
PARTS = ("unit", "store", "secrecy", "api", "charts", "realclients", "gateways", "cluster", "people")
MEASURED = PARTS.index("api")
COVERAGE = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
ON_A_CLUSTER = ("cluster", "people")
# Modules that mostly wait go before the others of their part, so that the processes of a run end together.
LONG = ("test_rotation_under_load.py",)
# Of this process, where a run has several (pytest-xdist).
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")


def order_of(item: pytest.Item) -> tuple[int, int]:
    folder = item.path.relative_to(PROJECT / "tests").parts[0]
    part = PARTS.index(folder) if folder in PARTS else len(PARTS)
    return part, LONG.index(item.path.name) if item.path.name in LONG else len(LONG)


def pytest_configure() -> None:
    if WORKER:
        # Two processes that look for a free port in the same instant would be given the same one.
        os.environ[SHARE_VARIABLE] = f"{WORKER.removeprefix('gw')}/{os.environ['PYTEST_XDIST_WORKER_COUNT']}"
    observe()


def pytest_unconfigure() -> None:
    shutil.rmtree(PLANTED.folder, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=order_of)
    for item in items:
        if set(ON_A_CLUSTER) & set(item.path.parts):
            item.add_marker("cluster")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """From `charts` on, programs run at their own speed: their coverage comes from the parts before, and load and time count here."""
    kept = {name: os.environ.pop(name) for name in COVERAGE if order_of(item)[0] > MEASURED and name in os.environ}
    try:
        return (yield)
    finally:
        os.environ.update(kept)


@pytest.fixture(scope="session", autouse=True)
def _nothing_secret_stays() -> Iterator[None]:
    """Looks through what this process's tests left behind, when all else of them has ended, however much of the tests that was."""
    yield
    # Where a test took the API server or the store away, its objects could not be read any more; that must stay the exception.
    assert len(PLANTED.unreadable) <= max(3, len(PLANTED.leavings()) // 20), PLANTED.unreadable
    assert PLANTED.found() == []


@pytest.fixture(scope="session", autouse=True)
def cluster_build(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes] | None]:
    """Starts building the cluster's programs in the background as soon as a test will need them."""
    if not any(item.get_closest_marker("cluster") for item in request.session.items):
        yield None
        return
    with _building("cluster", "keyturn_dev.cluster", "build") as build:
        yield build


@pytest.fixture(scope="session", autouse=True)
def gateways_build(request: pytest.FixtureRequest) -> Iterator[None]:
    """Starts building Caddy and Traefik in the same way; whoever needs them waits for its lock."""
    if not any("gateways" in item.path.parts for item in request.session.items):
        yield
        return
    with _building("gateways", "keyturn_dev.gateway_programs"):
        yield


@pytest.fixture(scope="session", autouse=True)
def helm_build(request: pytest.FixtureRequest) -> Iterator[None]:
    """Helm, in the same way."""
    if not any({"charts", "people"} & set(item.path.parts) for item in request.session.items):
        yield
        return
    with _building("helm", "keyturn_dev.node_programs", "helm"):
        yield


@contextlib.contextmanager
def _building(what: str, *module: str) -> Iterator[subprocess.Popen[bytes]]:
    path = PROJECT / ".run" / f"{what}-build{WORKER and '-'}{WORKER}.log"
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
