"""A change is shown before it is made, is made to what was shown, and is never made over somebody else's."""

from __future__ import annotations

import html
import json
import re
import threading
from typing import Any

import httpx2
import pytest

from .api_server import NOW, ApiServer, Page, client, page, registered, thing
from .test_pages import full, signing_key, text_of

ARGO = {"annotations": {"argocd.argoproj.io/tracking-id": "shop:keyturn.dev/ClientCredential:shop/billing"}}


def shown_change(shown: Page, name: str, form: dict[str, Any], kind: str = "clients") -> tuple[str, str | None]:
    """The page of a change, and the path that makes it (None: it is not offered)."""
    answer = shown.post(f"/{kind}/{name}/change", form)
    assert answer.status_code == 200, answer.text
    found = re.search(r'<form method="post" action="[^"]*(/changes/[\w-]+)"', answer.text)
    return html.unescape(answer.text), found and found[1]


def writes(server: ApiServer) -> list[dict[str, Any]]:
    """The bodies of what was changed for good."""
    return [
        json.loads(one.content)
        for one in server.requests
        if one.method in ("PATCH", "DELETE") and "dryRun" not in one.url.params
    ]


def test_an_approval_is_shown_and_then_made() -> None:
    server = full()
    shown = page(server)
    text, path = shown_change(
        shown,
        "r-1",
        {"action": "permissions", "grant-permissions": ["orders:read"], "grant-audiences": ["orders"]},
    )
    assert "+  permissions:" in text
    assert '+    - "orders:read"' in text or "+    - orders:read" in text
    assert "+    keyturn.dev/approval: granted" in text
    assert writes(server) == []
    assert path is not None
    done = shown.post(path, {})
    assert (done.status_code, done.headers["location"]) == (303, f"{shown.door.base}/clients/r-1?done=1")
    spec = server.objects["clientcredentials"]["r-1"]["spec"]
    assert (spec["permissions"], spec["audiences"]) == (["orders:read"], ["orders"])
    # Once: a second click changes nothing, and leads to the same page; whoever comes back later is told.
    assert shown.post(path, {}).headers["location"] == done.headers["location"]
    shown.console.clock = lambda: NOW + 11
    assert "was made already" in shown.post(path, {}).text
    assert len(writes(server)) == 1


@pytest.mark.parametrize(
    ("action", "place"), [("suspend", "/clients/billing?done=1"), ("delete", "/clients?deleted=billing")]
)
def test_a_double_click_makes_a_change_once_and_both_are_told_that_it_was_made(action: str, place: str) -> None:
    server = full()
    shown = page(server)
    _, path = shown_change(shown, "billing", {"action": action})
    assert path is not None
    answers: list[httpx2.Response] = []
    second = threading.Thread(target=lambda: answers.append(shown.post(path, {"confirm": "billing"})))

    def click_again() -> None:
        """While the first is under way."""
        second.start()
        second.join(0.3)

    server.meanwhile = click_again
    answers.append(shown.post(path, {"confirm": "billing"}))
    second.join(20)
    assert [(one.status_code, one.headers.get("location")) for one in answers] == [(303, shown.door.base + place)] * 2
    assert len(writes(server)) == 1


def test_a_change_that_was_refused_can_be_tried_again() -> None:
    server = full()
    shown = page(server)
    _, path = shown_change(shown, "billing", {"action": "suspend"})
    assert path is not None
    server.refused = {("patch", "clientcredentials")}
    assert shown.post(path, {}).status_code == 409
    server.refused = set()
    assert shown.post(path, {}).status_code == 303
    assert server.objects["clientcredentials"]["billing"]["spec"]["suspended"] is True


@pytest.mark.parametrize(
    ("action", "spec", "lines", "said"),
    [
        pytest.param("suspend", {}, ["+  suspended: true"], "refused everywhere", id="suspend"),
        pytest.param("resume", {"suspended": True}, ["-  suspended: true"], "gets tokens again", id="resume"),
        pytest.param("revoke", {}, ['+  revokeTokensIssuedBefore: "2027-01-15T08:00:01Z"'], "new ones", id="revoke"),
        pytest.param(
            "rotate",
            {"generateKey": {"secretName": "billing-key", "keepPrevious": "2h"}},
            ["+    keyturn.dev/rotate:"],
            "billing-key",
            id="rotate a key",
        ),
        pytest.param(
            "rotate",
            {"authMethod": "client_secret_basic", "clientSecret": {"secretName": "billing-secret"}},
            ["+    keyturn.dev/rotate:"],
            "billing-secret",
            id="rotate a secret",
        ),
    ],
)
def test_each_change_is_shown_with_what_follows(action: str, spec: dict[str, Any], lines: list[str], said: str) -> None:
    server = ApiServer()
    server.put(client("billing", "orders:read", **spec))
    shown = page(server)
    text, path = shown_change(shown, "billing", {"action": action})
    assert [line for line in lines if line not in text] == []
    assert said in text
    assert writes(server) == []
    assert path is not None
    assert shown.post(path, {}).status_code == 303
    (body,) = writes(server)
    assert body["metadata"]


def test_permissions_are_given_and_taken_in_one_change() -> None:
    server = ApiServer()
    server.put(client("billing", "orders:read", "orders:write", audiences=["orders"]))
    shown = page(server)
    form = {
        "action": "permissions",
        "take-permissions": ["orders:write"],
        "more-permissions": "refunds:read  refunds:write",
        "take-audiences": ["orders"],
    }
    _, path = shown_change(shown, "billing", form)
    assert path is not None
    assert shown.post(path, {}).status_code == 303
    spec = server.objects["clientcredentials"]["billing"]["spec"]
    assert spec["permissions"] == ["orders:read", "refunds:read", "refunds:write"]
    assert spec["audiences"] == []


@pytest.mark.parametrize(
    ("form", "said"),
    [
        pytest.param({"action": "resume"}, "nothing to change", id="what is so already"),
        pytest.param({"action": "permissions"}, "nothing to change", id="nothing ticked"),
        pytest.param({"action": "permissions", "more-permissions": 'a"b'}, "visible ASCII", id="no permission"),
        pytest.param({"action": "permissions", "grant-permissions": ["x" * 257]}, "visible ASCII", id="too long a one"),
        pytest.param({"action": "rotate"}, "makes no key", id="rotating a client's own key"),
        pytest.param({"action": "format-disk"}, "no such change", id="an unknown action"),
        pytest.param({}, "no such change", id="no action"),
    ],
)
def test_what_can_not_be_done_is_told(form: dict[str, Any], said: str) -> None:
    server = ApiServer()
    server.put(client("billing", "orders:read"))
    answer = page(server).post("/clients/billing/change", form)
    assert answer.status_code == 409
    assert said in answer.text
    assert writes(server) == []


def test_a_deletion_says_what_it_breaks_and_wants_the_name_typed() -> None:
    server = ApiServer()
    status = {"lastTokenIssuedAt": "2027-01-15T05:00:00Z", "secretName": "billing-key", "conditions": []}
    server.put(
        client("billing", "orders:read", "shared", status=status, generateKey={"secretName": "billing-key"}),
        client("other", "shared"),
    )
    shown = page(server)
    text, path = shown_change(shown, "billing", {"action": "delete"})
    plain = text_of(text)
    assert "It is in use: the last sign of life is 3h old." in plain
    assert "No other client holds orders:read:" in plain
    assert "The Secret billing-key goes, too" in plain
    assert path is not None
    wrong = shown.post(path, {"confirm": "billin"})
    assert wrong.status_code == 409
    assert writes(server) == []
    again = re.search(r'action="[^"]*(/changes/[\w-]+)"', wrong.text)
    assert again is not None
    assert shown.post(again[1], {"confirm": "billing"}).headers["location"].endswith("/clients?deleted=billing")
    (body,) = writes(server)
    assert body == {"preconditions": {"uid": "uid-billing", "resourceVersion": "1"}}


@pytest.mark.parametrize("action", ["suspend", "delete"])
def test_an_edit_made_meanwhile_is_shown_and_not_overwritten(action: str) -> None:
    server = ApiServer()
    server.put(client("billing", "orders:read"))
    shown = page(server)
    _, path = shown_change(shown, "billing", {"action": action})
    server.meanwhile = lambda: server.edit("clientcredentials", "billing", {"spec": {"permissions": ["theirs"]}})
    assert path is not None
    answer = shown.post(path, {"confirm": "billing"})
    text = html.unescape(answer.text)
    assert answer.status_code == 409
    assert "changed by somebody else meanwhile" in text
    assert "+    - theirs" in text
    spec = server.objects["clientcredentials"]["billing"]["spec"]
    assert spec == {"permissions": ["theirs"]}
    # What was asked for stands there anew, for the object as it is; with what it breaks.
    assert ("No other client holds theirs" in text) is (action == "delete")
    anew = re.search(r'action="[^"]*(/changes/[\w-]+)"', answer.text)
    assert anew is not None
    assert anew[1] != path
    assert shown.post(anew[1], {"confirm": "billing"}).status_code == 303


@pytest.mark.parametrize("action", ["suspend", "delete"])
def test_a_status_that_moved_on_meanwhile_is_no_conflict(action: str) -> None:
    server = ApiServer()
    server.put(client("billing", "orders:read"))
    shown = page(server)
    _, path = shown_change(shown, "billing", {"action": action})
    change = {"status": {"lastTokenIssuedAt": "2027-01-15T05:00:00Z"}}
    server.meanwhile = lambda: server.edit("clientcredentials", "billing", change, generation=0)
    assert path is not None
    assert shown.post(path, {"confirm": "billing"}).status_code == 303
    left = server.objects["clientcredentials"].get("billing")
    assert left is None or left["spec"]["suspended"] is True


def test_an_object_made_anew_meanwhile_is_another_one() -> None:
    server = ApiServer()
    server.put(client("billing", "orders:read"))
    shown = page(server)
    _, path = shown_change(shown, "billing", {"action": "suspend"})
    server.edit("clientcredentials", "billing", {"metadata": {"uid": "another"}})
    assert path is not None
    answer = shown.post(path, {})
    assert answer.status_code == 409
    assert "made anew meanwhile" in answer.text
    assert "suspended" not in server.objects["clientcredentials"]["billing"]["spec"]


def test_what_the_api_server_objects_to_is_told_before() -> None:
    server = ApiServer()
    server.put(client("billing", "orders:read"))
    server.objection = "spec.permissions: Too many"
    text, path = shown_change(page(server), "billing", {"action": "permissions", "more-permissions": "x"})
    assert path is None
    assert "Too many" in text


@pytest.mark.parametrize("action", ["suspend", "permissions"])
def test_a_managed_object_is_read_only_and_its_change_is_offered_as_yaml(action: str) -> None:
    server = ApiServer()
    server.put(client("billing", "orders:read", metadata=ARGO))
    shown = page(server)
    looked_at = text_of(shown.get("/clients/billing").text)
    assert "Argo CD manages this object." in looked_at
    assert "Delete…" not in looked_at
    text, path = shown_change(shown, "billing", {"action": action, "more-permissions": "x"})
    assert path is None
    assert "make the change at its source" in text
    link = re.search(r'href="[^"]*(/changes/[\w-]+\.yaml)"', text)
    assert link is not None
    manifest = shown.get(link[1])
    assert manifest.headers["content-disposition"] == 'attachment; filename="billing.yaml"'
    assert ("suspended: true" if action == "suspend" else '- "x"') in manifest.text
    assert "resourceVersion" not in manifest.text
    # Whoever makes the request by hand is refused as well.
    assert shown.post(link[1].removesuffix(".yaml"), {}).status_code == 409
    assert writes(server) == []


def test_a_managed_object_can_be_changed_by_whoever_says_so() -> None:
    server = ApiServer()
    server.put(client("billing", "orders:read", metadata=ARGO))
    shown = page(server, edit_managed=True)
    assert "it may undo" in text_of(shown.get("/clients/billing").text)
    _, path = shown_change(shown, "billing", {"action": "suspend"})
    assert path is not None
    assert shown.post(path, {}).status_code == 303


def test_a_change_that_is_refused_by_rbac_is_not_offered() -> None:
    server = ApiServer()
    server.put(client("billing", "orders:read"))
    server.refused = {("patch", "clientcredentials")}
    text, path = shown_change(page(server), "billing", {"action": "suspend"})
    assert path is None
    assert "Your role has no patch on clientcredentials" in text_of(text)


@pytest.mark.parametrize(
    ("action", "named", "kept"),
    [
        ("compromised", ["active-key", "next-key"], []),
        ("compromised-active", ["active-key"], ["next-key"]),
    ],
)
def test_withdrawing_keys_names_them_and_wants_the_name_typed(action: str, named: list[str], kept: list[str]) -> None:
    server = ApiServer()
    server.put(signing_key())
    shown = page(server)
    text, path = shown_change(shown, "keyturn", {"action": action}, "keys")
    assert f"Withdrawn for ever: {', '.join(named)}." in text
    assert path is not None
    assert shown.post(path, {}).status_code == 409
    assert writes(server) == []
    _, path = shown_change(shown, "keyturn", {"action": action}, "keys")
    assert path is not None
    assert shown.post(path, {"confirm": "keyturn"}).headers["location"].endswith("/keys?done=1")
    annotations = server.objects["signingkeys"]["keyturn"]["metadata"]["annotations"]
    assert annotations["keyturn.dev/compromised"] == ",".join(named)
    assert not [kid for kid in kept if kid in annotations["keyturn.dev/compromised"]]


@pytest.mark.parametrize(("action", "typed"), [("rotate", ""), ("revoke", "keyturn")])
def test_signing_keys_are_rotated_and_tokens_revoked(action: str, typed: str) -> None:
    server = ApiServer()
    server.put(signing_key())
    shown = page(server)
    _, path = shown_change(shown, "keyturn", {"action": action}, "keys")
    assert path is not None
    assert shown.post(path, {"confirm": typed}).status_code == 303
    made = server.objects["signingkeys"]["keyturn"]
    if action == "rotate":
        assert made["metadata"]["annotations"]["keyturn.dev/rotate"].startswith("2027-01-15T08:00:00")
    else:
        assert made["spec"]["revokeTokensIssuedBefore"] == "2027-01-15T08:00:01Z"


def test_keys_that_are_not_there_can_not_be_withdrawn() -> None:
    server = ApiServer()
    server.put(thing("SigningKey", "keyturn", {}, {}))
    answer = page(server).post("/keys/keyturn/change", {"action": "compromised"})
    assert answer.status_code == 409
    assert "has no keys" in answer.text


def test_changes_that_were_shown_are_kept_for_a_while_and_not_without_bound() -> None:
    server = ApiServer()
    server.put(client("billing", "orders:read"), registered("r-1"))
    shown = page(server)
    _, first = shown_change(shown, "billing", {"action": "suspend"})
    for _ in range(64):
        shown_change(shown, "billing", {"action": "revoke"})
    assert first is not None
    assert shown.post(first, {}).status_code == 409
    _, late = shown_change(shown, "billing", {"action": "suspend"})
    shown.console.clock = lambda: 1_800_000_000.0 + 3601
    assert late is not None
    assert shown.post(late, {}).status_code == 409
    assert writes(server) == []
