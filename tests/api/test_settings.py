"""Each setting of the API, by what it changes in a running process. A few processes show many settings each."""

import asyncio
import base64
import itertools
import json
import signal
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx2
import jwt
import pytest
import pytest_asyncio

from keyturn.keys.state import KeyPhase
from keyturn.settings_table import variable
from keyturn_api.settings import PREFIX, ApiSettings
from keyturn_dev.certificates import Authority
from keyturn_dev.tcp_proxy import Proxy
from tests.api.conftest import APP, SECRET
from tests.api.installation import Installation, assertion, form
from tests.api.peer import TlsFront
from tests.api.settings_world import CLUSTER_ISSUER, PLAIN_ISSUER, PLAIN_URL, USERS_KEY, Running, World
from tests.api.test_replicas import soon
from tests.api.test_token import basic

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        made = World(tmp_path_factory.mktemp("settings"), stack)
        await made.open()
        yield made


Check = Callable[[World, Running], Awaitable[None]]
CHECKS: list[tuple[tuple[str, ...], str, Check]] = []
# Shown by processes of another kind: the settings without their prefix, by the module that starts them.
ELSEWHERE = {
    "tests/api/test_settings.py": (
        *("STORE_PREPARED", "STORE_LISTEN_URL"),
        *("STORE_PASSWORD", "STORE_TLS", "STORE_CA_FILE", "STORE_POOL_SIZE", "STORE_STATEMENT_TIMEOUT"),
    ),
    "tests/api/test_envoy_grpc.py": ("GRPC_PORT",),
    "tests/people/metrics/test_traces.py": ("METRICS_CLIENTS", "TRACES_URL", "TRACES_RATIO"),
    "tests/cluster/test_registration.py": ("REGISTRATION", "REGISTRATION_TOKENS_DIRECTORY"),
    "tests/cluster/test_registration_limits.py": (
        *("REGISTRATIONS_PER_MINUTE", "REGISTRATION_MAX_PENDING", "REGISTRATION_PENDING_TTL", "REGISTRATION_TIMEOUT"),
    ),
}


def shows(*names: str, by: str) -> Callable[[Check], Check]:
    """Registers a check of these settings (without their prefix) against the process of the group `by`."""

    def register(check: Check) -> Check:
        CHECKS.append((names, by, check))
        return check

    return register


def settings_shown() -> set[str]:
    here = [name for names, _, _ in CHECKS for name in names]
    return {f"{PREFIX}{name}" for name in (*here, *itertools.chain(*ELSEWHERE.values()))}


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


# What tokens say


@shows("ISSUER", "STORE_URL", by="plain")
async def _(_: World, running: Running) -> None:
    token = await running.access_token(audience="stock")
    assert claims_of(token)["iss"] == PLAIN_ISSUER
    document = (await running.http.get("/.well-known/oauth-authorization-server")).json()
    assert document["issuer"] == PLAIN_ISSUER


@shows("PUBLIC_URL", by="plain")
async def _(_: World, running: Running) -> None:
    document = (await running.http.get("/.well-known/oauth-authorization-server")).json()
    assert document["token_endpoint"] == f"{PLAIN_URL}/oauth/token"


@shows("OPENID_CONFIG_PATH", by="plain")
async def _(_: World, running: Running) -> None:
    for path in ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"):
        assert (await running.http.get(path)).json()["op_policy_uri"] == "https://policy.example"


@shows("TOKEN_LIFETIME", "MAX_TOKEN_LIFETIME", by="plain")
async def _(_: World, running: Running) -> None:
    for client_id, seconds in (("team.app", 60), ("team.long", 120)):
        answer = (await running.token(client_id, audience="stock")).json()
        claims = claims_of(answer["access_token"])
        assert (answer["expires_in"], claims["exp"] - claims["iat"]) == (seconds, seconds)


@shows("TOKEN_TYP", by="plain")
async def _(_: World, running: Running) -> None:
    assert jwt.get_unverified_header(await running.access_token(audience="stock"))["typ"] == "JWT"


@shows("REQUIRE_AUDIENCE", by="plain")
async def _(_: World, running: Running) -> None:
    answer = await running.token()
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


@shows("ACCEPTED_AUDIENCES", by="plain")
async def _(_: World, running: Running) -> None:
    for audience, status in (("stock", 200), ("orders", 401)):
        bearer = {"Authorization": f"Bearer {await running.access_token(audience=audience)}"}
        assert (await running.http.get("/tokeninfo", headers=bearer)).status_code == status
        allowed = (await running.decide(**bearer)).headers["mia-allowed"]
        assert allowed == ("1" if status == 200 else "0")
    assert "any_audience_accepted" not in running.process.output()


@shows("ACCEPTED_AUDIENCES", by="gateway")
async def _(_: World, running: Running) -> None:
    assert "any_audience_accepted" in running.process.output()


@shows("CLOCK_SKEW_SECONDS", by="plain")
async def _(_: World, running: Running) -> None:
    now = int(time.time())
    for late, status in ((90, 200), (150, 401)):
        answer = await running.token(claims={"exp": now - late}, audience="stock")
        assert answer.status_code == status


@shows("TOKEN_ENDPOINT_AS_AUDIENCE", by="plain")
async def _(world: World, running: Running) -> None:
    for audience, status in (
        (f"{PLAIN_URL}/oauth/token", 200),
        (f"{PLAIN_URL}/oauth/introspect", 401),
        ([f"{PLAIN_URL}/oauth/token", PLAIN_ISSUER], 401),
    ):
        answer = await running.token(claims={"aud": audience}, audience="stock")
        assert answer.status_code == status


@shows("MAX_BODY_BYTES", by="plain")
async def _(_: World, running: Running) -> None:
    for size, status in ((1500, 401), (2049, 413)):
        data = {"grant_type": "client_credentials", "x": "x" * size}
        assert (await running.http.post("/oauth/token", data=data)).status_code == status


@shows("LOG_LEVEL", "LOG_FORMAT", by="plain")
async def _(_: World, running: Running) -> None:
    data = {"token": "x"}
    await running.http.post("/oauth/introspect", data=data, headers=basic("team.secret", SECRET))
    lines = [line for line in running.process.output().splitlines() if "token_inactive" in line]
    assert lines
    with pytest.raises(ValueError):
        json.loads(lines[0])


@shows("STRICT_MODE", by="plain")
async def _(_: World, running: Running) -> None:
    answer = await running.decide()
    assert (answer.status_code, answer.headers["mia-allowed"]) == (200, "0")
    assert "denials_answered_with_200" in running.process.output()


# Gateways


async def _ask_envoy(running: Running, path: str, **headers: str) -> httpx2.Response:
    bearer = {"Authorization": f"Bearer {await running.access_token()}"}
    return await running.http.get(f"/auth{path}", headers=bearer | headers)


@shows("GATEWAY_PROFILE", "HEADER_PREFIX", by="gateway")
async def _(_: World, running: Running) -> None:
    answer = await _ask_envoy(running, "/orders/7?x=1")
    assert (answer.status_code, answer.headers["x-auth-allowed"]) == (200, "1")
    # The headers of another profile are not read.
    other = await running.http.get("/auth", headers={"Original-Request-Uri": "/open", "Original-Request-Method": "GET"})
    assert other.headers["x-auth-allowed"] == "0"


@shows("CONTEXT_HEADERS", by="gateway")
async def _(_: World, running: Running) -> None:
    assert (await _ask_envoy(running, "/office")).status_code == 403
    assert (await _ask_envoy(running, "/office", isbackoffice="1")).status_code == 200


@shows("UNKNOWN_ROUTE", by="gateway")
async def _(_: World, running: Running) -> None:
    answer = await _ask_envoy(running, "/nowhere")
    assert (answer.status_code, answer.headers["x-auth-allowed"]) == (200, "0")
    assert "denials_answered_with_200" in running.process.output()


@shows("CLIENT_AS_USER", by="gateway")
async def _(_: World, running: Running) -> None:
    answer = await _ask_envoy(running, "/orders")
    assert (answer.headers["x-auth-clientid"], answer.headers["x-auth-userid"]) == ("team.app", "")


# Limits


async def _try_secret(running: Running, secret: bytes, *, address: str) -> int:
    headers = {**basic("team.secret", secret), "Forwarded": f"for={address}", "X-Forwarded-For": "203.0.113.1"}
    data = {"grant_type": "client_credentials"}
    return (await running.http.post("/oauth/token", data=data, headers=headers)).status_code


@shows("SECRET_FAILURES_PER_MINUTE", "TRUSTED_PROXIES", "FORWARDED_HEADER", by="limits")
async def _(_: World, running: Running) -> None:
    statuses = [await _try_secret(running, b"wrong", address="198.51.100.1") for _ in range(3)]
    assert statuses == [401, 401, 429]
    # Another address behind the same proxy.
    assert await _try_secret(running, b"wrong", address="198.51.100.2") == 401


@shows("RATE_LIMIT_EXEMPT", by="limits")
async def _(_: World, running: Running) -> None:
    assert {await _try_secret(running, b"wrong", address="192.0.2.9") for _ in range(4)} == {401}


@shows("BCRYPT_COST", by="limits")
async def _(_: World, running: Running) -> None:
    # Also for a client that does not exist: a hash of this cost cannot be faster than that on any machine, one of cost 4 is.
    started = time.monotonic()
    data = {"grant_type": "client_credentials"}
    headers = {**basic("nobody", b"x"), "Forwarded": "for=192.0.2.8"}
    assert (await running.http.post("/oauth/token", data=data, headers=headers)).status_code == 401
    assert time.monotonic() - started > 0.05


@shows("HASH_QUEUE", by="limits")
async def _(_: World, running: Running) -> None:
    tries = (_try_secret(running, b"wrong %d" % number, address="192.0.2.7") for number in range(4))
    assert sorted(await asyncio.gather(*tries)) == [401, 503, 503, 503]


@shows("SECRET_CACHE", by="limits")
async def _(_: World, running: Running) -> None:
    # Nothing is remembered: the good secret is hashed each time.
    for _attempt in range(3):
        started = time.monotonic()
        assert await _try_secret(running, SECRET, address="192.0.2.6") == 200
        assert time.monotonic() - started > 0.05


@shows("REVOCATIONS_PER_CLIENT", by="limits")
async def _(_: World, running: Running) -> None:
    statuses = []
    for _attempt in range(3):
        data = {"token": await running.access_token()} | form(assertion(APP, "team.app"))
        statuses.append((await running.http.post("/oauth/revoke", data=data)).status_code)
    assert statuses == [200, 200, 429]


@shows("TOKEN_CACHE", by="limits")
async def _(_: World, running: Running) -> None:
    # Without a cache all is as with one.
    bearer = {"Authorization": f"Bearer {await running.access_token()}"}
    for _attempt in range(3):
        assert (await running.decide(**bearer)).status_code == 200
        assert (await running.decide("/office", **bearer)).status_code == 403


# Places


@shows("HTTP_HOST", "HTTP_PORT", by="places")
async def _(_: World, running: Running) -> None:
    assert (await running.http.get("/healthz")).status_code == 200
    with pytest.raises(httpx2.ConnectError):
        await running.http.get(running.process.url.replace("127.0.0.2", "127.0.0.1") + "/healthz")


@shows("METRICS_HOST", "METRICS_PORT", by="places")
async def _(_: World, running: Running) -> None:
    at = urlsplit(running.process.metrics_url)
    assert "keyturn_api" in (await running.http.get(f"http://127.0.0.3:{at.port}/metrics")).text
    with pytest.raises(httpx2.ConnectError):
        await running.http.get(f"http://127.0.0.1:{at.port}/metrics")


@shows("SERVICE_PREFIX", by="places")
async def _(_: World, running: Running) -> None:
    for path in ("/oauth/token", "/oauth/introspect", "/oauth/revoke", "/tokeninfo", "/auth", "/auth/x", "/docs"):
        assert (await running.http.get(path)).status_code == 404
        assert (await running.http.get(f"/p{path}")).status_code != 404
    document = (await running.http.get("/p/.well-known/oauth-authorization-server")).json()
    assert document["introspection_endpoint"] == "https://issuer.example/p/oauth/introspect"
    # Probes are asked from within and stay where they are.
    assert (await running.http.get("/readyz")).status_code == 200


@shows("SIGNING_KEY", "SIGNING_KEY_DIRECTORY", by="places")
async def _(world: World, running: Running) -> None:
    kid = world.second_ring.in_phase(KeyPhase.ACTIVE)[0].kid
    assert jwt.get_unverified_header(await running.access_token())["kid"] == kid
    published = (await running.http.get("/p/.well-known/jwks.json")).json()["keys"]
    assert [key["kid"] for key in published] == [key.kid for key in world.second_ring.keys]


@shows("WORKERS", by="places")
async def _(world: World, running: Running) -> None:
    async def two() -> bool:
        rows = await world.installation.store.replicas(seen_since=0)
        own = set(world.second_ring.private)
        return sum(set(row.loaded_kids) == own for row in rows) == 2

    await soon(two, within=10)


@shows("TLS_CERT_FILE", "TLS_KEY_FILE", by="places")
async def _(world: World, running: Running) -> None:
    plain = httpx2.AsyncClient()
    async with plain:
        with pytest.raises(httpx2.TransportError):
            await plain.get(running.process.url.replace("https", "http") + "/healthz")
    # A new certificate of another authority is served to new connections, without a restart.
    other = Authority("other", datetime.now(UTC))
    pair = other.issue("served", names=("127.0.0.2",), client=False)
    old = [(world.folder / name).read_bytes() for name in ("tls.crt", "tls.key")]
    for name, content in (("tls.key", pair.key), ("tls.crt", pair.certificate)):
        (world.folder / name).write_bytes(content)
    trusting = ssl.create_default_context(cadata=other.certificate.decode())

    async def served() -> bool:
        with suppress(httpx2.ConnectError):
            async with httpx2.AsyncClient(verify=trusting) as anew:
                return (await anew.get(f"{running.process.url}/healthz")).status_code == 200
        return False

    await soon(served, within=15)
    # What was connected goes on.
    assert (await running.http.get("/healthz")).status_code == 200
    for name, content in zip(("tls.crt", "tls.key"), old, strict=True):
        (world.folder / name).write_bytes(content)


# Users


async def _as_user(
    running: Running, path: str = "/orders", cookie: str = "session=good", **more: str
) -> httpx2.Response:
    return await running.decide(path, Cookie=cookie, **more)


@shows("USERINFO_URL", "USER_ID_KEY", "PERMISSIONS_KEY", by="users")
async def _(world: World, running: Running) -> None:
    answer = await _as_user(running)
    assert (answer.status_code, answer.headers["mia-userid"]) == (200, "ada")
    assert world.users.asked[-1].path == "/me"
    assert (await _as_user(running, cookie="session=bad")).status_code == 401


@shows("AUTHORIZATION_HEADERS_TO_PROXY", by="users")
async def _(world: World, running: Running) -> None:
    assert (await _as_user(running, **{"X-Other": "y"})).status_code == 200
    assert "cookie" in world.users.asked[-1].headers
    assert "x-other" not in world.users.asked[-1].headers
    before = len(world.users.asked)
    # Not a header of the list: nobody is asked.
    assert (await running.decide(Authorization="Bearer of-somebody-else")).status_code == 401
    assert len(world.users.asked) == before


@shows("USER_PROPERTIES", by="users")
async def _(_: World, running: Running) -> None:
    answer = await _as_user(running, "/north")
    assert answer.status_code == 200
    assert json.loads(answer.headers["mia-userproperties"]) == {"tenant": "north"}


@shows("USERINFO_CACHE_SECONDS", by="users")
async def _(world: World, running: Running) -> None:
    before = len(world.users.asked)
    for _ in range(3):
        assert (await _as_user(running)).status_code == 200
    assert len(world.users.asked) == before + 3


@shows("USERINFO_CONNECTIONS", by="users")
async def _(world: World, running: Running) -> None:
    world.users.delay, world.users.most_at_once = 0.05, 0
    answers = await asyncio.gather(*(_as_user(running, cookie=f"session=good; n={n}") for n in range(4)))
    world.users.delay = 0
    assert {answer.status_code for answer in answers} == {200}
    assert world.users.most_at_once == 1


@shows("USERINFO_TIMEOUT", by="users")
async def _(world: World, running: Running) -> None:
    world.users.delay = 3
    started = time.monotonic()
    answer = await _as_user(running)
    world.users.delay = 0
    assert answer.status_code == 503
    assert 0.9 < time.monotonic() - started < 3


@shows("TRUSTED_ISSUERS_FILE", by="users")
async def _(world: World, running: Running) -> None:
    now = int(time.time())
    claims = {
        "iss": world.issuer.url,
        "sub": "grace",
        "aud": "orders",
        "iat": now,
        "exp": now + 60,
        "rights": ["orders:read"],
    }
    header = {"kid": USERS_KEY.kid, "typ": "at+jwt"}
    token = jwt.encode(claims, USERS_KEY.to_pem().decode(), "RS256", header)

    async def known() -> bool:
        answer = await running.decide(Authorization=f"Bearer {token}")
        return (answer.status_code, answer.headers.get("mia-userid")) == (200, "grace")

    await soon(known, within=10)


@shows("TRUST_USER_HEADERS", "TRUSTED_PEERS", by="edge")
async def _(_: World, running: Running) -> None:
    identity = {"mia-userid": "ada", "mia-userproperties": '{"tenant": "north"}'}
    assert (await running.decide("/north", **identity)).status_code == 200
    # The same from an address that is not trusted.
    transport = httpx2.AsyncHTTPTransport(local_address="127.0.0.9")
    async with httpx2.AsyncClient(base_url=running.process.url, transport=transport) as elsewhere:
        question = {"Original-Request-Uri": "/north", "Original-Request-Method": "GET"}
        assert (await elsewhere.get("/auth", headers=question | identity)).status_code == 401


# Kubernetes


@shows(
    *("KUBERNETES_URL", "KUBERNETES_TOKEN_FILE", "KUBERNETES_CA_FILE", "NAMESPACE"),
    *("ADMINISTRATION", "ADMINISTRATION_SERVER_TOKENS"),
    by="edge",
)
async def _(world: World, running: Running) -> None:
    data = {"token": await running.access_token()}
    support = {"Authorization": "Bearer support"}
    answer = await running.http.post("/oauth/introspect", data=data, headers=support)
    assert (answer.status_code, answer.json()["client_id"]) == (200, "team.app")
    assert {asked.headers["authorization"] for asked in world.kubernetes.asked} == {"Bearer the-services-own"}
    assert world.kubernetes.asked[-1].json()["spec"]["resourceAttributes"]["namespace"] == "project"
    assert (await running.http.post("/oauth/revoke", data=data, headers=support)).status_code == 403
    assert (await running.http.get("/tokeninfo", headers={"Authorization": f"Bearer {data['token']}"})).is_success
    # Where it is switched off, as in a process without Kubernetes, nobody is reviewed.
    other = await world.running("limits")
    assert (await other.http.post("/oauth/introspect", data=data, headers=support)).status_code == 404


@shows("DENIALS_KEPT", "DENIALS_STORED", by="edge")
async def _(world: World, running: Running) -> None:
    support = {"Authorization": "Bearer support"}

    async def found(by: Running, identifier: str) -> bool:
        answer = await by.http.post("/explain", json={"requestId": identifier}, headers=support)
        assert answer.status_code in (200, 404), answer.text
        return answer.status_code == 200

    # One is remembered, and none is written down.
    for identifier in ("kept-1", "kept-2"):
        assert (await running.decide(**{"X-Request-Id": identifier})).status_code == 401
    assert not await found(running, "kept-1")
    assert await found(running, "kept-2")
    # Where none is remembered, it is found in the store.
    writing = await world.running("users")
    assert (await writing.decide(**{"X-Request-Id": "stored-1"})).status_code == 401

    async def written() -> bool:
        return await found(writing, "stored-1")

    await soon(written, within=10)
    assert not await found(running, "stored-1")


@shows("WORKLOAD_IDENTITY", "CLUSTER_ISSUER", "WORKLOAD_TOKEN_REVIEW", by="edge")
async def _(world: World, running: Running) -> None:
    now = int(time.time())

    def token(issuer: str) -> str:
        claims = {
            "iss": issuer,
            "sub": "system:serviceaccount:project:web",
            "aud": [running.group.issuer],
            "iat": now,
            "nbf": now,
            "exp": now + 600,
            "kubernetes.io": {
                "namespace": "project",
                "serviceaccount": {"name": "web", "uid": "account-uid"},
                "pod": {"name": "web-1", "uid": "pod-uid"},
            },
        }
        return jwt.encode(claims, USERS_KEY.to_pem().decode(), "RS256", {"kid": USERS_KEY.kid})

    async def status(by: Running, issuer: str) -> int:
        fields = form(token(issuer), client_id="team.pods")
        return (await by.http.post("/oauth/token", data=fields)).status_code

    async def given() -> bool:
        return await status(running, CLUSTER_ISSUER) == 200

    # The issuer is the one that was named, its keys are the API server's, and nobody is asked whether the pod still lives.
    await soon(given, within=15)
    assert await status(running, "https://another.example") == 401
    assert not [asked for asked in world.kubernetes.asked if asked.method == "POST" and b"pod-uid" in asked.body]
    assert not any(b"system:serviceaccount:project:web" in asked.body for asked in world.kubernetes.asked)
    # Where it is switched off such a token is none.
    assert await status(await world.running("users"), CLUSTER_ISSUER) == 401


# The end: these two take the process away, in this order.


@shows("MAX_STALENESS", by="ending")
async def _(world: World, running: Running) -> None:
    folder = world.folder
    assert (await running.decide("/open")).status_code == 200
    files = [file for file in folder.glob("keyturn.sqlite*") if file.is_file()]
    for file in files:
        file.rename(file.with_name(f"away-{file.name}"))
    (folder / "keyturn.sqlite").mkdir()

    async def stale() -> bool:
        ready = await running.http.get("/readyz")
        return (await running.decide("/open")).status_code == 503 and "snapshot_stale" in ready.text

    async def back() -> bool:
        return (await running.decide("/open")).status_code == 200

    try:
        await soon(stale, within=15)
    finally:
        (folder / "keyturn.sqlite").rmdir()
        for file in files:
            file.with_name(f"away-{file.name}").rename(file)
    await soon(back, within=15)


@shows("SHUTDOWN_DELAY", "SHUTDOWN_TIMEOUT", by="ending")
async def _(_: World, running: Running) -> None:
    process = running.process
    reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
    # A request that never ends: it may hold up the end for as long as the timeout says, and no longer.
    writer.write(b"POST /oauth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
    await writer.drain()
    assert (await running.http.get("/readyz")).status_code == 200
    started = time.monotonic()
    process.process.send_signal(signal.SIGTERM)

    async def not_ready() -> bool:
        return (await running.http.get("/readyz")).status_code == 503

    await soon(not_ready, within=2)
    assert (await running.decide("/open")).status_code == 200
    assert await asyncio.to_thread(process.process.wait, 30) == 0
    taken = time.monotonic() - started
    assert taken > 2 + 0.9, "neither the delay nor the request in flight was waited for"
    assert taken < 20, "the request in flight was waited for without end"
    writer.close()
    assert reader is not None


@pytest.mark.parametrize(
    ("group", "check"), [pytest.param(group, check, id=" and ".join(names)) for names, group, check in CHECKS]
)
async def test_a_setting_does_what_its_description_says(world: World, group: str, check: Check) -> None:
    await check(world, await world.running(group))


async def test_postgresql_is_heard_through_the_url_for_listening(
    on_postgres: Installation, postgres_server: str
) -> None:
    async def listening() -> int:
        connection = await asyncpg.connect(postgres_server)
        try:
            return int(
                await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE query ILIKE 'listen%keyturn%'")
            )
        finally:
            await connection.close()

    async with Proxy(on_postgres.store_url) as proxy:
        # Behind a pooler nothing is heard, so it does not even listen ...
        silent = await on_postgres.start(store_prepared="false").ready()
        assert await listening() == 0
        # ... but where another way leads past the pooler.
        hearing = await on_postgres.start(store_prepared="false", store_listen_url=proxy.url).ready()

        async def one() -> bool:
            return await listening() == 1

        await soon(one, within=10)
        for process in (silent, hearing):
            async with httpx2.AsyncClient(base_url=process.url) as http:
                answer = await http.post("/oauth/token", data=form(assertion(APP, "team.app")))
                assert answer.status_code == 200


async def test_postgresql_is_reached_by_tls_with_a_password_of_its_own_and_within_limits(
    on_postgres: Installation, tmp_path: Path
) -> None:
    authority, another = Authority("database", datetime.now(UTC)), Authority("another", datetime.now(UTC))
    pair = authority.issue("database", names=("127.0.0.1",), client=False)
    for name, content in (("tls.crt", pair.certificate), ("tls.key", pair.key)):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    (tmp_path / "other.crt").write_bytes(another.certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    parts = urlsplit(on_postgres.store_url)
    async with TlsFront(parts.port or 0, context) as front:
        user = parts.username or ""
        without_password = parts._replace(netloc=f"{user}@127.0.0.1:{front.port}").geturl()
        settings = {
            "store_url": without_password,
            "store_password": parts.password or "",
            "store_tls": "verify-full",
            "store_pool_size": "1",
            "store_statement_timeout": "1",
        }
        wrong = on_postgres.start(**settings, store_ca_file=str(tmp_path / "other.crt"))
        process = await on_postgres.start(**settings, store_ca_file=str(tmp_path / "ca.crt")).ready()
        async with httpx2.AsyncClient(base_url=process.url) as http:

            async def token() -> int:
                return (await http.post("/oauth/token", data=form(assertion(APP, "team.app")))).status_code

            assert set(await asyncio.gather(*(token() for _ in range(20)))) == {200}
            # One of the pool, one that listens, two for the jtis.
            assert 1 <= front.most_at_once <= 4
            locking = await asyncpg.connect(on_postgres.store_url)
            try:
                async with locking.transaction():
                    await locking.execute("LOCK TABLE keyturn_used_jtis IN ACCESS EXCLUSIVE MODE")
                    started = time.monotonic()
                    assert await token() == 503
                    # Without the limit it would have waited for five seconds.
                    assert 0.9 < time.monotonic() - started < 4
            finally:
                await locking.close()
        async with httpx2.AsyncClient(base_url=wrong.url) as http:
            assert (await http.get("/readyz")).status_code == 503
        assert "store_unavailable" in wrong.output()


@pytest_asyncio.fixture(loop_scope="session")
async def on_postgres(postgres_server: str, tmp_path: Path) -> AsyncIterator[Installation]:
    schema = f"settings_{base64.b32encode(tmp_path.name.encode()).decode().rstrip('=').lower()[:20]}_{time.time_ns()}"
    connection = await asyncpg.connect(postgres_server)
    await connection.execute(f"CREATE SCHEMA {schema}")
    await connection.close()
    made = Installation(tmp_path, f"{postgres_server}{'&' if '?' in postgres_server else '?'}search_path={schema}")
    await made.open()
    try:
        await made.add_key_client("team.app", APP)
        yield made
    finally:
        await made.close()


async def test_every_setting_is_shown() -> None:
    fields = ApiSettings.model_fields
    assert {variable(PREFIX, name, field) for name, field in fields.items()} == settings_shown()
    assert all((Path(__file__).parents[2] / where).is_file() for where in ELSEWHERE)
