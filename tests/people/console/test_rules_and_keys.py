"""Whoever is on call sees which route needs what, who may call, why something was denied, and how the signing keys are."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import httpx2
from playwright.sync_api import expect

from keyturn_dev.rights import SIGNING_KEY
from tests.cluster.clients import World, needs, route
from tests.cluster.portal import Portal

from .opened import picture
from .test_clients import LIVE_MS

if TYPE_CHECKING:
    from .conftest import OpenConsole


def test_rules_lead_from_the_route_to_the_permission_to_the_client(world: World, console: OpenConsole) -> None:
    holder = world.client("refunder").apply(permissions=["refunds:write"], clientName="Refunder")
    lacking = world.client("reader").apply(permissions=["refunds:read"])
    world.rule(
        "refunds",
        route("/refunds", "POST", **needs("refunds:write")),
        route("/refunds", "GET", **needs("refunds:read")),
    )
    world.rule("refunds-too", route("/refunds", "GET", **needs("refunds:audit")))
    world.rule("tried", route("/tried", **needs("tried:read")), mode="Audit")
    world.rule("tried-now", route("/tried", public=True))
    token = lacking.token()
    for _ in range(3):
        assert world.replicas[0].auth("/tried", token).status_code == 200
    metrics = f"http://127.0.0.1:{world.installation.apis[0].metrics}/metrics"
    page, opened = console("--metrics", metrics)
    page.get_by_role("link", name="Rules", exact=True).click()
    expect(page.locator("#list")).to_contain_text(
        f"{world.namespace}/refunds contradicts {world.namespace}/refunds-too"
    )
    expect(page.locator("#list")).to_contain_text("tried: 3 requests")
    picture(page, "rules")
    page.get_by_label("Search by path").fill("refunds:write")
    page.get_by_role("button", name="Search").click()
    row = page.get_by_role("row").filter(has_text="POST")
    expect(row).to_contain_text("one of refunds:write (1 client)")
    row.get_by_role("link", name="refunds:write").click()
    expect(page.locator("tbody th a")).to_have_text(["Refunder"])

    page.get_by_role("link", name="Explain", exact=True).click()
    page.get_by_label("Method").select_option("POST")
    page.get_by_label("URL, or its path").fill("/refunds/7")
    page.get_by_label("As this client").fill(lacking.client_id)
    page.get_by_role("button", name="Explain").click()
    expect(page.locator("#callers")).to_contain_text("1 client")
    expect(page.locator("#callers")).to_contain_text(holder.name)
    answer = page.locator("#answer")
    expect(answer).to_contain_text("Denied (MissingPermission)")
    expect(answer).to_contain_text("missing: refunds:write")
    picture(page, "explain")
    answer.get_by_role("link", name="refunder").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Refunder")
    assert opened.complaints == []


def test_why_a_request_was_denied_is_found_by_its_id(world: World, console: OpenConsole) -> None:
    Portal(world).caller("keyturn-explain", "explain")
    client = world.client("asking").apply(permissions=["asked:read"])
    world.rule("asked", route("/asked", **needs("asked:write")))
    denied = world.replicas[0].auth("/asked/7", client.token())
    assert denied.status_code == 403
    page, _ = console()
    page.get_by_role("link", name="Explain", exact=True).click()
    page.get_by_label("The id of the answer").fill(denied.json()["id"])
    page.get_by_role("button", name="Look it up").click()
    shown = page.locator("#denials")
    expect(shown).to_contain_text("was answered 403 (MissingPermission)")
    expect(shown).to_contain_text("Missing, one of: asked:write")
    expect(shown).to_contain_text(f"The caller was client {client.client_id}")


def test_signing_keys_are_rotated_and_the_page_shows_it_by_itself(world: World, console: OpenConsole) -> None:
    def active() -> str:
        keys = world.objects.get("signingkeys", SIGNING_KEY)["status"]["keys"]
        return str(next(key["kid"] for key in keys if key["state"] == "Active"))

    before = active()
    page, _ = console()
    page.get_by_role("link", name="Keys", exact=True).click()
    table = page.get_by_role("table")
    expect(table.get_by_role("row").filter(has_text="Active")).to_contain_text(before)
    expect(page.get_by_role("img", name=f"The keys of {SIGNING_KEY} on a time line")).to_be_visible()
    page.get_by_role("button", name="Rotate…").click()
    expect(page.get_by_text("no request fails")).to_be_visible()
    expect(page.get_by_label("Difference of the manifests")).to_contain_text("keyturn.dev/rotate")
    page.get_by_role("button", name="Rotate", exact=True).click()
    expect(page.get_by_text("The change was made.")).to_be_visible()
    expect(table.get_by_role("row").filter(has_text="Retired")).to_contain_text(before, timeout=LIVE_MS)
    assert active() != before
    picture(page, "keys")

    # What can't be undone wants the name typed.
    after = active()
    page.get_by_role("button", name="Withdraw the active key…").click()
    expect(page.get_by_text("It can't be undone.")).to_be_visible()
    page.get_by_role("button", name="Withdraw for ever").click()
    assert page.locator("#confirm").evaluate("field => field.validity.valueMissing") is True
    page.get_by_label(f"Type {SIGNING_KEY} to confirm").fill(SIGNING_KEY)
    page.get_by_role("button", name="Withdraw for ever").click()
    expect(table.get_by_role("row").filter(has_text="Compromised")).to_contain_text(after, timeout=LIVE_MS)


def test_a_service_that_does_not_answer_is_said_so(world: World, console: OpenConsole) -> None:
    page, opened = console()
    answer = page.goto(f"{opened.url}explain?request-id={uuid.uuid4().hex}")
    assert answer is not None
    assert answer.status >= 400
    expect(page.get_by_role("alert")).to_be_visible()
    opened.complaints[:] = [one for one in opened.complaints if "the server responded with a status" not in one]
    assert httpx2.get(f"{world.replicas[0].url}/readyz").status_code == 200
