"""The OpenAPI of decisions and explanations, written for people."""

from typing import Any, Final

from keyturn_api.docs_parts import answer, curl, problem

TAG: Final = {"name": "Gateway", "description": "For API gateways: may this request pass? And for people: why not?"}


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
        "401": {
            **problem("An access token is needed, or the one given does not count."),
            "headers": {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "RFC 6750 section 3."}},
        },
        "403": problem("No route covers the request, or the permissions do not suffice."),
        "503": problem("No decision can be made now."),
    }


def paths(base_url: str, header_prefix: str) -> dict[str, Any]:
    """The path items, without the service prefix."""
    decide = curl(
        f"curl --fail-with-body --silent --include {base_url}/auth",
        '--header "Original-Request-Method: GET"',
        '--header "Original-Request-Uri: /orders"',
        '--header "Authorization: Bearer $TOKEN"',
    )
    explain = curl(
        f"curl --fail-with-body --silent {base_url}/explain",
        '--header "Authorization: Bearer $KUBERNETES_TOKEN"',
        '--header "Content-Type: application/json"',
        """--data '{"method": "GET", "url": "/orders", "anonymous": true}'""",
    )
    return {
        "/auth": {
            "get": {
                "tags": ["Gateway"],
                "summary": "May this request pass?",
                "description": "For API gateways, with any method, also as `/auth/` and whatever follows. The gateway's profile says "
                "how the request in question is told: by `Original-Request-Uri` and `Original-Request-Method`, or by path and method."
                f"{decide}",
                "security": [{"accessToken": []}, {}],
                "parameters": [
                    {
                        "name": name,
                        "in": "header",
                        "required": False,
                        "schema": {"type": "string"},
                        "description": text,
                        "example": example,
                    }
                    for name, text, example in (
                        (
                            "Original-Request-Uri",
                            "Path and query of the request; required by profile original-request.",
                            "/orders?page=2",
                        ),
                        ("Original-Request-Method", "Its method; required by profile original-request.", "GET"),
                        ("isbackoffice", "`1`: the route's backoffice part decides.", "0"),
                        ("Client-Type", "What expressions call `clientType`.", "mobile"),
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
                "Kubernetes token for the audience `<issuer>/admin`. Either a request with its caller, or the `requestId` of a denial."
                f"{explain}",
                "security": [{"kubernetesToken": []}],
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {"$ref": "#/components/schemas/ExplainRequest"},
                            "examples": {
                                "a request": {
                                    "value": {"method": "GET", "url": "/orders", "client": "shop.orders-report"}
                                },
                                "a denial": {"value": {"requestId": "2f1c9a0b7d3e4f56"}},
                            },
                        }
                    },
                },
                "responses": {
                    "200": answer(
                        "The decision, what led to it, and who has what is missing; or the denials with this id."
                    ),
                    "400": problem("The question cannot be read."),
                    "401": problem("A Kubernetes token for this service is needed."),
                    "403": problem("RBAC does not allow it."),
                    "404": problem("No such client or denial; or the installation has no administration by tokens."),
                    "405": problem("Use POST."),
                    "413": problem("The body is too long."),
                    "429": problem("Too many tokens were refused by Kubernetes: see Retry-After."),
                    "503": problem("Kubernetes or the store does not answer."),
                },
            }
        },
    }


SCHEMAS: Final[dict[str, Any]] = {
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
}
