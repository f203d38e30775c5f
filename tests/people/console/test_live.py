"""Pages follow the cluster, however many are open, and say so when they can't any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import Page, expect

from tests.cluster.clients import World

from .opened import Opened, end, watch_over
from .test_clients import LIVE_MS

if TYPE_CHECKING:
    from .conftest import OpenConsole

# More than the six connections that a browser opens to a host.
WINDOWS = 8


def front(page: Page, *, hidden: bool) -> None:
    """As a browser does when a tab goes behind another, or comes back; the driver's are always seen."""
    page.evaluate(
        """hidden => {
        Object.defineProperty(document, "hidden", { get: () => hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }""",
        hidden,
    )


def another(page: Page, opened: Opened, path: str) -> Page:
    """A further window of the same browser."""
    window = page.context.new_page()
    watch_over(window, opened)
    window.goto(f"{opened.url}{path}")
    return window


def test_many_windows_side_by_side_all_open_and_hear_of_changes(world: World, console: OpenConsole) -> None:
    world.client("wide-1").apply(permissions=["wide:read"])
    page, opened = console()
    page.goto(f"{opened.url}clients?q=wide-")
    windows = [page, *(another(page, opened, "clients?q=wide-") for _ in range(WINDOWS - 1))]
    world.client("wide-2").apply(permissions=["wide:read"])
    for window in windows:
        expect(window.locator('[id="client-wide-2"]')).to_be_visible(timeout=LIVE_MS)


def test_a_window_in_the_background_catches_up_when_it_is_seen_again(world: World, console: OpenConsole) -> None:
    world.client("behind-1").apply(permissions=["behind:read"])
    page, opened = console()
    page.goto(f"{opened.url}clients?q=behind-")
    front(page, hidden=True)
    seen = another(page, opened, "clients?q=behind-")
    world.client("behind-2").apply(permissions=["behind:read"])
    expect(seen.locator('[id="client-behind-2"]')).to_be_visible(timeout=LIVE_MS)
    assert page.locator('[id="client-behind-2"]').count() == 0
    front(page, hidden=False)
    expect(page.locator('[id="client-behind-2"]')).to_be_visible(timeout=LIVE_MS)


def test_the_page_of_a_client_that_was_deleted_meanwhile_says_so(world: World, console: OpenConsole) -> None:
    world.client("leaving").apply(permissions=["leaving:read"])
    page, opened = console()
    page.goto(f"{opened.url}clients/leaving")
    suspend = page.get_by_role("button", name="Suspend…")
    expect(suspend).to_be_enabled()
    world.kubectl("delete", "clientcredential", "leaving")
    expect(page.get_by_role("alert").filter(has_text="it was deleted")).to_be_visible(timeout=LIVE_MS)
    expect(suspend).to_be_disabled()
    # The page has asked for what is not there.
    opened.complaints[:] = [one for one in opened.complaints if "status of 404" not in one]


def test_a_page_says_that_its_console_has_ended(console: OpenConsole) -> None:
    page, opened = console()
    ended = page.get_by_role("alert").filter(has_text="This console has ended")
    expect(ended).to_be_hidden()
    end(opened)
    expect(ended).to_be_visible(timeout=LIVE_MS)
    page.close()
    opened.complaints[:] = [one for one in opened.complaints if "net::ERR_" not in one]


def test_a_double_click_makes_a_change_once_and_is_told_that_it_was_made(world: World, console: OpenConsole) -> None:
    world.client("clicked").apply(permissions=["clicked:read"])
    page, opened = console()
    page.goto(f"{opened.url}clients/clicked")
    page.get_by_role("button", name="Suspend…").click()
    page.get_by_role("button", name="Suspend", exact=True).dblclick()
    expect(page.get_by_role("status").filter(has_text="The change was made.")).to_be_visible()
    obj = world.objects.get("clientcredentials", "clicked")
    assert (obj["spec"]["suspended"], obj["metadata"]["generation"]) == (True, 2)
