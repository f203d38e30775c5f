"""The OpenAPI document: what the framework knows of, and beside it the paths that are served without it."""

from typing import Any, Final

from keyturn_api import gateway_docs, registration_docs, token_docs
from keyturn_api.docs_parts import problem

PROBES_TAG: Final = {"name": "Probes", "description": "For Kubernetes and load balancers."}
TAGS: Final = (token_docs.TAG, registration_docs.TAG, gateway_docs.TAG, token_docs.METADATA_TAG, PROBES_TAG)
DESCRIPTION: Final = """Each operation shows how to call it with curl. The examples take from the environment what is yours:
`CLIENT_ID` and `CLIENT_SECRET`, or a signed `ASSERTION` (`keyturn token --help` makes one from a private key), and the
`TOKEN` that the service gave for it. Registering takes an `INITIAL_ACCESS_TOKEN`; its answer has the `REGISTRATION_CLIENT_URI`
and the `REGISTRATION_ACCESS_TOKEN`. What people and internal callers may do takes a `KUBERNETES_TOKEN`
(`kubectl create token NAME --audience <issuer>/admin`).
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
    for item in schema["paths"].values():
        for operation in item.values():
            _add_limits(operation["responses"])
    components = schema.setdefault("components", {})
    for kind, members in (
        ("securitySchemes", {**SECURITY_SCHEMES, **registration_docs.SECURITY_SCHEMES}),
        ("schemas", {**token_docs.SCHEMAS, **gateway_docs.SCHEMAS, **registration_docs.SCHEMAS}),
    ):
        components[kind] = {**components.get(kind, {}), **members}
    return schema


def _add_limits(answers: dict[str, Any]) -> None:
    """What every operation may answer before it is reached; a body that takes too long is refused in the operation's own form."""
    slow = problem("The request took too long to arrive: 10 seconds for its header fields.")
    if "413" in answers:
        slow["description"] = (
            "The request took too long to arrive: 10 seconds for its header fields, and as long for its body."
        )
        slow["content"] |= {kind: {"schema": media["schema"]} for kind, media in answers["413"]["content"].items()}
    answers["408"] = slow
    # RFC 6585 section 5
    answers["431"] = problem(
        "A header field has more than 16 KiB, or target and fields together have more than 32 KiB."
    )
