"""A client as it is in force: what the operator writes into the store and every API replica reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from keyturn.clients.registration import Registration

PRIVATE_KEY_JWT: Final = "private_key_jwt"
CLIENT_SECRET_BASIC: Final = "client_secret_basic"
CLIENT_SECRET_POST: Final = "client_secret_post"
SECRET_METHODS: Final = (CLIENT_SECRET_BASIC, CLIENT_SECRET_POST)
AUTH_METHODS: Final = (PRIVATE_KEY_JWT, *SECRET_METHODS)

INTROSPECT_OWN: Final = "own"
INTROSPECT_ANY: Final = "any"

SOURCE_PUBLIC_KEYS: Final = "publicKeys"
SOURCE_GENERATE_KEY: Final = "generateKey"
SOURCE_JWKS_URI: Final = "jwksUri"


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A public key that may sign this client's assertions between `not_before` and `not_after` (seconds since the epoch; None: open).

    `jwk` is the normal form of `keyturn.jose.keys`; `thumbprint` that of RFC 7638; `size` in bits. `added_at`: since when the operator
    knows the key. Of a generated one, `replaced_at`: when another took its place; `announced`: its private half is not handed out yet.
    """

    kid: str
    thumbprint: str
    algorithm: str
    size: int
    source: str
    jwk: Mapping[str, Any]
    not_before: float | None = None
    not_after: float | None = None
    added_at: float | None = None
    replaced_at: float | None = None
    announced: bool = False

    def is_current(self, now: float) -> bool:
        """Whether the key counts at this time."""
        return (self.not_before is None or now >= self.not_before) and (self.not_after is None or now < self.not_after)

    def to_body(self) -> dict[str, Any]:
        return {
            "kid": self.kid,
            "thumbprint": self.thumbprint,
            "algorithm": self.algorithm,
            "size": self.size,
            "source": self.source,
            "jwk": dict(self.jwk),
            "notBefore": self.not_before,
            "notAfter": self.not_after,
            **_history_body(self),
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        return cls(
            kid=body["kid"],
            thumbprint=body["thumbprint"],
            algorithm=body["algorithm"],
            size=body["size"],
            source=body["source"],
            jwk=body["jwk"],
            not_before=body.get("notBefore"),
            not_after=body.get("notAfter"),
            added_at=body.get("addedAt"),
            replaced_at=body.get("replacedAt"),
            announced=body.get("announced", False),
        )


@dataclass(frozen=True, slots=True)
class SecretHash:
    """The hash of a client secret. `origin` names the version of the Secret that it was made of, to see a change without the value.

    `id` tells it from the client's other secrets, in the status and in the record of uses; it says nothing of the value. The rest is as
    for a key.
    """

    hash: str = field(repr=False)
    not_after: float | None
    origin: str
    id: str = ""
    added_at: float | None = None
    replaced_at: float | None = None
    announced: bool = False

    def is_current(self, now: float) -> bool:
        """Whether the secret counts at this time."""
        return self.not_after is None or now < self.not_after

    def to_body(self) -> dict[str, Any]:
        body = {"hash": self.hash, "notAfter": self.not_after, "origin": self.origin}
        return {**body, **({"id": self.id} if self.id else {}), **_history_body(self)}

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        return cls(
            hash=body["hash"],
            not_after=body.get("notAfter"),
            origin=body["origin"],
            id=body.get("id", ""),
            added_at=body.get("addedAt"),
            replaced_at=body.get("replacedAt"),
            announced=body.get("announced", False),
        )


@dataclass(frozen=True, slots=True)
class GeneratedRef:
    """Where the credentials that the operator makes for a client are, and how many it has made (`serial`)."""

    secret_name: str
    serial: int


def _history_body(one: ClientKey | SecretHash) -> dict[str, Any]:
    """What most keys and secrets have not: left out, so that the rows of an older version are the same."""
    body: dict[str, Any] = {} if one.added_at is None else {"addedAt": one.added_at}
    if one.replaced_at is not None:
        body["replacedAt"] = one.replaced_at
    if one.announced:
        body["announced"] = True
    return body


@dataclass(frozen=True, slots=True)
class WorkloadAccount:
    """The Kubernetes ServiceAccount whose pods are this client. `uid` tells it from an account that is made anew under its name."""

    namespace: str
    name: str
    uid: str

    def to_body(self) -> dict[str, Any]:
        return {"namespace": self.namespace, "name": self.name, "uid": self.uid}

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        return cls(namespace=body["namespace"], name=body["name"], uid=body["uid"])


@dataclass(frozen=True, slots=True)
class ClientState:
    """One client in force. Times are seconds since the epoch, `token_lifetime` seconds (None: the installation's default).

    Time decides at the request: `expires_at`, `revoke_before` and the keys' times are held against the reader's clock.
    """

    client_id: str
    created_at: float
    auth_method: str = PRIVATE_KEY_JWT
    keys: tuple[ClientKey, ...] = ()
    secrets: tuple[SecretHash, ...] = ()
    permissions: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    allowed_custom_claims: tuple[str, ...] = ()
    token_lifetime: int | None = None
    suspended: bool = False
    expires_at: float | None = None
    revoke_before: float | None = None
    introspection: str = INTROSPECT_OWN
    service_account: WorkloadAccount | None = None
    registration: Registration | None = None
    generated: GeneratedRef | None = None
    jwks_uri: str | None = None

    def is_enabled(self, now: float) -> bool:
        """Whether the client may get and use tokens at this time."""
        return not self.suspended and (self.expires_at is None or now < self.expires_at)

    def key(self, kid: str) -> ClientKey | None:
        """The key of this kid."""
        return next((key for key in self.keys if key.kid == kid), None)

    def to_body(self) -> dict[str, Any]:
        """Plain JSON, the body of the client's record."""
        body: dict[str, Any] = {
            "clientId": self.client_id,
            "createdAt": self.created_at,
            "authMethod": self.auth_method,
            "keys": [key.to_body() for key in self.keys],
            "secrets": [secret.to_body() for secret in self.secrets],
            "permissions": list(self.permissions),
            "audiences": list(self.audiences),
            "allowedCustomClaims": list(self.allowed_custom_claims),
            "tokenLifetime": self.token_lifetime,
            "suspended": self.suspended,
            "expiresAt": self.expires_at,
            "revokeBefore": self.revoke_before,
            "introspection": self.introspection,
            "serviceAccount": None if self.service_account is None else self.service_account.to_body(),
            # Only where there is one: the rows of all others stay as an older version has written them.
            **({} if self.registration is None else {"registration": self.registration.to_body()}),
        }
        if self.generated is not None:
            body["generated"] = {"secretName": self.generated.secret_name, "serial": self.generated.serial}
        if self.jwks_uri is not None:
            body["jwksUri"] = self.jwks_uri
        return body

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        """Reads `to_body`'s form. Raises KeyError when a member that restricts is missing."""
        made = body.get("generated")
        return cls(
            client_id=body["clientId"],
            created_at=body["createdAt"],
            auth_method=body["authMethod"],
            keys=tuple(ClientKey.from_body(key) for key in body["keys"]),
            secrets=tuple(SecretHash.from_body(secret) for secret in body["secrets"]),
            permissions=tuple(body["permissions"]),
            audiences=tuple(body["audiences"]),
            allowed_custom_claims=tuple(body["allowedCustomClaims"]),
            token_lifetime=body["tokenLifetime"],
            suspended=body["suspended"],
            expires_at=body["expiresAt"],
            revoke_before=body["revokeBefore"],
            introspection=body["introspection"],
            service_account=WorkloadAccount.from_body(account) if (account := body.get("serviceAccount")) else None,
            registration=Registration.from_body(registered) if (registered := body.get("registration")) else None,
            generated=None if made is None else GeneratedRef(made["secretName"], made["serial"]),
            jwks_uri=body.get("jwksUri"),
        )
