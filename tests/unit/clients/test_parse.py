"""A valid spec is in force as it stands; one with a mistake names the field and keeps to itself."""

from typing import Any

import pytest

from keyturn import __version__, reasons
from keyturn.clients.parse import ClientSettings, invalidates, parse_client
from keyturn.clients.sources import SecretRef, Sources, read_sources
from keyturn.clients.state import ClientState
from keyturn.problems import Problem
from tests.unit.clients.keys import jwk, pem

CREATED = 1_700_000_000.0
KEYS = [{"jwk": jwk("one")}]


def parse(
    spec: dict[str, Any],
    *,
    last: ClientState | None = None,
    name: str = "billing",
    settings: ClientSettings | None = None,
) -> tuple[ClientState | None, list[Problem]]:
    return parse_client(spec, namespace="shop", name=name, created_at=CREATED, last=last, settings=settings)


def accepted(spec: dict[str, Any], **given: Any) -> ClientState:
    state, problems = parse(spec, **given)
    assert problems == []
    assert state is not None
    return state


def test_a_spec_of_one_key_and_one_permission_has_every_default() -> None:
    state = accepted({"publicKeys": KEYS, "permissions": ["orders:read"]})
    assert [(key.kid, key.source, key.algorithm) for key in state.keys] == [("one", "publicKeys", "EdDSA")]
    assert state == ClientState(
        client_id="shop.billing", created_at=CREATED, keys=state.keys, permissions=("orders:read",)
    )


def test_every_field_of_a_spec_is_in_force() -> None:
    state = accepted(
        {
            "clientId": "my-client",
            "clientName": "Billing",
            "description": "Sends bills",
            "contacts": ["team@shop.example"],
            "publicKeys": [
                {
                    "pem": pem("one"),
                    "kid": "pem",
                    "notBefore": "1970-01-01T00:01:00Z",
                    "notAfter": "1970-01-01T00:02:00Z",
                }
            ],
            "permissions": ["b", "a", "b"],
            "audiences": ["orders", "https://shop.example"],
            "allowedCustomClaims": ["tenant"],
            "tokenLifetime": "60s",
            "introspection": "any",
            "suspended": True,
            "expiresAt": "1970-01-01T00:03:00Z",
            "revokeTokensIssuedBefore": "1970-01-01T00:04:00Z",
        }
    )
    (key,) = state.keys
    assert (key.kid, key.not_before, key.not_after) == ("pem", 60.0, 120.0)
    assert state == ClientState(
        client_id="my-client",
        created_at=CREATED,
        keys=(key,),
        permissions=("b", "a"),
        audiences=("orders", "https://shop.example"),
        allowed_custom_claims=("tenant",),
        token_lifetime=60,
        suspended=True,
        expires_at=180.0,
        revoke_before=240.0,
        introspection="any",
    )


def test_a_member_that_is_null_counts_as_absent() -> None:
    spec = {"publicKeys": KEYS, "permissions": None, "suspended": None, "expiresAt": None, "clientId": None}
    assert accepted(spec) == accepted({"publicKeys": KEYS})


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_a_secret_client_waits_for_its_secret(method: str) -> None:
    spec = {"authMethod": method, "clientSecret": {"secretName": "billing", "generate": False}}
    state = accepted(spec)
    assert (state.auth_method, state.keys, state.secrets) == (method, (), ())
    assert read_sources(spec) == (Sources(provided=SecretRef("billing")), [])


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"publicKeys": KEYS}, id="a client with keys"),
        pytest.param({"authMethod": "client_secret_basic"}, id="no reference"),
        pytest.param({"authMethod": "client_secret_basic", "clientSecret": "billing"}, id="a text"),
        pytest.param(
            {"authMethod": "client_secret_basic", "clientSecret": {"secretName": "A_B", "generate": False}},
            id="no name",
        ),
        pytest.param({"clientSecret": {"secretName": "a", "generate": False}}, id="another method"),
    ],
)
def test_a_spec_without_a_usable_reference_refers_to_no_secret(spec: dict[str, Any]) -> None:
    sources, _ = read_sources(spec)
    assert (sources.provided, sources.generate, sources.fills) == (None, None, None)


@pytest.mark.parametrize(
    ("given", "seconds"), [("60s", 60), ("1s", 1), ("15m", 900), ("24h", 86400), ("48h", 86400), ("720h", 86400)]
)
def test_a_token_lifetime_is_capped_by_the_installation(given: str, seconds: int) -> None:
    assert accepted({"publicKeys": KEYS, "tokenLifetime": given}).token_lifetime == seconds


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        pytest.param({"clientId": "a/b"}, reasons.INVALID_CLIENT_ID, "spec.clientId", id="a client id with a slash"),
        pytest.param({"clientId": 7}, reasons.INVALID_CLIENT_ID, "spec.clientId", id="a client id that is a number"),
        pytest.param(
            {"clientId": "a\n"}, reasons.INVALID_CLIENT_ID, "spec.clientId", id="a client id with a line break"
        ),
        pytest.param({"clientId": "a" * 201}, reasons.INVALID_CLIENT_ID, "spec.clientId", id="a long client id"),
        pytest.param({"authMethod": "none"}, reasons.INVALID_SPEC, "spec.authMethod", id="an unknown method"),
        pytest.param({"authMethod": []}, reasons.INVALID_SPEC, "spec.authMethod", id="a method that is a list"),
        pytest.param({"publicKeys": {}}, reasons.INVALID_SPEC, "spec.publicKeys", id="keys that are no list"),
        pytest.param({"publicKeys": ["a"]}, reasons.INVALID_KEY, "spec.publicKeys[0]", id="a key that is a text"),
        pytest.param({"publicKeys": [{}]}, reasons.INVALID_KEY, "spec.publicKeys[0]", id="a key of nothing"),
        pytest.param(
            {"publicKeys": [{"jwk": jwk("one"), "pem": pem("one")}]},
            reasons.INVALID_KEY,
            "spec.publicKeys[0]",
            id="a key that is both",
        ),
        pytest.param(
            {"publicKeys": [{"jwk": jwk("one"), "kid": "two"}]},
            reasons.INVALID_KEY,
            "spec.publicKeys[0].jwk.kid",
            id="a kid that contradicts the jwk",
        ),
        pytest.param(
            {"publicKeys": [{"pem": pem("one"), "kid": 1}]},
            reasons.INVALID_KEY,
            "spec.publicKeys[0].kid",
            id="a numeric kid",
        ),
        pytest.param({"publicKeys": [{"pem": 1}]}, reasons.INVALID_KEY, "spec.publicKeys[0].pem", id="a numeric pem"),
        pytest.param(
            {"publicKeys": [*KEYS, {"jwk": {**jwk("two"), "d": "c2VjcmV0"}}]},
            reasons.PRIVATE_KEY,
            "spec.publicKeys[1].jwk",
            id="a private jwk",
        ),
        pytest.param(
            {"publicKeys": [{"pem": "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----"}]},
            reasons.PRIVATE_KEY,
            "spec.publicKeys[0].pem",
            id="a private pem",
        ),
        pytest.param(
            {"publicKeys": [{"jwk": jwk("one")}, {"jwk": jwk("two", kid="one")}]},
            reasons.DUPLICATE_KID,
            "spec.publicKeys",
            id="two keys of one kid",
        ),
        pytest.param(
            {"publicKeys": [{"jwk": jwk("one"), "notAfter": "soon"}]},
            reasons.INVALID_SPEC,
            "spec.publicKeys[0].notAfter",
            id="a key's time that is none",
        ),
        pytest.param(
            {
                "publicKeys": [
                    {"jwk": jwk("one"), "notBefore": "2026-01-01T00:00:00Z", "notAfter": "2026-01-01T00:00:00Z"}
                ]
            },
            reasons.INVALID_SPEC,
            "spec.publicKeys[0].notAfter",
            id="a key that never counts",
        ),
        pytest.param(
            {"publicKeys": [{"jwk": jwk(f"{n}")} for n in range(11)]},
            reasons.INVALID_SPEC,
            "spec.publicKeys",
            id="eleven keys",
        ),
        pytest.param({"permissions": "a"}, reasons.INVALID_SPEC, "spec.permissions", id="permissions that are a text"),
        pytest.param({"permissions": ["a", "a b"]}, reasons.INVALID_SPEC, "spec.permissions[1]", id="a space"),
        pytest.param({"permissions": ['a"']}, reasons.INVALID_SPEC, "spec.permissions[0]", id="a quotation mark"),
        pytest.param({"permissions": ["a\\"]}, reasons.INVALID_SPEC, "spec.permissions[0]", id="a backslash"),
        pytest.param({"permissions": [""]}, reasons.INVALID_SPEC, "spec.permissions[0]", id="an empty permission"),
        pytest.param({"permissions": ["a" * 257]}, reasons.INVALID_SPEC, "spec.permissions[0]", id="a long permission"),
        pytest.param(
            {"permissions": [["a"]]}, reasons.INVALID_SPEC, "spec.permissions[0]", id="a permission that is a list"
        ),
        pytest.param(
            {"permissions": [f"{n}" for n in range(513)]},
            reasons.INVALID_SPEC,
            "spec.permissions",
            id="513 permissions",
        ),
        pytest.param({"audiences": ["a b"]}, reasons.INVALID_SPEC, "spec.audiences[0]", id="an audience with a space"),
        pytest.param({"audiences": [1]}, reasons.INVALID_SPEC, "spec.audiences[0]", id="a numeric audience"),
        pytest.param({"allowedCustomClaims": ["sub"]}, reasons.RESERVED_CLAIM, "spec.allowedCustomClaims[0]", id="sub"),
        pytest.param(
            {"allowedCustomClaims": ["x", "permissions"]},
            reasons.RESERVED_CLAIM,
            "spec.allowedCustomClaims[1]",
            id="permissions as a claim",
        ),
        pytest.param(
            {"allowedCustomClaims": ["perms"]},
            reasons.RESERVED_CLAIM,
            "spec.allowedCustomClaims[0]",
            id="a name by settings",
        ),
        pytest.param({"allowedCustomClaims": [""]}, reasons.INVALID_SPEC, "spec.allowedCustomClaims[0]", id="no claim"),
        pytest.param({"tokenLifetime": "1d"}, reasons.INVALID_SPEC, "spec.tokenLifetime", id="a lifetime in days"),
        pytest.param({"tokenLifetime": "0s"}, reasons.INVALID_SPEC, "spec.tokenLifetime", id="no lifetime"),
        pytest.param(
            {"introspection": "all"}, reasons.INVALID_SPEC, "spec.introspection", id="introspection of a third kind"
        ),
        pytest.param({"suspended": "false"}, reasons.INVALID_SPEC, "spec.suspended", id="a suspension that is a text"),
        pytest.param(
            {"expiresAt": "2026-01-01"}, reasons.INVALID_SPEC, "spec.expiresAt", id="an expiry without a time"
        ),
        pytest.param(
            {"revokeTokensIssuedBefore": 5},
            reasons.INVALID_SPEC,
            "spec.revokeTokensIssuedBefore",
            id="a revocation that is a number",
        ),
        pytest.param(
            {"clientSecret": {"secretName": "a", "generate": False}},
            reasons.INVALID_SPEC,
            "spec.clientSecret",
            id="a secret beside private_key_jwt",
        ),
        pytest.param(
            {"authMethod": "client_secret_basic"}, reasons.INVALID_SPEC, "spec.publicKeys", id="keys beside a secret"
        ),
        pytest.param(
            {
                "authMethod": "client_secret_basic",
                "publicKeys": [],
                "clientSecret": {"secretName": "", "generate": False},
            },
            reasons.INVALID_SPEC,
            "spec.clientSecret.secretName",
            id="a Secret without a name",
        ),
        pytest.param(
            {"authMethod": "client_secret_basic", "publicKeys": [], "clientSecret": "a"},
            reasons.INVALID_SPEC,
            "spec.clientSecret",
            id="a secret in clear",
        ),
        pytest.param({"weight": 1}, reasons.UNSUPPORTED_FIELD, "spec.weight", id="an unknown field"),
        pytest.param(
            {"publicKeys": [{"jwk": jwk("one"), "weight": 1}]},
            reasons.UNSUPPORTED_FIELD,
            "spec.publicKeys[0].weight",
            id="an unknown field of a key",
        ),
    ],
)
def test_a_mistake_is_told_with_its_field_and_grants_nothing(change: dict[str, Any], reason: str, field: str) -> None:
    spec = {"publicKeys": KEYS, "permissions": ["p"], "audiences": ["a"], **change}
    settings = ClientSettings(reserved_claims=frozenset({"perms"}))
    state, problems = parse(spec, settings=settings)
    assert [(problem.reason, problem.field) for problem in problems] == [(reason, field)]
    assert invalidates(problems)
    if state is not None:
        assert (state.keys, state.secrets, state.permissions, state.audiences) == ((), (), (), ())


def test_every_mistake_is_told_at_once() -> None:
    _, problems = parse({"publicKeys": [{}, {"jwk": 1}], "permissions": ["a b"], "tokenLifetime": "x", "unknown": 1})
    assert [problem.field for problem in problems] == [
        "spec.unknown",
        "spec.publicKeys[0]",
        "spec.publicKeys[1].jwk",
        "spec.permissions[0]",
        "spec.tokenLifetime",
    ]


def test_an_unknown_field_is_told_with_the_version_that_does_not_know_it() -> None:
    _, (problem,) = parse({"publicKeys": KEYS, "weight": 1})
    assert __version__ in problem.message


def test_a_default_client_id_that_is_too_long_says_what_to_do() -> None:
    state, (problem,) = parse({"publicKeys": KEYS}, name="b" * 200)
    assert state is None
    assert problem.reason == reasons.INVALID_CLIENT_ID
    assert "shorter name" in problem.message
    assert accepted({"publicKeys": KEYS}, name="b" * 195).client_id == "shop." + "b" * 195


@pytest.mark.parametrize(
    ("client_id", "reserved"),
    [
        pytest.param("other.client", True, id="another watched namespace and a dot"),
        pytest.param("other.", True, id="only the namespace and a dot"),
        pytest.param("shop.client", False, id="its own namespace"),
        pytest.param("unwatched.client", False, id="a namespace that is not watched"),
        pytest.param("otherwise.client", False, id="a longer word"),
        pytest.param("other", False, id="no dot"),
        pytest.param("other-client.a", False, id="a hyphen"),
    ],
)
def test_an_explicit_id_cannot_take_another_namespaces_names(client_id: str, reserved: bool) -> None:
    settings = ClientSettings(watched_namespaces=frozenset({"shop", "other"}))
    state, problems = parse({"publicKeys": KEYS, "clientId": client_id}, settings=settings)
    if reserved:
        assert state is None
        assert [(problem.reason, problem.field) for problem in problems] == [
            (reasons.CLIENT_ID_RESERVED, "spec.clientId")
        ]
    else:
        assert state is not None
        assert (state.client_id, problems) == (client_id, [])


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        pytest.param({}, "spec.publicKeys", id="no keys"),
        pytest.param({"publicKeys": []}, "spec.publicKeys", id="an empty list of keys"),
        pytest.param({"authMethod": "client_secret_basic"}, "spec.clientSecret", id="no secret for Basic"),
        pytest.param({"authMethod": "client_secret_post"}, "spec.clientSecret", id="no secret for the body"),
    ],
)
def test_a_client_without_a_credential_says_so_and_all_else_takes_effect(spec: dict[str, Any], field: str) -> None:
    last = accepted({"publicKeys": KEYS, "permissions": ["old"]})
    state, problems = parse({**spec, "permissions": ["new"]}, last=last)
    assert [(problem.reason, problem.field) for problem in problems] == [(reasons.NO_CREDENTIAL, field)]
    assert not invalidates(problems)
    assert state is not None
    assert (state.keys, state.permissions) == ((), ("new",))


def test_a_private_key_is_not_repeated_in_what_is_said_about_it() -> None:
    secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQ"
    specs: list[dict[str, Any]] = [
        {"publicKeys": [{"jwk": {**jwk("one"), "d": secret}}]},
        {"publicKeys": [{"pem": f"-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----"}]},
        {"publicKeys": [{"jwk": secret}]},
        {"publicKeys": [{"jwk": {"kty": secret}}]},
        {"publicKeys": secret},
        {"clientSecret": secret},
    ]
    for spec in specs:
        _, problems = parse(spec)
        assert problems
        assert secret not in repr(problems)
