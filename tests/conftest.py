"""What every test run shares: the order of its parts, and building the cluster's programs beside the tests that don't need them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.secrecy.observing import observe
from tests.secrecy.planted import PLANTED

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[1]
# Unit tests first: the cheapest failure is the first to show. The cluster's programs are built meanwhile.
PARTS = ("unit", "store", "api", "gateways", "realclients", "cluster")
# What the whole run left behind is looked through when all else is done.
LAST = "secrecy"
BUILD_LOG = PROJECT / ".run" / "cluster-build.log"


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
        if part_of(item) == PARTS.index("cluster"):
            item.add_marker("cluster")


@pytest.fixture(scope="session", autouse=True)
def cluster_build(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes] | None]:
    """Starts building the cluster's programs in the background as soon as a test will need them."""
    if not any(item.get_closest_marker("cluster") for item in request.session.items):
        yield None
        return
    BUILD_LOG.parent.mkdir(exist_ok=True)
    with BUILD_LOG.open("wb") as log:
        build = subprocess.Popen(
            [sys.executable, "-m", "keyturn_dev.cluster", "build"], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    yield build
    if build.poll() is None:
        build.terminate()
    build.wait(timeout=60)
