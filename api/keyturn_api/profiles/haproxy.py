"""HAProxy with the Lua script that is shipped with its configuration."""

from typing import Final

from keyturn_api.http import Scope
from keyturn_api.profiles.question import CONTEXT, Profile, Question, question, read_fields, required

_METHOD: Final = b"x-original-method"
_URI: Final = b"x-original-uri"
_HOST: Final = b"x-original-host"
_OWN: Final = (_METHOD, _URI, _HOST)


def haproxy(*, context_headers: bool = False) -> Profile:
    """`X-Original-Method`, `X-Original-Uri` and `X-Original-Host`: the script sends these and the credentials, nothing else.

    A request without Host (HTTP/1.0) has no `X-Original-Host`: then rules of all hosts must allow it.
    """
    own = (*_OWN, *CONTEXT) if context_headers else _OWN

    def read(scope: Scope) -> Question:
        fields, several = read_fields(scope, own)
        return question(
            fields,
            method=required(fields, _METHOD).decode("latin-1"),
            target=required(fields, _URI),
            host=fields.get(_HOST),
            several=several,
            context=context_headers,
        )

    return read
