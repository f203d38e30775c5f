"""Pods' tokens at the token endpoint: recognized, proven, confirmed by the API server where that is allowed, and nowhere else of use."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from keyturn.tokens.assertion import read_assertion
from keyturn.tokens.refusal import TokenRefused
from keyturn.tokens.workload import verify_workload
from keyturn_api.client_authentication import AssertionCredential, Attempt
from keyturn_api.cluster_issuer import DISCOVERY, JWKS, ClusterIssuer
from keyturn_api.errors import ApiError
from keyturn_api.http import Response
from keyturn_api.kubernetes import Object, Refused, Unreachable
from keyturn_api.workload import TokenReviews, WorkloadIdentity, workload_identity
from tests.sample_keys import sample_key
from tests.unit.api.endpoints import Endpoint, payload
from tests.unit.api.test_cluster_issuer import Server, jwks
from tests.unit.api.worlds import World, content, settings
from tests.unit.tokens.test_workload import ACCOUNT, CLUSTER, KEY, WORKLOADS, token, world
from tests.unit.tokens.worlds import CLIENT_ID, ISSUER, MISSING, NOW


def confirmed(**changes: Any) -> Object:
    """The status of a TokenReview, as an API server answers for a token of a pod that lives."""
    user = {
        "username": "system:serviceaccount:team:app",
        "uid": "uid-account",
        "groups": ["system:serviceaccounts"],
        "extra": {
            "authentication.kubernetes.io/pod-name": ["app-1"],
            "authentication.kubernetes.io/pod-uid": ["uid-pod"],
        },
    }
    return {"authenticated": True, "user": {**user, **changes.pop("user", {})}, "audiences": [ISSUER], **changes}


class Cluster(Server):
    """An API server that reviews tokens, too."""

    def __init__(self) -> None:
        super().__init__()
        self.review: Callable[[], Any] = confirmed
        self.reviewed: list[Object] = []

    async def create(self, collection: str, body: Object) -> Object:
        assert collection == "/apis/authentication.k8s.io/v1/tokenreviews"
        self.reviewed.append(body["spec"])
        await asyncio.sleep(0)
        status = self.review()
        if isinstance(status, Exception):
            raise status
        return {"status": status}


class Pods(Endpoint):
    """The token endpoint of a cluster, with the client `team.app` for the account `team/app`."""

    def __init__(self, *, reviews: bool = True) -> None:
        super().__init__()
        self.cluster = Cluster()
        self.world.change_client(keys=(), service_account=ACCOUNT)
        clock = lambda: self.cluster.now  # noqa: E731
        self.issuer = ClusterIssuer(self.cluster, clock=clock)
        self.reviews = TokenReviews(self.cluster, audience=ISSUER, clock=clock) if reviews else None
        self.workloads = WorkloadIdentity(
            self.world.snapshot,
            self.issuer,
            self.reviews,
            audience=ISSUER,
            clock_skew=10,
            clock=lambda: self.clock[0],
        )
        self.endpoint._workloads = self.workloads

    async def send_token(self, given: bytes | None = None, **form: Any) -> Response:
        return await self.assert_with((given or token()).decode(), **{"client_id": CLIENT_ID, **form})

    async def loaded(self) -> "Pods":
        await self.issuer.refresh()
        return self


@pytest.fixture
async def pods() -> Pods:
    return await Pods().loaded()


async def test_a_pod_gets_its_client_s_tokens_again_and_again(pods: Pods) -> None:
    answers = [await pods.send_token() for _ in range(3)]
    assert [one.status for one in answers] == [200, 200, 200]
    claims = payload(answers[0])
    assert (claims["client_id"], claims["sub"], claims["aud"]) == (CLIENT_ID, CLIENT_ID, ["orders", "stock"])
    assert "kubernetes.io" not in claims


async def test_a_pod_may_ask_for_a_part_of_what_its_client_holds(pods: Pods) -> None:
    answer = await pods.send_token(audience="orders", scope="orders:read")
    assert (payload(answer)["aud"], payload(answer)["permissions"]) == (["orders"], ["orders:read"])
    assert content(await pods.send_token(audience="elsewhere"))["error"] == "invalid_target"


async def test_without_client_id_the_request_is_incomplete(pods: Pods) -> None:
    answer = await pods.assert_with(token().decode())
    assert (answer.status, content(answer)["error"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("changes", "form"),
    [
        pytest.param({"aud": [CLUSTER]}, {}, id="another audience"),
        pytest.param({"sub": "system:serviceaccount:team:other"}, {}, id="another account"),
        pytest.param({"exp": NOW - 20}, {}, id="expired"),
        pytest.param({}, {"client_id": "team.unknown"}, id="an unknown client"),
        pytest.param({"iss": "https://other.example"}, {}, id="another issuer"),
        pytest.param({"iss": CLIENT_ID, "sub": CLIENT_ID}, {}, id="posing as an assertion of the client's own"),
    ],
)
async def test_a_token_is_refused(pods: Pods, changes: dict[str, Any], form: dict[str, str]) -> None:
    answer = await pods.send_token(token(**changes), **form)
    assert (answer.status, content(answer)["error"]) == (401, "invalid_client")
    assert pods.cluster.reviewed == []


async def test_a_suspension_counts_at_once(pods: Pods) -> None:
    assert (await pods.send_token()).status == 200
    pods.world.change_client(keys=(), service_account=ACCOUNT, suspended=True)
    assert (await pods.send_token()).status == 401


async def test_with_no_keys_of_the_issuer_it_is_503_and_not_a_refusal() -> None:
    pods = Pods()
    pods.cluster.documents[JWKS] = Unreachable("GET")
    answer = await pods.send_token()
    assert (answer.status, content(answer)["error"]) == (503, "temporarily_unavailable")
    pods.cluster.documents[JWKS] = jwks(KEY)
    assert (await pods.send_token()).status == 503
    pods.cluster.now += 10
    assert (await pods.send_token()).status == 200


async def test_an_assertion_of_a_client_s_own_does_not_wait_for_the_cluster() -> None:
    pods = Pods()
    pods.cluster.documents[DISCOVERY] = Unreachable("GET")
    pods.world.change_client()
    assert (await pods.assert_with()).status == 200
    assert pods.cluster.asked == []


async def test_a_new_key_of_the_cluster_is_fetched_when_a_token_of_it_comes(pods: Pods) -> None:
    fresh = sample_key(number=6)
    pods.cluster.documents[JWKS] = jwks(KEY, fresh)
    assert (await pods.send_token(token(fresh))).status == 401
    pods.cluster.now += 10
    assert (await pods.send_token(token(fresh))).status == 200


async def test_a_flood_of_unknown_kids_fetches_once_in_10_s(pods: Pods) -> None:
    pods.cluster.now += 100
    before = pods.cluster.asked.count(JWKS)
    for number in range(200):
        answer = await pods.send_token(token(header={"kid": f"unknown-{number}"}))
        assert answer.status == 401
        pods.cluster.now += 0.1
    assert pods.cluster.asked.count(JWKS) - before == 2
    assert (await pods.send_token()).status == 200


async def test_the_api_server_is_asked_with_our_audience_and_its_answer_holds_for_10_s(pods: Pods) -> None:
    assert (await pods.send_token()).status == 200
    assert pods.cluster.reviewed == [{"token": token().decode(), "audiences": [ISSUER]}]
    pods.cluster.now += 9.9
    assert (await pods.send_token()).status == 200
    assert len(pods.cluster.reviewed) == 1
    pods.cluster.review = lambda: {"authenticated": False}
    pods.cluster.now += 0.1
    assert (await pods.send_token()).status == 401


async def test_requests_with_one_token_at_the_same_time_cost_one_review_each_at_most_eight(pods: Pods) -> None:
    answers = await asyncio.gather(*(pods.send_token() for _ in range(40)))
    assert {one.status for one in answers} == {200}
    assert len(pods.cluster.reviewed) <= 8


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({"authenticated": False, "error": "pod is gone"}, id="not authenticated"),
        pytest.param({}, id="an empty status"),
        pytest.param(None, id="no status"),
        pytest.param(confirmed(authenticated="true"), id="authenticated in words"),
        pytest.param(confirmed(error="half"), id="an error beside"),
        pytest.param(confirmed(audiences=[]), id="no audience"),
        pytest.param(confirmed(audiences=[CLUSTER]), id="another audience"),
        pytest.param(confirmed(user={"username": "system:serviceaccount:team:other"}), id="another user"),
        pytest.param(confirmed(user={"uid": "uid-before"}), id="another uid"),
        pytest.param(confirmed(user={"extra": {}}), id="no pod"),
        pytest.param(
            confirmed(user={"extra": {"authentication.kubernetes.io/pod-uid": ["uid-other"]}}), id="another pod"
        ),
        pytest.param([], id="a status of another form"),
        pytest.param({**confirmed(), "user": "admin"}, id="a user of another form"),
    ],
)
async def test_a_token_that_the_api_server_does_not_confirm_is_refused(pods: Pods, status: Any) -> None:
    pods.cluster.review = lambda: status
    answer = await pods.send_token()
    assert (answer.status, content(answer)["error"]) == (401, "invalid_client")
    assert (await pods.send_token()).status == 401
    assert len(pods.cluster.reviewed) == 1


@pytest.mark.parametrize("failure", [Unreachable("POST"), Refused("POST", 422, "Invalid")])
async def test_while_the_api_server_cannot_be_asked_it_is_503(pods: Pods, failure: Exception) -> None:
    pods.cluster.review = lambda: failure
    answer = await pods.send_token()
    assert (answer.status, content(answer)["error"]) == (503, "temporarily_unavailable")
    pods.cluster.review = confirmed
    assert (await pods.send_token()).status == 200


async def test_where_reviews_are_not_allowed_the_token_counts_by_itself_and_the_right_is_noticed_later(
    pods: Pods,
) -> None:
    pods.cluster.review = lambda: Refused("POST", 403, "Forbidden")
    assert [(await pods.send_token(token(jti=str(n)))).status for n in range(5)] == [200] * 5
    assert len(pods.cluster.reviewed) == 1
    pods.cluster.review = lambda: {"authenticated": False}
    pods.cluster.now += 60
    assert (await pods.send_token()).status == 401


async def test_without_reviews_a_deleted_pod_s_token_counts_until_its_end() -> None:
    pods = await Pods(reviews=False).loaded()
    assert (await pods.send_token()).status == 200
    assert pods.cluster.reviewed == []
    pods.clock[0] = NOW + 3600
    assert (await pods.send_token()).status == 401


async def test_what_was_stopped_during_the_review_gets_no_token(pods: Pods) -> None:
    def stop() -> Object:
        pods.world.change_client(keys=(), service_account=ACCOUNT, suspended=True)
        return confirmed()

    pods.cluster.review = stop
    assert (await pods.send_token()).status == 401


async def test_more_reviews_than_can_wait_are_turned_away_at_once(pods: Pods) -> None:
    assert pods.reviews is not None
    pods.reviews._waiting = 256
    assert (await pods.send_token()).status == 503
    assert pods.cluster.reviewed == []


async def test_where_a_pod_s_token_is_not_asked_for_it_proves_nobody(pods: Pods) -> None:
    attempt = Attempt(AssertionCredential(token()), CLIENT_ID, "192.0.2.7")
    with pytest.raises(ApiError) as caught:
        await pods.authenticator.authenticate(attempt, lambda client: client)
    assert caught.value.status == 401


def test_a_pod_s_token_is_no_access_token() -> None:
    with pytest.raises(TokenRefused):
        World().tokens().verify(b"Bearer " + token(), NOW)


async def test_a_review_confirms_only_what_was_verified(pods: Pods) -> None:
    verified = verify_workload(
        read_assertion(token()), clients=world(), keys=pods.issuer.keys, policy=WORKLOADS, client_id=CLIENT_ID, now=NOW
    )
    assert pods.reviews is not None
    await pods.reviews.confirm(b"some other token", verified)
    pods.cluster.review = lambda: confirmed(user={"extra": MISSING})
    with pytest.raises(TokenRefused):
        await pods.reviews.confirm(b"one more", verified)


def test_without_kubernetes_or_switched_off_there_is_no_workload_identity() -> None:
    assert workload_identity(settings(), World().snapshot, None) is None
    assert workload_identity(settings(workload_identity=False), World().snapshot, object()) is None  # type: ignore[arg-type]
