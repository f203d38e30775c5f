"""Envoy's external authorization by gRPC: the question comes as a message, which `keyturn_api.envoy_grpc` lays out as a scope."""

from typing import Final

from keyturn_api.http import Scope
from keyturn_api.http_protocol import TARGET
from keyturn_api.profiles.question import CONTEXT, Profile, Question, Unreadable, question, read_joined_fields

# The member of the scope that holds the request's host (`:authority`), empty where there is none. No HTTP request has it.
AUTHORITY: Final = "keyturn.authority"


def envoy_grpc(*, context_headers: bool = False) -> Profile:
    """Method, target and host are the message's own members; a question over HTTP is refused."""
    own = CONTEXT if context_headers else ()

    def read(scope: Scope) -> Question:
        authority = scope.get(AUTHORITY)
        if authority is None:
            raise Unreadable("under this profile the gateway asks by gRPC, on a port of its own")
        if not scope["method"] or not scope[TARGET]:
            raise Unreadable("the message holds no HTTP request with method and path")
        fields, several = read_joined_fields(scope, own)
        for name in own:
            if b"," in fields.get(name, b""):
                raise Unreadable(f"{name.decode()} stands twice")
        host = authority or None
        return question(
            fields, method=scope["method"], target=scope[TARGET], host=host, several=several, context=context_headers
        )

    return read
