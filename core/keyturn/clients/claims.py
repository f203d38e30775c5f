"""Which claims a client's assertion may carry over into its tokens, and which it never may."""

import re
from collections.abc import Collection
from typing import Final

# A client that could set one of these would speak in the issuer's name.
RESERVED_CLAIMS: Final = frozenset(
    {
        # RFC 7519 section 4.1
        *("iss", "sub", "aud", "exp", "nbf", "iat", "jti"),
        # RFC 9068 section 2.2
        *("client_id", "auth_time", "acr", "amr", "scope", "groups", "roles", "entitlements"),
        # RFC 7662 section 2.2
        *("active", "username", "token_type"),
        # RFC 8693 section 4
        *("act", "may_act"),
        # RFC 7800 section 3.1
        "cnf",
        # What the authorization decision reads
        *("permissions", "userProperties", "clientType", "isBackoffice"),
    }
)

MAX_LENGTH: Final = 128

_FORM: Final = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)


def is_claim_name(value: object) -> bool:
    """Whether this can name a claim: 1 to 128 visible ASCII characters."""
    return isinstance(value, str) and _FORM.fullmatch(value) is not None


def is_reserved(name: str, also: Collection[str] = ()) -> bool:
    """Whether no client may set this claim; `also` are the names that the installation's settings give to permissions and user id."""
    return name in RESERVED_CLAIMS or name in also
