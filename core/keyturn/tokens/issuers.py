"""The issuers of users' tokens that an installation trusts, as its file lists them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from keyturn.jose.algorithms import ALGORITHMS

MAX_ISSUERS: Final = 50
MAX_NAMES: Final = 50
MAX_STEPS: Final = 5
# RFC 9068 section 2.1
ACCESS_TOKEN: Final = "at+jwt"

_MEMBERS: Final = ("issuer", "audiences", "algorithms", "jwksUri", "tokenTypes", "claims")
_CLAIMS: Final = ("userId", "groups", "permissions", "userProperties")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]{1,512}")

ClaimPath = tuple[str, ...]


class InvalidIssuers(ValueError):
    """The list of issuers cannot be used as it stands; the text names the place and never quotes a value."""


@dataclass(frozen=True, slots=True)
class ClaimMapping:
    """Which claim says what. A path leads into objects: `("realm_access", "roles")`. None: no claim says it."""

    user_id: ClaimPath = ("sub",)
    groups: ClaimPath | None = None
    permissions: ClaimPath | None = None
    user_properties: ClaimPath | None = None


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """One issuer. `token_types` are in lower case, without `application/`; without `jwks_uri` its discovery document names it."""

    issuer: str
    audiences: frozenset[str]
    algorithms: frozenset[str]
    jwks_uri: str | None = None
    token_types: frozenset[str] = frozenset({ACCESS_TOKEN})
    claims: ClaimMapping = ClaimMapping()

    @property
    def discovery_url(self) -> str:
        """OpenID Connect Discovery 1.0 section 4."""
        return f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"


def parse_issuers(document: Any, *, own_issuer: str) -> tuple[TrustedIssuer, ...]:
    """The issuers of `{issuers: [...]}`. Raises InvalidIssuers: one that cannot be read is not passed over."""
    if not isinstance(document, Mapping) or set(document) != {"issuers"} or not isinstance(document["issuers"], list):
        raise InvalidIssuers("the document must be an object with the one member issuers, a list")
    listed = document["issuers"]
    if len(listed) > MAX_ISSUERS:
        raise InvalidIssuers(f"issuers: at most {MAX_ISSUERS}")
    found: dict[str, TrustedIssuer] = {}
    for index, value in enumerate(listed):
        parsed = _issuer(value, f"issuers[{index}]")
        if parsed.issuer == own_issuer:
            raise InvalidIssuers(f"issuers[{index}].issuer: this is the installation's own")
        if parsed.issuer in found:
            raise InvalidIssuers(f"issuers[{index}].issuer: it stands twice")
        found[parsed.issuer] = parsed
    return tuple(found.values())


def _issuer(value: Any, field: str) -> TrustedIssuer:
    if not isinstance(value, Mapping):
        raise InvalidIssuers(f"{field}: must be an object")
    for member in value:
        if member not in _MEMBERS:
            raise InvalidIssuers(f"{field}: {str(member)[:64]} is not known; the members are {', '.join(_MEMBERS)}")
    issuer = _url(value.get("issuer"), f"{field}.issuer")
    jwks_uri = value.get("jwksUri")
    if jwks_uri is not None:
        jwks_uri = _url(jwks_uri, f"{field}.jwksUri")
        check_secure(jwks_uri, issuer, f"{field}.jwksUri")
    algorithms = _names(value.get("algorithms"), f"{field}.algorithms")
    if not algorithms <= ALGORITHMS:
        # RFC 8725 section 3.1: symmetric ones and `none` are not among them.
        raise InvalidIssuers(f"{field}.algorithms: only {', '.join(sorted(ALGORITHMS))}")
    types = value.get("tokenTypes", [ACCESS_TOKEN])
    return TrustedIssuer(
        issuer=issuer,
        audiences=_names(value.get("audiences"), f"{field}.audiences"),
        algorithms=algorithms,
        jwks_uri=jwks_uri,
        token_types=frozenset(token_type(name) for name in _names(types, f"{field}.tokenTypes")),
        claims=_mapping(value.get("claims", {}), f"{field}.claims"),
    )


def token_type(text: str) -> str:
    """A `typ` in the form in which it is compared (RFC 7515 section 4.1.9)."""
    return text.lower().removeprefix("application/")


def check_secure(url: str, issuer: str, field: str) -> None:
    """Keys come by https; by http only where the issuer itself is named so, for tests and networks encrypted below."""
    if urlsplit(url).scheme != "https" and urlsplit(issuer).scheme == "https":
        raise InvalidIssuers(f"{field}: must be https")


def _mapping(value: Any, field: str) -> ClaimMapping:
    if not isinstance(value, Mapping):
        raise InvalidIssuers(f"{field}: must be an object")
    for member in value:
        if member not in _CLAIMS:
            raise InvalidIssuers(f"{field}: {str(member)[:64]} is not known; the members are {', '.join(_CLAIMS)}")
    paths = {name: _path(value[name], f"{field}.{name}") for name in _CLAIMS if value.get(name) is not None}
    return ClaimMapping(
        user_id=paths.get("userId", ("sub",)),
        groups=paths.get("groups"),
        permissions=paths.get("permissions"),
        user_properties=paths.get("userProperties"),
    )


def _path(value: Any, field: str) -> ClaimPath:
    """A claim's name as it is, dots and all, or a list of names that leads into objects."""
    steps = value if isinstance(value, list) else [value]
    if not 1 <= len(steps) <= MAX_STEPS or not all(isinstance(step, str) and 0 < len(step) <= 256 for step in steps):
        raise InvalidIssuers(f"{field}: must be a claim's name, or a list of 1 to {MAX_STEPS} names")
    return tuple(steps)


def _names(value: Any, field: str) -> frozenset[str]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_NAMES:
        raise InvalidIssuers(f"{field}: must be a list of 1 to {MAX_NAMES} texts")
    if not all(isinstance(name, str) and _VISIBLE.fullmatch(name) for name in value):
        raise InvalidIssuers(f"{field}: must hold texts of 1 to 512 visible ASCII characters")
    return frozenset(value)


def _url(value: Any, field: str) -> str:
    if not isinstance(value, str) or not _VISIBLE.fullmatch(value):
        raise InvalidIssuers(f"{field}: must be an https URL")
    try:
        parts = urlsplit(value)
        host = parts.hostname
    except ValueError:
        raise InvalidIssuers(f"{field}: must be an https URL") from None
    if parts.scheme not in ("https", "http") or not host or parts.fragment or parts.username is not None:
        raise InvalidIssuers(f"{field}: must be an https URL without user and fragment")
    return value
