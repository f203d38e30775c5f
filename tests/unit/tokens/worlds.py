"""A small world for tests of tokens: one signing key, one client, a clock that stands still."""

from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from keyturn.clients.state import ClientKey, ClientState
from keyturn.jose import base64url
from keyturn.jose.keys import PublicKey
from keyturn.jose.signing import PrivateKey
from keyturn.snapshot import Client
from tests.sample_keys import sample_key

NOW = 1_800_000_000.0
ISSUER = "https://issuer.example"
CLIENT_ID = "team.app"
SIGNING = sample_key(number=1)
CLIENT = sample_key(number=2)


def client_key(key: PrivateKey, **changes: Any) -> ClientKey:
    public = key.public
    state = ClientKey(public.kid, public.thumbprint, public.algorithm, public.size, "publicKeys", public.jwk)
    return replace(state, **changes)


def client_state(**changes: Any) -> ClientState:
    state = ClientState(
        client_id=CLIENT_ID,
        created_at=NOW - 1000,
        keys=(client_key(CLIENT),),
        permissions=("orders:read", "orders:write"),
        audiences=("orders", "stock"),
    )
    return replace(state, **changes)


@dataclass
class World:
    """What decides about tokens, for `keyturn.tokens.access` and `keyturn.tokens.assertion`."""

    clients: dict[str, Client] = field(default_factory=lambda: {CLIENT_ID: Client("uid-1", client_state())})
    keys: dict[str, PublicKey] = field(default_factory=lambda: {SIGNING.kid: SIGNING.public})
    revoked: set[str] = field(default_factory=set)
    revoke_before: float | None = None
    removed_at: float | None = None
    imported: set[str] = field(default_factory=set)

    def client(self, client_id: str) -> Client | None:
        return self.clients.get(client_id)

    def client_state(self, client_id: str) -> ClientState | None:
        known = self.clients.get(client_id)
        return None if known is None else known.state

    def change_client(self, **changes: Any) -> None:
        self.clients[CLIENT_ID] = Client("uid-1", client_state(**changes))

    def verification_key(self, kid: str, now: float) -> PublicKey | None:
        return self.keys.get(kid)

    def key_removed_at(self, kid: str) -> float | None:
        return self.removed_at

    def key_imported(self, kid: str) -> bool:
        return kid in self.imported

    def is_revoked(self, token_hash: str) -> bool:
        return token_hash in self.revoked


def encode(key: PrivateKey, header: dict[str, Any], claims: dict[str, Any] | bytes) -> bytes:
    """A compact JWS of whatever header and claims, signed by this key."""
    payload = claims if isinstance(claims, bytes) else orjson.dumps(claims)
    signing_input = base64url.encode(orjson.dumps(header)) + b"." + base64url.encode(payload)
    return signing_input + b"." + base64url.encode(key.sign(signing_input))


MISSING: Any = object()


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The base with changes; `MISSING` takes a member out."""
    return {name: value for name, value in {**base, **changes}.items() if value is not MISSING}
