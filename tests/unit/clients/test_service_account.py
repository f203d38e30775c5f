"""What a spec says about a ServiceAccount, and what is left of one in force after an edit with a mistake."""

from typing import Any

import pytest

from keyturn.clients.parse import parse_client
from keyturn.clients.service_account import keep_account, service_account_ref, with_service_account
from keyturn.clients.state import CLIENT_SECRET_BASIC, ClientState, WorkloadAccount
from tests.manifests import public_jwk

ACCOUNT = WorkloadAccount("shop", "billing", "uid-1")
STATE = ClientState("shop.a", 0.0, service_account=ACCOUNT)


def problems(**spec: Any) -> list[tuple[str, str]]:
    found = parse_client(spec, namespace="shop", name="a", created_at=0.0, last=None)[1]
    return [(problem.reason, problem.field) for problem in found]


def test_an_account_alone_is_a_whole_client() -> None:
    assert problems(serviceAccount={"name": "billing"}) == []


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        pytest.param({"publicKeys": [{"jwk": public_jwk("k1")}]}, "spec.publicKeys", id="public keys"),
        pytest.param({"generateKey": {"secretName": "s"}}, "spec.generateKey", id="a key that is to be made"),
        pytest.param({"clientSecret": {"secretName": "s", "generate": False}}, "spec.clientSecret", id="a secret"),
        pytest.param({"jwksUri": "https://keys.example/jwks"}, "spec.jwksUri", id="keys from elsewhere"),
    ],
)
def test_an_account_goes_with_no_other_way_to_authenticate(spec: dict[str, Any], field: str) -> None:
    assert ("InvalidSpec", field) in problems(serviceAccount={"name": "billing"}, **spec)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_an_account_does_not_go_with_the_method(method: str) -> None:
    assert ("InvalidSpec", "spec.serviceAccount") in problems(serviceAccount={"name": "billing"}, authMethod=method)


@pytest.mark.parametrize(
    ("account", "field"),
    [
        pytest.param("billing", "spec.serviceAccount", id="a string"),
        pytest.param({}, "spec.serviceAccount.name", id="no name"),
        pytest.param({"name": "Billing"}, "spec.serviceAccount.name", id="capitals"),
        pytest.param({"name": "a/b"}, "spec.serviceAccount.name", id="a slash"),
        pytest.param({"name": "a:b"}, "spec.serviceAccount.name", id="a colon"),
        pytest.param({"name": "a" * 254}, "spec.serviceAccount.name", id="too long"),
        pytest.param({"name": 7}, "spec.serviceAccount.name", id="a number"),
    ],
)
def test_an_account_that_cannot_be_read_is_named(account: Any, field: str) -> None:
    assert ("InvalidSpec", field) in problems(serviceAccount=account)
    assert service_account_ref({"serviceAccount": account}) is None


def test_a_field_that_is_not_known_is_reported() -> None:
    assert problems(serviceAccount={"name": "billing", "namespace": "other"}) == [
        ("UnsupportedField", "spec.serviceAccount.namespace")
    ]


def resolved(**changes: Any) -> WorkloadAccount | None:
    given: dict[str, Any] = {"name": "billing", "uid": "uid-1", "last": STATE, "valid": False, **changes}
    state = given.pop("state", ClientState("shop.a", 0.0))
    return with_service_account(state, namespace="shop", **given)[0].service_account


@pytest.mark.parametrize(
    ("changes", "account"),
    [
        pytest.param({}, ACCOUNT, id="the account in force stays"),
        pytest.param({"name": "other"}, None, id="another account waits"),
        pytest.param({"uid": "uid-2"}, None, id="one made anew waits"),
        pytest.param({"uid": None}, None, id="one that is gone is withdrawn"),
        pytest.param({"last": None}, None, id="without a last state nothing is granted"),
        pytest.param(
            {"state": ClientState("shop.a", 0.0, auth_method=CLIENT_SECRET_BASIC)},
            None,
            id="another method withdraws it",
        ),
        pytest.param(
            {"last": ClientState("shop.a", 0.0, audiences=("orders",), service_account=ACCOUNT)},
            None,
            id="with the last audience taken away it is withdrawn",
        ),
    ],
)
def test_after_an_edit_with_a_mistake(changes: dict[str, Any], account: WorkloadAccount | None) -> None:
    assert resolved(**changes) == account


def test_after_an_edit_without_a_mistake_the_account_is_the_one_asked_for() -> None:
    assert resolved(name="other", uid="uid-9", valid=True) == WorkloadAccount("shop", "other", "uid-9")


def test_keeping_an_account_that_nobody_has_keeps_none() -> None:
    assert keep_account(STATE, None, STATE).service_account is None


def test_a_client_state_with_an_account_survives_the_store() -> None:
    assert ClientState.from_body(STATE.to_body()) == STATE


def test_a_row_from_before_there_were_accounts_is_read() -> None:
    body = STATE.to_body()
    del body["serviceAccount"]
    assert ClientState.from_body(body).service_account is None
