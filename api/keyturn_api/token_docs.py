"""The OpenAPI of tokens and of the documents that verify them, written for people."""

from typing import Any, Final

from keyturn_api.docs_parts import answer, curl, oauth_errors, problem

TAG: Final = {"name": "Tokens", "description": "For clients and APIs: get a token, look at one, give one up."}
METADATA_TAG: Final = {"name": "Metadata", "description": "For programs that verify tokens or look for endpoints."}
_FORM: Final = "application/x-www-form-urlencoded"
_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ISSUER: Final = "https://issuer.example"
_CLIENT: Final = "shop.orders-report"
_JWT: Final = "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6IjIwMjYtMDEifQ.e30.c2lnbmF0dXJl"
_CLAIMS: Final = {
    "iss": _ISSUER,
    "sub": _CLIENT,
    "client_id": _CLIENT,
    "aud": ["orders"],
    "iat": 1_790_000_000,
    "exp": 1_790_000_900,
    "jti": "5nJ0m7v2b1kX3zQ8",
    "permissions": ["orders:read"],
    "scope": "orders:read",
}
_CLIENT_OR_KUBERNETES: Final[list[dict[str, list[str]]]] = [{"clientSecret": []}, {"kubernetesToken": []}, {}]
_HINT: Final = {
    "type": "string",
    "description": "`access_token`. There is no other kind, so any value is taken and none is needed.",
}


def _form(schema: str, **examples: dict[str, Any]) -> dict[str, Any]:
    named = {name: {"summary": name.replace("_", " "), "value": value} for name, value in examples.items()}
    media = {"schema": {"$ref": f"#/components/schemas/{schema}"}, "examples": named}
    return {"required": True, "content": {_FORM: media}}


def paths(base_url: str) -> dict[str, Any]:
    """The path items, without the service prefix. `base_url`: where callers reach the service."""
    return {
        "/oauth/token": {"post": _token(f"{base_url}/oauth/token")},
        "/oauth/introspect": {"post": _introspect(f"{base_url}/oauth/introspect")},
        "/oauth/revoke": {"post": _revoke(f"{base_url}/oauth/revoke")},
        "/tokeninfo": {"get": _tokeninfo(f"{base_url}/tokeninfo")},
        "/.well-known/jwks.json": {"get": _jwks(f"{base_url}/.well-known/jwks.json")},
    }


def _token(url: str) -> dict[str, Any]:
    secret = curl(
        f"curl --fail-with-body --silent {url}",
        '--user "$CLIENT_ID:$CLIENT_SECRET"',
        "--data grant_type=client_credentials",
    )
    assertion = curl(
        f"curl --fail-with-body --silent {url}",
        "--data grant_type=client_credentials",
        f"--data client_assertion_type={_ASSERTION_TYPE}",
        '--data "client_assertion=$ASSERTION"',
    )
    return {
        "tags": ["Tokens"],
        "summary": "Get an access token",
        "description": "Client credentials (RFC 6749 section 4.4). A client proves itself in the one way that its ClientCredential names: "
        "by an assertion that it signed (`private_key_jwt`, RFC 7523; each counts once), or by its secret, in Basic "
        "(`client_secret_basic`) or in the body (`client_secret_post`). Two ways at once are an `invalid_request`.\n\n"
        f"With a secret:{secret}\n\nWith an assertion, whose `aud` is the issuer:{assertion}",
        "security": [{"clientSecret": []}, {}],
        "requestBody": _form(
            "TokenRequest",
            with_a_secret_in_Basic={"grant_type": "client_credentials", "audience": ["orders"]},
            with_an_assertion={
                "grant_type": "client_credentials",
                "client_assertion_type": _ASSERTION_TYPE,
                "client_assertion": _JWT,
            },
            with_a_secret_in_the_body={
                "grant_type": "client_credentials",
                "client_id": _CLIENT,
                "client_secret": "the-secret",
            },
        ),
        "responses": {
            "200": answer(
                "The token.", "Token", example={"access_token": _JWT, "token_type": "Bearer", "expires_in": 900}
            ),
            **oauth_errors(
                _400="The request is wrong: `error` says in what. `invalid_scope` and `invalid_target` also where one token cannot hold "
                "all that was asked for: name a part in `scope` and `audience`.",
                _401="The client did not prove who it is.",
                _405="",
                _413="",
                _429="",
                _503="",
            ),
        },
    }


def _introspect(url: str) -> dict[str, Any]:
    example = curl(
        f"curl --fail-with-body --silent {url}", '--user "$CLIENT_ID:$CLIENT_SECRET"', '--data "token=$TOKEN"'
    )
    return {
        "tags": ["Tokens"],
        "summary": "What is a token worth now?",
        "description": "RFC 7662. A client sees its own tokens, with `introspection: any` in its ClientCredential those of all clients; so "
        "does a caller with a Kubernetes token whom RBAC allows to `introspect` clientcredentials. The answer holds what the token says "
        f"*and its client still has*. Of whatever else the answer says `active: false` and nothing more.{example}",
        "security": _CLIENT_OR_KUBERNETES,
        "requestBody": _form("TokenQuestion", a_token={"token": _JWT}),
        "responses": {
            "200": answer(
                "What it is worth.",
                "Introspection",
                example={"active": True, "token_type": "Bearer", **_CLAIMS},
            ),
            **oauth_errors(_400="", _401="", _403="", _404="", _405="", _413="", _429="", _503=""),
        },
    }


def _revoke(url: str) -> dict[str, Any]:
    example = curl(
        f"curl --fail-with-body --silent {url}", '--user "$CLIENT_ID:$CLIENT_SECRET"', '--data "token=$TOKEN"'
    )
    return {
        "tags": ["Tokens"],
        "summary": "Give a token up",
        "description": "RFC 7009. A client revokes its own tokens; a caller with a Kubernetes token whom RBAC allows to `revoke` "
        "clientcredentials those of all clients. From then on the token is refused everywhere: here at once, by every replica within a "
        f"second. For a token of another client, or none at all, the answer is the same 200, without effect.{example}",
        "security": _CLIENT_OR_KUBERNETES,
        "requestBody": _form("TokenQuestion", a_token={"token": _JWT}),
        "responses": {
            "200": {"description": "The token counts no more, or never did."},
            **oauth_errors(
                _400="",
                _401="",
                _403="",
                _404="",
                _405="",
                _413="",
                _429="Too many wrong secrets, or too many tokens of this client that stand as revoked: see Retry-After.",
                _503="Nothing was revoked. Try again: see Retry-After.",
            ),
        },
    }


def _tokeninfo(url: str) -> dict[str, Any]:
    example = curl(f"curl --fail-with-body --silent {url}", '--header "Authorization: Bearer $TOKEN"')
    refused = answer(
        "The token does not count.",
        "OAuthError",
        example={"error": "invalid_token", "error_description": "the access token has expired"},
    )
    return {
        "tags": ["Tokens"],
        "summary": "What an access token says",
        "description": f"The claims of the token, with the permissions and audiences that its client still has.{example}",
        "security": [{"accessToken": []}],
        "responses": {
            "200": answer("The claims.", "Claims", example=_CLAIMS),
            "401": refused,
            "405": problem("Another method is meant: see Allow."),
            **oauth_errors(_503=""),
        },
    }


def _jwks(url: str) -> dict[str, Any]:
    key = {
        "kty": "EC",
        "crv": "P-256",
        "kid": "2026-01",
        "use": "sig",
        "alg": "ES256",
        "x": "f83OJ3D2…",
        "y": "x_FEzRu9…",
    }
    return {
        "tags": ["Metadata"],
        "summary": "The public keys that verify access tokens",
        "description": "RFC 7517. It may be kept for as long as `Cache-Control` says: a new key stands in it for longer than that before "
        f"it signs.{curl(f'curl --fail-with-body --silent {url}')}",
        "responses": {
            "200": answer("A JWK Set.", "JwkSet", example={"keys": [key]}),
            "405": problem("Another method is meant: see Allow."),
            "503": problem("Not loaded yet: see Retry-After."),
        },
    }


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


def _texts(description: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}, "description": description}


_AUTHENTICATION: Final[dict[str, Any]] = {
    "client_id": _text("The client; needed with `client_secret` and with a pod's token, else optional."),
    "client_secret": _text("Its secret, where its ClientCredential says `client_secret_post`.", format="password"),
    "client_assertion_type": _text("With `client_assertion`.", enum=[_ASSERTION_TYPE]),
    "client_assertion": _text(
        "A JWT signed by a key of the client: `iss` and `sub` its id, `aud` the issuer, `jti`, `exp` (an hour ahead at most), `iat`. "
        "At the token endpoint also a pod's projected ServiceAccount token."
    ),
}
_CLAIM_SCHEMAS: Final[dict[str, Any]] = {
    "iss": _text("The issuer."),
    "sub": _text("The client."),
    "client_id": _text("The client."),
    "aud": _texts("For whom the token is, as far as the client still holds it."),
    "iat": {"type": "integer", "description": "Issued at, in seconds since 1970."},
    "exp": {"type": "integer", "description": "Its end."},
    "jti": _text("Its id."),
    "permissions": _texts("What it allows, as far as the client still has it."),
    "scope": _text("The same, separated by spaces."),
}
SCHEMAS: Final[dict[str, Any]] = {
    "TokenRequest": {
        "type": "object",
        "required": ["grant_type"],
        "properties": {
            "grant_type": _text("The only one there is.", enum=["client_credentials"]),
            **_AUTHENTICATION,
            "token_endpoint_auth_method": _text("Taken as the replaced service does, and not needed."),
            "audience": _texts("For whom the token is to be: some of the client's audiences; may stand several times."),
            "resource": _texts("The same by RFC 8707: absolute URIs."),
            "scope": _text("Narrows the permissions, separated by spaces."),
        },
    },
    "Token": {
        "type": "object",
        "required": ["access_token", "token_type", "expires_in"],
        "properties": {
            "access_token": _text("A JWT (RFC 9068)."),
            "token_type": _text("How it is used.", enum=["Bearer"]),
            "expires_in": {"type": "integer", "description": "Seconds."},
            "scope": _text("Only where the request named one."),
        },
    },
    "TokenQuestion": {
        "type": "object",
        "required": ["token"],
        "properties": {"token": _text("The token in question."), "token_type_hint": _HINT, **_AUTHENTICATION},
    },
    "Introspection": {
        "type": "object",
        "required": ["active"],
        "properties": {
            "active": {"type": "boolean", "description": "Whether it counts, and the caller may see it."},
            "token_type": _text("How it is used.", enum=["Bearer"]),
            **_CLAIM_SCHEMAS,
        },
    },
    "Claims": {"type": "object", "properties": _CLAIM_SCHEMAS},
    "JwkSet": {
        "type": "object",
        "properties": {"keys": {"type": "array", "items": {"type": "object"}}},
    },
    "OAuthError": {
        "type": "object",
        "required": ["error", "error_description"],
        "properties": {
            "error": _text("A code for programs."),
            "error_description": _text("What is wrong, for people."),
        },
    },
}
