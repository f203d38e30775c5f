"""The reference's way of asking: two headers, and the caller's own beside them."""

from typing import Final

from keyturn_api.http import Scope
from keyturn_api.profiles.question import CONTEXT, Question, question, read_joined_fields, required

_URI: Final = b"original-request-uri"
_METHOD: Final = b"original-request-method"
_OWN: Final = (_URI, _METHOD, *CONTEXT)


def original_request(scope: Scope) -> Question:
    """`Original-Request-Uri` and `Original-Request-Method` are required, context headers are read. The host is not known.

    The gateway may be any, Envoy among them.
    """
    fields, several = read_joined_fields(scope, _OWN)
    target, method = required(fields, _URI), required(fields, _METHOD)
    return question(fields, method=method.decode("latin-1"), target=target, host=None, several=several, context=True)
