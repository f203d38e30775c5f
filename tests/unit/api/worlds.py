"""The API's parts over a snapshot that a test fills, without a socket."""

from collections.abc import Iterable
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from keyturn.keys.plan import ensure, with_generated
from keyturn.keys.state import KeyPhase, SigningKeyState
from keyturn.records import Kind, Record, StoredRecord
from keyturn.rules.state import Condition, RouteState, RuleState
from keyturn.snapshot import Snapshot
from keyturn.store.interface import Changes, Position
from keyturn_api.http import Response, Scope
from keyturn_api.metrics import Metrics
from keyturn_api.settings import ApiSettings
from keyturn_api.verified import AccessTokens
from tests.sample_keys import sample_key
from tests.unit.tokens.worlds import ISSUER, NOW, SIGNING, changed, client_state, encode

RING = with_generated(
    ensure(None, algorithm="RS256", size=2048, now=NOW - 500),
    {KeyPhase.ACTIVE: SIGNING, KeyPhase.NEXT: sample_key(number=4)},
    now=NOW - 500,
)
RULES = RuleState(
    routes=(
        RouteState("/orders", ("GET",), Condition(any_of=("orders:read",)), Condition(any_of=("office",))),
        RouteState("/orders", ("POST",), Condition(all_of=("orders:admin",))),
        RouteState("/open", ("ALL",), Condition(public=True)),
        RouteState("/mobile", ("GET",), Condition(expression='clientType == "mobile"')),
    )
)


def settings(**values: Any) -> ApiSettings:
    return ApiSettings(**{"issuer": ISSUER, "store_url": "memory://", **values})


def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


class World:
    """A loaded snapshot: client `team.app`, the signing keys, some routes. `change` brings the next revision."""

    def __init__(self, *, loaded: bool = True) -> None:
        self.snapshot = Snapshot("keyturn")
        self.store_id = "store"
        self._revision = 0
        if loaded:
            self.change(
                (Kind.CLIENT, "c1", client_state().to_body()),
                (Kind.SIGNING_KEY, "k1", SigningKeyState(RING.keys).to_body()),
                (Kind.ACCESS_RULE, "r1", RULES.to_body()),
            )

    def change(self, *records: tuple[Kind, str, Any]) -> None:
        self._revision += 1
        rows = tuple(
            StoredRecord(
                Record(kind, uid, "team", "keyturn", 1, NOW, body or {}, (body or {}).get("clientId")),
                self._revision,
                body is None,
            )
            for kind, uid, body in records
        )
        position = Position(self._revision, str(self._revision), self.store_id)
        changes = Changes(position, NOW - 100_000, rows, (), reset=self._revision == 1)
        self.snapshot.apply(self.snapshot.prepare(changes), now=NOW)

    def change_client(self, **changes: Any) -> None:
        self.change((Kind.CLIENT, "c1", client_state(**changes).to_body()))

    def tokens(self, accepted: Iterable[str] = ()) -> AccessTokens:
        return AccessTokens(self.snapshot, issuer=ISSUER, accepted=frozenset(accepted), clock_skew=10, capacity=100)


def access_token(**changes: Any) -> bytes:
    base = {
        "iss": ISSUER,
        "sub": "team.app",
        "client_id": "team.app",
        "aud": ["orders"],
        "iat": NOW - 60,
        "exp": NOW + 600,
        "jti": "t1",
        "permissions": ["orders:read", "orders:write"],
    }
    return encode(SIGNING, {"alg": "RS256", "kid": SIGNING.kid, "typ": "at+jwt"}, changed(base, changes))


def scope(method: str, path: str, *headers: tuple[str, str | bytes], query: bytes = b"") -> Scope:
    """An HTTP scope as the server makes it; header names in lower case."""
    raw = path.encode("latin-1")
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": raw,
        "query_string": query,
        "keyturn.target": raw + (b"?" + query if query else b""),
        "headers": [
            (name.encode(), value if isinstance(value, bytes) else value.encode("latin-1")) for name, value in headers
        ],
        "client": ("192.0.2.7", 4711),
    }


def fields(answer: Response) -> dict[str, str]:
    return {name.decode(): value.decode("latin-1") for name, value in answer.start["headers"]}


def content(answer: Response) -> Any:
    return orjson.loads(answer.body["body"])
