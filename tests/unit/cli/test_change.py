"""An edit: the patch that it is, the difference that it shows, and what happens when somebody else was quicker."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
import yaml

from keyturn_cli import change
from keyturn_cli.change import Change, Conflict
from keyturn_cli.errors import CommandError
from keyturn_cli.kube import Kube, Refused

Obj = dict[str, Any]


def client(*, labels: Obj | None = None, **spec: Any) -> Obj:
    metadata = {"name": "billing", "namespace": "shop", "uid": "u-1", "resourceVersion": "7", "managedFields": []}
    return {
        "apiVersion": "keyturn.dev/v1alpha1",
        "kind": "ClientCredential",
        "metadata": metadata | ({"labels": labels} if labels else {}),
        "spec": spec,
        "status": {"clientId": "shop.billing"},
    }


def kube(handle: Callable[[httpx2.Request], httpx2.Response]) -> Kube:
    return Kube(httpx2.Client(transport=httpx2.MockTransport(handle), base_url="https://api.example"), namespace="x")


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        pytest.param(
            change.approve(client(permissions=["a"]), permissions=["b", "a"], audiences=["x"]),
            {"spec": {"permissions": ["a", "b"], "audiences": ["x"]}},
            id="approving adds to what is granted",
        ),
        pytest.param(
            change.approve(client(labels={"keyturn.dev/approval": "pending"}), permissions=["a"], audiences=[]),
            {"spec": {"permissions": ["a"]}, "metadata": {"labels": {"keyturn.dev/approval": "granted"}}},
            id="and takes it off the list of those that wait",
        ),
        pytest.param(
            change.approve(client(labels={"keyturn.dev/approval": "held"}), permissions=["a"], audiences=[]),
            {"spec": {"permissions": ["a"]}},
            id="a label's value of a person stays",
        ),
        pytest.param(
            change.approve(client(permissions=["a"]), permissions=["a"], audiences=[]), {}, id="nothing to grant"
        ),
        pytest.param(
            change.withdraw(client(permissions=["a", "b"], audiences=["x"]), permissions=["a", "z"]),
            {"spec": {"permissions": ["b"]}},
            id="taking away what is there",
        ),
        pytest.param(change.suspend(client()), {"spec": {"suspended": True}}, id="suspending"),
        pytest.param(change.resume(client(suspended=True)), {"spec": {"suspended": None}}, id="resuming"),
        pytest.param(
            change.revoke_tokens(client(), 1_900_000_000.4),
            {"spec": {"revokeTokensIssuedBefore": "2030-03-17T17:46:41Z"}},
            id="old tokens, with those of this very second",
        ),
        pytest.param(
            change.request_rotation(client(), "now"),
            {"metadata": {"annotations": {"keyturn.dev/rotate": "now"}}},
            id="a rotation",
        ),
    ],
)
def test_an_edit_is_this_merge_patch(made: Change, wanted: Obj) -> None:
    assert made.wanted == wanted
    assert made.changes_nothing == (not wanted)


def test_the_patch_holds_only_for_the_version_that_was_read() -> None:
    made = change.suspend(client())
    assert made.patch == {"spec": {"suspended": True}, "metadata": {"resourceVersion": "7", "uid": "u-1"}}
    assert made.wanted == {"spec": {"suspended": True}}


def test_the_difference_is_of_manifests_and_shows_nothing_else() -> None:
    made = change.approve(client(permissions=["a:read"], suspended=True), permissions=["a:write"], audiences=[])
    lines = made.difference()
    assert [line for line in lines if line[0] in "+-"] == ["+    - a:write"]
    assert not any("resourceVersion" in line or "status" in line for line in lines)
    assert change.resume(client()).difference() == []


def test_what_a_terminal_would_act_upon_is_shown_as_what_it_is() -> None:
    tricky = change.Change(client(), {"spec": {"clientName": "a\u202eb\x1b[31m"}})
    (line,) = [line for line in tricky.difference() if line.startswith("+    ") or "clientName" in line]
    assert line.isprintable()
    assert "\\u202e" in line


def test_the_manifest_for_git_reads_as_the_object_is_to_be() -> None:
    made = change.approve(client(), permissions=["n", "1e3"], audiences=[])
    assert yaml.safe_load(made.to_yaml()) == {
        "apiVersion": "keyturn.dev/v1alpha1",
        "kind": "ClientCredential",
        "metadata": {"name": "billing", "namespace": "shop"},
        "spec": {"permissions": ["n", "1e3"]},
    }


def test_applying_patches_the_object_in_its_own_namespace() -> None:
    seen: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"metadata": {"name": "billing"}})

    change.apply(kube(handle), change.suspend(client()))
    (request,) = seen
    path = "/apis/keyturn.dev/v1alpha1/namespaces/shop/clientcredentials/billing"
    assert (request.method, request.url.path) == ("PATCH", path)
    assert json.loads(request.content)["metadata"] == {"resourceVersion": "7", "uid": "u-1"}


def test_an_edit_made_meanwhile_is_shown_and_not_overwritten() -> None:
    def handle(request: httpx2.Request) -> httpx2.Response:
        if request.method == "PATCH":
            return httpx2.Response(409, json={"message": "the object has been modified"})
        return httpx2.Response(200, json=client(permissions=["theirs"]))

    with pytest.raises(Conflict) as caught:
        change.apply(kube(handle), change.suspend(client()))
    assert "nothing was overwritten" in caught.value.problem
    assert "+    - theirs" in caught.value.difference


def test_another_refusal_stays_what_it_is() -> None:
    refused = kube(lambda _: httpx2.Response(403, json={"message": "no right"}))
    with pytest.raises(CommandError) as caught:
        change.apply(refused, change.suspend(client()))
    assert isinstance(caught.value, Refused)
    assert caught.value.status == 403


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        pytest.param({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}, id="null takes away"),
        pytest.param({"a": [1]}, {"a": [2]}, {"a": [2]}, id="a list is replaced"),
        pytest.param({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}, id="an object in place of a value"),
    ],
)
def test_merging_is_as_rfc_7386_has_it(target: Obj, patch: Obj, result: Obj) -> None:
    assert change.merged(target, patch) == result
