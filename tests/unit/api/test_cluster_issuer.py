"""The cluster's issuer: found by the API server's own documents, its keys cached, asked for no oftener than every 10 s."""

import asyncio
from typing import Any

import pytest

from keyturn_api.cluster_issuer import DISCOVERY, JWKS, ClusterIssuer
from keyturn_api.kubernetes import Object, Refused, Unreachable
from tests.sample_keys import sample_key
from tests.unit.tokens.test_workload import CLUSTER

KEY, NEXT = sample_key(number=4), sample_key(number=5)


def jwks(*keys: Any) -> Object:
    return {"keys": [key if isinstance(key, dict) else key.public.jwk for key in keys]}


class Server:
    """The API server's documents; an exception is raised in a document's place."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {DISCOVERY: {"issuer": CLUSTER, "jwks_uri": "elsewhere"}, JWKS: jwks(KEY)}
        self.asked: list[str] = []
        self.now = 1000.0

    async def get(self, path: str) -> Object:
        self.asked.append(path)
        await asyncio.sleep(0)
        document = self.documents[path]
        if isinstance(document, Exception):
            raise document
        assert isinstance(document, dict)
        return document

    def issuer(self, **given: Any) -> ClusterIssuer:
        return ClusterIssuer(self, clock=lambda: self.now, **given)


@pytest.fixture
def server() -> Server:
    return Server()


async def test_name_and_keys_are_discovered(server: Server) -> None:
    issuer = server.issuer()
    assert (issuer.name, dict(issuer.keys)) == (None, {})
    await issuer.refresh()
    assert issuer.name == CLUSTER
    assert set(issuer.keys) == {KEY.kid}
    assert server.asked == [DISCOVERY, JWKS]


async def test_a_name_that_is_set_is_not_discovered(server: Server) -> None:
    issuer = server.issuer(name="https://set.example")
    await issuer.refresh()
    assert issuer.name == "https://set.example"
    assert server.asked == [JWKS]


async def test_a_new_key_of_the_cluster_counts_and_a_withdrawn_one_no_longer(server: Server) -> None:
    issuer = server.issuer()
    await issuer.refresh()
    server.documents[JWKS] = jwks(NEXT)
    server.now += 10
    await issuer.refresh()
    assert set(issuer.keys) == {NEXT.kid}


async def test_a_flood_of_refreshes_asks_at_most_once_in_10_s(server: Server) -> None:
    issuer = server.issuer()
    for _ in range(1000):
        await issuer.refresh()
        server.now += 0.0299
    assert server.asked.count(JWKS) == 3


async def test_a_failed_attempt_counts_as_one_too(server: Server) -> None:
    server.documents[JWKS] = Unreachable("GET")
    issuer = server.issuer()
    for _ in range(100):
        await issuer.refresh()
    assert server.asked.count(JWKS) == 1


async def test_refreshes_at_the_same_time_share_one_attempt(server: Server) -> None:
    issuer = server.issuer()
    await asyncio.gather(*(issuer.refresh() for _ in range(50)))
    assert server.asked.count(JWKS) == 1
    assert set(issuer.keys) == {KEY.kid}


async def test_a_caller_that_goes_away_does_not_end_the_attempt_of_others(server: Server) -> None:
    issuer = server.issuer()
    leaves = asyncio.create_task(issuer.refresh())
    stays = asyncio.create_task(issuer.refresh())
    await asyncio.sleep(0)
    leaves.cancel()
    await stays
    assert set(issuer.keys) == {KEY.kid}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Unreachable("GET"), id="no answer"),
        pytest.param(Refused("GET", 403, "Forbidden"), id="not allowed"),
        pytest.param({}, id="no list"),
        pytest.param({"keys": "none"}, id="a list that is none"),
        pytest.param({"keys": []}, id="no key"),
        pytest.param({"keys": [{"kty": "oct", "k": "c2VjcmV0"}, {"kty": "EC", "crv": "P-384"}, 7]}, id="no usable key"),
    ],
)
async def test_what_brings_no_keys_leaves_the_last_good_ones(server: Server, answer: Any) -> None:
    issuer = server.issuer()
    await issuer.refresh()
    server.documents[JWKS] = answer
    server.now += 60
    await issuer.refresh()
    assert set(issuer.keys) == {KEY.kid}


@pytest.mark.parametrize("document", [{}, {"issuer": ""}, {"issuer": 7}, {"issuer": "a" * 3000}])
async def test_an_issuer_without_a_name_is_not_loaded(server: Server, document: Object) -> None:
    server.documents[DISCOVERY] = document
    issuer = server.issuer()
    await issuer.refresh()
    assert (issuer.name, dict(issuer.keys)) == (None, {})


async def test_a_key_that_cannot_be_used_does_not_keep_the_others_away(server: Server) -> None:
    server.documents[JWKS] = jwks({"kty": "EC", "crv": "P-521", "kid": "odd", "x": "AA", "y": "AA"}, KEY)
    issuer = server.issuer()
    await issuer.refresh()
    assert set(issuer.keys) == {KEY.kid}


async def test_no_more_keys_are_read_than_a_cluster_can_have(server: Server) -> None:
    server.documents[JWKS] = jwks(*({**KEY.public.jwk, "kid": f"k{n}"} for n in range(200)))
    issuer = server.issuer()
    await issuer.refresh()
    assert len(issuer.keys) == 100


async def test_the_last_good_keys_count_for_a_day_without_the_api_server(server: Server) -> None:
    issuer = server.issuer()
    await issuer.refresh()
    server.now += 86_399
    assert set(issuer.keys) == {KEY.kid}
    server.now += 1
    assert dict(issuer.keys) == {}


async def test_keys_are_kept_fresh_and_what_failed_is_tried_again_soon(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        server.now += seconds
        if len(pauses) == 1:
            server.documents[JWKS] = jwks(KEY)
        if len(pauses) == 3:
            raise asyncio.CancelledError

    server.documents[JWKS] = Unreachable("GET")
    issuer = server.issuer()

    async def get(path: str) -> Object:
        server.asked.append(path)
        document = server.documents[path]
        if isinstance(document, Exception):
            raise document
        return dict(document)

    monkeypatch.setattr(server, "get", get)
    monkeypatch.setattr("keyturn_api.cluster_issuer.asyncio.sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await issuer.run()
    assert pauses == [10.0, 300.0, 300.0]
    assert set(issuer.keys) == {KEY.kid}
