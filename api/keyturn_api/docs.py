"""The OpenAPI of the paths that are served without the framework, written for people."""

from typing import Any, Final

_BEARER: Final[list[dict[str, list[str]]]] = [{"accessToken": []}]


def _json(description: str, schema: str | None = None) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}} if schema else {}
    return {"description": description, "content": content}


def _problem(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _authorization(prefix: str) -> dict[str, Any]:
    allowed = {f"{prefix}allowed": {"schema": {"type": "string"}, "description": "`1`"}}
    for name, meaning in (
        ("userid", "The user, or the client where no source of users is configured."),
        ("clientid", "The client of the access token."),
        ("groups", "The user's groups."),
        ("userproperties", "The user's properties."),
    ):
        allowed[f"{prefix}{name}"] = {"schema": {"type": "string"}, "description": f"{meaning} Empty without identity."}
    return {
        "200": {"description": "The request may pass: allowed, or a public route.", "headers": allowed},
        "401": _problem("An access token is needed, or the one given does not count."),
        "403": _problem("No route covers the request, or the permissions do not suffice."),
        "503": _problem("No decision can be made now."),
    }


def paths(header_prefix: str) -> dict[str, Any]:
    """The path items, without the service prefix."""
    return {
        "/oauth/token": {
            "post": {
                "tags": ["Tokens"],
                "summary": "Get an access token",
                "description": "Client credentials (RFC 6749 section 4.4). A client proves itself by an assertion that it signed "
                "(`private_key_jwt`, RFC 7523), or by its secret in Basic. Each assertion counts once.",
                "security": [{"clientSecret": []}, {}],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/x-www-form-urlencoded": {"schema": {"$ref": "#/components/schemas/TokenRequest"}}
                    },
                },
                "responses": {
                    "200": _json("The token.", "Token"),
                    "400": _json("The request is wrong: `error` says in what.", "OAuthError"),
                    "401": _json("The client did not prove who it is.", "OAuthError"),
                    "413": _json("The body is too long.", "OAuthError"),
                    "429": _json("Too many wrong secrets: see Retry-After.", "OAuthError"),
                    "503": _json("Try again: see Retry-After.", "OAuthError"),
                },
            }
        },
        "/tokeninfo": {
            "get": {
                "tags": ["Tokens"],
                "summary": "What an access token says",
                "description": "The claims of the token, with the permissions and audiences that its client still has.",
                "security": _BEARER,
                "responses": {
                    "200": _json("The claims.", "Claims"),
                    "401": _json("The token does not count.", "OAuthError"),
                    "503": _json("Try again: see Retry-After.", "OAuthError"),
                },
            }
        },
        "/.well-known/jwks.json": {
            "get": {
                "tags": ["Metadata"],
                "summary": "The public keys that verify access tokens",
                "responses": {"200": _json("A JWK Set (RFC 7517).", "JwkSet"), "503": _problem("Not loaded yet.")},
            }
        },
        "/auth": {
            "get": {
                "tags": ["Gateway"],
                "summary": "May this request pass?",
                "description": "For API gateways, with any method, also as `/auth/` and whatever follows. The gateway's profile says "
                "how the request in question is told: by `Original-Request-Uri` and `Original-Request-Method`, or by path and method.",
                "security": [*_BEARER, {}],
                "parameters": [
                    {
                        "name": name,
                        "in": "header",
                        "required": False,
                        "schema": {"type": "string"},
                        "description": text,
                    }
                    for name, text in (
                        (
                            "Original-Request-Uri",
                            "Path and query of the request; required by profile original-request.",
                        ),
                        ("Original-Request-Method", "Its method; required by profile original-request."),
                        ("isbackoffice", "`1`: the route's backoffice part decides."),
                        ("Client-Type", "What expressions call `clientType`."),
                    )
                ],
                "responses": _authorization(header_prefix),
            }
        },
        "/explain": {
            "post": {
                "tags": ["Gateway"],
                "summary": "Why is a request decided as it is, or why was one denied?",
                "description": "For whom Kubernetes allows to `explain` clientcredentials in the installation's namespace: Bearer is a "
                "Kubernetes token for the audience `<issuer>/admin`. Either a request with its caller, or the `requestId` of a denial.",
                "security": [{"kubernetesToken": []}],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ExplainRequest"}}},
                },
                "responses": {
                    "200": _json(
                        "The decision, what led to it, and who has what is missing; or the denials with this id."
                    ),
                    "400": _problem("The question cannot be read."),
                    "401": _problem("A Kubernetes token for this service is needed."),
                    "403": _problem("RBAC does not allow it."),
                    "404": _problem("No such client or denial; or the installation has no administration by tokens."),
                    "405": _problem("Use POST."),
                    "413": _problem("The body is too long."),
                    "503": _problem("Kubernetes or the store does not answer."),
                },
            }
        },
    }


COMPONENTS: Final[dict[str, Any]] = {
    "securitySchemes": {
        "accessToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "clientSecret": {"type": "http", "scheme": "basic"},
        "kubernetesToken": {"type": "http", "scheme": "bearer", "bearerFormat": "Kubernetes token"},
    },
    "schemas": {
        "TokenRequest": {
            "type": "object",
            "required": ["grant_type"],
            "properties": {
                "grant_type": {"type": "string", "enum": ["client_credentials"]},
                "client_assertion_type": {
                    "type": "string",
                    "enum": ["urn:ietf:params:oauth:client-assertion-type:jwt-bearer"],
                },
                "client_assertion": {
                    "type": "string",
                    "description": "A JWT signed by a key of the client, or a pod's projected ServiceAccount token.",
                },
                "client_id": {
                    "type": "string",
                    "description": "Optional; the assertion's `sub`. Required with a pod's token.",
                },
                "audience": {"type": "array", "items": {"type": "string"}, "description": "May stand several times."},
                "resource": {"type": "array", "items": {"type": "string"}, "description": "RFC 8707."},
                "scope": {"type": "string", "description": "Narrows the permissions, separated by spaces."},
            },
        },
        "Token": {
            "type": "object",
            "required": ["access_token", "token_type", "expires_in"],
            "properties": {
                "access_token": {"type": "string"},
                "token_type": {"type": "string", "enum": ["Bearer"]},
                "expires_in": {"type": "integer", "description": "Seconds."},
                "scope": {"type": "string", "description": "Only where the request named one."},
            },
        },
        "OAuthError": {
            "type": "object",
            "required": ["error", "error_description"],
            "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
        },
        "ExplainRequest": {
            "type": "object",
            "properties": {
                "method": {"type": "string", "description": "The request's method."},
                "url": {"type": "string", "description": "Its URL, or its path where the host is not known."},
                "client": {
                    "type": "string",
                    "description": "The caller: a client id, or the name of a ClientCredential.",
                },
                "namespace": {
                    "type": "string",
                    "description": "That of the ClientCredential; by default the installation's.",
                },
                "token": {"type": "string", "description": "Or the caller by an access token."},
                "anonymous": {"type": "boolean", "description": "Or nobody."},
                **{
                    name: {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": f"Or a caller with these {name}.",
                    }
                    for name in ("permissions", "groups", "audiences")
                },
                "userProperties": {"type": "object", "description": "The properties of such a caller."},
                "backoffice": {"type": "boolean", "description": "The gateway says `isbackoffice: 1`."},
                "clientType": {"type": "string", "description": "What the gateway says in `Client-Type`."},
                "requestId": {"type": "string", "description": "Alone: the id of a denial."},
            },
        },
        "Problem": {
            "type": "object",
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "id": {"type": "string", "description": "Stands in the log too."},
            },
        },
        "Claims": {
            "type": "object",
            "properties": {
                "iss": {"type": "string"},
                "sub": {"type": "string"},
                "client_id": {"type": "string"},
                "aud": {"type": "array", "items": {"type": "string"}},
                "iat": {"type": "integer"},
                "exp": {"type": "integer"},
                "jti": {"type": "string"},
                "permissions": {"type": "array", "items": {"type": "string"}},
                "scope": {"type": "string"},
            },
        },
        "JwkSet": {
            "type": "object",
            "properties": {"keys": {"type": "array", "items": {"type": "object"}}},
        },
    },
}
