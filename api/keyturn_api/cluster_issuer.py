"""The cluster's own issuer of ServiceAccount tokens: its name and its keys, from the API server, cached."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from keyturn.jose.keys import KeyRejected, PublicKey, parse_jwk
from keyturn_api.kubernetes import KubernetesError, Object
from keyturn_api.logs import get_logger

_log = get_logger("cluster_issuer")

# Kubernetes: Service account issuer discovery. Every ServiceAccount may read both by the default role
# `system:service-account-issuer-discovery`.
DISCOVERY: Final = "/.well-known/openid-configuration"
JWKS: Final = "/openid/v1/jwks"

# A token of a key that is not loaded asks for the keys, so anybody could: no oftener than this.
_AT_MOST_EVERY: Final = 10.0
# A key that the cluster has withdrawn counts for no longer than this, while the API server answers.
_REFRESH_EVERY: Final = 300.0
# The last good copy counts this long while it does not.
_KEPT: Final = 86_400.0
_MAX_KEYS: Final = 100
_MAX_ISSUER: Final = 2048


class Reader(Protocol):
    """What is needed of the Kubernetes API."""

    async def get(self, path: str) -> Object: ...


class ClusterIssuer:
    """Name and keys of the cluster's issuer. `name` given: that one, and nothing is discovered.

    `clock` is monotonic. Each process has its own.
    """

    def __init__(
        self, kubernetes: Reader, *, name: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kubernetes = kubernetes
        self._discovers = name is None
        self._clock = clock
        self._keys: dict[str, PublicKey] = {}
        self._loaded_at: float | None = None
        self._tried_at: float | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._complaint = ""
        self.name = name

    @property
    def keys(self) -> Mapping[str, PublicKey]:
        """The issuer's keys by kid; empty while none are known well enough."""
        if self._loaded_at is None or self._clock() - self._loaded_at >= _KEPT:
            return {}
        return self._keys

    async def refresh(self) -> None:
        """Reads name and keys anew, unless that was tried within the last 10 s. Callers at the same time share one attempt."""
        if self._refreshing is None:
            now = self._clock()
            if self._tried_at is not None and now - self._tried_at < _AT_MOST_EVERY:
                return
            self._tried_at = now
            self._refreshing = asyncio.create_task(self._read(), name="cluster issuer")
            self._refreshing.add_done_callback(self._ended)
        # A caller that goes away must not end it for the others.
        await asyncio.shield(self._refreshing)

    async def run(self) -> None:
        """Keeps the keys fresh until cancelled; what fails is tried again soon."""
        while True:
            await self.refresh()
            fresh = self._loaded_at is not None and self._loaded_at == self._tried_at
            await asyncio.sleep(_REFRESH_EVERY if fresh else _AT_MOST_EVERY)

    def _ended(self, _: object) -> None:
        self._refreshing = None

    async def _read(self) -> None:
        tried_at = self._tried_at
        try:
            name = _name(await self._kubernetes.get(DISCOVERY)) if self._discovers else self.name
            keys = _keys(await self._kubernetes.get(JWKS))
        except (KubernetesError, ValueError) as error:
            self._complain(str(error))
            return
        if name != self.name or set(keys) != set(self._keys):
            _log.info("cluster_issuer_loaded", issuer=name, kids=sorted(keys))
        self._complaint = ""
        self.name, self._keys, self._loaded_at = name, keys, tried_at

    def _complain(self, cause: str) -> None:
        if cause != self._complaint:
            self._complaint = cause
            _log.warning("cluster_issuer_unavailable", cause=cause)


def _name(document: Object) -> str:
    """OpenID Connect Discovery 1.0 section 3: `issuer`."""
    name = document.get("issuer")
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_ISSUER:
        raise ValueError("the API server names no issuer of ServiceAccount tokens")
    return name


def _keys(document: Object) -> dict[str, PublicKey]:
    """RFC 7517 section 5: keys that cannot be used are passed over. Raises ValueError where none can."""
    listed: Any = document.get("keys")
    if not isinstance(listed, list):
        raise ValueError("the API server's JWKS has no list of keys")
    keys: dict[str, PublicKey] = {}
    for jwk in listed[:_MAX_KEYS]:
        try:
            key = parse_jwk(jwk, field="jwk")
        except KeyRejected as error:
            _log.warning("cluster_issuer_key_passed_over", cause=f"{error.reason}: {error.description}")
            continue
        keys[key.kid] = key
    if not keys:
        raise ValueError("the API server's JWKS has no key of RS256 or ES256")
    return keys
