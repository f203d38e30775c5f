"""Traefik's forwardAuth and Caddy's forward_auth: three `X-Forwarded-…` headers that the gateway writes over the caller's."""

from typing import Final

from keyturn_api.http import Scope
from keyturn_api.profiles.question import CONTEXT, Profile, Question, question, read_fields, required

_METHOD: Final = b"x-forwarded-method"
_URI: Final = b"x-forwarded-uri"
_HOST: Final = b"x-forwarded-host"
_OWN: Final = (_METHOD, _URI, _HOST)


def forwarded(*, context_headers: bool = False) -> Profile:
    """`X-Forwarded-Method`, `X-Forwarded-Uri` and `X-Forwarded-Host` are required: both gateways send all three.

    Only a gateway that is told to trust what it receives (Traefik's `trustForwardHeader`, Caddy's `trusted_proxies`) hands on
    a caller's.
    """
    own = (*_OWN, *CONTEXT) if context_headers else _OWN

    def read(scope: Scope) -> Question:
        fields, several = read_fields(scope, own)
        return question(
            fields,
            method=required(fields, _METHOD).decode("latin-1"),
            target=required(fields, _URI),
            host=required(fields, _HOST),
            several=several,
            context=context_headers,
        )

    return read
