"""The OpenAPI document: what the framework knows of, and beside it the paths that are served without it."""

from typing import Any, Final

from keyturn_api import gateway_docs, registration_docs, token_docs

PROBES_TAG: Final = {"name": "Probes", "description": "For Kubernetes and load balancers."}
TAGS: Final = (token_docs.TAG, registration_docs.TAG, gateway_docs.TAG, token_docs.METADATA_TAG, PROBES_TAG)
DESCRIPTION: Final = """Each operation shows how to call it with curl. The examples take from the environment what is yours:
`CLIENT_ID` and `CLIENT_SECRET`, or a signed `ASSERTION` (`keyturn token --help` makes one from a private key), and the
`TOKEN` that the service gave for it.
"""
SECURITY_SCHEMES: Final[dict[str, Any]] = {
    "accessToken": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token of this service.",
    },
    "clientSecret": {
        "type": "http",
        "scheme": "basic",
        "description": "Client id and secret, each form-encoded before (RFC 6749 section 2.3.1). Those that Keyturn makes need none.",
    },
}


def add(schema: dict[str, Any], *, prefix: str, base_url: str, header_prefix: str) -> dict[str, Any]:
    """The framework's own document with all else in front of it."""
    others = {**token_docs.paths(base_url), **gateway_docs.paths(base_url, header_prefix)}
    schema["paths"] = {**{f"{prefix}{path}": item for path, item in others.items()}, **schema["paths"]}
    components = schema.setdefault("components", {})
    for kind, members in (
        ("securitySchemes", {**SECURITY_SCHEMES, **registration_docs.SECURITY_SCHEMES}),
        ("schemas", {**token_docs.SCHEMAS, **gateway_docs.SCHEMAS, **registration_docs.SCHEMAS}),
    ):
        components[kind] = {**components.get(kind, {}), **members}
    return schema
