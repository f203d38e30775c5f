"""The API's small parts: forms, credentials, caches, limits, settings, documents."""

import asyncio
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from keyturn.snapshot import Snapshot
from keyturn.store.memory import MemoryStore
from keyturn_api.cache import GenerationCache
from keyturn_api.client_secrets import parse_basic
from keyturn_api.errors import ApiError
from keyturn_api.follower import Follower, Heartbeat
from keyturn_api.form import parse_form
from keyturn_api.guessing import GuessLimiter
from keyturn_api.http import problem, read_body, request_id
from keyturn_api.metadata import Jwks, metadata_paths, oauth_metadata, openid_configuration
from keyturn_api.readiness import SIGNING_KEY_GRACE, Readiness
from keyturn_api.settings_table import render
from keyturn_api.shared_readiness import SharedReadiness
from keyturn_api.signing_keys import SigningKeys
from tests.unit.api.worlds import RING, World, content, fields, metrics, scope, settings
from tests.unit.keys.rings import sample_ring
from tests.unit.tokens.worlds import NOW, SIGNING

PROJECT = Path(__file__).parents[3]
FORM = b"application/x-www-form-urlencoded"


def test_the_documented_table_of_settings_is_the_current_one() -> None:
    assert render() in (PROJECT / "docs" / "settings.md").read_text("utf-8")


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"issuer": "issuer.example"}, id="an issuer that is no URL"),
        pytest.param({"issuer": "https://issuer.example/?a=b"}, id="an issuer with a query"),
        pytest.param({"issuer": "https://user:pw@issuer.example"}, id="an issuer with a password"),
        pytest.param({"public_url": "api.example"}, id="a public URL that is none"),
        pytest.param({"service_prefix": "oauth2"}, id="a prefix without a slash"),
        pytest.param({"token_lifetime": 90, "max_token_lifetime": 60}, id="a default beyond the maximum"),
        pytest.param({"gateway_profile": "squid"}, id="a profile that does not exist"),
        pytest.param({"rate_limit_exempt": "everyone"}, id="no network"),
        pytest.param({"header_prefix": "Bad Header:"}, id="a prefix that is no header name"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**values)


def test_lists_are_read_with_commas() -> None:
    read = settings(accepted_audiences="a, b,,a", rate_limit_exempt="127.0.0.0/8,::1")
    assert read.accepted_audiences == ("a", "b")
    assert read.rate_limit_exempt == (ip_network("127.0.0.0/8"), ip_network("::1"))


def test_the_stores_url_is_in_no_repr() -> None:
    assert "hunter2" not in repr(settings(store_url="postgresql://u:hunter2@h/d"))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"a=1&b=2", {"a": "1", "b": "2"}, id="plain"),
        pytest.param(b"a=x+y%2B%C3%A4", {"a": "x y+\u00e4"}, id="encoded"),
        pytest.param(b"a=&b=2", {"b": "2"}, id="an empty value counts as absent"),
        pytest.param(b"", {}, id="nothing"),
    ],
)
def test_a_form_is_read(body: bytes, expected: dict[str, str]) -> None:
    assert parse_form(body, FORM + b"; charset=UTF-8", repeatable=frozenset()).fields == expected


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        pytest.param(b"scope=1&scope=2", FORM, "scope", id="a known field twice is named"),
        pytest.param(b"evil=1&evil=2", FORM, "a field", id="an unknown one is not repeated"),
        pytest.param(b"scope=&scope=2", FORM, "scope", id="twice, once empty"),
        pytest.param(b"a=%ff", FORM, "UTF-8", id="not UTF-8"),
        pytest.param(b"a=1", None, "Content-Type", id="no content type"),
        pytest.param(b"a=1", b"text/plain", "Content-Type", id="another content type"),
        pytest.param(b"a=1", b"multipart/form-data; boundary=x", "Content-Type", id="multipart"),
        pytest.param(b"&".join(b"a%d=1" % n for n in range(200)), FORM, "fields", id="too many fields"),
    ],
)
def test_a_form_that_is_not_clear_is_refused(body: bytes, content_type: bytes | None, words: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_form(body, content_type, repeatable=frozenset())
    assert caught.value.code == "invalid_request"
    assert words in caught.value.description


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(b"Basic YTpi", ("a", b"b"), id="plain"),
        pytest.param(b"basic YTpi", ("a", b"b"), id="the scheme in lower case"),
        pytest.param(b"Basic YTpiOmM=", ("a", b"b:c"), id="a colon in the secret"),
        pytest.param(b"Basic YSUzQWI6JTJCJTI1KyUzRA==", ("a:b", b"+% ="), id="form-encoded"),
        pytest.param(b"Basic YTo=", ("a", b""), id="an empty secret"),
    ],
)
def test_basic_credentials_are_decoded_as_rfc_6749_says(value: bytes, expected: tuple[str, bytes]) -> None:
    assert parse_basic(value) == expected


@pytest.mark.parametrize(
    "value", [b"", b"Basic", b"Basic ", b"Bearer YTpi", b"Basic !", b"Basic YQ==", b"Basic JUZGOmI="]
)
def test_basic_credentials_of_another_form_are_invalid_client(value: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse_basic(value)
    assert (caught.value.status, caught.value.code) == (401, "invalid_client")


def test_the_cache_is_bounded_and_keeps_what_was_used_last() -> None:
    cache: GenerationCache[int, int] = GenerationCache(10)
    for number in range(1, 1000):
        cache.put(number, number)
        assert cache.get(1) == 1  # asked for all the time
        assert len(cache) <= 10
    assert cache.get(999) == 999
    assert cache.get(500) is None


def test_a_cache_without_capacity_keeps_nothing() -> None:
    cache: GenerationCache[int, int] = GenerationCache(0)
    cache.put(1, 1)
    assert cache.get(1) is None


def test_failures_count_for_each_client_and_for_the_address() -> None:
    limiter = GuessLimiter(2)
    assert limiter.begin("a", "192.0.2.1", NOW) is None
    assert limiter.begin("b", "192.0.2.1", NOW) is None
    assert limiter.begin("c", "192.0.2.1", NOW + 20) == 40
    assert limiter.begin("a", "192.0.2.2", NOW) is None
    assert limiter.begin("c", "192.0.2.1", NOW + 60) is None


def test_a_success_takes_its_attempt_back() -> None:
    limiter = GuessLimiter(1)
    for _ in range(5):
        assert limiter.begin("a", "192.0.2.1", NOW) is None
        limiter.succeeded("a", "192.0.2.1")


@pytest.mark.parametrize("limiter", [GuessLimiter(0), GuessLimiter(1, [ip_network("127.0.0.0/8")])])
def test_a_limit_that_is_off_or_exempts_never_refuses(limiter: GuessLimiter) -> None:
    assert [limiter.begin("a", "127.0.0.1", NOW) for _ in range(5)] == [None] * 5


def test_counters_do_not_grow_without_end() -> None:
    limiter = GuessLimiter(5)
    for number in range(120_000):
        limiter.begin(f"c{number}", f"address-{number}", NOW)
    assert len(limiter._counts) < 60_000


@pytest.mark.parametrize(
    ("value", "kept"),
    [("abc-1.2:3", True), ("", False), ("a b", False), ("a" * 129, False), ("ä", False), ('"', False)],
)
def test_a_request_id_is_kept_only_if_it_is_sane(value: str, kept: bool) -> None:
    assert (request_id(scope("GET", "/", ("x-request-id", value))) == value) == kept


async def _body(parts: list[bytes], *headers: tuple[str, str]) -> bytes:
    left = list(parts)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    return await read_body(scope("POST", "/", *headers), receive, 10)


async def test_a_body_within_the_limit_is_read_whole() -> None:
    assert await _body([b"12345", b"67890"]) == b"1234567890"


@pytest.mark.parametrize(
    ("parts", "headers"),
    [
        pytest.param([b"12345678901"], [], id="at once"),
        pytest.param([b"123456"] * 3, [], id="in pieces"),
        pytest.param([b""], [("content-length", "11")], id="announced"),
        pytest.param([b""], [("content-length", "9" * 40)], id="announced beyond any number"),
    ],
)
async def test_a_body_over_the_limit_is_413(parts: list[bytes], headers: Any) -> None:
    with pytest.raises(ApiError) as caught:
        await _body(parts, *headers)
    assert caught.value.status == 413


async def test_a_body_that_does_not_come_is_408_and_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyturn_api.http.BODY_TIMEOUT", 0.05)
    parts = [b"12"]

    async def receive() -> dict[str, Any]:
        if not parts:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": parts.pop(), "more_body": True}

    async with asyncio.timeout(10):
        with pytest.raises(ApiError) as caught:
            await read_body(scope("POST", "/"), receive, 10)
    assert caught.value.status == 408
    assert (b"connection", b"close") in list(caught.value.headers)


def test_problems_say_what_they_are() -> None:
    answer = problem(403, "no", request_id="r1")
    assert fields(answer)["content-type"] == "application/problem+json"
    assert content(answer) == {"type": "about:blank", "title": "Forbidden", "status": 403, "detail": "no", "id": "r1"}


def test_the_jwks_holds_public_members_only_and_may_be_kept_a_minute() -> None:
    answer = Jwks(World().snapshot, metrics(), clock=lambda: NOW)(scope("GET", "/.well-known/jwks.json"))
    assert fields(answer)["cache-control"] == "public, max-age=60"
    keys = content(answer)["keys"]
    assert [key["kid"] for key in keys] == [key.kid for key in RING.keys]
    assert all(set(key) == {"kty", "kid", "alg", "use", "n", "e"} for key in keys)


def test_metadata_of_an_issuer_with_a_path_lies_where_rfc_8414_says() -> None:
    chosen = settings(issuer="https://i.example/tenant", service_prefix="/x")
    assert metadata_paths(chosen)["oauth"] == (
        "/x/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server/tenant",
    )
    assert metadata_paths(chosen)["openid"] == (
        "/x/.well-known/openid-configuration",
        "/tenant/.well-known/openid-configuration",
        "/.well-known/openid-configuration/tenant",
    )


@pytest.mark.parametrize(
    ("values", "endpoint"),
    [
        pytest.param({}, "https://i.example/oauth/token", id="the issuer"),
        pytest.param({"issuer": "https://i.example/"}, "https://i.example/oauth/token", id="an issuer with a slash"),
        pytest.param({"service_prefix": "/x/"}, "https://i.example/x/oauth/token", id="a prefix"),
        pytest.param(
            {"issuer": "https://i.example/t/x", "service_prefix": "/x"},
            "https://i.example/t/x/oauth/token",
            id="an issuer that ends with the prefix",
        ),
        pytest.param(
            {"service_prefix": "/x", "public_url": "https://api.example/"},
            "https://api.example/oauth/token",
            id="a URL of its own",
        ),
    ],
)
def test_the_endpoints_lie_where_callers_reach_them(values: dict[str, Any], endpoint: str) -> None:
    chosen = settings(**{"issuer": "https://i.example", **values})
    assert oauth_metadata(chosen)["token_endpoint"] == endpoint


def test_an_own_file_adds_to_the_metadata_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "more.json"
    own = openid_configuration(oauth_metadata(settings()), World().snapshot)
    more = {
        "op_policy_uri": "https://p.example",
        "authorization_endpoint": "https://login.example/authorize",
        "scopes_supported": ["orders:read"],
    }
    lies = dict.fromkeys(
        (*own, "registration_endpoint", "signed_metadata", "mtls_endpoint_aliases"), "https://evil.example"
    )
    file.write_bytes(orjson.dumps(more | lies))
    chosen = settings(openid_config_path=file)
    assert openid_configuration(oauth_metadata(chosen), World().snapshot) == own | more


@pytest.mark.parametrize("content", ["[]", "no JSON", ""])
def test_a_file_that_is_no_json_object_ends_the_start(tmp_path: Path, content: str) -> None:
    file = tmp_path / "more.json"
    file.write_text(content)
    with pytest.raises(ValueError):
        oauth_metadata(settings(openid_config_path=file))


async def test_the_follower_fills_the_snapshot_and_notices_a_lost_store() -> None:
    store = MemoryStore()
    snapshot = Snapshot("keyturn")
    noticed: list[int] = []
    follower = Follower(store, snapshot, metrics(), clock=lambda: NOW)
    follower.on_change = lambda: noticed.append(snapshot.applied_revision)
    assert await follower.step()
    assert not await follower.step()
    assert snapshot.loaded
    snapshot.revocations["held"] = NOW + 60
    store.lose_everything()
    assert await follower.step()
    assert [row.token_hash for row in (await store.changes(None)).revocations] == ["held"]
    assert noticed


async def test_the_follower_keeps_trying_while_the_store_is_away() -> None:
    store = MemoryStore()
    store.available = False
    snapshot = Snapshot("keyturn")
    follower = Follower(store, snapshot, metrics())
    filled = asyncio.Event()
    follower.on_change = filled.set
    running = asyncio.create_task(follower.run())
    await asyncio.sleep(0.05)
    assert not filled.is_set()
    store.available = True
    async with asyncio.timeout(3):
        await filled.wait()
    running.cancel()


async def test_the_follower_that_is_woken_looks_without_a_word_from_the_store() -> None:
    store = MemoryStore()
    snapshot = Snapshot("keyturn")
    follower = Follower(store, snapshot, metrics())
    read = asyncio.Event()
    follower.on_change = read.set
    running = asyncio.create_task(follower.run())
    async with asyncio.timeout(3):
        await read.wait()
        await asyncio.sleep(0.3)  # it waits for the store now
        read.clear()
        store._erase()
        follower.wake()
        await read.wait()
    assert snapshot.position == (await store.changes(None)).position
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_heartbeat_tells_revision_and_keys_once_for_each_change() -> None:
    store = MemoryStore()
    world = World()
    keys = SigningKeys(Path("/nowhere"), world.snapshot, typ="JWT")
    keys.use(RING)
    heartbeat = Heartbeat(store, world.snapshot, keys, "replica-1", metrics(), clock=lambda: NOW)
    running = asyncio.create_task(heartbeat.run())
    for _ in range(3):
        heartbeat.notice()
        await asyncio.sleep(0.02)
    (row,) = await store.replicas(seen_since=0)
    assert (row.id, row.applied_revision, row.loaded_kids, row.seen_at) == (
        "replica-1",
        1,
        tuple(sorted(RING.private)),
        NOW,
    )
    await heartbeat.end()
    assert await store.replicas(seen_since=0) == []
    running.cancel()


async def test_signing_keys_are_read_from_the_directory_and_a_damaged_one_keeps_the_old(tmp_path: Path) -> None:
    world = World()
    keys = SigningKeys(tmp_path, world.snapshot, typ="at+jwt")
    await keys.start()
    assert keys.signer() is None
    for name, member in RING.to_secret_data().items():
        (tmp_path / name).write_bytes(member)
    await keys.reload()
    assert keys.loaded_kids == tuple(sorted(RING.private))
    assert keys.signer() is keys.signer()
    (tmp_path / "keyring.json").write_text("{")
    await keys.reload()
    assert keys.signer() is not None


def test_the_signer_follows_the_active_key_of_the_store() -> None:
    world = World()
    keys = SigningKeys(Path("/nowhere"), world.snapshot, typ="at+jwt")
    keys.use(RING)
    assert SIGNING.kid in repr(keys.signer())
    world.snapshot.withdraw([SIGNING.kid])
    assert keys.signer() is None


@pytest.mark.parametrize(
    ("loaded", "ring", "ending", "reasons"),
    [
        pytest.param(True, True, False, [], id="all there"),
        pytest.param(False, True, False, ["snapshot_not_loaded"], id="no snapshot"),
        pytest.param(True, False, False, ["active_signing_key_missing"], id="no private half"),
        pytest.param(True, True, True, ["ending"], id="about to end"),
    ],
)
def test_readiness_says_what_is_missing(loaded: bool, ring: bool, ending: bool, reasons: list[str]) -> None:
    world = World(loaded=loaded)
    keys = SigningKeys(Path("/nowhere"), world.snapshot, typ="at+jwt")
    if ring:
        keys.use(RING)
    readiness = Readiness(world.snapshot, keys, Follower(MemoryStore(), world.snapshot, metrics()), metrics())
    readiness.ending = ending
    assert readiness.refresh() == reasons


OTHER_RING = sample_ring(first=6)


@pytest.mark.parametrize(
    ("withdraw", "seconds", "reasons"),
    [
        pytest.param(True, 0.0, [], id="at once"),
        pytest.param(True, SIGNING_KEY_GRACE - 0.1, [], id="until the grace is over"),
        pytest.param(True, SIGNING_KEY_GRACE, ["active_signing_key_missing"], id="when it is over"),
        pytest.param(False, SIGNING_KEY_GRACE, [], id="with its key for as long as one likes"),
    ],
)
def test_a_process_that_could_sign_stays_ready_for_a_while(withdraw: bool, seconds: float, reasons: list[str]) -> None:
    world, now = World(), [1000.0]
    keys = SigningKeys(Path("/nowhere"), world.snapshot, typ="at+jwt")
    follower = Follower(MemoryStore(), world.snapshot, metrics())
    readiness = Readiness(world.snapshot, keys, follower, metrics(), monotonic=lambda: now[0])
    assert readiness.reasons() == ["active_signing_key_missing"], "one that has just started"
    now[0] += 5.0
    keys.use(RING)
    assert readiness.reasons() == []
    now[0] += 10 * SIGNING_KEY_GRACE
    if withdraw:
        world.snapshot.withdraw([SIGNING.kid])
    assert readiness.refresh() == []
    now[0] += seconds
    assert readiness.refresh() == reasons
    # Each gap has a grace of its own.
    if withdraw:
        assert world.snapshot.signing is not None
        world.snapshot._set_signing("uid", OTHER_RING.state())
        keys.use(OTHER_RING)
        assert readiness.reasons() == []
        world.snapshot.withdraw([key.kid for key in OTHER_RING.keys])
        now[0] += SIGNING_KEY_GRACE
        assert readiness.reasons() == []
        now[0] += SIGNING_KEY_GRACE
        assert readiness.reasons() == ["active_signing_key_missing"]


def test_without_any_signing_keys_there_is_no_grace() -> None:
    world = World()
    keys = SigningKeys(Path("/nowhere"), world.snapshot, typ="at+jwt")
    keys.use(RING)
    readiness = Readiness(world.snapshot, keys, Follower(MemoryStore(), world.snapshot, metrics()), metrics())
    assert readiness.reasons() == []
    world.snapshot._set_signing(None, None)
    world.snapshot.generation += 1
    assert readiness.reasons() == ["active_signing_key_missing"]


def test_staleness_counts_from_the_last_answer_of_the_store() -> None:
    world = World()
    follower = Follower(MemoryStore(), world.snapshot, metrics())
    keys = SigningKeys(Path("/nowhere"), world.snapshot, typ="at+jwt")
    readiness = Readiness(world.snapshot, keys, follower, metrics(), max_staleness=5)
    assert readiness.is_stale(NOW)
    follower.synchronized_at = NOW
    assert not readiness.is_stale(NOW + 5)
    assert readiness.is_stale(NOW + 5.1)
    assert not Readiness(world.snapshot, keys, follower, metrics()).is_stale(NOW + 10_000)


def test_workers_are_ready_together() -> None:
    descriptor = SharedReadiness.create(2)
    first, second = SharedReadiness(descriptor, 2, 0), SharedReadiness(descriptor, 2, 1)
    first.tell(ready=True)
    assert not first.all_ready()
    second.tell(ready=True)
    assert first.all_ready()
    second.tell(ready=False)
    assert not first.all_ready()
