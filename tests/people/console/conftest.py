"""An installation for these tests alone, one browser for them, and consoles that end with the test that started them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from keyturn_dev.cluster import Cluster
from keyturn_dev.installation import Installation
from tests.cluster.clients import World, world_of
from tests.installations import signing_key

from .opened import Opened, end, start, watch_over

CHROMIUM = "/usr/bin/chromium"
# A name that leads to this machine, as an attacker's DNS server makes one (rebinding).
REBOUND = "rebound.example"
PATIENCE_MS = 20_000

OpenConsole = Callable[..., tuple[Page, Opened]]


@pytest.fixture(scope="package")
def world(crds: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One API replica, and a signing key that can take over at once."""
    own = Installation(crds, "people-console", tmp_path_factory.mktemp("installation") / "state", replicas=1)
    try:
        own.start()
        own.apply([signing_key(own.namespace, publishBefore="1s")])
        own.wait_ready()
        with world_of(own, replicas=1) as seen:
            yield seen
    finally:
        own.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    arguments = ["--no-sandbox", "--disable-dev-shm-usage", f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1"]
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A browser window of somebody who has never been here."""
    context = browser.new_context(viewport={"width": 1100, "height": 760}, locale="en-GB", timezone_id="UTC")
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()


@pytest.fixture
def console(world: World, page: Page) -> Iterator[OpenConsole]:
    """Starts a console with these options and opens it. Whatever the browser complains of fails the test."""
    started: list[Opened] = []

    def open_one(*options: str, **access: object) -> tuple[Page, Opened]:
        opened = start(world, *options, **access)  # type: ignore[arg-type]
        started.append(opened)
        watch_over(page, opened)
        page.goto(opened.url)
        return page, opened

    yield open_one
    page.close()
    for one in started:
        end(one)
    assert [complaint for one in started if not one.foreign for complaint in one.complaints] == []
