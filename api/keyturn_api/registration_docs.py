"""The OpenAPI of registration, written for people."""

import json
from typing import Any, Final

from keyturn_api.docs_parts import curl, problem

TAG: Final = {"name": "Registration", "description": "For portals and clients: become a client, and change one's keys."}
_EXAMPLE_KEY: Final = {
    "kty": "EC",
    "crv": "P-256",
    "kid": "2026-01",
    "use": "sig",
    "alg": "ES256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
_INFORMATION: Final = {
    "client_id": "shop.r-0f1e2d3c4b5a69788796a5b4c3d2e1f0",
    "client_id_issued_at": 1_790_000_000,
    "token_endpoint_auth_method": "private_key_jwt",
    "grant_types": ["client_credentials"],
    "response_types": [],
    "client_name": "Orders report",
    "jwks": {"keys": [_EXAMPLE_KEY]},
    "registration_access_token": "ktr_…",
    "registration_client_uri": "https://issuer.example/register/shop.r-0f1e2d3c4b5a69788796a5b4c3d2e1f0",
}


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


def _texts(description: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}, "description": description}


_METADATA: Final[dict[str, Any]] = {
    "client_name": _text("The client's name for people.", maxLength=100),
    "token_endpoint_auth_method": _text(
        "How the client authenticates; `client_secret_basic` where nothing is said.",
        enum=["client_secret_basic", "client_secret_post", "private_key_jwt"],
    ),
    "jwks": {
        "type": "object",
        "description": "The public keys of `private_key_jwt`, as a JWK Set. Several make a change of keys possible without a gap.",
        "properties": {"keys": {"type": "array", "items": {"type": "object"}, "maxItems": 10}},
    },
    "public_key": {
        "type": "object",
        "description": "One JWK in place of `jwks`. Its `alg` may be written `RSA256`; it counts as RS256.",
    },
    "scope": _text("Permissions asked for, separated by spaces. Nothing asked for is granted by it."),
    "audience": {
        "description": "Audiences asked for, one or a list.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    },
    "client_uri": _text("A page about the client.", maxLength=256),
    "contacts": _texts("Whom to ask about the client."),
    "software_id": _text("What names the client's software.", maxLength=64),
    "software_version": _text("Its version.", maxLength=64),
    "grant_types": _texts("If given, with `client_credentials`."),
}
SCHEMAS: Final[dict[str, Any]] = {
    "ClientMetadata": {
        "type": "object",
        "description": "RFC 7591 section 2. Members that are not known here are ignored.",
        "properties": _METADATA,
    },
    "ClientUpdate": {
        "type": "object",
        "description": "RFC 7592 section 2.2: the whole description, not only what changes.",
        "required": ["client_id"],
        "properties": {"client_id": _text("The client's own."), **_METADATA},
    },
    "InternalClient": {
        "type": "object",
        "description": "A client with what it is granted.",
        "properties": {
            **{name: part for name, part in _METADATA.items() if name != "scope"},
            "permissions": _texts("What the client's tokens allow."),
            "audience": {**_METADATA["audience"], "description": "The audiences of its tokens."},
            "allowedCustomClaims": _texts("Claims that its assertions may carry over into its tokens."),
            "__STATE__": _text(
                "`DRAFT` and `TRASH`: the client is made, and suspended.", enum=["PUBLIC", "DRAFT", "TRASH"]
            ),
            "metadata": {
                "type": "object",
                "description": "Free members; they become annotations of the object.",
                "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]},
            },
        },
    },
    "ClientInformation": {
        "type": "object",
        "required": ["client_id", "client_id_issued_at", "token_endpoint_auth_method", "grant_types"],
        "properties": {
            "client_id": _text("The id for the token endpoint."),
            "client_id_issued_at": {"type": "integer", "description": "Seconds since 1970."},
            "client_secret": _text("The client's secret. It is shown this once and kept nowhere."),
            "client_secret_expires_at": {"type": "integer", "description": "0: never."},
            "registration_access_token": _text("The key to `registration_client_uri`. Each update replaces it."),
            "registration_client_uri": _text("Where the client reads, changes and deletes its registration."),
            "response_types": _texts("None."),
            **{name: part for name, part in _METADATA.items() if name not in ("public_key", "audience", "scope")},
            "scope": _text("What the client was granted."),
        },
    },
}
SECURITY_SCHEMES: Final[dict[str, Any]] = {
    "initialAccessToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "An initial access token (RFC 7591); needless in mode `open`.",
    },
    "registrationToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "The `registration_access_token` of this very client.",
    },
    "kubernetesToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "A Kubernetes token for the audience `<issuer>/admin`: `kubectl create token NAME --audience <issuer>/admin`.",
    },
}
COMPONENTS: Final = {"schemas": SCHEMAS, "securitySchemes": SECURITY_SCHEMES}
_DESCRIPTIONS: Final = {
    400: "The request is wrong: `error` says in what.",
    401: "The token is missing or does not count.",
    403: "The caller may not do this.",
    405: "Another method is meant: see Allow.",
    413: "The body is too long.",
    429: "Too many: see Retry-After.",
}
_UNAVAILABLE: Final = "Nothing was done. Try again: see Retry-After."


# What `curl` sends in the commands below; the environment has the rest.
_JSON_BODY: Final = '--header "Content-Type: application/json"'
_MANAGED: Final = ('"$REGISTRATION_CLIENT_URI"', '--header "Authorization: Bearer $REGISTRATION_ACCESS_TOKEN"')


def register_command(url: str) -> str:
    """How to register a client that gets a secret."""
    return _sent(url, "INITIAL_ACCESS_TOKEN", {"client_name": "Orders report", "scope": "orders:read"})


def clients_command(url: str) -> str:
    """How an internal caller makes such a client."""
    made = {"client_name": "Orders report", "permissions": ["orders:read"], "audience": ["orders"]}
    return _sent(url, "KUBERNETES_TOKEN", made)


def read_command() -> str:
    """How a client reads its registration, with what it was told when it was registered."""
    return curl("curl --fail-with-body --silent", *_MANAGED)


def update_command() -> str:
    """How a client changes its description."""
    # What the single quotes leave to the shell is the id alone.
    body = """--data '{"client_id": "'"$CLIENT_ID"'", "client_name": "Monthly orders report"}'"""
    return curl("curl --fail-with-body --silent --request PUT", *_MANAGED, _JSON_BODY, body)


def delete_command() -> str:
    """How a client ends itself."""
    return curl("curl --fail-with-body --silent --request DELETE", *_MANAGED)


def _sent(url: str, token: str, body: dict[str, Any]) -> str:
    return curl(
        f"curl --fail-with-body --silent {url}",
        f'--header "Authorization: Bearer ${token}"',
        _JSON_BODY,
        f"--data '{json.dumps(body)}'",
    )


def errors(*statuses: int, unavailable: str = _UNAVAILABLE) -> dict[int | str, dict[str, Any]]:
    """Documented refusals. `unavailable`: what a 503 says of what was done."""
    schema = {"$ref": "#/components/schemas/OAuthError"}
    described = {status: _DESCRIPTIONS[status] for status in statuses}
    described |= {500: "An unexpected failure; `error_description` names its id in the log.", 503: unavailable}
    return {
        status: {"description": text, "content": {"application/json": {"schema": schema}}}
        for status, text in sorted(described.items())
    }


def no_such_client_path() -> dict[int | str, dict[str, Any]]:
    """The answer where the path's last part holds a slash, which no client id has."""
    return {404: problem("No such endpoint: the path names no client.")}


def information(description: str) -> dict[str, Any]:
    """An answer with a client's information."""
    schema = {"$ref": "#/components/schemas/ClientInformation"}
    return {"description": description, "content": {"application/json": {"schema": schema, "example": _INFORMATION}}}


def body(schema: str, examples: dict[str, Any]) -> dict[str, Any]:
    """A JSON request body with examples that can be sent as they are."""
    content = {
        "schema": {"$ref": f"#/components/schemas/{schema}"},
        "examples": {name: {"summary": name, "value": value} for name, value in examples.items()},
    }
    return {"required": True, "content": {"application/json": content}}


REGISTER_EXAMPLES: Final = {
    "A public key": {
        "client_name": "Orders report",
        "token_endpoint_auth_method": "private_key_jwt",
        "jwks": {"keys": [_EXAMPLE_KEY]},
        "scope": "orders:read",
    },
    "A secret": {"client_name": "Orders report", "token_endpoint_auth_method": "client_secret_basic"},
}
CLIENTS_EXAMPLES: Final = {
    "A public key": {
        "client_name": "Orders report",
        "token_endpoint_auth_method": "private_key_jwt",
        "public_key": _EXAMPLE_KEY,
        "permissions": ["orders:read"],
        "audience": ["orders"],
        "__STATE__": "PUBLIC",
        "metadata": {"team": "shop"},
    }
}
UPDATE_EXAMPLES: Final = {
    "Another key": {
        "client_id": _INFORMATION["client_id"],
        "client_name": "Orders report",
        "jwks": {"keys": [_EXAMPLE_KEY]},
    }
}
