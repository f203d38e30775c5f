"""nginx's auth_request, and ingress-nginx, which uses it: the whole URL in one header."""

import re
from typing import Final

from keyturn_api.http import Scope
from keyturn_api.profiles.question import CONTEXT, Profile, Question, Unreadable, question, read_fields, required

_URL: Final = b"x-original-url"
_METHOD: Final = b"x-original-method"
# nginx lets a Host such as `a?b` or `a#b` through, and puts it in front of the path: whatever could move the place where the
# path begins is refused, as is user information.
_PARTS: Final = re.compile(rb"https?://([^/?#@\\\s]+)(/.*)", re.DOTALL)


def nginx(*, context_headers: bool = False) -> Profile:
    """`X-Original-URL` (scheme, host and the target as it was sent) and `X-Original-Method` are required."""
    own = (_URL, _METHOD, *CONTEXT) if context_headers else (_URL, _METHOD)

    def read(scope: Scope) -> Question:
        fields, several = read_fields(scope, own)
        method = required(fields, _METHOD).decode("latin-1")
        parts = _PARTS.fullmatch(required(fields, _URL))
        if parts is None:
            raise Unreadable("x-original-url is no URL with host and path")
        host, target = parts.groups()
        return question(fields, method=method, target=target, host=host, several=several, context=context_headers)

    return read
