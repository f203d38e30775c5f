"""What the measured installation holds: clients, routes and signing keys, put into the store as the operator would."""

from __future__ import annotations

import base64
import concurrent.futures
import dataclasses
import os
import secrets
import time
import uuid
from typing import TYPE_CHECKING

import orjson

from keyturn.clients.state import CLIENT_SECRET_BASIC, SOURCE_PUBLIC_KEYS, ClientKey, ClientState, SecretHash
from keyturn.jose.signing import PrivateKey, TokenSigner, generate
from keyturn.keys.plan import ensure, with_generated
from keyturn.records import Kind, Record
from keyturn.rules.state import Condition, RouteState, RuleState
from keyturn.secrets import hash_secret
from keyturn.store.factory import open_store
from keyturn.tokens.claims import encode_access_claims, grant
from keyturn_dev.bench import wire
from keyturn_dev.errors import DevError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from keyturn.keys.ring import KeyRing

ISSUER = "https://bench.keyturn.example"
CLIENTS = 1_000
SECRET_CLIENTS = 8
ROUTES = 100
PER_RULE = 10
TOKENS = 1_000
# Making a key takes some 50 ms, so clients share a few; each client's is prepared apart all the same.
_CLIENT_KEYS = 16
_NAMESPACE = "bench"
_BCRYPT_COST = 10
_LIFETIME = 3_000


@dataclasses.dataclass(frozen=True)
class World:
    """Everything that requests are made from. `secrets`: of the clients that have one, by client id."""

    ring: KeyRing
    clients: tuple[ClientState, ...]
    keys: tuple[PrivateKey, ...] = dataclasses.field(repr=False)
    secret_clients: tuple[ClientState, ...]
    secrets: tuple[str, ...] = dataclasses.field(repr=False)
    rules: tuple[RuleState, ...]

    def records(self) -> list[Record]:
        """Return one record an object."""
        made = [
            _record(Kind.SIGNING_KEY, "keyturn", self.ring.state().to_body()),
            *(_record(Kind.ACCESS_RULE, f"rule-{n}", rule.to_body()) for n, rule in enumerate(self.rules)),
        ]
        for client in (*self.clients, *self.secret_clients):
            name = client.client_id.removeprefix(f"{_NAMESPACE}.")
            made.append(_record(Kind.CLIENT, name, client.to_body(), client_id=client.client_id))
        return made


def make_world(
    now: float, *, clients: int = CLIENTS, client_keys: int = _CLIENT_KEYS, cost: int = _BCRYPT_COST
) -> World:
    """Make keys, clients and rules. Takes seconds, for the keys and the hashes of that cost."""
    plan = ensure(None, algorithm="RS256", size=2048, now=now)
    generated = {phase: generate("RS256", 2048) for phase in plan.missing}
    keys = tuple(generate("RS256", 2048) for _ in range(client_keys))
    values = tuple(secrets.token_urlsafe(32) for _ in range(SECRET_CLIENTS))
    return World(
        ring=with_generated(plan, generated, now=now),
        clients=tuple(_client(number, keys[number % len(keys)], now) for number in range(clients)),
        keys=keys,
        secret_clients=tuple(_secret_client(number, value, now, cost) for number, value in enumerate(values)),
        secrets=values,
        rules=make_rules(),
    )


def make_rules(routes: int = ROUTES) -> tuple[RuleState, ...]:
    """Return rules with all routes, ten in each: half by a list of permissions, half by an expression."""
    return tuple(
        RuleState(routes=tuple(_route(number) for number in range(first, first + PER_RULE)))
        for first in range(0, routes, PER_RULE)
    )


def _route(number: int) -> RouteState:
    if number % 2:
        condition = Condition(expression='permissions["items:read"] || "items:admin" in permissions')
    else:
        condition = Condition(any_of=("items:admin", "items:read"))
    return RouteState(path=f"/api/resource-{number}/items", methods=("GET",), main=condition)


def _permissions() -> tuple[str, ...]:
    return ("items:read", "items:write", "orders:read", "orders:write", "reports:read")


def _client(number: int, key: PrivateKey, now: float) -> ClientState:
    registered = ClientKey(
        kid=key.kid,
        thumbprint=key.public.thumbprint,
        algorithm=key.algorithm,
        size=key.size,
        source=SOURCE_PUBLIC_KEYS,
        jwk=key.public.jwk,
    )
    return ClientState(
        client_id=f"{_NAMESPACE}.client-{number}",
        created_at=now - 60,
        keys=(registered,),
        permissions=_permissions(),
        audiences=("https://api.example",),
    )


def _secret_client(number: int, secret: str, now: float, cost: int) -> ClientState:
    return ClientState(
        client_id=f"{_NAMESPACE}.secret-{number}",
        created_at=now - 60,
        auth_method=CLIENT_SECRET_BASIC,
        secrets=(SecretHash(hash_secret(secret.encode(), cost), None, "bench"),),
        permissions=_permissions(),
        audiences=("https://api.example",),
    )


def _record(kind: Kind, name: str, body: dict[str, object], *, client_id: str | None = None) -> Record:
    return Record(
        kind=kind,
        uid=str(uuid.uuid4()),
        namespace=_NAMESPACE,
        name=name,
        generation=1,
        created_at=time.time() - 60,
        body=body,
        client_id=client_id,
    )


async def fill_store(url: str, records: Iterable[Record]) -> None:
    """Write the records into an empty store, as the operator does it: one transaction each."""
    store = open_store(url)
    await store.open()
    try:
        epoch = await store.next_epoch("bench")
        for record in records:
            await store.put(record, epoch=epoch)
    finally:
        await store.close()


def write_signing_keys(folder: Path, ring: KeyRing) -> None:
    """Write the directory that a pod would find mounted."""
    folder.mkdir(mode=0o700)
    for name, content in ring.to_secret_data().items():
        path = folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)


def sign_assertions(world: World, count: int, now: float) -> list[bytes]:
    """Return as many client assertions, each fresh, of all clients in turn. Signing leaves the interpreter: all cores work."""
    signers = [TokenSigner(key, typ="JWT") for key in world.keys]

    def sign(number: int) -> bytes:
        client = world.clients[number % len(world.clients)]
        claims = {
            "iss": client.client_id,
            "sub": client.client_id,
            "aud": ISSUER,
            "jti": secrets.token_urlsafe(16),
            "iat": int(now),
            "exp": int(now) + _LIFETIME,
        }
        return signers[number % len(world.clients) % len(signers)].encode(orjson.dumps(claims))

    return _spread(sign, count)


def sign_tokens(world: World, count: int, now: float) -> list[bytes]:
    """Return as many access tokens, as the API would have issued them to all clients in turn."""
    key = world.ring.signing_key()
    if key is None:
        raise DevError("the key ring that was made has no Active key")
    signer = TokenSigner(key, typ="at+jwt")

    def sign(number: int) -> bytes:
        client = world.clients[number % len(world.clients)]
        claims = encode_access_claims(
            client=client,
            granted=grant(client, audiences=(), scope=None, issuer=ISSUER),
            issuer=ISSUER,
            jti=secrets.token_urlsafe(16),
            now=int(now),
            lifetime=_LIFETIME,
            assertion_claims={},
        )
        return signer.encode(claims)

    return _spread(sign, count)


def token_requests(world: World, count: int, now: float) -> list[bytes]:
    """Return token requests with private_key_jwt, each good for one use."""
    return [wire.token_by_assertion(assertion) for assertion in sign_assertions(world, count, now)]


def basic_requests(world: World) -> list[bytes]:
    """Return one token request for each client with a secret."""
    made = []
    for client, secret in zip(world.secret_clients, world.secrets, strict=True):
        credentials = base64.b64encode(f"{client.client_id}:{secret}".encode()).decode("ascii")
        made.append(wire.token_by_secret(f"Basic {credentials}"))
    return made


def tokeninfo_requests(tokens: Sequence[bytes]) -> list[bytes]:
    """Return one question a token."""
    return [wire.tokeninfo(token) for token in tokens]


def targets(count: int, routes: int = ROUTES) -> list[str]:
    """Return as many targets, each different, over all routes in turn."""
    return [f"/api/resource-{number % routes}/items/{number}?page=2" for number in range(count)]


def gateway_requests(tokens: Sequence[bytes], *, count: int | None = None, routes: int = ROUTES) -> list[bytes]:
    """Return gateway checks over all tokens and routes in turn, one a token where no `count` is said."""
    return [
        wire.gateway_check(tokens[number % len(tokens)], method="GET", uri=target)
        for number, target in enumerate(targets(count or len(tokens), routes))
    ]


def _spread(make: Callable[[int], bytes], count: int) -> list[bytes]:
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(make, range(count)))
