"""Whoever approves, suspends or deletes clients does it on the page, and nobody's edit is lost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import jwt
import pytest
from playwright.sync_api import Page, expect

from tests.cluster.clients import World, needs, route
from tests.cluster.portal import Portal
from tests.manifests import manifest

from .opened import kubeconfig_of, picture

if TYPE_CHECKING:
    from .conftest import OpenConsole

KEYTURN = "keyturn.dev"
LOOK = [{"apiGroups": [KEYTURN], "resources": ["*"], "verbs": ["get", "list", "watch"]}]
# How long the page may take to show what has changed in the cluster, on a busy machine.
LIVE_MS = 15_000


def open_client(page: Page, name: str) -> None:
    page.get_by_label("Search by name").fill(name)
    page.get_by_role("button", name="Search").click()
    page.locator(f'[id="client-{name}"]').click()


def test_a_registration_is_approved_and_gets_a_token_with_it(world: World, console: OpenConsole) -> None:
    world.rule(
        "orders", route("/orders", "GET", **needs("orders:read")), route("/orders", "POST", **needs("orders:write"))
    )
    world.client("billing").apply(permissions=["orders:read", "orders:write"], clientName="Billing")
    page, _ = console()
    assert page.title() == "Clients · Keyturn"
    waiting = page.get_by_role("link", name="Waiting for approval")
    expect(waiting).to_contain_text("0")
    registered = Portal(world).with_key(client_name="Orders report", scope="orders:read orders:write")
    # Nobody loads the page anew: it hears of the registration.
    expect(waiting).to_contain_text("1", timeout=LIVE_MS)
    waiting.click()
    picture(page, "clients")
    page.get_by_role("link", name="Orders report").click()
    expect(page.get_by_text("waits for approval")).to_be_visible()
    picture(page, "client")
    page.get_by_label("Grant orders:read").check()
    page.get_by_role("button", name="Review the approval").click()
    difference = page.get_by_label("Difference of the manifests")
    expect(difference).to_contain_text("+    - orders:read")
    assert "orders:write" not in "".join(line for line in difference.inner_text().splitlines() if line.startswith("+"))
    assert "permissions" not in registered.object()["spec"]
    picture(page, "change")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_text("The change was made.")).to_be_visible()
    world.objects.wait_for("clientcredentials", registered.name)

    claims = jwt.decode(registered.access_token(), options={"verify_signature": False})
    assert claims["permissions"] == ["orders:read"]
    assert registered.object()["spec"]["permissions"] == ["orders:read"]
    expect(page.locator("#facts")).to_contain_text("Ready", timeout=LIVE_MS)


def test_an_edit_made_meanwhile_is_shown_and_not_overwritten(world: World, console: OpenConsole) -> None:
    edited = world.client("edited").apply(permissions=["edited:read"])
    page, _ = console()
    open_client(page, "edited")
    page.get_by_role("button", name="Suspend…").click()
    expect(page.get_by_label("Difference of the manifests")).to_contain_text("+  suspended: true")
    edited.patch(description="by somebody else", permissions=["edited:read", "edited:write"])
    page.get_by_role("button", name="Suspend", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("was changed by somebody else meanwhile")
    theirs = page.get_by_label("What somebody else changed")
    expect(theirs).to_contain_text("+    - edited:write")
    picture(page, "conflict")
    spec = world.objects.get("clientcredentials", "edited")["spec"]
    assert "suspended" not in spec
    assert spec["permissions"] == ["edited:read", "edited:write"]
    # What was asked for stands there for the object as it is now, and can be done.
    page.get_by_role("button", name="Suspend", exact=True).click()
    expect(page.get_by_text("The change was made.")).to_be_visible()
    spec = world.objects.get("clientcredentials", "edited")["spec"]
    assert (spec["suspended"], spec["description"]) == (True, "by somebody else")
    world.objects.wait_for("clientcredentials", "edited", "False", reason="Suspended")
    world.seconds_until(lambda: edited.request().status_code == 401, "the client to get no token")


def test_whoever_may_only_look_sees_no_button_that_fails(world: World, console: OpenConsole, tmp_path: Path) -> None:
    world.client("seen").apply(permissions=["seen:read"])
    world.rule("seen", route("/seen", **needs("seen:read")))
    page, opened = console(kubeconfig=kubeconfig_of(world, "onlooker", tmp_path, LOOK))
    for path in ("clients", "clients/seen", "rules", "explain?url=/seen", "keys"):
        answer = page.goto(f"{opened.url}{path}")
        assert answer is not None
        assert answer.status == 200
        buttons = set(page.get_by_role("button").all_inner_texts())
        # What asks, and changes nothing.
        assert buttons <= {"Search", "Explain", "Look it up"}, path
        assert page.locator('form[method="post"], input[type="checkbox"][name^="grant"]').count() == 0
        for link in page.locator("main a").all():
            target = link.get_attribute("href")
            assert target is not None
            if not target.startswith("#"):
                assert page.request.get(f"{opened.origin}{target}").status == 200, target
    page.goto(f"{opened.url}clients/seen")
    expect(page.get_by_text("You may look at this client, but not change it")).to_be_visible()


def test_whoever_may_edit_but_not_delete_is_offered_that_much(
    world: World, console: OpenConsole, tmp_path: Path
) -> None:
    world.client("kept").apply(permissions=["kept:read"])
    rules = [*LOOK, {"apiGroups": [KEYTURN], "resources": ["clientcredentials"], "verbs": ["patch"]}]
    page, opened = console(kubeconfig=kubeconfig_of(world, "editor", tmp_path, rules))
    page.goto(f"{opened.url}clients/kept")
    expect(page.get_by_role("button", name="Revoke its tokens…")).to_be_visible()
    assert page.get_by_role("button", name="Delete…").count() == 0
    page.get_by_role("button", name="Revoke its tokens…").click()
    page.get_by_role("button", name="Revoke", exact=True).click()
    expect(page.get_by_text("The change was made.")).to_be_visible()
    assert world.objects.get("clientcredentials", "kept")["spec"]["revokeTokensIssuedBefore"]
    page.goto(f"{opened.url}keys")
    assert page.get_by_role("button").count() == 0


def test_script_in_a_clients_name_stays_text(world: World, console: OpenConsole) -> None:
    name = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
    world.client("scripted").apply(permissions=["p"], clientName=name, description=f'"></dd>{name}', contacts=[name])
    page, opened = console()
    page.get_by_label("Search by name").fill("scripted")
    page.get_by_role("button", name="Search").click()
    expect(page.locator('[id="client-scripted"]')).to_have_text(name)
    page.locator('[id="client-scripted"]').click()
    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    assert page.title() == "scripted · Keyturn"
    assert page.locator("main img, main script").count() == 0
    # And what a page elsewhere could put into a link of ours.
    page.goto(f"{opened.url}clients?q=<script>alert(1)</script>")
    expect(page.get_by_label("Search by name")).to_have_value("<script>alert(1)</script>")


def test_a_client_is_deleted_only_by_its_name_and_with_what_it_breaks(world: World, console: OpenConsole) -> None:
    doomed = world.client("doomed").apply(permissions=["doomed:read"])
    token = doomed.token()
    world.objects.wait_for("clientcredentials", "doomed")
    page, _ = console()
    open_client(page, "doomed")
    page.get_by_role("button", name="Delete…").click()
    expect(page.get_by_text("No other client holds doomed:read")).to_be_visible()
    page.get_by_label("Type doomed to confirm").fill("doom")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was changed")
    assert world.replicas[0].token_info(token).status_code == 200
    page.get_by_label("Type doomed to confirm").fill("doomed")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("status").filter(has_text="doomed was deleted.")).to_be_visible()
    world.seconds_until(lambda: world.replicas[0].token_info(token).status_code == 401, "its token to count no more")


@pytest.mark.parametrize(
    ("tool", "metadata"),
    [
        ("Argo CD", {"annotations": {"argocd.argoproj.io/tracking-id": "shop:keyturn.dev/ClientCredential:shop/x"}}),
        ("Flux", {"labels": {"kustomize.toolkit.fluxcd.io/name": "shop"}}),
        ("Helm", {"labels": {"app.kubernetes.io/managed-by": "Helm"}}),
    ],
)
def test_what_a_tool_manages_is_read_only_and_offered_as_yaml(
    world: World, console: OpenConsole, tool: str, metadata: dict[str, dict[str, str]]
) -> None:
    name = f"by-{tool.lower().replace(' ', '-')}"
    made = world.client(name).manifest(permissions=["p"])
    made["metadata"] |= metadata
    world.apply(made)
    page, _ = console()
    open_client(page, name)
    expect(page.get_by_text(f"{tool} manages this object.")).to_be_visible()
    page.get_by_label("Grant others, separated by spaces").first.fill("q:read")
    page.get_by_role("button", name="Review the change").click()
    expect(page.get_by_text(f"{tool} manages this object: make the change at its source")).to_be_visible()
    assert page.get_by_role("button").count() == 0
    page.get_by_text("The whole manifest, for Git").click()
    with page.expect_download() as download:
        page.get_by_role("link", name=f"Download {name}.yaml").click()
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert "q:read" in text
    # The manifest is one that the API server takes.
    world.kubectl("apply", "--dry-run=server", "-f", str(download.value.path()))
    assert world.objects.get("clientcredentials", name)["spec"]["permissions"] == ["p"]


def test_hundreds_of_clients_are_paged_and_searched_quickly(world: World, console: OpenConsole) -> None:
    names = [f"many-{number:03}" for number in range(300)]
    for name in names:
        world.objects.create("clientcredentials", manifest("ClientCredential", name, {"permissions": ["many:read"]}))
    page, _ = console()
    page.get_by_label("Search by name").fill("many-")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_text("Page 1 of 6")).to_be_visible(timeout=LIVE_MS)
    began = time.monotonic()
    seen = page.locator("tbody th a").all_inner_texts()
    while page.get_by_role("link", name="Next page").count():
        page.get_by_role("link", name="Next page").click()
        seen += page.locator("tbody th a").all_inner_texts()
    page.get_by_label("Search by name").fill("many-299")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    seconds = time.monotonic() - began
    assert seen == names
    # Six pages with a browser on a machine that has more to do.
    assert seconds < 15
