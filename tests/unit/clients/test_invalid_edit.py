"""An edit with a mistake: the last valid state, less what the new spec no longer names or restricts, and nothing more."""

from dataclasses import replace
from typing import Any

import pytest

from keyturn import reasons
from keyturn.clients.parse import parse_client
from keyturn.clients.state import ClientState
from tests.unit.clients.keys import jwk

CREATED = 1_700_000_000.0
MISTAKE = {"tokenLifetime": "soon"}
BASE: dict[str, Any] = {
    "publicKeys": [{"jwk": jwk("one")}, {"jwk": jwk("two")}],
    "permissions": ["read", "write"],
    "audiences": ["orders", "stock"],
    "allowedCustomClaims": ["tenant", "region"],
    "expiresAt": "1970-01-01T02:00:00Z",
    "revokeTokensIssuedBefore": "1970-01-01T01:00:00Z",
    "introspection": "any",
}


def in_force(spec: dict[str, Any], last: ClientState | None) -> tuple[ClientState, list[str]]:
    state, problems = parse_client(spec, namespace="shop", name="billing", created_at=CREATED, last=last)
    assert state is not None
    return state, [problem.message for problem in problems]


def last_valid(**changes: Any) -> ClientState:
    state, messages = in_force({**BASE, **changes}, None)
    assert messages == []
    return state


def kids(state: ClientState) -> list[str]:
    return [key.kid for key in state.keys]


def test_with_a_mistake_alone_everything_stays() -> None:
    last = last_valid()
    state, messages = in_force({**BASE, **MISTAKE}, last)
    assert state == last
    assert messages


def test_without_a_last_state_the_client_is_closed_but_keeps_its_id() -> None:
    state, _ = in_force({**BASE, **MISTAKE, "suspended": True}, None)
    assert state == ClientState(
        client_id="shop.billing", created_at=CREATED, suspended=True, expires_at=7200.0, revoke_before=3600.0
    )


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        pytest.param({"permissions": ["read"]}, {"permissions": ("read",)}, id="a permission taken out"),
        pytest.param({"permissions": []}, {"permissions": ()}, id="all permissions taken out"),
        pytest.param({"permissions": ["read", "w rite"]}, {"permissions": ("read",)}, id="a permission mistyped"),
        pytest.param({"permissions": "read"}, {"permissions": ()}, id="permissions that cannot be read"),
        pytest.param({"audiences": ["stock"]}, {"audiences": ("stock",)}, id="an audience taken out"),
        pytest.param({"allowedCustomClaims": []}, {"allowed_custom_claims": ()}, id="custom claims taken out"),
        pytest.param({"introspection": "own"}, {"introspection": "own"}, id="introspection of its own tokens only"),
        pytest.param({"introspection": None}, {"introspection": "own"}, id="introspection taken out"),
        pytest.param({"introspection": "all"}, {"introspection": "own"}, id="introspection mistyped"),
        pytest.param({"suspended": True}, {"suspended": True}, id="a suspension"),
        pytest.param({"suspended": "yes"}, {"suspended": True}, id="a suspension that cannot be read"),
        pytest.param({"expiresAt": "1970-01-01T00:30:00Z"}, {"expires_at": 1800.0}, id="an earlier expiry"),
        pytest.param(
            {"revokeTokensIssuedBefore": "1970-01-01T01:30:00Z"}, {"revoke_before": 5400.0}, id="a later revocation"
        ),
    ],
)
def test_a_restriction_takes_effect_in_spite_of_a_mistake(edit: dict[str, Any], expected: dict[str, Any]) -> None:
    last = last_valid()
    state, _ = in_force({**BASE, **MISTAKE, **edit}, last)
    assert state == replace(last, **expected)


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param({"permissions": ["read", "write", "admin"]}, id="a permission"),
        pytest.param({"audiences": ["orders", "stock", "all"]}, id="an audience"),
        pytest.param({"allowedCustomClaims": ["tenant", "region", "role"]}, id="a custom claim"),
        pytest.param({"publicKeys": [*BASE["publicKeys"], {"jwk": jwk("three")}]}, id="a key"),
        pytest.param({"expiresAt": "1970-01-01T03:00:00Z"}, id="a later expiry"),
        pytest.param({"expiresAt": None}, id="no expiry"),
        pytest.param({"expiresAt": "never"}, id="an expiry that cannot be read"),
        pytest.param({"revokeTokensIssuedBefore": "1970-01-01T00:30:00Z"}, id="an earlier revocation"),
        pytest.param({"revokeTokensIssuedBefore": None}, id="no revocation"),
        pytest.param({"clientId": "another"}, id="another client id"),
        pytest.param({"clientId": "a/b"}, id="a client id that is none"),
        pytest.param({"authMethod": "post"}, id="a method that cannot be read"),
    ],
)
def test_what_loosens_does_not_take_effect_beside_a_mistake(edit: dict[str, Any]) -> None:
    last = last_valid()
    state, messages = in_force({**BASE, **MISTAKE, **edit}, last)
    assert state == last
    assert messages


def test_introspection_of_any_token_is_not_given_beside_a_mistake() -> None:
    last = last_valid(introspection="own")
    assert in_force({**BASE, **MISTAKE}, last)[0].introspection == "own"


def test_a_suspended_client_is_not_resumed_by_an_edit_with_a_mistake() -> None:
    last = last_valid(suspended=True)
    assert in_force({**BASE, **MISTAKE, "suspended": False}, last)[0].suspended


@pytest.mark.parametrize(
    ("before", "after", "seconds"),
    [
        pytest.param("10m", "5m", 300, id="shorter takes effect"),
        pytest.param("10m", "20m", 600, id="longer does not"),
        pytest.param("10m", None, 600, id="the longer default does not"),
        pytest.param("30m", None, 900, id="the shorter default takes effect"),
        pytest.param(None, "5m", 300, id="shorter than the default takes effect"),
        pytest.param(None, "30m", 900, id="longer than the default does not"),
        pytest.param(None, None, None, id="the default stays"),
        pytest.param("10m", "soon", 600, id="one that cannot be read changes nothing"),
    ],
)
def test_a_token_lifetime_only_becomes_shorter(before: str | None, after: str | None, seconds: int | None) -> None:
    last = last_valid(tokenLifetime=before)
    edit = {**BASE, "tokenLifetime": after, "permissions": [*BASE["permissions"], "mis typed"]}
    assert in_force(edit, last)[0].token_lifetime == seconds


@pytest.mark.parametrize(
    ("keys", "left"),
    [
        pytest.param([{"jwk": jwk("one")}, {"jwk": {"kty": "RSA"}}], ["one"], id="one mistyped"),
        pytest.param([{"jwk": jwk("one")}], ["one"], id="one taken out"),
        pytest.param([], [], id="all taken out"),
        pytest.param(None, [], id="the field taken out"),
        pytest.param("one", [], id="keys that cannot be read"),
        pytest.param(
            [{"jwk": jwk("one")}, {"jwk": jwk("three", kid="two")}], ["one"], id="another key under an old kid"
        ),
        pytest.param([{"jwk": jwk("one", kid="uno")}, {"jwk": jwk("two")}], ["two"], id="an old key under another kid"),
        pytest.param(
            [{"jwk": jwk("one")}, {"jwk": jwk("three", kid="one")}, {"jwk": jwk("two")}],
            ["one", "two"],
            id="a new key under the kid of an old one that stays",
        ),
        pytest.param(
            [{"jwk": jwk("three", kid="new")}, {"jwk": jwk("four", kid="new")}], [], id="two new keys under one kid"
        ),
        pytest.param(
            [{"jwk": jwk("one"), "notAfter": "soon"}, {"jwk": jwk("two")}], ["two"], id="a time that cannot be read"
        ),
    ],
)
def test_of_the_keys_those_stay_that_are_named_still(keys: Any, left: list[str]) -> None:
    state, messages = in_force({**BASE, **MISTAKE, "publicKeys": keys}, last_valid())
    assert kids(state) == left
    assert messages


@pytest.mark.parametrize(
    ("before", "after", "window"),
    [
        pytest.param({}, {"notAfter": "1970-01-01T00:01:00Z"}, (None, 60.0), id="an end takes effect"),
        pytest.param({}, {"notBefore": "1970-01-01T00:01:00Z"}, (60.0, None), id="a beginning takes effect"),
        pytest.param({"notAfter": "1970-01-01T00:01:00Z"}, {}, (None, 60.0), id="no end does not"),
        pytest.param({"notBefore": "1970-01-01T00:01:00Z"}, {}, (60.0, None), id="no beginning does not"),
        pytest.param(
            {"notAfter": "1970-01-01T00:01:00Z"},
            {"notAfter": "1970-01-01T00:02:00Z"},
            (None, 60.0),
            id="a later end does not",
        ),
    ],
)
def test_a_keys_time_only_becomes_shorter(
    before: dict[str, str], after: dict[str, str], window: tuple[float | None, float | None]
) -> None:
    last = last_valid(publicKeys=[{"jwk": jwk("one"), **before}])
    state, _ = in_force({**BASE, **MISTAKE, "publicKeys": [{"jwk": jwk("one"), **after}]}, last)
    (key,) = state.keys
    assert (key.not_before, key.not_after) == window


def test_a_mistyped_replacement_of_the_only_key_leaves_none_and_says_so() -> None:
    last = last_valid(publicKeys=[{"jwk": jwk("one")}])
    state, messages = in_force({**BASE, "publicKeys": [{"jwk": {**jwk("two"), "x": "AA"}}]}, last)
    assert state.keys == ()
    assert ["No key of this client is in force" in message for message in messages] == [True]


def test_a_mistake_elsewhere_does_not_claim_that_keys_are_gone() -> None:
    _, messages = in_force({**BASE, "publicKeys": [*BASE["publicKeys"], {}]}, last_valid())
    assert ["in force" in message for message in messages] == [False]


def test_another_method_withdraws_the_credentials_of_the_old_one() -> None:
    edit = {**BASE, **MISTAKE, "authMethod": "client_secret_basic"}
    state, _ = in_force(edit, last_valid())
    assert (state.auth_method, state.keys, state.secrets) == ("private_key_jwt", (), ())


@pytest.mark.parametrize("audiences", [pytest.param([], id="taken out"), pytest.param(["new"], id="replaced")])
def test_a_client_whose_last_audience_is_gone_does_not_fall_back_to_the_issuer(audiences: list[str]) -> None:
    state, _ = in_force({**BASE, **MISTAKE, "audiences": audiences}, last_valid())
    assert (state.audiences, state.keys) == ((), ())


def test_a_client_that_never_had_an_audience_keeps_the_issuer() -> None:
    last = last_valid(audiences=[])
    state, _ = in_force({**BASE, **MISTAKE, "audiences": ["new"]}, last)
    assert (state.audiences, kids(state)) == ((), ["one", "two"])


def test_a_second_mistake_cannot_bring_back_what_the_first_took_away() -> None:
    reduced, _ = in_force(
        {**BASE, **MISTAKE, "permissions": ["read"], "publicKeys": [{"jwk": jwk("one")}]}, last_valid()
    )
    again, _ = in_force({**BASE, **MISTAKE}, reduced)
    assert (again.permissions, kids(again)) == (("read",), ["one"])


def test_a_repaired_spec_is_in_force_as_it_stands() -> None:
    reduced, _ = in_force({**BASE, **MISTAKE, "permissions": [], "publicKeys": [], "suspended": True}, last_valid())
    repaired, messages = in_force(BASE, reduced)
    assert (repaired, messages) == (last_valid(), [])


def test_a_field_that_this_version_does_not_know_adds_nothing() -> None:
    state, _ = in_force({**BASE, "permissions": ["read", "write", "admin"], "newRestriction": True}, last_valid())
    assert state.permissions == ("read", "write")


def test_a_kid_that_two_keys_share_is_one_problem() -> None:
    spec = {**BASE, "publicKeys": [{"jwk": jwk(name, kid="same")} for name in ("one", "two", "three")]}
    _, problems = parse_client(spec, namespace="shop", name="billing", created_at=CREATED, last=None)
    assert [problem.reason for problem in problems] == [reasons.DUPLICATE_KID]
    assert "'same'" in problems[0].message
