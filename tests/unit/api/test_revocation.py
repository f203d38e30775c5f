"""`/oauth/revoke`: a token that was given up is refused, and nobody else's token is."""

from typing import Any

import pytest

from keyturn.store.memory import MemoryStore
from keyturn_api import audit
from keyturn_api.http import Response
from keyturn_api.revocation_quota import RevocationQuota
from tests.unit.api.endpoints import Endpoint, assertion, basic, proof
from tests.unit.api.test_introspection import OTHER, Kubernetes, User, world_of_two
from tests.unit.api.worlds import access_token, content, fields
from tests.unit.tokens.worlds import CLIENT_ID, NOW

ALL = ("authorization", "Bearer good")


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The audit records that the test writes."""
    written: list[dict[str, Any]] = []

    def record(event: str, **details: Any) -> None:
        written.append({"event": event, **details})

    monkeypatch.setattr(audit, "record", record)
    return written


async def revoked(store: MemoryStore) -> dict[str, float]:
    return {one.token_hash: one.expires_at for one in (await store.changes(None)).revocations}


def is_done(answer: Response) -> bool:
    return answer.status == 200 and answer.body["body"] == b"" and fields(answer)["cache-control"] == "no-store"


async def test_a_clients_own_token_is_refused_from_the_answer_on(records: list[dict[str, Any]]) -> None:
    endpoint = Endpoint()
    assert content(await endpoint.introspect(access_token(), **proof(assertion(jti="a"))))["active"] is True
    assert is_done(await endpoint.revoke(access_token(), ("x-request-id", "req-7"), **proof(assertion(jti="b"))))
    assert content(await endpoint.introspect(access_token(), **proof(assertion(jti="c")))) == {"active": False}
    (kept,) = (await revoked(endpoint.store)).items()
    (record,) = records
    assert record == {
        "event": "token_revoked",
        "who": CLIENT_ID,
        "request_id": "req-7",
        "client_id": CLIENT_ID,
        "uid": "c1",
        "token_hash": kept[0],
        "token_expires_at": int(NOW + 600),
    }


async def test_a_revocation_outlives_its_token_and_no_clock_can_be_slower_than_that() -> None:
    endpoint = Endpoint()
    await endpoint.revoke(access_token(), **proof())
    (until,) = (await revoked(endpoint.store)).values()
    assert until == NOW + 600 + 10 + 60


async def test_another_token_of_the_client_still_counts() -> None:
    endpoint = Endpoint()
    await endpoint.revoke(access_token(), **proof(assertion(jti="a")))
    answer = await endpoint.introspect(access_token(jti="t2"), **proof(assertion(jti="b")))
    assert content(answer)["active"] is True


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(access_token(), id="another client's"),
        pytest.param(b"x", id="no token at all"),
        pytest.param(access_token(exp=NOW, sub=OTHER, client_id=OTHER), id="its own that has expired"),
        pytest.param(access_token(iss="https://other.example", sub=OTHER, client_id=OTHER), id="another issuer's"),
        pytest.param(access_token(sub=OTHER, client_id=OTHER)[:-2], id="one with a wrong signature"),
    ],
)
@pytest.mark.parametrize("introspection", ["own", "any"])
async def test_where_there_is_nothing_to_revoke_the_answer_is_the_same(
    token: bytes, introspection: str, records: list[dict[str, Any]]
) -> None:
    endpoint = Endpoint(world_of_two(introspection=introspection))
    assert is_done(await endpoint.revoke(token, basic(b"one", OTHER)))
    assert await revoked(endpoint.store) == {}
    assert records == []


async def test_revoking_twice_is_no_error_and_writes_once(records: list[dict[str, Any]]) -> None:
    endpoint = Endpoint()
    for jti in ("a", "b"):
        assert is_done(await endpoint.revoke(access_token(), **proof(assertion(jti=jti))))
    assert len(records) == 1


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "no-such-thing"])
async def test_any_hint_at_the_kind_of_token_is_taken(hint: str) -> None:
    endpoint = Endpoint()
    assert is_done(await endpoint.revoke(access_token(), token_type_hint=hint, **proof()))
    assert len(await revoked(endpoint.store)) == 1


async def test_with_the_store_down_it_is_503_and_the_token_still_counts() -> None:
    endpoint = Endpoint(world_of_two())
    own = access_token(sub=OTHER, client_id=OTHER)
    endpoint.store.available = False
    answer = await endpoint.revoke(own, basic(b"one", OTHER))
    assert (answer.status, content(answer)["error"]) == (503, "temporarily_unavailable")
    assert int(fields(answer)["retry-after"]) >= 1
    assert content(await endpoint.introspect(own, basic(b"one", OTHER)))["active"] is True
    endpoint.store.available = True
    assert is_done(await endpoint.revoke(own, basic(b"one", OTHER)))
    assert content(await endpoint.introspect(own, basic(b"one", OTHER)))["active"] is False


async def test_who_may_revoke_by_kubernetes_revokes_any_clients_token(records: list[dict[str, Any]]) -> None:
    kubernetes = Kubernetes("revoke")
    endpoint = Endpoint(administration=kubernetes)
    assert is_done(await endpoint.revoke(access_token(), ALL))
    assert kubernetes.asked == [("revoke", "team")]
    assert [record["who"] for record in records] == [User.username]
    assert len(await revoked(endpoint.store)) == 1


async def test_a_client_has_so_many_tokens_revoked_at_a_time_and_is_told_what_to_do_instead() -> None:
    endpoint = Endpoint(world_of_two(), revocations_per_client=2)
    tokens = [access_token(sub=OTHER, client_id=OTHER, jti=f"t{number}") for number in range(3)]
    for token in tokens[:2]:
        assert is_done(await endpoint.revoke(token, basic(b"one", OTHER)))
    assert is_done(await endpoint.revoke(tokens[0], basic(b"one", OTHER)))  # stands already
    answer = await endpoint.revoke(tokens[2], basic(b"one", OTHER))
    assert (answer.status, content(answer)["error"]) == (429, "slow_down")
    assert "revokeTokensIssuedBefore" in content(answer)["error_description"]
    assert 600 < int(fields(answer)["retry-after"]) <= 600 + 10 + 60 + 600 + 1
    assert content(await endpoint.introspect(tokens[2], basic(b"one", OTHER)))["active"] is True
    assert len(await revoked(endpoint.store)) == 2
    # Another client is not concerned.
    assert is_done(await endpoint.revoke(access_token(), **proof()))
    endpoint.clock[0] += int(fields(answer)["retry-after"])
    later = access_token(sub=OTHER, client_id=OTHER, jti="t9", iat=endpoint.clock[0], exp=endpoint.clock[0] + 600)
    assert is_done(await endpoint.revoke(later, basic(b"one", OTHER)))


async def test_who_may_revoke_by_kubernetes_is_not_stopped_by_what_the_client_has_used_up() -> None:
    endpoint = Endpoint(revocations_per_client=1, administration=Kubernetes("revoke"))
    assert is_done(await endpoint.revoke(access_token(), **proof()))
    for number in range(3):
        assert is_done(await endpoint.revoke(access_token(jti=f"n{number}"), ALL))
    assert len(await revoked(endpoint.store)) == 4


async def test_a_revocation_that_the_store_did_not_take_is_not_counted() -> None:
    endpoint = Endpoint(world_of_two(), revocations_per_client=1)
    own = access_token(sub=OTHER, client_id=OTHER)
    endpoint.store.available = False
    for _ in range(3):
        assert (await endpoint.revoke(own, basic(b"one", OTHER))).status == 503
    endpoint.store.available = True
    assert is_done(await endpoint.revoke(own, basic(b"one", OTHER)))


def test_the_count_of_revocations_holds_no_more_than_what_stands() -> None:
    quota = RevocationQuota(2)
    for number in range(5000):
        assert quota.take(f"client-{number}", NOW + number + 60, NOW + number) is None
    assert len(quota._clients) < 3000
    assert all(RevocationQuota(0).take("one", NOW + 60, NOW) is None for _ in range(10))


async def test_a_token_of_a_suspended_client_is_revoked_for_good() -> None:
    endpoint = Endpoint(administration=Kubernetes("revoke"))
    endpoint.world.change_client(suspended=True)
    assert is_done(await endpoint.revoke(access_token(), ALL))
    endpoint.world.change_client()
    answer = await endpoint.introspect(access_token(), **proof())
    assert content(answer) == {"active": False}


async def test_a_token_that_is_not_accepted_here_is_revoked_all_the_same() -> None:
    endpoint = Endpoint(accepted_audiences=("elsewhere",))
    assert is_done(await endpoint.revoke(access_token(), **proof()))
    assert len(await revoked(endpoint.store)) == 1


async def test_who_may_only_introspect_by_kubernetes_revokes_nothing() -> None:
    endpoint = Endpoint(administration=Kubernetes("introspect"))
    answer = await endpoint.revoke(access_token(), ALL)
    assert (answer.status, content(answer)["error"]) == (403, "access_denied")
    assert await revoked(endpoint.store) == {}


async def test_a_caller_must_prove_who_it_is() -> None:
    endpoint = Endpoint(world_of_two())
    answer = await endpoint.revoke(access_token(), client_id=CLIENT_ID)
    assert (answer.status, content(answer)["error"]) == (401, "invalid_client")
    # The token itself proves nothing.
    answer = await endpoint.revoke(access_token(), ("authorization", b"Bearer " + access_token()))
    assert answer.status == 404
    assert await revoked(endpoint.store) == {}
