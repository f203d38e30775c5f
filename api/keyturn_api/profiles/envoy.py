"""Envoy's external authorization over HTTP: the check is the request itself, with `/auth` in front of its path."""

from typing import Final

from keyturn_api.http import Scope
from keyturn_api.http_protocol import TARGET
from keyturn_api.profiles.question import CONTEXT, Profile, Question, question, read_joined_fields

AUTH_PATH: Final = b"/auth"
_HOST: Final = b"host"


def envoy(prefix: bytes = b"", *, context_headers: bool = False) -> Profile:
    """Method, host and path are the check's own. Envoy sends its own notion of them, so no header can contradict it."""
    start = len(prefix + AUTH_PATH)
    own = (_HOST, *CONTEXT) if context_headers else (_HOST,)

    def read(scope: Scope) -> Question:
        fields, several = read_joined_fields(scope, own)
        target: bytes = scope.get(TARGET, b"")
        if not target.startswith(b"/"):
            # The absolute form, or a server that hands over no target.
            query = scope["query_string"]
            target = scope["raw_path"] + (b"?" + query if query else b"")
        target = target[start:]
        if not target.startswith(b"/"):
            target = b"/" + target
        host = fields.get(_HOST)
        return question(
            fields, method=scope["method"], target=target, host=host, several=several, context=context_headers
        )

    return read
