"""What the API and the operator may do with registrations, on a real API server: the roles and the admission policies together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.cluster.clients import World, as_object
from tests.cluster.portal import Account, Portal
from tests.manifests import Manifest, manifest, public_jwk

NAME = "r-00000000000000000000000000000abc"
LABELS = {"keyturn.dev/registered": "true", "keyturn.dev/approval": "pending"}
THROUGH = {"keyturn.dev/created-through": "clients"}


@pytest.fixture(scope="module")
def api(world: World) -> Iterator[Account]:
    account = Account(world, "api")
    yield account
    account.close()


def client(labels: dict[str, str] = LABELS, name: str = NAME, **spec: Any) -> Manifest:
    one = manifest("ClientCredential", name, {"publicKeys": [{"jwk": public_jwk("k")}], **spec})
    one["metadata"]["labels"] = labels
    return one


def secret(kind: str = "keyturn.dev/registration", **data: str) -> Manifest:
    metadata = {"name": f"{NAME}-s"}
    return {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata, "stringData": data}


def refused(answer: httpx2.Response) -> str:
    """What the API server says to what must not be done."""
    assert answer.status_code in (403, 422), answer.text
    return str(as_object(answer)["message"])


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(client(permissions=["admin"]), id="a registered client with permissions"),
        pytest.param(client(audiences=["x"]), id="with audiences"),
        pytest.param(client(allowedCustomClaims=["x"]), id="with claims of its own"),
        pytest.param(client(tokenLifetime="24h"), id="with long tokens"),
        pytest.param(client(clientId="chosen"), id="with an id of its choice"),
        pytest.param(client(name="chosen"), id="with a name of its choice"),
        pytest.param(client(THROUGH, tokenLifetime="24h"), id="an internal caller's client with more than it may have"),
        pytest.param(client(introspection="any"), id="one that looks at others' tokens"),
        pytest.param(secret("Opaque", client_secret_hash="x"), id="a Secret of another type"),
        pytest.param(secret(client_secret_hash="x", other="x"), id="a Secret with other members"),
    ],
)
def test_the_api_makes_nothing_but_what_registration_makes(api: Account, given: Manifest) -> None:
    plural = "secrets" if given["kind"] == "Secret" else "clientcredentials"
    assert "ValidatingAdmissionPolicy" in refused(api.create(plural, given))


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("secrets",), id="Secrets"),
        pytest.param(("clientcredentials",), id="clients"),
        pytest.param(("signingkeys",), id="signing keys"),
        pytest.param(("secrets", "keyturn"), id="the signing keys' Secret"),
    ],
)
def test_the_api_reads_nothing(api: Account, arguments: tuple[str, ...]) -> None:
    assert "forbidden" in refused(api.get(*arguments))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"spec": {"permissions": ["admin"]}}, id="grant a permission"),
        pytest.param({"spec": {"suspended": False}}, id="resume a client"),
        pytest.param({"spec": {"expiresAt": None}}, id="prolong a client"),
        pytest.param({"metadata": {"labels": {"keyturn.dev/approval": "denied"}}}, id="set another label"),
        pytest.param({"metadata": {"labels": {"more": "x"}}}, id="add a label"),
        pytest.param({"metadata": {"labels": {"keyturn.dev/registered": None}}}, id="unregister a client"),
        pytest.param({"metadata": {"finalizers": ["x.example/y"]}}, id="keep an object from going"),
    ],
)
def test_the_api_changes_keys_and_description_only(api: Account, world: World, change: dict[str, Any]) -> None:
    registered = Portal(world).with_key()
    limits = '{"spec":{"suspended":true,"expiresAt":"2030-01-01T00:00:00Z"}}'
    world.kubectl("patch", "cc", registered.name, "--type=merge", "-p", limits)
    assert "ValidatingAdmissionPolicy" in refused(api.patch(registered.name, change))
    assert api.patch(registered.name, {"spec": {"clientName": "Other"}}).status_code == 200
    approval = {"metadata": {"labels": {"keyturn.dev/approval": "granted"}}}
    assert api.patch(registered.name, approval).status_code == 200


def test_the_api_leaves_alone_what_people_have_made(api: Account, world: World) -> None:
    own = world.client("made-by-people").apply(ready=False)
    assert "ValidatingAdmissionPolicy" in refused(api.patch(own.name, {"spec": {"clientName": "x"}}))
    assert "ValidatingAdmissionPolicy" in refused(api.delete("clientcredentials", own.name))


def test_the_operator_deletes_no_secret_but_those_of_registrations(world: World) -> None:
    operator = Account(world, "operator")
    world.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "precious"}, "stringData": {"a": "b"}})
    assert "ValidatingAdmissionPolicy" in refused(operator.delete("secrets", "precious"))
    world.apply(secret(client_secret_hash="x"))
    assert operator.delete("secrets", f"{NAME}-s").status_code == 200
    operator.close()
