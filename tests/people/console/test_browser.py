"""No other page gets in, whatever it knows; and the page is there for those who use no mouse, see little, or like it dark."""

from __future__ import annotations

import http.server
import itertools
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest
from playwright.sync_api import Page, expect

from tests.cluster.clients import World, needs, route

from .conftest import REBOUND
from .opened import Opened

if TYPE_CHECKING:
    from .conftest import OpenConsole

# Contrast that text needs at least (WCAG 2.2, success criterion 1.4.3).
CONTRAST = 4.5


@contextmanager
def page_elsewhere(html: str) -> Iterator[int]:
    """A web page on another port of this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def forget(opened: Opened) -> None:
    """What the browser says of a page elsewhere, now or in a moment, is no complaint about ours."""
    opened.foreign = True


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_page_elsewhere_gets_nothing_even_if_it_knows_the_address(
    world: World, console: OpenConsole, name: str
) -> None:
    world.client("target").apply(permissions=["target:read"])
    page, opened = console()
    page.goto(f"{opened.url}clients/target")
    form_token = page.locator('input[name="form-token"]').first.get_attribute("value")
    change = f"{opened.url}clients/target/change"
    attack = f"""<!doctype html><title>elsewhere</title><script>
    window.got = [];
    const note = (what, promise) => promise.then(v => got.push(what + ": " + v), () => got.push(what + ": refused"));
    window.done = Promise.all([
      note("read", fetch("{opened.url}clients").then(a => a.text())),
      note("post", fetch("{change}", {{method: "POST", mode: "no-cors", body: new URLSearchParams(
        {{"form-token": "{form_token}", action: "suspend"}})}}).then(a => a.type)),
      new Promise(done => {{ const s = new EventSource("{opened.url}events/clients");
        s.onopen = () => {{ got.push("events: open"); done(); }}; s.onerror = () => {{ s.close(); done(); }}; }}),
      new Promise(done => {{ const s = document.createElement("script"); s.src = "{opened.url}static/console.js";
        s.onload = () => {{ got.push("script: loaded"); done(); }}; s.onerror = done; document.head.append(s); }}),
    ]);
    </script><form method="post" action="{change}"><input name="form-token" value="{form_token}">
    <input name="action" value="suspend"><button>Win</button></form><iframe src="{opened.url}clients"></iframe>"""
    with page_elsewhere(attack) as port:
        page.goto(f"http://{name}:{port}/")
        page.evaluate("window.done")
        assert sorted(page.evaluate("window.got")) == ["post: refused", "read: refused"]
        (frame,) = [one for one in page.frames if one != page.main_frame]
        assert "Clients" not in (frame.content() if frame.url.startswith("http") else "")
        with page.expect_navigation() as navigation:
            page.get_by_role("button", name="Win").click()
        answer = navigation.value
        assert answer is not None
        assert answer.status == 403
        expect(page.locator("body")).to_contain_text("Another page asked for this.")
    assert "suspended" not in world.objects.get("clientcredentials", "target")["spec"]
    forget(opened)


def test_a_name_that_was_bound_to_this_machine_gets_nothing(console: OpenConsole) -> None:
    page, opened = console()
    port = opened.url.rpartition(":")[2]
    answer = page.goto(f"http://{REBOUND}:{port}clients")
    assert answer is not None
    assert answer.status == 421
    assert "Clients" not in page.content()
    forget(opened)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        pytest.param("/clients", {}, 404, id="without the secret path"),
        pytest.param("{base}clients", {"Host": "evil.example"}, 421, id="a foreign host"),
        pytest.param("{base}clients", {"Origin": "https://evil.example"}, 403, id="a foreign origin"),
        pytest.param("{base}clients", {"Sec-Fetch-Site": "cross-site"}, 403, id="a foreign page"),
        pytest.param("{base}clients", {}, 200, id="the address that was printed"),
    ],
)
def test_who_is_answered_on_the_wire(console: OpenConsole, path: str, headers: dict[str, str], status: int) -> None:
    _, opened = console()
    base = opened.url.removeprefix(opened.origin)
    answer = httpx2.get(opened.origin + path.format(base=base), headers=headers, trust_env=False)
    assert answer.status_code == status
    assert "server" not in answer.headers
    assert answer.headers["x-frame-options"] == "DENY"


def test_the_console_listens_on_loopback_alone(console: OpenConsole) -> None:
    _, opened = console()
    port = int(opened.origin.rpartition(":")[2])
    tables = "".join(Path(f"/proc/net/{table}").read_text(encoding="ascii") for table in ("tcp", "tcp6"))
    sockets = [line.split() for line in tables.splitlines()]
    # 0A: listening.
    listening = [one[1] for one in sockets if one[3] == "0A" and one[1].endswith(f":{port:04X}")]
    assert listening == [f"0100007F:{port:04X}"]


def test_everything_is_reached_by_the_keyboard_and_named(world: World, console: OpenConsole) -> None:
    world.client("keyed").apply(permissions=["keyed:read"])
    page, opened = console()
    for path in ("clients", "clients/keyed", "rules", "explain", "keys"):
        page.goto(f"{opened.url}{path}")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        assert page.get_by_role("heading", level=1).count() == 1
        levels = [int(one.evaluate("one => one.tagName[1]")) for one in page.locator("h1, h2, h3").all()]
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels)), (path, levels)
        assert page.evaluate(UNNAMED) == []
        assert page.locator('nav a[aria-current="page"]').count() == 1
    # A change from beginning to end without a mouse.
    page.goto(f"{opened.url}clients/keyed")
    page.get_by_role("button", name="Suspend…").focus()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Suspend keyed")
    page.get_by_role("button", name="Suspend", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="The change was made.")).to_be_visible()
    assert outline != "none"


# Fields, links and buttons without a name that a screen reader could say.
UNNAMED = """[...document.querySelectorAll("input:not([type=hidden]), select, button, a")].filter(one =>
  !(one.labels && one.labels.length && one.labels[0].textContent.trim()) && !one.textContent.trim()
  && !one.getAttribute("aria-label")).map(one => one.outerHTML)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_by_day_and_by_night(world: World, console: OpenConsole, scheme: str) -> None:
    world.client("shown").apply(permissions=["shown:read"])
    world.rule("shown", route("/shown", **needs("shown:read")))
    page, opened = console()
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    backs = set()
    for path in ("clients", "clients/shown", "rules", "keys"):
        page.goto(f"{opened.url}{path}")
        backs.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        found = page.evaluate(COLOURS)
        weak = [one for one in found if contrast(one["text"], one["back"]) < CONTRAST]
        assert found
        assert weak == [], path
    (back,) = backs
    assert (luminance(back) < 0.2) is (scheme == "dark")


def test_no_page_is_wider_than_a_narrow_window(world: World, console: OpenConsole) -> None:
    name = "narrow-with-a-name-that-is-longer-than-the-window-is-wide"
    world.client(name).apply(
        permissions=[f"{name}:read"], audiences=[f"https://{name}.example/api"], clientName=name.replace("-", "")
    )
    world.rule("narrow", route(f"/{name}", **needs(f"{name}:read")), hosts=[f"{name}.example"])
    page, opened = console()
    page.set_viewport_size({"width": 400, "height": 760})
    for path in ("clients", f"clients/{name}", "rules", f"explain?url=/{name}&client={name}", "keys", "clients/absent"):
        page.goto(f"{opened.url}{path}")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
    page.goto(f"{opened.url}clients/{name}")
    with page.expect_navigation():
        page.get_by_role("button", name="Delete…").click()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    opened.complaints[:] = [one for one in opened.complaints if "status of 404" not in one]


def test_a_reader_is_told_of_changes_and_keeps_the_place(world: World, console: OpenConsole) -> None:
    world.client("told").apply(permissions=["told:read"])
    page, opened = console()
    page.goto(f"{opened.url}clients?q=told")
    link = page.locator('[id="client-told"]')
    link.focus()
    world.client("told-too").apply(permissions=["told:read"])
    expect(page.get_by_role("status")).to_contain_text("2 clients", timeout=15_000)
    expect(link).to_be_focused()
    assert opened.complaints == []


# The colours of all texts that are seen, with the first background below each.
COLOURS = """[...document.querySelectorAll("body *")].filter(one => one.offsetParent &&
  [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())).map(one => {
    let below = one;
    while (below && getComputedStyle(below).backgroundColor === "rgba(0, 0, 0, 0)") below = below.parentElement;
    return {what: one.outerHTML.slice(0, 80), text: getComputedStyle(one).color,
            back: getComputedStyle(below || document.body).backgroundColor};
  })"""


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", colour)[:3])
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_a_page_without_script_works_the_same(world: World, console: OpenConsole, page: Page) -> None:
    world.client("scriptless").apply(permissions=["scriptless:read"])
    _, opened = console()
    assert page.context.browser is not None
    context = page.context.browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    try:
        plain.goto(f"{opened.url}clients/scriptless")
        plain.get_by_role("button", name="Suspend…").click()
        plain.get_by_role("button", name="Suspend", exact=True).click()
        expect(plain.get_by_text("The change was made.")).to_be_visible()
    finally:
        context.close()
    assert world.objects.get("clientcredentials", "scriptless")["spec"]["suspended"] is True
