"""The token endpoint's order of steps, over a store that can be away."""

import asyncio
import json
from typing import Any

import pytest

from keyturn.clients.state import CLIENT_SECRET_BASIC, CLIENT_SECRET_POST, SecretHash
from keyturn.keys.ring import KeyRing
from keyturn.secrets import hash_generated, hash_secret
from tests.unit.api.endpoints import Endpoint, assertion, basic, payload, secret_world
from tests.unit.api.worlds import RING, World, content, fields
from tests.unit.tokens.worlds import CLIENT, CLIENT_ID, ISSUER, MISSING, NOW, changed, encode


async def test_a_token_lives_as_long_as_client_and_installation_say() -> None:
    endpoint = Endpoint()
    endpoint.world.change_client(token_lifetime=60, allowed_custom_claims=("tenant",))
    answer = await endpoint.assert_with(assertion(tenant="t1"))
    assert content(answer)["expires_in"] == 60
    claims = payload(answer)
    assert (claims["iat"], claims["exp"], claims["tenant"]) == (int(NOW), int(NOW) + 60, "t1")


async def test_audiences_come_from_fields_resources_and_the_assertion_together() -> None:
    endpoint = Endpoint()
    endpoint.world.change_client(audiences=("orders", "https://stock.example", "more", "unasked"))
    answer = await endpoint.assert_with(
        assertion(requested_audiences=["more"]), audience=["orders", ""], resource="https://stock.example"
    )
    assert payload(answer)["aud"] == ["orders", "https://stock.example", "more"]


async def test_a_required_audience_must_be_named() -> None:
    endpoint = Endpoint(require_audience=True)
    assert content(await endpoint.assert_with())["error"] == "invalid_request"
    assert (await endpoint.assert_with(audience="orders")).status == 200


async def test_a_grant_too_large_for_one_token_is_refused_and_the_assertion_still_counts_for_a_part_of_it() -> None:
    endpoint = Endpoint()
    held = tuple(f"orders:{number:020}" for number in range(300))
    endpoint.world.change_client(permissions=held)
    answer = await endpoint.assert_with()
    assert (answer.status, content(answer)["error"]) == (400, "invalid_scope")
    assert "in scope" in content(answer)["error_description"]
    answer = await endpoint.assert_with(scope=" ".join(held[:60]))
    assert payload(answer)["permissions"] == list(held[:60])
    token = content(answer)["access_token"].encode()
    assert endpoint.world.tokens().verify_token(token, NOW).token.permissions == held[:60]


async def test_a_token_counts_at_once_although_the_clock_that_dates_clients_is_ahead() -> None:
    endpoint = Endpoint()
    endpoint.world.change_client(created_at=NOW + 2)
    token = content(await endpoint.assert_with())["access_token"].encode()
    assert endpoint.world.tokens().verify_token(token, NOW).token.issued_at == NOW + 2


async def test_with_the_store_down_it_is_503_and_the_assertion_counts_once_it_is_back() -> None:
    endpoint = Endpoint()
    endpoint.store.available = False
    answer = await endpoint.assert_with()
    assert (answer.status, content(answer)["error"]) == (503, "temporarily_unavailable")
    assert fields(answer)["retry-after"] == "1"
    endpoint.store.available = True
    assert (await endpoint.assert_with()).status == 200
    assert (await endpoint.assert_with()).status == 401


async def test_with_another_store_in_its_place_it_is_503_and_someone_is_told() -> None:
    endpoint = Endpoint()
    told: list[bool] = []
    endpoint.authenticator.on_store_replaced = lambda: told.append(True)
    assert (await endpoint.assert_with()).status == 200
    endpoint.store.lose_everything()
    for _ in range(2):
        answer = await endpoint.assert_with()
        assert (answer.status, content(answer)["error"]) == (503, "temporarily_unavailable")
        assert fields(answer)["retry-after"] == "1"
    assert len(told) == 2


async def test_nothing_that_fails_otherwise_consumes_the_jti() -> None:
    endpoint = Endpoint()
    for form in ({"scope": "no"}, {"audience": "no"}, {"client_id": "no"}):
        assert (await endpoint.assert_with(**form)).status in (400, 401)
    assert (await endpoint.assert_with()).status == 200


async def test_a_client_that_is_stopped_while_its_jti_is_written_gets_nothing() -> None:
    endpoint = Endpoint()
    consume = endpoint.store.consume

    async def stopping(jtis: Any, *, store_id: str) -> list[bool]:
        endpoint.world.change_client(suspended=True)
        return await consume(jtis, store_id=store_id)

    endpoint.store.consume = stopping  # type: ignore[method-assign]
    assert (await endpoint.assert_with()).status == 401


async def test_a_key_that_is_taken_away_while_its_jti_is_written_proves_nothing() -> None:
    endpoint = Endpoint()
    consume = endpoint.store.consume

    async def taking(jtis: Any, *, store_id: str) -> list[bool]:
        endpoint.world.change_client(keys=())
        return await consume(jtis, store_id=store_id)

    endpoint.store.consume = taking  # type: ignore[method-assign]
    answer = await endpoint.assert_with()
    assert (answer.status, content(answer)["error"]) == (401, "invalid_client")


@pytest.mark.parametrize(
    ("world", "ring"),
    [
        pytest.param(World(loaded=False), RING, id="no snapshot"),
        pytest.param(World(), KeyRing(), id="no private half of the Active key"),
    ],
)
async def test_what_is_not_ready_is_503(world: World, ring: KeyRing) -> None:
    answer = await Endpoint(world, ring=ring).assert_with()
    assert answer.status == 503
    assert int(fields(answer)["retry-after"]) >= 1


async def test_uses_are_recorded_once_an_hour() -> None:
    endpoint = Endpoint()
    await endpoint.assert_with()
    await endpoint.activity.flush()
    endpoint.clock[0] += 30
    await endpoint.assert_with(assertion(jti="two", exp=NOW + 600))
    await endpoint.activity.flush()
    (use,) = await endpoint.store.activity(CLIENT_ID)
    assert (use.kid, use.used_at) == (CLIENT.kid, NOW)


async def test_a_use_that_could_not_be_written_waits_for_the_store() -> None:
    endpoint = Endpoint()
    await endpoint.assert_with()
    endpoint.store.available = False
    await endpoint.activity.flush()
    endpoint.store.available = True
    await endpoint.activity.flush()
    assert len(await endpoint.store.activity(CLIENT_ID)) == 1


@pytest.mark.parametrize(
    "hashed", [pytest.param(hash_secret(b"one", 4), id="bcrypt"), pytest.param(hash_generated(b"one"), id="generated")]
)
async def test_a_secret_counts_until_its_end(hashed: str) -> None:
    endpoint = Endpoint(secret_world(SecretHash(hashed, NOW + 10, "uid/1")))
    for _ in range(3):
        assert (await endpoint.send(basic(b"one"))).status == 200
    assert (await endpoint.send(basic(b"two"))).status == 401
    endpoint.clock[0] = NOW + 10
    assert (await endpoint.send(basic(b"one"))).status == 401


async def test_old_and_new_secret_both_count_within_the_overlap() -> None:
    hashes = (SecretHash(hash_generated(b"new"), None, "uid/2"), SecretHash(hash_generated(b"old"), NOW + 60, "uid/1"))
    endpoint = Endpoint(secret_world(*hashes))
    assert (await endpoint.send(basic(b"new"))).status == 200
    assert (await endpoint.send(basic(b"old"))).status == 200


async def test_a_secret_verified_before_is_refused_once_its_hash_is_gone() -> None:
    endpoint = Endpoint(secret_world(SecretHash(hash_generated(b"one"), None, "uid/1")))
    assert (await endpoint.send(basic(b"one"))).status == 200
    endpoint.world.change_client(
        auth_method=CLIENT_SECRET_BASIC, keys=(), secrets=(SecretHash(hash_generated(b"two"), None, "uid/2"),)
    )
    assert (await endpoint.send(basic(b"one"))).status == 401


async def test_a_secret_that_is_replaced_while_it_is_hashed_is_refused() -> None:
    endpoint = Endpoint(secret_world(SecretHash(hash_secret(b"one", 4), None, "uid/1", id="first")))
    verify = endpoint.verifier.verify

    async def replacing(*given: Any) -> SecretHash | None:
        proven = await verify(*given)
        endpoint.world.change_client(
            auth_method=CLIENT_SECRET_BASIC,
            keys=(),
            secrets=(SecretHash(hash_secret(b"two", 4), None, "uid/2", id="second"),),
        )
        return proven

    endpoint.verifier.verify = replacing  # type: ignore[method-assign, assignment]
    assert (await endpoint.send(basic(b"one"))).status == 401


async def test_a_crowd_with_the_right_generated_secret_is_no_crowd_of_guesses() -> None:
    secret = SecretHash(hash_generated(b"one"), None, "uid/1")
    endpoint = Endpoint(secret_world(secret), limit=2, hash_queue=1)
    answers = await asyncio.gather(*(endpoint.send(basic(b"one")) for _ in range(20)))
    assert {answer.status for answer in answers} == {200}


async def test_a_suspended_client_with_a_good_secret_is_refused() -> None:
    endpoint = Endpoint(secret_world(SecretHash(hash_generated(b"one"), None, "uid/1")))
    assert (await endpoint.send(basic(b"one"))).status == 200
    endpoint.world.change_client(
        auth_method=CLIENT_SECRET_BASIC,
        keys=(),
        secrets=(SecretHash(hash_generated(b"one"), None, "uid/1"),),
        suspended=True,
    )
    assert (await endpoint.send(basic(b"one"))).status == 401


async def test_wrong_secrets_are_limited_before_hashing_and_the_limit_ends() -> None:
    endpoint = Endpoint(secret_world(SecretHash(hash_generated(b"one"), None, "uid/1")), limit=2)
    for _ in range(2):
        assert (await endpoint.send(basic(b"no"))).status == 401
    limited = await endpoint.send(basic(b"one"))
    assert limited.status == 429
    assert int(fields(limited)["retry-after"]) >= 1
    endpoint.clock[0] += 61
    assert (await endpoint.send(basic(b"one"))).status == 200


async def test_a_full_queue_of_hashes_is_503_at_once() -> None:
    endpoint = Endpoint(secret_world(SecretHash(hash_generated(b"one"), None, "uid/1")), hash_queue=1)
    answers = await asyncio.gather(*(endpoint.send(basic(secret)) for secret in (b"no", b"neither")))
    assert [answer.status for answer in answers] == [401, 503]
    assert (await endpoint.send(basic(b"neither"))).status == 401


async def test_a_client_id_field_must_be_the_one_in_basic() -> None:
    endpoint = Endpoint(secret_world(SecretHash(hash_generated(b"one"), None, "uid/1")))
    assert (await endpoint.send(basic(b"one"), client_id="other")).status == 401
    assert (await endpoint.send(basic(b"one"), client_id=CLIENT_ID)).status == 200


async def test_no_credentials_at_all_are_invalid_client() -> None:
    answer = await Endpoint().send(nothing="x")
    assert (answer.status, content(answer)["error"]) == (401, "invalid_client")


async def test_a_secret_in_the_body_needs_a_client_id() -> None:
    answer = await Endpoint().send(client_secret="one")
    assert (answer.status, content(answer)["error"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("registered", "used", "status"),
    [
        pytest.param(CLIENT_SECRET_BASIC, CLIENT_SECRET_BASIC, 200, id="Basic as registered"),
        pytest.param(CLIENT_SECRET_POST, CLIENT_SECRET_POST, 200, id="in the body as registered"),
        pytest.param(CLIENT_SECRET_BASIC, CLIENT_SECRET_POST, 401, id="in the body though registered for Basic"),
        pytest.param(CLIENT_SECRET_POST, CLIENT_SECRET_BASIC, 401, id="Basic though registered for the body"),
    ],
)
async def test_a_secret_counts_in_the_registered_way_only(registered: str, used: str, status: int) -> None:
    endpoint = Endpoint(secret_world(SecretHash(hash_generated(b"one"), None, "uid/1"), method=registered))
    for _ in range(2):  # also where the secret was verified before
        if used == CLIENT_SECRET_BASIC:
            answer = await endpoint.send(basic(b"one"))
        else:
            answer = await endpoint.send(client_id=CLIENT_ID, client_secret="one")
        assert answer.status == status


async def test_whatever_is_wrong_with_a_secret_in_the_body_the_answer_is_the_same() -> None:
    endpoint = Endpoint(secret_world(SecretHash(hash_generated(b"one"), None, "uid/1")))
    wrong = [
        {"client_id": CLIENT_ID, "client_secret": "two"},
        {"client_id": CLIENT_ID, "client_secret": "one"},
        {"client_id": "nobody", "client_secret": "one"},
        {"client_id": CLIENT_ID, "client_secret": "x" * 73},
    ]
    answers = {(answer.status, answer.body["body"]) for form in wrong for answer in [await endpoint.send(**form)]}
    assert len(answers) == 1


async def test_the_kid_may_be_left_out_with_one_key() -> None:
    header = changed({"alg": "RS256"}, {"kid": MISSING})
    claims = {"iss": CLIENT_ID, "sub": CLIENT_ID, "aud": ISSUER, "jti": "one", "iat": NOW - 5, "exp": NOW + 60}
    assert (await Endpoint().assert_with(encode(CLIENT, header, claims).decode())).status == 200


@pytest.mark.parametrize(
    ("chosen", "copied"),
    [({}, True), ({"permissions_key": "rights"}, False), ({"user_id_key": "rights"}, False)],
    ids=["another name", "the permissions' name", "the user id's name"],
)
async def test_the_names_under_which_users_rights_and_ids_are_read_are_no_clients_to_set(
    chosen: dict[str, Any], copied: bool
) -> None:
    endpoint = Endpoint(**chosen)
    endpoint.world.change_client(allowed_custom_claims=("rights",))
    answer = await endpoint.assert_with(assertion(rights=["admin"]))
    assert ("rights" in payload(answer)) is copied


@pytest.mark.parametrize(
    ("written", "status"),
    [
        pytest.param(b"18446744073709551615", 200, id="the greatest integer of 64 bits"),
        pytest.param(b"-9223372036854775808", 200, id="the least one"),
        pytest.param(b"18446744073709551616", 401, id="an integer beyond"),
        pytest.param(b"1" * 4000, 401, id="an endless one"),
        pytest.param(b'"\\ud800"', 401, id="a text that is no Unicode"),
        pytest.param(b"[" * 14 + b"]" * 14, 200, id="deep lists"),
    ],
)
async def test_a_claim_that_is_copied_can_be_written_or_is_refused(written: bytes, status: int) -> None:
    endpoint = Endpoint()
    endpoint.world.change_client(allowed_custom_claims=("tenant",))
    base = {"iss": CLIENT_ID, "sub": CLIENT_ID, "aud": ISSUER, "jti": "one", "iat": NOW - 5, "exp": NOW + 60}
    claims = json.dumps(base).encode().removesuffix(b"}") + b',"tenant":' + written + b"}"
    answer = await endpoint.assert_with(encode(CLIENT, {"alg": "RS256", "kid": CLIENT.kid}, claims).decode())
    assert answer.status == status
