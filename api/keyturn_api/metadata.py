"""The documents that others read about this issuer: JWKS (RFC 7517) and metadata (RFC 8414, OpenID Connect Discovery 1.0)."""

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from keyturn.clients.state import AUTH_METHODS
from keyturn.jose.algorithms import ALGORITHMS, SYNONYMS
from keyturn.snapshot import Snapshot
from keyturn_api.http import (
    JSON,
    Response,
    Scope,
    header,
    method_not_allowed,
    not_modified,
    problem,
    request_id,
    response,
)
from keyturn_api.metrics import Metrics
from keyturn_api.settings import ApiSettings
from keyturn_api.token_endpoint import GRANT_TYPE

OAUTH_METADATA: Final = "/.well-known/oauth-authorization-server"
OPENID_CONFIGURATION: Final = "/.well-known/openid-configuration"
JWKS: Final = "/.well-known/jwks.json"


class Jwks:
    """`GET /.well-known/jwks.json`. Built once for each state of the snapshot.

    It may be kept for at most half of the time for which a new key is published before it signs, and not past a key's removal.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._snapshot = snapshot
        self._metrics = metrics
        self._clock = clock
        self._built: tuple[tuple[int, tuple[str, ...], int], bytes, Response, Response] | None = None

    def __call__(self, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            return method_not_allowed("GET", request_id=request_id(scope))
        if not self._snapshot.loaded:
            self._metrics.count("jwks", "unavailable", scope)
            retry = [(b"retry-after", b"1")]
            return problem(503, "the signing keys are not loaded yet", request_id=request_id(scope), headers=retry)
        self._metrics.count("jwks", "ok", scope)
        now = self._clock()
        keys = self._snapshot.published_keys(now)
        kids = tuple(key.kid for key in keys)
        ends = [end for kid in kids if (end := self._snapshot.key_removed_at(kid)) is not None]
        # Without a key that signs there will be a new one soon, and whoever asks again must see it.
        usual = self._snapshot.jwks_max_age if self._snapshot.active_kid() is not None else 0
        max_age = min([usual, *(int(end - now) for end in ends)])
        state = (self._snapshot.generation, kids, max_age)
        if self._built is None or self._built[0] != state:
            body = orjson.dumps({"keys": [key.jwk for key in keys]})
            tag = b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode()
            caching = ((b"cache-control", b"public, max-age=%d" % max_age), (b"etag", tag))
            self._built = (state, tag, response(200, (JSON, *caching), body), not_modified(caching))
        _, tag, whole, unchanged = self._built
        # RFC 9110 section 13.1.2: a weak comparison, of a list of tags or of any.
        known = header(scope, b"if-none-match")
        return unchanged if known is not None and (known.strip() == b"*" or tag in known) else whole


def oauth_metadata(settings: ApiSettings, *, registration: bool = False) -> dict[str, Any]:
    """RFC 8414 section 2: nothing that does not work. `registration`: whether clients may register here."""
    registering = {"registration_endpoint": f"{settings.base_url}/register"} if registration else {}
    return {**_additions(settings), **_own(settings), **registering}


def _own(settings: ApiSettings) -> dict[str, Any]:
    base = settings.base_url
    document: dict[str, Any] = {
        "issuer": settings.issuer,
        "token_endpoint": settings.token_endpoint,
        "introspection_endpoint": f"{base}/oauth/introspect",
        "revocation_endpoint": f"{base}/oauth/revoke",
        "jwks_uri": f"{base}{JWKS}",
        "grant_types_supported": [GRANT_TYPE],
        "response_types_supported": [],
    }
    # The same clients prove themselves in the same ways at all of them.
    for endpoint in ("token", "introspection", "revocation"):
        document[f"{endpoint}_endpoint_auth_methods_supported"] = list(AUTH_METHODS)
        document[f"{endpoint}_endpoint_auth_signing_alg_values_supported"] = sorted({*ALGORITHMS, *SYNONYMS})
    return document


def openid_configuration(static: Mapping[str, Any], snapshot: Snapshot) -> dict[str, Any]:
    """OpenID Connect Discovery 1.0 section 3, for programs that look for the issuer's keys there. `static`: `oauth_metadata`'s."""
    signing = snapshot.signing
    algorithms = sorted({key.algorithm for key in signing.keys}) if signing is not None else ["RS256"]
    return {
        **static,
        "subject_types_supported": ["public"],
        # The standard requires the member; it says how tokens here are signed.
        "id_token_signing_alg_values_supported": algorithms,
    }


def metadata_paths(settings: ApiSettings) -> Mapping[str, tuple[str, ...]]:
    """Where the documents lie, by kind. RFC 8414 section 3.1 puts the issuer's path behind the well-known part."""
    path = urlsplit(settings.issuer).path.rstrip("/")
    prefix = settings.service_prefix
    return {
        "oauth": tuple(dict.fromkeys((f"{prefix}{OAUTH_METADATA}", f"{OAUTH_METADATA}{path}"))),
        # OpenID Connect Discovery 1.0 section 4 puts the well-known part behind the issuer's path.
        "openid": tuple(
            dict.fromkeys(
                (f"{prefix}{OPENID_CONFIGURATION}", f"{path}{OPENID_CONFIGURATION}", f"{OPENID_CONFIGURATION}{path}")
            )
        ),
    }


def _additions(settings: ApiSettings) -> dict[str, Any]:
    """The members of the operator's own file, less those that say what this service does: only it knows that."""
    if settings.openid_config_path is None:
        return {}
    added = orjson.loads(settings.openid_config_path.read_bytes())
    if not isinstance(added, dict):
        raise ValueError("OPENID_CONFIG_PATH must name a file with a JSON object")
    return {name: value for name, value in added.items() if name not in _RESERVED}


# All that this service says of itself under some settings. Endpoints of other services may stand in the file beside them.
_RESERVED: Final = frozenset(
    {
        *("issuer", "jwks_uri", "grant_types_supported", "response_types_supported"),
        *("subject_types_supported", "id_token_signing_alg_values_supported"),
        *(f"{endpoint}_endpoint" for endpoint in ("token", "introspection", "revocation", "registration")),
        *(
            f"{endpoint}_endpoint_auth_{kind}_supported"
            for endpoint in ("token", "introspection", "revocation", "registration")
            for kind in ("methods", "signing_alg_values")
        ),
        # RFC 8414 section 2.1 and RFC 8705 section 5: they would take precedence over the members themselves.
        *("signed_metadata", "mtls_endpoint_aliases"),
    }
)
