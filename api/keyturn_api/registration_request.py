"""What a client asks to be registered as: RFC 7591 section 2, read strictly where it counts; what is not known is ignored."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from keyturn.clients.claims import is_claim_name, is_reserved
from keyturn.clients.state import AUTH_METHODS, CLIENT_SECRET_BASIC, PRIVATE_KEY_JWT
from keyturn.jose.keys import KeyRejected, parse_jwk
from keyturn.jose.strict_json import InvalidJson, parse_object
from keyturn_api.errors import ApiError, invalid_request
from keyturn_api.token_endpoint import GRANT_TYPE

# RFC 7591 section 3.2.2
INVALID_CLIENT_METADATA: Final = "invalid_client_metadata"
_JSON: Final = b"application/json"

# The limits are those of the ClientCredential's schema.
_MAX_KEYS: Final = 10
_KID: Final = re.compile(r"[ !#-\[\]-~]{1,128}", re.ASCII)
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f]{1,100}")
_MAX_CONTACTS: Final = 4
_URI: Final = re.compile(r"[!#-\[\]-~]{1,256}", re.ASCII)
_SOFTWARE: Final = re.compile(r"[ !#-\[\]-~]{1,64}", re.ASCII)
# RFC 6749 appendix A.4
_TOKEN: Final = re.compile(r"[!#-\[\]-~]{1,256}", re.ASCII)

# __STATE__ of the replaced service, and whether such a client is suspended.
_STATES: Final[Mapping[str, bool]] = {"PUBLIC": False, "DRAFT": True, "TRASH": True}
_METADATA_KEY: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)
_MAX_METADATA: Final = 32
_MAX_METADATA_VALUE: Final = 1024


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many values, and how many characters in all."""

    items: int
    characters: int


ASKED_PERMISSIONS: Final = Bounds(32, 1024)
ASKED_AUDIENCES: Final = Bounds(4, 1024)
GRANTED_PERMISSIONS: Final = Bounds(512, 10_240)
GRANTED_AUDIENCES: Final = Bounds(16, 4096)
_CLAIMS: Final = Bounds(16, 2048)


@dataclass(frozen=True, slots=True)
class ClientMetadata:
    """A client as it describes itself. `keys`: JWKs in our own normal form, public members alone. `described`: members for people."""

    auth_method: str
    keys: tuple[Mapping[str, str], ...] = ()
    described: Mapping[str, Any] = field(default_factory=dict)
    permissions: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InternalClient:
    """What only internal callers may say of a client, beside its own metadata."""

    client: ClientMetadata
    custom_claims: tuple[str, ...] = ()
    suspended: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)


def parse_json(body: bytes, content_type: bytes | None) -> Mapping[str, Any]:
    """The members of a request that have a value. Raises `ApiError` invalid_request."""
    if content_type is None or content_type.partition(b";")[0].strip().lower() != _JSON:
        raise invalid_request("Content-Type must be application/json")
    try:
        return {name: value for name, value in parse_object(body).items() if value is not None}
    except InvalidJson as error:
        raise invalid_request(f"the body cannot be read: {error}") from None


def parse_registration(given: Mapping[str, Any]) -> ClientMetadata:
    """A registration as anybody may send it. Raises `ApiError` invalid_client_metadata, which repeats no value."""
    return _client(given, ASKED_PERMISSIONS, ASKED_AUDIENCES)


def parse_update(given: Mapping[str, Any], *, auth_method: str) -> ClientMetadata:
    """An update of a client that authenticates like this, which no update changes (RFC 7592 section 2.2). Raises `ApiError`."""
    asked = given.get("token_endpoint_auth_method", auth_method)
    if asked != auth_method:
        raise invalid_metadata("token_endpoint_auth_method cannot be changed: register another client")
    return _client({**given, "token_endpoint_auth_method": auth_method}, ASKED_PERMISSIONS, ASKED_AUDIENCES)


def parse_internal(given: Mapping[str, Any], *, reserved: Collection[str] = ()) -> InternalClient:
    """A client as internal callers send it, with what it is to be granted. Raises `ApiError` invalid_client_metadata.

    `reserved`: names of claims that the installation's settings keep for the issuer, besides those that always are.
    """
    client = _client(given, GRANTED_PERMISSIONS, GRANTED_AUDIENCES)
    state = given.get("__STATE__", "PUBLIC")
    if not isinstance(state, str) or state not in _STATES:
        raise invalid_metadata(f"__STATE__ must be one of {', '.join(_STATES)}: a deleted client is not made at all")
    claims = _texts(given.get("allowedCustomClaims", []), "allowedCustomClaims", _CLAIMS)
    if not all(is_claim_name(one) and not is_reserved(one, reserved) for one in claims):
        raise invalid_metadata("allowedCustomClaims: must be names of claims that the issuer does not set itself")
    return InternalClient(client, claims, _STATES[state], _metadata(given.get("metadata", {})))


def invalid_metadata(description: str, *, reason: str = "") -> ApiError:
    """RFC 7591 section 3.2.2."""
    return ApiError(400, INVALID_CLIENT_METADATA, description, reason=reason)


def _client(given: Mapping[str, Any], permissions: Bounds, audiences: Bounds) -> ClientMetadata:
    # RFC 7591 section 2: without one, client_secret_basic.
    method = given.get("token_endpoint_auth_method", CLIENT_SECRET_BASIC)
    if method not in AUTH_METHODS:
        raise invalid_metadata(f"token_endpoint_auth_method must be one of {', '.join(AUTH_METHODS)}")
    _check_grants(given)
    keys = _keys(given)
    if method == PRIVATE_KEY_JWT and not keys:
        raise invalid_metadata("private_key_jwt needs a key: give jwks, or public_key with one JWK")
    if method != PRIVATE_KEY_JWT and keys:
        raise invalid_metadata("keys go with token_endpoint_auth_method private_key_jwt, which was not asked for")
    scope = given.get("scope", "")
    if not isinstance(scope, str):
        raise invalid_metadata("scope must be a text of scope-tokens separated by spaces")
    listed = given.get("permissions", [])
    asked = [*scope.split(" "), *listed] if isinstance(listed, list) else listed
    return ClientMetadata(
        auth_method=method,
        keys=keys,
        described=_described(given),
        permissions=_texts(asked, "scope and permissions", permissions),
        audiences=_texts(_audiences(given), "audience", audiences),
    )


def _check_grants(given: Mapping[str, Any]) -> None:
    """RFC 7591 section 2: what else is asked for may be replaced; a client that cannot do what is done here may not be registered."""
    grants = given.get("grant_types", [GRANT_TYPE])
    if not isinstance(grants, list) or GRANT_TYPE not in grants:
        raise invalid_metadata(f"grant_types must contain {GRANT_TYPE}, the only one that is served here")
    if not isinstance(given.get("response_types", []), list):
        raise invalid_metadata("response_types must be a list")


def _keys(given: Mapping[str, Any]) -> tuple[Mapping[str, str], ...]:
    if "jwks_uri" in given:
        raise invalid_metadata("jwks_uri is not supported: give the keys themselves in jwks")
    if "jwks" in given and "public_key" in given:
        raise invalid_metadata("jwks and public_key are both given: leave one of them out")
    if "public_key" in given:
        return (_key(given["public_key"], "public_key"),)
    jwks = given.get("jwks", {"keys": []})
    listed = jwks.get("keys") if isinstance(jwks, Mapping) else None
    # RFC 7517 section 5
    if not isinstance(listed, list) or len(listed) > _MAX_KEYS:
        raise invalid_metadata(f"jwks must be a JWK Set, an object with at most {_MAX_KEYS} keys in the list keys")
    keys = tuple(_key(value, f"jwks.keys[{index}]") for index, value in enumerate(listed))
    if len({key["kid"] for key in keys}) < len(keys):
        raise invalid_metadata("jwks: each key must have a kid of its own")
    return keys


def _key(value: object, field: str) -> Mapping[str, str]:
    try:
        key = parse_jwk(value, field=field)
    except KeyRejected as error:
        raise invalid_metadata(f"{error.field}: {error.description}", reason=error.reason) from None
    if not _KID.fullmatch(key.kid):
        raise invalid_metadata(
            f"{field}.kid: must be 1 to 128 printable ASCII characters without quotes and backslashes"
        )
    return key.jwk


def _described(given: Mapping[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {}
    for name, form, what in (
        ("client_name", _NAME, "1 to 100 characters without control characters"),
        ("client_uri", _URI, "an http or https URL of at most 256 characters"),
        ("software_id", _SOFTWARE, "1 to 64 printable ASCII characters without quotes and backslashes"),
        ("software_version", _SOFTWARE, "1 to 64 printable ASCII characters without quotes and backslashes"),
    ):
        value = given.get(name, "")
        if value == "":
            continue
        if not isinstance(value, str) or not form.fullmatch(value) or (name == "client_uri" and not _is_web(value)):
            raise invalid_metadata(f"{name} must be {what}")
        described[name] = value
    contacts = given.get("contacts", [])
    if not isinstance(contacts, list) or not all(isinstance(one, str) and _NAME.fullmatch(one) for one in contacts):
        raise invalid_metadata("contacts must be a list of texts of 1 to 100 characters without control characters")
    contacts = list(dict.fromkeys(contacts))
    if len(contacts) > _MAX_CONTACTS:
        raise invalid_metadata(f"contacts: at most {_MAX_CONTACTS} may be given")
    return {**described, **({"contacts": contacts} if contacts else {})}


def _is_web(value: str) -> bool:
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return parts.scheme in ("https", "http") and bool(parts.hostname)


def _audiences(given: Mapping[str, Any]) -> object:
    for name in ("audience", "audiences"):
        if isinstance(given.get(name, []), str):
            given = {**given, name: [given[name]]}
    one, other = given.get("audience", []), given.get("audiences", [])
    return [*one, *other] if isinstance(one, list) and isinstance(other, list) else None


def _texts(value: object, name: str, bounds: Bounds) -> tuple[str, ...]:
    fault = (
        f"{name}: must be visible ASCII texts without spaces, quotes and backslashes, each of at most 256 characters"
    )
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise invalid_metadata(fault)
    texts = tuple(dict.fromkeys(one for one in value if one))
    if not all(_TOKEN.fullmatch(one) for one in texts):
        raise invalid_metadata(fault)
    if len(texts) > bounds.items or sum(map(len, texts)) > bounds.characters:
        raise invalid_metadata(f"{name}: at most {bounds.items} values of {bounds.characters} characters in all")
    return texts


def _metadata(value: object) -> Mapping[str, str]:
    """Free members of internal callers; they become annotations."""
    if not isinstance(value, Mapping) or len(value) > _MAX_METADATA:
        raise invalid_metadata(f"metadata must be an object with at most {_MAX_METADATA} members")
    read: dict[str, str] = {}
    for name, one in value.items():
        if not _METADATA_KEY.fullmatch(name):
            raise invalid_metadata("metadata: names must be 1 to 63 letters, digits, dots, underscores and hyphens")
        if isinstance(one, bool):
            one = "true" if one else "false"
        if isinstance(one, int | float):
            one = str(one)
        if not isinstance(one, str) or len(one) > _MAX_METADATA_VALUE:
            raise invalid_metadata(
                f"metadata: values must be texts of at most {_MAX_METADATA_VALUE} characters, or numbers"
            )
        read[name] = one
    return read
