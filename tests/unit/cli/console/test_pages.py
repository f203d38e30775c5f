"""What the pages show, and that whatever stands in an object stays text."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from .api_server import ApiServer, client, needs, page, ready, registered, rule, thing

SCRIPT = "<script>alert(1)</script>"
# Turns what follows around: `gpj.exe` would look like `exe.jpg`.
REVERSED = "\u202egpj.exe"


def signing_key() -> dict[str, Any]:
    keys = [
        {
            "kid": "old-key",
            "state": "Retired",
            "createdAt": "2026-12-01T00:00:00Z",
            "activatedAt": "2026-12-02T00:00:00Z",
            "retiredAt": "2027-01-02T00:00:00Z",
            "removeAt": "2027-01-20T00:00:00Z",
        },
        {"kid": "stolen-key", "state": "Compromised", "createdAt": "2026-11-01T00:00:00Z"},
        {
            "kid": "active-key",
            "state": "Active",
            "algorithm": "RS256",
            "size": 2048,
            "publishedAt": "2026-12-20T00:00:00Z",
            "activatedAt": "2027-01-02T00:00:00Z",
        },
        {"kid": "next-key", "state": "Next", "publishedAt": "2027-01-10T00:00:00Z"},
    ]
    status = {"keys": keys, "nextRotationAt": "2027-02-01T00:00:00Z", "conditions": [ready()]}
    return thing("SigningKey", "keyturn", {}, status)


def full() -> ApiServer:
    server = ApiServer()
    server.put(
        client("billing", "orders:read", clientName="Billing", contacts=["ops@shop.example"], description="Bills"),
        client("stopped", "orders:read", suspended=True),
        registered("r-1", "orders:read", "orders:write"),
        rule("shop", needs("/orders", "orders:read"), {"path": "/open", "public": True}),
        rule("other", {"path": "/refunds", "expression": '"refunds:write" in permissions'}, hosts=["shop.example"]),
        signing_key(),
    )
    return server


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


@pytest.mark.parametrize("path", ["/clients", "/rules", "/explain", "/keys", "/explain?url=/orders"])
@pytest.mark.parametrize("server", [pytest.param(full, id="full"), pytest.param(ApiServer, id="empty")])
def test_every_page_is_there_for_a_full_and_an_empty_namespace(path: str, server: type[ApiServer]) -> None:
    answer = page(server()).get(path)
    assert answer.status_code == 200, answer.text
    assert answer.text.count("<h1") == 1
    assert 'lang="en"' in answer.text
    # Each field has a label.
    ids = re.findall(r'<(?:input|select)[^>]* id="([^"]+)"', answer.text)
    assert set(ids) <= set(re.findall(r'<label for="([^"]+)"', answer.text))


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    shown = page(full())
    for path in ("/clients", "/clients/r-1", "/rules", "/explain?url=/orders", "/keys"):
        html = shown.get(path).text
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", html)
        assert not re.search(r"<script(?! src=)", html)
        links = re.findall(r'(?:src|href|action)="([^"]*)"', html)
        assert links
        assert not [link for link in links if not link.startswith((f"{shown.door.base}/", "#"))]


def test_what_stands_in_objects_stays_text() -> None:
    server = ApiServer()
    evil = client(
        "evil",
        clientName=SCRIPT + REVERSED,
        description=f'"><img src=x onerror=alert(1)>{REVERSED}',
        contacts=["'><b>"],
        status={"conditions": [ready(status="False", reason="InvalidKey", message=SCRIPT)]},
        metadata={"annotations": {"keyturn.dev/created-by": SCRIPT}},
    )
    server.put(evil, rule("evil", {"path": "/<b>'", "expression": '"</code><script>" in permissions'}))
    shown = page(server)
    for path in (
        "/clients",
        "/clients/evil",
        "/rules",
        "/explain?url=/%3Cscript%3E&client=evil",
        "/clients?q=<script>",
    ):
        html = shown.get(path).text
        assert "<script>alert" not in html, path
        assert "<img" not in html
        assert "<b>" not in html
        assert "\u202e" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown.get("/clients").text


def test_a_client_that_waits_is_shown_with_what_it_asks_for_and_what_that_opens() -> None:
    html = page(full()).get("/clients/r-1").text
    text = text_of(html)
    assert "waits for approval" in text
    assert re.search(r"orders:read yes no ALL /orders Grant orders:read", text)
    assert re.search(r"orders:write yes no no route Grant orders:write", text)
    # Whoever approves says what is granted: nothing is ticked beforehand.
    assert "checked" not in html
    assert "Review the approval" in text


def test_a_client_is_shown_with_its_keys_and_their_use() -> None:
    keys = [
        {
            "kid": "2026-01",
            "algorithm": "ES256",
            "size": 256,
            "source": "publicKeys",
            "addedAt": "2026-12-16T08:00:00Z",
            "lastUsedAt": "2027-01-15T06:00:00Z",
            "expiresAt": "2027-01-20T08:00:00Z",
            "hint": "renew it",
        },
        {"kid": "spare", "source": "publicKeys", "addedAt": "2027-01-14T07:00:00Z"},
    ]
    server = ApiServer()
    server.put(client("billing", status={"keys": keys, "conditions": [ready()]}))
    text = text_of(page(server).get("/clients/billing").text)
    assert "2026-01 key ES256, 256 bits publicKeys 30d in 5d 2h ago renew it" in text
    assert "spare key publicKeys 25h no end never" in text


@pytest.mark.parametrize(
    ("refused", "there", "absent"),
    [
        pytest.param(set(), ["Suspend…", "Delete…", "Review the change"], [], id="whoever may all"),
        pytest.param(
            {("patch", "clientcredentials")}, ["Delete…"], ["Suspend…", "Review", "checkbox"], id="may delete only"
        ),
        pytest.param(
            {("delete", "clientcredentials")}, ["Suspend…", "Review the change"], ["Delete…"], id="may edit only"
        ),
        pytest.param(
            {("delete", "clientcredentials"), ("patch", "clientcredentials")},
            ["You may look at this client"],
            ["<button", "checkbox", 'method="post"'],
            id="may look only",
        ),
    ],
)
def test_nothing_is_offered_that_would_be_refused(
    refused: set[tuple[str, str]], there: list[str], absent: list[str]
) -> None:
    server = full()
    server.refused = refused
    html = page(server).get("/clients/billing").text
    assert [word for word in there if word not in html] == []
    assert [word for word in absent if word in html] == []


def test_signing_keys_offer_nothing_to_whoever_may_look_only() -> None:
    server = full()
    assert page(server).get("/keys").text.count("<button") == 4
    server.refused = {("patch", "signingkeys")}
    html = page(server).get("/keys").text
    assert "<button" not in html
    assert "You may look at this key" in html


def test_keys_stand_on_a_time_line_and_in_a_table() -> None:
    html = page(full()).get("/keys").text
    drawn = re.findall(r'<rect class="(\w+)"', html)
    assert sorted(drawn) == sorted(
        ["published", "active", "retired", "compromised", "published", "active", "published"]
    )
    text = text_of(html)
    assert "Next rotation by schedule: 2027-02-01 00:00 UTC ( in 16d )" in text
    assert "active-key Active RS256, 2048 bits 2026-12-20 00:00 UTC 2027-01-02 00:00 UTC - -" in text
    assert "old-key Retired 2026-12-01 00:00 UTC 2026-12-02 00:00 UTC 2027-01-02 00:00 UTC 2027-01-20 00:00 UTC" in text


def test_rules_show_what_each_route_needs_and_who_has_it() -> None:
    server = full()
    server.put(rule("third", needs("/orders", "orders:write")))
    html = page(server).get("/rules").text
    text = text_of(html)
    assert "one of orders:read (2 clients)" in text
    assert 'expression "refunds:write" in permissions' in text.replace("&#34;", '"')
    assert "/open ALL all public" in text
    assert "shop/shop contradicts shop/third at ALL /orders" in text
    assert "shop/third contradicts" not in text
    assert "clients?permission=orders%3Aread" in html


def test_counts_of_rules_under_audit_are_said_to_be_missing_where_they_are() -> None:
    server = full()
    server.put(rule("tried", needs("/tried", "tried"), mode="Audit"))
    assert "can't be shown" in text_of(page(server).get("/rules").text)


def test_who_may_call_is_told_with_the_chain_and_the_reason() -> None:
    server = full()
    text = text_of(page(server).get("/explain?method=GET&url=/orders/7&client=r-1").text)
    assert "1 client, with a token for all of its permissions and audiences: billing ." in text
    assert "Route /orders of AccessRule shop/shop needs one of orders:read , held by billing , stopped" in text
    assert "Denied (MissingPermission), by AccessRule shop/shop , route /orders" in text
    assert "missing: orders:read" in text
    suspended = text_of(page(server).get("/explain?method=GET&url=/orders/7&client=stopped").text)
    assert "but the client is suspended" in suspended
    described = text_of(page(server).get("/explain?url=/orders/7&permissions=orders:read").text)
    assert "Allowed (Allowed)" in described
    server.put(rule("narrow", needs("/narrow", "orders:read"), audiences=["orders", "stock"]))
    shown = page(server)
    none = text_of(shown.get("/explain?url=/narrow&permissions=orders:read").text)
    assert "Denied (AudienceNotAllowed)" in none
    # Why those that hold the permission can't call it, either.
    assert "needs a token for one of orders, stock" in none
    assert "Allowed (Allowed)" in text_of(
        shown.get("/explain?url=/narrow&permissions=orders:read&audiences=stock").text
    )


def test_a_client_shows_what_its_status_warns_of() -> None:
    warning = {"type": "KeysExpiring", "status": "True", "reason": "KeyEndsSoon", "message": "2026-01 ends soon"}
    over = {"type": "TokensInvalidated", "status": "False", "reason": "Over", "message": "long ago"}
    server = ApiServer()
    server.put(client("billing", "orders:read", status={"conditions": [ready(), warning, over]}))
    html = page(server).get("/clients/billing").text
    assert '<p class="notice warning">KeysExpiring: 2026-01 ends soon</p>' in html
    assert '<p class="notice warning">TokensInvalidated' not in html
    # It has not registered itself: it has asked for nothing.
    assert "Asked for" not in html


@pytest.mark.parametrize(
    ("unread", "path", "said", "unsaid"),
    [
        pytest.param("clientcredentials", "/clients", "The clients can't be read.", "There is no", id="clients"),
        pytest.param("accessrules", "/rules", "The rules can't be read.", "There is no", id="rules"),
        pytest.param("signingkeys", "/keys", "The signing keys can't be read.", "There is no", id="keys"),
        pytest.param(
            "clientcredentials", "/rules", "The clients can't be read.", "0 clients", id="holders of permissions"
        ),
        pytest.param("accessrules", "/clients/billing", "not known", "no route", id="what a permission opens"),
        pytest.param(
            "accessrules", "/explain?url=/orders", "nothing can be said of a request", "Denied", id="a decision"
        ),
        pytest.param("clientcredentials", "/explain?url=/orders", "nobody can be named", "no client", id="callers"),
        pytest.param(
            "clientcredentials",
            "/explain?url=/orders&client=billing",
            "nothing can be said of one",
            "No client has",
            id="a caller by name",
        ),
    ],
)
def test_what_can_not_be_read_is_not_said_to_be_absent(unread: str, path: str, said: str, unsaid: str) -> None:
    server = full()
    server.refused = {("list", unread)}
    text = text_of(page(server).get(path).text)
    assert said in text
    assert unsaid not in text
    # Whoever may read it is told what there is, or that there is nothing.
    assert said not in text_of(page(full()).get(path).text)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/clients", "There is no client in namespace shop yet."),
        ("/rules", "There is no AccessRule in namespace shop yet."),
        ("/keys", "There is no SigningKey in namespace shop."),
    ],
)
def test_an_empty_namespace_is_said_to_be_empty_and_a_search_without_a_result_is_not(path: str, said: str) -> None:
    assert said in text_of(page(ApiServer()).get(path).text)
    found = text_of(page(full()).get(f"{path}?q=nothing-of-this-name").text)
    assert "There is no" not in found
    assert ("Show all" in found) is (path != "/keys")


def test_a_deletion_is_told_on_the_list_and_only_a_name_is_repeated() -> None:
    shown = page(full())
    assert "billing was deleted." in text_of(shown.get("/clients?deleted=billing").text)
    for name in ("<b>", "all your clients", "x" * 300):
        assert "was deleted." not in text_of(shown.get("/clients", params={"deleted": name}).text).replace(
            "not there any more: it was deleted.", ""
        )


def not_ready(reason: str, message: str = "") -> dict[str, Any]:
    return {"conditions": [ready(status="False", reason=reason, message=message)]}


def test_what_is_not_ready_is_named_beside_the_answer() -> None:
    server = full()
    server.put(
        thing("ClientCredential", "late", {"permissions": ["orders:read"]}, not_ready("ClientIdTaken")),
        client("mistaken", "orders:read", status=not_ready("InvalidKey")),
        thing("AccessRule", "outside", {"routes": [needs("/refunds", "x")]}, not_ready("NotGranted", "may not use")),
    )
    shown = page(server)
    text = text_of(shown.get("/explain?url=/orders&client=late").text)
    assert (
        "2 clients, with a token for all of its permissions and audiences: billing , mistaken not ready: InvalidKey"
        in text
    )
    assert "Denied: not logged in" in text
    assert "but nothing of the client is in force: ClientIdTaken" in text
    assert "1 other rule is not ready; see all rules" in text
    decided = text_of(shown.get("/explain?url=/refunds").text)
    assert "since they are not ready: AccessRule outside (NotGranted): may not use" in decided
    assert "AccessRule outside (NotGranted): may not use" in text_of(shown.get("/rules").text)
    one = text_of(shown.get("/explain?url=/orders&client=mistaken").text)
    assert "This client is not ready (InvalidKey)" in one


@pytest.mark.parametrize(
    ("watched", "refused", "said"),
    [
        pytest.param("shop", False, "", id="this namespace alone"),
        pytest.param("shop,team-b", False, "also watches team-b", id="another one, too"),
        pytest.param("*", False, "watches all namespaces", id="all"),
        pytest.param("shop", True, "If the installation watches others", id="whoever may not read Deployments"),
        pytest.param(None, False, "If the installation watches others", id="where no installation is"),
    ],
)
def test_namespaces_that_count_as_well_are_named_beside_the_answer(
    watched: str | None, refused: bool, said: str
) -> None:
    server = full()
    server.watched = watched
    server.refused = {("list", "deployments")} if refused else set()
    shown = page(server)
    for _ in range(2):
        html = shown.get("/explain?url=/orders").text
        assert (said in text_of(html)) if said else 'id="unseen"' not in html
    assert sum(one.url.path.endswith("/deployments") for one in server.requests) == 1


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("url=nonsense", "A request names a URL"),
        ("url=/orders&client=nobody", "No client has this name"),
        ("request-id=abc", "Nothing in the namespace says where the service is"),
    ],
)
def test_a_question_that_has_no_answer_is_told_why(query: str, said: str) -> None:
    assert said in text_of(page(full()).get(f"/explain?{query}").text)


@pytest.mark.parametrize("name", ["..", "%2e%2e", "a%2Fb", "A", "x" * 300, "a%00"])
def test_a_name_that_is_none_reaches_no_api_server(name: str) -> None:
    server = full()
    shown = page(server)
    before = len(server.requests)
    assert shown.get(f"/clients/{name}").status_code in (307, 404)
    assert len(server.requests) == before


def test_ten_thousand_clients_are_paged_and_searched_without_delay() -> None:
    server = ApiServer()
    server.put(*(client(f"client-{number:05}", f"p:{number % 50}") for number in range(10_000)))
    shown = page(server)
    asked = len(server.requests)
    shown.get("/clients")
    began = time.perf_counter()
    last = shown.get("/clients?page=200")
    found = shown.get("/clients?q=09999")
    held = shown.get("/clients?permission=p:7&page=2")
    seconds = time.perf_counter() - began
    assert "client-09999" in last.text
    assert "Page 200 of 200" in last.text
    assert "1 client" in text_of(found.text)
    assert "200 clients" in text_of(held.text)
    assert all(len(answer.content) < 100_000 for answer in (last, found, held))
    # Nobody asks the API server for a list anew.
    assert len(server.requests) == asked
    # Three pages; a fifth of a second each is generous where other work is going on.
    assert seconds < 3
