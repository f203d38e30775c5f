"""What may be asked for at registration, member by member of RFC 7591 section 2, and in what form."""

import json
from typing import Any

import pytest
from hypothesis import given as generated
from hypothesis import strategies

from keyturn_api.errors import ApiError
from keyturn_api.registered_objects import (
    description,
    internal_client,
    label_value,
    name_of,
    new_name,
    registered_client,
    registration_secret,
)
from keyturn_api.registration_request import (
    ClientMetadata,
    parse_internal,
    parse_json,
    parse_registration,
    parse_update,
)
from tests.manifests import edwards_jwk, elliptic_jwk, private_jwk_members, public_jwk

KEY = public_jwk("k1")
JWT = "private_key_jwt"


def refused(body: dict[str, Any], parse: Any = parse_registration, **options: Any) -> ApiError:
    with pytest.raises(ApiError) as error:
        parse(body, **options)
    return error.value


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param({}, ClientMetadata("client_secret_basic"), id="nothing: a secret in Basic"),
        pytest.param(
            {"token_endpoint_auth_method": "client_secret_post"}, ClientMetadata("client_secret_post"), id="in the body"
        ),
        pytest.param(
            {"token_endpoint_auth_method": JWT, "public_key": KEY}, ClientMetadata(JWT, (KEY,)), id="one public key"
        ),
        pytest.param(
            {"token_endpoint_auth_method": JWT, "public_key": {**KEY, "alg": "RSA256"}},
            ClientMetadata(JWT, (KEY,)),
            id="RSA256 is read as RS256",
        ),
        pytest.param(
            {"token_endpoint_auth_method": JWT, "jwks": {"keys": [KEY], "extra": 1}},
            ClientMetadata(JWT, (KEY,)),
            id="a key set",
        ),
        pytest.param(
            {"scope": "a  b a", "permissions": ["c", "a"]},
            ClientMetadata("client_secret_basic", permissions=("a", "b", "c")),
            id="scope and permissions, each once",
        ),
        pytest.param(
            {"audience": "x", "audiences": ["y", "x"]},
            ClientMetadata("client_secret_basic", audiences=("x", "y")),
            id="audiences in each form",
        ),
        pytest.param(
            {"client_name": "Büro 🎉", "contacts": ["a", "b", "a"], "client_uri": "https://x.example/a?b"},
            ClientMetadata(
                "client_secret_basic",
                described={"client_name": "Büro 🎉", "contacts": ["a", "b"], "client_uri": "https://x.example/a?b"},
            ),
            id="what describes it",
        ),
        pytest.param(
            {"client_name": "", "contacts": [], "software_id": "", "scope": ""},
            ClientMetadata("client_secret_basic"),
            id="empty values are none",
        ),
        pytest.param(
            {"grant_types": ["authorization_code", "client_credentials"], "response_types": ["code"]},
            ClientMetadata("client_secret_basic"),
            id="other grants are replaced",
        ),
        pytest.param(
            {"redirect_uris": ["javascript:x"], "client_id": "mine", "client_secret": "mine", "logo_uri": 1, "ü": {}},
            ClientMetadata("client_secret_basic"),
            id="what has no meaning here is ignored",
        ),
    ],
)
def test_a_registration_is_read(body: dict[str, Any], expected: ClientMetadata) -> None:
    assert parse_registration(body) == expected


def test_keys_of_each_kind_are_registered_in_normal_form() -> None:
    keys = [KEY, elliptic_jwk("e"), edwards_jwk("o")]
    read = parse_registration(
        {"token_endpoint_auth_method": JWT, "jwks": {"keys": [{**one, "ext": True} for one in keys]}}
    )
    assert list(read.keys) == keys


def test_a_key_without_a_kid_has_its_thumbprint() -> None:
    bare = {name: value for name, value in KEY.items() if name != "kid"}
    (key,) = parse_registration({"token_endpoint_auth_method": JWT, "public_key": bare}).keys
    assert len(key["kid"]) == 43


@pytest.mark.parametrize(
    ("body", "word"),
    [
        pytest.param({"token_endpoint_auth_method": "none"}, "token_endpoint_auth_method", id="an unknown method"),
        pytest.param(
            {"token_endpoint_auth_method": ["x"]}, "token_endpoint_auth_method", id="a method that is no text"
        ),
        pytest.param({"token_endpoint_auth_method": JWT}, "needs a key", id="no key"),
        pytest.param({"token_endpoint_auth_method": JWT, "jwks": {"keys": []}}, "needs a key", id="an empty key set"),
        pytest.param({"public_key": KEY}, "private_key_jwt", id="a key without its method"),
        pytest.param(
            {"token_endpoint_auth_method": JWT, "public_key": KEY, "jwks": {"keys": [KEY]}}, "both", id="keys twice"
        ),
        pytest.param({"token_endpoint_auth_method": JWT, "jwks_uri": "https://x"}, "jwks_uri", id="a reference"),
        pytest.param({"token_endpoint_auth_method": JWT, "jwks": [KEY]}, "jwks", id="a list in place of a set"),
        pytest.param(
            {"token_endpoint_auth_method": JWT, "jwks": {"keys": [KEY] * 11}}, "at most 10", id="too many keys"
        ),
        pytest.param({"token_endpoint_auth_method": JWT, "jwks": {"keys": [KEY, KEY]}}, "kid", id="a kid twice"),
        pytest.param({"token_endpoint_auth_method": JWT, "public_key": "x"}, "public_key", id="a key that is none"),
        pytest.param(
            {"token_endpoint_auth_method": JWT, "public_key": {**KEY, "kid": 'a"b'}}, "kid", id="a kid with a quote"
        ),
        pytest.param(
            {"token_endpoint_auth_method": JWT, "public_key": {**KEY, "kid": "k" * 129}}, "kid", id="a kid without end"
        ),
        pytest.param(
            {"token_endpoint_auth_method": JWT, "public_key": {**KEY, "use": "enc"}}, "use", id="a key for encryption"
        ),
        pytest.param({"token_endpoint_auth_method": JWT, "public_key": {**KEY, "alg": "none"}}, "alg", id="alg none"),
        pytest.param({"grant_types": ["authorization_code"]}, "client_credentials", id="another grant alone"),
        pytest.param({"grant_types": "client_credentials"}, "grant_types", id="a grant that is no list"),
        pytest.param({"response_types": "code"}, "response_types", id="response types that are no list"),
        pytest.param({"client_name": "a\nb"}, "client_name", id="a line break in the name"),
        pytest.param({"client_name": "a" * 101}, "client_name", id="a name without end"),
        pytest.param({"client_name": 1}, "client_name", id="a name that is no text"),
        pytest.param({"client_uri": "javascript:alert(1)"}, "client_uri", id="a URI that is run"),
        pytest.param({"client_uri": "https://"}, "client_uri", id="a URI without a host"),
        pytest.param({"client_uri": "https://[x"}, "client_uri", id="a URI that is none"),
        pytest.param({"client_uri": "https://x.example/ä"}, "client_uri", id="a URI with other letters"),
        pytest.param({"contacts": "a@b"}, "contacts", id="contacts that are no list"),
        pytest.param({"contacts": ["a", 1]}, "contacts", id="a contact that is no text"),
        pytest.param({"contacts": ["a", "b", "c", "d", "e"]}, "contacts", id="too many contacts"),
        pytest.param({"software_id": "x" * 65}, "software_id", id="software without end"),
        pytest.param({"scope": ["a"]}, "scope", id="a scope that is no text"),
        pytest.param({"scope": 'a"b'}, "scope", id="a scope-token with a quote"),
        pytest.param({"scope": "a\tb"}, "scope", id="a scope with a tab"),
        pytest.param({"permissions": {"a": 1}}, "permissions", id="permissions that are no list"),
        pytest.param({"permissions": ["a" * 257]}, "permissions", id="a permission without end"),
        pytest.param({"permissions": [str(n) for n in range(33)]}, "at most 32", id="too many permissions"),
        pytest.param({"permissions": [f"{n}" * 250 for n in range(5)]}, "1024", id="too long permissions"),
        pytest.param({"audience": 1}, "audience", id="an audience that is no text"),
        pytest.param({"audience": ["a b"]}, "audience", id="an audience with a space"),
        pytest.param({"audience": list("abcde")}, "audience", id="too many audiences"),
    ],
)
def test_what_is_wrong_is_named_and_never_repeated(body: dict[str, Any], word: str) -> None:
    error = refused(body)
    assert (error.status, error.code) == (400, "invalid_client_metadata")
    assert word in error.description


@pytest.mark.parametrize("member", private_jwk_members())
def test_private_material_is_refused_without_an_echo(member: str) -> None:
    value = private_jwk_members()[member]
    error = refused({"token_endpoint_auth_method": JWT, "public_key": {**KEY, member: value}})
    assert "private key material" in error.description
    assert value not in error.description + error.cause + str(error)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(b"{}", None, id="no content type"),
        pytest.param(b"{}", b"application/x-www-form-urlencoded", id="a form"),
        pytest.param(b"", b"application/json", id="nothing"),
        pytest.param(b"[]", b"application/json", id="a list"),
        pytest.param(b'"x"', b"application/json", id="a text"),
        pytest.param(b"{", b"application/json", id="broken off"),
        pytest.param(b'{"a":1,"a":2}', b"application/json", id="a member twice"),
        pytest.param(b"\xff\xfe{}", b"application/json", id="not UTF-8"),
        pytest.param(b'{"a":' + b"[" * 20 + b"]" * 20 + b"}", b"application/json", id="too deep"),
        pytest.param(b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b"application/json", id="very deep"),
        pytest.param(b'{"a":NaN}', b"application/json", id="no number"),
        pytest.param(b'{"a":"\\ud800"}', b"application/json", id="half a character"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes, content_type: bytes | None) -> None:
    with pytest.raises(ApiError) as error:
        parse_json(body, content_type)
    assert (error.value.status, error.value.code) == (400, "invalid_request")


def test_null_is_absent() -> None:
    body = b'{"client_name":null,"jwks":null,"scope":"a"}'
    assert parse_json(body, b"application/json; charset=utf-8") == {"scope": "a"}


def test_an_update_keeps_the_method_that_it_does_not_name() -> None:
    assert parse_update({"public_key": KEY}, auth_method=JWT).auth_method == JWT
    assert (
        "cannot be changed"
        in refused({"token_endpoint_auth_method": "client_secret_basic"}, parse_update, auth_method=JWT).description
    )


@pytest.mark.parametrize(
    ("state", "suspended"),
    [("PUBLIC", False), ("DRAFT", True), ("TRASH", True)],
)
def test_the_states_of_the_replaced_service(state: str, *, suspended: bool) -> None:
    assert parse_internal({"__STATE__": state}).suspended is suspended
    assert parse_internal({}).suspended is False


def test_internal_callers_grant_more_and_say_more() -> None:
    asked = parse_internal(
        {
            "permissions": [f"p{n}" for n in range(100)],
            "audience": ["a"],
            "allowedCustomClaims": ["tenant"],
            "metadata": {"team": "shop", "cost": 7, "vip": True, "ratio": 0.5},
        }
    )
    assert len(asked.client.permissions) == 100
    assert asked.custom_claims == ("tenant",)
    assert asked.metadata == {"team": "shop", "cost": "7", "vip": "true", "ratio": "0.5"}


@pytest.mark.parametrize(
    ("body", "word"),
    [
        pytest.param({"__STATE__": "DELETED"}, "__STATE__", id="a deleted client"),
        pytest.param({"__STATE__": ["PUBLIC"]}, "__STATE__", id="a state that is no text"),
        pytest.param({"allowedCustomClaims": ["iss"]}, "allowedCustomClaims", id="a claim of the issuer's"),
        pytest.param({"allowedCustomClaims": "tenant"}, "allowedCustomClaims", id="claims that are no list"),
        pytest.param({"metadata": []}, "metadata", id="metadata that is no object"),
        pytest.param({"metadata": {"a/b": "x"}}, "metadata", id="a name with a slash"),
        pytest.param({"metadata": {"": "x"}}, "metadata", id="an empty name"),
        pytest.param({"metadata": {"a": {"b": 1}}}, "metadata", id="a value that is an object"),
        pytest.param({"metadata": {"a": "x" * 1025}}, "metadata", id="a value without end"),
        pytest.param({"metadata": {f"a{n}": "x" for n in range(33)}}, "metadata", id="too many members"),
    ],
)
def test_what_internal_callers_must_not_say(body: dict[str, Any], word: str) -> None:
    assert word in refused(body, parse_internal).description


def test_the_object_of_a_registration_grants_nothing() -> None:
    asked = parse_registration({"scope": "a", "software_id": "(Report) Maker/7", "software_version": "---"})
    name = new_name()
    made = registered_client(name, asked, secret=f"{name}-s", created_by="anonymous", now=1_790_000_000.0)
    assert made["metadata"]["labels"] == {
        "keyturn.dev/registered": "true",
        "keyturn.dev/approval": "pending",
        "keyturn.dev/registered-on": "2026-09-21",
        "keyturn.dev/software-id": "Report-Maker-7",
    }
    assert made["spec"]["registration"]["requested"] == {"permissions": ["a"]}
    assert set(made["spec"]) == {"authMethod", "registration"}


def test_an_internal_client_with_a_key_needs_no_registration() -> None:
    asked = parse_internal({"token_endpoint_auth_method": JWT, "public_key": KEY, "__STATE__": "DRAFT"})
    made = internal_client(new_name(), asked, secret=None, created_by="u" * 1000)
    assert made["spec"] == {"authMethod": JWT, "publicKeys": [{"jwk": KEY}], "suspended": True}
    assert len(made["metadata"]["annotations"]["keyturn.dev/created-by"]) == 512


def test_a_secret_follows_its_owner_and_holds_hashes_alone() -> None:
    owner = {"metadata": {"name": "r-1", "uid": "u"}}
    made = registration_secret("r-1-s", owner, {"client_secret_hash": "h"})
    assert (made["type"], made["immutable"], made["data"]) == (
        *("keyturn.dev/registration", True),
        {"client_secret_hash": "aA=="},
    )
    assert made["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] is False


@pytest.mark.parametrize(
    ("client_id", "expected"),
    [
        pytest.param("team.r-" + "0" * 32, "r-" + "0" * 32, id="a registered client"),
        pytest.param("other.r-" + "0" * 32, None, id="of another namespace"),
        pytest.param("team.app", None, id="a client that nobody registered"),
        pytest.param("team.r-" + "0" * 32 + "/../x", None, id="a path"),
        pytest.param("r-" + "0" * 32, None, id="an explicit id"),
    ],
)
def test_only_clients_that_were_registered_here_have_an_object_by_their_id(
    client_id: str, expected: str | None
) -> None:
    assert name_of(client_id, "team") == expected


@generated(strategies.text(max_size=200))
def test_any_text_becomes_a_label_that_kubernetes_takes(text: str) -> None:
    value = label_value(text)
    assert len(value) <= 63
    assert value == "" or (value[0].isalnum() and value[-1].isalnum() and value.isascii())


_ANY = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(max_size=20),
    lambda inner: (
        strategies.lists(inner, max_size=4) | strategies.dictionaries(strategies.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
_MEMBERS = [
    *("token_endpoint_auth_method", "jwks", "public_key", "jwks_uri", "scope", "permissions", "audience", "audiences"),
    *("client_name", "client_uri", "contacts", "software_id", "grant_types", "response_types", "metadata", "__STATE__"),
    "allowedCustomClaims",
]


def outcome(parse: Any, body: dict[str, Any]) -> ClientMetadata | int:
    try:
        read = parse(parse_json(json.dumps(body).encode(), b"application/json"))
    except ApiError as error:
        return error.status
    return read if isinstance(read, ClientMetadata) else read.client


@generated(strategies.dictionaries(strategies.sampled_from(_MEMBERS), _ANY, max_size=6))
def test_whatever_is_sent_is_read_or_refused_by_a_400(body: dict[str, Any]) -> None:
    for parse in (parse_registration, parse_internal):
        read = outcome(parse, body)
        assert read == 400 or (isinstance(read, ClientMetadata) and json.dumps(description(read)))
