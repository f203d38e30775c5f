"""Pieces of OpenAPI that several endpoints' documentation is made of."""

from typing import Any


def answer(description: str, schema: str | None = None, *, example: Any = None) -> dict[str, Any]:
    """An answer in JSON."""
    media: dict[str, Any] = {}
    if schema is not None:
        media["schema"] = {"$ref": f"#/components/schemas/{schema}"}
    if example is not None:
        media["example"] = example
    return {"description": description, "content": {"application/json": media}}


def oauth_errors(**texts: str) -> dict[str, Any]:
    """Refusals by RFC 6749 section 5.2, by `_status`, with the usual text where none is given."""
    answers = {}
    for name, text in texts.items():
        status = name.removeprefix("_")
        code, description, usual = _OAUTH[status]
        example = {"error": code, "error_description": description}
        answers[status] = answer(text or usual, "OAuthError", example=example)
    return answers


def problem(description: str) -> dict[str, Any]:
    """A refusal by RFC 9457."""
    return {
        "description": description,
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def curl(*lines: str) -> str:
    """A command that can be run as it stands, as Markdown."""
    return "\n\n```sh\n" + " \\\n  ".join(lines) + "\n```"


_OAUTH = {
    "400": ("invalid_request", "grant_type is missing", "The request is wrong: `error` says in what."),
    "401": ("invalid_client", "client id and secret do not fit", "The caller did not prove who it is."),
    "403": ("access_denied", "not allowed to do this in this namespace", "RBAC does not allow it."),
    "404": (
        "invalid_request",
        "no such endpoint: this installation has no administration by tokens",
        "A Kubernetes token was sent, and this installation has no administration by tokens.",
    ),
    "405": ("invalid_request", "use POST", "Another method is meant: see Allow."),
    "413": ("invalid_request", "the body must not exceed 65536 bytes", "The body is too long."),
    "429": ("slow_down", "too many wrong secrets, try again later", "Too many wrong secrets: see Retry-After."),
    "503": ("temporarily_unavailable", "the store does not answer", "Try again: see Retry-After."),
}
